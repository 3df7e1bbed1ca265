#include "core/durable/json.h"

#include "support.h"

/* Items as "item;" end to end, and how it ended. */
typedef struct outcome {
  char text[8192];
  size_t len;
  weir_status status;
  uint64_t position;
} outcome;

static void note(outcome *out, const void *bytes, size_t len) {
  assert_true(len < sizeof out->text - out->len);
  if (len > 0) memcpy(out->text + out->len, bytes, len);
  out->len += len;
  out->text[out->len] = '\0';
}

static void feed(weir_json *json, const char *bytes, size_t len, outcome *out) {
  unsigned char *piece = weir_test_copy(bytes, len);
  const unsigned char *at = piece;
  weir_slice item;
  while ((out->status = weir_json_next(json, &at, &len, &item)) == WEIR_OK) {
    note(out, item.ptr, item.len);
    note(out, ";", 1);
    weir_slice_unref(&item);
  }
  out->position = json->position;
  free(piece);
}

static outcome split(weir_test_alloc *memory, const char *input, size_t len, size_t cut) {
  outcome out = {.len = 0};
  weir_json json;
  weir_json_init(&json, &memory->alloc, 4096, 16);
  if (cut <= len) {
    feed(&json, input, cut, &out);
    if (out.status == WEIR_E_AGAIN) feed(&json, input + cut, len - cut, &out);
  } else {
    out.status = WEIR_E_AGAIN;
    for (size_t i = 0; i < len && out.status == WEIR_E_AGAIN; i++)
      feed(&json, input + i, 1, &out);
  }
  if (out.status == WEIR_E_AGAIN) out.status = weir_json_end(&json);
  weir_json_free(&json);
  return out;
}

/* Whole, byte by byte and cut in two everywhere: always the same. */
static void assert_items_n(weir_test_alloc *memory, const char *input, size_t len,
                           const char *expected, weir_status status, uint64_t position) {
  for (size_t cut = 0; cut <= len + 1; cut++) {
    const outcome out = split(memory, input, len, cut);
    assert_status(out.status, status);
    assert_string_equal(out.text, expected);
    if (status != WEIR_OK) assert_int_equal(out.position, position);
  }
}

#define assert_items(input, expected) \
  assert_items_n(*state, input, sizeof(input) - 1, expected, WEIR_OK, 0)
#define assert_wrong_at(at, input) \
  assert_wrong_in(*state, input, sizeof(input) - 1, at, WEIR_E_PROTOCOL)

static void assert_wrong_in(weir_test_alloc *memory, const char *input, size_t len, uint64_t at,
                            weir_status status) {
  for (size_t cut = 0; cut <= len + 1; cut++) {
    const outcome out = split(memory, input, len, cut);
    assert_status(out.status, status);
    assert_int_equal(out.position, at);
  }
}

static void elements_come_out_as_their_exact_text(void **state) {
  assert_items("[]", "");
  assert_items(" [ ] \r\n\t", "");
  assert_items("[1]", "1;");
  assert_items("[ 1.0 , 12345678901234567890 ,-0,1e5, 1E-7,0.5e+3 ]",
               "1.0;12345678901234567890;-0;1e5;1E-7;0.5e+3;");
  assert_items("[true,false,null]", "true;false;null;");
  assert_items("[{\"a\": 1, \"a\" :2},[[], [ {} ]],{}]", "{\"a\": 1, \"a\" :2};[[], [ {} ]];{};");
}

static void strings_keep_their_escapes(void **state) {
  assert_items("[\"\",\"a\\\"b\\\\\",\"\\u00e9\\uD83D\\ude00\\n\\/\",\"],[\"]",
               "\"\";\"a\\\"b\\\\\";\"\\u00e9\\uD83D\\ude00\\n\\/\";\"],[\";");
  assert_items("[\"\\ud800\"]", "\"\\ud800\";");
}

