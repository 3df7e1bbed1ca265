--- A message of a durable stream.
--
-- The stream itself knows no settlement: the subscription remembers what is unsettled, and the consumer's position is
-- the end of what is settled without a gap.
-- @module weir.broker.durable.message

local errors = require("weir.errors")

local Message = { __name = "weir.broker.durable.message" }
Message.__index = Message

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
  local ok, err = settle(self)
  if not ok then
    return nil, err
  elseif options and options.requeue == false then
    self.state = "done"
    self.subscription:settled(self)
  else
    self.state = "waiting"
    self.subscription:requeue(self, options and options.delay or 0)
  end
  return true
end

--- Nobody else gets it as long as the subscription is open, so there is nothing to extend.
function Message:extend()
  return settle(self)
end

function Message:__tostring()
  return ("%s(%s at %s, %s)"):format(Message.__name, self.destination, self.position, self.state)
end

return Message
