--- What is measured of an application while somebody shows its metrics: what it is, its process, its brokers. Whoever
-- shows them asks for it; it is measured once, however many do, and the process once for all applications of a
-- registry.
-- @module weir.app.measures

local measure_process = require("weir.metrics.process")

local measures = {}

-- By registry, and what is measured into it: how many want that, and the function that ends it.
local running = setmetatable({}, { __mode = "k" })

-- Begins to measure `what`, unless somebody has; returns a function that ends it for this one.
local function share(registry, what, begin)
  local all = running[registry] or {}
  running[registry] = all
  local entry = all[what]
  if not entry then
    entry = { users = 0, stop = begin() }
    all[what] = entry
  end
  entry.users = entry.users + 1
  return function()
    entry.users = entry.users - 1
    if entry.users == 0 then
      all[what] = nil
      entry.stop()
    end
  end
end

local function measure_app(app, registry)
  registry:gauge("weir_app_info", "1, with the version", { "app", "version" }):with(app.title, app.version):set(1)
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
  local stop_process = share(registry, "process", function()
    return measure_process(registry)
  end)
  local stop_app = share(registry, app, function()
    return measure_app(app, registry)
  end)
  return function()
    stop_process()
    stop_app()
  end
end

return measures
