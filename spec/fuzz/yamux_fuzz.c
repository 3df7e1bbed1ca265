/*
 * Fuzzes a yamux session with bytes of a peer and calls of an application, in any order, from
 * outside and from callbacks; now and then an allocation fails. Checked: what leaves is well-formed
 * frames whatever comes, every stream is closed once, memory stays bounded and is all given back.
 *
 * Input: a byte with the side, limits and what callbacks do, a byte that says which allocation
 * fails (0: none), then operations: a byte each, with the bytes that it needs behind it.
 */
#include "core/yamux.h"

#include "core/bytes.h"
#include "core/time.h"
#include "support.h"

#define MAX_MEMORY (48u << 20) /* far above what the limits below allow */
#define MAX_STREAMS 64

/* --- memory ------------------------------------------------------------------------------------*/

typedef struct memory {
  weir_alloc alloc;
  size_t bytes;
  unsigned calls, fail_at;
} memory;

static void *memory_resize(void *ctx, void *ptr, size_t size) {
  memory *m = ctx;
  size_t *old = ptr != NULL ? (size_t *)ptr - 2 : NULL;
  size_t old_size = old != NULL ? old[0] : 0;
  if (size > 0 && ++m->calls == m->fail_at) return NULL;
  size_t *block = NULL;
  if (size > 0) {
    block = malloc(size + 2 * sizeof(size_t));
    check(block != NULL);
    block[0] = size;
    if (old != NULL) memcpy(block + 2, ptr, size < old_size ? size : old_size);
  }
  free(old);
  m->bytes += size - old_size;
  check(m->bytes <= MAX_MEMORY);
  return block != NULL ? block + 2 : NULL;
}

/* --- the application and the peer --------------------------------------------------------------*/

typedef struct world {
  memory memory;
  weir_yamux *session;
  weir_endpoint *endpoint;
  weir_yamux_stream *streams[MAX_STREAMS];
  input in;
  unsigned mischief; /* what callbacks do */
  uint64_t now;
  uint32_t max_frame;
  unsigned char head[WEIR_YAMUX_HEADER]; /* of the frame that leaves */
  size_t head_len, body_left;
} world;

static uint8_t next(world *w) { return byte(&w->in); }

static weir_yamux_stream *pick(world *w) { return w->streams[next(w) % MAX_STREAMS]; }

static bool adopt(world *w, weir_yamux_stream *stream) {
  for (size_t i = 0; i < MAX_STREAMS; i++) {
    if (w->streams[i] != NULL) continue;
    w->streams[i] = stream;
    weir_yamux_set_user(stream, &w->streams[i]);
    return true;
  }
  return false;
}

static void open_stream(world *w) {
  weir_yamux_stream *stream;
  if (weir_yamux_open(w->session, &stream) != WEIR_OK) return;
  if (!adopt(w, stream)) weir_yamux_reset(stream);
}

static void write_some(world *w, weir_yamux_stream *stream, size_t len, bool borrowed) {
  static const unsigned char zeros[300000];
  if (borrowed) {
    (void)weir_yamux_write(stream, (weir_slice){NULL, zeros, len});
    return;
  }
  weir_buf *buf = weir_buf_copy(&w->memory.alloc, zeros, len);
  if (buf == NULL) return;
  size_t half = len / 2; /* two slices that adjoin */
  weir_slice slice = {weir_buf_ref(buf), buf->data, half};
  if (weir_yamux_write(stream, slice) != WEIR_OK) weir_slice_unref(&slice);
  slice = (weir_slice){buf, buf->data + half, len - half};
  if (weir_yamux_write(stream, slice) != WEIR_OK) weir_slice_unref(&slice);
}

static size_t length_of(uint8_t code) {
  static const size_t lengths[] = {0, 1, 3, 50, 1023, 1024, 5000, 70000, 262144, 290000};
  return lengths[code % (sizeof(lengths) / sizeof(lengths[0]))];
}

