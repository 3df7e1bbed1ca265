--- Runs a registration: pulls messages from its subscription, has them handled, and comes to an end in order.
--
-- `workers = 1` is one task that pulls a message when the one before is settled. With `workers = n` there are n such
-- tasks, of which one at a time pulls: no more than n messages are taken and not settled. `workers = { count = n, by =
-- ... }` keeps the order of each key (`weir.app.lanes`); batches are of `weir.app.batch`. Who does not pull gets
-- nothing, which is how a slow handler slows its subscription.
-- @module weir.app.consume

local batch = require("weir.app.batch")
local errors = require("weir.errors")
local handle = require("weir.app.handle")
local lanes = require("weir.app.lanes")
local pipeline_of = require("weir.app.pipeline")
local runtime = require("weir.runtime")
local settle = require("weir.app.settle")
local tasks = require("weir.task")
local waitlist = require("weir.runtime.waitlist")

local now = runtime.now

local consume = {}

local Running = { __name = "weir.app.running" }
Running.__index = Running

-- Seconds that handlers have to notice that they were cancelled.
local GRACE = 1
-- Seconds that `close` waits for messages to be done, when it is not told.
local DRAIN = 15

-- --- pulling --------------------------------------------------------------------------------------

-- The subscription gave no message: whether to ask again. Ends the service where it failed for good.
local function goes_on(self, err)
  local code = err and err.code
  if code == "timeout" then
    return true
  elseif self.stopped or code == "stopped" or code == "cancelled" then
    return false
  end
  err = err or errors.new("closed", "the subscription ended")
  self.pipeline.log:error("a subscription ended", { handler = self.registration.id, error = err })
  self.pipeline.failure = err
  self.pipeline:fail_fast(err)
  return false
end

-- Has `take` handle a message, or a batch of them. False where nothing is handled any more: the message stays
-- unsettled, and goes back when the subscription is closed, or to who takes that over.
local function handled(pipeline, take, message)
  if not pipeline:enter() then
    for _, each in ipairs(pipeline.registration.batch and message or { message }) do
      pipeline:bequeath(each)
    end
    return false
  end
  local start = now()
  take(message)
  pipeline:leave()
  handle.count(now() - start)
  return true
end

-- Pulls with `pull()`, one task at a time, and gives what comes to `take`.
local function work(self, pull, take)
  local pipeline, held, lock = self.pipeline, self.pipeline.held, self.lock
  while not self.stopped do
    if held.full and held:wait_for_room() then
      return
    end
    while lock.taken do
      local waiter = runtime.own_waiter()
      lock.list:add(waiter)
      local _, err = waiter:wait()
      lock.list:remove(waiter)
      if err then
        return
      end
    end
    lock.taken = true
    local message, err = pull()
    lock.taken = false
    if lock.list.count > 0 then
      lock.list:wake_one()
    end
    if message then
      if not handled(pipeline, take, message) then
        return
      end
    elseif not goes_on(self, err) then
      return
    end
  end
end

-- The same for a single worker, which is the common case.
local function work_alone(self, pull, take)
  local pipeline, held, subscription = self.pipeline, self.pipeline.held, self.subscription
  while not self.stopped do
    if held.full and held:wait_for_room() then
      return
    end
    local message, err = pull(subscription)
    if message then
      if not handled(pipeline, take, message) then
        return
      end
    elseif not goes_on(self, err) then
      return
    end
  end
end

-- And that without anything out of the ordinary.
local function work_shortly(self, loop)
  repeat
    local err = loop()
  until not goes_on(self, err)
end

-- Sees to what was held until now.
local function release(self)
  local pipeline = self.pipeline
  local held = pipeline.held
  while true do
    local item = held:take()
    if not item then
      return
    elseif self.stopped and item.handles then
      held:add(0, item.message, item.run, true) -- for `close`, which gives it back
      return
    elseif pipeline.lanes and item.handles then
      pipeline.lanes:send(item.message, item.run)
    elseif not item.handles then
      self:guard(item.run, pipeline)
    elseif pipeline:enter() then
      self:spawn(function()
        self:guard(item.run, pipeline)
        pipeline:leave()
      end)
    else
      held:add(0, item.message, item.run, true)
      return
    end
  end
end

--- Calls a function that must not end its caller: an error in weir itself or in a broker is logged.
function Running:guard(fn, ...)
  local ok, err = xpcall(fn, debug.traceback, ...)
  if not ok then
    self.pipeline.log:error("an error outside of any handler", { handler = self.registration.id, error = err })
  end
  return ok
end

