#include "core/durable/response.h"

#include "support.h"

static weir_durable_response with(int status, const char *name, const char *value) {
  weir_durable_response response;
  weir_durable_response_init(&response, status);
  if (name != NULL) {
    weir_durable_response_header(&response, name, strlen(name), value, strlen(value));
  }
  return response;
}

static void add(weir_durable_response *response, const char *name, const char *value) {
  weir_durable_response_header(response, name, strlen(name), value, strlen(value));
}

#define assert_text(text, expected)                                              \
  do {                                                                           \
    assert_int_equal((text).len, strlen(expected));                              \
    if ((text).len > 0) assert_memory_equal((text).bytes, expected, (text).len); \
  } while (0)

static void headers_are_known_in_any_case_of_letters(void **state) {
  (void)state;
  weir_durable_response r = with(200, "STREAM-NEXT-OFFSET", "0_7");
  add(&r, "stream-cursor", "12");
  add(&r, "ETag", "\"a:b\"");
  add(&r, "Content-type", "application/json; charset=utf-8");
  add(&r, "Stream-Up-To-Date", "TRUE");
  add(&r, "Stream-Closed", "True");
  add(&r, "stream-SSE-data-encoding", "Base64");
  assert_text(r.next_offset, "0_7");
  assert_text(r.cursor, "12");
  assert_text(r.etag, "\"a:b\"");
  assert_text(r.content_type, "application/json; charset=utf-8");
  assert_true(r.up_to_date && r.closed && r.base64);
  assert_false(r.unusable);
}

static void nothing_is_there_before_it_came(void **state) {
  (void)state;
  weir_durable_response r = with(204, NULL, NULL);
  assert_int_equal(r.status, 204);
  assert_int_equal(r.next_offset.len + r.cursor.len + r.etag.len + r.content_type.len, 0);
  assert_false(r.up_to_date || r.closed || r.base64 || r.unusable);
  assert_true(r.producer_epoch == UINT64_MAX && r.producer_seq == UINT64_MAX);
  assert_true(r.expected_seq == UINT64_MAX && r.received_seq == UINT64_MAX);
  assert_true(r.retry_after == UINT64_MAX && r.retry_date.len == 0);
}

static void other_headers_are_ignored(void **state) {
  (void)state;
  weir_durable_response r = with(200, "Stream-Next-Offsets", "x");
  add(&r, "Stream-Next-Offse", "x");
  add(&r, "", "x");
  add(&r, "Set-Cookie", "Stream-Closed: true");
  assert_int_equal(r.next_offset.len, 0);
  assert_false(r.closed);
}

static void blanks_around_values_do_not_count(void **state) {
  (void)state;
  weir_durable_response r = with(200, "Stream-Closed", " \ttrue\r\n");
  add(&r, "Stream-Next-Offset", "  5_5 ");
  add(&r, "Stream-Cursor", "   ");
  assert_true(r.closed);
  assert_text(r.next_offset, "5_5");
  assert_int_equal(r.cursor.len, 0);
}

static void only_true_is_true(void **state) {
  (void)state;
  static const char *const NO[] = {"false", "1", "yes", "tru", "truee", "true, true", ""};
  for (size_t i = 0; i < sizeof NO / sizeof *NO; i++) {
    assert_false(with(200, "Stream-Closed", NO[i]).closed);
    assert_false(with(200, "Stream-Up-To-Date", NO[i]).up_to_date);
  }
}

static void numbers_are_digits_up_to_what_the_protocol_allows(void **state) {
  (void)state;
  assert_true(with(403, "Producer-Epoch", "0").producer_epoch == 0);
  assert_true(with(409, "Producer-Expected-Seq", "17").expected_seq == 17);
  assert_true(with(409, "Producer-Received-Seq", " 18 ").received_seq == 18);
  assert_true(with(200, "Producer-Seq", "9007199254740991").producer_seq ==
              UINT64_C(9007199254740991));
  static const char *const NO[] = {"",
                                   "-1",
                                   "+1",
                                   "1.0",
                                   "1e3",
                                   "0x1",
                                   "1 2",
                                   "9007199254740992",
                                   "99999999999999999999999999999999999999999"};
  for (size_t i = 0; i < sizeof NO / sizeof *NO; i++) {
    assert_true(with(200, "Producer-Seq", NO[i]).producer_seq == UINT64_MAX);
  }
}

static void a_text_may_be_as_long_as_the_limit_and_no_longer(void **state) {
  (void)state;
  char text[WEIR_DURABLE_OFFSET_MAX + 1];
  memset(text, 'x', sizeof text);
  weir_durable_response r = with(200, NULL, NULL);
  weir_durable_response_header(&r, "Stream-Next-Offset", 18, text, sizeof text - 1);
  assert_int_equal(r.next_offset.len, WEIR_DURABLE_OFFSET_MAX);
  assert_false(r.unusable);
  weir_durable_response_header(&r, "Stream-Next-Offset", 18, text, sizeof text);
  assert_int_equal(r.next_offset.len, 0);
  assert_true(r.unusable);
}

