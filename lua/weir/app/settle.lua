--- From an outcome to what the broker is told: acknowledgement, retry, drop, dead letter, or the end of the service.
--
-- The order is always: what has to be published is published and confirmed, then the message is settled. A message
-- whose settlement fails stays unsettled, or is held and settled again: it comes twice rather than never.
--
-- A *job* is a message on its way: `entry` (its handler, prepared by `weir.app.handle`), `message`, `ctx`, `value`,
-- `attempt`. The functions take the pipeline that it belongs to.
-- @module weir.app.settle

local context = require("weir.app.context")
local delayed = require("weir.app.delayed")
local errors = require("weir.errors")
local id = require("weir.id")
local nearest = require("weir.nearest")
local outcome = require("weir.outcome")
local policy = require("weir.app.policy")
local text_of = require("weir.app.text")
local transaction = require("weir.app.transaction")

local settle = {}

-- Seconds between tries of a settlement that needs a publish that fails.
local FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60

-- Failures of messages that no middleware has seen.
local UNSEEN = { decode = true, schema = true, no_handler = true }

settle.text_of = text_of

local function fields_of(job, more)
  local message = job.message
  local fields = {
    handler = job.entry.id,
    destination = message.destination,
    attempt = job.attempt,
    message_id = message.headers["message-id"],
  }
  for name, value in pairs(more or {}) do
    fields[name] = value
  end
  return fields
end

local function note(pipeline, job, how, err)
  local counts = pipeline.counts
  counts[how] = counts[how] + 1
  job.settled = how
  if job.ctx then
    context.settled(job.ctx, how, job.failure)
  end
  local observer = pipeline.observer
  if observer and observer.settled then
    observer.settled(pipeline.registration, job.message, how, err)
  end
end

-- The broker did not take the settlement: the message comes again, or has been given to somebody else.
-- `how` is what the message has come to all the same, where nobody else notes it.
local function unsettled(pipeline, job, what, err, how)
  if how and job.ctx then
    context.settled(job.ctx, how, job.failure)
  end
  local text = ("could not %s a message; the broker delivers it again"):format(what)
  pipeline.log:warn(text, fields_of(job, { error = err }))
end

local function run_after(pipeline, job)
  local mark = job.ctx and rawget(job.ctx, "mark")
  local list = mark and mark.after
  if list then
    mark.after = nil
    pipeline:after(job.ctx, list)
  end
end

--- Acknowledges.
function settle.ack(pipeline, job)
  if pipeline.acks then
    local ok, err = job.message:ack()
    if not ok then
      return unsettled(pipeline, job, "acknowledge", err, "ack")
    end
  end
  note(pipeline, job, "ack")
  run_after(pipeline, job)
end

-- Without one that can be brought back, there is only the next try in this process.
local function nack(pipeline, job, options)
  if not pipeline.acks then
    return true
  end
  return job.message:nack(options)
end

-- Whether a message that is given back comes again.
local function comes_again(pipeline)
  return pipeline.acks and pipeline.capabilities.requeue
end

--- Gives the message back: it comes again, to whoever asks first. Where the broker does not do that, it goes to who
-- takes the subscription over, if somebody does.
function settle.give_back(pipeline, job)
  transaction.abort(job.ctx)
  if pipeline.held.retired and not comes_again(pipeline) then
    local message, attempt = job.message, job.attempt or context.attempt(job.message)
    local left = pipeline:bequeath(message, function(with)
      with:take(message, attempt)
    end)
    return left and note(pipeline, job, "returned")
  end
  local ok, err = nack(pipeline, job, { requeue = true })
  if ok then
    note(pipeline, job, "returned")
  elseif err.code ~= "unsupported" and err.code ~= "settled" then
    unsettled(pipeline, job, "give back", err, "returned")
  end
end

--- Drops.
function settle.drop(pipeline, job)
  local ok, err = nack(pipeline, job, { requeue = false })
  if not ok and err.code == "unsupported" then
    ok, err = job.message:ack()
  end
  if not ok then
    return unsettled(pipeline, job, "drop", err, "returned")
  end
  note(pipeline, job, "drop")
end

-- Tries a settlement again later; until then the message stays unsettled.
local function again_later(pipeline, job, again, ...)
  job.tries = (job.tries or 0) + 1
  local pause = math.min(FIRST_PAUSE * 2 ^ (job.tries - 1), LONGEST_PAUSE)
  local a, b = ...
  pipeline.held:add(pause, job.message, function(with)
    again(with, job, a, b)
  end)
end

-- --- retries --------------------------------------------------------------------------------------

