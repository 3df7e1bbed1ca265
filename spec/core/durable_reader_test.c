#include "core/durable/reader.h"

#include <stdio.h>

#include "core/durable/base64.h"
#include "core/time.h"
#include "support.h"

/* --- one reader, answered by hand ------------------------------------------------------------- */

typedef struct hand {
  weir_durable_reader *reader;
  uint64_t now;
  char seen[16384]; /* the pieces taken, as told by take() */
  char asked[256];  /* the request under way */
} hand;

static hand new_hand(weir_test_alloc *memory, weir_durable_live live, const char *position) {
  weir_durable_reader_config config = {.live = live, .position = position, .max_event = 1000};
  weir_retry_policy_default(&config.retry);
  config.retry.max_retries = 5;
  hand h = {.reader = weir_durable_reader_new(&memory->alloc, &config), .now = WEIR_SECOND};
  assert_non_null(h.reader);
  return h;
}

/* The next request, as "OFFSET[ live=..][ cursor=..]", as soon as there is one; or the reason why
 * there is none. */
static const char *ask(hand *h) {
  weir_durable_query query;
  const uint64_t deadline = weir_durable_reader_deadline(h->reader);
  if (deadline != WEIR_NEVER && deadline > h->now) h->now = deadline;
  const weir_status status = weir_durable_reader_request(h->reader, h->now, &query);
  if (status != WEIR_OK) return weir_status_name(status);
  assert_true(query.sse == (query.live != NULL && strcmp(query.live, "sse") == 0));
  snprintf(h->asked, sizeof h->asked, "%s%s%s%s%s", query.offset, query.live ? " live=" : "",
           query.live ? query.live : "", query.cursor ? " cursor=" : "",
           query.cursor ? query.cursor : "");
  return h->asked;
}

/* `headers`: "Name: value" lines. */
static void head(hand *h, int status, const char *headers) {
  weir_durable_response response;
  weir_durable_response_init(&response, status);
  while (*headers != '\0') {
    const char *colon = strchr(headers, ':'), *end = strchr(headers, '\n');
    if (end == NULL) end = headers + strlen(headers);
    weir_durable_response_header(&response, headers, (size_t)(colon - headers), colon + 1,
                                 (size_t)(end - colon - 1));
    headers = *end == '\0' ? end : end + 1;
  }
  weir_durable_reader_head(h->reader, &response, h->now);
}

static weir_status feed(hand *h, const char *body) {
  return weir_durable_reader_feed(h->reader, body, strlen(body), h->now);
}

static void end(hand *h, weir_durable_transport transport) {
  weir_durable_reader_end(h->reader, transport, h->now, UINT64_MAX);
}

static void answer(hand *h, int status, const char *headers, const char *body) {
  head(h, status, headers);
  (void)feed(h, body);
  end(h, WEIR_DURABLE_ANSWERED);
}

/* All pieces that can be taken: "FROM>TO:data" and "+" up to date, "!" closed, each with "|". */
static const char *take(hand *h) {
  weir_durable_piece piece;
  size_t at = 0;
  h->seen[0] = '\0';
  while (weir_durable_reader_next(h->reader, &piece) == WEIR_OK) {
    at += (size_t)snprintf(h->seen + at, sizeof h->seen - at, "%s>%s:%.*s%s%s|", piece.offset,
                           piece.next_offset, (int)piece.data.len,
                           piece.data.len > 0 ? (const char *)piece.data.ptr : "",
                           piece.up_to_date ? "+" : "", piece.closed ? "!" : "");
    assert_true(piece.whole == (strchr(piece.next_offset, ',') == NULL));
    weir_slice_unref(&piece.data);
  }
  return h->seen;
}

static weir_durable_reader_state state_of(hand *h) {
  weir_durable_reader_state state;
  weir_durable_reader_state_of(h->reader, &state);
  return state;
}

static void done(hand *h) { weir_durable_reader_free(h->reader); }

#define BYTES "Content-Type: application/octet-stream\n"
#define JSON "Content-Type: application/json; charset=utf-8\n"
#define TEXT "Content-Type: text/plain\n"
#define NEXT(offset) "Stream-Next-Offset: " offset "\n"
#define TAIL "Stream-Up-To-Date: true\n"
#define SHUT "Stream-Closed: true\n"
#define EVENTS "Content-Type: text/event-stream\n"
#define CONTROL(json) "event: control\ndata:" json "\n\n"

/* Catches up with an empty stream. */
static hand live_hand(weir_test_alloc *memory, weir_durable_live live, const char *type) {
  hand h = new_hand(memory, live, NULL);
  char headers[256];
  snprintf(headers, sizeof headers, "%s" NEXT("0") TAIL, type);
  assert_string_equal(ask(&h), "-1");
  answer(&h, 200, headers, strstr(type, "json") != NULL ? "[]" : "");
  assert_string_equal(take(&h), "-1>0:+|");
  return h;
}

static void catching_up_goes_on_until_the_tail(void **state) {
  hand h = new_hand(*state, WEIR_DURABLE_LIVE_NONE, NULL);
  assert_string_equal(ask(&h), "-1");
  assert_string_equal(ask(&h), "again");
  answer(&h, 200, BYTES NEXT("5"), "abcde");
  assert_string_equal(take(&h), "-1>5:abcde|");
  assert_string_equal(ask(&h), "5");
  answer(&h, 200, BYTES NEXT("8") TAIL, "fgh");
  assert_string_equal(take(&h), "5>8:fgh+|");
  assert_string_equal(ask(&h), "closed");
  assert_false(state_of(&h).failed);
  done(&h);
}

static void pieces_inside_an_answer_have_positions_inside(void **state) {
  hand h = new_hand(*state, WEIR_DURABLE_LIVE_NONE, NULL);
  ask(&h);
  head(&h, 200, BYTES NEXT("5") TAIL);
  feed(&h, "ab");
  assert_string_equal(take(&h), ""); /* the body may end here */
  feed(&h, "cd");
  assert_string_equal(take(&h), "-1>-1,2:ab|");
  assert_string_equal(state_of(&h).position, "-1,2");
  feed(&h, "e");
  end(&h, WEIR_DURABLE_ANSWERED);
  assert_string_equal(take(&h), "-1,2>-1,4:cd|-1,4>5:e+|");
  done(&h);
}

