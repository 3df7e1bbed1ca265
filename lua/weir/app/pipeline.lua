--- A subscription that runs, as the parts of it see it: its settings, what it counts, how to publish.
-- @module weir.app.pipeline

local clock = require("weir.clock")
local delayed = require("weir.app.delayed")
local errors = require("weir.errors")
local handle = require("weir.app.handle")
local log = require("weir.log")
local measure = require("weir.app.measure")
local publisher = require("weir.app.publisher")
local runtime = require("weir.runtime")
local settle = require("weir.app.settle")
local tasks = require("weir.task")
local transaction = require("weir.app.transaction")
local waitlist = require("weir.runtime.waitlist")

local Pipeline = { __name = "weir.app.pipeline" }
Pipeline.__index = Pipeline

local function none() end

--- Makes one.
-- @tparam table registration
-- @tparam table env `app`, `clock`, `log`, `metrics`, `observer`, `state`, `publisher_for(label)`
-- @param subscription of the broker
local function new(registration, env, subscription)
  local link = registration.broker
  local self = setmetatable({
    registration = registration,
    env = env,
    clock = env.clock or link.broker.clock or clock,
    log = env.log or log.new(),
    observer = env.observer,
    tracer = env.app and env.app.tracer,
    label = link.label,
    broker = link.broker,
    subscription = subscription,
    capabilities = link.broker:capabilities(registration.descriptor),
    limit = registration.workers and registration.workers.count or 1,
    busy = 0, -- messages or batches that are being handled
    background = 0, -- continuations that run
    waiters = waitlist.new(), -- those who wait for `busy` or `background` to change
    watched = false, -- whether there are any
    marked = false, -- whether something happened to a context that is not usual
    live = {}, -- what is being handled: messages, and lists of them; `current()` is that on the short path
    current = none,
    unsettled = {}, -- contexts whose handlers settle them later
    unsettled_count = 0,
    bequeathed = setmetatable({}, { __mode = "k" }),
    publishers = {},
    failure = nil,
    on_stop = none,
  }, Pipeline)
  self.acks = self.capabilities.ack == true
  self.held = delayed.new(self.clock, nil, function()
    self.running:start_release()
  end)
  local app = env.app
  local labels = {
    app and (app.title or app.name) or "",
    self.label or "",
    registration.id,
    tostring(registration.descriptor.name),
  }
  self.counts = measure.new(env.metrics, labels, function()
    return self:in_flight()
  end, subscription)
  self.entries = {}
  for i, handler in ipairs(registration.handlers) do
    self.entries[i] = handle.prepare(self, handler)
  end
  if #self.entries == 1 and not self.entries[1].filter then
    self.only = self.entries[1]
  end
  return self
end

--- Handles a message; with `attempt` one that was held.
Pipeline.take = handle.take

--- A context for a message that has none yet.
function Pipeline:context(entry, message, attempt) -- luacheck: no self
  return setmetatable({ message, mark = attempt and { attempt = attempt } or nil }, entry.meta)
end

--- Leaves a message that nobody handles to who takes the subscription over, once, if somebody does.
-- @param message
-- @tparam[opt] function run what is done with it, gets the other pipeline; handles it if left out
-- @treturn boolean whether it did
function Pipeline:bequeath(message, run)
  if not self.held.retired or self.bequeathed[message] then
    return false
  end
  self.bequeathed[message] = true
  self.held:add(0, message, run or function(with)
    with:take(message)
  end, true)
  return true
end

-- --- counting who is busy -------------------------------------------------------------------------

--- Tells those who wait that something ended.
function Pipeline:changed()
  self.watched = false
  self.waiters:wake_all()
end

--- Waits until there is a free worker, and takes it. False when the task was cancelled.
function Pipeline:enter()
  while self.busy >= self.limit do
    local _, err = self:wait()
    if err then
      return false
    end
  end
  self.busy = self.busy + 1
  return true
end

--- Gives the worker back.
function Pipeline:leave()
  self.busy = self.busy - 1
  if self.watched then
    self:changed()
  end
end

--- Waits for a change, at most until the deadline.
function Pipeline:wait(deadline)
  local waiter = runtime.own_waiter()
  self.waiters:add(waiter)
  self.watched = true
  local _, err = waiter:wait(deadline)
  self.waiters:remove(waiter)
  return nil, err
end

--- How many messages are not done: handled now, queued for a worker, left to their handlers.
function Pipeline:left()
  return self.busy + self.background + self.unsettled_count + (self.lanes and self.lanes.queued or 0)
end

