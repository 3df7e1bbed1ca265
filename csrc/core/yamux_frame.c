/*
 * What leaves a session. Frames are made when output() asks, not before: control frames first, then
 * data, a frame of each ready stream in turn, then FINs. Headers, and payloads so small that a run
 * of their own would cost more than a copy, are put one after the other into the stage; larger
 * payloads are shown where they lie. The stage and the runs are used from their beginning again
 * once all that was shown is sent, so what was shown never moves.
 */
#include <string.h>

#include "core/bytes.h"
#include "core/yamux_internal.h"

bool weir_yamux_output_init(weir_yamux *session) {
  session->stage = weir_malloc(session->alloc, STAGE_MIN);
  session->stage_size = STAGE_MIN;
  return session->stage != NULL;
}

void weir_yamux_output_free(weir_yamux *session) {
  for (uint32_t i = session->run_head; i < session->run_tail; i++) {
    weir_buf_unref(session->runs[i].buf);
  }
  session->run_head = session->run_tail = 0;
  session->pending = 0;
  weir_free(session->alloc, session->stage);
  session->stage = NULL;
  session->stage_size = session->stage_used = 0;
}

bool weir_yamux_has_output(const weir_yamux *session) {
  return session->go_away_owed || session->ping_count > 0 || session->owes_ping ||
         session->refusal_count > 0 || !weir_list_empty(&session->control) ||
         !weir_list_empty(&session->ready);
}

void weir_yamux_signal(weir_yamux *session) {
  if (session->signalled) return;
  session->signalled = true;
  weir_endpoint_wake(&session->endpoint);
}

/* --- the stage and the runs --------------------------------------------------------------------*/

/* Starts the stage anew if all that was shown is sent. */
static void stage_renew(weir_yamux *session) {
  if (session->pending > 0) return;
  session->run_head = session->run_tail = 0;
  session->stage_used = 0;
  if (!session->stage_short || session->stage_size >= STAGE_MAX) return;
  unsigned char *stage = weir_malloc(session->alloc, (size_t)session->stage_size * 4);
  if (stage == NULL) return; /* the small one does, too */
  weir_free(session->alloc, session->stage);
  session->stage = stage;
  session->stage_size *= 4;
  session->stage_short = false;
}

/* Whether another frame may be begun: a header and a run for the payload fit. */
static bool can_frame(weir_yamux *session) {
  if (session->stage_size - session->stage_used < WEIR_YAMUX_HEADER) {
    session->stage_short = true;
    return false;
  }
  return OUTPUT_RUNS - session->run_tail >= 2 && session->pending < OUTPUT_LIMIT;
}

/* Shows the next `len` bytes of the stage and returns them, to be filled in; NULL when there is no
 * room for them or no run to show them with. */
static unsigned char *stage_bytes(weir_yamux *session, size_t len) {
  if (len > session->stage_size - session->stage_used) {
    session->stage_short = true;
    return NULL;
  }
  unsigned char *bytes = session->stage + session->stage_used;
  weir_yamux_run *last = NULL;
  if (session->run_tail > session->run_head) last = &session->runs[session->run_tail - 1];
  if (last != NULL && last->buf == NULL && last->ptr + last->len == bytes) {
    last->len += len;
  } else {
    if (session->run_tail == OUTPUT_RUNS) return NULL;
    session->runs[session->run_tail++] = (weir_yamux_run){bytes, len, NULL};
  }
  session->stage_used += (uint32_t)len;
  session->pending += len;
  return bytes;
}

static void put_header(unsigned char *out, int type, unsigned flags, uint32_t id, uint32_t length) {
  out[0] = 0; /* version */
  out[1] = (unsigned char)type;
  weir_put_u16(out + 2, (uint16_t)flags);
  weir_put_u32(out + 4, id);
  weir_put_u32(out + 8, length);
}

/* Call only after can_frame(). */
static void put_frame(weir_yamux *session, int type, unsigned flags, uint32_t id, uint32_t length) {
  put_header(stage_bytes(session, WEIR_YAMUX_HEADER), type, flags, id, length);
}

