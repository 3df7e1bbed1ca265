--- Applications: handlers of messages, on brokers.
--
--     local weir = require "weir"
--     local app = weir.app("orders", "1.0.0")
--     app:broker("memory:")
--     app:subscriber("orders", function(order, ctx)
--       print("order", order.id)
--     end)
--     return app -- weir run app.lua; or: app:run()
--
-- @module weir.app

local collect = require("weir.app.collect")
local contract = require("weir.broker.contract")
local errors = require("weir.errors")
local hooks = require("weir.app.hooks")
local log = require("weir.log")
local metrics = require("weir.metrics")
local nearest = require("weir.nearest")

local M = {}

local App = { __name = "weir.app" }
App.__index = App

for _, name in ipairs({ "subscriber", "batch", "include", "use", "publish_use" }) do
  App[name] = collect[name]
end

-- --- what is registered ---------------------------------------------------------------------------

local Handle = { __name = "weir.registration" }
Handle.__index = Handle

-- Whether subscriptions are open, so that what comes now must be opened now.
local function is_open(app)
  local running = app.running
  return running and running.subscribed and not running.stop_asked
end

local function forget(app, entry)
  for i, each in ipairs(app.entries) do
    if each == entry then
      table.remove(app.entries, i)
      app.changes = app.changes + 1
      return true
    end
  end
  return false
end

--- Takes it out of the application. Where it is open, no more messages are taken and its handlers finish.
-- @tparam[opt] number timeout seconds for the handlers, instead of the application's `shutdown_timeout`
-- @treturn boolean true; or nil and an error: "shared" (its subscription has other handlers, too), "timeout" (handlers
--   did not finish; their messages go back to the broker)
function Handle:close(timeout)
  local app = self.app
  if not is_open(app) then
    forget(app, self.entry)
    return true
  end
  return app.running:close_entry(self.entry, timeout, function()
    return forget(app, self.entry)
  end)
end

function Handle:__tostring()
  return ("weir.registration(%s)"):format(self.entry.source)
end

