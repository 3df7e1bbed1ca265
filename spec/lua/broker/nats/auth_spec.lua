local fails = require("spec.lua.support").fails
local servers = require("spec.lua.nats_server")
local shell = require("spec.house.shell")
local tasks = require("weir.task")

if not servers.available() then
  return pending("nats-server or libnats is not installed: spec/setup test")
end

local nats = require("weir.broker.nats")
local support = require("spec.lua.broker.nats.support")

-- Nothing that a broker says of itself has a secret in it.
local function check_secrecy(broker, secret, err)
  local texts = { tostring(broker), tostring(err), tostring(select(2, broker:state())) }
  for _, value in pairs(broker:describe()) do
    texts[#texts + 1] = tostring(value)
  end
  for _, text in ipairs(texts) do
    assert.is_nil(text:find(secret, 1, true), text)
  end
end

describe("credentials of the NATS broker", function()
  local server
  after_each(function()
    support.shut_down()
    server:stop()
  end)

  it("are a user and password", function()
    server = servers.start({ config = "authorization { user: ann, password: s3cret }" })
    local broker = support.broker(server, { user = "ann", password = "s3cret" })
    assert(broker:publisher():flush(5))
    check_secrecy(broker, "s3cret")
    local in_url = support.broker({ url = ("nats://ann:s3cret@127.0.0.1:%d"):format(server.port) })
    check_secrecy(in_url, "s3cret")
    assert.equal("127.0.0.1:" .. server.port, in_url:describe().host)
  end)

  it("need no right to publish to an inbox for a flush", function()
    local config = 'authorization { users: [ { user: ann, password: s3cret, permissions: { publish: "a" } } ] }'
    server = servers.start({ config = config })
    local broker = support.broker(server, { user = "ann", password = "s3cret" })
    local seen = assert(broker:subscribe("a"))
    local publisher = broker:publisher()
    assert(publisher:publish("a", "x"))
    assert(publisher:flush(5))
    assert.equal("x", assert(seen:next(5)).payload)
  end)

  it("are a token", function()
    server = servers.start({ config = "authorization { token: t0ken }" })
    support.broker(server, { token = "t0ken" })
    local wrong = nats.new({ url = server.url, token = "wr0ng" })
    local _, err = wrong:connect(5)
    fails("unauthorized", nil, err)
    check_secrecy(wrong, "wr0ng", err)
  end)

  it("are a key whose seed is in a file", function()
    local public = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"
    server = servers.start({ config = ("authorization { users: [ { nkey: %s } ] }"):format(public) })
    local file = os.tmpname()
    shell.write(file, "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY\n")
    local broker = support.broker(server, { nkey = { public = public, seed = file } })
    assert(broker:publisher():flush(5))
    os.remove(file)
  end)

  it("that are refused fail the broker at once, and are not tried in a loop", function()
    server = servers.start({ config = "authorization { user: ann, password: s3cret }" })
    local broker = nats.new({ url = server.url, user = "ann", password = "wr0ng" })
    local _, err = broker:connect(5)
    fails("unauthorized", nil, err)
    local state, reason = broker:state()
    assert.equal("failed", state)
    assert.equal("unauthorized", reason.code)
    check_secrecy(broker, "wr0ng", err)
    fails("unauthorized", broker:subscribe("x"))
    tasks.sleep(0.3)
    local _, refusals = server:log():gsub("authentication error", "")
    assert.equal(1, refusals)
    broker:shutdown(1)
  end)

  it("that are refused after an outage fail the broker and end its subscriptions", function()
    server = servers.start({ config = "authorization { user: ann, password: s3cret }" })
    local broker = support.broker(server, { user = "ann", password = "s3cret" })
    local subscription = assert(broker:subscribe("x"))
    local waiting = tasks.spawn(function()
      return select(2, subscription:next(30)).code
    end)
    server:kill()
    local file = assert(io.open(server.dir .. "/server.conf", "w"))
    file:write("authorization { user: ann, password: changed }")
    file:close()
    server:start()
    local reason = support.until_state(broker, "failed", 20)
    assert.equal("unauthorized", reason.code)
    assert.equal("unauthorized", waiting:join(5))
    fails("unauthorized", broker:publisher():publish("x", "y"))
    local _, refusals = server:log():gsub("authentication error", "")
    assert.is_true(refusals <= 3, tostring(refusals))
  end)

  it("may permit only some subjects: a subscription that is refused ends, a publish is reported", function()
    server = servers.start({
      config = [[authorization { users: [ { user: ann, password: p, permissions: {
        publish: [ "open.>", "_INBOX.>" ], subscribe: [ "open.>", "_INBOX.>" ] } } ] }]],
    })
    local broker = support.broker(server, { user = "ann", password = "p" })
    local shut, open = assert(broker:subscribe("shut.x")), assert(broker:subscribe("open.x"))
    fails("forbidden", shut:next(10))
    assert(broker:publisher():publish("shut.x", "x"))
    assert(broker:publisher():publish("open.x", "y"))
    assert.equal("y", assert(open:next(5)).payload)
    require("spec.lua.support").eventually(function()
      return broker:stats().last_fault and broker:stats().faults >= 2
    end)
    assert.equal("forbidden", broker:stats().last_fault.code)
    assert.equal("up", (broker:state()))
  end)
end)

describe("TLS of the NATS broker", function()
  local server, dir, remove

  local function certificate(name, alt)
    local line = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=%s "
      .. "-addext subjectAltName=%s -keyout %s/%s.key -out %s/%s.pem 2>/dev/null"
    shell.check(line:format(name, alt, dir, name, dir, name))
  end

  setup(function()
    dir, remove = shell.scratch()
    certificate("good", "IP:127.0.0.1")
    certificate("other", "DNS:elsewhere.example")
    certificate("client", "DNS:client")
    local tls = "tls { cert_file: '%s/good.pem', key_file: '%s/good.key', ca_file: '%s/client.pem', verify: true }"
    server = servers.start({ config = tls:format(dir, dir, dir), scheme = "tls" })
  end)
  teardown(function()
    server:stop()
    remove()
  end)
  after_each(support.shut_down)

  local function settings(ca, extra)
    local tls = { ca = ca, cert = dir .. "/client.pem", key = dir .. "/client.key", hostname = "127.0.0.1" }
    for name, value in pairs(extra or {}) do
      tls[name] = value
    end
    return { tls = tls }
  end

  it("verifies the server, shows a certificate, and carries messages of any size", function()
    local broker = support.broker(server, settings(dir .. "/good.pem"))
    local subscription = assert(broker:subscribe("a"))
    local publisher = broker:publisher()
    for _, size in ipairs({ 1, 20000, 1000000 }) do
      local payload = ("x"):rep(size)
      for _ = 1, 20 do
        assert(publisher:publish("a", payload))
      end
      for _ = 1, 20 do
        assert.is_true(assert(subscription:next(10)).payload == payload)
      end
    end
  end)

  it("takes certificates as text", function()
    local function text(name)
      return assert(shell.read(dir .. "/" .. name))
    end
    local tls = { ca = text("good.pem"), cert = text("client.pem"), key = text("client.key"), hostname = "127.0.0.1" }
    support.broker(server, { tls = tls })
  end)

  it("is restored after an outage", function()
    local broker = support.broker(server, settings(dir .. "/good.pem"))
    local subscription = assert(broker:subscribe("a"))
    server:kill()
    support.until_state(broker, "degraded")
    server:start()
    support.until_state(broker, "up", 20)
    assert(broker:publisher():publish("a", "x"))
    assert.equal("x", assert(subscription:next(5)).payload)
  end)

  it("refuses a server that it cannot verify, and one without a certificate of ours", function()
    local broker = nats.new({ url = server.url, tls = settings(dir .. "/other.pem").tls })
    fails("tls", broker:connect(5))
    assert.equal("failed", (broker:state()))
    local wrong_name = settings(dir .. "/good.pem", { hostname = "elsewhere.example" })
    fails("tls", nats.new({ url = server.url, tls = wrong_name.tls }):connect(5))
    assert.is_nil((nats.new({ url = server.url, tls = { ca = dir .. "/good.pem" } }):connect(5)))
  end)

  it("verifies nothing when told so", function()
    support.broker(server, settings(nil, { verify = false }))
  end)
end)
