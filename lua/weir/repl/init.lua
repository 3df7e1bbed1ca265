--- The prompt of weir: inputs are run one after the other, each in a task, while the loop goes on.
-- @module weir.repl

local chunk = require("weir.repl.chunk")
local commands = require("weir.repl.commands")
local errors = require("weir.errors")
local input = require("weir.repl.input")
local printer = require("weir.repl.print")
local runtime = require("weir.runtime")
local screens = require("weir.repl.screen")
local sessions = require("weir.repl.session")
local signals = require("weir.repl.signals")
local tasks = require("weir.task")
local version = require("weir.version")

local M = {}

local Repl = {}
Repl.__index = Repl

local PROMPT, MORE = "> ", ">> "
-- Statuses after SIGTERM and SIGHUP.
local TERMINATED, HUNG_UP = 128 + 15, 128 + 1
-- Seconds that the end may take without a word.
local PATIENCE = 1

-- --- signals --------------------------------------------------------------------------------------

-- Below the ^C that a terminal shows of itself while no line is edited.
local function go_below(self)
  if not self.screen.line then
    self.screen:write("\n")
  end
end

local function on_interrupt(self)
  if self.task then
    go_below(self)
    self.task:cancel("interrupted by Ctrl-C")
  elseif self.closing then
    os.exit(130)
  elseif not self.source:interrupt() then
    self.early = true -- a line was taken and is about to run
  end
end

-- Somebody else wants the session to end: in order. Whoever asks twice does not want to wait, but for the end of a
-- terminal, of which the kernel and the shell tell.
local function on_end(self, status)
  if self.closing and status == TERMINATED then
    os.exit(status)
  end
  self.status, self.early = self.status or status, true
  if self.task then
    self.task:cancel("the session ends")
  end
  self.source:finish()
end

local function watch_signals(self)
  return signals.watch({
    int = function()
      on_interrupt(self)
    end,
    computing = function()
      if not self.interrupted_once then
        self.interrupted_once = true
        go_below(self)
      end
    end,
    tstp = function()
      self.source:suspend()
    end,
    term = function()
      on_end(self, TERMINATED)
    end,
    hup = function()
      on_end(self, HUNG_UP)
    end,
  })
end

-- --- one input ------------------------------------------------------------------------------------

local function describe(err)
  if type(err) == "string" then
    return printer.lines(err)
  elseif errors.is(err) then
    return (printer.format(err):gsub("^error ", ""))
  end
  return printer.format(err)
end

-- Reports an error. In a script it ends the session.
function Repl:fail(err)
  local text = describe(err)
  if self.source.interactive then
    self.screen:write("error: " .. text .. "\n")
  else
    self.status = 1
    self.screen:write("weir: " .. text .. "\n", self.stderr)
  end
end

-- Runs a function in a task that Ctrl-C cancels. What it returned; or nil and what was raised.
function Repl:call(fn)
  self.task = tasks.spawn(function()
    if self.early or self.task.cancelled then
      error(self.task.cancelled or errors.new("cancelled", "interrupted by Ctrl-C"), 0)
    end
    return table.pack(fn())
  end)
  local ok, results, err = pcall(self.task.join, self.task)
  local cancelled = self.task.cancelled
  self.task = nil
  if not ok then
    return nil, results
  end
  if cancelled and (not results or results.n == 0) then
    return nil, cancelled
  end
  return results, err
end

-- Shows what an input returned. It may call what the values have to say of themselves, so it may wait, too.
function Repl:show(values)
  while values.n > 1 and values[1] ~= nil and values[values.n] == nil do
    values.n = values.n - 1 -- the error that did not happen
  end
  if values.n == 0 then
    return
  end
  self.session.vars._ = values[1]
  local results, err = self:call(function()
    return printer.all(values, self.source:width())
  end)
  if not results then
    return self:fail(err)
  end
  self.screen:write(results[1] .. "\n")
end

function Repl:run_command(text)
  local results, err = self:call(function()
    return commands.run(self.session, text)
  end)
  if not results or results[1] == nil then
    return self:fail(err or results[2])
  end
  self.screen:write(results[1])
end

function Repl:run_chunk(fn, text, is_expression)
  self.session:watch()
  local results, err = self:call(fn)
  if not results then
    return self:fail(err)
  end
  self.session:note(text)
  if is_expression or results.n > 0 then
    self:show(results)
  end
end

-- --- inputs ---------------------------------------------------------------------------------------

