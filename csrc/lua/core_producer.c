/*
 * core.producer{epoch=, max_items=, max_bytes=, max_message=, lag="disconnect"|"block", grace=s}
 *
 *   :send(bytes) -> true | nil, word     "again" (full), "pause" (let others run, then call again),
 *                                        "offline", "closed", "limit", "nomem"
 *   :try_send(bytes)                     the same, without "pause"
 *   :sync() -> true | nil, "again"       asks all subscribers to acknowledge
 *   :acknowledged() -> sequence          everything before it has been taken by all subscribers
 *   :set_online(bool)  :count() -> n     of subscribers
 *   :evict_slow()  :lag_deadline() -> seconds | nil
 *   :subscribers() -> {{id=, local=bool, messages=, bytes=, queued=, unacknowledged=, since=,
 *                      credit_messages=, credit_bytes=, rtt=}, ...}
 *   :detach(id, code, reason) -> bool
 *   :stats() -> {messages=, bytes=, queued=, queued_bytes=, undelivered=, evicted=, next_sequence=,
 *                epoch=}
 *   :close(code, reason)
 *
 * core.send_function(slow) -> function(handle, value, ...)      Lua 5.4 only
 *   Sends a string by the producer in handle[1] if that is possible at once; else slow(handle,
 * value,
 *   ...), which may yield. One C function in place of a Lua function and a method: the hot path of
 *   send().
 */
#include <string.h>

#include "core/outlet.h"
#include "core/time.h"
#include "lua/core.h"
#include "lua/stream.h"

#define NAME "weir.core.producer"

static const char KIND = 'p';

static weir_lua_producer *self_of(lua_State *L) {
  weir_lua_producer *self = weir_lua_self(L, NAME);
  if (self->producer == NULL) luaL_error(L, "the producer is gone");
  return self;
}

weir_lua_producer *weir_lua_test_producer(lua_State *L, int index) {
  weir_lua_producer *producer = luaL_checkudata(L, index, NAME);
  if (producer->producer == NULL) luaL_error(L, "the producer is gone");
  return producer;
}

static int new_producer(lua_State *L) {
  static const char *const LAGS[] = {"disconnect", "block", NULL};
  luaL_checktype(L, 1, LUA_TTABLE);
  weir_producer_config config = {
      .epoch = weir_lua_field_count(L, 1, "epoch", 0),
      .max_bytes = (size_t)weir_lua_field_count(L, 1, "max_bytes", 0),
      .max_message = (size_t)weir_lua_field_count(L, 1, "max_message", 0)};
  const uint64_t items = weir_lua_field_count(L, 1, "max_items", 0);
  config.max_items = items > INT32_MAX ? INT32_MAX : (uint32_t)items;
  lua_getfield(L, 1, "grace");
  const lua_Number grace = luaL_optnumber(L, -1, 0);
  if (!(grace >= 0 && grace < 1e9)) luaL_error(L, "field 'grace' must be seconds, at least 0");
  config.grace = (uint64_t)(grace * 1e9);
  lua_getfield(L, 1, "lag");
  config.lag =
      luaL_checkoption(L, -1, "disconnect", LAGS) == 0 ? WEIR_LAG_DISCONNECT : WEIR_LAG_BLOCK;
  weir_lua_producer *self = weir_lua_new_plain(L, sizeof *self);
  self->kind = &KIND;
  self->producer = NULL;
  luaL_getmetatable(L, NAME);
  lua_setmetatable(L, -2);
  self->hub = weir_lua_get_hub(L);
  self->producer = weir_producer_new(NULL, &self->hub->hub, &config);
  if (self->producer == NULL) return luaL_error(L, "not enough memory");
  weir_lua_register_source(L, &self->producer->source);
  return 1;
}

static int producer_collect(lua_State *L) {
  weir_lua_producer *self = weir_lua_self(L, NAME);
  weir_producer_free(self->producer);
  self->producer = NULL;
  return 0;
}

static int producer_try_send(lua_State *L) {
  weir_lua_producer *self = self_of(L);
  size_t len;
  const char *payload = luaL_checklstring(L, 2, &len);
  return weir_lua_result(L, weir_producer_send(self->producer, payload, len));
}

static int producer_send(lua_State *L) {
  weir_lua_producer *self = self_of(L);
  if (self->hub->budget <= 0) {
    lua_pushnil(L);
    lua_pushliteral(L, "pause");
    return 2;
  }
  self->hub->budget--;
  return producer_try_send(L);
}

#if !WEIR_LUA_51
/* Upvalue: the function for when it cannot be sent at once. */
static int send_or_slow(lua_State *L) {
  const int top = lua_gettop(L);
  weir_lua_producer *self = weir_lua_handle(L, &KIND);
  if (self != NULL && self->producer != NULL && self->hub->budget > 0 &&
      lua_type(L, 2) == LUA_TSTRING) {
    size_t len;
    const char *payload = lua_tolstring(L, 2, &len);
    if (weir_producer_send(self->producer, payload, len) == WEIR_OK) {
      self->hub->budget--;
      lua_pushboolean(L, 1);
      return 1;
    }
  }
  return weir_lua_slow(L, top, 1);
}

