/*
 * core.durable_verdict(kind, transport[, status, headers, unix]) -> outcome, code | nil, fields
 *   kind       "create", "head", "delete", "read", "append", "append_seq", "close", "produce"
 *   transport  "answered", "not_sent", "lost", "timed_out"; the rest is for "answered":
 *   headers    a list of {name, value}; unix: seconds since 1970, for a Retry-After with a date
 *   outcome    "ok", "retry", "failed", "unknown"
 *   fields     what weir_lua_durable_push_response() says, and ambiguous: whether the server may
 *              have done what was asked though we do not know it
 *
 * core.durable_retry{max_retries=, initial=s, max=s, multiplier=, floor_max=s}
 *   :next(now, random[, retry_after]) -> when, in seconds | nil, "limit"
 *   :reset()
 *   :retries() -> number since the last reset
 *
 * See core/durable/response.h and retry.h; times are seconds of the caller's clock.
 */
#include "core/durable/response.h"

#include "core/durable/retry.h"
#include "lua/core.h"
#include "lua/core_args.h"
#include "lua/durable.h"
#include "lua/stream.h"

#define RETRY "weir.core.durable_retry"

/* --- arguments -------------------------------------------------------------------------------- */

void weir_lua_durable_policy(lua_State *L, int index, weir_retry_policy *policy) {
  static const char *const KNOWN[] = {"max_retries", "initial",   "max",
                                      "multiplier",  "floor_max", NULL};
  weir_lua_check_options(L, index, "retry", KNOWN);
  weir_retry_policy_default(policy);
  const lua_Number retries = weir_lua_option_number(L, index, "max_retries", UINT32_MAX);
  if (!(retries >= 0)) luaL_error(L, "retry: 'max_retries' is out of range");
  policy->max_retries = retries < UINT32_MAX ? (uint32_t)retries : UINT32_MAX;
  policy->initial = weir_lua_option_time(L, index, "initial", policy->initial);
  policy->max = weir_lua_option_time(L, index, "max", policy->max);
  policy->multiplier = weir_lua_option_number(L, index, "multiplier", policy->multiplier);
  policy->floor_max = weir_lua_option_time(L, index, "floor_max", policy->floor_max);
  const char *field;
  if (weir_retry_policy_check(policy, &field) != WEIR_OK) {
    luaL_error(L, "retry: '%s' is out of range", field);
  }
}

weir_durable_transport weir_lua_durable_transport(lua_State *L, int index) {
  static const char *const NAMES[] = {"answered", "not_sent", "lost", "timed_out", NULL};
  return (weir_durable_transport)luaL_checkoption(L, index, NULL, NAMES);
}

uint64_t weir_lua_durable_random(lua_State *L, int index) {
  const lua_Number random = luaL_checknumber(L, index);
  luaL_argcheck(L, random >= 0 && random < 1, index, "a number from 0 to below 1 expected");
  return (uint64_t)(random * 0x1p53) << 11;
}

static void add_header(lua_State *L, weir_durable_response *response) {
  luaL_checktype(L, -1, LUA_TTABLE);
  lua_rawgeti(L, -1, 1);
  lua_rawgeti(L, -2, 2);
  if (lua_type(L, -2) != LUA_TSTRING || lua_type(L, -1) != LUA_TSTRING) {
    luaL_error(L, "a header must be a name and a value, both strings");
  }
  size_t name_len, value_len;
  const char *name = lua_tolstring(L, -2, &name_len);
  const char *value = lua_tolstring(L, -1, &value_len);
  weir_durable_response_header(response, name, name_len, value, value_len);
  lua_pop(L, 2);
}

void weir_lua_durable_response(lua_State *L, int status, int headers, int unix_now,
                               weir_durable_response *response) {
  weir_durable_response_init(response, status);
  if (lua_isnoneornil(L, headers)) return;
  luaL_checktype(L, headers, LUA_TTABLE);
  const int count = (int)lua_rawlen(L, headers);
  for (int i = 1; i <= count; i++) {
    lua_rawgeti(L, headers, i);
    add_header(L, response);
    lua_pop(L, 1);
  }
  if (lua_type(L, unix_now) != LUA_TNUMBER) return;
  const lua_Number seconds = lua_tonumber(L, unix_now);
  if (seconds >= 0 && seconds < 0x1p53) {
    weir_durable_response_resolve_date(response, (uint64_t)seconds);
  }
}

void weir_lua_durable_set_text(lua_State *L, const char *key, const weir_durable_text *text) {
  if (text->len > 0) weir_lua_set_bytes(L, key, text->bytes, text->len);
}

static void set_number(lua_State *L, const char *key, uint64_t number) {
  if (number != UINT64_MAX) weir_lua_set_count(L, key, number);
}

