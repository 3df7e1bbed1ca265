/*
 * A subscription for Lua. Messages wait in libnats, within its limits; beyond them it drops and
 * counts.
 *
 *   link:subscribe(subject, group or nil, id, messages, bytes, jetstream, no_headers, class)
 *       -> subscription | nil, code, text
 *   subscription:pop() -> message | nil | nil, report
 *       see message.h; `class` is its metatable. The report "no_responders": a request of this
 *       subscription went nowhere
 *   subscription:pop_many(list, count, max) -> count
 *       appends messages to a list of `count` until it has `max`; reports are thrown away
 *   subscription:receipt() -> number, stream, sequence | number, nil, message | false | nothing
 *       the next answer of a stream to what was published with link:publish_many(), and its number;
 *       what is no plain receipt comes as a message. False: some message went nowhere, and libnats
 *       does not say which
 *   subscription:arm() -> whether there are messages
 *       if not, the link's function is called for it, once
 *   subscription:stats() -> queued messages, queued bytes, dropped
 *   subscription:close()
 */
#include <string.h>

#include "brokers/nats/message.h"
#include "brokers/nats/nats.h"

#define NEVER_EMPTY UINT64_MAX

static nats_subscription *check(lua_State *L) { return weir_nats_self(L, WEIR_NATS_SUBSCRIPTION); }

static void release(nats_subscription *self) {
  weir_list_remove(&self->armed);
  if (self->current != NULL) natsMsg_Destroy(self->current);
  if (self->sub != NULL) natsSubscription_Destroy(self->sub);
  weir_nats_bin_empty(&self->bin);
  self->current = NULL;
  self->sub = NULL;
}

int weir_nats_subscribe(lua_State *L) {
  nats_link *link = weir_nats_check_link(L);
  size_t length;
  const char *subject = luaL_checklstring(L, 2, &length);
  const char *group = luaL_optstring(L, 3, NULL);
  lua_Integer id = luaL_checkinteger(L, 4);
  lua_Integer messages = luaL_checkinteger(L, 5), bytes = luaL_checkinteger(L, 6);
  luaL_checktype(L, 8, LUA_TTABLE);
  luaL_checktype(L, 9, LUA_TTABLE);
  luaL_argcheck(L, messages > 0 && messages <= INT32_MAX, 5, "out of range");
  luaL_argcheck(L, bytes > 0 && bytes <= INT32_MAX, 6, "out of range");
  natsConnection *nc = weir_nats_connection(link);
  if (nc == NULL) return weir_nats_fail(L, NATS_CONNECTION_CLOSED);
  if (!weir_nats_subject_valid(subject, length, true)) {
    return weir_nats_fail(L, NATS_INVALID_SUBJECT);
  }
  nats_subscription *self = lua_newuserdatauv(L, sizeof *self, 3);
  *self = (nats_subscription){
      .link = link, .id = id, .jetstream = lua_toboolean(L, 7) != 0, .empty_at = NEVER_EMPTY};
  weir_list_init(&self->armed);
  luaL_setmetatable(L, WEIR_NATS_SUBSCRIPTION);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, NATS_SUB_LINK);
  lua_pushvalue(L, 8);
  lua_setiuservalue(L, -2, NATS_SUB_HEADERS);
  lua_pushvalue(L, 9);
  lua_setiuservalue(L, -2, NATS_SUB_CLASS);
  natsStatus status = group != NULL
                          ? natsConnection_QueueSubscribeSync(&self->sub, nc, subject, group)
                          : natsConnection_SubscribeSync(&self->sub, nc, subject);
  if (status != NATS_OK) return weir_nats_fail(L, status);
  status = natsSubscription_SetPendingLimits(self->sub, (int)messages, (int)bytes);
  if (status != NATS_OK) return weir_nats_fail(L, status);
  return 1;
}

/* The next message, or NULL; then *nobody says whether somebody asked where nobody responds. */
static natsMsg *take(nats_subscription *self, bool *nobody) {
  natsMsg *msg = NULL;
  *nobody = false;
  if (self->sub == NULL || self->link->link == NULL || !self->link->box->open) return NULL;
  uint64_t reads = weir_nats_link_reads(self->link->link);
  if (self->empty_at == reads) return NULL;
  natsStatus status = natsSubscription_NextMsg(&msg, self->sub, 0);
  if (status == NATS_SLOW_CONSUMER) { /* said once for what was dropped; the messages follow */
    self->slow++;
    status = natsSubscription_NextMsg(&msg, self->sub, 0);
  }
  *nobody = status == NATS_NO_RESPONDERS;
  if (status != NATS_OK && !*nobody) self->empty_at = reads;
  return msg;
}

/* Pushes the next message; 0: there is none; 1: a message; 2: nil and a report. The table of no
 * headers is at `headers`. */
static int push_next(lua_State *L, nats_subscription *self, int headers) {
  if (self->current != NULL) natsMsg_Destroy(self->current);
  bool nobody;
  self->current = take(self, &nobody);
  if (nobody) {
    lua_pushnil(L);
    lua_pushliteral(L, "no_responders");
    return 2;
  }
  if (self->current == NULL) {
    weir_nats_bin_empty(&self->bin);
    return 0;
  }
  bool message = weir_nats_push_message(L, self->current, self->jetstream, headers);
  weir_nats_bin_put(&self->bin, self->current);
  self->current = NULL;
  lua_getiuservalue(L, 1, NATS_SUB_CLASS);
  lua_setmetatable(L, -2);
  if (message) return 1;
  lua_pushnil(L);
  lua_insert(L, -2);
  return 2;
}

static int subscription_pop(lua_State *L) {
  nats_subscription *self = check(L);
  lua_settop(L, 1);
  lua_getiuservalue(L, 1, NATS_SUB_HEADERS);
  return push_next(L, self, 2);
}

