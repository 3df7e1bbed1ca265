local weir = require("weir")
local support = require("spec.lua.streams.support")
local it = support.tests(it)
local fails, eventually = support.fails, support.eventually

describe("network:produce", function()
  it("gives the producer that there is, and network:producer says that there is one", function()
    local node = support.network()
    local producer = node:produce("stream")
    assert.equal(producer, node:produce("stream"))
    local err = fails("already_exists", node:producer("stream"))
    assert.equal(producer, err.producer)
    assert.equal("stream", err.stream)
    assert.matches("'stream' is produced", err.message)
    producer:close(0)
    local again = assert(node:producer("stream"))
    assert.are_not.equal(producer, again)
    assert.is_true(again:stats().epoch > producer:stats().epoch)
  end)

  it("takes a name, or an id of 64 hex digits", function()
    local a, b = support.nodes("tcp")
    local id = ("0123456789abcdef"):rep(4)
    local by_id, by_name = a:produce(id), a:produce("my-stream1")
    assert.equal(id, by_id:stream_id())
    assert.equal("7ffd019deedf7ede49b63c8d943ef1894792051502734c3c24a1248aae63a79b", by_name:stream_id())
    local consumer = assert(b:consumer(id:upper(), nil, 5))
    assert(by_id:send("by id", 5))
    assert.equal("by id", consumer:recv(5))
    local named = assert(b:consumer(by_name:stream_id(), nil, 5))
    assert.equal(by_name:stream_id(), named:stream_id())
    assert(by_name:send("by name", 5))
    assert.equal("by name", named:recv(5))
  end)

  it("raises for a name that is none", function()
    local node = support.network()
    for _, bad in ipairs({ "", ("x"):rep(1025), 5, {} }) do
      for _, method in ipairs({ "produce", "producer", "consume", "consumer" }) do
        assert.matches(method .. ": a stream has a name of 1 to 1024 bytes", support.raises(node[method], node, bad))
      end
    end
  end)
end)

describe("send", function()
  it("waits while nobody is there, and wakes when a consumer comes, with nothing else running", function()
    local node = support.network()
    local producer = node:produce("stream")
    local sent = weir.spawn(producer.send, producer, "first")
    local err = fails("timeout", producer:send("never", 0.02))
    assert.equal("stream", err.stream)
    assert.matches("no consumer came", err.message)
    local consumer = node:consume("stream")
    assert.is_true(sent:join(2))
    assert.equal("first", consumer:recv(2))
  end)

  it("wakes when a consumer of another node comes", function()
    local a, b = support.nodes("tcp")
    local producer = a:produce("stream")
    local sent = weir.spawn(producer.send, producer, "first")
    weir.sleep(0.01)
    assert.equal("running", sent:status())
    local consumer = b:consume("stream")
    assert.is_true(sent:join(2))
    assert.equal("first", consumer:recv(2))
  end)

  it("takes as many messages as the buffer holds before it waits, and then one for each taken", function()
    local node = support.network()
    local producer = node:produce("stream", { buffer = { messages = 3 }, lag = "block" })
    local consumer = node:consume("stream")
    for i = 1, 3 do
      assert(producer:send(i .. ""))
    end
    fails("full", producer:try_send("4"))
    local err = fails("timeout", producer:send("4", 0.01))
    assert.matches("slower than the producer", err.message)
    assert.equal("1", consumer:recv(1))
    assert.is_true(producer:try_send("4"))
    fails("full", producer:try_send("5"))
    local waiting = weir.spawn(producer.send, producer, "5", 2)
    weir.sleep(0)
    assert.same({ "2", "3", "4", "5" }, support.take(consumer, 4))
    assert.is_true(waiting:join(1))
  end)

  it("works with a buffer of one message", function()
    local node = support.network()
    local producer = node:produce("stream", { buffer = { messages = 1 }, lag = "block" })
    local consumer = node:consume("stream")
    local sender = weir.spawn(function()
      for i = 1, 20 do
        assert(producer:send(tostring(i), 2))
      end
    end)
    for i = 1, 20 do
      assert.equal(tostring(i), consumer:recv(2))
    end
    sender:join(1)
  end)

  it("lets every sender that waits go on, one for each message taken", function()
    local node = support.network()
    local producer = node:produce("stream", { buffer = { messages = 1 }, lag = "block" })
    local consumer = node:consume("stream")
    assert(producer:send("0"))
    for i = 1, 5 do
      weir.spawn(producer.send, producer, tostring(i), 5)
    end
    weir.sleep(0)
    local got = support.take(consumer, 6)
    assert.equal("0", got[1])
    table.sort(got)
    assert.same({ "0", "1", "2", "3", "4", "5" }, got)
  end)

  it("passes the word on when it was woken for room and then cannot send", function()
    local node = support.network()
    local producer = node:produce("stream", { buffer = { messages = 1 }, lag = "block" })
    local first = node:consume("stream")
    assert(producer:send("0"))
    local gives_up = weir.spawn(producer.send, producer, "never", 0.05)
    local stays = weir.spawn(producer.send, producer, "stays", 5)
    weir.sleep(0)
    first:close() -- there is room, but nobody to send to
    fails("timeout", gives_up:join(1))
    local second = node:consume("stream")
    assert.is_true(stays:join(1))
    assert.equal("stays", second:recv(1))
  end)

  it("leaves the shared timeout error alone", function()
    local node = support.network()
    local producer = node:produce("stream")
    fails("timeout", producer:send("x", 0))
    local err = fails("timeout", weir.channel(1):recv(0))
    assert.is_nil(err.stream)
    assert.not_matches("consumer", err.message)
  end)

  it("does not go on for ever when the node is closed meanwhile", function()
    local node = support.network()
    local producer = node:produce("stream")
    local sending = weir.spawn(producer.send, producer, "x")
    local waiting = weir.spawn(function()
      return producer:when():online()
    end)
    weir.sleep(0)
    node:close()
    fails("closed", sending:join(1))
    fails("closed", waiting:join(1))
  end)

  it("fails at once when the producer closes while it waits for a consumer, though it drains", function()
    local node = support.network()
    local producer = node:produce("stream", { online_when = 2 })
    local consumer = node:consume("stream")
    local other = node:consume("stream")
    assert(producer:send("x", 1))
    other:close()
    assert(producer:when():offline(1))
    local sending = weir.spawn(producer.send, producer, "y")
    weir.sleep(0)
    local closing = weir.spawn(producer.close, producer, 5)
    fails("closed", sending:join(1))
    assert.equal("running", closing:status())
    assert.equal("x", consumer:recv(1))
    assert.is_true(closing:join(1))
  end)
end)

