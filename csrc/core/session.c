#include "core/session.h"

#include <stdio.h>
#include <string.h>

#include "core/frame.h"
#include "core/inlet.h"
#include "core/outlet.h"
#include "core/port.h"
#include "core/queue.h"
#include "core/time.h"

/* A subscription's own credit bounds what is held for it and every byte is consumed at once, so the
 * window of its stream only has to be large enough not to slow it. */
#define STREAM_WINDOW (4u * 1024 * 1024)
#define MAX_ANNOUNCE_FRAMES 1024u
#define MAX_ANNOUNCE_BYTES (1024u * 1024)
#define DEFAULT_HANDSHAKE_TIMEOUT (10 * WEIR_SECOND)

/* A stream of the peer that has not become a subscription. */
typedef struct candidate {
  weir_port port; /* first */
  weir_session *session;
  weir_link link; /* in session->waiting, ->asked or ->offered */
  weir_frame_reader reader;
  weir_buf *frame; /* SUBSCRIBE, which `request` borrows from; NULL until it came */
  weir_request request;
  uint64_t deadline; /* for SUBSCRIBE to come */
} candidate;

typedef struct control {
  weir_port port; /* first */
  weir_session *session;
  weir_frame_reader reader;
  weir_queue announcements; /* ANNOUNCE frames that wait for the application */
  size_t at;                /* place in the first of them */
} control;

typedef enum session_state {
  GREETING,
  READY,
  ENDED
} session_state;

struct weir_session {
  weir_endpoint endpoint; /* first: drivers see an endpoint */
  weir_source source;
  const weir_alloc *alloc;
  weir_yamux *yamux;
  control control;
  bool client;
  session_state state;
  weir_frame_buffer hello; /* ours, ready to send */
  unsigned char network[WEIR_ID_SIZE], node[WEIR_ID_SIZE];
  weir_buf *peer_frame; /* what `peer` borrows from */
  weir_hello peer;
  uint64_t handshake_timeout, greeting_deadline;
  weir_list waiting; /* candidates that have said nothing yet, oldest first */
  weir_list asked;   /* that have asked, and nobody has looked */
  weir_list offered; /* handed out by next_request() and not answered */
  uint64_t next_request;
  uint32_t close_code;
  char reason[128];
};

static weir_session *of_endpoint(const weir_endpoint *endpoint) {
  return (weir_session *)(uintptr_t)endpoint;
}

weir_endpoint *weir_session_endpoint(weir_session *session) { return &session->endpoint; }
weir_source *weir_session_source(weir_session *session) { return &session->source; }
weir_yamux *weir_session_yamux(weir_session *session) { return session->yamux; }

const weir_hello *weir_session_peer(const weir_session *session) {
  return session->peer_frame == NULL ? NULL : &session->peer;
}

/* --- the end ---------------------------------------------------------------------------------- */

static void note_end(weir_session *s, uint32_t code, const char *reason, size_t reason_len) {
  if (s->state == ENDED) return;
  s->state = ENDED;
  s->close_code = code;
  snprintf(s->reason, sizeof s->reason, "%.*s", (int)reason_len, reason);
  weir_hub_notify(&s->source, WEIR_SESSION_ENDED);
}

void weir_session_close(weir_session *session, uint32_t code, const char *reason) {
  if (session->state == ENDED) return;
  note_end(session, code, reason, strlen(reason));
  weir_port_close(&session->control.port, code, reason);
  weir_yamux_close(session->yamux);
}

bool weir_session_ended(const weir_session *session, uint32_t *code, const char **reason) {
  if (session->state != ENDED) return false;
  *code = session->close_code;
  *reason = session->reason;
  return true;
}

/* --- the control stream ----------------------------------------------------------------------- */

static weir_status greet(weir_session *s) {
  weir_port_write(&s->control.port, s->hello.bytes, s->hello.len);
  return s->control.port.stream == NULL ? WEIR_E_CLOSED : WEIR_OK;
}

static void become_ready(weir_session *s) {
  s->state = READY;
  (void)weir_yamux_ping(s->yamux, s->source.hub->now);
  weir_hub_notify(&s->source, WEIR_SESSION_READY);
}

