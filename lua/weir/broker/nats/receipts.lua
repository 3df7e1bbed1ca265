--- Confirmations of JetStream: who waits for the receipt of which message.
--
-- Receipts come to a subscription that is read in the loop's own thread, which requests cannot use: libnats keeps to
-- itself which message it was that no stream takes. It says that there was one, and of receipts that is enough, since
-- each message has exactly one answer: when as many are unanswered as went nowhere, it is those. So that this is soon,
-- the first destinations have a subscription each, and whatever is published after the first message that went nowhere,
-- or that was given up, has another one.
-- @module weir.broker.nats.receipts

local errors = require("weir.broker.nats.errors")

local M = {}

local LIMIT = 0x7fffffff
-- Destinations that have a subscription of their own; all others share one.
local OWN = 32

-- --- one subscription, and what is to be answered there -----------------------------------------

local Inbox = {}
Inbox.__index = Inbox

-- Nothing more is published for it.
local function retire(self)
  local owner = self.owner
  if owner.inboxes[self.key] == self then
    owner.inboxes[self.key] = nil
    owner.own = owner.own - (self.key and 1 or 0)
  end
end

local function close(self)
  retire(self)
  if self.id then
    self.owner.open[self] = nil
    self.owner.connection:unsubscribe(self.id)
    self.id = nil
    self.native:close()
  end
end

-- Fails all who wait.
local function fail(self, err)
  local waiting = self.waiting
  self.waiting, self.count = {}, 0
  close(self)
  for number, target in pairs(waiting) do
    if target then
      target:receipt(number, nil, nil, nil, err)
    end
  end
end

-- Nobody waits for it any more, or all who do have published where no stream is.
local function conclude(self)
  if self.count == 0 then
    close(self)
  elseif self.unanswered == self.nowhere then
    fail(self, errors.new("no_stream"))
  end
end

-- Only the first answer to a message counts: anybody may answer what is published.
local function answer(self, number, stream, sequence)
  local target = self.waiting[number]
  if target == nil then
    return
  end
  self.waiting[number] = nil
  self.unanswered = self.unanswered - 1
  if target then
    self.count = self.count - 1
    if stream then
      target:receipt(number, stream, sequence)
    else
      target:receipt(number, nil, nil, sequence) -- a message
    end
  end
end

--- It has answers.
function Inbox:ready()
  local native = self.native
  while true do
    local number, stream, sequence = native:receipt()
    if not number then
      if number == nil then
        break
      end
      self.nowhere = self.nowhere + 1
      retire(self)
    else
      answer(self, number, stream, sequence)
    end
  end
  if self.owner.inboxes[self.key] ~= self then
    conclude(self)
  end
  if self.id then
    native:arm()
  end
end

function Inbox:finish(err)
  fail(self, err)
end

Inbox.connection_ended = Inbox.finish

function Inbox.reconnected() end

function Inbox.look_for_loss()
  return false
end

-- --- all of a connection ------------------------------------------------------------------------

local Receipts = {}
Receipts.__index = Receipts

--- Makes them, for a connection.
function M.new(connection)
  return setmetatable({
    connection = connection,
    inboxes = {}, -- by destination; that of all others by false
    own = 0, -- of those by destination
    open = {}, -- the set of them, and of those that are still to be answered
    number = 0, -- of the last message
  }, Receipts)
end

-- Where answers to what is published next come.
local function open(self, key)
  local prefix = self.connection:new_inbox() .. "."
  local inbox = setmetatable({
    owner = self,
    key = key,
    prefix = prefix,
    subject = prefix .. "*",
    waiting = {}, -- by number: who gets the answer; false: nobody does any more
    count = 0, -- of those who do
    unanswered = 0, -- and of the others
    nowhere = 0, -- messages that no stream takes, among them
  }, Inbox)
  local native, id = self.connection:subscribe(inbox, { messages = LIMIT, bytes = LIMIT, class = {} })
  if not native then
    return nil, id
  end
  inbox.native, inbox.id = native, id
  native:arm()
  self.inboxes[key], self.open[inbox] = inbox, true
  self.own = self.own + (key and 1 or 0)
  return inbox
end

-- The inbox for a destination; or nil and an error.
local function inbox_of(self, destination)
  local inbox = self.inboxes[destination]
  if inbox then
    return inbox
  end
  local key = self.own < OWN and destination
  return self.inboxes[key] or open(self, key)
end

--- Publishes a message of which a stream is to send a receipt. `target:receipt(number, stream, sequence, message, err)`
-- is called once: with stream and sequence; or with the answer, where it is another one; or with an error. It must not
-- wait.
-- @return the inbox and the number, for `forget`; or nil and an error
function Receipts:publish(subject, payload, headers, target)
  local inbox
  local err = self.connection:unusable()
  if not err then
    inbox, err = inbox_of(self, subject)
  end
  if not inbox then
    return nil, err
  end
  local number = self.number + 1
  self.number = number
  -- Counted before it is published, which may wait.
  inbox.waiting[number], inbox.count, inbox.unanswered = target, inbox.count + 1, inbox.unanswered + 1
  local sent
  sent, err = self.connection:publish(subject, payload, inbox.prefix .. number, headers)
  if sent then
    return inbox, number
  end
  if inbox.waiting[number] then
    inbox.waiting[number], inbox.count, inbox.unanswered = nil, inbox.count - 1, inbox.unanswered - 1
    if self.inboxes[inbox.key] ~= inbox then
      conclude(inbox)
    end
  end
  return nil, err
end

--- Publishes items from `first` to `last`, until one has headers or options, or another destination than the first, or
-- cannot be published at once.
-- @return how many; the inbox and the number of the first
function Receipts:publish_many(items, first, last, target)
  local connection = self.connection
  local inbox = inbox_of(self, items[first][1])
  if not inbox then
    return 0
  end
  local before = self.number
  local count = connection.link:publish_many(items, first, last, inbox.prefix, before + 1)
  self.number = before + count
  inbox.count, inbox.unanswered = inbox.count + count, inbox.unanswered + count
  local waiting = inbox.waiting
  for number = before + 1, before + count do
    waiting[number] = target
  end
  return count, inbox, before + 1
end

--- Its answer is not waited for any longer.
function M.forget(inbox, number)
  if inbox.waiting[number] then
    inbox.waiting[number] = false
    inbox.count = inbox.count - 1
    retire(inbox)
    conclude(inbox)
  end
end

--- What is under way will not be answered.
function Receipts:disconnected(err)
  for inbox in pairs(self.open) do
    fail(inbox, err)
  end
end

return M
