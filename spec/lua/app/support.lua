--- What the specs of applications share.
local weir = require("weir")
local runtime = require("weir.runtime")

local M = {}

-- Everything that is to be undone after a test.
local undo = {}

--- Undoes what tests left running.
function M.clean()
  for _, fn in ipairs(undo) do
    fn()
  end
  undo = {}
end

function M.finally(fn)
  table.insert(undo, 1, fn)
end

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

--- Waits until check() gives something true, and returns that.
function M.eventually(check, seconds)
  local deadline = runtime.now() + (seconds or 5)
  while true do
    local value = check()
    if value then
      return value
    elseif runtime.now() > deadline then
      error("it did not happen in time", 2)
    end
    weir.sleep(0.001)
  end
end

return M
