#include "core/durable/reader.h"

#include <stdio.h>
#include <string.h>

#include "core/durable/base64.h"
#include "core/durable/control.h"
#include "core/durable/json.h"
#include "core/durable/sse.h"
#include "core/time.h"

#define DEFAULT_MAX_EVENT ((size_t)64 << 20)
#define COUNT_MAX ((UINT64_C(1) << 53) - 1)
#define POSITION_MAX (WEIR_DURABLE_OFFSET_MAX + 24u) /* with a comma, 16 digits and a NUL */
#define IGNORED_MAX ((uint64_t)64 << 10)             /* of a body that nobody wants */
#define SHORT_CONNECTION WEIR_SECOND                 /* of server-sent events */
#define SHORT_CONNECTIONS 3u                         /* in a row, and they are given up */
#define QUICK_ANSWER (100 * WEIR_MILLISECOND)        /* to a long-poll */
#define IDLE_MAX (5 * WEIR_SECOND)                   /* longest wait after quick answers */
#define BEHIND_MAX 10u                               /* answers in a row that end before us */
#define FIRST_RING 8u

typedef enum phase {
  PHASE_IDLE,    /* no request */
  PHASE_WAITING, /* for the head of an answer */
  PHASE_BODY,
  PHASE_EVENTS,
  PHASE_EMPTY,    /* the head says all */
  PHASE_REFUSED,  /* an answer that is none of ours */
  PHASE_ABANDONED /* another mode is tried instead */
} phase;

/* A place in the stream: an offset, and how far behind it. */
typedef struct place {
  weir_buf *offset; /* with a NUL */
  uint64_t count;
} place;

typedef struct entry {
  weir_slice data;
  uint64_t items;
  place from, to;
  weir_buf *cursor; /* with a NUL, or NULL */
  bool up_to_date, closed;
} entry;

struct weir_durable_reader {
  const weir_alloc *alloc;
  weir_durable_reader_config config;
  weir_retry_policy idle_policy;
  weir_retry retry, idle;
  weir_json json;
  weir_sse sse;

  entry *ring; /* pieces that were not taken */
  size_t ring_size, ring_head, ring_count;

  place at;      /* behind all pieces */
  uint64_t skip; /* what the answer brings first and is behind us already */
  weir_buf *cursor;
  weir_buf *text; /* SSE text before its control event, or NULL */
  size_t text_len;

  phase phase;
  weir_durable_live mode;
  bool live;  /* catching up is over */
  bool over;  /* no more requests */
  bool typed; /* the content type is known: */
  bool json_stream, text_stream;
  bool told_up_to_date;
  bool progress; /* since the request was made */
  bool saw_data; /* in this answer, skipped or not */
  bool behind;   /* this answer says that the stream ends before us */
  uint32_t short_connections, behinds;
  uint64_t not_before, started;
  uint64_t ignored; /* bytes of a body that nobody wants */
  weir_durable_response response;

  uint64_t requests, retries, bytes;
  const char *fallback, *code;
  bool failed;
  int status;

  place taken; /* behind the last piece that was taken */
  bool taken_up_to_date, taken_closed;
  weir_buf *taken_cursor;
  char offset[POSITION_MAX], next_offset[POSITION_MAX], position[POSITION_MAX];
};

/* --- small parts ------------------------------------------------------------------------------ */

static weir_buf *new_text(const weir_alloc *alloc, const char *bytes, size_t len) {
  weir_buf *buf = weir_buf_new(alloc, len + 1);
  if (buf == NULL) return NULL;
  memcpy(buf->data, bytes, len);
  buf->data[len] = '\0';
  return buf;
}

static const char *text_of(const weir_buf *buf) {
  return buf == NULL ? NULL : (const char *)buf->data;
}

static bool is_text(const weir_buf *buf, const char *bytes, size_t len) {
  return buf != NULL && buf->size == len + 1 && memcmp(buf->data, bytes, len) == 0;
}

static void set_place(place *out, weir_buf *offset, uint64_t count) {
  weir_buf *ref = weir_buf_ref(offset);
  weir_buf_unref(out->offset);
  *out = (place){ref, count};
}

static void write_place(char *out, const place *where) {
  if (where->count == 0) {
    snprintf(out, POSITION_MAX, "%s", text_of(where->offset));
  } else {
    snprintf(out, POSITION_MAX, "%s,%llu", text_of(where->offset),
             (unsigned long long)where->count);
  }
}

