--- Places where dead letters are kept until somebody takes them.
--
-- On a broker that forgets what nobody is subscribed to, a dead letter would be gone the moment it is written. So
-- before the subscriptions of an application are open, each name that its policies give for dead letters is declared,
-- where the broker can (`dead_letters` and `declare`) and the application does not itself take what comes there.
-- @module weir.app.graves

local brokers = require("weir.app.brokers")
local errors = require("weir.errors")

local M = {}

local function tokens_of(name)
  local list = {}
  for token in (name .. "."):gmatch("([^.]*)%.") do
    list[#list + 1] = token
  end
  return list
end

-- Whether a name, or a pattern of tokens between dots, has this name.
local function covers(pattern, name)
  local wanted, tokens = tokens_of(pattern), tokens_of(name)
  for i, token in ipairs(wanted) do
    if token == ">" then
      return #tokens >= i
    elseif token ~= tokens[i] and (token ~= "*" or not tokens[i]) then
      return false
    end
  end
  return #wanted == #tokens
end

local function is_taken(list, label, name)
  for _, registration in ipairs(list) do
    if registration.broker.label == label and covers(tostring(registration.descriptor.name), name) then
      return true
    end
  end
  return false
end

-- Calls `visit(label, name)` for each place, once.
local function each_place(list, visit)
  local seen = {}
  for _, registration in ipairs(list) do
    for _, handler in ipairs(registration.handlers) do
      local place = handler.policy.dead_letter
      if place then
        local label = place.broker or registration.broker.label
        local key = label .. "\0" .. place.to
        if not seen[key] then
          seen[key] = true
          local ok, err = visit(label, place.to)
          if not ok then
            return nil, err
          end
        end
      end
    end
  end
  return true
end

local function broker_of(self, label)
  for _, link in ipairs(self.links) do
    if link.label == label then
      return link.broker
    end
  end
end

--- Declares them.
-- @param self the running application
-- @tparam {table,...} list registrations
-- @tparam number deadline of `weir.now()`
-- @treturn boolean true; or nil and an error
function M.declare(self, list, deadline)
  return each_place(list, function(label, name)
    local broker = broker_of(self, label)
    if not broker.declare or not broker.dead_letters or is_taken(list, label, name) then
      return true
    end
    local ok, err = brokers.persist(function(timeout)
      local descriptor, why = broker:dead_letters(name)
      if not descriptor then
        return why.code == "unsupported", why
      end
      return broker:declare(descriptor, timeout)
    end, deadline, function(why, pause)
      local fields = { broker = label, name = name, error = why, after = pause }
      self.log:warn("the place of dead letters cannot be made; trying again", fields)
    end)
    if ok then
      return true
    end
    local message = "the place of dead letters '%s' cannot be made: %s"
    return nil, errors.with(err, { message = message:format(name, err.message) })
  end)
end

return M
