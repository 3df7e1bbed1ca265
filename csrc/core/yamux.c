#include "core/yamux.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/bytes.h"
#include "core/time.h"
#include "core/yamux_internal.h"

#define SLAB_BLOCK 16384 /* of copies of borrowed bytes */

/* --- reentrancy and faults ---------------------------------------------------------------------*/

void weir_yamux_enter(weir_yamux *session) { session->depth++; }

void weir_yamux_leave(weir_yamux *session) {
  if (--session->depth > 0) return;
  while (!weir_list_empty(&session->dead)) {
    weir_yamux_stream *stream = STREAM_OF(session->dead.next, all);
    weir_list_remove(&stream->all);
    weir_yamux_stream_free(stream);
  }
}

static void drop_lingering(weir_yamux *session) {
  while (!weir_list_empty(&session->control)) {
    weir_yamux_stream_drop(STREAM_OF(session->control.next, control));
  }
  while (!weir_list_empty(&session->ready)) {
    weir_yamux_stream_drop(STREAM_OF(session->ready.next, ready));
  }
}

/* Ends every stream at once. */
static void end_streams(weir_yamux *session, weir_status reason) {
  weir_yamux_enter(session);
  session->body_stream = NULL;
  while (!weir_list_empty(&session->all)) {
    weir_yamux_stream_end(STREAM_OF(session->all.next, all), reason, false);
  }
  drop_lingering(session);
  weir_yamux_leave(session);
}

weir_status weir_yamux_fail(weir_yamux *session, weir_status status, uint32_t code,
                            const char *format, ...) {
  if (session->state >= SESSION_FAILED) return session->status;
  session->state = SESSION_FAILED;
  session->status = status;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(session->error, sizeof(session->error), format, arguments);
  va_end(arguments);
  session->go_away_owed = true;
  session->go_away_code = code;
  session->ping_count = 0;
  session->owes_ping = session->ping_flying = false;
  session->refusal_count = 0;
  end_streams(session, status);
  weir_yamux_signal(session);
  return status;
}

#define protocol_error(session, ...) \
  weir_yamux_fail(session, WEIR_E_PROTOCOL, WEIR_YAMUX_PROTOCOL_ERROR, __VA_ARGS__)

/* --- frames that come in -----------------------------------------------------------------------*/

typedef struct frame {
  unsigned type, flags;
  uint32_t id, length;
} frame;

/* Owes the peer an RST for a stream that was not to be. */
static void refuse(weir_yamux *session, uint32_t id) {
  if (session->refusal_count == MAX_REFUSALS_OWED) {
    protocol_error(session, "too many refused streams without reading");
    return;
  }
  if (session->refusal_count == session->refusal_cap) {
    uint32_t cap = session->refusal_cap == 0 ? 16 : session->refusal_cap * 2;
    uint32_t *ids = weir_resize_array(session->alloc, session->refusals, cap, sizeof(*ids));
    if (ids == NULL) {
      weir_yamux_fail(session, WEIR_E_NOMEM, WEIR_YAMUX_INTERNAL_ERROR, "out of memory");
      return;
    }
    session->refusals = ids;
    session->refusal_cap = cap;
  }
  session->refusals[session->refusal_count++] = id;
  weir_yamux_signal(session);
}

static uint32_t stream_count(const weir_yamux *session) {
  return session->table_used + session->lingering;
}

static bool is_ours(const weir_yamux *session, uint32_t id) {
  return (id % 2 == 1) == session->config.client;
}

/* A SYN came. NULL when there is no stream now: refused, or the session failed. */
static weir_yamux_stream *incoming_stream(weir_yamux *session, const frame *frame) {
  if (is_ours(session, frame->id)) {
    protocol_error(session, "stream %u: SYN with an id of our side", frame->id);
    return NULL;
  }
  if (weir_yamux_stream_find(session, frame->id) != NULL) {
    protocol_error(session, "stream %u: SYN for a stream that is open", frame->id);
    return NULL;
  }
  weir_yamux_stream *stream = NULL;
  bool welcome = session->handler->on_stream != NULL && !session->go_away_said &&
                 session->unaccepted < session->config.backlog &&
                 stream_count(session) < session->config.max_streams;
  if (welcome) stream = weir_yamux_stream_new(session, frame->id);
  if (stream == NULL) {
    refuse(session, frame->id);
    return NULL;
  }
  stream->unaccepted = true;
  session->unaccepted++;
  if (frame->type == FRAME_WINDOW && frame->length <= UINT32_MAX - WEIR_YAMUX_WINDOW) {
    stream->send_window += frame->length; /* so that the application sees it at once */
  }
  weir_status status = session->handler->on_stream(session, stream, session->user);
  if (stream->over) return NULL;
  if (status == WEIR_OK) return stream;
  weir_yamux_stream_discard(stream);
  refuse(session, frame->id);
  return NULL;
}

