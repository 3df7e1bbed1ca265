--- The runtime on libuv: weir's own loop, watched by luv's.
--
-- Nothing of weir's is on luv's loop but a few luv handles made here: a poll handle on the
-- descriptor of weir's loop, a timer, a prepare handle and an idle handle. All that is ready runs in
-- the prepare phase, in `turn()`, just before luv's loop asks how long it may block. See
-- docs/runtime.md for the interface.
-- @module weir.runtime.uv

local luv = require("luv")
local uv = require("weir.uv")
local errors = require("weir.errors")
local heap = require("weir.runtime.heap")

local running, resume, yield, status = coroutine.running, coroutine.resume, coroutine.yield, coroutine.status
local close = coroutine.close or function() end -- runs the to-be-closed values of Lua 5.4
local now = uv.now
local unpack = table.unpack or rawget(_G, "unpack")
local xpcall = xpcall

-- `switches` counts the coroutines that were resumed: who finds it unchanged has not waited.
local runtime = { name = "uv", now = now, random = uv.random, switches = 0 }

--- The time of day: seconds since 1970.
function runtime.time()
  local seconds, microseconds = luv.gettimeofday()
  return seconds + microseconds / 1e6
end

-- Seconds for which one turn runs tasks before the loop may look at everything else.
local TURN = 0.001
-- The clock is read once in this many operations, or more often where they take long.
local MOST_OPERATIONS, FEWEST_OPERATIONS = 256, 4
-- Resuming a coroutine counts as so many operations.
local RESUME = 8
-- A cancelled task that goes on waiting gets this many errors; the next is raised.
local PATIENCE = 100
-- libuv's timers count milliseconds.
local TICK = 0.001

local loop = uv.loop()
runtime.loop = loop -- for C modules that put something of their own on it: brokers
local deadlines = heap.new()
local in_turn = false
local current, current_co -- the task that runs, and its coroutine

-- Waiters to resume, in order: ready[first] .. ready[last]. Tasks that paused come after the loop
-- has had its turn.
local ready, first, last = {}, 1, 0
local paused, paused_count = {}, 0
local deferred, deferred_count = {}, 0
local hooks, budget_hooks = {}, {}

-- What is yielded by a coroutine that waits, with its waiter. A generator that yields it to
-- somebody who does not know it should have been made with `weir.wrap`.
local WAIT = setmetatable({}, {
  __name = "weir.wait",
  __tostring = function()
    return "weir: this coroutine waits; make generators that block with weir.wrap"
  end,
})

-- --- the handles on luv's loop ------------------------------------------------------------------

local prepare, poll, timer, idle
local idle_on, poll_on = false, false
local timer_at, timer_keeps -- when the timer goes off; whether it keeps the program running
local loop_deadline -- when weir's loop wants to be polled
local turn

local function on_idle() end

local function on_timer()
  timer_at = nil
end

local function on_poll()
  in_turn = true
  loop:poll()
  in_turn = false
end

local function open_handles()
  prepare, poll = luv.new_prepare(), luv.new_poll(loop:fd())
  timer, idle = luv.new_timer(), luv.new_idle()
  prepare:start(turn)
  prepare:unref()
  poll:start("r", on_poll)
  poll:unref()
  idle_on, poll_on, timer_at, timer_keeps = false, false, nil, true
end

-- Collected before luv's loop, which calls what is still under way while its handles are gone already.
local state = setmetatable({ closed = false }, {
  __gc = function(self)
    self.closed = true
  end,
})

-- Makes sure that a turn comes, and soon, though nothing else may keep luv's loop going. The
-- program may have closed the handles (with uv.walk, as programs do at their end).
local function schedule()
  if state.closed or in_turn or (idle_on and not idle:is_closing()) then
    return
  end
  if prepare == nil or prepare:is_closing() then
    open_handles()
  end
  idle_on = true
  idle:start(on_idle)
end

local function set_timer(alive)
  local at = deadlines:next()
  local keeps = at ~= nil or alive
  if loop_deadline and (not at or loop_deadline < at) then
    at = loop_deadline
  end
  if not at then
    if timer_at then
      timer:stop()
      timer_at = nil
    end
    return
  end
  if not timer_at or at < timer_at - TICK / 2 then
    local wait = at - now()
    local ms = wait > 0 and math.ceil(wait * 1000) or 0
    timer:start(ms, 0, on_timer)
    timer_at = at
  end
  if keeps ~= timer_keeps then
    timer_keeps = keeps
    if keeps then
      timer:ref()
    else
      timer:unref()
    end
  end