describe("try_send", function()
  it("gives the value back when the producer is offline, full or closed", function()
    local node = support.network()
    local producer = node:produce("stream", { buffer = { messages = 1 }, codec = "json" })
    local value = { 1 }
    local err = fails("offline", producer:try_send(value))
    assert.equal(value, err.value)
    local consumer = node:consume("stream", { codec = "json" })
    assert.is_true(producer:try_send(value))
    err = fails("full", producer:try_send(value))
    assert.equal(value, err.value)
    assert.same({ 1 }, consumer:recv(1))
    assert(producer:close(1))
    err = fails("closed", producer:try_send(value))
    assert.equal(value, err.value)
    assert.equal("stream", err.stream)
  end)

  it("works inside a libuv callback, as send and recv do where they need not wait", function()
    local luv = require("luv")
    local node = support.network()
    local producer, consumer = node:produce("stream", { buffer = { messages = 50000 } }), node:consume("stream")
    local timer, count = luv.new_timer(), 0
    timer:start(0, 0, function()
      timer:close()
      for _ = 1, 50000 do
        assert(producer:try_send("x"))
        assert(consumer:try_recv())
        assert(producer:send("x"))
      end
      for _ = 1, 40000 do
        assert(consumer:recv())
        count = count + 1
      end
    end)
    eventually(function()
      return count == 40000
    end)
    support.take(consumer, 10000)
  end)
end)

