local fails = require("spec.lua.support").fails
local servers = require("spec.lua.nats_server")

if not package.searchpath("weir.brokers.nats", package.cpath) then
  return pending("libnats is not installed: spec/setup test")
end

local contract = require("weir.broker.contract")
local nats = require("weir.broker.nats")

local function raises(text, opts)
  assert.error_matches(function()
    nats.new(opts)
  end, text)
end

describe("nats.new", function()
  it("makes a broker that fulfils the contract, and does no I/O", function()
    local broker = nats.new({ url = "nats://10.255.255.1:4222" })
    contract.check(broker)
    assert.equal("new", (broker:state()))
    assert.equal("weir.nats(10.255.255.1:4222, new)", tostring(broker))
    fails("disconnected", broker:publisher():publish("a", "b"))
    fails("disconnected", broker:subscribe("a"))
    assert.is_true(broker:shutdown(1))
    assert.equal("closed", (broker:state()))
  end)

  it("says what is wrong with its options", function()
    raises("did you mean 'token'", { tokne = "x" })
    raises("option 'url'", { url = "http://x" })
    raises("option 'url'", { url = "" })
    for _, host in ipairs({ "u:secret", "u:secret@", "u:secret@h:x", "h:0", "h:65536", "h:1?x", "[::1:2", "::1" }) do
      raises("\"nats://host:port\"", { url = "nats://" .. host })
      assert.is_nil(select(2, pcall(nats.new, { url = "nats://" .. host })):find("secret"))
    end
    assert(nats.new({ url = "nats://u:p@[::1]:4222,tls://h/,nats://a-b.c_d:65535" }))
    raises("1 to 64 servers", { url = {} })
    raises("needs the option 'user'", { password = "x" })
    raises("`public`", { nkey = { seed = "x" } })
    raises("belong together", { tls = { cert = "x" } })
    raises("hostname", { tls = { hostnam = "x" } })
    raises("'factor' must be at least 1", { backoff = { factor = 0 } })
    raises("'initial' must be more", { backoff = { initial = 5, max = 1 } })
    raises("publish_buffer", { publish_buffer = "much" })
    raises("connect_timeout", { connect_timeout = -1 })
    raises("max_reconnect", { max_reconnect = 1.5 })
    raises("buffer.messages", { buffer = { messages = 0 } })
    for _, prefix in ipairs({ "", "a b", "a\r\nPUB b", "a.*", "a.", ".a", "a..b", ("x"):rep(256) }) do
      raises("'inbox_prefix'", { inbox_prefix = prefix })
    end
    raises("'domain'", { domain = "a.b" })
  end)

  it("describes its servers without credentials", function()
    local broker = nats.new({ url = "nats://u:pw@a:1, nats://token@b:2" })
    assert.equal("a:1,b:2", broker:describe().host)
    assert.equal("nats", broker:describe().protocol)
  end)

  it("is collected with what it began, when nobody shuts it down", function()
    if not servers.available() then
      return pending("nats-server is not installed: spec/setup test")
    end
    local server = servers.start()
    for _ = 1, 5 do
      local broker = nats.new({ url = server.url })
      assert(broker:connect(5))
      local subscription = assert(broker:subscribe("a"))
      assert(broker:publisher():publish("a", "x"))
      assert(subscription:next(5))
    end
    collectgarbage()
    collectgarbage()
    require("spec.lua.support").eventually(function()
      return not server:connections()
    end)
    server:stop()
  end)

  it("says what to install where it was not built", function()
    local path = package.searchpath("weir.broker.nats.connection", package.path)
    local preloaded, loaded = package.cpath, package.loaded["weir.brokers.nats"]
    package.cpath, package.loaded["weir.brokers.nats"] = "", nil
    local ok, why = pcall(dofile, path)
    package.cpath, package.loaded["weir.brokers.nats"] = preloaded, loaded
    assert.is_false(ok)
    assert.is_truthy(tostring(why):find("libnats-dev", 1, true), tostring(why))
  end)
end)

describe("descriptors of the NATS broker", function()
  it("are names, tables or made by nats.subject and nats.jetstream", function()
    local broker = nats.new()
    local plain = assert(broker:descriptor("orders"))
    assert.equal("orders", plain.name)
    assert.is_nil(plain.pattern)
    assert.equal(plain, broker:descriptor(plain))
    assert.is_true(assert(broker:descriptor("orders.*")).pattern)
    assert.equal("jetstream", assert(broker:descriptor({ name = "a", durable = "d" })).kind)
    assert.equal("g", assert(broker:descriptor({ name = "a", group = "g" })).group)
    assert.is_true(broker:capabilities(assert(nats.jetstream({ name = "a" }))).ack)
    assert.is_nil(broker:capabilities(plain).ack)
  end)

  it("list everything that is wrong", function()
    local _, err = nats.jetstream({
      name = "a b",
      durable = "x.y",
      deliver_policy = "some",
      start_sequence = 0,
      create = { storage = "disk" },
      batch = 0,
    })
    fails("invalid", nil, err)
    assert.equal(8, #err.problems, err.message)
    fails("invalid", nats.jetstream({}))
    fails("invalid", nats.jetstream({ name = "a", deliver_policy = "all", start_sequence = 2 }))
    fails("invalid", nats.jetstream({ name = "a", dureble = "x" }))
    fails("invalid", nats.subject("a", { group = "a b" }))
    fails("invalid", nats.subject("", {}))
  end)
end)