function App:added(entry)
  self.entries[#self.entries + 1] = entry
  self.changes = self.changes + 1
  if is_open(self) then
    local ok, err = self.running:open(entry)
    if not ok then
      forget(self, entry)
      return nil, err
    end
  end
  return setmetatable({ app = self, entry = entry }, Handle)
end

--- Whether it has been started and has not stopped yet.
-- @treturn boolean
function App:is_live()
  local running = self.running
  return running ~= nil and running.state ~= "stopped" and running.state ~= "failed"
end

--- Adds a broker. The first is that of every handler which names none.
-- @param broker one, or its URL: see `weir.broker`
-- @tparam[opt] table options `label` (its kind when left out), `description`, and what its handlers inherit: `codec`,
--   `middleware`, `publish_middleware`, `retry`, `dead_letter`, `on_failure`, `workers`, `timeout`
-- @return the broker; or nil and an error when there is none of that URL, which the check of the wiring says, too
function App:broker(broker, options)
  if options ~= nil and type(options) ~= "table" then
    error("app:broker: options must be a table, not a " .. type(options), 2)
  elseif self:is_live() then
    error("app:broker: brokers must be added before the application starts", 2)
  end
  options = options or {}
  local source = collect.source(2)
  if type(broker) == "string" then
    local ok, made, err = pcall(require("weir.broker"), broker)
    if not ok or not made then
      err = ok and err or made
      local message = type(err) == "table" and err.message or tostring(err):gsub("^[^\n:]-:%d+: ", "")
      self.broken[#self.broken + 1] = { source = source, message = message }
      return nil, errors.is(err) and err or errors.new("broker", message)
    end
    broker = made
  elseif broker == nil then
    error("app:broker: a broker or its address, such as \"memory:\", is expected, not nil", 2)
  else
    contract.check(broker, 2)
  end
  local label = type(options.label) == "string" and options.label or broker.kind
  table.insert(self.brokers, { label = label, broker = broker, options = options, source = source })
  self.changes = self.changes + 1
  return broker
end

--- Makes a publisher for hooks and for tasks beside the handlers (which have `ctx:publish`). It can be made at any time
-- and publishes while the application runs.
-- @tparam[opt] table options `broker` (a label), `to`, `codec`, `schema`, `header_schema`, `headers`, `key`,
--   `options` (the broker's), `middleware`, `name` (for documents)
-- @return it, with `publish`, `publish_batch`, `request`, `transaction` and `flush` of `weir.app.publisher`
function App:publisher(options)
  if options ~= nil and type(options) ~= "table" then
    error("app:publisher: options must be a table, not a " .. type(options), 2)
  end
  options = options or {}
  local source = collect.source(2)
  self.publishers[#self.publishers + 1] = { options = options, source = source }
  self.changes = self.changes + 1
  return (require("weir.app.bound")(self, options, source))
end

--- Dead letters, of one of its brokers: see `weir.dead_letters`. To be used while the application runs.
-- @tparam string name where they are
-- @tparam[opt] table options `broker`: the label of their broker, the first one when left out; `origin`: of the broker
--   that they came from, the same when left out
-- @return it, with `list`, `replay` and `remove`
function App:dead_letters(name, options)
  options = errors.options("app:dead_letters", options, { broker = "string", origin = "string" }, 2)
  local function find(label)
    -- Where it runs, those that it runs with: tests have others.
    for i, each in ipairs(self.running and self.running.links or self.brokers) do
      if each.label == label or (label == nil and i == 1) then
        return each.broker
      end
    end
    local text = label and ("has no broker '%s'"):format(label) or "has no broker"
    error(("app:dead_letters: the application '%s' %s"):format(self.title, text), 3)
  end
  local broker = find(options.broker)
  return require("weir.dead_letters")(broker, name, options.origin and find(options.origin) or broker)
end

--- Adds a hook: a function that is called with the state and the application when
--
-- - "startup": it is about to start, nothing is connected yet. What it returns is the state: the next hooks and the
--   handlers (`ctx.state`) get it. `nil, err`, or raising, ends the start.
-- - "started": brokers are connected, subscriptions are open.
-- - "stopping": it is about to stop, brokers are still connected.
-- - "stopped": everything is closed.
-- @tparam string name
-- @tparam function fn
-- @return the application
function App:on(name, fn)
  local list = self.hooks[name]
  if not list then
    local meant = nearest(name, hooks.NAMES)
    local hint = meant and (" (did you mean '%s'?)"):format(meant) or ""
    local message = "app:on: there is no hook '%s'; known are: %s%s"
    error(message:format(tostring(name), table.concat(hooks.NAMES, ", "), hint), 2)
  elseif type(fn) ~= "function" then
    error("app:on: a function is expected, not a " .. type(fn), 2)
  end
  list[#list + 1] = { fn = fn, source = collect.source(2) }
  return self
end

--- Checks the wiring, without connecting: names of options, values, what brokers are capable of, dead letters, filters.
-- @treturn[1] boolean true
-- @treturn[1] {table,...} doubts: each has `source` ("file:line") and `message`
-- @treturn[2] nil
-- @treturn[2] {table,...} mistakes, all of them, in the same form
function App:check()
  local report = require("weir.app.check").run(self)
  if #report.mistakes > 0 then
    return nil, report.mistakes
  end
  return true, report.warnings
end

--- The application as plain data: see `weir.app.describe`.
function App:describe()
  return require("weir.app.describe").describe(self)
end

-- --- running --------------------------------------------------------------------------------------

-- Where a program is being loaded to be run by somebody else, `run` ends the loading.
local loading = false

local Loaded = {
  __tostring = function()
    return "weir: app:run() ends the loading of this file; call it at its end"
  end,
}

local function begin(self, opts)
  if self:is_live() then
    error("the application runs already", 3)
  end
  return require("weir.app.running").begin(self, opts)
end

-- Calls a method that waits. Where nobody can wait, as in a callback of luv, it does not go on without its caller.
local function wait(running, method, undo)
  local ok, result, err = pcall(running[method], running)
  if not ok then
    running:request_stop()
    if undo then
      undo()
    end
    error(result, 0)
  end
  return result, err
end

--- Starts it in a program that goes on: checks the wiring, runs the startup hooks, connects, opens the subscriptions.
-- @tparam[opt] number timeout seconds until everything must be open (30)
-- @return the running application, with the methods `stop([timeout])`, `join([timeout])`, `health()` and
--   `request_stop([err])`; or nil and an error: "wiring" (with all `mistakes`), or why it cannot start
function App:start(timeout)
  if timeout ~= nil and (type(timeout) ~= "number" or timeout ~= timeout or timeout <= 0) then
    error("app:start: the timeout must be a number of seconds above 0, not " .. tostring(timeout), 2)
  end
  local running, err = begin(self, { timeout = timeout })
  if not running then
    return nil, err
  end
  local ok
  ok, err = wait(running, "wait_opened")
  if not ok then
    running:request_stop()
    return nil, err
  end
  return running
end

--- Runs it until SIGINT, SIGTERM, a failure, or somebody who calls `app:request_stop()`. A second signal ends the
-- process at once.
-- @tparam[opt] table options `log` (a logger instead of its own), `timeout` to start
-- @treturn[1] boolean true
-- @treturn[1] ?number the signal that ended it
-- @treturn[2] nil
-- @return[2] the error that ended it, or why it could not start
function App:run(options)
  if loading then
    error(setmetatable({ app = self }, Loaded), 0)
  end
  local running, err = begin(self, options)
  if not running then
    return nil, err
  end
  local signal
  local unwatch = require("weir.app.signals").watch(function(number)
    signal = number
    running:request_stop()
  end)
  local ok
  ok, err = wait(running, "join", unwatch)
  if running.supervisor:status() == "running" then -- whoever waits was cancelled
    running:request_stop()
  end
  unwatch()
  if not ok then
    return nil, err
  end
  return true, signal
end

--- Asks it to stop, and does not wait: for handlers and hooks. Does nothing when it does not run.
-- @param[opt] err what went wrong: `run` and `join` return it
function App:request_stop(err)
  if self.running then
    self.running:request_stop(err)
  end
end

--- How it is.
-- @treturn table `state`: "new", "starting", "running", "stopping", "stopped" or "failed" (with `error`); `ready`:
--   whether it runs and all brokers are up; `brokers`: by label `{ state, error }`; `handlers`: by name their numbers
function App:health()
  if self.running then
    return self.running:health()
  end
  local health = { state = "new", ready = false, brokers = {}, handlers = {} }
  for _, each in ipairs(self.brokers) do
    local state, err = each.broker:state()
    health.brokers[each.label] = { state = state, error = err }
  end
  return health
end

--- Sends spans and metrics by OTLP/HTTP while it runs: see `weir.otlp`.
-- @tparam[opt] table options `endpoint`, `headers`, `ca`, `cert`, `key`, `resource`, `sample`, `spans`, `metrics`,
--   `interval`, `metrics_interval`, `timeout`, `queue`; what is left out is as OpenTelemetry's variables say
-- @return the application
function App:otlp(options)
  local ok, err = pcall(require("weir.otlp").attach, self, options)
  if not ok then
    error(err, 2)
  end
  return self
end

--- Serves metrics, health and a live page over HTTP while it runs: see `weir.app.http`.
-- @tparam table options `listen`, `insecure`, `hosts`, `network`, `routes`
-- @return what serves them, with `url`
function App:http(options)
  return (require("weir.app.http").add(self, options))
end

--- Its logger: that with which it runs, or else the one of the option `log`, which is a logger or options of one.
function App:logger()
  if self:is_live() then
    return self.running.log
  end
  local own = self.options.log
  if type(own) == "table" and type(own.info) == "function" then
    return own
  end
  self.own_log = self.own_log or log.new(own)
  return self.own_log
end

function App:__tostring()
  return ("weir.app(%s %s, %s)"):format(self.title, self.version, self.running and self.running.state or "new")
end

-- --- making ---------------------------------------------------------------------------------------

local on_made

--- Calls `fn`, and notes the applications that are made meanwhile. `app:run()` does not run one but ends the call.
-- @tparam function fn
-- @treturn boolean whether it did not raise
-- @return what it returned or raised
-- @treturn {table,...} the applications
-- @treturn ?table the one whose `run` was called
function M.observe(fn)
  local made, former, was = {}, on_made, loading
  on_made = function(app)
    made[#made + 1] = app
  end
  loading = true
  local ok, result = xpcall(fn, function(err)
    return err
  end)
  on_made, loading = former, was
  if not ok and getmetatable(result) == Loaded then
    return true, result.app, made, result.app
  end
  return ok, result, made
end

local function check_text(what, value, level)
  if type(value) ~= "string" or value == "" then
    local got = value == "" and "an empty one" or type(value) == "nil" and "nil" or "a " .. type(value)
    error(("weir.app: the %s must be a text of at least one byte, not %s"):format(what, got), level + 1)
  end
end

local function make(title, version, info)
  check_text("title", title, 3)
  check_text("version", version, 3)
  if info ~= nil and type(info) ~= "table" then
    error("weir.app: the third argument must be a table, not a " .. type(info), 3)
  end
  local app = setmetatable({
    what = "app",
    title = title,
    version = version,
    options = collect.copy(info or {}),
    brokers = {},
    broken = {},
    entries = {},
    publishers = {},
    hooks = {},
    changes = 0,
    source = collect.source(3),
  }, App)
  for _, name in ipairs(hooks.NAMES) do
    app.hooks[name] = {}
  end
  local own = app.options.metrics
  app.metrics = type(own) == "table" and own or metrics.registry()
  if on_made then
    on_made(app)
  end
  return app
end

--- Makes an application.
-- @function weir.app
-- @tparam string title
-- @tparam string version
-- @tparam[opt] table info for documents: `description`, `contact`, `license`, `tags`, `id`, `terms_of_service`,
--   `external_docs`; what handlers inherit: `codec`, `middleware`, `publish_middleware`, `retry`, `dead_letter`,
--   `on_failure`, `workers`, `timeout`; and `start_timeout` (30 seconds), `shutdown_timeout` (15 seconds), `log` (a
--   logger or options of one), `metrics` (a registry)
return setmetatable(M, {
  __call = function(_, title, version, info)
    return (make(title, version, info))
  end,
})
