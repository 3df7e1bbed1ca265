--- A server that accepts connections and ends them at once, counting: what a client does then shows whether it spins.
-- @module weir.conformance.flaky

local luv = require("luv")

local flaky = {}

local Trap = {}
Trap.__index = Trap

--- Listens in the place of a server that is down.
-- @tparam string host
-- @tparam number port
-- @treturn ?table with `count` and `close`; nil when the place is taken
function flaky.listen(host, port)
  local self = setmetatable({ count = 0, handle = luv.new_tcp() }, Trap)
  local ok = self.handle:bind(host, port) and self.handle:listen(128, function()
    local client = luv.new_tcp()
    self.handle:accept(client)
    client:close()
    self.count = self.count + 1
  end)
  if not ok then
    self.handle:close()
    return nil
  end
  return self
end

--- Ends it.
-- @treturn number connections that there were
function Trap:close()
  if not self.handle:is_closing() then
    self.handle:close()
  end
  return self.count
end

return flaky
