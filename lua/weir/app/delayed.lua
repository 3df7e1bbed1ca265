--- What has to wait for its time: messages that came too early, and settlements that are tried again.
--
-- The items are held in this process, their messages unsettled, so nothing is lost when it dies. Their number is
-- bounded: at `limit` the subscription pulls no more until there is room.
-- @module weir.app.delayed

local contract = require("weir.broker.contract")
local errors = require("weir.errors")
local id = require("weir.id")
local log = require("weir.log")
local runtime = require("weir.runtime")
local trace = require("weir.trace")
local waitlist = require("weir.runtime.waitlist")

local names = contract.headers

local delayed = {}

local Held = { __name = "weir.app.held" }
Held.__index = Held

-- Messages that a subscription holds.
local LIMIT = 1000
-- Longest time for which a header may keep a message here, in seconds: a week.
local LONGEST = 7 * 86400

delayed.LONGEST = LONGEST

local RETIRED = errors.new("stopped", "another one pulls messages by now")

--- Makes an empty holder.
-- @tparam table clock
-- @tparam[opt=1000] number limit
-- @tparam[opt] function on_first is called when it gets its first item, to start who takes them out
function delayed.new(clock, limit, on_first)
  return setmetatable({
    clock = clock,
    limit = limit or LIMIT,
    on_first = on_first,
    items = {}, -- a heap, by `due` and then by order
    count = 0,
    full = false, -- nothing more should be pulled
    retired = false,
    heir = nil, -- who gets what is added
    order = 0,
    room = waitlist.new(),
    due = waitlist.new(),
  }, Held)
end

local function before(a, b)
  return a.due < b.due or (a.due == b.due and a.order < b.order)
end

local function push(items, count, item)
  local at = count
  while at > 1 do
    local parent = (at - at % 2) / 2
    if not before(item, items[parent]) then
      break
    end
    items[at] = items[parent]
    at = parent
  end
  items[at] = item
end

local function pop(items, count)
  local top, item = items[1], items[count]
  items[count] = nil
  count = count - 1
  local at = 1
  while at * 2 <= count do
    local child = at * 2
    if child < count and before(items[child + 1], items[child]) then
      child = child + 1
    end
    if not before(items[child], item) then
      break
    end
    items[at] = items[child]
    at = child
  end
  if count > 0 then
    items[at] = item
  end
  return top
end

local function set_timer(self)
  local first = self.items[1]
  if self.timer and (not first or self.timer_at ~= first.due) then
    self.timer:cancel()
    self.timer = nil
  end
  if first and not self.timer then
    self.timer_at = first.due
    self.timer = self.clock.timer(first.due, function()
      self.timer = nil
      self.due:wake_all()
    end)
  end
end

--- Holds an item for some seconds.
-- @tparam number seconds
-- @param message unsettled
-- @tparam function run what is done then, in the task that takes the item; gets the pipeline that has it by then
-- @tparam[opt] boolean handles whether that is to handle the message, and so needs a free worker
function Held:add(seconds, message, run, handles)
  if self.heir then
    return self.heir:add(seconds, message, run, handles)
  end
  self.order = self.order + 1
  self.count = self.count + 1
  local item = {
    due = self.clock.now() + seconds,
    order = self.order,
    message = message,
    run = run,
    handles = handles,
  }
  self.full = self.retired or self.count >= self.limit
  push(self.items, self.count, item)
  if self.items[1] == item then
    set_timer(self)
  end
  if self.on_first and not self.closed then
    local start = self.on_first
    self.on_first = nil
    start()
  end
end

--- Takes the next item that is due, and waits for one.
-- @return the item; nil when the task was cancelled, or another holder gets the items
function Held:take()
  while not self.retired do
    local first = self.items[1]
    if first and first.due <= self.clock.now() then
      pop(self.items, self.count)
      self.count = self.count - 1
      self.full = self.retired or self.count >= self.limit
      set_timer(self)
      self.room:wake_all()
      return first
    end
    set_timer(self)
    local waiter = runtime.own_waiter()
    self.due:add(waiter)
    local _, err = waiter:wait()
    self.due:remove(waiter)
    if err then
      return nil
    end
  end
