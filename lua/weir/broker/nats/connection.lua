--- The connection of a NATS broker: its state, publishing, requests and their answers.
--
-- All answers come to one subscription; each request has a subject of its own below it, which is used once:
-- an answer that comes too late finds nobody.
-- @module weir.broker.nats.connection

local errors = require("weir.broker.nats.errors")
local hex = require("weir.hex")
local new_state = require("weir.broker.state")
local receipts = require("weir.broker.nats.receipts")
local runtime = require("weir.runtime")
local waitlist = require("weir.runtime.waitlist")

local ok, native = pcall(require, "weir.brokers.nats")
if not ok then
  error(
    "weir.broker.nats needs the module weir.brokers.nats, which was not built: install libnats (Debian: libnats-dev) "
      .. "and build weir again\n"
      .. tostring(native),
    0
  )
end

local M = { native = native }

local Connection = {}
Connection.__index = Connection

--- Headers of a message that has none.
M.no_headers = setmetatable({}, {
  __newindex = function()
    error("headers of a message are not to be changed", 2)
  end,
})

--- Makes one, not connected.
function M.new(settings)
  local self = setmetatable({
    settings = settings,
    state = new_state(),
    link = nil,
    up = false,
    ready = nil, -- the link while it is up
    ended = nil, -- the error when the connection is gone for good
    changed = waitlist.new(),
    room = waitlist.new(),
    subscriptions = {}, -- by id
    ids = 0,
    slow = {}, -- subscriptions that lost messages and have not caught up
    faults = 0,
    requests = {}, -- by token: functions that take the answer, or nil and an error
    tokens = 0,
    reconnects = 0,
  }, Connection)
  self.receipts = receipts.new(self)
  return self
end

-- --- the state ----------------------------------------------------------------------------------

local function show_state(self)
  if self.ended then
    return
  elseif not self.up then
    self.state:set("degraded", self.reason)
  elseif next(self.slow) then
    self.state:set("degraded", self.slow_reason)
  else
    self.slow_reason = nil
    self.state:set("up")
  end
end

local function fail_requests(self, err)
  local requests = self.requests
  self.requests = {}
  for _, answer in pairs(requests) do
    answer(nil, err)
  end
end

local function finish(self, err)
  self.ended, self.up, self.ready = err, false, nil
  fail_requests(self, err)
  for _, subscription in pairs(self.subscriptions) do
    subscription:connection_ended(err)
  end
  self.room:wake_all()
end

