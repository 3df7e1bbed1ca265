--- The reference server behind a real nginx: plain HTTP/1.1 with compression, and HTTP/2 over TLS.
local durable = require("weir.durable")
local here = require("spec.lua.durable.support")
local peers = require("spec.lua.peers")
local weir = require("weir")

local RETRY = { initial = 0.001, max = 0.05 }

-- Ports of 127.0.0.1: the reference server; the certificate, twice; ports: plain, tls; what the page
-- says; the port of another server.
local CONF = [[
  upstream store { server 127.0.0.1:%d; keepalive 8; }
  gzip on; gzip_types *; gzip_min_length 1; gzip_proxied any;
  ssl_certificate %s.pem; ssl_certificate_key %s.key;
  proxy_connect_timeout 1s;
  keepalive_requests 20; # GOAWAY then
  server {
    listen 127.0.0.1:%d;
    listen 127.0.0.1:%d ssl http2;
    %s
    location /other/ {
      proxy_pass http://127.0.0.1:%d;
      proxy_http_version 1.1;
      proxy_buffering off;
      proxy_read_timeout 500ms;
    }
  }
]]

-- The block of the page, for our upstream, and with less patience.
local function advice()
  local block = peers.read_file("docs/durable.md"):match("\nlocation /streams/ {.-\n}\n")
  for what, with in pairs({
    ["location /streams/"] = "location /",
    ["http://127%.0%.0%.1:4437"] = "http://store",
    ["proxy_read_timeout 90s"] = "proxy_read_timeout 500ms",
  }) do
    local times
    block, times = block:gsub(what, with)
    assert(times == 1, what)
  end
  return block
end

