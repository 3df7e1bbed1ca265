--- Routers: handlers that belong together, with options and a prefix of their own.
--
--     local orders = weir.router{ prefix = "orders.", retry = { max_attempts = 3 } }
--     orders:subscriber("placed", function(order, ctx) ... end) -- orders.placed
--     app:include(orders)
--
-- @module weir.app.router

local collect = require("weir.app.collect")

local Router = { __name = "weir.router" }
Router.__index = Router

for _, name in ipairs({ "subscriber", "batch", "include", "use", "publish_use" }) do
  Router[name] = collect[name]
end

function Router:added(entry)
  self.entries[#self.entries + 1] = entry
  return self
end

function Router:__tostring()
  return ("weir.router(%s, %d entries)"):format(tostring(self.options.prefix or "no prefix"), #self.entries)
end

--- Makes a router.
-- @tparam[opt] table options `prefix` (before the names of its subscriptions, replies, outputs and dead letters; a name
--   that begins with "/" stands for itself), `broker` (the label of one), and what handlers inherit: `codec`,
--   `middleware`, `publish_middleware`, `retry`, `dead_letter`, `on_failure`, `workers`, `timeout`
return function(options)
  if options ~= nil and type(options) ~= "table" then
    error("weir.router: options must be a table, not a " .. type(options), 2)
  end
  return setmetatable({
    what = "router",
    is_router = true,
    options = collect.copy(options or {}),
    entries = {},
    source = collect.source(2),
  }, Router)
end
