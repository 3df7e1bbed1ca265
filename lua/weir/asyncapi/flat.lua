--- A JSON Schema as one table: its reference followed, its `allOf` merged, its types and values named.
-- @module weir.asyncapi.flat

local codec = require("weir.codec")
local pointer = require("weir.asyncapi.pointer")
local text = require("weir.asyncapi.text")

local M = {}

M.TYPES = { "array", "boolean", "integer", "null", "number", "object", "string" }

--- A value if it is a table, else an empty one.
function M.as_table(value)
  return type(value) == "table" and value or {}
end

--- A value as a text that equal values share.
function M.canonical(value)
  local result, err = text.to_json({ value })
  return result or error(err, 0)
end

--- The values of a list as the keys of a table.
function M.set_of(list)
  local set = {}
  for _, each in ipairs(M.as_table(list)) do
    set[each] = true
  end
  return set
end

--- The keys of a table, in the order of their texts.
function M.sorted(set)
  local names = {}
  for name in pairs(set) do
    names[#names + 1] = name
  end
  table.sort(names, function(a, b)
    return tostring(a) < tostring(b)
  end)
  return names
end

local function merge_properties(old, value)
  local both = {}
  for name, each in pairs(M.as_table(old)) do
    both[name] = each
  end
  for name, each in pairs(M.as_table(value)) do
    both[name] = both[name] == nil and each or { allOf = { both[name], each } }
  end
  return both
end

local function merge_required(old, value)
  local both = M.set_of(old)
  for _, name in ipairs(M.as_table(value)) do
    both[name] = true
  end
  return M.sorted(both)
end

-- Adds the keywords of a schema to those of another. Where both have one, the first stays, unless that of the other one
-- lets less through: then what both let through may be less than the result says, and never more.
local function merge_into(result, part)
  for keyword, value in pairs(part) do
    local old = result[keyword]
    local n, other = tonumber(old), tonumber(value)
    if old == nil then
      result[keyword] = value
    elseif keyword == "properties" then
      result.properties = merge_properties(old, value)
    elseif keyword == "required" then
      result.required = merge_required(old, value)
    elseif n and other and (keyword:find("^min%u") or keyword:find("inimum$")) then
      result[keyword] = math.max(n, other)
    elseif n and other and (keyword:find("^max%u") or keyword:find("aximum$")) then
      result[keyword] = math.min(n, other)
    end
  end
end

--- What a reference means, with all of its `allOf` in one; the same table each time.
-- @tparam table self `flats`, where it is kept
-- @tparam table document into which references lead
-- @param schema
-- @tparam number depth 0
-- @return a table, or false where nothing is let through
function M.of(self, document, schema, depth)
  schema = pointer.resolve(document, schema)
  if schema == true or schema == nil then
    return {}
  elseif type(schema) ~= "table" or schema.allOf == nil then
    return schema
  elseif self.flats[schema] ~= nil then
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
  for _, part in ipairs(M.as_table(schema.allOf)) do
    local inner = M.of(self, document, part, depth + 1)
    if inner == false then
      self.flats[schema] = false
      return false
    elseif type(inner) == "table" then
      merge_into(result, inner)
    end
  end
  return result
end

-- Keywords that hold only where something else does.
local CONDITIONAL = { "anyOf", "oneOf", "if", "then", "else", "dependencies" }

--- What lets through what both a flat schema, without its conditions, and a part of it do; the same table each time.
function M.together(self, schema, part)
  local known = self.together[schema] or {}
  self.together[schema] = known
  if known[part] == nil then
    local base = {}
    for keyword, value in pairs(schema) do
      base[keyword] = value
    end
    for _, keyword in ipairs(CONDITIONAL) do
      base[keyword] = nil
    end
    known[part] = { allOf = { base, part } }
  end
  return known[part]
end

--- The types that a schema names, or has by the values that it lists; nil where it lets all through.
function M.named_types(schema)
  local values = schema.const ~= nil and { schema.const } or schema.enum
  if schema.type ~= nil or type(values) ~= "table" then
    return schema.type
  end
  local list = {}
  for i, value in ipairs(values) do
    local kind = type(value)
    if value == codec.null then
      kind = "null"
    elseif kind == "number" and value % 1 == 0 then
      kind = "integer"
    elseif kind == "table" then
      kind = value[1] ~= nil and "array" or "object"
    end
    list[i] = kind
  end
  return list
end

--- The types that a flat schema lets through, as the keys of a table.
function M.types(schema)
  local set, named = {}, M.named_types(schema)
  for _, each in ipairs(named == nil and M.TYPES or type(named) == "table" and named or { named }) do
    set[each] = true
  end
  set.integer = set.integer or set.number
  return set
end

local FEW = { boolean = { true, false }, null = { codec.null } }

--- The values that a schema lets through at most; nil where it lists none.
function M.list(schema)
  local list = schema.const ~= nil and { schema.const } or schema.enum
  return type(list) == "table" and list or FEW[schema.type]
end

--- The same, by their text.
function M.values(schema)
  local list = M.list(schema)
  if not list then
    return nil
  end
  local set = {}
  for _, each in ipairs(list) do
    set[M.canonical(each):gsub("^%[%s*", ""):gsub("%s*%]%s*$", "")] = true
  end
  return set
end

return M
