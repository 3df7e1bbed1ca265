#include "core/durable/writer.h"

#include <stdio.h>

#include "core/time.h"
#include "support.h"

#define MS WEIR_MILLISECOND
#define NUMBER_MAX ((UINT64_C(1) << 53) - 1)

/* Sends at once, retries at once, one item per batch: what most tests want. */
static weir_durable_writer_config plain(void) {
  weir_durable_writer_config config = {.max_batch_items = 1, .linger = 1};
  weir_retry_policy_default(&config.retry);
  config.retry.initial = config.retry.max = 1;
  config.retry.multiplier = 1;
  return config;
}

static weir_durable_writer *make(weir_test_alloc *memory, weir_durable_writer_config config) {
  weir_durable_writer *writer = weir_durable_writer_new(&memory->alloc, &config);
  assert_non_null(writer);
  return writer;
}

static void append(weir_durable_writer *writer, const char *text) {
  assert_ok(weir_durable_writer_append(writer, text, strlen(text), 0, NULL));
}

static weir_durable_request next(weir_durable_writer *writer) {
  weir_durable_request request;
  assert_ok(weir_durable_writer_next(writer, WEIR_SECOND, &request));
  return request;
}

static void assert_nothing(weir_durable_writer *writer) {
  weir_durable_request request;
  assert_status(weir_durable_writer_next(writer, WEIR_SECOND, &request), WEIR_E_AGAIN);
}

static void assert_over(weir_durable_writer *writer) {
  weir_durable_request request;
  assert_status(weir_durable_writer_next(writer, WEIR_SECOND, &request), WEIR_E_CLOSED);
  assert_true(weir_durable_writer_deadline(writer) == WEIR_NEVER);
}

static void assert_body(const weir_durable_request *request, const char *text) {
  char body[256];
  size_t len = 0;
  for (size_t i = 0; i < request->body_runs; i++) {
    memcpy(body + len, request->body[i].base, request->body[i].len);
    len += request->body[i].len;
  }
  assert_int_equal(len, request->body_len);
  body[len] = '\0';
  assert_string_equal(body, text);
}

static void assert_sent(weir_durable_writer *writer, uint64_t epoch, uint64_t sequence,
                        const char *body, uint64_t *id) {
  const weir_durable_request request = next(writer);
  assert_int_equal(request.epoch, epoch);
  assert_int_equal(request.sequence, sequence);
  assert_body(&request, body);
  *id = request.id;
}

/* An answer with up to two headers that are numbers or flags. */
static void answer(weir_durable_writer *writer, uint64_t id, int status, const char *name,
                   const char *value, const char *name2, const char *value2) {
  weir_durable_response r;
  weir_durable_response_init(&r, status);
  if (name != NULL) weir_durable_response_header(&r, name, strlen(name), value, strlen(value));
  if (name2 != NULL) {
    weir_durable_response_header(&r, name2, strlen(name2), value2, strlen(value2));
  }
  weir_durable_writer_done(writer, id, WEIR_DURABLE_ANSWERED, &r, 0, 0);
}

static void status(weir_durable_writer *writer, uint64_t id, int code) {
  answer(writer, id, code, NULL, NULL, NULL, NULL);
}

static void gap(weir_durable_writer *writer, uint64_t id, const char *expected,
                const char *received) {
  answer(writer, id, 409, "Producer-Expected-Seq", expected, "Producer-Received-Seq", received);
}

static void lose(weir_durable_writer *writer, uint64_t id) {
  weir_durable_writer_done(writer, id, WEIR_DURABLE_LOST, NULL, 0, 0);
}

static const weir_durable_writer_state *of(const weir_durable_writer *writer) {
  return weir_durable_writer_state_of(writer);
}

static void assert_failed(const weir_durable_writer *writer, const char *code, int http,
                          uint64_t first, uint64_t count) {
  assert_true(of(writer)->failed);
  assert_string_equal(of(writer)->code, code);
  assert_int_equal(of(writer)->status, http);
  assert_int_equal(of(writer)->first_item, first);
  assert_int_equal(of(writer)->item_count, count);
}

/* --- batches ---------------------------------------------------------------------------------- */

static void items_gather_into_one_batch_until_the_linger_is_over(void **state) {
  weir_durable_writer *writer = make(*state, (weir_durable_writer_config){.linger = 5 * MS});
  uint64_t item;
  weir_durable_request request;
  assert_true(weir_durable_writer_deadline(writer) == WEIR_NEVER);
  assert_ok(weir_durable_writer_append(writer, "ab", 2, 100, &item));
  assert_int_equal(item, 0);
  assert_ok(weir_durable_writer_append(writer, "cd", 2, 100 + 2 * MS, &item));
  assert_int_equal(item, 1);
  assert_int_equal(weir_durable_writer_deadline(writer), 100 + 5 * MS);
  assert_status(weir_durable_writer_next(writer, 99 + 5 * MS, &request), WEIR_E_AGAIN);
  assert_ok(weir_durable_writer_next(writer, 100 + 5 * MS, &request));
  assert_body(&request, "abcd");
  assert_int_equal(request.first_item, 0);
  assert_int_equal(request.item_count, 2);
  assert_false(request.close);
  assert_int_equal(of(writer)->in_flight, 1);
  status(writer, request.id, 200);
  assert_int_equal(of(writer)->confirmed, 2);
  assert_int_equal(of(writer)->queued_bytes, 0);
  weir_durable_writer_free(writer);
}

static void json_items_become_an_array(void **state) {
  weir_durable_writer *writer = make(*state, (weir_durable_writer_config){.json = true});
  uint64_t id;
  append(writer, "1");
  append(writer, "{\"a\":[]}");
  append(writer, "\"x\"");
  weir_durable_writer_flush(writer);
  assert_sent(writer, 0, 0, "[1,{\"a\":[]},\"x\"]", &id);
  status(writer, id, 200);
  append(writer, "[2]");
  weir_durable_writer_flush(writer);
  assert_sent(writer, 0, 1, "[[2]]", &id);
  weir_durable_writer_free(writer);
}

static void a_flush_ends_the_linger_of_what_is_queued_only(void **state) {
  weir_durable_writer *writer = make(*state, (weir_durable_writer_config){.linger = 5 * MS});
  uint64_t id;
  weir_durable_request request;
  append(writer, "a");
  weir_durable_writer_flush(writer);
  assert_int_equal(weir_durable_writer_deadline(writer), 0);
  assert_sent(writer, 0, 0, "a", &id);
  status(writer, id, 200);
  append(writer, "b");
  assert_status(weir_durable_writer_next(writer, 0, &request), WEIR_E_AGAIN);
  weir_durable_writer_free(writer);
}

static void a_batch_that_waits_for_its_turn_goes_on_growing(void **state) {
  weir_durable_writer *writer = make(*state, (weir_durable_writer_config){.linger = 1});
  uint64_t id;
  append(writer, "a");
  assert_sent(writer, 0, 0, "a", &id);
  append(writer, "b");
  assert_nothing(writer);
  append(writer, "c");
  status(writer, id, 200);
  assert_sent(writer, 0, 1, "bc", &id);
  weir_durable_writer_free(writer);
}

static void a_full_batch_does_not_linger(void **state) {
  weir_durable_writer *writer =
      make(*state, (weir_durable_writer_config){.linger = MS, .max_batch_items = 2});
  weir_durable_request request;
  append(writer, "a");
  assert_status(weir_durable_writer_next(writer, 0, &request), WEIR_E_AGAIN);
  append(writer, "b");
  append(writer, "c");
  assert_ok(weir_durable_writer_next(writer, 0, &request));
  assert_body(&request, "ab");
  weir_durable_writer_free(writer);
}

