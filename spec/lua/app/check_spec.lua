local weir = require("weir")

local function nothing() end

-- An application on a memory broker; with what `fill` adds.
local function new(fill, info)
  local app = weir.app("test", "1", info)
  app:broker("memory:")
  if fill then
    fill(app)
  end
  return app
end

-- The sentences of its mistakes.
local function mistakes(app)
  local ok, found = app:check()
  local list = {}
  if not ok then
    for i, each in ipairs(found) do
      list[i] = each.message
    end
  end
  return list
end

local function warnings(app)
  local ok, found = app:check()
  assert.is_true(ok)
  local list = {}
  for i, each in ipairs(found) do
    list[i] = each.message
  end
  return list
end

local function has(list, text)
  for _, each in ipairs(list) do
    if each:find(text, 1, true) then
      return true
    end
  end
  error(("no '%s' in:\n%s"):format(text, table.concat(list, "\n")), 2)
end

-- A broker that is capable of what `can` says.
local function limited(can, kind)
  local broker = weir.broker("memory:")
  return setmetatable({
    kind = kind or "limited",
    capabilities = function()
      return can
    end,
    connect = function(_, ...)
      return broker:connect(...)
    end,
    descriptor = function(_, ...)
      return broker:descriptor(...)
    end,
  }, { __index = function(_, name)
    local value = broker[name]
    return type(value) == "function" and function(_, ...)
      return value(broker, ...)
    end or value
  end })
end

