--- What applications need of the broker.
local in_task = require("spec.lua.support").in_task
local servers = require("spec.lua.nats_server")
local weir = require("weir")

if not servers.available() then
  return pending("nats-server or libnats is not installed: spec/setup test")
end

local support = require("spec.lua.broker.nats.support")

describe("dead letters on NATS", function()
  local server

  setup(function()
    server = servers.start()
  end)

  teardown(function()
    server:stop()
  end)

  after_each(support.shut_down)

  it("are listed, replayed, and then gone from a work queue", in_task(function()
    local create = { subjects = { "shop.>" }, retention = "workqueue" }
    local broker = support.broker(server, { jetstream = { stream = support.name("SHOP"), create = create } })
    local orders = assert(broker:subscribe("shop.orders"))
    assert(broker:publisher():publish("shop.dead", "tea", { ["weir-original-destination"] = "shop.orders" }))
    local letters = weir.dead_letters(broker, "shop.dead")
    assert.equal("tea", assert(letters:list())[1].payload)
    assert.equal(1, (assert(letters:replay({ idle = 0.1 }))))
    assert.equal("tea", assert(orders:next(5)).payload)
    assert(broker:publisher():flush(5))
    assert.same({}, assert(letters:list()))
  end))

  it("have no place on core NATS", in_task(function()
    local broker = support.broker(server)
    local letters = weir.dead_letters(broker, "dead")
    local done, err = letters:replay()
    assert.is_nil(done)
    assert.equal("unsupported", err.code)
  end))
end)

describe("a group of the NATS broker", function()
  local function names(group, ...)
    local broker = require("weir.broker.nats").new({ jetstream = { group = group } })
    local list = {}
    for i, spec in ipairs({ ... }) do
      list[i] = assert(broker:descriptor(spec)).durable
    end
    return list
  end

  it("has a durable consumer for each subject", function()
    assert.same({ "shop-orders-new", "shop-orders_2Dnew", "shop-orders-_2A", "mine" },
      names("shop", "orders.new", "orders-new", "orders.*", { name = "orders.new", durable = "mine" }))
  end)

  it("has a name that can be part of one", function()
    for _, group in ipairs({ "a.b", "", 7, "a b" }) do
      assert.has_error(function()
        names(group)
      end, nil)
    end
  end)

  it("shares the messages of a work queue among processes", in_task(function()
    local server = servers.start()
    finally(function()
      support.shut_down()
      server:stop()
    end)
    local create = { subjects = { "shop.>" }, retention = "workqueue" }
    local options = { jetstream = { stream = "SHOP", group = "shop", create = create } }
    local a, b = support.broker(server, options), support.broker(server, options)
    local one, other = assert(a:subscribe("shop.orders")), assert(b:subscribe("shop.orders"))
    local publisher = a:publisher()
    for i = 1, 20 do
      assert(publisher:publish("shop.orders", tostring(i)))
    end
    local got = 0
    for _, subscription in ipairs({ one, other }) do
      local message = subscription:next(1)
      while message do
        got = got + 1
        message:ack()
        message = subscription:next(0.2)
      end
    end
    assert.equal(20, got)
  end))
end)

describe("an answer on NATS", function()
  it("is on its way at once, though what else is published is confirmed", in_task(function()
    local server = servers.start()
    finally(function()
      support.shut_down()
      server:stop()
    end)
    local broker = support.broker(server, { jetstream = { stream = support.name("SHOP") }, publish_timeout = 60 })
    local questions = assert(broker:subscribe({ name = "questions", group = "g" }))
    local answered = weir.channel(1)
    weir.spawn(function()
      local question = assert(questions:next(5))
      answered:send(broker:publisher():publish(question.reply_to, "42"))
    end)
    assert.equal("42", assert(broker:publisher():request("questions", "?", nil, 5)).payload)
    assert.is_true(answered:recv(5))
  end))
end)
