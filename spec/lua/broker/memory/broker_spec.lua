local contract = require("weir.broker.contract")
local helper = require("spec.lua.broker.memory.support")
local memory = require("weir.broker.memory")
local new_clock = require("weir.test.clock")
local support = require("spec.lua.support")
local tasks = require("weir.task")

local drain, fails, publish = helper.drain, support.fails, helper.publish

describe("the memory broker", function()
  it("fulfils the contract, and claims everything but what it was not configured for", function()
    local broker = memory.new()
    assert.equal(broker, contract.check(broker))
    local claimed = broker:capabilities()
    for name in pairs(contract.capabilities) do
      assert.equal(name ~= "seek" and name ~= "persist", claimed[name] == true, name)
    end
    assert.is_true(memory.new({ retention = { messages = 1 } }):capabilities().seek)
    local durable = memory.new({ dir = "/nowhere" })
    assert.is_true(durable:capabilities(memory.topic("a", { group = "g" })).persist)
    assert.is_true(durable:capabilities("a").persist)
    assert.is_nil(durable:capabilities(memory.topic("a")).persist)
    assert.equal("memory", broker:describe().protocol)
  end)

  it("has to be connected before it is used, then goes through its states", function()
    local broker, seen = memory.new(), {}
    local publisher = broker:publisher()
    broker:watch(function(state)
      seen[#seen + 1] = state
    end)
    assert.equal("new", (broker:state()))
    fails("disconnected", publisher:publish("a", "x"))
    fails("disconnected", broker:subscribe("a"))
    assert.is_true(broker:connect())
    assert.is_true(broker:connect())
    assert.is_true(publisher:publish("a", "x"))
    assert.is_true(broker:shutdown())
    assert.is_true(broker:shutdown())
    assert.same({ "up", "closed" }, seen)
    assert.equal("weir.memory.broker(closed)", tostring(broker))
  end)

  it("gives \"closed\" for everything after shutdown, and wakes who waits", function()
    local broker = helper.broker({ retention = { messages = 5 } })
    local publisher, subscription = broker:publisher(), broker:subscribe("a")
    local full = broker:subscribe(memory.topic("b", { capacity = { messages = 1 } }))
    local idle = broker:subscribe("c")
    publish(publisher, "a", "1 2")
    publish(publisher, "b", "1")
    local message, transaction = subscription:next(1), publisher:transaction()
    transaction:publish("a", "x")
    local waiting = {
      tasks.spawn(idle.next, idle),
      tasks.spawn(publisher.publish, publisher, "b", "2"),
      tasks.spawn(idle.next_batch, idle, 5, 100),
    }
    tasks.sleep(0)
    broker:shutdown()
    for _, task in ipairs(waiting) do
      fails("closed", task:join(5))
    end
    fails("closed", publisher:publish("a", "x"))
    fails("closed", publisher:publish("other", "x", { a = "b" }))
    fails("closed", publisher:request("a", "x"))
    fails("closed", publisher:transaction())
    fails("closed", publisher:flush())
    fails("closed", broker:publisher():publish("a", "x"))
    fails("closed", transaction:publish("a", "x"))
    fails("closed", transaction:commit())
    fails("closed", message:ack())
    fails("closed", message:nack())
    fails("closed", message:extend())
    fails("closed", subscription:next(1))
    fails("closed", subscription:try_next())
    fails("closed", subscription:next_batch(5))
    fails("closed", subscription:seek("start"))
    fails("closed", broker:subscribe("a"))
    fails("closed", broker:declare("a"))
    fails("closed", broker:browse("a"))
    fails("closed", broker:cursor("a"))
    fails("closed", broker:connect())
    assert.is_true(subscription:stop())
    assert.is_true(full:close())
    assert.equal(0, broker:pending())
    assert.equal(0, broker.clock.pending())
  end)

  it("lists everything that is wrong with a descriptor", function()
    local broker = memory.new()
    local err = fails("invalid", broker:descriptor({
      name = "a..b",
      gruop = "g",
      prefetch = 0,
      overflow = "explode",
      capacity = { messages = 0 },
      ack_wait = -1,
      from = "yesterday",
      durable = true,
    }))
    local parts = { "empty", "mean 'group'", "prefetch", "overflow", "capacity", "ack_wait", "from", "'durable' needs" }
    for _, part in ipairs(parts) do
      assert.matches(part, err.message, 1, true)
    end
    assert.equal(8, #err.problems)
    fails("invalid", broker:descriptor({}))
    fails("invalid", broker:descriptor(5))
    assert.has_error(function()
      memory.topic("a", { prefetch = "x" })
    end)
    assert.has_error(function()
      memory.topic()
    end)
    local good = memory.topic("a.*", { group = "g" })
    assert.equal(good, broker:descriptor(good))
    assert.is_true(good.pattern)
    assert.equal("memory topic 'a.*' of group 'g'", tostring(good))
  end)

  it("raises for options that it does not have", function()
    for _, options in ipairs({
      { durable = true },
      { max_payload = "x" },
      { capacity = { messages = -1 } },
      { store = {} },
    }) do
      assert.has_error(function()
        memory.new(options)
      end)
    end
  end)

  it("makes another of itself for tests, which shares nothing", function()
    local broker = helper.broker({ capacity = { messages = 2 } })
    local clock = new_clock()
    local twin = broker:in_process(clock)
    assert.equal(clock, twin.clock)
    twin:connect()
    local mine, its = broker:subscribe("a"), twin:subscribe("a")
    publish(twin:publisher(), "a", "1 2")
    fails("timeout", twin:publisher():publish("a", "3", nil, { timeout = 0 }))
    assert.equal("", drain(mine))
    assert.equal("1 2", drain(its))
    twin:shutdown()
    assert.equal("up", (broker:state()))
    broker:shutdown()
  end)

  it("shows what waits without taking it", function()
    local broker, clock = helper.broker({ retention = { messages = 5 } })
    local publisher = broker:publisher()
    broker:declare(memory.topic("dead", { group = "one" }))
    broker:declare(memory.topic("dead", { group = "two" }))
    assert(publisher:publish("dead", "1", { why = "x" }))
    publish(publisher, "dead", "2 3")
    local subscription = broker:subscribe(memory.topic("dead", { group = "one" }))
    subscription:next(1):nack({ delay = 5 })
    local list = broker:browse("dead")
    assert.equal(3, #list)
    assert.equal("1", list[1].payload)
    assert.equal("x", list[1].headers.why)
    fails("unsupported", list[1]:ack())
    local cursor = assert(broker:cursor("dead"))
    for i = 1, 3 do
      assert.equal(tostring(i), assert(cursor:next()).payload)
    end
    assert.is_nil(cursor:next())
    cursor:close()
    assert.equal(2, #broker:browse("dead", 2))
    assert.equal(0, #broker:browse("other"))
    publish(publisher, "kept", "4")
    assert.equal("4", broker:browse("kept")[1].payload)
    clock.advance(5)
    assert.equal("1 2 3", drain(subscription))
    broker:shutdown()
  end)

  it("puts subscriptions by bare name in the group that it is given", function()
    local broker = helper.broker({ group = "g" })
    local one, two = broker:subscribe("a"), broker:subscribe("a")
    publish(broker:publisher(), "a", "1 2")
    assert.equal("1 2", drain(one) .. drain(two))
    broker:shutdown()
  end)

  it("leaves nothing behind of subscriptions that were closed", function()
    local broker = helper.broker()
    local publisher = broker:publisher()
    for i = 1, 1000 do
      local subscription = broker:subscribe(i % 2 == 0 and "a" or memory.topic("a." .. i .. ".*", { group = "g" }))
      publish(publisher, "a", "1")
      publish(publisher, "a." .. i .. ".x", "1")
      subscription:next(1)
      subscription:close()
    end
    local stats = broker:stats()
    assert.same({ 0, 0, 0, 0 }, { stats.queues, stats.subscriptions, stats.held, stats.bytes })
    assert.is_nil(next(broker.engine.exact))
    assert.same({}, broker.engine.patterns)
    broker:shutdown()
  end)
end)
