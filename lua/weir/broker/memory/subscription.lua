--- A subscription of the memory broker: takes deliveries from the queue of its group, or from one of its own.
-- @module weir.broker.memory.subscription

local engines = require("weir.broker.memory.engine")
local errors = require("weir.errors")
local history = require("weir.broker.memory.history")
local message = require("weir.broker.memory.message")
local runtime = require("weir.runtime")
local waitlist = require("weir.runtime.waitlist")

local subscription = {}
local Subscription = { __name = "weir.memory.subscription" }
Subscription.__index = Subscription

local PAUSED = errors.new("paused", "the subscription is paused")
local STOPPED = errors.new("stopped", "the subscription was stopped")
local GONE = errors.new("closed", "the subscription was closed")
local EMPTY = errors.new("empty", "no message waits")

local LINGER = 0.01

local own_waiter, to_deadline = runtime.own_waiter, runtime.deadline

-- Whether there is more to do for a message than the fast path does.
local function is_slow(queue, descriptor)
  return queue.ack_wait ~= nil or queue.store ~= nil or descriptor.prefetch ~= nil
end

-- Why there are no more messages for good, if so.
local function ended(self)
  return self.over ~= PAUSED and self.over or nil
end

--- Makes one on a queue.
-- @tparam table engine
-- @tparam table queue
-- @tparam table descriptor
function subscription.new(engine, queue, descriptor)
  local self = setmetatable({
    engine = engine,
    queue = queue,
    lane = queue.lane,
    descriptor = descriptor,
    next = queue.lane.next, -- the fast path, which goes on to Subscription.next
    slow = is_slow(queue, descriptor), -- never takes it
    limited = descriptor.prefetch ~= nil,
    prefetch = descriptor.prefetch or math.huge,
    taken = 0, -- unsettled, where that is limited
    full = waitlist.new(), -- who has all that `prefetch` allows, and wants more
    over = nil, -- why there are no more messages, or none for now
  }, Subscription)
  queue.members = queue.members + 1
  queue.subscriptions[self] = true
  engine.subscriptions[self] = true
  engine:route(queue)
  queue:watch()
  return self
end

-- Whether there is a message that it may take.
local function can_take(self)
  return self.lane.ready() > 0 and self.taken < self.prefetch
end

-- Takes it.
local function take(self)
  local queue = self.queue
  local delivery = self.lane.take(self)
  if self.limited then
    self.taken = self.taken + 1
  end
  if queue.store then
    queue.store:attempted(queue.key, delivery.position, delivery.attempts)
  end
  if queue.ack_wait then
    self.engine.due:arm(delivery, self.engine.clock.now() + queue.ack_wait)
  end
  return delivery
end

--- Takes a message if one waits.
-- @treturn table message; or nil and an error: "empty", "stopped", "closed"
function Subscription:try_next()
  if self.over then
    return nil, self.over
  elseif can_take(self) then
    return take(self)
  end
  return nil, EMPTY
end

-- The list to wait in.
local function list_of(self)
  return self.taken < self.prefetch and self.queue.receivers or self.full
end

-- Passes on a wake-up that was not for this one.
local function pass_on(self)
  if self.lane.ready() > 0 then
    self.queue.receivers:wake_one()
  end
end

-- Waits until it can take one, or cannot for good.
local function await(self, deadline)
  while true do
    local list, waiter = list_of(self), own_waiter()
    list:add(waiter)
    local _, err = waiter:wait(deadline)
    local woken = list:remove(waiter)
    if self.over then
      return nil, self.over
    elseif can_take(self) and not (err and err.code == "cancelled") then
      return take(self)
    elseif woken then
      pass_on(self)
    end
    if err then
      return nil, err
    end
  end
end

--- The next message, waited for.
-- @tparam[opt] number timeout in seconds
-- @treturn table message; or nil and an error: "timeout", "stopped", "closed", "cancelled"
function Subscription:next(timeout)
  local cancelled = self.engine.shared.refresh()
  if cancelled then
    return nil, cancelled
  elseif self.over then
    return nil, self.over
  elseif can_take(self) then
    return take(self)
  end
  return await(self, to_deadline(timeout, 2))
end
subscription.slow_next = Subscription.next

-- Fills a batch with what waits.
local function fill(self, batch, max)
  local count = #batch
  while count < max and not self.over and can_take(self) do
    count = count + 1
    batch[count] = take(self)
  end
  return count
end

