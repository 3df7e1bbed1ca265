--- What an application does at a moment, as plain data for pages and terminals: its metrics by subscription,
-- destination and stream, and the state of its brokers.
--
-- Counters are totals. Rates and quantiles are of the last seconds: a *history* keeps what was counted at former
-- snapshots, and each is compared with the oldest that is recent.
-- @module weir.app.snapshot

local runtime = require("weir.runtime")
local text = require("weir.utf8")

local M = {}

-- Seconds that rates and quantiles look back, and the moments that are kept for that.
local WINDOW, MOMENTS = 10, 5

-- By the name of the metric: the group of rows that it belongs to, and its field there.
local FIELDS = {
  weir_messages_consumed_total = { "subscriptions", "consumed" },
  weir_messages_in_flight = { "subscriptions", "in_flight" },
  weir_queue_depth = { "subscriptions", "depth" },
  weir_consumer_lag = { "subscriptions", "lag" },
  weir_decode_failures_total = { "subscriptions", "decode_failures" },
  weir_retries_total = { "subscriptions", "retries" },
  weir_dead_letters_total = { "subscriptions", "dead_letters" },
  weir_redeliveries_total = { "subscriptions", "redeliveries" },
  weir_process_duration_seconds = { "subscriptions", "duration" },
  weir_stream_messages_total = { "streams", "messages" },
  weir_stream_bytes_total = { "streams", "bytes" },
  weir_stream_dropped_total = { "streams", "dropped" },
  weir_stream_gaps_total = { "streams", "gaps" },
  weir_stream_evicted_total = { "streams", "evicted" },
  weir_stream_queued_messages = { "streams", "queued" },
  weir_stream_credit_bytes = { "streams", "credit" },
  weir_stream_peers = { "streams", "peers" },
}

local KEYS = {
  subscriptions = { "broker", "handler", "destination" },
  published = { "broker", "destination" },
  streams = { "stream", "side" },
}

-- What a counter of a group is called of which there is a rate.
local RATES = { subscriptions = "consumed", published = "published", streams = "messages" }

-- --- histories ------------------------------------------------------------------------------------

local History = { __name = "weir.app.history" }
History.__index = History

--- Makes a history, for one reader after the other of the same registry.
-- @tparam[opt=10] number window seconds that rates and quantiles look back, and a fifth of that more
function M.history(window)
  window = window or WINDOW
  return setmetatable({ moments = {}, window = window, apart = window / MOMENTS }, History)
end

-- The moment to compare with; nil where there is none that is recent.
function History:base(now)
  local moments = self.moments
  while moments[1] and now - moments[1].time > self.window + self.apart do
    table.remove(moments, 1)
  end
  return moments[1]
end

