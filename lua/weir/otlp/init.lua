--- Spans and metrics of an application, sent by OTLP/HTTP to an OpenTelemetry collector, or to whatever else takes it.
--
--     app:otlp({ endpoint = "http://127.0.0.1:4318", sample = 0.1 })
--
-- See docs/tracing.md. Both are sent in the JSON encoding of OTLP; what cannot be sent is dropped and counted, and
-- never slows down a handler.
-- @module weir.otlp

local encode = require("weir.otlp.encode")
local errors = require("weir.errors")
local exporter = require("weir.otlp.exporter")
local measures = require("weir.app.measures")
local runtime = require("weir.runtime")
local tracer = require("weir.otlp.tracer")
local version = require("weir.version")

local otlp = {}

local ENDPOINT = "http://127.0.0.1:4318"
-- Seconds, and spans.
local INTERVAL, METRICS_INTERVAL, TIMEOUT, QUEUE, BATCH = 5, 30, 10, 2048, 512
local MOST_QUEUE = 1e6

local OPTIONS = {
  endpoint = "string",
  headers = "table",
  resource = "table",
  sample = "number",
  spans = "boolean",
  metrics = "boolean",
  interval = "number",
  metrics_interval = "number",
  timeout = "number",
  queue = "number",
}

local function seconds(options, name, default)
  local value = options[name] or default
  if not (value > 0 and value <= 86400) then
    error(("app:otlp: '%s' must be a number of seconds above 0, not %s"):format(name, tostring(value)), 0)
  end
  return value
end

local function base_of(options)
  local text = options.endpoint or os.getenv("OTEL_EXPORTER_OTLP_ENDPOINT")
  if text == nil or text == "" then
    text = ENDPOINT
  end
  local host = text:match("^https?://([^/?#%s]+)/?[^?#%s]*$")
  if not host then
    error(("app:otlp: 'endpoint' must be such as %q, not %q"):format(ENDPOINT, text), 0)
  elseif host:find("@", 1, true) then
    error("app:otlp: credentials do not belong into 'endpoint'; put them into 'headers'", 0)
  end
  return (text:gsub("/+$", ""))
end

