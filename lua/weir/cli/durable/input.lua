--- The standard input, without blocking the loop.
-- @module weir.cli.durable.input
local errors = require("weir.errors")
local luv = require("luv")
local runtime = require("weir.runtime")

local M = {}

local Input = { __name = "weir.cli.durable.input" }
Input.__index = Input

local PIECE = 65536

local function failure(reason)
  return errors.new("input", "cannot read the standard input: " .. tostring(reason))
end

--- Opens it. Files are read as they are; pipes, sockets and terminals when something comes.
-- @treturn ?table
-- @return error
function M.open()
  local kind = luv.guess_handle(0)
  local self = setmetatable({ waiter = nil }, Input)
  if kind == "file" or kind == "unknown" then
    return self
  end
  local stream, reason
  if kind == "tty" then
    stream, reason = luv.new_tty(0, true)
  else
    stream = kind == "tcp" and luv.new_tcp() or luv.new_pipe(false)
    local ok
    ok, reason = stream:open(0)
    if not ok then
      stream:close()
      stream = nil
    end
  end
  if not stream then
    return nil, failure(reason)
  end
  self.stream = stream
  return self
end

local function begin(self)
  local waiter = runtime.waiter()
  self.waiter = waiter
  self.stream:read_start(function(reason, data)
    self.stream:read_stop()
    waiter:wake(data or false, reason)
  end)
end

--- The next bytes.
-- @tparam[opt] number timeout seconds
-- @treturn ?string nil at the end
-- @return error: "timeout" (it can be read on), "input", "cancelled"
function Input:next(timeout)
  if not self.stream then
    local data, reason = luv.fs_read(0, PIECE, -1)
    if not data then
      return nil, failure(reason)
    end
    return data ~= "" and data or nil
  end
  if not self.waiter then
    begin(self)
  end
  local data, err = self.waiter:wait(timeout and runtime.now() + timeout)
  if data == nil then
    return nil, err
  end
  self.waiter = nil
  if not data and err then
    return nil, failure(err)
  end
  return data or nil
end

--- All of it.
-- @tparam integer limit bytes
-- @tparam string advice what else can be done with more than that
-- @treturn ?string
-- @return error: "too_large", ...
function Input:all(limit, advice)
  local parts, bytes = {}, 0
  while true do
    local piece, err = self:next()
    if err then
      return nil, err
    elseif not piece then
      return table.concat(parts)
    end
    bytes = bytes + #piece
    if bytes > limit then
      return nil, errors.new("too_large", ("the standard input has more than %d bytes; %s"):format(limit, advice))
    end
    parts[#parts + 1] = piece
  end
end

--- Gives lines, each with its line end; the last one may have none.
-- @tparam integer limit bytes of a line
-- @tparam number pause seconds without input after which `idle` is called
-- @tparam function idle returns true; or nil and an error, which ends the lines
-- @treturn function returns the next line; nil at the end; nil and an error
function Input:lines(limit, pause, idle)
  local text, at = "", 1 -- what was read, and where the next line begins in it
  local parts, bytes = {}, 0 -- of a line that is not complete

  local function keep()
    bytes = bytes + #text - at + 1
    if at <= #text then
      parts[#parts + 1] = text:sub(at)
    end
    text, at = "", 1
  end

  local function read_more()
    local piece, err = self:next(pause)
    if errors.is(err, "timeout") then
      local ok
      ok, err = idle()
      if not ok then
        return nil, err
      end
      piece, err = self:next()
    end
    return piece, err
  end

  return function()
    while true do
      local stop = text:find("\n", at, true)
      if stop then
        local line = table.concat(parts) .. text:sub(at, stop)
        parts, bytes, at = {}, 0, stop + 1
        return line
      end
      keep()
      if bytes > limit then
        return nil, errors.new("too_large", ("a line has more than %d bytes"):format(limit))
      end
      local piece, err = read_more()
      if piece then
        text = piece
      else
        local rest = not err and #parts > 0 and table.concat(parts) or nil
        parts, bytes = {}, 0
        return rest, err
      end
    end
  end
end

--- Closes it; to be called where waiting is possible.
function Input:close()
  if self.stream and not self.stream:is_closing() then
    self.stream:close()
    runtime.pause() -- libuv must see the closing: luv cannot end a Lua state with handles that close
  end
end

return M