static void act(world *w, unsigned action) {
  weir_yamux_stream *stream = pick(w);
  if (stream == NULL && action < 8) return;
  switch (action) {
    case 0: write_some(w, stream, length_of(next(w)), true); break;
    case 1: write_some(w, stream, length_of(next(w)), false); break;
    case 2: weir_yamux_shutdown(stream); break;
    case 3: weir_yamux_reset(stream); break;
    case 4: weir_yamux_accept(stream); break;
    case 5: weir_yamux_consume(stream, length_of(next(w))); break;
    case 6: weir_yamux_want_write(stream); break;
    case 7:
      check(weir_yamux_room(stream) <= w->max_frame);
      check(weir_yamux_queued(stream) <= 600000);
      break;
    case 8: open_stream(w); break;
    case 9: (void)weir_yamux_ping(w->session, w->now); break;
    case 10: weir_yamux_go_away(w->session, next(w) % 16 == 0); break;
    case 11:
      if (next(w) % 16 == 0) weir_yamux_close(w->session);
      break;
    default: break;
  }
}

/* In callbacks: what the input's next byte says, where the first byte of all allows it. */
static void interfere(world *w, unsigned event) {
  if ((w->mischief & event) != 0) act(w, next(w) % 12);
}

static world *world_of(const weir_yamux_stream *stream) {
  return weir_yamux_user(weir_yamux_session(stream));
}

static weir_status on_stream(weir_yamux *session, weir_yamux_stream *stream, void *user) {
  world *w = user;
  check(session == w->session);
  if (!adopt(w, stream)) return WEIR_E_LIMIT;
  interfere(w, 1);
  return WEIR_OK;
}

static void on_event(weir_yamux_stream *stream, void *user) {
  check(*(weir_yamux_stream **)user == stream);
  interfere(world_of(stream), 1);
}

static void on_data(weir_yamux_stream *stream, const unsigned char *data, size_t len, void *user) {
  check(*(weir_yamux_stream **)user == stream);
  check(len > 0);
  volatile unsigned char last = data[len - 1]; /* the sanitizer looks whether it can be read */
  (void)last;
  interfere(world_of(stream), 2);
}

static void on_writable(weir_yamux_stream *stream, void *user) {
  check(*(weir_yamux_stream **)user == stream);
  check(weir_yamux_room(stream) > 0);
  world *w = world_of(stream);
  write_some(w, stream, length_of(next(w)), true);
  interfere(w, 4);
}

static void on_close(weir_yamux_stream *stream, weir_status reason, void *user) {
  (void)reason;
  if (user == NULL) return; /* never adopted */
  check(*(weir_yamux_stream **)user == stream);
  interfere(world_of(stream), 8);
  *(weir_yamux_stream **)user = NULL;
}

static void on_pong(weir_yamux *session, uint64_t rtt, void *user) {
  (void)session;
  (void)rtt;
  interfere(user, 1);
}

static void on_go_away(weir_yamux *session, uint32_t code, void *user) {
  (void)session;
  (void)code;
  interfere(user, 1);
}

static const weir_yamux_handler HANDLER = {on_stream, on_event, on_data, on_writable,
                                           on_event,  on_close, on_pong, on_go_away};

/* --- bytes -------------------------------------------------------------------------------------*/

static void frame_left(world *w) {
  const unsigned char *h = w->head;
  unsigned flags = weir_get_u16(h + 2);
  uint32_t id = weir_get_u32(h + 4), length = weir_get_u32(h + 8);
  check(h[0] == 0 && h[1] <= 3 && flags <= 15);
  check((id == 0) == (h[1] >= 2));
  check(h[1] != 0 || (length > 0 && length <= w->max_frame));
  if (h[1] == 0) w->body_left = length;
}

/* Checks that what leaves is frames. */
static void observe(world *w, const unsigned char *bytes, size_t len) {
  while (len > 0) {
    size_t n;
    if (w->body_left > 0) {
      n = len < w->body_left ? len : w->body_left;
      w->body_left -= n;
    } else {
      n = WEIR_YAMUX_HEADER - w->head_len;
      if (n > len) n = len;
      memcpy(w->head + w->head_len, bytes, n);
      w->head_len += n;
      if (w->head_len == WEIR_YAMUX_HEADER) {
        w->head_len = 0;
        frame_left(w);
      }
    }
    bytes += n;
    len -= n;
  }
}

