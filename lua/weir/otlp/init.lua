--- Spans and metrics of an application, sent by OTLP/HTTP to an OpenTelemetry collector, or to whatever else takes it.
--
--     app:otlp({ endpoint = "http://127.0.0.1:4318", sample = 0.1 })
--
-- See docs/tracing.md. Both are sent in the JSON encoding of OTLP; what cannot be sent is dropped and counted, and
-- never slows down a handler.
-- @module weir.otlp

local encode = require("weir.otlp.encode")
local exporter = require("weir.otlp.exporter")
local measures = require("weir.app.measures")
local runtime = require("weir.runtime")
local settings_of = require("weir.otlp.settings").read
local tracer = require("weir.otlp.tracer")

local otlp = {}

-- --- the two signals ------------------------------------------------------------------------------

local function new_exporter(app, signal, items, spec)
  spec.url, spec.headers, spec.timeout, spec.tls = signal.url, signal.headers, signal.timeout, signal.tls
  spec.items = items
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
  local resource = encode.attributes(settings.resource)
  local made = new_exporter(app, settings.traces, items, {
    signal = "spans",
    interval = settings.interval,
    most = settings.queue,
    batch = settings.batch,
    write = encode.span,
    make = function(list)
      return encode.traces(resource, list), #list
    end,
    halves = encode.halves,
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
  local started, resource = runtime.time(), encode.attributes(settings.resource)
  return new_exporter(app, settings.metrics, items, {
    signal = "metrics",
    interval = settings.metrics_interval,
    collect = function()
      return { families = registry_of(app):collect(), at = runtime.time() }
    end,
    make = function(batch)
      return encode.metrics(resource, batch.families, started, batch.at, runtime.pause)
    end,
    halves = function(batch)
      local left, right = encode.metric_halves(batch.families)
      if left then
        return { families = left, at = batch.at }, { families = right, at = batch.at }
      end
    end,
  })
end

local function exporters_of(app, settings)
  local items = app.metrics:counter("weir_otlp_items_total", "Spans and points of metrics by what became of them",
    { "signal", "outcome" })
  local exporters = {}
  if settings.traces then
    exporters[#exporters + 1] = spans_exporter(app, settings, items)
  end
  if settings.metrics then
    exporters[#exporters + 1] = metrics_exporter(app, settings, items)
  end
  return exporters
end

--- Makes an application send its spans and metrics while it runs, and what is left when it stops: `app:otlp(options)`.
-- What is left out is as the environment says it, in the variables of OpenTelemetry (docs/tracing.md lists them).
-- @tparam table app
-- @tparam[opt] table options
-- @tparam[opt] string options.endpoint the address without `/v1/...`: http://127.0.0.1:4318
-- @tparam[opt] table options.headers of requests, names to values
-- @tparam[opt] string options.ca names of PEM files, or PEM text: whom to trust, and with `options.cert` and
--   `options.key` who this is
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
  if app.otlp_attached then
    error("app:otlp: it was called before; one endpoint is what an application sends to", 0)
  elseif app:is_live() then
    error("app:otlp: it must be called before the application starts", 0)
  end
  local settings = settings_of(app, options)
  local exporters = exporters_of(app, settings)
  app.otlp_attached = true
  local unmeasure
  app:on("startup", function()
    for _, warning in ipairs(settings.warnings) do
      app:logger():warn("telemetry: " .. warning)
    end
    unmeasure = settings.metrics and measures.start(app, registry_of(app)) or nil
    for _, each in ipairs(exporters) do
      each:start()
    end
  end)
  app:on("stopped", function()
    local last
    for _, each in ipairs(exporters) do -- the metrics come last, and tell of the spans
      last = last or runtime.now() + each.timeout
      each:stop(math.max(0.1, last - runtime.now()))
    end
    if unmeasure then
      unmeasure()
    end
  end)
  return app
end

return otlp
