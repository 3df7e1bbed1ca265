/*
 * A connection for Lua. See link.h.
 *
 *   nats.link(loop, options, fn) -> link          fn(kind, argument) is called in the loop's turns:
 *       "changed": the report did             "ready", id: that subscription has something
 *       "drained": there is room again        "answers": there are
 *   link:report() -> state, code, text, reconnects, faults, fault code, fault text
 *   link:publish(...), link:publish_many(...)     see nats_publish.c
 *   link:server() -> max_payload, server id       nothing while it is not up
 *   link:inbox(subject, class) -> true | nil, code, text      where answers come, once; "answers"
 * tells of them link:answer() -> message | nil                `class` is its metatable
 *   link:buffered() -> bytes not written yet
 *   link:subscribe(...)  see nats_subscription.c
 *   link:close()
 */
#include <string.h>

#include "brokers/nats/message.h"
#include "brokers/nats/nats.h"

#define LINKS "weir.nats.links" /* in the registry: links by their address, weakly */

/* User values of a link. */
enum {
  LINK_FUNCTION = 1,
  LINK_LOOP,
  LINK_ANSWER_CLASS,
  LINK_NO_HEADERS
};

static const double NANOSECONDS = 1e9;

const char *weir_nats_code(natsStatus status) {
  switch (status) {
    case NATS_OK: return NULL;
    case NATS_CONNECTION_CLOSED: return "closed";
    case NATS_NO_SERVER:
    case NATS_IO_ERROR: return "refused";
    case NATS_STALE_CONNECTION:
    case NATS_CONNECTION_DISCONNECTED: return "disconnected";
    case NATS_SECURE_CONNECTION_WANTED:
    case NATS_SECURE_CONNECTION_REQUIRED:
    case NATS_SSL_ERROR: return "tls";
    case NATS_CONNECTION_AUTH_FAILED: return "unauthorized";
    case NATS_NOT_PERMITTED: return "forbidden";
    case NATS_SLOW_CONSUMER: return "slow_consumer";
    case NATS_MAX_PAYLOAD: return "too_large";
    case NATS_INSUFFICIENT_BUFFER: return "full";
    case NATS_TIMEOUT: return "timeout";
    case NATS_NO_RESPONDERS: return "no_responders";
    case NATS_NO_MEMORY: return "nomem";
    case NATS_INVALID_SUBSCRIPTION:
    case NATS_INVALID_SUBJECT:
    case NATS_INVALID_QUEUE_NAME: return "invalid";
    case NATS_NO_SERVER_SUPPORT: return "unsupported";
    default: return "protocol";
  }
}

int weir_nats_fail(lua_State *L, natsStatus status) {
  lua_pushnil(L);
  lua_pushstring(L, weir_nats_code(status));
  lua_pushstring(L, natsStatus_GetText(status));
  return 3;
}

nats_link *weir_nats_check_link(lua_State *L) { return weir_nats_self(L, WEIR_NATS_LINK); }

natsConnection *weir_nats_connection(const nats_link *box) {
  return box->link != NULL && box->box->open ? weir_nats_link_connection(box->link) : NULL;
}

/* --- events
 * ----------------------------------------------------------------------------------------- */

typedef struct event {
  nats_link *box;
  const char *kind, *code;
  lua_Integer argument;
} event;

static int deliver(lua_State *L) {
  const event *what = lua_touserdata(L, 1);
  luaL_checkstack(L, 8, NULL);
  lua_getfield(L, LUA_REGISTRYINDEX, LINKS);
  if (lua_rawgetp(L, -1, what->box) == LUA_TNIL) return 0; /* it is being collected */
  lua_getiuservalue(L, -1, LINK_FUNCTION);
  lua_pushstring(L, what->kind);
  if (what->code != NULL) {
    lua_pushstring(L, what->code);
  } else if (what->argument != 0) {
    lua_pushinteger(L, what->argument);
  } else {
    lua_pushnil(L);
  }
  lua_call(L, 2, 0);
  return 0;
}

void weir_nats_emit(nats_link *box, const char *kind, lua_Integer argument, const char *code) {
  lua_State *L = box->box->L;
  event what = {.box = box, .kind = kind, .code = code, .argument = argument};
  if (!lua_checkstack(L, 3)) return;
  lua_pushcfunction(L, deliver);
  lua_pushlightuserdata(L, &what);
  if (lua_pcall(L, 1, 0, 0) == LUA_OK) return;
  const char *message = lua_tostring(L, -1);
  lua_writestringerror("weir: error in a callback of NATS: %s\n",
                       message != NULL ? message : "(no message)");
  lua_pop(L, 1);
}

