--- One message, from the broker to its outcome: decode, schema, filter, middleware, handler.
--
-- `handle.prepare` makes an *entry* of each handler of a registration, with everything that is the same for all
-- messages; `handle.take` takes a message. The usual case, one handler and one worker, has a path of its own that is
-- short: `handle.short_loop`.
-- @module weir.app.handle

local content = require("weir.app.content")
local context = require("weir.app.context")
local contract = require("weir.broker.contract")
local deadline = require("weir.app.deadline")
local delayed = require("weir.app.delayed")
local errors = require("weir.errors")
local measure = require("weir.app.measure")
local policy = require("weir.app.policy")
local runtime = require("weir.runtime")
local settle = require("weir.app.settle")

local now, xpcall, setmetatable = runtime.now, xpcall, setmetatable
local pause_if_spent = runtime.pause_if_spent
local SHORT = measure.SHORT
-- Operations that a message counts for, so that others have their turn: brokers count messages, not the time of their
-- handlers. One that takes longer than SHORT, and one of which the time is not known.
local LONG, FEW = 128, 8
local CANCELLED = errors.new("cancelled", "the worker was cancelled")

local getinfo = debug.getinfo

local handle = {}

local RETRY_FOR, NOT_BEFORE = contract.headers.retry_for, contract.headers.not_before

--- Lets others have their turn, if it is time, after a message that took so many seconds.
function handle.count(seconds)
  pause_if_spent(seconds > SHORT and LONG or 1)
end

-- Of a stack of more calls than DEEP, no more than SHOWN are told: to find the end of one that a recursion has filled
-- takes a second, in which nothing else happens.
local DEEP, SHOWN = 200, 10

