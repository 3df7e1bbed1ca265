/*
 * The module weir.uv and its loop object. See io/loop.h for what the calls mean.
 *
 *   uv.loop() -> loop       uv.now() -> seconds       uv.random(n) -> string
 *   loop:fd()  loop:poll()  loop:hold()
 *   loop:flush() -> busy, alive, deadline (seconds of uv.now(), or nil)
 */
#include <stdio.h>

#include "lua/uv.h"

#define LOOP "weir.uv.loop"
#define RANDOM_MAX 65536

static const double SECOND = 1e9;

typedef struct callback {
  int fn;
  weir_lua_push push;
  void *arg;
} callback;

static int run_callback(lua_State *L) {
  const callback *cb = lua_touserdata(L, 1);
  luaL_checkstack(L, 8, NULL);
  lua_rawgeti(L, LUA_REGISTRYINDEX, cb->fn);
  int count = cb->push(L, cb->arg);
  lua_call(L, count, 0);
  return 0;
}

void weir_lua_callback(weir_lua_loop *box, int fn, weir_lua_push push, void *arg) {
  lua_State *L = box->L;
  callback cb = {.fn = fn, .push = push, .arg = arg};
  if (!lua_checkstack(L, 3)) return;
  lua_pushcfunction(L, run_callback);
  lua_pushlightuserdata(L, &cb);
  if (lua_pcall(L, 1, 0, 0) == 0) return;
  const char *message = lua_tostring(L, -1);
  fprintf(stderr, "weir: error in a callback: %s\n", message != NULL ? message : "(no message)");
  lua_pop(L, 1);
}

weir_lua_loop *weir_lua_check_loop(lua_State *L) {
  weir_lua_loop *box = luaL_checkudata(L, 1, LOOP);
  if (!box->open) luaL_error(L, "the loop is closed");
  return box;
}

int weir_lua_ref_function(lua_State *L, int index) {
  luaL_checktype(L, index, LUA_TFUNCTION);
  lua_pushvalue(L, index);
  return luaL_ref(L, LUA_REGISTRYINDEX);
}

void weir_lua_unref(lua_State *L, int *ref) {
  luaL_unref(L, LUA_REGISTRYINDEX, *ref);
  *ref = LUA_NOREF;
}

void weir_lua_type(lua_State *L, const char *name, const luaL_Reg *methods,
                   const luaL_Reg *metamethods) {
  luaL_newmetatable(L, name);
  luaL_setfuncs(L, metamethods, 0);
  lua_newtable(L);
  luaL_setfuncs(L, methods, 0);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
}

int weir_lua_fail(lua_State *L, int error) {
  lua_pushnil(L);
  lua_pushstring(L, uv_err_name(error));
  return 2;
}

struct sockaddr_storage weir_lua_check_address(lua_State *L, int index) {
  const char *host = luaL_checkstring(L, index);
  lua_Integer port = luaL_checkinteger(L, index + 1);
  struct sockaddr_storage address = {0};
  luaL_argcheck(L, port >= 0 && port <= 65535, index + 1, "a port is 0 to 65535");
  if (uv_ip4_addr(host, (int)port, (struct sockaddr_in *)&address) == 0) return address;
  address = (struct sockaddr_storage){0};
  if (uv_ip6_addr(host, (int)port, (struct sockaddr_in6 *)&address) != 0) {
    luaL_argerror(L, index, "a numeric address is expected");
  }
  return address;
}

static int new_loop(lua_State *L) {
  weir_lua_loop *box = lua_newuserdata(L, sizeof *box);
  box->open = false;
  box->running = false;
  box->L = NULL;
  luaL_setmetatable(L, LOOP);
  int error = weir_loop_init(&box->loop);
  if (error != 0) return luaL_error(L, "cannot make a libuv loop: %s", uv_strerror(error));
  box->open = true;
  return 1;
}

static int gc_loop(lua_State *L) {
  weir_lua_loop *box = luaL_checkudata(L, 1, LOOP);
  if (box->open) {
    box->open = false;
    weir_loop_close(&box->loop);
  }
  return 0;
}

static int loop_fd(lua_State *L) {
  lua_pushinteger(L, weir_loop_fd(&weir_lua_check_loop(L)->loop));
  return 1;
}

/* The loop at index 1, entered: box->L and running are set. */
static weir_lua_loop *enter(lua_State *L) {
  weir_lua_loop *box = weir_lua_check_loop(L);
  if (box->running) luaL_error(L, "the loop is running");
  box->running = true;
  box->L = L;
  return box;
}

static int loop_poll(lua_State *L) {
  weir_lua_loop *box = enter(L);
  weir_loop_poll(&box->loop);
  box->running = false;
  return 0;
}

static int loop_flush(lua_State *L) {
  weir_lua_loop *box = enter(L);
  bool busy = weir_loop_flush(&box->loop);
  box->running = false;
  uint64_t deadline = weir_loop_deadline(&box->loop);
  lua_pushboolean(L, busy);
  lua_pushboolean(L, weir_loop_alive(&box->loop));
  if (deadline == WEIR_NEVER) return 2;
  lua_pushnumber(L, (lua_Number)deadline / SECOND);
  return 3;
}

static int loop_hold(lua_State *L) {
  weir_loop_hold(&weir_lua_check_loop(L)->loop);
  return 0;
}

static int now(lua_State *L) {
  lua_pushnumber(L, (lua_Number)uv_hrtime() / SECOND);
  return 1;
}

static int random_bytes(lua_State *L) {
  lua_Integer n = luaL_checkinteger(L, 1);
  luaL_argcheck(L, n >= 0 && n <= RANDOM_MAX, 1, "0 to 65536 bytes");
  char *bytes = lua_newuserdata(L, n > 0 ? (size_t)n : 1);
  int error = uv_random(NULL, NULL, bytes, (size_t)n, 0, NULL);
  if (error != 0) return luaL_error(L, "no random bytes: %s", uv_strerror(error));
  lua_pushlstring(L, bytes, (size_t)n);
  return 1;
}

static const luaL_Reg loop_methods[] = {
    {"fd", loop_fd},
    {"poll", loop_poll},
    {"flush", loop_flush},
    {"hold", loop_hold},
    {"connect_tcp", weir_lua_connect_tcp},
    {"connect_unix", weir_lua_connect_unix},
    {"listen_tcp", weir_lua_listen_tcp},
    {"listen_unix", weir_lua_listen_unix},
    {"pair", weir_lua_pair},
    {"bytes", weir_lua_bytes},
    {"resolve", weir_lua_resolve},
    {"http", weir_lua_http},
    {NULL, NULL},
};
static const luaL_Reg loop_metamethods[] = {{"__gc", gc_loop}, {NULL, NULL}};
static const luaL_Reg functions[] = {
    {"loop", new_loop},
    {"now", now},
    {"random", random_bytes},
    {NULL, NULL},
};

LUALIB_API int luaopen_weir_uv(lua_State *L) {
  weir_lua_type(L, LOOP, loop_methods, loop_metamethods);
  weir_lua_open_conn(L);
  weir_lua_open_bytes(L);
  weir_lua_open_listener(L);
  weir_lua_open_resolve(L);
  weir_lua_open_http(L);
  lua_newtable(L);
  luaL_setfuncs(L, functions, 0);
  return 1;
}