static weir_status on_hello(weir_session *s, const unsigned char *payload, size_t len) {
  weir_buf *frame = weir_buf_copy(s->alloc, payload, len);
  if (frame == NULL) return WEIR_E_NOMEM;
  weir_status status = weir_read_hello(frame->data, len, &s->peer);
  if (status != WEIR_OK) {
    weir_buf_unref(frame);
    return status;
  }
  s->peer_frame = frame;
  if (memcmp(s->peer.network, s->network, WEIR_ID_SIZE) != 0) {
    weir_session_close(s, WEIR_CLOSE_WRONG_NETWORK, "the two nodes are in different networks");
  } else if (memcmp(s->peer.node, s->node, WEIR_ID_SIZE) == 0) {
    weir_session_close(s, WEIR_CLOSE_CANCELLED, "the node connected to itself");
  } else {
    if (!s->client) (void)greet(s);
    become_ready(s);
  }
  return WEIR_OK;
}

static weir_status on_announce(weir_session *s, const weir_slice *frame) {
  weir_queue_item item = {.epoch = 0};
  item.slice.buf = weir_buf_copy(s->alloc, frame->ptr, frame->len);
  if (item.slice.buf == NULL) return WEIR_E_NOMEM;
  item.slice.ptr = item.slice.buf->data;
  item.slice.len = frame->len;
  weir_status status = weir_queue_push(&s->control.announcements, &item);
  if (status != WEIR_OK) {
    weir_slice_unref(&item.slice);
    return status == WEIR_E_AGAIN ? WEIR_E_LIMIT : status;
  }
  weir_hub_notify(&s->source, WEIR_SESSION_ANNOUNCE);
  return WEIR_OK;
}

static weir_status on_goodbye(weir_session *s, const unsigned char *payload, size_t len) {
  weir_closing closing;
  weir_status status = weir_read_close(payload, len, &closing);
  if (status != WEIR_OK) return status;
  note_end(s, closing.code, (const char *)closing.reason.ptr, closing.reason.len);
  weir_port_leave(&s->control.port);
  weir_yamux_close(s->yamux);
  return WEIR_OK;
}

static weir_status on_control_frame(weir_session *s, const weir_slice *frame) {
  const int type = weir_frame_type_of(frame->ptr, frame->len);
  if (type == WEIR_FRAME_CLOSE) return on_goodbye(s, frame->ptr, frame->len);
  if (s->peer_frame == NULL) return on_hello(s, frame->ptr, frame->len);
  if (type == WEIR_FRAME_ANNOUNCE) return on_announce(s, frame);
  return type >= 0 && (type & WEIR_FRAME_IGNORABLE) ? WEIR_OK : WEIR_E_PROTOCOL;
}

static void close_for(weir_session *s, weir_status status) {
  switch (status) {
    case WEIR_E_VERSION:
      weir_session_close(s, WEIR_CLOSE_BAD_VERSION, "no version of the protocol in common");
      return;
    case WEIR_E_NOMEM: weir_session_close(s, WEIR_CLOSE_UNEXPECTED, "out of memory"); return;
    case WEIR_E_LIMIT:
      weir_session_close(s, WEIR_CLOSE_PROTOCOL, "a control frame or its number is over the limit");
      return;
    default:
      weir_session_close(s, WEIR_CLOSE_PROTOCOL,
                         s->peer_frame == NULL ? "the peer does not speak the weir protocol"
                                               : "malformed control frame");
      return;
  }
}

static void control_data(weir_port *port, const unsigned char *data, size_t len) {
  control *c = (control *)port;
  weir_yamux_consume(port->stream, len);
  weir_status status = WEIR_OK;
  while (port->stream != NULL && status == WEIR_OK) {
    weir_slice frame;
    status = weir_frame_reader_next(&c->reader, &data, &len, &frame);
    if (status != WEIR_OK) break;
    status = on_control_frame(c->session, &frame);
    weir_slice_unref(&frame);
  }
  if (status != WEIR_OK && status != WEIR_E_AGAIN) close_for(c->session, status);
}

static void control_writable(weir_port *port) {
  weir_hub_notify(&((control *)port)->session->source, WEIR_SESSION_WRITABLE);
}

static void control_end(weir_port *port) {
  weir_session_close(((control *)port)->session, WEIR_CLOSE_UNEXPECTED,
                     "the peer ended the control stream");
}

static void control_gone(weir_port *port, weir_status reason) {
  weir_session *s = ((control *)port)->session;
  if (reason == WEIR_E_RESET) {
    weir_session_close(s, WEIR_CLOSE_UNEXPECTED, "the peer reset the control stream");
  }
}

