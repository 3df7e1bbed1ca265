local support = require("spec.lua.streams.support")
local it = support.tests(it)
local raises = support.raises

local both = {
  { { bufer = {} }, "unknown option 'bufer'; known are: .*buffer, codec" },
  { { buffer = 5 }, "option 'buffer' must be a table, not a number" },
  { { buffer = { mesages = 1 } }, "unknown option 'buffer.mesages'; known are: bytes, messages" },
  { { buffer = { messages = "5" } }, "option 'buffer.messages' must be a number, not a string" },
  { { buffer = { messages = 0 } }, "option 'buffer.messages' must be a whole number from 1" },
  { { buffer = { messages = 1.5 } }, "'buffer.messages' must be a whole number" },
  { { buffer = { messages = 2 ^ 31 } }, "from 1 to 2^31 %- 1" },
  { { buffer = { bytes = "much" } }, "'buffer.bytes': \"much\" is not a size: use bytes, or a string" },
  { { buffer = { bytes = 0 } }, "it must be at least 1 byte" },
  { { buffer = { bytes = {} } }, "is not a size" },
  { { max_message = "0 B" }, "'max_message': .*it must be at least 1 byte" },
  { { max_message = true }, "option 'max_message' must be a number or a string, not a boolean" },
  { { codec = "jsn" }, "unknown codec 'jsn', did you mean 'json'" },
  { { codec = {} }, "needs a function 'encode'" },
  { { codec = 5 }, "option 'codec' must be a string or a table" },
  { { schema = "" }, "option 'schema' must have 1 to 64 bytes, not 0" },
  { { schema = ("x"):rep(65) }, "option 'schema' must have 1 to 64 bytes, not 65" },
  { { require = "tag" }, "option 'require' must be a function" },
  { { online_when = -1 }, "option 'online_when' must be a whole number from 0" },
  { 5, "options must be a table, not number" },
}

local of_producer = {
  { { lag = "drop" }, "option 'lag' must be \"disconnect\" or \"block\", not \"drop\"" },
  { { lag_grace = 0 }, "option 'lag_grace' must be a number of seconds, more than 0" },
  { { max_consumers = -1 }, "option 'max_consumers' must be a whole number from 0" },
  { { token = "x" }, "unknown option 'token'" },
}

local of_consumer = {
  { { criteria = ("x"):rep(8193) }, "option 'criteria' must have 1 to 8192 bytes, not 8193" },
  { { token = ("x"):rep(4097) }, "option 'token' must have 1 to 4096 bytes" },
  { { backoff = { initial = -1 } }, "initial" },
  { { backoff = { initial = 5, max = 1 } }, "backoff" },
  { { backoff = 5 }, "option 'backoff' must be a table" },
  { { lag = "block" }, "unknown option 'lag'" },
}

local function check(cases, methods, what)
  local node = support.network()
  for _, case in ipairs(cases) do
    for _, method in ipairs(methods) do
      local text = raises(function()
        node[method](node, "stream", case[1])
      end)
      assert.matches(case[2], text)
      assert.matches("options_spec.lua:%d+: " .. what .. " of 'stream': ", text)
      local stats = node:stats()
      assert.same({ 0, 0 }, { stats.producers, stats.consumers })
    end
  end
end

describe("a wrong option", function()
  it("of a producer raises, blames the caller and leaves nothing behind", function()
    check(both, { "produce", "producer" }, "producer")
    check(of_producer, { "produce", "producer" }, "producer")
  end)

  it("of a consumer raises, blames the caller and leaves nothing behind", function()
    check(both, { "consume", "consumer" }, "consumer")
    check(of_consumer, { "consume", "consumer" }, "consumer")
  end)
end)

describe("timeouts", function()
  it("must be numbers of seconds", function()
    local producer, consumer, a = support.stream("local", { buffer = { messages = 1 }, lag = "block" })
    assert(producer:send("x"))
    for _, bad in ipairs({ -1, "1", {} }) do
      assert.matches("a timeout must be a number of seconds", raises(producer.send, producer, "x", bad))
      assert.matches("a timeout must be a number of seconds", raises(producer.flush, producer, bad))
      assert.matches("a timeout must be a number of seconds", raises(a.wait_connected, a, 1, bad))
      assert.matches("a timeout must be a number of seconds", raises(a.close, a, bad))
    end
    assert.equal("x", consumer:recv())
    assert.matches("a timeout must be a number of seconds", raises(consumer.recv, consumer, -1))
  end)
end)
