/*
 * weir_durable_response: what the Durable Streams protocol says in the head of an HTTP response.
 *
 * Whoever carries HTTP hands over the status and each header; what matters to the protocol is kept,
 * bounded, the rest is ignored. Then weir_durable_verdict() says what the answer means for a
 * request of a certain kind: done, try again (and not before when), or failed, with our name for
 * it.
 */
#ifndef WEIR_DURABLE_RESPONSE_H
#define WEIR_DURABLE_RESPONSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WEIR_DURABLE_OFFSET_MAX 512u /* longest offset, cursor or ETag that is taken, bytes */

typedef struct weir_durable_text {
  uint16_t len;
  char bytes[WEIR_DURABLE_OFFSET_MAX];
} weir_durable_text;

typedef struct weir_durable_response {
  int status;                    /* HTTP's; 0 before there is one */
  weir_durable_text next_offset; /* Stream-Next-Offset; len 0 when there was none, as below */
  weir_durable_text cursor;      /* Stream-Cursor */
  weir_durable_text etag;        /* ETag */
  weir_durable_text content_type;
  bool up_to_date; /* Stream-Up-To-Date */
  bool closed;     /* Stream-Closed: true, in any case of letters */
  bool base64;     /* stream-sse-data-encoding: base64 */
  bool too_long;   /* one of the texts above was longer than allowed: the response is of no use */
  /* Producer-Epoch, -Seq, -Expected-Seq, -Received-Seq; UINT64_MAX when absent or no number. */
  uint64_t producer_epoch, producer_seq, expected_seq, received_seq;
  /* Retry-After in seconds (a number), or UINT64_MAX; a date is left in retry_date for the caller.
   */
  uint64_t retry_after;
  weir_durable_text retry_date;
} weir_durable_response;

void weir_durable_response_init(weir_durable_response *response, int status);
/* One header; names in any case of letters. */
void weir_durable_response_header(weir_durable_response *response, const char *name,
                                  size_t name_len, const char *value, size_t value_len);

typedef enum weir_durable_kind {
  WEIR_DURABLE_CREATE, /* PUT */
  WEIR_DURABLE_HEAD,
  WEIR_DURABLE_DELETE,
  WEIR_DURABLE_READ,
  WEIR_DURABLE_APPEND,     /* plain: not safe to repeat */
  WEIR_DURABLE_APPEND_SEQ, /* with Stream-Seq: a repeat that had arrived is a conflict */
  WEIR_DURABLE_CLOSE,      /* without a body: safe to repeat */
  WEIR_DURABLE_PRODUCE     /* with producer headers: safe to repeat */
} weir_durable_kind;

typedef enum weir_durable_outcome {
  WEIR_DURABLE_OK,
  WEIR_DURABLE_RETRY,  /* a repeat may succeed and can do no harm */
  WEIR_DURABLE_FAILED, /* for good: weir_durable_code() says how */
  WEIR_DURABLE_UNKNOWN /* it may or may not have been done, and must not be repeated blindly */
} weir_durable_outcome;

typedef enum weir_durable_transport {
  WEIR_DURABLE_ANSWERED,
  WEIR_DURABLE_NOT_SENT, /* no connection: the server cannot have seen the request */
  WEIR_DURABLE_LOST,     /* connection broken or timed out after something was sent */
  WEIR_DURABLE_TIMED_OUT /* no answer in time */
} weir_durable_transport;

weir_durable_outcome weir_durable_verdict(weir_durable_kind kind, weir_durable_transport transport,
                                          const weir_durable_response *response);
/* The stable name of what went wrong ("not_found", "stream_closed", "network", ...). */
const char *weir_durable_code(weir_durable_kind kind, weir_durable_transport transport,
                              const weir_durable_response *response);

#endif
