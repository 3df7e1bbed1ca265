#include "core/producer.h"

#include <stdbool.h>

#include "core/bytes.h"
#include "core/time.h"
#include "support.h"

/* --- a subscriber made by hand ---------------------------------------------------------------- */

typedef struct reader {
  weir_subscriber subscriber;
  unsigned notified, detached;
  uint32_t code;
  uint64_t sync;
} reader;

static reader *reader_of(weir_subscriber *subscriber) {
  return weir_list_of(subscriber, reader, subscriber);
}

static void on_notify(weir_subscriber *subscriber) { reader_of(subscriber)->notified++; }

static void on_detached(weir_subscriber *subscriber, uint32_t code, const char *reason) {
  assert_non_null(reason);
  assert_null(subscriber->producer);
  reader_of(subscriber)->detached++;
  reader_of(subscriber)->code = code;
}

static void on_sync(weir_subscriber *subscriber, uint64_t sequence) {
  reader_of(subscriber)->sync = sequence;
}

static const weir_subscriber_type READER = {on_notify, on_detached, on_sync};

/* --- a producer ------------------------------------------------------------------------------- */

typedef struct world {
  weir_hub hub;
  weir_producer *producer;
} world;

static void set_up(world *w, weir_test_alloc *memory, const weir_producer_config *config) {
  weir_hub_init(&w->hub);
  w->hub.now = 50 * WEIR_SECOND;
  w->hub.time = 1234567;
  w->producer = weir_producer_new(&memory->alloc, &w->hub, config);
  assert_non_null(w->producer);
  w->producer->online = true;
}

static void attach(world *w, reader *r, uint64_t sequence) {
  *r = (reader){.subscriber = {.type = &READER}};
  assert_ok(weir_producer_attach(w->producer, &r->subscriber, sequence));
}

static weir_status send_number(world *w, uint32_t n) {
  unsigned char payload[4];
  weir_put_u32(payload, n);
  return weir_producer_send(w->producer, payload, sizeof payload);
}

/* Takes the next message, which must be number `n` with that sequence. */
static void expect(reader *r, uint32_t n, uint64_t sequence) {
  const weir_entry *entry = weir_subscriber_peek(&r->subscriber, 0);
  assert_non_null(entry);
  weir_data data;
  assert_int_equal(weir_get_u32(entry->frame), entry->len - 4);
  assert_ok(weir_read_data(entry->frame + 4, entry->len - 4, &data));
  assert_int_equal(data.sequence, sequence);
  assert_int_equal(data.payload.len, 4);
  assert_int_equal(weir_get_u32(data.payload.ptr), n);
  weir_subscriber_advance(&r->subscriber, 1);
}

static uint32_t events(world *w) {
  uint32_t bits = 0;
  (void)weir_hub_next(&w->hub, &bits);
  return bits;
}

#define CONFIG(...) (&(weir_producer_config){.epoch = 9, __VA_ARGS__})

/* --- messages --------------------------------------------------------------------------------- */

static void a_message_is_stored_as_the_frame_that_goes_on_the_wire(void **state) {
  world w;
  reader r;
  set_up(&w, *state, CONFIG(.lag = WEIR_LAG_BLOCK));
  attach(&w, &r, UINT64_MAX);
  assert_ok(weir_producer_send(w.producer, "hello", 5));
  const weir_entry *entry = weir_subscriber_peek(&r.subscriber, 0);
  assert_int_equal(entry->len, WEIR_DATA_HEADER + 5);
  unsigned char frame[WEIR_DATA_HEADER + 5];
  weir_write_data_header(frame, 9, 0, 1234567, 5);
  memcpy(frame + WEIR_DATA_HEADER, "hello", 5);
  assert_memory_equal(entry->frame, frame, sizeof frame);
  weir_producer_free(w.producer);
}

