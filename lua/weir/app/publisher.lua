--- Publishing values: encoded, with the headers that every message should have, through middleware.
--
-- Every message gets `content-type` (of the codec), `message-id` (a fresh one, unless it is given), `correlation-id`
-- (the same, unless it is given) and `traceparent`. What is published because of a message (`ctx:publish`, replies,
-- outputs) carries on that message's correlation id (its id where it has none), trace and `tracestate`.
--
-- Options of a publish: `to` (the destination), `headers` (names to strings), `key` (the partition key), `message_id`,
-- `correlation_id`, `reply_to`, `codec`, `broker` (for `ctx:publish` and replies) and `options`, a table for the
-- broker.
-- @module weir.app.publisher

local codec = require("weir.codec")
local content = require("weir.app.content")
local errors = require("weir.errors")
local id = require("weir.id")
local runtime = require("weir.runtime")
local trace = require("weir.trace")

local now = runtime.now

local publisher = {}

local Publisher = { __name = "weir.app.publisher" }
Publisher.__index = Publisher

local OPTIONS = {
  to = "string",
  headers = "table",
  key = { "string", "number" },
  message_id = "string",
  correlation_id = "string",
  reply_to = "string",
  codec = { "string", "table" },
  broker = "string",
  options = "table",
}

local LABELS = { "app", "broker", "destination", "status" }

-- Names under which somebody waits for a reply, and how many other destinations are counted apart.
local INBOXES, MOST_NAMES = "^_INBOX[^%w]", 100

-- --- from a value to what is sent -----------------------------------------------------------------

local function add_headers(headers, more)
  for name, value in pairs(more) do
    if type(name) ~= "string" then
      error("publish: names of headers are strings, not " .. tostring(name), 0)
    elseif type(value) ~= "string" then
      if type(value) ~= "number" and type(value) ~= "boolean" then
        error(("publish: the header '%s' must be a string, not a %s"):format(name, type(value)), 0)
      end
      value = tostring(value)
    end
    headers[name:lower()] = value
  end
end

-- The headers of a message; `ctx` is the context of the one that led to it. And whether `traceparent` is made here.
local function make_headers(self, chosen, options, ctx)
  local given = self.headers or options.headers
  local message_id, correlation_id = options.message_id, options.correlation_id
  if not given then
    message_id = message_id or id.message()
    correlation_id = correlation_id or ctx and ctx.correlation_id or message_id
  end
  local headers = { -- all at once, as most messages have no others
    ["content-type"] = chosen.content_type,
    ["message-id"] = message_id,
    ["correlation-id"] = correlation_id,
    traceparent = nil,
  }
  if given then
    add_headers(headers, self.headers or {})
    add_headers(headers, options.headers or {})
    message_id = message_id or headers["message-id"] or id.message()
    headers["message-id"] = message_id
    headers["correlation-id"] = correlation_id or headers["correlation-id"] or ctx and ctx.correlation_id or message_id
  end
  local key = options.key or self.key
  if key ~= nil then
    headers["partition-key"] = tostring(key)
  end
  if options.reply_to then
    headers["reply-to"] = options.reply_to
  end
  return headers, trace.propagate(headers, ctx and ctx.headers)
end