static size_t send_some(world *w, size_t max_runs, size_t max) {
  weir_iov iov[300];
  size_t count = w->endpoint->output(w->endpoint, iov, max_runs, w->now), total = 0;
  check(count <= max_runs);
  for (size_t i = 0; i < count && total < max; i++) {
    size_t len = iov[i].len < max - total ? iov[i].len : max - total;
    check(len > 0);
    observe(w, iov[i].base, len);
    total += len;
  }
  w->endpoint->sent(w->endpoint, total);
  return total;
}

static void feed(world *w, const void *bytes, size_t len) {
  unsigned char *copy = copy_of(bytes, len);
  (void)w->endpoint->feed(w->endpoint, copy, len, w->now);
  free(copy);
}

static void feed_raw(world *w) {
  size_t len = next(w);
  const uint8_t *bytes = next_bytes(&w->in, &len);
  feed(w, bytes, len);
}

/* A frame that is likely to mean something. */
static void feed_frame(world *w) {
  static unsigned char bytes[WEIR_YAMUX_HEADER + 300000];
  unsigned kind = next(w), id = next(w);
  size_t length = length_of(next(w));
  bytes[1] = kind % 4;
  weir_put_u16(bytes + 2, (uint16_t)(kind >> 4));
  weir_put_u32(bytes + 4, id);
  weir_put_u32(bytes + 8, (uint32_t)length);
  feed(w, bytes, WEIR_YAMUX_HEADER + (kind % 4 == 0 ? length : 0));
}

static void tick(world *w) {
  uint64_t deadline = w->endpoint->deadline(w->endpoint);
  uint64_t step = (uint64_t)next(w) * WEIR_SECOND / 8;
  w->now = deadline != WEIR_NEVER && deadline > w->now && step > WEIR_SECOND * 16 ? deadline
                                                                                  : w->now + step;
  (void)w->endpoint->tick(w->endpoint, w->now);
}

static void run(world *w) {
  bool ended = false;
  while (w->in.left > 0 && !ended) {
    unsigned op = next(w) % 24;
    if (op < 12) {
      act(w, op);
    } else if (op < 14) {
      feed_raw(w);
    } else if (op < 19) {
      feed_frame(w);
    } else if (op < 21) {
      (void)send_some(w, 1 + next(w) % 8, length_of(next(w)) + 1);
    } else if (op < 23) {
      tick(w);
    } else if (next(w) % 16 == 0) {
      w->endpoint->ended(w->endpoint, WEIR_OK);
      ended = true;
    }
  }
  if (!ended) {
    w->mischief = 0;
    weir_yamux_close(w->session);
    for (int i = 0; i < 100000 && send_some(w, 300, SIZE_MAX) > 0; i++) {
    }
    check(w->endpoint->finished(w->endpoint));
    check(w->head_len == 0 && w->body_left == 0);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 2) return 0;
  static const uint32_t max_frames[] = {64 * 1024, 700};
  world w = {.now = WEIR_SECOND, .in = {data + 2, size - 2}, .mischief = data[0] >> 4};
  w.memory = (memory){.alloc = {memory_resize, &w.memory}, .fail_at = data[1]};
  w.max_frame = max_frames[data[0] >> 1 & 1];
  const weir_yamux_config config = {
      .client = data[0] & 1,
      .max_streams = MAX_STREAMS / 2,
      .backlog = 8,
      .receive_window = data[0] & 4 ? WEIR_YAMUX_WINDOW : 2 * WEIR_YAMUX_WINDOW,
      .receive_memory = data[0] & 8 ? 1 << 20 : 300000,
      .send_buffer = 100000,
      .max_frame = w.max_frame,
  };
  w.session = weir_yamux_new(&w.memory.alloc, &config, &HANDLER, &w);
  if (w.session != NULL) {
    w.endpoint = weir_yamux_endpoint(w.session);
    run(&w);
    weir_yamux_free(w.session);
  }
  check(w.memory.bytes == 0);
  for (size_t i = 0; i < MAX_STREAMS; i++)
    check(w.streams[i] == NULL);
  return 0;
}
