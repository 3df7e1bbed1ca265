-- The service of docs/tutorial.md: a bakery takes orders for bread, bakes, and says when it is done.
--
--     weir run examples/bakery.lua
--     weir run examples/bakery.lua --env BROKER=nats://127.0.0.1:4222
--
-- Orders come to `bakery.orders`, such as {"id": "7", "bread": "rye", "loaves": 2}.
local weir = require("weir")

local Order = weir.schema({
  title = "Order",
  properties = {
    id = "string",
    bread = { type = "string", enum = { "rye", "wheat" } },
    loaves = { type = "integer", minimum = 1, maximum = 100 },
  },
})

local url = weir.env("BROKER", "memory:")
local options = {
  memory = { group = "bakery" },
  nats = {
    jetstream = {
      stream = "BAKERY",
      group = "bakery",
      create = { subjects = { "bakery.>" }, retention = "workqueue" },
    },
  },
}

local app = weir.app("bakery", "1.0.0", { description = "Bakes what is ordered." })
app:broker(weir.broker(url, options[url:match("^%a+")]))

local bakery = weir.router({
  prefix = "bakery.",
  dead_letter = "dead",
  retry = { max_attempts = 3, backoff = { initial = 1, factor = 2 } },
})

local oven = { is_hot = weir.env("HOT", true) }

function oven.bake()
  if not oven.is_hot then
    return nil, { code = "cold", message = "the oven is cold" }
  end
  return true
end

bakery:subscriber("orders", {
  name = "bake",
  schema = Order,
  reply = "done",
  workers = { 4, by = "key" }, -- the orders of one customer in turn
  timeout = 10,
}, function(order)
  local ok, err = oven.bake()
  if not ok then
    return nil, err
  end
  return { id = order.id, text = ("%d loaves of %s bread"):format(order.loaves, order.bread) }
end)

bakery:subscriber("done", { name = "counter" }, function(done)
  print(("order %s: %s"):format(done.id, done.text))
end)

app:include(bakery)
return app
