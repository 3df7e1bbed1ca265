--- What a consumer that stops reading does to the others: the rate of three consumers in another
-- process, with and without a fourth that takes one message and then nothing. The default lag policy.

local support = dofile("bench/support.lua")

local READERS = 3

local function produce()
  local weir = require("weir")
  weir.run(function()
    local net = assert(weir.network({ listen = "tcp://127.0.0.1:0" }))
    local producer = net:produce("bench")
    print("port=" .. net:addresses()[1]:match("%d+$"))
    io.stdout:flush()
    local message = ("x"):rep(100)
    assert(producer:when():online(10))
    while producer:is_online() do
      producer:send(message, 1)
    end
    print("evicted=" .. producer:stats().evicted)
    net:close(0)
  end)
end

local function consume(port, seconds, stalled)
  local weir = require("weir")
  weir.run(function()
    local net = assert(weir.network({ peers = "tcp://127.0.0.1:" .. port }))
    if stalled then
      assert(net:consume("bench"):recv(5))
    end
    local counts, start = {}, nil
    weir.group(function(group)
      for i = 1, READERS do
        local consumer = net:consume("bench")
        group:spawn(function()
          assert(consumer:recv(5))
          start = start or weir.now()
          local stop, count = start + seconds, 0
          while weir.now() < stop do
            for _ = 1, 100 do
              consumer:recv(5)
            end
            count = count + 100
          end
          counts[i] = count
        end)
      end
    end)
    local total = 0
    for i = 1, READERS do
      total = total + counts[i]
    end
    print(("rate=%.0f"):format(total / seconds))
    net:close(0)
  end)
end

if arg[1] == "produce" then
  return produce()
elseif arg[1] == "consume" then
  return consume(arg[2], tonumber(arg[3]), arg[4] == "stalled")
end

local function measure(kind)
  local producer = support.spawn(support.lua("bench/stalled.lua", "produce"), { cpu = 0 })
  local port = producer:fields().port
  local consumer =
    support.spawn(support.lua("bench/stalled.lua", "consume", port, support.seconds * 2, kind), { cpu = 1 })
  local result = consumer:result()
  local fields = producer:result()
  assert(fields.evicted == (kind == "stalled" and 1 or 0), "evicted: " .. fields.evicted)
  return result.rate
end

local ours, theirs = support.alternate(function()
  return measure("stalled")
end, function()
  return measure("none")
end)
support.claim({
  name = "stalled",
  weir = support.median(ours),
  baseline = support.median(theirs),
  unit = "msg/s",
  goal = 0.9,
})