--- Starts a task of this registration.
function Running:spawn(fn)
  local task
  task = tasks.spawn(function()
    local ok, err = xpcall(fn, debug.traceback)
    self.tasks[task], self.loops[task] = nil, nil
    if not ok then
      self.pipeline.busy = math.max(0, self.pipeline.busy - 1)
    end
    self.pipeline:changed()
    if not ok and self.pipeline.cancelled then -- its handler did not end with that, and others do its work by now
      self.pipeline.log:warn("a worker that was cancelled failed", { handler = self.registration.id, error = err })
    elseif not ok then
      self.pipeline.log:error("a worker failed", { handler = self.registration.id, error = err })
      self.pipeline:fail_fast(errors.new("internal", tostring(err)))
    end
  end)
  self.tasks[task] = true
  return task
end

--- Starts a task that ends when nothing is pulled and nothing is held any more.
function Running:spawn_loop(fn)
  self.loops[self:spawn(fn)] = true
end

--- Starts the task that sees to what is held; most subscriptions never hold anything.
function Running:start_release()
  self:spawn_loop(function()
    release(self)
  end)
end

-- --- the object -----------------------------------------------------------------------------------

--- Pulls no more. What was pulled is still handled.
function Running:stop()
  if not self.halted then
    self.halted, self.stopped = true, true
    self.subscription:stop()
    self.pipeline.held:stop()
    self.pipeline:changed()
  end
end

--- Waits until what was pulled is done. What is held for later does not count.
-- @tparam[opt] number timeout in seconds
-- @treturn number of messages and of functions of `ctx:after_ack` that are left
function Running:drain(timeout)
  local deadline = runtime.deadline(timeout, 2)
  local pipeline = self.pipeline
  while pipeline:left() > 0 do
    local _, err = pipeline:wait(deadline)
    if err then
      break
    end
  end
  return pipeline:left() > 0 and math.max(1, pipeline:in_flight() + pipeline.background) or 0
end

-- Cancels all tasks and gives them a moment to end.
local function cancel(self)
  self.pipeline.cancelled, self.pipeline.marked = true, true
  for task in pairs(self.tasks) do
    task:cancel("the application stops")
  end
  local deadline = runtime.now() + GRACE
  while next(self.tasks) do
    local _, err = self.pipeline:wait(deadline)
    if err then
      break
    end
  end
end

local function give_back(self, message)
  local pipeline = self.pipeline
  if pipeline.acks or pipeline.held.retired then
    settle.give_back(pipeline, { entry = pipeline.entries[1], message = message })
  end
end

-- What handlers have not settled goes back.
local function give_taken_back(self)
  local pipeline = self.pipeline
  local current = pipeline.current()
  if current then
    give_back(self, current)
  end
  for what, messages in pairs(pipeline.live) do -- whose handlers did not end when they were cancelled
    for _, message in ipairs(what == messages and { what } or messages) do
      give_back(self, message)
    end
  end
  for ctx in pairs(pipeline.unsettled) do
    ctx:nack({ requeue = true })
  end
end

-- What nobody will settle any more goes back.
local function give_all_back(self)
  local pipeline = self.pipeline
  for _, item in ipairs(pipeline.held:clear()) do
    give_back(self, item.message)
  end
  give_taken_back(self)
  for _, item in ipairs(pipeline.lanes and pipeline.lanes:clear() or {}) do
    give_back(self, item.message)
  end
end

--- Pulls no more, waits for what was pulled, and cancels what does not end. The subscription stays open and paused, and
-- what nobody has begun waits in `pipeline.held`, for another one.
-- @tparam[opt=15] number timeout in seconds
-- @treturn boolean true; or nil and an error when it was closed meanwhile
function Running:retire(timeout)
  local pipeline = self.pipeline
  local deadline = runtime.now() + (timeout or DRAIN)
  self.stopped = true
  pipeline.held:retire()
  self.subscription:pause()
  local late
  while not (self.halted or late) and (next(self.loops) or pipeline:left() > 0) do
    late = select(2, pipeline:wait(deadline))
  end
  if late and pipeline:left() > 0 then
    pipeline.log:warn("messages were not done in time and go to the new handler",
      { handler = self.registration.id, messages = self:drain(0) })
  end
  if not self.halted then
    cancel(self)
    for _, item in ipairs(pipeline.lanes and pipeline.lanes:clear() or {}) do
      pipeline:bequeath(item.message, item.run)
    end
    give_taken_back(self)
  end
  if self.halted then
    return nil, errors.new("stopped", "the subscription was stopped meanwhile")
  end
  self.closed = true
  pipeline.counts:close()
  return true
end

--- Stops, waits for what was pulled, cancels what does not end, gives the rest back, and closes the subscription.
-- @tparam[opt=15] number timeout in seconds
-- @treturn boolean true; or nil and the error of closing the subscription
function Running:close(timeout)
  if self.closed then
    return true
  end
  self.closed = true
  local deadline = runtime.now() + (timeout or DRAIN)
  self:stop()
  local left = self:drain(math.max(0, deadline - runtime.now()))
  if left > 0 then
    self.pipeline.log:warn("messages were not done in time and go back",
      { handler = self.registration.id, messages = left })
  end
  cancel(self)
  give_all_back(self)
  local ok, err = self.subscription:close(math.max(GRACE, deadline - runtime.now()))
  self.pipeline.counts:close()
  return ok, err
