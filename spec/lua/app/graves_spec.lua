local support = require("spec.lua.app.support")
local weir = require("weir")

local start, publish, eventually = support.start, support.publish, support.eventually

after_each(support.clean)

local function fails()
  error("no stock")
end

describe("dead letters of an application", function()
  it("are kept where nobody takes them, and can be replayed", function()
    local log = support.log()
    local app, broker = support.app({ log = log, retry = { max_attempts = 1 }, dead_letter = "dead" })
    local stock, sold = 0, {}
    app:subscriber("orders", function(order)
      if stock == 0 then
        error("no stock")
      end
      sold[#sold + 1] = order.id
    end)
    start(app)
    publish(broker, "orders", { id = 1 })
    local letters = weir.dead_letters(broker, "dead")
    eventually(function()
      return #assert(letters:list()) == 1
    end)
    assert.matches("no stock", letters:list()[1].error)
    stock = 1
    assert.equal(1, (assert(letters:replay({ idle = 0.02 }))))
    eventually(function()
      return sold[1] == 1
    end)
    assert.same({}, letters:list())
  end)

  it("wait nowhere else when the application takes them itself", function()
    for _, name in ipairs({ "dead", "*", ">" }) do
      local app, broker = support.app({ log = support.log(), retry = { max_attempts = 1 } })
      local got = 0
      app:subscriber("shop.orders", { dead_letter = "shop.dead" }, fails)
      app:subscriber("shop." .. name, function()
        got = got + 1
      end)
      start(app)
      publish(broker, "shop.orders", { id = 1 })
      eventually(function()
        return got == (name == "dead" and 1 or 2)
      end)
      assert.same({}, assert(broker:browse("shop.dead")))
      support.clean()
    end
  end)

  it("have their place when a subscription is added later", function()
    local app, broker = support.app({ log = support.log() })
    start(app)
    weir.run(function()
      assert(app:subscriber("orders", { dead_letter = "dead", retry = { max_attempts = 1 } }, fails))
    end)
    publish(broker, "orders", { id = 1 })
    eventually(function()
      return #assert(broker:browse("dead")) == 1
    end)
  end)

  it("keep the application from starting when their place cannot be made", function()
    local app, broker = support.app({ log = support.log() })
    app:subscriber("orders", { dead_letter = "dead..letters" }, fails)
    local ok, err = app:start(1)
    assert.is_nil(ok)
    assert.equal("invalid", err.code)
    assert.matches("the place of dead letters 'dead..letters' cannot be made", err.message)
    broker:shutdown()
  end)

  it("gives access to its dead letters while it runs", function()
    local app = weir.app("x", "1", { log = { level = "off" } })
    app:broker("memory:", { label = "main" })
    app:subscriber("orders", { dead_letter = "dead", retry = { max_attempts = 1 } }, function()
      error("no")
    end)
    local kit = weir.test(app)
    kit:publish("orders", { id = 1 })
    local letters = assert(app:dead_letters("dead"):list())
    assert.equal("orders", letters[1].destination)
    assert.equal(1, #assert(app:dead_letters("dead", { broker = "main", origin = "main" }):list()))
    assert.error_matches(function()
      app:dead_letters("dead", { broker = "other" })
    end, "has no broker 'other'")
    kit:stop()
  end)
end)
