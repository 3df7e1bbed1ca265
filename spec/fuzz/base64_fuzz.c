/*
 * Fuzzes base64: what decodes must encode to the same text without its line breaks (so that there
 * is one text for each run of bytes), and what encodes must decode to the same bytes.
 */
#include "core/durable/base64.h"

#include "support.h"

static void *allocate(size_t size) {
  void *ptr = malloc(size > 0 ? size : 1);
  check(ptr != NULL);
  return ptr;
}

static void decode(const uint8_t *text, size_t size) {
  size_t len, plain_len = 0;
  unsigned char *bytes = allocate(WEIR_BASE64_DECODED(size));
  if (weir_base64_decode(text, size, bytes, &len) == WEIR_OK) {
    char *plain = allocate(size), *again = allocate(WEIR_BASE64_ENCODED(len));
    for (size_t i = 0; i < size; i++) {
      if (text[i] != '\n' && text[i] != '\r') plain[plain_len++] = (char)text[i];
    }
    check(plain_len == WEIR_BASE64_ENCODED(len));
    weir_base64_encode(bytes, len, again);
    check(memcmp(plain, again, plain_len) == 0);
    free(plain);
    free(again);
  }
  free(bytes);
}

static void encode(const uint8_t *bytes, size_t size) {
  const size_t text_len = WEIR_BASE64_ENCODED(size);
  char *text = allocate(text_len);
  unsigned char *again = allocate(WEIR_BASE64_DECODED(text_len));
  size_t len;
  weir_base64_encode(bytes, size, text);
  check(weir_base64_decode(text, text_len, again, &len) == WEIR_OK);
  check(len == size && memcmp(again, bytes, size) == 0);
  free(text);
  free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  uint8_t *copy = copy_of(data, size);
  decode(copy, size);
  encode(copy, size);
  free(copy);
  return 0;
}
