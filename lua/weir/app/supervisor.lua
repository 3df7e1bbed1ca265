--- Runs a program in several processes, starts those again that fail, and replaces them when its files change.
--
-- For `weir run --workers` and `--reload`. A worker is told that it is one by the environment: `WEIR_WORKER`, from 1,
-- of `WEIR_WORKERS`. Its descriptor 3 is a pipe to here: it writes a line when it is ready, and drains when the pipe
-- ends, so that no worker outlives a supervisor that was killed. Each has a session of its own, so that Ctrl-C comes
-- here alone and is passed on once.
-- @module weir.app.supervisor
local cjson = require("cjson")
local channel = require("weir.channel")
local clock = require("weir.clock")
local luv = require("luv")
local runtime = require("weir.runtime")
local signals = require("weir.app.signals")
local tasks = require("weir.task")
local watch = require("weir.app.watch")

local M = {}

--- The descriptor of a worker's pipe.
M.PIPE = 3

-- Seconds: the pause before a failed worker is started again doubles from the first to the last of these.
local FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10
-- So many failures in a row, each without being ready for LASTING seconds, end the whole.
local MOST_FAILURES, LASTING = 10, 10
-- A worker that is to drain gets its shutdown_timeout (this when it has none), and a little, before it is killed.
local SHUTDOWN_TIMEOUT, GRACE = 15, 5
-- One that was started gets its start_timeout (this when it has none), and a little, to become ready, before the next
-- one is replaced; and the check of the program as long as that.
local START_TIMEOUT = 30
-- Bytes of the report of a check, and of what comes before it.
local LONGEST_REPORT = 16 * 1024 * 1024
-- Editors write a file in several steps, and several files one after the other.
local SETTLE = 0.1

-- --- processes ------------------------------------------------------------------------------------

