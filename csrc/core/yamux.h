/*
 * weir_yamux: many streams on one connection.
 *
 * A session as the published yamux specification (hashicorp/yamux, spec.md) describes it, without
 * any I/O: drive it as a weir_endpoint. The session owns its streams; a stream pointer is valid
 * from on_stream()/weir_yamux_open() until on_close() for it returns. Callbacks run inside feed(),
 * output(), tick() and ended(); from them every function here may be called except
 * weir_yamux_free() and the endpoint's own.
 *
 * Bounds: streams, streams that the application has not accepted yet (backlog), bytes received and
 * not consumed (per stream: its window; in total: receive_memory), queued output per stream, and
 * control frames owed to the peer (a peer that floods pings or window updates without reading gets
 * a protocol error, never memory).
 */
#ifndef WEIR_YAMUX_H
#define WEIR_YAMUX_H

#include <stdbool.h>
#include <stdint.h>

#include "core/buf.h"
#include "core/endpoint.h"
#include "core/status.h"

#define WEIR_YAMUX_HEADER 12
#define WEIR_YAMUX_WINDOW (256u * 1024u) /* the specification's initial window, in bytes */
#define WEIR_YAMUX_MAX_SLICES 4096       /* runs of bytes in the send queue of a stream */

enum { /* go-away codes of the specification */
  WEIR_YAMUX_NORMAL = 0,
  WEIR_YAMUX_PROTOCOL_ERROR = 1,
  WEIR_YAMUX_INTERNAL_ERROR = 2
};

typedef struct weir_yamux weir_yamux;
typedef struct weir_yamux_stream weir_yamux_stream;

typedef struct weir_yamux_handler {
  /* The peer opened a stream. WEIR_OK: the application has it and must call weir_yamux_accept() or
   * weir_yamux_reset() sometime; until then it counts against the backlog. Anything else: refused
   * with RST. Its data may follow at once. */
  weir_status (*on_stream)(weir_yamux *session, weir_yamux_stream *stream, void *user);
  /* The peer accepted a stream of ours: weir_yamux_open() may have become possible again. */
  void (*on_accepted)(weir_yamux_stream *stream, void *user);
  /* Bytes came (borrowed for the call). They count against the stream's window until
   * weir_yamux_consume() gives them back. */
  void (*on_data)(weir_yamux_stream *stream, const unsigned char *data, size_t len, void *user);
  /* The stream that asked with weir_yamux_want_write() may write now: weir_yamux_room() bytes are
   * wanted. Called while output is being built, so what it writes leaves in the same go. It must
   * ask again if it has more. */
  void (*on_writable)(weir_yamux_stream *stream, void *user);
  /* The peer half-closed: no more data will come. */
  void (*on_end)(weir_yamux_stream *stream, void *user);
  /* The stream is over: WEIR_OK when both sides closed it, WEIR_E_RESET by either side,
   * WEIR_E_LIMIT for receive_memory, WEIR_E_CLOSED with the session, else why session or transport
   * failed. The pointer dies when this returns. Called once for each stream, also for a stream that
   * the application reset. */
  void (*on_close)(weir_yamux_stream *stream, weir_status reason, void *user);
  /* The answer to weir_yamux_ping() came. */
  void (*on_pong)(weir_yamux *session, uint64_t rtt, void *user);
  /* The peer said go-away with `code`: it accepts no new streams; those there are go on. Called
   * once, and again if a fault follows a normal one. */
  void (*on_go_away)(weir_yamux *session, uint32_t code, void *user);
} weir_yamux_handler; /* every member may be NULL */

typedef struct weir_yamux_config {
  bool client;             /* odd stream ids; else even */
  uint32_t max_streams;    /* open at a time, of both sides. Default 65536 */
  uint32_t backlog;        /* opened and not accepted, each side. Default 256 */
  uint32_t receive_window; /* bytes per stream, at least WEIR_YAMUX_WINDOW (the default) */
  /* Unconsumed bytes of all streams; a stream whose frame would exceed it is reset, and its
   * on_close says WEIR_E_LIMIT. Default 64 MiB */
  size_t receive_memory;
  size_t send_buffer; /* queued bytes per stream before write() says AGAIN. Default 256 KiB */
  uint32_t max_frame; /* largest data frame that we send. Default 64 KiB */
  uint64_t keepalive; /* idle time before a ping, ns. Default 30 s; WEIR_NEVER: none */
  uint64_t keepalive_timeout; /* wait for its answer, ns. Default 10 s */
} weir_yamux_config;          /* 0 in a field means its default */