static void a_body_is_never_longer_than_the_limit_but_for_one_large_item(void **state) {
  for (int json = 0; json < 2; json++) {
    weir_durable_writer *writer = make(
        *state, (weir_durable_writer_config){.max_batch_bytes = 10, .linger = 1, .json = json});
    static const char *const BYTES[] = {"aaaabbbb", "cccc", "dddddddddddd", "eeeeffffgg"};
    static const char *const JSON[] = {"[aaaa]", "[bbbb]", "[cccc]", "[dddddddddddd]"};
    uint64_t id;
    append(writer, "aaaa");
    append(writer, "bbbb");
    append(writer, "cccc");
    append(writer, "dddddddddddd");
    append(writer, "eeee");
    append(writer, "ffff");
    append(writer, "gg");
    for (int i = 0; i < 4; i++) {
      assert_sent(writer, 0, (uint64_t)i, json ? JSON[i] : BYTES[i], &id);
      status(writer, id, 200);
    }
    weir_durable_writer_free(writer);
  }
}

static void an_empty_item_is_refused(void **state) {
  weir_durable_writer *writer = make(*state, plain());
  assert_status(weir_durable_writer_append(writer, "", 0, 0, NULL), WEIR_E_INVALID);
  assert_int_equal(of(writer)->items, 0);
  weir_durable_writer_free(writer);
}

static void what_is_not_confirmed_is_bounded(void **state) {
  weir_test_alloc *memory = *state;
  weir_durable_writer *writer = make(
      memory, (weir_durable_writer_config){.buffer = 4096, .max_batch_bytes = 1000, .linger = 1});
  char item[100];
  weir_status result;
  memset(item, 'x', sizeof item);
  size_t n = 0;
  while ((result = weir_durable_writer_append(writer, item, sizeof item, 0, NULL)) == WEIR_OK)
    n++;
  assert_status(result, WEIR_E_AGAIN);
  assert_in_range(n, 25, 40);
  assert_int_equal(of(writer)->queued_bytes, n * 100);
  assert_in_range(memory->bytes, n * 100, 16384);
  const weir_durable_request request = next(writer);
  assert_status(weir_durable_writer_append(writer, item, 100, 0, NULL), WEIR_E_AGAIN);
  status(writer, request.id, 200); /* makes room for the ten that were in it */
  for (int i = 0; i < 10; i++)
    assert_ok(weir_durable_writer_append(writer, item, 100, 0, NULL));
  weir_durable_writer_free(writer);
}

static void tiny_batches_cannot_pile_up_either(void **state) {
  weir_test_alloc *memory = *state;
  weir_durable_writer_config config = plain();
  config.buffer = 100000;
  static const size_t BYTES[] = {16, 0};
  static const uint32_t ITEMS[] = {1, 3};
  for (int i = 0; i < 4; i++) {
    config.max_batch_bytes = BYTES[i & 1];
    config.max_batch_items = ITEMS[i / 2];
    weir_durable_writer *writer = make(memory, config);
    while (weir_durable_writer_append(writer, "x", 1, 0, NULL) == WEIR_OK)
      continue;
    assert_in_range(memory->bytes, 50000, 150000);
    weir_durable_writer_free(writer);
  }
}

static void an_item_above_the_bound_may_go_alone(void **state) {
  weir_durable_writer *writer = make(*state, (weir_durable_writer_config){.buffer = 10});
  append(writer, "twelve bytes");
  assert_status(weir_durable_writer_append(writer, "x", 1, 0, NULL), WEIR_E_AGAIN);
  status(writer, (weir_durable_writer_flush(writer), next(writer).id), 200);
  append(writer, "twelve bytes");
  weir_durable_writer_free(writer);
}

/* --- retries ---------------------------------------------------------------------------------- */

static void the_same_request_goes_out_until_it_is_confirmed(void **state) {
  weir_durable_writer *writer = make(*state, plain());
  static const weir_durable_transport WAYS[] = {WEIR_DURABLE_NOT_SENT, WEIR_DURABLE_LOST,
                                                WEIR_DURABLE_TIMED_OUT};
  static const int STATUS[] = {500, 502, 503, 504, 429, 599};
  uint64_t id, last = 0;
  append(writer, "a");
  append(writer, "b");
  for (size_t i = 0; i < 9; i++) {
    assert_sent(writer, 0, 0, "a", &id);
    assert_true(id > last);
    last = id;
    assert_nothing(writer); /* b is not sent before a is there */
    if (i < 3) weir_durable_writer_done(writer, id, WAYS[i], NULL, 0, 0);
    if (i >= 3) status(writer, id, STATUS[i - 3]);
    assert_int_equal(of(writer)->confirmed, 0);
  }
  assert_sent(writer, 0, 0, "a", &id);
  status(writer, id, 204);
  assert_int_equal(of(writer)->confirmed, 1);
  assert_int_equal(of(writer)->retries, 9);
  assert_int_equal(of(writer)->duplicates, 1);
  assert_sent(writer, 0, 1, "b", &id);
  weir_durable_writer_free(writer);
}

static void a_retry_waits_as_the_policy_and_the_server_say(void **state) {
  weir_durable_writer_config config = plain();
  config.retry.initial = config.retry.max = 1000;
  weir_durable_writer *writer = make(*state, config);
  weir_durable_request request;
  uint64_t id;
  append(writer, "a");
  assert_sent(writer, 0, 0, "a", &id);
  weir_durable_writer_done(writer, id, WEIR_DURABLE_LOST, NULL, 5000, UINT64_C(1) << 63);
  assert_int_equal(weir_durable_writer_deadline(writer), 5500);
  assert_status(weir_durable_writer_next(writer, 5499, &request), WEIR_E_AGAIN);
  assert_ok(weir_durable_writer_next(writer, 5500, &request));
  answer(writer, request.id, 429, "Retry-After", "3", NULL, NULL);
  assert_true(weir_durable_writer_deadline(writer) == 3 * WEIR_SECOND);
  weir_durable_writer_free(writer);
}

static void attempts_may_be_bounded(void **state) {
  weir_durable_writer_config config = plain();
  config.retry.max_retries = 2;
  weir_durable_writer *writer = make(*state, config);
  uint64_t id;
  append(writer, "a");
  append(writer, "b");
  append(writer, "c");
  assert_sent(writer, 0, 0, "a", &id);
  status(writer, id, 200);
  for (int i = 0; i < 3; i++) {
    assert_sent(writer, 0, 1, "b", &id);
    assert_false(of(writer)->failed);
    status(writer, id, 503);
  }
  assert_over(writer);
  assert_failed(writer, "server_error", 503, 1, 2);
  assert_int_equal(of(writer)->refused_count, 1);
  assert_int_equal(of(writer)->unsent, 2);
  weir_durable_writer_free(writer);
}

static void unknown_ids_and_second_answers_are_ignored(void **state) {
  weir_durable_writer *writer = make(*state, plain());
  uint64_t id, again;
  append(writer, "a");
  status(writer, 0, 200);
  status(writer, 1, 200);
  assert_sent(writer, 0, 0, "a", &id);
  lose(writer, id);
  status(writer, id, 200); /* too late: that request had ended */
  assert_int_equal(of(writer)->confirmed, 0);
  assert_sent(writer, 0, 0, "a", &again);
  status(writer, again, 200);
  status(writer, again, 404);
  assert_false(of(writer)->failed);
  assert_int_equal(of(writer)->in_flight, 0);
  weir_durable_writer_free(writer);
}

