--- Schemas of weir in the dialect of AsyncAPI.
--
-- What weir validates by is JSON Schema 2020-12. The schema object of AsyncAPI is draft 07 with additions, where a few
-- things are said in other words; they are translated, so that the document means what the application does. References
-- into the schema itself become references into the document that it is put in.
-- @module weir.asyncapi.schema

local ONE = { additionalProperties = true, contains = true, ["else"] = true, ["if"] = true, items = true,
  ["not"] = true, propertyNames = true, ["then"] = true }
local LIST = { allOf = true, anyOf = true, oneOf = true, prefixItems = true }
local NAMED = { ["$defs"] = true, definitions = true, dependentSchemas = true, patternProperties = true,
  properties = true }

local convert

local function each(values, base)
  local result = {}
  for key, value in pairs(values) do
    result[key] = convert(value, base)
  end
  return result
end

local function reference(target, base)
  if target:sub(1, 1) ~= "#" then
    return target
  end
  return base .. target:sub(2):gsub("/prefixItems/", "/items/"):gsub("/dependentSchemas/", "/dependencies/")
end

-- Draft 07 knows nothing beside a reference: what is there goes with it into `allOf`.
local function add_reference(result, target)
  local pure = true
  for key in pairs(result) do
    pure = pure and (key == "$defs" or key == "definitions")
  end
  if pure and next(result) == nil then
    result["$ref"] = target
  else
    result.allOf = result.allOf or {}
    table.insert(result.allOf, 1, { ["$ref"] = target })
  end
  return result
end

local function add_lists(result, schema, base)
  if schema.prefixItems then
    result.prefixItems = nil
    result.items = each(schema.prefixItems, base)
    result.additionalItems = schema.items ~= nil and convert(schema.items, base) or nil
    if schema.items == false then
      result.additionalItems = false
    end
  end
  if schema.minContains == 0 then
    result.contains = nil
  end
end

local function add_dependencies(result, schema, base)
  local dependencies = {}
  for name, required in pairs(schema.dependentRequired or {}) do
    dependencies[name] = { required = required }
  end
  for name, value in pairs(schema.dependentSchemas or {}) do
    local converted = convert(value, base)
    dependencies[name] = dependencies[name] and { allOf = { dependencies[name], converted } } or converted
  end
  result.dependentRequired, result.dependentSchemas = nil, nil
  if next(dependencies) then
    result.dependencies = dependencies
  end
end

function convert(schema, base)
  if type(schema) ~= "table" then
    return schema
  end
  local result = {}
  for keyword, value in pairs(schema) do
    if ONE[keyword] then
      result[keyword] = convert(value, base)
    elseif (LIST[keyword] or NAMED[keyword]) and type(value) == "table" then
      result[keyword] = each(value, base)
    elseif keyword ~= "$ref" and keyword ~= "$id" and keyword ~= "$schema" then
      result[keyword] = value
    end
  end
  add_lists(result, schema, base)
  add_dependencies(result, schema, base)
  if schema["$ref"] then
    add_reference(result, reference(schema["$ref"], base))
  end
  return result
end

--- Translates a schema.
-- @tparam table|boolean definition a JSON Schema 2020-12, as `schema:to_json()` returns it; not changed
-- @tparam string base where it will be: "#/components/schemas/Order"
-- @treturn table|boolean
return function(definition, base)
  return convert(definition, base)
end
