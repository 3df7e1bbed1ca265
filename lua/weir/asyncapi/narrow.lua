--- Whether a schema refuses what another has let through.
--
-- Compares what can be decided keyword by keyword. Regular expressions and formats are only compared for being the
-- same, unless the values that have to match them are listed. A new property that nobody must have is no narrowing.
-- Where it cannot be decided, something is found rather than overlooked.
-- @module weir.asyncapi.narrow

local codec = require("weir.codec")
local errors = require("weir.errors")
local pointer = require("weir.asyncapi.pointer")
local text = require("weir.asyncapi.text")

-- Pairs of schemas that are compared, and that are within each other, at most: documents may be hostile.
local MOST, DEEPEST = 20000, 400
-- Values within schemas that are looked at to see whether they are the same, at most; of more, it is not known.
local MOST_VALUES = 1000000

-- Limits of sizes, and what is meant where there is none.
local LOWER = { minLength = 0, minItems = 0, minProperties = 0, minContains = 1 }
local UPPER = { "maxLength", "maxItems", "maxProperties", "maxContains" }
local LOWER_NAMES = { "minContains", "minItems", "minLength", "minProperties" }
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

-- --- one schema ------------------------------------------------------------------------------------

local function merge_properties(old, value)
  local both = {}
  for name, each in pairs(as_table(old)) do
    both[name] = each
  end
  for name, each in pairs(as_table(value)) do
    both[name] = both[name] == nil and each or { allOf = { both[name], each } }
  end
  return both
end

local function merge_required(old, value)
  local both = set_of(old)
  for _, name in ipairs(as_table(value)) do
    both[name] = true
  end
  return sorted(both)
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

-- What a reference means, with all of its `allOf` in one; cached, so that it is the same table each time.
local function flat(self, document, schema, depth)
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
  for _, part in ipairs(as_table(schema.allOf)) do
    local inner = flat(self, document, part, depth + 1)
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

-- What lets through what both a flat schema, without its conditions, and a part of it do; the same table each time.
local function together(self, schema, part)
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
    elseif kind == "number" and value % 1 == 0 then
      kind = "integer"
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

local FEW = { boolean = { true, false }, null = { codec.null } }

-- The values that a schema lets through at most; nil where it lists none.
local function list_of(schema)
  local list = schema.const ~= nil and { schema.const } or schema.enum
  return type(list) == "table" and list or FEW[schema.type]
end

-- The same, by their text.
local function values_of(schema)
  local list = list_of(schema)
  if not list then
    return nil
  end
  local set = {}
  for _, each in ipairs(list) do
    set[canonical(each):gsub("^%[%s*", ""):gsub("%s*%]%s*$", "")] = true
  end
  return set
end

-- --- what is the same ------------------------------------------------------------------------------

-- Whether two values say the same, each in its document; those that contain themselves do unless a difference is found.
local function is_equal(self, a, b, seen)
  if type(a) ~= "table" or type(b) ~= "table" then
    return a == b
  end
  local bounds = self.bounds
  bounds.values = bounds.values + 1
  if bounds.values > MOST_VALUES then
    return false
  end
  a, b = pointer.resolve(self.before, a), pointer.resolve(self.after, b)
  if type(a) ~= "table" or type(b) ~= "table" then
    return a == b and a ~= nil
  end
  seen[a] = seen[a] or {}
  if seen[a][b] then
    return true
  end
  seen[a][b] = true
  for key in pairs(b) do
    if a[key] == nil then
      return false
    end
  end
  for key, each in pairs(a) do
    if b[key] == nil or not is_equal(self, each, b[key], seen) then
      return false
    end
  end
  return true
end

-- Keywords that say what they say by themselves, and those that say it together.
local ALONE = { "type", "enum", "const", "not", "anyOf", "oneOf", "pattern", "format", "multipleOf", "propertyNames",
  "dependencies" }
local TOGETHER = { { "if", "then", "else" }, { "contains", "minContains", "maxContains" } }

