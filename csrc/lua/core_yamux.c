/*
 * core.yamux: a yamux session (core/yamux.h) for Lua.
 *
 * What happens on the session waits as events until session:next_event() takes them. They need no
 * queue: a stream has at most one event of each kind, and bytes that came wait in the stream until
 * they are taken all at once, so what waits is bounded by the windows and the session's limits.
 * Nothing calls Lua, so that a driver may move the session's bytes at any time.
 *
 * A `conn` is what the binding keeps of a stream, from its beginning until its "close" event is
 * taken. Its Lua object is in the session's table of values, by the conn's address, as long as the
 * conn lives; the object's own table of values keeps the session.
 */
#include "core/yamux.h"

#include <string.h>

#include "core/buf.h"
#include "core/list.h"
#include "core/time.h"
#include "lua/core.h"
#include "lua/core_args.h"

#define CLASS "weir.core.yamux"
#define STREAM_CLASS "weir.core.yamux.stream"
#define SESSION_KEY 1 /* of a stream's table of values */

#define MAX_COUNT 4294967295.0
#define MAX_BYTES 9007199254740992.0 /* 2^53: a Lua number holds it exactly */

enum { /* events of a stream, in the order in which they are taken */
  EVENT_STREAM = 1,
  EVENT_ACCEPTED = 2,
  EVENT_DATA = 4,
  EVENT_END = 8,
  EVENT_WRITABLE = 16,
  EVENT_CLOSE = 32
};

typedef struct lua_stream {
  struct conn *conn; /* NULL: closed, and told so */
  uint32_t id;
} lua_stream;

typedef struct lua_session {
  weir_endpoint *endpoint; /* first: drivers look for it */
  weir_yamux *yamux;
  weir_list conns;
  weir_list eventful;
  bool pong, go_away;
  uint64_t rtt;
  uint32_t go_away_code;
  uint64_t now; /* of the last call with a time */
} lua_session;

typedef struct conn {
  lua_session *session;
  weir_yamux_stream *stream; /* NULL: over */
  lua_stream *object;        /* NULL: Lua has not seen it yet */
  weir_link all, eventful;
  uint32_t id;
  unsigned events;
  weir_status reason;  /* with EVENT_CLOSE */
  unsigned char *data; /* bytes that came and were not taken */
  size_t len, cap;
  size_t taken; /* bytes of "data" events that were not given back */
} conn;

/* --- conns ----------------------------------------------------------------------------------- */

static conn *new_conn(lua_session *self, weir_yamux_stream *stream) {
  conn *c = weir_calloc(NULL, 1, sizeof *c);
  if (c == NULL) return NULL;
  c->session = self;
  c->stream = stream;
  c->id = weir_yamux_id(stream);
  weir_list_init(&c->eventful);
  weir_list_append(&self->conns, &c->all);
  weir_yamux_set_user(stream, c);
  return c;
}

static void drop_data(conn *c) {
  weir_free(NULL, c->data);
  c->data = NULL;
  c->len = c->cap = 0;
}

static void free_conn(conn *c) {
  drop_data(c);
  if (c->object != NULL) c->object->conn = NULL;
  weir_list_remove(&c->all);
  weir_list_remove(&c->eventful);
  weir_free(NULL, c);
}

static void raise_event(conn *c, unsigned event) {
  c->events |= event;
  if (!weir_list_linked(&c->eventful)) weir_list_append(&c->session->eventful, &c->eventful);
}

/* --- what the session tells ------------------------------------------------------------------ */

static weir_status on_stream(weir_yamux *session, weir_yamux_stream *stream, void *user) {
  (void)session;
  conn *c = new_conn(user, stream);
  if (c == NULL) return WEIR_E_NOMEM;
  raise_event(c, EVENT_STREAM);
  return WEIR_OK;
}

static void on_accepted(weir_yamux_stream *stream, void *user) {
  (void)stream;
  raise_event(user, EVENT_ACCEPTED);
}

