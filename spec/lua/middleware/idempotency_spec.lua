local middleware = require("weir.middleware")
local new_clock = require("weir.test.clock")
local outcome = require("weir.outcome")
local tasks = require("weir.task")

describe("idempotency", function()
  local clock, calls
  local function message(id)
    return { clock = clock, message_id = id }
  end
  local function works()
    calls = calls + 1
    return true
  end
  local function fails()
    calls = calls + 1
    return nil, "down"
  end

  before_each(function()
    clock, calls = new_clock(), 0
  end)

  it("handles a message once, and acknowledges it after that", function()
    local run = middleware.idempotency()
    assert.is_true(run(1, message("a"), works))
    assert.equal("ack", outcome.kind(run(1, message("a"), works)))
    assert.is_true(run(1, message("b"), works))
    assert.equal(2, calls)
  end)

  it("handles again what failed, was retried or raised", function()
    local run = middleware.idempotency()
    run(1, message("a"), fails)
    run(1, message("a"), function()
      calls = calls + 1
      return outcome.retry()
    end)
    pcall(run, 1, message("a"), function()
      calls = calls + 1
      error("no")
    end)
    assert.is_true(run(1, message("a"), works))
    assert.equal(4, calls)
  end)

  it("retries a message while the same is being handled", function()
    local run = middleware.idempotency({ again = 3 })
    tasks.run(function()
      local first = tasks.spawn(run, 1, message("a"), function()
        tasks.sleep(0.01)
        return works()
      end)
      tasks.sleep(0)
      local answer = run(1, message("a"), works)
      assert.equal("retry", outcome.kind(answer))
      assert.equal(3, answer.after)
      assert.is_true(first:join(5))
    end)
    assert.equal(1, calls)
  end)

  it("forgets keys after their time, and the oldest when there are too many", function()
    local run = middleware.idempotency({ ttl = 60, max = 3 })
    run(1, message("a"), works)
    clock.advance(61)
    run(1, message("a"), works)
    assert.equal(2, calls)
    for _, id in ipairs({ "b", "c", "d" }) do
      run(1, message(id), works)
    end
    run(1, message("d"), works)
    assert.equal(5, calls)
    run(1, message("a"), works)
    assert.equal(6, calls)
  end)

  it("always handles what has no key", function()
    local run = middleware.idempotency()
    run(1, message(nil), works)
    run(1, message(nil), works)
    assert.equal(2, calls)
  end)

  it("takes the key from the value, if it is told to", function()
    local run = middleware.idempotency({
      key = function(value)
        return value.id
      end,
    })
    run({ id = 1 }, message("a"), works)
    run({ id = 1 }, message("b"), works)
    assert.equal(1, calls)
  end)

  it("leaves out of a batch what was handled, and puts the outcomes in place", function()
    local run = middleware.idempotency()
    run(1, message("b"), works)
    local ids = { "a", "b", "c", "c", "d" }
    local ctx = { clock = clock, batch = true, size = #ids, items = {} }
    for i, id in ipairs(ids) do
      ctx.items[i] = message(id)
    end
    local seen
    local answers = run({ 1, 2, 3, 4, 5 }, ctx, function(values, inner)
      seen = values
      assert.equal(3, inner.size)
      return { true, outcome.fail("no"), true }
    end)
    assert.same({ 1, 3, 5 }, seen)
    local kinds = {}
    for i = 1, 5 do
      kinds[i] = outcome.kind(answers[i]) or tostring(answers[i])
    end
    assert.same({ "true", "ack", "fail", "retry", "true" }, kinds)
    assert.equal(5, ctx.size)
    assert.equal("ack", outcome.kind(run(1, message("a"), works)))
    assert.is_true(run(1, message("c"), works)) -- it failed
  end)

  it("gives a failed batch back as failed", function()
    local run = middleware.idempotency()
    local ctx = { clock = clock, batch = true, size = 1, items = { message("a") } }
    local answers = run({ 1 }, ctx, fails)
    assert.equal("fail", outcome.kind(answers[1]))
    assert.equal("down", answers[1].error)
    assert.is_true(run(1, message("a"), works))
  end)

  it("uses a store of the caller's, and fails when that does", function()
    local log = {}
    local states = { "new", "done" }
    local store = {
      begin = function(_, key)
        log[#log + 1] = "begin " .. key
        return table.remove(states, 1), "no store"
      end,
      done = function(_, key)
        log[#log + 1] = "done " .. key
      end,
      failed = function() end,
    }
    local run = middleware.idempotency({ store = store })
    run(1, message("a"), works)
    run(1, message("a"), works)
    assert.same({ "begin a", "done a", "begin a" }, log)
    local answer = run(1, message("b"), works)
    assert.equal("fail", outcome.kind(answer))
    assert.equal("no store", answer.error)
    assert.equal(1, calls)
    assert.error_matches(function()
      middleware.idempotency({ store = { begin = works } })
    end, "needs a function 'done'")
  end)
end)
