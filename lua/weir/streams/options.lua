--- What the options of nodes, producers and consumers have in common.
--
-- What is wrong is raised without a position: whoever calls puts the caller's there.
-- @module weir.streams.options

local codec = require("weir.codec")
local core = require("weir.core")
local size = require("weir.size")

local options = {}

local function fail(what, text)
  error(("%s: %s"):format(what, text), 0)
end

--- A whole number of at least `least`.
function options.count(what, name, value, least)
  if value ~= nil and (value % 1 ~= 0 or value < least or value >= 2 ^ 31) then
    fail(what, ("option '%s' must be a whole number from %d to 2^31 - 1, not %s"):format(name, least, tostring(value)))
  end
  return value
end

--- Seconds, more than 0.
function options.seconds(what, name, value)
  if value ~= nil and not (value > 0 and value < 1e9) then
    fail(what, ("option '%s' must be a number of seconds, more than 0, not %s"):format(name, tostring(value)))
  end
  return value
end

function options.bytes(what, name, value)
  if value == nil then
    return nil
  end
  local bytes, why = size.parse(value)
  if not bytes then
    fail(what, ("option '%s': %s"):format(name, why))
  end
  return bytes
end

local BUFFER = { messages = true, bytes = true }

--- Reads `buffer = { messages = n, bytes = size }`; both may be left out.
-- @return messages, bytes
function options.buffer(what, buffer)
  if buffer == nil then
    return nil, nil
  end
  for name in pairs(buffer) do
    if not BUFFER[name] then
      fail(what, ("unknown option 'buffer.%s'; known are: bytes, messages"):format(tostring(name)))
    end
  end
  local messages = buffer.messages
  if messages ~= nil and type(messages) ~= "number" then
    fail(what, "option 'buffer.messages' must be a number, not a " .. type(messages))
  end
  return options.count(what, "buffer.messages", messages, 1), options.bytes(what, "buffer.bytes", buffer.bytes)
end

--- A codec by name or table; raises for one that is not.
function options.codec(what, value)
  local ok, found = pcall(codec.get, value or "raw")
  if not ok then
    fail(what, "option 'codec': " .. found:gsub("^[^\n]-:%d+: ", ""))
  end
  return found
end

--- Raises for wrong settings of a backoff.
function options.backoff(what, value)
  if value ~= nil then
    local ok, why = pcall(core.backoff, value)
    if not ok then
      fail(what, "option 'backoff': " .. why)
    end
  end
end

--- A short text that travels in the handshake.
function options.text(what, name, value, most)
  if value ~= nil and (#value == 0 or #value > most) then
    fail(what, ("option '%s' must have 1 to %d bytes, not %d"):format(name, most, #value))
  end
  return value
end

return options
