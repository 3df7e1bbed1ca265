#include "core/outlet.h"

#include <stdio.h>
#include <string.h>

#include "core/credit.h"
#include "core/frame.h"
#include "core/port.h"

typedef struct outlet {
  weir_port port; /* first: the session sees a port */
  weir_subscriber subscriber;
  const weir_alloc *alloc;
  weir_frame_reader reader;
  weir_credit_sender credit;
  uint64_t epoch;
  uint64_t sync; /* to be asked for once the cursor has reached it; 0: nothing */
  bool closing;  /* CLOSE follows what is queued */
  uint32_t close_code;
  char close_reason[128];
} outlet;

static outlet *of_port(weir_port *port) { return (outlet *)port; }
static outlet *of_subscriber(const weir_subscriber *subscriber) {
  return weir_list_of(subscriber, outlet, subscriber);
}

static void end_with(outlet *o, uint32_t code, const char *reason) {
  weir_producer_detach(&o->subscriber);
  weir_port_close(&o->port, code, reason);
}

/* The outlet goes with its stream; one that has left its stream has nothing to wait for. */
static void free_if_left(outlet *o) {
  if (o->port.stream != NULL) return;
  weir_producer_detach(&o->subscriber);
  weir_frame_reader_free(&o->reader);
  weir_free(o->alloc, o);
}

/* --- to the consumer -------------------------------------------------------------------------- */

/* The run of frames from the cursor that lie side by side in memory, as one slice: as much as the
 * credit allows, until it has at least `room` bytes. Spends the credit; returns the messages. */
static uint64_t next_run(outlet *o, size_t room, weir_slice *run) {
  const weir_producer *p = o->subscriber.producer;
  uint64_t sequence = o->subscriber.cursor;
  *run = (weir_slice){NULL, NULL, 0};
  while (sequence != p->head && run->len < room && weir_credit_sender_ok(&o->credit)) {
    const weir_entry *entry = &p->ring[sequence & p->mask];
    if (run->buf == NULL) {
      *run = (weir_slice){entry->buf, entry->frame, 0};
    } else if (entry->buf != run->buf || entry->frame != run->ptr + run->len) {
      break;
    }
    run->len += entry->len;
    weir_credit_sender_spend(&o->credit, entry->len);
    sequence++;
  }
  return sequence - o->subscriber.cursor;
}

/* Whether a small frame may be queued. If a long message is in the way, outlet_writable() is called
 * when it has left. */
static bool has_room(outlet *o) {
  if (o->port.stream == NULL) return false;
  if (weir_yamux_room(o->port.stream) > 0) return true;
  weir_yamux_want_write(o->port.stream);
  return false;
}

static void send_sync(outlet *o) {
  if (o->sync == 0 || o->subscriber.cursor < o->sync || !has_room(o)) return;
  const weir_sync sync = {o->epoch, o->sync};
  unsigned char frame[WEIR_SYNC_SIZE];
  o->sync = 0;
  weir_port_write(&o->port, frame, weir_write_sync(frame, &sync));
}

static void move_frames(outlet *o) {
  weir_port *port = &o->port;
  while (port->stream != NULL && weir_subscriber_peek(&o->subscriber, 0) != NULL &&
         weir_credit_sender_ok(&o->credit)) {
    const size_t room = weir_yamux_room(port->stream);
    if (room == 0) {
      weir_yamux_want_write(port->stream);
      return;
    }
    weir_slice run;
    const weir_credit_sender before = o->credit;
    const uint64_t count = next_run(o, room, &run);
    weir_buf_ref(run.buf);
    if (weir_yamux_write(port->stream, run) != WEIR_OK) {
      weir_buf_unref(run.buf);
      o->credit = before;
      weir_yamux_want_write(port->stream);
      return;
    }
    o->subscriber.bytes += run.len - count * WEIR_DATA_HEADER;
    weir_subscriber_advance(&o->subscriber, count);
  }
}

static void send_close(outlet *o) {
  if (!o->closing || !has_room(o)) return;
  weir_port_close(&o->port, o->close_code, o->close_reason);
}

static void outlet_writable(weir_port *port) {
  outlet *o = of_port(port);
  move_frames(o);
  send_sync(o);
  send_close(o);
  free_if_left(o);
}

static void outlet_notify(weir_subscriber *subscriber) {
  outlet *o = of_subscriber(subscriber);
  if (o->port.stream != NULL && weir_credit_sender_ok(&o->credit)) {
    weir_yamux_want_write(o->port.stream);
  }
}

static void outlet_detached(weir_subscriber *subscriber, uint32_t code, const char *reason) {
  outlet *o = of_subscriber(subscriber);
  o->sync = 0;
  o->closing = true;
  o->close_code = code;
  snprintf(o->close_reason, sizeof o->close_reason, "%s", reason);
  send_close(o);
  free_if_left(o);
}

static void outlet_sync(weir_subscriber *subscriber, uint64_t sequence) {
  outlet *o = of_subscriber(subscriber);
  o->sync = sequence;
  send_sync(o);
  free_if_left(o);
}

static const weir_subscriber_type OUTLET_SUBSCRIBER = {outlet_notify, outlet_detached, outlet_sync};

