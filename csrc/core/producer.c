#include "core/producer.h"

#include <string.h>

#define SLAB_BLOCK_MIN 1024u
#define SLAB_BLOCK_MAX 262144u
#define RING_MIN 16u

weir_producer *weir_producer_new(const weir_alloc *alloc, weir_hub *hub,
                                 const weir_producer_config *config) {
  weir_producer *p = weir_calloc(alloc, 1, sizeof *p);
  if (p == NULL) return NULL;
  p->alloc = alloc;
  p->config = *config;
  if (p->config.max_items == 0) p->config.max_items = 4096;
  if (p->config.max_bytes == 0) p->config.max_bytes = 4u * 1024 * 1024;
  if (p->config.max_message == 0) p->config.max_message = 1024u * 1024;
  if (p->config.max_message > WEIR_MAX_MESSAGE) p->config.max_message = WEIR_MAX_MESSAGE;
  if (p->config.grace == 0) p->config.grace = 100u * 1000000u;
  p->mask = UINT64_MAX;
  p->next_id = 1;
  weir_source_init(&p->source, hub);
  weir_list_init(&p->subscribers);
  weir_list_init(&p->idle);
  weir_slab_init(&p->slab, alloc, SLAB_BLOCK_MIN);
  return p;
}

static weir_entry *entry_at(const weir_producer *p, uint64_t sequence) {
  return &p->ring[sequence & p->mask];
}

static uint64_t capacity(const weir_producer *p) { return p->mask + 1; /* 0 without a ring */ }

/* Doubles the ring. One place more than the entries is always there: the head's, whose `cursors`
 * counts the subscribers that have taken everything. */
static weir_status grow(weir_producer *p) {
  const uint64_t old = capacity(p);
  const uint64_t size = old == 0 ? RING_MIN : old * 2;
  weir_entry *ring = weir_calloc(p->alloc, (size_t)size, sizeof *ring);
  if (ring == NULL) return WEIR_E_NOMEM;
  if (old != 0) {
    for (uint64_t s = p->tail; s <= p->head; s++)
      ring[s & (size - 1)] = *entry_at(p, s);
  }
  weir_free(p->alloc, p->ring);
  p->ring = ring;
  p->mask = size - 1;
  return WEIR_OK;
}

static bool full(const weir_producer *p) {
  return p->head - p->tail >= p->config.max_items || p->bytes >= p->config.max_bytes;
}

static void drop_passed(weir_producer *p) {
  while (p->tail != p->head && entry_at(p, p->tail)->cursors == 0) {
    weir_entry *entry = entry_at(p, p->tail);
    weir_buf_unref(entry->buf);
    p->bytes -= entry->len;
    entry->buf = NULL;
    p->tail++;
  }
  if (p->starved && !full(p)) {
    p->starved = false;
    weir_hub_notify(&p->source, WEIR_PRODUCER_ROOM);
  }
}

/* --- subscribers ------------------------------------------------------------------------------ */

weir_status weir_producer_attach(weir_producer *producer, weir_subscriber *subscriber,
                                 uint64_t sequence) {
  if (producer->closed) return WEIR_E_CLOSED;
  if (producer->ring == NULL && grow(producer) != WEIR_OK) return WEIR_E_NOMEM;
  if (sequence < producer->tail || sequence > producer->head) sequence = producer->head;
  subscriber->producer = producer;
  subscriber->id = producer->next_id++;
  subscriber->cursor = sequence;
  subscriber->acknowledged = sequence;
  subscriber->lagging_since = 0;
  subscriber->since = producer->source.hub->now;
  entry_at(producer, sequence)->cursors++;
  weir_list_append(&producer->subscribers, &subscriber->link);
  weir_list_init(&subscriber->idle);
  if (sequence == producer->head) weir_list_append(&producer->idle, &subscriber->idle);
  producer->count++;
  weir_hub_notify(&producer->source, WEIR_PRODUCER_CHANGED);
  return WEIR_OK;
}

uint64_t weir_producer_acknowledged(const weir_producer *producer) {
  uint64_t least = producer->head;
  for (weir_link *l = producer->subscribers.next; l != &producer->subscribers; l = l->next) {
    const weir_subscriber *subscriber = weir_list_of(l, weir_subscriber, link);
    if (subscriber->acknowledged < least) least = subscriber->acknowledged;
  }
  return least;
}

static void check_sync(weir_producer *p) {
  if (p->sync == 0 || weir_producer_acknowledged(p) < p->sync) return;
  p->sync = 0;
  weir_hub_notify(&p->source, WEIR_PRODUCER_ACKED);
}

