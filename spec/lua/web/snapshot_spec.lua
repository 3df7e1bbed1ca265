local metrics = require("weir.metrics")
local snapshot = require("weir.app.snapshot")
local weir = require("weir")
local support = require("spec.lua.app.support")

local LABELS = { "app", "broker", "handler", "destination" }

-- An application, and the series that one of its subscriptions would have.
local function observed()
  local app = support.app()
  local registry = metrics.registry()
  local function series(kind, name)
    return registry[kind](registry, name, "A", LABELS):with("test", "memory", "one", "in")
  end
  return app, registry, {
    consumed = series("counter", "weir_messages_consumed_total"),
    durations = series("histogram", "weir_process_duration_seconds"),
  }
end

describe("snapshots", function()
  after_each(support.clean)

  it("have rates and quantiles of the last seconds, and totals of all", function()
    weir.run(function()
      local app, registry, counts = observed()
      local history = snapshot.history(1)
      local function take()
        return snapshot.take(app, registry, history)
      end
      counts.consumed:inc(1000)
      counts.durations:observe(4, 1000)
      local first = take()
      assert.is_nil(first.window)
      assert.is_nil(first.subscriptions[1].rate)
      assert.is_nil(first.subscriptions[1].duration.p99)
      weir.sleep(0.002)
      counts.consumed:inc(10)
      counts.durations:observe(0.002, 10)
      local second = take()
      local row = second.subscriptions[1]
      assert.equal(second.time - first.time, second.window)
      assert.near(10 / second.window, row.rate, 1e-9)
      assert.equal(1010, row.consumed)
      assert.equal(1010, row.duration.count)
      assert.is_true(row.duration.p50 <= 0.0025 and row.duration.p99 <= 0.0025)
      local third
      support.eventually(function() -- what is longer ago than the window does not count
        third = take()
        return third.subscriptions[1].rate == 0
      end)
      assert.is_true(third.window > 0)
      assert.is_nil(third.subscriptions[1].duration.p99)
    end)
  end)

  it("begin anew when nobody has looked for longer than the window", function()
    weir.run(function()
      local app, registry, counts = observed()
      local history = snapshot.history(0.005)
      snapshot.take(app, registry, history)
      weir.sleep(0.02)
      counts.consumed:inc()
      local after = snapshot.take(app, registry, history)
      assert.is_nil(after.window)
      assert.is_nil(after.subscriptions[1].rate)
    end)
  end)

  it("keep a few moments, however often somebody looks", function()
    weir.run(function()
      local app, registry = observed()
      local history = snapshot.history(0.02)
      local deadline = weir.now() + 0.1
      repeat
        snapshot.take(app, registry, history)
        weir.sleep(0.0005)
        assert.is_true(#history.moments <= 7)
      until weir.now() > deadline
      assert.is_true(#history.moments > 1)
    end)
  end)

  it("count what began within the window from nothing", function()
    weir.run(function()
      local app, registry = observed()
      local history = snapshot.history(5)
      snapshot.take(app, registry, history)
      weir.sleep(0.002)
      registry:counter("weir_messages_published_total", "A", { "app", "broker", "destination", "status" })
        :with("test", "memory", "out", "ok"):inc(3)
      local after = snapshot.take(app, registry, history)
      assert.near(3 / after.window, after.published[1].rate, 1e-9)
    end)
  end)

  it("leave other applications of the registry out, and what is no text", function()
    weir.run(function()
      local app, registry = observed()
      local family = registry:counter("weir_messages_consumed_total", "A", LABELS)
      family:with("another", "memory", "two", "in"):inc()
      family:with("test", "memory", "three", "\255"):inc()
      local rows = snapshot.take(app, registry, snapshot.history()).subscriptions
      assert.equal(2, #rows)
      assert.equal("\u{FFFD}", rows[2].destination)
    end)
  end)

  describe("quantiles", function()
    local function series(...)
      local registry = metrics.registry()
      local histogram = registry:histogram("h", "H", {}, { buckets = { 1, 2, 4 } }):with()
      for _, value in ipairs({ ... }) do
        histogram:observe(value)
      end
      return registry:collect()[1].series[1]
    end

    it("lie within the bucket that has them", function()
      assert.equal(1.5, snapshot.quantile(series(1.1, 1.9), 0.5))
      assert.equal(2, snapshot.quantile(series(0.5, 1.5), 1))
      assert.equal(4, snapshot.quantile(series(100), 0.5))
      assert.is_nil(snapshot.quantile(series(), 0.5))
    end)

    it("leave what was before out", function()
      assert.equal(3, snapshot.quantile(series(0.5, 0.5, 3, 3), 0.5, { 2, 2, 2, 2 }))
      assert.is_nil(snapshot.quantile(series(0.5), 0.5, { 1, 1, 1, 1 }))
    end)
  end)
end)
