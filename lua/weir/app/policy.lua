--- What is done with a message that failed: a decision without side effects.
--
-- A *policy* is a table with `retry` (`{ max_attempts, backoff, on, to }`), `dead_letter` (`{ to, broker }` or false)
-- and `on_failure` (an action, or a table of them), all of it optional. A *failure* is `{ class, error, after, ctx }`:
-- its class is the `code` of the error, or "error" where it has none, or "decode", "schema", "timeout",
-- "unknown_outcome"; "retry" where the handler asked for that, with `after`; "publish" where what it answered could
-- not be published; "no_handler" where no filter let it through.
--
-- The action is that of the first of these that has one:
--
-- 1. `retry.on`: a function `(err, ctx)`, which returns an action and perhaps a delay; or a table of classes to
--    actions;
-- 2. `on_failure[class]`;
-- 3. `retry.on["*"]`, `on_failure.error`: neither is for "decode", "schema", "publish" and "no_handler";
-- 4. "retry"; for "decode", "schema" and "no_handler" "dead_letter".
--
-- A retry after the last attempt is *exhausted*: `on_failure.exhausted`, or "dead_letter". A dead letter without a
-- place for it is dropped.
-- @module weir.app.policy

local policy = {}

local ACTIONS = { retry = true, dead_letter = true, drop = true, ack = true, stop = true }

--- Deliveries of a message, the first one included, where the policy does not say.
local MAX_ATTEMPTS = 5
policy.MAX_ATTEMPTS = MAX_ATTEMPTS

local INITIAL, FACTOR, MAX, JITTER = 0.5, 2, 60, 0.2

-- Failures that are not the handler's, and so not what `retry.on["*"]` and `on_failure.error` mean.
local APART = { decode = "dead_letter", schema = "dead_letter", no_handler = "dead_letter", publish = "retry" }

--- The class of an error that a handler raised or returned.
function policy.class_of(err)
  local code = type(err) == "table" and err.code
  return type(code) == "string" and code or "error"
end

--- Seconds until the next attempt.
-- @tparam ?table|string backoff `{ initial, factor, max, jitter }`, "exponential", "constant" or "none"
-- @tparam number attempt that failed, from 1
-- @tparam function random returns a number from 0 to below 1
function policy.delay(backoff, attempt, random)
  if backoff == "none" then
    return 0
  end
  local fields = type(backoff) == "table" and backoff or {}
  local factor = backoff == "constant" and 1 or fields.factor or FACTOR
  local jitter = fields.jitter or JITTER
  local delay = (fields.initial or INITIAL) * factor ^ (attempt - 1)
  local max = fields.max or MAX
  if delay >= max or delay ~= delay then -- nothing multiplied with infinity is not a number
    delay = max
  end
  if jitter > 0 then
    delay = delay * (1 - jitter + 2 * jitter * random())
  end
  return delay
end

-- What `retry.on` says: an action and perhaps a delay; or nil and perhaps what is wrong with its answer.
local function asked(on, failure)
  if type(on) == "table" and not (getmetatable(on) or {}).__call then
    return on[failure.class]
  elseif on == nil then
    return nil
  end
  local ok, action, delay = pcall(on, failure.error, failure.ctx)
  if not ok then
    return nil, nil, "retry.on failed: " .. tostring(action)
  elseif action ~= nil and not ACTIONS[action] then
    return nil, nil, "retry.on returned no action: " .. tostring(action)
  end
  return action, type(delay) == "number" and delay >= 0 and delay < math.huge and delay or nil
end

local function choose(rules, failure, on)
  local class = failure.class
  if class == "retry" then
    return "retry"
  end
  local action, delay, problem = asked(on, failure)
  if action then
    return action, delay
  end
  local by_class = rules.on_failure
  if type(by_class) == "string" then
    by_class = { [class] = class ~= "publish" and by_class or nil, exhausted = by_class }
  end
  action = by_class and class ~= "exhausted" and by_class[class] or nil
  if not action and not APART[class] then
    action = type(on) == "table" and on["*"] or by_class and by_class.error
  end
  return action or APART[class] or "retry", nil, problem
end

local function exhausted_action(rules)
  local on_failure = rules.on_failure
  local action = type(on_failure) == "table" and on_failure.exhausted or on_failure
  return type(action) == "string" and action ~= "retry" and action or "dead_letter"
end

--- Decides.
-- @tparam ?table rules the policy
-- @tparam table failure
-- @tparam number attempt deliveries of the message, this one included
-- @tparam function random for the jitter: returns a number from 0 to below 1
-- @treturn string "retry", "dead_letter", "drop", "ack" or "stop"
-- @treturn ?number seconds, for a retry
-- @treturn string why: the class of the failure, "exhausted", or a sentence where the policy itself is at fault
function policy.decide(rules, failure, attempt, random)
  rules = rules or {}
  local retry = rules.retry or {}
  local action, delay, problem = choose(rules, failure, retry.on)
  local reason = problem or failure.class
  if failure.class == "publish" and action == "ack" then
    action = "retry" -- an answer that did not get out is never passed off as done
  end
  if action == "retry" then
    local max = retry.max_attempts
    if max == nil then
      max = MAX_ATTEMPTS
    end
    if not max or attempt < max then
      return "retry", failure.after or delay or policy.delay(retry.backoff, attempt, random), reason
    end
    action, reason = exhausted_action(rules), "exhausted"
    if failure.class == "publish" and action == "ack" then
      action = "dead_letter"
    end
  end
  if action == "dead_letter" and not rules.dead_letter then
    action = "drop"
  end
  return action, nil, reason
end

return policy
