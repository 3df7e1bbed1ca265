local weir = require("weir")
local runtime = require("weir.runtime")
local support = require("spec.lua.streams.support")
local it = support.tests(it)
local fails, eventually, raises = support.fails, support.eventually, support.raises

for _, kind in ipairs(support.transports) do
  describe("nodes (" .. kind .. ")", function()
    it("know each other by id, tags and address once they are connected", function()
      local a, b = support.nodes(kind, { tags = { "red", "big" } }, { tags = { "blue" } })
      local there = b:peers()[1]
      assert.equal(a.as_peer.id, there.id)
      assert.same({ "red", "big", red = true, big = true }, there.tags)
      assert.equal("connected", there.state)
      assert.equal(a:addresses()[1], there.url)
      assert.is_nil(there.error)
      local here = a:peers()[1]
      assert.equal(b.as_peer.id, here.id)
      assert.is_true(here.tags.blue)
      assert.equal("connected", here.state)
      assert.is_string(here.url)
      eventually(function()
        return b:peers()[1].rtt
      end)
      local rtt = b:peers()[1].rtt
      assert.is_true(rtt > 0 and rtt < 1)
    end)

    it("count what they have", function()
      local a, b = support.nodes(kind)
      a:produce("one")
      a:produce("two")
      b:consume("one")
      b:consume("one")
      local stats = a:stats()
      assert.same({ 1, 1, 1, 2, 0, 0 }, {
        stats.connected,
        stats.sessions,
        stats.inbound,
        stats.producers,
        stats.consumers,
        stats.refused,
      })
      assert.is_nil(stats.last_refusal)
      assert.is_true(stats.uptime > 0)
      stats = b:stats()
      assert.same({ 1, 0, 0, 2 }, { stats.connected, stats.inbound, stats.producers, stats.consumers })
    end)

    it("are gone for each other when one is closed, and leave no session behind", function()
      local a, b = support.nodes(kind)
      local producer, consumer = a:produce("stream"), b:consume("stream")
      assert(producer:when():online(5))
      assert.is_true(b:close())
      fails("closed", consumer:recv())
      assert(producer:when():offline(5))
      eventually(function()
        return a:stats().sessions == 0
      end)
      assert.same({}, a:peers())
      assert.is_true(b:close())
      assert.matches("closed", tostring(b))
      assert.matches("produce: the node was closed", raises(b.produce, b, "x"))
      assert.matches("consume: the node was closed", raises(b.consume, b, "x"))
      fails("closed", b:wait_connected(1))
    end)

    it("may not both listen on one address, but one after the other", function()
      local a = support.network({ listen = support.address(kind) })
      local url = a:addresses()[1]
      local err = fails("in_use", weir.network({ listen = url }))
      assert.equal(url, err.url)
      assert.matches("cannot listen on", err.message)
      a:close(0)
      support.network({ listen = url })
    end)
  end)
end