static bool keep_data(conn *c, const unsigned char *data, size_t len) {
  if (len > c->cap - c->len) {
    size_t cap = c->cap * 2 > c->len + len ? c->cap * 2 : c->len + len;
    unsigned char *grown = weir_resize_array(NULL, c->data, cap, 1);
    if (grown == NULL) return false;
    c->data = grown;
    c->cap = cap;
  }
  memcpy(c->data + c->len, data, len);
  c->len += len;
  return true;
}

static void on_data(weir_yamux_stream *stream, const unsigned char *data, size_t len, void *user) {
  conn *c = user;
  if (keep_data(c, data, len)) {
    raise_event(c, EVENT_DATA);
  } else {
    weir_yamux_reset(stream);
  }
}

static void on_writable(weir_yamux_stream *stream, void *user) {
  (void)stream;
  raise_event(user, EVENT_WRITABLE);
}

static void on_end(weir_yamux_stream *stream, void *user) {
  (void)stream;
  raise_event(user, EVENT_END);
}

static void on_close(weir_yamux_stream *stream, weir_status reason, void *user) {
  (void)stream;
  conn *c = user;
  c->stream = NULL;
  c->reason = reason;
  if (c->object == NULL) {
    free_conn(c); /* Lua never saw it */
    return;
  }
  if (reason != WEIR_OK) { /* as with TCP, a reset overtakes what was not read */
    drop_data(c);
    c->events = 0;
  }
  c->events &= ~(unsigned)EVENT_WRITABLE;
  raise_event(c, EVENT_CLOSE);
}

static void on_pong(weir_yamux *session, uint64_t rtt, void *user) {
  (void)session;
  lua_session *self = user;
  self->pong = true;
  self->rtt = rtt;
}

static void on_go_away(weir_yamux *session, uint32_t code, void *user) {
  (void)session;
  lua_session *self = user;
  self->go_away = true;
  self->go_away_code = code;
}

static const weir_yamux_handler HANDLER = {
    .on_stream = on_stream,
    .on_accepted = on_accepted,
    .on_data = on_data,
    .on_writable = on_writable,
    .on_end = on_end,
    .on_close = on_close,
    .on_pong = on_pong,
    .on_go_away = on_go_away,
};

/* --- results --------------------------------------------------------------------------------- */

/* true, or nil and the status' name. */
static int push_status(lua_State *L, weir_status status) {
  if (status == WEIR_OK) {
    lua_pushboolean(L, 1);
    return 1;
  }
  lua_pushnil(L);
  lua_pushstring(L, weir_status_name(status));
  return 2;
}

/* The same, with the session's own words for it. */
static int push_outcome(lua_State *L, const lua_session *self, weir_status status) {
  int results = push_status(L, status);
  if (status == WEIR_OK) return results;
  const char *error = weir_yamux_error(self->yamux);
  lua_pushstring(L, error != NULL ? error : weir_status_text(status));
  return results + 1;
}

/* Pushes the Lua object of `c`; the session is at index 1. */
static void push_stream(lua_State *L, conn *c) {
  weir_lua_push_values(L, 1);
  if (c->object != NULL) {
    lua_pushlightuserdata(L, c);
    lua_rawget(L, -2);
  } else {
    lua_stream *object = weir_lua_new_object(L, sizeof *object, STREAM_CLASS);
    *object = (lua_stream){NULL, c->id};
    weir_lua_push_values(L, -1);
    lua_pushvalue(L, 1);
    lua_rawseti(L, -2, SESSION_KEY);
    lua_pop(L, 1);
    lua_pushlightuserdata(L, c);
    lua_pushvalue(L, -2);
    lua_rawset(L, -4);
    object->conn = c; /* nothing can fail from here on */
    c->object = object;
  }
  lua_remove(L, -2);
}

/* --- streams --------------------------------------------------------------------------------- */

static lua_stream *check_object(lua_State *L) { return luaL_checkudata(L, 1, STREAM_CLASS); }

/* The stream, or NULL when it is over. */
static weir_yamux_stream *check_stream(lua_State *L) {
  lua_stream *object = check_object(L);
  return object->conn != NULL ? object->conn->stream : NULL;
}