-- The server reports what it did not permit by a sentence.
local function on_fault(self, code, text)
  if code == "slow_consumer" then
    for _, subscription in pairs(self.subscriptions) do
      if subscription:look_for_loss() then
        self.slow[subscription] = true
        self.slow_reason = self.slow_reason or errors.new("slow_consumer", subscription.name)
      end
    end
    return show_state(self)
  end
  self.last_fault = errors.new(code or "protocol", text)
  local refused = self.inbox and text:match("[Pp]ublish to \"([^\"]+)\"")
  if refused and refused:sub(1, #self.inbox) == self.inbox then
    return self:answer(refused:sub(#self.inbox + 1), refused) -- an echo: see `flush`
  end
  local subject = text:match("[Ss]ubscription to \"([^\"]+)\"")
  for _, subscription in pairs(subject and self.subscriptions or {}) do
    if subscription.subject == subject then
      subscription:finish(errors.new("forbidden", text))
    end
  end
end

local function on_changed(self)
  local name, code, text, reconnects, faults, fault, fault_text = self.link:report()
  if faults ~= self.faults then
    self.faults = faults
    on_fault(self, fault, fault_text)
  end
  if name == "up" and not self.up then
    local again = reconnects ~= self.reconnects
    self.up, self.ready, self.reconnects = true, self.link, reconnects
    show_state(self)
    if again then
      for _, subscription in pairs(self.subscriptions) do
        subscription:reconnected()
      end
    end
  elseif name == "down" and not self.ended then
    self.up, self.ready = false, nil
    self.reason = errors.new("disconnected", code ~= "disconnected" and text or nil)
    show_state(self)
    local err = errors.new(self.closing and "closed" or "disconnected")
    fail_requests(self, err)
    self.receipts:disconnected(err)
    self.room:wake_all()
  elseif name == "closed" and not self.ended then
    local err = errors.new(self.closing and "closed" or code or "disconnected", not self.closing and text or nil)
    finish(self, err)
    self.state:set(self.closing and "closed" or "failed", not self.closing and err or nil)
  end
  self.changed:wake_all()
end

local on_answers

local function on_event(self, kind, argument)
  if kind == "ready" then
    local subscription = self.subscriptions[argument]
    if subscription then
      subscription:ready()
    end
  elseif kind == "answers" then
    on_answers(self)
  elseif kind == "drained" then
    self.room:wake_all()
  else
    on_changed(self)
  end
end

-- Waits until `list` is woken; an error when the time is over or the task cancelled.
local function wait(list, deadline)
  local waiter = runtime.own_waiter()
  list:add(waiter)
  local _, err = waiter:wait(deadline)
  list:remove(waiter)
  return err
end

--- Connects. After a failure it may be tried again.
function Connection:open(deadline)
  if self.closing then
    return nil, errors.new("closed")
  elseif not self.link or self.ended then
    self.ended, self.faults, self.reconnects = nil, 0, 0
    self.state:set("connecting")
    local options = self.settings.native
    self.inbox = nil
    local link
    link = native.link(runtime.loop, options, function(kind, argument)
      if self.link == link then
        on_event(self, kind, argument)
      end
    end)
    self.link = link
  end
  while not self.up do
    if self.ended then
      return nil, self.ended
    end
    local err = wait(self.changed, deadline)
    if err then
      if err.code == "timeout" and not self.up and not self.ended then
        self.link:close()
        finish(self, errors.new("timeout"))
        self.state:set("failed", self.ended)
        err = self.ended
      end
      return nil, err
    end
  end
  return true
end

--- Whether something can be asked of it: nil, or the error.
function Connection:unusable()
  if self.closing then
    return errors.new("closed")
  elseif self.ended then
    return self.ended
  elseif not self.link or self.state.name == "connecting" then
    return errors.new("disconnected", "connect first")
  end
end

--- Closes: writes what was published, if the server can be reached in time.
function Connection:shutdown(deadline)
  if self.closing then
    return true
  end
  local flushed, err = true, nil
  if self.link and not self.ended then
    flushed, err = self:flush(deadline)
  end
  self.closing = true
  if self.link and not self.ended then
    self.link:close()
    while not self.ended do
      -- The end of the connection is waited for, whatever the time: libnats bounds it.
      wait(self.changed, nil)
    end
  else
    finish(self, errors.new("closed"))
  end
  self.ended = errors.new("closed")
  self.state:set("closed")
  self.changed:wake_all()
  return flushed, err
end

-- --- subscriptions ------------------------------------------------------------------------------

--- Subscribes an object with the methods `ready`, `reconnected`, `connection_ended`, `finish` and
-- `look_for_loss`, and the field `subject`.
-- @return its subscription in C, and its id; or nil and an error
function Connection:subscribe(object, options)
  local err = self:unusable()
  if err then
    return nil, err
  end
  self.ids = self.ids + 1
  local id = self.ids
  local made, code, text = self.link:subscribe(
    object.subject,
    options.group,
    id,
    options.messages,
    options.bytes,
    options.jetstream or false,
    M.no_headers,
    options.class
  )
  if not made then
    return nil, errors.new(code, text)
  end
  self.subscriptions[id] = object
  return made, id
end

function Connection:unsubscribe(id)
  local object = self.subscriptions[id]
  self.subscriptions[id] = nil
  if object and self.slow[object] then
    self.slow[object] = nil
    show_state(self)
  end
end

--- A subscription that had lost messages has taken all that were left.
function Connection:caught_up(object)
  if self.slow[object] then
    self.slow[object] = nil
    show_state(self)
  end
end

-- --- publishing ---------------------------------------------------------------------------------

--- Publishes: it is on its way then, or in the buffer that holds it until the connection is back.
-- @return true; or nil and an error
function Connection:publish(subject, payload, reply, headers)
  local link = self.link
  if self.up then
    local done = link:publish(subject, payload, reply, headers)
    if done then
      return true
    end
  end
  return self:publish_slowly(subject, payload, reply, headers)
end

function Connection:publish_slowly(subject, payload, reply, headers)
  local deadline
  while true do
    local err = self:unusable()
    if not err and not self.up and self.settings.publish_buffer == 0 then
      err = errors.new("disconnected")
    end
    if err then
      return nil, err
    end
    local done, code, text = self.link:publish(subject, payload, reply, headers)
    if done then
      return true
    elseif code ~= "full" or not self.up then
      return nil, errors.new(code, code ~= "full" and text or nil, { destination = subject })
    end
    deadline = deadline or runtime.now() + self.settings.publish_timeout
    err = wait(self.room, deadline)
    if err then
      return nil, err.code == "timeout" and errors.new("full", nil, { destination = subject }) or err
    end
  end
end

-- Sends a message to ourselves and waits until it is back. True; or nil, an error, and whether it was sent.
local function echo(self, deadline)
  local waiter = runtime.waiter()
  local token, err = self:ask(nil, "", nil, function(message, why)
    waiter:wake(message, why)
  end)
  if not token then
    return nil, err, false
  end
  local message
  message, err = waiter:wait(deadline)
  if not message then
    self:forget(token)
    return nil, err, true
  end
  return true
end

--- Waits until the server has everything that was published before. It answers in order, so a message to ourselves
-- comes back behind all that. (The pings of libnats do not do: it counts them wrong ever after, once a connection was
-- lost at the wrong moment.) Where the account may not publish to its own inbox, the refusal says as much.
function Connection:flush(deadline)
  while true do
    local err, sent = self:unusable(), false
    if err then
      return nil, err
    elseif self.up then
      local back
      back, err, sent = echo(self, deadline)
      if back then
        return true
      elseif err.code ~= "disconnected" then
        return nil, err.code == "timeout" and errors.new("timeout") or err
      end
    end
    -- What was sent is lost with the connection, which we know of by now.
    local late = not sent and wait(self.changed, deadline)
    if late then
      return nil, late.code == "timeout" and errors.new("timeout") or late
    end
  end
end

-- --- requests -----------------------------------------------------------------------------------

local Answer = {}
Answer.__index = Answer

--- A subject below which answers can be told apart, new each time.
function Connection:new_inbox()
  return self.settings.inbox_prefix .. "." .. hex(runtime.random(11))
end

local function open_inbox(self)
  local prefix = self:new_inbox() .. "."
  local made, code, text = self.link:inbox(prefix .. "*", Answer, M.no_headers)
  if not made then
    return nil, errors.new(code, text)
  end
  self.inbox = prefix
  return prefix
end

function on_answers(self)
  local link, at, requests = self.link, #self.inbox + 1, self.requests
  local message = link:answer()
  while message do
    local token = message.destination:sub(at)
    local answer = requests[token]
    if answer then
      requests[token] = nil
      answer(message)
    end
    message = link:answer()
  end
end

-- Hands what came, in place of an answer, to who asked.
function Connection:answer(token, message)
  local answer = self.requests[token]
  if answer then
    self.requests[token] = nil
    answer(message)
  end
end

--- Publishes a request, to ourselves where there is no subject; `answer(message)` or `answer(nil, err)` is called with
-- what comes, unless it is forgotten before. It must not wait.
-- @return a token for `forget`; or nil and an error
function Connection:ask(subject, payload, headers, answer)
  local err = self:unusable()
  if err then
    return nil, err
  end
  local inbox = self.inbox
  if not inbox then
    inbox, err = open_inbox(self)
    if not inbox then
      return nil, err
    end
  end
  local number = self.tokens + 1
  self.tokens = number
  local token = ("%x"):format(number)
  self.requests[token] = answer
  local sent
  sent, err = self:publish(subject or inbox .. token, payload, inbox .. token, headers)
  if not sent then
    self.requests[token] = nil
    return nil, err
  end
  return token
end

function Connection:forget(token)
  self.requests[token] = nil
end

--- Asks and waits for one answer.
-- @return a message; or nil and an error: "timeout", "no_responders", "disconnected", ...
function Connection:request(subject, payload, headers, deadline)
  local waiter = runtime.waiter()
  local token, err = self:ask(subject, payload, headers, function(message, why)
    waiter:wake(message, why)
  end)
  if not token then
    return nil, err
  end
  local message
  message, err = waiter:wait(deadline)
  if not message then
    self:forget(token)
    return nil, err.code == "timeout" and errors.new("timeout", subject) or err
  elseif message.headers.status == "503" and message.payload == "" then
    return nil, errors.new("no_responders", subject)
  end
  return message
end

return M
