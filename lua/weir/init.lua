--- weir: streams with backpressure for Lua.
--
--     local weir = require "weir"
--
-- @module weir

local channel = require("weir.channel")
local network = require("weir.streams.network")
local runtime = require("weir.runtime")
local select = require("weir.select")
local tasks = require("weir.task")
local version = require("weir.version")

local weir = {
  _VERSION = "weir " .. version,
  network = network.open,
  run = tasks.run,
  spawn = tasks.spawn,
  group = tasks.group,
  sleep = tasks.sleep,
  with_timeout = tasks.with_timeout,
  wrap = tasks.wrap,
  now = runtime.now,
  channel = channel,
  select = select,
}

-- Loaded when it is used.
local lazy = { broker = "weir.broker" }

return setmetatable(weir, {
  __index = function(self, name)
    local module = lazy[name]
    if module then
      local value = require(module)
      self[name] = value
      return value
    end
  end,
})