/***
 * Queues bytes. After "again" a "writable" event comes when there is room.
 * @function stream:write
 * @tparam string data
 * @treturn[1] boolean true
 * @treturn[2] nil
 * @treturn[2] string "again" (too much is queued), "closed", "nomem"
 */
static int stream_write(lua_State *L) {
  weir_yamux_stream *stream = check_stream(L);
  size_t len;
  const char *data = luaL_checklstring(L, 2, &len);
  if (stream == NULL) return push_status(L, WEIR_E_CLOSED);
  weir_slice slice = {NULL, (const unsigned char *)data, len};
  weir_status status = weir_yamux_write(stream, slice);
  if (status == WEIR_E_AGAIN) weir_yamux_want_write(stream);
  return push_status(L, status);
}

/***
 * Half-closes the stream after what is queued.
 * @function stream:shutdown
 */
static int stream_shutdown(lua_State *L) {
  weir_yamux_stream *stream = check_stream(L);
  if (stream != NULL) weir_yamux_shutdown(stream);
  return 0;
}

/***
 * Ends the stream at once. Its "close" event follows.
 * @function stream:reset
 */
static int stream_reset(lua_State *L) {
  weir_yamux_stream *stream = check_stream(L);
  if (stream != NULL) weir_yamux_reset(stream);
  return 0;
}

/***
 * Tells the peer that its stream is accepted; a write does so, too.
 * @function stream:accept
 */
static int stream_accept(lua_State *L) {
  weir_yamux_stream *stream = check_stream(L);
  if (stream != NULL) weir_yamux_accept(stream);
  return 0;
}

/***
 * Gives room for bytes that came in "data" events back to the peer.
 * @function stream:consume
 * @tparam number bytes
 */
static int stream_consume(lua_State *L) {
  weir_yamux_stream *stream = check_stream(L);
  lua_Number bytes = luaL_checknumber(L, 2);
  luaL_argcheck(L, bytes >= 0 && bytes <= MAX_BYTES, 2, "not a number of bytes");
  if (stream == NULL) return 0;
  conn *c = check_object(L)->conn; /* what was not taken yet cannot have been dealt with */
  size_t len = bytes < (lua_Number)c->taken ? (size_t)bytes : c->taken;
  c->taken -= len;
  weir_yamux_consume(stream, len);
  return 0;
}

/***
 * @function stream:id
 * @treturn number the stream's number in the session
 */
static int stream_id(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)check_object(L)->id);
  return 1;
}

/***
 * @function stream:queued
 * @treturn number bytes that are not yet in a frame
 */
static int stream_queued(lua_State *L) {
  weir_yamux_stream *stream = check_stream(L);
  lua_pushinteger(L, stream != NULL ? (lua_Integer)weir_yamux_queued(stream) : 0);
  return 1;
}

/***
 * @function stream:room
 * @treturn number bytes that could leave in the next frame
 */
static int stream_room(lua_State *L) {
  weir_yamux_stream *stream = check_stream(L);
  lua_pushinteger(L, stream != NULL ? (lua_Integer)weir_yamux_room(stream) : 0);
  return 1;
}

static int stream_tostring(lua_State *L) {
  const char *state = check_stream(L) != NULL ? "open" : "closed";
  lua_pushfstring(L, STREAM_CLASS ": %f, %s", (lua_Number)check_object(L)->id, state);
  return 1;
}

/* --- sessions -------------------------------------------------------------------------------- */

static lua_session *check(lua_State *L) {
  lua_session *self = luaL_checkudata(L, 1, CLASS);
  if (self->yamux == NULL) luaL_error(L, "yamux: the session is gone"); /* the state closes */
  return self;
}

/* For what a driver does where there is one. */
static lua_session *check_undriven(lua_State *L) {
  lua_session *self = check(L);
  if (self->endpoint->driver != NULL) luaL_error(L, "yamux: a connection drives the session");
  return self;
}

