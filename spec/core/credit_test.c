#include "core/credit.h"

#include "support.h"

static void grant(weir_credit_receiver *receiver, weir_credit_sender *sender) {
  uint64_t bytes, items;
  weir_credit_receiver_grant(receiver, &bytes, &items);
  weir_credit_sender_grant(sender, bytes, items);
}

static void a_new_sender_may_send_nothing(void **state) {
  (void)state;
  weir_credit_sender sender;
  weir_credit_sender_init(&sender);
  assert_false(weir_credit_sender_ok(&sender));
  assert_int_equal(weir_credit_sender_bytes(&sender), 0);
  assert_int_equal(weir_credit_sender_items(&sender), 0);
}

static void a_grant_tells_when_it_opens_the_way(void **state) {
  (void)state;
  weir_credit_sender sender;
  weir_credit_sender_init(&sender);
  assert_false(weir_credit_sender_grant(&sender, 100, 0));
  assert_true(weir_credit_sender_grant(&sender, 100, 1));
  assert_false(weir_credit_sender_grant(&sender, 200, 2));
  assert_true(weir_credit_sender_ok(&sender));
}

static void sending_ends_at_either_limit(void **state) {
  (void)state;
  weir_credit_sender sender;
  weir_credit_sender_init(&sender);
  weir_credit_sender_grant(&sender, 100, 2);
  weir_credit_sender_spend(&sender, 1);
  assert_int_equal(weir_credit_sender_bytes(&sender), 99);
  assert_int_equal(weir_credit_sender_items(&sender), 1);
  weir_credit_sender_spend(&sender, 1);
  assert_false(weir_credit_sender_ok(&sender)); /* items */
  weir_credit_sender_grant(&sender, 100, 10);
  assert_true(weir_credit_sender_ok(&sender));
  weir_credit_sender_spend(&sender, 98);
  assert_false(weir_credit_sender_ok(&sender)); /* bytes */
}

static void one_item_may_overdraw_the_byte_limit(void **state) {
  (void)state;
  weir_credit_sender sender;
  weir_credit_sender_init(&sender);
  weir_credit_sender_grant(&sender, 10, 10);
  weir_credit_sender_spend(&sender, 9);
  assert_true(weir_credit_sender_ok(&sender));
  weir_credit_sender_spend(&sender, 1000);
  assert_false(weir_credit_sender_ok(&sender));
  assert_int_equal(weir_credit_sender_bytes(&sender), 0);
  assert_false(weir_credit_sender_grant(&sender, 1009, 20));
  assert_true(weir_credit_sender_grant(&sender, 1010, 20));
}

static void limits_never_go_back(void **state) {
  (void)state;
  weir_credit_sender sender;
  weir_credit_sender_init(&sender);
  weir_credit_sender_grant(&sender, 100, 10);
  weir_credit_sender_grant(&sender, 50, 11); /* each limit by itself */
  assert_int_equal(weir_credit_sender_bytes(&sender), 100);
  assert_int_equal(weir_credit_sender_items(&sender), 11);
  weir_credit_sender_grant(&sender, 0, 0);
  assert_int_equal(weir_credit_sender_bytes(&sender), 100);
}

static void the_first_grant_is_the_window_and_due_at_once(void **state) {
  (void)state;
  weir_credit_receiver receiver;
  weir_credit_receiver_init(&receiver, 1000, 10);
  assert_status(weir_credit_receiver_receive(&receiver, 0), WEIR_E_PROTOCOL);
  assert_true(weir_credit_receiver_due(&receiver, false));
  uint64_t bytes, items;
  weir_credit_receiver_grant(&receiver, &bytes, &items);
  assert_int_equal(bytes, 1000);
  assert_int_equal(items, 10);
  assert_false(weir_credit_receiver_due(&receiver, false));
  assert_false(weir_credit_receiver_due(&receiver, true));
}

static void receiving_alone_grants_nothing(void **state) {
  (void)state;
  weir_credit_receiver receiver;
  weir_credit_receiver_init(&receiver, 1000, 10);
  uint64_t bytes, items;
  weir_credit_receiver_grant(&receiver, &bytes, &items);
  for (int i = 0; i < 10; i++)
    assert_ok(weir_credit_receiver_receive(&receiver, 10));
  assert_false(weir_credit_receiver_due(&receiver, true));
  assert_status(weir_credit_receiver_receive(&receiver, 10), WEIR_E_PROTOCOL);
  assert_int_equal(receiver.received_items, 10);
  assert_int_equal(receiver.received_bytes, 100);
}

static void a_grant_is_due_when_half_of_a_window_was_consumed(void **state) {
  (void)state;
  weir_credit_receiver receiver;
  weir_credit_receiver_init(&receiver, 1000, 10);
  uint64_t bytes, items;
  weir_credit_receiver_grant(&receiver, &bytes, &items);
  assert_ok(weir_credit_receiver_receive(&receiver, 499));
  assert_ok(weir_credit_receiver_receive(&receiver, 1));
  assert_ok(weir_credit_receiver_consume(&receiver, 499));
  assert_false(weir_credit_receiver_due(&receiver, false));
  assert_true(weir_credit_receiver_due(&receiver, true));
  assert_ok(weir_credit_receiver_consume(&receiver, 1));
  assert_true(weir_credit_receiver_due(&receiver, false)); /* of the bytes */
  weir_credit_receiver_grant(&receiver, &bytes, &items);
  assert_int_equal(bytes, 1500);
  assert_int_equal(items, 12);
  for (int i = 0; i < 5; i++) {
    assert_false(weir_credit_receiver_due(&receiver, false));
    assert_ok(weir_credit_receiver_receive(&receiver, 1));
    assert_ok(weir_credit_receiver_consume(&receiver, 1));
  }
  assert_true(weir_credit_receiver_due(&receiver, false)); /* of the items */
}

