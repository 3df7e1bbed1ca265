--- Streams and consumers of JetStream in this process: what `broker:in_process` has in place of a server.
--
-- They do what the server does of what weir uses: limits, retention, one copy of a message id, expectations,
-- acknowledgements, redelivery after `ack_wait`, delays and `max_deliver`. Times go by the clock.
-- @module weir.broker.nats.memory_stream

local errors = require("weir.broker.nats.errors")
local pattern = require("weir.broker.memory.pattern")

local M = {}

-- What the server does when nothing else is said.
local ACK_WAIT, MAX_ACK_PENDING, DUPLICATES = 30, 1000, 120

-- --- consumers ----------------------------------------------------------------------------------

local Consumer = {}
Consumer.__index = Consumer

local function matches(self, subject)
  return pattern.matches(self.filter, (pattern.destination(subject)))
end

-- The position after which delivery begins.
local function start_of(stream, descriptor)
  if descriptor.start_sequence then
    return descriptor.start_sequence
  elseif descriptor.start_time then
    for position = stream.first, stream.last do
      local record = stream.records[position]
      if record and record.time >= descriptor.start_time then
        return position
      end
    end
    return stream.last + 1
  elseif descriptor.deliver_policy == "new" then
    return stream.last + 1
  elseif descriptor.deliver_policy == "last" then
    return math.max(stream.last, 1)
  end
  return 1
end

local function new_consumer(stream, name, descriptor)
  return setmetatable({
    stream = stream,
    name = name,
    filter = (pattern.parse(descriptor.filter)),
    ack_wait = descriptor.ack_wait or ACK_WAIT,
    max_deliver = descriptor.max_deliver or -1,
    max_ack_pending = descriptor.max_ack_pending or MAX_ACK_PENDING,
    next = start_of(stream, descriptor),
    per_subject = descriptor.deliver_policy == "last_per_subject",
    pending = {}, -- position -> what was delivered and not acknowledged
    count = 0,
    again = {}, -- positions to be delivered again, in order
    deliveries = {}, -- position -> how often
    delivered = 0,
    listeners = {}, -- subscriptions
  }, Consumer)
end

-- Tells those who wait that there is something.
function Consumer:notify()
  for listener in pairs(self.listeners) do
    listener:ready()
  end
end

local function forget(self, position)
  local entry = self.pending[position]
  if entry then
    self.pending[position] = nil
    self.count = self.count - 1
    if entry.timer then
      entry.timer:cancel()
    end
  end
  return entry
end

