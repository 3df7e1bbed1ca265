#include "core/timers.h"

#include "lua/core.h"
#include "lua/core_args.h"

#define CLASS "weir.core.timers"

/* The object's table of values holds the timers' values by id. */
static weir_timers *check(lua_State *L) { return luaL_checkudata(L, 1, CLASS); }

static void push_id(lua_State *L, uint64_t id) {
  lua_pushinteger(L, (lua_Integer)id); /* below 2^53 */
}

/* Replaces the id on top of the stack by its value, which is forgotten. */
static void take_value(lua_State *L) {
  weir_lua_push_values(L, 1);
  lua_pushvalue(L, -2);
  lua_rawget(L, -2);
  lua_pushvalue(L, -3);
  lua_pushnil(L);
  lua_rawset(L, -4);
  lua_replace(L, -3);
  lua_pop(L, 1);
}

/***
 * Adds a timer.
 * @function timers:add
 * @tparam number deadline seconds of the caller's clock
 * @param value what expired() returns; anything but nil
 * @treturn number the timer's id
 */
static int timers_add(lua_State *L) {
  weir_timers *self = check(L);
  uint64_t deadline = weir_lua_check_time(L, 2), id;
  luaL_checkany(L, 3);
  luaL_argcheck(L, !lua_isnil(L, 3), 3, "a value other than nil expected");
  weir_status status = weir_timers_add(self, deadline, 0, &id);
  if (status != WEIR_OK) return luaL_error(L, "timers: %s", weir_status_text(status));
  weir_lua_push_values(L, 1);
  push_id(L, id);
  lua_pushvalue(L, 3);
  lua_rawset(L, -3);
  push_id(L, id);
  return 1;
}

/***
 * Cancels a timer.
 * @function timers:cancel
 * @tparam number id
 * @treturn boolean whether it was still there
 */
static int timers_cancel(lua_State *L) {
  weir_timers *self = check(L);
  lua_Number number = luaL_checknumber(L, 2);
  uint64_t id = number >= 1 && number < 0x1p53 ? (uint64_t)number : 0;
  int found = weir_timers_cancel(self, id, NULL);
  if (found) {
    push_id(L, id);
    take_value(L);
  }
  lua_pushboolean(L, found);
  return 1;
}

/***
 * The next deadline.
 * @function timers:next
 * @treturn[1] number seconds: expired() at this time finds a timer
 * @treturn[2] nil when no timer will ever expire
 */
static int timers_next(lua_State *L) {
  uint64_t deadline = weir_timers_next(check(L));
  if (deadline == WEIR_NEVER) {
    lua_pushnil(L);
  } else {
    weir_lua_push_time(L, deadline);
  }
  return 1;
}

/***
 * Takes one timer that is over: by deadline, then in the order of adding. Call it until it returns
 * nil.
 * @function timers:expired
 * @tparam number now seconds of the caller's clock
 * @return[1] the timer's value
 * @treturn[1] number its id
 * @treturn[2] nil when none is over
 */
static int timers_expired(lua_State *L) {
  weir_timers *self = check(L);
  uint64_t now = weir_lua_check_time(L, 2), id;
  while (weir_timers_expired(self, now, &id, NULL)) {
    push_id(L, id);
    take_value(L);
    /* nil: add() ran out of memory when it was about to keep the value, and nobody has the id. */
    if (!lua_isnil(L, -1)) {
      push_id(L, id);
      return 2;
    }
    lua_pop(L, 1);
  }
  lua_pushnil(L);
  return 1;
}

static int timers_len(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)weir_timers_count(check(L)));
  return 1;
}

static int timers_tostring(lua_State *L) {
  lua_pushfstring(L, CLASS ": %d pending", (int)weir_timers_count(check(L)));
  return 1;
}

static int timers_gc(lua_State *L) {
  weir_timers_free(check(L));
  return 0;
}

/***
 * Makes a set of timers: deadlines in order, each with a value. It has no clock; `#timers` is how
 * many there are.
 * @function timers
 * @return timers
 */
static int timers_new(lua_State *L) {
  weir_timers *self = weir_lua_new_object(L, sizeof *self, CLASS);
  weir_timers_init(self, NULL);
  return 1;
}

void weir_lua_open_timers(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"add", timers_add},   {"cancel", timers_cancel},
      {"next", timers_next}, {"expired", timers_expired},
      {NULL, NULL},
  };
  static const luaL_Reg meta[] = {
      {"__len", timers_len},
      {"__tostring", timers_tostring},
      {"__gc", timers_gc},
      {NULL, NULL},
  };
  weir_lua_new_class(L, CLASS, methods, meta);
  lua_pushcfunction(L, timers_new);
  lua_setfield(L, -2, "timers");
}
