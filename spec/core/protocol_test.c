#include "core/protocol.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>

#include "core/blake3.h"
#include "core/bytes.h"
#include "support.h"

static weir_slice text(const char *s) {
  return (weir_slice){NULL, (const unsigned char *)s, strlen(s)};
}

static bool same(weir_slice slice, const char *s) {
  return slice.len == strlen(s) && memcmp(slice.ptr, s, slice.len) == 0;
}

/* --- the vectors of docs/wire.md -------------------------------------------------------------- */

static int digit(char c) { return c <= '9' ? c - '0' : c - 'a' + 10; }

/* Reads the block ```vector NAME; returns its bytes. */
static size_t vector(const char *name, unsigned char *out, size_t max) {
  char line[256], opening[64];
  size_t len = 0;
  bool inside = false, found = false;
  snprintf(opening, sizeof opening, "```vector %s\n", name);
  FILE *file = fopen("docs/wire.md", "r"); /* CTest runs in the root of the tree */
  if (file == NULL) file = fopen("../docs/wire.md", "r");
  assert_non_null(file);
  while (fgets(line, sizeof line, file) != NULL) {
    if (inside && strncmp(line, "```", 3) == 0) break;
    if (strcmp(line, opening) == 0) {
      inside = found = true;
      continue;
    }
    for (const char *c = line; inside && *c != ';' && *c != '\n'; c++) {
      if (isspace((unsigned char)*c)) continue;
      assert_true(isxdigit((unsigned char)c[0]) && isxdigit((unsigned char)c[1]) && len < max);
      out[len++] = (unsigned char)(digit(c[0]) << 4 | digit(c[1]));
      c++;
    }
  }
  (void)fclose(file);
  if (!found) fail_msg("docs/wire.md has no vector '%s'", name);
  return len;
}

static void assert_vector(const char *name, const unsigned char *bytes, size_t len) {
  unsigned char expected[1024];
  const size_t expected_len = vector(name, expected, sizeof expected);
  assert_int_equal(len, expected_len);
  assert_memory_equal(bytes, expected, len);
}

static weir_hello example_hello(void) {
  weir_hello hello = {.version_min = 1, .version_max = 1};
  memset(hello.network, 0x11, WEIR_ID_SIZE);
  memset(hello.node, 0x22, WEIR_ID_SIZE);
  hello.tags[0] = text("gpu");
  hello.tags[1] = text("eu");
  hello.tag_count = 2;
  hello.agent = text("weir/0.1");
  return hello;
}

static weir_subscribe example_subscribe(void) {
  weir_subscribe subscribe = {.version = 1, .codec = text("json"), .schema = text("v1")};
  memset(subscribe.network, 0x11, WEIR_ID_SIZE);
  weir_blake3("prices", 6, subscribe.stream);
  subscribe.has_resume = true;
  subscribe.resume_epoch = 5;
  subscribe.resume_sequence = 6;
  subscribe.credit_bytes = 1 << 20;
  subscribe.credit_items = 8192;
  return subscribe;
}

static weir_start example_start(void) {
  weir_start start = {.version = 1, .codec = text("json"), .schema = text("v1")};
  memset(start.network, 0x11, WEIR_ID_SIZE);
  weir_blake3("prices", 6, start.stream);
  start.epoch = 5;
  start.sequence = 9;
  return start;
}

