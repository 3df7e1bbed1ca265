--- Tasks: run, spawn, group, sleep, with_timeout, wrap.
-- @module weir.task

local errors = require("weir.errors")
local runtime = require("weir.runtime")
local waitlist = require("weir.runtime.waitlist")

local unpack = table.unpack or rawget(_G, "unpack")

local tasks = {}

local Task = { __name = "weir.task" }
Task.__index = Task

-- Seconds for which a failed task may be joined before its error is printed.
local GRACE = 1

local uncollected = {} -- failed tasks whose error nobody has seen

local live = 0 -- tasks that have not ended

-- The text of an error, which may be an object whose __tostring fails.
local function text_of(err)
  local ok, text = pcall(tostring, err)
  return ok and text or "(" .. type(err) .. ")"
end

local function print_error(task)
  if not task.printed then
    task.printed = true
    io.stderr:write("weir: error in a task: ", text_of(task.error), "\n", task.traceback or "", "\n")
  end
end

local function collect(task)
  task.collected = true
  uncollected[task] = nil
end

-- Called by the runtime when the function of the task is over.
function Task:ended(ok, ...)
  self.co = nil
  live = live - 1
  if ok then
    self.state = self.cancelled and "cancelled" or "done"
    if select("#", ...) > 1 then
      self.results = { n = select("#", ...), ... }
    else
      self.result = ...
    end
  else
    local err = ...
    if self.cancelled and errors.is(err, "cancelled") then
      self.state = "cancelled"
    else
      self.state, self.error = "failed", err
    end
  end
  local group = self.group
  if self.joiners then
    if self.state == "failed" then
      self.collected = self.joiners.count > 0
    end
    self.joiners:wake_all()
  end
  if group then
    group:child_ended(self)
  elseif self.state == "failed" and not self.collected then
    uncollected[self] = true
    runtime.timer(runtime.now() + GRACE, function()
      if uncollected[self] then
        print_error(self)
      end
    end)
  end
end

-- What the task came to, for whoever asks: its results, or its error raised.
local function outcome(task)
  if task.state == "failed" then
    collect(task)
    error(task.error, 0)
  elseif task.state == "cancelled" and task.result == nil and not task.results then
    return nil, task.cancelled
  elseif task.results then
    return unpack(task.results, 1, task.results.n)
  end
  return task.result
end

local function new_task(fn, what, group)
  if type(fn) ~= "function" then
    error(what .. ": a function is expected, not " .. type(fn), 3)
  end
  live = live + 1
  return setmetatable({
    state = "running",
    group = group,
    result = nil, -- one value, or several in `results`
    fn = nil, -- from here on the runtime's
    arg = nil,
    co = nil,
    waiter = nil,
    waiting = nil,
  }, Task)
end

--- Starts a task: a function that runs beside the others, from the next turn of the loop on.
-- @tparam function fn
-- @param ... its arguments
-- @treturn task
function tasks.spawn(fn, ...)
  local task = new_task(fn, "weir.spawn")
  runtime.start(task, fn, ...)
  return task
end

-- Waits until the task has ended. True; or nil and an error.
local function wait_for(task, deadline, shield)
  while task.state == "running" do
    local joiners = task.joiners
    if not joiners then
      joiners = waitlist.new()
      task.joiners = joiners
    end
    local waiter = runtime.own_waiter()
    joiners:add(waiter)
    local _, err = waiter:wait(deadline, shield)
    joiners:remove(waiter)
    if err and task.state == "running" then
      return nil, err
    end
  end
  return true
end

--- Waits until the task has ended.
-- @tparam[opt] number timeout in seconds
-- @return what its function returned; nil and an error: "timeout", "cancelled" (the task, or the
--   one that waits). An error that its function raised is raised here.
function Task:join(timeout)
  if self == runtime.current() then
    error("a task cannot join itself", 2)
  end
  local ok, err = wait_for(self, runtime.deadline(timeout, 2))
  if not ok then
    return nil, err
  end
  return outcome(self)
end

--- Asks the task to end: its wait returns nil and an error with the code "cancelled", and so does
-- every later one. Does nothing when it has ended.
-- @param[opt] reason string, or an error of the code "cancelled"
function Task:cancel(reason)
  if self.state ~= "running" or self.cancelled then
    return
  end
  if not errors.is(reason, "cancelled") then
    reason = errors.new("cancelled", reason and tostring(reason) or "the task was cancelled")
  end
  self.cancelled = reason
  local waiter = self.waiting
  if waiter and not waiter.shield then
    waiter:wake(nil, reason)
  end
end

--- What the task does: "running" (or waiting), "done", "failed" or "cancelled".
function Task:status()
  return self.state
end

function Task:__tostring()
  return ("weir.task(%s)"):format(self.state)
end

--- For select: whether it has ended, and what `join` would return.
function Task:poll()
  if self.state == "running" then
    return false
  end
  return true, outcome(self)
end

function Task:watch(waiter)
  self.joiners = self.joiners or waitlist.new()
  self.joiners:add(waiter)
end

function Task:unwatch(waiter)
  self.joiners:remove(waiter)
end

--- The task that runs, or nil.
tasks.current = runtime.current

-- Raises for the failures that nobody collected.
local function raise_failures()
  local count, some = 0, nil
  for task in pairs(uncollected) do
    print_error(task)
    count, some = count + 1, some or task.error
    uncollected[task] = nil
  end
  for _, err in ipairs(runtime.take_failures()) do
    count, some = count + 1, some or err
  end
  if count > 0 then
    local what = count == 1 and "1 task" or count .. " tasks"
    error(("weir.run: %s failed that nobody waited for: %s"):format(what, text_of(some)), 0)
  end
