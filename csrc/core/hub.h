/*
 * weir_hub: what happened, for those who wait for it.
 *
 * Producers, consumers and sessions of one thread share a hub. Where something happens that
 * somebody may wait for, the object notes bits on its source; the source is then in the hub's queue
 * once, however often things happen, so that the queue never holds more than one entry an object
 * and needs no memory. The application drains it with weir_hub_next() after it fed bytes or used an
 * object.
 *
 * The hub also carries what the core must not find out by itself: the time.
 */
#ifndef WEIR_HUB_H
#define WEIR_HUB_H

#include <stdint.h>

#include "core/list.h"

typedef struct weir_hub {
  weir_list ready; /* of weir_source.link */
  uint64_t now;    /* monotonic, ns: set by the application before it uses the objects */
  uint64_t time;   /* microseconds since 1970, for the stamps on messages */
} weir_hub;

enum {
  /* Of a producer. */
  WEIR_PRODUCER_ROOM = 1,    /* send() said AGAIN and may now succeed */
  WEIR_PRODUCER_ACKED = 2,   /* everything up to the last sync was acknowledged by all */
  WEIR_PRODUCER_CHANGED = 4, /* a subscriber came or went */
  WEIR_PRODUCER_LAG = 8,     /* the buffer is full: call weir_producer_evict_slow() later */
  /* Of a consumer. */
  WEIR_CONSUMER_READABLE = 1, /* peek() said AGAIN and may now succeed */
  WEIR_CONSUMER_CHANGED = 2,  /* weir_consumer_next_change() has something */
  WEIR_CONSUMER_DRAINED = 4,  /* the last message of a closed subscription was taken */
  /* Of a session. */
  WEIR_SESSION_READY = 1,    /* the peer's HELLO is there */
  WEIR_SESSION_REQUEST = 2,  /* weir_session_next_request() has something */
  WEIR_SESSION_ANNOUNCE = 4, /* weir_session_next_announcement() has something */
  WEIR_SESSION_WRITABLE = 8, /* announce() or open() said AGAIN and may now succeed */
  WEIR_SESSION_ENDED = 16
};

/* Embedded in each object that notifies. */
typedef struct weir_source {
  weir_link link;
  weir_hub *hub;
  uint32_t pending;
} weir_source;

void weir_hub_init(weir_hub *hub);
void weir_source_init(weir_source *source, weir_hub *hub);
/* Forgets what is pending; to be called before the object is freed. */
void weir_source_clear(weir_source *source);
void weir_hub_notify(weir_source *source, uint32_t bits);
/* The next source with its bits, which are then cleared; NULL when nothing is pending. */
weir_source *weir_hub_next(weir_hub *hub, uint32_t *bits);

#endif
