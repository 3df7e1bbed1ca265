--- Spans of what an application does: one for each message or batch that it handles, one for each that it publishes.
--
-- A span of a message begins before the middleware and ends when it is clear what becomes of the message; its parent is
-- the span that the message's `traceparent` names. A span of a publish has the id that the published message carries
-- on, and the handled message's span as parent. Names and attributes follow OpenTelemetry's conventions for messaging
-- (https://opentelemetry.io/docs/specs/semconv/messaging), those of weir begin with "weir.".
--
-- Who comes after decides as those before did: the flag "sampled" of a trace is kept. Traces that begin here are
-- sampled by their id, so that all who sample the same share choose the same traces.
-- @module weir.otlp.tracer

local id = require("weir.id")
local runtime = require("weir.runtime")
local text_of = require("weir.app.text")
local trace = require("weir.trace")

local tracer = {}

local Tracer = { __name = "weir.otlp.tracer" }
Tracer.__index = Tracer

-- Messages of a batch that its span names.
local MOST_LINKS = 128

-- Classes of failures that are answers.
local ANSWERS = { retry = true, drop = true }

local function odd(flags)
  return tonumber(flags, 16) % 2 == 1
end

-- Whether a trace that begins here is recorded: by 52 bits of its id.
local function chosen(self, trace_id)
  return tonumber(trace_id:sub(-13), 16) / 2 ^ 52 < self.sample
end

local function traceparent(span)
  return ("00-%s-%s-%s"):format(span.trace_id, span.id, span.sampled and "01" or "00")
end

-- The span that a table of headers names; nil where there is none.
local function remote(headers)
  local trace_id, span_id, flags = trace.parse(headers and headers.traceparent)
  if trace_id then
    return { trace_id = trace_id, id = span_id, sampled = odd(flags), state = headers.tracestate }
  end
end

-- A span below another, or the first of a trace. Only what is recorded has more than names.
local function new_span(self, parent)
  local span = {
    trace_id = parent and parent.trace_id or id.hex(32),
    id = id.hex(16),
    parent = parent and parent.id,
    state = parent and parent.state,
  }
  if parent then
    span.sampled = parent.sampled
  else
    span.sampled = chosen(self, span.trace_id)
  end
  return span
end

local function begin(span, kind, name, attributes)
  span.kind, span.name, span.attributes = kind, name, attributes
  span.started, span.clock = runtime.time(), runtime.now()
end

local function finish(self, span)
  span.ended = span.started + math.max(0, runtime.now() - span.clock)
  self.add(span)
end

-- What kind of broker has a label.
local function system_of(self, label)
  for _, each in ipairs(self.app.brokers) do
    if each.label == label or label == nil then
      return each.broker.kind
    end
  end
  return label
end

-- --- messages that are handled --------------------------------------------------------------------

local function group_of(descriptor)
  local fields = type(descriptor.fields) == "table" and descriptor.fields or {}
  local group = descriptor.group or fields.group or descriptor.queue or fields.queue
  return type(group) == "string" and group or nil
end

local function describe(self, ctx)
  local name = tostring(ctx.registration.descriptor.name)
  return "process " .. name, {
    ["messaging.system"] = system_of(self, ctx.broker),
    ["messaging.operation.name"] = "process",
    ["messaging.operation.type"] = "process",
    ["messaging.destination.name"] = name,
    ["messaging.consumer.group.name"] = group_of(ctx.registration.descriptor),
    ["weir.handler"] = ctx.handler,
    ["weir.broker"] = ctx.broker,
  }
end

local function fail(span, class, err)
  span.error = text_of(err)
  span.attributes["error.type"] = class
end

local function begin_batch(self, ctx)
  local span = new_span(self)
  ctx.otlp_span = span
  ctx.headers = { traceparent = traceparent(span) } -- what is published because of the whole batch is in its trace
  if not span.sampled then
    return
  end
  local name, attributes = describe(self, ctx)
  attributes["messaging.batch.message_count"] = ctx.size
  begin(span, "consumer", name, attributes)
  local left, counts = ctx.size, {}
  span.links = {}
  for _, item in ipairs(ctx.items) do
    local from = remote(item.headers)
    item.otlp_span = from or false -- it has none of its own
    if from and #span.links < MOST_LINKS then
      span.links[#span.links + 1] = from
    elseif from then
      span.dropped_links = (span.dropped_links or 0) + 1
    end
    item:on_settled(function(how, _, failure)
      counts[how] = (counts[how] or 0) + 1
      left = left - 1
      if failure and not ANSWERS[failure.class] then
        fail(span, failure.class, failure.error)
      end
      if left == 0 then
        for outcome, n in pairs(counts) do
          attributes["weir.outcome." .. outcome] = n
        end
        finish(self, span)
      end
    end)
  end
end

local function begin_message(self, ctx)
  local parent = remote(ctx.headers)
  if parent and not parent.sampled then
    ctx.otlp_span = false -- what it leads to says so, too
    return
  end
  local span = new_span(self, parent)
  ctx.otlp_span = span
  if not parent then -- what it leads to is in this trace, too
    local headers = {}
    for name, value in pairs(ctx.headers) do
      headers[name] = value
    end
    headers.traceparent, headers.tracestate = traceparent(span), nil
    ctx.headers = headers
  end
  if not span.sampled then
    return
  end
  local name, attributes = describe(self, ctx)
  if ctx.name ~= attributes["messaging.destination.name"] then
    attributes["messaging.destination.template"] = attributes["messaging.destination.name"]
    attributes["messaging.destination.name"] = ctx.name
  end
  attributes["messaging.message.id"] = ctx.message_id
  attributes["messaging.message.conversation_id"] = ctx.correlation_id
  attributes["messaging.message.body.size"] = #ctx.payload
  attributes["weir.attempt"] = ctx.attempt
  begin(span, "consumer", name, attributes)
  ctx:on_settled(function(how, _, failure)
    attributes["weir.outcome"] = how
    if failure and not ANSWERS[failure.class] then
      fail(span, failure.class, failure.error)
    end
    finish(self, span)
  end)
end

--- Begins the span of what a context is of, unless there is one.
-- @param ctx of a message or a batch
function Tracer:handles(ctx)
  if rawget(ctx, "otlp_span") == nil then
    local start = rawget(ctx, "batch") and begin_batch or begin_message
    start(self, ctx)
  end
end

-- --- messages that are published ------------------------------------------------------------------

-- The parent of the span that a published message names: that of the message which led to it, if it is of that trace.
local function parent_of(out, trace_id)
  local ctx = out.ctx
  local span = ctx and rawget(ctx, "otlp_span") or ctx and remote(ctx.headers)
  if span and span.trace_id == trace_id then
    return span
  end
end

--- The span of something that is published; nil where it is not recorded.
-- @tparam table out what middleware of publishing gets
function Tracer:publishes(out)
  local span = remote(out.headers)
  if not span then
    return nil -- somebody has set a traceparent that is none
  end
  local parent = parent_of(out, span.trace_id)
  span.parent = parent and parent.id
  if not parent and not out.ctx and span.sampled and not chosen(self, span.trace_id) then
    span.sampled = false
    out.headers.traceparent = traceparent(span)
  end
  if not span.sampled then
    return nil
  end
  begin(span, "producer", "publish " .. out.to, {
    ["messaging.system"] = system_of(self, out.broker),
    ["messaging.operation.name"] = "publish",
    ["messaging.operation.type"] = "send",
    ["messaging.destination.name"] = out.to,
    ["messaging.message.id"] = out.headers["message-id"],
    ["messaging.message.conversation_id"] = out.headers["correlation-id"],
    ["weir.broker"] = out.broker,
  })
  return span
end

--- Notes how a publish ended.
-- @tparam table span
-- @tparam table out
-- @param ok
-- @param err
function Tracer:published(span, out, ok, err)
  if out.payload then
    span.attributes["messaging.message.body.size"] = #out.payload
  end
  if not ok then
    local code = type(err) == "table" and err.code
    fail(span, type(code) == "string" and code or "rejected", err or "a middleware did not let this be published")
  end
  finish(self, span)
end

-- --- making ---------------------------------------------------------------------------------------

--- Makes a tracer.
-- @tparam table app
-- @tparam number sample share of the traces that begin here, 0 to 1
-- @tparam function add gets each span that is over
function tracer.new(app, sample, add)
  return setmetatable({ app = app, sample = sample, add = add }, Tracer)
end

return tracer