void weir_producer_detach(weir_subscriber *subscriber) {
  weir_producer *p = subscriber->producer;
  if (p == NULL) return;
  weir_list_remove(&subscriber->link);
  weir_list_remove(&subscriber->idle);
  entry_at(p, subscriber->cursor)->cursors--;
  subscriber->producer = NULL;
  p->count--;
  weir_hub_notify(&p->source, WEIR_PRODUCER_CHANGED);
  drop_passed(p);
  check_sync(p);
}

static void expel(weir_subscriber *subscriber, uint32_t code, const char *reason) {
  weir_producer_detach(subscriber);
  subscriber->type->detached(subscriber, code, reason);
}

bool weir_producer_detach_id(weir_producer *producer, uint64_t id, uint32_t code,
                             const char *reason) {
  for (weir_link *l = producer->subscribers.next; l != &producer->subscribers; l = l->next) {
    weir_subscriber *subscriber = weir_list_of(l, weir_subscriber, link);
    if (subscriber->id == id) {
      expel(subscriber, code, reason);
      return true;
    }
  }
  return false;
}

const weir_entry *weir_subscriber_peek(const weir_subscriber *subscriber, uint64_t ahead) {
  const weir_producer *p = subscriber->producer;
  if (p == NULL || p->head - subscriber->cursor <= ahead) return NULL;
  return entry_at(p, subscriber->cursor + ahead);
}

static bool caught_up_to_half(const weir_producer *p, const weir_subscriber *subscriber) {
  return p->head - subscriber->cursor <= (p->head - p->tail) / 2;
}

void weir_subscriber_advance(weir_subscriber *subscriber, uint64_t count) {
  weir_producer *p = subscriber->producer;
  const bool was_last = subscriber->cursor == p->tail;
  entry_at(p, subscriber->cursor)->cursors--;
  subscriber->cursor += count;
  entry_at(p, subscriber->cursor)->cursors++;
  subscriber->messages += count;
  if (subscriber->cursor == p->head) weir_list_append(&p->idle, &subscriber->idle);
  if (subscriber->lagging_since != 0 && caught_up_to_half(p, subscriber)) {
    subscriber->lagging_since = 0;
  }
  if (was_last) drop_passed(p);
}

void weir_subscriber_acknowledge(weir_subscriber *subscriber, uint64_t sequence) {
  if (sequence <= subscriber->acknowledged) return;
  subscriber->acknowledged = sequence;
  if (subscriber->producer != NULL) check_sync(subscriber->producer);
}

/* --- lag -------------------------------------------------------------------------------------- */

static bool somebody_keeps_up(const weir_producer *p) {
  for (weir_link *l = p->subscribers.next; l != &p->subscribers; l = l->next) {
    if (caught_up_to_half(p, weir_list_of(l, weir_subscriber, link))) return true;
  }
  return false;
}

/* Whether a subscriber that holds up the full ring is too slow: it has done so for `grace`, and in
 * that time took nothing at all, or holds up another one that keeps up. */
static bool too_slow(const weir_producer *p, weir_subscriber *subscriber, uint64_t now) {
  if (now - subscriber->lagging_since < p->config.grace) return false;
  if (somebody_keeps_up(p)) return true;
  if (subscriber->cursor == subscriber->lagging_at) {
    return now - subscriber->stuck_since >= p->config.grace;
  }
  subscriber->lagging_at = subscriber->cursor;
  subscriber->stuck_since = now;
  return false;
}

static void mark_lagging(weir_subscriber *subscriber, uint64_t now) {
  subscriber->lagging_since = subscriber->stuck_since = now;
  subscriber->lagging_at = subscriber->cursor;
}

/* Marks those who hold up the full ring, and expels those who are too slow. A mark from before a
 * time in which the ring had room counts anew. */
static void judge_slow(weir_producer *p) {
  const uint64_t now = p->source.hub->now;
  const bool was_full = p->starved || now - p->last_full <= p->config.grace;
  uint64_t deadline = 0;
  p->last_full = now;
  for (weir_link *l = p->subscribers.next, *next; l != &p->subscribers; l = next) {
    weir_subscriber *subscriber = weir_list_of(l, weir_subscriber, link);
    next = l->next;
    if (subscriber->cursor != p->tail) continue;
    if (subscriber->lagging_since == 0 || !was_full) {
      mark_lagging(subscriber, now == 0 ? 1 : now);
    } else if (too_slow(p, subscriber, now)) {
      p->evicted++;
      expel(subscriber, WEIR_CLOSE_TOO_SLOW, "the consumer does not keep up");
      if (!full(p)) break; /* the others do not hold up anything now */
      continue;
    }
    uint64_t due = subscriber->lagging_since + p->config.grace;
    if (due <= now) due = now + p->config.grace; /* it has moved: look again */
    if (deadline == 0 || due < deadline) deadline = due;
  }
  p->lag_deadline = deadline;
  if (deadline != 0) weir_hub_notify(&p->source, WEIR_PRODUCER_LAG);
}

