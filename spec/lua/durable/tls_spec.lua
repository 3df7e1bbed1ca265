--- Certificates, good and bad, of servers and of clients.
local durable = require("weir.durable")
local here = require("spec.lua.durable.support")
local luv = require("luv")
local peers = require("spec.lua.peers")
local runtime = require("weir.runtime")
local support = require("spec.lua.support")
local weir = require("weir")

local fails = support.fails
local RETRY = { initial = 0.001, max = 0.01, max_retries = 10 }

-- A server: port, certificate twice, more.
local SERVER = [[
  server {
    listen 127.0.0.1:%d ssl http2;
    ssl_certificate %s.pem; ssl_certificate_key %s.key;
    %s
    location / { proxy_pass http://127.0.0.1:%d; proxy_http_version 1.1; }
  }
]]

describe("Over TLS", function()
  if not here.installed("nginx", "openssl", "setpriv") then
    return
  end

  local dir, ca, mine, stranger, server, nginx
  local ports, count = {}, 0

  setup(function()
    dir = peers.directory()
    ca = peers.authority(dir, "ca")
    local other = peers.authority(dir, "other")
    mine, stranger = peers.certificate(ca, "client"), peers.certificate(other, "stranger")
    local good = peers.certificate(ca, "good")
    local certificates = {
      good = good,
      demanding = good,
      expired = peers.certificate(ca, "expired", { days = -1 }),
      misnamed = peers.certificate(ca, "misnamed", { names = "DNS:other.example" }),
      unknown = stranger,
    }
    server = here.server({ long_poll = 100 })
    local blocks = {}
    for name, cert in pairs(certificates) do
      ports[name] = peers.free_port()
      local more = name == "demanding" and ("ssl_verify_client on; ssl_client_certificate %s.pem;"):format(ca) or ""
      blocks[#blocks + 1] = SERVER:format(ports[name], cert, cert, more, server.port)
    end
    nginx = peers.nginx(dir, table.concat(blocks), ports.good)
  end)

  teardown(function()
    nginx:stop()
    server:stop()
    peers.remove(dir)
  end)

  -- Runs fn(stream of the server with that certificate).
  local function on(name, tls, fn)
    weir.run(function()
      count = count + 1
      local client = durable.client({
        base_url = "https://localhost:" .. ports[name],
        tls = tls,
        retry = RETRY,
        timeout = 10,
      })
      here.closing({ client }, fn, client:stream("/tls-" .. count, { content_type = "text/plain" }))
    end)
  end

  local function works(stream)
    assert(stream:create())
    local producer = stream:producer()
    assert(producer:append("one,"))
    assert(producer:close("two", 10))
    for _, live in ipairs({ false, "long-poll", "sse" }) do
      assert.equal("one,two", stream:read({ live = live }):body())
    end
  end

  -- The operation fails at once, as no repetition mends it.
  local function refused(stream, pattern)
    for _, try in ipairs({
      function() return stream:create() end,
      function() return stream:read({ live = "sse" }):body() end,
      function()
        local producer = stream:producer()
        assert(producer:append("x"))
        local ok, err = producer:flush(5)
        producer:detach()
        return ok or nil, err
      end,
    }) do
      local err = fails("network", try())
      assert.matches(pattern, err.message)
      assert.matches("localhost:%d+/tls%-", err.message)
      assert.equal("tls", err.cause.code)
      assert.is_false(err.cause.sent)
      assert.equal(0, err.retries or 0)
    end
  end

  it("a server whose certificate is right is used, and nothing is asked of the system's list", function()
    on("good", { ca = ca .. ".pem" }, works)
    on("good", { ca = peers.read_file(ca .. ".pem") }, works)
  end)

  for name, pattern in pairs({
    expired = "certificate has expired",
    misnamed = "no alternative certificate subject name matches target host name 'localhost'",
    unknown = "unable to get local issuer certificate",
  }) do
    it(("a server is refused when its certificate is %s, and the error says so"):format(name), function()
      on(name, { ca = ca .. ".pem" }, function(stream)
        refused(stream, pattern)
      end)
    end)

    it(("a server whose certificate is %s is used when nothing is to be verified"):format(name), function()
      on(name, { verify = false }, works)
    end)
  end

  it("a certificate that nobody vouches for is refused where no ca is given", function()
    on("good", nil, function(stream)
      refused(stream, "unable to get local issuer certificate")
    end)
  end)

  describe("a server that wants a certificate of the client", function()
    it("gets it, from files or as text", function()
      on("demanding", { ca = ca .. ".pem", cert = mine .. ".pem", key = mine .. ".key" }, works)
      on("demanding", {
        ca = peers.read_file(ca .. ".pem"),
        cert = peers.read_file(mine .. ".pem"),
        key = peers.read_file(mine .. ".key"),
      }, works)
    end)

    it("says what is wrong when there is none, or one of a stranger", function()
      on("demanding", { ca = ca .. ".pem" }, function(stream)
        local _, err = stream:create()
        assert.equal(400, err.status)
        assert.matches("No required SSL certificate was sent", err.message)
      end)
      on("demanding", { ca = ca .. ".pem", cert = stranger .. ".pem", key = stranger .. ".key" }, function(stream)
        local _, err = stream:create()
        assert.equal(400, err.status)
        assert.matches("The SSL certificate error", err.message)
      end)
    end)

    it("is not reached with files that are not there, or that do not belong together", function()
      on("demanding", { ca = ca .. ".pem", cert = dir .. "/none.pem", key = mine .. ".key" }, function(stream)
        refused(stream, "none%.pem")
      end)
      on("demanding", { ca = ca .. ".pem", cert = mine .. ".pem", key = stranger .. ".key" }, function(stream)
        refused(stream, "private key")
      end)
      on("demanding", { ca = dir .. "/none.pem" }, function(stream)
        refused(stream, "none%.pem")
      end)
    end)

    for _, version in ipairs({ "1.2", "1.3" }) do
      it(("may break off without one: an error that no repetition mends, with TLS %s"):format(version), function()
        local port = peers.free_port()
        local picky = peers.start("openssl", {
          "s_server", "-accept", "127.0.0.1:" .. port, "-cert", dir .. "/good.pem", "-key", dir .. "/good.key",
          "-CAfile", ca .. ".pem", "-Verify", "1", "-verify_return_error", "-www", "-quiet",
          version == "1.2" and "-tls1_2" or "-tls1_3",
        }):await(port)
        local url = ("https://localhost:%d/"):format(port)
        for _, who in ipairs({ false, stranger, mine }) do
          local client = durable.client({
            tls = { ca = ca .. ".pem", cert = who and who .. ".pem" or nil, key = who and who .. ".key" or nil },
            retry = RETRY,
          })
          local answer, err = client:stream(url):read():body()
          client:close()
          if who == mine then
            assert(answer or err.code == "parse_error", err)
          else
            fails("network", answer, err)
            assert.equal("tls", err.cause.code)
            assert.matches(who and "unknown ca" or version == "1.2" and "handshake failure" or "certificate required",
              err.message)
          end
        end
        picky:stop()
      end)
    end
  end)

  describe("a connection that breaks during the handshake", function()
    for _, how in ipairs({ "close", "close_reset" }) do
      it("is a broken connection, and no matter of certificates: " .. how, function()
        local listener = luv.new_tcp()
        assert(listener:bind("127.0.0.1", 0))
        listener:listen(8, function()
          local conn = luv.new_tcp()
          listener:accept(conn)
          conn:read_start(function()
            if not conn:is_closing() then
              conn[how](conn)
            end
          end)
        end)
        local carrier = runtime.http({ ca = ca .. ".pem" })
        local url = ("https://127.0.0.1:%d/"):format(listener:getsockname().port)
        local err = fails("network", carrier:request({ url = url, timeout = 5 }))
        assert.is_false(err.sent)
        carrier:close()
        support.close(listener)
      end)
    end

    it("is made again", function()
      local limits = { 0, 100, 1000 }
      local tunnel = here.tunnel({ port = ports.good }, function(n)
        return { down = limits[n] }
      end)
      local client = durable.client({
        base_url = "https://localhost:" .. tunnel.port,
        tls = { ca = ca .. ".pem" },
        retry = RETRY,
        timeout = 10,
      })
      works(client:stream("/tls-again", { content_type = "text/plain" }))
      assert.is_true(tunnel.connections > #limits)
      client:close()
      tunnel:close()
    end)

    it("is not, when it is not TLS that is spoken there", function()
      local client = durable.client({ base_url = "https://localhost:" .. server.port, timeout = 10 })
      refused(client:stream("/tls-none", { content_type = "text/plain" }), "wrong version number")
      client:close()
    end)
  end)
end)