static void the_receiver_allows_the_same_overdraft(void **state) {
  (void)state;
  weir_credit_receiver receiver;
  weir_credit_receiver_init(&receiver, 10, 10);
  uint64_t bytes, items;
  weir_credit_receiver_grant(&receiver, &bytes, &items);
  assert_ok(weir_credit_receiver_receive(&receiver, 5000));
  assert_status(weir_credit_receiver_receive(&receiver, 1), WEIR_E_PROTOCOL);
  assert_ok(weir_credit_receiver_consume(&receiver, 5000));
  assert_true(weir_credit_receiver_due(&receiver, false));
  weir_credit_receiver_grant(&receiver, &bytes, &items);
  assert_int_equal(bytes, 5010);
}

static void more_cannot_be_consumed_than_was_received(void **state) {
  (void)state;
  weir_credit_receiver receiver;
  weir_credit_receiver_init(&receiver, 100, 10);
  assert_status(weir_credit_receiver_consume(&receiver, 0), WEIR_E_INVALID);
  uint64_t bytes, items;
  weir_credit_receiver_grant(&receiver, &bytes, &items);
  assert_ok(weir_credit_receiver_receive(&receiver, 5));
  assert_status(weir_credit_receiver_consume(&receiver, 6), WEIR_E_INVALID);
  assert_ok(weir_credit_receiver_consume(&receiver, 5));
  assert_status(weir_credit_receiver_consume(&receiver, 0), WEIR_E_INVALID);
}

static void a_window_without_end_is_never_used_up(void **state) {
  (void)state;
  weir_credit_sender sender;
  weir_credit_receiver receiver;
  weir_credit_sender_init(&sender);
  weir_credit_receiver_init(&receiver, UINT64_MAX, UINT64_MAX);
  grant(&receiver, &sender);
  for (int i = 0; i < 100; i++) {
    assert_true(weir_credit_sender_ok(&sender));
    weir_credit_sender_spend(&sender, UINT64_C(1) << 40);
    assert_ok(weir_credit_receiver_receive(&receiver, UINT64_C(1) << 40));
    assert_ok(weir_credit_receiver_consume(&receiver, UINT64_C(1) << 40));
    assert_false(weir_credit_receiver_due(&receiver, true));
  }
}

static void sums_saturate(void **state) {
  (void)state;
  weir_credit_sender sender;
  weir_credit_sender_init(&sender);
  weir_credit_sender_grant(&sender, UINT64_MAX, 10);
  weir_credit_sender_spend(&sender, UINT64_MAX - 1);
  weir_credit_sender_spend(&sender, 1000);
  assert_int_equal(sender.used_bytes, UINT64_MAX);
  assert_false(weir_credit_sender_ok(&sender));
}

static void a_window_of_nothing_grants_nothing(void **state) {
  (void)state;
  weir_credit_receiver receiver;
  weir_credit_receiver_init(&receiver, 0, 0);
  assert_false(weir_credit_receiver_due(&receiver, false));
  assert_false(weir_credit_receiver_due(&receiver, true));
}

static void two_windows_of_any_size_never_deadlock_nor_break_the_rule(void **state) {
  (void)state;
  uint64_t seed = 1;
  for (int round = 0; round < 300; round++) {
    uint64_t window_bytes = 1 + weir_test_random(&seed) % 64;
    uint64_t window_items = 1 + weir_test_random(&seed) % 8;
    weir_credit_sender sender;
    weir_credit_receiver receiver;
    weir_credit_sender_init(&sender);
    weir_credit_receiver_init(&receiver, window_bytes, window_items);
    uint64_t flight[16];
    size_t first = 0, last = 0;
    for (int sent = 0; sent < 200;) {
      if (weir_credit_receiver_due(&receiver, false)) grant(&receiver, &sender);
      if (weir_credit_sender_ok(&sender) && weir_test_random(&seed) % 3 != 0) {
        uint64_t bytes = weir_test_random(&seed) % 100;
        weir_credit_sender_spend(&sender, bytes);
        assert_ok(weir_credit_receiver_receive(&receiver, bytes));
        flight[last++ % 16] = bytes;
        sent++;
      } else if (first < last) {
        assert_ok(weir_credit_receiver_consume(&receiver, flight[first++ % 16]));
      } else {
        assert_true(weir_credit_sender_ok(&sender));
      }
      assert_true(last - first <= window_items);
      assert_true(receiver.received_bytes - receiver.consumed_bytes < window_bytes + 100);
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_new_sender_may_send_nothing),
      cmocka_unit_test(a_grant_tells_when_it_opens_the_way),
      cmocka_unit_test(sending_ends_at_either_limit),
      cmocka_unit_test(one_item_may_overdraw_the_byte_limit),
      cmocka_unit_test(limits_never_go_back),
      cmocka_unit_test(the_first_grant_is_the_window_and_due_at_once),
      cmocka_unit_test(receiving_alone_grants_nothing),
      cmocka_unit_test(a_grant_is_due_when_half_of_a_window_was_consumed),
      cmocka_unit_test(the_receiver_allows_the_same_overdraft),
      cmocka_unit_test(more_cannot_be_consumed_than_was_received),
      cmocka_unit_test(a_window_without_end_is_never_used_up),
      cmocka_unit_test(sums_saturate),
      cmocka_unit_test(a_window_of_nothing_grants_nothing),
      cmocka_unit_test(two_windows_of_any_size_never_deadlock_nor_break_the_rule),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
