#include "core/consumer.h"

#include <stdio.h>
#include <string.h>

/* Messages taken from one inlet before the next one has its turn. */
#define RUN_LENGTH 64u

weir_consumer *weir_consumer_new(const weir_alloc *alloc, weir_hub *hub,
                                 const weir_consumer_config *config) {
  weir_consumer *c = weir_calloc(alloc, 1, sizeof *c);
  if (c == NULL) return NULL;
  c->alloc = alloc;
  c->config = *config;
  if (c->config.max_items == 0) c->config.max_items = 8192;
  if (c->config.max_bytes == 0) c->config.max_bytes = 1024u * 1024;
  if (c->config.max_message == 0) c->config.max_message = 1024u * 1024;
  if (c->config.max_message > WEIR_MAX_MESSAGE) c->config.max_message = WEIR_MAX_MESSAGE;
  c->next_id = 1;
  weir_source_init(&c->source, hub);
  weir_list_init(&c->inlets);
  weir_list_init(&c->ready);
  weir_list_init(&c->changed);
  return c;
}

static void unlink_and_free(weir_inlet *inlet) {
  if (inlet->consumer->reporting == inlet) inlet->consumer->reporting = NULL;
  weir_list_remove(&inlet->link);
  weir_list_remove(&inlet->ready);
  weir_list_remove(&inlet->changed);
  inlet->type->free(inlet);
}

/* A closed inlet goes once its end is known and nothing of it is left to take. */
static void free_if_over(weir_inlet *inlet) {
  if (inlet->state == WEIR_INLET_CLOSED && inlet->reported && !weir_list_linked(&inlet->ready)) {
    weir_hub_notify(&inlet->consumer->source, WEIR_CONSUMER_DRAINED);
    unlink_and_free(inlet);
  }
}

/* Takes an inlet that has nothing out of the ready list; a closed one that was reported goes. */
static void leave_if_empty(weir_inlet *inlet) {
  weir_item item;
  if (weir_list_linked(&inlet->ready)) {
    if (inlet->type->peek(inlet, 0, &item)) return;
    if (inlet->consumer->ready.next == &inlet->ready) inlet->consumer->run = 0;
    weir_list_remove(&inlet->ready);
  }
  free_if_over(inlet);
}

void weir_consumer_free(weir_consumer *consumer) {
  if (consumer == NULL) return;
  weir_link *link;
  while ((link = weir_list_first(&consumer->inlets)) != NULL) {
    weir_inlet *inlet = weir_list_of(link, weir_inlet, link);
    weir_inlet_close(inlet, WEIR_CLOSE_CANCELLED, "the consumer was closed");
    unlink_and_free(inlet);
  }
  weir_source_clear(&consumer->source);
  weir_free(consumer->alloc, consumer);
}

weir_status weir_consumer_peek(weir_consumer *consumer, weir_item *item) {
  weir_link *link;
  while ((link = weir_list_first(&consumer->ready)) != NULL) {
    weir_inlet *inlet = weir_list_of(link, weir_inlet, ready);
    if (consumer->run >= RUN_LENGTH) {
      consumer->run = 0;
      weir_list_remove(link);
      weir_list_append(&consumer->ready, link);
      continue;
    }
    if (inlet->type->peek(inlet, 0, item)) return WEIR_OK;
    leave_if_empty(inlet);
  }
  consumer->waiting = true;
  return WEIR_E_AGAIN;
}

static weir_inlet *first_ready(const weir_consumer *consumer) {
  return weir_list_of(consumer->ready.next, weir_inlet, ready);
}

static void take(weir_inlet *inlet, const weir_item *item) {
  weir_consumer *consumer = inlet->consumer;
  inlet->messages++;
  inlet->bytes += item->len;
  inlet->epoch = item->epoch;
  inlet->next_sequence = item->sequence + 1;
  consumer->messages++;
  consumer->bytes += item->len;
  consumer->run++;
  inlet->type->pop(inlet);
}

