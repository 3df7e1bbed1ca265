#include "core/blake3.h"
#include "lua/core.h"

/***
 * The BLAKE3 hash of a string.
 * @function blake3
 * @tparam string data
 * @treturn string 32 bytes
 */
static int hash_blake3(lua_State *L) {
  size_t len;
  const char *data = luaL_checklstring(L, 1, &len);
  uint8_t out[WEIR_BLAKE3_OUT];
  weir_blake3(data, len, out);
  lua_pushlstring(L, (const char *)out, sizeof out);
  return 1;
}

static int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

/* Whether `name` is 64 hex digits; then `id` is what they say. */
static int parse_id(const char *name, size_t len, uint8_t id[WEIR_BLAKE3_OUT]) {
  if (len != 2 * WEIR_BLAKE3_OUT) return 0;
  for (size_t i = 0; i < WEIR_BLAKE3_OUT; i++) {
    int high = hex_digit(name[2 * i]);
    int low = hex_digit(name[2 * i + 1]);
    if (high < 0 || low < 0) return 0;
    id[i] = (uint8_t)(high << 4 | low);
  }
  return 1;
}

/***
 * The id of a stream: the BLAKE3 hash of its name, or the id itself where the name is one, written
 * as 64 hex digits.
 * @function stream_id
 * @tparam string name
 * @treturn string 32 bytes
 */
static int hash_stream_id(lua_State *L) {
  size_t len;
  const char *name = luaL_checklstring(L, 1, &len);
  uint8_t id[WEIR_BLAKE3_OUT];
  if (!parse_id(name, len, id)) weir_blake3(name, len, id);
  lua_pushlstring(L, (const char *)id, sizeof id);
  return 1;
}

void weir_lua_open_hash(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"blake3", hash_blake3},
      {"stream_id", hash_stream_id},
      {NULL, NULL},
  };
  luaL_setfuncs(L, functions, 0);
}
