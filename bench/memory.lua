--- What an idle subscription costs: 10,000 streams, one consumer each, on one session between two
-- processes. Bytes of resident memory on each side, and the time until all are open. The baseline of
-- each is its limit: 4 KiB a side, 2 s.

local support = dofile("bench/support.lua")

local COUNT = 10000

local function settled_rss()
  collectgarbage()
  collectgarbage()
  return support.rss()
end

local function produce()
  local weir = require("weir")
  weir.run(function()
    local net = assert(weir.network({ listen = "tcp://127.0.0.1:0" }))
    local producers = {}
    for i = 1, COUNT do
      producers[i] = net:produce("stream " .. i)
    end
    local before = settled_rss()
    print("port=" .. net:addresses()[1]:match("%d+$"))
    io.stdout:flush()
    for i = 1, COUNT do
      assert(producers[i]:when():online(30))
    end
    print(("bytes=%.0f"):format((settled_rss() - before) / COUNT))
    io.stdout:flush()
    assert(producers[1]:when():offline(30))
    net:close(0)
  end)
end

local function consume(port)
  local weir = require("weir")
  weir.run(function()
    local net = assert(weir.network({ peers = "tcp://127.0.0.1:" .. port }))
    assert(net:wait_connected(1, 5))
    local consumers = {}
    local before = settled_rss()
    local start = weir.now()
    for i = 1, COUNT do
      consumers[i] = net:consume("stream " .. i, { online_when = 1 })
    end
    for i = 1, COUNT do
      assert(consumers[i]:when():online(30))
    end
    local seconds = weir.now() - start
    print(("bytes=%.0f seconds=%.3f"):format((settled_rss() - before) / COUNT, seconds))
    io.stdout:flush()
    io.read("l")
    net:close(0)
  end)
end

if arg[1] == "produce" then
  return produce()
elseif arg[1] == "consume" then
  return consume(arg[2])
end

local function measure()
  local producer = support.spawn(support.lua("bench/memory.lua", "produce"))
  local consumer = support.spawn(support.lua("bench/memory.lua", "consume", producer:fields().port))
  local ours, theirs = consumer:fields(), producer:fields()
  consumer:finish()
  producer:finish()
  return { consumer = ours.bytes, producer = theirs.bytes, seconds = ours.seconds }
end

local results = {}
for round = 1, support.rounds do
  results[round] = measure()
end
for _, side in ipairs({ "producer", "consumer" }) do
  support.claim({
    name = "memory." .. side,
    weir = support.median(results, side),
    baseline = 4096,
    unit = "B/subscription",
    goal = 1,
    cost = true,
  })
end
support.claim({
  name = "memory.open_10000",
  weir = support.median(results, "seconds"),
  baseline = 2,
  unit = "s",
  goal = 1,
  cost = true,
})
