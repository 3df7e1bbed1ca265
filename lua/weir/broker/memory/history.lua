--- Looking at what waits at a destination of the memory broker, and going back in what is retained.
-- @module weir.broker.memory.history

local errors = require("weir.errors")
local message = require("weir.broker.memory.message")

local history = {}

--- Replaces what a queue holds by what is retained from a position on.
-- @tparam table queue
-- @param position "start", "end", or a number
-- @treturn boolean true; or nil and an error: "unsupported", "invalid", "position_evicted"; then nothing has changed
function history.seek(engine, queue, position)
  local refusal = engine:refusal()
  if refusal then
    return nil, refusal
  elseif not engine.log then
    return nil, errors.new("unsupported", "seek needs a memory broker with 'retention'", { broker = "memory" })
  end
  local last = engine.shared.sequence()
  local from = position == "start" and 0 or position == "end" and last + 1 or position
  if type(from) ~= "number" or from % 1 ~= 0 or from < 0 or from > last + 1 then
    local text = "there is no position %s; it is \"start\", \"end\" or that of a message (the last is %d)"
    return nil, errors.new("invalid", text:format(tostring(position), last))
  end
  local records, evicted = engine.log:read(queue.name, queue.pattern and queue.tokens, from)
  if position ~= "start" and from <= evicted then
    local text = "position %d of %s is not kept any more; the oldest is %d"
    return nil, errors.new("position_evicted", text:format(from, queue.name, evicted + 1), { position = from })
  end
  queue:clear()
  for _, item in ipairs(records) do
    if queue.store then
      queue.store:requeue(queue.key, item.id, 0, nil)
    end
    queue:deliver(message.new(queue, item.payload, item.headers, item.size, item.destination, item.id, item.time, 1))
  end
  return true
end

-- Up to `limit` of the deliveries that wait in a queue.
local function waiting(queue, limit, list)
  for i = 1, math.min(queue.lane.ready(), limit) do
    list[#list + 1] = queue.lane.peek(i)
  end
  for delivery in pairs(queue.delayed) do
    list[#list + 1] = delivery
  end
end

local Cursor = {}
Cursor.__index = Cursor

--- A copy of the next one; nil at the end. Of those that several groups have, one.
function Cursor:next()
  local list = self.list
  while self.at < #list do
    self.at = self.at + 1
    local delivery = list[self.at]
    list[self.at] = false
    if delivery.position ~= self.last then
      self.last = delivery.position
      return message.copy(delivery)
    end
  end
end

--- Forgets the rest.
function Cursor:close()
  self.list, self.at = {}, 0
end

--- What waits at a destination now, as a cursor. Its payloads are those that the queues have.
-- @tparam number limit messages that are wanted
function history.cursor(engine, destination, limit)
  local list, found = {}, false
  for _, queue in ipairs(engine.exact[destination] or engine.patterns) do
    if queue.name == destination then
      found = true
      waiting(queue, limit, list)
    end
  end
  if not found and engine.log then
    for _, item in ipairs((engine.log:read(destination, nil, 0))) do
      list[#list + 1] =
        message.new(nil, item.payload, item.headers, item.size, item.destination, item.id, item.time, 1)
    end
  end
  table.sort(list, function(a, b)
    return a.position < b.position
  end)
  return setmetatable({ list = list, at = 0 }, Cursor)
end

return history
