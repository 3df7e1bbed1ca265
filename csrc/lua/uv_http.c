/*
 * HTTP of weir.uv. See io/http.h.
 *
 *   loop:http{ ca=, cert=, key=, proxy=, insecure=, http2=, max_connections=, max_head_bytes=,
 *              max_head_fields=, connect_timeout= } -> client
 *   client:request(method, url, { "name: value", ... }, body, options, changed)
 *       -> request | nil, code                    body: string, true (streamed) or nil
 *       options: idempotent, decompress, timeout, head_timeout, idle_timeout (seconds)
 *   client:active()  client:close()
 *   request:status() -> number | nil              request:head() -> { name, value, ... }
 *   request:take() -> string | nil                what came, if anything
 *   request:write(bytes, offset) -> offset of the first byte that was not taken
 *   request:finish()  request:cancel()
 *   request:ended() -> false | true, code | nil, message, sent, errno name | nil
 *
 * A request keeps its client and its body alive; while it is in progress the registry keeps
 * `changed` alive, which must not refer to the request: one that nobody has any more is collected,
 * and with that abandoned.
 */
#include "io/http.h"

#include <string.h>

#include "lua/uv.h"

#define CLIENT "weir.uv.http"
#define REQUEST "weir.uv.http_request"
#define FIELDS_MAX 1000

typedef struct lua_client {
  weir_lua_loop *box;
  weir_http *http;
} lua_client;

typedef struct lua_request {
  weir_lua_loop *box;
  weir_http_request *request;
  int changed;
} lua_request;

static lua_client *check_client(lua_State *L) {
  lua_client *lc = luaL_checkudata(L, 1, CLIENT);
  if (lc->http == NULL || !lc->box->open) luaL_error(L, "the client is closed");
  return lc;
}

static lua_request *check_request(lua_State *L) {
  lua_request *lr = luaL_checkudata(L, 1, REQUEST);
  if (lr->request == NULL || !lr->box->open) luaL_error(L, "the request is closed");
  return lr;
}

/* --- options: a table at `index`; what is left on the stack keeps strings alive ------------------
 */

static const char *text_option(lua_State *L, int index, const char *name) {
  lua_getfield(L, index, name);
  return lua_isnil(L, -1) ? NULL : luaL_checkstring(L, -1);
}

static bool flag_option(lua_State *L, int index, const char *name) {
  lua_getfield(L, index, name);
  bool value = lua_toboolean(L, -1) != 0;
  lua_pop(L, 1);
  return value;
}

static size_t count_option(lua_State *L, int index, const char *name, size_t most) {
  lua_getfield(L, index, name);
  lua_Integer value = luaL_checkinteger(L, -1);
  if (value < 1 || (size_t)value > most) luaL_error(L, "%s: 1 to %d", name, (int)most);
  lua_pop(L, 1);
  return (size_t)value;
}

static uint64_t time_option(lua_State *L, int index, const char *name) {
  lua_getfield(L, index, name);
  uint64_t span = WEIR_NEVER;
  if (!lua_isnil(L, -1)) {
    lua_Number seconds = luaL_checknumber(L, -1);
    if (!(seconds >= 0)) luaL_error(L, "%s: seconds, at least 0", name);
    if (seconds < 1e9) span = (uint64_t)(seconds * (lua_Number)WEIR_SECOND);
  }
  lua_pop(L, 1);
  return span;
}