static void control_characters_make_a_response_unusable(void **state) {
  (void)state;
  static const char *const BAD[] = {"a\nb", "a\001", "\177"};
  for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
    assert_true(with(200, "Stream-Cursor", BAD[i]).unusable);
  }
  weir_durable_response r = with(200, NULL, NULL);
  weir_durable_response_header(&r, "ETag", 4, "a\0b", 3);
  assert_true(r.unusable);
  assert_false(with(200, "ETag", "\"\303\244\"").unusable); /* bytes above 127 are text */
}

static void retry_after_is_seconds_or_a_date(void **state) {
  (void)state;
  assert_true(with(503, "Retry-After", "0").retry_after == 0);
  assert_true(with(503, "Retry-After", "120").retry_after == 120);
  /* Never mistaken for "absent", however long. */
  assert_true(with(503, "Retry-After", "99999999999999999999999").retry_after < UINT64_MAX);
  weir_durable_response r = with(503, "Retry-After", "Sun, 06 Nov 1994 08:49:37 GMT");
  assert_true(r.retry_after == UINT64_MAX);
  weir_durable_response_resolve_date(&r, 784111777 - 90);
  assert_true(r.retry_after == 90);
  weir_durable_response_resolve_date(&r, 784111777 + 5);
  assert_true(r.retry_after == 0);
}

static uint64_t seconds_of(const char *date) {
  weir_durable_response r = with(503, "Retry-After", date);
  weir_durable_response_resolve_date(&r, 0);
  return r.retry_after;
}

static void dates_are_counted_across_leap_years(void **state) {
  (void)state;
  assert_true(seconds_of("Thu, 01 Jan 1970 00:00:00 GMT") == 0);
  assert_true(seconds_of("Tue, 29 Feb 2000 12:00:00 GMT") == 951825600);
  assert_true(seconds_of("Wed, 01 Mar 2000 00:00:00 GMT") == 951868800);
  assert_true(seconds_of("Fri, 31 Dec 2027 23:59:59 GMT") == 1830297599);
  assert_true(seconds_of("Mon, 01 Mar 2100 00:00:00 GMT") == UINT64_C(4107542400));
}

static void what_is_no_date_is_ignored(void **state) {
  (void)state;
  static const char *const NO[] = {
      "",
      "soon",
      "-5",
      "Sun, 06 Nov 1994 08:49:37 UTC",
      "Sun, 06 Nov 1994 08:49:37 GMT ago",
      "Sun, 06 Foo 1994 08:49:37 GMT",
      "Sun, 00 Nov 1994 08:49:37 GMT",
      "Sun, 32 Nov 1994 08:49:37 GMT",
      "Sun, 06 Nov 1969 08:49:37 GMT",
      "Sun, 06 Nov 1994 24:49:37 GMT",
      "Sun, 06 Nov 1994 08:60:37 GMT",
      "Sun, 06 Nov 1994 08:49:61 GMT",
      "Sun, x6 Nov 1994 08:49:37 GMT",
      "Sun; 06 Nov 1994 08:49:37 GMT",
      "Sun, 06-Nov-1994 08:49:37 GMT",
  };
  for (size_t i = 0; i < sizeof NO / sizeof *NO; i++) {
    assert_true(seconds_of(NO[i]) == UINT64_MAX);
  }
  char text[600];
  memset(text, 'x', sizeof text);
  weir_durable_response r = with(503, NULL, NULL);
  weir_durable_response_header(&r, "Retry-After", 11, text, sizeof text);
  assert_int_equal(r.retry_date.len, 0);
  assert_false(r.unusable);
}

/* --- verdicts --------------------------------------------------------------------------------- */

enum {
  ANY = -1
};

static weir_durable_outcome verdict(weir_durable_kind kind, int status) {
  weir_durable_response r = with(status, NULL, NULL);
  return weir_durable_verdict(kind, WEIR_DURABLE_ANSWERED, &r);
}

static const char *code(weir_durable_kind kind, int status) {
  weir_durable_response r = with(status, NULL, NULL);
  return weir_durable_code(kind, WEIR_DURABLE_ANSWERED, &r);
}

#define EACH_KIND(kind) \
  for (weir_durable_kind kind = WEIR_DURABLE_CREATE; kind <= WEIR_DURABLE_PRODUCE; kind++)