/* --- pipelining ------------------------------------------------------------------------------- */

/* A writer with `window` requests in flight at a time, the first batch of its epoch confirmed. */
static weir_durable_writer *pipelined(weir_test_alloc *memory, uint32_t window, bool auto_claim) {
  weir_durable_writer_config config = plain();
  config.max_in_flight = window;
  config.auto_claim = auto_claim;
  weir_durable_writer *writer = make(memory, config);
  uint64_t id;
  append(writer, "0");
  append(writer, "1");
  append(writer, "2");
  append(writer, "3");
  append(writer, "4");
  assert_sent(writer, 0, 0, "0", &id);
  assert_nothing(writer); /* a server may learn of an epoch only from sequence 0 */
  status(writer, id, 200);
  return writer;
}

/* The same with a window of three, and batches 1 to 3 on their way. */
static weir_durable_writer *three_out(weir_test_alloc *memory, bool auto_claim, uint64_t *a,
                                      uint64_t *b, uint64_t *c) {
  weir_durable_writer *writer = pipelined(memory, 3, auto_claim);
  assert_sent(writer, 0, 1, "1", a);
  assert_sent(writer, 0, 2, "2", b);
  assert_sent(writer, 0, 3, "3", c);
  return writer;
}

static void no_more_requests_are_out_than_allowed(void **state) {
  weir_durable_writer *writer = pipelined(*state, 2, false);
  uint64_t a, b;
  assert_sent(writer, 0, 1, "1", &a);
  assert_sent(writer, 0, 2, "2", &b);
  assert_nothing(writer);
  assert_true(weir_durable_writer_deadline(writer) == WEIR_NEVER);
  status(writer, a, 200);
  assert_sent(writer, 0, 3, "3", &a);
  assert_nothing(writer);
  weir_durable_writer_free(writer);
}

static void an_answer_confirms_all_batches_before_it(void **state) {
  uint64_t a, b, c;
  weir_durable_writer *writer = three_out(*state, false, &a, &b, &c);
  lose(writer, a);
  answer(writer, c, 200, "Stream-Next-Offset", "0_9", NULL, NULL);
  assert_int_equal(of(writer)->confirmed, 4);
  assert_int_equal(of(writer)->in_flight, 1);
  lose(writer, b); /* whatever: it is there */
  assert_int_equal(of(writer)->in_flight, 0);
  assert_int_equal(of(writer)->offset.len, 3);
  assert_sent(writer, 0, 4, "4", &a);
  assert_int_equal(of(writer)->retries, 0);
  status(writer, a, 200);
  assert_int_equal(of(writer)->batches, 5);
  assert_int_equal(of(writer)->offset.len, 0); /* not said, and the old one is behind */
  weir_durable_writer_free(writer);
}

static void only_what_did_not_arrive_is_sent_again_and_not_before_its_turn(void **state) {
  uint64_t a, b, c;
  weir_durable_writer *writer = three_out(*state, false, &a, &b, &c);
  gap(writer, c, "1", "3");
  assert_nothing(writer);
  status(writer, a, 200);
  assert_nothing(writer);
  status(writer, b, 200);
  assert_sent(writer, 0, 3, "3", &c);
  assert_int_equal(of(writer)->retries, 1);
  assert_sent(writer, 0, 4, "4", &a);
  weir_durable_writer_free(writer);
}

static void a_gap_tells_what_has_arrived(void **state) {
  uint64_t a, b, c;
  weir_durable_writer *writer = three_out(*state, false, &a, &b, &c);
  lose(writer, a);
  gap(writer, c, "2", "3"); /* so 1 is there */
  assert_int_equal(of(writer)->confirmed, 2);
  assert_int_equal(of(writer)->confirmed_sequence, 2);
  assert_int_equal(of(writer)->next_sequence, 4);
  lose(writer, b);
  assert_sent(writer, 0, 2, "2", &b);
  assert_nothing(writer);
  status(writer, b, 200);
  assert_sent(writer, 0, 3, "3", &c);
  weir_durable_writer_free(writer);
}

static void a_gap_may_say_that_the_batch_itself_has_arrived(void **state) {
  weir_durable_writer *writer = pipelined(*state, 2, false);
  uint64_t a, b;
  assert_sent(writer, 0, 1, "1", &a);
  assert_sent(writer, 0, 2, "2", &b);
  gap(writer, a, "3", "1");
  assert_int_equal(of(writer)->confirmed, 3);
  assert_int_equal(of(writer)->in_flight, 1);
  assert_sent(writer, 0, 3, "3", &a);
  answer(writer, a, 200, "Stream-Next-Offset", "0_4", NULL, NULL);
  assert_int_equal(of(writer)->offset.len, 3);
  status(writer, b, 200);
  assert_sent(writer, 0, 4, "4", &a);
  gap(writer, a, "5", "4");
  assert_int_equal(of(writer)->confirmed, 5);
  assert_int_equal(of(writer)->offset.len, 0); /* the one known is not behind the last any more */
  weir_durable_writer_free(writer);
}

static void an_old_gap_does_not_look_like_a_loss(void **state) {
  uint64_t a, b, c;
  weir_durable_writer *writer = three_out(*state, false, &a, &b, &c);
  status(writer, a, 200);
  status(writer, b, 200);
  gap(writer, c, "1", "3"); /* was said before 1 arrived */
  assert_false(of(writer)->failed);
  assert_sent(writer, 0, 3, "3", &c);
  weir_durable_writer_free(writer);
}

static void a_gap_that_cannot_be_ours_ends_the_writer(void **state) {
  static const char *const CASES[][2] = {
      {"0", "1"}, /* the server has lost what it confirmed */
      {"9", "1"}, /* somebody else writes with our name */
      {"1", "1"}, /* makes no sense */
      {"2", "7"}, /* not about this request */
  };
  for (size_t i = 0; i < 4; i++) {
    weir_durable_writer *writer = pipelined(*state, 1, false);
    uint64_t id;
    assert_sent(writer, 0, 1, "1", &id);
    gap(writer, id, CASES[i][0], CASES[i][1]);
    assert_over(writer);
    assert_failed(writer, "sequence_conflict", 409, 1, 4);
    assert_int_equal(of(writer)->response.expected_seq, (uint64_t)atoi(CASES[i][0]));
    assert_int_equal(of(writer)->response.received_seq, (uint64_t)atoi(CASES[i][1]));
    assert_int_equal(of(writer)->refused_sequence, 1);
    weir_durable_writer_free(writer);
  }
}

static void a_restored_position_that_the_server_does_not_know_is_a_conflict(void **state) {
  weir_durable_writer_config config = plain();
  config.epoch = 3;
  config.sequence = 7;
  weir_durable_writer *writer = make(*state, config);
  uint64_t id;
  append(writer, "a");
  assert_sent(writer, 3, 7, "a", &id);
  gap(writer, id, "0", "7");
  assert_failed(writer, "sequence_conflict", 409, 0, 1);
  weir_durable_writer_free(writer);
}

/* --- failures --------------------------------------------------------------------------------- */

