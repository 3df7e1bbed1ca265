--- A running application: it is opened, runs until it is to stop, and is closed; by a task of its own, so that none of
-- this depends on who asked for it.
--
-- Start: startup hooks, connect brokers, open subscriptions, started hooks. Stop: stopping hooks (brokers are still
-- connected), no more messages are taken, handlers finish, brokers flush and close, stopped hooks. A start that fails
-- undoes what it did.
-- @module weir.app.running

local brokers = require("weir.app.brokers")
local channel = require("weir.channel")
local check = require("weir.app.check")
local clock = require("weir.clock")
local errors = require("weir.errors")
local hooks = require("weir.app.hooks")
local subscriptions = require("weir.app.subscriptions")
local tasks = require("weir.task")
local text_of = require("weir.app.text")

local M = {}

local Running = { __name = "weir.running" }
Running.__index = Running

-- Seconds.
local START_TIMEOUT, SHUTDOWN_TIMEOUT = 30, 15

local function as_error(err)
  return errors.is(err) and err or errors.new("error", text_of(err))
end

-- --- the start ------------------------------------------------------------------------------------

local function run_hooks(self, name, deadline)
  local ok, err
  ok, err, self.value = hooks.start(self.app, name, self.value, deadline)
  self.env.state = self.value
  return ok, err
end

-- Hooks may have registered more.
local function current_list(self)
  if self.app.changes == self.changes then
    return self.list
  end
  self.changes = self.app.changes
  return subscriptions.resolve(self)
end

local function open(self, deadline)
  self.started_up = true
  local ok, err = run_hooks(self, "startup", deadline)
  if ok then
    ok, err = current_list(self)
    self.list = ok
  end
  if ok then
    ok, err = brokers.connect(self, deadline)
  end
  if ok then
    ok, err = subscriptions.open(self, self.list, deadline)
    self.subscribed = ok and true
  end
  if ok then
    ok, err = run_hooks(self, "started", deadline)
  end
  return ok and true, err
end

local function names_of(self)
  local labels, ids = {}, {}
  for i, link in ipairs(self.links) do
    local kind = link.broker.kind
    labels[i] = link.label == kind and kind or ("%s (%s)"):format(link.label, kind)
  end
  for i, each in ipairs(self.consumers) do
    ids[i] = each.registration.id
  end
  return table.concat(labels, ", "), table.concat(ids, ", ")
end

local function report_start(self)
  local labels, ids = names_of(self)
  self.log:info("started", {
    app = ("%s %s"):format(self.app.title, self.app.version),
    brokers = labels,
    subscriptions = ids,
    ms = ("%.1f"):format((tasks.now() - self.begun) * 1000),
  })
end

-- --- the end --------------------------------------------------------------------------------------

local function shut_down(self, was_open)
  self.state = "stopping"
  local deadline = tasks.now() + (self.stop_timeout or self.shutdown_timeout)
  if was_open then
    self.log:info("stopping", { reason = self.err and tostring(self.err) or nil })
    hooks.stop(self.app, "stopping", self.value, deadline, self.log)
  end
  subscriptions.close(self, self.consumers, math.max(deadline - tasks.now(), 0))
  brokers.close(self, deadline)
  if self.started_up then
    hooks.stop(self.app, "stopped", self.value, deadline, self.log)
  end
  self.state = self.err and "failed" or "stopped"
  if was_open then
    local level = self.err and "error" or "info"
    self.log[level](self.log, self.state, { error = self.err and tostring(self.err) or nil })
  end
end

-- Waits for the opening. True; or nil and an error.
local function await_opening(self, deadline)
  local ok, result, err = pcall(self.opening.join, self.opening, math.max(deadline - tasks.now(), 0) + 1)
  if not ok then
    return nil, result
  elseif self.opening:status() == "running" then
    self.opening:cancel("the start took too long")
    pcall(self.opening.join, self.opening, 1)
  end
  return result, err
end

-- The life of the application.
local function supervise(self, deadline)
  local ok, err = await_opening(self, deadline)
  local was_open = ok and not self.stop_asked
  if was_open then
    self.state = "running"
    report_start(self)
    self.opened:close()
    self.stop_signal:recv()
  else
    if not self.stop_asked then
      self.err = as_error(err)
    end
    self.start_error = self.err or errors.new("stopped", "it was stopped while it started")
  end
  shut_down(self, self.subscribed)
  self.opened:close()
end

-- --- what others call -----------------------------------------------------------------------------

--- Asks it to stop, and does not wait; for handlers, hooks and callbacks.
-- @param[opt] err what went wrong: `join` returns it
-- @tparam[opt] number timeout seconds for handlers to finish, instead of the application's `shutdown_timeout`
function Running:request_stop(err, timeout)
  if self.stop_asked then
    return
  end
  self.stop_asked, self.stop_timeout = true, timeout
  self.err = err ~= nil and as_error(err) or nil
  self.opening:cancel("the application is to stop")
  self.stop_signal:close()
end

--- Stops it, and waits for that.
-- @tparam[opt] number timeout seconds for handlers to finish, instead of the application's `shutdown_timeout`
-- @return what `join` returns
function Running:stop(timeout)
  self:request_stop(nil, timeout)
  return self:join()
end

--- Waits until it has stopped.
-- @tparam[opt] number timeout
-- @treturn boolean true; or nil and the error that ended it, or "timeout" or "cancelled"
function Running:join(timeout)
  local _, err = self.supervisor:join(timeout)
  if err ~= nil and self.supervisor:status() == "running" then
    return nil, err
  elseif self.err then
    return nil, self.err
  end
  return true
end

