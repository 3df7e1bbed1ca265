local flawed = require("spec.lua.conformance.flawed")
local memory = require("weir.broker.memory")
local servers = require("spec.lua.nats_server")
local tasks = require("weir.task")
local weir = require("weir")

describe("a live test kit", function()
  it("waits for what is on its way to a subscription, however long that takes", function()
    local app = weir.app("shop", "1.0.0")
    app:broker(flawed.make({
      publisher = {
        publish = function(publisher, ...)
          local message = { ... }
          tasks.spawn(function()
            tasks.sleep(0.05) -- a slow network
            publisher:publish(table.unpack(message, 1, 4))
          end)
          return true
        end,
      },
    }))
    app:subscriber("a", { reply = "b" }, function(n)
      return n + 1
    end)
    app:subscriber("b", function() end)
    local kit <close> = weir.test(app, { live = true, calm = 0 })
    kit:publish("a", 1)
    kit:subscriber("b"):assert_outcome("ack"):assert_called_with(2)
  end)

  it("does not wait for what was refused", function()
    local app = weir.app("shop", "1.0.0")
    app:broker(memory.new({ max_payload = 1000 }))
    app:subscriber("a", function() end)
    local kit <close> = weir.test(app, { live = true, calm = 0, timeout = 0.5 })
    local ok, err = kit:publish("a", ("x"):rep(2000))
    assert.is_nil(ok)
    assert.equal("too_large", err.code)
    ok, err = kit:publish_raw("a", ("x"):rep(2000), { ["message-id"] = "m" })
    assert.is_nil(ok)
    assert.equal("too_large", err.code)
    kit:settle()
  end)

  it("says what never arrived", function()
    local app = weir.app("shop", "1.0.0")
    app:broker(flawed.make({
      publisher = {
        publish = function()
          return true -- and loses it
        end,
      },
    }))
    app:subscriber("a", function() end)
    local kit <close> = weir.test(app, { live = true, calm = 0, timeout = 0.1 })
    local ok, err = pcall(kit.publish, kit, "a", 1)
    assert.is_false(ok)
    assert.matches("what was published to 'a' was not settled", err)
  end)
end)

if not servers.available() then
  return pending("nats-server or libnats is not installed: spec/setup test")
end

describe("the same test, in process and on a nats-server", function()
  local nats = require("weir.broker.nats")
  local server

  setup(function()
    tasks.run(function()
      server = servers.start()
    end)
  end)

  teardown(function()
    tasks.run(function()
      server:stop()
    end)
  end)

  -- The application, and the test of it, which knows nothing of where it runs.
  local function shop(broker)
    local app = weir.app("shop", "1.0.0")
    app:broker(broker)
    app:subscriber("orders", {
      reply = "invoices",
      retry = { max_attempts = 2, backoff = { initial = 0.3, jitter = 0 } },
      dead_letter = "orders.dead",
    }, function(order)
      if order.bad then
        error("no such item")
      end
      return { order = order.id }
    end)
    app:subscriber("invoices", function(_, ctx)
      assert(ctx:publish({ done = true }, { to = "mails" }))
    end)
    app:subscriber("mails", function() end)
    return app
  end

  local function body(kit)
    kit:publish("orders", { id = 7 })
    kit:subscriber("orders"):assert_called(1):assert_outcome("ack")
    kit:published("invoices"):assert_count(1):assert_with({ order = 7 })
    kit:subscriber("mails"):assert_called_with({ done = true })
    kit:publish("orders", { id = 8, bad = true })
    kit:subscriber("orders"):assert_outcome("retry")
    kit:dead_letters():assert_none()
    kit:advance(0.4)
    kit:subscriber("orders"):assert_called(3):assert_outcome("dead_letter")
    kit:dead_letters("orders.dead"):assert_with({ id = 8, bad = true })
  end

  for name, jetstream in pairs({
    core = false,
    JetStream = { stream = "SHOP", create = { subjects = { "orders", "orders.dead", "invoices", "mails" } } },
  }) do
    for _, live in ipairs({ false, true }) do
      it(("%s, %s"):format(name, live and "live" or "in process"), function()
        local app = shop(nats.new({ url = server.url, jetstream = jetstream or nil }))
        local kit <close> = weir.test(app, { live = live })
        body(kit)
      end)
    end
  end
end)