void weir_lua_durable_set_flag(lua_State *L, const char *key, bool value) {
  lua_pushboolean(L, value);
  lua_setfield(L, -2, key);
}

void weir_lua_durable_push_response(lua_State *L, const weir_durable_response *response) {
  lua_createtable(L, 0, 12);
  if (response->status != 0) weir_lua_set_count(L, "status", (uint64_t)response->status);
  weir_lua_durable_set_text(L, "next_offset", &response->next_offset);
  weir_lua_durable_set_text(L, "cursor", &response->cursor);
  weir_lua_durable_set_text(L, "etag", &response->etag);
  weir_lua_durable_set_text(L, "content_type", &response->content_type);
  weir_lua_durable_set_flag(L, "up_to_date", response->up_to_date);
  weir_lua_durable_set_flag(L, "closed", response->closed);
  weir_lua_durable_set_flag(L, "base64", response->base64);
  weir_lua_durable_set_flag(L, "unusable", response->unusable);
  set_number(L, "producer_epoch", response->producer_epoch);
  set_number(L, "producer_seq", response->producer_seq);
  set_number(L, "expected_seq", response->expected_seq);
  set_number(L, "received_seq", response->received_seq);
  set_number(L, "retry_after", response->retry_after);
}

/* --- verdicts --------------------------------------------------------------------------------- */

static int verdict(lua_State *L) {
  static const char *const KINDS[] = {"create",     "head",  "delete",  "read", "append",
                                      "append_seq", "close", "produce", NULL};
  static const char *const OUTCOMES[] = {"ok", "retry", "failed", "unknown"};
  const weir_durable_kind kind = (weir_durable_kind)luaL_checkoption(L, 1, NULL, KINDS);
  const weir_durable_transport transport = weir_lua_durable_transport(L, 2);
  const bool answered = transport == WEIR_DURABLE_ANSWERED;
  const int status = answered ? (int)luaL_checkinteger(L, 3) : 0;
  luaL_argcheck(L, !answered || (status >= 100 && status <= 999), 3, "not a status of HTTP");
  weir_durable_response response;
  weir_durable_response_init(&response, 0);
  if (answered) weir_lua_durable_response(L, status, 4, 5, &response);
  lua_pushstring(L, OUTCOMES[weir_durable_verdict(kind, transport, &response)]);
  lua_pushstring(L, weir_durable_code(kind, transport, &response)); /* NULL: nil */
  weir_lua_durable_push_response(L, &response);
  weir_lua_durable_set_flag(L, "ambiguous", weir_durable_ambiguous(transport, &response));
  return 3;
}

/* --- retries ---------------------------------------------------------------------------------- */

typedef struct lua_retry {
  weir_retry_policy policy;
  weir_retry retry; /* points at the policy: userdata do not move */
} lua_retry;

static lua_retry *check(lua_State *L) { return luaL_checkudata(L, 1, RETRY); }

static int new_retry(lua_State *L) {
  weir_retry_policy policy;
  lua_settop(L, 1);
  weir_lua_durable_policy(L, 1, &policy);
  lua_retry *self = weir_lua_new_plain(L, sizeof *self);
  self->policy = policy;
  weir_retry_init(&self->retry, &self->policy);
  luaL_getmetatable(L, RETRY);
  lua_setmetatable(L, -2);
  return 1;
}

static int retry_next(lua_State *L) {
  lua_retry *self = check(L);
  const uint64_t now = weir_lua_check_time(L, 2);
  const uint64_t random = weir_lua_durable_random(L, 3);
  const lua_Number after = luaL_optnumber(L, 4, -1);
  uint64_t seconds = UINT64_MAX, at;
  if (after >= 0) seconds = after < 0x1p53 ? (uint64_t)after : UINT64_MAX - 1;
  const weir_status status = weir_retry_next(&self->retry, now, random, seconds, &at);
  if (status != WEIR_OK) return weir_lua_status(L, status);
  weir_lua_push_time(L, at);
  return 1;
}

static int retry_reset(lua_State *L) {
  weir_retry_reset(&check(L)->retry);
  return 0;
}

static int retry_retries(lua_State *L) {
  weir_lua_push_count(L, check(L)->retry.retries);
  return 1;
}

void weir_lua_open_durable_response(lua_State *L) {
  static const luaL_Reg METHODS[] = {
      {"next", retry_next}, {"reset", retry_reset}, {"retries", retry_retries}, {NULL, NULL}};
  static const luaL_Reg META[] = {{NULL, NULL}};
  weir_lua_new_class(L, RETRY, METHODS, META);
  lua_pushcfunction(L, new_retry);
  lua_setfield(L, -2, "durable_retry");
  lua_pushcfunction(L, verdict);
  lua_setfield(L, -2, "durable_verdict");
}