static void what_repeating_cannot_mend_ends_the_writer(void **state) {
  static const struct {
    int status;
    const char *code, *name;
  } CASES[] = {{400, "parse_error", NULL},  {401, "unauthorized", NULL},
               {403, "forbidden", NULL},    {404, "not_found", NULL},
               {409, "conflict", NULL},     {409, "stream_closed", "Stream-Closed"},
               {410, "gone", NULL},         {413, "too_large", NULL},
               {302, "server_error", NULL}, {202, "server_error", NULL}};
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
    weir_durable_writer *writer = make(*state, plain());
    uint64_t id;
    append(writer, "a");
    append(writer, "b");
    assert_sent(writer, 0, 0, "a", &id);
    answer(writer, id, CASES[i].status, CASES[i].name, "true", NULL, NULL);
    assert_over(writer);
    assert_failed(writer, CASES[i].code, CASES[i].status, 0, 2);
    assert_int_equal(of(writer)->unsent, 1);
    assert_status(weir_durable_writer_append(writer, "c", 1, 0, NULL), WEIR_E_CLOSED);
    assert_status(weir_durable_writer_close(writer, NULL, 0, 0), WEIR_E_CLOSED);
    weir_durable_writer_free(writer);
  }
}

static void batches_before_a_refused_one_are_brought_to_their_end(void **state) {
  uint64_t a, b, c;
  weir_durable_writer *writer = three_out(*state, false, &a, &b, &c);
  status(writer, b, 413);
  gap(writer, c, "1", "3");
  lose(writer, a);
  assert_false(of(writer)->failed);
  assert_sent(writer, 0, 1, "1", &a);
  assert_nothing(writer);
  status(writer, a, 200);
  assert_over(writer);
  assert_failed(writer, "too_large", 413, 2, 3);
  assert_int_equal(of(writer)->refused_count, 1);
  weir_durable_writer_free(writer);
}

static void the_first_refusal_in_order_is_the_one_that_counts(void **state) {
  uint64_t a, b, c;
  weir_durable_writer *writer = three_out(*state, false, &a, &b, &c);
  status(writer, b, 413);
  status(writer, c, 404);
  status(writer, a, 401);
  assert_failed(writer, "unauthorized", 401, 1, 4);
  assert_int_equal(of(writer)->in_flight, 0);
  weir_durable_writer_free(writer);
}

static void a_later_refusal_does_not_hide_an_earlier_one(void **state) {
  uint64_t a, b, c;
  weir_durable_writer *writer = three_out(*state, false, &a, &b, &c);
  status(writer, b, 413);
  status(writer, c, 404);
  status(writer, a, 200);
  assert_failed(writer, "too_large", 413, 2, 3);
  weir_durable_writer_free(writer);
}

static void a_failure_does_not_claim_items_that_had_arrived_after_all(void **state) {
  weir_durable_writer *writer = pipelined(*state, 3, false);
  uint64_t a, b;
  assert_sent(writer, 0, 1, "1", &a);
  assert_sent(writer, 0, 2, "2", &b);
  status(writer, a, 413);
  assert_true(of(writer)->failed);
  assert_int_equal(of(writer)->refused_count, 1);
  status(writer, b, 200);
  assert_true(of(writer)->failed);
  assert_int_equal(of(writer)->refused_count, 0);
  assert_int_equal(of(writer)->first_item + of(writer)->item_count, of(writer)->items);
  weir_durable_writer_free(writer);
}

static void a_batch_that_had_arrived_after_all_is_no_failure(void **state) {
  uint64_t a, b, c;
  weir_durable_writer *writer = three_out(*state, false, &a, &b, &c);
  lose(writer, b); /* but it did arrive */
  assert_sent(writer, 0, 2, "2", &b);
  status(writer, b, 401);
  assert_nothing(writer);
  status(writer, c, 200);
  status(writer, a, 200);
  assert_false(of(writer)->failed);
  assert_int_equal(of(writer)->confirmed, 4);
  assert_sent(writer, 0, 4, "4", &a);
  status(writer, a, 413);
  assert_failed(writer, "too_large", 413, 4, 1);
  weir_durable_writer_free(writer);
}

/* --- epochs ----------------------------------------------------------------------------------- */

static void a_stale_epoch_ends_the_writer_unless_it_claims(void **state) {
  weir_durable_writer *writer = pipelined(*state, 1, false);
  uint64_t id;
  assert_sent(writer, 0, 1, "1", &id);
  answer(writer, id, 403, "Producer-Epoch", "7", NULL, NULL);
  assert_failed(writer, "stale_epoch", 403, 1, 4);
  assert_int_equal(of(writer)->response.producer_epoch, 7);
  weir_durable_writer_free(writer);
}

static void auto_claim_numbers_everything_unconfirmed_anew(void **state) {
  uint64_t a, b, c;
  weir_durable_writer *writer = three_out(*state, true, &a, &b, &c);
  answer(writer, b, 403, "Producer-Epoch", "4", NULL, NULL);
  assert_nothing(writer);
  status(writer, a, 200); /* was in time */
  assert_nothing(writer); /* not before all that is out has ended */
  answer(writer, c, 403, "Producer-Epoch", "5", NULL, NULL);
  assert_sent(writer, 6, 0, "2", &b);
  assert_nothing(writer); /* not pipelined until it is accepted */
  status(writer, b, 200);
  assert_sent(writer, 6, 1, "3", &c);
  assert_sent(writer, 6, 2, "4", &a);
  assert_int_equal(of(writer)->claims, 1);
  assert_int_equal(of(writer)->epoch, 6);
  assert_int_equal(of(writer)->next_sequence, 3);
  assert_int_equal(of(writer)->confirmed_sequence, 1);
  weir_durable_writer_free(writer);
}

static void what_may_have_arrived_is_not_sent_under_another_epoch(void **state) {
  weir_durable_writer *writer = pipelined(*state, 1, true);
  uint64_t id;
  assert_sent(writer, 0, 1, "1", &id);
  lose(writer, id);
  assert_sent(writer, 0, 1, "1", &id);
  answer(writer, id, 403, "Producer-Epoch", "1", NULL, NULL);
  assert_over(writer);
  assert_failed(writer, "stale_epoch", 403, 1, 4);
  assert_int_equal(of(writer)->response.producer_epoch, 1);
  assert_int_equal(of(writer)->unsent, 2);
  weir_durable_writer_free(writer);
}

static void what_cannot_have_arrived_is(void **state) {
  weir_durable_writer *writer = pipelined(*state, 1, true);
  uint64_t id;
  assert_sent(writer, 0, 1, "1", &id);
  status(writer, id, 503);
  assert_sent(writer, 0, 1, "1", &id);
  weir_durable_writer_done(writer, id, WEIR_DURABLE_NOT_SENT, NULL, 0, 0);
  assert_sent(writer, 0, 1, "1", &id);
  answer(writer, id, 403, "Producer-Epoch", "1", NULL, NULL);
  assert_sent(writer, 2, 0, "1", &id);
  weir_durable_writer_free(writer);
}

static void what_an_old_epoch_did_not_take_is_not_in_doubt_any_more(void **state) {
  weir_durable_writer *writer = pipelined(*state, 2, true);
  uint64_t a, b;
  assert_sent(writer, 0, 1, "1", &a);
  assert_sent(writer, 0, 2, "2", &b);
  lose(writer, b);
  answer(writer, a, 403, "Producer-Epoch", "1", NULL, NULL); /* so neither of them is there */
  assert_sent(writer, 2, 0, "1", &a);
  status(writer, a, 200);
  assert_sent(writer, 2, 1, "2", &b);
  answer(writer, b, 403, "Producer-Epoch", "3", NULL, NULL);
  assert_sent(writer, 4, 0, "2", &b);
  weir_durable_writer_free(writer);
}

