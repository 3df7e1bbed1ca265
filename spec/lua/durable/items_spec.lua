local codec = require("weir.codec")
local durable = require("weir.durable")
local here = require("spec.lua.durable.support")
local support = require("spec.lua.support")
local weir = require("weir")

local run = support.in_task

local VALUES = {
  { id = 1, name = "é", tags = { "a", "b" }, blob = "\0\255" }, false, codec.null, "text", {}, 12345678901234567, 0.5,
  { { { 1, 2 }, 3 }, ("x"):rep(300) }, "", true,
}

local function collect(reader)
  local seen = {}
  for value in reader:items() do
    seen[#seen + 1] = value
  end
  return seen
end

-- Two bytes for the length, then the text.
local function framed(more)
  local spec = {
    name = "framed",
    encode = function(text)
      return ("%c%c"):format(#text // 256, #text % 256) .. text
    end,
    decode = function(bytes)
      return bytes:sub(3)
    end,
  }
  for name, value in pairs(more or {}) do
    spec[name] = value
  end
  return spec
end

local function framed_next(bytes, position)
  local high, low = bytes:byte(position, position + 1)
  local behind = low and position + 2 + high * 256 + low
  if not behind or behind > #bytes + 1 then
    return nil, "again"
  end
  return bytes:sub(position + 2, behind - 1), behind
end

-- A server whose stream comes in just these parts: an answer for each.
local function server_of(parts)
  return here.script(function(request)
    local at = tonumber(request.target:match("offset=o(%d+)")) or 0
    local headers = {
      { "Content-Type", "application/x-parts" }, { "Stream-Next-Offset", "o" .. math.min(at + 1, #parts) },
    }
    if at + 1 >= #parts then
      headers[3] = { "Stream-Up-To-Date", "true" }
    end
    return here.answer(200, headers, parts[at + 1])
  end)
end

describe("Values in parts", function()
  -- Reads all; and from behind each value again, with what is expected there.
  local function assert_values(values, spec, ...)
    local server = server_of({ ... })
    local client = durable.client({ base_url = server.url })
    local stream = client:stream("/x", { codec = spec })
    local reader, places = stream:read(), { [0] = "-1" }
    for i = 1, #values do
      assert.same(values[i], (assert(reader:next_item(10))))
      places[i] = reader.offset
    end
    assert.is_nil(reader:next_item(10))
    assert.is_nil(select(2, reader:next_item(10)))
    assert.equal(places[#values], reader.offset)
    for i = 0, #values do
      assert.same({ table.unpack(values, i + 1) }, collect(stream:read({ offset = places[i] })))
    end
    client:close()
    server:close()
    return places
  end

  for _, name in ipairs({ "msgpack", "cbor" }) do
    it("are put together wherever they were cut, as " .. name, run(function()
      local own = codec.get(name)
      local values, bytes = { { a = "two" }, "x", { 1, { 70000 } } }, ""
      for _, value in ipairs(values) do
        bytes = bytes .. own.encode(value)
      end
      for cut = 1, #bytes - 1 do
        assert_values(values, name, bytes:sub(1, cut), bytes:sub(cut + 1))
        assert_values(values, name, bytes:sub(1, cut - 1), bytes:sub(cut, cut), bytes:sub(cut + 1))
      end
    end))

    it("leave the position before the one that is not complete, as " .. name, run(function()
      local own = codec.get(name)
      local bytes = own.encode(1) .. own.encode({ "long", "value" })
      local server = server_of({ bytes:sub(1, 3), bytes:sub(4, 6), bytes:sub(7, -2) })
      local client = durable.client({ base_url = server.url })
      local reader = client:stream("/x", { codec = name }):read()
      assert.equal(1, (reader:next_item(10)))
      assert.equal("-1,1", reader.offset)
      assert.is_nil((assert.is_nil(select(2, reader:next_item(10)))))
      assert.equal("-1,1", reader.offset)
      client:close()
      server:close()
    end))
  end

  it("are put together for a codec of one's own", run(function()
    local spec = framed({ decode_next = framed_next })
    local places = assert_values({ "abcde", "xy", "123" }, spec, "\0\5ab", "cde\0\2xy\0\3", "12", "3")
    assert.same({ "o1,3", "o1,7", "o4" }, { places[1], places[2], places[3] })
  end))

  it("may need what follows them to be complete", run(function()
    local spec = {
      encode = tostring,
      decode = tostring,
      decode_next = function(bytes, position)
        local value, stop = bytes:match("^(%a);()[%a.]", position)
        if not value then
          return bytes:sub(position) == "." and "the end" or nil, bytes:sub(position) == "." and position + 1 or "again"
        end
        return value, stop
      end,
    }
    local places = assert_values({ "a", "b", "c", "the end" }, spec, "a;", "b", ";c;", ".")
    assert.same({ "o1", "o2,1", "o3", "o4" }, { places[1], places[2], places[3], places[4] })
  end))

  it("are refused when a codec of one's own says 'again' for too long, or without need", run(function()
    local function fails(spec, ...)
      local server = server_of({ ... })
      local client = durable.client({ base_url = server.url })
      local reader = client:stream("/x", { codec = spec }):read({ max_event = 300 })
      local _, err = reader:next_item(10)
      assert.equal("-1", reader.offset)
      client:close()
      server:close()
      return err
    end
    local spec = framed({ decode_next = framed_next })
    assert.equal("too_large", fails(spec, "\9\9" .. ("x"):rep(200), ("x"):rep(200)).code)
    local late = framed({ decode_next = function(bytes)
      if #bytes < 8 then
        return nil, "again"
      end
      return "value", 3
    end })
    assert.matches("took a value for cut that is whole", fails(late, "abcd", "efgh").message, 1, true)
  end))
end)

describe("The values of a durable stream", function()
  local client, server
  if not here.reference(function(...) client, server = ... end) then
    return
  end

  for name, content_type in pairs({ msgpack = "application/msgpack", cbor = "application/cbor" }) do
    local own = codec.get(name)

    it("are written and read with the codec " .. name, run(function()
      local stream = client:stream(here.path(), { codec = name })
      assert.equal(content_type, assert(stream:create({ data = "first" })).content_type)
      for _, value in ipairs(VALUES) do
        assert(stream:append(value))
      end
      local left = { "and", { more = true } }
      assert(stream:append_stream(function()
        return table.remove(left, 1)
      end))
      assert(stream:close("last"))
      assert.equal(content_type, stream:head().content_type)
      local seen = collect(stream:read())
      assert.equal("first", table.remove(seen, 1))
      assert.equal("last", table.remove(seen))
      assert.same({ more = true }, table.remove(seen))
      assert.equal("and", table.remove(seen))
      assert.same(VALUES, seen)
    end))

    it("are written by a producer with the codec " .. name, run(function()
      local stream = client:stream(here.path(), { codec = name })
      assert(stream:create())
      local producer = stream:producer({ producer_id = "p", max_batch_items = 7 })
      for i = 1, 100 do
        assert(producer:append({ n = i, text = ("t"):rep(i) }))
      end
      assert(producer:close())
      local seen = collect(stream:read())
      assert.equal(100, #seen)
      for i, value in ipairs(seen) do
        assert.same({ n = i, text = ("t"):rep(i) }, value)
      end
    end))

    it("are read by the content type of " .. name .. " where no codec was said", run(function()
      local types = { content_type, content_type:upper() .. "; v=1" }
      if name == "msgpack" then
        types[3], types[4] = "application/x-msgpack", "application/vnd.msgpack"
      end
      for _, each in ipairs(types) do
        local url = here.path()
        local stream = client:stream(url, { content_type = each })
        assert(stream:create({ data = own.encode({ 1, 2 }) .. own.encode("x") }))
        assert.same({ { 1, 2 }, "x" }, collect(client:stream(url):read()))
        assert.same({ { 1, 2 }, "x" }, collect(client:stream(url):read())) -- from the cache
      end
    end))

    it("come whole when they arrive byte by byte, live, as " .. name, run(function()
      local url = here.path()
      local stream = client:stream(url, { codec = name })
      assert(stream:create())
      local sent = { { a = { 1, "two", { three = 0.5 } } }, "é", 70000, {} }
      for _, live in ipairs({ "sse", "long-poll" }) do
        local reader = stream:read({ live = live, offset = assert(stream:head()).offset })
        local raw = client:stream(url, { content_type = content_type })
        local writer = weir.spawn(function()
          for _, value in ipairs(sent) do
            for byte in own.encode(value):gmatch("(.)") do
              assert(raw:append(byte))
            end
          end
        end)
        local places = {}
        for i, value in ipairs(sent) do
          assert.same(value, (assert(reader:next_item(10))))
          places[i] = reader.offset
        end
        writer:join()
        reader:close()
        for i = 1, #sent do
          local rest = stream:read({ offset = places[i] })
          for k = i + 1, #sent do
            assert.same(sent[k], (rest:next_item(10)))
          end
          rest:close()
        end
      end
    end))

    it("are gone on with behind each of them, as " .. name, run(function()
      local stream = client:stream(here.path(), { codec = name })
      assert(stream:create())
      local sent = {}
      for i = 1, 12 do
        sent[i] = i % 3 == 0 and ("x"):rep(i) or { i }
        assert(stream:append(sent[i]))
      end
      local reader, places = stream:read(), { [0] = "-1" }
      for i = 1, #sent do
        assert.same(sent[i], (assert(reader:next_item())))
        places[i] = reader.offset
      end
      assert.is_nil(reader:next_item())
      assert.equal(stream:head().offset, reader.offset)
      for i = 0, #sent do
        local seen = collect(stream:read({ offset = places[i] }))
        assert.same({ table.unpack(sent, i + 1) }, seen)
      end
    end))

    it("come once, in order, when connections break in the middle of them, as " .. name, run(function()
      local path = here.path()
      local stream = client:stream(path, { codec = name })
      assert(stream:create())
      local n = 3000
      local i = 0
      assert(stream:append_stream(function()
        i = i + 1
        return i <= n and { n = i, text = ("%d "):format(i):rep(i % 50) } or nil
      end))
      local tunnel = here.tunnel(server, function(k)
        return k <= 6 and { down = 20000 * k } or nil
      end)
      local other = durable.client({ base_url = tunnel.url, retry = { initial = 0.001, max = 0.01 } })
      local reader, offset, seen = nil, "-1", 0
      while seen < n do
        reader = reader or other:stream(path, { codec = name }):read({ offset = offset })
        local value = assert(reader:next_item(10))
        seen = seen + 1
        assert.equal(seen, value.n)
        assert.equal(("%d "):format(seen):rep(seen % 50), value.text)
        if seen % 700 == 0 then
          offset = reader.offset
          reader:close()
          reader = nil
        end
      end
      assert.is_true(tunnel.connections > 6)
      other:close()
      tunnel:close()
    end))

    it("wait for the rest of one that is not complete, as " .. name, run(function()
      local url = here.path()
      local stream = client:stream(url, { codec = name })
      local raw = client:stream(url, { content_type = content_type })
      local bytes = own.encode({ "some", "more" })
      assert(stream:create({ data = 1 }))
      local before = stream:head().offset
      assert(raw:append(bytes:sub(1, 4)))
      local reader = stream:read()
      assert.equal(1, (reader:next_item()))
      assert.is_nil((assert.is_nil(select(2, reader:next_item()))))
      local saved = reader.offset
      assert(raw:append(bytes:sub(5)))
      assert.same({ { "some", "more" } }, collect(stream:read({ offset = saved })))
      assert.same({ { "some", "more" } }, collect(stream:read({ offset = before })))

      assert(raw:close(bytes:sub(1, 4)))
      local _, err
      reader = stream:read({ offset = saved })
      assert.same({ "some", "more" }, (reader:next_item()))
      saved = reader.offset
      _, err = reader:next_item()
      assert.equal("parse_error", err.code)
      assert.matches("closed in the middle of a value", err.message, 1, true)
      assert.equal(saved, err.offset)
    end))

    it("are refused when they are longer than allowed, as " .. name, run(function()
      local stream = client:stream(here.path(), { codec = name })
      assert(stream:create({ data = "short" }))
      assert(stream:append(("x"):rep(100)))
      for _, live in ipairs({ false, "long-poll" }) do
        local reader = stream:read({ max_event = 50, live = live })
        assert.equal("short", (reader:next_item()))
        local _, err = reader:next_item(10)
        assert.equal("too_large", err.code)
        assert.equal(reader.offset, err.offset)
        assert.equal(err, select(2, reader:next_item()))
      end
      assert.same({ "short", ("x"):rep(100) }, collect(stream:read({ max_event = 200 })))
    end))

    it("are refused as soon as they claim to be too long, as " .. name, run(function()
      local url = here.path()
      local claim = name == "cbor" and "\155\0\0\0\1\0\0\0\0" or "\221\255\255\255\255"
      assert(client:stream(url, { content_type = content_type }):create({ data = own.encode(7) .. claim }))
      local reader = client:stream(url):read({ live = "long-poll" })
      assert.equal(7, (reader:next_item()))
      assert.equal("too_large", select(2, reader:next_item(10)).code)
    end))

    it("end with a parse error at bytes that are none, as " .. name, run(function()
      local url = here.path()
      local bad = name == "cbor" and "\28" or "\193"
      assert(client:stream(url, { content_type = content_type }):create({ data = own.encode("ok") .. bad .. "\1" }))
      local reader = client:stream(url, { codec = name }):read()
      assert.equal("ok", (reader:next_item()))
      local saved = reader.offset
      local _, err = reader:next_item()
      assert.equal("parse_error", err.code)
      assert.equal(name, err.cause.codec)
      assert.equal(saved, reader.offset)
      assert.equal(err, select(2, reader:next_item()))
    end))
  end

  it("stay those of JSON on a JSON stream, whatever the codec", run(function()
    local stream = client:stream(here.path(), { codec = framed(), content_type = "application/json" })
    local json = client:stream(stream.url, { codec = "json" })
    assert(json:create({ data = { a = 1 } }))
    assert.same({ { a = 1 } }, collect(stream:read()))
  end))

  it("may be of a codec of one's own that says where they end", run(function()
    local spec = framed({ decode_next = framed_next, content_type = "application/x-framed" })
    local url = here.path()
    local stream = client:stream(url, { codec = spec })
    assert.equal("application/x-framed", assert(stream:create()).content_type)
    local raw = client:stream(url, { content_type = "application/x-framed" })
    local reader = stream:read({ live = "sse" })
    local sent = { "one", "", ("two"):rep(200) }
    weir.spawn(function()
      for _, value in ipairs(sent) do
        local bytes = stream.codec.encode(value)
        for at = 1, #bytes, 100 do
          assert(raw:append(bytes:sub(at, at + 99)))
        end
      end
      assert(raw:append("\0\9begun"))
      assert(stream:close())
    end)
    for i, value in ipairs(sent) do
      assert.equal(value, (reader:next_item(10)))
      local rest = stream:read({ offset = reader.offset, live = "auto" })
      if sent[i + 1] then
        assert.equal(sent[i + 1], (rest:next_item(10)))
      end
      rest:close()
    end
    assert.equal("parse_error", select(2, reader:next_item(10)).code)
    local short = stream:read({ max_event = 300 })
    assert.equal("one", (short:next_item()))
    assert.equal("", (short:next_item()))
    assert.equal("too_large", select(2, short:next_item()).code)
  end))

  it("need a codec that says where they end", run(function()
    local stream = client:stream(here.path(), { codec = framed() })
    assert(stream:create({ content_type = "application/x-framed", data = "x" }))
    local ok, raised = pcall(function()
      local value = stream:read():next_item()
      return value
    end)
    assert.is_false(ok)
    assert.matches("items_spec.lua:%d+: items: the codec 'framed' cannot tell values apart: add decode_next", raised)
    ok, raised = pcall(collect, stream:read())
    assert.is_false(ok)
    assert.matches("items_spec.lua:%d+: items: ", raised)

    local none = client:stream(here.path(), { content_type = "text/plain" })
    assert(none:create({ data = "text" }))
    local _, err = none:read():next_item()
    assert.equal("parse_error", err.code)
    assert.matches("values of the type text/plain cannot be told apart", err.message, 1, true)
    _, err = client:stream(none.url, { codec = "json" }):read():next_item()
    assert.equal("parse_error", err.code)
    assert.matches("the stream is not JSON", err.message, 1, true)
  end))
end)