static void the_writers_write_the_documented_bytes(void **state) {
  (void)state;
  weir_frame_buffer frame;
  weir_hello hello = example_hello();
  assert_ok(weir_write_hello(&frame, &hello));
  assert_vector("hello", frame.bytes, frame.len);
  memset(hello.node, 0x33, WEIR_ID_SIZE);
  hello.tag_count = 0;
  hello.agent = text("");
  assert_ok(weir_write_hello(&frame, &hello));
  assert_vector("hello-answer", frame.bytes, frame.len);
  const weir_subscribe subscribe = example_subscribe();
  assert_ok(weir_write_subscribe(&frame, &subscribe));
  assert_vector("subscribe", frame.bytes, frame.len);
  const weir_start start = example_start();
  assert_ok(weir_write_start(&frame, &start));
  assert_vector("start", frame.bytes, frame.len);
  unsigned char ids[2 * WEIR_ID_SIZE];
  weir_blake3("prices", 6, ids);
  memset(ids + WEIR_ID_SIZE, 0x44, WEIR_ID_SIZE);
  assert_int_equal(weir_write_announce(&frame, true, ids, 2), 2);
  assert_vector("announce", frame.bytes, frame.len);
  assert_int_equal(weir_write_announce(&frame, false, ids + WEIR_ID_SIZE, 1), 1);
  assert_vector("withdraw", frame.bytes, frame.len);

  unsigned char out[WEIR_CLOSE_SIZE];
  assert_vector("gap", out, weir_write_gap(out, &(weir_gap){5, 6, 9}));
  assert_vector("sync", out, weir_write_sync(out, &(weir_sync){5, 10}));
  assert_vector("credit", out,
                weir_write_grant(out, &(weir_grant){5, 10, (1 << 20) + 39, 8192 + 1}));
  assert_vector("close", out, weir_write_close(out, WEIR_CLOSE_TOO_SLOW, "too slow", 8));
  weir_write_data_header(out, 5, 9, UINT64_C(1700000000000000), 7);
  memcpy(out + WEIR_DATA_HEADER, "{\"a\":1}", 7);
  assert_vector("data", out, WEIR_DATA_HEADER + 7);
}

static void the_readers_read_the_documented_bytes(void **state) {
  (void)state;
  unsigned char b[1024], id[WEIR_ID_SIZE];
  weir_blake3("prices", 6, id);
  size_t len = vector("hello", b, sizeof b) - 4;
  weir_hello hello;
  assert_ok(weir_read_hello(b + 4, len, &hello));
  assert_int_equal(hello.tag_count, 2);
  assert_true(same(hello.tags[0], "gpu") && same(hello.tags[1], "eu"));
  assert_true(same(hello.agent, "weir/0.1"));
  len = vector("subscribe", b, sizeof b) - 4;
  weir_subscribe subscribe;
  assert_ok(weir_read_subscribe(b + 4, len, &subscribe));
  assert_memory_equal(subscribe.stream, id, WEIR_ID_SIZE);
  assert_true(same(subscribe.codec, "json") && same(subscribe.schema, "v1"));
  assert_true(subscribe.has_resume);
  assert_int_equal(subscribe.resume_epoch, 5);
  assert_int_equal(subscribe.resume_sequence, 6);
  assert_int_equal(subscribe.credit_bytes, 1048576);
  assert_int_equal(subscribe.credit_items, 8192);
  len = vector("start", b, sizeof b) - 4;
  weir_start start;
  assert_ok(weir_read_start(b + 4, len, &start));
  assert_int_equal(start.epoch, 5);
  assert_int_equal(start.sequence, 9);
  len = vector("data", b, sizeof b) - 4;
  weir_data data;
  assert_ok(weir_read_data(b + 4, len, &data));
  assert_int_equal(data.sequence, 9);
  assert_int_equal(data.time, UINT64_C(1700000000000000));
  assert_true(same(data.payload, "{\"a\":1}"));
  len = vector("gap", b, sizeof b) - 4;
  weir_gap gap;
  assert_ok(weir_read_gap(b + 4, len, &gap));
  assert_int_equal(gap.from, 6);
  assert_int_equal(gap.to, 9);
  len = vector("sync", b, sizeof b) - 4;
  weir_sync sync;
  assert_ok(weir_read_sync(b + 4, len, &sync));
  assert_int_equal(sync.sequence, 10);
  len = vector("credit", b, sizeof b) - 4;
  weir_grant grant;
  assert_ok(weir_read_grant(b + 4, len, &grant));
  assert_int_equal(grant.acknowledged, 10);
  assert_int_equal(grant.limit_bytes, 1048615);
  assert_int_equal(grant.limit_items, 8193);
  len = vector("close", b, sizeof b) - 4;
  weir_closing closing;
  assert_ok(weir_read_close(b + 4, len, &closing));
  assert_int_equal(closing.code, 10413);
  assert_true(same(closing.reason, "too slow"));
  len = vector("withdraw", b, sizeof b) - 4;
  weir_announcement announcement;
  size_t at = 0;
  assert_ok(weir_read_announce(b + 4, len, &at, &announcement));
  assert_false(announcement.add);
  assert_status(weir_read_announce(b + 4, len, &at, &announcement), WEIR_E_AGAIN);
}

