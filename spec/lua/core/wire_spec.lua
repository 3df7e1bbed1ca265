-- A peer of docs/wire.md written here in Lua: it knows the document's vectors and twelve bytes of
-- yamux, and nothing of the code. A real session must say and understand exactly these bytes.
local core = require("weir.core")

local function hex(text)
  return (text:gsub("%s", ""):gsub("%x%x", function(digits) return string.char(tonumber(digits, 16)) end))
end

local function load_vectors()
  local file = assert(io.open("docs/wire.md"))
  local doc = file:read("*a")
  file:close()
  local vectors = {}
  for name, block in doc:gmatch("```vector (%S+)\n(.-)```") do
    vectors[name] = hex(block:gsub(";[^\n]*", ""))
  end
  return vectors
end

local vectors = load_vectors()
local network, alice, bob = ("\17"):rep(32), ("\34"):rep(32), ("\51"):rep(32)
local prices, other = core.stream_id("prices"), ("\68"):rep(32)

-- --- yamux, as little as it takes -----------------------------------------------------------------

local function u32(n)
  return string.char(math.floor(n / 2 ^ 24) % 256, math.floor(n / 2 ^ 16) % 256, math.floor(n / 256) % 256, n % 256)
end

local function number(bytes, at)
  local a, b, c, d = bytes:byte(at, at + 3)
  return ((a * 256 + b) * 256 + c) * 256 + d
end

local SYN, ACK, FIN = 1, 2, 4

