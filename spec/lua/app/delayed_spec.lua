local delayed = require("weir.app.delayed")
local new_clock = require("weir.test.clock")
local outcome = require("weir.outcome")
local pipe = require("spec.lua.app.pipe")
local runtime = require("weir.runtime")
local weir = require("weir")
local run = pipe.run

local COUNTS_NOTHING = { "attempts", "delay" }
local LATER = { retry = { backoff = { initial = 10, jitter = 0, factor = 2 }, max_attempts = 3 } }

local AT_ONCE = { on_failure = "dead_letter", dead_letter = { to = "dead" } }

local function with(policy, more)
  local copy = {}
  for name, value in pairs(policy) do
    copy[name] = value
  end
  for name, value in pairs(more) do
    copy[name] = value
  end
  return copy
end

-- A topic with room for one message, which is there: publishing to it fails.
local function full_topic(t, name)
  local descriptor = assert(t.broker:descriptor({ name = name, group = "g", durable = true, overflow = "reject",
    capacity = { messages = 1 } }))
  local subscription = assert(t.broker:subscribe(descriptor))
  t:send(name, "in the way")
  return {
    room = function()
      assert(subscription:next(1)):ack()
    end,
    next = function()
      return assert(subscription:next(1))
    end,
  }
end

describe("a retry", function()
  it("comes back when the backoff says, by the broker where that counts and delays", function()
    run(function(t)
      local attempts, times = {}, {}
      local running = t:start("in", { policy = LATER }, function(_, ctx)
        attempts[#attempts + 1], times[#times + 1] = ctx.attempt, t.clock.now()
        return nil, "again"
      end)
      local began = t.clock.now()
      t:send("in", {})
      t:counted(running, "retry", 1)
      t:advance(9.9)
      assert.equal(1, #attempts)
      t:advance(0.1)
      t:counted(running, "retry", 2)
      t:advance(20)
      t:counted(running, "drop", 1)
      assert.same({ 1, 2, 3 }, attempts)
      assert.same({ 0, 10, 30 }, { times[1] - began, times[2] - began, times[3] - began })
    end)
  end)

  it("comes when the handler said", function()
    run(function(t)
      local calls = 0
      local running = t:start("in", function()
        calls = calls + 1
        return calls == 1 and outcome.retry({ after = 100 }) or nil
      end)
      t:send("in", {})
      t:counted(running, "retry", 1)
      t:advance(99)
      assert.equal(1, calls)
      t:advance(1)
      t:counted(running, "ack", 1)
    end)
  end)

  it("is a copy where the broker counts nothing, with the attempt and the time in its headers", function()
    run({ without = COUNTS_NOTHING }, function(t)
      local seen = {}
      local running = t:start("in", { policy = LATER }, function(value, ctx)
        assert.equal(1, value.n)
        seen[#seen + 1] = { attempt = ctx.attempt, headers = ctx.headers, payload = ctx.payload, key = ctx.key }
        return nil, "again"
      end)
      t:send("in", '{ "n": 1 }', { mine = "kept", ["partition-key"] = "k", ["message-id"] = "id" })
      t:counted(running, "retry", 1)
      t:until_true(function()
        return running:stats().held == 1
      end)
      t:advance(9.9)
      assert.equal(1, #seen)
      t:advance(0.1)
      t:counted(running, "retry", 2)
      t:advance(20)
      t:counted(running, "drop", 1)
      assert.equal(3, #seen)
      for attempt, each in ipairs(seen) do
        assert.equal(attempt, each.attempt)
        assert.equal('{ "n": 1 }', each.payload)
        assert.equal("kept", each.headers.mine)
        assert.equal("k", each.key)
        assert.equal("id", each.headers["message-id"])
      end
      assert.equal("in", seen[2].headers["weir-original-destination"])
      assert.equal("in", seen[2].headers["weir-retry-for"])
      assert.equal(seen[2].headers["weir-first-failure"], seen[3].headers["weir-first-failure"])
      assert.equal(0, running:stats().in_flight)
      assert.equal(0, running.subscription:stats().queued)
    end)
  end)

  it("and a dead letter have ids and a trace, also where the message had none", function()
    run({ without = { "attempts" } }, function(t)
      local copies, letters = t:spy("in"), t:spy("dead")
      t:start("in", { policy = {
        retry = { max_attempts = 2, backoff = "none" },
        dead_letter = { to = "dead" },
      } }, function()
        return nil, "no"
      end)
      t:send("in", "1")
      t:until_true(function()
        return #letters == 1
      end)
      assert.is_nil(copies[1].headers["message-id"])
      local copy, letter = copies[2].headers, letters[1].headers
      assert.is_string(copy["message-id"])
      assert.equal(copy["message-id"], letter["message-id"])
      assert.equal(copy["message-id"], letter["correlation-id"])
      assert.equal(copy.traceparent, letter.traceparent)
      assert.matches("^00%-%x+%-%x+%-01$", letter.traceparent)
    end)
  end)

  it("that is a copy is left alone by other subscriptions", function()
    run({ without = COUNTS_NOTHING }, function(t)
      local calls = {}
      local function note(name, fails)
        return function()
          calls[name] = (calls[name] or 0) + 1
          return not fails or nil, fails
        end
      end
      -- What the broker calls the address of a group gets to that group alone; the topic gets to all.
      local policy = with(LATER, { retry = with(LATER.retry, { to = "in" }) })
      local one = t:start("in", { id = "one", policy = policy }, note("one", "again"))
      local two = t:start("in", { id = "two" }, note("two"))
      t:send("in", {})
      t:counted(one, "retry", 1)
      t:counted(two, "skip", 1)
      t:advance(10)
      t:counted(one, "retry", 2)
      assert.equal(2, calls.one)
      assert.equal(1, calls.two)
    end)
  end)

  it("that is a copy is published before the original is acknowledged, which stays when that fails", function()
    run({ without = COUNTS_NOTHING }, function(t)
      local topic = full_topic(t, "later")
      local policy = with(LATER, { retry = with(LATER.retry, { to = "later" }) })
      local running = t:start("in", { policy = policy }, function()
        return nil, "again"
      end)
      t:send("in", {})
      t:until_true(function()
        return t:logged("could not publish the copy")
      end)
      assert.equal("degraded", running:stats().state)
      assert.equal(1, running.subscription:stats().unsettled)
      assert.equal(1, running:stats().held)
      t:advance(0.5)
      assert.equal(1, running.subscription:stats().unsettled)
      topic.room()
      t:advance(1)
      t:counted(running, "retry", 1)
      assert.equal(0, running.subscription:stats().unsettled)
      assert.equal("2", topic.next().headers["weir-attempt"])
      assert.equal("up", running:stats().state)
    end)
  end)

  it("is made in this process where messages cannot be settled", function()
    run({ without = { "ack" } }, function(t)
      local attempts = {}
      local running = t:start("in", { policy = LATER }, function(_, ctx)
        attempts[#attempts + 1] = ctx.attempt
        return nil, "again"
      end)
      t:send("in", {})
      t:counted(running, "retry", 1)
      t:advance(10)
      t:counted(running, "retry", 2)
      t:advance(20)
      t:counted(running, "drop", 1)
      assert.same({ 1, 2, 3 }, attempts)
    end)
  end)

  it("does not wait until no other message is left", function()
    run({ without = COUNTS_NOTHING }, function(t)
      local order = {}
      local running = t:start("in", { policy = LATER }, function(value, ctx)
        order[#order + 1] = value.name
        if value.name == "late" and ctx.attempt == 1 then
          return nil, "again"
        end
        local stop = weir.now() + 0.001
        while weir.now() < stop do
        end
      end)
      t:send("in", { name = "late" })
      t:until_true(function()
        return running:stats().held == 1
      end)
      for _ = 1, 200 do
        t:send("in", { name = "other" })
      end
      t.clock.advance(10)
      t:counted(running, "ack", 201)
      assert.equal(202, #order)
      assert.not_equal("late", order[202])
    end)
  end)

  it("keeps to one message at a time when its time comes", function()
    run({ without = COUNTS_NOTHING }, function(t)
      local now, most = 0, 0
      local running = t:start("in", { policy = LATER }, function(_, ctx)
        now = now + 1
        most = math.max(most, now)
        weir.sleep(0.002)
        now = now - 1
        if ctx.attempt == 1 then
          return nil, "again"
        end
      end)
      for _ = 1, 5 do
        t:send("in", {})
      end
      t:until_true(function()
        return running:stats().held == 5
      end)
      t.clock.advance(10)
      for _ = 1, 5 do
        t:send("in", {})
      end
      t:counted(running, "ack", 5)
      assert.equal(1, most)
    end)
  end)
end)

describe("a dead letter", function()
  it("that cannot be published leaves the message where it is, and is tried again", function()
    run({ without = { "delay" } }, function(t)
      local topic = full_topic(t, "dead")
      local calls = 0
      local running = t:start("in", { policy = AT_ONCE }, function()
        calls = calls + 1
        error("poison")
      end)
      t:send("in", '{"poison":true}')
      t:until_true(function()
        return t:logged("could not publish a dead letter")
      end)
      assert.equal("degraded", running:stats().state)
      assert.equal(1, running.subscription:stats().unsettled)
      for _ = 1, 3 do
        t:advance(60)
      end
      assert.equal(0, running:stats().dead_letter)
      assert.equal(1, calls)
      topic.room()
      t:advance(60)
      t:counted(running, "dead_letter", 1)
      local letter = topic.next()
      assert.equal('{"poison":true}', letter.payload)
      assert.matches("poison", letter.headers["weir-error"])
      assert.equal(0, running.subscription:stats().unsettled)
      assert.equal("up", running:stats().state)
    end)
  end)

  it("that cannot be published comes back later from a broker that delays", function()
    run(function(t)
      local topic = full_topic(t, "dead")
      local running = t:start("in", { policy = AT_ONCE }, function()
        error("poison")
      end)
      t:send("in", {})
      t:counted(running, "retry", 1)
      assert.equal(0, running.subscription:stats().unsettled)
      topic.room()
      t:advance(60)
      t:counted(running, "dead_letter", 1)
    end)
  end)

  it("to a broker that is not there leaves the message where it is", function()
    run(function(t)
      local running = t:start("in", {
        policy = { on_failure = "dead_letter", dead_letter = { to = "dead", broker = "nowhere" } },
      }, function()
        error("poison")
      end)
      t:send("in", {})
      t:counted(running, "retry", 1)
      assert.is_true(t:logged("nowhere"))
      assert.equal(0, running:stats().drop)
    end)
  end)

  it("says what went wrong in one line of bounded length", function()
    run(function(t)
      local dead = t:spy("dead")
      t:start("in", { policy = { on_failure = "dead_letter", dead_letter = { to = "dead" } } }, function()
        error("a\r\nb\0c" .. ("x"):rep(5000), 0)
      end)
      t:send("in", {})
      t:until_true(function()
        return #dead == 1
      end)
      local text = dead[1].headers["weir-error"]
      assert.matches("^a b c", text)
      assert.is_true(#text < 1100)
    end)
  end)

  it("keeps the time and the place of the first failure through its retries", function()
    run({ without = COUNTS_NOTHING }, function(t)
      local dead = t:spy("dead")
      local running = t:start("in", { policy = with(LATER, { dead_letter = { to = "dead" } }) }, function()
        error("no")
      end)
      t:send("in", {})
      t:counted(running, "retry", 1)
      t:until_true(function()
        return running:stats().held == 1
      end)
      t:advance(10)
      t:counted(running, "retry", 2)
      t:until_true(function()
        return running:stats().held == 1
      end)
      t:advance(20)
      t:counted(running, "dead_letter", 1)
      t.settle()
      local headers = dead[1].headers
      assert.equal("3", headers["weir-attempt"])
      assert.equal("in", headers["weir-original-destination"])
      assert.is_true(headers["weir-first-failure"] < headers["weir-dead-lettered"])
      assert.is_nil(headers["weir-retry-for"])
      assert.is_nil(headers["weir-not-before"])
    end)
  end)
end)

describe("headers of copies that somebody made up", function()
  it("neither break the count nor hold a message for ever", function()
    run(function(t)
      local attempts = {}
      local running = t:start("in", function(_, ctx)
        attempts[#attempts + 1] = ctx.attempt
      end)
      for _, claim in ipairs({ "1e999", "1e9", "-5", "nan", "x", "2.5", "7", "" }) do
        t:send("in", {}, { ["weir-attempt"] = claim })
      end
      t:counted(running, "ack", 8)
      assert.same({ 1, 1, 1, 1, 1, 1, 7, 1 }, attempts)
      for _, claim in ipairs({ "x", "nan", "-1", "" }) do
        t:send("in", {}, { ["weir-not-before"] = claim })
      end
      t:counted(running, "ack", 12)
      t:send("in", {}, { ["weir-not-before"] = "1e300" })
      t:until_true(function()
        return running:stats().held == 1
      end)
      t:advance(delayed.LONGEST)
      t:counted(running, "ack", 13)
    end)
  end)
end)

describe("what is held", function()
  it("comes out in the order in which it is due", function()
    local clock = new_clock(0)
    local held, out = delayed.new(clock), {}
    weir.run(function()
      for _, seconds in ipairs({ 5, 1, 4, 2, 3, 2, 9, 0.5 }) do
        held:add(seconds, seconds, print)
      end
      local task = weir.spawn(function()
        while true do
          local item = held:take()
          if not item then
            return
          end
          out[#out + 1] = item.message
        end
      end)
      for _ = 1, 10 do
        clock.advance(1)
        weir.sleep(0)
        weir.sleep(0)
      end
      task:cancel()
      task:join(1)
    end)
    assert.same({ 0.5, 1, 2, 2, 3, 4, 5, 9 }, out)
  end)

  it("is bounded: at the limit there is a wait for room", function()
    local clock = new_clock(0)
    local held = delayed.new(clock, 2)
    weir.run(function()
      held:add(1, "a", print)
      assert.is_nil(held:wait_for_room())
      held:add(2, "b", print)
      local through = false
      weir.spawn(function()
        held:wait_for_room()
        through = true
      end)
      weir.sleep(0)
      weir.sleep(0)
      assert.is_false(through)
      clock.advance(1)
      assert.equal("a", held:take().message)
      local deadline = runtime.now() + 1
      while not through and runtime.now() < deadline do
        weir.sleep(0.001)
      end
      assert.is_true(through)
    end)
  end)

  it("stops the subscription from pulling at the limit", function()
    run({ without = { "ack" } }, function(t)
      local calls = 0
      local policy = { retry = { backoff = { initial = 1000, jitter = 0, max = 1000 } } }
      local running = t:start("in", { policy = policy }, function()
        calls = calls + 1
        return nil, "again"
      end)
      for _ = 1, 1100 do
        t:send("in", {})
      end
      t:counted(running, "retry", 1000)
      t.settle()
      assert.equal(1000, calls)
      assert.equal(1000, running:stats().held)
      assert.is_true(running.subscription:stats().queued >= 99)
    end)
  end)
end)
