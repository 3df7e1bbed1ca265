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
  bool unusable; /* one of the texts above was too long or had control characters (and is empty) */
  /* Producer-Epoch, -Seq, -Expected-Seq, -Received-Seq; UINT64_MAX when absent or no number. */
  uint64_t producer_epoch, producer_seq, expected_seq, received_seq;
  uint64_t retry_after;         /* Retry-After in seconds; UINT64_MAX when absent, or a date: */
  weir_durable_text retry_date; /* see weir_durable_response_resolve_date() */
} weir_durable_response;

void weir_durable_response_init(weir_durable_response *response, int status);
/* One header; names in any case of letters. Of one that comes twice the last counts. Headers that
 * are not the protocol's are ignored. */
void weir_durable_response_header(weir_durable_response *response, const char *name,
                                  size_t name_len, const char *value, size_t value_len);
/* Turns a Retry-After that is a date (RFC 9110 section 5.6.7, IMF-fixdate) into retry_after, given
 * the wall clock in seconds since 1970. Any other text is ignored. */
void weir_durable_response_resolve_date(weir_durable_response *response, uint64_t unix_now);

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

/* What is retried: 429, every status from 500 on, and failures of the transport. A plain append
 * only when the server cannot have taken it: no connection, 429, 503; otherwise its fate is
 * UNKNOWN. ANSWERED without a response, or with status 0, counts as LOST. A sequence gap (PRODUCE,
 * 409 with expected_seq) is FAILED here; a writer that pipelines looks at it first. A read or HEAD
 * whose response is `unusable` has FAILED; for the rest the status alone counts. */
weir_durable_outcome weir_durable_verdict(weir_durable_kind kind, weir_durable_transport transport,
                                          const weir_durable_response *response);
/* Whether the server may have done what was asked, though we do not know it: a repeat of this
 * request that is then told "conflict" (APPEND_SEQ) or "not found" (DELETE) may be told so because
 * of itself. */
bool weir_durable_ambiguous(weir_durable_transport transport,
                            const weir_durable_response *response);
/* The stable name of what went wrong, NULL for an outcome of OK:
 *   network, timeout     the transport
 *   invalid_offset       400 or 416 to a read;  parse_error: 400 to anything else (the server could
 *                        not make sense of the request or its body)
 *   unauthorized 401, not_found 404, timeout 408, gone 410, rate_limited 429
 *   stale_epoch          403 with Producer-Epoch to PRODUCE;  forbidden: any other 403
 *   stream_closed        409 with Stream-Closed, but for CREATE
 *   already_exists       409 to CREATE
 *   sequence_conflict    409 to APPEND_SEQ, or to PRODUCE with Producer-Expected-Seq
 *   conflict             any other 409 (wrong content type, ...)
 *   too_large            413, 414, 431, or an `unusable` response
 *   server_error         every other status */
const char *weir_durable_code(weir_durable_kind kind, weir_durable_transport transport,
                              const weir_durable_response *response);

#endif
