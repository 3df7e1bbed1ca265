--- Reads requests of OTLP/HTTP in JSON as strictly as opentelemetry-proto describes them: every field must be known and
-- of its type, ids must be hex digits of their length, 64 bit integers must be strings, texts must be UTF-8.
local json = require("cjson").new()

local M = {}

local function fail(path, ...)
  error(path .. ": " .. (...):format(select(2, ...)), 0)
end

local message

local types = {}

function types.text(value, path)
  if type(value) ~= "string" or not utf8.len(value) then
    fail(path, "no UTF-8 text")
  end
end

local function hex(digits)
  return function(value, path)
    if type(value) ~= "string" or #value ~= digits or value:find("[^0-9a-f]") or not value:find("[^0]") then
      fail(path, "no id of %d hex digits: %s", digits, tostring(value))
    end
  end
end

types.trace_id, types.span_id = hex(32), hex(16)

function types.uint64(value, path)
  if type(value) ~= "string" or not value:find("^%d+$") or #value > 20 then
    fail(path, "no integer in a string: %s", tostring(value))
  end
end

function types.int64(value, path)
  if type(value) ~= "string" or not value:find("^-?%d+$") then
    fail(path, "no integer in a string: %s", tostring(value))
  end
end

function types.number(value, path)
  if type(value) ~= "number" or value ~= value or math.abs(value) == math.huge then
    fail(path, "no number")
  end
end

function types.boolean(value, path)
  if type(value) ~= "boolean" then
    fail(path, "no boolean")
  end
end

local function enum(least, most)
  return function(value, path)
    if math.type(value) == nil or value % 1 ~= 0 or value < least or value > most then
      fail(path, "no number of an enum: %s", tostring(value))
    end
  end
end

local function repeated(check)
  return function(value, path)
    if type(value) ~= "table" or #value == 0 then
      fail(path, "no array with elements")
    end
    for key, each in pairs(value) do
      if math.type(key) ~= "integer" then
        fail(path, "an object where an array is expected")
      end
      check(each, ("%s[%d]"):format(path, key))
    end
  end
end

function message(fields, required)
  return function(value, path)
    if type(value) ~= "table" or #value > 0 then
      fail(path, "no object")
    end
    for name, each in pairs(value) do
      local check = fields[name]
      if not check then
        fail(path, "unknown field %s", tostring(name))
      end
      check(each, path .. "." .. name)
    end
    for _, name in ipairs(required or {}) do
      if value[name] == nil then
        fail(path, "the field %s is missing", name)
      end
    end
  end
end

local any = message({
  stringValue = types.text,
  boolValue = types.boolean,
  intValue = types.int64,
  doubleValue = types.number,
})

local pairs_list = repeated(message({ key = types.text, value = function(value, path)
  any(value, path)
  local count = 0
  for _ in pairs(value) do
    count = count + 1
  end
  if count ~= 1 then
    fail(path, "exactly one value is expected")
  end
end }, { "key", "value" }))

local function attributes(value, path)
  pairs_list(value, path)
  local seen = {}
  for _, each in ipairs(value) do
    if seen[each.key] then
      fail(path, "the key %s comes twice", each.key)
    end
    seen[each.key] = true
  end
end

local resource = message({ attributes = attributes })
local scope = message({ name = types.text, version = types.text })

local span = message({
  traceId = types.trace_id,
  spanId = types.span_id,
  parentSpanId = types.span_id,
  traceState = types.text,
  name = types.text,
  kind = enum(1, 5),
  startTimeUnixNano = types.uint64,
  endTimeUnixNano = types.uint64,
  attributes = attributes,
  links = repeated(message({ traceId = types.trace_id, spanId = types.span_id }, { "traceId", "spanId" })),
  droppedLinksCount = types.number,
  status = message({ code = enum(0, 2), message = types.text }, { "code" }),
}, { "traceId", "spanId", "name", "kind", "startTimeUnixNano", "endTimeUnixNano" })

local traces = message({
  resourceSpans = repeated(message({
    resource = resource,
    scopeSpans = repeated(message({ scope = scope, spans = repeated(span) }, { "scope", "spans" })),
  }, { "resource", "scopeSpans" })),
}, { "resourceSpans" })

local number_point = message({
  attributes = attributes,
  startTimeUnixNano = types.uint64,
  timeUnixNano = types.uint64,
  asDouble = types.number,
}, { "timeUnixNano", "asDouble" })

local function histogram_point(value, path)
  message({
    attributes = attributes,
    startTimeUnixNano = types.uint64,
    timeUnixNano = types.uint64,
    count = types.uint64,
    sum = types.number,
    bucketCounts = repeated(types.uint64),
    explicitBounds = repeated(types.number),
  }, { "startTimeUnixNano", "timeUnixNano", "count", "bucketCounts" })(value, path)
  local total = 0
  for _, count in ipairs(value.bucketCounts) do
    total = total + math.tointeger(count)
  end
  if total ~= math.tointeger(value.count) or #value.bucketCounts ~= #(value.explicitBounds or {}) + 1 then
    fail(path, "its buckets do not fit its count or its bounds")
  end
end

local temporality = enum(1, 2)

local metric = message({
  name = types.text,
  description = types.text,
  unit = types.text,
  sum = message({
    dataPoints = repeated(number_point),
    aggregationTemporality = temporality,
    isMonotonic = types.boolean,
  }, { "dataPoints", "aggregationTemporality", "isMonotonic" }),
  gauge = message({ dataPoints = repeated(number_point) }, { "dataPoints" }),
  histogram = message({ dataPoints = repeated(histogram_point), aggregationTemporality = temporality },
    { "dataPoints", "aggregationTemporality" }),
}, { "name" })

local metrics = message({
  resourceMetrics = repeated(message({
    resource = resource,
    scopeMetrics = repeated(message({ scope = scope, metrics = repeated(metric) }, { "scope", "metrics" })),
  }, { "resource", "scopeMetrics" })),
}, { "resourceMetrics" })

-- The values of attributes by their names.
local function plain(list)
  local values = {}
  for _, each in ipairs(list or {}) do
    local value = each.value
    values[each.key] = value.stringValue or value.doubleValue or value.boolValue
    if value.intValue then
      values[each.key] = math.tointeger(value.intValue)
    end
  end
  return values
end

--- The spans of a request to /v1/traces, each with `attributes` by name, and the attributes of the resource.
function M.traces(body)
  local value = json.decode(body)
  traces(value, "traces")
  local first = value.resourceSpans[1]
  local spans = first.scopeSpans[1].spans
  for _, each in ipairs(spans) do
    each.attributes = plain(each.attributes)
  end
  return spans, plain(first.resource.attributes)
end

--- The metrics of a request to /v1/metrics by name: each is a list of points with `labels`.
function M.metrics(body)
  local value = json.decode(body)
  metrics(value, "metrics")
  local result = {}
  for _, each in ipairs(value.resourceMetrics[1].scopeMetrics[1].metrics) do
    local points = (each.sum or each.gauge or each.histogram).dataPoints
    for _, point in ipairs(points) do
      point.labels = plain(point.attributes)
    end
    result[each.name] = { metric = each, points = points }
  end
  return result
end

return M
