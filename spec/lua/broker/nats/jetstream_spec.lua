local eventually = require("spec.lua.support").eventually
local fails = require("spec.lua.support").fails
local servers = require("spec.lua.nats_server")
local runtime = require("weir.runtime")
local tasks = require("weir.task")

if not servers.available() then
  return pending("nats-server or libnats is not installed: spec/setup test")
end

local nats = require("weir.broker.nats")
local memory = require("spec.lua.support")
local support = require("spec.lua.broker.nats.support")

describe("the NATS broker, JetStream", function()
  local broker, server, publisher, stream, subject

  support.each_broker(function(...)
    broker, server = ...
    publisher = broker:publisher({ confirm = true })
    stream, subject = support.name("STREAM"), support.name("subject")
    assert(broker:stream({ name = stream, subjects = { subject, subject .. ".>" } }):create())
  end)

  local function subscribe(opts)
    local all = { name = subject, stream = stream }
    for name, value in pairs(opts or {}) do
      all[name] = value
    end
    return assert(broker:subscribe(assert(nats.jetstream(all))))
  end

  local function fill(count)
    for i = 1, count do
      assert(publisher:publish(subject, "m" .. i))
    end
  end

  it("confirms what is published with its place", function()
    local done, receipt = publisher:publish(subject, "x")
    assert.is_true(done)
    assert.same({ stream = stream, sequence = 1, duplicate = false }, receipt)
    assert.equal(2, select(2, publisher:publish(subject, "x")).sequence)
    fails("no_stream", publisher:publish("nowhere", "x"))
  end)

  it("stores a message of one id once", function()
    assert.is_false(select(2, publisher:publish(subject, "x", nil, { message_id = "one" })).duplicate)
    local _, receipt = publisher:publish(subject, "x", nil, { message_id = "one" })
    assert.is_true(receipt.duplicate)
    assert.equal(1, receipt.sequence)
    assert.equal(1, broker:stream({ name = stream }):info().messages)
  end)

  it("refuses what does not come next", function()
    assert(publisher:publish(subject, "x", nil, { message_id = "a", expect_last_sequence = 0 }))
    fails("conflict", publisher:publish(subject, "x", nil, { expect_last_sequence = 5 }))
    fails("conflict", publisher:publish(subject, "x", nil, { expect_last_subject_sequence = 5 }))
    fails("conflict", publisher:publish(subject, "x", nil, { expect_last_message_id = "b" }))
    fails("conflict", publisher:publish(subject, "x", nil, { expect_stream = "OTHER" }))
    fails("conflict", broker:publisher({ confirm = true, stream = "OTHER" }):publish(subject, "x"))
    assert(publisher:publish(subject, "x", nil, { expect_last_sequence = 1, expect_last_message_id = "a" }))
  end)

  it("publishes a batch with a result for each", function()
    local items = {}
    for i = 1, 2000 do
      items[i] = { subject, tostring(i) }
    end
    local done, err, results, receipts = publisher:publish_batch(items)
    assert.is_nil(err)
    assert.is_true(done)
    assert.equal(2000, #results)
    assert.equal(2000, receipts[2000].sequence)
    local mixed = {
      { subject, "good" },
      { "nowhere", "bad" },
      { subject, "good", { bad = "" } },
      { subject, "good", nil, { expect_last_sequence = 1 } },
    }
    done, err, results = publisher:publish_batch(mixed)
    assert.is_nil(done)
    assert.equal("no_stream", err.code)
    assert.is_true(results[1])
    assert.equal("no_stream", results[2].code)
    assert.equal("unsupported", results[3].code)
    assert.equal("conflict", results[4].code)
  end)

  describe("where confirmations take their time", function()
    -- A service that stands for a stream, and answers when it is told to.
    local slow, held

    before_each(function()
      slow, held = support.name("slow"), {}
      local subscription = assert(broker:subscribe(assert(nats.subject(slow))))
      tasks.spawn(function()
        local message = subscription:next()
        while message do
          held[#held + 1] = message
          message = subscription:next()
        end
      end)
    end)

    local function confirm(message, sequence)
      local answer = ('{"stream":"X","seq":%d}'):format(sequence)
      assert(broker:publisher({ confirm = false }):publish(message.reply_to, answer))
    end

    local function publishing(payload, timeout)
      return tasks.spawn(function()
        local done, err = publisher:publish(slow, payload, nil, { timeout = timeout })
        return done and err.sequence or err.code
      end)
    end

    it("says at once that another destination has no stream", function()
      local task = publishing("a", 30)
      eventually(function()
        return #held == 1
      end)
      local begin = runtime.now()
      fails("no_stream", publisher:publish("nowhere", "x"))
      fails("no_stream", publisher:publish("nowhere", "x"))
      assert.is_true(runtime.now() - begin < 10)
      confirm(held[1], 7)
      assert.equal(7, task:join(5))
    end)

    it("gives each of many its own, in whatever order they come", function()
      local tasks_of = {}
      for i = 1, 50 do
        tasks_of[i] = publishing(tostring(i), 30)
      end
      eventually(function()
        return #held == 50
      end)
      for i = 50, 1, -1 do
        confirm(held[i], tonumber(held[i].payload))
      end
      for i = 1, 50 do
        assert.equal(i, tasks_of[i]:join(5))
      end
    end)

    it("lets a late one find nobody", function()
      assert.equal("timeout", publishing("a", 0.05):join(5))
      local task = publishing("b", 30)
      eventually(function()
        return #held == 2
      end)
      confirm(held[1], 1)
      confirm(held[2], 2)
      assert.equal(2, task:join(5))
    end)

    it("gives up those of a batch that are missing, and keeps the others", function()
      local batch = tasks.spawn(function()
        local items = { { slow, "a" }, { subject, "b" }, { slow, "c" }, { "nowhere", "d" } }
        return { broker:publisher({ confirm = true, timeout = 0.3 }):publish_batch(items) }
      end)
      eventually(function()
        return #held == 2
      end)
      confirm(held[2], 9)
      local got = batch:join(5)
      local results, receipts = got[3], got[4]
      assert.equal("timeout", got[2].code)
      assert.same({ "timeout", true, true, "no_stream" },
        { results[1].code, results[2], results[3], results[4].code })
      assert.same({ 1, 9 }, { receipts[2].sequence, receipts[3].sequence })
    end)

    it("has no subscription of those that nobody waits for", function()
      local function open()
        local count = 0
        for _ in pairs(broker.connection.receipts.open) do
          count = count + 1
        end
        return count
      end
      for _ = 1, 20 do
        assert.equal("timeout", publishing("a", 0.01):join(5))
        fails("no_stream", publisher:publish("nowhere", "x"))
      end
      assert.equal(0, open())
      for i = 1, 100 do
        fails("no_stream", publisher:publish("nowhere." .. i, "x"))
        assert(publisher:publish(subject .. "." .. i, "x"))
      end
      assert.is_true(open() <= 33)
    end)

    it("fails them when the broker is shut down", function()
      local task = publishing("a", 30)
      eventually(function()
        return #held == 1
      end)
      broker:shutdown(2)
      assert.equal("closed", task:join(5))
    end)
  end)

  it("counts only the first of several confirmations", function()
    local slow = support.name("slow")
    local subscription = assert(broker:subscribe(assert(nats.subject(slow))))
    local first = tasks.spawn(function()
      return publisher:publish(slow, "a")
    end)
    local second = tasks.spawn(function()
      return select(2, publisher:publish(slow, "b", nil, { timeout = 30 })).sequence
    end)
    local plain = broker:publisher({ confirm = false })
    local a, b = assert(subscription:next(5)), assert(subscription:next(5))
    assert(plain:publish(a.reply_to, '{"stream":"X","seq":1}'))
    assert(plain:publish(a.reply_to, '{"stream":"X","seq":1}'))
    assert.is_true(first:join(5))
    subscription:close()
    assert(plain:flush(5))
    fails("timeout", publisher:publish(slow, "c", nil, { timeout = 0.2 })) -- who of the two went nowhere?
    assert(plain:publish(b.reply_to, '{"stream":"X","seq":2}'))
    assert.equal(2, second:join(5))
    fails("no_stream", publisher:publish(slow, "d"))
  end)

  it("says that an acknowledgement came to nobody, if it is to be confirmed", function()
    fill(1)
    local subscription = subscribe({ durable = "d", confirm_ack = true })
    local message = assert(subscription:next(5))
    assert(broker.api:call(("CONSUMER.DELETE.%s.d"):format(stream), nil, runtime.now() + 5))
    fails("lost", message:ack())
  end)

  it("asks for no more at a time than the consumer allows", function()
    local config = { durable_name = "few", ack_policy = "explicit", max_batch = 3 }
    local what = ("CONSUMER.DURABLE.CREATE.%s.few"):format(stream)
    assert(broker.api:call(what, { stream_name = stream, config = config }, runtime.now() + 5))
    fill(50)
    local subscription = subscribe({ durable = "few" })
    for i = 1, 50 do
      local message = assert(subscription:next(5))
      assert.equal("m" .. i, message.payload)
      assert(message:ack())
    end
    assert.is_true(subscription:stats().window <= 3)
  end)

  it("ends when the consumer takes no such requests", function()
    local config = { durable_name = "short", ack_policy = "explicit", max_expires = 1000000000 }
    local what = ("CONSUMER.DURABLE.CREATE.%s.short"):format(stream)
    assert(broker.api:call(what, { stream_name = stream, config = config }, runtime.now() + 5))
    fails("refused_request", subscribe({ durable = "short" }):next(5))
  end)

  it("does not keep asking where too many wait already", function()
    local config = { durable_name = "one", ack_policy = "explicit", max_waiting = 1 }
    local what = ("CONSUMER.DURABLE.CREATE.%s.one"):format(stream)
    assert(broker.api:call(what, { stream_name = stream, config = config }, runtime.now() + 5))
    local first, second = subscribe({ durable = "one" }), subscribe({ durable = "one" })
    tasks.spawn(function()
      first:next(5)
    end)
    eventually(function()
      return first:lag().waiting == 1
    end)
    fails("timeout", second:next(1))
    assert.is_true(second.asked < 10, tostring(second.asked))
    assert.matches("Exceeded MaxWaiting", second:stats().refused)
    first:stop()
  end)

  it("keeps nothing of messages that are not to be acknowledged", function()
    local config = { durable_name = "free", ack_policy = "none" }
    local what = ("CONSUMER.DURABLE.CREATE.%s.free"):format(stream)
    assert(broker.api:call(what, { stream_name = stream, config = config }, runtime.now() + 5))
    fill(100)
    local subscription = subscribe({ durable = "free" })
    for _ = 1, 100 do
      assert(subscription:next(5))
    end
    local stats = subscription:stats()
    assert.equal(0, stats.unsettled)
    assert.is_true(stats.window > 16)
  end)

  it("is closed at once for whoever asks while it closes", function()
    local subscription = subscribe({ durable = "d", ack_wait = 30 })
    fill(1)
    local message = assert(subscription:next(5))
    local closing = tasks.spawn(function()
      return subscription:close()
    end)
    tasks.sleep(0)
    fails("closed", subscription:next(5))
    assert.is_true(closing:join(5))
    fails("lost", message:ack())
    assert.equal("m1", assert(subscribe({ durable = "d" }):next(5)).payload)
  end)

  it("gives back what came behind a report of the server's", function()
    local subscription = subscribe({ durable = "d", ack_wait = 30 })
    fails("timeout", subscription:next(0.01)) -- asks for messages
    assert(broker:publisher({ confirm = false }):publish(subscription.inbox .. ".1", "", { status = "100" }))
    fill(1)
    eventually(function()
      return subscription:stats().queued == 2
    end)
    subscription:close()
    assert.equal("m1", assert(subscribe({ durable = "d" }):next(5)).payload)
  end)

  it("delivers with position, attempts and time, until acknowledged", function()
    fill(3)
    local subscription = subscribe({ durable = "d" })
    for i = 1, 3 do
      local message = assert(subscription:next(5))
      assert.equal("m" .. i, message.payload)
      assert.equal(i, message.position)
      assert.equal(1, message.attempts)
      assert.is_true(math.abs(message.time - runtime.time()) < 60)
      local fields = { stream = stream, consumer = "d", sequence = i, consumer_sequence = i, deliveries = 1 }
      assert.same(fields, message.fields)
      assert(message:ack())
      fails("settled", message:ack())
      fails("settled", message:nack())
      fails("settled", message:extend())
    end
    assert(subscription:close())
    local again = subscribe({ durable = "d" })
    fails("timeout", again:next(0.05))
  end)

  it("brings back what was refused, counted, and drops what is not wanted", function()
    fill(2)
    local subscription = subscribe({ durable = "d" })
    local message = assert(subscription:next(5))
    assert(message:nack())
    fails("settled", message:ack())
    local second = assert(subscription:next(5))
    assert.equal("m2", second.payload)
    local again = assert(subscription:next(5))
    assert.equal("m1", again.payload)
    assert.equal(2, again.attempts)
    assert(again:nack({ requeue = true }))
    again = assert(subscription:next(5))
    assert.equal(3, again.attempts)
    assert(again:nack({ requeue = false }))
    assert(second:ack())
    fails("timeout", subscription:next(0.1))
    assert.equal(0, subscription:lag().unsettled)
  end)

  it("brings back after a delay, not sooner", function()
    fill(1)
    local subscription = subscribe({ durable = "d" })
    assert(assert(subscription:next(5)):nack({ requeue = true, delay = 0.4 }))
    local start = runtime.now()
    local again = assert(subscription:next(10))
    assert.is_true(runtime.now() - start >= 0.39, tostring(runtime.now() - start))
    assert.equal(2, again.attempts)
    assert(again:ack())
  end)

  it("gives a message to another after ack_wait, unless it is extended", function()
    fill(1)
    local one = subscribe({ durable = "d", ack_wait = 0.4 })
    local message = assert(one:next(5))
    for _ = 1, 4 do
      fails("timeout", one:next(0.2))
      assert(message:extend())
    end
    local again = assert(one:next(5))
    assert.equal(2, again.attempts)
    assert(again:ack())
  end)

  it("delivers no more than max_deliver times", function()
    fill(1)
    local subscription = subscribe({ durable = "d", max_deliver = 2 })
    assert(assert(subscription:next(5)):nack())
    assert(assert(subscription:next(5)):nack())
    fails("timeout", subscription:next(0.1))
  end)

  it("holds back at max_ack_pending", function()
    fill(10)
    local subscription = subscribe({ durable = "d", max_ack_pending = 3 })
    local held = {}
    for i = 1, 3 do
      held[i] = assert(subscription:next(5))
    end
    fails("timeout", subscription:next(0.1))
    assert(held[2]:ack())
    assert.equal("m4", assert(subscription:next(5)).payload)
  end)

  it("asks for no more than is taken: a subscription that is not pulled gets nothing", function()
    fill(500)
    local subscription = subscribe({ durable = "d", batch = 32 })
    tasks.sleep(0.1)
    assert.equal(500, subscription:lag().pending)
    assert(assert(subscription:next(5)):ack())
    tasks.sleep(0.1)
    local stats = subscription:stats()
    assert.is_true(stats.queued <= 32 and stats.coming <= 32)
    assert.is_true(subscription:lag().pending >= 500 - 33)
    for i = 2, 300 do
      local message = assert(subscription:next(5))
      assert.equal("m" .. i, message.payload)
      assert(message:ack())
    end
    tasks.sleep(0.1)
    stats = subscription:stats()
    assert.equal(32, stats.window)
    assert.is_true(stats.queued <= 32 and stats.coming <= 32, stats.coming)
    assert.is_true(subscription:lag().pending >= 200 - 32)
    assert.equal(0, subscription:stats().unsettled)
  end)

  it("reads ahead no more than can be handled in half of ack_wait", function()
    fill(100)
    local subscription = subscribe({ durable = "d", ack_wait = 1 })
    for _ = 1, 15 do
      local message = assert(subscription:next(5))
      assert.equal(1, message.attempts)
      tasks.sleep(0.1)
      assert(message:ack())
    end
    assert.is_true(subscription:stats().window <= 5, subscription:stats().window)
  end)

  it("delivers in batches", function()
    fill(10)
    local subscription = subscribe({ durable = "d" })
    local list = assert(subscription:next_batch(4, 1, 5))
    assert.equal(4, #list)
    list = assert(subscription:next_batch(100, 0.05, 5))
    assert.equal(6, #list)
    fails("timeout", subscription:next_batch(3, 0.01, 0.02))
  end)

  it("shares a durable consumer, and gives back at close what was taken", function()
    fill(6)
    local one, two = subscribe({ durable = "d" }), subscribe({ durable = "d" })
    local held = assert(one:next_batch(6, 0.2, 5))
    assert(held[1]:ack())
    assert(one:close())
    fails("lost", held[2]:ack())
    local seen = {}
    for _ = 1, #held - 1 do
      local message = assert(two:next(5))
      seen[message.payload] = message.attempts
      assert(message:ack())
    end
    for i = 2, #held do
      assert.is_true(seen["m" .. i] ~= nil)
    end
  end)

  it("gives back at shutdown what was not settled; settling later fails", function()
    fill(2)
    local subscription = subscribe({ durable = "d", ack_wait = 60 })
    local message = assert(subscription:next(5))
    assert(broker:shutdown(5))
    fails("closed", message:ack())
    fails("closed", message:extend())
    broker = support.broker(server)
    local again = subscribe({ durable = "d" })
    local seen = {}
    for _ = 1, 2 do
      local each = assert(again:next(5))
      seen[each.payload] = true
      assert(each:ack())
    end
    assert.same({ m1 = true, m2 = true }, seen)
  end)

  it("begins where the descriptor says", function()
    fill(3)
    tasks.sleep(0.01)
    local between = runtime.time()
    tasks.sleep(0.01)
    fill(2)
    assert.equal(1, assert(subscribe():next(5)).position)
    assert.equal(5, assert(subscribe({ deliver_policy = "last" }):next(5)).position)
    assert.equal(3, assert(subscribe({ start_sequence = 3 }):next(5)).position)
    assert.equal(4, assert(subscribe({ start_time = between }):next(5)).position)
    local new = subscribe({ deliver_policy = "new" })
    fails("timeout", new:next(0.05))
    fill(1)
    assert.equal(6, assert(new:next(5)).position)
  end)

  it("filters by subject", function()
    assert(publisher:publish(subject .. ".a", "a"))
    assert(publisher:publish(subject .. ".b", "b"))
    local subscription = subscribe({ name = subject .. ".b" })
    assert.equal("b", assert(subscription:next(5)).payload)
    local all = subscribe({ name = subject .. ".*" })
    assert.is_nil(all:address())
    assert.equal(2, #assert(all:next_batch(5, 0.1, 5)))
  end)

  it("seeks: back, forward, to the end and to a time", function()
    fill(10)
    local subscription = subscribe()
    local first = assert(subscription:next_batch(5, 0.1, 5))
    assert(subscription:seek(first[3].position))
    assert.equal("m3", assert(subscription:next(5)).payload)
    assert(subscription:seek(8))
    assert.equal("m8", assert(subscription:next(5)).payload)
    fails("unknown_position", subscription:seek(100))
    assert.equal("m9", assert(subscription:next(5)).payload)
    assert(subscription:seek("end"))
    fails("timeout", subscription:next(0.05))
    fill(1)
    assert.equal(11, assert(subscription:next(5)).position)
    assert(subscription:seek("start"))
    assert.equal(1, assert(subscription:next(5)).position)
    assert(subscription:seek({ time = first[5].time }))
    assert.is_true(assert(subscription:next(5)).position >= 5)
    fails("unsupported", subscribe({ durable = "d" }):seek(1))
    assert.is_nil(broker:capabilities(assert(nats.jetstream({ name = "x", durable = "d" }))).seek)
  end)

  it("shows what waits without taking it", function()
    assert(publisher:publish(subject, "one", { ["content-type"] = "t", ["partition-key"] = "k" }))
    assert(publisher:publish(subject, "\0\255\1", nil))
    local list = assert(broker:browse(subject, 10))
    assert.equal(2, #list)
    assert.equal("one", list[1].payload)
    assert.equal("t", list[1].headers["content-type"])
    assert.equal("k", list[1].key)
    assert.equal("\0\255\1", list[2].payload)
    assert.equal(2, list[2].position)
    assert.is_true(math.abs(list[1].time - runtime.time()) < 60)
    assert.equal(1, #assert(broker:browse(subject, 1)))
    fails("no_stream", broker:browse("nowhere"))
  end)

  it("shows what waits one after the other, and holds one", function()
    for i = 1, 40 do
      assert(publisher:publish(subject, tostring(i) .. ("x"):rep(256 * 1024)))
    end
    local cursor = assert(broker:cursor(subject))
    local before = memory.kept()
    for i = 1, 40 do
      assert.equal(tostring(i), assert(cursor:next(5)).payload:match("^%d+"))
      assert.is_true(memory.kept() - before < 2 * 1024 * 1024)
    end
    assert.same({}, { cursor:next(5) })
    cursor:close()
    fails("no_stream", broker:cursor("nowhere"))
  end)

  it("makes the stream when asked to, and adds subjects to it", function()
    local name = support.name("MADE")
    local create = { storage = "memory", retention = "workqueue", max_msgs = 100, max_age = 700000 }
    local one = assert(nats.jetstream({ name = name .. ".a", stream = name, durable = "a", create = create }))
    local two = assert(nats.jetstream({ name = name .. ".b", stream = name, durable = "b", create = create }))
    fails("stream_not_found", broker:subscribe(nats.jetstream({ name = name .. ".a", stream = name })))
    assert(broker:subscribe(one))
    assert(broker:subscribe(two))
    assert(broker:subscribe(one))
    local info = assert(broker:stream({ name = name }):info())
    table.sort(info.subjects)
    assert.same({ name .. ".a", name .. ".b" }, info.subjects)
    assert.equal("memory", info.storage)
    assert.equal("workqueue", info.retention)
    assert.equal(700000, info.max_age)
    assert(publisher:publish(name .. ".b", "x"))
  end)

  it("changes the consumer that is there, and says what cannot be changed", function()
    subscribe({ durable = "d", ack_wait = 10 })
    subscribe({ durable = "d", ack_wait = 20 })
    subscribe({ durable = "d" })
    fails("rejected", broker:subscribe(nats.jetstream({
      name = subject,
      stream = stream,
      durable = "d",
      deliver_policy = "new",
    })))
  end)

  it("updates, purges and deletes streams", function()
    fill(5)
    local handle = broker:stream({ name = stream, max_msgs = 3 })
    assert.equal(3, assert(handle:update()).messages)
    assert.equal("m4", assert(handle:get(4)).payload)
    fails("not_found", handle:get(1))
    assert.equal(2, assert(handle:purge({ keep = 1 })))
    assert.equal(1, assert(handle:purge()))
    assert.is_true(handle:delete())
    fails("stream_not_found", handle:info())
    fails("stream_not_found", handle:delete())
  end)

  it("ends a subscription whose consumer somebody deletes", function()
    local subscription = subscribe({ durable = "d" })
    local task = tasks.spawn(function()
      return select(2, subscription:next(10)).code
    end)
    tasks.sleep(0.05)
    assert(broker:stream({ name = stream }):delete())
    assert.equal("consumer_deleted", task:join(10))
  end)

  it("confirms by default when the broker is made so, and names are then of the stream", function()
    local name = support.name("MADE")
    local other = support.broker(server, { jetstream = { stream = name, create = { storage = "memory" } } })
    local descriptor = assert(other:descriptor({ name = name .. ".x", durable = "w" }))
    assert.equal("jetstream", descriptor.kind)
    assert.is_true(other:capabilities().ack and other:capabilities(descriptor).persist)
    local subscription = assert(other:subscribe(descriptor))
    local _, receipt = other:publisher():publish(name .. ".x", "y")
    assert.equal(name, receipt.stream)
    assert(assert(subscription:next(5)):ack())
  end)

  it("says that a server has no JetStream", function()
    local plain = servers.start({ jetstream = false })
    local other = support.broker(plain)
    fails("unsupported", other:subscribe(nats.jetstream({ name = "x" })))
    fails("unsupported", other:kv("bucket"))
    support.shut_down()
    plain:stop()
  end)
end)