static void utf8_may_be_split_anywhere(void **state) {
  assert_items("[\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xe2\x80\xa8\"]",
               "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xe2\x80\xa8\";");
}

static void bad_utf8_is_refused_where_it_is(void **state) {
  assert_wrong_at(2, "[\"\xff\"]");
  assert_wrong_at(2, "[\"\x80\"]");
  assert_wrong_at(2, "[\"\xc0\xaf\"]");
  assert_wrong_at(3, "[\"\xc3\"]");
  assert_wrong_at(3, "[\"\xe0\x9f\xbf\"]");
  assert_wrong_at(3, "[\"\xed\xa0\x80\"]");
  assert_wrong_at(3, "[\"\xf0\x8f\xbf\xbf\"]");
  assert_wrong_at(3, "[\"\xf4\x90\x80\x80\"]");
  assert_wrong_at(2, "[\"\xf5\x80\x80\x80\"]");
}

static void what_is_no_json_is_refused_where_it_goes_wrong(void **state) {
  assert_wrong_at(0, "1");
  assert_wrong_at(0, "{}");
  assert_wrong_at(1, "[,1]");
  assert_wrong_at(3, "[1,]");
  assert_wrong_at(3, "[1 2]");
  assert_wrong_at(2, "[01]");
  assert_wrong_at(2, "[-]");
  assert_wrong_at(3, "[1.]");
  assert_wrong_at(3, "[1e]");
  assert_wrong_at(4, "[1e+]");
  assert_wrong_at(1, "[+1]");
  assert_wrong_at(1, "[.5]");
  assert_wrong_at(4, "[tru]");
  assert_wrong_at(5, "[truex]");
  assert_wrong_at(1, "['a']");
  assert_wrong_at(2, "[\"\n\"]");
  assert_wrong_at(3, "[\"\\x\"]");
  assert_wrong_at(7, "[\"\\u123\"]");
  assert_wrong_at(2, "[{1:2}]");
  assert_wrong_at(5, "[{\"a\"}]");
  assert_wrong_at(8, "[{\"a\":1,}]");
  assert_wrong_at(2, "[[}]");
  assert_wrong_at(3, "[] 1");
  assert_wrong_at(2, "[][]");
  assert_wrong_at(1, "[\0]");
}

static void a_text_that_ends_too_early_is_refused_at_its_end(void **state) {
  assert_wrong_at(0, "");
  assert_wrong_at(2, "[1");
  assert_wrong_at(3, "[1,");
  assert_wrong_at(3, "[\"a");
  assert_wrong_at(3, "[[]");
  assert_wrong_at(6, "[{\"a\":");
}

static void nesting_is_bounded(void **state) {
  assert_items("[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]", "[[[[[[[[[[[[[[[]]]]]]]]]]]]]]];");
  assert_wrong_in(*state, "[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]", 34, 16, WEIR_E_LIMIT);
  assert_wrong_in(*state, "[[[[[[[[[[[[[[[[{}]]]]]]]]]]]]]]]]", 34, 16, WEIR_E_LIMIT);
}

static void an_element_is_bounded_however_it_is_cut(void **state) {
  weir_test_alloc *memory = *state;
  const char input[] = "[\"abc\",12345,123456]";
  for (size_t cut = 0; cut < sizeof input; cut++) {
    outcome out = {.len = 0};
    weir_json json;
    weir_json_init(&json, &memory->alloc, 5, 0);
    feed(&json, input, cut, &out);
    if (out.status == WEIR_E_AGAIN) feed(&json, input + cut, sizeof input - 1 - cut, &out);
    assert_status(out.status, WEIR_E_LIMIT);
    assert_string_equal(out.text, "\"abc\";12345;");
    weir_json_free(&json);
  }
}

