local weir = require("weir")
local support = require("spec.lua.streams.support")
local it = support.tests(it)
local fails, eventually = support.fails, support.eventually

-- Takes everything as it comes; `reader.count` and `reader.last` tell how far it is.
local function read_all(consumer)
  local reader = { count = 0, last = -1 }
  reader.task = weir.spawn(function()
    for value, meta in consumer:each() do
      assert(meta.sequence > reader.last, "messages are out of order")
      assert(value == tostring(meta.sequence), "this is another message")
      reader.count, reader.last = reader.count + 1, meta.sequence
    end
  end)
  return reader
end

for _, place in ipairs(support.places) do
  describe("the lag policy disconnect (" .. place .. ")", function()
    it("closes a consumer that holds up a full buffer with 10413, and the others get everything", function()
      local a, b = support.nodes(place)
      local producer = a:produce("stream", { buffer = { messages = 64 }, lag_grace = 0.05 })
      local readers = {}
      for i = 1, 3 do
        local node = i == 1 and a or b
        readers[i] = read_all(assert(node:consumer("stream", { buffer = { messages = 32 } }, 5)))
      end
      local stalled = assert(b:consumer("stream", { buffer = { messages = 32 }, backoff = support.quick }, 5))
      eventually(function()
        return producer:stats().consumers == 4
      end)
      for i = 0, 1999 do
        assert(producer:send(tostring(i), 5))
      end
      for _, reader in ipairs(readers) do
        eventually(function()
          return reader.count == 2000
        end)
      end
      assert.equal(1, producer:stats().evicted)
      eventually(function()
        local source = stalled:producers()[1]
        return source.closed and source.closed.status == 10413 and source.closed.code == "too_slow"
      end)
      assert.equal(3, producer:stats().consumers)

      -- What it still holds is there to be taken; then it comes back, and what it missed is counted.
      local held = place == "local" and 0 or 32
      assert.equal(held, stalled:stats().queued)
      for i = 0, held - 1 do
        local value = assert(stalled:recv(1))
        assert.equal(tostring(i), value)
      end
      fails("empty", stalled:try_recv())
      eventually(function()
        return producer:stats().consumers == 4
      end)
      assert(producer:send("2000", 5))
      local value, meta = stalled:recv(5)
      assert.equal("2000", value)
      assert.equal(2000, meta.sequence)
      local stats = stalled:stats()
      assert.equal(2000 - held, stats.dropped)
      assert.equal(1, stats.gaps)
      assert.equal(held + 1, stats.messages)
    end)

    it("waits for lag_grace, whether or not somebody goes on sending", function()
      local producer, consumer =
        support.stream(place, { buffer = { messages = 4 }, lag_grace = 0.1 }, { buffer = { messages = 4 } })
      local started
      while producer:try_send("x") do
        weir.sleep(0)
      end
      started = weir.now()
      eventually(function()
        return producer:stats().evicted == 1
      end, 2)
      local took = weir.now() - started
      assert.is_true(took > 0.05 and took < 1, ("evicted after %.3f s"):format(took))
      assert.truthy(consumer)
    end)

    it("spares a consumer that reads again in time", function()
      local producer, consumer =
        support.stream(place, { buffer = { messages = 16 }, lag_grace = 5 }, { buffer = { messages = 16 } })
      local reader
      for i = 0, 999 do
        if not producer:try_send(tostring(i)) then
          reader = reader or read_all(consumer)
          assert(producer:send(tostring(i), 5))
        end
      end
      eventually(function()
        return reader.count == 1000
      end)
      assert.equal(0, producer:stats().evicted)
      assert.equal(0, consumer:stats().dropped)
    end)
  end)
end

