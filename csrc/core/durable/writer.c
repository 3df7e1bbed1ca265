#include "core/durable/writer.h"

#include <string.h>

#include "core/list.h"
#include "core/time.h"

#define NUMBER_MAX ((UINT64_C(1) << 53) - 1) /* of epochs and sequences, as the protocol has it */
#define FIRST_CAPACITY 4096u

typedef struct batch {
  weir_link link;
  weir_buf *body; /* NULL: none */
  size_t len;     /* bytes of the body; the bracket that ends a JSON body is written when it goes */
  weir_iov run;
  uint64_t first_item, item_count;
  uint64_t payload; /* bytes of its items */
  uint64_t linger_until;
  uint64_t sequence;
  uint64_t request;    /* id of the one that is out; 0: none */
  uint64_t not_before; /* of the next attempt */
  uint64_t expectable; /* the first unconfirmed sequence when it was handed out last */
  weir_retry retry;
  uint32_t claims; /* epochs that were claimed for it */
  bool tried;      /* handed out once */
  bool numbered;   /* has a sequence in this epoch */
  bool close;
  bool arrived;   /* confirmed, but its request is still out */
  bool ambiguous; /* it may be in the stream */
  bool held;      /* came before an earlier one: waits until that is confirmed */
} batch;

struct weir_durable_writer {
  const weir_alloc *alloc;
  weir_durable_writer_config config;
  weir_durable_writer_state state;
  weir_list batches; /* in order; sent ones first */
  batch *refused;    /* the first that was; becomes the failure when all before it are confirmed */
  uint64_t batch_count;
  uint64_t next_request;
  uint64_t flushed;     /* items before this number do not linger */
  uint64_t stale_epoch; /* the server's, when it is above ours: to be claimed */
  bool stale;
  bool fresh;   /* this epoch was begun here, so that nobody can have used it before */
  bool claimed; /* a batch of this epoch is confirmed */
};

/* --- life ------------------------------------------------------------------------------------- */

static weir_durable_writer_config with_defaults(const weir_durable_writer_config *given) {
  weir_durable_writer_config config = *given;
  if (config.max_batch_bytes == 0) config.max_batch_bytes = (size_t)1 << 20;
  if (config.max_batch_items == 0) config.max_batch_items = 65536;
  if (config.max_in_flight == 0) config.max_in_flight = 1;
  if (config.linger == 0) config.linger = 5 * WEIR_MILLISECOND;
  if (config.buffer == 0) config.buffer = (size_t)8 << 20;
  if (config.retry.initial == 0) weir_retry_policy_default(&config.retry);
  return config;
}

weir_status weir_durable_writer_check(const weir_durable_writer_config *config,
                                      const char **field) {
  const weir_durable_writer_config whole = with_defaults(config);
  const char *wrong = NULL;
  if (whole.sequence > NUMBER_MAX) wrong = "sequence";
  if (whole.epoch > NUMBER_MAX) wrong = "epoch";
  if (wrong == NULL) return weir_retry_policy_check(&whole.retry, field);
  if (field != NULL) *field = wrong;
  return WEIR_E_INVALID;
}

weir_durable_writer *weir_durable_writer_new(const weir_alloc *alloc,
                                             const weir_durable_writer_config *config) {
  if (weir_durable_writer_check(config, NULL) != WEIR_OK) return NULL;
  alloc = weir_alloc_or_default(alloc);
  weir_durable_writer *writer = weir_calloc(alloc, 1, sizeof *writer);
  if (writer == NULL) return NULL;
  writer->alloc = alloc;
  writer->config = with_defaults(config);
  writer->state.epoch = config->epoch;
  writer->state.next_sequence = writer->state.confirmed_sequence = config->sequence;
  weir_list_init(&writer->batches);
  return writer;
}

static void drop(weir_durable_writer *writer, batch *b) {
  weir_list_remove(&b->link);
  weir_buf_unref(b->body);
  weir_free(writer->alloc, b);
  writer->batch_count--;
}

static batch *first_of(const weir_durable_writer *writer) {
  weir_link *link = weir_list_first(&writer->batches);
  return link != NULL ? weir_list_of(link, batch, link) : NULL;
}

static batch *after(const weir_durable_writer *writer, const batch *b) {
  weir_link *link = b->link.next;
  return link != &writer->batches ? weir_list_of(link, batch, link) : NULL;
}

