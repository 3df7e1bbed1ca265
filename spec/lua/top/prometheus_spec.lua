local metrics = require("weir.metrics")
local prometheus = require("weir.top.prometheus")

local function one(line)
  local samples, err = prometheus.parse(line .. "\n")
  assert(samples, err)
  assert.equal(1, #samples)
  return samples[1]
end

describe("the text of metrics", function()
  it("is names, labels and values", function()
    assert.same({ name = "a", labels = {}, value = 1 }, one("a 1"))
    assert.same({ name = "a:b_c", labels = { x = "1", y = "" }, value = -2.5e3 }, one('a:b_c{x="1",y=""} -2.5e3'))
    assert.same({ name = "a", labels = { x = "1" }, value = 3 }, one('a { x = "1" , }  3 1700000000000'))
    assert.same({ name = "a", labels = {}, value = math.huge }, one("a{} +Inf\r"))
    assert.same({ name = "a", labels = {}, value = -math.huge }, one("a -Inf"))
    local nan = one("a NaN").value
    assert.is_true(nan ~= nan)
  end)

  it("has escapes and any text in values of labels", function()
    assert.equal('a"b\\c\nd}{,é', one([[a{x="a\"b\\c\nd}{,é"} 1]]).labels.x)
    assert.equal("\\n", one([[a{x="\\n"} 1]]).labels.x)
  end)

  it("has the bounds of buckets apart, and labels that many lines have once", function()
    local samples = assert(prometheus.parse([[
a_bucket{x="1",le="0.5"} 1
a_bucket{x="1",le="+Inf"} 2
a_bucket{le="2",x="1"} 3
a_count{x="1"} 2
b{x="}",y="{\\"} 4
b{x="1",le="\""} 5
]]))
    local function plain(sample)
      return { sample.name, sample.le or "none", sample.value, sample.labels }
    end
    local list = {}
    for i, sample in ipairs(samples) do
      list[i] = plain(sample)
    end
    assert.same({
      { "a_bucket", "0.5", 1, { x = "1" } },
      { "a_bucket", "+Inf", 2, { x = "1" } },
      { "a_bucket", "2", 3, { x = "1" } },
      { "a_count", "none", 2, { x = "1" } },
      { "b", "none", 4, { x = "}", y = "{\\" } },
      { "b", '"', 5, { x = "1" } },
    }, list)
    assert.equal(samples[1].labels, samples[4].labels)
  end)

  it("may have comments and empty lines, which are nothing", function()
    assert.same({}, prometheus.parse("# HELP a A\n# TYPE a counter\n\n  \n#\n"))
    assert.same({}, prometheus.parse(""))
  end)

  it("is refused where a line is no sample, with its number", function()
    for _, line in ipairs({
      "a", "a b", "1a 1", "a{ 1", 'a{x="} 1', 'a{x="1} 1', 'a{x=1} 1', 'a{x="1"', 'a{x="1"}', "a 1 b", "a 0x10",
      'a{x="1"y} 1', "<html>", 'a{x="\\', "a{x", "\255 1",
    }) do
      local samples, err = prometheus.parse("# fine\n" .. line)
      assert.is_nil(samples, line)
      assert.matches("^line %d", err)
    end
  end)

  it("is refused where it has more than 200000 samples", function()
    local samples = assert(prometheus.parse(("a 1\n"):rep(200000)))
    assert.equal(200000, #samples)
    local none, err = prometheus.parse(("a 1\n"):rep(200001))
    assert.is_nil(none)
    assert.matches("more than 200000", err)
  end)

  it("is read back as it is collected", function()
    local registry = metrics.registry()
    registry:counter("a_total", "A", { "x" }):with('q"\\\n'):inc(3)
    registry:histogram("b_seconds", "B", {}, { buckets = { 1, 2 } }):with():observe(1.5)
    local by_name = {}
    for _, sample in ipairs(prometheus.samples(registry:collect())) do
      by_name[sample.name .. (sample.le and ":" .. sample.le or "")] = sample.value
    end
    assert.same({ a_total = 3, ["b_seconds_bucket:1"] = 0, ["b_seconds_bucket:2"] = 1, ["b_seconds_bucket:inf"] = 1,
      b_seconds_sum = 1.5, b_seconds_count = 1 }, by_name)
    local text = require("weir.metrics.prometheus").text(registry)
    local first = assert(prometheus.parse(text))[1]
    assert.same({ name = "a_total", labels = { x = 'q"\\\n' }, value = 3 }, first)
  end)

  it("never fails otherwise, whatever comes", function()
    local random = 12345
    local alphabet = { "a", "{", "}", '"', "\\", "=", ",", " ", "1", "\n", "#", "\255", "n" }
    for _ = 1, 3000 do
      local parts = {}
      for i = 1, 12 do
        random = (random * 1103515245 + 12345) % 2 ^ 31
        parts[i] = alphabet[random // 65536 % #alphabet + 1]
      end
      prometheus.parse(table.concat(parts))
    end
  end)
end)
