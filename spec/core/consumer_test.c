#include "core/consumer.h"

#include <stdbool.h>

#include "core/bytes.h"
#include "support.h"

static const unsigned char NODE[WEIR_ID_SIZE] = "a node's id.....................";

/* --- an inlet made by hand: a remote one without its session ---------------------------------- */

typedef struct feeder {
  weir_inlet inlet;
  uint64_t next, held; /* numbers [next, next + held) wait */
  unsigned char payload[4];
  unsigned closes;
  bool *freed;
} feeder;

static feeder *feeder_of(const weir_inlet *inlet) { return (feeder *)(uintptr_t)inlet; }

static bool feeder_peek(weir_inlet *inlet, size_t ahead, weir_item *item) {
  feeder *f = feeder_of(inlet);
  if (f->held <= ahead) return false;
  weir_put_u32(f->payload, (uint32_t)(f->next + ahead));
  *item = (weir_item){.inlet = inlet, .payload = f->payload, .len = 4, .epoch = 1};
  item->sequence = f->next + ahead;
  return true;
}

static void feeder_pop(weir_inlet *inlet) {
  feeder_of(inlet)->next++;
  feeder_of(inlet)->held--;
}

static void feeder_close(weir_inlet *inlet, uint32_t code, const char *reason) {
  (void)code;
  (void)reason;
  feeder_of(inlet)->closes++;
}

static void feeder_gauge(const weir_inlet *inlet, weir_inlet_gauge *gauge) {
  *gauge = (weir_inlet_gauge){.queued_items = feeder_of(inlet)->held};
}

static void feeder_free(weir_inlet *inlet) {
  feeder *f = feeder_of(inlet);
  if (f->freed != NULL) *f->freed = true;
  weir_free(inlet->consumer->alloc, f);
}

static const weir_inlet_type FEEDER = {feeder_peek, feeder_pop, feeder_close, feeder_gauge,
                                       feeder_free};

static feeder *add_feeder(weir_consumer *consumer) {
  feeder *f = weir_calloc(consumer->alloc, 1, sizeof *f);
  weir_inlet_init(&f->inlet, &FEEDER, consumer);
  weir_inlet_opened(&f->inlet);
  return f;
}

static void feed(feeder *f, uint64_t count) {
  f->held += count;
  weir_inlet_ready(&f->inlet);
}

/* --- a consumer ------------------------------------------------------------------------------- */

typedef struct world {
  weir_hub hub;
  weir_consumer *consumer;
} world;

static void set_up(world *w, weir_test_alloc *memory) {
  weir_hub_init(&w->hub);
  w->hub.now = 77;
  w->consumer = weir_consumer_new(&memory->alloc, &w->hub, &(weir_consumer_config){0});
  assert_non_null(w->consumer);
}

static weir_producer *make_producer(world *w, weir_test_alloc *memory) {
  weir_producer *p = weir_producer_new(&memory->alloc, &w->hub,
                                       &(weir_producer_config){.epoch = 3, .lag = WEIR_LAG_BLOCK});
  p->online = true;
  return p;
}

static const weir_inlet *take(world *w, uint64_t *sequence) {
  weir_item item;
  if (weir_consumer_peek(w->consumer, &item) != WEIR_OK) return NULL;
  const weir_inlet *inlet = item.inlet;
  *sequence = item.sequence;
  weir_consumer_pop(w->consumer, &item);
  return inlet;
}

static uint32_t events(world *w) {
  const uint32_t bits = w->consumer->source.pending;
  weir_source_clear(&w->consumer->source);
  return bits;
}

/* --- merging ---------------------------------------------------------------------------------- */

static void a_busy_inlet_does_not_hide_a_quiet_one(void **state) {
  world w;
  set_up(&w, *state);
  feeder *busy = add_feeder(w.consumer), *quiet = add_feeder(w.consumer);
  feed(busy, 100000);
  feed(quiet, 1);
  uint64_t sequence;
  unsigned before = 0;
  while (take(&w, &sequence) == &busy->inlet)
    before++;
  assert_int_equal(before, 64);
  assert_ptr_equal(take(&w, &sequence), &busy->inlet);
  weir_consumer_free(w.consumer);
}

