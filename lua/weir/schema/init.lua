--- Schemas: one description that validates messages and documents them.
--
--     local Order = weir.schema({
--       title = "Order",
--       properties = {
--         id = "string",
--         quantity = { type = "integer", minimum = 1 },
--         note = "string?",
--       },
--     })
--     local ok, err = Order:validate({ id = "a", quantity = 0 })
--     -- err.message: "quantity: must be at least 1, not 0"
--
-- A description is a JSON Schema (https://json-schema.org, draft 2020-12) written as a Lua table, with three short
-- cuts: where a schema is expected, a string is a type; a type that ends in "?" makes a property optional, and all
-- others are required, unless the table has a list `required`; a table with `properties` or `items` needs no `type`.
-- A schema made before can stand anywhere in another. `schema.from_json(text or table)` reads a JSON Schema as it is
-- meant there, where every property is optional that is not named in `required`. A table that contains itself describes
-- values that nest, and is a reference in JSON.
--
-- Values are as codecs decode them: null is `codec.null`, and an empty table is an empty array as well as an empty
-- object. Not supported, and refused: references to other documents, `$anchor`, `$dynamicRef`, `unevaluated...`.
-- `pattern` needs the module `rex_pcre2` (Debian: lua-rex-pcre2).
-- @module weir.schema

local compile = require("weir.schema.compile")
local errors = require("weir.errors")
local nearest = require("weir.nearest")

local schema = {}

local Schema = { __name = "weir.schema" }
Schema.__index = Schema

local TYPES = { string = true, number = true, integer = true, boolean = true, object = true, array = true, null = true }

-- What a keyword holds: a schema, a list of them, a table of names to them; or anything else.
local ONE, LIST, NAMED, PLAIN = 1, 2, 3, 4
local KEYWORDS = {
  additionalProperties = ONE,
  contains = ONE,
  ["else"] = ONE,
  ["if"] = ONE,
  items = ONE,
  ["not"] = ONE,
  propertyNames = ONE,
  ["then"] = ONE,
  allOf = LIST,
  anyOf = LIST,
  oneOf = LIST,
  prefixItems = LIST,
  ["$defs"] = NAMED,
  definitions = NAMED,
  dependentSchemas = NAMED,
  patternProperties = NAMED,
  properties = NAMED,
}
for keyword in
  ([[ $comment $id $ref $schema const default dependentRequired deprecated description enum examples
  exclusiveMaximum exclusiveMinimum format maxContains maxItems maxLength maxProperties maximum minContains minItems
  minLength minProperties minimum multipleOf pattern readOnly required title type uniqueItems writeOnly contentEncoding
  contentMediaType externalDocs ]]):gmatch("%S+")
do
  KEYWORDS[keyword] = PLAIN
end

local REFUSED = {
  ["$anchor"] = true,
  ["$dynamicAnchor"] = true,
  ["$dynamicRef"] = true,
  ["$recursiveRef"] = true,
  ["$recursiveAnchor"] = true,
  unevaluatedItems = true,
  unevaluatedProperties = true,
  dependencies = true,
  contentSchema = true,
}

local function sorted(set)
  local names = {}
  for name in pairs(set) do
    names[#names + 1] = name
  end
  table.sort(names)
  return names
end

-- Deeper descriptions are refused, so that none can overflow the stack; and larger ones, which are tables that stand in
-- many places of tables that stand in many places.
local MOST_NESTED, MOST_PARTS = 200, 100000

-- --- places ---------------------------------------------------------------------------------------

-- Where in a description something is: `path` for people, `pointer` (RFC 6901) for references, `open` the descriptions
-- that it is in, with their pointers, `parts` counts all of them.
local function child_of(at, name, token)
  return {
    path = (at.path == "" and "" or at.path .. ".") .. tostring(name),
    pointer = at.pointer .. "/" .. tostring(token or name):gsub("~", "~0"):gsub("/", "~1"):gsub("%%", "%%25"),
    open = at.open,
    parts = at.parts,
    depth = at.depth + 1,
  }
end

local function wrong(at, message)
  error({ schema_error = (at.path == "" and "" or at.path .. ": ") .. message }, 0)
end

local function check_size(at)
  at.parts.count = at.parts.count + 1
  if at.depth > MOST_NESTED then
    wrong({ path = at.path:sub(1, 40) .. "..." }, ("a schema nests at most %d deep"):format(MOST_NESTED))
  elseif at.parts.count > MOST_PARTS then
    wrong({ path = at.path:sub(1, 40) .. "..." }, ("a schema has at most %d parts; make one of what is there often, and"
      .. " use that"):format(MOST_PARTS))
  end
end

-- --- descriptions ---------------------------------------------------------------------------------

local normalize

local function type_of(name, at)
  if not TYPES[name] then
    local meant = nearest(name, sorted(TYPES))
    local hint = meant and (" (did you mean '%s'?)"):format(meant) or ""
    wrong(at, ("unknown type '%s'%s; known are: %s"):format(tostring(name), hint, table.concat(sorted(TYPES), ", ")))
  end
  return name
end

local function check_keyword(name, at, lua)
  if type(name) ~= "string" then
    wrong(at, ("a schema's keys are keywords, not %s; properties belong into 'properties'"):format(tostring(name)))
  elseif REFUSED[name] then
    wrong(at, ("the keyword '%s' is not supported"):format(name))
  elseif lua and not KEYWORDS[name] and name:sub(1, 2) ~= "x-" then
    local meant = nearest(name, sorted(KEYWORDS))
    local hint = meant and (" (did you mean '%s'?)"):format(meant) or ""
    wrong(at, ("unknown keyword '%s'%s; properties belong into 'properties'"):format(name, hint))
  end
end

-- A copy of a value that is no schema.
local function plain(value, at)
  if type(value) ~= "table" then
    return value
  elseif at.open[value] then
    wrong(at, "the value contains itself")
  end
  check_size(at)
  at.open[value] = at.pointer
  local result = {}
  for key, each in pairs(value) do
    result[key] = plain(each, child_of(at, key))
  end
  at.open[value] = nil
  return result
end

-- Whether there are references in a plain schema.
local function has_references(definition, seen)
  if type(definition) ~= "table" or seen[definition] then
    return false
  elseif definition["$ref"] ~= nil then
    return true
  end
  seen[definition] = true
  for name, value in pairs(definition) do
    local kind = KEYWORDS[name] or PLAIN
    for _, each in pairs(kind == ONE and { value } or kind ~= PLAIN and value or {}) do
      if has_references(each, seen) then
        return true
      end
    end
  end
  return false
end

-- A plain schema as it is where it stands now: its references lead into itself there, too.
local function moved(definition, pointer)
  if type(definition) ~= "table" then
    return definition
  end
  local result = {}
  for name, value in pairs(definition) do
    local kind = KEYWORDS[name] or PLAIN
    if kind == ONE then
      value = moved(value, pointer)
    elseif kind ~= PLAIN then
      local list = {}
      for key, each in pairs(value) do
        list[key] = moved(each, pointer)
      end
      value = list
    elseif name == "$ref" then
      value = "#" .. pointer .. value:sub(2)
    end
    result[name] = value
  end
  return result
end

local function children(kind, value, at, lua)
  if kind == ONE then
    return (normalize(value, at, lua))
  elseif type(value) ~= "table" then
    wrong(at, "a table of schemas is expected, not a " .. type(value))
  end
  local result = {}
  for key, each in pairs(value) do
    local token = kind == LIST and type(key) == "number" and ("%d"):format(key - 1) or key
    result[key] = normalize(each, child_of(at, key, token), lua)
  end
  return result
end

-- The properties of a description in Lua, and the names of those that must be there.
local function properties_of(value, at)
  local result, required = {}, {}
  if type(value) ~= "table" then
    wrong(at, "a table of schemas is expected, not a " .. type(value))
  end
  for name, each in pairs(value) do
    local optional
    result[name], optional = normalize(each, child_of(at, name), true)
    if not optional then
      required[#required + 1] = name
    end
  end
  table.sort(required)
  return result, required
end

local function check_types(value, at)
  if type(value) == "table" then
    for _, each in ipairs(value) do
      type_of(each, at)
    end
    return value
  end
  return type_of(value, at)
end

-- The type of a description in Lua without the mark that it may be left out, and whether it has the mark.
local function marked_type(value)
  if type(value) == "string" and value:sub(-1) == "?" then
    return value:sub(1, -2), true
  end
  return value, false
end

-- The keywords of a description. The second result: whether its type ends in "?".
local function normalize_table(value, at, lua)
  local result, optional = {}, false
  for name, each in pairs(value) do
    check_keyword(name, at, lua)
    local kind, inner = KEYWORDS[name] or PLAIN, child_of(at, name)
    if name == "type" then
      if lua then
        each, optional = marked_type(each)
      end
      result.type = check_types(each, inner)
    elseif name == "properties" and lua then
      local required
      result.properties, required = properties_of(each, inner)
      if #required > 0 and value.required == nil then
        result.required = required
      end
    elseif kind == PLAIN then
      result[name] = plain(each, inner)
    else
      result[name] = children(kind, each, inner, lua)
    end
  end
  if lua and result.type == nil then
    result.type = result.properties and "object" or (result.items ~= nil and "array") or nil
  end
  return result, optional
end

-- Makes a plain JSON Schema of a description. The second result: whether it ended in "?".
function normalize(value, at, lua)
  if getmetatable(value) == Schema then
    return value.refers and moved(value.definition, at.pointer) or value.definition
  elseif type(value) == "boolean" then
    return value
  elseif type(value) == "string" and lua then
    local name, optional = marked_type(value)
    return { type = type_of(name, at) }, optional
  elseif type(value) ~= "table" then
    wrong(at, "a schema is a table" .. (lua and ", or the name of a type" or "") .. ", not a " .. type(value))
  elseif at.open[value] then
    return { ["$ref"] = "#" .. at.open[value] }, lua and select(2, marked_type(value.type))
  end
  check_size(at)
  at.open[value] = at.pointer
  local result, optional = normalize_table(value, at, lua)
  at.open[value] = nil
  return result, optional
end

local function build(description, lua, level)
  local ok, definition = pcall(normalize, description, {
    path = "",
    pointer = "",
    open = {},
    parts = { count = 0 },
    depth = 0,
  }, lua)
  local check
  if ok then
    ok, check = pcall(compile, definition)
  end
  if not ok then
    local err = check or definition
    if type(err) == "table" and err.schema_error then
      error("schema: " .. err.schema_error, level + 1)
    end
    error(err, 0)
  end
  local title = type(definition) == "table" and definition.title or nil
  local refers = has_references(definition, {})
  return setmetatable({ definition = definition, check = check, title = title, refers = refers }, Schema)
end

--- Reads a JSON Schema: a JSON text, or a table as it is decoded.
-- @tparam string|table document
-- @treturn schema; raises when it is none
function schema.from_json(document)
  if type(document) == "string" then
    local value, err = require("weir.codec").get("json").decode(document)
    if value == nil then
      error("schema: " .. tostring(err), 2)
    end
    document = value
  end
  return build(document, false, 2)
end

--- Whether a value is a schema.
function schema.is(value)
  return getmetatable(value) == Schema
end

--- Validates a value.
-- @param value as a codec decodes it
-- @treturn boolean true; or nil and an error of the code "schema": `err.path` is the first field that is wrong
--   ("lines[2].quantity"), `err.problems` a list of all (at most 8) with `path`, `keyword` and `message`
function Schema:validate(value)
  local problems = self.check(value)
  if not problems then
    return true
  end
  local texts = {}
  for i, problem in ipairs(problems) do
    texts[i] = problem.path == "" and problem.message or problem.path .. ": " .. problem.message
  end
  local what = self.title and ("not a valid %s: "):format(self.title) or ""
  local context = { path = problems[1].path, problems = problems, schema = self.title }
  return nil, errors.new("schema", what .. table.concat(texts, "; "), context)
end

local function copy(value)
  if type(value) ~= "table" then
    return value
  end
  local result = {}
  for key, each in pairs(value) do
    result[key] = copy(each)
  end
  return result
end

--- The JSON Schema, as a table of the caller's own.
function Schema:to_json()
  return copy(self.definition)
end

function Schema:__tostring()
  return ("weir.schema(%s)"):format(self.title or "untitled")
end

return setmetatable(schema, {
  --- Makes a schema of a description; raises when it is none, and names the field.
  __call = function(_, description)
    return build(description, true, 2)
  end,
})
