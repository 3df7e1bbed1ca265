/*
 * Fuzzes the JSON splitter: the same text in one piece and cut into small ones must give the same
 * elements and the same end; a text is a valid array by the splitter if and only if it is one by
 * the check of whole texts; and every element is a valid text by itself.
 *
 * Input: a byte that chooses the limits, a byte that chooses the cuts, then the text.
 */
#include "core/durable/json.h"

#include "support.h"

typedef struct outcome {
  weir_status status;
  size_t items;
  uint64_t hash, position;
} outcome;

static void feed(weir_json *json, const uint8_t *data, size_t len, outcome *out) {
  unsigned char *piece = copy_of(data, len);
  const unsigned char *at = piece;
  weir_slice item;
  while ((out->status = weir_json_next(json, &at, &len, &item)) == WEIR_OK) {
    check(item.len > 0 && item.len <= json->max_item);
    check(weir_json_check(item.ptr, item.len, 0, NULL, NULL) == WEIR_OK);
    mix(&out->hash, item.ptr, item.len);
    out->items++;
    weir_slice_unref(&item);
  }
  check(out->status != WEIR_E_AGAIN || len == 0);
  free(piece);
}

static outcome split(const uint8_t *data, size_t size, uint8_t limits, uint8_t cuts) {
  outcome out = {.status = WEIR_E_AGAIN};
  weir_json json;
  weir_json_init(&json, NULL, limits < 128 ? SIZE_MAX : (size_t)1 << (limits % 16),
                 limits < 128 ? 0 : limits % 8);
  uint32_t random = cuts;
  size_t fed = 0;
  while (out.status == WEIR_E_AGAIN && fed < size) {
    const size_t len = next_piece(&random, cuts, size - fed);
    feed(&json, data + fed, len, &out);
    fed += len;
  }
  if (out.status == WEIR_E_AGAIN) out.status = weir_json_end(&json);
  out.position = json.position;
  weir_json_free(&json);
  return out;
}

static int is_array(const uint8_t *data, size_t size) {
  size_t i = 0;
  while (i < size && (data[i] == ' ' || data[i] == '\t' || data[i] == '\r' || data[i] == '\n'))
    i++;
  return i < size && data[i] == '[';
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 2) return 0;
  const uint8_t *text = data + 2;
  const size_t len = size - 2;
  const outcome whole = split(text, len, data[0], 0);
  const outcome pieces = split(text, len, data[0], data[1] < 2 ? 2 : data[1]);
  check(whole.status == pieces.status);
  check(whole.items == pieces.items);
  check(whole.hash == pieces.hash);
  check(whole.position == pieces.position);
  if (data[0] < 128) {
    const weir_status checked = weir_json_check(text, len, 0, NULL, NULL);
    check((whole.status == WEIR_OK) == (checked == WEIR_OK && is_array(text, len)));
  }
  return 0;
}
