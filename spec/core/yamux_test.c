#include "core/yamux.h"

#include <stdbool.h>
#include <stdio.h>

#include "core/bytes.h"
#include "core/time.h"
#include "support.h"

enum {
  DATA = 0,
  WINDOW = 1,
  PING = 2,
  GO_AWAY = 3
};
enum {
  SYN = 1,
  ACK = 2,
  FIN = 4,
  RST = 8
};

/* --- an application on a session -----------------------------------------------------------------
 */

typedef struct app app;

typedef struct conn {
  app *app;
  weir_yamux_stream *stream; /* NULL once closed */
  uint32_t id;
  unsigned char *in;
  size_t in_len, in_cap;
  size_t unconsumed;
  bool ended, accepted;
  int closes;
  weir_status reason;
  size_t to_write, written; /* of the pattern, by on_writable */
  bool shutdown_after;
  void (*hook)(struct conn *conn, const char *event);
} conn;

#define MAX_CONNS 70000

struct app {
  weir_test_alloc memory;
  weir_yamux *session;
  weir_endpoint *endpoint;
  conn *conns;
  size_t conn_count;
  bool hold;    /* do not accept */
  bool keep;    /* do not consume */
  bool refuse;  /* streams */
  bool forget;  /* do not store what comes */
  size_t reply; /* bytes of the pattern to write on each incoming stream, then shut down */
  void (*hook)(conn *conn, const char *event);
  int pongs, go_aways, wakes;
  uint64_t rtt;
  uint32_t go_away_code;
};

static void call_hook(conn *c, const char *event) {
  if (c->hook != NULL) c->hook(c, event);
}

static conn *add_conn(app *a, weir_yamux_stream *stream) {
  assert_true(a->conn_count < MAX_CONNS);
  conn *c = &a->conns[a->conn_count++];
  *c = (conn){.app = a, .stream = stream, .id = weir_yamux_id(stream), .hook = a->hook};
  weir_yamux_set_user(stream, c);
  return c;
}

static unsigned char pattern(uint32_t id, size_t offset) {
  return (unsigned char)(id * 31 + offset * 7 + (offset >> 8));
}

static weir_status on_stream(weir_yamux *session, weir_yamux_stream *stream, void *user) {
  app *a = user;
  assert_ptr_equal(weir_yamux_user(session), a);
  assert_ptr_equal(weir_yamux_session(stream), session);
  if (a->refuse) return WEIR_E_LIMIT;
  conn *c = add_conn(a, stream);
  if (a->reply > 0) {
    c->to_write = a->reply;
    c->shutdown_after = true;
    weir_yamux_want_write(stream);
  }
  if (!a->hold) weir_yamux_accept(stream);
  call_hook(c, "stream");
  return WEIR_OK;
}

static void on_accepted(weir_yamux_stream *stream, void *user) {
  conn *c = user;
  assert_ptr_equal(c->stream, stream);
  c->accepted = true;
  call_hook(c, "accepted");
}

static void on_data(weir_yamux_stream *stream, const unsigned char *data, size_t len, void *user) {
  conn *c = user;
  assert_ptr_equal(c->stream, stream);
  assert_true(len > 0);
  assert_false(c->ended);
  if (!c->app->forget) {
    if (c->in_len + len > c->in_cap) {
      c->in_cap = (c->in_len + len) * 2;
      c->in = realloc(c->in, c->in_cap);
    }
    memcpy(c->in + c->in_len, data, len);
  }
  c->in_len += len;
  c->unconsumed += len;
  if (!c->app->keep) {
    weir_yamux_consume(stream, len);
    c->unconsumed -= len;
  }
  call_hook(c, "data");
}

static void on_writable(weir_yamux_stream *stream, void *user) {
  conn *c = user;
  assert_ptr_equal(c->stream, stream);
  size_t room = weir_yamux_room(stream);
  assert_true(room > 0);
  call_hook(c, "writable");
  if (c->stream == NULL) return;
  unsigned char bytes[3000];
  while (c->written < c->to_write && room > 0) {
    size_t n = c->to_write - c->written;
    if (n > sizeof(bytes)) n = sizeof(bytes);
    for (size_t i = 0; i < n; i++)
      bytes[i] = pattern(c->id, c->written + i);
    weir_status status = weir_yamux_write(stream, (weir_slice){NULL, bytes, n});
    if (status == WEIR_E_CLOSED) return; /* by the hook */
    if (status == WEIR_E_AGAIN || status == WEIR_E_NOMEM) break;
    assert_ok(status);
    c->written += n;
    room = weir_yamux_room(stream);
  }
  if (c->written < c->to_write) {
    weir_yamux_want_write(stream);
  } else if (c->shutdown_after) {
    weir_yamux_shutdown(stream);
  }
}

static void on_end(weir_yamux_stream *stream, void *user) {
  conn *c = user;
  assert_ptr_equal(c->stream, stream);
  assert_false(c->ended);
  c->ended = true;
  call_hook(c, "end");
}

static void on_close(weir_yamux_stream *stream, weir_status reason, void *user) {
  conn *c = user;
  assert_ptr_equal(c->stream, stream);
  c->closes++;
  c->reason = reason;
  call_hook(c, "close");
  c->stream = NULL;
}

static void on_pong(weir_yamux *session, uint64_t rtt, void *user) {
  app *a = user;
  (void)session;
  a->pongs++;
  a->rtt = rtt;
}

static void on_go_away(weir_yamux *session, uint32_t code, void *user) {
  app *a = user;
  (void)session;
  a->go_aways++;
  a->go_away_code = code;
}

static const weir_yamux_handler handler = {on_stream, on_accepted, on_data, on_writable,
                                           on_end,    on_close,    on_pong, on_go_away};

static void on_wake(weir_endpoint *endpoint, void *driver) {
  app *a = driver;
  assert_ptr_equal(endpoint, a->endpoint);
  a->wakes++;
}

static bool app_try_open(app *a, weir_yamux_config config) {
  if (config.keepalive == 0) config.keepalive = WEIR_NEVER;
  a->conns = calloc(MAX_CONNS, sizeof(conn));
  a->session = weir_yamux_new(&a->memory.alloc, &config, &handler, a);
  if (a->session == NULL) return false;
  a->endpoint = weir_yamux_endpoint(a->session);
  a->endpoint->wake = on_wake;
  a->endpoint->driver = a;
  return true;
}

static void app_open(app *a, weir_yamux_config config) {
  memset(a, 0, sizeof(*a));
  weir_test_alloc_init(&a->memory);
  assert_true(app_try_open(a, config));
}

static void app_close(app *a) {
  weir_yamux_free(a->session);
  for (size_t i = 0; i < a->conn_count; i++) {
    assert_int_equal(a->conns[i].closes, 1);
    free(a->conns[i].in);
  }
  free(a->conns);
  assert_no_leak(&a->memory);
}

static conn *open_conn(app *a) {
  weir_yamux_stream *stream;
  assert_int_equal(weir_yamux_open(a->session, &stream), WEIR_OK);
  return add_conn(a, stream);
}

static void write_pattern(conn *c, size_t len, bool shutdown_after) {
  c->to_write += len;
  c->shutdown_after = shutdown_after;
  weir_yamux_want_write(c->stream);
}

static void assert_pattern(const conn *c, size_t len) {
  assert_int_equal(c->in_len, len);
  for (size_t i = 0; i < len; i++) {
    if (c->in[i] != pattern(c->id, i)) fail_msg("stream %u differs at %zu", c->id, i);
  }
}

static conn *conn_by_id(app *a, uint32_t id) {
  for (size_t i = 0; i < a->conn_count; i++) {
    if (a->conns[i].id == id) return &a->conns[i];
  }
  return NULL;
}

static weir_status write_text(conn *c, const char *text) {
  return weir_yamux_write(c->stream, (weir_slice){NULL, (const unsigned char *)text, strlen(text)});
}

static weir_status write_bytes(conn *c, size_t len) {
  weir_buf *buf = weir_buf_new(&c->app->memory.alloc, len);
  if (buf == NULL) return WEIR_E_NOMEM;
  memset(buf->data, 'x', len);
  weir_status status = weir_yamux_write(c->stream, (weir_slice){buf, buf->data, len});
  if (status != WEIR_OK) weir_buf_unref(buf);
  return status;
}

/* --- bytes between two of them -------------------------------------------------------------------
 */

static uint64_t now_ns = 1000 * WEIR_SECOND;

static uint64_t seed = 1;

static uint32_t any(uint32_t below) {
  seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return (uint32_t)((seed >> 33) % below);
}

