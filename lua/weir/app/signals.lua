--- The signals that end a program: SIGINT (Ctrl-C), SIGTERM, and SIGHUP: its terminal is gone.
-- @module weir.app.signals

local luv = require("luv")
local runtime = require("weir.runtime")

local M = {}

local NUMBERS = { sighup = 1, sigint = 2, sigterm = 15 }

-- Whether SIGHUP is ignored, as nohup has it. Known on Linux only.
local function ignores_hangup()
  local file = io.open("/proc/self/status")
  local mask = file and file:read("a"):match("\nSigIgn:%s*(%x+)")
  if file then
    file:close()
  end
  return mask ~= nil and tonumber(mask:sub(-1), 16) % 2 == 1
end

--- Calls `fn(number)` at the first signal. A second one ends the process at once, with the status 128 + its number:
-- whoever sends two does not want to wait.
-- @tparam function fn must not block
-- @tparam[opt] function again called at the second signal, before the end
-- @treturn function ends the watch; to be called where waiting is possible
function M.watch(fn, again)
  local handles, got = {}, false
  local function on_signal(number)
    if got then
      if again then
        again(number)
      end
      os.exit(128 + number)
    end
    got = true
    fn(number)
  end
  for name, number in pairs(NUMBERS) do
    if name ~= "sighup" or not ignores_hangup() then
      local handle = luv.new_signal()
      handles[#handles + 1] = handle
      handle:start(name, function()
        on_signal(number)
      end)
    end
  end
  return function()
    for i, handle in ipairs(handles) do
      handle:close()
      handles[i] = nil
    end
    runtime.pause() -- libuv must see the closing: luv cannot end a Lua state with handles that close
  end
end

return M
