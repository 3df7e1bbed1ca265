local durable = require("weir.durable")
local here = require("spec.lua.durable.support")
local support = require("spec.lua.support")
local weir = require("weir")

local run = support.in_task

describe("A durable stream", function()
  local client
  if not here.reference(function(own) client = own end) then
    return
  end

  local function made(content_type)
    return here.stream(client, content_type or "text/plain")
  end

  it("is created once, and found again", run(function()
    local stream = client:stream(here.path(), { content_type = "text/plain" })
    assert.is_false(stream:exists())
    local created = assert(stream:create())
    assert.is_true(created.created)
    assert.equal("text/plain", created.content_type)
    local again = assert(stream:create())
    assert.is_false(again.created)
    assert.is_true(stream:exists())
  end))

  it("is not created over one with another configuration", run(function()
    local path = here.path()
    assert(client:stream(path, { content_type = "text/plain" }):create())
    local err = support.fails("already_exists", client:stream(path, { content_type = "text/html" }):create())
    assert.equal(409, err.status)
    assert.truthy(err.message:find(path, 1, true))
  end))

  it("has what is appended, in order", run(function()
    local stream = client:stream(here.path(), { content_type = "text/plain" })
    assert(stream:create({ data = "a" }))
    local first = assert(stream:append("b"))
    local second = assert(stream:append("c"))
    assert.is_true(first.offset < second.offset)
    assert.equal("abc", stream:read():body())
    assert.equal("c", stream:read({ offset = first.offset }):text())
    assert.equal("", stream:read({ offset = second.offset }):text())
    assert.equal("", stream:read({ offset = "now" }):text())
  end))

  it("learns its content type from the server", run(function()
    local path = here.path()
    assert(client:stream(path, { content_type = "application/json" }):create())
    local stream = client:stream(path)
    assert(stream:append("[1,2]"))
    assert.equal("application/json", stream.content_type)
    assert.equal("[[1,2]]", stream:read():body())
  end))

  it("keeps binary data exact", run(function()
    local bytes = {}
    for i = 0, 255 do
      bytes[i + 1] = string.char(i)
    end
    local all = table.concat(bytes):rep(300)
    local stream = client:stream(here.path())
    assert(stream:create({ content_type = "application/octet-stream", data = all }))
    assert(stream:append(all))
    assert.equal(all .. all, stream:read():body())
  end))

  it("carries values with the codec json", run(function()
    local stream = client:stream(here.path(), { codec = "json" })
    assert(stream:create())
    assert(stream:append({ a = 1 }))
    assert(stream:append({ 1, 2 }))
    assert(stream:append("text"))
    local seen = {}
    for value in stream:read():items() do
      seen[#seen + 1] = value
    end
    assert.same({ { a = 1 }, { 1, 2 }, "text" }, seen)
  end))

  it("goes on between the items of one answer", run(function()
    local stream = client:stream(here.path(), { codec = "json" })
    assert(stream:create())
    for i = 1, 5 do
      assert(stream:append(i))
    end
    local reader = stream:read()
    local seen = { reader:next_item(), reader:next_item() }
    local rest = stream:read({ offset = reader.offset })
    reader:close()
    for value in rest:items() do
      seen[#seen + 1] = value
    end
    assert.same({ 1, 2, 3, 4, 5 }, seen)
  end))

  it("can be closed with a last value, and takes no more", run(function()
    local stream = made()
    assert(stream:append("a"))
    local closed = assert(stream:close("b"))
    assert.is_true(closed.closed)
    assert.equal(closed.offset, stream:head().offset)
    assert.is_true(stream:head().closed)
    assert(stream:close())
    local err = support.fails("stream_closed", stream:append("c"))
    assert.equal(409, err.status)
    assert.equal(closed.offset, err.offset)
    local reader = stream:read()
    assert.equal("ab", reader:body())
    assert.is_true(reader.closed)
  end))

  it("is deleted", run(function()
    local stream = made()
    assert.is_true(stream:delete())
    assert.is_false(stream:exists())
    support.fails("not_found", stream:delete())
    support.fails("not_found", stream:append("x"))
    support.fails("not_found", stream:head())
    support.fails("not_found", stream:read():next())
  end))

  it("refuses a sequence that does not increase", run(function()
    local stream = made()
    assert(stream:append("a", { seq = "002" }))
    local err = support.fails("sequence_conflict", stream:append("b", { seq = "002" }))
    assert.equal(409, err.status)
    assert(stream:append("c", { seq = "003" }))
    assert.equal("ac", stream:read():body())
  end))

  it("is forked at an offset", run(function()
    local source = made()
    local at = assert(source:append("one")).offset
    assert(source:append("two"))
    local fork = client:stream(here.path())
    assert.is_true(assert(fork:fork({ from = source, offset = at })).created)
    assert(fork:append("other"))
    assert.equal("oneother", fork:read():body())
    assert.equal("onetwo", source:read():body())
    support.fails("not_found", client:stream(here.path()):fork({ from = "/nowhere" }))
  end))

  it("takes a body that is made while it is sent", run(function()
    local stream = client:stream(here.path(), { codec = "json" })
    assert(stream:create())
    local i = 0
    assert(stream:append_stream(function()
      i = i + 1
      if i <= 1000 then
        return { i = i }
      end
    end))
    local sum = 0
    for value in stream:read():items() do
      sum = sum + value.i
    end
    assert.equal(500500, sum)
  end))

  it("reports an offset that the server does not know", run(function()
    local stream = made()
    support.fails("invalid_offset", stream:read({ offset = "nonsense" }):next())
  end))

  it("shows its ttl", run(function()
    local stream = client:stream(here.path(), { content_type = "text/plain" })
    assert(stream:create({ ttl = 3600 }))
    assert.equal(3600, stream:head().ttl)
    assert.has_error(function()
      stream:create({ ttl = -1 })
    end)
  end))

  it("is read again from the cache when nothing changed", run(function()
    local stream = client:stream(here.path(), { content_type = "text/plain" })
    assert(stream:create({ data = "abc" }))
    assert.equal("abc", stream:read():body())
    local reader = stream:read()
    assert.equal("abc", reader:body())
    assert.equal(1, reader:stats().cached)
    assert(stream:append("d"))
    assert.equal("abcd", stream:read():body())
  end))

  for _, live in ipairs({ "long-poll", "sse", "auto" }) do
    for _, content_type in ipairs({ "text/plain", "application/octet-stream", "application/json" }) do
      it(("is followed by %s as %s until it is closed"):format(live, content_type), run(function()
        local stream = made(content_type)
        assert(stream:append("1"))
        local reader = stream:read({ live = live })
        local parts = {}
        local task = weir.spawn(function()
          for chunk in reader:each() do
            parts[#parts + 1] = chunk.data
          end
        end)
        support.eventually(function()
          return reader.up_to_date
        end)
        assert(stream:append("2"))
        support.eventually(function()
          return table.concat(parts):find("2")
        end)
        assert(stream:close("3"))
        task:join(10)
        assert.equal("done", task:status())
        assert.is_true(reader.closed)
        local text = table.concat(parts):gsub("%]%[", ","):gsub(",,", ","):gsub("%[,", "["):gsub(",%]", "]")
        assert.equal(content_type == "application/json" and "[1,2,3]" or "123", text)
        local requests = reader:stats().requests
        assert.is_true(requests < 20, "it asks again and again")
      end))
    end
  end

  it("lets a reader that timed out go on", run(function()
    local stream = made()
    local reader = stream:read({ live = "long-poll" })
    assert.is_true(reader:next(5).up_to_date)
    support.fails("timeout", reader:next(0.02))
    support.fails("timeout", reader:next(0.02))
    assert(stream:append("x"))
    assert.equal("x", reader:next(5).data)
    reader:close()
    support.fails("cancelled", reader:next(1))
  end))

  it("lets a task be cancelled that reads", run(function()
    local stream = made()
    local reader = stream:read({ live = "sse" })
    assert.is_true(reader:next(5).up_to_date)
    local task = weir.spawn(function()
      return reader:next()
    end)
    weir.sleep(0)
    task:cancel()
    support.fails("cancelled", task:join(5))
    assert(stream:append("x"))
    assert.equal("x", reader:next(5).data)
    reader:close()
  end))

  it("refuses what makes no sense", run(function()
    local stream = client:stream(here.path())
    for _, call in ipairs({
      function() client:stream("ftp://host/x") end,
      function() client:stream("http://user:secret@host/x") end,
      function() client:stream(nil) end,
      function() stream:read({ live = "often" }) end,
      function() stream:read({ from = "x" }) end,
      function() stream:append(12) end,
      function() stream:append_stream("x") end,
      function() stream:fork({}) end,
      function() durable.client({ headers = { ["a b"] = "c" } }) end,
      function() durable.client({ headers = { a = "b\r\nc: d" } }) end,
      function() durable.client({ headers = { ["Content-Length"] = "1" } }) end,
      function() durable.client({ retry = { max_retries = -1 } }) end,
      function() durable.client({ retry = { initial = 2, max = 1 } }) end,
      function() durable.client({ tls = { what = 1 } }) end,
    }) do
      assert.has_error(call)
    end
  end))
end)
