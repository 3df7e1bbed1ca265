--- Time, for whatever is delayed by it: this clock is the real one; tests pass one of their own that they advance.
--
-- A clock has `now()`: seconds of a monotonic clock; `time()`: seconds since 1970; `timer(at, fn)`: calls `fn`, which
-- must not wait, at that time of `now()`, and returns a handle whose `cancel` method prevents it.
-- @module weir.clock

local runtime = require("weir.runtime")

local clock = { now = runtime.now, time = runtime.time, timer = runtime.timer }

--- Waits by a clock.
-- @tparam number seconds
-- @tparam[opt] table on the clock; the real one when left out
-- @treturn boolean true; or nil and an error: "cancelled"
function clock.sleep(seconds, on)
  on = on or clock
  local waiter = runtime.own_waiter()
  local timer = on.timer(on.now() + seconds, function()
    waiter:wake(true)
  end)
  local ok, err = waiter:wait(nil)
  if not ok then
    timer:cancel()
  end
  return ok, err
end

return clock