static uint64_t check_now(lua_State *L, lua_session *self, int index) {
  if (!lua_isnoneornil(L, index)) self->now = weir_lua_check_time(L, index);
  return self->now;
}

/***
 * Takes bytes that came from the peer.
 * @function session:feed
 * @tparam string data
 * @tparam[opt] number now seconds of the caller's monotonic clock; the same as before when left out
 * @treturn[1] boolean true
 * @treturn[2] nil
 * @treturn[2] string the code of the fault that ended the session: write what output() still
 * returns, then close
 * @treturn[2] string a sentence
 */
static int session_feed(lua_State *L) {
  lua_session *self = check_undriven(L);
  size_t len;
  const char *data = luaL_checklstring(L, 2, &len);
  uint64_t now = check_now(L, self, 3);
  return push_outcome(L, self, self->endpoint->feed(self->endpoint, data, len, now));
}

/***
 * Takes bytes that are to be written to the peer. "writable" events may follow from it.
 * @function session:output
 * @tparam[opt=65536] number max about how many bytes at most
 * @tparam[opt] number now
 * @treturn string empty when there is nothing
 */
static int session_output(lua_State *L) {
  lua_session *self = check_undriven(L);
  lua_Number max = luaL_optnumber(L, 2, 65536);
  luaL_argcheck(L, max >= 1 && max <= MAX_BYTES, 2, "not a number of bytes");
  uint64_t now = check_now(L, self, 3);
  weir_iov iov[64];
  size_t count = self->endpoint->output(self->endpoint, iov, 64, now), total = 0;
  luaL_Buffer buffer;
  luaL_buffinit(L, &buffer);
  for (size_t i = 0; i < count && (lua_Number)total < max; i++) {
    size_t len = iov[i].len;
    if ((lua_Number)len > max - (lua_Number)total) len = (size_t)(max - (lua_Number)total);
    luaL_addlstring(&buffer, iov[i].base, len);
    total += len;
  }
  luaL_pushresult(&buffer);
  self->endpoint->sent(self->endpoint, total);
  return 1;
}

/***
 * Lets time pass: call it at deadline().
 * @function session:tick
 * @tparam number now
 * @return as feed()
 */
static int session_tick(lua_State *L) {
  lua_session *self = check_undriven(L);
  self->now = weir_lua_check_time(L, 2);
  return push_outcome(L, self, self->endpoint->tick(self->endpoint, self->now));
}

/***
 * @function session:deadline
 * @treturn[1] number when tick() wants to be called
 * @treturn[2] nil never
 */
static int session_deadline(lua_State *L) {
  lua_session *self = check(L);
  uint64_t deadline = self->endpoint->deadline(self->endpoint);
  if (deadline == WEIR_NEVER) {
    lua_pushnil(L);
  } else {
    weir_lua_push_time(L, deadline);
  }
  return 1;
}

/***
 * Says that the connection is gone: every stream gets its "close" event.
 * @function session:ended
 */
static int session_ended(lua_State *L) {
  lua_session *self = check_undriven(L);
  self->endpoint->ended(self->endpoint, WEIR_OK);
  return 0;
}

/***
 * @function session:finished
 * @treturn boolean whether the connection should be closed now
 */
static int session_finished(lua_State *L) {
  lua_session *self = check(L);
  lua_pushboolean(L, self->endpoint->finished(self->endpoint));
  return 1;
}

/***
 * Opens a stream. Writing to it is possible at once.
 * @function session:open
 * @treturn[1] stream
 * @treturn[2] nil
 * @treturn[2] string "again" (too many wait for the peer to accept them), "limit", "closed",
 * "nomem"
 */
static int session_open(lua_State *L) {
  lua_session *self = check(L);
  weir_yamux_stream *stream;
  weir_status status = weir_yamux_open(self->yamux, &stream);
  if (status != WEIR_OK) return push_status(L, status);
  conn *c = new_conn(self, stream);
  if (c == NULL) {
    weir_yamux_set_user(stream, NULL);
    weir_yamux_reset(stream);
    return push_status(L, WEIR_E_NOMEM);
  }
  push_stream(L, c);
  return 1;
}

