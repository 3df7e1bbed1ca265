--- The NATS broker without a server: what `broker:in_process(clock)` makes.
--
-- Core subjects are topics of the memory broker; streams are those of `weir.broker.nats.memory_stream`. It refuses what
-- the server refuses. Where it differs, because there is nobody else: a stream that a descriptor names is there, as if
-- somebody had made it on the server, and there are no key-value buckets and no outages.
-- @module weir.broker.nats.memory

local connections = require("weir.broker.nats.connection")
local contract = require("weir.broker.contract")
local core = require("weir.broker.nats.subscription")
local errors = require("weir.broker.nats.errors")
local memory = require("weir.broker.memory")
local new_state = require("weir.broker.state")
local memory_stream = require("weir.broker.nats.memory_stream")
local publishers = require("weir.broker.nats.publisher")
local runtime = require("weir.runtime")
local streams = require("weir.broker.nats.stream")

local M = {}

-- What a server takes when nothing else is configured, with headers.
local MAX_PAYLOAD = 1024 * 1024
local no_headers = connections.no_headers

-- --- core subscriptions -------------------------------------------------------------------------

local Core = { __name = "weir.nats.subscription" }
Core.__index = Core

-- A delivery of the memory broker as one of NATS: it is gone once taken.
local function convert(delivery)
  delivery:ack()
  local headers = delivery.headers
  return setmetatable({
    payload = delivery.payload,
    destination = delivery.destination,
    headers = next(headers) and headers or no_headers,
    key = headers["partition-key"],
    reply_to = headers["reply-to"],
  }, core.Message)
end

-- What was kept has been taken.
local function caught_up(self)
  if self.behind and self.inner.queue.lane.ready() == 0 then
    self.behind = false
    self.broker:show_state()
  end
end

function Core:next(timeout)
  caught_up(self)
  local delivery, err = self.inner:next(timeout)
  if not delivery then
    return nil, err
  end
  return convert(delivery)
end

function Core:next_batch(max, linger, timeout)
  caught_up(self)
  local list, err = self.inner:next_batch(max, linger, timeout)
  if not list then
    return nil, err
  end
  for i, delivery in ipairs(list) do
    list[i] = convert(delivery)
  end
  return list
end

function Core:stop()
  return self.inner:stop()
end

function Core:pause()
  return self.inner:pause()
end

function Core:resume()
  return self.inner:resume()
end

function Core:close()
  self.broker.cores[self] = nil
  self.broker:show_state()
  return self.inner:close()
end

-- Whether messages were dropped since the last time.
function Core:look_for_loss()
  local dropped = self.inner.queue.dropped
  local more = dropped > self.dropped
  self.dropped = dropped
  self.behind = self.behind or more
  return more
end

function Core:address()
  return not self.descriptor.pattern and self.descriptor.name or nil
end

function Core.seek()
  return nil, contract.unsupported("nats", "positions in this subscription")
end

function Core:stats()
  local queue = self.inner.queue
  return {
    queued = queue.lane.ready(),
    queued_bytes = queue:bytes(),
    unsettled = 0,
    dropped = queue.dropped,
  }
end

function Core:__close()
  self:close()
end

-- --- JetStream subscriptions --------------------------------------------------------------------

local methods = {}

local function settle(message, how, delay)
  local subscription = message.subscription
  if message.settled then
    return nil, errors.new("settled")
  elseif subscription.released then
    return nil, errors.new(subscription.broker.closed and "closed" or "lost")
  end
  if how ~= "extend" then
    message.settled = true
    if subscription.unsettled[message.position] == message then
      subscription.unsettled[message.position] = nil
      subscription.unsettled_count = subscription.unsettled_count - 1
    end
  end
  subscription.consumer:settle(message.position, how, delay)
  return true
end

function methods:ack()
  return settle(self, "ack")
end

function methods:nack(opts)
  local requeue, delay = contract.nack_options(opts)
  return settle(self, requeue and "again" or "drop", delay)
end

function methods:extend()
  return settle(self, "extend")
end

local Message = { __name = "weir.nats.message", __index = methods }

local Pull = core.class()

