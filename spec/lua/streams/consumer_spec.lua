local weir = require("weir")
local support = require("spec.lua.streams.support")
local it = support.tests(it)
local fails, eventually = support.fails, support.eventually

describe("network:consumer", function()
  it("says not_found, 10404, when nobody who is connected produces the stream", function()
    local _, b = support.nodes("tcp")
    local started = weir.now()
    local err = fails("not_found", b:consumer("nothing", nil, 0.1))
    assert.equal(10404, err.status)
    assert.equal("nothing", err.stream)
    assert.matches("nobody who is connected produces 'nothing'", err.message)
    assert.is_true(weir.now() - started < 2)
    assert.is_nil(next(b.consumers))
  end)

  it("waits for a producer that comes in time", function()
    local a, b = support.nodes("unix")
    local found = weir.spawn(b.consumer, b, "soon", nil, 5)
    weir.sleep(0.01)
    a:produce("soon")
    assert.matches("1 producers", tostring(found:join(5)))
  end)

  it("takes a producer that accepts though another refuses", function()
    local hub = support.network({ listen = support.address("mem") })
    local refuses = support.network({ peers = hub:addresses() })
    assert(refuses:wait_connected(1, 5))
    refuses:produce("stream", {
      require = function()
        return false
      end,
    })
    hub:produce("stream", { max_consumers = 0 })
    local accepts = support.network({ peers = hub:addresses() })
    assert(accepts:wait_connected(1, 5))
    eventually(function()
      return #hub:peers() == 2
    end)
    accepts:produce("stream")
    weir.sleep(0.01)
    local consumer = assert(hub:consumer("stream", nil, 5))
    assert.equal(1, consumer:stats().producers)
  end)

  it("gives up when its task is cancelled, and leaves nothing behind", function()
    local node = support.network()
    local task = weir.spawn(node.consumer, node, "stream")
    weir.sleep(0)
    task:cancel()
    fails("cancelled", task:join(1))
    assert.is_nil(next(node.consumers))
  end)
end)

