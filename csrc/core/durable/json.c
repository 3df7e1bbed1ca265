#include "core/durable/json.h"

#include <string.h>

enum {
  VALUE,        /* a value must begin */
  VALUE_OR_END, /* after "[" */
  KEY,          /* after "," in an object */
  KEY_OR_END,   /* after "{" */
  COLON,
  AFTER, /* after a value */
  STRING,
  ESCAPE,
  HEX1,
  HEX2,
  HEX3,
  HEX4,
  UTF8,
  LITERAL,
  MINUS,
  ZERO,
  INTEGER,
  POINT,
  FRACTION,
  EXPONENT,
  EXPONENT_SIGN,
  EXPONENT_DIGITS,
  DONE,
  ARRAY /* the top-level array must begin */
};

typedef enum event {
  NONE,
  ITEM,     /* an element ended with the byte that was taken */
  ITEM_BACK /* an element ended before it, and the byte is not taken */
} event;

/* Of a character in a string. Each bit of a word is one of 32 characters from 0 on. */
static bool is_plain(unsigned char c) {
  static const uint32_t PLAIN[8] = {0, ~(UINT32_C(1) << ('"' % 32)), ~(UINT32_C(1) << ('\\' % 32)),
                                    ~UINT32_C(0)};
  return (PLAIN[c / 32] >> (c % 32) & 1) != 0;
}
static bool is_space(unsigned char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }
static bool is_digit(unsigned char c) { return c >= '0' && c <= '9'; }
static bool is_hex(unsigned char c) {
  return is_digit(c) || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f');
}

static void begin(weir_json *json) {
  json->state = json->item_mode ? ARRAY : VALUE;
  json->depth = 0;
  json->in_item = json->in_key = false;
  json->position = 0;
  json->failed = WEIR_OK;
  json->error = NULL;
  json->len = 0;
}

static void set_up(weir_json *json, const weir_alloc *alloc, size_t max_item, uint32_t max_depth,
                   bool item_mode) {
  json->alloc = weir_alloc_or_default(alloc);
  json->max_item = max_item;
  json->max_depth = max_depth == 0 || max_depth > WEIR_JSON_DEPTH ? WEIR_JSON_DEPTH : max_depth;
  json->item_mode = item_mode;
  json->buf = NULL;
  begin(json);
}

void weir_json_init(weir_json *json, const weir_alloc *alloc, size_t max_item, uint32_t max_depth) {
  set_up(json, alloc, max_item, max_depth, true);
}

void weir_json_free(weir_json *json) {
  weir_buf_unref(json->buf);
  json->buf = NULL;
}

void weir_json_reset(weir_json *json) {
  weir_json_free(json);
  begin(json);
}

static event fail(weir_json *json, weir_status status, const char *error) {
  json->failed = status;
  json->error = error;
  return NONE;
}

static event wrong(weir_json *json, const char *error) {
  return fail(json, WEIR_E_PROTOCOL, error);
}

static bool in_object(const weir_json *json) {
  const uint32_t level = json->depth - 1;
  return json->depth > 0 && (json->objects[level / 8] >> (level % 8) & 1) != 0;
}

static event open_level(weir_json *json, bool object) {
  if (json->depth >= json->max_depth) return fail(json, WEIR_E_LIMIT, "nested too deeply");
  const uint32_t level = json->depth++;
  const unsigned char bit = (unsigned char)(1u << (level % 8));
  if (object) {
    json->objects[level / 8] |= bit;
  } else {
    json->objects[level / 8] &= (unsigned char)~bit;
  }
  json->state = object ? KEY_OR_END : VALUE_OR_END;
  return NONE;
}

/* A value is complete. `back`: its end was seen from the byte behind it. */
static event end_value(weir_json *json, bool back) {
  json->state = json->depth == 0 ? DONE : AFTER;
  if (json->in_item && json->depth == 1) return back ? ITEM_BACK : ITEM;
  return NONE;
}

static event close_level(weir_json *json) {
  json->depth--;
  return end_value(json, false);
}

static event begin_value(weir_json *json, unsigned char c) {
  if (json->item_mode && json->depth == 1) json->in_item = true;
  switch (c) {
    case '{': return open_level(json, true);
    case '[': return open_level(json, false);
    case '"':
      json->in_key = false;
      json->state = STRING;
      return NONE;
    case '-': json->state = MINUS; return NONE;
    case '0': json->state = ZERO; return NONE;
    case 't': json->literal = "rue"; break;
    case 'f': json->literal = "alse"; break;
    case 'n': json->literal = "ull"; break;
    default:
      if (!is_digit(c)) return wrong(json, "a value is expected");
      json->state = INTEGER;
      return NONE;
  }
  json->state = LITERAL;
  return NONE;
}

static event begin_key(weir_json *json, unsigned char c) {
  if (c != '"') return wrong(json, "a key is expected");
  json->in_key = true;
  json->state = STRING;
  return NONE;
}

