--- What a subscription of the application got, called and answered.
-- @module weir.test.subscriber

local compare = require("weir.test.compare")

local subscriber = {}

local Subscriber = { __name = "weir.test.subscriber" }
Subscriber.__index = Subscriber

--- Makes one; `weir.test` fills it.
-- @tparam string name
function subscriber.new(name)
  return setmetatable({ name = name, all_calls = {}, all_received = {}, all_outcomes = {}, errors = {} }, Subscriber)
end

--- The calls of handlers, in order: tables with `value`, `headers`, `attempt`, `key`, `handler` (its name), `outcome`
-- ("ack", "reply", "retry", "drop", "fail", "outputs"), `error`, `batch` (true where `value` is a list).
function Subscriber:calls()
  return self.all_calls
end

local function values(self)
  local list = {}
  for i, call in ipairs(self.all_calls) do
    list[i] = call.value
  end
  return list
end

--- The values that handlers were called with; a list of each batch is one of them.
function Subscriber:values()
  return values(self)
end

--- The lists that handlers of batches were called with.
function Subscriber:batches()
  local list = {}
  for _, call in ipairs(self.all_calls) do
    if call.batch then
      list[#list + 1] = call.value
    end
  end
  return list
end

--- The messages that arrived, whether or not they could be decoded: tables with `payload`, `headers`, `key`,
-- `destination`.
function Subscriber:received()
  return self.all_received
end

--- What became of messages, in order: "ack", "retry", "drop", "dead_letter", "skip", "returned".
function Subscriber:outcomes()
  local list = {}
  for i, each in ipairs(self.all_outcomes) do
    list[i] = each
  end
  return list
end

--- The error of the last failure: what a handler raised or returned, or why a message was not decoded. Nil when there
-- was none.
function Subscriber:last_error()
  return self.errors[#self.errors]
end

local function last_failure(self)
  local err = self:last_error()
  return err ~= nil and ("; the last error: %s"):format(tostring(err)) or ""
end

--- Fails unless handlers were called so often.
-- @tparam[opt] number n at least once when left out
-- @return the subscriber
function Subscriber:assert_called(n)
  local count = #self.all_calls
  if n == nil and count == 0 or n ~= nil and count ~= n then
    local text = "'%s' was called %d times, not %s, with: %s%s"
    error(text:format(self.name, count, n or "at least once", compare.list(values(self)), last_failure(self)), 2)
  end
  return self
end

--- Fails when a handler was called.
-- @return the subscriber
function Subscriber:assert_not_called()
  if #self.all_calls > 0 then
    error(("'%s' was called %d times, with: %s"):format(self.name, #self.all_calls, compare.list(values(self))), 2)
  end
  return self
end

--- Fails unless a handler was called with this value.
-- @param value compared by what is in it
-- @treturn table the first such call
function Subscriber:assert_called_with(value)
  for _, call in ipairs(self.all_calls) do
    if compare.same(call.value, value) then
      return call
    end
  end
  local text = "'%s' was not called with %s, but with: %s%s"
  error(text:format(self.name, compare.show(value), compare.list(values(self)), last_failure(self)), 2)
end

--- Fails unless the last message became that.
-- @tparam string outcome see `outcomes`
-- @return the subscriber
function Subscriber:assert_outcome(outcome)
  local last = self.all_outcomes[#self.all_outcomes]
  if last ~= outcome then
    local text = "the last outcome of '%s' is %s, not %s; all: %s%s"
    local all = compare.list(self.all_outcomes)
    error(text:format(self.name, compare.show(last), compare.show(outcome), all, last_failure(self)), 2)
  end
  return self
end

--- Fails unless all outcomes are these, in this order.
-- @tparam {string,...} outcomes
-- @return the subscriber
function Subscriber:assert_outcomes(outcomes)
  if not compare.same(self.all_outcomes, outcomes) then
    local text = "the outcomes of '%s' are %s, not %s%s"
    error(text:format(self.name, compare.list(self.all_outcomes), compare.list(outcomes), last_failure(self)), 2)
  end
  return self
end

function Subscriber:__tostring()
  return ("weir.test.subscriber('%s', %d calls)"):format(self.name, #self.all_calls)
end

return subscriber
