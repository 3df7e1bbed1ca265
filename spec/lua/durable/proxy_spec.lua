--- The reference server through a real forward proxy: as it is, and in a tunnel for https.
local durable = require("weir.durable")
local here = require("spec.lua.durable.support")
local peers = require("spec.lua.peers")
local weir = require("weir")

local RETRY = { initial = 0.001, max = 0.02, max_retries = 10 }

-- Ports of 127.0.0.1: of a server with TLS; the certificate, twice; the reference server; a forward
-- proxy; and the directory of its log.
local CONF = [[
  proxy_http_version 1.1;
  proxy_buffering off;
  server {
    listen 127.0.0.1:%d ssl http2;
    ssl_certificate %s.pem; ssl_certificate_key %s.key;
    location / { proxy_pass http://127.0.0.1:%d; }
  }
  server {
    listen 127.0.0.1:%d;
    access_log %s/forward.log;
    location / { proxy_pass http://$http_host$request_uri; proxy_set_header Connection ""; }
  }
]]

describe("Through a proxy", function()
  if not here.installed("tinyproxy", "nginx", "openssl", "setpriv") then
    return
  end

  local dir, ca, server, nginx, urls, proxies, forward
  local count = 0

  setup(function()
    dir = peers.directory()
    ca = peers.authority(dir, "ca")
    local cert, port = peers.certificate(ca, "server"), peers.free_port()
    server = here.server({ long_poll = 100, quiet = true })
    local forward_port = peers.free_port()
    forward = "http://127.0.0.1:" .. forward_port
    nginx = peers.nginx(dir, CONF:format(port, cert, cert, server.port, forward_port, dir), port)
    urls = { http = server.url, https = "https://localhost:" .. port }
    proxies = {
      open = peers.tinyproxy(dir),
      locked = peers.tinyproxy(dir, "BasicAuth weir secret-word"),
      closed = peers.tinyproxy(dir, "Deny 127.0.0.1"),
    }
  end)

  teardown(function()
    for _, program in pairs(proxies) do
      program:stop()
    end
    nginx:stop()
    server:stop()
    peers.remove(dir)
  end)

  local function with(scheme, proxy, fn, opts)
    opts = opts or {}
    weir.run(function()
      count = count + 1
      local client = durable.client({
        base_url = opts.base_url or urls[scheme],
        proxy = proxy,
        tls = { ca = ca .. ".pem" },
        retry = opts.retry or RETRY,
        timeout = 10,
        headers = { Authorization = "Bearer of-the-server" },
      })
      local path = opts.path or "/proxy-" .. count
      here.closing({ client }, fn, client:stream(path, { content_type = "application/json" }))
    end)
  end

  local function credentials(text)
    return ("http://%s127.0.0.1:%d"):format(text, proxies.locked.port)
  end

  -- How many it has made.
  local function tunnels(proxy)
    return select(2, peers.read_file(proxy.log):gsub("CONNECT localhost:%d+ HTTP", ""))
  end

  local function works(stream)
    assert(stream:create())
    local reader, all, seen = stream:read({ live = "sse" }), {}, {}
    local task = weir.spawn(function()
      for value in reader:items() do
        seen[#seen + 1] = value
      end
    end)
    local producer = stream:producer({ linger = 0, max_batch_items = 10, max_in_flight = 3 })
    for i = 1, 200 do
      all[i] = i
      assert(producer:append(tostring(i), 10))
    end
    assert(producer:close(nil, 10))
    task:join(10)
    assert.same(all, seen)
    for _, live in ipairs({ false, "long-poll", "auto" }) do
      seen = {}
      for value in stream:read({ live = live }):items() do
        seen[#seen + 1] = value
      end
      assert.same(all, seen)
    end
  end

  -- Whatever the proxy says, it says once.
  local function refused(stream, check)
    for _, try in ipairs({
      function() return stream:create() end,
      function() return stream:read({ live = true }):body() end,
      function()
        local producer = stream:producer()
        assert(producer:append("1"))
        local ok, err = producer:flush(5)
        producer:detach()
        return ok or nil, err
      end,
    }) do
      local value, err = try()
      assert.is_nil(value)
      assert.equal(0, err.retries or 0)
      assert.is_nil(err.message:find("password", 1, true))
      check(err)
    end
  end

  it("to a server at http everything works", function()
    with("http", forward, works)
    assert.matches("GET http://127.0.0.1:%d+/proxy%-%d+%?live=sse", peers.read_file(dir .. "/forward.log"))
  end)

  it("to a server at https everything works, in tunnels", function()
    local before = tunnels(proxies.open)
    with("https", proxies.open.url, works)
    assert.is_true(tunnels(proxies.open) > before)
  end)

  -- tinyproxy closes connections without saying so, and 1.11 passes on to the server what a client that
  -- is quick enough sends meanwhile: so over http each request has a client of its own.
  it("to a server at http requests go through it and have the credentials that it asks for", function()
    local path
    for _, proxy in ipairs({ proxies.open.url, credentials("weir:secret%2Dword@") }) do
      path = nil
      for _, step in ipairs({
        function(stream) assert(stream:create()) end,
        function(stream) assert(stream:append("[1,2]")) end,
        function(stream) assert.equal("[[1,2]]", stream:read():body()) end,
      }) do
        with("http", proxy, step, { path = path })
        path = path or "/proxy-" .. count
      end
    end
  end)

  it("to a server at https everything works with the credentials that it asks for", function()
    with("https", credentials("weir:secret%2Dword@"), works)
  end)

  for who, text in pairs({ ["no credentials"] = "", ["wrong ones"] = "weir:wrong-password@" }) do
    it("to a server at http nothing is tried again with " .. who, function()
      with("http", credentials(text), function(stream)
        refused(stream, function(err)
          assert.equal("unauthorized", err.code)
          assert.equal(text == "" and 407 or 401, err.status)
        end)
      end)
    end)

    it("to a server at https nothing is tried again with " .. who, function()
      with("https", credentials(text), function(stream)
        refused(stream, function(err)
          assert.equal("network", err.code)
          assert.equal("denied", err.cause.code)
          assert.is_false(err.cause.sent)
          assert.matches(text == "" and "407" or "401", err.message)
          assert.matches("the proxy does not let the request through", err.message)
        end)
      end)
    end)
  end

  it("that refuses nothing is tried again", function()
    with("http", proxies.closed.url, function(stream)
      refused(stream, function(err)
        assert.same({ "forbidden", 403 }, { err.code, err.status })
      end)
    end)
    with("https", proxies.closed.url, function(stream)
      refused(stream, function(err)
        assert.same({ "network", "denied" }, { err.code, err.cause.code })
        assert.matches("403", err.message)
      end)
    end)
  end)

  it("that reaches no server it is tried again", function()
    with("https", proxies.open.url, function(stream)
      local _, err = stream:create()
      assert.same({ "network", 2 }, { err.code, err.retries })
      assert.matches("50%d", err.message)
    end, { base_url = "https://localhost:" .. peers.free_port(), retry = { initial = 0.001, max_retries = 2 } })
  end)

  for _, scheme in ipairs({ "http", "https" }) do
    it("where nobody listens it is tried again: " .. scheme, function()
      with(scheme, "http://127.0.0.1:" .. peers.free_port(), function(stream)
        local _, err = stream:create()
        assert.same({ "network", 2 }, { err.code, err.retries })
        assert.equal("refused", err.cause.code)
      end, { retry = { initial = 0.001, max_retries = 2 } })
    end)
  end
end)
