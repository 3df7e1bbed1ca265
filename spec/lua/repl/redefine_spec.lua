--- Handlers that are given anew with other options while messages flow.
local errors = require("weir.errors")
local flawed = require("spec.lua.conformance.flawed")
local in_task = require("spec.lua.support").in_task
local nats_server = require("spec.lua.nats_server")
local redefine = require("weir.repl.redefine")
local support = require("spec.lua.support")
local weir = require("weir")

local MESSAGES, TIMES = 3000, 40

-- Two of each, so that each change changes something; some wait within, so that there is something in flight.
local SINGLE = {
  {},
  { workers = 4 },
  { timeout = 30 },
  { workers = { count = 3, by = function(message)
    return #message.payload
  end } },
  { name = "named" },
  { retry = { max_attempts = 3 } },
}
local BATCHES = { { max = 1 }, { max = 20, linger = 0 }, { max = 7, linger = 0.002 }, { workers = 3, max = 10 } }

local app, opened

-- An application whose handlers can be given anew, started.
local function start(broker, options)
  app = redefine.enable(weir.app("ledger", "1.0.0", { log = { level = "error" }, shutdown_timeout = 5 }))
  app:broker(broker, options)
  opened = assert(app:start(10))
  return app
end

after_each(function()
  if opened then
    opened:stop()
    opened = nil
  end
end)

