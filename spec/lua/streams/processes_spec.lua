local weir = require("weir")
local support = require("spec.lua.streams.support")
local it = support.tests(it)
local fails, eventually = support.fails, support.eventually

local PRODUCER = [[
  local weir = require("weir")
  weir.run(function()
    local node = assert(weir.network({ listen = arg[1] }))
    local producer = node:produce("stream", { lag = "block" })
    print(node:addresses()[1])
    io.stdout:flush()
    local i = 0
    while true do
      assert(producer:send(arg[2] .. i))
      i = i + 1
    end
  end)
]]

local CONSUMER = [[
  local weir = require("weir")
  weir.run(function()
    local node = assert(weir.network({ peers = arg[1], backoff = { initial = 0.02, max = 0.1 } }))
    local consumer = assert(node:consumer("stream", nil, 10))
    for value in consumer:each() do
      print(value)
      io.stdout:flush()
    end
  end)
]]

for _, kind in ipairs({ "unix", "tcp" }) do
  describe("processes (" .. kind .. ")", function()
    it("pass messages on to several others", function()
      local node = support.network({ listen = support.address(kind) })
      local producer = node:produce("stream", { online_when = 3 })
      local children = {}
      for i = 1, 3 do
        children[i] = support.child(CONSUMER, node:addresses()[1])
      end
      assert(producer:when():online(10))
      for i = 1, 100 do
        assert(producer:send("message " .. i, 5))
      end
      for _, child in ipairs(children) do
        for i = 1, 100 do
          assert.equal("message " .. i, child:line())
        end
      end
      assert(producer:flush(5))
    end)

    it("notice that a consumer's process was killed", function()
      local node = support.network({ listen = support.address(kind) })
      local producer = node:produce("stream")
      local child = support.child(CONSUMER, node:addresses()[1])
      assert(producer:send("x", 10))
      assert.equal("x", child:line())
      child:kill()
      assert(producer:when():offline(2))
      fails("offline", producer:try_send("y"))
      assert.equal(0, node:stats().connected)
      support.child(CONSUMER, node:addresses()[1])
      assert(producer:when():online(10))
    end)

    it("go on with the next process when the producer's was killed", function()
      local child = support.child(PRODUCER, support.address(kind), "first ")
      local url = child:line()
      local node = support.network({ peers = url })
      local consumer = assert(node:consumer("stream", { online_when = 1, backoff = support.quick }, 10))
      for i = 0, 999 do
        assert.equal("first " .. i, consumer:recv(5))
      end
      child:kill()
      assert(consumer:when():offline(2))
      child:wait()
      local value
      repeat -- what had come before is still there
        value = consumer:try_recv()
      until not value
      local err = node:peers()[1].error
      assert.is_true(err.code == "disconnected" or err.code == "reset" or err.code == "refused", tostring(err))
      child = support.child(PRODUCER, url, "second ")
      assert.equal(url, child:line())
      local last = -1
      while last < 1000 do
        local number = assert(consumer:recv(5)):match("^second (%d+)$")
        assert.is_true(tonumber(number) > last)
        last = tonumber(number)
      end
    end)
  end)
end