/* Moves some of what `from` shows: all of it, or (`split`) a random part in random pieces. */
static size_t move_some(app *from, app *to, bool split) {
  weir_iov iov[8];
  size_t count = from->endpoint->output(from->endpoint, iov, split ? 1 + any(8) : 8, now_ns);
  size_t moved = 0;
  for (size_t i = 0; i < count; i++) {
    const unsigned char *bytes = iov[i].base;
    size_t len = split && i + 1 == count ? 1 + any((uint32_t)iov[i].len) : iov[i].len;
    for (size_t at = 0; at < len;) {
      size_t n = split ? 1 + any((uint32_t)(len - at)) : len - at;
      unsigned char *copy = weir_test_copy(bytes + at, n);
      to->endpoint->feed(to->endpoint, copy, n, now_ns);
      free(copy);
      at += n;
    }
    moved += len;
  }
  from->endpoint->sent(from->endpoint, moved);
  return moved;
}

static void pump(app *a, app *b, bool split) {
  while (move_some(a, b, split) + move_some(b, a, split) > 0) {
  }
}

static size_t drain(app *a, unsigned char *out, size_t cap) {
  size_t total = 0;
  for (;;) {
    weir_iov iov[16];
    size_t count = a->endpoint->output(a->endpoint, iov, 16, now_ns);
    size_t len = 0;
    for (size_t i = 0; i < count; i++) {
      assert_true(total + iov[i].len <= cap);
      memcpy(out + total, iov[i].base, iov[i].len);
      total += iov[i].len;
      len += iov[i].len;
    }
    if (len == 0) return total;
    a->endpoint->sent(a->endpoint, len);
  }
}

static unsigned char scratch[2 * 1024 * 1024];

static void discard(app *a) {
  while (drain(a, scratch, sizeof(scratch)) > 0) {
  }
}

static void expect_bytes(app *a, const char *hex) {
  size_t len = drain(a, scratch, sizeof(scratch));
  char *got = malloc(len * 2 + 1);
  for (size_t i = 0; i < len; i++)
    sprintf(got + 2 * i, "%02x", scratch[i]);
  got[len * 2] = '\0';
  char *want = malloc(strlen(hex) + 1);
  size_t n = 0;
  for (const char *p = hex; *p != '\0'; p++) {
    if (*p != ' ') want[n++] = *p;
  }
  want[n] = '\0';
  assert_string_equal(got, want);
  free(got);
  free(want);
}

/* The next frame in the session's output: its header, its payload is skipped. */
typedef struct head {
  unsigned type, flags;
  uint32_t id, length;
} head;

static size_t frames(app *a, head *heads, size_t max) {
  size_t len = drain(a, scratch, sizeof(scratch));
  size_t count = 0;
  for (size_t at = 0; at < len; count++) {
    assert_true(count < max);
    const unsigned char *p = scratch + at;
    assert_int_equal(p[0], 0);
    heads[count] = (head){p[1], weir_get_u16(p + 2), weir_get_u32(p + 4), weir_get_u32(p + 8)};
    at += WEIR_YAMUX_HEADER + (p[1] == DATA ? heads[count].length : 0);
    assert_true(at <= len);
  }
  return count;
}

static void expect_frame(const head *h, unsigned type, unsigned flags, uint32_t id,
                         uint32_t length) {
  assert_int_equal(h->type, type);
  assert_int_equal(h->flags, flags);
  assert_int_equal(h->id, id);
  assert_int_equal(h->length, length);
}

/* Feeds a frame; the payload of a data frame is `length` times '.', unless `length` is too much. */
static weir_status feed(app *a, unsigned type, unsigned flags, uint32_t id, uint32_t length) {
  size_t body = type == DATA && length <= 1024 * 1024 ? length : 0;
  unsigned char *bytes = malloc(WEIR_YAMUX_HEADER + body);
  bytes[0] = 0;
  bytes[1] = (unsigned char)type;
  weir_put_u16(bytes + 2, (uint16_t)flags);
  weir_put_u32(bytes + 4, id);
  weir_put_u32(bytes + 8, length);
  memset(bytes + WEIR_YAMUX_HEADER, '.', body);
  weir_status status = a->endpoint->feed(a->endpoint, bytes, WEIR_YAMUX_HEADER + body, now_ns);
  free(bytes);
  return status;
}

static void expect_protocol_error(app *a, weir_status status, const char *text) {
  assert_int_equal(status, WEIR_E_PROTOCOL);
  assert_string_equal(weir_yamux_error(a->session), text);
  assert_int_equal(weir_yamux_streams(a->session), 0);
  assert_int_equal(feed(a, PING, SYN, 0, 1), WEIR_E_PROTOCOL);
  assert_false(a->endpoint->finished(a->endpoint));
  expect_bytes(a, "00 03 0000 00000000 00000001");
  assert_true(a->endpoint->finished(a->endpoint));
}

static const weir_yamux_config client = {.client = true};
static const weir_yamux_config server = {.client = false};

/* --- the frames of the specification ------------------------------------------------------------
 */

static void a_client_opens_odd_streams_with_a_window_update(void **state) {
  (void)state;
  app a;
  app_open(&a, client);
  expect_bytes(&a, "");
  assert_int_equal(open_conn(&a)->id, 1);
  assert_int_equal(open_conn(&a)->id, 3);
  expect_bytes(&a, "00 01 0001 00000001 00000000  00 01 0001 00000003 00000000");
  expect_bytes(&a, "");
  app_close(&a);
}

static void a_server_opens_even_streams(void **state) {
  (void)state;
  app a;
  app_open(&a, server);
  open_conn(&a);
  expect_bytes(&a, "00 01 0001 00000002 00000000");
  app_close(&a);
}

static void a_larger_receive_window_is_told_with_syn_and_ack(void **state) {
  (void)state;
  app a;
  app_open(&a, (weir_yamux_config){.client = true, .receive_window = 1024 * 1024});
  open_conn(&a);
  expect_bytes(&a, "00 01 0001 00000001 000c0000");
  feed(&a, WINDOW, SYN, 2, 0);
  expect_bytes(&a, "00 01 0002 00000002 000c0000");
  app_close(&a);
}

static void syn_rides_on_the_first_data(void **state) {
  (void)state;
  app a;
  app_open(&a, client);
  conn *c = open_conn(&a);
  assert_int_equal(write_text(c, "hello"), WEIR_OK);
  assert_int_equal(weir_yamux_queued(c->stream), 5);
  expect_bytes(&a, "00 00 0001 00000001 00000005 68656c6c6f");
  assert_int_equal(weir_yamux_queued(c->stream), 0);
  assert_int_equal(write_text(c, "x"), WEIR_OK);
  weir_yamux_shutdown(c->stream);
  expect_bytes(&a, "00 00 0000 00000001 00000001 78 00 01 0004 00000001 00000000");
  app_close(&a);
}

static void ack_is_sent_on_accept_alone_or_with_data(void **state) {
  (void)state;
  app a;
  app_open(&a, server);
  a.hold = true;
  feed(&a, WINDOW, SYN, 1, 0);
  feed(&a, WINDOW, SYN, 3, 0);
  feed(&a, DATA, SYN, 5, 0);
  expect_bytes(&a, "");
  weir_yamux_accept(a.conns[0].stream);
  weir_yamux_accept(a.conns[0].stream);
  expect_bytes(&a, "00 01 0002 00000001 00000000");
  weir_yamux_accept(a.conns[1].stream);
  write_text(&a.conns[1], "a");
  expect_bytes(&a, "00 00 0002 00000003 00000001 61");
  weir_yamux_shutdown(a.conns[2].stream); /* accepts, too */
  expect_bytes(&a, "00 01 0006 00000005 00000000");
  app_close(&a);
}

static void fin_follows_what_is_queued(void **state) {
  (void)state;
  app a;
  app_open(&a, client);
  conn *c = open_conn(&a);
  expect_bytes(&a, "00 01 0001 00000001 00000000");
  weir_yamux_shutdown(c->stream);
  weir_yamux_shutdown(c->stream);
  assert_int_equal(write_text(c, "late"), WEIR_E_CLOSED);
  assert_int_equal(weir_yamux_room(c->stream), 0);
  expect_bytes(&a, "00 01 0004 00000001 00000000");
  assert_int_equal(write_text(c, "late"), WEIR_E_CLOSED);
  app_close(&a);
}

