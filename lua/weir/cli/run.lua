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

It runs until SIGINT (Ctrl-C), SIGTERM, or SIGHUP (its terminal is closed; not with nohup): then it takes no more
messages, lets its handlers finish (15 seconds, or its shutdown_timeout) and closes its brokers. A second signal ends it
at once.]],
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
    {
      "workers", "N", "run N processes, each an application of its own, and start those again that fail, after a pause"
        .. " that grows from 0.1 to 10 seconds; ten failures in a row end the whole. A memory: broker is one for each",
      read = arguments.integer(1, 1024), exclusive = "a",
    },
    {
      "reload", nil, "when a file of the application changes: check it, let the handlers finish, and start it anew."
        .. " Its files are FILE and the modules beside it. What does not load is said, and the old one goes on",
      exclusive = "b",
    },
    { "check", nil, "check the wiring, connect to nothing, and end; as weir check", exclusive = { "a", "b" } },
  },
  notes = [[
With --workers or --reload the processes are watched by this one: it passes such a signal on and waits for them, and
kills those that do not end in time; a second signal kills them at once. A worker knows its number from the variable
WEIR_WORKER, and how many there are from WEIR_WORKERS. Workers share a queue where the broker has that, so give their
subscription a group.]],
  examples = {
    "weir run app.lua",
    "weir run app.lua --env BROKER=nats://127.0.0.1:4222 --log json",
    "weir run app.lua --workers 4",
    "weir run app.lua --reload",
  },
  statuses = "0 it ended by itself (with --check: nothing is wrong), 1 it failed or could not start, 2 wrong"
    .. " use (with --workers: 0 all ended by themselves, 1 one failed again and again);"
    .. " after a signal 128 and its number: 129 for SIGHUP, 130 for SIGINT, 143 for SIGTERM.",
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

-- The words that run the same command line in another process.
local function again(verb, options, more)
  local words = { require("luv").exepath() }
  local first = 0
  while arg[first - 1] do
    first = first - 1
  end
  for i = first + 1, 0 do
    words[#words + 1] = arg[i]
  end
  words[#words + 1] = verb
  for _, pair in ipairs(options.env or {}) do
    words[#words + 1] = ("--env=%s=%s"):format(pair[1], pair[2])
  end
  for _, word in ipairs(more) do
    words[#words + 1] = word
  end
  words[#words + 1] = "--"
  words[#words + 1] = options.file
  return words
end

local function supervise(options)
  if type(arg) ~= "table" or not arg[0] then
    return nil, "--workers and --reload are for the command weir: nothing else can start itself again"
  end
  local more = {}
  for _, name in ipairs({ "log", "log-level" }) do
    if options[name] then
      more[#more + 1] = ("--%s=%s"):format(name, options[name])
    end
  end
  local ok, signal = require("weir.app.supervisor").run({
    command = again("run", options, more),
    check = again("check", options, { "--json" }),
    file = options.file,
    workers = options.workers,
    reload = options.reload,
    log = require("weir.log").new({ format = options.log, level = options["log-level"] }),
  })
  if not ok then
    return nil, signal
  end
  return signal and 128 + signal or cli.OK
end

function M.run(options, console)
  if options.workers or options.reload then
    return supervise(options)
  end
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
  local leave = require("weir.app.supervisor").serve(app)
  local ok, signal = app:run({ log = logger(options, app) })
  if leave then
    leave()
  end
  if not ok then
    return nil, signal.code == "wiring" and signal.message or signal
  end
  return signal and 128 + signal or cli.OK
end

return M