-- Adds a line to what was typed; runs it when it is whole.
function Repl:take(line)
  self.line = self.line + 1
  if not self.text then
    if not line:find("%S") then
      return
    elseif commands.is_command(line) then
      return self:run_command(line)
    end
    self.text, self.first = line, self.line
  else
    self.text = self.text .. "\n" .. line
  end
  local name = self.source.interactive and "=prompt" or ("=stdin:%d"):format(self.first)
  local fn, result, incomplete = chunk.compile(self.text, name, self.session.env)
  if not fn and incomplete then
    self.unfinished = result
    return
  end
  local text = self.text
  self.text = nil
  if not fn then
    return self:fail(result)
  end
  self:run_chunk(fn, text, result)
end

-- Ctrl-C at the prompt: the first discards what was typed, or asks; the next ends. Whether it ends.
function Repl:interrupted(typed)
  local empty = not self.text and typed == ""
  self.text = nil
  if not empty then
    self.asked = false
    return false
  elseif self.asked then
    return true
  end
  self.asked = true
  self.screen:write("Ctrl-C again, or Ctrl-D, ends the session.\n")
  return false
end

-- Reads and runs until the end.
function Repl:loop()
  while not self.status do
    self.early, self.interrupted_once = false, false
    self.session.unfinished = self.text -- what completion has to know
    local kind, line = self.source:next(self.text and MORE or PROMPT)
    if kind == "eof" then
      if self.text and not self.source.interactive then
        self:fail(self.unfinished)
      end
      return
    elseif kind == "too_long" then
      return self:fail("a line is longer than can be read")
    elseif kind == "line" then
      self.asked = false
      self.source:remember(line)
      self:take(line)
    elseif self:interrupted(line) then
      return
    end
  end
end

-- --- a session ------------------------------------------------------------------------------------

-- Opens what the session begins with. On a terminal it goes on without what could not be opened.
function Repl:begin(options)
  local results, err = self:call(function()
    if options.file then
      return self.session:open(options.file)
    end
    return self.session:begin(options.connect)
  end)
  if results and results[1] then
    return true
  end
  self:fail(err or results[2])
  if self.source.interactive and not self.session.app then
    self.session:begin()
  end
  return self.source.interactive
end

function Repl:greet(why)
  if self.source.interactive then
    self.screen:write(("weir %s, %s. .help lists the commands, Ctrl-D ends.\n"):format(version, _VERSION))
    if why then
      self.screen:write(why .. "; input is read in whole lines.\n")
    end
  end
end

-- Closes everything, and says what one waits for when that takes a while.
function Repl:close()
  self.closing = true
  local closing = tasks.spawn(function()
    self.session:close()
  end)
  local hint = self.source.interactive and runtime.timer(runtime.now() + PATIENCE, function()
    self.screen:write("Handlers have time to finish. Ctrl-C ends at once.\n")
  end)
  pcall(closing.join, closing)
  if hint then
    hint:cancel()
  end
end

function Repl:run(options)
  local why
  self.source, why = input.open(self.session, self.screen)
  self.session.width = function()
    return self.source:width()
  end
  self.session.is_watched = self.source.interactive
  self.screen.on_broken = function()
    on_end(self, 0)
  end
  local unwatch = self.source.interactive and watch_signals(self)
  self:greet(why)
  if self:begin(options) then
    self:loop()
  end
  self:close()
  self.screen:over(nil)
  local kept, reason = self.source:close()
  if unwatch then
    unwatch()
  end
  if not kept then
    self.screen:write(("weir: the history was not kept: %s\n"):format(tostring(reason)), self.stderr)
  end
  runtime.pause() -- luv must see what was closed
end

--- Runs a session until its end.
-- @tparam[opt] table options `file` (of an application), or `connect` (the address of a broker)
-- @tparam[opt] table console with the files `out` and `err`
-- @treturn number the status to exit with
function M.run(options, console)
  local out = console and console.out or io.stdout
  local screen = screens.new(out)
  local self = setmetatable({ screen = screen, line = 0, stderr = console and console.err or io.stderr }, Repl)
  self.session = sessions.new(function(text)
    screen:write(text)
  end)
  local release = screen:capture()
  local ok, err = pcall(tasks.run, self.run, self, options or {})
  release()
  if not ok and (not self.source or not self.source.interactive) and not self.status then
    self.stderr:write("weir: ", tostring(err), "\n")
    return 1
  elseif not ok and not tostring(err):find("nobody waited for") then
    error(err, 0)
  end
  return self.status or 0
end

return M
