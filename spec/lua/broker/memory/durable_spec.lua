local helper = require("spec.lua.broker.memory.support")
local memory = require("weir.broker.memory")
local new_clock = require("weir.test.clock")
local shell = require("spec.house.shell")
local support = require("spec.lua.support")
local tasks = require("weir.task")

local drain, fails, publish = helper.drain, support.fails, helper.publish

describe("a memory broker with a directory", function()
  local dir, remove, broker, clock

  local function start(options)
    local with = { dir = dir, clock = clock, store = { sync = false } }
    for name, value in pairs(options or {}) do
      with[name] = value
    end
    broker = memory.new(with)
    assert(broker:connect())
    return broker:publisher()
  end

  local function restart(options)
    assert(broker:shutdown())
    return start(options)
  end

  before_each(function()
    dir, remove = shell.scratch()
    clock = new_clock(1000)
  end)

  after_each(function()
    broker:shutdown()
    remove()
  end)

  local spec = memory.topic("a", { group = "g" })

  it("has what was not settled when it comes back, with attempts, headers and positions", function()
    local publisher = start()
    local subscription = broker:subscribe(spec)
    publish(publisher, "a", "1 2")
    assert(publisher:publish("a", "\0\255", { ["partition-key"] = "k", x = "" }))
    publish(publisher, "a", "4")
    local one, two = subscription:next(1), subscription:next(1)
    two:ack()
    local position, time = one.position, one.time
    clock.advance(50)
    publisher = restart()
    assert.equal("up", (broker:state()))
    subscription = broker:subscribe(spec)
    local again = subscription:next(1)
    assert.equal("1", again.payload)
    assert.equal(2, again.attempts)
    assert.equal(position, again.position)
    assert.equal(time, again.time)
    again:ack()
    local full = subscription:next(1)
    assert.equal("\0\255", full.payload)
    assert.same({ ["partition-key"] = "k", x = "" }, full.headers)
    assert.equal("k", full.key)
    full:ack()
    publish(publisher, "a", "5")
    assert.equal("4 5", drain(subscription))
    restart()
    assert.equal("", drain(broker:subscribe(spec)))
  end)

  it("keeps groups that nobody has come back to, and their settings", function()
    local publisher = start()
    broker:declare(memory.topic("dead.*", { group = "g", overflow = "reject", capacity = { messages = 3 } }))
    publish(publisher, "dead.x", "1")
    publisher = restart()
    publish(publisher, "dead.y", "2 3")
    fails("full", publisher:publish("dead.z", "4"))
    assert.equal("1", broker:browse("dead.*")[1].payload)
    assert.equal("1 2 3", drain(broker:subscribe(memory.topic("dead.*", { group = "g" }))))
  end)

  it("lets the first that comes back change the settings, and make the group end with it", function()
    local publisher = start()
    broker:subscribe(memory.topic("a", { group = "g", overflow = "reject", capacity = { messages = 2 } }))
    publish(publisher, "a", "1 2")
    publisher = restart()
    broker:subscribe(memory.topic("a", { group = "g", capacity = { messages = 3 } }))
    publish(publisher, "a", "3")
    fails("full", publisher:publish("a", "4")) -- what was not said is as it was
    publisher = restart()
    fails("full", publisher:publish("a", "4"))
    local subscription = broker:subscribe(memory.topic("a", { group = "g", durable = false }))
    assert.equal("1", subscription:next(1).payload)
    subscription:close()
    restart()
    assert.equal(0, broker:stats().queues)
    assert.equal(0, broker:stats().store.messages)
  end)

  it("keeps what comes while a group is being made known", function()
    local publisher = start()
    local task = tasks.spawn(function()
      return broker:subscribe(spec)
    end)
    local other = tasks.spawn(function()
      return broker:subscribe(spec)
    end)
    local sent = {}
    while task:status() == "running" or other:status() == "running" do
      sent[#sent + 1] = tostring(#sent + 1)
      assert(publisher:publish("a", sent[#sent]))
      tasks.sleep(0)
    end
    assert.equal(task:join(5).queue, other:join(5).queue)
    local before = broker:stats().held
    restart()
    assert.equal(before, broker:stats().held)
  end)

  it("keeps what each of several groups has left, and what a transaction published", function()
    local publisher = start()
    local other = memory.topic("*", { group = "h" })
    local one = broker:subscribe(spec)
    broker:subscribe(other)
    local transaction = publisher:transaction()
    transaction:publish("a", "1")
    transaction:publish("b", "2")
    transaction:publish("a", "3")
    assert.is_true(transaction:commit())
    assert.equal("1 3", drain(one))
    restart()
    assert.equal("", drain(broker:subscribe(spec)))
    assert.equal("1 2 3", drain(broker:subscribe(other)))
  end)

  it("goes on with delays", function()
    local publisher = start()
    local subscription = broker:subscribe(spec)
    publish(publisher, "a", "1 2")
    subscription:next(1):nack({ delay = 100 })
    subscription:next(1):nack({ delay = 10 })
    broker:shutdown()
    clock.advance(50)
    start()
    subscription = broker:subscribe(spec)
    assert.equal("2", drain(subscription))
    clock.advance(49)
    assert.is_nil(subscription:try_next())
    clock.advance(1)
    local message = subscription:next(1)
    assert.equal("1", message.payload)
    assert.equal(2, message.attempts)
  end)

  it("keeps what is retained, and seeks in it", function()
    local publisher = start({ retention = { messages = 3 } })
    publish(publisher, "b", "1 2 3 4")
    publisher = restart({ retention = { messages = 3 } })
    assert.equal("2 3 4", drain(broker:subscribe(memory.topic("b", { from = "start" }))))
    local subscription = broker:subscribe(memory.topic("b", { group = "g", from = "start" }))
    assert.equal("2 3 4", drain(subscription))
    assert.is_true(subscription:seek("start"))
    publish(publisher, "b", "5")
    restart({ retention = { messages = 1 } })
    assert.equal("2 3 4 5", drain(broker:subscribe(memory.topic("b", { group = "g" }))))
    assert.equal("5", drain(broker:subscribe(memory.topic("b", { from = "start" }))))
    restart()
    assert.equal(0, broker:stats().store.messages)
  end)

  it("drops for good what the overflow rule drops, and what is refused", function()
    local publisher = start()
    local drops = memory.topic("a", { group = "g", overflow = "drop_oldest", capacity = { messages = 2 } })
    local subscription = broker:subscribe(drops)
    publish(publisher, "a", "1 2 3 4")
    subscription:next(1):nack({ requeue = false })
    restart()
    assert.equal("4", drain(broker:subscribe(drops)))
  end)

  it("keeps nothing of groups that are not durable, nor of subscriptions without group", function()
    local publisher = start()
    broker:subscribe(memory.topic("a", { group = "g", durable = false }))
    broker:subscribe(memory.topic("a"))
    publish(publisher, "a", "1")
    restart()
    assert.equal(0, broker:stats().queues)
    assert.equal(0, broker:stats().store.messages)
  end)

  it("lets many publishers share a commit, and keeps the order of each", function()
    start()
    local subscription, list = broker:subscribe(spec), {}
    for i = 1, 20 do
      list[i] = tasks.spawn(function()
        local publisher = broker:publisher()
        for n = 1, 10 do
          assert(publisher:publish("a", i .. " " .. n))
        end
      end)
    end
    for i = 1, 20 do
      list[i]:join(10)
    end
    assert.is_true(broker:stats().store.commits < 100)
    local last = {}
    for _ = 1, 200 do
      local who, n = subscription:next(5).payload:match("(%d+) (%d+)")
      assert.equal((last[who] or 0) + 1, tonumber(n))
      last[who] = tonumber(n)
    end
  end)

  it("keeps its bound with many publishers in one commit", function()
    start()
    local subscription = broker:subscribe(memory.topic("a", { group = "g", capacity = { messages = 3 } }))
    local list = {}
    for i = 1, 20 do
      list[i] = tasks.spawn(publish, broker:publisher(), "a", tostring(i))
    end
    local most = 0
    for _ = 1, 20 do
      local message = assert(subscription:next(5))
      most = math.max(most, subscription:stats().held)
      message:ack()
    end
    for i = 1, 20 do
      list[i]:join(5)
    end
    assert.equal(3, most)
    assert.equal(0, subscription:stats().held)
    assert.equal(0, subscription:stats().bytes)
  end)

  it("gives back the room of what could not be stored", function()
    local publisher = start({ store = { sync = false, max_bytes = "1 MiB" } })
    local subscription = broker:subscribe(memory.topic("a", { group = "g", capacity = { messages = 1 } }))
    local large = tasks.spawn(publisher.publish, publisher, "a", ("x"):rep(2 ^ 21))
    local small = tasks.spawn(publisher.publish, publisher, "a", "2")
    fails("full", large:join(5))
    assert.is_true(small:join(5))
    assert.same({ 1, 1 }, { subscription:stats().held, subscription:stats().bytes })
    assert.equal("2", drain(subscription))
  end)

  it("stores no reply for groups that would get everything", function()
    local publisher = start()
    local all = broker:subscribe(memory.topic(">", { group = "g" }))
    local task = tasks.spawn(publisher.request, publisher, "service", "hello", nil, 5)
    local request = assert(all:next(5))
    assert(publisher:publish(request.reply_to, "hello!"))
    assert.equal("hello!", task:join(5).payload)
    request:ack()
    assert.equal(0, broker:stats().store.messages)
  end)

  it("does not come up with a store that has nonsense, and leaves nothing of it behind", function()
    local publisher = start()
    broker:declare(spec)
    publish(publisher, "a", "1")
    assert(broker.engine.store:declare("z", { name = "a..b", group = "z", messages = 1, bytes = 1 }))
    assert(broker:shutdown())
    broker = memory.new({ dir = dir, clock = clock, store = { sync = false } })
    for _ = 1, 2 do
      local err = fails("damaged", broker:connect())
      assert.matches("empty token", err.message)
      assert.equal("failed", (broker:state()))
      assert.same({ 0, 0 }, { broker:stats().queues, broker:stats().held })
    end
  end)

  it("is for one at a time, and says so", function()
    start()
    local second = memory.new({ dir = dir })
    fails("locked", second:connect())
    local state, err = second:state()
    assert.equal("failed", state)
    assert.equal("locked", err.code)
    fails("disconnected", second:subscribe("a"))
    second:shutdown()
  end)

  it("loses nothing that was confirmed when its process is killed", function()
    start()
    broker:shutdown()
    local published, acked = {}, {}
    helper.kill("durable_child.lua " .. dir, 4000, function(kind, number)
      if kind == "p" then
        published[#published + 1] = tostring(number)
      else
        acked[tostring(number)] = true
      end
    end)
    start()
    local subscription, waiting = broker:subscribe(spec), {}
    assert.equal("orders", broker:subscribe(memory.topic("orders", { group = "g" })):address())
    subscription:close()
    subscription = broker:subscribe(memory.topic("orders", { group = "g" }))
    for _, message in ipairs(assert(broker:browse("orders", 1e6))) do
      waiting[message.payload] = message.headers.n
    end
    assert.is_true(#published >= 2000)
    for _, n in ipairs(published) do
      assert.is_true(acked[n] or waiting[n] == n, "message " .. n .. " is gone")
    end
    assert.is_true(subscription:stats().queued > 0)
  end)

  it("keeps what comes for subscriptions that name no group", function()
    local publisher = start()
    assert(broker:subscribe("a"))
    publish(publisher, "a", "1 2")
    publisher = restart()
    assert.equal("1 2", drain(broker:subscribe("a")))
    publish(publisher, "a", "3")
    assert.equal("3", drain(broker:subscribe({ name = "a", prefetch = 5 })))
    restart({ group = false })
    assert.is_nil(broker:descriptor("a").group)
  end)
end)