-- What the common part of subscriptions asks of the one in C.
local Source = {}
Source.__index = Source

function Source:arm()
  return self.consumer:available()
end

function Source.close() end

function Pull:take()
  local record, attempts, consumed = self.consumer:take()
  if not record then
    return nil
  end
  self.taken = self.taken + 1
  local message = setmetatable({
    payload = record.payload,
    destination = record.subject,
    headers = next(record.headers) and record.headers or no_headers,
    key = record.headers["partition-key"],
    reply_to = record.headers["reply-to"],
    attempts = attempts,
    position = record.position,
    time = record.time,
    subscription = self,
    fields = {
      stream = self.consumer.stream.name,
      consumer = self.consumer.name,
      sequence = record.position,
      consumer_sequence = consumed,
      deliveries = attempts,
    },
  }, Message)
  if not self.unsettled[record.position] then
    self.unsettled_count = self.unsettled_count + 1
  end
  self.unsettled[record.position] = message
  return message
end

function Pull:release()
  self.released = true
  self.consumer.listeners[self] = nil
  local positions = {}
  for position in pairs(self.unsettled) do
    positions[#positions + 1] = position
  end
  table.sort(positions)
  self.unsettled, self.unsettled_count = {}, 0
  for _, position in ipairs(positions) do
    self.consumer:settle(position, "again")
  end
  if not self.descriptor.durable then
    self.consumer.stream.consumers[self.consumer.name] = nil
  end
end

function Pull:stats()
  return { queued = 0, queued_bytes = 0, unsettled = self.unsettled_count, taken = self.taken, dropped = 0 }
end

function Pull:seek(position)
  if self:is_over() then
    return nil, self.ended
  elseif self.descriptor.durable then
    return nil, contract.unsupported("nats", "seek in a durable consumer")
  end
  local stream = self.consumer.stream
  local target = {}
  for field, value in pairs(self.descriptor) do
    target[field] = value
  end
  target.deliver_policy, target.start_sequence, target.start_time = nil, nil, nil
  if position == "start" or position == "end" then
    target.deliver_policy = position == "end" and "new" or "all"
  elseif type(position) == "table" and type(position.time) == "number" then
    target.start_time = position.time
  elseif type(position) ~= "number" or position % 1 ~= 0 then
    error("seek: a position is a sequence number, \"start\", \"end\" or { time = seconds since 1970 }", 2)
  elseif position < stream.first or position > stream.last + 1 then
    local text = "the stream %s has positions %d to %d"
    return nil, errors.new("unknown_position", text:format(stream.name, stream.first, stream.last))
  else
    target.start_sequence = position
  end
  stream.consumers[self.consumer.name] = nil
  self.consumer.listeners[self] = nil
  self.consumer = stream:consumer(target)
  self.native.consumer = self.consumer
  self.consumer.listeners[self] = true
  self.unsettled, self.unsettled_count = {}, 0
  self.waiting:wake_all()
  return true
end

-- --- publishers ---------------------------------------------------------------------------------

local Publisher = { __name = "weir.nats.publisher" }
Publisher.__index = Publisher

-- Why NATS would not carry the headers; and the headers as they arrive: names in lower case.
local function arrived(headers, reply_to)
  if not headers and not reply_to then
    return nil, no_headers
  end
  local lower = {}
  for name, value in pairs(headers or {}) do
    local bad = type(name) ~= "string" or type(value) ~= "string" or name == "" or name:find("[%z\r\n: ]")
    if bad or value == "" or value:find("[%z\r\n]") or value:find("^%s") or value:find("%s$") then
      return contract.unsupported("nats", "header such as " .. tostring(name))
    end
    lower[name:lower()] = value
  end
  if reply_to then
    lower["reply-to"] = reply_to
  end
  return nil, lower
end

local function size_of(payload, headers)
  local size = #payload
  if next(headers) then
    size = size + 12
    for name, value in pairs(headers) do
      size = size + #name + #value + 4
    end
  end
  return size
end

-- Why it cannot be published; or nil, its headers and whether it is to be confirmed.
local function check(self, destination, payload, headers, options)
  local broker = self.broker
  if type(destination) ~= "string" or type(payload) ~= "string" then
    local text = "publish: a subject and a payload are strings, not a %s and a %s"
    error(text:format(type(destination), type(payload)), 3)
  elseif broker.closed then
    return errors.new("closed")
  elseif broker.inner:state() ~= "up" then
    return errors.new("disconnected", "connect first")
  elseif not connections.native.subject_valid(destination) then
    return errors.new("invalid", destination)
  end
  local full, confirm, err = publishers.prepare(self, headers, options)
  if err then
    return err
  end
  local reply_to = options and options.reply_to or self.reply_to
  if reply_to and not connections.native.subject_valid(reply_to) then
    return errors.new("invalid", reply_to)
  end
  local lower
  err, lower = arrived(full, reply_to)
  if err then
    return err
  elseif size_of(payload, lower) > MAX_PAYLOAD then
    return errors.new("too_large", nil, { destination = destination })
  end
  return nil, lower, confirm and not publishers.is_inbox(self, destination)
end

function Publisher:publish(destination, payload, headers, options)
  local busy = runtime.tick()
  if busy then
    return nil, busy
  end
  local err, lower, confirm = check(self, destination, payload, headers, options)
  if err then
    return nil, err
  end
  local receipt
  local stream = self.broker:stream_of(destination)
  if stream then
    receipt, err = stream:append(destination, payload, lower)
  elseif confirm then
    err = errors.new("no_stream", nil, { destination = destination })
  end
  if err and confirm then
    return nil, err
  end
  local done
  done, err = self.inner:publish(destination, payload, lower)
  if not done then
    return nil, err
  end
  self.broker:look_for_loss()
  return true, confirm and receipt or nil
end

function Publisher:publish_batch(items)
  local results, receipts, first = {}, {}, nil
  for i, item in ipairs(items) do
    local done, result = self:publish(item[1], item[2], item[3], item[4])
    results[i] = done or result
    receipts[i] = done and result or nil
    first = first or (not done and result or nil)
  end
  return not first or nil, first, results, receipts
end

function Publisher:request(destination, payload, headers, timeout)
  local err, lower = check(self, destination, payload, headers, nil)
  if err then
    return nil, err
  end
  local stream = self.broker:stream_of(destination)
  if stream then
    stream:append(destination, payload, lower)
    return nil, contract.unsupported("nats", publishers.NO_REQUESTS)
  end
  local reply
  reply, err = self.inner:request(destination, payload, lower, timeout or self.timeout)
  if not reply then
    return nil, errors.new(err.code, destination)
  end
  return reply
end

function Publisher.transaction()
  return nil, contract.unsupported("nats", "transactions")
end

function Publisher:flush()
  if self.broker.closed then
    return nil, errors.new("closed")
  end
  return self.inner:flush()
end

-- --- the broker ---------------------------------------------------------------------------------

local Twin = { __name = "weir.nats.in_process" }

--- Makes one.
-- @param live the broker whose settings it has
-- @param clock see `weir.clock`
function M.new(live, clock)
  clock = clock or live.clock
  local class = { __name = Twin.__name, __tostring = Twin.__tostring, __close = Twin.__close }
  local inherited = getmetatable(live).__index
  class.__index = function(_, name)
    return Twin[name] or inherited[name]
  end
  local self = setmetatable({
    settings = live.settings,
    opts = live.opts,
    status = new_state(),
    cores = {}, -- the set of subscriptions to core subjects
    inherited = inherited,
    clock = clock,
    inner = memory.new({ clock = clock, max_payload = 2 * MAX_PAYLOAD, group = false }),
    streams = {},
    idlers = {},
    closed = false,
  }, class)
  self.inner:watch(function()
    self:show_state()
  end)
  return self
end

-- The state of the memory broker; degraded while a subscription that lost messages has not taken what was kept.
function Twin:show_state()
  local name, err = self.inner:state()
  for subscription in pairs(name == "up" and self.cores or {}) do
    if subscription.behind then
      name, err = "degraded", self.slow_reason or errors.new("slow_consumer", subscription.name)
      self.slow_reason = err
      break
    end
  end
  self.slow_reason = name == "degraded" and err or nil
  self.status:set(name, err)
end

function Twin:look_for_loss()
  local lost = false
  for subscription in pairs(self.cores) do
    lost = subscription:look_for_loss() or lost
  end
  if lost then
    self:show_state()
  end
end

--- What the broker can do, but for what needs a server that stays.
function Twin:capabilities(descriptor)
  local can = self.inherited.capabilities(self, descriptor)
  can.persist = nil
  return can
end

function Twin:connect()
  if self.closed then
    return nil, errors.new("closed")
  end
  return self.inner:connect()
end

function Twin:state()
  return self.status:get()
end

function Twin:watch(fn)
  return self.status:watch(fn)
end

--- The stream that takes a subject, or nil.
function Twin:stream_of(subject)
  for _, stream in pairs(self.streams) do
    if stream:covers(subject) then
      return stream
    end
  end
end

local function subscribe_core(self, descriptor)
  local settings = self.settings
  local inner, err = self.inner:subscribe({
    name = descriptor.name,
    group = descriptor.group,
    overflow = "drop_newest",
    capacity = {
      messages = descriptor.messages or settings.messages,
      bytes = descriptor.bytes or settings.bytes,
    },
  })
  if not inner then
    return nil, err
  end
  local subscription = setmetatable({
    broker = self,
    inner = inner,
    descriptor = descriptor,
    name = descriptor.name,
    dropped = 0,
    behind = false,
  }, Core)
  self.cores[subscription] = true
  return subscription
end

local function subscribe_stream(self, descriptor)
  local name = descriptor.stream
  local stream = name and self.streams[name] or not name and self:stream_of(descriptor.filter) or nil
  if not stream then
    local config = { subjects = { descriptor.filter } }
    for field, value in pairs(descriptor.create or {}) do
      config[field] = value
    end
    config.name = name or descriptor.filter:upper():gsub("[^%w]", "_")
    stream = memory_stream.new(self, self.clock, config)
    self.streams[config.name] = stream
  elseif not stream:covers(descriptor.filter) then
    stream:add_subject(descriptor.filter)
  end
  local consumer = stream:consumer(descriptor)
  local connection = { unsubscribe = function() end }
  local subscription = core.init(setmetatable({
    broker = self,
    consumer = consumer,
    native = setmetatable({ consumer = consumer }, Source),
    unsettled = {},
    unsettled_count = 0,
    id = 1,
  }, Pull), connection, descriptor)
  consumer.listeners[subscription] = true
  return subscription
end

function Twin:subscribe(spec)
  local descriptor, err = self:descriptor(spec)
  if not descriptor then
    return nil, err
  elseif self.closed then
    return nil, errors.new("closed")
  elseif self.inner:state() ~= "up" then
    return nil, errors.new("disconnected", "connect first")
  elseif descriptor.kind == "jetstream" then
    return subscribe_stream(self, descriptor)
  end
  return subscribe_core(self, descriptor)
end

function Twin:publisher(opts)
  local made = publishers.new({ settings = self.settings, connection = false }, opts)
  return setmetatable({
    broker = self,
    inner = self.inner:publisher(),
    confirm = made.confirm,
    stream = made.stream,
    reply_to = made.reply_to,
    inboxes = made.inboxes,
    timeout = made.timeout,
  }, Publisher)
end

function Twin.kv()
  return nil, contract.unsupported("nats", "key-value buckets in process")
end

local Handle = {}
Handle.__index = Handle

--- A stream: `create`, `update`, `info`, `get`, `purge`, `delete`.
function Twin:stream(opts)
  local made = streams.new(false, opts)
  return setmetatable({ broker = self, name = made.name, config = made.config }, Handle)
end

local function existing(self)
  local stream = self.broker.streams[self.name]
  if not stream then
    return nil, errors.jetstream({ err_code = 10059, code = 404, description = "stream not found" }, self.name)
  end
  return stream
end

function Handle:create()
  local streams_of = self.broker.streams
  if not streams_of[self.name] then
    self.config.subjects = self.config.subjects or { self.name }
    streams_of[self.name] = memory_stream.new(self.broker, self.broker.clock, self.config)
  end
  return self:info()
end

function Handle:update()
  local stream, err = existing(self)
  if not stream then
    return nil, err
  end
  for field, value in pairs(self.config) do
    stream.config[field] = value
  end
  return self:info()
end

function Handle:info()
  local stream, err = existing(self)
  if not stream then
    return nil, err
  end
  stream:expire()
  local config, consumers = stream.config, 0
  for _ in pairs(stream.consumers) do
    consumers = consumers + 1
  end
  return {
    name = stream.name,
    subjects = config.subjects,
    storage = config.storage or "file",
    retention = config.retention or "limits",
    max_msgs = config.max_msgs or -1,
    max_bytes = config.max_bytes or -1,
    max_age = config.max_age and config.max_age / 1e9,
    messages = stream.count,
    bytes = stream.bytes,
    first = stream.count > 0 and stream.first or 0,
    last = stream.last,
    consumers = consumers,
  }
end

-- A stored message to look at.
local function look(record)
  return {
    payload = record.payload,
    headers = record.headers,
    destination = record.subject,
    key = record.headers["partition-key"],
    position = record.position,
    time = record.time,
    fields = {},
  }
end

function Handle:get(position)
  local stream, err = existing(self)
  if not stream then
    return nil, err
  elseif not stream.records[position] then
    return nil, errors.new("not_found", self.name)
  end
  return look(stream.records[position])
end

function Handle:purge(opts)
  local stream, err = existing(self)
  if not stream then
    return nil, err
  end
  return stream:purge(opts or {})
end

function Handle:delete()
  local stream, err = existing(self)
  if not stream then
    return nil, err
  end
  self.broker.streams[self.name] = nil
  for _, consumer in pairs(stream.consumers) do
    for listener in pairs(consumer.listeners) do
      listener:finish(errors.new("consumer_deleted", consumer.name))
    end
  end
  return true
end

local Cursor = {}
Cursor.__index = Cursor

function Cursor:next()
  local stream = self.stream
  stream:expire()
  for position = math.max(self.position, stream.first), stream.last do
    local record = stream.records[position]
    if record and self.wanted(record.subject) then
      self.position = position + 1
      return look(record)
    end
  end
end

function Cursor:close() -- luacheck: no self
end

function Twin:cursor(destination)
  local stream = self:stream_of(destination)
  if not stream then
    return nil, errors.new("no_stream", destination)
  end
  return setmetatable({ stream = stream, wanted = memory_stream.filter(destination), position = 1 }, Cursor)
end

function Twin:browse(destination, limit)
  local cursor, err = self:cursor(destination)
  if not cursor then
    return nil, err
  end
  return contract.collect(cursor, limit or 100)
end

--- Deliveries that are ready or being handled, not the delayed ones, where there is a subscription.
function Twin:pending()
  local count = self.inner:pending()
  for _, stream in pairs(self.streams) do
    for _, consumer in pairs(stream.consumers) do
      count = count + consumer:busy()
    end
  end
  return count
end

--- Calls those that wait for quiet if it is quiet.
function Twin:check_idle()
  if next(self.idlers) and self:pending() == 0 then
    for fn in pairs(self.idlers) do
      fn()
    end
  end
end

--- Calls `fn()` whenever `pending()` becomes 0; returns a function that ends that.
function Twin:on_idle(fn)
  local function idle()
    if self:pending() == 0 then
      fn()
    end
  end
  self.idlers[idle] = true
  local stop = self.inner:on_idle(idle)
  return function()
    self.idlers[idle] = nil
    stop()
  end
end

function Twin:stats()
  return { reconnects = 0, faults = 0, buffered = 0, inner = self.inner:stats() }
end

function Twin:shutdown()
  if not self.closed then
    self.closed = true
    for _, stream in pairs(self.streams) do
      for _, consumer in pairs(stream.consumers) do
        for listener in pairs(consumer.listeners) do
          listener:close()
        end
      end
    end
  end
  return self.inner:shutdown()
end

function Twin:__close() -- the second argument is an error
  self:shutdown()
end

function Twin:__tostring()
  return ("weir.nats.in_process(%s)"):format((self.inner:state()))
end

return M
