/*
 * weir.uv: csrc/io for Lua.
 *
 * Userdata hold pointers into csrc/io. Functions given to them are called from loop:poll() and
 * loop:flush() only, in protected mode. When a Lua state closes, finalizers run newest first, so
 * the loop's own runs last; whatever the order, nothing is used after it was freed.
 */
#ifndef WEIR_LUA_UV_H
#define WEIR_LUA_UV_H

#include <lauxlib.h>
#include <lua.h>
#include <stdbool.h>

#include "io/conn.h"
#include "io/loop.h"

typedef struct weir_lua_loop {
  weir_loop loop;
  bool open;
  bool running; /* poll or flush is on the stack */
  lua_State *L; /* the coroutine that called it */
} weir_lua_loop;

/* Pushes the arguments of a function that is called back, and returns how many. May raise. */
typedef int (*weir_lua_push)(lua_State *L, void *arg);

/* Calls the function of reference `fn` with what push() pushes; an error in it goes to stderr. */
void weir_lua_callback(weir_lua_loop *box, int fn, weir_lua_push push, void *arg);

/* The loop at index 1; it is open. */
weir_lua_loop *weir_lua_check_loop(lua_State *L);
/* A reference to the function at `index`, which must be one. */
int weir_lua_ref_function(lua_State *L, int index);
void weir_lua_unref(lua_State *L, int *ref);
/* Makes and pops the metatable `name` with `methods` as its __index and `metamethods`. */
void weir_lua_type(lua_State *L, const char *name, const luaL_Reg *methods,
                   const luaL_Reg *metamethods);
/* Returns nil and the name of a libuv error ("ECONNREFUSED"). */
int weir_lua_fail(lua_State *L, int error);
/* A TCP address from the numeric host at `index` and the port behind it; raises for nonsense. */
struct sockaddr_storage weir_lua_check_address(lua_State *L, int index);

/* Pushes a connection: the userdata owns it. On a memory error it is freed. */
void weir_lua_push_conn(lua_State *L, weir_lua_loop *box, weir_conn *conn);

int weir_lua_connect_tcp(lua_State *L);
int weir_lua_connect_unix(lua_State *L);
int weir_lua_pair(lua_State *L);
int weir_lua_bytes(lua_State *L);
int weir_lua_listen_tcp(lua_State *L);
int weir_lua_listen_unix(lua_State *L);
int weir_lua_resolve(lua_State *L);
int weir_lua_http(lua_State *L);

/* Each makes its metatable. */
void weir_lua_open_conn(lua_State *L);
void weir_lua_open_bytes(lua_State *L);
void weir_lua_open_listener(lua_State *L);
void weir_lua_open_resolve(lua_State *L);
void weir_lua_open_http(lua_State *L);

#endif