/***
 * Sends a ping; its answer is a "pong" event.
 * @function session:ping
 * @tparam[opt] number now
 * @treturn[1] boolean true
 * @treturn[2] nil
 * @treturn[2] string "again" while one is on its way, "closed"
 */
static int session_ping(lua_State *L) {
  lua_session *self = check(L);
  uint64_t now = check_now(L, self, 2);
  return push_status(L, weir_yamux_ping(self->yamux, now));
}

/***
 * Tells the peer that no new streams are accepted.
 * @function session:go_away
 * @tparam[opt=0] number code another than 0 (a fault) also ends the session
 */
static int session_go_away(lua_State *L) {
  lua_session *self = check(L);
  lua_Number code = luaL_optnumber(L, 2, WEIR_YAMUX_NORMAL);
  luaL_argcheck(L, code >= 0 && code <= MAX_COUNT, 2, "not a code");
  weir_yamux_go_away(self->yamux, (uint32_t)code);
  return 0;
}

/***
 * Ends the session: what is queued still leaves, then finished() is true.
 * @function session:close
 */
static int session_close(lua_State *L) {
  weir_yamux_close(check(L)->yamux);
  return 0;
}

/***
 * @function session:rtt
 * @treturn number the last measured round trip in seconds, or nil
 */
static int session_rtt(lua_State *L) {
  uint64_t rtt = weir_yamux_rtt(check(L)->yamux);
  if (rtt == 0) {
    lua_pushnil(L);
  } else {
    weir_lua_push_time(L, rtt);
  }
  return 1;
}

/***
 * @function session:streams
 * @treturn number how many are open
 */
static int session_streams(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)weir_yamux_streams(check(L)->yamux));
  return 1;
}

/***
 * @function session:error
 * @treturn string why the session failed, or nil
 */
static int session_error(lua_State *L) {
  lua_pushstring(L, weir_yamux_error(check(L)->yamux));
  return 1;
}

static int push_event(lua_State *L, const char *kind) {
  lua_pushstring(L, kind);
  lua_insert(L, -2);
  return 2;
}

/* Pushes the stream's last event and forgets the stream. */
static int take_close(lua_State *L, conn *c) {
  push_stream(L, c);
  weir_lua_push_values(L, 1);
  lua_pushlightuserdata(L, c);
  lua_pushnil(L);
  lua_rawset(L, -3);
  lua_pop(L, 1);
  weir_status reason = c->reason;
  free_conn(c);
  push_event(L, "close");
  if (reason == WEIR_OK) return 2;
  lua_pushstring(L, weir_status_name(reason));
  return 3;
}

static int take_data(lua_State *L, conn *c) {
  push_stream(L, c);
  push_event(L, "data");
  lua_pushlstring(L, (const char *)c->data, c->len);
  c->taken += c->len;
  drop_data(c);
  return 3;
}

/* Takes the first event of `c`. */
static int take_event(lua_State *L, conn *c) {
  unsigned event = c->events & (~c->events + 1); /* the lowest bit */
  int results = 2;
  switch (event) {
    case EVENT_CLOSE: return take_close(L, c);
    case EVENT_DATA: results = take_data(L, c); break;
    case EVENT_WRITABLE:
      push_stream(L, c);
      push_event(L, "writable");
      lua_pushinteger(L, (lua_Integer)weir_yamux_room(c->stream));
      results = 3;
      break;
    default:
      push_stream(L, c);
      push_event(L, event == EVENT_STREAM     ? "stream"
                    : event == EVENT_ACCEPTED ? "accepted"
                                              : "end");
  }
  c->events &= ~event;
  weir_list_remove(&c->eventful);
  if (c->events != 0) weir_list_append(&c->session->eventful, &c->eventful);
  return results;
}