local function environment(more)
  local all, list = luv.os_environ(), {}
  for name, value in pairs(more) do
    all[name] = value
  end
  for name, value in pairs(all) do
    list[#list + 1] = name .. "=" .. value
  end
  return list
end

-- Reads what comes through a pipe; `fn(data)`, nil at the end.
local function read(pipe, fn)
  pipe:read_start(function(_, data)
    fn(data)
  end)
end

local function kill(run, signal)
  if not run.exit then
    run.handle:kill(signal)
  end
end

-- Starts the check of the program.
local function start_check(self)
  local run = { ended = channel(1), all = channel(1), out = luv.new_pipe(false), parts = {} }
  local handle, pid = luv.spawn(self.check[1], {
    args = { table.unpack(self.check, 2) },
    stdio = { nil, run.out, 2 },
  }, function(code, signal)
    run.exit = { code = code, signal = signal }
    run.handle:close()
    run.ended:close()
  end)
  if not handle then
    run.out:close()
    return nil, tostring(pid)
  end
  run.handle = handle
  local bytes = 0
  read(run.out, function(data)
    bytes = bytes + #(data or "")
    if not data then
      run.all:close()
    elseif bytes <= LONGEST_REPORT then
      run.parts[#run.parts + 1] = data
    end
  end)
  return run
end

-- What a check wrote, decoded; nil where it wrote something else. What the program ran may have written before it.
local function report_of(run)
  local ok, report = pcall(cjson.decode, table.concat(run.parts):match('({"[^\n]*})\n$') or "")
  return ok and type(report) == "table" and type(report.files) == "table" and report or nil
end

-- Runs the check of the program. Its report; or nil and why there is none.
local function check(self)
  local run, err = start_check(self)
  if not run then
    return nil, err
  end
  self.checking = run
  err = select(2, run.ended:recv(self.patience))
  local late = err and err.code == "timeout"
  if late then
    kill(run, "sigkill")
    run.ended:recv()
  end
  run.all:recv(1) -- what the program has started may keep the pipe open
  run.out:close()
  if late then
    return nil, ("it was not loaded within %g seconds"):format(self.patience)
  end
  local report, exit = report_of(run), run.exit
  if not report then
    local how = exit.signal ~= 0 and "signal" or "status"
    return nil, ("its check ended with %s %d and no report"):format(how, exit.signal ~= 0 and exit.signal or exit.code)
  end
  return report
end

-- Starts a process for a slot.
local function start(self, slot)
  local run = { ended = channel(1), ready = channel(1) }
  run.pipe = luv.new_pipe(false)
  local pid
  run.handle, pid = luv.spawn(self.command[1], {
    args = { table.unpack(self.command, 2) },
    env = environment({ WEIR_WORKER = tostring(slot.index), WEIR_WORKERS = tostring(#self.slots) }),
    stdio = { nil, 1, 2, run.pipe },
    detached = true,
  }, function(code, signal)
    run.exit = { code = code, signal = signal }
    run.handle:close()
    run.pipe:close()
    run.ready:close()
    run.ended:close()
  end)
  if not run.handle then
    run.pipe:close()
    run.exit = { code = 127, signal = 0, reason = pid }
    run.ready:close()
    run.ended:close()
  else
    run.pid = pid
    read(run.pipe, function(data)
      if data and not run.ready_at then
        run.ready_at = self.clock.now()
        run.ready:close()
      end
    end)
    self.log:info("worker started", { worker = slot.index, pid = pid })
  end
  slot.run = run
  if slot.replaced then
    slot.replaced:close()
    slot.replaced = nil
  end
  return run
end

-- --- one place of a worker ------------------------------------------------------------------------

local function pause_of(failures)
  return math.min(FIRST_PAUSE * 2 ^ (failures - 1), LONGEST_PAUSE)
end

local function give_up(self, slot)
  self.log:error("worker fails again and again", { worker = slot.index, failures = slot.failures })
  self.failed = true
  self:stop("sigterm")
end

-- A worker ended without being asked to. Waits until it is to be started again; false when it is not.
local function after_end(self, slot, run)
  local exit = run.exit
  if exit.code == 0 and exit.signal == 0 then
    self.log:info("worker ended", { worker = slot.index, pid = run.pid })
    return self.reload and slot.poke:recv() ~= nil
  end
  local lasted = run.ready_at and self.clock.now() - run.ready_at >= LASTING
  slot.failures = lasted and 1 or slot.failures + 1
  if slot.failures >= MOST_FAILURES and not self.reload then
    give_up(self, slot)
    return false
  end
  local pause = pause_of(slot.failures)
  self.log:error("worker failed", {
    worker = slot.index,
    pid = run.pid,
    status = exit.signal == 0 and exit.code or nil,
    signal = exit.signal ~= 0 and exit.signal or nil,
    reason = exit.reason,
    again_in = ("%g s"):format(pause),
  })
  local timer = self.clock.timer(self.clock.now() + pause, function()
    slot.poke:try_send(true)
  end)
  slot.poke:recv()
  timer:cancel()
  return true
end

-- Keeps a place filled.
local function keep(self, slot)
  while not self.stopping do
    local run = start(self, slot)
    run.ended:recv()
    if slot.draining then
      slot.draining, slot.failures = nil, 0
    elseif self.stopping or not after_end(self, slot, run) then
      break
    end
  end
  slot.done = true
  if slot.replaced then
    slot.replaced:close()
  end
end

-- --- replacing ------------------------------------------------------------------------------------

-- Replaces the worker of a place. Whether the new one became ready.
local function replace(self, slot)
  local run = slot.run
  slot.replaced = channel(1)
  local replaced = slot.replaced
  if run.exit then
    slot.failures = 0
    slot.poke:try_send(true)
  else
    slot.draining = true
    kill(run, "sigterm")
    local _, err = run.ended:recv(self.grace)
    if err and err.code == "timeout" then
      self.log:warn("worker did not drain in time: killed", { worker = slot.index, pid = run.pid })
      kill(run, "sigkill")
    end
  end
  replaced:recv()
  if self.stopping then
    return false
  end
  slot.run.ready:recv(self.patience)
  return slot.run.ready_at ~= nil
end

local function place(each)
  local line = each.line and each.line ~= cjson.null and ":" .. ("%d"):format(each.line) or ""
  return each.file .. line .. ": " .. each.message
end

-- Checks the program, and takes from the report what is to be known. Whether it can be run, and why not.
local function look(self)
  local seen = watch.signature(self.files)
  local report, err = check(self)
  self.seen = seen
  if not report then
    return nil, err
  end
  -- What changed since the check began is to be noticed; of files that are new here, what changes from now on.
  local same = table.concat(report.files, "\n") == table.concat(self.files, "\n")
  self.files = report.files
  self.seen = same and seen or watch.signature(self.files)
  self.grace = (report.shutdown_timeout or SHUTDOWN_TIMEOUT) + GRACE
  self.patience = (report.start_timeout or START_TIMEOUT) + GRACE
  if report.ok then
    return true
  elseif report.error then
    return nil, report.error
  end
  local lines = {}
  for i, each in ipairs(report.mistakes) do
    lines[i] = "  " .. place(each)
  end
  local count = #lines == 1 and "one mistake" or #lines .. " mistakes"
  return nil, ("the application '%s' has %s:\n%s"):format(report.app, count, table.concat(lines, "\n"))
end

-- --- following the files --------------------------------------------------------------------------

local function watch_files(self)
  local others, err = self.watch:set(self.files)
  if err then
    self.log:warn("changes may go unnoticed", { error = err })
  end
  if others then
    self.changed:try_send(true) -- perhaps a file has changed before it was watched
  end
end

local function begin(self)
  for _, slot in ipairs(self.slots) do
    slot.task = tasks.spawn(keep, self, slot)
  end
  self.begun = true
  self.underway:close()
end

local function replace_all(self)
  self.log:info("reloading")
  for i, slot in ipairs(self.slots) do
    local ready = slot.done or replace(self, slot)
    if self.stopping then
      return
    elseif not ready then
      local others = i < #self.slots and ": the other workers stay as they are" or ""
      self.log:error("the new one does not start" .. others, { worker = slot.index })
      return
    end
  end
  self.log:info("reloaded")
end

local function reload(self)
  local ok, err = look(self)
  watch_files(self)
  if self.stopping then
    return
  elseif not ok then
    local state = self.begun and "the old one goes on" or "waiting for a change"
    self.log:error("the application does not load: " .. state, { error = err })
  elseif not self.begun then
    begin(self)
  else
    replace_all(self)
  end
end

-- What the files are after a moment.
local function settled(self)
  tasks.sleep(SETTLE)
  return watch.signature(self.files)
end

-- Replaces the workers whenever the files have changed and then stayed so for a moment: others beside them may change
-- all the time.
local function follow(self)
  watch_files(self)
  while self.changed:recv() do
    watch_files(self)
    local now = watch.signature(self.files)
    local before
    repeat
      before, now = now, settled(self)
    until now == before or self.stopping
    if now ~= self.seen and not self.stopping then
      reload(self)
    end
  end
end

-- --- the whole ------------------------------------------------------------------------------------

local Supervisor = { __name = "weir.app.supervisor" }
Supervisor.__index = Supervisor

local function kill_all(self)
  for _, slot in ipairs(self.slots) do
    if slot.run and not slot.run.exit then
      self.log:warn("worker did not drain in time: killed", { worker = slot.index, pid = slot.run.pid })
      kill(slot.run, "sigkill")
    end
  end
end

--- Asks all workers to end, and kills those that do not, after a while.
-- @string signal that they get
function Supervisor:stop(signal)
  if self.stopping then
    return
  end
  self.stopping = true
  self.changed:close()
  self.underway:close()
  if self.checking then
    kill(self.checking, "sigkill")
  end
  for _, slot in ipairs(self.slots) do
    slot.poke:close()
    if slot.run then
      kill(slot.run, signal)
    end
  end
  self.killing = self.clock.timer(self.clock.now() + self.grace, function()
    kill_all(self)
  end)
end

local function supervise(self)
  local signal
  local forget = signals.watch(function(number)
    signal = number
    self:stop(number == 2 and "sigint" or "sigterm")
  end, function()
    for _, slot in ipairs(self.slots) do
      if slot.run then
        kill(slot.run, "sigkill")
      end
    end
  end)
  local ok, err = look(self)
  local follower
  if self.reload then
    follower = tasks.spawn(follow, self)
  end
  if ok and not self.stopping then
    begin(self)
  elseif self.reload and not self.stopping then
    self.log:error("the application does not load: waiting for a change", { error = err })
  else
    self:stop("sigterm")
  end
  self.underway:recv()
  for _, slot in ipairs(self.slots) do
    if slot.task then
      slot.task:join()
    end
  end
  self:stop("sigterm")
  if follower then
    follower:join()
  end
  self.killing:cancel()
  self.watch:close()
  forget()
  if signal then
    return true, signal
  elseif not ok and not self.begun then
    return nil, err
  elseif self.failed then
    return nil, "a worker failed again and again; see its errors above"
  end
  return true
end

--- Runs workers until a signal, until all of them ended by themselves, or until one fails again and again. For the main
-- thread.
-- @tparam table options
-- @tparam {string,...} options.command a worker: program and arguments
-- @tparam {string,...} options.check prints a report of the program as `weir check --json` does
-- @tparam string options.file of the program
-- @tparam[opt=1] integer options.workers
-- @tparam[opt] boolean options.reload replace the workers when the files of the program change
-- @tparam table options.log a logger
-- @tparam[opt] table options.clock of `weir.clock`, for the pauses
-- @treturn[1] boolean true
-- @treturn[1] ?integer the signal that ended it
-- @treturn[2] nil
-- @treturn[2] string why it ended, or could not begin
function M.run(options)
  local self = setmetatable({
    command = options.command,
    check = options.check,
    log = options.log,
    reload = options.reload,
    files = { options.file },
    clock = options.clock or clock,
    grace = SHUTDOWN_TIMEOUT + GRACE,
    patience = START_TIMEOUT + GRACE,
    slots = {},
    changed = channel(1),
    underway = channel(1),
  }, Supervisor)
  self.watch = watch.new(function()
    self.changed:try_send(true)
  end)
  for i = 1, options.workers or 1 do
    self.slots[i] = { index = i, failures = 0, poke = channel(1) }
  end
  return tasks.run(supervise, self)
end

-- What luv frees when it is collected, though the thread still needs it.
local threads = {}

-- Kills this process when its parent has been gone for so long: a handler that never yields hears of no signal. That is
-- for a thread of its own.
local function guard(seconds)
  threads[#threads + 1] = luv.new_thread(function(parent, pause, cpath)
    package.cpath = cpath
    local uv = require("luv")
    while uv.os_getppid() == parent do
      uv.sleep(1000)
    end
    uv.sleep(pause)
    uv.kill(uv.os_getpid(), "sigkill")
  end, luv.os_getppid(), math.ceil(seconds * 1000), package.cpath)
end

--- For the process that is a worker: tells its supervisor when the application is ready, and stops when that is gone.
-- @tparam table app
-- @treturn function ends that; to be called where waiting is possible. Nil where it is no worker.
function M.serve(app)
  if not os.getenv("WEIR_WORKER") then
    return nil
  end
  local stat = luv.fs_fstat(M.PIPE)
  local pipe = luv.new_pipe(false)
  if not stat or (stat.type ~= "socket" and stat.type ~= "fifo") or not pipe:open(M.PIPE) then
    pipe:close()
    runtime.pause()
    return nil
  end
  guard((app.options.shutdown_timeout or SHUTDOWN_TIMEOUT) + GRACE)
  read(pipe, function(data)
    if not data then
      luv.kill(luv.os_getpid(), "sigterm")
      pipe:read_stop()
    end
  end)
  -- The supervisor may be gone when this is written, and that must not end us before what is begun is done.
  local sigpipe = luv.new_signal()
  sigpipe:start("sigpipe", function() end)
  app:on("started", function()
    pipe:write("ready\n", function()
      if not sigpipe:is_closing() then
        sigpipe:close()
      end
    end)
  end)
  return function()
    pipe:close()
    if not sigpipe:is_closing() then
      sigpipe:close()
    end
    runtime.pause()
  end
end

return M
