local new_collector = require("spec.lua.otlp.collector")
local decoder = require("spec.lua.otlp.decoder")
local encode = require("weir.otlp.encode")
local errors = require("weir.errors")
local metrics = require("weir.metrics")
local runtime = require("weir.runtime")
local support = require("spec.lua.app.support")
local trace = require("weir.trace")
local weir = require("weir")

local eventually, finally = support.eventually, support.finally

after_each(support.clean)

local function collector(answers)
  local made = new_collector(answers)
  finally(function()
    made:close()
  end)
  return made
end

-- An application that sends to a collector, and its broker.
local function traced(to, options, info)
  local app, broker, lines = support.app(info)
  local own = { endpoint = to.url, interval = 0.02, metrics_interval = 3600, metrics = false }
  for name, value in pairs(options or {}) do
    own[name] = value
  end
  return app:otlp(own), broker, lines
end

local function items(app, signal, outcome)
  return (app.metrics:value("weir_otlp_items_total", { signal = signal, outcome = outcome }))
end

-- The span of a name, once it has come.
local function span(from, name, n)
  return eventually(function()
    assert.same({}, from.errors)
    return from:span(name, n)
  end)
end

describe("the spans of an application", function()
  it("make one trace of a publish, the message, its reply and what handles that", function()
    local to = collector()
    local app = traced(to)
    app:subscriber("orders", { reply = "bills" }, function(order)
      return { id = order.id }
    end)
    app:subscriber("bills", function() end)
    support.start(app)
    assert(app:publisher({ to = "orders" }):publish({ id = 7 }, { message_id = "m7" }))
    local last = span(to, "process bills")
    local first, second, third = span(to, "publish orders"), span(to, "process orders"), span(to, "publish bills")
    assert.is_nil(first.parentSpanId)
    assert.equal(first.spanId, second.parentSpanId)
    assert.equal(second.spanId, third.parentSpanId)
    assert.equal(third.spanId, last.parentSpanId)
    for _, each in ipairs({ second, third, last }) do
      assert.equal(first.traceId, each.traceId)
    end
    assert.same({ 4, 5 }, { first.kind, second.kind })
    assert.equal("m7", second.attributes["messaging.message.id"])
    assert.equal("m7", last.attributes["messaging.message.conversation_id"])
    assert.equal("memory", second.attributes["messaging.system"])
    assert.equal("orders", second.attributes["messaging.destination.name"])
    assert.equal(#'{"id":7}', second.attributes["messaging.message.body.size"])
    assert.equal("ack", second.attributes["weir.outcome"])
    assert.is_nil(second.status)
    assert.same("test", to.resource["service.name"])
  end)

  it("go on with the trace that a message brings, and follow its decision", function()
    local to = collector()
    local app, broker = traced(to)
    local seen = {}
    app:subscriber("orders", function(_, ctx)
      seen[#seen + 1] = ctx.headers.traceparent
    end)
    support.start(app)
    local wanted, unwanted = trace.fresh(), trace.fresh():gsub("01$", "00")
    support.publish(broker, "orders", "{}", { traceparent = unwanted })
    support.publish(broker, "orders", "{}", { traceparent = wanted, tracestate = "a=b" })
    local got = span(to, "process orders")
    local trace_id, parent = trace.parse(wanted)
    assert.same({ trace_id, parent, "a=b" }, { got.traceId, got.parentSpanId, got.traceState })
    assert.same({ unwanted, wanted }, seen)
    assert.equal(1, #to.spans)
  end)

  it("begin a trace for messages without one, which what they lead to is in", function()
    local to = collector()
    local app, broker = traced(to)
    app:subscriber("orders", function(_, ctx)
      assert(ctx:publish({}, { to = "bills" }))
    end)
    app:subscriber("bills", function() end)
    support.start(app)
    support.publish(broker, "orders", "{}")
    local last, first = span(to, "process bills"), span(to, "process orders")
    assert.is_nil(first.parentSpanId)
    assert.equal(first.traceId, last.traceId)
    assert.equal(first.spanId, span(to, "publish bills").parentSpanId)
  end)

  it("say what failed, each time, and what came of it", function()
    local to = collector()
    local app, broker = traced(to, nil, { retry = { max_attempts = 2, backoff = "none" } })
    app:subscriber("orders", function()
      return nil, errors.new("stock", "no tea\255")
    end)
    support.start(app)
    support.publish(broker, "orders", "{}")
    local second = span(to, "process orders", 2)
    local first = span(to, "process orders", 1)
    assert.same({ 2, 2 }, { first.status.code, second.status.code })
    assert.matches("^no tea", first.status.message)
    assert.equal("stock", first.attributes["error.type"])
    assert.same({ "retry", "drop" }, { first.attributes["weir.outcome"], second.attributes["weir.outcome"] })
    assert.same({ 1, 2 }, { first.attributes["weir.attempt"], second.attributes["weir.attempt"] })
  end)

  it("tell of messages that no handler sees, as they cannot be decoded", function()
    local to = collector()
    local app, broker = traced(to)
    app:subscriber("orders", function() end)
    support.start(app)
    support.publish(broker, "orders", "{")
    local got = span(to, "process orders")
    assert.equal("decode", got.attributes["error.type"])
    assert.equal(2, got.status.code)
  end)

  it("are no failures where the handler asks for a retry or drops", function()
    local to = collector()
    local app, broker = traced(to, nil, { retry = { backoff = "none" } })
    app:subscriber("orders", function(_, ctx)
      return ctx.attempt == 1 and weir.retry() or weir.drop("seen")
    end)
    support.start(app)
    support.publish(broker, "orders", "{}")
    assert.is_nil(span(to, "process orders", 2).status)
    assert.is_nil(span(to, "process orders", 1).status)
    assert.equal("drop", span(to, "process orders", 2).attributes["weir.outcome"])
  end)

  it("are one for a batch, with links to the messages", function()
    local to = collector()
    local app = traced(to)
    app:batch("orders", { max = 3, linger = 5 }, function(list, ctx)
      assert(ctx:publish(#list, { to = "sums" }))
      return { true, weir.drop("no"), true }
    end)
    support.start(app)
    local orders = app:publisher({ to = "orders" })
    for i = 1, 3 do
      assert(orders:publish({ id = i }))
    end
    local got = span(to, "process orders")
    assert.equal(3, got.attributes["messaging.batch.message_count"])
    assert.same({ 2, 1 }, { got.attributes["weir.outcome.ack"], got.attributes["weir.outcome.drop"] })
    for i = 1, 3 do
      local sent = span(to, "publish orders", i)
      assert.same({ sent.traceId, sent.spanId }, { got.links[i].traceId, got.links[i].spanId })
    end
    local sum = span(to, "publish sums")
    assert.same({ got.traceId, got.spanId }, { sum.traceId, sum.parentSpanId })
  end)

  it("name no more messages of a batch than 128, and count the rest", function()
    local to = collector()
    local app = traced(to)
    app:batch("orders", { max = 130, linger = 5 }, function() end)
    support.start(app)
    local orders = {}
    for i = 1, 130 do
      orders[i] = { value = { id = i } }
    end
    assert(app:publisher({ to = "orders" }):publish_batch(orders))
    local got = span(to, "process orders")
    assert.same({ 128, 2 }, { #got.links, got.droppedLinksCount })
  end)

  it("are sampled by their trace: all of it or nothing, and others are told", function()
    local to = collector()
    local app = traced(to, { sample = 0.5 })
    local flags = {}
    app:subscriber("orders", function(_, ctx)
      local trace_id, _, flag = trace.parse(ctx.headers.traceparent)
      flags[trace_id] = flag
    end)
    local running = support.start(app)
    local orders = app:publisher({ to = "orders" })
    for i = 1, 200 do
      assert(orders:publish({ id = i }))
    end
    eventually(function()
      return app:health().handlers.orders and app.metrics:value("weir_messages_processed_total") == 200
    end)
    running:stop()
    local spans = {}
    for _, each in ipairs(to.spans) do
      spans[each.traceId] = (spans[each.traceId] or 0) + 1
    end
    local sampled = 0
    for trace_id, flag in pairs(flags) do
      assert.equal(flag == "01" and 2 or nil, spans[trace_id])
      sampled = sampled + (flag == "01" and 1 or 0)
    end
    assert.is_true(sampled > 50 and sampled < 150) -- wrong once in 10^12 runs
  end)

  it("follow a trace that a publish is given, with a span of its own", function()
    local to = collector()
    local app = traced(to, { sample = 0 })
    local came
    app:subscriber("orders", function(_, ctx)
      came = ctx.headers.traceparent
    end)
    support.start(app)
    local orders = app:publisher({ to = "orders" })
    local given = trace.fresh()
    assert(orders:publish({}, { headers = { traceparent = given, tracestate = "a=b" } }))
    local trace_id, parent = trace.parse(given)
    local got, after = span(to, "publish orders"), span(to, "process orders")
    assert.same({ trace_id, parent, "a=b" }, { got.traceId, got.parentSpanId, got.traceState })
    assert.not_equal(parent, got.spanId)
    assert.same({ trace_id, got.spanId }, { after.traceId, after.parentSpanId })
    assert.equal(("00-%s-%s-01"):format(trace_id, got.spanId), came)
    local not_wanted = trace.fresh():gsub("01$", "00")
    assert(orders:publish({}, { headers = { traceparent = not_wanted } }))
    eventually(function()
      return came == not_wanted
    end)
  end)

  it("are below the message where a handler passes its headers on", function()
    local to = collector()
    local app, broker = traced(to)
    app:subscriber("orders", function(_, ctx)
      assert(ctx:publish({}, { to = "bills", headers = ctx.headers }))
    end)
    support.start(app)
    support.publish(broker, "orders", "{}", { traceparent = trace.fresh() })
    local process, publish = span(to, "process orders"), span(to, "publish bills")
    assert.same({ process.traceId, process.spanId }, { publish.traceId, publish.parentSpanId })
  end)

  it("of a batch that is published end as the broker answers", function()
    local to = collector()
    local app, broker = traced(to)
    support.start(app)
    local publisher = app:publisher({ to = "orders" })
    local raw = getmetatable(broker:publisher()).__index
    local publish_batch = raw.publish_batch
    finally(function()
      raw.publish_batch = publish_batch
    end)
    raw.publish_batch = function()
      local full = errors.new("full", "no room")
      return nil, full, { true, full }
    end
    assert.is_nil((publisher:publish_batch({ { value = 1 }, { value = 2 } })))
    local first, second = span(to, "publish orders", 1), span(to, "publish orders", 2)
    assert.is_nil(first.status)
    assert.same({ 2, "full" }, { second.status.code, second.attributes["error.type"] })
  end)

  it("of a transaction end with it", function()
    local to = collector()
    local app = traced(to)
    support.start(app)
    local publisher = app:publisher({ to = "orders" })
    local done = assert(publisher:transaction())
    assert(done:publish(1))
    assert(done:publish(2))
    assert.equal(0, #to.spans)
    assert(done:commit())
    assert.is_nil(span(to, "publish orders", 2).status)
    local given_up = assert(publisher:transaction())
    assert(given_up:publish(3))
    given_up:abort()
    assert.equal("aborted", span(to, "publish orders", 3).attributes["error.type"])
  end)

  it("have no names of inboxes", function()
    local to = collector()
    local app = traced(to)
    support.start(app)
    assert(app:publisher({ to = "_INBOX.abc" }):publish({}))
    local got = span(to, "publish (temporary)")
    assert.same({ "_INBOX.abc", true },
      { got.attributes["messaging.destination.name"], got.attributes["messaging.destination.temporary"] })
  end)

  it("leave out a tracestate that is none", function()
    local to = collector()
    local app, broker = traced(to)
    app:subscriber("orders", function() end)
    support.start(app)
    for i, state in ipairs({ "a=\255", ("a"):rep(5000), "a=b\r\nx: y", "" }) do
      support.publish(broker, "orders", "{}", { traceparent = trace.fresh(), tracestate = state })
      assert.is_nil(span(to, "process orders", i).traceState)
    end
  end)

  it("tell of publishes that fail", function()
    local to = collector()
    local app = traced(to)
    app:publish_use(function()
      return nil, errors.new("full", "no room")
    end)
    support.start(app)
    assert.is_nil((app:publisher({ to = "orders" }):publish({})))
    local got = span(to, "publish orders")
    assert.same({ 2, "no room", "full" }, { got.status.code, got.status.message, got.attributes["error.type"] })
  end)
end)

describe("sending telemetry", function()
  local function flood(app, n)
    local orders = app:publisher({ to = "orders" })
    for i = 1, n do
      assert(orders:publish({ id = i }))
    end
  end

  it("sends what is left when the application stops", function()
    local to = collector()
    local app = traced(to, { interval = 3600, metrics = true })
    local running = support.start(app)
    flood(app, 3)
    running:stop()
    assert.same({}, to.errors)
    assert.equal(3, #to.spans)
    assert.equal(3, to.metrics["weir_messages_published_total"].points[1].asDouble)
  end)

  it("tries again where the server asks for it, after the time that it names", function()
    local to = collector({
      { status = 429, headers = "retry-after: 1\r\n" },
      { status = 503, headers = "retry-after: 0\r\n" },
    })
    local app = traced(to)
    support.start(app)
    flood(app, 1)
    span(to, "publish orders")
    assert.equal(3, #to.requests)
    assert.is_true(to.requests[2].at - to.requests[1].at >= 0.99)
    assert.equal(to.requests[1].body, to.requests[3].body)
    eventually(function()
      return items(app, "spans", "sent") == 1
    end)
  end)

  it("waits until the date that the server names, and not for one that is over", function()
    local function date(seconds)
      return { status = 503, headers = os.date("!retry-after: %a, %d %b %Y %H:%M:%S GMT\r\n", os.time() + seconds) }
    end
    local to = collector({ { status = 503, headers = "retry-after: whenever\r\n" }, date(3), date(-1000) })
    local app = traced(to)
    support.start(app)
    flood(app, 1)
    span(to, "publish orders")
    assert.equal(4, #to.requests)
    assert.is_true(to.requests[3].at - to.requests[2].at >= 1.5) -- a second pause of its own is shorter
    eventually(function()
      return items(app, "spans", "sent") == 1
    end)
  end)

  it("sends in parts what the server takes in parts alone, and gives up what is too large by itself", function()
    local to = collector()
    to.most = 3000
    local app, _, lines = traced(to, { interval = 3600, metrics = true })
    local running = support.start(app)
    flood(app, 20)
    assert(app:publisher({ to = ("long"):rep(250) }):publish({}))
    running:stop()
    assert.same({}, to.errors)
    assert.equal(20, #to.spans)
    assert.same({ 20, 1 }, { items(app, "spans", "sent"), items(app, "spans", "failed") })
    local seen = {}
    for _, each in ipairs(to.spans) do
      assert.is_nil(seen[each.spanId])
      seen[each.spanId] = true
    end
    assert.is_true(#to.requests > 5)
    assert.equal(to.points, items(app, "metrics", "sent"))
    assert.is_true(to.points > 10)
    assert.equal(0, items(app, "metrics", "failed"))
    local text = table.concat(lines, "\n")
    assert.equal(1, select(2, text:gsub("telemetry could not be sent", "")))
    assert.matches("status 413", text)
  end)

  it("does not send parts for ever to a server that takes none", function()
    local to = collector()
    to.most = 0
    local app = traced(to, { interval = 3600, queue = 2048 })
    local running = support.start(app)
    flood(app, 512)
    eventually(function()
      return items(app, "spans", "failed") == 512
    end)
    assert.is_true(#to.requests <= 130)
    running:stop()
  end)

  it("tries again when the connection breaks", function()
    local to = collector({ "hang up" })
    local app = traced(to)
    support.start(app)
    flood(app, 1)
    span(to, "publish orders")
    assert.equal(2, #to.requests)
  end)

  it("gives up what is refused, says so once, and goes on", function()
    local to = collector({ { status = 400 }, { status = 401 } })
    local app, _, lines = traced(to)
    support.start(app)
    for i = 1, 3 do
      flood(app, 1)
      eventually(function()
        return #to.requests == i
      end)
    end
    span(to, "publish orders")
    eventually(function()
      return items(app, "spans", "sent") == 1
    end)
    assert.equal(2, items(app, "spans", "failed"))
    local text = table.concat(lines, "\n")
    assert.equal(1, select(2, text:gsub("telemetry could not be sent", "")))
    assert.matches("status 400", text)
    assert.matches("telemetry is sent again", text)
  end)

  it("fills no log where it works now and then", function()
    local to = collector()
    local app, _, lines = traced(to)
    support.start(app)
    for i = 1, 6 do
      to.usual = { status = i % 2 == 0 and 200 or 500 }
      flood(app, 1)
      eventually(function()
        return items(app, "spans", "sent") + items(app, "spans", "failed") == i
      end)
    end
    local text = table.concat(lines, "\n")
    assert.equal(1, select(2, text:gsub("telemetry could not be sent", "")))
    assert.equal(1, select(2, text:gsub("telemetry is sent again", "")))
  end)

  it("counts what the server took only in part", function()
    local to = collector({ { body = '{"partialSuccess":{"rejectedSpans":"2","errorMessage":"too old"}}' } })
    local app, _, lines = traced(to, { interval = 3600 })
    local running = support.start(app)
    flood(app, 3)
    running:stop()
    assert.same({ 1, 2 }, { items(app, "spans", "sent"), items(app, "spans", "refused") })
    assert.matches("too old", table.concat(lines, "\n"))
  end)

  it("is not confused by numbers of refused spans that cannot be", function()
    local to = collector({
      { body = '{"partialSuccess":{"rejectedSpans":1e999}}' },
      { body = '{"partialSuccess":{"rejectedSpans":"-3"}}' },
      { body = '{"partialSuccess":{"rejectedSpans":[]}}' },
      { body = ("["):rep(60000) },
      { body = "\255" },
    })
    local app = traced(to)
    support.start(app)
    for i = 1, 6 do
      flood(app, 1)
      eventually(function()
        return items(app, "spans", "sent") + items(app, "spans", "refused") == i
      end)
    end
    assert.is_true(items(app, "spans", "refused") <= 1)
  end)

  it("tells what the server says about its refusal, as one line", function()
    local to = collector({ { status = 401, body = '{"message":"no\27[31m key"}' .. ("x"):rep(5000) } })
    local app, _, lines = traced(to)
    support.start(app)
    flood(app, 1)
    eventually(function()
      return items(app, "spans", "failed") == 1
    end)
    local text = table.concat(lines, "\n")
    assert.matches("status 401: .*no\\x1b%[31m key", text)
    assert.is_true(#text < 2000)
  end)

  it("waits for a full batch, or the interval, between two requests", function()
    local to = collector()
    local app = traced(to, { interval = 3600, queue = 2048 })
    local running = support.start(app)
    flood(app, 512 + 10)
    eventually(function()
      return items(app, "spans", "sent") == 512
    end)
    flood(app, 20)
    assert.equal(1, #to.requests)
    running:stop()
    assert.equal(512 + 30, items(app, "spans", "sent"))
    assert.equal(2, #to.requests)
  end)

  it("keeps no more spans than its queue has room for, and counts the rest", function()
    local to = collector()
    local app, _, lines = traced(to, { queue = 10, interval = 3600 })
    to.usual = "silence"
    local running = support.start(app)
    flood(app, 50)
    assert.is_true(items(app, "spans", "dropped") >= 30)
    assert.equal(1, select(2, table.concat(lines, "\n"):gsub("telemetry is dropped: there is more than", "")))
    assert.is_true(items(app, "spans", "dropped") <= 40)
    to.usual = { status = 200 }
    running:stop()
    assert.is_true(#to.spans <= 20)
  end)

  it("does not hold up the end of the application for a server that does not answer", function()
    local to = collector()
    to.usual = "silence"
    local app = traced(to, { interval = 3600, timeout = 0.2, metrics = true })
    local running = support.start(app)
    flood(app, 3)
    local before = runtime.now()
    assert.is_true(running:stop())
    assert.is_true(runtime.now() - before < 5)
    assert.equal(3, items(app, "spans", "failed") + items(app, "spans", "dropped"))
  end)

  it("does not hold up the end of the application where nobody listens", function()
    local app = traced({ url = "http://127.0.0.1:1" }, { interval = 3600, metrics = true })
    local running = support.start(app)
    flood(app, 3)
    local before = runtime.now()
    assert.is_true(running:stop())
    assert.is_true(runtime.now() - before < 5)
    assert.equal(3, items(app, "spans", "failed"))
  end)

  it("tries again what may work, as long as there is time for it at the end", function()
    local to = collector({ { status = 503 }, { status = 503 } })
    local app = traced(to, { interval = 3600 })
    local running = support.start(app)
    flood(app, 3)
    running:stop()
    assert.equal(3, #to.spans)
  end)

  it("has metrics of brokers and of the process, too", function()
    local to = collector()
    local app = traced(to, { metrics = true })
    local running = support.start(app)
    running:stop()
    assert.equal("test", to.metrics.weir_app_info.points[1].labels.app)
    assert.is_true(to.metrics.weir_lua_memory_bytes.points[1].asDouble > 0)
    assert.equal("memory", to.metrics.weir_broker_up.points[1].labels.broker)
  end)

  it("sends headers that it is given, to the paths of OTLP", function()
    local to = collector()
    local app = traced(to, { headers = { ["x-key"] = "secret" }, metrics = true })
    local running = support.start(app)
    flood(app, 1)
    running:stop()
    local paths = {}
    for _, request in ipairs(to.requests) do
      paths[request.path] = true
      assert.matches("\r\nx%-key: secret\r\n", request.head)
      assert.matches("\r\ncontent%-type: application/json\r\n", request.head:lower())
    end
    assert.same({ ["/v1/traces"] = true, ["/v1/metrics"] = true }, paths)
  end)
end)

describe("app:otlp", function()
  local function refused(pattern, options)
    local app = weir.app("a", "1")
    local ok, err = pcall(app.otlp, app, options)
    assert.is_false(ok)
    assert.matches(pattern, err)
  end

  it("names what is wrong with its options", function()
    refused("did you mean 'endpoint'", { endpiont = "x" })
    refused("must be such as", { endpoint = "127.0.0.1:4318" })
    refused("into 'headers'", { endpoint = "http://me:secret@host:4318" })
    refused("from 0 to 1", { sample = 2 })
    refused("from 0 to 1", { sample = 0 / 0 })
    refused("seconds above 0", { interval = 0 })
    refused("whole number", { queue = 0.5 })
    refused("from 1 to 1000000", { queue = 1000001 })
    refused("one line", { headers = { a = "b\r\nc: d" } })
    refused("no name of a header", { headers = { "x" } })
    refused("names to strings", { resource = { a = {} } })
  end)

  it("is for once, before the start", function()
    local app = weir.app("a", "1"):otlp()
    assert.has_error(function()
      app:otlp()
    end)
  end)
end)

describe("the encoding of OTLP", function()
  it("has counters, gauges and histograms with their buckets apart", function()
    local registry = metrics.registry()
    registry:counter("a_total", "A", { "x" }):with("1"):inc(3)
    registry:gauge("b", "B"):with():set(-2.5)
    local sizes = registry:histogram("c_bytes", "C", { "x" }, { buckets = { 10, 20 } }):with("\255")
    sizes:observe(5, 2)
    sizes:observe(15)
    sizes:observe(1e6)
    local body, n = encode.metrics(encode.attributes({ ["service.name"] = "s" }), registry:collect(), 1000.5, 2000)
    assert.equal(3, n)
    local got = decoder.metrics(body)
    local a = got.a_total
    assert.same({ 3, "1", true, 2 },
      { a.points[1].asDouble, a.points[1].labels.x, a.metric.sum.isMonotonic, a.metric.sum.aggregationTemporality })
    assert.same({ "1000500000000", "2000000000000" }, { a.points[1].startTimeUnixNano, a.points[1].timeUnixNano })
    assert.equal(-2.5, got.b.points[1].asDouble)
    local c = got.c_bytes.points[1]
    assert.same({ "2", "1", "1" }, c.bucketCounts)
    assert.same({ 10, 20 }, c.explicitBounds)
    assert.same({ "4", 1000025, "\239\191\189" }, { c.count, c.sum, c.labels.x })
    assert.equal("By", got.c_bytes.metric.unit)
  end)

  it("has halves of metrics with the same points between them, down to one", function()
    local registry = metrics.registry()
    local counter = registry:counter("weir_a_total", "a", { "x" })
    for i = 1, 5 do
      counter:with(tostring(i)):inc(i)
    end
    registry:gauge("weir_b", "b"):with():set(7)
    local points = {}
    local function walk(families)
      local first, second = encode.metric_halves(families)
      if first then
        walk(first)
        return walk(second)
      end
      local body, n = encode.metrics(encode.attributes({ ["service.name"] = "s" }), families, 1, 2)
      assert.equal(1, n)
      for name, each in pairs(decoder.metrics(body)) do
        points[name .. (each.points[1].labels.x or "")] = each.points[1].asDouble
      end
    end
    walk(registry:collect())
    assert.same({ weir_a_total1 = 1, weir_a_total2 = 2, weir_a_total3 = 3, weir_a_total4 = 4, weir_a_total5 = 5,
      weir_b = 7 }, points)
    assert.is_nil(encode.metric_halves({}))
  end)

  it("leaves out what JSON has no number for, and has nothing to say where there is nothing", function()
    local registry = metrics.registry()
    registry:gauge("b", "B"):with():set(0 / 0)
    assert.is_nil((encode.metrics("", registry:collect(), 0, 0)))
  end)

  it("makes UTF-8 of any text, and bounds it", function()
    local replacement = "\239\191\189"
    assert.equal("a" .. replacement .. "b", encode.text("a\255b"))
    assert.equal("grün €", encode.text("grün €"))
    assert.equal(replacement:rep(3), encode.text("\237\160\128")) -- half of a surrogate pair
    assert.equal(replacement:rep(2), encode.text("\192\128")) -- longer than needed
    assert.equal(replacement, encode.text("\240")) -- cut
    assert.equal("ä", encode.text("ää", 3)) -- no half characters
    assert.equal("\u{1F40D}", encode.text("\u{1F40D}\u{1F40D}", 7))
    assert.equal("", encode.text("\u{1F40D}", 3))
    assert.is_true(#encode.text(("\255"):rep(5000)) <= 1024)
    for i = 0, 255 do
      for j = 0, 255, 7 do
        assert.is_truthy(utf8.len(encode.text(string.char(i, j, 255 - j, i))))
      end
    end
  end)
end)
