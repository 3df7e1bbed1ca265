local runtime = require("weir.runtime")
local tasks = require("weir.task")
local channel = require("weir.channel")
local support = require("spec.lua.support")
local fails = support.fails
local spawn = tasks.spawn

describe("a channel", function()
  it("keeps values in order and holds no more than its size", function()
    local ch = channel(2)
    assert.is_true(ch:try_send("a"))
    assert.is_true(ch:send(false))
    fails("full", ch:try_send("c"))
    assert.equal(2, #ch)
    assert.same({ queued = 2, size = 2, closed = false }, ch:stats())
    assert.equal("a", ch:try_recv())
    assert.is_false(ch:recv())
    fails("empty", ch:try_recv())
  end)

  it("makes a sender wait for room and a receiver for a value", function()
    local ch, sent = channel(1), 0
    spawn(function()
      for i = 1, 100 do
        assert(ch:send(i))
        sent = i
      end
      ch:close()
    end)
    runtime.pause()
    assert.equal(1, sent)
    local got = {}
    for value in ch:each() do
      got[#got + 1] = value
      assert.is_true(sent <= value + 1)
    end
    assert.equal(100, #got)
    assert.equal(100, got[100])
  end)

  it("loses and doubles nothing between many senders and receivers", function()
    local ch, got, count = channel(3), {}, 0
    tasks.group(function(g)
      tasks.group(function(senders)
        for s = 0, 9 do
          senders:spawn(function()
            for i = 1, 50 do
              assert(ch:send(s * 50 + i))
            end
          end)
          g:spawn(function()
            for value in ch:each() do
              assert(not got[value])
              got[value], count = true, count + 1
              if value % 7 == 0 then
                runtime.pause()
              end
            end
          end)
        end
      end)
      ch:close()
    end)
    assert.equal(500, count)
  end)

  it("gives up after a timeout and leaves nothing behind", function()
    local ch = channel(1)
    fails("timeout", ch:recv(0.001))
    fails("timeout", ch:recv(0))
    assert.is_true(ch:send(1))
    fails("timeout", ch:send(2, 0.001))
    assert.equal(1, ch:recv())
    fails("timeout", ch:recv(0.001))
    assert.equal(0, ch.receivers.count)
    assert.equal(0, ch.senders.count)
  end)

  it("does not lose a value with a receiver that is cancelled as it comes", function()
    local ch = channel(1)
    local first, second = spawn(ch.recv, ch), spawn(ch.recv, ch)
    runtime.pause()
    assert(ch:send("value"))
    first:cancel()
    second:cancel()
    local a, b = first:join(), second:join()
    local left = ch:try_recv()
    local times = (a == "value" and 1 or 0) + (b == "value" and 1 or 0) + (left == "value" and 1 or 0)
    assert.equal(1, times)
  end)

  it("can be emptied after it was closed, and not filled", function()
    local ch = channel(2)
    ch:send(1)
    ch:close()
    fails("closed", ch:send(2))
    fails("closed", ch:try_send(2))
    assert.equal(1, ch:recv())
    fails("closed", ch:recv())
    fails("closed", ch:try_recv())
    assert.equal("weir.channel(0 of 2, closed)", tostring(ch))
  end)

  it("wakes all who wait when it is closed", function()
    local ch, full = channel(1), channel(1)
    full:send(1)
    local waiting = {}
    for _ = 1, 3 do
      waiting[#waiting + 1] = spawn(ch.recv, ch)
      waiting[#waiting + 1] = spawn(full.send, full, 2)
    end
    runtime.pause()
    ch:close()
    full:close()
    for _, task in ipairs(waiting) do
      fails("closed", task:join())
    end
  end)

  it("closes as a to-be-closed variable", function()
    local kept
    do
      local ch <close> = channel(1)
      kept = ch
    end
    fails("closed", kept:recv())
  end)

  it("refuses nil, and sizes that are none", function()
    local ch = channel()
    assert.has_error(function()
      ch:send(nil)
    end)
    for _, bad in ipairs({ 0, -1, 1.5, "2" }) do
      assert.has_error(function()
        channel(bad)
      end)
    end
    assert.has_error(function()
      ch:recv(-1)
      ch:recv("soon")
    end)
  end)
end)
