local weir = require("weir")
local support = require("spec.lua.streams.support")
local it = support.tests(it)
local fails, eventually = support.fails, support.eventually

-- Sends numbers until there is no room for `seconds`; returns how many went in.
local function fill(producer, seconds)
  local count = 0
  while true do
    local ok, err = producer:send(tostring(count), seconds or 0.2)
    if not ok then
      fails("timeout", ok, err)
      return count
    end
    count = count + 1
  end
end

local function check_numbers(consumer, from, to)
  for i = from, to do
    local value, meta = consumer:recv(5)
    assert.equal(tostring(i), value)
    assert.equal(i, meta.sequence)
  end
end

for _, place in ipairs(support.places) do
  describe("backpressure (" .. place .. ")", function()
    it("bounds in messages what a consumer that does not read can hold up, and loses nothing", function()
      local producer, consumer =
        support.stream(place, { lag = "block", buffer = { messages = 100 } }, { buffer = { messages = 50 } })
      local held = place == "local" and 0 or 50
      local sent = fill(producer)
      assert.equal(100 + held, sent)
      local stats = producer:stats()
      assert.equal(100, stats.queued)
      assert.equal(place == "local" and 100 or held, consumer:stats().queued)
      local subscriber = producer:consumers()[1]
      assert.equal(100, subscriber.queued)
      assert.equal(sent, subscriber.unacknowledged)
      fails("full", producer:try_send("x"))
      check_numbers(consumer, 0, sent - 1)
      assert.is_true(producer:send("after", 5))
      assert.equal("after", consumer:recv(5))
      assert.equal(0, consumer:stats().dropped)
    end)

    it("bounds it in bytes as well", function()
      local bytes = 64 * 1024
      local producer, consumer =
        support.stream(place, { lag = "block", buffer = { bytes = bytes } }, { buffer = { bytes = "64 KiB" } })
      local message, count = ("x"):rep(1000), 0
      while producer:send(message, 0.2) do
        count = count + 1
      end
      local most = place == "local" and 64 or 128 -- 1032 bytes each on the wire
      assert.is_true(count <= most and count > most - 4, count .. " were sent")
      local stats = producer:stats()
      assert.is_true(stats.queued_bytes >= bytes and stats.queued_bytes < bytes + 1032)
      if place ~= "local" then
        assert.equal(0, stats.credit)
        assert.equal(0, consumer:stats().credit)
      end
      for _ = 1, count do
        assert.is_true(message == consumer:recv(5))
      end
    end)

    it("makes send wait for a slow consumer", function()
      local producer, consumer =
        support.stream(place, { lag = "block", buffer = { messages = 8 } }, { buffer = { messages = 8 } })
      local most = 0
      local sender = weir.spawn(function()
        for i = 0, 299 do
          assert(producer:send(tostring(i), 5))
          most = math.max(most, producer:stats().queued)
        end
      end)
      for i = 0, 299 do
        if i % 50 == 0 then
          weir.sleep(0.005)
        end
        check_numbers(consumer, i, i)
      end
      sender:join(1)
      assert.is_true(most <= 8)
      assert.equal(0, producer:stats().evicted)
    end)

    it("lets a message through that is larger than every buffer", function()
      local small = { bytes = 1000 }
      local producer, consumer = support.stream(place, { lag = "block", buffer = small }, { buffer = small })
      local sender = weir.spawn(function()
        for i = 1, 5 do
          assert(producer:send(i .. ("x"):rep(100000), 5))
        end
      end)
      for i = 1, 5 do
        assert.equal(i .. "", assert(consumer:recv(5)):sub(1, 1))
      end
      sender:join(1)
    end)
  end)
end

describe("a stalled consumer", function()
  it("stops nobody but itself until the buffer is full, and under block then everybody", function()
    local a, b = support.nodes("tcp")
    local producer = a:produce("stream", { lag = "block", buffer = { messages = 100 } })
    local stalled = assert(b:consumer("stream", { buffer = { messages = 10 } }, 5))
    local reading = assert(b:consumer("stream", nil, 5))
    eventually(function()
      return producer:stats().consumers == 2
    end)
    for i = 0, 109 do
      assert(producer:send(tostring(i), 5))
      check_numbers(reading, i, i)
    end
    fails("timeout", producer:send("x", 0.05))
    stalled:close()
    assert(producer:send("110", 5))
    check_numbers(reading, 110, 110)
  end)

  it("does not keep the streams beside it on the same connection waiting", function()
    local a, b = support.nodes("tcp")
    local blocked = a:produce("blocked", { lag = "block" })
    local free = a:produce("free")
    assert(b:consumer("blocked", nil, 5))
    local consumer = assert(b:consumer("free", nil, 5))
    local message = ("x"):rep(65536)
    while blocked:send(message, 0.2) do -- luacheck: ignore 542
    end
    for i = 0, 999 do
      assert(free:send(tostring(i), 5))
      check_numbers(consumer, i, i)
    end
  end)

  it("is offered a gigabyte, and neither side needs memory for it", function()
    local child = support.child([[
      local weir = require("weir")
      weir.run(function()
        local a = assert(weir.network({ listen = "tcp://127.0.0.1:0" }))
        local b = assert(weir.network({ peers = a:addresses() }))
        local producer = a:produce("stream", { lag = "block" })
        local consumer = assert(b:consumer("stream", nil, 5))
        assert(producer:when():online(5))
        local message, sent = ("x"):rep(65536), 0
        weir.spawn(function()
          for i = 1, 16384 do
            if not producer:send(message) then
              return
            end
            sent = i
          end
        end)
        while producer:stats().queued_bytes < 4 * 1024 * 1024 do
          weir.sleep(0.001)
        end
        for _ = 1, 100 do
          weir.sleep(0.001)
          assert(not producer:try_send(message))
        end
        print(sent)
        io.stdout:flush()
        io.read("l")
        local count = 0
        while count < 16384 / 8 do
          assert(consumer:recv(5))
          count = count + 1
        end
        print("read", count)
        io.stdout:flush()
        io.read("l")
        os.exit(0)
      end)
    ]])
    local sent = tonumber(child:line())
    assert.is_true(sent >= 64 and sent < 200, sent .. " messages of 64 KiB were taken")
    if not support.sanitized then
      assert.is_true(child:memory() < 48 * 1024 * 1024, child:memory() .. " bytes are in use")
    end
    child:write("\n")
    assert.matches("^read", child:line(20))
    if not support.sanitized then
      assert.is_true(child:memory() < 64 * 1024 * 1024, child:memory() .. " bytes are in use")
    end
    child:write("\n")
    assert.equal(0, (child:wait()))
  end)
end)