static batch *last_of(const weir_durable_writer *writer) {
  weir_link *link = writer->batches.prev;
  return link != &writer->batches ? weir_list_of(link, batch, link) : NULL;
}

/* Arrived batches are a run at the front: the server takes them in order. */
static batch *first_unconfirmed(const weir_durable_writer *writer) {
  batch *b = first_of(writer);
  while (b != NULL && b->arrived)
    b = after(writer, b);
  return b;
}

void weir_durable_writer_free(weir_durable_writer *writer) {
  if (writer == NULL) return;
  for (batch *b; (b = first_of(writer)) != NULL;)
    drop(writer, b);
  weir_free(writer->alloc, writer);
}

const weir_durable_writer_state *weir_durable_writer_state_of(const weir_durable_writer *writer) {
  return &writer->state;
}

/* --- items in --------------------------------------------------------------------------------- */

/* What a JSON body needs around an item: a bracket or comma before it, a bracket at the end. */
static size_t around_of(const weir_durable_writer *writer) { return writer->config.json ? 2 : 0; }

static bool has_room(const weir_durable_writer *writer, size_t len) {
  const uint64_t used =
      writer->state.queued_bytes + writer->batch_count * (sizeof(batch) + sizeof(weir_buf));
  if (writer->state.queued_bytes == 0) return true;
  return used < writer->config.buffer && len <= writer->config.buffer - used;
}

/* Whether an item of `len` bytes can join the batch. */
static bool takes(const weir_durable_writer *writer, const batch *b, size_t len) {
  const size_t max = writer->config.max_batch_bytes;
  if (b == NULL || b->tried || b->close) return false;
  if (b->item_count >= writer->config.max_batch_items) return false;
  const size_t used = b->len + around_of(writer);
  return used < max && len <= max - used;
}

static batch *new_batch(weir_durable_writer *writer, uint64_t now) {
  batch *b = weir_calloc(writer->alloc, 1, sizeof *b);
  if (b == NULL) return NULL;
  const uint64_t linger = writer->config.linger;
  b->first_item = writer->state.items;
  b->linger_until = now < WEIR_NEVER - linger ? now + linger : WEIR_NEVER - 1;
  weir_retry_init(&b->retry, &writer->config.retry);
  weir_list_append(&writer->batches, &b->link);
  writer->batch_count++;
  return b;
}

/* Of a body whose first item takes `len` bytes: no more than the others may need, if they are like
 * it, for there can be many bodies of few items. */
static size_t first_capacity(const weir_durable_writer *writer, size_t len) {
  const uint32_t items = writer->config.max_batch_items;
  return len < FIRST_CAPACITY / items ? len * items : FIRST_CAPACITY;
}

/* Room in the body for an item of `len` bytes with all around it. */
static weir_status reserve(const weir_durable_writer *writer, batch *b, size_t len) {
  const size_t around = around_of(writer);
  if (len > SIZE_MAX / 4 - b->len - around) return WEIR_E_NOMEM;
  const size_t needed = b->len + around + len;
  const size_t old = b->body != NULL ? b->body->size : 0;
  if (b->body != NULL && needed <= old) return WEIR_OK;
  size_t size = old > 0 ? old * 2 : first_capacity(writer, len + around);
  if (size > writer->config.max_batch_bytes) size = writer->config.max_batch_bytes;
  if (size < needed) size = needed;
  weir_buf *body =
      b->body != NULL ? weir_buf_resize(b->body, size) : weir_buf_new(writer->alloc, size);
  if (body == NULL) return WEIR_E_NOMEM;
  b->body = body;
  return WEIR_OK;
}

/* Adds an item for which there is room in the body. */
static void put(weir_durable_writer *writer, batch *b, const void *data, size_t len) {
  if (writer->config.json) b->body->data[b->len++] = b->item_count == 0 ? '[' : ',';
  memcpy(b->body->data + b->len, data, len);
  b->len += len;
  b->payload += len;
  b->item_count++;
  writer->state.items++;
  writer->state.queued_bytes += len;
}

