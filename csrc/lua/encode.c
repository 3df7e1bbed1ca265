#include "lua/encode.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* A table that is being encoded, and where in it we are: stack indices, and position if key is 0.
 */
typedef struct {
  int table;
  int key;
  lua_Integer position;
} level;

/* Grows into a userdata in the stack slot `anchor`. */
struct weir_lua_encoder {
  lua_State *L;
  const weir_lua_format *format;
  int anchor;
  int depth;
  char *data;
  size_t size, capacity;
  level levels[WEIR_LUA_DEPTH];
  char first[1024];
};

static void grow(weir_lua_encoder *e, size_t more) {
  if (more > SIZE_MAX / 2 - e->size)
    luaL_error(e->L, "%s: the value is too large", e->format->name);
  size_t capacity = e->size + more;
  if (capacity < e->capacity * 2) capacity = e->capacity * 2;
  char *data = weir_lua_new_plain(e->L, capacity);
  memcpy(data, e->data, e->size);
  lua_replace(e->L, e->anchor);
  e->data = data;
  e->capacity = capacity;
}

void weir_lua_encode_write(weir_lua_encoder *e, const void *bytes, size_t len) {
  if (len > e->capacity - e->size) grow(e, len);
  if (len > 0) memcpy(e->data + e->size, bytes, len);
  e->size += len;
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
static void push_path(weir_lua_encoder *e, int depth) {
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

/* As weir_lua_encode_refuse, with the path that `depth` levels lead along. */
static bool refuse(weir_lua_encoder *e, int depth, const char *before, const char *what,
                   const char *after) {
  push_path(e, depth);
  lua_pushfstring(e->L, "cannot encode %s%s%s%s", before, what, lua_tostring(e->L, -1), after);
  return false;
}

/* A table at WEIR_LUA_DEPTH: says where it is inside itself, or else that it is nested too deep. */
static bool refuse_depth(weir_lua_encoder *e, int index) {
  int same = e->depth - 1;
  while (same >= 0 && !lua_rawequal(e->L, index, e->levels[same].table))
    same--;
  if (same < 0) {
    lua_pushfstring(e->L, "cannot encode tables nested more than %d deep", WEIR_LUA_DEPTH);
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

static bool encode_string(weir_lua_encoder *e, int index) {
  size_t len;
  const char *text = lua_tolstring(e->L, index, &len);
  if (len > e->format->max_count) return refuse(e, e->depth, "", "a string of 4 GiB or more", "");
  (is_utf8(text, len) ? e->format->text : e->format->bytes)(e, text, len);
  return true;
}

static void encode_number(weir_lua_encoder *e, int index) {
  lua_Number value = lua_tonumber(e->L, index);
  bool whole = lua_isinteger(e->L, index);
#if WEIR_LUA_51
  if (value == 0 && signbit(value)) whole = false;
#endif
  if (whole) {
    e->format->integer(e, (int64_t)lua_tointeger(e->L, index));
  } else {
    e->format->number(e, value);
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
  for (int each = WEIR_LUA_MAP_MARK; each <= WEIR_LUA_OWN_MARK; each++) {
    if (lua_rawequal(L, -1, lua_upvalueindex(each))) mark = each;
  }
  lua_pop(L, 1);
  return mark;
}

static bool encode_array(weir_lua_encoder *e, level *at, size_t count) {
  lua_State *L = e->L;
  e->format->array(e, count);
  at->key = 0;
  for (size_t i = 1; i <= count; i++) {
    at->position = (lua_Integer)i;
    lua_rawgeti(L, at->table, at->position);
    if (!weir_lua_encode_value(e, lua_gettop(L))) return false;
    lua_pop(L, 1);
  }
  return true;
}

static bool encode_map(weir_lua_encoder *e, level *at, size_t count) {
  lua_State *L = e->L;
  e->format->map(e, count);
  for (lua_pushnil(L); lua_next(L, at->table); lua_pop(L, 1)) {
    int type = lua_type(L, -2);
    at->key = lua_gettop(L) - 1;
    if (type != LUA_TSTRING && type != LUA_TNUMBER && type != LUA_TBOOLEAN) {
      return refuse(e, e->depth - 1, "a map key of type ", lua_typename(L, type), "");
    }
    if (!weir_lua_encode_value(e, at->key) || !weir_lua_encode_value(e, at->key + 1)) return false;
  }
  return true;
}

static bool encode_table(weir_lua_encoder *e, int index) {
  int mark = mark_of(e->L, index);
  if (mark == WEIR_LUA_OWN_MARK) return e->format->own(e, index);
  if (e->depth == WEIR_LUA_DEPTH) return refuse_depth(e, index);
  size_t count;
  bool sequence = is_sequence(e->L, index, &count);
  if (mark == WEIR_LUA_ARRAY_MARK && !sequence) {
    return refuse(e, e->depth, "a table marked as an array", "", ": its keys are not 1..n");
  }
  if (count > e->format->max_count)
    return refuse(e, e->depth, "a table of 2^32 items or more", "", "");
  level *at = &e->levels[e->depth++];
  at->table = index;
  bool done =
      sequence && mark != WEIR_LUA_MAP_MARK ? encode_array(e, at, count) : encode_map(e, at, count);
  e->depth--;
  return done;
}

bool weir_lua_encode_value(weir_lua_encoder *e, int index) {
  int type = lua_type(e->L, index);
  switch (type) {
    case LUA_TNIL: e->format->null(e); return true;
    case LUA_TBOOLEAN: e->format->boolean(e, lua_toboolean(e->L, index)); return true;
    case LUA_TNUMBER: encode_number(e, index); return true;
    case LUA_TSTRING: return encode_string(e, index);
    case LUA_TTABLE: return encode_table(e, index);
    case LUA_TLIGHTUSERDATA:
      if (lua_touserdata(e->L, index) == NULL) {
        e->format->null(e);
        return true;
      }
      /* fall through */
    default: return refuse(e, e->depth, "a ", lua_typename(e->L, type), "");
  }
}

bool weir_lua_encode_field(weir_lua_encoder *e, int index, const char *key) {
  if (e->depth == WEIR_LUA_DEPTH) return refuse_depth(e, index);
  level *at = &e->levels[e->depth++];
  at->table = index;
  lua_pushstring(e->L, key);
  at->key = lua_gettop(e->L);
  lua_pushvalue(e->L, -1);
  lua_rawget(e->L, index);
  if (!weir_lua_encode_value(e, at->key + 1)) return false;
  lua_pop(e->L, 2);
  e->depth--;
  return true;
}

bool weir_lua_encode_refuse(weir_lua_encoder *e, const char *before, const char *what,
                            const char *after) {
  return refuse(e, e->depth, before, what, after);
}

lua_State *weir_lua_encoder_state(const weir_lua_encoder *e) { return e->L; }

int weir_lua_encode(lua_State *L, const weir_lua_format *format) {
  luaL_checkany(L, 1);
  lua_settop(L, 1);
  luaL_checkstack(L, 3 * WEIR_LUA_DEPTH + LUA_MINSTACK, format->name);
  lua_pushnil(L);
  weir_lua_encoder e;
  e.L = L;
  e.format = format;
  e.anchor = 2;
  e.depth = 0;
  e.data = e.first;
  e.size = 0;
  e.capacity = sizeof e.first;
  if (!weir_lua_encode_value(&e, 1)) {
    lua_pushnil(L);
    lua_insert(L, -2);
    return 2;
  }
  lua_pushlstring(L, e.data, e.size);
  return 1;
}

/* --- marks ------------------------------------------------------------------------------------ */

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

static int map(lua_State *L) { return set_mark(L, WEIR_LUA_MAP_MARK); }

static int array(lua_State *L) { return set_mark(L, WEIR_LUA_ARRAY_MARK); }

static void push_mark(lua_State *L, const char *prefix, const char *name) {
  lua_createtable(L, 0, 1);
  lua_pushfstring(L, "%s.%s", prefix, name);
  lua_setfield(L, -2, "__name");
}

/* Adds functions to the table at `module`, whose marks lie above it. */
static void add_functions(lua_State *L, int module, const luaL_Reg *functions) {
  lua_pushvalue(L, module);
  for (int mark = WEIR_LUA_MAP_MARK; mark <= WEIR_LUA_OWN_MARK; mark++)
    lua_pushvalue(L, module + mark);
  luaL_setfuncs(L, functions, WEIR_LUA_OWN_MARK);
  lua_pop(L, 1);
}

void weir_lua_encode_open(lua_State *L, const char *prefix, const char *own,
                          const luaL_Reg *functions) {
  static const luaL_Reg MARKERS[] = {{"map", map}, {"array", array}, {NULL, NULL}};
  lua_newtable(L);
  const int module = lua_gettop(L);
  push_mark(L, prefix, "map");
  push_mark(L, prefix, "array");
  push_mark(L, prefix, own);
  add_functions(L, module, MARKERS);
  add_functions(L, module, functions);
  lua_settop(L, module);
  lua_pushlightuserdata(L, NULL);
  lua_setfield(L, -2, "null");
}