static void a_cut_body_is_asked_for_again_and_what_was_had_is_dropped(void **state) {
  hand h = new_hand(*state, WEIR_DURABLE_LIVE_NONE, NULL);
  ask(&h);
  head(&h, 200, BYTES NEXT("5") TAIL);
  feed(&h, "abc");
  end(&h, WEIR_DURABLE_LOST);
  assert_string_equal(take(&h), "-1>-1,3:abc|");
  assert_string_equal(ask(&h), "-1");
  answer(&h, 200, BYTES NEXT("2"), "ab"); /* a shorter answer this time */
  assert_string_equal(take(&h), "-1,3>2,1:|");
  assert_string_equal(ask(&h), "2");
  answer(&h, 200, BYTES NEXT("6") TAIL, "cdef");
  assert_string_equal(take(&h), "2,1>6:def+|");
  done(&h);
}

static void json_comes_as_arrays_of_whole_items(void **state) {
  hand h = new_hand(*state, WEIR_DURABLE_LIVE_NONE, NULL);
  ask(&h);
  head(&h, 200, JSON NEXT("5") TAIL);
  feed(&h, "[1, 2.0,{\"a");
  feed(&h, "\":3}]");
  end(&h, WEIR_DURABLE_LOST); /* the array was complete, the answer was not */
  assert_string_equal(take(&h), "-1>-1,2:[1,2.0]|-1,2>-1,3:[{\"a\":3}]|");
  ask(&h);
  answer(&h, 200, JSON NEXT("6") TAIL, "[1, 2.0,{\"a\":3}, [4]]");
  assert_string_equal(take(&h), "-1,3>6:[[4]]+|");
  done(&h);
}

static void bad_json_is_a_parse_error(void **state) {
  static const char *const BAD[] = {"[1,", "[1,}", "{\"a\":1}", "[1]x", "oops"};
  for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
    hand h = new_hand(*state, WEIR_DURABLE_LIVE_LONG_POLL, NULL);
    ask(&h);
    answer(&h, 200, JSON NEXT("5") TAIL, BAD[i]);
    assert_string_equal(ask(&h), "closed");
    assert_true(state_of(&h).failed);
    assert_string_equal(state_of(&h).code, "parse_error");
    take(&h);
    done(&h);
  }
}

static void an_item_that_is_too_long_is_refused(void **state) {
  hand h = new_hand(*state, WEIR_DURABLE_LIVE_NONE, NULL);
  ask(&h);
  head(&h, 200, JSON NEXT("5"));
  assert_ok(feed(&h, "[\""));
  weir_status status = WEIR_OK;
  for (int i = 0; i < 200 && status == WEIR_OK; i++)
    status = feed(&h, "xxxxxxxxxx");
  assert_status(status, WEIR_E_LIMIT);
  end(&h, WEIR_DURABLE_LOST);
  assert_string_equal(state_of(&h).code, "too_large");
  done(&h);
}

static void a_saved_position_goes_on_inside_an_answer(void **state) {
  hand h = new_hand(*state, WEIR_DURABLE_LIVE_NONE, "7,2");
  assert_string_equal(state_of(&h).position, "7,2");
  assert_string_equal(ask(&h), "7");
  answer(&h, 200, BYTES NEXT("9") TAIL, "abcd");
  assert_string_equal(take(&h), "7,2>9:cd+|");
  assert_string_equal(state_of(&h).position, "9");
  done(&h);
}

static void a_position_beyond_the_tail_is_invalid(void **state) {
  hand h = new_hand(*state, WEIR_DURABLE_LIVE_NONE, "7,5");
  ask(&h);
  answer(&h, 200, BYTES NEXT("9") TAIL, "abcd");
  assert_string_equal(take(&h), "");
  assert_string_equal(state_of(&h).code, "invalid_offset");
  done(&h);
}

/* A server that reads what is not committed yet brings data first, and then a tail before it. */
static void a_tail_before_the_position_moves_nothing(void **state) {
  hand h = new_hand(*state, WEIR_DURABLE_LIVE_LONG_POLL, "07");
  assert_string_equal(ask(&h), "07");
  answer(&h, 200, BYTES NEXT("04") TAIL, "");
  assert_string_equal(take(&h), "");
  assert_true(weir_durable_reader_deadline(h.reader) > h.now);
  assert_string_equal(ask(&h), "07");
  answer(&h, 200, BYTES NEXT("09") TAIL, "ab");
  assert_string_equal(take(&h), "07>09:ab+|");
  assert_string_equal(ask(&h), "09 live=long-poll");
  answer(&h, 200, BYTES NEXT("07") TAIL SHUT, "");
  assert_string_equal(take(&h), "");
  assert_string_equal(ask(&h), "09 live=long-poll");
  answer(&h, 204, NEXT("09") TAIL SHUT, "");
  assert_string_equal(take(&h), "09>09:+!|");
  done(&h);
}

static void a_control_event_before_the_position_moves_nothing(void **state) {
  hand h = live_hand(*state, WEIR_DURABLE_LIVE_SSE, JSON);
  for (int i = 0; i < 5; i++) {
    assert_string_equal(ask(&h), i == 0 ? "0 live=sse" : "7 live=sse");
    head(&h, 200, EVENTS);
    if (i == 0) {
      assert_ok(feed(&h, "event: data\ndata:[1]\n\n" CONTROL("{\"streamNextOffset\":\"7\"}")));
      assert_string_equal(take(&h), "0>7:[1]|");
    }
    assert_status(feed(&h, CONTROL("{\"streamNextOffset\":\"4\",\"upToDate\":true}")),
                  WEIR_E_CLOSED);
    end(&h, WEIR_DURABLE_LOST);
    assert_string_equal(take(&h), "");
  }
  assert_true(weir_durable_reader_deadline(h.reader) > h.now);
  assert_string_equal(ask(&h), "7 live=sse"); /* connections that brought this are not short ones */
  head(&h, 200, EVENTS);
  assert_ok(feed(&h, "event: data\ndata:[2]\n\n"));
  assert_string_equal(take(&h), "7>7,1:[2]|");
  done(&h);
}