int weir_lua_http(lua_State *L) {
  weir_lua_loop *box = weir_lua_check_loop(L);
  luaL_checktype(L, 2, LUA_TTABLE);
  weir_http_options options = {
      .insecure = flag_option(L, 2, "insecure"),
      .http2 = flag_option(L, 2, "http2"),
      .max_connections = count_option(L, 2, "max_connections", 65536),
      .max_head_bytes = count_option(L, 2, "max_head_bytes", WEIR_HTTP_HEAD_MAX),
      .max_head_fields = count_option(L, 2, "max_head_fields", 65536),
      .connect_timeout = time_option(L, 2, "connect_timeout"),
      .ca = text_option(L, 2, "ca"),
      .cert = text_option(L, 2, "cert"),
      .key = text_option(L, 2, "key"),
      .proxy = text_option(L, 2, "proxy"),
  };
  lua_client *lc = lua_newuserdata(L, sizeof *lc);
  *lc = (lua_client){.box = box};
  luaL_setmetatable(L, CLIENT);
  lc->http = weir_http_new(&box->loop, &options);
  if (lc->http == NULL) return luaL_error(L, "libcurl cannot be set up");
  return 1;
}

static int close_client(lua_State *L) {
  lua_client *lc = luaL_checkudata(L, 1, CLIENT);
  if (lc->http != NULL && lc->box->open) weir_http_free(lc->http);
  lc->http = NULL;
  return 0;
}

static int client_active(lua_State *L) {
  lua_client *lc = luaL_checkudata(L, 1, CLIENT);
  bool open = lc->http != NULL && lc->box->open;
  lua_pushinteger(L, open ? (lua_Integer)weir_http_active(lc->http) : 0);
  return 1;
}

/* --- requests -----------------------------------------------------------------------------------
 */

static int push_nothing(lua_State *L, void *arg) {
  (void)L, (void)arg;
  return 0;
}

static void on_changed(weir_http_request *request, void *user) {
  (void)request;
  lua_request *lr = user;
  weir_lua_callback(lr->box, lr->changed, push_nothing, NULL);
}

static int gc_request(lua_State *L) {
  lua_request *lr = luaL_checkudata(L, 1, REQUEST);
  if (lr->request != NULL && lr->box->open) weir_http_request_free(lr->request);
  lr->request = NULL;
  weir_lua_unref(L, &lr->changed);
  return 0;
}

/* The list of strings at index 4, as an array in a userdata that is left on the stack. */
static const char **check_fields(lua_State *L, size_t *count) {
  luaL_checktype(L, 4, LUA_TTABLE);
  *count = (size_t)lua_rawlen(L, 4);
  luaL_argcheck(L, *count <= FIELDS_MAX, 4, "too many fields");
  const char **fields = lua_newuserdata(L, (*count + 1) * sizeof *fields);
  for (size_t i = 0; i < *count; i++) {
    lua_rawgeti(L, 4, (lua_Integer)i + 1);
    luaL_argcheck(L, lua_type(L, -1) == LUA_TSTRING, 4, "a list of strings expected");
    fields[i] = lua_tostring(L, -1); /* the list keeps it */
    lua_pop(L, 1);
  }
  return fields;
}

static lua_request *new_request(lua_State *L, weir_lua_loop *box) {
  lua_request *lr = lua_newuserdatauv(L, sizeof *lr, 2);
  *lr = (lua_request){.box = box, .changed = LUA_NOREF};
  luaL_setmetatable(L, REQUEST);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, 1);
  lua_pushvalue(L, 5);
  lua_setiuservalue(L, -2, 2);
  return lr;
}

static int client_request(lua_State *L) {
  lua_client *lc = check_client(L);
  luaL_checktype(L, 6, LUA_TTABLE);
  weir_http_call call = {
      .method = luaL_checkstring(L, 2),
      .streamed = lua_isboolean(L, 5) && lua_toboolean(L, 5),
      .idempotent = flag_option(L, 6, "idempotent"),
      .decompress = flag_option(L, 6, "decompress"),
      .timeout = time_option(L, 6, "timeout"),
      .head_timeout = time_option(L, 6, "head_timeout"),
      .idle_timeout = time_option(L, 6, "idle_timeout"),
      .changed = on_changed,
  };
  size_t url_len;
  call.url = luaL_checklstring(L, 3, &url_len);
  if (!call.streamed && !lua_isnil(L, 5)) {
    luaL_checktype(L, 5, LUA_TSTRING);
    call.body = lua_tolstring(L, 5, &call.body_len);
  }
  call.fields = check_fields(L, &call.field_count);
  lua_request *lr = new_request(L, lc->box);
  lr->changed = weir_lua_ref_function(L, 7);
  call.user = lr;
  weir_http_error error = WEIR_HTTP_BAD_URL;
  if (strlen(call.url) == url_len) lr->request = weir_http_request_new(lc->http, &call, &error);
  if (lr->request != NULL) return 1;
  weir_lua_unref(L, &lr->changed);
  lua_pushnil(L);
  lua_pushstring(L, weir_http_error_name(error));
  return 2;
}