static void two_who_claim_from_each_other_back_off(void **state) {
  weir_durable_writer_config config = plain();
  config.auto_claim = true;
  config.retry.initial = config.retry.max = 1000;
  config.retry.max_retries = 3;
  weir_durable_writer *writer = make(*state, config);
  weir_durable_response r;
  weir_durable_request request;
  weir_durable_response_init(&r, 403);
  append(writer, "a");
  request = next(writer);
  for (uint64_t round = 0; round < 4; round++) {
    r.producer_epoch = request.epoch + 1;
    weir_durable_writer_done(writer, request.id, WEIR_DURABLE_ANSWERED, &r, 10, UINT64_C(1) << 63);
    assert_int_equal(weir_durable_writer_deadline(writer), round == 0 ? 0 : 510);
    request = next(writer);
    assert_int_equal(request.epoch, 2 * round + 2);
    assert_int_equal(request.sequence, 0);
  }
  r.producer_epoch = request.epoch + 1;
  weir_durable_writer_done(writer, request.id, WEIR_DURABLE_ANSWERED, &r, 10, 0);
  assert_failed(writer, "stale_epoch", 403, 0, 1);
  weir_durable_writer_free(writer);
}

static void epochs_that_cannot_be_are_not_claimed(void **state) {
  static const char *const EPOCHS[] = {"9007199254740991", "3", "2"};
  for (size_t i = 0; i < 3; i++) {
    weir_durable_writer_config config = plain();
    config.auto_claim = true;
    config.epoch = 3;
    weir_durable_writer *writer = make(*state, config);
    uint64_t id;
    append(writer, "a");
    assert_sent(writer, 3, 0, "a", &id);
    answer(writer, id, 403, "Producer-Epoch", EPOCHS[i], NULL, NULL);
    assert_failed(writer, "stale_epoch", 403, 0, 1);
    weir_durable_writer_free(writer);
  }
}

static void a_new_epoch_that_somebody_else_has_begun_as_well_is_left_to_them(void **state) {
  weir_durable_writer *writer = pipelined(*state, 1, true);
  uint64_t id;
  assert_sent(writer, 0, 1, "1", &id);
  answer(writer, id, 403, "Producer-Epoch", "1", NULL, NULL);
  assert_sent(writer, 2, 0, "1", &id);
  status(writer, id, 204); /* not of this batch: it was never sent in this epoch before */
  assert_int_equal(of(writer)->confirmed, 1);
  assert_sent(writer, 3, 0, "1", &id);
  lose(writer, id);
  assert_sent(writer, 3, 0, "1", &id);
  status(writer, id, 204); /* now it may well be this one */
  assert_int_equal(of(writer)->confirmed, 2);
  weir_durable_writer_free(writer);

  writer = make(*state, plain());
  assert_ok(weir_durable_writer_restart(writer));
  append(writer, "a");
  assert_sent(writer, 1, 0, "a", &id);
  status(writer, id, 204);
  assert_failed(writer, "stale_epoch", 204, 0, 1);
  weir_durable_writer_free(writer);
}

static void a_restart_begins_the_next_epoch_when_all_is_confirmed(void **state) {
  weir_durable_writer *writer = make(*state, plain());
  uint64_t id;
  append(writer, "a");
  assert_status(weir_durable_writer_restart(writer), WEIR_E_INVALID);
  assert_sent(writer, 0, 0, "a", &id);
  assert_status(weir_durable_writer_restart(writer), WEIR_E_INVALID);
  status(writer, id, 200);
  assert_int_equal(of(writer)->next_sequence, 1);
  assert_ok(weir_durable_writer_restart(writer));
  append(writer, "b");
  assert_sent(writer, 1, 0, "b", &id);
  weir_durable_writer_free(writer);

  weir_durable_writer_config config = plain();
  config.epoch = NUMBER_MAX;
  writer = make(*state, config);
  assert_status(weir_durable_writer_restart(writer), WEIR_E_LIMIT);
  weir_durable_writer_free(writer);
}

static void numbers_end_where_the_protocol_ends_them(void **state) {
  weir_durable_writer_config config = plain();
  config.sequence = NUMBER_MAX;
  weir_durable_writer *writer = make(*state, config);
  uint64_t id;
  append(writer, "a");
  append(writer, "b");
  assert_sent(writer, 0, NUMBER_MAX, "a", &id);
  status(writer, id, 200);
  assert_over(writer);
  assert_failed(writer, "sequence_conflict", 0, 1, 1);
  weir_durable_writer_free(writer);
}

static void configurations_that_make_no_sense_are_refused_by_name(void **state) {
  weir_test_alloc *memory = *state;
  weir_durable_writer_config cases[] = {{.epoch = NUMBER_MAX + 1},
                                        {.sequence = NUMBER_MAX + 1},
                                        {.retry = {.initial = 5, .max = 4, .multiplier = 1}}};
  static const char *const FIELDS[] = {"epoch", "sequence", "max"};
  for (size_t i = 0; i < 3; i++) {
    const char *field = NULL;
    assert_status(weir_durable_writer_check(&cases[i], &field), WEIR_E_INVALID);
    assert_string_equal(field, FIELDS[i]);
    assert_null(weir_durable_writer_new(&memory->alloc, &cases[i]));
  }
}

/* --- closing ---------------------------------------------------------------------------------- */

static void a_close_has_a_number_of_its_own_and_goes_last_and_alone(void **state) {
  weir_durable_writer *writer = pipelined(*state, 5, false);
  uint64_t id[4];
  assert_ok(weir_durable_writer_close(writer, NULL, 0, 0));
  assert_status(weir_durable_writer_append(writer, "x", 1, 0, NULL), WEIR_E_CLOSED);
  assert_status(weir_durable_writer_close(writer, NULL, 0, 0), WEIR_E_CLOSED);
  for (uint64_t i = 0; i < 4; i++) {
    const weir_durable_request request = next(writer);
    id[i] = request.id;
    assert_false(request.close);
  }
  assert_nothing(writer);
  status(writer, id[3], 200);
  weir_durable_request request = next(writer);
  assert_true(request.close);
  assert_int_equal(request.sequence, 5);
  assert_int_equal(request.body_len, 0);
  assert_int_equal(request.body_runs, 0);
  assert_int_equal(request.item_count, 0);
  lose(writer, request.id);
  request = next(writer);
  assert_int_equal(request.sequence, 5);
  assert_false(of(writer)->closed);
  answer(writer, request.id, 204, "Stream-Closed", "true", "Stream-Next-Offset", "0_5");
  assert_true(of(writer)->closed);
  assert_int_equal(of(writer)->offset.len, 3);
  assert_over(writer);
  for (int i = 0; i < 3; i++)
    lose(writer, id[i]);
  assert_int_equal(of(writer)->in_flight, 0);
  weir_durable_writer_free(writer);
}

static void a_close_may_have_a_last_item(void **state) {
  for (int json = 0; json < 2; json++) {
    weir_durable_writer_config config = plain();
    config.json = json;
    config.buffer = 1;
    weir_durable_writer *writer = make(*state, config);
    uint64_t id;
    append(writer, "1");
    assert_ok(weir_durable_writer_close(writer, "22", 2, 0));
    assert_int_equal(of(writer)->items, 2);
    assert_sent(writer, 0, 0, json ? "[1]" : "1", &id);
    status(writer, id, 200);
    const weir_durable_request request = next(writer);
    assert_true(request.close);
    assert_body(&request, json ? "[22]" : "22");
    answer(writer, request.id, 200, "Stream-Closed", "true", NULL, NULL);
    assert_true(of(writer)->closed);
    assert_int_equal(of(writer)->confirmed, 2);
    weir_durable_writer_free(writer);
  }
}

