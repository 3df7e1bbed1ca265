#include "core/durable/sse.h"

#include <string.h>

enum {
  STATE_BOM,
  STATE_NAME,
  STATE_SPACE,
  STATE_VALUE
};
enum {
  FIELD_OTHER,
  FIELD_DATA,
  FIELD_EVENT
};

#define FIRST_BLOCK 256u
#define KEEP_BLOCK 65536u /* a larger block is not kept for the next event */

static const unsigned char BOM[3] = {0xef, 0xbb, 0xbf};

void weir_sse_init(weir_sse *sse, const weir_alloc *alloc, size_t max) {
  memset(sse, 0, sizeof *sse);
  sse->alloc = weir_alloc_or_default(alloc);
  sse->max = max;
}

void weir_sse_free(weir_sse *sse) {
  weir_buf_unref(sse->buf);
  sse->buf = NULL;
}

void weir_sse_reset(weir_sse *sse) {
  weir_sse_free(sse);
  weir_sse_init(sse, sse->alloc, sse->max);
}

/* Room for `more` bytes of data in a block that is ours alone. */
static weir_status reserve(weir_sse *sse, size_t more) {
  if (more > sse->max - sse->len) return WEIR_E_LIMIT;
  if (sse->buf != NULL && sse->len == 0 && sse->buf->refs > 1) {
    weir_buf_unref(sse->buf); /* the last event still uses it */
    sse->buf = NULL;
  }
  const size_t need = sse->len + more, size = sse->buf == NULL ? 0 : sse->buf->size;
  if (need <= size) return WEIR_OK;
  size_t grown = size < FIRST_BLOCK ? FIRST_BLOCK : size < SIZE_MAX / 2 ? 2 * size : need;
  if (grown < need) grown = need;
  weir_buf *buf =
      sse->buf == NULL ? weir_buf_new(sse->alloc, grown) : weir_buf_resize(sse->buf, grown);
  if (buf == NULL) return WEIR_E_NOMEM;
  sse->buf = buf;
  return WEIR_OK;
}

static weir_status append(weir_sse *sse, const unsigned char *bytes, size_t len) {
  const weir_status status = reserve(sse, len);
  if (status == WEIR_OK && len > 0) {
    memcpy(sse->buf->data + sse->len, bytes, len);
    sse->len += len;
  }
  return status;
}

static bool is_name(const weir_sse *sse, const char *name, size_t len) {
  return sse->name_len == len && memcmp(sse->name, name, len) == 0;
}

/* The field's name is complete. */
static weir_status begin_value(weir_sse *sse) {
  sse->field = FIELD_OTHER;
  if (is_name(sse, "data", 4)) {
    sse->field = FIELD_DATA;
    if (sse->has_data) return append(sse, (const unsigned char *)"\n", 1);
    sse->has_data = true;
  } else if (is_name(sse, "event", 5)) {
    sse->field = FIELD_EVENT;
    sse->type_len = 0;
  }
  return WEIR_OK;
}

static weir_status value(weir_sse *sse, const unsigned char *bytes, size_t len) {
  if (sse->field == FIELD_DATA) return append(sse, bytes, len);
  if (sse->field == FIELD_EVENT) {
    if (len > WEIR_SSE_TYPE_MAX - sse->type_len) return WEIR_E_LIMIT;
    memcpy(sse->type + sse->type_len, bytes, len);
    sse->type_len = (uint8_t)(sse->type_len + len);
  }
  return WEIR_OK;
}

static void name(weir_sse *sse, const unsigned char *bytes, size_t len) {
  for (size_t i = 0; i < len && sse->name_len < sizeof sse->name; i++) {
    sse->name[sse->name_len++] = (char)bytes[i];
  }
}

