--- Whether the types, listed values and limits of a schema refuse what those of another have let through.
--
-- Each function takes two flat schemas (`weir.asyncapi.flat`), the one before and the one after, and a list to which
-- it adds `{ path = "", kind, detail }` of everything that the second refuses.
-- @module weir.asyncapi.limits

local flat = require("weir.asyncapi.flat")

local M = {}

-- Limits of sizes, and what is meant where there is none.
local LOWER = { minLength = 0, minItems = 0, minProperties = 0, minContains = 1 }
local UPPER = { "maxLength", "maxItems", "maxProperties", "maxContains" }
local LOWER_NAMES = { "minContains", "minItems", "minLength", "minProperties" }

local function add(found, kind, detail)
  found[#found + 1] = { path = "", kind = kind, detail = detail }
end

--- Of the types.
function M.types(found, a, b)
  local before, after = flat.types(a), flat.types(b)
  for _, name in ipairs(flat.TYPES) do
    if before[name] and not after[name] and not (name == "integer" and before.number and not after.number) then
      if flat.named_types(a) ~= nil then
        add(found, "type", name)
      elseif b.type ~= nil then -- the values that it lists are said elsewhere
        local names = {}
        for i, each in ipairs(type(b.type) == "table" and b.type or { b.type }) do
          names[i] = tostring(each)
        end
        return add(found, "any_type", table.concat(names, ", "))
      end
    end
  end
end

--- Of `enum` and `const`.
function M.values(found, a, b)
  local before, after = flat.values(a), (b.const ~= nil or b.enum ~= nil) and flat.values(b)
  if not after then
    return
  elseif not before then
    return add(found, "values", table.concat(flat.sorted(after), ", "))
  end
  for _, value in ipairs(flat.sorted(before)) do
    if not after[value] then
      add(found, "value", value)
    end
  end
end

-- A bound of numbers: the keyword, its number, and whether the number itself is out of it. `sign` is -1 for upper ones.
local function bound_of(schema, sign)
  local names = sign > 0 and { "minimum", "exclusiveMinimum" } or { "maximum", "exclusiveMaximum" }
  local with, without = tonumber(schema[names[1]]), tonumber(schema[names[2]])
  if without and schema.type == "integer" and without % 1 == 0 and math.abs(without) < 2 ^ 53 then
    if not with or (without + sign) * sign >= with * sign then
      return names[2], without + sign, false
    end
  elseif without and (not with or without * sign >= with * sign) then
    return names[2], without, true
  end
  return with and names[1], with, false
end

local function compare_numbers(found, a, b)
  for _, sign in ipairs({ 1, -1 }) do
    local _, before, open = bound_of(a, sign)
    local keyword, after, is_open = bound_of(b, sign)
    if after and (not before or after * sign > before * sign or after == before and is_open and not open) then
      add(found, "bound", ("%s %.14g"):format(keyword, tonumber(b[keyword])))
    end
  end
  local before, after = tonumber(a.multipleOf), tonumber(b.multipleOf)
  if after and after ~= 0 and not (after == 1 and a.type == "integer") and not (before and before % after == 0) then
    add(found, "bound", ("multipleOf %.14g"):format(after))
  end
end

local function compare_sizes(found, a, b)
  for _, keyword in ipairs(LOWER_NAMES) do
    local before, after = tonumber(a[keyword]) or LOWER[keyword], tonumber(b[keyword])
    if after and after > before and (keyword ~= "minContains" or b.contains ~= nil) then
      add(found, "bound", ("%s %.14g"):format(keyword, after))
    end
  end
  for _, keyword in ipairs(UPPER) do
    local before, after = tonumber(a[keyword]), tonumber(b[keyword])
    if after and (not before or after < before) and (keyword ~= "maxContains" or b.contains ~= nil) then
      add(found, "bound", ("%s %.14g"):format(keyword, after))
    end
  end
  if b.uniqueItems == true and a.uniqueItems ~= true then
    add(found, "bound", "uniqueItems")
  end
end

local function compare_texts(found, a, b)
  if b.pattern ~= nil and b.pattern ~= a.pattern then
    add(found, "pattern", flat.canonical(b.pattern):match('^%[%s*"?(.-)"?%s*%]%s*$'))
  end
  if b.format ~= nil and b.format ~= a.format then
    add(found, "changed", "format")
  end
end

-- Keywords that values of these types can be tested by.
local TESTED = { "minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength",
  "pattern" }

-- Whether the values that are listed have these limits anyway; false where that is not known.
local function are_within(values, limits)
  for _, value in ipairs(values) do
    if type(value) == "table" then
      return false
    end
  end
  local definition = {}
  for _, keyword in ipairs(TESTED) do
    definition[keyword] = limits[keyword]
  end
  local ok, made = pcall(require("weir.schema").from_json, definition)
  for _, value in ipairs(ok and values or {}) do
    ok = ok and made:validate(value)
  end
  return ok and limits.format == nil
end

--- Of numbers, sizes and texts.
function M.limits(found, a, b)
  local values = flat.list(a)
  if values and are_within(values, b) then
    return
  end
  compare_numbers(found, a, b)
  compare_sizes(found, a, b)
  compare_texts(found, a, b)
end

return M
