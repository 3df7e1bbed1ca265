--- Ping-pong of 100-byte messages over TCP loopback between two Lua processes, beside a raw luv echo.

local support = dofile("bench/support.lua")

local COUNT = math.floor(5000 * support.seconds)

local function serve()
  local weir = require("weir")
  weir.run(function()
    local net = assert(weir.network({ listen = "tcp://127.0.0.1:0" }))
    local answers = net:produce("pong")
    local questions = net:consume("ping")
    print("port=" .. net:addresses()[1]:match("%d+$"))
    io.stdout:flush()
    while true do
      local message = assert(questions:recv(20))
      if message == "" then
        break
      end
      answers:send(message)
    end
    net:close(1)
  end)
end

local function ping(port)
  local weir = require("weir")
  weir.run(function()
    local net = assert(weir.network({ peers = "tcp://127.0.0.1:" .. port }))
    local questions = net:produce("ping")
    local answers = assert(net:consumer("pong"))
    assert(questions:when():online(10))
    local payload = ("x"):rep(100)
    local times, warm_up = {}, 1000
    for i = 1, warm_up + COUNT do
      local start = weir.now()
      questions:send(payload)
      assert(answers:recv(5))
      if i > warm_up then
        times[i - warm_up] = (weir.now() - start) * 1e6
      end
    end
    questions:send("")
    print(("p50=%.2f p99=%.2f"):format(support.percentile(times, 50), support.percentile(times, 99)))
    net:close(1)
  end)
end

if arg[1] == "serve" then
  return serve()
elseif arg[1] == "ping" then
  return ping(arg[2])
end

local function measure(program, ...)
  local server = support.spawn(support.lua(program, "serve"), { cpu = 0 })
  local port = server:fields().port
  local client = support.spawn(support.lua(program, "ping", port, ...), { cpu = 1 })
  local result = client:result()
  server:finish()
  return result
end

local ours, theirs = support.alternate(function()
  return measure("bench/latency.lua")
end, function()
  return measure("bench/baseline_echo.lua", 100, COUNT)
end)
for _, percentile in ipairs({ "p50", "p99" }) do
  support.claim({
    name = "latency." .. percentile,
    weir = support.median(ours, percentile),
    baseline = support.median(theirs, percentile),
    unit = "us",
    goal = percentile == "p50" and 1.3 or nil,
    cost = true,
  })
end
