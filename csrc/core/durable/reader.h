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
 * JSON streams are read item by item: every piece is a JSON array of whole items, valid by itself,
 * whatever way the response was cut on the network. The items' texts are as the server sent them;
 * white space between them is dropped. Other streams come as bytes, in pieces cut anywhere.
 *
 * Positions are texts: an offset of the server ("-1", "now", "0000..._0000..."), or inside what one
 * response brought, the offset before it and how much of it has been handed out: "OFFSET,N" (N
 * items of a JSON stream, else N bytes). Both can be saved and given to a new reader. What is
 * dropped after a cut is counted, not compared: streams do not change.
 *
 * The last piece of a catch-up or long-poll body is held until more comes or the body ends, so that
 * its position is the server's when all arrived. Server-sent events are handed out at once, before
 * their control event, where they are JSON or base64. Text is held until its control event, since
 * these events turn CR into LF and positions inside would not mean the same in another mode; for
 * the same reason (and because servers may lose leading spaces or split characters there) AUTO
 * reads text by long-poll. No mode asks again at once and for ever: connections and answers that
 * come quickly and bring nothing are spaced out like retries. SSE is given up for long-poll, with a
 * reason in the state, when the server refuses it, answers with something else, sends an event
 * longer than max_event, or ends three connections in a row within a second without progress.
 *
 * An answer that brings nothing and ends before the position is not believed but asked for again,
 * since offsets only rise: some servers read what they have not committed yet and take it back for
 * a moment. Ten in a row are "invalid_offset": the stream is shorter than what we had of it.
 *
 * A cache of catch-up reads belongs to whoever carries the requests: on 304 it gives head() and
 * feed() what it has kept.
 *
 * Bounds: an item of a JSON stream, the data of an SSE event, or text up to its control event
 * (max_event each), offsets and headers (response.h). Nothing else accumulates but the pieces that
 * were not taken: whoever feeds takes them before feeding more.
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
  WEIR_DURABLE_LIVE_AUTO /* SSE for JSON and binary streams when it works, else long-poll */
} weir_durable_live;

typedef struct weir_durable_reader weir_durable_reader;

typedef struct weir_durable_reader_config {
  weir_durable_live live;
  const char *position; /* "-1" when NULL */
  /* Of the stream, where it is known, or NULL. With it SSE begins at once, without a catch-up read
   * (which else tells the type), unless the position is "now" or inside an answer. */
  const char *content_type;
  size_t max_event;        /* longest SSE event and JSON item, bytes. Default (0) 64 MiB */
  weir_retry_policy retry; /* all zero: the default */
} weir_durable_reader_config;

typedef struct weir_durable_query {
  /* Query parameters in the order in which they must appear; values are not escaped yet. NULL:
   * leave it out. Valid until the answer has ended. */
  const char *cursor, *live, *offset;
  bool sse; /* Accept: text/event-stream */
} weir_durable_query;

typedef struct weir_durable_piece {
  weir_slice data;         /* owned; may be empty when only the state changed */
  uint64_t items;          /* of a JSON array; 0 for bytes */
  const char *offset;      /* position before it; valid until the next call, as the next two */
  const char *next_offset; /* position behind it */
  const char *cursor;      /* or NULL */
  bool whole;              /* next_offset is an offset of the server */
  bool up_to_date;
  bool closed; /* nothing follows, ever */
} weir_durable_piece;

/* NULL: out of memory. A position that makes no sense makes a reader that has failed with
 * "invalid_offset". */
weir_durable_reader *weir_durable_reader_new(const weir_alloc *alloc,
                                             const weir_durable_reader_config *config);
void weir_durable_reader_free(weir_durable_reader *reader);

/* The request to make now; every request ends with end(). AGAIN: one is on its way, or not before
 * weir_durable_reader_deadline(); CLOSED: the end (closed stream, or up to date and not live, or
 * failed; pieces may still be there to be taken). */
weir_status weir_durable_reader_request(weir_durable_reader *reader, uint64_t now,
                                        weir_durable_query *query);
/* From when on there is a request; WEIR_NEVER while one is on its way and at the end. */
uint64_t weir_durable_reader_deadline(const weir_durable_reader *reader);
/* Its answer: head, body in pieces, end. An error from feed() means: no more of it is wanted; give
 * the response up, then call end() with WEIR_DURABLE_LOST. CLOSED is such an "error", too: the
 * stream's end was seen. A head whose Retry-After is a date must have it resolved. */
void weir_durable_reader_head(weir_durable_reader *reader, const weir_durable_response *response,
                              uint64_t now);
weir_status weir_durable_reader_feed(weir_durable_reader *reader, const void *data, size_t len,
                                     uint64_t now);
void weir_durable_reader_end(weir_durable_reader *reader, weir_durable_transport transport,
                             uint64_t now, uint64_t random);
/* The next piece; the reference in it becomes the caller's. AGAIN: none. */
weir_status weir_durable_reader_next(weir_durable_reader *reader, weir_durable_piece *piece);

typedef struct weir_durable_reader_state {
  /* As of the last piece that was taken: nothing before the position is missing, nothing behind it
   * was handed out. Valid until the next call. */
  const char *position;
  bool up_to_date, closed;
  weir_durable_live mode; /* in use now */
  const char *fallback;   /* why SSE was given up, or NULL */
  uint64_t requests, retries, bytes;
  bool json; /* items, by the content type; known from the first answer */
  bool failed;
  const char *code; /* static: "not_found", "gone", "parse_error", ... */
  int status;       /* HTTP's, or 0 */
} weir_durable_reader_state;

void weir_durable_reader_state_of(const weir_durable_reader *reader,
                                  weir_durable_reader_state *state);

#endif
