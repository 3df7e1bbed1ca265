local errors = require("weir.errors")
local support = require("spec.lua.app.support")
local weir = require("weir")

local start, publish, eventually = support.start, support.publish, support.eventually

local function nothing() end

after_each(support.clean)

-- A broker that goes by another's, but for some methods.
local function altered(methods)
  local inner = weir.broker("memory:")
  return setmetatable(methods, { __index = function(_, name)
    local value = inner[name]
    if type(value) ~= "function" then
      return value
    end
    return function(_, ...)
      return value(inner, ...)
    end
  end }), inner
end

local function find(lines, text)
  for _, line in ipairs(lines) do
    if line:find(text, 1, true) then
      return line
    end
  end
end

describe("an application that is started", function()
  it("handles what is published, until it is stopped", function()
    local app, broker = support.app()
    local got = {}
    app:subscriber("orders", function(order)
      got[#got + 1] = order.id
    end)
    local running = start(app)
    publish(broker, "orders", { id = 1 })
    publish(broker, "orders", { id = 2 })
    eventually(function()
      return #got == 2
    end)
    assert.same({ 1, 2 }, got)
    assert.is_true(running:stop())
    assert.is_true(running:join())
    assert.equal("stopped", app:health().state)
    local ok, err = broker:publisher():publish("orders", "{}")
    assert.is_nil(ok)
    assert.equal("closed", err.code)
  end)

  it("runs in a task of a program, too", function()
    local app, broker = support.app()
    local got
    app:subscriber("orders", function(order)
      got = order.id
    end)
    weir.run(function()
      local running = assert(app:start())
      publish(broker, "orders", { id = 7 })
      eventually(function()
        return got
      end)
      assert.is_true(running:stop())
    end)
    assert.equal(7, got)
  end)

  it("does not start with mistakes, and lists them all", function()
    local app, broker = support.app()
    app:subscriber("a", { tiemout = 1 }, nothing)
    app:subscriber("b", { workers = 0 }, nothing)
    local ok, err = app:start()
    assert.is_nil(ok)
    assert.equal("wiring", err.code)
    assert.equal(2, #err.mistakes)
    assert.matches("running_spec.lua:%d+: subscriber 'a': unknown option 'tiemout'", err.message)
    assert.matches("running_spec.lua:%d+: subscriber 'b': 'workers' must be", err.message)
    assert.equal("new", (broker:state()))
    assert.equal("new", app:health().state)
  end)

  it("cannot be started twice at a time", function()
    local app = support.app()
    start(app)
    assert.has_error(function()
      app:start()
    end, "the application runs already")
    assert.has_error(function()
      app:broker("memory:", { label = "late" })
    end, "app:broker: brokers must be added before the application starts")
    assert.has_error(function()
      app:use(nothing)
    end, "app:use: middleware must be added before the application starts")
  end)

  it("runs its hooks in order, with the state of the startup hooks", function()
    local app, broker = support.app()
    local order = {}
    local function note(name)
      return function(state, given)
        assert.equal(app, given)
        order[#order + 1] = ("%s %s %s"):format(name, tostring(state), (broker:state()))
      end
    end
    app:on("startup", function(state)
      note("startup")(state, app)
      return "one"
    end)
    app:on("startup", function(state)
      return state .. ", two"
    end)
    app:on("started", note("started"))
    app:on("stopping", note("stopping"))
    app:on("stopped", note("stopped"))
    local seen
    app:subscriber("a", function(_, ctx)
      seen = ctx.state
    end)
    local running = start(app)
    publish(broker, "a", "1")
    eventually(function()
      return seen
    end)
    running:stop()
    assert.equal("one, two", seen)
    assert.same({ "startup nil new", "started one, two up", "stopping one, two up", "stopped one, two closed" }, order)
  end)

  for _, way in ipairs({ "raises", "returns nil, err" }) do
    it("undoes what it opened when a hook of the start " .. way, function()
      local app, broker = support.app()
      app:on("started", function()
        if way == "raises" then
          error("no table of prices")
        end
        return nil, errors.new("prices", "no table of prices")
      end)
      local stopped
      app:on("stopped", function()
        stopped = true
      end)
      app:subscriber("a", nothing)
      local ok, err = app:start()
      assert.is_nil(ok)
      assert.matches("the started hook of .*running_spec.lua:%d+ failed: .*no table of prices", err.message)
      assert.equal("closed", (broker:state()))
      assert.is_true(stopped)
      assert.equal("failed", app:health().state)
    end)
  end

  it("connects to nothing when a startup hook fails", function()
    local app, broker = support.app()
    app:on("startup", function()
      return nil, "not today"
    end)
    local ok, err = app:start()
    assert.is_nil(ok)
    assert.matches("failed: not today", err.message)
    assert.equal("new", (broker:state()))
  end)

  it("says what a hook raised, also where that is a table", function()
    local app = support.app()
    app:on("startup", function()
      error({ reason = "no database" })
    end)
    local ok, err = app:start()
    assert.is_nil(ok)
    assert.matches('failed: { reason = "no database" }', err.message, 1, true)
  end)

  it("goes on with the other hooks of the end when one raises, and logs it", function()
    local app, _, lines = support.app()
    local done
    app:on("stopping", function()
      error("oh")
    end)
    app:on("stopping", function()
      done = true
    end)
    assert.is_true(start(app):stop())
    assert.is_true(done)
    assert.matches("the stopping hook of .* failed: .*oh", find(lines, "stopping hook"))
  end)

  it("handles subscriptions that a startup hook registers", function()
    local app, broker = support.app()
    local got
    app:on("startup", function()
      app:subscriber("a", function(value)
        got = value
      end)
    end)
    start(app)
    publish(broker, "a", "3")
    eventually(function()
      return got == 3
    end)
  end)

  it("says so when a startup hook registers what is wrong", function()
    local app = support.app()
    app:on("startup", function()
      app:subscriber("a", { wrokers = 1 }, nothing)
    end)
    local ok, err = app:start()
    assert.is_nil(ok)
    assert.equal("wiring", err.code)
  end)

  it("can be stopped while it starts", function()
    local app = support.app()
    app:on("startup", function()
      weir.sleep(60)
    end)
    local task = weir.spawn(function()
      return app:start()
    end)
    eventually(function()
      return app.running
    end)
    app:request_stop()
    local ok, err = task:join(5)
    assert.is_nil(ok)
    assert.equal("stopped", err.code)
    assert.equal("stopped", app:health().state)
  end)

  it("lets handlers finish when it is stopped while it starts", function()
    local app, broker = support.app()
    local subscribe, begun, ended = broker.subscribe, false, nil
    function broker.subscribe(self, descriptor, timeout)
      if descriptor.name == "slow" then
        return nil, select(2, weir.sleep(60))
      end
      return subscribe(self, descriptor, timeout)
    end
    app:subscriber("a", function()
      begun = true
      ended = weir.sleep(0.05)
    end)
    app:subscriber("slow", function() end)
    local task = weir.spawn(function()
      return app:start()
    end)
    eventually(function()
      return app.running and #app.running.consumers == 1
    end)
    support.publish(broker, "a", "1")
    eventually(function()
      return begun
    end)
    app:request_stop()
    local _, err = task:join(5)
    assert.equal("stopped", err.code)
    assert.is_true(ended)
    assert.same({}, app.running.consumers)
  end)

  it("says which subscription could not be closed in order", function()
    local app, broker, lines = support.app()
    local subscribe = broker.subscribe
    function broker.subscribe(...)
      local subscription = assert(subscribe(...))
      local close = subscription.close
      function subscription.close(...)
        close(...)
        return nil, errors.new("io", "the position cannot be saved")
      end
      return subscription
    end
    app:subscriber("a", { name = "ledger" }, function() end)
    assert(support.start(app):stop())
    local text = table.concat(lines, "\n")
    assert.matches("did not close in order[^\n]*the position cannot be saved[^\n]*subscription=ledger", text)
  end)

  it("is undone when the task that starts it is cancelled", function()
    local app = support.app()
    app:on("startup", function()
      weir.sleep(60)
    end)
    weir.run(function()
      local ok, err = weir.with_timeout(0.01, app.start, app)
      assert.is_nil(ok)
      assert.equal("timeout", err.code)
      eventually(function()
        return app:health().state == "stopped"
      end)
    end)
  end)

  it("leaves nothing behind when it is stopped", function()
    local function once()
      local app, broker = support.app()
      app:subscriber("a", nothing)
      app:subscriber({ name = "b", group = "g" }, { workers = { 4, by = "key" } }, nothing)
      local running = assert(app:start())
      publish(broker, "a", "1")
      running:stop()
    end
    local function used()
      for _ = 1, 20 do
        once()
      end
      collectgarbage()
      collectgarbage()
      return collectgarbage("count")
    end
    used()
    local before = used()
    assert.is_true(used() - before < 20, "KiB grow")
  end)

  it("does not wait for a startup hook for longer than its timeout", function()
    local app = support.app()
    app:on("startup", function()
      weir.sleep(60)
    end)
    local ok, err = app:start(0.02)
    assert.is_nil(ok)
    assert.matches("startup hook", err.message)
  end)
end)

describe("a broker that is down", function()
  it("is tried again until it is there", function()
    local tries = 0
    local broker, inner
    broker, inner = altered({ connect = function(_, timeout)
      tries = tries + 1
      if tries < 3 then
        return nil, errors.new("refused", "nobody listens")
      end
      return inner:connect(timeout)
    end })
    local log, lines = support.log()
    local app = weir.app("test", "1", { log = log })
    app:broker(broker)
    start(app)
    assert.equal(3, tries)
    assert.truthy(find(lines, "the broker cannot be reached; trying again"))
  end)

  it("is tried again though it says that it failed", function()
    local tries, watcher = 0, nil
    local broker, inner
    broker, inner = altered({
      watch = function(_, fn)
        watcher = fn
        return nothing
      end,
      connect = function(_, timeout)
        tries = tries + 1
        if tries < 2 then
          local err = errors.new("network", "nobody listens")
          watcher("failed", err)
          return nil, err
        end
        return inner:connect(timeout)
      end,
    })
    local app = weir.app("test", "1", { log = support.log() })
    app:broker(broker)
    start(app)
    assert.equal(2, tries)
  end)

  it("ends the start after its timeout, with what it said", function()
    local broker = altered({ connect = function()
      return nil, errors.new("refused", "nobody listens")
    end })
    local app = weir.app("test", "1", { log = support.log() })
    local first = app:broker("memory:")
    app:broker(broker, { label = "second" })
    local ok, err = app:start(0.05)
    assert.is_nil(ok)
    assert.equal("refused", err.code)
    assert.equal("second", err.broker)
    assert.matches("the broker 'second' at localhost cannot be used: nobody listens", err.message)
    assert.equal("closed", (first:state()))
  end)

  it("is not tried again when that is of no use", function()
    local tries = 0
    local broker = altered({ connect = function()
      tries = tries + 1
      return nil, errors.new("unauthorized", "a password is missing")
    end })
    local app = weir.app("test", "1", { log = support.log() })
    app:broker(broker)
    local ok, err = app:start()
    assert.is_nil(ok)
    assert.equal("unauthorized", err.code)
    assert.equal(1, tries)
  end)

  it("that fails for good stops the application, which says why", function()
    local watcher
    local broker = altered({ watch = function(_, fn)
      watcher = fn
      return nothing
    end })
    local app = weir.app("test", "1", { log = support.log() })
    app:broker(broker)
    local running = start(app)
    watcher("failed", errors.new("unauthorized", "the account was closed"))
    local ok, err = running:join(5)
    assert.is_nil(ok)
    assert.equal("unauthorized", err.code)
    assert.equal("failed", app:health().state)
  end)

  it("for a while shows in the health, the log and the metrics", function()
    local watcher
    local state = "up"
    local broker = altered({
      state = function()
        return state
      end,
      watch = function(_, fn)
        watcher = fn
        return nothing
      end,
    })
    local log, lines = support.log()
    local app = weir.app("test", "1", { log = log })
    app:broker(broker)
    start(app)
    assert.is_true(app:health().ready)
    state = "degraded"
    watcher("degraded", errors.new("disconnected", "it went away"))
    assert.equal("degraded", app:health().brokers.memory.state)
    assert.is_false(app:health().ready)
    assert.equal("running", app:health().state)
    state = "up"
    watcher("up")
    assert.is_true(app:health().ready)
    assert.truthy(find(lines, "the broker is away"))
    assert.truthy(find(lines, "the broker is back"))
    assert.equal(1, app.metrics:value("weir_broker_reconnects_total"))
  end)
end)

describe("stopping", function()
  it("waits for handlers that are at work, and takes no more", function()
    local app, broker = support.app()
    local begun, ended = 0, 0
    app:subscriber({ name = "a", group = "g" }, function()
      begun = begun + 1
      weir.sleep(0.05)
      ended = ended + 1
    end)
    local running = start(app)
    for _ = 1, 5 do
      publish(broker, "a", "1")
    end
    eventually(function()
      return begun == 1
    end)
    assert.is_true(running:stop())
    assert.same({ 1, 1 }, { begun, ended })
  end)

  it("waits no longer than it is told, and closes the brokers then", function()
    local app, broker = support.app({ shutdown_timeout = 60 })
    local begun
    app:subscriber("a", function()
      begun = true
      weir.sleep(60)
    end)
    local running = start(app)
    publish(broker, "a", "1")
    eventually(function()
      return begun
    end)
    local before = weir.now()
    assert.is_true(running:stop(0.02))
    assert.is_true(weir.now() - before < 10)
    assert.equal("closed", (broker:state()))
  end)

  it("does not wait for ever for a hook", function()
    local app = support.app({ shutdown_timeout = 0.01 })
    app:on("stopping", function()
      weir.sleep(60)
    end)
    assert.is_true(start(app):stop())
  end)

  it("closes the brokers in reverse order", function()
    local order = {}
    local app = weir.app("test", "1", { log = support.log() })
    for _, label in ipairs({ "first", "second", "third" }) do
      local broker, inner
      broker, inner = altered({ shutdown = function(_, timeout)
        order[#order + 1] = label
        return inner:shutdown(timeout)
      end })
      app:broker(broker, { label = label })
    end
    start(app):stop()
    assert.same({ "third", "second", "first" }, order)
  end)

  it("is asked for by a policy, and then ends in the error", function()
    local app, broker = support.app()
    app:subscriber("a", { on_failure = { error = "stop" } }, function()
      error("no disk is left")
    end)
    local running = start(app)
    publish(broker, "a", "1")
    local ok, err = running:join(5)
    assert.is_nil(ok)
    assert.matches("no disk is left", err.message)
    assert.equal("failed", app:health().state)
    assert.equal("closed", (broker:state()))
  end)

  it("is asked for by a handler", function()
    local app, broker = support.app()
    app:subscriber("a", function(_, ctx)
      ctx.app:request_stop()
    end)
    local running = start(app)
    publish(broker, "a", "1")
    assert.is_true(running:join(5))
  end)

  it("is done by leaving the block of a to-be-closed variable", function()
    local app, broker = support.app()
    do
      local running <close> = assert(app:start())
      assert.matches("^weir.running%(test, running%)$", tostring(running))
    end
    assert.equal("closed", (broker:state()))
  end)

  it("follows from a subscription that ends for good", function()
    local app, broker = support.app()
    app:subscriber("a", nothing)
    local running = start(app)
    broker:shutdown()
    local ok, err = running:join(5)
    assert.is_nil(ok)
    assert.equal("closed", err.code)
  end)
end)

describe("a subscription", function()
  it("that is added while the application runs is open at once, and closes", function()
    local app, broker = support.app()
    start(app)
    local got = {}
    local handle = assert(app:subscriber("a", function(value)
      got[#got + 1] = value
    end))
    publish(broker, "a", "1")
    eventually(function()
      return #got == 1
    end)
    assert.truthy(app:health().handlers.a)
    assert.is_true(handle:close())
    assert.is_nil(app:health().handlers.a)
    publish(broker, "a", "2")
    assert.same({}, app:describe().subscriptions)
    assert.is_true(handle:close())
    assert.same({ 1 }, got)
  end)

  it("finishes its handlers when it is closed", function()
    local app, broker = support.app()
    start(app)
    local begun, ended
    local handle = assert(app:subscriber("a", function()
      begun = true
      weir.sleep(0.03)
      ended = true
    end))
    publish(broker, "a", "1")
    eventually(function()
      return begun
    end)
    assert.is_true(handle:close())
    assert.is_true(ended)
  end)

  it("with a mistake is refused while the application runs, which goes on", function()
    local app, broker = support.app()
    local got
    app:subscriber("a", function()
      got = true
    end)
    start(app)
    local ok, err = app:subscriber("b", { wrokers = 2 }, nothing)
    assert.is_nil(ok)
    assert.equal("wiring", err.code)
    ok, err = app:subscriber("a", { filter = { kind = "x" } }, nothing)
    assert.is_nil(ok)
    assert.equal("wiring", err.code)
    assert.equal(1, #app:describe().subscriptions)
    publish(broker, "a", "1")
    eventually(function()
      return got
    end)
  end)

  it("of a router is added while the application runs, too", function()
    local app, broker = support.app()
    start(app)
    local got = {}
    local router = weir.router({ prefix = "eu." })
    for _, name in ipairs({ "a", "b" }) do
      router:subscriber(name, function()
        got[#got + 1] = name
      end)
    end
    local handle = assert(app:include(router))
    publish(broker, "eu.a", "1")
    publish(broker, "eu.b", "1")
    eventually(function()
      return #got == 2
    end)
    assert.is_true(handle:close())
    assert.same({}, app:health().handlers)
  end)

  it("cannot be closed while other handlers share it", function()
    local app = support.app()
    local handle = app:subscriber("a", { filter = { kind = "x" } }, nothing)
    app:subscriber("a", nothing)
    start(app)
    local ok, err = handle:close()
    assert.is_nil(ok)
    assert.equal("shared", err.code)
  end)

  it("is taken out before the start", function()
    local app = support.app()
    local handle = app:subscriber("a", nothing)
    assert.is_true(handle:close())
    assert.same({}, app:describe().subscriptions)
  end)

  it("gives each message to the first handler whose filter lets it through, or to the default", function()
    local app, broker = support.app()
    local got = {}
    local function note(name)
      return function(value)
        got[#got + 1] = ("%s%d"):format(name, value)
      end
    end
    app:subscriber("a", { filter = { kind = "even" } }, note("even"))
    app:subscriber("a", { filter = function(_, value)
      return value > 10
    end }, note("large"))
    app:subscriber("a", note("other"))
    start(app)
    publish(broker, "a", "2", { kind = "even" })
    publish(broker, "a", "11")
    publish(broker, "a", "3", { kind = "odd" })
    eventually(function()
      return #got == 3
    end)
    assert.same({ "even2", "large11", "other3" }, got)
  end)
end)
