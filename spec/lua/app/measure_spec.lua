local durable = require("spec.lua.durable.support")
local nats = require("spec.lua.nats_server")
local support = require("spec.lua.app.support")
local weir = require("weir")

local eventually = support.eventually

-- Runs fn in a task, with what it gives for a server, which is stopped whatever happens.
local function with(server, fn)
  weir.run(function()
    server = server()
    local ok, err = xpcall(fn, debug.traceback, server)
    support.clean()
    server:stop()
    if not ok then
      error(err, 0)
    end
  end)
end

local function gauge(app, name, labels)
  return app.metrics:value(name, labels)
end

local function until_gauge(app, name, value)
  eventually(function()
    return gauge(app, name) == value
  end, 10)
end

describe("messages in flight", function()
  after_each(support.clean)

  local ways = {
    ["with several workers"] = { "subscriber", { workers = 3 }, 3 },
    ["with workers by key, those in the lanes included"] = { "subscriber", { workers = { 3, by = "key" } }, 5 },
    ["in batches"] = { "batch", { max = 4, linger = 1 }, 4 },
    ["whose handlers settle them later"] = { "subscriber", { ack = "manual" }, 5 },
  }
  for name, way in pairs(ways) do
    it("are counted one by one " .. name, function()
      weir.run(function()
        local app, broker = support.app()
        local gate = weir.channel()
        app:subscriber("in", way[2], function() end):close()
        app[way[1]](app, "in", way[2], function()
          if way[2].ack ~= "manual" then
            gate:recv()
          end
        end)
        support.start(app)
        for i = 1, 5 do
          support.publish(broker, "in", { n = i }, { ["partition-key"] = tostring(i) })
        end
        eventually(function()
          return gauge(app, "weir_messages_in_flight", { handler = "in" }) == way[3]
        end)
        assert.equal(way[3], app:health().handlers["in"].in_flight)
        gate:close()
        support.clean()
        assert.equal(0, gauge(app, "weir_messages_in_flight", { handler = "in" }))
      end)
    end)
  end
end)

describe("the depth of a queue and the lag", function()
  -- Starts the application with a handler that waits until the gate is closed, and gives it five messages.
  local function five_wait(app, broker, target)
    local gate = weir.channel()
    app:subscriber(target, function()
      gate:recv()
    end)
    support.start(app)
    for i = 1, 5 do
      support.publish(broker, "in", { n = i })
    end
    return gate
  end

  it("tell what waits, and what is not settled, on the memory broker", function()
    weir.run(function()
      local app, broker = support.app()
      local gate = five_wait(app, broker, "in")
      until_gauge(app, "weir_queue_depth", 4)
      assert.equal(5, gauge(app, "weir_consumer_lag"))
      gate:close()
      until_gauge(app, "weir_consumer_lag", 0)
      assert.equal(0, gauge(app, "weir_queue_depth"))
      support.clean()
    end)
  end)

  if durable.available() then
    it("tell what was read and is not settled, of a durable stream", function()
      with(function()
        return durable.server({ quiet = true })
      end, function(server)
        local app = weir.app("test", "1", { log = { level = "off" } })
        local broker = app:broker("durable+" .. server.url)
        local gate = five_wait(app, broker, { name = "in", consumer = "g" })
        until_gauge(app, "weir_queue_depth", 4)
        assert.equal(5, gauge(app, "weir_consumer_lag"))
        gate:close()
        until_gauge(app, "weir_consumer_lag", 0)
      end)
    end)
  end

  if nats.available() then
    it("are asked of the server where only that knows them", function()
      with(nats.start, function(server)
        local app = weir.app("test", "1", { log = { level = "off" } })
        local broker = app:broker(require("weir.broker.nats").new({ url = server.url, jetstream = true }))
        local target = { name = "in", durable = "d", stream = "IN", create = true, max_ack_pending = 2 }
        local gate = five_wait(app, broker, target)
        until_gauge(app, "weir_consumer_lag", 5)
        gate:close()
        until_gauge(app, "weir_consumer_lag", 0)
      end)
    end)

    it("are nothing any more when the subscription is closed", function()
      with(nats.start, function(server)
        local app = weir.app("test", "1", { log = { level = "off" } })
        local broker = app:broker(require("weir.broker.nats").new({ url = server.url, jetstream = true }))
        support.start(app)
        local target = { name = "in", durable = "d", stream = "IN", create = true, max_ack_pending = 2 }
        local registration = assert(app:subscriber(target, function()
          weir.sleep(60)
        end))
        for i = 1, 5 do
          support.publish(broker, "in", { n = i })
        end
        until_gauge(app, "weir_consumer_lag", 5)
        registration:close(0.1)
        assert.equal(0, gauge(app, "weir_consumer_lag"))
        assert.equal(0, gauge(app, "weir_queue_depth"))
      end)
    end)
  end
end)

describe("published messages", function()
  it("are counted by what became of them, those of batches too", function()
    weir.run(function()
      local app, broker = support.app()
      app:subscriber({ name = "in", capacity = { messages = 2 }, overflow = "reject" }, function()
        weir.sleep(60)
      end)
      support.start(app)
      local publisher = app:publisher({ to = "in" })
      local items = {}
      for i = 1, 5 do
        items[i] = { value = i }
      end
      local ok = publisher:publish_batch(items)
      assert.is_nil(ok)
      local good = gauge(app, "weir_messages_published_total", { destination = "in", status = "ok" })
      local bad = gauge(app, "weir_messages_published_total", { destination = "in", status = "error" })
      assert.equal(5, good + bad)
      assert.is_true(bad > 0)
      local count = gauge(app, "weir_publish_duration_seconds", { destination = "in" })
      assert.equal(5, count)
      assert.truthy(broker)
      support.clean()
    end)
  end)

  it("to inboxes are counted together, as each of them has another name", function()
    weir.run(function()
      local app, broker = support.app()
      app:subscriber("double", { reply = true }, function(value)
        return value.n * 2
      end)
      support.start(app)
      local requester = broker:publisher()
      for i = 1, 3 do
        assert.equal(tostring(i * 2), assert(requester:request("double", ('{"n":%d}'):format(i), {}, 5)).payload)
      end
      eventually(function()
        return gauge(app, "weir_messages_published_total", { destination = "_INBOX", status = "ok" }) == 3
      end)
      assert.equal(3, gauge(app, "weir_messages_published_total"))
      assert.equal(3, gauge(app, "weir_publish_duration_seconds", { destination = "_INBOX" }))
      support.clean()
    end)
  end)

  it("to very many destinations are counted together from some number on", function()
    weir.run(function()
      local app = support.app()
      support.start(app)
      local publisher = app:publisher()
      for i = 1, 300 do
        assert(publisher:publish(i, { to = "to." .. i }))
      end
      assert.equal(1, gauge(app, "weir_messages_published_total", { destination = "to.100" }))
      assert.equal(0, gauge(app, "weir_messages_published_total", { destination = "to.101" }))
      assert.equal(200, gauge(app, "weir_messages_published_total", { destination = "other" }))
      support.clean()
    end)
  end)
end)
