/*
 * base64 (RFC 4648, section 4), strictly: the standard alphabet, padding required, unused bits
 * zero. CR and LF anywhere are skipped when decoding, because server-sent events may break lines;
 * nothing else is.
 */
#ifndef WEIR_DURABLE_BASE64_H
#define WEIR_DURABLE_BASE64_H

#include <stddef.h>

#include "core/status.h"

/* The most bytes that `len` characters decode to. */
#define WEIR_BASE64_DECODED(len) ((len) / 4 * 3 + 3)
/* The exact number of characters that `len` bytes encode to. */
#define WEIR_BASE64_ENCODED(len) (((len) + 2) / 3 * 4)

/* Decodes to `out`, which has room for WEIR_BASE64_DECODED(len) bytes and may be `text` itself.
 * INVALID: not base64; *out_len is then undefined. */
weir_status weir_base64_decode(const void *text, size_t len, unsigned char *out, size_t *out_len);
/* Encodes to `out`, which has room for WEIR_BASE64_ENCODED(len) characters; no NUL is added. */
void weir_base64_encode(const void *bytes, size_t len, char *out);

#endif
