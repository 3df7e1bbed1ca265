/***
 * MessagePack, by msgpack-c's packer and its unpacker template: the codec "msgpack" is made on it.
 *
 * Values map like this, and back:
 *
 * - nil and `msgpack.null` (a light userdata NULL, the same value as `cjson.null`) are nil; nil
 *   comes back as `msgpack.null`, so that a decoded value is never nil.
 * - Integers are integers, other numbers are 64-bit floats; in LuaJIT a number without a fraction
 *   of up to 2^53 is an integer. What Lua has no integer for comes back as the nearest float:
 *   above 2^63 in Lua 5.4, beyond 2^53 in LuaJIT.
 * - A string is `str` when it is valid UTF-8, else `bin`; both come back as strings.
 * - A table whose keys are 1..n is an array, and so is the empty table; any other is a map, whose
 *   keys may be strings, numbers and booleans. `msgpack.map(t)` and `msgpack.array(t)` mark a table
 *   as one or the other. Tables are read raw, without metamethods.
 * - `msgpack.ext(type, data)` is an extension value, and every extension value comes back as such
 *   a table; weir gives no meaning to any type.
 *
 * Tables nest 64 deep at most, both ways. What is reserved while decoding is bounded by the length
 * of the input, whatever lengths it claims. Of equal keys in a map, the last one counts.
 * @module weir.msgpack
 */
#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "lua/encode.h"

#define MSGPACK_EMBED_STACK_SIZE 64 /* what the unpacker template calls MAX_DEPTH */
#include <msgpack.h>
#include <msgpack/unpack_define.h>
_Static_assert(WEIR_LUA_DEPTH == MSGPACK_EMBED_STACK_SIZE, "one depth for both ways");

/* --- encoding --------------------------------------------------------------------------------- */

static int write_bytes(void *encoder, const char *bytes, size_t len) {
  weir_lua_encode_write(encoder, bytes, len);
  return 0;
}

static msgpack_packer packer_of(weir_lua_encoder *e) {
  return (msgpack_packer){.data = e, .callback = write_bytes};
}

static void pack_null(weir_lua_encoder *e) {
  msgpack_packer packer = packer_of(e);
  msgpack_pack_nil(&packer);
}

static void pack_boolean(weir_lua_encoder *e, bool value) {
  msgpack_packer packer = packer_of(e);
  if (value) {
    msgpack_pack_true(&packer);
  } else {
    msgpack_pack_false(&packer);
  }
}

static void pack_integer(weir_lua_encoder *e, int64_t value) {
  msgpack_packer packer = packer_of(e);
  msgpack_pack_int64(&packer, value);
}

static void pack_number(weir_lua_encoder *e, double value) {
  msgpack_packer packer = packer_of(e);
  msgpack_pack_double(&packer, value);
}

static void pack_text(weir_lua_encoder *e, const char *bytes, size_t len) {
  msgpack_packer packer = packer_of(e);
  msgpack_pack_str_with_body(&packer, bytes, len);
}

static void pack_bytes(weir_lua_encoder *e, const char *bytes, size_t len) {
  msgpack_packer packer = packer_of(e);
  msgpack_pack_bin_with_body(&packer, bytes, len);
}

static void pack_array(weir_lua_encoder *e, size_t count) {
  msgpack_packer packer = packer_of(e);
  msgpack_pack_array(&packer, count);
}

static void pack_map(weir_lua_encoder *e, size_t count) {
  msgpack_packer packer = packer_of(e);
  msgpack_pack_map(&packer, count);
}

static bool pack_ext(weir_lua_encoder *e, int index) {
  lua_State *L = weir_lua_encoder_state(e);
  lua_pushliteral(L, "type");
  lua_rawget(L, index);
  lua_pushliteral(L, "data");
  lua_rawget(L, index);
  lua_Integer type = lua_isinteger(L, -2) ? lua_tointeger(L, -2) : INT_MAX;
  bool valid = type >= INT8_MIN && type <= INT8_MAX && lua_type(L, -1) == LUA_TSTRING;
  size_t len = 0;
  const char *data = valid ? lua_tolstring(L, -1, &len) : NULL;
  if (!valid || len > UINT32_MAX) {
    return weir_lua_encode_refuse(e, "an extension value", "",
                                  ": it needs type (-128..127) and data");
  }
  msgpack_packer packer = packer_of(e);
  msgpack_pack_ext_with_body(&packer, data, len, (int8_t)type);
  lua_pop(L, 2);
  return true;
}

static const weir_lua_format FORMAT = {
    .name = "msgpack",
    .max_count = UINT32_MAX,
    .null = pack_null,
    .boolean = pack_boolean,
    .integer = pack_integer,
    .number = pack_number,
    .text = pack_text,
    .bytes = pack_bytes,
    .array = pack_array,
    .map = pack_map,
    .own = pack_ext,
};