end

-- What luv's loop needs to know before it blocks.
local function settle(busy, alive)
  local more = busy or first <= last or paused_count > 0 or deferred_count > 0
  if more ~= idle_on then
    idle_on = more
    if more then
      idle:start(on_idle)
    else
      idle:stop()
    end
  end
  if alive ~= poll_on then
    poll_on = alive
    if alive then
      poll:ref()
    else
      poll:unref()
    end
  end
  set_timer(alive)
end

-- --- the budget ---------------------------------------------------------------------------------

local turn_start, checked = 0, 0 -- when the turn began; when the clock was last read
local granted, operations = MOST_OPERATIONS, MOST_OPERATIONS -- since then: allowed, still left

local function grant(count)
  granted, operations = count, count
  for i = 1, #budget_hooks do
    budget_hooks[i](count)
  end
end

-- How many operations to allow next, by what the last ones took: a quarter of a turn's worth.
local function estimate(time)
  local used = granted - operations
  if used < FEWEST_OPERATIONS then
    return granted
  end
  local count = TURN / 4 * used / (time - checked)
  local most = granted + granted
  if most > MOST_OPERATIONS then
    most = MOST_OPERATIONS
  end
  return count > most and most or count < FEWEST_OPERATIONS and FEWEST_OPERATIONS or math.floor(count)
end

-- The operations are used up: whether the turn is over. If not, allows more.
local function spent()
  local time = now()
  if time - turn_start >= TURN then
    return true
  end
  local count = estimate(time)
  checked = time
  grant(count)
  return false
end

-- --- waiters ------------------------------------------------------------------------------------

local Waiter = { __name = "weir.waiter" }
Waiter.__index = Waiter
local main_waiter -- the one that the main thread drives the loop for

--- Makes a waiter: one coroutine at a time waits on it, others wake it.
function runtime.waiter()
  return setmetatable({
    co = false, -- the coroutine that waits
    task = false, -- its task, if it is a task's own coroutine
    woken = false,
    shield = nil, -- whether a cancellation must not end this wait
    a = nil, -- what it is woken with; `c` is rare
    b = nil,
    deadline = nil, -- with `armed`: see weir.runtime.heap
    armed = nil,
  }, Waiter)
end

local own_main = runtime.waiter()
local own_others = setmetatable({}, { __mode = "k" })

--- The waiter of the running coroutine, forgetting whether it was woken: for operations that take
-- it out of every list again before they return.
function runtime.own_waiter()
  local co, main = running()
  local waiter
  if co == current_co and co then
    waiter = current.waiter
    if not waiter then
      waiter = runtime.waiter()
      current.waiter = waiter
      return waiter
    end
  elseif main or not co then
    waiter = own_main
  else
    waiter = own_others[co]
    if not waiter then
      waiter = runtime.waiter()
      own_others[co] = waiter
    end
  end
  waiter.woken = false
  return waiter
end

--- Ends the wait, or the next one if there is none now. True unless it was woken already.
-- @param a,b,c what `wait` returns
function Waiter:wake(a, b, c)
  if self.woken then
    return false
  end
  self.woken, self.a, self.b, self.c = true, a, b, c
  if self.deadline then
    deadlines:disarm(self)
  end
  if self.co then
    last = last + 1
    ready[last] = self
    if not in_turn then
      schedule()
    end
  elseif self == main_waiter then
    luv.stop()
  end
  return true
end

-- What the waker left.
local function collect(self)
  local a, b, c = self.a, self.b, self.c
  self.woken, self.a, self.b, self.c = false, nil, nil, nil
  return a, b, c
end

local function withdraw(self)
  self.co, self.task, self.woken = false, false, false
  if self.deadline then
    deadlines:disarm(self)
  end
end

-- The error for a cancelled task; raised when it does not take no for an answer.
local function refuse(task)
  local err = task.cancelled
  local refusals = (task.refusals or 0) + 1
  task.refusals = refusals
  if refusals > PATIENCE then
    error(err, 0)
  end
  return err
end

