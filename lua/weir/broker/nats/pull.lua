--- Subscriptions of JetStream: pull consumers, which get what is asked for.
--
-- What is asked for grows and shrinks with what the application takes: at most `batch` messages, and no more
-- than it can handle in half of `ack_wait`, so that none of those that wait here is given to somebody else.
-- @module weir.broker.nats.pull

local contract = require("weir.broker.contract")
local errors = require("weir.broker.nats.errors")
local jetstream = require("weir.broker.nats.jetstream")
local runtime = require("weir.runtime")
local subscription = require("weir.broker.nats.subscription")
local tasks = require("weir.task")

local M = {}

-- Messages, and bytes of them, that may wait here: the server sends no more than was asked for, so it is not reached.
local LIMIT = 0x7fffffff
-- Messages of one request at the beginning.
local FIRST = 2
-- Seconds that the end of a request may be late.
local GRACE = 2
-- Seconds for a request to the API while connected again, and between attempts.
local PATIENCE, PAUSE = 5, 0.5

local ACK, NAK, TERM, PROGRESS = "+ACK", "-NAK", "+TERM", "+WPI"

-- --- messages -----------------------------------------------------------------------------------

local methods = {}

-- Tells the server, and waits until it has taken note where the descriptor says so.
local function tell(self, token, how)
  if not self.descriptor.confirm_ack then
    return self.connection:publish(token, how)
  end
  local deadline = runtime.now() + self.connection.settings.publish_timeout
  local answer, err = self.connection:request(token, how, nil, deadline)
  if answer then
    return true
  elseif err.code == "no_responders" then
    return nil, errors.new("lost", "the consumer is gone")
  end
  return nil, err
end

local function settle(message, how)
  local token = message.token
  if not token then
    return nil, errors.new("settled")
  end
  local self = message.subscription
  if self.released then
    return nil, errors.new(self.connection.closing and "closed" or "lost")
  end
  message.token = nil
  local done, err = tell(self, token, how)
  if not done then
    message.token = token
    return nil, err
  end
  if self.unsettled[message.position] == message then
    self.unsettled[message.position] = nil
    self.unsettled_count = self.unsettled_count - 1
  end
  return true
end

--- It is done.
function methods:ack()
  return settle(self, ACK)
end

--- It is to come again (`requeue`, the default), not before `delay` seconds; or never again.
function methods:nack(opts)
  local requeue, delay = contract.nack_options(opts)
  if not requeue then
    return settle(self, TERM)
  elseif delay and delay > 0 then
    return settle(self, ("%s {\"delay\": %d}"):format(NAK, math.ceil(delay * 1e9)))
  end
  return settle(self, NAK)
end

--- It is still being handled: the time of `ack_wait` begins anew.
function methods:extend()
  if not self.token then
    return nil, errors.new("settled")
  elseif self.subscription.released then
    return nil, errors.new(self.subscription.connection.closing and "closed" or "lost")
  end
  return self.subscription.connection:publish(self.token, PROGRESS)
end

-- The broker's own fields, from the subject for acknowledgements.
local function fields(message)
  local self = message.subscription
  return {
    stream = self.stream,
    consumer = self.consumer,
    sequence = message.position,
    consumer_sequence = message.consumed,
    deliveries = message.attempts,
  }
end

-- The metatable of the messages of one subscription.
local function message_class(self)
  local inherited = setmetatable({
    subscription = self,
    ack = methods.ack,
    nack = methods.nack,
    extend = methods.extend,
  }, {
    __index = function(_, name)
      return name == "fields" and {} or nil
    end,
  })
  return {
    __name = "weir.nats.message",
    __index = function(message, name)
      if name == "fields" then
        local found = fields(message)
        rawset(message, "fields", found)
        return found
      end
      return inherited[name]
    end,
  }
end

-- --- subscriptions ------------------------------------------------------------------------------

local Pull = subscription.class()

