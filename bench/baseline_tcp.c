/*
 * What TCP loopback and libuv give when nothing else is in the way: the baseline of the stream and
 * yamux benchmarks. Two processes, each its own loop:
 *
 *   baseline_tcp receive            listens on a port of 127.0.0.1 that the system picks and prints
 *                                   `port=N`; takes one connection until it ends
 *   baseline_tcp send PORT SIZE SECONDS
 *                                   connects and sends messages of SIZE bytes for SECONDS
 *
 * A message is a length of 4 bytes, big-endian, and that many bytes. The sender encodes each one
 * into a buffer of 64 KiB (of one message, where that is larger) and has four such writes in
 * flight. The receiver reads into a buffer of 64 KiB and parses every message. At the end each
 * prints
 *
 *   messages=N bytes=N seconds=S cpu=S
 *
 * where bytes are those of the payloads, seconds the time from the first byte to the last (as the
 * sender sees it: from connecting to the end of its last write) and cpu what the process used.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

enum {
  BUFFER = 64 * 1024,
  IN_FLIGHT = 4,
  HEADER = 4,
  LARGEST = 256 * 1024 * 1024,
};

typedef struct {
  uint64_t messages, bytes;
  uint64_t begin, end; /* nanoseconds, of uv_hrtime() */
} tally;

static void check(int status, const char *what) {
  if (status >= 0) return;
  fprintf(stderr, "baseline_tcp: %s: %s\n", what, uv_strerror(status));
  exit(1);
}

static double seconds_of(const uv_timeval_t *time) {
  return (double)time->tv_sec + (double)time->tv_usec * 1e-6;
}

static void report(const tally *t) {
  uv_rusage_t usage;
  check(uv_getrusage(&usage), "getrusage");
  printf("messages=%" PRIu64 " bytes=%" PRIu64 " seconds=%.6f cpu=%.6f\n", t->messages, t->bytes,
         (double)(t->end - t->begin) * 1e-9,
         seconds_of(&usage.ru_utime) + seconds_of(&usage.ru_stime));
}

/* --- receiving -------------------------------------------------------------------------------- */

typedef struct {
  uv_tcp_t listener, connection;
  tally tally;
  unsigned char header[HEADER];
  size_t header_len; /* bytes of a header that a read has cut */
  size_t missing;    /* bytes of the message that has begun */
  char buffer[BUFFER];
} receiver;

