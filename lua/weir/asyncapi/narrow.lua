--- Whether a schema refuses what another has let through.
--
-- Compares what can be decided keyword by keyword; of the others (`not`, `if`, `contains`, `patternProperties`, ...)
-- only whether they have changed. A new property that nobody must have is no narrowing.
-- @module weir.asyncapi.narrow

local codec = require("weir.codec")
local errors = require("weir.errors")
local pointer = require("weir.asyncapi.pointer")
local text = require("weir.asyncapi.text")

-- Pairs of schemas that are compared, at most: documents may be hostile.
local MOST = 20000

local LOWER = { "minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties" }
local UPPER = { "maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties" }
local OPAQUE = { "not", "if", "then", "else", "contains", "patternProperties", "propertyNames", "dependencies",
  "pattern", "format", "multipleOf" }
local TYPES = { "array", "boolean", "integer", "null", "number", "object", "string" }

local Comparison = {}
Comparison.__index = Comparison

local function as_table(value)
  return type(value) == "table" and value or {}
end

-- A value as a text that equal values share.
local function canonical(value)
  local result, err = text.to_json({ value })
  return result or error(err, 0)
end

local function set_of(list)
  local set = {}
  for _, each in ipairs(as_table(list)) do
    set[each] = true
  end
  return set
end

-- --- one schema ------------------------------------------------------------------------------------