describe("a consumer", function()
  it("has every message once where several tasks take from it", function()
    local producer, consumer = support.stream("tcp")
    local seen, count = {}, 0
    local tasks = {}
    for i = 1, 4 do
      tasks[i] = weir.spawn(function()
        for value in consumer:each() do
          assert.is_nil(seen[value])
          seen[value], count = true, count + 1
        end
      end)
    end
    for i = 1, 1000 do
      assert(producer:send(tostring(i), 5))
    end
    assert(producer:flush(5))
    eventually(function()
      return count == 1000
    end)
    consumer:close()
    for _, task in ipairs(tasks) do
      task:join(1)
    end
  end)

  it("says empty where there is nothing to try", function()
    local producer, consumer = support.stream("local")
    local err = fails("empty", consumer:try_recv())
    assert.equal("stream", err.stream)
    assert(producer:send("x"))
    assert.equal("x", (consumer:try_recv()))
    fails("empty", consumer:try_recv())
  end)

  it("ends every wait when it is closed", function()
    local _, consumer = support.stream("tcp", nil, { online_when = 1 })
    local receiving = weir.spawn(consumer.recv, consumer)
    local iterating = weir.spawn(function()
      for _ in consumer:each() do
        error("nothing was sent")
      end
      return "over"
    end)
    local offline = weir.spawn(function()
      return consumer:when():offline()
    end)
    weir.sleep(0)
    consumer:close()
    fails("closed", receiving:join(1))
    assert.equal("over", iterating:join(1))
    assert.is_true(offline:join(1))
    fails("closed", consumer:recv())
    fails("closed", consumer:try_recv())
    fails("closed", consumer:when():online(1))
    assert.is_true(consumer:close())
    assert.same({}, consumer:producers())
    assert.equal("weir.consumer(stream, closed, 0 producers)", tostring(consumer))
  end)

  it("keeps its counters after it was closed, however often they are read", function()
    local producer, consumer = support.stream("local")
    assert(producer:send("four"))
    assert.equal("four", consumer:recv(1))
    consumer:close()
    for _ = 1, 2 do
      local stats = consumer:stats()
      assert.same({ 1, 4, 0, 0 }, { stats.messages, stats.bytes, stats.dropped, stats.producers })
    end
  end)

  it("is online at once by default, and by online_when with so many producers", function()
    local a, b = support.nodes("tcp")
    assert.is_true(b:consume("nothing"):is_online())
    local consumer = b:consume("stream", { online_when = 2 })
    local first = a:produce("stream")
    assert(first:when():online(5))
    fails("timeout", consumer:when():online(0.02))
    local second = b:produce("stream")
    assert(consumer:when():online(2))
    assert(second:close(2))
    assert(consumer:when():offline(2))
  end)

  it("tells of each producer what came from it", function()
    local a, b = support.nodes("tcp", { tags = { "far" } })
    local far, near = a:produce("stream"), b:produce("stream")
    local consumer = b:consume("stream", { online_when = 2 })
    assert(consumer:when():online(5))
    assert(far:send("12345", 5))
    assert(far:send("1234567", 5))
    assert(near:send("123456", 5))
    support.take(consumer, 3)
    local by_url = {}
    for _, each in ipairs(consumer:producers()) do
      by_url[each.url == "local" and "near" or "far"] = each
    end
    assert.same({ 2, 12, "open", a.as_peer.id }, {
      by_url.far.messages,
      by_url.far.bytes,
      by_url.far.state,
      by_url.far.peer,
    })
    assert.is_true(by_url.far.tags.far)
    assert.same({ 1, 6, "open" }, { by_url.near.messages, by_url.near.bytes, by_url.near.state })
    local stats = consumer:stats()
    assert.same({ 3, 18, 2, 0 }, { stats.messages, stats.bytes, stats.producers, stats.queued })
    assert.is_true(stats.credit > 0 and stats.uptime > 0)
  end)

  it("passes the word on when a select that it woke took something else", function()
    local producer, consumer = support.stream("local")
    local channel = weir.channel(2)
    local results = {}
    for i = 1, 20 do
      local selecting = weir.spawn(weir.select, { consumer, channel, timeout = 5 })
      local receiving = weir.spawn(consumer.recv, consumer, 5)
      weir.sleep(0)
      assert(producer:send("message " .. i))
      assert(channel:try_send("from the channel"))
      local place, value = selecting:join(5)
      if place == 2 then
        assert.equal("message " .. i, receiving:join(1))
        results.passed = true
      else
        assert.equal("message " .. i, value)
        receiving:cancel()
        fails("cancelled", receiving:join(1))
        assert(channel:try_recv())
      end
    end
    assert.is_true(results.passed)
  end)

  it("passes the word on when the task that it woke is cancelled", function()
    local producer, consumer = support.stream("local")
    local first = weir.spawn(consumer.recv, consumer, 5)
    local second = weir.spawn(consumer.recv, consumer, 5)
    weir.sleep(0)
    first:cancel()
    assert(producer:send("one"))
    fails("cancelled", first:join(1))
    assert.equal("one", second:join(1))
  end)
end)

describe("select", function()
  it("waits for consumers, channels and a timeout together", function()
    local a, b = support.nodes("tcp")
    local red, blue = a:produce("red"), a:produce("blue")
    local red_consumer = assert(b:consumer("red", nil, 5))
    local blue_consumer = assert(b:consumer("blue", { codec = "raw" }, 5))
    local channel = weir.channel(1)
    local cases = { red_consumer, blue_consumer, channel, timeout = 5 }
    assert(blue:send("blue", 5))
    local place, value, meta = weir.select(cases)
    assert.same({ 2, "blue", 0 }, { place, value, meta.sequence })
    assert(red:send("red", 5))
    place, value = weir.select(cases)
    assert.same({ 1, "red" }, { place, value })
  end)

  it("says which case was ready, and times out", function()
    local producer, consumer = support.stream("local")
    local channel = weir.channel(1)
    fails("timeout", weir.select({ consumer, channel, timeout = 0.01 }))
    channel:send("c")
    assert.same({ 2, "c" }, { weir.select({ consumer, channel, timeout = 1 }) })
    weir.spawn(function()
      assert(producer:send("p"))
    end)
    local place, value = weir.select({ consumer, channel, timeout = 1 })
    assert.same({ 1, "p" }, { place, value })
    consumer:close()
    local at, nothing, err = weir.select({ consumer, timeout = 1 })
    assert.equal(1, at)
    fails("closed", nothing, err)
  end)
end)
