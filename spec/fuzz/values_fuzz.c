/*
 * Fuzzes the finder of values' ends: the same bytes in one piece and cut into small ones must give
 * the same ends and the same outcome, and no value is longer than allowed.
 *
 * Input: a byte that chooses format and limit, a byte that chooses the cuts, then the values.
 */
#include "core/durable/values.h"

#include "support.h"

typedef struct outcome {
  weir_status status;
  size_t count, last;
  uint64_t hash;
} outcome;

static void feed(weir_values *values, const uint8_t *data, size_t len, size_t before,
                 outcome *out) {
  uint8_t *piece = copy_of(data, len);
  size_t at = 0, taken = 0;
  while ((out->status = weir_values_next(values, piece + at, len - at, &taken)) == WEIR_OK) {
    check(taken > 0);
    at += taken;
    check(before + at - out->last <= values->max_value);
    out->last = before + at;
    mix(&out->hash, &out->last, sizeof out->last);
    out->count++;
  }
  check(taken <= len - at);
  check(out->status != WEIR_E_AGAIN || taken == len - at);
  check(out->status == WEIR_E_AGAIN || values->error != NULL);
  free(piece);
}

static outcome scan(const uint8_t *data, size_t size, uint8_t choice, uint8_t cuts) {
  outcome out = {.status = WEIR_E_AGAIN};
  weir_values values;
  weir_values_init(&values, choice & 1 ? WEIR_VALUES_CBOR : WEIR_VALUES_MSGPACK,
                   choice & 2 ? SIZE_MAX : (size_t)1 << (choice >> 2) % 16);
  uint32_t random = cuts;
  size_t fed = 0;
  while (out.status == WEIR_E_AGAIN && fed < size) {
    const size_t len = next_piece(&random, cuts, size - fed);
    feed(&values, data + fed, len, fed, &out);
    fed += len;
  }
  return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 2) return 0;
  const outcome whole = scan(data + 2, size - 2, data[0], 0);
  const outcome pieces = scan(data + 2, size - 2, data[0], data[1] < 2 ? 2 : data[1]);
  check(whole.status == pieces.status);
  check(whole.count == pieces.count);
  check(whole.last == pieces.last);
  check(whole.hash == pieces.hash);
  return 0;
}
