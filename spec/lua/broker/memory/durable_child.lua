--- A service on a durable memory broker that is killed by its specs: publishes numbers, takes them, settles most.
--
--     lua5.4 spec/lua/broker/memory/durable_child.lua DIR
--
-- Prints `pid N`, then `p N` when a publish was confirmed and `a N` when an acknowledgement is about to be made.
local luv = require("luv")
local memory = require("weir.broker.memory")
local weir = require("weir")

io.stdout:setvbuf("line")
print(("pid %d"):format(luv.os_getpid()))

weir.run(function()
  local broker = memory.new({ dir = arg[1], store = { sync = false } })
  assert(broker:connect())
  local orders = assert(broker:subscribe(memory.topic("orders", { group = "g" })))
  weir.spawn(function()
    local publisher, i = broker:publisher(), 0
    while true do
      i = i + 1
      assert(publisher:publish("orders", tostring(i), { n = tostring(i) }))
      print("p " .. i)
    end
  end)
  while true do
    local message = assert(orders:next())
    if message.position % 7 ~= 0 then
      print("a " .. message.payload)
      message:ack()
    end
  end
end)