static void fin_waits_for_the_window(void **state) {
  (void)state;
  app a;
  head h[16];
  app_open(&a, client);
  conn *c = open_conn(&a);
  write_bytes(c, WEIR_YAMUX_WINDOW + 10);
  weir_yamux_shutdown(c->stream);
  assert_int_equal(frames(&a, h, 16), 4);
  assert_int_equal(frames(&a, h, 16), 0);
  feed(&a, WINDOW, ACK, 1, 100);
  assert_int_equal(frames(&a, h, 16), 2);
  expect_frame(&h[0], DATA, 0, 1, 10);
  expect_frame(&h[1], WINDOW, FIN, 1, 0);
  app_close(&a);
}

static void fin_leaves_right_behind_the_data(void **state) {
  (void)state;
  app a;
  app_open(&a, client);
  conn *c = open_conn(&a);
  write_text(c, "x");
  weir_yamux_shutdown(c->stream);
  weir_iov iov[1];
  assert_int_equal(a.endpoint->output(a.endpoint, iov, 1, now_ns), 1);
  assert_int_equal(iov[0].len, 2 * WEIR_YAMUX_HEADER + 1);
  app_close(&a);
}

static void a_window_update_does_not_take_fin_past_the_queue(void **state) {
  (void)state;
  app a;
  head h[16];
  app_open(&a, server);
  a.keep = true;
  feed(&a, DATA, SYN, 1, 200000);
  write_bytes(&a.conns[0], WEIR_YAMUX_WINDOW + 10);
  weir_yamux_shutdown(a.conns[0].stream);
  discard(&a);
  weir_yamux_consume(a.conns[0].stream, 200000);
  assert_int_equal(frames(&a, h, 16), 1);
  expect_frame(&h[0], WINDOW, 0, 1, 200000);
  app_close(&a);
}

static void reset_sends_rst_and_drops_the_queue(void **state) {
  (void)state;
  app a;
  app_open(&a, client);
  conn *c = open_conn(&a);
  expect_bytes(&a, "00 01 0001 00000001 00000000");
  write_text(c, "dropped");
  weir_yamux_reset(c->stream);
  assert_int_equal(c->closes, 1);
  assert_int_equal(c->reason, WEIR_E_RESET);
  assert_int_equal(weir_yamux_streams(a.session), 0);
  expect_bytes(&a, "00 01 0008 00000001 00000000");
  app_close(&a);
}

static void a_stream_reset_before_its_syn_left_is_never_mentioned(void **state) {
  (void)state;
  app a;
  app_open(&a, client);
  conn *c = open_conn(&a);
  write_text(c, "dropped");
  weir_yamux_reset(c->stream);
  expect_bytes(&a, "");
  open_conn(&a);
  expect_bytes(&a, "00 01 0001 00000003 00000000");
  app_close(&a);
}

static void a_refused_stream_is_answered_with_rst(void **state) {
  (void)state;
  app a;
  app_open(&a, server);
  a.refuse = true;
  feed(&a, WINDOW, SYN, 1, 0);
  feed(&a, DATA, SYN, 3, 100);
  feed(&a, DATA, 0, 3, 100);
  expect_bytes(&a, "00 01 0008 00000001 00000000 00 01 0008 00000003 00000000");
  assert_int_equal(a.conn_count, 0);
  assert_int_equal(weir_yamux_streams(a.session), 0);
  app_close(&a);
}

static void pings_are_answered_with_their_value(void **state) {
  (void)state;
  app a;
  app_open(&a, server);
  feed(&a, PING, SYN, 0, 0xdeadbeef);
  feed(&a, PING, SYN, 0, 7);
  expect_bytes(&a, "00 02 0002 00000000 deadbeef 00 02 0002 00000000 00000007");
  app_close(&a);
}

static void the_window_opens_again_when_half_of_it_is_consumed(void **state) {
  (void)state;
  app a;
  app_open(&a, server);
  a.keep = true;
  feed(&a, WINDOW, SYN, 1, 0);
  expect_bytes(&a, "00 01 0002 00000001 00000000");
  feed(&a, DATA, 0, 1, 200000);
  weir_yamux_consume(a.conns[0].stream, 131071);
  expect_bytes(&a, "");
  weir_yamux_consume(a.conns[0].stream, 2);
  expect_bytes(&a, "00 01 0000 00000001 00020001");
  weir_yamux_consume(a.conns[0].stream, 1000000); /* more than there is counts as all */
  expect_bytes(&a, "");
  assert_int_equal(feed(&a, DATA, 0, 1, 62144 + 131073), WEIR_OK);
  app_close(&a);
}

static void no_window_is_given_for_a_stream_that_ended(void **state) {
  (void)state;
  app a;
  app_open(&a, server);
  a.keep = true;
  feed(&a, WINDOW, SYN, 1, 0);
  feed(&a, DATA, FIN, 1, 200000);
  expect_bytes(&a, "00 01 0002 00000001 00000000");
  weir_yamux_consume(a.conns[0].stream, 200000);
  expect_bytes(&a, "");
  app_close(&a);
}

/* --- what breaks the protocol --------------------------------------------------------------------
 */

static void breaking_frames_end_the_session_with_go_away_1(void **state) {
  (void)state;
  static const struct {
    head frame;
    const char *text;
  } cases[] = {
      {{4, 0, 0, 0}, "unknown frame type 4"},
      {{DATA, 0, 0, 5}, "stream frame for stream 0"},
      {{WINDOW, 0, 0, 5}, "stream frame for stream 0"},
      {{PING, SYN, 1, 5}, "stream 1: ping or go-away not for stream 0"},
      {{GO_AWAY, 0, 9, 5}, "stream 9: ping or go-away not for stream 0"},
      {{PING, 0, 0, 5}, "ping without SYN or ACK"},
      {{WINDOW, SYN, 2, 0}, "stream 2: SYN with an id of our side"},
      {{WINDOW, SYN, 1, 0}, "stream 1: SYN for a stream that is open"},
      {{DATA, 0, 1, WEIR_YAMUX_WINDOW + 1}, "stream 1: data beyond the receive window"},
      {{DATA, SYN, 3, WEIR_YAMUX_WINDOW + 1}, "stream 3: data beyond the receive window"},
      {{DATA, 0, 77, WEIR_YAMUX_WINDOW + 1}, "stream 77: frame of 262145 bytes is too long"},
      {{DATA, 0, 2, 5}, "stream 2: frame for a stream never opened"},
      {{WINDOW, 0, 4, 5}, "stream 4: frame for a stream never opened"},
      {{WINDOW, 0, 1, UINT32_MAX - WEIR_YAMUX_WINDOW + 1}, "stream 1: window beyond 32 bits"},
      {{WINDOW, SYN, 3, UINT32_MAX - WEIR_YAMUX_WINDOW + 1}, "stream 3: window beyond 32 bits"},
  };
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    app a;
    app_open(&a, server);
    feed(&a, WINDOW, SYN, 1, 0);
    discard(&a);
    const head *h = &cases[i].frame;
    expect_protocol_error(&a, feed(&a, h->type, h->flags, h->id, h->length), cases[i].text);
    assert_int_equal(a.conns[0].reason, WEIR_E_PROTOCOL);
    app_close(&a);
  }
}

static void another_version_ends_the_session(void **state) {
  (void)state;
  app a;
  app_open(&a, server);
  assert_int_equal(a.endpoint->feed(a.endpoint, "GET / HTTP/1.1", 14, now_ns), WEIR_E_VERSION);
  assert_string_equal(weir_yamux_error(a.session), "yamux version 71");
  expect_bytes(&a, "00 03 0000 00000000 00000001");
  app_close(&a);
}

static void data_after_fin_breaks_the_protocol(void **state) {
  (void)state;
  app a;
  app_open(&a, server);
  feed(&a, WINDOW, SYN, 1, 0);
  discard(&a);
  assert_int_equal(feed(&a, DATA, FIN, 1, 3), WEIR_OK);
  assert_int_equal(feed(&a, WINDOW, FIN, 1, 3), WEIR_OK);
  assert_int_equal(feed(&a, DATA, 0, 1, 0), WEIR_OK);
  expect_protocol_error(&a, feed(&a, DATA, 0, 1, 1), "stream 1: data after FIN");
  app_close(&a);
}

static void the_window_counts_over_frames(void **state) {
  (void)state;
  app a;
  app_open(&a, server);
  a.keep = true;
  feed(&a, DATA, SYN, 1, WEIR_YAMUX_WINDOW - 1);
  discard(&a);
  assert_int_equal(feed(&a, DATA, 0, 1, 1), WEIR_OK);
  expect_protocol_error(&a, feed(&a, DATA, 0, 1, 1), "stream 1: data beyond the receive window");
  app_close(&a);
}