--- Several messages at once.
-- @tparam number max at most so many, at least 1
-- @tparam[opt=0.01] number linger seconds to wait for more after the first, by the clock of the broker
-- @tparam[opt] number timeout seconds to wait for the first
-- @treturn table a list of 1 to `max` messages; or nil and an error as of `next`
function Subscription:next_batch(max, linger, timeout)
  if type(max) ~= "number" or max < 1 or max % 1 ~= 0 and max ~= math.huge then
    error("subscription:next_batch: the first argument is how many messages at most, not " .. tostring(max), 2)
  elseif linger ~= nil and (type(linger) ~= "number" or linger ~= linger or linger < 0) then
    error("subscription:next_batch: the second argument is a number of seconds, not " .. tostring(linger), 2)
  end
  local first, err = self:next(timeout)
  if not first then
    return nil, err
  end
  local batch = { first }
  linger = linger or LINGER
  if fill(self, batch, max) >= max or linger == 0 then
    return batch
  end
  local late = false
  local waiter = runtime.waiter()
  local timer = self.engine.clock.timer(self.engine.clock.now() + linger, function()
    late = true
    waiter:wake()
  end)
  repeat
    local list = list_of(self)
    list:add(waiter)
    local _, cancelled = waiter:wait()
    list:remove(waiter)
    local count = fill(self, batch, max)
  until late or cancelled or self.over or count >= max
  timer:cancel()
  pass_on(self)
  return batch
end

-- Whoever waits looks again.
local function wake(self)
  self.full:wake_all()
  self.queue.receivers:wake_all()
end

-- No more messages for this one, for the reason that `over` is.
local function halt(self, over)
  local of = self.queue
  if not ended(self) then
    of.members = of.members - 1
    if of.members == 0 and not of.durable then
      self.engine:unroute(of)
      of:clear()
    end
  end
  self.over, self.slow = over, true
  wake(self)
end

--- No messages until `resume`: `next` gives "paused". They wait as if nobody asked for them.
-- @treturn boolean true; or nil and an error: "stopped", "closed"
function Subscription:pause()
  if ended(self) then
    return nil, self.over
  end
  self.over, self.slow = PAUSED, true
  wake(self)
  return true
end

--- Messages again after `pause`.
-- @treturn boolean true; or nil and an error: "stopped", "closed"
function Subscription:resume()
  if ended(self) then
    return nil, self.over
  end
  self.over, self.slow = nil, is_slow(self.queue, self.descriptor)
  return true
end

--- No more messages: `next` gives "stopped". What was taken can still be settled. What waits, waits for others of the
-- group, or is gone if there is no group.
function Subscription:stop()
  if not ended(self) then
    local engine = self.engine
    local quiet = engine:watch_quiet()
    halt(self, STOPPED)
    engine:watch_quiet(quiet)
  end
  return true
end

--- Stops; what was taken and not settled goes back to the group, first in its queue.
-- @treturn boolean true
function Subscription:close()
  if self.over == GONE or self.engine.is_closed then
    return true
  end
  local of, engine = self.queue, self.engine
  local quiet = engine:watch_quiet()
  halt(self, GONE)
  engine.subscriptions[self] = nil
  local list = of:let_go(self, message.LOST)
  for i = #list, 1, -1 do
    of:put_back(list[i])
  end
  of.subscriptions[self] = nil
  if not of.durable and next(of.subscriptions) == nil then
    engine:drop_queue(of)
  end
  engine:watch_quiet(quiet)
  return true
end

--- The broker was shut down.
function Subscription:abandon()
  self.over, self.slow, self.taken = engines.CLOSED, true, 0
  wake(self)
end

--- Where a copy is published so that this subscription gets it; nil for patterns.
function Subscription:address()
  if not self.descriptor.pattern then
    return self.descriptor.name
  end
end

--- Goes to another place of what the broker retains: "start", "end", or the position of a message, which comes next.
-- What the queue held is replaced; what was taken can still be settled.
-- @treturn boolean true; or nil and an error: "unsupported", "position_evicted", "invalid", "closed"
function Subscription:seek(position)
  if ended(self) then
    return nil, self.over
  end
  return history.seek(self.engine, self.queue, position)
end

--- Numbers of the subscription and the queue that it shares with its group.
-- @treturn table `queued`, `unsettled` (its own), `delayed`, `held` and `bytes` (all that is not
-- settled), `dropped` (by the overflow rule), `members`
function Subscription:stats()
  local of = self.queue
  return {
    queued = of.lane.ready(),
    delayed = of.delayed_count,
    held = of:held(),
    bytes = of:bytes(),
    dropped = of.dropped,
    members = of.members,
    unsettled = of:unsettled_of(self),
  }
end

--- For select.
function Subscription:poll()
  local delivery, err = self:try_next()
  if err == EMPTY then
    return false
  end
  return true, delivery, err
end

function Subscription:watch(waiter)
  self.queue.receivers:add(waiter)
  self.full:add(waiter)
end

function Subscription:unwatch(waiter)
  self.full:remove(waiter)
  if self.queue.receivers:remove(waiter) then
    pass_on(self)
  end
end

Subscription.__close = Subscription.close

function Subscription:__tostring()
  local state = self.over and self.over.code or "open"
  return ("weir.memory.subscription('%s', %s, %d wait)"):format(self.descriptor.name, state, self.lane.ready())
end

return subscription
