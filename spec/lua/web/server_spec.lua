local errors = require("weir.errors")
local http = require("weir.http")
local log = require("weir.log")
local luv = require("luv")
local runtime = require("weir.runtime")
local tasks = require("weir.task")
local support = require("spec.lua.support")
local eventually, fails = support.eventually, support.fails

local servers, sockets = {}, {}

local function serve(handler, opts)
  local server = assert(http.listen("tcp://127.0.0.1:0", handler, opts))
  servers[#servers + 1] = server
  return server
end

local function connect(server)
  local conn = assert(runtime.dial((server.url:gsub("^http", "tcp"))))
  local socket = assert(runtime.bytes(conn))
  sockets[#sockets + 1] = socket
  return socket
end

-- Reads until the text has `pattern`, or the connection ends; returns what came.
local function read_until(socket, pattern)
  local text = ""
  while not (pattern and text:find(pattern)) do
    local data, err = socket:read(5)
    if not data then
      assert(not errors.is(err, "timeout"), "nothing came after: " .. text)
      socket:close()
      break
    end
    text = text .. data
  end
  return text
end

-- All that a server answers to bytes, until it ends the connection.
local function talk(server, text)
  local socket = connect(server)
  socket:write(text)
  return read_until(socket)
end

-- The same, of a client that says with its request that it will send no more; it reads as `pace(bytes)` lets it.
local function talk_once(server, text, pace)
  local socket, parts, over = luv.new_tcp(), {}, false
  local count = 0
  socket:connect("127.0.0.1", tonumber(server.url:match("%d+$")), function(err)
    assert(not err, err)
    socket:write(text)
    socket:shutdown()
    local function on_read(_, data)
      over = data == nil
      parts[#parts + 1], count = data, count + #(data or "")
      if data and pace then
        socket:read_stop()
        tasks.spawn(function()
          pace(count)
          socket:read_start(on_read)
        end)
      end
    end
    socket:read_start(on_read)
  end)
  eventually(function()
    return over
  end, 20)
  support.close(socket)
  return table.concat(parts)
end

local function status_of(text)
  return tonumber(text:match("^HTTP/1%.1 (%d%d%d) "))
end

local function hello()
  return 200, { ["X-A"] = { "1", "2" } }, "hello"
end

local GET = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
local LAST = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

local function in_task(fn)
  return function()
    tasks.run(fn)
  end
end

local quiet = log.new({ out = function() end })

describe("weir.http", function()
  after_each(function()
    for _, each in ipairs(sockets) do
      each:close()
    end
    for _, each in ipairs(servers) do
      each:close(0)
    end
    servers, sockets = {}, {}
  end)

  it("answers what the handler returns", in_task(function()
    local text = talk(serve(hello), LAST)
    assert.equal(200, status_of(text))
    assert.truthy(text:find("X-A: 1\r\nX-A: 2\r\n", 1, true))
    assert.truthy(text:find("content-length: 5\r\n", 1, true))
    assert.truthy(text:find("date: %a%a%a, %d%d %a%a%a %d%d%d%d %d%d:%d%d:%d%d GMT\r\n"))
    assert.truthy(text:find("connection: close\r\n", 1, true))
    assert.equal("hello", text:match("\r\n\r\n(.*)$"))
  end))

  it("keeps connections, and answers in order what comes in one go", in_task(function()
    local server = serve(function(request)
      tasks.sleep(request.query.wait and 0.02 or 0)
      return 200, nil, "(" .. request.path .. ":" .. request.body .. ")"
    end)
    local text = talk(
      server,
      "GET /1?wait HTTP/1.1\r\nHost: localhost\r\n\r\n"
        .. "POST /2 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nab"
        .. LAST
    )
    local bodies = {}
    for body in text:gmatch("%b()") do
      bodies[#bodies + 1] = body
    end
    assert.same({ "(/1:)", "(/2:ab)", "(/:)" }, bodies)
  end))

  it("serves the client of weir, with bodies that are larger than every buffer", in_task(function()
    local server = serve(function(request)
      return 200, nil, request.body
    end, { max_body = "4 MiB" })
    local client = runtime.http({})
    local body = ("0123456789abcdef"):rep(200000)
    local response = assert(client:request({ method = "POST", url = server.url .. "/", body = body, timeout = 20 }))
    local got = assert(response:body())
    client:close()
    assert.equal(200, response.status)
    assert.is_true(got == body)
  end))

  it("sends what an iterator gives as it comes", in_task(function()
    local gate = require("weir.channel")(1)
    local server = serve(function()
      return 200, { ["content-type"] = "text/event-stream" }, function()
        return (gate:recv())
      end
    end)
    local socket = connect(server)
    socket:write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    gate:send("one")
    assert.truthy(read_until(socket, "one"):find("transfer%-encoding: chunked\r\n.*\r\n\r\n3\r\none"))
    gate:send(http.event("two"))
    assert.truthy(read_until(socket, "two\n\n"))
    gate:close()
    assert.equal("0\r\n\r\n", read_until(socket, "0\r\n\r\n"):match("0\r\n\r\n$"))
    socket:write(LAST)
    assert.equal(200, status_of(read_until(socket, "HTTP.-\r\n\r\n")))
  end))

  it("ends the body with the connection for a client of HTTP/1.0", in_task(function()
    local n = 0
    local text = talk(
      serve(function()
        return 200, nil, function()
          n = n + 1
          return n <= 2 and "part" or nil
        end
      end),
      "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    )
    assert.is_nil(text:find("transfer-encoding", 1, true))
    assert.equal("partpart", text:match("\r\n\r\n(.*)$"))
  end))

  it("tells a client of HTTP/1.0 that the connection is kept, where it asks for that", in_task(function()
    local server = serve(hello)
    local keep = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    local text = talk(server, keep .. keep .. "GET / HTTP/1.0\r\n\r\n")
    assert.equal(2, select(2, text:gsub("connection: keep%-alive\r\n", "")))
    assert.equal(1, select(2, text:gsub("connection: close\r\n", "")))
    assert.is_nil(talk(server, LAST):find("keep-alive", 1, true))
  end))

  it("sends no body for HEAD, and says how long it would be", in_task(function()
    local text = talk(serve(hello), "HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert.truthy(text:find("content-length: 5\r\n", 1, true))
    assert.equal("", text:match("\r\n\r\n(.*)$"))
  end))

  it("answers a client that ends its side with the request, however long that takes", in_task(function()
    local server = serve(function(request)
      tasks.sleep(0.05)
      return 200, nil, "(" .. request.path .. ")"
    end)
    local text = talk_once(server, (GET:gsub("/", "/1", 1)) .. (GET:gsub("/", "/2", 1)))
    assert.truthy(text:find("%(/1%).*%(/2%)$"))
    eventually(function()
      return server:stats().connections == 0
    end)
  end))

  it("gives all of a large response to such a client, as slowly as it reads", in_task(function()
    local body = ("0123456789abcdef"):rep(500000)
    local server = serve(function()
      return 200, nil, body
    end)
    local n = 0
    local text = talk_once(server, LAST, function()
      n = n + 1
      tasks.sleep(n <= 20 and 0.002 or 0)
    end)
    assert.is_true(text:match("\r\n\r\n(.*)$") == body)
  end))

  it("gives such a client all that an iterator has", in_task(function()
    local n = 0
    local text = talk_once(serve(function()
      return 200, nil, function()
        n = n + 1
        tasks.sleep(0.02)
        return n <= 5 and tostring(n) or nil
      end
    end, { write_timeout = 5 }), GET)
    assert.truthy(text:find("1\r\n4\r\n1\r\n5\r\n0\r\n\r\n", 1, true))
    assert.equal(6, n)
  end))

  it("ends an iterator that goes on to write when the client has left", in_task(function()
    local n = 0
    local server = serve(function()
      return 200, nil, function()
        n = n + 1
        tasks.sleep(0.002)
        return "part"
      end
    end)
    local socket = connect(server)
    socket:write(GET)
    read_until(socket, "part")
    socket:close()
    eventually(function()
      return server:stats().connections == 0
    end)
    local last = n
    tasks.sleep(0.02)
    assert.equal(last, n)
  end))

  it("cancels an iterator that waits when the client leaves", in_task(function()
    local cancelled
    local server = serve(function()
      return 200, nil, function()
        local _, err = tasks.sleep(60)
        cancelled = err
      end
    end, { write_timeout = 0.05 })
    local socket = connect(server)
    socket:write(GET)
    read_until(socket, "\r\n\r\n")
    socket:close()
    eventually(function()
      return cancelled and server:stats().connections == 0
    end)
    assert.equal("cancelled", cancelled.code)
  end))

  it("answers 500 and logs when a handler raises or returns nonsense, and goes on", in_task(function()
    local lines = {}
    local server = serve(function(request)
      if request.path == "/raise" then
        error("boom")
      elseif request.path == "/header" then
        return 200, { a = "b\r\nc: d" }
      elseif request.path == "/own" then
        return 200, { ["Content-Length"] = "7" }
      end
      return tonumber(request.query.status), nil, request.query.body and 5
    end, { log = log.new({ out = function(line)
      lines[#lines + 1] = line
    end }) })
    for _, path in ipairs({ "/raise", "/header", "/own", "/?status=700", "/?status=200&body=1", "/" }) do
      assert.equal(500, status_of(talk(server, "GET " .. path .. " HTTP/1.1\r\nHost: localhost\r\n\r\n")), path)
    end
    assert.equal(6, #lines)
    assert.truthy(lines[1]:find("boom", 1, true))
    assert.truthy(lines[2]:find("end of line", 1, true))
    assert.truthy(lines[3]:find("set by the server", 1, true))
  end))

  it("answers 500, too, when the headers of an iterator cannot be sent", in_task(function()
    local server = serve(function()
      return 200, { a = "b\r\nc: d" }, function() end
    end, { log = quiet })
    assert.equal(500, status_of(talk(server, GET)))
  end))

  it("sends no body with 204 and 304, whatever the handler gives", in_task(function()
    local server = serve(function(request)
      local body = request.query.each and function()
        return "part"
      end or "whole"
      return tonumber(request.query.status), nil, body
    end)
    for _, query in ipairs({ "status=204", "status=304", "status=204&each", "status=304&each" }) do
      local first = GET:gsub("/", "/?" .. query, 1)
      local text = talk(server, first .. LAST:gsub("/", "/?status=200", 1))
      assert.truthy(text:find("^HTTP/1%.1 %d04 [^\r]*\r\n[^\r]*\r\n\r\nHTTP/1%.1 200 "), text)
    end
  end))

  it("breaks the connection off when an iterator raises, so that the body does not look complete", in_task(function()
    local text = talk(
      serve(function()
        local n = 0
        return 200, nil, function()
          n = n + 1
          return n == 1 and "part" or error("boom")
        end
      end, { log = quiet }),
      GET
    )
    assert.truthy(text:find("part", 1, true))
    assert.is_nil(text:find("0\r\n\r\n", 1, true))
  end))

  it("refuses what is not HTTP, and ends the connection", in_task(function()
    local server = serve(hello)
    assert.equal(400, status_of(talk(server, "hello\r\n\r\n" .. GET)))
    local both = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert.equal(400, status_of(talk(server, both .. GET)))
    assert.equal(413, status_of(talk(server, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n")))
    assert.equal(431, status_of(talk(server, "GET / HTTP/1.1\r\nA: " .. ("b"):rep(20000))))
    assert.equal(414, status_of(talk(server, "GET /" .. ("b"):rep(20000))))
  end))

  it("tells a client that sends on why it was refused", in_task(function()
    local server = serve(hello)
    local socket = connect(server)
    socket:write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n")
    socket:write(("x"):rep(100000))
    assert.equal(413, status_of(read_until(socket)))
  end))

  it("gives a client leave to send its body", in_task(function()
    local socket = connect(serve(function(request)
      return 200, nil, request.body
    end))
    socket:write("POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n")
    socket:write("Content-Length: 2\r\nConnection: close\r\n\r\n")
    assert.equal("HTTP/1.1 100 Continue\r\n\r\n", read_until(socket, "\r\n\r\n"))
    socket:write("ab")
    assert.equal("ab", read_until(socket):match("\r\n\r\n(.*)$"))
  end))

  it("lets slow clients wait no longer than each step may take", in_task(function()
    local server = serve(hello, { head_timeout = 0.05, body_timeout = 0.05, idle_timeout = 0.05 })
    assert.equal("", talk(server, ""))
    assert.equal(408, status_of(talk(server, "GET / HTTP/1.1\r\nHos")))
    assert.equal(408, status_of(talk(server, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nab")))
    local socket = connect(server)
    eventually(function() -- however long it goes on to send
      tasks.sleep(0.005)
      return socket.over or not socket:write("x")
    end)
    assert.equal(408, status_of(read_until(socket)))
  end))

  it("ends a connection whose client takes nothing of the response", in_task(function()
    local made = 0
    local server = serve(function()
      return 200, nil, function()
        made = made + 1
        return ("x"):rep(100000)
      end
    end, { write_timeout = 0.1 })
    local socket = luv.new_tcp()
    socket:connect("127.0.0.1", tonumber(server.url:match("%d+$")), function()
      socket:write(GET)
    end)
    eventually(function()
      return made > 0 and server:stats().connections == 0
    end, 20)
    support.close(socket)
    assert.is_true(made < 1000)
  end))

  it("does not read on while a handler works, however much a client sends", in_task(function()
    local finish = require("weir.channel")(1)
    local server = serve(function()
      finish:recv(10)
      return 200, nil, ""
    end)
    local socket = connect(server)
    socket:write(GET)
    local sent, err = 0, nil
    while not err and sent < 64 * 1024 * 1024 do
      local ok
      ok, err = socket:write(("x"):rep(65536), 0.2)
      sent = sent + (ok and 65536 or 0)
    end
    finish:send(true)
    assert.equal("timeout", err and err.code)
  end))

  it("answers 503 to connections above the limit while all are at work", in_task(function()
    local gate, began = require("weir.channel")(), 0
    local server = serve(function()
      began = began + 1
      gate:recv(10)
      return hello()
    end, { max_connections = 2 })
    local first, second = connect(server), connect(server)
    first:write(LAST)
    second:write(LAST)
    eventually(function()
      return began == 2
    end)
    assert.equal(503, status_of(read_until(connect(server))))
    assert.equal(2, server:stats().connections)
    gate:close()
    assert.equal(200, status_of(read_until(first)))
    assert.equal(200, status_of(read_until(second)))
    eventually(function()
      return server:stats().connections == 0
    end)
    assert.equal(200, status_of(talk(server, LAST)))
  end))

  it("ends the connection that has been idle for longest where another one comes", in_task(function()
    local server = serve(hello, { max_connections = 2 })
    local sockets_in_order = {}
    for i = 1, 2 do
      sockets_in_order[i] = connect(server)
      sockets_in_order[i]:write(GET)
      read_until(sockets_in_order[i], "hello")
    end
    for _ = 1, 3 do
      assert.equal(200, status_of(talk(server, LAST)))
      eventually(function()
        return server:stats().connections == 1
      end)
    end
    assert.equal("", read_until(sockets_in_order[1]))
    sockets_in_order[2]:write(LAST)
    assert.equal(200, status_of(read_until(sockets_in_order[2])))
  end))

  it("listens on this machine alone unless it is told otherwise", function()
    local err = fails("insecure", http.listen("tcp://0.0.0.0:0", hello))
    assert.truthy(err.message:find("insecure = true", 1, true))
    assert(http.listen("tcp://0.0.0.0:0", hello, { insecure = true })):close()
  end)

  it("listens where people say, in whichever form", function()
    local path = os.tmpname()
    os.remove(path)
    for _, each in ipairs({
      { "http://127.0.0.1:0", "^http://127.0.0.1:%d+$" },
      { "http://127.0.0.1:0/", "^http://127.0.0.1:%d+$" },
      { "tcp://127.0.0.1:0", "^http://127.0.0.1:%d+$" },
      { "localhost:0", "^http://localhost:%d+$" },
      { ":0", "^http://127.0.0.1:%d+$" },
      { "0", "^http://127.0.0.1:%d+$" },
      { "unix://" .. path, "^http%+unix://" .. path .. "$" },
      { "http+unix://" .. path, "^http%+unix://" .. path .. "$" },
    }) do
      local server = assert(http.listen(each[1], hello))
      assert.matches(each[2], server.url)
      server:close(0)
    end
    for _, wrong in ipairs({ "", "x", "127.0.0.1", "https://127.0.0.1:0", "http://127.0.0.1:99999", "http://h:1/x",
      "http://u:p@h:1", "mem://x", "%s:%d" }) do
      local err = fails("bad_url", http.listen(wrong, hello))
      assert.truthy(err.message:find("is no address to listen on; give one such as http://127.0.0.1:8000", 1, true))
    end
  end)

  it("says so when the port is in use", function()
    local server = serve(hello)
    local err = fails("in_use", http.listen(server.url, hello))
    assert.truthy(err.message:find("another program listens there", 1, true))
    assert.truthy(err.message:find(server.url, 1, true))
  end)

  it("does not answer under a name that a page elsewhere may have pointed here", in_task(function()
    local server = serve(hello, { hosts = { "Metrics.example" } })
    local function asked(host)
      return status_of(talk(server, ("GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n"):format(host)))
    end
    assert.equal(421, asked("evil.example"))
    for _, host in ipairs({ "evil.example:80", "127.0.0.1.evil.example", "[evil.example]", "", "localhost, evil" }) do
      assert.equal(421, asked(host), host)
    end
    for _, host in ipairs({ "localhost:9090", "127.0.0.1", "[::1]:80", "metrics.example", "app.localhost" }) do
      assert.equal(200, asked(host), host)
    end
  end))

  it("refuses what a page of another site sends", in_task(function()
    local server = serve(hello)
    local function sent(origin)
      local head = "POST / HTTP/1.1\r\nHost: localhost:1\r\nOrigin: %s\r\nConnection: close\r\n\r\n"
      return status_of(talk(server, head:format(origin)))
    end
    assert.equal(403, sent("http://evil.example"))
    assert.equal(403, sent("null"))
    assert.equal(200, sent("http://localhost:1"))
  end))

  it("lets responses end when it is closed, and cancels those that do not", in_task(function()
    local began = 0
    local server = serve(function(request)
      began = began + 1
      if request.path == "/endless" then
        return 200, nil, function()
          tasks.sleep(60)
        end
      end
      tasks.sleep(0.05)
      return 200, nil, "done"
    end)
    local slow, endless, idle = connect(server), connect(server), connect(server)
    slow:write("GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
    endless:write("GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
    eventually(function()
      return began == 2 and server:stats().connections == 3
    end)
    local readers = {}
    for name, socket in pairs({ slow = slow, idle = idle }) do
      readers[name] = tasks.spawn(read_until, socket)
    end
    assert.is_true(server:close(5))
    assert.truthy(readers.slow:join(5):find("done$"))
    assert.equal("", readers.idle:join(5))
    fails("refused", runtime.dial((server.url:gsub("^http", "tcp"))))
    assert.is_true(server:close())
  end))

  it("may be closed by several at a time", in_task(function()
    local server = serve(function()
      tasks.sleep(0.05)
      return hello()
    end)
    local socket = connect(server)
    socket:write(GET)
    eventually(function()
      return server:stats().connections == 1
    end)
    local closers = { tasks.spawn(server.close, server, 5), tasks.spawn(server.close, server, 5) }
    read_until(socket)
    for _, closer in ipairs(closers) do
      assert.is_true(closer:join(5))
    end
  end))

  it("raises for misuse, and names the option that was meant", function()
    local function message(...)
      local ok, err = pcall(http.listen, ...)
      assert.is_false(ok)
      return err
    end
    assert.truthy(message("tcp://127.0.0.1:0", hello, { max_heads = 1 }):find("did you mean 'max_head'?", 1, true))
    assert.truthy(message("tcp://127.0.0.1:0", hello, { max_body = "x" }):find("not a size", 1, true))
    assert.truthy(message("tcp://127.0.0.1:0", hello, { idle_timeout = 0 }):find("above 0", 1, true))
    assert.truthy(message("tcp://127.0.0.1:0"):find("a handler is expected", 1, true))
    assert.truthy(message(nil, hello):find("an address such as", 1, true))
    fails("bad_url", http.listen("127.0.0.1", hello))
  end)

  describe("routes", function()
    local handler = http.routes({
      ["GET /a"] = hello,
      ["POST /b"] = function()
        return 201
      end,
    })

    it("answers 404 for other paths, and 405 with what is allowed for other methods", function()
      assert.equal(200, (handler({ method = "GET", path = "/a" })))
      assert.equal(200, (handler({ method = "HEAD", path = "/a" })))
      assert.equal(201, (handler({ method = "POST", path = "/b" })))
      assert.equal(404, (handler({ method = "GET", path = "/c" })))
      local status, headers = handler({ method = "PUT", path = "/a" })
      assert.equal(405, status)
      assert.equal("GET, HEAD", headers.allow)
    end)

    it("raises for a route that is none", function()
      assert.has_error(function()
        http.routes({ ["/a"] = hello })
      end, "http.routes: a route is written \"GET /path\", unlike \"/a\"")
    end)
  end)

  it("frames events line by line", function()
    assert.equal("data: a\ndata: b\ndata: \n\n", http.event("a\r\nb\n"))
    assert.equal("event: x\ndata: a\n\n", http.event("a", "x"))
    assert.has_error(function()
      http.event("a", "b\nc")
    end)
  end)
end)
