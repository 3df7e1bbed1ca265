local weir = require("weir")
local support = require("spec.lua.streams.support")
local it = support.tests(it)
local fails = support.fails

for _, transport in ipairs({ "local", "mem", "tcp" }) do
  describe("consumer:recv_many (" .. transport .. ")", function()
    it("takes everything once and in order, never more than asked for", function()
      local producer, consumer = support.stream(transport)
      local sender = weir.spawn(function()
        for i = 1, 3000 do
          assert(producer:send(tostring(i), 5))
        end
      end)
      local count = 0
      while count < 3000 do
        local values, metas = assert(consumer:recv_many(100, 5))
        assert.is_true(#values >= 1 and #values <= 100)
        assert.equal(#values, #metas)
        for i, value in ipairs(values) do
          count = count + 1
          assert.equal(tostring(count), value)
          assert.equal(count - 1, metas[i].sequence)
        end
        assert.is_nil(metas[0])
        assert.is_nil(metas[#metas + 1])
        assert.is_nil(metas.sequence)
      end
      sender:join()
      assert.is_true(producer:flush(5))
      assert.equal(3000, consumer:stats().messages)
    end)

    it("gives the credit of what it took back", function()
      local producer, consumer = support.stream(transport, { lag = "block", buffer = { messages = 4 } }, {
        buffer = { messages = 4 },
      })
      local sender = weir.spawn(function()
        for i = 1, 200 do
          assert(producer:send(tostring(i), 5))
        end
      end)
      local count = 0
      while count < 200 do
        count = count + #assert(consumer:recv_many(1000, 5))
      end
      sender:join()
      assert.equal(200, count)
    end)
  end)
end

describe("consumer:recv_many", function()
  it("decodes, and says which messages the codec cannot read", function()
    local node = support.network()
    local producer = node:produce("stream")
    local consumer = node:consume("stream", {
      codec = {
        name = "raw",
        encode = function(value)
          return value
        end,
        decode = function(bytes)
          if bytes == "bad" then
            error("cannot read it")
          end
          return bytes:upper()
        end,
      },
    })
    assert(producer:when():online(5))
    for _, text in ipairs({ "a", "bad", "c" }) do
      assert(producer:send(text))
    end
    local values, metas, failed = assert(consumer:recv_many(10, 5))
    assert.same({ "A", false, "C" }, values)
    assert.equal(3, #metas)
    assert.equal("decode", failed[2].code)
    assert.equal("bad", failed[2].raw)
    assert.equal(1, failed[2].meta.sequence)
    assert.is_nil(failed[1])
  end)

  it("times out, and ends when the consumer is closed", function()
    local _, consumer = support.stream("local")
    fails("timeout", consumer:recv_many(10, 0.01))
    local waiting = weir.spawn(consumer.recv_many, consumer)
    weir.sleep(0.01)
    consumer:close()
    fails("closed", waiting:join(5))
    fails("closed", consumer:recv_many())
  end)

  it("lets the others have what it left", function()
    local producer, consumer = support.stream("local")
    local taken = {}
    for i = 1, 3 do
      taken[i] = weir.spawn(function()
        return assert(consumer:recv_many(1, 5))[1]
      end)
    end
    weir.sleep(0.01)
    for i = 1, 3 do
      assert(producer:send(tostring(i)))
    end
    local seen = {}
    for i = 1, 3 do
      seen[i] = taken[i]:join(5)
    end
    table.sort(seen)
    assert.same({ "1", "2", "3" }, seen)
  end)

  it("refuses numbers that make no sense", function()
    local _, consumer = support.stream("local")
    for _, wrong in ipairs({ 0, -1, 1.5, "2", 0 / 0 }) do
      assert.has_error(function()
        consumer:recv_many(wrong)
      end)
    end
  end)
end)
