/*
 * Streams of one yamux session over TCP loopback, in C: what weir's session and driver take of what
 * libuv gives (baseline_tcp.c). Two processes:
 *
 *   yamux_tcp receive               prints `port=N`; takes one session until it ends
 *   yamux_tcp send PORT STREAMS SIZE SECONDS
 *                                   opens STREAMS streams and writes SIZE bytes at a time on each,
 *                                   in turn, for SECONDS
 *
 * Each write is encoded (copied into a block) by itself, as the baseline does. At the end each
 * prints
 *
 *   messages=N bytes=N seconds=S cpu=S
 *
 * where messages are bytes / SIZE (the receiver is told SIZE by the first four bytes of a stream).
 */
#include <inttypes.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "core/bytes.h"
#include "core/yamux.h"
#include "io/conn.h"
#include "io/listener.h"
#include "io/loop.h"

#define WINDOW (4u * 1024 * 1024)
#define BLOCK (64u * 1024)
#define SLAB (256u * 1024)

typedef struct {
  weir_loop loop;
  weir_endpoint *endpoint; /* of the session */
  weir_yamux *session;
  weir_conn *conn;
  weir_slab slab;
  unsigned char *payload;
  size_t size;
  uint32_t streams;
  uint64_t bytes, begin, end, stop; /* times: uv_hrtime() */
  int port;
  bool done;
} bench;

static void check(int status, const char *what) {
  if (status >= 0) return;
  fprintf(stderr, "yamux_tcp: %s: %s\n", what, uv_strerror(status));
  exit(1);
}

static double seconds_of(const uv_timeval_t *time) {
  return (double)time->tv_sec + (double)time->tv_usec * 1e-6;
}

static void report(const bench *b) {
  uv_rusage_t usage;
  check(uv_getrusage(&usage), "getrusage");
  printf("messages=%" PRIu64 " bytes=%" PRIu64 " seconds=%.6f cpu=%.6f\n",
         b->size == 0 ? 0 : b->bytes / b->size, b->bytes, (double)(b->end - b->begin) * 1e-9,
         seconds_of(&usage.ru_utime) + seconds_of(&usage.ru_stime));
}

static void run(bench *b) {
  while (!b->done) {
    if (weir_loop_flush(&b->loop)) {
      weir_loop_poll(&b->loop);
      continue;
    }
    struct pollfd fd = {.fd = weir_loop_fd(&b->loop), .events = POLLIN};
    poll(&fd, 1, 100);
    weir_loop_poll(&b->loop);
  }
}

static void on_closed(weir_conn *conn, weir_status status, int error, void *user) {
  (void)conn;
  (void)error;
  bench *b = user;
  b->done = true;
  if (status != WEIR_OK && b->end == 0) {
    fprintf(stderr, "yamux_tcp: %s\n", weir_status_text(status));
    exit(1);
  }
}

static void open_session(bench *b, bool client, const weir_yamux_handler *handler) {
  const weir_yamux_config config = {
      .client = client, .receive_window = WINDOW, .max_streams = 65536, .backlog = 4096};
  b->session = weir_yamux_new(NULL, &config, handler, b);
  if (b->session == NULL) check(UV_ENOMEM, "session");
  b->endpoint = weir_yamux_endpoint(b->session);
  check(weir_conn_attach(b->conn, &b->endpoint, 1000000000u, on_closed, b), "attach");
}

/* --- receiving -------------------------------------------------------------------------------- */

static weir_status on_stream(weir_yamux *session, weir_yamux_stream *stream, void *user) {
  (void)session;
  (void)user;
  weir_yamux_accept(stream);
  return WEIR_OK;
}

static void on_data(weir_yamux_stream *stream, const unsigned char *data, size_t len, void *user) {
  (void)user;
  bench *b = weir_yamux_user(weir_yamux_session(stream));
  if (b->begin == 0) {
    b->begin = uv_hrtime();
    b->size = len >= 4 ? weir_get_u32(data) : 0;
  }
  b->bytes += len;
  b->end = uv_hrtime();
  weir_yamux_consume(stream, len);
}

static void on_end(weir_yamux_stream *stream, void *user) {
  (void)user;
  weir_yamux_shutdown(stream);
}

static const weir_yamux_handler RECEIVER = {
    .on_stream = on_stream, .on_data = on_data, .on_end = on_end};

