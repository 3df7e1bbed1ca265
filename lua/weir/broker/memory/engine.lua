--- The memory broker itself: topics, who gets what is published there, and what happens by the clock.
--
-- Everything runs in the tasks that call it. A *queue* belongs to a group, or to one subscription without group; a
-- *topic* is a name that something was published to and the queues that get it, remembered until a subscription
-- comes or goes.
-- @module weir.broker.memory.engine

local errors = require("weir.errors")
local heap = require("weir.runtime.heap")
local message = require("weir.broker.memory.message")
local new_queue = require("weir.broker.memory.queue").new
local pattern = require("weir.broker.memory.pattern")
local real_clock = require("weir.clock")
local runtime = require("weir.runtime")

local engine = {}
local Engine = { __name = "weir.memory.engine" }
Engine.__index = Engine

local NO_HEADERS = message.NO_HEADERS
local TOPICS = 4096 -- remembered names; all are forgotten when there are more
local BUDGET = 32 -- publishes after which the time is read and the loop may want its turn
local INBOX = "_INBOX."

local CLOSED = errors.new("closed", "the broker was shut down")
local NOT_UP = errors.new("disconnected", "the broker is not connected: call broker:connect() first")
engine.CLOSED, engine.NOT_UP = CLOSED, NOT_UP

-- Engines on the real clock: each turn of the loop makes their idea of the time stale.
local running = setmetatable({}, { __mode = "k" })
runtime.on_dispatch(function()
  for each in pairs(running) do
    each.budget = 0
  end
end)

--- Makes an engine that is not open yet.
-- @tparam table options checked: `clock`, `max_payload`, `retention` (a log or nil), `store` (or nil)
function engine.new(options)
  return setmetatable({
    clock = options.clock,
    max_payload = options.max_payload,
    log = options.log,
    store = nil,
    is_open = false,
    is_closed = false,
    topics = {},
    topic_count = 0,
    queues = {}, -- key -> queue, all of them
    exact = {}, -- name -> list of routed queues
    patterns = {}, -- list of routed queues
    inboxes = {}, -- name -> who waits for a reply
    inbox_prefix = nil,
    inbox_count = 0,
    sequence = 0,
    wall = 0,
    budget = 0,
    heap = heap.new(),
    timer = nil,
    timer_at = nil,
    quiets = 0, -- how often those were called
    idlers = nil, -- set of functions to call when nothing is pending
    subscriptions = {}, -- those that are not closed; a set
  }, Engine)
end

--- Why nothing can be done now, or nil.
function Engine:refusal()
  return self.is_closed and CLOSED or not self.is_open and NOT_UP or nil
end

function Engine:open()
  self.is_open = true
  if self.clock == real_clock then
    running[self] = true
  end
end

-- Reads the clock, and lets the loop have its turn when it is time. Returns an error if the task was cancelled.
function Engine:refresh()
  local budget = 1
  if self.clock == real_clock and runtime.current() then
    budget = BUDGET
  end
  local cancelled
  if runtime.can_block() then
    cancelled = runtime.pause_if_spent(budget)
  end
  self.wall = self.clock.time()
  self.budget = budget
  return cancelled
end

---------------------------------------------------------------- routes

local function invalid(text)
  return errors.new("invalid", text)
end