static int subscription_pop_many(lua_State *L) {
  nats_subscription *self = check(L);
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_Integer count = luaL_checkinteger(L, 3), max = luaL_checkinteger(L, 4);
  lua_settop(L, 2);
  lua_getiuservalue(L, 1, NATS_SUB_HEADERS);
  while (count < max) {
    int pushed = push_next(L, self, 3);
    if (pushed == 0) break;
    if (pushed == 1) lua_rawseti(L, 2, ++count);
    lua_settop(L, 3); /* reports are not for this */
  }
  lua_pushinteger(L, count);
  return 1;
}

/* The number at the end of the subject of an answer; 0: it has none. */
static lua_Integer answer_number(natsMsg *msg) {
  const char *subject = natsMsg_GetSubject(msg);
  const char *dot = subject != NULL ? strrchr(subject, '.') : NULL;
  lua_Integer number = 0;
  for (const char *at = dot != NULL ? dot + 1 : ""; *at >= '0' && *at <= '9'; at++) {
    if (number > LUA_MAXINTEGER / 10 - 1) return 0;
    number = number * 10 + (*at - '0');
  }
  return number;
}

static bool skip(const char **at, const char *end, const char *text) {
  size_t length = strlen(text);
  if ((size_t)(end - *at) < length || memcmp(*at, text, length) != 0) return false;
  *at += length;
  return true;
}

/* Pushes stream and sequence of what a server writes nearly always: {"stream":"NAME","seq":1} with
 * at most one space. False for anything else, and nothing is pushed. */
static bool push_receipt(lua_State *L, natsMsg *msg) {
  const char *at = natsMsg_GetData(msg);
  if (at == NULL) return false;
  const char *end = at + natsMsg_GetDataLength(msg);
  if (!skip(&at, end, "{\"stream\":\"")) return false;
  const char *name = at;
  while (at < end && *at != '"' && *at != '\\')
    at++;
  size_t length = (size_t)(at - name);
  if (!skip(&at, end, "\",")) return false;
  (void)skip(&at, end, " ");
  if (!skip(&at, end, "\"seq\":")) return false;
  lua_Integer sequence = 0;
  const char *digits = at;
  for (; at < end && *at >= '0' && *at <= '9' && at - digits < 18; at++)
    sequence = sequence * 10 + (*at - '0');
  if (at == digits || end - at != 1 || *at != '}') return false;
  lua_pushlstring(L, name, length);
  lua_pushinteger(L, sequence);
  return true;
}

static int subscription_receipt(lua_State *L) {
  nats_subscription *self = check(L);
  lua_settop(L, 1);
  if (self->current != NULL) natsMsg_Destroy(self->current);
  bool nobody;
  self->current = take(self, &nobody);
  if (nobody) {
    lua_pushboolean(L, 0);
    return 1;
  }
  if (self->current == NULL) {
    weir_nats_bin_empty(&self->bin);
    return 0;
  }
  lua_pushinteger(L, answer_number(self->current));
  int results = 3;
  if (!push_receipt(L, self->current)) {
    lua_pushnil(L);
    lua_getiuservalue(L, 1, NATS_SUB_HEADERS);
    (void)weir_nats_push_message(L, self->current, false, -1);
    lua_remove(L, -2);
  }
  weir_nats_bin_put(&self->bin, self->current);
  self->current = NULL;
  return results;
}

static bool has_messages(nats_subscription *self) {
  uint64_t queued = 0;
  return self->sub != NULL && natsSubscription_QueuedMsgs(self->sub, &queued) == NATS_OK &&
         queued > 0;
}

static int subscription_arm(lua_State *L) {
  nats_subscription *self = check(L);
  bool ready = has_messages(self);
  if (!ready && self->link->link != NULL && !weir_list_linked(&self->armed)) {
    weir_list_append(&self->link->armed, &self->armed);
  }
  lua_pushboolean(L, ready);
  return 1;
}

void weir_nats_wake(nats_link *box) {
  weir_list ready;
  weir_list_init(&ready);
  for (weir_link *at = box->armed.next; at != &box->armed;) {
    nats_subscription *self = weir_list_of(at, nats_subscription, armed);
    at = at->next;
    if (!has_messages(self)) continue;
    weir_list_remove(&self->armed);
    weir_list_append(&ready, &self->armed);
  }
  for (weir_link *at; (at = weir_list_first(&ready)) != NULL;) {
    nats_subscription *self = weir_list_of(at, nats_subscription, armed);
    weir_list_remove(at);
    weir_nats_emit(box, "ready", self->id, NULL);
  }
}

static int subscription_stats(lua_State *L) {
  nats_subscription *self = check(L);
  int messages = 0, bytes = 0;
  int64_t dropped = 0;
  if (self->sub != NULL) {
    (void)natsSubscription_GetPending(self->sub, &messages, &bytes);
    (void)natsSubscription_GetDropped(self->sub, &dropped);
  }
  lua_pushinteger(L, messages);
  lua_pushinteger(L, bytes);
  lua_pushinteger(L, dropped);
  return 3;
}

static int subscription_close(lua_State *L) {
  release(check(L));
  return 0;
}

static const luaL_Reg methods[] = {
    {"pop", subscription_pop},
    {"pop_many", subscription_pop_many},
    {"receipt", subscription_receipt},
    {"arm", subscription_arm},
    {"stats", subscription_stats},
    {"close", subscription_close},
    {NULL, NULL},
};
static const luaL_Reg metamethods[] = {{"__gc", subscription_close}, {NULL, NULL}};

void weir_nats_open_subscription(lua_State *L) {
  weir_nats_new_class(L, WEIR_NATS_SUBSCRIPTION, metamethods, methods);
}
