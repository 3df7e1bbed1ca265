--- One way over TCP loopback, a Lua producer process to a Lua consumer process, beside a plain C
-- libuv sender and receiver of 4-byte-length frames. 100-byte messages, taken one by one (recv) and
-- in batches (recv_many), and 64 KiB ones.

local support = dofile("bench/support.lua")

local function produce(size, seconds)
  local weir = require("weir")
  weir.run(function()
    local net = assert(weir.network({ listen = "tcp://127.0.0.1:0" }))
    local producer = net:produce("bench", { lag = "block" })
    print("port=" .. net:addresses()[1]:match("%d+$"))
    io.stdout:flush()
    assert(producer:when():online(10))
    local message = ("x"):rep(size)
    local batch = math.max(1, 100000 // size)
    local stop, sent, cpu = weir.now() + seconds, 0, os.clock()
    repeat
      for _ = 1, batch do
        producer:send(message)
      end
      sent = sent + batch
    until weir.now() >= stop
    cpu = os.clock() - cpu
    assert(producer:send("")) -- the end
    assert(producer:close(10))
    print(("messages=%d cpu=%.3f"):format(sent, cpu))
    net:close(5)
  end)
end

-- Takes messages until the empty one. Returns how many, and their bytes.
local function take_one_by_one(consumer)
  local bytes, count = 0, 0
  local message = consumer:recv()
  while message ~= "" do
    bytes, count = bytes + #message, count + 1
    message = consumer:recv()
  end
  return count, bytes
end

local function take_batches(consumer)
  local bytes, count = 0, 0
  while true do
    local messages = consumer:recv_many(256)
    for i = 1, #messages do
      if messages[i] == "" then
        return count, bytes
      end
      bytes, count = bytes + #messages[i], count + 1
    end
  end
end

local function consume(port, way)
  local weir = require("weir")
  weir.run(function()
    local net = assert(weir.network({ peers = "tcp://127.0.0.1:" .. port }))
    local consumer = net:consume("bench")
    local first = assert(consumer:recv(10))
    local start, cpu = weir.now(), os.clock()
    local count, bytes = (way == "batches" and take_batches or take_one_by_one)(consumer)
    count, bytes = count + 1, bytes + #first
    print(("messages=%d bytes=%d seconds=%.6f cpu=%.3f"):format(count, bytes, weir.now() - start, os.clock() - cpu))
    net:close(5)
  end)
end

if arg[1] == "produce" then
  return produce(tonumber(arg[2]), tonumber(arg[3]))
elseif arg[1] == "consume" then
  return consume(arg[2], arg[3])
end

local function measure(size, way)
  local producer = support.spawn(support.lua("bench/stream_tcp.lua", "produce", size, support.seconds), { cpu = 0 })
  local port = producer:fields().port
  local consumer = support.spawn(support.lua("bench/stream_tcp.lua", "consume", port, way), { cpu = 1 })
  local received, sent = consumer:result(), producer:result()
  assert(sent.messages == received.messages, "messages were lost")
  received.sender_cpu = sent.cpu
  return received
end

local function rate(results, field)
  local rates = {}
  for i, each in ipairs(results) do
    rates[i] = each[field] / each.seconds
  end
  return support.median(rates)
end

for _, case in ipairs({
  { name = "stream_tcp.100B", size = 100, field = "messages", unit = "msg/s", goal = 0.20 },
  { name = "stream_tcp.100B.batches", size = 100, way = "batches", field = "messages", unit = "msg/s", goal = 0.20 },
  { name = "stream_tcp.64KiB", size = 65536, field = "bytes", unit = "B/s", goal = 0.50 },
}) do
  local ours, theirs = support.alternate(function()
    return measure(case.size, case.way)
  end, function()
    return support.baseline_tcp(case.size)
  end)
  local last = ours[#ours]
  print(("%s: CPU per message: producer %.0f ns, consumer %.0f ns"):format(
    case.name,
    last.sender_cpu / last.messages * 1e9,
    last.cpu / last.messages * 1e9
  ))
  support.claim({
    name = case.name,
    weir = rate(ours, case.field),
    baseline = rate(theirs, case.field),
    unit = case.unit,
    goal = case.goal,
  })
end
