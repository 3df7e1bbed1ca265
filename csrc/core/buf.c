#include "core/buf.h"

#include <string.h>

weir_buf *weir_buf_new(const weir_alloc *alloc, size_t size) {
  if (size > SIZE_MAX - sizeof(weir_buf)) return NULL;
  alloc = weir_alloc_or_default(alloc);
  weir_buf *buf = weir_malloc(alloc, sizeof(weir_buf) + size);
  if (buf == NULL) return NULL;
  buf->alloc = alloc;
  buf->refs = 1;
  buf->size = size;
  return buf;
}

weir_buf *weir_buf_copy(const weir_alloc *alloc, const void *data, size_t len) {
  weir_buf *buf = weir_buf_new(alloc, len);
  if (buf != NULL && len > 0) memcpy(buf->data, data, len);
  return buf;
}

weir_buf *weir_buf_resize(weir_buf *buf, size_t size) {
  if (size > SIZE_MAX - sizeof(weir_buf)) return NULL;
  weir_buf *resized = weir_resize_array(buf->alloc, buf, 1, sizeof(weir_buf) + size);
  if (resized != NULL) resized->size = size;
  return resized;
}

void weir_buf_free(weir_buf *buf) { weir_free(buf->alloc, buf); }

void weir_slab_init(weir_slab *slab, const weir_alloc *alloc, size_t block) {
  slab->alloc = weir_alloc_or_default(alloc);
  slab->buf = NULL;
  slab->used = 0;
  slab->block = block;
}

void weir_slab_reset(weir_slab *slab) {
  weir_buf_unref(slab->buf);
  slab->buf = NULL;
  slab->used = 0;
}

/* Makes the slab's block one with room for `len` bytes. */
static weir_status renew(weir_slab *slab, size_t len) {
  if (slab->buf != NULL && slab->buf->refs == 1 && len <= slab->buf->size) {
    slab->used = 0; /* every slice carved from it is gone: carve it anew */
    return WEIR_OK;
  }
  weir_buf *buf = weir_buf_new(slab->alloc, slab->block);
  if (buf == NULL) return WEIR_E_NOMEM;
  weir_buf_unref(slab->buf);
  slab->buf = buf;
  slab->used = 0;
  return WEIR_OK;
}

weir_status weir_slab_carve_slow(weir_slab *slab, size_t len, weir_slice *out,
                                 unsigned char **bytes) {
  if (len > slab->block / 4) {
    weir_buf *own = weir_buf_new(slab->alloc, len);
    if (own == NULL) return WEIR_E_NOMEM;
    *out = (weir_slice){own, own->data, len};
    *bytes = own->data;
    return WEIR_OK;
  }
  weir_status status = renew(slab, len);
  if (status != WEIR_OK) return status;
  return weir_slab_carve(slab, len, out, bytes);
}
