--- What a handler can answer: what is to become of its message.
--
-- Nothing and `true` are an acknowledgement, `nil, err` is a failure, and any other value but `false` is a reply. What
-- these cannot say is said with the functions here: `weir.ack`, `weir.retry`, `weir.drop`, `weir.fail`, `weir.reply`
-- and `weir.outputs`.
-- @module weir.outcome

local errors = require("weir.errors")

local outcome = {}

local Outcome = { __name = "weir.outcome" }
Outcome.__index = Outcome

function Outcome:__tostring()
  return "weir.outcome: " .. self.kind
end

local ACK = setmetatable({ kind = "ack" }, Outcome)
local RETRY = setmetatable({ kind = "retry" }, Outcome)
local DROP = setmetatable({ kind = "drop" }, Outcome)

local RETRY_OPTIONS = { after = "number", reason = "string" }
local REPLY_OPTIONS = {
  to = "string",
  broker = "string",
  headers = "table",
  key = "string",
  message_id = "string",
  correlation_id = "string",
  options = "table",
}

--- The message is done.
function outcome.ack()
  return ACK
end

--- The message is to come again; the failure policy still limits how often.
-- @tparam[opt] table options
-- @tparam[opt] number options.after seconds; by the backoff of the policy when left out
-- @tparam[opt] string options.reason for the log and the dead letter
function outcome.retry(options)
  if options == nil then
    return RETRY
  end
  options = errors.options("weir.retry", options, RETRY_OPTIONS, 2)
  local after = options.after
  if after and not (after >= 0 and after < math.huge) then
    error("weir.retry: 'after' must be a number of seconds, at least 0, not " .. tostring(after), 2)
  end
  return setmetatable({ kind = "retry", after = after, reason = options.reason }, Outcome)
end

--- The message is dropped: it does not come again and is no dead letter.
-- @tparam[opt] string reason for the log
function outcome.drop(reason)
  if reason == nil then
    return DROP
  end
  return setmetatable({ kind = "drop", reason = tostring(reason) }, Outcome)
end

--- The handling failed: the same as `nil, err`, for the elements of a batch.
-- @param err anything but nil
function outcome.fail(err)
  if err == nil then
    error("weir.fail: an error is expected, not nil", 2)
  end
  return setmetatable({ kind = "fail", error = err }, Outcome)
end

--- A reply, with more than its value.
-- @param value anything but nil
-- @tparam[opt] table options `headers`, `key`, `to` and `broker` in place of those of the handler, `message_id`,
--   `correlation_id`, and `options` for the broker
function outcome.reply(value, options)
  if value == nil then
    error("weir.reply: a value is expected, not nil", 2)
  end
  options = errors.options("weir.reply", options, REPLY_OPTIONS, 2)
  return setmetatable({ kind = "reply", value = value, options = options }, Outcome)
end

--- Values for several of the handler's named outputs. Each is a value, or a `weir.reply` for one with headers or a
-- key; `reply` goes where a reply goes, unless there is an output of that name.
-- @tparam table values name of the output to value
function outcome.outputs(values)
  if type(values) ~= "table" or next(values) == nil then
    error("weir.outputs: a table of names of outputs to values is expected", 2)
  end
  for name in pairs(values) do
    if type(name) ~= "string" then
      error("weir.outputs: names of outputs are expected, not " .. tostring(name), 2)
    end
  end
  return setmetatable({ kind = "outputs", values = values }, Outcome)
end

--- The kind of an outcome: "ack", "retry", "drop", "fail", "reply" or "outputs"; nil for any other value.
function outcome.kind(value)
  return getmetatable(value) == Outcome and value.kind or nil
end

return outcome
