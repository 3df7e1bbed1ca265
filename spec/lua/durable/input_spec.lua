--- What servers and callers get wrong: clear errors with codes, in bounded time and memory.
local durable = require("weir.durable")
local here = require("spec.lua.durable.support")
local clean_environment = require("spec.environment")
local luv = require("luv")
local support = require("spec.lua.support")
local weir = require("weir")

local answer = here.answer
local fails = support.fails
local OFFSET = { "Stream-Next-Offset", "0000000000000000_0000000000000003" }
local TEXT = { "Content-Type", "text/plain" }
local JSON = { "Content-Type", "application/json" }
local UP_TO_DATE = { "Stream-Up-To-Date", "true" }

-- Runs fn(stream, script, client) with a scripted server. `handle` as for script(), or the bytes of every
-- answer, behind which the connection is closed.
local function with(handle, fn, opts)
  opts = opts or {}
  opts.retry = opts.retry or { initial = 0.001, max = 0.01, max_retries = 3 }
  return here.scripted(type(handle) == "function" and handle or function(_, conn)
    conn:write(handle, function()
      if not conn:is_closing() then
        conn:close()
      end
    end)
  end, function(client, script)
    fn(client:stream("/s", { content_type = "text/plain" }), script, client)
  end, opts)
end

-- Writes the same bytes again and again, as fast as they are taken; `state.sent` counts them.
local function flood(conn, head, piece, state)
  local function more(err)
    if err or conn:is_closing() or state.sent > 256 * 1024 * 1024 then
      return not conn:is_closing() and conn:close()
    end
    state.sent = state.sent + #piece
    conn:write(piece, more)
  end
  state.sent = 0
  conn:write(head, more)
end

