/*
 * Plain bytes over a connection: the endpoint of protocols that are spoken in Lua, such as HTTP.
 *
 *   loop:bytes(most, changed) -> endpoint
 *   endpoint:read() -> string | nil        all that has arrived; nil when that is nothing,
 *                    | false               false when nothing more will come
 *   endpoint:write(string) -> pending      bytes that wait to be written now; nil when it is over
 *   endpoint:pending() -> bytes
 *   endpoint:finish()                      ends the connection when all is written
 *   endpoint:free()                        forgets everything; to be called when it is closed
 *
 * changed(over) is called from loop:poll() and loop:flush(), when bytes arrived, when the peer said
 * that no more will come (it may still read what is written, except in memory) and when no more
 * than `most` bytes are left to write. With `most` bytes unread nothing more is read from the
 * connection, so a peer that sends too fast waits; one read (WEIR_LOOP_BUFFER) may exceed that.
 * What is written is not bounded here: whoever writes waits while `pending` is above `most`.
 */
#include <stdlib.h>
#include <string.h>

#include "core/list.h"
#include "lua/uv.h"

#define BYTES "weir.uv.bytes"
/* An empty queue keeps no more memory than this. */
#define KEPT ((size_t)4096)

typedef struct queue {
  unsigned char *data;
  size_t start, len, room;
} queue;

typedef struct lua_bytes {
  weir_endpoint *slot; /* first: drivers look here; NULL after free() */
  weir_endpoint endpoint;
  weir_lua_loop *box;
  int changed;
  size_t most;
  queue in, out;
  bool finishing, input_over, ended;
} lua_bytes;

static void queue_clear(queue *q) {
  free(q->data);
  *q = (queue){0};
}

/* Room for `len` more bytes at the end; false when memory is out. */
static bool queue_reserve(queue *q, size_t len) {
  if (len > SIZE_MAX / 2 - q->len) return false;
  if (q->start + q->len + len <= q->room) return true;
  if (q->start > 0) {
    memmove(q->data, q->data + q->start, q->len);
    q->start = 0;
  }
  if (q->len + len <= q->room) return true;
  size_t room = q->room < KEPT ? KEPT : q->room;
  while (room < q->len + len)
    room *= 2;
  unsigned char *data = realloc(q->data, room);
  if (data == NULL) return false;
  q->data = data;
  q->room = room;
  return true;
}

static bool queue_add(queue *q, const void *data, size_t len) {
  if (len == 0) return true;
  if (!queue_reserve(q, len)) return false;
  memcpy(q->data + q->start + q->len, data, len);
  q->len += len;
  return true;
}

static void queue_drop(queue *q, size_t len) {
  q->start += len;
  q->len -= len;
  if (q->len > 0) return;
  q->start = 0;
  if (q->room > KEPT) queue_clear(q);
}

/* --- the endpoint --------------------------------------------------------------------------------
 */

static lua_bytes *of(const weir_endpoint *endpoint) {
  return weir_list_of(endpoint, lua_bytes, endpoint);
}

static int push_over(lua_State *L, void *arg) {
  lua_pushboolean(L, ((const lua_bytes *)arg)->input_over);
  return 1;
}

/* A connection that is closed from outside the loop may still write: whoever closes it knows. */
static void tell(lua_bytes *bytes) {
  if (bytes->box->running) weir_lua_callback(bytes->box, bytes->changed, push_over, bytes);
}

static weir_status feed(weir_endpoint *endpoint, const void *data, size_t len, uint64_t now) {
  (void)now;
  lua_bytes *bytes = of(endpoint);
  if (bytes->finishing) return WEIR_OK;
  if (!queue_add(&bytes->in, data, len)) return WEIR_E_NOMEM;
  tell(bytes);
  return WEIR_OK;
}

static int paused(const weir_endpoint *endpoint) {
  const lua_bytes *bytes = of(endpoint);
  return !bytes->finishing && bytes->in.len >= bytes->most;
}

static size_t output(weir_endpoint *endpoint, weir_iov *iov, size_t max, uint64_t now) {
  (void)now;
  const queue *out = &of(endpoint)->out;
  if (max == 0 || out->len == 0) return 0;
  *iov = (weir_iov){.base = out->data + out->start, .len = out->len};
  return 1;
}

