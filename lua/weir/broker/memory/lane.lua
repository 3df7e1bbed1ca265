--- The part of the memory broker that every message goes through, made for speed.
--
-- A *lane* is the ring of the deliveries of one queue that are ready, and the list of those that were taken and are not
-- settled. `push` puts a message in, `next` takes one, `ack` settles it; these three are what a message costs. So the
-- state of a lane is in local variables that its functions share, not in fields of a table, which are several
-- times slower; a delivery is one table with four fields of its own (see `weir.broker.memory.message`); and
-- whatever is rare (a full queue, a waiting publisher, prefetch, ack_wait, a store) is left to slower functions
-- elsewhere, by a few comparisons.
--
-- Lanes of one broker share the numbering of messages, the time that is written on them, and the budget of operations
-- after which the loop gets its turn.
-- @module weir.broker.memory.lane

local message = require("weir.broker.memory.message")

local lanes = {}

local setmetatable, type = setmetatable, type
local OVER, SETTLED = message.OVER, message.SETTLED
local size_of, with_headers = message.size, message.with_headers

local FEW = 4 -- places of a new ring
local MANY = 1024 -- places that an empty ring may keep

local function places(size)
  local list = {}
  for i = 1, size do
    list[i] = false
  end
  return list
end

--- Makes what the lanes of one broker share.
-- @tparam function refresh returns the next budget, the time, and an error if the task was cancelled
-- @tparam function slow_publish `(publisher, destination, payload, headers, options)`: what `publish` leaves to others
-- @tparam number max_payload
-- @treturn table functions: `publish` (the method of publishers), `refresh`, `stale`, `claim`, `sequence`, `advance`,
-- `fast` (lets a destination take the fast path), `forget` (no destination takes it), and `lane`, which makes a lane
function lanes.new(refresh, slow_publish, max_payload)
  local sequence, wall, budget = 0, 0, 0
  local pushes = {} -- destination -> what puts a payload in its only queue
  local shared = {}

  --- Reads the time; an error if the task was cancelled.
  local function renew()
    local cancelled
    budget, wall, cancelled = refresh()
    return cancelled
  end

  --- Reads the time if that is due; an error if the task was cancelled.
  function shared.refresh()
    if budget <= 0 then
      return renew()
    end
    budget = budget - 1
  end

  --- What is known of the time is old.
  function shared.stale()
    budget = 0
  end

  --- Positions for `count` messages: the one before the first, and the time.
  function shared.claim(count)
    local before = sequence
    sequence, budget = before + count, budget - count
    return before, wall
  end

  --- The last position.
  function shared.sequence()
    return sequence
  end

  --- Positions up to `to` are taken.
  function shared.advance(to)
    if to > sequence then
      sequence = to
    end
  end

  function shared.fast(destination, push)
    pushes[destination] = push
  end

  function shared.forget()
    pushes = {}
  end

  function shared.publish(self, destination, payload, headers, options)
    if options == nil then
      local push = pushes[destination]
      if push and type(payload) == "string" and (headers == nil or type(headers) == "table") then
        local ok, err = push(payload, headers)
        if ok then
          return true
        elseif err then
          return nil, err
        end
      end
    end
    return slow_publish(self, destination, payload, headers, options)
  end

  --- Makes the lane of a queue.
  -- @tparam table queue `receivers`, a wait list; `slow_next(subscription, timeout)`; `discard(delivery, taker)`
  -- @tparam number max_messages
  -- @tparam number max_bytes
  function shared.lane(queue, max_messages, max_bytes)
    local items, size, head, count = places(FEW), FEW, 1, 0 -- `count` from `head` on, around the end
    local unsettled, takers, taken = places(FEW), places(FEW), 0 -- the first `taken`
    local room, free = max_messages, max_bytes -- what the capacity leaves
    local alert = false -- whether somebody wants to know what is settled
    local receivers, slow_next = queue.receivers, queue.slow_next
    local lane = {}

    local function grow()
      local larger = places(size * 2)
      for i = 1, size do
        local at = head + i - 1
        larger[i] = items[at > size and at - size or at]
      end
      items, size, head = larger, size * 2, 1
    end

    --- Adds a delivery that is accounted for at the end.
    function lane.append(delivery)
      if count == size then
        grow()
      end
      local at = head + count
      items[at > size and at - size or at] = delivery
      count = count + 1
      if receivers.count > 0 then
        receivers:wake_one()
      end
    end

    --- The same at the front.
    function lane.prepend(delivery)
      if count == size then
        grow()
      end
      head = head > 1 and head - 1 or size
      items[head] = delivery
      count = count + 1
      if receivers.count > 0 then
        receivers:wake_one()
      end
    end

    --- Adds deliveries that come back, in their order: behind those at the front that came back before, and in front
    -- of those that are delivered for the first time.
    function lane.insert(list)
      local more, early = #list, 0
      while count + more > size do
        grow()
      end
      while early < count and lane.peek(early + 1).attempts > 1 do
        early = early + 1
      end
      local from = head
      head = (head - 1 - more) % size + 1
      for i = 0, early + more - 1 do
        local delivery
        if i < early then
          delivery = items[(from - 1 + i) % size + 1]
        else
          delivery = list[i - early + 1]
        end
        items[(head - 1 + i) % size + 1] = delivery
      end
      count = count + more
      for _ = 1, math.min(more, receivers.count) do
        receivers:wake_one()
      end
    end

    --- Takes the first away; there is one.
    function lane.shift()
      local delivery = items[head]
      items[head] = false
      head = head < size and head + 1 or 1
      count = count - 1
      if count == 0 and size > MANY then
        items, size, head = places(FEW), FEW, 1
      end
      return delivery
    end

    --- The ready delivery of a place, 1 being the first.
    function lane.peek(i)
      local at = head + i - 1
      return items[at > size and at - size or at]
    end

    --- How many are ready; how many are taken.
    function lane.ready()
      return count
    end

    function lane.taken()
      return taken
    end

    --- A taken delivery and who took it.
    function lane.look(slot)
      return unsettled[slot], takers[slot]
    end

    --- Gives the first ready delivery, there is one, to a subscription.
    function lane.take(taker)
      local delivery = lane.shift()
      taken = taken + 1
      unsettled[taken], takers[taken] = delivery, taker
      delivery.slot = taken
      return delivery
    end

    --- Takes a delivery out of the unsettled ones; the last of them gets its place.
    -- @treturn table who had taken it
    function lane.release(delivery, state)
      local slot = delivery.slot
      local taker = takers[slot]
      if slot ~= taken then
        local moved = unsettled[taken]
        unsettled[slot], takers[slot] = moved, takers[taken]
        moved.slot = slot
      end
      unsettled[taken], takers[taken] = false, false
      taken = taken - 1
      delivery.slot = state
      if taker.limited then
        taker.taken = taker.taken - 1
      end
      return taker
    end

    --- Accounts for deliveries that come, or go if the numbers are negative.
    function lane.account(messages, bytes)
      room, free = room - messages, free - bytes
    end

    --- What the capacity leaves, in messages and in bytes; less than 0 if there is too much.
    function lane.room()
      return room, free
    end

    --- Changes the capacity.
    function lane.resize(messages, bytes)
      room, free = room + messages - max_messages, free + bytes - max_bytes
      max_messages, max_bytes = messages, bytes
    end

    --- Whether somebody wants to know of each settlement.
    function lane.alert(flag)
      alert = flag
    end

    --- The method of messages.
    function lane.ack(self)
      local slot = self.slot
      if slot <= 0 then
        return nil, OVER[slot]
      elseif alert then
        queue:discard(self, lane.release(self, SETTLED))
        return true
      elseif slot ~= taken then
        local moved = unsettled[taken]
        unsettled[slot], takers[slot] = moved, takers[taken]
        moved.slot = slot
      end
      unsettled[taken] = false
      taken = taken - 1
      self.slot = SETTLED
      room = room + 1
      free = free + (self.size or #self.payload)
      return true
    end

    --- The method of subscriptions.
    function lane.next(self, timeout)
      if count == 0 or self.slow or budget <= 0 or count == 1 and size > MANY then
        return slow_next(self, timeout)
      end
      budget = budget - 1
      local delivery = items[head]
      items[head] = false
      head = head < size and head + 1 or 1
      count = count - 1
      taken = taken + 1
      unsettled[taken], takers[taken] = delivery, self
      delivery.slot = taken
      return delivery
    end

    --- Makes what publishes a payload to a destination that this queue alone gets.
    function lane.pusher(destination)
      local kind = message.kind({ queue = queue, ack = lane.ack, destination = destination })
      return function(payload, headers)
        if budget <= 0 then
          local routes = pushes
          local cancelled = renew()
          if cancelled or pushes ~= routes then -- somebody subscribed, or closed all, when the loop had its turn
            return false, cancelled
          end
        end
        local bytes = headers and size_of(payload, headers) or #payload
        local left = free - bytes
        if room <= 0 or left < 0 or bytes > max_payload or count == size then
          return false
        end
        budget, sequence = budget - 1, sequence + 1
        room, free = room - 1, left
        local at = head + count
        items[at > size and at - size or at] = headers and with_headers(kind, payload, headers, bytes, sequence, wall)
          or setmetatable({ payload = payload, position = sequence, time = wall, slot = 0 }, kind)
        count = count + 1
        if receivers.count > 0 then
          receivers:wake_one()
        end
        return true
      end
    end

    return lane
  end

  return shared
end

return lanes
