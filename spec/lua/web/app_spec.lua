local json = require("cjson")
local log = require("weir.log")
local nats = require("spec.lua.nats_server")
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

describe("app:http", function()
  before_each(function()
    client = runtime.http()
  end)

  after_each(function()
    client:close()
    support.clean()
  end)

  it("sends the metrics of very many subscriptions piece by piece", function()
    weir.run(function()
      local app, _, endpoint = served()
      local family = app.metrics:counter("own_total", "Own", { "x" }, { max_series = 20000 })
      for i = 1, 20000 do
        family:with(i):inc()
      end
      local url = start(app, endpoint)
      local _, text, response = get(url .. "/metrics")
      assert.equal("chunked", response:header("transfer-encoding"))
      assert.equal(20000, select(2, text:gsub("\nown_total{", "")))
      assert.truthy(text:find('\nown_total{x="20000"} 1\n', 1, true))
    end)
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

  if nats.available() then
    it("says that a broker is away, and that it is back", function()
      weir.run(function()
        local server = nats.start({ jetstream = false })
        support.finally(function()
          server:stop()
        end)
        local app = support.app()
        app:broker(require("weir.broker.nats").new({ url = server.url }))
        local endpoint = app:http({ listen = "tcp://127.0.0.1:0" })
        app:subscriber("in", { broker = "nats" }, function() end)
        local url = start(app, endpoint)
        local function await(status, state)
          eventually(function()
            local got, text = get(url .. "/readyz")
            local nats_broker = json.decode(text).brokers[2]
            assert.equal("nats", nats_broker.name)
            return got == status and nats_broker.state == state
          end, 20)
          assert.equal(200, (get(url .. "/livez")))
          assert.equal(state == "up" and 1 or 0, app.metrics:value("weir_broker_up", { broker = "nats" }))
          assert.equal(1, app.metrics:value("weir_broker_up", { broker = "memory" }))
        end
        await(200, "up")
        server:kill()
        await(503, "degraded")
        server:start()
        await(200, "up")
        assert.equal(1, app.metrics:value("weir_broker_reconnects_total", { broker = "nats" }))
      end)
    end)
  end

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
      assert.is_nil(first.window)
      assert.is_nil(first.subscriptions[1].rate)
      local span = second.time - first.time
      assert.near(span, second.window, 1e-6)
      assert.near(1 / span, second.subscriptions[1].rate, 1e-6)
      assert.is_true(second.subscriptions[1].duration.p50 > 0)
      local published = { broker = "memory", destination = "out", published = 1, failed = 0 }
      published.rate = second.published[1].rate
      assert.near(1 / span, published.rate, 1e-6)
      assert.same(published, second.published[1])
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
