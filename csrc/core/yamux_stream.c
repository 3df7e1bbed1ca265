#include <stddef.h>
#include <string.h>

#include "core/yamux_internal.h"

#define TABLE_MIN 16
#define SLICES_MIN 8 /* of a ring outside the structure */

/* --- the table ---------------------------------------------------------------------------------*/

static uint32_t table_slot(const weir_yamux *session, uint32_t id) {
  return (uint32_t)((session->table_factor * id) >> session->table_shift);
}

static void table_put(weir_yamux *session, weir_yamux_stream *stream) {
  uint32_t mask = session->table_size - 1;
  uint32_t slot = table_slot(session, stream->id);
  while (session->table[slot] != NULL)
    slot = (slot + 1) & mask;
  session->table[slot] = stream;
}

static bool table_rehash(weir_yamux *session, uint32_t size) {
  weir_yamux_stream **old = session->table;
  uint32_t old_size = session->table_size;
  weir_yamux_stream **table = weir_calloc(session->alloc, size, sizeof(*table));
  if (table == NULL) return false;
  session->table = table;
  session->table_size = size;
  session->table_shift = 64;
  for (uint32_t n = size; n > 1; n >>= 1)
    session->table_shift--;
  for (uint32_t i = 0; i < old_size; i++) {
    if (old[i] != NULL) table_put(session, old[i]);
  }
  weir_free(session->alloc, old);
  return true;
}

static bool table_add(weir_yamux *session, weir_yamux_stream *stream) {
  if (session->table_used >= session->table_size / 2) {
    uint32_t size = session->table_size == 0 ? TABLE_MIN : session->table_size * 2;
    if (!table_rehash(session, size)) return false;
  }
  table_put(session, stream);
  session->table_used++;
  return true;
}

static void table_remove(weir_yamux *session, weir_yamux_stream *stream) {
  uint32_t mask = session->table_size - 1;
  uint32_t hole = table_slot(session, stream->id);
  while (session->table[hole] != stream)
    hole = (hole + 1) & mask;
  /* Close the gap: what stands behind it moves up unless that is before its own first slot. */
  for (uint32_t next = (hole + 1) & mask; session->table[next] != NULL; next = (next + 1) & mask) {
    uint32_t home = table_slot(session, session->table[next]->id);
    if (((next - home) & mask) < ((next - hole) & mask)) continue;
    session->table[hole] = session->table[next];
    hole = next;
  }
  session->table[hole] = NULL;
  session->table_used--;
  if (session->table_size > TABLE_MIN && session->table_used < session->table_size / 8) {
    table_rehash(session, session->table_size / 2); /* without memory it stays as it is */
  }
}

void weir_yamux_table_free(weir_yamux *session) {
  weir_free(session->alloc, session->table);
  session->table = NULL;
  session->table_size = 0;
}

weir_yamux_stream *weir_yamux_stream_find(weir_yamux *session, uint32_t id) {
  if (session->recent != NULL && session->recent->id == id) return session->recent;
  if (session->table_used == 0) return NULL;
  uint32_t mask = session->table_size - 1;
  for (uint32_t slot = table_slot(session, id);; slot = (slot + 1) & mask) {
    weir_yamux_stream *stream = session->table[slot];
    if (stream == NULL) return NULL;
    if (stream->id == id) return session->recent = stream;
  }
}

/* --- the send queue ----------------------------------------------------------------------------*/

static weir_slice *queue_at(const weir_yamux_stream *stream, uint32_t index) {
  return &stream->slices[(stream->slice_head + index) & (stream->slice_cap - 1)];
}

static bool queue_grow(weir_yamux_stream *stream) {
  uint32_t cap = stream->slice_cap < SLICES_MIN ? SLICES_MIN : stream->slice_cap * 2;
  weir_slice *slices = weir_resize_array(stream->session->alloc, NULL, cap, sizeof(*slices));
  if (slices == NULL) return false;
  for (uint32_t i = 0; i < stream->slice_count; i++)
    slices[i] = *queue_at(stream, i);
  if (stream->slices != &stream->inline_slice) {
    weir_free(stream->session->alloc, stream->slices);
  }
  stream->slices = slices;
  stream->slice_cap = cap;
  stream->slice_head = 0;
  return true;
}

static void queue_shrink(weir_yamux_stream *stream) {
  if (stream->slices != &stream->inline_slice) {
    weir_free(stream->session->alloc, stream->slices);
  }
  stream->slices = &stream->inline_slice;
  stream->slice_cap = 1;
  stream->slice_head = 0;
}

/* Takes the reference in `data` unless it fails. */
static bool queue_push(weir_yamux_stream *stream, weir_slice data) {
  weir_slice *last = stream->slice_count > 0 ? queue_at(stream, stream->slice_count - 1) : NULL;
  if (last != NULL && weir_slice_adjoins(last, &data)) {
    last->len += data.len;
    weir_buf_unref(data.buf);
  } else {
    if (stream->slice_count == stream->slice_cap && !queue_grow(stream)) return false;
    *queue_at(stream, stream->slice_count++) = data;
  }
  stream->queued += data.len;
  return true;
}

