--- One process, Lua to Lua: a producer task and a consumer task of one node, 100-byte messages, beside
-- a bare loop of coroutine.resume and coroutine.yield.

local support = dofile("bench/support.lua")
local weir = require("weir")

local COUNT = math.floor(2e6 * support.seconds)

local function streams()
  local message = ("x"):rep(100)
  return weir.run(function()
    local net = assert(weir.network())
    local producer = net:produce("bench", { lag = "block" })
    local consumer = net:consume("bench")
    assert(producer:when():online(1))
    local start = weir.now()
    local sender = weir.spawn(function()
      for _ = 1, COUNT do
        producer:send(message)
      end
    end)
    for _ = 1, COUNT do
      consumer:recv()
    end
    local seconds = weir.now() - start
    sender:join()
    assert(consumer:stats().messages == COUNT)
    net:close()
    return COUNT / seconds
  end)
end

local function bare()
  local co = coroutine.create(function()
    while true do
      coroutine.yield("x")
    end
  end)
  local resume = coroutine.resume
  local start = weir.now()
  for _ = 1, COUNT do
    resume(co)
  end
  return COUNT / (weir.now() - start)
end

local ours, theirs = support.alternate(streams, bare)
support.claim({
  name = "stream_local",
  weir = support.median(ours),
  baseline = support.median(theirs),
  unit = "msg/s",
  goal = 0.5,
})
