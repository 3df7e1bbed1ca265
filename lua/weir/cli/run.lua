--- `weir run FILE`: runs the application of a Lua file.
-- @module weir.cli.run
local arguments = require("weir.cli.arguments")
local cli = require("weir.cli")

local M = {
  summary = "run an application",
  intro = [[
The Lua program FILE returns an application (or makes just one):

  local weir = require "weir"
  local app = weir.app("orders", "1.0.0")
  app:broker(weir.env("BROKER", "memory:"))
  app:subscriber("orders", function(order, ctx) ... end)
  return app

It runs until SIGINT (Ctrl-C) or SIGTERM: then it takes no more messages, lets its handlers finish
(15 seconds, or its shutdown_timeout) and closes its brokers. A second signal ends it at once.]],
  words = { { "file", "FILE", "the application", missing = "the file of the application is missing" } },
  options = {
    {
      "env", "NAME=VALUE", "set a variable of the environment, which the program reads with weir.env or os.getenv;"
        .. " may be repeated",
      many = true, read = arguments.variable,
    },
    { "log", "FORMAT", "how to log: text or json", choices = { "text", "json" } },
    {
      "log-level", "LEVEL", "what to log: debug, info, warn, error or off",
      choices = { "debug", "info", "warn", "error", "off" },
    },
    { "check", nil, "check the wiring, connect to nothing, and end; as weir check" },
  },
  examples = { "weir run app.lua", "weir run app.lua --env BROKER=nats://127.0.0.1:4222 --log json" },
  statuses = "0 it ended by itself (with --check: nothing is wrong), 1 it failed or could not start, 2 wrong"
    .. " use; after a signal 128 and its number: 130 for SIGINT, 143 for SIGTERM.",
}

-- The logger that the options ask for; nil when they ask for nothing.
local function logger(options, app)
  if not options.log and not options["log-level"] then
    return nil
  end
  local own = app.options.log
  local settings = { format = options.log, level = options["log-level"] }
  if type(own) == "table" and type(own.info) ~= "function" then
    settings.format, settings.level = settings.format or own.format, settings.level or own.level
    settings.out, settings.colour = own.out, own.colour
  end
  return require("weir.log").new(settings)
end

function M.run(options, console)
  local luv = require("luv")
  for _, pair in ipairs(options.env or {}) do
    luv.os_setenv(pair[1], pair[2])
  end
  local app, err = require("weir.app.load")(options.file)
  if not app then
    return nil, err.message
  elseif options.check then
    return require("weir.cli.check").report(app, console)
  end
  local ok, signal
  ok, signal = app:run({ log = logger(options, app) })
  if not ok then
    return nil, signal.code == "wiring" and signal.message or signal
  end
  return signal and 128 + signal or cli.OK
end

return M
