/*
 * weir_values: finds where each of the values ends that follow one another in a stream of bytes.
 *
 * MessagePack and CBOR values say themselves how long they are, so a stream of them needs no
 * framing. The bytes are fed in pieces that may be cut anywhere; each is looked at once, and what
 * lies inside of strings is skipped. Nothing is kept but counters: whoever feeds keeps the pieces
 * of a value that is not complete, and decodes it when it is.
 *
 * It follows heads and lengths only. What else a value must be (text that is UTF-8, keys of maps,
 * parts of CBOR strings), the decoder finds. Formats: the MessagePack specification; RFC 8949,
 * section 3 and appendix B.
 *
 * Bounds: bytes of a value, refused as soon as a length or a count says that it will be longer;
 * depth of nesting (tags do not count).
 */
#ifndef WEIR_DURABLE_VALUES_H
#define WEIR_DURABLE_VALUES_H

#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

/* One more than the decoders allow, as a CBOR string in parts takes a level. */
#define WEIR_VALUES_DEPTH 65u

typedef enum weir_values_format {
  WEIR_VALUES_MSGPACK,
  WEIR_VALUES_CBOR
} weir_values_format;

typedef struct weir_values {
  weir_values_format format;
  uint64_t max_value;
  uint64_t size;   /* bytes of the value so far */
  uint64_t skip;   /* bytes of a string that are to come */
  uint64_t number; /* of the head that is being read: a length, a count, or of no interest */
  uint8_t kind;    /* of that head */
  uint8_t missing; /* bytes of that number that are to come */
  uint32_t depth;
  uint64_t left[WEIR_VALUES_DEPTH]; /* values to come in each that is open; WEIR_VALUES_OPEN */
  weir_status failed;
  const char *error; /* static; says what is wrong */
} weir_values;

#define WEIR_VALUES_OPEN UINT64_MAX /* until a break */

void weir_values_init(weir_values *values, weir_values_format format, size_t max_value);
/* Starts over, at the start of a value. */
void weir_values_reset(weir_values *values);

/* Takes bytes up to the end of the value, *taken of them. OK: it ends there, and what follows is
 * another; AGAIN: all was taken, and the value goes on. PROTOCOL: no value; LIMIT: too long or too
 * deep; both stay until reset, see `error`. *taken is then where the head is that is to blame, or
 * 0 if it began in an earlier piece. */
weir_status weir_values_next(weir_values *values, const void *data, size_t len, size_t *taken);

#endif
