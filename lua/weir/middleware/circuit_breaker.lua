--- Middleware: when handling fails again and again, it is left alone for a while.
--
-- The circuit is *closed* at first. After `failures` in a row it is *open*: for `cooldown` seconds no message is
-- handled. Then it is *half open*: one message at a time is tried; if `successes` go well, it is closed, and if one
-- fails, it is open again.
-- @module weir.middleware.circuit_breaker

local clocks = require("weir.clock")
local errors = require("weir.errors")
local outcome = require("weir.outcome")
local result = require("weir.middleware.result")
local waitlist = require("weir.runtime.waitlist")
local runtime = require("weir.runtime")

local OPTIONS = {
  failures = "number",
  cooldown = "number",
  successes = "number",
  while_open = "string",
  is_failure = "function",
  on_change = "function",
}

local Breaker = { __name = "weir.circuit_breaker" }
Breaker.__index = Breaker

function Breaker:set(state, err)
  if self.current ~= state then
    self.current = state
    if self.on_change then
      self.on_change(state, err)
    end
  end
end

--- The state of the circuit: "closed", "open" or "half_open".
function Breaker:state()
  return self.current
end

function Breaker:__tostring()
  return ("weir.circuit_breaker(%s)"):format(self.current)
end

function Breaker:open(err, now)
  self.until_time, self.passed = now + self.cooldown, 0
  self:set("open", err)
end

function Breaker:failed(err, now)
  self.in_a_row = self.in_a_row + 1
  if self.current == "half_open" or self.in_a_row >= self.failures then
    self:open(err, now)
  end
end

function Breaker:succeeded()
  self.in_a_row = 0
  if self.current == "half_open" then
    self.passed = self.passed + 1
    if self.passed >= self.successes then
      self:set("closed")
    end
  end
end

-- Seconds until a message may be tried; 0 if it may be now, and whether it is the one that is tried.
function Breaker:delay(now)
  if self.current == "open" then
    if now < self.until_time then
      return self.until_time - now
    end
    self:set("half_open")
  end
  return 0
end

-- Waits until the message may be handled. True; or nil and an error: "cancelled".
function Breaker:wait(clock)
  while true do
    local delay = self:delay(clock.now())
    if delay > 0 then
      local ok, err = clocks.sleep(delay, clock)
      if not ok then
        return nil, err
      end
    elseif self.current == "half_open" and self.trying then
      local waiter = runtime.own_waiter()
      self.waiting:add(waiter)
      local ok, err = waiter:wait(nil)
      self.waiting:remove(waiter)
      if err and not ok then
        return nil, err
      end
    else
      return true
    end
  end
end

-- Whether the message may be handled, and if not, after how many seconds it may.
function Breaker:admits(clock)
  local delay = self:delay(clock.now())
  if delay > 0 then
    return false, delay
  elseif self.current == "half_open" and self.trying then
    return false, self.cooldown
  end
  return true
end

local function judge(self, clock, ok, value, err)
  local failure
  if not ok then
    failure = value == nil and "nil" or value
  elseif not result.succeeded(value, err) and outcome.kind(value) ~= "drop" then
    failure = err or value
  end
  if failure ~= nil and (not self.is_failure or self.is_failure(failure)) then
    self:failed(failure, clock.now())
  else
    self:succeeded()
  end
end

--- Makes the middleware.
-- @function circuit_breaker
-- @tparam[opt] table options
-- @tparam[opt=5] number options.failures in a row, after which the circuit opens
-- @tparam[opt=30] number options.cooldown seconds
-- @tparam[opt=1] number options.successes that close it again
-- @tparam[opt="wait"] string options.while_open what happens to a message while the circuit is open: "wait" (none is
--   pulled meanwhile) or "retry" (it comes again after the cooldown; this counts as an attempt)
-- @tparam[opt] function options.is_failure of an error: whether it counts; all count when left out
-- @tparam[opt] function options.on_change called with the new state, and the error that led to "open"
-- @treturn function the middleware
-- @return an object with `state()`
return function(options)
  options = errors.options("circuit_breaker", options, OPTIONS, 2)
  for _, name in ipairs({ "failures", "cooldown", "successes" }) do
    local value = options[name]
    if value and not (value > 0 and value < math.huge) then
      error(("circuit_breaker: '%s' must be a number above 0, not %s"):format(name, tostring(value)), 2)
    end
  end
  local while_open = options.while_open or "wait"
  if while_open ~= "wait" and while_open ~= "retry" then
    error(('circuit_breaker: \'while_open\' must be "wait" or "retry", not %q'):format(while_open), 2)
  end
  local breaker = setmetatable({
    current = "closed",
    failures = options.failures or 5,
    cooldown = options.cooldown or 30,
    successes = options.successes or 1,
    is_failure = options.is_failure,
    on_change = options.on_change,
    in_a_row = 0,
    passed = 0,
    trying = false,
    waiting = waitlist.new(),
  }, Breaker)

  local function finish(tried, clock, ok, value, ...)
    if tried then
      breaker.trying = false
    end
    judge(breaker, clock, ok, value, (...))
    if tried then
      breaker.waiting:wake_all()
    end
    if not ok then
      error(value, 0)
    end
    return value, ...
  end

  return function(value, ctx, next)
    local clock = ctx.clock or clocks
    if while_open == "wait" then
      local ok, err = breaker:wait(clock)
      if not ok then
        return nil, err
      end
    else
      local admitted, delay = breaker:admits(clock)
      if not admitted then
        return outcome.retry({ after = delay, reason = "the circuit is open" })
      end
    end
    local tried = breaker.current == "half_open"
    breaker.trying = breaker.trying or tried
    return finish(tried, clock, result.of(next, value, ctx))
  end, breaker
end
