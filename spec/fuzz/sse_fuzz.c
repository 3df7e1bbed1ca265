/*
 * Fuzzes the parser of server-sent events: the same bytes in one piece and cut into small ones must
 * give the same events and the same end, and no data beyond the limit.
 *
 * Input: a byte that chooses the limit, a byte that chooses the cuts, then the stream.
 */
#include "core/durable/sse.h"

#include "support.h"

typedef struct outcome {
  weir_status status;
  size_t events;
  uint64_t hash;
} outcome;

static void feed(weir_sse *sse, const uint8_t *data, size_t len, outcome *out) {
  unsigned char *piece = copy_of(data, len);
  const unsigned char *at = piece;
  weir_sse_event event;
  while ((out->status = weir_sse_next(sse, &at, &len, &event)) == WEIR_OK) {
    check(event.data.len <= sse->max && event.type_len <= WEIR_SSE_TYPE_MAX);
    mix(&out->hash, event.type, event.type_len);
    mix(&out->hash, event.data.ptr, event.data.len);
    out->events++;
    weir_slice_unref(&event.data);
  }
  check(out->status == WEIR_E_LIMIT || (out->status == WEIR_E_AGAIN && len == 0));
  free(piece);
}

static outcome parse(const uint8_t *data, size_t size, size_t max, uint8_t cuts) {
  outcome out = {.status = WEIR_E_AGAIN};
  weir_sse sse;
  weir_sse_init(&sse, NULL, max);
  uint32_t random = cuts;
  size_t fed = 0;
  while (out.status == WEIR_E_AGAIN && fed < size) {
    const size_t len = next_piece(&random, cuts, size - fed);
    feed(&sse, data + fed, len, &out);
    fed += len;
  }
  weir_sse_free(&sse);
  return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 2) return 0;
  const size_t max = (size_t)1 << (data[0] % 20);
  const outcome whole = parse(data + 2, size - 2, max, 0);
  const outcome pieces = parse(data + 2, size - 2, max, data[1] < 2 ? 2 : data[1]);
  check(whole.status == pieces.status);
  check(whole.events == pieces.events);
  check(whole.hash == pieces.hash);
  return 0;
}