static event after_value(weir_json *json, unsigned char c) {
  const bool object = in_object(json);
  if (c == ',') {
    json->state = object ? KEY : VALUE;
    return NONE;
  }
  if (c == (object ? '}' : ']')) return close_level(json);
  return wrong(json, object ? "a comma or } is expected" : "a comma or ] is expected");
}

/* First byte of a character beyond ASCII (RFC 3629, section 4). */
static event begin_utf8(weir_json *json, unsigned char c) {
  json->low = 0x80;
  json->high = 0xbf;
  if (c >= 0xc2 && c <= 0xdf) {
    json->more = 1;
  } else if (c >= 0xe0 && c <= 0xef) {
    json->more = 2;
    if (c == 0xe0) json->low = 0xa0;
    if (c == 0xed) json->high = 0x9f;
  } else if (c >= 0xf0 && c <= 0xf4) {
    json->more = 3;
    if (c == 0xf0) json->low = 0x90;
    if (c == 0xf4) json->high = 0x8f;
  } else {
    return wrong(json, "invalid UTF-8");
  }
  json->state = UTF8;
  return NONE;
}

static event string(weir_json *json, unsigned char c) {
  if (is_plain(c)) return NONE;
  if (c == '\\') {
    json->state = ESCAPE;
    return NONE;
  }
  if (c >= 0x80) return begin_utf8(json, c);
  if (c != '"') return wrong(json, "a control character in a string");
  if (!json->in_key) return end_value(json, false);
  json->state = COLON;
  return NONE;
}

static event escape(weir_json *json, unsigned char c) {
  if (c == 'u') {
    json->state = HEX1;
  } else if (c != 0 && strchr("\"\\/bfnrt", c) != NULL) {
    json->state = STRING;
  } else {
    return wrong(json, "an unknown escape");
  }
  return NONE;
}

static event hex(weir_json *json, unsigned char c) {
  if (!is_hex(c)) return wrong(json, "four hexadecimal digits are expected");
  json->state = json->state == HEX4 ? STRING : (uint8_t)(json->state + 1);
  return NONE;
}

static event utf8(weir_json *json, unsigned char c) {
  if (c < json->low || c > json->high) return wrong(json, "invalid UTF-8");
  json->low = 0x80;
  json->high = 0xbf;
  if (--json->more == 0) json->state = STRING;
  return NONE;
}

static event literal(weir_json *json, unsigned char c) {
  if (c != (unsigned char)*json->literal) return wrong(json, "true, false or null is expected");
  return *++json->literal == '\0' ? end_value(json, false) : NONE;
}

/* A byte in or behind a number. */
static event number(weir_json *json, unsigned char c) {
  const uint8_t state = json->state;
  const bool digit = is_digit(c);
  switch (state) {
    case MINUS:
      if (!digit) return wrong(json, "a digit is expected");
      json->state = c == '0' ? ZERO : INTEGER;
      return NONE;
    case POINT: json->state = FRACTION; break;
    case EXPONENT:
      if (c == '+' || c == '-') {
        json->state = EXPONENT_SIGN;
        return NONE;
      }
      json->state = EXPONENT_DIGITS;
      break;
    case EXPONENT_SIGN: json->state = EXPONENT_DIGITS; break;
    default:
      if (digit && state != ZERO) return NONE;
      if (c == '.' && (state == ZERO || state == INTEGER)) {
        json->state = POINT;
        return NONE;
      }
      if ((c == 'e' || c == 'E') && state != EXPONENT_DIGITS) {
        json->state = EXPONENT;
        return NONE;
      }
      return end_value(json, true);
  }
  return digit ? NONE : wrong(json, "a digit is expected");
}

static bool is_number_end(const weir_json *json) {
  return json->state == ZERO || json->state == INTEGER || json->state == FRACTION ||
         json->state == EXPONENT_DIGITS;
}

/* A byte that is not white space between tokens. */
static event token(weir_json *json, unsigned char c) {
  switch (json->state) {
    case ARRAY: return c == '[' ? open_level(json, false) : wrong(json, "an array is expected");
    case VALUE_OR_END:
      if (c == ']') return close_level(json);
      return begin_value(json, c);
    case VALUE: return begin_value(json, c);
    case KEY_OR_END:
      if (c == '}') return close_level(json);
      return begin_key(json, c);
    case KEY: return begin_key(json, c);
    case COLON:
      if (c != ':') return wrong(json, "a colon is expected");
      json->state = VALUE;
      return NONE;
    case AFTER: return after_value(json, c);
    default: return wrong(json, "nothing may follow");
  }
}

/* Skips digits where any number of them may stand. */
static const unsigned char *digits_end(const weir_json *json, const unsigned char *at,
                                       const unsigned char *end) {
  if (json->state == INTEGER || json->state == FRACTION || json->state == EXPONENT_DIGITS) {
    while (at < end && is_digit(*at))
      at++;
  }
  return at;
}