/***
 * Encodes one value.
 * @function encode
 * @param value
 * @treturn[1] string
 * @return[2] nil
 * @treturn[2] string what cannot be encoded and where it is, as in "cannot encode a function at
 * .user.callback"
 */
static int encode(lua_State *L) { return weir_lua_encode(L, &FORMAT); }

/* --- decoding --------------------------------------------------------------------------------- */

/*
 * The template walks the bytes and calls on_*() for what it finds; each pushes one Lua value, and
 * on_array_item() and on_map_item() take theirs off again, so that the containers which are open
 * lie on the stack in order, each map's key above it. Nothing is held outside of Lua: errors may
 * jump.
 */
typedef struct {
  lua_State *L;
  size_t owed;     /* bytes that the input has left for items at most */
  bool cut;        /* it ends too early, as a callback knows */
  const char *why; /* what is wrong, when a callback refuses */
} reader;

typedef uint32_t filled; /* items that an array has so far */

static int pushed(filled *out) {
  *out = 0;
  return 0;
}

static int push_integer(reader *in, int64_t value, filled *out) {
  lua_pushinteger(in->L, (lua_Integer)value);
  return pushed(out);
}

static int push_number(reader *in, double value, filled *out) {
  lua_pushnumber(in->L, (lua_Number)value);
  return pushed(out);
}

static int push_string(reader *in, const char *bytes, size_t len, filled *out) {
  lua_pushlstring(in->L, len ? bytes : "", len);
  return pushed(out);
}

/*
 * Every item takes a byte at least, so all containers together cannot hold more items than the
 * input has bytes: what claims more is cut off, and known to be before anything is reserved.
 */
static int open_table(reader *in, uint64_t items, bool is_map, filled *out) {
  if (items > in->owed) {
    in->cut = true;
    in->why = "it claims more items than it has bytes";
    return -1;
  }
  in->owed -= (size_t)items;
  size_t hint =
      (size_t)items < (1u << 20) ? (size_t)items : 1u << 20; /* beyond it, growth is cheap */
  lua_createtable(in->L, is_map ? 0 : (int)hint, is_map ? (int)(hint / 2) : 0);
  return pushed(out);
}

static filled on_root(const reader *in) {
  (void)in;
  return 0;
}

static int on_nil(reader *in, filled *out) {
  lua_pushlightuserdata(in->L, NULL);
  return pushed(out);
}

static int on_true(reader *in, filled *out) {
  lua_pushboolean(in->L, 1);
  return pushed(out);
}

static int on_false(reader *in, filled *out) {
  lua_pushboolean(in->L, 0);
  return pushed(out);
}

static int on_uint64(reader *in, uint64_t value, filled *out) {
  if (value > INT64_MAX) return push_number(in, (double)value, out);
  return push_integer(in, (int64_t)value, out);
}

static int on_array(reader *in, unsigned int count, filled *out) {
  return open_table(in, count, false, out);
}

static int on_array_item(const reader *in, filled *array, filled item) {
  (void)item;
#if WEIR_LUA_51
  lua_rawseti(in->L, -2, (int)++*array);
#else
  lua_rawseti(in->L, -2, (lua_Integer)++ * array);
#endif
  return 0;
}

static int on_map(reader *in, unsigned int count, filled *out) {
  return open_table(in, (uint64_t)count * 2, true, out);
}

static int on_map_item(reader *in, const filled *map, filled key, filled value) {
  (void)map;
  (void)key;
  (void)value;
  int type = lua_type(in->L, -2);
  bool usable = type == LUA_TSTRING || type == LUA_TBOOLEAN || type == LUA_TNUMBER;
  if (!usable || (type == LUA_TNUMBER && isnan(lua_tonumber(in->L, -2)))) {
    in->why = "a map key is neither a string nor a number nor a boolean";
    return -1;
  }
  lua_rawset(in->L, -3);
  return 0;
}

static int on_str(reader *in, const char *all, const char *bytes, unsigned int len, filled *out) {
  (void)all;
  return push_string(in, bytes, len, out);
}

/* The bytes are the type and the data. Their length is 0 where it was 2^32 - 1, plus one. */
static int on_ext(reader *in, const char *all, const char *bytes, unsigned int len, filled *out) {
  (void)all;
  if (len == 0) {
    in->why = "it ends inside an extension value";
    return -1;
  }
  lua_createtable(in->L, 0, 2);
  lua_pushinteger(in->L, (signed char)bytes[0]);
  lua_setfield(in->L, -2, "type");
  push_string(in, bytes + 1, len - 1, out);
  lua_setfield(in->L, -2, "data");
  lua_pushvalue(in->L, lua_upvalueindex(WEIR_LUA_OWN_MARK));
  lua_setmetatable(in->L, -2);
  return pushed(out);
}

#define on_uint8 push_integer
#define on_uint16 push_integer
#define on_uint32 push_integer
#define on_int8 push_integer
#define on_int16 push_integer
#define on_int32 push_integer
#define on_int64 push_integer
#define on_float push_number
#define on_double push_number
#define on_bin on_str

