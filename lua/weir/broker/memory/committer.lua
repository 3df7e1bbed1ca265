--- Group commit: whatever comes while a commit is under way is one transaction, the next.
--
-- Two kinds of changes: *notes* (settlements, states, groups), which nobody waits for, and *units* (the messages of
-- one publish), whose callers wait. A round commits all of both at once. Where that fails for want of room, the notes
-- go first and alone, for they make room and may use the reserve; then each unit by itself, so that one that does not
-- fit takes no other down. Notes that still find no room are kept, and tried again.
--
-- With `sync` the commit is done by a thread, and the loop goes on while the disk works. Without it there is no
-- disk to wait for, and going to a thread and back takes longer than the commit.
-- @module weir.broker.memory.committer

local luv = require("luv")
local runtime = require("weir.runtime")

local committer = {}
local Committer = { __name = "weir.memory.committer" }
Committer.__index = Committer

local RETRY = 1 -- seconds after which notes that found no room are tried again
local ROOM = { full = true, no_space = true, too_large = true } -- what may be another time, or for another unit

--- Makes one.
-- @tparam table lmdb the module weir.brokers.lmdb
-- @param env
-- @tparam table options `sync`; `prepare(notes)`: adds what a round must write; `committed(unit)`: it is stored;
--   `wrap(code, message)`: makes an error
function committer.new(lmdb, env, options)
  local self = setmetatable({
    env = env,
    wrap = options.wrap,
    prepare = options.prepare,
    committed = options.committed,
    notes = lmdb.batch(), -- to be filled by whoever uses this, and then `changed()`
    units = lmdb.batch(), -- the messages of those that wait in `waiting`
    spare_notes = lmdb.batch(),
    spare_units = lmdb.batch(),
    waiting = {}, -- units: { waiter, from, to, ... }
    flushing = {}, -- waiters
    dirty = false, -- whether the next round has something to write besides units
    active = false, -- whether rounds are being made, or about to
    failed = nil, -- the error after which nothing is written any more
    commits = 0,
    failures = 0,
    done = runtime.waiter(),
  }, Committer)
  if options.sync then
    local fd, code, message = env:fd()
    if not fd then
      return nil, self.wrap(code, message)
    end
    self.poll = luv.new_poll(fd)
    self.poll:start("r", function()
      self.done:wake()
    end)
    self.poll:unref()
  end
  return self
end

-- Commits a part of a batch, in the thread if there is one.
local function commit(self, batch, from, to, reserve)
  local env, poll = self.env, self.poll
  local ok, code, message
  if poll and not poll:is_closing() then
    ok, code, message = env:submit(batch, from, to, reserve)
    if ok then
      poll:ref()
      repeat
        self.done:wait(nil, true)
        ok, code, message = env:result()
      until ok or code
      if not poll:is_closing() then
        poll:unref()
      end
    end
  else
    ok, code, message = env:commit(batch, from, to, reserve)
  end
  if ok then
    self.commits = self.commits + 1
    return true
  end
  self.failures = self.failures + 1
  local err = self.wrap(code, message)
  if not ROOM[code] then
    self.failed = self.failed or err
  end
  return nil, err
end

-- Commits notes where there may be little room: in parts, as small as need be, for each makes room for the next.
local function commit_notes(self, batch, from, to)
  local ok, err = commit(self, batch, from, to, true)
  local middle = not ok and not self.failed and batch:middle(from, to)
  if ok or not middle or middle >= to then
    return ok, err
  end
  ok, err = commit_notes(self, batch, from, middle)
  if ok then
    ok, err = commit_notes(self, batch, middle, to)
  end
  return ok, err
end

-- There was no room for all at once. Returns the error for notes that still found none.
local function commit_apart(self, batch, split, units, err)
  local wrong
  if split > 0 then
    local ok
    ok, wrong = commit_notes(self, batch, 0, split)
    if ok then
      wrong = nil
    end
  end
  for _, unit in ipairs(units) do
    if self.failed then
      unit.err = self.failed
    elseif #units == 1 and split == 0 then
      unit.err = err
    else
      local _, reason = commit(self, batch, split + unit.from, split + unit.to)
      unit.err = reason
    end
  end
  return wrong
end

