--- The memory broker: topics, groups and everything else that a broker does, in this process.
--
--     local memory = require "weir.broker.memory"
--     local broker = memory.new()
--     broker:connect()
--     local orders = broker:subscribe(memory.topic("orders.*", { group = "billing" }))
--     broker:publisher():publish("orders.new", "{}")
--     orders:next():ack()
--
-- It fulfils the contract of `weir.broker.contract` with all capabilities. docs/brokers.md says what the options mean.
-- @module weir.broker.memory

local contract = require("weir.broker.contract")
local descriptors = require("weir.broker.memory.descriptor")
local engines = require("weir.broker.memory.engine")
local errors = require("weir.errors")
local groups = require("weir.broker.memory.groups")
local history = require("weir.broker.memory.history")
local message = require("weir.broker.memory.message")
local new_state = require("weir.broker.state")
local publishers = require("weir.broker.memory.publisher")
local real_clock = require("weir.clock")
local recovery = require("weir.broker.memory.recovery")
local retention = require("weir.broker.memory.retention")
local size = require("weir.size")
local stores = require("weir.broker.memory.store")
local subscriptions = require("weir.broker.memory.subscription")

local memory = {}

local Broker = { __name = "weir.memory.broker", kind = "memory" }
Broker.__index = Broker

-- For `weir conformance`: what is wanted of a subscription are options of a topic.
Broker.conformance = {
  descriptor = function(name, wanted)
    local spec = { name = name }
    for option, value in pairs(wanted) do
      spec[option] = value
    end
    return spec
  end,
}

local OPTIONS = {
  capacity = "table",
  clock = { "table", "userdata" },
  dir = "string",
  group = { "string", "boolean" },
  max_payload = { "number", "string" },
  retention = "table",
  store = "table",
}
local CAPACITY = { messages = 10000, bytes = 64 * 1024 * 1024 }
local MAX_PAYLOAD = 8 * 1024 * 1024

--- Makes a broker. Nothing happens before `connect`.
-- @tparam[opt] table options
--
-- - `capacity`: default of the topics, `{ messages = 10000, bytes = "64 MiB" }`
-- - `max_payload`: bytes of a message with its headers, "8 MiB"
-- - `retention`: what topics keep for `seek`, `{ messages =, bytes =, seconds =, topics = }`; nothing without it
-- - `group`: the group of subscriptions that name none; without it each of them gets everything. With `dir` it is
--   "default", because only groups can be kept; false: there is none
-- - `dir`: a directory where the unsettled messages of groups and what is retained are kept; groups are durable then
--   unless they say otherwise; `store`: its options, `{ sync =, max_bytes = }`
-- - `clock`: what delays and retention go by, `weir.clock`
function memory.new(options)
  options = errors.options("weir.broker.memory", options, OPTIONS, 2)
  local function check(name, wrong)
    if wrong then
      error(("weir.broker.memory: option '%s': %s"):format(name, wrong), 3)
    end
  end
  check("capacity", options.capacity and descriptors.capacity_flaw(options.capacity))
  check("retention", options.retention and retention.flaw(options.retention))
  local max_payload, wrong = size.parse(options.max_payload or MAX_PAYLOAD)
  check("max_payload", wrong)
  check("group", options.group == true and "must be a name, or false" or nil)
  check("store", options.store and not options.dir and "needs a 'dir'" or stores.flaw(options.store))
  local clock = options.clock or real_clock
  return setmetatable({
    clock = clock,
    options = options,
    capacity = descriptors.capacity(options.capacity, CAPACITY),
    status = new_state(),
    engine = engines.new({
      clock = clock,
      max_payload = max_payload,
      slow_publish = publishers.slow_publish,
      slow_next = subscriptions.slow_next,
      log = options.retention and retention.new(options.retention, clock) or nil,
    }),
    group = options.group or (options.group == nil and options.dir and "default") or nil,
    durable = options.dir ~= nil, -- whether groups are, where nothing else is said
    serial = 0, -- subscriptions without group that there were
  }, Broker)
