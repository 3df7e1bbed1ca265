--- The producing end of a stream.
-- @module weir.streams.producer

local core = require("weir.core")
local errors = require("weir.errors")
local hex = require("weir.hex")
local hub = require("weir.streams.hub")
local options = require("weir.streams.options")
local runtime = require("weir.runtime")
local waitlist = require("weir.runtime.waitlist")
local when = require("weir.streams.when")

local events, has = core.events, hub.has
local DRAIN = 10 -- seconds that close() waits for the consumers

local Producer = { __name = "weir.producer" }
Producer.__index = Producer

-- One whose values need no encoding: `send` begins in C (see below).
local RawProducer = {}

local producer = {}

local OPTIONS = {
  codec = { "string", "table" },
  schema = "string",
  require = "function",
  max_consumers = "number",
  online_when = "number",
  buffer = "table",
  lag = "string",
  lag_grace = "number",
  max_message = { "number", "string" },
}

--- The names of options, and the types of their values.
producer.OPTIONS = OPTIONS

local LAGS = { disconnect = true, block = true }

-- An epoch is the time, in microseconds, at which a producer came to be; later ones have greater.
local last_epoch = 0

local function next_epoch()
  local epoch = math.floor(runtime.time() * 1e6)
  if epoch <= last_epoch then
    epoch = last_epoch + 1
  end
  last_epoch = epoch
  return epoch
end

--- Makes a producer; `network:produce` and `network:producer` do.
-- @tparam table network
-- @tparam string name
-- @tparam string id 32 bytes
-- @tparam ?table opts see `weir.network`; wrong ones raise an error without a position
function producer.new(network, name, id, opts)
  local what = ("producer of '%s'"):format(name)
  opts = errors.options(what, opts, OPTIONS, -1)
  local lag = opts.lag or "disconnect"
  if not LAGS[lag] then
    error(("%s: option 'lag' must be \"disconnect\" or \"block\", not %q"):format(what, lag), 0)
  end
  local messages, bytes = options.buffer(what, opts.buffer)
  local codec = options.codec(what, opts.codec)
  local self = setmetatable({
    network = network,
    name = name,
    id = id,
    codec = codec,
    schema = options.text(what, "schema", opts.schema, 64),
    encode = not codec.raw and codec.encode or nil,
    allows = opts.require,
    max_consumers = options.count(what, "max_consumers", opts.max_consumers, 0) or math.huge,
    least = options.count(what, "online_when", opts.online_when, 0) or 1,
    lag = lag,
    online = false,
    closed = false,
    born = runtime.now(),
    subscribers = {}, -- subscriber id -> what is known of it
    noted = 0, -- how many of them, also such as have left
    turned_away = false, -- somebody wanted to subscribe and there was no room
    room = waitlist.new(),
    acked = waitlist.new(),
  }, codec.raw and RawProducer or Producer)
  self.core = core.producer({
    epoch = next_epoch(),
    max_items = messages,
    max_bytes = bytes,
    max_message = options.bytes(what, "max_message", opts.max_message),
    lag = lag,
    grace = options.seconds(what, "lag_grace", opts.lag_grace),
  })
  self[1] = self.core -- where the fast path of raw producers looks
  self.conditions = when.new(self)
  hub.own(self.core, self)
  self:update_online()
  return self
end

-- --- events -------------------------------------------------------------------------------------

function Producer:update_online()
  local online = not self.closing and self.core:count() >= self.least
  if online ~= self.online then
    self.online = online
    self.core:set_online(online)
    self.conditions:changed()
  end
end

-- Looks for slow consumers when their time is over, though nobody may send then.
local function watch_lag(self)
  local deadline = self.core:lag_deadline()
  if not deadline or self.lag_timer then
    return
  end
  self.lag_timer = runtime.timer(deadline, function()
    self.lag_timer = nil
    if not self.closed then
      self.core:evict_slow()
      watch_lag(self)
    end
  end)
end

function Producer:on_event(bits)
  if has(bits, events.PRODUCER_CHANGED) then
    self:update_online()
    if self.turned_away and self.core:count() < self.max_consumers and not self.closing then
      self.turned_away = false
      self.network:offer_again(self)
    end
  end
  if has(bits, events.PRODUCER_LAG) then
    watch_lag(self)
  end
  if has(bits, events.PRODUCER_ROOM) then
    self.room:wake_one()
  end
  if has(bits, events.PRODUCER_ACKED) then
    self.acked:wake_all()
  end
end

-- --- sending ------------------------------------------------------------------------------------

local function closed_error(self)
  return errors.new("closed", ("the producer of '%s' was closed"):format(self.name), { stream = self.name })
end

