--- The prompt of weir: inputs are run one after the other, each in a task, while the loop goes on.
-- @module weir.repl

local chunk = require("weir.repl.chunk")
local commands = require("weir.repl.commands")
local errors = require("weir.errors")
local input = require("weir.repl.input")
local luv = require("luv")
local printer = require("weir.repl.print")
local runtime = require("weir.runtime")
local screens = require("weir.repl.screen")
local sessions = require("weir.repl.session")
local tasks = require("weir.task")
local version = require("weir.version")

local M = {}

local Repl = {}
Repl.__index = Repl

local PROMPT, MORE = "> ", ">> "
-- Instructions between two looks at whether Ctrl-C was pressed.
local INSTRUCTIONS, LOOKS = 10000, 10

-- --- Ctrl-C ---------------------------------------------------------------------------------------

local function on_interrupt(self)
  if self.task then
    self.screen:write("\n") -- below the ^C that the terminal shows
    self.task:cancel("interrupted by Ctrl-C")
  elseif self.closing then
    os.exit(130) -- whoever asks twice does not want to wait
  elseif not self.source:interrupt() then
    self.early = true -- a line was taken and is about to run
  end
end

-- What is pressed while Lua runs without waiting, the hook of the line sees; all else the loop.
local function watch_interrupt(self)
  local ok, edit = pcall(require, "weir.edit")
  if not ok then
    local signal = luv.new_signal()
    signal:start("sigint", function()
      on_interrupt(self)
    end)
    signal:unref()
    return function()
      signal:close()
    end
  end
  self.edit = edit
  local poll = luv.new_poll(edit.watch_interrupt())
  poll:start("r", function()
    if edit.interrupted(true) then
      on_interrupt(self)
    end
  end)
  return function()
    poll:close()
    edit.unwatch_interrupt()
  end
end

-- The loop sees an interrupt as soon as it has a turn; who does not let it have one is interrupted here, and not at
-- the first look, which may be in the middle of something that is about to wait.
local function install_hook(self)
  local edit, looks = self.edit, 0
  if edit then
    debug.sethook(function()
      looks = edit.interrupted() and looks + 1 or 0
      if looks == LOOKS then
        edit.interrupted(true)
        error(errors.new("cancelled", "interrupted by Ctrl-C"), 0)
      end
    end, "", INSTRUCTIONS)
  end
end

local SIGNALS = { sigterm = 15, sighup = 1 }

-- Ends the session in order when somebody else wants that.
local function watch_end(self)
  local handles = {}
  for name, number in pairs(SIGNALS) do
    local handle = luv.new_signal()
    handle:start(name, function()
      self.status = 128 + number
      if self.task then
        self.task:cancel("the session ends")
      end
      self.source:finish()
    end)
    handle:unref()
    handles[#handles + 1] = handle
  end
  return function()
    for _, handle in ipairs(handles) do
      handle:close()
    end
  end
end

-- --- one input ------------------------------------------------------------------------------------

local function describe(err)
  if type(err) == "string" then
    return printer.clean(err, 4000):gsub("\\n", "\n"):gsub("\\t", "  ")
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
    install_hook(self)
    return table.pack(fn())
  end)
  if self.early then
    self.task:cancel("interrupted by Ctrl-C")
  end
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

function Repl:show(values)
  while values.n > 1 and values[1] ~= nil and values[values.n] == nil do
    values.n = values.n - 1 -- the error that did not happen
  end
  if values.n > 0 then
    self.session.vars._ = values[1]
    self.screen:write(printer.all(values, self.source:width()) .. "\n")
  end
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
  while not self.status and not self.screen.broken do
    self.early = false
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

function Repl:run(options)
  local why
  self.source, why = input.open(self.session, self.screen)
  self.session.width = function()
    return self.source:width()
  end
  local unwatch, unwatch_end
  if self.source.interactive then
    unwatch, unwatch_end = watch_interrupt(self), watch_end(self)
  end
  self:greet(why)
  if self:begin(options) then
    self:loop()
  end
  self.closing = true
  local closing = tasks.spawn(function()
    self.session:close()
  end)
  pcall(closing.join, closing)
  self.screen:over(nil)
  local kept, reason = self.source:close()
  if unwatch then
    unwatch()
    unwatch_end()
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
