#include "core/timers.h"

#include "support.h"

static uint64_t add(weir_timers *timers, uint64_t deadline, uint64_t token) {
  uint64_t id = 0;
  assert_ok(weir_timers_add(timers, deadline, token, &id));
  assert_in_range(id, 1, (UINT64_C(1) << 53) - 1);
  return id;
}

static void assert_expires(weir_timers *timers, uint64_t now, uint64_t expected) {
  uint64_t token = 0;
  assert_true(weir_timers_expired(timers, now, NULL, &token));
  assert_int_equal(token, expected);
}

static void no_timers_have_no_deadline_and_no_memory(void **state) {
  weir_test_alloc *memory = *state;
  weir_timers timers;
  weir_timers_init(&timers, &memory->alloc);
  assert_true(weir_timers_next(&timers) == WEIR_NEVER);
  assert_false(weir_timers_expired(&timers, WEIR_NEVER, NULL, NULL));
  assert_false(weir_timers_cancel(&timers, 0, NULL));
  assert_false(weir_timers_cancel(&timers, 1, NULL));
  assert_int_equal(memory->calls, 0);
}

static void timers_expire_in_the_order_of_their_deadlines(void **state) {
  weir_test_alloc *memory = *state;
  weir_timers timers;
  weir_timers_init(&timers, &memory->alloc);
  add(&timers, 30, 3);
  add(&timers, 10, 1);
  add(&timers, 20, 2);
  assert_int_equal(weir_timers_next(&timers), 10);
  assert_false(weir_timers_expired(&timers, 9, NULL, NULL));
  assert_expires(&timers, 10, 1);
  assert_int_equal(weir_timers_next(&timers), 20);
  assert_expires(&timers, 100, 2);
  assert_expires(&timers, 100, 3);
  assert_false(weir_timers_expired(&timers, 100, NULL, NULL));
  weir_timers_free(&timers);
}

static void equal_deadlines_expire_in_the_order_of_adding(void **state) {
  weir_test_alloc *memory = *state;
  weir_timers timers;
  weir_timers_init(&timers, &memory->alloc);
  for (uint64_t i = 0; i < 100; i++)
    add(&timers, 5, i);
  for (uint64_t i = 0; i < 100; i++) {
    assert_expires(&timers, 5, i);
    add(&timers, 5, 100 + i); /* also when slots are used again */
  }
  for (uint64_t i = 100; i < 200; i++)
    assert_expires(&timers, 5, i);
  weir_timers_free(&timers);
}

static void an_expired_timer_tells_its_id(void **state) {
  weir_test_alloc *memory = *state;
  weir_timers timers;
  weir_timers_init(&timers, &memory->alloc);
  uint64_t id = add(&timers, 1, 0), expired = 0;
  assert_true(weir_timers_expired(&timers, 1, &expired, NULL));
  assert_int_equal(expired, id);
  assert_false(weir_timers_cancel(&timers, id, NULL));
  weir_timers_free(&timers);
}

static void a_cancelled_timer_does_not_expire(void **state) {
  weir_test_alloc *memory = *state;
  weir_timers timers;
  weir_timers_init(&timers, &memory->alloc);
  uint64_t first = add(&timers, 1, 11), token = 0;
  add(&timers, 2, 22);
  assert_true(weir_timers_cancel(&timers, first, &token));
  assert_int_equal(token, 11);
  assert_false(weir_timers_cancel(&timers, first, &token));
  assert_int_equal(weir_timers_count(&timers), 1);
  assert_int_equal(weir_timers_next(&timers), 2);
  assert_expires(&timers, 2, 22);
  weir_timers_free(&timers);
}

static void an_old_id_does_not_cancel_the_timer_in_its_place(void **state) {
  weir_test_alloc *memory = *state;
  weir_timers timers;
  weir_timers_init(&timers, &memory->alloc);
  uint64_t old = add(&timers, 1, 1);
  weir_timers_cancel(&timers, old, NULL);
  uint64_t young = add(&timers, 1, 2);
  assert_int_not_equal(old, young);
  assert_false(weir_timers_cancel(&timers, old, NULL));
  weir_timers_clear(&timers);
  uint64_t youngest = add(&timers, 1, 3);
  assert_false(weir_timers_cancel(&timers, young, NULL));
  assert_true(weir_timers_cancel(&timers, youngest, NULL));
  weir_timers_free(&timers);
}

