--- What `weir top` shows: from the samples of two moments to rows with rates.
-- @module weir.top.model

local M = {}

-- Metrics of a subscription by the field of a row that they are; what counts is told apart from what only is.
local COUNTS = {
  weir_messages_consumed_total = "consumed",
  weir_retries_total = "retries",
  weir_dead_letters_total = "dead_letters",
  weir_decode_failures_total = "decode_failures",
  weir_redeliveries_total = "redeliveries",
}
local LEVELS = {
  weir_messages_in_flight = "in_flight",
  weir_queue_depth = "queued",
  weir_consumer_lag = "lag",
}

local STREAM_COUNTS = {
  weir_stream_messages_total = "messages",
  weir_stream_bytes_total = "bytes",
  weir_stream_dropped_total = "dropped",
  weir_stream_gaps_total = "gaps",
  weir_stream_evicted_total = "evicted",
}
local STREAM_LEVELS = {
  weir_stream_queued_messages = "queued",
  weir_stream_credit_bytes = "credit",
  weir_stream_peers = "peers",
}

local RUNTIME = {
  weir_tasks = "tasks",
  weir_lua_memory_bytes = "lua_memory",
  process_resident_memory_bytes = "memory",
}

-- --- one moment -----------------------------------------------------------------------------------

-- What names the rows of a group.
local KEYS = {
  subscriptions = { "app", "broker", "handler", "destination" },
  published = { "app", "broker", "destination" },
  brokers = { "app", "broker" },
  streams = { "stream", "side" },
}

local function new_row(list, names, labels)
  local parts = {}
  for i, name in ipairs(names) do
    local value = labels[name] or ""
    parts[i] = #value .. ":" .. value
  end
  local key = table.concat(parts)
  local row = list[key]
  if not row then
    row = { counts = {}, levels = {}, outcomes = {}, buckets = {} }
    for _, name in ipairs(names) do
      row[name] = labels[name] or ""
    end
    list[key] = row
  end
  return row
end

-- The row of a group; that of labels that came before is known.
local function row_of(self, group, labels)
  local known = self.known_rows[group]
  local row = known[labels]
  if not row then
    row = new_row(self[group], KEYS[group], labels)
    known[labels] = row
  end
  return row
end

local function add(values, field, value)
  values[field] = (values[field] or 0) + value
end

local function bucket(buckets, le, value)
  local bound = tonumber(le) or le == "+Inf" and math.huge
  if bound then
    add(buckets, bound, value)
  end
end

local function subscription(self, labels)
  return row_of(self, "subscriptions", labels)
end

local function broker(self, labels)
  return row_of(self, "brokers", labels)
end

local readers = {}

function readers.weir_messages_processed_total(self, labels, value)
  add(subscription(self, labels).outcomes, labels.outcome or "", value)
end

function readers.weir_process_duration_seconds_bucket(self, labels, value, le)
  bucket(subscription(self, labels).buckets, le, value)
end

function readers.weir_loop_lag_seconds_bucket(self, _, value, le)
  bucket(self.loop_lag, le, value)
end

function readers.weir_messages_published_total(self, labels, value)
  local row = row_of(self, "published", labels)
  add(row.counts, labels.status == "ok" and "ok" or "failed", value)
end

function readers.weir_broker_reconnects_total(self, labels, value)
  add(broker(self, labels).counts, "reconnects", value)
end

