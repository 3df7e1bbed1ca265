--- The application that bench/observe.lua measures, in a process of its own.
--
--     app.lua messages none|metrics|spans COUNT [COLLECTOR SAMPLE]
--
-- publishes and handles COUNT small messages on the memory broker, and prints the seconds of CPU that this took, until
-- all spans were sent: `cpu=0.52 sent=40000 dropped=0`.
--
--     app.lua serve SUBSCRIPTIONS
--
-- prints its `url` and serves that until it is asked for `/quit`. `/cpu` is the seconds of CPU that it has used, and
-- `/same` as many bytes as `/metrics`, made before.

local support = dofile("bench/support.lua")
local prometheus = require("weir.metrics.prometheus")
local weir = require("weir")

local BLOCK = 256
local ORDER = { id = 123456, customer = "c-1042", total = 99.5, currency = "EUR", items = 3 }

local function new_app()
  local app = weir.app("bench", "1.0.0", { log = { level = "off" } })
  app:broker("memory:")
  return app
end

local function items(app, outcome)
  return (app.metrics:value("weir_otlp_items_total", { signal = "spans", outcome = outcome }))
end

-- Waits for the collector, so that spans do not pile up.
local function catch_up(app, spans)
  while items(app, "sent") < spans do
    weir.sleep(0.001)
  end
end

local function messages(kind, count, collector, sample)
  count, sample = tonumber(count), tonumber(sample)
  local app, done, left, published = new_app(), weir.channel(1), 0, 0
  if kind == "none" then
    app:on("startup", function()
      app.running.env.metrics = nil
    end)
  elseif kind == "spans" then
    app:otlp({ endpoint = collector, sample = sample, metrics = false, queue = 100000 })
  end
  app:subscriber("orders", function()
    left = left - 1
    if left == 0 then
      done:send(true)
    end
  end)
  local orders = app:publisher({ to = "orders" })
  assert(app:start())
  local function run(n)
    for _ = 1, n / BLOCK do
      left = BLOCK
      for _ = 1, BLOCK do
        assert(orders:publish(ORDER))
      end
      done:recv()
      if sample == 1 then
        published = published + BLOCK
        catch_up(app, 2 * published - 512)
      end
    end
  end
  run(BLOCK)
  collectgarbage()
  local before = support.cpu_time()
  run(count)
  app.running:stop()
  local cpu = support.cpu_time() - before
  print(("cpu=%.9f sent=%d dropped=%d"):format(cpu, items(app, "sent"), items(app, "dropped")))
end

local function serve(count)
  count = tonumber(count)
  local app, quit, same = new_app(), weir.channel(1), nil
  for i = 1, count do
    app:subscriber(("orders.of.customer.%d"):format(i), function() end)
  end
  local function text(body)
    return 200, { ["content-type"] = "text/plain" }, body
  end
  local served = app:http({ listen = "tcp://127.0.0.1:0", routes = {
    ["GET /cpu"] = function()
      return text(("%.9f"):format(support.cpu_time()))
    end,
    ["GET /same"] = function()
      same = same or prometheus.text(app.metrics)
      return text(same)
    end,
    ["GET /quit"] = function()
      quit:try_send(true)
      return text("")
    end,
  } })
  assert(app:start())
  local publisher = app:publisher()
  for i = 1, count do
    for _ = 1, 3 do
      assert(publisher:publish(ORDER, { to = ("orders.of.customer.%d"):format(i) }))
    end
  end
  print("url=" .. served.url)
  io.stdout:flush()
  quit:recv()
  app.running:stop(1)
end

weir.run(arg[1] == "serve" and serve or messages, table.unpack({ table.unpack(arg, 2) }))
