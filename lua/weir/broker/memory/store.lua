--- What makes the memory broker durable: messages and the state of their deliveries in an LMDB file.
--
-- The engine keeps everything in memory, too; the store is read once, when it is opened. A message is stored once,
-- with the groups that it went to, and is removed when the last of them is done with it and retention, if it was
-- retained, has dropped it. So in the common case, one group and no failure, a message costs one insertion and one
-- deletion. All that happens in a turn, and while a commit is under way, is one transaction (group commit).
--
-- What is promised: after `append` returned true the message survives the end of this process, however that
-- comes, and with `sync` a power failure. Settlements survive once `flush`, or an `append` made after them,
-- returned; until then the end of the process may bring the delivery back. Attempts are written in the turn in which
-- they begin; a process that dies before its loop gets another turn does not count its last.
-- @module weir.broker.memory.store

local errors = require("weir.errors")
local committer = require("weir.broker.memory.committer")
local record = require("weir.broker.memory.record")
local size = require("weir.size")

local store = {}
local Store = { __name = "weir.memory.store" }
Store.__index = Store

local MAIN, MESSAGES, STATES, GROUPS = 0, 1, 2, 3
local DATABASES = { "messages", "states", "groups" }
local LOG = 0 -- the number of the group that stands for retention
local NONE = {}
local MUCH = 16 * 1024 * 1024 -- bytes of notes that find no room, from which on attempts are no longer noted

store.MAX_BYTES = 8 * 1024 ^ 3

local ADVICE = {
  locked = "one process at a time may use it; for several there are servers, such as NATS",
  damaged = "the file cannot be read; restore it from a copy, or move it away to start anew",
  full = "raise max_bytes, or acknowledge what waits",
  no_space = "the disk is full; what was accepted is kept",
  unsupported = "install LMDB (Debian: liblmdb-dev) and build weir again",
}

-- What makes errors that name the directory.
local function error_maker(dir)
  return function(code, message)
    local advice = ADVICE[code]
    local text = ("%s: %s%s"):format(dir, message or code, advice and "; " .. advice or "")
    return errors.new(code, text, { dir = dir })
  end
end

-- --- opening ------------------------------------------------------------------------------------

