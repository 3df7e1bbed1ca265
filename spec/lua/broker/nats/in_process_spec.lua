local fails = require("spec.lua.support").fails
local servers = require("spec.lua.nats_server")
local tasks = require("weir.task")

if not servers.available() then
  return pending("nats-server or libnats is not installed: spec/setup test")
end

local contract = require("weir.broker.contract")
local nats = require("weir.broker.nats")
local support = require("spec.lua.broker.nats.support")

-- What must be the same with a server and without.
local function behaviours(make)
  local broker, publisher, subject, stream

  before_each(function()
    broker = make()
    publisher = broker:publisher()
    subject, stream = support.name("subject"), support.name("STREAM")
  end)

  local function consume(opts)
    local all = { name = subject, stream = stream, create = true }
    for name, value in pairs(opts or {}) do
      all[name] = value
    end
    return assert(broker:subscribe(assert(nats.jetstream(all))))
  end

  local function store(payload, options)
    options = options or {}
    options.confirm = true
    return publisher:publish(subject, payload, nil, options)
  end

  it("fulfils the contract", function()
    contract.check(broker)
    assert.is_true(broker:capabilities().batch)
    assert.is_true(broker:capabilities(assert(nats.jetstream({ name = "a" }))).delay)
  end)

  it("delivers core messages to each subscription and once to a group", function()
    local one, two = assert(broker:subscribe(subject .. ".*")), assert(broker:subscribe(subject .. ".>"))
    local group = assert(nats.subject(subject .. ".a", { group = "g" }))
    local three, four = assert(broker:subscribe(group)), assert(broker:subscribe(group))
    assert(publisher:publish(subject .. ".a", "x", { ["X-Name"] = "v", ["partition-key"] = "k" }))
    for _, subscription in ipairs({ one, two }) do
      local message = assert(subscription:next(5))
      assert.equal("x", message.payload)
      assert.same({ ["x-name"] = "v", ["partition-key"] = "k" }, message.headers)
      assert.equal("k", message.key)
      assert.is_nil(message.attempts)
      assert.same({}, message.fields)
      fails("unsupported", message:ack())
      fails("unsupported", message:nack())
    end
    local got = (three:next(0.1) and 1 or 0) + (four:next(0.1) and 1 or 0)
    assert.equal(1, got)
    assert.is_nil(one:address())
    assert.equal(subject .. ".a", three:address())
  end)

  it("is degraded while a slow subscription has not caught up", function()
    local subscription = assert(broker:subscribe(assert(nats.subject(subject, { messages = 10 }))))
    for i = 1, 50 do
      assert(publisher:publish(subject, tostring(i)))
    end
    assert.equal("slow_consumer", support.until_state(broker, "degraded").code)
    assert(publisher:flush(5))
    assert.equal(40, subscription:stats().dropped)
    for i = 1, 10 do
      assert.equal(tostring(i), assert(subscription:next(5)).payload)
    end
    fails("timeout", subscription:next(0.02))
    support.until_state(broker, "up")
    assert(publisher:publish(subject, "after"))
    assert.equal("after", assert(subscription:next(5)).payload)
  end)

  it("confirms acknowledgements where it is asked to", function()
    local subscription = consume({ durable = "d", confirm_ack = true })
    for i = 1, 3 do
      assert(store("m" .. i))
    end
    local one, two, three = subscription:next(5), subscription:next(5), subscription:next(5)
    assert.is_true(one:ack())
    fails("settled", one:ack())
    assert.is_true(two:nack({ requeue = false }))
    assert.is_true(three:nack())
    local again = assert(subscription:next(5))
    assert.same({ "m3", 2 }, { again.payload, again.attempts })
    assert.is_true(again:ack())
    assert.equal(0, subscription:stats().unsettled)
  end)

  it("keeps the error of a block that it is closed with", function()
    local failed, err = pcall(function()
      local other <close> = make()
      local _ <close> = assert(other:subscribe(support.name()))
      local descriptor = assert(nats.jetstream({ name = subject, stream = stream, create = true }))
      local _ <close> = assert(other:subscribe(descriptor))
      error("boom", 0)
    end)
    assert.same({ false, "boom" }, { failed, err })
  end)

  it("refuses what the server refuses", function()
    fails("invalid", publisher:publish("a b", "x"))
    fails("invalid", publisher:publish("a.*", "x"))
    fails("invalid", publisher:publish(subject, "x", nil, { reply_to = "a b" }))
    fails("too_large", publisher:publish(subject, ("x"):rep(1024 * 1024 + 1)))
    assert(publisher:publish(subject, ("x"):rep(1024 * 1024)))
    fails("unsupported", publisher:publish(subject, "x", { name = "" }))
    fails("unsupported", publisher:publish(subject, "x", { name = "a\nb" }))
    fails("unsupported", publisher:publish(subject, "x", nil, { priority = 1 }))
    fails("no_stream", publisher:publish(support.name("nowhere"), "x", nil, { confirm = true }))
    fails("no_responders", publisher:request(support.name("nobody"), "x", nil, 5))
    fails("unsupported", publisher:transaction())
    fails("unsupported", assert(broker:subscribe(subject)):seek(1))
  end)

  it("answers requests", function()
    local subscription = assert(broker:subscribe(subject))
    tasks.spawn(function()
      local message = assert(subscription:next(5))
      assert(publisher:publish(message.reply_to, "re:" .. message.payload))
    end)
    assert.equal("re:x", assert(publisher:request(subject, "x", nil, 5)).payload)
    fails("timeout", publisher:request(subject, "x", nil, 0.02))
  end)

  it("stores and confirms, each id once, in the expected place", function()
    consume()
    local _, receipt = store("a", { message_id = "1" })
    assert.same({ stream = stream, sequence = 1, duplicate = false }, receipt)
    _, receipt = store("a", { message_id = "1" })
    assert.is_true(receipt.duplicate)
    fails("conflict", store("b", { expect_last_sequence = 9 }))
    fails("conflict", store("b", { expect_last_message_id = "9" }))
    fails("conflict", store("b", { expect_stream = "OTHER" }))
    assert(store("b", { expect_last_sequence = 1, expect_last_subject_sequence = 1 }))
    assert.equal(2, assert(broker:stream({ name = stream }):info()).messages)
  end)

  it("stores what is published to core subjects, too", function()
    local subscription = consume()
    local watching = assert(broker:subscribe(subject))
    assert(publisher:publish(subject, "x"))
    assert.equal("x", assert(watching:next(5)).payload)
    local message = assert(subscription:next(5))
    assert.equal(1, message.position)
    assert.equal(stream, message.fields.stream)
    assert(message:ack())
  end)

  it("settles: once, again, later, never", function()
    local subscription = consume({ durable = "d" })
    for i = 1, 3 do
      assert(store("m" .. i))
    end
    local one, two, three = subscription:next(5), subscription:next(5), subscription:next(5)
    assert.equal(1, one.attempts)
    assert(two:ack())
    fails("settled", two:ack())
    assert(three:nack({ requeue = false }))
    fails("settled", three:nack())
    assert(one:nack())
    local again = assert(subscription:next(5))
    assert.equal("m1", again.payload)
    assert.equal(2, again.attempts)
    assert(again:nack({ delay = 0.2 }))
    fails("timeout", subscription:next(0.05))
    again = assert(subscription:next(5))
    assert.equal(3, again.attempts)
    assert(again:ack())
    fails("timeout", subscription:next(0.05))
  end)

  it("redelivers after ack_wait, up to max_deliver", function()
    local subscription = consume({ durable = "d", ack_wait = 0.1, max_deliver = 2 })
    assert(store("x"))
    assert.equal(1, assert(subscription:next(5)).attempts)
    local second = assert(subscription:next(5))
    assert.equal(2, second.attempts)
    assert(second:extend())
    fails("timeout", subscription:next(0.5))
  end)

  it("holds back at max_ack_pending", function()
    local subscription = consume({ durable = "d", max_ack_pending = 2 })
    for i = 1, 3 do
      assert(store("m" .. i))
    end
    local one = assert(subscription:next(5))
    assert(subscription:next(5))
    fails("timeout", subscription:next(0.05))
    assert(one:ack())
    assert.equal("m3", assert(subscription:next(5)).payload)
  end)

  it("gives back at close what was not settled", function()
    local one, two = consume({ durable = "d" }), consume({ durable = "d" })
    assert(store("x"))
    local message = assert(one:next(5))
    assert(one:close())
    fails("lost", message:ack())
    fails("closed", one:next(1))
    assert.equal(2, assert(two:next(5)).attempts)
    two:stop()
    fails("stopped", two:next(1))
  end)

  it("seeks and browses", function()
    local subscription = consume()
    for i = 1, 5 do
      assert(store("m" .. i))
    end
    assert.equal(5, #assert(subscription:next_batch(5, 1, 5)))
    assert(subscription:seek(4))
    assert.equal("m4", assert(subscription:next(5)).payload)
    fails("unknown_position", subscription:seek(99))
    assert(subscription:seek("end"))
    fails("timeout", subscription:next(0.05))
    assert(subscription:seek("start"))
    assert.equal("m1", assert(subscription:next(5)).payload)
    local list = assert(broker:browse(subject, 2))
    assert.equal(2, #list)
    assert.equal("m2", list[2].payload)
    fails("unsupported", consume({ durable = "d" }):seek(1))
  end)

  it("keeps what the stream is told to keep", function()
    local work = consume({ durable = "d", create = { retention = "workqueue", max_msgs = 3 } })
    for i = 1, 5 do
      assert(store("m" .. i))
    end
    local handle = broker:stream({ name = stream })
    assert.equal(3, assert(handle:info()).messages)
    local message = assert(work:next(5))
    assert.equal("m3", message.payload)
    assert(message:ack())
    require("spec.lua.support").eventually(function()
      return handle:info().messages == 2
    end)
    assert.equal(2, assert(handle:purge()))
    assert.is_true(handle:delete())
    fails("stream_not_found", handle:info())
  end)

  it("gives closed for everything after shutdown", function()
    local subscription, stored = assert(broker:subscribe(subject)), consume({ durable = "d" })
    assert(store("x"))
    local message = assert(stored:next(5))
    assert(broker:shutdown(5))
    fails("closed", message:ack())
    fails("closed", subscription:next(1))
    fails("closed", stored:next(1))
    fails("closed", publisher:publish(subject, "x"))
    fails("closed", publisher:request(subject, "x", nil, 1))
    fails("closed", publisher:flush(1))
    fails("closed", broker:subscribe(subject))
    fails("closed", broker:connect(1))
    assert.equal("closed", (broker:state()))
  end)
end

describe("the NATS broker on a server", function()
  local server
  setup(function()
    server = servers.start()
  end)
  teardown(function()
    server:stop()
  end)
  after_each(support.shut_down)
  behaviours(function()
    return support.broker(server)
  end)
end)

describe("the NATS broker in process", function()
  local made
  after_each(function()
    made:shutdown()
  end)
  behaviours(function()
    made = nats.new():in_process()
    assert(made:connect())
    return made
  end)
end)

describe("the NATS broker in process, by a clock", function()
  -- Time that passes when it is told to.
  local function virtual()
    local clock = { at = 1000, timers = {} }
    function clock.now()
      return clock.at
    end
    clock.time = clock.now
    function clock.timer(at, fn)
      local timer = { at = at, fn = fn }
      timer.cancel = function()
        clock.timers[timer] = nil
      end
      clock.timers[timer] = true
      return timer
    end
    function clock.advance(seconds)
      clock.at = clock.at + seconds
      for timer in pairs(clock.timers) do
        if timer.at <= clock.at then
          clock.timers[timer] = nil
          timer.fn()
        end
      end
    end
    return clock
  end

  it("knows the ids of messages for two minutes, and then forgets them", function()
    local clock = virtual()
    local broker = nats.new({ jetstream = { stream = "S", create = true } }):in_process(clock)
    assert(broker:connect())
    assert(broker:subscribe("s"))
    local publisher = broker:publisher()
    local function publish(id)
      return select(2, publisher:publish("s", "x", nil, { message_id = id })).duplicate
    end
    for i = 1, 100 do
      assert.is_false(publish("id" .. i))
    end
    clock.advance(119)
    assert.is_true(publish("id1"))
    assert.is_false(publish("late"))
    clock.advance(1)
    assert.is_false(publish("id1"))
    assert.is_true(publish("late"))
    local known = 0
    for _ in pairs(broker.streams.S.ids) do
      known = known + 1
    end
    assert.equal(2, known)
  end)

  it("delays and redelivers when time passes, and says when it is quiet", function()
    local clock = virtual()
    local broker = nats.new({ jetstream = { stream = "S", create = true, ack_wait = 60 } }):in_process(clock)
    assert(broker:connect())
    local subscription = assert(broker:subscribe({ name = "s", durable = "d" }))
    local quiet = 0
    broker:on_idle(function()
      quiet = quiet + 1
    end)
    assert(broker:publisher():publish("s", "x"))
    assert.equal(1, broker:pending())
    local message = assert(subscription:next(1))
    assert.equal(1, broker:pending())
    assert(message:nack({ delay = 100 }))
    assert.equal(0, broker:pending())
    assert.equal(1, quiet)
    clock.advance(99)
    fails("timeout", subscription:next(0))
    clock.advance(1)
    message = assert(subscription:next(1))
    assert.equal(2, message.attempts)
    clock.advance(60)
    message = assert(subscription:next(1))
    assert.equal(3, message.attempts)
    assert(message:ack())
    assert.equal(0, broker:pending())
    assert.is_true(quiet >= 2)
    broker:shutdown()
  end)

  it("lets what is too old go", function()
    local clock = virtual()
    local broker = nats.new():in_process(clock)
    assert(broker:connect())
    local handle = broker:stream({ name = "S", subjects = { "s" }, max_age = 10 })
    assert(handle:create())
    assert(broker:publisher():publish("s", "old"))
    clock.advance(11)
    assert(broker:publisher():publish("s", "new"))
    local info = assert(handle:info())
    assert.equal(1, info.messages)
    assert.equal(2, info.first)
    broker:shutdown()
  end)
end)
