--- Faults at every point of a run, between the client and the real server.
local durable = require("weir.durable")
local here = require("spec.lua.durable.support")
local weir = require("weir")

local RETRY = { initial = 0.001, max = 0.02 }

describe("Through faults", function()
  local direct, server
  if not here.reference(function(...) direct, server = ... end, { long_poll = 100 }) then
    return
  end

  -- Runs fn(stream behind a proxy with these faults, the same stream without it).
  local function with(fault, content_type, fn)
    weir.run(function()
      local plain, proxy = here.stream(direct, content_type), here.proxy(server, fault)
      local client = durable.client({ base_url = proxy.url, retry = RETRY })
      here.closing({ client, proxy }, fn, client:stream(plain.path, { content_type = content_type }), plain)
    end)
  end

  for _, what in ipairs({ "503", "before", "after", "half", "stall" }) do
    for _, in_flight in ipairs({ 1, 4 }) do
      it(("a producer with %d in flight loses and repeats nothing: %s"):format(in_flight, what), function()
        for point = 1, 8 do
          with(function(_, n)
            return n == point and what or nil
          end, "text/plain", function(stream, plain)
            local producer = stream:producer({
              linger = 0,
              max_batch_items = 2,
              max_in_flight = in_flight,
              timeout = 0.15,
            })
            local all = {}
            for i = 1, 12 do
              all[i] = i .. ","
              assert(producer:append(all[i]))
            end
            assert(producer:close("end", 20))
            assert.equal(table.concat(all) .. "end", plain:read():body())
            assert.is_true(plain:head().closed)
          end)
        end
      end)
    end
  end

  for _, live in ipairs({ false, "long-poll", "sse", "auto" }) do
    for _, what in ipairs({ "503", "before", "half" }) do
      -- The proxy passes an answer on when it is whole: server-sent events have no end while the stream is open.
      it(("a reader (%s) loses and repeats nothing: %s"):format(live or "catch-up", what), function()
        for point = 1, 3 do
          with(function(_, n)
            return n == point and what or nil
          end, "application/json", function(stream, plain)
            local expected = {}
            for i = 1, 50 do
              expected[i] = i
            end
            local producer = plain:producer()
            for i = 1, 50 do
              assert(producer:append(tostring(i)))
            end
            assert(producer:close(nil, 10))
            local seen = {}
            for value in stream:read({ live = live }):items() do
              seen[#seen + 1] = value
            end
            assert.same(expected, seen)
          end)
        end
      end)
    end
  end

  it("every appended byte is where it was, spaces and line ends too", function()
    local parts = { "The", " quick", "  brown\r\n", "\r", "fox\n", "\n ", "\195", "\164", "end" }
    for _, live in ipairs({ false, "long-poll", "auto" }) do
      with(function() end, "text/plain", function(_, plain)
        for _, part in ipairs(parts) do
          assert(plain:append(part))
        end
        assert(plain:close())
        assert.equal(table.concat(parts), plain:read({ live = live }):body())
      end)
    end
  end)

  it("a connection that the server closed while idle is no failure", function()
    with(function() end, "text/plain", function(stream, plain)
      for i = 1, 5 do
        assert(stream:append(tostring(i)))
        weir.sleep(0.01)
      end
      assert.equal("12345", plain:read():body())
    end)
  end)
end)