--- Waits until it runs, or could not be started.
-- @tparam[opt] number timeout
-- @treturn boolean true; or nil and an error
function Running:wait_opened(timeout)
  local _, err = self.opened:recv(timeout)
  if err.code ~= "closed" then
    return nil, err
  elseif self.start_error then
    self.supervisor:join()
    return nil, self.start_error
  end
  return true
end

--- How it is: see `app:health`.
function Running:health()
  local health = { state = self.state, error = self.err, brokers = {}, handlers = {} }
  local ready = self.state == "running"
  for _, link in ipairs(self.links) do
    local state, err = link.broker:state()
    health.brokers[link.label] = { state = state, error = err }
    ready = ready and state == "up"
  end
  for _, each in ipairs(self.consumers) do
    health.handlers[each.registration.id] = each.consumer:stats()
  end
  health.ready = ready
  return health
end

--- Opens what was added to the application while it runs.
-- @tparam table entry
-- @treturn ?{table,...} the subscriptions
-- @return or an error
function Running:open(entry)
  local list, err = subscriptions.resolve(self, entry)
  if not list then
    return nil, err
  end
  self.changes = self.app.changes
  local opened, before
  opened, err, before = subscriptions.open(self, list, tasks.now() + self.start_timeout)
  if not opened then
    subscriptions.close(self, before, self.shutdown_timeout)
  end
  return opened, err
end

--- Puts an entry in the place of another one with the same target, whose handler finishes first; a task of its own does
-- it, so it is done though whoever asked for it waits no longer. With an error the former entry has its place again, if
-- that is still open.
-- @tparam table former
-- @tparam table entry
-- @treturn boolean true; or nil and an error, see `subscriptions.replace`
function Running:replace_entry(former, entry)
  local app = self.app
  local function swap(old, new)
    for i, each in ipairs(app.entries) do
      if each == old then
        table.remove(app.entries, i)
        if new then
          table.insert(app.entries, i, new)
        end
        app.changes = app.changes + 1
        self.changes = app.changes
        return true
      end
    end
  end
  local task = tasks.spawn(function()
    if not swap(former, entry) then
      return nil, errors.new("closed", "the handler was closed meanwhile")
    end
    local ok, err, stands = subscriptions.replace(self, entry, self.shutdown_timeout)
    if stands then
      swap(entry, stands == "former" and former or nil)
    end
    return ok, err
  end)
  return task:join()
end

--- Closes what an entry opened; its handlers finish first.
-- @tparam table entry
-- @tparam ?number timeout
-- @tparam function forget takes the entry out of the application
-- @treturn boolean true; or nil and an error: "shared", "timeout"
function Running:close_entry(entry, timeout, forget)
  local shared = subscriptions.shared(self, entry)
  if shared then
    return nil, shared
  elseif not forget() then
    return true
  end
  self.changes = self.app.changes
  local left = subscriptions.close(self, subscriptions.surplus(self), timeout or self.shutdown_timeout)
  if left > 0 then
    return nil, errors.new("timeout", ("%d messages were not handled in time; they go back to the broker"):format(left))
  end
  return true
end

--- The publisher of a broker, without anything of a handler.
-- @tparam ?string label the first broker when left out
-- @return it, of `weir.app.publisher`; or nil and an error: "unknown_broker"
function Running:publisher_for(label)
  for _, link in ipairs(self.links) do
    if label == nil or link.label == label then
      local publisher = self.publishers[link]
      if not publisher then
        local options = { broker = link.broker, label = link.label, env = self.env }
        publisher = require("weir.app.publisher").new(options)
        self.publishers[link] = publisher
      end
      return publisher
    end
  end
  return nil, errors.new("unknown_broker", ("no broker has the label '%s'"):format(tostring(label)))
end

function Running:__tostring()
  return ("weir.running(%s, %s)"):format(self.app.title, self.state)
end

Running.__close = function(self)
  self:stop()
end

local function make_env(self, opts)
  return {
    app = self.app,
    clock = opts.clock or clock,
    log = self.log,
    metrics = self.metrics,
    observer = opts.observer,
    state = nil,
    publisher_for = function(label)
      return self:publisher_for(label)
    end,
  }
end

local function new(app, opts, list, links)
  local self = setmetatable({
    app = app,
    state = "starting",
    begun = tasks.now(),
    list = list,
    links = links,
    replaced = opts.brokers,
    changes = app.changes,
    connected = {},
    consumers = {},
    publishers = {},
    by_key = {},
    log = opts.log or app:logger(),
    metrics = opts.metrics or app.metrics,
    start_timeout = opts.timeout or app.options.start_timeout or START_TIMEOUT,
    shutdown_timeout = app.options.shutdown_timeout or SHUTDOWN_TIMEOUT,
    opened = channel(1),
    stop_signal = channel(1),
    stop_asked = false,
  }, Running)
  self.env = make_env(self, opts)
  return self
end

--- Begins to start an application.
-- @tparam table app
-- @tparam[opt] table opts `timeout` (seconds to start), `log`, `metrics`, and for tests `clock`, `observer` and
--   `brokers` (by label, in place of those of the application)
-- @return the running application, which is "starting"; or nil and an error of the code "wiring"
function M.begin(app, opts)
  opts = opts or {}
  local report, list, links = check.run(app, opts.brokers)
  if #report.mistakes > 0 then
    return nil, report:error(app.title)
  end
  local self = new(app, opts, list, links.links)
  for _, warning in ipairs(report.warnings) do
    self.log:warn(warning.message, { source = warning.source })
  end
  app.running = self
  local deadline = self.begun + self.start_timeout
  self.opening = tasks.spawn(open, self, deadline)
  self.supervisor = tasks.spawn(supervise, self, deadline)
  return self
end

return M
