#include "core/inlet.h"

#include <string.h>

#include "core/credit.h"
#include "core/frame.h"
#include "core/port.h"
#include "core/queue.h"

#define SLAB_BLOCK_MIN 1024u
#define SLAB_BLOCK_MAX 32768u

typedef struct remote_inlet {
  weir_port port; /* first: the session sees a port */
  weir_inlet inlet;
  weir_frame_reader reader;
  weir_queue queue;
  weir_slab slab; /* holds the payloads of the queue */
  weir_credit_receiver credit;
  unsigned char network[WEIR_ID_SIZE], stream[WEIR_ID_SIZE];
  uint64_t epoch; /* of START */
  uint64_t taken; /* everything before it was taken by the application */
  uint64_t sync;  /* acknowledge as soon as `taken` reaches it; 0: not asked */
} remote_inlet;

static remote_inlet *of_port(weir_port *port) { return (remote_inlet *)port; }
static remote_inlet *of_inlet(weir_inlet *inlet) {
  return weir_list_of(inlet, remote_inlet, inlet);
}

static void end_with(remote_inlet *r, uint32_t code, const char *reason) {
  weir_port_close(&r->port, code, reason);
  weir_inlet_closed(&r->inlet, code, reason, strlen(reason));
}

/* --- what comes in ---------------------------------------------------------------------------- */

static weir_status on_start(remote_inlet *r, const unsigned char *payload, size_t len) {
  weir_start start;
  weir_status status = weir_read_start(payload, len, &start);
  if (status != WEIR_OK) return status;
  if (r->inlet.state != WEIR_INLET_OPENING) return WEIR_E_PROTOCOL;
  if (memcmp(start.network, r->network, WEIR_ID_SIZE) != 0) {
    end_with(r, WEIR_CLOSE_WRONG_NETWORK, "the producer is in another network");
    return WEIR_OK;
  }
  if (memcmp(start.stream, r->stream, WEIR_ID_SIZE) != 0) {
    end_with(r, WEIR_CLOSE_NOT_FOUND, "the producer started another stream");
    return WEIR_OK;
  }
  r->epoch = start.epoch;
  r->inlet.expected = r->taken = start.sequence;
  r->inlet.epoch = start.epoch;
  r->inlet.next_sequence = start.sequence;
  weir_inlet_opened(&r->inlet);
  return WEIR_OK;
}

static void note_gap(remote_inlet *r, uint64_t to) {
  weir_inlet_missed(&r->inlet, to - r->inlet.expected);
  r->inlet.expected = to;
}

/* A payload that lies in the input is copied into the inlet's own block, so that nothing pins the
 * driver's buffer; one that was assembled is taken as it is. */
static weir_status keep_payload(remote_inlet *r, weir_slice *frame, weir_slice payload,
                                weir_slice *kept) {
  if (frame->buf != NULL) {
    *kept = (weir_slice){frame->buf, payload.ptr, payload.len};
    frame->buf = NULL;
    return WEIR_OK;
  }
  if (payload.len == 0) {
    *kept = (weir_slice){NULL, (const unsigned char *)"", 0};
    return WEIR_OK;
  }
  unsigned char *bytes;
  const weir_buf *before = r->slab.buf;
  weir_status status = weir_slab_carve(&r->slab, payload.len, kept, &bytes);
  if (status != WEIR_OK) return status;
  if (r->slab.buf != before && r->slab.block < SLAB_BLOCK_MAX) r->slab.block *= 2;
  memcpy(bytes, payload.ptr, payload.len);
  return WEIR_OK;
}

static weir_status on_message(remote_inlet *r, weir_slice *frame) {
  weir_data data;
  weir_status status = weir_read_data(frame->ptr, frame->len, &data);
  if (status != WEIR_OK) return status;
  if (r->inlet.state != WEIR_INLET_OPEN || data.epoch != r->epoch ||
      data.sequence < r->inlet.expected || data.sequence == UINT64_MAX ||
      data.payload.len > r->inlet.consumer->config.max_message) {
    return WEIR_E_PROTOCOL;
  }
  status = weir_credit_receiver_receive(&r->credit, frame->len + 4);
  if (status != WEIR_OK) return status;
  if (data.sequence > r->inlet.expected) note_gap(r, data.sequence);
  r->inlet.expected = data.sequence + 1;
  weir_queue_item item = {.epoch = data.epoch, .seq = data.sequence, .time = data.time};
  status = keep_payload(r, frame, data.payload, &item.slice);
  if (status != WEIR_OK) return status;
  status = weir_queue_push(&r->queue, &item);
  if (status != WEIR_OK) {
    weir_slice_unref(&item.slice);
    return status;
  }
  weir_inlet_ready(&r->inlet);
  return WEIR_OK;
}