static void frames_for_forgotten_streams_are_skipped(void **state) {
  (void)state;
  app a;
  app_open(&a, client);
  conn *c = open_conn(&a);
  discard(&a);
  weir_yamux_reset(c->stream);
  assert_int_equal(feed(&a, DATA, ACK, 1, 70000), WEIR_OK);
  assert_int_equal(feed(&a, WINDOW, FIN, 1, 70000), WEIR_OK);
  assert_int_equal(feed(&a, WINDOW, RST, 1, 0), WEIR_OK);
  assert_int_equal(feed(&a, DATA, 0, 78, 70000), WEIR_OK);
  assert_int_equal(feed(&a, PING, SYN, 0, 1), WEIR_OK);
  expect_bytes(&a, "00 02 0002 00000000 00000001 00 01 0008 00000001 00000000");
  app_close(&a);
}

static void unknown_flags_are_ignored(void **state) {
  (void)state;
  app a;
  app_open(&a, server);
  assert_int_equal(feed(&a, WINDOW, SYN | 0x100, 1, 0), WEIR_OK);
  assert_int_equal(a.conn_count, 1);
  app_close(&a);
}

/* --- data ----------------------------------------------------------------------------------------
 */

static void data_survives_any_split_in_both_directions(void **state) {
  (void)state;
  for (seed = 1; seed < 40; seed += 1) {
    uint64_t round = seed;
    app a, b;
    app_open(&a, (weir_yamux_config){.client = true, .max_frame = 1 + any(5000)});
    app_open(&b, (weir_yamux_config){.receive_window = WEIR_YAMUX_WINDOW + any(100000)});
    b.reply = 1 + any(100000);
    for (int i = 0; i < 12; i++) {
      conn *c = open_conn(&a);
      write_pattern(c, any(60000), true);
    }
    pump(&a, &b, true);
    assert_int_equal(a.conn_count, 12);
    assert_int_equal(b.conn_count, 12);
    for (size_t i = 0; i < 12; i++) {
      conn *there = conn_by_id(&b, a.conns[i].id);
      assert_pattern(there, a.conns[i].to_write);
      assert_pattern(&a.conns[i], b.reply);
      assert_true(a.conns[i].accepted);
      assert_true(there->ended);
      assert_int_equal(there->reason, WEIR_OK);
      assert_int_equal(a.conns[i].reason, WEIR_OK);
    }
    assert_int_equal(weir_yamux_streams(a.session) + weir_yamux_streams(b.session), 0);
    app_close(&a);
    app_close(&b);
    seed = round;
  }
}

static void megabytes_flow_through_the_window_whole(void **state) {
  (void)state;
  app a, b;
  app_open(&a, client);
  app_open(&b, server);
  write_pattern(open_conn(&a), 3000000, true);
  pump(&a, &b, false);
  assert_pattern(&b.conns[0], 3000000);
  assert_true(b.conns[0].ended);
  app_close(&a);
  app_close(&b);
}

static void adjoining_slices_leave_as_one_run(void **state) {
  (void)state;
  app a;
  app_open(&a, client);
  conn *c = open_conn(&a);
  discard(&a);
  weir_buf *buf = weir_buf_new(&a.memory.alloc, 132 * 100);
  memset(buf->data, 'm', buf->size);
  for (size_t i = 0; i < 100; i++) {
    weir_slice slice = {weir_buf_ref(buf), buf->data + 132 * i, 132};
    assert_int_equal(weir_yamux_write(c->stream, slice), WEIR_OK);
  }
  assert_int_equal(buf->refs, 2);
  weir_iov iov[8];
  assert_int_equal(a.endpoint->output(a.endpoint, iov, 8, now_ns), 2);
  assert_int_equal(iov[0].len, WEIR_YAMUX_HEADER);
  assert_ptr_equal(iov[1].base, buf->data);
  assert_int_equal(iov[1].len, 13200);
  a.endpoint->sent(a.endpoint, 13211);
  assert_int_equal(buf->refs, 2);
  assert_int_equal(a.endpoint->output(a.endpoint, iov, 8, now_ns), 1);
  assert_ptr_equal(iov[0].base, buf->data + 13199);
  a.endpoint->sent(a.endpoint, 1);
  assert_int_equal(buf->refs, 1);
  weir_buf_unref(buf);
  app_close(&a);
}

static void small_frames_of_many_streams_leave_as_one_run(void **state) {
  (void)state;
  app a;
  app_open(&a, client);
  for (int i = 0; i < 5; i++)
    write_bytes(open_conn(&a), 100);
  weir_iov iov[8];
  assert_int_equal(a.endpoint->output(a.endpoint, iov, 8, now_ns), 1);
  assert_int_equal(iov[0].len, 5 * 112);
  app_close(&a);
}

static void runs_of_small_frames_become_longer_when_there_are_many(void **state) {
  (void)state;
  app a;
  app_open(&a, (weir_yamux_config){.client = true, .backlog = 1000});
  for (int i = 0; i < 1000; i++)
    write_bytes(open_conn(&a), 100);
  size_t longest = 0, total = 0;
  for (weir_iov iov; a.endpoint->output(a.endpoint, &iov, 1, now_ns) == 1; total += iov.len) {
    if (iov.len > longest) longest = iov.len;
    a.endpoint->sent(a.endpoint, iov.len);
  }
  assert_int_equal(total, 112000);
  assert_true(longest > 60000);
  app_close(&a);
}

static void references_are_given_back_when_a_stream_is_reset(void **state) {
  (void)state;
  app a;
  app_open(&a, client);
  conn *c = open_conn(&a);
  weir_buf *buf = weir_buf_new(&a.memory.alloc, 100000);
  memset(buf->data, 'm', buf->size);
  assert_int_equal(weir_yamux_write(c->stream, (weir_slice){weir_buf_ref(buf), buf->data, 100000}),
                   WEIR_OK);
  assert_int_equal(weir_yamux_write(c->stream, (weir_slice){weir_buf_ref(buf), buf->data, 0}),
                   WEIR_OK);
  assert_int_equal(buf->refs, 2);
  weir_iov iov[1];
  assert_int_equal(a.endpoint->output(a.endpoint, iov, 1, now_ns), 1);
  weir_yamux_reset(c->stream);
  assert_true(buf->refs > 1); /* what was shown stays */
  discard(&a);
  assert_int_equal(buf->refs, 1);
  weir_buf_unref(buf);
  app_close(&a);
}

static void output_is_sent_byte_by_byte(void **state) {
  (void)state;
  app a, b;
  app_open(&a, (weir_yamux_config){.client = true, .max_frame = 700});
  app_open(&b, server);
  write_pattern(open_conn(&a), 5000, true);
  write_pattern(open_conn(&a), 5000, true);
  weir_iov iov[1];
  while (a.endpoint->output(a.endpoint, iov, 1, now_ns) == 1) {
    b.endpoint->feed(b.endpoint, iov[0].base, 1, now_ns);
    a.endpoint->sent(a.endpoint, 1);
  }
  assert_pattern(&b.conns[0], 5000);
  assert_pattern(&b.conns[1], 5000);
  app_close(&a);
  app_close(&b);
}

static void output_shows_a_bounded_amount(void **state) {
  (void)state;
  app a;
  app_open(&a, (weir_yamux_config){.client = true, .send_buffer = 1000000});
  for (int i = 0; i < 100; i++)
    write_bytes(open_conn(&a), 200000);
  static weir_iov iov[4096];
  size_t total = 0;
  size_t count = a.endpoint->output(a.endpoint, iov, 4096, now_ns);
  for (size_t i = 0; i < count; i++)
    total += iov[i].len;
  assert_true(total >= 256 * 1024 && total < 400 * 1024);
  assert_int_equal(a.endpoint->output(a.endpoint, iov, 4096, now_ns), count);
  app_close(&a);
}

static void streams_take_turns(void **state) {
  (void)state;
  app a;
  head h[32];
  app_open(&a, (weir_yamux_config){.client = true, .max_frame = 1000});
  for (int i = 0; i < 3; i++)
    write_bytes(open_conn(&a), 3000);
  assert_int_equal(frames(&a, h, 32), 9);
  for (int i = 0; i < 9; i++)
    expect_frame(&h[i], DATA, i < 3 ? SYN : 0, 1 + 2 * (i % 3), 1000);
  app_close(&a);
}

static void control_frames_overtake_data(void **state) {
  (void)state;
  app a;
  head h[32];
  app_open(&a, client);
  conn *c = open_conn(&a);
  discard(&a);
  write_bytes(c, 1000);
  open_conn(&a);
  feed(&a, PING, SYN, 0, 5);
  assert_int_equal(frames(&a, h, 32), 3);
  expect_frame(&h[0], PING, ACK, 0, 5);
  expect_frame(&h[1], WINDOW, SYN, 3, 0);
  expect_frame(&h[2], DATA, 0, 1, 1000);
  app_close(&a);
}

