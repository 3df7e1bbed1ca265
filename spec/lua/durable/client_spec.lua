local durable = require("weir.durable")
local here = require("spec.lua.durable.support")
local support = require("spec.lua.support")
local weir = require("weir")

local answer, with = here.answer, here.scripted

local OFFSET = { "Stream-Next-Offset", "0000000000000000_0000000000000003" }

describe("A durable client", function()
  local tokens = 0
  it("evaluates headers and parameters for each request of every kind", with(function(request)
    if request.method == "GET" then
      return answer(200, { OFFSET, { "Content-Type", "text/plain" }, { "Stream-Up-To-Date", "true" } }, "abc")
    end
    return answer(200, { OFFSET, { "Content-Type", "text/plain" } })
  end, function(client, script)
    local stream = client:stream("/s", { content_type = "text/plain", headers = { ["X-Stream"] = 7 } })
    assert(stream:create())
    assert(stream:head())
    assert(stream:append("a", { headers = { ["X-Own"] = "o" } }))
    assert(stream:read():body())
    assert(stream:close())
    local producer = stream:producer()
    assert(producer:append("x"))
    assert(producer:flush(5))
    assert(stream:delete())
    assert.equal(7, #script.requests)
    for i, request in ipairs(script.requests) do
      assert.equal("Bearer " .. i, request.headers.authorization)
      assert.equal("7", request.headers["x-stream"])
      assert.truthy(request.target:find("key=a%20b", 1, true))
    end
    assert.equal("o", script.requests[3].headers["x-own"])
    assert.is_nil(script.requests[4].headers["x-own"])
  end, {
    headers = { Authorization = function()
      tokens = tokens + 1
      return "Bearer " .. tokens
    end },
    params = { key = function() return "a b" end },
  }))

  it("sorts the parameters of the query", with(function()
    return answer(200, { OFFSET, { "Stream-Up-To-Date", "true" } }, "abc")
  end, function(client, script)
    assert(client:stream("/s?zebra=1&beta=2"):read({ offset = "x/1", params = { alpha = "&" } }):body())
    assert.equal("/s?alpha=%26&beta=2&offset=x%2F1&zebra=1", script.requests[1].target)
  end))

  local codes = {
    [400] = "parse_error", [401] = "unauthorized", [403] = "forbidden", [404] = "not_found", [409] = "conflict",
    [410] = "gone", [413] = "too_large", [418] = "server_error",
  }
  for status, code in pairs(codes) do
    it(("calls status %d of an append %s"):format(status, code), with(function()
      return answer(status, {}, "because\r\nof that")
    end, function(client, script)
      local err = support.fails(code, client:stream("/s", { content_type = "text/plain" }):append("x"))
      assert.equal(status, err.status)
      assert.equal(script.url .. "/s", err.url)
      assert.equal(0, err.retries)
      assert.truthy(err.message:find("because of that", 1, true))
      assert.equal(1, #script.requests)
    end))
  end

  it("tries again what cannot have been done, and not what may have been", with(function(_, _, n)
    return answer(n == 1 and 503 or 500)
  end, function(client, script)
    local err = support.fails("server_error", client:stream("/s", { content_type = "text/plain" }):append("x"))
    assert.equal(2, #script.requests)
    assert.is_true(err.unknown)
    assert.equal(1, err.retries)
  end))

  it("tries again what may have been done when told that twice is as good", with(function(_, _, n)
    return n < 3 and "reset" or answer(204, { OFFSET })
  end, function(client, script)
    assert(client:stream("/s", { content_type = "text/plain" }):append("x", { at_least_once = true }))
    assert.equal(3, #script.requests)
  end))

  it("does not append blindly again on a broken connection", with(function()
    return "reset"
  end, function(client, script)
    local err = support.fails("network", client:stream("/s", { content_type = "text/plain" }):append("x"))
    assert.is_true(err.unknown)
    assert.equal(1, #script.requests)
  end))

  it("gives up after as many repetitions as it may", with(function()
    return answer(503, {}, "busy")
  end, function(client, script)
    local err = support.fails("server_error", client:stream("/s"):head())
    assert.equal(503, err.status)
    assert.equal(5, err.retries)
    assert.equal(6, #script.requests)
    err = support.fails("server_error", client:stream("/s"):read():next(20))
    assert.equal(503, err.status)
  end))

  it("gives up when its time is over", with(function() end, function(client)
    local before = weir.now()
    support.fails("timeout", client:stream("/s"):head({ timeout = 0.05 }))
    assert.is_true(weir.now() - before < 5)
  end))

  it("calls it a timeout that no connection was free in time", with(function() end, function(client, script)
    local other = weir.spawn(function()
      return client:stream("/other"):head()
    end)
    support.eventually(function()
      return script.requests[1]
    end)
    local stream = client:stream("/s", { content_type = "text/plain" })
    local err = support.fails("timeout", stream:append("x", { timeout = 0.05 }))
    assert.is_nil(err.unknown)
    assert.equal(1, #script.requests)
    other:cancel()
    support.fails("cancelled", other:join())
  end, { pool = 1 }))

  it("waits as long as the server asks for", with(function(_, _, n)
    return n == 1 and answer(429, { { "Retry-After", "1" } }) or answer(200, { OFFSET })
  end, function(client)
    local before = weir.now()
    assert(client:stream("/s"):head())
    assert.is_true(weir.now() - before >= 0.99)
  end))

  it("asks on_error what to do about a failure", with(function(request)
    return answer(request.headers.authorization == "new" and 200 or 401, { OFFSET })
  end, function(client, script)
    assert(client:stream("/s"):head())
    assert.equal(2, #script.requests)
  end, {
    headers = { Authorization = "old" },
    on_error = function(err)
      assert(err.code == "unauthorized")
      return { headers = { Authorization = "new" } }
    end,
  }))

  it("follows a redirect with everything on the same origin", with(function(request)
    if request.target:find("^/old") then
      return answer(307, { { "Location", "/new" } })
    end
    return answer(204, { OFFSET })
  end, function(client, script)
    assert(client:stream("/old", { content_type = "text/plain" }):append("x"))
    local second = script.requests[2]
    assert.equal("POST /new", second.method .. " " .. second.target)
    assert.equal("x", second.body)
    assert.equal("secret", second.headers.authorization)
  end, { headers = { Authorization = "secret" } }))

  it("does not follow redirects for ever", with(function()
    return answer(302, { { "Location", "/again" } })
  end, function(client, script)
    support.fails("server_error", client:stream("/s"):head())
    assert.equal(6, #script.requests)
  end))

  it("does not turn an append into a read by a 303", with(function()
    return answer(303, { { "Location", "/other" } })
  end, function(client, script)
    support.fails("server_error", client:stream("/s", { content_type = "text/plain" }):append("x"))
    assert.equal(1, #script.requests)
  end))

  it("tells no other origin its secrets", function()
    weir.run(function()
      local other = here.script(function()
        return answer(200, { OFFSET, { "Stream-Up-To-Date", "true" } }, "abc")
      end)
      local first = here.script(function()
        return answer(307, { { "Location", other.url .. "/there?offset=-1" } })
      end)
      local client = durable.client({
        base_url = first.url,
        headers = { Authorization = "secret", Cookie = "secret", ["X-Api-Key"] = "secret" },
      })
      assert.equal("abc", client:stream("/s"):read():body())
      assert.equal("secret", first.requests[1].headers.authorization)
      for name, value in pairs(other.requests[1].headers) do
        assert.is_true(value ~= "secret", name)
      end
      client:close()
      first:close()
      other:close()
    end)
  end)

  it("says that nobody listens", function()
    weir.run(function()
      local client = durable.client({ base_url = "http://127.0.0.1:1", retry = { max_retries = 1, initial = 0.001 } })
      local err = support.fails("network", client:stream("/s", { content_type = "text/plain" }):append("x"))
      assert.is_nil(err.unknown)
      assert.equal(1, err.retries)
      client:close()
      support.fails("cancelled", client:stream("/s"):head())
    end)
  end)

  it("takes no body that is longer than allowed", with(function()
    return answer(200, { OFFSET, { "Stream-Up-To-Date", "true" } }, ("x"):rep(100000))
  end, function(client)
    support.fails("too_large", client:stream("/s"):read():body(1000))
  end))

  it("reads a body again that was cut short, and repeats none of it", with(function(request, conn, n)
    if n == 1 then
      conn:write("HTTP/1.1 200 X\r\nContent-Length: 10\r\n" .. OFFSET[1] .. ": " .. OFFSET[2]
        .. "\r\nContent-Type: text/plain\r\nStream-Up-To-Date: true\r\n\r\nabcde", function()
        conn:close()
      end)
      return nil
    end
    assert(request.method == "GET")
    return answer(200, { OFFSET, { "Content-Type", "text/plain" }, { "Stream-Up-To-Date", "true" } }, "abcdefghij")
  end, function(client)
    assert.equal("abcdefghij", client:stream("/s"):read():body())
  end))

  it("takes a stream for deleted that is gone after an attempt whose answer was lost", with(function(_, _, n)
    if n == 1 then
      return answer(200, { OFFSET })
    end
    return n == 2 and "reset" or answer(404)
  end, function(client, script)
    local stream = client:stream("/s")
    assert(stream:head()) -- now there is a connection, which libcurl would replace by itself
    assert.is_true(stream:delete())
    assert.equal("DELETE", script.requests[3].method)
    support.fails("not_found", stream:delete())
  end))

  for name, append in pairs({
    ["an append"] = function(stream)
      return stream:append("x", { seq = "1" })
    end,
    ["a close with a last value"] = function(stream)
      return stream:close("x", { seq = "1" })
    end,
  }) do
    for code, headers in pairs({ stream_closed = { { "Stream-Closed", "true" } }, sequence_conflict = {} }) do
      it(("does not know whether %s arrived that is told %s after its answer was lost"):format(name, code),
        with(function(_, _, n)
          return n == 1 and "reset" or answer(409, headers)
        end, function(client)
          local stream = client:stream("/s", { content_type = "text/plain" })
          assert.is_true(support.fails(code, append(stream)).unknown)
          assert.is_nil(support.fails(code, append(stream)).unknown)
        end))
    end
  end

  it("keeps what it knows of a stream when that cannot be created", with(function(request)
    if request.method == "HEAD" then
      return answer(200, { OFFSET, { "Content-Type", "text/plain" } })
    end
    return answer(request.method == "PUT" and 409 or 204, { OFFSET })
  end, function(client, script)
    local stream = client:stream("/s")
    support.fails("already_exists", stream:create({ content_type = "application/json" }))
    assert(stream:append("x"))
    assert.equal("text/plain", script.requests[3].headers["content-type"])
    assert.equal("x", script.requests[3].body)
  end))

  it("asks for the content type with the headers and parameters of the producer", with(function()
    return answer(200, { OFFSET, { "Content-Type", "text/plain" } })
  end, function(client, script)
    local producer = client:stream("/s"):producer({ headers = { Authorization = "own" }, params = { key = "k" } })
    assert(producer:append("x"))
    assert(producer:flush(5))
    assert.equal(2, #script.requests)
    for _, request in ipairs(script.requests) do
      assert.equal("own", request.headers.authorization)
      assert.truthy(request.target:find("key=k", 1, true))
    end
  end))

  it("says which items are unconfirmed when a header cannot be made", with(function(_, _, n)
    return n == 1 and answer(200, { OFFSET }) or nil
  end, function(client)
    local calls = 0
    local producer = client:stream("/s", { content_type = "text/plain" }):producer({
      max_in_flight = 2,
      max_batch_items = 1,
      linger = 0,
      headers = { ["X-Token"] = function()
        calls = calls + 1
        return calls < 3 and "t" or error("no token")
      end },
    })
    for _, data in ipairs({ "a", "b", "c", "d" }) do
      assert(producer:append(data))
    end
    local err = support.fails("callback_failed", producer:flush(5))
    assert.truthy(err.message:find("no token", 1, true))
    assert.equal(1, err.first_item)
    assert.equal(3, err.item_count)
  end))

  it("is refused options that make no sense before anything is sent", function()
    local function refused(name, value, word)
      local ok, message = pcall(function()
        local client = durable.client({ [name] = value })
        client:close()
      end)
      assert.is_false(ok, name)
      assert.matches("client_spec.lua:%d+: .*" .. word, message)
    end
    refused("pool", 0, "pool")
    refused("idle_timeout", -1, "idle_timeout")
    refused("connect_timeout", 0 / 0, "connect_timeout")
    refused("base_url", "http://localhost/v1?token=a", "params")
    local client = durable.client()
    for name, value in pairs({ max_in_flight = 2 ^ 40, max_batch_items = 2 ^ 40, max_batch_bytes = 2 ^ 50 }) do
      local ok, message = pcall(function()
        local producer = client:stream("http://localhost/s"):producer({ [name] = value })
        return producer
      end)
      assert.is_false(ok, name)
      assert.matches("client_spec.lua:%d+: producer: .*" .. name, message)
    end
    client:close()
  end)

  it("blames the line of the program that misuses it", function()
    local client = durable.client({ base_url = "http://localhost" })
    local stream = client:stream("/s", { content_type = "text/plain" })
    local producer = stream:producer()
    local misuse = {
      function() local _ = client:stream(5) end,
      function() local _ = client:stream("/s", { headers = { ["a b"] = 1 } }) end,
      function() local _ = client:stream("/s", { params = { a = {} } }) end,
      function() local _ = durable.client({ retry = { initial = -1 } }) end,
      function() local _ = durable.producer({ url = "http://localhost/s", linger = -1 }) end,
      function() local _ = stream:producer({ epoch = -1 }) end,
      function() local _ = stream:producer({ buffer = 0 }) end,
      function() local _ = stream:producer({ retry = { initial = -1 } }) end,
      function() local _ = stream:read({ live = "often" }) end,
      function() local _ = stream:create({ ttl = -1 }) end,
      function() local _ = stream:create({ data = 5 }) end,
      function() local _ = stream:fork({ from = "x", sub_offset = -1 }) end,
      function() local _ = stream:append(5) end,
      function() local _ = stream:close(5) end,
      function() local _ = producer:append(5) end,
      function() local _ = producer:try_append(5) end,
      function() local _ = producer:close(5) end,
    }
    for _, fn in ipairs(misuse) do
      local ok, message = pcall(fn)
      assert.is_false(ok)
      local place = ("client_spec.lua:%d: "):format(debug.getinfo(fn, "S").linedefined)
      assert.truthy(message:find(place, 1, true), message)
    end
    client:close()
  end)

  it("does not repeat a password that stands in a URL", with(function()
    return answer(302, { { "Location", "http://user:secret@localhost/" } })
  end, function(client)
    local ok, message = pcall(client.stream, client, "http://user:secret@localhost/s")
    assert.is_false(ok)
    assert.matches("Authorization", message)
    assert.not_matches("secret", message)
    local err = support.fails("server_error", client:stream("/s"):head())
    assert.matches("Authorization", err.message)
    assert.not_matches("secret", err.message)
  end))

  it("refuses a bomb of headers", with(function()
    local headers = {}
    for i = 1, 2000 do
      headers[i] = { "X-" .. i, ("x"):rep(100) }
    end
    return answer(200, headers)
  end, function(client)
    support.fails("too_large", client:stream("/s"):head())
  end))
end)
