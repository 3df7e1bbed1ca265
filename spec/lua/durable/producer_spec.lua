local durable = require("weir.durable")
local here = require("spec.lua.durable.support")
local shell = require("spec.house.shell")
local support = require("spec.lua.support")
local weir = require("weir")

local run = support.in_task

describe("A durable producer", function()
  local client
  if not here.reference(function(own) client = own end) then
    return
  end

  local function made(content_type, opts)
    local stream = here.stream(client, content_type)
    return stream, stream:producer(opts)
  end

  it("appends in batches, in order", run(function()
    local stream, producer = made("text/plain", { producer_id = "p" })
    local all = {}
    for i = 1, 1000 do
      all[i] = i .. ";"
      assert.equal(i - 1, producer:append(all[i]))
    end
    assert(producer:flush(10))
    assert.equal(table.concat(all), stream:read():body())
    local stats = producer:stats()
    assert.equal(1000, stats.confirmed)
    assert.is_true(stats.batches < 20)
  end))

  it("sends a batch that lingers though nobody flushes", run(function()
    local stream, producer = made("text/plain", { linger = 0.001 })
    assert(producer:append("x"))
    support.eventually(function()
      return producer:stats().confirmed == 1
    end)
    assert.equal("x", stream:read():body())
  end))

  it("keeps JSON values apart", run(function()
    local stream, producer = made("application/json")
    for _, text in ipairs({ "1", "[2,3]", '{"a":[]}' }) do
      assert(producer:append(text))
    end
    assert(producer:flush(10))
    assert.equal('[1,[2,3],{"a":[]}]', stream:read():body())
  end))

  it("keeps order with several requests in flight", run(function()
    local stream, producer = made("text/plain", { max_in_flight = 5, max_batch_items = 7, linger = 0 })
    local all = {}
    for i = 1, 500 do
      all[i] = i .. ";"
      assert(producer:append(all[i]))
    end
    assert(producer:flush(20))
    assert.equal(table.concat(all), stream:read():body())
  end))

  it("waits for room, and says when there is none", run(function()
    local stream, producer = made("text/plain", { buffer = 1000, max_batch_bytes = 100 })
    local item = ("x"):rep(100)
    local last
    for _ = 1, 50 do
      local ok, err = producer:try_append(item)
      last = not ok and err or last
    end
    assert.equal("full", last.code)
    for _ = 1, 50 do
      assert(producer:append(item, 10))
    end
    assert(producer:flush(10))
    assert.equal(producer:stats().items * 100, #stream:read():body())
  end))

  it("closes the stream behind what was appended, once", run(function()
    local stream, producer = made("text/plain")
    assert(producer:append("a"))
    local closed = assert(producer:close("b", 10))
    assert.same(closed, producer:close(nil, 10))
    assert.is_true(stream:head().closed)
    assert.equal("ab", stream:read():body())
    support.fails("stream_closed", producer:append("c"))
  end))

  it("detaches without closing the stream", run(function()
    local stream, producer = made("text/plain")
    assert(producer:append("a"))
    local state = assert(producer:detach(10))
    assert.equal(1, state.sequence)
    assert.is_false(stream:head().closed)
    support.fails("stream_closed", producer:append("b"))
  end))

  it("goes on from a saved state", run(function()
    local stream, producer = made("text/plain", { producer_id = "saved" })
    assert(producer:append("a"))
    local state = assert(producer:detach(10))
    local again = stream:producer({ producer_id = state.producer_id, epoch = state.epoch, sequence = state.sequence })
    assert(again:append("b"))
    assert(again:flush(10))
    assert.equal("ab", stream:read():body())
  end))

  it("restarts with the next epoch", run(function()
    local stream, producer = made("text/plain", { epoch = 3 })
    assert(producer:append("a"))
    assert.equal(4, producer:restart(10))
    assert(producer:append("b"))
    assert(producer:flush(10))
    assert.equal("ab", stream:read():body())
    assert.equal(4, producer:state().epoch)
  end))

  it("is fenced by a later epoch, and says which items are concerned", run(function()
    local stream, producer = made("text/plain", { producer_id = "z" })
    assert(producer:append("a"))
    assert(producer:flush(10))
    local other = stream:producer({ producer_id = "z", epoch = 7 })
    assert(other:append("b"))
    assert(other:flush(10))
    assert(producer:append("c"))
    local err = support.fails("stale_epoch", producer:flush(10))
    assert.equal(403, err.status)
    assert.equal(1, err.first_item)
    assert.equal(1, err.item_count)
    support.fails("stale_epoch", producer:append("d"))
    assert.equal("ab", stream:read():body())
  end))

  it("claims the epoch after a later one when told to", run(function()
    local stream, producer = made("text/plain", { producer_id = "y", auto_claim = true })
    local other = stream:producer({ producer_id = "y", epoch = 7 })
    assert(other:append("a"))
    assert(other:flush(10))
    assert(producer:append("b"))
    assert(producer:flush(10))
    assert.equal("ab", stream:read():body())
    assert.equal(8, producer:state().epoch)
  end))

  it("reports a stream that is not there", run(function()
    local stream = client:stream(here.path(), { content_type = "text/plain" })
    local producer = stream:producer()
    assert(producer:append("a"))
    local err = support.fails("not_found", producer:flush(10))
    assert.equal(404, err.status)
    assert.equal(0, err.first_item)
  end))

  it("can be made from a URL", run(function()
    local stream = made("text/plain")
    local producer = durable.producer({ url = stream.url })
    assert(producer:append("a"))
    assert(producer:flush(10))
    assert.equal("a", stream:read():body())
    producer.stream.client:close()
    assert.has_error(function()
      durable.producer({})
    end)
  end))

  for _, fault in ipairs({
    { status = 500 },
    { status = 503, count = 3 },
    { status = 429, retryAfter = 0 },
    { dropConnection = true },
    { dropConnection = true, count = 2 },
  }) do
    it(("loses and repeats nothing through %s %s"):format(fault.status or "a broken connection", fault.count or ""),
      run(function()
        local stream, producer = made("text/plain", { linger = 0, retry = { initial = 0.01 } })
        local cjson = require("cjson")
        fault.path = stream.path
        local faults = client:stream("/_test/inject-error", { content_type = "text/plain" })
        local all = {}
        for i = 1, 20 do
          if i % 5 == 0 then
            assert(faults:append(cjson.encode(fault)))
          end
          all[i] = i .. ";"
          assert(producer:append(all[i]))
          assert(producer:flush(20))
        end
        assert.equal(table.concat(all), stream:read():body())
        -- A connection that breaks as it is used again may be replaced below.
        assert.is_true(fault.status == nil or producer:stats().retries >= 4)
      end))
  end

  -- Killed just before it gets a batch, or when it has answered one and the answer does not arrive. (Killed
  -- while it writes, the reference server forgets in its recovery that the producer's batch is in its file.)
  it("loses and repeats nothing when the server is killed and comes back", function()
    local dir, remove = shell.scratch()
    weir.run(function()
      local mortal = here.server({ dir = dir })
      local kills, due, proxy = 0, 10, nil -- the request at which it is killed; none while it comes back
      local function restart()
        kills = kills + 1
        mortal.handle:kill("sigkill")
        weir.spawn(function()
          mortal:stop()
          mortal = here.server({ dir = dir, port = mortal.port })
          due = #proxy.requests + 10
        end)
      end
      proxy = here.proxy({ port = mortal.port }, function(_, n)
        if kills < 6 and n >= due then
          due = math.huge
          return kills % 2 == 0 and "after" or "before", restart
        end
      end)
      local own = durable.client({ base_url = proxy.url })
      local stream = own:stream("/x", { content_type = "text/plain" })
      assert(stream:create())
      local producer = stream:producer({ linger = 0, max_batch_items = 50, retry = { initial = 0.02, max = 0.2 } })
      local all = {}
      for i = 1, 10000 do
        all[i] = i .. ";"
        assert(producer:append(all[i], 60))
      end
      assert(producer:flush(60))
      assert.equal(6, kills)
      assert.is_true(table.concat(all) == stream:read():body())
      own:close()
      proxy:close()
      mortal:stop()
    end)
    remove()
  end)
end)
