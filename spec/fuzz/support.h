/*
 * What the fuzz targets share: a check that ends the process, copies that show an overrun, an input
 * that is taken byte by byte or cut into pieces, and an allocator that counts.
 */
#ifndef WEIR_SPEC_FUZZ_H
#define WEIR_SPEC_FUZZ_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static inline void check(int condition) {
  if (!condition) abort();
}

/* A copy in a block of exactly this length: the sanitizer sees what reads beyond it, or reads it
 * once the caller has freed it. */
static inline unsigned char *copy_of(const void *bytes, size_t len) {
  unsigned char *copy = malloc(len > 0 ? len : 1);
  if (copy == NULL) abort();
  if (len > 0) memcpy(copy, bytes, len);
  return copy;
}

/* Mixes bytes, and where they end, into what stands for all that came out. */
static inline void mix(uint64_t *hash, const void *bytes, size_t len) {
  const unsigned char *at = bytes;
  for (size_t i = 0; i < len; i++)
    *hash = (*hash ^ at[i]) * UINT64_C(0x100000001b3);
  *hash = (*hash ^ len ^ 0x100) * UINT64_C(0x100000001b3);
}

/* The length of the next piece of an input of which `left` bytes are left: all of them where `cuts`
 * is 0, else less than `cuts`. `random` begins as anything, and is kept between the pieces. */
static inline size_t next_piece(uint32_t *random, uint8_t cuts, size_t left) {
  *random = *random * 1664525 + 1013904223;
  const size_t len = cuts == 0 ? left : (*random >> 24) % cuts;
  return len < left ? len : left;
}

/* An input that says what happens. */
typedef struct input {
  const uint8_t *at;
  size_t left;
} input;

/* The next byte; 0 when there is none left. */
static inline uint8_t byte(input *in) {
  if (in->left == 0) return 0;
  in->left--;
  return *in->at++;
}

/* The next bytes, up to *len of them, where they stand in the input; *len becomes how many. */
static inline const uint8_t *next_bytes(input *in, size_t *len) {
  const uint8_t *bytes = in->at;
  if (*len > in->left) *len = in->left;
  in->at += *len;
  in->left -= *len;
  return bytes;
}

/* --- memory ----------------------------------------------------------------------------------- */

/* An allocator, and what it gave: bytes that are live, the most of them at a time, calls that asked
 * for more, and which of these calls fails (0: none). */
typedef struct counted_memory {
  weir_alloc alloc;
  size_t live, most, calls, fail_at;
} counted_memory;

static inline void *counted_resize(void *ctx, void *ptr, size_t size) {
  counted_memory *memory = ctx;
  size_t *block = ptr == NULL ? NULL : (size_t *)ptr - 2;
  const size_t old = block == NULL ? 0 : *block;
  if (size > old && ++memory->calls == memory->fail_at) return NULL;
  memory->live -= old;
  if (size == 0) {
    free(block);
    return NULL;
  }
  block = realloc(block, size + 2 * sizeof *block);
  check(block != NULL);
  *block = size;
  memory->live += size;
  if (memory->live > memory->most) memory->most = memory->live;
  return block + 2;
}

/* Binds it to where it lives now. */
static inline void counted_init(counted_memory *memory) {
  *memory = (counted_memory){.alloc = {counted_resize, memory}};
}

#endif
