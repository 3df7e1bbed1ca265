--- The open subscriptions of a running application.
-- @module weir.app.subscriptions

local brokers = require("weir.app.brokers")
local check = require("weir.app.check")
local errors = require("weir.errors")
local graves = require("weir.app.graves")
local tasks = require("weir.task")

local M = {}

local STOPPED = "the subscription was stopped meanwhile"

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

-- Only when an application opens something are the parts needed that handle messages.
local function consume()
  return require("weir.app.consume")
end

local function shared_text(open)
  local message = "'%s' has %d handlers on one subscription; they end together"
  return message:format(open.registration.id, #open.registration.handlers)
end

local function open_one(self, registration, deadline)
  local consumer, err = brokers.persist(function(timeout)
    return consume().start(registration, self.env, timeout)
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

-- Which registration has an entry.
local function registration_of(list, entry)
  for _, registration in ipairs(list) do
    for _, handler in ipairs(registration.handlers) do
      if handler.entry == entry then
        return registration
      end
    end
  end
end

local function open_of(self, key)
  for _, open in ipairs(self.consumers) do
    if open.registration.key == key then
      return open
    end
  end
end

-- Has another registration handle the messages of a subscription that stays open.
local function take_over(self, open, registration, timeout)
  local consumer, err = consume().take_over(open.consumer, registration, self.env, timeout)
  if not consumer then
    return nil, err
  end
  consumer.on_stop = give_up(self, registration.id)
  open.registration, open.consumer = registration, consumer
  self.by_key[registration.key] = registration
  return true
end

-- Where a subscription cannot stay open: closes it, and opens that of the registration.
local function reopen(self, open, registration, timeout)
  M.close(self, { open }, timeout)
  local opened, err, before = M.open(self, { registration }, tasks.now() + self.start_timeout)
  if not opened then
    M.close(self, before, timeout)
    return nil, err
  end
  return true
end

--- Has the handlers of a subscription work in another way: with what an entry says that took the place of another in
-- the application. Where the broker can pause, the subscription stays open, so no message is lost.
-- @param self the running application
-- @tparam table entry
-- @tparam number timeout seconds for the handlers to finish what they began
-- @treturn boolean true; or nil and an error: "wiring", "busy" (somebody is doing that already), "shared" (other
--   handlers are on the subscription, and it cannot stay open), "stopped", or what opening it failed with
-- @treturn ?string with an error what is open: "former", what the former entry says; "none", as what the new one says
--   could not be opened; nil where all was stopped meanwhile
function M.replace(self, entry, timeout)
  local list, err = M.resolve(self, entry)
  local registration = list and registration_of(list, entry)
  local open = registration and open_of(self, registration.key)
  if not open then
    return nil, err or errors.new("stopped", STOPPED), "former"
  elseif open.replacing then
    local message = "'%s' is given anew already, and waits for its handlers to finish"
    return nil, errors.new("busy", message:format(registration.id)), "former"
  end
  local stays = consume().can_be_taken_over(open.consumer)
  if not stays and #registration.handlers > 1 then
    return nil, errors.new("shared", shared_text(open)), "former"
  end
  open.replacing = true
  local ok
  ok, err = graves.declare(self, { registration }, tasks.now() + self.start_timeout)
  if not ok or not open_of(self, registration.key) then
    open.replacing = false
    return nil, err or errors.new("stopped", STOPPED), "former"
  end
  ok, err = (stays and take_over or reopen)(self, open, registration, timeout)
  open.replacing = false
  return ok, err, not ok and not stays and "none" or nil
end

--- Why an entry cannot be closed alone: other handlers share its subscription.
-- @treturn ?table error
function M.shared(self, entry)
  for _, open in ipairs(self.consumers) do
    local handlers = open.registration.handlers
    for _, handler in ipairs(handlers) do
      if handler.entry == entry and #handlers > 1 then
        return errors.new("shared", shared_text(open))
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