end

--- Waits while it is full. Returns an error when the task was cancelled, or nothing is to be pulled any more.
function Held:wait_for_room()
  while self.full and not self.closed do
    local waiter = runtime.own_waiter()
    self.room:add(waiter)
    local _, err = waiter:wait()
    self.room:remove(waiter)
    if err then
      return err
    end
  end
  return self.retired and RETIRED or nil
end

--- Lets go of those who wait for room.
function Held:stop()
  self.closed = true
  self.room:wake_all()
end

--- Another holder is going to get the items: from now on nobody takes any, and who asks before it pulls is told not
-- to, even if that is long after.
function Held:retire()
  self.retired, self.full = true, true
  self:stop()
  self.due:wake_all()
end

--- Gets the items of another holder that has retired, and what is added to that from now on.
function Held:inherit(other)
  local items = other:clear()
  table.sort(items, before)
  for _, item in ipairs(items) do
    self:add(item.due - self.clock.now(), item.message, item.run, item.handles)
  end
  other.heir = self
end

--- Takes everything out.
-- @treturn {table,...} the items, in no order
function Held:clear()
  local items = self.items
  self.items, self.count, self.full = {}, 0, self.retired
  self:stop()
  set_timer(self)
  return items
end

-- --- headers --------------------------------------------------------------------------------------

--- Seconds that are left until a copy is to be handled; nil where it is none, or its time has come.
function delayed.remaining(headers, clock)
  local at = tonumber(headers[names.not_before])
  if not at or at ~= at then
    return nil
  end
  local seconds = at / 1000 - clock.time()
  return seconds > 0 and math.min(seconds, LONGEST) or nil
end

-- The headers of a message, and those that every publish should have and this one came without.
local function copy(headers)
  local new = {}
  for name, value in pairs(headers) do
    new[name] = value
  end
  new["message-id"] = new["message-id"] or id.message()
  new["correlation-id"] = new["correlation-id"] or new["message-id"]
  new.traceparent = new.traceparent or trace.fresh()
  return new
end

--- The headers of a copy that is published in place of bringing a message back.
-- @param message
-- @tparam number attempt that failed
-- @tparam number delay in seconds
-- @tparam string retry_for the registration that it is for
-- @tparam table clock
function delayed.copy_headers(message, attempt, delay, retry_for, clock)
  local headers = copy(message.headers)
  headers[names.attempt] = ("%d"):format(attempt + 1)
  headers[names.not_before] = delay > 0 and ("%.0f"):format((clock.time() + delay) * 1000) or nil
  headers[names.retry_for] = retry_for
  headers[names.origin] = headers[names.origin] or message.destination
  headers[names.failed_at] = headers[names.failed_at] or log.timestamp(clock.time())
  headers["reply-to"] = message.reply_to or headers["reply-to"]
  return headers
end

-- Headers must fit a line on every wire.
local LONGEST_TEXT = 1024

local function one_line(text)
  text = text:gsub("[%z\1-\31\127]+", " ")
  return #text > LONGEST_TEXT and text:sub(1, LONGEST_TEXT) .. "..." or text
end

--- The headers of a dead letter: those of the message, and why it is dead.
-- @param message
-- @tparam table about `attempt`, `text` (what went wrong), `code`, `handler`
-- @tparam table clock
function delayed.dead_headers(message, about, clock)
  local headers = copy(message.headers)
  local now = log.timestamp(clock.time())
  headers[names.attempt] = ("%d"):format(about.attempt)
  headers[names.not_before], headers[names.retry_for] = nil, nil
  headers[names.origin] = headers[names.origin] or message.destination
  headers[names.failed_at] = headers[names.failed_at] or now
  headers[names.dead_at] = now
  headers[names.error] = one_line(about.text)
  headers[names.error_code] = one_line(about.code)
  headers[names.handler] = about.handler
  headers["reply-to"] = message.reply_to or headers["reply-to"]
  return headers
end

return delayed
