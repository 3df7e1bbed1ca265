--- Trace context in headers, as the W3C recommends (https://www.w3.org/TR/trace-context, `traceparent` and
-- `tracestate`). weir records no spans: it carries the context on, so that those who record see one trace.
-- @module weir.trace

local id = require("weir.id")

local trace = {}

-- Version, trace, parent and flags; what later versions add comes after a hyphen.
local PATTERN = "^[0-9a-f]+%-[0-9a-f]+%-[0-9a-f]+%-[0-9a-f]+"
local LENGTH, HYPHEN = 55, ("-"):byte()
local NO_TRACE, NO_SPAN = ("0"):rep(32), ("0"):rep(16)

-- Longest `traceparent` that is read, and longest `tracestate` that is carried on.
local LONGEST, LONGEST_STATE = 512, 2048

local byte, find, sub = string.byte, string.find, string.sub

-- The flags that there are, "sampled" and "random"; what a later version adds is not carried on by one that does not
-- know it.
local FLAGS = {}
for digit = 0, 15 do
  FLAGS[("%x"):format(digit)] = ("0%d"):format(digit % 4)
end

--- The parts of a `traceparent` header.
-- @param value of the header; anything
-- @treturn ?string the trace's id, 32 hex digits; nil where the value is no valid traceparent
-- @treturn ?string the id of the parent span, 16 hex digits
-- @treturn ?string flags, 2 hex digits
function trace.parse(value)
  if type(value) ~= "string" or #value < LENGTH or #value > LONGEST then
    return nil
  end
  local _, last = find(value, PATTERN)
  local a, b, c, after = byte(value, 3), byte(value, 36), byte(value, 53), byte(value, LENGTH + 1)
  if last ~= LENGTH or a ~= HYPHEN or b ~= HYPHEN or c ~= HYPHEN or after and after ~= HYPHEN then
    return nil
  end
  local version, trace_id, span_id = sub(value, 1, 2), sub(value, 4, 35), sub(value, 37, 52)
  if version == "ff" or trace_id == NO_TRACE or span_id == NO_SPAN or version == "00" and #value > LENGTH then
    return nil
  end
  return trace_id, span_id, sub(value, 54, LENGTH)
end

--- A `traceparent` that begins a trace, flagged as sampled: who comes after decides by that.
function trace.fresh()
  return "00-" .. id.hex(32) .. "-" .. id.hex(16) .. "-01"
end

--- A `traceparent` for what is sent because of what came with this one: the same trace, a span of its own.
-- @param value of the header that came; a new trace begins where it is none
-- @treturn string
-- @treturn boolean whether it is of a trace that came
function trace.child(value)
  local trace_id, _, flags = trace.parse(value)
  if not trace_id then
    return trace.fresh(), false
  end
  return "00-" .. trace_id .. "-" .. id.hex(16) .. "-" .. FLAGS[sub(flags, 2)], true
end

--- A `tracestate` header, if it is one to carry on: visible text of bounded length.
-- @param value of the header; anything
-- @treturn ?string
function trace.state(value)
  local is_text = type(value) == "string" and #value <= LONGEST_STATE and not find(value, "[^\t\32-\126]")
  return is_text and find(value, "[^\t ]") and value or nil
end

--- Sets the trace context of outgoing headers by those of the message that led to them; what is set already stays.
-- @tparam table out headers to be changed
-- @tparam[opt] table headers of that message
-- @treturn boolean whether the `traceparent` is made here
function trace.propagate(out, headers)
  if out.traceparent then
    return false
  end
  local continued
  out.traceparent, continued = trace.child(headers and headers.traceparent)
  if continued and headers.tracestate and not out.tracestate then
    out.tracestate = trace.state(headers.tracestate)
  end
  return true
end

return trace
