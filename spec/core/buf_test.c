#include "core/buf.h"

#include "support.h"

static void a_buf_lives_until_its_last_reference_goes(void **state) {
  weir_test_alloc *memory = *state;
  weir_buf *buf = weir_buf_copy(&memory->alloc, "hello", 5);
  assert_memory_equal(buf->data, "hello", 5);
  assert_int_equal(buf->size, 5);
  assert_ptr_equal(weir_buf_ref(buf), buf);
  weir_buf_unref(buf);
  assert_int_equal(memory->blocks, 1);
  weir_buf_unref(buf);
  assert_int_equal(memory->blocks, 0);
}

static void null_may_be_referenced_and_unreferenced(void **state) {
  (void)state;
  assert_null(weir_buf_ref(NULL));
  weir_buf_unref(NULL);
}

static void an_empty_buf_is_a_buf(void **state) {
  weir_test_alloc *memory = *state;
  weir_buf *buf = weir_buf_copy(&memory->alloc, NULL, 0);
  assert_non_null(buf);
  assert_int_equal(buf->size, 0);
  weir_buf_unref(buf);
}

static void resizing_keeps_the_bytes(void **state) {
  weir_test_alloc *memory = *state;
  weir_buf *buf = weir_buf_copy(&memory->alloc, "hello", 5);
  buf = weir_buf_resize(buf, 1000);
  assert_int_equal(buf->size, 1000);
  assert_memory_equal(buf->data, "hello", 5);
  buf = weir_buf_resize(buf, 2);
  assert_int_equal(buf->size, 2);
  assert_memory_equal(buf->data, "he", 2);
  weir_buf_unref(buf);
}

static void impossible_sizes_are_refused(void **state) {
  weir_test_alloc *memory = *state;
  assert_null(weir_buf_new(&memory->alloc, SIZE_MAX));
  assert_null(weir_buf_new(&memory->alloc, SIZE_MAX - sizeof(weir_buf) + 1));
  weir_buf *buf = weir_buf_new(&memory->alloc, 1);
  assert_null(weir_buf_resize(buf, SIZE_MAX - 1));
  assert_int_equal(buf->size, 1);
  assert_int_equal(memory->calls, 1);
  weir_buf_unref(buf);
}

static void a_slice_holds_its_buf(void **state) {
  weir_test_alloc *memory = *state;
  weir_buf *buf = weir_buf_copy(&memory->alloc, "hello", 5);
  weir_slice slice = {buf, buf->data + 1, 3};
  weir_slice other = weir_slice_ref(slice);
  weir_slice_unref(&slice);
  assert_null(slice.buf);
  assert_null(slice.ptr);
  assert_int_equal(slice.len, 0);
  assert_memory_equal(other.ptr, "ell", 3);
  weir_slice_unref(&other);
  weir_slice_unref(&other); /* nothing left to drop */
}

static void slices_adjoin_only_in_one_block_and_without_a_gap(void **state) {
  weir_test_alloc *memory = *state;
  weir_buf *buf = weir_buf_new(&memory->alloc, 10);
  weir_slice first = {buf, buf->data, 4};
  weir_slice second = {buf, buf->data + 4, 4};
  weir_slice third = {buf, buf->data + 9, 1};
  weir_slice borrowed = {NULL, buf->data + 4, 4};
  weir_slice before = {NULL, buf->data, 4};
  assert_true(weir_slice_adjoins(&first, &second));
  assert_false(weir_slice_adjoins(&second, &first));
  assert_false(weir_slice_adjoins(&second, &third));
  assert_false(weir_slice_adjoins(&first, &borrowed));
  assert_false(weir_slice_adjoins(&before, &borrowed));
  weir_buf_unref(buf);
}

static weir_slice carve(weir_slab *slab, const char *text) {
  weir_slice slice;
  unsigned char *bytes;
  assert_ok(weir_slab_carve(slab, strlen(text), &slice, &bytes));
  assert_ptr_equal(slice.ptr, bytes);
  memcpy(bytes, text, slice.len);
  return slice;
}

static void neighbours_carved_from_a_slab_adjoin(void **state) {
  weir_test_alloc *memory = *state;
  weir_slab slab;
  weir_slab_init(&slab, &memory->alloc, 64);
  assert_int_equal(memory->blocks, 0);
  weir_slice one = carve(&slab, "one");
  weir_slice none = carve(&slab, "");
  weir_slice two = carve(&slab, "two");
  assert_true(weir_slice_adjoins(&one, &none));
  assert_true(weir_slice_adjoins(&one, &two));
  assert_memory_equal(one.ptr, "onetwo", 6);
  assert_int_equal(memory->blocks, 1);
  weir_slice_unref(&one);
  weir_slice_unref(&none);
  weir_slice_unref(&two);
  weir_slab_reset(&slab);
}

static void slices_outlive_their_slab(void **state) {
  weir_test_alloc *memory = *state;
  weir_slab slab;
  weir_slab_init(&slab, &memory->alloc, 64);
  weir_slice one = carve(&slab, "one");
  weir_slab_reset(&slab);
  weir_slab_reset(&slab);
  assert_memory_equal(one.ptr, "one", 3);
  weir_slice_unref(&one);
}