describe("an evicted consumer", function()
  it("of the same node comes back only when its application looks for messages again", function()
    local node = support.network()
    local producer = node:produce("stream", { buffer = { messages = 8 }, lag_grace = 0.01 })
    local stalled = node:consume("stream", { backoff = { initial = 0.001, max = 0.001 } })
    local reader = read_all(node:consume("stream"))
    for i = 0, 499 do
      assert(producer:send(tostring(i), 5))
    end
    eventually(function()
      return reader.count == 500
    end)
    assert.equal(1, producer:stats().evicted)
    assert.equal("behind", stalled:producers()[1].state)
    local received = weir.spawn(stalled.recv, stalled, 5)
    weir.sleep(0)
    assert.equal("open", stalled:producers()[1].state)
    assert(producer:send("500"))
    assert.equal("500", received:join(5))
    assert.equal(500, stalled:stats().dropped)
  end)

  it("comes back only when its application has taken what it holds", function()
    local producer, consumer, _, b = support.stream(
      "tcp",
      { buffer = { messages = 8 }, lag_grace = 0.02 },
      { buffer = { messages = 8 }, backoff = { initial = 0.01, max = 0.01 } }
    )
    local function overrun()
      local evicted = producer:stats().evicted
      repeat
        producer:try_send("x")
        weir.sleep(0.001)
      until producer:stats().evicted > evicted
    end
    overrun()
    eventually(function()
      return consumer:producers()[1].state == "draining"
    end)
    weir.sleep(0.05)
    assert.equal("draining", consumer:producers()[1].state)
    assert.equal(8, consumer:stats().queued)
    assert.equal(0, producer:stats().consumers)
    assert.equal(1, #consumer.core:inlets())
    support.take(consumer, 8)
    eventually(function()
      return consumer:producers()[1].state == "open"
    end)
    assert.truthy(b)
  end)

  it("is subscribed again also when it began to wait as it was evicted", function()
    local producer, consumer = support.stream(
      "local",
      { buffer = { messages = 4 }, lag_grace = 0.001 },
      { buffer = { messages = 4 }, backoff = { initial = 0.001, max = 0.002 } }
    )
    local reading = weir.spawn(function()
      while select(2, consumer:recv()).code ~= "closed" do
        weir.sleep(0.0005 + producer:stats().evicted % 10 * 0.0001)
      end
    end)
    local deadline = weir.now() + 10
    while producer:stats().evicted < 200 do
      producer:send("x", 0.1)
      assert(weir.now() < deadline, "it is not subscribed any more")
    end
    consumer:close()
    reading:join(1)
  end)

  it("accounts for every message, however often it is evicted", function()
    for _, place in ipairs(support.places) do
      local producer, consumer = support.stream(
        place,
        { buffer = { messages = 16 }, lag_grace = 0.001 },
        { buffer = { messages = 16 }, backoff = { initial = 0.001, max = 0.002 } }
      )
      local reader = { count = 0, last = -1 }
      local reading = weir.spawn(function()
        while true do
          local _, meta = consumer:recv()
          if meta.code == "closed" then
            return
          end
          assert(meta.sequence > reader.last)
          reader.count, reader.last = reader.count + 1, meta.sequence
          if reader.count % 40 == 0 then
            weir.sleep(0.01)
          end
        end
      end)
      local sent = 0
      local deadline = weir.now() + 0.5
      while weir.now() < deadline or producer:stats().evicted == 0 do
        if producer:send("x", 1) then
          sent = sent + 1
        end
        assert(weir.now() < deadline + 5, "nobody was evicted")
      end
      -- Messages that were sent while nobody was there count as dropped on this side alone.
      assert(producer:when():online(5))
      assert(producer:send("last", 5))
      local last = producer:stats().next_sequence - 1
      -- It may be evicted once more and miss the last of them, too.
      local stats
      eventually(function()
        stats = consumer:stats()
        return stats.messages + stats.dropped == last + 1
      end)
      assert.is_true(stats.dropped > 0 and stats.gaps > 0)
      assert.is_true(sent > 0)
      consumer:close()
      reading:join(1)
      support.cleanup()
    end
  end)
end)

describe("the lag policy block", function()
  it("evicts nobody", function()
    for _, place in ipairs(support.places) do
      local buffer = { messages = 4 }
      local producer, consumer =
        support.stream(place, { lag = "block", lag_grace = 0.01, buffer = buffer }, { buffer = buffer })
      while producer:send("x", 0.05) do -- luacheck: ignore 542
      end
      assert.equal(0, producer:stats().evicted)
      local held = place == "local" and 4 or 8
      support.take(consumer, held)
      fails("empty", consumer:try_recv())
      support.cleanup()
    end
  end)
end)