static void a_writer_stalls_at_the_window_and_resumes(void **state) {
  (void)state;
  app a, b;
  app_open(&a, client);
  app_open(&b, server);
  b.keep = true;
  conn *stalled = open_conn(&a);
  conn *other = open_conn(&a);
  write_pattern(stalled, 1000000, false);
  pump(&a, &b, true);
  assert_int_equal(b.conns[0].in_len, WEIR_YAMUX_WINDOW);
  assert_int_equal(weir_yamux_room(stalled->stream), 0);
  write_pattern(other, 1000, false);
  pump(&a, &b, true);
  assert_pattern(conn_by_id(&b, other->id), 1000);
  b.keep = false;
  weir_yamux_consume(b.conns[0].stream, WEIR_YAMUX_WINDOW);
  pump(&a, &b, true);
  assert_pattern(conn_by_id(&b, stalled->id), 1000000);
  app_close(&a);
  app_close(&b);
}

static void the_send_queue_is_bounded_in_bytes_and_runs(void **state) {
  (void)state;
  app a;
  app_open(&a, (weir_yamux_config){.client = true, .send_buffer = 10000});
  conn *c = open_conn(&a);
  assert_int_equal(write_bytes(c, 9999), WEIR_OK);
  assert_int_equal(write_bytes(c, 50000), WEIR_OK); /* the last one may exceed it */
  assert_int_equal(write_bytes(c, 1), WEIR_E_AGAIN);
  assert_int_equal(weir_yamux_queued(c->stream), 59999);
  conn *d = open_conn(&a);
  for (int i = 0; i < WEIR_YAMUX_MAX_SLICES; i++)
    assert_int_equal(write_bytes(d, 1), WEIR_OK);
  assert_int_equal(write_bytes(d, 1), WEIR_E_AGAIN);
  discard(&a);
  assert_int_equal(write_bytes(d, 1), WEIR_OK);
  app_close(&a);
}

static void writers_are_asked_only_while_the_window_is_open(void **state) {
  (void)state;
  app a;
  head h[32];
  app_open(&a, (weir_yamux_config){.client = true, .max_frame = 100000});
  conn *c = open_conn(&a);
  weir_yamux_want_write(c->stream);
  discard(&a); /* asked, wrote nothing and did not ask again */
  write_bytes(c, WEIR_YAMUX_WINDOW);
  discard(&a);
  write_pattern(c, 50, false);
  discard(&a);
  assert_int_equal(c->written, 0);
  feed(&a, WINDOW, 0, 1, 20);
  assert_int_equal(weir_yamux_room(c->stream), 20);
  assert_int_equal(frames(&a, h, 32), 1);
  expect_frame(&h[0], DATA, 0, 1, 20);
  assert_int_equal(c->written, 50);
  app_close(&a);
}

static int asked;

static void ask_again(conn *c, const char *event) {
  if (strcmp(event, "writable") != 0) return;
  asked++;
  weir_yamux_want_write(c->stream);
}

static void a_writer_that_only_asks_does_not_stop_output(void **state) {
  (void)state;
  app a;
  head h[32];
  app_open(&a, client);
  conn *c = open_conn(&a), *d = open_conn(&a), *e = open_conn(&a);
  discard(&a);
  c->hook = e->hook = ask_again;
  weir_yamux_want_write(c->stream);
  weir_yamux_want_write(e->stream);
  write_pattern(d, 10, false);
  asked = 0;
  a.wakes = 0;
  assert_int_equal(frames(&a, h, 32), 1);
  expect_frame(&h[0], DATA, 0, d->id, 10);
  assert_true(asked >= 2 && asked < 10);
  assert_int_equal(frames(&a, h, 32), 0);
  assert_int_equal(a.wakes, 0);
  app_close(&a);
}

/* --- half-close, reset ---------------------------------------------------------------------------
 */

static void the_other_direction_goes_on_after_fin(void **state) {
  (void)state;
  app a, b;
  app_open(&a, client);
  app_open(&b, server);
  conn *c = open_conn(&a);
  weir_yamux_shutdown(c->stream);
  pump(&a, &b, true);
  assert_true(b.conns[0].ended);
  assert_int_equal(b.conns[0].closes, 0);
  write_pattern(&b.conns[0], 400000, true);
  pump(&a, &b, true);
  assert_pattern(c, 400000);
  assert_int_equal(c->reason, WEIR_OK);
  assert_int_equal(c->closes, 1);
  assert_int_equal(b.conns[0].closes, 1);
  app_close(&a);
  app_close(&b);
}

static void a_reset_reaches_the_peer(void **state) {
  (void)state;
  app a, b;
  app_open(&a, client);
  app_open(&b, server);
  b.keep = true;
  conn *c = open_conn(&a);
  write_pattern(c, 1000000, false);
  pump(&a, &b, true);
  weir_yamux_reset(b.conns[0].stream);
  pump(&a, &b, true);
  assert_int_equal(c->reason, WEIR_E_RESET);
  assert_int_equal(b.conns[0].reason, WEIR_E_RESET);
  conn *d = open_conn(&a);
  write_pattern(d, 1000, false);
  pump(&a, &b, true);
  assert_pattern(conn_by_id(&b, d->id), 1000);
  app_close(&a);
  app_close(&b);
}

/* --- limits --------------------------------------------------------------------------------------
 */

static void opens_wait_for_their_acceptance(void **state) {
  (void)state;
  app a, b;
  app_open(&a, (weir_yamux_config){.client = true, .backlog = 2});
  app_open(&b, server);
  b.hold = true;
  conn *c = open_conn(&a);
  open_conn(&a);
  weir_yamux_stream *stream;
  assert_int_equal(weir_yamux_open(a.session, &stream), WEIR_E_AGAIN);
  pump(&a, &b, false);
  assert_int_equal(weir_yamux_open(a.session, &stream), WEIR_E_AGAIN);
  assert_false(c->accepted);
  weir_yamux_accept(b.conns[0].stream);
  pump(&a, &b, false);
  assert_true(c->accepted);
  open_conn(&a);
  assert_int_equal(weir_yamux_open(a.session, &stream), WEIR_E_AGAIN);
  weir_yamux_reset(b.conns[1].stream); /* a refusal makes room as well */
  pump(&a, &b, false);
  open_conn(&a);
  app_close(&a);
  app_close(&b);
}

static void streams_beyond_the_backlog_are_refused(void **state) {
  (void)state;
  app a;
  app_open(&a, (weir_yamux_config){.backlog = 2});
  a.hold = true;
  feed(&a, WINDOW, SYN, 1, 0);
  feed(&a, WINDOW, SYN, 3, 0);
  feed(&a, WINDOW, SYN, 5, 0);
  expect_bytes(&a, "00 01 0008 00000005 00000000");
  weir_yamux_accept(a.conns[0].stream);
  feed(&a, WINDOW, SYN, 7, 0);
  expect_bytes(&a, "00 01 0002 00000001 00000000");
  assert_int_equal(a.conn_count, 3);
  weir_yamux_reset(a.conns[1].stream); /* a stream that ends makes room, too */
  feed(&a, WINDOW, RST, 7, 0);
  feed(&a, WINDOW, SYN, 9, 0);
  feed(&a, WINDOW, SYN, 11, 0);
  assert_int_equal(a.conn_count, 5);
  app_close(&a);
}

static void streams_beyond_the_maximum_are_refused_on_both_sides(void **state) {
  (void)state;
  app a;
  app_open(&a, (weir_yamux_config){.max_streams = 2});
  feed(&a, WINDOW, SYN, 1, 0);
  open_conn(&a);
  weir_yamux_stream *stream;
  assert_int_equal(weir_yamux_open(a.session, &stream), WEIR_E_LIMIT);
  discard(&a);
  feed(&a, WINDOW, SYN, 3, 0);
  expect_bytes(&a, "00 01 0008 00000003 00000000");
  weir_yamux_reset(a.conns[0].stream);
  discard(&a);
  assert_int_equal(weir_yamux_open(a.session, &stream), WEIR_OK);
  add_conn(&a, stream);
  app_close(&a);
}

static void a_flood_of_opens_has_bounded_memory(void **state) {
  (void)state;
  app a;
  app_open(&a, server);
  a.hold = true;
  uint32_t id = 1;
  weir_status status = WEIR_OK;
  for (; status == WEIR_OK && id < 100000; id += 2)
    status = feed(&a, WINDOW, SYN, id, 0);
  assert_int_equal(a.conn_count, 256);
  assert_true(id < 2 * (256 + 1024 + 2));
  assert_true(a.memory.bytes < 256 * 1024);
  expect_protocol_error(&a, status, "too many refused streams without reading");
  app_close(&a);
}

