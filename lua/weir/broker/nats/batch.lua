--- Publishing many messages of the NATS broker.
--
-- Messages without headers and options are published many in a call of C; their receipts have numbers in a row, so
-- that one object stands for all of them.
-- @module weir.broker.nats.batch

local errors = require("weir.broker.nats.errors")
local receipts = require("weir.broker.nats.receipts")
local runtime = require("weir.runtime")
local waitlist = require("weir.runtime.waitlist")

-- Confirmations that one batch waits for at a time, and messages that are published in one call.
local IN_FLIGHT, CHUNK = 4096, 256

local tick, pause_if_spent = runtime.tick, runtime.pause_if_spent

-- Messages of a batch whose receipts have numbers in a row: `number - offset` is the place in the batch.
local Run = {}
Run.__index = Run

function Run:receipt(number, stream, sequence, message, err)
  local batch, index = self.batch, number - self.offset
  local got, problem = batch.steps.read(stream, sequence, message, err, batch.items[index][1])
  batch.results[index] = got and true or problem
  batch.receipts[index] = got
  local open = batch.open - 1
  batch.open = open
  if open == batch.enough then
    batch.list:wake_all()
  end
end

-- One item of a batch, of which the confirmation comes later.
local function begin_item(self, batch, index, item)
  local destination, payload, options = item[1], item[2], item[4]
  local headers, confirm, err = nil, self.confirm, nil
  if options or item[3] or self.stream then
    headers, confirm, err = batch.steps.prepare(self, item[3], options)
  end
  if err then
    batch.results[index] = err
    return
  elseif not confirm or batch.steps.is_inbox(self, destination) then
    local reply = options and options.reply_to or self.reply_to
    local done
    done, err = self.connection:publish(destination, payload, reply, headers)
    batch.results[index] = done or err
    return
  end
  -- Counted before: publishing may wait for room, and the connection be lost meanwhile.
  local all = self.connection.receipts
  local run = setmetatable({ batch = batch, offset = all.number + 1 - index }, Run)
  batch.open = batch.open + 1
  local inbox, number = all:publish(destination, payload, headers, run)
  if inbox then
    run.inbox, run.first, run.last = inbox, number, number
    batch.runs[#batch.runs + 1] = run
  elseif batch.results[index] == nil then
    batch.results[index] = number
    batch.open = batch.open - 1
  end
end

-- As many plain items as one call takes; returns how many.
local function begin_run(self, batch, first, last)
  local connection, results = self.connection, batch.results
  if not connection.up or type(batch.items[first][1]) ~= "string" then
    return 0
  elseif self.confirm then
    if batch.steps.is_inbox(self, batch.items[first][1]) then
      return 0
    end
    local run = setmetatable({ batch = batch }, Run)
    local count, inbox, number = connection.receipts:publish_many(batch.items, first, last, run)
    if count > 0 then
      run.inbox, run.offset, run.first, run.last = inbox, number - first, number, number + count - 1
      batch.runs[#batch.runs + 1] = run
      batch.open = batch.open + count
    end
    return count
  end
  local count = connection.link:publish_many(batch.items, first, last)
  for index = first, first + count - 1 do
    results[index] = true
  end
  return count
end

-- Waits until at most `most` confirmations are missing; an error when that takes too long.
local function await(batch, most, timeout)
  local deadline = runtime.now() + timeout
  batch.enough = most
  while batch.open > most do
    local waiter = runtime.own_waiter()
    batch.list:add(waiter)
    local _, err = waiter:wait(deadline)
    batch.list:remove(waiter)
    if err then
      return err
    end
  end
end

-- Gives up what is not confirmed.
local function give_up(batch, err)
  for _, run in ipairs(batch.runs) do
    for number = run.first, run.last do
      if run.inbox.waiting[number] == run then
        receipts.forget(run.inbox, number)
        batch.results[number - run.offset] = err.code == "timeout" and errors.new("timeout") or err
      end
    end
  end
end

-- Publishes all; an error when it ended early.
local function begin_all(self, batch)
  local items, index, plain = batch.items, 1, not (self.stream or self.reply_to)
  while index <= #items do
    local late = tick() or (batch.open >= IN_FLIGHT and await(batch, IN_FLIGHT / 2, self.timeout)) or nil
    if late then
      return late
    end
    local item, count = items[index], 0
    if plain and item[3] == nil and item[4] == nil then
      count = begin_run(self, batch, index, math.min(index + CHUNK - 1, #items))
      late = pause_if_spent(count)
    end
    if count == 0 then
      begin_item(self, batch, index, item)
      count = 1
    end
    index = index + count
    if late then
      return late
    end
  end
end

--- Publishes them.
-- @param self the publisher
-- @tparam table items
-- @tparam table steps of publishing one: `prepare`, `is_inbox`, `read`
-- @return see `publisher:publish_batch`
return function(self, items, steps)
  local batch = {
    items = items,
    steps = steps,
    results = {},
    receipts = {},
    runs = {},
    open = 0, -- confirmations that are missing
    enough = 0, -- so few of them that somebody is to be woken
    list = waitlist.new(),
  }
  local late = begin_all(self, batch) or await(batch, 0, self.timeout)
  if late then
    give_up(batch, late)
  end
  local results, first = batch.results, nil
  for index = 1, #items do
    local result = results[index] or late
    results[index] = result
    first = first or (result ~= true and result) or nil
  end
  return not first or nil, first, results, batch.receipts
end
