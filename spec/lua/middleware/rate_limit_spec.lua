local middleware = require("weir.middleware")
local new_clock = require("weir.test.clock")
local outcome = require("weir.outcome")
local tasks = require("weir.task")

describe("the rate limit", function()
  local clock, ctx, handled
  local function handler(value)
    handled[#handled + 1] = ("%s at %.1f"):format(value, clock.now())
    return "done"
  end

  before_each(function()
    clock, handled = new_clock(), {}
    ctx = { clock = clock }
  end)

  -- Handles the values one after the other, the clock running as fast as it can.
  local function handle(limit, values, contexts)
    tasks.run(function()
      local task = tasks.spawn(function()
        for i, value in ipairs(values) do
          limit(value, contexts and contexts[i] or ctx, handler)
        end
      end)
      while task:status() == "running" do
        tasks.sleep(0)
        if clock.due() then
          clock.advance(clock.due() - clock.now())
        end
      end
      task:join()
    end)
  end

  it("lets a burst through, and then so many a second", function()
    handle(middleware.rate_limit({ rate = 2, burst = 3 }), { "a", "b", "c", "d", "e" })
    assert.same({ "a at 0.0", "b at 0.0", "c at 0.0", "d at 0.5", "e at 1.0" }, handled)
  end)

  it("gains no more than a burst while nothing comes", function()
    local limit = middleware.rate_limit({ rate = 1, burst = 1 })
    handle(limit, { "a" })
    clock.advance(100)
    handle(limit, { "b", "c" })
    assert.same({ "a at 0.0", "b at 100.0", "c at 101.0" }, handled)
  end)

  it("counts each message of a batch, and lets one larger than the burst through", function()
    local batch = { clock = clock, batch = true, size = 4 }
    handle(middleware.rate_limit({ rate = 2, burst = 2 }), { "a", "b" }, { batch, batch })
    assert.same({ "a at 0.0", "b at 2.0" }, handled)
  end)

  it("has a limit for each key, and remembers a bounded number of keys", function()
    local limit = middleware.rate_limit({
      rate = 1,
      burst = 1,
      max_keys = 10,
      by = function(value)
        return value:sub(1, 1)
      end,
    })
    handle(limit, { "a1", "b1", "a2", "b2" })
    assert.same({ "a1 at 0.0", "b1 at 0.0", "a2 at 1.0", "b2 at 1.0" }, handled)
    local many = {}
    for i = 1, 1000 do
      many[i] = string.char(i % 200 + 33)
    end
    handle(limit, many)
    assert.equal(1004, #handled)
  end)

  it("retries or drops what is too much, if it is told to", function()
    local limit = middleware.rate_limit({ rate = 2, burst = 1, excess = "retry" })
    assert.equal("done", limit("a", ctx, handler))
    local answer = limit("b", ctx, handler)
    assert.equal("retry", outcome.kind(answer))
    assert.equal(0.5, answer.after)
    limit = middleware.rate_limit({ rate = 2, burst = 1, excess = "drop" })
    limit("c", ctx, handler)
    assert.equal("drop", outcome.kind(limit("d", ctx, handler)))
    assert.same({ "a at 0.0", "c at 0.0" }, handled)
  end)

  it("gives up the wait when its task is cancelled", function()
    local limit = middleware.rate_limit({ rate = 1 })
    limit("a", ctx, handler)
    tasks.run(function()
      local task = tasks.spawn(limit, "b", ctx, handler)
      tasks.sleep(0)
      task:cancel()
      local _, err = task:join(5)
      assert.equal("cancelled", err.code)
    end)
    assert.same({ "a at 0.0" }, handled)
  end)

  it("says what its options must be", function()
    for options, message in pairs({
      [{}] = "'rate' is missing",
      [{ rate = 0 }] = "'rate' must be a number above 0, not 0",
      [{ rate = 1, excess = "no" }] = "'excess' must be",
      [{ rat = 1 }] = "did you mean 'rate'",
    }) do
      assert.error_matches(function()
        middleware.rate_limit(options)
      end, message)
    end
  end)
end)
