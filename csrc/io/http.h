/*
 * weir_http: HTTP requests on weir's loop, carried by libcurl's multi interface.
 *
 * A client has a pool of connections, TLS and proxy settings and limits; a request is one exchange
 * on it. All of libcurl's work is done inside weir_loop_poll() and weir_loop_flush(); its sockets
 * are uv_poll_t handles, its timer and those of the requests are alarms of the loop. libcurl may
 * use a thread of its own to resolve names; there are no others.
 *
 * A request calls `changed` in a flush when its head is there, when bytes can be taken after there
 * were none, when there is room for bytes of the body again, and when it ends. Then one looks:
 * weir_http_status(), weir_http_take(), weir_http_room(), weir_http_ended().
 *
 * Bounded: the head in bytes and in fields, informational answers and trailers counted with it; the
 * received bytes that nobody has taken, by not reading the socket (WEIR_HTTP_BUFFER and a piece of
 * libcurl's); the bytes of a streamed body that are not sent.
 *
 * Repeats: when a connection that was kept open turns out to be dead, libcurl repeats the request
 * on a fresh one if nothing of an answer had come. Of a request that is not `idempotent` that is
 * not allowed: it fails, with `sent` set. Redirects are answers like others.
 *
 * Memory: whoever made a client or a request frees it; freeing a request in progress abandons it,
 * and freeing a client ends its requests with WEIR_HTTP_CANCELLED. Nothing is called back by a
 * freeing function, nor after it.
 */
#ifndef WEIR_IO_HTTP_H
#define WEIR_IO_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io/loop.h"

/* Received bytes that may wait to be taken before the socket is left alone. */
#define WEIR_HTTP_BUFFER (256u * 1024u)
/* Bytes of a streamed body that may wait to be sent. */
#define WEIR_HTTP_UPLOAD (64u * 1024u)
/* More bytes of head than libcurl itself accepts in a line cannot be allowed. */
#define WEIR_HTTP_HEAD_MAX (100u * 1024u)

typedef struct weir_http weir_http;
typedef struct weir_http_request weir_http_request;

typedef enum weir_http_error {
  WEIR_HTTP_OK,
  WEIR_HTTP_BAD_URL,
  WEIR_HTTP_CANCELLED,
  WEIR_HTTP_DENIED,  /* by the proxy, which makes no tunnel */
  WEIR_HTTP_NETWORK, /* a connection broke, or ended before the answer did */
  WEIR_HTTP_NOMEM,
  WEIR_HTTP_PROTOCOL, /* what came is not HTTP */
  WEIR_HTTP_REFUSED,
  WEIR_HTTP_TIMEOUT,
  WEIR_HTTP_TLS,
  WEIR_HTTP_TOO_LARGE, /* the head */
  WEIR_HTTP_UNRESOLVED
} weir_http_error;

/* Strings are copied. Certificates and keys are names of PEM files, or PEM text itself. */
typedef struct weir_http_options {
  const char *ca;   /* NULL: the system's */
  const char *cert; /* of the client, or NULL */
  const char *key;
  const char *proxy; /* NULL: by the environment (https_proxy ...); "": none */
  bool insecure;     /* accept any certificate */
  bool http2;        /* offer HTTP/2 to https servers */
  size_t max_connections;
  size_t max_head_bytes;
  size_t max_head_fields;
  uint64_t connect_timeout; /* nanoseconds, for name, connection and TLS; WEIR_NEVER: none */
} weir_http_options;

typedef void (*weir_http_changed)(weir_http_request *request, void *user);

/* Strings are copied, but for `body`, which must stay until the request has ended or is freed. */
typedef struct weir_http_call {
  const char *method;
  const char *url;           /* http or https */
  const char *const *fields; /* "name: value" */
  size_t field_count;
  const void *body; /* NULL: none, unless streamed */
  size_t body_len;
  bool streamed;   /* the body comes by weir_http_write() and ends with weir_http_finish() */
  bool idempotent; /* may be repeated though it was sent */
  bool decompress; /* ask for gzip and undo it; otherwise bytes are what the server sent */
  uint64_t timeout, head_timeout, idle_timeout; /* nanoseconds, or WEIR_NEVER */
  weir_http_changed changed;
  void *user;
} weir_http_call;

typedef struct weir_http_field {
  const char *name, *value; /* not terminated */
  size_t name_len, value_len;
} weir_http_field;

/* NULL: out of memory. Files that options name are read when a connection is made. */
weir_http *weir_http_new(weir_loop *loop, const weir_http_options *options);
void weir_http_free(weir_http *http);
/* Requests in progress. */
size_t weir_http_active(const weir_http *http);

/* NULL with *error BAD_URL or NOMEM. */
weir_http_request *weir_http_request_new(weir_http *http, const weir_http_call *call,
                                         weir_http_error *error);
void weir_http_request_free(weir_http_request *request);
/* Ends it with WEIR_HTTP_CANCELLED if it has not ended. Bytes that came can still be taken. */
void weir_http_cancel(weir_http_request *request);

/* The status code once the head is complete, else 0. */
int weir_http_status(const weir_http_request *request);
/* Fields in the order they came; they last as long as the request. */
size_t weir_http_field_count(const weir_http_request *request);
weir_http_field weir_http_field_at(const weir_http_request *request, size_t index);
/* Received bytes; take() forgets them and lets the socket be read again. Pointers are good until
 * then, and until the loop runs. */
const void *weir_http_peek(const weir_http_request *request, size_t *len);
void weir_http_take(weir_http_request *request);

/* Of a streamed body: how many bytes it takes now; takes them (so many, or fewer); that was all. */
size_t weir_http_room(const weir_http_request *request);
size_t weir_http_write(weir_http_request *request, const void *data, size_t len);
void weir_http_finish(weir_http_request *request);

/* Whether the exchange is over. There may still be bytes to take. */
bool weir_http_ended(const weir_http_request *request);
/* Why, and in which words; the name of a libuv error ("ECONNREFUSED") or NULL. */
weir_http_error weir_http_failure(const weir_http_request *request);
const char *weir_http_error_name(weir_http_error error);
const char *weir_http_message(const weir_http_request *request);
const char *weir_http_system(const weir_http_request *request);
/* False as long as the server cannot have seen anything of the request. */
bool weir_http_sent(const weir_http_request *request);

#endif
