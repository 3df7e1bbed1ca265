--- Schemas of headers: as `weir.schema`, for what is all texts.
--
-- Names are matched in lower case, as messages have them. A header whose schema asks for an integer, a number or a
-- boolean is validated as the value that its text is, if it is one. Headers that weir writes itself are not looked at
-- unless the schema names them, so that `additionalProperties = false` means the headers of the application.
-- @module weir.app.header_schema

local errors = require("weir.errors")
local schema = require("weir.schema")

local M = {}

local HeaderSchema = { __name = "weir.app.header_schema" }
HeaderSchema.__index = HeaderSchema

-- What a header can be.
local SIMPLE = { string = true, integer = true, number = true, boolean = true }

-- Headers that weir writes itself; all others of them begin with "weir-".
local OWN = { ["content-type"] = true, ["message-id"] = true, ["correlation-id"] = true, ["reply-to"] = true,
  ["partition-key"] = true, traceparent = true, tracestate = true }

local function is_own(name)
  return OWN[name] or name:sub(1, 5) == "weir-"
end

local function wrong(message, ...)
  error("schema: " .. message:format(...), 0)
end

-- --- making ---------------------------------------------------------------------------------------

-- The types of the values that a schema names; nil where it names none.
local function types_of(definition)
  local named = definition.type
  if named ~= nil then
    return type(named) == "table" and named or { named }
  end
  local values = definition.const ~= nil and { definition.const } or definition.enum
  local list = values and {}
  for i, value in ipairs(values or {}) do
    list[i] = type(value)
  end
  return list
end

-- What the text of a header is read as: a set of types; nil where it stays a text.
local function reading_of(name, definition)
  local types = type(definition) == "table" and types_of(definition)
  if not types then
    return nil
  end
  local set = {}
  for _, each in ipairs(types) do
    if not SIMPLE[each] then
      wrong("properties.%s: a header is a text, or what a text can say: an integer, a number or a boolean; not %s",
        name, each)
    end
    set[each] = true
  end
  return not set.string and set or nil
end

local function lower_case(names)
  local result = {}
  for i, name in ipairs(names) do
    result[i] = tostring(name):lower()
  end
  table.sort(result)
  return result
end

local function lower_properties(properties)
  local result = {}
  for name, each in pairs(properties) do
    local lower = name:lower()
    if result[lower] ~= nil then
      wrong("properties: '%s' is there twice; the names of headers have no case", lower)
    end
    result[lower] = each
  end
  return result
end

--- Makes one of a schema, or of what describes one.
-- @param description as for `weir.schema`
-- @return it; raises a text when it is none
function M.new(description)
  local made = schema.is(description) and description or schema(description)
  local definition = made:to_json()
  if type(definition) ~= "table" or (definition.type ~= nil and definition.type ~= "object") then
    wrong("headers are an object: { properties = { name = \"string\" } }")
  end
  definition.type = "object"
  definition.properties = lower_properties(definition.properties or {})
  definition.required = definition.required and lower_case(definition.required)
  local readings = {}
  for name, each in pairs(definition.properties) do
    readings[name] = reading_of(name, each)
  end
  return setmetatable({ schema = schema.from_json(definition), named = definition.properties, readings = readings },
    HeaderSchema)
end

--- Whether a value is one.
function M.is(value)
  return getmetatable(value) == HeaderSchema
end

-- --- validating -----------------------------------------------------------------------------------

-- The value of a text, where it is one of these types; else the text.
local function read(text, types)
  if types.boolean and (text == "true" or text == "false") then
    return text == "true"
  elseif (types.integer or types.number) and text:find("^%-?%d+%.?%d*[eE]?[+-]?%d*$") then
    return tonumber(text) or text
  end
  return text
end

--- Validates the headers of a message.
-- @tparam table headers names in lower case to texts
-- @treturn boolean true; or nil and an error of the code "schema", as that of `weir.schema`; its `part` is "headers"
function HeaderSchema:validate(headers)
  local values = {}
  for name, value in pairs(headers) do
    if self.named[name] ~= nil or not is_own(name) then
      local types = self.readings[name]
      if types then
        value = read(value, types)
      end
      values[name] = value
    end
  end
  local ok, err = self.schema:validate(values)
  if ok then
    return true
  end
  return nil, errors.with(err, { message = "headers: " .. err.message, part = "headers" })
end

--- The JSON Schema, as a table of the caller's own: its names are in lower case.
function HeaderSchema:to_json()
  return self.schema:to_json()
end

function HeaderSchema:__tostring()
  return ("weir.app.header_schema(%s)"):format(self.schema.title or "untitled")
end

return M