void weir_consumer_pop(weir_consumer *consumer, const weir_item *item) {
  weir_inlet *inlet = first_ready(consumer);
  take(inlet, item);
  if (inlet->state == WEIR_INLET_CLOSED) leave_if_empty(inlet);
}

bool weir_consumer_peek_ahead(weir_consumer *consumer, size_t ahead, weir_item *item) {
  weir_inlet *inlet = first_ready(consumer);
  return inlet->type->peek(inlet, ahead, item);
}

size_t weir_consumer_batch(const weir_consumer *consumer) {
  const weir_inlet *inlet = first_ready(consumer);
  weir_inlet_gauge gauge;
  inlet->type->gauge(inlet, &gauge);
  return (size_t)gauge.queued_items;
}

void weir_consumer_pop_batch(weir_consumer *consumer, size_t count) {
  weir_inlet *inlet = first_ready(consumer);
  weir_item item;
  while (count-- > 0 && inlet->type->peek(inlet, 0, &item))
    take(inlet, &item);
  if (inlet->state == WEIR_INLET_CLOSED) leave_if_empty(inlet);
}

weir_inlet *weir_consumer_find(const weir_consumer *consumer, uint32_t id) {
  for (weir_link *l = consumer->inlets.next; l != &consumer->inlets; l = l->next) {
    weir_inlet *inlet = weir_list_of(l, weir_inlet, link);
    if (inlet->id == id) return inlet;
  }
  return NULL;
}

weir_inlet *weir_consumer_next_change(weir_consumer *consumer) {
  weir_inlet *before = consumer->reporting;
  consumer->reporting = NULL;
  if (before != NULL) free_if_over(before);
  weir_link *link = weir_list_first(&consumer->changed);
  if (link == NULL) return NULL;
  weir_inlet *inlet = weir_list_of(link, weir_inlet, changed);
  weir_list_remove(link);
  if (inlet->state == WEIR_INLET_CLOSED) {
    inlet->reported = true;
    consumer->reporting = inlet;
  }
  return inlet;
}

/* --- inlets ----------------------------------------------------------------------------------- */

void weir_inlet_init(weir_inlet *inlet, const weir_inlet_type *type, weir_consumer *consumer) {
  inlet->type = type;
  inlet->consumer = consumer;
  inlet->id = consumer->next_id++;
  weir_list_init(&inlet->ready);
  weir_list_init(&inlet->changed);
  weir_list_append(&consumer->inlets, &inlet->link);
}

static void note_change(weir_inlet *inlet) {
  weir_consumer *consumer = inlet->consumer;
  if (!weir_list_linked(&inlet->changed)) weir_list_append(&consumer->changed, &inlet->changed);
  weir_hub_notify(&consumer->source, WEIR_CONSUMER_CHANGED);
}

void weir_inlet_opened(weir_inlet *inlet) {
  inlet->state = WEIR_INLET_OPEN;
  inlet->since = inlet->consumer->source.hub->now;
  note_change(inlet);
}

void weir_inlet_closed(weir_inlet *inlet, uint32_t code, const char *reason, size_t reason_len) {
  if (inlet->state == WEIR_INLET_CLOSED) return;
  inlet->state = WEIR_INLET_CLOSED;
  inlet->close_code = code;
  snprintf(inlet->reason, sizeof inlet->reason, "%.*s", (int)reason_len, reason);
  note_change(inlet);
  leave_if_empty(inlet);
}

void weir_inlet_missed(weir_inlet *inlet, uint64_t count) {
  inlet->gaps++;
  inlet->missed += count;
  inlet->consumer->gaps++;
  inlet->consumer->missed += count;
}

void weir_inlet_ready(weir_inlet *inlet) {
  weir_consumer *consumer = inlet->consumer;
  if (!weir_list_linked(&inlet->ready)) weir_list_append(&consumer->ready, &inlet->ready);
  if (consumer->waiting) {
    consumer->waiting = false;
    weir_hub_notify(&consumer->source, WEIR_CONSUMER_READABLE);
  }
}

