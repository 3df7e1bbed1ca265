--- Counters, gauges and histograms, by name and labels.
--
-- A *registry* has *families* (`registry:counter("weir_x_total", "What it counts", { "broker" })`), a family has one
-- *series* for each combination of label values (`family:with("nats")`), and a series is what is counted with. Code on
-- a hot path takes its series once. Names, labels and what `registry:collect()` returns follow the Prometheus data
-- model (https://prometheus.io/docs/concepts/data_model).
--
-- The number of series of a family is bounded: when all are used, further label values share the series whose labels
-- are all "other", so that what a peer can choose cannot grow without end.
-- @module weir.metrics

local errors = require("weir.errors")

local metrics = {}

-- Series of one family, when its options do not say.
local MOST_SERIES = 1000

--- Bounds of the buckets of a histogram of seconds: 0.5 ms to 10 s.
metrics.SECONDS = { 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10 }

--- Bounds of the buckets of a histogram of bytes: 64 B to 16 MiB.
metrics.BYTES = { 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216 }

local OTHER = "other"

-- --- series -------------------------------------------------------------------------------------

local Counter = { __name = "weir.metrics.counter" }
Counter.__index = Counter

--- Adds to a counter.
-- @tparam[opt=1] number n at least 0
function Counter:inc(n)
  n = n or 1
  if n < 0 or n ~= n then
    error("metrics: a counter only rises, not by " .. tostring(n), 2)
  end
  self.value = self.value + n
end

local Gauge = { __name = "weir.metrics.gauge" }
Gauge.__index = Gauge

--- Sets a gauge.
function Gauge:set(value)
  self.value = value
end

--- Adds to a gauge.
-- @tparam[opt=1] number n may be negative
function Gauge:inc(n)
  self.value = self.value + (n or 1)
end

--- Takes from a gauge.
-- @tparam[opt=1] number n
function Gauge:dec(n)
  self.value = self.value - (n or 1)
end

local Histogram = { __name = "weir.metrics.histogram" }
Histogram.__index = Histogram

--- Notes a value.
-- @tparam number value
-- @tparam[opt=1] number n how often it was there
function Histogram:observe(value, n)
  n = n or 1
  local bounds = self.bounds
  local low, high = 1, self.size -- the first bucket that is not below the value; size is the one without a bound
  while low < high do
    local middle = (low + high - (low + high) % 2) / 2
    if value <= bounds[middle] then
      high = middle
    else
      low = middle + 1
    end
  end
  self[low] = self[low] + n
  self.sum = self.sum + value * n
end

local function new_counter()
  return setmetatable({ value = 0 }, Counter)
end

local function new_gauge()
  return setmetatable({ value = 0 }, Gauge)
end

local function new_histogram(family)
  local bounds = family.bounds
  local series = { bounds = bounds, size = #bounds + 1, sum = 0 }
  for i = 1, #bounds + 1 do
    series[i] = 0
  end
  return setmetatable(series, Histogram)
end

local makers = { counter = new_counter, gauge = new_gauge, histogram = new_histogram }

-- --- families -----------------------------------------------------------------------------------

local Family = { __name = "weir.metrics.family" }
Family.__index = Family

local function make(family, values)
  local series = makers[family.type](family)
  series.labels = values
  family.list[#family.list + 1] = series
  return series
end

-- Label values as one string. A value may hold any byte: lengths keep "a","bc" and "ab","c" apart.
local function key_of(values)
  local parts = {}
  for i, value in ipairs(values) do
    parts[i] = #value .. ":" .. value
  end
  return table.concat(parts)
end

--- The series with these label values, in the order of the label names.
-- @tparam string ... one for each label
-- @return the series; the one for all "other" values when the family is full
function Family:with(...)
  local n = select("#", ...)
  if n ~= #self.labels then
    error(("%s: %d label values are expected (%s), not %d"):format(self.name, #self.labels, self.wanted, n), 2)
  end
  local values = { ... }
  for i = 1, n do
    values[i] = tostring(values[i])
  end
  local key = key_of(values)
  local series = self.series[key]
  if series then
    return series
  elseif self.count < self.max_series then
    series = make(self, values)
    self.series[key], self.count = series, self.count + 1
    return series
  end
  if not self.overflow then
    for i = 1, n do
      values[i] = OTHER
    end
    self.overflow = make(self, values)
  end
  return self.overflow
end

--- Forgets the series with these label values, so that it is not collected any more.
function Family:remove(...)
  local values = { ... }
  for i = 1, #values do
    values[i] = tostring(values[i])
  end
  local key = key_of(values)
  local gone = self.series[key]
  for i, series in ipairs(gone and self.list or {}) do
    if series == gone then
      table.remove(self.list, i)
      self.series[key], self.count = nil, self.count - 1
      return
    end
  end
end

-- --- registry -----------------------------------------------------------------------------------

local Registry = { __name = "weir.metrics.registry" }
Registry.__index = Registry

local function same_list(a, b)
  if #a ~= #b then
    return false
  end
  for i = 1, #a do
    if a[i] ~= b[i] then
      return false
    end
  end
  return true
end

local OPTIONS = { max_series = "number", buckets = "table" }

-- Raises for what no exporter could print.
local function check(name, help, labels)
  if type(name) ~= "string" or not name:find("^[%a_:][%w_:]*$") then
    error(("metrics: a name consists of letters, digits and underscores, unlike %q"):format(tostring(name)), 4)
  elseif type(help) ~= "string" then
    error(("metrics: '%s' needs a help text"):format(name), 4)
  end
  local seen = {}
  for _, label in ipairs(labels) do
    if type(label) ~= "string" or not label:find("^[%a_][%w_]*$") or label:sub(1, 2) == "__" or label == "le" then
      error(("metrics: '%s' cannot have a label %q"):format(name, tostring(label)), 4)
    elseif seen[label] then
      error(("metrics: '%s' has the label %q twice"):format(name, label), 4)
    end
    seen[label] = true
  end
end

-- The bounds of the buckets of a histogram; the bucket without one is not among them.
local function bounds_of(name, bounds)
  local last = -math.huge
  for _, bound in ipairs(bounds) do
    if type(bound) ~= "number" or not (bound > last and bound < math.huge) then
      error(("metrics: '%s': the bounds of buckets must be numbers that rise"):format(name), 4)
    end
    last = bound
  end
  return bounds
end

local function family_of(self, kind, name, help, labels, opts)
  labels = labels or {}
  check(name, help, labels)
  opts = errors.options("metrics: '" .. name .. "'", opts, OPTIONS, 3)
  local family = self.families[name]
  if family then
    if family.type ~= kind or not same_list(family.labels, labels) then
      local message = "metrics: '%s' exists as a %s with the labels (%s)"
      error(message:format(name, family.type, family.wanted), 3)
    end
    return family
  end
  family = setmetatable({
    name = name,
    help = help,
    type = kind,
    labels = labels,
    wanted = table.concat(labels, ", "),
    bounds = kind == "histogram" and bounds_of(name, opts.buckets or metrics.SECONDS) or nil,
    max_series = opts.max_series or MOST_SERIES,
    series = {},
    list = {}, -- all series
    count = 0, -- those that are told apart
  }, Family)
  self.families[name] = family
  self.order[#self.order + 1] = family
  return family
end

--- The family of counters of a name; made when there is none yet.
-- @tparam string name ends in "_total" by convention
-- @tparam string help one line
-- @tparam[opt] {string,...} labels names
-- @tparam[opt] table opts
-- @tparam[opt=1000] number opts.max_series how many combinations of label values are kept apart
function Registry:counter(name, help, labels, opts)
  return family_of(self, "counter", name, help, labels, opts)
end

--- The family of gauges of a name.
function Registry:gauge(name, help, labels, opts)
  return family_of(self, "gauge", name, help, labels, opts)
end

--- The family of histograms of a name.
-- @tparam[opt] {number,...} opts.buckets upper bounds, rising; metrics.SECONDS if left out
function Registry:histogram(name, help, labels, opts)
  return family_of(self, "histogram", name, help, labels, opts)
end

--- Calls `fn()` before each collection, and before `value`: for what is only worth reading then.
-- @treturn function ends that
function Registry:before_collect(fn)
  self.hooks[fn] = true
  return function()
    self.hooks[fn] = nil
  end
end

-- One series as plain data. Buckets count what is not above their bound, so each includes those before it.
local function plain(family, series)
  local labels = {}
  for i, name in ipairs(family.labels) do
    labels[name] = series.labels[i]
  end
  if family.type ~= "histogram" then
    return { labels = labels, value = series.value }
  end
  local buckets, count = {}, 0
  for i = 1, series.size do
    count = count + series[i]
    buckets[i] = { le = series.bounds[i] or math.huge, count = count }
  end
  return { labels = labels, buckets = buckets, sum = series.sum, count = count }
end

local function run_hooks(self)
  for fn in pairs(self.hooks) do
    fn()
  end
end

--- Everything, as plain data: a list of `{ name, help, type, labels, series }` in the order in which families were
-- made; a series has `labels` (name to value) and `value`, or `buckets` (`{ le, count }`), `sum` and `count`.
function Registry:collect()
  run_hooks(self)
  local all = {}
  for i, family in ipairs(self.order) do
    local list = {}
    for j, series in ipairs(family.list) do
      list[j] = plain(family, series)
    end
    all[i] = { name = family.name, help = family.help, type = family.type, labels = family.labels, series = list }
  end
  return all
end

--- The value of one series: the number of a counter or gauge, the count and the sum of a histogram.
-- @tparam string name of the family
-- @tparam[opt] table labels name to value; those left out match all, and the values are added up
-- @treturn number 0 where there is none
function Registry:value(name, labels)
  run_hooks(self)
  local total, sum = 0, 0
  local family = self.families[name]
  for _, series in ipairs(family and family.list or {}) do
    local one = plain(family, series)
    local matches = true
    for label, value in pairs(labels or {}) do
      matches = matches and one.labels[label] == tostring(value)
    end
    if matches then
      total, sum = total + (one.value or one.count), sum + (one.sum or 0)
    end
  end
  return total, sum
end

--- Makes a registry.
function metrics.registry()
  return setmetatable({ families = {}, order = {}, hooks = {} }, Registry)
end

return metrics