static void a_close_that_others_came_before_fails(void **state) {
  weir_durable_writer *writer = make(*state, plain());
  assert_ok(weir_durable_writer_close(writer, NULL, 0, 0));
  answer(writer, next(writer).id, 409, "Stream-Closed", "true", NULL, NULL);
  assert_failed(writer, "stream_closed", 409, 0, 0);
  assert_false(of(writer)->closed);
  weir_durable_writer_free(writer);
}

static void a_close_whose_number_was_taken_by_data_did_not_close(void **state) {
  for (size_t len = 0; len < 2; len++) {
    weir_durable_writer *writer = make(*state, plain());
    assert_ok(weir_durable_writer_close(writer, "x", len, 0));
    status(writer, next(writer).id, 204);
    assert_failed(writer, "sequence_conflict", 204, 0, len);
    assert_false(of(writer)->closed);
    weir_durable_writer_free(writer);
  }
}

static void a_close_in_an_epoch_that_somebody_else_began_is_sent_in_the_next(void **state) {
  for (size_t len = 0; len < 2; len++) {
    weir_durable_writer_config config = plain();
    config.auto_claim = true;
    weir_durable_writer *writer = make(*state, config);
    assert_ok(weir_durable_writer_restart(writer));
    assert_ok(weir_durable_writer_close(writer, "x", len, 0));
    status(writer, next(writer).id, 204);
    const weir_durable_request request = next(writer);
    assert_int_equal(request.epoch, 2);
    answer(writer, request.id, 204, "Stream-Closed", "true", NULL, NULL);
    assert_int_equal(of(writer)->closed, len == 0); /* with a body, 204 is a repeat again */
    weir_durable_writer_free(writer);
  }
}

/* --- memory ----------------------------------------------------------------------------------- */

static void run_short_of_memory(weir_test_alloc *memory) {
  weir_durable_writer_config config = {
      .max_batch_bytes = 20000, .max_batch_items = 300, .json = true};
  weir_durable_writer *writer = weir_durable_writer_new(&memory->alloc, &config);
  if (writer == NULL) return;
  char item[100];
  memset(item, '7', sizeof item);
  uint64_t taken = 0;
  for (int i = 0; i < 500; i++) {
    uint64_t number;
    const weir_status result = weir_durable_writer_append(writer, item, sizeof item, 0, &number);
    if (result == WEIR_OK) assert_int_equal(number, taken++);
    if (result != WEIR_OK) assert_status(result, WEIR_E_NOMEM);
  }
  const weir_status result = weir_durable_writer_close(writer, item, 50, 0);
  if (result != WEIR_OK) assert_ok(weir_durable_writer_close(writer, item, 50, 0));
  assert_int_equal(of(writer)->items, taken + 1);
  assert_in_range(taken, 499, 500);
  weir_durable_request request;
  while (weir_durable_writer_next(writer, WEIR_SECOND, &request) == WEIR_OK) {
    const unsigned char *body = request.body[0].base;
    const size_t each = request.close ? 50 : 100;
    assert_int_equal(request.body_len, 1 + request.item_count * (each + 1));
    assert_true(body[0] == '[' && body[request.body_len - 1] == ']');
    answer(writer, request.id, 200, "Stream-Closed", request.close ? "true" : "", NULL, NULL);
  }
  assert_true(of(writer)->closed);
  assert_int_equal(of(writer)->confirmed, taken + 1);
  weir_durable_writer_free(writer);
}

static void any_allocation_may_fail_without_harm(void **state) {
  (void)state;
  each_failure(run_short_of_memory);
}

static void it_can_be_freed_at_any_time_and_null_too(void **state) {
  weir_durable_writer *writer = pipelined(*state, 3, true);
  uint64_t id;
  assert_sent(writer, 0, 1, "1", &id);
  weir_durable_writer_free(writer);
  weir_durable_writer_free(NULL);
}

/* --- simulation ------------------------------------------------------------------------------- */

/*
 * A model of the server, by the protocol's rules for producers, behind a network that loses,
 * delays, repeats and reorders. Requests that the client has given up may still be executed later.
 * Each item is its number in four bytes; what a second writer appends has the top bit set.
 */
enum {
  MODEL_ITEMS = 400,
  MODEL_WIRE = 64,
  MODEL_FOREIGN = 0x80
};

typedef struct model_request {
  bool used;
  bool executed;  /* the server has answered it */
  bool abandoned; /* the client does not wait any more */
  uint64_t id, epoch, sequence, sent;
  bool close;
  unsigned char body[64];
  size_t body_len;
  weir_durable_response answer;
} model_request;

typedef struct model {
  uint64_t seed;
  /* The server. */
  bool known, closed;
  uint64_t epoch, last; /* of the producer; `last` is the highest accepted sequence */
  uint64_t closing_epoch, closing_sequence;
  unsigned char stream[MODEL_ITEMS * 8 * 2];
  size_t len;
  uint64_t appends;
  /* The network. */
  model_request wire[MODEL_WIRE];
  uint64_t faults, fences, ghosts;
} model;

static char model_playing[80]; /* to be said when it fails */

static uint64_t roll(model *m, uint64_t n) { return weir_test_random(&m->seed) % n; }

static void model_gap(weir_durable_response *answer, uint64_t expected, uint64_t received) {
  weir_durable_response_init(answer, 409);
  answer->expected_seq = expected;
  answer->received_seq = received;
}

static void model_accept(model *m, const model_request *r, weir_durable_response *answer) {
  assert_true(m->len + r->body_len <= sizeof m->stream);
  if (r->body_len > 0) memcpy(m->stream + m->len, r->body, r->body_len);
  m->len += r->body_len;
  m->known = true;
  m->epoch = r->epoch;
  m->last = r->sequence;
  m->appends++;
  if (r->close) {
    m->closed = true;
    m->closing_epoch = r->epoch;
    m->closing_sequence = r->sequence;
  }
  weir_durable_response_init(answer, r->close && r->body_len == 0 ? 204 : 200);
  answer->closed = r->close;
  answer->producer_epoch = r->epoch;
  answer->producer_seq = r->sequence;
  answer->next_offset.len = (uint16_t)snprintf(answer->next_offset.bytes, 32, "0_%zu", m->len);
}

static void model_execute(model *m, const model_request *r, weir_durable_response *answer) {
  if (m->closed) {
    const bool same = r->epoch == m->closing_epoch && r->sequence == m->closing_sequence;
    weir_durable_response_init(answer, same ? 204 : 409);
    answer->closed = true;
    return;
  }
  if (m->known && r->epoch < m->epoch) {
    weir_durable_response_init(answer, 403);
    answer->producer_epoch = m->epoch;
    return;
  }
  if (m->known && r->epoch == m->epoch && r->sequence <= m->last) {
    weir_durable_response_init(answer, 204);
    answer->producer_epoch = m->epoch;
    answer->producer_seq = m->last;
    return;
  }
  if (m->known && r->epoch > m->epoch && r->sequence != 0) {
    weir_durable_response_init(answer, 400);
    return;
  }
  const uint64_t expected = m->known && r->epoch == m->epoch ? m->last + 1 : 0;
  if (r->sequence != expected) {
    model_gap(answer, expected, r->sequence);
    return;
  }
  model_accept(m, r, answer);
}

