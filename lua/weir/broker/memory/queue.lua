--- What waits for one group, or for one subscription that is in none.
--
-- A ring of deliveries that are ready, those that are delayed, and those that were taken and are unsettled. The
-- capacity bounds the three together: `held()` and `bytes`.
-- @module weir.broker.memory.queue

local message = require("weir.broker.memory.message")
local waitlist = require("weir.runtime.waitlist")

local queue = {}
local Queue = { __name = "weir.memory.queue" }
Queue.__index = Queue

local FEW = 16 -- places of a new ring
local MANY = 1024 -- places that an empty ring may keep
queue.MANY = MANY

local function ring(size)
  local items = {}
  for i = 1, size do
    items[i] = false
  end
  return items
end

--- Makes one.
-- @tparam table engine
-- @tparam string key what the store knows it by
-- @tparam table descriptor `name`, `tokens`, `pattern`, `group`, `durable`, `overflow`, `ack_wait`
-- @tparam table capacity `messages`, `bytes`
function queue.new(engine, key, descriptor, capacity)
  local self = setmetatable({
    engine = engine,
    key = key,
    name = descriptor.name,
    tokens = descriptor.tokens,
    pattern = descriptor.pattern,
    group = descriptor.group,
    durable = descriptor.durable or false,
    overflow = descriptor.overflow or "wait",
    ack_wait = descriptor.ack_wait,
    max_messages = capacity.messages,
    max_bytes = capacity.bytes,
    store = nil, -- where its deliveries are kept, if they are
    items = ring(FEW), -- the ready ones: `count` from `head` on, around the end
    size = FEW,
    head = 1,
    count = 0,
    delayed = {}, -- a set
    delayed_count = 0,
    unsettled = ring(FEW), -- the first `taken` are deliveries
    takers = ring(FEW), -- and these the subscriptions that took them
    taken = 0,
    bytes = 0,
    dropped = 0,
    members = 0, -- subscriptions that are not stopped
    subscriptions = {}, -- those that are not closed; a set
    routed = false, -- whether publishes come here
    receivers = waitlist.new(),
    senders = waitlist.new(),
    alert = descriptor.ack_wait ~= nil or engine.idlers ~= nil, -- whether settled() has something to do
  }, Queue)
  self.kind = message.kind({ queue = self })
  return self
end

--- Deliveries that are not settled: ready, delayed, or taken.
function Queue:held()
  return self.count + self.delayed_count + self.taken
end

-- Doubles the ring.
local function grow(self)
  local size, old = self.size, self.items
  local items = ring(size * 2)
  for i = 1, size do
    local at = self.head + i - 1
    items[i] = old[at > size and at - size or at]
  end
  self.items, self.size, self.head = items, size * 2, 1
end

--- Adds a delivery that counts already at the end, or at the front.
local function append(self, delivery)
  local count = self.count
  if count == self.size then
    grow(self)
  end
  local at = self.head + count
  if at > self.size then
    at = at - self.size
  end
  self.items[at] = delivery
  self.count = count + 1
  if self.receivers.count > 0 then
    self.receivers:wake_one()
  end
end

local function prepend(self, delivery)
  local count = self.count
  if count == self.size then
    grow(self)
  end
  local head = self.head - 1
  if head == 0 then
    head = self.size
  end
  self.items[head] = delivery
  self.head, self.count = head, count + 1
  if self.receivers.count > 0 then
    self.receivers:wake_one()
  end
end
Queue.append, Queue.prepend = append, prepend

-- Takes the first; there is one.
local function shift(self)
  local items, head = self.items, self.head
  local delivery = items[head]
  items[head] = false
  local count = self.count - 1
  self.count = count
  if head == self.size then
    self.head = 1
  else
    self.head = head + 1
  end
  if count == 0 and self.size > MANY then
    self.items, self.size, self.head = ring(FEW), FEW, 1
  end
  return delivery
end
queue.shift = shift

--- The ready delivery of a place, 1 being the first.
function Queue:peek(i)
  local at = self.head + i - 1
  return self.items[at > self.size and at - self.size or at]
end

local function size_of(delivery)
  return delivery.size or #delivery.payload
end

--- Whether `messages` more of `bytes` in all fit. More than the capacity can ever hold fit when it is empty, so that
-- a large transaction does not wait for ever.
function Queue:fits(messages, bytes)
  local held = self:held()
  return held == 0 or held + messages <= self.max_messages and self.bytes + bytes <= self.max_bytes
end

--- Takes in a delivery that was published.
function Queue:deliver(delivery)
  self.bytes = self.bytes + size_of(delivery)
  append(self, delivery)
end

--- The same, with a delay until a time of the clock.
function Queue:deliver_at(delivery, at)
  self.bytes = self.bytes + size_of(delivery)
  self:hold(delivery, at)
end

--- From now on a store is told what happens to deliveries.
function Queue:keep_in(store)
  self.store, self.alert = store, true
end