describe("Behind nginx", function()
  if not here.installed("nginx", "openssl", "setpriv") then
    return
  end

  local dir, ca, server, nginx, conf, plain_port, other_port, urls

  setup(function()
    dir = peers.directory()
    ca = peers.authority(dir, "ca")
    local cert = peers.certificate(ca, "server")
    server = here.server({ long_poll = 100, quiet = true })
    plain_port = peers.free_port()
    local tls_port = peers.free_port()
    other_port = peers.free_port()
    conf = CONF:format(server.port, cert, cert, plain_port, tls_port, advice(), other_port)
    nginx = peers.nginx(dir, conf, plain_port)
    urls = {
      ["HTTP/1.1"] = "http://127.0.0.1:" .. plain_port,
      ["HTTP/2"] = "https://localhost:" .. tls_port,
    }
  end)

  teardown(function()
    nginx:stop()
    server:stop()
    peers.remove(dir)
  end)

  -- Runs fn(stream through nginx, the same stream without it).
  local function through(version, content_type, fn, opts)
    weir.run(function()
      opts = opts or {}
      local direct = durable.client({ base_url = server.url })
      local client = durable.client({
        base_url = urls[version],
        tls = { ca = ca .. ".pem" },
        retry = opts.retry or RETRY,
        headers = opts.headers,
        timeout = opts.timeout,
        idle_timeout = 5,
      })
      local plain = here.stream(direct, content_type)
      here.closing({ client, direct }, fn, client:stream(plain.path, { content_type = content_type }), plain)
    end)
  end

  -- Runs fn(stream through nginx, start): start(n) starts the server behind it for the n-th time.
  local function in_front_of_another(version, opts, fn)
    weir.run(function()
      local files = peers.directory()
      local other
      local client = durable.client({
        base_url = urls[version],
        tls = { ca = ca .. ".pem" },
        retry = opts.retry or RETRY,
        timeout = opts.timeout,
      })
      local ok, err = pcall(fn, client:stream("/other" .. here.path(), { content_type = "text/plain" }), function()
        other = here.server({ dir = files, port = other_port, quiet = true })
        return other
      end)
      client:close()
      if other and not other.ended then
        other:stop()
      end
      peers.remove(files)
      assert(ok, err)
    end)
  end

  local function restart()
    nginx:stop() -- at once: what is under way is cut off
    nginx = peers.nginx(dir, conf, plain_port)
  end

  for _, version in ipairs({ "HTTP/1.1", "HTTP/2" }) do
    describe("with " .. version, function()
      it("everything that can be done with a stream is done", function()
        through(version, "text/plain", function(stream)
          local other = stream.client:stream(here.path(), { content_type = "text/plain" })
          assert.is_true(assert(other:create()).created)
          assert(other:append("one\r\n\r\n"))
          assert(other:append_stream(coroutine.wrap(function()
            for _ = 1, 20 do
              coroutine.yield(("x"):rep(10000))
            end
          end)))
          assert(other:close("end"))
          assert.is_true(other:head().closed)
          assert.equal("one\r\n\r\n" .. ("x"):rep(200000) .. "end", other:read():body())
          assert.equal("stream_closed", select(2, other:append("more")).code)
          assert(other:delete())
          assert.is_false(other:exists())
        end)
      end)

      for _, live in ipairs({ false, "long-poll", "sse", "auto" }) do
        it(("a reader (%s) gets every byte, compressed or not"):format(live or "catch-up"), function()
          for _, headers in ipairs({ {}, { ["Accept-Encoding"] = "gzip" } }) do
            through(version, "application/json", function(stream, plain)
              local expected, seen = {}, {}
              local producer = plain:producer()
              for i = 1, 2000 do
                expected[i] = { n = i, text = " ä\r\n" }
                assert(producer:append(('{"n":%d,"text":" ä\\r\\n"}'):format(i)))
              end
              assert(producer:close(nil, 10))
              local reader = stream:read({ live = live })
              for value in reader:items() do
                seen[#seen + 1] = value
              end
              assert.is_nil(reader.err)
              assert.same(expected, seen)
            end, { headers = headers })
          end
        end)
      end

      for _, live in ipairs({ "long-poll", "sse" }) do
        it(("a reader (%s) gets what is appended when it is appended, compressed or not"):format(live), function()
          for _, headers in ipairs({ {}, { ["Accept-Encoding"] = "gzip" } }) do
            through(version, "application/json", function(stream, plain)
              local reader = stream:read({ live = live })
              for i = 1, 30 do
                assert(plain:append(tostring(i)))
                assert.equal(i, (reader:next_item(5)))
              end
              assert.equal(live, reader:stats().mode)
              assert.is_nil(reader:stats().fallback)
              reader:close()
            end, { headers = headers })
          end
        end)

        it(("a reader (%s) waits on when nginx gives up a silent answer"):format(live), function()
          through(version, "application/json", function(stream, plain)
            local reader = stream:read({ live = live })
            assert(plain:append("1"))
            assert.equal(1, (reader:next_item(5)))
            weir.sleep(0.7) -- longer than proxy_read_timeout
            assert(plain:append("2"))
            assert.equal(2, (reader:next_item(5)))
            reader:close()
          end)
        end)
      end

      it("a producer appends in order, once", function()
        through(version, "text/plain", function(stream, plain)
          local producer, all = stream:producer({ linger = 0, max_batch_items = 20, max_in_flight = 4 }), {}
          for i = 1, 1000 do
            all[i] = i .. ","
            assert(producer:append(all[i], 10))
          end
          assert(producer:close("end", 10))
          assert.equal(table.concat(all) .. "end", plain:read():body())
        end)
      end)

      it("a 502 is an error when it stays, and waited for when it does not", function()
        in_front_of_another(version, { retry = { initial = 0.001, max_retries = 2 } }, function(stream, start)
          local _, err = stream:create()
          assert.same({ "server_error", 502, 2 }, { err.code, err.status, err.retries })
          assert.matches(": 502 Bad Gateway$", err.message)
          _, err = stream:read():body()
          assert.same({ "server_error", 502 }, { err.code, err.status })
          start()
          assert(stream:create())
        end)
        in_front_of_another(version, {}, function(stream, start)
          local task = weir.spawn(function()
            return stream:create()
          end)
          start()
          assert(task:join(10))
        end)
      end)

      it("a producer loses and repeats nothing while the server behind is gone and silent: 502, 504", function()
        in_front_of_another(version, { timeout = 10 }, function(stream, start)
          local other = start()
          assert(stream:create())
          local producer, all = stream:producer({ linger = 0, max_batch_items = 5, max_in_flight = 3 }), {}
          local function append(n)
            for _ = 1, n do
              all[#all + 1] = #all .. ","
              assert(producer:append(all[#all], 10))
            end
          end
          append(100)
          other:stop()
          append(20)
          here.await(function()
            return producer:stats().retries > 2
          end)
          other = start()
          append(100)
          other.handle:kill("sigstop")
          local before = producer:stats().retries
          append(20)
          here.await(function()
            return producer:stats().retries > before
          end)
          other.handle:kill("sigcont")
          append(100)
          assert(producer:close("end", 10))
          assert.equal(table.concat(all) .. "end", stream:read():body())
        end)
      end)

      it("a reader goes on where it was when the server behind dies in the middle of an answer", function()
        in_front_of_another(version, {}, function(stream, start)
          local other = start()
          assert(stream:create())
          local parts = {}
          for i = 1, 20 do
            parts[i] = string.char(64 + i):rep(1024 * 1024)
            assert(stream:append(parts[i]))
          end
          local reader = stream:read()
          local got = { assert(reader:next(5)).data }
          other:stop()
          start()
          for chunk in reader:each() do
            got[#got + 1] = chunk.data
          end
          assert.is_true(table.concat(got) == table.concat(parts))
          assert.is_true(reader:stats().retries > 0)
        end)
      end)

      for _, how in ipairs({ "restarted", "reloaded" }) do
        it(("a producer and readers go on while nginx is %s"):format(how), function()
          through(version, "application/json", function(stream, plain)
            local readers = {}
            for _, live in ipairs({ "long-poll", "sse" }) do
              readers[live] = weir.spawn(function()
                local seen = {}
                for value in stream:read({ live = live }):items() do
                  seen[#seen + 1] = value
                end
                return seen
              end)
            end
            local producer, all = stream:producer({ linger = 0, max_batch_items = 5, max_in_flight = 3 }), {}
            for i = 1, 600 do
              all[i] = i
              assert(producer:append(tostring(i), 20))
              if i % 200 == 0 then
                if how == "restarted" then
                  restart()
                else
                  nginx:signal("sighup")
                end
              end
            end
            assert(producer:close(nil, 20))
            assert.same(all, readers["long-poll"]:join(20))
            assert.same(all, readers.sse:join(20))
            local seen = {}
            for value in plain:read():items() do
              seen[#seen + 1] = value
            end
            assert.same(all, seen)
          end)
        end)
      end
    end)
  end
end)