static void ready_inlets_take_turns_and_keep_their_own_order(void **state) {
  enum {
    INLETS = 5,
    EACH = 1000
  };
  world w;
  set_up(&w, *state);
  feeder *feeders[INLETS];
  uint64_t next[INLETS] = {0}, sequence;
  for (int i = 0; i < INLETS; i++) {
    feeders[i] = add_feeder(w.consumer);
    feed(feeders[i], EACH);
  }
  const weir_inlet *inlet;
  while ((inlet = take(&w, &sequence)) != NULL) {
    int i = 0;
    while (inlet != &feeders[i]->inlet)
      i++;
    assert_int_equal(sequence, next[i]++);
    for (int k = 0; k < INLETS; k++) /* nobody is more than a run ahead of anybody */
      assert_true(next[i] <= next[k] + 64);
  }
  for (int i = 0; i < INLETS; i++) {
    assert_int_equal(next[i], EACH);
    assert_int_equal(feeders[i]->inlet.messages, EACH);
    assert_int_equal(feeders[i]->inlet.bytes, 4 * EACH);
    assert_int_equal(feeders[i]->inlet.next_sequence, EACH);
  }
  assert_int_equal(w.consumer->messages, INLETS * EACH);
  weir_consumer_free(w.consumer);
}

static void a_look_takes_nothing(void **state) {
  world w;
  set_up(&w, *state);
  feed(add_feeder(w.consumer), 2);
  weir_item item;
  for (int i = 0; i < 200; i++) {
    assert_ok(weir_consumer_peek(w.consumer, &item));
    assert_int_equal(item.sequence, 0);
  }
  weir_consumer_free(w.consumer);
}

static void readable_is_told_once_after_nothing_was_there(void **state) {
  world w;
  set_up(&w, *state);
  feeder *f = add_feeder(w.consumer);
  uint64_t sequence;
  events(&w);
  feed(f, 1);
  assert_int_equal(events(&w), 0); /* nobody had looked */
  assert_non_null(take(&w, &sequence));
  assert_null(take(&w, &sequence));
  feed(f, 1);
  feed(f, 1);
  assert_int_equal(events(&w), WEIR_CONSUMER_READABLE);
  assert_non_null(take(&w, &sequence));
  assert_non_null(take(&w, &sequence));
  assert_int_equal(events(&w), 0);
  weir_consumer_free(w.consumer);
}

/* --- the ends of inlets ----------------------------------------------------------------------- */

static void a_closed_inlet_delivers_what_it_holds_and_then_goes(void **state) {
  world w;
  set_up(&w, *state);
  bool freed = false;
  feeder *f = add_feeder(w.consumer);
  f->freed = &freed;
  const uint32_t id = f->inlet.id;
  feed(f, 3);
  while (weir_consumer_next_change(w.consumer) != NULL) {
  }
  weir_inlet_closed(&f->inlet, WEIR_CLOSE_SHUTDOWN, "bye, or more", 3);
  weir_inlet_closed(&f->inlet, WEIR_CLOSE_PROTOCOL, "late", 4);
  assert_int_equal(events(&w), WEIR_CONSUMER_CHANGED);
  const weir_inlet *changed = weir_consumer_next_change(w.consumer);
  assert_ptr_equal(changed, &f->inlet);
  assert_int_equal(changed->close_code, WEIR_CLOSE_SHUTDOWN);
  assert_string_equal(changed->reason, "bye");
  assert_null(weir_consumer_next_change(w.consumer));
  uint64_t sequence;
  for (uint64_t n = 0; n < 3; n++) {
    assert_non_null(weir_consumer_find(w.consumer, id));
    assert_ptr_equal(take(&w, &sequence), &f->inlet);
    assert_int_equal(sequence, n);
  }
  assert_true(freed);
  assert_int_equal(events(&w), WEIR_CONSUMER_DRAINED);
  assert_null(weir_consumer_find(w.consumer, id));
  assert_null(take(&w, &sequence));
  weir_consumer_free(w.consumer);
}

static void an_end_is_reported_even_if_all_was_taken_before(void **state) {
  world w;
  set_up(&w, *state);
  bool freed = false;
  feeder *f = add_feeder(w.consumer);
  f->freed = &freed;
  feed(f, 1);
  weir_inlet_closed(&f->inlet, WEIR_CLOSE_SHUTDOWN, "", 0);
  uint64_t sequence;
  assert_non_null(take(&w, &sequence));
  assert_null(take(&w, &sequence));
  assert_false(freed);
  assert_ptr_equal(weir_consumer_next_change(w.consumer), &f->inlet); /* opened and closed: once */
  assert_false(freed);
  events(&w);
  assert_null(weir_consumer_next_change(w.consumer));
  assert_true(freed);
  assert_int_equal(events(&w), WEIR_CONSUMER_DRAINED);
  weir_consumer_free(w.consumer);
}

