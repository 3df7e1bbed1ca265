--- Reads the text format of Prometheus (https://prometheus.io/docs/instrumenting/exposition_formats), as `/metrics`
-- has it.
-- @module weir.top.prometheus

local M = {}

-- Samples of one text.
local MOST = 200000

local SPECIAL = { ["+inf"] = math.huge, inf = math.huge, ["-inf"] = -math.huge, nan = 0 / 0 }
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

-- One sample; nil for what is none.
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
  local value, rest = line:match("^[ \t]*(%S+)[ \t]*(.-)[ \t]*$", at)
  value = value and number(value)
  if not value or rest ~= "" and not rest:find("^-?%d+$") then
    return nil
  end
  return { name = name, labels = labels, value = value }
end

--- Reads a text.
-- @tparam string text
-- @treturn ?{table,...} samples, each with `name`, `labels` and `value`
-- @treturn ?string what is wrong with it
function M.parse(text)
  local samples, count = {}, 0
  for line in text:gmatch("[^\n]+") do
    count = count + 1
    line = line:gsub("\r$", "")
    if not line:find("^[ \t]*#") and line:find("%S") then
      local sample = read_line(line)
      if not sample then
        local shown = line:sub(1, 60):gsub("[%c\128-\255]", "?")
        return nil, ("line %d is no metric: %s"):format(count, shown)
      elseif #samples == MOST then
        return nil, ("there are more than %d metrics"):format(MOST)
      end
      samples[#samples + 1] = sample
    end
  end
  return samples
end

--- The samples of what `registry:collect()` returns.
-- @tparam {table,...} families
-- @treturn {table,...}
function M.samples(families)
  local samples = {}
  local function add(name, labels, value)
    samples[#samples + 1] = { name = name, labels = labels, value = value }
  end
  for _, family in ipairs(families) do
    for _, series in ipairs(family.series) do
      if series.buckets then
        for _, bucket in ipairs(series.buckets) do
          local labels = { le = bucket.le }
          for name, value in pairs(series.labels) do
            labels[name] = value
          end
          add(family.name .. "_bucket", labels, bucket.count)
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
