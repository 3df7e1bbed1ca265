--- What the specs of applications share.
local scope = require("spec.lua.scope")
local weir = require("weir")

--- `clean` ends what a test left running, for after_each; `finally` has something done then.
local M = { clean = scope.close, finally = scope.finally, eventually = require("spec.lua.support").eventually }

--- A logger that keeps its lines.
-- @return it
-- @treturn {string,...} the lines
function M.log(level)
  local lines = {}
  local log = require("weir.log").new({ level = level or "info", out = function(line)
    lines[#lines + 1] = line
  end })
  return log, lines
end

--- An application with a quiet log on a memory broker.
-- @return the application
-- @return the broker
-- @treturn {string,...} what is logged
function M.app(info)
  local options = {}
  for name, value in pairs(info or {}) do
    options[name] = value
  end
  local lines = {}
  if not options.log then
    options.log, lines = M.log()
  end
  local app = weir.app("test", "1", options)
  local broker = app:broker("memory:")
  return app, broker, lines
end

--- Starts an application, which is stopped after the test.
function M.start(app, timeout)
  local running = assert(app:start(timeout))
  M.finally(function()
    running:stop(0)
  end)
  return running
end

--- Publishes text, or a value as JSON, as somebody else would.
function M.publish(broker, to, value, headers)
  local payload = type(value) == "table" and require("weir.codec").get("json").encode(value) or value
  return assert(broker:publisher():publish(to, payload, headers))
end

return M