static void every_subscriber_reads_every_message_at_its_own_pace(void **state) {
  enum {
    READERS = 7,
    COUNT = 1000
  };
  world w;
  reader readers[READERS];
  set_up(&w, *state, CONFIG(.lag = WEIR_LAG_BLOCK));
  uint32_t next[READERS] = {0};
  uint64_t random = 42;
  for (int i = 0; i < READERS; i++)
    attach(&w, &readers[i], UINT64_MAX);
  for (uint32_t n = 0; n < COUNT; n++) {
    assert_ok(send_number(&w, n));
    reader *r = &readers[weir_test_random(&random) % READERS];
    uint32_t *at = &next[r - readers];
    for (uint64_t steps = weir_test_random(&random) % 20; steps > 0 && *at <= n; steps--, ++*at)
      expect(r, *at, *at);
    uint32_t slowest = UINT32_MAX;
    for (int i = 0; i < READERS; i++)
      if (next[i] < slowest) slowest = next[i];
    assert_int_equal(w.producer->tail, slowest);
    assert_int_equal(w.producer->bytes, (n + 1 - slowest) * (WEIR_DATA_HEADER + 4));
  }
  for (int i = 0; i < READERS; i++) {
    while (next[i] < COUNT) {
      expect(&readers[i], next[i], next[i]);
      next[i]++;
    }
    assert_null(weir_subscriber_peek(&readers[i].subscriber, 0));
    assert_int_equal(readers[i].subscriber.messages, COUNT);
  }
  assert_int_equal(w.producer->bytes, 0);
  weir_producer_free(w.producer);
}

static void several_messages_may_be_taken_at_once(void **state) {
  world w;
  reader r;
  set_up(&w, *state, CONFIG(.lag = WEIR_LAG_BLOCK));
  attach(&w, &r, UINT64_MAX);
  for (uint32_t n = 0; n < 40; n++)
    assert_ok(send_number(&w, n));
  weir_subscriber_advance(&r.subscriber, 17);
  expect(&r, 17, 17);
  weir_subscriber_advance(&r.subscriber, 22);
  assert_null(weir_subscriber_peek(&r.subscriber, 0));
  assert_int_equal(w.producer->tail, 40);
  weir_producer_free(w.producer);
}

static void a_subscriber_is_notified_once_when_there_is_something_again(void **state) {
  world w;
  reader r;
  set_up(&w, *state, CONFIG(.lag = WEIR_LAG_BLOCK));
  attach(&w, &r, UINT64_MAX);
  for (uint32_t n = 0; n < 5; n++)
    assert_ok(send_number(&w, n));
  assert_int_equal(r.notified, 1);
  for (uint32_t n = 0; n < 5; n++)
    expect(&r, n, n);
  assert_ok(send_number(&w, 5));
  assert_int_equal(r.notified, 2);
  weir_producer_free(w.producer);
}

static void a_message_to_nobody_is_counted_and_has_a_sequence(void **state) {
  weir_test_alloc *memory = *state;
  world w;
  reader r;
  set_up(&w, memory, CONFIG(.lag = WEIR_LAG_BLOCK));
  const size_t blocks = memory->blocks;
  for (uint32_t n = 0; n < 100; n++)
    assert_ok(send_number(&w, n));
  assert_int_equal(memory->blocks, blocks);
  assert_int_equal(w.producer->undelivered, 100);
  assert_int_equal(w.producer->messages, 0);
  attach(&w, &r, UINT64_MAX);
  assert_int_equal(r.subscriber.cursor, 100);
  assert_ok(send_number(&w, 100));
  expect(&r, 100, 100);
  weir_producer_detach(&r.subscriber);
  assert_ok(send_number(&w, 101));
  attach(&w, &r, UINT64_MAX);
  assert_ok(send_number(&w, 102));
  expect(&r, 102, 102);
  weir_producer_free(w.producer);
}

