local core = require("weir.core")

local events = core.events
local network, alice, bob = core.blake3("net"), core.blake3("alice"), core.blake3("bob")
local stream = core.stream_id("a stream")
local now

local function bytes_of_hex(text)
  return (text:gsub("%x%x", function(digits) return string.char(tonumber(digits, 16)) end))
end

-- Whether the bits of an event hold the one named. Bits are few, so counting them off will do.
local function has(bits, bit) return math.floor(bits / bit) % 2 == 1 end

local function drain_events()
  while core.poll() do
  end
end

-- The bits that the object notified, others being dropped.
local function bits_of(object)
  local sum = 0
  for found, bits in core.poll do
    if found == object then sum = bits end
  end
  return sum
end

local function pair(options)
  options = options or {}
  local a = core.session({
    client = true, network = options.network or network, node = alice, tags = { "x" }, agent = "weir/0",
  })
  local b = core.session({ network = network, node = options.node or bob, tags = { "y", "z" } })
  local function pump()
    repeat
      local out = a:output(1e6, now)
      if #out > 0 then assert(b:feed(out, now)) end
      local back = b:output(1e6, now)
      if #back > 0 then assert(a:feed(back, now)) end
    until #out == 0 and #back == 0
  end
  pump()
  return a, b, pump
end

local function online(options)
  options = options or {}
  options.epoch = options.epoch or 7
  options.lag = options.lag or "block"
  local producer = core.producer(options)
  producer:set_online(true)
  return producer
end

-- Alice's consumer of Bob's producer, over a session.
local function subscribed(producer, options)
  local a, b, pump = pair()
  local consumer = core.consumer(options or {})
  local inlet = assert(a:subscribe(consumer, { stream = stream, codec = "raw" }))
  pump()
  local request = b:next_request()
  local id = assert(b:accept(request.id, producer, "raw"))
  pump()
  return consumer, pump, { a = a, b = b, inlet = inlet, subscriber = id }
end

before_each(function()
  now = 100
  core.set_time(now, 1700000000)
  core.set_budget(1e6)
  drain_events()
end)

describe("core.hub", function()
  it("hands out an object with what happened to it, once", function()
    local producer = core.producer({})
    local consumer = core.consumer({})
    assert(consumer:attach(producer, bob))
    local seen = {}
    for object, bits in core.poll do seen[object] = bits end
    assert.equal(events.PRODUCER_CHANGED, seen[producer])
    assert.equal(events.CONSUMER_CHANGED, seen[consumer])
    assert.is_nil(core.poll())
  end)

  it("skips objects that are gone", function()
    do
      local consumer = core.consumer({})
      assert(consumer:attach(core.producer({}), bob))
    end
    collectgarbage()
    collectgarbage()
    assert.is_nil(core.poll())
  end)

  it("counts a budget down and then asks to pause", function()
    local producer, consumer = online(), core.consumer({})
    consumer:attach(producer, bob)
    core.set_budget(3)
    assert.is_true(producer:send("a"))
    assert.is_true(producer:send("b"))
    assert.equal("a", (consumer:take()))
    assert.equal(3, core.spent())
    assert.same({ nil, "pause" }, { producer:send("c") })
    assert.same({ nil, "pause" }, { consumer:take() })
    assert.is_true(producer:try_send("c"))
    assert.equal("b", (consumer:try_take()))
    core.set_budget(1)
    assert.equal("c", (consumer:take()))
  end)

  it("refuses a time that is none", function()
    assert.has_error(function() core.set_time(-1, 0) end)
    assert.has_error(function() core.set_time(0, 1e300) end)
    assert.has_error(function() core.set_time("soon") end)
  end)
end)