local function data_frame(stream, flags, body)
  return "\0\0\0" .. string.char(flags) .. u32(stream) .. u32(#body) .. body
end

-- The bytes of each stream in what a session said, and the flags that came with them.
local function streams_of(output)
  local streams, flags, at = {}, {}, 1
  while at <= #output do
    local kind, flag = output:byte(at + 1), output:byte(at + 3)
    local id, length = number(output, at + 4), number(output, at + 8)
    at = at + 12
    if kind <= 1 then flags[id] = (flags[id] or 0) + flag end
    if kind == 0 then
      streams[id] = (streams[id] or "") .. output:sub(at, at + length - 1)
      at = at + length
    end
  end
  return streams, flags
end

local function said(session) return streams_of(session:output(2 ^ 20, 1)) end

local function session(client)
  core.set_time(1, 1700000000)
  return core.session({
    client = client,
    network = network,
    node = client and alice or bob,
    tags = client and { "gpu", "eu" } or nil,
    agent = client and "weir/0.1" or nil,
  })
end

-- --------------------------------------------------------------------------------------------------

describe("the wire protocol of docs/wire.md", function()
  it("has its vectors", function()
    for _, name in ipairs({
      "hello", "hello-answer", "announce", "withdraw", "subscribe", "start",
      "gap", "data", "sync", "credit", "close",
    }) do
      assert.is_string(vectors[name], name)
      assert.equal(#vectors[name] - 4, number(vectors[name], 1), name)
    end
  end)

  it("begins with the connecting side's hello on stream 1", function()
    local streams, flags = said(session(true))
    assert.equal(vectors.hello, streams[1])
    assert.equal(SYN, flags[1])
  end)

  it("raises the receive window to 4 MiB with the SYN", function()
    local output = session(true):output(2 ^ 20, 1)
    assert.equal(hex("00 01 0001 00000001") .. u32(4 * 2 ^ 20 - 256 * 2 ^ 10), output:sub(1, 12))
  end)

  it("answers a hello with one hello", function()
    local server = session(false)
    assert.equal("", server:output(2 ^ 20, 1))
    assert.is_true(server:feed(data_frame(1, SYN, vectors.hello), 1))
    local streams, flags = said(server)
    assert.equal(vectors["hello-answer"], streams[1])
    assert.equal(ACK, flags[1])
    assert.same({ network = network, node = alice, tags = { "gpu", "eu" }, agent = "weir/0.1" }, server:peer())
  end)

  it("announces and withdraws streams", function()
    local server = session(false)
    server:feed(data_frame(1, SYN, vectors.hello), 1)
    said(server)
    assert.equal(2, server:announce(true, prices .. other))
    assert.equal(vectors.announce, said(server)[1])
    assert.equal(1, server:announce(false, other))
    assert.equal(vectors.withdraw, said(server)[1])

    local client = session(true)
    client:feed(data_frame(1, ACK, vectors["hello-answer"] .. vectors.announce .. vectors.withdraw), 1)
    assert.same({ true, prices }, { client:next_announcement() })
    assert.same({ true, other }, { client:next_announcement() })
    assert.same({ false, other }, { client:next_announcement() })
    assert.is_nil(client:next_announcement())
  end)

  it("has a consumer speak and understand every frame of a subscription", function()
    local client, consumer = session(true), core.consumer({})
    said(client)
    client:feed(data_frame(1, ACK, vectors["hello-answer"]), 1)
    said(client)
    assert(client:subscribe(consumer, { stream = prices, codec = "json", schema = "v1", epoch = 5, sequence = 6 }))
    assert.equal(vectors.subscribe, said(client)[3])

    client:feed(data_frame(3, ACK, vectors.start .. vectors.gap .. vectors.data .. vectors.sync), 1)
    local change = consumer:next_change()
    assert.equal("open", change.state)
    assert.equal(5, change.epoch)
    assert.equal(9, change.next_sequence)
    assert.equal(1, change.gaps)
    assert.equal(3, change.missed)
    assert.is_nil(said(client)[3])
    local value, meta = consumer:try_take()
    assert.equal('{"a":1}', value)
    assert.equal(9, meta.sequence)
    assert.equal(5, meta.epoch)
    assert.equal(1700000000, meta.time)
    assert.equal(vectors.credit, said(client)[3])

    client:feed(data_frame(3, FIN, vectors.close), 1)
    change = consumer:next_change()
    assert.equal("closed", change.state)
    assert.equal(10413, change.code)
    assert.equal("too slow", change.reason)
    local _, flags = said(client)
    assert.equal(FIN, flags[3])
  end)

  it("has a producer speak and understand every frame of a subscription", function()
    local server, producer = session(false), core.producer({ epoch = 5, lag = "block" })
    producer:set_online(true)
    for _ = 1, 9 do assert.is_true(producer:try_send("lost")) end
    server:feed(data_frame(1, SYN, vectors.hello), 1)
    said(server)
    server:feed(data_frame(3, SYN, vectors.subscribe), 1)
    local request = server:next_request()
    assert.same({
      id = request.id, network = network, stream = prices, codec = "json", schema = "v1", epoch = 5, sequence = 6,
    }, request)
    local id = assert(server:accept(request.id, producer, "json", "v1"))
    assert.equal(vectors.start .. vectors.gap, said(server)[3])
    assert.is_true(producer:try_send('{"a":1}'))
    assert.same({ nil, "again" }, { producer:sync() })
    assert.equal(vectors.data .. vectors.sync, said(server)[3])
    server:feed(data_frame(3, 0, vectors.credit), 1)
    assert.is_true(producer:sync())
    assert.equal(0, producer:subscribers()[1].unacknowledged)
    assert.equal(8193 - 1, producer:subscribers()[1].credit_messages)
    assert.is_true(producer:detach(id, 10413, "too slow"))
    local streams, flags = said(server)
    assert.equal(vectors.close, streams[3])
    assert.equal(FIN, flags[3])
  end)

  it("closes the session on the control stream", function()
    local server = session(false)
    server:feed(data_frame(1, SYN, vectors.hello .. vectors.close), 1)
    assert.same({ 10413, "too_slow", "too slow" }, { server:ended() })
    assert.is_false(server:finished())
    local output = server:output(2 ^ 20, 1)
    assert.equal(hex("00 03 0000 00000000 00000000"), output:sub(-12)) -- go-away
    assert.is_true(server:finished())
  end)
end)
