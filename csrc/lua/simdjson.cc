/***
 * JSON texts as Lua values, by simdjson: what the codec "json" decodes with, before lua-cjson.
 *
 * It decodes what it decodes to values equal to lua-cjson's with the settings of that codec, and
 * leaves every other text to it: no text has two meanings, and all errors are lua-cjson's. Left are
 * texts that are no JSON or no UTF-8, that nest more than 64 deep, that have numbers beyond what a
 * double or 64 bits hold, or half of a surrogate pair, and those longer than 1 MiB, so that what
 * is reserved for parsing (some 15 bytes for each of the longest text so far) is bounded.
 *
 * - Numbers without a fraction or exponent are integers where Lua has any, exact to 64 bits; others
 *   are floats. null is a light userdata NULL, as `cjson.null`.
 * - Of equal keys in an object, the last one counts.
 * @module weir.simdjson
 */
#define SIMDJSON_EXCEPTIONS 0 /* what fails is left to lua-cjson, and Lua jumps over C++ frames */
#include <simdjson.h>

#include <cstring>
#include <new>

extern "C" {
#include <lauxlib.h>
#include <lua.h>
}

namespace {

namespace dom = simdjson::dom;
using dom::element_type;

constexpr int MAX_DEPTH = 64;
constexpr size_t MAX_TEXT = size_t{1} << 20;
constexpr int SLOTS = 2 * MAX_DEPTH + 4; /* of the stack: a table and a key at every depth */

struct decoder {
  lua_State *L;
  int depth;
  bool zero; /* a zero without a fraction was seen, whose sign simdjson drops */
};

bool push_value(decoder &d, dom::element value);

void push_string(lua_State *L, std::string_view text) {
  lua_pushlstring(L, text.data(), text.size());
}

bool push_array(decoder &d, dom::array array) {
  lua_createtable(d.L, static_cast<int>(array.size()), 0);
  int index = 0;
  for (dom::element value : array) {
    if (!push_value(d, value)) return false;
    lua_rawseti(d.L, -2, ++index);
  }
  return true;
}

bool push_object(decoder &d, dom::object object) {
  lua_createtable(d.L, 0, static_cast<int>(object.size()));
  for (dom::key_value_pair member : object) {
    push_string(d.L, member.key);
    if (!push_value(d, member.value)) return false;
    lua_rawset(d.L, -3);
  }
  return true;
}

bool push_integer(decoder &d, int64_t integer) {
  if (integer == 0) d.zero = true;
#if LUA_VERSION_NUM >= 503
  lua_pushinteger(d.L, static_cast<lua_Integer>(integer));
#else
  lua_pushnumber(d.L, static_cast<lua_Number>(integer));
#endif
  return true;
}

/* Pushes a value; false when it nests too deeply. The type is known, so no conversion fails. */
bool push_value(decoder &d, dom::element value) {
  bool ok = true;
  switch (value.type()) {
    case element_type::ARRAY:
      ok = ++d.depth <= MAX_DEPTH && push_array(d, value.get_array().value_unsafe());
      d.depth--;
      return ok;
    case element_type::OBJECT:
      ok = ++d.depth <= MAX_DEPTH && push_object(d, value.get_object().value_unsafe());
      d.depth--;
      return ok;
    case element_type::STRING: push_string(d.L, value.get_string().value_unsafe()); return true;
    case element_type::INT64: return push_integer(d, value.get_int64().value_unsafe());
    case element_type::UINT64:
      lua_pushnumber(d.L, static_cast<lua_Number>(value.get_uint64().value_unsafe()));
      return true;
    case element_type::DOUBLE: lua_pushnumber(d.L, value.get_double().value_unsafe()); return true;
    case element_type::BOOL: lua_pushboolean(d.L, value.get_bool().value_unsafe()); return true;
    case element_type::NULL_VALUE: lua_pushlightuserdata(d.L, nullptr); return true;
  }
  return false;
}

bool may_end_number(char c) {
  return c == ',' || c == ']' || c == '}' || c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Whether "-0" may stand there as a number. */
bool has_negative_zero(const char *text, size_t len) {
  const char *end = text + len;
  while ((text = static_cast<const char *>(memchr(text, '-', end - text))) != nullptr) {
    text++;
    if (text == end || *text != '0') continue;
    if (text + 1 == end || may_end_number(text[1])) return true;
  }
  return false;
}

/***
 * Decodes one JSON text.
 * @function decode
 * @tparam string text
 * @return the value, never nil; nil: this text is for lua-cjson
 */
int decode(lua_State *L) {
  if (lua_type(L, 1) != LUA_TSTRING || !lua_checkstack(L, SLOTS)) return 0;
  size_t len;
  const char *text = lua_tolstring(L, 1, &len);
  /* Newer versions skip a byte order mark. */
  if (len == 0 || len > MAX_TEXT || text[0] == '\xef') return 0;
  auto *parser = static_cast<dom::parser *>(lua_touserdata(L, lua_upvalueindex(1)));
  dom::element value;
  if (parser->parse(text, len).get(value) != simdjson::SUCCESS) return 0;
  decoder d = {L, 0, false};
  if (!push_value(d, value) || (d.zero && has_negative_zero(text, len))) return 0;
  return 1;
}

int free_parser(lua_State *L) {
  static_cast<dom::parser *>(lua_touserdata(L, 1))->~parser();
  return 0;
}

}  // namespace

extern "C" int luaopen_weir_simdjson(lua_State *L) {
  lua_createtable(L, 0, 1);
  new (lua_newuserdata(L, sizeof(dom::parser))) dom::parser(MAX_TEXT);
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, free_parser);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  lua_pushcclosure(L, decode, 1);
  lua_setfield(L, -2, "decode");
  return 1;
}
