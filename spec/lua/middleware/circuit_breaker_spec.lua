local middleware = require("weir.middleware")
local new_clock = require("weir.test.clock")
local outcome = require("weir.outcome")
local tasks = require("weir.task")

describe("the circuit breaker", function()
  local clock, ctx, calls
  local function works()
    calls = calls + 1
    return true
  end
  local function fails()
    calls = calls + 1
    return nil, "down"
  end
  local function raises()
    calls = calls + 1
    error("down", 0)
  end

  before_each(function()
    clock, calls = new_clock(), 0
    ctx = { clock = clock }
  end)

  it("opens after failures in a row, raised or returned", function()
    local run, breaker = middleware.circuit_breaker({ failures = 3, while_open = "retry", cooldown = 10 })
    run(1, ctx, fails)
    run(1, ctx, fails)
    run(1, ctx, works)
    run(1, ctx, fails)
    assert.error_matches(function()
      run(1, ctx, raises)
    end, "down")
    assert.equal("closed", breaker:state())
    run(1, ctx, function()
      return outcome.retry()
    end)
    assert.equal("open", breaker:state())
    local answer = run(1, ctx, works)
    assert.equal("retry", outcome.kind(answer))
    assert.equal(10, answer.after)
    assert.equal(5, calls)
  end)

  it("tries one after the cooldown, and closes when it goes well", function()
    local states = {}
    local run, breaker = middleware.circuit_breaker({
      failures = 1,
      while_open = "retry",
      cooldown = 10,
      on_change = function(state)
        states[#states + 1] = state
      end,
    })
    run(1, ctx, fails)
    clock.advance(10)
    run(1, ctx, fails)
    assert.equal("open", breaker:state())
    clock.advance(10)
    assert.is_true(run(1, ctx, works))
    assert.equal("closed", breaker:state())
    assert.same({ "open", "half_open", "open", "half_open", "closed" }, states)
  end)

  it("holds the others while it is open, and while one is tried", function()
    local run, breaker = middleware.circuit_breaker({ failures = 1, cooldown = 10 })
    run(1, ctx, fails)
    tasks.run(function()
      local going, most = 0, 0
      local function slow()
        going = going + 1
        most = math.max(most, going)
        tasks.sleep(0.001)
        going = going - 1
        return works()
      end
      local waiting = {}
      for i = 1, 3 do
        waiting[i] = tasks.spawn(run, i, ctx, slow)
      end
      tasks.sleep(0)
      assert.equal(1, calls)
      clock.advance(10)
      for i = 1, 3 do
        assert.is_true(waiting[i]:join(5))
      end
      assert.equal(4, calls)
      assert.is_true(most <= 2) -- the one that is tried; the others once it went well
    end)
    assert.equal("closed", breaker:state())
  end)

  it("does not count what is no failure", function()
    local run, breaker = middleware.circuit_breaker({
      failures = 1,
      is_failure = function(err)
        return err ~= "down"
      end,
    })
    run(1, ctx, fails)
    run(1, ctx, function()
      return outcome.drop("not for us")
    end)
    assert.equal("closed", breaker:state())
  end)

  it("passes on all that the handler returns", function()
    local run = middleware.circuit_breaker()
    assert.same({ nil, "down" }, { run(1, ctx, fails) })
  end)

  it("says what its options must be", function()
    assert.error_matches(function()
      middleware.circuit_breaker({ failures = 0 })
    end, "'failures' must be a number above 0")
    assert.error_matches(function()
      middleware.circuit_breaker({ while_open = "panic" })
    end, "'while_open' must be")
  end)
end)