static const weir_port_type CONTROL_PORT = {control_data, control_writable, control_end,
                                            control_gone};

size_t weir_session_announce(weir_session *session, bool add, const unsigned char *ids,
                             size_t count) {
  weir_port *port = &session->control.port;
  size_t taken = 0;
  if (session->state != READY) return 0;
  while (taken < count && port->stream != NULL) {
    weir_frame_buffer frame;
    const size_t n = weir_write_announce(&frame, add, ids + taken * WEIR_ID_SIZE, count - taken);
    const weir_slice slice = {NULL, frame.bytes, frame.len};
    if (weir_yamux_write(port->stream, slice) != WEIR_OK) {
      weir_yamux_want_write(port->stream);
      break;
    }
    taken += n;
  }
  return taken;
}

bool weir_session_next_announcement(weir_session *session, bool *add,
                                    unsigned char stream[WEIR_ID_SIZE]) {
  control *c = &session->control;
  const weir_queue_item *first;
  while ((first = weir_queue_peek(&c->announcements)) != NULL) {
    weir_announcement announcement;
    weir_status status =
        weir_read_announce(first->slice.ptr, first->slice.len, &c->at, &announcement);
    if (status == WEIR_OK) {
      *add = announcement.add;
      memcpy(stream, announcement.stream, WEIR_ID_SIZE);
      return true;
    }
    weir_queue_item item = {.slice = {NULL, NULL, 0}};
    (void)weir_queue_pop(&c->announcements, &item);
    weir_slice_unref(&item.slice);
    c->at = 0;
    if (status == WEIR_E_PROTOCOL) close_for(session, status);
  }
  return false;
}

/* --- requests to subscribe -------------------------------------------------------------------- */

static void free_candidate(candidate *c) {
  weir_list_remove(&c->link);
  weir_frame_reader_free(&c->reader);
  weir_buf_unref(c->frame);
  weir_free(c->session->alloc, c);
}

static void turn_away(candidate *c, uint32_t code, const char *reason) {
  if (c->port.stream != NULL) weir_yamux_accept(c->port.stream);
  weir_port_close(&c->port, code, reason);
  free_candidate(c);
}

static weir_status on_subscribe(candidate *c, const weir_slice *frame) {
  weir_session *s = c->session;
  c->frame = weir_buf_copy(s->alloc, frame->ptr, frame->len);
  if (c->frame == NULL) return WEIR_E_NOMEM;
  weir_status status = weir_read_subscribe(c->frame->data, frame->len, &c->request.subscribe);
  if (status != WEIR_OK) return status;
  if (s->state != READY) return WEIR_E_PROTOCOL; /* from whom, it has not said */
  if (memcmp(c->request.subscribe.network, s->network, WEIR_ID_SIZE) != 0) return WEIR_E_INVALID;
  c->request.id = s->next_request++;
  weir_list_remove(&c->link);
  weir_list_append(&s->asked, &c->link);
  weir_hub_notify(&s->source, WEIR_SESSION_REQUEST);
  return WEIR_OK;
}

static void refuse(candidate *c, weir_status status) {
  switch (status) {
    case WEIR_E_VERSION:
      turn_away(c, WEIR_CLOSE_BAD_VERSION, "that version of the protocol is not spoken here");
      return;
    case WEIR_E_INVALID:
      turn_away(c, WEIR_CLOSE_WRONG_NETWORK, "the request names another network");
      return;
    case WEIR_E_NOMEM: turn_away(c, WEIR_CLOSE_NO_CAPACITY, "out of memory"); return;
    case WEIR_E_LIMIT: turn_away(c, WEIR_CLOSE_PROTOCOL, "the first frame is too long"); return;
    case WEIR_E_CLOSED: /* the consumer changed its mind */
      turn_away(c, WEIR_CLOSE_CANCELLED, "cancelled");
      return;
    default: turn_away(c, WEIR_CLOSE_PROTOCOL, "malformed request to subscribe"); return;
  }
}

/* Until the answer, the consumer has nothing to say but SUBSCRIBE and CLOSE. */
static weir_status on_candidate_frame(candidate *c, const weir_slice *frame) {
  const int type = weir_frame_type_of(frame->ptr, frame->len);
  if (type == WEIR_FRAME_CLOSE) return WEIR_E_CLOSED;
  if (c->frame == NULL) return on_subscribe(c, frame);
  return type >= 0 && (type & WEIR_FRAME_IGNORABLE) ? WEIR_OK : WEIR_E_PROTOCOL;
}