describe("A server that lies about its body", function()
  local HEAD = "HTTP/1.1 200 X\r\nStream-Next-Offset: 0_3\r\nContent-Type: %s\r\nStream-Up-To-Date: true\r\n%s\r\n\r\n"

  local function head(content_type, framing)
    return HEAD:format(content_type, framing)
  end

  it("is asked again when it ends before the length that it gave, up to the limit",
    with(head("text/plain", "Content-Length: 10") .. "abc", function(stream, script)
      local err = fails("network", stream:read():body())
      assert.equal(3, err.retries)
      assert.equal(4, #script.requests)
      assert.truthy(err.url:find("/s", 1, true))
    end))

  it("is asked again when its last chunk is missing", with(head("text/plain", "Transfer-Encoding: chunked")
    .. "3\r\nabc\r\n", function(stream, script)
      fails("network", stream:read():body())
      assert.equal(4, #script.requests)
    end))

  it("is asked again when a chunk has no size", with(head("text/plain", "Transfer-Encoding: chunked")
    .. "zz\r\nabc\r\n0\r\n\r\n", function(stream)
      fails("network", stream:read():body())
    end))

  it("has what it sends beyond the length ignored", with(head("text/plain", "Content-Length: 2") .. "abc",
    function(stream)
      assert.equal("ab", stream:read():body())
    end))

  it("cannot pass JSON that is cut for whole", with(head("application/json", "Content-Length: 6") .. "[1,2,3]",
    function(stream)
      fails("parse_error", stream:read():body())
    end))

  for name, framing in pairs({
    ["that is no number"] = "Content-Length: abc",
    ["that is negative"] = "Content-Length: -1",
    ["that is larger than any"] = "Content-Length: 99999999999999999999999999",
    ["and another length"] = "Content-Length: 3\r\nContent-Length: 4",
  }) do
    it("is not believed a length " .. name, with(head("text/plain", framing) .. "abc", function(stream)
      local text, err = stream:read():body()
      assert(text == nil or text == "abc")
      assert(text or err.code == "network" or err.code == "too_large", tostring(err))
    end))
  end

  it("is not believed that there is a body to an answer that has none",
    with("HTTP/1.1 204 X\r\nStream-Next-Offset: 0_3\r\nContent-Length: 5\r\n\r\nhello", function(stream)
      assert.equal("0_3", assert(stream:append("x")).offset)
    end))

  for what, bytes in pairs({
    ["something else than HTTP"] = "220 smtp.example.com ESMTP\r\n\r\n",
    ["no status"] = "HTTP/1.1\r\n\r\n",
    ["a status that is no number"] = "HTTP/1.1 2x0 OK\r\n\r\n",
    ["nothing"] = "",
  }) do
    it("is a failure of the connection when it speaks " .. what, with(bytes, function(stream)
      local err = fails("network", stream:head())
      assert.equal(3, err.retries)
      fails("network", stream:read():next(10))
      local producer = stream:producer({ linger = 0, retry = { max_retries = 1, initial = 0.001 } })
      assert(producer:append("x"))
      err = fails("network", producer:flush(10))
      assert.equal(0, err.first_item)
      assert.equal(1, err.item_count)
    end))
  end
end)

describe("A server that has too much to say", function()
  local state = {}
  local ENDLESS = "HTTP/1.1 200 X\r\nStream-Next-Offset: 0_3\r\nContent-Type: %s\r\n\r\n"

  for name, bytes in pairs({
    ["headers"] = "X-More: " .. ("x"):rep(1000) .. "\r\n",
    ["one header"] = ("x"):rep(1000),
    ["provisional answers"] = "\r\nHTTP/1.1 103 X\r\nLink: <x>\r\n",
  }) do
    it("is cut off in its " .. name, with(function(_, conn)
      local head = name == "provisional answers" and "HTTP/1.1 103 X\r\nLink: <x>\r\n" or "HTTP/1.1 200 X\r\nX-More: "
      flood(conn, head, bytes, state)
    end, function(stream)
      fails("too_large", stream:head())
      fails("too_large", stream:read():next(10))
      local producer = stream:producer()
      assert(producer:append("x"))
      fails("too_large", producer:flush(10))
      assert.is_true(state.sent < 32 * 1024 * 1024, state.sent)
    end))
  end

  for _, status in ipairs({ 200, 400, 503 }) do
    it(("is not listened to for ever after its status: %d"):format(status), with(function(_, conn)
      flood(conn, ("HTTP/1.1 %d X\r\nStream-Next-Offset: 0_3\r\nRetry-After: 0\r\n\r\n"):format(status),
        ("because "):rep(1000), state)
    end, function(stream)
      local result, err = stream:append("x")
      if status == 200 then
        assert.equal("0_3", result.offset)
      else
        assert.equal(status, err.status)
        assert.is_true(#err.message < 1000)
      end
      assert.is_true(state.sent < 32 * 1024 * 1024, state.sent)
      local producer = stream:producer({ linger = 0, retry = { max_retries = 1, initial = 0.001 } })
      assert(producer:append("x"))
      result, err = producer:flush(10)
      assert(result or err.status == status)
      assert.is_true(state.sent < 32 * 1024 * 1024, state.sent)
    end))
  end

  it("is read no further than the limit of body()", with(function(_, conn)
    flood(conn, ENDLESS:format("text/plain"), ("x"):rep(10000), state)
  end, function(stream)
    local reader = stream:read()
    fails("too_large", reader:body(100000))
    reader:close()
    assert.is_true(state.sent < 32 * 1024 * 1024, state.sent)
  end))

  it("is not read while nobody reads", with(function(_, conn)
    flood(conn, ENDLESS:format("text/plain"), ("x"):rep(10000), state)
  end, function(stream)
    local reader = stream:read()
    assert(reader:next(10))
    local before
    repeat -- until the network is full
      before = state.sent
      weir.sleep(0.05)
    until state.sent == before
    assert.is_true(state.sent < 64 * 1024 * 1024, state.sent)
    for _ = 1, 1000 do
      assert(reader:next(10))
    end
    reader:close()
  end))

  it("cannot make an item longer than allowed", with(function(_, conn)
    flood(conn, ENDLESS:format("application/json") .. '["', ("x"):rep(10000), state)
  end, function(stream)
    fails("too_large", stream:read({ max_event = 100000 }):next(10))
    assert.is_true(state.sent < 32 * 1024 * 1024, state.sent)
  end))

  it("cannot make an event longer than allowed", with(function(request, conn)
    if request.target:find("live=sse", 1, true) then
      flood(conn, ENDLESS:format("text/event-stream") .. 'event: data\ndata:["', ("x"):rep(10000), state)
      return nil
    end
    return answer(200, { OFFSET, JSON, UP_TO_DATE, { "Stream-Closed", "true" } }, "[7]")
  end, function(stream)
    local reader = stream:read({ live = "sse", max_event = 100000 })
    assert.equal(7, reader:next_item(10))
    assert(state.sent < 32 * 1024 * 1024)
    reader:close()
  end))
end)

describe("A server that breaks the protocol", function()
  for name, headers in pairs({
    ["has no offset"] = { TEXT, UP_TO_DATE },
    ["has an empty offset"] = { TEXT, UP_TO_DATE, { "Stream-Next-Offset", "" } },
    ["calls the tail now"] = { TEXT, UP_TO_DATE, { "Stream-Next-Offset", "now" } },
    ["has an offset with a comma"] = { TEXT, UP_TO_DATE, { "Stream-Next-Offset", "0,1" } },
  }) do
    it("is refused when a read " .. name, with(function()
      return answer(200, headers, "abc")
    end, function(stream, script)
      fails("parse_error", stream:read():body())
      assert.equal(1, #script.requests)
    end))
  end

  it("is refused when an offset is too long", with(function()
    return answer(200, { TEXT, UP_TO_DATE, { "Stream-Next-Offset", ("9"):rep(600) } }, "abc")
  end, function(stream)
    fails("too_large", stream:read():body())
    fails("too_large", stream:head())
  end))

  for _, control in ipairs({ "{", "{}", '{"streamNextOffset":1}', '{"streamNextOffset":""}', "[]", "x" }) do
    it("is refused when a control event is " .. control, with(function(request, conn)
      if not request.target:find("live=sse", 1, true) then
        return answer(200, { OFFSET, JSON, UP_TO_DATE }, "[]")
      end
      conn:write("HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\n\r\nevent: control\ndata:" .. control .. "\n\n")
    end, function(stream)
      local reader = stream:read({ live = "sse", offset = OFFSET[2] })
      fails("parse_error", reader:next_item(10))
      reader:close()
    end))
  end

  it("is refused when what it calls JSON is none", with(function()
    return answer(200, { OFFSET, JSON, UP_TO_DATE }, "<html>")
  end, function(stream)
    fails("parse_error", stream:read():next_item(10))
    fails("parse_error", stream:read():body())
  end))
end)

describe("A redirect", function()
  it("takes no secrets to another host, of no request that may be sent on", function()
    weir.run(function()
      local other = here.script(function(request)
        local closed = request.method == "GET" and { { "Stream-Closed", "true" } } or {}
        return answer(200, { OFFSET, TEXT, UP_TO_DATE, closed[1] }, request.method == "GET" and "abc" or "")
      end)
      local first = here.script(function(request)
        return answer(308, { { "Location", other.url .. request.target } })
      end)
      local client = durable.client({
        base_url = first.url,
        headers = { Authorization = "secret", ["X-Api-Key"] = function() return "secret" end },
      })
      local stream = client:stream("/s", { content_type = "text/plain", headers = { Cookie = "secret" } })
      assert(stream:create())
      assert(stream:append("x", { headers = { ["X-Own"] = "secret" } }))
      assert(stream:head())
      for _, live in ipairs({ false, "long-poll", "sse" }) do
        assert.equal("abc", stream:read({ live = live, headers = { ["X-Own"] = "secret" } }):body())
      end
      local producer = stream:producer({ headers = { ["X-Own"] = "secret" } })
      assert(producer:append("x"))
      assert(producer:close(nil, 10))
      assert(stream:delete())
      assert.is_true(#other.requests >= 8)
      for _, request in ipairs(other.requests) do
        assert.is_nil(request.head:find("secret", 1, true), request.head)
      end
      client:close()
      first:close()
      other:close()
    end)
  end)

  for name, location in pairs({
    ["to no URL"] = "http://",
    ["to another scheme"] = "file:///etc/passwd",
    ["with a user in it"] = "http://user:secret@127.0.0.1/",
  }) do
    it("is refused " .. name, with(function()
      return answer(307, { { "Location", location } })
    end, function(stream, script)
      fails("server_error", stream:head())
      fails("server_error", stream:read():next(10))
      assert.equal(2, #script.requests)
    end))
  end
end)

describe("A certificate that is bad", function()
  -- A server with a certificate of its own for `names`, valid for `days`.
  local function serve(names, days)
    local dir = assert(luv.fs_mkdtemp((os.getenv("TMPDIR") or "/tmp") .. "/weir-durable.XXXXXX"))
    local command = ("cd %s && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days %d"
      .. " -keyout key.pem -out cert.pem -subj /CN=test -addext subjectAltName=%s"
      .. " 2>/dev/null"):format(dir, days, names)
    assert(os.execute(command))
    local stdin, stdout = luv.new_pipe(), luv.new_pipe()
    local text = ""
    local child = assert(luv.spawn("node", {
      args = { "-e", [[
        const https = require('https'), fs = require('fs'), dir = process.argv[1]
        const tls = { key: fs.readFileSync(dir + '/key.pem'), cert: fs.readFileSync(dir + '/cert.pem') }
        const server = https.createServer(tls, (req, res) => {
          const type = { 'Content-Type': 'text/plain' }
          res.writeHead(200, { 'Stream-Next-Offset': '0_3', 'Stream-Up-To-Date': 'true', ...type })
          res.end(req.method === 'GET' ? 'abc' : '')
        }).listen(0, '127.0.0.1', () => console.log(server.address().port))
        process.stdin.on('end', () => process.exit(0)).resume()]], dir },
      env = clean_environment(),
      stdio = { stdin, stdout, 2 },
    }, function() end))
    stdout:read_start(function(_, data)
      text = text .. (data or "")
    end)
    support.eventually(function()
      return text:find("\n")
    end, 20)
    return {
      url = "https://127.0.0.1:" .. tonumber(text),
      cert = dir .. "/cert.pem",
      close = function()
        for _, handle in ipairs({ stdin, stdout, child }) do
          support.close(handle)
        end
        assert(os.execute("rm -r " .. dir))
      end,
    }
  end

  local function refused(url, tls)
    local client = durable.client({ base_url = url, tls = tls })
    local stream = client:stream("/s", { content_type = "text/plain" })
    local producer = stream:producer({ linger = 0 })
    assert(producer:append("x"))
    for _, err in ipairs({
      fails("network", stream:append("x")),
      fails("network", stream:read():next(10)),
      fails("network", stream:read({ live = "sse" }):next(10)),
      fails("network", producer:flush(10)),
    }) do
      assert.equal("tls", err.cause.code)
      assert.truthy(err.message:lower():find("certificate", 1, true), err.message)
      assert.is_true((err.retries or 0) == 0)
      assert.is_nil(err.unknown)
    end
    client:close()
  end

  it("ends every request at once, without a repetition", function()
    if not os.execute("command -v node >/dev/null 2>&1 && command -v openssl >/dev/null 2>&1") then
      pending("node or openssl is not installed")
      return
    end
    weir.run(function()
      local good = serve("IP:127.0.0.1", 2)
      refused(good.url, nil) -- nobody's
      local named = serve("DNS:elsewhere.example", 2)
      refused(named.url, { ca = named.cert }) -- another's
      local client = durable.client({ base_url = good.url, tls = { ca = good.cert } })
      assert.equal("abc", client:stream("/s"):read():body())
      client:close()
      good.close()
      named.close()
    end)
  end)
end)

describe("A URL", function()
  for _, url in ipairs({ "", "/s", "s", "ftp://127.0.0.1/s", "http://", "http:///s", "http://a b/s",
    "http://user@127.0.0.1/s", "http://" .. ("x"):rep(9000) }) do
    it(("that is none is refused: %q"):format(url:sub(1, 30)), function()
      weir.run(function()
        local client = durable.client()
        local ok, stream = pcall(client.stream, client, url, { content_type = "text/plain" })
        if ok then
          fails("bad_url", stream:head())
          fails("bad_url", stream:append("x"))
          fails("bad_url", stream:read():next(10))
          local producer = stream:producer({ linger = 0 })
          assert(producer:append("x"))
          fails("bad_url", producer:flush(10))
        else
          assert.truthy(tostring(stream):find("URL", 1, true), tostring(stream))
        end
        client:close()
      end)
    end)
  end

  it("of a host that does not exist is a failure of the network", function()
    weir.run(function()
      local client = durable.client({ retry = { max_retries = 1, initial = 0.001 } })
      local stream = client:stream("http://nowhere.invalid/s", { content_type = "text/plain" })
      local err = fails("network", stream:append("x"))
      assert.equal("unresolved", err.cause.code)
      assert.is_nil(err.unknown)
      fails("network", stream:read():next(20))
      client:close()
    end)
  end)
end)

describe("The reference server", function()
  local client, server
  if not here.reference(function(...) client, server = ... end, { long_poll = 50, quiet = true }) then
    return
  end

  local function made(content_type)
    return here.stream(client, content_type)
  end

  it("does not know a stream that was not created", function()
    weir.run(function()
      local stream = client:stream("/nowhere", { content_type = "text/plain" })
      local producer = stream:producer({ linger = 0 })
      assert(producer:append("x"))
      for _, err in ipairs({
        fails("not_found", stream:head()),
        fails("not_found", stream:append("x")),
        fails("not_found", stream:append("x", { seq = "1" })),
        fails("not_found", stream:close()),
        fails("not_found", stream:delete()),
        fails("not_found", stream:read():next(10)),
        fails("not_found", stream:read({ live = "long-poll" }):next(10)),
        fails("not_found", stream:read({ live = "sse" }):next(10)),
        fails("not_found", stream:read({ live = "auto", offset = "now" }):next(10)),
        fails("not_found", producer:flush(10)),
        fails("not_found", client:stream("/fork"):fork({ from = "/nowhere" })),
      }) do
        assert.equal(404, err.status)
        assert.truthy(err.url:find(server.url, 1, true))
      end
      assert.is_false(stream:exists())
    end)
  end)

  it("refuses another content type", function()
    weir.run(function()
      local stream = made("text/plain")
      local err = fails("conflict", stream:append("x", { content_type = "application/json" }))
      assert.equal(409, err.status)
      local producer = stream:producer({ content_type = "application/octet-stream", linger = 0 })
      assert(producer:append("x"))
      err = fails("conflict", producer:flush(10))
      assert.equal(409, err.status)
      assert.equal(1, err.item_count)
      assert.equal("", stream:read():body())
    end)
  end)

  it("refuses what is no JSON, and nothing that follows is sent", function()
    weir.run(function()
      local stream = made("application/json")
      for _, bad in ipairs({ "{", "nul", "1 2", "]", "\255" }) do
        local err = fails("parse_error", stream:append(bad))
        assert.equal(400, err.status)
      end
      local producer = stream:producer({ linger = 0, max_batch_items = 1 })
      assert(producer:append("1"))
      assert(producer:append("{"))
      assert(producer:append("3"))
      local err = fails("parse_error", producer:flush(10))
      assert.equal(400, err.status)
      assert.equal(1, err.first_item)
      assert.equal("[1]", stream:read():body())
    end)
  end)

  it("refuses offsets that are none, in every mode", function()
    weir.run(function()
      local stream = made("application/json")
      assert(stream:append("1"))
      for _, live in ipairs({ false, "long-poll", "sse", "auto" }) do
        for _, offset in ipairs({ "garbage", "0", "a/b", "..", "0_0_0", "-2", "a b", "x,y", ",", "", "x,0",
          "0000000000000000_0000000000000000,9", "a\nb", ("9"):rep(5000) }) do
          local reader = stream:read({ offset = offset, live = live })
          local err = fails("invalid_offset", reader:next(10))
          assert.equal(offset, err.offset)
          fails("invalid_offset", reader:next(10)) -- and stays so
          reader:close()
        end
      end
    end)
  end)
end)
