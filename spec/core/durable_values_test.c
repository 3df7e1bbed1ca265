#include "core/durable/values.h"

#include "support.h"

#define MAX_TAKEN 16

/* Where values ended, and how it went on. */
typedef struct outcome {
  size_t ends[MAX_TAKEN], count;
  weir_status status;
  size_t blamed;
} outcome;

static void feed(weir_values *values, const uint8_t *bytes, size_t from, size_t to, outcome *out) {
  uint8_t *piece = weir_test_copy(bytes + from, to - from);
  size_t at = from, taken;
  while ((out->status = weir_values_next(values, piece + (at - from), to - at, &taken)) ==
         WEIR_OK) {
    at += taken;
    assert_true(out->count < MAX_TAKEN);
    out->ends[out->count++] = at;
  }
  out->blamed = at + taken;
  free(piece);
}

static outcome scan(weir_values_format format, const uint8_t *bytes, size_t len, size_t cut,
                    size_t max) {
  outcome out = {.count = 0};
  weir_values values;
  weir_values_init(&values, format, max);
  if (cut <= len) {
    feed(&values, bytes, 0, cut, &out);
    if (out.status == WEIR_E_AGAIN) feed(&values, bytes, cut, len, &out);
    return out;
  }
  out.status = WEIR_E_AGAIN;
  for (size_t i = 0; i < len && out.status == WEIR_E_AGAIN; i++)
    feed(&values, bytes, i, i + 1, &out);
  return out;
}

static uint8_t digit(char c) { return (uint8_t)(c <= '9' ? c - '0' : c - 'a' + 10); }

/* Hexadecimal digits; a bar where a value ends. Checks that these are the ends, whole, byte by byte
 * and cut in two everywhere, and returns how it went on. */
static outcome assert_ends_within(weir_values_format format, const char *text, size_t max) {
  uint8_t bytes[512];
  size_t len = 0, ends[MAX_TAKEN], count = 0;
  for (const char *at = text; *at != '\0'; at++) {
    if (*at == ' ') continue;
    if (*at == '|') {
      ends[count++] = len;
    } else {
      bytes[len++] = (uint8_t)(digit(at[0]) << 4 | digit(at[1]));
      at++;
    }
  }
  const outcome whole = scan(format, bytes, len, len, max);
  for (size_t cut = 0; cut <= len + 1; cut++) {
    const outcome out = scan(format, bytes, len, cut, max);
    assert_status(out.status, whole.status);
    assert_int_equal(out.count, count);
    for (size_t i = 0; i < count; i++)
      assert_int_equal(out.ends[i], ends[i]);
  }
  return whole;
}

static void assert_ends(weir_values_format format, const char *text) {
  assert_status(assert_ends_within(format, text, 1000).status, WEIR_E_AGAIN);
}

static void finds_the_end_of_each_messagepack_value(void **state) {
  (void)state;
  assert_ends(WEIR_VALUES_MSGPACK, "00|7f|e0|ff|c0|c2|c3|");
  assert_ends(WEIR_VALUES_MSGPACK, "cc80|cd0100|ce00010000|cf0000000100000000|");
  assert_ends(WEIR_VALUES_MSGPACK, "d0df|d1ff7f|d2ffff7fff|d3ffffffff7fffffff|");
  assert_ends(WEIR_VALUES_MSGPACK, "ca3fc00000|cb3ff8000000000000|");
  assert_ends(WEIR_VALUES_MSGPACK, "a0|a26162|d90161|da000161|db0000000161|d900|");
  assert_ends(WEIR_VALUES_MSGPACK, "c401ff|c50001ff|c600000001ff|c400|");
  assert_ends(WEIR_VALUES_MSGPACK,
              "d401ff|d501ffff|d601ffffffff|c70101ff|c8000101ff|c90000000101ff|");
  assert_ends(WEIR_VALUES_MSGPACK,
              "d70100000000 00000000|d801 00000000 00000000 00000000 00000000|");
  assert_ends(WEIR_VALUES_MSGPACK, "90|93010203|9291a16102|dc00020102|dd000000020102|dc0000|");
  assert_ends(WEIR_VALUES_MSGPACK, "80|8101 02|82a161 9102 a162 80|de0001 0102|df00000001 0102|");
}

static void finds_the_end_of_each_cbor_value(void **state) {
  (void)state;
  assert_ends(WEIR_VALUES_CBOR, "00|17|1818|190100|1a00010000|1b0000000100000000|20|3818|");
  assert_ends(WEIR_VALUES_CBOR, "f4|f5|f6|f7|f8ff|f90000|fa00000000|fb0000000000000000|");
  assert_ends(WEIR_VALUES_CBOR,
              "40|4101|580101|60|6161|79000161|7a0000000161|7b000000000000000161|");
  assert_ends(WEIR_VALUES_CBOR,
              "80|83010203|8281616102|980101|a0|a10102|a2016102 6180 a0|b9000101 02|");
  assert_ends(WEIR_VALUES_CBOR, "c001|d81800|d9d9f7 82 c1 01 02|");
  assert_ends(WEIR_VALUES_CBOR,
              "5f 4101 4102 ff|7f ff|9f 01 9f ff 8101 ff|bf 6161 bf ff 02 03 ff|");
}

