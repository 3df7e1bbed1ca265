--- The memory broker with a directory: 100-byte messages published to a durable group, taken from it and
-- acknowledged, each message once; with `sync` (a power failure loses nothing) and without it (the end of the process
-- loses nothing). One by one, in batches of 64, and by 64 tasks that each publish one by one. Beside a loop of plain
-- LMDB in C that does the same transactions: 1 or 64 messages stored, and those of the transaction before removed.

local support = dofile("bench/support.lua")

local SIZE = 100

-- A task publishes `count` messages at a time; another takes them. Returns how many, when `seconds` are over.
local function by_one_publisher(publisher, subscription, count, seconds)
  local weir = require("weir")
  local items, payload = {}, ("x"):rep(SIZE)
  for i = 1, count do
    items[i] = { "orders.new", payload }
  end
  local stop, total = weir.now() + seconds, 0
  repeat
    if count == 1 then
      assert(publisher:publish("orders.new", payload))
    else
      assert(publisher:publish_batch(items))
    end
    for _ = 1, count do
      assert(subscription:next():ack())
    end
    total = total + count
  until weir.now() >= stop
  return total
end

local function by_tasks(publisher, subscription, count, seconds)
  local weir = require("weir")
  local payload, stop, total = ("x"):rep(SIZE), weir.now() + seconds, 0
  weir.group(function(group)
    for _ = 1, count do
      group:spawn(function()
        repeat
          assert(publisher:publish("orders.new", payload))
          assert(subscription:next():ack())
          total = total + 1
        until weir.now() >= stop
      end)
    end
  end)
  return total
end

local function measure(dir, sync, how, count, seconds)
  local weir = require("weir")
  local memory = require("weir.broker.memory")
  weir.run(function()
    local broker = memory.new({ dir = dir, store = { sync = sync == "sync", max_bytes = "1 GiB" } })
    assert(broker:connect())
    local subscription = assert(broker:subscribe(memory.topic("orders.new", { group = "bench", durable = true })))
    local start, cpu = weir.now(), os.clock()
    local run = how == "tasks" and by_tasks or by_one_publisher
    local total = run(broker:publisher(), subscription, tonumber(count), tonumber(seconds))
    print(("messages=%d seconds=%.6f cpu=%.3f transactions=%d"):format(total, weir.now() - start, os.clock() - cpu,
      broker:stats().store.commits))
    broker:shutdown()
  end)
end

if arg[1] == "measure" then
  return measure(table.unpack(arg, 2))
end

-- What a child says that works in a directory of its own.
local function in_scratch(words_for)
  local dir = os.tmpname()
  os.remove(dir)
  assert(os.execute("mkdir " .. dir))
  local result = support.spawn(words_for(dir)):result()
  os.execute("rm -rf " .. dir)
  return result
end

local function rate(results)
  local rates = {}
  for i, each in ipairs(results) do
    rates[i] = each.messages / each.seconds
  end
  return support.median(rates)
end

for _, sync in ipairs({ "sync", "nosync" }) do
  for _, case in ipairs({
    { name = "1", how = "batch", count = 1 },
    { name = "64", how = "batch", count = 64 },
    { name = "tasks_64", how = "tasks", count = 64 },
  }) do
    local ours, theirs = support.alternate(function()
      return in_scratch(function(dir)
        return support.lua("bench/memory_durable.lua", "measure", dir, sync, case.how, case.count, support.seconds)
      end)
    end, function()
      return in_scratch(function(dir)
        return support.program("baseline_lmdb", dir, sync, case.count, SIZE, support.seconds)
      end)
    end)
    local last = ours[#ours]
    print(("memory_durable.%s.%s: CPU per message %.0f ns, %.1f messages in a transaction"):format(sync, case.name,
      last.cpu / last.messages * 1e9, last.messages / last.transactions))
    support.claim({
      name = ("memory_durable.%s.%s"):format(sync, case.name),
      weir = rate(ours),
      baseline = rate(theirs),
      unit = "msg/s",
    })
  end
end