/* Another process with the same producer id takes the stream over. */
static void model_fence(model *m, uint64_t step) {
  if (m->closed || !m->known) return;
  model_request r = {.epoch = m->epoch + step, .body = {MODEL_FOREIGN, 0, 0, 0}, .body_len = 4};
  weir_durable_response answer;
  model_execute(m, &r, &answer);
  assert_int_equal(answer.status, 200);
  m->fences++;
}

static model_request *model_slot(model *m) {
  for (size_t i = 0; i < MODEL_WIRE; i++) {
    if (!m->wire[i].used) return &m->wire[i];
  }
  return NULL;
}

static bool model_send(model *m, const weir_durable_request *request, uint64_t now) {
  model_request *r = model_slot(m);
  if (r == NULL) return false;
  assert_true(request->body_len <= sizeof r->body);
  *r = (model_request){.used = true,
                       .id = request->id,
                       .epoch = request->epoch,
                       .sequence = request->sequence,
                       .close = request->close,
                       .sent = now,
                       .body_len = request->body_len};
  if (request->body_len > 0) memcpy(r->body, request->body[0].base, request->body_len);
  return true;
}

static void model_tell(model *m, weir_durable_writer *w, model_request *r,
                       weir_durable_transport transport, uint64_t now) {
  const weir_durable_response *answer = transport == WEIR_DURABLE_ANSWERED ? &r->answer : NULL;
  if (!r->abandoned) {
    weir_durable_writer_done(w, r->id, transport, answer, now, weir_test_random(&m->seed));
  }
  r->abandoned = true;
}

/* Refused before anything was done with it. */
static void model_turn_away(model *m, weir_durable_writer *w, model_request *r, uint64_t now) {
  weir_durable_response_init(&r->answer, roll(m, 2) ? 503 : 429);
  if (roll(m, 3) == 0) r->answer.retry_after = roll(m, 2);
  model_tell(m, w, r, WEIR_DURABLE_ANSWERED, now);
  r->used = false;
}

/* One thing happens to one request. `fault`: in how many of 100 cases it is a bad thing. */
static void model_event(model *m, weir_durable_writer *w, model_request *r, uint64_t fault,
                        uint64_t now) {
  const bool bad = roll(m, 100) < fault;
  if (bad) m->faults++;
  if (!bad && r->executed) {
    model_tell(m, w, r, WEIR_DURABLE_ANSWERED, now);
    r->used = false;
  } else if (!bad) {
    if (r->abandoned) m->ghosts++;
    model_execute(m, r, &r->answer);
    r->executed = true;
  } else if (r->executed || r->abandoned) { /* the answer is lost on its way, or an empty 50x */
    if (!r->abandoned && roll(m, 2)) {
      weir_durable_response_init(&r->answer, roll(m, 2) ? 500 : 504);
      model_tell(m, w, r, WEIR_DURABLE_ANSWERED, now);
    }
    model_tell(m, w, r, WEIR_DURABLE_LOST, now);
    r->used = false;
  } else {
    switch (roll(m, 4)) {
      case 0: model_turn_away(m, w, r, now); break;
      case 1: /* no connection */
        model_tell(m, w, r, WEIR_DURABLE_NOT_SENT, now);
        r->used = false;
        break;
      case 2: /* reset; what was sent is gone */
        model_tell(m, w, r, WEIR_DURABLE_LOST, now);
        r->used = false;
        break;
      default: /* the client gives up, but the request is still on its way */
        model_tell(m, w, r, WEIR_DURABLE_TIMED_OUT, now);
    }
  }
}

