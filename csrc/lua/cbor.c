/***
 * CBOR (RFC 8949), by libcbor's encoder and its streaming decoder: the codec "cbor" is made on it.
 *
 * Values map like this, and back:
 *
 * - nil and `cbor.null` (a light userdata NULL, the same value as `cjson.null`) are null; null and
 *   undefined come back as `cbor.null`, so that a decoded value is never nil.
 * - Integers are integers in the shortest form, other numbers are floats, of 32 bits where these
 *   hold them exactly, else of 64; in LuaJIT a number without a fraction of up to 2^53 is an
 *   integer. Floats of 16 bits are read too. What Lua has no integer for comes back as the nearest
 *   float: above 2^63 and below -2^63 in Lua 5.4, beyond 2^53 in LuaJIT.
 * - A string is text when it is valid UTF-8, else bytes; both come back as strings.
 * - A table whose keys are 1..n is an array, and so is the empty table; any other is a map, whose
 *   keys may be strings, numbers and booleans. `cbor.map(t)` and `cbor.array(t)` mark a table as
 *   one or the other. Tables are read raw, without metamethods.
 * - `cbor.tagged(tag, value)` is a tagged value, and every tagged value comes back as such a table;
 *   weir gives no meaning to any tag, but leaves out the one that says that this is CBOR (55799).
 *
 * Lengths are definite in what is written; both kinds are read. Simple values other than false,
 * true, null and undefined are refused. Tables nest 64 deep at most, both ways, tagged values
 * being tables. What is reserved while decoding is bounded by the length of the input, whatever
 * lengths it claims. Of equal keys in a map, the last one counts.
 * @module weir.cbor
 */
#include <cbor.h>
#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#include "lua/encode.h"

/* --- encoding --------------------------------------------------------------------------------- */

enum {
  MAX_HEAD = 9 /* bytes, of a number of 64 bits */
};

static void write_null(weir_lua_encoder *e) {
  unsigned char head[MAX_HEAD];
  weir_lua_encode_write(e, head, cbor_encode_null(head, sizeof head));
}

static void write_boolean(weir_lua_encoder *e, bool value) {
  unsigned char head[MAX_HEAD];
  weir_lua_encode_write(e, head, cbor_encode_bool(value, head, sizeof head));
}

static void write_integer(weir_lua_encoder *e, int64_t value) {
  unsigned char head[MAX_HEAD];
  const size_t len = value < 0 ? cbor_encode_negint(~(uint64_t)value, head, sizeof head)
                               : cbor_encode_uint((uint64_t)value, head, sizeof head);
  weir_lua_encode_write(e, head, len);
}

/* Whether 32 bits hold it. Beyond FLT_MAX the conversion has no meaning in C. */
static bool is_single(double value) {
  if (isnan(value) || isinf(value)) return true;
  return fabs(value) <= (double)FLT_MAX && (double)(float)value == value;
}

static void write_number(weir_lua_encoder *e, double value) {
  unsigned char head[MAX_HEAD];
  const size_t len = is_single(value) ? cbor_encode_single((float)value, head, sizeof head)
                                      : cbor_encode_double(value, head, sizeof head);
  weir_lua_encode_write(e, head, len);
}

static void write_text(weir_lua_encoder *e, const char *bytes, size_t len) {
  unsigned char head[MAX_HEAD];
  weir_lua_encode_write(e, head, cbor_encode_string_start(len, head, sizeof head));
  weir_lua_encode_write(e, bytes, len);
}

static void write_bytes(weir_lua_encoder *e, const char *bytes, size_t len) {
  unsigned char head[MAX_HEAD];
  weir_lua_encode_write(e, head, cbor_encode_bytestring_start(len, head, sizeof head));
  weir_lua_encode_write(e, bytes, len);
}

static void write_array(weir_lua_encoder *e, size_t count) {
  unsigned char head[MAX_HEAD];
  weir_lua_encode_write(e, head, cbor_encode_array_start(count, head, sizeof head));
}