static void stream_acked(weir_yamux_stream *stream) {
  weir_yamux *session = stream->session;
  if (!stream->unacked) return;
  stream->unacked = false;
  session->unacked--;
  if (session->handler->on_accepted != NULL) session->handler->on_accepted(stream, stream->user);
}

static void stream_finished(weir_yamux_stream *stream) {
  weir_yamux *session = stream->session;
  if (stream->over || stream->fin_received) return;
  stream->fin_received = true;
  if (session->handler->on_end != NULL) session->handler->on_end(stream, stream->user);
  weir_yamux_stream_settle(stream);
}

static void window_frame(weir_yamux_stream *stream, const frame *frame) {
  bool counted = (frame->flags & FLAG_SYN) != 0; /* by incoming_stream() */
  if (frame->length > UINT32_MAX - (counted ? WEIR_YAMUX_WINDOW : stream->send_window)) {
    protocol_error(stream->session, "stream %u: window beyond 32 bits", frame->id);
    return;
  }
  if (counted || frame->length == 0) return;
  stream->send_window += frame->length;
  weir_yamux_schedule(stream);
  if (weir_list_linked(&stream->ready)) weir_yamux_signal(stream->session);
}

/* Whether the stream takes the body; false when it is gone. */
static bool admit_body(weir_yamux_stream *stream, const frame *frame) {
  weir_yamux *session = stream->session;
  if (stream->fin_received && frame->length > 0) {
    protocol_error(session, "stream %u: data after FIN", frame->id);
    return false;
  }
  if (frame->length > stream->recv_window) {
    protocol_error(session, "stream %u: data beyond the receive window", frame->id);
    return false;
  }
  if (frame->length > session->config.receive_memory - session->unconsumed) {
    weir_yamux_stream_reset(stream, WEIR_E_LIMIT);
    return false;
  }
  stream->recv_window -= frame->length;
  return true;
}

/* A data or window frame. */
static void stream_frame(weir_yamux *session, const frame *frame) {
  weir_yamux_stream *stream;
  if (frame->id == 0) {
    protocol_error(session, "stream frame for stream 0");
    return;
  }
  if (frame->type == FRAME_DATA) {
    session->body_left = frame->length;
    session->body_flags = (uint16_t)frame->flags;
  }
  if (frame->flags & FLAG_SYN) {
    stream = incoming_stream(session, frame);
  } else {
    stream = weir_yamux_stream_find(session, frame->id);
  }
  if (stream != NULL && (frame->flags & FLAG_RST)) {
    weir_yamux_stream_end(stream, WEIR_E_RESET, false);
    stream = NULL;
  }
  if (stream == NULL) { /* refused, reset or over: what was under way for it is skipped */
    if (frame->type == FRAME_DATA && frame->length > session->config.receive_window) {
      protocol_error(session, "stream %u: frame of %u bytes is too long", frame->id, frame->length);
    } else if (is_ours(session, frame->id) && session->next_id != 0 &&
               frame->id >= session->next_id) {
      protocol_error(session, "stream %u: frame for a stream never opened", frame->id);
    }
    return;
  }
  if (frame->flags & FLAG_ACK) stream_acked(stream);
  if (stream->over) return;
  if (frame->type == FRAME_WINDOW) {
    window_frame(stream, frame);
  } else if (!admit_body(stream, frame)) {
    return;
  } else if (frame->length > 0) {
    session->body_stream = stream; /* FIN comes after the body */
    return;
  }
  if (frame->flags & FLAG_FIN) stream_finished(stream);
}

static void body_bytes(weir_yamux *session, const unsigned char *data, uint32_t len) {
  weir_yamux_stream *stream = session->body_stream;
  session->body_left -= len;
  if (stream == NULL) return;
  stream->unconsumed += len;
  session->unconsumed += len;
  if (session->handler->on_data != NULL) {
    session->handler->on_data(stream, data, len, stream->user);
  } else {
    weir_yamux_consume(stream, len);
  }
  if (session->body_left > 0) return;
  session->body_stream = NULL;
  if (session->body_flags & FLAG_FIN) stream_finished(stream);
}

