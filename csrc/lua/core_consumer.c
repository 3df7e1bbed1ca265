/*
 * core.consumer{max_items=, max_bytes=, max_message=}
 *
 *   :take() -> bytes, meta | nil, word   "again" (nothing there), "pause" (let others run first)
 *   :try_take()                          the same, without "pause"
 *   :take_many(max) -> {bytes, ...}, metas | nil, word    what one producer has there; metas[i]
 *   :try_take_many(max)                  the same, without "pause"
 *   :attach(producer, node, epoch, sequence) -> id | nil, word
 *                                        reads from a producer of this process; the position, if
 *                                        any, is the one before which it has had everything
 *   :next_change() -> {id=, state="opening"|"open"|"closed", code=, reason=, ...} | nil
 *   :inlets() -> {{id=, state=, node=, messages=, bytes=, queued=, queued_bytes=, gaps=, missed=,
 *                  credit_messages=, credit_bytes=, since=, epoch=, next_sequence=, expected=},
 * ...} :holds(id) -> bool                   the subscription is there: open, or not yet drained
 *   :close_inlet(id, code, reason) -> bool
 *   :stats() -> {messages=, bytes=, gaps=, missed=}
 *   :free()                              ends all subscriptions and drops what they hold
 *
 * core.recv_function(slow) -> function(handle, ...)      Lua 5.4 only
 *   Takes the next message of the consumer in handle[1] if it is there; else slow(handle, ...),
 * which may yield. One C function in place of a Lua function and a method: the hot path of recv().
 *
 * meta is a small userdata: .producer (node id, hex), .epoch, .sequence, .time (seconds since
 * 1970).
 */
#include <string.h>

#include "lua/core.h"
#include "lua/stream.h"

#define NAME "weir.core.consumer"
#define META "weir.meta"
#define METAS "weir.metas"
#define MOST_AT_ONCE 65536u

static const char KIND = 'c';

typedef struct meta {
  uint64_t epoch, sequence, time;
  unsigned char node[WEIR_ID_SIZE];
} meta;

/* Of messages of one producer that were taken together. */
typedef struct metas {
  uint64_t epoch;
  size_t count;
  unsigned char node[WEIR_ID_SIZE];
  struct {
    uint64_t sequence, time;
  } of[];
} metas;

static weir_lua_consumer *self_of(lua_State *L) {
  weir_lua_consumer *self = weir_lua_self(L, NAME);
  if (self->consumer == NULL) luaL_error(L, "the consumer is gone");
  return self;
}

weir_lua_consumer *weir_lua_check_consumer(lua_State *L, int index) {
  weir_lua_consumer *consumer = luaL_checkudata(L, index, NAME);
  if (consumer->consumer == NULL) luaL_error(L, "the consumer is gone");
  return consumer;
}

static int new_consumer(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  weir_consumer_config config = {
      .max_bytes = (size_t)weir_lua_field_count(L, 1, "max_bytes", 0),
      .max_message = (size_t)weir_lua_field_count(L, 1, "max_message", 0)};
  const uint64_t items = weir_lua_field_count(L, 1, "max_items", 0);
  config.max_items = items > INT32_MAX ? INT32_MAX : (uint32_t)items;
  weir_lua_consumer *self = weir_lua_new_plain(L, sizeof *self);
  self->kind = &KIND;
  self->consumer = NULL;
  luaL_getmetatable(L, NAME);
  lua_setmetatable(L, -2);
  self->hub = weir_lua_get_hub(L);
  self->consumer = weir_consumer_new(NULL, &self->hub->hub, &config);
  if (self->consumer == NULL) return luaL_error(L, "not enough memory");
  weir_lua_register_source(L, &self->consumer->source);
  return 1;
}

static int consumer_free(lua_State *L) {
  weir_lua_consumer *self = weir_lua_self(L, NAME);
  weir_consumer_free(self->consumer);
  self->consumer = NULL;
  return 0;
}

