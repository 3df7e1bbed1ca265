--- The queues that subscriptions of the memory broker share: made, joined, made durable.
-- @module weir.broker.memory.groups

local descriptors = require("weir.broker.memory.descriptor")
local errors = require("weir.errors")
local history = require("weir.broker.memory.history")
local recovery = require("weir.broker.memory.recovery")

local groups = {}

local SETTINGS = { "durable", "overflow", "ack_wait" }

-- The capacity that a descriptor asks for, the rest being that of the queue or of the broker.
local function capacity_of(descriptor, rest)
  return descriptors.capacity(descriptor.capacity, rest)
end

local function own_capacity(queue)
  return { messages = queue.max_messages, bytes = queue.max_bytes }
end

-- What of a descriptor contradicts the queue that there is; what it does not say contradicts nothing.
local function conflict(queue, descriptor)
  for _, name in ipairs(SETTINGS) do
    if descriptor[name] ~= nil and descriptor[name] ~= queue[name] then
      return name
    end
  end
  local wanted = capacity_of(descriptor, own_capacity(queue))
  if wanted.messages ~= queue.max_messages or wanted.bytes ~= queue.max_bytes then
    return "capacity"
  end
end

-- Tells the store of a group: its settings are those of `queue`, or of a queue to come.
local function keep(engine, key, settings)
  local ok, err = recovery.declare(engine, key, settings)
  if ok and engine.is_closed then
    return nil, engine:refusal()
  end
  return ok, err
end

-- A group that is there already. Its members agree about the settings; the first after all have gone may change them.
local function join(engine, queue, descriptor)
  local differs = conflict(queue, descriptor)
  if not differs then
    return true
  elseif next(queue.subscriptions) then
    local text = "the group '%s' of topic %s is there already, with another '%s'"
    return nil, errors.new("conflict", text:format(descriptor.group, descriptor.name, differs))
  end
  queue:adopt(descriptor, capacity_of(descriptor, own_capacity(queue)))
  if not queue.store then
    return true
  elseif queue.durable then
    return keep(engine, queue.key, queue)
  end
  local store = queue.store
  queue:keep_in(nil)
  return store:forget(queue.key)
end

-- A group that is new. What it is to keep, the store knows before anything can come.
local function make(engine, key, descriptor, capacity)
  local durable = engine.store ~= nil and descriptor.durable
  if durable then
    local settings = {
      name = descriptor.name,
      group = descriptor.group,
      overflow = descriptor.overflow,
      ack_wait = descriptor.ack_wait,
      max_messages = capacity.messages,
      max_bytes = capacity.bytes,
    }
    local ok, err = keep(engine, key, settings)
    if not ok then
      return nil, err
    elseif engine.queues[key] then -- somebody else made it meanwhile
      return groups.queue(engine, key, descriptor, capacity)
    end
  end
  local queue = engine:queue(key, descriptor, capacity, durable and engine.store or nil)
  if descriptor.from and descriptor.from ~= "new" then
    local ok, err = history.seek(engine, queue, descriptor.from)
    if not ok then
      engine:drop_queue(queue)
      if durable then
        engine.store:forget(key)
      end
      return nil, err
    end
  end
  return queue
end

--- The key of a group: what the engine and the store know it by.
function groups.key(descriptor)
  return descriptor.name .. "\0" .. descriptor.group
end

--- The queue of a key, made if there is none.
-- @tparam table engine
-- @tparam string key
-- @tparam table descriptor
-- @tparam table capacity what the descriptor does not say of it
-- @treturn table the queue; or nil and an error: "conflict", "closed", "invalid", "position_evicted", of the store
function groups.queue(engine, key, descriptor, capacity)
  local queue = engine.queues[key]
  if not queue then
    return make(engine, key, descriptor, capacity_of(descriptor, capacity))
  end
  local ok, err = join(engine, queue, descriptor)
  if not ok then
    return nil, err
  end
  return queue
end

return groups