-- Publishes numbers while handlers come and go, and looks at how often each of them was handled.
local function keep_ledger(target, kind, all)
  local seen, count, calls = {}, 0, 0
  local function note(n)
    seen[n] = (seen[n] or 0) + 1
    count = count + 1
  end
  local function handler(value)
    calls = calls + 1
    if calls % 7 == 0 then
      weir.sleep(0)
    end
    for _, n in ipairs(kind == "batch" and value or { value }) do
      note(n)
    end
    if calls % 11 == 0 then
      weir.sleep(0.001)
    end
  end
  local function give(i)
    return assert(app[kind](app, target, all[i % #all + 1], handler))
  end
  give(0)
  local numbers = app:publisher({ to = "numbers" })
  local sender = weir.spawn(function()
    for n = 1, MESSAGES do
      assert(numbers:publish(n))
      if n % 25 == 0 then
        weir.sleep(0.0005)
      end
    end
    assert(numbers:flush(10))
  end)
  for i = 1, TIMES do
    local before = count
    give(i)
    if i % 3 == 0 then -- it also has something to do
      support.eventually(function()
        return count > before or sender:status() ~= "running"
      end, 10)
    end
  end
  sender:join()
  for i = 1, 3 do -- and while nothing comes any more but what waits
    give(i)
  end
  pcall(support.eventually, function()
    return count >= MESSAGES
  end, 10)
  local lost, again = 0, 0
  for n = 1, MESSAGES do
    lost, again = lost + (seen[n] and 0 or 1), again + math.max(0, (seen[n] or 0) - 1)
  end
  assert.same({ lost = 0, again = 0 }, { lost = lost, again = again })
end

local function keeps_ledgers(make)
  it("loses no message and handles none twice", in_task(function()
    start(make())
    keep_ledger("numbers", "subscriber", SINGLE)
  end))

  it("loses none of those that come in batches", in_task(function()
    start(make())
    keep_ledger("numbers", "batch", BATCHES)
  end))
end

describe("a handler in memory that is given anew with other options", function()
  keeps_ledgers(function()
    return "memory:"
  end)

  it("loses no message of a small queue, which makes publishers wait", in_task(function()
    start("memory:")
    keep_ledger({ name = "numbers", capacity = { messages = 10 } }, "subscriber", SINGLE)
  end))

  it("loses no message of a group with prefetch", in_task(function()
    start("memory:")
    keep_ledger({ name = "numbers", group = "g", prefetch = 5 }, "subscriber", SINGLE)
  end))

  -- What handlers got, and a function that waits until it is so much.
  local function recorder()
    local got = {}
    return got, function(n)
      support.eventually(function()
        return #got >= n
      end, 10)
    end
  end

  it("finishes what it began with the old options, and begins nothing more", in_task(function()
    start("memory:")
    local got, until_got = recorder()
    local gate = weir.channel(1)
    app:subscriber("a", function(n)
      table.insert(got, "old begins " .. n)
      gate:recv(10)
      table.insert(got, "old ends " .. n)
    end)
    local publisher = app:publisher({ to = "a" })
    publisher:publish(1)
    publisher:publish(2)
    until_got(1)
    local change = weir.spawn(function()
      return app:subscriber("a", { workers = 2 }, function(n)
        table.insert(got, "new " .. n)
      end)
    end)
    weir.sleep(0.02)
    publisher:publish(3)
    assert.same({ "old begins 1" }, got)
    gate:send(true)
    assert(change:join())
    until_got(4)
    assert.same({ "old begins 1", "old ends 1", "new 2", "new 3" }, got)
  end))

  it("keeps what waits for its next attempt, and how many it had", in_task(function()
    local clock = require("weir.test.clock")()
    app = redefine.enable(weir.app("ledger", "1.0.0", { log = { level = "error" } }))
    app:broker(require("weir.broker.nats").new({ url = "nats://127.0.0.1:1" }):in_process()) -- settles nothing
    opened = assert(require("weir.app.running").begin(app, { clock = clock }))
    assert(opened:wait_opened(10))
    local got, until_got = recorder()
    local function until_held()
      support.eventually(function()
        return app:health().handlers.a.held == 1
      end, 10)
    end
    local retry = { max_attempts = 3, backoff = { initial = 60, factor = 1, jitter = 0 } }
    local function handler(which)
      return function(n, ctx)
        table.insert(got, ("%s %d attempt %d"):format(which, n, ctx.attempt))
        return ctx.attempt < 3 and weir.retry() or nil
      end
    end
    assert(app:subscriber("a", { retry = retry }, handler("old")))
    app:publisher({ to = "a" }):publish(7)
    until_held()
    clock.advance(50)
    assert(app:subscriber("a", { retry = retry, workers = 2 }, handler("new")))
    clock.advance(9)
    weir.sleep(0.01)
    assert.equal(1, #got)
    clock.advance(1)
    until_got(2)
    until_held()
    clock.advance(60)
    until_got(3)
    assert.same({ "old 7 attempt 1", "new 7 attempt 2", "new 7 attempt 3" }, got)
  end))

  it("gives what does not end in time to the new one", in_task(function()
    app = redefine.enable(weir.app("ledger", "1.0.0", { log = { level = "off" }, shutdown_timeout = 0.1 }))
    app:broker(require("weir.broker.nats").new({ url = "nats://127.0.0.1:1" }):in_process())
    opened = assert(app:start(10))
    local got, until_got = recorder()
    app:subscriber("a", { workers = 2 }, function(n)
      table.insert(got, "old " .. n)
      assert(weir.channel(1):recv())
    end)
    local publisher = app:publisher({ to = "a" })
    publisher:publish(1)
    publisher:publish(2)
    publisher:publish(3)
    until_got(2)
    assert(app:subscriber("a", function(n)
      table.insert(got, "new " .. n)
    end))
    until_got(5)
    table.sort(got)
    assert.same({ "new 1", "new 2", "new 3", "old 1", "old 2" }, got)
  end))

  it("lets a handler that ignores its end take nothing more", in_task(function()
    app = redefine.enable(weir.app("ledger", "1.0.0", { log = { level = "off" }, shutdown_timeout = 0.1 }))
    app:broker("memory:")
    opened = assert(app:start(10))
    local got, until_got = recorder()
    local free = false
    app:subscriber("a", function(n)
      table.insert(got, "old " .. n)
      while not free do
        pcall(weir.sleep, 0.01)
        require("weir.runtime").pause() -- cancelled, it still gives others their turn
      end
      table.insert(got, "old ended")
    end)
    local publisher = app:publisher({ to = "a" })
    publisher:publish(1)
    until_got(1)
    assert(app:subscriber("a", { timeout = 20 }, function(n)
      table.insert(got, "new " .. n)
    end))
    until_got(2) -- it was given back
    free = true
    until_got(3)
    for n = 2, 5 do
      assert(publisher:publish(n))
    end
    until_got(7)
    assert.same({ "old 1", "new 1", "old ended", "new 2", "new 3", "new 4", "new 5" }, got)
  end))

  it("shares its subscription with handlers of other filters as before", in_task(function()
    app = redefine.enable(weir.app("ledger", "1.0.0", { log = { level = "error" } }))
    app:broker("memory:")
    local got, until_got = recorder()
    local function record(which)
      return function(n)
        table.insert(got, which .. n)
      end
    end
    local red = { colour = "red" }
    app:subscriber("a", { filter = red }, record("red "))
    app:subscriber("a", record("other "))
    opened = assert(app:start(10))
    assert(app:subscriber("a", { filter = red, retry = { max_attempts = 2 } }, record("red again ")))
    local publisher = app:publisher({ to = "a" })
    publisher:publish(1, { headers = { colour = "red" } })
    publisher:publish(2)
    until_got(2)
    assert.same({ "red again 1", "other 2" }, got)
  end))

  it("stays as it is when the new one does not fit, and goes on", in_task(function()
    start("memory:")
    local got, until_got = recorder()
    app:subscriber("a", function(n)
      table.insert(got, n)
    end)
    for _, options in ipairs({
      { retries = 1 }, -- no option
      { reply = { broker = "other", to = "b" } }, -- no broker
      { dead_letter = "a", retry = { max_attempts = 2 } }, -- comes again and again
      { on_failure = { error = "dead_letter" } }, -- without a place
    }) do
      local _, err = app:subscriber("a", options, function() end)
      assert.is_true(errors.is(err, "wiring"), tostring(err))
      assert.same({}, app:describe().mistakes)
    end
    app:publisher({ to = "a" }):publish(1)
    until_got(1)
    assert.same({ 1 }, got)
    assert(app:subscriber("a", { workers = 2 }, function(n)
      table.insert(got, n * 10)
    end))
    app:publisher({ to = "a" }):publish(2)
    until_got(2)
    assert.same({ 1, 20 }, got)
  end))

  it("goes on counting where it was, in its numbers and in the metrics", in_task(function()
    start("memory:")
    local function count_of()
      return app:health().handlers.a.ack
    end
    local function metric(name, outcome)
      local labels = { app = "ledger", broker = "memory", handler = "a", destination = "a", outcome = outcome }
      return app.metrics:value(name, labels)
    end
    local publisher = app:publisher({ to = "a" })
    local n = 0
    for workers = 1, 5 do
      assert(app:subscriber("a", { workers = workers }, function() end))
      for _ = 1, 10 do
        publisher:publish(1)
      end
      n = n + 10
      support.eventually(function()
        return count_of() == n
      end, 5)
      assert.equal(n, metric("weir_messages_consumed_total"))
      assert.equal(n, metric("weir_messages_processed_total", "ack"))
    end
  end))

  it("is not given anew twice at once", in_task(function()
    start("memory:")
    local gate, got, until_got = weir.channel(1), recorder()
    app:subscriber("a", function()
      table.insert(got, "old")
      gate:recv(10)
    end)
    app:publisher({ to = "a" }):publish(1)
    until_got(1)
    local change = weir.spawn(function()
      return app:subscriber("a", { workers = 2 }, function() end)
    end)
    weir.sleep(0.01)
    local handle, err = app:subscriber("a", { workers = 3 }, function() end)
    assert.is_nil(handle)
    assert.equal("busy", err.code)
    gate:send(true)
    assert(change:join(10))
    assert.equal(2, app:describe().subscriptions[1].workers.count)
    assert(app:subscriber("a", { workers = 3 }, function() end))
    assert.equal(3, app:describe().subscriptions[1].workers.count)
  end))

  it("is closed as any other", in_task(function()
    start("memory:")
    app:subscriber("a", function() end)
    local again = assert(app:subscriber("a", { workers = 2 }, function() end))
    assert(again:close())
    assert.same({}, app:health().handlers)
    assert.same({}, app.entries)
    assert(app:subscriber("a", function() end))
    assert.equal("up", app:health().handlers.a.state)
  end))

  it("ends in order when the application stops meanwhile", in_task(function()
    start("memory:")
    local got, until_got = recorder()
    app:subscriber("a", function(n)
      table.insert(got, n)
      weir.sleep(0.05)
      table.insert(got, "done")
    end)
    app:publisher({ to = "a" }):publish(1)
    until_got(1)
    local change = weir.spawn(function()
      return app:subscriber("a", { workers = 2 }, function() end)
    end)
    weir.sleep(0) -- until it waits for the end of the former one
    assert(opened:stop())
    local handle, err = change:join(5)
    assert.is_nil(handle)
    assert.equal("stopped", err.code)
    assert.same({ 1, "done" }, got)
  end))
end)

describe("a handler on a broker that cannot pause, given anew with other options,", function()
  local subscribed, refusal

  local function broker()
    subscribed, refusal = 0, nil
    return flawed.make({
      broker = {
        capabilities = function(inner, descriptor)
          local can = inner:capabilities(descriptor)
          can.pause = nil
          return can
        end,
        subscribe = function(inner, ...)
          if refusal then
            return nil, refusal
          end
          subscribed = subscribed + 1
          return inner:subscribe(...)
        end,
      },
    })
  end

  it("gets a new subscription", in_task(function()
    start(broker())
    local got = weir.channel(1)
    assert(app:subscriber("a", function() end))
    assert(app:subscriber("a", { workers = 2 }, function(n)
      got:send(n)
    end))
    assert.equal(2, subscribed)
    app:publisher({ to = "a" }):publish(1)
    assert.equal(1, got:recv(5))
  end))

  it("stays when the wiring of the new one is wrong", in_task(function()
    start(broker())
    assert(app:subscriber("a", function() end))
    local _, err = app:subscriber("a", { on_failure = { error = "dead_letter" } }, function() end)
    assert.equal("wiring", err.code)
    assert.equal(1, subscribed)
    assert.equal("up", app:health().handlers.a.state)
  end))

  it("is gone when the new one cannot be opened, and can be given again", in_task(function()
    start(broker())
    assert(app:subscriber("a", function() end))
    refusal = errors.new("unauthorized", "not you")
    local _, err = app:subscriber("a", { workers = 2 }, function() end)
    assert.equal("unauthorized", err.code)
    assert.same({}, app:health().handlers)
    assert.same({}, app.entries)
    refusal = nil
    assert(app:subscriber("a", function() end))
    assert.equal("up", app:health().handlers.a.state)
  end))
end)

if not nats_server.available() then
  return pending("nats-server or libnats is not installed: spec/setup test")
end

describe("a handler on core NATS that is given anew with other options", function()
  local server

  setup(function()
    server = nats_server.start()
  end)

  teardown(function()
    server:stop()
  end)

  keeps_ledgers(function()
    return server.url
  end)
end)

describe("a handler on JetStream that is given anew with other options", function()
  local server

  setup(function()
    server = nats_server.start()
  end)

  teardown(function()
    server:stop()
  end)

  keeps_ledgers(function()
    local create = { subjects = { "numbers" }, storage = "memory", retention = "interest" }
    return require("weir.broker.nats").new({
      url = server.url,
      jetstream = { stream = "NUMBERS", create = create },
    })
  end)
end)
