local luv = require("luv")
local weir = require("weir")
local support = require("spec.lua.streams.support")
local it = support.tests(it)
local fails, eventually = support.fails, support.eventually

-- A TCP relay between two nodes, whose connections can be cut.
local function relay(url)
  local port = tonumber(url:match(":(%d+)$"))
  local server, links = luv.new_tcp(), {}
  server:bind("127.0.0.1", 0)
  local function pipe(from, to, link)
    from:read_start(function(_, data)
      if data and not to:is_closing() then
        to:write(data)
      else
        link.cut()
      end
    end)
  end
  server:listen(16, function()
    local near, far = luv.new_tcp(), luv.new_tcp()
    server:accept(near)
    local link = {}
    function link.cut()
      links[link] = nil
      for _, each in ipairs({ near, far }) do
        if not each:is_closing() then
          each:close()
        end
      end
    end
    links[link] = true
    far:connect("127.0.0.1", port, function(err)
      if err then
        return link.cut()
      end
      pipe(near, far, link)
      pipe(far, near, link)
    end)
  end)
  local self = { url = "tcp://127.0.0.1:" .. server:getsockname().port }
  function self.cut()
    for link in pairs(links) do
      link.cut()
    end
  end
  function self.close()
    server:close()
    self.cut()
    weir.sleep(0.001)
  end
  return self
end

for _, kind in ipairs(support.transports) do
  describe("reconnecting (" .. kind .. ")", function()
    it("happens when the listener is there only later", function()
      local url = kind == "tcp" and support.network({ listen = support.address("tcp") }):addresses()[1]
        or support.address(kind)
      support.cleanup()
      local b = support.network({ peers = url })
      local consumer = b:consume("stream")
      fails("refused", b:wait_connected(1, 0.05))
      eventually(function()
        local peer = b:peers()[1]
        return peer.error and peer.error.code == "refused"
      end)
      assert.matches("^cannot connect to " .. kind, b:peers()[1].error.message)
      local a = support.network({ listen = url })
      assert(b:wait_connected(1, 5))
      assert.is_nil(b:peers()[1].error)
      assert(a:produce("stream"):send("x", 5))
      assert.equal("x", consumer:recv(5))
    end)

    it("happens when the other node is made anew on the same address", function()
      local a, b = support.nodes(kind)
      local url = a:addresses()[1]
      local consumer = b:consume("stream", { online_when = 1, backoff = support.quick })
      for round = 1, 3 do
        local producer = a:produce("stream")
        assert(producer:send("round " .. round, 5))
        assert.equal("round " .. round, consumer:recv(5))
        a:close(round == 2 and 0 or 5)
        assert(consumer:when():offline(5))
        a = support.network({ listen = url })
        assert(b:wait_connected(1, 5))
      end
    end)

    it("tells why when the other node was closed", function()
      local a, b = support.nodes(kind)
      a:close()
      local peer = eventually(function()
        local peer = b:peers()[1]
        return peer.error and peer
      end)
      assert.equal("shutdown", peer.error.code)
      assert.equal(204, peer.error.status)
      assert.matches("the node was closed", peer.error.message)
      assert.equal(0, b:stats().connected)
    end)
  end)
end

