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

-- Loaded when they are used first: who only streams does not pay for applications.
local modules = {
  app = "weir.app",
  broker = "weir.broker",
  dead_letters = "weir.dead_letters",
  env = "weir.env",
  middleware = "weir.middleware",
  router = "weir.app.router",
  schema = "weir.schema",
  test = "weir.test",
}

for _, name in ipairs({ "ack", "drop", "fail", "outputs", "reply", "retry" }) do
  modules[name] = "weir.outcome"
end

return setmetatable(weir, {
  names = modules, -- for who lists what there is
  __index = function(self, name)
    local module = modules[name]
    if not module then
      return nil
    end
    local value = require(module)
    if module == "weir.outcome" then
      value = value[name]
    end
    self[name] = value
    return value
  end,
})