/* The message is taken last, when nothing can fail any more. Upvalue 2 is meta's metatable. */
static void push_message(lua_State *L, weir_consumer *consumer, const weir_item *item) {
  lua_pushlstring(L, (const char *)item->payload, item->len);
  meta *m = weir_lua_new_plain(L, sizeof *m);
  m->epoch = item->epoch;
  m->sequence = item->sequence;
  m->time = item->time;
  memcpy(m->node, item->inlet->node, WEIR_ID_SIZE);
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_setmetatable(L, -2);
  weir_consumer_pop(consumer, item);
}

static int take(lua_State *L, weir_consumer *consumer) {
  weir_item item;
  if (weir_consumer_peek(consumer, &item) != WEIR_OK) {
    lua_pushnil(L);
    lua_pushliteral(L, "again");
    return 2;
  }
  push_message(L, consumer, &item);
  return 2;
}

static int consumer_try_take(lua_State *L) { return take(L, self_of(L)->consumer); }

static int consumer_take(lua_State *L) {
  weir_lua_consumer *self = self_of(L);
  if (self->hub->budget <= 0) {
    lua_pushnil(L);
    lua_pushliteral(L, "pause");
    return 2;
  }
  self->hub->budget--;
  return take(L, self->consumer);
}

#if !WEIR_LUA_51
/* Upvalues: nothing, meta's metatable, and the function for when there is no message. */
static int recv_or_slow(lua_State *L) {
  const int top = lua_gettop(L);
  weir_lua_consumer *self = weir_lua_handle(L, &KIND);
  weir_item item;
  if (self != NULL && self->consumer != NULL && self->hub->budget > 0 &&
      weir_consumer_peek(self->consumer, &item) == WEIR_OK) {
    self->hub->budget--;
    push_message(L, self->consumer, &item);
    return 2;
  }
  return weir_lua_slow(L, top, 3);
}

static int recv_function(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_pushnil(L);
  luaL_getmetatable(L, META);
  lua_pushvalue(L, 1);
  lua_pushcclosure(L, recv_or_slow, 3);
  return 1;
}
#endif

/* All of them are in the table before the first is taken. Upvalue 2 is metas' metatable. */
static int take_many(lua_State *L, weir_lua_consumer *self) {
  weir_consumer *consumer = self->consumer;
  const lua_Integer most = luaL_checkinteger(L, 2);
  luaL_argcheck(L, most >= 1, 2, "must be at least 1");
  weir_item item;
  if (weir_consumer_peek(consumer, &item) != WEIR_OK) {
    lua_pushnil(L);
    lua_pushliteral(L, "again");
    return 2;
  }
  size_t count = weir_consumer_batch(consumer);
  if (count > (size_t)most) count = (size_t)most;
  if (count > MOST_AT_ONCE) count = MOST_AT_ONCE;
  lua_createtable(L, (int)count, 0);
  metas *m = weir_lua_new_plain(L, sizeof *m + count * sizeof *m->of);
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_setmetatable(L, -2);
  m->epoch = item.epoch;
  memcpy(m->node, item.inlet->node, WEIR_ID_SIZE);
  m->count = 0;
  do {
    m->of[m->count].sequence = item.sequence;
    m->of[m->count].time = item.time;
    lua_pushlstring(L, (const char *)item.payload, item.len);
    lua_rawseti(L, -3, (int)++m->count);
  } while (m->count < count && weir_consumer_peek_ahead(consumer, m->count, &item));
  weir_consumer_pop_batch(consumer, m->count);
  self->hub->budget -= (int)m->count;
  return 2;
}

static int consumer_try_take_many(lua_State *L) { return take_many(L, self_of(L)); }

static int consumer_take_many(lua_State *L) {
  weir_lua_consumer *self = self_of(L);
  if (self->hub->budget > 0) return take_many(L, self);
  lua_pushnil(L);
  lua_pushliteral(L, "pause");
  return 2;
}

static int consumer_attach(lua_State *L) {
  weir_consumer *consumer = self_of(L)->consumer;
  weir_lua_producer *producer = weir_lua_test_producer(L, 2);
  const uint64_t epoch = lua_isnoneornil(L, 4) ? 0 : weir_lua_check_count(L, 4);
  const uint64_t sequence = lua_isnoneornil(L, 5) ? 0 : weir_lua_check_count(L, 5);
  weir_inlet *inlet;
  weir_status status =
      weir_consumer_attach(consumer, producer->producer, weir_lua_check_id(L, 3), &inlet);
  if (status != WEIR_OK) return weir_lua_status(L, status);
  if (epoch != 0 && epoch == inlet->epoch && sequence < inlet->expected) {
    weir_inlet_missed(inlet, inlet->expected - sequence);
  }
  weir_lua_push_count(L, inlet->id);
  return 1;
}

