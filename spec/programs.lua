--- Runs programs for the specs, with the paths of this process. The interpreters among them have its sanitizers, too:
-- spec/run puts those that do first in the PATH.
local environment = require("spec.environment")
local luv = require("luv")
local shell = require("spec.house.shell")
local weir = require("weir")

local M = {}

local Program = {}
Program.__index = Program

--- Starts a program with nothing on its standard input.
-- @tparam table words the program and its arguments
-- @tparam[opt] table env names to values, beside those of this process
function M.start(words, env)
  local self = setmetatable({ base = os.tmpname() }, Program)
  local out = assert(luv.fs_open(self.base .. ".out", "w", 384))
  local err = assert(luv.fs_open(self.base .. ".err", "w", 384))
  local handle, pid
  handle, pid = luv.spawn(words[1], {
    args = table.move(words, 2, #words, 1, {}),
    stdio = { nil, out, err },
    env = environment(env),
  }, function(code, signal)
    self.status = signal > 0 and 128 + signal or code
    handle:close()
  end)
  luv.fs_close(out)
  luv.fs_close(err)
  assert(handle, pid)
  self.pid, self.handle = pid, handle
  return self
end

--- What it has written so far.
function Program:out()
  return shell.read(self.base .. ".out")
end

function Program:err()
  return shell.read(self.base .. ".err")
end

function Program:kill(signal)
  if not self.status then
    self.handle:kill(signal)
  end
end

--- Waits until check() gives something true, and returns that; fails when the program ends before
-- or it takes more than `seconds` (20).
function Program:await(check, seconds)
  local deadline = weir.now() + (seconds or 20)
  while true do
    local value = check()
    if value then
      return value
    elseif self.status or weir.now() > deadline then
      error(("%s; it wrote:\n%s%s"):format(self.status and ("it ended with status %d"):format(self.status)
        or "it did not happen in time", self:out(), self:err()), 2)
    end
    weir.sleep(0.005)
  end
end

--- Waits until what it has written matches the pattern; returns the captures.
function Program:await_output(pattern, seconds)
  local found = self:await(function()
    local captures = table.pack(self:out():match(pattern))
    return captures[1] and captures
  end, seconds)
  return table.unpack(found, 1, found.n)
end

--- Waits until it has ended. Kills it, and fails, after `seconds` (60).
-- @treturn integer its exit status, 128 + N for signal N
-- @treturn string what it wrote to the standard output
-- @treturn string what it wrote to the standard error
function Program:wait(seconds)
  local deadline = weir.now() + (seconds or 60)
  while not self.status do
    if weir.now() > deadline then
      local written = self:out() .. self:err()
      self:discard()
      error(("it did not end in time; it wrote:\n%s"):format(written), 2)
    end
    weir.sleep(0.005)
  end
  return self.status, self:out(), self:err()
end

--- Ends it if it runs, and removes its files.
function Program:discard()
  self:kill("sigkill")
  while not self.status do
    weir.sleep(0.005)
  end
  for _, suffix in ipairs({ "", ".out", ".err" }) do
    os.remove(self.base .. suffix)
  end
end

--- Runs a program to its end: what `wait` returns.
function M.run(words, seconds)
  local program = M.start(words)
  local status, out, err = program:wait(seconds)
  program:discard()
  return status, out, err
end

--- Runs a command line of sh on a terminal of 100 columns: what `run` returns; nil where there is no terminal.
function M.on_terminal(line, seconds)
  if shell.run("script -qec true /dev/null") ~= 0 then
    return nil
  end
  -- The sanitizer, if any, is for Lua alone.
  local preload = os.getenv("LD_PRELOAD")
  preload = preload and "LD_PRELOAD=" .. shell.quote(preload) .. " " or ""
  local inner = "stty cols 100; TERM=xterm " .. preload .. line
  return M.run({ "env", "-u", "LD_PRELOAD", "script", "-qec", inner, "/dev/null" }, seconds)
end

return M
