--- The memory broker's durable side: what a store has is taken up again, and groups are made known to it.
-- @module weir.broker.memory.recovery

local descriptors = require("weir.broker.memory.descriptor")
local message = require("weir.broker.memory.message")
local stores = require("weir.broker.memory.store")

local recovery = {}

-- What the store keeps of a group, and the contrary.
local function spec_of(queue)
  return {
    name = queue.name,
    group = queue.group,
    overflow = queue.overflow,
    ack_wait = queue.ack_wait,
    messages = queue.max_messages,
    bytes = queue.max_bytes,
  }
end

local function restore_group(engine, store, key, spec)
  local descriptor, err = descriptors.make({
    name = spec.name,
    group = spec.group,
    durable = true,
    overflow = spec.overflow,
    ack_wait = spec.ack_wait,
    capacity = { messages = spec.messages, bytes = spec.bytes },
  })
  if not descriptor then
    error(err.message, 0)
  end
  engine:queue(key, descriptor, descriptors.capacity(descriptor.capacity, {}), store)
end

local function restore_delivery(engine, key, id, record, attempts, due)
  local queue = engine.queues[key]
  local size = message.size(record.payload, record.headers)
  local delivery = message.new(
    queue,
    record.payload,
    next(record.headers) and record.headers or message.NO_HEADERS,
    size,
    record.destination,
    id,
    record.time,
    attempts + 1
  )
  local delay = due and due - engine.clock.time() or 0
  if delay > 0 then
    queue:deliver_at(delivery, engine.clock.now() + delay)
  else
    queue:deliver(delivery)
  end
end

local function restore_record(engine, id, record)
  engine.log:add({
    id = id,
    destination = record.destination,
    payload = record.payload,
    headers = next(record.headers) and record.headers or message.NO_HEADERS,
    size = message.size(record.payload, record.headers),
    time = record.time,
  })
end

--- Opens the store of a broker, and takes up what is in it.
-- @tparam table engine
-- @tparam string dir
-- @tparam ?table options of the store
-- @treturn boolean true; or nil and an error: "locked", "damaged", "permission", "unsupported", ...
function recovery.open(engine, dir, options)
  local store, err = stores.open(dir, options)
  if not store then
    return nil, err
  end
  local log, evicted = engine.log, {}
  if log then -- what is evicted while it is read is told afterwards
    log.store = {
      evict = function(_, id)
        evicted[#evicted + 1] = id
      end,
    }
  end
  local last
  last, err = store:load(function(key, spec)
    restore_group(engine, store, key, spec)
  end, function(key, id, record, attempts, due)
    restore_delivery(engine, key, id, record, attempts, due)
  end, function(id, record)
    if log then
      restore_record(engine, id, record)
    else
      evicted[#evicted + 1] = id -- it was retained by another configuration
    end
  end)
  if not last then
    store:close()
    for _, queue in pairs(engine.queues) do
      engine:drop_queue(queue)
    end
    if log then
      log:clear()
    end
    return nil, err
  end
  for _, id in ipairs(evicted) do
    store:evict(id)
  end
  if log then
    log.store = store
  end
  engine.shared.advance(last)
  engine.store = store
  return true
end

--- Makes a durable group known to the store, or its new settings.
-- @tparam table engine
-- @tparam string key
-- @tparam table queue or what it will be
-- @treturn boolean true; or nil and an error
function recovery.declare(engine, key, queue)
  return engine.store:declare(key, spec_of(queue))
end

return recovery
