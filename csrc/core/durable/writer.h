/*
 * weir_durable_writer: exactly-once appends, batched.
 *
 * Items are queued, gathered into batches and handed out as requests, each with producer id, epoch
 * and sequence number. A batch keeps its (epoch, sequence) and its bytes until the server has
 * confirmed it: whatever goes wrong on the way (5xx, 429, a broken connection, no answer), the same
 * request is handed out again, so that nothing is lost, repeated or reordered.
 *
 * What repeating cannot mend (403 without auto-claim, 404, 409 closed, 413, ...) ends the writer at
 * that batch. Batches before it are still brought to their end first; none behind it is sent any
 * more. So a failure is always that of the first batch that is not confirmed, and the state says
 * which items that leaves out.
 *
 * Order of requests: a batch that was refused because an earlier one had not arrived is held back
 * until all earlier ones are confirmed, and only it is sent again. An answer also confirms every
 * batch before its own, because the server takes them in order. Nothing is pipelined before the
 * first batch of an epoch is confirmed (a server may only learn of an epoch from sequence 0), and
 * the close goes alone.
 *
 * Auto-claim: once all requests that are out have ended, everything unconfirmed gets the server's
 * epoch + 1 and sequences from 0. That is safe only where the old epoch cannot have taken any of
 * it, so if the first unconfirmed batch MAY have arrived (an attempt was lost, timed out or
 * answered 500, 502, 504, ...), sending it under a new epoch might repeat it: then the writer fails
 * with "stale_epoch" instead.
 *
 * A 204 to the first batch of an epoch that this writer began itself (by auto-claim or restart),
 * sent once and not lost, cannot be about that batch: somebody else has begun the same epoch, which
 * counts as a stale one. A 204 to a close must say Stream-Closed; otherwise its number was taken by
 * another batch, and the writer fails with "sequence_conflict".
 *
 * JSON streams: items are JSON texts (not checked here); a batch is `[a,b,c]`. Otherwise items are
 * concatenated.
 *
 * Bounds: `buffer` bytes of items that are not confirmed, each batch counted with its overhead (one
 * item may exceed it when nothing else is queued), `max_batch_bytes`, `max_batch_items`,
 * `max_in_flight` requests.
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
#include "core/time.h"

typedef struct weir_durable_writer weir_durable_writer;

typedef struct weir_durable_writer_config {
  uint64_t epoch;    /* at most 2^53 - 1 */
  uint64_t sequence; /* of the first batch: 0, or as saved; at most 2^53 - 1 */
  bool json;
  bool auto_claim;            /* on 403, go on with the server's epoch + 1 from sequence 0 */
  size_t max_batch_bytes;     /* of a request's body. Default 1 MiB; a larger item goes alone */
  uint32_t max_batch_items;   /* Default 65536 */
  uint32_t max_in_flight;     /* Default 1 */
  uint64_t linger;            /* ns that a batch which is not full waits for more. Default 5 ms */
  size_t buffer;              /* Default 8 MiB */
  weir_retry_policy retry;    /* of each batch. The defaults when retry.initial is 0 */
} weir_durable_writer_config; /* 0 in a field means its default where one is named */

typedef struct weir_durable_request {
  uint64_t id; /* to name it in the answer; unique for each handing out */
  uint64_t epoch, sequence;
  bool close; /* with Stream-Closed: true */
  uint64_t first_item, item_count;
  const weir_iov *body; /* valid until the answer or failure for this id was given */
  size_t body_runs, body_len;
} weir_durable_request;

/* OK, or INVALID; *field (may be NULL) then names what is wrong. */
weir_status weir_durable_writer_check(const weir_durable_writer_config *config, const char **field);
/* NULL: no memory, or a configuration that does not pass the check. */
weir_durable_writer *weir_durable_writer_new(const weir_alloc *alloc,
                                             const weir_durable_writer_config *config);
void weir_durable_writer_free(weir_durable_writer *writer);

/* Queues a copy of an item; *item (may be NULL) is its number, counted from 0. AGAIN: no room;
 * CLOSED: close() was called or the writer has failed; INVALID: an empty item, which the protocol
 * does not have; NOMEM. */
weir_status weir_durable_writer_append(weir_durable_writer *writer, const void *data, size_t len,
                                       uint64_t now, uint64_t *item);
/* What is queued goes out without lingering. */
void weir_durable_writer_flush(weir_durable_writer *writer);
/* After everything queued, closes the stream: with `data` as a last item (len > 0, buffer or not)
 * or without a body. The close is a batch with a sequence of its own, and as safe to repeat.
 * CLOSED: closed before, or failed; NOMEM: nothing has changed. */
weir_status weir_durable_writer_close(weir_durable_writer *writer, const void *data, size_t len,
                                      uint64_t now);

/* The next request to send. AGAIN: nothing to send now; see weir_durable_writer_deadline().
 * CLOSED: there will be none ever again (closed and confirmed, or failed). */
weir_status weir_durable_writer_next(weir_durable_writer *writer, uint64_t now,
                                     weir_durable_request *request);
/* When next() may have something though nothing else happens (may be past); WEIR_NEVER. */
uint64_t weir_durable_writer_deadline(const weir_durable_writer *writer);
/* The end of a request: the answer (transport ANSWERED), or what went wrong (`response` may be
 * NULL). Each request must end once, or nothing is sent for it again; another id is ignored.
 * `random`: 64 evenly distributed bits. */
void weir_durable_writer_done(weir_durable_writer *writer, uint64_t id,
                              weir_durable_transport transport,
                              const weir_durable_response *response, uint64_t now, uint64_t random);

/* Starts over with epoch + 1 and sequence 0. INVALID unless everything is confirmed, no request is
 * out, and the writer has neither failed nor been closed; LIMIT: there is no higher epoch. */
weir_status weir_durable_writer_restart(weir_durable_writer *writer);

typedef struct weir_durable_writer_state {
  /* Those of the next new batch: to be saved when everything is confirmed. */
  uint64_t epoch, next_sequence;
  uint64_t confirmed_sequence; /* of this epoch, every batch below it is confirmed */
  uint64_t items;              /* appended */
  uint64_t confirmed;          /* every item before this number is in the stream */
  uint64_t unsent;             /* no item from this number on has been handed out yet */
  uint64_t queued_bytes;       /* of items that are not confirmed */
  uint32_t in_flight;
  uint64_t batches;         /* confirmed */
  uint64_t retries;         /* handings out of a batch after its first */
  uint64_t duplicates;      /* batches that the server said it had already */
  uint64_t claims;          /* epochs taken by auto-claim */
  bool closing, closed;     /* close() called; confirmed */
  weir_durable_text offset; /* behind the last confirmed batch, where the server said it */
  /* The failure that ended it; the rest only if `failed`: */
  bool failed;
  const char *code; /* static */
  int status;       /* 0: no answer */
  /* The items that are not confirmed: from `unsent` on they are not in the stream, before that
   * their fate is not known, but for what the code says of the batch refused. */
  uint64_t first_item, item_count;
  uint64_t refused_count;    /* items, from first_item on, of the batch that was refused; 0 when
                              * it turned out later that it had arrived */
  uint64_t refused_sequence; /* its sequence, in state.epoch */
  weir_durable_response response; /* that refused it */
} weir_durable_writer_state;

/* Valid as long as the writer, and always up to date. */
const weir_durable_writer_state *weir_durable_writer_state_of(const weir_durable_writer *writer);

#endif
