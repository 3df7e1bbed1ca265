--- Writing a file as a whole, or not at all.
-- @module weir.replace
local luv = require("luv")

-- What others may do with a new file, before the umask.
local MODE = 438 -- 0666

local function write_all(fd, text)
  local at = 0
  while at < #text do
    local written, err = luv.fs_write(fd, text:sub(at + 1), -1)
    if not written then
      return nil, err
    end
    at = at + written
  end
  return true
end

-- Writes to something that is no file: a pipe, a terminal, /dev/null.
local function write_through(path, text)
  local fd, err = luv.fs_open(path, "w", MODE)
  if not fd then
    return nil, err
  end
  local ok
  ok, err = write_all(fd, text)
  luv.fs_close(fd)
  return ok, err
end

-- Writes a new file beside the other one; with its permissions, if there is one.
local function write_beside(path, text, mode)
  local fd, err = luv.fs_open(path, "wx", MODE)
  if not fd then
    return nil, err
  end
  local ok = true
  if mode then
    ok, err = luv.fs_fchmod(fd, mode % 512)
  end
  if ok then
    ok, err = write_all(fd, text)
  end
  if ok then
    ok, err = luv.fs_fsync(fd)
  end
  local closed, late = luv.fs_close(fd)
  return ok and closed, err or late
end

--- Writes a file: others see what it was or what it is to be, whenever they look and whatever happens meanwhile. A
-- link stays one, and so do permissions. What is no file, such as a pipe, is written to.
-- @string path
-- @string text
-- @tparam[opt] integer mode what the owner and others may do with the file from now on, such as 384 (0600)
-- @treturn ?boolean true
-- @return or a sentence
return function(path, text, mode)
  local stat = luv.fs_stat(path)
  local ok, err
  if stat and stat.type ~= "file" and stat.type ~= "directory" then
    ok, err = write_through(path, text)
  else
    local target = stat and luv.fs_realpath(path) or path
    local beside = ("%s.%d.%x.tmp"):format(target, luv.os_getpid(), luv.hrtime())
    ok, err = write_beside(beside, text, mode or stat and stat.mode)
    if ok then
      ok, err = luv.fs_rename(beside, target)
    end
    if not ok then
      luv.fs_unlink(beside)
    end
  end
  if not ok then
    return nil, ("cannot write %s: %s"):format(path, tostring(err):match("^E%w+: ([^:]+)") or tostring(err))
  end
  return true
end
