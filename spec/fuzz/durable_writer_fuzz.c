/*
 * Fuzzes the writer of durable streams against a server that answers anything at all, in any order:
 * whatever comes, a batch keeps its number and its bytes, limits hold, the count of items is right,
 * and what has failed stays so.
 *
 * Input: a byte that chooses the configuration, then operations: a byte that says what happens, and
 * what belongs to it.
 */
#include "core/durable/writer.h"

#include "support.h"

enum {
  OUT = 8,
  BATCH_BYTES = 40,
  BATCH_ITEMS = 4,
  BUFFER = 600,
  BODY = 64,
  SEEN = 4096
};

typedef struct out_request {
  bool used;
  weir_durable_request request;
} out_request;

/* What was sent under a number, in the epoch of now. */
typedef struct sent {
  uint64_t first_item, item_count;
  uint8_t len;
  bool used, close;
  unsigned char body[BODY];
} sent;

typedef struct play {
  weir_durable_writer *writer;
  uint64_t now, last_id, epoch, first_sequence;
  uint32_t window;
  bool failed;
  out_request out[OUT];
  sent seen[SEEN];
} play;

static void check_state(play *p) {
  const weir_durable_writer_state *s = weir_durable_writer_state_of(p->writer);
  check(s->confirmed <= s->unsent && s->unsent <= s->items);
  check(s->confirmed_sequence <= s->next_sequence);
  check(s->in_flight <= p->window);
  check(s->failed || !p->failed);
  p->failed = s->failed;
  if (s->failed) {
    check(s->code != NULL);
    check(s->first_item + s->item_count == s->items);
    check(s->refused_count <= s->item_count);
  }
  if (s->closed) check(s->confirmed == s->items && s->closing);
}

/* A number stands for the same bytes for ever. */
static void check_same(play *p, const weir_durable_request *r) {
  if (r->epoch != p->epoch) {
    check(r->epoch > p->epoch);
    memset(p->seen, 0, sizeof p->seen);
    p->epoch = r->epoch;
    p->first_sequence = 0;
  }
  check(r->sequence >= p->first_sequence);
  const uint64_t index = r->sequence - p->first_sequence;
  if (index >= SEEN) return;
  unsigned char body[BODY];
  size_t len = 0;
  for (size_t i = 0; i < r->body_runs; i++) {
    check(len + r->body[i].len <= sizeof body);
    memcpy(body + len, r->body[i].base, r->body[i].len);
    len += r->body[i].len;
  }
  check(len == r->body_len);
  check(r->body_len <= BATCH_BYTES || r->item_count == 1);
  check(r->item_count <= BATCH_ITEMS);
  sent *s = &p->seen[index];
  if (s->used) {
    check(s->len == len && s->close == r->close && memcmp(s->body, body, len) == 0);
    check(s->first_item == r->first_item && s->item_count == r->item_count);
    return;
  }
  *s = (sent){r->first_item, r->item_count, (uint8_t)len, true, r->close, {0}};
  memcpy(s->body, body, len);
}

static void append(play *p, uint8_t what, bool close) {
  unsigned char item[BODY / 2];
  const size_t len = what % 32;
  memset(item, 'a' + what % 26, sizeof item);
  const weir_durable_writer_state *s = weir_durable_writer_state_of(p->writer);
  const bool over = s->failed || s->closing;
  const weir_status status = close ? weir_durable_writer_close(p->writer, item, len, p->now)
                                   : weir_durable_writer_append(p->writer, item, len, p->now, NULL);
  if (over) check(status == WEIR_E_CLOSED || (!close && len == 0));
}

static void send(play *p) {
  for (size_t i = 0; i < OUT; i++) {
    out_request *out = &p->out[i];
    if (out->used) continue;
    if (weir_durable_writer_next(p->writer, p->now, &out->request) != WEIR_OK) return;
    const weir_durable_writer_state *s = weir_durable_writer_state_of(p->writer);
    check(!s->closed && out->request.id != p->last_id);
    check(out->request.sequence >= s->confirmed_sequence || out->request.epoch != s->epoch);
    p->last_id = out->request.id;
    out->used = true;
    check_same(p, &out->request);
  }
}

static const int STATUSES[] = {200, 204, 409, 409, 403, 503, 500, 400, 404, 429, 202, 0};

static void answer(play *p, input *in) {
  out_request *out = &p->out[byte(in) % OUT];
  if (!out->used) return;
  const uint8_t how = byte(in), more = byte(in);
  const weir_durable_request *r = &out->request;
  weir_durable_response response;
  weir_durable_response_init(&response, STATUSES[how % (sizeof STATUSES / sizeof *STATUSES)]);
  if (more & 1) response.producer_epoch = r->epoch + (more >> 5);
  if (more & 2) response.producer_seq = r->sequence + (uint64_t)(more >> 5) - 3;
  if (more & 4) response.expected_seq = r->sequence + (uint64_t)(more >> 5) - 4;
  if (more & 8) response.received_seq = r->sequence;
  response.closed = (more & 16) != 0;
  const weir_durable_transport transport =
      how < 192 ? WEIR_DURABLE_ANSWERED : (weir_durable_transport)(how % 4);
  out->used = false;
  weir_durable_writer_done(p->writer, r->id, transport, &response, p->now, how * UINT64_C(1) << 56);
  if (more & 128) { /* a second answer is ignored */
    weir_durable_writer_done(p->writer, r->id, WEIR_DURABLE_LOST, NULL, p->now, 0);
  }
}

static void wait(play *p, uint8_t what) {
  const uint64_t deadline = weir_durable_writer_deadline(p->writer);
  if (what & 1) {
    p->now += WEIR_SECOND / 1000;
  } else if (deadline != WEIR_NEVER && deadline > p->now) {
    p->now = deadline;
  }
}

static void step(play *p, input *in) {
  const uint8_t what = byte(in);
  switch (what % 8) {
    case 0:
    case 1:
    case 2: append(p, what / 8, false); break;
    case 3:
    case 4: answer(p, in); break;
    case 5: wait(p, what / 8); break;
    case 6: weir_durable_writer_flush(p->writer); break;
    default:
      if (what > 224) append(p, what % 32 - 24, true);
      if (what < 64) (void)weir_durable_writer_restart(p->writer);
  }
  send(p);
  check_state(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static play p;
  input in = {data, size};
  const uint8_t choice = byte(&in);
  weir_durable_writer_config config = {.epoch = choice >> 5,
                                       .sequence = choice & 16 ? 5 : 0,
                                       .json = choice & 1,
                                       .auto_claim = choice & 2,
                                       .max_batch_bytes = BATCH_BYTES,
                                       .max_batch_items = BATCH_ITEMS,
                                       .max_in_flight = choice & 4 ? 5 : 1,
                                       .buffer = BUFFER};
  weir_retry_policy_default(&config.retry);
  config.retry.max_retries = choice & 8 ? 3 : UINT32_MAX;
  memset(&p, 0, sizeof p);
  p.writer = weir_durable_writer_new(NULL, &config);
  check(p.writer != NULL);
  p.now = WEIR_SECOND;
  p.epoch = config.epoch;
  p.first_sequence = config.sequence;
  p.window = config.max_in_flight;
  while (in.left > 0)
    step(&p, &in);
  weir_durable_writer_free(p.writer);
  return 0;
}
