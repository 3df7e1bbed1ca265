--- Where inputs come from: a terminal with line editing, a terminal without, or a script.
--
-- A source has `next(prompt)`, which waits for a line and returns "line" and its text, "eof", or "interrupt" with what
-- had been typed; `remember(line)`; `close()`; and `interactive`.
-- @module weir.repl.input

local channel = require("weir.channel")
local complete = require("weir.repl.complete")
local history = require("weir.repl.history")
local luv = require("luv")
local runtime = require("weir.runtime")

local M = {}

-- Bytes of one read; bytes of a line.
local CHUNK, LONGEST = 4096, 4 * 1024 * 1024

-- --- with editing ---------------------------------------------------------------------------------

local Edited = { interactive = true, edits = true }
Edited.__index = Edited

local function on_readable(self)
  return function()
    local bytes = luv.fs_read(0, CHUNK)
    local kind, text
    if not bytes or bytes == "" then
      self.editor:stop()
      kind = "eof"
    else
      kind, text = self.editor:feed(bytes)
    end
    if kind then
      self:deliver(kind, text)
    end
  end
end

-- Ends the wait for a line; called in callbacks of the loop.
function Edited:deliver(kind, text)
  self.poll:stop()
  self.screen.line = nil -- the cursor is below the line
  self.events:try_send({ kind, text })
end

function Edited:next(prompt)
  self.editor:prompt(prompt)
  self.screen:over(self.editor)
  self.waits = true
  local kind, text = self.editor:feed("")
  if not kind then
    self.poll:start("r", on_readable(self))
    local event = self.events:recv()
    kind, text = event[1], event[2]
  end
  self.waits = false
  if kind == "eof" then
    self.screen.line = nil
    self.screen:write("\n")
  end
  self.screen:over(nil)
  return kind, text
end

--- Ctrl-C: ends the line that is being typed. False when nobody types.
function Edited:interrupt()
  if not self.waits then
    return false
  end
  local typed = self.editor:line()
  self.editor:stop()
  self.screen.line = nil
  self.screen:write("^C\n")
  self:deliver("interrupt", typed)
  return true
end

--- Ends the wait for a line as the end of the input does.
function Edited:finish()
  if self.waits then
    self.editor:stop()
    self:deliver("eof")
  end
end

function Edited:remember(line)
  if history.worth(line, self.former) then
    self.former = line
    self.editor:remember(line)
    self.lines[#self.lines + 1] = line
  end
end

function Edited:width()
  return self.editor:width()
end

function Edited:close()
  for _, handle in ipairs(self.handles) do
    handle:close()
  end
  self.editor:close()
  return history.save(history.path(), self.lines)
end

-- What Tab does.
local function completer(self, session)
  return function(line, point)
    local insertion, several = complete.complete(session, line, point)
    if several[1] then
      self.screen:write(complete.columns(several, self:width()))
    end
    return insertion
  end
end

local function watch_terminal(self)
  local resized, continued = luv.new_signal(), luv.new_signal()
  resized:start("sigwinch", function()
    self.editor:hide()
    self.editor:resize()
    self.editor:show()
  end)
  continued:start("sigcont", function()
    self.editor:resume()
  end)
  for _, handle in ipairs({ resized, continued }) do
    handle:unref()
  end
  self.handles = { resized, continued, self.poll }
end

local function open_edited(session, screen, edit)
  local self = setmetatable({ screen = screen, events = channel(16), lines = {}, waits = false }, Edited)
  local err
  self.editor, err = edit.open(completer(self, session))
  if not self.editor then
    return nil, err
  end
  for _, line in ipairs(history.load(history.path())) do
    self.editor:remember(line)
    self.former = line
  end
  self.poll = luv.new_poll(0)
  watch_terminal(self)
  return self
end

-- --- without --------------------------------------------------------------------------------------

local Plain = {}
Plain.__index = Plain

-- Takes a line out of what was read.
local function take(self, all)
  local line, rest = self.text:match("^([^\n]*)\n(.*)$", self.from)
  if line then
    self.text = rest
    return (line:gsub("\r$", ""))
  elseif all and self.text ~= "" then
    line, self.text = self.text, ""
    return line
  end
end

local function read_more(self)
  if self.poll then
    self.poll:start("r", function()
      self.poll:stop()
      self.events:try_send({ "readable" })
    end)
    local event = self.events:recv()
    if event[1] ~= "readable" then
      return nil, event[1]
    end
  else
    runtime.pause() -- a file is always there
  end
  local bytes = luv.fs_read(0, CHUNK * 16)
  if not bytes or bytes == "" then
    return nil, "eof"
  end
  self.parts[#self.parts + 1] = bytes
  self.bytes = self.bytes + #bytes
  if bytes:find("\n", 1, true) then
    self.text = self.text .. table.concat(self.parts)
    self.parts, self.bytes = {}, 0
  elseif self.bytes > LONGEST then
    return nil, "too_long"
  end
  return true
end

function Plain:next(prompt)
  if self.interactive then
    self.screen:write(prompt)
  end
  self.waits = true
  while true do
    local line = take(self)
    if line then
      self.waits = false
      return "line", line
    end
    local ok, kind = read_more(self)
    if not ok then
      self.waits = false
      if kind == "eof" then
        self.text, self.parts = self.text .. table.concat(self.parts), {}
        line = take(self, true)
        if line then
          return "line", line
        elseif self.interactive then
          self.screen:write("\n")
        end
      end
      return kind, ""
    end
  end
end

function Plain:interrupt()
  if not self.waits then
    return false
  end
  self.poll:stop()
  self.screen:write("\n")
  self.events:try_send({ "interrupt" })
  return true
end

function Plain:finish()
  if self.waits then
    self.poll:stop()
    self.events:try_send({ "eof" })
  end
end

function Plain.remember() end

function Plain.width()
  return 80
end

function Plain:close()
  if self.poll then
    self.poll:close()
  end
  return true
end

local function open_plain(screen, interactive)
  local self = setmetatable({
    interactive = interactive,
    screen = screen,
    events = channel(16),
    text = "",
    parts = {},
    bytes = 0,
    waits = false,
  }, Plain)
  if luv.guess_handle(0) ~= "file" then
    self.poll = luv.new_poll(0) -- nil for what cannot be watched, such as /dev/null
  end
  return self
end

--- Opens the source that there is.
-- @param session whose names are completed
-- @param screen
-- @treturn table the source
-- @treturn ?string why lines cannot be edited, on a terminal
function M.open(session, screen)
  local interactive = luv.guess_handle(0) == "tty" and luv.guess_handle(1) == "tty"
  if not interactive then
    return open_plain(screen, false)
  end
  local ok, edit = pcall(require, "weir.edit")
  if not ok then
    return open_plain(screen, true), "weir was built without libedit, so lines cannot be edited or completed"
  elseif os.getenv("TERM") == "dumb" then
    return open_plain(screen, true), "this terminal (TERM=dumb) cannot edit lines"
  end
  local source, err = open_edited(session, screen, edit)
  if not source then
    return open_plain(screen, true), err
  end
  return source
end

return M
