--- Metrics as text for Prometheus, in its format 0.0.4
-- (https://prometheus.io/docs/instrumenting/exposition_formats).
--
--     local prometheus = require("weir.metrics.prometheus")
--     io.write(prometheus.text(app.metrics))
--
-- @module weir.metrics.prometheus

local M = {}

--- What the text is called in HTTP.
M.CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

local ESCAPES = { ["\\"] = "\\\\", ["\n"] = "\\n", ['"'] = '\\"' }

-- The length of the UTF-8 character at a place; nil where there is none.
local function character(text, at)
  local first = text:byte(at)
  if first < 0x80 then
    return 1
  end
  local size, low, high = nil, 0x80, 0xBF
  if first >= 0xC2 and first <= 0xDF then
    size = 2
  elseif first >= 0xE0 and first <= 0xEF then
    size = 3
    low, high = first == 0xE0 and 0xA0 or low, first == 0xED and 0x9F or high
  elseif first >= 0xF0 and first <= 0xF4 then
    size = 4
    low, high = first == 0xF0 and 0x90 or low, first == 0xF4 and 0x8F or high
  end
  for i = 1, (size or 0) - 1 do
    local byte = text:byte(at + i)
    if not byte or byte < low or byte > high then
      return nil
    end
    low, high = 0x80, 0xBF
  end
  return size
end

-- Prometheus refuses all metrics of a program for one byte that is not UTF-8.
local function as_utf8(text)
  if not text:find("[\128-\255]") then
    return text
  end
  local parts, at = {}, 1
  while at <= #text do
    local size = character(text, at)
    parts[#parts + 1] = size and text:sub(at, at + size - 1) or "\239\191\189"
    at = at + (size or 1)
  end
  return table.concat(parts)
end

local function number(value)
  if value ~= value then
    return "NaN"
  elseif value == math.huge then
    return "+Inf"
  elseif value == -math.huge then
    return "-Inf"
  elseif value % 1 == 0 and value > -2 ^ 53 and value < 2 ^ 53 then
    return ("%.0f"):format(value)
  end
  local short = ("%.15g"):format(value)
  return tonumber(short) == value and short or ("%.17g"):format(value)
end

-- name="value",... of a series, in the order of the family.
local function labels_of(family, series)
  local parts = {}
  for i, name in ipairs(family.labels) do
    parts[i] = ('%s="%s"'):format(name, (as_utf8(series.labels[name]):gsub('[\\\n"]', ESCAPES)))
  end
  return table.concat(parts, ",")
end

local function add_histogram(lines, name, labels, series)
  local before = labels == "" and "" or labels .. ","
  for _, bucket in ipairs(series.buckets) do
    lines[#lines + 1] = ('%s_bucket{%sle="%s"} %s'):format(name, before, number(bucket.le), number(bucket.count))
  end
  local braces = labels == "" and "" or "{" .. labels .. "}"
  lines[#lines + 1] = ("%s_sum%s %s"):format(name, braces, number(series.sum))
  lines[#lines + 1] = ("%s_count%s %s"):format(name, braces, number(series.count))
end

local function add_family(lines, family)
  local help = as_utf8(family.help):gsub("[\\\n]", ESCAPES)
  lines[#lines + 1] = ("# HELP %s %s"):format(family.name, help)
  lines[#lines + 1] = ("# TYPE %s %s"):format(family.name, family.type)
  for _, series in ipairs(family.series) do
    local labels = labels_of(family, series)
    if family.type == "histogram" then
      add_histogram(lines, family.name, labels, series)
    else
      local braces = labels == "" and "" or "{" .. labels .. "}"
      lines[#lines + 1] = ("%s%s %s"):format(family.name, braces, number(series.value))
    end
  end
end

--- Writes all metrics. Families without a series are left out.
-- @param registry of `weir.metrics`, or what its `collect` returned
-- @treturn string lines, each with its end
function M.text(registry)
  local families = registry.collect and registry:collect() or registry
  local lines = {}
  for _, family in ipairs(families) do
    if #family.series > 0 then
      add_family(lines, family)
    end
  end
  lines[#lines + 1] = ""
  return table.concat(lines, "\n")
end

return M
