#include "core/backoff.h"

#include <math.h>

#include "support.h"

#define MIDDLE (UINT64_C(1) << 63) /* the random number that means no jitter */

static weir_backoff with(uint64_t initial, double factor, uint64_t max, double jitter,
                         uint64_t max_elapsed) {
  weir_backoff_config config = {
      .initial = initial,
      .max = max,
      .max_elapsed = max_elapsed,
      .factor = factor,
      .jitter = jitter,
  };
  weir_backoff backoff;
  assert_ok(weir_backoff_init(&backoff, &config));
  return backoff;
}

static uint64_t next(weir_backoff *backoff, uint64_t now, uint64_t random) {
  uint64_t delay = 0;
  assert_ok(weir_backoff_next(backoff, now, random, &delay));
  return delay;
}

static void the_defaults_start_at_half_a_second_and_end_at_a_minute(void **state) {
  (void)state;
  weir_backoff backoff;
  assert_ok(weir_backoff_init(&backoff, NULL));
  assert_int_equal(next(&backoff, 0, MIDDLE), 500 * WEIR_MILLISECOND);
  assert_int_equal(next(&backoff, 0, MIDDLE), 750 * WEIR_MILLISECOND);
  assert_int_equal(next(&backoff, 0, MIDDLE), 1125 * WEIR_MILLISECOND);
  for (int i = 0; i < 20; i++)
    next(&backoff, 0, MIDDLE);
  assert_int_equal(next(&backoff, 0, MIDDLE), 60 * WEIR_SECOND);
  assert_int_equal(next(&backoff, WEIR_NEVER - 1, MIDDLE), 60 * WEIR_SECOND); /* for ever */
}

static void jitter_spreads_evenly_around_the_interval(void **state) {
  (void)state;
  uint64_t seed = 42;
  double sum = 0;
  uint64_t least = UINT64_MAX, most = 0;
  for (int i = 0; i < 10000; i++) {
    weir_backoff backoff = with(1000, 2, 1000, 0.25, 0);
    uint64_t delay = next(&backoff, 0, weir_backoff_random(&seed));
    assert_in_range(delay, 750, 1250);
    if (delay < least) least = delay;
    if (delay > most) most = delay;
    sum += (double)delay;
  }
  assert_in_range(least, 750, 760);
  assert_in_range(most, 1240, 1250);
  assert_in_range((uint64_t)(sum / 10000), 990, 1010);
}

static void the_ends_of_randomness_stay_in_the_range(void **state) {
  (void)state;
  weir_backoff backoff = with(1000, 1, 1000, 1.0, 0);
  assert_int_equal(next(&backoff, 0, 0), 0);
  assert_in_range(next(&backoff, 0, UINT64_MAX), 1999, 2000);
}

static void jitter_does_not_change_how_the_interval_grows(void **state) {
  (void)state;
  weir_backoff backoff = with(1000, 2, 100000, 0.5, 0);
  assert_int_equal(next(&backoff, 0, 0), 500);
  assert_int_equal(next(&backoff, 0, MIDDLE), 2000);
  assert_int_equal(next(&backoff, 0, 0), 2000);
}

static void it_gives_up_when_the_time_is_over_and_stays_so(void **state) {
  (void)state;
  weir_backoff backoff = with(10, 2, 1000, 0, 100);
  uint64_t delay;
  assert_int_equal(next(&backoff, 5000, 0), 10);
  assert_int_equal(next(&backoff, 5099, 0), 1); /* cut to end with the time */
  assert_status(weir_backoff_next(&backoff, 5100, 0, &delay), WEIR_E_TIMEOUT);
  assert_status(weir_backoff_next(&backoff, 9000, 0, &delay), WEIR_E_TIMEOUT);
}

static void the_clock_starts_at_the_first_failure_after_a_success(void **state) {
  (void)state;
  weir_backoff backoff = with(10, 2, 1000, 0, 100);
  assert_int_equal(next(&backoff, 1000000, 0), 10); /* long after it was made */
  assert_int_equal(next(&backoff, 1000050, 0), 20);
  weir_backoff_reset(&backoff);
  assert_int_equal(next(&backoff, 2000000, 0), 10); /* long after the success */
  assert_int_equal(next(&backoff, 2000099, 0), 1);
}

static void a_clock_that_goes_back_does_no_harm(void **state) {
  (void)state;
  weir_backoff backoff = with(10, 1, 1000, 0, 100);
  assert_int_equal(next(&backoff, 5000, 0), 10);
  assert_int_equal(next(&backoff, 1, 0), 10);
}

static void values_out_of_range_are_refused(void **state) {
  (void)state;
  const weir_backoff_config good = weir_backoff_defaults();
  weir_backoff_config bad[8];
  for (int i = 0; i < 8; i++)
    bad[i] = good;
  bad[0].initial = 0;
  bad[1].max = bad[1].initial - 1;
  bad[2].factor = 0.99;
  bad[3].factor = (double)NAN;
  bad[4].jitter = -0.1;
  bad[5].jitter = 1.1;
  bad[6].jitter = (double)NAN;
  bad[7].max = UINT64_MAX;
  weir_backoff backoff;
  assert_ok(weir_backoff_init(&backoff, &good));
  for (int i = 0; i < 8; i++)
    assert_status(weir_backoff_init(&backoff, &bad[i]), WEIR_E_INVALID);
}

static void an_endless_factor_goes_straight_to_the_largest_interval(void **state) {
  (void)state;
  weir_backoff backoff = with(10, (double)INFINITY, 1000, 0, 0);
  assert_int_equal(next(&backoff, 0, 0), 10);
  assert_int_equal(next(&backoff, 0, 0), 1000);
}

static void the_random_numbers_are_those_of_splitmix64(void **state) {
  (void)state;
  uint64_t seed = 1234567; /* the published test values for this seed */
  assert_true(weir_backoff_random(&seed) == UINT64_C(6457827717110365317));
  assert_true(weir_backoff_random(&seed) == UINT64_C(3203168211198807973));
  assert_true(weir_backoff_random(&seed) == UINT64_C(9817491932198370423));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_defaults_start_at_half_a_second_and_end_at_a_minute),
      cmocka_unit_test(jitter_spreads_evenly_around_the_interval),
      cmocka_unit_test(the_ends_of_randomness_stay_in_the_range),
      cmocka_unit_test(jitter_does_not_change_how_the_interval_grows),
      cmocka_unit_test(it_gives_up_when_the_time_is_over_and_stays_so),
      cmocka_unit_test(the_clock_starts_at_the_first_failure_after_a_success),
      cmocka_unit_test(a_clock_that_goes_back_does_no_harm),
      cmocka_unit_test(values_out_of_range_are_refused),
      cmocka_unit_test(an_endless_factor_goes_straight_to_the_largest_interval),
      cmocka_unit_test(the_random_numbers_are_those_of_splitmix64),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