static void sending_says_why_it_cannot(void **state) {
  world w;
  reader r;
  set_up(&w, *state, CONFIG(.max_message = 4));
  attach(&w, &r, UINT64_MAX);
  w.producer->online = false;
  assert_status(send_number(&w, 0), WEIR_E_OFFLINE);
  w.producer->online = true;
  assert_status(weir_producer_send(w.producer, "12345", 5), WEIR_E_LIMIT);
  assert_ok(weir_producer_send(w.producer, NULL, 0));
  weir_producer_close(w.producer, 1, "");
  assert_status(send_number(&w, 0), WEIR_E_CLOSED);
  weir_producer_free(w.producer);
}

/* --- the ring's bounds ------------------------------------------------------------------------ */

static void the_ring_holds_exactly_its_items(void **state) {
  for (uint32_t max = 1; max < 70; max++) {
    world w;
    reader r;
    set_up(&w, *state, CONFIG(.lag = WEIR_LAG_BLOCK, .max_items = max));
    attach(&w, &r, UINT64_MAX);
    uint32_t taken = 0, sent = 0;
    for (int round = 0; round < 5; round++) {
      while (sent - taken < max)
        assert_ok(send_number(&w, sent++));
      assert_status(send_number(&w, sent), WEIR_E_AGAIN);
      for (uint32_t k = 0; k < max / 2 + 1; k++, taken++)
        expect(&r, taken, taken);
    }
    weir_producer_free(w.producer);
  }
}

static void the_ring_takes_messages_while_it_holds_less_than_its_bytes(void **state) {
  world w;
  reader r;
  set_up(&w, *state, CONFIG(.lag = WEIR_LAG_BLOCK, .max_bytes = 36 * 3));
  attach(&w, &r, UINT64_MAX);
  for (uint32_t n = 0; n < 3; n++)
    assert_ok(send_number(&w, n));
  assert_status(send_number(&w, 3), WEIR_E_AGAIN);
  expect(&r, 0, 0);
  static const unsigned char LARGE[5000];
  assert_ok(weir_producer_send(w.producer, LARGE, sizeof LARGE)); /* the last may exceed it */
  assert_status(weir_producer_send(w.producer, "", 0), WEIR_E_AGAIN);
  weir_producer_free(w.producer);
}

static void memory_stays_within_the_bounds_however_long_it_runs(void **state) {
  weir_test_alloc *memory = *state;
  world w;
  reader fast, slow;
  set_up(&w, memory, CONFIG(.lag = WEIR_LAG_BLOCK, .max_items = 64));
  attach(&w, &fast, UINT64_MAX);
  attach(&w, &slow, UINT64_MAX);
  uint32_t sent = 0, slow_at = 0, fast_at = 0;
  for (int i = 0; i < 20000; i++) {
    if (send_number(&w, sent) == WEIR_OK) sent++;
    if (fast_at < sent) {
      expect(&fast, fast_at, fast_at);
      fast_at++;
    }
    if (i % 3 == 0 && slow_at < sent) {
      expect(&slow, slow_at, slow_at);
      slow_at++;
    }
  }
  assert_true(memory->peak < 4 * 65536); /* a few blocks of its slab */
  weir_producer_free(w.producer);
}

static void room_is_told_once_after_a_refusal(void **state) {
  world w;
  reader r;
  set_up(&w, *state, CONFIG(.lag = WEIR_LAG_BLOCK, .max_items = 2));
  attach(&w, &r, UINT64_MAX);
  events(&w);
  assert_ok(send_number(&w, 0));
  assert_ok(send_number(&w, 1));
  expect(&r, 0, 0);
  assert_int_equal(events(&w), 0);
  assert_ok(send_number(&w, 2));
  assert_status(send_number(&w, 3), WEIR_E_AGAIN);
  assert_int_equal(events(&w), 0);
  expect(&r, 1, 1);
  assert_int_equal(events(&w), WEIR_PRODUCER_ROOM);
  expect(&r, 2, 2);
  assert_int_equal(events(&w), 0);
  weir_producer_free(w.producer);
}

