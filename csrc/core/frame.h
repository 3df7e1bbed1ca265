/*
 * weir_frame_reader: cuts a byte stream into length-delimited frames.
 *
 * A frame is a 4-byte big-endian payload length and the payload, which may be empty. Hand the
 * reader each piece of input and call weir_frame_reader_next() until it says WEIR_E_AGAIN:
 *
 *   while ((status = weir_frame_reader_next(&reader, &data, &len, &frame)) == WEIR_OK) {
 *     use(&frame);
 *     weir_slice_unref(&frame);
 *   }
 *   if (status != WEIR_E_AGAIN) close the connection;
 *
 * The reader owns only the frame that it is in the middle of. A payload that lies wholly in the
 * input is borrowed from it (frame.buf == NULL: valid as long as the input is); one that arrived in
 * pieces is handed over as an owned slice. Memory for the latter follows the bytes that came (four
 * times as many, at least 4 KiB, never over the payload's length), so announcing a length costs us
 * nothing.
 */
#ifndef WEIR_FRAME_H
#define WEIR_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/buf.h"
#include "core/bytes.h"
#include "core/status.h"

#define WEIR_FRAME_HEADER 4

typedef struct weir_frame_reader {
  const weir_alloc *alloc;
  weir_buf *buf;   /* the payload's first `have` bytes, or NULL */
  size_t have;     /* payload bytes assembled */
  uint32_t max;    /* largest legal payload */
  uint32_t length; /* announced payload length, known once header_have is 4 */
  uint8_t header_have;
  unsigned char header[WEIR_FRAME_HEADER];
} weir_frame_reader;

/* `max`: the largest payload in bytes; sizes that four bytes cannot say are cut to those they can.
 */
void weir_frame_reader_init(weir_frame_reader *reader, const weir_alloc *alloc, size_t max);
/* Drops the frame being assembled, as for a new connection. Also what frees the reader's memory. */
void weir_frame_reader_reset(weir_frame_reader *reader);
/* The same as reset: the reader may be forgotten afterwards. */
static inline void weir_frame_reader_free(weir_frame_reader *reader) {
  weir_frame_reader_reset(reader);
}

/* Whether part of a frame has been taken: at the end of the stream, that it was cut short. */
static inline bool weir_frame_reader_partial(const weir_frame_reader *reader) {
  return reader->header_have > 0;
}

/* The part of weir_frame_reader_next() for frames in pieces; not to be called directly. */
weir_status weir_frame_reader_next_slow(weir_frame_reader *reader, const unsigned char **data,
                                        size_t *len, weir_slice *frame);

/*
 * Takes the next frame from the *len bytes at *data and moves both past what it took.
 *
 *   WEIR_OK          *frame is a whole payload; unref it when done (borrowed or not)
 *   WEIR_E_AGAIN     all input is taken and the frame needs more
 *   WEIR_E_LIMIT     the announced length is over the maximum: seen as soon as its four bytes are
 *                    there, nothing was reserved; the reader stays so until it is reset
 *   WEIR_E_NOMEM     nothing of the payload in this input was taken; the call may be repeated
 */
static inline weir_status weir_frame_reader_next(weir_frame_reader *reader,
                                                 const unsigned char **data, size_t *len,
                                                 weir_slice *frame) {
  if (reader->header_have == 0 && *len >= WEIR_FRAME_HEADER) {
    uint32_t length = weir_get_u32(*data);
    if (length <= reader->max && length <= *len - WEIR_FRAME_HEADER) {
      *frame = (weir_slice){NULL, *data + WEIR_FRAME_HEADER, length};
      *data += WEIR_FRAME_HEADER + (size_t)length;
      *len -= WEIR_FRAME_HEADER + (size_t)length;
      return WEIR_OK;
    }
  }
  return weir_frame_reader_next_slow(reader, data, len, frame);
}

/* Writes the header of a frame with a payload of `length` bytes. */
static inline void weir_frame_put_length(unsigned char out[WEIR_FRAME_HEADER], uint32_t length) {
  weir_put_u32(out, length);
}

#endif