static void a_tail_that_stays_before_the_position_is_an_error(void **state) {
  hand h = new_hand(*state, WEIR_DURABLE_LIVE_LONG_POLL, "07");
  int asked = 0;
  while (!state_of(&h).failed && asked++ < 100) {
    assert_string_equal(ask(&h), "07");
    answer(&h, 200, BYTES NEXT("04") TAIL, "");
  }
  assert_in_range(asked, 5, 20);
  assert_string_equal(take(&h), "");
  assert_string_equal(state_of(&h).code, "invalid_offset");
  assert_string_equal(state_of(&h).position, "07");
  done(&h);
}

static void what_is_no_position_fails_without_a_request(void **state) {
  static const char *const BAD[] = {"",     "a b",   "7,",   "7,0",
                                    "7,x",  "7,-1",  "7,1x", ",1",
                                    "7,01", "7,1,2", "a\nb", "7,99999999999999999999"};
  for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
    hand h = new_hand(*state, WEIR_DURABLE_LIVE_NONE, BAD[i]);
    assert_string_equal(ask(&h), "closed");
    assert_string_equal(state_of(&h).code, "invalid_offset");
    done(&h);
  }
}

static void now_begins_at_the_tail_that_the_server_names(void **state) {
  hand h = new_hand(*state, WEIR_DURABLE_LIVE_LONG_POLL, "now");
  assert_string_equal(ask(&h), "now");
  answer(&h, 200, JSON NEXT("9") TAIL, "[]");
  assert_string_equal(take(&h), "now>9:+|");
  assert_string_equal(ask(&h), "9 live=long-poll");
  done(&h);
}

static void long_polls_echo_the_cursor_and_time_out_without_harm(void **state) {
  hand h = live_hand(*state, WEIR_DURABLE_LIVE_LONG_POLL, BYTES);
  assert_string_equal(ask(&h), "0 live=long-poll");
  h.now += WEIR_SECOND;
  answer(&h, 204, NEXT("0") TAIL "Stream-Cursor: 77\n", "");
  assert_string_equal(take(&h), "");
  assert_int_equal(weir_durable_reader_deadline(h.reader), h.now);
  assert_string_equal(ask(&h), "0 live=long-poll cursor=77");
  h.now += WEIR_SECOND;
  end(&h, WEIR_DURABLE_TIMED_OUT);
  assert_int_equal(weir_durable_reader_deadline(h.reader), h.now);
  assert_string_equal(ask(&h), "0 live=long-poll cursor=77");
  answer(&h, 200, BYTES NEXT("3") TAIL "Stream-Cursor: 78\n", "abc");
  assert_string_equal(take(&h), "0>3:abc+|");
  assert_string_equal(ask(&h), "3 live=long-poll cursor=78");
  assert_int_equal(state_of(&h).retries, 0);
  done(&h);
}

static void quick_empty_answers_are_spaced_out(void **state) {
  hand h = live_hand(*state, WEIR_DURABLE_LIVE_LONG_POLL, BYTES);
  const uint64_t begun = h.now;
  for (int i = 0; i < 50; i++) {
    assert_string_equal(ask(&h), "0 live=long-poll");
    answer(&h, 204, NEXT("0") TAIL, "");
  }
  assert_true(h.now - begun > 30 * WEIR_SECOND);
  assert_false(state_of(&h).failed);
  done(&h);
}

static void a_closed_stream_is_the_end_in_every_mode(void **state) {
  hand h = new_hand(*state, WEIR_DURABLE_LIVE_AUTO, NULL);
  ask(&h);
  answer(&h, 200, BYTES NEXT("3") TAIL SHUT, "abc");
  assert_string_equal(take(&h), "-1>3:abc+!|");
  assert_string_equal(ask(&h), "closed");
  done(&h);
  h = live_hand(*state, WEIR_DURABLE_LIVE_LONG_POLL, BYTES);
  ask(&h);
  answer(&h, 204, NEXT("0") TAIL SHUT, "");
  assert_string_equal(take(&h), "0>0:+!|");
  assert_string_equal(ask(&h), "closed");
  assert_true(state_of(&h).closed);
  done(&h);
  h = live_hand(*state, WEIR_DURABLE_LIVE_SSE, BYTES);
  ask(&h);
  head(&h, 200, EVENTS);
  assert_status(feed(&h, CONTROL("{\"streamNextOffset\":\"0\",\"streamClosed\":true}")),
                WEIR_E_CLOSED);
  end(&h, WEIR_DURABLE_LOST);
  assert_string_equal(take(&h), "0>0:+!|");
  assert_string_equal(ask(&h), "closed");
  assert_int_equal(weir_durable_reader_deadline(h.reader), WEIR_NEVER);
  assert_false(state_of(&h).failed);
  done(&h);
}

static void auto_reads_json_and_binary_by_events_and_text_by_long_poll(void **state) {
  hand h = live_hand(*state, WEIR_DURABLE_LIVE_AUTO, JSON);
  assert_string_equal(ask(&h), "0 live=sse");
  done(&h);
  h = live_hand(*state, WEIR_DURABLE_LIVE_AUTO, BYTES);
  assert_string_equal(ask(&h), "0 live=sse");
  done(&h);
  h = live_hand(*state, WEIR_DURABLE_LIVE_AUTO, TEXT);
  assert_string_equal(ask(&h), "0 live=long-poll");
  done(&h);
}

