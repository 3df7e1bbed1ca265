--- Applications that the specs of documents share.
local weir = require("weir")

local M = {}

function M.nothing() end

--- An application on memory brokers; `fill(app)` registers with it.
function M.app(fill, info)
  local app = weir.app("orders", "1.0.0", info)
  app:broker("memory:")
  fill(app)
  return app
end

--- One that has everything that a document tells of.
function M.everything()
  local Order = weir.schema({
    title = "Order",
    properties = { id = "string", quantity = { type = "integer", minimum = 1 }, note = "string?" },
  })
  local Tree = weir.schema({
    title = "Tree",
    properties = {
      children = { items = { ["$ref"] = "#" } },
      at = { ["$ref"] = "#/$defs/point", description = "Where it is." },
    },
    ["$defs"] = { point = { prefixItems = { "number", "number" }, items = false } },
    dependentRequired = { at = { "children" } },
  })
  local app = weir.app("everything", "2.1.0", {
    description = "Has ümlauts, \"quotes\" and\nlines.",
    id = "urn:example:everything",
    terms_of_service = "https://shop.example/terms",
    contact = { name = "Ada", url = "https://shop.example", email = "ada@shop.example", password = "hunter2" },
    license = { name = "MIT", url = "https://shop.example/mit" },
    tags = { "sales", { name = "eu", description = "Europe", external_docs = { url = "https://eu.example" } } },
    external_docs = { url = "https://shop.example/docs", description = "More" },
    dead_letter = "dead",
  })
  app:broker(require("weir.broker.nats").new({
    url = "nats://user:hunter2@one.example:4222,nats://user:hunter2@two.example:4222",
    tls = { ca = "hunter2.pem", cert = "hunter2.crt", key = "hunter2.key" },
  }), { description = "The cluster." })
  app:broker("memory:", { label = "audit" })
  app:broker(require("weir.broker.durable").new({
    url = "https://streams.example/base",
    headers = { Authorization = "Bearer hunter2" },
  }), { label = "streams", codec = "cbor" })

  app:subscriber({ name = "orders.*.new", group = "billing" }, {
    schema = Order,
    title = "New orders",
    summary = "Bills them.",
    description = "Sends a bill.",
    reply = { to = true, schema = { title = "Bill", properties = { total = "number" } } },
    outputs = { log = { to = "log", broker = "audit", schema = { title = "Line", type = "string" } } },
    retry = { max_attempts = 3, backoff = { initial = 1, max = 5 }, on = { out_of_stock = "drop" } },
  }, M.nothing)
  app:subscriber("orders.>", { schema = Order, name = "watch", deprecated = true, retry = false, dead_letter = false },
    M.nothing)
  app:subscriber("notes", { filter = { language = "la", ["x-api-key"] = "hunter2" } }, M.nothing)
  app:subscriber("notes", { filter = function() end, schema = Tree }, M.nothing)
  app:subscriber("notes", { schema = { title = "Order", type = "string" }, reply = "answers {b}/ü" }, M.nothing)
  app:batch("log", { broker = "audit", max = 10, retry = { max_attempts = false } }, M.nothing)
  app:subscriber("things", { broker = "streams" }, M.nothing)
  app:publisher({ to = "orders.eu.new", schema = Order })
  app:publisher({ name = "raw things", to = "things", broker = "streams", codec = "raw" })
  return app
end

return M
