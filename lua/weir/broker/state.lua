--- The state of a broker's connection, and who wants to know of it.
-- @module weir.broker.state

local State = {}
State.__index = State

--- Makes one, "new".
local function new()
  return setmetatable({ name = "new", reason = nil, watchers = {} }, State)
end

--- Changes it, and tells everybody.
-- @tparam string name "connecting", "up", "degraded", "failed" or "closed"; nothing leaves "closed"
-- @param[opt] reason the error that led to it
function State:set(name, reason)
  if self.name == "closed" or (self.name == name and self.reason == reason) then
    return
  end
  self.name, self.reason = name, reason
  local list = {}
  for watcher in pairs(self.watchers) do
    list[#list + 1] = watcher
  end
  for _, watcher in ipairs(list) do
    if self.watchers[watcher] then
      watcher.fn(name, reason)
    end
  end
end

--- What it is: the name, and the reason.
function State:get()
  return self.name, self.reason
end

--- Calls `fn(name, reason)` at each change.
-- @treturn function ends that
function State:watch(fn)
  local watcher = { fn = fn }
  self.watchers[watcher] = true
  return function()
    self.watchers[watcher] = nil
  end
end

return new
