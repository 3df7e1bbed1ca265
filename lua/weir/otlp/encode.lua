--- Spans and metrics as the messages of OTLP, in its JSON encoding (https://opentelemetry.io/docs/specs/otlp and
-- opentelemetry-proto): ids are hex digits, 64 bit integers are strings, names are lowerCamelCase, enums are numbers.
-- @module weir.otlp.encode

local version = require("weir.version")

local encode = {}

-- Bytes of a text; longer ones are cut.
local MOST_BYTES = 1024

local KINDS = { internal = 1, server = 2, client = 3, producer = 4, consumer = 5 }
local ERROR, CUMULATIVE = 2, 2
local UNITS = { seconds = "s", bytes = "By" }

local byte, sub, find = string.byte, string.sub, string.find

local function continues(value, low, high)
  return value ~= nil and value >= (low or 0x80) and value <= (high or 0xBF)
end

-- The length of the UTF-8 character at a place; nil where there is none (RFC 3629, section 4).
local function character(text, at)
  local a, b, c, d = byte(text, at, at + 3)
  if a < 0x80 then
    return 1
  elseif a >= 0xC2 and a <= 0xDF then
    return continues(b) and 2 or nil
  elseif a >= 0xE0 and a <= 0xEF then
    return continues(b, a == 0xE0 and 0xA0, a == 0xED and 0x9F) and continues(c) and 3 or nil
  elseif a >= 0xF0 and a <= 0xF4 then
    local good = continues(b, a == 0xF0 and 0x90, a == 0xF4 and 0x8F) and continues(c) and continues(d)
    return good and 4 or nil
  end
end

--- A text as others can read it: UTF-8, of bounded length. A byte that is none becomes U+FFFD.
-- @param value anything
-- @tparam[opt=1024] number most bytes
-- @treturn string
function encode.text(value, most)
  local text = tostring(value)
  most = most or MOST_BYTES
  local long = #text > most
  if not long and not find(text, "[\128-\255]") then
    return text
  end
  local parts, at, bytes = {}, 1, 0
  while at <= #text do
    local length = character(text, at)
    local piece = length and sub(text, at, at + length - 1) or "\239\191\189"
    bytes = bytes + #piece
    if bytes > most then
      break
    end
    parts[#parts + 1] = piece
    at = at + (length or 1)
  end
  return table.concat(parts)
end

local text = encode.text

--- Nanoseconds since 1970, in digits.
-- @tparam number seconds since 1970; precise to a microsecond
function encode.time(seconds)
  return ("%.0f000"):format(seconds * 1e6)
end

local time = encode.time

local function any_value(value)
  local kind = type(value)
  if kind == "boolean" then
    return { boolValue = value }
  elseif kind == "number" then
    if value % 1 == 0 and value >= -2 ^ 53 and value <= 2 ^ 53 then
      return { intValue = ("%.0f"):format(value) }
    elseif value == value and value ~= math.huge and value ~= -math.huge then
      return { doubleValue = value }
    end
  end
  return { stringValue = text(value) }
end

-- An empty table would be an object: what has no elements is left out.
local function list(values)
  return #values > 0 and values or nil
end

--- A table of names and values as a list of attributes, in the order of the names; nil when there are none.
function encode.attributes(values)
  local names, result = {}, {}
  for name in pairs(values) do
    names[#names + 1] = name
  end
  table.sort(names)
  for i, name in ipairs(names) do
    result[i] = { key = text(name), value = any_value(values[name]) }
  end
  return list(result)
end

local attributes = encode.attributes

--- A span.
-- @tparam table span `trace_id`, `id`, `parent` (nil for the first), `state`, `name`, `kind`, `started`, `ended`
--   (seconds since 1970), `attributes`, `links` (each with `trace_id` and `id`), `dropped_links`, `error` (a text, if
--   it failed)
-- @treturn table
function encode.span(span)
  local links = {}
  for i, link in ipairs(span.links or {}) do
    links[i] = { traceId = link.trace_id, spanId = link.id }
  end
  return {
    traceId = span.trace_id,
    spanId = span.id,
    parentSpanId = span.parent,
    traceState = span.state and text(span.state),
    name = text(span.name),
    kind = KINDS[span.kind],
    startTimeUnixNano = time(span.started),
    endTimeUnixNano = time(span.ended),
    attributes = attributes(span.attributes),
    links = list(links),
    droppedLinksCount = span.dropped_links,
    status = span.error and { code = ERROR, message = text(span.error) } or nil,
  }
end

local SCOPE = { name = "weir", version = version }

local function resource_of(values)
  return { attributes = attributes(values) }
end

--- The body of a request to `/v1/traces`.
-- @tparam table resource names and values
-- @tparam {table,...} spans as `encode.span` makes them
function encode.traces(resource, spans)
  return { resourceSpans = { { resource = resource_of(resource), scopeSpans = { { scope = SCOPE, spans = spans } } } } }
end

-- --- metrics --------------------------------------------------------------------------------------

local function number_point(series, started, now)
  return {
    attributes = attributes(series.labels),
    startTimeUnixNano = started,
    timeUnixNano = now,
    asDouble = series.value,
  }
end

local function histogram_point(series, started, now)
  local counts, bounds, before = {}, {}, 0
  for i, bucket in ipairs(series.buckets) do
    counts[i] = ("%.0f"):format(bucket.count - before)
    before = bucket.count
    if bucket.le ~= math.huge then
      bounds[i] = bucket.le
    end
  end
  return {
    attributes = attributes(series.labels),
    startTimeUnixNano = started,
    timeUnixNano = now,
    count = ("%.0f"):format(series.count),
    sum = series.sum,
    bucketCounts = counts,
    explicitBounds = list(bounds),
  }
end

-- What JSON has no number for is left out.
local function is_finite(series)
  local value = series.value or series.sum
  return value == value and value ~= math.huge and value ~= -math.huge
end

local function points_of(family, make, started, now)
  local points = {}
  for _, series in ipairs(family.series) do
    if is_finite(series) then
      points[#points + 1] = make(series, started, now)
    end
  end
  return list(points)
end

local function metric(family, started, now)
  local result = {
    name = family.name,
    description = text(family.help),
    unit = UNITS[family.name:match("_(%a+)$")],
  }
  if family.type == "counter" then
    local points = points_of(family, number_point, started, now)
    result.sum = points and { dataPoints = points, aggregationTemporality = CUMULATIVE, isMonotonic = true }
  elseif family.type == "gauge" then
    local points = points_of(family, number_point, nil, now)
    result.gauge = points and { dataPoints = points }
  else
    local points = points_of(family, histogram_point, started, now)
    result.histogram = points and { dataPoints = points, aggregationTemporality = CUMULATIVE }
  end
  return (result.sum or result.gauge or result.histogram) and result
end

--- The body of a request to `/v1/metrics`, or nil where there is nothing to tell.
-- @tparam table resource names and values
-- @tparam {table,...} families as `registry:collect()` returns them
-- @tparam number started when counting began, seconds since 1970
-- @tparam number now seconds since 1970
-- @treturn ?table
-- @treturn number how many points are in it
function encode.metrics(resource, families, started, now)
  local metrics, count = {}, 0
  for _, family in ipairs(families) do
    local each = metric(family, time(started), time(now))
    if each then
      metrics[#metrics + 1] = each
      count = count + #(each.sum or each.gauge or each.histogram).dataPoints
    end
  end
  if count == 0 then
    return nil, 0
  end
  return {
    resourceMetrics = { { resource = resource_of(resource), scopeMetrics = { { scope = SCOPE, metrics = metrics } } } },
  }, count
end

return encode