-- Somebody else than `after_wait` resumed the coroutine.
local function disturbed(self, task)
  withdraw(self)
  if task then
    task.waiting = nil
  end
  error("a coroutine that waits was resumed by somebody else; make generators that block with weir.wrap", 0)
end

-- Suspends `co`, the running coroutine, until `self` is woken.
local function suspend(self, co, shield)
  local task = co == current_co and current
  if task then
    if task.cancelled and not shield then
      withdraw(self)
      runtime.tick()
      return nil, refuse(task)
    end
    task.waiting = self
  end
  self.co, self.task, self.shield = co, task, shield
  local a, b, c = yield(WAIT, self)
  if self.co then
    disturbed(self, task)
  end
  return a, b, c
end

-- Runs luv's loop on the main thread until `self` is woken or nothing can wake it.
local function drive(self)
  if luv.loop_mode() ~= nil then
    withdraw(self)
    error("a libuv callback must not block: call weir.spawn(function() ... end) in it", 0)
  end
  local outer = main_waiter
  main_waiter = self
  schedule()
  repeat
    local alive = luv.run("default")
  until self.woken or not alive
  main_waiter = outer
  if self.woken then
    return collect(self)
  end
  withdraw(self)
  return nil, errors.new("deadlock", "nothing is left that could end this wait: no connection, timer or ready task")
end

local function timed_out()
  return errors.new("timeout", "the time is over")
end

--- Suspends the running coroutine, or on the main thread runs the loop, until the waiter is woken.
-- @tparam[opt] number deadline in seconds of `runtime.now()`
-- @tparam[opt] boolean shield not to be ended by a cancellation
-- @return what it was woken with; or nil and an error: "timeout", "cancelled", "deadlock"
function Waiter:wait(deadline, shield)
  if self.woken then
    return collect(self)
  end
  if deadline then
    deadlines:arm(self, deadline)
  end
  local co, main = running()
  if main or not co then
    return drive(self)
  end
  return suspend(self, co, shield)
end

--- Makes a generator whose body may block: a wait in it suspends whoever calls it. Like
-- `coroutine.wrap` otherwise.
function runtime.wrap(fn)
  if type(fn) ~= "function" then
    error("weir.wrap: a function is expected, not " .. type(fn), 2)
  end
  local inner = coroutine.create(fn)
  local function step(ok, tag, ...)
    if not ok then
      error(tag, 0)
    elseif tag ~= WAIT then
      return tag, ...
    end
    local waiter = ...
    local co, main = running()
    if main or not co then
      waiter.co, waiter.task = false, false
      if waiter.paused then
        runtime.pause()
        return step(resume(inner))
      end
      return step(resume(inner, drive(waiter)))
    end
    return step(resume(inner, suspend(waiter, co)))
  end
  return function(...)
    return step(resume(inner, ...))
  end
end

-- --- running ------------------------------------------------------------------------------------

local failures = {} -- of coroutines that nobody waits for