local function publish_copy(pipeline, job, delay)
  local message, entry = job.message, job.entry
  local retry = entry.policy.retry
  local to = retry and retry.to or pipeline:address() or message.destination
  local headers = delayed.copy_headers(message, job.attempt, delay, pipeline.registration.id, pipeline.clock)
  return pipeline:publish_confirmed(pipeline.label, to, message, headers)
end

local function retry_by_copy(pipeline, job, delay)
  local ok, err = publish_copy(pipeline, job, delay)
  if not ok then
    pipeline:degraded(err)
    pipeline.log:error("could not publish the copy of a message that is to be tried again; it is held",
      fields_of(job, { error = err }))
    return again_later(pipeline, job, retry_by_copy, delay)
  end
  pipeline:healthy()
  ok, err = job.message:ack()
  if not ok then
    unsettled(pipeline, job, "acknowledge", err) -- both come: at least once
  end
  note(pipeline, job, "retry")
end

-- Brokers without settlement: the message is held here.
local function retry_here(pipeline, job, delay)
  local message, attempt = job.message, job.attempt + 1
  note(pipeline, job, "retry")
  pipeline.held:add(delay, message, function(with)
    with:take(message, attempt)
  end, true)
end

local function retry(pipeline, job, delay)
  pipeline.counts.retries = pipeline.counts.retries + 1
  if not pipeline.acks then
    return retry_here(pipeline, job, delay)
  end
  local caps = pipeline.capabilities
  if caps.requeue and caps.attempts and (delay == 0 or caps.delay) then
    local ok, err = job.message:nack({ requeue = true, delay = delay > 0 and delay or nil })
    if ok then
      return note(pipeline, job, "retry")
    elseif err.code ~= "unsupported" then
      return unsettled(pipeline, job, "give back", err, "returned")
    end
  end
  return retry_by_copy(pipeline, job, delay)
end

-- --- dead letters ---------------------------------------------------------------------------------

local function dead_letter(pipeline, job, about)
  local place = job.entry.policy.dead_letter
  local label, to = place.broker or pipeline.label, place.to
  if type(place) == "string" then
    label, to = pipeline.label, place
  end
  local headers = delayed.dead_headers(job.message, about, pipeline.clock)
  local ok, err = pipeline:publish_confirmed(label, to, job.message, headers)
  if not ok then
    pipeline:degraded(err)
    pipeline.log:error("could not publish a dead letter; the message stays",
      fields_of(job, { error = err, dead_letter = to }))
    if pipeline.capabilities.delay and pipeline.acks then
      job.tries = (job.tries or 0) + 1
      ok = job.message:nack({ requeue = true, delay = math.min(FIRST_PAUSE * 2 ^ job.attempt, LONGEST_PAUSE) })
      if ok then
        return note(pipeline, job, "retry")
      end
    end
    return again_later(pipeline, job, dead_letter, about)
  end
  pipeline:healthy()
  pipeline.counts.dead_letters = pipeline.counts.dead_letters + 1
  pipeline.log:warn("a message became a dead letter",
    fields_of(job, { dead_letter = to, error = about.text, class = about.code, traceback = about.traceback }))
  local observer = pipeline.observer
  if observer and observer.dead_lettered then
    observer.dead_lettered(pipeline.registration, job.entry.handler, job.message, to, headers)
  end
  if pipeline.acks then
    ok, err = job.message:ack()
    if not ok then
      unsettled(pipeline, job, "acknowledge", err)
    end
  end
  note(pipeline, job, "dead_letter")
end

-- --- failures -------------------------------------------------------------------------------------

local function log_failure(pipeline, job, failure, action, delay, reason)
  if action == "dead_letter" then
    return -- which has a line of its own
  end
  local level = (action == "retry" or action == "ack") and "warn" or "error"
  pipeline.log[level](pipeline.log, "a message failed", fields_of(job, {
    class = failure.class,
    error = text_of(failure.error),
    action = action,
    after = delay and tonumber(("%.3f"):format(delay)),
    source = job.entry.handler.source,
    reason = reason ~= failure.class and reason or nil,
    -- What comes again says where it failed each time; the whole way there is told once.
    traceback = (action ~= "retry" or pipeline.log:enabled("debug")) and failure.traceback or nil,
  }))
end

