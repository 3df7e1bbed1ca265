--- Where a command writes.
-- @module weir.cli.console

local M = {}

-- Programs may divert what they print.
local stdout, stderr = io.stdout, io.stderr

local BROKEN_PIPE = 32 -- EPIPE
-- What text is wrapped to, at most.
local WIDTH = 100

-- A file that remembers the first write that failed: later ones may succeed.
local Out = { __name = "weir.cli.out" }
Out.__index = Out

local function remember(self, ok, err, number)
  if ok then
    return self
  end
  self.failed = self.failed or { reason = err, number = number }
  return nil, err, number
end

function Out:write(...)
  return remember(self, self.file:write(...))
end

function Out:flush()
  return remember(self, self.file:flush())
end

function Out:setvbuf(...)
  return self.file:setvbuf(...)
end

local Console = { __name = "weir.cli.console" }
Console.__index = Console

--- Makes one: `console.out` and `console.err` have the methods `write` and `flush` of files.
-- @tparam[opt] file out the standard output when left out
-- @tparam[opt] file err the standard error when left out
-- @treturn table
function M.new(out, err)
  return setmetatable({ out = out or setmetatable({ file = stdout }, Out), err = err or stderr, colour = {} }, Console)
end

local function descriptor(file)
  return file == stderr and 2 or file.file == stdout and 1 or nil
end

--- Whether what is written to `console.out` or `console.err` may be written over.
-- @param file
-- @treturn boolean
function Console.is_terminal(_, file)
  local ok, uv = pcall(require, "luv")
  local fd = descriptor(file)
  return ok and fd ~= nil and os.getenv("TERM") ~= "dumb" and uv.guess_handle(fd) == "tty"
end

local codes = { bold = "\27[1m", red = "\27[1;31m" }

--- Text in a style, if the file is a terminal; else the text as it is.
-- @param file
-- @string style "bold" or "red"
-- @string text
-- @treturn string
function Console:style(file, style, text)
  if self.colour[file] == nil then
    self.colour[file] = (os.getenv("NO_COLOR") or "") == "" and self:is_terminal(file)
  end
  return self.colour[file] and codes[style] .. text .. "\27[0m" or text
end

--- The columns of text that is written to a file: those of the terminal, where it is a narrow one.
-- @param file
-- @treturn integer
function Console:width(file)
  if not self:is_terminal(file) then
    return WIDTH
  end
  local uv = require("luv")
  local tty = uv.new_tty(descriptor(file), false)
  if not tty then
    return WIDTH
  end
  local columns = tty:get_winsize()
  tty:close()
  uv.run("nowait") -- luv cannot end a Lua state with handles that close
  return columns and columns > 0 and math.min(WIDTH, columns) or WIDTH
end

--- Whether everything that was printed has arrived. Where nobody reads it any more, nobody misses it.
-- @treturn boolean true; or nil and an error
function Console:finish()
  local out = self.out
  if getmetatable(out) ~= Out then
    return true
  end
  out:flush()
  if out.failed and out.failed.number ~= BROKEN_PIPE then
    return nil, "cannot write to the standard output: " .. out.failed.reason
  end
  return true
end

return M
