local luv = require("luv")
local weir = require("weir")
local support = require("spec.lua.streams.support")
local it = support.tests(it)
local fails = support.fails

-- Calls a luv timer every 10 ms; returns a function that stops it and gives the median lateness.
local function ticking()
  local timer, late, last = luv.new_timer(), {}, luv.hrtime()
  timer:start(10, 10, function()
    local now = luv.hrtime()
    late[#late + 1] = (now - last) / 1e6 - 10
    last = now
  end)
  return function()
    timer:close()
    table.sort(late)
    assert.is_true(#late >= 10, "the timer was starved: " .. #late .. " calls")
    return late[#late // 2 + 1]
  end
end

-- Calls step() as fast as it goes for `seconds`, in a task.
local function hot(seconds, step)
  local deadline = weir.now() + seconds
  return weir.spawn(function()
    local count = 0
    while weir.now() < deadline do
      for _ = 1, 100 do
        step()
      end
      count = count + 100
    end
    return count
  end)
end

describe("a hot task", function()
  for _, place in ipairs(support.places) do
    it("that sends and receives without a pause lets a timer run (" .. place .. ")", function()
      local producer, consumer = support.stream(place, { lag = "block" })
      local stop = ticking()
      local receiving = weir.spawn(function()
        for _ in consumer:each() do -- luacheck: ignore 542
        end
      end)
      local count = hot(0.3, function()
        assert(producer:send("message"))
      end):join()
      assert.is_true(count > 1000)
      assert.is_true(stop() < 20)
      consumer:close()
      receiving:join(1)
    end)
  end

  it("that takes what is always there lets a timer and other tasks run", function()
    local producer, consumer = support.stream("local", { buffer = { messages = 1000 } })
    local stop, others = ticking(), 0
    local other = weir.spawn(function()
      while weir.sleep(0.001) do
        others = others + 1
      end
    end)
    hot(0.3, function()
      assert(producer:send("message"))
      assert(consumer:recv())
    end):join()
    other:cancel()
    assert.is_true(stop() < 20)
    assert.is_true(others > 20)
  end)

  it("notices a cancellation though it could always send, or receive", function()
    local node = support.network()
    for _, opts in ipairs({ { codec = "raw" }, { codec = "json" } }) do
      local producer = node:produce("nobody " .. opts.codec, { codec = opts.codec, online_when = 0 })
      local sending = weir.spawn(function()
        while true do
          local ok, err = producer:send("x")
          if not ok then
            return err
          end
        end
      end)
      weir.sleep(0.01)
      sending:cancel()
      assert.equal("cancelled", sending:join(2).code)

      local buffer = { messages = 200000, bytes = "1 GiB" }
      producer = node:produce("many " .. opts.codec, { codec = opts.codec, buffer = buffer })
      local consumer = node:consume("many " .. opts.codec, opts)
      for _ = 1, 200000 do
        assert(producer:send("x"))
      end
      local count = 0
      local receiving = weir.spawn(function()
        while true do
          local value, err = consumer:recv()
          if not value then
            return err
          end
          count = count + 1
        end
      end)
      weir.spawn(receiving.cancel, receiving)
      assert.equal("cancelled", receiving:join(5).code)
      assert.is_true(count < 200000)
    end
  end)

  it("notices a cancellation though everything is always ready", function()
    local producer, consumer = support.stream("local", { buffer = { messages = 1000 } })
    local json_producer, json_consumer = support.stream("local", { codec = "json" }, { codec = "json" })
    for _, pair in ipairs({ { producer, consumer }, { json_producer, json_consumer } }) do
      for at = 1, 2 do
        local task = weir.spawn(function()
          while true do
            local ok, err = pair[1]:send("x")
            if not ok then
              return nil, err
            end
            ok, err = pair[2]:recv()
            if not ok then
              return nil, err
            end
          end
        end)
        weir.sleep(at == 1 and 0 or 0.01)
        task:cancel()
        fails("cancelled", task:join(2))
        while pair[2]:try_recv() do -- luacheck: ignore 542
        end
      end
    end
  end)
end)

describe("a task that waits", function()
  it("in send, recv, flush, when, close or for peers is ended by a cancellation", function()
    local a, b = support.nodes("tcp")
    local offline = a:produce("offline")
    local full = a:produce("full", { lag = "block", buffer = { messages = 1 } })
    local consumer = assert(b:consumer("full", { buffer = { messages = 1 } }, 5))
    while full:send("x", 0.05) do -- luacheck: ignore 542
    end
    local quiet = b:consume("quiet")
    for name, wait in pairs({
      offline = function()
        return offline:send("x")
      end,
      full = function()
        return full:send("x")
      end,
      recv = function()
        return quiet:recv()
      end,
      flush = function()
        return full:flush()
      end,
      when = function()
        return offline:when():online()
      end,
      peers = function()
        return a:wait_connected(5)
      end,
      consumer = function()
        return b:consumer("nothing", nil, 60)
      end,
      select = function()
        return weir.select({ quiet, weir.channel(1) })
      end,
    }) do
      local task = weir.spawn(wait)
      weir.sleep(0.001)
      assert.equal("running", task:status(), name)
      task:cancel("no longer wanted")
      local err = fails("cancelled", task:join(1))
      assert.equal("no longer wanted", err.message, name)
    end
    local closing = weir.spawn(full.close, full, 60)
    weir.sleep(0.001)
    closing:cancel()
    fails("cancelled", closing:join(1))
    fails("closed", full:send("x"))
    assert.truthy(consumer)
  end)

  it("is ended by with_timeout", function()
    local producer, consumer = support.stream("tcp")
    fails("timeout", weir.with_timeout(0.01, consumer.recv, consumer))
    assert(producer:send("later", 5))
    assert.equal("later", weir.with_timeout(5, consumer.recv, consumer))
  end)

  it("may be a coroutine that the program made", function()
    local a, b = support.nodes("tcp")
    local producer, results = a:produce("stream"), {}
    local receiving = coroutine.create(function()
      local consumer = assert(b:consumer("stream", nil, 5))
      for i = 1, 3 do
        results[i] = assert(consumer:recv(5))
      end
    end)
    local sending = coroutine.create(function()
      for i = 1, 3 do
        assert(producer:send("message " .. i, 5))
      end
    end)
    assert(coroutine.resume(sending))
    assert(coroutine.resume(receiving))
    support.eventually(function()
      return #results == 3
    end)
    assert.same({ "message 1", "message 2", "message 3" }, results)
    assert.equal("dead", coroutine.status(sending))
    support.eventually(function()
      return coroutine.status(receiving) == "dead"
    end)
  end)

  it("may be a generator made with weir.wrap", function()
    local producer, consumer = support.stream("tcp")
    local squares = weir.wrap(function()
      for value in consumer:each() do
        coroutine.yield(tonumber(value) ^ 2)
      end
    end)
    weir.spawn(function()
      for i = 1, 3 do
        assert(producer:send(tostring(i), 5))
      end
      assert(producer:flush(5))
      consumer:close()
    end)
    local got = {}
    for square in squares do
      got[#got + 1] = square
    end
    assert.same({ 1, 4, 9 }, got)
  end)

  it("in a libuv callback is told what to do", function()
    local _, consumer = support.stream("local")
    local timer, text = luv.new_timer(), nil
    timer:start(0, 0, function()
      timer:close()
      text = support.raises(consumer.recv, consumer)
    end)
    support.eventually(function()
      return text
    end)
    assert.matches("a libuv callback must not block: call weir.spawn", text)
  end)
end)
