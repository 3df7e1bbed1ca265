--- Publishes to the memory broker: single messages, several, requests and transactions.
-- @module weir.broker.memory.publisher

local engines = require("weir.broker.memory.engine")
local errors = require("weir.errors")
local message = require("weir.broker.memory.message")
local runtime = require("weir.runtime")

local publisher = {}
local Publisher = { __name = "weir.memory.publisher" }
Publisher.__index = Publisher

local NO_HEADERS = message.NO_HEADERS
local OPTIONS = { timeout = "number" }
local NO_RESPONDERS = "nobody is subscribed to '%s'"

local setmetatable, type = setmetatable, type

--- Makes one.
-- @tparam table engine
-- @tparam[opt] table options `timeout`: seconds that a publish may wait for room; without, as long as it takes
function publisher.new(engine, options)
  options = errors.options("broker:publisher", options, OPTIONS, 3)
  runtime.deadline(options.timeout, 3)
  return setmetatable({ engine = engine, timeout = options.timeout }, Publisher)
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

-- Everything that is not the fast path.
local function publish(self, destination, payload, headers, options)
  local deadline, wrong = deadline_of(self, options)
  if wrong then
    return nil, wrong
  end
  return self.engine:publish(destination, payload, headers, deadline)
end

--- Publishes a message. Where a queue that it goes to is full, the rule of that queue decides: by default this waits.
-- @tparam string destination
-- @tparam string payload
-- @tparam[opt] table headers names in lower case to strings; not to be changed afterwards
-- @tparam[opt] table options `timeout`: seconds to wait for room
-- @treturn boolean true once the broker has it; or nil and an error: "closed", "disconnected", "full", "timeout",
-- "cancelled", "too_large", "invalid", "unsupported"
function Publisher:publish(destination, payload, headers, options)
  local engine = self.engine
  local budget = engine.budget
  if budget <= 0 then
    local cancelled = engine:refresh()
    if cancelled then
      return nil, cancelled
    end
    budget = engine.budget
  end
  local topic = engine.topics[destination]
  local queue = topic and topic.only
  if not queue or headers ~= nil or options ~= nil or type(payload) ~= "string" then
    return publish(self, destination, payload, headers, options)
  end
  -- One queue that nothing is special about, and a message without headers: most need no more than this.
  local size, count, ring = #payload, queue.count, queue.size
  local bytes = queue.bytes + size
  if
    count == ring
    or count + queue.taken + queue.delayed_count >= queue.max_messages
    or bytes > queue.max_bytes
    or size > engine.max_payload
  then
    return publish(self, destination, payload)
  end
  engine.budget = budget - 1
  local position = engine.sequence + 1
  engine.sequence = position
  queue.bytes = bytes
  local at = queue.head + count
  queue.items[at > ring and at - ring or at] =
    setmetatable({ payload = payload, position = position, time = engine.wall, slot = 0 }, topic.kind)
  queue.count = count + 1
  local receivers = queue.receivers
  if receivers.count > 0 then
    receivers:wake_one()
  end
  return true
end

-- Publishes all of a list as one, if nothing is special about any and there is room now: what is stored is then one
-- commit, where each by itself would wait for its own.
local function publish_together(self, items)
  local engine, made = self.engine, {}
  for i, item in ipairs(items) do
    local one = item[4] == nil and engine:item(item[1], item[2], item[3])
    if not one then
      return false
    end
    made[i] = one
  end
  return (engine:publish_items(made, runtime.now()))
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
  local waiter = runtime.waiter()
  local inbox = { waiter = waiter, reply = nil }
  local name = engine:open_inbox(inbox)
  local with = {}
  for key, value in pairs(headers or NO_HEADERS) do
    with[key] = value
  end
  with["reply-to"] = name
  local ok, err = engine:publish(destination, payload, with, deadline)
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
  return ("weir.memory.publisher(%d published)"):format(self.engine.sequence)
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
  local item, err = self.engine:item(destination, payload, headers)
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
  self.ended = "committed"
  local items = self.items
  self.items = nil
  if #items == 0 then
    return true
  end
  local ok, err = self.engine:publish_items(items, runtime.deadline(timeout or self.publisher.timeout, 2))
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
