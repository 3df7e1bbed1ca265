--- One producer and 1, 10, 100 and 1000 consumers of one node, 100-byte messages: the cost of one
-- delivery, beside that with a single consumer. A codec that counts shows that each message is
-- encoded once.

local support = dofile("bench/support.lua")
local weir = require("weir")

local DELIVERIES = math.floor(1e6 * support.seconds)

local function deliver(consumers)
  local count = DELIVERIES // consumers
  local encoded = 0
  local codec = {
    name = "counting",
    encode = function(value)
      encoded = encoded + 1
      return value
    end,
    decode = function(bytes)
      return bytes
    end,
  }
  return weir.run(function()
    local net = assert(weir.network())
    local producer = net:produce("bench", { lag = "block", codec = codec, online_when = consumers })
    local message = ("x"):rep(100)
    local group = {}
    for i = 1, consumers do
      local consumer = net:consume("bench", { codec = codec })
      group[i] = weir.spawn(function()
        for _ = 1, count do
          assert(consumer:recv())
        end
      end)
    end
    assert(producer:when():online(10))
    collectgarbage()
    local start = os.clock()
    for _ = 1, count do
      producer:send(message)
    end
    for _, task in ipairs(group) do
      task:join()
    end
    local seconds = os.clock() - start
    net:close()
    assert(encoded == count, "each message must be encoded once")
    return seconds / (count * consumers) * 1e9
  end)
end

for _, consumers in ipairs({ 10, 100, 1000 }) do
  local ours, theirs = support.alternate(function()
    return deliver(consumers)
  end, function()
    return deliver(1)
  end)
  support.claim({
    name = "fanout." .. consumers,
    weir = support.median(ours),
    baseline = support.median(theirs),
    unit = "ns/delivery",
    goal = 1.5,
    cost = true,
  })
end