/* --- control frames ----------------------------------------------------------------------------*/

static void frame_go_away(weir_yamux *session) {
  if (!session->go_away_owed || !can_frame(session)) return;
  session->go_away_owed = false;
  put_frame(session, FRAME_GO_AWAY, 0, 0, session->go_away_code);
}

static void frame_pings(weir_yamux *session, uint64_t now) {
  uint32_t done = 0;
  while (done < session->ping_count && can_frame(session)) {
    put_frame(session, FRAME_PING, FLAG_ACK, 0, session->pings_owed[done++]);
  }
  session->ping_count -= done;
  memmove(session->pings_owed, session->pings_owed + done,
          session->ping_count * sizeof(session->pings_owed[0]));
  if (session->owes_ping && can_frame(session)) {
    session->owes_ping = false;
    session->ping_time = now;
    put_frame(session, FRAME_PING, FLAG_SYN, 0, session->ping_value);
  }
}

static void frame_refusals(weir_yamux *session) {
  if (session->refusal_count == 0) return;
  uint32_t done = 0;
  while (done < session->refusal_count && can_frame(session)) {
    put_frame(session, FRAME_WINDOW, FLAG_RST, session->refusals[done++], 0);
  }
  session->refusal_count -= done;
  memmove(session->refusals, session->refusals + done,
          session->refusal_count * sizeof(session->refusals[0]));
}

/* The flags of an opening that the next frame of the stream must carry; it owes them no more. */
static unsigned take_opening(weir_yamux_stream *stream) {
  unsigned flags = (stream->owes_syn ? FLAG_SYN : 0) | (stream->owes_ack ? FLAG_ACK : 0);
  stream->owes_syn = stream->owes_ack = false;
  return flags;
}

/* FIN in the same way, once what is queued has left. It never rides on data: there are peers that
 * act on the flags of a frame before its data, which they then lose. */
static unsigned take_fin(weir_yamux_stream *stream) {
  if (!stream->owes_fin || stream->queued > 0) return 0;
  stream->owes_fin = false;
  stream->fin_sent = true;
  return FLAG_FIN;
}

/* A frame of the stream is out: it may be over, or need its places in the lists no more. */
static void after_frame(weir_yamux_stream *stream) {
  weir_yamux_schedule(stream);
  weir_yamux_schedule_control(stream);
  if (!stream->over) {
    weir_yamux_stream_settle(stream);
  } else if (stream->lingering && !weir_list_linked(&stream->ready) &&
             !weir_list_linked(&stream->control)) {
    weir_yamux_stream_drop(stream);
  }
}

static void frame_control(weir_yamux_stream *stream) {
  weir_yamux *session = stream->session;
  if (stream->owes_rst) {
    stream->owes_rst = false;
    put_frame(session, FRAME_WINDOW, FLAG_RST, stream->id, 0);
  } else if (!stream->owes_window && weir_list_linked(&stream->ready) && stream->queued > 0) {
    /* A SYN or ACK only: the data frame that follows will carry it. */
    weir_list_remove(&stream->control);
    return;
  } else {
    uint32_t grant = stream->grant;
    stream->recv_window += grant;
    stream->grant = 0;
    stream->owes_window = false;
    unsigned flags = take_opening(stream) | take_fin(stream);
    put_frame(session, FRAME_WINDOW, flags, stream->id, grant);
  }
  after_frame(stream);
}

static void frame_controls(weir_yamux *session) {
  while (!weir_list_empty(&session->control) && can_frame(session)) {
    frame_control(STREAM_OF(session->control.next, control));
  }
}

/* --- data frames -------------------------------------------------------------------------------*/