static void a_flood_of_opens_that_the_application_resets_is_bounded(void **state) {
  (void)state;
  app a;
  app_open(&a, (weir_yamux_config){.max_streams = 300});
  weir_status status = WEIR_OK;
  uint32_t id = 1;
  for (; status == WEIR_OK && id < 100000; id += 2) {
    size_t before = a.conn_count;
    status = feed(&a, WINDOW, SYN, id, 0);
    if (a.conn_count > before) weir_yamux_reset(a.conns[before].stream);
  }
  assert_int_equal(a.conn_count, 300);
  expect_protocol_error(&a, status, "too many refused streams without reading");
  app_close(&a);
}

static void a_flood_of_pings_has_bounded_memory(void **state) {
  (void)state;
  app a;
  app_open(&a, server);
  for (uint32_t i = 0; i < 16; i++)
    assert_int_equal(feed(&a, PING, SYN, 0, i), WEIR_OK);
  expect_protocol_error(&a, feed(&a, PING, SYN, 0, 16), "too many pings without reading");
  app_close(&a);
}

static void a_stream_beyond_the_receive_memory_is_reset(void **state) {
  (void)state;
  app a;
  app_open(&a, (weir_yamux_config){.receive_memory = 300000});
  a.keep = true;
  feed(&a, DATA, SYN, 1, 200000);
  feed(&a, DATA, SYN, 3, 100000);
  discard(&a);
  assert_int_equal(feed(&a, DATA, 0, 3, 1), WEIR_OK);
  assert_int_equal(a.conns[1].reason, WEIR_E_LIMIT);
  assert_int_equal(a.conns[0].closes, 0);
  expect_bytes(&a, "00 01 0008 00000003 00000000");
  assert_int_equal(feed(&a, DATA, 0, 1, 60000), WEIR_OK); /* what the other held is free again */
  assert_int_equal(a.conns[0].in_len, 260000);
  app_close(&a);
}

static void idle_streams_are_small_and_there_may_be_65536(void **state) {
  (void)state;
  app a;
  app_open(&a, (weir_yamux_config){.backlog = 100000});
  size_t before = a.memory.bytes;
  for (uint32_t i = 0; i < 65536; i++)
    feed(&a, WINDOW, SYN, 2 * i + 1, 0);
  discard(&a);
  assert_int_equal(weir_yamux_streams(a.session), 65536);
  assert_true((a.memory.bytes - before) / 65536 < 300);
  feed(&a, WINDOW, SYN, 200001, 0);
  expect_bytes(&a, "00 01 0008 00030d41 00000000");
  for (uint32_t i = 0; i < 65536; i += 3)
    feed(&a, DATA, 0, 2 * i + 1, 5);
  for (uint32_t i = 0; i < 65536; i++) {
    assert_int_equal(a.conns[i].in_len, i % 3 == 0 ? 5 : 0);
    weir_yamux_reset(a.conns[i].stream);
    if (i % 1000 == 0) discard(&a);
  }
  discard(&a);
  assert_int_equal(weir_yamux_streams(a.session), 0);
  assert_true(a.memory.bytes - before < 256 * 1024);
  app_close(&a);
}

static void impossible_configurations_are_refused(void **state) {
  (void)state;
  weir_yamux_config config = {.receive_window = WEIR_YAMUX_WINDOW - 1};
  assert_null(weir_yamux_new(NULL, &config, &handler, NULL));
}

/* --- the end -------------------------------------------------------------------------------------
 */

static void go_away_stops_new_streams_only(void **state) {
  (void)state;
  app a, b;
  app_open(&a, client);
  app_open(&b, server);
  conn *c = open_conn(&a);
  write_text(c, "hi");
  pump(&a, &b, false);
  weir_yamux_go_away(b.session, WEIR_YAMUX_NORMAL);
  weir_yamux_go_away(b.session, WEIR_YAMUX_NORMAL);
  conn *crossing = open_conn(&a);
  expect_bytes(&b, "00 03 0000 00000000 00000000");
  pump(&a, &b, false);
  assert_int_equal(crossing->reason, WEIR_E_RESET);
  feed(&a, GO_AWAY, 0, 0, 0);
  assert_int_equal(a.go_aways, 1);
  assert_int_equal(a.go_away_code, WEIR_YAMUX_NORMAL);
  weir_yamux_stream *stream;
  assert_int_equal(weir_yamux_open(a.session, &stream), WEIR_E_CLOSED);
  write_pattern(&b.conns[0], 5000, true);
  pump(&a, &b, false);
  assert_pattern(c, 5000);
  assert_false(b.endpoint->finished(b.endpoint));
  app_close(&a);
  app_close(&b);
}

static void go_away_is_heard_at_most_twice(void **state) {
  (void)state;
  app a;
  app_open(&a, client);
  for (uint32_t i = 0; i < 5; i++)
    assert_int_equal(feed(&a, GO_AWAY, 0, 0, 0), WEIR_OK);
  assert_int_equal(a.go_aways, 1);
  for (uint32_t i = 5; i > 0; i--)
    assert_int_equal(feed(&a, GO_AWAY, 0, 0, i % 3), WEIR_OK);
  assert_int_equal(a.go_aways, 2);
  assert_int_equal(a.go_away_code, WEIR_YAMUX_INTERNAL_ERROR);
  app_close(&a);
}

static void go_away_with_a_fault_ends_the_session(void **state) {
  (void)state;
  app a;
  app_open(&a, client);
  conn *c = open_conn(&a);
  write_text(c, "never leaves");
  weir_yamux_go_away(a.session, WEIR_YAMUX_INTERNAL_ERROR);
  assert_int_equal(c->reason, WEIR_E_CLOSED);
  assert_int_equal(feed(&a, PING, SYN, 0, 1), WEIR_E_CLOSED);
  assert_string_equal(weir_yamux_error(a.session), "ended with go-away 2");
  expect_bytes(&a, "00 03 0000 00000000 00000002");
  assert_true(a.endpoint->finished(a.endpoint));
  app_close(&a);
}

static void close_sends_what_is_queued_then_go_away(void **state) {
  (void)state;
  app a;
  app_open(&a, client);
  conn *c = open_conn(&a), *d = open_conn(&a), *e = open_conn(&a);
  write_text(c, "last");
  write_text(d, "x");
  weir_yamux_shutdown(d->stream);
  weir_yamux_close(a.session);
  weir_yamux_close(a.session);
  assert_int_equal(c->reason, WEIR_E_CLOSED);
  assert_int_equal(d->reason, WEIR_E_CLOSED);
  assert_int_equal(e->reason, WEIR_E_CLOSED);
  assert_int_equal(weir_yamux_streams(a.session), 0);
  weir_yamux_stream *stream;
  assert_int_equal(weir_yamux_open(a.session, &stream), WEIR_E_CLOSED);
  assert_int_equal(feed(&a, WINDOW, SYN, 2, 0), WEIR_OK);
  assert_false(a.endpoint->finished(a.endpoint));
  expect_bytes(&a,
               "00 01 0001 00000005 00000000"
               "00 00 0001 00000001 00000004 6c617374"
               "00 00 0001 00000003 00000001 78"
               "00 01 0004 00000003 00000000"
               "00 03 0000 00000000 00000000");
  assert_true(a.endpoint->finished(a.endpoint));
  assert_null(weir_yamux_error(a.session));
  app_close(&a);
}

static void close_drops_what_the_window_does_not_let_through(void **state) {
  (void)state;
  app a;
  head h[32];
  app_open(&a, (weir_yamux_config){.client = true, .send_buffer = 10000000});
  conn *c = open_conn(&a);
  write_bytes(c, 1000000);
  weir_yamux_ping(a.session, now_ns);
  weir_yamux_close(a.session);
  size_t count = frames(&a, h, 32);
  assert_int_equal(count, 5);
  expect_frame(&h[4], GO_AWAY, 0, 0, 0);
  assert_true(a.endpoint->finished(a.endpoint));
  app_close(&a);
}

static void the_transport_ending_ends_the_streams(void **state) {
  (void)state;
  app a, b;
  app_open(&a, client);
  app_open(&b, server);
  conn *c = open_conn(&a);
  write_pattern(c, 1000000, false);
  pump(&a, &b, true);
  a.endpoint->ended(a.endpoint, WEIR_OK);
  assert_int_equal(c->reason, WEIR_E_CLOSED);
  b.endpoint->ended(b.endpoint, WEIR_E_TIMEOUT);
  assert_int_equal(b.conns[0].reason, WEIR_E_TIMEOUT);
  assert_true(a.endpoint->finished(a.endpoint));
  weir_yamux_stream *stream;
  assert_int_equal(weir_yamux_open(a.session, &stream), WEIR_E_CLOSED);
  assert_int_equal(weir_yamux_ping(a.session, now_ns), WEIR_E_CLOSED);
  app_close(&a);
  app_close(&b);
}

