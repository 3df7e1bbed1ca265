--- 10,000 tasks that wait 5 seconds: the CPU time of starting them, waiting and ending them. And a
-- timer of 10 ms beside a consumer that never has to wait: how late it is. The baseline of each is
-- its limit: 50 ms, and 5 ms at the median.

local support = dofile("bench/support.lua")
local weir = require("weir")

local results = {}
for round = 1, support.rounds do
  collectgarbage()
  local start = os.clock()
  weir.run(function()
    weir.group(function(group)
      for _ = 1, 10000 do
        group:spawn(weir.sleep, 5)
      end
    end)
  end)
  results[round] = os.clock() - start
end
support.claim({
  name = "tasks.10000_sleeping",
  weir = support.median(results) * 1000,
  baseline = 50,
  unit = "ms",
  goal = 1,
  cost = true,
})

local luv = require("luv")

-- Milliseconds, the median of those of one run.
local function lateness()
  local late, timer = {}, luv.new_timer()
  weir.run(function()
    local net = assert(weir.network())
    local producer = net:produce("hot", { lag = "block" })
    local consumer = net:consume("hot")
    assert(producer:when():online(1))
    local stop = weir.now() + support.seconds
    local due
    luv.update_time()
    due = weir.now() + 0.01
    timer:start(10, 10, function()
      local now = weir.now()
      late[#late + 1] = (now - due) * 1000
      due = now + 0.01
    end)
    while weir.now() < stop do
      for _ = 1, 100 do
        producer:send("x")
        consumer:recv()
      end
    end
    timer:close()
    net:close()
  end)
  return math.max(0, support.percentile(late, 50))
end

results = {}
for round = 1, support.rounds do
  results[round] = lateness()
end
support.claim({
  name = "tasks.timer_lateness",
  weir = support.median(results),
  baseline = 5,
  unit = "ms",
  goal = 1,
  cost = true,
})