/* An offset that can be in a position and a request. */
static bool is_offset(const char *bytes, size_t len) {
  if (len == 0 || len > WEIR_DURABLE_OFFSET_MAX) return false;
  for (size_t i = 0; i < len; i++) {
    const unsigned char c = (unsigned char)bytes[i];
    if (c <= ' ' || c == 0x7f || c == ',') return false;
  }
  return true;
}

/* "OFFSET" or "OFFSET,N" */
static bool parse_position(const char *text, size_t *offset_len, uint64_t *count) {
  const char *comma = strchr(text, ',');
  *offset_len = comma != NULL ? (size_t)(comma - text) : strlen(text);
  *count = 0;
  if (!is_offset(text, *offset_len)) return false;
  if (comma == NULL) return true;
  const char *digit = comma + 1;
  if (*digit < '1' || *digit > '9') return false;
  for (; *digit >= '0' && *digit <= '9'; digit++) {
    *count = *count * 10 + (uint64_t)(*digit - '0');
    if (*count > COUNT_MAX) return false;
  }
  return *digit == '\0';
}

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c; }

/* Whether the content type, without parameters, is `type`, or begins with it if that ends in "/".
 */
static bool is_type(const weir_durable_text *text, const char *type) {
  size_t i = 0;
  for (; type[i] != '\0'; i++) {
    if (i == text->len || lower(text->bytes[i]) != type[i]) return false;
  }
  return type[i - 1] == '/' || i == text->len || text->bytes[i] == ';' || text->bytes[i] == ' ' ||
         text->bytes[i] == '\t';
}

/* --- the end, failures, waiting --------------------------------------------------------------- */

static void fail(weir_durable_reader *r, const char *code, int status) {
  if (r->over) return;
  r->over = r->failed = true;
  r->code = code != NULL ? code : "parse_error";
  r->status = status;
}

/* What went wrong in a body. */
static weir_status bad_body(weir_durable_reader *r, weir_status status) {
  const char *code = status == WEIR_E_LIMIT   ? "too_large"
                     : status == WEIR_E_NOMEM ? "nomem"
                                              : "parse_error";
  fail(r, code, 0);
  return status;
}

static void back_off(weir_durable_reader *r, weir_durable_transport transport, uint64_t now,
                     uint64_t random) {
  const bool answered = transport == WEIR_DURABLE_ANSWERED && r->response.status != 0;
  const uint64_t retry_after = answered ? r->response.retry_after : UINT64_MAX;
  const bool hopeless = r->behind && ++r->behinds >= BEHIND_MAX;
  if (r->progress) weir_retry_reset(&r->retry);
  if (!hopeless &&
      weir_retry_next(&r->retry, now, random, retry_after, &r->not_before) == WEIR_OK) {
    r->retries++;
    return;
  }
  const char *code =
      r->behind ? "invalid_offset" : weir_durable_code(WEIR_DURABLE_READ, transport, &r->response);
  fail(r, code != NULL ? code : "network", answered ? r->response.status : 0);
}

/* After an answer that was right. What came at once and brought nothing makes us slower. */
static void go_on(weir_durable_reader *r, uint64_t now, uint64_t random) {
  weir_retry_reset(&r->retry);
  r->not_before = now;
  if (!r->live || r->progress || now - r->started >= QUICK_ANSWER) {
    weir_retry_reset(&r->idle);
  } else {
    (void)weir_retry_next(&r->idle, now, random, UINT64_MAX, &r->not_before); /* has no bound */
  }
}

static void fall_back(weir_durable_reader *r, const char *reason) {
  r->mode = WEIR_DURABLE_LIVE_LONG_POLL;
  r->fallback = reason;
  r->phase = PHASE_ABANDONED;
}

static void go_live(weir_durable_reader *r) {
  r->live = true;
  r->mode = r->config.live;
  if (r->mode == WEIR_DURABLE_LIVE_AUTO) {
    r->mode = r->text_stream ? WEIR_DURABLE_LIVE_LONG_POLL : WEIR_DURABLE_LIVE_SSE;
  }
  if (r->mode == WEIR_DURABLE_LIVE_NONE) r->over = true;
}

/* --- pieces ----------------------------------------------------------------------------------- */

static entry *entry_at(weir_durable_reader *r, size_t index) {
  return &r->ring[(r->ring_head + index) & (r->ring_size - 1)];
}

