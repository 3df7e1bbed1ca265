--- The clock of a test kit: virtual, and it knows whether somebody waits for it.
-- @module weir.test.time

local new_clock = require("weir.test.clock")

-- Timers of brokers and of the holder of delayed messages are for later; nobody is kept from going on by them.
local function is_for_later(source)
  return source:find("weir[/\\]broker[/\\]") ~= nil or source:find("weir[/\\]app[/\\]delayed") ~= nil
end

--- Makes one.
-- @tparam number time seconds since 1970 when it starts
-- @return a clock of `weir.test.clock`; `blocking()` is how many timers there are that somebody waits for
return function(time)
  local clock = new_clock(time)
  local make, waiting = clock.timer, {}

  function clock.timer(at, fn)
    local timer = make(at, fn)
    if not is_for_later(debug.getinfo(2, "S").source) then
      waiting[timer] = true
    end
    return timer
  end

  function clock.blocking()
    local count = 0
    for timer in pairs(waiting) do
      if timer.fn and timer.at > clock.now() then
        count = count + 1
      else
        waiting[timer] = nil
      end
    end
    return count
  end

  return clock
end
