--- Deadlines in order, for items that are armed and disarmed far more often than they expire.
--
-- An item is a table; the heap keeps its fields `deadline` (nil: not waiting) and `armed` (the
-- earliest key that it has in the heap). Disarming only clears `deadline`, and an item that is
-- armed again for later keeps its place until that comes up: so a task that waits with a timeout
-- again and again costs a few assignments. Entries that mean nothing any more go when they come
-- up, and all at once when they are the most.
--
-- Deadlines mostly come in order, because most timeouts are alike: those that do stand in a queue
-- (the lane), and only the others in the heap proper.
-- @module weir.runtime.heap

local heap = {}
local Heap = {}
Heap.__index = Heap

local FEW = 1024 -- useless entries that are not worth a rebuild

--- Makes an empty heap.
function heap.new()
  return setmetatable({
    keys = {}, -- the heap proper
    items = {},
    heaped = 0,
    lane_keys = {},
    lane_items = {},
    lane_first = 1,
    lane_last = 0,
    count = 0, -- entries in both
    useless = 0, -- those of them that mean nothing any more
  }, Heap)
end

local function up(keys, items, at, key, item)
  while at > 1 do
    local parent = (at - at % 2) / 2
    local above = keys[parent]
    if above <= key then
      break
    end
    keys[at], items[at] = above, items[parent]
    at = parent
  end
  keys[at], items[at] = key, item
end

local function down(keys, items, count, at, key, item)
  while true do
    local child = at + at
    if child > count then
      break
    end
    local below = keys[child]
    if child < count and keys[child + 1] < below then
      child = child + 1
      below = keys[child]
    end
    if key <= below then
      break
    end
    keys[at], items[at] = below, items[child]
    at = child
  end
  keys[at], items[at] = key, item
end

local function pop_heap(self)
  local keys, items, count = self.keys, self.items, self.heaped
  local key, item = keys[1], items[1]
  local last, last_item = keys[count], items[count]
  keys[count], items[count] = nil, nil
  self.heaped = count - 1
  if count > 1 then
    down(keys, items, count - 1, 1, last, last_item)
  end
  return key, item
end

local function pop_lane(self)
  local first, keys, items = self.lane_first, self.lane_keys, self.lane_items
  local key, item = keys[first], items[first]
  keys[first], items[first] = nil, nil
  if first == self.lane_last then
    self.lane_first, self.lane_last = 1, 0
  else
    self.lane_first = first + 1
  end
  return key, item
end

-- The least key and its item; whether they are in the lane. There is one.
local function peek(self)
  local key, first = self.keys[1], self.lane_first
  local other = self.lane_keys[first]
  if other and (not key or other <= key) then
    return other, self.lane_items[first], true
  end
  return key, self.items[1], false
end

local function push(self, key, item)
  self.count = self.count + 1
  item.armed = key
  local last = self.lane_last
  if last == 0 or self.lane_keys[last] <= key then
    last = last + 1
    self.lane_last = last
    self.lane_keys[last], self.lane_items[last] = key, item
  else
    local heaped = self.heaped + 1
    self.heaped = heaped
    up(self.keys, self.items, heaped, key, item)
  end
end

-- Moves the entries that mean something from `keys` and `items` to the end of others.
local function sift(keys, items, first, last, to_keys, to_items)
  local kept = 0
  for i = first, last do
    local key, item = keys[i], items[i]
    if item.armed == key then
      if item.deadline then
        kept = kept + 1
        to_keys[kept], to_items[kept] = key, item
      else
        item.armed = nil
      end
    end
  end
  return to_keys, to_items, kept
end

local function rebuild(self)
  local keys, items, heaped = sift(self.keys, self.items, 1, self.heaped, {}, {})
  self.lane_keys, self.lane_items, self.lane_last =
    sift(self.lane_keys, self.lane_items, self.lane_first, self.lane_last, {}, {})
  for i = 2, heaped do
    up(keys, items, i, keys[i], items[i])
  end
  self.keys, self.items, self.heaped, self.lane_first = keys, items, heaped, 1
  self.count, self.useless = heaped + self.lane_last, 0
end

--- Sets the deadline of an item that has none.
function Heap:arm(item, deadline)
  local armed = item.armed
  item.deadline = deadline
  if armed then
    if armed <= deadline then
      self.useless = self.useless - 1
      return
    end
  end
  push(self, deadline, item)
end

--- Clears the deadline of an item that has one.
function Heap:disarm(item)
  item.deadline = nil
  local useless = self.useless + 1
  self.useless = useless
  if useless > FEW and useless + useless > self.count then
    rebuild(self)
  end
end

-- Takes the first entry, which is in the lane or not; returns its item if that waits for it.
local function take(self, in_lane)
  local key, item = (in_lane and pop_lane or pop_heap)(self)
  self.count = self.count - 1
  if key ~= item.armed then
    self.useless = self.useless - 1
  else
    item.armed = nil
    if item.deadline then
      return item
    end
    self.useless = self.useless - 1
  end
end

--- The next deadline, or nil.
function Heap:next()
  while self.count > 0 do
    local key, item, in_lane = peek(self)
    if item.deadline and item.armed == key then
      return key
    end
    take(self, in_lane)
  end
end

--- Takes an item whose deadline is at or before `now`; nil when there is none. Returns that deadline, too.
function Heap:expired(now)
  while self.count > 0 do
    local key, _, in_lane = peek(self)
    if key > now then
      return nil
    end
    local item = take(self, in_lane)
    if item then
      local deadline = item.deadline
      if deadline <= now then
        item.deadline = nil
        return item, deadline
      end
      push(self, deadline, item)
    end
  end
end

return heap