describe("a program", function()
  it("uses streams from its main thread, without weir.run", function()
    local result = support.program([[
      local weir = require("weir")
      local a = assert(weir.network({ listen = "tcp://127.0.0.1:0" }))
      local b = assert(weir.network({ peers = a:addresses() }))
      local producer = a:produce("stream", { codec = "json" })
      local consumer = assert(b:consumer("stream", { codec = "json" }, 5))
      for i = 1, 1000 do
        assert(producer:send({ n = i }, 5))
        assert(consumer:recv(5).n == i)
      end
      assert(producer:flush(5))
      print(producer, consumer:recv(0.01))
      assert(a:close() and b:close())
    ]])
    assert.equal("", result.err)
    assert.equal(0, result.status)
    assert.equal("weir.producer(stream, online, 1 consumers)\tnil\ttimeout: the time is over\n", result.out)
  end)

  it("may be typed at the interpreter's prompt", function()
    local child = support.interpreter({ "-i", "-e", "_PROMPT = ''; io.stdout:setvbuf('line')" })
    local function answers(typed, expected)
      child:write(typed .. "\n")
      local line
      repeat -- where there is readline, what was typed comes first
        line = child:line()
      until line:find(expected) or #child.lines > 20
      assert.matches(expected, line)
    end
    child:write('weir = require "weir"; net = weir.network()\np, c = net:produce("s"), net:consume("s")\n')
    answers('p:send("at the prompt", 1), "sent"', "^true\tsent$")
    answers("c:recv(1)", "^at the prompt\tweir.meta")
    answers("c:recv(0.01)", "^nil\ttimeout: the time is over$")
    answers("c:recv()", "^nil\tdeadlock: nothing is left")
    child:write("os.exit(0, true)\n")
    assert.equal(0, (child:wait()))
  end)

  it("closes its handles at the end of their blocks, and what was sent arrives", function()
    local result = support.program([[
      local weir = require("weir")
      weir.run(function()
        local a <close> = assert(weir.network({ listen = "tcp://127.0.0.1:0" }))
        local b <close> = assert(weir.network({ peers = a:addresses() }))
        local consumer <close> = b:consume("stream")
        local reader = weir.spawn(function()
          local count = 0
          while consumer:recv(2) do
            count = count + 1
            if count == 1000 then
              return count
            end
          end
        end)
        do
          local producer <close> = a:produce("stream")
          for i = 1, 1000 do
            assert(producer:send(tostring(i), 5))
          end
        end
        print(reader:join(5))
        print(pcall(function()
          local other <close> = a:produce("other", { online_when = 0 })
          assert(other:send("x"))
          error("out", 0)
        end))
        print(a:stats().producers)
      end)
    ]])
    assert.equal("", result.err)
    assert.equal(0, result.status)
    assert.equal("1000\nfalse\tout\n0\n", result.out)
  end)

  for _, how in ipairs({ "os.exit(3)", "os.exit(3, true)", "error('the end')", "return" }) do
    it("may end anywhere with everything open: " .. how, function()
      local result = support.program(([[
        local weir = require("weir")
        local function main()
          local path = "unix://" .. os.tmpname() .. ".sock"
          local a = assert(weir.network({ listen = { "tcp://127.0.0.1:0", "mem://a", path }, peers = "mem://nobody" }))
          local b = assert(weir.network({ peers = a:addresses() }))
          local producer = a:produce("stream", { codec = "msgpack" })
          local consumer = assert(b:consumer("stream", { codec = "msgpack" }, 5))
          local own = a:consume("stream", { codec = "msgpack" })
          for i = 1, 100 do
            assert(producer:send({ i }, 5))
          end
          weir.spawn(consumer.recv, b:consume("nothing"))
          weir.spawn(producer.flush, producer)
          weir.spawn(own.each, own)
          weir.sleep(0.01)
          %s
        end
        weir.run(main)
      ]]):format(how))
      local status = how:find("exit") and 3 or how == "return" and 0 or 1
      assert.equal(status, result.status, result.err)
      if status ~= 1 then
        assert.equal("", result.err)
      else
        assert.matches("the end", result.err)
      end
    end)
  end

  it("prints the error of a task that used a stream", function()
    local result = support.program([[
      local weir = require("weir")
      weir.run(function()
        local node = assert(weir.network())
        local producer, consumer = node:produce("stream"), node:consume("stream")
        weir.spawn(function()
          error("it says " .. consumer:recv(1), 0)
        end)
        assert(producer:send("boo", 1))
        weir.sleep(0.01)
      end)
    ]])
    assert.equal(1, result.status)
    assert.matches("it says boo", result.err)
  end)

  it("passes a message to and fro between processes", function()
    local node = support.network({ listen = support.address("tcp") })
    local child = support.child([[
      local weir = require("weir")
      weir.run(function()
        local node = assert(weir.network({ peers = arg[1] }))
        local pings = assert(node:consumer("pings", nil, 5))
        local pongs = node:produce("pongs")
        for value in pings:each() do
          assert(pongs:send("re: " .. value, 5))
        end
      end)
    ]], node:addresses()[1])
    local pings, pongs = node:produce("pings"), node:consume("pongs", { online_when = 1 })
    assert(pongs:when():online(10))
    assert(pings:when():online(10))
    for i = 1, 100 do
      assert(pings:send("ping " .. i, 5))
      assert.equal("re: ping " .. i, pongs:recv(5))
    end
    child:kill("sigterm")
    eventually(function()
      return not pongs:is_online() and not pings:is_online()
    end)
    weir.sleep(0)
  end)
end)