static void on_changed(void *user) { weir_nats_emit(user, "changed", 0, NULL); }

static void on_readable(void *user) { weir_nats_wake(user); }

static void on_drained(void *user) {
  nats_link *box = user;
  box->unchecked = 0;
  if (!box->filled) return;
  box->filled = false;
  weir_nats_emit(box, "drained", 0, NULL);
}

static void on_answered(void *user) { weir_nats_emit(user, "answers", 0, NULL); }

static const weir_nats_events events = {
    .answered = on_answered,
    .changed = on_changed,
    .readable = on_readable,
    .drained = on_drained,
};

/* --- the object
 * --------------------------------------------------------------------------------------- */

static uint64_t nanoseconds(lua_State *L, int index, const char *name, double otherwise) {
  lua_getfield(L, index, name);
  double value = lua_isnumber(L, -1) ? lua_tonumber(L, -1) : otherwise;
  lua_pop(L, 1);
  return (uint64_t)(value * NANOSECONDS);
}

static double factor(lua_State *L, int index, const char *name, double otherwise) {
  lua_getfield(L, index, name);
  double value = lua_isnumber(L, -1) ? lua_tonumber(L, -1) : otherwise;
  lua_pop(L, 1);
  return value;
}

/* Of the table `backoff` in the options. */
static weir_backoff_config read_backoff(lua_State *L, int options) {
  lua_getfield(L, options, "backoff");
  int index = lua_gettop(L);
  if (!lua_istable(L, index)) luaL_error(L, "the table 'backoff' is missing");
  weir_backoff_config config = {
      .initial = nanoseconds(L, index, "initial", 0.1),
      .max = nanoseconds(L, index, "max", 10),
      .factor = factor(L, index, "factor", 2),
      .jitter = factor(L, index, "jitter", 0.2),
  };
  lua_pop(L, 1);
  return config;
}

static int new_link(lua_State *L) {
  weir_lua_loop *loop = luaL_checkudata(L, 1, "weir.uv.loop");
  luaL_argcheck(L, loop->open, 1, "the loop is closed");
  luaL_checktype(L, 2, LUA_TTABLE);
  luaL_checktype(L, 3, LUA_TFUNCTION);
  weir_backoff_config backoff = read_backoff(L, 2);
  nats_link *box = lua_newuserdatauv(L, sizeof *box, 4);
  *box = (nats_link){.box = loop};
  weir_list_init(&box->armed);
  luaL_setmetatable(L, WEIR_NATS_LINK);
  lua_pushvalue(L, 3);
  lua_setiuservalue(L, -2, LINK_FUNCTION);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, LINK_LOOP);
  lua_getfield(L, 2, "limit");
  box->limit = (size_t)luaL_checkinteger(L, -1);
  lua_pop(L, 1);
  lua_getfield(L, LUA_REGISTRYINDEX, LINKS);
  lua_pushvalue(L, -2);
  lua_rawsetp(L, -2, box);
  lua_pop(L, 1);
  natsOptions *opts = weir_nats_check_options(L, 2);
  box->link = weir_nats_link_new(&loop->loop, opts, &backoff, &events, box);
  if (box->link == NULL) return luaL_error(L, "cannot make a connection: out of memory");
  return 1;
}

static int link_gc(lua_State *L) {
  nats_link *box = weir_nats_check_link(L);
  if (box->link != NULL && box->box->open) weir_nats_link_free(box->link);
  box->link = NULL;
  natsMsg_Destroy(box->answer);
  box->answer = NULL;
  weir_nats_bin_empty(&box->bin);
  return 0;
}

static int link_close(lua_State *L) {
  nats_link *box = weir_nats_check_link(L);
  if (box->link != NULL && box->box->open) weir_nats_link_close(box->link);
  return 0;
}

static int link_report(lua_State *L) {
  static const char *const states[] = {"connecting", "up", "down", "closed"};
  nats_link *box = weir_nats_check_link(L);
  weir_nats_report report = {.state = WEIR_NATS_CLOSED};
  if (box->link != NULL && box->box->open) weir_nats_link_report(box->link, &report);
  lua_pushstring(L, states[report.state]);
  lua_pushstring(L, weir_nats_code(report.status));
  lua_pushstring(L, report.text[0] != '\0' ? report.text : natsStatus_GetText(report.status));
  lua_pushinteger(L, (lua_Integer)report.reconnects);
  lua_pushinteger(L, (lua_Integer)report.faults);
  lua_pushstring(L, weir_nats_code(report.fault));
  lua_pushstring(L, report.fault_text);
  return 7;
}

