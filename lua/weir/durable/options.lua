--- Checks and reads the options of the durable-stream client.
-- @module weir.durable.options

local core = require("weir.core")
local errors = require("weir.errors")
local size = require("weir.size")

local M = {}

local RETRY = {
  max_retries = "number",
  initial = "number",
  max = "number",
  multiplier = "number",
  floor_max = "number",
}

--- Raises unless the options of retries make sense.
function M.retry(what, retry, level)
  what = what .. ": option 'retry'"
  errors.options(what, retry, RETRY, level)
  if not retry then
    return {}
  end
  if retry.max_retries and (retry.max_retries < 0 or retry.max_retries ~= retry.max_retries) then
    error(("%s: 'max_retries' must be at least 0"):format(what), level)
  end
  local ok, reason = pcall(core.durable_retry, retry)
  if not ok then
    error(("%s: %s"):format(what, (tostring(reason):gsub("^[^:]+:%d+: ", ""))), level)
  end
  return retry
end

--- A size in bytes; 0 is allowed.
function M.size(what, name, value, default, level)
  if value == nil then
    return default
  elseif value == 0 then
    return 0
  end
  local bytes, reason = size.parse(value)
  if not bytes then
    error(("%s: option '%s': %s"):format(what, name, reason), level)
  end
  return bytes
end

--- A whole number of at least `least`, or nil.
function M.count(what, name, value, least, level)
  if value ~= nil and (value < least or value % 1 ~= 0 or value > 2 ^ 53) then
    error(("%s: option '%s' must be a whole number of at least %d, not %s"):format(what, name, least, value), level)
  end
  return value
end

--- A time in seconds of at least 0, or nil.
function M.seconds(what, name, value, level)
  if value ~= nil and (value < 0 or value ~= value) then
    error(("%s: option '%s' must be a number of seconds, at least 0"):format(what, name), level)
  end
  return value
end

local function check_value(what, kind, name, value, level)
  local is = type(value)
  if is ~= "string" and is ~= "number" and is ~= "boolean" then
    error(("%s: the value of '%s' must be a string, not a %s"):format(what, name, is), level)
  elseif kind == "headers" and tostring(value):find("[%z\r\n]") then
    error(("%s: the header '%s' must not have line ends"):format(what, name), level)
  end
end

-- The carrier decides about these.
local FRAMING = { ["content-length"] = true, ["transfer-encoding"] = true, connection = true }

--- Raises unless it is a table of names to values or functions.
function M.pairs(what, kind, map, level)
  what = ("%s: option '%s'"):format(what, kind)
  for name, value in pairs(map or {}) do
    if type(name) ~= "string" or name == "" then
      error(what .. ": names must be strings", level)
    elseif kind == "headers" and name:find("[^%w!#$%%&'*+%-.^_`|~]") then
      error(("%s: '%s' is no name of a header"):format(what, name), level)
    elseif kind == "headers" and FRAMING[name:lower()] then
      error(("%s: the header '%s' is not for the caller to set"):format(what, name), level)
    elseif type(value) ~= "function" then
      check_value(what, kind, name, value, level + 1)
    end
  end
  return map
end

--- Adds the values of a map to `out`, functions being called; false and nil leave the name out.
-- @tparam table out
-- @tparam ?table map
-- @tparam[opt] boolean headers names count in any case of letters: `out[lower] = {name, value}`
function M.evaluate(out, map, headers)
  for name, value in pairs(map or {}) do
    if type(value) == "function" then
      value = value()
      if value ~= nil and value ~= false then
        check_value("a function for", headers and "headers" or "params", name, value, 0)
      end
    end
    if headers then
      out[name:lower()] = value and { name, tostring(value) } or nil
    else
      out[name] = value or nil
    end
  end
  return out
end

return M
