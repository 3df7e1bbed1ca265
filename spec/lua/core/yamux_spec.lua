local core = require("weir.core")

local WINDOW = 256 * 1024

local function u32(n)
  local high, low = math.floor(n / 65536), n % 65536
  return string.char(math.floor(high / 256), high % 256, math.floor(low / 256), low % 256)
end

local function frame(kind, flags, id, length, body)
  return "\0" .. string.char(kind) .. "\0" .. string.char(flags) .. u32(id) .. u32(length) .. (body or "")
end

local DATA, UPDATE, PING, GO_AWAY = 0, 1, 2, 3
local SYN, ACK, FIN, RST = 1, 2, 4, 8

local function drain(session)
  local parts = {}
  while true do
    local bytes = session:output()
    if bytes == "" then return table.concat(parts) end
    parts[#parts + 1] = bytes
  end
end

--- Moves bytes both ways, in pieces of `size`, until none are left.
local function pump(a, b, size)
  while true do
    local to_b, to_a = a:output(size), b:output(size)
    if to_b == "" and to_a == "" then return end
    assert.is_true(b:feed(to_b))
    assert.is_true(a:feed(to_a))
  end
end

local function pair(options, other)
  options = options or {}
  options.client = true
  return core.yamux(options), core.yamux(other)
end

--- All events that wait: a list of { kind, stream, value }.
local function events(session)
  local list = {}
  while true do
    local kind, stream, value = session:next_event()
    if kind == nil then return list end
    list[#list + 1] = { kind, stream, value }
  end
end

local function kinds(session)
  local names = {}
  for i, event in ipairs(events(session)) do names[i] = event[1] end
  return table.concat(names, " ")
end

describe("core.yamux", function()
  it("opens streams with the frames of the specification", function()
    local session = core.yamux({ client = true })
    local stream = session:open()
    assert.equal(1, stream:id())
    assert.equal(frame(UPDATE, SYN, 1, 0), drain(session))
    assert.equal(2, core.yamux():open():id())
  end)

  it("carries data, half-closes and closes", function()
    local a, b = pair()
    local stream = a:open()
    assert.is_true(stream:write("hello"))
    stream:shutdown()
    pump(a, b)
    local got = events(b)
    assert.same({ "stream", "data", "end" }, { got[1][1], got[2][1], got[3][1] })
    assert.equal("hello", got[2][3])
    local there = got[1][2]
    assert.equal(there, got[2][2])
    assert.equal(1, there:id())
    there:accept()
    there:consume(5)
    assert.is_true(there:write("world"))
    there:shutdown()
    pump(a, b)
    assert.equal("close", kinds(b))
    got = events(a)
    assert.same({ "accepted", "data", "end", "close" }, { got[1][1], got[2][1], got[3][1], got[4][1] })
    assert.equal(stream, got[2][2])
    assert.equal("world", got[2][3])
    assert.is_nil(got[4][3])
    assert.equal(0, a:streams())
  end)

  it("joins what comes before it is taken and splits frames anywhere", function()
    for size = 1, 40, 13 do
      local a, b = pair()
      local stream = a:open()
      local parts = {}
      for i = 1, 50 do
        parts[i] = ("message %d;"):format(i)
        assert.is_true(stream:write(parts[i]))
      end
      pump(a, b, size)
      local got = events(b)
      assert.equal(2, #got)
      assert.equal(table.concat(parts), got[2][3])
    end
  end)

  it("stops at the window until the reader consumes", function()
    local a, b = pair({ send_buffer = 100000 })
    local stream = a:open()
    local block, sent = ("x"):rep(50000), 0
    local function fill()
      while true do
        local ok, code = stream:write(block)
        if not ok then
          assert.equal("again", code)
          return
        end
        sent = sent + #block
      end
    end
    for _ = 1, 20 do
      fill()
      pump(a, b)
      kinds(a)
    end
    local got = events(b)
    local there = got[1][2]
    assert.equal(WINDOW, #got[2][3])
    assert.equal(0, stream:room())
    assert.equal(sent - WINDOW, stream:queued())
    there:consume(WINDOW / 2 - 1)
    pump(a, b)
    assert.equal("", kinds(b))
    there:consume(1)
    pump(a, b)
    assert.equal("data", kinds(b))
    there:accept()
    there:consume(1e9)
    pump(a, b)
    assert.equal("accepted writable", kinds(a))
  end)

  it("cannot consume what was not taken", function()
    local session = core.yamux()
    session:feed(frame(UPDATE, SYN, 1, 0))
    local _, stream = session:next_event()
    stream:accept()
    session:feed(frame(DATA, 0, 1, 200000, ("."):rep(200000)))
    drain(session)
    stream:consume(200000)
    assert.equal("", drain(session))
    session:next_event()
    stream:consume(200000)
    assert.equal(frame(UPDATE, 0, 1, 200000), drain(session))
  end)

  it("tells of resets on both sides and drops what was not read", function()
    local a, b = pair()
    local stream = a:open()
    stream:write("lost")
    pump(a, b)
    local _, there = b:next_event()
    there:reset()
    assert.same({ { "close", there, "reset" } }, events(b))
    pump(a, b)
    assert.same({ { "close", stream, "reset" } }, events(a))
    local ok, code = stream:write("late")
    assert.is_nil(ok)
    assert.equal("closed", code)
    stream:shutdown()
    stream:reset()
    stream:consume(1)
    stream:accept()
    assert.equal(0, stream:queued() + stream:room())
    assert.equal(1, stream:id())
    assert.truthy(tostring(stream):find("closed", 1, true))
  end)

  it("never mentions a stream that was reset before it was seen", function()
    local session = core.yamux()
    session:feed(frame(UPDATE, SYN, 1, 0) .. frame(UPDATE, RST, 1, 0) .. frame(UPDATE, SYN, 3, 0))
    local got = events(session)
    assert.equal(1, #got)
    assert.equal(3, got[1][2]:id())
  end)

  it("refuses streams beyond the backlog", function()
    local session = core.yamux({ backlog = 1 })
    session:feed(frame(UPDATE, SYN, 1, 0) .. frame(UPDATE, SYN, 3, 0))
    assert.equal(frame(UPDATE, RST, 3, 0), drain(session))
    assert.equal("stream", kinds(session))
  end)

  it("limits opens that the peer has not accepted", function()
    local a, b = pair({ backlog = 1 })
    a:open()
    local stream, code = a:open()
    assert.is_nil(stream)
    assert.equal("again", code)
    pump(a, b)
    local _, there = b:next_event()
    there:accept()
    pump(a, b)
    assert.equal("accepted", kinds(a))
    assert.truthy(a:open())
  end)

  it("limits streams and resets those beyond the receive memory", function()
    local session = core.yamux({ max_streams = 1, receive_memory = 10 })
    session:feed(frame(UPDATE, SYN, 1, 0))
    local _, stream = session:next_event()
    local none, code = session:open()
    assert.is_nil(none)
    assert.equal("limit", code)
    session:feed(frame(DATA, 0, 1, 11, "hello world"))
    assert.same({ { "close", stream, "limit" } }, events(session))
  end)

  it("pings", function()
    local a, b = pair()
    assert.is_nil(a:rtt())
    assert.is_true(a:ping(100))
    assert.same({ nil, "again" }, { a:ping(100) })
    b:feed(a:output(1000, 101), 500)
    a:feed(b:output(), 103.5)
    local kind, stream, value = a:next_event()
    assert.equal("pong", kind)
    assert.is_nil(stream)
    assert.equal(2.5, value)
    assert.equal(2.5, a:rtt())
  end)

  it("hears and says go-away", function()
    local a, b = pair()
    b:go_away()
    pump(a, b)
    assert.same({ { "go_away", nil, 0 } }, events(a))
    assert.same({ nil, "closed" }, { a:open() })
    assert.is_false(b:finished())
    b:go_away(2)
    assert.equal(frame(GO_AWAY, 0, 0, 2), drain(b))
    assert.is_true(b:finished())
  end)

  it("closes after what is queued has left", function()
    local session = core.yamux({ client = true })
    local stream = session:open()
    stream:write("bye")
    session:close()
    assert.same({ { "close", stream, "closed" } }, events(session))
    assert.is_false(session:finished())
    assert.equal(frame(DATA, SYN, 1, 3, "bye") .. frame(GO_AWAY, 0, 0, 0), drain(session))
    assert.is_true(session:finished())
    assert.is_nil(session:error())
  end)

  it("says how the peer broke the protocol", function()
    local session = core.yamux()
    session:feed(frame(UPDATE, SYN, 1, 0))
    local _, stream = session:next_event()
    local ok, code, text = session:feed(frame(DATA, FIN, 1, WINDOW + 1))
    assert.is_nil(ok)
    assert.equal("protocol", code)
    assert.equal("stream 1: data beyond the receive window", text)
    assert.equal(text, session:error())
    assert.same({ { "close", stream, "protocol" } }, events(session))
    assert.equal(frame(GO_AWAY, 0, 0, 1), drain(session))
    assert.is_true(session:finished())
  end)

  it("keeps alive and gives up", function()
    local session = core.yamux({ client = true, keepalive = 5, keepalive_timeout = 2 })
    assert.is_true(session:tick(100))
    assert.equal(105, session:deadline())
    assert.is_true(session:tick(105))
    assert.equal(frame(PING, SYN, 0, 1), drain(session))
    assert.equal(107, session:deadline())
    session:feed(frame(PING, ACK, 0, 1), 106)
    assert.equal(111, session:deadline())
    session:tick(111)
    local ok, code, text = session:tick(113)
    assert.is_nil(ok)
    assert.equal("timeout", code)
    assert.equal("no answer to a ping", text)
    assert.is_nil(core.yamux({ keepalive = false }):deadline())
  end)

  it("ends its streams with the connection", function()
    local session = core.yamux({ client = true })
    local stream = session:open()
    session:ended()
    assert.same({ { "close", stream, "closed" } }, events(session))
    assert.is_true(session:finished())
  end)

  it("lives as long as one of its streams", function()
    local stream = core.yamux({ client = true }):open()
    collectgarbage()
    collectgarbage()
    assert.is_true(stream:write("x"))
    assert.equal(1, stream:queued())
  end)

  it("is collected although session and streams know each other", function()
    local gone = setmetatable({}, { __mode = "k" })
    do
      local session = core.yamux({ client = true })
      gone[session], gone[session:open()] = true, true
    end
    collectgarbage()
    collectgarbage()
    assert.is_nil(next(gone))
  end)

  it("raises on misuse", function()
    assert.has_error(function() core.yamux({ windows = 1 }) end)
    assert.has_error(function() core.yamux(1) end)
    for _, options in ipairs({
      { client = 1 }, { receive_window = WINDOW - 1 }, { backlog = 0 }, { backlog = 1.5 }, { max_frame = 2 ^ 32 },
      { keepalive = 0 }, { keepalive = true }, { send_buffer = "1" }, { max_streams = 0 / 0 },
    }) do
      assert.has_error(function() core.yamux(options) end)
    end
    local session = core.yamux()
    assert.has_error(function() session:feed() end)
    assert.has_error(function() session:output(0) end)
    assert.has_error(function() session:tick() end)
    assert.has_error(function() session:go_away(-1) end)
    assert.has_error(function() session.feed({}, "x") end)
    assert.has_error(function() session:open():write() end)
    assert.has_error(function() session:open():consume(-1) end)
  end)
end)
