--- What is to happen to deliveries by the clock: delayed ones come back, unsettled ones are taken back.
--
-- One timer of the clock for all of them, set to the first.
-- @module weir.broker.memory.due

local heap = require("weir.runtime.heap")

local Due = {}
Due.__index = Due

local function set_timer(self)
  local at = self.heap:next()
  if self.timer then
    if at and self.timer_at <= at then
      return
    end
    self.timer:cancel()
    self.timer = nil
  end
  if at then
    self.timer_at = at
    self.timer = self.clock.timer(at, function()
      self.timer = nil
      self:expire()
    end)
  end
end

--- Calls `delivery.queue:due(list)` at that time of the clock, with all of that queue that are due by then.
function Due:arm(delivery, at)
  if delivery.deadline then
    self.heap:disarm(delivery)
  end
  self.heap:arm(delivery, at)
  if not self.timer or at < self.timer_at then
    set_timer(self)
  end
end

--- Does not, if it was to.
function Due:disarm(delivery)
  if delivery.deadline then
    self.heap:disarm(delivery)
  end
end

--- Does what is due.
function Due:expire()
  local now, queues, lists, times = self.clock.now(), {}, {}, {}
  local delivery, at = self.heap:expired(now)
  while delivery do
    local queue = delivery.queue
    local list = lists[queue]
    if not list then
      list = {}
      lists[queue], queues[#queues + 1] = list, queue
    end
    list[#list + 1], times[delivery] = delivery, at
    delivery, at = self.heap:expired(now)
  end
  for _, queue in ipairs(queues) do
    local list = lists[queue]
    table.sort(list, function(a, b) -- at the same time: as they were published
      return times[a] < times[b] or times[a] == times[b] and a.position < b.position
    end)
    queue:due(list)
  end
  set_timer(self)
end

--- Forgets everything.
function Due:close()
  self.heap = heap.new()
  if self.timer then
    self.timer:cancel()
    self.timer = nil
  end
end

--- Makes one.
-- @tparam table clock
return function(clock)
  return setmetatable({ clock = clock, heap = heap.new(), timer = nil, timer_at = nil }, Due)
end
