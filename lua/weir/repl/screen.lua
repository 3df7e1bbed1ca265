--- Where a session writes: the standard output, and, while somebody types, above the prompt.
--
-- While a session runs, `print`, `io.write`, `io.stdout` and `io.stderr` of the program go through here, so that what
-- tasks in the background write breaks no line that is being typed. What a task writes without a newline waits for one
-- as long as the prompt is there.
-- @module weir.repl.screen

local runtime = require("weir.runtime")

local M = {}

local Screen = { __name = "weir.repl.screen" }
Screen.__index = Screen

-- Bytes that are gathered before the prompt is moved for them.
local MOST = 65536

-- Whoever reads a pipe and goes away ends the session quietly.
local function put(self, file, text)
  self.partial = text:sub(-1) ~= "\n"
  local ok = file:write(text) and file:flush()
  if not ok and file == self.out and not self.broken then
    self.broken = true
    self.on_broken()
  end
end

--- Writes what waits, above the prompt where there is one.
-- @tparam[opt] boolean all also what has no newline yet
function Screen:flush(all)
  self.asked = false
  local text = table.concat(self.waiting)
  local ready = all and text or text:match("^.*\n")
  if not ready or ready == "" then
    return
  end
  self.waiting, self.bytes = { text:sub(#ready + 1) }, #text - #ready
  local line = self.line
  if line then
    line:hide()
  end
  if line and ready:sub(-1) ~= "\n" then
    ready = ready .. "\n"
  end
  put(self, self.out, ready)
  if line then
    line:show()
  end
end

--- Writes a text.
-- @tparam string text
-- @tparam[opt] file file where to when nobody types: the standard output or error
function Screen:write(text, file)
  if not self.line then
    return put(self, file or self.out, text)
  end
  self.waiting[#self.waiting + 1] = text
  self.bytes = self.bytes + #text
  if self.bytes >= MOST then
    self:flush()
    if self.bytes >= MOST then
      self:flush(true)
    end
  elseif not self.asked then
    self.asked = true
    runtime.defer(function()
      self:flush()
    end)
  end
end

--- Ends a line that somebody has begun to write: a prompt has its own.
function Screen:fresh_line()
  if self.partial then
    self:write("\n")
  end
end

--- A prompt is shown from now on; what is written goes above it.
-- @tparam ?table line with the methods `hide` and `show`; nil: nobody types any more
function Screen:over(line)
  if not line and self.line then
    self.line = nil -- the line has ended, and with it the cursor is below it
  end
  if not line then
    self:flush(true)
  end
  self.line = line
end

-- A file that writes here.
local function proxy(self, file)
  local object = setmetatable({}, {
    __name = "FILE*",
    __index = function(_, name)
      local value = file[name]
      if type(value) ~= "function" then
        return value
      end
      return function(_, ...)
        return value(file, ...)
      end
    end,
    __tostring = function()
      return tostring(file)
    end,
  })
  function object.write(_, ...)
    local parts = { ... }
    for i = 1, select("#", ...) do
      if type(parts[i]) ~= "string" and type(parts[i]) ~= "number" then
        error(("bad argument #%d to 'write' (string expected, got %s)"):format(i, type(parts[i])), 2)
      end
    end
    self:write(table.concat(parts), file)
    return object
  end
  function object.flush()
    return object
  end
  function object.close()
    return nil, "the session needs it"
  end
  return object
end

local function print_through(self)
  return function(...)
    local parts = table.pack(...)
    for i = 1, parts.n do
      parts[i] = tostring(parts[i])
    end
    self:write(table.concat(parts, "\t") .. "\n")
  end
end

-- The functions of `io`, for a program that is given proxies: `real` has the files behind those.
local function functions_of_io(former, out, real)
  return {
    write = function(...)
      if former.output() ~= former.stdout then
        return former.write(...)
      end
      return out:write(...)
    end,
    output = function(file)
      local current = former.output(real[file] or file)
      return current == former.stdout and out or current
    end,
    type = function(value)
      return former.type(real[value] or value)
    end,
  }
end

--- Lets the program write here, until the function that is returned is called.
-- @treturn function
function Screen:capture()
  local former, former_print = {}, print
  for _, name in ipairs({ "write", "output", "type", "stdout", "stderr" }) do
    former[name] = io[name]
  end
  local out, err = proxy(self, former.stdout), proxy(self, former.stderr)
  rawset(_G, "print", print_through(self))
  for name, fn in pairs(functions_of_io(former, out, { [out] = former.stdout, [err] = former.stderr })) do
    rawset(io, name, fn)
  end
  rawset(io, "stdout", out)
  rawset(io, "stderr", err)
  return function()
    rawset(_G, "print", former_print)
    for name, value in pairs(former) do
      rawset(io, name, value)
    end
  end
end

--- Makes one. Whoever makes it sets `on_broken`, which is called when nobody reads what is written.
-- @tparam file out
-- @treturn table
function M.new(out)
  return setmetatable({ out = out, waiting = {}, bytes = 0, asked = false, partial = false }, Screen)
end

--- The same as `capture` for anything with a method `write(text, file)`.
M.capture = Screen.capture

return M
