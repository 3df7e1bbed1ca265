--- An application as plain data: for documents, tests and people.
-- @module weir.app.describe

local codecs = require("weir.codec")
local check = require("weir.app.check")
local settings = require("weir.app.settings")

local M = {}

local INFO = { "description", "contact", "license", "tags", "id", "terms_of_service", "external_docs" }

local function destination(label, value)
  if value == nil or value == true then
    return value
  elseif type(value) == "string" then
    return { to = value, broker = label }
  end
  return {
    to = value.to,
    broker = value.broker or label,
    codec = value.codec and value.codec.name,
    content_type = value.codec and value.codec.content_type,
    schema = value.schema,
    header_schema = value.header_schema,
  }
end

-- What the bytes of a codec are called; a codec of the user's own may not say.
local function content_type(codec)
  local ok, known = pcall(codecs.get, codec or "json")
  return ok and known.content_type or nil
end

local function describe_policy(label, policy)
  local retry
  if policy.retry then
    retry = { max_attempts = policy.retry.max_attempts, backoff = policy.retry.backoff, to = policy.retry.to }
    if type(policy.retry.on) == "table" then
      retry.on = policy.retry.on
    end
  end
  local dead = policy.dead_letter
  return { retry = retry, dead_letter = dead and destination(label, dead) or dead, on_failure = policy.on_failure }
end

local function describe_handler(label, handler)
  local options = handler.options
  local outputs
  for name, value in pairs(handler.outputs or {}) do
    outputs = outputs or {}
    outputs[name] = destination(label, value)
  end
  return {
    id = handler.id,
    name = handler.name,
    source = handler.source,
    title = options.title,
    summary = options.summary,
    description = options.description,
    deprecated = options.deprecated,
    codec = handler.codec and handler.codec.name,
    content_type = content_type(handler.codec),
    schema = handler.schema,
    header_schema = handler.header_schema,
    filter = type(options.filter) == "table" and options.filter or options.filter ~= nil or nil,
    reply = destination(label, handler.reply),
    outputs = outputs,
    timeout = handler.timeout,
    manual = handler.manual,
    transactional = handler.transactional,
    policy = describe_policy(label, handler.policy),
    middleware = #handler.middleware,
  }
end

local SETTINGS = { "kind", "group", "queue", "stream", "durable", "consumer" }

-- What of a descriptor others have to know in order to share the subscription.
local function settings_of(descriptor)
  local result = {}
  for _, name in ipairs(SETTINGS) do
    local value = descriptor[name]
    result[name] = type(value) == "string" and value or nil
  end
  return next(result) and result or nil
end

local function describe_subscription(each)
  local label = each.broker.label
  local handlers = {}
  for i, handler in ipairs(each.handlers) do
    handlers[i] = describe_handler(label, handler)
  end
  local by = each.workers.by
  return {
    id = each.id,
    broker = label,
    name = each.descriptor.name,
    pattern = each.descriptor.pattern or false,
    settings = settings_of(each.descriptor),
    batch = each.batch and { max = each.batch.max, linger = each.batch.linger },
    workers = { count = each.workers.count, by = by and (by == "key" and "key" or "function") or nil },
    source = each.source,
    handlers = handlers,
  }
end

--- Describes an application, whether it runs or not.
-- @tparam table app
-- @treturn table `title`, `version`, the rest of its information; `brokers`, `subscriptions` and `publishers`, each a
--   list; `mistakes`, what `check` finds. Schemas are what the handlers were given.
function M.describe(app)
  local running = app.running
  local report, list, found = check.run(app, running and running.replaced, running and running.links)
  local result = { title = app.title, version = app.version, brokers = {}, subscriptions = {}, publishers = {} }
  for _, name in ipairs(INFO) do
    result[name] = app.options[name]
  end
  local by_label = {} -- codecs
  for i, link in ipairs(found.links) do
    by_label[link.label] = link.options.codec
    result.brokers[i] = {
      label = link.label,
      kind = link.broker.kind,
      server = link.broker:describe(),
      description = link.options.description,
      codec = type(link.options.codec) == "string" and link.options.codec or nil,
    }
  end
  for i, each in ipairs(list) do
    result.subscriptions[i] = describe_subscription(each)
  end
  for i, each in ipairs(app.publishers) do
    local options = each.options
    local label = options.broker or (found.links[1] and found.links[1].label)
    local codec = options.codec
    local _, good = settings.check("publisher", options)
    result.publishers[i] = {
      name = options.name,
      to = options.to,
      broker = label,
      codec = type(codec) == "table" and codec.name or codec,
      content_type = content_type(good.codec or by_label[label] or app.options.codec),
      schema = good.schema,
      header_schema = good.header_schema,
      source = each.source,
    }
  end
  result.mistakes = {}
  for i, mistake in ipairs(report.mistakes) do
    result.mistakes[i] = { source = mistake.source, message = mistake.message }
  end
  return result
end

return M