local function headers_of(options)
  local list = {}
  for name, value in pairs(options.headers or {}) do
    if type(name) ~= "string" or not name:find("^[%w!#$%%&'*+%-.^_`|~]+$") then
      error("app:otlp: 'headers' is a table of names to values; this is no name of a header: " .. tostring(name), 0)
    elseif type(value) ~= "string" or value:find("%c") then
      error(("app:otlp: the header '%s' must be a string of one line"):format(name), 0)
    end
    list[#list + 1] = { name, value }
  end
  table.sort(list, function(a, b)
    return a[1] < b[1]
  end)
  return list
end

-- Who sends: the conventions for resources.
local function resource_of(app, options)
  local resource = {
    ["service.name"] = app.title,
    ["service.version"] = app.version,
    ["telemetry.sdk.name"] = "weir",
    ["telemetry.sdk.language"] = "lua",
    ["telemetry.sdk.version"] = version,
  }
  for name, value in pairs(options.resource or {}) do
    local kind = type(value)
    if type(name) ~= "string" or kind ~= "string" and kind ~= "number" and kind ~= "boolean" then
      error("app:otlp: 'resource' is a table of names to strings, numbers or booleans", 0)
    end
    resource[name] = value
  end
  return resource
end

local function read(app, options)
  options = errors.options("app:otlp", options, OPTIONS, 0)
  local sample, queue = options.sample or 1, options.queue or QUEUE
  if not (sample >= 0 and sample <= 1) then
    error("app:otlp: 'sample' must be a number from 0 to 1, not " .. tostring(sample), 0)
  elseif not (queue >= 1 and queue <= MOST_QUEUE and queue % 1 == 0) then
    error("app:otlp: 'queue' must be a whole number from 1 to 1000000, not " .. tostring(queue), 0)
  end
  return {
    url = base_of(options),
    headers = headers_of(options),
    resource = resource_of(app, options),
    sample = sample,
    queue = queue,
    spans = options.spans ~= false,
    metrics = options.metrics ~= false,
    interval = seconds(options, "interval", INTERVAL),
    metrics_interval = seconds(options, "metrics_interval", METRICS_INTERVAL),
    timeout = seconds(options, "timeout", TIMEOUT),
  }
end

-- --- the two signals ------------------------------------------------------------------------------

local function new_exporter(app, settings, items, spec)
  spec.headers, spec.timeout, spec.items = settings.headers, settings.timeout, items
  spec.log = {
    warn = function(_, ...)
      app:logger():warn(...)
    end,
    info = function(_, ...)
      app:logger():info(...)
    end,
  }
  return exporter.new(spec)
end

-- Puts a function before all others of a list that is not to be changed.
local function first(fn, list)
  if list ~= nil and type(list) ~= "table" then
    return list -- which the check of the wiring reports
  end
  local result = { fn }
  for i, each in ipairs(list or {}) do
    result[i + 1] = each
  end
  return result
end

local function add_tracer(app, made)
  app.tracer = made
  local options = app.options
  options.middleware = first(function(value, ctx, next)
    made:handles(ctx)
    return next(value, ctx)
  end, options.middleware)
  options.publish_middleware = first(function(out, next)
    local span = made:publishes(out)
    if not span then
      return next(out)
    end
    local ok, err = next(out)
    made:published(span, out, ok, err)
    return ok, err
  end, options.publish_middleware)
end

local function spans_exporter(app, settings, items)
  local made = new_exporter(app, settings, items, {
    signal = "spans",
    url = settings.url .. "/v1/traces",
    interval = settings.interval,
    most = settings.queue,
    batch = math.min(BATCH, settings.queue),
    make = function(list)
      local spans = {}
      for i, span in ipairs(list) do
        spans[i] = encode.span(span)
      end
      return encode.traces(settings.resource, spans)
    end,
  })
  add_tracer(app, tracer.new(app, settings.sample, function(span)
    made:add(span)
  end))
  return made
end

-- That with which it runs, which is another one in tests.
local function registry_of(app)
  return app.running and app.running.metrics or app.metrics
end

local function metrics_exporter(app, settings, items)
  local started = runtime.time()
  return new_exporter(app, settings, items, {
    signal = "metrics",
    url = settings.url .. "/v1/metrics",
    interval = settings.metrics_interval,
    make = function()
      return encode.metrics(settings.resource, registry_of(app):collect(), started, runtime.time())
    end,
  })
end

--- Makes an application send its spans and metrics while it runs, and what is left when it stops: `app:otlp(options)`.
-- @tparam table app
-- @tparam[opt] table options
-- @tparam[opt] string options.endpoint the address without `/v1/...`; the environment's `OTEL_EXPORTER_OTLP_ENDPOINT`,
--   or http://127.0.0.1:4318, when left out
-- @tparam[opt] table options.headers of requests, names to values
-- @tparam[opt] table options.resource more attributes of the application, such as `["deployment.environment.name"]`
-- @tparam[opt=1] number options.sample share of the traces that begin here, 0 to 1
-- @tparam[opt=true] boolean options.spans
-- @tparam[opt=true] boolean options.metrics
-- @tparam[opt=5] number options.interval seconds between requests with spans; a full batch is sent at once
-- @tparam[opt=30] number options.metrics_interval seconds between requests with metrics
-- @tparam[opt=10] number options.timeout seconds for a request, and for what is left at the end
-- @tparam[opt=2048] number options.queue spans that may wait to be sent
-- @return the application
function otlp.attach(app, options)
  if app.tracer or app.otlp_attached then
    error("app:otlp: it was called before; one endpoint is what an application sends to", 0)
  elseif app:is_live() then
    error("app:otlp: it must be called before the application starts", 0)
  end
  local settings = read(app, options)
  local items = app.metrics:counter("weir_otlp_items_total", "Spans and points of metrics by what became of them",
    { "signal", "outcome" })
  local exporters = {}
  if settings.spans then
    exporters[#exporters + 1] = spans_exporter(app, settings, items)
  end
  if settings.metrics then
    exporters[#exporters + 1] = metrics_exporter(app, settings, items)
  end
  app.otlp_attached = true
  local unmeasure
  app:on("startup", function()
    unmeasure = settings.metrics and measures.start(app, registry_of(app)) or nil
    for _, each in ipairs(exporters) do
      each:start()
    end
  end)
  app:on("stopped", function()
    local last = runtime.now() + settings.timeout
    for _, each in ipairs(exporters) do
      each:stop(math.max(0.1, last - runtime.now()))
    end
    if unmeasure then
      unmeasure()
    end
  end)
  return app
end

return otlp
