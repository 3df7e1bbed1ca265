--- The environment for programs that are not ours: without the sanitizers that a build of ours may be run with.
local luv = require("luv")

--- A list of NAME=VALUE, as luv.spawn takes it.
-- @tparam[opt] table more names to values that are set, too
return function(more)
  local all = luv.os_environ()
  for name, value in pairs(more or {}) do
    all[name] = value
  end
  all.LD_PRELOAD = nil
  local list = {}
  for name, value in pairs(all) do
    list[#list + 1] = name .. "=" .. value
  end
  return list
end
