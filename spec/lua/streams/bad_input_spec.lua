local core = require("weir.core")
local weir = require("weir")
local runtime = require("weir.runtime")
local support = require("spec.lua.streams.support")
local wire = require("spec.lua.streams.wire")
local it = support.tests(it)
local eventually = support.eventually

local NETWORK = core.stream_id("weir")

-- Bytes of memory in use by this process.
local function memory()
  collectgarbage()
  for line in io.lines("/proc/self/status") do
    local kib = line:match("^VmRSS:%s*(%d+)")
    if kib then
      return tonumber(kib) * 1024
    end
  end
end

-- A node with a stream between it and another node, which must not be disturbed.
local function victim(opts)
  opts = opts or {}
  opts.listen = support.address("tcp")
  opts.handshake_timeout = opts.handshake_timeout or 5
  local node = support.network(opts)
  local friend = support.network({ peers = node:addresses() })
  local producer = node:produce("good")
  local consumer = assert(friend:consumer("good", nil, 5))
  local self = { node = node, url = node:addresses()[1], sent = 0 }
  function self.check()
    for _ = 1, 10 do
      self.sent = self.sent + 1
      assert(producer:send(tostring(self.sent), 5))
      assert.equal(tostring(self.sent), consumer:recv(5))
    end
    assert.equal(0, consumer:stats().dropped)
    assert.equal(1, consumer:stats().producers)
  end
  self.check()
  return self
end

-- Says hello by hand; returns the raw connection.
local function greet(target)
  local raw = support.raw(target.url)
  raw:write(wire.data(1, 1, wire.hello(NETWORK, runtime.random(32))))
  eventually(function()
    return #raw.received > 24 and target.node:stats().connected == 2
  end)
  return raw
end

local hello = wire.hello(NETWORK, ("n"):rep(32))