static int link_server(lua_State *L) {
  natsConnection *nc = weir_nats_connection(weir_nats_check_link(L));
  char id[128];
  if (nc == NULL) return 0;
  lua_pushinteger(L, (lua_Integer)natsConnection_GetMaxPayload(nc));
  if (natsConnection_GetConnectedServerId(nc, id, sizeof id) != NATS_OK) return 1;
  lua_pushstring(L, id);
  return 2;
}

static int link_buffered(lua_State *L) {
  natsConnection *nc = weir_nats_connection(weir_nats_check_link(L));
  int buffered = nc != NULL ? natsConnection_Buffered(nc) : 0;
  lua_pushinteger(L, buffered > 0 ? buffered : 0);
  return 1;
}

static int link_inbox(lua_State *L) {
  nats_link *box = weir_nats_check_link(L);
  const char *subject = luaL_checkstring(L, 2);
  luaL_checktype(L, 3, LUA_TTABLE);
  luaL_checktype(L, 4, LUA_TTABLE);
  if (weir_nats_connection(box) == NULL) return weir_nats_fail(L, NATS_CONNECTION_CLOSED);
  lua_settop(L, 4);
  lua_setiuservalue(L, 1, LINK_NO_HEADERS);
  lua_setiuservalue(L, 1, LINK_ANSWER_CLASS);
  natsStatus status = weir_nats_link_inbox(box->link, subject);
  if (status != NATS_OK) return weir_nats_fail(L, status);
  lua_pushboolean(L, 1);
  return 1;
}

static int link_answer(lua_State *L) {
  nats_link *box = weir_nats_check_link(L);
  if (box->answer != NULL) natsMsg_Destroy(box->answer);
  box->answer = box->link != NULL && box->box->open ? weir_nats_link_answer(box->link) : NULL;
  if (box->answer == NULL) {
    weir_nats_bin_empty(&box->bin);
    return 0;
  }
  lua_settop(L, 1);
  lua_getiuservalue(L, 1, LINK_NO_HEADERS);
  (void)weir_nats_push_message(L, box->answer, false, 2);
  weir_nats_bin_put(&box->bin, box->answer);
  box->answer = NULL;
  lua_getiuservalue(L, 1, LINK_ANSWER_CLASS);
  lua_setmetatable(L, -2);
  return 1;
}

static int subject_valid(lua_State *L) {
  size_t length;
  const char *subject = luaL_checklstring(L, 1, &length);
  lua_pushboolean(L, weir_nats_subject_valid(subject, length, lua_toboolean(L, 2) != 0));
  return 1;
}

static const luaL_Reg methods[] = {
    {"report", link_report},        {"publish_many", weir_nats_publish_many},
    {"publish", weir_nats_publish}, {"server", link_server},
    {"buffered", link_buffered},    {"subscribe", weir_nats_subscribe},
    {"inbox", link_inbox},          {"answer", link_answer},
    {"close", link_close},          {NULL, NULL},
};
static const luaL_Reg metamethods[] = {{"__gc", link_gc}, {NULL, NULL}};
static const luaL_Reg functions[] = {
    {"link", new_link},
    {"subject_valid", subject_valid},
    {NULL, NULL},
};

void weir_nats_new_class(lua_State *L, const char *name, const luaL_Reg *meta,
                         const luaL_Reg *own) {
  luaL_newmetatable(L, name);
  lua_pushvalue(L, -1);
  luaL_setfuncs(L, meta, 1);
  lua_newtable(L);
  lua_pushvalue(L, -2);
  weir_nats_push_keys(L);
  luaL_setfuncs(L, own, 1 + WEIR_NATS_KEY_COUNT);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
}

void weir_nats_open_link(lua_State *L) {
  weir_nats_new_class(L, WEIR_NATS_LINK, metamethods, methods);
  lua_newtable(L);
  lua_createtable(L, 0, 1);
  lua_pushliteral(L, "v");
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
  lua_setfield(L, LUA_REGISTRYINDEX, LINKS);
}

LUALIB_API int luaopen_weir_brokers_nats(lua_State *L) {
  if (!weir_nats_open()) return luaL_error(L, "libnats cannot be started");
  weir_nats_open_link(L);
  weir_nats_open_subscription(L);
  lua_newtable(L);
  luaL_setfuncs(L, functions, 0);
  /* A method, to be called without being looked up for each message. */
  luaL_getmetatable(L, WEIR_NATS_LINK);
  lua_getfield(L, -1, "__index");
  lua_getfield(L, -1, "publish");
  lua_setfield(L, -4, "publish");
  lua_pop(L, 2);
  lua_pushstring(L, nats_GetVersion());
  lua_setfield(L, -2, "version");
  return 1;
}
