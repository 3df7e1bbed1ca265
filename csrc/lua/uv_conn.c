/*
 * Connections of weir.uv. See io/conn.h.
 *
 *   loop:connect_tcp(ip, port, opened) -> conn | nil, errno name     opened(errno name | nil)
 *   loop:connect_unix(path, opened) -> conn | nil, errno name
 *   loop:pair() -> conn, conn                     each other's peer, in memory
 *   conn:attach(endpoint, linger, closed)         closed(status name | nil, errno name | nil)
 *   conn:close()  conn:stats() -> received, sent  conn:peer() -> ip, port
 *
 * An endpoint is a userdata whose block begins with a `weir_endpoint *` and whose metatable has
 * `__weir_endpoint = true`; NULL there means that it is gone. While it is attached, the registry
 * keeps connection and endpoint alive. When the state closes, either may be finalized first: the
 * endpoint leaves NULL behind, the connection lets go of the endpoint without a word.
 */
#include "core/status.h"
#include "lua/uv.h"

#define CONN "weir.uv.conn"

typedef struct lua_conn {
  weir_lua_loop *box;
  weir_conn *conn;
  int callback; /* opened, later closed */
  int endpoint, self;
} lua_conn;

static void forget(lua_State *L, lua_conn *lc) {
  weir_lua_unref(L, &lc->callback);
  weir_lua_unref(L, &lc->endpoint);
  weir_lua_unref(L, &lc->self);
}

static lua_conn *new_conn(lua_State *L, weir_lua_loop *box) {
  lua_conn *lc = lua_newuserdata(L, sizeof *lc);
  *lc = (lua_conn){.box = box, .callback = LUA_NOREF, .endpoint = LUA_NOREF, .self = LUA_NOREF};
  luaL_setmetatable(L, CONN);
  return lc;
}

static lua_conn *make_conn(lua_State *L, weir_lua_loop *box, weir_conn_kind kind) {
  lua_conn *lc = new_conn(L, box);
  lc->conn = weir_conn_new(&box->loop, kind);
  if (lc->conn == NULL) luaL_error(L, "not enough memory");
  return lc;
}

void weir_lua_push_conn(lua_State *L, weir_lua_loop *box, weir_conn *conn) {
  new_conn(L, box)->conn = conn;
}

static lua_conn *check_conn(lua_State *L) {
  lua_conn *lc = luaL_checkudata(L, 1, CONN);
  if (lc->conn == NULL || !lc->box->open) luaL_error(L, "the connection is closed");
  return lc;
}

static int gc_conn(lua_State *L) {
  lua_conn *lc = luaL_checkudata(L, 1, CONN);
  if (lc->conn != NULL && lc->box->open) {
    weir_conn_detach(lc->conn); /* attached, it is finalized only when the state closes */
    weir_conn_free(lc->conn);
  }
  lc->conn = NULL;
  forget(L, lc);
  return 0;
}

static int push_error(lua_State *L, void *arg) {
  int error = *(int *)arg;
  if (error == 0) return 0;
  lua_pushstring(L, uv_err_name(error));
  return 1;
}

static void on_opened(weir_conn *conn, int error, void *user) {
  (void)conn;
  lua_conn *lc = user;
  weir_lua_loop *box = lc->box;
  int fn = lc->callback;
  lc->callback = LUA_NOREF;
  weir_lua_callback(box, fn, push_error, &error); /* lc may be gone afterwards */
  luaL_unref(box->L, LUA_REGISTRYINDEX, fn);
}

int weir_lua_connect_tcp(lua_State *L) {
  weir_lua_loop *box = weir_lua_check_loop(L);
  struct sockaddr_storage address = weir_lua_check_address(L, 2);
  luaL_checktype(L, 4, LUA_TFUNCTION);
  lua_conn *lc = make_conn(L, box, WEIR_CONN_TCP);
  lc->callback = weir_lua_ref_function(L, 4);
  int error = weir_conn_connect_tcp(lc->conn, (struct sockaddr *)&address, on_opened, lc);
  return error == 0 ? 1 : weir_lua_fail(L, error);
}

