--- Publishes to the memory broker: single messages, several, requests and transactions.
-- @module weir.broker.memory.publisher

local engines = require("weir.broker.memory.engine")
local errors = require("weir.errors")
local message = require("weir.broker.memory.message")
local outgoing = require("weir.broker.memory.outgoing")
local runtime = require("weir.runtime")

local publisher = {}
local Publisher = { __name = "weir.memory.publisher" }
Publisher.__index = Publisher

local NO_HEADERS = message.NO_HEADERS
local OPTIONS = { timeout = "number" }
local NO_RESPONDERS = "nobody is subscribed to '%s'"

--- Makes one.
-- @tparam table engine
-- @tparam[opt] table options `timeout`: seconds that a publish may wait for room; without, as long as it takes
function publisher.new(engine, options)
  options = errors.options("broker:publisher", options, OPTIONS, 3)
  runtime.deadline(options.timeout, 3)
  return setmetatable({ engine = engine, timeout = options.timeout, publish = engine.shared.publish }, Publisher)
end

-- The deadline that the options of one publish give.
local function deadline_of(self, options)
  if options ~= nil then
    if type(options) ~= "table" then
      error(("publish: options are a table, not a %s"):format(type(options)), 0)
    end
    for name in pairs(options) do
      if name ~= "timeout" then
        local text = "the memory broker has no option '%s' of publish"
        return nil, errors.new("unsupported", text:format(tostring(name)))
      end
    end
  end
  return runtime.deadline(options and options.timeout or self.timeout, 2)
end

--- Publishes a message. Where a queue that it goes to is full, the rule of that queue decides: by default this waits.
--
-- Publishers have as `publish` the one of the lanes of their broker, which calls this where it takes more than to put
-- the message in one queue.
-- @tparam string destination
-- @tparam string payload
-- @tparam[opt] table headers names in lower case to strings; not to be changed afterwards
-- @tparam[opt] table options `timeout`: seconds to wait for room
-- @treturn boolean true once the broker has it; or nil and an error: "closed", "disconnected", "full", "timeout",
-- "cancelled", "too_large", "invalid", "unsupported"
function Publisher:publish(destination, payload, headers, options)
  local deadline, wrong = deadline_of(self, options)
  if wrong then
    return nil, wrong
  end
  return outgoing.publish(self.engine, destination, payload, headers, deadline)
end
publisher.slow_publish = Publisher.publish

-- Publishes all of a list as one, if nothing is special about any and there is room now: what is stored is then one
-- commit, where each by itself would wait for its own.
local function publish_together(self, items)
  local engine, made = self.engine, {}
  for i, item in ipairs(items) do
    local one = item[4] == nil and outgoing.item(engine, item[1], item[2], item[3])
    if not one then
      return false
    end
    made[i] = one
  end
  return (outgoing.publish_items(engine, made, runtime.now()))
end

--- Publishes several messages, one after the other; what fails does not keep the others from going out.
-- @tparam table items a list of `{ destination, payload, headers, options }`
-- @return true, or nil
-- @return the first error
-- @treturn table true or an error for each item
function Publisher:publish_batch(items)
  if type(items) ~= "table" then
    error("publisher:publish_batch: a list of { destination, payload, headers, options } is expected", 2)
  end
  local results, first = {}, nil
  if self.engine.store and publish_together(self, items) then
    for i = 1, #items do
      results[i] = true
    end
    return true, nil, results
  end
  for i, item in ipairs(items) do
    local ok, err = self:publish(item[1], item[2], item[3], item[4])
    results[i] = ok or err
    first = first or err
  end
  return not first or nil, first, results
end

