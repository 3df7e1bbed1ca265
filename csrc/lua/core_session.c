/*
 * core.session{client=bool, network=id, node=id, tags={...}, agent=, handshake_timeout=s,
 *              max_streams=, backlog=, keepalive=s, keepalive_timeout=s}
 *
 * An endpoint: a driver of another module can move its bytes, or Lua itself can:
 *   :feed(bytes, now) -> true | nil, word      :output(max, now) -> bytes ("" when there is none)
 *   :tick(now) -> true | nil, word             :deadline() -> seconds | nil
 *   :finished() -> bool                        :transport_ended()
 *
 *   :peer() -> {network=, node=, tags=, agent=} | nil
 *   :announce(add, ids) -> taken               ids: concatenated; how many were taken
 *   :next_announcement() -> add, id | nil
 *   :next_request() -> {id=, network=, stream=, codec=, schema=, criteria=, token=, epoch=,
 *                       sequence=} | nil
 *   :accept(request, producer, codec, schema) -> subscriber id | nil, word
 *   :reject(request, code, reason) -> true | nil, word
 *   :subscribe(consumer, {stream=, codec=, schema=, criteria=, token=, epoch=, sequence=})
 *                                              -> inlet id | nil, word
 *   :rtt() -> seconds | nil   :streams() -> n
 *   :close(code, reason)      :ended() -> code, name, reason | nil
 *   :free()
 */
#include <string.h>

#include "lua/core.h"
#include "lua/stream.h"

#define NAME "weir.core.session"

static weir_lua_session *self_of(lua_State *L) {
  weir_lua_session *self = weir_lua_self(L, NAME);
  if (self->session == NULL) luaL_error(L, "the session is gone");
  return self;
}

static weir_session *session_of(lua_State *L) { return self_of(L)->session; }

static uint64_t field_time(lua_State *L, const char *key) {
  lua_getfield(L, 1, key);
  const lua_Number seconds = luaL_optnumber(L, -1, 0);
  lua_pop(L, 1);
  if (seconds < 0) luaL_error(L, "field '%s' must not be negative", key);
  return seconds > 1e9 ? WEIR_NEVER : (uint64_t)(seconds * 1e9);
}

static uint32_t field_limit(lua_State *L, const char *key) {
  const uint64_t value = weir_lua_field_count(L, 1, key, 0);
  return value > INT32_MAX ? INT32_MAX : (uint32_t)value;
}