describe("reconnecting", function()
  it("goes on with the same producer: what comes and what is counted as missed is all there was", function()
    local a = support.network({ listen = support.address("tcp") })
    local between = relay(a:addresses()[1])
    local b = support.network({ peers = between.url })
    assert(b:wait_connected(1, 5))
    local producer = a:produce("stream", { online_when = 0, lag = "block" })
    local consumer = assert(b:consumer("stream", { backoff = support.quick }, 5))
    local last, count = -1, 0
    local reader = weir.spawn(function()
      for value, meta in consumer:each() do
        assert(meta.sequence > last and value == tostring(meta.sequence))
        last, count = meta.sequence, count + 1
      end
    end)
    local sent = 0
    for round = 1, 10 do
      local more = 500
      while more > 0 do
        assert(producer:send(tostring(sent), 5))
        sent, more = sent + 1, more - 1
        if more == 250 then
          between.cut()
        end
        if more % 10 == 0 then
          weir.sleep(0)
        end
      end
      eventually(function()
        return producer:stats().consumers == 1 and consumer:stats().producers == 1
      end)
      assert(round)
    end
    assert(producer:send(tostring(sent), 5))
    eventually(function()
      return last == sent
    end)
    assert.equal(sent + 1, count + consumer:stats().dropped)
    assert.is_true(count > 2000)
    consumer:close()
    reader:join(1)
    between.close()
  end)

  it("keeps the position though it is refused in between", function()
    local a = support.network({ listen = support.address("tcp") })
    local between = relay(a:addresses()[1])
    local b = support.network({ peers = between.url })
    local producer = a:produce("stream", { max_consumers = 1, online_when = 0 })
    local consumer = b:consume("stream", { backoff = support.quick, online_when = 1 })
    assert(consumer:when():online(5))
    assert(producer:send("0"))
    assert.equal("0", consumer:recv(5))
    between.cut()
    eventually(function()
      return producer:stats().consumers == 0
    end)
    local squatter = a:consume("stream")
    eventually(function()
      local source = consumer:producers()[1]
      return source and source.closed and source.closed.status == 10509
    end)
    for i = 1, 5 do
      assert(producer:send(tostring(i)))
    end
    support.take(squatter, 5)
    squatter:close()
    assert(consumer:when():online(5))
    assert(producer:send("6"))
    assert.equal("6", consumer:recv(5))
    assert.equal(5, consumer:stats().dropped)
    between.close()
  end)

  it("does not heap up what an application does not take, however often connections come and go", function()
    local a = support.network({ listen = support.address("tcp") })
    local between = relay(a:addresses()[1])
    local b = support.network({ peers = between.url })
    local producer = a:produce("stream", { online_when = 0 })
    local consumer = b:consume("stream", { buffer = { messages = 10 }, backoff = support.quick })
    eventually(function()
      return producer:stats().consumers == 1
    end)
    for _ = 1, 10 do
      for _ = 1, 50 do
        producer:try_send("x")
      end
      weir.sleep(0.005)
      between.cut()
      eventually(function()
        return b:peers()[1].state ~= "connected"
      end)
      assert(b:wait_connected(1, 5))
    end
    assert.equal(10, consumer:stats().queued)
    assert.equal(1, #consumer.core:inlets())
    support.take(consumer, 10)
    eventually(function()
      return consumer:stats().producers == 1
    end)
    assert(producer:send("last", 5))
    repeat
      local value = assert(consumer:recv(5))
    until value == "last"
    between.close()
  end)

  it("starts with short pauses again after a connection, and counts from its loss", function()
    local a = support.network({ listen = support.address("tcp") })
    local url = a:addresses()[1]
    local backoff = { initial = 0.01, factor = 2, max = 30, max_elapsed = 2, jitter = 0 }
    local b = support.network({ peers = url, backoff = backoff })
    assert(b:wait_connected(1, 5))
    local function outage(seconds)
      a:close(0)
      eventually(function()
        return b:peers()[1].state == "pausing"
      end)
      weir.sleep(seconds)
      a = support.network({ listen = url })
      local back = weir.now()
      assert(b:wait_connected(1, 5))
      return weir.now() - back
    end
    outage(0.35) -- pauses of 10, 20, 40, 80, 160, 320 ms
    assert.is_true(outage(0) < 0.2)
    weir.sleep(2) -- longer than max_elapsed
    assert.is_true(outage(0) < 0.2)
  end)

  it("is given up after max_elapsed, and waiting for it then ends", function()
    local a = support.network({ listen = support.address("tcp") })
    local url = a:addresses()[1]
    a:close(0)
    local b = support.network({ peers = url, backoff = { initial = 0.01, max_elapsed = 0.05 } })
    fails("refused", b:wait_connected(1))
    assert.equal("given up", b:peers()[1].state)
    fails("no_peers", support.network():wait_connected(1))
  end)

  it("takes the other of two connections between the same nodes", function()
    local a = support.network({ listen = support.address("tcp") })
    local first, second = relay(a:addresses()[1]), relay(a:addresses()[1])
    local b = support.network({ peers = { first.url, second.url }, backoff = { initial = 60, max = 60 } })
    eventually(function()
      return b:stats().sessions == 2 and b:peers()[1].state == "connected" and b:peers()[2].state == "connected"
    end)
    assert.equal(1, b:stats().connected)
    local producer = a:produce("stream")
    local consumer = assert(b:consumer("stream", { backoff = support.quick }, 5))
    assert(producer:send("one", 5))
    assert.equal("one", consumer:recv(5))
    local used, other = first, second
    if consumer:producers()[1].url == second.url then
      used, other = second, first
    end
    used.cut()
    eventually(function()
      return b:stats().sessions == 1
    end)
    eventually(function()
      return consumer:stats().producers == 1
    end)
    assert(producer:send("two", 5))
    assert.equal("two", consumer:recv(5))
    assert.equal(other.url, consumer:producers()[1].url)
    support.silent(consumer)
    first.close()
    second.close()
  end)

  it("delivers once between two nodes that connect to each other", function()
    local a = support.network({ listen = support.address("tcp") })
    local b = support.network({ listen = support.address("unix"), peers = a:addresses() })
    local c_url = b:addresses()[1]
    a:close(0)
    a = support.network({ listen = a:addresses()[1], peers = c_url })
    eventually(function()
      return a:stats().sessions == 2 and b:stats().sessions == 2 and a:stats().connected == 1
    end)
    local producer = a:produce("stream")
    local consumer = assert(b:consumer("stream", nil, 5))
    for i = 1, 20 do
      assert(producer:send(tostring(i), 5))
      assert.equal(tostring(i), consumer:recv(5))
    end
    support.silent(consumer)
    assert.equal(1, producer:stats().consumers)
  end)

  it("of a node to itself is refused, and harms nothing", function()
    local probe = support.network({ listen = support.address("tcp") })
    local url = probe:addresses()[1]
    probe:close(0)
    for _, each in ipairs({ url, support.address("unix"), support.address("mem") }) do
      local node = support.network({ listen = each, peers = each })
      local err = eventually(function()
        return node:peers()[1].error
      end)
      assert.is_true(err.code == "cancelled" or err.code == "refused", tostring(err))
      assert.matches("itself", err.message)
      assert.equal(0, node:stats().connected)
      local producer, consumer = node:produce("stream"), node:consume("stream")
      assert(producer:send("x", 5))
      assert.equal("x", consumer:recv(5))
      assert.equal(1, consumer:stats().producers)
    end
  end)

  it("to another network is refused by name: 101", function()
    local a = support.network({ listen = support.address("tcp"), name = "red" })
    a:produce("stream")
    local b = support.network({ peers = a:addresses(), name = "blue" })
    local err = eventually(function()
      return b:peers()[1].error
    end)
    assert.equal("wrong_network", err.code)
    assert.equal(101, err.status)
    assert.matches("different networks", err.message)
    fails("wrong_network", b:wait_connected(1, 0.05))
    fails("not_found", b:consumer("stream", nil, 0.05))
    assert.equal("wrong_network", a:stats().last_refusal.code)
    local c = support.network({ peers = a:addresses(), name = "red" })
    assert(c:wait_connected(1, 5))
  end)
end)
