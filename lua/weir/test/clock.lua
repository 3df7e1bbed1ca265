--- A clock that stands still until it is advanced: see `weir.clock` for what a clock is.
-- @module weir.test.clock

local Clock = { __name = "weir.test.clock" }

local Timer = {}
Timer.__index = Timer

--- Prevents the call.
function Timer:cancel()
  self.fn = nil
end

-- In the order in which they are due; those of the same time in the order in which they were made.
local function insert(list, timer)
  local at = #list + 1
  while at > 1 and list[at - 1].at > timer.at do
    at = at - 1
  end
  table.insert(list, at, timer)
end

-- The first timer that was not cancelled.
local function first(list)
  while list[1] and not list[1].fn do
    table.remove(list, 1)
  end
  return list[1]
end

--- Makes a clock.
-- @tparam[opt=0] number time seconds since 1970 when it starts
-- @return a clock with three more functions: `advance(seconds, [settle])` calls what is due until then, each at its
--   time, and `settle()` after each and at the end; `due()` is the time of the next call, nil if there is none;
--   `pending()` how many there are
return function(time)
  local now, began, timers = 0, time or 0, {}
  local clock = setmetatable({}, Clock)

  function clock.now()
    return now
  end

  function clock.time()
    return began + now
  end

  function clock.timer(at, fn)
    local timer = setmetatable({ at = at, fn = fn }, Timer)
    insert(timers, timer)
    return timer
  end

  function clock.due()
    local timer = first(timers)
    return timer and timer.at
  end

  function clock.pending()
    local count = 0
    for _, timer in ipairs(timers) do
      count = count + (timer.fn and 1 or 0)
    end
    return count
  end

  function clock.advance(seconds, settle)
    if not (seconds >= 0 and seconds < math.huge) then
      error("clock.advance: seconds must be a number of at least 0, not " .. tostring(seconds), 2)
    end
    local target = now + seconds
    local timer = first(timers)
    while timer and timer.at <= target do
      table.remove(timers, 1)
      now = math.max(now, timer.at)
      timer.fn()
      if settle then
        settle()
      end
      timer = first(timers)
    end
    now = target
    if settle then
      settle()
    end
  end

  return clock
end
