local helper = require("spec.lua.broker.memory.support")
local memory = require("weir.broker.memory")
local support = require("spec.lua.support")

local drain, fails, publish = helper.drain, support.fails, helper.publish

describe("a memory broker with retention", function()
  local broker, clock, publisher

  local function start(retention)
    broker, clock = helper.broker({ retention = retention })
    publisher = broker:publisher()
  end

  after_each(function()
    broker:shutdown()
  end)

  it("lets a subscription begin with what is kept, or at a position", function()
    start({ messages = 3 })
    publish(publisher, "a", "1 2 3 4")
    local all = broker:subscribe(memory.topic("a", { from = "start" }))
    local third = all:next(1)
    assert.equal("2", third.payload)
    third = all:next(1)
    assert.equal("3 4", drain(broker:subscribe(memory.topic("a", { from = third.position }))))
    assert.equal("", drain(broker:subscribe("a")))
    assert.equal("4", drain(all))
  end)

  it("seeks back, forward and to the ends, and goes on with what comes", function()
    start({ messages = 100 })
    local subscription = broker:subscribe("a")
    publish(publisher, "a", "1 2 3 4 5")
    local positions = {}
    for i = 1, 5 do
      local message = subscription:next(1)
      positions[i] = message.position
      message:ack()
    end
    assert.is_true(subscription:seek(positions[3]))
    assert.equal("3 4 5", drain(subscription))
    assert.is_true(subscription:seek("start"))
    assert.equal("1", subscription:next(1).payload)
    assert.is_true(subscription:seek(positions[5]))
    publish(publisher, "a", "6")
    assert.equal("5 6", drain(subscription))
    assert.is_true(subscription:seek("start"))
    assert.is_true(subscription:seek("end"))
    publish(publisher, "a", "7")
    assert.equal("7", drain(subscription))
  end)

  it("replays patterns in the order of publishing", function()
    start({ messages = 100 })
    publish(publisher, "a.x", "1")
    publish(publisher, "a.y", "2")
    publish(publisher, "b.x", "3")
    publish(publisher, "a.x", "4")
    assert.equal("1 2 4", drain(broker:subscribe(memory.topic("a.*", { from = "start" }))))
  end)

  it("refuses positions that are gone or never were, and does not move then", function()
    start({ messages = 2 })
    local subscription = broker:subscribe("a")
    publish(publisher, "a", "1 2 3 4")
    local first = subscription:next(1)
    fails("position_evicted", subscription:seek(first.position))
    for _, position in ipairs({ 1000, -1, 1.5, "middle", {} }) do
      fails("invalid", subscription:seek(position))
    end
    assert.equal("2 3 4", drain(subscription))
    fails("position_evicted", broker:subscribe(memory.topic("a", { group = "g", from = first.position })))
    assert.equal(1, broker:stats().queues)
  end)

  it("keeps no more bytes than it is told", function()
    start({ bytes = 10 })
    publish(publisher, "a", "1234 5678 90")
    assert.equal("1234 5678 90", drain(broker:subscribe(memory.topic("a", { from = "start" }))))
    publish(publisher, "a", "x")
    assert.equal("5678 90 x", drain(broker:subscribe(memory.topic("a", { from = "start" }))))
    assert.same({ topics = 1, messages = 3, bytes = 7 }, broker:stats().retained)
  end)

  it("keeps nothing longer than it is told", function()
    start({ seconds = 60 })
    publish(publisher, "a", "1")
    clock.advance(30)
    publish(publisher, "a", "2")
    clock.advance(30)
    assert.equal("2", drain(broker:subscribe(memory.topic("a", { from = "start" }))))
  end)

  it("keeps no more topics than it is told: those published to last", function()
    start({ messages = 5, topics = 10 })
    local position
    local subscription = broker:subscribe("t.1")
    for i = 1, 100 do
      publish(publisher, "t." .. i, "x")
    end
    position = subscription:next(1).position
    assert.is_true(broker:stats().retained.topics <= 10)
    assert.equal("x", drain(broker:subscribe(memory.topic("t.100", { from = "start" }))))
    assert.equal("", drain(broker:subscribe(memory.topic("t.1", { from = "start" }))))
    fails("position_evicted", subscription:seek(position))
  end)

  it("has nothing to seek without retention, and says so", function()
    broker = helper.broker()
    local subscription = broker:subscribe("a")
    assert.is_nil(broker:capabilities().seek)
    fails("unsupported", subscription:seek("start"))
    fails("unsupported", broker:subscribe(memory.topic("a", { from = "start" })))
  end)

  it("raises for a retention without bounds or with unknown ones", function()
    start({ messages = 1 })
    for _, retention in ipairs({ {}, { messages = 0 }, { bytes = "x" }, { seconds = -1 }, { mesages = 1 } }) do
      assert.has_error(function()
        memory.new({ retention = retention })
      end)
    end
  end)
end)
