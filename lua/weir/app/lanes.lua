--- Workers that keep the order of each key.
--
-- A message goes to the lane in which others of its key are, or to the one with the least to do; messages without a
-- key always go there. Each lane is a task, and has a short queue; where the queue of a key is full, pulling waits.
-- @module weir.app.lanes

local channel = require("weir.channel")
local settle = require("weir.app.settle")

-- Messages that wait in one lane, at most.
local QUEUE = 8

local Lanes = {}
Lanes.__index = Lanes

local function finished(self, lane, key)
  lane.load = lane.load - 1
  self.queued = self.queued - 1
  local of_key = key ~= nil and self.by_key[key]
  if of_key then
    of_key.count = of_key.count - 1
    if of_key.count == 0 then
      self.by_key[key] = nil
    end
  end
  if self.pipeline.watched then
    self.pipeline:changed()
  end
end

local function work(self, lane)
  local pipeline = self.pipeline
  while true do
    local item = lane.queue:recv()
    if not item then
      return
    end
    if item.run then
      self.running:guard(item.run, pipeline)
    else
      pipeline:take(item.message)
    end
    finished(self, lane, item.key)
  end
end

-- The lane with the least to do; the first idle one, beginning after the last that was chosen.
local function idlest(self)
  local lanes, count, best = self.lanes, self.count, nil
  local at = self.at
  for _ = 1, count do
    at = at % count + 1
    local lane = lanes[at]
    if lane.load == 0 then
      best = lane
      break
    elseif not best or lane.load < best.load then
      best = lane
    end
  end
  self.at = at
  return best
end

local function key_of(self, message)
  local by = self.by
  if by == "key" then
    return message.key
  end
  local ok, key = pcall(by, message)
  if ok then
    return key ~= key and "nan" or key
  end
  self.pipeline.log:error("the function for the key of a worker failed",
    { handler = self.pipeline.registration.id, error = settle.text_of(key) })
end

--- Gives a message to its lane; waits where that is full. `run` is called in place of handling it, if given.
-- @treturn boolean true; false when the task was cancelled
function Lanes:send(message, run)
  local key = key_of(self, message)
  local of_key = key ~= nil and self.by_key[key]
  local lane = of_key and of_key.lane or idlest(self)
  if of_key then
    of_key.count = of_key.count + 1
  elseif key ~= nil then
    self.by_key[key] = { lane = lane, count = 1 }
  end
  lane.load = lane.load + 1
  self.queued = self.queued + 1
  if lane.queue:send({ message = message, key = key, run = run }) then
    return true
  end
  finished(self, lane, key) -- it stays unsettled, and goes back when the subscription is closed
  self.pipeline:bequeath(message, run)
  return false
end

--- Takes out what waits in the lanes.
-- @treturn {table,...} with `message`, and `run` where that is called in place of handling it
function Lanes:clear()
  local list = {}
  for _, lane in ipairs(self.lanes) do
    while true do
      local item = lane.queue:try_recv()
      if not item then
        break
      end
      list[#list + 1] = item
      finished(self, lane, item.key)
    end
  end
  return list
end

local lanes = {}

--- Makes them, and starts their tasks.
-- @param running of `weir.app.consume`
-- @tparam table workers `count`, and `by`: "key", or a function of the message that returns a key, or nil for none
function lanes.new(running, workers)
  local self = setmetatable({
    running = running,
    pipeline = running.pipeline,
    by = workers.by,
    count = workers.count,
    lanes = {},
    by_key = {}, -- the lane of each key that is in one, and how many messages of it are
    at = 0,
    queued = 0, -- in queues, and being handled
  }, Lanes)
  for i = 1, workers.count do
    local lane = { queue = channel(QUEUE), load = 0 }
    self.lanes[i] = lane
    running:spawn(function()
      work(self, lane)
    end)
  end
  return self
end

return lanes
