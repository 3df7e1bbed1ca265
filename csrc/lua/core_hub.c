/*
 * The hub for Lua, and what the stream objects' bindings share.
 *
 *   core.poll() -> object, bits | nil         the next object to which something happened
 *   core.set_time(now, time)                  seconds: monotonic, and since 1970
 *   core.set_budget(n)                        ready operations before send()/take() say "pause"
 *   core.spent() -> n                         how many of them there have been since
 *   core.events                               names of the bits, by kind of object
 */
#include <math.h>
#include <string.h>

#include "lua/core.h"
#include "lua/stream.h"

static const char HUB = 'h';     /* registry keys, by address */
static const char OBJECTS = 'o'; /* source -> userdata, weak values */

weir_lua_hub *weir_lua_get_hub(lua_State *L) {
  lua_pushlightuserdata(L, (void *)&HUB);
  lua_rawget(L, LUA_REGISTRYINDEX);
  weir_lua_hub *hub = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return hub;
}

void weir_lua_register_source(lua_State *L, weir_source *source) {
  lua_pushlightuserdata(L, (void *)&OBJECTS);
  lua_rawget(L, LUA_REGISTRYINDEX);
  lua_pushlightuserdata(L, source);
  lua_pushvalue(L, -3);
  lua_rawset(L, -3);
  lua_pop(L, 1);
}

static int hub_poll(lua_State *L) {
  weir_lua_hub *hub = lua_touserdata(L, lua_upvalueindex(1));
  uint32_t bits;
  weir_source *source;
  while ((source = weir_hub_next(&hub->hub, &bits)) != NULL) {
    lua_pushlightuserdata(L, source);
    lua_rawget(L, lua_upvalueindex(2));
    if (!lua_isnil(L, -1)) {
      lua_pushinteger(L, (lua_Integer)bits);
      return 2;
    }
    lua_pop(L, 1);
  }
  return 0;
}

static uint64_t scaled(lua_State *L, int index, double scale) {
  const double value = luaL_checknumber(L, index) * scale;
  luaL_argcheck(L, value >= 0 && value < 18e18, index, "out of range");
  return (uint64_t)value;
}

static int hub_set_time(lua_State *L) {
  weir_lua_hub *hub = lua_touserdata(L, lua_upvalueindex(1));
  hub->hub.now = scaled(L, 1, 1e9);
  hub->hub.time = scaled(L, 2, 1e6);
  return 0;
}

static int hub_set_budget(lua_State *L) {
  weir_lua_hub *hub = lua_touserdata(L, lua_upvalueindex(1));
  hub->budget = hub->granted = (int)luaL_checkinteger(L, 1);
  return 0;
}

static int hub_spent(lua_State *L) {
  weir_lua_hub *hub = lua_touserdata(L, lua_upvalueindex(1));
  lua_pushinteger(L, hub->granted - hub->budget);
  return 1;
}

/* --- shared ----------------------------------------------------------------------------------- */

void weir_lua_new_type(lua_State *L, const char *name, const luaL_Reg *methods,
                       lua_CFunction collect) {
  luaL_newmetatable(L, name);
  lua_pushvalue(L, -1);
  lua_pushcclosure(L, collect, 1);
  lua_setfield(L, -2, "__gc");
  lua_newtable(L);
  for (const luaL_Reg *m = methods; m->name != NULL; m++) {
    lua_pushvalue(L, -2);
    lua_pushcclosure(L, m->func, 1);
    lua_setfield(L, -2, m->name);
  }
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
}

void *weir_lua_self(lua_State *L, const char *name) {
  void *self = lua_touserdata(L, 1);
  if (self != NULL && lua_getmetatable(L, 1)) {
    const bool same = lua_rawequal(L, -1, lua_upvalueindex(1));
    lua_pop(L, 1);
    if (same) return self;
  }
  luaL_error(L, "bad self: %s expected, got %s (called with '.' instead of ':'?)", name,
             luaL_typename(L, 1));
  return NULL;
}

#if !WEIR_LUA_51
static int finish_slow(lua_State *L, int status, lua_KContext context) {
  (void)status;
  (void)context;
  return lua_gettop(L);
}

int weir_lua_slow(lua_State *L, int top, int function) {
  lua_settop(L, top);
  lua_pushvalue(L, lua_upvalueindex(function));
  lua_insert(L, 1);
  lua_callk(L, top, LUA_MULTRET, 0, finish_slow);
  return lua_gettop(L);
}
#endif

int weir_lua_status(lua_State *L, weir_status status) {
  lua_pushnil(L);
  lua_pushstring(L, weir_status_name(status));
  return 2;
}

int weir_lua_result(lua_State *L, weir_status status) {
  if (status != WEIR_OK) return weir_lua_status(L, status);
  lua_pushboolean(L, 1);
  return 1;
}

void weir_lua_push_count(lua_State *L, uint64_t value) {
#if LUA_VERSION_NUM >= 503
  lua_pushinteger(L, (lua_Integer)value);
#else
  lua_pushnumber(L, (lua_Number)value);
#endif
}