static bool grow_ring(weir_durable_reader *r) {
  const size_t size = r->ring_size == 0 ? FIRST_RING : 2 * r->ring_size;
  entry *ring = weir_calloc(r->alloc, size, sizeof *ring);
  if (ring == NULL) return false;
  for (size_t i = 0; i < r->ring_count; i++)
    ring[i] = *entry_at(r, i);
  weir_free(r->alloc, r->ring);
  r->ring = ring;
  r->ring_size = size;
  r->ring_head = 0;
  return true;
}

static void drop_entry(entry *e) {
  weir_slice_unref(&e->data);
  weir_buf_unref(e->from.offset);
  weir_buf_unref(e->to.offset);
  weir_buf_unref(e->cursor);
}

/* The last piece if it ends where we are, inside what an answer brings, so that the end of the
 * answer can still be told with it. */
static entry *open_entry(weir_durable_reader *r) {
  if (r->ring_count == 0) return NULL;
  entry *last = entry_at(r, r->ring_count - 1);
  const bool open = last->to.offset == r->at.offset && last->to.count == r->at.count;
  return open && last->to.count > 0 ? last : NULL;
}

/* A piece from where we are to `count` units further. Takes the data's reference, always. */
static weir_status push(weir_durable_reader *r, weir_slice data, uint64_t count, uint64_t items) {
  if (r->ring_count == r->ring_size && !grow_ring(r)) {
    weir_slice_unref(&data);
    return bad_body(r, WEIR_E_NOMEM);
  }
  entry *e = entry_at(r, r->ring_count++);
  *e = (entry){.data = data, .items = items};
  set_place(&e->from, r->at.offset, r->at.count);
  r->at.count += count;
  set_place(&e->to, r->at.offset, r->at.count);
  e->cursor = weir_buf_ref(r->cursor);
  r->progress = r->progress || count > 0;
  return WEIR_OK;
}

/* Bytes from `buf`, whose reference is taken, without what is behind us already. */
static weir_status push_bytes(weir_durable_reader *r, weir_buf *buf, size_t len) {
  const size_t drop = r->skip < len ? (size_t)r->skip : len;
  r->saw_data = r->saw_data || len > 0;
  r->skip -= drop;
  if (drop == len) {
    weir_buf_unref(buf);
    return WEIR_OK;
  }
  return push(r, (weir_slice){buf, buf->data + drop, len - drop}, len - drop, 0);
}

/* The array of items that is being put together. */
typedef struct run {
  weir_buf *buf;
  size_t len;
  uint64_t items;
} run;

static bool add_item(weir_durable_reader *r, run *array, const weir_slice *item, size_t rest) {
  if (array->buf == NULL) {
    /* All that follows is in the rest of the input, with a comma between any two. */
    array->buf = weir_buf_new(r->alloc, item->len + rest + 2);
    if (array->buf == NULL) return false;
  }
  unsigned char *to = array->buf->data + array->len;
  *to++ = array->items == 0 ? '[' : ',';
  memcpy(to, item->ptr, item->len);
  array->len += item->len + 1;
  array->items++;
  return true;
}

static weir_status push_run(weir_durable_reader *r, run *array) {
  if (array->items == 0) return WEIR_OK;
  array->buf->data[array->len++] = ']';
  if (array->len < array->buf->size / 2) {
    weir_buf *smaller = weir_buf_resize(array->buf, array->len);
    if (smaller != NULL) array->buf = smaller;
  }
  const weir_slice data = {array->buf, array->buf->data, array->len};
  return push(r, data, array->items, array->items);
}

/* The items that end in this part of an array, as one piece. */
static weir_status push_items(weir_durable_reader *r, const unsigned char *data, size_t len) {
  run array = {NULL, 0, 0};
  weir_slice item;
  weir_status status;
  while ((status = weir_json_next(&r->json, &data, &len, &item)) == WEIR_OK) {
    r->saw_data = true;
    if (r->skip > 0) {
      r->skip--;
    } else if (!add_item(r, &array, &item, len)) {
      status = WEIR_E_NOMEM;
    }
    weir_slice_unref(&item);
    if (status != WEIR_OK) break;
  }
  const weir_status pushed = push_run(r, &array);
  if (pushed != WEIR_OK) return pushed;
  return status == WEIR_E_AGAIN ? WEIR_OK : bad_body(r, status);
}

/* --- where an answer or control event leaves us ----------------------------------------------- */