local function merge_into(result, part)
  for keyword, value in pairs(part) do
    local old = result[keyword]
    if old == nil then
      result[keyword] = value
    elseif keyword == "properties" then
      local both = {}
      for name, each in pairs(as_table(old)) do
        both[name] = each
      end
      for name, each in pairs(as_table(value)) do
        both[name] = both[name] == nil and each or { allOf = { both[name], each } }
      end
      result.properties = both
    elseif keyword == "required" then
      local both = set_of(old)
      local list = {}
      for _, name in ipairs(as_table(value)) do
        both[name] = true
      end
      for name in pairs(both) do
        list[#list + 1] = name
      end
      result.required = list
    end
  end
end

-- What a reference means, with all of its `allOf` in one; cached, so that it is the same table each time.
local function flat(self, document, schema, depth)
  schema = pointer.resolve(document, schema)
  if schema == true or schema == nil then
    return {}
  elseif type(schema) ~= "table" or schema.allOf == nil then
    return schema
  elseif self.flats[schema] then
    return self.flats[schema]
  elseif depth > 50 then
    return {}
  end
  local result = {}
  self.flats[schema] = result
  for keyword, value in pairs(schema) do
    if keyword ~= "allOf" then
      result[keyword] = value
    end
  end
  for _, part in ipairs(as_table(schema.allOf)) do
    local inner = flat(self, document, part, depth + 1)
    if inner == false then
      self.flats[schema] = false
      return false
    end
    merge_into(result, inner)
  end
  return result
end

-- The types that a schema names, or has by the values that it lists; nil where it lets all through.
local function named_types(schema)
  local values = schema.const ~= nil and { schema.const } or schema.enum
  if schema.type ~= nil or type(values) ~= "table" then
    return schema.type
  end
  local list = {}
  for i, value in ipairs(values) do
    local kind = type(value)
    if value == codec.null then
      kind = "null"
    elseif kind == "table" then
      kind = value[1] ~= nil and "array" or "object"
    end
    list[i] = kind
  end
  return list
end

local function types_of(schema)
  local set, named = {}, named_types(schema)
  for _, each in ipairs(named == nil and TYPES or type(named) == "table" and named or { named }) do
    set[each] = true
  end
  set.integer = set.integer or set.number
  return set
end

-- The values that a schema has listed: by their text; nil where it lists none.
local function values_of(schema)
  local list = schema.const ~= nil and { schema.const } or schema.enum
  if type(list) ~= "table" then
    return nil
  end
  local set = {}
  for _, each in ipairs(list) do
    set[canonical(each):gsub("^%[%s*", ""):gsub("%s*%]%s*$", "")] = true
  end
  return set
end

local function sorted(set)
  local names = {}
  for name in pairs(set) do
    names[#names + 1] = name
  end
  table.sort(names, function(a, b)
    return tostring(a) < tostring(b)
  end)
  return names
end

-- --- comparing -------------------------------------------------------------------------------------

local function add(found, path, kind, detail)
  found[#found + 1] = { path = path, kind = kind, detail = detail }
end

local function add_all(found, path, more)
  for _, each in ipairs(more) do
    local rest = each.path
    local dot = (path ~= "" and rest ~= "" and rest:sub(1, 1) ~= "[") and "." or ""
    add(found, path .. dot .. rest, each.kind, each.detail)
  end
end

local function compare_types(found, a, b)
  local before, after = types_of(a), types_of(b)
  for _, name in ipairs(TYPES) do
    if before[name] and not after[name] and not (name == "integer" and before.number and not after.number) then
      if named_types(a) == nil then
        return add(found, "", "any_type", type(b.type) == "table" and table.concat(b.type, ", ") or b.type)
      end
      add(found, "", "type", name)
    end
  end
end

local function compare_values(found, a, b)
  local before, after = values_of(a), values_of(b)
  if not after then
    return
  elseif not before then
    return add(found, "", "values", table.concat(sorted(after), ", "))
  end
  for _, value in ipairs(sorted(before)) do
    if not after[value] then
      add(found, "", "value", value)
    end
  end
end

local function compare_bounds(found, a, b)
  for _, keyword in ipairs(LOWER) do
    local before, after = tonumber(a[keyword]), tonumber(b[keyword])
    if after and (not before or after > before) and not (after == 0 and keyword:find("^min%u")) then
      add(found, "", "bound", ("%s %g"):format(keyword, after))
    end
  end
  for _, keyword in ipairs(UPPER) do
    local before, after = tonumber(a[keyword]), tonumber(b[keyword])
    if after and (not before or after < before) then
      add(found, "", "bound", ("%s %g"):format(keyword, after))
    end
  end
  if b.uniqueItems == true and a.uniqueItems ~= true then
    add(found, "", "bound", "uniqueItems")
  end
  for _, keyword in ipairs(OPAQUE) do
    if b[keyword] ~= nil and (a[keyword] == nil or canonical(a[keyword]) ~= canonical(b[keyword])) then
      add(found, "", "changed", keyword)
    end
  end
end

function Comparison:properties(found, a, b)
  local before, after = as_table(a.properties), as_table(b.properties)
  local had = set_of(a.required)
  for name in pairs(set_of(b.required)) do
    if not had[name] then
      add(found, tostring(name), "required")
    end
  end
  for name, each in pairs(before) do
    if after[name] ~= nil then
      add_all(found, tostring(name), self:compare(each, after[name]))
    elseif b.additionalProperties == false then
      add(found, tostring(name), "removed")
    elseif type(b.additionalProperties) == "table" then
      add_all(found, tostring(name), self:compare(each, b.additionalProperties))
    end
  end
  if b.additionalProperties == false and a.additionalProperties ~= false then
    add(found, "", "closed")
  elseif type(b.additionalProperties) == "table" and a.additionalProperties ~= false then
    add_all(found, "*", self:compare(a.additionalProperties, b.additionalProperties))
  end
end

function Comparison:items(found, a, b)
  local before, after = a.items, b.items
  if after == nil then
    return
  elseif type(after) == "table" and after[1] ~= nil then
    for i, each in ipairs(after) do
      local other = before
      if type(before) == "table" and before[1] ~= nil then
        other = before[i]
      end
      add_all(found, ("[%d]"):format(i), self:compare(other, each))
    end
  elseif type(before) == "table" and before[1] ~= nil then
    for i, each in ipairs(before) do
      add_all(found, ("[%d]"):format(i), self:compare(each, after))
    end
  else
    add_all(found, "[]", self:compare(before, after))
  end
end

-- Every alternative of the one must fit one of the other's.
function Comparison:alternatives(found, a, b)
  for _, keyword in ipairs({ "anyOf", "oneOf" }) do
    local after = b[keyword]
    if type(after) == "table" then
      for i, each in ipairs(as_table(a[keyword] or a.anyOf or a.oneOf or { a })) do
        local fits = false
        for _, other in ipairs(after) do
          fits = fits or #self:compare(each, other) == 0
        end
        if not fits then
          add(found, "", "alternative", i)
        end
      end
    elseif type(a[keyword]) == "table" and not (b.anyOf or b.oneOf) then
      for _, each in ipairs(a[keyword]) do
        add_all(found, "", self:compare({ allOf = { each, a.type and { type = a.type } or true } }, b))
      end
    end
  end
end

local function by_path(one, other)
  if one.path ~= other.path then
    return one.path < other.path
  elseif one.kind ~= other.kind then
    return one.kind < other.kind
  end
  return tostring(one.detail) < tostring(other.detail)
end

-- What `b` refuses of what `a` lets through. A pair that is being compared is taken to fit: schemas are recursive.
function Comparison:compare(a, b)
  a, b = flat(self, self.before, a, 0), flat(self, self.after, b, 0)
  if a == false or (type(b) == "table" and next(b) == nil) then
    return {}
  elseif type(a) ~= "table" or type(b) ~= "table" then
    return b == false and { { path = "", kind = "nothing" } } or {}
  end
  local memo = self.memo[a] or {}
  self.memo[a] = memo
  if memo[b] then
    return memo[b]
  end
  self.count = self.count + 1
  if self.count > MOST then
    error(errors.new("too_large", "the schemas are too large to be compared"), 0)
  end
  local found = {}
  memo[b] = {}
  compare_types(found, a, b)
  compare_values(found, a, b)
  compare_bounds(found, a, b)
  self:alternatives(found, a, b)
  local before, after = types_of(a), types_of(b)
  if before.object and after.object then
    self:properties(found, a, b)
  end
  if before.array and after.array then
    self:items(found, a, b)
  end
  table.sort(found, by_path)
  memo[b] = found
  return found
end

--- Compares.
-- @tparam table before the document of the first schema, into which its references lead
-- @param a a schema; nil lets everything through
-- @tparam table after the document of the second
-- @param b
-- @treturn {table,...} `{ path, kind, detail }` of everything that `b` refuses and `a` does not; raises an error of
--   weir ("too_large", "encode") for schemas that cannot be compared
return function(before, a, after, b)
  local self = setmetatable({ before = before, after = after, memo = {}, flats = {}, count = 0 }, Comparison)
  return self:compare(a, b)
end
