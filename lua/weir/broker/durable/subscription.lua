--- A consumer of one durable stream: reads on from its position, and saves that as messages are settled.
-- @module weir.broker.durable.subscription

local checkpoint = require("weir.broker.durable.checkpoint")
local envelope = require("weir.broker.durable.envelope")
local errors = require("weir.errors")
local Message = require("weir.broker.durable.message")
local runtime = require("weir.runtime")
local tasks = require("weir.task")
local waitlist = require("weir.runtime.waitlist")

local M = {}

local Subscription = { __name = "weir.broker.durable.subscription" }
Subscription.__index = Subscription

local PAUSED = errors.new("paused", "the subscription is paused")
local STOPPED = errors.new("stopped", "the subscription was stopped")
local CLOSED = errors.new("closed", "the subscription is closed")

-- Seconds that a batch waits for more.
local LINGER = 0.01

-- --- reading ------------------------------------------------------------------------------------

-- Wakes as many as there are messages for.
local function announce(self)
  self.arrivals:wake_one()
end

local function push(self, item, position, next_position)
  local settled, attempts = self.checkpoint:recall(position)
  local message = setmetatable({
    destination = self.descriptor.name,
    position = position,
    after = next_position,
    state = "queued",
    subscription = self,
    attempts = attempts,
  }, Message)
  self.open_last = self.open_last + 1
  self.open[self.open_last] = message
  message.index = self.open_last
  self.checkpoint.window = self.open_last - self.open_first + 1
  if attempts > 0 then
    self.checkpoint.attempts[position] = attempts
  end
  if settled then
    message.state = "done" -- before this process
    return self:settled(message)
  end
  message.payload, message.headers = envelope.decode(item)
  message.key = message.headers["partition-key"]
  message.reply_to = message.headers["reply-to"]
  self.ready_last = self.ready_last + 1
  self.ready[self.ready_last] = message
  announce(self)
end

local function fail(self, err)
  self.failure = err
  self.arrivals:wake_all()
end

-- How many messages were read and are not settled.
local function unsettled(self)
  return self.open_last - self.open_first + 1
end

local function read(self, generation)
  local reader = self.reader
  while self.generation == generation do
    if unsettled(self) >= self.descriptor.prefetch then
      local waiter = runtime.own_waiter()
      self.room:add(waiter)
      local _, err = waiter:wait(nil)
      self.room:remove(waiter)
      if err then
        return
      end
    else
      local position = reader.offset
      local item, err = reader:next_item()
      if self.generation ~= generation then
        return
      elseif item ~= nil then
        push(self, item, position, reader.offset)
      elseif err then
        return err.code ~= "cancelled" and fail(self, err)
      else
        return fail(self, errors.new("stream_closed", ("the stream %s is closed"):format(self.descriptor.name)))
      end
    end
  end
end

local function start(self, position)
  self.generation = self.generation + 1
  self.reader = self.stream:read({ offset = position, live = self.descriptor.live })
  self.task = tasks.spawn(read, self, self.generation)
end

local function stop_reading(self)
  self.generation = self.generation + 1
  if self.reader then
    self.reader:close()
    self.task:cancel()
    self.reader = nil
  end
end

-- --- pulling ------------------------------------------------------------------------------------

local function take(self)
  local first = self.ready_first
  if first > self.ready_last then
    return nil
  end
  local message = self.ready[first]
  self.ready[first] = nil
  if first == self.ready_last then
    self.ready_first, self.ready_last = 1, 0
  else
    self.ready_first = first + 1
  end
  message.state = "taken"
  message.attempts = message.attempts + 1
  if self.ready_last >= self.ready_first and self.arrivals.count > 0 then
    announce(self)
  end
  return message
end

-- Why no more messages come, or none for now.
local function ended(self)
  if self.paused and self.state == "open" then
    return PAUSED
  elseif self.state ~= "open" then
    return self.state == "stopped" and STOPPED or self.closed_error
  end
  return self.ready_first > self.ready_last and self.failure or nil
end

