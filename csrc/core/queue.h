/*
 * weir_queue: a bounded first-in, first-out queue of slices, each with its place in a stream.
 *
 * Bounded in items and in bytes. Bytes follow the rule of credit (core/credit.h): one more item is
 * taken while the queue holds fewer bytes than its bound, so the last item may exceed it and an
 * item larger than the bound still gets through.
 *
 * The queue owns the references of the slices in it; borrowed slices must outlive their stay. The
 * ring behind it grows on demand: a queue that never held anything owns no memory, and one that was
 * large gives half of its memory back when it drains after few items have gone through it, so that
 * bursts do not make it grow anew each time.
 */
#ifndef WEIR_QUEUE_H
#define WEIR_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/buf.h"
#include "core/status.h"

typedef struct weir_queue_item {
  weir_slice slice;
  uint64_t epoch; /* which life of the producer */
  uint64_t seq;   /* sequence number within it */
  uint64_t time;  /* when it was produced; the queue does not look at any of the three */
} weir_queue_item;

/* Rings up to this many items are kept whole when the queue drains. */
#define WEIR_QUEUE_KEEP 32

typedef struct weir_queue {
  const weir_alloc *alloc;
  weir_queue_item *ring;
  uint32_t size;       /* of the ring: 0 or a power of two */
  uint32_t head, tail; /* free-running; the items are ring[head .. tail) modulo size */
  uint32_t drained;    /* what both were when it was last empty and large */
  uint32_t max_items;
  size_t bytes, max_bytes;
} weir_queue;

/* Bounds below 1 count as 1; those beyond 2^31 items or half the address space as that. */
void weir_queue_init(weir_queue *queue, const weir_alloc *alloc, size_t max_items,
                     size_t max_bytes);
/* Drops all items and frees the ring. The queue can be used again. */
void weir_queue_clear(weir_queue *queue);
/* The same as clear: the queue may be forgotten afterwards. */
static inline void weir_queue_free(weir_queue *queue) { weir_queue_clear(queue); }

static inline size_t weir_queue_items(const weir_queue *queue) { return queue->tail - queue->head; }
static inline size_t weir_queue_bytes(const weir_queue *queue) { return queue->bytes; }
static inline bool weir_queue_empty(const weir_queue *queue) { return queue->tail == queue->head; }
/* Whether push would say WEIR_E_AGAIN. */
static inline bool weir_queue_full(const weir_queue *queue) {
  return queue->tail - queue->head >= queue->max_items || queue->bytes >= queue->max_bytes;
}

/* The parts of push and pop that change the ring; not to be called directly. */
weir_status weir_queue_grow(weir_queue *queue);
void weir_queue_drained(weir_queue *queue);

/* Appends an item; takes its reference on WEIR_OK only. WEIR_E_AGAIN: full. WEIR_E_NOMEM: the ring
 * could not grow, and all is as it was. */
static inline weir_status weir_queue_push(weir_queue *queue, const weir_queue_item *item) {
  if (weir_queue_full(queue)) return WEIR_E_AGAIN;
  if (queue->tail - queue->head == queue->size) {
    weir_status status = weir_queue_grow(queue);
    if (status != WEIR_OK) return status;
  }
  queue->ring[queue->tail++ & (queue->size - 1)] = *item;
  queue->bytes += item->slice.len;
  return WEIR_OK;
}

/* The oldest item, or NULL. Borrowed until the next call that changes the queue. */
static inline const weir_queue_item *weir_queue_peek(const weir_queue *queue) {
  return weir_queue_empty(queue) ? NULL : &queue->ring[queue->head & (queue->size - 1)];
}

/* The item `ahead` places behind the oldest, or NULL. Borrowed likewise. */
static inline const weir_queue_item *weir_queue_peek_ahead(const weir_queue *queue, size_t ahead) {
  if (ahead >= weir_queue_items(queue)) return NULL;
  return &queue->ring[(queue->head + (uint32_t)ahead) & (queue->size - 1)];
}

/* Moves the oldest item to *item, with its reference. WEIR_E_AGAIN: empty. */
static inline weir_status weir_queue_pop(weir_queue *queue, weir_queue_item *item) {
  if (weir_queue_empty(queue)) return WEIR_E_AGAIN;
  *item = queue->ring[queue->head++ & (queue->size - 1)];
  queue->bytes -= item->slice.len;
  if (queue->head == queue->tail && queue->size > WEIR_QUEUE_KEEP) weir_queue_drained(queue);
  return WEIR_OK;
}

#endif
