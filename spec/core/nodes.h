/*
 * What the tests of sessions share: moving bytes between two endpoints in pieces, and a peer made
 * by hand, which is a bare yamux session that says whatever the test wants.
 */
#ifndef WEIR_SPEC_NODES_H
#define WEIR_SPEC_NODES_H

#include "core/bytes.h"
#include "core/endpoint.h"
#include "core/protocol.h"
#include "core/session.h"
#include "core/yamux.h"
#include "support.h"

/* Writes up to `max` bytes of what `from` has to say to `out`. */
static inline size_t take_output(weir_endpoint *from, unsigned char *out, size_t max,
                                 uint64_t now) {
  weir_iov iov[16];
  size_t total = 0, count;
  while (total < max && (count = from->output(from, iov, 16, now)) > 0) {
    size_t sent = 0;
    for (size_t i = 0; i < count && total < max; i++) {
      const size_t len = iov[i].len < max - total ? iov[i].len : max - total;
      memcpy(out + total, iov[i].base, len);
      total += len;
      sent += len;
    }
    from->sent(from, sent);
  }
  return total;
}

/* Feeds one piece, as a block of its own. */
static inline weir_status feed_piece(weir_endpoint *to, const unsigned char *bytes, size_t len,
                                     uint64_t now) {
  unsigned char *piece = weir_test_copy(bytes, len);
  weir_status status = to->feed(to, piece, len, now);
  free(piece);
  return status;
}

/* Moves what `from` says now to `to`, cut at random into pieces of at most `cut` bytes (0: in one
 * piece). Returns the bytes moved; *status is what feed() said last. */
static inline size_t move_bytes(weir_endpoint *from, weir_endpoint *to, uint64_t now, size_t cut,
                                uint64_t *random, weir_status *status) {
  static unsigned char bytes[1 << 18];
  const size_t total = take_output(from, bytes, sizeof bytes, now);
  *status = WEIR_OK;
  for (size_t at = 0; at < total && *status == WEIR_OK;) {
    size_t len = cut == 0 ? total : 1 + (size_t)(weir_test_random(random) % cut);
    if (len > total - at) len = total - at;
    *status = feed_piece(to, bytes + at, len, now);
    at += len;
  }
  return total;
}

/* --- a peer made by hand ---------------------------------------------------------------------- */

#define RAW_STREAMS 1100

typedef struct raw_stream {
  weir_yamux_stream *stream; /* NULL once it is gone */
  unsigned char *in;
  size_t len, at; /* bytes that came, bytes that raw_frame() has passed */
  bool ended;
  weir_status reason; /* why it is gone */
} raw_stream;

typedef struct raw_peer {
  weir_yamux *yamux;
  raw_stream streams[RAW_STREAMS];
  size_t count;
} raw_peer;

static inline raw_stream *raw_add(raw_peer *peer, weir_yamux_stream *stream) {
  assert_true(peer->count < RAW_STREAMS);
  raw_stream *s = &peer->streams[peer->count++];
  s->stream = stream;
  weir_yamux_set_user(stream, s);
  return s;
}

static inline weir_status raw_on_stream(weir_yamux *yamux, weir_yamux_stream *stream, void *user) {
  (void)yamux;
  raw_add(user, stream);
  weir_yamux_accept(stream);
  return WEIR_OK;
}

static inline void raw_on_data(weir_yamux_stream *stream, const unsigned char *data, size_t len,
                               void *user) {
  raw_stream *s = user;
  s->in = realloc(s->in, s->len + len);
  memcpy(s->in + s->len, data, len);
  s->len += len;
  weir_yamux_consume(stream, len);
}

static inline void raw_on_end(weir_yamux_stream *stream, void *user) {
  (void)stream;
  ((raw_stream *)user)->ended = true;
}

static inline void raw_on_close(weir_yamux_stream *stream, weir_status reason, void *user) {
  (void)stream;
  ((raw_stream *)user)->stream = NULL;
  ((raw_stream *)user)->reason = reason;
}

static inline raw_peer *raw_new(bool client) {
  static const weir_yamux_handler HANDLER = {.on_stream = raw_on_stream,
                                             .on_data = raw_on_data,
                                             .on_end = raw_on_end,
                                             .on_close = raw_on_close};
  const weir_yamux_config config = {.client = client,
                                    .backlog = 100000,
                                    .send_buffer = 64u * 1024 * 1024,
                                    .receive_window = 4u * 1024 * 1024};
  raw_peer *peer = calloc(1, sizeof *peer);
  peer->yamux = weir_yamux_new(NULL, &config, &HANDLER, peer);
  assert_non_null(peer->yamux);
  return peer;
}

static inline void raw_free(raw_peer *peer) {
  weir_yamux_free(peer->yamux);
  for (size_t i = 0; i < peer->count; i++)
    free(peer->streams[i].in);
  free(peer);
}

static inline raw_stream *raw_open(raw_peer *peer) {
  weir_yamux_stream *stream;
  assert_ok(weir_yamux_open(peer->yamux, &stream));
  return raw_add(peer, stream);
}

static inline void raw_write(raw_stream *s, const void *bytes, size_t len) {
  assert_non_null(s->stream);
  const weir_slice slice = {NULL, bytes, len};
  assert_ok(weir_yamux_write(s->stream, slice));
}

static inline void raw_frame_out(raw_stream *s, const weir_frame_buffer *frame) {
  raw_write(s, frame->bytes, frame->len);
}

/* The type of the next frame that came on the stream, or -1; its payload follows the length. */
static inline int raw_frame(raw_stream *s, const unsigned char **payload, size_t *len) {
  if (s->len - s->at < 4) return -1;
  const size_t length = weir_get_u32(s->in + s->at);
  if (s->len - s->at - 4 < length) return -1;
  *payload = s->in + s->at + 4;
  *len = length;
  s->at += 4 + length;
  return weir_frame_type_of(*payload, *len);
}

/* The code of the CLOSE frame that must come next, after frames of other types. */
static inline uint32_t raw_close_code(raw_stream *s) {
  const unsigned char *payload;
  size_t len;
  int type;
  while ((type = raw_frame(s, &payload, &len)) >= 0) {
    weir_closing closing;
    if (type != WEIR_FRAME_CLOSE) continue;
    assert_ok(weir_read_close(payload, len, &closing));
    return closing.code;
  }
  return 0;
}

#endif