typedef struct mark {
  const weir_durable_text *next_offset, *cursor;
  bool up_to_date, closed;
} mark;

static weir_status set_cursor(weir_durable_reader *r, const weir_durable_text *cursor) {
  if (cursor->len == 0 || is_text(r->cursor, cursor->bytes, cursor->len)) return WEIR_OK;
  if (memchr(cursor->bytes, 0, cursor->len) != NULL) return bad_body(r, WEIR_E_PROTOCOL);
  weir_buf *text = new_text(r->alloc, cursor->bytes, cursor->len);
  if (text == NULL) return bad_body(r, WEIR_E_NOMEM);
  weir_buf_unref(r->cursor);
  r->cursor = text;
  return WEIR_OK;
}

static bool is_next_offset(const weir_durable_text *text) {
  const bool now = text->len == 3 && memcmp(text->bytes, "now", 3) == 0; /* no place at all */
  return is_offset(text->bytes, text->len) && !now;
}

static bool same_offset(const weir_durable_reader *r, const weir_durable_text *text) {
  return is_text(r->at.offset, text->bytes, text->len);
}

/* Offsets sort by their bytes and only rise, so an answer without data cannot lead back. A server
 * that reads what it has not committed yet gives such answers for a moment; one that has lost the
 * end of the stream goes on giving them. */
static bool leads_back(const weir_durable_reader *r, const weir_durable_text *next) {
  const char *at = text_of(r->at.offset);
  const size_t len = r->at.offset->size - 1;
  if (r->saw_data || strcmp(at, "-1") == 0 || strcmp(at, "now") == 0) return false;
  const int order = memcmp(next->bytes, at, next->len < len ? next->len : len);
  return order < 0 || (order == 0 && next->len < len);
}

/* Moves to the mark's offset, and the last piece with us if it ends here. */
static weir_status move(weir_durable_reader *r, const mark *m, entry *last) {
  weir_buf *offset = same_offset(r, m->next_offset)
                         ? weir_buf_ref(r->at.offset)
                         : new_text(r->alloc, m->next_offset->bytes, m->next_offset->len);
  if (offset == NULL) return bad_body(r, WEIR_E_NOMEM);
  if (offset != r->at.offset) r->progress = true;
  set_place(&r->at, offset, r->skip);
  weir_buf_unref(offset);
  if (last != NULL) set_place(&last->to, r->at.offset, r->at.count);
  return WEIR_OK;
}

/* All up to the mark has come. Tells it with the last piece or with an empty one. CLOSED: the
 * answer is not to be believed. */
static weir_status settle(weir_durable_reader *r, const mark *m) {
  r->behind = leads_back(r, m->next_offset);
  if (r->behind) return WEIR_E_CLOSED;
  r->behinds = 0;
  if (r->saw_data && same_offset(r, m->next_offset)) return bad_body(r, WEIR_E_PROTOCOL);
  if (m->up_to_date && r->skip > 0) {
    fail(r, "invalid_offset", 0); /* the stream is shorter than what we had of it */
    return WEIR_E_PROTOCOL;
  }
  weir_status status = set_cursor(r, m->cursor);
  if (status != WEIR_OK) return status;
  entry *last = open_entry(r);
  const bool moved = !same_offset(r, m->next_offset);
  const place from = {weir_buf_ref(r->at.offset), r->at.count};
  status = move(r, m, last);
  if (status == WEIR_OK && last == NULL &&
      (moved || m->closed || m->up_to_date != r->told_up_to_date)) {
    status = push(r, (weir_slice){NULL, NULL, 0}, 0, 0);
    if (status == WEIR_OK) {
      last = entry_at(r, r->ring_count - 1);
      set_place(&last->from, from.offset, from.count);
    }
  }
  weir_buf_unref(from.offset);
  if (status != WEIR_OK) return status;
  if (last != NULL) {
    last->up_to_date = r->told_up_to_date = m->up_to_date;
    last->closed = m->closed;
    weir_buf *cursor = weir_buf_ref(r->cursor);
    weir_buf_unref(last->cursor);
    last->cursor = cursor;
  }
  r->saw_data = false;
  if (m->closed) r->over = true;
  return WEIR_OK;
}

/* --- server-sent events ----------------------------------------------------------------------- */