-- Sends a request for `count` messages.
local function ask(self, count)
  self.asked = self.asked + 1
  local body = ("{\"batch\":%d,\"expires\":%d}"):format(count, self.expires_ns)
  local sent = self.connection:publish(self.next_subject, body, self.inbox .. "." .. self.asked)
  if sent then
    local request = { id = tostring(self.asked), left = count, late = runtime.now() + self.expires + GRACE }
    self.requests[#self.requests + 1] = request
    self.coming = self.coming + count
  end
  return sent
end

local function drop_request(self, index)
  self.coming = self.coming - self.requests[index].left
  table.remove(self.requests, index)
end

-- How many messages may be on their way or wait here.
local function window(self)
  local now = runtime.now()
  local taken = self.taken - self.measured
  if taken > 0 then
    local each = (now - self.measured_at) / taken
    local room = self.ack_wait / 2 / each
    self.size = math.max(1, math.floor(math.min(self.size * 2, self.batch, room)))
    self.measured, self.measured_at = self.taken, now
  end
  return self.wanted and math.max(self.size, math.min(self.wanted, self.batch)) or self.size
end

-- Asks for more when half of what may be on its way has come and was taken.
local function refill(self)
  if self.restoring or not self.connection.up or (self.hold and runtime.now() < self.hold) then
    return
  end
  self.hold = nil
  local size = window(self)
  if self.coming <= size / 2 then
    ask(self, math.max(1, size - self.coming))
    self.low = math.floor(size / 2)
  end
end

-- The server does not do what it was asked for: it is not asked again at once.
local function refused(self, why)
  local most = tonumber(why:match("^Exceeded MaxRequestBatch of (%d+)"))
  if why:find("Consumer Deleted", 1, true) then
    self:finish(errors.new("consumer_deleted", self.consumer))
  elseif most and most >= 1 then
    self.batch = math.min(self.batch, most)
    self.size = math.min(self.size, most)
  elseif why:find("^Exceeded MaxRequest") or why:find("push based", 1, true) or why:find("^Bad Request") then
    self:finish(errors.new("refused_request", why))
  else
    self.hold, self.refused = runtime.now() + PAUSE, why
  end
end

-- The server says something about a request: usually that its time is over.
local function on_report(self, report)
  if report == "no_responders" then
    return self:restore()
  end
  local id = report.destination:sub(#self.inbox + 2)
  local status = report.headers.status
  for i, request in ipairs(self.requests) do
    if request.id == id then
      if status ~= "100" then
        drop_request(self, i)
      end
      break
    end
  end
  if status ~= "100" and status ~= "404" and status ~= "408" then
    refused(self, report.headers.description or status or "")
  end
end

function Pull:take()
  while true do
    local message, report = self.native:pop()
    if message then
      self.taken = self.taken + 1
      local request = self.requests[1]
      if request then
        request.left = request.left - 1
        self.coming = self.coming - 1
        if request.left == 0 then
          table.remove(self.requests, 1)
        end
        if self.coming <= self.low then
          refill(self)
        end
      end
      local position = message.position
      local unsettled = self.unsettled
      if self.settles then
        if not unsettled[position] then
          self.unsettled_count = self.unsettled_count + 1
        end
        unsettled[position] = message
      end
      self.last = position
      return message
    elseif not report then
      return nil
    end
    on_report(self, report)
  end
end

function Pull:prepare()
  local now = runtime.now()
  while self.requests[1] and self.requests[1].late < now do
    drop_request(self, 1)
  end
  if self.coming == 0 then
    -- Whoever waits is not slow: time spent waiting says nothing about handling.
    self.measured_at = math.max(self.measured_at, now - math.min(self.ack_wait, 1000) / 1000)
    refill(self)
  end
  return self.requests[1] and self.requests[1].late or self.hold or now + 1
end

-- A new inbox: what was asked for before goes nowhere.
local function open_inbox(self)
  if self.id then
    self.connection:unsubscribe(self.id)
    self.native:close()
  end
  self.inbox = self.connection:new_inbox()
  self.subject = self.inbox .. ".*"
  self.requests, self.coming, self.low = {}, 0, 0
  local native, id = self.connection:subscribe(self, {
    messages = LIMIT,
    bytes = LIMIT,
    jetstream = true,
    class = message_class(self),
  })
  if not native then
    return nil, id
  end
  self.native, self.id = native, id
  return true
end

-- Makes the stream and the consumer, as far as they are not there.
local function attach(self, deadline)
  local descriptor, api = self.descriptor, self.api
  local stream = descriptor.stream
  if descriptor.create then
    local made, err = api:ensure_stream(stream, descriptor.filter, descriptor.create, deadline)
    if not made then
      return nil, err
    end
  elseif not stream then
    local found, err = api:stream_of(descriptor.filter, deadline)
    if not found then
      return nil, err
    end
    stream = found
  end
  local info, err = api:ensure_consumer(stream, self.continuation or descriptor, deadline)
  if not info then
    return nil, err
  end
  self.stream, self.consumer = stream, info.name
  self.pending = jetstream.integer(info.num_pending) -- when it was made
  -- A consumer that somebody else made may want no acknowledgements; then nothing is too late.
  self.settles = info.config.ack_policy ~= "none"
  self.ack_wait = self.settles and jetstream.integer(info.config.ack_wait) / 1e9 or math.huge
  self.next_subject = ("%sCONSUMER.MSG.NEXT.%s.%s"):format(api.prefix, stream, info.name)
  return info
end

-- Where a consumer without a name goes on when the server has lost it.
local function resume_point(self)
  if self.descriptor.durable or not self.last then
    return nil
  end
  local first = self.last + 1
  for position in pairs(self.unsettled) do
    first = math.min(first, position)
  end
  local copy = {}
  for field, value in pairs(self.descriptor) do
    copy[field] = value
  end
  copy.deliver_policy, copy.start_time, copy.start_sequence = nil, nil, first
  return copy
end

local transient = { timeout = true, disconnected = true, unsupported = true, no_responders = true }

-- Sees to it that the consumer is there, as long as it takes.
local function restore(self)
  while not self:is_over() do
    local deadline = runtime.now() + PATIENCE
    local there, err
    if not self.connection.up then
      err = errors.new("disconnected")
    elseif self.consumer then
      there, err = self.api:call(("CONSUMER.INFO.%s.%s"):format(self.stream, self.consumer), nil, deadline)
    end
    if not there and err.code == "consumer_not_found" then
      self.continuation = resume_point(self)
      there, err = attach(self, deadline)
    end
    if there then
      break
    elseif not transient[err.code] then
      self:finish(err)
      break
    end
    tasks.sleep(PAUSE)
  end
  self.restoring = false
  self.requests, self.coming, self.low = {}, 0, 0
  self.waiting:wake_all()
end

--- After a loss of the connection: what was asked for before it will not come.
function Pull:restore()
  if not self.restoring and not self:is_over() then
    self.restoring = true
    tasks.spawn(restore, self)
  end
end

Pull.reconnected = Pull.restore

--- What was not settled goes back.
function Pull:release(deadline)
  self.released = true
  local message, report = self.native:pop()
  while message or report do
    if message then
      self.unsettled[message.position] = message
    end
    message, report = self.native:pop()
  end
  -- Left first: otherwise the server would send here again what goes back. It forgets the requests of somebody who
  -- left when it is asked about the consumer; one that it still has, it answers with what goes back, into nothing.
  self.native:close()
  if self.requests[1] and next(self.unsettled) and self.connection.up then
    local soon = math.min(runtime.now() + 1, deadline or math.huge)
    self.api:call(("CONSUMER.INFO.%s.%s"):format(self.stream, self.consumer), nil, soon)
  end
  for _, each in pairs(self.unsettled) do
    if each.token then -- otherwise its confirmation is under way
      self.connection:publish(each.token, NAK)
    end
  end
  self.unsettled, self.unsettled_count = {}, 0
  if not self.descriptor.durable and self.connection.up then
    self.connection:publish(("%sCONSUMER.DELETE.%s.%s"):format(self.api.prefix, self.stream, self.consumer), "")
  end
end

--- The broker is about to close: what is unsettled goes back at once.
function Pull:before_shutdown(deadline)
  self:close_until(deadline)
end

--- Numbers: `coming` messages were asked for and have not been taken; `window`: how many may be; `refused`: why the
-- server last sent nothing though it was asked.
function Pull:stats()
  local queued, bytes, dropped = self.native:stats()
  return {
    queued = queued,
    queued_bytes = bytes,
    unsettled = self.unsettled_count,
    taken = self.taken,
    dropped = dropped,
    coming = self.coming,
    window = self.size,
    refused = self.refused,
  }
end

--- What the server says of the consumer: `pending` (not delivered yet), `unsettled`, `redelivered`, ...
-- @tparam[opt] number timeout in seconds
function Pull:lag(timeout)
  local deadline = runtime.deadline(timeout or PATIENCE, 2)
  local info, err = self.api:call(("CONSUMER.INFO.%s.%s"):format(self.stream, self.consumer), nil, deadline)
  if not info then
    return nil, err
  end
  return {
    pending = jetstream.integer(info.num_pending),
    unsettled = jetstream.integer(info.num_ack_pending),
    redelivered = jetstream.integer(info.num_redelivered),
    waiting = jetstream.integer(info.num_waiting),
  }
end

-- The descriptor's start in another place; nil and an error when it is none.
local function seek_target(self, position, deadline)
  local target = {}
  for field, value in pairs(self.descriptor) do
    target[field] = value
  end
  target.deliver_policy, target.start_sequence, target.start_time = nil, nil, nil
  if position == "start" then
    target.deliver_policy = "all"
  elseif position == "end" then
    target.deliver_policy = "new"
  elseif type(position) == "table" and type(position.time) == "number" then
    target.start_time = position.time
  elseif type(position) == "number" and position % 1 == 0 then
    local info, err = self.api:stream_info(self.stream, deadline)
    if not info then
      return nil, err
    end
    local first, last = jetstream.integer(info.state.first_seq), jetstream.integer(info.state.last_seq)
    if position < math.max(first, 1) or position > last + 1 then
      local text = ("the stream %s has positions %d to %d"):format(self.stream, first, last)
      return nil, errors.new("unknown_position", text)
    end
    target.start_sequence = math.tointeger(position)
  else
    error("seek: a position is a sequence number, \"start\", \"end\" or { time = seconds since 1970 }", 3)
  end
  return target
end

--- Goes on from another position: that of a message, "start", "end" or `{ time = t }`. A durable consumer is shared,
-- so it has no position of one subscription's own.
-- @return true; or nil and an error: "unsupported", "unknown_position", ...
function Pull:seek(position, timeout)
  if self:is_over() then
    return nil, self.ended
  elseif self.descriptor.durable then
    return nil, contract.unsupported("nats", "seek in a durable consumer")
  end
  local deadline = runtime.deadline(timeout or PATIENCE, 2)
  local target, err = seek_target(self, position, deadline)
  if not target then
    return nil, err
  end
  local old = self.consumer
  local info
  info, err = self.api:ensure_consumer(self.stream, target, deadline)
  if not info then
    return nil, err
  end
  self.consumer = info.name
  self.next_subject = ("%sCONSUMER.MSG.NEXT.%s.%s"):format(self.api.prefix, self.stream, info.name)
  self.unsettled, self.unsettled_count, self.last = {}, 0, nil
  self.connection:publish(("%sCONSUMER.DELETE.%s.%s"):format(self.api.prefix, self.stream, old), "")
  local opened
  opened, err = open_inbox(self)
  self.waiting:wake_all()
  if not opened then
    return nil, err
  end
  return true
end

--- Subscribes to a stream.
function M.open(api, descriptor, deadline)
  local self = setmetatable({
    api = api,
    unsettled = {}, -- by position
    unsettled_count = 0,
    batch = descriptor.batch,
    size = math.min(FIRST, descriptor.batch),
    expires = descriptor.expires,
    expires_ns = math.floor(descriptor.expires * 1e9),
    asked = 0,
    measured = 0,
    measured_at = runtime.now(),
  }, Pull)
  subscription.init(self, api.connection, descriptor)
  local info, err = attach(self, deadline)
  if not info then
    return nil, err
  end
  local opened
  opened, err = open_inbox(self)
  if not opened then
    return nil, err
  end
  return self
end

return M