static size_t field_tags(lua_State *L, weir_slice *tags) {
  size_t count = 0;
  lua_getfield(L, 1, "tags");
  if (lua_istable(L, -1)) {
    for (;; count++) {
      lua_rawgeti(L, -1, (int)count + 1);
      if (lua_isnil(L, -1)) break;
      if (count == WEIR_MAX_TAGS) luaL_error(L, "more than %d tags", (int)WEIR_MAX_TAGS);
      tags[count].buf = NULL;
      tags[count].ptr = (const unsigned char *)luaL_checklstring(L, -1, &tags[count].len);
      if (tags[count].len == 0 || tags[count].len > WEIR_MAX_NAME) {
        luaL_error(L, "a tag has 1 to %d bytes", (int)WEIR_MAX_NAME);
      }
      lua_pop(L, 1);
    }
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  return count;
}

static int new_session(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  weir_slice tags[WEIR_MAX_TAGS];
  weir_session_config config = {.tags = tags,
                                .tag_count = field_tags(L, tags),
                                .agent = weir_lua_field_bytes(L, 1, "agent"),
                                .handshake_timeout = field_time(L, "handshake_timeout"),
                                .max_streams = field_limit(L, "max_streams"),
                                .backlog = field_limit(L, "backlog"),
                                .keepalive = field_time(L, "keepalive"),
                                .keepalive_timeout = field_time(L, "keepalive_timeout")};
  lua_getfield(L, 1, "client");
  config.client = lua_toboolean(L, -1);
  weir_lua_field_id(L, 1, "network", config.network);
  weir_lua_field_id(L, 1, "node", config.node);
  weir_lua_session *self = weir_lua_new_plain(L, sizeof *self);
  self->endpoint = NULL;
  self->session = NULL;
  luaL_getmetatable(L, NAME);
  lua_setmetatable(L, -2);
  self->session = weir_session_new(NULL, &weir_lua_get_hub(L)->hub, &config);
  if (self->session == NULL) return luaL_error(L, "the session could not be made");
  self->endpoint = weir_session_endpoint(self->session);
  weir_lua_register_source(L, weir_session_source(self->session));
  return 1;
}

static int session_free(lua_State *L) {
  weir_lua_session *self = weir_lua_self(L, NAME);
  self->endpoint = NULL;
  weir_session_free(self->session);
  self->session = NULL;
  return 0;
}

/* --- driving it from Lua ---------------------------------------------------------------------- */

static uint64_t check_time(lua_State *L, int index) {
  const lua_Number seconds = luaL_checknumber(L, index);
  luaL_argcheck(L, seconds >= 0 && seconds < 1e9, index, "not a time in seconds");
  return (uint64_t)(seconds * 1e9);
}

static int session_feed(lua_State *L) {
  weir_endpoint *endpoint = self_of(L)->endpoint;
  size_t len;
  const char *data = luaL_checklstring(L, 2, &len);
  return weir_lua_result(L, endpoint->feed(endpoint, data, len, check_time(L, 3)));
}

static int session_tick(lua_State *L) {
  weir_endpoint *endpoint = self_of(L)->endpoint;
  return weir_lua_result(L, endpoint->tick(endpoint, check_time(L, 2)));
}

static int session_deadline(lua_State *L) {
  const weir_endpoint *endpoint = self_of(L)->endpoint;
  const uint64_t deadline = endpoint->deadline(endpoint);
  if (deadline == WEIR_NEVER) return 0;
  lua_pushnumber(L, (lua_Number)deadline / 1e9);
  return 1;
}

static int session_output(lua_State *L) {
  weir_endpoint *endpoint = self_of(L)->endpoint;
  const size_t max = (size_t)weir_lua_check_count(L, 2);
  const uint64_t now = check_time(L, 3);
  weir_iov iov[64];
  luaL_Buffer buffer;
  luaL_buffinit(L, &buffer);
  size_t total = 0, count;
  while (total < max && (count = endpoint->output(endpoint, iov, 64, now)) > 0) {
    size_t written = 0;
    for (size_t i = 0; i < count && total < max; i++) {
      const size_t len = iov[i].len < max - total ? iov[i].len : max - total;
      luaL_addlstring(&buffer, iov[i].base, len);
      written += len;
      total += len;
    }
    endpoint->sent(endpoint, written);
  }
  luaL_pushresult(&buffer);
  return 1;
}

static int session_finished(lua_State *L) {
  const weir_endpoint *endpoint = self_of(L)->endpoint;
  lua_pushboolean(L, endpoint->finished(endpoint));
  return 1;
}

static int session_transport_ended(lua_State *L) {
  weir_endpoint *endpoint = self_of(L)->endpoint;
  endpoint->ended(endpoint, WEIR_E_CLOSED);
  return 0;
}

/* --- nodes ------------------------------------------------------------------------------------ */

static int session_peer(lua_State *L) {
  const weir_hello *peer = weir_session_peer(session_of(L));
  if (peer == NULL) return 0;
  lua_createtable(L, 0, 4);
  weir_lua_set_bytes(L, "network", peer->network, WEIR_ID_SIZE);
  weir_lua_set_bytes(L, "node", peer->node, WEIR_ID_SIZE);
  weir_lua_set_bytes(L, "agent", peer->agent.ptr, peer->agent.len);
  lua_createtable(L, (int)peer->tag_count, 0);
  for (size_t i = 0; i < peer->tag_count; i++) {
    lua_pushlstring(L, (const char *)peer->tags[i].ptr, peer->tags[i].len);
    lua_rawseti(L, -2, (int)i + 1);
  }
  lua_setfield(L, -2, "tags");
  return 1;
}

static int session_announce(lua_State *L) {
  size_t len;
  const bool add = lua_toboolean(L, 2);
  const char *ids = luaL_checklstring(L, 3, &len);
  luaL_argcheck(L, len % WEIR_ID_SIZE == 0, 3, "ids of 32 bytes each expected");
  weir_lua_push_count(
      L, weir_session_announce(session_of(L), add, (const unsigned char *)ids, len / WEIR_ID_SIZE));
  return 1;
}

static int session_next_announcement(lua_State *L) {
  bool add;
  unsigned char id[WEIR_ID_SIZE];
  if (!weir_session_next_announcement(session_of(L), &add, id)) return 0;
  lua_pushboolean(L, add);
  lua_pushlstring(L, (const char *)id, WEIR_ID_SIZE);
  return 2;
}

static void set_slice(lua_State *L, const char *key, weir_slice slice) {
  if (slice.len > 0) weir_lua_set_bytes(L, key, slice.ptr, slice.len);
}

static int session_next_request(lua_State *L) {
  const weir_request *request = weir_session_next_request(session_of(L));
  if (request == NULL) return 0;
  const weir_subscribe *s = &request->subscribe;
  lua_createtable(L, 0, 9);
  weir_lua_set_count(L, "id", request->id);
  weir_lua_set_bytes(L, "network", s->network, WEIR_ID_SIZE);
  weir_lua_set_bytes(L, "stream", s->stream, WEIR_ID_SIZE);
  set_slice(L, "codec", s->codec);
  set_slice(L, "schema", s->schema);
  set_slice(L, "criteria", s->criteria);
  set_slice(L, "token", s->token);
  if (s->has_resume) {
    weir_lua_set_count(L, "epoch", s->resume_epoch);
    weir_lua_set_count(L, "sequence", s->resume_sequence);
  }
  return 1;
}

static weir_slice arg_slice(lua_State *L, int index) {
  weir_slice slice = {NULL, NULL, 0};
  slice.ptr = (const unsigned char *)luaL_optlstring(L, index, "", &slice.len);
  luaL_argcheck(L, slice.len <= WEIR_MAX_NAME, index, "too long");
  return slice;
}

static int session_accept(lua_State *L) {
  weir_session *session = session_of(L);
  uint64_t subscriber;
  weir_status status = weir_session_accept(session, weir_lua_check_count(L, 2),
                                           weir_lua_test_producer(L, 3)->producer, arg_slice(L, 4),
                                           arg_slice(L, 5), &subscriber);
  if (status != WEIR_OK) return weir_lua_status(L, status);
  weir_lua_push_count(L, subscriber);
  return 1;
}

static int session_reject(lua_State *L) {
  weir_session *session = session_of(L);
  return weir_lua_result(
      L, weir_session_reject(session, weir_lua_check_count(L, 2), (uint32_t)luaL_checkinteger(L, 3),
                             luaL_optstring(L, 4, "")));
}

static int session_subscribe(lua_State *L) {
  weir_session *session = session_of(L);
  weir_consumer *consumer = weir_lua_check_consumer(L, 2)->consumer;
  luaL_checktype(L, 3, LUA_TTABLE);
  weir_subscribe subscribe = {.codec = weir_lua_field_bytes(L, 3, "codec"),
                              .schema = weir_lua_field_bytes(L, 3, "schema"),
                              .criteria = weir_lua_field_bytes(L, 3, "criteria"),
                              .token = weir_lua_field_bytes(L, 3, "token")};
  weir_lua_field_id(L, 3, "stream", subscribe.stream);
  subscribe.resume_epoch = weir_lua_field_count(L, 3, "epoch", UINT64_MAX);
  subscribe.resume_sequence = weir_lua_field_count(L, 3, "sequence", 0);
  subscribe.has_resume = subscribe.resume_epoch != UINT64_MAX;
  weir_inlet *inlet;
  weir_status status = weir_session_subscribe(session, consumer, &subscribe, &inlet);
  if (status != WEIR_OK) return weir_lua_status(L, status);
  weir_lua_push_count(L, inlet->id);
  return 1;
}

static int session_rtt(lua_State *L) {
  const uint64_t rtt = weir_yamux_rtt(weir_session_yamux(session_of(L)));
  if (rtt == 0) return 0;
  lua_pushnumber(L, (lua_Number)rtt / 1e9);
  return 1;
}

static int session_streams(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)weir_yamux_streams(weir_session_yamux(session_of(L))));
  return 1;
}

