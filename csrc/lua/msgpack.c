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

#include "lua/compat.h"

enum {
  MAX_DEPTH = 64
};
#define MSGPACK_EMBED_STACK_SIZE 64 /* what the unpacker template calls MAX_DEPTH */
#include <msgpack.h>
#include <msgpack/unpack_define.h>
_Static_assert(MAX_DEPTH == MSGPACK_EMBED_STACK_SIZE, "one depth for both ways");

/* Markers of tables: the upvalues of encode(), and of the functions that set them. */
enum {
  MAP_MARK = 1,
  ARRAY_MARK,
  EXT_MARK,
};

/* --- encoding --------------------------------------------------------------------------------- */

/* A table that is being encoded, and where in it we are: stack indices, and position if key is 0.
 */
typedef struct {
  int table;
  int key;
  lua_Integer position;
} level;

/* Grows into a userdata in the stack slot `anchor`, so that an error in Lua leaks nothing. */
typedef struct {
  lua_State *L;
  msgpack_packer packer;
  int anchor;
  int depth;
  char *data;
  size_t size, capacity;
  level levels[MAX_DEPTH];
  char first[1024];
} encoder;

static void grow(encoder *e, size_t more) {
  if (more > SIZE_MAX / 2 - e->size) luaL_error(e->L, "msgpack: the value is too large");
  size_t capacity = e->size + more;
  if (capacity < e->capacity * 2) capacity = e->capacity * 2;
  char *data = weir_lua_new_plain(e->L, capacity);
  memcpy(data, e->data, e->size);
  lua_replace(e->L, e->anchor);
  e->data = data;
  e->capacity = capacity;
}

static int write_bytes(void *to, const char *bytes, size_t len) {
  encoder *e = to;
  if (len > e->capacity - e->size) grow(e, len);
  memcpy(e->data + e->size, bytes, len);
  e->size += len;
  return 0;
}

static bool is_name(const char *text, size_t len) {
  if (len == 0 || len > 64 || (text[0] >= '0' && text[0] <= '9')) return false;
  for (size_t i = 0; i < len; i++) {
    char c = text[i];
    bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
    if (!letter && (c < '0' || c > '9')) return false;
  }
  return true;
}

/* A key as in Lua source; of one that is no name, as much as helps to find it. */
static void add_string_key(luaL_Buffer *out, const char *text, size_t len) {
  if (is_name(text, len)) {
    luaL_addchar(out, '.');
    luaL_addlstring(out, text, len);
    return;
  }
  luaL_addstring(out, "[\"");
  for (size_t i = 0; i < len && i < 32; i++) {
    luaL_addchar(out, text[i] >= ' ' && text[i] <= '~' ? text[i] : '?');
  }
  luaL_addstring(out, len > 32 ? "...\"]" : "\"]");
}

/* Pushes where the value is that `depth` levels lead to: " at .user.names[3]", or nothing. */
static void push_path(encoder *e, int depth) {
  luaL_Buffer out;
  luaL_buffinit(e->L, &out);
  if (depth > 0) luaL_addstring(&out, " at ");
  for (int i = 0; i < depth; i++) {
    const level *at = &e->levels[i];
    char number[48];
    size_t len = 0;
    if (at->key && lua_type(e->L, at->key) == LUA_TSTRING) {
      const char *text = lua_tolstring(e->L, at->key, &len);
      add_string_key(&out, text, len);
    } else if (at->key && lua_type(e->L, at->key) == LUA_TBOOLEAN) {
      luaL_addstring(&out, lua_toboolean(e->L, at->key) ? "[true]" : "[false]");
    } else {
      double value = at->key ? lua_tonumber(e->L, at->key) : (double)at->position;
      snprintf(number, sizeof number, "[%.17g]", value);
      luaL_addstring(&out, number);
    }
  }
  luaL_pushresult(&out);
}

