/*
 * weir_alloc: the one way in which the core gets memory.
 *
 * Every object that allocates takes a `const weir_alloc *` when it is made and keeps it; NULL means
 * the C library's allocator. The structure must outlive the objects made with it. Tests pass one
 * that fails on demand.
 */
#ifndef WEIR_ALLOC_H
#define WEIR_ALLOC_H

#include <stddef.h>

typedef struct weir_alloc {
  /* realloc() semantics: ptr may be NULL; size 0 frees and returns NULL. NULL on failure otherwise,
   * with the old block left as it was. */
  void *(*resize)(void *ctx, void *ptr, size_t size);
  void *ctx;
} weir_alloc;

/* The allocator to use for `alloc`: itself, or the C library's when it is NULL. */
const weir_alloc *weir_alloc_or_default(const weir_alloc *alloc);

/* Uninitialised memory, or NULL. `size` must not be 0. */
void *weir_malloc(const weir_alloc *alloc, size_t size);
/* Zeroed memory, or NULL; also NULL when count * size overflows. */
void *weir_calloc(const weir_alloc *alloc, size_t count, size_t size);
/* Resizes an array of `count` elements; NULL (and the old block kept) on failure or overflow. */
void *weir_resize_array(const weir_alloc *alloc, void *ptr, size_t count, size_t size);
/* ptr may be NULL. */
void weir_free(const weir_alloc *alloc, void *ptr);

#endif