static void ping_frame(weir_yamux *session, const frame *frame, uint64_t now) {
  if (frame->flags & FLAG_SYN) {
    if (session->ping_count == MAX_PINGS_OWED) {
      protocol_error(session, "too many pings without reading");
      return;
    }
    session->pings_owed[session->ping_count++] = frame->length;
    weir_yamux_signal(session);
    return;
  }
  if ((frame->flags & FLAG_ACK) == 0) {
    protocol_error(session, "ping without SYN or ACK");
    return;
  }
  if (!session->ping_flying || session->owes_ping || frame->length != session->ping_value) return;
  session->ping_flying = false;
  session->rtt = now > session->ping_time ? now - session->ping_time : 0;
  if (!session->pong_wanted) return;
  session->pong_wanted = false;
  if (session->handler->on_pong != NULL) {
    session->handler->on_pong(session, session->rtt, session->user);
  }
}

/* The application hears of a go-away once, and once more if a fault follows the normal one. */
static void go_away_frame(weir_yamux *session, const frame *frame) {
  bool news = !session->go_away_seen ||
              (session->go_away_heard == WEIR_YAMUX_NORMAL && frame->length != WEIR_YAMUX_NORMAL);
  session->go_away_seen = true;
  if (!news) return;
  session->go_away_heard = frame->length;
  if (session->handler->on_go_away != NULL) {
    session->handler->on_go_away(session, frame->length, session->user);
  }
}

static void handle_frame(weir_yamux *session, const unsigned char *header, uint64_t now) {
  frame frame = {header[1], weir_get_u16(header + 2), weir_get_u32(header + 4),
                 weir_get_u32(header + 8)};
  if (header[0] != 0) {
    weir_yamux_fail(session, WEIR_E_VERSION, WEIR_YAMUX_PROTOCOL_ERROR, "yamux version %u",
                    header[0]);
  } else if (frame.type == FRAME_DATA || frame.type == FRAME_WINDOW) {
    stream_frame(session, &frame);
  } else if (frame.type > FRAME_GO_AWAY) {
    protocol_error(session, "unknown frame type %u", frame.type);
  } else if (frame.id != 0) {
    protocol_error(session, "stream %u: ping or go-away not for stream 0", frame.id);
  } else if (frame.type == FRAME_PING) {
    ping_frame(session, &frame, now);
  } else {
    go_away_frame(session, &frame);
  }
}

/* Takes the header, or what there is of it; returns how many bytes that was. */
static size_t take_header(weir_yamux *session, const unsigned char *data, size_t len,
                          uint64_t now) {
  if (session->header_len == 0 && len >= WEIR_YAMUX_HEADER) {
    handle_frame(session, data, now);
    return WEIR_YAMUX_HEADER;
  }
  size_t wanted = WEIR_YAMUX_HEADER - session->header_len;
  if (len > wanted) len = wanted;
  memcpy(session->header + session->header_len, data, len);
  session->header_len += (uint32_t)len;
  if (session->header_len == WEIR_YAMUX_HEADER) {
    session->header_len = 0;
    handle_frame(session, session->header, now);
  }
  return len;
}

/* --- the endpoint ------------------------------------------------------------------------------*/

static weir_yamux *of(weir_endpoint *endpoint) { return (weir_yamux *)(void *)endpoint; }

static void note_time(weir_yamux *session, uint64_t now) {
  session->now = now;
  if (session->clock_known) return;
  session->clock_known = true;
  session->heard_time = session->close_time = now;
}

static weir_status session_feed(weir_endpoint *endpoint, const void *data, size_t len,
                                uint64_t now) {
  weir_yamux *session = of(endpoint);
  const unsigned char *bytes = data;
  note_time(session, now);
  if (len > 0) session->heard_time = now;
  weir_yamux_enter(session);
  while (len > 0 && session->state == SESSION_OPEN) {
    size_t taken;
    if (session->body_left > 0) {
      taken = len < session->body_left ? len : session->body_left;
      body_bytes(session, bytes, (uint32_t)taken);
    } else {
      taken = take_header(session, bytes, len, now);
    }
    bytes += taken;
    len -= taken;
  }
  weir_yamux_leave(session);
  return session->status;
}