describe("weir.network", function()
  it("listens on several addresses", function()
    local a = support.network({ listen = { support.address("mem"), support.address("unix"), support.address("tcp") } })
    for _, url in ipairs(a:addresses()) do
      assert.not_matches(":0$", url)
      local b = support.network({ peers = url })
      assert(b:wait_connected(1, 5))
    end
    eventually(function()
      return a:stats().connected == 3
    end)
    assert(a:wait_connected(3, 1))
    fails("timeout", a:wait_connected(4, 0.01))
  end)

  it("opens nothing when one of the addresses cannot be", function()
    local url = support.address("mem")
    fails("in_use", weir.network({ listen = { url, url } }))
    support.network({ listen = url })
  end)

  it("says no to addresses that other machines reach, and why", function()
    for _, url in ipairs({ "tcp://0.0.0.0:0", "tcp://[::]:0" }) do
      local err = fails("insecure", weir.network({ listen = url }))
      assert.matches("can be reached from other machines", err.message)
      assert.matches("neither encrypted nor authenticated", err.message)
      assert.matches("insecure = true", err.message)
    end
    support.network({ listen = "tcp://0.0.0.0:0", insecure = true })
  end)

  it("says what is wrong with a URL", function()
    for url, text in pairs({
      ["localhost:80"] = "expected tcp://host:port, unix://path or mem://name",
      ["http://localhost:80"] = 'unknown scheme "http"; known are: mem, tcp, unix',
      ["tcp://localhost"] = "the port is missing",
      ["tcp://localhost:99999"] = "a port is 0 to 65535",
      ["tcp://::1:80"] = "stands in brackets",
      ["unix://"] = "the path is missing",
      ["unix:///" .. ("x"):rep(200)] = "at most 107 bytes",
      ["mem://a b"] = "a name has letters",
    }) do
      for _, option in ipairs({ "listen", "peers" }) do
        local err = fails("bad_url", weir.network({ [option] = { url } }))
        assert.is_truthy(err.message:find(text, 1, true), err.message)
      end
    end
    local err = fails("bad_url", weir.network({ peers = "tcp://127.0.0.1:0" }))
    assert.matches("port 0 is for listening only", err.message)
  end)

  it("says why a peer cannot be reached", function()
    local closed = support.network({ listen = support.address("tcp") })
    local refused = closed:addresses()[1]
    closed:close(0)
    for url, case in pairs({
      [refused] = { "refused", "start the other side or check the address" },
      ["unix:///nonexistent/weir.sock"] = { "refused", "start the other side or check the path" },
      ["mem://nobody"] = { "refused", "no node of this process listens there" },
      ["tcp://host.invalid:7000"] = { "unresolved", "check its spelling" },
    }) do
      local node = support.network({ peers = url })
      local err = eventually(function()
        return node:peers()[1].error
      end)
      assert.equal(case[1], err.code)
      assert.equal(url, err.url)
      assert.is_truthy(err.message:find(case[2], 1, true), err.message)
      assert.is_true(node:peers()[1].state == "pausing" or node:peers()[1].state == "connecting")
      fails(case[1], node:wait_connected(1, 0.01))
    end
  end)

  it("says what is wrong with a unix socket's path", function()
    local err = fails("denied", weir.network({ listen = "unix:///nonexistent/weir.sock" }))
    assert.matches("does not exist", err.message)
    local path = os.tmpname()
    fails("in_use", weir.network({ listen = "unix://" .. path }))
    assert.is_truthy(io.open(path)) -- a file that is no socket is left alone
    os.remove(path)
  end)

  it("raises for options that are wrong, and says what would be right", function()
    for _, case in ipairs({
      { { listn = "mem://x" }, "unknown option 'listn'; known are: backoff, connect_timeout, handshake_timeout" },
      { { listen = 5 }, "option 'listen' must be a table or a string, not a number" },
      { { listen = { 5 } }, "listen%[1%] must be a URL, not a number" },
      { { peers = { {} } }, "peers%[1%] must be a URL, not a table" },
      { { tags = "x" }, "option 'tags' must be a table" },
      { { tags = { "" } }, "tags%[1%] must be a string of 1 to 64 bytes" },
      { { tags = { ("x"):rep(65) } }, "tags%[1%] must be a string of 1 to 64 bytes" },
      { { tags = { 5 } }, "tags%[1%] must be a string" },
      { { name = 5 }, "option 'name' must be a string" },
      { { connect_timeout = 0 }, "option 'connect_timeout' must be a number of seconds, more than 0, not 0" },
      { { handshake_timeout = -1 }, "'handshake_timeout' must be a number of seconds" },
      { { keepalive = 0 / 0 }, "'keepalive' must be a number of seconds" },
      { { max_sessions = 0 }, "'max_sessions' must be a whole number from 1" },
      { { max_sessions = 1.5 }, "'max_sessions' must be a whole number" },
      { { backoff = { initial = -1 } }, "backoff" },
      { { backoff = { inital = 1 } }, "inital" },
      { { insecure = 1 }, "option 'insecure' must be a boolean" },
      { 5, "options must be a table, not number" },
    }) do
      local text = raises(weir.network, case[1])
      assert.matches(case[2], text)
      assert.matches("weir.network", text)
    end
    local tags = {}
    for i = 1, 65 do
      tags[i] = "tag" .. i
    end
    assert.matches("at most 64 tags", raises(weir.network, { tags = tags }))
    assert.matches("network_spec.lua:%d+: weir.network: unknown option", raises(function()
      weir.network({ nothing = 1 })
    end))
  end)

  it("connects to nobody and needs nobody", function()
    local node = support.network()
    assert.same({}, node:addresses())
    assert.same({}, node:peers())
    assert.matches("^weir.network%(weir, %x+%)$", tostring(node))
    assert.is_true(node:close())
  end)
end)

