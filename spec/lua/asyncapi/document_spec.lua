local asyncapi = require("weir.asyncapi")
local codec = require("weir.codec")
local support = require("spec.lua.asyncapi.support")
local weir = require("weir")

local app, nothing = support.app, support.nothing

local function document(...)
  return assert(asyncapi.document(app(...)))
end

local function keys(object)
  local list = {}
  for key in pairs(object) do
    list[#list + 1] = key
  end
  table.sort(list)
  return list
end

local function refs(list)
  local result = {}
  for i, each in ipairs(list) do
    result[i] = each["$ref"]
  end
  return result
end

describe("the AsyncAPI document of an application", function()
  it("is the same whatever the order in which Lua has its tables", function()
    local first = asyncapi.to_json((assert(asyncapi.document(support.everything()))))
    for _ = 1, 5 do
      assert.equal(first, asyncapi.to_json((assert(asyncapi.document(support.everything())))))
    end
  end)

  it("has the information of the application, in the words of AsyncAPI", function()
    local info = assert(asyncapi.document(support.everything())).info
    assert.same({ name = "Ada", url = "https://shop.example", email = "ada@shop.example" }, info.contact)
    assert.same({ { name = "sales" },
      { name = "eu", description = "Europe", externalDocs = { url = "https://eu.example" } } }, info.tags)
    assert.same({ "everything", "2.1.0", "https://shop.example/terms" },
      { info.title, info.version, info.termsOfService })
  end)

  it("never has credentials in it", function()
    for _, write in ipairs({ asyncapi.to_json, asyncapi.to_yaml }) do
      assert.is_nil(write((assert(asyncapi.document(support.everything())))):find("hunter2", 1, true))
    end
    local text = asyncapi.to_json(document(function(orders)
      orders:subscriber("https://user:hunter2@h.example/x", {
        name = "https://h.example/?access_token=hunter2&a=b#x",
        summary = "https://h.example/?access_token=hunter2&a=b#x",
        dead_letter = "nats://user:hunter2@h.example/dead",
        title = "See https://user:p%40ss@hunter2@h.example/.",
        retry = { to = "nats://hunter2:x@h.example" },
        schema = {
          description = "As https://hunter2@h.example has it.",
          properties = { at = { default = "redis://:hunter2@h.example", pattern = "^http://[a-z]+@" } },
        },
        reply = { to = "https://h.example/x?api_key=hunter2" },
      }, nothing)
      orders:publisher({ name = "https://h.example/?a=b&password=hunter2" })
    end, { description = "From https://ada:hunter2@h.example" }))
    assert.is_nil(text:find("hunter2", 1, true))
    assert.is_truthy(text:find("^http://[a-z]+@", 1, true))
    assert.is_truthy(text:find("https://h.example/?access_token=*&a=b#x", 1, true))
  end)

  it("says how each server asks who is there", function()
    local servers = assert(asyncapi.document(support.everything())).servers
    assert.same({ "audit", "nats", "nats_-2", "streams" }, keys(servers))
    assert.same({ "one.example:4222", "two.example:4222" }, { servers.nats.host, servers["nats_-2"].host })
    assert.same({ "#/components/securitySchemes/userPassword", "#/components/securitySchemes/certificate" },
      refs(servers.nats.security))
    assert.same({ "#/components/securitySchemes/httpBearer" }, refs(servers.streams.security))
    assert.equal("/base", servers.streams.pathname)
    assert.is_nil(servers.audit.security)
  end)

  it("has parameters for the wildcards of a pattern", function()
    local channel = document(function(orders)
      orders:subscriber("a.*.b.*.>", nothing)
    end).channels["a._2A.b._2A._3E"]
    assert.equal("a.{token1}.b.{token2}.{rest}", channel.address)
    assert.same({ "rest", "token1", "token2" }, keys(channel.parameters))
    assert.equal("a.*.b.*.>", channel["x-weir-pattern"])
  end)

  it("has braces of a name as parameters with one value", function()
    local channels = document(function(orders)
      orders:subscriber("a{b}c", nothing)
      orders:subscriber("{a.*.b}", nothing)
    end).channels
    local plain, pattern = channels["a_7Bb_7Dc"], channels["_7Ba._2A.b_7D"]
    assert.same({ "a{literal}c", { "{b}" } }, { plain.address, plain.parameters.literal.enum })
    assert.same({ "{literal1}.{token1}.{literal3}", { "{a" }, { "b}" } },
      { pattern.address, pattern.parameters.literal1.enum, pattern.parameters.literal3.enum })
  end)

  it("keeps several handlers of one channel apart", function()
    local result = document(function(orders)
      orders:subscriber("notes", { filter = { language = "la" } }, nothing)
      orders:subscriber("notes", { filter = { language = "de" } }, nothing)
      orders:subscriber("notes", { name = "others" }, nothing)
      orders:subscriber({ name = "notes", group = "g" }, nothing)
    end)
    assert.same({ "notes" }, keys(result.channels))
    assert.same({ "receive.notes_-language_-de", "receive.notes_-language_-la", "receive.notes_2Fg", "receive.others" },
      keys(result.operations))
  end)

  it("keeps the ids of what stays, when handlers come, go and change places", function()
    local function notes(orders, ...)
      for _, language in ipairs({ ... }) do
        orders:subscriber("notes", { filter = { language = language } }, nothing)
      end
      orders:subscriber("notes", nothing)
    end
    local before = document(function(orders)
      notes(orders, "la", "de")
      orders:subscriber("a b", { schema = { title = "A", type = "string" } }, nothing)
      orders:subscriber("alone", { filter = { k = "x" } }, nothing)
    end)
    local after = document(function(orders)
      orders:subscriber("a/b", { schema = { title = "B", type = "string" } }, nothing)
      orders:subscriber("a_b", nothing)
      orders:subscriber("a b", { schema = { title = "A", type = "string" } }, nothing)
      notes(orders, "fr", "de", "la")
      orders:subscriber("alone", { filter = { k = "x" } }, nothing)
      orders:subscriber("alone", nothing)
      orders:broker("memory:", { label = "second" })
    end)
    for id, operation in pairs(before.operations) do
      assert.same(operation, after.operations[id], id)
    end
    for id, channel in pairs(before.channels) do
      for key, message in pairs(channel.messages) do
        assert.same(message, after.channels[id].messages[key], key)
      end
    end
  end)

  it("has the headers that a filter asks for, and no values of secret ones", function()
    local result = document(function(orders)
      orders:subscriber("notes", { filter = { Language = "la", Authorization = "Bearer x" } }, nothing)
      orders:subscriber("notes", nothing)
    end)
    local operation = result.operations["receive.notes_-authorization_-_2A_-language_-la"]
    local key = operation.messages[1]["$ref"]:match("/([^/]+)$")
    local id = result.channels.notes.messages[key]["$ref"]:match("/([^/]+)$")
    local headers = result.components.messages[id].headers
    assert.same({ language = { type = "string", const = "la" }, authorization = { type = "string" } },
      headers.properties)
    assert.same({ "authorization", "language" }, headers.required)
    assert.same({ "#/components/schemas/weir-headers" }, refs(headers.allOf))
  end)

  it("keeps schemas apart that have one title, and has equal ones once", function()
    local result = document(function(orders)
      orders:subscriber("a", { schema = { title = "Order", type = "string" } }, nothing)
      orders:subscriber("b", { schema = { title = "Order", type = "integer" } }, nothing)
      orders:subscriber("c", { schema = { title = "Order", type = "string" } }, nothing)
      orders:subscriber("d", { schema = { title = "weir-headers", type = "string" } }, nothing)
    end)
    assert.same({ "Order", "b_-Order", "d_-weir-headers", "weir-headers" }, keys(result.components.schemas))
    local messages = result.components.messages
    assert.same({ "Order", "b_-Order", "Order" }, {
      messages["a_-Order"].payload["$ref"]:match("/([^/]+)$"),
      messages["b_-Order"].payload["$ref"]:match("/([^/]+)$"),
      messages["c_-Order"].payload["$ref"]:match("/([^/]+)$"),
    })
  end)

  it("keeps messages of one channel apart whose schemas have one title", function()
    local result = document(function(orders)
      orders:subscriber("a", { name = "one", filter = { k = "1" }, schema = { title = "T", type = "string" } }, nothing)
      orders:subscriber("a", { name = "two", schema = { title = "T", type = "integer" } }, nothing)
    end)
    assert.same({ "T", "T_-one" }, keys(result.channels.a.messages))
    assert.same({ "#/channels/a/messages/T_-one" }, refs(result.operations["receive.one"].messages))
    assert.same({ "#/channels/a/messages/T" }, refs(result.operations["receive.two"].messages))
  end)

  it("means the messages that a channel is known to have, where one of its users has no schema", function()
    local result, missing = document(function(orders)
      orders:subscriber("a", { reply = "b" }, nothing)
      orders:subscriber("b", { schema = { title = "B", type = "string" } }, nothing)
    end)
    assert.same({ "#/channels/b/messages/B" }, refs(result.operations["receive.a"].reply.messages))
    assert.same({ { channel = "a", message = "a_-message", what = "the handler 'a'" } }, missing)
  end)

  it("lists what has no schema: handlers, replies, outputs and publishers", function()
    local _, missing = document(function(orders)
      orders:subscriber("a", { reply = true, outputs = { x = "c" } }, nothing)
      orders:publisher({ to = "d", name = "alarms" })
      orders:publisher({})
      orders:publisher({ name = "anything" })
    end)
    local what = {}
    for i, each in ipairs(missing) do
      what[i] = each.what
    end
    table.sort(what)
    assert.same({ "a publisher without a name", "the handler 'a'", "the output 'x' of the handler 'a'",
      "the publisher 'alarms'", "the publisher 'anything'", "the reply of the handler 'a'" }, what)
  end)

  it("has replies where the message asks for them, without an address", function()
    local result = assert(asyncapi.document(support.everything()))
    local reply = result.operations["receive.orders._2A.new_2Fbilling"].reply
    assert.equal("$message.header#/reply-to", reply.address.location)
    local channel = result.channels[reply.channel["$ref"]:match("/([^/]+)$")]
    assert.equal(codec.null, channel.address)
    assert.same({ "Bill" }, keys(channel.messages))
  end)

  it("has bindings for NATS and HTTP, and none where there is nothing to say", function()
    local operations = assert(asyncapi.document(support.everything())).operations
    assert.same({ nats = { queue = "billing", bindingVersion = "0.1.0" } },
      operations["receive.orders._2A.new_2Fbilling"].bindings)
    local http = operations["receive.streams_-things"].bindings.http
    assert.same({ "GET", "object", "0.3.0" }, { http.method, http.query.type, http.bindingVersion })
    assert.same({ "cursor", "live", "offset" }, keys(http.query.properties))
    assert.same({ http = { method = "POST", bindingVersion = "0.3.0" } },
      operations["send.streams_-raw_20things"].bindings)
    assert.is_nil(operations["receive.audit_-log"].bindings)
  end)

  it("has no queue that the binding of NATS has no room for", function()
    local result = weir.app("orders", "1.0.0")
    result:broker("nats://h.example:4222")
    result:subscriber({ name = "a", group = ("g"):rep(255) }, nothing)
    result:subscriber({ name = "b", group = ("g"):rep(256) }, nothing)
    local bindings = {}
    for _, operation in pairs(assert(asyncapi.document(result)).operations) do
      bindings[operation.channel["$ref"]] = operation.bindings or false
    end
    assert.equal(255, #bindings["#/channels/a"].nats.queue)
    assert.is_false(bindings["#/channels/b"])
  end)

  it("has what HTTP says of the messages of durable streams, by who sends them", function()
    local result = weir.app("orders", "1.0.0")
    result:broker("durable+https://streams.example/base")
    result:subscriber("in", { reply = "both" }, nothing)
    result:subscriber("both", nothing)
    result:publisher({ to = "out" })
    local messages = assert(asyncapi.document(result)).components.messages
    local function http(id)
      return messages[id].bindings.http
    end
    local received, sent, both = http("in_-message"), http("out_-message"), http("both_-message")
    assert.same({ 200, "0.3.0", "object" }, { received.statusCode, received.bindingVersion, received.headers.type })
    assert.same({ "Content-Type", "Stream-Closed", "Stream-Cursor", "Stream-Next-Offset", "Stream-Up-To-Date" },
      keys(received.headers.properties))
    assert.same({ "Content-Type", "Producer-Epoch", "Producer-Id", "Producer-Seq" }, keys(sent.headers.properties))
    assert.same(keys(sent.headers.properties), sent.headers.required)
    assert.same({ nil, nil, 8 }, { both.statusCode, both.headers.required, #keys(both.headers.properties) })
  end)

  it("has publishers without a destination, on a channel whose address is not known", function()
    local schema = { title = "Order", type = "string" }
    local result = document(function(orders)
      orders:broker("memory:", { label = "audit" })
      orders:publisher({ name = "anything", schema = schema })
      orders:publisher({ schema = schema })
      orders:publisher({ schema = schema })
      orders:publisher({ broker = "audit" })
      orders:publisher({ to = "d" })
      orders:publisher({ to = "d" })
    end)
    assert.same({ "send.anything", "send.audit_-publisher", "send.d", "send.publisher_-Order" },
      keys(result.operations))
    local channel = result.channels["anything_-anywhere"]
    assert.equal("#/channels/anything_-anywhere", result.operations["send.anything"].channel["$ref"])
    assert.equal(codec.null, channel.address)
    assert.same({ "Order" }, keys(channel.messages))
    assert.same({ "#/servers/audit" }, refs(result.channels["audit_-publisher_-anywhere"].servers))
  end)

  it("keeps channels without an address apart from others that would have their names", function()
    local result = document(function(orders)
      orders:broker("memory:", { label = "a" })
      orders:subscriber("a", { reply = true }, nothing)
      orders:subscriber("reply", { broker = "a" }, nothing)
    end)
    assert.same({ "a", "a_-reply", "a_-reply_-2" }, keys(result.channels))
    assert.equal("reply", result.channels["a_-reply"].address)
    assert.equal("#/channels/a_-reply_-2", result.operations["receive.a"].reply.channel["$ref"])
  end)

  it("has the schemas of headers beside those that weir writes", function()
    local result = document(function(orders)
      orders:subscriber("a", {
        header_schema = { title = "Meta", properties = { Tenant = "string", ["api-key"] = { const = "hunter2" } } },
        filter = { language = "la" },
        reply = { to = "b", header_schema = { properties = { n = "integer?" } } },
      }, nothing)
      orders:publisher({ to = "c", header_schema = { properties = { n = "string" }, additionalProperties = false,
        propertyNames = { maxLength = 5 } } })
    end)
    local components = result.components
    local function headers_of(operation)
      local reference = operation.messages[1]["$ref"]
      local channel, key = reference:match("^#/channels/(.-)/messages/(.*)$")
      return components.messages[result.channels[channel].messages[key]["$ref"]:match("[^/]*$")].headers
    end
    local received = headers_of(result.operations["receive.a_-language_-la"])
    assert.same({ "object", { "#/components/schemas/weir-headers", "#/components/schemas/Meta" }, "la" },
      { received.type, refs(received.allOf), received.properties.language.const })
    assert.same({ title = "Meta", type = "object", required = { "api-key", "tenant" },
      properties = { tenant = { type = "string" }, ["api-key"] = {} } }, components.schemas.Meta)
    assert.same({ type = "integer" },
      components.schemas["b_-message_-headers"].properties.n)
    local closed = components.schemas["c_-message_-headers"]
    assert.is_true(closed.properties["message-id"])
    assert.is_true(closed.patternProperties["^weir-"])
    assert.same({ false, { type = "string" } }, { closed.additionalProperties, closed.properties.n })
    assert.same({ maxLength = 5 }, closed.propertyNames.anyOf[1])
  end)

  it("says what becomes of failures", function()
    local operations = assert(asyncapi.document(support.everything())).operations
    local orders, watch = operations["receive.orders._2A.new_2Fbilling"], operations["receive.watch"]
    assert.same({ maxAttempts = 3, backoff = { initial = 1, max = 5 }, on = { out_of_stock = "drop" } },
      orders["x-weir-retry"])
    assert.equal("dead", orders["x-weir-dead-letter"].address)
    assert.same({ "#/servers/nats", "#/servers/nats_-2" }, refs(orders["x-weir-dead-letter"].servers))
    assert.same({ maxAttempts = 1 }, { maxAttempts = watch["x-weir-retry"].maxAttempts })
    assert.is_nil(watch["x-weir-dead-letter"])
    assert.is_true(operations["receive.audit_-log"]["x-weir-retry"].unlimited)
    assert.same({ max = 10, linger = 0.01 }, operations["receive.audit_-log"]["x-weir-batch"])
  end)

  it("has a content type for all where all agree, and for each in any case", function()
    local result = document(function(orders)
      orders:subscriber("a", { codec = "msgpack" }, nothing)
    end)
    assert.equal("application/msgpack", result.defaultContentType)
    assert.equal("application/msgpack", result.components.messages["a_-message"].contentType)
    assert.is_nil(assert(asyncapi.document(support.everything())).defaultContentType)
  end)

  it("is not made of an application with mistakes in its wiring", function()
    local nothing_, err = asyncapi.document(app(function(orders)
      orders:subscriber("a", { wrokers = 1 }, nothing)
    end))
    assert.is_nil(nothing_)
    assert.equal("wiring", err.code)
    assert.matches("document_spec.lua:%d+: .*wrokers", err.message)
    assert.has_error(function()
      asyncapi.document("app.lua")
    end, "asyncapi.document: an application is expected, or what its describe() returns, not a string")
  end)

  it("says what cannot be written", function()
    for what, value in pairs({ function_ = print, number = 0 / 0 }) do
      local made = weir.schema({ title = "A", type = "object", ["x-own"] = value })
      local result, err = asyncapi.document(app(function(orders)
        orders:subscriber("a", { schema = made }, nothing)
      end))
      assert.is_nil(result, what)
      assert.equal("encode", err.code, what)
    end
  end)
end)
