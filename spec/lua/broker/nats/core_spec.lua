local eventually = require("spec.lua.support").eventually
local fails = require("spec.lua.support").fails
local servers = require("spec.lua.nats_server")
local tasks = require("weir.task")

if not servers.available() then
  return pending("nats-server or libnats is not installed: spec/setup test")
end

local nats = require("weir.broker.nats")
local support = require("spec.lua.broker.nats.support")

local function texts(list)
  local out = {}
  for i, message in ipairs(list) do
    out[i] = message.payload
  end
  return table.concat(out, " ")
end

describe("the NATS broker, core subjects", function()
  local broker, publisher, server

  support.each_broker(function(...)
    broker, server = ...
    publisher = broker:publisher()
  end)

  it("delivers what is published, in order, with its subject", function()
    local name = support.name()
    local subscription = assert(broker:subscribe(name))
    for i = 1, 100 do
      assert(publisher:publish(name, "m" .. i))
    end
    for i = 1, 100 do
      local message = assert(subscription:next(5))
      assert.equal("m" .. i, message.payload)
      assert.equal(name, message.destination)
    end
    fails("timeout", subscription:next(0.02))
  end)

  it("carries any payload", function()
    local name = support.name()
    local subscription = assert(broker:subscribe(name))
    local all = {}
    for i = 0, 255 do
      all[#all + 1] = string.char(i)
    end
    local payloads = { "", "\0", table.concat(all), ("x"):rep(1024 * 1024) }
    for _, payload in ipairs(payloads) do
      assert(publisher:publish(name, payload))
      assert.is_true(assert(subscription:next(5)).payload == payload)
    end
  end)

  it("carries headers both ways, in lower case", function()
    local name = support.name()
    local subscription = assert(broker:subscribe(name))
    local headers = { ["content-type"] = "text/plain", ["x-bytes"] = "\1\200\255 \9z", ["partition-key"] = "k7" }
    assert(publisher:publish(name, "x", headers))
    assert(publisher:publish(name, "y", { ["X-Upper"] = "V" }))
    local message = assert(subscription:next(5))
    assert.same(headers, message.headers)
    assert.equal("k7", message.key)
    assert.same({ ["x-upper"] = "V" }, assert(subscription:next(5)).headers)
  end)

  it("refuses headers that NATS would change", function()
    for _, value in ipairs({ "", " x", "x ", "a\r\nb: c", "a\nb", "a\0b" }) do
      fails("unsupported", publisher:publish("s", "x", { name = value }))
    end
    for _, name in ipairs({ "", "a:b", "a b", "a\r\nb" }) do
      fails("unsupported", publisher:publish("s", "x", { [name] = "v" }))
    end
    fails("unsupported", publisher:publish("s", "x", { name = {} }))
  end)

  it("refuses subjects that are none", function()
    for _, subject in ipairs({ "", ".", "a.", ".a", "a..b", "a b", "a\r\nPUB b", "a.*", ">", "a\0b" }) do
      fails("invalid", publisher:publish(subject, "x"))
    end
    fails("invalid", nats.subject("a b"))
    fails("invalid", nats.subject("a.>.b"))
  end)

  it("leaves the priority of the program as it was", function()
    local file = io.open("/proc/self/stat", "rb")
    if not file then
      return pending("not on Linux")
    end
    local after = file:read("a"):match("%) (.*)")
    file:close()
    local fields = {}
    for field in after:gmatch("%S+") do
      fields[#fields + 1] = field
    end
    assert.equal("0", fields[41 - 2]) -- SCHED_OTHER
  end)

  it("refuses places for the answer that are none", function()
    local subscription = assert(broker:subscribe("s"))
    for _, subject in ipairs({ "a b", "x 1\r\nPUB s 1\r\nx\r\nPUB s", "a.*" }) do
      fails("invalid", publisher:publish("s", "x", nil, { reply_to = subject }))
      fails("invalid", publisher:publish("s", "x", { a = "b" }, { reply_to = subject }))
    end
    assert(publisher:publish("s", "last"))
    assert.equal("last", assert(subscription:next(5)).payload)
  end)

  it("refuses a message that is larger than the server takes", function()
    fails("too_large", publisher:publish("s", ("x"):rep(1024 * 1024 + 1)))
    assert(publisher:publish("s", "fits"))
  end)

  it("gives each subscription every message, and a group each message once", function()
    local name = support.name()
    local one, two = assert(broker:subscribe(name)), assert(broker:subscribe(name))
    local group = assert(nats.subject(name, { group = "workers" }))
    local three, four = assert(broker:subscribe(group)), assert(broker:subscribe(group))
    for i = 1, 40 do
      assert(publisher:publish(name, tostring(i)))
    end
    assert.equal(40, #assert(one:next_batch(100, 0.1, 5)))
    assert.equal(40, #assert(two:next_batch(100, 0.1, 5)))
    local shared = 0
    for _, subscription in ipairs({ three, four }) do
      while subscription:next(0.1) do
        shared = shared + 1
      end
    end
    assert.equal(40, shared)
  end)

  it("matches patterns", function()
    local name = support.name()
    local one = assert(broker:descriptor(name .. ".*"))
    assert.is_true(one.pattern)
    local star, tail = assert(broker:subscribe(one)), assert(broker:subscribe(name .. ".>"))
    for _, subject in ipairs({ ".a", ".a.b", ".c" }) do
      assert(publisher:publish(name .. subject, subject))
    end
    assert.equal(".a .c", texts(assert(star:next_batch(9, 0.1, 5))))
    assert.equal(".a .a.b .c", texts(assert(tail:next_batch(9, 0.1, 5))))
    assert.is_nil(star:address())
    assert.equal("plain", assert(broker:subscribe("plain")):address())
  end)

  it("has no acknowledgement, and says so", function()
    local name = support.name()
    local subscription = assert(broker:subscribe(name))
    assert(publisher:publish(name, "x"))
    local message = assert(subscription:next(5))
    assert.is_nil(broker:capabilities(subscription.descriptor).ack)
    fails("unsupported", message:ack())
    fails("unsupported", message:nack({ requeue = true }))
    fails("unsupported", message:extend())
    fails("unsupported", subscription:seek("start"))
    fails("unsupported", publisher:transaction())
    fails("unsupported", publisher:publish(name, "x", nil, { priority = 1 }))
    assert.is_nil(message.attempts)
  end)

  it("ends waiting on stop, on close and on shutdown", function()
    local one, two, three = assert(broker:subscribe("a")), assert(broker:subscribe("b")), assert(broker:subscribe("c"))
    local results = {}
    for i, subscription in ipairs({ one, two, three }) do
      tasks.spawn(function()
        results[i] = select(2, subscription:next(10)).code
      end)
    end
    tasks.sleep(0.01)
    one:stop()
    two:close()
    assert(broker:shutdown(2))
    eventually(function()
      return results[1] and results[2] and results[3]
    end)
    assert.same({ "stopped", "closed", "closed" }, results)
    fails("closed", three:next(1))
    fails("closed", publisher:publish("a", "x"))
    fails("closed", publisher:request("a", "x", nil, 1))
    fails("closed", publisher:flush(1))
    fails("closed", broker:subscribe("a"))
    fails("closed", broker:connect(1))
    fails("closed", broker:kv("bucket"))
    assert.equal("closed", (broker:state()))
  end)

  it("writes at shutdown what was published before", function()
    local name = support.name()
    local other = support.broker(server)
    local subscription = assert(other:subscribe(name))
    assert(other:publisher():flush(5))
    for i = 1, 1000 do
      assert(publisher:publish(name, tostring(i)))
    end
    assert(broker:shutdown(5))
    for i = 1, 1000 do
      assert.equal(tostring(i), assert(subscription:next(5)).payload)
    end
  end)

  it("publishes a batch in order, with a result for each", function()
    local subscription = assert(broker:subscribe("b.*"))
    local items = {}
    for i = 1, 1000 do
      items[i] = { "b." .. i % 3, tostring(i), i % 100 == 0 and { n = tostring(i) } or nil }
    end
    items[500] = { "b c", "x" }
    local done, err, results = publisher:publish_batch(items)
    assert.is_nil(done)
    assert.equal("invalid", err.code)
    for i = 1, 1000 do
      if i == 500 then
        assert.equal("invalid", results[i].code)
      else
        assert.is_true(results[i])
        local message = assert(subscription:next(5))
        assert.equal(tostring(i), message.payload)
        assert.equal("b." .. i % 3, message.destination)
        assert.equal(i % 100 == 0 and tostring(i) or nil, message.headers.n)
      end
    end
  end)

  it("returns what is there as a batch", function()
    local subscription = assert(broker:subscribe("s"))
    for i = 1, 10 do
      assert(publisher:publish("s", tostring(i)))
    end
    local got = {}
    while #got < 10 do
      local list = assert(subscription:next_batch(4, 0.05, 5))
      assert.is_true(#list <= 4)
      for _, message in ipairs(list) do
        got[#got + 1] = message.payload
      end
    end
    assert.same({ "1", "2", "3", "4", "5", "6", "7", "8", "9", "10" }, got)
    assert.equal(10, subscription:stats().taken)
    fails("timeout", subscription:next_batch(4, 0, 0.01))
  end)

  it("wakes one of several that wait for each message", function()
    local name = support.name()
    local subscription = assert(broker:subscribe(name))
    local got = {}
    for _ = 1, 4 do
      tasks.spawn(function()
        local message = subscription:next(10)
        while message do
          got[#got + 1] = message.payload
          message = subscription:next(10)
        end
      end)
    end
    for i = 1, 100 do
      assert(publisher:publish(name, tostring(i)))
    end
    eventually(function()
      return #got == 100
    end)
  end)

  it("lets a task be cancelled that waits, and loses nothing", function()
    local name = support.name()
    local subscription = assert(broker:subscribe(name))
    local task = tasks.spawn(function()
      return select(2, subscription:next()).code
    end)
    tasks.sleep(0.01)
    task:cancel()
    task:join(5)
    assert(publisher:publish(name, "kept"))
    assert.equal("kept", assert(subscription:next(5)).payload)
  end)
end)

describe("requests of the NATS broker", function()
  local broker, publisher

  support.each_broker(function(own)
    broker = own
    publisher = broker:publisher()
  end)

  local function responder(name, fn)
    local subscription = assert(broker:subscribe(name))
    return tasks.spawn(function()
      local message = subscription:next()
      while message do
        fn(message)
        message = subscription:next()
      end
    end)
  end

  it("returns the answer to each of many at a time", function()
    local name = support.name()
    local held = {}
    responder(name, function(message)
      held[#held + 1] = message
      if #held == 20 then
        for i = 20, 1, -1 do
          assert(publisher:publish(held[i].reply_to, "re:" .. held[i].payload, { n = "v" .. i }))
        end
      end
    end)
    local answers = {}
    tasks.group(function(group)
      for i = 1, 20 do
        group:spawn(function()
          answers[i] = assert(publisher:request(name, tostring(i), nil, 5)).payload
        end)
      end
    end)
    for i = 1, 20 do
      assert.equal("re:" .. i, answers[i])
    end
  end)

  it("says that nobody responds, at once", function()
    fails("no_responders", publisher:request(support.name(), "x", nil, 10))
  end)

  it("times out, and a late answer finds nobody", function()
    local name = support.name()
    local late
    responder(name, function(message)
      if message.payload == "first" then
        late = message.reply_to
      else
        assert(publisher:publish(late, "late"))
        assert(publisher:publish(message.reply_to, "in time"))
      end
    end)
    fails("timeout", publisher:request(name, "first", nil, 0.05))
    assert.equal("in time", assert(publisher:request(name, "second", nil, 5)).payload)
  end)

  it("fails those that wait when the broker is shut down", function()
    local name = support.name()
    responder(name, function() end)
    local task = tasks.spawn(function()
      return select(2, publisher:request(name, "x", nil, 30)).code
    end)
    tasks.sleep(0.02)
    broker:shutdown(2)
    assert.equal("closed", task:join(5))
  end)
end)

describe("a slow consumer of a core subject", function()
  it("keeps what fits, counts the rest, degrades the broker and recovers", function()
    local server = servers.start()
    local broker = support.broker(server)
    local name = support.name()
    local descriptor = assert(nats.subject(name, { messages = 100 }))
    local subscription = assert(broker:subscribe(descriptor))
    local publisher = broker:publisher()
    for i = 1, 1000 do
      assert(publisher:publish(name, tostring(i)))
    end
    local reason = support.until_state(broker, "degraded")
    assert.equal("slow_consumer", reason.code)
    assert(publisher:flush(5))
    local stats = subscription:stats()
    assert.equal(100, stats.queued)
    assert.equal(900, stats.dropped)
    for i = 1, 100 do
      assert.equal(tostring(i), assert(subscription:next(5)).payload)
    end
    fails("timeout", subscription:next(0.02))
    support.until_state(broker, "up")
    assert(publisher:publish(name, "after"))
    assert.equal("after", assert(subscription:next(5)).payload)
    support.shut_down()
    server:stop()
  end)

  it("keeps memory bounded by bytes", function()
    local server = servers.start()
    local broker = support.broker(server)
    local name = support.name()
    local subscription = assert(broker:subscribe({ name = name, bytes = "1 MiB" }))
    local publisher = broker:publisher()
    local payload = ("x"):rep(64 * 1024)
    for _ = 1, 200 do
      assert(publisher:publish(name, payload))
    end
    assert(publisher:flush(10))
    local stats = subscription:stats()
    assert.is_true(stats.queued_bytes <= 1024 * 1024, tostring(stats.queued_bytes))
    assert.equal(200, stats.queued + stats.dropped)
    support.shut_down()
    server:stop()
  end)
end)
