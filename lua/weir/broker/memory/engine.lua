--- The memory broker itself: its queues, and which of them get what is published to a name.
--
-- Everything runs in the tasks that call it. A *queue* belongs to a group, or to one subscription without group; a
-- *topic* is a name that something was published to and the queues that get it, remembered until a subscription
-- comes or goes. A topic with one queue that nothing is special about takes the fast path of `weir.broker.memory.lane`.
-- @module weir.broker.memory.engine

local errors = require("weir.errors")
local lanes = require("weir.broker.memory.lane")
local new_due = require("weir.broker.memory.due")
local new_queue = require("weir.broker.memory.queue").new
local pattern = require("weir.broker.memory.pattern")
local real_clock = require("weir.clock")
local runtime = require("weir.runtime")

local engine = {}
local Engine = { __name = "weir.memory.engine" }
Engine.__index = Engine

local TOPICS = 4096 -- remembered names; all are forgotten when there are more
local BUDGET = 32 -- operations after which the time is read and the loop may want its turn
local INBOX = "_INBOX."
engine.INBOX = INBOX
local NOBODY = { routes = {} } -- a reply is for who asked, whoever else listens to everything

local CLOSED = errors.new("closed", "the broker was shut down")
local NOT_UP = errors.new("disconnected", "the broker is not connected: call broker:connect() first")
engine.CLOSED, engine.NOT_UP = CLOSED, NOT_UP

-- Engines on the real clock: each turn of the loop makes their idea of the time stale.
local running = setmetatable({}, { __mode = "k" })
runtime.on_dispatch(function()
  for each in pairs(running) do
    each.shared.stale()
  end
end)

-- Reads the clock, and lets the loop have its turn when it is time. Returns the next budget, the time, and an error if
-- the task was cancelled. What is not a task of weir, a prompt perhaps, may take its time between two operations.
local function refresh(clock)
  local budget, cancelled = 1, nil
  if clock == real_clock and runtime.current() then
    budget = BUDGET
  end
  if runtime.can_block() then
    cancelled = runtime.pause_if_spent(budget)
  end
  return budget, clock.time(), cancelled
end

--- Makes an engine that is not open yet.
-- @tparam table options checked: `clock`, `max_payload`, `log` (what is retained; nil for nothing), `slow_publish` and
-- `slow_next` (what `publish` and `next` do off the fast path)
function engine.new(options)
  local clock = options.clock
  return setmetatable({
    clock = clock,
    max_payload = options.max_payload,
    log = options.log,
    slow_next = options.slow_next,
    shared = lanes.new(function()
      return refresh(clock)
    end, options.slow_publish, options.max_payload),
    due = new_due(clock),
    store = nil, -- of a durable broker
    is_open = false,
    is_closed = false,
    topics = {}, -- name -> topic
    topic_count = 0,
    queues = {}, -- key -> queue, all of them
    exact = {}, -- name -> list of routed queues
    patterns = {}, -- list of routed queues
    subscriptions = {}, -- those that are not closed; a set
    inboxes = {}, -- name -> who waits for a reply
    inbox_prefix = nil,
    inbox_count = 0,
    idlers = nil, -- set of functions to call when nothing is pending
    quiets = 0, -- how often they were called
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

---------------------------------------------------------------- routes

--- The queues that get what is published to a name.
-- @treturn ?table a topic: `routes`, a list
-- @return an error "invalid"
function Engine:topic(name)
  local topic = self.topics[name]
  if topic then
    return topic
  end
  if name:sub(1, #INBOX) == INBOX then
    return NOBODY
  end
  local tokens, wrong = pattern.destination(name)
  if not tokens then
    return nil, errors.new("invalid", wrong)
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
  if #routes > 0 then -- a name that nobody listens to is not worth a place
    if self.topic_count >= TOPICS then
      self:forget_topics()
    end
    self.topics[name] = topic
    self.topic_count = self.topic_count + 1
    if #routes == 1 and not self.log and not routes[1].store then
      self.shared.fast(name, routes[1].lane.pusher(name))
    end
  end
  return topic
end

--- A name is looked up again when something is published there.
function Engine:forget_topics()
  self.topics, self.topic_count = {}, 0
  self.shared.forget()
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

--- Makes the queue of a key that has none.
-- @tparam string key
-- @tparam table descriptor
-- @tparam table capacity
-- @tparam[opt] table store where its deliveries are kept
-- @treturn table
function Engine:queue(key, descriptor, capacity, store)
  local queue = new_queue(self, key, descriptor, capacity, self.slow_next)
  if store then
    queue:keep_in(store)
  end
  self.queues[key] = queue
  self:route(queue)
  return queue
end

--- Forgets a queue and all that is in it.
function Engine:drop_queue(queue)
  self:unroute(queue)
  queue:clear()
  if self.queues[queue.key] == queue then
    self.queues[queue.key] = nil
  end
end

---------------------------------------------------------------- inboxes

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
-- @treturn string
function Engine:inbox_name()
  if not self.inbox_prefix then
    self.inbox_prefix = INBOX .. runtime.random(9):gsub(".", function(byte)
      return ("%02x"):format(byte:byte())
    end) .. "."
  end
  self.inbox_count = self.inbox_count + 1
  return self.inbox_prefix .. ("%d"):format(self.inbox_count)
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
    held, bytes, dropped = held + queue:held(), bytes + queue:bytes(), dropped + queue.dropped
  end
  return {
    published = self.shared.sequence(),
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

function Engine:watch_queues()
  for _, queue in pairs(self.queues) do
    queue:watch()
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
  self:watch_queues()
  return function()
    if self.idlers then
      self.idlers[call] = nil
      if next(self.idlers) == nil then
        self.idlers = nil
        self:watch_queues()
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
  self:forget_topics()
  self.queues, self.exact, self.patterns, self.inboxes = {}, {}, {}, {}
  self.due:close()
end

return engine