static void events_are_handed_out_before_their_control(void **state) {
  hand h = live_hand(*state, WEIR_DURABLE_LIVE_SSE, JSON);
  ask(&h);
  head(&h, 200, EVENTS);
  feed(&h, "event: data\ndata: [1,\ndata: 2]\n\n");
  assert_string_equal(take(&h), "0>0,2:[1,2]|");
  feed(&h, "event: data\ndata: [3]\n\n");
  feed(&h, CONTROL("{\"streamNextOffset\":\"5\",\"streamCursor\":\"c1\",\"upToDate\":true}"));
  assert_string_equal(take(&h), "0,2>5:[3]+|");
  feed(&h, "event: data\ndata: [4]\n\nevent: data\ndata: [5]\n\n");
  end(&h, WEIR_DURABLE_LOST);
  assert_string_equal(take(&h), "5>5,1:[4]|5,1>5,2:[5]|");
  assert_string_equal(ask(&h), "5 live=sse cursor=c1");
  head(&h, 200, EVENTS);
  feed(&h,
       "event: data\ndata: [4,5,6]\n\n" CONTROL("{\"streamNextOffset\":\"8\",\"upToDate\":true}"));
  assert_string_equal(take(&h), "5,2>8:[6]+|");
  done(&h);
}

static void each_base64_event_decodes_alone(void **state) {
  hand h = live_hand(*state, WEIR_DURABLE_LIVE_SSE, BYTES);
  ask(&h);
  head(&h, 200, EVENTS "stream-sse-data-encoding: base64\n");
  feed(&h, "event: data\ndata:Zg==\n\nevent: data\ndata:b2\ndata:8=\n\n");
  assert_string_equal(take(&h), "0>0,1:f|0,1>0,3:oo|");
  assert_status(feed(&h, "event: data\ndata:Zg=\n\n"), WEIR_E_PROTOCOL);
  end(&h, WEIR_DURABLE_LOST);
  assert_string_equal(state_of(&h).code, "parse_error");
  done(&h);
}

static void json_in_base64_is_json(void **state) {
  hand h = live_hand(*state, WEIR_DURABLE_LIVE_SSE, JSON);
  ask(&h);
  head(&h, 200, EVENTS "stream-sse-data-encoding: base64\n");
  feed(&h, "event: data\ndata:WzEsIDJd\n\n");
  assert_string_equal(take(&h), "0>0,2:[1,2]|");
  assert_status(feed(&h, "event: data\ndata:YWJj\n\n"), WEIR_E_PROTOCOL);
  end(&h, WEIR_DURABLE_LOST);
  assert_string_equal(state_of(&h).code, "parse_error");
  done(&h);
}

static void text_waits_for_its_control(void **state) {
  hand h = live_hand(*state, WEIR_DURABLE_LIVE_SSE, TEXT);
  ask(&h);
  head(&h, 200, EVENTS);
  feed(&h, "event: data\ndata: a\ndata:  b\n\nevent: data\ndata: c\n\n");
  assert_string_equal(take(&h), "");
  end(&h, WEIR_DURABLE_LOST);
  ask(&h);
  head(&h, 200, EVENTS);
  feed(&h, "event: data\ndata: a\ndata:  b\n\nevent: data\ndata: c\n\n");
  feed(&h, CONTROL("{\"streamNextOffset\":\"5\"}"));
  assert_string_equal(take(&h), "0>5:a\n bc|");
  done(&h);
}

static void a_bad_control_event_is_a_parse_error(void **state) {
  static const char *const BAD[] = {"",
                                    "{",
                                    "oops",
                                    "[]",
                                    "{}",
                                    "\"5\"",
                                    "{\"streamNextOffset\":5}",
                                    "{\"streamNextOffset\":\"\"}",
                                    "{\"streamNextOffset\":\"now\"}",
                                    "{\"streamNextOffset\":\"1,2\"}",
                                    "{\"streamNextOffset\":\"1\\u00002\"}",
                                    "{\"streamNextOffset\":\"5\",\"upToDate\":\"true\"}",
                                    "{\"streamNextOffset\":\"5\",\"streamCursor\":7}",
                                    "{\"streamNextOffset\":\"5\"} x"};
  for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
    char event[256];
    hand h = live_hand(*state, WEIR_DURABLE_LIVE_SSE, JSON);
    ask(&h);
    head(&h, 200, EVENTS);
    snprintf(event, sizeof event, "event: control\ndata: %s\n\n", BAD[i]);
    assert_status(feed(&h, event), WEIR_E_PROTOCOL);
    end(&h, WEIR_DURABLE_LOST);
    assert_string_equal(state_of(&h).code, "parse_error");
    assert_string_equal(ask(&h), "closed");
    done(&h);
  }
}

static void control_events_may_be_escaped_and_have_more_members(void **state) {
  hand h = live_hand(*state, WEIR_DURABLE_LIVE_SSE, JSON);
  ask(&h);
  head(&h, 200, EVENTS);
  assert_ok(feed(&h,
                 "event: weather\ndata: rain\n\nevent: control\ndata: { \"x\" : "
                 "{\"upToDate\":[1,\"}\\\"\"]} ,\ndata: \"\\u0073treamNextOffset\" : "
                 "\"a\\/\\u0042\", \"streamCursor\":null, \"upToDate\": true }\n\n"));
  assert_string_equal(take(&h), "0>a/B:+|");
  done(&h);
}

static void events_are_given_up_when_the_server_has_none(void **state) {
  hand h = live_hand(*state, WEIR_DURABLE_LIVE_SSE, JSON);
  ask(&h);
  answer(&h, 400, "", "no");
  assert_string_equal(ask(&h), "0 live=long-poll");
  assert_non_null(state_of(&h).fallback);
  done(&h);
  h = live_hand(*state, WEIR_DURABLE_LIVE_AUTO, JSON);
  ask(&h);
  head(&h, 200, JSON NEXT("5"));
  assert_status(feed(&h, "[1]"), WEIR_E_CLOSED);
  end(&h, WEIR_DURABLE_LOST);
  assert_string_equal(ask(&h), "0 live=long-poll");
  assert_int_equal(state_of(&h).mode, WEIR_DURABLE_LIVE_LONG_POLL);
  done(&h);
}

static void three_short_connections_that_bring_nothing_end_events(void **state) {
  hand h = live_hand(*state, WEIR_DURABLE_LIVE_SSE, JSON);
  for (int i = 0; i < 3; i++) {
    assert_string_equal(ask(&h), "0 live=sse");
    head(&h, 200, EVENTS);
    end(&h, WEIR_DURABLE_ANSWERED);
  }
  assert_string_equal(ask(&h), "0 live=long-poll");
  assert_non_null(state_of(&h).fallback);
  done(&h);
}