static void on_connection(weir_listener *listener, weir_conn *conn, void *user) {
  (void)listener;
  bench *b = user;
  b->conn = conn;
  open_session(b, false, &RECEIVER);
}

static void receive(bench *b) {
  struct sockaddr_in address;
  int error = 0;
  check(uv_ip4_addr("127.0.0.1", 0, &address), "address");
  weir_listener *listener =
      weir_listener_tcp(&b->loop, (struct sockaddr *)&address, 1, on_connection, b, &error);
  check(error, "listen");
  printf("port=%d\n", weir_listener_port(listener));
  fflush(stdout);
  run(b);
  weir_listener_free(listener);
}

/* --- sending ---------------------------------------------------------------------------------- */

static void on_writable(weir_yamux_stream *stream, void *user) {
  (void)user;
  bench *b = weir_yamux_user(weir_yamux_session(stream));
  size_t room = weir_yamux_room(stream);
  for (size_t sent = 0; sent < room; sent += b->size) {
    weir_slice message;
    unsigned char *bytes;
    if (weir_slab_carve(&b->slab, b->size, &message, &bytes) != WEIR_OK) check(UV_ENOMEM, "write");
    memcpy(bytes, b->payload, b->size);
    if (weir_yamux_write(stream, message) != WEIR_OK) {
      weir_slice_unref(&message);
      break;
    }
    b->bytes += b->size;
  }
  b->end = uv_hrtime();
  if (b->end < b->stop) {
    weir_yamux_want_write(stream);
  } else {
    weir_yamux_shutdown(stream);
  }
}

static void on_close(weir_yamux_stream *stream, weir_status reason, void *user) {
  (void)reason;
  (void)user;
  bench *b = weir_yamux_user(weir_yamux_session(stream));
  if (--b->streams == 0) weir_yamux_close(b->session);
}

static const weir_yamux_handler SENDER = {.on_writable = on_writable, .on_close = on_close};

static void on_opened(weir_conn *conn, int error, void *user) {
  (void)conn;
  bench *b = user;
  check(error, "connect");
  open_session(b, true, &SENDER);
  const uint64_t duration = b->stop;
  b->begin = uv_hrtime();
  b->stop = b->begin + duration;
  for (uint32_t i = 0; i < b->streams; i++) {
    weir_yamux_stream *stream;
    if (weir_yamux_open(b->session, &stream) != WEIR_OK) check(UV_ENOMEM, "open");
    weir_yamux_want_write(stream);
  }
}

static void send_streams(bench *b) {
  struct sockaddr_in address;
  b->payload = malloc(b->size);
  if (b->payload == NULL) check(UV_ENOMEM, "malloc");
  memset(b->payload, 'x', b->size);
  weir_put_u32(b->payload, (uint32_t)b->size);
  weir_slab_init(&b->slab, NULL, SLAB);
  check(uv_ip4_addr("127.0.0.1", b->port, &address), "address");
  b->conn = weir_conn_new(&b->loop, WEIR_CONN_TCP);
  check(weir_conn_connect_tcp(b->conn, (struct sockaddr *)&address, on_opened, b), "connect");
  run(b);
  weir_slab_reset(&b->slab);
  free(b->payload);
}

int main(int argc, char **argv) {
  static bench b;
  check(weir_loop_init(&b.loop), "loop");
  if (argc == 2 && strcmp(argv[1], "receive") == 0) {
    receive(&b);
  } else if (argc == 6 && strcmp(argv[1], "send") == 0) {
    b.port = (int)strtol(argv[2], NULL, 10);
    b.streams = (uint32_t)strtoul(argv[3], NULL, 10);
    b.size = (size_t)strtoul(argv[4], NULL, 10);
    b.stop = (uint64_t)(strtod(argv[5], NULL) * 1e9);
    if (b.port < 1 || b.streams < 1 || b.streams > 4096 || b.size < 4 || b.size > BLOCK) {
      fprintf(stderr, "yamux_tcp: 1 to 4096 streams, 4 to %u bytes\n", BLOCK);
      return 2;
    }
    send_streams(&b);
  } else {
    fprintf(stderr, "usage: yamux_tcp receive | yamux_tcp send PORT STREAMS SIZE SECONDS\n");
    return 2;
  }
  report(&b);
  weir_conn_free(b.conn);
  weir_loop_close(&b.loop);
  weir_yamux_free(b.session);
  return 0;
}
