--- Subscriptions of the NATS broker: what all have in common, and those of core subjects.
--
-- A subscription has `take()`, which returns the next message or nil without waiting, and `prepare()`, which
-- is called before it waits and returns a time at which to look again, or nil.
-- @module weir.broker.nats.subscription

local contract = require("weir.broker.contract")
local errors = require("weir.broker.nats.errors")
local runtime = require("weir.runtime")
local waitlist = require("weir.runtime.waitlist")

local M = {}

local LINGER = 0.01

local PAUSED = errors.new("paused")

-- --- messages -----------------------------------------------------------------------------------

local Message = { __name = "weir.nats.message" }

local function unsupported()
  return nil, contract.unsupported("nats", "acknowledgement of messages of core subjects: use nats.jetstream")
end

local methods = { ack = unsupported, nack = unsupported, extend = unsupported }
Message.__index = methods

-- Read seldom, and nil in most messages: looked up when asked for.
setmetatable(methods, {
  __index = function(_, name)
    if name == "fields" then
      return {}
    end
  end,
})

--- The metatable of messages that cannot be settled.
M.Message = Message

-- --- what all subscriptions have ----------------------------------------------------------------

local Base = {}
M.Base = Base

--- Fields of a subscription.
function M.init(self, connection, descriptor)
  self.connection = connection
  self.descriptor = descriptor
  self.name = descriptor.name
  self.waiting = waitlist.new()
  self.ended = nil -- the error that ended it, or PAUSED
  self.taken = 0
  return self
end

function Base:ready()
  self.waiting:wake_one()
end

function Base.look_for_loss()
  return false
end

--- The error that ended it for good, if one did.
function Base:is_over()
  return self.ended ~= PAUSED and self.ended or nil
end

--- Ends it for good.
function Base:finish(err)
  if not self:is_over() then
    self.ended = err
  end
  self.waiting:wake_all()
end

function Base:connection_ended(err)
  self.native:close()
  self:finish(err)
end

function Base.reconnected() end
function Base.prepare() end

-- Waits for something to take; an error when that is in vain.
local function await(self, deadline)
  local again = self:prepare()
  local waiting = self.waiting
  local waiter = runtime.own_waiter()
  waiting:add(waiter)
  if self.native:arm() then
    waiting:remove(waiter)
    return
  end
  local first = again and (not deadline or again < deadline) and again or deadline
  local _, err = waiter:wait(first)
  local woken = waiting:remove(waiter)
  if not err then
    return
  end
  if err.code == "timeout" and first ~= deadline then
    return
  elseif woken then
    waiting:wake_one()
  end
  return err
end

-- Somebody who waits takes the next, if there is one.
local function pass_on(self)
  if self.waiting.count > 0 and self.native:arm() then
    self.waiting:wake_one()
  end
end

--- The next message.
-- @tparam[opt] number timeout in seconds
-- @return a message; or nil and an error: "timeout", "stopped", "closed", "cancelled", or what ended it
function Base:next(timeout)
  local busy = runtime.tick()
  if busy then
    return nil, busy
  elseif self.ended then
    return nil, self.ended
  end
  local message = self:take()
  if message then
    return message
  end
  local deadline = runtime.deadline(timeout, 2)
  while true do
    if self.ended then
      return nil, self.ended
    end
    local err = await(self, deadline)
    if self.ended then
      return nil, self.ended
    end
    message = self:take()
    if message then
      pass_on(self)
      return message
    elseif err then
      return nil, err
    end
  end
end

--- The next messages, at least one.
-- @tparam number max how many at most
-- @tparam[opt=0.01] number linger seconds to wait for more after the first
-- @tparam[opt] number timeout seconds to wait for the first
-- @return a list; or nil and an error
function Base:next_batch(max, linger, timeout)
  if type(max) ~= "number" or max < 1 then
    error("next_batch: the size must be at least 1", 2)
  end
  self.wanted = max
  local first, err = self:next(timeout)
  if not first then
    self.wanted = nil
    return nil, err
  end
  local list = { first }
  local deadline = runtime.now() + (linger or LINGER)
  local count = self:take_many(list, 1, max)
  while count < max and not self.ended and not await(self, deadline) do
    count = self:take_many(list, count, max)
  end
  self.wanted = nil
  return list
