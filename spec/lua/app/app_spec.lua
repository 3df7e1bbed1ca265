local errors = require("weir.errors")
local support = require("spec.lua.app.support")
local program = require("spec.lua.support").program
local weir = require("weir")

local start, publish, eventually = support.start, support.publish, support.eventually

local function nothing() end

after_each(support.clean)

describe("require \"weir\"", function()
  it("loads nothing of applications before they are used", function()
    local result = program([[
      local weir = require("weir")
      for name in pairs(package.loaded) do
        assert(not name:find("^weir%.app") and not name:find("^weir%.broker") and name ~= "weir.schema", name)
      end
      assert(weir.nonsense == nil)
      assert(weir.app == require("weir.app") and rawget(weir, "app"))
      assert(weir.retry == require("weir.outcome").retry)
    ]])
    assert.same({ 0, "", "" }, { result.status, result.out, result.err })
  end)
end)

describe("weir.app", function()
  it("needs a title and a version", function()
    assert.has_error(function()
      weir.app()
    end, "weir.app: the title must be a text of at least one byte, not nil")
    assert.has_error(function()
      weir.app("orders", 1)
    end, "weir.app: the version must be a text of at least one byte, not a number")
    assert.has_error(function()
      weir.app("orders", "1", "info")
    end, "weir.app: the third argument must be a table, not a string")
  end)

  it("says what it is and in which state", function()
    local app = support.app()
    assert.equal("weir.app(test 1, new)", tostring(app))
    start(app)
    assert.equal("weir.app(test 1, running)", tostring(app))
  end)

  it("says that methods need a colon", function()
    local app = weir.app("orders", "1")
    for _, name in ipairs({ "subscriber", "batch", "include", "use", "publish_use" }) do
      local ok, err = pcall(function()
        app[name]("orders", function() end)
      end)
      assert.is_false(ok)
      assert.matches("^spec/lua/app/app_spec.lua:%d+: " .. name .. " is a method: write app:" .. name, err)
    end
  end)

  it("refuses what is no broker", function()
    local app = weir.app("test", "1")
    assert.has_error(function()
      app:broker({})
    end, "this is no broker, it lacks: capabilities, descriptor, connect, state, watch, subscribe, publisher, describe,"
      .. " in_process, shutdown, kind")
    assert.has_error(function()
      app:broker("memory:", "label")
    end, "app:broker: options must be a table, not a string")
  end)

  it("gives back the broker, whose label is its kind unless it is given one", function()
    local app = weir.app("test", "1")
    assert.equal("memory", app:broker("memory:").kind)
    app:broker("memory:", { label = "audit" })
    assert.equal("memory", app:describe().brokers[1].label)
    assert.equal("audit", app:describe().brokers[2].label)
  end)

  it("suggests the nearest hook", function()
    local app = weir.app("test", "1")
    assert.has_error(function()
      app:on("start", nothing)
    end, "app:on: there is no hook 'start'; known are: startup, started, stopping, stopped (did you mean 'startup'?)")
    assert.has_error(function()
      app:on("started", "fn")
    end, "app:on: a function is expected, not a string")
  end)

  it("refuses a timeout that is none", function()
    assert.has_error(function()
      weir.app("test", "1"):start(-1)
    end, "app:start: the timeout must be a number of seconds above 0, not -1")
  end)

  it("logs with the logger, or the options of one, that it is given", function()
    local lines = {}
    local app = support.app({ log = { format = "json", level = "info", out = function(line)
      lines[#lines + 1] = line
    end } })
    start(app):stop()
    assert.matches('"message":"started"', lines[1])
    assert.matches('"app":"test 1"', lines[1])
  end)
end)

describe("app:run", function()
  it("returns when the application has stopped", function()
    local app, broker = support.app()
    app:subscriber("a", function(_, ctx)
      ctx.app:request_stop()
    end)
    app:on("started", function()
      publish(broker, "a", "1")
    end)
    assert.same({ true }, { app:run() })
  end)

  it("returns the error that ended it, or kept it from starting", function()
    local app = support.app()
    app:on("started", function()
      app:request_stop(errors.new("prices", "no prices"))
    end)
    local ok, err = app:run()
    assert.is_nil(ok)
    assert.equal("prices", err.code)
    app = support.app()
    app:subscriber("a", { workers = 0 }, nothing)
    ok, err = app:run()
    assert.is_nil(ok)
    assert.equal("wiring", err.code)
  end)
end)

describe("app:health", function()
  it("tells of the application, its brokers and its handlers", function()
    local app, broker = support.app()
    app:subscriber("a", nothing)
    assert.same({ state = "new", ready = false, brokers = { memory = { state = "new" } }, handlers = {} }, app:health())
    local running = start(app)
    publish(broker, "a", "1")
    eventually(function()
      return app:health().handlers.a.ack == 1
    end)
    local health = app:health()
    assert.same({ "running", true, "up", "up" },
      { health.state, health.ready, health.brokers.memory.state, health.handlers.a.state })
    running:stop()
    health = app:health()
    assert.same({ "stopped", false, "closed" }, { health.state, health.ready, health.brokers.memory.state })
  end)
end)

describe("app:describe", function()
  it("is plain data of everything that is registered", function()
    local Order = weir.schema({ properties = { id = "string" } })
    local app = weir.app("orders", "2.0", { description = "Takes orders.", tags = { { name = "sales" } },
      dead_letter = "dead" })
    app:broker("memory:", { codec = "msgpack" })
    app:broker("memory:", { label = "audit" })
    app:subscriber({ name = "orders.*", group = "g" }, {
      schema = Order,
      reply = "done",
      outputs = { log = { to = "log", broker = "audit" } },
      workers = { 3, by = "key" },
      timeout = 2,
      description = "Takes an order.",
    }, nothing)
    app:batch("lines", { max = 10, broker = "audit", codec = "raw" }, nothing)
    app:publisher({ name = "alarms", to = "alarms", broker = "audit", codec = "json" })
    local about = app:describe()
    assert.same({}, about.mistakes)
    assert.same({ "orders", "2.0", "Takes orders.", { { name = "sales" } } },
      { about.title, about.version, about.description, about.tags })
    assert.same({ label = "memory", kind = "memory", server = { protocol = "memory", host = "localhost" },
      codec = "msgpack" }, about.brokers[1])
    local first, second = about.subscriptions[1], about.subscriptions[2]
    assert.same({ "orders.*/g", "orders.*", true, "memory" }, { first.id, first.name, first.pattern, first.broker })
    assert.same({ count = 3, by = "key" }, first.workers)
    local handler = first.handlers[1]
    assert.equal(Order, handler.schema)
    assert.same({ "msgpack", "Takes an order.", 2 }, { handler.codec, handler.description, handler.timeout })
    assert.same({ to = "done", broker = "memory" }, handler.reply)
    assert.same({ log = { to = "log", broker = "audit" } }, handler.outputs)
    assert.same({ to = "dead", broker = "memory" }, handler.policy.dead_letter)
    assert.same({ "lines", { max = 10, linger = 0.01 }, "raw" },
      { second.name, second.batch, second.handlers[1].codec })
    assert.same({ to = "dead", broker = "audit" }, second.handlers[1].policy.dead_letter)
    assert.matches("app_spec.lua:%d+$", second.source)
    about.publishers[1].source = nil
    assert.same({ { name = "alarms", to = "alarms", broker = "audit", codec = "json",
      content_type = "application/json" } }, about.publishers)
    assert.same({ group = "g" }, first.settings)
  end)

  it("works with mistakes, which it lists", function()
    local app = support.app()
    app:subscriber("a", { wrokers = 1 }, nothing)
    local about = app:describe()
    assert.equal(1, #about.subscriptions)
    assert.matches("unknown option 'wrokers'", about.mistakes[1].message)
  end)
end)

describe("app:publisher", function()
  it("publishes while the application runs, and says when it does not", function()
    local app = support.app()
    local orders = app:publisher({ to = "orders", headers = { ["x-from"] = "here" } })
    local got
    app:subscriber("orders", function(order, ctx)
      got = { order.id, ctx.headers["x-from"], ctx.headers["content-type"] }
    end)
    local ok, err = orders:publish({ id = "a" })
    assert.is_nil(ok)
    assert.equal("closed", err.code)
    local running = start(app)
    assert.is_true(orders:publish({ id = "a" }))
    eventually(function()
      return got
    end)
    assert.same({ "a", "here", "application/json" }, got)
    running:stop()
    ok, err = orders:publish({ id = "b" })
    assert.is_nil(ok)
    assert.equal("closed", err.code)
  end)

  it("publishes in the hooks of the start and of the end", function()
    local app = support.app()
    local got = {}
    app:subscriber({ name = "events", group = "g" }, { codec = "raw" }, function(text)
      got[#got + 1] = text
    end)
    local events = app:publisher({ to = "events", codec = "raw" })
    app:on("started", function()
      assert(events:publish("up"))
    end)
    app:on("stopping", function()
      assert(events:publish("down"))
      eventually(function()
        return #got == 2
      end)
    end)
    assert.is_true(start(app):stop())
    assert.same({ "up", "down" }, got)
  end)

  it("asks, and decodes the answer", function()
    local app = support.app()
    app:subscriber("double", { reply = true }, function(number)
      return number * 2
    end)
    local double = app:publisher({ to = "double" })
    start(app)
    assert.equal(42, (double:request(21, nil, 5)))
  end)

  it("is answered by what fits the schema of the reply, and by nothing else", function()
    local app, _, lines = support.app({ retry = false, on_failure = "drop" })
    app:subscriber("double", { reply = { to = true, schema = { maximum = 10 } } }, function(number)
      return number * 2
    end)
    local double = app:publisher({ to = "double" })
    start(app)
    assert.equal(8, (double:request(4, nil, 5)))
    assert.equal("timeout", select(2, double:request(8, nil, 0.05)).code)
    assert.matches("must be at most 10, not 16", table.concat(lines, "\n"))
  end)

  it("is answered by what has the headers that the reply is to have", function()
    local app, _, lines = support.app({ retry = false, on_failure = "drop" })
    local headers = { properties = { tenant = "string" } }
    app:subscriber("double", { header_schema = headers, reply = { to = true, header_schema = headers } },
      function(number, ctx)
        return weir.reply(number * 2, { headers = number > 1 and { tenant = ctx.headers.tenant } or nil })
      end)
    app:batch("all", { header_schema = headers }, function(list)
      return list[1] == "fits"
    end)
    local double = app:publisher({ to = "double", header_schema = headers })
    start(app)
    local answer, message = double:request(4, { headers = { Tenant = "blue" } }, 5)
    assert.same({ 8, "blue" }, { answer, message.headers.tenant })
    assert.equal("timeout", select(2, double:request(1, { headers = { tenant = "blue" } }, 0.05)).code)
    assert.equal("schema", select(2, double:request(4, nil, 5)).code)
    local all = app:publisher({ to = "all" })
    all:publish("does not fit")
    eventually(function()
      local text = table.concat(lines, "\n")
      return text:find("not be published to '[^']*': headers: tenant: is missing")
        and text:find("destination=all error=\"[^\"]*headers: tenant: is missing")
    end)
  end)

  it("publishes several, and goes through the middleware of the application and its broker", function()
    local order = {}
    local function note(name)
      return function(out, next)
        order[#order + 1] = name
        return next(out)
      end
    end
    local app = weir.app("test", "1", { log = support.log() })
    app:publish_use(note("app"))
    app:broker("memory:", { publish_middleware = { note("broker") } })
    local got = 0
    app:subscriber("a", function()
      got = got + 1
    end)
    local publisher = app:publisher({ to = "a", middleware = { note("own") } })
    start(app)
    assert.is_true((publisher:publish_batch({ { value = 1 }, { value = 2 } })))
    eventually(function()
      return got == 2
    end)
    assert.same({ "app", "broker", "own", "app", "broker", "own" }, order)
  end)

  it("validates by its schema", function()
    local app = support.app()
    local publisher = app:publisher({ to = "a", schema = weir.schema({ properties = { id = "string" } }) })
    start(app)
    local ok, err = publisher:publish({ id = 1 })
    assert.is_nil(ok)
    assert.equal("schema", err.code)
  end)

  it("is part of the check of the wiring", function()
    local app = support.app()
    app:publisher({ borker = "memory" })
    app:publisher({ broker = "memry" })
    local _, found = app:check()
    assert.matches("publisher: unknown option 'borker'; did you mean 'broker'", found[1].message)
    assert.matches("no broker has the label 'memry'", found[2].message)
  end)
end)
