/*
 * weir.brokers.nats: libnats for Lua; the broker in lua/weir/broker/nats is written on it.
 *
 * One file per object: nats_link.c, nats_subscription.c; nats_options.c makes the options of a
 * link, nats_publish.c publishes.
 */
#ifndef WEIR_BROKERS_NATS_NATS_H
#define WEIR_BROKERS_NATS_NATS_H

#include <lauxlib.h>
#include <lua.h>
#include <nats/nats.h>
#include <stdbool.h>
#include <stdint.h>

#include "brokers/nats/link.h"
#include "brokers/nats/message.h"
#include "core/list.h"
#include "lua/uv.h"

#define WEIR_NATS_LINK "weir.nats.link"
#define WEIR_NATS_SUBSCRIPTION "weir.nats.subscription"

/* The userdata of a link. */
typedef struct nats_link {
  weir_lua_loop *box;
  weir_nats_link *link;
  weir_list armed;  /* subscriptions that want to know of messages */
  size_t limit;     /* bytes that may wait to be written */
  size_t unchecked; /* bytes published since libnats was asked how many do */
  bool filled;      /* somebody was told that it is full */
  char subject[64]; /* the last that was published to: known to be valid */
  size_t subject_length;
  natsMsg *answer; /* that is being copied: freed later if that raises */
  weir_nats_bin bin;
} nats_link;

/* The userdata of a subscription. Its user values: the link, the table of no headers, the metatable
 * of messages. */
typedef struct nats_subscription {
  weir_link armed; /* in nats_link.armed */
  nats_link *link;
  natsSubscription *sub;
  natsMsg *current; /* that is being copied: freed later if that raises */
  weir_nats_bin bin;
  lua_Integer id;
  uint64_t empty_at; /* the number of reads after which it had nothing */
  uint64_t slow;     /* times that libnats said so */
  bool jetstream;
} nats_subscription;

enum {
  NATS_SUB_LINK = 1,
  NATS_SUB_HEADERS = 2,
  NATS_SUB_CLASS = 3
};

/* A stable name for a status: "timeout", "closed", ... */
const char *weir_nats_code(natsStatus status);
/* Returns nil, the code and a text. */
int weir_nats_fail(lua_State *L, natsStatus status);
/* Options for libnats from the table at `index`; raises for what is no option. */
natsOptions *weir_nats_check_options(lua_State *L, int index);
/* The userdata at index 1, whose metatable is the first upvalue of the method: cheaper than by
 * name. */
static inline void *weir_nats_self(lua_State *L, const char *name) {
  void *self = lua_touserdata(L, 1);
  if (self != NULL && lua_getmetatable(L, 1)) {
    bool is = lua_rawequal(L, -1, lua_upvalueindex(1)) != 0;
    lua_pop(L, 1);
    if (is) return self;
  }
  return luaL_checkudata(L, 1, name); /* raises */
}
/* Makes the metatable `name`, which is the first upvalue of the methods; names of fields follow. */
void weir_nats_new_class(lua_State *L, const char *name, const luaL_Reg *meta, const luaL_Reg *own);
/* The link at index 1 and its connection, which is NULL when it is not there. */
nats_link *weir_nats_check_link(lua_State *L);
natsConnection *weir_nats_connection(const nats_link *box);

int weir_nats_subscribe(lua_State *L);
int weir_nats_publish(lua_State *L);
int weir_nats_publish_many(lua_State *L);
/* Bytes of the prefix of a subject for answers. */
#define WEIR_NATS_PREFIX 512
/* Tells Lua of the armed subscriptions that have got something. */
void weir_nats_wake(nats_link *box);
/* Calls the function of the link, in protected mode: fn(kind, argument). */
void weir_nats_emit(nats_link *box, const char *kind, lua_Integer argument, const char *code);

void weir_nats_open_link(lua_State *L);
void weir_nats_open_subscription(lua_State *L);

#endif
