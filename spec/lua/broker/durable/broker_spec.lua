local checkpoint = require("weir.broker.durable.checkpoint")
local durable = require("weir.broker.durable")
local errors = require("weir.errors")
local here = require("spec.lua.durable.support")
local memory = require("spec.lua.support")
local runtime = require("weir.runtime")
local shell = require("spec.house.shell")
local tasks = require("weir.task")

describe("the durable broker", function()
  local server, dir, remove
  local serial = 0
  if not here.reference(function(_, own) server = own end) then
    return
  end

  setup(function()
    dir, remove = shell.scratch()
  end)

  teardown(function()
    remove()
  end)

  -- A name that no other test uses.
  local function name()
    serial = serial + 1
    return "orders." .. serial
  end

  local function open(options)
    options = options or {}
    options.url = options.url or server.url .. "/v1/stream"
    options.checkpoints = options.checkpoints or dir
    local broker = durable.new(options)
    assert(broker:connect(5))
    return broker
  end

  -- Runs in a task, with a broker that is shut down after it.
  local function with(fn, options)
    return function()
      tasks.run(function()
        local broker = open(options)
        fn(broker, broker:publisher(), name())
        broker:shutdown(5)
      end)
    end
  end

  it("delivers payload and headers byte for byte, in order", with(function(broker, publisher, topic)
    local payloads = { "", "text", "\0\255\254", "äöü", ("x"):rep(100000), '{"a": 1}' }
    for i, payload in ipairs(payloads) do
      assert(publisher:publish(topic, payload, { ["content-type"] = "text/plain", n = tostring(i) }))
    end
    local subscription = assert(broker:subscribe(topic))
    for i, payload in ipairs(payloads) do
      local message = assert(subscription:next(5))
      assert.equal(payload, message.payload)
      assert.equal(tostring(i), message.headers.n)
      assert.equal("text/plain", message.headers["content-type"])
      assert.equal(topic, message.destination)
      assert.equal(1, message.attempts)
      assert(message:ack())
    end
  end))

  it("waits for what is published later", with(function(broker, publisher, topic)
    local subscription = assert(broker:subscribe(topic))
    local task = tasks.spawn(function()
      return assert(subscription:next(5)).payload
    end)
    tasks.sleep(0)
    assert(publisher:publish(topic, "late"))
    assert.equal("late", task:join(5))
  end))

  it("delivers again what is nacked, counts it, and delays it", with(function(broker, publisher, topic)
    assert(publisher:publish_batch({ { topic, "a" }, { topic, "b" } }))
    local subscription = assert(broker:subscribe(topic))
    local a = assert(subscription:next(5))
    assert(a:nack({ delay = 0.05 }))
    local b = assert(subscription:next(5))
    assert.equal("b", b.payload)
    assert(b:nack())
    b = assert(subscription:next(5))
    assert.equal(2, b.attempts)
    assert(b:nack({ requeue = false }))
    local before = runtime.now()
    a = assert(subscription:next(5))
    assert.equal("a", a.payload)
    assert.equal(2, a.attempts)
    assert.is_true(runtime.now() - before < 5)
    assert(a:ack())
    assert.equal("timeout", select(2, subscription:next(0.05)).code)
  end))

  it("settles a message once", with(function(broker, publisher, topic)
    assert(publisher:publish(topic, "a"))
    local message = assert(assert(broker:subscribe(topic)):next(5))
    assert(message:extend())
    assert(message:ack())
    for _, method in ipairs({ "ack", "nack", "extend" }) do
      assert.equal("settled", select(2, message[method](message)).code)
    end
  end))

  it("delivers what was not settled after a restart, and nothing else", with(function(broker, publisher, topic)
    for i = 1, 5 do
      assert(publisher:publish(topic, tostring(i)))
    end
    local subscription = assert(broker:subscribe(topic))
    local messages = {}
    for i = 1, 4 do
      messages[i] = assert(subscription:next(5))
    end
    messages[1]:ack()
    messages[2]:nack({ delay = 60 })
    messages[3]:ack()
    broker:shutdown(5)
    assert.equal("closed", select(2, messages[4]:ack()).code)

    local again = open()
    subscription = assert(again:subscribe(topic))
    local seen = {}
    for i = 1, 3 do
      local message = assert(subscription:next(5))
      seen[i] = message.payload .. " attempt " .. message.attempts
      message:ack()
    end
    assert.same({ "2 attempt 2", "4 attempt 1", "5 attempt 1" }, seen)
    again:shutdown(5)
  end))

  it("gives each consumer everything", with(function(broker, publisher, topic)
    assert(publisher:publish(topic, "a"))
    for _, consumer in ipairs({ "one", "two" }) do
      local message = assert(assert(broker:subscribe({ name = topic, consumer = consumer })):next(5))
      assert.equal("a", message.payload)
      message:ack()
    end
  end))

  it("has one subscription for each consumer", with(function(broker, _, topic)
    for _, one in ipairs({ broker, broker:in_process() }) do
      assert(one:connect())
      local first = assert(one:subscribe(topic))
      assert.equal("conflict", select(2, one:subscribe(topic)).code)
      assert(one:subscribe({ name = topic, consumer = "another" }))
      first:close()
      assert(one:subscribe(topic))
    end
  end))

  it("begins with what comes now, where it is told to, also after a restart", with(function(broker, publisher, topic)
    assert(publisher:publish(topic, "old"))
    assert(broker:subscribe({ name = topic, from = "now" }))
    broker:shutdown(5)
    local again = open()
    assert(again:publisher():publish(topic, "new"))
    local subscription = assert(again:subscribe({ name = topic, from = "now" }))
    assert.equal("new", assert(subscription:next(5)).payload)
    again:shutdown(5)
  end))

  it("seeks to the start, the end, and any message", with(function(broker, publisher, topic)
    for i = 1, 3 do
      assert(publisher:publish(topic, tostring(i)))
    end
    local subscription = assert(broker:subscribe(topic))
    subscription:next(5):ack()
    local second = assert(subscription:next(5))
    assert.is_true(subscription:seek("start"))
    assert.equal("1", assert(subscription:next(5)).payload)
    assert.is_true(subscription:seek(second.position))
    assert.equal("2", assert(subscription:next(5)).payload)
    assert.is_true(subscription:seek("end"))
    assert(publisher:publish(topic, "4"))
    assert.equal("4", assert(subscription:next(5)).payload)
    local ok, err = subscription:seek("no position")
    assert.is_nil(ok)
    assert.equal("invalid_offset", err.code)
  end))

  it("reads no more than its prefetch ahead of what is settled", with(function(broker, publisher, topic)
    local items = {}
    for i = 1, 100 do
      items[i] = { topic, tostring(i) }
    end
    assert(publisher:publish_batch(items))
    local subscription = assert(broker:subscribe({ name = topic, prefetch = 10 }))
    local taken = {}
    for i = 1, 10 do
      taken[i] = assert(subscription:next(5))
    end
    assert.equal("timeout", select(2, subscription:next(0.05)).code)
    taken[1]:ack()
    assert.equal("11", assert(subscription:next(5)).payload)
  end))

  it("opens one of two subscriptions of a consumer that are asked for at once", with(function(broker, _, topic)
    local one = tasks.spawn(broker.subscribe, broker, topic)
    local two = tasks.spawn(broker.subscribe, broker, topic)
    assert(one:join(5))
    assert.equal("conflict", select(2, two:join(5)).code)
  end))

  it("opens no subscription after it was shut down, nor seeks in one that was closed", with(function(broker, _, topic)
    local subscription = assert(broker:subscribe(topic .. ".other"))
    local opening = tasks.spawn(broker.subscribe, broker, topic)
    local seeking = tasks.spawn(subscription.seek, subscription, "start")
    tasks.sleep(0)
    assert(broker:shutdown(5))
    local opened = opening:join(5) -- nothing, or one that was quick and is closed by now
    assert.is_true(opened == nil or opened.state == "closed")
    assert.equal("closed", select(2, seeking:join(5)).code)
    assert.is_nil(next(broker.subscriptions))
    assert.is_nil(subscription.reader)
  end))

  it("does not seek once it was stopped", with(function(broker, _, topic)
    local subscription = assert(broker:subscribe(topic))
    subscription:stop()
    assert.equal("stopped", select(2, subscription:seek("start")).code)
    assert.is_nil(subscription.reader)
  end))

  it("flushes while others publish to new streams", with(function(_, publisher, topic)
    local list = {}
    for i = 1, 40 do
      list[i] = tasks.spawn(function()
        for n = 1, 3 do
          assert(publisher:publish(("%s.%d.%d"):format(topic, i, n), "x"))
          assert(publisher:flush(5))
        end
      end)
    end
    for _, task in ipairs(list) do
      task:join(20)
    end
  end))

  it("refuses sizes of batches and names of consumers that cannot be", with(function(broker, _, topic)
    local subscription = assert(broker:subscribe(topic))
    for _, max in ipairs({ 0, 1.5, 0 / 0, "3" }) do
      assert.has_error(function()
        subscription:next_batch(max)
      end)
    end
    -- "a@b" of "c" and "a" of "b@c" would share a position
    assert.equal("invalid", select(2, broker:descriptor({ name = topic, consumer = "b@c" })).code)
  end))

  it("reads a checkpoint of any size", function()
    tasks.run(function()
      local files = assert(checkpoint.files(dir))
      local text = ("x"):rep(3 * 1024 * 1024 + 1)
      assert(files:save("large", text))
      assert.equal(#text, #assert(files:load("large")))
    end)
  end)

  it("takes batches", with(function(broker, publisher, topic)
    local items = {}
    for i = 1, 10 do
      items[i] = { topic, tostring(i) }
    end
    assert(publisher:publish_batch(items))
    local subscription = assert(broker:subscribe(topic))
    local count = 0
    while count < 10 do
      local batch = assert(subscription:next_batch(3, 0.01, 5))
      assert.is_true(#batch >= 1 and #batch <= 3)
      for _, message in ipairs(batch) do
        count = count + 1
        assert.equal(tostring(count), message.payload)
        message:ack()
      end
    end
  end))

  it("stops those who wait, and keeps what was taken settleable", with(function(broker, publisher, topic)
    assert(publisher:publish(topic, "a"))
    local subscription = assert(broker:subscribe(topic))
    local message = assert(subscription:next(5))
    local waiting = tasks.spawn(function()
      return subscription:next(5)
    end)
    tasks.sleep(0)
    subscription:stop()
    assert.equal("stopped", select(2, waiting:join(5)).code)
    assert.is_true(message:ack())
    assert.is_true(subscription:close(5))
    assert.equal("closed", select(2, subscription:next(1)).code)
  end))

  it("reads what others appended, as it is", with(function(broker, _, topic)
    local stream = broker.client:stream("/" .. topic, { codec = "json", content_type = "application/json" })
    assert(stream:create())
    assert(stream:append({ hello = "world" }))
    assert(stream:append({ text = 7 }))
    local subscription = assert(broker:subscribe(topic))
    assert.equal('{"hello":"world"}', assert(subscription:next(5)).payload)
    assert.equal('{"text":7}', assert(subscription:next(5)).payload)
  end))

  it("browses a stream without consuming it", with(function(broker, publisher, topic)
    for i = 1, 3 do
      assert(publisher:publish(topic, tostring(i), { n = tostring(i) }))
    end
    local list = assert(broker:browse(topic, 2))
    assert.equal(2, #list)
    assert.equal("1", list[1].payload)
    assert.equal("2", list[2].headers.n)
    assert.equal("1", assert(assert(broker:subscribe(topic)):next(5)).payload)
  end))

  it("browses one after the other, and holds a part of the stream", with(function(broker, publisher, topic)
    for i = 1, 200 do
      assert(publisher:publish(topic, tostring(i) .. ("x"):rep(256 * 1024)))
    end
    local cursor = assert(broker:cursor(topic))
    local before, most = memory.kept(), 0
    for i = 1, 200 do
      assert.equal(tostring(i), assert(cursor:next(5)).payload:match("^%d+"))
      most = math.max(most, memory.kept() - before)
    end
    assert.is_true(most < 16 * 1024 * 1024, most)
    assert.same({}, { cursor:next(5) })
    cursor:close()
  end))

  it("publishes what was not confirmed once, through a server that is killed", function()
    tasks.run(function()
      local files, remove_files = shell.scratch()
      local own = here.server({ dir = files })
      local broker = open({ url = own.url .. "/v1/stream", retry = { initial = 0.02, max = 0.1 } })
      local publisher, topic = broker:publisher(), name()
      assert(publisher:publish(topic, "before"))
      local subscription = assert(broker:subscribe(topic))
      assert(subscription:next(5)):ack()
      own:stop()
      local publishing = tasks.spawn(function()
        return publisher:publish(topic, "during")
      end)
      here.await(function()
        return broker:state() == "degraded"
      end)
      own = here.server({ dir = files, port = own.port })
      assert(publishing:join(20))
      local message = assert(subscription:next(20))
      assert.equal("during", message.payload)
      message:ack()
      assert.equal("up", (broker:state()))
      assert.equal("timeout", select(2, subscription:next(0.05)).code)
      broker:shutdown(5)
      own:stop()
      remove_files()
    end)
  end)

  it("says that a publish was not confirmed in time", function()
    tasks.run(function()
      local own = here.server()
      local broker = open({ url = own.url .. "/v1/stream", timeout = 0.2 })
      local topic = name()
      assert(broker:publisher():publish(topic, "a"))
      own:stop()
      local ok, err = broker:publisher():publish(topic, "b")
      assert.is_nil(ok)
      assert.equal("timeout", err.code)
      assert.matches("may still arrive", err.message)
      broker:shutdown(0.1)
    end)
  end)

  it("reports a server that is not there, and one that lets nobody in", function()
    tasks.run(function()
      local broker = durable.new({ url = "http://127.0.0.1:1/x", retry = { max_retries = 0 } })
      local ok, err = broker:connect(2)
      assert.is_nil(ok)
      assert.is_true(errors.is(err))
      assert.equal("failed", (broker:state()))
      assert.equal("disconnected", select(2, broker:subscribe("x")).code)
    end)
  end)

  it("asks once for a server when it connects, and says what that said", function()
    tasks.run(function()
      local script = here.script(function()
        return here.answer(503)
      end)
      local broker = durable.new({ url = script.url })
      local ok, err = broker:connect(30)
      assert.is_nil(ok)
      assert.equal(503, err.status)
      assert.equal(1, #script.requests)
      broker:shutdown(0.1)
      script:close()
    end)
  end)

  it("refuses what it cannot do, and does nothing after its end", with(function(broker, publisher, topic)
    for _, call in ipairs({
      function()
        return publisher:request(topic, "x")
      end,
      function()
        return publisher:transaction()
      end,
      function()
        return publisher:publish(topic, "x", nil, { priority = 1 })
      end,
      function()
        return publisher:publish(topic, "x", { n = "\255" })
      end,
    }) do
      assert.equal("unsupported", select(2, call()).code)
    end
    assert.equal("too_large", select(2, publisher:publish(topic, ("x"):rep(9 * 1024 * 1024))).code)
    local subscription = assert(broker:subscribe(topic))
    assert(broker:shutdown(5))
    assert.equal("closed", select(2, publisher:publish(topic, "x")).code)
    assert.equal("closed", select(2, publisher:publish_batch({ { topic, "x" } })).code)
    assert.equal("closed", select(2, publisher:flush()).code)
    assert.equal("closed", select(2, broker:subscribe(topic)).code)
    assert.equal("closed", select(2, broker:connect()).code)
    assert.equal("closed", select(2, subscription:next(1)).code)
    assert.equal("closed", (broker:state()))
  end))

  it("names what is wrong with options and descriptors", function()
    assert.error_matches(function()
      durable.new({})
    end, "option 'url'")
    assert.error_matches(function()
      durable.new({ url = "http://h", checkpoint = "x" })
    end, "did you mean 'checkpoints'")
    local broker = durable.new({ url = "http://h.example/x", headers = { Authorization = "Bearer secret" } })
    for spec, message in pairs({
      ["orders.*"] = "no patterns",
      [{ name = "a", live = "yes" }] = "'live' must be",
      [{ consumer = "x" }] = "a name is missing",
      [{ name = "a", prefetch = 0 }] = "at least 1",
      [{ name = "a", grp = 1 }] = "unknown option 'grp'",
    }) do
      local descriptor, err = broker:descriptor(spec)
      assert.is_nil(descriptor)
      assert.matches(message, err.message)
    end
    assert.is_nil(tostring(broker):find("secret"))
    assert.same({ protocol = "http", host = "h.example", pathname = "/x", security = "http_bearer" }, broker:describe())
  end)

  it("reports a checkpoint that is none, and one that cannot be written", with(function(broker, publisher, topic)
    local file = assert(io.open(("%s/%s%%40weir.json"):format(dir, topic), "w"))
    file:write("nonsense")
    file:close()
    local subscription, err = broker:subscribe(topic)
    assert.is_nil(subscription)
    assert.equal("damaged", err.code)

    local failing = open({ checkpoints = {
      load = function() end,
      save = function()
        return nil, errors.new("io", "the disk is full")
      end,
    } })
    assert(publisher:publish(topic, "a"))
    subscription = assert(failing:subscribe(topic))
    assert(subscription:next(5):ack())
    local ok
    ok, err = subscription:close(5)
    assert.is_nil(ok)
    assert.equal("io", err.code)
    failing:shutdown(5)
  end))
end)