static void sent(weir_endpoint *endpoint, size_t len) {
  lua_bytes *bytes = of(endpoint);
  bool was_full = bytes->out.len > bytes->most;
  queue_drop(&bytes->out, len);
  if (was_full && bytes->out.len <= bytes->most) tell(bytes);
}

static weir_status tick(weir_endpoint *endpoint, uint64_t now) {
  (void)endpoint;
  (void)now;
  return WEIR_OK;
}

static uint64_t deadline(const weir_endpoint *endpoint) {
  (void)endpoint;
  return WEIR_NEVER;
}

static int input_ended(weir_endpoint *endpoint) {
  lua_bytes *bytes = of(endpoint);
  bytes->input_over = true;
  tell(bytes);
  return 1;
}

static void ended(weir_endpoint *endpoint, weir_status reason) {
  (void)reason;
  of(endpoint)->ended = true; /* Lua hears it from the connection */
}

static int finished(const weir_endpoint *endpoint) {
  const lua_bytes *bytes = of(endpoint);
  return bytes->finishing && bytes->out.len == 0;
}

/* --- for Lua -------------------------------------------------------------------------------------
 */

int weir_lua_bytes(lua_State *L) {
  weir_lua_loop *box = weir_lua_check_loop(L);
  lua_Integer most = luaL_checkinteger(L, 2);
  luaL_argcheck(L, most > 0 && most <= INT32_MAX, 2, "a number of bytes is expected");
  luaL_checktype(L, 3, LUA_TFUNCTION);
  lua_bytes *bytes = lua_newuserdata(L, sizeof *bytes);
  *bytes = (lua_bytes){
      .slot = &bytes->endpoint,
      .endpoint = {.feed = feed,
                   .paused = paused,
                   .output = output,
                   .sent = sent,
                   .tick = tick,
                   .deadline = deadline,
                   .input_ended = input_ended,
                   .ended = ended,
                   .finished = finished},
      .box = box,
      .changed = LUA_NOREF,
      .most = (size_t)most,
  };
  luaL_setmetatable(L, BYTES);
  bytes->changed = weir_lua_ref_function(L, 3);
  return 1;
}

static lua_bytes *check(lua_State *L) { return luaL_checkudata(L, 1, BYTES); }

static int bytes_read(lua_State *L) {
  lua_bytes *bytes = check(L);
  if (bytes->in.len == 0) {
    if (!bytes->input_over) return 0;
    lua_pushboolean(L, 0);
    return 1;
  }
  bool was_full = bytes->in.len >= bytes->most;
  lua_pushlstring(L, (const char *)bytes->in.data + bytes->in.start, bytes->in.len);
  queue_drop(&bytes->in, bytes->in.len);
  if (was_full && bytes->slot != NULL) weir_endpoint_wake(bytes->slot); /* it reads on */
  return 1;
}

static int bytes_write(lua_State *L) {
  lua_bytes *bytes = check(L);
  size_t len;
  const char *data = luaL_checklstring(L, 2, &len);
  if (bytes->slot == NULL || bytes->ended || bytes->finishing) return 0;
  if (!queue_add(&bytes->out, data, len)) return luaL_error(L, "not enough memory");
  weir_endpoint_wake(bytes->slot);
  lua_pushinteger(L, (lua_Integer)bytes->out.len);
  return 1;
}

static int bytes_pending(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)check(L)->out.len);
  return 1;
}

static int bytes_finish(lua_State *L) {
  lua_bytes *bytes = check(L);
  bytes->finishing = true;
  queue_clear(&bytes->in);
  if (bytes->slot != NULL) weir_endpoint_wake(bytes->slot);
  return 0;
}

static int bytes_free(lua_State *L) {
  lua_bytes *bytes = check(L);
  bytes->slot = NULL;
  queue_clear(&bytes->in);
  queue_clear(&bytes->out);
  weir_lua_unref(L, &bytes->changed);
  return 0;
}

static const luaL_Reg methods[] = {
    {"read", bytes_read},     {"write", bytes_write}, {"pending", bytes_pending},
    {"finish", bytes_finish}, {"free", bytes_free},   {NULL, NULL},
};
static const luaL_Reg metamethods[] = {{"__gc", bytes_free}, {NULL, NULL}};

void weir_lua_open_bytes(lua_State *L) {
  weir_lua_type(L, BYTES, methods, metamethods);
  luaL_getmetatable(L, BYTES);
  lua_pushboolean(L, 1);
  lua_setfield(L, -2, "__weir_endpoint");
  lua_pop(L, 1);
}
