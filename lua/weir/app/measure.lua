--- What a subscription counts while it runs, and how that gets into the registry of metrics.
--
-- On the way of a message there are only sums of numbers in one table; the registry takes them over when it is read.
-- A duration or a size that is like the ones before it costs an addition.
-- @module weir.app.measure

local metrics = require("weir.metrics")
local runtime = require("weir.runtime")
local tasks = require("weir.task")

local measure = {}

local LABELS = { "app", "broker", "handler", "destination" }
local WITH_OUTCOME = { "app", "broker", "handler", "destination", "outcome" }

-- Durations up to the first bound of the histogram are only added up.
local SHORT = metrics.SECONDS[1]

local counters = {
  consumed = { "weir_messages_consumed_total", "Messages taken from the broker" },
  decode_failures = { "weir_decode_failures_total", "Messages that could not be decoded, or are against the schema" },
  retries = { "weir_retries_total", "Failed messages that come again" },
  dead_letters = { "weir_dead_letters_total", "Messages moved to the dead letters" },
  redeliveries = { "weir_redeliveries_total", "Messages that were delivered before" },
}

local COUNTED = {}
for name in pairs(counters) do
  COUNTED[#COUNTED + 1] = name
end

local OUTCOMES = { "ack", "retry", "drop", "dead_letter", "skip", "returned" }

local Counts = {}
Counts.__index = Counts

measure.SHORT = SHORT

-- Seconds after which a server is asked again how far behind a subscription is, and for which it may take to answer.
local ASK_AGAIN, PATIENCE = 1, 5

--- Notes a duration of the handler.
function Counts:took(seconds)
  if seconds <= SHORT then
    self.short, self.short_time = self.short + 1, self.short_time + seconds
  elseif self.durations then
    self.durations:observe(seconds)
  end
end

--- Notes the size of `n` messages.
function Counts:sized(size, n)
  if size == self.size then
    self.same = self.same + n
    return
  elseif self.sizes and self.same > 0 then
    self.sizes:observe(self.size, self.same)
  end
  self.size, self.same = size, n
end

-- Where only the server knows how far behind the subscription is, it is asked when the metrics are read; they tell what
-- it said last.
local function ask_for_lag(self)
  local now = runtime.now()
  if self.asking or self.asked and now - self.asked < ASK_AGAIN then
    return
  end
  self.asking, self.asked = true, now
  tasks.spawn(function()
    local ok, lag = pcall(self.subscription.lag, self.subscription, PATIENCE)
    self.asking = false
    if ok and lag and self.unhook then
      self.lag_gauge:set((lag.pending or 0) + (lag.unsettled or 0))
    end
  end)
end

local function flush_queue(self)
  local subscription = self.subscription
  local stats = subscription.stats and subscription:stats()
  if not stats then
    return
  end
  if stats.queued then
    self.depth_gauge:set(stats.queued)
  end
  if not subscription.lag then
    -- `held`: all that the queue of the memory broker has not got rid of, whoever of the group has taken it.
    self.lag_gauge:set(stats.held or (stats.queued or 0) + (stats.delayed or 0) + (stats.unsettled or 0))
  elseif self.unhook then
    ask_for_lag(self)
  end
end

-- Gives the registry what has come since the last time.
local function flush(self)
  self.gather()
  for name, series in pairs(self.series) do
    series:inc(self[name] - (self.given[name] or 0))
    self.given[name] = self[name]
  end
  self.in_flight_gauge:set(self.in_flight())
  if self.short > 0 then
    self.durations:observe(self.short_time / self.short, self.short)
    self.short, self.short_time = 0, 0
  end
  if self.same > 0 then
    self.sizes:observe(self.size, self.same)
    self.same = 0
  end
  flush_queue(self)
end

--- Makes the counts of a subscription.
-- @tparam ?table registry of `weir.metrics`; without one they are only counted
-- @tparam {string,...} labels application, broker, handler, destination
-- @tparam function in_flight returns how many messages are being handled
-- @param subscription of the broker: has `stats()`, and perhaps `lag(timeout)`
-- @treturn table with a field for each counter and outcome
function measure.new(registry, labels, in_flight, subscription)
  local self = setmetatable({
    on = registry ~= nil,
    gather = function() end, -- adds what was counted elsewhere; to be called before this is read
    size = -1, -- of the messages that came last, and how many had it
    same = 0,
    short = 0, -- handlers that were quick, and their time
    short_time = 0,
    series = {},
    given = {},
    in_flight = in_flight,
    subscription = subscription,
  }, Counts)
  for name in pairs(counters) do
    self[name] = 0
  end
  for _, outcome in ipairs(OUTCOMES) do
    self[outcome] = 0
  end
  if not registry then
    return self
  end
  local app, broker, handler, destination = labels[1], labels[2], labels[3], labels[4]
  for name, about in pairs(counters) do
    self.series[name] = registry:counter(about[1], about[2], LABELS):with(app, broker, handler, destination)
  end
  local processed = registry:counter("weir_messages_processed_total", "Messages by what became of them", WITH_OUTCOME)
  for _, outcome in ipairs(OUTCOMES) do
    self.series[outcome] = processed:with(app, broker, handler, destination, outcome)
  end
  self.in_flight_gauge = registry:gauge("weir_messages_in_flight", "Messages being handled", LABELS)
    :with(app, broker, handler, destination)
  self.depth_gauge = registry:gauge("weir_queue_depth", "Messages that wait to be taken", LABELS)
    :with(app, broker, handler, destination)
  self.lag_gauge = registry:gauge("weir_consumer_lag", "Messages that a subscription has yet to settle", LABELS)
    :with(app, broker, handler, destination)
  self.durations = registry:histogram("weir_process_duration_seconds", "Time from a message to its settlement", LABELS)
    :with(app, broker, handler, destination)
  self.sizes = registry:histogram("weir_message_size_bytes", "Sizes of payloads", LABELS, { buckets = metrics.BYTES })
    :with(app, broker, handler, destination)
  self.unhook = registry:before_collect(function()
    flush(self)
  end)
  return self
end

--- Goes on with the numbers of another one that was closed; the registry has them already.
function Counts:continue(other)
  other.gather()
  for _, names in ipairs({ OUTCOMES, COUNTED }) do
    for _, name in ipairs(names) do
      self[name] = self[name] + other[name]
      self.given[name] = self[name]
    end
  end
end

--- Gives the registry the last of it. Nothing waits for a subscription that is closed.
function Counts:close()
  if self.unhook then
    self.unhook()
    self.unhook = nil
    flush(self)
    self.depth_gauge:set(0)
    self.lag_gauge:set(0)
  end
end

return measure