local function too_large(self, payload)
  return errors.new("too_large", ("a message of %d bytes is longer than the stream's max_message"):format(#payload), {
    stream = self.name,
    size = #payload,
  })
end

-- Encodes a value; nil and an error when that is not possible.
local function encoded(self, value)
  local payload, err = self.codec.encode(value)
  if payload == nil then
    err.stream = self.name
    return nil, err
  end
  return payload
end

local function wait_for_room(self, deadline)
  local waiter = runtime.own_waiter()
  self.room:add(waiter)
  local _, err = waiter:wait(deadline)
  if self.room:remove(waiter) and err then
    self.room:wake_one()
  end
  return err
end

local LATE = {
  again = "no room in time: the consumers are slower than the producer",
  offline = "no consumer came in time",
}

-- An error of a wait, which may be shared, as ours.
local function in_context(self, err, message)
  return errors.with(err, { stream = self.name, message = err.code == "timeout" and message or nil })
end

-- Why the core did not take the message decides what to wait for.
local function send_slow(self, payload, why, timeout)
  local deadline = runtime.deadline(timeout, 3)
  while true do
    local err
    if self.closing then
      err = closed_error(self)
    elseif why == "pause" then
      err = runtime.pause_if_spent(core.spent())
    elseif why == "again" then
      err = wait_for_room(self, deadline)
    elseif why == "offline" then
      local _, failed = self.conditions:online(deadline and math.max(0, deadline - runtime.now()))
      err = failed
    elseif why == "limit" then
      err = too_large(self, payload)
    elseif why == "nomem" then
      err = errors.new("nomem", "out of memory", { stream = self.name })
    else
      err = closed_error(self)
    end
    if err then
      -- It may have been woken for room, and then not have used that.
      self.room:wake_one()
      return nil, in_context(self, err, LATE[why])
    end
    local ok
    ok, why = self.core:try_send(payload)
    if ok then
      if self.room.count > 0 then
        self.room:wake_one()
      end
      return true
    end
  end
end

--- Sends a value: waits until the producer is online, then until there is room in its buffer.
-- True means that the value is in the buffer, in order, for every consumer there is.
-- @param value what the codec takes
-- @tparam[opt] number timeout seconds
-- @treturn boolean true; or nil and an error: "timeout", "closed", "cancelled", "encode",
--   "too_large"
function Producer:send(value, timeout)
  local encode = self.encode
  if encode or type(value) ~= "string" then
    local err
    value, err = encoded(self, value)
    if not value then
      return nil, err
    end
  end
  local ok, why = self.core:send(value)
  if ok then
    return true
  end
  return send_slow(self, value, why, timeout)
end

local REFUSALS = {
  again = { "full", "the buffer is full: the consumers are slower than the producer" },
  offline = { "offline", "there are not enough consumers" },
}

--- Sends a value if that is possible without waiting.
-- @param value what the codec takes
-- @treturn boolean true; or nil and an error with the value in `err.value`: "offline", "full",
--   "closed", "encode", "too_large"
function Producer:try_send(value)
  local payload, err = value, nil
  if self.closing then
    err = closed_error(self)
  elseif self.encode or type(value) ~= "string" then
    payload, err = encoded(self, value)
  end
  if not err then
    local ok, why = self.core:try_send(payload)
    if ok then
      return true
    elseif REFUSALS[why] then
      err = errors.new(REFUSALS[why][1], REFUSALS[why][2], { stream = self.name })
    elseif why == "limit" then
      err = too_large(self, payload)
    else
      err = closed_error(self)
    end
  end
  err.value = value
  return nil, err
end

--- Waits until every connected consumer's application has taken what was sent before the call. At
-- once true when there is no consumer.
-- @tparam[opt] number timeout seconds
-- @treturn boolean true; or nil and an error: "timeout", "cancelled"
function Producer:flush(timeout)
  local deadline = runtime.deadline(timeout, 2)
  local target = self.core:stats().next_sequence
  while self.core:acknowledged() < target do
    if not self.core:sync() then
      local waiter = runtime.own_waiter()
      self.acked:add(waiter)
      local _, err = waiter:wait(deadline)
      self.acked:remove(waiter)
      if err then
        return nil, in_context(self, err, "some consumers had not taken everything in time")
      end
    end
  end
  return true
end

--- Ends the stream: no more is taken, the consumers get what was sent and then the reason
-- "shutdown" (204).
-- @tparam[opt=10] number timeout seconds to wait for consumers that have not taken everything; 0
--   does not wait
-- @treturn boolean true; or nil and an error "timeout" when some had not: the stream is closed then,
--   too
function Producer:close(timeout)
  if self.closed then
    return true
  end
  self.closing = true
  self:update_online()
  self.conditions:changed()
  self.room:wake_all()
  self.network:withdraw(self)
  local ok, err = true, nil
  if timeout ~= 0 then
    ok, err = self:flush(timeout or DRAIN)
  end
  self.closed = true
  self.core:close()
  self.conditions:changed()
  self.network:forget_producer(self)
  return ok, err