static void a_slab_goes_on_in_a_new_block_when_one_is_full(void **state) {
  weir_test_alloc *memory = *state;
  weir_slab slab;
  weir_slab_init(&slab, &memory->alloc, 16);
  weir_slice slices[8];
  for (int i = 0; i < 8; i++)
    slices[i] = carve(&slab, "abcd");
  assert_int_equal(memory->blocks, 2);
  assert_true(weir_slice_adjoins(&slices[2], &slices[3]));
  assert_false(weir_slice_adjoins(&slices[3], &slices[4]));
  for (int i = 0; i < 4; i++)
    weir_slice_unref(&slices[i]);
  assert_int_equal(memory->blocks, 1);
  for (int i = 4; i < 8; i++)
    weir_slice_unref(&slices[i]);
  weir_slab_reset(&slab);
}

static void a_block_that_nobody_holds_is_carved_again(void **state) {
  weir_test_alloc *memory = *state;
  weir_slab slab;
  weir_slab_init(&slab, &memory->alloc, 16);
  for (int i = 0; i < 100; i++) {
    weir_slice slice = carve(&slab, "abcd");
    weir_slice_unref(&slice);
  }
  assert_int_equal(memory->calls, 1);
  weir_slab_reset(&slab);
}

static void a_run_too_large_to_waste_a_block_for_gets_its_own(void **state) {
  weir_test_alloc *memory = *state;
  weir_slab slab;
  weir_slab_init(&slab, &memory->alloc, 16);
  weir_slice small = carve(&slab, "abc");
  weir_slice large = carve(&slab, "longer than sixteen bytes");
  weir_slice next = carve(&slab, "def");
  assert_memory_equal(large.ptr, "longer than sixteen bytes", 25);
  assert_int_equal(large.buf->size, 25);
  assert_true(weir_slice_adjoins(&small, &next));
  weir_slice_unref(&small);
  weir_slice_unref(&large);
  weir_slice_unref(&next);
  weir_slab_reset(&slab);
}

static void a_run_over_a_quarter_that_does_not_fit_leaves_the_block_to_smaller_ones(void **state) {
  weir_test_alloc *memory = *state;
  weir_slab slab;
  weir_slab_init(&slab, &memory->alloc, 16);
  weir_slice filler = carve(&slab, "abcd");
  weir_slice small = carve(&slab, "efghijk");
  weir_slice large = carve(&slab, "large!");
  weir_slice next = carve(&slab, "lmno");
  assert_int_equal(large.buf->size, 6);
  assert_true(weir_slice_adjoins(&small, &next));
  weir_slice_unref(&filler);
  weir_slice_unref(&small);
  weir_slice_unref(&large);
  weir_slice_unref(&next);
  weir_slab_reset(&slab);
}

static void bufs_survive_any_failing_allocation(weir_test_alloc *memory) {
  weir_buf *buf = weir_buf_copy(&memory->alloc, "hello", 5);
  if (buf == NULL) return;
  weir_buf *resized = weir_buf_resize(buf, 50);
  if (resized != NULL) buf = resized;
  assert_int_equal(buf->size, resized != NULL ? 50 : 5);
  assert_memory_equal(buf->data, "hello", 5);
  weir_buf_unref(buf);
}

static void slabs_survive_any_failing_allocation(weir_test_alloc *memory) {
  weir_slab slab;
  weir_slab_init(&slab, &memory->alloc, 32);
  weir_slice slices[20];
  size_t count = 0;
  for (size_t i = 0; i < 20; i++) {
    unsigned char *bytes;
    size_t len = i % 5 == 4 ? 40 : 7;
    weir_slab as_it_was = slab;
    if (weir_slab_carve(&slab, len, &slices[count], &bytes) == WEIR_OK) {
      memset(bytes, (int)i, len);
      count++;
    } else {
      assert_memory_equal(&slab, &as_it_was, sizeof slab);
    }
  }
  assert_true(count >= 18);
  while (count > 0)
    weir_slice_unref(&slices[--count]);
  weir_slab_reset(&slab);
}

static void nothing_leaks_or_changes_when_an_allocation_fails(void **state) {
  (void)state;
  each_failure(bufs_survive_any_failing_allocation);
  each_failure(slabs_survive_any_failing_allocation);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      memory_test(a_buf_lives_until_its_last_reference_goes),
      memory_test(null_may_be_referenced_and_unreferenced),
      memory_test(an_empty_buf_is_a_buf),
      memory_test(resizing_keeps_the_bytes),
      memory_test(impossible_sizes_are_refused),
      memory_test(a_slice_holds_its_buf),
      memory_test(slices_adjoin_only_in_one_block_and_without_a_gap),
      memory_test(neighbours_carved_from_a_slab_adjoin),
      memory_test(slices_outlive_their_slab),
      memory_test(a_slab_goes_on_in_a_new_block_when_one_is_full),
      memory_test(a_block_that_nobody_holds_is_carved_again),
      memory_test(a_run_too_large_to_waste_a_block_for_gets_its_own),
      memory_test(a_run_over_a_quarter_that_does_not_fit_leaves_the_block_to_smaller_ones),
      cmocka_unit_test(nothing_leaks_or_changes_when_an_allocation_fails),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