static void push_inlet(lua_State *L, const weir_inlet *inlet) {
  static const char *const STATES[] = {"opening", "open", "closed"};
  weir_inlet_gauge gauge;
  inlet->type->gauge(inlet, &gauge);
  lua_createtable(L, 0, 16);
  weir_lua_set_count(L, "id", inlet->id);
  lua_pushstring(L, STATES[inlet->state]);
  lua_setfield(L, -2, "state");
  weir_lua_set_bytes(L, "node", inlet->node, WEIR_ID_SIZE);
  weir_lua_set_count(L, "messages", inlet->messages);
  weir_lua_set_count(L, "bytes", inlet->bytes);
  weir_lua_set_count(L, "gaps", inlet->gaps);
  weir_lua_set_count(L, "missed", inlet->missed);
  weir_lua_set_count(L, "epoch", inlet->epoch);
  weir_lua_set_count(L, "next_sequence", inlet->next_sequence);
  weir_lua_set_count(L, "expected", inlet->expected);
  weir_lua_set_count(L, "queued", gauge.queued_items);
  weir_lua_set_count(L, "queued_bytes", gauge.queued_bytes);
  weir_lua_set_count(L, "credit_messages", gauge.credit_items);
  weir_lua_set_count(L, "credit_bytes", gauge.credit_bytes);
  lua_pushnumber(L, (lua_Number)inlet->since / 1e9);
  lua_setfield(L, -2, "since");
  if (inlet->state != WEIR_INLET_CLOSED) return;
  weir_lua_set_count(L, "code", inlet->close_code);
  weir_lua_set_bytes(L, "reason", inlet->reason, strlen(inlet->reason));
}

static int consumer_next_change(lua_State *L) {
  const weir_inlet *inlet = weir_consumer_next_change(self_of(L)->consumer);
  if (inlet == NULL) return 0;
  push_inlet(L, inlet);
  return 1;
}

static int consumer_inlets(lua_State *L) {
  const weir_consumer *consumer = self_of(L)->consumer;
  lua_newtable(L);
  int n = 0;
  for (weir_link *l = consumer->inlets.next; l != &consumer->inlets; l = l->next) {
    push_inlet(L, weir_list_of(l, weir_inlet, link));
    lua_rawseti(L, -2, ++n);
  }
  return 1;
}

static weir_inlet *find(lua_State *L) {
  return weir_consumer_find(self_of(L)->consumer, (uint32_t)weir_lua_check_count(L, 2));
}

static int consumer_holds(lua_State *L) {
  lua_pushboolean(L, find(L) != NULL);
  return 1;
}

static int consumer_close_inlet(lua_State *L) {
  weir_inlet *inlet = find(L);
  if (inlet != NULL) {
    weir_inlet_close(inlet, (uint32_t)luaL_optinteger(L, 3, WEIR_CLOSE_CANCELLED),
                     luaL_optstring(L, 4, ""));
  }
  lua_pushboolean(L, inlet != NULL);
  return 1;
}

static int consumer_stats(lua_State *L) {
  const weir_consumer *consumer = self_of(L)->consumer;
  lua_createtable(L, 0, 4);
  weir_lua_set_count(L, "messages", consumer->messages);
  weir_lua_set_count(L, "bytes", consumer->bytes);
  weir_lua_set_count(L, "gaps", consumer->gaps);
  weir_lua_set_count(L, "missed", consumer->missed);
  return 1;
}

/* --- meta ------------------------------------------------------------------------------------- */

static void push_hex(lua_State *L, const unsigned char *bytes, size_t len) {
  static const char DIGITS[] = "0123456789abcdef";
  char text[2 * WEIR_ID_SIZE];
  for (size_t i = 0; i < len; i++) {
    text[2 * i] = DIGITS[bytes[i] >> 4];
    text[2 * i + 1] = DIGITS[bytes[i] & 15];
  }
  lua_pushlstring(L, text, 2 * len);
}

