/*
 * weir_consumer: the messages of several subscriptions, merged for one reader.
 *
 * Each subscription of the consumer is an inlet. A local inlet reads the ring of a producer of the
 * same process; a remote one (subscription.h) holds what came over its session, bounded by the
 * credit it grants as the application takes messages. Inlets that have something stand in a ready
 * list, from which peek()/pop() take in turn, so that a busy producer cannot hide a quiet one;
 * order is kept within each inlet.
 *
 * An inlet that closed (its producer ended it, or the session did) still delivers what it holds,
 * and is freed when that is taken and its end was reported by next_change().
 */
#ifndef WEIR_CONSUMER_H
#define WEIR_CONSUMER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/alloc.h"
#include "core/hub.h"
#include "core/list.h"
#include "core/producer.h"
#include "core/protocol.h"
#include "core/status.h"

typedef struct weir_consumer_config {
  uint32_t max_items;   /* held per remote subscription, in messages. Default 8192 */
  size_t max_bytes;     /* and in bytes of frames; the last one may exceed it. Default 1 MiB */
  size_t max_message;   /* longest payload. Default 1 MiB */
} weir_consumer_config; /* 0 in a field means its default */

typedef enum weir_inlet_state {
  WEIR_INLET_OPENING, /* asked for, not answered */
  WEIR_INLET_OPEN,
  WEIR_INLET_CLOSED
} weir_inlet_state;

typedef struct weir_consumer weir_consumer;
typedef struct weir_inlet weir_inlet;

typedef struct weir_item {
  const weir_inlet *inlet;
  const unsigned char *payload; /* borrowed until pop() */
  size_t len;
  uint64_t epoch, sequence, time;
} weir_item;

typedef struct weir_inlet_gauge {
  uint64_t queued_items, queued_bytes; /* waiting for the application */
  uint64_t credit_items, credit_bytes; /* what the producer may still send; 0 for a local one */
} weir_inlet_gauge;

typedef struct weir_inlet_type {
  /* Shows the message `ahead` places behind the next one; false when there is none. */
  bool (*peek)(weir_inlet *inlet, size_t ahead, weir_item *item);
  void (*pop)(weir_inlet *inlet);
  /* Ends the subscription towards the producer; the inlet stays until it is drained. */
  void (*close)(weir_inlet *inlet, uint32_t code, const char *reason);
  void (*gauge)(const weir_inlet *inlet, weir_inlet_gauge *gauge);
  void (*free)(weir_inlet *inlet);
} weir_inlet_type;

struct weir_inlet {
  const weir_inlet_type *type;
  weir_consumer *consumer;
  weir_link link;    /* in consumer->inlets */
  weir_link ready;   /* in consumer->ready while it has something */
  weir_link changed; /* in consumer->changed until reported */
  weir_inlet_state state;
  bool reported; /* its end was */
  uint32_t id;   /* unique in its consumer */
  uint32_t close_code;
  char reason[96];                  /* of the close, cut to fit */
  unsigned char node[WEIR_ID_SIZE]; /* of the producer */
  uint64_t since;                   /* when it opened (hub time, ns) */
  uint64_t epoch, next_sequence;    /* what the application will get next */
  uint64_t expected;                /* what the producer will send next: where to resume */
  uint64_t messages, bytes;         /* taken by the application; bytes of payload */
  uint64_t gaps, missed;            /* how often, and how many messages did not come */
};

struct weir_consumer {
  weir_source source;
  const weir_alloc *alloc;
  weir_consumer_config config;
  weir_list inlets, ready, changed;
  weir_inlet *reporting; /* returned by the last next_change() */
  uint32_t next_id;
  uint32_t run;             /* messages taken in a row from the first ready inlet */
  bool waiting;             /* peek() said AGAIN */
  uint64_t messages, bytes; /* taken, of all inlets there ever were */
  uint64_t gaps, missed;    /* of all inlets */
};

/* NULL when memory is out. The hub must outlive the consumer. */
weir_consumer *weir_consumer_new(const weir_alloc *alloc, weir_hub *hub,
                                 const weir_consumer_config *config);
/* Closes all subscriptions with WEIR_CLOSE_CANCELLED and drops what they hold. */
void weir_consumer_free(weir_consumer *consumer);

/* Shows the next message without taking it. WEIR_E_AGAIN: none; WEIR_CONSUMER_READABLE tells. */
weir_status weir_consumer_peek(weir_consumer *consumer, weir_item *item);
/* Takes the message that peek() has just shown: its room, and its credit, are free again. The inlet
 * of a subscription that has ended is gone with its last message. */
void weir_consumer_pop(weir_consumer *consumer, const weir_item *item);
/* After peek() has shown a message: shows the one `ahead` places behind it from the same inlet, and
 * how many the inlet has, the first included; false when there is none. */
bool weir_consumer_peek_ahead(weir_consumer *consumer, size_t ahead, weir_item *item);
size_t weir_consumer_batch(const weir_consumer *consumer);
/* Takes the message that peek() has shown and those behind it: `count` in all, which peek_ahead()
 * has shown. */
void weir_consumer_pop_batch(weir_consumer *consumer, size_t count);

/* Reads from a producer of this process. LIMIT etc. as weir_producer_attach(). */
weir_status weir_consumer_attach(weir_consumer *consumer, weir_producer *producer,
                                 const unsigned char *node, weir_inlet **inlet);
/* The next inlet whose state changed, or NULL. Valid until the consumer is used again. */
weir_inlet *weir_consumer_next_change(weir_consumer *consumer);
weir_inlet *weir_consumer_find(const weir_consumer *consumer, uint32_t id);
/* Ends a subscription from our side. */
void weir_inlet_close(weir_inlet *inlet, uint32_t code, const char *reason);

/* For the kinds of inlet. */

void weir_inlet_init(weir_inlet *inlet, const weir_inlet_type *type, weir_consumer *consumer);
void weir_inlet_opened(weir_inlet *inlet);
/* The subscription has ended, from whichever side. */
void weir_inlet_closed(weir_inlet *inlet, uint32_t code, const char *reason, size_t reason_len);
/* `count` messages will not come. */
void weir_inlet_missed(weir_inlet *inlet, uint64_t count);
/* There is something to take. */
void weir_inlet_ready(weir_inlet *inlet);

#endif