static void the_leaving_of_the_slowest_makes_room(void **state) {
  world w;
  reader slow, fast;
  set_up(&w, *state, CONFIG(.lag = WEIR_LAG_BLOCK, .max_items = 4));
  attach(&w, &slow, UINT64_MAX);
  attach(&w, &fast, UINT64_MAX);
  for (uint32_t n = 0; n < 4; n++)
    assert_ok(send_number(&w, n));
  for (uint32_t n = 0; n < 3; n++)
    expect(&fast, n, n);
  assert_status(send_number(&w, 4), WEIR_E_AGAIN);
  events(&w);
  weir_producer_detach(&slow.subscriber);
  weir_producer_detach(&slow.subscriber);
  assert_int_equal(events(&w), WEIR_PRODUCER_ROOM | WEIR_PRODUCER_CHANGED);
  assert_int_equal(w.producer->tail, 3);
  assert_int_equal(slow.detached, 0);
  expect(&fast, 3, 3);
  weir_producer_free(w.producer);
}

static void a_subscriber_may_start_anywhere_in_the_ring(void **state) {
  world w;
  reader keeper, r;
  set_up(&w, *state, CONFIG(.lag = WEIR_LAG_BLOCK));
  for (uint32_t n = 0; n < 5; n++)
    assert_ok(send_number(&w, n));
  attach(&w, &keeper, UINT64_MAX);
  for (uint32_t n = 5; n < 30; n++)
    assert_ok(send_number(&w, n));
  for (uint64_t from = 0; from < 40; from++) {
    attach(&w, &r, from);
    const uint64_t expected = from < 5 || from > 30 ? 30 : from;
    assert_int_equal(r.subscriber.cursor, expected);
    assert_int_equal(r.subscriber.acknowledged, expected);
    for (uint32_t n = (uint32_t)expected; n < 30; n++)
      expect(&r, n, n);
    assert_null(weir_subscriber_peek(&r.subscriber, 0));
    weir_producer_detach(&r.subscriber);
  }
  weir_producer_free(w.producer);
}

/* --- lag -------------------------------------------------------------------------------------- */

static void fill(world *w) {
  while (send_number(w, 0) == WEIR_OK) {
  }
}

static void a_subscriber_that_holds_up_a_full_ring_is_expelled_after_the_grace(void **state) {
  /* A timer is never early, mostly a little late. */
  for (uint64_t late = 0; late <= WEIR_MILLISECOND; late += WEIR_MILLISECOND) {
    world w;
    reader stuck, good;
    set_up(&w, *state, CONFIG(.max_items = 8, .grace = 100 * WEIR_MILLISECOND));
    attach(&w, &stuck, UINT64_MAX);
    attach(&w, &good, UINT64_MAX);
    events(&w);
    for (uint32_t n = 0; n < 8; n++)
      assert_ok(send_number(&w, n));
    for (uint32_t n = 0; n < 8; n++)
      expect(&good, n, n);
    assert_int_equal(w.producer->lag_deadline, 0);
    assert_status(send_number(&w, 8), WEIR_E_AGAIN);
    assert_int_equal(events(&w), WEIR_PRODUCER_LAG);
    assert_int_equal(w.producer->lag_deadline, w.hub.now + 100 * WEIR_MILLISECOND);
    w.hub.now += 100 * WEIR_MILLISECOND - 1;
    weir_producer_evict_slow(w.producer);
    assert_int_equal(stuck.detached, 0);
    w.hub.now = w.producer->lag_deadline + late;
    weir_producer_evict_slow(w.producer);
    assert_int_equal(stuck.detached, 1);
    assert_int_equal(stuck.code, WEIR_CLOSE_TOO_SLOW);
    assert_int_equal(good.detached, 0);
    assert_int_equal(w.producer->evicted, 1);
    assert_int_equal(w.producer->lag_deadline, 0);
    assert_true(events(&w) & WEIR_PRODUCER_ROOM);
    assert_ok(send_number(&w, 8));
    expect(&good, 8, 8);
    weir_producer_free(w.producer);
  }
}

