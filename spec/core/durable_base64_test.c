#include "core/durable/base64.h"

#include "support.h"

static void assert_decodes(const char *text, const char *expected) {
  unsigned char out[256];
  size_t len = strlen(text), out_len;
  unsigned char *copy = weir_test_copy(text, len);
  assert_ok(weir_base64_decode(copy, len, out, &out_len));
  free(copy);
  assert_int_equal(out_len, strlen(expected));
  assert_memory_equal(out, expected, out_len);
}

static void assert_refuses(const char *text) {
  unsigned char out[256];
  size_t out_len;
  assert_status(weir_base64_decode(text, strlen(text), out, &out_len), WEIR_E_INVALID);
}

static void the_examples_of_the_rfc_decode_and_encode(void **state) {
  (void)state;
  static const char *const TABLE[][2] = {{"", ""},
                                         {"f", "Zg=="},
                                         {"fo", "Zm8="},
                                         {"foo", "Zm9v"},
                                         {"foob", "Zm9vYg=="},
                                         {"fooba", "Zm9vYmE="},
                                         {"foobar", "Zm9vYmFy"}};
  for (size_t i = 0; i < sizeof TABLE / sizeof TABLE[0]; i++) {
    const size_t len = strlen(TABLE[i][0]);
    char text[16] = "";
    weir_base64_encode(TABLE[i][0], len, text);
    assert_string_equal(text, TABLE[i][1]);
    assert_int_equal(WEIR_BASE64_ENCODED(len), strlen(TABLE[i][1]));
    assert_decodes(TABLE[i][1], TABLE[i][0]);
  }
}

static void line_breaks_are_skipped_anywhere(void **state) {
  (void)state;
  assert_decodes("\nZm9v\r\nYm\nFy\r", "foobar");
  assert_decodes("Z\ng\r=\n=\n", "f");
  assert_decodes("\r\n", "");
}

static void a_length_that_is_no_multiple_of_four_is_refused(void **state) {
  (void)state;
  assert_refuses("Z");
  assert_refuses("Zg");
  assert_refuses("Zm8");
  assert_refuses("Zm9vY");
  assert_refuses("Zm9v\n=");
}

static void padding_is_only_at_the_end_and_only_as_needed(void **state) {
  (void)state;
  assert_refuses("=");
  assert_refuses("====");
  assert_refuses("Z===");
  assert_refuses("Zg=");
  assert_refuses("Zg===");
  assert_refuses("Zm9v====");
  assert_refuses("Zm9v=");
  assert_refuses("Zg==Zg==");
  assert_refuses("Zm8=Zm9v");
  assert_refuses("Z=g=");
}

static void unused_bits_must_be_zero(void **state) {
  (void)state;
  assert_refuses("Zh==");
  assert_refuses("Zm9=");
  assert_refuses("Zm9vZm9=");
}

static void other_characters_are_refused(void **state) {
  (void)state;
  assert_refuses("Zm9 ");
  assert_refuses(" Zm9v");
  assert_refuses("Zm-_");
  assert_refuses("Zm9\t");
  assert_refuses("Zm\xc3\xa9");
}

static void every_byte_survives_in_every_place(void **state) {
  (void)state;
  unsigned char bytes[259], out[300];
  char text[400];
  for (size_t i = 0; i < sizeof bytes; i++)
    bytes[i] = (unsigned char)(i * 7 + i / 256);
  for (size_t from = 0; from < 4; from++) {
    for (size_t len = 0; len <= sizeof bytes - from; len++) {
      size_t out_len;
      weir_base64_encode(bytes + from, len, text);
      assert_ok(weir_base64_decode(text, WEIR_BASE64_ENCODED(len), out, &out_len));
      assert_int_equal(out_len, len);
      assert_true(out_len <= WEIR_BASE64_DECODED(WEIR_BASE64_ENCODED(len)));
      assert_memory_equal(out, bytes + from, len);
    }
  }
}

static void decoding_in_place_works(void **state) {
  (void)state;
  unsigned char text[] = "Zm9v\nYmFy";
  size_t len;
  assert_ok(weir_base64_decode(text, sizeof text - 1, text, &len));
  assert_int_equal(len, 6);
  assert_memory_equal(text, "foobar", 6);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_examples_of_the_rfc_decode_and_encode),
      cmocka_unit_test(line_breaks_are_skipped_anywhere),
      cmocka_unit_test(a_length_that_is_no_multiple_of_four_is_refused),
      cmocka_unit_test(padding_is_only_at_the_end_and_only_as_needed),
      cmocka_unit_test(unused_bits_must_be_zero),
      cmocka_unit_test(other_characters_are_refused),
      cmocka_unit_test(every_byte_survives_in_every_place),
      cmocka_unit_test(decoding_in_place_works),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
