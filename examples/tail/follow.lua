--- Reads a file line by line, and goes on when it grows, is cut short or is replaced.
--
-- It looks at the file every `pause` seconds, which works on every file system; inotify and its
-- kind do not (network mounts, overlays), and would save little here.
local luv = require("luv")
local weir = require("weir")

local Follow = {}
Follow.__index = Follow

local follow = {}

local CHUNK = 64 * 1024

local reasons = {
  ENOENT = "there is no such file",
  EACCES = "you may not read it (permission denied)",
  EISDIR = "it is a directory",
}

local function fail(path, name, text)
  return nil, ("cannot read %s: %s"):format(path, reasons[name] or text)
end

local function open(self)
  -- Opening a named pipe would wait for a writer, so look first.
  local stat, text, name = luv.fs_stat(self.path)
  if not stat then
    return fail(self.path, name, text)
  elseif stat.type ~= "file" then
    return fail(self.path, stat.type == "directory" and "EISDIR", "it is not a regular file")
  end
  local fd
  fd, text, name = luv.fs_open(self.path, "r", 0)
  if not fd then
    return fail(self.path, name, text)
  end
  stat = luv.fs_fstat(fd)
  self.fd, self.inode, self.device, self.position = fd, stat.ino, stat.dev, 0
  return true
end

--- Opens a file.
-- @tparam string path of a regular file
-- @tparam table opts `follow`: go on after its end; `longest`: bytes of a line that are kept;
--   `pause`: seconds between two looks
-- @return what has the methods below; or nil and a text
function follow.open(path, opts)
  local self = setmetatable({
    path = path,
    follow = opts.follow,
    longest = opts.longest,
    pause = opts.pause or 0.1,
    buffer = "", -- read, and not yet given out
    at = 1, -- where in the buffer
    parts = {}, -- of a line whose end has not been read
    kept = 0, -- bytes in the parts
    length = 0, -- of that line so far
  }, Follow)
  local ok, why = open(self)
  if not ok then
    return nil, why
  end
  return self
end

function Follow:close()
  if self.fd then
    luv.fs_close(self.fd)
    self.fd = nil
  end
end

-- Keeps a piece of a line, as far as it is not too long.
local function keep(self, piece)
  self.length = self.length + #piece
  piece = piece:sub(1, self.longest - self.kept)
  if piece ~= "" then
    self.parts[#self.parts + 1] = piece
    self.kept = self.kept + #piece
  end
end

local function finish_line(self)
  local line, length = table.concat(self.parts), self.length
  self.parts, self.kept, self.length = {}, 0, 0
  return line, length
end

-- The next line that the buffer has the end of.
local function next_line(self)
  local stop = self.buffer:find("\n", self.at, true)
  if stop then
    keep(self, self.buffer:sub(self.at, stop - 1))
    self.at = stop + 1
    return finish_line(self)
  end
  keep(self, self.buffer:sub(self.at))
  self.buffer, self.at = "", 1
end

-- At the end of what is there: whether the file was cut short, or is another one now.
local function changed(self)
  local stat = luv.fs_stat(self.path)
  if not stat or stat.type ~= "file" then
    return false -- moved away: the new one is still to come
  elseif stat.ino ~= self.inode or stat.dev ~= self.device then
    return "replaced"
  end
  return stat.size < self.position and "cut short"
end

-- Begins again from the start, of the same file or of the new one.
local function reopen(self, how)
  if how == "cut short" then
    self.position = 0
    return true
  end
  local old = self.fd
  local ok = open(self)
  if ok then
    luv.fs_close(old)
  end
  return ok
end

local function read(self)
  local chunk, text = luv.fs_read(self.fd, CHUNK, self.position)
  if not chunk then
    return fail(self.path, nil, text)
  elseif chunk ~= "" then
    self.buffer, self.position = chunk, self.position + #chunk
  end
  return chunk
end

--- Begins again from the start.
function Follow:rewind()
  self.position = 0
end

--- The next line, without its end; waits for one when following. A file that is cut short and has
-- grown beyond where it was before anybody looks goes unnoticed.
-- @return the line (cut to `longest` bytes) and how long it is in the file; or nil at the end; or
--   nil and a text
function Follow:line()
  while true do
    local line, length = next_line(self)
    if line then
      return line, length
    end
    local how = self.follow and self.at_end and changed(self)
    local chunk, why = read(self) -- what came before it was replaced, too
    if not chunk then
      return nil, why
    end
    self.at_end = chunk == ""
    if self.at_end then
      if not self.follow then
        if self.length > 0 then
          return finish_line(self) -- the last one has no end
        end
        return nil
      elseif how and reopen(self, how) then
        self.at_end = false
        if self.length > 0 then
          return finish_line(self)
        end
      else
        local ok, err = weir.sleep(self.pause)
        if not ok then
          return nil, tostring(err)
        end
      end
    end
  end
end

return follow
