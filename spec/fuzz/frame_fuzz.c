/*
 * Fuzzes the frame reader: the same bytes in one piece and cut into small ones must give the same
 * frames and the same end, whatever they are, and never more memory than the bytes that came allow.
 *
 * Input: a byte that chooses the largest payload, a byte that chooses the cuts, then the stream.
 */
#include "core/frame.h"

#include "support.h"

/* Everything that must be equal: how it ended, and each frame's length and bytes. */
typedef struct outcome {
  weir_status status;
  int partial;
  size_t frames;
  uint64_t hash;
} outcome;

static weir_status feed(weir_frame_reader *reader, const uint8_t *data, size_t len, outcome *out) {
  unsigned char *piece = copy_of(data, len);
  const unsigned char *at = piece;
  size_t left = len;
  weir_slice frame;
  weir_status status;
  while ((status = weir_frame_reader_next(reader, &at, &left, &frame)) == WEIR_OK) {
    check(frame.len <= reader->max);
    unsigned char header[WEIR_FRAME_HEADER];
    weir_frame_put_length(header, (uint32_t)frame.len);
    mix(&out->hash, header, sizeof header);
    mix(&out->hash, frame.ptr, frame.len);
    out->frames++;
    weir_slice_unref(&frame);
  }
  check(at + left == piece + len);
  check(status == WEIR_E_LIMIT || (status == WEIR_E_AGAIN && left == 0));
  free(piece);
  return status;
}

static outcome parse(const uint8_t *data, size_t size, size_t max, uint8_t cuts) {
  outcome out = {.status = WEIR_E_AGAIN};
  weir_frame_reader reader;
  weir_frame_reader_init(&reader, NULL, max);
  uint32_t random = cuts;
  size_t fed = 0;
  while (out.status == WEIR_E_AGAIN && fed < size) {
    const size_t len = next_piece(&random, cuts, size - fed);
    out.status = feed(&reader, data + fed, len, &out);
    fed += len;
    size_t most = 4 * fed > 4096 ? 4 * fed : 4096;
    check(reader.buf == NULL || reader.buf->size <= most);
  }
  out.partial = weir_frame_reader_partial(&reader);
  weir_frame_reader_free(&reader);
  return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 2) return 0;
  size_t max = (size_t)1 << (data[0] % 33);
  uint8_t cuts = data[1] < 2 ? 2 : data[1];
  outcome whole = parse(data + 2, size - 2, max, 0);
  outcome pieces = parse(data + 2, size - 2, max, cuts);
  check(whole.status == pieces.status);
  check(whole.partial == pieces.partial);
  check(whole.frames == pieces.frames);
  check(whole.hash == pieces.hash);
  return 0;
}
