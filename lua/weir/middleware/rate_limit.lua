--- Middleware: no more than so many messages a second.
--
-- A token bucket: it holds `burst` tokens and gains `rate` a second; a message takes one, a batch one for each of its
-- messages. What finds none waits for its own. A handler that waits pulls no messages, so the broker is slowed down.
-- @module weir.middleware.rate_limit

local clocks = require("weir.clock")
local errors = require("weir.errors")
local outcome = require("weir.outcome")

local OPTIONS = { rate = "number", burst = "number", by = "function", max_keys = "number", excess = "string" }
local EXCESS = { wait = true, retry = true, drop = true }

local function positive(options, name, default)
  local value = options[name] or default
  if not (value > 0 and value < math.huge) then
    error(("rate_limit: '%s' must be a number above 0, not %s"):format(name, tostring(value)), 3)
  end
  return value
end

local Limit = {}
Limit.__index = Limit

-- Forgets the keys whose buckets are full again: they are as good as new. If there are too many all the same, the
-- one that has waited longest goes.
function Limit:forget(now)
  local oldest
  for key, bucket in pairs(self.buckets) do
    if bucket.tokens + (now - bucket.at) * self.rate >= self.burst then
      self.buckets[key] = nil
      self.count = self.count - 1
    elseif not oldest or bucket.at < self.buckets[oldest].at then
      oldest = key
    end
  end
  if self.count >= self.max_keys and oldest ~= nil then
    self.buckets[oldest] = nil
    self.count = self.count - 1
  end
end

function Limit:bucket(key, now)
  local bucket = self.buckets[key]
  if not bucket then
    if self.count >= self.max_keys then
      self:forget(now)
    end
    bucket = { tokens = self.burst, at = now }
    self.buckets[key] = bucket
    self.count = self.count + 1
  end
  return bucket
end

-- Takes tokens, also those that are still to come. Seconds until they are there; nil where they were not taken
-- because the caller does not wait.
function Limit:take(key, tokens, now, waits)
  local bucket = self:bucket(key, now)
  local have = math.min(self.burst, bucket.tokens + (now - bucket.at) * self.rate)
  local left = have - tokens
  -- More than the bucket holds is let through once it is full.
  local short = math.max(0, math.min(tokens, self.burst) - have)
  bucket.at = now
  if short > 0 and not waits then
    bucket.tokens = have
    return nil, short / self.rate
  end
  bucket.tokens = left
  return short / self.rate
end

--- Makes the middleware.
-- @function rate_limit
-- @tparam table options
-- @tparam number options.rate messages a second
-- @tparam[opt=rate] number options.burst how many may come at once, at least 1
-- @tparam[opt] function options.by `(value, ctx)` gives a key; each key has a limit of its own
-- @tparam[opt=10000] number options.max_keys how many keys are remembered
-- @tparam[opt="wait"] string options.excess what happens to a message too many: "wait", "retry" (it comes again when
--   its turn is; this counts as an attempt) or "drop"
-- @treturn function
return function(options)
  options = errors.options("rate_limit", options, OPTIONS, 2)
  if not options.rate then
    error("rate_limit: 'rate' is missing: messages a second", 2)
  end
  local rate = positive(options, "rate")
  local limit = setmetatable({
    rate = rate,
    burst = math.max(1, positive(options, "burst", rate)),
    max_keys = positive(options, "max_keys", 10000),
    buckets = {},
    count = 0,
  }, Limit)
  local by, excess = options.by, options.excess or "wait"
  if not EXCESS[excess] then
    error(("rate_limit: 'excess' must be \"wait\", \"retry\" or \"drop\", not %q"):format(excess), 2)
  end
  return function(value, ctx, next)
    local clock = ctx.clock or clocks
    local key = true
    if by then
      key = by(value, ctx)
      if key == nil then
        key = true
      end
    end
    local delay, short = limit:take(key, ctx.batch and ctx.size or 1, clock.now(), excess == "wait")
    if not delay then
      return excess == "drop" and outcome.drop("the rate limit is reached") or outcome.retry({ after = short })
    elseif delay > 0 then
      local ok, err = clocks.sleep(delay, clock)
      if not ok then
        return nil, err
      end
    end
    return next(value, ctx)
  end
end