/* Text waits for its control event. */
static weir_status keep_text(weir_durable_reader *r, const weir_slice *data) {
  if (data->len == 0) return WEIR_OK;
  if (data->len > r->config.max_event - r->text_len) return WEIR_E_LIMIT;
  const size_t need = r->text_len + data->len, size = r->text == NULL ? 0 : r->text->size;
  if (r->text == NULL || need > size) {
    const size_t grown = need < SIZE_MAX / 2 && r->text_len > 0 ? 2 * need : need;
    weir_buf *buf =
        r->text == NULL ? weir_buf_new(r->alloc, grown) : weir_buf_resize(r->text, grown);
    if (buf == NULL) return bad_body(r, WEIR_E_NOMEM);
    r->text = buf;
  }
  memcpy(r->text->data + r->text_len, data->ptr, data->len);
  r->text_len = need;
  return WEIR_OK;
}

static void drop_text(weir_durable_reader *r) {
  weir_buf_unref(r->text);
  r->text = NULL;
  r->text_len = 0;
}

static weir_status push_text(weir_durable_reader *r) {
  weir_buf *text = r->text;
  const size_t len = r->text_len;
  r->text = NULL;
  r->text_len = 0;
  return text == NULL ? WEIR_OK : push_bytes(r, text, len);
}

/* An event of a JSON stream, which is a whole array. */
static weir_status push_array(weir_durable_reader *r, const unsigned char *data, size_t len) {
  weir_json_reset(&r->json);
  const weir_status status = push_items(r, data, len);
  if (status != WEIR_OK) return status;
  return weir_json_end(&r->json) == WEIR_OK ? WEIR_OK : bad_body(r, WEIR_E_PROTOCOL);
}

static weir_status push_base64(weir_durable_reader *r, const weir_slice *data) {
  size_t len;
  weir_buf *bytes = weir_buf_new(r->alloc, WEIR_BASE64_DECODED(data->len));
  if (bytes == NULL) return bad_body(r, WEIR_E_NOMEM);
  if (weir_base64_decode(data->ptr, data->len, bytes->data, &len) != WEIR_OK) {
    weir_buf_unref(bytes);
    return bad_body(r, WEIR_E_PROTOCOL);
  }
  if (!r->json_stream) return push_bytes(r, bytes, len);
  const weir_status status = push_array(r, bytes->data, len);
  weir_buf_unref(bytes);
  return status;
}

static weir_status on_data(weir_durable_reader *r, const weir_slice *data) {
  if (r->response.base64) return push_base64(r, data);
  return r->json_stream ? push_array(r, data->ptr, data->len) : keep_text(r, data);
}

static weir_status on_control(weir_durable_reader *r, const weir_slice *data) {
  weir_durable_control control;
  if (weir_durable_control_parse(data->ptr, data->len, &control) != WEIR_OK ||
      !is_next_offset(&control.next_offset)) {
    return bad_body(r, WEIR_E_PROTOCOL);
  }
  const weir_status status = push_text(r);
  if (status != WEIR_OK) return status;
  return settle(r,
                &(mark){&control.next_offset, &control.cursor, control.up_to_date, control.closed});
}

static weir_status on_event(weir_durable_reader *r, const weir_sse_event *event) {
  if (event->type_len == 4 && memcmp(event->type, "data", 4) == 0) return on_data(r, &event->data);
  if (event->type_len == 7 && memcmp(event->type, "control", 7) == 0) {
    return on_control(r, &event->data);
  }
  return WEIR_OK; /* a server may know more kinds than we do */
}

static weir_status feed_events(weir_durable_reader *r, const unsigned char *data, size_t len) {
  weir_sse_event event;
  weir_status status;
  while (!r->over && (status = weir_sse_next(&r->sse, &data, &len, &event)) != WEIR_E_AGAIN) {
    if (status == WEIR_OK) {
      status = on_event(r, &event);
      weir_slice_unref(&event.data);
    }
    if (status == WEIR_OK) continue;
    if (r->behind) return status;
    if (status == WEIR_E_LIMIT && !r->over) {
      fall_back(r, "an event was longer than allowed");
      return status;
    }
    return r->over ? status : bad_body(r, status);
  }
  return r->over ? WEIR_E_CLOSED : WEIR_OK;
}

/* --- requests and answers --------------------------------------------------------------------- */