static int session_close(lua_State *L) {
  weir_session_close(session_of(L), (uint32_t)luaL_optinteger(L, 2, WEIR_CLOSE_SHUTDOWN),
                     luaL_optstring(L, 3, "the node was closed"));
  return 0;
}

static int session_ended(lua_State *L) {
  uint32_t code;
  const char *reason;
  if (!weir_session_ended(session_of(L), &code, &reason)) return 0;
  lua_pushinteger(L, (lua_Integer)code);
  lua_pushstring(L, weir_close_name(code));
  lua_pushstring(L, reason);
  return 3;
}

static int close_name(lua_State *L) {
  lua_pushstring(L, weir_close_name((uint32_t)luaL_checkinteger(L, 1)));
  return 1;
}

void weir_lua_open_session(lua_State *L) {
  static const luaL_Reg METHODS[] = {{"feed", session_feed},
                                     {"output", session_output},
                                     {"tick", session_tick},
                                     {"deadline", session_deadline},
                                     {"finished", session_finished},
                                     {"transport_ended", session_transport_ended},
                                     {"peer", session_peer},
                                     {"announce", session_announce},
                                     {"next_announcement", session_next_announcement},
                                     {"next_request", session_next_request},
                                     {"accept", session_accept},
                                     {"reject", session_reject},
                                     {"subscribe", session_subscribe},
                                     {"rtt", session_rtt},
                                     {"streams", session_streams},
                                     {"close", session_close},
                                     {"ended", session_ended},
                                     {"free", session_free},
                                     {NULL, NULL}};
  weir_lua_new_type(L, NAME, METHODS, session_free);
  luaL_getmetatable(L, NAME);
  lua_pushboolean(L, 1);
  lua_setfield(L, -2, "__weir_endpoint");
  lua_pop(L, 1);
  lua_pushcfunction(L, new_session);
  lua_setfield(L, -2, "session");
  lua_pushcfunction(L, close_name);
  lua_setfield(L, -2, "close_name");
}