void weir_yamux_queue_advance(weir_yamux_stream *stream, size_t len) {
  weir_slice *slice = queue_at(stream, 0);
  stream->queued -= len;
  if (len < slice->len) {
    slice->ptr += len;
    slice->len -= len;
    return;
  }
  weir_slice_unref(slice);
  stream->slice_head = (stream->slice_head + 1) & (stream->slice_cap - 1);
  if (--stream->slice_count == 0) queue_shrink(stream);
}

void weir_yamux_queue_clear(weir_yamux_stream *stream) {
  for (uint32_t i = 0; i < stream->slice_count; i++)
    weir_slice_unref(queue_at(stream, i));
  stream->slice_count = 0;
  stream->queued = 0;
  queue_shrink(stream);
}

/* --- the lists ---------------------------------------------------------------------------------*/

void weir_yamux_schedule(weir_yamux_stream *stream) {
  weir_yamux *session = stream->session;
  bool ready = stream->send_window > 0 && (stream->queued > 0 || stream->wants_write);
  if (ready == weir_list_linked(&stream->ready)) return;
  if (ready) {
    weir_list_append(&session->ready, &stream->ready);
    session->ready_count++;
  } else {
    weir_list_remove(&stream->ready);
    session->ready_count--;
  }
}

void weir_yamux_schedule_control(weir_yamux_stream *stream) {
  bool owes = stream->owes_syn || stream->owes_ack || stream->owes_rst || stream->owes_window ||
              (stream->owes_fin && stream->queued == 0);
  if (owes == weir_list_linked(&stream->control)) return;
  if (owes) {
    weir_list_append(&stream->session->control, &stream->control);
  } else {
    weir_list_remove(&stream->control);
  }
}

static void unschedule(weir_yamux_stream *stream) {
  if (weir_list_linked(&stream->ready)) stream->session->ready_count--;
  weir_list_remove(&stream->ready);
  weir_list_remove(&stream->control);
}

/* --- life --------------------------------------------------------------------------------------*/

weir_yamux_stream *weir_yamux_stream_new(weir_yamux *session, uint32_t id) {
  weir_yamux_stream *stream = weir_calloc(session->alloc, 1, sizeof(*stream));
  if (stream == NULL) return NULL;
  stream->session = session;
  stream->id = id;
  stream->slices = &stream->inline_slice;
  stream->slice_cap = 1;
  stream->send_window = WEIR_YAMUX_WINDOW;
  stream->recv_window = WEIR_YAMUX_WINDOW;
  stream->grant = session->config.receive_window - WEIR_YAMUX_WINDOW;
  stream->owes_window = stream->grant > 0;
  weir_list_init(&stream->ready);
  weir_list_init(&stream->control);
  if (!table_add(session, stream)) {
    weir_free(session->alloc, stream);
    return NULL;
  }
  weir_list_append(&session->all, &stream->all);
  return stream;
}

void weir_yamux_stream_free(weir_yamux_stream *stream) {
  weir_yamux_queue_clear(stream);
  weir_free(stream->session->alloc, stream);
}

/* Takes the stream out of all that counts open ones. */
static void detach(weir_yamux_stream *stream) {
  weir_yamux *session = stream->session;
  stream->over = true;
  stream->wants_write = false;
  stream->owes_window = false;
  table_remove(session, stream);
  weir_list_remove(&stream->all);
  if (session->recent == stream) session->recent = NULL;
  if (session->body_stream == stream) session->body_stream = NULL;
  if (stream->unacked) session->unacked--;
  if (stream->unaccepted) session->unaccepted--;
  session->unconsumed -= stream->unconsumed;
}

void weir_yamux_stream_drop(weir_yamux_stream *stream) {
  weir_yamux *session = stream->session;
  weir_yamux_enter(session);
  unschedule(stream);
  weir_yamux_queue_clear(stream);
  if (stream->lingering) session->lingering--;
  stream->lingering = false;
  weir_list_append(&session->dead, &stream->all);
  weir_yamux_leave(session);
}

void weir_yamux_stream_discard(weir_yamux_stream *stream) {
  detach(stream);
  weir_yamux_stream_drop(stream);
}

void weir_yamux_stream_end(weir_yamux_stream *stream, weir_status reason, bool linger) {
  weir_yamux *session = stream->session;
  if (stream->over) return;
  weir_yamux_enter(session);
  detach(stream);
  if (linger) {
    stream->lingering = true;
    session->lingering++;
    weir_yamux_schedule(stream);
    weir_yamux_schedule_control(stream);
    linger = weir_list_linked(&stream->ready) || weir_list_linked(&stream->control);
  } else {
    unschedule(stream);
    weir_yamux_queue_clear(stream);
  }
  if (session->handler->on_close != NULL) session->handler->on_close(stream, reason, stream->user);
  /* What lingers may have been dropped by the callback, which is in the dead list then. */
  if (!linger && !weir_list_linked(&stream->all)) weir_yamux_stream_drop(stream);
  weir_yamux_leave(session);
}

