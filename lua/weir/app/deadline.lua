--- Calls that must come to an end: a handler with a timeout.
--
-- The function runs in a task of its own. At the deadline the task is cancelled: its waits return an error, as for
-- every cancelled task. A loop that never waits is ended by a hook that counts instructions and raises; it raises at
-- every instruction from then on, so that a `pcall` around the loop's body does not save it. What goes on all the same
-- (a wait of somebody else's library, a C function that runs long) is left behind after a second, and the caller goes
-- on.
--
-- The hook belongs to the coroutine of the task: coroutines that the handler makes are not watched by it.
-- @module weir.app.deadline

local errors = require("weir.errors")
local runtime = require("weir.runtime")
local tasks = require("weir.task")

local now, sethook, getinfo = runtime.now, debug.sethook, debug.getinfo

local deadline = {}

-- Instructions between two looks at the clock.
local INSTRUCTIONS = 2000
-- Seconds that a cancelled handler has to end.
local GRACE = 1
-- A pause between two looks that is longer than this was a wait: on a clock that is not the real one, only the time in
-- which the handler ran counts.
local PAUSE = 0.01

local run

-- Makes the hook that ends a busy loop.
local function watchdog(call)
  local limit, last, busy = call.seconds, now(), 0
  local real = call.clock.now == now
  return function()
    local time = now()
    local passed = time - last
    last = time
    if real or passed < PAUSE then
      busy = busy + passed
    end
    if busy < limit then
      return
    elseif getinfo(2, "f").func == run then
      return sethook() -- it ended in time, or got away with the error
    end
    call.expired = true
    sethook(call.hook, "", 1)
    error(call.error, 0)
  end
end

-- The body of the task.
function run(call)
  call.hook = watchdog(call)
  sethook(call.hook, "", INSTRUCTIONS)
  local ok, a, b = xpcall(call.fn, call.raised, call.value, call.ctx)
  sethook()
  call.done, call.ok, call.a, call.b = true, ok, a, b
  if call.waiter then
    call.waiter:wake(true)
  end
end

-- Waits until it has ended; false and perhaps an error where something else came first.
local function wait(call, limit, shield)
  while not call.done do
    local waiter = runtime.own_waiter()
    call.waiter = waiter
    local _, err = waiter:wait(limit, shield)
    call.waiter = nil
    if not call.done and (err or call.expired) then
      return false, err
    end
  end
  return true
end

-- Whatever the handler answers from now on does not count; middleware sees that.
local function give_up(call)
  if call.ctx then
    call.ctx.cancelled = true
  end
end

local function expire(call)
  if not call.done then
    call.expired = true
    give_up(call)
    if call.waiter then
      call.waiter:wake(true)
    end
  end
end

--- Calls `fn(value, ctx)` and waits for its end, but not for longer than that.
-- @tparam table clock
-- @tparam number seconds
-- @tparam function fn
-- @tparam function on_error message handler, as for `xpcall`
-- @param value
-- @param ctx
-- @treturn boolean whether it returned in time
-- @return its first result, or what `on_error` made of its error; an error of the code "timeout", or "cancelled" where
--   the caller was cancelled
-- @return its second result; true with those two errors
-- @treturn ?boolean true where it was left behind and still runs
function deadline.call(clock, seconds, fn, on_error, value, ctx)
  local call = {
    clock = clock,
    seconds = seconds,
    error = errors.new("timeout", ("the handler took longer than %g s"):format(seconds)),
    fn = fn,
    value = value,
    ctx = ctx,
    done = false,
  }
  function call.raised(err)
    sethook() -- this runs when the error has got past every `pcall` of the handler
    return on_error(err)
  end
  local task = tasks.spawn(run, call)
  local timer = clock.timer(clock.now() + seconds, function()
    expire(call)
  end)
  local done, cancelled = wait(call)
  timer:cancel()
  if done and not call.expired then
    return call.ok, call.a, call.b
  elseif not done then
    give_up(call)
    task:cancel(cancelled or errors.new("cancelled", call.error.message))
    call.expired = nil
    done = wait(call, now() + GRACE, true)
  end
  return false, cancelled or call.error, true, not done or nil
end

return deadline
