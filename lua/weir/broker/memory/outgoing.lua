--- The way of messages into the queues of the memory broker, where it is not the fast one of `weir.broker.memory.lane`:
-- checked, given room, numbered, stored, retained, handed out; several together or not at all.
-- @module weir.broker.memory.outgoing

local engines = require("weir.broker.memory.engine")
local errors = require("weir.errors")
local message = require("weir.broker.memory.message")
local pattern = require("weir.broker.memory.pattern")
local runtime = require("weir.runtime")

local outgoing = {}

local CLOSED, INBOX, NO_HEADERS = engines.CLOSED, engines.INBOX, message.NO_HEADERS

-- A queue that has no room for what is demanded of it, one that rejects before those that are waited for; whether
-- it is one of these.
local function first_full(demand)
  local found
  for queue, wanted in pairs(demand) do
    local overflow = queue.overflow
    if (overflow == "wait" or overflow == "reject") and queue.routed and not queue:fits(wanted[1], wanted[2]) then
      if overflow == "reject" then
        return queue, false
      end
      found = queue
    end
  end
  return found, found ~= nil
end

-- Waits until all queues have room for what `demand` says: queue -> `{ messages, bytes }`. True; or nil and an error:
-- "full", "timeout", "cancelled", "closed".
local function await_room(engine, demand, deadline)
  while true do
    local full, wait = first_full(demand)
    if not full then
      return true
    elseif not wait then
      local text = "the queue of %s is full: %d messages, %d bytes"
      return nil, errors.new("full", text:format(full.name, full:held(), full:bytes()), { destination = full.name })
    end
    local waiter = runtime.own_waiter()
    full.senders:add(waiter)
    full:watch()
    local _, err = waiter:wait(deadline)
    local woken = full.senders:remove(waiter)
    if full.senders.count == 0 then
      full:watch()
    end
    if engine.is_closed then
      return nil, CLOSED
    elseif err then
      if woken then
        full.senders:wake_one()
      end
      return nil, err
    end
  end
end

-- Whether everything that `item` goes to has room without asking further.
local function roomy(routes, size)
  for i = 1, #routes do
    local queue = routes[i]
    local room, free = queue.lane.room()
    if room < 1 or free < size then
      return false
    end
  end
  return true
end

-- Adds what an item asks of each queue.
local function demand_of(demand, item)
  for _, queue in ipairs(item.topic.routes) do
    local wanted = demand[queue]
    if not wanted then
      wanted = { 0, 0 }
      demand[queue] = wanted
    end
    wanted[1], wanted[2] = wanted[1] + 1, wanted[2] + item.size
    if item.size > queue.max_bytes and (queue.overflow == "wait" or queue.overflow == "reject") then
      local text = "%d bytes are more than the queue of %s may ever hold (%d)"
      return errors.new("too_large", text:format(item.size, queue.name, queue.max_bytes))
    end
  end
end

--- Checks what is to be published, before anything happens.
-- @treturn ?table an item: `destination`, `payload`, `headers`, `size`
-- @return an error: "invalid", "too_large"
function outgoing.item(engine, destination, payload, headers)
  if type(destination) ~= "string" then
    error(("publish: a destination is a name, not a %s"):format(type(destination)), 0)
  elseif type(payload) ~= "string" then
    error(("publish: a payload is a string, not a %s; codecs make strings of values"):format(type(payload)), 0)
  elseif headers ~= nil and type(headers) ~= "table" then
    error(("publish: headers are a table, not a %s"):format(type(headers)), 0)
  end
  if headers == nil or next(headers) == nil then
    headers = NO_HEADERS
  end
  local size = message.size(payload, headers)
  if size > engine.max_payload then
    local text = "the message has %d bytes, headers included; the broker takes %d ('max_payload')"
    return nil, errors.new("too_large", text:format(size, engine.max_payload), { destination = destination })
  end
  if not engine.topics[destination] then
    local _, wrong = pattern.destination(destination)
    if wrong then
      return nil, errors.new("invalid", wrong, { destination = destination })
    end
  end
  return { destination = destination, payload = payload, headers = headers, size = size }
end

