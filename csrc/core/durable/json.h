/*
 * weir_json: validates JSON (RFC 8259) as it comes and splits a top-level array into its elements.
 *
 * The text is fed in pieces that may be cut anywhere, inside escapes and UTF-8 too. Each byte is
 * looked at once. An element is handed out as the exact run of text that it is, without the white
 * space around it: borrowed from the input when it lies in one piece, else owned. Nothing is
 * converted, so numbers keep their digits and objects their order and duplicates.
 *
 * Strict: UTF-8 must be valid (lone surrogates can be escaped, as the RFC allows), and nothing but
 * white space may follow the array. Bounds: bytes of an element, depth of nesting. The splitter
 * keeps the part of one element that is split, nothing else.
 */
#ifndef WEIR_DURABLE_JSON_H
#define WEIR_DURABLE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/alloc.h"
#include "core/buf.h"
#include "core/status.h"

#define WEIR_JSON_DEPTH 1024u /* the deepest nesting that can be allowed */

typedef struct weir_json {
  const weir_alloc *alloc;
  size_t max_item;
  uint32_t max_depth, depth;
  uint8_t state;
  bool item_mode; /* else one value of any kind */
  bool in_item, in_key;
  uint8_t more, low, high; /* of a UTF-8 sequence: bytes to come, range of the next */
  const char *literal;     /* what is left of true, false or null */
  weir_buf *buf;           /* the part of the element that came in earlier pieces */
  size_t len;
  uint64_t position; /* bytes taken; after an error, where it is, from 0 */
  weir_status failed;
  const char *error;                          /* static; says what is wrong */
  unsigned char objects[WEIR_JSON_DEPTH / 8]; /* a bit for each level: an object */
} weir_json;

/* `max_depth` counts the array itself; 0 or too much: WEIR_JSON_DEPTH. */
void weir_json_init(weir_json *json, const weir_alloc *alloc, size_t max_item, uint32_t max_depth);
/* Starts over with a new text. */
void weir_json_reset(weir_json *json);
void weir_json_free(weir_json *json);

/* The next element from *data (which is advanced, and *len counted down). *item: owned, or borrowed
 * from the input when item->buf is NULL. AGAIN: all was taken and more is needed (or the array is
 * over). PROTOCOL: not JSON; LIMIT: too deep or too long; NOMEM: these stay, see `error` and
 * `position`. */
weir_status weir_json_next(weir_json *json, const unsigned char **data, size_t *len,
                           weir_slice *item);
/* The text ends here. PROTOCOL if it must not. */
weir_status weir_json_end(weir_json *json);

/* Validates one whole text of any kind. On failure *position and *error (both may be NULL) say
 * where and what. */
weir_status weir_json_check(const void *text, size_t len, uint32_t max_depth, uint64_t *position,
                            const char **error);

#endif