-- Delivers it again, unless that was done often enough.
local function deliver_again(self, position)
  local entry = self.pending[position]
  if not entry then
    return
  end
  if self.max_deliver > 0 and self.deliveries[position] >= self.max_deliver then
    forget(self, position)
  else
    entry.timer = nil
    self.again[#self.again + 1] = position
  end
  self:notify()
  self.stream.owner:check_idle()
end

local function arm(self, position, seconds)
  local clock = self.stream.clock
  local entry = self.pending[position]
  if entry.timer then
    entry.timer:cancel()
  end
  entry.timer = clock.timer(clock.now() + seconds, function()
    deliver_again(self, position)
  end)
end

-- The next position to deliver, or nil.
local function next_position(self, take)
  local stream = self.stream
  while self.again[1] do
    local position = self.again[1]
    if stream.records[position] and self.pending[position] then
      if take then
        table.remove(self.again, 1)
      end
      return position
    end
    table.remove(self.again, 1)
    forget(self, position)
  end
  if self.count >= self.max_ack_pending then
    return nil
  end
  for position = math.max(self.next, stream.first), stream.last do
    local record = stream.records[position]
    local wanted = record and matches(self, record.subject)
    if wanted and not (self.per_subject and stream.last_of[record.subject] ~= position) then
      self.next = take and position + 1 or position
      return position
    end
  end
  self.next = stream.last + 1
end

--- Whether there is something to take.
function Consumer:available()
  self.stream:expire()
  return next_position(self, false) ~= nil
end

--- Takes the next: its record, how often it was delivered and its place in the consumer; or nil.
function Consumer:take()
  self.stream:expire()
  local position = next_position(self, true)
  if not position then
    return nil
  end
  if not self.pending[position] then
    self.pending[position] = {}
    self.count = self.count + 1
  end
  self.deliveries[position] = (self.deliveries[position] or 0) + 1
  self.delivered = self.delivered + 1
  arm(self, position, self.ack_wait)
  return self.stream.records[position], self.deliveries[position], self.delivered
end

--- Settles a delivery: "ack", "drop", "again" (after `delay` seconds), "extend".
function Consumer:settle(position, how, delay)
  if not self.pending[position] then
    return
  elseif how == "extend" then
    return arm(self, position, self.ack_wait)
  elseif how == "again" and delay and delay > 0 then
    arm(self, position, delay)
  elseif how == "again" then
    self.pending[position].timer:cancel()
    deliver_again(self, position)
  else
    forget(self, position)
    self.deliveries[position] = nil
    self.stream:settled(position)
    self:notify()
  end
  self.stream.owner:check_idle()
end

--- Deliveries that somebody should see to now: not those that wait for their time.
function Consumer:busy()
  if next(self.listeners) == nil then
    return 0
  end
  local waiting = self:available() and 1 or 0
  for listener in pairs(self.listeners) do
    waiting = waiting + listener.unsettled_count
  end
  return waiting
end

-- --- streams ------------------------------------------------------------------------------------

local Stream = {}
Stream.__index = Stream

--- Makes one.
-- @param owner its method `check_idle` is called when something was settled
-- @tparam table clock
-- @tparam table config as `stream_config` of the descriptors makes it, and `name`
function M.new(owner, clock, config)
  local self = setmetatable({
    owner = owner,
    clock = clock,
    name = config.name,
    config = config,
    patterns = {},
    records = {}, -- by position
    first = 1,
    last = 0,
    count = 0,
    bytes = 0,
    last_of = {}, -- subject -> its last position
    ids = {}, -- message id -> position and time
    recent = {}, -- the ids, oldest first, at recent_first to recent_last
    recent_first = 1,
    recent_last = 0,
    consumers = {},
    serial = 0,
  }, Stream)
  for _, subject in ipairs(config.subjects or {}) do
    self:add_subject(subject)
  end
  return self
end

function Stream:add_subject(subject)
  self.patterns[#self.patterns + 1] = (pattern.parse(subject))
end

--- Whether it takes a subject, or the tokens of a pattern.
function Stream:covers(subject)
  local tokens = pattern.parse(subject)
  for _, each in ipairs(self.patterns) do
    if pattern.matches(each, tokens) then
      return true
    end
  end
  return false
end

function Stream:remove(position)
  local record = self.records[position]
  if not record then
    return
  end
  self.records[position] = nil
  self.count, self.bytes = self.count - 1, self.bytes - #record.payload
  if self.last_of[record.subject] == position then
    self.last_of[record.subject] = nil
  end
  while self.first <= self.last and not self.records[self.first] do
    self.first = self.first + 1
  end
end

--- Removes what is too old.
function Stream:expire()
  local age = self.config.max_age and self.config.max_age / 1e9
  if age then
    local oldest = self.clock.time() - age
    while self.records[self.first] and self.records[self.first].time < oldest do
      self:remove(self.first)
    end
  end
end

-- Room for a message; or an error.
local function make_room(self, subject, size)
  local config = self.config
  if config.max_msg_size and size > config.max_msg_size then
    return errors.new("too_large", self.name)
  end
  local function over()
    return (config.max_msgs and self.count + 1 > config.max_msgs)
      or (config.max_bytes and self.bytes + size > config.max_bytes)
  end
  if over() and config.discard == "new" then
    return errors.new("full", self.name)
  end
  while self.count > 0 and over() do
    self:remove(self.first)
  end
  if config.max_msgs_per_subject then
    local list = {}
    for position = self.first, self.last do
      local record = self.records[position]
      if record and record.subject == subject then
        list[#list + 1] = position
      end
    end
    for i = 1, #list - config.max_msgs_per_subject + 1 do
      self:remove(list[i])
    end
  end
end

-- What a message expects of the stream that is not so, as an error.
local function unmet(self, subject, headers)
  local function differs(name, value)
    local expected = headers["nats-expected-" .. name]
    if expected and expected ~= tostring(value) then
      return errors.new("conflict", ("%s is %s, not %s"):format(name, tostring(value), expected))
    end
  end
  return differs("stream", self.name)
    or differs("last-sequence", self.last)
    or differs("last-subject-sequence", self.last_of[subject] or 0)
    or differs("last-msg-id", self.last_id or "")
end

-- Forgets the ids of messages that may come again by now.
local function forget_ids(self, before)
  local recent, ids, first = self.recent, self.ids, self.recent_first
  while recent[first] and ids[recent[first]].time <= before do
    ids[recent[first]], recent[first] = nil, nil
    first = first + 1
  end
  self.recent_first = first
end

--- Stores a message.
-- @return the receipt; or nil and an error
function Stream:append(subject, payload, headers)
  self:expire()
  local now, id = self.clock.time(), headers["nats-msg-id"]
  forget_ids(self, now - (self.config.duplicate_window or DUPLICATES * 1e9) / 1e9)
  local known = id and self.ids[id]
  if known then
    return { stream = self.name, sequence = known.position, duplicate = true }
  end
  local err = unmet(self, subject, headers) or make_room(self, subject, #payload)
  if err then
    return nil, err
  end
  local position = self.last + 1
  self.last, self.count, self.bytes = position, self.count + 1, self.bytes + #payload
  if self.count == 1 then
    self.first = position
  end
  self.records[position] = { position = position, subject = subject, payload = payload, headers = headers, time = now }
  self.last_of[subject], self.last_id = position, id
  if id then
    self.ids[id] = { position = position, time = now }
    self.recent_last = self.recent_last + 1
    self.recent[self.recent_last] = id
  end
  for _, consumer in pairs(self.consumers) do
    consumer:notify()
  end
  return { stream = self.name, sequence = position, duplicate = false }
end

--- A message was acknowledged by a consumer: where retention says so, it goes.
function Stream:settled(position)
  local retention = self.config.retention
  if retention == "workqueue" then
    return self:remove(position)
  elseif retention == "interest" then
    for _, consumer in pairs(self.consumers) do
      if consumer.pending[position] or consumer.next <= position then
        return
      end
    end
    self:remove(position)
  end
end

--- The durable consumer of a descriptor, or a new one.
function Stream:consumer(descriptor)
  local name = descriptor.durable
  if not name then
    self.serial = self.serial + 1
    name = "ephemeral" .. self.serial
  end
  local consumer = self.consumers[name] or new_consumer(self, name, descriptor)
  self.consumers[name] = consumer
  return consumer
end

--- Forgets messages: all, of one subject, before a position, or all but the last so many.
-- @return how many
function Stream:purge(opts)
  local filter = opts.subject and pattern.parse(opts.subject)
  local list = {}
  for position = self.first, math.min(self.last, (opts.before or math.huge) - 1) do
    local record = self.records[position]
    if record and (not filter or pattern.matches(filter, (pattern.destination(record.subject)))) then
      list[#list + 1] = position
    end
  end
  local count = math.max(0, #list - (opts.keep or 0))
  for i = 1, count do
    self:remove(list[i])
  end
  return count
end

--- A function that says whether a subject is one of a pattern.
function M.filter(name)
  local tokens = pattern.parse(name)
  return function(subject)
    return pattern.matches(tokens, (pattern.destination(subject)))
  end
end

return M
