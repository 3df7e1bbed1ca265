--- Defects that clients of durable streams are known to have had, one by one: this one has none of them.
local durable = require("weir.durable")
local here = require("spec.lua.durable.support")
local json = require("cjson")
local luv = require("luv")
local support = require("spec.lua.support")
local weir = require("weir")

local answer = here.answer
local RETRY = { initial = 0.001, max = 0.02 }
local NAMES = { ["\n"] = "LF", ["\r\n"] = "CRLF", ["\r"] = "CR" }
local MODES = { false, "long-poll", "sse", "auto" }

local function offset_of(n)
  return { "Stream-Next-Offset", ("%016d_%016d"):format(0, n) }
end

-- Runs fn(client, script) with a scripted server.
local function scripted(handle, fn, opts)
  opts = opts or {}
  opts.retry = opts.retry or RETRY
  return here.scripted(handle, fn, opts)
end

-- Writes `bytes` to a connection one by one, then closes it.
local function dribble(conn, bytes)
  local at = 0
  local function one()
    at = at + 1
    if conn:is_closing() then
      return
    elseif at > #bytes then
      return conn:close()
    end
    conn:write(bytes:sub(at, at), one)
  end
  conn:nodelay(true)
  one()
end

local UP_TO_DATE = { "Stream-Up-To-Date", "true" }
local EVENTS = "HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"

