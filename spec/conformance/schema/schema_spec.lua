-- The same schemas and values, validated by ajv: both must agree about each.

local cjson = require("cjson")
local schema = require("weir.schema")

local HERE = "spec/conformance/schema"

-- Values that most keywords tell apart. Empty tables are left out: Lua has one, JSON two.
local VALUES = [=[
  [null, true, false, 0, 1, -1, 1.5, 2, 3, 10, 100, 1e10, "", "a", "ab", "abc", "äöü", "2026-11-20",
   "2026-02-29", "2024-02-29T23:59:60Z", "2026-11-20T10:00:00+01:00", "10:00:00Z", "a@b.example", "a@@b",
   "127.0.0.1", "256.0.0.1", "::1", "1::2::3", "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "http://a.example/x?y#z",
   "no uri", "a-b.example", "-a", [1], [1, 2], [1, 1], [1, 2, 3, 4], ["a", 1], [null], [[1], [1]], [{"a": 1}, {"a": 1}],
   {"a": 1}, {"a": "x"}, {"a": null}, {"b": 1}, {"a": 1, "b": 2}, {"a": 1, "b": 2, "c": 3}, {"ab": 1, "xy": "z"},
   {"a": {"a": {"a": 1}}}, {"a": {"a": {"a": "x"}}}, {"list": [{"a": 1}, {"a": 0}]}, {"kind": "x", "x": 1},
   {"kind": "x"}, {"kind": "y", "y": "text"}]
]=]

local SCHEMAS = [=[
  [true, false, {"type": "string"}, {"type": "integer"}, {"type": "number"}, {"type": ["string", "null"]},
   {"type": "boolean"}, {"type": "null"}, {"type": "array"}, {"type": "object"},
   {"enum": [1, "a", null, [1, 2], {"a": 1}]}, {"const": {"a": 1, "b": 2}}, {"const": null},
   {"minimum": 1}, {"maximum": 1.5}, {"exclusiveMinimum": 1}, {"exclusiveMaximum": 10}, {"multipleOf": 0.5},
   {"multipleOf": 3}, {"minLength": 2}, {"maxLength": 3}, {"pattern": "^a"}, {"pattern": "[0-9]{4}"},
   {"format": "date"}, {"format": "date-time"}, {"format": "time"}, {"format": "email"}, {"format": "ipv4"},
   {"format": "ipv6"}, {"format": "uuid"}, {"format": "uri"}, {"format": "hostname"},
   {"minItems": 2}, {"maxItems": 1}, {"uniqueItems": true}, {"items": {"type": "integer"}},
   {"prefixItems": [{"type": "string"}], "items": {"type": "integer"}}, {"items": false},
   {"contains": {"const": 1}}, {"contains": {"const": 1}, "minContains": 2}, {"contains": true, "maxContains": 2},
   {"required": ["a"]}, {"minProperties": 2}, {"maxProperties": 1},
   {"propertyNames": {"maxLength": 1}},
   {"properties": {"a": {"type": "integer"}}},
   {"properties": {"a": {"type": "integer"}}, "additionalProperties": false},
   {"patternProperties": {"^a": {"type": "integer"}}, "additionalProperties": {"type": "string"}},
   {"dependentRequired": {"a": ["b"]}}, {"dependentSchemas": {"a": {"required": ["b"]}}},
   {"allOf": [{"minimum": 1}, {"maximum": 2}]}, {"anyOf": [{"minimum": 3}, {"type": "string"}]},
   {"oneOf": [{"minimum": 2}, {"maximum": 2}]}, {"not": {"type": "object"}},
   {"if": {"required": ["kind"]}, "then": {"required": ["x"]}, "else": {"type": "string"}},
   {"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties": {"a": {"anyOf": [
     {"type": "integer"}, {"$ref": "#/$defs/node"}]}}}}},
   {"properties": {"list": {"items": {"properties": {"a": {"exclusiveMinimum": 0}}}}}},
   {"oneOf": [{"properties": {"kind": {"const": "x"}, "x": {"type": "integer"}}, "required": ["kind", "x"]},
     {"properties": {"kind": {"const": "y"}, "y": {"type": "string"}}, "required": ["kind", "y"]}]}]
]=]

local function installed()
  local file = io.open(HERE .. "/node_modules/ajv/package.json")
  if file then
    file:close()
  end
  return file ~= nil
end

-- What ajv says: for each schema a list of booleans.
local function peer(cases)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write(cases)
  file:close()
  local pipe = assert(io.popen(("node %s/validate.mjs < %s"):format(HERE, path)))
  local text = pipe:read("a")
  pipe:close()
  os.remove(path)
  return cjson.decode(text)
end

describe("weir.schema and ajv", function()
  if not installed() then
    pending("agree (npm ci was not run in " .. HERE .. ")")
    return
  end
  if not pcall(require, "rex_pcre2") then
    pending("agree (the module rex_pcre2 is missing)")
    return
  end

  it("agree about every schema and value", function()
    local schemas, values = cjson.decode(SCHEMAS), cjson.decode(VALUES)
    local texts = {}
    for i, each in ipairs(schemas) do
      texts[i] = ('{"schema": %s, "values": %s}'):format(cjson.encode(each), VALUES)
    end
    local expected = peer("[" .. table.concat(texts, ",") .. "]")
    assert.equal(#schemas, #expected)
    for i, each in ipairs(schemas) do
      local ours = schema.from_json(each)
      for j, value in ipairs(values) do
        local what = ("%s: %s"):format(cjson.encode(each), cjson.encode(value))
        assert.equal(expected[i][j], ours:validate(value) == true, what)
      end
    end
  end)
end)
