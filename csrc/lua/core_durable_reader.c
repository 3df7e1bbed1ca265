/*
 * core.durable_reader{live="none"|"long-poll"|"sse"|"auto", position="-1", max_event=bytes,
 *                     content_type=nil|"...",     of the stream, if known: SSE then begins at once
 *                     retry={max_retries=, initial=s, max=s, multiplier=, floor_max=s}}
 *
 *   :request(now) -> {offset=, live=, cursor=, sse=bool} | nil, "again" | nil, "closed"
 *   :deadline() -> seconds | nil               when request() is worth calling again
 *   :head(status, headers, now[, unix])        as for core.durable_verdict()
 *   :feed(bytes, now) -> true | nil, word      nil: give the response up, then finish("lost")
 *   :finish(transport, now, random)            as for core.durable_verdict(); from 0 to below 1
 *   :next() -> {data=, items=, offset=, next_offset=, cursor=, whole=, up_to_date=, closed=} | nil
 *                                              items: of the array that data is; nil for bytes
 *   :state() -> {position=, up_to_date=, closed=, mode=, fallback=, requests=, retries=, bytes=,
 *                json=, failed=, code=, status=}
 *
 * See core/durable/reader.h; times are seconds of the caller's clock.
 */
#include "core/durable/reader.h"

#include <string.h>

#include "lua/core.h"
#include "lua/core_args.h"
#include "lua/durable.h"
#include "lua/stream.h"

#define CLASS "weir.core.durable_reader"

typedef struct lua_reader {
  weir_durable_reader *reader;
} lua_reader;

static weir_durable_reader *check(lua_State *L) {
  lua_reader *self = luaL_checkudata(L, 1, CLASS);
  luaL_argcheck(L, self->reader != NULL, 1, "the reader is gone");
  return self->reader;
}

static const char *const MODES[] = {"none", "long-poll", "sse", "auto", NULL};

static int new_reader(lua_State *L) {
  static const char *const KNOWN[] = {"live",         "position", "max_event",
                                      "content_type", "retry",    NULL};
  if (lua_isnoneornil(L, 1)) {
    lua_settop(L, 0);
    lua_newtable(L);
  }
  weir_lua_check_options(L, 1, "durable_reader", KNOWN);
  weir_durable_reader_config config = {.position = NULL};
  lua_getfield(L, 1, "retry");
  weir_lua_durable_policy(L, lua_gettop(L), &config.retry);
  lua_getfield(L, 1, "live");
  config.live = (weir_durable_live)luaL_checkoption(L, -1, "none", MODES);
  const lua_Number max_event = weir_lua_option_number(L, 1, "max_event", 0);
  if (!(max_event >= 0 && max_event < 0x1p53)) luaL_error(L, "option 'max_event' is out of range");
  config.max_event = (size_t)max_event;
  lua_getfield(L, 1, "content_type");
  config.content_type = luaL_optstring(L, -1, NULL);
  lua_getfield(L, 1, "position");
  size_t len;
  config.position = luaL_optlstring(L, -1, "-1", &len);
  if (strlen(config.position) != len) config.position = ""; /* none */
  lua_reader *self = weir_lua_new_plain(L, sizeof *self);
  self->reader = NULL;
  luaL_setmetatable(L, CLASS);
  self->reader = weir_durable_reader_new(NULL, &config);
  if (self->reader == NULL) return luaL_error(L, "not enough memory");
  return 1;
}

static void set_string(lua_State *L, const char *key, const char *value) {
  if (value == NULL) return;
  lua_pushstring(L, value);
  lua_setfield(L, -2, key);
}

static int reader_request(lua_State *L) {
  weir_durable_query query;
  const weir_status status =
      weir_durable_reader_request(check(L), weir_lua_check_time(L, 2), &query);
  if (status != WEIR_OK) return weir_lua_status(L, status);
  lua_createtable(L, 0, 4);
  set_string(L, "offset", query.offset);
  set_string(L, "live", query.live);
  set_string(L, "cursor", query.cursor);
  weir_lua_durable_set_flag(L, "sse", query.sse);
  return 1;
}

