--- What an application costs that does nothing: the time from `weir run` to "started" (the baseline is its limit,
-- 50 ms), and the memory of Lua for each idle subscription, of the memory broker alone and with a handler, beside that
-- of a task that sleeps.

local support = dofile("bench/support.lua")
local weir = require("weir")

local COUNT = 1000

local APP = [[
local weir = require("weir")
local app = weir.app("idle", "1.0.0")
app:broker("memory:")
app:subscriber("orders", function() end)
app:on("started", function()
  weir.spawn(function()
    weir.sleep(0.05)
    app:request_stop()
  end)
end)
return app
]]

-- Milliseconds that the application itself says are not all: those of the process count.
local function seconds_to_start(path)
  local before = weir.now()
  local pipe = assert(io.popen(("lua5.4 lua/bin/weir run %s 2>&1"):format(path)))
  local seconds
  for line in pipe:lines() do
    if line:find("started", 1, true) then
      seconds = weir.now() - before
    end
  end
  assert(pipe:close())
  return assert(seconds, "it did not start")
end

local function used()
  collectgarbage()
  collectgarbage()
  return collectgarbage("count") * 1024
end

-- Bytes for each of COUNT things that `make(i)` makes; they are kept by what it returns.
local function bytes_of(make)
  local kept, before = {}, used()
  for i = 1, COUNT do
    kept[i] = make(i)
  end
  weir.sleep(0.2)
  return (used() - before) / COUNT, kept
end

local function memory()
  return weir.run(function()
    local task, tasks = bytes_of(function()
      return weir.spawn(weir.sleep, 3600)
    end)
    for _, each in ipairs(tasks) do
      each:cancel()
    end
    local broker = weir.broker("memory:")
    broker:connect()
    local subscription = bytes_of(function(i)
      return broker:subscribe("broker." .. i)
    end)
    local app = weir.app("idle", "1.0.0", { log = { level = "off" } })
    app:broker("memory:")
    assert(app:start())
    local handler = bytes_of(function(i)
      return app:subscriber("app." .. i, function() end)
    end)
    app.running:stop(1)
    broker:shutdown()
    return { task = task, subscription = subscription, handler = handler }
  end)
end

local path = os.tmpname()
local file = assert(io.open(path, "w"))
file:write(APP)
file:close()
local starts = {}
for round = 1, math.max(5, support.rounds) do
  starts[round] = { seconds = seconds_to_start(path) }
end
os.remove(path)
support.claim({
  name = "app_idle.start",
  weir = support.median(starts, "seconds"),
  baseline = 0.05,
  unit = "s",
  goal = 1,
  cost = true,
})
local bytes = memory()
for _, each in ipairs({ "subscription", "handler" }) do
  support.claim({ name = "app_idle." .. each, weir = bytes[each], baseline = bytes.task, unit = "B", cost = true })
end
