--- What is measured of an application while somebody shows its metrics: what it is, its process, its brokers. Whoever
-- shows them asks for it; it is measured once, however many do.
-- @module weir.app.measures

local measures = {}

-- By registry: how many want it, and the functions that end it.
local running = setmetatable({}, { __mode = "k" })

local function measure_brokers(app, registry)
  local up = registry:gauge("weir_broker_up", "Whether the broker is connected", { "app", "broker" })
  return registry:before_collect(function()
    for label, each in pairs(app:health().brokers) do
      up:with(app.title, label):set(each.state == "up" and 1 or 0)
    end
  end)
end

--- Measures, until it is told to stop.
-- @tparam table app
-- @param registry of `weir.metrics`
-- @treturn function ends that; to be called once
function measures.start(app, registry)
  local entry = running[registry]
  if not entry then
    registry:gauge("weir_app_info", "1, with the version", { "app", "version" }):with(app.title, app.version):set(1)
    entry = { users = 0, stops = { require("weir.metrics.process")(registry), measure_brokers(app, registry) } }
    running[registry] = entry
  end
  entry.users = entry.users + 1
  return function()
    entry.users = entry.users - 1
    if entry.users == 0 then
      running[registry] = nil
      for _, stop in ipairs(entry.stops) do
        stop()
      end
    end
  end
end

return measures
