#include "core/blake3.h"

#include <string.h>

enum { /* domain flags, specification 2.2 */
  CHUNK_START = 1,
  CHUNK_END = 2,
  PARENT = 4,
  ROOT = 8,
  KEYED_HASH = 16,
  DERIVE_KEY_CONTEXT = 32,
  DERIVE_KEY_MATERIAL = 64
};

#define BLOCK 64

static const uint32_t iv[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                               0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

/* Which message word a position takes in each of the 7 rounds: the permutation of table 2 of the
 * specification, applied again and again. */
static const uint8_t schedule[7][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8},
    {3, 4, 10, 12, 13, 2, 7, 14, 6, 5, 9, 0, 11, 15, 8, 1},
    {10, 7, 12, 9, 14, 3, 13, 15, 4, 0, 11, 2, 5, 8, 1, 6},
    {12, 13, 9, 11, 15, 10, 14, 8, 7, 2, 5, 3, 0, 1, 6, 4},
    {9, 14, 11, 5, 8, 12, 15, 1, 13, 3, 0, 10, 2, 6, 4, 7},
    {11, 15, 5, 0, 1, 9, 8, 6, 14, 10, 2, 12, 3, 4, 7, 13},
};

/* All that a compression needs: what it makes is a chaining value or, for the root, output. */
typedef struct node {
  uint32_t cv[8];
  uint32_t words[16];
  uint64_t counter;
  uint32_t block_len;
  uint32_t flags;
} node;

static uint32_t load(const unsigned char *in) {
  return (uint32_t)in[3] << 24 | (uint32_t)in[2] << 16 | (uint32_t)in[1] << 8 | in[0];
}

static void load_words(uint32_t *words, const unsigned char *in, size_t count) {
  for (size_t i = 0; i < count; i++)
    words[i] = load(in + 4 * i);
}

static uint32_t rotate(uint32_t value, int by) { return value >> by | value << (32 - by); }

/* The quarter-round G of 2.2 on the state words a, b, c and d. */
static inline void mix(uint32_t *v, int a, int b, int c, int d, uint32_t x, uint32_t y) {
  v[a] += v[b] + x;
  v[d] = rotate(v[d] ^ v[a], 16);
  v[c] += v[d];
  v[b] = rotate(v[b] ^ v[c], 12);
  v[a] += v[b] + y;
  v[d] = rotate(v[d] ^ v[a], 8);
  v[c] += v[d];
  v[b] = rotate(v[b] ^ v[c], 7);
}

static void compress(const node *n, uint32_t out[16]) {
  uint32_t v[16];
  memcpy(v, n->cv, 32);
  memcpy(v + 8, iv, 16);
  v[12] = (uint32_t)n->counter;
  v[13] = (uint32_t)(n->counter >> 32);
  v[14] = n->block_len;
  v[15] = n->flags;
  for (int round = 0; round < 7; round++) {
    const uint8_t *s = schedule[round];
    const uint32_t *m = n->words;
    mix(v, 0, 4, 8, 12, m[s[0]], m[s[1]]);
    mix(v, 1, 5, 9, 13, m[s[2]], m[s[3]]);
    mix(v, 2, 6, 10, 14, m[s[4]], m[s[5]]);
    mix(v, 3, 7, 11, 15, m[s[6]], m[s[7]]);
    mix(v, 0, 5, 10, 15, m[s[8]], m[s[9]]);
    mix(v, 1, 6, 11, 12, m[s[10]], m[s[11]]);
    mix(v, 2, 7, 8, 13, m[s[12]], m[s[13]]);
    mix(v, 3, 4, 9, 14, m[s[14]], m[s[15]]);
  }
  for (int i = 0; i < 8; i++) {
    out[i] = v[i] ^ v[i + 8];
    out[i + 8] = v[i + 8] ^ n->cv[i];
  }
}

static void chaining_value(const node *n, uint32_t cv[8]) {
  uint32_t out[16];
  compress(n, out);
  memcpy(cv, out, 32);
}

static void start_chunk(weir_blake3_hasher *hasher, uint64_t chunk) {
  memcpy(hasher->chunk_cv, hasher->key, 32);
  hasher->chunk = chunk;
  hasher->block_len = 0;
  hasher->blocks = 0;
}

/* The node of the block that waits in the chunk, zero-padded (2.4). */
static node chunk_node(const weir_blake3_hasher *hasher, uint32_t flags) {
  node n = {.counter = hasher->chunk, .block_len = hasher->block_len};
  unsigned char padded[BLOCK] = {0};
  memcpy(n.cv, hasher->chunk_cv, 32);
  memcpy(padded, hasher->block, hasher->block_len);
  load_words(n.words, padded, 16);
  n.flags = hasher->flags | flags | (hasher->blocks == 0 ? CHUNK_START : 0);
  return n;
}

