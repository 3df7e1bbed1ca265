/*
 * Fuzzes what the protocol says in the head of an answer: whatever the headers are, texts keep
 * their bounds, the verdict and its name agree, and the letters' case does not matter.
 *
 * Input: a byte for the kind of request and the transport, two for the status, one for the clock,
 * then lines "name:value".
 */
#include "core/durable/response.h"

#include "support.h"

/* A copy, with the case of its letters changed if `flip`. */
static char *text_of(const uint8_t *data, size_t len, int flip) {
  char *text = (char *)copy_of(data, len);
  for (size_t i = 0; flip && i < len; i++) {
    const int letter = (data[i] | 0x20) >= 'a' && (data[i] | 0x20) <= 'z';
    if (letter) text[i] = (char)(data[i] ^ 0x20);
  }
  return text;
}

static void take_line(weir_durable_response *response, const uint8_t *line, size_t len, int flip) {
  const uint8_t *colon = memchr(line, ':', len);
  if (colon == NULL) return;
  const size_t name_len = (size_t)(colon - line);
  const size_t value_len = len - name_len - 1;
  char *name = text_of(line, name_len, flip);
  char *value = text_of(colon + 1, value_len, 0);
  weir_durable_response_header(response, name, name_len, value, value_len);
  free(name);
  free(value);
}

static void parse(weir_durable_response *response, int status, const uint8_t *data, size_t size,
                  int flip) {
  weir_durable_response_init(response, status);
  while (size > 0) {
    const uint8_t *end = memchr(data, '\n', size);
    const size_t len = end == NULL ? size : (size_t)(end - data);
    take_line(response, data, len, flip);
    data += end == NULL ? len : len + 1;
    size -= end == NULL ? len : len + 1;
  }
}

static void check_text(const weir_durable_text *text) {
  check(text->len <= WEIR_DURABLE_OFFSET_MAX);
  for (size_t i = 0; i < text->len; i++) {
    const unsigned char c = (unsigned char)text->bytes[i];
    check(c >= 0x20 && c != 0x7f);
  }
}

static void check_number(uint64_t number) {
  check(number == UINT64_MAX || number < UINT64_C(1) << 53);
}

static void check_response(const weir_durable_response *r) {
  check_text(&r->next_offset);
  check_text(&r->cursor);
  check_text(&r->etag);
  check_text(&r->content_type);
  check_text(&r->retry_date);
  check_number(r->producer_epoch);
  check_number(r->producer_seq);
  check_number(r->expected_seq);
  check_number(r->received_seq);
  check_number(r->retry_after);
  check(r->retry_after == UINT64_MAX || r->retry_date.len == 0);
}

static void check_verdict(weir_durable_kind kind, weir_durable_transport transport,
                          const weir_durable_response *r) {
  const weir_durable_outcome outcome = weir_durable_verdict(kind, transport, r);
  const char *code = weir_durable_code(kind, transport, r);
  check((outcome == WEIR_DURABLE_OK) == (code == NULL));
  const int changes = kind == WEIR_DURABLE_APPEND;
  if (outcome == WEIR_DURABLE_UNKNOWN) check(changes);
  /* A plain append is only repeated when the server cannot have it. */
  if (changes && outcome == WEIR_DURABLE_RETRY) check(!weir_durable_ambiguous(transport, r));
}

static int same_text(const weir_durable_text *a, const weir_durable_text *b) {
  return a->len == b->len && memcmp(a->bytes, b->bytes, a->len) == 0;
}

static int same(const weir_durable_response *a, const weir_durable_response *b) {
  return a->status == b->status && same_text(&a->next_offset, &b->next_offset) &&
         same_text(&a->cursor, &b->cursor) && same_text(&a->etag, &b->etag) &&
         same_text(&a->content_type, &b->content_type) && a->up_to_date == b->up_to_date &&
         a->closed == b->closed && a->base64 == b->base64 && a->unusable == b->unusable &&
         a->producer_epoch == b->producer_epoch && a->producer_seq == b->producer_seq &&
         a->expected_seq == b->expected_seq && a->received_seq == b->received_seq &&
         a->retry_after == b->retry_after && same_text(&a->retry_date, &b->retry_date);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 4) return 0;
  const weir_durable_kind kind = (weir_durable_kind)(data[0] % (WEIR_DURABLE_PRODUCE + 1));
  const weir_durable_transport transport =
      (weir_durable_transport)(data[0] / 16 % (WEIR_DURABLE_TIMED_OUT + 1));
  const int status = data[1] * 256 + data[2];
  const uint64_t clock = data[3] * UINT64_C(7919731);
  static weir_durable_response one, other;
  parse(&one, status, data + 4, size - 4, 0);
  parse(&other, status, data + 4, size - 4, 1);
  check_response(&one);
  check(same(&one, &other));
  check_verdict(kind, transport, &one);
  check_verdict(kind, transport, NULL);
  weir_durable_response_resolve_date(&one, clock);
  check(one.retry_after == UINT64_MAX || one.retry_after < UINT64_C(1) << 53);
  check_verdict(kind, transport, &one);
  return 0;
}
