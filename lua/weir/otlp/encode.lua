--- Spans and metrics as the messages of OTLP, in its JSON encoding (https://opentelemetry.io/docs/specs/otlp and
-- opentelemetry-proto): ids are hex digits, 64 bit integers are strings, names are lowerCamelCase, enums are numbers.
--
-- Everything is written as text at once: a span, or a point, is one string, and a request joins them. Tables that a
-- codec walks afterwards cost several times as much.
-- @module weir.otlp.encode

local utf8 = require("weir.utf8")
local version = require("weir.version")

local encode = {}

-- Bytes of a text; longer ones are cut.
local MOST_BYTES = 1024

local KINDS = { internal = 1, server = 2, client = 3, producer = 4, consumer = 5 }
local UNITS = { seconds = "s", bytes = "By" }

-- Series after which others have a turn.
local TURN = 100

local unpack = table.unpack or rawget(_G, "unpack")
local byte, sub, find, gsub, format, concat =
  string.byte, string.sub, string.find, string.gsub, string.format, table.concat

-- --- values ---------------------------------------------------------------------------------------

-- The first `most` bytes of a text that is UTF-8, and no half characters.
local function cut(text, most)
  while most > 0 and find(sub(text, most + 1, most + 1), "[\128-\191]") do
    most = most - 1
  end
  return sub(text, 1, most)
end

