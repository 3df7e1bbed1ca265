local weir = require("weir")
local support = require("spec.lua.streams.support")
local it = support.tests(it)
local eventually = support.eventually

for _, place in ipairs(support.places) do
  describe("stats (" .. place .. ")", function()
    it("begin at 0 and count messages and bytes of payload", function()
      local producer, consumer = support.stream(place)
      local before, there = producer:stats(), consumer:stats()
      for _, name in ipairs({ "messages", "bytes", "queued", "queued_bytes", "dropped", "evicted", "next_sequence" }) do
        assert.equal(0, before[name], name)
      end
      for _, name in ipairs({ "messages", "bytes", "queued", "dropped", "gaps" }) do
        assert.equal(0, there[name], name)
      end
      assert.equal(1, before.consumers)
      assert.equal(1, there.producers)
      for _, text in ipairs({ "12345", "", "123456" }) do
        assert(producer:send(text, 5))
      end
      eventually(function()
        return consumer:stats().queued == 3
      end)
      assert.equal(0, consumer:stats().messages)
      support.take(consumer, 3)
      assert(producer:flush(5))
      local after = producer:stats()
      assert.same({ 3, 11, 3 }, { after.messages, after.bytes, after.next_sequence })
      assert.same({ 0, 0 }, { after.queued, after.queued_bytes })
      there = consumer:stats()
      assert.same({ 3, 11, 0 }, { there.messages, there.bytes, there.queued })
      local subscriber, source = producer:consumers()[1], consumer:producers()[1]
      assert.same({ 3, 11, 0, 0 }, {
        subscriber.messages,
        subscriber.bytes,
        subscriber.queued,
        subscriber.unacknowledged,
      })
      assert.same({ 3, 11, 0, 0, 0 }, { source.messages, source.bytes, source.queued, source.missed, source.gaps })
    end)

    it("tell the credit that is left, the round-trip time and the time of connection", function()
      local producer, consumer, a, b = support.stream(place, nil, { buffer = { bytes = 100000 } })
      local remote = place ~= "local"
      assert.equal(remote and 100000 or nil, producer:stats().credit)
      assert.equal(remote and 100000 or nil, consumer:stats().credit)
      assert(producer:send(("x"):rep(968), 5))
      eventually(function()
        return consumer:stats().queued == 1
      end)
      assert.equal(remote and 99000 or nil, producer:stats().credit)
      assert.equal(remote and 99000 or nil, consumer:stats().credit)
      assert.equal(remote and 99000 or nil, producer:consumers()[1].credit)
      if remote then
        eventually(function()
          return producer:stats().rtt and consumer:stats().rtt
        end)
        assert.is_true(producer:stats().rtt < 1)
        assert.is_true(producer:consumers()[1].rtt > 0)
        assert.is_true(consumer:producers()[1].rtt > 0)
      end
      local first = consumer:producers()[1].uptime
      weir.sleep(0.005)
      assert.is_true(consumer:producers()[1].uptime - first >= 0.004)
      assert.is_true(producer:consumers()[1].uptime > 0)
      assert.is_true(producer:stats().uptime > producer:consumers()[1].uptime - 0.1)
      assert.equal(b.as_peer.id, producer:consumers()[1].peer)
      assert.equal(a.as_peer.id, consumer:producers()[1].peer)
      if not remote then
        assert.equal("local", producer:consumers()[1].url)
      end
    end)
  end)
end

describe("stats of a producer", function()
  it("count what was sent while nobody was there", function()
    local node = support.network()
    local producer = node:produce("stream", { online_when = 0 })
    for _ = 1, 5 do
      assert(producer:send("nobody"))
    end
    local stats = producer:stats()
    assert.same({ 0, 5, 5 }, { stats.messages, stats.dropped, stats.next_sequence })
    local consumer = node:consume("stream")
    assert(producer:send("somebody"))
    local _, meta = consumer:recv(1)
    assert.equal(5, meta.sequence)
    assert.equal(0, consumer:stats().dropped)
  end)

  it("are plain tables that may be kept and changed", function()
    local producer, consumer, a = support.stream("local")
    for _, handle in ipairs({ producer, consumer, a }) do
      local stats = handle:stats()
      assert.is_nil(getmetatable(stats))
      stats.messages = "mine"
      assert.are_not.equal("mine", handle:stats().messages)
    end
  end)
end)