static size_t session_output(weir_endpoint *endpoint, weir_iov *iov, size_t max, uint64_t now) {
  note_time(of(endpoint), now);
  return weir_yamux_output(of(endpoint), iov, max, now);
}

static void session_sent(weir_endpoint *endpoint, size_t len) {
  weir_yamux_sent(of(endpoint), len);
}

static uint64_t later(uint64_t time, uint64_t delay) {
  return delay < WEIR_NEVER - time ? time + delay : WEIR_NEVER;
}

static void send_ping(weir_yamux *session, uint64_t now) {
  session->owes_ping = session->ping_flying = true;
  session->ping_value++;
  session->ping_time = now;
  weir_yamux_signal(session);
}

/* When the peer has kept silent for too long after a ping. Whatever it says is a sign of life: the
 * answer may stand behind much data. */
static uint64_t ping_deadline(const weir_yamux *session) {
  uint64_t since =
      session->heard_time > session->ping_time ? session->heard_time : session->ping_time;
  return later(since, session->config.keepalive_timeout);
}

static uint64_t session_deadline(const weir_endpoint *endpoint) {
  const weir_yamux *session = (const weir_yamux *)(const void *)endpoint;
  if (session->config.keepalive == WEIR_NEVER) return WEIR_NEVER;
  if (session->state == SESSION_CLOSING) {
    return later(session->close_time, session->config.keepalive_timeout);
  }
  if (session->state != SESSION_OPEN) return WEIR_NEVER;
  if (!session->clock_known) return 0;
  if (session->ping_flying) return ping_deadline(session);
  return later(session->heard_time, session->config.keepalive);
}

static weir_status session_tick(weir_endpoint *endpoint, uint64_t now) {
  weir_yamux *session = of(endpoint);
  note_time(session, now);
  uint64_t deadline = session_deadline(endpoint);
  if (deadline == WEIR_NEVER || now < deadline) return session->status;
  weir_yamux_enter(session);
  if (session->state == SESSION_OPEN && !session->ping_flying) {
    send_ping(session, now);
  } else {
    const char *what = session->ping_flying ? "no answer to a ping" : "the peer does not read";
    weir_yamux_fail(session, WEIR_E_TIMEOUT, WEIR_YAMUX_INTERNAL_ERROR, "%s", what);
  }
  weir_yamux_leave(session);
  return session->status;
}

static void session_ended(weir_endpoint *endpoint, weir_status reason) {
  weir_yamux *session = of(endpoint);
  if (session->state == SESSION_ENDED) return;
  session->state = SESSION_ENDED;
  end_streams(session, reason == WEIR_OK ? WEIR_E_CLOSED : reason);
}

static int session_finished(const weir_endpoint *endpoint) {
  const weir_yamux *session = (const weir_yamux *)(const void *)endpoint;
  switch (session->state) {
    case SESSION_OPEN: return 0;
    case SESSION_ENDED: return 1;
    default: return session->pending == 0 && !weir_yamux_has_output(session);
  }
}

/* --- life --------------------------------------------------------------------------------------*/

static weir_yamux_config complete(const weir_yamux_config *config) {
  weir_yamux_config c = *config;
  if (c.max_streams == 0) c.max_streams = 65536;
  if (c.backlog == 0) c.backlog = 256;
  if (c.receive_window == 0) c.receive_window = WEIR_YAMUX_WINDOW;
  if (c.receive_memory == 0) c.receive_memory = 64u * 1024u * 1024u;
  if (c.send_buffer == 0) c.send_buffer = 256u * 1024u;
  if (c.max_frame == 0) c.max_frame = 64u * 1024u;
  if (c.keepalive == 0) c.keepalive = 30 * WEIR_SECOND;
  if (c.keepalive_timeout == 0) c.keepalive_timeout = 10 * WEIR_SECOND;
  return c;
}

/* An odd number that the peer cannot know; it changes how the table is laid out, nothing else. */
static uint64_t hash_factor(const weir_yamux *session) {
  uint64_t x = (uint64_t)(uintptr_t)session + UINT64_C(0x9e3779b97f4a7c15);
  x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
  return (x ^ (x >> 31)) | 1;
}

