--- Who waits for a thing, first come, first served.
--
-- A list of waiters. Waking one only tells it to look again: what it waits for stays where it is, so
-- that nothing is lost when its task has been cancelled or has timed out meanwhile. Whoever leaves
-- without having taken what it was woken for must pass the word on: `list:remove(w)` returns true in
-- that case.
-- @module weir.runtime.waitlist

local waitlist = {}
local List = {}
List.__index = List

--- Makes an empty list.
function waitlist.new()
  return setmetatable({ first = 1, last = 0, count = 0, places = {} }, List)
end

-- Closes the holes that remove() left.
local function compact(self)
  local kept = 0
  for i = self.first, self.last do
    local waiter = self[i]
    self[i] = nil
    if waiter then
      kept = kept + 1
      self[kept] = waiter
      self.places[waiter] = kept
    end
  end
  self.first, self.last = 1, kept
end

--- Adds a waiter that is not in the list.
function List:add(waiter)
  local last, count = self.last + 1, self.count + 1
  self.last, self.count = last, count
  self[last] = waiter
  self.places[waiter] = last
  if last - self.first > count + count + 16 then
    compact(self)
  end
end

--- Removes a waiter. True when it had been woken through this list.
function List:remove(waiter)
  local place = self.places[waiter]
  if not place then
    return true
  end
  self.places[waiter] = nil
  self.count = self.count - 1
  self[place] = false
  if self.count == 0 then
    compact(self)
  end
  return false
end

--- Wakes the first waiter that still waits; returns whether there was one.
function List:wake_one()
  while self.count > 0 do
    local first = self.first
    local waiter = self[first]
    self[first] = nil
    self.first = first + 1
    if waiter then
      self.places[waiter] = nil
      self.count = self.count - 1
      if waiter:wake() then
        return true
      end
    end
  end
  self.first, self.last = 1, 0
  return false
end

--- Wakes all that are in the list now.
function List:wake_all()
  while self:wake_one() do
  end
end

return waitlist
