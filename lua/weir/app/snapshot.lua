--- What an application does at a moment, as plain data for pages and terminals: its metrics by subscription,
-- destination and stream, and the state of its brokers.
--
-- Counters are totals: who shows rates divides the difference of two snapshots by that of their `time`.
-- @module weir.app.snapshot

local runtime = require("weir.runtime")

local M = {}

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

--- The value below which a share of a histogram is, as far as its buckets tell.
-- @tparam table series of `registry:collect()`
-- @tparam number share 0 to 1
-- @treturn ?number nil of nothing; of what is above the last bound, that bound
function M.quantile(series, share)
  local wanted = series.count * share
  local below, before = 0, 0
  if series.count == 0 then
    return nil
  end
  for _, bucket in ipairs(series.buckets) do
    if bucket.count >= wanted and bucket.count > before then
      if bucket.le == math.huge then
        return below
      end
      return below + (bucket.le - below) * (wanted - before) / (bucket.count - before)
    end
    below, before = bucket.le, bucket.count
  end
  return below
end

local function duration_of(series)
  return {
    count = series.count,
    sum = series.sum,
    p50 = M.quantile(series, 0.5),
    p99 = M.quantile(series, 0.99),
  }
end

-- The row of a group that a series belongs to.
local function row_of(groups, group, labels)
  local names, values = KEYS[group], {}
  for i, name in ipairs(names) do
    values[i] = #labels[name] .. ":" .. labels[name]
  end
  local key = table.concat(values)
  local rows = groups[group]
  local row = rows[key]
  if not row then
    row = group == "subscriptions" and { outcomes = {} } or {}
    for _, name in ipairs(names) do
      row[name] = labels[name]
    end
    rows[key], rows[#rows + 1] = row, row
  end
  return row
end

local function add(groups, family, series)
  local labels = series.labels
  if family.name == "weir_messages_processed_total" then
    row_of(groups, "subscriptions", labels).outcomes[labels.outcome] = series.value
  elseif family.name == "weir_messages_published_total" then
    local field = labels.status == "ok" and "published" or "failed"
    local row = row_of(groups, "published", labels)
    row[field] = (row[field] or 0) + series.value
  elseif FIELDS[family.name] then
    local row = row_of(groups, FIELDS[family.name][1], labels)
    row[FIELDS[family.name][2]] = series.buckets and duration_of(series) or series.value
  end
end

local function list_of(rows)
  local list = {}
  for i, row in ipairs(rows) do
    list[i] = row
  end
  return list
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
    list[#list + 1] = { name = label, state = each.state, error = err and (err.message or tostring(err)) or nil }
  end
  table.sort(list, function(a, b)
    return a.name < b.name
  end)
  return list
end

--- Takes one.
-- @tparam table app
-- @param registry in which it counts
-- @treturn table `app`, `version`, `state`, `ready`, `time` (seconds of a monotonic clock), `brokers`, `subscriptions`,
--   `published`, `streams`, `runtime`
function M.take(app, registry)
  local groups = { subscriptions = {}, published = {}, streams = {} }
  local process = {}
  for _, family in ipairs(registry:collect()) do
    for _, series in ipairs(family.series) do
      if series.labels.app == nil or series.labels.app == app.title then
        add(groups, family, series)
      end
      if RUNTIME[family.name] then
        process[RUNTIME[family.name]] = series.value
      elseif family.name == "weir_loop_lag_seconds" then
        process.loop_lag = duration_of(series)
      end
    end
  end
  local health = app:health()
  return {
    app = app.title,
    version = app.version,
    state = health.state,
    ready = health.ready,
    time = runtime.now(),
    brokers = M.brokers(health),
    subscriptions = list_of(groups.subscriptions),
    published = list_of(groups.published),
    streams = list_of(groups.streams),
    runtime = process,
  }
end

return M