end

-- --- looking ------------------------------------------------------------------------------------

--- Whether there are as many consumers as `online_when` asks for (1 unless said otherwise).
-- @treturn boolean
function Producer:is_online()
  return self.online
end

--- Conditions to wait for: `producer:when():online(timeout)`, `:offline(timeout)`.
function Producer:when()
  return self.conditions
end

local function own_node(self)
  local peer = self.network.as_peer
  return { peer = peer.id, url = peer.url, tags = peer.tags }
end

--- The consumers that are connected now.
-- @treturn table list of { peer = id, url =, tags =, messages =, bytes =, queued =, credit =, rtt =,
--   uptime = }; `credit` (bytes) is nil for a consumer of the same node
function Producer:consumers()
  local list = {}
  local now = runtime.now()
  for i, each in ipairs(self.core:subscribers()) do
    local subscriber = self.subscribers[each.id] or own_node(self)
    list[i] = {
      id = each.id,
      peer = subscriber.peer,
      url = subscriber.url,
      tags = subscriber.tags,
      messages = each.messages,
      bytes = each.bytes,
      queued = each.queued,
      unacknowledged = each.unacknowledged,
      credit = each.credit_bytes,
      rtt = each.rtt,
      uptime = now - each.since,
    }
  end
  return list
end

--- Counters.
-- @treturn table `messages` and `bytes` sent, `queued` (messages in the buffer), `queued_bytes`,
--   `credit` (bytes that the consumer with the least may still be sent; nil without remote ones),
--   `dropped` (sent while there was no consumer), `evicted` (consumers closed for being too slow),
--   `consumers`, `rtt` (seconds, the longest), `uptime` (seconds), `epoch`, `next_sequence`
function Producer:stats()
  local stats = self.core:stats()
  stats.dropped, stats.undelivered = stats.undelivered, nil
  stats.uptime = runtime.now() - self.born
  stats.consumers = self.core:count()
  for _, each in ipairs(self.core:subscribers()) do
    if each.credit_bytes then
      stats.credit = math.min(stats.credit or math.huge, each.credit_bytes)
    end
    if each.rtt then
      stats.rtt = math.max(stats.rtt or 0, each.rtt)
    end
  end
  return stats
end

--- The id of the stream, as 64 hex digits.
function Producer:stream_id()
  return hex(self.id)
end

function Producer:__tostring()
  local state = self.closed and "closed" or self.online and "online" or "offline"
  return ("weir.producer(%s, %s, %d consumers)"):format(self.name, state, self.core:count())
end

function Producer:__close(err)
  self:close(err ~= nil and 0 or nil)
end

-- --- subscriptions, for the network -------------------------------------------------------------

--- Why `peer` may not subscribe now: a close code and a text; nil when it may.
function Producer:refuses(peer, request)
  if self.closing then
    return 10404, ("'%s' is not produced here any more"):format(self.name)
  elseif self.core:count() >= self.max_consumers then
    self.turned_away = true
    return 10509, ("'%s' has as many consumers as it takes (%d)"):format(self.name, self.max_consumers)
  elseif request.codec and request.codec ~= self.codec.name then
    return 10415, ("the producer's codec is %q, the consumer's %q"):format(self.codec.name, request.codec)
  elseif request.schema and self.schema and request.schema ~= self.schema then
    return 10415, ("the producer's schema is %q, the consumer's %q"):format(self.schema, request.schema)
  elseif self.allows then
    local ok, allowed = pcall(self.allows, peer)
    if not ok then
      runtime.report(allowed, nil, ("error in the require function of the producer of '%s'"):format(self.name))
      return 10403, "the producer could not decide"
    elseif not allowed then
      return 10403, ("the producer of '%s' does not allow this consumer"):format(self.name)
    end
  end
end

local function forget_those_who_left(self)
  local known, count = {}, 0
  for _, each in ipairs(self.core:subscribers()) do
    known[each.id], count = self.subscribers[each.id], count + 1
  end
  self.subscribers, self.noted = known, count
end

--- Remembers who a subscriber is.
function Producer:note_subscriber(id, peer)
  self.subscribers[id] = { peer = peer.id, url = peer.url, tags = peer.tags }
  self.noted = self.noted + 1
  if self.noted > 2 * self.core:count() + 16 then
    forget_those_who_left(self)
  end
end

for name, value in pairs(Producer) do
  RawProducer[name] = value
end
RawProducer.__index = RawProducer
if core.send_function then
  RawProducer.send = core.send_function(Producer.send)
end

return producer