-- The second schema without what the first one says as well: that refuses nothing.
local function without_same(self, a, b)
  local rest = {}
  for keyword, value in pairs(b) do
    rest[keyword] = value
  end
  for _, keyword in ipairs(ALONE) do
    if b[keyword] ~= nil and a[keyword] ~= nil and is_equal(self, a[keyword], b[keyword], {}) then
      rest[keyword] = nil
    end
  end
  for _, keywords in ipairs(TOGETHER) do
    local same = true
    for _, keyword in ipairs(keywords) do
      same = same and is_equal(self, a[keyword], b[keyword], {})
    end
    for _, keyword in ipairs(same and keywords or {}) do
      rest[keyword] = nil
    end
  end
  return rest
end

-- --- what is found ---------------------------------------------------------------------------------

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

local function by_path(one, other)
  if one.path ~= other.path then
    return one.path < other.path
  elseif one.kind ~= other.kind then
    return one.kind < other.kind
  end
  return tostring(one.detail) < tostring(other.detail)
end

-- In order, each once.
local function settled(found)
  table.sort(found, by_path)
  local list = {}
  for _, each in ipairs(found) do
    local last = list[#list]
    if not last or by_path(last, each) then
      list[#list + 1] = each
    end
  end
  return list
end

-- --- types, values and limits ----------------------------------------------------------------------

local function compare_types(found, a, b)
  local before, after = types_of(a), types_of(b)
  for _, name in ipairs(TYPES) do
    if before[name] and not after[name] and not (name == "integer" and before.number and not after.number) then
      if named_types(a) ~= nil then
        add(found, "", "type", name)
      elseif b.type ~= nil then -- the values that it lists are said elsewhere
        local names = {}
        for i, each in ipairs(type(b.type) == "table" and b.type or { b.type }) do
          names[i] = tostring(each)
        end
        return add(found, "", "any_type", table.concat(names, ", "))
      end
    end
  end
end

local function compare_values(found, a, b)
  local before, after = values_of(a), (b.const ~= nil or b.enum ~= nil) and values_of(b)
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
      add(found, "", "bound", ("%s %.14g"):format(keyword, tonumber(b[keyword])))
    end
  end
  local before, after = tonumber(a.multipleOf), tonumber(b.multipleOf)
  if after and after ~= 0 and not (after == 1 and a.type == "integer") and not (before and before % after == 0) then
    add(found, "", "bound", ("multipleOf %.14g"):format(after))
  end
end

local function compare_sizes(found, a, b)
  for _, keyword in ipairs(LOWER_NAMES) do
    local before, after = tonumber(a[keyword]) or LOWER[keyword], tonumber(b[keyword])
    if after and after > before and (keyword ~= "minContains" or b.contains ~= nil) then
      add(found, "", "bound", ("%s %.14g"):format(keyword, after))
    end
  end
  for _, keyword in ipairs(UPPER) do
    local before, after = tonumber(a[keyword]), tonumber(b[keyword])
    if after and (not before or after < before) and (keyword ~= "maxContains" or b.contains ~= nil) then
      add(found, "", "bound", ("%s %.14g"):format(keyword, after))
    end
  end
  if b.uniqueItems == true and a.uniqueItems ~= true then
    add(found, "", "bound", "uniqueItems")
  end
end

local function compare_texts(found, a, b)
  if b.pattern ~= nil and b.pattern ~= a.pattern then
    add(found, "", "pattern", canonical(b.pattern):match('^%[%s*"?(.-)"?%s*%]%s*$'))
  end
  if b.format ~= nil and b.format ~= a.format then
    add(found, "", "changed", "format")
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

local function compare_limits(found, a, b)
  local values = list_of(a)
  if values and are_within(values, b) then
    return
  end
  compare_numbers(found, a, b)
  compare_sizes(found, a, b)
  compare_texts(found, a, b)
end

-- --- objects and arrays ----------------------------------------------------------------------------

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
  if type(a.additionalProperties) == "table" then
    for name, each in pairs(after) do
      if before[name] == nil then
        add_all(found, tostring(name), self:compare(a.additionalProperties, each))
      end
    end
  end
  if b.additionalProperties == false and a.additionalProperties ~= false then
    add(found, "", "closed")
  elseif type(b.additionalProperties) == "table" and a.additionalProperties ~= false then
    add_all(found, "*", self:compare(a.additionalProperties, b.additionalProperties))
  end
end

-- Properties by what their names match.
function Comparison:patterns(found, a, b)
  local before, after = as_table(a.patternProperties), as_table(b.patternProperties)
  for name, each in pairs(after) do
    local other = before[name]
    if other == nil then
      other = a.additionalProperties
    end
    if other ~= false then
      add_all(found, ("/%s/"):format(tostring(name)), self:compare(other, each))
    end
  end
  for name, each in pairs(before) do
    local path, rest = ("/%s/"):format(tostring(name)), b.additionalProperties
    if after[name] == nil and rest == false then
      add(found, path, "removed")
    elseif after[name] == nil and type(rest) == "table" then
      add_all(found, path, self:compare(each, rest))
    end
  end
  if b.propertyNames ~= nil then
    add_all(found, "(names)", self:compare(a.propertyNames, b.propertyNames))
  end
end

-- What a dependency asks for, as a schema: in draft 07 a list of names is one, too.
local function dependency(value)
  if type(value) == "table" and value[1] ~= nil then
    return { required = value }
  end
  return value
end

function Comparison:dependencies(found, a, b)
  local before = as_table(a.dependencies)
  for name, each in pairs(as_table(b.dependencies)) do
    local had = dependency(before[name])
    local base = together(self, a, had == nil and true or had)
    add_all(found, ("(with %s)"):format(tostring(name)), self:compare(base, dependency(each)))
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
        other = before[i] == nil and a.additionalItems or before[i]
      end
      add_all(found, ("[%d]"):format(i), self:compare(other, each))
    end
    if b.additionalItems ~= nil then
      local other = before
      if type(before) == "table" and before[1] ~= nil then
        other = a.additionalItems
      end
      add_all(found, "[]", self:compare(other, b.additionalItems))
    end
  elseif type(before) == "table" and before[1] ~= nil then
    for i, each in ipairs(before) do
      add_all(found, ("[%d]"):format(i), self:compare(each, after))
    end
    add_all(found, "[]", self:compare(a.additionalItems, after))
  else
    add_all(found, "[]", self:compare(before, after))
  end
end

function Comparison:contains(found, a, b)
  if b.contains == nil then
    return
  elseif a.contains == nil or #self:compare(a.contains, b.contains) > 0 then
    add(found, "", "contains")
  elseif b.maxContains ~= nil and #self:reversed():compare(b.contains, a.contains) > 0 then
    add(found, "", "contains")
  end
end

-- --- schemas of schemas ----------------------------------------------------------------------------

-- The same documents the other way round.
function Comparison:reversed()
  if not self.other then
    self.other = setmetatable({ before = self.after, after = self.before, memo = {}, flats = {}, together = {},
      bounds = self.bounds, other = self }, Comparison)
  end
  return self.other
end

-- What is shut out must have been shut out before.
function Comparison:negation(found, a, b)
  local out = b["not"]
  if out == nil then
    return
  elseif a["not"] ~= nil then
    if #self:reversed():compare(out, a["not"]) > 0 then
      add(found, "", "excluded")
    end
    return
  end
  local given, shut = types_of(a), flat(self:reversed(), self.after, out, 0)
  if shut == false then
    return
  end
  for name in pairs(types_of(as_table(shut))) do
    if given[name] then
      return add(found, "", "excluded")
    end
  end
end

local function is_same(self, a, b)
  return #self:compare(a, b) == 0 and #self:reversed():compare(b, a) == 0
end

-- `if`, `then` and `else`: branches are compared where they are taken for the same values.
function Comparison:condition(found, a, b)
  local asked = b["if"]
  if asked == nil or (b["then"] == nil and b["else"] == nil) then
    return
  end
  local known = a["if"] ~= nil and is_same(self, a["if"], asked)
  for _, branch in ipairs({ "then", "else" }) do
    local had = known and a[branch]
    if not known or had == nil then
      had = true
    end
    local more = b[branch] ~= nil and self:compare(together(self, a, had), b[branch]) or {}
    if known then
      add_all(found, ("(%s)"):format(branch), more)
    elseif #more > 0 then
      return add(found, "", "condition")
    end
  end
end

-- One of the alternatives of `b` has to let through what `a` does, which has none itself.
function Comparison:alternatives(found, a, b)
  for _, keyword in ipairs({ "anyOf", "oneOf" }) do
    local list = b[keyword]
    if type(list) == "table" and list[1] ~= nil then
      local fits = false
      for _, each in ipairs(list) do
        fits = fits or #self:compare(a, each) == 0
      end
      if not fits then
        add(found, "", "alternatives", #list)
      end
    end
  end
end

-- Each alternative of `a` by itself.
function Comparison:each_alternative(found, a, b, list)
  for i, each in ipairs(list) do
    local more = self:compare(together(self, a, each), b)
    for _, one in ipairs(more) do
      local lost = one.kind == "alternatives" and one.path == ""
      add_all(found, "", { lost and { path = "", kind = "alternative", detail = i } or one })
    end
  end
end

function Comparison:keywords(found, a, b)
  compare_types(found, a, b)
  compare_values(found, a, b)
  compare_limits(found, a, b)
  self:alternatives(found, a, b)
  self:negation(found, a, b)
  self:condition(found, a, b)
  local before, after = types_of(a), types_of(b)
  if before.object and after.object then
    self:properties(found, a, b)
    self:patterns(found, a, b)
    self:dependencies(found, a, b)
  end
  if before.array and after.array then
    self:items(found, a, b)
    self:contains(found, a, b)
  end
end

-- Compares two schemas that are tables: `a` is flat, `b` is what it is, and refuses what any part of it does.
local function compare(self, a, b, parts)
  local found = {}
  for _, part in ipairs(as_table(b.allOf)) do
    local same = false
    for _, other in ipairs(parts) do
      same = same or is_equal(self, other, part, {})
    end
    if not same then
      add_all(found, "", self:compare(a, part))
    end
  end
  local own, rest = {}, without_same(self, a, b)
  self:keywords(own, a, rest)
  for _, keyword in ipairs({ "anyOf", "oneOf" }) do
    local list = a[keyword]
    if #own > 0 and type(list) == "table" and list[1] ~= nil then -- there is more to know of it
      rest.allOf, own = nil, {}
      self:each_alternative(own, a, rest, list)
      break
    end
  end
  add_all(found, "", own)
  return found
end

-- What `b` refuses of what `a` lets through. A pair that is being compared is taken to fit: schemas are recursive.
function Comparison:compare(a, b)
  local whole = pointer.resolve(self.before, a)
  a, b = flat(self, self.before, a, 0), pointer.resolve(self.after, b)
  if type(whole) == "table" and is_equal(self, whole, b, {}) then
    return {}
  elseif a == false or b == nil or (type(b) == "table" and next(b) == nil) then
    return {}
  elseif type(a) ~= "table" or type(b) ~= "table" then
    return b == false and { { path = "", kind = "nothing" } } or {}
  end
  local memo = self.memo[a] or {}
  self.memo[a] = memo
  if memo[b] then
    return memo[b]
  end
  local bounds = self.bounds
  bounds.count, bounds.depth = bounds.count + 1, bounds.depth + 1
  if bounds.count > MOST or bounds.depth > DEEPEST then
    error(errors.new("too_large", "the schemas are too large to be compared"), 0)
  end
  memo[b] = {}
  memo[b] = settled(compare(self, a, b, as_table(as_table(whole).allOf)))
  bounds.depth = bounds.depth - 1
  return memo[b]
end

--- Compares.
-- @tparam table before the document of the first schema, into which its references lead
-- @param a a schema; nil lets everything through
-- @tparam table after the document of the second
-- @param b
-- @treturn {table,...} `{ path, kind, detail }` of everything that `b` refuses and `a` does not; raises an error of
--   weir ("too_large", "encode") for schemas that cannot be compared
return function(before, a, after, b)
  local self = setmetatable({
    before = before,
    after = after,
    memo = {},
    flats = {},
    together = {},
    bounds = { count = 0, depth = 0, values = 0 },
  }, Comparison)
  return self:compare(a, b)
end
