local found = pcall(require, "weir.brokers.lmdb")
local helper = require("spec.lua.broker.memory.support")
local memory = require("weir.broker.memory")
local new_clock = require("weir.test.clock")
local runtime = require("weir.runtime")
local shell = require("spec.house.shell")
local support = require("spec.lua.support")

describe("a memory broker whose process ends", function()
  if not found then
    pending("this build has no LMDB")
    return
  end

  local dir, remove, broker, publisher, clock

  -- A clock that stands still, at this moment of the real time or `later` seconds after.
  local function clock_at(later)
    return new_clock(runtime.time() + (later or 0))
  end

  local function open(options, later)
    clock = clock_at(later)
    local with = { dir = dir, clock = clock, store = { sync = false } }
    for name, value in pairs(options or {}) do
      with[name] = value
    end
    broker = memory.new(with)
    local ok, err = broker:connect()
    if not ok then
      return nil, err
    end
    publisher = broker:publisher()
    return broker
  end

  local function reopen(options, later)
    assert(broker:shutdown())
    return assert(open(options, later))
  end

  local function billing(more)
    local options = { group = "billing", durable = true }
    for name, value in pairs(more or {}) do
      options[name] = value
    end
    return assert(broker:subscribe(memory.topic("orders.>", options)))
  end

  -- Takes all that waits: "payload/attempts ...".
  local function take_all(subscription, each)
    local list = {}
    local message = subscription:try_next()
    while message do
      list[#list + 1] = message.payload .. "/" .. message.attempts
      if each then
        each(message)
      end
      message = subscription:try_next()
    end
    return table.concat(list, " ")
  end

  local function publish(...)
    for _, payload in ipairs({ ... }) do
      assert(publisher:publish("orders.new", payload))
    end
  end

  before_each(function()
    dir, remove = shell.scratch()
    assert(open())
  end)

  after_each(function()
    broker:shutdown()
    remove()
  end)

  it("keeps what a durable group has not acknowledged, with everything that belongs to it", function()
    billing():stop()
    local headers = { ["content-type"] = "text/plain", ["partition-key"] = "k", ["reply-to"] = "there" }
    assert(publisher:publish("orders.new", "\0one\xff", headers))
    publish("two")
    reopen()
    local subscription = billing()
    local message = assert(subscription:try_next())
    assert.equal("\0one\xff", message.payload)
    assert.same(headers, message.headers)
    assert.equal("orders.new", message.destination)
    assert.equal("k", message.key)
    assert.equal("there", message.reply_to)
    assert.equal(1, message.attempts)
    assert.is_true(math.abs(message.time - runtime.time()) < 60)
    assert(message:ack())
    reopen()
    assert.equal("two/1", take_all(billing()))
  end)

  it("has the group before anybody subscribes to it again", function()
    billing():close()
    publish("one")
    reopen()
    publish("two")
    reopen()
    assert.equal("one/1 two/1", take_all(billing()))
  end)

  it("keeps nothing of groups that are not durable", function()
    local plain = assert(broker:subscribe(memory.topic("orders.>", { group = "plain", durable = false })))
    publish("one")
    assert.equal("one/1", take_all(plain))
    reopen()
    plain = assert(broker:subscribe(memory.topic("orders.>", { group = "plain", durable = false })))
    assert.equal("", take_all(plain))
    assert.equal(0, broker:stats().store.messages)
  end)

  it("counts the attempts of before", function()
    local subscription = billing()
    publish("taken", "again", "fresh")
    subscription:try_next()
    assert(subscription:try_next():nack())
    assert.equal("again/2", (function()
      local message = subscription:try_next()
      return message.payload .. "/" .. message.attempts
    end)())
    reopen()
    assert.equal("taken/2 again/3 fresh/1", take_all(billing()))
    reopen()
    assert.equal("taken/3 again/4 fresh/2", take_all(billing()))
  end)

  it("keeps to the time of what was put back with a delay, by the clock on the wall", function()
    local subscription = billing()
    publish("delayed", "dropped", "ready")
    assert(subscription:try_next():nack({ delay = 100 }))
    assert(subscription:try_next():nack({ requeue = false }))
    reopen(nil, 40)
    subscription = billing()
    assert.equal("ready/1", take_all(subscription))
    clock.advance(59)
    assert.equal("", take_all(subscription))
    clock.advance(2)
    assert.equal("delayed/2", take_all(subscription))
    reopen(nil, 200)
    assert.equal("delayed/3 ready/2", take_all(billing()))
  end)

  it("keeps what is retained, and seeks in it", function()
    reopen({ retention = { messages = 3 } })
    for number = 1, 5 do
      publish(tostring(number))
    end
    reopen({ retention = { messages = 3 } })
    local subscription = assert(broker:subscribe(memory.topic("orders.>", { from = "start" })))
    assert.equal("3/1 4/1 5/1", take_all(subscription))
    publish("6")
    assert.equal("6/1", take_all(subscription))
    local durable = billing({ from = "start" })
    assert.equal("4/1 5/1 6/1", take_all(durable, function(message)
      message:ack()
    end))
    assert(durable:seek("start"))
    reopen({ retention = { messages = 3 } })
    assert.equal("4/1 5/1 6/1", take_all(billing()))
  end)

  it("never gives a position twice", function()
    local subscription = billing()
    publish("one")
    local message = subscription:try_next()
    local position = message.position
    assert(message:ack())
    reopen()
    subscription = billing()
    publish("two")
    assert.is_true(subscription:try_next().position > position)
  end)

  it("shows a message to nobody before it is stored, nor at all when it cannot be", function()
    reopen({ store = { sync = false, max_bytes = "1 MiB" } })
    local subscription = billing()
    support.fails("full", publisher:publish("orders.new", ("x"):rep(2 * 1024 * 1024)))
    assert.equal("", take_all(subscription))
    publish("small")
    assert.equal("small/1", take_all(subscription))
  end)

  it("commits a transaction as a whole", function()
    billing():stop()
    local transaction = publisher:transaction()
    assert(transaction:publish("orders.new", "one"))
    assert(transaction:publish("orders.new", "two"))
    assert(transaction:commit())
    transaction = publisher:transaction()
    assert(transaction:publish("orders.new", "never"))
    transaction:abort()
    reopen()
    assert.equal("one/1 two/1", take_all(billing()))
  end)

  it("stores a batch with one commit", function()
    local subscription = billing()
    local before = broker:stats().store.commits
    assert(publisher:publish_batch({ { "orders.new", "one" }, { "orders.new", "two" }, { "elsewhere", "three" } }))
    assert.equal(before + 1, broker:stats().store.commits)
    assert.equal("one/1 two/1", take_all(subscription))
    local ok, err, results = publisher:publish_batch({ { "orders.new", "four" }, { "orders..new", "five" } })
    assert.is_nil(ok)
    assert.equal("invalid", err.code)
    assert.same({ true, err }, results)
    reopen()
    assert.equal("one/2 two/2 four/1", take_all(billing()))
  end)

  it("does not share its directory", function()
    local other = memory.new({ dir = dir })
    local err = support.fails("locked", other:connect())
    assert.equal(dir, err.dir)
    local state, reason = other:state()
    assert.equal("failed", state)
    assert.equal(err, reason)
    broker:shutdown()
    assert(open())
  end)

  it("refuses unknown options of the store at once", function()
    assert.has_error(function()
      memory.new({ dir = dir, store = { max_byte = 1 } })
    end)
  end)

  -- --- kill -9 ----------------------------------------------------------------------------------

  -- Runs the service until it has printed so many lines, and kills it. Adds what it said to the sets; returns the
  -- highest number.
  local function kill_service(sync, lines, first, said)
    local highest = first
    helper.kill(("crash_child.lua %s %s %d"):format(dir, sync, first), lines, function(kind, number)
      said[kind][number] = true
      highest = math.max(highest, number)
    end)
    return highest
  end

  -- What the group has to get: as { [number] = attempts }, each once, and in the order of positions but for those put
  -- back.
  local function survivors(subscription, said)
    local seen, position = {}, 0
    take_all(subscription, function(message)
      local number = tonumber(message.payload)
      assert.is_nil(seen[number], "twice: " .. number)
      assert.equal(message.payload, message.headers.number)
      seen[number] = message.attempts
      if not said.d[number] and message.attempts == 1 then
        assert.is_true(message.position > position)
        position = message.position
      end
    end)
    return seen
  end

  for _, sync in ipairs({ "sync", "nosync" }) do
    it("loses nothing when its process is killed at any moment (" .. sync .. ")", function()
      broker:shutdown()
      math.randomseed(sync == "sync" and 3 or 4)
      local said = { p = {}, s = {}, a = {}, t = {}, d = {} }
      local number = 0
      for _ = 1, 8 do
        number = kill_service(sync, math.random(1, 500), number, said) + 100
        assert(open({ capacity = { messages = 100000 } }))
        local subscription = billing()
        local now = survivors(subscription, said)
        for each in pairs(said.d) do
          assert.is_nil(now[each], "before its time: " .. each)
        end
        for each in pairs(said.a) do
          assert.is_nil(now[each], "acknowledged and there: " .. each)
        end
        for each in pairs(said.p) do
          -- What is divisible by 7 may have been put back without a word.
          if not said.s[each] and (each % 7 ~= 0 or each % 11 == 0) then
            assert.is_truthy(now[each], "confirmed and lost: " .. each)
          end
        end
        for each in pairs(said.t) do
          assert.is_true(now[each] >= 2, "not counted: " .. each)
        end
        clock.advance(3700)
        for each, attempts in pairs(survivors(subscription, said)) do
          now[each] = attempts
        end
        for each in pairs(said.p) do
          assert.is_truthy(said.s[each] or now[each], "put back and lost: " .. each)
        end
        subscription:close()
        broker:shutdown()
        said.d = {} -- they are ready from now on
      end
      assert.is_truthy(next(said.a) and next(said.t))
    end)
  end
end)
