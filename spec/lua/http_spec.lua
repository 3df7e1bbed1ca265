local json = require("cjson")
local clean_environment = require("spec.environment")
local luv = require("luv")
local errors = require("weir.errors")
local runtime = require("weir.runtime")
local tasks = require("weir.task")
local support = require("spec.lua.support")

local fails = support.fails

local has_node = os.execute("command -v node >/dev/null 2>&1 && command -v openssl >/dev/null 2>&1")

describe("runtime.http", function()
  if not has_node then
    it("is tested against servers of node", function()
      pending("node or openssl is not installed")
    end)
    return
  end

  local dir, key, cert, ports, child, stdin, client
  local clients = {}

  local function new_client(opts)
    local made = runtime.http(opts)
    clients[#clients + 1] = made
    return made
  end

  lazy_setup(function()
    dir = assert(luv.fs_mkdtemp((os.getenv("TMPDIR") or "/tmp") .. "/weir-http.XXXXXX"))
    key, cert = dir .. "/key.pem", dir .. "/cert.pem"
    assert(os.execute(("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
      .. " -keyout %s -out %s -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 2>/dev/null"):format(key, cert)))
    local stdout = luv.new_pipe()
    stdin = luv.new_pipe()
    child = assert(luv.spawn("node", {
      args = { "spec/lua/http_server.mjs", key, cert },
      env = clean_environment(),
      stdio = { stdin, stdout, 2 },
    }, function() end))
    local text = ""
    stdout:read_start(function(_, data)
      text = text .. (data or "")
    end)
    support.eventually(function()
      return text:find("\n")
    end, 30)
    support.close(stdout)
    ports = json.decode(text)
  end)

  lazy_teardown(function()
    support.close(stdin)
    support.close(child)
    os.remove(key)
    os.remove(cert)
    luv.fs_rmdir(dir)
  end)

  before_each(function()
    client = new_client()
  end)

  after_each(function()
    for i = #clients, 1, -1 do
      clients[i]:close()
      clients[i] = nil
    end
  end)

  local function url(server, path)
    local scheme = (server == "tls" or server == "h2") and "https" or "http"
    return ("%s://127.0.0.1:%d/%s"):format(scheme, ports[server], path)
  end

  local function get(server, path, more)
    local opts = { url = url(server, path) }
    for name, value in pairs(more or {}) do
      opts[name] = value
    end
    return client:request(opts)
  end

  local function stats()
    local own = runtime.http()
    local text = assert(own:request({ url = url("plain", "stats") })):body()
    local state = json.decode((text))
    own:close()
    return state
  end

  -- What `bytes` of the server sends.
  local function pattern(length)
    local parts = {}
    for from = 0, length - 1, 4096 do
      local bytes = {}
      for i = from, math.min(from + 4096, length) - 1 do
        bytes[#bytes + 1] = (i * 31 + (i >> 8)) & 255
      end
      parts[#parts + 1] = string.char(table.unpack(bytes))
    end
    return table.concat(parts)
  end

  -- A path for the server that answers what it is told.
  local function raw(answer, how)
    local alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    local out = {}
    for at = 1, #answer, 3 do
      local a, b, c = answer:byte(at, at + 2)
      local word = (a << 16) | ((b or 0) << 8) | (c or 0)
      for i = 0, c and 3 or b and 2 or 1 do
        local n = (word >> (18 - 6 * i)) & 63
        out[#out + 1] = alphabet:sub(n + 1, n + 1)
      end
    end
    return table.concat(out) .. (how and "?" .. how or "")
  end

  describe("an answer", function()
    for _, size in ipairs({ 0, 1, 16384, 65537, 3000000 }) do
      it(("of %d bytes arrives as it was sent, with and without a length"):format(size), function()
        for _, more in ipairs({ "", "&length" }) do
          local res = assert(get("plain", "bytes?n=" .. size .. more))
          assert.equal(200, res.status)
          assert.is_true(assert(res:body()) == pattern(size))
        end
      end)
    end

    it("has its head before its body is complete", function()
      local res = assert(get("plain", "stall"))
      assert.equal("chunked", res:header("Transfer-Encoding"))
      assert.equal("begun", res:read())
      fails("timeout", res:read(0.02))
      res:close()
      fails("cancelled", res:read())
    end)

    it("is read piece by piece as it comes", function()
      local res, pieces = assert(get("plain", "slow?ms=20")), 0
      for piece in function() return res:read(5) end do
        assert.equal("x", piece:sub(1, 1))
        pieces = pieces + 1
      end
      assert.is_true(pieces >= 3)
      assert.is_nil(res:read())
    end)

    it("keeps the headers in order, and empty, folded and repeated ones", function()
      local res = assert(get("raw", raw("HTTP/1.1 103 Early\r\nX-Early: 1\r\n\r\n" ..
        "HTTP/1.1 200 OK\r\nA:  1 \r\nEmpty:\r\na: 2\r\nFold: x\r\n  y\r\nContent-Length: 0\r\n\r\n")))
      assert.same({ { "A", "1" }, { "Empty", "" }, { "a", "2" }, { "Fold", "x y" }, { "Content-Length", "0" } },
        res.headers)
      assert.equal("1", res:header("a"))
      assert.is_nil(res:header("x-early"))
      assert.equal("", res:body())
    end)

    it("has the status of its first line, whatever the names of its headers look like", function()
      local res = assert(get("raw", raw("HTTP/1.1 200 OK\r\nA: 1\r\nHTTP/1.1 2000 X: y\r\nContent-Length: 0\r\n\r\n")))
      assert.equal(200, res.status)
      assert.equal("1", res:header("a"))
      assert.equal("y", res:header("http/1.1 2000 x"))
      assert.equal("", res:body())
    end)

    it("has a status, whatever it is, and no redirect is followed", function()
      for _, code in ipairs({ 204, 304, 404, 500 }) do
        local res = assert(get("plain", "status?code=" .. code))
        assert.equal(code, res.status)
        assert.equal("", res:body())
      end
      local res = assert(get("plain", "redirect"))
      assert.equal(302, res.status)
      assert.equal("/stats", res:header("location"))
      assert.equal("elsewhere", res:body())
    end)

    it("is compressed as the server sent it, or undone when asked", function()
      local res = assert(get("plain", "gzip"))
      assert.equal("no", res:header("x-asked"))
      assert.equal("\31\139", res:body():sub(1, 2))
      res = assert(get("plain", "gzip", { decompress = true }))
      assert.equal("gzip", res:header("x-asked"))
      assert.equal(("words "):rep(1000), res:body())
    end)

    it("is undone, and waits to be read, however small it was packed", function()
      local res = assert(get("plain", "zeros", { decompress = true }))
      local total, zeros = 0, nil
      for piece in function() return assert(res:read(10)) end do
        zeros = zeros or ("\0"):rep(#piece)
        assert.is_true(#piece ~= #zeros or piece == zeros)
        total = total + #piece
        if total == 96 * 1024 * 1024 then
          break
        end
      end
      assert.is_nil(res:read())
    end)

    it("stops at the limit of body()", function()
      local res = assert(get("plain", "bytes?n=100000"))
      assert.is_false(not fails("too_large", res:body(99999)).sent)
      assert.equal(100000, #assert(assert(get("plain", "bytes?n=100000")):body(100000)))
    end)
  end)

  describe("a request", function()
    local function echo(opts)
      opts.url = url("plain", "echo")
      local res = assert(client:request(opts))
      return assert(res:body()), json.decode(res:header("x-fields")), res:header("x-method")
    end

    it("has the method, headers and body that it was given, and none that it was not", function()
      for _, method in ipairs({ "POST", "PUT", "PATCH", "DELETE", "GET" }) do
        local body, fields, used = echo({
          method = method,
          headers = { { "X-One", "1" }, { "X-Empty", "" }, { "Content-Type", "text/x" } },
          body = "bytes\0\255",
        })
        assert.equal("bytes\0\255", body)
        assert.equal(method, used)
        assert.equal("1", fields["x-one"])
        assert.equal("", fields["x-empty"])
        assert.equal("text/x", fields["content-type"])
        assert.equal("7", fields["content-length"])
        assert.is_nil(fields.expect)
      end
      local body, fields = echo({ method = "POST" })
      assert.equal("", body)
      assert.equal("0", fields["content-length"])
      assert.is_nil(fields["content-type"])
      assert.equal("", (echo({ method = "DELETE" })))
    end)

    it("of HEAD ends with the head", function()
      local res = assert(get("plain", "bytes?n=1000&length", { method = "HEAD" }))
      assert.equal("1000", res:header("content-length"))
      assert.equal("", res:body())
    end)

    it("sends large bodies", function()
      local bytes = pattern(3000000)
      assert.is_true(echo({ method = "POST", body = bytes }) == bytes)
    end)

    it("sends what a function returns, piece by piece, which may block", function()
      local left = 5
      local body, fields = echo({
        method = "POST",
        body = function()
          tasks.sleep(0.005)
          left = left - 1
          return left >= 0 and ("%d"):format(left) or nil
        end,
      })
      assert.equal("43210", body)
      assert.equal("chunked", fields["transfer-encoding"])
    end)

    it("asks the function for no more than the server takes", function()
      local made, answered = 0, nil
      local task = tasks.spawn(function()
        local res = assert(client:request({
          method = "POST",
          url = url("plain", "hold"),
          body = function()
            made = made + 1
            return made <= 1000 and ("x"):rep(65536) or nil
          end,
        }))
        answered = assert(res:body())
      end)
      support.eventually(function()
        return made > 1
      end)
      local before
      repeat
        before = made
        tasks.sleep(0.1)
      until made == before
      assert.is_true(made < 500, made)
      assert(client:request({ url = url("plain", "release") })):body()
      task:join(20)
      assert.equal(tostring(1000 * 65536), answered)
    end)

    it("ends with the error of the function that makes its body", function()
      local err = fails("body_failed", client:request({
        method = "POST",
        url = url("plain", "echo"),
        body = function() error("no more paper") end,
      }))
      assert.matches("no more paper", err.message)
      assert.is_false(err.sent)
      local first = true
      err = fails("not_today", client:request({
        method = "POST",
        url = url("plain", "echo"),
        body = function()
          if first then
            first = false
            return "x"
          end
          tasks.sleep(0.05)
          return nil, errors.new("not_today")
        end,
      }))
      assert.is_true(err.sent)
    end)

    it("may be answered before its body is complete", function()
      local res = assert(client:request({
        method = "POST",
        url = url("plain", "refuse"),
        body = function() return ("x"):rep(10000) end,
      }))
      assert.equal(413, res.status)
      res:close()
    end)

    it("refuses headers that would be others, and unknown options", function()
      for _, header in ipairs({ { "A b", "1" }, { "A", "1\r\nB: 2" }, { "A", "x\0" }, { "Content-Length", "3" } }) do
        assert.has_error(function() get("plain", "stats", { headers = { header } }) end)
      end
      assert.error_matches(function() get("plain", "stats", { boddy = "" }) end, "unknown option 'boddy'")
      assert.error_matches(function() client:request({}) end, "'url' is missing")
      assert.error_matches(function() get("plain", "stats", { method = "get" }) end, "upper case")
    end)
  end)

  describe("backpressure", function()
    for _, server in ipairs({ "plain", "h2" }) do
      it("stops a server that nobody reads: " .. server, function()
        client = new_client({ ca = cert })
        local size = 100000000
        local res = assert(get(server, "bytes?n=" .. size))
        local before, now
        repeat
          before = now
          tasks.sleep(0.1)
          now = stats().written
        until now == before
        assert.is_true(now < size / 2, now)
        local total = 0
        for piece in function() return res:read(10) end do
          assert.is_true(#piece <= 256 * 1024 + 65536)
          total = total + #piece
        end
        assert.equal(size, total)
      end)
    end
  end)

  describe("an error", function()
    it("says that nobody listens, that a name is unknown, that a URL is none", function()
      local err = fails("refused", client:request({ url = "http://127.0.0.1:1/" }))
      assert.is_false(err.sent)
      assert.equal("http://127.0.0.1:1/", err.url)
      assert.equal("ECONNREFUSED", err.system)
      err = fails("unresolved", client:request({ url = "http://no-such-host.invalid/" }))
      assert.is_false(err.sent)
      for _, text in ipairs({ "", "nonsense", "ftp://127.0.0.1/", "http://a b/", "http://a:99999/", "http://x\0/" }) do
        assert.is_false(fails("bad_url", client:request({ url = text })).sent)
      end
    end)

    it("says that the connection broke before, in and after the head", function()
      for _, answer in ipairs({ "", "HTTP/1.1 200 OK\r\nX-" }) do
        for _, how in ipairs({ "end", "reset" }) do
          assert.is_true(fails("network", get("raw", raw(answer, how))).sent)
        end
      end
    end)

    it("says that the body was cut short, after what came of it", function()
      for _, answer in ipairs({
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n",
      }) do
        for _, how in ipairs({ "end", "reset" }) do
          local res = assert(get("raw", raw(answer, how)))
          assert.equal("only this", res:read(5))
          assert.is_true(fails("network", res:read(5)).sent)
        end
      end
    end)

    it("is not made of bytes beyond the length, which belong to nobody", function()
      local res = assert(get("raw", raw("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmore than four")))
      assert.equal("more", res:body())
    end)

    it("says that it is not HTTP", function()
      fails("protocol", get("raw", raw("SSH-2.0-OpenSSH\r\n", "end")))
    end)

    it("says that the head is too large, without reading it all", function()
      fails("too_large", get("bomb", ""))
      fails("too_large", get("plain", "fields?n=300"))
      assert.equal(200, assert(get("plain", "fields?n=200")).status)
      fails("too_large", get("plain", "fields?n=70&size=1000"))
      client = new_client({ max_header_bytes = 1000, max_headers = 5 })
      fails("too_large", get("plain", "fields?n=5"))
      fails("too_large", get("plain", "fields?n=1&size=1000"))
      client = new_client({ max_header_bytes = "100 KiB" })
      fails("too_large", get("raw", raw("HTTP/1.1 200 OK\r\n" .. ("X-A: b\r\n"):rep(1000))))
    end)
  end)

  describe("time", function()
    it("is over for the head, the whole exchange and silence", function()
      for _, name in ipairs({ "timeout", "head_timeout", "idle_timeout" }) do
        local start = runtime.now()
        local err = fails("timeout", get("plain", "never", { [name] = 0.05 }))
        assert.is_true(err.sent)
        assert.is_true(runtime.now() - start >= 0.05)
      end
      local res = assert(get("plain", "stall", { head_timeout = 0.05, idle_timeout = 0.1 }))
      assert.equal("begun", res:read())
      fails("timeout", res:read())
      res = assert(get("plain", "stall", { timeout = 0.1 }))
      assert.equal("begun", res:read())
      fails("timeout", res:read())
    end)

    it("is not over for an answer that comes slowly", function()
      local res = assert(get("plain", "slow?ms=60", { idle_timeout = 0.15, head_timeout = 1 }))
      assert.equal("xxxxx", res:body())
    end)

    it("is not over because the application does not read", function()
      local res = assert(get("plain", "bytes?n=20000000", { idle_timeout = 0.1 }))
      tasks.sleep(0.3)
      assert.equal(20000000, #assert(res:body()))
    end)

    it("is not over because the server takes a large body slowly", function()
      local body = ("x"):rep(16 * 1024 * 1024)
      local res = assert(get("plain", "sip", { method = "POST", body = body, idle_timeout = 1 }))
      assert.equal("drunk", res:body())
    end)

    it("is over for a connection", function()
      client = new_client({ connect_timeout = 0.1 })
      local err = fails("timeout", client:request({ url = ("https://127.0.0.1:%d/"):format(ports.mute) }))
      assert.is_false(err.sent)
    end)
  end)

  describe("connections", function()
    it("are used again", function()
      assert(get("plain", "stats")):body()
      local before = stats().connections
      for _ = 1, 10 do
        assert(assert(get("plain", "count", { method = "POST", body = "x" })):body())
      end
      assert.equal(before + 1, stats().connections)
    end)

    it("are closed with an answer that was not read to its end", function()
      local before = stats().aborted
      assert(get("plain", "stall")):close()
      support.eventually(function()
        return stats().aborted == before + 1
      end)
    end)

    it("that the server closed while they were idle are replaced", function()
      for _ = 1, 4 do
        assert.equal(200, assert(get("brief", "count", { method = "POST", body = "x" })).status)
        tasks.sleep(0.12)
      end
    end)

    it("that break under a request are replaced if it may be sent twice", function()
      local function second(opts)
        client = new_client()
        assert.equal("ok", assert(get("once", "")):body())
        local before = stats().posts
        opts.url = url("once", "")
        local res, err = client:request(opts)
        return stats().posts - before, res, err
      end
      local posts, res = second({ method = "GET" })
      assert.equal(1, posts)
      assert.equal("ok", res:body())
      posts, res = second({ method = "POST", body = "x", idempotent = true })
      assert.equal(1, posts)
      assert.equal("ok", res:body())
      for _, body in ipairs({ "x", "" }) do
        local err
        posts, res, err = second({ method = "POST", body = body })
        assert.equal(1, posts)
        assert.is_true(fails("network", res, err).sent)
      end
    end)

    it("are at most as many as was said; other requests wait", function()
      client = new_client({ max_connections = 2 })
      local before, done = stats().connections, 0
      tasks.group(function(group)
        for _ = 1, 20 do
          group:spawn(function()
            assert.equal("xxxxx", assert(get("plain", "slow?ms=2")):body())
            done = done + 1
          end)
        end
      end)
      assert.equal(20, done)
      assert.is_true(stats().connections - before <= 2 + 1)
    end)

    for _, server in ipairs({ "plain", "tls", "h2" }) do
      it("do not wait for an answer on another: " .. server, function()
        client = new_client({ ca = cert })
        local waiting = tasks.spawn(get, server, "never")
        tasks.sleep(0.02)
        assert.equal(200, assert(get(server, "stats", { timeout = 5 })).status)
        assert.equal("running", waiting:status())
        waiting:cancel()
        waiting:join(5)
      end)
    end

    it("carry many requests at a time", function()
      client = new_client({ max_connections = 300 })
      local expected, done = pattern(50000), 0
      tasks.group(function(group)
        for _ = 1, 300 do
          group:spawn(function()
            assert.is_true(assert(get("plain", "bytes?n=50000")):body() == expected)
            done = done + 1
          end)
        end
      end)
      assert.equal(300, done)
      assert.same({ active = 0, requests = 300 }, client:stats())
    end)
  end)

  describe("TLS", function()
    it("trusts whom it was told to trust, by file or by text, and nobody else", function()
      local err = fails("tls", get("tls", "stats"))
      assert.is_false(err.sent)
      local file = assert(io.open(cert, "rb"))
      local text = file:read("a")
      file:close()
      for _, opts in ipairs({ { ca = cert }, { ca = text }, { verify = false } }) do
        client = new_client(opts)
        assert.equal(200, assert(get("tls", "stats")).status)
      end
      client = new_client({ ca = dir .. "/nothing.pem" })
      fails("tls", get("tls", "stats"))
    end)

    it("checks the name", function()
      client = new_client({ ca = cert })
      fails("tls", client:request({ url = ("https://127.0.0.2:%d/"):format(ports.other) }))
    end)
  end)

  describe("a proxy", function()
    it("is asked for what is to be had", function()
      client = new_client({ proxy = url("plain", "") })
      local res = assert(client:request({ url = "http://no-such-host.invalid/echo", method = "POST", body = "x" }))
      assert.equal("no-such-host.invalid", json.decode(res:header("x-fields")).host)
      assert.equal("x", res:body())
    end)

    it("that does not let us through keeps the request from the server", function()
      client = new_client({ proxy = url("plain", "") })
      assert.is_false(fails("network", client:request({ url = "https://no-such-host.invalid/echo" })).sent)
      client = new_client({ proxy = "http://127.0.0.1:1/" })
      assert.is_false(fails("refused", client:request({ url = "http://no-such-host.invalid/echo" })).sent)
    end)

    it("is not taken from the environment unless that is asked for", function()
      luv.os_setenv("http_proxy", "http://127.0.0.1:1/")
      local none, environment = new_client(), new_client({ proxy = true })
      local good = none:request({ url = url("plain", "stats") })
      local _, err = environment:request({ url = url("plain", "stats") })
      luv.os_unsetenv("http_proxy")
      assert.equal(200, good.status)
      assert.equal("refused", err.code)
    end)
  end)

  describe("HTTP/2", function()
    it("carries requests side by side on one connection", function()
      client = new_client({ ca = cert, http2 = true })
      local expected, before = pattern(200000), stats().connections
      tasks.group(function(group)
        for i = 1, 50 do
          group:spawn(function()
            if i % 2 == 0 then
              assert.is_true(assert(get("h2", "bytes?n=200000")):body() == expected)
            else
              local res = assert(get("h2", "echo", { method = "POST", body = expected }))
              assert.is_true(res:body() == expected)
            end
          end)
        end
      end)
      -- One session of HTTP/2, and the connections of stats().
      assert.is_true(stats().connections - before <= 3)
    end)

    it("is not used when it is not wanted", function()
      client = new_client({ ca = cert, http2 = false })
      local fields = json.decode(assert(get("h2", "echo")):header("x-fields"))
      assert.is_string(fields.host)
      assert.is_nil(fields[":path"])
      client = new_client({ ca = cert })
      fields = json.decode(assert(get("h2", "echo")):header("x-fields"))
      assert.equal("/echo", fields[":path"])
    end)

    it("takes bodies that a function makes", function()
      client = new_client({ ca = cert })
      local left = 100
      local res = assert(get("h2", "echo", {
        method = "POST",
        body = function()
          left = left - 1
          return left >= 0 and ("x"):rep(10000) or nil
        end,
      }))
      assert.equal(1000000, #assert(res:body()))
    end)
  end)

  describe("ending", function()
    it("a cancelled task ends its request", function()
      local before = stats().aborted
      for _, path in ipairs({ "never", "stall" }) do
        local result
        local task = tasks.spawn(function()
          local res, err = get("plain", path)
          if res then
            res:read()
            res, err = res:read()
          end
          result = err or res
        end)
        tasks.sleep(0.05)
        task:cancel()
        task:join(5)
        assert.equal("cancelled", result.code)
        assert.is_true(result.sent)
      end
      support.eventually(function()
        return stats().aborted == before + 2
      end)
      assert.equal(0, client:stats().active)
    end)

    it("closing the client ends its requests, and those that wait learn of it", function()
      local res = assert(get("plain", "stall"))
      res:read()
      local task = tasks.spawn(function() return select(2, get("plain", "never")) end)
      tasks.sleep(0.02)
      client:close()
      assert.equal("cancelled", task:join(5).code)
      fails("cancelled", res:read())
      assert.matches("closed", tostring(client))
      assert.error_matches(function() get("plain", "stats") end, "closed")
    end)

    it("a response that nobody has any more is abandoned", function()
      local before = stats().aborted
      do
        assert(get("plain", "stall"))
      end
      support.eventually(function()
        collectgarbage()
        return stats().aborted == before + 1
      end)
    end)

    it("of the Lua state takes everything with it, at any moment", function()
      local endings = {
        "os.exit(0, true)",
        "tasks.run(function() begin() runtime.pause() os.exit(0, true) end)",
        "tasks.run(function() begin() tasks.sleep(0.03) os.exit(0, true) end)",
        "tasks.run(function() begin() tasks.sleep(0.03) client:close() os.exit(0, true) end)",
        "begin() os.exit(0, true)",
      }
      for _, ending in ipairs(endings) do
        local result = support.program(([[
          local runtime, tasks = require("weir.runtime"), require("weir.task")
          local client = runtime.http({ ca = %q })
          local kept = {}
          function begin()
            local opts = {
              { url = %q }, { url = %q }, { url = %q }, { url = %q }, { url = "http://no-such-host.invalid/" },
              { url = %q, method = "POST", body = function() return ("x"):rep(10000) end },
            }
            for _, each in ipairs(opts) do
              tasks.spawn(function() kept[#kept + 1] = client:request(each) end)
            end
          end
          %s]]):format(cert, url("plain", "never"), url("plain", "bytes?n=100000000"), url("h2", "bytes?n=100000000"),
          url("plain", "stall"), url("plain", "hold"), ending))
        assert.equal(0, result.status, result.err)
        assert.equal("", result.err)
      end
    end)
  end)

  it("works on the main thread, in a task and in luv's own loop", function()
    assert.equal(200, assert(get("plain", "stats")).status)
    local status
    tasks.spawn(function()
      status = assert(get("plain", "stats")).status
    end)
    support.eventually(function()
      return status
    end)
    assert.equal(200, status)
  end)
end)
