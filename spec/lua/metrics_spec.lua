local metrics = require("weir.metrics")

local function families(registry)
  local by_name = {}
  for _, family in ipairs(registry:collect()) do
    by_name[family.name] = family
  end
  return by_name
end

describe("the metrics registry", function()
  local registry
  before_each(function()
    registry = metrics.registry()
  end)

  it("counts", function()
    local counter = registry:counter("jobs_total", "Jobs.", { "kind" }):with("big")
    counter:inc()
    counter:inc(4)
    assert.same({ { labels = { kind = "big" }, value = 5 } }, families(registry).jobs_total.series)
  end)

  it("gives the same series for the same labels", function()
    local family = registry:counter("jobs_total", "Jobs.", { "a", "b" })
    assert.equal(family:with("x", "yz"), family:with("x", "yz"))
    assert.not_equal(family:with("x", "yz"), family:with("xy", "z"))
    assert.equal(family, registry:counter("jobs_total", "Jobs.", { "a", "b" }))
  end)

  it("sets gauges, up and down", function()
    local gauge = registry:gauge("depth", "Depth."):with()
    gauge:set(10)
    gauge:inc()
    gauge:dec(3)
    assert.equal(8, registry:value("depth"))
  end)

  it("puts each value into the first bucket that holds it", function()
    local histogram = registry:histogram("size", "Sizes.", {}, { buckets = { 1, 2, 5 } }):with()
    for _, value in ipairs({ 0, 1, 1.5, 2, 5, 6, 100 }) do
      histogram:observe(value)
    end
    local series = families(registry).size.series[1]
    assert.same({
      { le = 1, count = 2 },
      { le = 2, count = 4 },
      { le = 5, count = 5 },
      { le = math.huge, count = 7 },
    }, series.buckets)
    assert.equal(7, series.count)
    assert.equal(115.5, series.sum)
  end)

  it("has a number of series that label values cannot grow", function()
    local family = registry:counter("jobs_total", "Jobs.", { "kind" }, { max_series = 3 })
    for i = 1, 100 do
      family:with("kind " .. i):inc()
    end
    assert.equal(4, #families(registry).jobs_total.series)
    assert.equal(97, registry:value("jobs_total", { kind = "other" }))
    assert.equal(100, registry:value("jobs_total"))

    local usual = registry:counter("calls_total", "Calls.", { "kind" })
    for i = 1, 1002 do
      usual:with("kind " .. i):inc()
    end
    assert.equal(2, registry:value("calls_total", { kind = "other" }))
  end)

  it("gives the place of a series that is removed to another", function()
    local family = registry:gauge("depth", "Depth.", { "kind" }, { max_series = 2 })
    for i = 1, 4 do
      family:with(i):set(i)
    end
    family:remove("1")
    family:remove("no such kind")
    family:with(5):set(5)
    assert.equal(5, (registry:value("depth", { kind = "5" })))
    assert.equal(2, (registry:value("depth", { kind = "2" })))
    assert.equal(4, (registry:value("depth", { kind = "other" })))
    family:remove("other")
    assert.equal(4, (registry:value("depth", { kind = "other" })))
  end)

  it("forgets a series that is removed", function()
    local family = registry:gauge("depth", "Depth.", { "queue" })
    family:with("a"):set(1)
    family:with("b"):set(2)
    family:remove("a")
    assert.equal(2, registry:value("depth"))
    assert.equal(0, family:with("a").value)
  end)

  it("asks for what is only read when somebody collects", function()
    local depth = registry:gauge("depth", "Depth."):with()
    local stop = registry:before_collect(function()
      depth:inc()
    end)
    registry:collect()
    stop()
    registry:collect()
    assert.equal(1, depth.value)
  end)

  it("keeps the order in which families were made", function()
    registry:counter("b_total", "B.")
    registry:counter("a_total", "A.")
    assert.equal("b_total", registry:collect()[1].name)
  end)

  it("refuses what no exporter could print", function()
    local bad = {
      { "a b", "A.", {}, "a name consists of letters" },
      { "a", nil, {}, "needs a help text" },
      { "a", "A.", { "le" }, 'cannot have a label "le"' },
      { "a", "A.", { "__x" }, 'cannot have a label "__x"' },
      { "a", "A.", { "x", "y", "x" }, 'has the label "x" twice' },
    }
    for _, case in ipairs(bad) do
      assert.error_matches(function()
        registry:histogram(case[1], case[2], case[3])
      end, case[4])
    end
    registry:counter("a_total", "A.", { "x" })
    assert.error_matches(function()
      registry:gauge("a_total", "A.", { "x" })
    end, "exists as a counter")
    assert.error_matches(function()
      registry:counter("a_total", "A.", { "x" }):with()
    end, "1 label values are expected %(x%), not 0")
    for _, bounds in ipairs({ { 2, 1 }, { 1, 1 }, { 1, math.huge }, { 0 / 0 }, { "1" }, { -math.huge, 1 } }) do
      assert.error_matches(function()
        registry:histogram("h", "H.", {}, { buckets = bounds })
      end, "must be numbers that rise")
    end
    assert.error_matches(function()
      registry:counter("b_total", "B."):with():inc(-1)
    end, "a counter only rises")
  end)
end)
