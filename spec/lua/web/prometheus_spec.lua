local metrics = require("weir.metrics")
local prometheus = require("weir.metrics.prometheus")
local process = require("weir.metrics.process")
local streams = require("weir.metrics.streams")
local weir = require("weir")
local support = require("spec.lua.support")
local eventually = support.eventually

local function text_of(make)
  local registry = metrics.registry()
  make(registry)
  return prometheus.text(registry)
end

describe("weir.metrics.prometheus", function()
  it("writes counters and gauges with their help, type and labels", function()
    local text = text_of(function(registry)
      registry:counter("a_total", "How many", { "x", "y" }):with("1", "2"):inc(3)
      registry:gauge("b", "How much"):with():set(-0.25)
    end)
    assert.equal([[
# HELP a_total How many
# TYPE a_total counter
a_total{x="1",y="2"} 3
# HELP b How much
# TYPE b gauge
b -0.25
]], text)
  end)

  it("writes histograms with buckets that include those before, sum and count", function()
    local text = text_of(function(registry)
      local series = registry:histogram("h_seconds", "Time", { "x" }, { buckets = { 0.1, 1 } }):with("1")
      series:observe(0.05, 2)
      series:observe(0.5)
      series:observe(7)
    end)
    assert.equal([[
# HELP h_seconds Time
# TYPE h_seconds histogram
h_seconds_bucket{x="1",le="0.1"} 2
h_seconds_bucket{x="1",le="1"} 3
h_seconds_bucket{x="1",le="+Inf"} 4
h_seconds_sum{x="1"} 7.6
h_seconds_count{x="1"} 4
]], text)
  end)

  it("escapes help and labels, and replaces what is not UTF-8", function()
    local text = text_of(function(registry)
      registry:gauge("a", "one\ntwo\\", { "x" }):with("q\"\\\n\255é\237\160\128"):set(1)
    end)
    assert.truthy(text:find("# HELP a one\\ntwo\\\\\n", 1, true))
    assert.truthy(text:find('a{x="q\\"\\\\\\n�é���"} 1\n', 1, true))
  end)

  it("writes numbers so that they are read back the same", function()
    local text = text_of(function(registry)
      local family = registry:gauge("a", "A", { "x" })
      local values = { big = 2 ^ 60, third = 1 / 3, inf = math.huge, low = -math.huge, nan = 0 / 0, int = 1e9 }
      for name, value in pairs(values) do
        family:with(name):set(value)
      end
    end)
    assert.equal(2 ^ 60, tonumber(text:match('x="big"} (%S+)')))
    assert.equal(1 / 3, tonumber(text:match('x="third"} (%S+)')))
    assert.equal("+Inf", text:match('x="inf"} (%S+)'))
    assert.equal("-Inf", text:match('x="low"} (%S+)'))
    assert.equal("NaN", text:match('x="nan"} (%S+)'))
    assert.equal("1000000000", text:match('x="int"} (%S+)'))
  end)

  it("comes in pieces, with what was counted at first", function()
    local registry = metrics.registry()
    local counter = registry:counter("a_total", "A", { "x" }, { max_series = 5000 })
    local histogram = registry:histogram("h", "H", { "x" }, { max_series = 5000 })
    for i = 1, 3000 do
      counter:with(i):inc(i)
      histogram:with(i):observe(i)
    end
    local whole, parts = prometheus.text(registry), {}
    for piece in prometheus.pieces(registry) do
      assert.equal("\n", piece:sub(-1))
      parts[#parts + 1] = piece
      counter:with(3000):inc()
    end
    assert.is_true(#parts > 10)
    assert.is_true(whole == table.concat(parts))
  end)

  it("leaves families without a series out", function()
    assert.equal("", text_of(function(registry)
      registry:counter("a_total", "A", { "x" })
    end))
  end)
end)

describe("weir.metrics.process", function()
  it("measures tasks, memory, processor time and how late the loop is", function()
    weir.run(function()
      local registry = metrics.registry()
      local stop = process(registry)
      eventually(function()
        return registry:value("weir_loop_lag_seconds") > 0
      end)
      assert.is_true(registry:value("weir_tasks") >= 1)
      assert.is_true(registry:value("weir_lua_memory_bytes") > 10000)
      assert.is_true(registry:value("process_resident_memory_bytes") > 100000)
      assert.is_true(registry:value("process_cpu_seconds_total") > 0)
      local spun = os.clock() + 0.05
      while os.clock() < spun do
      end
      local before = registry:value("process_cpu_seconds_total")
      stop()
      assert.equal(before, registry:value("process_cpu_seconds_total"))
    end)
  end)

  it("notices a task that computes without a pause", function()
    weir.run(function()
      local registry = metrics.registry()
      local stop = process(registry)
      local worst
      eventually(function()
        local late = os.clock() + 0.3
        while os.clock() < late do
        end
        weir.sleep(0.001)
        local _, sum = registry:value("weir_loop_lag_seconds")
        worst = sum
        return sum > 0.02
      end, 20)
      stop()
      assert.is_true(worst > 0.02)
    end)
  end)
end)

describe("weir.metrics.streams", function()
  it("adds up what the handles of a stream say, and keeps totals when they are closed", function()
    weir.run(function()
      local here = assert(weir.network({ listen = "tcp://127.0.0.1:0" }))
      local there = assert(weir.network({ peers = here:addresses()[1] }))
      local registry = metrics.registry()
      local stops = { streams(registry, here), streams(registry, there) }
      local producer = here:produce("numbers", { codec = "json", online_when = 1 })
      local consumer = there:consume("numbers", { codec = "json" })
      for i = 1, 5 do
        assert(producer:send({ n = i }, 5))
      end
      for _ = 1, 3 do
        assert(consumer:recv(5))
      end
      eventually(function()
        return registry:value("weir_stream_queued_messages", { side = "consumer" }) == 2
      end)
      local function value(name, side)
        return (registry:value(name, { stream = "numbers", side = side }))
      end
      assert.equal(5, value("weir_stream_messages_total", "producer"))
      assert.equal(3, value("weir_stream_messages_total", "consumer"))
      assert.is_true(value("weir_stream_bytes_total", "producer") >= 35)
      assert.equal(1, value("weir_stream_peers", "producer"))
      assert.is_true(value("weir_stream_credit_bytes", "consumer") > 0)
      assert.equal(0, value("weir_stream_gaps_total", "consumer"))
      assert.equal(0, value("weir_stream_dropped_total", "producer"))
      consumer:close()
      assert.equal(3, value("weir_stream_messages_total", "consumer"))
      local gauges = prometheus.text(registry)
      assert.is_nil(gauges:find('weir_stream_queued_messages{stream="numbers",side="consumer"}', 1, true))
      local kept = setmetatable({ consumer }, { __mode = "v" })
      consumer = nil -- luacheck: ignore 311
      eventually(function() -- nothing keeps what is closed
        collectgarbage()
        return kept[1] == nil
      end)
      for _, stop in ipairs(stops) do
        stop()
      end
      there:close()
      here:close()
    end)
  end)
end)
