local helper = require("spec.lua.broker.memory.support")
local memory = require("weir.broker.memory")
local support = require("spec.lua.support")
local tasks = require("weir.task")

local drain, fails, publish = helper.drain, support.fails, helper.publish

describe("a publisher of the memory broker", function()
  local broker, publisher

  before_each(function()
    broker = helper.broker({ max_payload = "1 KiB", retention = { messages = 10, topics = 1000 } })
    publisher = broker:publisher()
  end)

  after_each(function()
    broker:shutdown()
  end)

  it("refuses what is too large, exactly from there on", function()
    local subscription = broker:subscribe("a")
    assert(publisher:publish("a", ("x"):rep(1024)))
    assert(publisher:publish("a", ("x"):rep(1000), { abcdefgh = ("y"):rep(16) }))
    fails("too_large", publisher:publish("a", ("x"):rep(1025)))
    fails("too_large", publisher:publish("a", ("x"):rep(1000), { abcdefgh = ("y"):rep(17) }))
    fails("too_large", publisher:publish("nobody", ("x"):rep(1025)))
    assert.equal(2, subscription:stats().queued)
  end)

  it("refuses names that are none, as messages may bring them", function()
    for _, name in ipairs({ "", "a..b", "a.*", ">", ("x"):rep(1025) }) do
      fails("invalid", publisher:publish(name, "x"))
    end
  end)

  it("raises for what only a wrong program passes", function()
    broker:subscribe("a")
    for _, arguments in ipairs({
      { nil, "x" },
      { "a", nil },
      { "a", {} },
      { "a", 5 },
      { "a", "x", "headers" },
      { "a", "x", { 1 } },
      { "a", "x", { x = 1 } },
      { "a", "x", nil, "options" },
      { "a", "x", nil, { timeout = -1 } },
    }) do
      assert.has_error(function()
        publisher:publish(arguments[1], arguments[2], arguments[3], arguments[4])
      end)
    end
    assert.has_error(function()
      broker:publisher({ timeuot = 1 })
    end)
  end)

  it("says which options it does not have, and does not publish then", function()
    local subscription = broker:subscribe("a")
    assert.matches("'ttl'", fails("unsupported", publisher:publish("a", "x", nil, { ttl = 1 })).message)
    assert.is_nil(subscription:try_next())
  end)

  it("publishes a batch with a result for each", function()
    local subscription = broker:subscribe("a")
    local ok, err, results = publisher:publish_batch({
      { "a", "1" },
      { "a", ("x"):rep(2000) },
      { "a", "2", { k = "v" } },
      { "a..", "x" },
    })
    assert.is_nil(ok)
    assert.equal("too_large", err.code)
    assert.is_true(results[1])
    assert.equal(err, results[2])
    assert.is_true(results[3])
    assert.equal("invalid", results[4].code)
    assert.equal("1 2", drain(subscription))
    ok, err, results = publisher:publish_batch({ { "a", "3" } })
    assert.same({ true, true }, { ok, results[1] })
    assert.is_nil(err)
    assert.is_true(publisher:flush())
  end)

  describe("asks and", function()
    local function serve(answer)
      local subscription = broker:subscribe(memory.topic("service", { group = "g" }))
      tasks.spawn(function()
        while true do
          local message = subscription:next()
          if not message then
            return
          end
          answer(message)
          message:ack()
        end
      end)
      return subscription
    end

    it("gets the reply", function()
      serve(function(message)
        publisher:publish(message.reply_to, message.payload .. "!", { ["correlation-id"] = message.headers.id })
      end)
      local reply = assert(publisher:request("service", "hello", { id = "7" }, 5))
      assert.equal("hello!", reply.payload)
      assert.equal("7", reply.headers["correlation-id"])
      fails("unsupported", reply:ack())
      fails("unsupported", reply:nack())
    end)

    it("tells at once that nobody is there", function()
      fails("no_responders", publisher:request("service", "hello"))
      assert.is_true(broker:declare("service"))
      fails("no_responders", publisher:request("service", "hello"))
    end)

    it("never takes a late reply for another's", function()
      local late = {}
      local service = broker:subscribe("service")
      fails("timeout", publisher:request("service", "1", nil, 0.01))
      late[1] = service:next(1).reply_to
      local task = tasks.spawn(publisher.request, publisher, "service", "2", nil, 5)
      local message = service:next(5)
      assert(publisher:publish(late[1], "late"))
      assert.equal("running", task:status())
      assert(publisher:publish(message.reply_to, "right"))
      assert(publisher:publish(message.reply_to, "twice"))
      assert.equal("right", task:join(5).payload)
      assert.equal(0, broker:stats().inboxes)
    end)

    it("gets the reply whoever else listens to everything, and nobody else does", function()
      local all = broker:subscribe(memory.topic(">", { overflow = "reject", capacity = { messages = 1 } }))
      local task = tasks.spawn(publisher.request, publisher, "service", "hello", nil, 5)
      tasks.sleep(0)
      local message = all:next(5)
      for _ = 1, 3 do
        assert(publisher:publish(message.reply_to, "hello!"))
      end
      assert.equal("hello!", task:join(5).payload)
      message:ack()
      assert.is_nil(all:try_next())
      assert.equal(1, broker:stats().names)
      fails("no_responders", publisher:request(message.reply_to, "hello"))
      assert(publisher:publish(message.reply_to, "late"))
      assert.is_nil(all:try_next())
    end)

    it("leaves no inbox behind when it is asked for nonsense", function()
      serve(function() end)
      assert.has_error(function()
        publisher:request("service", "hello", { id = 7 }, 5)
      end)
      assert.has_error(function()
        publisher:request("service", {}, nil, 5)
      end)
      assert.equal(0, broker:stats().inboxes)
    end)

    it("has each of many get its own, whatever the order", function()
      local service, list = broker:subscribe("service"), {}
      for i = 1, 20 do
        list[i] = tasks.spawn(publisher.request, publisher, "service", tostring(i), nil, 5)
      end
      local requests = {}
      for i = 1, 20 do
        requests[i] = service:next(5)
      end
      for i = 20, 1, -1 do
        publisher:publish(requests[i].reply_to, requests[i].payload)
      end
      for i = 1, 20 do
        assert.equal(tostring(i), list[i]:join(5).payload)
      end
    end)

    it("ends with a shutdown, and with a cancellation", function()
      broker:subscribe("service")
      local one = tasks.spawn(publisher.request, publisher, "service", "1")
      local two = tasks.spawn(publisher.request, publisher, "service", "2")
      tasks.sleep(0)
      one:cancel()
      fails("cancelled", one:join(5))
      broker:shutdown()
      fails("closed", two:join(5))
      fails("closed", publisher:request("service", "3"))
    end)

    it("leaves nothing behind of 100,000 inboxes and names", function()
      local service = broker:subscribe("service")
      local all = broker:subscribe(memory.topic("log.>", { overflow = "drop_oldest", capacity = { messages = 1 } }))
      local function round(from, to)
        for i = from, to do
          fails("timeout", publisher:request("service", "x", nil, 0))
          local message = service:next(1)
          assert(publisher:publish(message.reply_to, "late"))
          message:ack()
          for n = 1, 4 do
            assert(publisher:publish(("_INBOX.%d.%d"):format(i, n), "x"))
          end
          assert(publisher:publish("nobody." .. i, "x"))
          assert(publisher:publish("log." .. i, "x"))
        end
        collectgarbage()
        collectgarbage()
        return collectgarbage("count")
      end
      local before = round(1, 4000)
      local after = round(4001, 20000)
      assert.is_true(after - before < 2048, ("%.0f KiB more"):format(after - before))
      local stats = broker:stats()
      assert.equal(0, stats.inboxes)
      assert.is_true(stats.names <= 4096)
      assert.is_true(stats.retained.topics <= 1000)
      all:close()
    end)
  end)

  describe("has transactions that", function()
    it("show nothing before the commit, then all in order", function()
      local one, two = broker:subscribe("a"), broker:subscribe("b")
      local transaction = publisher:transaction()
      assert(transaction:publish("a", "1"))
      assert(transaction:publish("b", "2"))
      assert(transaction:publish("a", "3"))
      publish(publisher, "a", "direct")
      assert.equal("direct", drain(one))
      assert.is_true(transaction:commit())
      assert.equal("1 3", drain(one))
      assert.equal("2", drain(two))
      fails("no_transaction", transaction:publish("a", "x"))
      fails("no_transaction", transaction:commit())
      fails("no_transaction", transaction:abort())
    end)

    it("are forgotten by abort, and when they are left", function()
      local subscription = broker:subscribe("a")
      local transaction = publisher:transaction()
      transaction:publish("a", "1")
      assert.is_true(transaction:abort())
      fails("no_transaction", transaction:commit())
      do
        local left <close> = publisher:transaction()
        left:publish("a", "2")
      end
      assert.equal("", drain(subscription))
    end)

    it("are independent of each other", function()
      local subscription = broker:subscribe("a")
      local one, two = publisher:transaction(), publisher:transaction()
      one:publish("a", "1")
      two:publish("a", "2")
      one:publish("a", "3")
      two:commit()
      one:commit()
      assert.equal("2 1 3", drain(subscription))
      assert.is_true(publisher:transaction():commit())
    end)

    it("publish all or nothing where a queue rejects", function()
      local plain = broker:subscribe("a")
      local full = broker:subscribe(memory.topic("b", { overflow = "reject", capacity = { messages = 2 } }))
      publish(publisher, "b", "0")
      local transaction = publisher:transaction()
      for i = 1, 2 do
        transaction:publish("a", tostring(i))
        transaction:publish("b", tostring(i))
      end
      fails("full", transaction:commit())
      fails("no_transaction", transaction:commit())
      assert.equal("", drain(plain))
      assert.equal("0", drain(full))
    end)

    it("wait for room, and when they are larger than the queue, for an empty one", function()
      local subscription = broker:subscribe(memory.topic("a", { capacity = { messages = 2 } }))
      publish(publisher, "a", "0")
      local transaction = publisher:transaction()
      for i = 1, 5 do
        transaction:publish("a", tostring(i))
      end
      local task = tasks.spawn(transaction.commit, transaction, 5)
      tasks.sleep(0)
      assert.equal("running", task:status())
      assert.equal("0", drain(subscription))
      assert.is_true(task:join(5))
      assert.equal("1 2 3 4 5", drain(subscription))
    end)

    it("check what they are given at once", function()
      local transaction = publisher:transaction()
      fails("too_large", transaction:publish("a", ("x"):rep(2000)))
      fails("invalid", transaction:publish("a..b", "x"))
      fails("unsupported", transaction:publish("a", "x", nil, { ttl = 1 }))
      assert.has_error(function()
        transaction:publish("a", 1)
      end)
    end)
  end)
end)