static void a_send_after_the_grace_expels_and_succeeds(void **state) {
  world w;
  reader stuck, good;
  set_up(&w, *state, CONFIG(.max_items = 8, .grace = 100 * WEIR_MILLISECOND));
  attach(&w, &stuck, UINT64_MAX);
  attach(&w, &good, UINT64_MAX);
  fill(&w);
  for (uint32_t n = 0; n < 8; n++)
    expect(&good, 0, n);
  w.hub.now += 101 * WEIR_MILLISECOND;
  assert_ok(send_number(&w, 5));
  assert_int_equal(stuck.detached, 1);
  expect(&good, 5, 8);
  weir_producer_free(w.producer);
}

static void the_only_subscriber_may_be_the_slow_one(void **state) {
  weir_test_alloc *memory = *state;
  world w;
  reader stuck, later;
  set_up(&w, memory, CONFIG(.max_items = 8, .grace = 100 * WEIR_MILLISECOND));
  attach(&w, &stuck, UINT64_MAX);
  fill(&w);
  w.hub.now += 101 * WEIR_MILLISECOND;
  assert_ok(send_number(&w, 5)); /* to nobody, as it turns out */
  assert_int_equal(stuck.detached, 1);
  assert_int_equal(w.producer->undelivered, 1);
  assert_int_equal(w.producer->bytes, 0);
  assert_int_equal(w.producer->head, 9);
  assert_ok(send_number(&w, 6));
  attach(&w, &later, UINT64_MAX);
  assert_ok(send_number(&w, 7));
  expect(&later, 7, 10);
  weir_producer_free(w.producer);
}

static void a_subscriber_that_catches_up_within_the_grace_stays(void **state) {
  world w;
  reader r;
  set_up(&w, *state, CONFIG(.max_items = 8, .grace = 100 * WEIR_MILLISECOND));
  attach(&w, &r, UINT64_MAX);
  uint64_t taken = 0;
  for (int round = 0; round < 10; round++) {
    fill(&w);
    w.hub.now += 60 * WEIR_MILLISECOND;
    for (int i = 0; i < 8; i++)
      expect(&r, 0, taken++);
    if (w.producer->lag_deadline != 0 && w.hub.now >= w.producer->lag_deadline) {
      weir_producer_evict_slow(w.producer);
    }
  }
  assert_int_equal(r.detached, 0);
  weir_producer_free(w.producer);
}

/* Lets `r` take one message every 7 ms from a ring that is always full, for `rounds` times or until
 * it is expelled; returns how often it could. */
static int trickle(world *w, reader *r, reader *other, int rounds) {
  int round = 0;
  while (r->detached == 0 && round < rounds) {
    fill(w);
    if (r->detached != 0) break;
    w->hub.now += 7 * WEIR_MILLISECOND;
    while (other != NULL && weir_subscriber_peek(&other->subscriber, 0) != NULL) {
      weir_subscriber_advance(&other->subscriber, 1);
    }
    expect(r, 0, (uint64_t)round++);
    if (w->producer->lag_deadline != 0 && w->hub.now >= w->producer->lag_deadline) {
      weir_producer_evict_slow(w->producer);
    }
  }
  return round;
}

static void a_subscriber_that_only_trickles_may_do_so_alone(void **state) {
  world w;
  reader r;
  set_up(&w, *state, CONFIG(.max_items = 64, .grace = 100 * WEIR_MILLISECOND));
  attach(&w, &r, UINT64_MAX);
  assert_int_equal(trickle(&w, &r, NULL, 200), 200);
  weir_producer_free(w.producer);
}