/* Takes bytes up to the end of an element, an error or the end of input. *start is set where an
 * element begins. */
static event scan(weir_json *json, const unsigned char **data, const unsigned char *end,
                  const unsigned char **start) {
  const unsigned char *at = *data;
  event what = NONE;
  while (at < end && what == NONE) {
    const unsigned char c = *at;
    const bool before = json->in_item;
    switch (json->state) {
      case STRING:
        while (at < end && is_plain(*at))
          at++;
        if (at == end) continue;
        what = string(json, *at);
        break;
      case ESCAPE: what = escape(json, c); break;
      case HEX1:
      case HEX2:
      case HEX3:
      case HEX4: what = hex(json, c); break;
      case UTF8: what = utf8(json, c); break;
      case LITERAL: what = literal(json, c); break;
      case MINUS:
      case ZERO:
      case POINT:
      case EXPONENT:
      case EXPONENT_SIGN:
      case INTEGER:
      case FRACTION:
      case EXPONENT_DIGITS:
        at = digits_end(json, at, end);
        if (at == end) continue;
        what = number(json, *at);
        /* The byte behind a number is the next token's. */
        if (json->state == AFTER || json->state == DONE) continue;
        break;
      default:
        if (!is_space(c)) what = token(json, c);
        if (json->in_item && !before) *start = at;
        break;
    }
    if (json->failed != WEIR_OK) break;
    at++;
  }
  *data = at;
  return what;
}

/* Keeps bytes of an element that is not complete. */
static weir_status keep(weir_json *json, const unsigned char *bytes, size_t len) {
  const size_t need = json->len + len, size = json->buf == NULL ? 0 : json->buf->size;
  if (json->buf == NULL || need > size) {
    size_t grown = size < 128 ? 256 : size < SIZE_MAX / 2 ? 2 * size : need;
    if (grown < need) grown = need;
    weir_buf *buf =
        json->buf == NULL ? weir_buf_new(json->alloc, grown) : weir_buf_resize(json->buf, grown);
    if (buf == NULL) {
      fail(json, WEIR_E_NOMEM, "out of memory");
      return WEIR_E_NOMEM;
    }
    json->buf = buf;
  }
  memcpy(json->buf->data + json->len, bytes, len);
  json->len = need;
  return WEIR_OK;
}

/* A run of an element was scanned: the element is complete, or the input is used up. */
static weir_status take(weir_json *json, const unsigned char *start, size_t len, bool complete,
                        weir_slice *item) {
  if (len > json->max_item - json->len) {
    json->position -= len - (json->max_item - json->len);
    fail(json, WEIR_E_LIMIT, "an element is too long");
    return WEIR_E_LIMIT;
  }
  if (complete && json->len == 0) {
    *item = (weir_slice){NULL, start, len};
    json->in_item = false;
    return WEIR_OK;
  }
  weir_status status = len > 0 ? keep(json, start, len) : WEIR_OK;
  if (status != WEIR_OK) return status;
  if (!complete) return WEIR_E_AGAIN;
  *item = (weir_slice){json->buf, json->buf->data, json->len};
  json->buf = NULL;
  json->len = 0;
  json->in_item = false;
  return WEIR_OK;
}

weir_status weir_json_next(weir_json *json, const unsigned char **data, size_t *len,
                           weir_slice *item) {
  if (json->failed != WEIR_OK) return json->failed;
  const unsigned char *begun = *data, *end = *len > 0 ? begun + *len : begun, *start = begun;
  const event what = scan(json, data, end, &start);
  *len = (size_t)(end - *data);
  json->position += (uint64_t)(*data - begun);
  const size_t run = (size_t)(*data - start);
  if (json->failed != WEIR_OK) {
    /* What is wrong beyond the limit would not have been seen in smaller pieces. */
    if (json->in_item && run > json->max_item - json->len)
      (void)take(json, start, run, false, item);
    return json->failed;
  }
  return json->in_item ? take(json, start, run, what != NONE, item) : WEIR_E_AGAIN;
}

weir_status weir_json_end(weir_json *json) {
  if (json->failed != WEIR_OK) return json->failed;
  if (json->state == DONE || (json->depth == 0 && is_number_end(json))) return WEIR_OK;
  wrong(json, "the text ends too early");
  return json->failed;
}

weir_status weir_json_check(const void *text, size_t len, uint32_t max_depth, uint64_t *position,
                            const char **error) {
  weir_json json;
  set_up(&json, NULL, SIZE_MAX, max_depth, false);
  const unsigned char *data = text;
  weir_slice none;
  weir_status status = weir_json_next(&json, &data, &len, &none);
  if (status == WEIR_E_AGAIN) status = weir_json_end(&json);
  if (position != NULL) *position = json.position;
  if (error != NULL) *error = json.error;
  return status;
}
