--- Time, for whatever is delayed by it: this clock is the real one; tests pass one of their own that they advance.
--
-- A clock has `now()`: seconds of a monotonic clock; `time()`: seconds since 1970; `timer(at, fn)`: calls `fn`, which
-- must not wait, at that time of `now()`, and returns a handle whose `cancel` method prevents it.
-- @module weir.clock

local runtime = require("weir.runtime")

return { now = runtime.now, time = runtime.time, timer = runtime.timer }