static uint32_t model_item(const unsigned char *p) {
  return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* How many of our items the stream has; they must be the first ones, in order, once. */
static uint64_t model_check(const model *m) {
  uint64_t n = 0;
  for (size_t i = 0; i < m->len; i += 4) {
    if (m->stream[i] == MODEL_FOREIGN) continue;
    if (model_item(m->stream + i) != n)
      fail_msg("%s: item %u where %u belongs", model_playing, (unsigned)model_item(m->stream + i),
               (unsigned)n);
    n++;
  }
  return n;
}

typedef struct model_run {
  uint32_t window;
  uint64_t fault; /* per cent */
  bool fencing, auto_claim, final_item;
} model_run;

/* Appends what there is room for; closes at the end. */
static void model_feed(model *m, weir_durable_writer *w, const model_run *run, uint64_t now) {
  for (uint64_t burst = roll(m, 4); burst > 0 && of(w)->items < MODEL_ITEMS; burst--) {
    const uint32_t n = (uint32_t)of(w)->items;
    const unsigned char item[4] = {(unsigned char)(n >> 24), (unsigned char)(n >> 16),
                                   (unsigned char)(n >> 8), (unsigned char)n};
    const weir_status result = n + 1 == MODEL_ITEMS && run->final_item
                                   ? weir_durable_writer_close(w, item, 4, now)
                                   : weir_durable_writer_append(w, item, 4, now, NULL);
    if (result != WEIR_OK) break;
  }
  if (roll(m, 8) == 0) weir_durable_writer_flush(w);
  if (of(w)->items == MODEL_ITEMS && !of(w)->closing) {
    assert_ok(weir_durable_writer_close(w, NULL, 0, now));
  }
}

static void model_invariants(const model *m, const weir_durable_writer *w, const model_run *run) {
  const weir_durable_writer_state *s = of(w);
  const uint64_t there = model_check(m);
  if (s->confirmed > there || there > s->unsent || s->unsent > s->items) {
    fail_msg("%s: %u confirmed, %u there, %u of %u sent", model_playing, (unsigned)s->confirmed,
             (unsigned)there, (unsigned)s->unsent, (unsigned)s->items);
  }
  assert_true(s->in_flight <= run->window);
  assert_int_equal(s->queued_bytes, 4 * (s->items - s->confirmed));
  if (s->failed) assert_int_equal(s->first_item + s->item_count, s->items);
}

static bool model_over(const weir_durable_writer *w) { return of(w)->closed || of(w)->failed; }

static void model_step(model *m, weir_durable_writer *w, const model_run *run, uint64_t now) {
  weir_durable_request request;
  model_feed(m, w, run, now);
  /* Leaves room on the wire for what the client has given up. */
  while (model_slot(m) != NULL && weir_durable_writer_next(w, now, &request) == WEIR_OK) {
    assert_true(model_send(m, &request, now));
  }
  if (run->fencing && roll(m, 300) == 0) {
    /* Two that begin the same epoch can only be told apart as long as nothing is lost. */
    model_fence(m, run->fault > 0 ? 2 : 1);
  }
  for (uint64_t events = roll(m, 6); events > 0; events--) {
    model_request *r = &m->wire[roll(m, 8)];
    if (roll(m, 4) == 0) r = &m->wire[roll(m, MODEL_WIRE)];
    if (r->used) model_event(m, w, r, run->fault, now);
  }
  model_invariants(m, w, run);
}

/* A little later, or when the writer wants to go on if that is all there is to wait for. */
static uint64_t model_later(model *m, const weir_durable_writer *w, uint64_t now) {
  const uint64_t deadline = weir_durable_writer_deadline(w);
  now += roll(m, 2 * MS);
  return of(w)->in_flight == 0 && deadline != WEIR_NEVER && deadline > now ? deadline : now;
}

/* True when everything was written, false when it ended for a lost epoch. */
static bool model_play(weir_test_alloc *memory, uint64_t seed, const model_run *run) {
  model *m = calloc(1, sizeof *m);
  assert_non_null(m);
  m->seed = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
  weir_durable_writer_config config = {.max_batch_bytes = 4 + 4 * (size_t)roll(m, 8),
                                       .max_in_flight = run->window,
                                       .auto_claim = run->auto_claim,
                                       .linger = 1 + roll(m, 5) * MS,
                                       .buffer = 200 + (size_t)roll(m, 5000)};
  weir_retry_policy_default(&config.retry);
  config.retry.initial = 1 * MS;
  config.retry.max = 20 * MS;
  weir_durable_writer *w = weir_durable_writer_new(&memory->alloc, &config);
  uint64_t now = 0, steps = 0;
  while (!model_over(w) && steps++ < 200000) {
    now = model_later(m, w, now);
    model_step(m, w, run, now);
  }
  const weir_durable_writer_state *s = of(w);
  if (!model_over(w)) fail_msg("%s: no end in sight", model_playing);
  if (s->failed) {
    assert_true(run->fencing);
    assert_string_equal(s->code, m->closed ? "stream_closed" : "stale_epoch");
  } else {
    assert_int_equal(model_check(m), MODEL_ITEMS);
    assert_int_equal(s->confirmed, MODEL_ITEMS);
    assert_int_equal(s->batches, m->appends - m->fences);
    assert_true(s->retries == 0 || m->faults + m->fences > 0 || run->window > 1);
    char offset[32];
    const int len = snprintf(offset, sizeof offset, "0_%zu", m->len);
    if (s->offset.len > 0) {
      assert_int_equal(s->offset.len, len);
      assert_memory_equal(s->offset.bytes, offset, (size_t)len);
    }
  }
  const bool written = !s->failed;
  weir_durable_writer_free(w);
  free(m);
  return written;
}

static void model_seeds(weir_test_alloc *memory, model_run run, uint64_t seeds) {
  static const uint32_t WINDOWS[] = {1, 2, 5};
  uint64_t written = 0;
  for (size_t i = 0; i < 3; i++) {
    run.window = WINDOWS[i];
    for (uint64_t seed = 1; seed <= seeds; seed++) {
      run.final_item = seed % 2;
      snprintf(model_playing, sizeof model_playing, "seed %u, window %u, %u %% faults, fencing %d",
               (unsigned)seed, (unsigned)run.window, (unsigned)run.fault, run.fencing);
      written += model_play(memory, seed, &run);
    }
  }
  if (!run.fencing) assert_int_equal(written, 3 * seeds);
  if (run.fencing && run.auto_claim)
    assert_in_range(written, run.fault > 0 ? 1 : 3 * seeds, 3 * seeds);
  if (run.fencing && !run.auto_claim) assert_in_range(written, 0, 3 * seeds - 1);
}

static void a_good_network_needs_no_luck(void **state) {
  model_seeds(*state, (model_run){.fault = 0}, 50);
}

static void the_stream_is_what_was_appended_whatever_the_network_does(void **state) {
  model_seeds(*state, (model_run){.fault = 5}, 60);
  model_seeds(*state, (model_run){.fault = 40}, 60);
  model_seeds(*state, (model_run){.fault = 75}, 20);
}

static void a_second_writer_costs_nothing_on_a_good_network_with_auto_claim(void **state) {
  model_seeds(*state, (model_run){.fencing = true, .auto_claim = true}, 60);
}

static void nothing_is_repeated_when_epochs_change_on_a_bad_network(void **state) {
  model_seeds(*state, (model_run){.fault = 5, .fencing = true, .auto_claim = true}, 100);
  model_seeds(*state, (model_run){.fault = 40, .fencing = true, .auto_claim = true}, 100);
  model_seeds(*state, (model_run){.fault = 20, .fencing = true}, 60);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      memory_test(items_gather_into_one_batch_until_the_linger_is_over),
      memory_test(json_items_become_an_array),
      memory_test(a_flush_ends_the_linger_of_what_is_queued_only),
      memory_test(a_batch_that_waits_for_its_turn_goes_on_growing),
      memory_test(a_full_batch_does_not_linger),
      memory_test(a_body_is_never_longer_than_the_limit_but_for_one_large_item),
      memory_test(an_empty_item_is_refused),
      memory_test(what_is_not_confirmed_is_bounded),
      memory_test(tiny_batches_cannot_pile_up_either),
      memory_test(an_item_above_the_bound_may_go_alone),
      memory_test(the_same_request_goes_out_until_it_is_confirmed),
      memory_test(a_retry_waits_as_the_policy_and_the_server_say),
      memory_test(attempts_may_be_bounded),
      memory_test(unknown_ids_and_second_answers_are_ignored),
      memory_test(no_more_requests_are_out_than_allowed),
      memory_test(an_answer_confirms_all_batches_before_it),
      memory_test(only_what_did_not_arrive_is_sent_again_and_not_before_its_turn),
      memory_test(a_gap_tells_what_has_arrived),
      memory_test(a_gap_may_say_that_the_batch_itself_has_arrived),
      memory_test(an_old_gap_does_not_look_like_a_loss),
      memory_test(a_gap_that_cannot_be_ours_ends_the_writer),
      memory_test(a_restored_position_that_the_server_does_not_know_is_a_conflict),
      memory_test(what_repeating_cannot_mend_ends_the_writer),
      memory_test(batches_before_a_refused_one_are_brought_to_their_end),
      memory_test(the_first_refusal_in_order_is_the_one_that_counts),
      memory_test(a_later_refusal_does_not_hide_an_earlier_one),
      memory_test(a_failure_does_not_claim_items_that_had_arrived_after_all),
      memory_test(a_batch_that_had_arrived_after_all_is_no_failure),
      memory_test(a_stale_epoch_ends_the_writer_unless_it_claims),
      memory_test(auto_claim_numbers_everything_unconfirmed_anew),
      memory_test(what_may_have_arrived_is_not_sent_under_another_epoch),
      memory_test(what_cannot_have_arrived_is),
      memory_test(what_an_old_epoch_did_not_take_is_not_in_doubt_any_more),
      memory_test(two_who_claim_from_each_other_back_off),
      memory_test(epochs_that_cannot_be_are_not_claimed),
      memory_test(a_new_epoch_that_somebody_else_has_begun_as_well_is_left_to_them),
      memory_test(a_restart_begins_the_next_epoch_when_all_is_confirmed),
      memory_test(numbers_end_where_the_protocol_ends_them),
      memory_test(configurations_that_make_no_sense_are_refused_by_name),
      memory_test(a_close_has_a_number_of_its_own_and_goes_last_and_alone),
      memory_test(a_close_may_have_a_last_item),
      memory_test(a_close_that_others_came_before_fails),
      memory_test(a_close_whose_number_was_taken_by_data_did_not_close),
      memory_test(a_close_in_an_epoch_that_somebody_else_began_is_sent_in_the_next),
      memory_test(any_allocation_may_fail_without_harm),
      memory_test(it_can_be_freed_at_any_time_and_null_too),
      memory_test(a_good_network_needs_no_luck),
      memory_test(the_stream_is_what_was_appended_whatever_the_network_does),
      memory_test(a_second_writer_costs_nothing_on_a_good_network_with_auto_claim),
      memory_test(nothing_is_repeated_when_epochs_change_on_a_bad_network),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
