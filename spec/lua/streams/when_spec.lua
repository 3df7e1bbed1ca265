local luv = require("luv")
local weir = require("weir")
local runtime = require("weir.runtime")
local support = require("spec.lua.streams.support")
local it = support.tests(it)
local fails, eventually = support.fails, support.eventually

-- Turns of libuv's loop in `seconds`, beside the one that a timer ends.
local function turns_in(seconds)
  local prepare, turns = luv.new_prepare(), 0
  prepare:start(function()
    turns = turns + 1
  end)
  weir.sleep(seconds)
  prepare:close()
  return turns
end

describe("when", function()
  it("meets each change of a producer, again and again", function()
    local a, b = support.nodes("tcp")
    local producer = a:produce("stream")
    local seen = {}
    local watcher = weir.spawn(function()
      for _ = 1, 3 do
        assert(producer:when():online(5))
        seen[#seen + 1] = "online"
        assert(producer:when():offline(5))
        seen[#seen + 1] = "offline"
      end
    end)
    for round = 1, 3 do
      local consumer = assert(b:consumer("stream", nil, 5))
      eventually(function()
        return #seen == 2 * round - 1
      end)
      consumer:close()
      eventually(function()
        return #seen == 2 * round
      end)
    end
    watcher:join(1)
    assert.same({ "online", "offline", "online", "offline", "online", "offline" }, seen)
  end)

  it("meets each change of a consumer", function()
    local a, b = support.nodes("unix")
    local consumer = b:consume("stream", { online_when = 1, backoff = support.quick })
    for _ = 1, 3 do
      fails("timeout", consumer:when():online(0.01))
      local producer = a:produce("stream")
      assert(consumer:when():online(5))
      assert.is_true(consumer:is_online())
      assert(producer:close(5))
      assert(consumer:when():offline(5))
      assert.is_false(consumer:is_online())
    end
  end)

  it("is true at once where the condition is met, for everybody who waits", function()
    local producer = support.stream("local")
    assert.is_true(producer:when():online(0))
    assert.is_true(producer:when():online())
    local waiters = {}
    for i = 1, 10 do
      waiters[i] = weir.spawn(function()
        return producer:when():offline(5)
      end)
    end
    weir.sleep(0)
    producer:close(0)
    for i = 1, 10 do
      assert.is_true(waiters[i]:join(1))
    end
    assert.is_true(producer:when():offline(0))
    fails("closed", producer:when():online(0))
  end)

  it("costs nothing while it waits: the loop does not turn", function()
    local a, b = support.nodes("tcp")
    local producer, consumer = a:produce("none"), b:consume("nothing", { online_when = 1 })
    local tasks = {}
    for _ = 1, 100 do
      for _, handle in ipairs({ producer, consumer }) do
        tasks[#tasks + 1] = weir.spawn(function()
          return handle:when():online()
        end)
      end
      tasks[#tasks + 1] = weir.spawn(producer.send, producer, "pending")
      tasks[#tasks + 1] = weir.spawn(consumer.recv, consumer)
    end
    weir.sleep(0.05)
    assert.is_true(turns_in(0.2) < 20)
    for _, task in ipairs(tasks) do
      task:cancel()
      fails("cancelled", task:join(1))
    end
  end)

  it("costs nothing while a full buffer blocks the producer", function()
    local buffer = { messages = 10 }
    local producer = support.stream("tcp", { lag = "block", buffer = buffer }, { buffer = buffer })
    local blocked = weir.spawn(function()
      while producer:send("x") do -- luacheck: ignore 542
      end
    end)
    eventually(function()
      return producer:stats().queued == 10
    end)
    weir.sleep(0.05)
    assert.is_true(turns_in(0.2) < 20)
    blocked:cancel()
    blocked:join(1)
  end)

  it("is not online while its subscriptions are only being retried", function()
    local a = support.network({ listen = support.address("tcp") })
    local b = support.network({ peers = a:addresses(), backoff = { initial = 5, max = 5 } })
    assert(b:wait_connected(1, 5))
    a:produce("stream")
    local consumer = b:consume("stream", { online_when = 1 })
    assert(consumer:when():online(5))
    a:close(0)
    assert(consumer:when():offline(5))
    assert.equal(0, consumer:stats().producers)
    local source = consumer:producers()[1]
    assert.is_nil(source.uptime)
    assert.is_nil(source.rtt)
    assert.are_not.equal("open", source.state)
  end)

  it("ends with its deadline or its task", function()
    local node = support.network()
    local producer = node:produce("stream")
    local started = runtime.now()
    fails("timeout", producer:when():online(0.02))
    assert.is_true(runtime.now() - started >= 0.02)
    local task = weir.spawn(function()
      return producer:when():online()
    end)
    weir.sleep(0)
    task:cancel("enough")
    local err = fails("cancelled", task:join(1))
    assert.equal("enough", err.message)
    assert.matches("a timeout must be a number of seconds", support.raises(function()
      producer:when():online(-1)
    end))
  end)
end)