static void the_documented_close_codes_are_ours(void **state) {
  (void)state;
  FILE *file = fopen("docs/wire.md", "r");
  if (file == NULL) file = fopen("../docs/wire.md", "r");
  assert_non_null(file);
  char line[256];
  unsigned found = 0;
  while (fgets(line, sizeof line, file) != NULL) {
    unsigned code;
    char name[40];
    if (sscanf(line, "| %u + | %39[a-z_] |", &code, name) != 2 &&
        sscanf(line, "| %u | %39[a-z_] |", &code, name) != 2) {
      continue;
    }
    if (code < 100) continue; /* another table */
    assert_string_equal(weir_close_name(code), name);
    found++;
  }
  (void)fclose(file);
  assert_int_equal(found, 14);
  assert_string_equal(weir_close_name(0), "closed");
  assert_string_equal(weir_close_name(UINT32_MAX), "closed");
}

/* --- what is not well formed ------------------------------------------------------------------ */

/* Reads a payload with the reader of its type, from a block of exactly its size. */
static weir_status read_any(int type, const unsigned char *payload, size_t len) {
  unsigned char *copy = weir_test_copy(payload, len);
  weir_hello *hello = malloc(sizeof *hello);
  weir_subscribe subscribe;
  weir_start start;
  weir_data data;
  weir_gap gap;
  weir_sync sync;
  weir_grant grant;
  weir_closing closing;
  weir_announcement announcement;
  size_t at = 0;
  weir_status status = WEIR_E_INVALID;
  switch (type) {
    case WEIR_FRAME_HELLO: status = weir_read_hello(copy, len, hello); break;
    case WEIR_FRAME_SUBSCRIBE: status = weir_read_subscribe(copy, len, &subscribe); break;
    case WEIR_FRAME_START: status = weir_read_start(copy, len, &start); break;
    case WEIR_FRAME_DATA: status = weir_read_data(copy, len, &data); break;
    case WEIR_FRAME_GAP: status = weir_read_gap(copy, len, &gap); break;
    case WEIR_FRAME_SYNC: status = weir_read_sync(copy, len, &sync); break;
    case WEIR_FRAME_CREDIT: status = weir_read_grant(copy, len, &grant); break;
    case WEIR_FRAME_CLOSE: status = weir_read_close(copy, len, &closing); break;
    case WEIR_FRAME_ANNOUNCE:
      while ((status = weir_read_announce(copy, len, &at, &announcement)) == WEIR_OK) {
      }
      if (status == WEIR_E_AGAIN) status = WEIR_OK;
      break;
  }
  free(hello);
  free(copy);
  return status;
}

static const struct {
  const char *name;
  int type;
  size_t shortest; /* payload; shorter ones are refused */
} FRAMES[] = {{"hello", WEIR_FRAME_HELLO, 0},      {"subscribe", WEIR_FRAME_SUBSCRIBE, 0},
              {"start", WEIR_FRAME_START, 0},      {"data", WEIR_FRAME_DATA, 28},
              {"gap", WEIR_FRAME_GAP, 28},         {"sync", WEIR_FRAME_SYNC, 20},
              {"credit", WEIR_FRAME_CREDIT, 36},   {"close", WEIR_FRAME_CLOSE, 8},
              {"announce", WEIR_FRAME_ANNOUNCE, 0}};

