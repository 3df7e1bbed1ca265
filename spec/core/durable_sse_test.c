#include "core/durable/sse.h"

#include <stdio.h>

#include "support.h"

/* Events as "type=data;" end to end, the way they came out. */
typedef struct outcome {
  char text[8192];
  size_t len;
  weir_status status;
} outcome;

static void note(outcome *out, const void *bytes, size_t len) {
  assert_true(len < sizeof out->text - out->len);
  if (len > 0) memcpy(out->text + out->len, bytes, len);
  out->len += len;
  out->text[out->len] = '\0';
}

static void feed(weir_sse *sse, const char *bytes, size_t len, outcome *out) {
  unsigned char *piece = weir_test_copy(bytes, len);
  const unsigned char *at = piece;
  weir_sse_event event;
  while ((out->status = weir_sse_next(sse, &at, &len, &event)) == WEIR_OK) {
    note(out, event.type, event.type_len);
    note(out, "=", 1);
    note(out, event.data.ptr, event.data.len);
    note(out, ";", 1);
    weir_slice_unref(&event.data);
  }
  free(piece);
}

/* Parses it whole, byte by byte and cut in two everywhere: always with the same result. */
static void assert_events_n(weir_test_alloc *memory, const char *input, size_t len,
                            const char *expected) {
  for (size_t cut = 0; cut <= len + 1; cut++) {
    outcome out = {.len = 0};
    weir_sse sse;
    weir_sse_init(&sse, &memory->alloc, 4096);
    if (cut <= len) {
      feed(&sse, input, cut, &out);
      feed(&sse, input + cut, len - cut, &out);
    } else {
      for (size_t i = 0; i < len; i++)
        feed(&sse, input + i, 1, &out);
    }
    weir_sse_free(&sse);
    assert_string_equal(out.text, expected);
    assert_status(out.status, WEIR_E_AGAIN);
  }
}

#define assert_events(input, expected) assert_events_n(*state, input, sizeof(input) - 1, expected)

static void an_empty_line_ends_an_event(void **state) {
  assert_events("event: data\ndata: a\n\nevent:control\ndata:{}\n\n", "data=a;control={};");
  assert_events("data: a\n\n", "message=a;");
  assert_events("data: a\n", "");
}

static void lines_end_with_lf_cr_or_crlf(void **state) {
  assert_events("data: a\rdata: b\r\rdata: c\r\r", "message=a\nb;message=c;");
  assert_events("data: a\r\ndata: b\r\n\r\ndata: c\r\n\r\n", "message=a\nb;message=c;");
  assert_events("data: a\ndata: b\r\r\ndata: c\n\r", "message=a\nb;message=c;");
}

static void lines_of_data_are_joined_with_lf(void **state) {
  assert_events("data:a\ndata:\ndata:b\n\n", "message=a\n\nb;");
  assert_events("data:\ndata\n\n", "message=\n;");
}

static void one_leading_space_is_stripped(void **state) {
  assert_events("data: a\ndata:  b\ndata:c \ndata:\td\n\n", "message=a\n b\nc \n\td;");
}

static void an_event_without_data_is_none_but_empty_data_is_some(void **state) {
  assert_events("event: a\n\ndata: b\n\n", "message=b;");
  assert_events("event: control\ndata:\n\n", "control=;");
  assert_events("event: control\ndata\n\n", "control=;");
}

static void the_last_type_counts_and_only_for_its_event(void **state) {
  assert_events("event: a\nevent: b\ndata: 1\n\ndata: 2\n\n", "b=1;message=2;");
  assert_events("event: a\nevent\ndata: 1\n\n", "message=1;");
}

static void comments_ids_retries_and_unknown_fields_are_skipped(void **state) {
  assert_events(
      ": hi\n:\nid: 7\nretry: 9\ndatum: x\ndata : y\nevents: z\nverylongname: v\n"
      "data: a\n\n",
      "message=a;");
}

static void a_byte_order_mark_is_skipped_once(void **state) {
  assert_events(
      "\xef\xbb\xbf"
      "data: a\n\ndata: b\n\n",
      "message=a;message=b;");
  assert_events(
      "\xef\xbb\xbf\xef\xbb\xbf"
      "data: a\n\ndata: b\n\n",
      "message=b;");
  assert_events("\xef\xbbxdata: a\n\ndata: b\n\n", "message=b;");
}

static void other_line_separators_and_bad_utf8_stay(void **state) {
  assert_events(
      "data: a\xc2\x85"
      "b\xe2\x80\xa8"
      "c\xe2\x80\xa9"
      "d\x0b\x0c\n\n",
      "message=a\xc2\x85"
      "b\xe2\x80\xa8"
      "c\xe2\x80\xa9"
      "d\x0b\x0c;");
  assert_events("data: \xff\xc3\n\n", "message=\xff\xc3;");
}