/***
 * Takes what happened next.
 *
 * - "stream", stream: the peer opened it; accept() or reset() it
 * - "accepted", stream: the peer accepted it
 * - "data", stream, string: all that came since the last time; consume() what is dealt with
 * - "end", stream: no more data will come
 * - "writable", stream, number: after write() said "again"
 * - "close", stream, code: the stream is over; code is nil when both sides closed it, or "reset",
 *   "limit" (session's receive_memory), "closed" (with the session), "protocol", "timeout" ...
 * - "pong", nil, seconds: the answer to ping()
 * - "go_away", nil, code: the peer accepts no new streams
 * @function session:next_event
 * @treturn[1] string what happened
 * @return[1] the stream, or nil
 * @return[1] a value
 * @treturn[2] nil when nothing more did
 */
static int session_next_event(lua_State *L) {
  lua_session *self = check(L);
  weir_link *first = weir_list_first(&self->eventful);
  if (first != NULL) return take_event(L, weir_list_of(first, conn, eventful));
  if (self->pong) {
    self->pong = false;
    lua_pushliteral(L, "pong");
    lua_pushnil(L);
    weir_lua_push_time(L, self->rtt);
    return 3;
  }
  if (self->go_away) {
    self->go_away = false;
    lua_pushliteral(L, "go_away");
    lua_pushnil(L);
    lua_pushinteger(L, (lua_Integer)self->go_away_code);
    return 3;
  }
  lua_pushnil(L);
  return 1;
}

static int session_tostring(lua_State *L) {
  lua_session *self = check(L);
  lua_pushfstring(L, CLASS ": %d streams", (int)weir_yamux_streams(self->yamux));
  return 1;
}

static int session_gc(lua_State *L) {
  lua_session *self = luaL_checkudata(L, 1, CLASS);
  if (self->yamux == NULL) return 0;
  self->endpoint = NULL; /* drivers see that it is gone */
  weir_yamux_free(self->yamux);
  self->yamux = NULL;
  while (!weir_list_empty(&self->conns)) {
    free_conn(weir_list_of(self->conns.next, conn, all));
  }
  return 0;
}

/* --- options --------------------------------------------------------------------------------- */

static const char *const OPTIONS[] = {
    "client",      "max_streams", "backlog",   "receive_window",    "receive_memory",
    "send_buffer", "max_frame",   "keepalive", "keepalive_timeout", NULL,
};

static int is_given(lua_State *L, const char *name) {
  lua_getfield(L, 1, name);
  int given = !lua_isnil(L, -1);
  lua_pop(L, 1);
  return given;
}

/* A whole number of a range; 0 (the default) when it is not given. */
static uint64_t option_count(lua_State *L, const char *name, lua_Number low, lua_Number high) {
  if (!is_given(L, name)) return 0;
  lua_Number value = weir_lua_option_number(L, 1, name, 0);
  if (!(value >= low && value <= high) || value != (lua_Number)(uint64_t)value) {
    luaL_error(L, "yamux: option '%s' must be a whole number from %f to %f", name, low, high);
  }
  return (uint64_t)value;
}

static bool option_flag(lua_State *L, const char *name, bool otherwise) {
  lua_getfield(L, 1, name);
  if (!lua_isnil(L, -1)) {
    if (!lua_isboolean(L, -1)) {
      luaL_error(L, "yamux: option '%s' must be a boolean, not a %s", name, luaL_typename(L, -1));
    }
    otherwise = lua_toboolean(L, -1);
  }
  lua_pop(L, 1);
  return otherwise;
}

/* Seconds; false means never; 0 (the default) when it is not given. */
static uint64_t option_interval(lua_State *L, const char *name) {
  lua_getfield(L, 1, name);
  int off = lua_isboolean(L, -1) && !lua_toboolean(L, -1);
  lua_pop(L, 1);
  if (off) return WEIR_NEVER;
  uint64_t interval = weir_lua_option_time(L, 1, name, 0);
  if (interval == 0 && is_given(L, name)) {
    luaL_error(L, "yamux: option '%s' must be above 0, or false", name);
  }
  return interval;
}

