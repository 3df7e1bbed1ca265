/*
 * The stream objects of weir.core: producer, consumer, session, and the hub that they share.
 *
 * One hub for each Lua state, in the registry. A userdata owns its core object; its metatable is
 * the first upvalue of every method, so that a method knows its own kind without a look into the
 * registry. Methods that wait for nothing return nil and a word ("again", "pause", ...) where there
 * is nothing to return: the Lua layer decides what waiting means.
 */
#ifndef WEIR_LUA_STREAM_H
#define WEIR_LUA_STREAM_H

#include <stdint.h>

#include "core/consumer.h"
#include "core/hub.h"
#include "core/producer.h"
#include "core/session.h"
#include "lua/compat.h"

typedef struct weir_lua_hub {
  weir_hub hub;
  int granted; /* operations that may succeed before the task must let others run */
  int budget;  /* what is left of them */
} weir_lua_hub;

typedef struct weir_lua_producer {
  const void *kind; /* first: what weir_lua_handle() knows it by; nothing in Lua can forge it */
  weir_producer *producer; /* NULL after free() */
  weir_lua_hub *hub;
} weir_lua_producer;

typedef struct weir_lua_consumer {
  const void *kind; /* first */
  weir_consumer *consumer;
  weir_lua_hub *hub;
} weir_lua_consumer;

typedef struct weir_lua_session {
  weir_endpoint *endpoint; /* first: drivers look here; NULL after free() */
  weir_session *session;
} weir_lua_session;

weir_lua_hub *weir_lua_get_hub(lua_State *L);
/* Lets the hub find the userdata at the top of the stack by its source. */
void weir_lua_register_source(lua_State *L, weir_source *source);

weir_lua_producer *weir_lua_test_producer(lua_State *L, int index);
weir_lua_consumer *weir_lua_check_consumer(lua_State *L, int index);

/* Makes the metatable `name` with `methods`, each of which has the metatable as its first upvalue,
 * and pops it. */
void weir_lua_new_type(lua_State *L, const char *name, const luaL_Reg *methods,
                       lua_CFunction collect);
/* The userdata at `index` if its metatable is the running method's first upvalue; raises if not. */
void *weir_lua_self(lua_State *L, const char *name);

#if !WEIR_LUA_51
/* The userdata in handle[1], where the handle is the table at index 1, if it begins with `kind`, an
 * address that only these bindings write into userdata; else NULL. Much cheaper than comparing
 * metatables. Pushes one value. */
static inline void *weir_lua_handle(lua_State *L, const void *kind) {
  if (lua_type(L, 1) != LUA_TTABLE) {
    lua_pushnil(L);
    return NULL;
  }
  lua_rawgeti(L, 1, 1);
  void *object = lua_touserdata(L, -1);
  if (object == NULL || lua_rawlen(L, -1) < sizeof kind || *(const void **)object != kind) {
    return NULL;
  }
  return object;
}
/* Ends a C function that was called with `top` arguments in a call of its upvalue number `function`
 * with the same ones. */
int weir_lua_slow(lua_State *L, int top, int function);
#endif

/* Returns nil and the status' name. */
int weir_lua_status(lua_State *L, weir_status status);
/* Returns true, or nil and the status' name where it is not WEIR_OK. */
int weir_lua_result(lua_State *L, weir_status status);
void weir_lua_push_count(lua_State *L, uint64_t value);
uint64_t weir_lua_check_count(lua_State *L, int index);
/* The count in field `key` of the table at `index`; `otherwise` if there is none. */
uint64_t weir_lua_field_count(lua_State *L, int index, const char *key, uint64_t otherwise);
/* The string in field `key`, which stays valid while the table holds it; empty if there is none. */
weir_slice weir_lua_field_bytes(lua_State *L, int index, const char *key);
/* The 32 bytes at `index` / in field `key`; raises for anything else. */
const unsigned char *weir_lua_check_id(lua_State *L, int index);
void weir_lua_field_id(lua_State *L, int index, const char *key, unsigned char *id);
void weir_lua_set_count(lua_State *L, const char *key, uint64_t value);
void weir_lua_set_bytes(lua_State *L, const char *key, const void *bytes, size_t len);

#endif
