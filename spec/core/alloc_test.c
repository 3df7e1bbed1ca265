#include "core/alloc.h"

#include "support.h"

static void null_means_the_c_library(void **state) {
  (void)state;
  char *ptr = weir_malloc(NULL, 10);
  assert_non_null(ptr);
  memset(ptr, 1, 10);
  ptr = weir_resize_array(NULL, ptr, 5, 8);
  assert_non_null(ptr);
  assert_int_equal(ptr[9], 1);
  weir_free(NULL, ptr);
}

static void a_given_allocator_is_used_for_everything(void **state) {
  (void)state;
  weir_test_alloc memory;
  weir_test_alloc_init(&memory);
  assert_ptr_equal(weir_alloc_or_default(&memory.alloc), &memory.alloc);
  char *ptr = weir_malloc(&memory.alloc, 10);
  assert_int_equal(memory.bytes, 10);
  ptr = weir_resize_array(&memory.alloc, ptr, 5, 8);
  assert_int_equal(memory.bytes, 40);
  assert_int_equal(memory.blocks, 1);
  weir_free(&memory.alloc, ptr);
  assert_no_leak(&memory);
}

static void calloc_gives_zeroes(void **state) {
  (void)state;
  weir_test_alloc memory; /* fills blocks with garbage */
  weir_test_alloc_init(&memory);
  unsigned char *ptr = weir_calloc(&memory.alloc, 7, 3);
  for (int i = 0; i < 21; i++)
    assert_int_equal(ptr[i], 0);
  weir_free(&memory.alloc, ptr);
  assert_no_leak(&memory);
}

static void a_product_that_overflows_is_refused_without_asking(void **state) {
  (void)state;
  weir_test_alloc memory;
  weir_test_alloc_init(&memory);
  assert_null(weir_calloc(&memory.alloc, SIZE_MAX / 2 + 1, 2));
  assert_null(weir_calloc(&memory.alloc, SIZE_MAX, SIZE_MAX));
  char *ptr = weir_malloc(&memory.alloc, 1);
  assert_null(weir_resize_array(&memory.alloc, ptr, SIZE_MAX / 8, 9));
  assert_int_equal(memory.calls, 1);
  weir_free(&memory.alloc, ptr);
  assert_no_leak(&memory);
}

static void a_product_of_zero_does_not_free_the_block(void **state) {
  (void)state;
  weir_test_alloc memory;
  weir_test_alloc_init(&memory);
  char *ptr = weir_malloc(&memory.alloc, 1);
  assert_null(weir_resize_array(&memory.alloc, ptr, 0, 8));
  assert_int_equal(memory.blocks, 1);
  weir_free(&memory.alloc, ptr);
}

static void a_refused_resize_keeps_the_old_block(void **state) {
  (void)state;
  weir_test_alloc memory;
  weir_test_alloc_init(&memory);
  memory.fail_at = 2;
  char *ptr = weir_malloc(&memory.alloc, 4);
  memcpy(ptr, "abc", 4);
  assert_null(weir_resize_array(&memory.alloc, ptr, 100, 1));
  assert_string_equal(ptr, "abc");
  weir_free(&memory.alloc, ptr);
  assert_no_leak(&memory);
}

static void freeing_null_does_nothing(void **state) {
  (void)state;
  weir_free(NULL, NULL);
}

static void every_status_has_a_name_and_a_text_of_its_own(void **state) {
  (void)state;
  for (int a = WEIR_OK; a >= WEIR_E_OFFLINE; a--) {
    assert_string_not_equal(weir_status_name((weir_status)a), "unknown");
    for (int b = WEIR_OK; b > a; b--) {
      assert_string_not_equal(weir_status_name((weir_status)a), weir_status_name((weir_status)b));
      assert_string_not_equal(weir_status_text((weir_status)a), weir_status_text((weir_status)b));
    }
  }
  assert_string_equal(weir_status_name(WEIR_OK), "ok");
  assert_string_equal(weir_status_name(WEIR_E_OFFLINE), "offline");
}

static void a_number_that_is_no_status_is_unknown(void **state) {
  (void)state;
  assert_string_equal(weir_status_name((weir_status)1), "unknown");
  assert_string_equal(weir_status_name((weir_status)-1000), "unknown");
  assert_string_equal(weir_status_text((weir_status)INT32_MIN), "unknown status");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(null_means_the_c_library),
      cmocka_unit_test(a_given_allocator_is_used_for_everything),
      cmocka_unit_test(calloc_gives_zeroes),
      cmocka_unit_test(a_product_that_overflows_is_refused_without_asking),
      cmocka_unit_test(a_product_of_zero_does_not_free_the_block),
      cmocka_unit_test(a_refused_resize_keeps_the_old_block),
      cmocka_unit_test(freeing_null_does_nothing),
      cmocka_unit_test(every_status_has_a_name_and_a_text_of_its_own),
      cmocka_unit_test(a_number_that_is_no_status_is_unknown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
