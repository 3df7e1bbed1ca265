--- The messages of a document: what goes through each channel, by what its handlers and publishers say.
--
-- Every *use* of a channel, by a handler, a reply, an output or a publisher, says what it knows: a content type, a
-- schema, a schema of the headers, a filter. Uses that say the same share a message. One that says nothing means
-- whatever messages the others have said go there; where nobody has said it, the message has no payload, and is listed
-- as missing.
-- @module weir.asyncapi.messages

local bindings = require("weir.asyncapi.bindings")
local convert = require("weir.asyncapi.schema")
local name = require("weir.asyncapi.name")
local text = require("weir.asyncapi.text")

local HEADERS, SCHEMAS = "weir-headers", "#/components/schemas/"

local Messages = {}
Messages.__index = Messages

-- What weir writes into the headers of every message, on every broker that has headers.
local function common_headers()
  local header = bindings.text
  return {
    type = "object",
    properties = {
      ["content-type"] = header("What the payload is encoded as; decides how it is decoded."),
      ["message-id"] = header("One for each message."),
      ["correlation-id"] = header("The same in all that is published because of a message."),
      ["reply-to"] = header("Where the sender expects the answer."),
      ["partition-key"] = header("Messages of one key stay in order."),
      traceparent = header("W3C Trace Context.", { pattern = "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$" }),
      tracestate = header("W3C Trace Context."),
      ["weir-attempt"] = header("Of a copy that is tried again: how often it has been delivered."),
    },
  }
end

-- The headers that a table of headers asks for, added to a schema.
local function add_filter(headers, filter)
  headers.properties, headers.required = {}, {}
  for header, value in pairs(filter) do
    header = header:lower()
    headers.properties[header] = { type = "string", const = not name.is_secret(header) and value or nil }
    table.insert(headers.required, header)
  end
  table.sort(headers.required)
end

-- The schema of the headers of a message: those that weir writes, those of its own schema, and those of its filter.
local function headers_of(message)
  local common = { ["$ref"] = SCHEMAS .. HEADERS }
  if not (message.headers_key or message.filter) then
    return common
  end
  local headers = { type = "object", allOf = { common } }
  if message.headers_key then
    table.insert(headers.allOf, { ["$ref"] = SCHEMAS .. message.headers_key })
  end
  if message.filter then
    add_filter(headers, message.filter)
  end
  return headers
end

-- What a schema says of the values of headers that may tell who somebody is.
local function hide_values(properties)
  for header, definition in pairs(properties) do
    if type(definition) == "table" and name.is_secret(header) then
      for _, keyword in ipairs({ "const", "enum", "default", "examples" }) do
        definition[keyword] = nil
      end
    end
  end
end

