--- What waits for one group, or for one subscription that is in none.
--
-- Its lane has the deliveries that are ready and those that were taken; here are the delayed ones, and everything that
-- is not done for each message. The capacity bounds the three together.
-- @module weir.broker.memory.queue

local message = require("weir.broker.memory.message")
local waitlist = require("weir.runtime.waitlist")

local queue = {}
local Queue = { __name = "weir.memory.queue" }
Queue.__index = Queue

--- Makes one.
-- @tparam table engine
-- @tparam string key what the store knows it by
-- @tparam table descriptor `name`, `tokens`, `pattern`, `group`, `durable`, `overflow`, `ack_wait`
-- @tparam table capacity `messages`, `bytes`
-- @tparam function slow_next what `subscription:next` does where it cannot just take a delivery
function queue.new(engine, key, descriptor, capacity, slow_next)
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
    delayed = {}, -- a set
    delayed_count = 0,
    dropped = 0,
    members = 0, -- subscriptions that are not stopped
    subscriptions = {}, -- those that are not closed; a set
    routed = false, -- whether publishes come here
    receivers = waitlist.new(),
    senders = waitlist.new(),
    slow_next = slow_next,
  }, Queue)
  self.lane = engine.shared.lane(self, capacity.messages, capacity.bytes)
  self.kind = message.kind({ queue = self, ack = self.lane.ack })
  self:watch()
  return self
end

local function size_of(delivery)
  return delivery.size or #delivery.payload
end

--- Deliveries that are not settled: ready, delayed, or taken.
function Queue:held()
  local lane = self.lane
  return lane.ready() + lane.taken() + self.delayed_count
end

--- What they have in bytes.
function Queue:bytes()
  local _, free = self.lane.room()
  return self.max_bytes - free
end

--- Decides whether the lane must tell of every settlement, because somebody waits for one or has to know of it.
function Queue:watch()
  local alert = self.ack_wait ~= nil
    or self.store ~= nil
    or self.engine.idlers ~= nil
    or self.senders.count > 0
  for subscription in pairs(self.subscriptions) do
    alert = alert or subscription.limited
  end
  self.lane.alert(alert)
end

--- Whether `messages` more of `bytes` in all fit. More than the capacity can ever hold fit when it is empty, so that
-- a large transaction does not wait for ever.
function Queue:fits(messages, bytes)
  local room, free = self.lane.room()
  return room >= messages and free >= bytes or room == self.max_messages
end

--- Takes in a delivery that was published.
function Queue:deliver(delivery)
  self.lane.account(1, size_of(delivery))
  self.lane.append(delivery)
end

--- Sets room aside for a message of `bytes` that is being stored, where a full queue makes others wait.
-- @treturn boolean whether it has to be given back with `unreserve`
function Queue:reserve(bytes)
  if self.overflow ~= "wait" and self.overflow ~= "reject" then
    return false
  end
  self.lane.account(1, bytes)
  return true
end

--- Gives back what `reserve` set aside: the message is about to come, or does not come.
function Queue:unreserve(bytes)
  self.lane.account(-1, -bytes)
end

--- The same, with a delay until a time of the clock.
function Queue:deliver_at(delivery, at)
  self.lane.account(1, size_of(delivery))
  self:hold(delivery, at)
end

--- From now on a store, or none, is told what happens to deliveries.
function Queue:keep_in(store)
  self.store = store
  self.engine:forget_topics()
  self:watch()
end

--- Takes over what a descriptor says of the settings.
function Queue:adopt(descriptor, capacity)
  self.overflow = descriptor.overflow or self.overflow
  self.ack_wait = descriptor.ack_wait or self.ack_wait
  if descriptor.durable ~= nil then
    self.durable = descriptor.durable
  end
  self.max_messages, self.max_bytes = capacity.messages, capacity.bytes
  self.lane.resize(capacity.messages, capacity.bytes)
  self.senders:wake_all()
  self:watch()
end

--- Frees room for a new message by the rule of the queue; false if the new one is what must go.
function Queue:make_room(bytes)
  local lane = self.lane
  while bytes <= self.max_bytes do
    local room, free = lane.room()
    if room >= 1 and free >= bytes then
      return true
    elseif self.overflow == "drop_newest" or lane.ready() == 0 then
      break
    end
    self:discard(lane.shift())
    self.dropped = self.dropped + 1
  end
  self.dropped = self.dropped + 1
  return false