void weir_inlet_close(weir_inlet *inlet, uint32_t code, const char *reason) {
  if (inlet->state == WEIR_INLET_CLOSED) return;
  inlet->type->close(inlet, code, reason);
  weir_inlet_closed(inlet, code, reason, strlen(reason));
}

/* --- local ------------------------------------------------------------------------------------ */

typedef struct local_inlet {
  weir_inlet inlet;
  weir_subscriber subscriber;
} local_inlet;

static local_inlet *local_of(weir_inlet *inlet) { return (local_inlet *)inlet; }

static bool local_peek(weir_inlet *inlet, size_t ahead, weir_item *item) {
  const weir_subscriber *subscriber = &local_of(inlet)->subscriber;
  const weir_entry *entry = weir_subscriber_peek(subscriber, ahead);
  if (entry == NULL) return false;
  weir_data data;
  weir_read_data(entry->frame + 4, entry->len - 4, &data);
  *item =
      (weir_item){inlet, data.payload.ptr, data.payload.len, data.epoch, data.sequence, data.time};
  return true;
}

static void local_pop(weir_inlet *inlet) {
  weir_subscriber *subscriber = &local_of(inlet)->subscriber;
  const weir_entry *entry = weir_subscriber_peek(subscriber, 0);
  subscriber->bytes += entry->len - WEIR_DATA_HEADER;
  weir_subscriber_advance(subscriber, 1);
  weir_subscriber_acknowledge(subscriber, subscriber->cursor);
  inlet->expected = subscriber->cursor;
}

static void local_close(weir_inlet *inlet, uint32_t code, const char *reason) {
  (void)code;
  (void)reason;
  weir_producer_detach(&local_of(inlet)->subscriber);
}

static void local_gauge(const weir_inlet *inlet, weir_inlet_gauge *gauge) {
  const weir_subscriber *subscriber = &((const local_inlet *)inlet)->subscriber;
  memset(gauge, 0, sizeof *gauge);
  if (subscriber->producer == NULL) return;
  gauge->queued_items = subscriber->producer->head - subscriber->cursor;
}

static void local_free(weir_inlet *inlet) { weir_free(inlet->consumer->alloc, local_of(inlet)); }

static const weir_inlet_type LOCAL_INLET = {local_peek, local_pop, local_close, local_gauge,
                                            local_free};

static void local_notify(weir_subscriber *subscriber) {
  weir_inlet_ready(&weir_list_of(subscriber, local_inlet, subscriber)->inlet);
}

static void local_detached(weir_subscriber *subscriber, uint32_t code, const char *reason) {
  weir_inlet *inlet = &weir_list_of(subscriber, local_inlet, subscriber)->inlet;
  weir_inlet_closed(inlet, code, reason, strlen(reason));
}

static const weir_subscriber_type LOCAL_SUBSCRIBER = {local_notify, local_detached, NULL};

weir_status weir_consumer_attach(weir_consumer *consumer, weir_producer *producer,
                                 const unsigned char *node, weir_inlet **inlet) {
  local_inlet *local = weir_calloc(consumer->alloc, 1, sizeof *local);
  if (local == NULL) return WEIR_E_NOMEM;
  local->subscriber.type = &LOCAL_SUBSCRIBER;
  weir_status status = weir_producer_attach(producer, &local->subscriber, UINT64_MAX);
  if (status != WEIR_OK) {
    weir_free(consumer->alloc, local);
    return status;
  }
  weir_inlet_init(&local->inlet, &LOCAL_INLET, consumer);
  memcpy(local->inlet.node, node, WEIR_ID_SIZE);
  local->inlet.epoch = producer->config.epoch;
  local->inlet.next_sequence = local->inlet.expected = local->subscriber.cursor;
  weir_inlet_opened(&local->inlet);
  *inlet = &local->inlet;
  return WEIR_OK;
}
