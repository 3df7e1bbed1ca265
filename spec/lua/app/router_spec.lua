local weir = require("weir")

local function nothing() end

-- The subscriptions of an application, by the names that they have.
local function described(app)
  local list = app:describe()
  assert.same({}, list.mistakes)
  local by_name = {}
  for _, each in ipairs(list.subscriptions) do
    by_name[each.name] = each
  end
  return by_name, list
end

local function app_with(...)
  local app = weir.app("test", "1")
  app:broker("memory:")
  for _, router in ipairs({ ... }) do
    app:include(router)
  end
  return app
end

describe("a router", function()
  it("puts its prefix before subscriptions, replies, outputs and dead letters", function()
    local router = weir.router({ prefix = "eu.", dead_letter = "dead" })
    router:subscriber("orders", { reply = "answers", outputs = { audit = "audit" } }, nothing)
    local each = described(app_with(router))["eu.orders"].handlers[1]
    assert.equal("eu.answers", each.reply.to)
    assert.equal("eu.audit", each.outputs.audit.to)
    assert.equal("eu.dead", each.policy.dead_letter.to)
  end)

  it("may come straight from require, as may a handler", function()
    local router = weir.router({ prefix = "eu." })
    router:subscriber("orders", nothing, "./orders.lua")
    local app = app_with()
    app:include(router, "./routes.lua")
    assert.is_truthy(described(app)["eu.orders"])
  end)

  it("leaves names alone that begin with a slash", function()
    local router = weir.router({ prefix = "eu." })
    router:subscriber("/orders", { reply = "/answers", dead_letter = "/dead" }, nothing)
    local each = described(app_with(router))["orders"].handlers[1]
    assert.equal("answers", each.reply.to)
    assert.equal("dead", each.policy.dead_letter.to)
  end)

  it("takes the slash off without a prefix, too", function()
    local router = weir.router()
    router:subscriber("/orders", nothing)
    assert.truthy(described(app_with(router))["orders"])
  end)

  it("gives a dead letter the prefix of the level that names it", function()
    local router = weir.router({ prefix = "eu." })
    router:subscriber("orders", nothing)
    local app = weir.app("test", "1", { dead_letter = "dead" })
    app:broker("memory:")
    app:include(router)
    assert.equal("dead", described(app)["eu.orders"].handlers[1].policy.dead_letter.to)
  end)

  it("nests: prefixes follow each other, options of inner ones win", function()
    local inner = weir.router({ prefix = "orders.", timeout = 1 })
    inner:subscriber("new", nothing)
    local outer = weir.router({ prefix = "eu.", timeout = 9, workers = 3 })
    outer:include(inner)
    outer:subscriber("all", nothing)
    local by_name = described(app_with(outer))
    assert.equal(1, by_name["eu.orders.new"].handlers[1].timeout)
    assert.equal(3, by_name["eu.orders.new"].workers.count)
    assert.equal(9, by_name["eu.all"].handlers[1].timeout)
  end)

  it("may be included several times, under prefixes and on brokers of the inclusion", function()
    local router = weir.router({ prefix = "orders." })
    router:subscriber("new", nothing)
    local app = weir.app("test", "1")
    app:broker("memory:")
    app:broker("memory:", { label = "second" })
    app:include(router, { prefix = "eu." })
    app:include(router, { prefix = "us.", broker = "second" })
    local by_name = described(app)
    assert.equal("memory", by_name["eu.orders.new"].broker)
    assert.equal("second", by_name["us.orders.new"].broker)
  end)

  it("prefixes the name in a table of options, and leaves descriptors as they are", function()
    local router = weir.router({ prefix = "eu." })
    local app = app_with(router)
    router:subscriber({ name = "orders", group = "billing" }, nothing)
    router:subscriber(app.brokers[1].broker:descriptor("whole"), nothing)
    local by_name = described(app)
    assert.equal("eu.orders/billing", by_name["eu.orders"].id)
    assert.truthy(by_name["whole"])
  end)

  it("runs middleware of the application, the broker, the routers and the handler, in this order", function()
    local order = {}
    local function around(name)
      return function(value, ctx, next)
        order[#order + 1] = name
        return next(value, ctx)
      end
    end
    local inner, outer = weir.router({ middleware = { around("inner") } }), weir.router()
    outer:use(around("outer"))
    inner:subscriber("orders", { middleware = { around("handler") } }, nothing)
    outer:include(inner)
    local app = weir.app("test", "1", { middleware = { around("app") } })
    app:broker("memory:", { middleware = { around("broker") } })
    app:use(around("app, too"))
    app:include(outer)
    local list = require("weir.app.check").run(app)
    assert.same({}, list.mistakes)
    local _, registrations = require("weir.app.check").run(app)
    for _, each in ipairs(registrations[1].handlers[1].middleware) do
      each(nil, nil, nothing)
    end
    assert.same({ "app", "app, too", "broker", "outer", "inner", "handler" }, order)
  end)

  it("is not changed by use() of another with the same options", function()
    local options = { middleware = {} }
    weir.router(options):use(nothing)
    assert.same({ middleware = {} }, options)
  end)

  it("raises for calls that cannot be meant", function()
    local router = weir.router()
    assert.has_error(function()
      router:subscriber("orders")
    end, "router:subscriber: the handler must be a function, not a nil")
    assert.has_error(function()
      router:subscriber(12, nothing)
    end, "router:subscriber: a name or a descriptor is expected first, not a number")
    assert.has_error(function()
      router:subscriber("orders", "options", nothing)
    end, "router:subscriber: options must be a table, not a string")
    assert.has_error(function()
      router:include({})
    end, "router:include: a router is expected, not a table")
    assert.has_error(function()
      router:use("x")
    end, "router:use: a function is expected, not a string")
    assert.has_error(function()
      weir.router("eu.")
    end, "weir.router: options must be a table, not a string")
  end)
end)
