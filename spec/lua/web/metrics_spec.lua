local durable = require("spec.lua.durable.support")
local http = require("weir.http")
local json = require("cjson")
local metrics = require("weir.metrics")
local runtime = require("weir.runtime")
local weir = require("weir")
local support = require("spec.lua.app.support")
local eventually, publish = support.eventually, support.publish

-- What a command writes to its standard output.
local function output_of(command)
  local pipe = io.popen(command)
  local text = pipe:read("a")
  pipe:close()
  return text
end

local promtool = output_of("spec/promtool"):match("[^\n]+")

-- What promtool says of a text at its standard input or, where the arguments name it, in FILE; and its status.
local function judge(arguments, text)
  local path = os.tmpname()
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
  local said = output_of(("env -u LD_PRELOAD %s %s 2>&1 <%s; echo $?"):format(promtool,
    arguments:gsub("FILE", path), path))
  os.remove(path)
  return said:match("^(.-)(%d+)\n$")
end

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("a")
  file:close()
  return text
end

local function get(url)
  local client = runtime.http()
  local response = assert(client:request({ url = url, timeout = 5 }))
  local text = assert(response:body())
  client:close()
  return response.status, text, response
end

-- A consumer that is closed for being too slow, comes back, and has missed messages.
local function lose_messages(node)
  local producer = node:produce("lossy", { online_when = 0, buffer = { messages = 4 }, lag_grace = 0.01 })
  assert(producer:send("nobody is there", 5))
  local consumer = node:consume("lossy", { buffer = { messages = 2 }, backoff = { initial = 0.01, max = 0.1 } })
  eventually(function()
    return producer:stats().consumers == 1
  end)
  for i = 1, 50 do
    assert(producer:send(tostring(i), 5))
  end
  eventually(function()
    producer:send("more", 0.001)
    consumer:recv(0.001)
    return consumer:stats().gaps > 0
  end)
end

local function stream_messages(node, other)
  local producer, consumer = node:produce("numbers"), other:consume("numbers")
  node:consume("numbers")
  eventually(function()
    return producer:stats().consumers == 2
  end)
  producer:send("1", 5)
  producer:send("2", 5)
  consumer:recv(5)
  lose_messages(node)
end

-- Where spans and metrics are sent to.
local function collector()
  local server = assert(http.listen("tcp://127.0.0.1:0", function()
    return 200, { ["content-type"] = "application/json" }, "{}"
  end))
  support.finally(function()
    server:close(0)
  end)
  return server.url
end

-- A second broker, where there is one to be had: a stream of a durable server, of which one message is held.
local function add_durable(app)
  if not durable.available() then
    return false
  end
  local server = durable.server({ quiet = true })
  support.finally(function()
    server:stop()
  end)
  local broker = app:broker("durable+" .. server.url, { label = "kept" })
  app:subscriber({ name = "kept", consumer = "g" }, { name = "kept", broker = "kept" }, function()
    weir.sleep(60)
  end)
  return broker
end

