local helper = require("spec.lua.broker.memory.support")
local memory = require("weir.broker.memory")
local support = require("spec.lua.support")
local tasks = require("weir.task")

local drain, fails, publish = helper.drain, support.fails, helper.publish

describe("a full queue of the memory broker", function()
  local broker, publisher

  before_each(function()
    broker = helper.broker()
    publisher = broker:publisher()
  end)

  after_each(function()
    broker:shutdown()
  end)

  local function subscribe(overflow, messages, bytes)
    return broker:subscribe(memory.topic("a", {
      overflow = overflow,
      capacity = { messages = messages, bytes = bytes },
    }))
  end

  it("makes publishers wait until something is settled", function()
    local subscription, sent = subscribe(nil, 3), 0
    local task = tasks.spawn(function()
      for i = 1, 100 do
        assert(publisher:publish("a", tostring(i)))
        sent = i
      end
    end)
    tasks.sleep(0)
    assert.equal(3, sent)
    local held = subscription:next(1)
    tasks.sleep(0)
    assert.equal(3, sent) -- taken is not settled
    held:ack()
    for i = 2, 100 do
      local message = assert(subscription:next(5))
      assert.equal(tostring(i), message.payload)
      assert.is_true(subscription:stats().held <= 3)
      message:ack()
    end
    task:join(5)
  end)

  it("has a time limit for that, of the publish or of the publisher", function()
    local subscription = subscribe(nil, 1)
    publish(publisher, "a", "1")
    fails("timeout", publisher:publish("a", "2", nil, { timeout = 0.01 }))
    fails("timeout", broker:publisher({ timeout = 0.01 }):publish("a", "2"))
    assert.equal("1", drain(subscription))
    assert.equal(0, subscription.queue.senders.count)
  end)

  it("lets waiting publishers go on when the subscription goes or the task is cancelled", function()
    local subscription = subscribe(nil, 1)
    publish(publisher, "a", "1")
    local one = tasks.spawn(publisher.publish, publisher, "a", "2")
    local two = tasks.spawn(publisher.publish, publisher, "a", "3")
    tasks.sleep(0)
    one:cancel()
    fails("cancelled", one:join(5))
    subscription:close()
    assert.is_true(two:join(5))
  end)

  it("lets them go on when a new first member of the group raises its capacity", function()
    local function spec(messages)
      return memory.topic("a", { group = "g", durable = true, capacity = { messages = messages } })
    end
    assert.is_true(broker:declare(spec(1)))
    publish(publisher, "a", "1")
    local task = tasks.spawn(publisher.publish, publisher, "a", "2")
    tasks.sleep(0)
    local subscription = broker:subscribe(spec(2))
    assert.is_true(task:join(5))
    assert.equal("1 2", drain(subscription))
  end)

  it("goes the short way again once nobody waits for room", function()
    local subscription = subscribe(nil, 1)
    publish(publisher, "a", "1")
    fails("timeout", publisher:publish("a", "2", nil, { timeout = 0.01 }))
    local told = 0
    local discard = subscription.queue.discard
    subscription.queue.discard = function(...)
      told = told + 1
      return discard(...)
    end
    assert.equal("1", drain(subscription))
    assert.equal(0, told)
  end)

  it("waits for the slowest of those that wait, and keeps order", function()
    local fast, slow = broker:subscribe("a"), subscribe(nil, 1)
    publish(publisher, "a", "1")
    local task = tasks.spawn(function()
      publish(publisher, "a", "2 3")
    end)
    tasks.sleep(0)
    assert.equal("1", drain(fast))
    assert.equal("1", drain(slow))
    assert.equal("2", slow:next(5).payload)
    assert.equal("2", drain(fast))
    fails("timeout", fast:next(0.01))
    slow:close()
    task:join(5)
    assert.equal("3", drain(fast))
  end)

  it("rejects, and then nobody gets the message", function()
    local other, subscription = broker:subscribe("a"), subscribe("reject", 2)
    publish(publisher, "a", "1 2")
    assert.matches("2 messages", fails("full", publisher:publish("a", "3")).message)
    assert.equal("1 2", drain(other))
    assert.equal("1 2", drain(subscription))
    publish(publisher, "a", "4")
  end)

  it("drops the oldest that waits", function()
    local subscription = subscribe("drop_oldest", 3)
    publish(publisher, "a", "1 2 3 4 5")
    assert.equal(2, subscription:stats().dropped)
    assert.equal("3 4 5", drain(subscription))
    publish(publisher, "a", "1 2 3")
    local held = { subscription:next(1), subscription:next(1), subscription:next(1) }
    publish(publisher, "a", "4") -- what is taken cannot be dropped
    assert.equal("", drain(subscription))
    assert.is_true(held[1]:ack())
  end)

  it("drops the newest", function()
    local subscription = subscribe("drop_newest", 3)
    publish(publisher, "a", "1 2 3 4 5")
    assert.equal("1 2 3", drain(subscription))
    assert.equal(2, subscription:stats().dropped)
  end)

  it("counts bytes, headers included", function()
    local subscription = subscribe("reject", 100, 100)
    assert(publisher:publish("a", ("x"):rep(90), { ab = "cdefgh" }))
    assert.equal(98, subscription:stats().bytes)
    assert(publisher:publish("a", "xx"))
    fails("full", publisher:publish("a", "x"))
    drain(subscription)
    fails("too_large", publisher:publish("a", ("x"):rep(101)))
    local drops = subscribe("drop_oldest", 100, 10)
    subscription:close()
    publish(publisher, "a", "1234567890 123456789 12")
    assert.equal("12", drain(drops))
    assert(publisher:publish("a", ("x"):rep(11)))
    assert.equal(2 + 1, drops:stats().dropped)
    assert.equal(0, drops:stats().bytes)
  end)

  it("keeps its bound with a consumer that never settles anything", function()
    local subscription = broker:subscribe("a")
    local sent = 0
    local task = tasks.spawn(function()
      while publisher:publish("a", "x") do
        sent = sent + 1
      end
    end)
    local taken = 0
    while subscription:next(0.05) do
      taken = taken + 1
    end
    assert.equal(10000, sent)
    assert.equal(10000, taken)
    broker:shutdown()
    task:join(5)
  end)

  it("takes back what is given back even when it is full", function()
    local subscription = subscribe("reject", 2)
    publish(publisher, "a", "1 2")
    subscription:next(1):nack()
    assert.equal("1 2", drain(subscription))
  end)

  it("goes through many sizes without losing one", function()
    local subscription, sent, got = subscribe("reject", 5000), 0, 0
    for round = 1, 60 do
      for _ = 1, (round * 37) % 400 do
        sent = sent + 1
        assert(publisher:publish("a", tostring(sent)))
      end
      for _ = 1, (round * 53) % 380 do
        local message = subscription:try_next()
        if not message then
          break
        end
        got = got + 1
        assert.equal(tostring(got), message.payload)
        message:ack()
      end
    end
    local _, words = drain(subscription):gsub("%S+", "")
    assert.equal(sent, got + words)
  end)
end)
