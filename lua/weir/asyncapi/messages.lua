--- The messages of a document: what goes through each channel, by what its handlers and publishers say.
--
-- Every *use* of a channel, by a handler, a reply, an output or a publisher, says what it knows: a content type, a
-- schema, a filter. Uses that say the same share a message. One that has no schema means whatever messages the others
-- have said go there; where nobody has said it, the message has no payload, and is listed as missing.
-- @module weir.asyncapi.messages

local convert = require("weir.asyncapi.schema")
local name = require("weir.asyncapi.name")
local text = require("weir.asyncapi.text")

local HEADERS = "weir-headers"

local Messages = {}
Messages.__index = Messages

-- What weir writes into the headers of every message, on every broker that has headers.
local function common_headers()
  local function header(description, more)
    local result = { type = "string", description = description }
    for key, value in pairs(more or {}) do
      result[key] = value
    end
    return result
  end
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

-- The schema of the headers of messages that a table of headers lets through.
local function headers_of(filter)
  local common = { ["$ref"] = "#/components/schemas/" .. HEADERS }
  if type(filter) ~= "table" then
    return common
  end
  local properties, required = {}, {}
  for header, value in pairs(filter) do
    header = header:lower()
    properties[header] = { type = "string" }
    if not name.is_secret(header) then
      properties[header].const = value
    end
    required[#required + 1] = header
  end
  table.sort(required)
  return { type = "object", allOf = { common }, properties = properties, required = required }
end

local function canonical(value)
  local result, err = text.to_json({ value })
  return result or error(err, 0)
end

-- --- collecting ------------------------------------------------------------------------------------

--- Notes a use of a channel.
-- @tparam table channel of the document's builder: with `id`
-- @tparam table use `by` (the id of who uses it), `schema`, `content_type`, `filter`, `what` (for people)
-- @treturn table the use, in which `messages` will be their keys in the channel
function Messages:note(channel, use)
  use.channel = channel
  self.uses[#self.uses + 1] = use
  channel.uses = channel.uses or {}
  table.insert(channel.uses, use)
  return use
end

-- A message of the channel for a use, made where there is none like it.
local function message_for(channel, use)
  local definition = use.schema and use.schema:to_json()
  local filter = type(use.filter) == "table" and use.filter or nil
  local key = canonical({ use.content_type or false, definition == nil and {} or { definition }, filter or false })
  channel.by_key = channel.by_key or {}
  local message = channel.by_key[key]
  if not message then
    message = {
      channel = channel,
      definition = definition,
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
local function name_messages(channel)
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
    local unique, number = key, 1
    while taken[unique] do
      number = number + 1
      unique = key .. "_-" .. number
    end
    taken[unique] = true
    message.key, message.id = unique, channel.id .. "_-" .. unique
  end
end

--- Settles what the messages of a channel are.
function Messages:resolve(channel)
  channel.messages = {}
  local open = {}
  for _, use in ipairs(channel.uses or {}) do
    if use.schema or type(use.filter) == "table" then
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
  name_messages(channel)
  for _, message in ipairs(channel.messages) do
    self.list[#self.list + 1] = message
    if message.definition == nil then
      self.missing[#self.missing + 1] = { channel = channel.name, message = message.id, what = message.what }
    end
  end
end

-- --- writing ---------------------------------------------------------------------------------------

-- Gives each schema a key: its title, unless another schema has it as well.
local function add_schemas(self, schemas)
  local taken = { [HEADERS] = "" }
  for _, message in ipairs(self.list) do
    if message.definition ~= nil then
      local title, same = message.schema_title, canonical(message.definition)
      local key = title and name.id(title) or message.id
      if taken[key] and taken[key] ~= same then
        key = message.id
      end
      while taken[key] and taken[key] ~= same do
        key = key .. "_-schema"
      end
      taken[key] = same
      message.schema_key = key
      schemas[key] = convert(message.definition, "#/components/schemas/" .. key)
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
    headers = headers_of(message.filter),
    payload = message.schema_key and { ["$ref"] = "#/components/schemas/" .. message.schema_key },
    correlationId = { ["$ref"] = "#/components/correlationIds/weir" },
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
  return setmetatable({ uses = {}, list = {}, missing = {} }, Messages)
end
