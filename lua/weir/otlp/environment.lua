--- The variables of the environment that programs with OpenTelemetry share
-- (https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables and .../protocol/exporter), as
-- options of `app:otlp`.
--
-- An empty variable counts as none. What a variable says that cannot be read, or that weir cannot do, is a warning, and
-- left out, as the specification has it: an address is the exception, since it would be sent elsewhere in silence.
-- @module weir.otlp.environment

local unescape = require("weir.http.parser").unescape

local environment = {}

-- Milliseconds: a day.
local MOST_TIME = 86400000

local function variable(name)
  local value = os.getenv(name)
  value = value and value:match("^%s*(.-)%s*$")
  return value ~= "" and value or nil
end

local function warn(self, name, wanted)
  self.warnings[#self.warnings + 1] = ("the variable %s is left out: %s"):format(name, wanted)
end

-- A variable for one signal, or that for all; and its name.
local function either(signal, rest)
  local name = ("OTEL_EXPORTER_OTLP_%s_%s"):format(signal, rest)
  local value = variable(name)
  if value then
    return value, name
  end
  name = "OTEL_EXPORTER_OTLP_" .. rest
  return variable(name), name
end

-- Milliseconds as seconds.
local function seconds(self, value, name)
  local number = tonumber(value)
  if number and number > 0 and number <= MOST_TIME then
    return number / 1000
  elseif value then
    warn(self, name, "it must be a number of milliseconds above 0")
  end
end

local function whole(self, name)
  local value = variable(name)
  local number = tonumber(value)
  if number and number >= 1 and number <= 1e6 and number % 1 == 0 then
    return number
  elseif value then
    warn(self, name, "it must be a whole number from 1 to 1000000")
  end
end

-- "name=value,name=value", with percent signs in the values. What is wrong is not shown: it may be a credential.
local function pairs_of(self, value, name)
  local list = {}
  for part in (value or ""):gmatch("[^,]+") do
    local key, text = part:match("^%s*([^=%s]+)%s*=%s*(.-)%s*$")
    text = text and unescape(text)
    if text then
      list[#list + 1] = { key, text }
    elseif part:find("%S") then
      warn(self, name, "it must be such as name=value,name=value")
      return {}
    end
  end
  return list
end

local function headers_of(self, signal)
  local value, name = either(signal, "HEADERS")
  local headers = {}
  for _, pair in ipairs(pairs_of(self, value, name)) do
    if not pair[1]:find("^[%w!#$%%&'*+%-.^_`|~]+$") or pair[2]:find("%c") then
      warn(self, name, "there is a header in it that cannot be sent")
      return {}
    end
    headers[pair[1]] = pair[2]
  end
  return headers
end

local SAMPLERS = {
  always_on = 1,
  always_off = 0,
  parentbased_always_on = 1,
  parentbased_always_off = 0,
  traceidratio = "share",
  parentbased_traceidratio = "share",
}

local function sample_of(self)
  local name, share = variable("OTEL_TRACES_SAMPLER"), variable("OTEL_TRACES_SAMPLER_ARG")
  local sample = SAMPLERS[(name or ""):lower()]
  if name and not sample then
    warn(self, "OTEL_TRACES_SAMPLER", "known are always_on, always_off, traceidratio, and these with parentbased_")
  elseif sample ~= "share" then
    return sample
  else
    local number = share and tonumber(share) or not share and 1
    if number and number >= 0 and number <= 1 then
      return number
    end
    warn(self, "OTEL_TRACES_SAMPLER_ARG", "it must be a number from 0 to 1")
    return 1
  end
end

-- Whether a signal is exported.
local function is_on(self, name)
  local value = (variable(name) or "otlp"):lower()
  if value ~= "otlp" and value ~= "none" then
    warn(self, name, "weir has only otlp, and none")
  end
  return value ~= "none"
end

local function check_protocol(self, signal)
  local value, name = either(signal, "PROTOCOL")
  if value and value:lower() ~= "http/json" then
    warn(self, name, "weir sends http/json, which collectors take on their port for HTTP, 4318")
  end
end

-- What is for one signal.
local function signal_of(self, signal)
  check_protocol(self, signal)
  local timeout, name = either(signal, "TIMEOUT")
  local variables = "OTEL_EXPORTER_OTLP_" .. signal
  return {
    url = variable(variables .. "_ENDPOINT"),
    url_name = variables .. "_ENDPOINT",
    headers = headers_of(self, signal),
    timeout = seconds(self, timeout, name),
    ca = either(signal, "CERTIFICATE"),
    cert = either(signal, "CLIENT_CERTIFICATE"),
    key = either(signal, "CLIENT_KEY"),
  }
end

local function resource_of(self)
  local name = "OTEL_RESOURCE_ATTRIBUTES"
  local resource = {}
  for _, pair in ipairs(pairs_of(self, variable(name), name)) do
    resource[pair[1]] = pair[2]
  end
  resource["service.name"] = variable("OTEL_SERVICE_NAME") or resource["service.name"]
  return resource
end

--- Reads them.
-- @treturn table `disabled`, `endpoint`, `resource`, `sample`, `queue`, `batch`, `interval` and `metrics_interval`
--   (seconds), `traces` and `metrics` (each with `on`, `url` and `url_name`, `headers`, `timeout`, `ca`, `cert` and
--   `key`), and `warnings`, a list of sentences
function environment.read()
  local self = { warnings = {} }
  if (variable("OTEL_SDK_DISABLED") or ""):lower() == "true" then
    self.disabled = true
    return self
  end
  self.endpoint = variable("OTEL_EXPORTER_OTLP_ENDPOINT")
  self.resource = resource_of(self)
  self.sample = sample_of(self)
  self.queue = whole(self, "OTEL_BSP_MAX_QUEUE_SIZE")
  self.batch = whole(self, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE")
  self.interval = seconds(self, variable("OTEL_BSP_SCHEDULE_DELAY"), "OTEL_BSP_SCHEDULE_DELAY")
  self.metrics_interval = seconds(self, variable("OTEL_METRIC_EXPORT_INTERVAL"), "OTEL_METRIC_EXPORT_INTERVAL")
  self.traces, self.metrics = signal_of(self, "TRACES"), signal_of(self, "METRICS")
  self.traces.on, self.metrics.on = is_on(self, "OTEL_TRACES_EXPORTER"), is_on(self, "OTEL_METRICS_EXPORTER")
  return self
end

return environment
