local channel = require("weir.channel")
local deadline = require("weir.app.deadline")
local pipe = require("spec.lua.app.pipe")
local real_clock = require("weir.clock")
local weir = require("weir")
local run = pipe.run

local DROP = { on_failure = { timeout = "drop" } }

-- What became of a handler with a timeout of `seconds` on the real clock.
local function call(seconds, fn)
  local result
  weir.run(function()
    result = table.pack(deadline.call(real_clock, seconds, fn, function(err)
      return { error = err }
    end, "value", "ctx"))
  end)
  return result
end

describe("a handler with a timeout", function()
  it("that ends in time is as one without", function()
    assert.same({ true, "value", "ctx", n = 3 }, call(5, function(value, ctx)
      weir.sleep(0.001)
      return value, ctx
    end))
    local result = call(5, function()
      error("broken", 0)
    end)
    assert.is_false(result[1])
    assert.equal("broken", result[2].error)
    assert.is_nil(result[3])
  end)

  it("that waits too long is cancelled, and has failed whatever it answers", function()
    run(function(t)
      local cancelled
      local running = t:start("in", { timeout = 30, policy = DROP }, function()
        local _, err = channel(1):recv()
        cancelled = err.code
        return true
      end)
      t:send("in", {})
      t:until_true(function()
        return running:stats().in_flight == 1
      end)
      t.settle()
      t:advance(29)
      assert.is_nil(cancelled)
      t:advance(1)
      t:counted(running, "drop", 1)
      assert.equal("cancelled", cancelled)
      assert.is_true(t:logged("took longer than 30 s"))
      assert.equal(0, running:stats().ack)
    end)
  end)

  it("that loops for ever is ended", function()
    local began = weir.now()
    local result = call(0.02, function()
      while true do
      end
    end)
    assert.is_false(result[1])
    assert.equal("timeout", result[2].code)
    assert.is_nil(result[4])
    assert.is_true(weir.now() - began < 2)
  end)

  it("that loops for ever in a pcall is ended", function()
    local result = call(0.02, function()
      while true do
        pcall(function()
          while true do
          end
        end)
      end
    end)
    assert.equal("timeout", result[2].code)
    assert.is_nil(result[4])
    result = call(0.02, function()
      return pcall(function()
        while true do
        end
      end)
    end)
    assert.is_false(result[1])
    assert.equal("timeout", result[2].code)
    assert.is_nil(result[4])
  end)

  it("that will not be cancelled is left behind, and the next message is handled", function()
    run(function(t)
      local release = channel(1)
      local running = t:start("in", { timeout = 10, policy = DROP }, function(value)
        if value.stuck then
          while not release:poll() do
            pcall(weir.sleep, 0.001)
          end
        end
      end)
      t:send("in", { stuck = true })
      t:send("in", {})
      t:until_true(function()
        return running:stats().in_flight == 1
      end)
      t.settle()
      t:advance(10)
      t:counted(running, "ack", 1)
      assert.equal(1, running:stats().drop)
      assert.is_true(t:logged("goes on in the background"))
      release:send(true)
      t.settle()
      assert.equal(1, running:stats().ack)
    end)
  end)

  it("is retried by the policy", function()
    run(function(t)
      local calls = 0
      local running = t:start("in", { timeout = 10, policy = { retry = { backoff = "none" } } }, function()
        calls = calls + 1
        if calls == 1 then
          weir.sleep(1000)
        end
      end)
      t:send("in", {})
      t:until_true(function()
        return calls == 1
      end)
      t:advance(10)
      t:counted(running, "ack", 1)
      assert.equal(2, calls)
      assert.equal(1, running:stats().retry)
    end)
  end)

  it("spares the next message its hook", function()
    run(function(t)
      t.env.clock = real_clock
      local running = t:start("in", { timeout = 0.05, policy = DROP }, function(value)
        if value.loop then
          while true do
          end
        end
        local stop = weir.now() + 0.01
        while weir.now() < stop do
        end
      end)
      t:send("in", { loop = true })
      t:send("in", {})
      t:send("in", {})
      t:counted(running, "ack", 2)
      assert.equal(1, running:stats().drop)
    end)
  end)

  it("lets the others run while it waits", function()
    run(function(t)
      local other = t:start("other", function() end)
      t:start("in", { timeout = 10 }, function()
        weir.sleep(1000)
      end)
      t:send("in", {})
      t:send("other", {})
      t:counted(other, "ack", 1)
    end)
  end)
end)
