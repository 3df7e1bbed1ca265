/*
 * core.json_decode(text[, items[, max_depth]]) -> value | nil, what, position
 *   One JSON text as Lua values: as `weir.codec.json` decodes it, in fewer steps. null is
 *   lightuserdata NULL (`cjson.null`), numbers are floats, an empty array or object is an empty
 *   table; of equal keys the last one counts. Half of a surrogate pair in an escape is refused: no
 *   string of Lua stands for it. `items` says how many the outermost array has, if that is known;
 *   `max_depth` (64) counts it. Bytes in strings are passed on as they are: that they are UTF-8 is
 *   for weir_json to see to.
 *
 * Tables are made as large as the one before at the same depth was, since messages of a stream are
 * like each other. So what is allocated in vain is bounded by what was needed before.
 */
#include <limits.h>
#include <stdbool.h>
#include <string.h>

#include "lua/core.h"

#define MAX_DEPTH 64
#define MOST_DEPTH 1024
/* Of a number that needs no strtod: its digits are an exact double, a power of ten this small is
 * too, and their quotient is rounded once. */
#define EXACT_DIGITS 15
#define ERROR_NUMBER "a digit is expected"

typedef struct decoder {
  lua_State *L;
  const char *begin, *at, *end; /* *end is 0 */
  const char *error;
  int depth, max_depth;
  int members[MOST_DEPTH + 1], elements[MOST_DEPTH + 1]; /* of the last ones, by depth */
} decoder;

static bool decode_value(decoder *d);

static bool fail(decoder *d, const char *error) {
  d->error = error;
  return false;
}