/* --- pings and time ------------------------------------------------------------------------------
 */

static void pings_measure_the_round_trip(void **state) {
  (void)state;
  app a;
  app_open(&a, client);
  assert_int_equal(weir_yamux_rtt(a.session), 0);
  assert_int_equal(weir_yamux_ping(a.session, now_ns), WEIR_OK);
  assert_int_equal(weir_yamux_ping(a.session, now_ns), WEIR_E_AGAIN);
  feed(&a, PING, ACK, 0, 1); /* nobody answers what has not left */
  now_ns += 1000;
  expect_bytes(&a, "00 02 0001 00000000 00000001");
  now_ns += 500;
  feed(&a, PING, ACK, 0, 99);
  assert_int_equal(a.pongs, 0);
  feed(&a, PING, ACK, 0, 1);
  feed(&a, PING, ACK, 0, 1);
  assert_int_equal(a.pongs, 1);
  assert_int_equal(a.rtt, 500); /* from when it left */
  assert_int_equal(weir_yamux_rtt(a.session), 500);
  assert_int_equal(weir_yamux_ping(a.session, now_ns), WEIR_OK);
  expect_bytes(&a, "00 02 0001 00000000 00000002");
  app_close(&a);
}

static const weir_yamux_config keeps_alive = {
    .client = true, .keepalive = 30 * WEIR_SECOND, .keepalive_timeout = 10 * WEIR_SECOND};

static uint64_t deadline(app *a) { return a->endpoint->deadline(a->endpoint); }

static void an_idle_session_pings_and_fails_without_an_answer(void **state) {
  (void)state;
  app a;
  app_open(&a, keeps_alive);
  assert_int_equal(deadline(&a), 0); /* it does not know the time yet */
  assert_int_equal(a.endpoint->tick(a.endpoint, now_ns), WEIR_OK);
  assert_int_equal(deadline(&a), now_ns + 30 * WEIR_SECOND);
  now_ns += 20 * WEIR_SECOND;
  feed(&a, WINDOW, SYN, 2, 0);
  discard(&a);
  assert_int_equal(deadline(&a), now_ns + 30 * WEIR_SECOND);
  now_ns += 30 * WEIR_SECOND - 1;
  assert_int_equal(a.endpoint->tick(a.endpoint, now_ns), WEIR_OK);
  expect_bytes(&a, "");
  now_ns += 1;
  assert_int_equal(a.endpoint->tick(a.endpoint, now_ns), WEIR_OK);
  expect_bytes(&a, "00 02 0001 00000000 00000001");
  assert_int_equal(deadline(&a), now_ns + 10 * WEIR_SECOND);
  feed(&a, PING, ACK, 0, 1);
  assert_int_equal(a.pongs, 0); /* nobody asked */
  assert_int_equal(deadline(&a), now_ns + 30 * WEIR_SECOND);
  now_ns += 30 * WEIR_SECOND;
  assert_int_equal(a.endpoint->tick(a.endpoint, now_ns), WEIR_OK);
  expect_bytes(&a, "00 02 0001 00000000 00000002");
  now_ns += 10 * WEIR_SECOND;
  assert_int_equal(a.endpoint->tick(a.endpoint, now_ns), WEIR_E_TIMEOUT);
  assert_string_equal(weir_yamux_error(a.session), "no answer to a ping");
  assert_int_equal(a.conns[0].reason, WEIR_E_TIMEOUT);
  assert_int_equal(a.endpoint->tick(a.endpoint, now_ns), WEIR_E_TIMEOUT);
  assert_int_equal(deadline(&a), WEIR_NEVER);
  app_close(&a);
}

static void a_peer_that_talks_is_alive_before_it_answers(void **state) {
  (void)state;
  app a;
  app_open(&a, keeps_alive);
  a.endpoint->tick(a.endpoint, now_ns);
  now_ns += 30 * WEIR_SECOND;
  a.endpoint->tick(a.endpoint, now_ns);
  assert_int_equal(weir_yamux_ping(a.session, now_ns), WEIR_OK); /* joins the one on its way */
  discard(&a);
  now_ns += 9 * WEIR_SECOND;
  feed(&a, WINDOW, SYN, 2, 0);
  assert_int_equal(deadline(&a), now_ns + 10 * WEIR_SECOND);
  now_ns += 9 * WEIR_SECOND;
  assert_int_equal(a.endpoint->tick(a.endpoint, now_ns), WEIR_OK);
  feed(&a, PING, ACK, 0, 1);
  assert_int_equal(a.pongs, 1);
  assert_int_equal(a.rtt, 18 * WEIR_SECOND);
  app_close(&a);
}

static void keepalive_can_be_switched_off(void **state) {
  (void)state;
  app a;
  app_open(&a, client);
  a.endpoint->tick(a.endpoint, now_ns);
  assert_int_equal(deadline(&a), WEIR_NEVER);
  weir_yamux_ping(a.session, now_ns);
  discard(&a);
  assert_int_equal(deadline(&a), WEIR_NEVER);
  now_ns += 10000 * WEIR_SECOND;
  assert_int_equal(a.endpoint->tick(a.endpoint, now_ns), WEIR_OK);
  app_close(&a);
}

static void a_close_that_the_peer_does_not_read_times_out(void **state) {
  (void)state;
  app a;
  app_open(&a, keeps_alive);
  weir_yamux_close(a.session);
  a.endpoint->tick(a.endpoint, now_ns);
  assert_int_equal(deadline(&a), now_ns + 10 * WEIR_SECOND);
  now_ns += 10 * WEIR_SECOND;
  assert_int_equal(a.endpoint->tick(a.endpoint, now_ns), WEIR_E_TIMEOUT);
  assert_string_equal(weir_yamux_error(a.session), "the peer does not read");
  app_close(&a);
}

/* --- the driver ----------------------------------------------------------------------------------
 */

static void the_driver_is_woken_when_output_appears(void **state) {
  (void)state;
  app a;
  app_open(&a, client);
  conn *c = open_conn(&a);
  assert_int_equal(a.wakes, 1);
  write_text(c, "a");
  open_conn(&a);
  assert_int_equal(a.wakes, 1);
  discard(&a);
  assert_int_equal(a.wakes, 1);
  write_text(c, "b");
  write_text(c, "c");
  assert_int_equal(a.wakes, 2);
  weir_iov iov[8];
  size_t count = a.endpoint->output(a.endpoint, iov, 8, now_ns);
  assert_int_equal(count, 1);
  a.endpoint->sent(a.endpoint, iov[0].len); /* all there was, and it does not look again */
  write_text(c, "d");
  assert_int_equal(a.wakes, 3);
  discard(&a);
  weir_yamux_want_write(c->stream);
  assert_int_equal(a.wakes, 4);
  discard(&a);
  weir_yamux_ping(a.session, now_ns);
  assert_int_equal(a.wakes, 5);
  discard(&a);
  weir_yamux_shutdown(c->stream);
  assert_int_equal(a.wakes, 6);
  discard(&a);
  weir_yamux_close(a.session);
  assert_int_equal(a.wakes, 7);
  app_close(&a);
}

/* --- callbacks that interfere --------------------------------------------------------------------
 */

static const char *mischief_event;
static int mischief_kind;

enum {
  RESET_SELF,
  RESET_OTHERS,
  SHUTDOWN_SELF,
  WRITE_AND_OPEN,
  CLOSE_SESSION,
  FAIL_SESSION,
  MISCHIEFS
};

static void reset_others(conn *c) {
  for (size_t i = 0; i < c->app->conn_count; i++) {
    conn *other = &c->app->conns[i];
    if (other != c && other->closes == 0) weir_yamux_reset(other->stream);
  }
}

static void mischief(conn *c, const char *event) {
  if (strcmp(event, mischief_event) != 0) return;
  weir_yamux_stream *stream;
  switch (mischief_kind) {
    case RESET_SELF: weir_yamux_reset(c->stream); break;
    case RESET_OTHERS: reset_others(c); break;
    case SHUTDOWN_SELF:
      weir_yamux_accept(c->stream);
      weir_yamux_consume(c->stream, 100);
      weir_yamux_shutdown(c->stream);
      break;
    case WRITE_AND_OPEN:
      write_text(c, "more");
      weir_yamux_want_write(c->stream);
      if (weir_yamux_open(c->app->session, &stream) == WEIR_OK) {
        conn *d = add_conn(c->app, stream);
        d->hook = NULL;
        write_text(d, "new");
      }
      break;
    case CLOSE_SESSION: weir_yamux_close(c->app->session); break;
    case FAIL_SESSION: weir_yamux_go_away(c->app->session, WEIR_YAMUX_INTERNAL_ERROR); break;
  }
}

