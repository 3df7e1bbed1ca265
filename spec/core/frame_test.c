#include "core/frame.h"

#include "support.h"

/* What came out of a reader, and how it ended. */
typedef struct outcome {
  weir_status status;
  size_t frames;
  unsigned char payloads[4096]; /* end to end */
  size_t len;
} outcome;

/* Feeds one piece of input, as a block of its own, and collects the frames. */
static void feed(weir_frame_reader *reader, const unsigned char *input, size_t len, outcome *out) {
  unsigned char *piece = weir_test_copy(input, len);
  const unsigned char *data = piece;
  size_t left = len;
  weir_slice frame;
  while ((out->status = weir_frame_reader_next(reader, &data, &left, &frame)) == WEIR_OK) {
    if (frame.len > 0) memcpy(out->payloads + out->len, frame.ptr, frame.len);
    out->len += frame.len;
    out->frames++;
    weir_slice_unref(&frame);
  }
  if (out->status == WEIR_E_AGAIN) assert_int_equal(left, 0);
  free(piece);
}

/* Appends a frame with `len` bytes that depend on `seed`; returns the new length. */
static size_t put_frame(unsigned char *out, size_t at, size_t len, unsigned seed) {
  weir_frame_put_length(out + at, (uint32_t)len);
  for (size_t i = 0; i < len; i++)
    out[at + 4 + i] = (unsigned char)(seed * 31 + i);
  return at + 4 + len;
}

static void the_length_is_four_bytes_most_significant_first(void **state) {
  (void)state;
  unsigned char header[WEIR_FRAME_HEADER];
  weir_frame_put_length(header, 0x01020304);
  assert_memory_equal(header, "\1\2\3\4", 4);
}

static void a_frame_in_one_piece_is_borrowed_from_the_input(void **state) {
  weir_test_alloc *memory = *state;
  weir_frame_reader reader;
  weir_frame_reader_init(&reader, &memory->alloc, 100);
  const unsigned char input[] = "\0\0\0\3abc\0\0\0\2de";
  const unsigned char *data = input;
  size_t len = sizeof input - 1;
  weir_slice frame;
  assert_ok(weir_frame_reader_next(&reader, &data, &len, &frame));
  assert_null(frame.buf);
  assert_ptr_equal(frame.ptr, input + 4);
  assert_int_equal(frame.len, 3);
  assert_ok(weir_frame_reader_next(&reader, &data, &len, &frame));
  assert_ptr_equal(frame.ptr, input + 11);
  assert_int_equal(frame.len, 2);
  assert_int_equal(len, 0);
  assert_status(weir_frame_reader_next(&reader, &data, &len, &frame), WEIR_E_AGAIN);
  assert_int_equal(memory->calls, 0);
}

static void a_split_header_alone_does_not_cost_a_copy(void **state) {
  weir_test_alloc *memory = *state;
  weir_frame_reader reader;
  weir_frame_reader_init(&reader, &memory->alloc, 100);
  const unsigned char input[] = "\0\0\0\3abc";
  const unsigned char *data = input;
  size_t len = 2;
  weir_slice frame;
  assert_status(weir_frame_reader_next(&reader, &data, &len, &frame), WEIR_E_AGAIN);
  len = 5;
  assert_ok(weir_frame_reader_next(&reader, &data, &len, &frame));
  assert_null(frame.buf);
  assert_ptr_equal(frame.ptr, input + 4);
  assert_int_equal(memory->calls, 0);
}

static void a_frame_in_pieces_is_assembled_and_handed_over(void **state) {
  weir_test_alloc *memory = *state;
  weir_frame_reader reader;
  weir_frame_reader_init(&reader, &memory->alloc, 100);
  const unsigned char input[] = "\0\0\0\6abcdef";
  const unsigned char *data = input;
  weir_slice frame;
  size_t len = 7;
  assert_status(weir_frame_reader_next(&reader, &data, &len, &frame), WEIR_E_AGAIN);
  len = 3;
  assert_ok(weir_frame_reader_next(&reader, &data, &len, &frame));
  assert_non_null(frame.buf);
  weir_frame_reader_free(&reader);
  assert_int_equal(frame.len, 6);
  assert_memory_equal(frame.ptr, "abcdef", 6);
  weir_slice_unref(&frame);
}