weir_status weir_durable_reader_request(weir_durable_reader *r, uint64_t now,
                                        weir_durable_query *query) {
  if (r->phase != PHASE_IDLE) return WEIR_E_AGAIN;
  if (r->over) return WEIR_E_CLOSED;
  if (now < r->not_before) return WEIR_E_AGAIN;
  const bool sse = r->live && r->mode == WEIR_DURABLE_LIVE_SSE;
  *query = (weir_durable_query){.offset = text_of(r->at.offset), .sse = sse};
  if (r->live) {
    query->cursor = text_of(r->cursor);
    query->live = sse ? "sse" : "long-poll";
  }
  weir_durable_response_init(&r->response, 0);
  r->phase = PHASE_WAITING;
  r->started = now;
  r->skip = r->at.count;
  r->progress = r->saw_data = r->behind = false;
  r->ignored = 0;
  r->requests++;
  return WEIR_OK;
}

uint64_t weir_durable_reader_deadline(const weir_durable_reader *r) {
  return r->phase != PHASE_IDLE || r->over ? WEIR_NEVER : r->not_before;
}

static void take_type(weir_durable_reader *r, const weir_durable_text *type) {
  if (r->typed || type->len == 0) return;
  r->typed = true;
  r->json_stream = is_type(type, "application/json");
  r->text_stream = is_type(type, "text/");
}

/* 200 to a request without events. */
static void begin_body(weir_durable_reader *r) {
  if (!is_next_offset(&r->response.next_offset)) {
    fail(r, "parse_error", r->response.status);
    r->phase = PHASE_REFUSED;
    return;
  }
  weir_json_reset(&r->json);
  /* There is nothing to be read at the tail, by definition. */
  r->phase = is_text(r->at.offset, "now", 3) ? PHASE_EMPTY : PHASE_BODY;
}

static void begin_events(weir_durable_reader *r) {
  if (!is_type(&r->response.content_type, "text/event-stream")) {
    fall_back(r, "the answer was not an event stream");
    return;
  }
  weir_sse_reset(&r->sse);
  r->phase = PHASE_EVENTS;
}

/* Statuses with which a server can say that it has no events for this stream: the offset is known
 * to be good. */
static bool refuses_events(int status) {
  return status == 400 || status == 405 || status == 406 || status == 415 || status == 501;
}

void weir_durable_reader_head(weir_durable_reader *r, const weir_durable_response *response,
                              uint64_t now) {
  (void)now;
  if (r->phase != PHASE_WAITING) return;
  r->response = *response;
  const bool sse = r->live && r->mode == WEIR_DURABLE_LIVE_SSE;
  r->phase = PHASE_REFUSED;
  if (sse && refuses_events(response->status)) {
    fall_back(r, "the server refused it");
    return;
  }
  if (weir_durable_verdict(WEIR_DURABLE_READ, WEIR_DURABLE_ANSWERED, response) != WEIR_DURABLE_OK) {
    return;
  }
  const bool empty = response->status == 204;
  if (!empty && response->status != 200) return;
  if (sse && !(empty && response->closed)) {
    begin_events(r);
    return;
  }
  take_type(r, &r->response.content_type);
  if (empty) {
    r->phase = PHASE_EMPTY;
  } else {
    begin_body(r);
  }
}

weir_status weir_durable_reader_feed(weir_durable_reader *r, const void *data, size_t len,
                                     uint64_t now) {
  (void)now;
  if (r->over) return WEIR_E_CLOSED;
  r->bytes += len;
  switch (r->phase) {
    case PHASE_EVENTS: return r->behind ? WEIR_E_CLOSED : feed_events(r, data, len);
    case PHASE_BODY: break;
    case PHASE_IDLE:
    case PHASE_WAITING: return WEIR_E_INVALID;
    case PHASE_ABANDONED: return WEIR_E_CLOSED;
    default: return (r->ignored += len) > IGNORED_MAX ? WEIR_E_CLOSED : WEIR_OK;
  }
  if (len == 0) return WEIR_OK;
  if (r->json_stream) return push_items(r, data, len);
  weir_buf *copy = weir_buf_copy(r->alloc, data, len);
  return copy == NULL ? bad_body(r, WEIR_E_NOMEM) : push_bytes(r, copy, len);
}

