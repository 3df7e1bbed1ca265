--- Settings from the environment of the process, where `weir run --env NAME=VALUE` puts them, too.
--
--     local url = weir.env("BROKER", "memory:")
--     local workers = weir.env("WORKERS", 4) -- a number, because the default is one
--
-- @module weir.env

local WORDS = { ["1"] = true, ["true"] = true, yes = true, on = true, ["0"] = false, ["false"] = false, no = false,
  off = false }

--- The value of a variable.
-- @tparam string name
-- @tparam[opt] string|number|boolean default what counts when it is not set or empty; the value is of its type
-- @return the value; nil when there is neither. Raises when the value is not of the type of the default.
return function(name, default)
  if type(name) ~= "string" then
    error("weir.env: the name of a variable is expected, not a " .. type(name), 2)
  end
  local text = os.getenv(name)
  if text == nil or text == "" then
    return default
  elseif type(default) == "number" then
    local value = tonumber(text)
    if not value then
      error(("weir.env: %s must be a number, not '%s'"):format(name, text), 2)
    end
    return value
  elseif type(default) == "boolean" then
    local value = WORDS[text:lower()]
    if value == nil then
      error(("weir.env: %s must be true or false, not '%s'"):format(name, text), 2)
    end
    return value
  end
  return text
end