static int request_status(lua_State *L) {
  int status = weir_http_status(check_request(L)->request);
  if (status == 0) return 0;
  lua_pushinteger(L, status);
  return 1;
}

static int request_head(lua_State *L) {
  const weir_http_request *request = check_request(L)->request;
  size_t count = weir_http_field_count(request);
  lua_createtable(L, (int)count * 2, 0);
  for (size_t i = 0; i < count; i++) {
    weir_http_field field = weir_http_field_at(request, i);
    lua_pushlstring(L, field.name, field.name_len);
    lua_rawseti(L, -2, (lua_Integer)i * 2 + 1);
    lua_pushlstring(L, field.value, field.value_len);
    lua_rawseti(L, -2, (lua_Integer)i * 2 + 2);
  }
  return 1;
}

static int request_take(lua_State *L) {
  weir_http_request *request = check_request(L)->request;
  size_t len;
  const char *data = weir_http_peek(request, &len);
  if (len == 0) return 0;
  lua_pushlstring(L, data, len);
  weir_http_take(request);
  return 1;
}

static int request_write(lua_State *L) {
  weir_http_request *request = check_request(L)->request;
  size_t len;
  const char *data = luaL_checklstring(L, 2, &len);
  lua_Integer offset = luaL_checkinteger(L, 3);
  luaL_argcheck(L, offset >= 1 && (size_t)offset <= len + 1, 3, "out of range");
  size_t skip = (size_t)offset - 1;
  size_t written = weir_http_write(request, data + skip, len - skip);
  lua_pushinteger(L, offset + (lua_Integer)written);
  return 1;
}

static int request_finish(lua_State *L) {
  weir_http_finish(check_request(L)->request);
  return 0;
}

static int request_cancel(lua_State *L) {
  lua_request *lr = luaL_checkudata(L, 1, REQUEST);
  if (lr->request != NULL && lr->box->open) weir_http_cancel(lr->request);
  return 0;
}

static int request_ended(lua_State *L) {
  const weir_http_request *request = check_request(L)->request;
  lua_pushboolean(L, weir_http_ended(request));
  if (!weir_http_ended(request)) return 1;
  weir_http_error error = weir_http_failure(request);
  if (error == WEIR_HTTP_OK) return 1;
  lua_pushstring(L, weir_http_error_name(error));
  lua_pushstring(L, weir_http_message(request));
  lua_pushboolean(L, weir_http_sent(request));
  lua_pushstring(L, weir_http_system(request));
  return 5;
}

static const luaL_Reg client_methods[] = {
    {"request", client_request},
    {"active", client_active},
    {"close", close_client},
    {NULL, NULL},
};
static const luaL_Reg client_metamethods[] = {{"__gc", close_client}, {NULL, NULL}};

static const luaL_Reg request_methods[] = {
    {"status", request_status}, {"head", request_head},
    {"take", request_take},     {"write", request_write},
    {"finish", request_finish}, {"cancel", request_cancel},
    {"ended", request_ended},   {NULL, NULL},
};
static const luaL_Reg request_metamethods[] = {{"__gc", gc_request}, {NULL, NULL}};

void weir_lua_open_http(lua_State *L) {
  weir_lua_type(L, CLIENT, client_methods, client_metamethods);
  weir_lua_type(L, REQUEST, request_methods, request_metamethods);
}
