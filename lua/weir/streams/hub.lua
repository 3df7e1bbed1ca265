--- Takes what happened in the C core to the objects that it happened to.
--
-- The runtime calls this at the start of each turn and after bytes moved: the time is passed in, and
-- each core object with something to tell has its owner's `on_event(bits)` called.
-- @module weir.streams.hub

local core = require("weir.core")
local runtime = require("weir.runtime")

local hub = {}

local owners = setmetatable({}, { __mode = "k" })

--- Makes `owner` the one that hears of `object`; it must keep the object alive.
function hub.own(object, owner)
  owners[object] = owner
end

--- Whether `bits`, as `on_event` gets them, have the bit of an event (`core.events`).
function hub.has(bits, bit)
  return bits % (bit + bit) >= bit
end

--- Forgets an object at once.
function hub.disown(object)
  owners[object] = nil
end

local poll, set_time = core.poll, core.set_time

-- The time of day moves with the runtime's clock; it is read anew from time to time.
local offset, next_look = 0, 0

local function pass_time(now)
  if now >= next_look then
    offset = runtime.time() - now
    next_look = now + 1
  end
  set_time(now, now + offset)
end

local function dispatch(now)
  pass_time(now)
  local object, bits = poll()
  if not object then
    return false
  end
  repeat
    local owner = owners[object]
    if owner then
      owner:on_event(bits)
    end
    object, bits = poll()
  until not object
  return true
end

runtime.on_dispatch(dispatch)
runtime.on_budget(core.set_budget)
pass_time(runtime.now())

return hub