static void success_is_what_the_protocol_says(void **state) {
  (void)state;
  EACH_KIND(kind) {
    assert_int_equal(verdict(kind, 200), WEIR_DURABLE_OK);
    assert_int_equal(verdict(kind, 204), WEIR_DURABLE_OK);
    assert_null(code(kind, 200));
    assert_int_equal(verdict(kind, 301), WEIR_DURABLE_FAILED);
    assert_int_equal(verdict(kind, 100), WEIR_DURABLE_FAILED);
  }
  assert_int_equal(verdict(WEIR_DURABLE_CREATE, 201), WEIR_DURABLE_OK);
  assert_int_equal(verdict(WEIR_DURABLE_READ, 304), WEIR_DURABLE_OK);
  assert_int_equal(verdict(WEIR_DURABLE_APPEND, 304), WEIR_DURABLE_FAILED);
  assert_int_equal(verdict(WEIR_DURABLE_READ, 206), WEIR_DURABLE_FAILED);
  assert_int_equal(verdict(WEIR_DURABLE_PRODUCE, 202), WEIR_DURABLE_FAILED);
}

static void overload_is_retried_whatever_was_asked(void **state) {
  (void)state;
  EACH_KIND(kind) {
    assert_int_equal(verdict(kind, 429), WEIR_DURABLE_RETRY);
    assert_int_equal(verdict(kind, 503), WEIR_DURABLE_RETRY);
    assert_string_equal(code(kind, 429), "rate_limited");
    assert_string_equal(code(kind, 503), "server_error");
  }
}

static void server_errors_are_retried_but_for_a_plain_append(void **state) {
  (void)state;
  static const int STATUS[] = {500, 501, 502, 504, 507, 599};
  for (size_t i = 0; i < sizeof STATUS / sizeof *STATUS; i++) {
    EACH_KIND(kind) {
      assert_int_equal(verdict(kind, STATUS[i]),
                       kind == WEIR_DURABLE_APPEND ? WEIR_DURABLE_UNKNOWN : WEIR_DURABLE_RETRY);
      assert_string_equal(code(kind, STATUS[i]), "server_error");
    }
  }
}

static void a_broken_connection_is_retried_but_for_a_plain_append(void **state) {
  (void)state;
  EACH_KIND(kind) {
    const weir_durable_outcome expected =
        kind == WEIR_DURABLE_APPEND ? WEIR_DURABLE_UNKNOWN : WEIR_DURABLE_RETRY;
    assert_int_equal(weir_durable_verdict(kind, WEIR_DURABLE_LOST, NULL), expected);
    assert_int_equal(weir_durable_verdict(kind, WEIR_DURABLE_TIMED_OUT, NULL), expected);
    assert_int_equal(weir_durable_verdict(kind, WEIR_DURABLE_NOT_SENT, NULL), WEIR_DURABLE_RETRY);
    assert_string_equal(weir_durable_code(kind, WEIR_DURABLE_LOST, NULL), "network");
    assert_string_equal(weir_durable_code(kind, WEIR_DURABLE_NOT_SENT, NULL), "network");
    assert_string_equal(weir_durable_code(kind, WEIR_DURABLE_TIMED_OUT, NULL), "timeout");
  }
}

static void an_answer_without_a_status_was_lost(void **state) {
  (void)state;
  assert_int_equal(verdict(WEIR_DURABLE_APPEND, 0), WEIR_DURABLE_UNKNOWN);
  assert_int_equal(verdict(WEIR_DURABLE_READ, 0), WEIR_DURABLE_RETRY);
  assert_string_equal(code(WEIR_DURABLE_READ, 0), "network");
  assert_int_equal(weir_durable_verdict(WEIR_DURABLE_APPEND, WEIR_DURABLE_ANSWERED, NULL),
                   WEIR_DURABLE_UNKNOWN);
}

static void it_is_known_when_the_server_may_have_done_it(void **state) {
  (void)state;
  assert_true(weir_durable_ambiguous(WEIR_DURABLE_LOST, NULL));
  assert_true(weir_durable_ambiguous(WEIR_DURABLE_TIMED_OUT, NULL));
  assert_true(weir_durable_ambiguous(WEIR_DURABLE_ANSWERED, NULL));
  assert_false(weir_durable_ambiguous(WEIR_DURABLE_NOT_SENT, NULL));
  static const struct {
    int status;
    bool ambiguous;
  } CASES[] = {{200, false}, {404, false}, {409, false}, {429, false}, {500, true},
               {502, true},  {503, false}, {504, true},  {0, true}};
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
    weir_durable_response r = with(CASES[i].status, NULL, NULL);
    assert_int_equal(weir_durable_ambiguous(WEIR_DURABLE_ANSWERED, &r), CASES[i].ambiguous);
  }
}

