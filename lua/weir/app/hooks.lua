--- The hooks of an application: functions that are called when it starts and stops.
-- @module weir.app.hooks

local errors = require("weir.errors")
local tasks = require("weir.task")
local text_of = require("weir.app.text")

local M = {}

--- The moments that hooks can be for.
M.NAMES = { "startup", "started", "stopping", "stopped" }

-- Seconds that the hooks of the end have at least, whatever the drain has taken.
local LAST = 1

-- Calls `fn(...)` until it is done or the time is over; then it is cancelled and left.
local function bounded(deadline, fn, ...)
  local task = tasks.spawn(fn, ...)
  local ok, result, err = pcall(task.join, task, math.max(deadline - tasks.now(), 0))
  if task:status() == "running" then
    task:cancel("it took too long")
    return nil, ok and err or result
  elseif not ok then
    return nil, result == nil and "it raised nil" or result
  end
  return result, err
end

local function failure(name, hook, err)
  local is_error = errors.is(err)
  local message = ("the %s hook of %s failed: %s"):format(name, hook.source, text_of(err))
  return is_error and errors.with(err, { message = message }) or errors.new("hook", message)
end

--- Runs the hooks of the start: each gets the state so far and the application, and what it returns is the state from
-- then on.
-- @tparam table app
-- @tparam string name "startup" or "started" (what those return does not matter)
-- @param state
-- @tparam number deadline
-- @treturn boolean true; or nil and the error of the first that failed
-- @return the state
function M.start(app, name, state, deadline)
  for _, hook in ipairs(app.hooks[name]) do
    local result, err = bounded(deadline, hook.fn, state, app)
    if err ~= nil then
      return nil, failure(name, hook, err), state
    elseif result ~= nil and name == "startup" then
      state = result
    end
  end
  return true, nil, state
end

--- Runs the hooks of the end: all of them, whatever happens in one.
-- @tparam table app
-- @tparam string name "stopping" or "stopped"
-- @param state
-- @tparam number deadline
-- @param log gets what fails
function M.stop(app, name, state, deadline, log)
  deadline = math.max(deadline, tasks.now() + LAST)
  for _, hook in ipairs(app.hooks[name]) do
    local _, err = bounded(deadline, hook.fn, state, app)
    if err ~= nil then
      log:error(failure(name, hook, err).message)
    end
  end
end

return M
