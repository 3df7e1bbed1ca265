/*
 * weir_buf, weir_slice, weir_slab: reference-counted bytes.
 *
 * A weir_buf is one block of memory with a count of its holders. A weir_slice is a run of bytes in
 * such a block together with one of these references (buf != NULL), or bytes that somebody else
 * keeps alive (buf == NULL: borrowed). A weir_slab carves many small runs out of few blocks, in
 * order, so that neighbours can be written to a socket as one run.
 *
 * Counts are not atomic: a buf belongs to one thread.
 */
#ifndef WEIR_BUF_H
#define WEIR_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/alloc.h"
#include "core/status.h"

typedef struct weir_buf {
  const weir_alloc *alloc;
  uint32_t refs;
  size_t size; /* bytes in data */
  unsigned char data[];
} weir_buf;

/* A block of `size` bytes with one reference, or NULL. */
weir_buf *weir_buf_new(const weir_alloc *alloc, size_t size);
/* A block that holds a copy of `len` bytes, or NULL. */
weir_buf *weir_buf_copy(const weir_alloc *alloc, const void *data, size_t len);
/* Changes the size of a block that has exactly one reference; NULL (block kept) on failure. */
weir_buf *weir_buf_resize(weir_buf *buf, size_t size);
void weir_buf_free(weir_buf *buf);

static inline weir_buf *weir_buf_ref(weir_buf *buf) {
  if (buf != NULL) buf->refs++;
  return buf;
}

static inline void weir_buf_unref(weir_buf *buf) {
  if (buf != NULL && --buf->refs == 0) weir_buf_free(buf);
}

typedef struct weir_slice {
  weir_buf *buf; /* owned reference, or NULL for borrowed bytes */
  const unsigned char *ptr;
  size_t len;
} weir_slice;

/* Another reference to the same bytes. */
static inline weir_slice weir_slice_ref(weir_slice slice) {
  weir_buf_ref(slice.buf);
  return slice;
}

static inline void weir_slice_unref(weir_slice *slice) {
  weir_buf_unref(slice->buf);
  slice->buf = NULL;
  slice->ptr = NULL;
  slice->len = 0;
}

/* Whether `next` starts where `slice` ends in the same block, so that the two are one run. */
static inline bool weir_slice_adjoins(const weir_slice *slice, const weir_slice *next) {
  return slice->buf != NULL && slice->buf == next->buf && slice->ptr + slice->len == next->ptr;
}

/* One run of bytes to write: what struct iovec is to writev(). */
typedef struct weir_iov {
  const void *base;
  size_t len;
} weir_iov;

typedef struct weir_slab {
  const weir_alloc *alloc;
  weir_buf *buf; /* the block being carved, or NULL */
  size_t used;   /* bytes carved from it */
  size_t block;  /* size of the blocks to make */
} weir_slab;

/* Blocks of `block` bytes are made when first needed; a run that does not fit in what is left of
 * the current one and is over a quarter of `block` gets a block of its own, so that little is
 * wasted. A full block that nobody else holds any more is carved again. */
void weir_slab_init(weir_slab *slab, const weir_alloc *alloc, size_t block);
/* Drops the slab's own reference; slices carved from it stay valid. */
void weir_slab_reset(weir_slab *slab);
/* The part of weir_slab_carve() that may allocate; not to be called directly. */
weir_status weir_slab_carve_slow(weir_slab *slab, size_t len, weir_slice *out,
                                 unsigned char **bytes);

/* Carves `len` writable bytes; *out then owns a reference. WEIR_E_NOMEM leaves all as it was. */
static inline weir_status weir_slab_carve(weir_slab *slab, size_t len, weir_slice *out,
                                          unsigned char **bytes) {
  weir_buf *buf = slab->buf;
  if (buf == NULL || len > buf->size - slab->used) {
    return weir_slab_carve_slow(slab, len, out, bytes);
  }
  unsigned char *run = buf->data + slab->used;
  slab->used += len;
  buf->refs++;
  *out = (weir_slice){buf, run, len};
  *bytes = run;
  return WEIR_OK;
}

#endif