--- Publishes a message and waits for the reply to it. A reply that comes later is nobody's.
-- @tparam string destination
-- @tparam string payload
-- @tparam[opt] table headers `reply-to` is set by this
-- @tparam[opt] number timeout in seconds
-- @treturn table the reply, a message without settlement; or nil and an error: "timeout", "no_responders", ...
function Publisher:request(destination, payload, headers, timeout)
  local engine = self.engine
  local deadline = runtime.deadline(timeout, 2)
  local refusal = engine:refusal()
  if refusal then
    return nil, refusal
  elseif type(destination) == "string" and not engine:has_responders(destination) then
    return nil, errors.new("no_responders", NO_RESPONDERS:format(destination), { destination = destination })
  end
  local name, with = engine:inbox_name(), {}
  for key, value in pairs(headers or NO_HEADERS) do
    with[key] = value
  end
  with["reply-to"] = name
  local item, err = outgoing.item(engine, destination, payload, with)
  if not item then
    return nil, err
  end
  local waiter = runtime.waiter()
  local inbox = { waiter = waiter, reply = nil }
  engine.inboxes[name] = inbox
  local ok
  ok, err = outgoing.publish_items(engine, { item }, deadline)
  while ok and not inbox.reply and not err do
    local _
    _, err = waiter:wait(deadline)
    if engine.is_closed then
      err = engines.CLOSED
    end
  end
  engine.inboxes[name] = nil
  if inbox.reply then
    return inbox.reply
  end
  return nil, err
end

--- What was published has reached the broker: it has when `publish` returned. With a store, what was settled is on disk
-- after this, too.
-- @treturn boolean true; or nil and an error "closed"
function Publisher:flush()
  local refusal = self.engine:refusal()
  if refusal then
    return nil, refusal
  elseif self.engine.store then
    return self.engine.store:flush()
  end
  return true
end

function Publisher:__tostring()
  return ("weir.memory.publisher(%d published)"):format(self.engine.shared.sequence())
end

---------------------------------------------------------------- transactions

local Transaction = { __name = "weir.memory.transaction" }
Transaction.__index = Transaction

--- Begins a transaction, which is independent of all others.
-- @treturn table with `publish`, `commit`, `abort`; or nil and an error "closed"
function Publisher:transaction()
  local refusal = self.engine:refusal()
  if refusal then
    return nil, refusal
  end
  return setmetatable({ publisher = self, engine = self.engine, items = {}, ended = nil }, Transaction)
end

local function ended(self)
  if self.ended then
    return errors.new("no_transaction", "the transaction was " .. self.ended)
  end
  return self.engine:refusal()
end

--- Adds a message that is published with the commit.
-- @treturn boolean true; or nil and an error: "no_transaction", "closed", "too_large", "invalid", "unsupported"
function Transaction:publish(destination, payload, headers, options)
  local over = ended(self)
  if over then
    return nil, over
  end
  local _, wrong = deadline_of(self.publisher, options)
  if wrong then
    return nil, wrong
  end
  local item, err = outgoing.item(self.engine, destination, payload, headers)
  if not item then
    return nil, err
  end
  self.items[#self.items + 1] = item
  return true
end

--- Publishes all messages of the transaction, in their order, or none.
-- @tparam[opt] number timeout seconds to wait for room
-- @treturn boolean true; or nil and an error; the transaction is over in any case
function Transaction:commit(timeout)
  local over = ended(self)
  if over then
    return nil, over
  end
  local deadline = runtime.deadline(timeout or self.publisher.timeout, 2)
  self.ended = "committed"
  local items = self.items
  self.items = nil
  if #items == 0 then
    return true
  end
  local ok, err = outgoing.publish_items(self.engine, items, deadline)
  if not ok then
    self.ended = "not committed: " .. tostring(err)
    return nil, err
  end
  return true
end

--- Forgets the messages of the transaction.
-- @treturn boolean true; or nil and an error: "no_transaction", "closed"
function Transaction:abort()
  local over = ended(self)
  if over then
    return nil, over
  end
  self.ended, self.items = "aborted", nil
  return true
end

--- A transaction that is left without a commit is aborted.
function Transaction:__close()
  if not self.ended then
    self.ended, self.items = "aborted", nil
  end
end

return publisher
