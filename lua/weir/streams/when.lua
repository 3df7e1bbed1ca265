--- Waiting for a producer or consumer to be online.
-- @module weir.streams.when

local runtime = require("weir.runtime")
local waitlist = require("weir.runtime.waitlist")
local errors = require("weir.errors")

local When = { __name = "weir.when" }
When.__index = When

local when = {}

--- One for each handle. `handle.online` is the state; `handle.closed` ends every wait.
function when.new(handle)
  return setmetatable({ handle = handle, waiters = waitlist.new() }, When)
end

--- Tells those who wait that the state has changed.
function When:changed()
  self.waiters:wake_all()
end

--- Waits until `changed` is called.
-- @tparam[opt] number deadline
-- @return nil; or nil and an error
function When:wait(deadline)
  local waiter = runtime.own_waiter()
  self.waiters:add(waiter)
  local _, err = waiter:wait(deadline)
  self.waiters:remove(waiter)
  return nil, err
end

local function wait_for(self, wanted, timeout)
  local deadline = runtime.deadline(timeout, 3)
  local handle = self.handle
  while handle.online ~= wanted do
    if handle.closed or handle.closing then
      return nil, errors.new("closed", tostring(handle) .. " was closed")
    end
    local _, err = self:wait(deadline)
    if err then
      return nil, err
    end
  end
  return true
end

--- Waits until the handle is online: it has as many connected peers as its `online_when` asks for.
-- @tparam[opt] number timeout seconds
-- @treturn boolean true; or nil and an error: "timeout", "closed", "cancelled"
function When:online(timeout)
  return wait_for(self, true, timeout)
end

--- Waits until the handle is not online. A closed handle is offline.
-- @tparam[opt] number timeout seconds
-- @treturn boolean true; or nil and an error
function When:offline(timeout)
  return wait_for(self, false, timeout)
end

function When:__tostring()
  return ("weir.when(%s)"):format(tostring(self.handle))
end

return when