end

--- Numbers of it: `in_flight`, `held`, `state` ("up", "degraded", "stopped", "failed"), `error`, and what was counted:
-- `consumed`, `ack`, `retry`, `drop`, `dead_letter`, `skip`, `returned`, `decode_failures`, `redeliveries`.
function Running:stats()
  local pipeline, counts = self.pipeline, self.pipeline.counts
  counts.gather()
  local stats = {
    in_flight = pipeline:in_flight(),
    held = pipeline.held.count,
    state = pipeline.stopped_by and "failed" or self.halted and "stopped" or pipeline.failure and "degraded" or "up",
    error = pipeline.stopped_by or pipeline.failure,
  }
  for _, name in ipairs({ "consumed", "ack", "retry", "drop", "dead_letter", "skip", "returned",
    "decode_failures", "redeliveries" }) do
    stats[name] = counts[name]
  end
  return stats
end

function Running:__tostring()
  return ("weir.app.running(%s, %s)"):format(self.registration.id, self:stats().state)
end

-- Starts the workers.
local function begin(self)
  local pipeline, subscription = self.pipeline, self.subscription
  local registration = self.registration
  local workers = registration.workers or { count = 1 }
  local pull, short = subscription.next, nil
  local take = function(message)
    pipeline:take(message)
  end
  if registration.batch then
    pull, take = batch.make(pipeline, registration.batch)
  elseif workers.by then
    pipeline.lanes = lanes.new(self, workers)
    pipeline.limit = math.huge
    take = function(message)
      pipeline.lanes:send(message)
    end
  end
  if workers.count == 1 and not workers.by and not registration.batch then
    short = handle.short_loop(pipeline)
  end
  if short then
    self:spawn_loop(function()
      work_shortly(self, short)
    end)
  elseif workers.count == 1 or workers.by then
    self:spawn_loop(function()
      work_alone(self, pull, take)
    end)
  else
    self.lock = { taken = false, list = waitlist.new() }
    for _ = 1, workers.count do
      self:spawn_loop(function()
        work(self, function()
          return pull(subscription)
        end, take)
      end)
    end
  end
end

-- Makes what runs a registration, not started.
local function new(registration, env, subscription)
  local self = setmetatable({
    registration = registration,
    subscription = subscription,
    pipeline = pipeline_of(registration, env, subscription),
    tasks = {},
    loops = {}, -- those of the tasks that go on until nothing is pulled
    stopped = false, -- pulls no more
    halted = false, -- nor does anybody else from this subscription
    closed = false,
  }, Running)
  self.pipeline.running = self
  self.pipeline.on_stop = function(reason)
    if self.on_stop then
      self.on_stop(reason)
    end
  end
  return self
end

--- Subscribes, and starts to handle messages. The broker must be connected.
-- @tparam table registration see `weir.app.registration`
-- @tparam table env `app`, `clock`, `log`, `metrics` (a registry, or nil), `observer` (or nil), `state`,
--   `publisher_for(label)`, which returns a `weir.app.publisher`
-- @tparam[opt] number timeout for the broker
-- @return what runs, with the methods above and the field `on_stop`, a function that is called with an error when a
--   policy or a broken subscription ends the service; or nil and an error
function consume.start(registration, env, timeout)
  local subscription, err = registration.broker.broker:subscribe(registration.descriptor, timeout)
  if not subscription then
    return nil, err
  end
  local self = new(registration, env, subscription)
  begin(self)
  return self
end

--- Whether `consume.take_over` can be called for what runs.
function consume.can_be_taken_over(running)
  return running.pipeline.capabilities.pause == true
end

--- Handles the messages of a subscription from now on that another one has handled until now, without closing it. What
-- that has begun it finishes first; what waits for a next attempt goes over with its number of attempts.
-- @tparam table old what `start` or this returned; it must not be used any more, unless there is an error
-- @tparam table registration of the same broker and an equal descriptor
-- @tparam table env as for `start`
-- @tparam[opt=15] number timeout seconds for handlers to finish; those that do not are cancelled
-- @return what runs; or nil and an error "stopped" where the old one was stopped meanwhile
function consume.take_over(old, registration, env, timeout)
  local ok, err = old:retire(timeout)
  if not ok then
    return nil, err
  end
  -- From here on nobody else has a turn.
  local self = new(registration, env, old.subscription)
  if registration.id == old.registration.id then
    self.pipeline.counts:continue(old.pipeline.counts)
  end
  self.subscription:resume()
  begin(self)
  self.pipeline.held:inherit(old.pipeline.held)
  return self
end

return consume
