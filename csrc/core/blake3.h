/*
 * BLAKE3: the hash function that makes stream ids from names.
 *
 * Portable C after the specification (BLAKE3, 2020-01-09; section numbers in blake3.c), all three
 * modes, incremental, with outputs of any length. A hasher is a plain value of about 1.9 KiB: it
 * owns no memory and may be copied at any time, for example to hash many inputs with one prefix.
 */
#ifndef WEIR_BLAKE3_H
#define WEIR_BLAKE3_H

#include <stddef.h>
#include <stdint.h>

#define WEIR_BLAKE3_OUT 32 /* bytes of the usual output */
#define WEIR_BLAKE3_KEY 32
#define WEIR_BLAKE3_CHUNK 1024
#define WEIR_BLAKE3_DEPTH 54 /* levels of the tree over 2^64 bytes of input */

typedef struct weir_blake3_hasher {
  uint32_t key[8];
  uint32_t flags; /* of the mode */
  /* The chunk being filled. */
  uint32_t chunk_cv[8];
  uint64_t chunk; /* its number */
  unsigned char block[64];
  uint8_t block_len;
  uint8_t blocks; /* compressed of this chunk */
  /* Chaining values of whole subtrees, largest first, none merged before more input needs it. */
  uint8_t depth;
  uint32_t stack[WEIR_BLAKE3_DEPTH][8];
} weir_blake3_hasher;

/* One of these three first: plain, keyed (a MAC), or key derivation from a context string. */
void weir_blake3_init(weir_blake3_hasher *hasher);
void weir_blake3_init_keyed(weir_blake3_hasher *hasher, const uint8_t key[WEIR_BLAKE3_KEY]);
void weir_blake3_init_derive_key(weir_blake3_hasher *hasher, const void *context, size_t len);
/* Adds input. */
void weir_blake3_update(weir_blake3_hasher *hasher, const void *data, size_t len);
/* Writes `len` bytes of output; a longer output starts with the shorter. The hasher is unchanged:
 * more input may follow. */
void weir_blake3_final(const weir_blake3_hasher *hasher, uint8_t *out, size_t len);

/* The plain hash of one run of bytes. */
void weir_blake3(const void *data, size_t len, uint8_t out[WEIR_BLAKE3_OUT]);

#endif
