local helper = require("spec.lua.broker.memory.support")
local memory = require("weir.broker.memory")
local support = require("spec.lua.support")
local tasks = require("weir.task")

local drain, fails, publish = helper.drain, support.fails, helper.publish

describe("a topic of the memory broker", function()
  local broker, clock, publisher

  before_each(function()
    broker, clock = helper.broker()
    publisher = broker:publisher()
  end)

  after_each(function()
    broker:shutdown()
  end)

  it("gives each subscription without a group everything, in order, from then on", function()
    publish(publisher, "a", "early")
    local one, two = broker:subscribe("a"), broker:subscribe("a")
    publish(publisher, "a", "1 2 3")
    publish(publisher, "b", "other")
    assert.equal("1 2 3", drain(one))
    assert.equal("1 2 3", drain(two))
  end)

  it("gives each message to one member of a group, and every group all of them", function()
    local one = broker:subscribe(memory.topic("a", { group = "g" }))
    local two = broker:subscribe(memory.topic("a", { group = "g" }))
    local other = broker:subscribe(memory.topic("a", { group = "h" }))
    publish(publisher, "a", "1 2 3 4")
    assert.equal("1", one:next(1).payload)
    assert.equal("2", two:next(1).payload)
    assert.equal("3", two:next(1).payload)
    assert.equal("4", one:next(1).payload)
    assert.equal("1 2 3 4", drain(other))
  end)

  it("goes to patterns as well", function()
    local some = broker:subscribe("orders.*")
    local all = broker:subscribe(memory.topic("orders.>", { group = "g" }))
    publish(publisher, "orders.new", "1")
    publish(publisher, "orders.new.eu", "2")
    publish(publisher, "orders", "3")
    local message = some:next(1)
    assert.equal("orders.new", message.destination)
    assert.is_nil(some:try_next())
    assert.equal("1 2", drain(all))
    assert.is_nil(some:address())
    assert.equal("b", broker:subscribe("b"):address())
  end)

  it("shows what the contract promises of a message", function()
    local subscription = broker:subscribe("a")
    local headers = { ["partition-key"] = "k", ["reply-to"] = "r", ["content-type"] = "text/plain" }
    assert(publisher:publish("a", "plain"))
    assert(publisher:publish("a", "\0\255", headers))
    local plain, full = subscription:next(1), subscription:next(1)
    assert.same({}, plain.headers)
    assert.has_error(function()
      plain.headers.x = "y"
    end)
    assert.same({}, plain.fields)
    assert.equal("a", plain.destination)
    assert.equal(1, plain.attempts)
    assert.equal(1000, plain.time)
    assert.is_nil(plain.key)
    assert.is_nil(plain.reply_to)
    assert.equal("\0\255", full.payload)
    assert.same(headers, full.headers)
    assert.equal("k", full.key)
    assert.equal("r", full.reply_to)
    assert.equal(plain.position + 1, full.position)
    clock.advance(5)
    assert(publisher:publish("a", "later"))
    assert.equal(1005, subscription:next(1).time)
    assert.equal("weir.memory.message('a', 5 bytes)", tostring(plain))
  end)

  it("settles a message once", function()
    local subscription = broker:subscribe("a")
    publish(publisher, "a", "1 2 3")
    local one, two, three = subscription:next(1), subscription:next(1), subscription:next(1)
    assert.equal(3, subscription:stats().unsettled)
    assert.is_true(one:ack()) -- in any order
    assert.is_true(three:nack({ requeue = false }))
    assert.is_true(two:nack())
    for _, message in ipairs({ one, two, three }) do
      fails("settled", message:ack())
      fails("settled", message:nack())
      fails("settled", message:extend())
    end
    local again = subscription:next(1)
    assert.equal("2", again.payload)
    fails("settled", two:ack()) -- the old one is not the new one
    assert.is_true(again:ack())
    assert.equal(0, subscription:stats().held)
    assert.equal(0, subscription:stats().bytes)
  end)

  it("brings back first what is given back, and counts", function()
    local subscription = broker:subscribe("a")
    assert(publisher:publish("a", "1", { ["partition-key"] = "k", ["x"] = "y" }))
    publish(publisher, "a", "2 3")
    local first, second = subscription:next(1), subscription:next(1)
    second:nack()
    first:nack({ requeue = true })
    for attempt = 2, 4 do
      local message = subscription:next(1)
      assert.equal("1", message.payload)
      assert.equal(attempt, message.attempts)
      assert.equal("k", message.key)
      assert.equal("y", message.headers.x)
      assert.equal(first.position, message.position)
      message:nack()
    end
    assert.equal("1 2 3", drain(subscription))
  end)

  it("refuses nonsense of nack before it touches the message", function()
    local subscription = broker:subscribe("a")
    publish(publisher, "a", "1")
    local message = subscription:next(1)
    for _, options in ipairs({
      "x",
      { delay = -1 },
      { delay = 0 / 0 },
      { delay = "1" },
      { requeue = 1 },
      { delya = 1 },
      { requeue = false, delay = 1 },
    }) do
      assert.has_error(function()
        message:nack(options)
      end)
    end
    assert.is_true(message:ack())
  end)

  it("gives back what a closed subscription held, in order, to the rest of its group", function()
    local spec = memory.topic("a", { group = "g" })
    local one, two = broker:subscribe(spec), broker:subscribe(spec)
    publish(publisher, "a", "1 2 3 4 5")
    local held = { one:next(1), one:next(1), one:next(1) }
    held[2]:ack()
    assert.is_true(one:close())
    assert.is_true(one:close())
    fails("closed", one:next(1))
    fails("lost", held[1]:ack())
    fails("lost", held[3]:nack())
    fails("settled", held[2]:ack())
    local first = two:next(1)
    assert.equal(2, first.attempts)
    first:nack()
    assert.equal("1 3 4 5", drain(two))
  end)

  it("lets what was taken be settled after stop, and wakes who waits", function()
    local spec = memory.topic("a", { group = "g" })
    local one, two = broker:subscribe(spec), broker:subscribe(spec)
    publish(publisher, "a", "1 2")
    local taken = one:next(1)
    two:next(1):ack()
    local task = tasks.spawn(one.next, one)
    tasks.sleep(0)
    assert.is_true(one:stop())
    fails("stopped", task:join(5))
    fails("stopped", one:next(1))
    fails("stopped", one:try_next())
    assert.is_true(taken:nack())
    assert.equal("1", drain(two))
    fails("stopped", one:seek("end"))
  end)

  it("keeps the backlog of a durable group, and no other", function()
    local durable = memory.topic("a", { group = "d", durable = true })
    broker:subscribe(durable):close()
    broker:subscribe(memory.topic("a", { group = "g" })):close()
    publish(publisher, "a", "1 2")
    assert.equal("1 2", drain(broker:subscribe(durable)))
    assert.equal("", drain(broker:subscribe(memory.topic("a", { group = "g" }))))
    assert.is_true(broker:declare(memory.topic("b", { group = "x" })))
    assert.is_true(broker:declare("c"))
    publish(publisher, "b", "3")
    publish(publisher, "c", "4")
    assert.equal("3", drain(broker:subscribe(memory.topic("b", { group = "x" }))))
    assert.equal("4", drain(broker:subscribe(memory.topic("c", { group = "default" }))))
  end)

  it("does not let a second member change the settings of a group", function()
    broker:subscribe(memory.topic("a", { group = "g", overflow = "reject" }))
    local again = memory.topic("a", { group = "g", overflow = "wait" })
    assert.matches("overflow", fails("conflict", broker:subscribe(again)).message)
    fails("conflict", broker:subscribe(memory.topic("a", { group = "g", capacity = { messages = 1 } })))
    assert(broker:subscribe(memory.topic("a", { group = "g" })))
  end)

  it("holds back what prefetch does not allow until something is settled", function()
    local spec = memory.topic("a", { group = "g", prefetch = 2 })
    local one, two = broker:subscribe(spec), broker:subscribe(spec)
    publish(publisher, "a", "1 2 3 4")
    local first = one:next(1)
    one:next(1)
    fails("timeout", one:next(0.01))
    assert.same(2, #two:next_batch(10, 0))
    publish(publisher, "a", "5")
    local task = tasks.spawn(one.next, one)
    tasks.sleep(0)
    assert.equal("running", task:status())
    first:ack()
    assert.equal("5", task:join(5).payload)
  end)

  it("forgets none of several tasks that wait for what prefetch allows", function()
    local subscription = broker:subscribe(memory.topic("a", { prefetch = 1 }))
    publish(publisher, "a", "1")
    local held = subscription:next(1)
    local impatient = tasks.spawn(subscription.next, subscription, 0.01)
    local patient = tasks.spawn(subscription.next, subscription)
    tasks.sleep(0)
    held:ack()
    fails("timeout", impatient:join(5))
    publish(publisher, "a", "2")
    assert.equal("2", patient:join(5).payload)
  end)

  it("passes a message on from a subscription that has enough to another of the group", function()
    local spec = memory.topic("a", { group = "g", prefetch = 1 })
    local one, two = broker:subscribe(spec), broker:subscribe(spec)
    local first, second = tasks.spawn(one.next, one), tasks.spawn(one.next, one)
    tasks.sleep(0)
    local third = tasks.spawn(two.next, two)
    tasks.sleep(0)
    publish(publisher, "a", "1 2") -- wakes the two tasks of the first subscription, which may have one message
    assert.equal("1", first:join(5).payload)
    assert.equal("2", third:join(5).payload)
    assert.equal("running", second:status())
  end)

  it("wakes one of those that wait for each message", function()
    local spec, got = memory.topic("a", { group = "g" }), {}
    local list = {}
    for i = 1, 3 do
      list[i] = tasks.spawn(function()
        local subscription = broker:subscribe(spec)
        local message = assert(subscription:next(5))
        got[#got + 1] = message.payload
        message:ack()
      end)
    end
    tasks.sleep(0)
    publish(publisher, "a", "1 2 3")
    for _, task in ipairs(list) do
      task:join(5)
    end
    table.sort(got)
    assert.equal("1 2 3", table.concat(got, " "))
  end)

  it("hands nothing to a task that was cancelled", function()
    local subscription = broker:subscribe("a")
    local gone = tasks.spawn(subscription.next, subscription)
    local other = tasks.spawn(subscription.next, subscription, 5)
    tasks.sleep(0)
    gone:cancel()
    publish(publisher, "a", "1")
    fails("cancelled", gone:join(5))
    assert.equal("1", other:join(5).payload)
    assert.equal(0, subscription.queue.receivers.count)
  end)

  it("makes batches of what waits and of what comes while it lingers", function()
    local subscription = broker:subscribe("a")
    publish(publisher, "a", "1 2 3 4 5")
    assert.equal(3, #subscription:next_batch(3))
    assert.equal(2, #subscription:next_batch(3, 0))
    fails("timeout", subscription:next_batch(3, 0, 0.01))
    publish(publisher, "a", "6")
    local task = tasks.spawn(subscription.next_batch, subscription, 3, 60)
    tasks.sleep(0)
    publish(publisher, "a", "7")
    tasks.sleep(0)
    assert.equal("running", task:status())
    clock.advance(60)
    assert.equal(2, #task:join(5))
    task = tasks.spawn(subscription.next_batch, subscription, 2, 60)
    tasks.sleep(0)
    publish(publisher, "a", "8 9 10")
    assert.equal(2, #task:join(5))
    assert.equal("10", drain(subscription))
    for _, max in ipairs({ 0, -1, "3", 0 / 0 }) do
      assert.has_error(function()
        subscription:next_batch(max)
      end)
    end
    assert.equal(0, clock.pending())
  end)

  it("stores a payload once however many get it", function()
    local list, payload = {}, ("x"):rep(4 * 1024 * 1024)
    for i = 1, 200 do
      list[i] = broker:subscribe("a")
    end
    collectgarbage()
    local before = collectgarbage("count")
    assert(publisher:publish("a", payload))
    assert.is_true(collectgarbage("count") - before < 1024)
    assert.equal(payload, list[200]:next(1).payload)
  end)

  it("takes part in select", function()
    local select = require("weir.select")
    local one, two = broker:subscribe("a"), broker:subscribe("b")
    local task = tasks.spawn(function()
      return select({ one, two }, 5)
    end)
    tasks.sleep(0)
    publish(publisher, "b", "1")
    local _, message = task:join(5)
    assert.equal("1", message.payload)
    assert.equal(0, one.queue.receivers.count)
  end)

  it("gives the loop its turn while a task takes and publishes without end", function()
    local turns, going = 0, true
    local subscription = broker:subscribe("a")
    local task = tasks.spawn(function()
      while going do
        publisher:publish("a", "x")
        subscription:next():ack()
      end
    end)
    for _ = 1, 3 do
      tasks.sleep(0.001)
      turns = turns + 1
    end
    going = false
    task:join(5)
    assert.equal(3, turns)
  end)

  it("notices what others do in that turn: a subscription, a cancellation, a shutdown", function()
    local real = memory.new()
    real:connect()
    local subscription, out = real:subscribe("a"), real:publisher()
    local function loop()
      while true do
        local ok, err = out:publish("a", "x")
        if not ok then
          return ok, err
        end
        local message = subscription:try_next()
        if message then
          message:ack()
        end
      end
    end
    local one, two = tasks.spawn(loop), tasks.spawn(loop)
    tasks.sleep(0.002)
    for _ = 1, 10 do
      local last, second = real:stats().published, real:subscribe("a")
      local message = assert(second:next(5))
      assert.equal(last + 1, message.position)
      message:ack()
      second:close()
      tasks.sleep(0)
    end
    one:cancel()
    fails("cancelled", one:join(5))
    real:shutdown()
    fails("closed", two:join(5))
  end)
end)
