--- One line on the terminal that says how far things are.
-- @module weir.cli.durable.progress
local runtime = require("weir.runtime")

local M = {}

local Progress = { __name = "weir.cli.durable.progress" }
Progress.__index = Progress

local INTERVAL = 0.1

local UNITS = { "B", "KiB", "MiB", "GiB", "TiB" }

--- A number of bytes for people.
function M.size(bytes)
  local unit = 1
  while bytes >= 1024 and unit < #UNITS do
    bytes, unit = bytes / 1024, unit + 1
  end
  return (unit == 1 and "%d %s" or "%.1f %s"):format(bytes, UNITS[unit])
end

--- Makes one. It writes nothing unless `file` is a terminal.
-- @param file
-- @tparam boolean shown
function M.new(file, shown)
  return setmetatable({ file = file, shown = shown, began = runtime.now(), last = -math.huge }, Progress)
end

--- Shows counts, ten times a second at most.
-- @tparam integer bytes
-- @tparam integer items
-- @tparam[opt] string state such as "waiting"
-- @tparam[opt] boolean now also when the last time is not long ago
function Progress:show(bytes, items, state, now)
  local time = runtime.now()
  if not self.shown or (time - self.last < INTERVAL and not now) then
    return
  end
  self.last, self.dirty = time, true
  local elapsed = math.max(time - self.began, 0.001)
  local parts = { M.size(bytes), items > 0 and ("%d item%s"):format(items, items == 1 and "" or "s") or nil }
  parts[#parts + 1] = M.size(bytes / elapsed // 1) .. "/s"
  parts[#parts + 1] = state
  self.file:write("\r\27[K\27[?7l", table.concat(parts, ", "), "\27[?7h") -- cut off where the terminal is narrow
  self.file:flush()
end

--- Removes the line.
function Progress:finish()
  if self.dirty then
    self.file:write("\r\27[K")
    self.file:flush()
    self.dirty = nil
  end
end

return M
