#include "lua/core_args.h"

#include <math.h>
#include <string.h>

#include "core/time.h"

uint64_t weir_lua_to_nanoseconds(lua_Number seconds) {
  if (!(seconds > 0)) return 0;
  double nanoseconds = floor(seconds * 1e9 + 0.5);
  return nanoseconds < 0x1p64 ? (uint64_t)nanoseconds : WEIR_NEVER;
}

lua_Number weir_lua_to_seconds(uint64_t nanoseconds) {
  if (nanoseconds == WEIR_NEVER) return HUGE_VAL;
  double seconds = (double)nanoseconds / 1e9;
  /* From 52 days on a double rounds; a caller that waits until then must not come too early. */
  while (weir_lua_to_nanoseconds(seconds) < nanoseconds)
    seconds = nextafter(seconds, HUGE_VAL);
  return seconds;
}

uint64_t weir_lua_check_time(lua_State *L, int index) {
  lua_Number seconds = luaL_checknumber(L, index);
  luaL_argcheck(L, seconds == seconds, index, "not a time");
  return weir_lua_to_nanoseconds(seconds);
}

void weir_lua_push_time(lua_State *L, uint64_t nanoseconds) {
  lua_pushnumber(L, weir_lua_to_seconds(nanoseconds));
}

static int is_known(const char *name, const char *const *known) {
  for (; *known != NULL; known++) {
    if (strcmp(name, *known) == 0) return 1;
  }
  return 0;
}

static int unknown_option(lua_State *L, const char *what, const char *name,
                          const char *const *known) {
  luaL_Buffer list;
  luaL_buffinit(L, &list);
  for (const char *const *option = known; *option != NULL; option++) {
    if (option != known) luaL_addstring(&list, ", ");
    luaL_addstring(&list, *option);
  }
  luaL_pushresult(&list);
  return luaL_error(L, "%s: unknown option '%s' (known: %s)", what, name, lua_tostring(L, -1));
}

void weir_lua_check_options(lua_State *L, int index, const char *what, const char *const *known) {
  if (lua_isnoneornil(L, index)) return;
  luaL_checktype(L, index, LUA_TTABLE);
  index = lua_absindex(L, index);
  lua_pushnil(L);
  while (lua_next(L, index)) {
    lua_pop(L, 1);
    if (lua_type(L, -1) != LUA_TSTRING) {
      luaL_error(L, "%s: options have names, not a %s", what, luaL_typename(L, -1));
    }
    const char *name = lua_tostring(L, -1);
    if (!is_known(name, known)) unknown_option(L, what, name, known);
  }
}

/* Pushes the option, or nil. */
static int push_option(lua_State *L, int index, const char *name) {
  if (lua_istable(L, index)) {
    lua_getfield(L, index, name);
  } else {
    lua_pushnil(L);
  }
  return !lua_isnil(L, -1);
}

/* Whether there is the option; then *value is it. */
static int get_number(lua_State *L, int index, const char *name, lua_Number *value) {
  int given = push_option(L, index, name);
  if (given) {
    if (lua_type(L, -1) != LUA_TNUMBER) {
      luaL_error(L, "option '%s' must be a number, not a %s", name, luaL_typename(L, -1));
    }
    *value = lua_tonumber(L, -1);
  }
  lua_pop(L, 1);
  return given;
}

lua_Number weir_lua_option_number(lua_State *L, int index, const char *name, lua_Number otherwise) {
  lua_Number value;
  return get_number(L, index, name, &value) ? value : otherwise;
}

uint64_t weir_lua_option_time(lua_State *L, int index, const char *name, uint64_t otherwise) {
  lua_Number seconds;
  if (!get_number(L, index, name, &seconds)) return otherwise;
  if (!(seconds >= 0)) luaL_error(L, "option '%s' must be a time in seconds, 0 or more", name);
  return weir_lua_to_nanoseconds(seconds);
}
