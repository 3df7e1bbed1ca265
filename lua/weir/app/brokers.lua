--- The brokers of a running application: connected in order, watched, closed in reverse order.
-- @module weir.app.brokers

local errors = require("weir.errors")
local tasks = require("weir.task")

local M = {}

-- Seconds between two attempts to reach a broker: at first, and at most.
local FIRST, LONGEST = 0.1, 3

-- Seconds that a broker has at least to close in order, whatever the drain has taken.
local CLOSING = 1

-- Errors that trying again does not cure.
local FINAL = {
  cancelled = true,
  closed = true,
  conflict = true,
  damaged = true,
  forbidden = true,
  invalid = true,
  invalid_offset = true,
  io = true,
  no_stream = true,
  not_found = true,
  position_evicted = true,
  protocol = true,
  stream_closed = true,
  tls = true,
  unauthorized = true,
  unknown_position = true,
  unsupported = true,
}

local function as_error(err)
  return errors.is(err) and err or errors.new("error", tostring(err))
end

--- Calls `attempt(timeout)` until it gives something, the error is final, or the time is over.
-- @tparam function attempt gets the seconds that are left
-- @tparam number deadline of `weir.now()`
-- @tparam function again called with the error before each pause
-- @return what it gave; or nil and the last error
function M.persist(attempt, deadline, again)
  local pause = FIRST
  while true do
    local result, err = attempt(math.max(deadline - tasks.now(), 0.001))
    if result then
      return result
    end
    err = as_error(err)
    local left = deadline - tasks.now()
    if FINAL[err.code] or left <= 0 then
      return nil, err
    end
    again(err, pause)
    local ok, cancelled = tasks.sleep(math.min(pause, left))
    if not ok then
      return nil, cancelled
    end
    pause = math.min(pause * 2, LONGEST)
  end
end

-- Follows the state of a broker: logs it, counts reconnects, and ends the application when it failed for good.
local function watch(self, link)
  local fields = { broker = link.label }
  local log = self.log:with(fields)
  local counter = "weir_broker_reconnects_total"
  local reconnects = self.metrics:counter(counter, "Connections to a broker that came back", { "app", "broker" })
  reconnects = reconnects:with(self.app.title, link.label)
  local was
  link.unwatch = link.broker:watch(function(state, err)
    local former = was
    was = state
    if state == "degraded" then
      log:warn("the broker is away; trying to reach it again", { error = err })
    elseif state == "up" and former == "degraded" then
      log:info("the broker is back")
      reconnects:inc()
    elseif link.was_up and (state == "failed" or (state == "closed" and self.state == "running")) then
      local why = err or errors.new("closed", "the broker was closed")
      self:request_stop(errors.with(as_error(why), { broker = link.label }))
    end
  end)
end

-- What to say when it cannot be reached.
local function failure(link, err)
  local described = link.broker:describe()
  local where = described and described.host and (" at %s"):format(described.host) or ""
  local message = ("the broker '%s'%s cannot be used: %s"):format(link.label, where, err.message)
  return errors.with(err, { message = message, broker = link.label })
end

--- Connects a broker; one that is down is tried again until the deadline.
-- @param self the running application
-- @tparam table link `{ label, broker, ... }`, one of its `links`
-- @tparam number deadline
-- @treturn boolean true; or nil and an error
function M.connect_one(self, link, deadline)
  watch(self, link)
  self.connected[#self.connected + 1] = link
  local ok, err = M.persist(function(timeout)
    return link.broker:connect(timeout)
  end, deadline, function(err, pause)
    self.log:warn("the broker cannot be reached; trying again", { broker = link.label, error = err, after = pause })
  end)
  if not ok then
    return nil, failure(link, err)
  end
  link.was_up = true -- what ends it until here, connect says
  return true
end

--- Connects all brokers, one after the other.
-- @param self the running application
-- @tparam number deadline
-- @treturn boolean true; or nil and an error
function M.connect(self, deadline)
  for _, link in ipairs(self.links) do
    local ok, err = M.connect_one(self, link, deadline)
    if not ok then
      return nil, err
    end
  end
  return true
end

--- Closes those that were connected, in reverse order.
-- @param self the running application
-- @tparam number deadline
function M.close(self, deadline)
  for i = #self.connected, 1, -1 do
    local link = self.connected[i]
    if link.unwatch then
      link.unwatch()
    end
    local left = math.max(deadline - tasks.now(), CLOSING)
    local ok, result, err = pcall(link.broker.shutdown, link.broker, left)
    if not ok or not result then
      local reason = not ok and result or err
      self.log:warn("the broker did not close in order", { broker = link.label, error = tostring(reason) })
    end
  end
  self.connected = {}
end

return M