void weir_yamux_stream_settle(weir_yamux_stream *stream) {
  if (stream->fin_sent && stream->fin_received) weir_yamux_stream_end(stream, WEIR_OK, false);
}

/* --- what the application calls ----------------------------------------------------------------*/

void weir_yamux_set_user(weir_yamux_stream *stream, void *user) { stream->user = user; }

void *weir_yamux_stream_user(const weir_yamux_stream *stream) { return stream->user; }

weir_yamux *weir_yamux_session(const weir_yamux_stream *stream) { return stream->session; }

uint32_t weir_yamux_id(const weir_yamux_stream *stream) { return stream->id; }

size_t weir_yamux_queued(const weir_yamux_stream *stream) { return stream->queued; }

size_t weir_yamux_room(const weir_yamux_stream *stream) {
  if (stream->over || stream->owes_fin || stream->fin_sent) return 0;
  uint32_t max_frame = stream->session->config.max_frame;
  size_t room = stream->send_window < max_frame ? stream->send_window : max_frame;
  return room > stream->queued ? room - stream->queued : 0;
}

void weir_yamux_accept(weir_yamux_stream *stream) {
  if (stream->over || !stream->unaccepted) return;
  stream->unaccepted = false;
  stream->session->unaccepted--;
  stream->owes_ack = true;
  weir_yamux_schedule_control(stream);
  weir_yamux_signal(stream->session);
}

weir_status weir_yamux_write(weir_yamux_stream *stream, weir_slice data) {
  weir_yamux *session = stream->session;
  if (stream->over || stream->owes_fin || stream->fin_sent) return WEIR_E_CLOSED;
  if (stream->queued >= session->config.send_buffer) return WEIR_E_AGAIN;
  if (stream->slice_count >= WEIR_YAMUX_MAX_SLICES) return WEIR_E_AGAIN;
  if (data.len == 0) {
    weir_slice_unref(&data);
    return WEIR_OK;
  }
  if (data.buf == NULL) {
    weir_slice copy;
    unsigned char *bytes;
    weir_status status = weir_slab_carve(&session->slab, data.len, &copy, &bytes);
    if (status != WEIR_OK) return status;
    memcpy(bytes, data.ptr, data.len);
    if (!queue_push(stream, copy)) {
      weir_slice_unref(&copy);
      return WEIR_E_NOMEM;
    }
  } else if (!queue_push(stream, data)) {
    return WEIR_E_NOMEM;
  }
  if (stream->unaccepted) weir_yamux_accept(stream);
  weir_yamux_schedule(stream);
  weir_yamux_signal(session);
  return WEIR_OK;
}

void weir_yamux_want_write(weir_yamux_stream *stream) {
  if (stream->over || stream->owes_fin || stream->fin_sent) return;
  stream->wants_write = true;
  weir_yamux_schedule(stream);
  if (weir_list_linked(&stream->ready)) weir_yamux_signal(stream->session);
}

void weir_yamux_consume(weir_yamux_stream *stream, size_t len) {
  if (stream->over) return;
  if (len > stream->unconsumed) len = stream->unconsumed;
  stream->unconsumed -= (uint32_t)len;
  stream->session->unconsumed -= len;
  stream->grant += (uint32_t)len;
  if (stream->fin_received || stream->owes_window ||
      stream->grant < stream->session->config.receive_window / 2) {
    return;
  }
  stream->owes_window = true;
  weir_yamux_schedule_control(stream);
  weir_yamux_signal(stream->session);
}

void weir_yamux_shutdown(weir_yamux_stream *stream) {
  if (stream->over || stream->owes_fin || stream->fin_sent) return;
  if (stream->unaccepted) weir_yamux_accept(stream);
  stream->owes_fin = true;
  stream->wants_write = false;
  weir_yamux_schedule(stream);
  weir_yamux_schedule_control(stream);
  weir_yamux_signal(stream->session);
}

void weir_yamux_reset(weir_yamux_stream *stream) { weir_yamux_stream_reset(stream, WEIR_E_RESET); }

void weir_yamux_stream_reset(weir_yamux_stream *stream, weir_status reason) {
  if (stream->over) return;
  weir_yamux *session = stream->session;
  bool on_wire = !stream->owes_syn; /* else the peer never heard of it */
  weir_yamux_queue_clear(stream);
  stream->owes_syn = stream->owes_ack = stream->owes_fin = false;
  stream->owes_rst = on_wire;
  weir_yamux_stream_end(stream, reason, on_wire);
  weir_yamux_signal(session);
}
