--- What the memory broker keeps of each topic after it was delivered, so that subscriptions can go back.
--
-- For each topic a run of records, the oldest of which go when there are too many, too much of them or when they are
-- too old. Topics, too, are bounded: those that were published to longest ago go.
-- @module weir.broker.memory.retention

local pattern = require("weir.broker.memory.pattern")
local size = require("weir.size")

local retention = {}
local Log = { __name = "weir.memory.retention" }
Log.__index = Log

local TOPICS = 10000

--- What is wrong with a retention, or nil.
function retention.flaw(options)
  for name, value in pairs(options) do
    if name == "messages" or name == "topics" then
      if type(value) ~= "number" or value < 1 or value % 1 ~= 0 then
        return ("'%s' must be a whole number, at least 1"):format(name)
      end
    elseif name == "bytes" then
      local bytes, wrong = size.parse(value)
      if not bytes then
        return "'bytes': " .. wrong
      end
    elseif name == "seconds" then
      if type(value) ~= "number" or value ~= value or value <= 0 then
        return "'seconds' must be a number, more than 0"
      end
    else
      return ("unknown '%s'; known are: bytes, messages, seconds, topics"):format(tostring(name))
    end
  end
  if not (options.messages or options.bytes or options.seconds) then
    return "must have a bound: 'messages', 'bytes' or 'seconds'"
  end
end

--- Makes an empty log.
-- @tparam table options checked: `messages`, `bytes`, `seconds`, `topics`
-- @tparam table clock
function retention.new(options, clock)
  local self = setmetatable({
    clock = clock,
    messages = options.messages or math.huge,
    bytes = options.bytes and size.parse(options.bytes) or math.huge,
    seconds = options.seconds or math.huge,
    max_topics = options.topics or TOPICS,
  }, Log)
  self:clear()
  return self
end

--- Forgets everything, as if there had been nothing.
function Log:clear()
  self.topics = {} -- name -> run
  self.count = 0
  self.evicted = 0 -- highest position of what went together with its topic
  self.store = nil -- is told of what goes
end

local function drop_first(self, run)
  local record = run[run.first]
  run[run.first] = nil
  run.first = run.first + 1
  run.bytes = run.bytes - record.size
  run.evicted = record.id
  if self.store then
    self.store:evict(record.id)
  end
end

local function trim(self, run, now)
  local oldest = now - self.seconds
  while run.first <= run.last do
    local count = run.last - run.first + 1
    if count <= self.messages and run.bytes <= self.bytes and run[run.first].time > oldest then
      break
    end
    drop_first(self, run)
  end
end

local function drop_topic(self, name)
  local run = self.topics[name]
  while run.first <= run.last do
    drop_first(self, run)
  end
  self.evicted = math.max(self.evicted, run.evicted)
  self.topics[name] = nil
  self.count = self.count - 1
end

-- Makes room for another topic: empty ones go, then a tenth of all, those that were published to longest ago.
local function sweep(self)
  local now, names = self.clock.time(), {}
  for name, run in pairs(self.topics) do
    trim(self, run, now)
    names[#names + 1] = name
  end
  table.sort(names, function(a, b)
    return self.topics[a].newest < self.topics[b].newest
  end)
  local least = math.floor(self.max_topics * 0.9)
  for _, name in ipairs(names) do
    local run = self.topics[name]
    if run.first > run.last or self.count > least then
      drop_topic(self, name)
    end
  end
end

--- Adds a record.
-- @tparam table record `id`, `destination`, `payload`, `headers`, `size`, `time`; not to be changed afterwards
function Log:add(record)
  local run = self.topics[record.destination]
  if not run then
    if self.count >= self.max_topics then
      sweep(self)
    end
    run = { first = 1, last = 0, bytes = 0, evicted = self.evicted, newest = 0 }
    self.topics[record.destination] = run
    self.count = self.count + 1
  end
  run.last = run.last + 1
  run[run.last] = record
  run.bytes = run.bytes + record.size
  run.newest = record.id
  trim(self, run, record.time)
end

-- The runs of a name, or of all that a pattern has.
local function runs_of(self, name, tokens)
  if not tokens then
    return { self.topics[name] }
  end
  local list = {}
  for each, run in pairs(self.topics) do
    if pattern.matches(tokens, pattern.split(each)) then
      list[#list + 1] = run
    end
  end
  return list
end

--- Records from a position on, in order.
-- @tparam string name
-- @tparam ?table tokens of the pattern, if the name is one
-- @tparam number position
-- @treturn table a list
-- @treturn number the highest position that is gone
function Log:read(name, tokens, position)
  local now, list, evicted = self.clock.time(), {}, self.evicted
  local runs = runs_of(self, name, tokens)
  for _, run in ipairs(runs) do
    trim(self, run, now)
    evicted = #runs == 1 and run.evicted or math.max(evicted, run.evicted)
    for i = run.first, run.last do
      if run[i].id >= position then
        list[#list + 1] = run[i]
      end
    end
  end
  if #runs > 1 then
    table.sort(list, function(a, b)
      return a.id < b.id
    end)
  end
  return list, evicted
end

--- Numbers: topics, messages and bytes that are kept.
function Log:stats()
  local messages, bytes = 0, 0
  for _, run in pairs(self.topics) do
    messages, bytes = messages + run.last - run.first + 1, bytes + run.bytes
  end
  return { topics = self.count, messages = messages, bytes = bytes }
end

return retention
