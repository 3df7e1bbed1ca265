/*
 * Arguments of Lua functions: times and option tables. Misuse raises a Lua error.
 */
#ifndef WEIR_LUA_CORE_ARGS_H
#define WEIR_LUA_CORE_ARGS_H

#include <stdint.h>

#include "lua/compat.h"

/* Seconds to nanoseconds: rounded, below zero 0, and beyond what 64 bits hold WEIR_NEVER. */
uint64_t weir_lua_to_nanoseconds(lua_Number seconds);
/* The least number of seconds that weir_lua_to_nanoseconds() makes at least as many again. */
lua_Number weir_lua_to_seconds(uint64_t nanoseconds);

/* The argument as seconds, in nanoseconds; NaN is an error. */
uint64_t weir_lua_check_time(lua_State *L, int index);
void weir_lua_push_time(lua_State *L, uint64_t nanoseconds);

/* The argument must be a table with no other keys than `known` (ends with NULL); nil and none pass
 * as well. The error for another key names `what` and lists the known ones. */
void weir_lua_check_options(lua_State *L, int index, const char *what, const char *const *known);

/* The option `name` as a number, or `otherwise` where there is none (or no table). */
lua_Number weir_lua_option_number(lua_State *L, int index, const char *name, lua_Number otherwise);
/* The same in seconds, as nanoseconds. */
uint64_t weir_lua_option_time(lua_State *L, int index, const char *name, uint64_t otherwise);

#endif
