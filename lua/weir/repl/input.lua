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

-- Bytes of a read of a file; bytes of a line; lines that are kept for the history.
local CHUNK, LONGEST, KEPT = 65536, 4 * 1024 * 1024, 1000

-- What is read in the loop: nil for a file, and for what cannot be watched. Descriptors that others have as well, the
-- output and programs that an input starts, must go on blocking, or a slow terminal would lose some of the output. So a
-- terminal is opened anew, and a pipe or a socket told so.
local function open_stream()
  local kind = luv.guess_handle(0)
  if kind == "tty" then
    return luv.new_tty(luv.fs_open("/dev/fd/0", "r", 0) or 0, true)
  elseif kind ~= "pipe" and kind ~= "tcp" then
    return nil
  end
  local stream = kind == "pipe" and luv.new_pipe(false) or luv.new_tcp()
  if not stream:open(0) then
    stream:close()
    return nil
  end
  luv.stream_set_blocking(stream, true)
  return stream
end

-- --- with editing ---------------------------------------------------------------------------------

local Edited = { interactive = true, edits = true }
Edited.__index = Edited

local function on_bytes(self)
  return function(_, bytes)
    local kind, text
    if bytes then
      kind, text = self.editor:feed(bytes)
    else
      self.editor:stop()
      kind = "eof"
    end
    if kind then
      self:deliver(kind, text)
    end
  end
end

-- Ends the wait for a line; called in callbacks of the loop.
function Edited:deliver(kind, text)
  self.waits = false
  self.stream:read_stop()
  self.screen.line = nil -- the cursor is below the line
  self.events:try_send({ kind, text })
end

function Edited:next(prompt)
  self.screen:fresh_line()
  self.editor:prompt(prompt)
  self.screen:over(self.editor)
  self.waits = true
  local kind, text = self.editor:feed("")
  if not kind then
    self.stream:read_start(on_bytes(self))
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

--- Ctrl-Z: stops the process, and goes on where it was.
function Edited:suspend()
  self.editor:suspend()
end

function Edited:remember(line)
  if history.worth(line, self.former) then
    self.former = line
    self.editor:remember(line)
    self.lines[#self.lines + 1] = line
    if #self.lines > KEPT then
      table.remove(self.lines, 1)
    end
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
    local before = session.unfinished and session.unfinished .. "\n" or ""
    local ok, insertion, several = pcall(complete.complete, session, before .. line, #before + point)
    if not ok then
      return nil -- a module that cannot be loaded has no names
    elseif several[1] then
      self.screen:write(complete.columns(several, self:width()))
    end
    return insertion
  end
end

local function watch_terminal(self)
  local resized, continued = luv.new_signal(), luv.new_signal()
  resized:start("sigwinch", function()
    self.editor:hide()
    self.editor:show()
  end)
  continued:start("sigcont", function()
    self.editor:resume()
  end)
  for _, handle in ipairs({ resized, continued }) do
    handle:unref()
  end
  self.handles = { resized, continued, self.stream }
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
  self.stream = open_stream()
  watch_terminal(self)
  return self
end

-- --- without --------------------------------------------------------------------------------------

local Plain = {}
Plain.__index = Plain

-- Takes a line out of what was read.
local function take(self, all)
  local at = self.text:find("\n", self.from, true)
  local line
  if at then
    line, self.from = self.text:sub(self.from, at - 1):gsub("\r$", ""), at + 1
  elseif all and self.from <= #self.text then
    line, self.from = self.text:sub(self.from), #self.text + 1
  end
  return line
end

-- Ends the wait for bytes, and the reading, before libuv reads again, which could block.
local function deliver(self, kind, bytes)
  self.waits = false
  self.stream:read_stop()
  self.events:try_send({ kind, bytes })
end

local function read_stream(self)
  self.waits = true
  self.stream:read_start(function(_, bytes)
    deliver(self, bytes and "bytes" or "eof", bytes)
  end)
  local event = self.events:recv()
  return event[2], event[1]
end

local function read_file()
  runtime.pause() -- a file is always there
  local bytes = luv.fs_read(0, CHUNK)
  return bytes ~= "" and bytes or nil, "eof"
end

-- Reads until the end of a line. True; or nil and why not.
local function read_more(self)
  local bytes, kind = (self.stream and read_stream or read_file)(self)
  if not bytes then
    return nil, kind
  end
  self.parts[#self.parts + 1] = bytes
  self.bytes = self.bytes + #bytes
  if bytes:find("\n", 1, true) then
    self.text = self.text:sub(self.from) .. table.concat(self.parts)
    self.from, self.parts, self.bytes = 1, {}, 0
  elseif self.bytes > LONGEST then
    return nil, "too_long"
  end
  return true
end

-- The last line, which has no end.
local function take_rest(self)
  self.text, self.from = self.text:sub(self.from) .. table.concat(self.parts), 1
  self.parts, self.bytes = {}, 0
  return take(self, true)
end

function Plain:next(prompt)
  if self.interactive then
    self.prompt = prompt
    self.screen:fresh_line()
    self.screen:write(prompt)
    self.screen.partial = false -- Enter ends the line
  end
  local line, kind = take(self), nil
  while not line and not kind do
    local ok, why = read_more(self)
    line, kind = ok and take(self), not ok and why or nil
  end
  if kind == "eof" then
    line = take_rest(self)
    if not line and self.interactive then
      self.screen:write("\n")
    end
  end
  if line then
    return "line", line
  end
  return kind, ""
end

function Plain:interrupt()
  if not self.waits then
    return false
  end
  self.screen:write("\n")
  deliver(self, "interrupt")
  return true
end

function Plain:finish()
  if self.waits then
    deliver(self, "eof")
  end
end

function Plain.remember() end

function Plain.width()
  return 80
end

function Plain:close()
  for _, handle in ipairs(self.handles) do
    handle:close()
  end
  return true
end

-- After Ctrl-Z and fg the shell has written below the prompt.
local function watch_continue(self)
  local continued = luv.new_signal()
  continued:start("sigcont", function()
    if self.waits then
      self.screen:write(self.prompt)
    end
  end)
  continued:unref()
  return continued
end

local function open_plain(screen, interactive)
  local self = setmetatable({
    interactive = interactive,
    screen = screen,
    events = channel(16),
    stream = open_stream(),
    text = "",
    from = 1, -- in `text`: the next line
    parts = {}, -- what was read of a line that goes on
    bytes = 0,
    waits = false,
  }, Plain)
  self.handles = { self.stream }
  if interactive then
    table.insert(self.handles, watch_continue(self))
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