describe("core.producer", function()
  it("says why it cannot send", function()
    local producer = core.producer({ max_message = 4, max_items = 2, lag = "block" })
    assert.same({ nil, "offline" }, { producer:try_send("a") })
    producer:set_online(true)
    assert.same({ nil, "limit" }, { producer:try_send("12345") })
    local consumer = core.consumer({})
    consumer:attach(producer, bob)
    assert.is_true(producer:send("1"))
    assert.is_true(producer:send("2"))
    assert.same({ nil, "again" }, { producer:send("3") })
    drain_events()
    consumer:take()
    assert.is_true(has(bits_of(producer), events.PRODUCER_ROOM))
    producer:close()
    assert.same({ nil, "closed" }, { producer:send("4") })
    producer:close(204, "twice does no harm")
  end)

  it("tells its numbers", function()
    local producer = online({ epoch = 42 })
    producer:try_send("lost")
    local consumer = core.consumer({})
    consumer:attach(producer, bob)
    producer:try_send("hello")
    assert.same({
      messages = 1, bytes = 5, queued = 1, queued_bytes = 37, undelivered = 1, evicted = 0,
      next_sequence = 2, epoch = 42,
    }, producer:stats())
    assert.equal(1, producer:count())
    local s = producer:subscribers()[1]
    assert.is_true(s["local"])
    assert.equal(1, s.queued)
    assert.equal(1, s.unacknowledged)
    assert.equal(0, s.messages)
    assert.equal(100, s.since)
    assert.is_nil(s.credit_bytes)
    consumer:take()
    s = producer:subscribers()[1]
    assert.equal(1, s.messages)
    assert.equal(5, s.bytes)
    assert.equal(0, s.unacknowledged)
  end)

  it("shows the credit of a subscriber on a session", function()
    local producer = online()
    local _, pump = subscribed(producer, { max_items = 10, max_bytes = 1000 })
    producer:try_send("hello")
    pump()
    local s = producer:subscribers()[1]
    assert.is_false(s["local"])
    assert.equal(9, s.credit_messages)
    assert.equal(1000 - 37, s.credit_bytes)
    assert.equal(1, s.unacknowledged)
    assert.equal(0, s.queued)
  end)

  it("expels a subscriber that does not keep up, after its grace", function()
    local producer = online({ lag = "disconnect", max_items = 2, grace = 0.5 })
    local consumer = core.consumer({})
    consumer:attach(producer, bob)
    while producer:try_send("x") do
    end
    assert.equal(100.5, producer:lag_deadline())
    drain_events()
    core.set_time(100.51, 1700000000)
    producer:evict_slow()
    assert.equal(0, producer:count())
    assert.equal(1, producer:stats().evicted)
    assert.is_nil(producer:lag_deadline())
    local change = consumer:next_change()
    assert.equal("closed", change.state)
    assert.equal(10413, change.code)
    assert.equal("too_slow", core.close_name(change.code))
  end)

  it("detaches one subscriber by its id", function()
    local producer = online()
    local _, _, what = subscribed(producer)
    assert.is_false(producer:detach(999, 102))
    assert.is_true(producer:detach(what.subscriber, 10403, "not you"))
    assert.equal(0, producer:count())
  end)

  it("syncs when all have taken all", function()
    local producer = online()
    assert.is_true(producer:sync())
    local consumer, pump = subscribed(producer)
    producer:try_send("x")
    assert.same({ nil, "again" }, { producer:sync() })
    pump()
    drain_events()
    assert.equal("x", (consumer:take()))
    pump()
    assert.is_true(has(bits_of(producer), events.PRODUCER_ACKED))
    assert.is_true(producer:sync())
  end)

  it("raises on misuse", function()
    local producer = core.producer({})
    assert.has_error(function() core.producer() end)
    assert.has_error(function() core.producer({ lag = "whatever" }) end)
    assert.has_error(function() core.producer({ epoch = -1 }) end)
    assert.has_error(function() core.producer({ max_items = "many" }) end)
    assert.has_error(function() producer:send() end)
    assert.has_error(function() producer:try_send({}) end)
    assert.has_error(function() producer.send("x") end)
    assert.has_error(function() producer.send(core.consumer({}), "x") end)
    assert.has_error(function() producer:detach("x") end)
    assert.has_error(function() core.consumer({}):attach({}, bob) end)
    assert.has_error(function() core.consumer({}):attach(producer, "short") end)
  end)
end)

