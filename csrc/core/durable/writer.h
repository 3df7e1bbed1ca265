/*
 * weir_durable_writer: exactly-once appends, batched.
 *
 * Items are queued, gathered into batches and handed out as requests, each with producer id, epoch
 * and sequence number. A batch keeps its (epoch, sequence) and its bytes until the server has
 * confirmed it: whatever goes wrong on the way (5xx, 429, a broken connection, no answer), the same
 * request is handed out again, so that nothing is lost, repeated or reordered. What cannot be
 * mended by repeating (403 without auto-claim, 404, 409 closed, 413, ...) ends the writer: no later
 * batch is sent, and weir_durable_writer_failure() says which items are not known to be in the
 * stream.
 *
 * JSON streams: items are JSON texts; a batch is `[a,b,c]`. Otherwise items are concatenated.
 *
 * Bounds: `buffer` bytes of items that are not confirmed (one item may exceed it when nothing else
 * is queued), `max_batch_bytes`, `max_batch_items`, `max_in_flight` requests.
 */
#ifndef WEIR_DURABLE_WRITER_H
#define WEIR_DURABLE_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/alloc.h"
#include "core/buf.h"
#include "core/durable/response.h"
#include "core/durable/retry.h"
#include "core/status.h"

typedef struct weir_durable_writer weir_durable_writer;

typedef struct weir_durable_writer_config {
  uint64_t epoch;    /* at most 2^53 - 1 */
  uint64_t sequence; /* of the first batch: 0, or as saved */
  bool json;
  bool auto_claim;          /* on 403, go on with the server's epoch + 1 from sequence 0 */
  size_t max_batch_bytes;   /* of a request's body. Default 1 MiB; a larger item goes alone */
  uint32_t max_batch_items; /* Default 65536 */
  uint32_t max_in_flight;   /* Default 1 */
  uint64_t linger;          /* ns that a batch which is not full waits for more. Default 5 ms */
  size_t buffer;            /* Default 8 MiB */
  weir_retry_policy retry;
} weir_durable_writer_config; /* 0 in a field means its default where one is named */

typedef struct weir_durable_request {
  uint64_t id; /* to name it in the answer; unique for each handing out */
  uint64_t epoch, sequence;
  bool close; /* with Stream-Closed: true */
  uint64_t first_item, item_count;
  const weir_iov *body; /* valid until the answer or failure for this id was given */
  size_t body_runs, body_len;
} weir_durable_request;

weir_durable_writer *weir_durable_writer_new(const weir_alloc *alloc,
                                             const weir_durable_writer_config *config);
void weir_durable_writer_free(weir_durable_writer *writer);

/* Queues a copy of an item; *item is its number, counted from 0. AGAIN: no room; CLOSED: close()
 * was called or the writer has failed; NOMEM. */
weir_status weir_durable_writer_append(weir_durable_writer *writer, const void *data, size_t len,
                                       uint64_t now, uint64_t *item);
/* What is queued goes out without lingering. */
void weir_durable_writer_flush(weir_durable_writer *writer);
/* After everything queued, closes the stream: with `data` as a last item (len > 0) or without a
 * body. The close is a batch with a sequence of its own, and as safe to repeat. */
weir_status weir_durable_writer_close(weir_durable_writer *writer, const void *data, size_t len,
                                      uint64_t now);

/* The next request to send. AGAIN: nothing to send now; see weir_durable_writer_deadline(). */
weir_status weir_durable_writer_next(weir_durable_writer *writer, uint64_t now,
                                     weir_durable_request *request);
/* When next() may have something though nothing else happens; WEIR_NEVER. */
uint64_t weir_durable_writer_deadline(const weir_durable_writer *writer);
/* The end of a request: the answer (transport ANSWERED), or what went wrong (`response` may be
 * NULL). */
void weir_durable_writer_done(weir_durable_writer *writer, uint64_t id,
                              weir_durable_transport transport,
                              const weir_durable_response *response, uint64_t now, uint64_t random);

/* Starts over with epoch + 1 and sequence 0. INVALID unless everything is confirmed. */
weir_status weir_durable_writer_restart(weir_durable_writer *writer);

typedef struct weir_durable_writer_state {
  uint64_t epoch, next_sequence; /* to be saved: those of the next new batch */
  uint64_t items;                /* appended */
  uint64_t confirmed;            /* every item before this number is in the stream */
  uint64_t queued_bytes;
  uint32_t in_flight;
  uint64_t batches, retries,
      duplicates;           /* confirmed batches; repeats; of them, those that had arrived */
  bool closing, closed;     /* close() called; confirmed */
  weir_durable_text offset; /* of the last confirmed batch, where the server said it */
  /* The failure that ended it: */
  bool failed;
  const char *code; /* static */
  int status;
  uint64_t first_item, item_count; /* whose fate is not known, or that were refused */
  weir_durable_response response;  /* that refused it */
} weir_durable_writer_state;

const weir_durable_writer_state *weir_durable_writer_state_of(const weir_durable_writer *writer);

#endif