/***
 * Makes a yamux session, which does no I/O: give it what came with feed() and write what output()
 * returns, or attach it to a connection.
 * @function yamux
 * @tparam[opt] table options
 * @tparam[opt=false] boolean options.client whether ours is the side that connected
 * @tparam[opt=65536] number options.max_streams open at a time, of both sides
 * @tparam[opt=256] number options.backlog opened and not accepted, each side
 * @tparam[opt=262144] number options.receive_window bytes per stream, at least 262144
 * @tparam[opt=67108864] number options.receive_memory bytes not consumed, of all streams
 * @tparam[opt=262144] number options.send_buffer bytes queued per stream
 * @tparam[opt=65536] number options.max_frame bytes
 * @tparam[opt=30] number options.keepalive seconds without a word before a ping; false: never
 * @tparam[opt=10] number options.keepalive_timeout seconds to wait for its answer
 * @return session
 */
static int yamux_new(lua_State *L) {
  if (lua_isnoneornil(L, 1)) {
    lua_settop(L, 0);
    lua_newtable(L);
  }
  weir_lua_check_options(L, 1, "yamux", OPTIONS);
  const weir_yamux_config config = {
      .client = option_flag(L, "client", false),
      .max_streams = (uint32_t)option_count(L, "max_streams", 1, MAX_COUNT),
      .backlog = (uint32_t)option_count(L, "backlog", 1, MAX_COUNT),
      .receive_window = (uint32_t)option_count(L, "receive_window", WEIR_YAMUX_WINDOW, MAX_COUNT),
      .receive_memory = (size_t)option_count(L, "receive_memory", 1, MAX_BYTES),
      .send_buffer = (size_t)option_count(L, "send_buffer", 1, MAX_BYTES),
      .max_frame = (uint32_t)option_count(L, "max_frame", 1, MAX_COUNT),
      .keepalive = option_interval(L, "keepalive"),
      .keepalive_timeout = option_interval(L, "keepalive_timeout"),
  };
  lua_session *self = weir_lua_new_object(L, sizeof *self, CLASS);
  memset(self, 0, sizeof *self);
  weir_list_init(&self->conns);
  weir_list_init(&self->eventful);
  self->yamux = weir_yamux_new(NULL, &config, &HANDLER, self);
  if (self->yamux == NULL) return luaL_error(L, "yamux: not enough memory");
  self->endpoint = weir_yamux_endpoint(self->yamux);
  return 1;
}

static const luaL_Reg stream_methods[] = {
    {"write", stream_write},   {"shutdown", stream_shutdown}, {"reset", stream_reset},
    {"accept", stream_accept}, {"consume", stream_consume},   {"id", stream_id},
    {"queued", stream_queued}, {"room", stream_room},         {NULL, NULL},
};

static const luaL_Reg session_methods[] = {
    {"feed", session_feed},
    {"output", session_output},
    {"tick", session_tick},
    {"deadline", session_deadline},
    {"ended", session_ended},
    {"finished", session_finished},
    {"open", session_open},
    {"ping", session_ping},
    {"go_away", session_go_away},
    {"close", session_close},
    {"rtt", session_rtt},
    {"streams", session_streams},
    {"error", session_error},
    {"next_event", session_next_event},
    {NULL, NULL},
};

void weir_lua_open_yamux(lua_State *L) {
  static const luaL_Reg stream_meta[] = {{"__tostring", stream_tostring}, {NULL, NULL}};
  static const luaL_Reg session_meta[] = {
      {"__tostring", session_tostring},
      {"__gc", session_gc},
      {NULL, NULL},
  };
  weir_lua_new_class(L, STREAM_CLASS, stream_methods, stream_meta);
  weir_lua_new_class(L, CLASS, session_methods, session_meta);
  luaL_getmetatable(L, CLASS);
  lua_pushboolean(L, 1);
  lua_setfield(L, -2, "__weir_endpoint");
  lua_pop(L, 1);
  lua_pushcfunction(L, yamux_new);
  lua_setfield(L, -2, "yamux");
}