describe("the check of an application", function()
  it("finds nothing wrong with a good one", function()
    local app = new(function(app)
      app:subscriber("orders", { dead_letter = "orders.dead" }, nothing)
      app:batch({ name = "lines", group = "g" }, { max = 10 }, nothing)
    end)
    assert.same({ true, {} }, { app:check() })
  end)

  it("says everything at once, with file and line, in the order of the program", function()
    local line = debug.getinfo(1, "l").currentline
    local app = new(function(app)
      app:subscriber("a", { tiemout = 1 }, nothing) -- line + 2
      app:subscriber("b", { retry = { max_attempts = 0 } }, nothing)
      app:subscriber("c", { codec = "jsn", workers = "many" }, nothing)
      app:subscriber("d", nothing)
      app:subscriber("d", nothing)
      app:subscriber("e", { tiemout = 1 }, nothing)
    end)
    local ok, found = app:check()
    assert.is_nil(ok)
    local places = {}
    for i, each in ipairs(found) do
      places[i] = each.source:match("check_spec.lua:(%d+)$") - line
      assert.equal(each.source .. ": " .. each.message, tostring(each))
    end
    assert.same({ 2, 3, 4, 4, 6, 7 }, places)
  end)

  it("names the broker that was meant", function()
    has(mistakes(new(function(app)
      app:subscriber("a", { broker = "memry" }, nothing)
    end)), "no broker has the label 'memry'; did you mean 'memory'?")
  end)

  it("misses a broker", function()
    has(mistakes(weir.app("test", "1")), "the application has no broker")
  end)

  it("reports an address that is none, and does not raise for it", function()
    local app = weir.app("test", "1")
    local broker, err = app:broker("memroy:")
    assert.is_nil(broker)
    assert.matches("did you mean 'memory:'", err.message)
    assert.equal(1, #mistakes(app))
    has(mistakes(app), "'memroy:' has no known scheme")
  end)

  it("refuses two brokers of one label", function()
    has(mistakes(new(function(app)
      app:broker("memory:")
    end)), "two brokers have the label 'memory'")
  end)

  it("refuses patterns that the broker does not understand, and options it does not have", function()
    has(mistakes(new(function(app)
      app:subscriber("a.>.b", nothing)
    end)), "'>' stands for the rest")
    has(mistakes(new(function(app)
      app:subscriber({ name = "a", grup = "g" }, nothing)
    end)), "did you mean 'group'?")
  end)

  it("refuses descriptors of another broker", function()
    local other = setmetatable({ name = "a", stream = "s" }, { __name = "another.descriptor" })
    has(mistakes(new(function(app)
      app:subscriber(other, nothing)
    end)), "subscriber 'a': ")
  end)

  it("refuses two handlers of one name", function()
    has(mistakes(new(function(app)
      app:subscriber("a", nothing)
      app:subscriber({ name = "a" }, nothing)
    end)), "subscriber 'a': two handlers of one name (the other: ")
    has(mistakes(new(function(app)
      app:subscriber("a", nothing)
      app:subscriber({ name = "a", prefetch = 3 }, nothing)
    end)), "two handlers of one name 'a' (the other: ")
    has(mistakes(new(function(app)
      app:subscriber("a", { name = "x" }, nothing)
      app:subscriber("b", { name = "x" }, nothing)
    end)), "two handlers of one name 'x' (the other: ")
  end)

  it("allows them in different groups, under names of their own, and on different brokers", function()
    assert.same({}, mistakes(new(function(app)
      app:broker("memory:", { label = "second" })
      app:subscriber({ name = "a", group = "g" }, nothing)
      app:subscriber({ name = "a", group = "h" }, nothing)
      app:subscriber("a", nothing)
      app:subscriber({ name = "a", prefetch = 3 }, { name = "slow" }, nothing)
      app:subscriber("a", { broker = "second" }, nothing)
    end)))
  end)

  it("refuses filters that are never asked", function()
    has(mistakes(new(function(app)
      app:subscriber("a", nothing)
      app:subscriber("a", { filter = { kind = "x" } }, nothing)
    end)), "this filter is never asked")
    has(mistakes(new(function(app)
      app:subscriber("a", { filter = { kind = "x" } }, nothing)
      app:subscriber("a", { filter = { kind = "x" } }, nothing)
    end)), "this filter is that of ")
  end)

  it("allows filters before a default", function()
    assert.same({}, mistakes(new(function(app)
      app:subscriber("a", { filter = { kind = "x" } }, nothing)
      app:subscriber("a", { filter = function() end }, nothing)
      app:subscriber("a", nothing)
    end)))
  end)

  it("refuses settings of a subscription that are said twice", function()
    has(mistakes(new(function(app)
      app:subscriber("a", { filter = { kind = "x" }, workers = 2 }, nothing)
      app:subscriber("a", { workers = 3 }, nothing)
    end)), "'workers' is set twice")
  end)

  it("refuses a batch that shares a subscription", function()
    has(mistakes(new(function(app)
      app:subscriber("a", { filter = { kind = "x" } }, nothing)
      app:batch("a", nothing)
    end)), "batches go to one handler")
  end)

  it("refuses dead letters that come back", function()
    has(mistakes(new(function(app)
      app:subscriber("a", { dead_letter = "a" }, nothing)
    end)), "its dead letters go to 'a', from where they come again and again")
  end)

  it("refuses dead letters that nothing gets to", function()
    has(mistakes(new(function(app)
      app:subscriber("a", {
        dead_letter = "dead",
        retry = { max_attempts = false },
        on_failure = { decode = "drop", schema = "drop" },
      }, nothing)
    end)), "nothing ever gets to 'dead_letter' ('dead')")
  end)

  it("refuses to send to dead letters where there is no place for them", function()
    has(mistakes(new(function(app)
      app:subscriber("a", { on_failure = { decode = "dead_letter" } }, nothing)
    end)), "'on_failure.decode' is \"dead_letter\", but there is no 'dead_letter'")
    has(mistakes(new(function(app)
      app:subscriber("a", { retry = { on = { full = "dead_letter" } } }, nothing)
    end)), "'retry.on.full' is \"dead_letter\"")
    has(mistakes(new(function(app)
      app:subscriber("a", { dead_letter = { broker = "memory" } }, nothing)
    end)), "'dead_letter' has no 'to'")
    has(mistakes(new(function(app)
      app:subscriber("a", { dead_letter = { to = "dead", broker = "elsewhere" } }, nothing)
    end)), "no broker has the label 'elsewhere'")
  end)

  it("refuses replies and outputs without a place", function()
    local list = mistakes(new(function(app)
      app:subscriber("a", { reply = { codec = "json" }, outputs = { audit = {}, bill = { to = "b", broker = "x" } } },
        nothing)
    end))
    has(list, "'reply' has no 'to'")
    has(list, "the output 'audit' has no 'to'")
    has(list, "no broker has the label 'x'")
  end)

  it("refuses a backoff that begins above its end", function()
    has(mistakes(new(function(app)
      app:subscriber("a", { retry = { backoff = { initial = 9, max = 3 } } }, nothing)
    end)), "'retry.backoff.initial' (9) is more than 'retry.backoff.max' (3)")
  end)

  it("refuses a schema that is none", function()
    has(mistakes(new(function(app)
      app:subscriber("a", { schema = { id = "string" } }, nothing)
    end)), "subscriber 'a': 'schema': schema: unknown keyword 'id'")
    has(mistakes(new(function(app)
      app:subscriber("a", { schema = 5 }, nothing)
    end)), "'schema' must be a schema, or a table that describes one, as for weir.schema, not 5")
  end)

  it("refuses a schema of headers that none can have", function()
    for wrong, message in pairs({
      [{ properties = { a = "strin" } }] = "unknown type 'strin'",
      [{ properties = { a = { items = "string" } } }] = "properties.a: a header is a text, or what a text can say",
      [{ properties = { a = "string", A = "string" } }] = "'a' is there twice; the names of headers have no case",
      [{ type = "string" }] = "headers are an object",
    }) do
      has(mistakes(new(function(app)
        app:subscriber("a", { header_schema = wrong }, nothing)
        app:publisher({ to = "a", header_schema = wrong })
        app:batch("b", { reply = { to = true, header_schema = wrong } }, nothing)
      end)), "'header_schema': schema: ", message, "batch 'b': 'reply.header_schema'", "publisher: 'header_schema'")
    end
  end)

  it("makes a schema of a table that describes one", function()
    local app = new(function(app)
      app:subscriber("a", { schema = { properties = { id = "string" } } }, nothing)
      app:publisher({ to = "a", schema = { properties = { id = "string" } } })
    end)
    assert(app:check())
    local described = app:describe()
    assert.is_nil((described.subscriptions[1].handlers[1].schema:validate({ id = 5 })))
    assert.is_true(described.publishers[1].schema:validate({ id = "a" }))
  end)

  it("refuses what the broker is not capable of", function()
    local app = weir.app("test", "1")
    app:broker(limited({ ack = true }))
    app:batch("a", nothing)
    app:subscriber("b", { workers = { 2, by = "key" } }, nothing)
    assert.same({
      "batch 'a' takes batches, but the broker 'limited' lacks 'batch' here: subscription:next_batch()",
      "subscriber 'b' has workers by key, but the broker 'limited' lacks 'key' here: messages have a partition key",
    }, mistakes(app))
  end)

  it("refuses handlers that settle by themselves where nothing is settled, and doubts retries there", function()
    local app = weir.app("test", "1")
    app:broker(limited({}))
    app:subscriber("a", { retry = { max_attempts = 3 } }, nothing)
    has(warnings(app), "settles nothing here")
    app:subscriber("b", { ack = "manual" }, nothing)
    has(mistakes(app), "settles by itself (ack = \"manual\")")
  end)

  it("doubts workers by key that are one, and replies that come back", function()
    local list = warnings(new(function(app)
      app:subscriber("a", { workers = { 1, by = "key" }, reply = "a" }, nothing)
    end))
    has(list, "'workers.by' changes nothing with one worker")
    has(list, "its replies go to 'a'")
  end)

  it("refuses a router that is in itself", function()
    local router = weir.router()
    router:include(router)
    has(mistakes(new(function(app)
      app:include(router)
    end)), "the router is included in itself")
  end)

  it("looks at options of the application, of brokers, routers and inclusions", function()
    local list = mistakes(new(function(app)
      app:broker("memory:", { label = "second", worker = 3 })
      app:include(weir.router({ prefx = "eu." }), { prefixe = "x" })
    end, { shutdown_timout = 3, log = { levl = "info" } }))
    has(list, "weir.app: unknown option 'shutdown_timout'; did you mean 'shutdown_timeout'?")
    has(list, "'log': log: unknown option 'levl'")
    has(list, "broker 'second': unknown option 'worker'; did you mean 'workers'?")
    has(list, "router: unknown option 'prefx'; did you mean 'prefix'?")
    has(list, "include: unknown option 'prefixe'; did you mean 'prefix'?")
  end)

  it("connects to nothing", function()
    local app = new(function(app)
      app:subscriber("a", nothing)
    end)
    app:check()
    app:describe()
    assert.equal("new", (app.brokers[1].broker:state()))
  end)
end)
