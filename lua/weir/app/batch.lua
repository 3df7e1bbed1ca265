--- Handlers of batches: a list of values, one context, and an outcome for all or for each.
--
-- What cannot be decoded is settled by the policy and is not in the list. The handler answers as any other, and that
-- goes for all; or with a list that has for each element what a handler of single messages would return: nothing or
-- `true`, an outcome, `weir.fail(err)` or an error, or a reply.
-- @module weir.app.batch

local context = require("weir.app.context")
local deadline = require("weir.app.deadline")
local errors = require("weir.errors")
local handle = require("weir.app.handle")
local outcome = require("weir.outcome")
local policy = require("weir.app.policy")
local runtime = require("weir.runtime")
local settle = require("weir.app.settle")
local transaction = require("weir.app.transaction")

local batch = {}

-- Seconds to wait for more after the first message.
local LINGER = 0.01

-- For brokers without batches of their own.
local function assemble(subscription, max, linger)
  local message, err = subscription:next()
  if not message then
    return nil, err
  end
  local list, last = { message }, runtime.now() + linger
  while #list < max do
    message = subscription:next(math.max(0, last - runtime.now()))
    if not message then
      break
    end
    list[#list + 1] = message
  end
  return list
end

-- Decodes a message that may ask for more than that. Nil where it does not get to the handler, and is seen to.
local function decode(pipeline, entry, message, attempt)
  local counts, observer = pipeline.counts, pipeline.observer
  if not attempt and handle.is_put_off(pipeline, message) then
    return nil
  elseif observer and observer.received then
    observer.received(pipeline.registration, message)
  end
  local value, failure = handle.decode(entry, message)
  if failure then
    counts.decode_failures = counts.decode_failures + 1
    settle.fail(pipeline, { entry = entry, message = message, attempt = attempt }, failure)
  end
  return value
end

-- What of the messages gets to the handler: their values, and those messages.
local function decode_all(pipeline, entry, list, attempt)
  local counts, shortcut = pipeline.counts, not (pipeline.observer or entry.schema or entry.header_schema)
  local decode_payload = entry.codec.decode
  local values, messages, count = {}, list, 0
  counts.consumed = counts.consumed + (attempt and 0 or #list)
  for i = 1, #list do
    local message = list[i]
    local headers, payload = message.headers, message.payload
    if #payload == counts.size then
      counts.same = counts.same + 1
    else
      counts:sized(#payload, 1)
    end
    if (message.attempts or 1) > 1 and not attempt then
      counts.redeliveries = counts.redeliveries + 1
    end
    local value
    if shortcut and (headers == entry.usual_headers or handle.is_usual(entry, headers)) then
      value = decode_payload(payload)
    end
    if value == nil then
      value = decode(pipeline, entry, message, attempt)
    end
    if value == nil and messages == list then
      messages = {} -- from here on they are not the same
      for j = 1, count do
        messages[j] = list[j]
      end
    end
    if value ~= nil then
      count = count + 1
      values[count] = value
      if messages ~= list then
        messages[count] = message
      end
    end
  end
  return values, messages, count
end

-- A job for each element.
local function jobs_of(entry, ctx, values, attempt)
  local jobs = {}
  for i, message in ipairs(ctx.messages) do
    jobs[i] = { entry = entry, message = message, ctx = ctx.items[i], value = values[i], attempt = attempt }
  end
  return jobs
end

local function each(jobs, fn, ...)
  for i = 1, #jobs do
    fn(jobs[i], ...)
  end
end

local function fail_all(pipeline, jobs, failure)
  for _, job in ipairs(jobs) do
    local mark = rawget(job.ctx, "mark")
    if not (mark and mark.settled) then
      settle.fail(pipeline, job, {
        class = failure.class,
        error = failure.error,
        after = failure.after,
        traceback = failure.traceback,
      })
    end
  end
end

local function is_list(result)
  return type(result) == "table" and not outcome.kind(result) and not errors.is(result)
end

local function unknown(text)
  return { class = "unknown_outcome", error = errors.new("unknown_outcome", text) }
end

-- One answer for all.
local function finish_all(pipeline, jobs, ctx, result, err)
  local kind = outcome.kind(result)
  if kind == "reply" or kind == "outputs" then
    local failure = settle.publish(pipeline, { entry = jobs[1].entry, ctx = ctx }, result)
    if failure then
      return fail_all(pipeline, jobs, failure)
    end
    result, err = true, nil
  elseif result ~= nil and result ~= true and not kind and not errors.is(result) then
    local text = "the handler of a batch answered with a %s; expected are nothing, an outcome, or a list of those"
    return fail_all(pipeline, jobs, unknown(text:format(type(result))))
  end
  local failure = not settle.is_failure(result, err) and settle.commit({ ctx = ctx })
  if failure then
    return fail_all(pipeline, jobs, failure)
  end
  each(jobs, function(job)
    settle.finish(pipeline, job, result, err)
  end)
end

local function finish_each(pipeline, jobs, ctx, results)
  for key in pairs(results) do
    if type(key) ~= "number" or key < 1 or key > #jobs or key % 1 ~= 0 then
      local text = "the handler of a batch of %d answered with a list that has %s in it"
      return fail_all(pipeline, jobs, unknown(text:format(#jobs, tostring(key))))
    end
  end
  local failure = settle.commit({ ctx = ctx })
  if failure then
    return fail_all(pipeline, jobs, failure)
  end
  for i, job in ipairs(jobs) do
    settle.finish(pipeline, job, results[i])
  end
end

-- What was to be done after all are acknowledged.
local function run_after(pipeline, ctx, jobs)
  local mark = rawget(ctx, "mark")
  local list = mark and mark.after
  if not list then
    return
  end
  mark.after = nil
  for _, job in ipairs(jobs) do
    if job.settled ~= "ack" then
      return
    end
  end
  mark.settled = "ack"
  pipeline:after(ctx, list)
end

-- Everything was done, and nothing special: the messages are acknowledged.
local function ack_all(pipeline, entry, ctx)
  local counts, messages = pipeline.counts, ctx.messages
  for i = 1, #messages do
    local message = messages[i]
    if not pipeline.acks or message:ack() then
      counts.ack = counts.ack + 1
    else
      settle.ack(pipeline, { entry = entry, message = message })
    end
  end
end

local function call(pipeline, entry, values, ctx)
  if entry.timeout then
    return deadline.call(pipeline.clock, entry.timeout, entry.call, handle.raised, values, ctx)
  end
  return xpcall(entry.call, handle.raised, values, ctx)
end

local function failure_of_call(a, stopped)
  if stopped then
    return { class = policy.class_of(a), error = a }
  end
  return { class = policy.class_of(a.error), error = a.error, traceback = a.traceback }
end

-- Handles a list of messages.
local function take_list(pipeline, entry, list, attempt)
  local values, messages, count = decode_all(pipeline, entry, list, attempt)
  if count == 0 then
    return
  end
  local ctx = setmetatable({ batch = true, size = count, messages = messages }, entry.meta)
  pipeline.live[ctx] = messages
  local ok, a, b, left = call(pipeline, entry, values, ctx)
  pipeline.live[ctx] = nil
  if left then
    pipeline.log:error("a handler did not end after its timeout and goes on in the background", { handler = entry.id })
  end
  if pipeline.observer then
    handle.observe(pipeline, entry, values, ctx, ok, a, b)
  end
  local touched = rawget(ctx, "mark") or rawget(ctx, "items")
  local usual = not touched and not pipeline.observer and not pipeline.cancelled
  if usual and ok and not entry.manual and (a == true or a == nil and b == nil) then
    return ack_all(pipeline, entry, ctx)
  end
  local jobs = jobs_of(entry, ctx, values, attempt)
  if not ok and pipeline.cancelled then
    each(jobs, function(job)
      settle.give_back(pipeline, job)
    end)
  elseif not ok then
    fail_all(pipeline, jobs, failure_of_call(a, b))
  elseif is_list(a) then
    finish_each(pipeline, jobs, ctx, a)
  else
    finish_all(pipeline, jobs, ctx, a, b)
  end
  transaction.abort(ctx) -- unless it was committed
  run_after(pipeline, ctx, jobs)
end

--- Makes the functions that pull and handle batches.
-- @param pipeline
-- @tparam table options `max`, `linger`
-- @treturn function pull, gets the subscription
-- @treturn function take, gets a list of messages
function batch.make(pipeline, options)
  local max, linger = options.max, options.linger or LINGER
  local entry, counts = pipeline.entries[1], pipeline.counts
  local function take(list, attempt)
    local start = counts.on and runtime.now()
    take_list(pipeline, entry, list, attempt)
    if start then
      counts:took(runtime.now() - start)
    end
  end
  function pipeline.take(_, message, attempt) -- one that was held
    return take({ message }, attempt or context.attempt(message))
  end
  if pipeline.capabilities.batch then
    return function(subscription)
      return subscription:next_batch(max, linger)
    end, take
  end
  return function(subscription)
    return assemble(subscription, max, linger)
  end, take
end

return batch