end

--- A topic, or a pattern of topics, with options for the subscription.
-- @tparam string name tokens split by dots; `*` stands for one token, `>` at the end for one or more
-- @tparam[opt] table options `group`, `durable`, `prefetch`, `ack_wait`, `capacity`, `overflow`, `from`
-- @treturn table a descriptor
function memory.topic(name, options)
  if options ~= nil and type(options) ~= "table" then
    error("memory.topic: options are a table, not a " .. type(options), 2)
  end
  local spec = { name = name }
  for key, value in pairs(options or {}) do
    if key == "name" then
      error("memory.topic: the name is the first argument", 2)
    end
    spec[key] = value
  end
  local descriptor, err = descriptors.make(spec)
  if not descriptor then
    error("memory." .. err.message, 2)
  end
  return descriptor
end

--- What a subscription of this broker can do: everything, `seek` with `retention`, `persist` with `dir`.
-- @tparam[opt] table|string descriptor
function Broker:capabilities(descriptor)
  local list = {}
  for name in pairs(contract.capabilities) do
    list[name] = true
  end
  list.seek = self.options.retention ~= nil or nil
  local made = descriptor and self:descriptor(descriptor)
  list.persist = self.options.dir ~= nil and (not made or made.group ~= nil) or nil
  return list
end

-- What a name or a table asks for, in the group of the broker where it names none. `group = false` asks for none.
local function with_group(spec, group)
  local full = { group = group }
  for name, value in pairs(type(spec) == "table" and spec or { name = spec }) do
    full[name] = value
  end
  full.group = full.group or nil
  return full
end

--- Makes a descriptor of a name or of a table of options with `name`.
-- @treturn ?table
-- @return an error "invalid" that lists everything that is wrong
function Broker:descriptor(spec)
  if self.group and (type(spec) == "string" or (type(spec) == "table" and not descriptors.is(spec))) then
    spec = with_group(spec, self.group)
  end
  local descriptor, err = descriptors.make(spec)
  if descriptor and self.durable and descriptor.group and descriptor.durable == nil then
    descriptor = descriptors.with(descriptor, { durable = true })
  end
  if descriptor and descriptor.from and descriptor.from ~= "new" and not self.options.retention then
    return nil, errors.new("unsupported", "topic " .. descriptor.name .. ": 'from' needs a broker with 'retention'")
  end
  return descriptor, err
end

--- Connects; with `dir`, opens the store there and takes up what it has.
-- @treturn boolean true; or nil and an error: "closed", "locked", "io"
function Broker:connect()
  local engine = self.engine
  if engine.is_closed then
    return nil, engines.CLOSED
  elseif engine.is_open then
    return true
  end
  if self.options.dir then
    self.status:set("connecting")
    local ok, err = recovery.open(engine, self.options.dir, self.options.store)
    if not ok then
      self.status:set("failed", err)
      return nil, err
    end
  end
  engine:open()
  self.status:set("up")
  return true
end

--- "new", "connecting", "up", "failed" or "closed", and the error that is the reason.
function Broker:state()
  return self.status:get()
end

--- Calls `fn(state, err)` at each change.
-- @treturn function ends that
function Broker:watch(fn)
  return self.status:watch(fn)
end

-- The queue that a descriptor asks for, made if need be, and the descriptor; or nil and an error. `durable`: it is one
-- that stays, whatever the descriptor says.
local function queue_of(self, spec, durable)
  local descriptor, err = self:descriptor(spec)
  err = err or self.engine:refusal()
  if err then
    return nil, err
  elseif durable then
    descriptor = descriptors.with(descriptor, { group = descriptor.group or "default", durable = true })
  end
  local key
  if descriptor.group then
    key = groups.key(descriptor)
  else
    self.serial = self.serial + 1
    key = ("\0%d"):format(self.serial)
  end
  local queue
  queue, err = groups.queue(self.engine, key, descriptor, self.capacity)
  return queue, err or descriptor
