#include "core/frame.h"

#include <string.h>

#define FIRST_RESERVE 4096

void weir_frame_reader_init(weir_frame_reader *reader, const weir_alloc *alloc, size_t max) {
  *reader = (weir_frame_reader){
      .alloc = weir_alloc_or_default(alloc),
      .max = max > UINT32_MAX ? UINT32_MAX : (uint32_t)max,
  };
}

void weir_frame_reader_reset(weir_frame_reader *reader) {
  weir_buf_unref(reader->buf);
  reader->buf = NULL;
  reader->have = 0;
  reader->length = 0;
  reader->header_have = 0;
}

/* Takes header bytes from the input; true once all four are there. */
static bool take_header(weir_frame_reader *reader, const unsigned char **data, size_t *len) {
  while (reader->header_have<WEIR_FRAME_HEADER && * len> 0) {
    reader->header[reader->header_have++] = *(*data)++;
    --*len;
  }
  if (reader->header_have < WEIR_FRAME_HEADER) return false;
  reader->length = weir_get_u32(reader->header);
  return true;
}

/* Makes room for `want` payload bytes, which is at most the payload's length. */
static weir_status reserve(weir_frame_reader *reader, size_t want) {
  if (reader->buf != NULL && want <= reader->buf->size) return WEIR_OK;
  size_t size = want > SIZE_MAX / 4 ? SIZE_MAX : want * 4;
  if (size < FIRST_RESERVE) size = FIRST_RESERVE;
  if (size > reader->length) size = reader->length;
  weir_buf *buf =
      reader->buf == NULL ? weir_buf_new(reader->alloc, size) : weir_buf_resize(reader->buf, size);
  if (buf == NULL) return WEIR_E_NOMEM;
  reader->buf = buf;
  return WEIR_OK;
}

weir_status weir_frame_reader_next_slow(weir_frame_reader *reader, const unsigned char **data,
                                        size_t *len, weir_slice *frame) {
  if (!take_header(reader, data, len)) return WEIR_E_AGAIN;
  if (reader->length > reader->max) return WEIR_E_LIMIT;

  size_t missing = reader->length - reader->have;
  if (reader->have == 0 && missing <= *len) { /* only the header came in pieces */
    *frame = (weir_slice){NULL, *data, missing};
    *data += missing;
    *len -= missing;
    weir_frame_reader_reset(reader);
    return WEIR_OK;
  }

  size_t take = missing < *len ? missing : *len;
  if (take == 0) return WEIR_E_AGAIN;
  weir_status status = reserve(reader, reader->have + take);
  if (status != WEIR_OK) return status;
  memcpy(reader->buf->data + reader->have, *data, take);
  reader->have += take;
  *data += take;
  *len -= take;
  if (take < missing) return WEIR_E_AGAIN;

  *frame = (weir_slice){reader->buf, reader->buf->data, reader->length};
  reader->buf = NULL; /* the caller's now */
  weir_frame_reader_reset(reader);
  return WEIR_OK;
}