end

--- Forgets a delivery that is in no list any more.
-- @tparam table delivery
-- @tparam[opt] table taker the subscription that had taken it
function Queue:discard(delivery, taker)
  self.lane.account(-1, -size_of(delivery))
  self.engine.due:disarm(delivery)
  if self.store then
    self.store:settle(self.key, delivery.position)
  end
  self:moved(taker)
end

--- Tells who waits for something that changed: publishers for room, takers for the prefetch, who waits for quiet.
-- @tparam[opt] table taker the subscription that has one less
function Queue:moved(taker)
  if self.senders.count > 0 then
    self.senders:wake_one()
    if self.senders.count == 0 then
      self:watch()
    end
  end
  if taker and taker.limited and taker.full.count > 0 then
    taker.full:wake_all() -- now they wait for a message, and whoever gets it, the others know
  end
  if self.engine.idlers then
    self.engine:check_idle()
  end
end

-- The next delivery of one that was taken, as the store is told; nil where nobody is left to get it.
local function revive(self, old, delay)
  local engine, store = self.engine, self.store
  engine.due:disarm(old)
  if not self.routed and self.members == 0 and not self.durable then
    return nil
  elseif store then
    store:requeue(self.key, old.position, old.attempts, delay and engine.clock.time() + delay)
  end
  return message.again(old, self)
end

--- Puts a delivery that was taken back: first in the queue, or in `delay` seconds.
-- @tparam table old whose slot says already that it is over
-- @tparam ?number delay
-- @tparam[opt] table taker the subscription that had taken it
function Queue:put_back(old, delay, taker)
  delay = delay and delay > 0 and delay or nil
  local delivery = revive(self, old, delay)
  if not delivery then
    return self:discard(old, taker)
  elseif delay then
    self:hold(delivery, self.engine.clock.now() + delay)
  else
    self.lane.prepend(delivery)
  end
  self:moved(taker)
end

--- Keeps a delivery, which is accounted for, until a time of the clock.
function Queue:hold(delivery, at)
  self.delayed[delivery] = true
  self.delayed_count = self.delayed_count + 1
  self.engine.due:arm(delivery, at)
end

--- The time has come: for delayed deliveries to be delivered, for those that were taken to be given to somebody else.
-- They come before what waits for the first time, in the order of their times.
-- @tparam table list deliveries in that order
function Queue:due(list)
  local back, takers = {}, {}
  for _, delivery in ipairs(list) do
    if self.delayed[delivery] then
      self.delayed[delivery] = nil
      self.delayed_count = self.delayed_count - 1
      back[#back + 1] = delivery
    elseif delivery.slot > 0 then
      local taker = self.lane.release(delivery, message.LOST)
      local again = revive(self, delivery)
      if again then
        back[#back + 1], takers[#takers + 1] = again, taker
      else
        self:discard(delivery, taker)
      end
    end
  end
  self.lane.insert(back)
  for _, taker in ipairs(takers) do
    self:moved(taker)
  end
end

--- Drops what is ready and what is delayed.
function Queue:clear()
  local lane = self.lane
  while lane.ready() > 0 do
    self:discard(lane.shift())
  end
  local delayed = self.delayed
  self.delayed, self.delayed_count = {}, 0
  for delivery in pairs(delayed) do
    self:discard(delivery)
  end
end

--- How many a subscription has not settled.
function Queue:unsettled_of(taker)
  local count = 0
  for slot = 1, self.lane.taken() do
    local _, who = self.lane.look(slot)
    count = count + (who == taker and 1 or 0)
  end
  return count
end

--- Ends the unsettled deliveries of a subscription; returns them in the order of their positions.
function Queue:let_go(taker, state)
  local lane, list = self.lane, {}
  for slot = lane.taken(), 1, -1 do -- the last one gets the place of what is released: it was looked at already
    local delivery, who = lane.look(slot)
    if who == taker then
      lane.release(delivery, state)
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
  for slot = 1, self.lane.taken() do
    self.lane.look(slot).slot = message.CLOSED
  end
  self.routed = false
  self.senders:wake_all()
end

--- Deliveries that somebody should see to now: ready ones and those that are being handled; none where nobody takes.
function Queue:pending()
  if next(self.subscriptions) == nil then
    return 0
  end
  return self.lane.taken() + (self.members > 0 and self.lane.ready() or 0)
end

return queue