static void refusals_have_names_and_are_final(void **state) {
  (void)state;
  static const struct {
    int status, kind;
    const char *code;
  } CASES[] = {
      {400, WEIR_DURABLE_READ, "invalid_offset"},
      {416, WEIR_DURABLE_READ, "invalid_offset"},
      {400, WEIR_DURABLE_APPEND, "parse_error"},
      {400, WEIR_DURABLE_CREATE, "parse_error"},
      {401, ANY, "unauthorized"},
      {403, ANY, "forbidden"},
      {404, ANY, "not_found"},
      {405, ANY, "server_error"},
      {408, ANY, "timeout"},
      {409, WEIR_DURABLE_CREATE, "already_exists"},
      {409, WEIR_DURABLE_APPEND, "conflict"},
      {409, WEIR_DURABLE_APPEND_SEQ, "sequence_conflict"},
      {409, WEIR_DURABLE_PRODUCE, "conflict"},
      {409, WEIR_DURABLE_DELETE, "conflict"},
      {410, ANY, "gone"},
      {413, ANY, "too_large"},
      {414, ANY, "too_large"},
      {431, ANY, "too_large"},
      {418, ANY, "server_error"},
      {302, ANY, "server_error"},
  };
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
    EACH_KIND(kind) {
      if (CASES[i].kind != ANY && CASES[i].kind != (int)kind) continue;
      assert_int_equal(verdict(kind, CASES[i].status), WEIR_DURABLE_FAILED);
      assert_string_equal(code(kind, CASES[i].status), CASES[i].code);
    }
  }
}

static void headers_tell_conflicts_apart(void **state) {
  (void)state;
  weir_durable_response closed = with(409, "Stream-Closed", "true");
  weir_durable_response gap = with(409, "Producer-Expected-Seq", "3");
  weir_durable_response stale = with(403, "Producer-Epoch", "4");
  const weir_durable_transport answered = WEIR_DURABLE_ANSWERED;
  assert_string_equal(weir_durable_code(WEIR_DURABLE_APPEND, answered, &closed), "stream_closed");
  assert_string_equal(weir_durable_code(WEIR_DURABLE_PRODUCE, answered, &closed), "stream_closed");
  assert_string_equal(weir_durable_code(WEIR_DURABLE_APPEND_SEQ, answered, &closed),
                      "stream_closed");
  assert_string_equal(weir_durable_code(WEIR_DURABLE_CREATE, answered, &closed), "already_exists");
  assert_string_equal(weir_durable_code(WEIR_DURABLE_PRODUCE, answered, &gap), "sequence_conflict");
  assert_string_equal(weir_durable_code(WEIR_DURABLE_PRODUCE, answered, &stale), "stale_epoch");
  assert_string_equal(weir_durable_code(WEIR_DURABLE_APPEND, answered, &stale), "forbidden");
  add(&gap, "Stream-Closed", "true"); /* closed comes before the sequence */
  assert_string_equal(weir_durable_code(WEIR_DURABLE_PRODUCE, answered, &gap), "stream_closed");
}

static void an_unusable_response_fails_what_needs_it(void **state) {
  (void)state;
  weir_durable_response r = with(200, "Stream-Next-Offset", "a\001b");
  EACH_KIND(kind) {
    const bool needs = kind == WEIR_DURABLE_READ || kind == WEIR_DURABLE_HEAD;
    assert_int_equal(weir_durable_verdict(kind, WEIR_DURABLE_ANSWERED, &r),
                     needs ? WEIR_DURABLE_FAILED : WEIR_DURABLE_OK);
  }
  assert_string_equal(weir_durable_code(WEIR_DURABLE_READ, WEIR_DURABLE_ANSWERED, &r), "too_large");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(headers_are_known_in_any_case_of_letters),
      cmocka_unit_test(nothing_is_there_before_it_came),
      cmocka_unit_test(other_headers_are_ignored),
      cmocka_unit_test(blanks_around_values_do_not_count),
      cmocka_unit_test(only_true_is_true),
      cmocka_unit_test(numbers_are_digits_up_to_what_the_protocol_allows),
      cmocka_unit_test(a_text_may_be_as_long_as_the_limit_and_no_longer),
      cmocka_unit_test(control_characters_make_a_response_unusable),
      cmocka_unit_test(retry_after_is_seconds_or_a_date),
      cmocka_unit_test(dates_are_counted_across_leap_years),
      cmocka_unit_test(what_is_no_date_is_ignored),
      cmocka_unit_test(success_is_what_the_protocol_says),
      cmocka_unit_test(overload_is_retried_whatever_was_asked),
      cmocka_unit_test(server_errors_are_retried_but_for_a_plain_append),
      cmocka_unit_test(a_broken_connection_is_retried_but_for_a_plain_append),
      cmocka_unit_test(an_answer_without_a_status_was_lost),
      cmocka_unit_test(it_is_known_when_the_server_may_have_done_it),
      cmocka_unit_test(refusals_have_names_and_are_final),
      cmocka_unit_test(headers_tell_conflicts_apart),
      cmocka_unit_test(an_unusable_response_fails_what_needs_it),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