describe("a producer", function()
  it("is offline again when its consumer closes", function()
    for _, place in ipairs(support.places) do
      local producer, consumer = support.stream(place)
      assert.is_true(producer:is_online())
      assert.equal(1, #producer:consumers())
      consumer:close()
      assert(producer:when():offline(2))
      assert.is_false(producer:is_online())
      assert.same({}, producer:consumers())
      fails("offline", producer:try_send("x"))
      support.cleanup()
    end
  end)

  it("is online with as many consumers as online_when asks for", function()
    local node = support.network()
    local producer = node:produce("stream", { online_when = 2 })
    local first = node:consume("stream")
    assert.is_false(producer:is_online())
    fails("offline", producer:try_send("x"))
    local second = node:consume("stream")
    assert(producer:when():online(1))
    assert(producer:send("x", 1))
    second:close()
    assert(producer:when():offline(1))
    assert.equal("x", first:recv(1))
    local always = node:produce("always", { online_when = 0 })
    assert.is_true(always:is_online())
    assert.is_true(always:send("nobody"))
    assert.equal(1, always:stats().dropped)
    assert.is_true(always:flush(1))
  end)

  it("counts for each consumer what that one got", function()
    for _, place in ipairs({ "mem", "tcp" }) do
      local a, b = support.nodes(place)
      local producer = a:produce("stream")
      local first = assert(b:consumer("stream", nil, 5))
      assert(producer:send("test1", 5))
      assert.equal("test1", first:recv(5))
      assert(producer:flush(5))
      local early = producer:consumers()[1]
      assert.same({ 1, 5, 0 }, { early.messages, early.bytes, early.queued })
      assert.equal(b.as_peer.id, early.peer)
      local late = assert(b:consumer("stream", nil, 5))
      eventually(function()
        return #producer:consumers() == 2
      end)
      assert(producer:send("second", 5))
      assert.equal("second", first:recv(5))
      assert.equal("second", late:recv(5))
      assert(producer:flush(5))
      local list = producer:consumers()
      table.sort(list, function(x, y)
        return x.messages > y.messages
      end)
      assert.same({ 2, 11 }, { list[1].messages, list[1].bytes })
      assert.same({ 1, 6 }, { list[2].messages, list[2].bytes })
      assert.is_true(list[1].uptime >= list[2].uptime and list[2].uptime > 0)
      support.cleanup()
    end
  end)

  it("takes max_consumers and refuses others with 10509 until one leaves", function()
    local a = support.network({ listen = support.address("tcp") })
    local producer = a:produce("stream", { max_consumers = 3 })
    local list = {}
    for i = 1, 7 do
      local node = i <= 2 and a or support.network({ peers = a:addresses() })
      list[i] = node:consume("stream", { online_when = 1, backoff = support.quick })
    end
    local function admitted()
      local count = 0
      for _, consumer in ipairs(list) do
        count = count + (consumer:is_online() and 1 or 0)
      end
      return count
    end
    local function refused()
      local count = 0
      for _, consumer in ipairs(list) do
        local source = consumer:producers()[1]
        if source and source.closed and source.closed.status == 10509 then
          assert.equal("no_capacity", source.closed.code)
          count = count + 1
        end
      end
      return count
    end
    eventually(function()
      return admitted() == 3 and refused() == 4
    end)
    assert.equal(3, producer:stats().consumers)
    for _ = 1, 4 do
      for i, consumer in ipairs(list) do
        if consumer:is_online() then
          table.remove(list, i):close()
          break
        end
      end
      eventually(function()
        return admitted() == 3
      end, 2)
      assert.is_true(producer:stats().consumers <= 3)
    end
  end)

  it("admits one that waits as soon as another leaves, whatever its backoff", function()
    for _, place in ipairs({ "local", "tcp" }) do
      local a, b = support.nodes(place)
      local producer = a:produce("stream", { max_consumers = 1 })
      local first = assert(b:consumer("stream", nil, 5))
      local second = b:consume("stream", { online_when = 1, backoff = { initial = 30, max = 60 } })
      eventually(function()
        local source = second:producers()[1]
        return source and source.state == "pausing"
      end)
      first:close()
      assert(second:when():online(2))
      assert.equal(1, producer:stats().consumers)
      support.cleanup()
    end
  end)

  it("flushes: true when every consumer's application has taken what was sent", function()
    for _, place in ipairs(support.places) do
      local producer, consumer = support.stream(place)
      assert.is_true(producer:flush(1))
      for i = 1, 100 do
        assert(producer:send(tostring(i)))
      end
      local err = fails("timeout", producer:flush(0.02))
      assert.equal("stream", err.stream)
      support.take(consumer, 99)
      fails("timeout", producer:flush(0.02))
      local flushed = weir.spawn(producer.flush, producer, 5)
      weir.sleep(0)
      support.take(consumer, 1)
      assert.is_true(flushed:join(5))
      assert.equal(0, producer:stats().queued)
      support.cleanup()
    end
  end)

  it("ends a flush when the consumer that it waits for leaves", function()
    local producer, consumer = support.stream("tcp")
    assert(producer:send("x"))
    local flushed = weir.spawn(producer.flush, producer, 5)
    weir.sleep(0.01)
    assert.equal("running", flushed:status())
    consumer:close()
    assert.is_true(flushed:join(2))
  end)

  it("closes at its deadline when a consumer does not take everything", function()
    for _, place in ipairs(support.places) do
      local producer, consumer = support.stream(place)
      assert(producer:send("untaken"))
      local started = weir.now()
      fails("timeout", producer:close(0.1))
      assert.is_true(weir.now() - started < 2)
      fails("closed", producer:send("x"))
      eventually(function()
        return consumer:producers()[1].closed
      end)
      assert.equal(204, consumer:producers()[1].closed.status)
      support.cleanup()
    end
  end)

  it("takes no new consumers and no messages while it drains", function()
    local producer, consumer, a, b = support.stream("tcp")
    assert(producer:send("last"))
    local closing = weir.spawn(producer.close, producer, 5)
    weir.sleep(0)
    fails("closed", producer:try_send("x"))
    fails("closed", producer:send("x"))
    assert.is_false(producer:is_online())
    fails("not_found", b:consumer("stream", nil, 0.1))
    assert.equal("last", consumer:recv(1))
    assert.is_true(closing:join(2))
    assert.are_not.equal(producer, a:produce("stream"))
  end)

  it("remembers no more subscribers than there are", function()
    local a, b = support.nodes("mem")
    local producer = a:produce("stream")
    for _ = 1, 200 do
      assert(b:consumer("stream", nil, 5)):close()
    end
    eventually(function()
      return producer:stats().consumers == 0
    end)
    local count = 0
    for _ in pairs(producer.subscribers) do
      count = count + 1
    end
    assert.is_true(count < 50, count .. " are remembered")
  end)

  it("says what it is", function()
    local producer = support.stream("local")
    assert.equal("weir.producer(stream, online, 1 consumers)", tostring(producer))
    assert.matches("weir.when%(weir.producer", tostring(producer:when()))
  end)
end)
