/*
 * weir.core: the Lua module over csrc/core, for Lua 5.4 and LuaJIT.
 *
 * One file per object. Each has a function here that adds its constructor or functions to the
 * module table, which is on top of the stack, and leaves the stack as it was; core_module.c calls
 * them all.
 */
#ifndef WEIR_LUA_CORE_H
#define WEIR_LUA_CORE_H

#include "lua/compat.h"

void weir_lua_open_hash(lua_State *L);
void weir_lua_open_backoff(lua_State *L);
void weir_lua_open_timers(lua_State *L);
void weir_lua_open_yamux(lua_State *L);
void weir_lua_open_hub(lua_State *L);
void weir_lua_open_producer(lua_State *L);
void weir_lua_open_consumer(lua_State *L);
void weir_lua_open_session(lua_State *L);
void weir_lua_open_durable_json(lua_State *L);
void weir_lua_open_durable_values(lua_State *L);
void weir_lua_open_durable_response(lua_State *L);
void weir_lua_open_durable_reader(lua_State *L);
void weir_lua_open_durable_writer(lua_State *L);

#endif
