--- Memory brokers with a flaw each, for the specs of the conformance suite.
local memory = require("weir.broker.memory")

local flawed = {}

--- Something that is like `object` but for the functions and fields of `changes`. A changed method gets the object as
-- its first argument.
function flawed.wrap(object, changes)
  local proxy = {}
  return setmetatable(proxy, {
    __index = function(_, name)
      local change = changes[name]
      if type(change) == "function" then
        return function(_, ...)
          return change(object, ...)
        end
      elseif change ~= nil then
        return change
      end
      local value = object[name]
      if type(value) ~= "function" then
        return value
      end
      return function(_, ...)
        return value(object, ...)
      end
    end,
    __tostring = function()
      return tostring(object)
    end,
  })
end

-- What a subscription with changed messages is.
local function with_messages(changes)
  local function changed(message, ...)
    if message then
      return flawed.wrap(message, changes)
    end
    return message, ...
  end
  return {
    next = function(subscription, timeout)
      return changed(subscription:next(timeout))
    end,
    next_batch = function(subscription, ...)
      local batch, err = subscription:next_batch(...)
      for i, message in ipairs(batch or {}) do
        batch[i] = changed(message)
      end
      return batch, err
    end,
  }
end

--- Makes a broker whose parts are changed.
-- @tparam table parts `broker`, `subscription`, `publisher`, `message`: changes as for `wrap`
-- @tparam[opt] table options of the memory broker
function flawed.make(parts, options)
  local function of(inner)
    local changes = {}
    local subscription_changes = parts.message and with_messages(parts.message) or {}
    for name, change in pairs(parts.subscription or {}) do
      subscription_changes[name] = change
    end
    function changes.subscribe(broker, ...)
      local subscription, err = broker:subscribe(...)
      return subscription and flawed.wrap(subscription, subscription_changes), err
    end
    function changes.publisher(broker, ...)
      return flawed.wrap(broker:publisher(...), parts.publisher or {})
    end
    function changes.in_process(broker, clock)
      return of(broker:in_process(clock))
    end
    for name, change in pairs(parts.broker or {}) do
      changes[name] = change
    end
    return flawed.wrap(inner, changes)
  end
  return of(memory.new(options))
end

return flawed