static void an_empty_payload_is_a_frame(void **state) {
  weir_test_alloc *memory = *state;
  weir_frame_reader reader;
  weir_frame_reader_init(&reader, &memory->alloc, 0);
  outcome out = {0};
  feed(&reader, (const unsigned char *)"\0\0\0\0\0\0", 6, &out);
  feed(&reader, (const unsigned char *)"\0", 1, &out);
  assert_int_equal(out.frames, 1);
  feed(&reader, (const unsigned char *)"\0", 1, &out);
  assert_int_equal(out.frames, 2);
  assert_int_equal(out.len, 0);
  assert_false(weir_frame_reader_partial(&reader));
}

static void every_way_to_cut_the_input_gives_the_same_frames(void **state) {
  weir_test_alloc *memory = *state;
  unsigned char input[256];
  size_t len = 0;
  const size_t sizes[] = {5, 0, 1, 60, 0, 17};
  for (unsigned i = 0; i < 6; i++)
    len = put_frame(input, len, sizes[i], i);

  outcome whole = {0};
  weir_frame_reader reader;
  weir_frame_reader_init(&reader, &memory->alloc, 60);
  feed(&reader, input, len, &whole);
  assert_int_equal(whole.frames, 6);
  assert_int_equal(whole.len, 83);

  for (size_t first = 0; first <= len; first++) {
    for (size_t second = first; second <= len; second++) {
      outcome out = {0};
      feed(&reader, input, first, &out);
      feed(&reader, input + first, second - first, &out);
      feed(&reader, input + second, len - second, &out);
      assert_status(out.status, WEIR_E_AGAIN);
      assert_int_equal(out.frames, whole.frames);
      assert_int_equal(out.len, whole.len);
      assert_memory_equal(out.payloads, whole.payloads, whole.len);
    }
  }
  outcome bytewise = {0};
  for (size_t i = 0; i < len; i++)
    feed(&reader, input + i, 1, &bytewise);
  assert_memory_equal(bytewise.payloads, whole.payloads, whole.len);
  assert_false(weir_frame_reader_partial(&reader));
}

static void a_length_over_the_maximum_is_refused_at_its_fourth_byte(void **state) {
  weir_test_alloc *memory = *state;
  weir_frame_reader reader;
  weir_frame_reader_init(&reader, &memory->alloc, 10);
  outcome out = {0};
  feed(&reader, (const unsigned char *)"\0\0\0", 3, &out);
  assert_status(out.status, WEIR_E_AGAIN);
  feed(&reader, (const unsigned char *)"\13", 1, &out);
  assert_status(out.status, WEIR_E_LIMIT);
  assert_int_equal(memory->calls, 0);
}

static void a_length_over_the_maximum_is_refused_though_its_payload_is_there(void **state) {
  weir_test_alloc *memory = *state;
  weir_frame_reader reader;
  weir_frame_reader_init(&reader, &memory->alloc, 3);
  outcome out = {0};
  feed(&reader, (const unsigned char *)"\0\0\0\3abc\0\0\0\4abcd", 15, &out);
  assert_status(out.status, WEIR_E_LIMIT);
  assert_int_equal(out.frames, 1);
}

static void a_refused_reader_stays_so_until_it_is_reset(void **state) {
  weir_test_alloc *memory = *state;
  weir_frame_reader reader;
  weir_frame_reader_init(&reader, &memory->alloc, 10);
  outcome out = {0};
  feed(&reader, (const unsigned char *)"\0\0\0\13abc", 7, &out);
  assert_status(out.status, WEIR_E_LIMIT);
  feed(&reader, (const unsigned char *)"\0\0\0\1a", 5, &out);
  assert_status(out.status, WEIR_E_LIMIT);
  assert_int_equal(out.frames, 0);
  weir_frame_reader_reset(&reader);
  feed(&reader, (const unsigned char *)"\0\0\0\1a", 5, &out);
  assert_int_equal(out.frames, 1);
}

static void a_payload_of_exactly_the_maximum_is_legal(void **state) {
  weir_test_alloc *memory = *state;
  weir_frame_reader reader;
  weir_frame_reader_init(&reader, &memory->alloc, 3);
  outcome out = {0};
  feed(&reader, (const unsigned char *)"\0\0\0\3abc\0\0\0\3d", 12, &out);
  feed(&reader, (const unsigned char *)"ef", 2, &out);
  assert_int_equal(out.frames, 2);
  assert_memory_equal(out.payloads, "abcdef", 6);
}

