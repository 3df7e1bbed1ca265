--- What the specs of the memory broker share.
local support = {}

local memory = require("weir.broker.memory")
local new_clock = require("weir.test.clock")

--- A connected broker; its clock stands still unless `options.clock` is false.
function support.broker(options)
  local with = { clock = new_clock(1000) }
  for name, value in pairs(options or {}) do
    with[name] = value
  end
  with.clock = with.clock or nil
  local broker = memory.new(with)
  assert(broker:connect())
  return broker, broker.clock
end

--- The payloads of everything that waits, joined; each is acknowledged.
function support.drain(subscription)
  local list = {}
  local message = subscription:try_next()
  while message do
    list[#list + 1] = message.payload
    assert(message:ack())
    message = subscription:try_next()
  end
  return table.concat(list, " ")
end

--- Publishes each word of a text.
function support.publish(publisher, destination, text)
  for word in text:gmatch("%S+") do
    assert(publisher:publish(destination, word))
  end
end

return support