/* Pushes the message `before`, `what`, the path and `after`; returns false. */
static bool refuse(encoder *e, int depth, const char *before, const char *what, const char *after) {
  push_path(e, depth);
  lua_pushfstring(e->L, "cannot encode %s%s%s%s", before, what, lua_tostring(e->L, -1), after);
  return false;
}

/* A table at MAX_DEPTH: says where it is inside itself, or else that it is nested too deep. */
static bool refuse_depth(encoder *e, int index) {
  int same = e->depth - 1;
  while (same >= 0 && !lua_rawequal(e->L, index, e->levels[same].table))
    same--;
  if (same < 0) {
    lua_pushfstring(e->L, "cannot encode tables nested more than %d deep", MAX_DEPTH);
    return false;
  }
  int period = e->depth - same, first = 0;
  while (first < same &&
         !lua_rawequal(e->L, e->levels[first].table, e->levels[first + period].table)) {
    first++;
  }
  return refuse(e, first + period, "a cycle: ", "the table", " contains itself");
}

/* The length of the UTF-8 sequence that starts with this byte of 0x80 or more; 0 if it is none. */
static size_t utf8_sequence(const unsigned char *s, size_t len) {
  unsigned char low = 0x80, high = 0xbf;
  size_t need = 0;
  if (s[0] >= 0xc2 && s[0] <= 0xdf) need = 2;
  if (s[0] >= 0xe0 && s[0] <= 0xef) need = 3;
  if (s[0] >= 0xf0 && s[0] <= 0xf4) need = 4;
  if (need == 0 || need > len) return 0;
  if (s[0] == 0xe0) low = 0xa0;  /* shorter forms exist */
  if (s[0] == 0xed) high = 0x9f; /* surrogates */
  if (s[0] == 0xf0) low = 0x90;
  if (s[0] == 0xf4) high = 0x8f; /* beyond U+10FFFF */
  if (s[1] < low || s[1] > high) return 0;
  for (size_t i = 2; i < need; i++) {
    if ((s[i] & 0xc0) != 0x80) return 0;
  }
  return need;
}

static bool is_utf8(const char *text, size_t len) {
  const unsigned char *s = (const unsigned char *)text;
  while (len > 0) {
    size_t step = 1;
    uint64_t eight = 1;
    if (len >= sizeof eight) {
      memcpy(&eight, s, sizeof eight);
      if ((eight & UINT64_C(0x8080808080808080)) == 0) step = sizeof eight;
    }
    if (step == 1 && s[0] >= 0x80) step = utf8_sequence(s, len);
    if (step == 0) return false;
    s += step;
    len -= step;
  }
  return true;
}

static bool encode_string(encoder *e, int index) {
  size_t len;
  const char *text = lua_tolstring(e->L, index, &len);
  if (len > UINT32_MAX) return refuse(e, e->depth, "", "a string of 4 GiB or more", "");
  if (is_utf8(text, len)) {
    msgpack_pack_str_with_body(&e->packer, text, len);
  } else {
    msgpack_pack_bin_with_body(&e->packer, text, len);
  }
  return true;
}

static void encode_number(encoder *e, int index) {
  lua_Number value = lua_tonumber(e->L, index);
  bool whole = lua_isinteger(e->L, index);
#if WEIR_LUA_51
  if (value == 0 && signbit(value)) whole = false;
#endif
  if (whole) {
    msgpack_pack_int64(&e->packer, (int64_t)lua_tointeger(e->L, index));
  } else {
    msgpack_pack_double(&e->packer, value);
  }
}

/* Counts the keys of a table and tells whether they are 1..count. */
static bool is_sequence(lua_State *L, int index, size_t *count) {
  lua_Integer highest = 0;
  bool sequence = true;
  *count = 0;
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
    ++*count;
    if (!sequence) continue;
    lua_Integer key = lua_isinteger(L, -2) ? lua_tointeger(L, -2) : 0;
    sequence = key > 0;
    if (key > highest) highest = key;
  }
  return sequence && (uint64_t)highest == *count;
}