describe("core.consumer", function()
  it("takes messages with where and when they came from", function()
    local producer, consumer = online({ epoch = 3 }), core.consumer({})
    consumer:attach(producer, bob)
    assert.same({ nil, "again" }, { consumer:take() })
    producer:try_send("zero\0byte")
    assert.is_true(has(bits_of(consumer), events.CONSUMER_READABLE))
    local value, meta = consumer:take()
    assert.equal("zero\0byte", value)
    assert.equal(bob, bytes_of_hex(meta.producer))
    assert.equal(3, meta.epoch)
    assert.equal(0, meta.sequence)
    assert.equal(1700000000, meta.time)
    assert.is_nil(meta.whatever)
    assert.is_truthy(tostring(meta):find("sequence=0", 1, true))
  end)

  it("merges local and remote subscriptions, each in order", function()
    local near, far = online(), online()
    local consumer, pump = subscribed(far)
    consumer:attach(near, alice)
    for i = 1, 300 do
      near:try_send("near" .. i)
      far:try_send("far" .. i)
    end
    pump()
    local seen = { near = 0, far = 0 }
    for value in function() return (consumer:take()) end do
      local who, n = value:match("^(%a+)(%d+)$")
      seen[who] = seen[who] + 1
      assert.equal(seen[who], tonumber(n))
    end
    assert.same({ near = 300, far = 300 }, seen)
    assert.equal(600, consumer:stats().messages)
  end)

  it("lists its inlets", function()
    local producer, consumer = online({ epoch = 3 }), core.consumer({})
    local id = consumer:attach(producer, bob)
    producer:try_send("x")
    local inlets = consumer:inlets()
    assert.equal(1, #inlets)
    assert.equal(id, inlets[1].id)
    assert.equal("open", inlets[1].state)
    assert.equal(bob, inlets[1].node)
    assert.equal(1, inlets[1].queued)
    assert.equal(3, inlets[1].epoch)
    assert.is_nil(inlets[1].code)
    assert.is_true(consumer:holds(id))
    assert.is_false(consumer:holds(id + 1))
  end)

  it("tells the state of a subscription as it changes", function()
    local a, b, pump = pair()
    local consumer = core.consumer({})
    local id = assert(a:subscribe(consumer, { stream = stream, codec = "raw" }))
    assert.equal("opening", consumer:inlets()[1].state)
    pump()
    assert.is_true(b:reject(b:next_request().id, 10404, "no such stream"))
    pump()
    assert.is_true(has(bits_of(consumer), events.CONSUMER_CHANGED))
    local change = consumer:next_change()
    assert.equal(id, change.id)
    assert.equal("closed", change.state)
    assert.equal(10404, change.code)
    assert.equal("no such stream", change.reason)
    assert.is_nil(consumer:next_change())
    assert.is_false(consumer:holds(id))
  end)

  it("delivers what a closed subscription holds", function()
    local producer = online()
    local consumer, pump, what = subscribed(producer)
    producer:try_send("a")
    producer:try_send("b")
    pump()
    producer:close(204, "done")
    pump()
    consumer:next_change()
    while consumer:next_change() do
    end
    assert.is_true(consumer:holds(what.inlet))
    assert.equal("a", (consumer:take()))
    assert.is_true(consumer:holds(what.inlet))
    drain_events()
    assert.equal("b", (consumer:take()))
    assert.is_false(consumer:holds(what.inlet))
    assert.is_true(has(bits_of(consumer), events.CONSUMER_DRAINED))
    assert.same({ nil, "again" }, { consumer:take() })
  end)

  it("ends one subscription", function()
    local producer = online()
    local consumer, pump, what = subscribed(producer)
    assert.is_true(consumer:close_inlet(what.inlet, 102, "enough"))
    pump()
    assert.equal(0, producer:count())
    assert.equal("enough", consumer:next_change().reason)
    assert.is_false(consumer:close_inlet(12345))
  end)

  it("is unusable after free, and freeing twice does no harm", function()
    local producer, consumer = online(), core.consumer({})
    consumer:attach(producer, bob)
    consumer:free()
    consumer:free()
    assert.equal(0, producer:count())
    assert.has_error(function() consumer:take() end)
    assert.has_error(function() consumer:attach(producer, bob) end)
    assert.has_error(function() consumer:stats() end)
  end)

  it("raises on misuse", function()
    assert.has_error(function() core.consumer() end)
    assert.has_error(function() core.consumer({ max_bytes = {} }) end)
    local consumer = core.consumer({})
    assert.has_error(function() consumer.take() end)
    assert.has_error(function() consumer.take("x") end)
    assert.has_error(function() consumer:holds() end)
  end)
end)

describe("core.session", function()
  it("learns who the other side is", function()
    local a, b = pair()
    assert.same({ network = network, node = bob, tags = { "y", "z" }, agent = "" }, a:peer())
    assert.same({ network = network, node = alice, tags = { "x" }, agent = "weir/0" }, b:peer())
    assert.is_nil(a:ended())
    assert.is_false(a:finished())
    assert.equal(1, a:streams())
  end)

  it("measures the round trip", function()
    local a, b = pair()
    assert.is_nil(a:rtt())
    -- The ping that follows the greeting was answered in no time; a keep-alive's takes some.
    now = 131
    assert.is_true(a:tick(now))
    assert.is_true(b:feed(a:output(1e6, now), now))
    now = 131.25
    assert.is_true(a:feed(b:output(1e6, now), now))
    assert.is_true(math.abs(a:rtt() - 0.25) < 1e-6)
  end)

  it("parts from a node of another network", function()
    local a, b = pair({ network = core.blake3("another") })
    assert.same({ 101, "wrong_network", "the two nodes are in different networks" }, { a:ended() })
    assert.equal(101, (b:ended()))
    assert.is_true(a:finished())
    assert.is_true(b:finished())
  end)

  it("tells what streams the other side has", function()
    local a, b, pump = pair()
    local one, two = core.stream_id("one"), core.stream_id("two")
    assert.equal(2, b:announce(true, one .. two))
    assert.equal(1, b:announce(false, one))
    assert.equal(0, b:announce(true, ""))
    pump()
    assert.same({ true, one }, { a:next_announcement() })
    assert.same({ true, two }, { a:next_announcement() })
    assert.same({ false, one }, { a:next_announcement() })
    assert.is_nil(a:next_announcement())
  end)

  it("hands over what a consumer asks for", function()
    local a, b, pump = pair()
    a:subscribe(core.consumer({}), {
      stream = stream, codec = "json", schema = "s", criteria = "c", token = "t", epoch = 8, sequence = 9,
    })
    pump()
    local request = b:next_request()
    assert.same({
      id = request.id, network = network, stream = stream, codec = "json", schema = "s", criteria = "c", token = "t",
      epoch = 8, sequence = 9,
    }, request)
    assert.is_nil(b:next_request())
    assert.is_true(b:reject(request.id, 10403, "no"))
    assert.same({ nil, "closed" }, { b:reject(request.id, 10403, "no") })
    assert.same({ nil, "closed" }, { b:accept(request.id, online(), "raw") })
  end)

  it("says when something is due", function()
    core.set_time(5, 1700000000)
    local session = core.session({ network = network, node = bob, handshake_timeout = 2 })
    session:output(1e6, 5)
    assert.equal(7, session:deadline())
    assert.is_true(session:tick(6.9))
    assert.is_nil(session:ended())
    assert.is_true(session:tick(7))
    assert.same({ 104, "timeout", "the peer did not say hello in time" }, { session:ended() })
  end)

  it("fails on bytes that are none of ours", function()
    local session = core.session({ network = network, node = bob })
    assert.same({ nil, "version" }, { session:feed("GET / HTTP/1.1\r\n\r\n", now) })
    assert.equal(400, (session:ended()))
    assert.is_true(has(bits_of(session), events.SESSION_ENDED))
  end)

  it("gives out no more than it is asked for", function()
    local session = core.session({ client = true, network = network, node = alice })
    local all = ""
    while true do
      local piece = session:output(7, now)
      if piece == "" then break end
      assert.is_true(#piece <= 7)
      all = all .. piece
    end
    local other = core.session({ network = network, node = bob })
    for i = 1, #all do assert.is_true(other:feed(all:sub(i, i), now)) end
    assert.equal(alice, other:peer().node)
  end)

  it("closes what it carries when the transport ends", function()
    local producer = online()
    local consumer, _, what = subscribed(producer)
    what.a:transport_ended()
    what.b:transport_ended()
    assert.equal(0, producer:count())
    consumer:next_change()
    assert.equal(103, consumer:inlets()[1].code)
    assert.same({ 103, "disconnected", "the connection was lost" }, { what.a:ended() })
    assert.same({ nil, "closed" }, { what.a:subscribe(consumer, { stream = stream }) })
  end)

  it("closes with a reason for the other side", function()
    local a, b, pump = pair()
    a:close(204, "good night")
    pump()
    assert.same({ 204, "shutdown", "good night" }, { b:ended() })
  end)

  it("is unusable after free, and freeing twice does no harm", function()
    local a = pair()
    a:free()
    a:free()
    for _, method in ipairs({ "peer", "deadline", "finished", "next_request", "rtt", "streams", "ended" }) do
      assert.has_error(function() a[method](a) end)
    end
  end)

  it("raises on misuse", function()
    local a, b, pump = pair()
    local long = ("x"):rep(65)
    assert.has_error(function() core.session() end)
    assert.has_error(function() core.session({ network = network }) end)
    assert.has_error(function() core.session({ network = "short", node = bob }) end)
    assert.has_error(function() core.session({ network = network, node = bob, tags = { long } }) end)
    assert.has_error(function() core.session({ network = network, node = bob, tags = { "" } }) end)
    assert.has_error(function() core.session({ network = network, node = bob, agent = long }) end)
    assert.has_error(function() core.session({ network = network, node = bob, keepalive = -1 }) end)
    assert.has_error(function() a:feed("x") end)
    assert.has_error(function() a:feed("x", -1) end)
    assert.has_error(function() a:output(-1, now) end)
    assert.has_error(function() a:announce(true, "x") end)
    assert.has_error(function() a:subscribe({}, { stream = stream }) end)
    assert.has_error(function() a:subscribe(core.consumer({})) end)
    assert.has_error(function() a:subscribe(core.consumer({}), { stream = "x" }) end)
    assert.has_error(function() a:subscribe(core.consumer({}), { stream = stream, codec = 5 }) end)
    assert.same({ nil, "limit" }, { a:subscribe(core.consumer({}), { stream = stream, codec = long }) })
    a:subscribe(core.consumer({}), { stream = stream })
    pump()
    assert.has_error(function() b:accept(1, {}, "raw") end)
    assert.has_error(function() b:accept(1, core.producer({}), long) end)
    assert.has_error(function() a.peer(b.peer) end)
    assert.has_error(function() a.peer(core.producer({})) end)
  end)
end)

describe("the stream objects", function()
  it("move much data from Lua to Lua", function()
    local producer = online()
    local consumer, pump = subscribed(producer)
    local sent, got = 0, 0
    while got < 20000 do
      while sent < 20000 and producer:try_send(("%d"):format(sent)) do sent = sent + 1 end
      pump()
      for value, meta in function() return consumer:try_take() end do
        assert.equal(got, tonumber(value))
        assert.equal(got, meta.sequence)
        got = got + 1
      end
    end
    assert.equal(0, producer:stats().undelivered)
  end)

  it("may be collected in any order", function()
    local ORDERS = {
      { "p", "c", "a", "b" }, { "a", "p", "b", "c" }, { "b", "a", "c", "p" }, { "c", "b", "p", "a" },
      { "a", "b", "p", "c" },
    }
    for _, order in ipairs(ORDERS) do
      local alive = {}
      alive.p = online()
      local what
      alive.c, alive.pump, what = subscribed(alive.p)
      alive.c:attach(alive.p, bob)
      alive.a, alive.b = what.a, what.b
      for i = 1, 20 do alive.p:try_send("x" .. i) end
      alive.pump()
      local meta = select(2, alive.c:take())
      alive.pump, what = nil, nil -- luacheck: ignore
      for _, name in ipairs(order) do
        alive[name] = nil
        collectgarbage()
        collectgarbage()
        if alive.p then alive.p:try_send("y") end
        if alive.c then alive.c:take() end
        if alive.a then alive.a:output(1e6, now) end
        if alive.b then alive.b:output(1e6, now) end
        drain_events()
      end
      assert.is_number(meta.sequence)
    end
  end)

  it("leave nothing behind", function()
    collectgarbage()
    collectgarbage()
    local before = collectgarbage("count")
    for _ = 1, 200 do
      local producer = online()
      local consumer = core.consumer({})
      consumer:attach(producer, bob)
      producer:try_send("x")
      consumer:take()
      drain_events()
    end
    collectgarbage()
    collectgarbage()
    assert.is_true(collectgarbage("count") - before < 200)
  end)
end)