weir_yamux *weir_yamux_new(const weir_alloc *alloc, const weir_yamux_config *config,
                           const weir_yamux_handler *handler, void *user) {
  weir_yamux_config completed = complete(config);
  if (completed.receive_window < WEIR_YAMUX_WINDOW) return NULL;
  alloc = weir_alloc_or_default(alloc);
  weir_yamux *session = weir_calloc(alloc, 1, sizeof(*session));
  if (session == NULL) return NULL;
  session->endpoint = (weir_endpoint){.feed = session_feed,
                                      .output = session_output,
                                      .sent = session_sent,
                                      .tick = session_tick,
                                      .deadline = session_deadline,
                                      .ended = session_ended,
                                      .finished = session_finished};
  session->alloc = alloc;
  session->handler = handler;
  session->user = user;
  session->config = completed;
  session->next_id = completed.client ? 1 : 2;
  session->table_factor = hash_factor(session);
  weir_list_init(&session->all);
  weir_list_init(&session->ready);
  weir_list_init(&session->control);
  weir_list_init(&session->dead);
  weir_slab_init(&session->slab, alloc, SLAB_BLOCK);
  if (!weir_yamux_output_init(session)) {
    weir_free(alloc, session);
    return NULL;
  }
  return session;
}

void weir_yamux_free(weir_yamux *session) {
  if (session == NULL) return;
  session_ended(&session->endpoint, WEIR_OK);
  weir_yamux_table_free(session);
  weir_yamux_output_free(session);
  weir_slab_reset(&session->slab);
  weir_free(session->alloc, session->refusals);
  weir_free(session->alloc, session);
}

weir_endpoint *weir_yamux_endpoint(weir_yamux *session) { return &session->endpoint; }

void *weir_yamux_user(const weir_yamux *session) { return session->user; }

uint64_t weir_yamux_rtt(const weir_yamux *session) { return session->rtt; }

uint32_t weir_yamux_streams(const weir_yamux *session) { return session->table_used; }

const char *weir_yamux_error(const weir_yamux *session) {
  return session->error[0] != '\0' ? session->error : NULL;
}

weir_status weir_yamux_open(weir_yamux *session, weir_yamux_stream **stream) {
  if (session->state != SESSION_OPEN || session->go_away_seen) return WEIR_E_CLOSED;
  if (session->unacked >= session->config.backlog) return WEIR_E_AGAIN;
  if (session->next_id == 0 || stream_count(session) >= session->config.max_streams) {
    return WEIR_E_LIMIT;
  }
  weir_yamux_stream *opened = weir_yamux_stream_new(session, session->next_id);
  if (opened == NULL) return WEIR_E_NOMEM;
  session->next_id = session->next_id < UINT32_MAX - 1 ? session->next_id + 2 : 0;
  opened->unacked = true;
  session->unacked++;
  opened->owes_syn = true;
  weir_yamux_schedule_control(opened);
  weir_yamux_signal(session);
  *stream = opened;
  return WEIR_OK;
}

weir_status weir_yamux_ping(weir_yamux *session, uint64_t now) {
  if (session->state != SESSION_OPEN) return WEIR_E_CLOSED;
  if (session->pong_wanted) return WEIR_E_AGAIN;
  session->pong_wanted = true;
  if (!session->ping_flying) send_ping(session, now); /* else one to keep alive is on its way */
  return WEIR_OK;
}

void weir_yamux_go_away(weir_yamux *session, uint32_t code) {
  if (code != WEIR_YAMUX_NORMAL) {
    weir_yamux_fail(session, WEIR_E_CLOSED, code, "ended with go-away %u", code);
    return;
  }
  if (session->state != SESSION_OPEN || session->go_away_said) return;
  session->go_away_said = session->go_away_owed = true;
  session->go_away_code = code;
  weir_yamux_signal(session);
}

void weir_yamux_close(weir_yamux *session) {
  if (session->state != SESSION_OPEN) return;
  weir_yamux_go_away(session, WEIR_YAMUX_NORMAL);
  weir_yamux_enter(session);
  session->state = SESSION_CLOSING;
  session->close_time = session->now;
  session->owes_ping = session->ping_flying = false;
  session->body_stream = NULL;
  while (!weir_list_empty(&session->all)) {
    weir_yamux_stream_end(STREAM_OF(session->all.next, all), WEIR_E_CLOSED, true);
  }
  weir_yamux_leave(session);
  weir_yamux_signal(session);
}
