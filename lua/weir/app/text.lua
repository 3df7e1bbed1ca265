--- The text of an error: of whatever handlers and hooks raise.
-- @module weir.app.text

-- Fields of a table that are shown where it has no text of its own.
local SHOWN = 8

-- A table that was raised, such as { reason = "no stock", item = 5 }.
local function fields_text(err)
  local parts, more = {}, false
  for name, value in pairs(err) do
    local kind = type(value)
    if kind == "string" or kind == "number" or kind == "boolean" then
      local shown = kind == "string" and ("%q"):format(value) or tostring(value)
      parts[#parts + 1] = ("%s = %s"):format(tostring(name), shown)
    else
      more = true
    end
  end
  table.sort(parts)
  more = more or #parts > SHOWN
  return ("{ %s%s }"):format(table.concat(parts, ", ", 1, math.min(#parts, SHOWN)), more and ", ..." or "")
end

--- What went wrong, in words.
-- @param err anything that was raised or returned as an error
-- @treturn string
return function(err)
  local ok, text = pcall(function()
    if type(err) ~= "table" then
      return tostring(err)
    elseif type(err.message) == "string" then
      return err.message
    end
    local meta = getmetatable(err)
    return meta ~= nil and meta.__tostring and tostring(err) or fields_text(err)
  end)
  return ok and type(text) == "string" and text or "(an error that cannot be shown)"
end