/* Moves the current event to *event; false if it is none. */
static bool dispatch(weir_sse *sse, weir_sse_event *event) {
  const bool complete = sse->has_data;
  if (complete) {
    sse->sent_len = sse->type_len;
    memcpy(sse->sent, sse->type, sse->type_len);
    event->type = sse->type_len > 0 ? sse->sent : "message";
    event->type_len = sse->type_len > 0 ? sse->sent_len : 7;
    event->data = (weir_slice){NULL, (const unsigned char *)"", 0};
    if (sse->len > 0) {
      event->data = (weir_slice){weir_buf_ref(sse->buf), sse->buf->data, sse->len};
      if (sse->buf->size > KEEP_BLOCK) {
        weir_buf_unref(sse->buf);
        sse->buf = NULL;
      }
    }
  }
  sse->len = 0;
  sse->has_data = false;
  sse->type_len = 0;
  return complete;
}

/* At most one mark at the very start; what only began like one is part of a line. */
static const unsigned char *skip_mark(weir_sse *sse, const unsigned char *at,
                                      const unsigned char *end) {
  while (at < end && sse->bom < sizeof BOM && *at == BOM[sse->bom]) {
    at++;
    sse->bom++;
  }
  if (sse->bom >= sizeof BOM) {
    sse->state = STATE_NAME;
  } else if (at < end) {
    sse->state = STATE_NAME;
    name(sse, BOM, sse->bom);
  }
  return at;
}

static const unsigned char *find_end(const unsigned char *at, const unsigned char *end) {
  while (at < end && *at != '\n' && *at != '\r')
    at++;
  return at;
}

/* One run of a line: up to a colon, an end of line or the end of input. */
static weir_status run(weir_sse *sse, const unsigned char **data, const unsigned char *end) {
  const unsigned char *at = *data, *stop;
  weir_status status = WEIR_OK;
  if (sse->state == STATE_NAME) {
    for (stop = at; stop < end && *stop != ':' && *stop != '\n' && *stop != '\r';)
      stop++;
    name(sse, at, (size_t)(stop - at));
    if (stop < end && *stop == ':') {
      stop++;
      status = begin_value(sse);
      sse->state = STATE_SPACE;
    }
  } else {
    if (sse->state == STATE_SPACE && *at == ' ') at++;
    sse->state = STATE_VALUE;
    stop = find_end(at, end);
    status = value(sse, at, (size_t)(stop - at));
  }
  *data = stop;
  return status;
}

/* The end of a line; true if an event came of it. */
static weir_status end_line(weir_sse *sse, weir_sse_event *event) {
  weir_status status = WEIR_E_AGAIN;
  if (sse->state == STATE_NAME && sse->name_len == 0) {
    status = dispatch(sse, event) ? WEIR_OK : WEIR_E_AGAIN;
  } else if (sse->state == STATE_NAME) {
    const weir_status begun = begin_value(sse); /* a field without a colon has an empty value */
    if (begun != WEIR_OK) status = begun;
  }
  sse->state = STATE_NAME;
  sse->name_len = 0;
  return status;
}

static weir_status step(weir_sse *sse, const unsigned char **data, const unsigned char *end,
                        weir_sse_event *event) {
  const unsigned char c = **data;
  if (sse->after_cr) {
    sse->after_cr = false;
    if (c == '\n') {
      ++*data;
      return WEIR_E_AGAIN;
    }
  }
  if (sse->state == STATE_BOM) {
    *data = skip_mark(sse, *data, end);
    return WEIR_E_AGAIN;
  }
  if (c == '\n' || c == '\r') {
    sse->after_cr = c == '\r';
    ++*data;
    return end_line(sse, event);
  }
  const weir_status status = run(sse, data, end);
  return status == WEIR_OK ? WEIR_E_AGAIN : status;
}

weir_status weir_sse_next(weir_sse *sse, const unsigned char **data, size_t *len,
                          weir_sse_event *event) {
  if (sse->failed != WEIR_OK) return sse->failed;
  const unsigned char *at = *data, *end = *len > 0 ? at + *len : at;
  weir_status status = WEIR_E_AGAIN;
  while (status == WEIR_E_AGAIN && at < end)
    status = step(sse, &at, end, event);
  *data = at;
  *len = (size_t)(end - at);
  if (status != WEIR_OK && status != WEIR_E_AGAIN) sse->failed = status;
  return status;
}