function readers.weir_app_info(self, labels)
  self.apps[#self.apps + 1] = { app = labels.app or "", version = labels.version or "" }
end

function readers.weir_broker_up(self, labels, value)
  broker(self, labels).up = value ~= 0
end

local function read(self, sample)
  local name, labels, value = sample.name, sample.labels, sample.value
  local reader = readers[name]
  if value ~= value or value == math.huge or value == -math.huge then
    return -- none of these is a number of weir's, and no rate can be made of it
  elseif reader then
    reader(self, labels, value, sample.le)
  elseif COUNTS[name] then
    add(subscription(self, labels).counts, COUNTS[name], value)
  elseif LEVELS[name] then
    add(subscription(self, labels).levels, LEVELS[name], value)
  elseif STREAM_COUNTS[name] then
    add(row_of(self, "streams", labels).counts, STREAM_COUNTS[name], value)
  elseif STREAM_LEVELS[name] then
    add(row_of(self, "streams", labels).levels, STREAM_LEVELS[name], value)
  elseif RUNTIME[name] then
    add(self.runtime, RUNTIME[name], value)
  end
end

--- What there is at a moment.
-- @tparam {table,...} samples
-- @tparam number time seconds of a clock that does not jump
function M.snapshot(samples, time)
  local self = {
    time = time,
    subscriptions = {},
    published = {},
    brokers = {},
    streams = {},
    apps = {},
    runtime = {},
    loop_lag = {},
    known = false,
    known_rows = { subscriptions = {}, published = {}, brokers = {}, streams = {} },
  }
  for _, sample in ipairs(samples) do
    self.known = self.known or sample.name:find("^weir_") ~= nil
    read(self, sample)
  end
  self.known_rows = nil
  return self
end

-- --- two moments ----------------------------------------------------------------------------------

-- How much was added; a counter that is less than before has begun again.
local function growth(before, after)
  before, after = before or 0, after or 0
  return after >= before and after - before or after
end

-- A quantile of what was added to buckets, as Prometheus estimates it; nil where nothing was.
local function quantile(before, after, q)
  local bounds = {}
  for bound in pairs(after) do
    bounds[#bounds + 1] = bound
  end
  table.sort(bounds)
  local last = bounds[#bounds]
  local restarted = last and (before[last] or 0) > after[last]
  local function count(bound)
    return after[bound] - (restarted and 0 or before[bound] or 0)
  end
  local total = last and count(last) or 0
  if total <= 0 then
    return nil
  end
  local rank, low, below = q * total, 0, 0
  for _, bound in ipairs(bounds) do
    local n = count(bound)
    if n >= rank and n > below then
      if bound == math.huge then
        return low
      end
      return low + (bound - low) * (rank - below) / (n - below)
    end
    low, below = bound, n
  end
  return low
end

local NONE = { counts = {}, outcomes = {}, buckets = {}, levels = {} }

local function subscription_row(row, old, seconds)
  old = old or NONE
  local function rate(field)
    return seconds and growth(old.counts[field], row.counts[field]) / seconds
  end
  local result = {
    app = row.app,
    broker = row.broker,
    handler = row.handler,
    destination = row.destination,
    rate = rate("consumed"),
    retry_rate = rate("retries"),
    dead_letter_rate = rate("dead_letters"),
    consumed = row.counts.consumed or 0,
    retries = row.counts.retries or 0,
    dead_letters = row.counts.dead_letters or 0,
    decode_failures = row.counts.decode_failures or 0,
    redeliveries = row.counts.redeliveries or 0,
    in_flight = row.levels.in_flight or 0,
    queued = row.levels.queued,
    lag = row.levels.lag,
    outcomes = {},
    outcome_rates = {},
  }
  for outcome, n in pairs(row.outcomes) do
    result.outcomes[outcome] = n
    result.outcome_rates[outcome] = seconds and growth(old.outcomes[outcome], n) / seconds
  end
  if seconds then
    result.p50 = quantile(old.buckets, row.buckets, 0.5)
    result.p99 = quantile(old.buckets, row.buckets, 0.99)
  end
  return result
end

local function published_row(row, old, seconds)
  local counts = (old or NONE).counts
  return {
    app = row.app,
    broker = row.broker,
    destination = row.destination,
    published = row.counts.ok or 0,
    failed = row.counts.failed or 0,
    rate = seconds and growth(counts.ok, row.counts.ok) / seconds,
    failed_rate = seconds and growth(counts.failed, row.counts.failed) / seconds,
  }
end

local function stream_row(row, old, seconds)
  local counts = (old or NONE).counts
  local result = {
    stream = row.stream,
    side = row.side,
    rate = seconds and growth(counts.messages, row.counts.messages) / seconds,
    byte_rate = seconds and growth(counts.bytes, row.counts.bytes) / seconds,
  }
  for _, field in pairs(STREAM_COUNTS) do
    result[field] = row.counts[field]
  end
  for _, field in pairs(STREAM_LEVELS) do
    result[field] = row.levels[field]
  end
  return result
end

local function broker_row(row)
  local state
  if row.up ~= nil then
    state = row.up and "up" or "down"
  end
  return { app = row.app, broker = row.broker, state = state, reconnects = row.counts.reconnects or 0 }
end

local function rows(after, before, make, seconds)
  local result = {}
  for key, row in pairs(after) do
    result[#result + 1] = make(row, before and before[key], seconds)
  end
  return result
end

-- By all that names a row: rows keep their places.
local function by_name(fields)
  return function(a, b)
    for _, field in ipairs(fields) do
      if a[field] ~= b[field] then
        return a[field] < b[field]
      end
    end
    return false
  end
end

--- What is between two moments.
-- @tparam table after of `snapshot`
-- @tparam ?table before of `snapshot`; without it there are no rates
-- @treturn table `apps`, `subscriptions`, `published`, `brokers`, `streams` (lists, by name) and `runtime`
function M.compare(after, before)
  local seconds = before and after.time - before.time
  if seconds and seconds <= 0 then
    seconds = nil
  end
  before = before or {}
  local result = {
    seconds = seconds,
    known = after.known,
    subscriptions = rows(after.subscriptions, before.subscriptions, subscription_row, seconds),
    published = rows(after.published, before.published, published_row, seconds),
    streams = rows(after.streams, before.streams, stream_row, seconds),
    brokers = rows(after.brokers, nil, broker_row),
    apps = after.apps,
    runtime = {},
  }
  table.sort(result.subscriptions, by_name({ "app", "broker", "destination", "handler" }))
  table.sort(result.published, by_name({ "app", "broker", "destination" }))
  table.sort(result.streams, by_name({ "stream", "side" }))
  table.sort(result.brokers, by_name({ "app", "broker" }))
  for field, value in pairs(after.runtime) do
    result.runtime[field] = value
  end
  result.runtime.loop_lag_p99 = seconds and quantile(before.loop_lag, after.loop_lag, 0.99)
  return result
end

return M
