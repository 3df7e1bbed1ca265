/*
 * weir_sse: a parser of server-sent events (WHATWG HTML, section 9.2.6): bytes in, events out.
 *
 * Lines end with LF, CR or CRLF, which may be split between inputs; a byte order mark at the start,
 * comments, `id`, `retry` and unknown fields are skipped; one space after the colon is stripped;
 * `data` lines of an event are joined with LF. Bytes are not looked at beyond that: other Unicode
 * line separators and invalid UTF-8 come out as they went in. An event without a `data` line is
 * none, and what is not ended by an empty line never comes out.
 *
 * The parser keeps the data of the current event and nothing else; each byte is copied once
 * (amortised). It owns its memory until weir_sse_free().
 */
#ifndef WEIR_DURABLE_SSE_H
#define WEIR_DURABLE_SSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/alloc.h"
#include "core/buf.h"
#include "core/status.h"

#define WEIR_SSE_TYPE_MAX 128u /* longest event type, bytes */

typedef struct weir_sse_event {
  const char *type; /* "message" when none was given; borrowed until the next call */
  size_t type_len;
  weir_slice data; /* owned by the caller; may be empty */
} weir_sse_event;

typedef struct weir_sse {
  const weir_alloc *alloc;
  size_t max;    /* bytes of data in an event */
  weir_buf *buf; /* of the current event, or to be used again, or NULL */
  size_t len;    /* of its data so far */
  bool has_data; /* a `data` line was seen */
  bool after_cr; /* an LF that follows belongs to the CR before */
  uint8_t state, field, bom;
  uint8_t name_len, type_len, sent_len;
  char name[8];
  char type[WEIR_SSE_TYPE_MAX], sent[WEIR_SSE_TYPE_MAX]; /* of this event, of the last one */
  weir_status failed;
} weir_sse;

/* `max`: the most bytes of data in an event. */
void weir_sse_init(weir_sse *sse, const weir_alloc *alloc, size_t max);
/* Forgets what was begun: the next byte is the first of a new stream. */
void weir_sse_reset(weir_sse *sse);
void weir_sse_free(weir_sse *sse);

/* Takes bytes from *data (and counts *len down) until an event is complete. AGAIN: all was taken
 * and more is needed. LIMIT: the event or its type is too long; NOMEM; both stay until a reset. */
weir_status weir_sse_next(weir_sse *sse, const unsigned char **data, size_t *len,
                          weir_sse_event *event);

#endif