static void send_grant(remote_inlet *r) {
  weir_grant grant = {.epoch = r->epoch, .acknowledged = r->taken};
  weir_credit_receiver_grant(&r->credit, &grant.limit_bytes, &grant.limit_items);
  unsigned char frame[WEIR_GRANT_SIZE];
  if (!weir_port_write(&r->port, frame, weir_write_grant(frame, &grant))) {
    static const char TEXT[] = "the connection does not take what must be sent";
    weir_inlet_closed(&r->inlet, WEIR_CLOSE_UNEXPECTED, TEXT, sizeof TEXT - 1);
  }
}

static weir_status on_sync(remote_inlet *r, const unsigned char *payload, size_t len) {
  weir_sync sync;
  weir_status status = weir_read_sync(payload, len, &sync);
  if (status != WEIR_OK) return status;
  if (r->inlet.state != WEIR_INLET_OPEN || sync.epoch != r->epoch ||
      sync.sequence > r->inlet.expected) {
    return WEIR_E_PROTOCOL;
  }
  if (r->taken >= sync.sequence) {
    send_grant(r);
  } else {
    r->sync = sync.sequence;
  }
  return WEIR_OK;
}

static weir_status on_gap(remote_inlet *r, const unsigned char *payload, size_t len) {
  weir_gap gap;
  weir_status status = weir_read_gap(payload, len, &gap);
  if (status != WEIR_OK) return status;
  if (r->inlet.state != WEIR_INLET_OPEN || gap.epoch != r->epoch) return WEIR_E_PROTOCOL;
  /* Right after START the gap lies before the position that START named. */
  if (gap.to <= r->inlet.expected) {
    weir_inlet_missed(&r->inlet, gap.to - gap.from);
    return WEIR_OK;
  }
  if (gap.from != r->inlet.expected || gap.to == UINT64_MAX) return WEIR_E_PROTOCOL;
  note_gap(r, gap.to);
  if (weir_queue_empty(&r->queue)) r->taken = r->inlet.next_sequence = gap.to;
  return WEIR_OK;
}

static weir_status on_close(remote_inlet *r, const unsigned char *payload, size_t len) {
  weir_closing closing;
  weir_status status = weir_read_close(payload, len, &closing);
  if (status != WEIR_OK) return status;
  weir_inlet_closed(&r->inlet, closing.code, (const char *)closing.reason.ptr, closing.reason.len);
  weir_port_leave(&r->port);
  return WEIR_OK;
}

static weir_status on_frame(remote_inlet *r, weir_slice *frame) {
  const int type = weir_frame_type_of(frame->ptr, frame->len);
  switch (type) {
    case WEIR_FRAME_DATA: return on_message(r, frame);
    case WEIR_FRAME_START: return on_start(r, frame->ptr, frame->len);
    case WEIR_FRAME_SYNC: return on_sync(r, frame->ptr, frame->len);
    case WEIR_FRAME_GAP: return on_gap(r, frame->ptr, frame->len);
    case WEIR_FRAME_CLOSE: return on_close(r, frame->ptr, frame->len);
    default: return type >= 0 && (type & WEIR_FRAME_IGNORABLE) ? WEIR_OK : WEIR_E_PROTOCOL;
  }
}

static void refuse(remote_inlet *r, weir_status status) {
  switch (status) {
    case WEIR_E_VERSION:
      end_with(r, WEIR_CLOSE_BAD_VERSION, "the producer speaks another version of the protocol");
      return;
    case WEIR_E_NOMEM: end_with(r, WEIR_CLOSE_UNEXPECTED, "out of memory"); return;
    case WEIR_E_LIMIT:
      end_with(r, WEIR_CLOSE_PROTOCOL, "a message is longer than max_message");
      return;
    default: end_with(r, WEIR_CLOSE_PROTOCOL, "the producer broke the protocol"); return;
  }
}

static void inlet_data(weir_port *port, const unsigned char *data, size_t len) {
  remote_inlet *r = of_port(port);
  weir_yamux_consume(port->stream, len);
  weir_status status = WEIR_OK;
  while (port->stream != NULL && status == WEIR_OK) {
    weir_slice frame;
    status = weir_frame_reader_next(&r->reader, &data, &len, &frame);
    if (status != WEIR_OK) break;
    status = on_frame(r, &frame);
    weir_slice_unref(&frame);
  }
  if (status != WEIR_OK && status != WEIR_E_AGAIN && port->stream != NULL) refuse(r, status);
}

static void inlet_end(weir_port *port) {
  remote_inlet *r = of_port(port);
  end_with(r, WEIR_CLOSE_UNEXPECTED,
           weir_frame_reader_partial(&r->reader)
               ? "the subscription was cut in the middle of a frame"
               : "the producer ended the subscription without a reason");
}

