--- Reads the text format of Prometheus (https://prometheus.io/docs/instrumenting/exposition_formats), as `/metrics`
-- has it.
-- @module weir.top.prometheus

local M = {}

-- Samples of one text, and lines after which others have a turn.
local MOST, TURN = 200000, 2000

local SPECIAL = { ["+inf"] = math.huge, inf = math.huge, ["-inf"] = -math.huge, nan = 0 / 0 }
-- What is after a backslash in a value of a label; others stay as they are.
local ESCAPES = { ["\\\\"] = "\\", ["\\n"] = "\n", ['\\"'] = '"' }

local function number(text)
  local special = SPECIAL[text:lower()]
  if special then
    return special
  end
  return not text:find("[xX]") and tonumber(text) or nil
end

-- The labels from behind the brace on. The table, and where it goes on; or nil.
local function read_labels(line, at)
  local labels = {}
  at = line:match("^[ \t]*()", at)
  while line:sub(at, at) ~= "}" do
    local name, after = line:match('^([%a_][%w_]*)[ \t]*=[ \t]*"()', at)
    if not name then
      return nil
    end
    local stop = after
    while true do
      stop = line:find('[\\"]', stop)
      if not stop then
        return nil
      elseif line:sub(stop, stop) == '"' then
        break
      end
      stop = stop + 2 -- what is escaped
    end
    labels[name] = line:sub(after, stop - 1):gsub("\\.", ESCAPES)
    at = line:match("^[ \t]*,?[ \t]*()", stop + 1)
    if at > #line then
      return nil
    end
  end
  return labels, at + 1
end

-- The value after the labels, before which there may be spaces, and after which a time.
local function read_value(line, at)
  local value, rest = line:match("^[ \t]*(%S+)[ \t]*(.-)[ \t]*$", at)
  value = value and number(value)
  if value and (rest == "" or rest:find("^-?%d+$")) then
    return value
  end
end

-- A sample of any form; nil for what is none.
local function read_line(line)
  local name, at = line:match("^([%a_:][%w_:]*)[ \t]*()")
  if not name then
    return nil
  end
  local labels = {}
  if line:sub(at, at) == "{" then
    labels, at = read_labels(line, at + 1)
    if not labels then
      return nil
    end
  end
  local value = read_value(line, at)
  if value then
    local le = labels.le
    labels.le = nil
    return { name = name, labels = labels, le = le, value = value }
  end
end

-- The same for the usual form, as `/metrics` of weir has it: name{labels} value, with `le` as the last label. The same
-- labels are in many lines; they are read once, and are one table. `seen` is by their text.
local function read_usual(line, seen)
  local name, text, value = line:match("^([%a_:][%w_:]*){(.*)} (%S+)$")
  value = value and number(value)
  if not value then
    return nil
  end
  local before, le = text:match('^(.*),le="([^"\\]*)"$')
  text = before or text
  local labels = seen[text]
  if not labels then
    local at
    labels, at = read_labels(text .. "}", 1)
    if not labels or at <= #text + 1 or labels.le then
      return nil -- a brace within a value, perhaps
    end
    seen[text] = labels
  end
  return { name = name, labels = labels, le = le, value = value }
end

--- Reads a text.
-- @tparam string text
-- @tparam[opt] function pause is called now and then, so that others have a turn
-- @treturn ?{table,...} samples, each with `name`, `labels` (not to be changed: samples share them), `le` (the bound of
--   a bucket) and `value`
-- @treturn ?string what is wrong with it
function M.parse(text, pause)
  local samples, seen, count = {}, {}, 0
  for line in text:gmatch("[^\n]+") do
    count = count + 1
    local sample = read_usual(line, seen)
    if not sample and not line:find("^[ \t]*#") and line:find("%S") then
      sample = read_line((line:gsub("\r$", "")))
      if not sample then
        local shown = line:sub(1, 60):gsub("[%c\128-\255]", "?")
        return nil, ("line %d is no metric: %s"):format(count, shown)
      end
    end
    if #samples == MOST then
      return nil, ("there are more than %d metrics"):format(MOST)
    end
    samples[#samples + 1] = sample
    if pause and count % TURN == 0 then
      pause()
    end
  end
  return samples
end

--- The samples of what `registry:collect()` returns.
-- @tparam {table,...} families
-- @treturn {table,...}
function M.samples(families)
  local samples = {}
  local function add(name, labels, value, le)
    samples[#samples + 1] = { name = name, labels = labels, le = le, value = value }
  end
  for _, family in ipairs(families) do
    for _, series in ipairs(family.series) do
      if series.buckets then
        for _, bucket in ipairs(series.buckets) do
          add(family.name .. "_bucket", series.labels, bucket.count, bucket.le)
        end
        add(family.name .. "_sum", series.labels, series.sum)
        add(family.name .. "_count", series.labels, series.count)
      else
        add(family.name, series.labels, series.value)
      end
    end
  end
  return samples
end

return M
