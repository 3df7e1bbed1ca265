/*
 * Fuzzes the reader of durable streams against a server that answers anything at all: whatever
 * comes, pieces follow each other without a gap, positions can be gone on from, the end is the end,
 * and there is one request at a time.
 *
 * Input: a byte that chooses mode and start, then operations: a byte that says what happens, and
 * what belongs to it.
 */
#include "core/durable/reader.h"

#include <stdio.h>

#include "support.h"

enum {
  POSITION_LONGEST = WEIR_DURABLE_OFFSET_MAX + 32,
  MAX_EVENT = 4096
};

typedef struct play {
  weir_durable_reader *reader;
  uint64_t now;
  bool asked, refused, failed_before;
  char position[POSITION_LONGEST];
  bool closed;
} play;

/* So many bytes, or as many as there are; exactly as long, for the sanitizer. */
static unsigned char *bytes(input *in, size_t *len) {
  const uint8_t *at = next_bytes(in, len);
  return copy_of(at, *len);
}

static weir_durable_reader *reader_at(weir_durable_live live, const char *position) {
  weir_durable_reader_config config = {.live = live, .position = position, .max_event = MAX_EVENT};
  weir_retry_policy_default(&config.retry);
  config.retry.max_retries = 20;
  weir_durable_reader *reader = weir_durable_reader_new(NULL, &config);
  check(reader != NULL);
  return reader;
}

/* A new reader takes the position. */
static void check_position(const char *position) {
  check(strlen(position) < POSITION_LONGEST);
  weir_durable_reader *other = reader_at(WEIR_DURABLE_LIVE_NONE, position);
  weir_durable_query query;
  check(weir_durable_reader_request(other, 1, &query) == WEIR_OK);
  weir_durable_reader_free(other);
}

static void check_state(play *p) {
  weir_durable_reader_state state;
  weir_durable_reader_state_of(p->reader, &state);
  check(strcmp(state.position, p->position) == 0);
  check(state.closed == p->closed);
  check(!state.failed || (state.code != NULL && !state.closed));
  check(state.failed || !p->failed_before); /* and stays so */
  p->failed_before = state.failed;
}

static void take(play *p) {
  weir_durable_piece piece;
  weir_durable_reader_state state;
  while (weir_durable_reader_next(p->reader, &piece) == WEIR_OK) {
    weir_durable_reader_state_of(p->reader, &state);
    check(!p->closed); /* nothing follows, ever */
    check(strcmp(piece.offset, p->position) == 0);
    check(piece.whole == (strchr(piece.next_offset, ',') == NULL));
    if (state.json && piece.data.len > 0) {
      check(piece.items > 0 && piece.data.ptr[0] == '[');
      check(piece.data.ptr[piece.data.len - 1] == ']');
    }
    check(!piece.closed || piece.up_to_date);
    check_position(piece.next_offset);
    snprintf(p->position, sizeof p->position, "%s", piece.next_offset);
    p->closed = piece.closed;
    weir_slice_unref(&piece.data);
  }
}

static void ask(play *p) {
  weir_durable_query query;
  const uint64_t deadline = weir_durable_reader_deadline(p->reader);
  if (deadline != WEIR_NEVER && deadline > p->now) p->now = deadline;
  const weir_status status = weir_durable_reader_request(p->reader, p->now, &query);
  check(status == WEIR_OK || status == WEIR_E_AGAIN || status == WEIR_E_CLOSED);
  if (p->asked) check(status != WEIR_OK);
  if (status != WEIR_OK) {
    check(p->asked || status == WEIR_E_CLOSED); /* it was late enough */
    return;
  }
  check(!p->closed && !p->failed_before);
  check(query.offset != NULL && strchr(query.offset, ',') == NULL);
  check(query.sse == (query.live != NULL && strcmp(query.live, "sse") == 0));
  p->asked = true;
  p->refused = false;
}

static const char *const HEADERS[][2] = {
    {"Content-Type", "application/json"},
    {"Content-Type", "text/event-stream"},
    {"Content-Type", "application/octet-stream"},
    {"Content-Type", "text/plain"},
    {"Stream-Up-To-Date", "true"},
    {"Stream-Closed", "true"},
    {"stream-sse-data-encoding", "base64"},
    {"Stream-Cursor", "7"},
};

static const int STATUSES[] = {200, 200, 200, 204, 304, 400, 404, 410, 429, 500, 503, 301};

static void head(play *p, input *in) {
  weir_durable_response response;
  const int status = STATUSES[byte(in) % (sizeof STATUSES / sizeof *STATUSES)];
  const uint8_t which = byte(in);
  weir_durable_response_init(&response, status);
  for (size_t i = 0; i < 8; i++) {
    const char *const *pair = HEADERS[i];
    if ((which >> i & 1) == 0) continue;
    weir_durable_response_header(&response, pair[0], strlen(pair[0]), pair[1], strlen(pair[1]));
  }
  size_t len = byte(in) % 16;
  unsigned char *offset = bytes(in, &len);
  static const char NAME[] = "Stream-Next-Offset";
  weir_durable_response_header(&response, NAME, sizeof NAME - 1, (const char *)offset, len);
  free(offset);
  weir_durable_reader_head(p->reader, &response, p->now);
}

static void feed(play *p, input *in, size_t len) {
  unsigned char *body = bytes(in, &len);
  if (!p->refused) {
    p->refused = weir_durable_reader_feed(p->reader, body, len, p->now) != WEIR_OK;
  }
  free(body);
}

static void end(play *p, uint8_t how) {
  static const weir_durable_transport HOW[] = {WEIR_DURABLE_ANSWERED, WEIR_DURABLE_LOST,
                                               WEIR_DURABLE_NOT_SENT, WEIR_DURABLE_TIMED_OUT};
  weir_durable_reader_end(p->reader, p->refused ? WEIR_DURABLE_LOST : HOW[how % 4], p->now,
                          how * UINT64_C(0x9e3779b97f4a7c15));
  p->asked = false;
}

/* One request with its answer: a head or none, a body in pieces, an end. */
static void exchange(play *p, input *in) {
  ask(p);
  if (!p->asked) return;
  ask(p); /* there is only one */
  const uint8_t how = byte(in);
  if (how & 4) head(p, in);
  for (size_t n = how & 4 ? how >> 4 : 0; n > 0 && in->left > 0; n--) {
    feed(p, in, byte(in));
    if (how & 8) p->now += WEIR_SECOND / 4;
    take(p);
    check_state(p);
  }
  end(p, how);
  take(p);
  check_state(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const char *const STARTS[] = {"-1", "now", "0_3", "0_3,2"};
  input in = {data, size};
  const uint8_t choice = byte(&in);
  const char *start = STARTS[choice / 4 % 4];
  play p = {.reader = reader_at((weir_durable_live)(choice % 4), start), .now = WEIR_SECOND};
  snprintf(p.position, sizeof p.position, "%s", start);
  for (int i = 0; i < 64 && in.left > 0; i++)
    exchange(&p, &in);
  weir_durable_reader_free(p.reader);
  return 0;
}
