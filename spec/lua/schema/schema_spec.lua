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

  it("says one of what is one", function()
    for _, each in ipairs({
      { { minLength = 1 }, "", "must have at least 1 character, not 0" },
      { { minLength = 2 }, "a", "must have at least 2 characters, not 1" },
      { { maxLength = 1 }, "ab", "must have at most 1 character, not 2" },
      { { maxLength = 0 }, "ab", "must have at most 0 characters, not 2" },
      { { minItems = 1 }, {}, "must have at least 1 item, not 0" },
      { { maxItems = 1 }, { 1, 2 }, "must have at most 1 item, not 2" },
      { { minProperties = 2 }, { a = 1 }, "must have at least 2 properties, not 1" },
      { { maxProperties = 1 }, { a = 1, b = 2 }, "must have at most 1 property, not 2" },
      { { contains = "string" }, { 1 }, "must contain at least 1 item of a kind, not 0" },
      { { contains = "string", minContains = 2 }, { "a" }, "must contain at least 2 items of a kind, not 1" },
      { { contains = "string", maxContains = 1 }, { "a", "b" }, "must contain 1 item of a kind, not 2" },
      { { contains = "string", maxContains = 3 }, { 1 }, "must contain 1 to 3 items of a kind, not 0" },
      { { anyOf = { "string" } }, 1, "must be a string, not a number" },
      { { oneOf = { "string" } }, 1, "must be a string, not a number" },
    }) do
      local err = problems(each[1], each[2])
      assert.equal(each[3], err.problems[1].message)
      assert.equal(1, #err.problems)
    end
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

  it("describes values that nest by a table that contains itself", function()
    local tree = { properties = { name = "string" } }
    tree.properties["a/b~c%d"] = { anyOf = { { type = "null" }, { items = tree } } }
    local Tree = schema(tree)
    assert.is_true(Tree:validate({ name = "a", ["a/b~c%d"] = { { name = "b", ["a/b~c%d"] = codec.null } } }))
    local _, err = Tree:validate({ name = "a", ["a/b~c%d"] = { { name = 1, ["a/b~c%d"] = codec.null } } })
    assert.matches("must be one of 2 alternatives", err.message)
    local inner = Tree:to_json().properties["a/b~c%d"].anyOf[2]
    assert.same({ type = "array", items = { ["$ref"] = "#" } }, inner)
    local node = { type = "object?", properties = { value = "integer" } }
    node.properties.next = node
    local List = schema({ properties = { ["odd/~%"] = { items = node } } })
    assert.equal("#/properties/odd~1~0%25/items",
      List:to_json().properties["odd/~%"].items.properties.next["$ref"])
    assert.is_true(List:validate({ ["odd/~%"] = { { value = 1, next = { value = 2 } } } }))
    _, err = List:validate({ ["odd/~%"] = { { value = 1, next = { value = "x" } } } })
    assert.equal('["odd/~%"][1].next.value', err.path)
    assert.same(List:to_json(), schema.from_json(List:to_json()):to_json())
  end)

  it("keeps the references of a schema that is part of another", function()
    local Tree = schema({ properties = { n = "integer", kids = { items = { ["$ref"] = "#" } } },
      ["$defs"] = { x = "string" } })
    local Forest = schema({ properties = { trees = { anyOf = { "null", { items = Tree } } }, name = "string" } })
    assert.is_true(Forest:validate({ name = "a", trees = { { n = 1, kids = { { n = 2, kids = {} } } } } }))
    local _, err = Forest:validate({ name = "a", trees = { { n = 1, kids = { { n = "x", kids = {} } } } } })
    assert.matches("must be one of 2", err.message)
    assert.equal("#/properties/trees/anyOf/1/items",
      Forest:to_json().properties.trees.anyOf[2].items.properties.kids.items["$ref"])
    assert.equal("#", Tree:to_json().properties.kids.items["$ref"])
  end)

  it("refuses values that contain themselves, and what nests too deep", function()
    local cycle = {}
    cycle.a = { cycle }
    assert.matches("properties.a.default.a.1: the value contains itself",
      mistake({ properties = { a = { default = cycle } } }))
    local deep, plain = { type = "string" }, {}
    for _ = 1, 100000 do
      deep, plain = { items = deep }, { plain }
    end
    assert.matches("nests at most 200 deep", mistake(deep))
    assert.matches("nests at most 200 deep", mistake({ const = plain }))
    assert.is_true(#mistake(deep) < 300)
    local often = { type = "string" }
    for _ = 1, 40 do
      often = { properties = { a = often, b = often } }
    end
    assert.matches("has at most 100000 parts", mistake(often))
    local shared = schema({ type = "string" })
    for _ = 1, 40 do
      shared = schema({ properties = { a = shared, b = shared } })
    end
    assert.matches("must be an object", select(2, shared:validate(1)).message)
  end)

  it("keeps what it returns to itself", function()
    Order:to_json().properties.id.type = "number"
    assert.equal("string", Order:to_json().properties.id.type)
    local values = { 1, 2 }
    local made = schema({ enum = values })
    values[3] = 3
    assert.same({ 1, 2 }, made:to_json().enum)
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