static void a_frame_cut_anywhere_is_refused(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof FRAMES / sizeof *FRAMES; i++) {
    unsigned char b[1024];
    const size_t len = vector(FRAMES[i].name, b, sizeof b) - 4;
    assert_ok(read_any(FRAMES[i].type, b + 4, len));
    for (size_t cut = 0; cut < len; cut++) {
      const weir_status status = read_any(FRAMES[i].type, b + 4, cut);
      if (FRAMES[i].shortest > 0) {
        assert_status(status, cut < FRAMES[i].shortest ? WEIR_E_PROTOCOL : WEIR_OK);
      } else if (FRAMES[i].type == WEIR_FRAME_ANNOUNCE && cut >= 4 && (cut - 4) % 36 == 0) {
        assert_ok(status);
      } else if (FRAMES[i].type == WEIR_FRAME_HELLO && cut >= 84 &&
                 (cut == 84 || cut == 91 || cut == 97)) {
        assert_ok(status); /* between fields that need not be there */
      } else {
        assert_status(status, WEIR_E_PROTOCOL);
      }
    }
  }
}

static void a_frame_of_another_type_is_refused(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof FRAMES / sizeof *FRAMES; i++) {
    unsigned char b[1024];
    const size_t len = vector(FRAMES[i].name, b, sizeof b) - 4;
    b[4] ^= 0x80;
    assert_status(read_any(FRAMES[i].type, b + 4, len), WEIR_E_PROTOCOL);
  }
  assert_int_equal(weir_frame_type_of((const unsigned char *)"\1\0\0", 3), -1);
  assert_int_equal(weir_frame_type_of((const unsigned char *)"\1\0\0\0", 4), 1);
}

static void flags_and_reserved_bytes_are_ignored(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof FRAMES / sizeof *FRAMES; i++) {
    unsigned char b[1024];
    const size_t len = vector(FRAMES[i].name, b, sizeof b) - 4;
    b[5] = b[6] = b[7] = 0xff;
    assert_ok(read_any(FRAMES[i].type, b + 4, len));
  }
}

static void fixed_bodies_may_grow_at_their_end(void **state) {
  (void)state;
  static const size_t GROWING[] = {4, 5, 6}; /* gap, sync, credit */
  for (size_t i = 0; i < 3; i++) {
    unsigned char b[1024];
    const size_t len = vector(FRAMES[GROWING[i]].name, b, sizeof b) - 4;
    memset(b + 4 + len, 0xff, 10);
    assert_ok(read_any(FRAMES[GROWING[i]].type, b + 4, len + 10));
  }
}

/* A handshake vector with one more field at its end. */
static weir_status with_field(const char *name, int type, uint16_t tag, size_t size) {
  static unsigned char b[70000];
  const size_t len = vector(name, b, sizeof b) - 4;
  weir_put_u16(b + 4 + len, tag);
  weir_put_u16(b + 6 + len, (uint16_t)size);
  memset(b + 8 + len, 'x', size);
  return read_any(type, b + 4, len + 4 + size);
}

static void unknown_fields_are_skipped_only_with_the_optional_bit(void **state) {
  (void)state;
  for (size_t i = 0; i < 3; i++) {
    for (unsigned tag = 0x0d; tag < 0x8000; tag += 0x111) {
      const uint16_t optional = (uint16_t)(tag | 0x8000);
      assert_ok(with_field(FRAMES[i].name, FRAMES[i].type, optional, tag % 300));
      assert_status(with_field(FRAMES[i].name, FRAMES[i].type, (uint16_t)tag, tag % 300),
                    WEIR_E_PROTOCOL);
    }
    assert_ok(with_field(FRAMES[i].name, FRAMES[i].type, 0xffff, UINT16_MAX));
    assert_ok(with_field(FRAMES[i].name, FRAMES[i].type, 0x8001, 3)); /* is not NETWORK */
  }
}