describe("A durable client does not", function()
  it("lose the one space that begins a line when the server writes it as it should", scripted(function(request, conn)
    if request.target:find("live=sse", 1, true) then
      conn:write(EVENTS .. "event: data\ndata:The\n\nevent: data\ndata:  quick\ndata:   brown\n\n"
        .. 'event: control\ndata:{"streamNextOffset":"9_9","upToDate":true,"streamClosed":true}\n\n', function()
        conn:close()
      end)
      return nil
    end
    return answer(200, { offset_of(0), { "Content-Type", "text/plain" }, UP_TO_DATE })
  end, function(client)
    assert.equal("The quick\n  brown", client:stream("/s"):read({ live = "sse" }):body())
  end))

  for _, eol in ipairs({ "\n", "\r\n", "\r" }) do
    it(("lose events whose line ends (%s) are split"):format(NAMES[eol]), scripted(function(request, conn)
      if not request.target:find("live=sse", 1, true) then
        return answer(200, { offset_of(0), { "Content-Type", "application/json" }, UP_TO_DATE }, "[]")
      end
      local lines = {}
      for i = 1, 3 do
        lines[#lines + 1] = "event: data"
        lines[#lines + 1] = ('data:[{"n":%d,'):format(i)
        lines[#lines + 1] = 'data:"text":" ä€😀"}]'
        lines[#lines + 1] = ""
        lines[#lines + 1] = "event: control"
        lines[#lines + 1] = ('data:{"streamNextOffset":"%d_%d","upToDate":true%s}'):format(i, i,
          i == 3 and ',"streamClosed":true' or "")
        lines[#lines + 1] = ""
      end
      dribble(conn, EVENTS .. table.concat(lines, eol) .. eol)
      return nil
    end, function(client)
      local seen = {}
      local reader = client:stream("/s"):read({ live = "sse" })
      for value in reader:items() do
        assert.equal(" ä€😀", value.text)
        seen[#seen + 1] = value.n
      end
      assert.same({ 1, 2, 3 }, seen)
      assert.is_nil(reader:stats().fallback)
      assert.equal("3_3", reader.offset)
    end))
  end

  it("leave its headers and parameters out of any request", function()
    weir.run(function()
      local n, failed = 0, {}
      local script
      local events = 'event: data\ndata:[2]\n\nevent: control\ndata:{"streamNextOffset":"2_%d","streamCursor":"7",'
        .. '"upToDate":true%s}\n\n'
      local lives = 0
      script = here.script(function(request, conn)
        if request.method == "GET" and request.target:find("live=sse", 1, true) then
          lives = lives + 1
          conn:write(EVENTS .. events:format(lives, lives > 2 and ',"streamClosed":true' or ""), function()
            conn:close()
          end)
          return nil
        end
        local key = request.method .. " " .. request.target .. (request.headers["producer-seq"] or "")
        if not failed[key] and request.method ~= "PUT" and not request.headers["transfer-encoding"] then
          failed[key] = true
          return answer(503)
        elseif request.method == "GET" then
          local live = request.target:find("live=", 1, true)
          lives = lives + (live and 1 or 0)
          return answer(200, { offset_of(lives), { "Content-Type", "application/json" }, { "Stream-Cursor", "5" },
            UP_TO_DATE, { "Stream-Closed", lives > 2 and "true" or "false" } }, "[1]")
        elseif request.headers["producer-epoch"] == "0" and request.headers["x-fence"] then
          return answer(403, { { "Producer-Epoch", "4" } })
        end
        return answer(200, { offset_of(1), { "Content-Type", "application/json" } })
      end)
      local client = durable.client({
        base_url = script.url,
        retry = RETRY,
        headers = { Authorization = function()
          n = n + 1
          return "Bearer " .. n
        end },
        params = { tenant = "a&b" },
      })
      local stream = client:stream("/s", { content_type = "application/json" })
      assert(stream:create())
      assert(stream:fork({ from = "/other" }))
      assert(stream:head())
      assert(stream:exists())
      assert(stream:append("1"))
      assert(stream:append("1", { seq = "a" }))
      local pieces = { "1", "2" }
      assert(stream:append_stream(function()
        return table.remove(pieces)
      end))
      for _, live in ipairs({ false, "long-poll", "sse" }) do
        lives = 0
        assert(stream:read({ live = live }):body())
      end
      local producer = stream:producer({ linger = 0, auto_claim = true, headers = { ["X-Fence"] = "yes" } })
      assert(producer:append("1"))
      assert(producer:flush(10))
      assert(producer:restart(10))
      assert(producer:append("2"))
      assert(producer:close("3", 10))
      assert(stream:close())
      assert(stream:delete())
      assert.is_true(#script.requests > 20)
      for i, request in ipairs(script.requests) do
        assert.equal("Bearer " .. i, request.headers.authorization, request.head)
        assert.truthy(request.target:find("tenant=a%26b", 1, true), request.head)
      end
      client:close()
      script:close()
    end)
  end)

  for _, live in ipairs({ "long-poll", "sse" }) do
    it(("put an offset or a cursor into a URL as it is (%s)"):format(live), scripted(function(request, conn, n)
      local head = { { "Stream-Next-Offset", "a'b%+#\"<>;:é" .. n }, { "Content-Type", "application/json" },
        { "Stream-Cursor", "c&d=e" }, UP_TO_DATE }
      if request.target:find("live=sse", 1, true) then
        conn:write(EVENTS .. 'event: control\ndata:{"streamNextOffset":"a\'b%+#\\"<>;:é' .. n
          .. '","streamCursor":"c&d=e","upToDate":true' .. (n == 3 and ',"streamClosed":true' or "")
          .. "}\n\n", function()
            conn:close()
          end)
        return nil
      end
      head[#head + 1] = n == 3 and { "Stream-Closed", "true" } or nil
      return answer(200, head, "[]")
    end, function(client, script)
      assert.equal("[]", client:stream("/s"):read({ live = live }):body())
      for i = 2, 3 do
        local wanted = "offset=a%27b%25%2B%23%22%3C%3E%3B%3A%C3%A9" .. i - 1
        local target = script.requests[i].target
        assert.truthy(target:find(wanted, 1, true), target)
        assert.truthy(i == 2 or target:find("cursor=c%26d%3De&live", 1, true), target)
      end
    end))
  end

  -- How often the loop turned, and how much time the processor had, while fn ran.
  local function turns_of(fn)
    local prepare, turns = luv.new_prepare(), 0
    prepare:start(function()
      turns = turns + 1
    end)
    local before = os.clock()
    fn()
    support.close(prepare)
    return turns, os.clock() - before
  end

  it("spin while it waits for an answer", scripted(function() end, function(client, script)
    local stream = client:stream("/s", { content_type = "text/plain" })
    local producer = stream:producer({ linger = 0 })
    local readers = { stream:read(), stream:read({ live = "sse" }) }
    assert(producer:append("a"))
    local turns, seconds = turns_of(function()
      support.fails("timeout", producer:flush(0.2))
      for _, reader in ipairs(readers) do
        support.fails("timeout", reader:next(0.2))
      end
    end)
    assert.is_true(turns < 60 and seconds < 0.2, ("%d turns, %g s"):format(turns, seconds))
    assert.equal(3, #script.requests)
    for _, reader in ipairs(readers) do
      reader:close()
    end
  end))

  it("spin while it waits for the time to try again", scripted(function()
    return answer(503, { { "Retry-After", "30" } })
  end, function(client, script)
    local stream = client:stream("/s", { content_type = "text/plain" })
    local producer = stream:producer({ linger = 0 })
    local reader = stream:read()
    assert(producer:append("a"))
    local turns = turns_of(function()
      support.fails("timeout", producer:flush(0.2))
      support.fails("timeout", reader:next(0.2))
    end)
    assert.is_true(turns < 60, turns)
    assert.equal(2, #script.requests)
    reader:close()
  end))

  it("send batches that are larger than it was told, however slow the server is", scripted(function(_, conn)
    local timer = luv.new_timer()
    timer:start(5, 0, function()
      timer:close()
      if not conn:is_closing() then
        conn:write(answer(200, { offset_of(1) }))
      end
    end)
  end, function(client, script)
    local stream = client:stream("/s", { content_type = "application/json" })
    local producer = stream:producer({ linger = 0, max_batch_bytes = 100, max_batch_items = 20 })
    local all = {}
    for i = 1, 200 do
      all[i] = i
      assert(producer:append(tostring(i)))
    end
    assert(producer:flush(20))
    local got = {}
    for _, request in ipairs(script.requests) do
      assert.is_true(#request.body <= 100)
      local values = json.decode(request.body)
      assert.is_true(#values <= 20)
      table.move(values, 1, #values, #got + 1, got)
    end
    assert.same(all, got)
  end))

  it("take a success for one that the protocol does not have", scripted(function(_, _, n)
    return n == 1 and answer(202) or answer(200, { offset_of(1) })
  end, function(client)
    local stream = client:stream("/s", { content_type = "text/plain" })
    local producer = stream:producer({ linger = 0 })
    assert(producer:append("a"))
    local err = support.fails("server_error", producer:flush(10))
    assert.equal(202, err.status)
    assert.equal(0, err.first_item)
    assert.equal(1, err.item_count)
  end))
end)

describe("A durable client of the reference server does not", function()
  local client, server
  if not here.reference(function(...) client, server = ... end, { long_poll = 50, keep_alive = 20, quiet = true }) then
    return
  end

  local function made(content_type)
    return here.stream(client, content_type)
  end

  -- Runs fn(stream, proxy) with a proxy that has faults, counts requests, and tells its own.
  local function proxied(content_type, fault, fn)
    weir.run(function()
      local plain = made(content_type)
      local proxy = here.proxy(server, fault)
      local far = durable.client({ base_url = proxy.url, retry = RETRY })
      here.closing({ far, proxy }, fn, far:stream(plain.path, { content_type = content_type }), plain, proxy)
    end)
  end

  for _, in_flight in ipairs({ 1, 5 }) do
    it(("lose what it appended when one 503 comes in between (%d in flight)"):format(in_flight), function()
      proxied("text/plain", function(_, n)
        return n == 2 and "503" or nil
      end, function(far, plain)
        local producer = far:producer({ linger = 0, max_in_flight = in_flight })
        for _, item in ipairs({ "a,", "SAVED,", "b,", "c" }) do
          assert(producer:append(item))
          assert(producer:flush(10))
        end
        assert(producer:close(nil, 10))
        assert.equal("a,SAVED,b,c", plain:read():body())
      end)
    end)
  end

  it("send anything twice when it sends in order", function()
    proxied("application/octet-stream", function() end, function(far, plain, proxy)
      local producer = far:producer({ max_batch_bytes = "64 KiB" })
      local item = ("x"):rep(65536)
      for _ = 1, 50 do
        assert(producer:append(item, 20))
      end
      assert(producer:flush(20))
      assert.equal(50, #proxy.requests)
      assert.equal(0, producer:stats().retries)
      assert.equal(50 * 65536, #plain:read():body())
    end)
  end)

  it("send again what has arrived when it sends out of order", function()
    proxied("text/plain", function() end, function(far, plain, proxy)
      local producer = far:producer({ max_batch_items = 1, linger = 0, max_in_flight = 5 })
      local all = {}
      for i = 1, 100 do
        all[i] = i .. ","
        assert(producer:append(all[i], 20))
      end
      assert(producer:flush(20))
      assert.equal(table.concat(all), plain:read():body())
      assert.equal(0, producer:stats().duplicates)
      assert.equal(100 + producer:stats().retries, #proxy.requests)
    end)
  end)

  it("change a byte in any mode", function()
    weir.run(function()
      local all = {}
      for i = 0, 255 do
        all[i + 1] = string.char(i)
      end
      local bytes = table.concat(all)
      for _, content_type in ipairs({ "application/octet-stream", "image/png", "text/plain" }) do
        local stream = made(content_type)
        local parts, random = {}, 1
        while #parts < 40 do -- cut anywhere: characters, and CR from LF
          random = (random * 1103515245 + 12345) % 2 ^ 31
          local from = random % 200 + 1
          parts[#parts + 1] = (bytes .. "\r\n \r\r\n  ä€😀\n\n" .. bytes):sub(from, from + #parts * 7)
          assert(stream:append(parts[#parts]))
        end
        assert(stream:close())
        for _, live in ipairs(MODES) do
          -- Text in server-sent events has its line ends changed by the server; only who insists gets that.
          if not (live == "sse" and content_type == "text/plain") then
            assert.is_true(table.concat(parts) == stream:read({ live = live }):body(), tostring(live))
          end
        end
      end
    end)
  end)

  it("change a value in any mode", function()
    weir.run(function()
      local stream = made("application/json")
      local values = { '" two"', '"\\r\\n\\r \\n"', '"data: x\\n\\nevent: control"',
        '"\xe2\x80\xa8\xc2\x85\xe2\x80\xa9"', '"ä€😀"', "[1,[2,[]]]", "null", '{"a":"  "}', "-1.5", "[]", '""' }
      for _, value in ipairs(values) do
        assert(stream:append(value))
      end
      assert(stream:close())
      for _, live in ipairs(MODES) do
        assert.equal("[" .. table.concat(values, ",") .. "]", stream:read({ live = live }):body())
      end
    end)
  end)

  it("repeat or lose anything when it goes on from any position that it gave", function()
    weir.run(function()
      for _, content_type in ipairs({ "application/json", "application/octet-stream", "text/plain" }) do
        local stream = made(content_type)
        for i = 1, 6 do
          assert(stream:append(tostring(i)))
        end
        for _, live in ipairs(MODES) do
          local reader = stream:read({ live = live })
          local seen = 0
          while seen < 6 do
            local chunk = assert(reader:next(10))
            for digit in chunk.data:gmatch("%d") do
              assert.equal(seen + 1, tonumber(digit))
              seen = seen + 1
            end
            assert.equal(chunk.next_offset, reader.offset)
            local rest = stream:read({ offset = reader.offset, live = false }):body():gsub("%D", "")
            assert.equal(("123456"):sub(seen + 1), rest)
          end
          reader:close()
        end
      end
    end)
  end)

  for _, live in ipairs(MODES) do
    it(("ask for more of a stream that is closed (%s)"):format(live or "catch-up"), function()
      for _, text in ipairs({ "", "[1,2]" }) do
        proxied("application/json", function() end, function(far, plain, proxy)
          if text ~= "" then
            assert(plain:append("1"))
            assert(plain:append("2"))
          end
          assert(plain:close())
          local reader = far:read({ live = live })
          local last
          for chunk in reader:each() do
            last = chunk
          end
          assert.is_true(last.closed and last.up_to_date)
          assert.is_true(reader:stats().closed)
          local needed = #proxy.requests
          assert.is_true(needed <= 2, needed)
          for _ = 1, 20 do
            assert.same({}, { reader:next(1) })
          end
          -- From the end, and from now.
          for _, from in ipairs({ reader.offset, "now" }) do
            local before = #proxy.requests
            local again = far:read({ live = live, offset = from })
            assert.equal("[]", again:body())
            assert.is_true(again:stats().closed)
            assert.is_true(#proxy.requests - before <= 2)
          end
          assert.is_true(needed <= 2)
        end)
      end
    end)
  end

  it("ask again and again when it waits at the end of an open stream", function()
    -- The server answers after 50 ms of nothing: not more than some ten in half a second.
    proxied("application/json", function() end, function(far, plain, proxy)
      local reader = far:read({ live = "long-poll" })
      while reader:next(0.5) do end
      assert.is_true(#proxy.requests <= 14, #proxy.requests)
      assert(plain:append("1"))
      assert.equal(1, reader:next_item(10))
      reader:close()
    end)
  end)

  it("fail on a connection that the server closes while it is idle", function()
    weir.run(function()
      local stream = made("text/plain")
      local producer = stream:producer({ linger = 0 })
      local all = {}
      for i = 1, 30 do
        all[#all + 1] = i .. ","
        assert(stream:append(all[#all]))
        weir.sleep(0.016 + i * 0.0003) -- around the 20 ms after which the server closes it
        all[#all + 1] = "p,"
        assert(producer:append(all[#all]))
        assert(producer:flush(10))
        assert.is_true(stream:exists())
      end
      assert.equal(table.concat(all), stream:read():body())
    end)
  end)

  it("swallow that it was fenced", function()
    weir.run(function()
      local stream = made("text/plain")
      local old = stream:producer({ producer_id = "p", linger = 0 })
      assert(old:append("a"))
      assert(old:flush(10))
      local new = stream:producer({ producer_id = "p", epoch = 1, linger = 0 })
      assert(new:append("b"))
      assert(new:flush(10))
      assert(old:append("c"))
      support.fails("stale_epoch", old:flush(10))
      support.fails("stale_epoch", old:flush(10))
      support.fails("stale_epoch", old:append("d"))
      support.fails("stale_epoch", old:close(nil, 10))
      assert.equal("ab", stream:read():body())
    end)
  end)
end)
