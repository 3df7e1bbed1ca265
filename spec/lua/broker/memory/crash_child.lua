--- A service on a durable memory broker, until it is killed: what the specs of durability kill.
--
--     lua5.4 spec/lua/broker/memory/crash_child.lua DIR SYNC FIRST
--
-- Prints its pid, then a line for each thing that happened to the message of that number, which counts from FIRST:
-- `p` its publish was confirmed, `s` it is about to be acknowledged, `a` that was confirmed, `t` it was taken and is
-- never settled, `d` it was put back for an hour.
local luv = require("luv")
local memory = require("weir.broker.memory")
local weir = require("weir")

io.stdout:setvbuf("line")
print(("pid %d"):format(luv.os_getpid()))

local number = tonumber(arg[3])

local function publish(publisher)
  while true do
    number = number + 1
    local mine = tostring(number)
    assert(publisher:publish("orders." .. mine % 3, mine, { number = mine }))
    print("p " .. mine)
  end
end

local function publish_batches(publisher)
  while true do
    local items = {}
    for i = 1, 3 do
      number = number + 1
      items[i] = { "orders.batch", tostring(number), { number = tostring(number) } }
    end
    assert(publisher:publish_batch(items))
    for _, item in ipairs(items) do
      print("p " .. item[2])
    end
  end
end

local function handle(message, said)
  local mine = tonumber(message.payload)
  if mine % 11 == 0 then
    said[#said + 1] = "t " .. mine
  elseif mine % 7 == 0 then
    assert(message:nack({ delay = 3600 }))
    said[#said + 1] = "d " .. mine
  elseif mine % 2 == 0 then
    print("s " .. mine)
    assert(message:ack())
    said[#said + 1] = "a " .. mine
  end
end

local function consume(taken, publisher)
  while true do
    local said = {}
    handle(assert(taken:next()), said)
    for _ = 1, 5 do
      local message = taken:try_next()
      if message then
        handle(message, said)
      end
    end
    assert(publisher:flush())
    for _, line in ipairs(said) do
      print(line)
    end
  end
end

weir.run(function()
  local broker = memory.new({ dir = arg[1], store = { sync = arg[2] == "sync" } })
  assert(broker:connect())
  local taken = assert(broker:subscribe(memory.topic("orders.>", { group = "billing", durable = true })))
  local publisher = broker:publisher()
  weir.group(function(group)
    for _ = 1, 3 do
      group:spawn(publish, publisher)
    end
    group:spawn(publish_batches, publisher)
    group:spawn(consume, taken, publisher)
  end)
end)
