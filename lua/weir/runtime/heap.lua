--- Deadlines in order, for items that are armed and disarmed far more often than they expire.
--
-- An item is a table; the heap keeps its fields `deadline` (nil: not waiting) and `armed` (the
-- earliest key that it has in the heap). Disarming only clears `deadline`, and an item that is
-- armed again for later keeps its place until that comes up: so a task that waits with a timeout
-- again and again costs a few assignments. Entries that mean nothing any more go when they come
-- up, and all at once when they are the most.
-- @module weir.runtime.heap

local heap = {}
local Heap = {}
Heap.__index = Heap

local FEW = 1024 -- useless entries that are not worth a rebuild

--- Makes an empty heap.
function heap.new()
  return setmetatable({ keys = {}, items = {}, count = 0, useless = 0 }, Heap)
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

local function pop(self)
  local keys, items, count = self.keys, self.items, self.count
  local key, item = keys[1], items[1]
  local last, last_item = keys[count], items[count]
  keys[count], items[count] = nil, nil
  self.count = count - 1
  if count > 1 then
    down(keys, items, count - 1, 1, last, last_item)
  end
  return key, item
end

local function push(self, key, item)
  local count = self.count + 1
  self.count = count
  item.armed = key
  up(self.keys, self.items, count, key, item)
end

local function rebuild(self)
  local keys, items, kept = {}, {}, 0
  for i = 1, self.count do
    local key, item = self.keys[i], self.items[i]
    if item.deadline and item.armed == key then
      kept = kept + 1
      up(keys, items, kept, key, item)
    elseif item.armed == key then
      item.armed = nil
    end
  end
  self.keys, self.items, self.count, self.useless = keys, items, kept, 0
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

-- Takes the first entry; returns its item if that is what waits for it.
local function take(self)
  local key, item = pop(self)
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
  local keys, items = self.keys, self.items
  while self.count > 0 do
    local item = items[1]
    if item.deadline and item.armed == keys[1] then
      return keys[1]
    end
    take(self)
  end
end

--- Takes an item whose deadline is at or before `now`; nil when there is none.
function Heap:expired(now)
  local keys = self.keys
  while self.count > 0 and keys[1] <= now do
    local item = take(self)
    if item then
      local deadline = item.deadline
      if deadline <= now then
        item.deadline = nil
        return item
      end
      push(self, deadline, item)
    end
  end
end

return heap