local function add_handlers(app)
  app:subscriber("in", {
    name = "one",
    retry = { max_attempts = 2, backoff = "none" },
    dead_letter = "dead",
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
end

-- An application to which everything has happened that is counted, the URL of its server, and its durable broker.
local function busy_app()
  local node = assert(weir.network({ listen = "mem://metrics-spec" }))
  local other = assert(weir.network({ peers = "mem://metrics-spec" }))
  support.finally(function()
    other:close(0)
    node:close(0)
  end)
  local app, broker = support.app()
  local kept = add_durable(app)
  local endpoint = app:http({ listen = "tcp://127.0.0.1:0", network = node })
  app:otlp({ endpoint = collector(), interval = 0.01 })
  add_handlers(app)
  support.start(app, 20)
  for _, what in ipairs({ "ok", "ok", "fail", "drop" }) do
    publish(broker, "in", { what = what })
  end
  publish(broker, "in", "no json")
  publish(broker, "in", { what = "ok" }, { ["weir-retry-for"] = "another" })
  for i = 1, 3 do
    publish(broker, "many", { n = i })
  end
  eventually(function() -- what is tried again comes after what waits
    return app.metrics:value("weir_dead_letters_total") == 2
  end)
  publish(broker, "in", { what = "wait" })
  publish(broker, "in", { what = "ok" })
  if kept then
    publish(kept, "kept", { n = 1 })
  end
  stream_messages(node, other)
  eventually(function()
    return app.metrics:value("weir_messages_in_flight") == (kept and 2 or 1)
      and app.metrics:value("weir_queue_depth", { handler = "one" }) == 1
      and app.metrics:value("weir_messages_processed_total", { handler = "batch", outcome = "ack" }) == 3
      and app.metrics:value("weir_otlp_items_total", { signal = "spans", outcome = "sent" }) > 0
      and app.metrics:value("weir_loop_lag_seconds") > 0
  end)
  return app, endpoint.url, kept
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

-- The names of metrics in all of weir's source: as texts, and as keys of tables.
local function names_in_source()
  local names = {}
  for path in output_of("find lua/weir -name '*.lua'"):gmatch("[^\n]+") do
    for line in read(path):gmatch("[^\n]+") do
      local name = not line:find("^%s*%-%-")
        and (line:match('"(weir_[%l_]+)"') or line:match('"(process_[%l_]+)"') or line:match("^%s*(weir_[%l_]+) =")
          or line:match("^%s*(process_[%l_]+) =") or line:match("%.(weir_[%l_]+)%("))
      if name then
        names[name:gsub("_bucket$", "")] = true
      end
    end
  end
  return names
end

local function names_in_guide(types)
  local names = {}
  for name, kind in read("docs/metrics.md"):gmatch("\n| `([%w_]+)` | (%a+) |") do
    assert.equal(types[name] or "nothing", kind, name)
    names[name] = true
  end
  return names
end

local function names_in_dashboard(types)
  local names = {}
  for expression in read("docs/grafana.json"):gmatch('"expr": "(.-[^\\])"') do
    for name in expression:gsub('\\"[^"]*\\"', ""):gmatch("[%a_][%w_]*") do
      if name:find("^weir_") or name:find("^process_") then
        local family = name:gsub("_bucket$", "")
        assert.equal(family ~= name, types[family] == "histogram", name)
        names[family] = true
      end
    end
  end
  return names
end

describe("the metrics of an application", function()
  after_each(support.clean)

  it("are filled by what they count, for batches as well", function()
    weir.run(function()
      local _, url, kept = busy_app()
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
      assert.equal(8, value("weir_messages_consumed_total", one))
      assert.equal(2, outcome("ack"))
      assert.equal(1, outcome("retry"))
      assert.equal(1, outcome("drop"))
      assert.equal(2, outcome("dead_letter"))
      assert.equal(1, outcome("skip"))
      assert.equal(1, value("weir_retries_total", one))
      assert.equal(1, value("weir_redeliveries_total", one))
      assert.equal(1, value("weir_decode_failures_total", one))
      assert.equal(2, value("weir_dead_letters_total", one))
      assert.equal(1, value("weir_messages_in_flight", one))
      assert.equal(1, value("weir_queue_depth", one))
      assert.equal(2, value("weir_consumer_lag", one))
      assert.is_true(value("weir_process_duration_seconds_count", one) >= 3)
      assert.equal(8, value("weir_message_size_bytes_count", one))
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
      assert.is_true(value("weir_stream_dropped_total", '{stream="lossy",side="producer"}') > 0)
      assert.is_true(value("weir_stream_evicted_total", '{stream="lossy",side="producer"}') > 0)
      assert.is_true(value("weir_stream_gaps_total", '{stream="lossy",side="consumer"}') > 0)
      assert.is_true(value("weir_stream_dropped_total", '{stream="lossy",side="consumer"}') > 0)
      assert.is_true(value("weir_otlp_items_total", '{signal="spans",outcome="sent"}') > 0)
      assert.is_true(value("weir_tasks", "") > 1)
      if kept then
        local far = '{app="test",broker="kept",handler="kept",destination="kept"}'
        assert.equal(1, value("weir_messages_consumed_total", far))
        assert.equal(1, value("weir_messages_in_flight", far))
        assert.equal(1, value("weir_broker_up", '{app="test",broker="kept"}'))
      end
    end)
  end)

  it("only rise, where they count, when a handler is closed and another of its name comes", function()
    weir.run(function()
      local app, broker = support.app()
      support.start(app)
      local last = 0
      local function until_consumed(n)
        eventually(function()
          local now = app.metrics:value("weir_messages_consumed_total", { handler = "one" })
          assert.is_true(now >= last)
          assert.is_true(app.metrics:value("weir_process_duration_seconds", { handler = "one" }) <= now)
          last = now
          return now == n
        end)
      end
      for round = 1, 3 do
        local registration = assert(app:subscriber("in", { name = "one" }, function()
          weir.sleep(0.002)
        end))
        for i = 1, 4 do
          publish(broker, "in", { n = i })
        end
        until_consumed(4 * round)
        assert(registration:close(5))
        until_consumed(4 * round)
        assert.equal(4 * round, app.metrics:value("weir_messages_processed_total", { handler = "one" }))
      end
    end)
  end)

  it("are in one registry with those of another application, and told apart", function()
    weir.run(function()
      local registry = metrics.registry()
      local endpoints = {}
      for _, title in ipairs({ "one", "two" }) do
        local app = weir.app(title, "1", { metrics = registry, log = { level = "off" } })
        app:broker("memory:")
        endpoints[#endpoints + 1] = app:http({ listen = "tcp://127.0.0.1:0" })
        support.start(app)
      end
      local _, text = get(endpoints[1].url .. "/metrics")
      for _, title in ipairs({ "one", "two" }) do
        assert.truthy(text:find(('\nweir_app_info{app="%s",version="1"} 1\n'):format(title), 1, true))
        assert.truthy(text:find(('\nweir_broker_up{app="%s",broker="memory"} 1\n'):format(title), 1, true))
      end
    end)
  end)

  it("have promtool nothing to say about, busy or not", function()
    if not promtool then
      return pending("promtool is not installed: spec/setup test")
    end
    weir.run(function()
      local function check(text)
        local said, status = judge("check metrics", text)
        assert.equal("0", status, said)
        assert.equal("", said)
      end
      local app = support.app()
      local endpoint = app:http({ listen = "tcp://127.0.0.1:0" })
      app:subscriber("in", function() end)
      support.start(app)
      check(select(2, get(endpoint.url .. "/metrics")))
      local _, url = busy_app()
      check(select(2, get(url .. "/metrics")))
    end)
  end)

  it("are those that the source names, of the table in the guide, and of the dashboard", function()
    weir.run(function()
      local _, url = busy_app()
      local types = types_of(select(2, get(url .. "/metrics")))
      local names = keys(types)
      assert.same(names, keys(names_in_source()))
      assert.same(names, keys(names_in_guide(types)))
      assert.same(names, keys(names_in_dashboard(types)))
    end)
  end)

  it("have a dashboard whose expressions Prometheus understands", function()
    if not promtool then
      return pending("promtool is not installed: spec/setup test")
    end
    local rules = { "groups:", "- name: dashboard", "  rules:" }
    for _, panel in ipairs(json.decode(read("docs/grafana.json")).panels) do
      for _, target in ipairs(panel.targets or {}) do
        local expression = target.expr:gsub("%$__rate_interval", "5m"):gsub("%$__range", "1h"):gsub("%$(%a+)", ".*")
        rules[#rules + 1] = ("  - record: weir:r%d\n    expr: '%s'"):format(#rules, expression)
      end
    end
    local said, status = judge("check rules FILE", table.concat(rules, "\n") .. "\n")
    assert.equal("0", status, said)
    assert.truthy(said:find(("%d rules found"):format(#rules - 3), 1, true))
  end)
end)