static void a_subscriber_that_only_trickles_is_expelled_if_others_wait(void **state) {
  world w;
  reader r, other;
  set_up(&w, *state, CONFIG(.max_items = 64, .grace = 100 * WEIR_MILLISECOND));
  attach(&w, &r, UINT64_MAX);
  attach(&w, &other, UINT64_MAX);
  assert_in_range(trickle(&w, &r, &other, 200), 14, 32);
  assert_int_equal(other.detached, 0);
  weir_producer_free(w.producer);
}

static void the_grace_begins_when_the_ring_is_first_found_held_up(void **state) {
  world w;
  reader stuck, other;
  set_up(&w, *state, CONFIG(.max_items = 8, .grace = 100 * WEIR_MILLISECOND));
  attach(&w, &stuck, UINT64_MAX);
  attach(&w, &other, UINT64_MAX);
  fill(&w); /* full, because nobody had a chance to read: no fault of anybody's */
  weir_subscriber_advance(&stuck.subscriber, 8);
  weir_subscriber_advance(&other.subscriber, 8);
  w.hub.now += 10 * WEIR_MILLISECOND;
  fill(&w);
  const uint64_t held_up = w.hub.now;
  weir_subscriber_advance(&other.subscriber, 8);
  w.hub.now += 90 * WEIR_MILLISECOND; /* when the first mark would be due */
  weir_producer_evict_slow(w.producer);
  assert_int_equal(stuck.detached, 0);
  assert_int_equal(w.producer->lag_deadline, held_up + 100 * WEIR_MILLISECOND);
  w.hub.now = w.producer->lag_deadline;
  weir_producer_evict_slow(w.producer);
  assert_int_equal(stuck.detached, 1);
  assert_int_equal(other.detached, 0);
  weir_producer_free(w.producer);
}

static void an_old_mark_counts_anew_after_a_time_with_room(void **state) {
  world w;
  reader r;
  set_up(&w, *state, CONFIG(.max_items = 8, .grace = 100 * WEIR_MILLISECOND));
  attach(&w, &r, UINT64_MAX);
  fill(&w);
  expect(&r, 0, 0); /* some room, and then nothing happens for long */
  w.hub.now += 5 * WEIR_SECOND;
  weir_producer_evict_slow(w.producer);
  fill(&w);
  assert_int_equal(r.detached, 0);
  w.hub.now += 101 * WEIR_MILLISECOND;
  weir_producer_evict_slow(w.producer);
  assert_int_equal(r.detached, 1);
  weir_producer_free(w.producer);
}

static void those_that_hold_up_nothing_any_more_are_spared(void **state) {
  world w;
  reader first, second;
  set_up(&w, *state, CONFIG(.max_items = 8, .grace = 100 * WEIR_MILLISECOND));
  attach(&w, &first, UINT64_MAX);
  attach(&w, &second, UINT64_MAX);
  fill(&w); /* marks both */
  expect(&second, 0, 0);
  w.hub.now += 101 * WEIR_MILLISECOND;
  weir_producer_evict_slow(w.producer);
  assert_int_equal(first.detached, 1);
  assert_int_equal(second.detached, 0);
  weir_producer_free(w.producer);
}

static void under_block_nobody_is_ever_expelled(void **state) {
  world w;
  reader r;
  set_up(&w, *state, CONFIG(.max_items = 8, .lag = WEIR_LAG_BLOCK));
  attach(&w, &r, UINT64_MAX);
  for (int i = 0; i < 10; i++) {
    fill(&w);
    w.hub.now += 10 * WEIR_SECOND;
    weir_producer_evict_slow(w.producer);
  }
  assert_int_equal(r.detached, 0);
  assert_int_equal(w.producer->lag_deadline, 0);
  for (uint32_t n = 0; n < 8; n++)
    expect(&r, 0, n);
  weir_producer_free(w.producer);
}