static void write_map(weir_lua_encoder *e, size_t count) {
  unsigned char head[MAX_HEAD];
  weir_lua_encode_write(e, head, cbor_encode_map_start(count, head, sizeof head));
}

static bool write_tagged(weir_lua_encoder *e, int index) {
  lua_State *L = weir_lua_encoder_state(e);
  lua_pushliteral(L, "tag");
  lua_rawget(L, index);
  const lua_Integer tag = lua_isinteger(L, -1) ? lua_tointeger(L, -1) : -1;
  if (tag < 0) {
    return weir_lua_encode_refuse(e, "a tagged value", "", ": its tag is no integer of at least 0");
  }
  lua_pop(L, 1);
  unsigned char head[MAX_HEAD];
  weir_lua_encode_write(e, head, cbor_encode_tag((uint64_t)tag, head, sizeof head));
  return weir_lua_encode_field(e, index, "value");
}

static const weir_lua_format FORMAT = {
    .name = "cbor",
    .max_count = UINT64_MAX,
    .null = write_null,
    .boolean = write_boolean,
    .integer = write_integer,
    .number = write_number,
    .text = write_text,
    .bytes = write_bytes,
    .array = write_array,
    .map = write_map,
    .own = write_tagged,
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

#define SELF_DESCRIBED 55799u /* RFC 8949, 3.4.6 */
#define INDEFINITE UINT64_MAX /* as a count; a real one is bounded by the input's length */

#if WEIR_LUA_51
typedef int table_index; /* as lua_rawseti has it */
#else
typedef lua_Integer table_index;
#endif

/* What is open. Its table lies on the stack, a map's key above it; a string's is one of parts. */
typedef enum kind {
  ARRAY,
  MAP,
  TAGGED,
  TEXT,
  BYTES
} kind;

typedef struct frame {
  kind kind;
  bool has_key;       /* of a map: the value is next */
  uint64_t left;      /* items, keys and values each, that are to come; or INDEFINITE */
  table_index filled; /* items of an array, parts of a string */
} frame;

/*
 * libcbor calls one of the functions below for each head. They push a value (and say so), open a
 * frame, close one, or say what is wrong. Nothing is held outside of Lua: errors may jump.
 */
typedef struct reader {
  lua_State *L;
  size_t owed;     /* bytes that the input has left for items at most */
  bool cut;        /* the input ends too early */
  bool value;      /* one lies on top of the stack and has no place yet */
  bool described;  /* a tag that was left out, whose value is to come */
  const char *why; /* what is wrong */
  unsigned depth;
  frame frames[WEIR_LUA_DEPTH + 1]; /* one more for a string in parts */
} reader;

static frame *top_of(reader *in) { return in->depth > 0 ? &in->frames[in->depth - 1] : NULL; }

static void fail(reader *in, const char *why) {
  if (in->why == NULL) in->why = why;
}

/* Whether a value other than a part may stand here. */
static bool may_follow(reader *in) {
  const frame *top = top_of(in);
  if (top == NULL || (top->kind != TEXT && top->kind != BYTES)) return true;
  fail(in, "the parts of a string are strings of its kind and of known length");
  return false;
}

static void pushed(reader *in) {
  in->value = true;
  in->described = false;
}

static void push_unsigned(reader *in, uint64_t value) {
  if (!may_follow(in)) return;
  if (value > INT64_MAX) {
    lua_pushnumber(in->L, (lua_Number)value);
  } else {
    lua_pushinteger(in->L, (lua_Integer)value);
  }
  pushed(in);
}

/* -1 - value */
static void push_negative(reader *in, uint64_t value) {
  if (!may_follow(in)) return;
  if (value == UINT64_MAX) {
    lua_pushnumber(in->L, -0x1p64);
  } else if (value > INT64_MAX) {
    lua_pushnumber(in->L, -(lua_Number)(value + 1));
  } else {
    lua_pushinteger(in->L, -1 - (lua_Integer)value);
  }
  pushed(in);
}

static void on_uint8(void *in, uint8_t value) { push_unsigned(in, value); }
static void on_uint16(void *in, uint16_t value) { push_unsigned(in, value); }
static void on_uint32(void *in, uint32_t value) { push_unsigned(in, value); }
static void on_uint64(void *in, uint64_t value) { push_unsigned(in, value); }
static void on_negint8(void *in, uint8_t value) { push_negative(in, value); }
static void on_negint16(void *in, uint16_t value) { push_negative(in, value); }
static void on_negint32(void *in, uint32_t value) { push_negative(in, value); }
static void on_negint64(void *in, uint64_t value) { push_negative(in, value); }

static void on_double(void *context, double value) {
  reader *in = context;
  if (!may_follow(in)) return;
  lua_pushnumber(in->L, (lua_Number)value);
  pushed(in);
}

static void on_float(void *in, float value) { on_double(in, (double)value); }

static void on_null(void *context) {
  reader *in = context;
  if (!may_follow(in)) return;
  lua_pushlightuserdata(in->L, NULL);
  pushed(in);
}

static void on_boolean(void *context, bool value) {
  reader *in = context;
  if (!may_follow(in)) return;
  lua_pushboolean(in->L, value);
  pushed(in);
}

/* A whole string, or a part of one that is open. */
static void push_string(reader *in, kind kind, cbor_data bytes, size_t len) {
  const frame *top = top_of(in);
  const bool part = top != NULL && top->kind == kind;
  if (!part && !may_follow(in)) return;
  lua_pushlstring(in->L, len > 0 ? (const char *)bytes : "", len);
  pushed(in);
}

static void on_text(void *in, cbor_data bytes, size_t len) { push_string(in, TEXT, bytes, len); }
static void on_bytes(void *in, cbor_data bytes, size_t len) { push_string(in, BYTES, bytes, len); }

/* Opens a frame with the table that lies on top of the stack. */
static frame *open_frame(reader *in, kind kind, uint64_t left) {
  frame *top = &in->frames[in->depth++];
  *top = (frame){.kind = kind, .left = left};
  in->described = false;
  return top;
}

static bool may_open(reader *in) {
  if (!may_follow(in)) return false;
  if (in->depth < WEIR_LUA_DEPTH) return true;
  fail(in, "arrays, maps and tags nest more than 64 deep");
  return false;
}

/*
 * Every item takes a byte at least, so all containers together cannot hold more items than the
 * input has bytes: what claims more is cut off, and known to be before anything is reserved.
 */
static void open_table(reader *in, kind kind, uint64_t count, uint64_t each) {
  if (!may_open(in)) return;
  if (count > in->owed / each) {
    in->cut = true;
    fail(in, "it claims more items than it has bytes");
    return;
  }
  const size_t items = (size_t)(count * each);
  in->owed -= items;
  const int hint = (int)(count < (1u << 20) ? count : 1u << 20); /* beyond it, growth is cheap */
  lua_createtable(in->L, kind == ARRAY ? hint : 0, kind == MAP ? hint / 2 : 0);
  if (items > 0) {
    open_frame(in, kind, items);
  } else {
    pushed(in);
  }
}

static void on_array(void *in, size_t count) { open_table(in, ARRAY, count, 1); }
static void on_map(void *in, size_t count) { open_table(in, MAP, count, 2); }

static void open_indefinite(reader *in, kind kind) {
  const bool string = kind == TEXT || kind == BYTES;
  if (string ? !may_follow(in) : !may_open(in)) return;
  lua_newtable(in->L);
  open_frame(in, kind, INDEFINITE);
}

static void on_open_array(void *in) { open_indefinite(in, ARRAY); }
static void on_open_map(void *in) { open_indefinite(in, MAP); }
static void on_open_text(void *in) { open_indefinite(in, TEXT); }
static void on_open_bytes(void *in) { open_indefinite(in, BYTES); }

static void on_tag(void *context, uint64_t tag) {
  reader *in = context;
  lua_State *L = in->L;
  if (!may_follow(in)) return;
  if (tag == SELF_DESCRIBED) {
    in->described = true;
    return;
  }
  if (!may_open(in)) return;
  lua_createtable(L, 0, 2);
  if (tag > INT64_MAX) {
    lua_pushnumber(L, (lua_Number)tag);
  } else {
    lua_pushinteger(L, (lua_Integer)tag);
  }
  lua_setfield(L, -2, "tag");
  lua_pushvalue(L, lua_upvalueindex(WEIR_LUA_OWN_MARK));
  lua_setmetatable(L, -2);
  open_frame(in, TAGGED, 1);
}

/* Replaces the table of parts on top of the stack by the string that they make. */
static void join(lua_State *L, table_index parts) {
  const int table = lua_gettop(L);
  luaL_Buffer out;
  luaL_buffinit(L, &out);
  for (table_index i = 1; i <= parts; i++) {
    lua_rawgeti(L, table, i);
    luaL_addvalue(&out);
  }
  luaL_pushresult(&out);
  lua_replace(L, table);
}

static void on_break(void *context) {
  reader *in = context;
  const frame *top = top_of(in);
  if (top == NULL || top->left != INDEFINITE || top->has_key || in->described) {
    fail(in, "a break where nothing can end");
    return;
  }
  in->depth--;
  if (top->kind == TEXT || top->kind == BYTES) join(in->L, top->filled);
  pushed(in);
}

static bool is_key(lua_State *L) {
  const int type = lua_type(L, -1);
  if (type == LUA_TNUMBER) return !isnan(lua_tonumber(L, -1));
  return type == LUA_TSTRING || type == LUA_TBOOLEAN;
}

static void put_in_map(reader *in, frame *map) {
  if (map->has_key) {
    lua_rawset(in->L, -3);
  } else if (!is_key(in->L)) {
    fail(in, "a map key is neither a string nor a number nor a boolean");
  }
  map->has_key = !map->has_key;
}

/* Puts the value on top of the stack where it belongs, and what is complete by that likewise. True:
 * it is the whole value. */
static bool settle(reader *in) {
  lua_State *L = in->L;
  in->value = false;
  for (frame *top = top_of(in); top != NULL; top = top_of(in)) {
    switch (top->kind) {
      case MAP: put_in_map(in, top); break;
      case TAGGED: lua_setfield(L, -2, "value"); break;
      default: lua_rawseti(L, -2, ++top->filled);
    }
    if (in->why != NULL || top->left == INDEFINITE || --top->left > 0) return false;
    in->depth--;
  }
  return true;
}

static const struct cbor_callbacks CALLBACKS = {
    .uint8 = on_uint8,
    .uint16 = on_uint16,
    .uint32 = on_uint32,
    .uint64 = on_uint64,
    .negint8 = on_negint8,
    .negint16 = on_negint16,
    .negint32 = on_negint32,
    .negint64 = on_negint64,
    .byte_string_start = on_open_bytes,
    .byte_string = on_bytes,
    .string_start = on_open_text,
    .string = on_text,
    .indef_array_start = on_open_array,
    .array_start = on_array,
    .indef_map_start = on_open_map,
    .map_start = on_map,
    .tag = on_tag,
    .float2 = on_float,
    .float4 = on_float,
    .float8 = on_double,
    .undefined = on_null,
    .null = on_null,
    .boolean = on_boolean,
    .indef_break = on_break,
};

static int malformed(lua_State *L, const char *why, size_t offset) {
  lua_pushnil(L);
  const int byte = offset < INT_MAX ? (int)offset + 1 : INT_MAX;
  lua_pushfstring(L, "not CBOR: %s (byte %d)", why, byte);
  return 2;
}

static int too_early(lua_State *L, size_t len, bool part) {
  if (!part) return malformed(L, "it ends too early", len);
  lua_pushnil(L);
  lua_pushliteral(L, "again");
  return 2;
}

/* What libcbor has no function for. */
static const char *why_invalid(unsigned char first) {
  const bool simple = (first >= 0xe0 && first <= 0xf3) || first == 0xf8;
  return simple ? "a simple value that has no meaning" : "no value starts with this byte";
}

/* Decodes one head, with the text of a string. Returns how long it is; 0 if it is none, or when
 * that is not known yet because the bytes end (`cut`). */
static size_t decode_head(reader *in, const unsigned char *bytes, size_t len) {
  if (len == 0) {
    in->cut = true;
    return 0;
  }
  const struct cbor_decoder_result result = cbor_stream_decode(bytes, len, &CALLBACKS, in);
  if (result.status == CBOR_DECODER_FINISHED) return result.read;
  /* libcbor 0.8 does not know these tags: 6 to 20 in one byte, of which some have been assigned. */
  if (result.status == CBOR_DECODER_ERROR && bytes[0] >= 0xc6 && bytes[0] <= 0xd4) {
    on_tag(in, bytes[0] & 31u);
    return 1;
  }
  in->cut = result.status == CBOR_DECODER_NEDATA;
  return 0;
}

/* Pushes the value that starts at *offset, which moves behind it, and returns 1; or pushes nil and
 * the reason, and returns 2. `part`: more bytes may follow. */
static int decode_at(lua_State *L, const char *text, size_t len, size_t *offset, bool part) {
  const unsigned char *bytes = (const unsigned char *)text;
  luaL_checkstack(L, 2 * WEIR_LUA_DEPTH + LUA_MINSTACK, "cbor");
  reader in; /* its frames are large, and set when they are opened */
  in.L = L;
  in.owed = len - *offset;
  in.cut = in.value = in.described = false;
  in.why = NULL;
  in.depth = 0;
  while (true) {
    const size_t taken = decode_head(&in, bytes + *offset, len - *offset);
    if (taken == 0) {
      return in.cut ? too_early(L, len, part) : malformed(L, why_invalid(bytes[*offset]), *offset);
    }
    const bool whole = in.why == NULL && in.value && settle(&in);
    if (in.why != NULL) {
      return in.cut && part ? too_early(L, len, part) : malformed(L, in.why, *offset);
    }
    *offset += taken;
    if (whole) return 1;
  }
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
  const int results = decode_at(L, bytes, len, &offset, false);
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
  const lua_Integer position = luaL_optinteger(L, 2, 1);
  luaL_argcheck(L, position >= 1 && (size_t)position - 1 <= len, 2, "outside of the bytes");
  size_t offset = (size_t)position - 1;
  if (decode_at(L, bytes, len, &offset, true) == 2) return 2;
  lua_pushinteger(L, (lua_Integer)offset + 1);
  return 2;
}

/* --- tables ----------------------------------------------------------------------------------- */

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
 * Makes a tagged value: a table with `tag` and `value`.
 * @function tagged
 * @tparam integer tag at least 0; what each means is in the registry of IANA
 * @param value nil is null
 * @treturn table
 */
static int tagged(lua_State *L) {
  const lua_Integer tag = luaL_checkinteger(L, 1);
  luaL_argcheck(L, tag >= 0, 1, "at least 0 expected");
  lua_settop(L, 2);
  lua_createtable(L, 0, 2);
  lua_pushinteger(L, tag);
  lua_setfield(L, -2, "tag");
  lua_pushvalue(L, 2);
  lua_setfield(L, -2, "value");
  lua_pushvalue(L, lua_upvalueindex(WEIR_LUA_OWN_MARK));
  lua_setmetatable(L, -2);
  return 1;
}

int luaopen_weir_cbor(lua_State *L);

int luaopen_weir_cbor(lua_State *L) {
  static const luaL_Reg FUNCTIONS[] = {
      {"encode", encode}, {"decode", decode}, {"decode_next", decode_next},
      {"tagged", tagged}, {NULL, NULL},
  };
  weir_lua_encode_open(L, "weir.cbor", "tagged", FUNCTIONS);
  return 1;
}