static void waits_for_the_rest_of_a_value(void **state) {
  (void)state;
  static const char *const MSGPACK[] = {"cd01", "a361", "9101|92 01", "81 a161", "c7", "d4 01"};
  static const char *const CBOR[] = {"1901",  "6361", "8101|8201", "a1 6161",
                                     "9f 01", "c0",   "5f 41"};
  for (size_t i = 0; i < sizeof MSGPACK / sizeof MSGPACK[0]; i++)
    assert_ends(WEIR_VALUES_MSGPACK, MSGPACK[i]);
  for (size_t i = 0; i < sizeof CBOR / sizeof CBOR[0]; i++)
    assert_ends(WEIR_VALUES_CBOR, CBOR[i]);
}

static void refuses_bytes_that_start_no_value(void **state) {
  (void)state;
  outcome out = assert_ends_within(WEIR_VALUES_MSGPACK, "01|92 01 c1", 1000);
  assert_status(out.status, WEIR_E_PROTOCOL);
  assert_int_equal(out.blamed, 3);
  static const char *const CBOR[] = {"1c", "3d", "5e", "1f",    "3f",
                                     "df", "fc", "ff", "81 ff", "9f c0 1c"};
  for (size_t i = 0; i < sizeof CBOR / sizeof CBOR[0]; i++) {
    out = assert_ends_within(WEIR_VALUES_CBOR, CBOR[i], 1000);
    assert_status(out.status, WEIR_E_PROTOCOL);
  }
}

static void assert_limit(weir_values_format format, const char *text, size_t max) {
  assert_status(assert_ends_within(format, text, max).status, WEIR_E_LIMIT);
}

static void refuses_a_long_value_as_soon_as_its_length_is_known(void **state) {
  (void)state;
  assert_ends_within(WEIR_VALUES_MSGPACK, "a3616263|93010203|c401ff|", 4);
  assert_limit(WEIR_VALUES_MSGPACK, "00|a4", 4);
  assert_limit(WEIR_VALUES_MSGPACK, "dbffffffff", 1000);
  assert_limit(WEIR_VALUES_MSGPACK, "c9ffffffff", 1000);
  assert_limit(WEIR_VALUES_MSGPACK, "ddffffffff", 1000);
  assert_limit(WEIR_VALUES_MSGPACK, "df000001f4", 1000);
  assert_limit(WEIR_VALUES_MSGPACK, "92 a161 a16162", 4);
  assert_limit(WEIR_VALUES_CBOR, "5bffffffffffffffff", 1000);
  assert_limit(WEIR_VALUES_CBOR, "9bffffffffffffffff", 1000);
  assert_limit(WEIR_VALUES_CBOR, "bbffffffffffffffff", 1000);
  assert_limit(WEIR_VALUES_CBOR, "bb7fffffffffffffff", 1000);
  assert_limit(WEIR_VALUES_CBOR, "9f 01 02 03 04", 4);
  assert_limit(WEIR_VALUES_CBOR, "c1c1c1c1c1", 4);
}

static void refuses_what_nests_too_deep(void **state) {
  (void)state;
  char text[2 * 70 + 1] = "";
  for (size_t i = 0; i < WEIR_VALUES_DEPTH; i++)
    strcat(text, "91");
  strcat(text, "00|");
  assert_ends(WEIR_VALUES_MSGPACK, text);
  strcpy(strchr(text, '|') - 2, "91");
  assert_limit(WEIR_VALUES_MSGPACK, text, 1000);
}

static void stays_failed_until_it_is_reset(void **state) {
  (void)state;
  weir_values values;
  size_t taken;
  weir_values_init(&values, WEIR_VALUES_MSGPACK, 10);
  assert_status(weir_values_next(&values, "\x92\xc1", 2, &taken), WEIR_E_PROTOCOL);
  assert_string_equal(values.error, "no value starts with this byte");
  assert_status(weir_values_next(&values, "\x01", 1, &taken), WEIR_E_PROTOCOL);
  assert_int_equal(taken, 0);
  weir_values_reset(&values);
  assert_status(weir_values_next(&values, "\x01", 1, &taken), WEIR_OK);
  assert_int_equal(taken, 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(finds_the_end_of_each_messagepack_value),
      cmocka_unit_test(finds_the_end_of_each_cbor_value),
      cmocka_unit_test(waits_for_the_rest_of_a_value),
      cmocka_unit_test(refuses_bytes_that_start_no_value),
      cmocka_unit_test(refuses_a_long_value_as_soon_as_its_length_is_known),
      cmocka_unit_test(refuses_what_nests_too_deep),
      cmocka_unit_test(stays_failed_until_it_is_reset),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
