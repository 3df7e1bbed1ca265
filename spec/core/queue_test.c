#include "core/queue.h"

#include "support.h"

/* Pushes a slice of `len` bytes with sequence number `seq`; on failure the slice is dropped. */
static weir_status push(weir_queue *queue, weir_test_alloc *memory, size_t len, uint64_t seq) {
  weir_buf *buf = weir_buf_new(&memory->alloc, len);
  if (buf == NULL) return WEIR_E_NOMEM;
  weir_queue_item item = {{buf, buf->data, len}, 7, seq, seq * 10};
  weir_status status = weir_queue_push(queue, &item);
  if (status != WEIR_OK) weir_slice_unref(&item.slice);
  return status;
}

/* Pops, and checks that it is the item with this number. */
static void assert_pop(weir_queue *queue, uint64_t seq) {
  weir_queue_item item = {0};
  assert_ok(weir_queue_pop(queue, &item));
  assert_int_equal(item.seq, seq);
  assert_int_equal(item.epoch, 7);
  assert_int_equal(item.time, seq * 10);
  weir_slice_unref(&item.slice);
}

static void an_empty_queue_gives_nothing_and_owns_nothing(void **state) {
  weir_test_alloc *memory = *state;
  weir_queue queue;
  weir_queue_init(&queue, &memory->alloc, 10, 100);
  weir_queue_item item;
  assert_true(weir_queue_empty(&queue));
  assert_false(weir_queue_full(&queue));
  assert_status(weir_queue_pop(&queue, &item), WEIR_E_AGAIN);
  weir_queue_clear(&queue);
  assert_int_equal(memory->calls, 0);
  assert_null(weir_queue_peek(&queue));
}

static void items_leave_in_the_order_in_which_they_came(void **state) {
  weir_test_alloc *memory = *state;
  weir_queue queue;
  weir_queue_init(&queue, &memory->alloc, 1000, 1000000);
  uint64_t in = 0, out = 0, seed = 5;
  while (in < 3000) { /* wraps around and grows at every possible start */
    uint64_t pushes = weir_test_random(&seed) % 20;
    for (; pushes > 0 && !weir_queue_full(&queue); pushes--, in++) {
      assert_ok(push(&queue, memory, in % 9, in));
    }
    uint64_t pops = weir_test_random(&seed) % 19;
    while (pops-- > 0 && !weir_queue_empty(&queue))
      assert_pop(&queue, out++);
    assert_int_equal(weir_queue_items(&queue), in - out);
  }
  while (out < in)
    assert_pop(&queue, out++);
  assert_int_equal(weir_queue_bytes(&queue), 0);
  weir_queue_free(&queue);
}

static void peek_shows_the_oldest_and_leaves_it(void **state) {
  weir_test_alloc *memory = *state;
  weir_queue queue;
  weir_queue_init(&queue, &memory->alloc, 10, 100);
  push(&queue, memory, 1, 1);
  push(&queue, memory, 2, 2);
  assert_int_equal(weir_queue_peek(&queue)->seq, 1);
  assert_int_equal(weir_queue_peek(&queue)->seq, 1);
  assert_int_equal(weir_queue_items(&queue), 2);
  assert_pop(&queue, 1);
  assert_int_equal(weir_queue_peek(&queue)->seq, 2);
  weir_queue_free(&queue);
}

static void the_bound_of_items_holds(void **state) {
  weir_test_alloc *memory = *state;
  weir_queue queue;
  weir_queue_init(&queue, &memory->alloc, 3, 100);
  for (uint64_t i = 0; i < 3; i++)
    assert_ok(push(&queue, memory, 0, i));
  assert_true(weir_queue_full(&queue));
  assert_status(push(&queue, memory, 0, 3), WEIR_E_AGAIN);
  assert_int_equal(weir_queue_items(&queue), 3);
  assert_pop(&queue, 0);
  assert_ok(push(&queue, memory, 0, 3));
  weir_queue_free(&queue);
}

static void the_last_item_may_exceed_the_bound_of_bytes(void **state) {
  weir_test_alloc *memory = *state;
  weir_queue queue;
  weir_queue_init(&queue, &memory->alloc, 10, 100);
  assert_ok(push(&queue, memory, 99, 1));
  assert_ok(push(&queue, memory, 5000, 2));
  assert_int_equal(weir_queue_bytes(&queue), 5099);
  assert_true(weir_queue_full(&queue));
  assert_status(push(&queue, memory, 0, 3), WEIR_E_AGAIN);
  assert_pop(&queue, 1);
  assert_status(push(&queue, memory, 0, 3), WEIR_E_AGAIN);
  assert_pop(&queue, 2);
  assert_ok(push(&queue, memory, 0, 3));
  weir_queue_free(&queue);
}

static void bounds_of_nothing_let_one_item_through(void **state) {
  weir_test_alloc *memory = *state;
  weir_queue queue;
  weir_queue_init(&queue, &memory->alloc, 0, 0);
  assert_ok(push(&queue, memory, 50, 1));
  assert_status(push(&queue, memory, 50, 2), WEIR_E_AGAIN);
  weir_queue_free(&queue);
}