/* The marker that is the table's metatable, or 0. */
static int mark_of(lua_State *L, int index) {
  int mark = 0;
  if (!lua_getmetatable(L, index)) return 0;
  for (int each = MAP_MARK; each <= EXT_MARK; each++) {
    if (lua_rawequal(L, -1, lua_upvalueindex(each))) mark = each;
  }
  lua_pop(L, 1);
  return mark;
}

static bool encode_ext(encoder *e, int index) {
  lua_State *L = e->L;
  lua_pushliteral(L, "type");
  lua_rawget(L, index);
  lua_pushliteral(L, "data");
  lua_rawget(L, index);
  lua_Integer type = lua_isinteger(L, -2) ? lua_tointeger(L, -2) : INT_MAX;
  bool valid = type >= INT8_MIN && type <= INT8_MAX && lua_type(L, -1) == LUA_TSTRING;
  size_t len = 0;
  const char *data = valid ? lua_tolstring(L, -1, &len) : NULL;
  if (!valid || len > UINT32_MAX) {
    return refuse(e, e->depth, "an extension value", "", ": it needs type (-128..127) and data");
  }
  msgpack_pack_ext_with_body(&e->packer, data, len, (int8_t)type);
  lua_pop(L, 2);
  return true;
}

static bool encode_value(encoder *e, int index);

static bool encode_array(encoder *e, level *at, size_t count) {
  lua_State *L = e->L;
  msgpack_pack_array(&e->packer, count);
  at->key = 0;
  for (size_t i = 1; i <= count; i++) {
    at->position = (lua_Integer)i;
    lua_rawgeti(L, at->table, at->position);
    if (!encode_value(e, lua_gettop(L))) return false;
    lua_pop(L, 1);
  }
  return true;
}

static bool encode_map(encoder *e, level *at, size_t count) {
  lua_State *L = e->L;
  msgpack_pack_map(&e->packer, count);
  for (lua_pushnil(L); lua_next(L, at->table); lua_pop(L, 1)) {
    int type = lua_type(L, -2);
    at->key = lua_gettop(L) - 1;
    if (type != LUA_TSTRING && type != LUA_TNUMBER && type != LUA_TBOOLEAN) {
      return refuse(e, e->depth - 1, "a map key of type ", lua_typename(L, type), "");
    }
    if (!encode_value(e, at->key) || !encode_value(e, at->key + 1)) return false;
  }
  return true;
}

static bool encode_table(encoder *e, int index) {
  int mark = mark_of(e->L, index);
  if (mark == EXT_MARK) return encode_ext(e, index);
  if (e->depth == MAX_DEPTH) return refuse_depth(e, index);
  size_t count;
  bool sequence = is_sequence(e->L, index, &count);
  if (mark == ARRAY_MARK && !sequence) {
    return refuse(e, e->depth, "a table marked as an array", "", ": its keys are not 1..n");
  }
  if (count > UINT32_MAX) return refuse(e, e->depth, "a table of 2^32 items or more", "", "");
  level *at = &e->levels[e->depth++];
  at->table = index;
  bool done = sequence && mark != MAP_MARK ? encode_array(e, at, count) : encode_map(e, at, count);
  e->depth--;
  return done;
}

/* Encodes the value at `index`, an absolute one. False: the reason is on top of the stack. */
static bool encode_value(encoder *e, int index) {
  int type = lua_type(e->L, index);
  switch (type) {
    case LUA_TNIL: msgpack_pack_nil(&e->packer); return true;
    case LUA_TBOOLEAN:
      if (lua_toboolean(e->L, index)) {
        msgpack_pack_true(&e->packer);
      } else {
        msgpack_pack_false(&e->packer);
      }
      return true;
    case LUA_TNUMBER: encode_number(e, index); return true;
    case LUA_TSTRING: return encode_string(e, index);
    case LUA_TTABLE: return encode_table(e, index);
    case LUA_TLIGHTUSERDATA:
      if (lua_touserdata(e->L, index) == NULL) {
        msgpack_pack_nil(&e->packer);
        return true;
      }
      /* fall through */
    default: return refuse(e, e->depth, "a ", lua_typename(e->L, type), "");
  }
}