int weir_lua_connect_unix(lua_State *L) {
  weir_lua_loop *box = weir_lua_check_loop(L);
  const char *path = luaL_checkstring(L, 2);
  luaL_checktype(L, 3, LUA_TFUNCTION);
  lua_conn *lc = make_conn(L, box, WEIR_CONN_UNIX);
  lc->callback = weir_lua_ref_function(L, 3);
  int error = weir_conn_connect_unix(lc->conn, path, on_opened, lc);
  return error == 0 ? 1 : weir_lua_fail(L, error);
}

int weir_lua_pair(lua_State *L) {
  weir_lua_loop *box = weir_lua_check_loop(L);
  lua_conn *a = make_conn(L, box, WEIR_CONN_MEMORY);
  lua_conn *b = make_conn(L, box, WEIR_CONN_MEMORY);
  weir_conn_join(a->conn, b->conn);
  return 2;
}

typedef struct ending {
  weir_status status;
  int error;
} ending;

static int push_ending(lua_State *L, void *arg) {
  const ending *end = arg;
  if (end->status == WEIR_OK) return 0;
  lua_pushstring(L, weir_status_name(end->status));
  if (end->error == 0) return 1;
  lua_pushstring(L, uv_err_name(end->error));
  return 2;
}

static void on_closed(weir_conn *conn, weir_status status, int error, void *user) {
  lua_conn *lc = user;
  weir_lua_loop *box = lc->box;
  lua_conn kept = *lc; /* the registry keeps lc alive until forget() */
  (void)conn;
  ending end = {.status = status, .error = error};
  weir_lua_callback(box, kept.callback, push_ending, &end);
  forget(box->L, lc);
}

static weir_endpoint **check_endpoint(lua_State *L, int index) {
  weir_endpoint **slot = lua_touserdata(L, index);
  const char *wrong = NULL;
  if (slot == NULL || !luaL_getmetafield(L, index, "__weir_endpoint")) {
    wrong = "an endpoint is expected";
  } else if (*slot == NULL) {
    wrong = "the endpoint is closed";
  } else if ((*slot)->driver != NULL) {
    wrong = "the endpoint has a connection";
  }
  if (wrong != NULL) luaL_argerror(L, index, wrong);
  return slot;
}

static int conn_attach(lua_State *L) {
  lua_conn *lc = check_conn(L);
  weir_endpoint **slot = check_endpoint(L, 2);
  lua_Number linger = luaL_checknumber(L, 3);
  luaL_argcheck(L, linger >= 0 && linger <= 3600, 3, "0 to 3600 seconds");
  luaL_checktype(L, 4, LUA_TFUNCTION);
  if (!weir_conn_ready(lc->conn)) return luaL_error(L, "the connection is not ready");
  lua_pushvalue(L, 1);
  lc->self = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_pushvalue(L, 2);
  lc->endpoint = luaL_ref(L, LUA_REGISTRYINDEX);
  lc->callback = weir_lua_ref_function(L, 4);
  uint64_t ns = (uint64_t)(linger * (lua_Number)WEIR_SECOND);
  int error = weir_conn_attach(lc->conn, slot, ns, on_closed, lc);
  if (error != 0) {
    forget(L, lc);
    return weir_lua_fail(L, error);
  }
  lua_pushboolean(L, 1);
  return 1;
}

static int conn_close(lua_State *L) {
  lua_conn *lc = luaL_checkudata(L, 1, CONN);
  if (lc->conn != NULL && lc->box->open) weir_conn_close(lc->conn);
  return 0;
}

static int conn_stats(lua_State *L) {
  weir_conn_stats stats = weir_conn_stat(check_conn(L)->conn);
  lua_pushinteger(L, (lua_Integer)stats.received);
  lua_pushinteger(L, (lua_Integer)stats.sent);
  return 2;
}

static int conn_peer(lua_State *L) {
  char host[UV_MAXHOSTNAMESIZE];
  int port = 0;
  int error = weir_conn_peer(check_conn(L)->conn, host, sizeof host, &port);
  if (error != 0) return weir_lua_fail(L, error);
  lua_pushstring(L, host);
  lua_pushinteger(L, port);
  return 2;
}

static const luaL_Reg methods[] = {
    {"attach", conn_attach}, {"close", conn_close}, {"stats", conn_stats},
    {"peer", conn_peer},     {NULL, NULL},
};
static const luaL_Reg metamethods[] = {{"__gc", gc_conn}, {NULL, NULL}};
void weir_lua_open_conn(lua_State *L) { weir_lua_type(L, CONN, methods, metamethods); }