static void candidate_data(weir_port *port, const unsigned char *data, size_t len) {
  candidate *c = (candidate *)port;
  weir_yamux_consume(port->stream, len);
  weir_status status = WEIR_OK;
  while (status == WEIR_OK) {
    weir_slice frame;
    status = weir_frame_reader_next(&c->reader, &data, &len, &frame);
    if (status != WEIR_OK) break;
    status = on_candidate_frame(c, &frame);
    weir_slice_unref(&frame);
  }
  if (status != WEIR_E_AGAIN) refuse(c, status);
}

static void candidate_end(weir_port *port) { refuse((candidate *)port, WEIR_E_CLOSED); }

static void candidate_gone(weir_port *port, weir_status reason) {
  (void)reason;
  free_candidate((candidate *)port);
}

static const weir_port_type CANDIDATE_PORT = {candidate_data, NULL, candidate_end, candidate_gone};

static candidate *candidate_of(weir_link *link) { return weir_list_of(link, candidate, link); }

const weir_request *weir_session_next_request(weir_session *session) {
  weir_link *link = weir_list_first(&session->asked);
  if (link == NULL) return NULL;
  weir_list_remove(link);
  weir_list_append(&session->offered, link);
  return &candidate_of(link)->request;
}

static candidate *find_offered(const weir_session *s, uint64_t id) {
  for (weir_link *l = s->offered.next; l != &s->offered; l = l->next) {
    if (candidate_of(l)->request.id == id) return candidate_of(l);
  }
  return NULL;
}

weir_status weir_session_accept(weir_session *session, uint64_t request, weir_producer *producer,
                                weir_slice codec, weir_slice schema, uint64_t *subscriber) {
  candidate *c = find_offered(session, request);
  if (c == NULL) return WEIR_E_CLOSED;
  weir_start start = {.codec = codec, .schema = schema};
  memcpy(start.network, session->network, WEIR_ID_SIZE);
  memcpy(start.stream, c->request.subscribe.stream, WEIR_ID_SIZE);
  weir_status status = weir_outlet_accept(session->alloc, producer, c->port.stream, &c->reader,
                                          &c->request.subscribe, &start, subscriber);
  if (status == WEIR_OK) free_candidate(c);
  return status;
}

weir_status weir_session_reject(weir_session *session, uint64_t request, uint32_t code,
                                const char *reason) {
  candidate *c = find_offered(session, request);
  if (c == NULL) return WEIR_E_CLOSED;
  turn_away(c, code, reason);
  return WEIR_OK;
}

weir_status weir_session_subscribe(weir_session *session, weir_consumer *consumer,
                                   weir_subscribe *subscribe, weir_inlet **inlet) {
  if (session->state != READY) return WEIR_E_CLOSED;
  subscribe->version = WEIR_PROTOCOL_VERSION;
  memcpy(subscribe->network, session->network, WEIR_ID_SIZE);
  return weir_inlet_subscribe(consumer, session->yamux, subscribe, session->peer.node, inlet);
}

/* --- yamux ------------------------------------------------------------------------------------ */

static weir_status on_stream(weir_yamux *yamux, weir_yamux_stream *stream, void *user) {
  (void)yamux;
  weir_session *s = user;
  if (s->state == ENDED) return WEIR_E_CLOSED;
  if (!s->client && s->control.port.type == NULL) {
    weir_port_bind(&s->control.port, &CONTROL_PORT, stream);
    weir_yamux_accept(stream);
    return WEIR_OK;
  }
  candidate *c = weir_calloc(s->alloc, 1, sizeof *c);
  if (c == NULL) return WEIR_E_NOMEM;
  c->session = s;
  c->deadline = s->source.hub->now + s->handshake_timeout;
  weir_frame_reader_init(&c->reader, s->alloc, WEIR_MAX_CONTROL);
  weir_list_append(&s->waiting, &c->link);
  weir_port_bind(&c->port, &CANDIDATE_PORT, stream);
  return WEIR_OK;
}

static void on_accepted(weir_yamux_stream *stream, void *user) {
  (void)user;
  weir_session *s = weir_yamux_user(weir_yamux_session(stream));
  weir_hub_notify(&s->source, WEIR_SESSION_WRITABLE);
}