static void a_refused_item_stays_the_callers(void **state) {
  weir_test_alloc *memory = *state;
  weir_queue queue;
  weir_queue_init(&queue, &memory->alloc, 1, 100);
  push(&queue, memory, 1, 1);
  weir_buf *buf = weir_buf_new(&memory->alloc, 1);
  weir_queue_item item = {{buf, buf->data, 1}, 0, 0, 0};
  assert_status(weir_queue_push(&queue, &item), WEIR_E_AGAIN);
  assert_int_equal(buf->refs, 1);
  weir_buf_unref(buf);
  weir_queue_free(&queue);
}

static void borrowed_slices_pass_through(void **state) {
  weir_test_alloc *memory = *state;
  weir_queue queue;
  weir_queue_init(&queue, &memory->alloc, 10, 100);
  weir_queue_item item = {{NULL, (const unsigned char *)"abc", 3}, 0, 0, 0};
  assert_ok(weir_queue_push(&queue, &item));
  assert_ok(weir_queue_pop(&queue, &item));
  assert_memory_equal(item.slice.ptr, "abc", 3);
  weir_queue_free(&queue);
}

static void a_queue_that_was_large_gives_its_memory_back(void **state) {
  weir_test_alloc *memory = *state;
  weir_queue queue;
  weir_queue_init(&queue, &memory->alloc, 10000, 10000);
  for (uint64_t i = 0; i < 5000; i++)
    assert_ok(push(&queue, memory, 0, i));
  for (uint64_t i = 0; i < 5000; i++)
    assert_pop(&queue, i);
  assert_int_equal(queue.size, 8192);
  for (int i = 0; i < 20; i++) {
    assert_ok(push(&queue, memory, 0, 0));
    assert_pop(&queue, 0);
  }
  assert_int_equal(queue.size, WEIR_QUEUE_KEEP);
  weir_queue_free(&queue);
}

static void a_small_queue_does_not_ask_again_for_memory(void **state) {
  weir_test_alloc *memory = *state;
  weir_queue queue;
  weir_queue_init(&queue, &memory->alloc, 10000, 10000);
  weir_queue_item item = {{NULL, NULL, 0}, 7, 1, 10};
  for (int i = 0; i < WEIR_QUEUE_KEEP; i++)
    assert_ok(weir_queue_push(&queue, &item));
  for (int i = 0; i < WEIR_QUEUE_KEEP; i++)
    assert_pop(&queue, 1);
  size_t calls = memory->calls;
  for (int i = 0; i < 1000; i++) {
    assert_ok(weir_queue_push(&queue, &item));
    assert_pop(&queue, 1);
  }
  assert_int_equal(memory->calls, calls);
  weir_queue_free(&queue);
}

static void clearing_drops_all_and_the_queue_works_on(void **state) {
  weir_test_alloc *memory = *state;
  weir_queue queue;
  weir_queue_init(&queue, &memory->alloc, 100, 1000);
  for (uint64_t i = 0; i < 50; i++)
    assert_ok(push(&queue, memory, 10, i));
  weir_queue_clear(&queue);
  assert_int_equal(memory->blocks, 0);
  assert_true(weir_queue_empty(&queue));
  assert_int_equal(weir_queue_bytes(&queue), 0);
  assert_ok(push(&queue, memory, 10, 1));
  assert_pop(&queue, 1);
  weir_queue_free(&queue);
}

static void fill_and_drain(weir_test_alloc *memory) {
  weir_queue queue;
  weir_queue_init(&queue, &memory->alloc, 1000, 1000000);
  uint64_t in = 0, out = 0;
  for (int i = 0; i < 40; i++) {
    for (int k = 0; k < 5; k++) {
      size_t items = weir_queue_items(&queue);
      weir_status status = push(&queue, memory, 3, in);
      if (status == WEIR_OK) {
        in++;
      } else {
        assert_status(status, WEIR_E_NOMEM);
        assert_int_equal(weir_queue_items(&queue), items);
      }
    }
    for (int k = 0; k < 3 && out < in; k++)
      assert_pop(&queue, out++);
  }
  while (out < in)
    assert_pop(&queue, out++);
  weir_queue_free(&queue);
}

static void out_of_memory_keeps_what_is_queued(void **state) {
  (void)state;
  each_failure(fill_and_drain);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      memory_test(an_empty_queue_gives_nothing_and_owns_nothing),
      memory_test(items_leave_in_the_order_in_which_they_came),
      memory_test(peek_shows_the_oldest_and_leaves_it),
      memory_test(the_bound_of_items_holds),
      memory_test(the_last_item_may_exceed_the_bound_of_bytes),
      memory_test(bounds_of_nothing_let_one_item_through),
      memory_test(a_refused_item_stays_the_callers),
      memory_test(borrowed_slices_pass_through),
      memory_test(a_queue_that_was_large_gives_its_memory_back),
      memory_test(a_small_queue_does_not_ask_again_for_memory),
      memory_test(clearing_drops_all_and_the_queue_works_on),
      cmocka_unit_test(out_of_memory_keeps_what_is_queued),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
