--- Whether the parts of an application fit together, before anything connects.
--
-- Every mistake is found and said at once, with the place of what was registered.
-- @module weir.app.check

local contract = require("weir.broker.contract")
local new_report = require("weir.app.report")
local registration = require("weir.app.registration")
local settings = require("weir.app.settings")

local M = {}

local function lacks(report, handler, what, capability, broker)
  report:mistake(handler.source, "%s, but the broker '%s' lacks '%s' here: %s", what, broker.kind, capability,
    contract.capabilities[capability])
end

-- The broker and the name of a destination.
local function place_of(each, value)
  if type(value) == "table" then
    return value.broker or each.broker.label, value.to
  end
  return each.broker.label, value
end

-- Whether a message that is published there comes to the subscription again.
local function returns_to(each, label, name)
  return label == each.broker.label and not each.descriptor.pattern and name == each.descriptor.name
end

-- --- capabilities ---------------------------------------------------------------------------------

local function check_capabilities(report, each, handler, can)
  local broker = each.broker.broker
  if each.batch and not can.batch then
    lacks(report, handler, each.what .. " takes batches", "batch", broker)
  end
  if each.workers.by == "key" and not can.key then
    lacks(report, handler, each.what .. " has workers by key", "key", broker)
  end
  if handler.manual and not can.ack then
    lacks(report, handler, each.what .. " settles by itself (ack = \"manual\")", "ack", broker)
  end
  if not can.ack and (handler.policy.retry or handler.policy.dead_letter) then
    report:warning(handler.source, "%s: the broker '%s' settles nothing here, so what is being retried is lost when"
      .. " this process ends", each.what, broker.kind)
  end
end

-- What is published together has to go to one broker, and before the message is settled.
local function check_transactional(report, each, handler, can)
  if not handler.transactional then
    return
  elseif not can.transactions then
    lacks(report, handler, each.what .. " is transactional", "transactions", each.broker.broker)
  elseif handler.manual then
    report:mistake(handler.source, "%s is transactional and settles by itself (ack = \"manual\"): what it publishes"
      .. " becomes visible when it ends, so it must be done then", each.what)
  end
  local places = { reply = handler.reply }
  for name, place in pairs(handler.outputs or {}) do
    places["outputs." .. name] = place
  end
  for name, place in pairs(places) do
    local label = type(place) == "table" and place.broker
    if label and label ~= each.broker.label then
      report:mistake(handler.source, "%s is transactional, but its '%s' goes to the broker '%s'; a transaction does not"
        .. " reach further than its own", each.what, name, label)
    end
  end
end

-- --- dead letters ---------------------------------------------------------------------------------

-- Whether anything that can happen leads to dead letters.
local function has_reach(policy)
  local actions = policy.on_failure or {}
  local limited = not policy.retry or policy.retry.max_attempts ~= false
  if limited and (actions.exhausted or "dead_letter") == "dead_letter" then
    return true
  end
  for _, class in ipairs({ "decode", "schema" }) do
    if (actions[class] or "dead_letter") == "dead_letter" then
      return true
    end
  end
  for _, class in ipairs({ "timeout", "error", "unknown_outcome" }) do
    if actions[class] == "dead_letter" then
      return true
    end
  end
  local on = policy.retry and policy.retry.on
  if type(on) == "table" and not settings.is_callable(on) then
    for _, action in pairs(on) do
      if action == "dead_letter" then
        return true
      end
    end
    return false
  end
  return on ~= nil -- a function may say so
end

-- Which of the settings asks for dead letters by name.
local function asks_for(policy)
  for class, action in pairs(policy.on_failure or {}) do
    if action == "dead_letter" then
      return "on_failure." .. class
    end
  end
  local on = policy.retry and policy.retry.on
  if type(on) == "table" and not settings.is_callable(on) then
    for class, action in pairs(on) do
      if action == "dead_letter" then
        return "retry.on." .. tostring(class)
      end
    end
  end
end

local function check_dead_letter(report, each, handler)
  local policy = handler.policy
  if not policy.dead_letter then
    local asking = asks_for(policy)
    if asking then
      report:mistake(handler.source, "%s: '%s' is \"dead_letter\", but there is no 'dead_letter'", each.what, asking)
    end
    return
  end
  local label, name = place_of(each, policy.dead_letter)
  if returns_to(each, label, name) then
    report:mistake(handler.source, "%s: its dead letters go to '%s', from where they come again and again", each.what,
      name)
  end
  if not has_reach(policy) then
    report:mistake(handler.source, "%s: nothing ever gets to 'dead_letter' ('%s'): attempts have no limit, or"
      .. " 'on_failure' says something else everywhere", each.what, name)
  end
end

-- --- the rest -------------------------------------------------------------------------------------

local function check_backoff(report, each, handler)
  local retry = handler.policy.retry
  local backoff = retry and retry.backoff
  if type(backoff) == "table" and backoff.initial and backoff.max and backoff.initial > backoff.max then
    report:mistake(handler.source, "%s: 'retry.backoff.initial' (%g) is more than 'retry.backoff.max' (%g)", each.what,
      backoff.initial, backoff.max)
  end
  if each.workers.by and each.workers.count == 1 then
    report:warning(handler.source, "%s: 'workers.by' changes nothing with one worker", each.what)
  end
end

local function check_loops(report, each, handler)
  if type(handler.reply) ~= "boolean" and handler.reply then
    local label, name = place_of(each, handler.reply)
    if returns_to(each, label, name) then
      report:warning(handler.source, "%s: its replies go to '%s', from where they come to it again", each.what, name)
    end
  end
end

local function check_schema(report, each, handler)
  if handler.schema and handler.codec and handler.codec.raw then
    report:warning(handler.source, "%s: with the codec 'raw' the schema sees texts only", each.what)
  end
end

local function check_publishers(report, links, app)
  for _, each in ipairs(app.publishers) do
    local problems, good = settings.check("publisher", each.options)
    for _, problem in ipairs(problems) do
      report:mistake(each.source, "publisher: %s", problem)
    end
    if good.broker then
      links:link(good.broker, each.source)
    end
  end
end

--- Resolves an application and checks it.
-- @tparam table app
-- @tparam[opt] table replaced brokers by label
-- @tparam[opt] table links those of the running application
-- @treturn table report of `weir.app.report`
-- @treturn {table,...} registrations
-- @treturn table what finds brokers: its `links` are all of them
function M.run(app, replaced, links)
  local report = new_report()
  local list, found = registration.resolve(app, report, replaced, links)
  for _, each in ipairs(list) do
    local can = each.broker.broker:capabilities(each.descriptor)
    for _, handler in ipairs(each.handlers) do
      check_capabilities(report, each, handler, can)
      check_transactional(report, each, handler, can)
      check_dead_letter(report, each, handler)
      check_backoff(report, each, handler)
      check_loops(report, each, handler)
      check_schema(report, each, handler)
    end
  end
  check_publishers(report, found, app)
  report:sort()
  return report, list, found
end

return M