/* The whole of an answer has come, or the head that is all of it. */
static void complete(weir_durable_reader *r, bool body, uint64_t now, uint64_t random) {
  const weir_durable_response *response = &r->response;
  if (body && r->json_stream && r->json.position > 0 && weir_json_end(&r->json) != WEIR_OK) {
    (void)bad_body(r, WEIR_E_PROTOCOL);
    return;
  }
  weir_durable_text here = {.len = (uint16_t)(r->at.offset->size - 1)};
  memcpy(here.bytes, r->at.offset->data, here.len);
  const bool given = is_next_offset(&response->next_offset);
  if (!given && is_text(r->at.offset, "now", 3)) {
    fail(r, "parse_error", response->status); /* "now" would be somewhere else the next time */
    return;
  }
  const mark m = {
      .next_offset = given ? &response->next_offset : &here,
      .cursor = &response->cursor,
      .up_to_date = response->up_to_date || response->closed || response->status == 204 ||
                    (!r->saw_data && (!given || same_offset(r, &response->next_offset))),
      .closed = response->closed};
  const weir_status status = settle(r, &m);
  if (r->behind) back_off(r, WEIR_DURABLE_LOST, now, random);
  if (status != WEIR_OK || r->over) return;
  if (m.up_to_date && !r->live) go_live(r);
  go_on(r, now, random);
}

static void end_events(weir_durable_reader *r, weir_durable_transport transport, uint64_t now,
                       uint64_t random) {
  const bool shortly = now - r->started < SHORT_CONNECTION;
  const bool clean = transport == WEIR_DURABLE_ANSWERED || transport == WEIR_DURABLE_TIMED_OUT;
  drop_text(r);
  if (r->behind) {
    back_off(r, WEIR_DURABLE_LOST, now, random);
    return;
  }
  if (r->progress || !shortly) {
    r->short_connections = 0;
  } else if (++r->short_connections >= SHORT_CONNECTIONS) {
    fall_back(r, "three connections in a row ended within a second and brought nothing");
    r->phase = PHASE_IDLE;
    r->not_before = now;
    return;
  }
  if (!clean) {
    back_off(r, transport, now, random);
    return;
  }
  weir_retry_reset(&r->retry);
  r->not_before = now;
  if (r->progress || !shortly) {
    weir_retry_reset(&r->idle);
  } else {
    (void)weir_retry_next(&r->idle, now, random, UINT64_MAX, &r->not_before); /* has no bound */
  }
}

static void refused(weir_durable_reader *r, uint64_t now, uint64_t random) {
  const weir_durable_outcome outcome =
      weir_durable_verdict(WEIR_DURABLE_READ, WEIR_DURABLE_ANSWERED, &r->response);
  if (outcome == WEIR_DURABLE_RETRY) {
    back_off(r, WEIR_DURABLE_ANSWERED, now, random);
  } else {
    fail(r, weir_durable_code(WEIR_DURABLE_READ, WEIR_DURABLE_ANSWERED, &r->response),
         r->response.status);
  }
}

void weir_durable_reader_end(weir_durable_reader *r, weir_durable_transport transport, uint64_t now,
                             uint64_t random) {
  const phase was = r->phase;
  const bool answered = transport == WEIR_DURABLE_ANSWERED;
  r->phase = PHASE_IDLE;
  if (was == PHASE_IDLE || r->over) return;
  switch (was) {
    case PHASE_WAITING:
      if (transport == WEIR_DURABLE_TIMED_OUT && r->live) {
        go_on(r, now, random); /* nothing happened, which is no error */
      } else {
        back_off(r, answered ? WEIR_DURABLE_LOST : transport, now, random);
      }
      return;
    case PHASE_BODY:
      if (answered) {
        complete(r, true, now, random);
      } else {
        back_off(r, transport, now, random);
      }
      return;
    case PHASE_EMPTY: complete(r, false, now, random); return;
    case PHASE_EVENTS: end_events(r, transport, now, random); return;
    case PHASE_REFUSED: refused(r, now, random); return;
    default: drop_text(r); r->not_before = now;
  }
}

/* --- out -------------------------------------------------------------------------------------- */

weir_status weir_durable_reader_next(weir_durable_reader *r, weir_durable_piece *piece) {
  if (r->ring_count == 0) return WEIR_E_AGAIN;
  if (r->ring_count == 1 && r->phase == PHASE_BODY && !r->over && open_entry(r) != NULL) {
    return WEIR_E_AGAIN; /* the body may end here */
  }
  entry *e = entry_at(r, 0);
  write_place(r->offset, &e->from);
  write_place(r->next_offset, &e->to);
  set_place(&r->taken, e->to.offset, e->to.count);
  weir_buf_unref(r->taken_cursor);
  r->taken_cursor = weir_buf_ref(e->cursor);
  r->taken_up_to_date = e->up_to_date;
  r->taken_closed = e->closed;
  *piece = (weir_durable_piece){.data = e->data,
                                .items = e->items,
                                .offset = r->offset,
                                .next_offset = r->next_offset,
                                .cursor = text_of(r->taken_cursor),
                                .whole = e->to.count == 0,
                                .up_to_date = e->up_to_date,
                                .closed = e->closed};
  e->data.buf = NULL;
  drop_entry(e);
  r->ring_head = (r->ring_head + 1) & (r->ring_size - 1);
  r->ring_count--;
  return WEIR_OK;
}

