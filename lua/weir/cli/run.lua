--- `weir run FILE`: runs the application of a Lua file.
-- @module weir.cli.run
local cli = require("weir.cli")
local nearest = require("weir.nearest")

local M = {
  summary = "run an application",
  usage = "FILE [OPTION...]",
  help = [[
The Lua program FILE returns an application (or makes just one):

  local weir = require "weir"
  local app = weir.app("orders", "1.0.0")
  app:broker(weir.env("BROKER", "memory:"))
  app:subscriber("orders", function(order, ctx) ... end)
  return app

It runs until SIGINT (Ctrl-C) or SIGTERM: then it takes no more messages, lets its handlers finish
(15 seconds, or its shutdown_timeout) and closes its brokers. A second signal ends it at once.

  --env NAME=VALUE       set a variable of the environment, which the program reads with
                         weir.env or os.getenv; may be repeated
  --log FORMAT           how to log: text or json
  --log-level LEVEL      what to log: debug, info, warn, error or off
  --check                check the wiring, connect to nothing, and end

Exit status: 0 it ended by itself (with --check: nothing is wrong), 1 it failed or could not start,
2 wrong use; after a signal 128 and its number: 130 for SIGINT, 143 for SIGTERM.]],
}

local OPTIONS = { "check", "env", "log", "log-level" }

local readers = {}

local function usage(message, ...)
  return nil, cli.usage_error(message:format(...))
end

local function one_of(name, value, known)
  for _, each in ipairs(known) do
    if each == value then
      return true
    end
  end
  local meant = nearest(value, known)
  local hint = meant and ("; did you mean '%s'?"):format(meant) or ""
  return usage("--%s must be one of %s, not '%s'%s", name, table.concat(known, ", "), value, hint)
end

function readers.env(result, value)
  local name, text = value:match("^([^=%z]+)=([^%z]*)$")
  if not name then
    return usage("--env needs NAME=VALUE, not '%s'", value)
  end
  table.insert(result.env, { name, text })
  return true
end

function readers.log(result, value)
  result.format = value
  return one_of("log", value, { "text", "json" })
end

readers["log-level"] = function(result, value)
  result.level = value
  return one_of("log-level", value, { "debug", "info", "warn", "error", "off" })
end

-- Takes the option at args[i]. How many words that were; or nil and an error.
local function take_option(result, args, i)
  local word = args[i]
  local name, value = word:match("^%-%-([%w-]+)=(.*)$")
  name = name or word:match("^%-%-([%w-]+)$")
  if name == "check" then
    if value then
      return usage("--check takes no value")
    end
    result.check = true
    return 1
  elseif not name or not readers[name] then
    local meant = name and nearest(name, OPTIONS)
    return usage("unknown option '%s'%s", word, meant and ("; did you mean '--%s'?"):format(meant) or "")
  end
  local used = value and 1 or 2
  value = value or args[i + 1]
  if not value then
    return usage("--%s needs a value", name)
  end
  local ok, err = readers[name](result, value)
  return ok and used, err
end

local function read(args)
  local result, i, options = { env = {} }, 1, true
  while i <= #args do
    local word = args[i]
    if options and word == "--" then
      options = false
      i = i + 1
    elseif options and word:find("^%-.") then
      local used, err = take_option(result, args, i)
      if not used then
        return nil, err
      end
      i = i + used
    elseif result.path then
      return usage("one word too many: '%s'", word)
    else
      result.path = word
      i = i + 1
    end
  end
  if not result.path then
    return usage("the file of the application is missing")
  end
  return result
end

-- The logger that the options ask for; nil when they ask for nothing.
local function logger(options, app)
  if not options.format and not options.level then
    return nil
  end
  local own = app.options.log
  local settings = { format = options.format, level = options.level }
  if type(own) == "table" and type(own.info) ~= "function" then
    settings.format, settings.level = settings.format or own.format, settings.level or own.level
    settings.out, settings.colour = own.out, own.colour
  end
  return require("weir.log").new(settings)
end

local function check(app, console)
  local ok, found = app:check()
  for _, each in ipairs(found) do
    console.err:write(tostring(each), ok and " (a doubt)\n" or "\n")
  end
  if not ok then
    local count = #found == 1 and "one mistake" or #found .. " mistakes"
    return nil, ("the application '%s' has %s"):format(app.title, count)
  end
  console.out:write(("%s %s: the wiring is right\n"):format(app.title, app.version))
  return cli.OK
end

function M.run(args, console)
  local options, err = read(args)
  if not options then
    return nil, err
  end
  local luv = require("luv")
  for _, pair in ipairs(options.env) do
    luv.os_setenv(pair[1], pair[2])
  end
  local app
  app, err = require("weir.app.load")(options.path)
  if not app then
    return nil, err.message
  elseif options.check then
    return check(app, console)
  end
  local ok, signal
  ok, signal = app:run({ log = logger(options, app) })
  if not ok then
    return nil, signal.code == "wiring" and signal.message or signal
  end
  return signal and 128 + signal or cli.OK
end

return M