static void an_announced_length_alone_costs_no_memory(void **state) {
  weir_test_alloc *memory = *state;
  weir_frame_reader reader;
  weir_frame_reader_init(&reader, &memory->alloc, SIZE_MAX);
  outcome out = {0};
  feed(&reader, (const unsigned char *)"\xff\xff\xff\xff", 4, &out);
  assert_status(out.status, WEIR_E_AGAIN);
  assert_int_equal(memory->calls, 0);
  feed(&reader, (const unsigned char *)"a", 1, &out);
  assert_in_range(memory->bytes, 1, 4096 + sizeof(weir_buf));
  weir_frame_reader_free(&reader);
}

static void memory_follows_the_bytes_that_came(void **state) {
  weir_test_alloc *memory = *state;
  weir_frame_reader reader;
  weir_frame_reader_init(&reader, &memory->alloc, 100000);
  unsigned char *input = malloc(100004);
  put_frame(input, 0, 100000, 7);
  size_t fed = 4;
  const unsigned char *data = input;
  size_t len = 4;
  weir_slice frame = {0};
  weir_status status = weir_frame_reader_next(&reader, &data, &len, &frame);
  for (; status == WEIR_E_AGAIN && fed < 100004; fed += 100) {
    len = 100;
    status = weir_frame_reader_next(&reader, &data, &len, &frame);
    size_t most = 4 * (fed + 100) > 4096 ? 4 * (fed + 100) : 4096;
    assert_in_range(memory->bytes, 1, most + sizeof(weir_buf));
  }
  assert_ok(status);
  assert_int_equal(frame.len, 100000);
  assert_non_null(frame.buf);
  assert_int_equal(frame.buf != NULL ? frame.buf->size : 0, 100000);
  assert_memory_equal(frame.ptr, input + 4, 100000);
  assert_in_range(memory->calls, 1, 6);
  weir_slice_unref(&frame);
  free(input);
}

static void the_middle_of_a_frame_is_partial(void **state) {
  weir_test_alloc *memory = *state;
  weir_frame_reader reader;
  weir_frame_reader_init(&reader, &memory->alloc, 10);
  outcome out = {0};
  const unsigned char input[] = "\0\0\0\2ab";
  for (size_t i = 0; i < 6; i++) {
    assert_int_equal(weir_frame_reader_partial(&reader), i > 0);
    feed(&reader, input + i, 1, &out);
  }
  assert_false(weir_frame_reader_partial(&reader));
  feed(&reader, input, 5, &out);
  assert_true(weir_frame_reader_partial(&reader));
  weir_frame_reader_reset(&reader);
  assert_false(weir_frame_reader_partial(&reader));
}

static void feed_with_retries(weir_test_alloc *memory) {
  weir_frame_reader reader;
  weir_frame_reader_init(&reader, &memory->alloc, 9000);
  unsigned char *input = malloc(9004);
  put_frame(input, 0, 9000, 3);
  weir_slice frame = {0};
  weir_status status = WEIR_E_AGAIN;
  for (size_t at = 0; at < 9004; at += 2251) {
    const unsigned char *data = input + at;
    size_t len = 2251;
    while (len > 0) {
      status = weir_frame_reader_next(&reader, &data, &len, &frame);
      if (status == WEIR_E_NOMEM) assert_true(len > 0);
    }
  }
  assert_ok(status);
  assert_memory_equal(frame.ptr, input + 4, 9000);
  weir_slice_unref(&frame);
  free(input);
}

static void out_of_memory_loses_nothing_and_the_call_may_be_repeated(void **state) {
  (void)state;
  each_failure(feed_with_retries);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_length_is_four_bytes_most_significant_first),
      memory_test(a_frame_in_one_piece_is_borrowed_from_the_input),
      memory_test(a_split_header_alone_does_not_cost_a_copy),
      memory_test(a_frame_in_pieces_is_assembled_and_handed_over),
      memory_test(an_empty_payload_is_a_frame),
      memory_test(every_way_to_cut_the_input_gives_the_same_frames),
      memory_test(a_length_over_the_maximum_is_refused_at_its_fourth_byte),
      memory_test(a_length_over_the_maximum_is_refused_though_its_payload_is_there),
      memory_test(a_refused_reader_stays_so_until_it_is_reset),
      memory_test(a_payload_of_exactly_the_maximum_is_legal),
      memory_test(an_announced_length_alone_costs_no_memory),
      memory_test(memory_follows_the_bytes_that_came),
      memory_test(the_middle_of_a_frame_is_partial),
      cmocka_unit_test(out_of_memory_loses_nothing_and_the_call_may_be_repeated),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
