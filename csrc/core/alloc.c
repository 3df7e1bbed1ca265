#include "core/alloc.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static void *libc_resize(void *ctx, void *ptr, size_t size) {
  (void)ctx;
  if (size == 0) {
    free(ptr);
    return NULL;
  }
  return realloc(ptr, size);
}

const weir_alloc *weir_alloc_or_default(const weir_alloc *alloc) {
  static const weir_alloc libc_alloc = {libc_resize, NULL};
  return alloc != NULL ? alloc : &libc_alloc;
}

void *weir_malloc(const weir_alloc *alloc, size_t size) {
  alloc = weir_alloc_or_default(alloc);
  return alloc->resize(alloc->ctx, NULL, size);
}

void *weir_calloc(const weir_alloc *alloc, size_t count, size_t size) {
  void *ptr = weir_resize_array(alloc, NULL, count, size);
  if (ptr != NULL) memset(ptr, 0, count * size);
  return ptr;
}

void *weir_resize_array(const weir_alloc *alloc, void *ptr, size_t count, size_t size) {
  /* A product of 0 would mean "free" to the hook, and the caller would keep a dead pointer. */
  if (count == 0 || size == 0 || count > SIZE_MAX / size) return NULL;
  alloc = weir_alloc_or_default(alloc);
  return alloc->resize(alloc->ctx, ptr, count * size);
}

void weir_free(const weir_alloc *alloc, void *ptr) {
  if (ptr == NULL) return;
  alloc = weir_alloc_or_default(alloc);
  alloc->resize(alloc->ctx, ptr, 0);
}
