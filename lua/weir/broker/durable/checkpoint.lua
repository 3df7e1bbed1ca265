--- Where a consumer of a stream goes on after it was ended: its position, in a file or in a store of the user's own.
--
-- Saving costs the consumer nothing: it notes what is to be saved, and a task writes the newest note, so that of many
-- acknowledgements in a short time one write remains. What is lost with the process is delivered again.
--
-- A file is replaced in one step (written, synced, renamed), so it is whole whenever the process or the machine stops.
-- @module weir.broker.durable.checkpoint

local luv = require("luv")

local codec = require("weir.codec")
local errors = require("weir.errors")
local runtime = require("weir.runtime")
local tasks = require("weir.task")
local waitlist = require("weir.runtime.waitlist")

local unpack = table.unpack or rawget(_G, "unpack")

local checkpoint = {}

local json = codec.get("json")

-- --- files --------------------------------------------------------------------------------------

local Files = {}
Files.__index = Files

-- Calls an asynchronous function of luv and waits for its result.
local function await(call, ...)
  local waiter = runtime.waiter()
  local n = select("#", ...)
  local args = { ... }
  args[n + 1] = function(err, result)
    waiter:wake(err or false, result)
  end
  local request, err = call(unpack(args, 1, n + 1))
  if not request then
    return nil, err
  end
  local failure, result = waiter:wait(nil, true)
  if failure then
    return nil, failure
  end
  return result == nil and true or result
end

local function file_name(key)
  return (key:gsub("[^%w%-._]", function(byte)
    return ("%%%02x"):format(byte:byte())
  end)) .. ".json"
end

