local channel = require("weir.channel")
local pipe = require("spec.lua.app.pipe")
local weir = require("weir")
local run = pipe.run

-- A handler that notes how many of its kind run at once and waits for the gate.
local function gated()
  local state = { now = 0, most = 0, done = 0, gate = channel(1000) }
  function state.fn()
    state.now = state.now + 1
    state.most = math.max(state.most, state.now)
    state.gate:recv()
    state.now = state.now - 1
    state.done = state.done + 1
  end
  function state.open(n)
    for _ = 1, n do
      state.gate:send(true)
    end
  end
  return state
end

describe("a subscription", function()
  it("handles one message at a time, in order", function()
    run(function(t)
      local state, order = gated(), {}
      local running = t:start("in", function(value)
        order[#order + 1] = value.n
        state.fn()
      end)
      for n = 1, 20 do
        t:send("in", { n = n })
      end
      state.open(20)
      t:counted(running, "ack", 20)
      assert.equal(1, state.most)
      for n = 1, 20 do
        assert.equal(n, order[n])
      end
    end)
  end)

  it("pulls nothing while its handler is busy", function()
    run(function(t)
      local state = gated()
      local running = t:start("in", state.fn)
      for _ = 1, 10 do
        t:send("in", {})
      end
      t.settle()
      assert.equal(1, running.subscription:stats().unsettled)
      assert.equal(9, running.subscription:stats().queued)
      assert.equal(1, running:stats().in_flight)
      state.open(10)
      t:counted(running, "ack", 10)
    end)
  end)

  it("handles as many messages at once as it has workers, and takes no more", function()
    run(function(t)
      local state = gated()
      local running = t:start("in", { workers = { count = 4 } }, state.fn)
      for _ = 1, 20 do
        t:send("in", {})
      end
      t:until_true(function()
        return state.now == 4
      end)
      t.settle()
      assert.equal(4, running.subscription:stats().unsettled)
      state.open(20)
      t:counted(running, "ack", 20)
      assert.equal(4, state.most)
      assert.equal(0, running:drain(1))
    end)
  end)

  it("is asked by one worker at a time", function()
    run(function(t)
      local inside, most = 0, 0
      local subscribe = t.broker.subscribe
      function t.broker.subscribe(...)
        local subscription = assert(subscribe(...))
        local next_message = subscription.next
        function subscription.next(...)
          inside = inside + 1
          most = math.max(most, inside)
          local message, err = next_message(...)
          inside = inside - 1
          return message, err
        end
        return subscription
      end
      local running = t:start("in", { workers = { count = 3 } }, function()
        weir.sleep(0.001)
      end)
      for _ = 1, 10 do
        t:send("in", {})
      end
      t:counted(running, "ack", 10)
      assert.equal(1, most)
    end)
  end)

  for what, opts in pairs({ ["one worker"] = {}, ["several workers"] = { workers = { count = 2 } },
    ["batches"] = { batch = { max = 1 } }, ["one worker without metrics"] = { metrics = false } }) do
    it("lets others have their turn between messages that take long: " .. what, function()
      run(function(t)
        t.env.metrics = opts.metrics ~= false and t.metrics or nil
        local running = t:start("in", opts, function()
          local stop = weir.now() + 0.002
          while weir.now() < stop do
          end
        end)
        local turns = 0
        local other = weir.spawn(function()
          while weir.sleep(0) do
            turns = turns + 1
          end
        end)
        for _ = 1, 80 do
          t:send("in", {})
        end
        t:counted(running, "ack", 80)
        other:cancel()
        assert.is_true(turns > 20, turns)
      end)
    end)
  end

  it("whose connection ends for good ends the service, and does not spin", function()
    run(function(t)
      local running = t:start("in", function() end)
      t.settle()
      running.subscription:close(1)
      t:until_true(function()
        return #t.stops == 1
      end)
      assert.is_true(t:logged("a subscription ended"))
      assert.equal("failed", running:stats().state)
    end)
  end)

  it("that cannot be opened is an error", function()
    run(function(t)
      local running = t:start("in", function() end)
      t.broker:shutdown(1)
      local again, err = require("weir.app.consume").start(running.registration, t.env)
      assert.is_nil(again)
      assert.equal("closed", err.code)
    end)
  end)
end)

describe("workers by key", function()
  it("keep the order of each key and handle different keys at once", function()
    run(function(t)
      local order, now, most = {}, 0, 0
      local running = t:start("in", { workers = { count = 4, by = "key" } }, function(value, ctx)
        now = now + 1
        most = math.max(most, now)
        weir.sleep(value.n % 3 / 1000)
        now = now - 1
        local list = order[ctx.key] or {}
        order[ctx.key] = list
        list[#list + 1] = value.n
      end)
      for n = 1, 60 do
        t:send("in", { n = n }, { ["partition-key"] = "k" .. n % 7 })
      end
      t:counted(running, "ack", 60)
      for _, list in pairs(order) do
        for i = 2, #list do
          assert.is_true(list[i] > list[i - 1])
        end
      end
      assert.is_true(most > 1 and most <= 4)
    end)
  end)

  it("take the key from a function, and messages without a key go anywhere", function()
    run(function(t)
      local now, most, same = 0, 0, {}
      local running = t:start("in", { workers = { count = 3, by = function(message)
        return message.headers.tenant
      end } }, function(value, ctx)
        local tenant = ctx.headers.tenant
        now = now + 1
        most = math.max(most, now)
        if tenant then
          assert.is_nil(same[tenant])
          same[tenant] = value.n
        end
        weir.sleep(0.001)
        now = now - 1
        if tenant then
          same[tenant] = nil
        end
      end)
      for n = 1, 30 do
        t:send("in", { n = n }, n % 2 == 0 and { tenant = "t" } or { other = "x" })
      end
      t:counted(running, "ack", 30)
      assert.is_true(most > 1)
    end)
  end)

  it("bound how much waits in the lanes", function()
    run(function(t)
      local state = gated()
      local running = t:start("in", { workers = { count = 2, by = "key" } }, state.fn)
      for _ = 1, 500 do
        t:send("in", {}, { ["partition-key"] = "same" })
      end
      t.settle()
      assert.is_true(running.subscription:stats().unsettled <= 10)
      state.open(500)
      t:counted(running, "ack", 500)
      assert.equal(1, state.most)
    end)
  end)

  it("treat a key function that raises as if there were no key", function()
    run(function(t)
      local running = t:start("in", { workers = { count = 2, by = function()
        error("no key here")
      end } }, function() end)
      t:send("in", {})
      t:counted(running, "ack", 1)
      assert.is_true(t:logged("no key here"))
    end)
  end)
end)

describe("the end", function()
  it("takes no more messages, and waits for what was taken", function()
    run(function(t)
      local state = gated()
      local running = t:start("in", state.fn)
      t:send("in", {})
      t:send("in", {})
      t:until_true(function()
        return state.now == 1
      end)
      running:stop()
      assert.equal(1, running:drain(0.01))
      state.open(2)
      assert.equal(0, running:drain(1))
      assert.is_true(running:close(1))
      assert.equal(1, running:stats().ack)
      local again = assert(t.broker:subscribe(running.registration.descriptor))
      assert.equal(1, again:next(1).attempts)
    end)
  end)

  for what, workers in pairs({ ["one worker"] = { count = 1 }, ["several workers"] = { count = 3 },
    ["workers by key"] = { count = 2, by = "key" } }) do
    it("gives back what is not done in time, and does not take a cancelled handler's word for it: " .. what, function()
      run(function(t)
        local began, ended = 0, 0
        local running = t:start("in", { workers = workers }, function()
          began = began + 1
          weir.sleep(1000)
          ended = ended + 1 -- as if nothing had happened
        end)
        t:send("in", {})
        t:until_true(function()
          return began == 1
        end)
        running:close(0.01)
        assert.equal(1, ended)
        assert.equal(0, running:stats().ack)
        assert.equal(1, running:stats().returned)
        local again = assert(t.broker:subscribe(running.registration.descriptor))
        assert.equal(2, assert(again:next(1)).attempts)
      end)
    end)
  end

  it("does not take it for a failure that a cancelled handler raises", function()
    run(function(t)
      local running = t:start("in", { policy = { on_failure = "drop" } }, function()
        assert(weir.sleep(1000))
      end)
      t:send("in", {})
      t:until_true(function()
        return running:stats().in_flight == 1
      end)
      running:close(0)
      assert.equal(0, running:stats().drop)
      assert.equal(1, running:stats().returned)
    end)
  end)

  for what, opts in pairs({ ["one worker"] = {}, ["several workers"] = { workers = { count = 2 } },
    ["workers by key"] = { workers = { count = 2, by = "key" } }, ["a batch"] = { batch = { max = 1 } },
    ["one with a timeout"] = { timeout = 1000 } }) do
    it("gives back the message of a handler that never ends, however hard it is asked: " .. what, function()
      run(function(t)
        local over = false
        local running = t:start("in", opts, function()
          while not over do
            pcall(weir.sleep, 0.001)
          end
        end)
        t:send("in", {})
        t:until_true(function()
          return running:stats().in_flight == 1
        end)
        running:close(0.01)
        assert.equal(1, running:stats().returned)
        local again = assert(t.broker:subscribe(running.registration.descriptor))
        assert.equal(2, assert(again:next(1)).attempts)
        over = true
        t.settle()
        assert.equal(0, running:stats().ack)
      end)
    end)
  end

  it("gives back what waits for its time", function()
    run({ without = { "ack" } }, function(t)
      local running = t:start("in", function()
        return nil, "later"
      end)
      t:send("in", {})
      t:until_true(function()
        return running:stats().held == 1
      end)
      running:close(0)
      assert.equal(0, running:stats().held)
    end)
  end)

  it("is the same when it is asked for twice", function()
    run(function(t)
      local running = t:start("in", function() end)
      assert.is_true(running:close(1))
      assert.is_true(running:close(1))
      running:stop()
      assert.equal("stopped", running:stats().state)
    end)
  end)

  it("waits for what was to be done afterwards", function()
    run(function(t)
      local gate, done = channel(1), false
      local running = t:start("in", function(_, ctx)
        ctx:after_ack(function()
          gate:recv()
          done = true
        end)
      end)
      t:send("in", {})
      t:counted(running, "ack", 1)
      assert.equal(1, running:drain(0.01))
      gate:send(true)
      assert.equal(0, running:drain(1))
      assert.is_true(done)
    end)
  end)
end)

describe("what is counted", function()
  it("gets into the registry when that is read", function()
    run(function(t)
      local running = t:start("in", function(value)
        if value.slow then
          weir.sleep(0.02)
        end
      end)
      for _ = 1, 10 do
        t:send("in", {})
      end
      t:send("in", { slow = true })
      t:counted(running, "ack", 11)
      assert.equal(11, t.metrics:value("weir_messages_consumed_total", { app = "spec", handler = "in",
        destination = "in", broker = "main" }))
      local count, sum = t.metrics:value("weir_process_duration_seconds")
      assert.equal(11, count)
      assert.is_true(sum >= 0.02)
      count, sum = t.metrics:value("weir_message_size_bytes")
      assert.equal(11, count)
      assert.equal(10 * 2 + #'{"slow":true}', sum)
      assert.equal(0, t.metrics:value("weir_messages_in_flight"))
      assert.equal(11, t.metrics:value("weir_messages_consumed_total"))
    end)
  end)
end)