--- Takes over the settings of another descriptor.
function Queue:adopt(descriptor, capacity)
  self.overflow = descriptor.overflow or "wait"
  self.ack_wait = descriptor.ack_wait
  self.max_messages, self.max_bytes = capacity.messages, capacity.bytes
  self.durable = descriptor.durable or false
  self.alert = true
end

--- Frees room for a new message by the rule of the queue; false if the new one is what must go.
function Queue:make_room(bytes)
  if bytes > self.max_bytes then
    self.dropped = self.dropped + 1
    return false
  end
  while self:held() + 1 > self.max_messages or self.bytes + bytes > self.max_bytes do
    if self.overflow == "drop_newest" or self.count == 0 then
      self.dropped = self.dropped + 1
      return false
    end
    self:discard(shift(self))
    self.dropped = self.dropped + 1
  end
  return true
end

--- Forgets a delivery that is in no list any more.
-- @tparam table delivery
-- @tparam[opt] table taker the subscription that had taken it
function Queue:discard(delivery, taker)
  self.bytes = self.bytes - size_of(delivery)
  if self.alert then
    self:settled(delivery, taker)
  end
end

--- What is to be done when a delivery was settled for good, where somebody waits for it (`alert`).
function Queue:settled(delivery, taker)
  local engine = self.engine
  if delivery.deadline then
    engine.heap:disarm(delivery)
  end
  if self.store then
    self.store:settle(self.key, delivery.position)
  end
  self:moved(taker)
end

--- Tells who waits for something that changed: publishers for room, takers for the prefetch, who waits for quiet.
-- @tparam[opt] table taker the subscription that has one less
function Queue:moved(taker)
  local engine = self.engine
  if self.senders.count > 0 then
    self.senders:wake_one()
  end
  local full = taker and taker.full
  if full and full.count > 0 then
    full:wake_one()
  end
  if engine.idlers then
    engine:check_idle()
  elseif not (self.ack_wait or self.store) and self.senders.count == 0 and not (full and full.count > 0) then
    self.alert = false
    for subscription in pairs(self.subscriptions) do
      self.alert = self.alert or subscription.full.count > 0
    end
  end
end

--- Puts a delivery that was taken back: first in the queue, or in `delay` seconds.
-- @tparam table old whose slot says already that it is over
-- @tparam ?number delay
-- @tparam[opt] table taker the subscription that had taken it
function Queue:put_back(old, delay, taker)
  local engine = self.engine
  if old.deadline then
    engine.heap:disarm(old)
  end
  if not self.routed and self.members == 0 and not self.durable then
    return self:discard(old, taker)
  end
  local delivery = message.again(old, self)
  if delay and delay > 0 then
    self:hold(delivery, engine.clock.now() + delay)
    if self.store then
      self.store:requeue(self.key, delivery.position, delivery.attempts - 1, engine.clock.time() + delay)
    end
  else
    if self.store then
      self.store:requeue(self.key, delivery.position, delivery.attempts - 1, nil)
    end
    prepend(self, delivery)
  end
  if self.alert then
    self:moved(taker)
  end
end

--- Keeps a delivery, which counts already, until a time of the clock.
function Queue:hold(delivery, at)
  self.delayed[delivery] = true
  self.delayed_count = self.delayed_count + 1
  self.engine:arm(delivery, at)
end

--- A delayed delivery is due.
function Queue:due(delivery)
  self.delayed[delivery] = nil
  self.delayed_count = self.delayed_count - 1
  prepend(self, delivery)
end

--- Whether a delivery is among the delayed ones.
function Queue:is_delayed(delivery)
  return self.delayed[delivery] ~= nil
end

--- Drops what is ready and what is delayed.
-- @tparam[opt] boolean keep leaves it in the store
function Queue:clear(keep)
  local store = self.store
  if keep then
    self.store = nil
  end
  while self.count > 0 do
    self:discard(shift(self))
  end
  local delayed = self.delayed
  self.delayed, self.delayed_count = {}, 0
  for delivery in pairs(delayed) do
    self:discard(delivery)
  end
  self.store = store
end

--- Ends the unsettled deliveries of a subscription; returns them in the order of their positions.
function Queue:let_go(taker, state)
  local list = {}
  for slot = self.taken, 1, -1 do -- release() moves the last one, which was seen already, to the place
    if self.takers[slot] == taker then
      local delivery = self.unsettled[slot]
      message.release(delivery, slot, state)
      list[#list + 1] = delivery
    end
  end
  table.sort(list, function(a, b)
    return a.position < b.position
  end)
  return list
end

--- The broker was shut down.
function Queue:abandon()
  for slot = 1, self.taken do
    self.unsettled[slot].slot = message.CLOSED
  end
  self.taken, self.routed = 0, false
  self.senders:wake_all()
end

--- Deliveries that somebody should see to now: ready ones and those that are being handled; none where nobody takes.
function Queue:pending()
  if self.members == 0 and next(self.subscriptions) == nil then
    return 0
  end
  return self.taken + (self.members > 0 and self.count or 0)
end

return queue
