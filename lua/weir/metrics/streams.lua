--- Metrics of the streams of a node: what went through its producers and consumers, credit, queues, gaps.
--
--     local stop = require("weir.metrics.streams")(app.metrics, network)
--
-- Handles of the same stream and side are added up.
-- @module weir.metrics.streams

local LABELS = { "stream", "side" }

local COUNTERS = {
  messages = { "weir_stream_messages_total", "Messages that producers sent, or consumers took" },
  bytes = { "weir_stream_bytes_total", "Bytes of these messages" },
  dropped = { "weir_stream_dropped_total", "Messages that no consumer got, or that were announced as missing" },
  gaps = { "weir_stream_gaps_total", "Runs of messages that a consumer missed" },
  evicted = { "weir_stream_evicted_total", "Consumers closed for being too slow" },
}

local GAUGES = {
  queued = { "weir_stream_queued_messages", "Messages that wait: to be sent, or to be taken" },
  credit = { "weir_stream_credit_bytes", "Bytes that may be sent before the consumer takes more" },
  peers = { "weir_stream_peers", "Consumers of a producer, or producers of a consumer, that are connected" },
}

local function make_families(registry)
  local families = { counters = {}, gauges = {} }
  for field, about in pairs(COUNTERS) do
    families.counters[field] = registry:counter(about[1], about[2], LABELS)
  end
  for field, about in pairs(GAUGES) do
    families.gauges[field] = registry:gauge(about[1], about[2], LABELS)
  end
  return families
end

-- Notes the handles that there are, and returns them as a set: those that are closed have last numbers to give.
local function discover(self)
  local there = {}
  local function note(handle, side)
    there[handle] = true
    self.seen[handle] = self.seen[handle] or { side = side, given = {} }
  end
  for _, producer in pairs(self.network.producers) do
    note(producer, "producer")
  end
  for _, list in pairs(self.network.consumers) do
    for consumer in pairs(list) do
      note(consumer, "consumer")
    end
  end
  return there
end

local function add(sums, handle, side, stats)
  local key = side .. ":" .. handle.name
  local sum = sums[key] or { name = handle.name, side = side, queued = 0, peers = 0 }
  sums[key] = sum
  sum.queued = sum.queued + (stats.queued or 0)
  sum.peers = sum.peers + (stats.consumers or stats.producers or 0)
  if stats.credit then
    sum.credit = (sum.credit or 0) + stats.credit
  end
end

local function collect(self)
  local there, sums = discover(self), {}
  for handle, note in pairs(self.seen) do
    local ok, stats = pcall(handle.stats, handle)
    for field, family in pairs(ok and self.families.counters or {}) do
      local value = stats[field]
      if value then
        family:with(handle.name, note.side):inc(math.max(value - (note.given[field] or 0), 0))
        note.given[field] = value
      end
    end
    if ok and there[handle] then
      add(sums, handle, note.side, stats)
    else
      self.seen[handle] = nil
    end
  end
  for key, sum in pairs(self.shown) do
    if not sums[key] then
      for _, family in pairs(self.families.gauges) do
        family:remove(sum.name, sum.side)
      end
    end
  end
  for _, sum in pairs(sums) do
    for field, family in pairs(self.families.gauges) do
      if sum[field] then
        family:with(sum.name, sum.side):set(sum[field])
      end
    end
  end
  self.shown = sums
end

--- Measures into a registry until it is told to stop.
-- @param registry of `weir.metrics`
-- @param network of `weir.network`
-- @treturn function ends that
return function(registry, network)
  local self = { network = network, families = make_families(registry), seen = {}, shown = {} }
  return registry:before_collect(function()
    collect(self)
  end)
end
