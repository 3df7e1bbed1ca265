--- Channels: bounded queues between the tasks of one process.
-- @module weir.channel

local errors = require("weir.errors")
local runtime = require("weir.runtime")
local waitlist = require("weir.runtime.waitlist")

local tick, own_waiter, to_deadline = runtime.tick, runtime.own_waiter, runtime.deadline

local Channel = { __name = "weir.channel" }
Channel.__index = Channel

-- Shared by all: not to be modified.
local CLOSED = errors.new("closed", "the channel is closed")
local FULL = errors.new("full", "the channel is full")
local EMPTY = errors.new("empty", "nothing is in the channel")

-- Waits in `list` until `try` succeeds.
local function blocking(self, list, try, timeout, value)
  local deadline = to_deadline(timeout, 3)
  while true do
    local waiter = own_waiter()
    list:add(waiter)
    local _, err = waiter:wait(deadline)
    list:remove(waiter)
    local result, again = try(self, value)
    if result ~= nil or again == CLOSED then
      return result, again
    elseif err then
      return nil, err
    end
  end
end

--- Puts a value in if there is room.
-- @param value anything but nil
-- @treturn boolean true; or nil and an error: "full", "closed"
function Channel:try_send(value)
  if value == nil then
    error("channel:send: a value is expected, not nil", 2)
  elseif self.is_closed then
    return nil, CLOSED
  end
  local count = self.count
  if count == self.size then
    return nil, FULL
  end
  local at = self.head + count
  self[at] = value
  self.count = count + 1
  if self.receivers.count > 0 then
    self.receivers:wake_one()
  end
  return true
end

--- Puts a value in, and waits for room if there is none.
-- @param value anything but nil
-- @tparam[opt] number timeout in seconds
-- @treturn boolean true; or nil and an error: "timeout", "cancelled", "closed"
function Channel:send(value, timeout)
  local cancelled = tick()
  if cancelled then
    return nil, cancelled
  end
  local ok, err = self:try_send(value)
  if ok or err == CLOSED then
    return ok, err
  end
  return blocking(self, self.senders, self.try_send, timeout, value)
end

-- Takes the first value.
local function take(self)
  local head, count = self.head, self.count
  local value = self[head]
  self[head] = nil
  if count == 1 then
    self.head = 1
  else
    self.head = head + 1
  end
  self.count = count - 1
  if self.senders.count > 0 then
    self.senders:wake_one()
  end
  return value
end

--- Takes a value if there is one.
-- @return value; or nil and an error: "empty", "closed" (and nothing is left)
function Channel:try_recv()
  if self.count > 0 then
    return take(self)
  elseif self.is_closed then
    return nil, CLOSED
  end
  return nil, EMPTY
end

--- Takes a value, and waits for one if there is none.
-- @tparam[opt] number timeout in seconds
-- @return value; or nil and an error: "timeout", "cancelled", "closed" (and nothing is left)
function Channel:recv(timeout)
  local cancelled = tick()
  if cancelled then
    return nil, cancelled
  elseif self.count > 0 then
    return take(self)
  elseif self.is_closed then
    return nil, CLOSED
  end
  return blocking(self, self.receivers, self.try_recv, timeout)
end

local function next_value(self)
  return (self:recv())
end

--- Iterates over what comes until the channel is closed, or the task cancelled.
function Channel:each()
  return next_value, self
end

--- Lets nobody send any more. What is in it can still be received.
function Channel:close()
  if not self.is_closed then
    self.is_closed = true
    self.receivers:wake_all()
    self.senders:wake_all()
  end
end

--- For select: receives, if that is possible now.
function Channel:poll()
  if self.count == 0 and not self.is_closed then
    return false
  end
  return true, self:try_recv()
end

function Channel:watch(waiter)
  self.receivers:add(waiter)
end

-- Passes the word on where it was woken and something is left.
function Channel:unwatch(waiter)
  if self.receivers:remove(waiter) and self.count > 0 then
    self.receivers:wake_one()
  end
end

local Sending = { __name = "weir.channel.sending" }
Sending.__index = Sending

--- For select: what sends a value when there is room. Its result there is that of `send`.
function Channel:sending(value)
  if value == nil then
    error("channel:sending: a value is expected, not nil", 2)
  end
  return setmetatable({ channel = self, value = value }, Sending)
end

function Sending:poll()
  local channel = self.channel
  if channel.count == channel.size and not channel.is_closed then
    return false
  end
  return true, channel:try_send(self.value)
end

function Sending:watch(waiter)
  self.channel.senders:add(waiter)
end

function Sending:unwatch(waiter)
  local channel = self.channel
  if channel.senders:remove(waiter) and channel.count < channel.size then
    channel.senders:wake_one()
  end
end

function Channel:__len()
  return self.count
end

Channel.__close = Channel.close

function Channel:__tostring()
  return ("weir.channel(%d of %d%s)"):format(self.count, self.size, self.is_closed and ", closed" or "")
end

--- Numbers of the channel.
-- @treturn table `queued`, `size`, `closed`
function Channel:stats()
  return { queued = self.count, size = self.size, closed = self.is_closed }
end

--- Makes a channel.
-- @tparam[opt=1] number size how many values it holds, at least 1
return function(size)
  if size == nil then
    size = 1
  elseif type(size) ~= "number" or size < 1 or size ~= math.floor(size) then
    error("weir.channel: the size must be a whole number, at least 1, not " .. tostring(size), 2)
  end
  return setmetatable({
    size = size,
    head = 1,
    count = 0,
    is_closed = false,
    receivers = waitlist.new(),
    senders = waitlist.new(),
  }, Channel)
end
