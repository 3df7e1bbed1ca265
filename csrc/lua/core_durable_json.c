/*
 * core.json_items([max_item[, max_depth]]): splits a JSON array that comes in pieces
 *   :feed(bytes)                 only after next() said "again"
 *   :next() -> text | nil, "again" | nil, "protocol"|"limit", what, position
 *   :finish() -> true | nil, "protocol", what, position       whether the array is complete
 *   :reset()                     another array follows
 * core.json_check(text[, max_depth]) -> true | nil, what, position      any whole JSON text
 *   Positions count bytes from 0.
 *
 * core.base64_encode(bytes) -> text
 * core.base64_decode(text) -> bytes | nil, "invalid"
 *
 * core.sse([max_event]): a parser of server-sent events
 *   :feed(bytes)                 only after next() said "again"
 *   :next() -> type, data | nil, "again"|"limit"
 */
#include "core/durable/base64.h"
#include "core/durable/json.h"
#include "core/durable/sse.h"
#include "lua/core.h"
#include "lua/stream.h"

#define JSON_CLASS "weir.core.json_items"
#define SSE_CLASS "weir.core.sse"
#define INPUT_KEY 1 /* of the object's table of values: the string that is being read */
#define DEFAULT_MAX (64 << 20)

typedef struct input {
  const unsigned char *at;
  size_t len;
} input;

typedef struct lua_json {
  input in;
  weir_json json;
} lua_json;

typedef struct lua_sse {
  input in;
  weir_sse sse;
} lua_sse;

static size_t check_max(lua_State *L, int index) {
  const lua_Number max = luaL_optnumber(L, index, DEFAULT_MAX);
  luaL_argcheck(L, max >= 1 && max < 0x1p53, index, "a number of bytes expected");
  return (size_t)max;
}

static uint32_t check_depth(lua_State *L, int index) {
  const lua_Number depth = luaL_optnumber(L, index, WEIR_JSON_DEPTH);
  luaL_argcheck(L, depth >= 1 && depth <= WEIR_JSON_DEPTH, index, "a depth expected");
  return (uint32_t)depth;
}

/* The string at index 2 becomes the input of the object at index 1. */
static int feed(lua_State *L, input *in) {
  size_t len;
  const char *bytes = luaL_checklstring(L, 2, &len);
  if (in->len > 0) return luaL_error(L, "feed: take all that is there first, with next()");
  weir_lua_push_values(L, 1);
  lua_pushvalue(L, 2);
  lua_rawseti(L, -2, INPUT_KEY);
  in->at = (const unsigned char *)bytes;
  in->len = len;
  return 0;
}

/* The input is used up: lets go of the string. */
static void drop_input(lua_State *L, input *in) {
  weir_lua_push_values(L, 1);
  lua_pushnil(L);
  lua_rawseti(L, -2, INPUT_KEY);
  lua_pop(L, 1);
  *in = (input){NULL, 0};
}

static void push_slice(lua_State *L, weir_slice *slice) {
  lua_pushlstring(L, slice->len > 0 ? (const char *)slice->ptr : "", slice->len);
  weir_slice_unref(slice);
}

/* --- JSON ------------------------------------------------------------------------------------- */

static int new_json(lua_State *L) {
  const size_t max = check_max(L, 1);
  const uint32_t depth = check_depth(L, 2);
  lua_json *self = weir_lua_new_object(L, sizeof *self, JSON_CLASS);
  self->in = (input){NULL, 0};
  weir_json_init(&self->json, NULL, max, depth);
  return 1;
}

static lua_json *check_json(lua_State *L) { return luaL_checkudata(L, 1, JSON_CLASS); }

static int json_feed(lua_State *L) { return feed(L, &check_json(L)->in); }

static int json_failure(lua_State *L, const weir_json *json, weir_status status) {
  lua_pushnil(L);
  lua_pushstring(L, weir_status_name(status));
  lua_pushstring(L, json->error);
  weir_lua_push_count(L, json->position);
  return 4;
}

static int json_next(lua_State *L) {
  lua_json *self = check_json(L);
  weir_slice item;
  const weir_status status = weir_json_next(&self->json, &self->in.at, &self->in.len, &item);
  if (status == WEIR_OK) {
    push_slice(L, &item);
    return 1;
  }
  drop_input(L, &self->in);
  return status == WEIR_E_AGAIN ? weir_lua_status(L, status) : json_failure(L, &self->json, status);
}

