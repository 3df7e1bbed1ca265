--- What is wrong, or doubtful, with an application: collected, so that all of it is said at once.
-- @module weir.app.report

local errors = require("weir.errors")

local Report = {}
Report.__index = Report

local Mistake = {
  __name = "weir.app.mistake",
  __tostring = function(mistake)
    return mistake.source .. ": " .. mistake.message
  end,
}
Mistake.__index = Mistake

local function new()
  return setmetatable({ mistakes = {}, warnings = {}, seen = {} }, Report)
end

local function add(self, list, source, message)
  local text = source .. "\0" .. message
  if not self.seen[text] then
    self.seen[text] = true
    list[#list + 1] = setmetatable({ source = source, message = message }, Mistake)
  end
end

--- Adds what must be changed before the application can start.
-- @tparam string source "file:line"
-- @tparam string message
function Report:mistake(source, message, ...)
  add(self, self.mistakes, source, select("#", ...) > 0 and message:format(...) or message)
end

--- Adds what works, but perhaps not as it was meant.
function Report:warning(source, message, ...)
  add(self, self.warnings, source, select("#", ...) > 0 and message:format(...) or message)
end

local function place(mistake)
  local file, line = mistake.source:match("^(.*):(%d+)$")
  return file or mistake.source, tonumber(line) or 0
end

-- In the order of the program; stable, so that what was found first at a line is said first.
local function sort(list)
  local position = {}
  for i, each in ipairs(list) do
    position[each] = i
  end
  table.sort(list, function(a, b)
    local file_a, line_a = place(a)
    local file_b, line_b = place(b)
    if file_a ~= file_b then
      return file_a < file_b
    elseif line_a ~= line_b then
      return line_a < line_b
    end
    return position[a] < position[b]
  end)
end

--- Puts everything in the order of the program.
function Report:sort()
  sort(self.mistakes)
  sort(self.warnings)
end

--- All mistakes as one error of the code "wiring"; `err.mistakes` is the list.
-- @tparam string title of the application
function Report:error(title)
  local lines = {}
  for i, mistake in ipairs(self.mistakes) do
    lines[i] = "  " .. tostring(mistake)
  end
  local count = #lines == 1 and "one mistake" or #lines .. " mistakes"
  local message = ("the application '%s' cannot start, it has %s:\n%s"):format(title, count, table.concat(lines, "\n"))
  return errors.new("wiring", message, { mistakes = self.mistakes })
end

return new
