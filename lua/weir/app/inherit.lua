--- How handlers inherit options: from the application, their broker and the routers that they are in.
-- @module weir.app.inherit

local codec = require("weir.codec")
local settings = require("weir.app.settings")

local inherit = {}

--- Puts a prefix before a name. A name that begins with "/" stands for itself, without the "/".
-- @tparam ?string prefix nil outside of routers, where every name stands for itself
-- @tparam string name
function inherit.full_name(prefix, name)
  if not prefix then
    return name
  elseif name:sub(1, 1) == "/" then
    return name:sub(2)
  end
  return prefix .. name
end

--- A destination as `{ to, broker, codec, schema, header_schema }`, with the prefix before its name; `to`
-- stays true where it is.
function inherit.place(prefix, value)
  if type(value) == "string" then
    return { to = inherit.full_name(prefix, value) }
  end
  local to = value.to
  local copy = { to = type(to) == "string" and inherit.full_name(prefix, to) or to, broker = value.broker }
  copy.codec = value.codec and codec.get(value.codec) or nil
  copy.schema, copy.header_schema = settings.schema_of(value.schema), settings.header_schema_of(value.header_schema)
  return copy
end

local function append(list, more)
  for i = 1, #(more or {}) do
    list[#list + 1] = more[i]
  end
end

-- Sets the fields of `from` in `into`.
local function overlay(into, from)
  into = into or {}
  for name, value in pairs(from) do
    into[name] = value
  end
  return into
end

local function add_retry(policy, value, prefix)
  if value == nil then
    return
  elseif value == false then
    policy.retry = { max_attempts = 1 }
    return
  end
  local merged = overlay({}, policy.retry or {})
  local former = merged.backoff
  overlay(merged, value)
  if type(value.backoff) == "table" and type(former) == "table" then
    merged.backoff = overlay(overlay({}, former), value.backoff)
  end
  if type(value.on) == "table" and type((policy.retry or {}).on) == "table" and not settings.is_callable(value.on) then
    merged.on = overlay(overlay({}, policy.retry.on), value.on)
  end
  if value.to then
    merged.to = inherit.full_name(prefix, value.to)
  end
  policy.retry = merged
end

local CLASSES = { "decode", "schema", "timeout", "error", "unknown_outcome", "no_handler" }

local function add_on_failure(policy, value)
  if type(value) == "string" then
    local all = { exhausted = value ~= "retry" and value or nil }
    for _, class in ipairs(CLASSES) do
      all[class] = value
    end
    policy.on_failure = all
  elseif value then
    policy.on_failure = overlay(overlay({}, policy.on_failure or {}), value)
  end
end

local function add_policy(policy, options, prefix)
  add_retry(policy, options.retry, prefix)
  add_on_failure(policy, options.on_failure)
  local dead = options.dead_letter
  if dead == false then
    policy.dead_letter = false
  elseif dead then
    policy.dead_letter = inherit.place(prefix, dead)
  end
end

--- `workers` as `{ count, by }`.
function inherit.workers(value)
  if type(value) == "table" then
    return { count = value.count or value[1] or 1, by = value.by }
  end
  return { count = value or 1 }
end

--- What a handler has, by all the levels it is in: the nearest counts, field by field in `retry` and `on_failure`;
-- middleware of all levels is run, that of the outer ones around that of the inner ones.
-- @tparam table levels_ from the application to the handler: `{ options, prefix }`; the options are good ones
-- @treturn table `codec`, `timeout`, `workers`, `middleware`, `publish_middleware`, `policy` with `retry`,
--   `dead_letter` (`{ to, broker }` or false) and `on_failure`
function inherit.merge(levels_)
  local merged = { middleware = {}, publish_middleware = {}, policy = {} }
  for _, each in ipairs(levels_) do
    local options = each.options
    merged.codec = options.codec or merged.codec
    if options.timeout ~= nil then
      merged.timeout = options.timeout
    end
    merged.workers = options.workers or merged.workers
    append(merged.middleware, options.middleware)
    append(merged.publish_middleware, options.publish_middleware)
    add_policy(merged.policy, options, each.prefix)
  end
  merged.codec = merged.codec and codec.get(merged.codec)
  merged.timeout = merged.timeout or nil
  merged.workers = inherit.workers(merged.workers)
  return merged
end

return inherit