end

--- Subscribes: from now on, what is published to the topic waits here. Members of one group share what comes.
-- @tparam table|string descriptor
-- @treturn table a subscription; or nil and an error: "closed", "disconnected", "invalid", "unsupported", "conflict",
-- "position_evicted"
function Broker:subscribe(descriptor)
  local queue, made = queue_of(self, descriptor)
  if not queue then
    return nil, made
  end
  return subscriptions.new(self.engine, queue, made)
end

--- Makes a durable group without subscribing to it, so that what is published there stays for who comes later.
-- @tparam table|string descriptor without a group it gets the group "default"
-- @treturn boolean true; or nil and an error as of `subscribe`
function Broker:declare(descriptor)
  local queue, err = queue_of(self, descriptor, true)
  if not queue then
    return nil, err
  end
  return true
end

--- The descriptor with which dead letters are kept and taken: a durable group. When it is full, no more dead letters
-- are taken, so that what failed stays where it was.
function Broker:dead_letters(name)
  return self:descriptor({ name = name, group = "dead-letters", durable = true, overflow = "reject" })
end

--- Makes a publisher; that may be done before `connect`.
-- @tparam[opt] table options `timeout`: seconds that a publish may wait for room
function Broker:publisher(options)
  return publishers.new(self.engine, options)
end

--- What waits at a destination, oldest first, without taking it: in its groups, each message once; where there is none,
-- what is retained.
-- @tparam string destination a name, or the pattern of a group
-- @tparam[opt=100] number limit
-- @treturn table a list of messages without settlement; or nil and an error
function Broker:browse(destination, limit)
  limit = limit or 100
  if type(destination) ~= "string" or type(limit) ~= "number" then
    error("broker:browse: a destination and a number are expected", 2)
  end
  local refusal = self.engine:refusal()
  if refusal then
    return nil, refusal
  end
  return contract.collect(history.cursor(self.engine, destination, limit), limit)
end

--- The same, one after the other.
-- @tparam string destination a name, or the pattern of a group
-- @return a cursor: `next()`, `close()`; or nil and an error
function Broker:cursor(destination)
  if type(destination) ~= "string" then
    error("broker:cursor: a destination is expected", 2)
  end
  local refusal = self.engine:refusal()
  if refusal then
    return nil, refusal
  end
  return history.cursor(self.engine, destination, math.huge)
end

--- Deliveries that are ready or being handled, not the delayed ones, in queues that have a subscription.
function Broker:pending()
  return self.engine:pending()
end

--- Calls `fn()` whenever `pending()` becomes 0. It must not wait.
-- @treturn function ends that
function Broker:on_idle(fn)
  return self.engine:on_idle(fn)
end

--- For documents.
function Broker:describe()
  return { protocol = "memory", host = "localhost", pathname = self.options.dir, version = nil }
end

--- Another broker with the same options that keeps nothing on disk and goes by `clock`.
-- @tparam[opt] table clock
function Broker:in_process(clock)
  local options = {}
  for name, value in pairs(self.options) do
    options[name] = value
  end
  options.dir, options.store = nil, nil
  options.clock = clock or real_clock
  local twin = memory.new(options)
  twin.group, twin.durable = self.group, self.durable
  return twin
end

--- Numbers of the broker: queues, subscriptions, remembered names, inboxes, messages held, retained.
function Broker:stats()
  return self.engine:stats()
end

--- Closes everything; what is kept on disk is written. From then on everything gives "closed".
-- @treturn boolean true; or nil and an error of the store
function Broker:shutdown()
  local engine = self.engine
  if engine.is_closed then
    return true
  end
  local store = engine.store
  engine:close()
  self.status:set("closed")
  if store then
    return store:close()
  end
  return true
end

Broker.__close = Broker.shutdown

function Broker:__tostring()
  return ("weir.memory.broker(%s)"):format((self.status:get()))
end

memory.NO_HEADERS = message.NO_HEADERS

return memory