/* --- from the consumer ------------------------------------------------------------------------ */

static weir_status on_grant(outlet *o, const unsigned char *payload, size_t len) {
  weir_grant grant;
  weir_status status = weir_read_grant(payload, len, &grant);
  if (status != WEIR_OK) return status;
  if (grant.epoch != o->epoch || grant.acknowledged > o->subscriber.cursor) {
    return WEIR_E_PROTOCOL;
  }
  weir_subscriber_acknowledge(&o->subscriber, grant.acknowledged);
  if (weir_credit_sender_grant(&o->credit, grant.limit_bytes, grant.limit_items)) {
    outlet_notify(&o->subscriber);
  }
  return WEIR_OK;
}

static weir_status on_frame(outlet *o, const unsigned char *payload, size_t len) {
  const int type = weir_frame_type_of(payload, len);
  if (type == WEIR_FRAME_CREDIT) return on_grant(o, payload, len);
  if (type == WEIR_FRAME_CLOSE) {
    weir_closing closing;
    weir_status status = weir_read_close(payload, len, &closing);
    if (status == WEIR_OK) weir_port_leave(&o->port);
    return status;
  }
  return type >= 0 && (type & WEIR_FRAME_IGNORABLE) ? WEIR_OK : WEIR_E_PROTOCOL;
}

static void outlet_data(weir_port *port, const unsigned char *data, size_t len) {
  outlet *o = of_port(port);
  weir_yamux_consume(port->stream, len);
  weir_status status = WEIR_OK;
  while (port->stream != NULL && status == WEIR_OK) {
    weir_slice frame;
    status = weir_frame_reader_next(&o->reader, &data, &len, &frame);
    if (status != WEIR_OK) break;
    status = on_frame(o, frame.ptr, frame.len);
    weir_slice_unref(&frame);
  }
  if (status != WEIR_OK && status != WEIR_E_AGAIN) {
    end_with(o, WEIR_CLOSE_PROTOCOL, "the consumer broke the protocol");
  }
  free_if_left(o);
}

static void outlet_end(weir_port *port) {
  weir_port_leave(port);
  free_if_left(of_port(port));
}

static void outlet_gone(weir_port *port, weir_status reason) {
  (void)reason;
  free_if_left(of_port(port));
}

static const weir_port_type OUTLET_PORT = {outlet_data, outlet_writable, outlet_end, outlet_gone};

static void send_start(outlet *o, const weir_subscribe *subscribe, weir_start *start) {
  weir_frame_buffer frame;
  start->version = WEIR_PROTOCOL_VERSION;
  start->epoch = o->epoch;
  start->sequence = o->subscriber.cursor;
  if (weir_write_start(&frame, start) == WEIR_OK) {
    weir_port_write(&o->port, frame.bytes, frame.len);
  }
  if (subscribe->has_resume && subscribe->resume_epoch == o->epoch &&
      subscribe->resume_sequence < start->sequence) {
    const weir_gap gap = {o->epoch, subscribe->resume_sequence, start->sequence};
    unsigned char bytes[WEIR_GAP_SIZE];
    weir_port_write(&o->port, bytes, weir_write_gap(bytes, &gap));
  }
}

weir_status weir_outlet_accept(const weir_alloc *alloc, weir_producer *producer,
                               weir_yamux_stream *stream, weir_frame_reader *reader,
                               const weir_subscribe *subscribe, weir_start *start, uint64_t *id) {
  if (start->codec.len > WEIR_MAX_NAME || start->schema.len > WEIR_MAX_NAME) return WEIR_E_LIMIT;
  outlet *o = weir_calloc(alloc, 1, sizeof *o);
  if (o == NULL) return WEIR_E_NOMEM;
  o->alloc = alloc;
  o->epoch = producer->config.epoch;
  o->subscriber.type = &OUTLET_SUBSCRIBER;
  const bool resume = subscribe->has_resume && subscribe->resume_epoch == o->epoch;
  weir_status status = weir_producer_attach(producer, &o->subscriber,
                                            resume ? subscribe->resume_sequence : UINT64_MAX);
  if (status != WEIR_OK) {
    weir_free(alloc, o);
    return status;
  }
  o->reader = *reader;
  weir_frame_reader_init(reader, alloc, WEIR_MAX_CONTROL);
  weir_credit_sender_grant(&o->credit, subscribe->credit_bytes, subscribe->credit_items);
  weir_port_bind(&o->port, &OUTLET_PORT, stream);
  *id = o->subscriber.id;
  weir_yamux_accept(stream);
  send_start(o, subscribe, start);
  outlet_notify(&o->subscriber);
  free_if_left(o);
  return WEIR_OK;
}

bool weir_outlet_gauge_of(const weir_subscriber *subscriber, weir_outlet_gauge *gauge) {
  if (subscriber->type != &OUTLET_SUBSCRIBER) return false;
  const outlet *o = of_subscriber(subscriber);
  gauge->credit_items = weir_credit_sender_items(&o->credit);
  gauge->credit_bytes = weir_credit_sender_bytes(&o->credit);
  gauge->rtt = o->port.stream == NULL ? 0 : weir_yamux_rtt(weir_yamux_session(o->port.stream));
  return true;
}