static void time_may_start_at_zero(void **state) {
  world w;
  reader r;
  set_up(&w, *state, CONFIG(.max_items = 8, .grace = 100 * WEIR_MILLISECOND));
  attach(&w, &r, UINT64_MAX);
  w.hub.now = 0;
  fill(&w);
  w.hub.now = 102 * WEIR_MILLISECOND;
  weir_producer_evict_slow(w.producer);
  assert_int_equal(r.detached, 1);
  weir_producer_free(w.producer);
}

/* --- acknowledgements ------------------------------------------------------------------------- */

static void sync_asks_those_who_have_not_acknowledged(void **state) {
  world w;
  reader a, b;
  set_up(&w, *state, CONFIG(.lag = WEIR_LAG_BLOCK));
  assert_ok(weir_producer_sync(w.producer)); /* nobody, nothing */
  attach(&w, &a, UINT64_MAX);
  attach(&w, &b, UINT64_MAX);
  for (uint32_t n = 0; n < 3; n++)
    assert_ok(send_number(&w, n));
  weir_subscriber_advance(&b.subscriber, 3);
  weir_subscriber_acknowledge(&b.subscriber, 3);
  events(&w);
  assert_status(weir_producer_sync(w.producer), WEIR_E_AGAIN);
  assert_int_equal(a.sync, 3);
  assert_int_equal(b.sync, 0);
  weir_subscriber_advance(&a.subscriber, 3);
  weir_subscriber_acknowledge(&a.subscriber, 2);
  assert_int_equal(events(&w), 0);
  weir_subscriber_acknowledge(&a.subscriber, 1); /* never back */
  assert_int_equal(a.subscriber.acknowledged, 2);
  weir_subscriber_acknowledge(&a.subscriber, 3);
  assert_int_equal(events(&w), WEIR_PRODUCER_ACKED);
  assert_ok(weir_producer_sync(w.producer));
  weir_producer_free(w.producer);
}

static void a_subscriber_that_leaves_is_not_waited_for(void **state) {
  world w;
  reader r;
  set_up(&w, *state, CONFIG(.lag = WEIR_LAG_BLOCK));
  attach(&w, &r, UINT64_MAX);
  assert_ok(send_number(&w, 0));
  assert_status(weir_producer_sync(w.producer), WEIR_E_AGAIN);
  events(&w);
  weir_producer_detach(&r.subscriber);
  assert_true(events(&w) & WEIR_PRODUCER_ACKED);
  weir_producer_free(w.producer);
}

/* --- life ------------------------------------------------------------------------------------- */

static void closing_detaches_everybody_once(void **state) {
  world w;
  reader a, b, late = {.subscriber = {.type = &READER}};
  set_up(&w, *state, CONFIG(.lag = WEIR_LAG_BLOCK));
  attach(&w, &a, UINT64_MAX);
  attach(&w, &b, UINT64_MAX);
  assert_ok(send_number(&w, 0));
  events(&w);
  weir_producer_close(w.producer, WEIR_CLOSE_NOT_ALLOWED, "no more");
  assert_int_equal(events(&w), WEIR_PRODUCER_ROOM | WEIR_PRODUCER_ACKED | WEIR_PRODUCER_CHANGED);
  assert_int_equal(a.code, WEIR_CLOSE_NOT_ALLOWED);
  assert_int_equal(b.detached, 1);
  assert_int_equal(w.producer->count, 0);
  assert_status(weir_producer_attach(w.producer, &late.subscriber, 0), WEIR_E_CLOSED);
  weir_producer_close(w.producer, 1, "again");
  weir_producer_free(w.producer);
  assert_int_equal(a.detached, 1);
  weir_producer_free(NULL);
}

static void one_subscriber_can_be_detached_by_its_id(void **state) {
  world w;
  reader a, b;
  set_up(&w, *state, CONFIG(.lag = WEIR_LAG_BLOCK));
  attach(&w, &a, UINT64_MAX);
  attach(&w, &b, UINT64_MAX);
  assert_true(a.subscriber.id != b.subscriber.id);
  assert_true(weir_producer_detach_id(w.producer, b.subscriber.id, 5, "you"));
  assert_false(weir_producer_detach_id(w.producer, b.subscriber.id, 5, "you"));
  assert_int_equal(b.code, 5);
  assert_int_equal(a.detached, 0);
  weir_producer_free(w.producer);
}