weir_status weir_durable_writer_append(weir_durable_writer *writer, const void *data, size_t len,
                                       uint64_t now, uint64_t *item) {
  if (writer->state.closing || writer->state.failed) return WEIR_E_CLOSED;
  if (len == 0) return WEIR_E_INVALID;
  if (!has_room(writer, len)) return WEIR_E_AGAIN;
  batch *last = last_of(writer);
  batch *b = takes(writer, last, len) ? last : new_batch(writer, now);
  if (b == NULL) return WEIR_E_NOMEM;
  if (reserve(writer, b, len) != WEIR_OK) {
    if (b != last) drop(writer, b);
    return WEIR_E_NOMEM;
  }
  if (item != NULL) *item = writer->state.items;
  put(writer, b, data, len);
  return WEIR_OK;
}

void weir_durable_writer_flush(weir_durable_writer *writer) {
  writer->flushed = writer->state.items;
}

weir_status weir_durable_writer_close(weir_durable_writer *writer, const void *data, size_t len,
                                      uint64_t now) {
  if (writer->state.closing || writer->state.failed) return WEIR_E_CLOSED;
  batch *b = new_batch(writer, now);
  if (b == NULL) return WEIR_E_NOMEM;
  b->close = true;
  if (len > 0) {
    if (reserve(writer, b, len) != WEIR_OK) {
      drop(writer, b);
      return WEIR_E_NOMEM;
    }
    put(writer, b, data, len);
  }
  writer->state.closing = true;
  return WEIR_OK;
}

/* --- failure ---------------------------------------------------------------------------------- */

static void show_unconfirmed(weir_durable_writer *writer) {
  weir_durable_writer_state *state = &writer->state;
  state->first_item = state->confirmed;
  state->item_count = state->items - state->confirmed;
}

/* A refused batch is the failure once everything before it is confirmed. */
static void settle(weir_durable_writer *writer) {
  if (writer->state.failed) {
    show_unconfirmed(writer);
  } else if (writer->refused != NULL && writer->refused == first_unconfirmed(writer)) {
    writer->state.failed = true;
    show_unconfirmed(writer);
  }
}

static void refuse(weir_durable_writer *writer, batch *b, const char *code,
                   const weir_durable_response *response) {
  weir_durable_writer_state *state = &writer->state;
  const batch *earlier = writer->refused;
  if (state->failed || (earlier != NULL && earlier->first_item < b->first_item)) return;
  writer->refused = b;
  state->code = code;
  if (response != NULL) {
    state->response = *response;
  } else {
    weir_durable_response_init(&state->response, 0);
  }
  state->status = state->response.status;
  state->refused_count = b->item_count;
  state->refused_sequence = b->sequence;
  settle(writer);
}

/* --- requests out ----------------------------------------------------------------------------- */

/* The batch whose turn it is, though it may have to wait for a time; NULL when something has to
 * happen first. */
static batch *candidate(const weir_durable_writer *writer) {
  const uint32_t limit = writer->claimed ? writer->config.max_in_flight : 1;
  if (writer->state.failed || writer->stale || writer->state.in_flight >= limit) return NULL;
  const batch *first = first_unconfirmed(writer);
  for (batch *b = first_of(writer); b != NULL; b = after(writer, b)) {
    if (b == writer->refused) return NULL;
    if (b->request != 0) continue;
    return b == first || (!b->held && !b->close) ? b : NULL;
  }
  return NULL;
}

static bool is_full(const weir_durable_writer *writer, const batch *b) {
  return b->close || b->link.next != &writer->batches ||
         b->item_count >= writer->config.max_batch_items ||
         b->len + around_of(writer) >= writer->config.max_batch_bytes;
}

static uint64_t ready_at(const weir_durable_writer *writer, const batch *b) {
  if (b->tried) return b->not_before;
  return is_full(writer, b) || b->first_item < writer->flushed ? 0 : b->linger_until;
}

uint64_t weir_durable_writer_deadline(const weir_durable_writer *writer) {
  const batch *b = candidate(writer);
  return b != NULL ? ready_at(writer, b) : WEIR_NEVER;
}

static void seal(weir_durable_writer *writer, batch *b) {
  if (b->body == NULL) return;
  if (writer->config.json) b->body->data[b->len++] = ']';
  b->run = (weir_iov){b->body->data, b->len};
}

static void number(weir_durable_writer *writer, batch *b) {
  b->sequence = writer->state.next_sequence++;
  b->numbered = true;
}

