--- Publishes to durable streams, exactly once: a producer for each stream.
-- @module weir.broker.durable.publisher

local contract = require("weir.broker.contract")
local envelope = require("weir.broker.durable.envelope")
local errors = require("weir.errors")
local runtime = require("weir.runtime")

local M = {}

local Publisher = { __name = "weir.broker.durable.publisher" }
Publisher.__index = Publisher

-- Streams whose producers are kept; of more, the one that was used least recently is let go.
local MOST_PRODUCERS = 1000

local OPTIONS = { timeout = true }

-- Lets go of the producer that was used least recently and has nothing to send.
local function forget_one(self)
  local oldest
  for name, entry in pairs(self.producers) do
    if entry.users == 0 and (not oldest or entry.used < self.producers[oldest].used) then
      oldest = name
    end
  end
  if oldest then
    self.producers[oldest] = nil
    self.count = self.count - 1
  end
end

-- The producer of a stream, and room for it. The stream is created when it is new.
local function producer_of(self, destination, timeout)
  local entry = self.producers[destination]
  if not entry then
    local stream, err = self.broker:stream(destination, timeout)
    if not stream then
      return nil, err
    end
    entry = self.producers[destination]
    if not entry then
      if self.count >= MOST_PRODUCERS then
        forget_one(self)
      end
      entry = { producer = self.broker:producer(destination), users = 0 }
      self.producers[destination] = entry
      self.count = self.count + 1
    end
  end
  self.uses = self.uses + 1
  entry.used = self.uses
  return entry
end

-- A producer that has failed takes nothing more: the next publish makes a new one.
local function drop(self, destination, entry)
  if self.producers[destination] == entry then
    self.producers[destination] = nil
    self.count = self.count - 1
  end
end

local function encode(self, destination, payload, headers, options)
  if type(destination) ~= "string" or destination == "" then
    error("publisher:publish: a destination is expected, not " .. tostring(destination), 3)
  elseif type(payload) ~= "string" then
    error("publisher:publish: the payload is a string, not a " .. type(payload), 3)
  end
  for name in pairs(options or {}) do
    if not OPTIONS[name] then
      return nil, contract.unsupported("durable", ("option '%s' of publish"):format(tostring(name)))
    end
  end
  if self.broker.closed then
    return nil, self.broker.closed
  elseif #payload > self.broker.max_payload then
    local message = ("the payload has %d bytes; at most %d are taken"):format(#payload, self.broker.max_payload)
    return nil, errors.new("too_large", message)
  end
  return envelope.encode(payload, headers)
end

-- What the application is to know of an error of the producer's.
local function explain(err)
  if err.code == "timeout" then
    return errors.with(err, { message = "the server did not confirm in time; the message may still arrive, once" })
  end
  return err
end

--- Publishes, and waits until the server has the message: see the contract.
-- @tparam[opt] table options `timeout` in seconds (30 when left out)
function Publisher:publish(destination, payload, headers, options)
  local text, err = encode(self, destination, payload, headers, options)
  if not text then
    return nil, err
  end
  local timeout = options and options.timeout or self.timeout
  local deadline = runtime.now() + timeout
  local entry
  entry, err = producer_of(self, destination, timeout)
  if not entry then
    return nil, err
  end
  entry.users = entry.users + 1
  local item, ok
  item, err = entry.producer:append(text, math.max(0, deadline - runtime.now()))
  if item then
    ok, err = entry.producer:flush(math.max(0, deadline - runtime.now()))
  end
  entry.users = entry.users - 1
  if not ok then
    if err.code ~= "timeout" and err.code ~= "cancelled" then
      drop(self, destination, entry)
    end
    return nil, explain(err)
  end
  return true
end

-- Appends what can be appended; notes which producers have to be waited for.
local function append_all(self, items, results, deadline)
  local waiting = {}
  for i, item in ipairs(items) do
    local text, err = encode(self, item[1], item[2], item[3], item[4])
    local entry, number
    if text then
      entry, err = producer_of(self, item[1], self.timeout)
    end
    if entry then
      number, err = entry.producer:append(text, math.max(0, deadline - runtime.now()))
    end
    if number then
      if not waiting[entry] then
        waiting[entry] = { destination = item[1], numbers = {} }
        entry.users = entry.users + 1
      end
      waiting[entry].numbers[i] = number
    else
      results[i] = explain(err)
    end
  end
  return waiting
end

--- Publishes several: see the contract. Those for one stream go in one request where they fit.
function Publisher:publish_batch(items)
  local results, deadline = {}, runtime.now() + self.timeout
  local waiting = append_all(self, items, results, deadline)
  for entry, group in pairs(waiting) do
    local ok, err = entry.producer:flush(math.max(0, deadline - runtime.now()))
    entry.users = entry.users - 1
    for i, number in pairs(group.numbers) do
      local confirmed = ok or (err.first_item and number < err.first_item)
      results[i] = confirmed and true or explain(err)
    end
    if not ok and err.code ~= "timeout" and err.code ~= "cancelled" then
      drop(self, group.destination, entry)
    end
  end
  for i = 1, #items do
    if results[i] ~= true then
      return nil, results[i], results
    end
  end
  return true, nil, results
end

--- These streams have no replies.
function Publisher:request()
  return nil, self.broker.closed or contract.unsupported("durable", "requests")
end

--- These streams have no transactions.
function Publisher:transaction()
  return nil, self.broker.closed or contract.unsupported("durable", "transactions")
end

--- Waits until the server has everything.
function Publisher:flush(timeout)
  if self.broker.closed then
    return nil, self.broker.closed
  end
  local deadline = runtime.now() + (timeout or self.timeout)
  local ok, err, list = true, nil, {}
  for _, entry in pairs(self.producers) do -- others come while this waits
    list[#list + 1] = entry
  end
  for _, entry in ipairs(list) do
    local flushed, failure = entry.producer:flush(math.max(0, deadline - runtime.now()))
    if not flushed then
      ok, err = nil, err or explain(failure)
    end
  end
  return ok, err
end

--- Makes a publisher.
function M.new(broker, timeout)
  return setmetatable({ broker = broker, timeout = timeout, producers = {}, count = 0, uses = 0 }, Publisher)
end

return M