-- Reads a file to its end.
local function read_all(fd)
  local parts, at = {}, 0
  while true do
    local part, err = await(luv.fs_read, fd, 1024 * 1024, at)
    if not part then
      return nil, err
    elseif part == "" or part == true then
      return table.concat(parts)
    end
    parts[#parts + 1], at = part, at + #part
  end
end

function Files:load(key)
  local path = self.dir .. "/" .. file_name(key)
  local fd, err = await(luv.fs_open, path, "r", 420)
  if not fd then
    if tostring(err):find("ENOENT", 1, true) then
      return nil
    end
    return nil, errors.new("io", ("the checkpoint %s cannot be read: %s"):format(path, err))
  end
  local text
  text, err = read_all(fd)
  await(luv.fs_close, fd)
  if not text then
    return nil, errors.new("io", ("the checkpoint %s cannot be read: %s"):format(path, err))
  end
  return text
end

local function write_file(path, text)
  local fd, err = await(luv.fs_open, path, "w", 420)
  if not fd then
    return nil, err
  end
  local written
  written, err = await(luv.fs_write, fd, text, 0)
  if written == #text then
    written, err = await(luv.fs_fsync, fd)
  elseif written then
    written, err = nil, "ENOSPC: the file could not be written to its end"
  end
  await(luv.fs_close, fd)
  return written and true or nil, err
end

function Files:save(key, text)
  local path = self.dir .. "/" .. file_name(key)
  local ok, err = write_file(path .. ".new", text)
  if ok then
    ok, err = await(luv.fs_rename, path .. ".new", path)
  end
  if not ok then
    return nil, errors.new("io", ("the checkpoint %s cannot be written: %s"):format(path, err))
  end
  return true
end

--- A store of checkpoints in a directory, which is made when it is not there.
-- @treturn table; or nil and an error: "io"
function checkpoint.files(dir)
  local ok, err, code = luv.fs_mkdir(dir, 493)
  if not ok and code ~= "EEXIST" then
    return nil, errors.new("io", ("the directory %s cannot be made: %s"):format(dir, err))
  end
  return setmetatable({ dir = dir }, Files)
end

-- --- the checkpoint of one consumer -------------------------------------------------------------

local Checkpoint = {}
Checkpoint.__index = Checkpoint

-- JSON's numbers are floats here.
local function whole(count)
  local small = type(count) == "number" and count >= 0 and count <= 1e6 and count % 1 == 0
  return small and tonumber(("%d"):format(count)) or nil
end

-- What was settled or had failed when the last process ended, for the first messages that are read now.
local function restore(self, value)
  local left = whole(value.window) or 0
  if left == 0 then
    return
  end
  local before = { left = left, settled = {}, attempts = {} }
  for _, position in ipairs(type(value.settled) == "table" and value.settled or {}) do
    before.settled[position] = true
  end
  for position, count in pairs(type(value.attempts) == "table" and value.attempts or {}) do
    before.attempts[position] = whole(count)
  end
  self.before = before
end

--- What is known of a message that is read for the first time: whether it was settled before, and how often it came.
-- @tparam string position
-- @treturn boolean
-- @treturn number
function Checkpoint:recall(position)
  local before = self.before
  if not before then
    return false, 0
  end
  local settled, attempts = before.settled[position] or false, before.attempts[position] or 0
  before.settled[position], before.attempts[position] = nil, nil
  before.left = before.left - 1
  if before.left == 0 then
    self.before = nil
  end
  return settled, attempts
end

--- What the position of a consumer in a stream is kept under. The names of consumers have no "@".
function checkpoint.key(stream, consumer)
  return ("%s@%s"):format(stream, consumer)
end

--- Loads it.
-- @tparam ?table store `store:load(key)` gives a text, or nil (there is none yet), or nil and an error;
--   `store:save(key, text)` gives true, or nil and an error; both may wait. Without a store nothing is kept
-- @tparam string key of the stream and the consumer
-- @tparam function on_error called when it cannot be saved; it is tried again with the next change
-- @treturn checkpoint with `position`, `window` (messages behind it that were read), `settled` (those of them that are
--   settled all the same) and `attempts` (position to number); or nil and an error
function checkpoint.open(store, key, on_error)
  local self = setmetatable({
    store = store,
    key = key,
    on_error = on_error,
    attempts = {},
    settled = {},
    window = 0,
    saved = waitlist.new(),
    dirty = false,
    saving = false,
  }, Checkpoint)
  local text, err
  if store then
    text, err = store:load(key)
  end
  if err then
    return nil, err
  elseif text then
    local value = json.decode(text)
    if type(value) ~= "table" or type(value.position) ~= "string" then
      local message = "the checkpoint of '%s' is no checkpoint: delete it to start again"
      return nil, errors.new("damaged", message:format(key))
    end
    self.position = value.position
    restore(self, value)
  end
  return self
end

local function text_of(self)
  local before = self.before or { left = 0, settled = {}, attempts = {} }
  local settled, attempts = {}, {}
  for _, each in ipairs({ before, self }) do
    for position in pairs(each.settled) do
      settled[#settled + 1] = position
    end
    for position, count in pairs(each.attempts) do
      attempts[position] = count
    end
  end
  return json.encode({
    position = self.position,
    window = self.window + before.left,
    settled = #settled > 0 and settled or nil,
    attempts = next(attempts) and attempts or nil,
  })
end

local function save_all(self)
  while self.dirty do
    self.dirty = false
    local ok, err = self.store:save(self.key, text_of(self))
    self.failure = not ok and err or nil
    if not ok then
      self.on_error(err)
      break
    end
  end
  self.saving = false
  self.saved:wake_all()
end

--- Notes that there is something to save: `position`, `window`, `settled` or `attempts` were set.
function Checkpoint:changed()
  self.dirty = self.store ~= nil
  if self.dirty and not self.saving then
    self.saving = true
    tasks.spawn(save_all, self)
  end
end

--- Begins anew at a position.
function Checkpoint:reset(position)
  self.position, self.window, self.settled, self.attempts, self.before = position, 0, {}, {}, nil
  self:changed()
end

--- Waits until everything is saved.
-- @tparam[opt] number timeout in seconds
-- @treturn boolean true; or nil and an error: "io", "timeout", or the store's
function Checkpoint:flush(timeout)
  local deadline = runtime.deadline(timeout, 2)
  if self.failure and not self.saving then
    self:changed()
  end
  while self.saving do
    local waiter = runtime.own_waiter()
    self.saved:add(waiter)
    local _, err = waiter:wait(deadline)
    self.saved:remove(waiter)
    if err and self.saving then
      return nil, err
    end
  end
  if self.failure then
    return nil, self.failure
  end
  return true
end

return checkpoint