--- How many messages are taken and not done; those that are held for later are not among them.
function Pipeline:in_flight()
  local count = self.lanes and self.lanes.queued or self.busy
  if self.registration.batch then
    count = 0
    for _, messages in pairs(self.live) do
      count = count + #messages
    end
  end
  return count + self.unsettled_count
end

--- Runs a function beside everything else; the end of the application waits for it.
function Pipeline:run_aside(fn, ...)
  self.background = self.background + 1
  local task = tasks.spawn(function(...)
    local ok, err = xpcall(fn, handle.raised, ...)
    self.background = self.background - 1
    self:changed()
    if not ok then
      self.log:error("an error in the background", {
        handler = self.registration.id,
        error = settle.text_of(err.error),
        traceback = err.traceback,
      })
    end
  end, ...)
  return task
end

--- Runs what was to be done after the acknowledgement.
function Pipeline:after(ctx, list)
  for _, fn in ipairs(list) do
    self:run_aside(fn, ctx)
  end
end

-- --- messages that their handlers settle ----------------------------------------------------------

Pipeline.settle_early = settle.early

--- Notes that the handler has ended without settling, which is its own affair.
function Pipeline:leave_to_handler(job)
  self.unsettled[job.ctx] = true
  self.unsettled_count = self.unsettled_count + 1
end

--- Notes that a handler has settled.
function Pipeline:handler_settled(ctx)
  if self.unsettled[ctx] then
    self.unsettled[ctx] = nil
    self.unsettled_count = self.unsettled_count - 1
    self:changed()
  end
end

-- --- publishing -----------------------------------------------------------------------------------

-- The publisher of the application for a broker.
local function base_publisher(self, label)
  local found = self.publishers[label or ""]
  if found then
    return found
  end
  local of_env = self.env.publisher_for
  local raw = of_env and of_env(label)
  if publisher.is(raw) then
    found = raw
  elseif raw or label == self.label then
    local broker = label == self.label and self.broker or nil
    local err
    found, err = publisher.new({ raw = raw, broker = broker, label = label, env = self.env })
    if not found then
      return nil, err
    end
  end
  if not found then
    return nil, errors.new("unknown_broker", ("no broker has the label '%s'"):format(tostring(label)))
  end
  self.publishers[label or ""] = found
  return found
end

-- The publisher of a handler for a broker: with the handler's codec and middleware, and perhaps for headers that fit a
-- schema.
local function publisher_of(self, entry, label, header_schema)
  label = label or self.label
  entry.publishers = entry.publishers or {}
  local found = entry.publishers[label or ""]
  if not found then
    local base, err = base_publisher(self, label)
    if not base then
      return nil, err
    end
    found = base:with({ codec = entry.codec, middleware = entry.publish_middleware })
    entry.publishers[label or ""] = found
  end
  return header_schema and found:with({ header_schema = header_schema }) or found
end

--- Publishes because of a message.
-- @param ctx
-- @param value
-- @tparam table options
-- @param[opt] header_schema of `weir.app.header_schema`
-- @treturn boolean true; or nil and an error
function Pipeline:publish(ctx, value, options, header_schema)
  local of_handler, err = publisher_of(self, ctx.entry, options.broker, header_schema)
  if not of_handler then
    return nil, err
  end
  if ctx.entry.transactional then
    return transaction.publish(of_handler, ctx, value, options)
  end
  return of_handler:publish(value, options, ctx)
end

--- Asks because of a message.
function Pipeline:request(ctx, value, options, timeout)
  local of_handler, err = publisher_of(self, ctx.entry, options.broker)
  if not of_handler then
    return nil, err
  end
  return of_handler:request(value, options, timeout, ctx)
end

--- Publishes the payload of a message as it is, and waits until the broker has it.
-- @treturn boolean true; or nil and an error
function Pipeline:publish_confirmed(label, to, message, headers)
  local base, err = base_publisher(self, label)
  if not base then
    return nil, err
  end
  return base:publish_confirmed(to, message.payload, headers)
end

--- Where copies for this subscription go; nil where it has no such place.
function Pipeline:address()
  local subscription = self.subscription
  return subscription.address and subscription:address()
end

-- --- health ---------------------------------------------------------------------------------------

--- Notes that messages cannot be moved on.
function Pipeline:degraded(err)
  self.failure = err
end

--- Notes that they can.
function Pipeline:healthy()
  self.failure = nil
end

--- Ends the service.
function Pipeline:fail_fast(err)
  if not self.stopped_by then
    self.stopped_by = err
    self.running:stop()
    self.on_stop(err)
  end
end

return new
