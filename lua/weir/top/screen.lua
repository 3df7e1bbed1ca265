--- A terminal that is drawn on as a whole: the other screen, no cursor, keys as they are pressed. What was there before
-- is there again after `close`, however the program ends.
-- @module weir.top.screen

local luv = require("luv")
local runtime = require("weir.runtime")

local M = {}

local Screen = { __name = "weir.top.screen" }
Screen.__index = Screen

local ENTER, LEAVE = "\27[?1049h\27[?25l\27[?7l", "\27[?7h\27[?25h\27[?1049l"
local STYLES = { bold = "\27[1m", heading = "\27[7m", bad = "\27[1;31m", faint = "\27[2m" }
local WIDTH, HEIGHT = 80, 24
-- Seconds for the terminal to take what is left, at the end.
local PATIENCE = 1
-- What a terminal sends for keys, and the names of these.
local SEQUENCES = {
  ["[A"] = "up", ["[B"] = "down", ["[C"] = "right", ["[D"] = "left", ["[H"] = "home", ["[F"] = "end",
  ["OA"] = "up", ["OB"] = "down", ["OC"] = "right", ["OD"] = "left", ["OH"] = "home", ["OF"] = "end",
  ["[5~"] = "page up", ["[6~"] = "page down", ["[1~"] = "home", ["[4~"] = "end",
}
local NAMES = {
  ["\3"] = "interrupt", ["\4"] = "end of input", ["\12"] = "redraw", ["\26"] = "stop", ["\27"] = "escape",
}

-- The keys in what came at once. A sequence that is not known is no key.
local function keys_of(data)
  local keys, at = {}, 1
  while at <= #data do
    local sequence = data:match("^\27(%[[%d;]*[%a~])", at) or data:match("^\27(O%a)", at)
    if sequence then
      keys[#keys + 1] = SEQUENCES[sequence]
      at = at + 1 + #sequence
    else
      local byte = data:sub(at, at)
      keys[#keys + 1] = NAMES[byte] or byte
      at = at + 1
    end
  end
  return keys
end

--- Columns and lines of the terminal.
function Screen:size()
  local width, height = self.tty:get_winsize()
  if type(width) ~= "number" or width <= 0 or type(height) ~= "number" or height <= 0 then
    return WIDTH, HEIGHT
  end
  return width, height
end

-- Writes, and does not wait: a terminal may take nothing for a while, and what is run beside it must go on.
local function put(self, text)
  self.pending = self.pending + 1
  self.tty:write(text, function(err)
    self.pending = self.pending - 1
    self.gone = self.gone or err ~= nil
    if self.written then
      self.written:wake()
    end
    if self.pending == 0 and self.stale or self.gone then
      self.stale = false
      self.on_key("resize")
    end
  end)
end

-- Waits until the terminal has taken everything, or PATIENCE is over.
local function settle(self)
  local deadline = runtime.now() + PATIENCE
  while self.pending > 0 and not self.gone and runtime.now() < deadline do
    self.written = runtime.waiter()
    self.written:wait(deadline)
    self.written = nil
  end
  return self.pending == 0
end

--- Draws lines: each a table with its text first and perhaps a `style`. While the terminal has yet to take what was
-- drawn before, nothing is; `on_key` hears "resize" once it has.
-- @treturn boolean whether the terminal is there
function Screen:draw(lines)
  if self.pending > 0 or self.gone then
    self.stale = true
    return not self.gone
  end
  local parts = { "\27[H" }
  for i, line in ipairs(lines) do
    local style = self.colour and STYLES[line.style]
    parts[#parts + 1] = style and style .. line[1] .. "\27[0m" or line[1]
    parts[#parts + 1] = i < #lines and "\27[K\r\n" or "\27[K"
  end
  parts[#parts + 1] = "\27[J"
  put(self, table.concat(parts))
  return true
end

local function watch(self, name, fn)
  local signal = luv.new_signal()
  self.handles[#self.handles + 1] = signal
  signal:start(name, fn)
  return signal
end

-- Takes the terminal over, as it was left: libuv thinks that it is in raw mode until it is told otherwise.
local function enter(self)
  if self.input then
    self.input:set_mode(0)
    self.input:set_mode(1)
  end
  put(self, ENTER)
end

-- Gives it back, all at once: after this it is not ours.
local function leave(self)
  local settled = settle(self)
  if self.input then
    self.input:set_mode(0)
  end
  if settled then
    self.tty:set_blocking(true)
  end
  self.tty:try_write(LEAVE)
end

--- Gives the terminal back and stops the program and those that it runs with, as Ctrl-Z does, until it is told to go
-- on. Where no shell could tell it that, it does not stop.
function Screen:suspend()
  leave(self)
  self.stop_signal:stop()
  luv.kill(0, "sigtstp")
  self.stop_signal:start("sigtstp", self.on_stop)
  self.tty:set_blocking(false)
  enter(self)
  self.on_key("resize")
end

local function watch_signals(self)
  watch(self, "sigwinch", function()
    self.on_key("resize")
  end)
  for _, name in ipairs({ "sigint", "sigterm", "sighup" }) do
    watch(self, name, function()
      self.on_key("interrupt")
    end)
  end
  self.on_stop = function()
    self.on_key("stop")
  end
  self.stop_signal = watch(self, "sigtstp", self.on_stop)
  watch(self, "sigcont", function() -- it was stopped without being asked
    enter(self)
    self.on_key("resize")
  end)
end

--- Puts everything back.
function Screen:close()
  if self.closed then
    return
  end
  self.closed = true
  for _, handle in ipairs(self.handles) do
    handle:close()
  end
  leave(self)
  if self.input then
    self.input:read_stop()
    self.input:close()
  end
  self.tty:close()
end

--- Takes the terminal of the standard input and output over.
-- @tparam boolean colour whether text may have styles
-- @tparam function on_key gets the name of each key; "interrupt" for Ctrl-C and signals that end programs, "resize"
--   where all is to be drawn again, and "stop" for Ctrl-Z, which `suspend` is the answer to
function M.open(colour, on_key)
  local self = setmetatable({ colour = colour, on_key = on_key, handles = {}, pending = 0 }, Screen)
  if luv.guess_handle(0) == "tty" then
    self.input = luv.new_tty(0, true)
    self.input:read_start(function(_, data)
      for _, key in ipairs(keys_of(data or "\3")) do
        on_key(key)
      end
    end)
  end
  self.tty = assert(luv.new_tty(1, false))
  watch_signals(self)
  enter(self)
  return self
end

return M
