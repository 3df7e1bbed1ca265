--- The command line: finds the subcommand and runs it.
--
-- A subcommand NAME is the module `weir.cli.NAME`, a table of
--
-- - `summary`: one line for `weir help`;
-- - `words`, `options`, `verbs` and texts: what `weir.cli.arguments` reads for it;
-- - `run(options, console)`: does the job with what was read, by name; returns the exit status (nil is
--   0), or `nil, err` with an error to print. @{usage_error} makes an `err` for misuse.
--
-- and its name is in the list `commands` below. It is loaded when it is needed, so a command costs
-- the others nothing.
-- @module weir.cli
local nearest = require("weir.nearest")
local text = require("weir.cli.text")

local M = {}

--- Exit status: the command did its job.
M.OK = 0
--- Exit status: the command failed.
M.FAILED = 1
--- Exit status: the command was used wrongly.
M.USAGE = 2

-- Bytes of a word that are shown when it is wrong.
local SHOWN = 200

-- In the order of `weir help`.
local commands = {
  "help", "version", "new", "run", "repl", "check", "publish", "request", "dlq", "top", "asyncapi",
  "conformance", "durable", "bench", "completion",
}

local usage_mt = {
  __name = "weir.cli.usage_error",
  __tostring = function(err)
    return err.message
  end,
}

--- An error that says the command was used wrongly: it is printed with a hint at the help and the
-- exit status is 2.
-- @string message what is wrong
-- @treturn table the error
function M.usage_error(message)
  return setmetatable({ code = "usage", message = message }, usage_mt)
end

--- The names of the subcommands, in the order of `weir help`.
-- @treturn {string,...}
function M.commands()
  return { table.unpack(commands) }
end

--- Loads a subcommand.
-- @string name
-- @treturn[1] table its module
-- @treturn[2] nil
-- @return[2] a usage error, with the nearest name where one is near
function M.load(name)
  for _, known in ipairs(commands) do
    if known == name then
      return require("weir.cli." .. name)
    end
  end
  local message = ("unknown command '%s'"):format(text.line(name, SHOWN))
  local meant = nearest(name, commands)
  if meant then
    message = ("%s; did you mean '%s'?"):format(message, meant)
  end
  return nil, M.usage_error(message)
end

--- The module that reads words.
-- @treturn ?table
-- @return or why it is not there
function M.arguments()
  local arguments = require("weir.cli.arguments")
  if arguments.missing then
    return nil, arguments.missing
  end
  return arguments
end

--- Where a command writes: see `weir.cli.console`.
M.console = require("weir.cli.console").new

-- What servers say is part of errors.
local function report(console, err, hint)
  local prefix = console:style(console.err, "red", "weir:")
  console.err:write(prefix, " ", text.shown(tostring(err)), "\n")
  if hint then
    console.err:write("Try '", hint, "'.\n")
  end
end

local shortcuts = { ["--help"] = "help", ["-h"] = "help", ["--version"] = "version" }

local function asks_for_help(args)
  for _, word in ipairs(args) do
    if word == "--" then
      return false
    elseif word == "--help" or word == "-h" then
      return true
    end
  end
  return false
end

local function call(name, args, console)
  local command, err = M.load(name)
  if not command then
    return nil, err, "weir help"
  end
  local arguments
  arguments, err = M.arguments()
  if not arguments then
    return nil, err
  end
  local verb = arguments.verb_of(command, args)
  if asks_for_help(args) then
    return require("weir.cli.help").run({ command = name, verb = verb and verb[1] }, console)
  end
  local given, status
  given, err = arguments.read(name, command, args)
  if given then
    status, err = command.run(given, console)
  else
    err = M.usage_error(err)
  end
  if status == nil and err ~= nil then
    return nil, err, "weir help " .. name .. (verb and " " .. verb[1] or "")
  end
  return status or M.OK
end

local function dispatch(argv, console)
  local name = argv[1]
  if name == nil then
    require("weir.cli.help").overview(console, console.err)
    return M.USAGE
  end
  if shortcuts[name] then
    return call(shortcuts[name], { table.unpack(argv, 2) }, console)
  end
  if name:sub(1, 1) == "-" then
    return nil, M.usage_error(("unknown option '%s'"):format(text.line(name, SHOWN))), "weir help"
  end
  return call(name, { table.unpack(argv, 2) }, console)
end

--- Runs the command line.
-- @tparam {string,...} argv the words after `weir`
-- @tparam[opt] table console see @{console}
-- @treturn integer the exit status: 0 done, 1 the command failed, 2 it was used wrongly
function M.run(argv, console)
  console = console or M.console()
  local ok, status, err, hint = xpcall(dispatch, debug.traceback, argv, console)
  if not ok then
    report(console, status)
    return M.FAILED
  end
  if status == M.OK then
    ok, err = console:finish()
    status = ok and M.OK or nil
  end
  if status ~= nil then
    return status
  end
  local misuse = getmetatable(err) == usage_mt
  report(console, err, misuse and hint or nil)
  return misuse and M.USAGE or M.FAILED
end

return M
