--- What lasts as long as one test: programs, directories, and whatever else has an end. A spec that uses it says
-- `after_each(scope.close)`.
local programs = require("spec.programs")
local shell = require("spec.house.shell")

local M = {}

local ends = {}

--- Has `fn` called when the test is over; what was said last comes first.
function M.finally(fn)
  table.insert(ends, 1, fn)
end

--- Ends everything.
function M.close()
  local list = ends
  ends = {}
  for _, fn in ipairs(list) do
    fn()
  end
end

--- An empty directory; it is removed with all that is in it.
function M.directory()
  local path, remove = shell.scratch()
  M.finally(remove)
  return path
end

--- Starts a program, as `programs.start` does; it is killed if it still runs.
function M.start(words, env)
  local program = programs.start(words, env)
  M.finally(function()
    program:discard()
  end)
  return program
end

return M