static void a_producer_that_nobody_reads_owns_little(void **state) {
  weir_test_alloc *memory = *state;
  world w;
  set_up(&w, memory, CONFIG(.lag = WEIR_LAG_BLOCK));
  assert_true(memory->bytes < 512);
  weir_producer_free(w.producer);
}

static void some_life(weir_test_alloc *memory) {
  weir_hub hub;
  weir_hub_init(&hub);
  weir_producer *p = weir_producer_new(&memory->alloc, &hub, CONFIG(.lag = WEIR_LAG_BLOCK));
  if (p == NULL) return;
  p->online = true;
  reader a = {.subscriber = {.type = &READER}}, b = a;
  const bool attached = weir_producer_attach(p, &a.subscriber, UINT64_MAX) == WEIR_OK;
  if (!attached) assert_null(a.subscriber.producer);
  uint64_t sent = 0;
  for (uint32_t n = 0; n < 200; n++) {
    unsigned char payload[4];
    weir_put_u32(payload, (uint32_t)sent);
    const uint64_t head = p->head;
    if (weir_producer_send(p, payload, sizeof payload) == WEIR_OK) {
      sent++;
    } else {
      assert_int_equal(p->head, head); /* a message that was refused left nothing */
    }
  }
  (void)weir_producer_attach(p, &b.subscriber, UINT64_MAX);
  if (attached) {
    for (uint32_t n = 0; n < sent; n++)
      expect(&a, n, n);
  }
  weir_producer_free(p);
}

static void any_allocation_may_fail(void **state) {
  (void)state;
  each_failure(some_life);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      memory_test(a_message_is_stored_as_the_frame_that_goes_on_the_wire),
      memory_test(every_subscriber_reads_every_message_at_its_own_pace),
      memory_test(several_messages_may_be_taken_at_once),
      memory_test(a_subscriber_is_notified_once_when_there_is_something_again),
      memory_test(a_message_to_nobody_is_counted_and_has_a_sequence),
      memory_test(sending_says_why_it_cannot),
      memory_test(the_ring_holds_exactly_its_items),
      memory_test(the_ring_takes_messages_while_it_holds_less_than_its_bytes),
      memory_test(memory_stays_within_the_bounds_however_long_it_runs),
      memory_test(room_is_told_once_after_a_refusal),
      memory_test(the_leaving_of_the_slowest_makes_room),
      memory_test(a_subscriber_may_start_anywhere_in_the_ring),
      memory_test(a_subscriber_that_holds_up_a_full_ring_is_expelled_after_the_grace),
      memory_test(a_send_after_the_grace_expels_and_succeeds),
      memory_test(the_only_subscriber_may_be_the_slow_one),
      memory_test(a_subscriber_that_catches_up_within_the_grace_stays),
      memory_test(a_subscriber_that_only_trickles_may_do_so_alone),
      memory_test(a_subscriber_that_only_trickles_is_expelled_if_others_wait),
      memory_test(the_grace_begins_when_the_ring_is_first_found_held_up),
      memory_test(an_old_mark_counts_anew_after_a_time_with_room),
      memory_test(those_that_hold_up_nothing_any_more_are_spared),
      memory_test(under_block_nobody_is_ever_expelled),
      memory_test(time_may_start_at_zero),
      memory_test(sync_asks_those_who_have_not_acknowledged),
      memory_test(a_subscriber_that_leaves_is_not_waited_for),
      memory_test(closing_detaches_everybody_once),
      memory_test(one_subscriber_can_be_detached_by_its_id),
      memory_test(a_producer_that_nobody_reads_owns_little),
      memory_test(any_allocation_may_fail),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
