/*
 * core.values("msgpack"|"cbor"[, max_value]): finds where values end that come in pieces
 *   :next(bytes[, position]) -> position behind the value | nil, "again"
 *                               | nil, "protocol"|"limit", what, position
 *                                        positions from 1; "again": feed what follows the bytes
 *   :reset()                             at the start of a value
 *
 * See core/durable/values.h.
 */
#include "core/durable/values.h"

#include "lua/core.h"
#include "lua/stream.h"

#define CLASS "weir.core.values"
#define DEFAULT_MAX (64 << 20)

static int new_values(lua_State *L) {
  static const char *const FORMATS[] = {"msgpack", "cbor", NULL};
  const int format = luaL_checkoption(L, 1, NULL, FORMATS);
  const lua_Number max = luaL_optnumber(L, 2, DEFAULT_MAX);
  luaL_argcheck(L, max >= 1 && max < 0x1p53, 2, "a number of bytes expected");
  weir_values *values = weir_lua_new_plain(L, sizeof *values);
  weir_values_init(values, format == 0 ? WEIR_VALUES_MSGPACK : WEIR_VALUES_CBOR, (size_t)max);
  luaL_setmetatable(L, CLASS);
  return 1;
}

static int values_next(lua_State *L) {
  weir_values *values = luaL_checkudata(L, 1, CLASS);
  size_t len, taken;
  const char *bytes = luaL_checklstring(L, 2, &len);
  const lua_Integer position = luaL_optinteger(L, 3, 1);
  luaL_argcheck(L, position >= 1 && (size_t)position - 1 <= len, 3, "outside of the bytes");
  const size_t from = (size_t)position - 1;
  const weir_status status = weir_values_next(values, bytes + from, len - from, &taken);
  if (status == WEIR_E_AGAIN) return weir_lua_status(L, status);
  if (status != WEIR_OK) {
    lua_pushnil(L);
    lua_pushstring(L, weir_status_name(status));
    lua_pushstring(L, values->error);
  }
  lua_pushinteger(L, position + (lua_Integer)taken);
  return status == WEIR_OK ? 1 : 4;
}

static int values_reset(lua_State *L) {
  weir_values_reset(luaL_checkudata(L, 1, CLASS));
  return 0;
}

void weir_lua_open_durable_values(lua_State *L) {
  static const luaL_Reg METHODS[] = {{"next", values_next}, {"reset", values_reset}, {NULL, NULL}};
  static const luaL_Reg META[] = {{NULL, NULL}};
  static const luaL_Reg FUNCTIONS[] = {{"values", new_values}, {NULL, NULL}};
  weir_lua_new_class(L, CLASS, METHODS, META);
  luaL_setfuncs(L, FUNCTIONS, 0);
}