#define msgpack_unpack_struct(name) struct unpacker##name
#define msgpack_unpack_func(type, name) static inline type unpacker##name
#define msgpack_unpack_callback(name) on##name
#define msgpack_unpack_object filled
#define msgpack_unpack_user reader
#include <msgpack/unpack_template.h>

static int malformed(lua_State *L, const char *why, size_t offset) {
  lua_pushnil(L);
  int byte = offset < INT_MAX ? (int)offset + 1 : INT_MAX;
  lua_pushfstring(L, "not MessagePack: %s (byte %d)", why, byte);
  return 2;
}

static int again(lua_State *L) {
  lua_pushnil(L);
  lua_pushliteral(L, "again");
  return 2;
}

/* Pushes the value that starts at *offset, which moves behind it, and returns 1; or pushes nil and
 * the reason, and returns 2. `part`: more bytes may follow. */
static int decode_at(lua_State *L, const char *bytes, size_t len, size_t *offset, bool part) {
  luaL_checkstack(L, 2 * WEIR_LUA_DEPTH + LUA_MINSTACK, "msgpack");
  struct unpacker_context context;
  context.user = (reader){.L = L, .owed = len - *offset};
  unpacker_init(&context);
  int result = unpacker_execute(&context, bytes, len, offset);
  if (result > 0) return 1;
  if (part && (result == 0 || context.user.cut)) return again(L);
  if (result == 0) return malformed(L, "it ends too early", len);
  if (result == MSGPACK_UNPACK_NOMEM_ERROR) {
    return malformed(L, "arrays and maps nest more than 64 deep", *offset);
  }
  const char *why = context.user.why;
  return malformed(L, why ? why : "no value starts with this byte", *offset);
}

/***
 * Decodes one value.
 * @function decode
 * @tparam string bytes one value and nothing after it
 * @return[1] the value, never nil
 * @return[2] nil
 * @treturn[2] string what is wrong with the bytes, and where
 */
static int decode(lua_State *L) {
  size_t len, offset = 0;
  const char *bytes = luaL_checklstring(L, 1, &len);
  int results = decode_at(L, bytes, len, &offset, false);
  if (results == 1 && offset < len) return malformed(L, "bytes follow the value", offset);
  return results;
}

/***
 * Decodes the first of the values that follow one another.
 * @function decode_next
 * @tparam string bytes
 * @tparam[opt=1] integer position where it starts
 * @return[1] the value, never nil
 * @treturn[1] integer the position behind it
 * @return[2] nil
 * @treturn[2] string "again" when the bytes end before the value does; else what is wrong, and
 * where
 */
static int decode_next(lua_State *L) {
  size_t len;
  const char *bytes = luaL_checklstring(L, 1, &len);
  lua_Integer position = luaL_optinteger(L, 2, 1);
  luaL_argcheck(L, position >= 1 && (size_t)position - 1 <= len, 2, "outside of the bytes");
  size_t offset = (size_t)position - 1;
  if (decode_at(L, bytes, len, &offset, true) == 2) return 2;
  lua_pushinteger(L, (lua_Integer)offset + 1);
  return 2;
}

/* --- markers ---------------------------------------------------------------------------------- */

/***
 * Marks a table as a map: even when it is empty or its keys are 1..n.
 * @function map
 * @tparam[opt] table t a new one when left out
 * @treturn table `t`
 */

/***
 * Marks a table as an array: encoding it fails when its keys are not 1..n.
 * @function array
 * @tparam[opt] table t a new one when left out
 * @treturn table `t`
 */

/***
 * Makes an extension value: a table with `type` and `data`.
 * @function ext
 * @tparam integer type -128 to 127; those below 0 are MessagePack's own, -1 is a timestamp
 * @tparam string data
 * @treturn table
 */
static int ext(lua_State *L) {
  lua_Integer type = luaL_checkinteger(L, 1);
  luaL_argcheck(L, type >= INT8_MIN && type <= INT8_MAX, 1, "-128 to 127 expected");
  luaL_checkstring(L, 2);
  lua_createtable(L, 0, 2);
  lua_pushinteger(L, type);
  lua_setfield(L, -2, "type");
  lua_pushvalue(L, 2);
  lua_setfield(L, -2, "data");
  lua_pushvalue(L, lua_upvalueindex(WEIR_LUA_OWN_MARK));
  lua_setmetatable(L, -2);
  return 1;
}

int luaopen_weir_msgpack(lua_State *L);

int luaopen_weir_msgpack(lua_State *L) {
  static const luaL_Reg FUNCTIONS[] = {
      {"encode", encode}, {"decode", decode}, {"decode_next", decode_next},
      {"ext", ext},       {NULL, NULL},
  };
  weir_lua_encode_open(L, "weir.msgpack", "ext", FUNCTIONS);
  return 1;
}
