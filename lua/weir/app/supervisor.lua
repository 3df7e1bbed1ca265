--- Runs a program in several processes, starts those again that fail, and replaces them when its files change.
--
-- For `weir run --workers` and `--reload`. A worker is told that it is one by the environment: `WEIR_WORKER`, from 1,
-- of `WEIR_WORKERS`. Its descriptor 3 is a pipe to here: it writes a line when it is ready, and drains when the pipe
-- ends, so that no worker outlives a supervisor that was killed. Each has a session of its own, so that Ctrl-C comes
-- here alone and is passed on once.
-- @module weir.app.supervisor
local cjson = require("cjson")
local channel = require("weir.channel")
local luv = require("luv")
local runtime = require("weir.runtime")
local signals = require("weir.app.signals")
local tasks = require("weir.task")

local M = {}

--- The descriptor of a worker's pipe.
M.PIPE = 3

-- Seconds: the pause before a failed worker is started again doubles from the first to the last of these.
local FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10
-- So many failures in a row, each without being ready for LASTING seconds, end the whole.
local MOST_FAILURES, LASTING = 10, 10
-- A worker that is to drain gets its shutdown_timeout (this when it has none), and a little, before it is killed.
local SHUTDOWN_TIMEOUT, GRACE = 15, 5
-- What one that was started has to become ready, before the next one is replaced.
local READY_TIMEOUT = 30
-- Editors write a file in several steps.
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

-- Runs the check of the program. Its report; or nil and why there is none.
local function check(self)
  local out, parts, ended = luv.new_pipe(false), {}, channel(1)
  local handle, pid
  handle, pid = luv.spawn(self.check[1], {
    args = { table.unpack(self.check, 2) },
    stdio = { nil, out, 2 },
  }, function()
    handle:close()
    ended:close()
  end)
  if not handle then
    out:close()
    return nil, tostring(pid)
  end
  local all = channel(1)
  read(out, function(data)
    parts[#parts + 1] = data
    if not data then
      all:close()
    end
  end)
  ended:recv()
  all:recv(1)
  out:close()
  -- The program may print something of its own while it is loaded.
  local line = table.concat(parts):match("([^\n]*)\n$")
  local ok, report = pcall(cjson.decode, line or "")
  if not ok or type(report) ~= "table" then
    return nil, "its check did not end in good order"
  end
  return report
end

local function kill(run, signal)
  if not run.exit then
    run.handle:kill(signal)
  end
end

-- Starts a process for a slot.
local function start(self, slot)
  local run = { ended = channel(1), ready = channel(1), began = runtime.now() }
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
        run.ready_at = runtime.now()
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
  local lasted = run.ready_at and runtime.now() - run.ready_at >= LASTING
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
  slot.poke:recv(pause)
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
  if not self.stopping then
    slot.run.ready:recv(READY_TIMEOUT)
  end
end

-- What the files are now: changes when one of them does.
local function signature(files)
  local parts = {}
  for i, path in ipairs(files) do
    local stat = luv.fs_stat(path)
    parts[i] = stat and ("%s:%d.%d:%d:%d"):format(path, stat.mtime.sec, stat.mtime.nsec, stat.size, stat.ino) or path
  end
  return table.concat(parts, "\n")
end

local function place(each)
  local line = each.line and each.line ~= cjson.null and ":" .. ("%d"):format(each.line) or ""
  return each.file .. line .. ": " .. each.message
end

-- Checks the program, and takes from the report what is to be known. Whether it can be run, and why not.
local function look(self)
  local seen = signature(self.files)
  local report, err = check(self)
  self.seen = seen
  if not report then
    return nil, err
  end
  -- What changed since the check began is to be noticed; of files that are new here, what changes from now on.
  local same = table.concat(report.files, "\n") == table.concat(self.files, "\n")
  self.files = report.files
  self.seen = same and seen or signature(self.files)
  self.grace = (report.shutdown_timeout or SHUTDOWN_TIMEOUT) + GRACE
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

-- --- watching files -------------------------------------------------------------------------------

local function unwatch(self)
  for i, handle in ipairs(self.watches) do
    handle:close()
    self.watches[i] = nil
  end
end

-- Directories are watched, and not files: editors put a new file in the place of the old one.
local function watch(self)
  unwatch(self)
  local seen = {}
  for _, path in ipairs(self.files) do
    local folder = path:match("^(.*)/[^/]*$") or "."
    folder = folder == "" and "/" or folder
    if not seen[folder] then
      seen[folder] = true
      local handle = luv.new_fs_event()
      self.watches[#self.watches + 1] = handle
      handle:start(folder, {}, function()
        self.changed:try_send(true)
      end)
    end
  end
  self.changed:try_send(true) -- perhaps one has changed before it was watched
end

local function begin(self)
  for _, slot in ipairs(self.slots) do
    slot.task = tasks.spawn(keep, self, slot)
  end
  self.begun = true
  self.underway:close()
end

local function reload(self)
  local ok, err = look(self)
  watch(self)
  if self.stopping then
    return
  elseif not ok then
    local state = self.begun and "the old one goes on" or "waiting for a change"
    self.log:error("the application does not load: " .. state, { error = err })
    return
  elseif not self.begun then
    return begin(self)
  end
  self.log:info("reloading")
  for _, slot in ipairs(self.slots) do
    if not self.stopping and not slot.done then
      replace(self, slot)
    end
  end
  if not self.stopping then
    self.log:info("reloaded")
  end
end

-- Replaces the workers whenever the files have changed.
local function follow(self)
  watch(self)
  while self.changed:recv() do
    repeat
      local more = self.changed:recv(SETTLE)
    until not more
    if signature(self.files) ~= self.seen and not self.stopping then
      reload(self)
    end
  end
end

-- --- the whole ------------------------------------------------------------------------------------

local Supervisor = { __name = "weir.app.supervisor" }
Supervisor.__index = Supervisor

--- Asks all workers to end.
-- @string signal that they get
function Supervisor:stop(signal)
  if self.stopping then
    return
  end
  self.stopping = true
  self.changed:close()
  self.underway:close()
  for _, slot in ipairs(self.slots) do
    slot.poke:close()
    if slot.run then
      kill(slot.run, signal)
    end
  end
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
  unwatch(self)
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
    grace = SHUTDOWN_TIMEOUT + GRACE,
    slots = {},
    watches = {},
    changed = channel(1),
    underway = channel(1),
  }, Supervisor)
  for i = 1, options.workers or 1 do
    self.slots[i] = { index = i, failures = 0, poke = channel(1) }
  end
  return tasks.run(supervise, self)
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