static void a_field_comes_once_except_tags(void **state) {
  (void)state;
  assert_ok(with_field("hello", WEIR_FRAME_HELLO, 0x800b, 3));
  assert_status(with_field("hello", WEIR_FRAME_HELLO, 0x800c, 3), WEIR_E_PROTOCOL);
  assert_ok(with_field("hello-answer", WEIR_FRAME_HELLO, 0x800c, 3));
  static const struct {
    uint16_t tag;
    size_t size;
  } FIELDS[] = {{1, 32}, {2, 32}, {3, 4}, {0x8004, 2}, {0x8007, 16}};
  for (size_t i = 0; i < 5; i++) {
    assert_status(with_field("start", WEIR_FRAME_START, FIELDS[i].tag, FIELDS[i].size),
                  WEIR_E_PROTOCOL);
    assert_status(with_field("subscribe", WEIR_FRAME_SUBSCRIBE, FIELDS[i].tag, FIELDS[i].size),
                  WEIR_E_PROTOCOL);
  }
  assert_status(with_field("subscribe", WEIR_FRAME_SUBSCRIBE, 8, 16), WEIR_E_PROTOCOL);
  assert_status(with_field("hello", WEIR_FRAME_HELLO, 1, 32), WEIR_E_PROTOCOL);
  assert_status(with_field("hello", WEIR_FRAME_HELLO, 10, 32), WEIR_E_PROTOCOL);
}

static void fields_are_as_long_as_they_may_be_and_no_longer(void **state) {
  (void)state;
  static const struct {
    uint16_t tag;
    size_t max;
  } FIELDS[] = {{5, WEIR_MAX_CRITERIA}, {0x8006, WEIR_MAX_TOKEN}};
  for (size_t i = 0; i < 2; i++) {
    assert_ok(with_field("subscribe", WEIR_FRAME_SUBSCRIBE, FIELDS[i].tag, FIELDS[i].max));
    assert_status(with_field("subscribe", WEIR_FRAME_SUBSCRIBE, FIELDS[i].tag, FIELDS[i].max + 1),
                  WEIR_E_PROTOCOL);
  }
  assert_ok(with_field("hello", WEIR_FRAME_HELLO, 0x800b, WEIR_MAX_NAME));
  assert_status(with_field("hello", WEIR_FRAME_HELLO, 0x800b, WEIR_MAX_NAME + 1), WEIR_E_PROTOCOL);
  assert_status(with_field("hello-answer", WEIR_FRAME_HELLO, 0x800c, WEIR_MAX_NAME + 1),
                WEIR_E_PROTOCOL);
}

static void a_field_that_ends_beyond_its_frame_is_refused(void **state) {
  (void)state;
  unsigned char b[1024];
  const size_t len = vector("hello-answer", b, sizeof b) - 4;
  memcpy(b + 4 + len, "\377\377\0\5abcd", 8);
  assert_status(read_any(WEIR_FRAME_HELLO, b + 4, len + 8), WEIR_E_PROTOCOL);
  b[4 + len + 3] = 4;
  assert_ok(read_any(WEIR_FRAME_HELLO, b + 4, len + 8));
}

static void sixty_four_tags_are_read_and_no_more(void **state) {
  (void)state;
  weir_hello hello = example_hello();
  weir_frame_buffer frame;
  for (size_t i = 0; i < WEIR_MAX_TAGS; i++)
    hello.tags[i] = text("a tag");
  hello.tag_count = WEIR_MAX_TAGS;
  hello.agent = text("");
  assert_ok(weir_write_hello(&frame, &hello));
  assert_ok(read_any(WEIR_FRAME_HELLO, frame.bytes + 4, frame.len - 4));
  memcpy(frame.bytes + frame.len, "\200\13\0\1x", 5);
  assert_status(read_any(WEIR_FRAME_HELLO, frame.bytes + 4, frame.len + 1), WEIR_E_PROTOCOL);
  hello.tag_count = WEIR_MAX_TAGS + 1;
  assert_status(weir_write_hello(&frame, &hello), WEIR_E_LIMIT);
}