static void callbacks_may_do_anything_but_free_the_session(void **state) {
  (void)state;
  static const char *const events[] = {"stream", "accepted", "data", "writable", "end", "close"};
  for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
    for (mischief_kind = 0; mischief_kind < MISCHIEFS; mischief_kind++) {
      mischief_event = events[i];
      app a, b;
      app_open(&a, (weir_yamux_config){.client = true, .max_streams = 40, .max_frame = 500});
      app_open(&b, (weir_yamux_config){.max_streams = 40, .max_frame = 500});
      a.hook = b.hook = mischief;
      b.reply = 2000;
      for (int n = 0; n < 4; n++)
        write_pattern(open_conn(&a), 2000, n % 2 == 0);
      for (int n = 0; n < 300; n++) {
        if (move_some(&a, &b, true) + move_some(&b, &a, true) == 0) break;
      }
      for (size_t n = 0; n < a.conn_count && n < 4; n++) {
        if (a.conns[n].closes == 0) weir_yamux_shutdown(a.conns[n].stream);
      }
      for (int n = 0; n < 300; n++) {
        if (move_some(&a, &b, true) + move_some(&b, &a, true) == 0) break;
      }
      app_close(&a);
      app_close(&b);
    }
  }
}

/* --- no memory -----------------------------------------------------------------------------------
 */

/* One life of two sessions, of which `tight` runs out of memory. Nothing is asserted but that
 * functions say what they may say, and that all is given back. */
static void live(app *a, app *b) {
  static const weir_yamux_config configs[2] = {{.client = true, .max_frame = 3000},
                                               {.max_frame = 3000, .backlog = 3}};
  b->reply = 5000;
  if (!app_try_open(a, configs[0]) || !app_try_open(b, configs[1])) return;
  for (int i = 0; i < 20; i++) {
    weir_yamux_stream *stream;
    weir_status status = weir_yamux_open(a->session, &stream);
    assert_true(status == WEIR_OK || status == WEIR_E_NOMEM || status == WEIR_E_CLOSED);
    if (status != WEIR_OK) continue;
    conn *c = add_conn(a, stream);
    for (int n = 0; n < 5; n++) {
      status = n % 2 == 0 ? write_text(c, "borrowed") : write_bytes(c, 3);
      assert_true(status == WEIR_OK || status == WEIR_E_NOMEM);
    }
    write_pattern(c, 10000, true);
  }
  for (int i = 0; i < 20000; i++) {
    if (move_some(a, b, true) + move_some(b, a, true) == 0) break;
    if (i == 100) weir_yamux_ping(a->session, now_ns);
  }
  for (size_t i = 0; i < a->conn_count; i++) {
    if (a->conns[i].closes == 0) weir_yamux_reset(a->conns[i].stream);
  }
  weir_yamux_close(a->session);
  weir_yamux_close(b->session);
  for (int i = 0; i < 1000; i++) {
    if (move_some(a, b, false) + move_some(b, a, false) == 0) break;
  }
}

static void every_allocation_may_fail(void **state) {
  (void)state;
  for (int who = 0; who < 2; who++) {
    bool failed = true;
    for (size_t n = 1; failed; n += 1 + n / 40) {
      for (int forever = 0; forever < 2; forever++) {
        app a, b;
        memset(&a, 0, sizeof(a));
        memset(&b, 0, sizeof(b));
        weir_test_alloc_init(&a.memory);
        weir_test_alloc_init(&b.memory);
        weir_test_alloc *tight = who == 0 ? &a.memory : &b.memory;
        tight->fail_at = n;
        tight->fail_rest = forever;
        seed = n;
        live(&a, &b);
        failed = tight->calls >= n;
        app_close(&a);
        app_close(&b);
      }
    }
  }
}

int main(void) {
  static const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_client_opens_odd_streams_with_a_window_update),
      cmocka_unit_test(a_server_opens_even_streams),
      cmocka_unit_test(a_larger_receive_window_is_told_with_syn_and_ack),
      cmocka_unit_test(syn_rides_on_the_first_data),
      cmocka_unit_test(ack_is_sent_on_accept_alone_or_with_data),
      cmocka_unit_test(fin_follows_what_is_queued),
      cmocka_unit_test(fin_waits_for_the_window),
      cmocka_unit_test(fin_leaves_right_behind_the_data),
      cmocka_unit_test(a_window_update_does_not_take_fin_past_the_queue),
      cmocka_unit_test(reset_sends_rst_and_drops_the_queue),
      cmocka_unit_test(a_stream_reset_before_its_syn_left_is_never_mentioned),
      cmocka_unit_test(a_refused_stream_is_answered_with_rst),
      cmocka_unit_test(pings_are_answered_with_their_value),
      cmocka_unit_test(the_window_opens_again_when_half_of_it_is_consumed),
      cmocka_unit_test(no_window_is_given_for_a_stream_that_ended),
      cmocka_unit_test(breaking_frames_end_the_session_with_go_away_1),
      cmocka_unit_test(another_version_ends_the_session),
      cmocka_unit_test(data_after_fin_breaks_the_protocol),
      cmocka_unit_test(the_window_counts_over_frames),
      cmocka_unit_test(frames_for_forgotten_streams_are_skipped),
      cmocka_unit_test(unknown_flags_are_ignored),
      cmocka_unit_test(data_survives_any_split_in_both_directions),
      cmocka_unit_test(megabytes_flow_through_the_window_whole),
      cmocka_unit_test(adjoining_slices_leave_as_one_run),
      cmocka_unit_test(small_frames_of_many_streams_leave_as_one_run),
      cmocka_unit_test(runs_of_small_frames_become_longer_when_there_are_many),
      cmocka_unit_test(references_are_given_back_when_a_stream_is_reset),
      cmocka_unit_test(output_is_sent_byte_by_byte),
      cmocka_unit_test(output_shows_a_bounded_amount),
      cmocka_unit_test(streams_take_turns),
      cmocka_unit_test(control_frames_overtake_data),
      cmocka_unit_test(a_writer_stalls_at_the_window_and_resumes),
      cmocka_unit_test(the_send_queue_is_bounded_in_bytes_and_runs),
      cmocka_unit_test(writers_are_asked_only_while_the_window_is_open),
      cmocka_unit_test(a_writer_that_only_asks_does_not_stop_output),
      cmocka_unit_test(the_other_direction_goes_on_after_fin),
      cmocka_unit_test(a_reset_reaches_the_peer),
      cmocka_unit_test(opens_wait_for_their_acceptance),
      cmocka_unit_test(streams_beyond_the_backlog_are_refused),
      cmocka_unit_test(streams_beyond_the_maximum_are_refused_on_both_sides),
      cmocka_unit_test(a_flood_of_opens_has_bounded_memory),
      cmocka_unit_test(a_flood_of_opens_that_the_application_resets_is_bounded),
      cmocka_unit_test(a_flood_of_pings_has_bounded_memory),
      cmocka_unit_test(a_stream_beyond_the_receive_memory_is_reset),
      cmocka_unit_test(idle_streams_are_small_and_there_may_be_65536),
      cmocka_unit_test(impossible_configurations_are_refused),
      cmocka_unit_test(go_away_stops_new_streams_only),
      cmocka_unit_test(go_away_is_heard_at_most_twice),
      cmocka_unit_test(go_away_with_a_fault_ends_the_session),
      cmocka_unit_test(close_sends_what_is_queued_then_go_away),
      cmocka_unit_test(close_drops_what_the_window_does_not_let_through),
      cmocka_unit_test(the_transport_ending_ends_the_streams),
      cmocka_unit_test(pings_measure_the_round_trip),
      cmocka_unit_test(an_idle_session_pings_and_fails_without_an_answer),
      cmocka_unit_test(a_peer_that_talks_is_alive_before_it_answers),
      cmocka_unit_test(keepalive_can_be_switched_off),
      cmocka_unit_test(a_close_that_the_peer_does_not_read_times_out),
      cmocka_unit_test(the_driver_is_woken_when_output_appears),
      cmocka_unit_test(callbacks_may_do_anything_but_free_the_session),
      cmocka_unit_test(every_allocation_may_fail),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