-- Reads, or in a new file writes, what the main database says. Returns the highest id and group; or nil, a code and
-- a message.
local function read_main(lmdb, env)
  local snapshot, code, message = env:snapshot()
  if not snapshot then
    return nil, code, message
  end
  local schema, last, group
  schema, code, message = snapshot:get(MAIN, "weir")
  last, group = snapshot:get(MAIN, "last"), snapshot:get(MAIN, "group")
  snapshot:close()
  if code then
    return nil, code, message
  elseif schema then
    if #schema ~= 8 or record.read_number(schema) ~= record.SCHEMA then
      return nil, "version", "it was written by another version of weir"
    end
    if (last and #last ~= 8) or (group and #group ~= 8) then
      return nil, "damaged", "its counters are not numbers"
    end
    return last and record.read_number(last) or 0, group and record.read_number(group) or 0
  end
  local batch = lmdb.batch()
  batch:put(MAIN, "weir", record.number(record.SCHEMA))
  local ok
  ok, code, message = env:commit(batch)
  if not ok then
    return nil, code, message
  end
  return 0, 0
end

local function open_env(dir, options, fail)
  local found, lmdb = pcall(require, "weir.brokers.lmdb")
  if not found then
    return nil, fail("unsupported", "this weir was built without LMDB")
  end
  local env, code, message = lmdb.open(dir, {
    databases = DATABASES,
    max_size = options.max_bytes,
    sync = options.sync,
  })
  if not env then
    return nil, fail(code, message)
  end
  local last, group
  last, group, message = read_main(lmdb, env)
  if not last then
    env:close()
    return nil, fail(group, message)
  end
  return env, lmdb, last, group
end

local OPTIONS = { sync = "boolean", max_bytes = { "number", "string" } }

--- What is wrong with options for `open`, if anything.
-- @tparam ?table options
-- @treturn ?string
function store.flaw(options)
  local ok, wrong = pcall(errors.options, "the store", options, OPTIONS, -1)
  if not ok then
    return wrong
  end
  local _, bad_size = size.parse(options and options.max_bytes or store.MAX_BYTES)
  return bad_size and "max_bytes: " .. bad_size
end

--- Opens, or makes, the store in a directory.
-- @tparam string dir made when it is not there; its parent must be
-- @tparam[opt] table options `sync`: whether what was accepted survives a power failure (true), or the end of this
--   process only (false); `max_bytes`: of the file (8 GiB)
-- @return the store; or nil and an error: "locked", "damaged", "version", "permission", "no_space", "unsupported"
function store.open(dir, options)
  local flaw = store.flaw(options)
  if flaw then
    error("weir.broker.memory: " .. flaw, 2)
  end
  options = options or {}
  if type(dir) ~= "string" or dir == "" then
    error("weir.broker.memory: 'dir' must be the name of a directory", 2)
  end
  local max_bytes = size.parse(options.max_bytes or store.MAX_BYTES)
  local fail = error_maker(dir)
  local sync = options.sync ~= false
  local env, lmdb, last, group = open_env(dir, { max_bytes = max_bytes, sync = sync }, fail)
  if not env then
    return nil, lmdb
  end
  local self = setmetatable({
    dir = dir,
    env = env,
    fail = fail,
    last = last, -- highest id
    last_written = last,
    last_group = group,
    numbers = {}, -- of groups, by key
    specs = {}, -- what was declared, as bytes, by key
    holders = {}, -- id to the number of the group that holds it; or, of several, a set with their count `n`
    states = {}, -- what is to be written of deliveries: group, id, attempts, due or false; and so on
    state_count = 0,
    head = nil, -- the last one of a message without headers in one group, `head_group`, for `head_destination`
    time = nil, -- the last one packed, as `packed_time`
    written = {}, -- id to the set of groups that it has a state of in the file
    messages = 0,
    closed = false,
  }, Store)
  local wrong
  self.committer, wrong = committer.new(lmdb, env, {
    sync = sync,
    wrap = fail,
    prepare = function(notes)
      self:write_states(notes)
    end,
    committed = function(unit)
      self:hold_all(unit)
    end,
  })
  if not self.committer then
    env:close()
    return nil, wrong
  end
  return self
end

-- --- reading ------------------------------------------------------------------------------------

-- Makes an iterator over states that are in the order of messages: states(id) returns those of that id, by group.
local function states_of(snapshot)
  local next_pair = snapshot:range(STATES)
  local key, value = next_pair()
  return function(id)
    local found
    while key do
      local its, group = record.read_state_key(key)
      if its > id then
        break
      elseif its == id then
        found = found or {}
        found[group] = value
      end
      key, value = next_pair()
    end
    return found
  end
end

-- The groups that hold a message, in order, by where it went and by the states.
local function holders_of(self, groups, retained, states)
  local held, seen = {}, {}
  local function look(group)
    local state = states and states[group]
    if not seen[group] and state ~= "" and (group == LOG or self.keys[group]) then
      held[#held + 1] = group
    end
    seen[group] = true
  end
  if retained then
    look(LOG)
  end
  for _, group in ipairs(groups) do
    look(group)
  end
  for group in pairs(states or {}) do
    look(group)
  end
  return held
end

local function load_message(self, id, bytes, states, on_delivery, on_record)
  local message, groups, retained = record.message(id, bytes)
  local held = holders_of(self, groups, retained, states)
  if states then
    local written = {}
    for group in pairs(states) do
      written[group] = true
    end
    self.written[id] = written
  end
  self.last = math.max(self.last, id)
  if #held == 0 then -- its groups were forgotten
    return self:remove(id)
  end
  self:hold(id, held[2] and held or held[1])
  for _, group in ipairs(held) do
    local state = states and states[group]
    if group == LOG then
      on_record(id, message)
    else
      local attempts, due = 0, nil
      if state then
        attempts, due = record.read_state(state)
      end
      on_delivery(self.keys[group], id, message, attempts, due)
    end
  end
end

local function load_all(self, snapshot, on_group, on_delivery, on_record)
  for key, value in snapshot:range(GROUPS) do
    local number = record.read_group_key(key)
    local name, spec = record.read_group(value)
    self.numbers[name], self.keys[number], self.specs[name] = number, name, value
    self.last_group = math.max(self.last_group, number)
    on_group(name, spec)
  end
  local states = states_of(snapshot)
  for key, value in snapshot:range(MESSAGES) do
    local id = record.id(key)
    load_message(self, id, value, states(id), on_delivery, on_record)
  end
end

--- Reads what is stored. To be called once, before anything else.
-- @tparam function on_group called with the key and what was declared, of each group
-- @tparam function on_delivery then, for each delivery that is not settled, in the order of ids: called with the key
--   of its group, the id, the message (`id`, `destination`, `headers`, `payload`, `time`; one table for all groups),
--   its attempts so far and the time it is due at, or nil
-- @tparam function on_record called with id and message of what is retained, in the same order, before its deliveries
-- @treturn integer the highest id ever given; or nil and an error: "damaged"
function Store:load(on_group, on_delivery, on_record)
  local snapshot, code, message = self.env:snapshot()
  if not snapshot then
    return nil, self.fail(code, message)
  end
  self.keys = {} -- of groups, by number
  local ok, err = pcall(load_all, self, snapshot, on_group, on_delivery, on_record)
  snapshot:close()
  if not ok then
    return nil, self.fail("damaged", tostring(err))
  end
  self.last_written = self.last
  return self.last
end

-- --- who holds what -----------------------------------------------------------------------------

-- A message is stored: `groups` is one of them, or a list.
function Store:hold(id, groups)
  self.messages = self.messages + 1
  if type(groups) ~= "table" then
    self.holders[id] = groups
    return
  end
  local set = { n = #groups }
  for _, group in ipairs(groups) do
    set[group] = true
  end
  self.holders[id] = set
end

function Store:hold_all(unit)
  local ids, groups = unit.ids, unit.groups
  for i = 1, #ids do
    self:hold(ids[i], groups[i])
  end
end

-- Removes a message and the states of its deliveries.
function Store:remove(id)
  local notes, written = self.committer.notes, self.written[id]
  notes:del(MESSAGES, id)
  if written then
    for group in pairs(written) do
      notes:del(STATES, record.state_key(id, group))
    end
    self.written[id] = nil
  end
  self.committer:changed()
end

local function write_state(self, notes, id, group, bytes)
  notes:put(STATES, record.state_key(id, group), bytes)
  local written = self.written[id]
  if written then
    written[group] = true
  else
    self.written[id] = { [group] = true }
  end
end

-- A group is done with a message.
function Store:release(group, id)
  local held = self.holders[id]
  if held == nil or self.closed then
    return
  elseif held ~= group then
    if type(held) ~= "table" or not held[group] then
      return
    end
    held[group] = nil
    held.n = held.n - 1
    if held.n > 0 then
      write_state(self, self.committer.notes, id, group, "")
      return self.committer:changed()
    end
  end
  self.holders[id] = nil
  self.messages = self.messages - 1
  self:remove(id)
end

local function holds(self, group, id)
  local held = self.holders[id]
  return held == group or (type(held) == "table" and held[group])
end

-- What deliveries have come to since the last commit, those that are over left out.
function Store:write_states(notes)
  local states, count = self.states, self.state_count
  if notes:position() < MUCH then
    for i = 1, count, 4 do
      local group, id = states[i], states[i + 1]
      if holds(self, group, id) then
        write_state(self, notes, id, group, record.state(states[i + 2], states[i + 3]))
      end
    end
  end
  self.state_count = 0
  if count > 4096 then
    self.states = {}
  end
  if self.last > self.last_written then
    notes:put(MAIN, "last", record.number(self.last))
    self.last_written = self.last
  end
end

local function note_state(self, group, id, attempts, due)
  if self.closed then
    return
  end
  local states, count = self.states, self.state_count
  states[count + 1], states[count + 2], states[count + 3], states[count + 4] = group, id, attempts, due or false
  self.state_count = count + 4
  self.committer:changed()
end

-- --- groups -------------------------------------------------------------------------------------

--- Makes a group known. Does nothing but wait where it is known as this.
-- @tparam string key
-- @tparam table spec strings, numbers and booleans by name, which `load` gives back
-- @treturn boolean true when it is stored; or nil and an error
function Store:declare(key, spec)
  if self.closed then
    return nil, self.fail("closed", "the store is closed")
  end
  local bytes = record.group(key, spec)
  local number, notes = self.numbers[key], self.committer.notes
  if not number then
    number = self.last_group + 1
    self.last_group = number
    self.numbers[key], self.keys[number] = number, key
    notes:put(MAIN, "group", record.number(number))
  end
  if self.specs[key] ~= bytes then
    self.specs[key] = bytes
    notes:put(GROUPS, record.group_key(number), bytes)
    self.committer:changed()
  end
  return self:flush()
end

--- Forgets a group and its deliveries.
-- @treturn boolean true when that is stored; or nil and an error
function Store:forget(key)
  local number = self.numbers[key]
  if self.closed then
    return nil, self.fail("closed", "the store is closed")
  elseif not number then
    return true
  end
  self.numbers[key], self.keys[number], self.specs[key] = nil, nil, nil
  self:flush() -- messages may be under way to it
  local ids = {}
  for id in pairs(self.holders) do
    if holds(self, number, id) then
      ids[#ids + 1] = id
    end
  end
  for _, id in ipairs(ids) do
    self:release(number, id)
  end
  self.committer.notes:del(GROUPS, record.group_key(number))
  self.committer:changed()
  return self:flush()
end

-- --- messages -----------------------------------------------------------------------------------

-- The number of the group that a message goes to; or a list, where there are several or none.
local function numbers_of(self, keys)
  if #keys == 1 then
    return self.numbers[keys[1]] or {}
  end
  local groups = {}
  for _, key in ipairs(keys) do
    groups[#groups + 1] = self.numbers[key]
  end
  return groups
end

-- The same with the log, if the message is retained: who holds it. nil: nobody.
local function holders_at_first(groups, retain)
  if type(groups) ~= "table" then
    return retain and { groups, LOG } or groups
  elseif retain then
    groups[#groups + 1] = LOG
  end
  return groups[2] and groups or groups[1]
end

-- The parts of a message in front of its payload. Mostly they are those of the message before.
local function parts_of(self, message, groups)
  local head
  if type(groups) ~= "table" and not message.retain and next(message.headers or NONE) == nil then
    if self.head_destination ~= message.destination or self.head_group ~= groups then
      self.head = record.head(message, groups)
      self.head_destination, self.head_group = message.destination, groups
    end
    head = self.head
  else
    head = record.head(message, groups)
  end
  if message.time ~= self.time or not self.packed_time then
    self.time, self.packed_time = message.time, record.time(message.time)
  end
  return head, self.packed_time
end

--- Stores messages, all or none. Waits, and a cancellation does not end that: whether they are stored is known when it
-- returns.
-- @tparam table messages list of `{ id, destination, payload, headers, time, keys, retain }`; ids rise from call to
--   call, `keys` are those of its groups
-- @treturn boolean true; or nil and an error: "full", "no_space", "closed", "io"
function Store:append(messages)
  local commits = self.committer
  if self.closed or commits.failed then
    return nil, commits.failed or self.fail("closed", "the store is closed")
  end
  local batch = commits.units
  local ids, holders, count = {}, {}, 0
  local unit = { from = batch:position(), ids = ids, groups = holders }
  for i = 1, #messages do
    local message = messages[i]
    local id, groups = message.id, numbers_of(self, message.keys)
    local head, time = parts_of(self, message, groups)
    groups = holders_at_first(groups, message.retain)
    if id > self.last then
      self.last = id
    end
    if groups then
      batch:append(MESSAGES, id, head, time, message.payload)
      count = count + 1
      ids[count], holders[count] = id, groups
    end
  end
  unit.to = batch:position()
  return commits:await(unit)
end

--- A group is done with a message: it was acknowledged, or dropped.
function Store:settle(key, id)
  local group = self.numbers[key]
  if group then
    self:release(group, id)
  end
end

--- Retention has dropped a message.
function Store:evict(id)
  self:release(LOG, id)
end

-- Whether the message is there; the group gets hold of it.
local function take_hold(self, group, id)
  local held = self.holders[id]
  if held == nil then
    return false
  elseif type(held) ~= "table" then
    if held ~= group then
      self.holders[id] = { n = 2, [held] = true, [group] = true }
    end
  elseif not held[group] then
    held[group] = true
    held.n = held.n + 1
  end
  return true
end

--- A delivery goes back to its group; or a retained message to one that was done with it.
-- @tparam string key
-- @tparam integer id
-- @tparam integer attempts so far
-- @tparam[opt] number due seconds since 1970
function Store:requeue(key, id, attempts, due)
  local group = self.numbers[key]
  if group and take_hold(self, group, id) then
    note_state(self, group, id, attempts, due)
  end
end

--- A delivery has begun. Costs nothing where it is settled in the same turn.
-- @tparam string key
-- @tparam integer id
-- @tparam integer attempts this one included
function Store:attempted(key, id, attempts)
  local group = self.numbers[key]
  if group and holds(self, group, id) then
    note_state(self, group, id, attempts)
  end
end

--- Waits until everything so far is stored.
-- @treturn boolean true; or nil and an error
function Store:flush()
  return self.committer:flush()
end

--- Stores what is left and closes. May be called twice.
-- @treturn boolean true; or nil and the error that kept settlements from being stored
function Store:close()
  if self.closed then
    return true
  end
  self.closed = true
  local ok, err = self.committer:flush()
  self.committer:close()
  self.env:close()
  return ok, err
end

--- Figures: `bytes` of the file, `max_bytes`, `messages`, `commits`, `failed` commits, publishes `waiting`.
function Store:stats()
  local commits = self.committer
  local stats = {
    messages = self.messages,
    commits = commits.commits,
    failed = commits.failures,
    waiting = #commits.waiting,
  }
  if not self.closed then
    stats.bytes, stats.max_bytes = self.env:size()
  end
  return stats
end

function Store:__tostring()
  return ("weir.memory.store: %s%s"):format(self.dir, self.closed and ", closed" or "")
end

return store
