-- Schemas by chance, and values by chance: what narrow finds, and what the validator says.

local convert = require("weir.asyncapi.schema")
local narrow = require("weir.asyncapi.narrow")
local codec = require("weir.codec")
local schema = require("weir.schema")

local random = math.random
local NAMES = { "p", "q", "pp" }

local function chance(share)
  return random() < share
end

local function pick(list)
  return list[random(#list)]
end

-- Never an empty table, which is an array and an object.
local function value(depth)
  local kind = random(depth > 0 and 7 or 5)
  if kind <= 2 then
    return random(0, 8) / kind
  elseif kind == 3 then
    return pick({ "a", "ab", "abc", "" })
  elseif kind <= 5 then
    return kind == 4
  end
  local result = kind == 6 and { value(depth - 1) } or { other = 1 }
  for _, name in ipairs(kind == 7 and NAMES or {}) do
    result[name] = chance(0.5) and value(depth - 1) or nil
  end
  return result
end

local any -- of a depth

-- Keywords with what makes their values; those of the second list hold schemas.
local SIMPLE = {
  type = function()
    return pick({ "string", "integer", "number", "object", "array", "boolean", { "string", "null" } })
  end,
  minimum = function() return random(0, 3) end,
  exclusiveMinimum = function() return random(0, 2) end,
  maximum = function() return random(0, 4) end,
  exclusiveMaximum = function() return random(1, 5) end,
  multipleOf = function() return pick({ 0.5, 1, 2 }) end,
  minLength = function() return random(0, 2) end,
  maxLength = function() return random(0, 3) end,
  enum = function() return { value(0), value(0) } end,
  const = function() return value(0) end,
  minItems = function() return random(0, 2) end,
  maxItems = function() return random(0, 2) end,
  uniqueItems = function() return true end,
  minProperties = function() return random(0, 2) end,
  required = function() return { pick(NAMES) } end,
  dependentRequired = function() return { p = { "q" } } end,
  propertyNames = function() return { maxLength = random(1, 2) } end,
  minContains = function() return random(1, 2) end,
  maxContains = function() return random(1, 2) end,
}
local NESTED = {
  additionalProperties = function(depth) return any(depth) end,
  items = function(depth) return any(depth) end,
  prefixItems = function(depth) return { any(depth), any(depth) } end,
  contains = function(depth) return any(depth) end,
  ["not"] = function(depth) return any(depth) end,
  ["if"] = function(depth) return any(depth) end,
  ["then"] = function(depth) return any(depth) end,
  ["else"] = function(depth) return any(depth) end,
  allOf = function(depth) return { any(depth), any(depth) } end,
  anyOf = function(depth) return { any(depth), any(depth) } end,
  dependentSchemas = function(depth) return { p = any(depth) } end,
}

local function sorted(set)
  local names = {}
  for name in pairs(set) do
    names[#names + 1] = name
  end
  table.sort(names)
  return names
end

local SIMPLE_NAMES, NESTED_NAMES = sorted(SIMPLE), sorted(NESTED)

function any(depth)
  if chance(0.1) then
    return chance(0.7)
  end
  local result = {}
  for _, name in ipairs(SIMPLE_NAMES) do
    result[name] = chance(name == "type" and 0.6 or 0.1) and SIMPLE[name]() or nil
  end
  for _, name in ipairs(depth > 0 and NESTED_NAMES or {}) do
    if chance(0.12) then
      result[name] = NESTED[name](depth - 1)
    end
  end
  if depth > 0 and chance(0.4) then
    result.properties = { p = any(depth - 1), q = any(depth - 1) }
  end
  return result
end

local function object(depth)
  local made = any(depth)
  return type(made) == "table" and made or {}
end

-- The schema with one keyword of another: not with new properties, which are left out of account on purpose.
local function changed(given)
  local result, other = {}, object(2)
  other.properties = nil
  for name, each in pairs(given) do
    result[name] = each
  end
  local names, more = sorted(given), sorted(other)
  if #names > 0 and chance(0.5) then
    result[pick(names)] = nil
  end
  if #more > 0 then
    local name = pick(more)
    result[name] = other[name]
  end
  return result
end

describe("the comparison of schemas", function()
  before_each(function()
    math.randomseed(20261120)
  end)

  local function found(one, other)
    return narrow({ x = one }, one, { x = other }, other)
  end

  it("finds nothing where nothing has changed", function()
    for _ = 1, 500 do
      local first = schema.from_json(object(2))
      local second = schema.from_json(first:to_json())
      assert.same({}, found(convert(first:to_json(), "#/x"), convert(second:to_json(), "#/x")))
    end
  end)

  it("finds something wherever a value that was taken is not taken any more", function()
    local fits = 0
    for _ = 1, 700 do
      local one = object(2)
      local first, second = schema.from_json(one), schema.from_json(changed(one))
      if #found(convert(first:to_json(), "#/x"), convert(second:to_json(), "#/x")) == 0 then
        fits = fits + 1
        for _ = 1, 100 do
          local each = value(2)
          if first:validate(each) and not second:validate(each) then
            local json = codec.get("json").encode
            error(("%s\n%s\n%s"):format(json(first:to_json()), json(second:to_json()), json({ each })))
          end
        end
      end
    end
    assert.is_true(fits > 200, fits)
  end)

  it("is bounded", function()
    local wide, wider = { properties = {} }, { properties = {} }
    for i = 1, 20000 do
      wide.properties["p" .. i], wider.properties["p" .. i] = { const = i }, { enum = { i, i + 1 } }
    end
    assert.equal("too_large", select(2, pcall(found, wide, wider)).code)
    wide.properties.p1 = nil
    assert.same({}, found(wide, wider))
    local deep, deeper = { type = "string" }, { type = "integer" }
    for _ = 1, 5000 do
      deep, deeper = { items = deep }, { items = deeper }
    end
    assert.equal("too_large", select(2, pcall(found, deep, deeper)).code)
  end)
end)
