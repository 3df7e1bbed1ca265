/*
 * Fuzzes the readers of frames that carry fields or lists: HELLO, SUBSCRIBE, START, ANNOUNCE,
 * CLOSE, and the fixed ones. What a reader accepts must stay within its limits, and a handshake
 * that was accepted must read the same after it was written again.
 *
 * Input: a frame's payload; its first byte is its type.
 */

#include "core/protocol.h"

#include "support.h"

static int equal(weir_slice a, weir_slice b) {
  return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

static weir_frame_buffer frame;

static void fuzz_hello(const uint8_t *data, size_t size) {
  static weir_hello first, second;
  weir_status status = weir_read_hello(data, size, &first);
  check(status == WEIR_OK || status == WEIR_E_PROTOCOL || status == WEIR_E_VERSION);
  if (status != WEIR_OK) return;
  check(first.tag_count <= WEIR_MAX_TAGS && first.agent.len <= WEIR_MAX_NAME);
  check(weir_write_hello(&frame, &first) == WEIR_OK);
  check(weir_read_hello(frame.bytes + 4, frame.len - 4, &second) == WEIR_OK);
  check(memcmp(first.node, second.node, WEIR_ID_SIZE) == 0);
  check(equal(first.agent, second.agent));
  check(second.tag_count <= first.tag_count); /* empty ones are not written */
}

static void fuzz_subscribe(const uint8_t *data, size_t size) {
  weir_subscribe first, second;
  weir_status status = weir_read_subscribe(data, size, &first);
  check(status == WEIR_OK || status == WEIR_E_PROTOCOL || status == WEIR_E_VERSION);
  if (status != WEIR_OK) return;
  first.version = WEIR_PROTOCOL_VERSION; /* it may have named a range */
  check(weir_write_subscribe(&frame, &first) == WEIR_OK);
  check(weir_read_subscribe(frame.bytes + 4, frame.len - 4, &second) == WEIR_OK);
  check(equal(first.codec, second.codec) && equal(first.schema, second.schema));
  check(equal(first.criteria, second.criteria) && equal(first.token, second.token));
  check(first.has_resume == second.has_resume);
  check(first.resume_epoch == second.resume_epoch);
  check(first.credit_bytes == second.credit_bytes && first.credit_items == second.credit_items);
}

static void fuzz_start(const uint8_t *data, size_t size) {
  weir_start first, second;
  weir_status status = weir_read_start(data, size, &first);
  check(status == WEIR_OK || status == WEIR_E_PROTOCOL || status == WEIR_E_VERSION);
  if (status != WEIR_OK) return;
  first.version = WEIR_PROTOCOL_VERSION;
  check(weir_write_start(&frame, &first) == WEIR_OK);
  check(weir_read_start(frame.bytes + 4, frame.len - 4, &second) == WEIR_OK);
  check(equal(first.codec, second.codec) && equal(first.schema, second.schema));
  check(first.epoch == second.epoch && first.sequence == second.sequence);
}

static void fuzz_announce(const uint8_t *data, size_t size) {
  weir_announcement announcement;
  size_t at = 0, before = 0;
  while (weir_read_announce(data, size, &at, &announcement) == WEIR_OK) {
    check(at > before && at <= size);
    check(announcement.stream >= data && announcement.stream + WEIR_ID_SIZE <= data + size);
    before = at;
  }
}

static void fuzz_close(const uint8_t *data, size_t size) {
  weir_closing closing, again;
  unsigned char out[WEIR_CLOSE_SIZE];
  if (weir_read_close(data, size, &closing) != WEIR_OK) return;
  size_t len =
      weir_write_close(out, closing.code, (const char *)closing.reason.ptr, closing.reason.len);
  check(weir_read_close(out + 4, len - 4, &again) == WEIR_OK);
  check(again.code == closing.code && equal(again.reason, closing.reason));
  check(weir_close_name(closing.code) != NULL);
}

static void fuzz_fixed(const uint8_t *data, size_t size) {
  weir_data message;
  weir_gap gap;
  weir_sync sync;
  weir_grant grant;
  if (weir_read_data(data, size, &message) == WEIR_OK) {
    check(message.payload.len == size - (WEIR_DATA_HEADER - 4));
  }
  if (weir_read_gap(data, size, &gap) == WEIR_OK) check(gap.from < gap.to);
  (void)weir_read_sync(data, size, &sync);
  (void)weir_read_grant(data, size, &grant);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fuzz_hello(data, size);
  fuzz_subscribe(data, size);
  fuzz_start(data, size);
  fuzz_announce(data, size);
  fuzz_close(data, size);
  fuzz_fixed(data, size);
  return 0;
}