static void on_data(weir_yamux_stream *stream, const unsigned char *data, size_t len, void *user) {
  weir_port *port = user;
  if (port != NULL) {
    port->type->data(port, data, len);
  } else {
    weir_yamux_consume(stream, len);
  }
}

static void on_writable(weir_yamux_stream *stream, void *user) {
  (void)stream;
  weir_port *port = user;
  if (port != NULL && port->type->writable != NULL) port->type->writable(port);
}

static void on_end(weir_yamux_stream *stream, void *user) {
  (void)stream;
  weir_port *port = user;
  if (port != NULL) port->type->end(port);
}

static void on_close(weir_yamux_stream *stream, weir_status reason, void *user) {
  weir_port *port = user;
  weir_session *s = weir_yamux_user(weir_yamux_session(stream));
  if (port != NULL) {
    port->stream = NULL;
    port->type->closed(port, reason);
  }
  /* A stream less: an open that was over the limit may fit now. */
  if (s->state == READY) weir_hub_notify(&s->source, WEIR_SESSION_WRITABLE);
}

static void on_go_away(weir_yamux *yamux, uint32_t code, void *user) {
  static const char TEXT[] = "the peer ended the session with an error";
  if (code == WEIR_YAMUX_NORMAL) return;
  note_end(user, WEIR_CLOSE_PROTOCOL, TEXT, sizeof TEXT - 1);
  weir_yamux_close(yamux);
}

static const weir_yamux_handler HANDLER = {
    .on_stream = on_stream,
    .on_accepted = on_accepted,
    .on_data = on_data,
    .on_writable = on_writable,
    .on_end = on_end,
    .on_close = on_close,
    .on_go_away = on_go_away,
};

/* --- endpoint: yamux's, with the session's own deadlines -------------------------------------- */

static weir_endpoint *inner(const weir_session *s) { return weir_yamux_endpoint(s->yamux); }

static weir_status note_failure(weir_session *s, weir_status status) {
  if (status == WEIR_OK) return status;
  const char *text = weir_yamux_error(s->yamux);
  if (text == NULL) text = weir_status_text(status);
  const bool silent = status == WEIR_E_TIMEOUT;
  note_end(s, silent ? WEIR_CLOSE_TIMEOUT : WEIR_CLOSE_PROTOCOL, text, strlen(text));
  return status;
}

static weir_status session_feed(weir_endpoint *endpoint, const void *data, size_t len,
                                uint64_t now) {
  weir_session *s = of_endpoint(endpoint);
  return note_failure(s, inner(s)->feed(inner(s), data, len, now));
}

static size_t session_output(weir_endpoint *endpoint, weir_iov *iov, size_t max, uint64_t now) {
  weir_endpoint *yamux = inner(of_endpoint(endpoint));
  return yamux->output(yamux, iov, max, now);
}

static void session_sent(weir_endpoint *endpoint, size_t len) {
  weir_endpoint *yamux = inner(of_endpoint(endpoint));
  yamux->sent(yamux, len);
}

static uint64_t greeting_deadline(const weir_session *s) {
  return s->state == GREETING ? s->greeting_deadline : WEIR_NEVER;
}

static uint64_t candidate_deadline(const weir_session *s) {
  weir_link *link = weir_list_first(&s->waiting);
  return link == NULL ? WEIR_NEVER : candidate_of(link)->deadline;
}

static uint64_t session_deadline(const weir_endpoint *endpoint) {
  const weir_session *s = of_endpoint(endpoint);
  uint64_t deadline = inner(s)->deadline(inner(s));
  if (greeting_deadline(s) < deadline) deadline = greeting_deadline(s);
  if (candidate_deadline(s) < deadline) deadline = candidate_deadline(s);
  return deadline;
}

static weir_status session_tick(weir_endpoint *endpoint, uint64_t now) {
  weir_session *s = of_endpoint(endpoint);
  if (now >= greeting_deadline(s)) {
    weir_session_close(s, WEIR_CLOSE_TIMEOUT, "the peer did not say hello in time");
  }
  while (now >= candidate_deadline(s)) {
    turn_away(candidate_of(weir_list_first(&s->waiting)), WEIR_CLOSE_TIMEOUT,
              "the stream did not say what it wants in time");
  }
  return note_failure(s, inner(s)->tick(inner(s), now));
}

