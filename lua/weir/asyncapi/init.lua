--- AsyncAPI documents of applications.
--
--     local asyncapi = require("weir.asyncapi")
--     local document = assert(asyncapi.document(app))
--     io.write(asyncapi.to_json(document))
--
-- A document is made of `app:describe()`: nothing is connected and no handler runs. The ids in it depend on names
-- alone, so that they stay when handlers are added, removed or moved. Credentials never get into it.
--
-- Follows the AsyncAPI specification 3.1.0; what it has no word for is in extensions: `x-weir-retry`,
-- `x-weir-dead-letter`, `x-weir-batch`, `x-weir-pattern`, `x-weir-subscription` and `x-weir-deprecated`.
-- @module weir.asyncapi

local bindings = require("weir.asyncapi.bindings")
local codec = require("weir.codec")
local errors = require("weir.errors")
local name = require("weir.asyncapi.name")
local new_messages = require("weir.asyncapi.messages")
local policy = require("weir.app.policy")
local servers_of = require("weir.asyncapi.servers")
local text = require("weir.asyncapi.text")

local unpack = table.unpack or rawget(_G, "unpack")

local asyncapi = { to_json = text.to_json, to_yaml = text.to_yaml, read = text.read, MAX_BYTES = text.MAX_BYTES }

--- The version of the specification.
asyncapi.VERSION = "3.1.0"

local Builder = {}
Builder.__index = Builder

-- --- information -----------------------------------------------------------------------------------

local function pick(from, ...)
  local result = {}
  for i = 1, select("#", ...) do
    local key = select(i, ...)
    local value = type(from) == "table" and from[key]
    result[key] = type(value) == "string" and value or nil
  end
  return next(result) and result or nil
end