weir_status weir_durable_writer_next(weir_durable_writer *writer, uint64_t now,
                                     weir_durable_request *request) {
  if (writer->state.failed || writer->state.closed) return WEIR_E_CLOSED;
  batch *b = candidate(writer);
  if (b == NULL || ready_at(writer, b) > now) return WEIR_E_AGAIN;
  if (!b->numbered && writer->state.next_sequence > NUMBER_MAX) {
    refuse(writer, b, "sequence_conflict", NULL);
    return WEIR_E_CLOSED;
  }
  if (b->tried) writer->state.retries++;
  if (!b->tried) seal(writer, b);
  if (!b->numbered) number(writer, b);
  b->tried = true;
  b->held = false;
  b->request = ++writer->next_request;
  b->expectable = first_unconfirmed(writer)->sequence;
  writer->state.in_flight++;
  if (b->first_item + b->item_count > writer->state.unsent) {
    writer->state.unsent = b->first_item + b->item_count;
  }
  *request = (weir_durable_request){
      .id = b->request,
      .epoch = writer->state.epoch,
      .sequence = b->sequence,
      .close = b->close,
      .first_item = b->first_item,
      .item_count = b->item_count,
      .body = b->body != NULL ? &b->run : NULL,
      .body_runs = b->body != NULL ? 1 : 0,
      .body_len = b->len,
  };
  return WEIR_OK;
}

/* --- answers ---------------------------------------------------------------------------------- */

static void confirm(weir_durable_writer *writer, batch *b) {
  weir_durable_writer_state *state = &writer->state;
  state->queued_bytes -= b->payload;
  state->confirmed = b->first_item + b->item_count;
  state->confirmed_sequence = b->sequence + 1;
  state->batches++;
  if (b->close) state->closed = true;
  if (writer->refused == b) { /* an earlier attempt had arrived after all */
    writer->refused = NULL;
    state->refused_count = 0;
  }
  b->arrived = true;
  if (b->request == 0) drop(writer, b);
}

/* The server has everything of this epoch below `sequence`. */
static void confirm_below(weir_durable_writer *writer, uint64_t sequence) {
  for (batch *b; (b = first_unconfirmed(writer)) != NULL;) {
    if (!b->numbered || b->sequence >= sequence) break;
    confirm(writer, b);
    writer->claimed = true;
    writer->state.offset.len = 0; /* not behind the last one any more */
  }
  settle(writer);
}

/* We may write no more in our epoch, as `epoch` is in force. */
static void out_of_date(weir_durable_writer *writer, batch *b, uint64_t epoch,
                        const weir_durable_response *response) {
  if (!writer->config.auto_claim) {
    refuse(writer, b, "stale_epoch", response);
    return;
  }
  if (!writer->stale || epoch > writer->stale_epoch) writer->stale_epoch = epoch;
  writer->stale = true;
}

static void accepted(weir_durable_writer *writer, batch *b, const weir_durable_response *response) {
  /* 204 is a repeat, but to a close without a body, which has no other success. */
  const bool unclosed = b->close && response->status == 204 && !response->closed;
  const bool repeated = response->status == 204 && (b->item_count > 0 || unclosed);
  if (repeated && writer->fresh && b->sequence == 0 && !b->ambiguous) {
    /* Not this batch, which cannot have arrived: somebody has begun the same epoch before us. */
    out_of_date(writer, b, writer->state.epoch, response);
    return;
  }
  if (unclosed) {
    /* Its number was that of another batch, which did not close anything. */
    refuse(writer, b, "sequence_conflict", response);
    return;
  }
  if (repeated) writer->state.duplicates++;
  confirm_below(writer, b->sequence + 1); /* the end of b */
  writer->state.offset = response->next_offset;
}

static void repeat(weir_durable_writer *writer, batch *b, const char *code,
                   const weir_durable_response *response, uint64_t now, uint64_t random) {
  const uint64_t after = response != NULL ? response->retry_after : UINT64_MAX;
  if (weir_retry_next(&b->retry, now, random, after, &b->not_before) != WEIR_OK) {
    refuse(writer, b, code, response);
  }
}

/* The server says which sequence it waits for, and it is not this one. */
static void out_of_order(weir_durable_writer *writer, batch *b,
                         const weir_durable_response *response) {
  const uint64_t expected = response->expected_seq;
  const bool ours = expected >= b->expectable && expected <= writer->state.next_sequence;
  const bool about_us =
      response->received_seq == UINT64_MAX || response->received_seq == b->sequence;
  if (!ours || !about_us || expected == b->sequence) {
    /* The server has lost what it had confirmed, or somebody else writes with our name. */
    refuse(writer, b, "sequence_conflict", response);
    return;
  }
  b->held = true;
  b->not_before = 0;
  confirm_below(writer, expected); /* may be the end of b */
}

