/*
 * core.durable_reader{live="none"|"long-poll"|"sse"|"auto", position="-1", max_event=bytes,
 *                     content_type=nil|"...",     of the stream, if known: SSE then begins at once
 *                     retry={max_retries=, initial=s, max=s, multiplier=, floor_max=s}}
 *
 *   :request(now) -> {offset=, live=, cursor=, sse=bool} | nil, "again" | nil, "closed"
 *   :deadline() -> seconds | nil               when request() is worth calling again
 *   :head(status, headers, now[, unix])        headers: a list of {name, value}; unix: seconds
 * since 1970, to understand Retry-After with a date :feed(bytes, now) -> true | nil, word      nil:
 * give the response up, then finish("lost") :finish(transport, now, random)            "answered",
 * "not_sent", "lost", "timed_out"; random from 0 to below 1 :next() -> {data=, items=, offset=,
 * next_offset=, cursor=, whole=, up_to_date=, closed=} | nil items: of the JSON array that data is;
 * nil when data is bytes :state() -> {position=, up_to_date=, closed=, mode=, fallback=, requests=,
 * retries=, bytes=, json=, failed=, code=, status=}
 *
 * See core/durable/reader.h; times are seconds of the caller's clock.
 */
#include "core/durable/reader.h"

#include <string.h>

#include "lua/core.h"
#include "lua/core_args.h"
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

/* The option "retry" of the table at index 1. */
static void get_retry(lua_State *L, weir_retry_policy *policy) {
  static const char *const KNOWN[] = {"max_retries", "initial",   "max",
                                      "multiplier",  "floor_max", NULL};
  weir_retry_policy_default(policy);
  lua_getfield(L, 1, "retry");
  weir_lua_check_options(L, -1, "retry", KNOWN);
  const int at = lua_gettop(L);
  const lua_Number retries = weir_lua_option_number(L, at, "max_retries", UINT32_MAX);
  if (!(retries >= 0)) luaL_error(L, "retry: 'max_retries' must be at least 0");
  policy->max_retries = retries < UINT32_MAX ? (uint32_t)retries : UINT32_MAX;
  policy->initial = weir_lua_option_time(L, at, "initial", policy->initial);
  policy->max = weir_lua_option_time(L, at, "max", policy->max);
  policy->multiplier = weir_lua_option_number(L, at, "multiplier", policy->multiplier);
  policy->floor_max = weir_lua_option_time(L, at, "floor_max", policy->floor_max);
  const char *field;
  if (weir_retry_policy_check(policy, &field) != WEIR_OK) {
    luaL_error(L, "retry: '%s' is out of range", field);
  }
  lua_pop(L, 1);
}

static int new_reader(lua_State *L) {
  static const char *const KNOWN[] = {"live",         "position", "max_event",
                                      "content_type", "retry",    NULL};
  if (lua_isnoneornil(L, 1)) {
    lua_settop(L, 0);
    lua_newtable(L);
  }
  weir_lua_check_options(L, 1, "durable_reader", KNOWN);
  weir_durable_reader_config config = {.position = NULL};
  get_retry(L, &config.retry);
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

static void set_flag(lua_State *L, const char *key, bool value) {
  lua_pushboolean(L, value);
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
  set_flag(L, "sse", query.sse);
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
  weir_durable_response response;
  weir_durable_response_init(&response, (int)luaL_checkinteger(L, 2));
  luaL_checktype(L, 3, LUA_TTABLE);
  const uint64_t now = weir_lua_check_time(L, 4);
  for (int i = 1;; i++) {
    lua_rawgeti(L, 3, i);
    if (lua_isnil(L, -1)) break;
    luaL_checktype(L, -1, LUA_TTABLE);
    lua_rawgeti(L, -1, 1);
    lua_rawgeti(L, -2, 2);
    size_t name_len, value_len;
    const char *name = luaL_checklstring(L, -2, &name_len);
    const char *value = luaL_checklstring(L, -1, &value_len);
    weir_durable_response_header(&response, name, name_len, value, value_len);
    lua_pop(L, 3);
  }
  if (!lua_isnoneornil(L, 5)) {
    const lua_Number unix_now = luaL_checknumber(L, 5);
    if (unix_now >= 0 && unix_now < 0x1p53) {
      weir_durable_response_resolve_date(&response, (uint64_t)unix_now);
    }
  }
  weir_durable_reader_head(reader, &response, now);
  return 0;
}

static int reader_feed(lua_State *L) {
  weir_durable_reader *reader = check(L);
  size_t len;
  const char *bytes = luaL_checklstring(L, 2, &len);
  const weir_status status =
      weir_durable_reader_feed(reader, bytes, len, weir_lua_check_time(L, 3));
  if (status != WEIR_OK) return weir_lua_status(L, status);
  lua_pushboolean(L, 1);
  return 1;
}

static int reader_finish(lua_State *L) {
  static const char *const TRANSPORTS[] = {"answered", "not_sent", "lost", "timed_out", NULL};
  weir_durable_reader *reader = check(L);
  const int transport = luaL_checkoption(L, 2, NULL, TRANSPORTS);
  const uint64_t now = weir_lua_check_time(L, 3);
  const lua_Number random = luaL_checknumber(L, 4);
  luaL_argcheck(L, random >= 0 && random < 1, 4, "a number from 0 to below 1 expected");
  weir_durable_reader_end(reader, (weir_durable_transport)transport, now,
                          (uint64_t)(random * 0x1p53) << 11);
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
  set_flag(L, "whole", piece.whole);
  set_flag(L, "up_to_date", piece.up_to_date);
  set_flag(L, "closed", piece.closed);
  return 1;
}

static int reader_state(lua_State *L) {
  weir_durable_reader_state state;
  weir_durable_reader_state_of(check(L), &state);
  lua_createtable(L, 0, 12);
  set_string(L, "position", state.position);
  set_flag(L, "up_to_date", state.up_to_date);
  set_flag(L, "closed", state.closed);
  set_string(L, "mode", MODES[state.mode]);
  set_string(L, "fallback", state.fallback);
  weir_lua_set_count(L, "requests", state.requests);
  weir_lua_set_count(L, "retries", state.retries);
  weir_lua_set_count(L, "bytes", state.bytes);
  set_flag(L, "json", state.json);
  set_flag(L, "failed", state.failed);
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
