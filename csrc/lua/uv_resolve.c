/*
 * Name resolution of weir.uv. See io/resolve.h.
 *
 *   loop:resolve(host, service, done) -> request | nil, errno name
 *       done(errno name) or done(nil, { ip, ip, ... })
 *   request:cancel()        no callback follows; collecting the request does the same
 */
#include "io/resolve.h"

#include "lua/uv.h"

#define RESOLVE "weir.uv.resolve"
#define MAX_ADDRESSES 64

typedef struct lua_resolve {
  weir_lua_loop *box;
  weir_resolve *resolve;
  int done;
} lua_resolve;

typedef struct answer {
  int error;
  const struct addrinfo *list;
} answer;

static int push_answer(lua_State *L, void *arg) {
  const answer *reply = arg;
  if (reply->error != 0) {
    lua_pushstring(L, uv_err_name(reply->error));
    return 1;
  }
  lua_pushnil(L);
  lua_newtable(L);
  int count = 0;
  for (const struct addrinfo *ai = reply->list; ai != NULL && count < MAX_ADDRESSES;
       ai = ai->ai_next) {
    char host[UV_MAXHOSTNAMESIZE];
    int port = 0;
    if (weir_sockaddr_name(ai->ai_addr, host, sizeof host, &port) != 0) continue;
    lua_pushstring(L, host);
    lua_rawseti(L, -2, ++count);
  }
  return 2;
}

static void on_done(weir_resolve *resolve, int error, const struct addrinfo *list, void *user) {
  (void)resolve;
  lua_resolve *lr = user;
  weir_lua_loop *box = lr->box;
  int fn = lr->done;
  lr->done = LUA_NOREF;
  answer reply = {.error = error, .list = list};
  weir_lua_callback(box, fn, push_answer, &reply); /* lr may be gone afterwards */
  luaL_unref(box->L, LUA_REGISTRYINDEX, fn);
}

int weir_lua_resolve(lua_State *L) {
  weir_lua_loop *box = weir_lua_check_loop(L);
  const char *host = luaL_checkstring(L, 2);
  const char *service = luaL_checkstring(L, 3);
  luaL_checktype(L, 4, LUA_TFUNCTION);
  lua_resolve *lr = lua_newuserdata(L, sizeof *lr);
  *lr = (lua_resolve){.box = box, .done = LUA_NOREF};
  luaL_setmetatable(L, RESOLVE);
  lr->done = weir_lua_ref_function(L, 4);
  int error = 0;
  lr->resolve = weir_resolve_new(&box->loop, host, service, on_done, lr, &error);
  return lr->resolve != NULL ? 1 : weir_lua_fail(L, error);
}

static int resolve_cancel(lua_State *L) {
  lua_resolve *lr = luaL_checkudata(L, 1, RESOLVE);
  if (lr->resolve != NULL && lr->box->open) weir_resolve_free(lr->resolve);
  lr->resolve = NULL;
  weir_lua_unref(L, &lr->done);
  return 0;
}

static const luaL_Reg methods[] = {{"cancel", resolve_cancel}, {NULL, NULL}};
static const luaL_Reg metamethods[] = {{"__gc", resolve_cancel}, {NULL, NULL}};

void weir_lua_open_resolve(lua_State *L) { weir_lua_type(L, RESOLVE, methods, metamethods); }
