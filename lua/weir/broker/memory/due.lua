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

--- Calls `delivery.queue:due(delivery)` at that time of the clock.
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
  local now, list = self.clock.now(), {}
  local delivery = self.heap:expired(now)
  while delivery do
    list[#list + 1] = delivery
    delivery = self.heap:expired(now)
  end
  for i = #list, 1, -1 do -- each goes to the front of its queue: so the first of them is first there
    list[i].queue:due(list[i])
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