-- What is said, and the code with which the node then refuses.
local refused = {
  ["random bytes"] = { ("\x9c\x1f\xe3\x07"):rep(50), "protocol" },
  ["an HTTP request"] = { "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "protocol" },
  ["a TLS handshake"] = { "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" .. ("\7"):rep(500), "protocol" },
  ["an unknown yamux frame"] = { wire.yamux(9, 0, 0, 0), "protocol" },
  ["a frame beyond the window of its stream"] = { wire.yamux(0, 1, 1, 0x7fffffff), "protocol" },
  ["a stream with an id of ours"] = { wire.data(1, 2, hello), "protocol" },
  ["something else than hello"] = { wire.data(1, 1, wire.announce(NETWORK)), "protocol" },
  ["a hello without magic"] = { wire.data(1, 1, (hello:gsub("weir", "ware"))), "protocol" },
  ["a hello with a field cut off"] = { wire.data(1, 1, wire.frame(1, hello:sub(9, -10))), "protocol" },
  ["a control frame that is too long"] = { wire.data(1, 1, string.pack(">I4", 0x7fffffff)), "protocol" },
  ["a newer version"] = { wire.data(1, 1, wire.hello(NETWORK, ("n"):rep(32), 7, 9)), "bad_version" },
  ["another network"] = { wire.data(1, 1, wire.hello(("x"):rep(32), ("n"):rep(32))), "wrong_network" },
}

describe("a connection that begins with", function()
  for what, case in pairs(refused) do
    it(what .. " is refused with a reason", function()
      local target = victim()
      local raw = support.raw(target.url)
      raw:write(case[1])
      raw:wait_end(2)
      local stats = target.node:stats()
      assert.equal(1, stats.refused)
      raw:close()
      eventually(function()
        return target.node:stats().inbound == 1
      end)
      assert.equal(case[2], stats.last_refusal.code)
      assert.is_number(stats.last_refusal.status)
      assert.matches("^tcp://127%.0%.0%.1:%d+$", stats.last_refusal.url)
      target.check()
    end)
  end
end)

describe("a connection", function()
  it("that is cut in the middle of the handshake leaves nothing behind", function()
    local target = victim()
    local whole = wire.data(1, 1, hello)
    for _, length in ipairs({ 1, 11, 12, 13, 20, #whole - 1 }) do
      local raw = support.raw(target.url)
      raw:write(whole:sub(1, length))
      eventually(function()
        return target.node:stats().inbound == 2
      end)
      raw:close()
      eventually(function()
        return target.node:stats().inbound == 1
      end)
      assert.equal("disconnected", target.node:stats().last_refusal.code)
      target.check()
    end
  end)

  it("that says nothing, or not enough, is closed after handshake_timeout", function()
    local target = victim({ handshake_timeout = 0.1 })
    for _, said in ipairs({ "", wire.data(1, 1, hello):sub(1, 30) }) do
      local started = weir.now()
      local raw = support.raw(target.url)
      raw:write(said)
      raw:wait_end(2)
      assert.is_true(weir.now() - started >= 0.09)
      assert.equal("timeout", target.node:stats().last_refusal.code)
      assert.equal(104, target.node:stats().last_refusal.status)
      target.check()
    end
  end)

  it("over max_sessions is closed", function()
    local target = victim({ max_sessions = 3 })
    local raws = {}
    for i = 1, 2 do
      raws[i] = support.raw(target.url)
    end
    eventually(function()
      return target.node:stats().inbound == 3
    end)
    local raw = support.raw(target.url)
    raw:wait_end(2)
    assert.equal("limit", target.node:stats().last_refusal.code)
    assert.matches("max_sessions", target.node:stats().last_refusal.message)
    target.check()
    raws[1]:close()
    eventually(function()
      return target.node:stats().inbound == 2
    end)
    raw = support.raw(target.url)
    eventually(function()
      return target.node:stats().inbound == 3
    end)
    assert.is_nil(raw.ended)
  end)
end)

describe("a peer", function()
  it("that opens streams and does not say what it wants loses them after handshake_timeout", function()
    local target = victim({ handshake_timeout = 0.1 })
    local raw = greet(target)
    for id = 3, 99, 2 do
      raw:write(wire.yamux(1, 1, id, 0))
    end
    local before = #raw.received
    eventually(function()
      return #raw.received - before > 49 * 12
    end, 3)
    assert.matches("what it wants in time", raw.received)
    assert.is_nil(raw.ended)
    target.check()
  end)

  it("that floods opens gets resets, not memory", function()
    local target = victim()
    local raw = greet(target)
    local before = memory()
    local parts = {}
    for id = 3, 200001, 2 do
      parts[#parts + 1] = wire.yamux(1, 1, id, 0)
    end
    raw:write(table.concat(parts))
    eventually(function()
      return raw.ended or #raw.received > 99000 * 12
    end, 5)
    target.check()
    if not support.sanitized then
      assert.is_true(memory() - before < 32 * 1024 * 1024)
    end
  end)

  it("that floods pings and does not read is closed", function()
    local target = victim()
    local raw = greet(target)
    raw:stop_reading()
    local before = memory()
    local pings = wire.yamux(2, 1, 0, 7):rep(20000)
    for _ = 1, 100 do
      raw:write(pings)
    end
    eventually(function()
      return target.node:stats().inbound == 1
    end, 10)
    target.check()
    if not support.sanitized then
      assert.is_true(memory() - before < 64 * 1024 * 1024)
    end
  end)

  it("that asks with a malformed request is answered with 400", function()
    local target = victim()
    local raw = greet(target)
    raw:write(wire.data(1, 3, wire.frame(0x10, "nonsense")))

    eventually(function()
      return raw.received:find("malformed request to subscribe", 1, true)
    end)
    raw:write(wire.data(1, 5, wire.subscribe(("x"):rep(32), core.stream_id("good"), "raw", 1000, 10)))
    eventually(function()
      return raw.received:find("names another network", 1, true)
    end)
    raw:write(wire.data(1, 7, wire.subscribe(NETWORK, core.stream_id("nothing"), "raw", 1000, 10)))
    eventually(function()
      return raw.received:find("no such stream", 1, true)
    end)
    raw:write(wire.data(1, 9, wire.subscribe(NETWORK, core.stream_id("good"), "json", 1000, 10)))
    eventually(function()
      return raw.received:find("codec", 1, true)
    end)
    assert.is_nil(raw.ended)
    target.check()
  end)

  it("that asks before its hello is refused", function()
    local target = victim()
    local raw = support.raw(target.url)
    raw:write(wire.data(1, 1, "") .. wire.data(1, 3, wire.subscribe(NETWORK, core.stream_id("good"), "raw", 1000, 10)))
    eventually(function()
      return raw.received:find(string.pack(">I4", 400) .. "malformed", 1, true)
    end)
    target.check()
  end)

  it("that subscribes and stops reading loses its subscription, and nobody else a message", function()
    local target = victim()
    local producer = target.node:produce("big", { lag_grace = 0.05 })
    local friend = support.network({ peers = target.url })
    local consumer = assert(friend:consumer("big", nil, 5))
    local raw = support.raw(target.url)
    local request = wire.subscribe(NETWORK, core.stream_id("big"), "raw", 2 ^ 40 | 0, 2 ^ 40 | 0)
    raw:write(wire.data(1, 1, wire.hello(NETWORK, runtime.random(32))))
    raw:write(wire.yamux(1, 1, 3, 0x7fffff) .. wire.data(0, 3, request))
    eventually(function()
      return producer:stats().consumers == 2
    end)
    raw:stop_reading()
    local message, before = ("x"):rep(10000), memory()
    for i = 1, 5000 do
      assert(producer:send(message, 5))
      local _, meta = consumer:recv(5)
      assert.equal(i - 1, meta.sequence)
    end
    assert.equal(1, producer:stats().evicted)
    assert.equal(1, producer:stats().consumers)
    target.check()
    if not support.sanitized then
      assert.is_true(memory() - before < 48 * 1024 * 1024)
    end
  end)

  it("that acknowledges what it was not sent is closed with 400", function()
    local target = victim()
    local raw = greet(target)
    raw:write(wire.data(1, 3, wire.subscribe(NETWORK, core.stream_id("good"), "raw", 1000, 10)))
    eventually(function()
      return raw.received:find("weir", 100, true)
    end)
    raw:write(wire.data(0, 3, wire.frame(0x15, string.pack(">I8I8I8I8", 1, 10 ^ 15 | 0, 9, 9))))
    eventually(function()
      return raw.received:find("broke the protocol", 1, true)
    end)
    target.check()
  end)
end)

-- A peer that produces "stream" by hand for a consumer of ours; returns it and what START says.
local function rogue_producer(target, opts)
  local id = core.stream_id("stream")
  local consumer = target.node:consume("stream", opts)
  local raw = greet(target)
  raw:write(wire.data(0, 1, wire.announce(id)))
  eventually(function()
    return raw.received:find(id, 1, true)
  end)
  raw:write(wire.yamux(1, 2, 2, 0) .. wire.data(0, 2, wire.start(NETWORK, id, "raw", 5, 0)))
  eventually(function()
    return consumer:stats().producers == 1
  end)
  return raw, consumer
end

local function closed_with(consumer, status)
  local closed = eventually(function()
    local source = consumer:producers()[1]
    return source and source.closed
  end)
  assert.equal(status, closed.status)
  return closed
end

describe("a producer of another make", function()
  it("is understood when it keeps to the protocol", function()
    local target = victim()
    local raw, consumer = rogue_producer(target)
    raw:write(wire.data(0, 2, wire.message(5, 0, "hello") .. wire.message(5, 1, "")))
    assert.equal("hello", consumer:recv(5))
    assert.equal("", consumer:recv(5))
    raw:write(wire.data(0, 2, wire.message(5, 4, "after a gap")))
    assert.equal("after a gap", consumer:recv(5))
    assert.equal(2, consumer:stats().dropped)
  end)

  it("is closed with 400 when it sends more than its credit; what came before is kept", function()
    local target = victim()
    local raw, consumer = rogue_producer(target, { buffer = { messages = 5 } })
    for i = 0, 20 do
      raw:write(wire.data(0, 2, wire.message(5, i, "m" .. i)))
    end
    local closed = closed_with(consumer, 400)
    assert.equal("protocol", closed.code)
    assert.equal(5, consumer:stats().queued)
    assert.same({ "m0", "m1", "m2", "m3", "m4" }, support.take(consumer, 5))
    assert.is_nil(raw.ended)
    target.check()
  end)

  it("is closed with 400 when a message is over max_message, before any of it is stored", function()
    local target = victim()
    local raw, consumer = rogue_producer(target, { max_message = 1000 })
    raw:write(wire.data(0, 2, string.pack(">I4BBI2", 2 ^ 31 | 0, 0x12, 0, 0)))
    closed_with(consumer, 400)
    target.check()
  end)

  it("is closed with 400 for nonsense, repetitions and messages of another epoch", function()
    for _, said in ipairs({
      wire.frame(0x12, "short"),
      wire.frame(0x55, "unknown"),
      wire.message(5, 1, "a") .. wire.message(5, 1, "again"),
      wire.message(6, 0, "other epoch"),
      wire.start(NETWORK, core.stream_id("stream"), "raw", 5, 0),
    }) do
      local target = victim()
      local raw, consumer = rogue_producer(target)
      raw:write(wire.data(0, 2, said))
      closed_with(consumer, 400)
      assert.is_nil(raw.ended)
      target.check()
      support.cleanup()
    end
  end)

  it("is asked again when it announces a stream anew while it refuses it", function()
    local target = victim()
    local id = core.stream_id("stream")
    local consumer = target.node:consume("stream")
    local raw = greet(target)
    raw:write(wire.data(0, 1, wire.announce(id)))
    eventually(function()
      return raw.received:find(id, 1, true)
    end)
    local at = #raw.received
    raw:write(wire.data(0, 1, wire.announce(id)))
    raw:write(wire.yamux(1, 2, 2, 0) .. wire.data(4, 2, wire.close(10404, "not yet")))
    eventually(function()
      return raw.received:find(id, at, true)
    end)
    raw:write(wire.yamux(1, 2, 4, 0) .. wire.data(0, 4, wire.start(NETWORK, id, "raw", 5, 0)))
    raw:write(wire.data(0, 4, wire.message(5, 0, "now")))
    assert.equal("now", consumer:recv(5))
  end)

  it("may not announce without end", function()
    local target = victim()
    local raw = greet(target)
    for block = 0, 199 do
      local parts = {}
      for i = 1, 400 do
        parts[i] = string.pack(">BBI2", 1, 0, 0) .. core.stream_id(("%d.%d"):format(block, i))
      end
      raw:write(wire.data(0, 1, wire.frame(0x02, table.concat(parts))))
      weir.sleep(0.002)
    end
    raw:wait_end(10)
    assert.matches("announces more than", raw.received)
    target.check()
  end)
end)
