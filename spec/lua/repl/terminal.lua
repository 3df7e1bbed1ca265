--- Plays scenarios at the prompt of `weir repl`, in a pseudo-terminal.
local terminal = require("spec.lua.terminal")

local M = {}

--- What is missing for it: pseudo-terminals, or a line editor; nil when nothing is.
function M.missing()
  return terminal.missing()
    or not package.searchpath("weir.edit", package.cpath) and "weir was built without libedit" or nil
end

--- Plays one to its end.
-- @tparam table scenario as spec/terminal.py says; `words` follow `weir repl`, or `program`
-- @treturn table `output`, `status`, `canonical`
function M.play(scenario)
  local words = scenario.program or { "lua/bin/weir", "repl" }
  for _, word in ipairs(scenario.words or {}) do
    words[#words + 1] = word
  end
  scenario.words = words
  scenario.env = scenario.env or { WEIR_HISTORY = "" }
  return terminal.play(scenario)
end

--- Plays one that must end with status 0.
-- @treturn string what was written
function M.passes(scenario)
  local result = M.play(scenario)
  assert(result.status == 0, ("it ended with status %s\n%s"):format(result.status, result.output))
  return result.output
end

return M