void weir_durable_reader_state_of(const weir_durable_reader *reader,
                                  weir_durable_reader_state *state) {
  weir_durable_reader *r = (weir_durable_reader *)reader; /* for the text, which is no state */
  write_place(r->position, &r->taken);
  *state = (weir_durable_reader_state){.position = r->position,
                                       .up_to_date = r->taken_up_to_date,
                                       .closed = r->taken_closed,
                                       .mode = r->mode,
                                       .fallback = r->fallback,
                                       .requests = r->requests,
                                       .retries = r->retries,
                                       .bytes = r->bytes,
                                       .json = r->json_stream,
                                       .failed = r->failed,
                                       .code = r->code,
                                       .status = r->status};
}

/* --- life ------------------------------------------------------------------------------------- */

static bool set_position(weir_durable_reader *r, const char *text) {
  size_t len;
  uint64_t count;
  if (!parse_position(text, &len, &count)) {
    fail(r, "invalid_offset", 0);
    text = "-1";
    len = 2;
    count = 0;
  }
  weir_buf *offset = new_text(r->alloc, text, len);
  if (offset == NULL) return false;
  r->at = (place){offset, count};
  set_place(&r->taken, offset, count);
  return true;
}

/* Without a catch-up read where nothing is to be learned from one. */
static void begin_live(weir_durable_reader *r, const char *content_type) {
  weir_durable_text type = {.len = 0};
  const size_t len = strlen(content_type);
  if (len > sizeof type.bytes) return;
  memcpy(type.bytes, content_type, len);
  type.len = (uint16_t)len;
  take_type(r, &type);
  const bool at_offset = r->at.count == 0 && !is_text(r->at.offset, "now", 3);
  if (r->typed && r->config.live == WEIR_DURABLE_LIVE_SSE && at_offset) go_live(r);
}

weir_durable_reader *weir_durable_reader_new(const weir_alloc *alloc,
                                             const weir_durable_reader_config *config) {
  alloc = weir_alloc_or_default(alloc);
  weir_durable_reader *r = weir_calloc(alloc, 1, sizeof *r);
  if (r == NULL) return NULL;
  r->alloc = alloc;
  r->config = *config;
  if (r->config.max_event == 0) r->config.max_event = DEFAULT_MAX_EVENT;
  if (r->config.retry.initial == 0) weir_retry_policy_default(&r->config.retry);
  r->idle_policy = r->config.retry;
  r->idle_policy.max_retries = UINT32_MAX;
  if (r->idle_policy.max > IDLE_MAX) r->idle_policy.max = IDLE_MAX;
  if (r->idle_policy.initial > IDLE_MAX) r->idle_policy.initial = IDLE_MAX;
  weir_retry_init(&r->retry, &r->config.retry);
  weir_retry_init(&r->idle, &r->idle_policy);
  weir_json_init(&r->json, alloc, r->config.max_event, 0);
  weir_sse_init(&r->sse, alloc, r->config.max_event);
  if (!set_position(r, config->position != NULL ? config->position : "-1")) {
    weir_durable_reader_free(r);
    return NULL;
  }
  if (config->content_type != NULL) begin_live(r, config->content_type);
  r->config.position = r->config.content_type = NULL;
  return r;
}

void weir_durable_reader_free(weir_durable_reader *r) {
  if (r == NULL) return;
  for (size_t i = 0; i < r->ring_count; i++)
    drop_entry(entry_at(r, i));
  weir_free(r->alloc, r->ring);
  weir_json_free(&r->json);
  weir_sse_free(&r->sse);
  weir_buf_unref(r->at.offset);
  weir_buf_unref(r->taken.offset);
  weir_buf_unref(r->cursor);
  weir_buf_unref(r->taken_cursor);
  weir_buf_unref(r->text);
  weir_free(r->alloc, r);
}
