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

local turn = 0 -- where to begin to look: no case is always the first

-- Polls the cases from `start` on. Returns the place of the first that was ready, and its results.
local function poll(cases, start)
  local count = #cases
  local function found(at, ready, ...)
    if ready then
      return at, ...
    end
  end
  local function try(offset)
    if offset == count then
      return nil
    end
    local at = (start + offset) % count + 1
    local case = cases[at]
    local function checked(place, ...)
      if place then
        return place, ...
      end
      return try(offset + 1)
    end
    return checked(found(at, case:poll()))
  end
  return try(0)
end

local function result(place, ...)
  if place then
    runtime.tick()
    return place, ...
  end
end

--- Waits until one of several things can be done, and does it: receives from a channel or consumer,
-- sends (`channel:sending(value)`), joins a task.
-- @tparam table cases a list of them, with `timeout` in seconds
-- @return the place of the one in the list, and its results; or nil and an error: "timeout",
--   "cancelled"
return function(cases)
  check(cases, 2)
  local deadline = runtime.deadline(cases.timeout, 2)
  turn = turn + 1
  local start = turn % #cases
  local function wait()
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
  local function finish(place, ...)
    if place then
      return result(place, ...)
    end
    local err = wait()
    if not err then
      return finish(poll(cases, start))
    elseif err.code == "timeout" then
      local function last(at, ...)
        if at then
          return at, ...
        end
        return nil, err
      end
      return last(poll(cases, start))
    end
    return nil, err
  end
  return finish(poll(cases, start))
end