-- Lets the headers that weir writes through, about which a schema of headers says nothing.
local function let_common_through(definition)
  local closed = definition.additionalProperties
  if closed ~= nil and closed ~= true then
    for header in pairs(common_headers().properties) do
      if definition.properties[header] == nil then
        definition.properties[header] = true
      end
    end
    definition.patternProperties = definition.patternProperties or {}
    if definition.patternProperties["^weir-"] == nil then
      definition.patternProperties["^weir-"] = true
    end
  end
  if definition.propertyNames ~= nil then
    local names = { "^weir-" }
    for header in pairs(common_headers().properties) do
      names[#names + 1] = "^" .. header .. "$"
    end
    table.sort(names)
    definition.propertyNames = { anyOf = { definition.propertyNames, { pattern = table.concat(names, "|") } } }
  end
  definition.maxProperties = nil
end

-- A schema of headers as it is in the document.
local function header_definition(made)
  local definition = made:to_json()
  hide_values(definition.properties)
  let_common_through(definition)
  return definition
end

local function canonical(value)
  local result, err = text.to_json({ value })
  return result or error(err, 0)
end

-- --- collecting ------------------------------------------------------------------------------------

--- Notes a use of a channel.
-- @tparam table channel of the document's builder: with `id` and `broker`
-- @tparam table use `by` (the id of who uses it), `action` ("receive" or "send"), `schema`, `header_schema`,
--   `content_type`, `filter`, `what` (for people)
-- @treturn table the use, in which `messages` will be their keys in the channel
function Messages.note(_, channel, use)
  use.channel = channel
  channel.uses = channel.uses or {}
  table.insert(channel.uses, use)
  return use
end

-- A message of the channel for a use, made where there is none like it.
local function message_for(channel, use)
  local definition = use.schema and use.schema:to_json()
  local headers = use.header_schema and header_definition(use.header_schema)
  local filter = type(use.filter) == "table" and use.filter or nil
  local key = canonical({ use.content_type or false, definition == nil and {} or { definition }, filter or false,
    headers or false })
  channel.by_key = channel.by_key or {}
  local message = channel.by_key[key]
  if not message then
    message = {
      channel = channel,
      definition = definition,
      headers = headers,
      actions = {},
      schema_title = type(definition) == "table" and definition.title or nil,
      content_type = use.content_type,
      filter = filter,
      by = use.by,
      what = use.what,
    }
    channel.by_key[key] = message
    table.insert(channel.messages, message)
  end
  return message
end

-- Names that nobody else has: the title of the schema, where two have it with whose it is.
local function name_messages(self, channel)
  local count = {}
  for _, message in ipairs(channel.messages) do
    message.base = message.schema_title and name.id(message.schema_title) or "message"
    if message.filter then
      message.base = message.base .. "_-" .. message.by
    end
    count[message.base] = (count[message.base] or 0) + 1
  end
  local taken = {}
  for _, message in ipairs(channel.messages) do
    local key = count[message.base] > 1 and message.base .. "_-" .. message.by or message.base
    message.key = name.unused(taken, key, message)
    message.id = name.unused(self.ids, channel.id .. "_-" .. message.key, message)
  end
end

--- Settles what the messages of a channel are.
function Messages:resolve(channel)
  channel.messages = {}
  local open = {}
  for _, use in ipairs(channel.uses or {}) do
    if use.schema or use.header_schema or type(use.filter) == "table" then
      use.messages = { message_for(channel, use) }
    else
      open[#open + 1] = use
    end
  end
  local known = {}
  for _, message in ipairs(channel.messages) do
    known[#known + 1] = message.definition ~= nil and message or nil
  end
  for _, use in ipairs(open) do
    use.messages = #known > 0 and known or { message_for(channel, use) }
  end
  for _, use in ipairs(channel.uses or {}) do
    for _, message in ipairs(use.messages) do
      message.actions[use.action] = true
    end
  end
  name_messages(self, channel)
  for _, message in ipairs(channel.messages) do
    self.list[#self.list + 1] = message
    if message.definition == nil then
      self.missing[#self.missing + 1] = { channel = channel.name, message = message.id, what = message.what }
    end
  end
end

-- --- writing ---------------------------------------------------------------------------------------

-- Adds a schema under its title, unless another schema has it as well; returns the key.
local function add_schema(schemas, taken, definition, fallback)
  local title, same = type(definition) == "table" and definition.title, canonical({ definition })
  local key = title and name.id(title) or fallback
  if taken[key] and taken[key] ~= same then
    key = fallback
  end
  while taken[key] and taken[key] ~= same do
    key = key .. "_-schema"
  end
  taken[key] = same
  schemas[key] = convert(definition, SCHEMAS .. key)
  return key
end

local function add_schemas(self, schemas)
  local taken = { [HEADERS] = "" }
  for _, message in ipairs(self.list) do
    if message.definition ~= nil then
      message.schema_key = add_schema(schemas, taken, message.definition, message.id)
    end
  end
  for _, message in ipairs(self.list) do
    if message.headers then
      message.headers_key = add_schema(schemas, taken, message.headers, message.id .. "_-headers")
    end
  end
end

local function write(message)
  local definition = message.definition
  local described = type(definition) == "table" and definition or {}
  return {
    name = message.schema_title or message.channel.name,
    title = message.schema_title,
    description = described.description,
    contentType = message.content_type,
    headers = headers_of(message),
    payload = message.schema_key and { ["$ref"] = SCHEMAS .. message.schema_key },
    correlationId = { ["$ref"] = "#/components/correlationIds/weir" },
    bindings = bindings.message(message.channel.broker, message.actions),
  }
end

--- Writes all messages and their schemas.
-- @tparam table components of the document
function Messages:write(components)
  components.messages = {}
  if #self.list == 0 then
    return
  end
  components.schemas = { [HEADERS] = common_headers() }
  components.correlationIds = {
    weir = { location = "$message.header#/correlation-id", description = "Goes through all that a message leads to." },
  }
  add_schemas(self, components.schemas)
  for _, message in ipairs(self.list) do
    components.messages[message.id] = write(message)
  end
end

--- Makes an empty collection. Its `missing` lists messages without a schema: `{ channel, message, what }`.
return function()
  return setmetatable({ list = {}, missing = {}, ids = {} }, Messages)
end
