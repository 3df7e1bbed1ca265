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

local encode = require("weir.otlp.encode")
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

-- Destinations of a broker that are known by heart.
local MOST_KNOWN = 100

-- Destinations that exist for one reply: their names are too many to be in the names of spans.
local TEMPORARY = "^_INBOX[^%w]"

local attribute = encode.attribute
local sub, find, rawget = string.sub, string.find, rawget

-- --- where a span belongs -------------------------------------------------------------------------

-- Whether a trace that begins here is recorded: by 52 bits of its id.
local function chosen(self, trace_id)
  local sample = self.sample
  return sample >= 1 or sample > 0 and tonumber(sub(trace_id, -13), 16) / 2 ^ 52 < sample
end

local SAMPLED = {}
for digit = 0, 15 do
  SAMPLED[("%x"):format(digit)] = digit % 2 == 1
end

local function traceparent(span)
  return "00-" .. span.trace_id .. "-" .. span.id .. (span.sampled and "-01" or "-00")
end

-- The span that headers name; nil where there is none.
local function remote(headers)
  local trace_id, span_id, flags = trace.parse(headers.traceparent)
  if trace_id then
    local state = headers.tracestate
    return { trace_id = trace_id, id = span_id, sampled = SAMPLED[sub(flags, 2)], state = state and trace.state(state) }
  end
end

-- A span below another.
local function child_of(parent)
  return {
    trace_id = parent.trace_id,
    id = id.hex(16),
    parent = parent.id,
    state = parent.state,
    sampled = parent.sampled,
  }
end

-- The first span of a trace.
local function first_span(self)
  local trace_id = id.hex(32)
  return { trace_id = trace_id, id = id.hex(16), sampled = chosen(self, trace_id) }
end

-- --- what is recorded -----------------------------------------------------------------------------

local function begin(span, about)
  span.about, span.started, span.clock = about, runtime.time(), runtime.now()
end

