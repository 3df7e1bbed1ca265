#include "core/durable/control.h"

#include <string.h>

#include "core/durable/json.h"

/* Walks text that is known to be valid JSON, so none of this can run off its end. */

static bool is_space(unsigned char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

static const unsigned char *skip_space(const unsigned char *at) {
  while (is_space(*at))
    at++;
  return at;
}

static const unsigned char *skip_string(const unsigned char *at) {
  for (at++; *at != '"'; at++) {
    if (*at == '\\') at++;
  }
  return at + 1;
}

/* A member's value: up to the comma or brace behind it. */
static const unsigned char *skip_value(const unsigned char *at) {
  size_t depth = 0;
  for (;;) {
    const unsigned char c = *at;
    if (c == '"') {
      at = skip_string(at);
      continue;
    }
    if (depth == 0 && (c == ',' || c == '}')) return at;
    if (c == '{' || c == '[') depth++;
    if (c == '}' || c == ']') depth--;
    at++;
  }
}

static unsigned hex4(const unsigned char *at) {
  unsigned value = 0;
  for (int i = 0; i < 4; i++) {
    const unsigned c = at[i];
    value = value << 4 | (c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
  }
  return value;
}

static unsigned char unescape(unsigned char c) {
  switch (c) {
    case 'b': return '\b';
    case 'f': return '\f';
    case 'n': return '\n';
    case 'r': return '\r';
    case 't': return '\t';
    default: return c;
  }
}

/* The string at `at`. False if it is too long or has an escaped character beyond ASCII, which
 * neither our members' names nor offsets and cursors have. */
static bool read_string(const unsigned char *at, weir_durable_text *out) {
  out->len = 0;
  for (at++; *at != '"'; at++) {
    unsigned c = *at;
    if (c == '\\' && *++at == 'u') {
      c = hex4(at + 1);
      at += 4;
      if (c >= 0x80) return false;
    } else if (c == '\\') {
      c = unescape(*at);
    }
    if (out->len == sizeof out->bytes) return false;
    out->bytes[out->len++] = (char)c;
  }
  return true;
}

static bool is(const weir_durable_text *text, const char *word) {
  return text->len == strlen(word) && memcmp(text->bytes, word, text->len) == 0;
}

static bool read_flag(const unsigned char *value, bool *out) {
  *out = *value == 't';
  return *value == 't' || *value == 'f' || *value == 'n';
}

/* A cursor may be null: there is none. */
static bool read_text(const unsigned char *value, weir_durable_text *out) {
  out->len = 0;
  return *value == 'n' || (*value == '"' && read_string(value, out));
}

static bool member(weir_durable_control *control, const weir_durable_text *key,
                   const unsigned char *value) {
  if (is(key, "streamNextOffset")) return read_text(value, &control->next_offset);
  if (is(key, "streamCursor")) return read_text(value, &control->cursor);
  if (is(key, "upToDate")) return read_flag(value, &control->up_to_date);
  if (is(key, "streamClosed")) return read_flag(value, &control->closed);
  return true;
}

static bool members(const unsigned char *at, weir_durable_control *control) {
  at = skip_space(at);
  if (*at != '{') return false;
  at = skip_space(at + 1);
  while (*at != '}') {
    weir_durable_text key;
    const bool known = read_string(at, &key);
    at = skip_space(skip_space(skip_string(at)) + 1); /* the colon */
    if (known && !member(control, &key, at)) return false;
    at = skip_value(at);
    if (*at == ',') at = skip_space(at + 1);
  }
  return true;
}

weir_status weir_durable_control_parse(const void *text, size_t len,
                                       weir_durable_control *control) {
  memset(control, 0, sizeof *control);
  if (weir_json_check(text, len, 0, NULL, NULL) != WEIR_OK) return WEIR_E_PROTOCOL;
  if (!members(text, control) || control->next_offset.len == 0) return WEIR_E_PROTOCOL;
  if (control->closed) control->up_to_date = true;
  return WEIR_OK;
}