static void versions_must_overlap_with_ours(void **state) {
  (void)state;
  static const struct {
    uint16_t min, max;
    weir_status status;
  } CASES[] = {{1, 1, WEIR_OK},        {0, 1, WEIR_OK},        {1, 9, WEIR_OK},
               {0, 0, WEIR_E_VERSION}, {2, 2, WEIR_E_VERSION}, {2, 65535, WEIR_E_VERSION},
               {2, 1, WEIR_E_PROTOCOL}};
  for (size_t i = 0; i < 3; i++) {
    for (size_t k = 0; k < sizeof CASES / sizeof *CASES; k++) {
      unsigned char b[1024];
      const size_t len = vector(FRAMES[i].name, b, sizeof b) - 4;
      weir_put_u16(b + 12, CASES[k].min);
      weir_put_u16(b + 14, CASES[k].max);
      assert_status(read_any(FRAMES[i].type, b + 4, len), CASES[k].status);
      b[8] = 'W'; /* without the magic it is nobody's version */
      assert_status(read_any(FRAMES[i].type, b + 4, len), WEIR_E_PROTOCOL);
    }
  }
}

static void a_gap_must_not_be_empty_or_backwards(void **state) {
  (void)state;
  unsigned char out[WEIR_GAP_SIZE];
  weir_write_gap(out, &(weir_gap){1, 5, 5});
  assert_status(read_any(WEIR_FRAME_GAP, out + 4, WEIR_GAP_SIZE - 4), WEIR_E_PROTOCOL);
  weir_write_gap(out, &(weir_gap){1, 5, 4});
  assert_status(read_any(WEIR_FRAME_GAP, out + 4, WEIR_GAP_SIZE - 4), WEIR_E_PROTOCOL);
}

static void an_announcement_may_carry_more_than_we_know(void **state) {
  (void)state;
  unsigned char frame[4 + 36 + 3 + 36] = {WEIR_FRAME_ANNOUNCE, 0, 0, 0, 1, 0, 0, 3};
  memset(frame + 8, 0xaa, 32 + 3);
  frame[4 + 36 + 3] = 2;
  memset(frame + 4 + 36 + 3 + 4, 0xbb, 32);
  weir_announcement got;
  size_t at = 0;
  assert_ok(weir_read_announce(frame, sizeof frame, &at, &got));
  assert_true(got.add && got.stream[0] == 0xaa);
  assert_ok(weir_read_announce(frame, sizeof frame, &at, &got));
  assert_true(!got.add && got.stream[31] == 0xbb);
  assert_status(weir_read_announce(frame, sizeof frame, &at, &got), WEIR_E_AGAIN);
  frame[7] = 60; /* more than there is */
  at = 0;
  (void)weir_read_announce(frame, sizeof frame, &at, &got);
  frame[4] = 3;
  at = 0;
  assert_status(weir_read_announce(frame, sizeof frame, &at, &got), WEIR_E_PROTOCOL);
}