static void each_change_is_reported_once(void **state) {
  world w;
  set_up(&w, *state);
  feeder *a = add_feeder(w.consumer), *b = add_feeder(w.consumer);
  assert_ptr_equal(weir_consumer_next_change(w.consumer), &a->inlet);
  assert_ptr_equal(weir_consumer_next_change(w.consumer), &b->inlet);
  assert_null(weir_consumer_next_change(w.consumer));
  weir_inlet_close(&a->inlet, WEIR_CLOSE_CANCELLED, "enough");
  weir_inlet_close(&a->inlet, WEIR_CLOSE_CANCELLED, "enough");
  assert_int_equal(a->closes, 1);
  const weir_inlet *changed = weir_consumer_next_change(w.consumer);
  assert_ptr_equal(changed, &a->inlet);
  assert_int_equal(changed->state, WEIR_INLET_CLOSED);
  assert_string_equal(changed->reason, "enough");
  assert_null(weir_consumer_next_change(w.consumer));
  weir_consumer_free(w.consumer);
}

static void a_long_reason_is_cut(void **state) {
  world w;
  set_up(&w, *state);
  feeder *f = add_feeder(w.consumer);
  char reason[500];
  memset(reason, 'x', sizeof reason);
  weir_inlet_closed(&f->inlet, 1, reason, sizeof reason);
  assert_int_equal(strlen(f->inlet.reason), sizeof f->inlet.reason - 1);
  weir_consumer_free(w.consumer);
}

static void freeing_the_consumer_closes_all_its_inlets(void **state) {
  world w;
  set_up(&w, *state);
  bool a = false, b = false;
  feeder *open = add_feeder(w.consumer), *closed = add_feeder(w.consumer);
  open->freed = &a;
  closed->freed = &b;
  feed(open, 3);
  feed(closed, 3);
  weir_inlet_closed(&closed->inlet, 1, "", 0);
  weir_consumer_free(w.consumer);
  assert_true(a && b);
  weir_consumer_free(NULL);
}

/* --- producers of the same process ------------------------------------------------------------ */

static void a_local_producer_is_read_without_a_copy(void **state) {
  world w;
  set_up(&w, *state);
  weir_producer *p = make_producer(&w, *state);
  assert_ok(weir_producer_send(p, "early", 5)); /* nobody was there */
  weir_inlet *inlet;
  assert_ok(weir_consumer_attach(w.consumer, p, NODE, &inlet));
  assert_int_equal(inlet->state, WEIR_INLET_OPEN);
  assert_int_equal(inlet->since, 77);
  assert_int_equal(inlet->epoch, 3);
  assert_int_equal(inlet->next_sequence, 1);
  w.hub.time = 555;
  assert_ok(weir_producer_send(p, "hello", 5));
  weir_item item;
  assert_ok(weir_consumer_peek(w.consumer, &item));
  assert_ptr_equal(item.payload, p->ring[1].frame + WEIR_DATA_HEADER);
  assert_memory_equal(item.payload, "hello", 5);
  assert_int_equal(item.sequence, 1);
  assert_int_equal(item.epoch, 3);
  assert_int_equal(item.time, 555);
  assert_memory_equal(item.inlet->node, NODE, WEIR_ID_SIZE);
  weir_inlet_gauge gauge;
  inlet->type->gauge(inlet, &gauge);
  assert_int_equal(gauge.queued_items, 1);
  weir_consumer_pop(w.consumer, &item);
  inlet->type->gauge(inlet, &gauge);
  assert_int_equal(gauge.queued_items, 0);
  assert_ok(weir_producer_sync(p)); /* taking acknowledges */
  weir_consumer_free(w.consumer);
  assert_int_equal(p->count, 0);
  weir_producer_free(p);
}

static void two_local_producers_are_merged(void **state) {
  world w;
  set_up(&w, *state);
  weir_producer *a = make_producer(&w, *state), *b = make_producer(&w, *state);
  weir_inlet *from_a, *from_b;
  assert_ok(weir_consumer_attach(w.consumer, a, NODE, &from_a));
  assert_ok(weir_consumer_attach(w.consumer, b, NODE, &from_b));
  uint64_t next_a = 0, next_b = 0, sequence;
  for (int i = 0; i < 300; i++) {
    assert_ok(weir_producer_send(a, "a", 1));
    if (i % 3 == 0) assert_ok(weir_producer_send(b, "b", 1));
  }
  const weir_inlet *inlet;
  while ((inlet = take(&w, &sequence)) != NULL)
    assert_int_equal(sequence, inlet == from_a ? next_a++ : next_b++);
  assert_int_equal(next_a, 300);
  assert_int_equal(next_b, 100);
  weir_producer_free(a);
  weir_producer_free(b);
  weir_consumer_free(w.consumer);
}

