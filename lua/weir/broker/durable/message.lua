--- A message of a durable stream.
--
-- The stream itself knows no settlement: the subscription remembers what is unsettled, and the consumer's position is
-- the end of what is settled without a gap.
-- @module weir.broker.durable.message

local contract = require("weir.broker.contract")
local errors = require("weir.errors")

local Message = { __name = "weir.broker.durable.message" }
Message.__index = Message

-- The broker has no fields of its own.
Message.fields = setmetatable({}, {
  __newindex = function()
    error("the fields of messages are shared and must not be changed", 2)
  end,
})

local SETTLED = errors.new("settled", "the message is settled already")

local function settle(self)
  if self.state ~= "taken" then
    return nil, self.state == "lost" and self.subscription.closed_error or SETTLED
  end
  return true
end

--- The message is done.
function Message:ack()
  local ok, err = settle(self)
  if ok then
    self.state = "done"
    self.subscription:settled(self)
  end
  return ok, err
end

--- The message comes again, or is dropped.
-- @tparam[opt] table options `requeue` (true when left out), `delay` in seconds
function Message:nack(options)
  local requeue, delay = contract.nack_options(options)
  local ok, err = settle(self)
  if not ok then
    return nil, err
  elseif not requeue then
    self.state = "done"
    self.subscription:settled(self)
  else
    self.state = "returned"
    self.subscription:requeue(self, delay or 0)
  end
  return true
end

--- Nobody else gets it as long as the subscription is open, so there is nothing to extend.
function Message:extend()
  return settle(self)
end

--- The next delivery of a message that comes again: the old one is over, and stays so.
-- @treturn message
function Message:successor()
  return setmetatable({
    destination = self.destination,
    position = self.position,
    after = self.after,
    index = self.index,
    state = "waiting",
    subscription = self.subscription,
    attempts = self.attempts,
    payload = self.payload,
    headers = self.headers,
    key = self.key,
    reply_to = self.reply_to,
  }, Message)
end

function Message:__tostring()
  return ("%s(%s at %s, %s)"):format(Message.__name, self.destination, self.position, self.state)
end

return Message
