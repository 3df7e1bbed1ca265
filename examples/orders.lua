-- A service that takes orders. Lines of text come in, become orders, are checked, and are confirmed.
--
--     weir run examples/orders.lua
--     weir run examples/orders.lua --env FILE=/var/log/dpkg.log --env WORKERS=4
--     weir run examples/orders.lua --env BROKER=nats://127.0.0.1:4222
--
-- On the memory broker it feeds itself from FILE, the log of a package manager: each `install` or `upgrade` in there is
-- taken for an order. On a server the lines come from whoever publishes to `orders.lines`, or from FILE if that is set.
local weir = require("weir")

local BROKER = weir.env("BROKER", "memory:")
local FILE = weir.env("FILE", BROKER:find("^memory:") and "/var/log/dpkg.log" or "")

local app = weir.app("orders", "1.0.0", { description = "Takes orders and confirms them." })
app:broker(BROKER)

local Order = weir.schema({
  title = "Order",
  properties = {
    id = "string",
    item = { type = "string", minLength = 1 },
    action = { type = "string", enum = { "install", "upgrade" } },
    version = "string?",
  },
})

local counted = { lines = 0, orders = 0, confirmed = 0 }
local fed -- how many lines there were, when all are in

local orders = weir.router({ prefix = "orders.", retry = { max_attempts = 3 } })

-- Text becomes an order; what is no order is acknowledged and forgotten.
orders:subscriber("lines", { codec = "raw", outputs = { order = { to = "new", codec = "json" } } }, function(line)
  counted.lines = counted.lines + 1
  local day, time, action, item, version = line:match("^(%S+) (%S+) (%l+) (%S+) %S+ ?(%S*)")
  if action ~= "install" and action ~= "upgrade" then
    return weir.ack()
  end
  counted.orders = counted.orders + 1
  return weir.outputs({ order = { id = day .. "T" .. time, item = item, action = action, version = version } })
end)

-- What this returns is the reply: it goes to `orders.confirmed`.
orders:subscriber("new", {
  schema = Order,
  reply = "confirmed",
  dead_letter = "dead",
  workers = weir.env("WORKERS", 1),
}, function(order, ctx)
  return { order = order.id, item = order.item, attempt = ctx.attempt }
end)

orders:subscriber("confirmed", function()
  counted.confirmed = counted.confirmed + 1
  if fed == counted.lines and counted.confirmed == counted.orders then
    print(("%d lines, %d orders, %d confirmed; Ctrl-C ends"):format(fed, counted.orders, counted.confirmed))
  end
end)

app:include(orders)

local lines = app:publisher({ to = "orders.lines", codec = "raw" })

-- Publishing waits where the broker has no room: a long file needs no more memory than a short one.
local function feed(path)
  local file = assert(io.open(path))
  local count = 0
  for line in file:lines() do
    assert(lines:publish(line))
    count = count + 1
  end
  file:close()
  fed = count
end

app:on("started", function()
  if FILE ~= "" then
    weir.spawn(function()
      local ok, err = pcall(feed, FILE)
      if not ok then
        app:request_stop(err)
      end
    end)
  end
end)

return app