static void a_local_producer_that_ends_closes_its_inlet(void **state) {
  world w;
  set_up(&w, *state);
  weir_producer *p = make_producer(&w, *state);
  weir_inlet *inlet;
  assert_ok(weir_consumer_attach(w.consumer, p, NODE, &inlet));
  assert_ok(weir_producer_send(p, "x", 1));
  weir_producer_free(p);
  assert_int_equal(inlet->state, WEIR_INLET_CLOSED);
  assert_int_equal(inlet->close_code, WEIR_CLOSE_SHUTDOWN);
  weir_inlet_gauge gauge;
  inlet->type->gauge(inlet, &gauge);
  assert_int_equal(gauge.queued_items, 0);
  uint64_t sequence;
  assert_null(take(&w, &sequence));
  assert_ptr_equal(weir_consumer_next_change(w.consumer), inlet);
  assert_null(weir_consumer_next_change(w.consumer));
  weir_consumer_free(w.consumer);
}

static void a_closed_producer_cannot_be_attached_to(void **state) {
  world w;
  set_up(&w, *state);
  weir_producer *p = make_producer(&w, *state);
  weir_producer_close(p, 1, "");
  weir_inlet *inlet;
  assert_status(weir_consumer_attach(w.consumer, p, NODE, &inlet), WEIR_E_CLOSED);
  weir_producer_free(p);
  weir_consumer_free(w.consumer);
}

static void a_local_subscription_can_be_ended_by_its_consumer(void **state) {
  world w;
  set_up(&w, *state);
  weir_producer *p = make_producer(&w, *state);
  weir_inlet *inlet;
  assert_ok(weir_consumer_attach(w.consumer, p, NODE, &inlet));
  weir_inlet_close(inlet, WEIR_CLOSE_CANCELLED, "enough");
  assert_int_equal(p->count, 0);
  weir_producer_free(p);
  weir_consumer_free(w.consumer);
}

static void some_life(weir_test_alloc *memory) {
  weir_hub hub;
  weir_hub_init(&hub);
  weir_producer *p = weir_producer_new(&memory->alloc, &hub, &(weir_producer_config){.epoch = 1});
  weir_consumer *c = weir_consumer_new(&memory->alloc, &hub, &(weir_consumer_config){0});
  weir_inlet *inlet;
  if (p != NULL && c != NULL && weir_consumer_attach(c, p, NODE, &inlet) == WEIR_OK) {
    p->online = true;
    uint64_t sent = 0, taken = 0;
    weir_item item;
    for (int i = 0; i < 50; i++)
      sent += weir_producer_send(p, "hello", 5) == WEIR_OK;
    while (weir_consumer_peek(c, &item) == WEIR_OK) {
      assert_int_equal(item.sequence, taken++);
      weir_consumer_pop(c, &item);
    }
    assert_int_equal(taken, sent);
  }
  weir_producer_free(p);
  weir_consumer_free(c);
}

static void any_allocation_may_fail(void **state) {
  (void)state;
  each_failure(some_life);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      memory_test(a_busy_inlet_does_not_hide_a_quiet_one),
      memory_test(ready_inlets_take_turns_and_keep_their_own_order),
      memory_test(a_look_takes_nothing),
      memory_test(readable_is_told_once_after_nothing_was_there),
      memory_test(a_closed_inlet_delivers_what_it_holds_and_then_goes),
      memory_test(an_end_is_reported_even_if_all_was_taken_before),
      memory_test(each_change_is_reported_once),
      memory_test(a_long_reason_is_cut),
      memory_test(freeing_the_consumer_closes_all_its_inlets),
      memory_test(a_local_producer_is_read_without_a_copy),
      memory_test(two_local_producers_are_merged),
      memory_test(a_local_producer_that_ends_closes_its_inlet),
      memory_test(a_closed_producer_cannot_be_attached_to),
      memory_test(a_local_subscription_can_be_ended_by_its_consumer),
      memory_test(any_allocation_may_fail),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