end

-- Ends in the error of the main task, with its traceback where the error is a string.
local function raise_main(task)
  collect(task)
  local err = task.error
  if type(err) == "string" and task.traceback then
    err = err .. "\n" .. task.traceback
  end
  error(err, 0)
end

--- Runs `fn` as the main task, and the loop until it has ended. For the main thread. Tasks that are
-- left stay as they are.
-- @tparam function fn
-- @param ... its arguments
-- @return what it returned. Its error is raised; so is one of a task that nobody joined.
function tasks.run(fn, ...)
  local task = new_task(fn, "weir.run")
  if runtime.current() or not runtime.can_block() then
    error("weir.run: the loop runs already; use weir.spawn", 2)
  end
  runtime.start(task, fn, ...)
  local ok, err = wait_for(task)
  if not ok then
    err.traceback = task.co and debug.traceback(task.co)
    error(err.traceback and tostring(err) .. "\n" .. err.traceback or err, 0)
  elseif task.state == "failed" then
    raise_main(task)
  end
  raise_failures()
  return outcome(task)
end

-- --- groups -------------------------------------------------------------------------------------

local Group = { __name = "weir.group" }
Group.__index = Group

--- Starts a task in the group.
function Group:spawn(fn, ...)
  local task = new_task(fn, "group:spawn", self)
  if self.state == "closed" then
    error("group:spawn: the group has ended", 2)
  end
  self.tasks[task] = true
  self.alive = self.alive + 1
  runtime.start(task, fn, ...)
  if self.reason then
    task:cancel(self.reason)
  end
  return task
end

--- Cancels all tasks of the group, and those that are still started in it.
function Group:cancel(reason)
  if self.reason then
    return
  end
  if not errors.is(reason, "cancelled") then
    reason = errors.new("cancelled", reason and tostring(reason) or "the group was cancelled")
  end
  self.reason = reason
  for task in pairs(self.tasks) do
    task:cancel(reason)
  end
end

function Group:child_ended(task)
  self.tasks[task] = nil
  self.alive = self.alive - 1
  if task.state == "failed" then
    if not self.failed then
      self.failed, self.error = true, task.error
      self:cancel(errors.new("cancelled", "another task of the group failed: " .. text_of(task.error)))
    elseif not task.collected then
      print_error(task)
    end
  end
  if self.waiter and self.alive == 0 then
    self.waiter:wake(true)
  end
end

function Group:__tostring()
  return ("weir.group(%d tasks)"):format(self.alive)
end

-- Waits for all; a cancellation of the caller is passed on to them.
local function settle(group)
  local shield = false
  while group.alive > 0 do
    local waiter = runtime.own_waiter()
    group.waiter = waiter
    local _, err = waiter:wait(nil, shield)
    group.waiter = nil
    if err and err.code == "deadlock" then
      error(err, 0)
    elseif err then
      group:cancel(err)
      shield = true
    end
  end
  group.state = "closed"
end

--- Calls `fn(group, ...)` and returns when it and all tasks that were started with `group:spawn` have
-- ended. The first error, in `fn` or in a task, cancels the others and is raised.
-- @return what `fn` returned
function tasks.group(fn, ...)
  if type(fn) ~= "function" then
    error("weir.group: a function is expected, not " .. type(fn), 2)
  end
  local group = setmetatable({ tasks = {}, alive = 0, state = "open", failed = false }, Group)
  local main = group:spawn(fn, group, ...)
  settle(group)
  if group.failed then
    error(group.error, 0)
  end
  return outcome(main)
end

-- --- time ---------------------------------------------------------------------------------------

--- How many tasks have not ended.
function tasks.count()
  return live
end

--- Seconds of a monotonic clock.
tasks.now = runtime.now

--- Waits.
-- @tparam number seconds
-- @treturn boolean true; or nil and an error: "cancelled"
function tasks.sleep(seconds)
  if type(seconds) ~= "number" then
    error("weir.sleep: seconds must be a number, not " .. type(seconds), 2)
  end
  local deadline = runtime.deadline(seconds, 2)
  local _, err = runtime.own_waiter():wait(deadline)
  if err.code == "timeout" then
    return true
  end
  return nil, err
end

--- Calls `fn(...)`, and cancels it when it takes too long. Returns when it has ended.
-- @tparam number seconds
-- @tparam function fn
-- @return what it returned; nil and an error: "timeout", "cancelled"
function tasks.with_timeout(seconds, fn, ...)
  local deadline = runtime.deadline(seconds, 2)
  local task = new_task(fn, "weir.with_timeout")
  runtime.start(task, fn, ...)
  local ok, err = wait_for(task, deadline)
  if not ok then
    task:cancel(err.code == "timeout" and ("it took longer than %g s"):format(seconds) or err)
    local _, stuck = wait_for(task, nil, true)
    if stuck then
      return nil, stuck
    end
  end
  if ok or task.state == "failed" then
    return outcome(task)
  elseif err.code == "timeout" then
    err = errors.new("timeout", ("it took longer than %g s"):format(seconds))
  end
  return nil, err
end

--- Makes a generator whose body may block.
-- @function wrap
tasks.wrap = runtime.wrap

return tasks
