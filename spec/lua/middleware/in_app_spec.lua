-- The middleware that comes with weir, around handlers that run: single messages and batches, by the clock of the
-- broker.
local middleware = require("weir.middleware")
local pipe = require("spec.lua.app.pipe")
local weir = require("weir")

local run = pipe.run
local PATIENT = { retry = { max_attempts = 9, backoff = "none" } }

-- The number that a gauge has now.
local function depth(t)
  return t.metrics:value("weir_queue_depth")
end

describe("the rate limit around a handler", function()
  it("pulls no more than it may handle: the rest waits in the broker", function()
    run(function(t)
      local handled = {}
      local limit = middleware.rate_limit({ rate = 1, burst = 2 })
      t:start("in", { middleware = { limit } }, function(value)
        handled[#handled + 1] = value
      end)
      for i = 1, 6 do
        t:send("in", tostring(i))
      end
      t:until_true(function()
        return #handled == 2 and depth(t) == 3
      end)
      t:advance(1)
      assert.same({ 1, 2, 3 }, handled)
      t:advance(3)
      assert.same({ 1, 2, 3, 4, 5, 6 }, handled)
    end)
  end)

  it("counts the messages of batches, and gives them back when the application stops meanwhile", function()
    run(function(t)
      local sizes = {}
      local limit = middleware.rate_limit({ rate = 1, burst = 2 })
      local running = t:start("in", { batch = { max = 2, linger = 1 }, middleware = { limit } }, function(values)
        sizes[#sizes + 1] = #values
      end)
      for i = 1, 6 do
        t:send("in", tostring(i))
      end
      t:until_true(function()
        return #sizes == 1 and running:stats().in_flight == 2
      end)
      t:advance(2)
      assert.same({ 2, 2 }, sizes)
      t:until_true(function()
        return running:stats().in_flight == 2
      end)
      running:close(0)
      assert.equal(2, running:stats().returned)
      assert.equal(4, running:stats().ack)
    end)
  end)

  it("gives each key its share, and brings back what is too much when its turn comes", function()
    run(function(t)
      local handled = {}
      local limit = middleware.rate_limit({
        rate = 1,
        burst = 1,
        excess = "retry",
        by = function(value)
          return value.key
        end,
      })
      local running = t:start("in", { middleware = { limit }, policy = PATIENT }, function(value)
        handled[#handled + 1] = value.key
      end)
      for _, key in ipairs({ "a", "a", "b" }) do
        t:send("in", { key = key })
      end
      t:counted(running, "ack", 2)
      assert.same({ "a", "b" }, handled)
      t:advance(1)
      t:counted(running, "ack", 3)
      assert.same({ "a", "b", "a" }, handled)
    end)
  end)
end)

describe("the circuit breaker around a handler", function()
  for name, batch in pairs({ ["single messages"] = false, batches = { max = 1, linger = 0 } }) do
    it("pulls nothing while it is open, and goes on after the cooldown: " .. name, function()
      run(function(t)
        local calls, well = 0, false
        local breaker, circuit = middleware.circuit_breaker({ failures = 2, cooldown = 30 })
        local running = t:start("in", { batch = batch or nil, middleware = { breaker }, policy = PATIENT }, function()
          calls = calls + 1
          if not well then
            error("down", 0)
          end
        end)
        for i = 1, 5 do
          t:send("in", tostring(i))
        end
        t:until_true(function()
          return circuit:state() == "open"
        end)
        t.settle()
        assert.equal(2, calls)
        assert.is_true(depth(t) >= 3)
        well = true
        t:advance(30)
        t:counted(running, "ack", 5)
        assert.equal(7, calls)
        assert.equal("closed", circuit:state())
      end)
    end)
  end
end)

describe("idempotency around a handler", function()
  it("acknowledges what comes twice, and what comes again though it was done", function()
    run(function(t)
      local handled = {}
      local target = assert(t.broker:descriptor({ name = "in", group = "g", ack_wait = 5 }))
      local options = { descriptor = target, middleware = { middleware.idempotency() }, policy = PATIENT }
      local running = t:start("in", options, function(value)
        handled[#handled + 1] = value
        if value == 2 then
          t.clock.advance(6) -- the broker has given it up by now, and does not take the acknowledgement
        end
      end)
      t:send("in", "1", { ["message-id"] = "one" })
      t:send("in", "1", { ["message-id"] = "one" })
      t:send("in", "2", { ["message-id"] = "two" })
      t:until_true(function()
        return running:stats().redeliveries >= 1 and running:stats().ack >= 3
      end)
      assert.same({ 1, 2 }, handled)
    end)
  end)

  it("handles again what failed, and what its application could not finish", function()
    run(function(t)
      local handled, guard = {}, middleware.idempotency()
      local target = assert(t.broker:descriptor({ name = "in", group = "g", durable = true }))
      local function options()
        return { id = "in", descriptor = target, middleware = { guard }, policy = PATIENT }
      end
      local first = t:start("in", options(), function(_, ctx)
        handled[#handled + 1] = "first " .. ctx.attempt
        if ctx.attempt == 1 then
          return nil, "no"
        end
        weir.sleep(1000)
      end)
      t:send("in", "1", { ["message-id"] = "one" })
      t:until_true(function()
        return #handled == 2
      end)
      first:close(0)
      local second = t:start("in", options(), function(_, ctx)
        handled[#handled + 1] = "second " .. ctx.attempt
      end)
      t:counted(second, "ack", 1)
      assert.same({ "first 1", "first 2", "second 3" }, handled)
    end)
  end)

  it("handles again what its handler gave back, and what it did not end in time", function()
    run(function(t)
      for name, way in pairs({
        back = {
          fn = function(ctx)
            ctx:nack()
          end,
        },
        late = {
          timeout = 5,
          fn = function()
            weir.sleep(1000) -- and goes on as if nothing had happened
          end,
        },
      }) do
        local attempts = {}
        local options = { timeout = way.timeout, middleware = { middleware.idempotency() }, policy = PATIENT }
        local running = t:start(name, options, function(_, ctx)
          attempts[#attempts + 1] = ctx.attempt
          if ctx.attempt == 1 then
            way.fn(ctx)
          end
        end)
        t:send(name, "1", { ["message-id"] = "one" })
        t:until_true(function()
          return #attempts >= 1
        end)
        t:advance(5)
        t:counted(running, "ack", 1)
        assert.same({ 1, 2 }, attempts)
      end
    end)
  end)

  for name, batch in pairs({ ["a message"] = false, ["an element of a batch"] = { max = 1, linger = 0 } }) do
    it("handles again " .. name .. " whose reply could not be published", function()
      run(function(t)
        local full = assert(t.broker:subscribe(assert(t.broker:descriptor({
          name = "out",
          group = "full",
          capacity = { messages = 1 },
          overflow = "reject",
        }))))
        t:send("out", "0")
        local attempts = 0
        local running = t:start("in", {
          batch = batch or nil,
          reply = "out",
          middleware = { middleware.idempotency() },
          policy = { retry = { max_attempts = 9, backoff = "constant" } },
        }, function(value)
          attempts = attempts + 1
          return batch and { value[1] } or value
        end)
        t:send("in", "1", { ["message-id"] = "one" })
        t:counted(running, "retry", 1)
        assert(full:next(1)):ack()
        t:advance(60)
        t:counted(running, "ack", 1)
        assert.equal("1", assert(full:next(1)).payload)
        assert.equal(2, attempts)
        t:send("in", "1", { ["message-id"] = "one" })
        t:counted(running, "ack", 2)
        assert.equal(2, attempts)
      end)
    end)
  end

  it("leaves doubles out of batches, those of one batch too", function()
    run(function(t)
      local got = {}
      local options = { batch = { max = 4, linger = 1 }, middleware = { middleware.idempotency() }, policy = PATIENT }
      local running = t:start("in", options, function(values, ctx)
        got[#got + 1] = table.concat(values, " ")
        assert(#ctx.items == #values and ctx.size == #values)
      end)
      for _, id in ipairs({ "a", "b", "a", "c" }) do
        t:send("in", ('"%s"'):format(id), { ["message-id"] = id })
      end
      t:until_true(function()
        return running:stats().ack == 3
      end)
      assert.equal("a b c", got[1])
      t:advance(1) -- it comes again
      t:advance(1) -- and waits for others
      t:counted(running, "ack", 4)
      assert.equal(1, #got)
    end)
  end)
end)