uint64_t weir_lua_check_count(lua_State *L, int index) {
#if LUA_VERSION_NUM >= 503
  const lua_Integer value = luaL_checkinteger(L, index);
  luaL_argcheck(L, value >= 0, index, "must not be negative");
#else
  const lua_Number value = luaL_checknumber(L, index);
  luaL_argcheck(L, value >= 0 && value < 9007199254740992.0, index, "out of range");
#endif
  return (uint64_t)value;
}

uint64_t weir_lua_field_count(lua_State *L, int index, const char *key, uint64_t otherwise) {
  lua_getfield(L, index, key);
  uint64_t value = otherwise;
  if (!lua_isnil(L, -1)) {
    if (!lua_isnumber(L, -1) || lua_tonumber(L, -1) < 0) {
      luaL_error(L, "field '%s' must be a number that is not negative", key);
    }
    const lua_Number number = lua_tonumber(L, -1);
    value = number >= 18e18 ? UINT64_MAX : (uint64_t)number;
  }
  lua_pop(L, 1);
  return value;
}

weir_slice weir_lua_field_bytes(lua_State *L, int index, const char *key) {
  weir_slice slice = {NULL, (const unsigned char *)"", 0};
  lua_getfield(L, index, key);
  if (lua_type(L, -1) == LUA_TSTRING) {
    slice.ptr = (const unsigned char *)lua_tolstring(L, -1, &slice.len);
  } else if (!lua_isnil(L, -1)) {
    luaL_error(L, "field '%s' must be a string", key);
  }
  lua_pop(L, 1);
  return slice;
}

const unsigned char *weir_lua_check_id(lua_State *L, int index) {
  size_t len;
  const char *id = luaL_checklstring(L, index, &len);
  luaL_argcheck(L, len == WEIR_ID_SIZE, index, "an id is 32 bytes");
  return (const unsigned char *)id;
}

void weir_lua_field_id(lua_State *L, int index, const char *key, unsigned char *id) {
  const weir_slice slice = weir_lua_field_bytes(L, index, key);
  if (slice.len != WEIR_ID_SIZE) luaL_error(L, "field '%s' must be an id of 32 bytes", key);
  memcpy(id, slice.ptr, WEIR_ID_SIZE);
}

void weir_lua_set_count(lua_State *L, const char *key, uint64_t value) {
  weir_lua_push_count(L, value);
  lua_setfield(L, -2, key);
}

void weir_lua_set_bytes(lua_State *L, const char *key, const void *bytes, size_t len) {
  lua_pushlstring(L, bytes, len);
  lua_setfield(L, -2, key);
}

/* --- module ----------------------------------------------------------------------------------- */

static const struct {
  const char *name;
  int bit;
} EVENTS[] = {
    {"PRODUCER_ROOM", WEIR_PRODUCER_ROOM},         {"PRODUCER_ACKED", WEIR_PRODUCER_ACKED},
    {"PRODUCER_CHANGED", WEIR_PRODUCER_CHANGED},   {"PRODUCER_LAG", WEIR_PRODUCER_LAG},
    {"CONSUMER_READABLE", WEIR_CONSUMER_READABLE}, {"CONSUMER_CHANGED", WEIR_CONSUMER_CHANGED},
    {"CONSUMER_DRAINED", WEIR_CONSUMER_DRAINED},   {"SESSION_READY", WEIR_SESSION_READY},
    {"SESSION_REQUEST", WEIR_SESSION_REQUEST},     {"SESSION_ANNOUNCE", WEIR_SESSION_ANNOUNCE},
    {"SESSION_WRITABLE", WEIR_SESSION_WRITABLE},   {"SESSION_ENDED", WEIR_SESSION_ENDED}};

static void push_weak_table(lua_State *L) {
  lua_newtable(L);
  lua_newtable(L);
  lua_pushliteral(L, "v");
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
}

void weir_lua_open_hub(lua_State *L) {
  weir_lua_hub *hub = weir_lua_new_plain(L, sizeof *hub);
  weir_hub_init(&hub->hub);
  hub->budget = hub->granted = 0;
  push_weak_table(L);
  lua_pushlightuserdata(L, (void *)&HUB);
  lua_pushvalue(L, -3);
  lua_rawset(L, LUA_REGISTRYINDEX);
  lua_pushlightuserdata(L, (void *)&OBJECTS);
  lua_pushvalue(L, -2);
  lua_rawset(L, LUA_REGISTRYINDEX);

  static const luaL_Reg FUNCTIONS[] = {{"poll", hub_poll},
                                       {"set_time", hub_set_time},
                                       {"set_budget", hub_set_budget},
                                       {"spent", hub_spent}};
  for (size_t i = 0; i < sizeof FUNCTIONS / sizeof *FUNCTIONS; i++) {
    lua_pushvalue(L, -2);
    lua_pushvalue(L, -2);
    lua_pushcclosure(L, FUNCTIONS[i].func, 2);
    lua_setfield(L, -4, FUNCTIONS[i].name);
  }
  lua_pop(L, 2);
  lua_newtable(L);
  for (size_t i = 0; i < sizeof EVENTS / sizeof *EVENTS; i++) {
    lua_pushinteger(L, EVENTS[i].bit);
    lua_setfield(L, -2, EVENTS[i].name);
  }
  lua_setfield(L, -2, "events");
}
