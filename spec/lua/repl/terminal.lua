--- Plays scenarios in a pseudo-terminal: see spec/terminal.py.
local json = require("cjson")
local peers = require("spec.lua.peers")
local programs = require("spec.programs")
local shell = require("spec.house.shell")

local M = {}

--- Whether there are pseudo-terminals, and a line editor.
function M.missing()
  return peers.missing("python3") and "python3 is missing"
    or not package.searchpath("weir.edit", package.cpath) and "weir was built without libedit" or nil
end

--- Plays one.
-- @tparam table scenario as spec/terminal.py says; `words` follow `weir repl`, or `program`
-- @treturn table `output`, `status`, `failed`
function M.play(scenario)
  local dir, remove = shell.scratch()
  local words = scenario.program or { "lua/bin/weir", "repl" }
  for _, word in ipairs(scenario.words or {}) do
    words[#words + 1] = word
  end
  scenario.words = words
  scenario.env = scenario.env or { WEIR_HISTORY = "" }
  local path = dir .. "/scenario.json"
  shell.write(path, json.encode(scenario))
  local status, out, err = programs.run({ "python3", "spec/terminal.py", path }, 120)
  remove()
  assert(status == 0, err)
  return json.decode(out)
end

--- Plays one that must succeed and end with status 0.
-- @treturn string what was written
function M.passes(scenario)
  local result = M.play(scenario)
  local output = "\n" .. tostring(result.output)
  assert(result.failed == json.null or result.failed == nil, tostring(result.failed) .. output)
  assert(result.status == 0, "it ended with status " .. tostring(result.status) .. output)
  return result.output
end

return M
