--- When the reaction to a message is over.
--
-- In process it is quiet when no broker has a message that is ready or unsettled, no handler runs, and nothing is left
-- to be done after an acknowledgement. What waits for its time (a delayed message, a retry) does not count. Handlers
-- that wait for the virtual clock (a rate limit, a timeout) cannot go on before it is advanced: where nothing moves any
-- more and there are such, that is quiet, too.
--
-- On real servers nobody knows what is on its way: what was published to a subscription must have been settled there,
-- and then nothing may have happened for a moment.
-- @module weir.test.quiet

local runtime = require("weir.runtime")
local tasks = require("weir.task")

local quiet = {}

-- Turns of the loop in which nothing moves before anything is concluded from it.
local TURNS = 20

local Quiet = { __name = "weir.test.quiet" }
Quiet.__index = Quiet

--- Makes one.
-- @tparam table kit `running`, `recorder`, `clock` (virtual, or nil), `brokers` (twins by label, or nil), `options`
function quiet.new(kit)
  return setmetatable({ kit = kit, expected = {}, early = {}, last_event = 0, events = -1 }, Quiet)
end

-- --- in process -----------------------------------------------------------------------------------

-- Consumers of the application, with their numbers.
local function consumers(kit)
  return kit.running.consumers
end

-- Messages that consumers of a broker keep until their time.
local function held_of(kit, broker)
  local count = 0
  for _, open in ipairs(consumers(kit)) do
    local registration = open.registration
    if registration.broker.broker == broker and open.consumer.pipeline.acks then
      count = count + open.consumer.pipeline.held.count
    end
  end
  return count
end

-- Whether a consumer keeps something whose time has come.
local function is_due(pipeline)
  local first = pipeline.held.items[1]
  return first ~= nil and first.due <= pipeline.clock.now()
end

-- What is not quiet: whether handlers are busy, and whether brokers have messages that no handler has.
local function activity(kit)
  local busy, waiting, total = false, false, 0
  for _, open in ipairs(consumers(kit)) do
    local pipeline = open.consumer.pipeline
    local left = pipeline:left()
    total = total + left
    busy = busy or left > 0 or is_due(pipeline)
  end
  for _, broker in pairs(kit.brokers or {}) do
    local pending = broker:pending() - held_of(kit, broker)
    total = total + pending
    waiting = waiting or pending > 0
  end
  return busy, waiting, total
end

-- The longest time that a subscription of batches collects for.
local function linger(kit)
  local longest
  for _, open in ipairs(consumers(kit)) do
    local batch = open.registration.batch
    if batch then
      longest = math.max(longest or 0, batch.linger or 0.01)
    end
  end
  return longest
end

-- Messages wait in a batch that is not full: lets it be.
local function end_linger(kit)
  local clock, longest = kit.clock, linger(kit)
  local due = longest and clock.due()
  if due and due - clock.now() <= longest + 1e-6 then
    clock.advance(math.max(0, due - clock.now()))
    return true
  end
  return false
end

-- --- live -----------------------------------------------------------------------------------------

-- Registrations that get what is published to a destination.
local function takes(kit, label, destination)
  for _, open in ipairs(consumers(kit)) do
    local registration = open.registration
    if registration.broker.label == label and registration.descriptor.name == destination then
      return true
    end
  end
  return false
end

local function key_of(label, destination, headers)
  local id = headers["message-id"]
  return id and table.concat({ label, destination, id }, "\0")
end

--- Something was published: it is expected to be settled, if somebody is subscribed there.
function Quiet:published(label, destination, headers)
  if self.kit.clock then
    return -- in process, brokers know
  end
  local key = key_of(label, destination, headers)
  if key and self.early[key] then
    self.early[key] = nil
  elseif key and takes(self.kit, label, destination) then
    self.expected[key] = destination
  end
end

--- What was about to be published was refused.
function Quiet:refused(label, destination, headers)
  local key = key_of(label, destination, headers)
  if key then
    self.expected[key] = nil
  end
end

--- Something was settled: what comes again later is not waited for. A broker that confirms may have delivered before
-- the publisher knows.
function Quiet:settled(registration, message)
  local key = key_of(registration.broker.label, message.destination, message.headers)
  if key and self.expected[key] then
    self.expected[key] = nil
  elseif key then
    self.early[key] = true
  end
end

-- Whether servers and handlers have come to rest.
local function is_calm(self, busy)
  local events, now = self.kit.recorder.events, tasks.now()
  if events ~= self.events then
    self.events, self.last_event = events, now
  end
  return not busy and next(self.expected) == nil and now - self.last_event >= self.kit.options.calm
end

-- --- both -----------------------------------------------------------------------------------------

-- What is not quiet, for people.
local function describe(self)
  local kit, parts = self.kit, {}
  for _, open in ipairs(consumers(kit)) do
    local registration, left = open.registration, open.consumer.pipeline:left()
    if left > 0 then
      parts[#parts + 1] = ("'%s' (%s) is busy with %d"):format(registration.id, registration.source, left)
    elseif kit.brokers then
      local stats = open.consumer.subscription.stats and open.consumer.subscription:stats() or {}
      if (stats.queued or 0) > 0 or (stats.unsettled or 0) > open.consumer.pipeline.held.count then
        parts[#parts + 1] = ("'%s' has %d waiting and %d unsettled"):format(registration.id, stats.queued or 0,
          stats.unsettled or 0)
      end
    end
  end
  for _, destination in pairs(self.expected) do
    parts[#parts + 1] = ("what was published to '%s' was not settled"):format(destination)
  end
  for label, broker in pairs(kit.brokers or {}) do
    if #parts == 0 and broker:pending() > 0 then
      local count = broker:pending()
      local what = count == 1 and "a message" or ("%d messages"):format(count)
      parts[1] = ("the broker '%s' has %s that nobody takes"):format(label, what)
    end
  end
  return #parts > 0 and table.concat(parts, "; ") or "messages come and go without end"
end

-- Whether it is over; and how much is going on.
local function is_over(self)
  local kit = self.kit
  if kit.running.state ~= "running" then
    return true, 0
  end
  local busy, waiting, total = activity(kit)
  if kit.clock then
    return not busy and not waiting, total, waiting and not busy
  end
  return is_calm(self, busy), total
end

--- Waits until it is quiet.
-- @tparam number timeout in seconds of real time
-- @treturn boolean true; or nil and what is not quiet
function Quiet:wait(timeout)
  local kit = self.kit
  local now = tasks.now()
  local deadline, moved, turns, seen = now + timeout, now, 0, nil
  self.last_event, self.events = now, kit.recorder.events
  while true do
    local over, total, collecting = is_over(self)
    if over then
      self.early = {}
      return true
    end
    local state = ("%d %d %d"):format(kit.recorder.events, total, kit.clock and kit.clock.pending() or 0)
    now = tasks.now()
    if state ~= seen then
      seen, moved, turns = state, now, 0
    end
    turns = turns + 1
    if now > deadline then
      return nil, describe(self)
    elseif turns <= TURNS then
      runtime.pause()
    elseif not (collecting and end_linger(kit)) then
      if kit.clock and kit.clock.blocking() > 0 and now - moved > kit.options.patience then
        return true
      end
      local ok, cancelled = tasks.sleep(0.001)
      if not ok then
        return nil, tostring(cancelled)
      end
    end
  end
end

return quiet