static void short_connections_with_data_do_not_end_events(void **state) {
  hand h = live_hand(*state, WEIR_DURABLE_LIVE_SSE, JSON);
  for (int i = 0; i < 20; i++) {
    char events[256];
    assert_non_null(strstr(ask(&h), "live=sse"));
    head(&h, 200, EVENTS);
    snprintf(events, sizeof events,
             "event: data\ndata: [1]\n\nevent: control\ndata: {\"streamNextOffset\":\"x%d\"}\n\n",
             i);
    assert_ok(feed(&h, events));
    end(&h, i % 2 == 0 ? WEIR_DURABLE_ANSWERED : WEIR_DURABLE_LOST);
  }
  assert_non_null(strstr(ask(&h), "live=sse"));
  assert_null(state_of(&h).fallback);
  take(&h);
  done(&h);
}

static void events_begin_at_once_when_the_type_is_known(void **state) {
  static const struct {
    weir_durable_live live;
    const char *position, *type, *expected;
  } TABLE[] = {{WEIR_DURABLE_LIVE_SSE, "5", "application/json", "5 live=sse"},
               {WEIR_DURABLE_LIVE_SSE, "5", "", "5"},
               {WEIR_DURABLE_LIVE_SSE, "5", NULL, "5"},
               {WEIR_DURABLE_LIVE_SSE, "now", "application/json", "now"},
               {WEIR_DURABLE_LIVE_SSE, "5,1", "text/plain", "5"},
               {WEIR_DURABLE_LIVE_AUTO, "5", "application/json", "5"},
               {WEIR_DURABLE_LIVE_NONE, "5", "application/json", "5"}};
  weir_test_alloc *memory = *state;
  for (size_t i = 0; i < sizeof TABLE / sizeof TABLE[0]; i++) {
    const weir_durable_reader_config config = {
        .live = TABLE[i].live, .position = TABLE[i].position, .content_type = TABLE[i].type};
    hand h = {.reader = weir_durable_reader_new(&memory->alloc, &config), .now = WEIR_SECOND};
    assert_string_equal(ask(&h), TABLE[i].expected);
    done(&h);
  }
}

static void events_that_are_refused_at_once_show_a_bad_offset_by_long_poll(void **state) {
  weir_test_alloc *memory = *state;
  const weir_durable_reader_config config = {
      .live = WEIR_DURABLE_LIVE_SSE, .position = "bad", .content_type = "text/plain"};
  hand h = {.reader = weir_durable_reader_new(&memory->alloc, &config), .now = WEIR_SECOND};
  assert_string_equal(ask(&h), "bad live=sse");
  answer(&h, 400, "", "");
  assert_string_equal(ask(&h), "bad live=long-poll");
  answer(&h, 400, "", "");
  assert_string_equal(state_of(&h).code, "invalid_offset");
  done(&h);
}

static void only_connections_in_a_row_count_as_short(void **state) {
  hand h = live_hand(*state, WEIR_DURABLE_LIVE_SSE, JSON);
  for (int i = 0; i < 5; i++) {
    assert_non_null(strstr(ask(&h), "live=sse"));
    head(&h, 200, EVENTS);
    if (i == 2) assert_ok(feed(&h, CONTROL("{\"streamNextOffset\":\"1\"}")));
    end(&h, WEIR_DURABLE_ANSWERED);
  }
  assert_string_equal(ask(&h), "1 live=sse");
  take(&h);
  done(&h);
}

static void cuts_with_progress_use_up_no_retries(void **state) {
  hand h = new_hand(*state, WEIR_DURABLE_LIVE_NONE, NULL);
  char body[32] = "";
  for (size_t i = 0; i < 20; i++) {
    assert_string_equal(ask(&h), "-1");
    head(&h, 200, BYTES NEXT("20") TAIL);
    body[i] = (char)('a' + i);
    assert_ok(feed(&h, body));
    end(&h, WEIR_DURABLE_LOST);
  }
  ask(&h);
  answer(&h, 200, BYTES NEXT("20") TAIL, body);
  assert_false(state_of(&h).failed);
  take(&h);
  assert_string_equal(state_of(&h).position, "20");
  done(&h);
}

static void text_that_is_too_long_for_its_control_is_read_by_long_poll(void **state) {
  hand h = live_hand(*state, WEIR_DURABLE_LIVE_SSE, TEXT);
  ask(&h);
  head(&h, 200, EVENTS);
  weir_status status = WEIR_OK;
  for (int i = 0; i < 200 && status == WEIR_OK; i++)
    status = feed(&h, "event: data\ndata: 0123456789\n\n");
  assert_status(status, WEIR_E_LIMIT);
  end(&h, WEIR_DURABLE_LOST);
  assert_string_equal(take(&h), "");
  assert_string_equal(ask(&h), "0 live=long-poll");
  done(&h);
}

static void a_tail_without_a_name_is_no_place_to_begin_at(void **state) {
  hand h = new_hand(*state, WEIR_DURABLE_LIVE_LONG_POLL, "now");
  ask(&h);
  answer(&h, 204, TAIL, "");
  assert_string_equal(ask(&h), "closed");
  assert_string_equal(state_of(&h).code, "parse_error");
  done(&h);
}

static void an_event_that_is_too_long_is_read_by_long_poll(void **state) {
  hand h = live_hand(*state, WEIR_DURABLE_LIVE_SSE, JSON);
  ask(&h);
  head(&h, 200, EVENTS);
  feed(&h, "event: data\ndata:");
  weir_status status = WEIR_OK;
  for (int i = 0; i < 200 && status == WEIR_OK; i++)
    status = feed(&h, "          ");
  assert_status(status, WEIR_E_LIMIT);
  end(&h, WEIR_DURABLE_LOST);
  assert_string_equal(ask(&h), "0 live=long-poll");
  assert_false(state_of(&h).failed);
  done(&h);
}

