--- A subscription of the memory broker: takes deliveries from the queue of its group, or from one of its own.
-- @module weir.broker.memory.subscription

local engines = require("weir.broker.memory.engine")
local errors = require("weir.errors")
local message = require("weir.broker.memory.message")
local queue = require("weir.broker.memory.queue")
local runtime = require("weir.runtime")
local waitlist = require("weir.runtime.waitlist")

local subscription = {}
local Subscription = { __name = "weir.memory.subscription" }
Subscription.__index = Subscription

local STOPPED = errors.new("stopped", "the subscription was stopped")
local GONE = errors.new("closed", "the subscription was closed")
local EMPTY = errors.new("empty", "no message waits")

local BUDGET = 32 -- messages after which the loop may want its turn
local LINGER = 0.01
local UNLIMITED = 2 ^ 53
local MANY = queue.MANY

local shift, own_waiter, to_deadline = queue.shift, runtime.own_waiter, runtime.deadline

--- Makes one on a queue.
-- @tparam table engine
-- @tparam table of the queue
-- @tparam table descriptor
function subscription.new(engine, of, descriptor)
  local self = setmetatable({
    engine = engine,
    queue = of,
    descriptor = descriptor,
    prefetch = descriptor.prefetch or UNLIMITED,
    plain = 0, -- below so many unsettled next() may take its fast path
    taken = 0, -- unsettled
    budget = BUDGET,
    full = waitlist.new(), -- who has all that `prefetch` allows, and wants more
    over = nil, -- why there are no more messages
  }, Subscription)
  if not of.ack_wait and not of.store then
    self.plain = self.prefetch
  end
  of.members = of.members + 1
  of.subscriptions[self] = true
  engine.subscriptions[self] = true
  engine:route(of)
  return self
end

-- Takes the first delivery; there is one, and it may be taken.
local function take(self)
  local of = self.queue
  local delivery = shift(of)
  local slot = of.taken + 1
  of.taken = slot
  of.unsettled[slot], of.takers[slot] = delivery, self
  delivery.slot = slot
  self.taken = self.taken + 1
  if of.store then
    of.store:attempted(of.key, delivery.position, delivery.attempts)
  end
  if of.ack_wait then
    self.engine:arm(delivery, self.engine.clock.now() + of.ack_wait)
  end
  return delivery
end

--- Takes a message if one waits.
-- @treturn table message; or nil and an error: "empty", "stopped", "closed"
function Subscription:try_next()
  if self.over then
    return nil, self.over
  elseif self.queue.count > 0 and self.taken < self.prefetch then
    return take(self)
  end
  return nil, EMPTY
end

-- Waits in the right list until it can take one, or cannot for good.
local function await(self, deadline)
  local of = self.queue
  while true do
    local list = of.receivers
    if self.taken >= self.prefetch then
      list = self.full
      of.alert = true
    end
    local waiter = own_waiter()
    list:add(waiter)
    local _, err = waiter:wait(deadline)
    local woken = list:remove(waiter)
    if self.over then
      return nil, self.over
    elseif of.count > 0 and self.taken < self.prefetch and not (err and err.code == "cancelled") then
      return take(self)
    elseif woken and list == of.receivers and of.count > 0 then
      of.receivers:wake_one() -- it is for another member of the group
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
  local budget = self.budget
  if budget <= 0 then
    budget = BUDGET
    local cancelled = runtime.can_block() and runtime.pause_if_spent(BUDGET)
    if cancelled then
      self.budget = BUDGET
      return nil, cancelled
    end
  end
  self.budget = budget - 1
  local of, taken = self.queue, self.taken
  local count, ring = of.count, of.size
  if count == 0 or taken >= self.plain or ring > MANY and count == 1 then
    if self.over then
      return nil, self.over
    elseif count > 0 and taken < self.prefetch then
      return take(self)
    end
    return await(self, to_deadline(timeout, 2))
  end
  -- As take(), without the calls.
  local head, items = of.head, of.items
  local delivery = items[head]
  items[head] = false
  of.count = count - 1
  of.head = head < ring and head + 1 or 1
  local slot = of.taken + 1
  of.taken = slot
  of.unsettled[slot], of.takers[slot] = delivery, self
  delivery.slot = slot
  self.taken = taken + 1
  return delivery
end

-- Fills a batch with what waits.
local function fill(self, batch, max)
  local count = #batch
  while count < max and not self.over and self.queue.count > 0 and self.taken < self.prefetch do
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
  if type(max) ~= "number" or max ~= max or max < 1 then
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
    local list = self.taken < self.prefetch and self.queue.receivers or self.full
    self.queue.alert = true
    list:add(waiter)
    local _, cancelled = waiter:wait()
    list:remove(waiter)
    local count = fill(self, batch, max)
  until late or cancelled or self.over or count >= max
  timer:cancel()
  if self.queue.count > 0 then
    self.queue.receivers:wake_one()
  end
  return batch
end

-- No more messages for this one, for the reason that `over` is.
local function halt(self, over)
  local of = self.queue
  if not self.over then
    of.members = of.members - 1
    if of.members == 0 and not of.durable then
      self.engine:unroute(of)
      of:clear()
    end
  end
  self.over, self.plain = over, 0
  self.full:wake_all()
  of.receivers:wake_all()
end

--- No more messages: `next` gives "stopped". What was taken can still be settled. What waits, waits for others of the
-- group, or is gone if there is no group.
function Subscription:stop()
  if not self.over then
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
  self.over, self.plain, self.taken = engines.CLOSED, 0, 0
  self.queue.receivers:wake_all()
  self.full:wake_all()
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
  if self.over then
    return nil, self.over
  end
  return self.engine:seek(self.queue, position)
end

--- Numbers of the subscription and the queue that it shares with its group.
-- @treturn table `queued`, `unsettled` (its own), `delayed`, `held` and `bytes` (all that is not
-- settled), `dropped` (by the overflow rule), `members`
function Subscription:stats()
  local of = self.queue
  return {
    queued = of.count,
    delayed = of.delayed_count,
    held = of:held(),
    bytes = of.bytes,
    dropped = of.dropped,
    members = of.members,
    unsettled = self.taken,
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
  self.queue.alert = true
  self.queue.receivers:add(waiter)
  self.full:add(waiter)
end

function Subscription:unwatch(waiter)
  self.full:remove(waiter)
  if self.queue.receivers:remove(waiter) and self.queue.count > 0 then
    self.queue.receivers:wake_one()
  end
end

Subscription.__close = Subscription.close

function Subscription:__tostring()
  local state = self.over and self.over.code or "open"
  return ("weir.memory.subscription('%s', %s, %d wait)"):format(self.descriptor.name, state, self.queue.count)
end

return subscription
