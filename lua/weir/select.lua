--- Waiting for several things at once.
-- @module weir.select

local runtime = require("weir.runtime")

-- What can be selected has three methods:
--   poll() -> false; or true and the results, the thing having been done
--   watch(waiter): wake it when poll() may succeed; unwatch(waiter): no more

local function check(cases, level)
  if type(cases) ~= "table" then
    error("weir.select: a list of channels, consumers, tasks ... is expected", level + 1)
  end
  for key, case in pairs(cases) do
    if key == "timeout" then -- luacheck: ignore 542
    elseif type(key) ~= "number" then
      error(("weir.select: unknown option '%s'; known are: timeout"):format(tostring(key)), level + 1)
    elseif (type(case) ~= "table" and type(case) ~= "userdata") or not case.watch then
      error(("weir.select: case %d cannot be waited for"):format(key), level + 1)
    end
  end
  if #cases == 0 then
    error("weir.select: nothing to wait for", level + 1)
  end
end

local check_poll

-- Polls the case `at` and `left - 1` behind it. Returns the place of the first that was ready, and
-- its results.
local function poll(cases, at, left)
  if left > 0 then
    return check_poll(cases, at, left, cases[at]:poll())
  end
end

function check_poll(cases, at, left, ready, ...)
  if ready then
    return at, ...
  end
  return poll(cases, at % #cases + 1, left - 1)
end

-- Waits for any of them. Returns nil or an error.
local function wait(cases, deadline)
  local waiter = runtime.own_waiter()
  for i = 1, #cases do
    cases[i]:watch(waiter)
  end
  local _, err = waiter:wait(deadline)
  for i = 1, #cases do
    cases[i]:unwatch(waiter)
  end
  return err
end

-- The rest of the arguments is what poll() returned, after `err` where the wait had ended in one.
local function proceed(cases, start, deadline, err, at, ...)
  if at then
    return at, ...
  elseif not err then
    err = wait(cases, deadline)
    if not err or err.code == "timeout" then
      return proceed(cases, start, deadline, err, poll(cases, start, #cases))
    end
  end
  return nil, err
end

local calls = 0 -- to begin elsewhere each time: no case is always the first

--- Waits until one of several things can be done, and does it: receives from a channel or consumer,
-- sends (`channel:sending(value)`), joins a task.
-- @tparam table cases a list of them, with `timeout` in seconds
-- @return the place of the one in the list, and its results; or nil and an error: "timeout",
--   "cancelled"
return function(cases)
  check(cases, 2)
  local deadline = runtime.deadline(cases.timeout, 2)
  local cancelled = runtime.tick()
  if cancelled then
    return nil, cancelled
  end
  calls = calls + 1
  local start = calls % #cases + 1
  return proceed(cases, start, deadline, nil, poll(cases, start, #cases))
end
