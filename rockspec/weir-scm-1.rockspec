rockspec_format = "3.0"
package = "weir"
version = "scm-1"
source = {
  url = "git+https://github.com/weir-lua/weir.git",
}
description = {
  summary = "A streaming toolkit for Lua",
  detailed = [[
Typed streams between processes, a durable-stream client, a multiplexer and one backpressure engine
in a C core; coroutine-friendly Lua objects over it; brokers, routers and handlers on top.]],
  homepage = "https://github.com/weir-lua/weir",
  license = "MIT",
  labels = { "streaming", "networking", "coroutines", "libuv" },
}
dependencies = {
  "lua >= 5.4, < 5.5",
  "luv >= 1.44",
  "lua-cjson >= 2.1",
  "argparse >= 0.7.1",
}
external_dependencies = {
  LIBUV = { header = "uv.h" },
}
build = {
  type = "cmake",
  variables = {
    CMAKE_BUILD_TYPE = "RelWithDebInfo",
    CMAKE_INSTALL_PREFIX = "$(PREFIX)",
    WEIR_LUA_INCLUDE_DIR = "$(LUA_INCDIR)",
    WEIR_INSTALL_LIBDIR = "$(LIBDIR)",
    WEIR_INSTALL_LUADIR = "$(LUADIR)",
    WEIR_INSTALL_BINDIR = "$(BINDIR)",
    WEIR_LUAJIT = "OFF",
    WEIR_BENCH = "OFF",
    BUILD_TESTING = "OFF",
  },
  copy_directories = { "docs", "examples" },
}
