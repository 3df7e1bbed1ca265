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

-- Parts of lines in a piece: a few milliseconds.
local PARTS = 6000

local unpack = table.unpack or rawget(_G, "unpack")

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

-- Values of labels as they are written; many series have the same. Prometheus refuses all metrics of a program for one
-- byte that is not UTF-8.
local function new_values()
  return setmetatable({}, {
    __index = function(values, value)
      local written = text.valid(value):gsub('[\\\n"]', ESCAPES)
      values[value] = written
      return written
    end,
  })
end

-- What the series of a family have in common: the form of their labels, and the ends of those of buckets, le="1"} and
-- so on.
local function shape_of(family)
  local names, bounds = {}, nil
  for i, name in ipairs(family.labels) do
    names[i] = name .. '="%s"'
  end
  if family.series[1].buckets then
    bounds = {}
    for i, bucket in ipairs(family.series[1].buckets) do
      bounds[i] = 'le="' .. number(bucket.le) .. '"} '
    end
  end
  return { labels = table.concat(names, ","), bounds = bounds }
end

-- name="value",... of a series, in the order of the family.
local function labels_of(family, series, shape, values)
  local written = {}
  for i, name in ipairs(family.labels) do
    written[i] = values[series.labels[name]]
  end
  return shape.labels:format(unpack(written))
end

-- The lines of buckets are most of all: what they have in common is no string of each.
local function add_histogram(parts, name, labels, series, bounds)
  local begin, n = name .. "_bucket{" .. (labels == "" and "" or labels .. ","), #parts
  local count, digits
  for i, bucket in ipairs(series.buckets) do
    if bucket.count ~= count then
      count = bucket.count
      digits = number(count) .. "\n"
    end
    parts[n + 1], parts[n + 2], parts[n + 3] = begin, bounds[i], digits
    n = n + 3
  end
  local braces = labels == "" and " " or "{" .. labels .. "} "
  parts[n + 1] = name .. "_sum" .. braces .. number(series.sum) .. "\n"
  parts[n + 2] = name .. "_count" .. braces .. number(series.count) .. "\n"
end

local function add_head(parts, family)
  local name, help = family.name, text.valid(family.help):gsub("[\\\n]", ESCAPES)
  parts[#parts + 1] = "# HELP " .. name .. " " .. help .. "\n# TYPE " .. name .. " " .. family.type .. "\n"
end

local function add_series(parts, family, series, shape, values)
  local labels = labels_of(family, series, shape, values)
  if shape.bounds then
    add_histogram(parts, family.name, labels, series, shape.bounds)
  else
    local braces = labels == "" and " " or "{" .. labels .. "} "
    parts[#parts + 1] = family.name .. braces .. number(series.value) .. "\n"
  end
end

--- Writes all metrics, in pieces, so that a program with very many can do something else in between. Families without a
-- series are left out. What is written is what was counted at the time of the call.
-- @param registry of `weir.metrics`, or what its `collect` returned
-- @treturn function an iterator of texts: lines, each with its end
function M.pieces(registry)
  local families = registry.collect and registry:collect() or registry
  local at, next_series, values, shape = 1, 1, new_values(), nil
  return function()
    local parts = {}
    while families[at] and #parts < PARTS do
      local family = families[at]
      local series = family.series[next_series]
      if series and next_series == 1 then
        add_head(parts, family)
        shape = shape_of(family)
      end
      if series then
        add_series(parts, family, series, shape, values)
        next_series = next_series + 1
      else
        at, next_series = at + 1, 1
      end
    end
    return #parts > 0 and table.concat(parts) or nil
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
