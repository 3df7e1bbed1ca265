--- The open subscriptions of a running application.
-- @module weir.app.subscriptions

local brokers = require("weir.app.brokers")
local check = require("weir.app.check")
local errors = require("weir.errors")
local graves = require("weir.app.graves")
local tasks = require("weir.task")

local M = {}

local function left_until(deadline)
  return math.max(deadline - tasks.now(), 0)
end

-- What a subscription calls that ends for good, or whose handler asked for the end.
local function give_up(self, id)
  return function(err)
    if err ~= nil then
      local is_error = errors.is(err)
      local message = ("'%s': %s"):format(id, is_error and err.message or tostring(err))
      err = is_error and errors.with(err, { message = message }) or errors.new("error", message)
      err.handler = id
    end
    self:request_stop(err)
  end
end

local function open_one(self, registration, deadline)
  local consumer, err = brokers.persist(function(timeout)
    return require("weir.app.consume").start(registration, self.env, timeout)
  end, deadline, function(err, pause)
    local fields = { subscription = registration.id, error = err, after = pause }
    self.log:warn("the subscription cannot be opened; trying again", fields)
  end)
  if not consumer then
    local message = "the subscription '%s' (%s) cannot be opened: %s"
    message = message:format(registration.id, registration.source, err.message)
    return nil, errors.with(err, { message = message })
  end
  consumer.on_stop = give_up(self, registration.id)
  local open = { registration = registration, consumer = consumer }
  self.consumers[#self.consumers + 1] = open
  self.by_key[registration.key] = registration
  return open
end

--- Opens subscriptions; the places of their dead letters are made before.
-- @param self the running application
-- @tparam {table,...} list registrations; those that are open are left out
-- @tparam number deadline
-- @treturn ?{table,...} what was opened
-- @return or an error
-- @return with it, what was opened before: it is for the caller to close
function M.open(self, list, deadline)
  local ok, why = graves.declare(self, list, deadline)
  if not ok then
    return nil, why, {}
  end
  local opened = {}
  for _, registration in ipairs(list) do
    if not self.by_key[registration.key] then
      local open, err = open_one(self, registration, deadline)
      if not open then
        return nil, err, opened
      end
      opened[#opened + 1] = open
    end
  end
  return opened
end

--- Checks the application with what was added to it since it started.
-- @param self the running application
-- @tparam[opt] table entry what was added
-- @treturn ?{table,...} registrations
-- @return or an error of the code "wiring"
function M.resolve(self, entry)
  local report, list = check.run(self.app, self.replaced, self.links)
  for _, each in ipairs(list) do
    local open = self.by_key[each.key]
    if open and #open.handlers ~= #each.handlers then
      local message = "%s: the subscription is open already, handlers cannot be added to it"
      report:mistake(entry and entry.source or each.source, message, each.what)
    end
  end
  if #report.mistakes > 0 then
    return nil, report:error(self.app.title)
  end
  return list
end

local function disorder(self, open, err)
  local fields = { subscription = open.registration.id, error = tostring(err) }
  self.log:error("the subscription did not close in order", fields)
end

local function close_one(self, open, deadline)
  local left = open.consumer:drain(left_until(deadline)) or 0
  local ok, err = open.consumer:close(left_until(deadline))
  if not ok then
    disorder(self, open, err)
  end
  return left
end

--- Closes subscriptions: no more messages are taken, and handlers finish.
-- @param self the running application
-- @tparam {table,...} list of what `open` returned
-- @tparam number timeout seconds for handlers
-- @treturn number messages whose handlers did not finish
function M.close(self, list, timeout)
  local deadline = tasks.now() + timeout
  local closing, kept = {}, {}
  for _, open in ipairs(list) do
    closing[open] = true
    self.by_key[open.registration.key] = nil
    open.consumer:stop()
  end
  for _, open in ipairs(self.consumers) do
    if not closing[open] then
      kept[#kept + 1] = open
    end
  end
  self.consumers = kept
  local jobs, left = {}, 0
  for i, open in ipairs(list) do
    jobs[i] = tasks.spawn(close_one, self, open, deadline)
  end
  for i, job in ipairs(jobs) do
    local ok, count = pcall(job.join, job)
    if ok then
      left = left + (count or 0)
    else
      disorder(self, list[i], count)
    end
  end
  return left
end

--- Why an entry cannot be closed alone: other handlers share its subscription.
-- @treturn ?table error
function M.shared(self, entry)
  for _, open in ipairs(self.consumers) do
    local handlers = open.registration.handlers
    for _, handler in ipairs(handlers) do
      if handler.entry == entry and #handlers > 1 then
        local message = "'%s' has %d handlers on one subscription; they end together"
        return errors.new("shared", message:format(open.registration.id, #handlers))
      end
    end
  end
end

--- What is open and is not registered any more.
function M.surplus(self)
  local _, list = check.run(self.app, self.replaced, self.links)
  local known, surplus = {}, {}
  for _, registration in ipairs(list) do
    known[registration.key] = true
  end
  for _, open in ipairs(self.consumers) do
    if not known[open.registration.key] then
      surplus[#surplus + 1] = open
    end
  end
  return surplus
end

return M
