local eventually = require("spec.lua.support").eventually
local fails = require("spec.lua.support").fails
local servers = require("spec.lua.nats_server")
local runtime = require("weir.runtime")
local tasks = require("weir.task")

if not servers.available() then
  return pending("nats-server or libnats is not installed: spec/setup test")
end

local nats = require("weir.broker.nats")
local support = require("spec.lua.broker.nats.support")

describe("the NATS broker in outages", function()
  local server

  before_each(function()
    server = servers.start()
  end)
  after_each(function()
    support.shut_down()
    server:stop()
  end)

  it("says that nobody listens, and connects later", function()
    server:kill()
    local broker = nats.new({ url = server.url })
    fails("refused", broker:connect(5))
    local state, reason = broker:state()
    assert.equal("failed", state)
    assert.equal("refused", reason.code)
    fails("refused", broker:subscribe("x"))
    server:start()
    assert(broker:connect(5))
    assert.equal("up", (broker:state()))
    broker:shutdown(1)
  end)

  it("gives up connecting when the time is over", function()
    server:signal("sigstop")
    local broker = nats.new({ url = server.url, connect_timeout = 0.5 })
    fails("timeout", broker:connect(0.1))
    assert.equal("failed", (broker:state()))
    server:signal("sigcont")
    assert(broker:connect(10))
    broker:shutdown(1)
  end)

  it("restores core subscriptions, and publishes what was published meanwhile", function()
    local broker = support.broker(server)
    local states = {}
    broker:watch(function(state)
      states[#states + 1] = state
    end)
    local subscription = assert(broker:subscribe("a.*"))
    local group = assert(broker:subscribe(nats.subject("a.*", { group = "g" })))
    local publisher = broker:publisher()
    assert(publisher:publish("a.1", "before"))
    assert.equal("before", assert(subscription:next(5)).payload)
    assert.equal("before", assert(group:next(5)).payload)
    server:kill()
    local reason = support.until_state(broker, "degraded")
    assert.equal("disconnected", reason.code)
    for i = 1, 100 do
      assert(publisher:publish("a.2", "during" .. i))
    end
    server:start()
    support.until_state(broker, "up")
    for i = 1, 100 do
      assert.equal("during" .. i, assert(subscription:next(5)).payload)
      assert.equal("during" .. i, assert(group:next(5)).payload)
    end
    assert(publisher:flush(5))
    assert.same({ "degraded", "up" }, states)
    assert.equal(1, broker:stats().reconnects)
  end)

  it("bounds what it keeps during an outage", function()
    local broker = support.broker(server, { publish_buffer = "64 KiB" })
    local publisher = broker:publisher()
    server:kill()
    support.until_state(broker, "degraded")
    local payload, sent = ("x"):rep(1024), 0
    local err
    for _ = 1, 200 do
      local done
      done, err = publisher:publish("a", payload)
      if not done then
        break
      end
      sent = sent + 1
    end
    fails("full", nil, err)
    assert.is_true(sent >= 50 and sent <= 66, tostring(sent))
  end)

  it("keeps nothing during an outage when told so", function()
    local broker = support.broker(server, { publish_buffer = 0 })
    local publisher = broker:publisher()
    assert(publisher:publish("a", "x"))
    server:kill()
    support.until_state(broker, "degraded")
    fails("disconnected", publisher:publish("a", "x"))
    server:start()
    support.until_state(broker, "up")
    assert(publisher:publish("a", "x"))
  end)

  it("fails at once what waits for an answer, and flushes after the outage", function()
    local broker = support.broker(server)
    local responder = assert(broker:subscribe("svc"))
    local publisher = broker:publisher()
    local request = tasks.spawn(function()
      return select(2, publisher:request("svc", "x", nil, 30)).code
    end)
    assert(responder:next(5))
    local confirmed = tasks.spawn(function()
      return { broker:publisher({ confirm = true, timeout = 30 }):publish_batch({ { "svc", "a" }, { "svc", "b" } }) }
    end)
    assert(responder:next(5))
    server:kill()
    assert.equal("disconnected", request:join(5))
    local results = confirmed:join(5)[3]
    assert.same({ "disconnected", "disconnected" }, { results[1].code, results[2].code })
    support.until_state(broker, "degraded")
    local flush = tasks.spawn(function()
      return publisher:flush(20)
    end)
    fails("timeout", publisher:flush(0.05))
    server:start()
    assert.is_true(flush:join(20))
  end)

  it("flushes after any number of outages, whatever was on its way then", function()
    local broker = support.broker(server)
    local publisher = broker:publisher()
    local stop, flushed, busy = false, 0, {}
    for i = 1, 4 do
      busy[i] = tasks.spawn(function()
        while not stop do
          publisher:publish("a", "x")
          flushed = flushed + (publisher:flush(0.5) and 1 or 0)
          tasks.sleep(0)
        end
      end)
    end
    for _ = 1, 15 do
      local before = flushed
      eventually(function()
        return flushed > before + 100
      end, 10)
      server:kill()
      server:start()
      support.until_state(broker, "up")
      assert(publisher:flush(5))
    end
    stop = true
    for _, task in ipairs(busy) do
      task:join(5)
    end
  end)

  for _, signal in ipairs({ "KILL", "TERM" }) do
    it("loses nothing of a stream when the server ends by SIG" .. signal .. " in the middle of it", function()
      local broker = support.broker(server)
      assert(broker:stream({ name = "S", subjects = { "s" } }):create())
      local publisher = broker:publisher({ confirm = true, timeout = 1 })
      local descriptor = assert(nats.jetstream({ name = "s", durable = "d", ack_wait = 1, batch = 16 }))
      local subscription = assert(broker:subscribe(descriptor))
      local seen, stop = {}, false
      local consumer = tasks.spawn(function()
        while not stop do
          local message = subscription:next(0.2)
          if message then
            seen[message.payload] = (seen[message.payload] or 0) + 1
            message:ack()
          end
        end
      end)
      local total = 400
      local producer = tasks.spawn(function()
        for i = 1, total do
          repeat
            local done = publisher:publish("s", tostring(i), nil, { message_id = tostring(i) })
            if not done then
              tasks.sleep(0.01)
            end
          until done
          if i == 150 then
            server:kill(signal)
            tasks.spawn(function()
              server:start()
            end)
          end
        end
        return true
      end)
      assert.is_true(producer:join(60))
      eventually(function()
        local count = 0
        for _ in pairs(seen) do
          count = count + 1
        end
        return count == total
      end, 30)
      stop = true
      consumer:join(5)
      assert.equal(total, assert(broker:stream({ name = "S" }):info()).messages)
    end)
  end

  it("makes a consumer without a name again, and goes on where it was", function()
    local broker = support.broker(server)
    assert(broker:stream({ name = "S", subjects = { "s" } }):create())
    local publisher = broker:publisher({ confirm = true })
    for i = 1, 20 do
      assert(publisher:publish("s", tostring(i)))
    end
    local subscription = assert(broker:subscribe(nats.jetstream({ name = "s", stream = "S", batch = 4 })))
    for i = 1, 5 do
      local message = assert(subscription:next(5))
      assert.equal(i, message.position)
      assert(message:ack())
    end
    server:kill()
    server:start()
    local expected = 6
    while expected <= 20 do
      local message = assert(subscription:next(20))
      assert.is_true(message.position <= expected, message.position)
      if message.position == expected then
        expected = expected + 1
      end
      assert(message:ack())
    end
  end)

  it("does not spin while the server is away", function()
    local broker = support.broker(server, { backoff = { initial = 0.2, max = 0.2, jitter = 0 } })
    assert(broker:subscribe("a"))
    server:kill()
    support.until_state(broker, "degraded")
    local start = os.clock()
    tasks.sleep(1)
    assert.is_true(os.clock() - start < 0.2, tostring(os.clock() - start))
  end)

  it("gives up after max_reconnect attempts, and ends the subscriptions", function()
    local broker = support.broker(server, { max_reconnect = 3 })
    local subscription = assert(broker:subscribe("a"))
    local waiting = tasks.spawn(function()
      return select(2, subscription:next(30)).code
    end)
    server:kill()
    support.until_state(broker, "failed")
    assert.is_true(waiting:join(5) ~= nil)
    assert.is_nil((broker:publisher():publish("a", "x")))
  end)

  it("tries every server of the list", function()
    local other = servers.start()
    local broker = support.broker({ url = server.url .. "," .. other.url })
    local subscription = assert(broker:subscribe("a"))
    local publisher = broker:publisher()
    for _ = 1, 2 do
      assert(publisher:publish("a", "x"))
      assert(subscription:next(5))
      local first = server.running and server or other
      first:kill()
      support.until_state(broker, "up", 20)
      if not server.running and other.running then
        eventually(function()
          return publisher:publish("a", "y") and publisher:flush(1) and subscription:next(1)
        end, 20)
        break
      end
    end
    other:stop()
  end)

  it("shuts down in time though the server is away", function()
    local broker = support.broker(server)
    assert(broker:subscribe("a"))
    server:kill()
    support.until_state(broker, "degraded")
    assert(broker:publisher():publish("a", "lost"))
    local start = runtime.now()
    fails("timeout", broker:shutdown(0.3))
    assert.is_true(runtime.now() - start < 5)
    assert.equal("closed", (broker:state()))
  end)

  it("shuts down in time though the server does not answer, however many consumers there are", function()
    local broker = support.broker(server)
    local descriptor = { stream = "SLOW", create = true, name = "slow" }
    local list = {}
    for i = 1, 8 do
      list[i] = assert(broker:subscribe(assert(nats.jetstream(descriptor))))
    end
    assert(broker:publisher({ confirm = true }):publish("slow", "x"))
    for _, subscription in ipairs(list) do
      assert(subscription:next(5))
    end
    server:signal("sigstop")
    local start = runtime.now()
    fails("timeout", broker:shutdown(0.5))
    assert.is_true(runtime.now() - start < 4)
    server:signal("sigcont")
  end)

  it("leaves its sockets to no program that is started", function()
    local function sockets()
      local pipe = assert(io.popen("ls -l /proc/self/fd 2>/dev/null"))
      local count = select(2, pipe:read("a"):gsub("socket:", ""))
      pipe:close()
      return count
    end
    local before = sockets()
    support.broker(server)
    assert.equal(before, sockets())
  end)

  it("notices a server that has stopped answering", function()
    local broker = support.broker(server, { ping_interval = 0.1, max_pings_out = 2 })
    local subscription = assert(broker:subscribe("a"))
    server:signal("sigstop")
    support.until_state(broker, "degraded")
    server:signal("sigcont")
    support.until_state(broker, "up", 20)
    assert(broker:publisher():publish("a", "x"))
    assert.equal("x", assert(subscription:next(5)).payload)
  end)
end)
