#include "core/durable/retry.h"

#include <math.h>

#include "support.h"

#define MOST UINT64_MAX /* the random bits that give the longest delay */

static weir_retry_policy policy_of(uint64_t initial, double multiplier, uint64_t max) {
  weir_retry_policy policy;
  weir_retry_policy_default(&policy);
  policy.initial = initial;
  policy.multiplier = multiplier;
  policy.max = max;
  return policy;
}

/* The longest delay that the next failure could have had. */
static uint64_t longest(weir_retry *retry) {
  uint64_t at;
  assert_ok(weir_retry_next(retry, 1000, MOST, UINT64_MAX, &at));
  return at - 1000;
}

static void the_defaults_grow_from_a_tenth_of_a_second_to_a_minute(void **state) {
  (void)state;
  weir_retry_policy policy;
  weir_retry retry;
  weir_retry_policy_default(&policy);
  assert_ok(weir_retry_policy_check(&policy, NULL));
  weir_retry_init(&retry, &policy);
  assert_in_range(longest(&retry), 99999999, 100000000);
  assert_in_range(longest(&retry), 129999999, 130000000);
  for (int i = 0; i < 100; i++)
    longest(&retry);
  assert_in_range(longest(&retry), 59999999000, 60000000000);
}

static void jitter_is_full_from_nothing_to_the_ceiling(void **state) {
  (void)state;
  weir_retry_policy policy = policy_of(1000000, 1, 1000000);
  weir_retry retry;
  weir_retry_init(&retry, &policy);
  uint64_t seed = 7, at, low = 0, high = 0;
  assert_ok(weir_retry_next(&retry, 5, 0, UINT64_MAX, &at));
  assert_int_equal(at, 5);
  for (int i = 0; i < 1000; i++) {
    assert_ok(weir_retry_next(&retry, 0, weir_test_random(&seed), UINT64_MAX, &at));
    assert_true(at < 1000000);
    low += at < 250000;
    high += at >= 750000;
  }
  assert_in_range(low, 180, 320);
  assert_in_range(high, 180, 320);
}

static void what_the_server_asks_for_is_a_floor(void **state) {
  (void)state;
  weir_retry_policy policy = policy_of(WEIR_SECOND, 1, WEIR_SECOND);
  weir_retry retry;
  uint64_t at;
  weir_retry_init(&retry, &policy);
  assert_ok(weir_retry_next(&retry, 10, MOST, 7, &at));
  assert_true(at == 10 + 7 * WEIR_SECOND);
  assert_ok(weir_retry_next(&retry, 10, MOST, 0, &at));
  assert_true(at > 10 + WEIR_SECOND / 2); /* a floor below the delay changes nothing */
}

static void a_floor_is_obeyed_up_to_a_limit(void **state) {
  (void)state;
  weir_retry_policy policy = policy_of(1, 1, 1);
  weir_retry retry;
  uint64_t at;
  weir_retry_init(&retry, &policy);
  assert_ok(weir_retry_next(&retry, 0, 0, 3600, &at));
  assert_true(at == 3600 * WEIR_SECOND);
  assert_ok(weir_retry_next(&retry, 0, 0, 3601, &at));
  assert_true(at == 3600 * WEIR_SECOND);
  assert_ok(weir_retry_next(&retry, 0, 0, UINT64_MAX - 1, &at));
  assert_true(at == 3600 * WEIR_SECOND);
  policy.floor_max = 1500 * WEIR_MILLISECOND;
  assert_ok(weir_retry_next(&retry, 0, 0, 1, &at));
  assert_true(at == WEIR_SECOND);
  assert_ok(weir_retry_next(&retry, 0, 0, 2, &at));
  assert_true(at == 1500 * WEIR_MILLISECOND);
}

static void attempts_are_bounded_until_one_succeeds(void **state) {
  (void)state;
  weir_retry_policy policy = policy_of(100, 2, 1000);
  policy.max_retries = 2;
  weir_retry retry;
  uint64_t at = 77;
  weir_retry_init(&retry, &policy);
  longest(&retry);
  longest(&retry);
  assert_status(weir_retry_next(&retry, 0, 0, UINT64_MAX, &at), WEIR_E_LIMIT);
  assert_int_equal(at, 77);
  assert_int_equal(retry.retries, 2);
  weir_retry_reset(&retry);
  assert_in_range(longest(&retry), 99, 100);
  policy.max_retries = 0;
  weir_retry_reset(&retry);
  assert_status(weir_retry_next(&retry, 0, 0, UINT64_MAX, &at), WEIR_E_LIMIT);
}

static void the_end_of_time_is_not_passed(void **state) {
  (void)state;
  weir_retry_policy policy = policy_of(WEIR_SECOND, 1, WEIR_SECOND);
  weir_retry retry;
  uint64_t at;
  weir_retry_init(&retry, &policy);
  assert_ok(weir_retry_next(&retry, UINT64_MAX - 5, MOST, UINT64_MAX, &at));
  assert_true(at == WEIR_NEVER - 1);
}

static void an_endless_multiplier_goes_straight_to_the_longest_delay(void **state) {
  (void)state;
  weir_retry_policy policy = policy_of(1000, (double)INFINITY, 1000000);
  weir_retry retry;
  weir_retry_init(&retry, &policy);
  longest(&retry);
  assert_in_range(longest(&retry), 999999, 1000000);
}

static void policies_that_make_no_sense_are_refused_by_name(void **state) {
  (void)state;
  const struct {
    weir_retry_policy policy;
    const char *field;
  } cases[] = {
      {policy_of(0, 1, 1), "initial"},
      {policy_of(UINT64_MAX, 1, UINT64_MAX), "initial"},
      {policy_of(2, 1, 1), "max"},
      {policy_of(2, 1, UINT64_MAX), "max"},
      {policy_of(1, 0.99, 1), "multiplier"},
      {policy_of(1, (double)NAN, 1), "multiplier"},
      {policy_of(1, -1, 1), "multiplier"},
      {{.initial = 1, .max = 1, .multiplier = 1, .floor_max = UINT64_MAX}, "floor_max"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const char *field = "none";
    assert_status(weir_retry_policy_check(&cases[i].policy, &field), WEIR_E_INVALID);
    assert_string_equal(field, cases[i].field);
    assert_status(weir_retry_policy_check(&cases[i].policy, NULL), WEIR_E_INVALID);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_defaults_grow_from_a_tenth_of_a_second_to_a_minute),
      cmocka_unit_test(jitter_is_full_from_nothing_to_the_ceiling),
      cmocka_unit_test(what_the_server_asks_for_is_a_floor),
      cmocka_unit_test(a_floor_is_obeyed_up_to_a_limit),
      cmocka_unit_test(attempts_are_bounded_until_one_succeeds),
      cmocka_unit_test(the_end_of_time_is_not_passed),
      cmocka_unit_test(an_endless_multiplier_goes_straight_to_the_longest_delay),
      cmocka_unit_test(policies_that_make_no_sense_are_refused_by_name),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
