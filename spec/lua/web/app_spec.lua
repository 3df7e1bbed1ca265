local json = require("cjson")
local log = require("weir.log")
local runtime = require("weir.runtime")
local weir = require("weir")
local support = require("spec.lua.app.support")
local eventually, publish = support.eventually, support.publish

local client

local function get(url, limit)
  local response = assert(client:request({ url = url, timeout = limit or 5 }))
  return response.status, assert(response:body()), response
end

local function start(app, endpoint)
  support.start(app)
  return endpoint.url
end

local function served(options)
  local app, broker, lines = support.app(options)
  local endpoint = app:http({ listen = "tcp://127.0.0.1:0" })
  return app, broker, endpoint, lines
end

local has_promtool = os.execute("command -v promtool >/dev/null 2>&1")

-- Runs promtool with a text at its standard input; its status and what it says.
local function promtool(arguments, text)
  local path = os.tmpname()
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
  local pipe = io.popen(("promtool %s 2>&1 <%s; echo $?"):format(arguments:gsub("FILE", path), path))
  local said = pipe:read("a")
  pipe:close()
  os.remove(path)
  return tonumber(said:match("(%d+)%s*$")), said
end

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("a")
  file:close()
  return text
end

-- An application to which everything has happened that is counted, and the URL of its server.
local function busy_app()
  local node = assert(weir.network({ listen = "mem://metrics-spec" }))
  local other = assert(weir.network({ peers = "mem://metrics-spec" }))
  support.finally(function()
    other:close(0)
    node:close(0)
  end)
  local app, broker = support.app()
  local endpoint = app:http({ listen = "tcp://127.0.0.1:0", network = node })
  app:subscriber("in", {
    name = "one",
    retry = { max_attempts = 2, backoff = "none" },
    dead_letter = "dead",
    filter = function(ctx)
      return ctx.headers.skip == nil
    end,
  }, function(value, ctx)
    if value.what == "fail" then
      error("as told")
    elseif value.what == "drop" then
      return weir.drop("as told")
    elseif value.what == "wait" then
      weir.sleep(60)
    end
    ctx:publish(value, { to = "out" })
  end)
  app:batch("many", { name = "batch", max = 10, linger = 0.01 }, function() end)
  local url = start(app, endpoint)
  for _, what in ipairs({ "ok", "ok", "fail", "drop" }) do
    publish(broker, "in", { what = what })
  end
  publish(broker, "in", "no json")
  for i = 1, 3 do
    publish(broker, "many", { n = i })
  end
  eventually(function() -- what is tried again comes after what waits
    return app.metrics:value("weir_dead_letters_total") == 2
  end)
  publish(broker, "in", { what = "wait" })
  publish(broker, "in", { what = "ok" })
  local producer, consumer = node:produce("numbers"), other:consume("numbers")
  node:consume("numbers")
  eventually(function()
    return producer:stats().consumers == 2
  end)
  producer:send("1", 5)
  producer:send("2", 5)
  consumer:recv(5)
  eventually(function()
    return app.metrics:value("weir_messages_in_flight") == 1 and app.metrics:value("weir_queue_depth") == 1
      and app.metrics:value("weir_messages_processed_total", { handler = "batch", outcome = "ack" }) == 3
  end)
  return app, url
end

-- The metrics of a text: name to its type.
local function types_of(text)
  local types = {}
  for name, kind in text:gmatch("# TYPE (%S+) (%S+)\n") do
    types[name] = kind
  end
  return types
end