--- The queues that get what is published to a name.
-- @treturn ?table a topic: `routes`, a list; `only`, the one queue where nothing but queueing is to be done
-- @return an error "invalid"
function Engine:topic(name)
  local topic = self.topics[name]
  if topic then
    return topic
  end
  local tokens, wrong = pattern.destination(name)
  if not tokens then
    return nil, invalid(wrong)
  end
  local routes = {}
  for _, queue in ipairs(self.exact[name] or {}) do
    routes[#routes + 1] = queue
  end
  for _, queue in ipairs(self.patterns) do
    if pattern.matches(queue.tokens, tokens) then
      routes[#routes + 1] = queue
    end
  end
  topic = { name = name, tokens = tokens, routes = routes }
  if #routes == 1 and not self.log and not routes[1].store then
    topic.only = routes[1]
    topic.kind = message.kind({ queue = routes[1], destination = name })
  end
  if #routes > 0 then -- a name that nobody listens to is not worth a place
    if self.topic_count >= TOPICS then
      self.topics, self.topic_count = {}, 0
    end
    self.topics[name] = topic
    self.topic_count = self.topic_count + 1
  end
  return topic
end

--- A name is looked up again when something is published there.
function Engine:forget_topics()
  self.topics, self.topic_count = {}, 0
end

--- Makes publishes come to a queue.
function Engine:route(queue)
  if queue.routed then
    return
  end
  queue.routed = true
  if queue.pattern then
    table.insert(self.patterns, queue)
  else
    local list = self.exact[queue.name] or {}
    self.exact[queue.name] = list
    list[#list + 1] = queue
  end
  self:forget_topics()
end

local function remove(list, value)
  for i, each in ipairs(list) do
    if each == value then
      table.remove(list, i)
      return #list
    end
  end
end

--- The contrary.
function Engine:unroute(queue)
  if not queue.routed then
    return
  end
  queue.routed = false
  if queue.pattern then
    remove(self.patterns, queue)
  elseif remove(self.exact[queue.name], queue) == 0 then
    self.exact[queue.name] = nil
  end
  self:forget_topics()
  queue.senders:wake_all()
end

--- The queue of a key; made if there is none.
-- @treturn table the queue
-- @treturn boolean whether it is new
function Engine:queue(key, descriptor, capacity)
  local queue = self.queues[key]
  if queue then
    return queue, false
  end
  queue = new_queue(self, key, descriptor, capacity)
  self.queues[key] = queue
  self:route(queue)
  return queue, true
end

--- Forgets a queue and all that is in it.
function Engine:drop_queue(queue)
  self:unroute(queue)
  queue:clear()
  if self.queues[queue.key] == queue then
    self.queues[queue.key] = nil
  end
end

---------------------------------------------------------------- publishing

-- A queue that has no room for what is demanded of it, one that rejects before those that are waited for; whether
-- it is one of these.
local function first_full(demand)
  local found
  for queue, wanted in pairs(demand) do
    local overflow = queue.overflow
    if (overflow == "wait" or overflow == "reject") and queue.routed and not queue:fits(wanted[1], wanted[2]) then
      if overflow == "reject" then
        return queue, false
      end
      found = queue
    end
  end
  return found, found ~= nil
end

--- Waits until all queues have room.
-- @tparam table demand queue -> `{ messages, bytes }`
-- @tparam ?number deadline
-- @treturn boolean true; or nil and an error: "full", "timeout", "cancelled", "closed"
function Engine:await_room(demand, deadline)
  while true do
    local full, wait = first_full(demand)
    if not full then
      return true
    elseif not wait then
      local text = "the queue of %s is full: %d messages, %d bytes"
      return nil, errors.new("full", text:format(full.name, full:held(), full.bytes), { destination = full.name })
    end
    local waiter = runtime.own_waiter()
    full.senders:add(waiter)
    full.alert = true
    local _, err = waiter:wait(deadline)
    local woken = full.senders:remove(waiter)
    if self.is_closed then
      return nil, CLOSED
    elseif err then
      if woken then
        full.senders:wake_one()
      end
      return nil, err
    end
  end
end

-- Whether everything that `item` goes to has room without asking further.
local function roomy(routes, size)
  for i = 1, #routes do
    local queue = routes[i]
    if queue:held() >= queue.max_messages or queue.bytes + size > queue.max_bytes then
      return false
    end
  end
  return true
end

-- Adds what an item asks of each queue.
local function demand_of(demand, item)
  for _, queue in ipairs(item.topic.routes) do
    local wanted = demand[queue]
    if not wanted then
      wanted = { 0, 0 }
      demand[queue] = wanted
    end
    wanted[1], wanted[2] = wanted[1] + 1, wanted[2] + item.size
    if item.size > queue.max_bytes and (queue.overflow == "wait" or queue.overflow == "reject") then
      local text = "%d bytes are more than the queue of %s may ever hold (%d)"
      return errors.new("too_large", text:format(item.size, queue.name, queue.max_bytes))
    end
  end
end

--- Checks what is to be published, before anything happens.
-- @treturn ?table an item: `destination`, `payload`, `headers`, `size`
-- @return an error: "invalid", "too_large"
function Engine:item(destination, payload, headers)
  if type(destination) ~= "string" then
    error(("publish: a destination is a name, not a %s"):format(type(destination)), 0)
  elseif type(payload) ~= "string" then
    error(("publish: a payload is a string, not a %s; codecs make strings of values"):format(type(payload)), 0)
  elseif headers ~= nil and type(headers) ~= "table" then
    error(("publish: headers are a table, not a %s"):format(type(headers)), 0)
  end
  if headers == nil or next(headers) == nil then
    headers = NO_HEADERS
  end
  local size = message.size(payload, headers)
  if size > self.max_payload then
    local text = "the message has %d bytes, headers included; the broker takes %d ('max_payload')"
    return nil, errors.new("too_large", text:format(size, self.max_payload), { destination = destination })
  end
  local _, wrong = pattern.destination(destination)
  if wrong and not self.topics[destination] then
    return nil, invalid(wrong)
  end
  return { destination = destination, payload = payload, headers = headers, size = size }
end

-- Hands an item to the inbox of that name.
local function answer(self, item)
  local inbox = self.inboxes[item.destination]
  if inbox and not inbox.reply then
    local reply = message.new(nil, item.payload, item.headers, item.size, item.destination, item.id, item.time, 1)
    reply.slot = message.COPY
    inbox.reply = reply
    inbox.waiter:wake()
  end
end

local function keys_of(routes)
  local keys
  for _, queue in ipairs(routes) do
    if queue.store then
      keys = keys or {}
      keys[#keys + 1] = queue.key
    end
  end
  return keys
end

-- Hands items that have a place to the store, if it is to know them.
local function persist(self, items)
  local records = {}
  for _, item in ipairs(items) do
    local keys = keys_of(item.topic.routes)
    local retain = self.log ~= nil and not item.inbox
    if keys or retain then
      records[#records + 1] = {
        id = item.id,
        destination = item.destination,
        payload = item.payload,
        headers = item.headers,
        time = item.time,
        keys = keys or {},
        retain = retain,
      }
    end
  end
  if #records == 0 then
    return true
  end
  return self.store:append(records)
end

-- Puts an item where it goes.
local function distribute(self, item)
  if item.inbox then
    return answer(self, item)
  elseif self.log then
    self.log:add(item)
  end
  local routes = item.topic.routes
  for i = 1, #routes do
    local queue = routes[i]
    local roomy_now = queue.overflow == "wait" or queue.overflow == "reject" or queue:make_room(item.size)
    if not roomy_now then
      if queue.store then
        queue.store:settle(queue.key, item.id)
      end
    elseif queue.routed then
      queue:deliver(
        message.new(queue, item.payload, item.headers, item.size, item.destination, item.id, item.time, 1)
      )
    end
  end
end

--- Publishes checked items, all or none of them.
-- @tparam table items
-- @tparam ?number deadline until which it may wait for room
-- @treturn boolean true; or nil and an error
function Engine:publish_items(items, deadline)
  local refusal = self:refusal() or self.budget <= 0 and self:refresh()
  if refusal then
    return nil, refusal
  end
  local demand, waits = {}, false
  for _, item in ipairs(items) do
    item.inbox = item.destination:sub(1, #INBOX) == INBOX
    local topic, wrong = self:topic(item.destination)
    if not topic then
      return nil, wrong
    end
    item.topic = topic
    if #items > 1 or not roomy(topic.routes, item.size) then
      waits = true
      local err = demand_of(demand, item)
      if err then
        return nil, err
      end
    end
  end
  if waits then
    local ok, err = self:await_room(demand, deadline)
    if not ok then
      return nil, err
    end
  end
  local sequence, wall = self.sequence, self.wall
  for i, item in ipairs(items) do
    item.id, item.time = sequence + i, wall
    item.topic = self:topic(item.destination) -- a subscription may have come or gone meanwhile
  end
  self.sequence, self.budget = sequence + #items, self.budget - #items
  if self.store then
    local ok, err = persist(self, items)
    if not ok then
      return nil, err
    end
  end
  for _, item in ipairs(items) do
    distribute(self, item)
  end
  return true
end

--- Publishes one message, whatever has to be done for that.
-- @treturn boolean true; or nil and an error
function Engine:publish(destination, payload, headers, deadline)
  local item, err = self:item(destination, payload, headers)
  if not item then
    return nil, err
  end
  return self:publish_items({ item }, deadline)
end

--- Whether somebody would get what is published to a name.
function Engine:has_responders(name)
  local topic = self:topic(name)
  for _, queue in ipairs(topic and topic.routes or {}) do
    if queue.members > 0 then
      return true
    end
  end
  return false
end

--- Makes the name of an inbox that nobody had before, not even in an earlier life of a durable broker.
-- @tparam table inbox `waiter`; gets `reply`
-- @treturn string
function Engine:open_inbox(inbox)
  if not self.inbox_prefix then
    self.inbox_prefix = INBOX .. runtime.random(9):gsub(".", function(byte)
      return ("%02x"):format(byte:byte())
    end) .. "."
  end
  self.inbox_count = self.inbox_count + 1
  local name = self.inbox_prefix .. ("%d"):format(self.inbox_count)
  self.inboxes[name] = inbox
  return name
end

---------------------------------------------------------------- looking and seeking

--- Replaces what a queue holds by what is retained from a position on.
-- @tparam table queue
-- @param position "start", "end", or a number
-- @treturn boolean true; or nil and an error: "unsupported", "invalid", "position_evicted"; then nothing has changed
function Engine:seek(queue, position)
  local refusal = self:refusal()
  if refusal then
    return nil, refusal
  elseif not self.log then
    return nil, errors.new("unsupported", "seek needs a memory broker with 'retention'", { broker = "memory" })
  end
  local from = position == "start" and 0 or position == "end" and self.sequence + 1 or position
  if type(from) ~= "number" or from % 1 ~= 0 or from < 0 or from > self.sequence + 1 then
    local text = "there is no position %s; it is \"start\", \"end\" or that of a message (the last is %d)"
    return nil, invalid(text:format(tostring(position), self.sequence))
  end
  local records, evicted = self.log:read(queue.name, queue.pattern and queue.tokens, from)
  if position ~= "start" and from <= evicted then
    local text = "position %d of %s is not kept any more; the oldest is %d"
    return nil, errors.new("position_evicted", text:format(from, queue.name, evicted + 1), { position = from })
  end
  queue:clear()
  for _, item in ipairs(records) do
    if queue.store then
      queue.store:requeue(queue.key, item.id, 0, nil)
    end
    queue:deliver(message.new(queue, item.payload, item.headers, item.size, item.destination, item.id, item.time, 1))
  end
  return true
end

-- Up to `limit` of the deliveries that wait in a queue.
local function waiting(queue, limit, list)
  for i = 1, math.min(queue.count, limit) do
    list[#list + 1] = queue:peek(i)
  end
  for delivery in pairs(queue.delayed) do
    list[#list + 1] = delivery
  end
end

--- Copies of what waits at a destination.
function Engine:browse(destination, limit)
  local list, copies, last = {}, {}, nil
  local found = false
  for _, queue in ipairs(self.exact[destination] or self.patterns) do
    if queue.name == destination then
      found = true
      waiting(queue, limit, list)
    end
  end
  if not found and self.log then
    for _, item in ipairs((self.log:read(destination, nil, 0))) do
      list[#list + 1] =
        message.new(nil, item.payload, item.headers, item.size, item.destination, item.id, item.time, 1)
    end
  end
  table.sort(list, function(a, b)
    return a.position < b.position
  end)
  for _, delivery in ipairs(list) do
    if #copies < limit and delivery.position ~= last then
      copies[#copies + 1] = message.copy(delivery)
      last = delivery.position
    end
  end
  return copies
end

local function size(map)
  local count = 0
  for _ in pairs(map) do
    count = count + 1
  end
  return count
end

--- Numbers of everything.
function Engine:stats()
  local held, bytes, dropped = 0, 0, 0
  for _, queue in pairs(self.queues) do
    held, bytes, dropped = held + queue:held(), bytes + queue.bytes, dropped + queue.dropped
  end
  return {
    published = self.sequence,
    queues = size(self.queues),
    subscriptions = size(self.subscriptions),
    names = self.topic_count,
    inboxes = size(self.inboxes),
    held = held,
    bytes = bytes,
    dropped = dropped,
    pending = self:pending(),
    retained = self.log and self.log:stats() or nil,
    store = self.store and self.store:stats() or nil,
  }
end

---------------------------------------------------------------- time

-- Lets the clock call when the next delivery is due.
local function set_timer(self)
  local at = self.heap:next()
  if self.timer then
    if at and self.timer_at <= at then
      return
    end
    self.timer:cancel()
    self.timer = nil
  end
  if at and not self.is_closed then
    self.timer_at = at
    self.timer = self.clock.timer(at, function()
      self.timer = nil
      self:expire()
    end)
  end
end

--- Sets the time at which a delivery is due, or is taken back.
function Engine:arm(delivery, at)
  self.heap:arm(delivery, at)
  if not self.timer or at < self.timer_at then
    set_timer(self)
  end
end

--- Starts the `ack_wait` of a delivery again.
function Engine:extend(delivery, seconds)
  if delivery.deadline then
    self.heap:disarm(delivery)
  end
  self:arm(delivery, self.clock.now() + seconds)
end

--- Does what is due.
function Engine:expire()
  local now, list = self.clock.now(), {}
  local delivery = self.heap:expired(now)
  while delivery do
    list[#list + 1] = delivery
    delivery = self.heap:expired(now)
  end
  for i = #list, 1, -1 do -- each goes to the front: so the first of them is first there
    delivery = list[i]
    if delivery.slot > 0 then
      local taker = message.release(delivery, delivery.slot, message.LOST)
      delivery.queue:put_back(delivery, nil, taker)
    elseif delivery.slot == 0 and delivery.queue:is_delayed(delivery) then
      delivery.queue:due(delivery)
    end
  end
  set_timer(self)
end

---------------------------------------------------------------- quiet

--- Deliveries that somebody should be busy with: those that are ready or being handled, where there is a subscription.
function Engine:pending()
  local count = 0
  for _, queue in pairs(self.queues) do
    count = count + queue:pending()
  end
  return count
end

--- Calls who waits for quiet if it is quiet.
function Engine:check_idle()
  if self:pending() == 0 then
    self.quiets = self.quiets + 1
    local list = {}
    for fn in pairs(self.idlers or {}) do
      list[#list + 1] = fn
    end
    for _, fn in ipairs(list) do
      fn()
    end
  end
end

--- For what can make it quiet without settling anything: call it before, and with what it returned after.
-- @tparam[opt] number before
-- @treturn ?number
function Engine:watch_quiet(before)
  if not self.idlers then
    return nil
  elseif before == nil then
    return self:pending() > 0 and self.quiets or -1
  elseif before == self.quiets then
    self:check_idle()
  end
end

--- Calls `fn` whenever nothing is pending any more.
-- @treturn function ends that
function Engine:on_idle(fn)
  local function call()
    fn()
  end
  self.idlers = self.idlers or {}
  self.idlers[call] = true
  for _, queue in pairs(self.queues) do
    queue.alert = true
  end
  return function()
    if self.idlers then
      self.idlers[call] = nil
      if next(self.idlers) == nil then
        self.idlers = nil
      end
    end
  end
end

---------------------------------------------------------------- end

--- Closes everything. What waits is woken and gets "closed".
function Engine:close()
  if self.is_closed then
    return
  end
  self.is_closed, self.is_open = true, false
  running[self] = nil
  local subscriptions = self.subscriptions
  self.subscriptions = {}
  for subscription in pairs(subscriptions) do
    subscription:abandon()
  end
  for _, queue in pairs(self.queues) do
    queue:abandon()
  end
  for _, inbox in pairs(self.inboxes) do
    inbox.waiter:wake()
  end
  self.topics, self.queues, self.exact, self.patterns, self.inboxes = {}, {}, {}, {}, {}
  self.heap = heap.new()
  if self.timer then
    self.timer:cancel()
    self.timer = nil
  end
end

return engine