--- Does with a message that failed what the policy says.
-- @param pipeline
-- @tparam table job
-- @tparam table failure `class`, `error`, and perhaps `after` and `traceback`
function settle.fail(pipeline, job, failure)
  local entry = job.entry
  failure.ctx = job.ctx or pipeline:context(entry, job.message)
  job.ctx, job.failure = failure.ctx, failure
  if pipeline.tracer and UNSEEN[failure.class] then
    pipeline.tracer:handles(job.ctx)
  end
  transaction.abort(job.ctx)
  job.attempt = job.attempt or failure.ctx.attempt
  local action, delay, reason = policy.decide(entry.policy, failure, job.attempt, id.fraction)
  log_failure(pipeline, job, failure, action, delay, reason)
  local observer = pipeline.observer
  if observer and observer.failed then
    observer.failed(pipeline.registration, entry.handler, job.message, failure.class, failure.error)
  end
  if action == "retry" then
    return retry(pipeline, job, delay)
  elseif action == "dead_letter" then
    local about = {
      attempt = job.attempt,
      text = text_of(failure.error),
      code = failure.class,
      handler = entry.id,
      traceback = failure.traceback,
    }
    return dead_letter(pipeline, job, about)
  elseif action == "ack" then
    return settle.ack(pipeline, job)
  elseif action == "drop" then
    return settle.drop(pipeline, job)
  end
  settle.give_back(pipeline, job)
  pipeline:fail_fast(errors.with(errors.is(failure.error) and failure.error
    or errors.new(failure.class, text_of(failure.error)), { handler = entry.id }))
end

local function unknown(value)
  local message = "the handler answered with %s, and has no place for replies; return nothing for an"
    .. " acknowledgement, an outcome such as weir.retry(), or give it 'reply'"
  if value == false then
    message = "the handler answered with %s, which is no outcome; return nil and an error for a failure, or"
      .. " weir.retry() or weir.drop()"
  end
  local what = value == false and "false" or "a " .. type(value)
  return { class = "unknown_outcome", error = errors.new("unknown_outcome", message:format(what)) }
end

local function publish_failure(err)
  return { class = "publish", error = err }
end

-- --- answers --------------------------------------------------------------------------------------

-- Where a reply goes: a destination or a place; nil where there is none, false where it is not asked for.
local function reply_place(job)
  local reply = job.entry.reply
  local message = job.message -- a batch as a whole has none
  local asked_for = message and (message.reply_to or message.headers["reply-to"])
  local open = reply == true or type(reply) == "table" and reply.to == true
  if reply and not open then
    return reply
  elseif asked_for and open and reply ~= true then
    return { to = asked_for, codec = reply.codec, schema = reply.schema, header_schema = reply.header_schema }
  elseif asked_for then
    return asked_for
  end
  if open then
    return false
  end
end

-- Publishes one answer to a place, with the options that it came with.
local function answer(pipeline, job, place, value)
  local options = {}
  if outcome.kind(value) == "reply" then
    for name, option in pairs(value.options) do
      options[name] = option
    end
    value = value.value
  end
  if type(place) == "table" then
    options.to = options.to or place.to
    options.broker, options.codec = options.broker or place.broker, place.codec
  elseif place then
    options.to = options.to or place
  end
  local ok, err = true, nil
  if type(place) == "table" and place.schema then
    ok, err = place.schema:validate(value)
  end
  if ok then
    ok, err = pipeline:publish(job.ctx, value, options, type(place) == "table" and place.header_schema or nil)
  end
  if not ok then
    local message = "what the handler answered could not be published to '%s': %s"
    return nil, errors.with(errors.is(err) and err or errors.new("error"), {
      message = message:format(tostring(options.to), text_of(err)),
    })
  end
  return true
end

local function reply(pipeline, job, value)
  local place = reply_place(job)
  if outcome.kind(value) == "reply" and value.options.to then
    place = value.options.to
  elseif place == nil then
    return unknown(value)
  end
  if place then
    local ok, err = answer(pipeline, job, place, value)
    if not ok then
      return publish_failure(err)
    end
  end
end

