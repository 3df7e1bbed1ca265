local asyncapi = require("weir.asyncapi")
local codec = require("weir.codec")
local diff = require("weir.asyncapi.diff")
local support = require("spec.lua.asyncapi.support")

local nothing = support.nothing

local function document(fill)
  return assert(asyncapi.document(support.app(fill)))
end

-- What breaks, as lines.
local function breaking(old, new)
  local changes = assert(diff(old, new))
  local lines = {}
  for i, each in ipairs(changes.breaking) do
    lines[i] = each.where .. ": " .. each.message
  end
  return lines, changes
end

-- What breaks when the schema of a handler, and then of a publisher, becomes another.
local function received(old, new)
  local function one(schema)
    return document(function(app)
      app:subscriber("a", { schema = schema }, nothing)
    end)
  end
  old.title, new.title = "T", "T"
  local lines = breaking(one(old), one(new))
  for i, line in ipairs(lines) do
    lines[i] = line:gsub("^receive%.a: message T: payload:? ?", "")
  end
  return lines
end

local function sent(old, new)
  local function one(schema)
    return document(function(app)
      app:publisher({ to = "a", schema = schema })
    end)
  end
  old.title, new.title = "T", "T"
  local lines = breaking(one(old), one(new))
  for i, line in ipairs(lines) do
    lines[i] = line:gsub("^send%.a: message T: payload:? ?", "")
  end
  return lines
end

