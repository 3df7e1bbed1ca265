--- What an application sends, and where to: the options of `app:otlp`, and for what they leave out the environment.
-- @module weir.otlp.settings

local environment = require("weir.otlp.environment")
local errors = require("weir.errors")
local id = require("weir.id")
local version = require("weir.version")

local settings = {}

local ENDPOINT = "http://127.0.0.1:4318"
-- Seconds, and spans.
local INTERVAL, METRICS_INTERVAL, TIMEOUT, QUEUE, BATCH = 5, 30, 10, 2048, 512
local MOST_QUEUE = 1e6

local OPTIONS = {
  endpoint = "string",
  headers = "table",
  ca = "string",
  cert = "string",
  key = "string",
  resource = "table",
  sample = "number",
  spans = "boolean",
  metrics = "boolean",
  interval = "number",
  metrics_interval = "number",
  timeout = "number",
  queue = "number",
}

-- The first that is not nil.
local function first(...)
  for i = 1, select("#", ...) do
    local value = select(i, ...)
    if value ~= nil then
      return value
    end
  end
end

local function check_seconds(options)
  for _, name in ipairs({ "interval", "metrics_interval", "timeout" }) do
    local value = options[name]
    if value and not (value > 0 and value <= 86400) then
      error(("app:otlp: '%s' must be a number of seconds above 0, not %s"):format(name, tostring(value)), 0)
    end
  end
end

local function check_numbers(options)
  local sample, queue = options.sample or 1, options.queue or QUEUE
  if not (sample >= 0 and sample <= 1) then
    error("app:otlp: 'sample' must be a number from 0 to 1, not " .. tostring(sample), 0)
  elseif not (queue >= 1 and queue <= MOST_QUEUE and queue % 1 == 0) then
    error("app:otlp: 'queue' must be a whole number from 1 to 1000000, not " .. tostring(queue), 0)
  end
end

-- --- addresses ------------------------------------------------------------------------------------

-- An address, which is told only where nothing in it can be a secret.
local function check_url(text, name)
  local host = text:match("^https?://([^/?#%s]+)/?[^?#%s]*$")
  if text:find("@", 1, true) then
    error(("app:otlp: credentials do not belong into %s; put them into 'headers'"):format(name), 0)
  elseif not host then
    error(("app:otlp: %s must be such as %q, not %q"):format(name, ENDPOINT, text), 0)
  end
  return text
end

-- The address of a signal: that of the environment for the signal is whole, others are without the path.
local function url_of(options, env, signal, path)
  if not options.endpoint and env[signal].url then
    return check_url(env[signal].url, "the variable " .. env[signal].url_name)
  end
  local name = options.endpoint and "'endpoint'" or "the variable OTEL_EXPORTER_OTLP_ENDPOINT"
  local base = first(options.endpoint ~= "" and options.endpoint or nil, env.endpoint, ENDPOINT)
  return check_url(base, name):gsub("/+$", "") .. path
end

local function headers_of(options, env)
  local list = {}
  for name, value in pairs(options.headers or env.headers) do
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

-- --- who sends ------------------------------------------------------------------------------------

-- A UUID of version 4 (RFC 9562).
local function uuid()
  local digits = id.hex(32)
  local variant = ("%x"):format(8 + tonumber(digits:sub(17, 17), 16) % 4)
  return ("%s-%s-4%s-%s%s-%s"):format(digits:sub(1, 8), digits:sub(9, 12), digits:sub(14, 16), variant,
    digits:sub(18, 20), digits:sub(21, 32))
end

-- The conventions for resources. Processes of one application are told apart by the instance: without that, their
-- counters would be taken for one that jumps.
local function resource_of(app, options, env)
  local resource = {
    ["service.name"] = app.title,
    ["service.version"] = app.version,
    ["service.instance.id"] = uuid(),
    ["telemetry.sdk.name"] = "weir",
    ["telemetry.sdk.language"] = "lua",
    ["telemetry.sdk.version"] = version,
  }
  for name, value in pairs(env.resource) do
    resource[name] = value
  end
  for name, value in pairs(options.resource or {}) do
    local kind = type(value)
    if type(name) ~= "string" or kind ~= "string" and kind ~= "number" and kind ~= "boolean" then
      error("app:otlp: 'resource' is a table of names to strings, numbers or booleans", 0)
    end
    resource[name] = value
  end
  return resource
end

-- --- the whole ------------------------------------------------------------------------------------

-- What one signal is sent with; nil where it is not sent.
local function signal_of(options, env, signal, on, path)
  local own = env[signal]
  if not first(on, own.on) then
    return nil
  end
  return {
    url = url_of(options, env, signal, path),
    headers = headers_of(options, own),
    timeout = options.timeout or own.timeout or TIMEOUT,
    tls = { ca = options.ca or own.ca, cert = options.cert or own.cert, key = options.key or own.key },
  }
end

--- Reads the options; raises for what is wrong with them.
-- @tparam table app
-- @tparam ?table options of `app:otlp`
-- @treturn table `traces` and `metrics` (each nil, or `url`, `headers`, `timeout`, `tls`), `resource`, `sample`,
--   `queue`, `batch`, `interval`, `metrics_interval`, and `warnings`, what the environment has that is left out
function settings.read(app, options)
  options = errors.options("app:otlp", options, OPTIONS, 0)
  check_seconds(options)
  check_numbers(options)
  local env = environment.read()
  if env.disabled then
    return { warnings = {} }
  end
  local queue = options.queue or env.queue or QUEUE
  return {
    traces = signal_of(options, env, "traces", options.spans, "/v1/traces"),
    metrics = signal_of(options, env, "metrics", options.metrics, "/v1/metrics"),
    resource = resource_of(app, options, env),
    sample = first(options.sample, env.sample, 1),
    queue = queue,
    batch = math.min(env.batch or BATCH, queue),
    interval = options.interval or env.interval or INTERVAL,
    metrics_interval = options.metrics_interval or env.metrics_interval or METRICS_INTERVAL,
    warnings = env.warnings,
  }
end

return settings