--- A text as others can read it: UTF-8, of bounded length. A byte that is none becomes U+FFFD.
-- @param value anything
-- @tparam[opt=1024] number most bytes
-- @treturn string
function encode.text(value, most)
  local text = tostring(value)
  most = most or MOST_BYTES
  text = utf8.valid(#text > most + 3 and sub(text, 1, most + 3) or text) -- 3: so that a last character is whole
  return #text > most and cut(text, most) or text
end

local ESCAPES = setmetatable({ ['"'] = '\\"', ["\\"] = "\\\\" }, {
  __index = function(escapes, char)
    local text = format("\\u%04x", byte(char))
    escapes[char] = text
    return text
  end,
})

-- A value as what stands between the quotes of a string of JSON.
local function inner(value, most)
  if type(value) == "string" and #value <= (most or MOST_BYTES) and not find(value, "[^ !#-%[%]-~]") then
    return value
  end
  return (gsub(encode.text(value, most), '[%z\1-\31\127"\\]', ESCAPES))
end

local function quoted(value)
  return '"' .. inner(value) .. '"'
end

--- Nanoseconds since 1970, in digits.
-- @tparam number seconds since 1970; precise to a microsecond
function encode.time(seconds)
  return format("%.0f000", seconds * 1e6)
end

local time = encode.time

-- A finite number as JSON.
local function number(value)
  if value % 1 == 0 and value > -2 ^ 53 and value < 2 ^ 53 then
    return format("%.0f", value)
  end
  local short = format("%.15g", value)
  return tonumber(short) == value and short or format("%.17g", value)
end

local function is_finite(value)
  return value == value and value ~= math.huge and value ~= -math.huge
end

local function any_value(value)
  local kind = type(value)
  if kind == "boolean" then
    return '{"boolValue":' .. tostring(value) .. "}"
  elseif kind == "number" and is_finite(value) then
    if value % 1 == 0 and value >= -2 ^ 53 and value <= 2 ^ 53 then
      return format('{"intValue":"%.0f"}', value)
    end
    return '{"doubleValue":' .. number(value) .. "}"
  end
  return '{"stringValue":' .. quoted(value) .. "}"
end

-- What comes before the value of an attribute; names are those of code and of settings, so they are few.
local BEFORE = setmetatable({}, {
  __index = function(before, name)
    local text = '{"key":' .. quoted(name) .. ',"value":'
    before[name] = text
    return text
  end,
})

--- An attribute.
-- @tparam string name one of few
-- @param value a boolean, a number, or anything that has a text
-- @treturn string
function encode.attribute(name, value)
  return BEFORE[name] .. any_value(value) .. "}"
end

--- A table of names and values as attributes with commas between them, in the order of the names.
-- @tparam table values
-- @treturn string empty when there are none
function encode.attributes(values)
  local names, parts = {}, {}
  for name in pairs(values) do
    names[#names + 1] = name
  end
  table.sort(names)
  for i, name in ipairs(names) do
    parts[i] = encode.attribute(name, values[name])
  end
  return concat(parts, ",")
end

local SCOPE = format('{"name":"weir","version":%s}', quoted(version))

-- --- spans ----------------------------------------------------------------------------------------

local function state_of(span)
  return span.state and ',"traceState":"' .. inner(span.state, #span.state) .. '"' or ""
end

local function links_of(span)
  local parts = {}
  for i, link in ipairs(span.links) do
    parts[i] = format('{"traceId":"%s","spanId":"%s"%s}', link.trace_id, link.id, state_of(link))
  end
  local text = #parts > 0 and ',"links":[' .. concat(parts, ",") .. "]" or ""
  return span.dropped_links and format('%s,"droppedLinksCount":%d', text, span.dropped_links) or text
end

--- What spans have in common: the name, the kind, and attributes.
-- @tparam string name
-- @tparam string kind "producer", "consumer", ...
-- @tparam table values attributes; at least one
-- @treturn table the `about` of spans
function encode.about(name, kind, values)
  return {
    head = format(',"name":%s,"kind":%d,"startTimeUnixNano":"', quoted(name), KINDS[kind]),
    attributes = '","attributes":[' .. encode.attributes(values),
  }
end

-- Attributes of spans of messages; "" where there is no value.
local function text_attribute(before, value)
  return value and before .. inner(value) .. '"}}' or ""
end

local function number_attribute(before, value)
  return value and before .. format("%.0f", value) .. '"}}' or ""
end

--- A span.
-- @tparam table span `about` (of `encode.about`), `trace_id`, `id`, `parent` (nil for the first), `state` (a
--   tracestate), `started`, `ended` (seconds since 1970), `message_id`, `conversation_id`, `size`, `attempt`,
--   `outcome`, `more` (a list of other attributes, as `encode.attribute` makes them), `links` (each with `trace_id`,
--   `id`, `state`), `dropped_links`, `error` (a text, if it failed)
-- @treturn string
function encode.span(span)
  local about = span.about
  return '{"traceId":"' .. span.trace_id .. '","spanId":"' .. span.id .. '"'
    .. (span.parent and ',"parentSpanId":"' .. span.parent .. '"' or "") .. state_of(span)
    .. about.head .. time(span.started) .. '","endTimeUnixNano":"' .. time(span.ended) .. about.attributes
    .. text_attribute(',{"key":"messaging.message.id","value":{"stringValue":"', span.message_id)
    .. text_attribute(',{"key":"messaging.message.conversation_id","value":{"stringValue":"', span.conversation_id)
    .. number_attribute(',{"key":"messaging.message.body.size","value":{"intValue":"', span.size)
    .. number_attribute(',{"key":"weir.attempt","value":{"intValue":"', span.attempt)
    .. text_attribute(',{"key":"weir.outcome","value":{"stringValue":"', span.outcome)
    .. (span.more and "," .. concat(span.more, ",") or "") .. "]"
    .. (span.links and links_of(span) or "")
    .. (span.error and ',"status":{"code":2,"message":' .. quoted(span.error) .. "}}" or "}")
end

-- What one application sends: "Spans" that are listed as "spans", or "Metrics" as "metrics".
local function request(name, list, resource, items)
  return format('{"resource%s":[{"resource":{"attributes":[%s]},"scope%s":[{"scope":%s,"%s":[%s]}]}]}', name,
    resource, name, SCOPE, list, concat(items, ","))
end

--- The body of a request to `/v1/traces`.
-- @tparam string resource attributes, as `encode.attributes` makes them
-- @tparam {string,...} spans as `encode.span` makes them
-- @treturn string
function encode.traces(resource, spans)
  return request("Spans", "spans", resource, spans)
end

-- --- metrics --------------------------------------------------------------------------------------

-- How a point of a family begins, with a place for each label.
local function form_of_head(family, times)
  local labels = {}
  for i, name in ipairs(family.labels) do
    labels[i] = '{"key":"' .. name .. '","value":{"stringValue":"%s"}}'
  end
  return #labels > 0 and '{"attributes":[' .. concat(labels, ",") .. "]," .. times or "{" .. times
end

local function head_of(family, series, head)
  local values = {}
  for i, name in ipairs(family.labels) do
    values[i] = inner(series.labels[name])
  end
  return format(head, unpack(values))
end

local NONE = '"0"'

-- The bounds of the buckets of a family, but for the last, which has none.
local function bounds_of(family)
  local bounds = {}
  for i, bucket in ipairs(family.type == "histogram" and family.series[1] and family.series[1].buckets or {}) do
    bounds[i] = bucket.le ~= math.huge and number(bucket.le) or nil
  end
  return concat(bounds, ",")
end

local function number_point(head, series)
  return format('%s,"asDouble":%s}', head, number(series.value))
end

local function histogram_point(head, series, bounds)
  local counts, before = {}, 0
  for i, bucket in ipairs(series.buckets) do
    counts[i] = bucket.count == before and NONE or format('"%.0f"', bucket.count - before)
    before = bucket.count
  end
  return format('%s,"count":"%.0f","sum":%s,"bucketCounts":[%s],"explicitBounds":[%s]}', head, series.count,
    number(series.sum), concat(counts, ","), bounds)
end

-- By type of a family: the field of a metric, what else that has, the point, and whether counting has a beginning.
local FORMS = {
  counter = { "sum", ',"aggregationTemporality":2,"isMonotonic":true', number_point, true },
  gauge = { "gauge", "", number_point, false },
  histogram = { "histogram", ',"aggregationTemporality":2', histogram_point, true },
}

-- A family, or nil where it has nothing to tell; and how many points it has. What JSON has no number for is left out.
local function metric(family, started, now, pause)
  local form = FORMS[family.type]
  local times = (form[4] and '"startTimeUnixNano":"' .. started .. '",' or "") .. '"timeUnixNano":"' .. now .. '"'
  local points, bounds, head = {}, bounds_of(family), form_of_head(family, times)
  for i, series in ipairs(family.series) do
    if is_finite(series.value or series.sum) then
      points[#points + 1] = form[3](head_of(family, series, head), series, bounds)
    end
    if pause and i % TURN == 0 then
      pause()
    end
  end
  if #points == 0 then
    return nil, 0
  end
  local unit = UNITS[family.name:gsub("_total$", ""):match("_(%a+)$")]
  return format('{"name":"%s","description":%s%s,"%s":{"dataPoints":[%s]%s}}', family.name, quoted(family.help),
    unit and ',"unit":"' .. unit .. '"' or "", form[1], concat(points, ","), form[2]), #points
end

--- The body of a request to `/v1/metrics`, or nil where there is nothing to tell.
-- @tparam string resource attributes, as `encode.attributes` makes them
-- @tparam {table,...} families as `registry:collect()` returns them
-- @tparam number started when counting began, seconds since 1970
-- @tparam number now seconds since 1970
-- @tparam[opt] function pause lets others have a turn; called now and then
-- @treturn ?string
-- @treturn number how many points are in it
function encode.metrics(resource, families, started, now, pause)
  local metrics, count = {}, 0
  for _, family in ipairs(families) do
    local text, points = metric(family, time(started), time(now), pause)
    metrics[#metrics + 1] = text
    count = count + points
  end
  if count == 0 then
    return nil, 0
  end
  return request("Metrics", "metrics", resource, metrics), count
end

local function part(list, first, last)
  local items = {}
  for i = first, last do
    items[#items + 1] = list[i]
  end
  return items
end

--- The halves of a list; nil where it has no more than one item.
-- @tparam table list
-- @treturn ?table
-- @treturn ?table
function encode.halves(list)
  if #list > 1 then
    local middle = math.floor(#list / 2)
    return part(list, 1, middle), part(list, middle + 1, #list)
  end
end

-- A family with other series.
local function with_series(family, series)
  local copy = {}
  for key, value in pairs(family) do
    copy[key] = value
  end
  copy.series = series
  return copy
end

--- The halves of a list of families: of the series, where there is only one.
-- @tparam {table,...} families
-- @treturn ?{table,...} nil where there is no more than one series
-- @treturn ?{table,...}
function encode.metric_halves(families)
  local only = #families == 1 and families[1]
  if not only then
    return encode.halves(families)
  end
  local first, second = encode.halves(only.series)
  if first then
    return { with_series(only, first) }, { with_series(only, second) }
  end
end

return encode
