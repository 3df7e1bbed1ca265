--- Sizes in bytes, as integers or as strings such as "64 MiB".
-- @module weir.size

local size = {}

local UNITS = {
  [""] = 1,
  B = 1,
  KiB = 1024,
  MiB = 1024 * 1024,
  GiB = 1024 * 1024 * 1024,
  kB = 1000,
  KB = 1000,
  MB = 1000 * 1000,
  GB = 1000 * 1000 * 1000,
}

--- Reads a size.
-- @tparam ?number|string value 4096, "4 KiB", "1.5MiB"
-- @treturn ?number whole bytes
-- @treturn ?string what is wrong with it
function size.parse(value)
  local number, unit = value, ""
  if type(value) == "string" then
    number, unit = value:match("^%s*(%d+%.?%d*)%s*(%a*)%s*$")
    number = tonumber(number)
  end
  local factor = UNITS[unit]
  if type(number) ~= "number" or not factor then
    return nil, ("%q is not a size: use bytes, or a string such as \"64 MiB\""):format(tostring(value))
  end
  local bytes = math.floor(number * factor)
  if bytes ~= bytes or bytes < 1 or bytes > 2 ^ 53 then
    return nil, ("%q is not a size: it must be at least 1 byte"):format(tostring(value))
  end
  return bytes
end

--- Writes a number of bytes for people: "64.0 MiB".
-- @tparam number bytes
-- @treturn string
function size.format(bytes)
  if bytes < 1024 then
    return ("%d B"):format(math.floor(bytes))
  end
  local value, unit = bytes / 1024, "KiB"
  for _, next_unit in ipairs({ "MiB", "GiB", "TiB" }) do
    if value < 1024 then
      break
    end
    value, unit = value / 1024, next_unit
  end
  return ("%.1f %s"):format(value, unit)
end

return size
