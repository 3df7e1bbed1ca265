/*
 * The walk over a Lua value that is to be encoded, for any binary format.
 *
 * A format is a table of functions, each of which writes one head or one whole scalar; the walk
 * decides what a Lua value is:
 *
 * - nil and a light userdata NULL are null. Numbers are integers where Lua has them as such; in
 *   LuaJIT numbers without a fraction of up to 2^53.
 * - A string is text when it is valid UTF-8, else bytes.
 * - A table whose keys are 1..n is an array, and so is the empty table; any other is a map, whose
 *   keys may be strings, numbers and booleans. Tables are read raw, without metamethods. A table
 *   whose metatable is one of the format's marks is what that says: a map, an array, or the
 *   format's own kind of value.
 *
 * Tables nest WEIR_LUA_DEPTH deep at most. What cannot be encoded is named with its path:
 * "cannot encode a function at .user.callback".
 *
 * The marks are the first upvalues of every function of the module (weir_lua_encode_open). What is
 * written grows in a userdata of Lua's, so that errors may jump anywhere and leak nothing.
 */
#ifndef WEIR_LUA_ENCODE_H
#define WEIR_LUA_ENCODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lua/compat.h"

enum {
  WEIR_LUA_DEPTH = 64
};

/* Marks: upvalues of the module's functions, and metatables of what they mark. */
enum {
  WEIR_LUA_MAP_MARK = 1,
  WEIR_LUA_ARRAY_MARK,
  WEIR_LUA_OWN_MARK, /* the format's own kind of value */
};

typedef struct weir_lua_encoder weir_lua_encoder;

typedef struct weir_lua_format {
  const char *name;
  uint64_t max_count; /* bytes of a string, items of a table */
  void (*null)(weir_lua_encoder *e);
  void (*boolean)(weir_lua_encoder *e, bool value);
  void (*integer)(weir_lua_encoder *e, int64_t value);
  void (*number)(weir_lua_encoder *e, double value);
  void (*text)(weir_lua_encoder *e, const char *bytes, size_t len);
  void (*bytes)(weir_lua_encoder *e, const char *bytes, size_t len);
  void (*array)(weir_lua_encoder *e, size_t count); /* the items follow */
  void (*map)(weir_lua_encoder *e, size_t count);   /* as many times key and value follow */
  /* A table with WEIR_LUA_OWN_MARK, at an absolute index; all of it. As encode_value. */
  bool (*own)(weir_lua_encoder *e, int index);
} weir_lua_format;

/* The body of encode(value): returns the string; or nil and what cannot be encoded. */
int weir_lua_encode(lua_State *L, const weir_lua_format *format);

/* --- for the functions of a format --- */

lua_State *weir_lua_encoder_state(const weir_lua_encoder *e);
void weir_lua_encode_write(weir_lua_encoder *e, const void *bytes, size_t len);

/* Encodes the value at `index`, an absolute one. False: the reason is on top of the stack. */
bool weir_lua_encode_value(weir_lua_encoder *e, int index);

/* The same for the field `key` (a string) of the table at `index`, as a value inside of it. */
bool weir_lua_encode_field(weir_lua_encoder *e, int index, const char *key);

/* Pushes "cannot encode", `before`, `what`, the path and `after`; returns false. */
bool weir_lua_encode_refuse(weir_lua_encoder *e, const char *before, const char *what,
                            const char *after);

/* --- marks --- */

/* Pushes a table for the module: `functions`, with marks called PREFIX.map, PREFIX.array and
 * PREFIX.OWN as their upvalues, map(), array() and null. */
void weir_lua_encode_open(lua_State *L, const char *prefix, const char *own,
                          const luaL_Reg *functions);

#endif