end

--- Appends what is there to a list of `count`, until it has `max`; returns how many it has then.
function Base:take_many(list, count, max)
  while count < max do
    local message = self:take()
    if not message then
      break
    end
    count = count + 1
    list[count] = message
  end
  return count
end

--- No more messages: who waits in `next` gets "stopped".
function Base:stop()
  if not self:is_over() then
    self:finish(errors.new("stopped"))
  end
  return true
end

--- No messages until `resume`: `next` gives "paused", also to who waits in it. What the server sends is kept, up to the
-- bounds of the subscription.
-- @treturn boolean true; or nil and the error that ended it
function Base:pause()
  if self:is_over() then
    return nil, self.ended
  end
  self.ended = PAUSED
  self.waiting:wake_all()
  return true
end

--- Messages again after `pause`.
-- @treturn boolean true; or nil and the error that ended it
function Base:resume()
  if self:is_over() then
    return nil, self.ended
  end
  self.ended = nil
  return true
end

--- Stops, and leaves the server.
-- @tparam[opt] number timeout in seconds, for the server to take back what was not settled
function Base:close(timeout)
  return self:close_until(runtime.deadline(timeout, 2))
end

--- The same, with a deadline.
function Base:close_until(deadline)
  -- First, so that nobody asks for more while it leaves.
  self.ended = nil
  self:finish(errors.new("closed"))
  if self.id then
    self.connection:unsubscribe(self.id)
    self.id = nil
    self:release(deadline)
    self.native:close()
  end
  return true
end

function Base.release() end

--- A descriptor without wildcards is the place for copies.
function Base:address()
  return not self.descriptor.pattern and self.name or nil
end

function Base.seek()
  return nil, contract.unsupported("nats", "positions in this subscription")
end

function Base:__tostring()
  local state = self.ended and self.ended.code or "open"
  return ("weir.nats.subscription(%s, %s)"):format(self.name, state)
end

--- Makes a class of subscriptions.
function M.class()
  local class = {}
  for name, value in pairs(Base) do
    class[name] = value
  end
  class.__index = class
  class.__name = "weir.nats.subscription"
  class.__close = function(self) -- the second argument is an error
    self:close()
  end
  return class
end

-- --- core subjects ------------------------------------------------------------------------------

local Core = M.class()

function Core:take()
  local message, report = self.native:pop()
  while report do -- somebody published a request with a reply that leads here, and nobody responds
    message, report = self.native:pop()
  end
  if message then
    self.taken = self.taken + 1
    return message
  elseif self.behind then
    self.behind = false
    self.connection:caught_up(self)
  end
end

-- Nothing is to be noted of each message, so one call of C takes all.
function Core:take_many(list, count, max)
  local all = self.native:pop_many(list, count, max)
  self.taken = self.taken + all - count
  return all
end

-- Whether messages were dropped since the last time.
function Core:look_for_loss()
  local _, _, dropped = self.native:stats()
  local more = dropped > (self.dropped or 0)
  self.dropped = dropped
  self.behind = self.behind or more
  return more
end

local next_slowly, tick = Core.next, runtime.tick

--- The next message: see `Base:next`. What is there already is taken the short way.
function Core:next(timeout)
  if not tick() and not self.ended then
    local message = self.native:pop()
    if message then
      self.taken = self.taken + 1
      return message
    end
  end
  return next_slowly(self, timeout)
end

--- Numbers: messages and bytes that wait, taken, dropped since the buffer was full.
function Core:stats()
  local queued, bytes, dropped = self.native:stats()
  return { queued = queued, queued_bytes = bytes, unsettled = 0, taken = self.taken, dropped = dropped }
end

--- Subscribes to a core subject.
function M.open(connection, descriptor)
  local self = M.init(setmetatable({ subject = descriptor.name }, Core), connection, descriptor)
  local native, id = connection:subscribe(self, {
    group = descriptor.group,
    messages = descriptor.messages or connection.settings.messages,
    bytes = descriptor.bytes or connection.settings.bytes,
    class = Message,
  })
  if not native then
    return nil, id
  end
  self.native, self.id = native, id
  return self
end

return M
