#include "core/hub.h"

#include "support.h"

static void sources_come_out_in_the_order_in_which_they_first_notified(void **state) {
  (void)state;
  weir_hub hub;
  weir_source a, b;
  uint32_t bits;
  weir_hub_init(&hub);
  weir_source_init(&a, &hub);
  weir_source_init(&b, &hub);
  assert_null(weir_hub_next(&hub, &bits));
  weir_hub_notify(&b, 1);
  weir_hub_notify(&a, 2);
  weir_hub_notify(&b, 4);
  assert_ptr_equal(weir_hub_next(&hub, &bits), &b);
  assert_int_equal(bits, 5);
  assert_ptr_equal(weir_hub_next(&hub, &bits), &a);
  assert_int_equal(bits, 2);
  assert_null(weir_hub_next(&hub, &bits));
}

static void a_source_that_was_taken_can_notify_again(void **state) {
  (void)state;
  weir_hub hub;
  weir_source a;
  uint32_t bits;
  weir_hub_init(&hub);
  weir_source_init(&a, &hub);
  for (uint32_t i = 1; i < 4; i++) {
    weir_hub_notify(&a, i);
    assert_ptr_equal(weir_hub_next(&hub, &bits), &a);
    assert_int_equal(bits, i);
    assert_null(weir_hub_next(&hub, &bits));
  }
}

static void a_cleared_source_is_forgotten(void **state) {
  (void)state;
  weir_hub hub;
  weir_source a, b;
  uint32_t bits;
  weir_hub_init(&hub);
  weir_source_init(&a, &hub);
  weir_source_init(&b, &hub);
  weir_hub_notify(&a, 1);
  weir_hub_notify(&b, 1);
  weir_source_clear(&a);
  weir_source_clear(&a);
  assert_ptr_equal(weir_hub_next(&hub, &bits), &b);
  assert_null(weir_hub_next(&hub, &bits));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(sources_come_out_in_the_order_in_which_they_first_notified),
      cmocka_unit_test(a_source_that_was_taken_can_notify_again),
      cmocka_unit_test(a_cleared_source_is_forgotten),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
