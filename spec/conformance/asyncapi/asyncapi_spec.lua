-- What weir writes, read by the official parser of AsyncAPI.

local asyncapi = require("weir.asyncapi")
local cjson = require("cjson")
local codec = require("weir.codec")
local support = require("spec.lua.asyncapi.support")
local weir = require("weir")

local HERE = "spec/conformance/asyncapi"

local function installed()
  local file = io.open(HERE .. "/node_modules/@asyncapi/parser/package.json")
  return file ~= nil and file:close()
end

-- What the parser says of each text.
local function parse(texts)
  local path = os.tmpname()
  local file = assert(io.open(path, "wb"))
  file:write(cjson.encode(texts))
  file:close()
  local pipe = assert(io.popen(("LD_PRELOAD= node %s/validate.mjs <%s"):format(HERE, path)))
  local answer = pipe:read("a")
  pipe:close()
  os.remove(path)
  return cjson.decode(answer)
end

local function problems_of(answer)
  local lines = {}
  for i, each in ipairs(answer.problems) do
    lines[i] = ("%s %s: %s (%s)"):format(each.severity, each.path, each.message, each.code)
  end
  if not answer.valid then
    lines[#lines + 1] = "no document"
  end
  return table.concat(lines, "\n")
end

local function keys_of(object)
  local keys = {}
  for key in pairs(object) do
    keys[#keys + 1] = key
  end
  table.sort(keys)
  return keys
end

local function sorted(list)
  table.sort(list)
  return list
end

describe("the official parser", function()
  local makers, parsed = {}, nil

  -- The document of a maker, and what the parser says of it as JSON and as YAML. It is started once, for all of them.
  local function document_of(i)
    if not parsed then
      local texts = {}
      parsed = { documents = {} }
      for j, make in ipairs(makers) do
        local document = assert(asyncapi.document(make()))
        parsed.documents[j] = document
        texts[2 * j - 1], texts[2 * j] = assert(asyncapi.to_json(document)), assert(asyncapi.to_yaml(document))
      end
      parsed.answers = parse(texts)
    end
    return parsed.documents[i], { parsed.answers[2 * i - 1], parsed.answers[2 * i] }
  end

  local function accepts(what, make)
    local i = #makers + 1
    makers[i] = make
    it("has nothing to say against the document of " .. what, function()
      if not installed() then
        return pending("@asyncapi/parser is not installed: spec/setup test")
      end
      local document, answers = document_of(i)
      assert.equal(2, #answers)
      for _, answer in ipairs(answers) do
        assert.equal("", problems_of(answer))
        assert.same(keys_of(document.channels), sorted(answer.channels))
        assert.same(keys_of(document.operations), sorted(answer.operations))
      end
    end)
  end

  accepts("an application that has everything", support.everything)

  accepts("an application that has nothing", function()
    return support.app(support.nothing)
  end)

  accepts("an application with names that are no identifiers", function()
    return support.app(function(app)
      local targets = { "a/b", "a b", "a_b", "{a}", "}{a", "a}", "ü", "\255", "a_-b", "*", ">", "a.*.*.>", "$ref" }
      table.insert(targets, "{a.*.b}.{c}")
      for _, target in ipairs(targets) do
        app:subscriber(target, { schema = { title = target, type = "string" }, dead_letter = target .. "-dead" },
          support.nothing)
      end
    end)
  end)

  accepts("an application with every keyword of a schema", function()
    return support.app(function(app)
      app:subscriber("all", {
        schema = weir.schema({
          title = "All",
          ["$id"] = "https://shop.example/all",
          ["$schema"] = "https://json-schema.org/draft/2020-12/schema",
          ["$comment"] = "x",
          type = { "object", "array", "null" },
          properties = { a = { enum = { 1, "a", codec.null } }, b = { const = { 1 } } },
          patternProperties = { ["^x"] = "string" },
          propertyNames = { minLength = 1 },
          additionalProperties = false,
          dependentRequired = { a = { "b" } },
          dependentSchemas = { a = { maxProperties = 3 }, b = { minProperties = 1 } },
          prefixItems = { "integer", { ["$ref"] = "#/$defs/positive" } },
          items = { multipleOf = 0.5, exclusiveMinimum = 0, maximum = 1e30 },
          contains = { type = "integer" },
          minContains = 0,
          uniqueItems = true,
          ["if"] = { required = { "a" } },
          ["then"] = { required = { "b" } },
          ["else"] = true,
          ["not"] = { type = "string" },
          anyOf = { { type = "object" }, true },
          oneOf = { { ["$ref"] = "#/$defs/positive", title = "beside" }, { type = "object" } },
          examples = { { a = 1, b = { 1 } } },
          default = {},
          ["$defs"] = { positive = { type = "integer", minimum = 1 } },
          ["x-own"] = { anything = true },
        }),
      }, support.nothing)
    end)
  end)

  accepts("an application on durable streams, with schemas of headers and publishers without a destination", function()
    local app = weir.app("streams", "1.0.0")
    app:broker("durable+https://streams.example/base")
    app:broker("nats://h.example:4222")
    local headers = { title = "Meta", properties = { Tenant = "string", n = { type = "integer?", minimum = 1 } } }
    app:subscriber("in", { header_schema = headers, reply = "both" }, support.nothing)
    app:subscriber("both", support.nothing)
    app:subscriber({ name = "a", group = "g" }, { broker = "nats", reply = { to = true, header_schema = headers } },
      support.nothing)
    app:publisher({ to = "out", header_schema = {
      properties = { n = "string" }, additionalProperties = false, propertyNames = { maxLength = 5 } } })
    app:publisher({ name = "anything" })
    app:publisher({ broker = "nats", schema = { title = "Any", type = "string" } })
    return app
  end)

  it("does say so when something is wrong", function()
    if not installed() then
      return pending("@asyncapi/parser is not installed: spec/setup test")
    end
    local document = assert(asyncapi.document(support.everything()))
    document.operations["send.orders.eu.new"].action = "shout"
    assert.matches("action", problems_of(parse({ (asyncapi.to_json(document)) })[1]))
  end)
end)
