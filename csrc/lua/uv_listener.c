/*
 * Listeners of weir.uv. See io/listener.h.
 *
 *   loop:listen_tcp(ip, port, backlog, accepted) -> listener | nil, errno name     accepted(conn)
 *   loop:listen_unix(path, backlog, accepted) -> listener | nil, errno name
 *   listener:port()  listener:close()
 *
 * An open listener is kept alive by the registry.
 */
#include "io/listener.h"

#include "lua/uv.h"

#define LISTENER "weir.uv.listener"

typedef struct lua_listener {
  weir_lua_loop *box;
  weir_listener *listener;
  int accepted, self;
} lua_listener;

static int push_accepted(lua_State *L, void *arg) {
  weir_conn **conn = ((void **)arg)[0];
  weir_lua_loop *box = ((void **)arg)[1];
  weir_lua_push_conn(L, box, *conn);
  *conn = NULL; /* the userdata has it */
  return 1;
}

static void on_accepted(weir_listener *listener, weir_conn *conn, void *user) {
  (void)listener;
  lua_listener *ll = user;
  void *arg[2] = {&conn, ll->box};
  weir_lua_callback(ll->box, ll->accepted, push_accepted, arg);
  if (conn != NULL) weir_conn_free(conn);
}

static lua_listener *new_listener(lua_State *L, weir_lua_loop *box, int accepted) {
  luaL_checktype(L, accepted, LUA_TFUNCTION);
  lua_listener *ll = lua_newuserdata(L, sizeof *ll);
  *ll = (lua_listener){.box = box, .accepted = LUA_NOREF, .self = LUA_NOREF};
  luaL_setmetatable(L, LISTENER);
  ll->accepted = weir_lua_ref_function(L, accepted);
  return ll;
}

static int started(lua_State *L, lua_listener *ll, int error) {
  if (ll->listener == NULL) {
    weir_lua_unref(L, &ll->accepted);
    return weir_lua_fail(L, error);
  }
  lua_pushvalue(L, -1);
  ll->self = luaL_ref(L, LUA_REGISTRYINDEX);
  return 1;
}

int weir_lua_listen_tcp(lua_State *L) {
  weir_lua_loop *box = weir_lua_check_loop(L);
  struct sockaddr_storage address = weir_lua_check_address(L, 2);
  int backlog = (int)luaL_checkinteger(L, 4);
  lua_listener *ll = new_listener(L, box, 5);
  int error = 0;
  ll->listener =
      weir_listener_tcp(&box->loop, (struct sockaddr *)&address, backlog, on_accepted, ll, &error);
  return started(L, ll, error);
}

int weir_lua_listen_unix(lua_State *L) {
  weir_lua_loop *box = weir_lua_check_loop(L);
  const char *path = luaL_checkstring(L, 2);
  int backlog = (int)luaL_checkinteger(L, 3);
  lua_listener *ll = new_listener(L, box, 4);
  int error = 0;
  ll->listener = weir_listener_unix(&box->loop, path, backlog, on_accepted, ll, &error);
  return started(L, ll, error);
}

static int listener_close(lua_State *L) {
  lua_listener *ll = luaL_checkudata(L, 1, LISTENER);
  if (ll->listener != NULL && ll->box->open) weir_listener_free(ll->listener);
  ll->listener = NULL;
  weir_lua_unref(L, &ll->accepted);
  weir_lua_unref(L, &ll->self);
  return 0;
}

static int listener_port(lua_State *L) {
  lua_listener *ll = luaL_checkudata(L, 1, LISTENER);
  if (ll->listener == NULL) return luaL_error(L, "the listener is closed");
  lua_pushinteger(L, weir_listener_port(ll->listener));
  return 1;
}

static const luaL_Reg methods[] = {
    {"close", listener_close},
    {"port", listener_port},
    {NULL, NULL},
};
static const luaL_Reg metamethods[] = {{"__gc", listener_close}, {NULL, NULL}};

void weir_lua_open_listener(lua_State *L) { weir_lua_type(L, LISTENER, methods, metamethods); }
