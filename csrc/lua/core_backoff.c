#include <time.h>

#include "core/backoff.h"
#include "lua/core.h"
#include "lua/core_args.h"

#define CLASS "weir.core.backoff"

typedef struct backoff {
  weir_backoff core;
  uint64_t seed;  /* state of our own randomness ... */
  int has_source; /* ... unless the table of values has the caller's, as "random" */
} backoff;

static backoff *check(lua_State *L) { return luaL_checkudata(L, 1, CLASS); }

/* 64 random bits; from the caller's function as many as its number has. */
static uint64_t draw(lua_State *L, backoff *self) {
  if (!self->has_source) return weir_backoff_random(&self->seed);
  weir_lua_push_values(L, 1);
  lua_getfield(L, -1, "random");
  lua_call(L, 0, 1);
  lua_Number number = lua_tonumber(L, -1);
  if (lua_type(L, -1) != LUA_TNUMBER || !(number >= 0 && number < 1)) {
    luaL_error(L, "backoff: random() must return a number from 0 to below 1");
  }
  lua_pop(L, 2);
  return (uint64_t)(number * 0x1p53) << 11;
}

/***
 * An attempt failed: how long to wait before the next.
 * @function backoff:next
 * @tparam number now seconds of a monotonic clock
 * @treturn[1] number seconds
 * @treturn[2] nil when it is time to give up: `max_elapsed` after the first failure since a reset
 */
static int backoff_next(lua_State *L) {
  backoff *self = check(L);
  uint64_t now = weir_lua_check_time(L, 2), delay;
  uint64_t random = draw(L, self);
  if (weir_backoff_next(&self->core, now, random, &delay) == WEIR_OK) {
    weir_lua_push_time(L, delay);
  } else {
    lua_pushnil(L);
  }
  return 1;
}

/***
 * An attempt succeeded: start from the beginning when one fails again.
 * @function backoff:reset
 */
static int backoff_reset(lua_State *L) {
  weir_backoff_reset(&check(L)->core);
  return 0;
}

static int backoff_tostring(lua_State *L) {
  const backoff *self = check(L);
  lua_pushfstring(L, CLASS ": %s, interval %f s", self->core.failing ? "failing" : "fresh",
                  (lua_Number)self->core.interval / 1e9);
  return 1;
}

static weir_backoff_config read_config(lua_State *L, int index) {
  weir_backoff_config config = weir_backoff_defaults();
  config.initial = weir_lua_option_time(L, index, "initial", config.initial);
  config.max = weir_lua_option_time(L, index, "max", config.max);
  config.max_elapsed = weir_lua_option_time(L, index, "max_elapsed", config.max_elapsed);
  config.factor = weir_lua_option_number(L, index, "factor", config.factor);
  config.jitter = weir_lua_option_number(L, index, "jitter", config.jitter);
  return config;
}

/* A seed that differs between objects, processes and times, which is enough for jitter. */
static uint64_t some_seed(const void *object) {
  uint64_t seed = (uint64_t)(uintptr_t)object ^ (uint64_t)time(NULL) << 24 ^ (uint64_t)clock();
  return weir_backoff_random(&seed);
}

/* Keeps the option "random" with the new object, which is on top of the stack. */
static void read_source(lua_State *L, int index, backoff *self) {
  if (!lua_istable(L, index)) return;
  lua_getfield(L, index, "random");
  self->has_source = !lua_isnil(L, -1);
  if (self->has_source) {
    if (!lua_isfunction(L, -1)) luaL_error(L, "option 'random' must be a function");
    weir_lua_push_values(L, -2);
    lua_pushvalue(L, -2);
    lua_setfield(L, -2, "random");
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
}

/***
 * Makes an exponential backoff with jitter.
 * @function backoff
 * @tparam[opt] table options
 * @tparam[opt=0.5] number options.initial first interval, seconds
 * @tparam[opt=1.5] number options.factor by which the interval grows, at least 1
 * @tparam[opt=60] number options.max largest interval, seconds, before jitter
 * @tparam[opt=0.5] number options.jitter delays are drawn from interval * (1 +- jitter); 0 to 1
 * @tparam[opt=0] number options.max_elapsed seconds after which to give up; 0: never
 * @tparam[opt] function options.random returns numbers from 0 to below 1, as math.random does
 * @tparam[opt] number options.seed in place of `random`: the same delays for the same seed
 * @return a backoff
 */
static int backoff_new(lua_State *L) {
  static const char *const known[] = {"initial",     "factor", "max",  "jitter",
                                      "max_elapsed", "random", "seed", NULL};
  lua_settop(L, 1);
  weir_lua_check_options(L, 1, "backoff", known);
  weir_backoff_config config = read_config(L, 1);
  backoff *self = weir_lua_new_object(L, sizeof *self, CLASS);
  *self = (backoff){.seed = some_seed(self)};
  if (weir_backoff_init(&self->core, &config) != WEIR_OK) {
    return luaL_error(L, "backoff: needs 0 < initial <= max, factor >= 1 and jitter from 0 to 1");
  }
  read_source(L, 1, self);
  lua_Number seed = weir_lua_option_number(L, 1, "seed", (lua_Number)(self->seed >> 11));
  if (!(seed >= 0 && seed < 0x1p53)) luaL_error(L, "option 'seed' must be from 0 to below 2^53");
  self->seed = (uint64_t)seed;
  return 1;
}

void weir_lua_open_backoff(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"next", backoff_next},
      {"reset", backoff_reset},
      {NULL, NULL},
  };
  static const luaL_Reg meta[] = {
      {"__tostring", backoff_tostring},
      {NULL, NULL},
  };
  weir_lua_new_class(L, CLASS, methods, meta);
  lua_pushcfunction(L, backoff_new);
  lua_setfield(L, -2, "backoff");
}
