local weir = require("weir")
local codec = require("weir.codec")
local support = require("spec.lua.streams.support")
local it = support.tests(it)
local fails = support.fails

local pairs_codec = {
  name = "pairs",
  encode = function(value)
    return value.key .. "=" .. value.value
  end,
  decode = function(bytes)
    local key, value = bytes:match("^(%w+)=(%w+)$")
    if not key then
      return nil, "no pair"
    end
    return { key = key, value = value:upper() }
  end,
}

for _, place in ipairs(support.places) do
  describe("codecs (" .. place .. ")", function()
    it("carry values: json", function()
      local producer, consumer = support.stream(place, { codec = "json" }, { codec = "json" })
      for _, value in ipairs({ { a = 1, b = { "x", true } }, "text", 5, true, false, codec.null }) do
        assert(producer:send(value, 5))
        local got, meta = consumer:recv(5)
        assert.same(value, got)
        assert.matches("weir.meta", tostring(meta))
      end
    end)

    it("carry values: msgpack", function()
      local producer, consumer = support.stream(place, { codec = "msgpack" }, { codec = "msgpack" })
      for _, value in ipairs({ { a = 2 ^ 40 | 0, b = { "x\0\255", 1.5 } }, math.maxinteger, "" }) do
        assert(producer:send(value, 5))
        assert.same(value, (consumer:recv(5)))
      end
    end)

    it("may be one's own, and may transform", function()
      local producer, consumer = support.stream(place, { codec = pairs_codec }, { codec = pairs_codec })
      assert(producer:send({ key = "k", value = "v" }, 5))
      assert.same({ key = "k", value = "V" }, (consumer:recv(5)))
    end)

    it("fail to the caller of send, and nothing is sent", function()
      for _, each in ipairs({ { "json", print }, { "msgpack", print }, { pairs_codec, 5 }, { "raw", {} } }) do
        local producer, consumer = support.stream(place, { codec = each[1] }, { codec = each[1] })
        local err = fails("encode", producer:send(each[2], 5))
        assert.equal("stream", err.stream)
        err = fails("encode", producer:try_send(each[2]))
        assert.equal(each[2], err.value)
        assert.equal(0, producer:stats().messages)
        assert.equal(0, producer:stats().next_sequence)
        fails("empty", consumer:try_recv())
        support.cleanup()
      end
    end)

    it("hand on what cannot be decoded with its bytes, and the stream goes on", function()
      local lies = { name = "json", encode = tostring, decode = tostring }
      local producer, consumer = support.stream(place, { codec = lies }, { codec = "json" })
      assert(producer:send("{not json", 5))
      assert(producer:send('{"ok":1}', 5))
      local err = fails("decode", consumer:recv(5))
      assert.equal("{not json", err.raw)
      assert.equal("stream", err.stream)
      assert.equal(0, err.meta.sequence)
      local value, meta = consumer:recv(5)
      assert.same({ ok = 1 }, value)
      assert.equal(1, meta.sequence)
      assert(producer:flush(5))
      assert.equal(2, consumer:stats().messages)
    end)

    it("let each() go on behind what cannot be decoded", function()
      local lies = { name = "json", encode = tostring, decode = tostring }
      local producer, consumer = support.stream(place, { codec = lies }, { codec = "json" })
      for _, text in ipairs({ "1", "]", "2" }) do
        assert(producer:send(text, 5))
      end
      local got = {}
      for value, meta in consumer:each() do
        got[#got + 1] = value or meta.raw
        if #got == 3 then
          consumer:close()
        end
      end
      assert.same({ 1, "]", 2 }, got)
      local again = support.stream(place, nil, nil)
      assert.truthy(again)
    end)

    it("must be the same on both sides: 10415", function()
      local a, b = support.nodes(place)
      a:produce("stream", { codec = "json" })
      local err = fails("wrong_codec", b:consumer("stream", { codec = "msgpack" }, 5))
      assert.equal(10415, err.status)
      assert.matches('"json"', err.message)
      assert.matches('"msgpack"', err.message)
      fails("wrong_codec", b:consumer("stream", nil, 5))
      assert(b:consumer("stream", { codec = "json" }, 5))
    end)

    it("go with a schema, which must be the same where both name one", function()
      local a, b = support.nodes(place)
      a:produce("typed", { schema = "order/2" })
      a:produce("untyped")
      local err = fails("wrong_codec", b:consumer("typed", { schema = "order/1" }, 5))
      assert.equal(10415, err.status)
      assert.matches('schema is "order/2", the consumer\'s "order/1"', err.message)
      assert(b:consumer("typed", { schema = "order/2" }, 5))
      assert(b:consumer("typed", nil, 5))
      assert(b:consumer("untyped", { schema = "order/1" }, 5))
    end)
  end)
end

describe("each", function()
  it("takes raw messages until the consumer is closed", function()
    local producer, consumer = support.stream("tcp")
    weir.spawn(function()
      for i = 1, 1000 do
        assert(producer:send(i .. "", 5))
      end
      assert(producer:flush(5))
      consumer:close()
    end)
    local count = 0
    for value, meta in consumer:each() do
      count = count + 1
      assert.equal(count .. "", value)
      assert.equal(count - 1, meta.sequence)
    end
    assert.equal(1000, count)
  end)

  it("raises when its task is cancelled", function()
    for _, opts in ipairs({ { codec = "raw" }, { codec = "json" } }) do
      local _, consumer = support.stream("local", opts, opts)
      local task = weir.spawn(function()
        for _ in consumer:each() do
          error("nothing was sent")
        end
        return "over"
      end)
      weir.sleep(0)
      task:cancel()
      fails("cancelled", task:join(1))
      support.cleanup()
    end
  end)
end)
