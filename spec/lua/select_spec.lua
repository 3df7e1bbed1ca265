local runtime = require("weir.runtime")
local tasks = require("weir.task")
local channel = require("weir.channel")
local select_ = require("weir.select")
local support = require("spec.lua.support")
local fails = support.fails
local spawn = tasks.spawn

describe("select", function()
  it("does what is ready without waiting", function()
    local a, b = channel(1), channel(1)
    b:send("b")
    assert.same({ 2, "b" }, { select_({ a, b }) })
    assert.same({ 1, true }, { select_({ a:sending("x"), b }) })
    assert.equal("x", a:recv())
  end)

  it("waits for the first of several", function()
    local a, b = channel(1), channel(1)
    spawn(function()
      tasks.sleep(0.002)
      b:send("late")
    end)
    assert.same({ 2, "late" }, { select_({ a, b, timeout = 5 }) })
    assert.equal(0, a.receivers.count)
    assert.equal(0, b.receivers.count)
  end)

  it("waits for room to send", function()
    local full = channel(1)
    full:send(1)
    spawn(function()
      tasks.sleep(0.002)
      full:recv()
    end)
    assert.same({ 1, true }, { select_({ full:sending(2) }) })
    assert.equal(2, full:recv())
  end)

  it("gives up after a timeout", function()
    fails("timeout", select_({ channel(1), channel(1), timeout = 0.002 }))
    fails("timeout", select_({ channel(1), timeout = 0 }))
  end)

  it("joins tasks", function()
    local slow, fast = spawn(tasks.sleep, 100), spawn(function()
      tasks.sleep(0.001)
      return "fast", 2
    end)
    assert.same({ 2, "fast", 2 }, { select_({ slow, fast }) })
    slow:cancel()
    fails("cancelled", slow:join())
  end)

  it("tells that a channel is closed", function()
    local ch = channel(1)
    spawn(ch.close, ch)
    local at, value, err = select_({ ch })
    assert.equal(1, at)
    fails("closed", value, err)
  end)

  it("prefers none of those that are always ready", function()
    local chosen = { 0, 0, 0 }
    local list = { channel(1), channel(1), channel(1) }
    for _ = 1, 300 do
      for i = 1, 3 do
        list[i]:try_send(i)
      end
      local at = select_(list)
      chosen[at] = chosen[at] + 1
    end
    for i = 1, 3 do
      assert.is_true(chosen[i] >= 60)
    end
  end)

  it("hands on a wake that it did not need", function()
    local first_taken = 0
    for _ = 1, 4 do -- whichever of the two it looks at first
      local a, b = channel(1), channel(1)
      local both = spawn(select_, { a, b })
      runtime.pause()
      local other = spawn(b.recv, b)
      runtime.pause()
      b:send(2)
      a:send(1)
      if both:join() == 1 then
        first_taken = first_taken + 1
        assert.equal(2, other:join(1))
      else
        assert.equal(1, a:recv())
        other:cancel()
        other:join()
      end
    end
    assert.is_true(first_taken > 0)
  end)

  it("is ended by a cancellation", function()
    local task = spawn(select_, { channel(1) })
    runtime.pause()
    task:cancel()
    fails("cancelled", task:join())
  end)

  it("refuses what cannot be waited for", function()
    for _, bad in ipairs({ {}, { 5 }, { {} }, { timeout = 1 }, { channel(1), timeuot = 1 } }) do
      assert.has_error(function()
        select_(bad)
      end)
    end
    assert.has_error(function()
      select_("channel")
    end)
  end)
end)