static void errors_that_may_pass_are_retried_up_to_the_limit(void **state) {
  hand h = new_hand(*state, WEIR_DURABLE_LIVE_NONE, NULL);
  assert_string_equal(ask(&h), "-1");
  const uint64_t asked = h.now;
  answer(&h, 503, "Retry-After: 7\n", "busy");
  assert_string_equal(ask(&h), "-1");
  assert_int_equal(h.now, asked + 7 * WEIR_SECOND);
  for (int i = 0; i < 5; i++) {
    end(&h, WEIR_DURABLE_NOT_SENT);
    if (i < 4) assert_string_equal(ask(&h), "-1");
  }
  assert_string_equal(ask(&h), "closed");
  assert_string_equal(state_of(&h).code, "network");
  assert_int_equal(state_of(&h).retries, 5);
  done(&h);
}

static void errors_that_will_not_pass_end_it(void **state) {
  static const struct {
    int status;
    const char *code;
  } TABLE[] = {{400, "invalid_offset"}, {401, "unauthorized"}, {403, "forbidden"},
               {404, "not_found"},      {410, "gone"},         {304, "parse_error"}};
  for (size_t i = 0; i < sizeof TABLE / sizeof TABLE[0]; i++) {
    hand h = new_hand(*state, WEIR_DURABLE_LIVE_AUTO, NULL);
    ask(&h);
    answer(&h, TABLE[i].status, "", "");
    assert_string_equal(ask(&h), "closed");
    assert_string_equal(state_of(&h).code, TABLE[i].code);
    assert_int_equal(state_of(&h).status, TABLE[i].status);
    done(&h);
  }
}

static void answers_without_a_usable_offset_are_refused(void **state) {
  static const char *const BAD[] = {BYTES, BYTES NEXT("a,b"), BYTES NEXT("now"), BYTES NEXT("-1")};
  for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
    hand h = new_hand(*state, WEIR_DURABLE_LIVE_NONE, NULL);
    ask(&h);
    answer(&h, 200, BAD[i], "abc"); /* the last one: data that leads nowhere */
    assert_string_equal(state_of(&h).code, "parse_error");
    take(&h);
    done(&h);
  }
}

static void an_unwanted_body_is_not_read_for_ever(void **state) {
  hand h = new_hand(*state, WEIR_DURABLE_LIVE_NONE, NULL);
  ask(&h);
  head(&h, 503, "");
  weir_status status = WEIR_OK;
  for (int i = 0; i < 100000 && status == WEIR_OK; i++)
    status = feed(&h, "0123456789");
  assert_status(status, WEIR_E_CLOSED);
  end(&h, WEIR_DURABLE_LOST);
  assert_string_equal(ask(&h), "-1");
  done(&h);
}

/* --- a model of a server ---------------------------------------------------------------------- */

enum {
  APPENDS = 60,
  CONTENT = 16384
};
typedef enum kind {
  KIND_JSON,
  KIND_BYTES,
  KIND_TEXT
} kind;

/* Appends 0..count are there; append i begins at unit ends[i - 1], byte at[i]. */
typedef struct model {
  kind kind;
  uint64_t random;
  char content[CONTENT]; /* end to end; JSON items with a comma behind each */
  size_t ends[APPENDS + 1];
  size_t count;
  bool no_events; /* refuses them */
} model;

static size_t draw(model *m, size_t below) { return weir_test_random(&m->random) % below; }

static void fill(model *m) {
  size_t len = 0;
  m->ends[0] = 0;
  for (size_t i = 1; i <= APPENDS; i++) {
    const size_t units = 1 + draw(m, m->kind == KIND_JSON ? 4 : 90);
    for (size_t unit = 0; unit < units; unit++) {
      static const char *const ITEMS[] = {"%zu,", "\"a]\\\"[%zu\",", "{\"k\":[%zu]},", "[%zu.50],"};
      if (m->kind == KIND_JSON) {
        len += (size_t)snprintf(m->content + len, CONTENT - len, ITEMS[draw(m, 4)], draw(m, 1000));
      } else {
        static const char LETTERS[] = "ab \n:\n  cd";
        m->content[len++] =
            m->kind == KIND_TEXT ? LETTERS[draw(m, sizeof LETTERS - 1)] : (char)draw(m, 256);
      }
    }
    m->ends[i] = len;
  }
}

/* The body that brings appends `from` up to `to`. */
static size_t body_of(const model *m, size_t from, size_t to, char *out) {
  size_t len = m->ends[to] - m->ends[from];
  if (m->kind != KIND_JSON) {
    memcpy(out, m->content + m->ends[from], len);
    return len;
  }
  out[0] = '[';
  memcpy(out + 1, m->content + m->ends[from], len);
  if (len > 0) len--; /* the last comma */
  out[len + 1] = ']';
  return len + 2;
}

static size_t event_of(const model *m, size_t from, size_t to, char *out) {
  static char body[CONTENT];
  const size_t len = body_of(m, from, to, body);
  size_t at = (size_t)sprintf(out, "event: data\ndata:");
  if (m->kind == KIND_BYTES) {
    weir_base64_encode(body, len, out + at);
    at += WEIR_BASE64_ENCODED(len);
  } else {
    if (body[0] == ' ') out[at++] = ' ';
    for (size_t i = 0; i < len; i++) {
      out[at++] = body[i];
      if (body[i] == '\n')
        at += (size_t)sprintf(out + at, "data:%s", body[i + 1] == ' ' ? " " : "");
    }
  }
  return at + (size_t)sprintf(out + at, "\r\n\r\n");
}

/* One reader after the other, each from where the one before was left. */
typedef struct client {
  hand hand;
  weir_test_alloc *memory;
  char got[CONTENT];
  size_t len;
  bool closed;
} client;

