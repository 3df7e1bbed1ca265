#include "terminal/keys.h"

#include <string.h>

#define ESC 0x1B
#define QUOTE 0x16 /* ^V and ^X ask for another character */
#define PREFIX 0x18
#define DEL 0x7F
#define LONGEST 32 /* bytes of an escape sequence; longer is none */

static const char PASTE_BEGINS[] = "\033[200~", PASTE_ENDS[] = "\033[201~";
#define MARKER (sizeof PASTE_BEGINS - 1)

/* --- bytes ------------------------------------------------------------------------------------ */

void weir_keys_reset(weir_keys *keys) {
  keys->count = keys->unit_count = 0;
  keys->pasting = keys->after_return = 0;
}

size_t weir_keys_room(const weir_keys *keys) { return sizeof keys->bytes - keys->count; }

void weir_keys_feed(weir_keys *keys, const void *bytes, size_t count) {
  memcpy(keys->bytes + keys->count, bytes, count);
  keys->count += count;
}

static void drop(weir_keys *keys, size_t count) {
  keys->count -= count;
  memmove(keys->bytes, keys->bytes + count, keys->count);
}

/* --- UTF-8 ------------------------------------------------------------------------------------ */

static size_t expected_length(unsigned char first) {
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return 2;
  if (first >= 0xE0 && first <= 0xEF) return 3;
  if (first >= 0xF0 && first <= 0xF4) return 4;
  return 0;
}

size_t weir_keys_decode(const unsigned char *bytes, size_t count, wchar_t *out) {
  static const wchar_t LEAST[] = {0, 0, 0x80, 0x800, 0x10000};
  const size_t length = expected_length(bytes[0]);
  *out = 0xFFFD;
  if (length == 0) return 1;
  wchar_t value = length == 1 ? bytes[0] : bytes[0] & (0xFF >> (length + 1));
  for (size_t i = 1; i < length; i++) {
    if (i == count) return 0;
    if ((bytes[i] & 0xC0) != 0x80) return 1;
    value = (value << 6) | (bytes[i] & 0x3F);
  }
  if (value < LEAST[length] || value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) return 1;
  *out = value;
  return length;
}

/* --- keys ------------------------------------------------------------------------------------- */

/* Bytes of the escape sequence that the bytes begin with; 0 if more are needed. */
static size_t sequence_length(const unsigned char *bytes, size_t count) {
  if (count < 2) return 0;
  if (bytes[1] == 'O') return count < 3 ? 0 : 3;
  if (bytes[1] != '[') return bytes[1] < 0x80 ? 2 : 1;
  for (size_t i = 2; i < count && i < LONGEST; i++) {
    if (bytes[i] >= 0x40 && bytes[i] <= 0x7E) return i + 1;
  }
  return count >= LONGEST ? 1 : 0;
}

static weir_keys_kind next_sequence(weir_keys *keys) {
  const size_t length = sequence_length(keys->bytes, keys->count);
  for (size_t i = 0; i < length; i++)
    keys->unit[keys->unit_count++] = keys->bytes[i];
  drop(keys, length);
  return length > 0 ? WEIR_KEYS_KEY : WEIR_KEYS_MORE;
}

static weir_keys_kind next_key(weir_keys *keys, int now) {
  const unsigned char *bytes = keys->bytes;
  size_t at = 0;
  if (bytes[0] == ESC && !now) return next_sequence(keys);
  if ((bytes[0] == QUOTE || bytes[0] == PREFIX) && !now) {
    if (keys->count < 2) return WEIR_KEYS_MORE;
    keys->unit[keys->unit_count++] = bytes[at++];
  }
  wchar_t wide;
  size_t used = weir_keys_decode(bytes + at, keys->count - at, &wide);
  if (used == 0 && !now) {
    keys->unit_count = 0;
    return WEIR_KEYS_MORE;
  }
  keys->unit[keys->unit_count++] = wide;
  drop(keys, at + (used > 0 ? used : 1));
  return WEIR_KEYS_KEY;
}

/* --- pasted text ------------------------------------------------------------------------------ */

/* Whether the bytes begin with a marker: 1, 0, or -1 where more are needed to tell. */
static int begins_with(const weir_keys *keys, const char *marker) {
  const size_t count = keys->count < MARKER ? keys->count : MARKER;
  if (memcmp(keys->bytes, marker, count) != 0) return 0;
  return count == MARKER ? 1 : -1;
}

/* Gathers text until the end of the line, of the text or of the unit. Bytes that it took. */
static size_t gather(weir_keys *keys) {
  size_t at = 0;
  while (at < keys->count && keys->unit_count < WEIR_KEYS_UNIT) {
    const unsigned char byte = keys->bytes[at];
    if (byte == '\r' || byte == '\n' || byte == ESC) break;
    wchar_t wide;
    const size_t used = weir_keys_decode(keys->bytes + at, keys->count - at, &wide);
    if (used == 0) break;
    if (wide == L'\t' || (wide >= L' ' && (wide < DEL || wide > 0x9F))) {
      keys->unit[keys->unit_count++] = wide;
    }
    at += used;
  }
  return at;
}

static weir_keys_kind next_pasted(weir_keys *keys) {
  while (keys->pasting && keys->count > 0) {
    const unsigned char first = keys->bytes[0];
    const int ends = first == ESC ? begins_with(keys, PASTE_ENDS) : 0;
    if (ends < 0) return WEIR_KEYS_MORE;
    const int half = first == '\n' && keys->after_return;
    keys->after_return = first == '\r';
    if (ends > 0) {
      keys->pasting = 0;
      drop(keys, MARKER);
    } else if (first == ESC || half) {
      drop(keys, 1);
    } else if (first == '\r' || first == '\n') {
      keys->unit[keys->unit_count++] = L'\n';
      drop(keys, 1);
      return WEIR_KEYS_KEY;
    } else {
      const size_t taken = gather(keys);
      drop(keys, taken);
      if (keys->unit_count > 0) return WEIR_KEYS_TEXT;
      if (taken == 0) return WEIR_KEYS_MORE;
    }
  }
  return WEIR_KEYS_MORE;
}

weir_keys_kind weir_keys_next(weir_keys *keys, int now) {
  keys->unit_count = 0;
  for (;;) {
    if (keys->pasting) {
      const weir_keys_kind kind = next_pasted(keys);
      if (kind != WEIR_KEYS_MORE || keys->pasting) return kind;
    }
    if (keys->count == 0) return WEIR_KEYS_MORE;
    if (begins_with(keys, PASTE_BEGINS) <= 0) return next_key(keys, now);
    keys->pasting = 1;
    keys->after_return = 0;
    drop(keys, MARKER);
  }
}