-- Keeps a moment: `time`, and by key a number or the counts of a histogram.
function History:keep(moment)
  local last = self.moments[#self.moments]
  if not last or moment.time - last.time >= self.apart then
    self.moments[#self.moments + 1] = moment
  end
end

-- --- series ---------------------------------------------------------------------------------------

--- The value below which a share of a histogram is, as far as its buckets tell.
-- @tparam table series of `registry:collect()`
-- @tparam number share 0 to 1
-- @tparam[opt] {number,...} before the counts of its buckets that are not to be looked at
-- @treturn ?number nil of nothing; of what is above the last bound, that bound
function M.quantile(series, share, before)
  local function count(i)
    return series.buckets[i].count - (before and before[i] or 0)
  end
  local all = count(#series.buckets)
  local wanted, low, below = all * share, 0, 0
  if all <= 0 then
    return nil
  end
  for i, bucket in ipairs(series.buckets) do
    local n = count(i)
    if n >= wanted and n > below then
      if bucket.le == math.huge then
        return low
      end
      return low + (bucket.le - low) * (wanted - below) / (n - below)
    end
    low, below = bucket.le, n
  end
  return low
end

local function counts_of(series)
  local counts = {}
  for i, bucket in ipairs(series.buckets) do
    counts[i] = bucket.count
  end
  return counts
end

-- A histogram in short. Its quantiles are of what came since the moment before, if there was one.
local function duration_of(self, key, series)
  local counts = counts_of(series)
  self.moment[key] = counts
  local duration = { count = series.count, sum = series.sum }
  if self.base then
    local before = self.base[key]
    duration.p50 = M.quantile(series, 0.5, before)
    duration.p99 = M.quantile(series, 0.99, before)
  end
  return duration
end

-- The table below `name`, made where there is none.
local function below(tree, name)
  local branch = tree[name]
  if not branch then
    branch = {}
    tree[name] = branch
  end
  return branch
end

local function new_row(group, labels, place)
  local row, parts = group == "subscriptions" and { outcomes = {} } or {}, { group }
  for i, name in ipairs(KEYS[group]) do
    row[name] = text.valid(labels[name])
    parts[i + 1] = #labels[name] .. ":" .. labels[name]
  end
  place.row, place.key = row, table.concat(parts)
  return row
end

-- The row of a group that a series belongs to, and its key in moments.
local function row_of(self, group, labels)
  local place = self.places[group]
  for _, name in ipairs(KEYS[group]) do
    place = below(place, labels[name])
  end
  if not place.row then
    local rows = self[group]
    rows[#rows + 1] = new_row(group, labels, place)
  end
  return place.row, place.key
end

local function set(self, group, labels, field, series)
  local row, key = row_of(self, group, labels)
  if series.buckets then
    row[field] = duration_of(self, key .. field, series)
    return
  end
  row[field] = series.value
  if field == RATES[group] then
    self.moment[key] = series.value
    if self.base then
      row.rate = math.max(series.value - (self.base[key] or 0), 0) / (self.moment.time - self.base.time)
    end
  end
end

local function add(self, family, series)
  local labels = series.labels
  if family.name == "weir_messages_processed_total" then
    row_of(self, "subscriptions", labels).outcomes[labels.outcome] = series.value
  elseif family.name == "weir_messages_published_total" then
    set(self, "published", labels, labels.status == "ok" and "published" or "failed", series)
  elseif FIELDS[family.name] then
    set(self, FIELDS[family.name][1], labels, FIELDS[family.name][2], series)
  end
end

local RUNTIME = {
  weir_tasks = "tasks",
  weir_lua_memory_bytes = "lua_memory",
  process_resident_memory_bytes = "memory",
  process_cpu_seconds_total = "cpu",
}

--- Makes the plain data of `health.brokers`.
-- @tparam table health of an application
-- @treturn {table,...} `name`, `state`, `error` (its text)
function M.brokers(health)
  local list = {}
  for label, each in pairs(health.brokers) do
    local err = each.error
    list[#list + 1] = {
      name = text.valid(label),
      state = each.state,
      error = err and text.valid(err.message or tostring(err)) or nil,
    }
  end
  table.sort(list, function(a, b)
    return a.name < b.name
  end)
  return list
end

--- Takes one.
-- @tparam table app
-- @param registry in which it counts
-- @tparam table history of `snapshot.history`, for rates and quantiles; it remembers this one
-- @treturn table `app`, `version`, `state`, `ready`, `time` (seconds of a monotonic clock), `window` (seconds that
--   rates and quantiles are of; nil where there are none yet), `brokers`, `subscriptions`, `published`, `streams`,
--   `runtime`
function M.take(app, registry, history)
  local now = runtime.now()
  local base = history:base(now)
  local self = {
    subscriptions = {},
    published = {},
    streams = {},
    places = { subscriptions = {}, published = {}, streams = {} },
    base = base and now > base.time and base or nil,
    moment = { time = now },
  }
  local process = {}
  for _, family in ipairs(registry:collect()) do
    for _, series in ipairs(family.series) do
      if series.labels.app == nil or series.labels.app == app.title then
        add(self, family, series)
      end
      if RUNTIME[family.name] then
        process[RUNTIME[family.name]] = series.value
      elseif family.name == "weir_loop_lag_seconds" then
        process.loop_lag = duration_of(self, "loop_lag", series)
      end
    end
  end
  history:keep(self.moment)
  local health = app:health()
  return {
    app = text.valid(app.title),
    version = text.valid(app.version),
    state = health.state,
    ready = health.ready,
    time = now,
    window = self.base and now - self.base.time or nil,
    brokers = M.brokers(health),
    subscriptions = self.subscriptions,
    published = self.published,
    streams = self.streams,
    runtime = process,
  }
end

return M
