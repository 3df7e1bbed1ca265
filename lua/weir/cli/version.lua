--- `weir version`.
-- @module weir.cli.version
local cli = require("weir.cli")

local M = {
  summary = "print the version of weir and of what it runs on",
  options = { { "json", nil, "print one JSON object: weir, lua, libuv" } },
  examples = { "weir version", "weir version --json | jq -r .weir" },
}

function M.run(options, console)
  local found, uv = pcall(require, "luv")
  local version, libuv = require("weir.version"), found and uv.version_string() or nil
  if options.json then
    local result = { weir = version, lua = _VERSION:match("%d.*"), libuv = libuv }
    console.out:write(require("weir.cli.json").encode(result), "\n")
    return cli.OK
  end
  console.out:write("weir ", version, "\n", _VERSION, "\n")
  console.out:write("libuv ", libuv or "is missing: the module luv is not installed", "\n")
  return cli.OK
end

return M
