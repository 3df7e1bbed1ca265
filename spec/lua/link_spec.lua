local luv = require("luv")
local runtime = require("weir.runtime")
local tasks = require("weir.task")
local url = require("weir.runtime.url")
local support = require("spec.lua.support")
local fails, eventually, peer = support.fails, support.eventually, support.peer

local opened = {} -- listeners to close after each test

local function listen(text, on_conn, opts)
  local listener = assert(runtime.listen(text, opts, on_conn))
  opened[#opened + 1] = listener
  return listener
end

-- A listener whose connections get peers made with `opts`; the peers are in the list.
local function serve(text, opts)
  local list = {}
  local listener = listen(text, function(conn)
    list[#list + 1] = peer(opts or {}):attach(conn)
  end)
  return listener, list
end

local function dial(listener, opts)
  opts = opts or {}
  opts.client = true
  return peer(opts):attach(assert(runtime.dial(listener.url, { linger = opts.linger })))
end

-- A plain TCP server of the program's own, which calls fn(socket) for each connection.
local function raw_server(fn)
  local server = luv.new_tcp()
  server:bind("127.0.0.1", 0)
  server:listen(16, function()
    local socket = luv.new_tcp()
    server:accept(socket)
    opened[#opened + 1] = socket
    fn(socket)
  end)
  opened[#opened + 1] = server
  return { url = "tcp://127.0.0.1:" .. server:getsockname().port }
end

local function bytes(count)
  local parts, seed = {}, 42
  for i = 1, count / 8 do
    seed = seed * 16807 % 2147483647
    parts[i] = ("%08x"):format(seed)
  end
  return table.concat(parts)
end

local function close_all()
  for _, each in ipairs(opened) do
    if not each.is_closing or not each:is_closing() then
      each:close()
    end
  end
  opened = {}
  runtime.pause()
end

describe("url.parse", function()
  it("takes addresses apart", function()
    local function parse(text)
      local parsed = assert(url.parse(text))
      assert.equal(text, parsed.text)
      parsed.text = nil
      return parsed
    end
    assert.same({ scheme = "tcp", host = "example.org", port = 80 }, parse("tcp://example.org:80"))
    assert.same({ scheme = "tcp", host = "::1", port = 0 }, parse("tcp://[::1]:0"))
    assert.same({ scheme = "tcp", host = "fe80::1%eth0", port = 9 }, parse("TCP://[fe80::1%eth0]:9"))
    assert.same({ scheme = "unix", path = "/run/a b.sock" }, parse("unix:///run/a b.sock"))
    assert.same({ scheme = "unix", path = "here.sock" }, parse("unix://here.sock"))
    assert.same({ scheme = "mem", name = "a-1" }, parse("mem://a-1"))
  end)

  it("says what is wrong with a bad one", function()
    local bad = {
      [""] = "expected tcp",
      ["localhost:80"] = "expected tcp",
      ["http://localhost:80"] = "unknown scheme \"http\"; known are: mem, tcp, unix",
      ["tcp://"] = "port is missing",
      ["tcp://host"] = "port is missing",
      ["tcp://:80"] = "expected tcp://host:port",
      ["tcp://host:"] = "port is missing",
      ["tcp://host:http"] = "port is missing",
      ["tcp://host:65536"] = "a port is 0 to 65535",
      ["tcp://host:000000000080"] = "a port is 0 to 65535",
      ["tcp://host:-1"] = "port is missing",
      ["tcp://::1:80"] = "in brackets",
      ["tcp://[::1:80"] = "expected tcp",
      ["tcp://[host]:80"] = "only IPv6",
      ["tcp://user@host:80"] = "user names",
      ["tcp://host:80/path"] = "port is missing",
      ["tcp://ho st:80"] = "expected tcp",
      ["tcp://" .. ("x"):rep(254) .. ":80"] = "too long",
      ["unix://"] = "path is missing",
      ["unix:///" .. ("x"):rep(107)] = "at most 107 bytes",
      ["unix:///a\0b"] = "zero byte",
      ["mem://"] = "a name has",
      ["mem://a/b"] = "a name has",
      ["tcp://" .. ("x"):rep(2000)] = "too long",
    }
    for text, why in pairs(bad) do
      local err = fails("bad_url", url.parse(text))
      assert.is_truthy(err.message:find(why, 1, true), text .. ": " .. err.message)
    end
    assert.has_error(function()
      url.parse(80)
    end)
  end)
end)

for _, kind in ipairs({ "tcp", "unix" }) do
  describe("a connection over " .. kind, function()
    local address

    before_each(function()
      address = kind == "tcp" and "tcp://127.0.0.1:0" or "unix://" .. support.socket_path()
    end)
    after_each(close_all)

    it("carries bytes both ways, whole and in order, past full sockets", function()
      local listener, servers = serve(address, { echo = true })
      local client = dial(listener, { keep = true })
      local text = bytes(4 * 1024 * 1024)
      client:send(text)
      eventually(function()
        return client.received == #text
      end, 20)
      assert.is_true(client:text() == text)
      local stats = client.conn:stats()
      assert.is_true(stats.sent > #text and stats.received > #text)
      assert.equal(stats.sent, servers[1].conn:stats().received)
    end)

    it("ends in order on both sides when the endpoint is finished", function()
      local listener, servers = serve(address, { keep = true })
      local client = dial(listener)
      client:send("last words")
      client.stream:shutdown()
      client.endpoint:close()
      eventually(function()
        return client.closed and servers[1] and servers[1].closed
      end)
      assert.is_nil(client.err)
      assert.is_nil(servers[1].err)
      assert.equal("last words", servers[1]:text())
    end)

    it("is closed at once by close(), after what it can write", function()
      local listener, servers = serve(address, { keep = true })
      local client = dial(listener)
      client:send("parting")
      client.conn:close()
      client.conn:close()
      eventually(function()
        return client.closed and servers[1] and servers[1].closed
      end)
      assert.equal("closed", client.err.code)
      assert.equal("parting", servers[1]:text())
      assert.matches("closed%)$", tostring(client.conn))
    end)

    it("ends with an error for a peer that sends garbage, and others go on", function()
      local listener, servers = serve(address, { echo = true })
      local good = dial(listener, { keep = true })
      local socket = kind == "tcp" and luv.new_tcp() or luv.new_pipe(false)
      opened[#opened + 1] = socket
      local function garbage()
        socket:write(("\255"):rep(100))
        socket:read_start(function() end)
      end
      if kind == "tcp" then
        socket:connect("127.0.0.1", tonumber(listener.url:match("%d+$")), garbage)
      else
        socket:connect(listener.url:sub(8), garbage)
      end
      eventually(function()
        return servers[2] and servers[2].closed
      end)
      assert.equal("version", servers[2].err.code)
      good:send("still here")
      eventually(function()
        return good:text() == "still here"
      end)
    end)

    it("lives as long as it is attached, and is closed when it is collected unattached", function()
      local listener, servers = serve(address, { echo = true })
      local client = dial(listener, { keep = true })
      local endpoint = client.endpoint
      client.conn = nil
      collectgarbage()
      collectgarbage()
      client:send("kept")
      eventually(function()
        return client:text() == "kept"
      end)
      endpoint:close()
      local count = #servers
      assert(runtime.dial(listener.url))
      eventually(function()
        collectgarbage()
        return servers[count + 1] and servers[count + 1].closed
      end)
    end)

    it("uses no turns of the loop while it is idle", function()
      local listener = serve(address, { echo = true })
      local client = dial(listener, { keep = true })
      client:send("hello")
      eventually(function()
        return client:text() == "hello"
      end)
      runtime.pause()
      local turns = 0
      local prepare = luv.new_prepare()
      prepare:start(function()
        turns = turns + 1
      end)
      tasks.sleep(0.2)
      support.close(prepare)
      assert.is_true(turns <= 6)
    end)

    it("can be had a hundred at a time", function()
      local listener = serve(address, { echo = true })
      local clients = {}
      tasks.group(function(group)
        for i = 1, 100 do
          group:spawn(function()
            clients[i] = dial(listener, { keep = true })
            clients[i]:send("number " .. i)
          end)
        end
      end)
      eventually(function()
        for i = 1, 100 do
          if clients[i]:text() ~= "number " .. i then
            return false
          end
        end
        return true
      end)
    end)

    it("cannot listen where somebody listens", function()
      local listener = serve(address)
      local err = fails("in_use", runtime.listen(listener.url, nil, print))
      assert.equal(listener.url, err.url)
      assert.matches("another program listens", err.message)
      assert(runtime.dial(listener.url)):close()
    end)

    it("says that nobody listens", function()
      local listener = serve(address)
      listener:close()
      listener:close()
      local err = fails("refused", runtime.dial(listener.url))
      assert.equal(listener.url, err.url)
      assert.matches("start the other side", err.message)
    end)

    it("gives up after the timeout, and when the task is cancelled", function()
      local listener = serve(address)
      local err = fails("timeout", runtime.dial(listener.url, { timeout = 0 }))
      assert.equal(listener.url, err.url)
      local task = tasks.spawn(runtime.dial, listener.url)
      task:cancel()
      fails("cancelled", task:join())
    end)
  end)
end

describe("tcp", function()
  after_each(close_all)

  it("reports the port that it got, and the peers' addresses", function()
    local conn
    local listener = listen("tcp://127.0.0.1:0", function(accepted)
      conn = accepted
    end)
    assert.matches("^tcp://127%.0%.0%.1:%d+$", listener.url)
    local client = assert(runtime.dial(listener.url))
    eventually(function()
      return conn
    end)
    assert.equal(listener.url, client:peer())
    assert.matches("^tcp://127%.0%.0%.1:%d+$", conn:peer())
    assert.matches("^weir%.conn%(tcp://", tostring(client))
    client:close()
    conn:close()
  end)

  it("tries all addresses of a name", function()
    local listener = serve("tcp://127.0.0.1:0")
    local port = listener.url:match("%d+$")
    assert(runtime.dial("tcp://localhost:" .. port)):close()
  end)

  it("listens on a name, and on IPv6", function()
    local listener = serve("tcp://localhost:0")
    assert.matches("^tcp://localhost:%d+$", listener.url)
    assert(runtime.dial(listener.url)):close()
    local six = runtime.listen("tcp://[::1]:0", nil, function() end)
    if six then -- the machine has IPv6
      opened[#opened + 1] = six
      assert.matches("^tcp://%[::1%]:%d+$", six.url)
      assert(runtime.dial(six.url)):close()
    end
  end)

  it("says that a name cannot be resolved", function()
    local err = fails("unresolved", runtime.dial("tcp://no-such-host.invalid:80", { timeout = 20 }))
    assert.matches("no%-such%-host%.invalid", err.message)
    fails("unresolved", runtime.listen("tcp://no-such-host.invalid:80", nil, print))
  end)

  it("will not listen where others can connect, unless told to", function()
    local err = fails("insecure", runtime.listen("tcp://0.0.0.0:0", nil, print))
    assert.matches("neither encrypted nor authenticated", err.message)
    assert.matches("insecure = true", err.message)
    fails("insecure", runtime.listen("tcp://[::]:0", nil, print))
    listen("tcp://0.0.0.0:0", print, { insecure = true })
  end)

  it("refuses what makes no sense", function()
    fails("bad_url", runtime.dial("tcp://127.0.0.1:0"))
    fails("bad_url", runtime.dial("mem://x"))
    fails("bad_url", runtime.listen("mem://x", nil, print))
    fails("bad_url", runtime.dial("nonsense"))
    fails("bad_url", runtime.listen("nonsense", nil, print))
    local err = fails("unavailable", runtime.listen("tcp://192.0.2.1:0", { insecure = true }, print))
    assert.equal("EADDRNOTAVAIL", err.system)
    for _, opts in ipairs({ { timout = 1 }, { timeout = "1" } }) do
      assert.has_error(function()
        runtime.dial("tcp://127.0.0.1:1", opts)
      end)
    end
  end)

  it("ends with an error when the peer does not answer pings", function()
    local server = raw_server(function(socket)
      socket:read_start(function() end)
    end)
    local client = dial(server, { keepalive = 0.02, keepalive_timeout = 0.02, linger = 0.01 })
    eventually(function()
      return client.closed
    end)
    assert.equal("timeout", client.err.code)
  end)

  it("lingers no longer than allowed for a peer that does not close", function()
    local server = raw_server(function() end)
    local client = dial(server, { linger = 0.05 })
    local start = runtime.now()
    client.endpoint:close()
    eventually(function()
      return client.closed
    end)
    assert.is_nil(client.err)
    assert.is_true(runtime.now() - start >= 0.04)
    assert.is_true(runtime.now() - start < 2)
  end)

  it("sends at once what is queued just before the loop blocks", function()
    local result = support.program([[
      local luv = require("luv")
      local prepare, act = luv.new_prepare(), function() end
      prepare:start(function() act() end) -- started before weir's: called after it
      local runtime, tasks = require("weir.runtime"), require("weir.task")
      local support = require("spec.lua.support")
      local listener = assert(runtime.listen("tcp://127.0.0.1:0", nil, function(conn)
        support.peer({ echo = true }):attach(conn)
      end))
      local client = support.peer({ client = true }):attach(assert(runtime.dial(listener.url)))
      client:send("a")
      support.eventually(function() return client.received == 1 end)
      tasks.sleep(0.01)
      act = function()
        act = function() end
        client:send("b")
      end
      tasks.sleep(0.3)
      print(client.received)
      os.exit(0, true)
    ]])
    assert.equal("2\n", result.out)
  end)

  it("still answers a peer that will send no more", function()
    local listener = serve("tcp://127.0.0.1:0")
    local socket, got = luv.new_tcp(), nil
    opened[#opened + 1] = socket
    socket:connect("127.0.0.1", tonumber(listener.url:match("%d+$")), function()
      socket:write("\0\2\0\1\0\0\0\0\0\0\0\7") -- a yamux ping
      socket:shutdown()
      socket:read_start(function(_, data)
        got = data or got or "nothing"
      end)
    end)
    eventually(function()
      return got
    end)
    assert.equal("\0\2\0\2\0\0\0\0\0\0\0\7", got:sub(1, 12))
  end)

  it("is told that the peer broke off", function()
    local server = raw_server(function(socket)
      socket:close()
    end)
    local client = dial(server)
    eventually(function()
      return client.closed
    end)
    assert.is_nil(client.err and client.err.code ~= "reset" and client.err or nil)
  end)

  it("does not end the program, nor change its signals, when the peer is gone", function()
    local result = support.program([[
      local runtime, tasks, core = require("weir.runtime"), require("weir.task"), require("weir.core")
      local luv = require("luv")
      local function ignored()
        for line in io.lines("/proc/self/status") do
          local set = line:match("^SigIgn:%s*(%x+)")
          if set then return set end
        end
      end
      local before = ignored()
      for _, blocked in ipairs({ false, true }) do
        local server, sockets = luv.new_tcp(), {}
        server:bind("127.0.0.1", 0)
        server:listen(1, function()
          local socket = luv.new_tcp()
          server:accept(socket)
          sockets[1] = socket
        end)
        local closed
        tasks.run(function()
          local conn = assert(runtime.dial("tcp://127.0.0.1:" .. server:getsockname().port))
          local session = core.yamux({ client = true })
          assert(conn:attach(session, function() closed = true end))
          while not sockets[1] do tasks.sleep(0.001) end
          local function write()
            for _ = 1, blocked and 100 or 1 do session:open():write(("x"):rep(200000)) end
            tasks.sleep(0.005)
          end
          write()
          sockets[1]:close()
          for _ = 1, 100 do
            if closed then break end
            pcall(write)
          end
        end)
        assert(closed)
        server:close()
        luv.run()
      end
      assert(ignored() == before)
      print("alive")
    ]])
    assert.equal("", result.err)
    assert.equal("alive\n", result.out)
    assert.equal(0, result.status)
  end)

  it("does not take more from an endpoint than the socket and one block hold", function()
    local server = raw_server(function() end) -- never reads
    local client = dial(server)
    local streams, written = {}, 0
    for i = 1, 100 do
      streams[i] = client.endpoint:open()
      streams[i]:write(("x"):rep(200000))
      written = written + 200000
    end
    local before
    eventually(function()
      local sent = client.conn:stats().sent
      local same = sent == before
      before = sent
      return same and sent > 0
    end)
    assert.is_true(before < written)
    client.conn:close()
    eventually(function()
      return client.closed
    end)
  end)
end)

describe("unix", function()
  after_each(close_all)

  it("takes over the file of a listener that died", function()
    local path = support.socket_path()
    local result = support.program(([[
      local luv = require("luv")
      local pipe = luv.new_pipe(false)
      assert(pipe:bind(%q))
      pipe:listen(1, print)
      os.exit(0, false) -- leaves the file
    ]]):format(path))
    assert.equal(0, result.status)
    assert.equal("socket", luv.fs_stat(path).type)
    local listener = serve("unix://" .. path)
    assert(runtime.dial(listener.url)):close()
  end)

  it("removes its file when it is closed", function()
    local path = support.socket_path()
    local listener = serve("unix://" .. path)
    assert.is_table(luv.fs_stat(path))
    listener:close()
    runtime.pause()
    assert.is_nil((luv.fs_stat(path)))
  end)

  it("leaves a file alone that is no socket", function()
    local path = os.tmpname()
    fails("in_use", runtime.listen("unix://" .. path, nil, print))
    fails("refused", runtime.dial("unix://" .. path))
    assert.equal("file", luv.fs_stat(path).type)
    os.remove(path)
  end)

  it("says that the directory is missing", function()
    local err = fails("denied", runtime.listen("unix:///no/such/directory/x.sock", nil, print))
    assert.matches("directory /no/such/directory does not exist", err.message)
  end)
end)

describe("a pair", function()
  after_each(close_all)

  local function pair()
    local a, b = runtime.pair("mem://test")
    return peer({ client = true, keep = true }):attach(a), peer({ echo = true, keep = true }):attach(b)
  end

  it("carries bytes without a socket", function()
    local a, b = pair()
    local text = bytes(2 * 1024 * 1024)
    a:send(text)
    eventually(function()
      return a.received == #text
    end)
    assert.is_true(a:text() == text)
    assert.is_true(b:text() == text)
    assert.equal("weir.conn(mem://test, open)", tostring(a.conn))
    assert.is_nil(a.conn:peer())
    a.conn:close()
  end)

  it("ends on both sides when one endpoint is finished", function()
    local a, b = pair()
    a:send("bye")
    a.stream:shutdown()
    a.endpoint:close()
    eventually(function()
      return a.closed and b.closed
    end)
    assert.is_nil(a.err)
    assert.is_nil(b.err)
    assert.equal("bye", b:text())
  end)

  it("ends on both sides when one is closed", function()
    local a, b = pair()
    b.conn:close()
    eventually(function()
      return a.closed and b.closed
    end)
    assert.equal("closed", b.err.code)
    assert.is_nil(a.err)
  end)

  it("may be closed on both sides at once", function()
    local a, b = pair()
    runtime.pause()
    a.conn:close()
    b.conn:close()
    a.conn, b.conn = nil, nil
    collectgarbage()
    eventually(function()
      collectgarbage()
      return a.closed and b.closed
    end)
    assert.equal("closed", a.err.code)
    assert.equal("closed", b.err.code)
  end)

  it("does not keep a program running", function()
    local result = support.program([[
      local runtime, core = require("weir.runtime"), require("weir.core")
      local a, b = runtime.pair()
      local left, right = core.yamux({ client = true }), core.yamux()
      a:attach(left)
      b:attach(right)
      left:open():write("hello")
      require("luv").run()
      print("end")
    ]])
    assert.equal("end\n", result.out)
    assert.equal(0, result.status)
  end)
end)

describe("attach", function()
  after_each(close_all)

  it("wants an endpoint, once, on an open connection", function()
    local a, b = runtime.pair()
    for _, bad in ipairs({ {}, "endpoint", io.stdout }) do
      assert.has_error(function()
        a:attach(bad)
      end)
    end
    local left = peer({ client = true }):attach(a)
    assert.has_error(function()
      b:attach(left.endpoint)
    end)
    assert.has_error(function()
      a:attach(peer({}).endpoint)
    end)
    b:close()
    assert.has_error(function()
      b:attach(peer({}).endpoint)
    end)
    eventually(function()
      return left.closed
    end)
  end)
end)
