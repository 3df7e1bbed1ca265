/*
 * Cuts what a terminal sends into keys.
 *
 * libedit asks for a character whenever it wants one and would wait for the rest of a key. So
 * bytes are held back here until a whole key is there: a character of UTF-8, an escape sequence,
 * or a key that takes another one as its argument. Text that is pasted into a terminal comes
 * between two markers ("bracketed paste", mode 2004 of xterm and of all that followed it); it is
 * no sequence of keys, whatever it contains, and comes out as text.
 *
 * An object owns no memory but itself. What it holds is bounded by WEIR_KEYS_HELD.
 */
#ifndef WEIR_TERMINAL_KEYS_H
#define WEIR_TERMINAL_KEYS_H

#include <stddef.h>
#include <wchar.h>

#define WEIR_KEYS_HELD 69632 /* bytes that were fed and not taken: more than one read of libuv */
#define WEIR_KEYS_UNIT 256   /* characters of one key, or of a piece of pasted text */

typedef enum weir_keys_kind {
  WEIR_KEYS_MORE, /* there is none, or not all of it */
  WEIR_KEYS_KEY,  /* a key: its characters */
  WEIR_KEYS_TEXT, /* pasted text, within a line; without control characters other than tabs */
} weir_keys_kind;

typedef struct weir_keys {
  unsigned char bytes[WEIR_KEYS_HELD];
  size_t count;
  int pasting;      /* between the two markers */
  int after_return; /* a newline now is the second half of a pasted line end */
  wchar_t unit[WEIR_KEYS_UNIT];
  size_t unit_count; /* characters of `unit`, which weir_keys_next gave */
} weir_keys;

/* Forgets all bytes. */
void weir_keys_reset(weir_keys *keys);

/* Room for more bytes. */
size_t weir_keys_room(const weir_keys *keys);

/* Adds bytes, at most weir_keys_room(). */
void weir_keys_feed(weir_keys *keys, const void *bytes, size_t count);

/* Takes the next key or piece of text into `unit`. With `now` a key is not held back for what may
 * follow. */
weir_keys_kind weir_keys_next(weir_keys *keys, int now);

/* One character of UTF-8 at the beginning of `count` bytes: how many bytes it takes; 0 if more are
 * needed. What is no UTF-8 becomes U+FFFD, byte by byte. */
size_t weir_keys_decode(const unsigned char *bytes, size_t count, wchar_t *out);

#endif
