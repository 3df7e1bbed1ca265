--- What a check works with: brokers that are closed at its end, names that nobody used before, and assertions.
-- @module weir.conformance.context

local channel = require("weir.channel")
local errors = require("weir.errors")
local runtime = require("weir.runtime")
local tasks = require("weir.task")

local context = {}

local Context = { __name = "weir.conformance.context" }
Context.__index = Context

local Skip = { __name = "weir.conformance.skip" }
local Failure = {
  __name = "weir.conformance.failure",
  __tostring = function(self)
    return self.message
  end,
}

context.Skip, context.Failure = Skip, Failure

local serial = 0

-- Names of this run, of this process, that no other has used.
local RUN = runtime.random(5):gsub(".", function(byte)
  return ("%02x"):format(byte:byte())
end)

--- Makes one for a check.
-- @tparam table options checked
-- @tparam table check
-- @tparam[opt] main a channel on which functions for the main thread are sent
function context.new(options, check, main)
  return setmetatable({
    options = options,
    check = check,
    timeouts = options.timeouts,
    main = main,
    closing = {},
    prepared = {},
  }, Context)
end

-- --- the end of a check ---------------------------------------------------------------------------

--- The check fails.
function Context.fail(_, text, ...)
  error(setmetatable({ message = select("#", ...) > 0 and text:format(...) or text }, Failure), 0)
end

--- The check has no meaning here.
function Context.skip(_, reason)
  error(setmetatable({ reason = reason }, Skip), 0)
end

--- Fails unless a value is true.
function Context:check_that(value, text, ...)
  if not value then
    self:fail(text, ...)
  end
  return value
end