local function keys(set)
  local list = {}
  for key in pairs(set) do
    list[#list + 1] = key
  end
  table.sort(list)
  return list
end

describe("app:http", function()
  before_each(function()
    client = runtime.http()
  end)

  after_each(function()
    client:close()
    support.clean()
  end)

  it("fills every metric, for batches as well", function()
    weir.run(function()
      local _, url = busy_app()
      local status, text, response = get(url .. "/metrics")
      assert.equal(200, status)
      assert.equal("text/plain; version=0.0.4; charset=utf-8", response:header("content-type"))
      local function value(name, labels)
        local from, to = text:find("\n" .. name .. labels .. " ", 1, true)
        return from and tonumber(text:match("^%S+", to + 1)) or error("no " .. name .. labels .. " in\n" .. text)
      end
      local one = '{app="test",broker="memory",handler="one",destination="in"}'
      local function outcome(which)
        return value("weir_messages_processed_total", (one:gsub("}$", (',outcome="%s"}'):format(which))))
      end
      assert.equal(7, value("weir_messages_consumed_total", one))
      assert.equal(2, outcome("ack"))
      assert.equal(1, outcome("retry"))
      assert.equal(1, outcome("drop"))
      assert.equal(2, outcome("dead_letter"))
      assert.equal(1, value("weir_retries_total", one))
      assert.equal(1, value("weir_redeliveries_total", one))
      assert.equal(1, value("weir_decode_failures_total", one))
      assert.equal(2, value("weir_dead_letters_total", one))
      assert.equal(1, value("weir_messages_in_flight", one))
      assert.equal(1, value("weir_queue_depth", one))
      assert.equal(2, value("weir_consumer_lag", one))
      assert.is_true(value("weir_process_duration_seconds_count", one) >= 3)
      assert.equal(7, value("weir_message_size_bytes_count", one))
      local batch = '{app="test",broker="memory",handler="batch",destination="many"}'
      assert.equal(3, value("weir_messages_consumed_total", batch))
      assert.equal(3, value("weir_message_size_bytes_count", batch))
      assert.is_true(value("weir_process_duration_seconds_count", batch) >= 1)
      local out = '{app="test",broker="memory",destination="out"'
      assert.equal(2, value("weir_messages_published_total", out .. ',status="ok"}'))
      assert.equal(2, value("weir_publish_duration_seconds_count", out .. "}"))
      assert.equal(0, value("weir_broker_reconnects_total", '{app="test",broker="memory"}'))
      assert.equal(1, value("weir_broker_up", '{app="test",broker="memory"}'))
      assert.equal(1, value("weir_app_info", '{app="test",version="1"}'))
      assert.equal(2, value("weir_stream_messages_total", '{stream="numbers",side="producer"}'))
      assert.is_true(value("weir_stream_peers", '{stream="numbers",side="producer"}') >= 1)
      assert.is_true(value("weir_tasks", "") > 1)
    end)
  end)

  it("serves what promtool has nothing to say about", function()
    if not has_promtool then
      pending("promtool is not installed")
      return
    end
    weir.run(function()
      local _, url = busy_app()
      local _, text = get(url .. "/metrics")
      local status, said = promtool("check metrics", text)
      assert.equal("0\n", said)
      assert.equal(0, status)
    end)
  end)

  it("has no other names than the dashboard and the table of the guide", function()
    weir.run(function()
      local _, url = busy_app()
      local _, text = get(url .. "/metrics")
      local types = types_of(text)
      local shown, listed = {}, {}
      for expression in read("docs/grafana.json"):gmatch('"expr": "(.-[^\\])"') do
        for name in expression:gsub('\\"[^"]*\\"', ""):gmatch("[%a_][%w_]*") do
          if name:find("^weir_") or name:find("^process_") then
            local family = name:gsub("_bucket$", "")
            assert.equal(family ~= name, types[family] == "histogram", name)
            shown[family] = true
          end
        end
      end
      for name, kind in read("docs/metrics.md"):gmatch("\n| `([%w_]+)` | (%a+) |") do
        assert.equal(types[name] or "nothing", kind, name)
        listed[name] = true
      end
      assert.same(keys(types), keys(listed))
      assert.same(keys(types), keys(shown))
    end)
  end)

  it("has a dashboard whose expressions Prometheus understands", function()
    if not has_promtool then
      pending("promtool is not installed")
      return
    end
    local rules = { "groups:", "- name: dashboard", "  rules:" }
    for _, panel in ipairs(json.decode(read("docs/grafana.json")).panels) do
      for _, target in ipairs(panel.targets or {}) do
        local expression = target.expr:gsub("%$__rate_interval", "5m"):gsub("%$__range", "1h"):gsub("%$(%a+)", ".*")
        rules[#rules + 1] = ("  - record: weir:r%d\n    expr: '%s'"):format(#rules, expression)
      end
    end
    local status, said = promtool("check rules FILE", table.concat(rules, "\n") .. "\n")
    assert.equal(0, status, said)
    assert.truthy(said:find(("%d rules found"):format(#rules - 3), 1, true))
  end)

  it("says whether it lives, and which broker keeps it from being ready", function()
    weir.run(function()
      local app, broker, endpoint = served()
      local url = start(app, endpoint)
      local status, text = get(url .. "/livez")
      assert.equal(200, status)
      assert.same({ live = true, state = "running" }, json.decode(text))
      status, text = get(url .. "/readyz")
      assert.equal(200, status)
      assert.same(
        { ready = true, state = "running", brokers = { { name = "memory", state = "up" } } },
        json.decode(text)
      )
      local state = broker.state
      broker.state = function()
        return "degraded", { code = "closed", message = "nobody is there" }
      end
      status, text = get(url .. "/readyz")
      assert.equal(0, app.metrics:value("weir_broker_up"))
      broker.state = state
      assert.equal(1, app.metrics:value("weir_broker_up"))
      assert.equal(503, status)
      assert.same({ { name = "memory", state = "degraded", error = "nobody is there" } }, json.decode(text).brokers)
    end)
  end)

  it("is there while the application starts and stops, and not after", function()
    weir.run(function()
      local seen = {}
      local app, _, endpoint = served()
      local function look(name)
        app:on(name, function()
          local status, text = get(endpoint.url .. "/readyz")
          seen[#seen + 1] = ("%s %d %s"):format(name, status, json.decode(text).state)
        end)
      end
      look("startup")
      look("stopping")
      local running = assert(app:start())
      local url = endpoint.url
      running:stop()
      assert.same({ "startup 503 starting", "stopping 503 stopping" }, seen)
      assert.is_nil(endpoint.url)
      local _, err = client:request({ url = url .. "/livez" })
      assert.equal("refused", err.code)
    end)
  end)

  it("ends the start with a clear error when the port is in use", function()
    weir.run(function()
      local first, _, endpoint = served()
      local url = start(first, endpoint)
      local second = support.app()
      second:http({ listen = (url:gsub("^http", "tcp")) })
      local running, err = second:start()
      assert.is_nil(running)
      assert.equal("in_use", err.code)
      assert.truthy(err.message:find("another program listens there", 1, true))
      assert.truthy(err.message:find("app_spec.lua:", 1, true))
    end)
  end)

  it("can be started again, and counts on", function()
    weir.run(function()
      local app, broker, endpoint = served()
      app:subscriber("in", function() end)
      for i = 1, 2 do
        local running = assert(app:start())
        publish(broker, "in", { n = i })
        eventually(function()
          local _, text = get(endpoint.url .. "/metrics")
          return tonumber(text:match("\nweir_messages_consumed_total{.-} (%d+)\n")) == i
        end)
        running:stop()
        if i == 1 then
          broker = require("weir.broker")("memory:")
          app.brokers[1].broker = broker
        end
      end
    end)
  end)

  it("sends a snapshot each second, which has what happened, and ends when the application stops", function()
    weir.run(function()
      local app, broker, endpoint = served()
      app:subscriber("in", { name = "one" }, function(_, ctx)
        ctx:publish({}, { to = "out" })
      end)
      local running = assert(app:start())
      local response = assert(client:request({ url = endpoint.url .. "/events", timeout = 10 }))
      assert.equal("text/event-stream", response:header("content-type"))
      local text = ""
      local function event()
        while not text:find("\n\n", 1, true) do
          text = text .. assert(response:read(5))
        end
        local data, rest = text:match("^data: ([^\n]*)\n\n(.*)$")
        text = rest
        return json.decode(data)
      end
      local first = event()
      assert.equal("test", first.app)
      assert.is_true(first.ready)
      assert.same({ { name = "memory", state = "up" } }, first.brokers)
      assert.equal("one", first.subscriptions[1].handler)
      assert.equal(0, first.subscriptions[1].consumed)
      assert.is_true(first.runtime.tasks > 0)
      publish(broker, "in", { n = 1 })
      local second = event()
      assert.is_true(second.time > first.time)
      assert.equal(1, second.subscriptions[1].consumed)
      assert.equal(1, second.subscriptions[1].outcomes.ack)
      assert.equal(1, second.subscriptions[1].duration.count)
      assert.same({ broker = "memory", destination = "out", published = 1, failed = 0 }, second.published[1])
      running:stop()
      eventually(function()
        local piece = response:read(5)
        return not piece
      end)
    end)
  end)

  it("serves the page, the AsyncAPI document and paths of the program's own", function()
    weir.run(function()
      local app = support.app()
      local endpoint = app:http({ listen = "tcp://127.0.0.1:0", routes = { ["GET /own"] = function()
        return 200, nil, "mine"
      end } })
      app:subscriber("in", function() end)
      local url = start(app, endpoint)
      local status, text, response = get(url .. "/")
      assert.equal(200, status)
      assert.equal("text/html; charset=utf-8", response:header("content-type"))
      assert.truthy(response:header("content-security-policy"):find("default-src 'none'", 1, true))
      assert.is_nil(text:find("https?://", 1) and text:find('src="http', 1, true))
      status, text = get(url .. "/asyncapi")
      assert.equal(200, status)
      assert.equal("3.1.0", json.decode(text).asyncapi)
      status, text = get(url .. "/own")
      assert.equal("200 mine", status .. " " .. text)
      assert.equal(404, (get(url .. "/other")))
    end)
  end)

  it("raises for misuse, and names the option that was meant", function()
    local app = support.app()
    local function message(options)
      local ok, err = pcall(app.http, app, options)
      assert.is_false(ok)
      return err
    end
    assert.truthy(message({ listn = "tcp://127.0.0.1:0" }):find("did you mean 'listen'?", 1, true))
    assert.truthy(message({}):find("'listen' is missing", 1, true))
    assert.truthy(message({ listen = "tcp://127.0.0.1:0", routes = { x = print } }):find("a route is written", 1, true))
    weir.run(function()
      support.start(app)
      assert.truthy(message({ listen = "tcp://127.0.0.1:0" }):find("before the application starts", 1, true))
    end)
  end)

  it("says where it is in the log", function()
    weir.run(function()
      local lines = {}
      local app, _, endpoint = served({ log = log.new({ out = function(line)
        lines[#lines + 1] = line
      end }) })
      local url = start(app, endpoint)
      assert.truthy(table.concat(lines):find("url=" .. url, 1, true))
    end)
  end)
end)