static uint32_t load32(const unsigned char *p) {
  return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Takes the bytes of one header or less; returns how many. */
static size_t take_header(receiver *r, const unsigned char *p, size_t len) {
  size_t taken = HEADER - r->header_len;
  if (taken > len) taken = len;
  memcpy(r->header + r->header_len, p, taken);
  r->header_len += taken;
  return taken;
}

static void parse(receiver *r, const unsigned char *p, size_t len) {
  const unsigned char *end = p + len;
  while (p < end) {
    if (r->header_len < HEADER) {
      p += take_header(r, p, (size_t)(end - p));
      if (r->header_len < HEADER) return;
      r->missing = load32(r->header);
      r->tally.bytes += r->missing;
    }
    size_t have = (size_t)(end - p);
    if (have < r->missing) {
      r->missing -= have;
      return;
    }
    p += r->missing;
    r->header_len = 0;
    r->tally.messages++;
  }
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf) {
  receiver *r = handle->data;
  (void)suggested;
  *buf = uv_buf_init(r->buffer, sizeof r->buffer);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf) {
  receiver *r = stream->data;
  if (n == UV_EOF) {
    uv_close((uv_handle_t *)stream, NULL);
    return;
  }
  check((int)n, "read");
  if (r->tally.begin == 0) r->tally.begin = uv_hrtime();
  parse(r, (const unsigned char *)buf->base, (size_t)n);
  r->tally.end = uv_hrtime();
}

static void on_connection(uv_stream_t *listener, int status) {
  receiver *r = listener->data;
  check(status, "listen");
  check(uv_accept(listener, (uv_stream_t *)&r->connection), "accept");
  uv_close((uv_handle_t *)listener, NULL);
  check(uv_read_start((uv_stream_t *)&r->connection, on_alloc, on_read), "read");
}

static void receive(uv_loop_t *loop) {
  static receiver r;
  struct sockaddr_in address;
  struct sockaddr_storage bound;
  int len = sizeof bound;
  r.listener.data = r.connection.data = &r;
  check(uv_tcp_init(loop, &r.listener), "socket");
  check(uv_tcp_init(loop, &r.connection), "socket");
  check(uv_ip4_addr("127.0.0.1", 0, &address), "address");
  check(uv_tcp_bind(&r.listener, (const struct sockaddr *)&address, 0), "bind");
  check(uv_listen((uv_stream_t *)&r.listener, 1, on_connection), "listen");
  check(uv_tcp_getsockname(&r.listener, (struct sockaddr *)&bound, &len), "getsockname");
  const unsigned char *port = (const unsigned char *)&((struct sockaddr_in *)&bound)->sin_port;
  printf("port=%d\n", port[0] << 8 | port[1]);
  fflush(stdout);
  check(uv_run(loop, UV_RUN_DEFAULT), "loop");
  if (r.header_len != 0) {
    fprintf(stderr, "baseline_tcp: the connection ended inside a message\n");
    exit(1);
  }
  report(&r.tally);
}

/* --- sending ---------------------------------------------------------------------------------- */

struct sender;

typedef struct {
  uv_write_t request;
  struct sender *sender;
  uint64_t messages;
  char *bytes;
} batch;

typedef struct sender {
  uv_tcp_t connection;
  uv_connect_t connect;
  uv_shutdown_t shutdown;
  tally tally;
  uint64_t duration; /* nanoseconds */
  size_t size, capacity;
  char *payload;
  int in_flight;
  batch batches[IN_FLIGHT];
} sender;

static void on_shutdown(uv_shutdown_t *request, int status) {
  check(status, "shutdown");
  uv_close((uv_handle_t *)request->handle, NULL);
}

/* Encodes as many messages as the buffer has room for, one at a time; returns their bytes. */
static size_t encode(const sender *s, batch *b) {
  char *p = b->bytes;
  const char *end = p + s->capacity;
  b->messages = 0;
  while ((size_t)(end - p) >= HEADER + s->size) {
    unsigned char header[HEADER] = {(unsigned char)(s->size >> 24), (unsigned char)(s->size >> 16),
                                    (unsigned char)(s->size >> 8), (unsigned char)s->size};
    memcpy(p, header, HEADER);
    memcpy(p + HEADER, s->payload, s->size);
    p += HEADER + s->size;
    b->messages++;
  }
  return (size_t)(p - b->bytes);
}

static void on_written(uv_write_t *request, int status);

static void write_batch(sender *s, batch *b) {
  uv_buf_t buf = uv_buf_init(b->bytes, (unsigned)encode(s, b));
  s->in_flight++;
  check(uv_write(&b->request, (uv_stream_t *)&s->connection, &buf, 1, on_written), "write");
}

static void on_written(uv_write_t *request, int status) {
  batch *b = (batch *)request;
  sender *s = b->sender;
  check(status, "write");
  s->in_flight--;
  s->tally.messages += b->messages;
  s->tally.bytes += b->messages * s->size;
  s->tally.end = uv_hrtime();
  if (s->tally.end - s->tally.begin < s->duration) {
    write_batch(s, b);
  } else if (s->in_flight == 0) {
    check(uv_shutdown(&s->shutdown, (uv_stream_t *)&s->connection, on_shutdown), "shutdown");
  }
}

static void on_connect(uv_connect_t *request, int status) {
  sender *s = request->handle->data;
  check(status, "connect");
  s->tally.begin = uv_hrtime();
  for (int i = 0; i < IN_FLIGHT; i++)
    write_batch(s, &s->batches[i]);
}

static char *allocate(size_t size) {
  char *memory = malloc(size);
  if (!memory) check(UV_ENOMEM, "malloc");
  return memory;
}

static void send_messages(uv_loop_t *loop, int port, size_t size, double seconds) {
  static sender s;
  struct sockaddr_in address;
  s.size = size;
  s.capacity = HEADER + size > BUFFER ? HEADER + size : BUFFER;
  s.duration = (uint64_t)(seconds * 1e9);
  s.payload = allocate(size);
  memset(s.payload, 'x', size);
  for (int i = 0; i < IN_FLIGHT; i++) {
    s.batches[i].sender = &s;
    s.batches[i].bytes = allocate(s.capacity);
  }
  s.connection.data = &s;
  check(uv_tcp_init(loop, &s.connection), "socket");
  check(uv_ip4_addr("127.0.0.1", port, &address), "address");
  check(uv_tcp_connect(&s.connect, &s.connection, (const struct sockaddr *)&address, on_connect),
        "connect");
  check(uv_run(loop, UV_RUN_DEFAULT), "loop");
  report(&s.tally);
  for (int i = 0; i < IN_FLIGHT; i++)
    free(s.batches[i].bytes);
  free(s.payload);
}

/* --- the command line ------------------------------------------------------------------------- */

/* The argument as a number within the bounds, or the end of the program. */
static double number(const char *text, const char *what, double least, double most) {
  char *end;
  double value = strtod(text, &end);
  if (*text && !*end && value >= least && value <= most) return value;
  fprintf(stderr, "baseline_tcp: %s must be a number from %g to %g, not '%s'\n", what, least, most,
          text);
  exit(2);
}

int main(int argc, char **argv) {
  uv_loop_t *loop = uv_default_loop();
  if (argc == 2 && strcmp(argv[1], "receive") == 0) {
    receive(loop);
  } else if (argc == 5 && strcmp(argv[1], "send") == 0) {
    int port = (int)number(argv[2], "PORT", 1, 65535);
    size_t size = (size_t)number(argv[3], "SIZE", 1, LARGEST);
    send_messages(loop, port, size, number(argv[4], "SECONDS", 0, 3600));
  } else {
    fprintf(stderr, "usage: baseline_tcp receive | baseline_tcp send PORT SIZE SECONDS\n");
    return 2;
  }
  check(uv_loop_close(loop), "loop");
  return 0;
}
