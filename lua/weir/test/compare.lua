--- Whether values are the same, and how to show them.
-- @module weir.test.compare

local compare = {}

local DEPTH, LENGTH = 4, 200

--- Whether two values are equal, tables by what is in them.
function compare.same(a, b, seen)
  if a == b or (a ~= a and b ~= b) then
    return true
  elseif type(a) ~= "table" or type(b) ~= "table" then
    return false
  end
  seen = seen or {}
  if seen[a] == b then
    return true
  end
  seen[a] = b
  for key, value in pairs(a) do
    if not compare.same(value, b[key], seen) then
      return false
    end
  end
  for key in pairs(b) do
    if a[key] == nil then
      return false
    end
  end
  return true
end

local function by_text(a, b)
  if type(a) == type(b) and (type(a) == "number" or type(a) == "string") then
    return a < b
  end
  return tostring(a) < tostring(b)
end

local function show(value, depth, seen)
  if type(value) == "string" then
    return ("%q"):format(value)
  elseif type(value) == "number" and value % 1 == 0 and math.abs(value) < 2 ^ 53 then
    return ("%d"):format(value) -- numbers that were JSON have no fraction to show
  elseif type(value) ~= "table" or (getmetatable(value) or {}).__tostring then
    return tostring(value)
  elseif depth == 0 or seen[value] then
    return "{...}"
  end
  seen[value] = true
  local keys, parts = {}, {}
  for key in pairs(value) do
    keys[#keys + 1] = key
  end
  table.sort(keys, by_text)
  for i, key in ipairs(keys) do
    local text = show(value[key], depth - 1, seen)
    if type(key) == "string" and key:find("^[%a_][%w_]*$") then
      text = key .. " = " .. text
    elseif key ~= i then
      text = "[" .. show(key, 1, seen) .. "] = " .. text
    end
    parts[i] = text
  end
  seen[value] = nil
  return #parts == 0 and "{}" or "{ " .. table.concat(parts, ", ") .. " }"
end

--- A value as text, of bounded length.
function compare.show(value)
  local text = show(value, DEPTH, {})
  return #text > LENGTH and text:sub(1, LENGTH) .. "..." or text
end

--- Several values as text.
function compare.list(values)
  local parts = {}
  for i, value in ipairs(values) do
    if i > 10 then
      parts[i] = ("and %d more"):format(#values - 10)
      break
    end
    parts[i] = compare.show(value)
  end
  return #parts == 0 and "nothing" or table.concat(parts, ", ")
end

return compare