/***
 * Encodes one value.
 * @function encode
 * @param value
 * @treturn[1] string
 * @return[2] nil
 * @treturn[2] string what cannot be encoded and where it is, as in "cannot encode a function at
 * .user.callback"
 */
static int encode(lua_State *L) {
  luaL_checkany(L, 1);
  lua_settop(L, 1);
  luaL_checkstack(L, 3 * MAX_DEPTH + LUA_MINSTACK, "msgpack");
  lua_pushnil(L);
  encoder e;
  e.L = L;
  e.anchor = 2;
  e.depth = 0;
  e.data = e.first;
  e.size = 0;
  e.capacity = sizeof e.first;
  msgpack_packer_init(&e.packer, &e, write_bytes);
  if (!encode_value(&e, 1)) {
    lua_pushnil(L);
    lua_insert(L, -2);
    return 2;
  }
  lua_pushlstring(L, e.data, e.size);
  return 1;
}

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
  lua_pushvalue(in->L, lua_upvalueindex(EXT_MARK));
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
  luaL_checkstack(L, 2 * MAX_DEPTH + LUA_MINSTACK, "msgpack");
  struct unpacker_context context;
  context.user = (reader){.L = L, .owed = len};
  unpacker_init(&context);
  int result = unpacker_execute(&context, bytes, len, &offset);
  if (result == 0) return malformed(L, "it ends too early", len);
  if (result == MSGPACK_UNPACK_NOMEM_ERROR) {
    return malformed(L, "arrays and maps nest more than 64 deep", offset);
  }
  if (result < 0) {
    const char *why = context.user.why;
    return malformed(L, why ? why : "no value starts with this byte", offset);
  }
  if (offset < len) return malformed(L, "bytes follow the value", offset);
  return 1;
}

/* --- markers ---------------------------------------------------------------------------------- */

/* Gives the table at 1 (a new one if there is none) the marker as its metatable. */
static int set_mark(lua_State *L, int mark) {
  if (lua_isnoneornil(L, 1)) {
    lua_settop(L, 0);
    lua_newtable(L);
  }
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  if (lua_getmetatable(L, 1)) {
    luaL_argcheck(L, mark_of(L, 1) != 0, 1, "the table has a metatable of its own");
    lua_pop(L, 1);
  }
  lua_pushvalue(L, lua_upvalueindex(mark));
  lua_setmetatable(L, 1);
  return 1;
}

/***
 * Marks a table as a map: even when it is empty or its keys are 1..n.
 * @function map
 * @tparam[opt] table t a new one when left out
 * @treturn table `t`
 */
static int map(lua_State *L) { return set_mark(L, MAP_MARK); }

/***
 * Marks a table as an array: encoding it fails when its keys are not 1..n.
 * @function array
 * @tparam[opt] table t a new one when left out
 * @treturn table `t`
 */
static int array(lua_State *L) { return set_mark(L, ARRAY_MARK); }

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
  lua_pushvalue(L, lua_upvalueindex(EXT_MARK));
  lua_setmetatable(L, -2);
  return 1;
}

static void push_mark(lua_State *L, const char *name) {
  lua_createtable(L, 0, 1);
  lua_pushstring(L, name);
  lua_setfield(L, -2, "__name");
}

int luaopen_weir_msgpack(lua_State *L);

int luaopen_weir_msgpack(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"encode", encode}, {"decode", decode}, {"map", map},
      {"array", array},   {"ext", ext},       {NULL, NULL},
  };
  lua_newtable(L);
  push_mark(L, "weir.msgpack.map");
  push_mark(L, "weir.msgpack.array");
  push_mark(L, "weir.msgpack.ext");
  luaL_setfuncs(L, functions, EXT_MARK);
  lua_pushlightuserdata(L, NULL);
  lua_setfield(L, -2, "null");
  return 1;
}