static int json_finish(lua_State *L) {
  lua_json *self = check_json(L);
  if (self->in.len > 0) return luaL_error(L, "finish: take all that is there first, with next()");
  const weir_status status = weir_json_end(&self->json);
  if (status != WEIR_OK) return json_failure(L, &self->json, status);
  lua_pushboolean(L, 1);
  return 1;
}

static int json_reset(lua_State *L) {
  lua_json *self = check_json(L);
  drop_input(L, &self->in);
  weir_json_reset(&self->json);
  return 0;
}

static int json_gc(lua_State *L) {
  weir_json_free(&check_json(L)->json);
  return 0;
}

static int json_check(lua_State *L) {
  size_t len;
  const char *text = luaL_checklstring(L, 1, &len), *error;
  uint64_t position;
  if (weir_json_check(text, len, check_depth(L, 2), &position, &error) == WEIR_OK) {
    lua_pushboolean(L, 1);
    return 1;
  }
  lua_pushnil(L);
  lua_pushstring(L, error);
  weir_lua_push_count(L, position);
  return 3;
}

/* --- base64 ----------------------------------------------------------------------------------- */

static int base64_decode(lua_State *L) {
  size_t len, out_len;
  const char *text = luaL_checklstring(L, 1, &len);
  unsigned char *out = lua_newuserdata(L, WEIR_BASE64_DECODED(len));
  const weir_status status = weir_base64_decode(text, len, out, &out_len);
  if (status != WEIR_OK) return weir_lua_status(L, status);
  lua_pushlstring(L, (const char *)out, out_len);
  return 1;
}

static int base64_encode(lua_State *L) {
  size_t len;
  const char *bytes = luaL_checklstring(L, 1, &len);
  const size_t out_len = WEIR_BASE64_ENCODED(len);
  char *out = lua_newuserdata(L, out_len + 1);
  weir_base64_encode(bytes, len, out);
  lua_pushlstring(L, out, out_len);
  return 1;
}

/* --- server-sent events ----------------------------------------------------------------------- */

static int new_sse(lua_State *L) {
  const size_t max = check_max(L, 1);
  lua_sse *self = weir_lua_new_object(L, sizeof *self, SSE_CLASS);
  self->in = (input){NULL, 0};
  weir_sse_init(&self->sse, NULL, max);
  return 1;
}

static lua_sse *check_sse(lua_State *L) { return luaL_checkudata(L, 1, SSE_CLASS); }

static int sse_feed(lua_State *L) { return feed(L, &check_sse(L)->in); }

static int sse_next(lua_State *L) {
  lua_sse *self = check_sse(L);
  weir_sse_event event;
  const weir_status status = weir_sse_next(&self->sse, &self->in.at, &self->in.len, &event);
  if (status != WEIR_OK) {
    drop_input(L, &self->in);
    return weir_lua_status(L, status);
  }
  lua_pushlstring(L, event.type, event.type_len);
  push_slice(L, &event.data);
  return 2;
}

static int sse_gc(lua_State *L) {
  weir_sse_free(&check_sse(L)->sse);
  return 0;
}

void weir_lua_open_durable_json(lua_State *L) {
  static const luaL_Reg JSON_METHODS[] = {{"feed", json_feed},
                                          {"next", json_next},
                                          {"finish", json_finish},
                                          {"reset", json_reset},
                                          {NULL, NULL}};
  static const luaL_Reg JSON_META[] = {{"__gc", json_gc}, {NULL, NULL}};
  static const luaL_Reg SSE_METHODS[] = {{"feed", sse_feed}, {"next", sse_next}, {NULL, NULL}};
  static const luaL_Reg SSE_META[] = {{"__gc", sse_gc}, {NULL, NULL}};
  static const luaL_Reg FUNCTIONS[] = {{"json_items", new_json},
                                       {"json_check", json_check},
                                       {"base64_decode", base64_decode},
                                       {"base64_encode", base64_encode},
                                       {"sse", new_sse},
                                       {NULL, NULL}};
  weir_lua_new_class(L, JSON_CLASS, JSON_METHODS, JSON_META);
  weir_lua_new_class(L, SSE_CLASS, SSE_METHODS, SSE_META);
  luaL_setfuncs(L, FUNCTIONS, 0);
}