-- Hands an item to the inbox of that name.
local function answer(engine, item)
  local inbox = engine.inboxes[item.destination]
  if inbox and not inbox.reply then
    local reply = message.new(nil, item.payload, item.headers, item.size, item.destination, item.id, item.time, 1)
    reply.slot = message.COPY
    inbox.reply = reply
    inbox.waiter:wake()
  end
end

local function keys_of(routes)
  local keys
  for _, queue in ipairs(routes) do
    if queue.store then
      keys = keys or {}
      keys[#keys + 1] = queue.key
    end
  end
  return keys
end

-- Keeps the room that was found for items while they are being stored, which takes a while.
local function reserve(items)
  for _, item in ipairs(items) do
    for _, queue in ipairs(item.topic.routes) do
      if queue:reserve(item.size) then
        item.reserved = item.reserved or {}
        table.insert(item.reserved, queue)
      end
    end
  end
end

-- Hands items that have a place to the store, if it is to know them.
local function persist(engine, items)
  local records = {}
  for _, item in ipairs(items) do
    local keys = keys_of(item.topic.routes)
    local retain = engine.log ~= nil and not item.inbox
    if keys or retain then
      records[#records + 1] = {
        id = item.id,
        destination = item.destination,
        payload = item.payload,
        headers = item.headers,
        time = item.time,
        keys = keys or {},
        retain = retain,
      }
    end
  end
  if #records == 0 then
    return true
  end
  reserve(items)
  local ok, err = engine.store:append(records)
  for _, item in ipairs(items) do
    for _, queue in ipairs(item.reserved or {}) do
      queue:unreserve(item.size)
      if not ok then
        queue:moved()
      end
    end
  end
  return ok, err
end

-- Gives an item to one queue, if that has or makes room for it.
local function give(queue, item)
  local overflow = queue.overflow
  if (overflow == "drop_oldest" or overflow == "drop_newest") and not queue:make_room(item.size) then
    if queue.store then
      queue.store:settle(queue.key, item.id)
    end
  elseif queue.routed then
    queue:deliver(
      message.new(queue, item.payload, item.headers, item.size, item.destination, item.id, item.time, 1)
    )
  end
end

-- Puts an item where it goes.
local function distribute(engine, item)
  if item.inbox then
    return answer(engine, item)
  elseif engine.log then
    engine.log:add(item)
  end
  local routes = item.topic.routes
  for i = 1, #routes do
    give(routes[i], item)
  end
end

-- Finds out where items go and what they ask of whom. Returns the demand where somebody may have to wait, false where
-- nobody has; or nil and an error.
local function address(engine, items)
  local demand, waits = {}, false
  for _, item in ipairs(items) do
    item.inbox = item.destination:sub(1, #INBOX) == INBOX
    local topic, wrong = engine:topic(item.destination)
    if not topic then
      return nil, wrong
    end
    item.topic = topic
    if #items > 1 or not roomy(topic.routes, item.size) then
      waits = true
      local err = demand_of(demand, item)
      if err then
        return nil, err
      end
    end
  end
  return waits and demand
end

--- Publishes checked items, all or none of them.
-- @tparam table items
-- @tparam ?number deadline until which it may wait for room
-- @treturn boolean true; or nil and an error
function outgoing.publish_items(engine, items, deadline)
  local cancelled = engine.shared.refresh() -- which may give others a turn
  local refusal = engine:refusal() or cancelled
  if refusal then
    return nil, refusal
  end
  local demand, err = address(engine, items)
  if demand then
    local _
    _, err = await_room(engine, demand, deadline)
  end
  if err then
    return nil, err
  end
  local before, time = engine.shared.claim(#items)
  for i, item in ipairs(items) do
    item.id, item.time = before + i, time
    item.topic = engine:topic(item.destination) -- a subscription may have come or gone meanwhile
  end
  if engine.store then
    local ok
    ok, err = persist(engine, items)
    if not ok then
      return nil, err
    end
  end
  for _, item in ipairs(items) do
    distribute(engine, item)
  end
  return true
end

--- Publishes one message, whatever has to be done for that.
-- @treturn boolean true; or nil and an error
function outgoing.publish(engine, destination, payload, headers, deadline)
  local item, err = outgoing.item(engine, destination, payload, headers)
  if not item then
    return nil, err
  end
  return outgoing.publish_items(engine, { item }, deadline)
end

return outgoing
