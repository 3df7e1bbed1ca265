local core = require("weir.core")

local function middle() return 0.5 end

describe("core.backoff", function()
  it("starts at half a second, grows by half and ends at a minute", function()
    local b = core.backoff({ random = middle })
    assert.equal(0.5, b:next(0))
    assert.equal(0.75, b:next(1))
    assert.equal(1.125, b:next(2))
    for _ = 1, 20 do b:next(3) end
    assert.equal(60, b:next(1e6))
  end)

  it("takes its figures from options", function()
    local b = core.backoff({ initial = 1, factor = 3, max = 5, jitter = 0 })
    assert.equal(1, b:next(0))
    assert.equal(3, b:next(0))
    assert.equal(5, b:next(0))
  end)

  it("draws delays from around the interval", function()
    local b = core.backoff({ initial = 1, factor = 1, jitter = 0.25, max = 1 })
    local different = {}
    for _ = 1, 200 do
      local delay = b:next(0)
      assert.is_true(delay >= 0.75 and delay <= 1.25)
      different[delay] = true
    end
    assert.is_not_nil(next(different, next(different)))
  end)

  it("repeats its delays for the same seed and no other", function()
    local a, b, c = core.backoff({ seed = 7 }), core.backoff({ seed = 7 }), core.backoff({ seed = 8 })
    local first = a:next(0)
    assert.equal(first, b:next(0))
    assert.not_equal(first, c:next(0))
  end)

  it("differs between objects without a seed", function()
    local a, b = core.backoff(), core.backoff()
    assert.not_equal(a:next(0), b:next(0))
  end)

  it("gives up max_elapsed after the first failure, not after it was made", function()
    local b = core.backoff({ initial = 1, jitter = 0, max_elapsed = 10 })
    assert.equal(1, b:next(5000))
    assert.equal(0.5, b:next(5009.5))
    assert.is_nil(b:next(5010))
    b:reset()
    assert.equal(1, b:next(6000))
  end)

  it("raises on options that it does not know, and lists those it does", function()
    local ok, err = pcall(core.backoff, { inital = 1 })
    assert.is_false(ok)
    assert.truthy(tostring(err):find("unknown option 'inital'", 1, true))
    assert.truthy(tostring(err):find("initial, factor, max, jitter, max_elapsed, random, seed", 1, true))
    assert.has_error(function() core.backoff({ 1 }) end)
  end)

  it("raises on values out of range", function()
    for _, options in ipairs({
      { initial = 0 }, { initial = -1 }, { initial = 2, max = 1 }, { factor = 0.5 }, { jitter = 1.5 },
      { jitter = -1 }, { initial = "1" }, { initial = 0 / 0 }, { max_elapsed = -1 }, { random = 1 }, { seed = -1 },
    }) do
      assert.has_error(function() core.backoff(options) end)
    end
    assert.has_error(function() core.backoff(1) end)
    assert.has_error(function() core.backoff():next() end)
    assert.has_error(function() core.backoff():next(0 / 0) end)
  end)

  it("raises when the random function returns no fraction", function()
    for _, value in ipairs({ 1, -0.1, "0.5", 0 / 0 }) do
      assert.has_error(function() core.backoff({ random = function() return value end }):next(0) end)
    end
  end)

  it("lets an error of the random function through and works on", function()
    local fail = true
    local b = core.backoff({ random = function()
      if fail then error("dice lost", 0) end
      return 0.5
    end })
    assert.has_error(function() b:next(0) end, "dice lost")
    fail = false
    assert.equal(0.5, b:next(0))
  end)

  it("keeps its random function alive, but not itself by it", function()
    local weak = setmetatable({}, { __mode = "k" })
    do
      local b
      b = core.backoff({ random = function() return b and 0.5 end })
      weak[b] = true
      collectgarbage()
      assert.equal(0.5, b:next(0))
    end
    collectgarbage()
    collectgarbage()
    assert.is_nil(next(weak))
  end)

  it("says what it is", function()
    assert.truthy(tostring(core.backoff()):find("backoff: fresh", 1, true))
  end)
end)