static void made_up_ids_are_unknown(void **state) {
  weir_test_alloc *memory = *state;
  weir_timers timers;
  weir_timers_init(&timers, &memory->alloc);
  uint64_t id = add(&timers, 1, 1);
  assert_false(weir_timers_cancel(&timers, 0, NULL));
  assert_false(weir_timers_cancel(&timers, UINT64_MAX, NULL));
  assert_false(weir_timers_cancel(&timers, id + 1, NULL));
  assert_false(weir_timers_cancel(&timers, id | UINT64_C(1) << 60, NULL));
  assert_int_equal(weir_timers_count(&timers), 1);
  weir_timers_free(&timers);
}

static void never_does_not_come(void **state) {
  weir_test_alloc *memory = *state;
  weir_timers timers;
  weir_timers_init(&timers, &memory->alloc);
  uint64_t id = add(&timers, WEIR_NEVER, 1);
  assert_true(weir_timers_next(&timers) == WEIR_NEVER);
  assert_false(weir_timers_expired(&timers, WEIR_NEVER, NULL, NULL));
  assert_true(weir_timers_cancel(&timers, id, NULL));
  weir_timers_free(&timers);
}

static void many_timers_cost_little_and_give_it_back(void **state) {
  weir_test_alloc *memory = *state;
  weir_timers timers;
  weir_timers_init(&timers, &memory->alloc);
  for (uint64_t i = 0; i < 65536; i++)
    add(&timers, i * 7919 % 65536, i);
  assert_in_range(memory->bytes, 1, 65536 * 48);
  for (uint64_t i = 0; i < 65536; i++) {
    assert_int_equal(weir_timers_next(&timers), i);
    assert_true(weir_timers_expired(&timers, i, NULL, NULL));
  }
  assert_int_equal(memory->blocks, 0);
}

/* Random adds, cancels and expiries beside a plain list that is searched from end to end. */
static void any_sequence_gives_what_a_plain_list_would(void **state) {
  weir_test_alloc *memory = *state;
  struct {
    uint64_t deadline, id;
  } list[400]; /* index is the token and the order of adding; id 0: gone */
  weir_timers timers;
  weir_timers_init(&timers, &memory->alloc);
  uint64_t seed = 99;
  for (int round = 0; round < 200; round++) {
    size_t added = 0;
    for (int step = 0; step < 800; step++) {
      uint64_t dice = weir_test_random(&seed) % 8;
      if (dice < 4 && added < 400) {
        list[added].deadline = weir_test_random(&seed) % 50;
        list[added].id = add(&timers, list[added].deadline, added);
        added++;
      } else if (dice < 6 && added > 0) {
        size_t i = weir_test_random(&seed) % added;
        assert_int_equal(weir_timers_cancel(&timers, list[i].id, NULL), list[i].id != 0);
        list[i].id = 0;
      } else {
        size_t first = added;
        for (size_t i = 0; i < added; i++) {
          if (list[i].id == 0) continue;
          if (first == added || list[i].deadline < list[first].deadline) first = i;
        }
        uint64_t deadline = first < added ? list[first].deadline : WEIR_NEVER;
        assert_int_equal(weir_timers_next(&timers), deadline);
        uint64_t now = weir_test_random(&seed) % 50;
        if (deadline <= now) {
          assert_expires(&timers, now, first);
          list[first].id = 0;
        } else {
          assert_false(weir_timers_expired(&timers, now, NULL, NULL));
        }
      }
    }
    weir_timers_clear(&timers);
  }
}

static void add_and_expire(weir_test_alloc *memory) {
  weir_timers timers;
  weir_timers_init(&timers, &memory->alloc);
  uint64_t in = 0, out = 0;
  for (int i = 0; i < 300; i++) {
    uint64_t id;
    size_t count = weir_timers_count(&timers);
    weir_status status = weir_timers_add(&timers, in, in, &id);
    if (status == WEIR_OK) {
      in++;
    } else {
      assert_status(status, WEIR_E_NOMEM);
      assert_int_equal(weir_timers_count(&timers), count);
    }
  }
  while (out < in)
    assert_expires(&timers, 1000, out++);
  weir_timers_free(&timers);
}

static void out_of_memory_keeps_the_timers_that_are_there(void **state) {
  (void)state;
  each_failure(add_and_expire);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      memory_test(no_timers_have_no_deadline_and_no_memory),
      memory_test(timers_expire_in_the_order_of_their_deadlines),
      memory_test(equal_deadlines_expire_in_the_order_of_adding),
      memory_test(an_expired_timer_tells_its_id),
      memory_test(a_cancelled_timer_does_not_expire),
      memory_test(an_old_id_does_not_cancel_the_timer_in_its_place),
      memory_test(made_up_ids_are_unknown),
      memory_test(never_does_not_come),
      memory_test(many_timers_cost_little_and_give_it_back),
      memory_test(any_sequence_gives_what_a_plain_list_would),
      cmocka_unit_test(out_of_memory_keeps_the_timers_that_are_there),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