static void data_up_to_the_limit_passes(void **state) {
  weir_test_alloc *memory = *state;
  outcome out = {.len = 0};
  weir_sse sse;
  weir_sse_init(&sse, &memory->alloc, 4);
  feed(&sse, "data: abcd\n\ndata: a\ndata: bc\n\n", 30, &out);
  assert_string_equal(out.text, "message=abcd;message=a\nbc;");
  feed(&sse, "data: abcde\n\n", 13, &out);
  assert_status(out.status, WEIR_E_LIMIT);
  feed(&sse, "data: a\n\n", 9, &out);
  assert_status(out.status, WEIR_E_LIMIT);
  weir_sse_reset(&sse);
  feed(&sse, "data: z\n\n", 9, &out);
  assert_string_equal(out.text, "message=abcd;message=a\nbc;message=z;");
  feed(&sse, "data:\ndata:\ndata:\ndata:\ndata:\ndata:\n", 36, &out);
  assert_status(out.status, WEIR_E_LIMIT);
  weir_sse_free(&sse);
}

static void a_type_that_is_too_long_is_refused(void **state) {
  weir_test_alloc *memory = *state;
  outcome out = {.len = 0};
  char line[WEIR_SSE_TYPE_MAX + 16];
  weir_sse sse;
  weir_sse_init(&sse, &memory->alloc, 4);
  memset(line, 'x', sizeof line);
  memcpy(line, "event:", 6);
  feed(&sse, line, 6 + WEIR_SSE_TYPE_MAX, &out);
  assert_status(out.status, WEIR_E_AGAIN);
  feed(&sse, "x", 1, &out);
  assert_status(out.status, WEIR_E_LIMIT);
  weir_sse_free(&sse);
}

static void comments_and_unknown_fields_cost_no_memory(void **state) {
  weir_test_alloc *memory = *state;
  outcome out = {.len = 0};
  weir_sse sse;
  weir_sse_init(&sse, &memory->alloc, 4);
  for (int i = 0; i < 1000; i++)
    feed(&sse, i < 500 ? ":comment" : "unknown:", 8, &out);
  assert_status(out.status, WEIR_E_AGAIN);
  assert_int_equal(memory->calls, 0);
  weir_sse_free(&sse);
}

static void growing_data_is_not_copied_again_and_again(void **state) {
  weir_test_alloc *memory = *state;
  outcome out = {.len = 0};
  weir_sse sse;
  weir_sse_init(&sse, &memory->alloc, 1 << 20);
  feed(&sse, "data:", 5, &out);
  for (int i = 0; i < 1 << 16; i++)
    feed(&sse, "x", 1, &out);
  assert_true(memory->calls < 20);
  weir_sse_free(&sse);
}

static void data_outlives_the_parser(void **state) {
  weir_test_alloc *memory = *state;
  weir_sse sse;
  weir_sse_event first, second;
  weir_sse_init(&sse, &memory->alloc, 100);
  const unsigned char input[] = "data: one\n\ndata: two\n\n", *at = input;
  size_t len = sizeof input - 1;
  assert_ok(weir_sse_next(&sse, &at, &len, &first));
  assert_ok(weir_sse_next(&sse, &at, &len, &second));
  weir_sse_free(&sse);
  assert_memory_equal(first.data.ptr, "one", 3);
  assert_memory_equal(second.data.ptr, "two", 3);
  weir_slice_unref(&first.data);
  weir_slice_unref(&second.data);
}

static void parse_with(weir_test_alloc *memory) {
  outcome out = {.len = 0};
  weir_sse sse;
  weir_sse_init(&sse, &memory->alloc, 1000);
  const char line[] = "data: 0123456789012345678901234567890123456789";
  for (size_t i = 0; i < 40; i++) {
    feed(&sse, line, sizeof line - 1, &out);
    if (i % 8 == 7) feed(&sse, "\n\ndata:", 7, &out);
  }
  weir_sse_free(&sse);
}

static void nothing_leaks_when_an_allocation_fails(void **state) {
  (void)state;
  each_failure(parse_with);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      memory_test(an_empty_line_ends_an_event),
      memory_test(lines_end_with_lf_cr_or_crlf),
      memory_test(lines_of_data_are_joined_with_lf),
      memory_test(one_leading_space_is_stripped),
      memory_test(an_event_without_data_is_none_but_empty_data_is_some),
      memory_test(the_last_type_counts_and_only_for_its_event),
      memory_test(comments_ids_retries_and_unknown_fields_are_skipped),
      memory_test(a_byte_order_mark_is_skipped_once),
      memory_test(other_line_separators_and_bad_utf8_stay),
      memory_test(data_up_to_the_limit_passes),
      memory_test(a_type_that_is_too_long_is_refused),
      memory_test(comments_and_unknown_fields_cost_no_memory),
      memory_test(growing_data_is_not_copied_again_and_again),
      memory_test(data_outlives_the_parser),
      cmocka_unit_test(nothing_leaks_when_an_allocation_fails),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
