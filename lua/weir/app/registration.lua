--- From what was registered with an application to its *registrations*: one for each subscription, with the handlers
-- that share it, all options inherited, all names whole.
--
-- A registration is a table: `id` (unique among those of a broker), `broker` (`{ label, broker }`),
-- `descriptor`, `spec` (what the descriptor was made from), `workers` (`{ count, by }`), `batch` (`{ max, linger }` or
-- nil), `source` ("file:line") and `handlers`, a list in which the one without a filter is the last. A handler has
-- `id`, `fn`, `filter` (`function(ctx, value)` or nil), `codec`, `schema`, `header_schema`, `timeout`, `reply` (true or
-- a destination), `outputs` (names to destinations), `manual` (it settles itself), `transactional`, `middleware`,
-- `publish_middleware`, `policy` and `source`. A destination is a name, or `{ to, broker, codec, schema,
-- header_schema }`; that of a reply may have true as `to`.
-- @module weir.app.registration

local inherit = require("weir.app.inherit")
local nearest = require("weir.nearest")
local settings = require("weir.app.settings")
local share = require("weir.app.share")

local M = {}

local Resolver = {}
Resolver.__index = Resolver

-- --- brokers --------------------------------------------------------------------------------------

--- Finds the broker with a label (the first without one); reports when there is none.
-- @treturn ?table `{ label, broker, options }`
function Resolver:link(label, source)
  if not label then
    return self.links[1]
  end
  local labels = {}
  for i, link in ipairs(self.links) do
    if link.label == label then
      return link
    end
    labels[i] = link.label
  end
  local meant = nearest(label, labels)
  local hint = meant and ("did you mean '%s'?"):format(meant) or "there are: " .. table.concat(labels, ", ")
  self.report:mistake(source, "no broker has the label '%s'; %s", label, hint)
end

