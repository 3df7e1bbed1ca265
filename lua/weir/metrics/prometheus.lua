--- Metrics as text for Prometheus, in its format 0.0.4
-- (https://prometheus.io/docs/instrumenting/exposition_formats).
--
--     local prometheus = require("weir.metrics.prometheus")
--     io.write(prometheus.text(app.metrics))
--
-- @module weir.metrics.prometheus

local text = require("weir.utf8")

local M = {}

--- What the text is called in HTTP.
M.CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

local ESCAPES = { ["\\"] = "\\\\", ["\n"] = "\\n", ['"'] = '\\"' }

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

-- name="value",... of a series, in the order of the family. Prometheus refuses all metrics of a program for one byte
-- that is not UTF-8.
local function labels_of(family, series)
  local parts = {}
  for i, name in ipairs(family.labels) do
    parts[i] = ('%s="%s"'):format(name, (text.valid(series.labels[name]):gsub('[\\\n"]', ESCAPES)))
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
  local help = text.valid(family.help):gsub("[\\\n]", ESCAPES)
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