static void session_ended(weir_endpoint *endpoint, weir_status reason) {
  static const char TEXT[] = "the connection was lost";
  weir_session *s = of_endpoint(endpoint);
  note_end(s, WEIR_CLOSE_UNEXPECTED, TEXT, sizeof TEXT - 1);
  inner(s)->ended(inner(s), reason);
}

static int session_finished(const weir_endpoint *endpoint) {
  const weir_endpoint *yamux = inner(of_endpoint(endpoint));
  return yamux->finished(yamux);
}

static void yamux_woke(weir_endpoint *yamux, void *driver) {
  (void)yamux;
  weir_endpoint_wake(driver);
}

/* --- life ------------------------------------------------------------------------------------- */

static weir_status prepare_hello(weir_session *s, const weir_session_config *config) {
  if (config->tag_count > WEIR_MAX_TAGS) return WEIR_E_LIMIT;
  weir_hello hello = {.version_min = WEIR_PROTOCOL_VERSION,
                      .version_max = WEIR_PROTOCOL_VERSION,
                      .tag_count = config->tag_count,
                      .agent = config->agent};
  memcpy(hello.network, config->network, WEIR_ID_SIZE);
  memcpy(hello.node, config->node, WEIR_ID_SIZE);
  for (size_t i = 0; i < config->tag_count; i++)
    hello.tags[i] = config->tags[i];
  return weir_write_hello(&s->hello, &hello);
}

static weir_status open_yamux(weir_session *s, const weir_session_config *config) {
  const weir_yamux_config yamux = {.client = config->client,
                                   .max_streams = config->max_streams,
                                   .backlog = config->backlog,
                                   .receive_window = STREAM_WINDOW,
                                   .keepalive = config->keepalive,
                                   .keepalive_timeout = config->keepalive_timeout};
  s->yamux = weir_yamux_new(s->alloc, &yamux, &HANDLER, s);
  if (s->yamux == NULL) return WEIR_E_NOMEM;
  inner(s)->wake = yamux_woke;
  inner(s)->driver = &s->endpoint;
  if (!config->client) return WEIR_OK;
  weir_yamux_stream *stream;
  weir_status status = weir_yamux_open(s->yamux, &stream);
  if (status != WEIR_OK) return status;
  weir_port_bind(&s->control.port, &CONTROL_PORT, stream);
  return greet(s);
}

weir_session *weir_session_new(const weir_alloc *alloc, weir_hub *hub,
                               const weir_session_config *config) {
  weir_session *s = weir_calloc(alloc, 1, sizeof *s);
  if (s == NULL) return NULL;
  s->endpoint = (weir_endpoint){.feed = session_feed,
                                .output = session_output,
                                .sent = session_sent,
                                .tick = session_tick,
                                .deadline = session_deadline,
                                .ended = session_ended,
                                .finished = session_finished};
  weir_source_init(&s->source, hub);
  s->alloc = alloc;
  s->client = config->client;
  memcpy(s->network, config->network, WEIR_ID_SIZE);
  memcpy(s->node, config->node, WEIR_ID_SIZE);
  s->handshake_timeout =
      config->handshake_timeout == 0 ? DEFAULT_HANDSHAKE_TIMEOUT : config->handshake_timeout;
  s->greeting_deadline = hub->now + s->handshake_timeout;
  s->next_request = 1;
  s->control.session = s;
  weir_frame_reader_init(&s->control.reader, alloc, WEIR_MAX_CONTROL);
  weir_queue_init(&s->control.announcements, alloc, MAX_ANNOUNCE_FRAMES, MAX_ANNOUNCE_BYTES);
  weir_list_init(&s->waiting);
  weir_list_init(&s->asked);
  weir_list_init(&s->offered);
  if (prepare_hello(s, config) != WEIR_OK || open_yamux(s, config) != WEIR_OK) {
    weir_session_free(s);
    return NULL;
  }
  return s;
}

void weir_session_free(weir_session *session) {
  if (session == NULL) return;
  if (session->yamux != NULL) weir_yamux_free(session->yamux);
  weir_source_clear(&session->source);
  weir_frame_reader_free(&session->control.reader);
  weir_queue_free(&session->control.announcements);
  weir_buf_unref(session->peer_frame);
  weir_free(session->alloc, session);
}