local function tags_of(tags)
  local list = {}
  for _, tag in ipairs(type(tags) == "table" and tags or {}) do
    if type(tag) == "string" then
      tag = { name = tag }
    end
    local written = pick(tag, "name", "description")
    if written and written.name then
      written.externalDocs = pick(tag.external_docs or tag.externalDocs, "url", "description")
      list[#list + 1] = written
    end
  end
  return #list > 0 and list or nil
end

local function info_of(about)
  return {
    title = about.title,
    version = about.version,
    description = about.description,
    termsOfService = about.terms_of_service,
    contact = pick(about.contact, "name", "url", "email"),
    license = pick(about.license, "name", "url"),
    tags = tags_of(about.tags),
    externalDocs = pick(about.external_docs, "url", "description"),
  }
end

-- --- channels --------------------------------------------------------------------------------------

function Builder:broker(label)
  return self.by_label[label] or self.about.brokers[1] or { label = label or "default", kind = "unknown" }
end

-- An id among those of a broker: the first broker is meant where none is named.
function Builder:id(label, ...)
  local first = self.about.brokers[1]
  if label and first and first.label ~= label then
    return name.join(label, ...)
  end
  return name.join(...)
end

function Builder:channel(label, destination, pattern)
  local id = self:id(label, destination)
  local channel = self.channels[id]
  if not channel then
    local plain = name.without_credentials(destination)
    local address, parameters = name.address(plain, pattern)
    channel = { id = id, broker = self:broker(label), name = plain }
    channel.written = {
      address = address,
      parameters = parameters,
      servers = self.servers_of[label],
      ["x-weir-pattern"] = pattern and plain or nil,
    }
    self.channels[id] = channel
    table.insert(self.order, channel)
  end
  return channel
end

-- The name of a handler, for people.
local function shown(handler)
  return name.without_credentials(handler.id)
end

-- A channel without an address: where a message or a caller says. Its id is settled when all others are known.
function Builder:open_channel(label, id, what)
  local channel = { wanted = id, broker = self:broker(label), name = what }
  channel.written = { address = codec.null, servers = self.servers_of[label] }
  table.insert(self.order, channel)
  return channel
end

-- --- operations ------------------------------------------------------------------------------------

-- Handlers without a name that have a table of headers as filter are told apart by it, rather than by their order.
function Builder:handler_id(subscription, handler)
  if type(handler.filter) ~= "table" or handler.name then
    return self:id(subscription.broker, handler.id)
  end
  local headers, parts = {}, { subscription.id }
  for header in pairs(handler.filter) do
    headers[#headers + 1] = header
  end
  table.sort(headers)
  for _, header in ipairs(headers) do
    parts[#parts + 1] = header:lower()
    parts[#parts + 1] = name.is_secret(header) and "*" or handler.filter[header]
  end
  return self:id(subscription.broker, unpack(parts))
end

local function retry_of(rules)
  if rules.retry == false then
    return { maxAttempts = 1 }
  end
  local retry = rules.retry or {}
  local unlimited = retry.max_attempts == false
  return {
    maxAttempts = not unlimited and (retry.max_attempts or policy.MAX_ATTEMPTS) or nil,
    unlimited = unlimited or nil,
    backoff = retry.backoff or "exponential",
    on = type(retry.on) == "table" and next(retry.on) and retry.on or nil,
    to = retry.to and name.without_credentials(retry.to),
  }
end

function Builder:dead_letter_of(rules)
  local place = rules.dead_letter
  if type(place) ~= "table" then
    return nil
  end
  return { address = name.without_credentials(place.to), servers = self.servers_of[place.broker] }
end

function Builder:add_operation(id, operation)
  name.unused(self.operations, id, operation)
end

-- Adds an operation that sends to a channel what a place or a publisher says.
function Builder:send(id, channel, place, details)
  local use = self.messages:note(channel, {
    by = id,
    action = "send",
    schema = place.schema,
    header_schema = place.header_schema,
    content_type = place.content_type or details.content_type,
    what = details.what,
  })
  self:add_operation("send." .. id, {
    action = "send",
    channel = channel,
    summary = details.summary,
    use = use,
    bindings = bindings.operation(channel.broker, "send"),
  })
end

function Builder:reply(label, handler, id)
  local place = handler.reply
  if not place then
    return nil
  end
  local open = place == true or place.to == true
  local details = place == true and {} or place
  local target = details.broker or label
  local channel = open and self:open_channel(target, id .. "_-reply", "the answer of " .. shown(handler))
    or self:channel(target, place.to)
  local use = self.messages:note(channel, {
    by = id .. "_-reply",
    action = "send",
    schema = details.schema,
    header_schema = details.header_schema,
    content_type = details.content_type or handler.content_type,
    what = ("the reply of the handler '%s'"):format(shown(handler)),
  })
  local address
  if open then
    address = {
      location = "$message.header#/reply-to",
      description = "Where the message asks for it; brokers with requests of their own know it without a header.",
    }
  end
  return { channel = channel, use = use, address = address }
end

function Builder:outputs(label, handler, id)
  local names = {}
  for output in pairs(handler.outputs or {}) do
    names[#names + 1] = output
  end
  table.sort(names)
  for _, output in ipairs(names) do
    local place = handler.outputs[output]
    self:send(id .. "_-" .. name.id(output), self:channel(place.broker or label, place.to), place, {
      content_type = handler.content_type,
      summary = ("The output '%s' of the handler '%s'."):format(output, shown(handler)),
      what = ("the output '%s' of the handler '%s'"):format(output, shown(handler)),
    })
  end
end

local function subscription_of(settings)
  local result = {}
  for key, value in pairs(settings or {}) do
    result[key] = key ~= "kind" and name.without_credentials(value) or nil
  end
  return next(result) and result or nil
end

function Builder:receive(subscription, handler)
  local label = subscription.broker
  local id = self:handler_id(subscription, handler)
  local channel = self:channel(label, subscription.name, subscription.pattern)
  local use = self.messages:note(channel, {
    by = id,
    action = "receive",
    schema = handler.schema,
    header_schema = handler.header_schema,
    content_type = handler.content_type,
    filter = handler.filter,
    what = ("the handler '%s'"):format(shown(handler)),
  })
  self:add_operation("receive." .. id, {
    action = "receive",
    channel = channel,
    title = handler.title,
    summary = handler.summary,
    description = handler.description,
    use = use,
    reply = self:reply(label, handler, id),
    bindings = bindings.operation(channel.broker, "receive", subscription.settings),
    ["x-weir-retry"] = retry_of(handler.policy),
    ["x-weir-dead-letter"] = self:dead_letter_of(handler.policy),
    ["x-weir-batch"] = subscription.batch or nil,
    ["x-weir-subscription"] = subscription_of(subscription.settings),
    ["x-weir-deprecated"] = handler.deprecated,
  })
  self:outputs(label, handler, id)
end

local function json_of(schema)
  return schema and schema:to_json() or false
end

-- Whether a publisher that says the same was there before: programs make them where they need them.
local function is_known(known, id, publisher)
  local said = { publisher.content_type or false, json_of(publisher.schema), json_of(publisher.header_schema) }
  local key = ("%s %s"):format(id, assert(text.to_json(said)))
  local before = known[key]
  known[key] = true
  return before
end

-- A publisher that has no destination of its own sends to an address that is not known.
function Builder:publisher(publisher, known)
  local label, to, called = publisher.broker, publisher.to, publisher.name
  local id, what, channel
  if to then
    id, what = self:id(label, called or to), ("the publisher '%s'"):format(name.without_credentials(called or to))
  elseif called then
    id, what = self:id(label, called), ("the publisher '%s'"):format(name.without_credentials(called))
  else
    local title = publisher.schema and publisher.schema.title
    id = title and self:id(label, "publisher", title) or self:id(label, "publisher")
    what = "a publisher without a name"
  end
  if not is_known(known, id .. " " .. (to or ""), publisher) then
    channel = to and self:channel(label, to) or self:open_channel(label, id .. "_-anywhere", "anywhere")
    self:send(id, channel, publisher, { what = what })
  end
end

function Builder:collect()
  local known = {}
  for _, subscription in ipairs(self.about.subscriptions) do
    for _, handler in ipairs(subscription.handlers) do
      self:receive(subscription, handler)
    end
  end
  for _, publisher in ipairs(self.about.publishers) do
    self:publisher(publisher, known)
  end
end

-- --- writing ---------------------------------------------------------------------------------------

local function references(use)
  local list = {}
  for i, message in ipairs(use.messages) do
    list[i] = { ["$ref"] = ("#/channels/%s/messages/%s"):format(use.channel.id, message.key) }
  end
  return list
end

local function channel_reference(channel)
  return { ["$ref"] = "#/channels/" .. channel.id }
end

local function finish(operation)
  operation.channel, operation.messages = channel_reference(operation.channel), references(operation.use)
  operation.use = nil
  local reply = operation.reply
  if reply then
    reply.channel, reply.messages, reply.use = channel_reference(reply.channel), references(reply.use), nil
  end
  return operation
end

function Builder:write_channels()
  local channels = {}
  for _, channel in ipairs(self.order) do
    channel.id = channel.id or name.unused(self.channels, channel.wanted, channel)
  end
  for _, channel in ipairs(self.order) do
    self.messages:resolve(channel)
    local messages = {}
    for _, message in ipairs(channel.messages) do
      messages[message.key] = { ["$ref"] = "#/components/messages/" .. message.id }
    end
    channel.written.messages = messages
    channels[channel.id] = channel.written
  end
  return channels
end

-- The content type that all messages have; nil where they differ.
local function common_content_type(list)
  local common = list[1] and list[1].content_type
  for _, message in ipairs(list) do
    common = message.content_type == common and common or nil
  end
  return common
end

-- What people have written into descriptions, schemas and options has no credentials in it, either. Patterns are not
-- texts.
local function scrub(value)
  for key, each in pairs(value) do
    if type(each) == "string" and key ~= "pattern" then
      value[key] = name.without_credentials(each)
    elseif type(each) == "table" then
      scrub(each)
    end
  end
  return value
end

local function uri(id)
  return type(id) == "string" and id:find("^%a[%w+.-]*:[^%s]+$") and id or nil
end

local function build(about)
  local self = setmetatable({
    about = about,
    by_label = {},
    servers_of = {},
    channels = {},
    order = {},
    operations = {},
    messages = new_messages(),
  }, Builder)
  local servers, schemes = {}, {}
  for _, broker in ipairs(about.brokers) do
    self.by_label[broker.label] = broker
    self.servers_of[broker.label] = servers_of(broker, servers, schemes)
  end
  self:collect()
  local channels, components = self:write_channels(), {}
  for _, operation in pairs(self.operations) do
    finish(operation)
  end
  self.messages:write(components)
  components.securitySchemes = next(schemes) and schemes or nil
  return scrub({
    asyncapi = asyncapi.VERSION,
    id = uri(about.id),
    info = info_of(about),
    defaultContentType = common_content_type(self.messages.list),
    servers = next(servers) and servers or nil,
    channels = channels,
    operations = self.operations,
    components = components,
  }), self.messages.missing
end

--- Describes an application.
-- @tparam table app an application, or what its `describe` has returned
-- @treturn ?table the document, which is the caller's own; null in it is `weir.codec`'s
-- @return the messages without a schema, a list of `{ channel, message, what }`; or, after nil, an error "wiring" with
--   the list `mistakes`, since an application that could not start has no document; or "encode", for a schema with
--   something in it that JSON does not have
function asyncapi.document(app)
  local about = type(app) == "table" and getmetatable(app) and app.describe and app:describe() or app
  if type(about) ~= "table" or type(about.subscriptions) ~= "table" then
    error("asyncapi.document: an application is expected, or what its describe() returns, not a " .. type(app), 2)
  elseif #about.mistakes > 0 then
    local lines = {}
    for i, mistake in ipairs(about.mistakes) do
      lines[i] = ("%s: %s"):format(mistake.source, mistake.message)
    end
    return nil, errors.new("wiring", table.concat(lines, "\n"), { mistakes = about.mistakes })
  end
  local ok, document, missing = pcall(build, about)
  if ok then
    return document, missing
  elseif errors.is(document, "encode") then
    return nil, document
  end
  error(document, 0)
end

return asyncapi