static int reader_deadline(lua_State *L) {
  const uint64_t deadline = weir_durable_reader_deadline(check(L));
  if (deadline == WEIR_NEVER) return 0;
  weir_lua_push_time(L, deadline);
  return 1;
}

static int reader_head(lua_State *L) {
  weir_durable_reader *reader = check(L);
  const lua_Integer status = luaL_checkinteger(L, 2);
  luaL_argcheck(L, status >= 100 && status <= 999, 2, "not a status of HTTP");
  luaL_checktype(L, 3, LUA_TTABLE);
  const uint64_t now = weir_lua_check_time(L, 4);
  weir_durable_response response;
  weir_lua_durable_response(L, (int)status, 3, 5, &response);
  weir_durable_reader_head(reader, &response, now);
  return 0;
}

static int reader_feed(lua_State *L) {
  weir_durable_reader *reader = check(L);
  size_t len;
  const char *bytes = luaL_checklstring(L, 2, &len);
  return weir_lua_result(L,
                         weir_durable_reader_feed(reader, bytes, len, weir_lua_check_time(L, 3)));
}

static int reader_finish(lua_State *L) {
  weir_durable_reader *reader = check(L);
  const weir_durable_transport transport = weir_lua_durable_transport(L, 2);
  const uint64_t now = weir_lua_check_time(L, 3);
  weir_durable_reader_end(reader, transport, now, weir_lua_durable_random(L, 4));
  return 0;
}

static int reader_next(lua_State *L) {
  weir_durable_piece piece;
  if (weir_durable_reader_next(check(L), &piece) != WEIR_OK) return 0;
  lua_createtable(L, 0, 8);
  lua_pushlstring(L, piece.data.len > 0 ? (const char *)piece.data.ptr : "", piece.data.len);
  weir_slice_unref(&piece.data);
  lua_setfield(L, -2, "data");
  if (piece.items > 0) weir_lua_set_count(L, "items", piece.items);
  set_string(L, "offset", piece.offset);
  set_string(L, "next_offset", piece.next_offset);
  set_string(L, "cursor", piece.cursor);
  weir_lua_durable_set_flag(L, "whole", piece.whole);
  weir_lua_durable_set_flag(L, "up_to_date", piece.up_to_date);
  weir_lua_durable_set_flag(L, "closed", piece.closed);
  return 1;
}

static int reader_state(lua_State *L) {
  weir_durable_reader_state state;
  weir_durable_reader_state_of(check(L), &state);
  lua_createtable(L, 0, 12);
  set_string(L, "position", state.position);
  weir_lua_durable_set_flag(L, "up_to_date", state.up_to_date);
  weir_lua_durable_set_flag(L, "closed", state.closed);
  set_string(L, "mode", MODES[state.mode]);
  set_string(L, "fallback", state.fallback);
  weir_lua_set_count(L, "requests", state.requests);
  weir_lua_set_count(L, "retries", state.retries);
  weir_lua_set_count(L, "bytes", state.bytes);
  weir_lua_durable_set_flag(L, "json", state.json);
  weir_lua_durable_set_flag(L, "failed", state.failed);
  set_string(L, "code", state.code);
  if (state.status != 0) weir_lua_set_count(L, "status", (uint64_t)state.status);
  return 1;
}

static int reader_gc(lua_State *L) {
  lua_reader *self = luaL_checkudata(L, 1, CLASS);
  weir_durable_reader_free(self->reader);
  self->reader = NULL;
  return 0;
}

void weir_lua_open_durable_reader(lua_State *L) {
  static const luaL_Reg METHODS[] = {{"request", reader_request}, {"deadline", reader_deadline},
                                     {"head", reader_head},       {"feed", reader_feed},
                                     {"finish", reader_finish},   {"next", reader_next},
                                     {"state", reader_state},     {NULL, NULL}};
  static const luaL_Reg META[] = {{"__gc", reader_gc}, {NULL, NULL}};
  weir_lua_new_class(L, CLASS, METHODS, META);
  lua_pushcfunction(L, new_reader);
  lua_setfield(L, -2, "durable_reader");
}
