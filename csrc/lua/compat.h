/*
 * One Lua C API for Lua 5.4 and for LuaJIT 2.1 (the ABI of Lua 5.1).
 *
 * Include this in place of lua.h and lauxlib.h. Bindings are written against the API of Lua 5.4;
 * what LuaJIT lacks of it is here (luaL_setfuncs, luaL_setmetatable, luaL_testudata and lua_copy it
 * has of its own). They stay away from what cannot be had in both: lua_callk and friends (a binding
 * never yields across C), lua_rawgetp, integer subtypes, and the results of lua_getfield,
 * lua_rawget and the like, which are void in 5.1.
 *
 * Integers: in LuaJIT every number is a double, so what a binding hands out must stay below 2^53.
 *
 * Values of a userdata: both versions can tie one table to a userdata, 5.1 as its environment
 * and 5.4 as its user value. weir_lua_new_object() makes such an object. Values kept there, unlike
 * those in the registry, are collected even when they refer back to the object.
 */
#ifndef WEIR_LUA_COMPAT_H
#define WEIR_LUA_COMPAT_H

#include <lauxlib.h>
#include <lua.h>
#include <stddef.h>

#if LUA_VERSION_NUM == 501
#define WEIR_LUA_51 1
#elif LUA_VERSION_NUM >= 504
#define WEIR_LUA_51 0
#else
#error "weir needs Lua 5.4 or LuaJIT"
#endif

#if WEIR_LUA_51

#define lua_rawlen(L, index) lua_objlen(L, index)

static inline int weir_lua_absindex(lua_State *L, int index) {
  return index > 0 || index <= LUA_REGISTRYINDEX ? index : lua_gettop(L) + index + 1;
}
#define lua_absindex(L, index) weir_lua_absindex(L, index)

/* Whether the value is a number without a fraction that a double holds exactly. */
static inline int weir_lua_isinteger(lua_State *L, int index) {
  if (lua_type(L, index) != LUA_TNUMBER) return 0;
  lua_Number value = lua_tonumber(L, index);
  return value >= -0x1p53 && value <= 0x1p53 && value == (lua_Number)(long long)value;
}
#define lua_isinteger(L, index) weir_lua_isinteger(L, index)

#endif

/* Pushes a new userdata with the metatable `name` and an empty table of values. */
static inline void *weir_lua_new_object(lua_State *L, size_t size, const char *name) {
#if WEIR_LUA_51
  void *object = lua_newuserdata(L, size);
  lua_newtable(L);
  lua_setfenv(L, -2);
#else
  void *object = lua_newuserdatauv(L, size, 1);
  lua_newtable(L);
  lua_setiuservalue(L, -2, 1);
#endif
  luaL_setmetatable(L, name);
  return object;
}

/* Pushes a new userdata without values of its own: the smallest that Lua can make. */
static inline void *weir_lua_new_plain(lua_State *L, size_t size) {
#if WEIR_LUA_51
  return lua_newuserdata(L, size);
#else
  return lua_newuserdatauv(L, size, 0);
#endif
}

/* Pushes the table of values of the object at `index`. */
static inline void weir_lua_push_values(lua_State *L, int index) {
#if WEIR_LUA_51
  lua_getfenv(L, index);
#else
  lua_getiuservalue(L, index, 1);
#endif
}

/* Registers the metatable `name` once: `methods` are its __index, `meta` its metamethods. */
static inline void weir_lua_new_class(lua_State *L, const char *name, const luaL_Reg *methods,
                                      const luaL_Reg *meta) {
  if (luaL_newmetatable(L, name)) {
    lua_pushstring(L, name);
    lua_setfield(L, -2, "__name");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_newtable(L);
    luaL_setfuncs(L, methods, 0);
    lua_setfield(L, -2, "__index");
    luaL_setfuncs(L, meta, 0);
  }
  lua_pop(L, 1);
}

#endif
