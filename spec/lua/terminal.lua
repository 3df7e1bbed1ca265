--- Plays scenarios in a pseudo-terminal: see spec/terminal.py.
local json = require("cjson")
local peers = require("spec.lua.peers")
local programs = require("spec.programs")
local shell = require("spec.house.shell")

local M = {}

--- What is missing for it; nil when nothing is.
function M.missing()
  return peers.missing("python3") and "python3 is missing" or nil
end

--- Plays a scenario to its end; fails, with what was written, when something in it did not happen.
-- @treturn table `output`, `status`, `canonical`
function M.play(scenario)
  local dir, remove = shell.scratch()
  shell.write(dir .. "/scenario.json", json.encode(scenario))
  local status, out, err = programs.run({ "python3", "spec/terminal.py", dir .. "/scenario.json" }, 120)
  remove()
  assert(status == 0, err)
  local result = json.decode(out)
  assert(result.failed == json.null, ("%s\n%q"):format(result.failed, result.output))
  return result
end

return M