-- Puts notes that found no room in front of those that have come meanwhile.
local function keep(self, notes, split)
  notes:cut(split)
  notes:join(self.notes)
  self.notes, self.spare_notes = notes, self.notes
  self.dirty = true
  self.kept = true
end

-- One transaction, and what follows from it.
local function round(self)
  local notes, units, waiting, flushing = self.notes, self.units, self.waiting, self.flushing
  self.current = { waiting, flushing }
  self.prepare(notes)
  self.notes, self.units = self.spare_notes, self.spare_units
  self.waiting, self.flushing, self.dirty, self.kept = {}, {}, false, false
  local split = notes:position()
  notes:join(units)
  local wrong, apart = self.failed, false
  if not wrong and #notes > 0 then
    local ok, err = commit(self, notes, 0, notes:position(), waiting[1] == nil)
    if not ok then
      wrong, apart = self.failed, not self.failed
      if apart then
        wrong = commit_apart(self, notes, split, waiting, err)
      end
    end
  end
  units:clear()
  self.spare_units = units
  if wrong and not self.failed then
    keep(self, notes, split)
  else
    self.spare_notes = notes
  end
  self.spare_notes:clear()
  for _, unit in ipairs(waiting) do
    local err = unit.err or not apart and wrong -- one that is stored is, whatever became of the next
    if err then
      unit.waiter:wake(nil, err)
    else
      self.committed(unit)
      unit.waiter:wake(true)
    end
  end
  for _, waiter in ipairs(flushing) do
    waiter:wake(wrong == nil or nil, wrong)
  end
  self.current = nil
end

local function has_work(self)
  return self.waiting[1] or self.flushing[1] or (self.dirty and not self.kept)
end

local function retry_later(self)
  if self.kept and not self.failed and not self.timer then
    self.timer = runtime.timer(runtime.now() + RETRY, function()
      self.timer, self.kept = nil, false
      self:start()
    end)
  end
end

-- Rounds, as long as there is something to do; in a coroutine of its own.
local function rounds(self)
  while true do
    local ok, err = xpcall(round, debug.traceback, self)
    if not ok then
      self.failed = self.failed or self.wrap("failed", tostring(err))
      for _, unit in ipairs(self.current[1]) do
        unit.waiter:wake(nil, self.failed)
      end
      for _, waiter in ipairs(self.current[2]) do
        waiter:wake(nil, self.failed)
      end
    end
    if not has_work(self) then
      break
    end
    runtime.pause() -- those who were woken may have more for the next
  end
  self.active = false
  if has_work(self) then
    return self:start()
  end
  retry_later(self)
end

local function begin(self)
  local ok, err = coroutine.resume(coroutine.create(rounds), self)
  if not ok then
    runtime.report(err)
  end
end

--- Has a round made after the tasks that are ready now have run.
function Committer:start()
  if not self.active then
    self.active = true
    runtime.defer(begin, self)
  end
end

--- Notes were made: they are committed soon.
function Committer:changed()
  self.dirty = true
  if not self.active then
    self:start()
  end
end

--- Waits until a unit, which is behind `from` in `units`, is committed.
-- @tparam table unit `from`, `to`: positions; the rest is the caller's
-- @treturn boolean true; or nil and an error
function Committer:await(unit)
  unit.waiter = runtime.waiter()
  local waiting = self.waiting
  waiting[#waiting + 1] = unit
  self:start()
  return unit.waiter:wait(nil, true)
end

--- Waits until all that was handed over is committed.
-- @treturn boolean true; or nil and an error
function Committer:flush()
  if self.failed then
    return nil, self.failed
  elseif not self.active and not self.dirty then
    return true
  end
  local waiter = runtime.waiter()
  self.flushing[#self.flushing + 1] = waiter
  self:start()
  return waiter:wait(nil, true)
end

--- Ends it; what is not committed is lost. Nobody waits any more.
function Committer:close()
  self.failed = self.failed or self.wrap("closed", "the store is closed")
  if self.timer then
    runtime.cancel_timer(self.timer)
    self.timer = nil
  end
  while self.active and runtime.can_block() do
    runtime.pause() -- the commit under way ends first
  end
  if self.poll and not self.poll:is_closing() then
    self.poll:close()
    if runtime.can_block() then
      runtime.pause() -- luv must have let go of the handle before the program may end
    end
  end
end

return committer
