--- Publishes to a store and settles, until it is killed: what the specs of durability kill.
--
--     lua5.4 spec/lua/broker/memory/store_child.lua DIR SYNC
--
-- Prints its pid, then a line for each thing that happened: `p ID` the publish was confirmed, `s ID` it is
-- about to settle, `a ID` the settlement was confirmed, `t ID` an attempt was confirmed.
local luv = require("luv")
local store = require("weir.broker.memory.store")
local weir = require("weir")

io.stdout:setvbuf("line")
print(("pid %d"):format(luv.os_getpid()))

local function publish(kept, state)
  while true do
    local messages = {}
    for i = 1, math.random(1, 4) do
      state.id = state.id + 1
      messages[i] = {
        id = state.id,
        destination = "orders",
        headers = { number = tostring(state.id) },
        payload = ("payload %d "):format(state.id):rep(math.random(1, 100)),
        time = state.id / 2,
        keys = { "first", state.id % 3 == 0 and "second" or nil },
      }
    end
    assert(kept:append(messages))
    for _, message in ipairs(messages) do
      print("p " .. message.id)
      state.confirmed[#state.confirmed + 1] = message.id
    end
  end
end

local function settle(kept, state)
  while true do
    local ids = {}
    while state.confirmed[1] and #ids < 7 do
      local id = table.remove(state.confirmed, math.random(#state.confirmed))
      if id % 5 == 0 then
        kept:attempted("first", id, 3)
      elseif id % 2 == 0 then
        ids[#ids + 1] = id
        print("s " .. id)
        kept:settle("first", id)
        kept:settle("second", id)
      end
    end
    assert(kept:flush())
    for _, id in ipairs(ids) do
      print("a " .. id)
    end
    weir.sleep(0.001)
  end
end

weir.run(function()
  math.randomseed()
  local kept = assert(store.open(arg[1], { sync = arg[2] == "sync" }))
  local function nothing() end
  local state = { id = assert(kept:load(nothing, nothing, nothing)), confirmed = {} }
  assert(kept:declare("first", {}))
  assert(kept:declare("second", {}))
  weir.group(function(group)
    for _ = 1, 5 do
      group:spawn(publish, kept, state)
    end
    group:spawn(settle, kept, state)
  end)
end)