describe("closing", function()
  it("a consumer or a producer frees its streams on the connection", function()
    local a, b = support.nodes("tcp")
    local session = next(a.sessions)
    local function streams()
      return session.core:streams()
    end
    assert.equal(1, streams())
    local producers, consumers = {}, {}
    for i = 1, 10 do
      producers[i] = a:produce("stream " .. i)
      consumers[i] = assert(b:consumer("stream " .. i, nil, 5))
    end
    assert.equal(11, streams())
    for i = 1, 5 do
      consumers[i]:close()
    end
    eventually(function()
      return streams() == 6
    end)
    for i = 1, 10 do
      assert(producers[i]:close(5))
    end
    eventually(function()
      return streams() == 1
    end)
    assert.is_nil(next(a.producers))
    assert.is_nil(next(session.offered))
    eventually(function()
      return next(next(b.sessions).offered) == nil
    end)
  end)

  it("a node removes the file of its unix socket", function()
    local a = support.network({ listen = support.address("unix") })
    local path = a:addresses()[1]:match("^unix://(.*)")
    assert.is_truthy(require("luv").fs_stat(path))
    a:close()
    eventually(function()
      return not require("luv").fs_stat(path)
    end)
  end)
end)

describe("a closing node", function()
  it("drains its producers first, and tells when one could not", function()
    local a, b = support.nodes("tcp")
    local producer = a:produce("stream")
    local consumer = assert(b:consumer("stream", nil, 5))
    assert(producer:when():online(5))
    for i = 1, 100 do
      assert(producer:send(tostring(i)))
    end
    local closing = weir.spawn(a.close, a, 5)
    support.take(consumer, 100)
    assert.is_true(closing:join(5))
    local c, d = support.nodes("tcp")
    local stalled = c:produce("stream")
    assert(d:consumer("stream", nil, 5))
    assert(stalled:send("never taken", 5))
    local started = runtime.now()
    fails("timeout", c:close(0.1))
    assert.is_true(runtime.now() - started < 2)
    eventually(function()
      return d:stats().connected == 0
    end)
  end)

  it("does not wait with a timeout of 0", function()
    local a, b = support.nodes("tcp")
    local producer = a:produce("stream")
    assert(b:consumer("stream", nil, 5))
    assert(producer:send("never taken", 5))
    local started = runtime.now()
    a:close(0)
    assert.is_true(runtime.now() - started < 0.1)
    eventually(function()
      return b:stats().connected == 0
    end)
  end)

  it("ends those who wait for its peers", function()
    local node = support.network({ listen = support.address("mem") })
    local waiting = weir.spawn(node.wait_connected, node, 1)
    weir.sleep(0)
    node:close()
    fails("closed", waiting:join(1))
  end)

  it("stops trying to reach its peers", function()
    local node = support.network({ peers = "mem://nobody" })
    weir.sleep(0.05)
    node:close()
    assert.equal("pausing", node:peers()[1].state)
    local other = support.network({ listen = "mem://nobody" })
    weir.sleep(0.3)
    assert.equal(0, other:stats().inbound)
  end)
end)