local function last_calls(level)
  local lines = { "stack traceback:" }
  for i = level + 1, level + SHOWN do
    local call = getinfo(i, "Sl")
    lines[#lines + 1] = ("%s:%d"):format(call.short_src, call.currentline)
  end
  lines[#lines + 1] = "..."
  return table.concat(lines, "\n\t")
end

-- The last line of a traceback, where that is of this file; and its place before a message.
local BOTTOM, BLAMED = "\n\t[^\n]*weir/app/handle%.lua:%d+: in [^\n]*$", "^[^\n]-weir/app/handle%.lua:%d+: "

-- What a raised error becomes on its way to the failure policy.
local function raised(err)
  if type(err) == "table" then
    return { error = err }
  end
  local traceback = getinfo(DEEP, "l") and last_calls(2) or debug.traceback(nil, 2)
  -- What is below the call of the handler is weir's.
  local below = traceback:find("\n\t[C]: in function 'xpcall'", 1, true)
  if below then
    traceback = traceback:sub(1, below - 1):gsub(BOTTOM, "")
  end
  if type(err) == "string" then
    err = err:gsub(BLAMED, "") -- the handler's own line is not there any more, as in `return weir.retry(5)`
  end
  return { error = err == nil and "nil was raised" or err, traceback = traceback }
end

handle.raised = raised

-- Middleware around a function, as one function.
local function chain(middleware, fn)
  for i = #middleware, 1, -1 do
    local around, inner = middleware[i], fn
    fn = function(value, ctx)
      return around(value, ctx, inner)
    end
  end
  return fn
end

-- Whether a function may look at its second argument.
local function takes_two(fn)
  local info = type(fn) == "function" and debug.getinfo(fn, "u")
  return not info or info.isvararg or info.nparams == nil or info.nparams > 1
end

--- Prepares a handler.
-- @param pipeline
-- @tparam table handler of a registration
-- @treturn table entry
function handle.prepare(pipeline, handler)
  local env, registration = pipeline.env, pipeline.registration
  local middleware = handler.middleware or {}
  local entry = {
    handler = handler,
    id = handler.id or registration.id,
    call = chain(middleware, handler.fn),
    codec = handler.codec or require("weir.codec").get("json"),
    schema = handler.schema,
    header_schema = handler.header_schema,
    timeout = handler.timeout,
    manual = handler.manual or handler.ack == "manual" or nil,
    transactional = handler.transactional,
    reply = handler.reply,
    outputs = handler.outputs,
    policy = handler.policy or {},
    filter = handler.filter,
    filter_takes_value = handler.filter and takes_two(handler.filter),
    publish_middleware = handler.publish_middleware or {},
  }
  entry.raw = entry.codec.raw and not entry.schema
  entry.content_type = entry.codec.content_type
  entry.wants_context = #middleware > 0 or takes_two(handler.fn) or pipeline.observer ~= nil or entry.manual
  entry.meta = context.metatable({
    app = env.app,
    state = handler.state == nil and env.state or handler.state,
    log = pipeline.log:with({ handler = entry.id }),
    clock = pipeline.clock,
    handler = entry.id,
    broker = pipeline.label,
    name = registration.descriptor.name,
    registration = registration,
    pipeline = pipeline,
    entry = entry,
  })
  return entry
end

-- --- decoding -------------------------------------------------------------------------------------

--- Decodes, and validates the headers and the value. Returns the value; or nil and a failure.
function handle.decode(entry, message)
  local codec = entry.codec
  local content_type = message.headers["content-type"]
  if content_type and content_type ~= entry.content_type then
    codec = content.codec(content_type, codec)
  end
  local value, err = codec.decode(message.payload)
  if value == nil then
    return nil, { class = "decode", error = err }
  end
  local ok, why = true, nil
  if entry.header_schema then
    ok, why = entry.header_schema:validate(message.headers)
  end
  if ok and entry.schema then
    ok, why = entry.schema:validate(value)
  end
  if not ok then
    return nil, { class = "schema", error = why }
  end
  return value
end

local decode = handle.decode

-- The first handler whose filter lets the message through. A filter that fails is a failure of its handler.
local function choose(pipeline, message)
  local entries = pipeline.entries
  for i = 1, #entries do
    local entry = entries[i]
    if not entry.filter then
      return entry
    end
    local value
    if entry.filter_takes_value then
      value = decode(entry, message)
    end
    if value ~= nil or not entry.filter_takes_value then
      local ok, yes = xpcall(entry.filter, raised, pipeline:context(entry, message), value)
      if not ok then
        return entry, { class = policy.class_of(yes.error), error = yes.error, traceback = yes.traceback }
      elseif yes then
        return entry
      end
    end
  end
  local message_text = "no filter lets this message through; give the subscription a handler without a filter"
  return entries[#entries], { class = "no_handler", error = errors.new("no_handler", message_text) }
end

-- --- copies ---------------------------------------------------------------------------------------

--- Sees to a message with headers of weir's: a copy that is for somebody else, or too early.
-- @treturn boolean whether that was all there is to do
function handle.is_put_off(pipeline, message)
  local headers = message.headers
  local retry_for = headers[RETRY_FOR]
  if retry_for and retry_for ~= pipeline.registration.id then
    if pipeline.acks then
      message:ack()
    end
    pipeline.counts.skip = pipeline.counts.skip + 1
    local observer = pipeline.observer
    if observer and observer.settled then
      observer.settled(pipeline.registration, message, "skip")
    end
    return true
  end
  local seconds = delayed.remaining(headers, pipeline.clock)
  if not seconds then
    return false
  end
  pipeline.held:add(seconds, message, function(with)
    with:take(message, context.attempt(message)) -- now, whatever the header says
  end, true)
  return true
end

-- --- the way of a message -------------------------------------------------------------------------

local function failed_call(pipeline, job, err, stopped)
  if stopped then
    if pipeline.cancelled then
      return settle.give_back(pipeline, job)
    end
    return settle.fail(pipeline, job, { class = policy.class_of(err), error = err })
  end
  local failure = { class = policy.class_of(err.error), error = err.error, traceback = err.traceback }
  local mark = job.ctx and rawget(job.ctx, "mark")
  if mark and mark.settled then
    pipeline.log:error("the handler raised after it had settled the message",
      settle.job_fields(job, { error = settle.text_of(err.error), traceback = err.traceback }))
    return
  elseif pipeline.cancelled then
    return settle.give_back(pipeline, job)
  end
  settle.fail(pipeline, job, failure)
end

--- Tells the observer what the call of a handler came to.
function handle.observe(pipeline, entry, value, ctx, ok, a, b)
  local handled = pipeline.observer.handled
  if handled then
    local err = b
    if not ok then
      err = b == true and a or a.error
    end
    handled(pipeline.registration, entry.handler, value, ctx, ok and settle.describe(a, b) or "fail", err)
  end
end

--- Calls the handler with a decoded value, and sees to what it answers.
-- @param pipeline
-- @tparam table entry
-- @param message
-- @param value
-- @param ctx
-- @tparam ?number attempt where it is not the message's own
function handle.call(pipeline, entry, message, value, ctx, attempt)
  local job = { entry = entry, message = message, ctx = ctx, value = value, attempt = attempt }
  local ok, a, b, left
  if entry.timeout then
    ok, a, b, left = deadline.call(pipeline.clock, entry.timeout, entry.call, raised, value, ctx)
    if left then
      pipeline.log:error("a handler did not end after its timeout and goes on in the background",
        { handler = entry.id, destination = message.destination })
    end
  else
    ok, a, b = xpcall(entry.call, raised, value, ctx)
  end
  if pipeline.observer then
    handle.observe(pipeline, entry, value, ctx, ok, a, b)
  end
  if not ok then
    return failed_call(pipeline, job, a, b)
  end
  settle.finish(pipeline, job, a, b)
end

-- From the choice of the handler to its outcome.
local function handle_slowly(pipeline, message, attempt)
  local observer = pipeline.observer
  if observer and observer.received then
    observer.received(pipeline.registration, message)
  end
  local entry, failure = pipeline.only, nil
  if not entry then
    entry, failure = choose(pipeline, message)
  end
  local value
  if not failure then
    value, failure = decode(entry, message)
  end
  local ctx = pipeline:context(entry, message, attempt)
  if failure then
    if failure.class == "decode" or failure.class == "schema" then
      pipeline.counts.decode_failures = pipeline.counts.decode_failures + 1
    end
    if observer and observer.handled then
      observer.handled(pipeline.registration, entry.handler, nil, ctx, "fail", failure.error)
    end
    return settle.fail(pipeline, { entry = entry, message = message, ctx = ctx, attempt = attempt }, failure)
  end
  return handle.call(pipeline, entry, message, value, ctx, attempt)
end

--- Whether headers ask for nothing but to decode the payload with the handler's codec. Most messages come with the same
-- table of headers, which is remembered as `usual_headers`.
function handle.is_usual(entry, headers)
  local content_type = headers["content-type"]
  if headers[NOT_BEFORE] or headers[RETRY_FOR] then
    return false
  elseif content_type and content_type ~= entry.content_type and not entry.raw then
    return false
  end
  entry.usual_headers = headers
  return true
end

local is_usual = handle.is_usual

-- Whether nothing stands in the way of the shortest path: one handler, which ends when it returns.
local function is_plain(pipeline)
  local entry = pipeline.only
  return entry and not entry.timeout and not entry.manual and not entry.schema and not entry.header_schema
    and not pipeline.observer
end

--- Handles one message; returns when it is settled, or held.
-- @param pipeline
-- @param message
-- @tparam[opt] number attempt of a message that was taken before and held since
function handle.take(pipeline, message, attempt)
  local counts, headers = pipeline.counts, message.headers
  local start = counts.on and now()
  if not attempt then
    counts.consumed = counts.consumed + 1
    counts:sized(#message.payload, 1)
    if (message.attempts or 1) > 1 then
      counts.redeliveries = counts.redeliveries + 1
    end
  end
  if attempt or not (headers[NOT_BEFORE] or headers[RETRY_FOR]) or not handle.is_put_off(pipeline, message) then
    pipeline.live[message] = message
    handle_slowly(pipeline, message, attempt)
    pipeline.live[message] = nil
  end
  if start then
    counts:took(now() - start)
  end
end

-- The loop of a worker that is alone, on the shortest path: nothing is called for a message but the broker, the codec
-- and the handler, and there is no table but the context (none where the handler does not want it). One protected call
-- lasts until a handler raises. What is the same for all messages are upvalues.
--
-- Returns a function that pulls until the subscription gives no more, and returns its error; and one that says whose
-- handler raised, if one did.
local function short_path(pipeline)
  local subscription, counts, held, acks = pipeline.subscription, pipeline.counts, pipeline.held, pipeline.acks
  local pull, entry = subscription.next, pipeline.only
  local call, raw, decode_payload = entry.call, entry.raw, entry.codec.decode
  local meta = entry.wants_context and entry.meta
  local measured, took = counts.on, counts.took
  local current, current_ctx -- what the handler is called with
  local ended = 0 -- when the last message was done
  -- What is not in `counts` yet: messages that are done; how many of the last had which size; quick ones, and their
  -- time.
  local done, size, same, short, short_time = 0, -1, 0, 0, 0
  local ahead = 0 -- messages that are in `counts` as consumed already, and will be again when they are done

  function counts.gather()
    local busy = current and 1 or 0
    counts.consumed, counts.ack, ahead = counts.consumed + done + busy - ahead, counts.ack + done, busy
    counts:sized(size, same)
    counts.short, counts.short_time = counts.short + short, counts.short_time + short_time
    done, same, short, short_time = 0, 0, 0, 0
  end

  function pipeline.current()
    return current
  end

  local function finish(message, value, ctx, a, b)
    counts.consumed = counts.consumed + 1
    pipeline.marked = false -- what is marked about this context is seen to now
    ctx = ctx or pipeline:context(entry, message)
    return settle.finish(pipeline, { entry = entry, message = message, ctx = ctx, value = value }, a, b)
  end

  local function undecodable(message, err)
    counts.consumed, counts.decode_failures = counts.consumed + 1, counts.decode_failures + 1
    settle.fail(pipeline, { entry = entry, message = message }, { class = "decode", error = err })
  end

  local function loop()
    while true do
      if held.full and held:wait_for_room() then
        return CANCELLED
      end
      local switches = measured and runtime.switches
      local message, err = pull(subscription)
      if not message then
        return err
      end
      if pipeline.busy > 0 and not pipeline:enter() then
        pipeline:bequeath(message)
        return CANCELLED
      end
      pipeline.busy = 1
      local headers, value = message.headers, message.payload
      local operations = FEW
      if headers ~= entry.usual_headers and not is_usual(entry, headers) then
        pipeline:take(message)
      else
        local start = ended
        if measured then
          if runtime.switches ~= switches then
            start = now()
          end
          if #value ~= size then
            counts:sized(size, same)
            size, same = #value, 0
          end
          same = same + 1
        end
        if message.attempts ~= 1 and (message.attempts or 1) > 1 then
          counts.redeliveries = counts.redeliveries + 1
        end
        local wrong
        if not raw then
          value, wrong = decode_payload(value)
        end
        if value == nil then
          undecodable(message, wrong)
        else
          local ctx = meta and setmetatable({ message }, meta) or nil
          current, current_ctx = message, ctx
          local a, b = call(value, ctx)
          current = nil
          if (a == true or (a == nil and b == nil)) and not pipeline.marked and (not acks or message:ack()) then
            done = done + 1
          else
            finish(message, value, ctx, a, b)
          end
        end
        if measured then
          ended = now()
          local seconds = ended - start
          if seconds <= SHORT then
            short, short_time = short + 1, short_time + seconds
            operations = 0
          else
            took(counts, seconds)
            operations = LONG
          end
        end
      end
      pipeline.busy = 0
      if pipeline.watched then
        pipeline:changed()
      end
      if operations > 0 then
        pause_if_spent(operations)
      end
    end
  end

  return loop, function(err)
    local message, ctx = current, current_ctx
    current, current_ctx = nil, nil
    if not message then
      return false
    end
    counts.consumed = counts.consumed + 1
    failed_call(pipeline, { entry = entry, message = message, ctx = ctx }, err)
    pipeline.busy = 0
    if pipeline.watched then
      pipeline:changed()
    end
    return true
  end
end

--- Makes the loop of a worker that is alone, if there is a short one for this pipeline.
-- @param pipeline
-- @treturn ?function pulls and handles until the subscription gives no message, and returns that error; nil where
--   there is no short path
function handle.short_loop(pipeline)
  if not is_plain(pipeline) then
    return nil
  end
  local loop, on_raise = short_path(pipeline)
  return function()
    while true do
      local ok, result = xpcall(loop, raised)
      if ok then
        return result
      elseif not on_raise(result) then
        error(settle.text_of(result.error) .. "\n" .. (result.traceback or ""), 0)
      end
    end
  end
end

return handle
