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

-- Lines of a piece: a few milliseconds.
local LINES = 2000

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
    parts[i] = name .. '="' .. text.valid(series.labels[name]):gsub('[\\\n"]', ESCAPES) .. '"'
  end
  return table.concat(parts, ",")
end

-- The ends of the labels of buckets, which all series of a family have: le="1"} and so on.
local function bounds_of(family)
  local bounds = {}
  for i, bucket in ipairs(family.series[1].buckets) do
    bounds[i] = 'le="' .. number(bucket.le) .. '"} '
  end
  return bounds
end

local function add_histogram(lines, name, labels, series, bounds)
  local begin, n = name .. "_bucket{" .. (labels == "" and "" or labels .. ","), #lines
  for i, bucket in ipairs(series.buckets) do
    lines[n + i] = begin .. bounds[i] .. number(bucket.count)
  end
  local braces = labels == "" and " " or "{" .. labels .. "} "
  lines[#lines + 1] = name .. "_sum" .. braces .. number(series.sum)
  lines[#lines + 1] = name .. "_count" .. braces .. number(series.count)
end

local function add_head(lines, family)
  lines[#lines + 1] = "# HELP " .. family.name .. " " .. text.valid(family.help):gsub("[\\\n]", ESCAPES)
  lines[#lines + 1] = "# TYPE " .. family.name .. " " .. family.type
end

local function add_series(lines, family, series, bounds)
  local labels = labels_of(family, series)
  if bounds then
    add_histogram(lines, family.name, labels, series, bounds)
  else
    lines[#lines + 1] = family.name .. (labels == "" and " " or "{" .. labels .. "} ") .. number(series.value)
  end
end

--- Writes all metrics, in pieces, so that a program with very many can do something else in between. Families without a
-- series are left out. What is written is what was counted at the time of the call.
-- @param registry of `weir.metrics`, or what its `collect` returned
-- @treturn function an iterator of texts: lines, each with its end
function M.pieces(registry)
  local families = registry.collect and registry:collect() or registry
  local at, next_series, bounds = 1, 1, nil
  return function()
    local lines = {}
    while families[at] and #lines < LINES do
      local family = families[at]
      local series = family.series[next_series]
      if series and next_series == 1 then
        add_head(lines, family)
        bounds = series.buckets and bounds_of(family)
      end
      if series then
        add_series(lines, family, series, bounds)
        next_series = next_series + 1
      else
        at, next_series = at + 1, 1
      end
    end
    lines[#lines + 1] = ""
    return #lines > 1 and table.concat(lines, "\n") or nil
  end
end

--- Writes all metrics.
-- @param registry of `weir.metrics`, or what its `collect` returned
-- @treturn string lines, each with its end
function M.text(registry)
  local parts = {}
  for piece in M.pieces(registry) do
    parts[#parts + 1] = piece
  end
  return table.concat(parts)
end

return M