/* Shows up to `max` bytes of the first slice in the queue; 0 when there is no place to. */
static size_t frame_slice(weir_yamux_stream *stream, size_t max) {
  weir_yamux *session = stream->session;
  const weir_slice *slice = &stream->slices[stream->slice_head];
  size_t len = slice->len < max ? slice->len : max;
  unsigned char *copy = len < COPY_MAX ? stage_bytes(session, len) : NULL;
  if (copy != NULL) {
    memcpy(copy, slice->ptr, len);
  } else if (session->run_tail < OUTPUT_RUNS) {
    session->runs[session->run_tail++] =
        (weir_yamux_run){slice->ptr, len, weir_buf_ref(slice->buf)};
    session->pending += len;
  } else {
    return 0;
  }
  weir_yamux_queue_advance(stream, len);
  return len;
}

/* Call only after can_frame() and with something to send. */
static void frame_data(weir_yamux_stream *stream) {
  weir_yamux *session = stream->session;
  size_t max = session->config.max_frame;
  if (max > stream->send_window) max = stream->send_window;
  unsigned char *header = stage_bytes(session, WEIR_YAMUX_HEADER);
  uint32_t total = 0;
  while (total < max && stream->queued > 0) {
    size_t len = frame_slice(stream, max - total);
    if (len == 0) break;
    total += (uint32_t)len;
  }
  stream->send_window -= total;
  put_header(header, FRAME_DATA, take_opening(stream), stream->id, total);
  after_frame(stream);
}

/* Lets the application fill up a frame if it asked to. */
static void ask_for_data(weir_yamux_stream *stream) {
  weir_yamux *session = stream->session;
  if (!stream->wants_write || weir_yamux_room(stream) == 0) return;
  stream->wants_write = false;
  if (session->handler->on_writable != NULL) session->handler->on_writable(stream, stream->user);
}

static void frame_datas(weir_yamux *session) {
  uint32_t fruitless = 0; /* streams in a row that had nothing although they asked to write */
  while (!weir_list_empty(&session->ready) && fruitless < session->ready_count &&
         can_frame(session)) {
    weir_yamux_stream *stream = STREAM_OF(session->ready.next, ready);
    weir_list_remove(&stream->ready);
    weir_list_append(&session->ready, &stream->ready);
    ask_for_data(stream);
    if (!weir_list_linked(&stream->ready)) continue;
    if (stream->queued > 0) {
      fruitless = 0;
      frame_data(stream);
    } else {
      weir_yamux_schedule(stream);
      if (weir_list_linked(&stream->ready)) fruitless++;
    }
  }
}

/* --- output() and sent() -----------------------------------------------------------------------*/

static void build(weir_yamux *session, uint64_t now) {
  stage_renew(session);
  bool last_words = session->state == SESSION_CLOSING; /* go-away ends a session that closes */
  if (!last_words) frame_go_away(session);
  frame_pings(session, now);
  frame_refusals(session);
  frame_controls(session);
  frame_datas(session);
  frame_controls(session); /* FIN behind the data */
  if (last_words && weir_list_empty(&session->control) && weir_list_empty(&session->ready)) {
    frame_go_away(session);
  }
}

size_t weir_yamux_output(weir_yamux *session, weir_iov *iov, size_t max, uint64_t now) {
  session->signalled = true; /* who is asking needs no waking */
  weir_yamux_enter(session);
  build(session, now);
  weir_yamux_leave(session);
  size_t count = session->run_tail - session->run_head;
  session->signalled = count > 0;
  if (count > max) count = max;
  for (size_t i = 0; i < count; i++) {
    const weir_yamux_run *run = &session->runs[session->run_head + i];
    iov[i] = (weir_iov){run->ptr, run->len};
  }
  return count;
}

void weir_yamux_sent(weir_yamux *session, size_t len) {
  while (len > 0 && session->run_head < session->run_tail) {
    weir_yamux_run *run = &session->runs[session->run_head];
    if (len < run->len) {
      run->ptr += len;
      run->len -= len;
      session->pending -= len;
      return;
    }
    len -= run->len;
    session->pending -= run->len;
    weir_buf_unref(run->buf);
    session->run_head++;
  }
  if (session->pending == 0) session->signalled = weir_yamux_has_output(session);
}