static int send_function(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_pushvalue(L, 1);
  lua_pushcclosure(L, send_or_slow, 1);
  return 1;
}
#endif

static int producer_sync(lua_State *L) {
  return weir_lua_result(L, weir_producer_sync(self_of(L)->producer));
}

static int producer_acknowledged(lua_State *L) {
  weir_lua_push_count(L, weir_producer_acknowledged(self_of(L)->producer));
  return 1;
}

static int producer_set_online(lua_State *L) {
  self_of(L)->producer->online = lua_toboolean(L, 2);
  return 0;
}

static int producer_count(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)self_of(L)->producer->count);
  return 1;
}

static int producer_evict_slow(lua_State *L) {
  weir_producer_evict_slow(self_of(L)->producer);
  return 0;
}

static int producer_lag_deadline(lua_State *L) {
  const uint64_t deadline = self_of(L)->producer->lag_deadline;
  if (deadline == 0) return 0;
  lua_pushnumber(L, (lua_Number)deadline / 1e9);
  return 1;
}

static void push_subscriber(lua_State *L, const weir_producer *p, const weir_subscriber *s) {
  weir_outlet_gauge gauge;
  const bool remote = weir_outlet_gauge_of(s, &gauge);
  lua_createtable(L, 0, 10);
  weir_lua_set_count(L, "id", s->id);
  weir_lua_set_count(L, "messages", s->messages);
  weir_lua_set_count(L, "bytes", s->bytes);
  weir_lua_set_count(L, "queued", p->head - s->cursor);
  weir_lua_set_count(L, "unacknowledged", p->head - s->acknowledged);
  lua_pushnumber(L, (lua_Number)s->since / 1e9);
  lua_setfield(L, -2, "since");
  lua_pushboolean(L, !remote);
  lua_setfield(L, -2, "local");
  if (!remote) return;
  weir_lua_set_count(L, "credit_messages", gauge.credit_items);
  weir_lua_set_count(L, "credit_bytes", gauge.credit_bytes);
  if (gauge.rtt != 0) {
    lua_pushnumber(L, (lua_Number)gauge.rtt / 1e9);
    lua_setfield(L, -2, "rtt");
  }
}

static int producer_subscribers(lua_State *L) {
  const weir_producer *p = self_of(L)->producer;
  lua_createtable(L, (int)(p->count < 1024 ? p->count : 1024), 0);
  int n = 0;
  for (weir_link *l = p->subscribers.next; l != &p->subscribers; l = l->next) {
    push_subscriber(L, p, weir_list_of(l, weir_subscriber, link));
    lua_rawseti(L, -2, ++n);
  }
  return 1;
}

static int producer_detach(lua_State *L) {
  weir_producer *p = self_of(L)->producer;
  lua_pushboolean(
      L, weir_producer_detach_id(p, weir_lua_check_count(L, 2), (uint32_t)luaL_checkinteger(L, 3),
                                 luaL_optstring(L, 4, "")));
  return 1;
}

static int producer_stats(lua_State *L) {
  const weir_producer *p = self_of(L)->producer;
  lua_createtable(L, 0, 8);
  weir_lua_set_count(L, "messages", p->messages);
  weir_lua_set_count(L, "bytes", p->payload_bytes);
  weir_lua_set_count(L, "queued", p->head - p->tail);
  weir_lua_set_count(L, "queued_bytes", p->bytes);
  weir_lua_set_count(L, "undelivered", p->undelivered);
  weir_lua_set_count(L, "evicted", p->evicted);
  weir_lua_set_count(L, "next_sequence", p->head);
  weir_lua_set_count(L, "epoch", p->config.epoch);
  return 1;
}

static int producer_close(lua_State *L) {
  weir_producer_close(self_of(L)->producer, (uint32_t)luaL_optinteger(L, 2, WEIR_CLOSE_SHUTDOWN),
                      luaL_optstring(L, 3, "the producer was closed"));
  return 0;
}

void weir_lua_open_producer(lua_State *L) {
  static const luaL_Reg METHODS[] = {{"send", producer_send},
                                     {"try_send", producer_try_send},
                                     {"sync", producer_sync},
                                     {"acknowledged", producer_acknowledged},
                                     {"set_online", producer_set_online},
                                     {"count", producer_count},
                                     {"evict_slow", producer_evict_slow},
                                     {"lag_deadline", producer_lag_deadline},
                                     {"subscribers", producer_subscribers},
                                     {"detach", producer_detach},
                                     {"stats", producer_stats},
                                     {"close", producer_close},
                                     {NULL, NULL}};
  weir_lua_new_type(L, NAME, METHODS, producer_collect);
  lua_pushcfunction(L, new_producer);
  lua_setfield(L, -2, "producer");
#if !WEIR_LUA_51
  lua_pushcfunction(L, send_function);
  lua_setfield(L, -2, "send_function");
#endif
}