static void an_element_in_one_piece_is_borrowed(void **state) {
  weir_test_alloc *memory = *state;
  weir_json json;
  weir_json_init(&json, &memory->alloc, 100, 0);
  const unsigned char input[] = "[{\"a\":1},2]", *at = input;
  size_t len = sizeof input - 1;
  weir_slice item;
  assert_ok(weir_json_next(&json, &at, &len, &item));
  assert_null(item.buf);
  assert_ptr_equal(item.ptr, input + 1);
  assert_ok(weir_json_next(&json, &at, &len, &item));
  assert_int_equal(memory->calls, 0);
  weir_json_free(&json);
}

static void a_long_element_is_not_copied_again_and_again(void **state) {
  weir_test_alloc *memory = *state;
  outcome out = {.len = 0};
  weir_json json;
  weir_json_init(&json, &memory->alloc, 1 << 20, 0);
  feed(&json, "[\"", 2, &out);
  for (int i = 0; i < 1 << 16; i++)
    feed(&json, "x", 1, &out);
  assert_true(memory->calls < 20);
  weir_json_free(&json);
}

static void after_a_reset_another_array_is_read(void **state) {
  weir_test_alloc *memory = *state;
  outcome out = {.len = 0};
  weir_json json;
  weir_json_init(&json, &memory->alloc, 100, 0);
  feed(&json, "[1,[2", 5, &out);
  weir_json_reset(&json);
  feed(&json, "[3]", 3, &out);
  assert_ok(weir_json_end(&json));
  feed(&json, "x", 1, &out);
  assert_status(out.status, WEIR_E_PROTOCOL);
  weir_json_reset(&json);
  feed(&json, "[4]", 3, &out);
  assert_ok(weir_json_end(&json));
  assert_string_equal(out.text, "1;3;4;");
  weir_json_free(&json);
}

static void whole_texts_of_any_kind_are_checked(void **state) {
  (void)state;
  static const char *const GOOD[] = {"1",      "-0.5e1", "\"a\"",  "null",
                                     " true ", "{}",     "[1,{}]", "{\"a\":[1,2,{\"b\":null}]} "};
  static const char *const BAD[] = {"",    " ",   "1 2",      "-",    "1.",
                                    "nul", "\"a", "{\"a\":1", "[1]]", "{]"};
  for (size_t i = 0; i < sizeof GOOD / sizeof GOOD[0]; i++)
    assert_ok(weir_json_check(GOOD[i], strlen(GOOD[i]), 0, NULL, NULL));
  for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
    uint64_t position;
    const char *error = NULL;
    assert_status(weir_json_check(BAD[i], strlen(BAD[i]), 0, &position, &error), WEIR_E_PROTOCOL);
    assert_non_null(error);
    assert_true(position <= strlen(BAD[i]));
  }
  assert_status(weir_json_check("[[1]]", 5, 1, NULL, NULL), WEIR_E_LIMIT);
}

static void split_with(weir_test_alloc *memory) {
  for (size_t cut = 0; cut < 20; cut++)
    (void)split(memory, "[\"abcdef\",[1,2,3]]", 18, cut);
}

static void nothing_leaks_when_an_allocation_fails(void **state) {
  (void)state;
  each_failure(split_with);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      memory_test(elements_come_out_as_their_exact_text),
      memory_test(strings_keep_their_escapes),
      memory_test(utf8_may_be_split_anywhere),
      memory_test(bad_utf8_is_refused_where_it_is),
      memory_test(what_is_no_json_is_refused_where_it_goes_wrong),
      memory_test(a_text_that_ends_too_early_is_refused_at_its_end),
      memory_test(nesting_is_bounded),
      memory_test(an_element_is_bounded_however_it_is_cut),
      memory_test(an_element_in_one_piece_is_borrowed),
      memory_test(a_long_element_is_not_copied_again_and_again),
      memory_test(after_a_reset_another_array_is_read),
      memory_test(whole_texts_of_any_kind_are_checked),
      cmocka_unit_test(nothing_leaks_when_an_allocation_fails),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
