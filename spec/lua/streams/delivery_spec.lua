local weir = require("weir")
local support = require("spec.lua.streams.support")
local it = support.tests(it)
local fails, eventually = support.fails, support.eventually

local function numbers(from, to)
  local list = {}
  for i = from, to do
    list[#list + 1] = tostring(i)
  end
  return list
end

for _, place in ipairs(support.places) do
  describe("a stream (" .. place .. ")", function()
    it("brings every message to every consumer, in order and once", function()
      local producer, first, a, b = support.stream(place)
      local second = assert(b:consumer("stream", nil, 5))
      local third = assert(a:consumer("stream", nil, 5))
      assert(producer:when():online(5))
      eventually(function()
        return producer:stats().consumers == 3
      end)
      weir.group(function(group)
        for _, consumer in ipairs({ first, second, third }) do
          group:spawn(function()
            assert.same(numbers(1, 500), support.take(consumer, 500))
          end)
        end
        for i = 1, 500 do
          assert(producer:send(tostring(i), 5))
        end
      end)
      assert(producer:flush(5))
      for _, consumer in ipairs({ first, second, third }) do
        assert.equal(500, consumer:stats().messages)
        support.silent(consumer)
      end
    end)

    it("passes any bytes on unchanged, up to max_message", function()
      local producer, consumer = support.stream(place, { max_message = "2 MiB" }, { max_message = "2 MiB" })
      local all = {}
      for i = 0, 255 do
        all[#all + 1] = string.char(i)
      end
      local bytes = table.concat(all)
      for _, message in ipairs({ "", "\0", bytes, bytes:rep(1000), ("x"):rep(2 * 1024 * 1024) }) do
        assert(producer:send(message, 5))
        local got = assert(consumer:recv(5))
        assert.is_true(got == message)
      end
      local err = fails("too_large", producer:send(("x"):rep(2 * 1024 * 1024 + 1)))
      assert.matches("max_message", err.message)
      assert.equal(2 * 1024 * 1024 + 1, err.size)
      assert(producer:send("next", 5))
      assert.equal("next", consumer:recv(5))
    end)

    it("says of each message where it is from, its place and its time", function()
      local producer, consumer, a = support.stream(place)
      local before = os.time()
      for i = 0, 2 do
        assert(producer:send("m", 5))
        local _, meta = consumer:recv(5)
        assert.equal(i, meta.sequence)
        assert.equal(producer:stats().epoch, meta.epoch)
        assert.equal(a.as_peer.id, meta.producer)
        assert.is_true(meta.time >= before - 1 and meta.time < before + 60)
        assert.is_nil(meta.nothing)
        assert.matches("sequence=" .. i, tostring(meta))
      end
    end)

    it("keeps streams of one node apart", function()
      local a, b = support.nodes(place)
      local red, blue = a:produce("red"), a:produce("blue")
      local red_consumer = assert(b:consumer("red", nil, 5))
      local blue_consumer = assert(b:consumer("blue", nil, 5))
      assert(red:when():online(5))
      assert(blue:when():online(5))
      for i = 1, 50 do
        assert(red:send("red" .. i))
        assert(blue:send("blue" .. i))
      end
      for i = 1, 50 do
        assert.equal("red" .. i, red_consumer:recv(5))
        assert.equal("blue" .. i, blue_consumer:recv(5))
      end
      support.silent(red_consumer)
      support.silent(blue_consumer)
    end)

    it("finds a producer that is made after the consumer", function()
      local a, b = support.nodes(place)
      local consumer = b:consume("later", { online_when = 1 })
      assert.is_false(consumer:is_online())
      fails("timeout", consumer:recv(0.02))
      local producer = a:produce("later")
      assert(producer:send("here", 2))
      assert.equal("here", consumer:recv(2))
      assert.is_true(consumer:is_online())
    end)

    it("goes on with a new producer after the one before was closed", function()
      local producer, consumer, a = support.stream(place)
      for round = 1, 5 do
        assert(producer:send("round " .. round, 5))
        assert.equal("round " .. round, consumer:recv(5))
        assert(producer:close(5))
        producer = a:produce("stream")
      end
      assert(producer:send("last", 5))
      assert.equal("last", consumer:recv(5))
      assert.equal(0, consumer:stats().dropped)
    end)

    it("merges what several producers send", function()
      local a, b = support.nodes(place)
      local c = support.network({ listen = support.address("mem") })
      local d = support.network({ peers = c:addresses()[1] })
      assert(d:wait_connected(1, 5))
      local here, there = b:produce("stream"), a:produce("stream")
      local other = c:produce("stream")
      local consumer = b:consume("stream")
      assert(here:send("here", 5))
      assert(there:send("there", 5))
      local got = support.take(consumer, 2)
      table.sort(got)
      assert.same({ "here", "there" }, got)
      local from_c = assert(d:consumer("stream", nil, 5))
      assert(other:send("other", 5))
      assert.equal("other", from_c:recv(5))
      support.silent(consumer)
    end)

    it("gives the consumers all that was sent before a close, and the reason", function()
      local producer, consumer = support.stream(place)
      local slow = weir.spawn(function()
        weir.sleep(0.02)
        return support.take(consumer, 300)
      end)
      for i = 1, 300 do
        assert(producer:send(tostring(i), 5))
      end
      assert.is_true(producer:close(5))
      assert.same(numbers(1, 300), slow:join(5))
      local closed = eventually(function()
        local source = consumer:producers()[1]
        return source and source.closed
      end)
      assert.equal(204, closed.status)
      assert.equal("shutdown", closed.code)
      assert.equal(0, consumer:stats().dropped)
      fails("closed", producer:send("more"))
      fails("closed", producer:try_send("more"))
      assert.is_true(producer:close())
      assert.matches("closed", tostring(producer))
    end)
  end)
end

describe("a consumer of several producers", function()
  it("takes from each in turn: a busy one does not hide a quiet one", function()
    local node = support.network({ listen = support.address("mem") })
    local other = support.network({ peers = node:addresses() })
    assert(other:wait_connected(1, 5))
    local busy, quiet = node:produce("stream"), other:produce("stream")
    local consumer = node:consume("stream")
    assert(busy:when():online(5))
    assert(quiet:when():online(5))
    for i = 1, 1000 do
      assert(busy:send("busy" .. i))
    end
    assert(quiet:send("quiet"))
    eventually(function()
      return consumer:stats().queued == 1001
    end)
    local at
    for i, value in ipairs(support.take(consumer, 1001)) do
      at = value == "quiet" and i or at
    end
    assert.is_true(at < 200)
  end)
end)
