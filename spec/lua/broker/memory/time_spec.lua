local helper = require("spec.lua.broker.memory.support")
local memory = require("weir.broker.memory")
local support = require("spec.lua.support")
local tasks = require("weir.task")

local drain, fails, publish = helper.drain, support.fails, helper.publish

describe("the memory broker by its clock", function()
  local broker, clock, publisher

  before_each(function()
    broker, clock = helper.broker()
    publisher = broker:publisher()
  end)

  after_each(function()
    broker:shutdown()
  end)

  it("brings back what is delayed then, and not before", function()
    local subscription = broker:subscribe("a")
    publish(publisher, "a", "1 2 3")
    subscription:next(1):nack({ delay = 2 })
    subscription:next(1):nack({ delay = 1 })
    assert.equal("3", drain(subscription))
    assert.equal(2, subscription:stats().delayed)
    clock.advance(0.999)
    assert.is_nil(subscription:try_next())
    clock.advance(0.001)
    local message = subscription:next(1)
    assert.equal("2", message.payload)
    assert.equal(2, message.attempts)
    message:ack()
    clock.advance(1)
    assert.equal("1", drain(subscription))
    assert.equal(0, clock.pending())
    assert.equal(0, subscription:stats().held)
  end)

  it("brings back in order what is due at once, with one timer", function()
    local subscription = broker:subscribe("a")
    publish(publisher, "a", "1 2 3 4")
    for _ = 1, 3 do
      subscription:next(1):nack({ delay = 2 })
    end
    assert.equal(1, clock.pending())
    clock.advance(2)
    assert.equal("1 2 3 4", drain(subscription))
  end)

  it("brings back what fell due while nobody took in the order of the times, before what waits", function()
    local subscription = broker:subscribe("a")
    publish(publisher, "a", "1 2 3 4 5")
    for delay = 4, 1, -1 do
      subscription:next(1):nack({ delay = delay })
    end
    for _ = 1, 3 do
      clock.advance(1)
    end
    subscription:next(1):nack() -- what is given back comes first as ever
    clock.advance(1)
    publish(publisher, "a", "6")
    assert.equal("4 3 2 1 5 6", drain(subscription))
  end)

  it("keeps that order through every size of the ring", function()
    for count = 1, 40 do
      local subscription, expected = broker:subscribe("a"), {}
      for _ = 1, count do -- the ring begins anywhere
        publish(publisher, "a", "x")
        subscription:next(1):ack()
      end
      publish(publisher, "a", ("w "):rep(count))
      for i = 1, count do
        publish(publisher, "a", tostring(i))
      end
      local waiting = {}
      for i = 1, count do
        waiting[i] = subscription:next(1)
      end
      for i = 1, count do
        subscription:next(1):nack({ delay = i % 7 + 1 })
      end
      for i = count, 1, -1 do
        waiting[i]:ack()
      end
      publish(publisher, "a", "last")
      for second = 1, 7 do
        clock.advance(1)
        for i = 1, count do
          expected[#expected + 1] = i % 7 + 1 == second and tostring(i) or nil
        end
      end
      expected[count + 1] = "last"
      assert.equal(table.concat(expected, " "), drain(subscription))
      subscription:close()
    end
  end)

  it("gives what was not settled in time to others in the order in which it was taken", function()
    local spec = memory.topic("a", { group = "g", ack_wait = 10 })
    local one, two = broker:subscribe(spec), broker:subscribe(spec)
    publish(publisher, "a", "1 2 3")
    for _ = 1, 3 do
      one:next(1)
      clock.advance(1)
    end
    clock.advance(8)
    clock.advance(1)
    clock.advance(1)
    assert.equal("1 2 3", drain(two))
  end)

  it("wakes who waits for it", function()
    local subscription = broker:subscribe("a")
    publish(publisher, "a", "1")
    subscription:next(1):nack({ delay = 5 })
    local task = tasks.spawn(subscription.next, subscription, 5)
    tasks.sleep(0)
    clock.advance(5)
    assert.equal("1", task:join(5).payload)
  end)

  it("works with real time as well", function()
    local real = memory.new()
    real:connect()
    local subscription = real:subscribe("a")
    real:publisher():publish("a", "1")
    subscription:next(1):nack({ delay = 0.01 })
    assert.is_nil(subscription:try_next())
    local message = subscription:next(5)
    assert.equal(2, message.attempts)
    assert.is_true(math.abs(message.time - os.time()) < 5)
    real:shutdown()
  end)

  it("does not deliver what is delayed in a queue that has gone", function()
    local subscription = broker:subscribe("a")
    publish(publisher, "a", "1")
    subscription:next(1):nack({ delay = 5 })
    subscription:close()
    clock.advance(10)
    assert.equal(0, broker:stats().held)
    assert.equal(0, broker:stats().queues)
  end)

  it("takes back what was not settled within ack_wait", function()
    local spec = memory.topic("a", { group = "g", ack_wait = 10 })
    local one, two = broker:subscribe(spec), broker:subscribe(spec)
    publish(publisher, "a", "1 2")
    local slow, quick = one:next(1), one:next(1)
    clock.advance(9)
    assert.is_true(quick:ack())
    assert.is_true(slow:extend())
    clock.advance(9)
    assert.is_nil(two:try_next())
    clock.advance(1)
    local message = two:next(1)
    assert.equal("1", message.payload)
    assert.equal(2, message.attempts)
    fails("lost", slow:ack())
    fails("lost", slow:nack())
    fails("lost", slow:extend())
    assert.equal(0, one:stats().unsettled)
    assert.is_true(message:ack())
    clock.advance(100)
    assert.equal(0, two:stats().held)
  end)

  it("keeps nothing of what was settled in time", function()
    local subscription = broker:subscribe(memory.topic("a", { ack_wait = 10 }))
    for _ = 1, 10000 do
      publish(publisher, "a", "1")
      subscription:next(1):ack()
    end
    assert.is_true(broker.engine.due.heap.count < 5000)
    assert.equal(1, clock.pending())
  end)

  it("has nothing to extend without ack_wait", function()
    local subscription = broker:subscribe("a")
    publish(publisher, "a", "1")
    local message = subscription:next(1)
    assert.is_true(message:extend())
    clock.advance(1e6)
    assert.is_true(message:ack())
  end)

  it("counts as pending what somebody should be busy with", function()
    local quiet = 0
    local stop = broker:on_idle(function()
      quiet = quiet + 1
    end)
    assert.is_true(broker:declare("dead"))
    publish(publisher, "dead", "x")
    assert.equal(0, broker:pending())
    local one, two = broker:subscribe("a"), broker:subscribe("a")
    publish(publisher, "a", "1")
    assert.equal(2, broker:pending())
    one:next(1):ack()
    local message = two:next(1)
    assert.equal(1, broker:pending())
    assert.equal(0, quiet)
    message:nack({ delay = 5 })
    assert.equal(0, broker:pending())
    assert.equal(1, quiet)
    clock.advance(5)
    assert.equal(1, broker:pending())
    two:next(1):nack({ requeue = false })
    assert.equal(2, quiet)
    publish(publisher, "a", "2")
    one:close()
    assert.equal(1, broker:pending())
    two:close()
    assert.equal(3, quiet)
    stop()
    local three = broker:subscribe("a")
    publish(publisher, "a", "3")
    drain(three)
    assert.equal(3, quiet)
  end)
end)
