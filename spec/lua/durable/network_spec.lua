--- Connections that are cut and that stall, at any byte, between the client and the reference server.
local durable = require("weir.durable")
local here = require("spec.lua.durable.support")
local weir = require("weir")

local RETRY = { initial = 0.001, max = 0.02 }

describe("On a bad network", function()
  local direct, server
  if not here.reference(function(...) direct, server = ... end, { long_poll = 100, quiet = true }) then
    return
  end

  local function made(content_type)
    return here.stream(direct, content_type)
  end

  -- Runs fn(the same stream through a tunnel with this plan, the tunnel).
  local function through(stream, plan, opts, fn)
    local tunnel = here.tunnel(server, plan)
    opts.base_url, opts.retry = tunnel.url, opts.retry or RETRY
    local client = durable.client(opts)
    here.closing({ client, tunnel }, fn, client:stream(stream.path, { content_type = stream.content_type }), tunnel)
  end

  local function produce(stream, opts)
    local all = {}
    local producer = stream:producer(opts)
    for i = 1, 30 do
      all[i] = i .. ","
      assert(producer:append(all[i], 20))
    end
    assert(producer:close("end", 20))
    return table.concat(all) .. "end", producer
  end

  -- A request has some 250 bytes here, an answer some 900.
  for _, in_flight in ipairs({ 1, 4 }) do
    for _, way in ipairs({ "up", "down" }) do
      it(("a producer with %d in flight loses and repeats nothing when its connections are cut %s"):format(in_flight,
        way), function()
        weir.run(function()
          for limit = 1, 1401, 56 do
            local stream = made("text/plain")
            through(stream, function(n)
              return n <= 3 and { [way] = limit * n } or nil
            end, {}, function(far, tunnel)
              local text = produce(far, { linger = 0, max_batch_items = 8, max_in_flight = in_flight })
              assert.equal(text, stream:read():body())
              assert.is_true(tunnel.connections > 1 or limit > 1000)
            end)
          end
        end)
      end)
    end

    it(("a producer with %d in flight loses and repeats nothing when its connections stall"):format(in_flight),
      function()
        weir.run(function()
          for limit = 1, 1201, 300 do
            for _, way in ipairs({ "up", "down" }) do
              local stream = made("text/plain")
              through(stream, function(n)
                return n == 1 and { [way] = limit, stall = true } or nil
              end, {}, function(far)
                local text = produce(far, { linger = 0, max_batch_items = 8, max_in_flight = in_flight, timeout = 0.1 })
                assert.equal(text, stream:read():body())
              end)
            end
          end
        end)
      end)
  end

  it("a producer is told in time by the silence of a connection", function()
    weir.run(function()
      local stream = made("text/plain")
      through(stream, function(n)
        return n == 1 and { down = 0, stall = true } or nil
      end, { idle_timeout = 0.1 }, function(far)
        assert.equal((produce(far)), stream:read():body())
      end)
    end)
  end)

  local function filled(content_type, n)
    local stream = made(content_type)
    local producer = stream:producer({ linger = 0, max_batch_items = 7 })
    local values = {}
    for i = 1, n do
      values[i] = ('{"n":%d,"text":" ä\\r\\n"}'):format(i)
      assert(producer:append(values[i]))
    end
    assert(producer:close(nil, 20))
    local is_json = content_type == "application/json"
    return stream, is_json and "[" .. table.concat(values, ",") .. "]" or table.concat(values)
  end

  for _, content_type in ipairs({ "application/json", "application/octet-stream", "text/plain" }) do
    for _, live in ipairs({ false, "long-poll", "sse", "auto" }) do
      it(("a reader (%s) of %s loses and repeats nothing when its connections are cut and stall"):format(
        live or "catch-up", content_type), function()
        weir.run(function()
          local stream, text = filled(content_type, 60)
          local from = assert(stream:read():next()).offset
          for limit = 0, 4000, 250 do
            for _, stall in ipairs(limit % 1000 == 0 and { false, true } or { false }) do
              through(stream, function(n)
                return n <= 2 and { down = limit + n, stall = stall } or nil
              end, { idle_timeout = 0.1 }, function(far)
                assert.equal(text, far:read({ live = live, offset = from }):body())
              end)
            end
          end
        end)
      end)
    end
  end

  for _, live in ipairs({ "long-poll", "sse" }) do
    it(("a reader (%s) goes on where it was when its connection is cut while it waits"):format(live), function()
      weir.run(function()
        local stream = made("application/json")
        -- Each connection takes the head, the first control event, and one or two values.
        through(stream, function()
          return { down = 1900 }
        end, {}, function(far, tunnel)
          local reader = far:read({ live = live })
          for i = 1, 40 do
            assert(stream:append(('{"n":%d}'):format(i)))
            assert.same({ { n = i } }, { reader:next_item(10) })
          end
          assert.is_true(tunnel.connections > 3)
          assert(stream:close())
          assert.is_nil(select(2, reader:next_item(10)))
        end)
      end)
    end)
  end

  it("silence on a stream that has nothing to say is no failure", function()
    weir.run(function()
      for _, live in ipairs({ "long-poll", "sse" }) do
        local stream = made("application/json")
        local retry = { max_retries = 2, initial = 0.001, max = 0.01 }
        through(stream, function() end, { idle_timeout = 0.03, retry = retry }, function(far, tunnel)
          local reader = far:read({ live = live })
          local got
          local task = weir.spawn(function()
            got = { reader:next_item(20) }
          end)
          here.await(function()
            return tunnel.connections >= 8 or got
          end)
          assert(got == nil, got and tostring(got[2]))
          assert(stream:append("1"))
          task:join()
          assert.same({ 1 }, got)
          reader:close()
        end)
      end
    end)
  end)
end)
