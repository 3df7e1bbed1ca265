--- Metrics of the process and its loop: tasks, how late the loop is, memory, processor time.
--
--     local stop = require("weir.metrics.process")(app.metrics)
--
-- The lateness of the loop is that of a timer, twice a second: what a task that computes without a pause adds to the
-- latency of everything else.
-- @module weir.metrics.process

local luv = require("luv")
local runtime = require("weir.runtime")
local tasks = require("weir.task")

local EVERY = 0.5
local BUCKETS = { 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5 }

local function set_up(registry)
  return {
    tasks = registry:gauge("weir_tasks", "Tasks that have not ended"):with(),
    memory = registry:gauge("weir_lua_memory_bytes", "Memory of the Lua state"):with(),
    lag = registry:histogram("weir_loop_lag_seconds", "How late the loop was for a timer", nil, { buckets = BUCKETS })
      :with(),
    resident = registry:gauge("process_resident_memory_bytes", "Memory of the process that is in RAM"):with(),
    cpu = registry:counter("process_cpu_seconds_total", "Processor time of the process"):with(),
  }
end

local function collect(series)
  series.tasks:set(tasks.count())
  series.memory:set(collectgarbage("count") * 1024)
  series.resident:set(luv.resident_set_memory() or 0)
  local usage = luv.getrusage()
  if usage then
    local seconds = usage.utime.sec + usage.stime.sec + (usage.utime.usec + usage.stime.usec) / 1e6
    series.cpu:inc(math.max(seconds - series.cpu.value, 0))
  end
end

--- Measures into a registry until it is told to stop.
-- @param registry of `weir.metrics`
-- @treturn function ends that
return function(registry)
  local series = set_up(registry)
  local unhook = registry:before_collect(function()
    collect(series)
  end)
  local timer
  local function arm()
    local due = runtime.now() + EVERY
    timer = runtime.timer(due, function()
      series.lag:observe(math.max(runtime.now() - due, 0))
      arm()
    end)
  end
  arm()
  return function()
    unhook()
    timer:cancel()
  end
end
