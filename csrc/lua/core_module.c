#include "lua/core.h"

/* The loader looks this name up. */
int luaopen_weir_core(lua_State *L);

int luaopen_weir_core(lua_State *L) {
  lua_newtable(L);
  weir_lua_open_hash(L);
  weir_lua_open_backoff(L);
  weir_lua_open_timers(L);
  weir_lua_open_yamux(L);
  weir_lua_open_hub(L);
  weir_lua_open_producer(L);
  weir_lua_open_consumer(L);
  weir_lua_open_session(L);
  weir_lua_open_durable_json(L);
  weir_lua_open_durable_values(L);
  weir_lua_open_durable_response(L);
  weir_lua_open_durable_reader(L);
  weir_lua_open_durable_writer(L);
  return 1;
}