static int meta_index(lua_State *L) {
  const meta *m = luaL_checkudata(L, 1, META);
  const char *key = luaL_checkstring(L, 2);
  if (strcmp(key, "producer") == 0) {
    push_hex(L, m->node, WEIR_ID_SIZE);
  } else if (strcmp(key, "epoch") == 0) {
    weir_lua_push_count(L, m->epoch);
  } else if (strcmp(key, "sequence") == 0) {
    weir_lua_push_count(L, m->sequence);
  } else if (strcmp(key, "time") == 0) {
    lua_pushnumber(L, (lua_Number)m->time / 1e6);
  } else {
    lua_pushnil(L);
  }
  return 1;
}

/* metas[i] makes the meta of the i-th message. Upvalue 1 is meta's metatable. */
static int metas_index(lua_State *L) {
  const metas *all = luaL_checkudata(L, 1, METAS);
  const lua_Number i = lua_type(L, 2) == LUA_TNUMBER ? lua_tonumber(L, 2) : 0;
  if (!(i >= 1 && i <= (lua_Number)all->count)) return 0;
  meta *m = weir_lua_new_plain(L, sizeof *m);
  m->epoch = all->epoch;
  m->sequence = all->of[(size_t)i - 1].sequence;
  m->time = all->of[(size_t)i - 1].time;
  memcpy(m->node, all->node, WEIR_ID_SIZE);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_setmetatable(L, -2);
  return 1;
}

static int metas_length(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)((const metas *)luaL_checkudata(L, 1, METAS))->count);
  return 1;
}

static int meta_tostring(lua_State *L) {
  const meta *m = luaL_checkudata(L, 1, META);
  lua_pushliteral(L, "weir.meta{producer=");
  push_hex(L, m->node, 4);
  lua_pushliteral(L, "..., epoch=");
  weir_lua_push_count(L, m->epoch);
  lua_pushliteral(L, ", sequence=");
  weir_lua_push_count(L, m->sequence);
  lua_pushliteral(L, "}");
  lua_concat(L, 7);
  return 1;
}

/* Adds a method of the consumer whose second upvalue is the metatable `other`; the consumer's
 * metatable and its methods are on top of the stack. */
static void add_taking(lua_State *L, const char *name, lua_CFunction function, const char *other) {
  lua_pushvalue(L, -2);
  luaL_getmetatable(L, other);
  lua_pushcclosure(L, function, 2);
  lua_setfield(L, -2, name);
}

void weir_lua_open_consumer(lua_State *L) {
  static const luaL_Reg METHODS[] = {{"attach", consumer_attach},
                                     {"next_change", consumer_next_change},
                                     {"inlets", consumer_inlets},
                                     {"holds", consumer_holds},
                                     {"close_inlet", consumer_close_inlet},
                                     {"stats", consumer_stats},
                                     {"free", consumer_free},
                                     {NULL, NULL}};
  weir_lua_new_type(L, NAME, METHODS, consumer_free);
  luaL_newmetatable(L, META);
  lua_pushcfunction(L, meta_index);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, meta_tostring);
  lua_setfield(L, -2, "__tostring");
  luaL_newmetatable(L, METAS);
  lua_pushvalue(L, -2);
  lua_pushcclosure(L, metas_index, 1);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, metas_length);
  lua_setfield(L, -2, "__len");
  luaL_getmetatable(L, NAME);
  lua_getfield(L, -1, "__index");
  add_taking(L, "take", consumer_take, META);
  add_taking(L, "try_take", consumer_try_take, META);
  add_taking(L, "take_many", consumer_take_many, METAS);
  add_taking(L, "try_take_many", consumer_try_take_many, METAS);
  lua_pop(L, 4);
  lua_pushcfunction(L, new_consumer);
  lua_setfield(L, -2, "consumer");
#if !WEIR_LUA_51
  lua_pushcfunction(L, recv_function);
  lua_setfield(L, -2, "recv_function");
#endif
}
