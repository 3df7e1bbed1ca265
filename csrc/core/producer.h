/*
 * weir_producer: one log of messages, read by many subscribers, each at its own pace.
 *
 * send() writes the message once, as the DATA frame that goes on the wire, at the head of a bounded
 * ring. Each subscriber has a cursor into the ring; what every subscriber has passed is dropped at
 * the tail. So a message is stored and encoded once whatever the number of subscribers, and a
 * subscriber costs no memory for its backlog. A subscriber is either a consumer of the same
 * process, which reads the ring directly (consumer.h), or the far end of a subscription on a
 * session (outlet.h), which moves frames into its yamux stream as credit and window allow.
 *
 * The ring is full when the slowest subscriber is `max_items` messages or `max_bytes` behind. What
 * happens then is the lag policy: WEIR_LAG_BLOCK, send() says AGAIN until there is room;
 * WEIR_LAG_DISCONNECT, the same, but a subscriber that has held up the full ring for `grace` is
 * closed with WEIR_CLOSE_TOO_SLOW if it took nothing at all in that time, or if another one keeps
 * up (is less than half of the ring behind) and has to wait because of it. So the only consumer, or
 * all of them together, may be slower than the producer, which then waits; but nobody waits for
 * long for one who is slower than the rest. A subscriber counts as lagging from the moment it was
 * found holding up a full ring until it has caught up to half.
 */
#ifndef WEIR_PRODUCER_H
#define WEIR_PRODUCER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/alloc.h"
#include "core/buf.h"
#include "core/hub.h"
#include "core/list.h"
#include "core/protocol.h"
#include "core/status.h"

typedef enum weir_lag {
  WEIR_LAG_DISCONNECT,
  WEIR_LAG_BLOCK
} weir_lag;

typedef struct weir_producer_config {
  uint64_t epoch;     /* of this incarnation of the stream: greater than that of the one before */
  uint32_t max_items; /* the ring's bound in messages. Default 4096 */
  size_t max_bytes;   /* and in bytes of frames; the last one may exceed it. Default 4 MiB */
  size_t max_message; /* longest payload. Default 1 MiB */
  weir_lag lag;
  uint64_t grace;       /* ns. Default 100 ms */
} weir_producer_config; /* 0 in a field means its default */

typedef struct weir_producer weir_producer;
typedef struct weir_subscriber weir_subscriber;

/* What a kind of subscriber does when the producer calls. */
typedef struct weir_subscriber_type {
  /* There are messages past the cursor where there were none. */
  void (*notify)(weir_subscriber *subscriber);
  /* The producer has detached the subscriber, and why. */
  void (*detached)(weir_subscriber *subscriber, uint32_t code, const char *reason);
  /* Asks for an acknowledgement of everything before `sequence`. May be NULL: taking acknowledges.
   */
  void (*sync)(weir_subscriber *subscriber, uint64_t sequence);
} weir_subscriber_type;

struct weir_subscriber {
  const weir_subscriber_type *type;
  weir_producer *producer; /* NULL when detached */
  weir_link link;          /* in producer->subscribers */
  weir_link idle;          /* in producer->idle while the cursor is at the head */
  uint64_t id;             /* unique in its producer */
  uint64_t cursor;         /* sequence of the next message to take */
  uint64_t acknowledged;   /* everything before it has been taken by the application */
  uint64_t lagging_since;  /* holds up the full ring; 0: does not, or has caught up to half since */
  uint64_t lagging_at;     /* the cursor when it was last seen to have moved, and the time */
  uint64_t stuck_since;
  uint64_t since;           /* when it came (hub time, ns) */
  uint64_t messages, bytes; /* taken; bytes of payload */
};

typedef struct weir_entry {
  weir_buf *buf; /* holds the frame */
  const unsigned char *frame;
  uint32_t len;     /* of the frame */
  uint32_t cursors; /* subscribers whose cursor is here */
} weir_entry;

struct weir_producer {
  weir_source source;
  const weir_alloc *alloc;
  weir_producer_config config;
  weir_slab slab;
  weir_entry *ring; /* capacity is a power of two; sequence & mask is the place */
  uint64_t mask;    /* capacity - 1; UINT64_MAX while there is no ring */
  uint64_t head;    /* sequence of the next message to send */
  uint64_t tail;    /* of the oldest in the ring */
  size_t bytes;     /* of the frames in the ring */
  weir_list subscribers, idle;
  size_t count; /* of subscribers */
  uint64_t next_id;
  bool online; /* set by the application; send() says OFFLINE while false */
  bool closed;
  bool starved;          /* send() said AGAIN */
  uint64_t lag_deadline; /* when to look at the slow ones; 0: nobody lags */
  uint64_t last_full;    /* when the ring was last found full */
  uint64_t sync;         /* a sync for everything before this waits for answers; 0: none */
  uint64_t messages, payload_bytes; /* sent */
  uint64_t undelivered;             /* sent while there was no subscriber */
  uint64_t evicted;                 /* subscribers closed for being too slow */
};

/* NULL when memory is out. The hub must outlive the producer. */
weir_producer *weir_producer_new(const weir_alloc *alloc, weir_hub *hub,
                                 const weir_producer_config *config);
/* Detaches all subscribers with WEIR_CLOSE_SHUTDOWN first. */
void weir_producer_free(weir_producer *producer);

/* Puts a message in the ring. LIMIT: longer than max_message; OFFLINE; CLOSED; AGAIN: no room
 * (WEIR_PRODUCER_ROOM tells when); NOMEM. */
weir_status weir_producer_send(weir_producer *producer, const void *payload, size_t len);
/* Detaches subscribers that have held up the full ring for `grace`. */
void weir_producer_evict_slow(weir_producer *producer);
/* Asks every subscriber to acknowledge what has been sent. OK when all have already, else AGAIN and
 * WEIR_PRODUCER_ACKED later. */
weir_status weir_producer_sync(weir_producer *producer);
/* Everything before this sequence has been acknowledged by all subscribers. */
uint64_t weir_producer_acknowledged(const weir_producer *producer);
/* No more messages; detaches every subscriber with `code`. */
void weir_producer_close(weir_producer *producer, uint32_t code, const char *reason);
/* Detaches one subscriber; false when there is none with this id. */
bool weir_producer_detach_id(weir_producer *producer, uint64_t id, uint32_t code,
                             const char *reason);

/* For the kinds of subscriber. */

/* Lets `subscriber` (type set, otherwise zero) read from `sequence`, or from the head if the ring
 * no longer has it; returns the position it starts at. NOMEM leaves it detached. */
weir_status weir_producer_attach(weir_producer *producer, weir_subscriber *subscriber,
                                 uint64_t sequence);
/* Takes it out without calling detached(). */
void weir_producer_detach(weir_subscriber *subscriber);
/* The entry `ahead` places behind the cursor; NULL when there is none (yet). */
const weir_entry *weir_subscriber_peek(const weir_subscriber *subscriber, uint64_t ahead);
/* Moves the cursor over `count` entries. */
void weir_subscriber_advance(weir_subscriber *subscriber, uint64_t count);
/* Everything before `sequence` was taken by the application at the far end. */
void weir_subscriber_acknowledge(weir_subscriber *subscriber, uint64_t sequence);

#endif