local function pull(self, deadline)
  local err = runtime.tick()
  while not err do
    err = ended(self)
    local message = not err and take(self)
    if message then
      return message
    elseif err then
      return nil, err
    end
    local waiter = runtime.own_waiter()
    self.arrivals:add(waiter)
    local _, failure = waiter:wait(deadline)
    local woken = self.arrivals:remove(waiter)
    if failure then
      if woken and self.ready_first <= self.ready_last then
        announce(self)
      end
      err = failure
    end
  end
  return nil, err
end

--- The next message: see the contract.
function Subscription:next(timeout)
  return pull(self, runtime.deadline(timeout, 2))
end

--- Several messages at once: see the contract.
function Subscription:next_batch(max, linger, timeout)
  if type(max) ~= "number" or max < 1 or max % 1 ~= 0 and max ~= math.huge then
    error("subscription:next_batch: the first argument is how many messages at most, not " .. tostring(max), 2)
  end
  local first, err = pull(self, runtime.deadline(timeout, 2))
  if not first then
    return nil, err
  end
  local batch, until_time = { first }, runtime.now() + (linger or LINGER)
  while #batch < max do
    local message = ended(self) == nil and take(self) or nil
    if not message and runtime.now() < until_time then
      message = pull(self, until_time)
    end
    if not message then
      break
    end
    batch[#batch + 1] = message
  end
  return batch
end

-- --- settling -----------------------------------------------------------------------------------

-- The position moves over everything at the front that is settled.
local function advance(self)
  local first, moved = self.open_first, nil
  while first <= self.open_last and self.open[first].state == "done" do
    moved = self.open[first].after
    local position = self.open[first].position
    self.checkpoint.attempts[position], self.checkpoint.settled[position] = nil, nil
    self.open[first] = nil
    first = first + 1
  end
  self.open_first = first
  if first > self.open_last then
    self.open_first, self.open_last = 1, 0
  end
  self.checkpoint.window = self.open_last - self.open_first + 1
  if moved then
    self.checkpoint.position = moved
    self.checkpoint:changed()
    self.room:wake_all()
  end
end

--- Called by a message that is done.
function Subscription:settled(message)
  if self.open[self.open_first] == message then
    advance(self)
  else
    self.checkpoint.settled[message.position], self.checkpoint.attempts[message.position] = true, nil
    self.checkpoint:changed()
  end
end

local function ready_again(self, message)
  self.delayed[message] = nil
  if message.state ~= "waiting" then
    return
  end
  message.state = "queued"
  self.ready_last = self.ready_last + 1
  self.ready[self.ready_last] = message
  announce(self)
end

--- Called by a message that is to come again. It stays unsettled meanwhile, so it also comes again when this process
-- ends; how often it came is saved.
function Subscription:requeue(message, delay)
  message = message:successor()
  self.open[message.index] = message
  self.checkpoint.attempts[message.position] = message.attempts
  self.checkpoint:changed()
  if delay <= 0 then
    return ready_again(self, message)
  end
  local clock = self.broker.clock
  self.delayed[message] = clock.timer(clock.now() + delay, function()
    ready_again(self, message)
  end)
end

-- --- the rest of the contract -------------------------------------------------------------------

-- Asks the server whether it has this position; the error if not.
local function probe(self, position, timeout)
  local ok, reader = pcall(self.stream.read, self.stream, { offset = position })
  if not ok then
    return errors.new("invalid_offset", (tostring(reader):gsub("^[^:]+:%d+: ", "")))
  end
  local _, err = reader:next(timeout or 30)
  reader:close()
  return err
end

--- Goes to a position, given by a message's `position`, "start" or "end". What was read and not settled is let go:
-- it is delivered again if it is behind the new position.
-- @tparam string position
-- @tparam[opt=30] number timeout in seconds
-- @treturn boolean true; or nil and an error: "closed", "stopped", "invalid_offset"; the subscription stays where it is
-- then
function Subscription:seek(position, timeout)
  if type(position) ~= "string" then
    error("subscription:seek: a position is expected, such as message.position, \"start\" or \"end\"", 2)
  elseif self.state ~= "open" then
    return nil, ended(self)
  end
  position = position == "start" and "-1" or position
  if position == "end" then
    local head, failure = self.stream:head({ timeout = timeout })
    if not head then
      return nil, failure
    end
    position = head.offset
  end
  local err = probe(self, position, timeout)
  err = self.state ~= "open" and ended(self) or err -- meanwhile
  if err then
    return nil, err
  end
  stop_reading(self)
  self:forget()
  self.failure = nil
  self.checkpoint:reset(position)
  start(self, position)
  return true
end

-- Lets go of everything that is not settled.
function Subscription:forget()
  for _, timer in pairs(self.delayed) do
    timer:cancel()
  end
  for i = self.open_first, self.open_last do
    local message = self.open[i]
    if message.state ~= "done" then
      message.state = "lost"
    end
  end
  self.open, self.open_first, self.open_last = {}, 1, 0
  self.ready, self.ready_first, self.ready_last = {}, 1, 0
  self.delayed = {}
end

--- Copies are published to the stream itself.
function Subscription:address()
  return self.descriptor.name
end

--- No more messages; what was taken can still be settled.
function Subscription:stop()
  if self.state == "open" then
    self.state = "stopped"
    stop_reading(self)
    self.arrivals:wake_all()
  end
end

--- No messages until `resume`: `next` gives "paused". What is read meanwhile waits, up to `prefetch`.
-- @treturn boolean true; or nil and an error: "stopped", "closed"
function Subscription:pause()
  if self.state ~= "open" then
    return nil, ended(self)
  end
  self.paused = true
  self.arrivals:wake_all()
  return true
end

--- Messages again after `pause`.
-- @treturn boolean true; or nil and an error: "stopped", "closed"
function Subscription:resume()
  if self.state ~= "open" then
    return nil, ended(self)
  end
  self.paused = false
  return true
end

--- Stops, and waits until the position is saved.
function Subscription:close(timeout)
  if self.state == "closed" then
    return true
  end
  self:stop()
  self.state = "closed"
  self:forget()
  local ok, err = self.checkpoint:flush(timeout)
  self.broker:forget(self)
  return ok, err
end

--- Numbers: `queued`, `unsettled` (taken, not settled), `delayed`, `position` (what is settled up to there).
function Subscription:stats()
  local queued, delayed, taken = self.ready_last - self.ready_first + 1, 0, 0
  for _ in pairs(self.delayed) do
    delayed = delayed + 1
  end
  for i = self.open_first, self.open_last do
    taken = taken + (self.open[i].state == "taken" and 1 or 0)
  end
  return { queued = queued, unsettled = taken, delayed = delayed, position = self.checkpoint.position }
end

function Subscription:__tostring()
  return ("%s(%s, %s)"):format(Subscription.__name, self.descriptor.name, self.state)
end

--- Opens a subscription.
-- @tparam table broker
-- @tparam table descriptor
-- @tparam string key of its position
-- @treturn subscription; or nil and an error
function M.open(broker, descriptor, key, timeout)
  local stream, err = broker:stream(descriptor.name, timeout)
  if not stream then
    return nil, err
  end
  local point
  point, err = checkpoint.open(broker.checkpoints, key, function(failure)
    broker:note(failure)
  end)
  if not point then
    return nil, err
  end
  local position = point.position
  if not position then
    position = descriptor.from == "start" and "-1" or descriptor.from
    if position == "now" then
      -- What is published from here on counts, also when nothing was settled before the process ends.
      local head
      head, err = stream:head({ timeout = timeout })
      if not head then
        return nil, err
      end
      position = head.offset
    end
    point.position = position
    point:changed()
  end
  local self = setmetatable({
    broker = broker,
    descriptor = descriptor,
    key = key,
    stream = stream,
    checkpoint = point,
    state = "open",
    paused = false,
    generation = 0,
    open = {}, -- what was read and is not settled up to there, in order
    open_first = 1,
    open_last = 0,
    ready = {}, -- what can be taken
    ready_first = 1,
    ready_last = 0,
    delayed = {}, -- message to timer
    arrivals = waitlist.new(),
    room = waitlist.new(),
    closed_error = CLOSED,
  }, Subscription)
  start(self, position)
  return self
end

return M