static void collect(client *c, const model *m, bool all) {
  weir_durable_piece piece;
  while (weir_durable_reader_next(c->hand.reader, &piece) == WEIR_OK) {
    assert_false(c->closed);
    assert_true(c->len + piece.data.len < CONTENT);
    if (piece.data.len > 0 && m->kind == KIND_JSON) { /* without [ and ], with a comma */
      memcpy(c->got + c->len, piece.data.ptr + 1, piece.data.len - 2);
      c->len += piece.data.len - 1;
      c->got[c->len - 1] = ',';
    } else if (piece.data.len > 0) {
      memcpy(c->got + c->len, piece.data.ptr, piece.data.len);
      c->len += piece.data.len;
    }
    c->closed = piece.closed;
    weir_slice_unref(&piece.data);
    assert_memory_equal(c->got, m->content, c->len);
    if (!all) return;
  }
}

static void replace_reader(client *c, model *m) {
  char position[600];
  snprintf(position, sizeof position, "%s", state_of(&c->hand).position);
  const uint64_t now = c->hand.now;
  done(&c->hand);
  weir_durable_reader_config config = {
      .live = (weir_durable_live)(1 + draw(m, 3)), .position = position, .max_event = CONTENT};
  static const char *const TYPES[] = {"application/json", "image/png", "text/plain"};
  if (draw(m, 2) == 0) config.content_type = TYPES[m->kind];
  weir_retry_policy_default(&config.retry);
  c->hand = (hand){.reader = weir_durable_reader_new(&c->memory->alloc, &config), .now = now};
}

/* Feeds in pieces, perhaps not all, taking now and then; false if it was cut. */
static bool deliver(client *c, model *m, const char *bytes, size_t len, bool may_cut) {
  size_t at = 0;
  const size_t stop = may_cut && draw(m, 3) == 0 ? draw(m, len + 1) : len;
  while (at < stop) {
    size_t run = 1 + draw(m, draw(m, 2) == 0 ? 8 : 400);
    if (run > stop - at) run = stop - at;
    unsigned char *piece = weir_test_copy(bytes + at, run);
    const weir_status status = weir_durable_reader_feed(c->hand.reader, piece, run, c->hand.now);
    free(piece);
    if (status != WEIR_OK) return false;
    at += run;
    if (draw(m, 3) == 0) collect(c, m, draw(m, 2) == 0);
  }
  return stop == len;
}

static size_t add_control(const model *m, size_t to, char *out) {
  const bool tail = to == m->count, closed = tail && m->count == APPENDS;
  return (size_t)sprintf(out, "event:control\rdata: {\"streamNextOffset\":\"%05zu\"%s%s}\r\r", to,
                         tail ? ",\"upToDate\":true" : "", closed ? ",\"streamClosed\":true" : "");
}

static void serve_events(client *c, model *m, size_t from) {
  static char out[8 * CONTENT];
  size_t rounds = draw(m, 5);
  head(&c->hand, 200, m->kind == KIND_BYTES ? EVENTS "Stream-SSE-Data-Encoding: base64\n" : EVENTS);
  bool going = true;
  while (going && rounds-- > 0) {
    size_t len = 0;
    if (draw(m, 2) == 0) len += (size_t)sprintf(out, "event: noise\ndata: [}\n\n: hi\n");
    for (size_t events = draw(m, 3); events > 0 && from < m->count; events--) {
      const size_t to = from + 1 + draw(m, m->count - from);
      len += event_of(m, from, to, out + len);
      from = to;
    }
    len += add_control(m, from, out + len);
    going = deliver(c, m, out, len, true);
    c->hand.now += draw(m, 3) * WEIR_SECOND;
    if (m->count < APPENDS) m->count += draw(m, 2);
  }
  end(&c->hand, draw(m, 2) == 0 ? WEIR_DURABLE_LOST : WEIR_DURABLE_ANSWERED);
}

static void serve_body(client *c, model *m, size_t from, bool live) {
  static char out[CONTENT + 2];
  static const char *const TYPES[] = {JSON, BYTES, TEXT};
  char headers[256];
  const size_t to = from + draw(m, m->count - from + 1);
  const bool tail = to == m->count, closed = tail && m->count == APPENDS;
  snprintf(headers, sizeof headers, "%sStream-Next-Offset: %05zu\n%s%s", TYPES[m->kind], to,
           tail ? TAIL : "", closed ? SHUT : "");
  if (live && to == from) {
    if (tail)
      answer(&c->hand, 204, headers, "");
    else
      end(&c->hand, WEIR_DURABLE_TIMED_OUT);
    return;
  }
  if (to == from && !tail) { /* no server does this; a stall instead */
    end(&c->hand, WEIR_DURABLE_TIMED_OUT);
    return;
  }
  const size_t len = body_of(m, from, to, out);
  head(&c->hand, 200, headers);
  const bool whole = deliver(c, m, out, len, true);
  /* All may have come though its end is lost. */
  const bool answered = whole && draw(m, 8) > 0;
  end(&c->hand, answered ? WEIR_DURABLE_ANSWERED : WEIR_DURABLE_LOST);
}

/* What is there but not committed yet seems not to be. */
static void serve_stale(client *c, model *m, size_t from, bool sse) {
  static const char *const TYPES[] = {JSON, BYTES, TEXT};
  char text[256];
  const size_t stale = draw(m, from);
  if (sse) {
    head(&c->hand, 200,
         m->kind == KIND_BYTES ? EVENTS "Stream-SSE-Data-Encoding: base64\n" : EVENTS);
    (void)deliver(c, m, text, add_control(m, stale, text), true);
    end(&c->hand, WEIR_DURABLE_LOST);
    return;
  }
  snprintf(text, sizeof text, "%sStream-Next-Offset: %05zu\n" TAIL, TYPES[m->kind], stale);
  answer(&c->hand, 200, text, m->kind == KIND_JSON ? "[]" : "");
}