--- Calls a function at the end of the check.
function Context:finally(fn)
  self.closing[#self.closing + 1] = fn
end

--- Ends everything that the check began. Returns the first error, as text.
function Context:close()
  local first
  for i = #self.closing, 1, -1 do
    local ok, err = pcall(self.closing[i])
    first = first or (not ok and tostring(err)) or nil
  end
  self.closing = {}
  return first
end

-- --- brokers and names ----------------------------------------------------------------------------

local function quote(value)
  if type(value) ~= "string" then
    return tostring(value)
  end
  return #value > 60 and ("%q... (%d bytes)"):format(value:sub(1, 60), #value) or ("%q"):format(value)
end
context.quote = quote

--- A broker that is not connected, and is shut down at the end.
function Context:unconnected()
  local broker = self.options.make()
  self:finally(function()
    broker:shutdown(self.timeouts.step)
  end)
  return broker
end

--- A connected broker.
function Context:broker()
  local broker = self:unconnected()
  local ok, err = broker:connect(self.timeouts.step)
  self:check_that(ok, "broker:connect() failed: %s", tostring(err))
  return broker
end

--- Another connection to what the first broker is connected to; nil where there is no such thing.
function Context:other_connection()
  return self.options.shared and self:broker() or nil
end

--- A name that is used by this check only.
function Context:subject(broker, part)
  serial = serial + 1
  local text = ("conformance.%s.n%d"):format(RUN, serial) .. (part and "." .. part or "")
  local name = self.options.subject and self.options.subject(text) or text
  if broker then
    self:prepare(broker, name)
  end
  return name
end

--- Does what the broker needs before a name can be used.
function Context:prepare(broker, name)
  if self.options.prepare and not self.prepared[name] then
    self.prepared[name] = true
    self.options.prepare(broker, name)
  end
end

--- What to subscribe to for a name; nil where the broker has no subscription as is wanted.
function Context:descriptor(name, wanted)
  return self.options.descriptor(name, wanted or {})
end

--- The same, and the check is skipped where there is none.
function Context:needs_descriptor(name, wanted)
  local descriptor = self:descriptor(name, wanted)
  if descriptor == nil then
    local list = {}
    for option in pairs(wanted) do
      list[#list + 1] = option
    end
    table.sort(list)
    self:skip("the broker has no subscription with " .. table.concat(list, ", "))
  end
  return descriptor
end

--- Subscribes.
-- @param broker
-- @tparam string name
-- @tparam[opt] table wanted see `options.descriptor`
function Context:subscribe(broker, name, wanted)
  self:prepare(broker, name)
  local subscription, err = broker:subscribe(self:needs_descriptor(name, wanted), self.timeouts.step)
  self:check_that(subscription, "broker:subscribe(%s) failed: %s", quote(name), tostring(err))
  return subscription
end

--- A subscription beside others of the name: as another group where the broker lets there be only one.
function Context:subscribe_beside(broker, name)
  local subscription, err = broker:subscribe(self:needs_descriptor(name, {}), self.timeouts.step)
  if subscription then
    return subscription
  end
  self:refused("a second subscription", "conflict", subscription, err)
  serial = serial + 1
  return self:subscribe(broker, name, { group = ("beside%d"):format(serial) })
end

--- What the broker claims for such a subscription.
function Context:capabilities(broker, name, wanted)
  local spec = name and self:descriptor(name, wanted)
  return broker:capabilities(spec ~= nil and broker:descriptor(spec) or nil)
end

-- --- messages -------------------------------------------------------------------------------------

--- Publishes, and fails when that does.
function Context:publish(publisher, name, payload, headers)
  local ok, err = publisher:publish(name, payload, headers)
  self:check_that(ok == true, "publisher:publish(%s) gave %s, %s", quote(name), tostring(ok), tostring(err))
end

--- Publishes `n` messages "1", "2" and so on, or what `payload(i)` gives.
function Context:publish_many(publisher, name, n, payload)
  for i = 1, n do
    self:publish(publisher, name, payload and payload(i) or tostring(i))
  end
end

--- The next message. Fails when there is none in time, or with another payload than the expected one.
-- @param subscription
-- @tparam[opt] string payload that it must have
-- @tparam[opt] number timeout `timeouts.delivery` when left out
function Context:receive(subscription, payload, timeout)
  timeout = timeout or self.timeouts.delivery
  local message, err = subscription:next(timeout)
  if not message then
    self:fail("no message came within %g s: %s%s", timeout, tostring(err),
      payload and ("; %s was expected"):format(quote(payload)) or "")
  elseif payload and message.payload ~= payload then
    self:fail("the message %s came where %s was expected", quote(message.payload), quote(payload))
  end
  return message
end

--- Acknowledges, where the broker has that.
function Context:ack(message)
  local ok, err = message:ack()
  if not ok and not errors.is(err, "unsupported") then
    self:fail("message:ack() failed: %s", tostring(err))
  end
  return ok
end

--- The next message, acknowledged.
function Context:take(subscription, payload, timeout)
  local message = self:receive(subscription, payload, timeout)
  self:ack(message)
  return message
end

--- The next `n` messages, acknowledged: their payloads.
function Context:take_many(subscription, n, timeout)
  local list = {}
  for i = 1, n do
    list[i] = self:take(subscription, nil, timeout).payload
  end
  return list
end

--- Fails when a message comes.
function Context:nothing(subscription, why, seconds)
  local message, err = subscription:next(seconds or self.timeouts.negative)
  if message then
    self:fail("%s: the message %s came", why, quote(message.payload))
  end
  self:check_that(errors.is(err, "timeout"), "%s: subscription:next() gave %s where \"timeout\" was expected", why,
    tostring(err))
end

--- Fails unless a result is nil and an error with one of the codes.
function Context:refused(what, codes, value, err)
  if value then
    self:fail("%s gave %s where an error was expected: a faked success", what, tostring(value))
  elseif not errors.is(err) then
    self:fail("%s gave %s as an error; errors are those of weir.errors", what, tostring(err))
  elseif codes == nil then
    return err
  end
  codes = type(codes) == "table" and codes or { codes }
  for _, code in ipairs(codes) do
    if err.code == code then
      return err
    end
  end
  self:fail("%s gave the error %s; its code must be %s", what, tostring(err), table.concat(codes, " or "))
end

--- Fails unless two lists have the same elements in the same order.
function Context:same_list(what, expected, got)
  for i = 1, math.max(#expected, #got) do
    if expected[i] ~= got[i] then
      self:fail("%s: %s came at place %d where %s was expected (%d expected, %d came)", what, quote(got[i]), i,
        quote(expected[i]), #expected, #got)
    end
  end
end

--- Waits until `fn()` gives something true; fails after some seconds.
function Context:eventually(what, seconds, fn)
  local deadline = tasks.now() + seconds
  while true do
    local value = fn()
    if value then
      return value
    elseif tasks.now() > deadline then
      self:fail("%s did not happen within %g s", what, seconds)
    end
    tasks.sleep(0.01)
  end
end

-- --- elsewhere ------------------------------------------------------------------------------------

--- Starts a task that is ended with the check.
function Context:spawn(fn, ...)
  local task = tasks.spawn(fn, ...)
  self:finally(function()
    if task:status() == "running" then
      task:cancel("the check has ended")
    end
    pcall(task.join, task, 1)
  end)
  return task
end

-- Runs in a task that has ended when this returns.
local function in_task(_, fn)
  local task = tasks.spawn(fn)
  return task:join()
end

-- Runs in a coroutine of the program's own.
local function in_coroutine(_, fn)
  local done, results = channel(1), nil
  local co = coroutine.create(function()
    results = { pcall(fn) }
    done:send(true)
  end)
  assert(coroutine.resume(co))
  done:recv()
  if not results[1] then
    error(results[2], 0)
  end
  return results[2], results[3]
end

-- Runs on the main thread, where the run has it.
local function on_main(self, fn)
  local done, results = channel(1), nil
  self.main:send(function()
    results = { pcall(fn) }
    done:send(true)
  end)
  done:recv()
  if not results[1] then
    error(results[2], 0)
  end
  return results[2], results[3]
end

--- The places that a program may call from: `{ name, run }`; `run(t, fn)` returns two results of `fn`.
function Context:places()
  local places = { { "a task that has ended", in_task }, { "a coroutine of the program's own", in_coroutine } }
  if self.main then
    places[#places + 1] = { "the main thread", on_main }
  end
  return places
end

return context
