--- A file that holds how far a stream was read.
--
-- It is one line of JSON, `{"offset":...,"url":...}`, and replaced as a whole: whoever reads it, also after
-- a crash, finds either the position before or the one after.
-- @module weir.cli.durable.checkpoint
local codec = require("weir.codec")
local errors = require("weir.errors")
local luv = require("luv")

local M = {}

local Checkpoint = { __name = "weir.cli.durable.checkpoint" }
Checkpoint.__index = Checkpoint

local json = codec.get("json")
local LONGEST = 65536

local function failure(path, what, reason)
  return errors.new("checkpoint", ("cannot %s the checkpoint %s: %s"):format(what, path, reason), { path = path })
end

local function contents(path)
  local file, reason, number = io.open(path, "rb")
  if not file then
    return nil, number ~= 2 and failure(path, "read", (reason:gsub("^.*: ", ""))) or nil -- 2: ENOENT
  end
  local text
  text, reason = file:read(LONGEST)
  file:close()
  if not text then
    return nil, failure(path, "read", reason or "it is empty; remove it to begin anew")
  end
  return text
end

local function write(path, text)
  local fd, reason = luv.fs_open(path, "w", 420) -- 0644
  if not fd then
    return nil, reason
  end
  local ok
  ok, reason = luv.fs_write(fd, text, 0)
  if ok then
    ok, reason = luv.fs_fsync(fd)
  end
  luv.fs_close(fd)
  return ok, reason
end

--- Opens a checkpoint; the file need not exist.
-- @tparam string path
-- @tparam string url of the stream
-- @treturn ?table with `offset`, when one was saved
-- @return error: it cannot be read or written, or is of another stream
function M.open(path, url)
  local self = setmetatable({ path = path, url = url }, Checkpoint)
  local ok, reason = write(path .. ".new", "")
  if not ok then
    return nil, failure(path, "write", reason) -- before anything is read
  end
  luv.fs_unlink(path .. ".new")
  local text, err = contents(path)
  if not text then
    return not err and self or nil, err
  end
  local saved = json.decode(text)
  if type(saved) ~= "table" or type(saved.offset) ~= "string" or type(saved.url) ~= "string" then
    return nil, failure(path, "use", "it is not one; give another file, or remove it to begin anew")
  elseif saved.url ~= url then
    return nil, failure(path, "use", ("it is that of %s; give each stream a file of its own"):format(saved.url))
  end
  self.offset = saved.offset
  return self
end

--- Saves a position. It is on the disk when this returns.
-- @tparam string offset
-- @treturn ?boolean true
-- @return error
function Checkpoint:save(offset)
  if offset == self.offset then
    return true
  end
  local text = assert(json.encode({ offset = offset, url = self.url })) .. "\n"
  local beside = self.path .. ".new"
  local ok, reason = write(beside, text)
  if ok then
    ok, reason = luv.fs_rename(beside, self.path)
  end
  if not ok then
    luv.fs_unlink(beside)
    return nil, failure(self.path, "write", reason)
  end
  self.offset = offset
  return true
end

return M
