--- `weir version`.
-- @module weir.cli.version
local cli = require("weir.cli")

local M = {
  summary = "print the version of weir and of what it runs on",
}

function M.run(args, console)
  if #args > 0 then
    return nil, cli.usage_error("version takes no arguments")
  end
  local out = console.out
  out:write("weir ", require("weir.version"), "\n")
  out:write(_VERSION, "\n")
  local found, uv = pcall(require, "luv")
  out:write("libuv ", found and uv.version_string() or "is missing: the module luv is not installed", "\n")
  return cli.OK
end

return M
