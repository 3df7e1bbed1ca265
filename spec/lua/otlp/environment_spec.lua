local luv = require("luv")
local new_collector = require("spec.lua.otlp.collector")
local peers = require("spec.lua.peers")
local support = require("spec.lua.app.support")
local trace = require("weir.trace")
local weir = require("weir")

local eventually, finally = support.eventually, support.finally

after_each(support.clean)

local function set(variables)
  for name, value in pairs(variables) do
    luv.os_setenv(name, value)
    finally(function()
      luv.os_unsetenv(name)
    end)
  end
end

local function collector()
  local made = new_collector()
  finally(function()
    made:close()
  end)
  return made
end

-- Runs an application for a message and returns what it logged.
local function run(options, header)
  local app, broker, lines = support.app()
  app:otlp(options)
  app:subscriber("orders", function() end)
  local running = support.start(app)
  if header then
    support.publish(broker, "orders", "{}", { traceparent = header })
  else
    assert(app:publisher({ to = "orders" }):publish({}))
  end
  eventually(function()
    return app.metrics:value("weir_messages_processed_total") == 1
  end)
  running:stop()
  return table.concat(lines, "\n"), app
end

describe("the environment of app:otlp", function()
  it("says where to, with which headers, and who sends", function()
    local to = collector()
    set({
      OTEL_EXPORTER_OTLP_ENDPOINT = to.url .. "/",
      OTEL_EXPORTER_OTLP_HEADERS = "x-key=a%20b%3D, x-other = c",
      OTEL_SERVICE_NAME = "kitchen",
      OTEL_RESOURCE_ATTRIBUTES = "service.name=other,deployment.environment.name=spec%2C1",
    })
    assert.not_matches("telemetry", run())
    assert.same({}, to.errors)
    assert.same({ "/v1/traces", "/v1/metrics" }, { to.requests[1].path, to.requests[2].path })
    assert.matches("\r\nx%-key: a b=\r\nx%-other: c\r\n", to.requests[1].head)
    assert.same({ "kitchen", "spec,1" }, { to.resource["service.name"], to.resource["deployment.environment.name"] })
  end)

  it("has whole addresses for one signal, and headers", function()
    local to = collector()
    set({
      OTEL_EXPORTER_OTLP_ENDPOINT = "http://127.0.0.1:1",
      OTEL_EXPORTER_OTLP_TRACES_ENDPOINT = to.url .. "/v1/traces",
      OTEL_EXPORTER_OTLP_METRICS_ENDPOINT = to.url .. "/otlp/metrics",
      OTEL_EXPORTER_OTLP_HEADERS = "x-key=all",
      OTEL_EXPORTER_OTLP_METRICS_HEADERS = "x-key=metrics",
    })
    run()
    assert.same({ "/v1/traces", "/otlp/metrics" }, { to.requests[1].path, to.requests[2].path })
    assert.matches("x%-key: all", to.requests[1].head)
    assert.matches("x%-key: metrics", to.requests[2].head)
  end)

  it("gives way to what the program says", function()
    local to = collector()
    set({
      OTEL_EXPORTER_OTLP_TRACES_ENDPOINT = "http://127.0.0.1:1/v1/traces",
      OTEL_EXPORTER_OTLP_HEADERS = "x-key=environment",
      OTEL_RESOURCE_ATTRIBUTES = "a=1,b=2",
      OTEL_TRACES_SAMPLER = "always_off",
      OTEL_METRICS_EXPORTER = "none",
    })
    local options = { endpoint = to.url, headers = { ["x-key"] = "program" }, resource = { a = "3" }, sample = 1 }
    run(options)
    assert.matches("x%-key: program", to.requests[1].head)
    assert.same({ "3", "2" }, { to.resource.a, to.resource.b })
    assert.equal(2, #to.spans)
    assert.equal(1, #to.requests)
  end)

  it("chooses the sampler, for traces that begin here", function()
    local to = collector()
    set({ OTEL_EXPORTER_OTLP_ENDPOINT = to.url, OTEL_METRICS_EXPORTER = "none" })
    for sampler, expected in pairs({
      always_off = 0, parentbased_always_off = 0, always_on = 2, parentbased_always_on = 2, ["TraceIdRatio"] = 0,
    }) do
      set({ OTEL_TRACES_SAMPLER = sampler, OTEL_TRACES_SAMPLER_ARG = "0" })
      local before = #to.spans
      run()
      assert.equal(before + expected, #to.spans, sampler)
    end
    set({ OTEL_TRACES_SAMPLER = "always_off" })
    local before = #to.spans
    run(nil, trace.fresh())
    assert.equal(before + 1, #to.spans)
  end)

  it("turns signals off, or all", function()
    local to = collector()
    set({ OTEL_EXPORTER_OTLP_ENDPOINT = to.url, OTEL_TRACES_EXPORTER = "none" })
    run()
    assert.equal("/v1/metrics", to.requests[1].path)
    assert.equal(1, #to.requests)
    set({ OTEL_SDK_DISABLED = "true" })
    local _, app = run()
    assert.equal(1, #to.requests)
    assert.has_error(function()
      app:otlp()
    end)
  end)

  it("has the sizes and times of batches", function()
    local to = collector()
    set({
      OTEL_EXPORTER_OTLP_ENDPOINT = to.url,
      OTEL_METRICS_EXPORTER = "none",
      OTEL_BSP_MAX_EXPORT_BATCH_SIZE = "2",
      OTEL_BSP_SCHEDULE_DELAY = "3600000",
      OTEL_BSP_MAX_QUEUE_SIZE = "3",
      OTEL_EXPORTER_OTLP_TIMEOUT = "100",
    })
    to.usual = "silence"
    local before = luv.hrtime()
    local _, app = run()
    assert.is_true((luv.hrtime() - before) / 1e9 < 5)
    assert.equal(2, app.metrics:value("weir_otlp_items_total", { outcome = "failed" }))
  end)

  local missing = peers.missing("node", "openssl")
  it("has the certificates to trust", function()
    if missing then
      return pending(missing .. " is not installed")
    end
    local dir = peers.directory()
    finally(function()
      peers.remove(dir)
    end)
    local ca = peers.authority(dir, "ca") .. ".pem"
    local node = peers.node(peers.certificate(dir .. "/ca", "server"))
    finally(function()
      node:stop()
    end)
    set({
      OTEL_EXPORTER_OTLP_TRACES_ENDPOINT = ("https://127.0.0.1:%d/echo"):format(node.ports.tls),
      OTEL_METRICS_EXPORTER = "none",
    })
    for path, outcome in pairs({ [""] = "failed", [ca] = "sent" }) do
      set({ OTEL_EXPORTER_OTLP_CERTIFICATE = path })
      local text, app = run()
      assert.equal(2, app.metrics:value("weir_otlp_items_total", { outcome = outcome }), text)
    end
  end)

  it("warns of what it leaves out, and shows no credentials", function()
    local to = collector()
    set({
      OTEL_EXPORTER_OTLP_ENDPOINT = to.url,
      OTEL_EXPORTER_OTLP_HEADERS = "authorization=Bearer secret%zz",
      OTEL_EXPORTER_OTLP_TIMEOUT = "soon",
      OTEL_EXPORTER_OTLP_PROTOCOL = "grpc",
      OTEL_TRACES_SAMPLER = "jaeger_remote",
      OTEL_METRICS_EXPORTER = "prometheus",
      OTEL_BSP_MAX_QUEUE_SIZE = "-1",
      OTEL_RESOURCE_ATTRIBUTES = "nothing",
    })
    local text = run()
    for _, name in ipairs({
      "HEADERS", "TIMEOUT", "PROTOCOL", "TRACES_SAMPLER", "METRICS_EXPORTER", "MAX_QUEUE_SIZE", "RESOURCE_ATTRIBUTES",
    }) do
      assert.matches(name .. " is left out: %l", text)
    end
    assert.not_matches("secret", text)
    assert.equal(2, #to.spans)
    assert.is_table(to.metrics)
  end)

  it("is refused where its address is none", function()
    set({ OTEL_EXPORTER_OTLP_ENDPOINT = "collector:4318" })
    assert.error_matches(function()
      weir.app("a", "1"):otlp()
    end, "variable OTEL_EXPORTER_OTLP_ENDPOINT must be such as")
    set({ OTEL_EXPORTER_OTLP_ENDPOINT = "http://me:secret@host" })
    local _, err = pcall(function()
      weir.app("a", "1"):otlp()
    end)
    assert.matches("credentials", err)
    assert.not_matches("secret", err)
  end)
end)

describe("applications that send side by side", function()
  it("are told apart by their instance", function()
    local to = collector()
    local seen = {}
    for i = 1, 2 do
      run({ endpoint = to.url, metrics = false })
      seen[i] = to.resource["service.instance.id"]
      assert.matches("^%x%x%x%x%x%x%x%x%-%x%x%x%x%-4%x%x%x%-[89ab]%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x$", seen[i])
    end
    assert.not_equal(seen[1], seen[2])
  end)
end)