static void skip_space(decoder *d) {
  while (*d->at == ' ' || *d->at == '\n' || *d->at == '\r' || *d->at == '\t')
    d->at++;
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* --- strings ---------------------------------------------------------------------------------- */

/* Four hexadecimal digits; negative when they are not. */
static long hex4(const char *text) {
  long value = 0;
  for (int i = 0; i < 4; i++) {
    const char c = text[i], lower = (char)(c | 0x20);
    if (is_digit(c)) {
      value = value * 16 + (c - '0');
    } else if (lower >= 'a' && lower <= 'f') {
      value = value * 16 + (lower - 'a' + 10);
    } else {
      return -1;
    }
  }
  return value;
}

static void add_utf8(luaL_Buffer *out, long code) {
  if (code < 0x80) {
    luaL_addchar(out, (char)code);
    return;
  }
  if (code < 0x800) {
    luaL_addchar(out, (char)(0xc0 | code >> 6));
  } else {
    if (code < 0x10000) {
      luaL_addchar(out, (char)(0xe0 | code >> 12));
    } else {
      luaL_addchar(out, (char)(0xf0 | code >> 18));
      luaL_addchar(out, (char)(0x80 | (code >> 12 & 0x3f)));
    }
    luaL_addchar(out, (char)(0x80 | (code >> 6 & 0x3f)));
  }
  luaL_addchar(out, (char)(0x80 | (code & 0x3f)));
}

/* Behind "\u". */
static bool decode_unicode(decoder *d, luaL_Buffer *out) {
  long code = hex4(d->at);
  if (code < 0) return fail(d, "four hexadecimal digits are expected");
  d->at += 4;
  if (code >= 0xd800 && code <= 0xdfff) {
    const long low = code < 0xdc00 && d->at[0] == '\\' && d->at[1] == 'u' ? hex4(d->at + 2) : -1;
    if (low < 0xdc00 || low > 0xdfff) return fail(d, "half of a surrogate pair");
    d->at += 6;
    code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
  }
  add_utf8(out, code);
  return true;
}

/* Behind a backslash. */
static bool decode_escape(decoder *d, luaL_Buffer *out) {
  static const char FROM[] = "\"\\/bfnrt", TO[] = "\"\\/\b\f\n\r\t";
  const char c = *d->at;
  const char *found = c != '\0' ? strchr(FROM, c) : NULL;
  if (found == NULL && c != 'u') return fail(d, "an unknown escape");
  d->at++;
  if (c == 'u') return decode_unicode(d, out);
  luaL_addchar(out, TO[found - FROM]);
  return true;
}

/* The end of a run of plain characters. */
static const char *plain_end(const char *at) {
  while ((unsigned char)*at >= 0x20 && *at != '"' && *at != '\\')
    at++;
  return at;
}

/* The rest of a string that has escapes. */
static bool decode_escaped(decoder *d) {
  luaL_Buffer out;
  luaL_buffinit(d->L, &out);
  while (true) {
    const char *run = d->at;
    d->at = plain_end(run);
    luaL_addlstring(&out, run, (size_t)(d->at - run));
    if (*d->at == '"') break;
    if (*d->at != '\\') return fail(d, "a control character in a string");
    d->at++;
    if (!decode_escape(d, &out)) return false;
  }
  d->at++;
  luaL_pushresult(&out);
  return true;
}

static bool decode_string(decoder *d) {
  const char *start = ++d->at, *end = plain_end(start);
  if (*end != '"') return decode_escaped(d);
  lua_pushlstring(d->L, start, (size_t)(end - start));
  d->at = end + 1;
  return true;
}

/* --- numbers ---------------------------------------------------------------------------------- */

/* Digits, at least one: added to *value as long as it is exact. Their number; 0: none. */
static long take_digits(decoder *d, double *value) {
  const char *start = d->at;
  while (is_digit(*d->at)) {
    *value = *value * 10 + (*d->at - '0');
    d->at++;
  }
  return (long)(d->at - start);
}

static bool decode_number(decoder *d) {
  static const double POWERS[] = {1e0, 1e1, 1e2,  1e3,  1e4,  1e5,  1e6, 1e7,
                                  1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14};
  const char *start = d->at;
  double value = 0;
  long digits, fraction = 0;
  bool exact = true;
  if (*d->at == '-') d->at++;
  const bool zero = *d->at == '0';
  digits = take_digits(d, &value);
  if (digits == 0) return fail(d, ERROR_NUMBER);
  if (zero && digits > 1) return fail(d, "a number begins with 0");
  if (*d->at == '.') {
    d->at++;
    fraction = take_digits(d, &value);
    if (fraction == 0) return fail(d, ERROR_NUMBER);
  }
  if (*d->at == 'e' || *d->at == 'E') {
    double ignored = 0;
    exact = false;
    d->at++;
    if (*d->at == '+' || *d->at == '-') d->at++;
    if (take_digits(d, &ignored) == 0) return fail(d, ERROR_NUMBER);
  }
  if (exact && digits + fraction <= EXACT_DIGITS) {
    value /= POWERS[fraction];
    lua_pushnumber(d->L, *start == '-' ? -value : value);
    return true;
  }
  lua_pushlstring(d->L, start, (size_t)(d->at - start));
  if (!lua_isnumber(d->L, -1)) return fail(d, "a number is too long");
  value = lua_tonumber(d->L, -1);
  lua_pop(d->L, 1);
  lua_pushnumber(d->L, value);
  return true;
}

/* --- values ----------------------------------------------------------------------------------- */

static bool decode_literal(decoder *d, const char *literal) {
  const size_t len = strlen(literal);
  if (strncmp(d->at, literal, len) != 0) return fail(d, "true, false or null is expected");
  d->at += len;
  return true;
}

static bool enter(decoder *d) {
  if (++d->depth > d->max_depth) return fail(d, "nested too deeply");
  luaL_checkstack(d->L, 8, "nested too deeply");
  d->at++;
  skip_space(d);
  return true;
}

/* Behind an element: whether another follows. False also for an error. */
static bool more(decoder *d, char close, const char *error) {
  skip_space(d);
  const char c = *d->at;
  if (c != ',' && c != close) return fail(d, error);
  d->at++;
  if (c == close) return false;
  skip_space(d);
  return true;
}

static bool decode_array(decoder *d) {
  int count = 0;
  if (!enter(d)) return false;
  if (*d->at == ']') {
    d->at++;
    lua_newtable(d->L);
  } else {
    lua_createtable(d->L, d->elements[d->depth], 0);
    do {
      if (count == INT_MAX) return fail(d, "too many elements");
      if (!decode_value(d)) return false;
      lua_rawseti(d->L, -2, ++count);
    } while (more(d, ']', "a comma or ] is expected"));
    if (d->error != NULL) return false;
    d->elements[d->depth] = count;
  }
  d->depth--;
  return true;
}

static bool decode_object(decoder *d) {
  int count = 0;
  if (!enter(d)) return false;
  if (*d->at == '}') {
    d->at++;
    lua_newtable(d->L);
  } else {
    lua_createtable(d->L, 0, d->members[d->depth]);
    do {
      if (*d->at != '"') return fail(d, "a key is expected");
      if (!decode_string(d)) return false;
      skip_space(d);
      if (*d->at != ':') return fail(d, "a colon is expected");
      d->at++;
      skip_space(d);
      if (!decode_value(d)) return false;
      lua_rawset(d->L, -3);
      if (count < INT_MAX) count++;
    } while (more(d, '}', "a comma or } is expected"));
    if (d->error != NULL) return false;
    d->members[d->depth] = count;
  }
  d->depth--;
  return true;
}

/* Pushes one value. Recursion is bounded by max_depth. */
static bool decode_value(decoder *d) {
  switch (*d->at) {
    case '{': return decode_object(d);
    case '[': return decode_array(d);
    case '"': return decode_string(d);
    case 't': lua_pushboolean(d->L, 1); return decode_literal(d, "true");
    case 'f': lua_pushboolean(d->L, 0); return decode_literal(d, "false");
    case 'n': lua_pushlightuserdata(d->L, NULL); return decode_literal(d, "null");
    default: break;
  }
  if (*d->at == '-' || is_digit(*d->at)) return decode_number(d);
  return fail(d, "a value is expected");
}

static int json_decode(lua_State *L) {
  size_t len;
  decoder d = {.L = L};
  d.begin = d.at = luaL_checklstring(L, 1, &len);
  d.end = d.begin + len;
  const lua_Number items = luaL_optnumber(L, 2, 0), depth = luaL_optnumber(L, 3, MAX_DEPTH);
  luaL_argcheck(L, items >= 0 && items < 0x1p53, 2, "a number of elements expected");
  luaL_argcheck(L, depth >= 1 && depth <= MOST_DEPTH, 3, "a depth expected");
  d.max_depth = (int)depth;
  /* An element and its comma take two bytes. */
  const size_t possible = len / 2 < INT_MAX ? len / 2 : INT_MAX;
  d.elements[1] = (int)(items < (lua_Number)possible ? items : (lua_Number)possible);
  skip_space(&d);
  bool ok = decode_value(&d);
  if (ok) {
    skip_space(&d);
    ok = d.at == d.end || fail(&d, "nothing may follow");
  }
  if (ok) return 1;
  lua_pushnil(L);
  lua_pushstring(L, d.at == d.end ? "the text ends too early" : d.error);
  lua_pushnumber(L, (lua_Number)(d.at - d.begin));
  return 3;
}

void weir_lua_open_durable_decode(lua_State *L) {
  static const luaL_Reg FUNCTIONS[] = {{"json_decode", json_decode}, {NULL, NULL}};
  luaL_setfuncs(L, FUNCTIONS, 0);
}