static void a_long_reason_is_cut_at_a_characters_edge(void **state) {
  (void)state;
  char reason[WEIR_MAX_REASON + 10];
  unsigned char out[WEIR_CLOSE_SIZE];
  weir_closing closing;
  memset(reason, 'x', sizeof reason);
  assert_int_equal(weir_write_close(out, 1, reason, sizeof reason), WEIR_CLOSE_SIZE);
  assert_ok(weir_read_close(out + 4, WEIR_CLOSE_SIZE - 4, &closing));
  assert_int_equal(closing.reason.len, WEIR_MAX_REASON);
  memcpy(reason + WEIR_MAX_REASON - 2, "\xe2\x82\xac", 3); /* a euro sign across the edge */
  const size_t len = weir_write_close(out, 1, reason, sizeof reason);
  assert_int_equal(len, WEIR_CLOSE_SIZE - 2);
  unsigned char longer[WEIR_CLOSE_SIZE + 1] = {0};
  memcpy(longer, out, len);
  assert_status(read_any(WEIR_FRAME_CLOSE, longer + 4, WEIR_CLOSE_SIZE + 1 - 4), WEIR_E_PROTOCOL);
  assert_int_equal(weir_write_close(out, 1, "", 0), 12);
}

static void writers_refuse_fields_that_are_too_long(void **state) {
  (void)state;
  static unsigned char bytes[20000];
  static weir_frame_buffer frame;
  weir_subscribe subscribe = example_subscribe();
  subscribe.token = (weir_slice){NULL, bytes, WEIR_MAX_TOKEN};
  subscribe.criteria = (weir_slice){NULL, bytes, WEIR_MAX_CRITERIA};
  assert_ok(weir_write_subscribe(&frame, &subscribe));
  assert_true(frame.len <= WEIR_MAX_CONTROL + 4);
  assert_ok(read_any(WEIR_FRAME_SUBSCRIBE, frame.bytes + 4, frame.len - 4));
  subscribe.token.len++;
  assert_status(weir_write_subscribe(&frame, &subscribe), WEIR_E_LIMIT);
  subscribe = example_subscribe();
  subscribe.criteria = (weir_slice){NULL, bytes, sizeof bytes};
  assert_status(weir_write_subscribe(&frame, &subscribe), WEIR_E_LIMIT);
  weir_start start = example_start();
  start.codec = (weir_slice){NULL, bytes, WEIR_MAX_NAME + 1};
  assert_status(weir_write_start(&frame, &start), WEIR_E_LIMIT);
}

static void as_many_announcements_are_written_as_fit(void **state) {
  (void)state;
  static unsigned char ids[1000 * WEIR_ID_SIZE];
  static weir_frame_buffer frame;
  const size_t count = weir_write_announce(&frame, true, ids, 1000);
  assert_true(count > 400 && count < 1000);
  assert_true(frame.len <= WEIR_MAX_CONTROL + 4 && frame.len + 36 > WEIR_MAX_CONTROL + 4);
  assert_ok(read_any(WEIR_FRAME_ANNOUNCE, frame.bytes + 4, frame.len - 4));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_writers_write_the_documented_bytes),
      cmocka_unit_test(the_readers_read_the_documented_bytes),
      cmocka_unit_test(the_documented_close_codes_are_ours),
      cmocka_unit_test(a_frame_cut_anywhere_is_refused),
      cmocka_unit_test(a_frame_of_another_type_is_refused),
      cmocka_unit_test(flags_and_reserved_bytes_are_ignored),
      cmocka_unit_test(fixed_bodies_may_grow_at_their_end),
      cmocka_unit_test(unknown_fields_are_skipped_only_with_the_optional_bit),
      cmocka_unit_test(a_field_comes_once_except_tags),
      cmocka_unit_test(fields_are_as_long_as_they_may_be_and_no_longer),
      cmocka_unit_test(a_field_that_ends_beyond_its_frame_is_refused),
      cmocka_unit_test(sixty_four_tags_are_read_and_no_more),
      cmocka_unit_test(versions_must_overlap_with_ours),
      cmocka_unit_test(a_gap_must_not_be_empty_or_backwards),
      cmocka_unit_test(an_announcement_may_carry_more_than_we_know),
      cmocka_unit_test(a_long_reason_is_cut_at_a_characters_edge),
      cmocka_unit_test(writers_refuse_fields_that_are_too_long),
      cmocka_unit_test(as_many_announcements_are_written_as_fit),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
