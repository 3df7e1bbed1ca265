--- What the memory broker delivers: one table for each delivery, which is the message that the program sees.
--
-- Its fields are those of the contract, and four of the broker's own: `queue`, where it waits or was taken from; `slot`
-- (its place among the unsettled of the queue; 0 while it waits; below that it is over, see `OVER`), `size` (bytes that
-- it counts for, where that is not the length of the payload), and those of the timer heap.
--
-- What deliveries have in common they inherit: from their queue, and those of the fast path of publishing from their
-- destination. So most need four fields of their own: payload, position, time and slot. That is what makes them cheap.
-- @module weir.broker.memory.message

local contract = require("weir.broker.contract")
local errors = require("weir.errors")

local message = {}

local Message = {}

--- Of messages without headers. Shared, so never to be changed.
message.NO_HEADERS = setmetatable({}, {
  __newindex = function()
    error("headers are shared and must not be changed", 2)
  end,
})

local NO_FIELDS = setmetatable({}, getmetatable(message.NO_HEADERS))
Message.fields = NO_FIELDS
Message.headers = message.NO_HEADERS
Message.attempts = 1
Message.slot = 0
Message.size = false

--- `slot` of a delivery that cannot be settled (any more).
message.SETTLED, message.LOST, message.CLOSED, message.COPY = -1, -2, -3, -4

--- Why, by `slot`.
local OVER = {
  [0] = errors.new("settled", "the message waits again; settle the delivery that comes next"),
  [message.SETTLED] = errors.new("settled", "the message was settled already"),
  [message.LOST] = errors.new("lost", "the message was given back and may be somebody else's by now"),
  [message.CLOSED] = errors.new("closed", "the subscription or the broker of the message was closed"),
  [message.COPY] = errors.new("unsupported", "a reply, or what was only looked at, cannot be settled"),
}

message.OVER = OVER

local setmetatable, type = setmetatable, type

--- Bytes that a message counts for: payload and headers. Raises for headers that are none.
-- @tparam string payload
-- @tparam table headers
-- @treturn number
function message.size(payload, headers)
  local size = #payload
  for name, value in pairs(headers) do
    if type(name) ~= "string" or type(value) ~= "string" then
      error(("headers are names with strings, not [%s] = %s"):format(tostring(name), type(value)), 0)
    end
    size = size + #name + #value
  end
  return size
end

local Base = { __index = Message }

local function to_string(self)
  return ("weir.memory.message('%s', %d bytes)"):format(self.destination, #self.payload)
end

--- Makes the metatable of deliveries that have some fields in common.
-- @tparam table fields
-- @treturn table
function message.kind(fields)
  setmetatable(fields, Base)
  fields.headers, fields.attempts, fields.size = Message.headers, 1, false -- found in one step
  return { __name = "weir.memory.message", __index = fields, __tostring = to_string }
end

local Loose

--- Makes a delivery. (Most are made where they are published, for speed.)
-- @tparam ?table queue
-- @treturn table
function message.new(queue, payload, headers, size, destination, position, time, attempts)
  return setmetatable({
    payload = payload,
    headers = headers,
    destination = destination,
    position = position,
    time = time,
    attempts = attempts,
    slot = 0,
    size = size,
    key = headers["partition-key"],
    reply_to = headers["reply-to"],
  }, queue and queue.kind or Loose)
end

--- Makes one of a kind that knows its queue and its destination.
function message.with_headers(kind, payload, headers, size, position, time)
  return setmetatable({
    payload = payload,
    headers = headers,
    position = position,
    time = time,
    slot = 0,
    size = size,
    key = headers["partition-key"],
    reply_to = headers["reply-to"],
  }, kind)
end

--- The next delivery of a message that comes back: the old one is over and stays so.
-- @tparam table old
-- @tparam table queue
-- @treturn table
function message.again(old, queue)
  return message.new(
    queue,
    old.payload,
    old.headers,
    old.size or #old.payload,
    old.destination,
    old.position,
    old.time,
    old.attempts + 1
  )
end

--- A copy to look at, without settlement.
function message.copy(old)
  local copy = message.again(old, nil)
  copy.attempts, copy.slot = old.attempts, message.COPY
  return copy
end

--- Settles the message: it is done with. (That of deliveries is the `ack` of their lane.)
-- @treturn boolean true; or nil and an error: "settled", "lost", "closed", "unsupported"
function Message:ack()
  return nil, OVER[self.slot]
end

--- Gives the message back. It comes first in its queue again, or after `delay` seconds; with `requeue = false` it is
-- dropped.
-- @tparam[opt] table options `requeue` (true), `delay`
-- @treturn boolean true; or nil and an error: "settled", "lost", "closed", "unsupported"
function Message:nack(options)
  local requeue, delay = contract.nack_options(options)
  local slot = self.slot
  if slot <= 0 then
    return nil, OVER[slot]
  end
  local queue = self.queue
  local taker = queue.lane.release(self, message.SETTLED)
  if requeue then
    queue:put_back(self, delay, taker)
  else
    queue:discard(self, taker)
  end
  return true
end

--- Asks for more time: `ack_wait` starts again. Without `ack_wait` there is no hurry, and nothing to do.
-- @treturn boolean true; or nil and an error: "settled", "lost", "closed", "unsupported"
function Message:extend()
  local slot = self.slot
  if slot <= 0 then
    return nil, OVER[slot]
  end
  local queue = self.queue
  if queue.ack_wait then
    local engine = queue.engine
    engine.due:arm(self, engine.clock.now() + queue.ack_wait)
  end
  return true
end

Loose = message.kind({})

return message