static void inlet_gone(weir_port *port, weir_status reason) {
  remote_inlet *r = of_port(port);
  const char *text = reason == WEIR_E_RESET && r->inlet.state == WEIR_INLET_OPENING
                         ? "the producer's node refused the stream"
                         : "the connection was lost";
  weir_inlet_closed(&r->inlet, WEIR_CLOSE_UNEXPECTED, text, strlen(text));
}

static const weir_port_type INLET_PORT = {inlet_data, NULL, inlet_end, inlet_gone};

/* --- what the application takes --------------------------------------------------------------- */

static bool inlet_peek(weir_inlet *inlet, size_t ahead, weir_item *item) {
  const weir_queue_item *queued = weir_queue_peek_ahead(&of_inlet(inlet)->queue, ahead);
  if (queued == NULL) return false;
  *item = (weir_item){inlet,         queued->slice.ptr, queued->slice.len,
                      queued->epoch, queued->seq,       queued->time};
  return true;
}

static void inlet_pop(weir_inlet *inlet) {
  remote_inlet *r = of_inlet(inlet);
  weir_queue_item item;
  if (weir_queue_pop(&r->queue, &item) != WEIR_OK) return;
  weir_credit_receiver_consume(&r->credit, WEIR_DATA_HEADER + item.slice.len);
  weir_slice_unref(&item.slice);
  r->taken = weir_queue_empty(&r->queue) ? r->inlet.expected : item.seq + 1;
  if (r->port.stream == NULL) return;
  const bool asked = r->sync != 0 && r->taken >= r->sync;
  if (asked) r->sync = 0;
  if (asked || weir_credit_receiver_due(&r->credit, false)) send_grant(r);
}

static void inlet_close(weir_inlet *inlet, uint32_t code, const char *reason) {
  weir_port_close(&of_inlet(inlet)->port, code, reason);
}

static void inlet_gauge(const weir_inlet *inlet, weir_inlet_gauge *gauge) {
  const remote_inlet *r = of_inlet((weir_inlet *)inlet);
  gauge->queued_items = weir_queue_items(&r->queue);
  gauge->queued_bytes = weir_queue_bytes(&r->queue);
  gauge->credit_items = r->credit.granted_items - r->credit.received_items;
  gauge->credit_bytes = r->credit.granted_bytes > r->credit.received_bytes
                            ? r->credit.granted_bytes - r->credit.received_bytes
                            : 0;
}

static void inlet_free(weir_inlet *inlet) {
  remote_inlet *r = of_inlet(inlet);
  weir_port_leave(&r->port);
  weir_frame_reader_free(&r->reader);
  weir_queue_free(&r->queue);
  weir_slab_reset(&r->slab);
  weir_free(inlet->consumer->alloc, r);
}

static const weir_inlet_type REMOTE_INLET = {inlet_peek, inlet_pop, inlet_close, inlet_gauge,
                                             inlet_free};

weir_status weir_inlet_subscribe(weir_consumer *consumer, weir_yamux *yamux,
                                 weir_subscribe *subscribe, const unsigned char *node,
                                 weir_inlet **inlet) {
  const weir_alloc *alloc = consumer->alloc;
  remote_inlet *r = weir_calloc(alloc, 1, sizeof *r);
  weir_frame_buffer frame;
  weir_yamux_stream *stream = NULL;
  weir_status status = r == NULL ? WEIR_E_NOMEM : WEIR_OK;
  if (status == WEIR_OK) {
    weir_credit_receiver_init(&r->credit, consumer->config.max_bytes, consumer->config.max_items);
    weir_credit_receiver_grant(&r->credit, &subscribe->credit_bytes, &subscribe->credit_items);
    status = weir_write_subscribe(&frame, subscribe);
  }
  if (status == WEIR_OK) status = weir_yamux_open(yamux, &stream);
  if (status == WEIR_OK) {
    const weir_slice bytes = {NULL, frame.bytes, frame.len};
    status = weir_yamux_write(stream, bytes);
    if (status != WEIR_OK) weir_yamux_reset(stream);
  }
  if (status != WEIR_OK) {
    weir_free(alloc, r);
    return status;
  }
  size_t longest = consumer->config.max_message + WEIR_DATA_HEADER - 4;
  if (longest < WEIR_MAX_CONTROL) longest = WEIR_MAX_CONTROL;
  weir_frame_reader_init(&r->reader, alloc, longest);
  weir_queue_init(&r->queue, alloc, consumer->config.max_items, SIZE_MAX);
  weir_slab_init(&r->slab, alloc, SLAB_BLOCK_MIN);
  memcpy(r->network, subscribe->network, WEIR_ID_SIZE);
  memcpy(r->stream, subscribe->stream, WEIR_ID_SIZE);
  weir_inlet_init(&r->inlet, &REMOTE_INLET, consumer);
  memcpy(r->inlet.node, node, WEIR_ID_SIZE);
  weir_port_bind(&r->port, &INLET_PORT, stream);
  *inlet = &r->inlet;
  return WEIR_OK;
}