local function add_links(self, app, replaced, kept)
  for i, attached in ipairs(app.brokers) do
    local problems, good = settings.check("broker", attached.options)
    for _, problem in ipairs(problems) do
      self.report:mistake(attached.source, "broker '%s': %s", attached.label, problem)
    end
    for _, link in ipairs(self.links) do
      if link.label == attached.label then
        self.report:mistake(attached.source, "two brokers have the label '%s' (the other: %s); give one a 'label'",
          link.label, link.source)
      end
    end
    local link = kept and kept[i] or {
      label = attached.label,
      broker = replaced and replaced[attached.label] or attached.broker,
    }
    link.options, link.source = good, attached.source
    self.links[#self.links + 1] = link
  end
  if #self.links == 0 and #app.broken == 0 then
    self.report:mistake(app.source, "the application has no broker; add one: app:broker(\"memory:\")")
  end
end

-- --- filters --------------------------------------------------------------------------------------

-- Headers that a message must have, as a function.
local function compile_filter(filter)
  if settings.is_callable(filter) then
    return filter
  end
  return function(ctx)
    local headers = ctx.headers
    for name, wanted in pairs(filter) do
      if headers[name:lower()] ~= wanted then
        return false
      end
    end
    return true
  end
end

-- --- one handler ----------------------------------------------------------------------------------

-- What the broker is asked for: a table of its options with the whole name; a descriptor stays what it is.
local function spec_of(target, prefix)
  if type(target) == "string" then
    return { name = inherit.full_name(prefix, target) }
  elseif type(target) ~= "table" or getmetatable(target) then
    return target
  end
  local spec = {}
  for name, value in pairs(target) do
    spec[name] = value
  end
  if type(spec.name) == "string" then
    spec.name = inherit.full_name(prefix, spec.name)
  end
  return spec
end

local function describe_spec(spec)
  local ok, name = pcall(function()
    return spec.name
  end)
  return ok and type(name) == "string" and name or "(without a name)"
end

-- A descriptor of its broker, or nil when the broker cannot make one.
local function make_descriptor(self, link, spec, what, source)
  -- A name alone is the commonest wish, and what every broker must understand.
  local only_name = type(spec) == "table" and not getmetatable(spec) and next(spec) == "name"
    and next(spec, "name") == nil
  local ok, descriptor, err = pcall(link.broker.descriptor, link.broker, only_name and spec.name or spec)
  if ok and descriptor then
    return descriptor
  end
  local reason = tostring(ok and (type(err) == "table" and err.message or err) or descriptor)
  self.report:mistake(source, "%s", ("%s: %s"):format(what, (reason:gsub("^[^\n:]-:%d+: ", ""))))
end

-- A destination in its shortest form; reports unknown brokers.
local function destination(self, link, prefix, value, source)
  local place = inherit.place(prefix, value)
  if place.broker and not self:link(place.broker, source) then
    return nil
  elseif place.broker == link.label then
    place.broker = nil
  end
  return (place.broker or place.codec or place.schema or place.header_schema) and place or place.to
end

local function add_reply(self, handler, good, link, prefix, what)
  if good.reply == true then
    handler.reply = true
  elseif good.reply then
    if type(good.reply) == "table" and not good.reply.to then
      self.report:mistake(handler.source, "%s: 'reply' has no 'to'; give a name, or reply = true for where the"
        .. " message asks for it", what)
      return
    elseif type(good.reply) == "table" and good.reply.to == true and good.reply.broker then
      self.report:mistake(handler.source, "%s: the reply goes where the message asks for it (to = true), so 'broker'"
        .. " has no meaning", what)
      return
    end
    handler.reply = destination(self, link, prefix, good.reply, handler.source)
  end
end

local function add_outputs(self, handler, good, link, prefix, what)
  for name, value in pairs(good.outputs or {}) do
    handler.outputs = handler.outputs or {}
    if type(value) == "table" and not value.to then
      self.report:mistake(handler.source, "%s: the output '%s' has no 'to'", what, name)
    else
      handler.outputs[name] = destination(self, link, prefix, value, handler.source)
    end
  end
end

local function check_dead_letter(self, policy, link, source)
  local dead = policy.dead_letter
  if not dead then
    return
  end
  if dead.broker and not self:link(dead.broker, source) then
    policy.dead_letter = nil
  elseif not dead.to then
    self.report:mistake(source, "'dead_letter' has no 'to': where are dead letters to go?")
    policy.dead_letter = nil
  elseif dead.broker == link.label then
    dead.broker = nil
  end
end

local function make_handler(self, entry, good, scope, link, what)
  local levels = { { options = self.app_options }, { options = link.options } }
  for _, level in ipairs(scope.levels) do
    levels[#levels + 1] = level
  end
  levels[#levels + 1] = { options = good, prefix = scope.prefix }
  local merged = inherit.merge(levels)
  local handler = {
    fn = entry.fn,
    name = good.name,
    filter = good.filter and compile_filter(good.filter),
    codec = merged.codec,
    schema = good.schema,
    header_schema = good.header_schema,
    timeout = merged.timeout,
    manual = good.ack == "manual" or nil,
    transactional = good.transactional or nil,
    middleware = merged.middleware,
    publish_middleware = merged.publish_middleware,
    policy = merged.policy,
    source = entry.source,
    options = good,
    entry = entry,
  }
  add_reply(self, handler, good, link, scope.prefix, what)
  add_outputs(self, handler, good, link, scope.prefix, what)
  check_dead_letter(self, handler.policy, link, entry.source)
  return handler, merged
end

-- The name of a subscription among those of its broker.
local function base_id(spec, descriptor)
  local name = tostring(descriptor.name)
  local from = type(spec) == "table" and spec or descriptor
  for _, field in ipairs({ "group", "queue", "durable" }) do
    local value = from[field]
    if type(value) == "string" then
      return name .. "/" .. value
    end
  end
  return name
end

local function add_entry(self, entry, scope)
  local spec = spec_of(entry.target, scope.prefix)
  local what = ("%s '%s'"):format(entry.kind, describe_spec(spec))
  local problems, good = settings.check(entry.kind, entry.options)
  for _, problem in ipairs(problems) do
    self.report:mistake(entry.source, "%s: %s", what, problem)
  end
  local link = self:link(good.broker or scope.broker, entry.source)
  local descriptor = link and make_descriptor(self, link, spec, what, entry.source)
  if not descriptor then
    return
  end
  local handler, merged = make_handler(self, entry, good, scope, link, what)
  local key = link.label .. "\0" .. share.canonical(spec, 1)
  local registration = self.by_key[key]
  if not registration then
    registration = {
      key = key,
      base = base_id(spec, descriptor),
      broker = link,
      descriptor = descriptor,
      spec = spec,
      what = what,
      workers = merged.workers,
      source = entry.source,
      handlers = {},
    }
    self.by_key[key] = registration
    self.list[#self.list + 1] = registration
  end
  handler.workers, handler.kind = merged.workers, entry.kind
  table.insert(registration.handlers, handler)
end

-- --- routers --------------------------------------------------------------------------------------

local walk

local function enter_router(self, entry, scope)
  local router = entry.router
  if scope.inside[router] then
    return self.report:mistake(entry.source, "the router is included in itself")
  end
  local problems, around = settings.check("include", entry.options)
  for _, problem in ipairs(problems) do
    self.report:mistake(entry.source, "include: %s", problem)
  end
  local own
  problems, own = settings.check("router", router.options)
  for _, problem in ipairs(problems) do
    self.report:mistake(router.source, "router: %s", problem)
  end
  local prefix = (scope.prefix or "") .. (around.prefix or "") .. (own.prefix or "")
  local levels, inside = {}, { [router] = true }
  for i, level in ipairs(scope.levels) do
    levels[i] = level
  end
  for each in pairs(scope.inside) do
    inside[each] = true
  end
  levels[#levels + 1] = { options = own, prefix = prefix }
  walk(self, router.entries, {
    prefix = prefix,
    broker = around.broker or own.broker or scope.broker,
    levels = levels,
    inside = inside,
  })
end

function walk(self, entries, scope)
  for _, entry in ipairs(entries) do
    if entry.kind == "include" then
      enter_router(self, entry, scope)
    else
      add_entry(self, entry, scope)
    end
  end
end

--- Makes the registrations of an application.
-- @tparam table app
-- @param report of `weir.app.report`: gets what is wrong with options and names
-- @tparam[opt] table replaced brokers by label, in place of those of the application
-- @tparam[opt] {table,...} kept the links of the running application, to which the registrations then belong
-- @treturn {table,...} the registrations, in order
-- @treturn table what finds brokers: its `links` are `{ label, broker, options, source }` in order
function M.resolve(app, report, replaced, kept)
  local self = setmetatable({ report = report, links = {}, by_key = {}, list = {}, ids = {} }, Resolver)
  local problems, good = settings.check("app", app.options)
  for _, problem in ipairs(problems) do
    report:mistake(app.source, "weir.app: %s", problem)
  end
  for _, each in ipairs(app.broken) do
    report:mistake(each.source, "%s", each.message)
  end
  self.app_options = good
  add_links(self, app, replaced, kept)
  if #self.links > 0 then
    walk(self, app.entries, { prefix = nil, broker = nil, levels = {}, inside = {} })
  end
  for _, registration in ipairs(self.list) do
    share.settle(report, registration, self.ids)
  end
  return self.list, self
end

return M