describe("the difference of two documents", function()
  it("is nothing where they are the same, or differ only in words", function()
    local function everything(description)
      local result = assert(asyncapi.document(support.everything()))
      result.info.description = description
      return result
    end
    assert.same({ breaking = {}, other = {} }, diff(everything("a"), everything("b")))
  end)

  it("is the same for JSON and YAML", function()
    if not pcall(require, "lyaml") then
      return pending("lyaml is not installed")
    end
    local made = assert(asyncapi.document(support.everything()))
    local yaml = assert(asyncapi.read((assert(asyncapi.to_yaml(made)))))
    assert.same({ breaking = {}, other = {} }, diff(yaml, made))
    assert.same({ breaking = {}, other = {} }, diff(made, yaml))
  end)

  it("breaks what is gone: handlers, publishers, channels, replies, messages", function()
    local lines = breaking(document(function(app)
      app:subscriber("a", { reply = "answers" }, nothing)
      app:subscriber("b", nothing)
      app:publisher({ to = "c" })
    end), document(function(app)
      app:subscriber("a", nothing)
    end))
    assert.same({ "channel answers: is gone", "channel b: is gone", "channel c: is gone",
      "receive.a: has no reply any more",
      "receive.b: nobody receives there any more", "send.c: nothing is sent there any more" }, lines)
  end)

  it("does not break by what is new", function()
    local lines, changes = breaking(document(function(app)
      app:subscriber("a", nothing)
    end), document(function(app)
      app:subscriber("a", { reply = true }, nothing)
      app:subscriber("b", nothing)
      app:publisher({ to = "c" })
    end))
    assert.same({}, lines)
    assert.is_true(#changes.other >= 4)
  end)

  it("does not break when a handler is only called otherwise", function()
    local lines, changes = breaking(document(function(app)
      app:subscriber("a", nothing)
    end), document(function(app)
      app:subscriber("a", { name = "other" }, nothing)
    end))
    assert.same({}, lines)
    assert.same({ { where = "receive.a", message = "is called receive.other now" } }, changes.other)
  end)

  it("breaks where the content type, the address or the direction is another", function()
    local old = document(function(app)
      app:subscriber("a", { name = "h" }, nothing)
    end)
    local new = document(function(app)
      app:subscriber("a", { name = "h", codec = "cbor" }, nothing)
    end)
    assert.same({ "receive.h: message message: its content type is application/cbor now, and was application/json" },
      (breaking(old, new)))
    new = document(function(app)
      app:subscriber("b", { name = "h" }, nothing)
    end)
    assert.same({ "channel a: is gone", "receive.h: its channel is b now, and was a" }, (breaking(old, new)))
    new = document(function(app)
      app:subscriber("a", { name = "h" }, nothing)
    end)
    new.operations["receive.h"].action = "send"
    assert.same({ "receive.h: its action is send now, and was receive" }, (breaking(old, new)))
  end)

  it("breaks where a server is gone, speaks another protocol or asks for more", function()
    local old, new = document(nothing), document(nothing)
    old.servers.more = { host = "h", protocol = "nats" }
    new.servers.memory.protocol = "nats"
    new.servers.memory.host = "elsewhere"
    new.servers.memory.security = { { type = "userPassword" } }
    local lines, changes = breaking(old, new)
    assert.same({ "server memory: speaks nats now, and spoke memory", "server memory: asks for userPassword now",
      "server more: is gone" }, lines)
    assert.same({ { where = "server memory", message = "its host is elsewhere now" } }, changes.other)
  end)

  it("breaks who sends, where less is taken", function()
    local function props(properties, more)
      local schema = { properties = properties }
      for key, value in pairs(more or {}) do
        schema[key] = value
      end
      return schema
    end
    for _, case in ipairs({
      { props({ a = "string" }), props({ a = "string", b = "string" }), { "b: is required now" } },
      { props({ a = "string?" }), props({ a = "string" }), { "a: is required now" } },
      { props({ a = "string" }), props({ a = "string", b = "string?" }), {} },
      { props({ a = "string" }), props({ a = "string?" }), {} },
      { props({ a = "number" }), props({ a = "integer" }), { "a: no longer takes number" } },
      { props({ a = "integer" }), props({ a = "number" }), {} },
      { props({ a = { type = { "string", "null" } } }), props({ a = "string" }), { "a: no longer takes null" } },
      { props({ a = "string?", b = "string?" }), props({ a = "string?" }), {} },
      { props({ a = "string?", b = "string?" }), props({ a = "string?" }, { additionalProperties = false }),
        { "no longer takes properties that are not named", "b: no longer takes this property" } },
      { props({ a = { enum = { "x", "y" } } }), props({ a = { enum = { "x", "z" } } }),
        { 'a: no longer takes the value "y"' } },
      { props({ a = { enum = { "x" } } }), props({ a = "string" }), {} },
      { props({ a = "string" }), props({ a = { enum = { "x" } } }), { 'a: takes only "x" now' } },
      { props({ a = { type = "integer", minimum = 1 } }), props({ a = { type = "integer", minimum = 2 } }),
        { "a: must have minimum 2 now" } },
      { props({ a = { type = "integer", maximum = 9 } }), props({ a = { type = "integer", maximum = 10 } }), {} },
      { props({ a = { type = "string", pattern = "^a" } }), props({ a = { type = "string", pattern = "^b" } }),
        { "a: must match ^b now" } },
      { props({ a = { items = { properties = { n = "string?" } } } }),
        props({ a = { items = { properties = { n = "string" } } } }), { "a[].n: is required now" } },
      { { anyOf = { { type = "string" }, { type = "integer" } } }, { anyOf = { { type = "string" } } },
        { "no longer takes what alternative 2 allows" } },
      { { type = "string" }, { anyOf = { { type = "string" }, { type = "integer" } } }, {} },
      { {}, { type = "string" }, { "took any type, and takes string only now" } },
      { { type = "string" }, {}, {} },
      { {}, { enum = { "x", 1 } }, { 'takes only "x", 1 now' } },
      { { type = "boolean" }, { enum = { true, false } }, {} },
      { { anyOf = { { type = "string", maxLength = 3 }, { type = "integer" } } }, { type = "string" },
        { "no longer takes integer" } },
      { { type = "number" }, { anyOf = { { type = "string" }, { type = "integer" } } },
        { "must fit one of 2 alternatives now" } },
      { { allOf = { { minimum = 1 }, { minimum = 5 } }, type = "integer" }, { type = "integer", minimum = 5 }, {} },
      { { type = "integer", minimum = 3 }, { type = "integer", allOf = { { minimum = 1 }, { minimum = 5 } } },
        { "must have minimum 5 now" } },
      { { type = "integer", minimum = 1 }, { type = "integer", exclusiveMinimum = 0 }, {} },
      { { type = "number", minimum = 1 }, { type = "number", exclusiveMinimum = 1 },
        { "must have exclusiveMinimum 1 now" } },
      { { type = "integer", maximum = 9 }, { type = "integer", exclusiveMaximum = 10 }, {} },
      { { type = "integer", multipleOf = 4 }, { type = "integer", multipleOf = 2 }, {} },
      { { type = "integer", multipleOf = 2 }, { type = "integer", multipleOf = 4 }, { "must have multipleOf 4 now" } },
    }) do
      assert.same(case[3], received(case[1], case[2]))
    end
  end)

  it("knows by the values that are listed whether they fit limits and patterns", function()
    for _, case in ipairs({
      { { enum = { 1, 5 } }, { type = "integer", minimum = 1, maximum = 5 }, {} },
      { { enum = { 1, 6 } }, { type = "integer", minimum = 1, maximum = 5 },
        { "must have maximum 5 now", "must have minimum 1 now" } },
      { { enum = { "ab", "ac" } }, { type = "string", pattern = "^a", maxLength = 2 }, {} },
      { { enum = { "ab", "bc" } }, { type = "string", pattern = "^a" }, { "must match ^a now" } },
      { { const = "x" }, { type = "string", format = "email" }, { "has another 'format' now" } },
    }) do
      assert.same(case[3], received(case[1], case[2]))
    end
  end)

  it("compares what is within not, if, contains, names and dependencies", function()
    local function of(keyword, value, more)
      local schema = { [keyword] = value }
      for key, each in pairs(more or {}) do
        schema[key] = each
      end
      return schema
    end
    local short, long = { type = "string", maxLength = 3 }, { type = "string", maxLength = 9 }
    local branches = { ["then"] = { required = { "b" } } }
    for _, case in ipairs({
      { of("not", short), of("not", short), {} },
      { of("not", long), of("not", short), {} },
      { of("not", short), of("not", long), { "no longer takes what 'not' describes" } },
      { {}, of("not", short), { "no longer takes what 'not' describes" } },
      { { type = "integer" }, of("not", short, { type = "integer" }), {} },
      { of("not", short), {}, {} },
      { of("if", short, branches), of("if", { maxLength = 3, type = "string" }, branches), {} },
      { of("if", short, branches), of("if", short, { ["then"] = { required = { "b", "c" } } }),
        { "(then).c: is required now" } },
      { of("if", short, { ["then"] = { required = { "b" } }, ["else"] = { maximum = 5 } }),
        of("if", short, { ["then"] = { required = { "b" } }, ["else"] = { maximum = 4 } }),
        { "(else): must have maximum 4 now" } },
      { {}, of("if", short, branches), { "must fit what depends on a condition now ('if')" } },
      { of("if", short, branches), of("if", long, branches), { "must fit what depends on a condition now ('if')" } },
      { of("required", { "b" }), of("if", short, branches, {}), {} },
      { of("if", short, branches), {}, {} },
      { of("contains", short), of("contains", long), {} },
      { of("contains", long), of("contains", short), { "must contain other items now" } },
      { of("contains", short), of("contains", short, { minContains = 2 }), { "must have minContains 2 now" } },
      { of("contains", short), of("contains", short, { minContains = 1 }), {} },
      { of("contains", short, { maxContains = 2 }), of("contains", long, { maxContains = 2 }),
        { "must contain other items now" } },
      { of("patternProperties", { ["^a"] = long }), of("patternProperties", { ["^a"] = short }),
        { "/^a/: must have maxLength 3 now" } },
      { of("patternProperties", { ["^a"] = short }), of("patternProperties", { ["^a"] = long }), {} },
      { of("patternProperties", { ["^a"] = {} }, { additionalProperties = false }), { additionalProperties = false },
        { "/^a/: no longer takes this property" } },
      { of("propertyNames", { maxLength = 9 }), of("propertyNames", { maxLength = 5 }),
        { "(names): must have maxLength 5 now" } },
      { of("dependentRequired", { a = { "b" } }), of("dependentRequired", { a = { "b", "c" } }),
        { "(with a).c: is required now" } },
      { of("dependentRequired", { a = { "b", "c" } }), of("dependentRequired", { a = { "b" } }), {} },
      { of("required", { "c" }), of("dependentRequired", { a = { "c" } }), {} },
      { of("dependentSchemas", { a = long }), of("dependentSchemas", { a = short }),
        { "(with a): must have maxLength 3 now" } },
      { { type = "object", additionalProperties = long }, { properties = { a = short }, required = {} },
        { "a: must have maxLength 3 now" } },
    }) do
      assert.same(case[3], received(case[1], case[2]))
    end
    assert.same({ "may be what 'not' kept out" }, sent(of("not", long), of("not", short)))
    assert.same({}, sent(of("not", short), of("not", long)))
    assert.same({ "need no longer contain the items that it did" }, sent(of("contains", short), of("contains", long)))
    assert.same({ "need no longer match ^a" }, sent({ type = "string", pattern = "^a" }, { type = "string" }))
  end)

  it("compares the headers, in the same directions", function()
    local function with(headers)
      return document(function(app)
        app:subscriber("a", { header_schema = headers }, nothing)
        app:publisher({ to = "b", header_schema = headers })
      end)
    end
    local narrow, wide = { properties = { tenant = "string" } }, { properties = { tenant = "string?" } }
    assert.same({ "receive.a: message message: headers tenant: is required now" },
      (breaking(with(wide), with(narrow))))
    assert.same({ "send.b: message message: headers tenant: need no longer be there" },
      (breaking(with(narrow), with(wide))))
  end)

  it("notes what becomes of failures, and breaks where dead letters come no more", function()
    local function with(options, more)
      return document(function(app)
        app:subscriber("a", options, nothing)
        if more then
          app:subscriber("b", more, nothing)
        end
      end)
    end
    local function notes(old, new)
      local lines, changes = breaking(old, new)
      for i, each in ipairs(changes.other) do
        changes.other[i] = each.where .. ": " .. each.message
      end
      return lines, changes.other
    end
    local five = with({ retry = { max_attempts = 5, backoff = { initial = 1 } } })
    local lines, other = notes(five, with({ retry = { max_attempts = 3, backoff = { initial = 2 } } }))
    assert.same({}, lines)
    assert.same({ "receive.a: x-weir-retry.backoff.initial is 2 now, and was 1",
      "receive.a: x-weir-retry.maxAttempts is 3 now, and was 5" }, other)
    lines, other = notes(with({}), with({ dead_letter = "dead" }))
    assert.same({}, lines)
    assert.same({ "receive.a: x-weir-dead-letter is " .. '{ "address": "dead", "servers": [ { "$ref":'
      .. ' "#/servers/memory" } ] } now, and was none' }, other)
    lines, other = notes(with({ dead_letter = "dead" }), with({ dead_letter = "other" }))
    assert.same({ "receive.a: its dead letters do not go to dead any more, and no others do" }, lines)
    assert.same({ "receive.a: x-weir-dead-letter.address is other now, and was dead" }, other)
    lines = notes(with({ dead_letter = "dead" }, { dead_letter = "dead" }),
      with({ dead_letter = "other" }, { dead_letter = "dead" }))
    assert.same({}, lines)
    assert.same({ "receive.a: its dead letters do not go to dead any more, and no others do" },
      (notes(with({ dead_letter = "dead" }), with({}))))
  end)

  it("breaks where the reply is to be asked for in another way, or a parameter has other values", function()
    local old, new = document(nothing), document(nothing)
    for i, made in ipairs({ old, new }) do
      made.channels.a = { address = "a.{x}", parameters = { x = { enum = { "1", tostring(i) } } } }
      made.channels.r = { address = codec.null }
      made.operations.o = { action = "receive", channel = { ["$ref"] = "#/channels/a" }, reply = {
        channel = { ["$ref"] = "#/channels/r" },
        address = { location = "$message.header#/reply" .. i },
      } }
    end
    assert.same({ "channel a: its address is a.{1|2} now, and was a.{1}",
      "o: its channel is a.{1|2} now, and was a.{1}",
      "o: its reply goes where $message.header#/reply2 says now, and went where $message.header#/reply1 said" },
      (breaking(old, new)))
  end)

  it("breaks who receives, where more is sent", function()
    for _, case in ipairs({
      { { properties = { a = "string" } }, { properties = { a = "string?" } }, { "a: need no longer be there" } },
      { { properties = { a = "string" } }, { properties = { a = "string", b = "string" } }, {} },
      { { properties = { a = "string", b = "string" } }, { properties = { a = "string" } },
        { "b: need no longer be there" } },
      { { type = "integer" }, { type = "number" }, { "may be number now" } },
      { { type = "number" }, { type = "integer" }, {} },
      { { enum = { "x" } }, { enum = { "x", "y" } }, { 'may be "y" now' } },
      { { type = "string", maxLength = 5 }, { type = "string", maxLength = 6 }, { "need no longer have maxLength 5" } },
    }) do
      assert.same(case[3], sent(case[1], case[2]))
    end
  end)

  it("takes replies for what is sent", function()
    local function replies(schema)
      schema.title = "R"
      return document(function(app)
        app:subscriber("a", { reply = { to = true, schema = schema } }, nothing)
      end)
    end
    assert.same({ "receive.a: reply: message R: payload x: need no longer be there" },
      (breaking(replies({ properties = { x = "string" } }), replies({ properties = { x = "string?" } }))))
  end)

  it("ends with schemas that contain themselves", function()
    local function tree(leaf)
      return { properties = { children = { items = { ["$ref"] = "#" } }, leaf = leaf } }
    end
    assert.same({}, received(tree("string"), tree("string")))
    assert.same({ "leaf: no longer takes string" }, received(tree("string?"), tree({ type = "integer?" })))
  end)

  it("is bounded, whatever the documents hold", function()
    local deep = { type = "string" }
    for _ = 1, 40 do
      deep = { type = "object", properties = { a = deep, b = deep } }
    end
    local old, new = document(nothing), document(nothing)
    for _, made in ipairs({ old, new }) do
      made.channels.a = { address = "a", messages = { m = { payload = deep } } }
      made.operations.o = { action = "receive", channel = { ["$ref"] = "#/channels/a" } }
    end
    assert.same({ breaking = {}, other = {} }, diff(old, new))
    for _, reference in ipairs({ "#/channels/a/messages/m/payload", "#/nowhere", "#", "other.json", "#/%ZZ~2" }) do
      new.channels.a.messages.m.payload = { ["$ref"] = reference }
      assert.is_table(diff(old, new))
      assert.is_table(diff(new, old))
    end
    for _, strange in ipairs({ 1, "x", true, { 1 }, { "x", {} }, { false, { {} } } }) do
      for _, keyword in ipairs({ "type", "enum", "required", "properties", "items", "allOf", "anyOf", "not", "if",
        "dependencies", "pattern", "patternProperties", "minimum", "contains", "propertyNames" }) do
        new.channels.a.messages = { m = { payload = { [keyword] = strange, ["then"] = strange } } }
        assert.is_table(diff(old, new))
        assert.is_table(diff(new, old))
      end
      for _, key in ipairs({ "servers", "channels", "operations", "components" }) do
        local other = document(nothing)
        other[key] = strange
        assert.is_table(diff(old, other))
        assert.is_table(diff(other, old))
      end
      new.operations.o.messages, new.operations.o.reply, new.channels.a.messages = strange, strange, strange
      new.channels.a.address = strange
      assert.is_table(diff(old, new))
    end
  end)

  it("is refused for what is no document of AsyncAPI 3", function()
    for text, message in pairs({ ["2.6.0"] = "AsyncAPI 2.6.0", ["x"] = "AsyncAPI x" }) do
      local changes, err = diff({ asyncapi = text }, document(nothing))
      assert.is_nil(changes)
      assert.matches(message, err.message)
    end
    assert.matches("no AsyncAPI document", select(2, diff(document(nothing), {})).message)
  end)
end)