/* NULL when memory is out or the configuration is impossible. `handler` must outlive the session.
 */
weir_yamux *weir_yamux_new(const weir_alloc *alloc, const weir_yamux_config *config,
                           const weir_yamux_handler *handler, void *user);
/* Calls on_close(WEIR_E_CLOSED) for every stream, then frees all. */
void weir_yamux_free(weir_yamux *session);
weir_endpoint *weir_yamux_endpoint(weir_yamux *session);
void *weir_yamux_user(const weir_yamux *session);

/* Opens a stream; its SYN leaves with the first output. WEIR_E_AGAIN: `backlog` opens wait for the
 * peer (on_accepted tells); WEIR_E_LIMIT: max_streams or stream ids used up; WEIR_E_CLOSED: session
 * ended or go-away seen. */
weir_status weir_yamux_open(weir_yamux *session, weir_yamux_stream **stream);
/* Sends a ping; its answer arrives as on_pong. WEIR_E_AGAIN while one is on its way. */
weir_status weir_yamux_ping(weir_yamux *session, uint64_t now);
/* Tells the peer that no new streams are accepted. A code other than NORMAL also ends the session.
 */
void weir_yamux_go_away(weir_yamux *session, uint32_t code);
/* Ends the session: on_close(WEIR_E_CLOSED) for every stream at once. What is queued and fits the
 * windows, FINs and last the go-away still leave; what comes is ignored. finished() becomes true
 * once that is written; a peer that does not read for keepalive_timeout makes tick() fail. */
void weir_yamux_close(weir_yamux *session);
uint64_t weir_yamux_rtt(const weir_yamux *session);     /* last measured, ns; 0 unknown */
uint32_t weir_yamux_streams(const weir_yamux *session); /* open now */
/* Why the session failed: a sentence, or NULL. */
const char *weir_yamux_error(const weir_yamux *session);

/* Streams. `user` is what the handler's stream callbacks get; NULL at first. */
void weir_yamux_set_user(weir_yamux_stream *stream, void *user);
void *weir_yamux_stream_user(const weir_yamux_stream *stream);
weir_yamux *weir_yamux_session(const weir_yamux_stream *stream);
uint32_t weir_yamux_id(const weir_yamux_stream *stream);
/* Tells the peer that its stream is accepted (ACK). */
void weir_yamux_accept(weir_yamux_stream *stream);
/* Queues bytes (the reference in `data` is taken on WEIR_OK only; borrowed bytes are copied). AGAIN
 * when send_buffer bytes or WEIR_YAMUX_MAX_SLICES runs are queued already; else all of it is taken.
 * CLOSED after shutdown. Accepts a stream of the peer. */
weir_status weir_yamux_write(weir_yamux_stream *stream, weir_slice data);
/* Asks for on_writable when output is built and the window is open. Cheap to repeat. */
void weir_yamux_want_write(weir_yamux_stream *stream);
/* Bytes that can be put in frames now: window and frame size less what is queued. */
size_t weir_yamux_room(const weir_yamux_stream *stream);
size_t weir_yamux_queued(const weir_yamux_stream *stream); /* bytes not yet in a frame */
/* The application has dealt with `len` received bytes; the window opens again by as much. */
void weir_yamux_consume(weir_yamux_stream *stream, size_t len);
/* Half-closes after what is queued. Accepts a stream of the peer. */
void weir_yamux_shutdown(weir_yamux_stream *stream);
/* Ends the stream at once; what is queued is dropped. on_close(WEIR_E_RESET) is called from here.
 */
void weir_yamux_reset(weir_yamux_stream *stream);

#endif