void weir_producer_evict_slow(weir_producer *producer) {
  producer->lag_deadline = 0;
  if (producer->config.lag == WEIR_LAG_DISCONNECT && full(producer)) judge_slow(producer);
}

static weir_status refuse_full(weir_producer *p) {
  if (p->config.lag == WEIR_LAG_DISCONNECT &&
      (!p->starved || p->lag_deadline == 0 || p->source.hub->now >= p->lag_deadline)) {
    judge_slow(p);
    if (!full(p)) return WEIR_OK;
  }
  p->starved = true;
  p->last_full = p->source.hub->now;
  return WEIR_E_AGAIN;
}

/* --- sending ---------------------------------------------------------------------------------- */

static void wake_idle(weir_producer *p) {
  weir_link *link;
  while ((link = weir_list_first(&p->idle)) != NULL) {
    weir_list_remove(link);
    weir_subscriber *subscriber = weir_list_of(link, weir_subscriber, idle);
    subscriber->type->notify(subscriber);
  }
}

/* Small producers own small blocks; busy ones soon carve from large ones. */
static weir_status carve(weir_producer *p, size_t len, weir_slice *out, unsigned char **bytes) {
  const weir_buf *before = p->slab.buf;
  weir_status status = weir_slab_carve(&p->slab, len, out, bytes);
  if (p->slab.buf != before && p->slab.block < SLAB_BLOCK_MAX) p->slab.block *= 2;
  return status;
}

weir_status weir_producer_send(weir_producer *producer, const void *payload, size_t len) {
  weir_producer *p = producer;
  if (p->closed) return WEIR_E_CLOSED;
  if (!p->online) return WEIR_E_OFFLINE;
  if (len > p->config.max_message) return WEIR_E_LIMIT;
  if (full(p)) {
    weir_status status = refuse_full(p);
    if (status != WEIR_OK) return status;
  }
  if (p->count == 0) { /* perhaps only now that the slow ones are gone */
    p->head = ++p->tail;
    p->undelivered++;
    return WEIR_OK;
  }
  if (p->head - p->tail + 1 >= capacity(p) && grow(p) != WEIR_OK) return WEIR_E_NOMEM;

  weir_slice frame;
  unsigned char *bytes;
  weir_status status = carve(p, WEIR_DATA_HEADER + len, &frame, &bytes);
  if (status != WEIR_OK) return status;
  weir_write_data_header(bytes, p->config.epoch, p->head, p->source.hub->time, len);
  if (len > 0) memcpy(bytes + WEIR_DATA_HEADER, payload, len);

  weir_entry *entry = entry_at(p, p->head);
  entry->buf = frame.buf;
  entry->frame = frame.ptr;
  entry->len = (uint32_t)frame.len;
  p->head++;
  entry_at(p, p->head)->cursors = 0;
  p->bytes += frame.len;
  p->messages++;
  p->payload_bytes += len;
  if (!weir_list_empty(&p->idle)) wake_idle(p);
  return WEIR_OK;
}

weir_status weir_producer_sync(weir_producer *producer) {
  if (weir_producer_acknowledged(producer) == producer->head) return WEIR_OK;
  producer->sync = producer->head;
  for (weir_link *l = producer->subscribers.next, *next; l != &producer->subscribers; l = next) {
    weir_subscriber *subscriber = weir_list_of(l, weir_subscriber, link);
    next = l->next;
    if (subscriber->type->sync != NULL && subscriber->acknowledged < producer->head) {
      subscriber->type->sync(subscriber, producer->head);
    }
  }
  return WEIR_E_AGAIN;
}

void weir_producer_close(weir_producer *producer, uint32_t code, const char *reason) {
  if (producer->closed) return;
  producer->closed = true;
  weir_link *link;
  while ((link = weir_list_first(&producer->subscribers)) != NULL) {
    expel(weir_list_of(link, weir_subscriber, link), code, reason);
  }
  weir_hub_notify(&producer->source,
                  WEIR_PRODUCER_ROOM | WEIR_PRODUCER_ACKED | WEIR_PRODUCER_CHANGED);
}

void weir_producer_free(weir_producer *producer) {
  if (producer == NULL) return;
  weir_producer_close(producer, WEIR_CLOSE_SHUTDOWN, "the producer was closed");
  weir_source_clear(&producer->source);
  weir_slab_reset(&producer->slab);
  weir_free(producer->alloc, producer->ring);
  weir_free(producer->alloc, producer);
}
