local model = require("weir.top.model")
local prometheus = require("weir.top.prometheus")

local NAMES = 'app="a",broker="b",handler="h",destination="d"'

local function moment(time, text)
  return model.snapshot(assert(prometheus.parse((text:gsub("NAMES", NAMES)))), time)
end

describe("what weir top shows", function()
  it("is rates between two moments, and levels of the last", function()
    local before = moment(10, [[
weir_messages_consumed_total{NAMES} 100
weir_messages_processed_total{NAMES,outcome="ack"} 90
weir_queue_depth{NAMES} 7]])
    local after = moment(12, [[
weir_messages_consumed_total{NAMES} 130
weir_messages_processed_total{NAMES,outcome="ack"} 110
weir_messages_processed_total{NAMES,outcome="retry"} 4
weir_queue_depth{NAMES} 3
weir_consumer_lag{NAMES} 5
weir_messages_in_flight{NAMES} 1
weir_retries_total{NAMES} 4]])
    local row = model.compare(after, before).subscriptions[1]
    assert.same({ "a", "b", "h", "d" }, { row.app, row.broker, row.handler, row.destination })
    assert.same({ 15, 130, 3, 5, 1, 2 }, { row.rate, row.consumed, row.queued, row.lag, row.in_flight, row.retry_rate })
    assert.same({ ack = 10, retry = 2 }, row.outcome_rates)
    assert.same({ ack = 110, retry = 4 }, row.outcomes)
  end)

  it("has no rates while there was but one moment, or none between two", function()
    local now = moment(10, "weir_messages_consumed_total{NAMES} 100")
    local row = model.compare(now).subscriptions[1]
    assert.same({ 100 }, { row.consumed, row.rate })
    assert.is_nil(model.compare(now, now).subscriptions[1].rate)
  end)

  it("does not go below nothing when an application begins again", function()
    local before = moment(1, "weir_messages_consumed_total{NAMES} 100")
    local after = moment(2, "weir_messages_consumed_total{NAMES} 30")
    assert.equal(30, model.compare(after, before).subscriptions[1].rate)
  end)

  it("estimates quantiles of what came since", function()
    local function buckets(a, b, c)
      return ([[
weir_process_duration_seconds_bucket{NAMES,le="0.1"} %d
weir_process_duration_seconds_bucket{NAMES,le="1"} %d
weir_process_duration_seconds_bucket{NAMES,le="+Inf"} %d]]):format(a, b, c)
    end
    local before = moment(1, buckets(1000, 1000, 1000))
    local row = model.compare(moment(2, buckets(1050, 1100, 1100)), before).subscriptions[1]
    assert.is_true(math.abs(row.p50 - 0.1) < 1e-9)
    assert.is_true(math.abs(row.p99 - 0.982) < 1e-9)
    row = model.compare(moment(2, buckets(1000, 1000, 1010)), before).subscriptions[1]
    assert.equal(1, row.p99) -- beyond the last bound there is no telling
    row = model.compare(moment(2, buckets(1000, 1000, 1000)), before).subscriptions[1]
    assert.is_nil(row.p99)
    row = model.compare(moment(2, buckets(10, 10, 10)), before).subscriptions[1]
    assert.is_true(row.p99 <= 0.1)
  end)

  it("has brokers, destinations, streams and the runtime", function()
    local text = [[
weir_broker_up{app="a",broker="x"} 1
weir_broker_up{app="a",broker="y"} 0
weir_broker_reconnects_total{app="a",broker="y"} 3
weir_messages_published_total{app="a",broker="b",destination="d",status="ok"} %d
weir_messages_published_total{app="a",broker="b",destination="d",status="error"} 2
weir_stream_messages_total{stream="s",side="producer"} %d
weir_stream_credit_bytes{stream="s",side="producer"} 4096
weir_stream_gaps_total{stream="s",side="producer"} 1
weir_tasks 12
weir_lua_memory_bytes 1000]]
    local data = model.compare(moment(2, text:format(10, 50)), moment(1, text:format(5, 10)))
    assert.same({ { app = "a", broker = "x", state = "up", reconnects = 0 },
      { app = "a", broker = "y", state = "down", reconnects = 3 } }, data.brokers)
    local sent, stream = data.published[1], data.streams[1]
    assert.same({ 5, 0, 10, 2 }, { sent.rate, sent.failed_rate, sent.published, sent.failed })
    assert.same({ "s", "producer" }, { stream.stream, stream.side })
    assert.same({ 40, 4096, 1 }, { stream.rate, stream.credit, stream.gaps })
    assert.same({ 12, 1000 }, { data.runtime.tasks, data.runtime.lua_memory })
    assert.is_true(data.known)
  end)

  it("is nothing where the metrics are somebody else's", function()
    local data = model.compare(moment(1, 'go_goroutines 5\nweir_tasks NaN\nhttp_requests_total{code="200"} 5'))
    assert.same({}, data.subscriptions)
    assert.is_false(model.compare(moment(1, "go_goroutines 5")).known)
  end)
end)
