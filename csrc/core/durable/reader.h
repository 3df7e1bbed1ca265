/*
 * weir_durable_reader: reads a stream from a position, in any mode, without losing or repeating.
 *
 * Says which request to make next, is fed what comes back, and hands out pieces of the stream, each
 * with the position behind it. It begins with catch-up reads (cacheable: no `live`), and once up to
 * date goes on live, by long-poll or server-sent events, if that was asked for. A connection that
 * breaks in the middle is taken up where it was: a catch-up or long-poll body that is cut is read
 * again from its start and what had been handed out is dropped; an SSE stream goes on from its last
 * control event, what came after that is dropped likewise.
 *
 * Positions are texts: an offset of the server ("-1", "now", "0000..._0000..."), or inside what one
 * response brought, the offset before it and how much of it has been handed out: "OFFSET,N" (N
 * bytes, or N items where items are read). Both can be saved and given to a new reader.
 *
 * Bounds: one SSE line and event (max_event), offsets and headers (response.h). Bodies are passed
 * on piece by piece; nothing accumulates but an SSE event.
 */
#ifndef WEIR_DURABLE_READER_H
#define WEIR_DURABLE_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/alloc.h"
#include "core/buf.h"
#include "core/durable/response.h"
#include "core/durable/retry.h"
#include "core/status.h"

typedef enum weir_durable_live {
  WEIR_DURABLE_LIVE_NONE,
  WEIR_DURABLE_LIVE_LONG_POLL,
  WEIR_DURABLE_LIVE_SSE,
  WEIR_DURABLE_LIVE_AUTO /* SSE for text and JSON when it works, else long-poll */
} weir_durable_live;

typedef struct weir_durable_reader weir_durable_reader;

typedef struct weir_durable_reader_config {
  weir_durable_live live;
  const char *position; /* "-1" when NULL */
  size_t max_event;     /* longest SSE event, bytes. Default 64 MiB */
  weir_retry_policy retry;
} weir_durable_reader_config;

typedef struct weir_durable_query {
  /* Query parameters in the order in which they must appear; values are not escaped yet. NULL:
   * leave it out. */
  const char *cursor, *live, *offset;
  const char *if_none_match; /* header, or NULL */
  bool sse;                  /* Accept: text/event-stream */
} weir_durable_query;

typedef struct weir_durable_piece {
  weir_slice data;         /* owned; may be empty when only the state changed */
  const char *offset;      /* position before it; valid until the next call, as the next two */
  const char *next_offset; /* position behind it */
  const char *cursor;      /* or NULL */
  bool whole;              /* next_offset is an offset of the server */
  bool up_to_date;
  bool closed; /* nothing follows, ever */
} weir_durable_piece;

weir_durable_reader *weir_durable_reader_new(const weir_alloc *alloc,
                                             const weir_durable_reader_config *config);
void weir_durable_reader_free(weir_durable_reader *reader);

/* The request to make now. AGAIN: one is on its way, or not before weir_durable_reader_deadline();
 * CLOSED: the end (closed stream, or up to date and not live, or failed). */
weir_status weir_durable_reader_request(weir_durable_reader *reader, uint64_t now,
                                        weir_durable_query *query);
uint64_t weir_durable_reader_deadline(const weir_durable_reader *reader);
/* Its answer: head, body in pieces, end. An error from feed() means: give the response up, then
 * call end() with WEIR_DURABLE_LOST. */
void weir_durable_reader_head(weir_durable_reader *reader, const weir_durable_response *response,
                              uint64_t now);
weir_status weir_durable_reader_feed(weir_durable_reader *reader, const void *data, size_t len,
                                     uint64_t now);
void weir_durable_reader_end(weir_durable_reader *reader, weir_durable_transport transport,
                             uint64_t now, uint64_t random);
/* The next piece; the reference in it becomes the caller's. AGAIN: none. */
weir_status weir_durable_reader_next(weir_durable_reader *reader, weir_durable_piece *piece);

typedef struct weir_durable_reader_state {
  const char *position; /* nothing before it is missing, nothing behind it was handed out */
  bool up_to_date, closed;
  weir_durable_live mode; /* in use now */
  const char *fallback;   /* why SSE was given up, or NULL */
  uint64_t requests, retries, bytes;
  bool json; /* by the content type of the last response */
  bool failed;
  const char *code; /* static: "not_found", "gone", "parse_error", ... */
  int status;
} weir_durable_reader_state;

void weir_durable_reader_state_of(const weir_durable_reader *reader,
                                  weir_durable_reader_state *state);

#endif
