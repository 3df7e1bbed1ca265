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

--- Copies of what waits at a destination.
function history.browse(engine, destination, limit)
  local list, copies, last = {}, {}, nil
  local found = false
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
  for _, delivery in ipairs(list) do
    if #copies < limit and delivery.position ~= last then
      copies[#copies + 1] = message.copy(delivery)
      last = delivery.position
    end
  end
  return copies
end

return history
