--- What an application says that `weir top` runs itself: the last line is kept, for the bottom of the screen.
-- @module weir.top.output

local capture = require("weir.repl.screen").capture

local M = {}

-- Bytes of a line.
local MOST = 4096

local Output = { __name = "weir.top.output" }
Output.__index = Output

--- Notes a line; of several the last that is not empty.
-- @tparam string text
function Output:note(text)
  for line in text:sub(-MOST):gmatch("[^\n]+") do
    self.last = line:find("%S") and line or self.last
  end
end

-- What is printed comes here.
Output.write = Output.note

--- Takes what the program prints from now on.
function Output:capture()
  self.restore = capture(self)
end

--- Lets the program print as before.
function Output:release()
  if self.restore then
    self.restore()
    self.restore = nil
  end
end

--- Makes one: `last` is the last line.
function M.new()
  return setmetatable({}, Output)
end

return M