static void serve(client *c, model *m) {
  weir_durable_query query;
  const uint64_t deadline = weir_durable_reader_deadline(c->hand.reader);
  assert_int_not_equal(deadline, WEIR_NEVER);
  if (deadline > c->hand.now) c->hand.now = deadline;
  assert_ok(weir_durable_reader_request(c->hand.reader, c->hand.now, &query));
  const size_t from = strcmp(query.offset, "-1") == 0 ? 0 : strtoul(query.offset, NULL, 10);
  if (m->count < APPENDS && draw(m, 2) == 0) m->count++;
  switch (draw(m, 12)) {
    case 0: answer(&c->hand, 503, draw(m, 2) == 0 ? "Retry-After: 1\n" : "", "busy"); return;
    case 1: end(&c->hand, WEIR_DURABLE_NOT_SENT); return;
    case 2: end(&c->hand, WEIR_DURABLE_LOST); return;
    case 3: end(&c->hand, WEIR_DURABLE_TIMED_OUT); return;
    default: break;
  }
  if (from > 0 && draw(m, 8) == 0) {
    serve_stale(c, m, from, query.sse);
  } else if (query.sse && m->no_events) {
    answer(&c->hand, 200, "Content-Type: text/html\n", "<html>");
  } else if (query.sse) {
    serve_events(c, m, from);
  } else {
    serve_body(c, m, from, query.live != NULL);
  }
}

static void run_model(weir_test_alloc *memory, uint64_t seed) {
  static model m;
  static client c;
  m = (model){.random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1};
  m.kind = (kind)draw(&m, 3);
  m.no_events = draw(&m, 5) == 0;
  fill(&m);
  c = (client){.memory = memory};
  c.hand = new_hand(memory, WEIR_DURABLE_LIVE_LONG_POLL, NULL);
  replace_reader(&c, &m);
  for (int turn = 0; !c.closed; turn++) {
    if (turn > 20000) fail_msg("seed %llu never ends", (unsigned long long)seed);
    if (draw(&m, 6) == 0) replace_reader(&c, &m);
    const weir_durable_reader_state state = state_of(&c.hand);
    if (state.failed) fail_msg("seed %llu: %s", (unsigned long long)seed, state.code);
    if (weir_durable_reader_deadline(c.hand.reader) != WEIR_NEVER) serve(&c, &m);
    collect(&c, &m, draw(&m, 2) == 0 || weir_durable_reader_deadline(c.hand.reader) == WEIR_NEVER);
  }
  assert_int_equal(m.count, APPENDS);
  assert_int_equal(c.len, m.ends[APPENDS]);
  assert_memory_equal(c.got, m.content, c.len);
  done(&c.hand);
}

static void whatever_happens_all_comes_once_and_in_order(void **state) {
  for (uint64_t seed = 1; seed <= 600; seed++)
    run_model(*state, seed);
}

static void read_with(weir_test_alloc *memory) {
  weir_durable_reader_config config = {.live = WEIR_DURABLE_LIVE_SSE};
  hand h = {.reader = weir_durable_reader_new(&memory->alloc, &config), .now = WEIR_SECOND};
  if (h.reader == NULL) return;
  ask(&h);
  head(&h, 200, JSON NEXT("5") TAIL "Stream-Cursor: 3\n");
  (void)feed(&h, "[1,2,\"ab");
  (void)feed(&h, "c\",4]");
  end(&h, WEIR_DURABLE_ANSWERED);
  ask(&h);
  head(&h, 200, EVENTS);
  (void)feed(&h, "event: data\ndata: [5]\n\n" CONTROL("{\"streamNextOffset\":\"8\"}"));
  end(&h, WEIR_DURABLE_ANSWERED);
  if (memory->fail_at <= memory->calls && weir_durable_reader_deadline(h.reader) == WEIR_NEVER) {
    assert_string_equal(state_of(&h).code, "nomem");
  }
  done(&h);
}

static void nothing_leaks_when_an_allocation_fails(void **state) {
  (void)state;
  each_failure(read_with);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      memory_test(catching_up_goes_on_until_the_tail),
      memory_test(pieces_inside_an_answer_have_positions_inside),
      memory_test(a_cut_body_is_asked_for_again_and_what_was_had_is_dropped),
      memory_test(json_comes_as_arrays_of_whole_items),
      memory_test(bad_json_is_a_parse_error),
      memory_test(an_item_that_is_too_long_is_refused),
      memory_test(a_saved_position_goes_on_inside_an_answer),
      memory_test(a_position_beyond_the_tail_is_invalid),
      memory_test(a_tail_before_the_position_moves_nothing),
      memory_test(a_control_event_before_the_position_moves_nothing),
      memory_test(a_tail_that_stays_before_the_position_is_an_error),
      memory_test(what_is_no_position_fails_without_a_request),
      memory_test(now_begins_at_the_tail_that_the_server_names),
      memory_test(long_polls_echo_the_cursor_and_time_out_without_harm),
      memory_test(quick_empty_answers_are_spaced_out),
      memory_test(a_closed_stream_is_the_end_in_every_mode),
      memory_test(auto_reads_json_and_binary_by_events_and_text_by_long_poll),
      memory_test(events_are_handed_out_before_their_control),
      memory_test(each_base64_event_decodes_alone),
      memory_test(json_in_base64_is_json),
      memory_test(text_waits_for_its_control),
      memory_test(a_bad_control_event_is_a_parse_error),
      memory_test(control_events_may_be_escaped_and_have_more_members),
      memory_test(events_are_given_up_when_the_server_has_none),
      memory_test(three_short_connections_that_bring_nothing_end_events),
      memory_test(short_connections_with_data_do_not_end_events),
      memory_test(events_begin_at_once_when_the_type_is_known),
      memory_test(events_that_are_refused_at_once_show_a_bad_offset_by_long_poll),
      memory_test(only_connections_in_a_row_count_as_short),
      memory_test(cuts_with_progress_use_up_no_retries),
      memory_test(text_that_is_too_long_for_its_control_is_read_by_long_poll),
      memory_test(a_tail_without_a_name_is_no_place_to_begin_at),
      memory_test(an_event_that_is_too_long_is_read_by_long_poll),
      memory_test(errors_that_may_pass_are_retried_up_to_the_limit),
      memory_test(errors_that_will_not_pass_end_it),
      memory_test(answers_without_a_usable_offset_are_refused),
      memory_test(an_unwanted_body_is_not_read_for_ever),
      memory_test(whatever_happens_all_comes_once_and_in_order),
      cmocka_unit_test(nothing_leaks_when_an_allocation_fails),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