/* The node over two subtrees (2.5). */
static node parent_node(const weir_blake3_hasher *hasher, const uint32_t left[8],
                        const uint32_t right[8]) {
  node n = {.block_len = BLOCK, .flags = hasher->flags | PARENT};
  memcpy(n.cv, hasher->key, 32);
  memcpy(n.words, left, 32);
  memcpy(n.words + 8, right, 32);
  return n;
}

/* The chunk is full and more input is there: puts its value on the stack. Each trailing 0 bit in
 * the number of chunks so far stands for a subtree that this chunk completes (5.1.2). */
static void finish_chunk(weir_blake3_hasher *hasher) {
  node n = chunk_node(hasher, CHUNK_END);
  uint32_t cv[8];
  chaining_value(&n, cv);
  uint64_t chunks = hasher->chunk + 1;
  for (uint64_t bits = chunks; (bits & 1) == 0; bits >>= 1) {
    n = parent_node(hasher, hasher->stack[--hasher->depth], cv);
    chaining_value(&n, cv);
  }
  memcpy(hasher->stack[hasher->depth++], cv, 32);
  start_chunk(hasher, chunks);
}

static void finish_block(weir_blake3_hasher *hasher) {
  node n = chunk_node(hasher, 0);
  chaining_value(&n, hasher->chunk_cv);
  hasher->blocks++;
  hasher->block_len = 0;
}

static void init(weir_blake3_hasher *hasher, const uint32_t key[8], uint32_t flags) {
  memcpy(hasher->key, key, 32);
  hasher->flags = flags;
  hasher->depth = 0;
  start_chunk(hasher, 0);
}

void weir_blake3_init(weir_blake3_hasher *hasher) { init(hasher, iv, 0); }

void weir_blake3_init_keyed(weir_blake3_hasher *hasher, const uint8_t key[WEIR_BLAKE3_KEY]) {
  uint32_t words[8];
  load_words(words, key, 8);
  init(hasher, words, KEYED_HASH);
}

void weir_blake3_init_derive_key(weir_blake3_hasher *hasher, const void *context, size_t len) {
  uint8_t key[WEIR_BLAKE3_KEY];
  uint32_t words[8];
  init(hasher, iv, DERIVE_KEY_CONTEXT);
  weir_blake3_update(hasher, context, len);
  weir_blake3_final(hasher, key, sizeof key);
  load_words(words, key, 8);
  init(hasher, words, DERIVE_KEY_MATERIAL);
}

void weir_blake3_update(weir_blake3_hasher *hasher, const void *data, size_t len) {
  const unsigned char *in = data;
  while (len > 0) {
    /* A full block waits until more input comes, for the last one of all gets other flags. */
    if (hasher->block_len == BLOCK) {
      if (hasher->blocks == WEIR_BLAKE3_CHUNK / BLOCK - 1) {
        finish_chunk(hasher);
      } else {
        finish_block(hasher);
      }
    }
    size_t take = BLOCK - hasher->block_len;
    if (take > len) take = len;
    memcpy(hasher->block + hasher->block_len, in, take);
    hasher->block_len += (uint8_t)take;
    in += take;
    len -= take;
  }
}

/* The root: the waiting chunk, or the parents that join it with all subtrees on the stack. */
static node root_node(const weir_blake3_hasher *hasher) {
  node n = chunk_node(hasher, CHUNK_END);
  for (size_t depth = hasher->depth; depth > 0; depth--) {
    uint32_t right[8];
    chaining_value(&n, right);
    n = parent_node(hasher, hasher->stack[depth - 1], right);
  }
  n.flags |= ROOT;
  return n;
}

void weir_blake3_final(const weir_blake3_hasher *hasher, uint8_t *out, size_t len) {
  node root = root_node(hasher);
  /* The root is chunk 0 or a parent: its counter starts at 0 and numbers the blocks of output
   * (2.6). */
  for (size_t done = 0; done < len; root.counter++) {
    uint32_t words[16];
    compress(&root, words);
    for (size_t i = 0; i < BLOCK && done < len; i++, done++) {
      out[done] = (uint8_t)(words[i / 4] >> 8 * (i % 4));
    }
  }
}

void weir_blake3(const void *data, size_t len, uint8_t out[WEIR_BLAKE3_OUT]) {
  weir_blake3_hasher hasher;
  weir_blake3_init(&hasher);
  weir_blake3_update(&hasher, data, len);
  weir_blake3_final(&hasher, out, WEIR_BLAKE3_OUT);
}