local function no_output(name, places)
  local known = {}
  for each in pairs(places) do
    known[#known + 1] = each
  end
  table.sort(known)
  local meant = nearest(name, known)
  local hint = meant and ("; did you mean '%s'?"):format(meant)
    or #known > 0 and "; it has: " .. table.concat(known, ", ") or "; give it the option 'outputs'"
  return ("the handler has no output '%s'%s"):format(name, hint)
end

local function output_places(job, values)
  local places, list = job.entry.outputs or {}, {}
  for name in pairs(values) do
    local place = places[name]
    if place == nil and name == "reply" then
      place = reply_place(job)
    end
    if place == nil then
      return nil, { class = "unknown_outcome", error = errors.new("unknown_outcome", no_output(name, places)) }
    end
    list[#list + 1] = { name = name, place = place }
  end
  table.sort(list, function(a, b)
    return a.name < b.name
  end)
  return list
end

local function outputs(pipeline, job, values)
  local list, failure = output_places(job, values)
  if not list then
    return failure
  end
  for _, each in ipairs(list) do
    if each.place then
      local ok, err = answer(pipeline, job, each.place, values[each.name])
      if not ok then
        return publish_failure(err)
      end
    end
  end
end

--- Publishes what a result holds: a reply, or outputs.
-- @treturn ?table a failure, or nil
function settle.publish(pipeline, job, result)
  if outcome.kind(result) == "outputs" then
    return outputs(pipeline, job, result.values)
  end
  return reply(pipeline, job, result)
end

--- Commits what the message has led to, where its handler is transactional.
-- @treturn ?table a failure, or nil
function settle.commit(job)
  local ok, err = transaction.commit(job.ctx)
  if not ok then
    return publish_failure(err)
  end
end

-- --- results --------------------------------------------------------------------------------------

-- The failure that a result is; or nil.
local function failure_of(kind, result, err)
  if result == nil and err ~= nil then
    return { class = policy.class_of(err), error = err }
  elseif result == false then
    return unknown(result)
  elseif kind == "retry" then
    local reason = result.reason or "the handler asked for a retry"
    return { class = "retry", error = reason, after = result.after }
  elseif kind == "fail" then
    return { class = policy.class_of(result.error), error = result.error }
  elseif errors.is(result) then
    return { class = policy.class_of(result), error = result }
  end
end

--- Whether a handler's results mean that the message failed, or is to be handled again.
function settle.is_failure(result, err)
  return failure_of(outcome.kind(result), result, err) ~= nil
end

-- What is left to do after the handler has settled the message itself.
local function already_settled(pipeline, job, kind, failure)
  if failure then
    pipeline.log:error("the handler failed after it had settled the message",
      fields_of(job, { error = text_of(failure.error) }))
  elseif kind == "drop" then
    pipeline.log:error("the handler answered 'drop' after it had settled the message", fields_of(job))
  end
  run_after(pipeline, job)
end

--- Does what the handler's results say.
-- @param pipeline
-- @tparam table job
-- @param result first result
-- @param err second result
function settle.finish(pipeline, job, result, err)
  local kind = outcome.kind(result)
  local failure = failure_of(kind, result, err)
  if not failure and result ~= nil and result ~= true and kind ~= "ack" and kind ~= "drop" then
    failure = settle.publish(pipeline, job, result)
  end
  if not failure and not pipeline.cancelled then
    failure = settle.commit(job)
  end
  local mark = job.ctx and rawget(job.ctx, "mark")
  if mark and mark.settled then
    return already_settled(pipeline, job, kind, failure)
  elseif pipeline.cancelled then
    return settle.give_back(pipeline, job)
  elseif failure then
    return settle.fail(pipeline, job, failure)
  elseif kind == "drop" then
    pipeline.log:info("the handler dropped a message", fields_of(job, { reason = result.reason }))
    return settle.drop(pipeline, job)
  elseif job.entry.manual and kind ~= "ack" then
    return pipeline:leave_to_handler(job)
  end
  return settle.ack(pipeline, job)
end

--- A short name of what the handler answered, for observers.
function settle.describe(result, err)
  local kind = outcome.kind(result)
  if kind then
    return kind
  elseif result == nil and err ~= nil or result == false or errors.is(result) then
    return "fail"
  end
  return (result == nil or result == true) and "ack" or "reply"
end

--- Settles before the handler ends, for `ctx:ack()` and `ctx:nack()`.
function settle.early(pipeline, ctx, how, options)
  local message = ctx.message
  local ok, err = true, nil
  if how == "ack" then
    ok, err = transaction.commit(ctx)
  else
    transaction.abort(ctx)
  end
  if not ok then
    return nil, err
  elseif pipeline.acks then
    if how == "ack" then
      ok, err = message:ack()
    else
      ok, err = message:nack(options)
    end
  elseif how ~= "ack" and options.requeue ~= false then
    ok, err = nil, errors.new("unsupported", "messages of this broker cannot be given back")
  end
  if not ok then
    return nil, err
  end
  local job = { entry = ctx.entry, message = message, ctx = ctx }
  note(pipeline, job, how == "ack" and "ack" or options.requeue == false and "drop" or "retry")
  pipeline:handler_settled(ctx)
  if how == "ack" then
    run_after(pipeline, job)
  end
  return true
end

settle.job_fields = fields_of

return settle
