/*
 * What the core's tests share: cmocka, and an allocator that counts what is live and fails on
 * demand.
 *
 *   weir_test_alloc memory;
 *   weir_test_alloc_init(&memory);
 *   ... &memory.alloc ...
 *   assert_no_leak(&memory);
 *
 * memory_test(name) does this around each test. each_failure() runs a scenario again and again,
 * with its first allocation failing, then its second, and so on until none fails.
 */
#ifndef WEIR_SPEC_SUPPORT_H
#define WEIR_SPEC_SUPPORT_H

/* cmocka.h needs the first four before it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "core/alloc.h"
#include "core/status.h"

typedef struct weir_test_alloc {
  weir_alloc alloc;
  size_t blocks;  /* live now */
  size_t bytes;   /* live now */
  size_t peak;    /* most bytes that were live at a time */
  size_t calls;   /* times memory was asked for: new blocks and larger ones */
  size_t fail_at; /* which of these calls fails, from 1; 0: none */
  int fail_rest;  /* whether all calls after it fail as well */
} weir_test_alloc;

/* In front of each block, as wide as the strictest alignment. */
typedef union weir_test_block {
  size_t size;
  max_align_t align;
} weir_test_block;

static inline void *weir_test_resize(void *ctx, void *ptr, size_t size) {
  weir_test_alloc *memory = ctx;
  weir_test_block *old = ptr != NULL ? (weir_test_block *)ptr - 1 : NULL;
  size_t old_size = old != NULL ? old->size : 0;
  if (size > old_size) {
    size_t call = ++memory->calls;
    if (memory->fail_at != 0 &&
        (memory->fail_rest ? call >= memory->fail_at : call == memory->fail_at)) {
      return NULL;
    }
  }
  /* A resized block always moves, so that a pointer kept across it shows under ASan. */
  weir_test_block *block = NULL;
  if (size > 0) {
    block = malloc(sizeof *block + size);
    if (block == NULL) return NULL;
    block->size = size;
    memset(block + 1, 0xa5, size);
    if (old != NULL) memcpy(block + 1, old + 1, size < old_size ? size : old_size);
    memory->blocks++;
    memory->bytes += size;
  }
  if (old != NULL) {
    memory->blocks--;
    memory->bytes -= old_size;
    free(old);
  }
  if (memory->bytes > memory->peak) memory->peak = memory->bytes;
  return block != NULL ? block + 1 : NULL;
}

/* Binds the allocator to where it lives now; the structure must not move afterwards. */
static inline void weir_test_alloc_init(weir_test_alloc *memory) {
  *memory = (weir_test_alloc){.alloc = {weir_test_resize, memory}};
}

#define assert_no_leak(memory)             \
  do {                                     \
    assert_int_equal((memory)->blocks, 0); \
    assert_int_equal((memory)->bytes, 0);  \
  } while (0)

#define assert_ok(status) assert_string_equal(weir_status_name(status), "ok")
#define assert_status(status, expected) \
  assert_string_equal(weir_status_name(status), weir_status_name(expected))

/* Runs `scenario` with allocation 1, 2, ... failing until it needs no more than have been tried.
 * It must free all that it made; what it does in between is its own affair. */
static inline void each_failure(void (*scenario)(weir_test_alloc *memory)) {
  for (size_t n = 1;; n++) {
    weir_test_alloc memory;
    weir_test_alloc_init(&memory);
    memory.fail_at = n;
    scenario(&memory);
    assert_no_leak(&memory);
    if (memory.calls < n) return;
  }
}

/* A test made with this gets a weir_test_alloc as its state, and fails if memory is left at its
 * end. */
#define memory_test(name) \
  cmocka_unit_test_setup_teardown(name, weir_test_set_up, weir_test_tear_down)

static inline int weir_test_set_up(void **state) {
  weir_test_alloc *memory = malloc(sizeof *memory);
  if (memory == NULL) return -1;
  weir_test_alloc_init(memory);
  *state = memory;
  return 0;
}

static inline int weir_test_tear_down(void **state) {
  weir_test_alloc *memory = *state;
  int leaked = memory->blocks != 0;
  if (leaked) print_error("%zu blocks with %zu bytes leaked\n", memory->blocks, memory->bytes);
  free(memory);
  return leaked ? -1 : 0;
}

/* A copy in a block of its own, so that ASan sees reads beyond it or after it is freed. */
static inline unsigned char *weir_test_copy(const void *bytes, size_t len) {
  unsigned char *copy = malloc(len > 0 ? len : 1);
  assert_non_null(copy);
  if (len > 0) memcpy(copy, bytes, len);
  return copy;
}

/* The same small, fast stream of numbers for each seed. */
static inline uint64_t weir_test_random(uint64_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state;
}

#endif
