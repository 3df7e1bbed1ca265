local codec = require("weir.codec")
local schema = require("weir.schema")

local function problems(description, value)
  local ok, err = schema(description):validate(value)
  assert.is_nil(ok)
  assert.equal("schema", err.code)
  return err
end

local function mistake(description)
  local ok, message = pcall(schema, description)
  assert.is_false(ok)
  return message
end

describe("weir.schema", function()
  local Order = schema({
    title = "Order",
    properties = {
      id = "string",
      quantity = { type = "integer", minimum = 1 },
      note = "string?",
      lines = { items = { properties = { sku = "string", price = "number?" } } },
    },
  })

  it("accepts what fits", function()
    assert.is_true(Order:validate({ id = "a", quantity = 1, lines = {} }))
    assert.is_true(Order:validate({ id = "a", quantity = 1.0, note = "x", lines = { { sku = "x" } }, extra = 1 }))
  end)

  it("names the path of the field that is wrong", function()
    local ok, err = Order:validate({ id = "a", quantity = 1, lines = { { sku = "x" }, { sku = 7 } } })
    assert.is_nil(ok)
    assert.equal("lines[2].sku", err.path)
    assert.equal("schema: not a valid Order: lines[2].sku: must be a string, not a number", tostring(err))
  end)

  it("names every field that is wrong, up to 8", function()
    local _, err = Order:validate({ quantity = 0 })
    local paths = {}
    for i, problem in ipairs(err.problems) do
      paths[i] = problem.path .. " " .. problem.keyword
    end
    table.sort(paths)
    assert.same({ "id required", "lines required", "quantity minimum" }, paths)
    local numbers = {}
    for i = 1, 100 do
      numbers[i] = i
    end
    assert.equal(8, #problems({ items = "string" }, numbers).problems)
  end)

  it("takes a value that is no object for what it is", function()
    assert.matches("must be an object, not a string", problems({ properties = {} }, "text").message)
    assert.matches("must be an array, not an object", problems({ type = "array" }, { a = 1 }).message)
    assert.matches("must be an object, not null", problems({ type = "object" }, codec.null).message)
  end)

  it("quotes odd names of fields", function()
    assert.equal('["a b"]', problems({ properties = { ["a b"] = "string" } }, { ["a b"] = 1 }).path)
  end)

  it("requires what is not marked optional, unless a list says otherwise", function()
    local function required(description)
      return schema(description):to_json().required
    end
    assert.same({ "a" }, required({ properties = { a = "string", b = "string?", c = { type = "string?" } } }))
    assert.same({ "b" }, required({ properties = { a = "string", b = "string" }, required = { "b" } }))
    assert.is_nil(schema.from_json('{"properties": {"a": {"type": "string"}}}'):to_json().required)
  end)

  it("takes other schemas as parts", function()
    local Batch = schema({ items = Order })
    local _, err = Batch:validate({ { id = "a", quantity = 0, lines = {} } })
    assert.equal("[1].quantity", err.path)
    assert.same(Order:to_json(), Batch:to_json().items)
  end)

  it("says what it takes for an item of several alternatives", function()
    local err = problems({ anyOf = { { properties = { a = "string" } }, "integer" } }, { a = 1 })
    assert.matches("must be one of 2 alternatives; a: must be a string", err.message)
  end)

  it("reads and writes JSON Schema", function()
    local text = '{"type":"object","properties":{"n":{"$ref":"#/$defs/n"}},"$defs":{"n":{"minimum":2}},"x-other":1}'
    local made = schema.from_json(text)
    assert.is_true(made:validate({ n = 2 }))
    assert.is_nil(made:validate({ n = 1 }))
    assert.same(require("cjson").decode(text), made:to_json())
    assert.error_matches(function()
      schema.from_json("{")
    end, "schema: decode: ")
  end)

  it("bounds the depth of recursive schemas", function()
    local list = schema.from_json('{"$ref": "#/$defs/n", "$defs": {"n": {"items": {"$ref": "#/$defs/n"}}}}')
    local value = {}
    for _ = 1, 100000 do
      value = { value }
    end
    local ok, err = list:validate(value)
    assert.is_nil(ok)
    assert.matches("nests more than 200 deep", err.message)
    assert.matches("nests more", problems({ ["$ref"] = "#" }, 1).message)
  end)

  it("keeps what it returns to itself", function()
    Order:to_json().properties.id.type = "number"
    assert.equal("string", Order:to_json().properties.id.type)
  end)

  it("names mistakes in descriptions, and what was meant", function()
    local message = mistake({ properties = { a = "strin" } })
    assert.matches("properties.a: unknown type 'strin' %(did you mean 'string'%?%)", message)
    assert.matches("unknown keyword 'propertis' %(did you mean 'properties'%?%)", mistake({ propertis = {} }))
    assert.matches("unknown keyword 'id'.*properties belong into 'properties'", mistake({ id = "string" }))
    assert.matches("keys are keywords, not 1", mistake({ "string" }))
    assert.matches("'minimum' must be a number, not a string", mistake({ minimum = "1" }))
    assert.matches("'enum' must be a list", mistake({ enum = "a" }))
    assert.matches("'unevaluatedProperties' is not supported", mistake({ unevaluatedProperties = false }))
    assert.matches("leads nowhere", mistake({ ["$ref"] = "#/$defs/x" }))
    assert.matches("leads out of the schema", mistake({ ["$ref"] = "https://a.example/x.json" }))
    assert.matches("a schema is a table, or the name of a type, not a number", mistake({ items = 1 }))
    assert.matches("schema_spec.lua:%d+: schema: ", mistake({ items = 1 }))
  end)

  it("knows schemas from other values", function()
    assert.is_true(schema.is(Order))
    assert.is_false(schema.is({}))
    assert.equal("weir.schema(Order)", tostring(Order))
  end)
end)