-- What middleware sees: `to`, `value`, `headers`, `options` (the broker's), `payload` (nil until the value is encoded),
-- `codec`, `broker` (its label), `header_schema`, and `ctx`, the context of the message that led to it, if there is
-- one. Of the tracer are `own_span`, whether `traceparent` names a span of this publish, `later`, whether it is only
-- collected when middleware returns, and `on_sent`, which is called then, with what comes of it.
local function make_out(self, value, options, ctx)
  if value == nil then
    error("publish: a value is expected, not nil", 0)
  end
  options = errors.options("publish", options, OPTIONS, 0)
  local to = options.to or self.to
  if not to then
    error("publish: 'to' is missing: where is it to go?", 0)
  end
  local chosen = options.codec and codec.get(options.codec) or self.codec
  local headers, own_span = make_headers(self, chosen, options, ctx)
  return {
    to = to,
    value = value,
    headers = headers,
    own_span = own_span,
    options = options.options or self.options,
    codec = chosen,
    broker = self.label,
    header_schema = self.header_schema,
    ctx = ctx,
  }
end

local function encode(self, out)
  if out.header_schema then
    local ok, err = out.header_schema:validate(out.headers)
    if not ok then
      return nil, err
    end
  end
  if out.payload ~= nil then
    return true
  end
  local schema = self.schema
  if schema then
    local ok, err = schema:validate(out.value)
    if not ok then
      return nil, err
    end
  end
  local payload, err = out.codec.encode(out.value)
  if not payload then
    return nil, err
  end
  out.payload = payload
  return true
end

-- --- sending --------------------------------------------------------------------------------------

-- The families of a registry, and the series that were used; made when something is published first.
local function open_series(series, registry)
  series.published = registry:counter("weir_messages_published_total", "Messages published", LABELS)
  series.durations = registry:histogram("weir_publish_duration_seconds", "Time until the broker has a message",
    { "app", "broker", "destination" })
  series.by_name, series.names = {}, 0
end

-- The series of a destination. That may be anything: all inboxes share one, as they are somebody's for one reply, and
-- so do those above the limit.
local function series_of(self, to)
  local series = self.series
  local name = to:find(INBOXES) and "_INBOX" or to
  local mine = series.by_name[name]
  if not mine and series.names >= MOST_NAMES then
    name = "other"
    mine = series.by_name[name]
  end
  if not mine then
    mine = {
      ok = series.published:with(self.app_name, self.label, name, "ok"),
      error = series.published:with(self.app_name, self.label, name, "error"),
      durations = series.durations:with(self.app_name, self.label, name),
    }
    series.by_name[name], series.names = mine, series.names + 1
  end
  return mine
end

local function count(self, out, ok, started)
  local registry, series = self.env.metrics, self.series
  if not registry then
    return
  elseif not series.published then
    open_series(series, registry)
  end
  local mine = series.by_name[out.to] or series_of(self, out.to)
  mine[ok and "ok" or "error"]:inc(1)
  mine.durations:observe(now() - started)
end

local function tell(self, out)
  local observer = self.env.observer
  if observer and observer.published then
    observer.published(self.label, out.to, out.payload, out.headers)
  end
end

-- The end of the chain of middleware: encodes and publishes. What succeeds is added to `later`, if there is one, and
-- is not counted yet.
local function send_with(self, target, later)
  return function(out)
    local ok, err = encode(self, out)
    if not ok then
      return nil, err
    end
    local started = now()
    local done, receipt = target:publish(out.to, out.payload, out.headers, out.options)
    if done and later then
      out.later, later[#later + 1] = true, out
      return done, receipt
    end
    count(self, out, done, started)
    if done then
      tell(self, out)
    end
    return done, receipt
  end
end

local function chain(middleware, fn)
  for i = #middleware, 1, -1 do
    local around, inner = middleware[i], fn
    fn = function(out)
      return around(out, inner)
    end
  end
  return fn
end

-- Tells who waits for it what came of something that was collected.
local function sent(out, ok, err)
  if out.on_sent then
    out.on_sent(ok, err)
  end
end

-- Calls a function that raises for misuse, and blames the caller's caller, and nobody else.
local function checked(level, fn, ...)
  local ok, result = pcall(fn, ...)
  if not ok then
    error(type(result) == "string" and result:gsub("^[^\n]-weir/[%w_/]+%.lua:%d+: ", "") or result, level + 1)
  end
  return result
end

-- What middleware returns: true, or nil and an error; nothing at all, or false, means that it did not publish.
local function result_of(ok, result)
  if ok then
    return true, result
  end
  return nil, result or errors.new("rejected", "a middleware did not let this be published")
end

--- Publishes a value.
-- @param value what the codec can encode; not nil
-- @tparam[opt] table options see above
-- @param[opt] ctx the context of the message that leads to it
-- @treturn boolean true once the broker has it (or it is on its way, where the broker confirms nothing); or nil and an
--   error: "encode", "schema", "closed", "full", "too_large", "disconnected", "timeout", ...
-- @return the broker's receipt, if there is one
function Publisher:publish(value, options, ctx)
  return result_of(self.send(checked(2, make_out, self, value, options, ctx)))
end

-- Prepares the items of a batch, through middleware, for a target that collects them.
local function collect(self, items, defaults, ctx)
  local results, collected, outs, places = {}, {}, {}, {}
  local at
  local gather = chain(self.middleware, function(out)
    local ok, err = encode(self, out)
    if not ok then
      return nil, err
    end
    collected[#collected + 1] = { out.to, out.payload, out.headers, out.options, destination = out.to,
      payload = out.payload, headers = out.headers, options = out.options }
    outs[#collected], places[#collected], out.later = out, at, true
    return true
  end)
  for i, out in ipairs(checked(3, function()
    local made = {}
    for i, item in ipairs(items) do
      made[i] = self:item(item, defaults, ctx)
    end
    return made
  end)) do
    at = i
    local ok, err = result_of(gather(out))
    results[i] = ok or err
  end
  return results, collected, outs, places
end

--- One item of a batch as what is sent.
function Publisher:item(item, defaults, ctx)
  if type(item) ~= "table" or item.value == nil then
    error("publish_batch: each item is a table with 'value' and perhaps 'to', 'headers', 'key', ...", 0)
  end
  local options = {}
  for name, value in pairs(defaults or {}) do
    options[name] = value
  end
  for name, value in pairs(item) do
    if name ~= "value" then
      options[name] = value
    end
  end
  return make_out(self, item.value, options, ctx)
end

-- Publishes what was collected: in one go where the broker can.
local function send_all(self, collected)
  local raw = self.raw
  if raw.publish_batch then
    local ok, err, each = raw:publish_batch(collected)
    if each then
      return each
    end
    local all = {}
    for i = 1, #collected do
      all[i] = ok and true or err
    end
    return all
  end
  local all = {}
  for i, item in ipairs(collected) do
    local ok, err = raw:publish(item.destination, item.payload, item.headers, item.options)
    all[i] = ok and true or err
  end
  return all
end

--- Publishes several values.
-- @tparam {table,...} items each `{ value = ..., to, headers, key, ... }`: the options of `publish` beside the value
-- @tparam[opt] table defaults options for all items
-- @param[opt] ctx the context of the message that leads to it
-- @treturn boolean true where all got through; or nil and the first error
-- @treturn {true|error,...} the result of each item, in their order: the third result where the second is an error,
--   and also where there is none
function Publisher:publish_batch(items, defaults, ctx)
  if type(items) ~= "table" then
    error("publish_batch: a list of items is expected, not a " .. type(items), 2)
  end
  local results, collected, outs, places = collect(self, items, defaults, ctx)
  local started = now()
  for i, result in ipairs(#collected > 0 and send_all(self, collected) or {}) do
    local out, ok = outs[i], result == true
    results[places[i]] = result
    count(self, out, ok, started)
    sent(out, ok, not ok and result or nil)
    if ok then
      tell(self, out)
    end
  end
  for i = 1, #items do
    if results[i] ~= true then
      return nil, results[i], results
    end
  end
  return true, nil, results
end

--- Asks, and waits for the answer.
-- @param value
-- @tparam[opt] table options as for `publish`
-- @tparam[opt] number timeout in seconds; the broker's own when left out
-- @param[opt] ctx the context of the message that leads to it
-- @return the value of the answer, decoded by its content type; or nil and an error: "timeout", "no_responders",
--   "unsupported", "decode", ...
-- @return the answer's message
function Publisher:request(value, options, timeout, ctx)
  local out = checked(2, make_out, self, value, options, ctx)
  local answer
  local ask = chain(self.middleware, function(final)
    local ok, err = encode(self, final)
    if not ok then
      return nil, err
    end
    local started = now()
    answer, err = self.raw:request(final.to, final.payload, final.headers, timeout)
    count(self, final, answer, started)
    if answer then
      tell(self, final)
    end
    return answer and true, err
  end)
  local ok, err = result_of(ask(out))
  if not ok then
    return nil, err
  elseif not answer then
    return nil, errors.new("rejected", "a middleware did not let this be published")
  end
  local chosen = out.codec
  local content_type = answer.headers and answer.headers["content-type"]
  if content_type then
    chosen = content.codec(content_type, chosen)
  end
  local decoded
  decoded, err = chosen.decode(answer.payload)
  if decoded == nil then
    return nil, err
  end
  return decoded, answer
end

local ABORTED = errors.new("aborted", "the transaction was aborted")

local Transaction = { __name = "weir.app.transaction" }
Transaction.__index = Transaction

--- Publishes within the transaction; as the publisher's `publish`, or that of another one of the same broker, which has
-- other settings.
function Transaction:publish(value, options, ctx, publisher_)
  return result_of(self.send(checked(2, make_out, publisher_ or self.publisher, value, options, ctx)))
end

--- Makes everything visible at once.
-- @tparam[opt] number timeout
-- @treturn boolean true; or nil and an error: then nothing is visible, unless the error is "timeout"
function Transaction:commit(timeout)
  local of, outs, started = self.publisher, self.outs, now()
  local ok, err = self.raw:commit(timeout)
  self.outs = {}
  for _, out in ipairs(outs) do
    count(of, out, ok, started)
    sent(out, ok, err)
    if ok then
      tell(of, out)
    end
  end
  return ok, err
end

--- Forgets everything.
function Transaction:abort()
  local outs = self.outs
  self.outs = {}
  for _, out in ipairs(outs) do
    sent(out, false, ABORTED)
  end
  return self.raw:abort()
end

Transaction.__close = Transaction.abort

--- Begins a transaction: what is published with it is not visible before its `commit`.
-- @return an object with `publish`, `commit` and `abort`; or nil and an error: "unsupported"
function Publisher:transaction()
  if not self.raw.transaction or (self.capabilities and not self.capabilities.transactions) then
    return nil, errors.new("unsupported", ("the broker '%s' has no transactions"):format(self.label))
  end
  local raw, err = self.raw:transaction()
  if not raw then
    return nil, err
  end
  local outs = {} -- what it holds
  local send = chain(self.middleware, send_with(self, raw, outs))
  return setmetatable({ publisher = self, raw = raw, outs = outs, send = send }, Transaction)
end

--- Waits until what was published has reached the broker.
-- @tparam[opt] number timeout
function Publisher:flush(timeout)
  if self.raw.flush then
    return self.raw:flush(timeout)
  end
  return true
end

--- Publishes bytes as they are, with exactly these headers, and waits until the broker has them: for copies and dead
-- letters.
-- @tparam string to
-- @tparam string payload
-- @tparam table headers
-- @treturn boolean true; or nil and an error
function Publisher:publish_confirmed(to, payload, headers)
  local started = now()
  local ok, err = self.raw:publish(to, payload, headers)
  if ok and not (self.capabilities and self.capabilities.confirm) then
    ok, err = self:flush()
  end
  local out = { to = to, payload = payload, headers = headers }
  count(self, out, ok, started)
  if ok then
    tell(self, out)
  end
  return ok and true, err
end

-- Makes a publisher from its fields.
local function make(self)
  self.send = chain(self.middleware, send_with(self, self.raw))
  return setmetatable(self, Publisher)
end

--- The same with other settings: `codec`, `schema`, `header_schema`, `middleware`, `to`, `headers`, `key`, `options`.
function Publisher:with(settings)
  local new = {}
  for name, value in pairs(self) do
    new[name] = value
  end
  for name, value in pairs(settings) do
    new[name] = value
  end
  new.codec = codec.get(new.codec)
  return make(new)
end

function Publisher:__tostring()
  return ("weir.app.publisher(%s)"):format(self.to and self.label .. ", " .. self.to or self.label)
end

--- Makes a publisher.
-- @tparam table spec
-- @param spec.broker of `weir.broker`; or
-- @param spec.raw its publisher, where there is one already
-- @tparam[opt] string spec.label of the broker
-- @tparam[opt] table spec.env `app`, `metrics`, `observer`
-- @param[opt="json"] spec.codec
-- @tparam[opt] spec.schema values are validated by it
-- @tparam[opt] spec.header_schema of `weir.app.header_schema`: headers are validated by it
-- @tparam[opt] {function,...} spec.middleware `function(out, next) ... return next(out) end`, the outer ones first
-- @tparam[opt] string spec.to destination, where a publish names none
-- @tparam[opt] table spec.headers of every message
-- @tparam[opt] string spec.key of every message
-- @tparam[opt] table spec.options for the broker, where a publish has none
-- @return the publisher; or nil and the broker's error
function publisher.new(spec)
  local env = spec.env or {}
  local raw = spec.raw
  if not raw then
    local err
    raw, err = spec.broker:publisher()
    if not raw then
      return nil, err
    end
  end
  local app = env.app
  return make({
    raw = raw,
    label = spec.label or spec.broker and spec.broker.kind or "",
    capabilities = spec.broker and spec.broker:capabilities() or nil,
    env = env,
    app_name = app and (app.title or app.name) or "",
    codec = codec.get(spec.codec or "json"),
    schema = spec.schema,
    header_schema = spec.header_schema,
    middleware = spec.middleware or {},
    to = spec.to,
    headers = spec.headers,
    key = spec.key,
    options = spec.options,
    series = {},
  })
end

--- Whether a value is such a publisher.
function publisher.is(value)
  return getmetatable(value) == Publisher
end

return publisher
