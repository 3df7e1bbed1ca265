--- The broker that a command works on: of an address, or one of an application.
-- @module weir.cli.place
local cli = require("weir.cli")
local errors = require("weir.errors")

local M = {}

--- Seconds that a command waits for a broker when nothing else is said.
M.TIMEOUT = 10

--- The options of commands that connect to a broker.
function M.options()
  local arguments = require("weir.cli.arguments")
  return {
    { "broker", "LABEL", "which broker of the application; the first when left out" },
    {
      "env", "NAME=VALUE", "set a variable that the application reads; may be repeated",
      many = true, read = arguments.variable,
    },
    { "timeout", "SECONDS", "how long to wait for the broker, and for an answer: 10", read = arguments.seconds },
  }
end

--- The option that says how a value is encoded.
M.CODEC = {
  "codec", "NAME", "json (when left out), msgpack, cbor or raw", choices = { "json", "msgpack", "cbor", "raw" },
}

--- The word that says which broker.
M.WORD = {
  "where", "URL|FILE.lua", "the broker: its address, such as nats://127.0.0.1:4222, or the file of an application",
  missing = "the broker is missing: its address, such as nats://127.0.0.1:4222, or the file of an application",
}

local function of_application(options)
  local app, err = require("weir.app.load").aside(options.where)
  if not app then
    return nil, err.message
  elseif app.broken[1] then
    return nil, ("%s: %s"):format(app.broken[1].source, app.broken[1].message)
  end
  local labels = {}
  for i, each in ipairs(app.brokers) do
    if options.broker == nil or options.broker == each.label then
      return each.broker
    end
    labels[i] = each.label
  end
  if #labels == 0 then
    return nil, ("the application '%s' has no broker"):format(app.title)
  end
  local text = "the application '%s' has no broker '%s'; it has: %s"
  return nil, text:format(app.title, options.broker, table.concat(labels, ", "))
end

local function of_address(address)
  local ok, made, err = pcall(require("weir.broker"), address)
  if not ok then
    return nil, (tostring(made):gsub("^[^\n:]-:%d+: ", ""):gsub("^weir%.broker: ", ""))
  end
  return made, err
end

local function find(options)
  if options.where:find("%.lua$") then
    return of_application(options)
  elseif options.broker then
    return nil, cli.usage_error("--broker is for applications; an address names its broker itself")
  end
  return of_address(options.where)
end

-- What is in the memory of another process cannot be reached, and what is put into that of this one is lost.
local function refuse_memory(broker)
  if broker.kind == "memory" and not broker:describe().pathname then
    return "the broker 'memory:' lives within one process, and this is another one; give it a directory"
      .. " (memory:///DIR) or use a server"
  end
end

-- What to do about a broker that cannot be used.
local function advise(err)
  if errors.is(err, "timeout") then
    return ("%s; is it running, and is the address right?"):format(err)
  elseif errors.is(err, "locked") then
    return ("%s. Stop that process first, or work from within it: weir repl runs an application with a prompt")
      :format(err)
  end
  return err
end

--- Makes the broker and connects.
-- @tparam table options `where`, `broker`, `env`, `timeout`
-- @return the broker; or nil and an error
function M.open(options)
  local luv = require("luv")
  for _, pair in ipairs(options.env or {}) do
    luv.os_setenv(pair[1], pair[2])
  end
  local broker, err = find(options)
  err = broker and refuse_memory(broker) or err
  if not broker or err then
    return nil, err
  end
  local ok
  ok, err = broker:connect(options.timeout or M.TIMEOUT)
  if not ok then
    broker:shutdown(1)
    return nil, advise(err)
  end
  return broker
end

--- Opens the broker, calls `fn(broker)` and closes it, also when `fn` raises.
-- @tparam table options
-- @tparam function fn
-- @return what it returns; or nil and an error
function M.with(options, fn)
  local broker, err = M.open(options)
  if not broker then
    return nil, err
  end
  local results = table.pack(pcall(fn, broker))
  local closed, failure = broker:shutdown(options.timeout or M.TIMEOUT)
  if not results[1] then
    error(results[2], 0)
  elseif results[2] ~= nil and closed == nil and failure then
    return nil, failure
  end
  return table.unpack(results, 2, results.n)
end

return M