static void begin_epoch(weir_durable_writer *writer, uint64_t epoch) {
  writer->state.epoch = epoch;
  writer->state.next_sequence = writer->state.confirmed_sequence = 0;
  writer->claimed = false;
  writer->fresh = true;
}

/* Gives everything unconfirmed new numbers in a new epoch. */
static void renumber(weir_durable_writer *writer, uint64_t epoch) {
  begin_epoch(writer, epoch);
  writer->state.claims++;
  for (batch *b = first_unconfirmed(writer); b != NULL; b = after(writer, b)) {
    b->numbered = b->held = false;
    b->ambiguous = false; /* the old epoch cannot have taken it, and is over */
  }
}

/* After a 403, once nothing is out any more. */
static void claim(weir_durable_writer *writer, uint64_t now, uint64_t random) {
  batch *first = first_unconfirmed(writer);
  weir_durable_response stale;
  weir_durable_response_init(&stale, 403);
  stale.producer_epoch = writer->stale_epoch;
  writer->stale = false;
  if (first == NULL || writer->state.failed) return;
  if (first->ambiguous || writer->stale_epoch >= NUMBER_MAX) {
    refuse(writer, first, "stale_epoch", &stale);
    return;
  }
  /* Two who claim from each other must not do it as fast as they can. */
  if (first->claims++ > 0) repeat(writer, first, "stale_epoch", &stale, now, random);
  if (!writer->state.failed) renumber(writer, writer->stale_epoch + 1);
}

static void refused(weir_durable_writer *writer, batch *b, const weir_durable_response *response) {
  const char *code = weir_durable_code(WEIR_DURABLE_PRODUCE, WEIR_DURABLE_ANSWERED, response);
  const uint64_t epoch = response->producer_epoch;
  if (response->status == 409 && !response->closed && response->expected_seq != UINT64_MAX) {
    out_of_order(writer, b, response);
  } else if (response->status == 403 && epoch != UINT64_MAX && epoch > writer->state.epoch) {
    out_of_date(writer, b, epoch, response);
  } else {
    refuse(writer, b, code, response);
  }
}

static batch *with_request(const weir_durable_writer *writer, uint64_t id) {
  if (id == 0) return NULL;
  for (batch *b = first_of(writer); b != NULL && b->tried; b = after(writer, b)) {
    if (b->request == id) return b;
  }
  return NULL;
}

void weir_durable_writer_done(weir_durable_writer *writer, uint64_t id,
                              weir_durable_transport transport,
                              const weir_durable_response *response, uint64_t now,
                              uint64_t random) {
  batch *b = with_request(writer, id);
  if (b == NULL) return;
  b->request = 0;
  writer->state.in_flight--;
  if (b->arrived) {
    drop(writer, b); /* a later answer has confirmed it: whatever this one says, it is there */
  } else {
    if (response == NULL && transport == WEIR_DURABLE_ANSWERED) transport = WEIR_DURABLE_LOST;
    if (transport != WEIR_DURABLE_ANSWERED) response = NULL;
    if (weir_durable_ambiguous(transport, response)) b->ambiguous = true;
    const weir_durable_outcome outcome =
        weir_durable_verdict(WEIR_DURABLE_PRODUCE, transport, response);
    if (response != NULL && outcome == WEIR_DURABLE_OK) {
      accepted(writer, b, response);
    } else if (response != NULL && outcome == WEIR_DURABLE_FAILED) {
      refused(writer, b, response);
    } else {
      repeat(writer, b, weir_durable_code(WEIR_DURABLE_PRODUCE, transport, response), response, now,
             random);
    }
  }
  if (writer->stale && writer->state.in_flight == 0) claim(writer, now, random);
}

weir_status weir_durable_writer_restart(weir_durable_writer *writer) {
  const weir_durable_writer_state *state = &writer->state;
  if (state->failed || state->closing || first_of(writer) != NULL) return WEIR_E_INVALID;
  if (state->epoch >= NUMBER_MAX) return WEIR_E_LIMIT;
  begin_epoch(writer, state->epoch + 1);
  return WEIR_OK;
}