--- Reports an error that nobody collects: prints it and lets `weir.run` fail.
-- @param err the error
-- @tparam[opt] string traceback
-- @tparam[opt] string what whose error it is
function runtime.report(err, traceback, what)
  failures[#failures + 1] = err
  local text = ("weir: %s: %s\n"):format(what or "error in a callback", tostring(err))
  io.stderr:write(traceback and text .. traceback .. "\n" or text)
end

--- The errors that were reported since the last call.
function runtime.take_failures()
  local taken = failures
  failures = {}
  return taken
end

local function call(fn, a, b)
  local ok, err = xpcall(fn, debug.traceback, a, b)
  if not ok then
    runtime.report(err)
  end
end

local function on_error(err)
  local task = current
  if task and not errors.is(err, "cancelled") then
    task.traceback = debug.traceback(nil, 2)
  end
  return err
end

local STRAY = "a task called coroutine.yield(), and nobody resumes it; wait with weir.sleep or a channel, and make"
  .. " generators that block with weir.wrap"

-- Raises an error where a coroutine yields, once it is resumed. LuaJIT has one hook for all coroutines, not one of
-- each: there the task ends.
local raise_at_yield = not rawget(_G, "jit") and function(co)
  local hook, mask, count = debug.gethook(co)
  if type(hook) ~= "function" then
    hook, mask, count = nil, "", 0 -- one of C can only be taken away
  end
  debug.sethook(co, function()
    debug.sethook(co, hook, mask, count)
    error(STRAY, 2)
  end, "", 1)
end

-- A coroutine gave control back: it waits, or it is over. `tag` is, at the end of a task, what
-- xpcall returns first.
local stray

local function after_run(co, task, ok, tag, ...)
  current, current_co = nil, nil
  if tag == WAIT then
    return
  elseif task then
    task.waiting = nil
    if status(co) == "suspended" then
      return stray(co, task)
    end
    task:ended(ok and tag, ...)
  elseif not ok and tag ~= "cannot resume dead coroutine" then
    runtime.report(tag, debug.traceback(co), "error in a coroutine")
    close(co)
  end
end

-- A task yielded, but not to wait: it would stand still for ever.
function stray(co, task)
  if not raise_at_yield then
    return task:ended(false, STRAY)
  end
  raise_at_yield(co)
  current, current_co = task, co
  return after_run(co, task, resume(co))
end

-- Resumes the coroutine of a waiter that was woken or paused.
local function after_wait(waiter)
  local co, task = waiter.co, waiter.task
  if not co or not waiter.woken or (task and task.waiting ~= waiter) then
    return -- withdrawn meanwhile, or its coroutine could not be suspended
  end
  runtime.switches = runtime.switches + 1
  local a, b, c = waiter.a, waiter.b, waiter.c
  waiter.co, waiter.woken, waiter.a, waiter.b, waiter.c = false, false, nil, nil, nil
  if task then
    task.waiting = nil
    current, current_co = task, co
    return after_run(co, task, resume(co, a, b, c))
  end
  after_run(co, nil, resume(co, a, b, c))
end

-- Runs a task for the first time. Its coroutine is xpcall itself: one frame less.
local function begin(task)
  runtime.switches = runtime.switches + 1
  local co = coroutine.create(xpcall)
  local fn, arg, args = task.fn, task.arg, task.args
  task.fn, task.arg, task.args = nil, nil, nil
  task.co = co
  current, current_co = task, co
  if args then
    return after_run(co, task, resume(co, fn, on_error, unpack(args, 1, args.n)))
  elseif arg ~= nil then
    return after_run(co, task, resume(co, fn, on_error, arg))
  end
  return after_run(co, task, resume(co, fn, on_error))
end

local function run_ready()
  while first <= last do
    local entry = ready[first]
    ready[first] = nil
    if first == last then
      first, last = 1, 0
    else
      first = first + 1
    end
    if entry.fn then
      begin(entry)
    else
      after_wait(entry)
    end
    operations = operations - RESUME
    if operations <= 0 and spent() then
      return
    end
  end
end

local function run_deferred()
  local list, count = deferred, deferred_count
  deferred, deferred_count = {}, 0
  for i = 1, count, 3 do
    call(list[i], list[i + 1], list[i + 2])
  end
end

local function expire(time)
  while true do
    local item = deadlines:expired(time)
    if not item then
      return
    elseif item.fn then
      runtime.defer(item.fn)
    else
      item:wake(nil, timed_out())
    end
  end
end

local function admit_paused()
  for i = 1, paused_count do
    last = last + 1
    ready[last] = paused[i]
    paused[i] = nil
  end
  paused_count = 0
end

-- Whether something happened that a hook passed on, which may have made more ready.
local function run_hooks(time)
  local happened = false
  for i = 1, #hooks do
    local ok, result = xpcall(hooks[i], debug.traceback, time)
    if not ok then
      runtime.report(result)
    end
    happened = happened or not ok or result
  end
  return happened
end

-- Everything that is ready: hooks, calls, tasks; then the output that they made. What that made
-- happen, here or, between connections in memory, on the other side, is passed on in the same turn.
function turn()
  in_turn = true
  local time = now()
  turn_start, checked = time, time
  grant(granted)
  loop:hold()
  if loop_deadline and loop_deadline <= time then
    loop:poll()
  end
  if paused_count > 0 then
    admit_paused()
  end
  expire(time)
  local busy, alive
  run_hooks(time)
  repeat
    if deferred_count > 0 then
      run_deferred()
    end
    run_ready()
    busy, alive, loop_deadline = loop:flush()
    time = now()
    busy = run_hooks(time) or busy
  until not (busy or first <= last or deferred_count > 0) or time - turn_start >= TURN
  granted, operations = estimate(time), 0
  settle(busy, alive)
  in_turn = false
end

-- --- the rest of the interface ------------------------------------------------------------------

--- A timeout in seconds as a deadline; nil and infinity mean none.
function runtime.deadline(timeout, level)
  if timeout == nil or timeout == math.huge then
    return nil
  elseif type(timeout) ~= "number" or timeout ~= timeout or timeout < 0 then
    error("a timeout must be a number of seconds, at least 0, not " .. tostring(timeout), (level or 1) + 1)
  end
  return now() + timeout
end

--- The task that runs, or nil.
function runtime.current()
  local co = running()
  return co == current_co and co and current or nil
end

--- Starts a task in the next turn.
-- @tparam table task the runtime uses its fields `fn`, `arg`, `args`, `co`, `waiter`, `waiting`,
--   `cancelled`, `refusals` and `traceback`, and calls `task:ended(ok, ...)` when `fn` has returned
--   or raised
-- @tparam function fn
-- @param ... its arguments
function runtime.start(task, fn, ...)
  task.fn = fn
  local count = select("#", ...)
  if count == 1 and ... ~= nil then
    task.arg = ...
  elseif count > 0 then
    task.args = { n = count, ... }
  end
  last = last + 1
  ready[last] = task
  if not in_turn then
    schedule()
  end
end

--- Calls `fn()` when the deadline is reached, in a turn. It must not block.
-- @treturn table with a method `cancel`
function runtime.timer(deadline, fn)
  local item = { fn = fn, cancel = runtime.cancel_timer }
  deadlines:arm(item, deadline)
  schedule()
  return item
end

function runtime.cancel_timer(item)
  if item.deadline then
    deadlines:disarm(item)
  end
end

--- Calls `fn(a, b)` in a turn, soon. It must not block.
function runtime.defer(fn, a, b)
  local count = deferred_count
  deferred[count + 1], deferred[count + 2], deferred[count + 3] = fn, a, b
  deferred_count = count + 3
  schedule()
end

--- Registers a function that is called at the start of each turn, and again after tasks ran and
-- connections moved bytes in it, with the time (`runtime.now()`). It must not block. It returns true
-- when it passed something on, so that what that made ready is seen to in the same turn.
function runtime.on_dispatch(fn)
  hooks[#hooks + 1] = fn
end

--- Registers a function that gets the number of operations allowed from now on, whenever that is
-- set, for counters that are kept elsewhere.
function runtime.on_budget(fn)
  budget_hooks[#budget_hooks + 1] = fn
end

--- Lets the loop have its turn; the running coroutine goes on after it. Does nothing in a libuv
-- callback.
function runtime.pause()
  local co, main = running()
  if main or not co then
    if luv.loop_mode() == nil then
      schedule()
      luv.run("nowait")
    end
    operations = granted
    return
  end
  local task = co == current_co and current
  local waiter = setmetatable({ co = co, task = task, woken = true, paused = true, shield = true }, Waiter)
  if task then
    task.waiting = waiter
  end
  paused_count = paused_count + 1
  paused[paused_count] = waiter
  schedule()
  yield(WAIT, waiter)
end

-- The operations are used up: pauses if the time is, too.
local function look()
  if spent() then
    runtime.pause()
  end
  local co = running()
  if co == current_co and co and current.cancelled then
    return refuse(current)
  end
end

--- Counts an operation that need not wait; to be called before it is done. Pauses when the turn has
-- been long enough.
-- @return nil; or an error when the task was cancelled: the operation should not be done then
function runtime.tick()
  operations = operations - 1
  if operations <= 0 then
    return look()
  end
end

--- The same for `count` operations that were counted elsewhere.
function runtime.pause_if_spent(count)
  operations = operations - count
  if operations <= 0 then
    return look()
  end
end

--- Writes what endpoints have queued now. A turn does the same at its end; so this is for a main
-- thread that does something else next than to wait in weir.
function runtime.flush()
  schedule()
  if luv.loop_mode() == nil then
    luv.run("nowait")
  end
end

--- Whether a blocking call is possible here: not in a libuv callback.
function runtime.can_block()
  local co, main = running()
  return (co and not main) or luv.loop_mode() == nil
end

open_handles()
require("weir.runtime.uv_net")(runtime, loop, schedule)
require("weir.runtime.uv_bytes")(runtime, loop)
require("weir.runtime.uv_http")(runtime, loop, schedule)

return runtime