-- An attribute that few spans have.
local function add(span, name, value)
  span.more = span.more or {}
  span.more[#span.more + 1] = attribute(name, value)
end

local function fail(span, class, err)
  if not span.error then
    span.error = text_of(err)
    add(span, "error.type", class)
  end
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

-- What spans of a handler have in common.
local function describe(self, ctx, destination, template)
  local descriptor = ctx.registration.descriptor
  return encode.about("process " .. (template or destination), "consumer", {
    ["messaging.system"] = system_of(self, ctx.broker),
    ["messaging.operation.name"] = "process",
    ["messaging.operation.type"] = "process",
    ["messaging.destination.name"] = destination,
    ["messaging.destination.template"] = template,
    ["messaging.consumer.group.name"] = group_of(descriptor),
    ["weir.handler"] = ctx.handler,
    ["weir.broker"] = ctx.broker,
  })
end

-- The same, made once for each handler; for handlers of a pattern, where messages have other destinations, each time.
local function about_of(self, ctx, destination)
  local meta = getmetatable(ctx) -- contexts of a handler share theirs
  local known = self.handlers[meta]
  if not known then
    local name = tostring(ctx.registration.descriptor.name)
    known = { name = name, about = describe(self, ctx, name) }
    self.handlers[meta] = known
  end
  if destination == nil or destination == known.name then
    return known.about
  end
  return describe(self, ctx, destination, known.name)
end

-- Links to the messages of a batch; each context knows its own.
local function link(ctx, span)
  span.links = {}
  for _, item in ipairs(ctx.items) do
    local from = remote(item.headers)
    item.otlp_span = from or false -- it has none of its own
    if from and #span.links < MOST_LINKS then
      span.links[#span.links + 1] = from
    elseif from then
      span.dropped_links = (span.dropped_links or 0) + 1
    end
  end
end

-- Ends the span of a batch with the last of its messages.
local function finish_batch(self, ctx, span)
  local left, counts = ctx.size, {}
  local function settled(how, _, failure)
    counts[how] = (counts[how] or 0) + 1
    left = left - 1
    if failure and not ANSWERS[failure.class] then
      fail(span, failure.class, failure.error)
    end
    if left == 0 then
      for outcome, n in pairs(counts) do
        add(span, "weir.outcome." .. outcome, n)
      end
      finish(self, span)
    end
  end
  for _, item in ipairs(ctx.items) do
    item:on_settled(settled)
  end
end

local function begin_batch(self, ctx)
  local span = first_span(self)
  ctx.otlp_span = span
  ctx.headers = { traceparent = traceparent(span) } -- what is published because of the whole batch is in its trace
  if span.sampled then
    begin(span, about_of(self, ctx))
    add(span, "messaging.batch.message_count", ctx.size)
    link(ctx, span)
    finish_batch(self, ctx, span)
  end
end

-- What a message without a trace leads to is in the one that begins with it.
local function begin_trace(self, ctx)
  local span, headers = first_span(self), {}
  for name, value in pairs(ctx.headers) do
    headers[name] = value
  end
  headers.traceparent, headers.tracestate = traceparent(span), nil
  ctx.headers = headers
  return span
end

local function record_message(self, ctx, span)
  local message = ctx.message
  begin(span, about_of(self, ctx, message.destination))
  span.message_id, span.conversation_id = ctx.message_id, ctx.correlation_id
  span.size, span.attempt = #message.payload, ctx.attempt
  ctx:on_settled(function(how, _, failure)
    span.outcome = how
    if failure and not ANSWERS[failure.class] then
      fail(span, failure.class, failure.error)
    end
    finish(self, span)
  end)
end

local function begin_message(self, ctx)
  local headers = ctx.headers
  local trace_id, _, flags = trace.parse(headers.traceparent)
  if trace_id and not SAMPLED[sub(flags, 2)] then
    ctx.otlp_span = false -- what it leads to says so, too
    return
  end
  local span = trace_id and child_of(remote(headers)) or begin_trace(self, ctx)
  ctx.otlp_span = span
  if span.sampled then
    record_message(self, ctx, span)
  end
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

-- The span that led to a publish, if it is of that trace.
local function cause_of(out, trace_id)
  local ctx = out.ctx
  local span = ctx and rawget(ctx, "otlp_span") or ctx and remote(ctx.headers)
  return span and span.trace_id == trace_id and span or nil
end

-- The span of a publish whose `traceparent` was made for it, so that it is well formed.
local function own_span(self, out)
  local headers = out.headers
  local given = headers.traceparent
  if not SAMPLED[sub(given, 55)] then
    return nil
  end
  local trace_id = sub(given, 4, 35)
  local cause = cause_of(out, trace_id)
  if not cause and not chosen(self, trace_id) then -- it begins here
    headers.traceparent = sub(given, 1, 53) .. "00"
    return nil
  end
  local state = headers.tracestate
  return {
    trace_id = trace_id,
    id = sub(given, 37, 52),
    parent = cause and cause.id,
    state = state and trace.state(state),
    sampled = true,
  }
end

-- The span of a publish with the `traceparent` of something else, as whose consequence it is wanted: that of a request
-- over HTTP, or of a message whose headers are passed on.
local function given_span(out)
  local headers = out.headers
  local given = remote(headers)
  if given and given.sampled then
    local span = child_of(cause_of(out, given.trace_id) or given)
    span.sampled, span.state = true, given.state
    headers.traceparent = traceparent(span)
    return span
  end
end

local function describe_publish(self, broker, to)
  local temporary = find(to, TEMPORARY) ~= nil
  return encode.about("publish " .. (temporary and "(temporary)" or to), "producer", {
    ["messaging.system"] = system_of(self, broker),
    ["messaging.operation.name"] = "publish",
    ["messaging.operation.type"] = "send",
    ["messaging.destination.name"] = to,
    ["messaging.destination.temporary"] = temporary or nil,
    ["weir.broker"] = broker,
  })
end

-- What spans of publishes have in common, made once for each destination; of many, for each of those that came first.
local function about_publish(self, broker, to)
  local known = self.destinations[broker]
  if not known then
    known = { count = 0, by_name = {} }
    self.destinations[broker] = known
  end
  local about = known.by_name[to]
  if not about then
    about = describe_publish(self, broker, to)
    if known.count < MOST_KNOWN then
      known.by_name[to], known.count = about, known.count + 1
    end
  end
  return about
end

--- The span of something that is published; nil where it is not recorded.
-- @tparam table out what middleware of publishing gets
function Tracer:publishes(out)
  local span
  if out.own_span then
    span = own_span(self, out)
  else
    span = given_span(out)
  end
  if not span then
    return nil
  end
  local headers = out.headers
  begin(span, about_publish(self, out.broker, out.to))
  span.message_id, span.conversation_id = headers["message-id"], headers["correlation-id"]
  return span
end

--- Notes how a publish ended. What is only collected so far, for a batch or a transaction, ends with that.
-- @tparam table span
-- @tparam table out
-- @param ok
-- @param err
function Tracer:published(span, out, ok, err)
  if ok and out.later then
    out.later = nil
    out.on_sent = function(done, why)
      self:published(span, out, done, why)
    end
    return
  end
  span.size = out.payload and #out.payload
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
-- @tparam function add_span gets each span that is over, as `weir.otlp.encode` takes it
function tracer.new(app, sample, add_span)
  return setmetatable({
    app = app,
    sample = sample,
    add = add_span,
    handlers = setmetatable({}, { __mode = "k" }),
    destinations = {},
  }, Tracer)
end

return tracer
