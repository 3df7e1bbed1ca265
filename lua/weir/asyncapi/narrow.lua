--- Whether a schema refuses what another has let through.
--
-- Compares what can be decided keyword by keyword. Regular expressions and formats are only compared for being the
-- same, unless the values that have to match them are listed. A new property that nobody must have is no narrowing.
-- Where it cannot be decided, something is found rather than overlooked.
-- @module weir.asyncapi.narrow

local errors = require("weir.errors")
local flat = require("weir.asyncapi.flat")
local limits = require("weir.asyncapi.limits")
local pointer = require("weir.asyncapi.pointer")

local as_table, set_of = flat.as_table, flat.set_of

-- Pairs of schemas that are compared, and that are within each other, at most: documents may be hostile.
local MOST, DEEPEST = 20000, 400
-- Values within schemas that are looked at to see whether they are the same, at most; of more, it is not known.
local MOST_VALUES = 1000000

local Comparison = {}
Comparison.__index = Comparison

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
    local base = flat.together(self, a, had == nil and true or had)
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
  local given, shut = flat.types(a), flat.of(self:reversed(), self.after, out, 0)
  if shut == false then
    return
  end
  for name in pairs(flat.types(as_table(shut))) do
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
    local more = b[branch] ~= nil and self:compare(flat.together(self, a, had), b[branch]) or {}
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
    local more = self:compare(flat.together(self, a, each), b)
    for _, one in ipairs(more) do
      local lost = one.kind == "alternatives" and one.path == ""
      add_all(found, "", { lost and { path = "", kind = "alternative", detail = i } or one })
    end
  end
end

function Comparison:keywords(found, a, b)
  limits.types(found, a, b)
  limits.values(found, a, b)
  limits.limits(found, a, b)
  self:alternatives(found, a, b)
  self:negation(found, a, b)
  self:condition(found, a, b)
  local before, after = flat.types(a), flat.types(b)
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
  a, b = flat.of(self, self.before, a, 0), pointer.resolve(self.after, b)
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
