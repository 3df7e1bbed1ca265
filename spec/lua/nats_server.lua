--- A real nats-server on a free port of the loopback, for the specs of the NATS broker.
local clean_environment = require("spec.environment")
local luv = require("luv")
local runtime = require("weir.runtime")
local shell = require("spec.house.shell")
local tasks = require("weir.task")

local M = {}

--- Whether one can be started here, and the broker was built.
function M.available()
  return os.execute("command -v nats-server >/dev/null 2>&1") == true
    and package.searchpath("weir.brokers.nats", package.cpath) ~= nil
end

local function free_port()
  local socket = luv.new_tcp()
  assert(socket:bind("127.0.0.1", 0))
  local port = socket:getsockname().port
  socket:close()
  runtime.pause()
  return port
end

local function await(check, what, seconds)
  local deadline = runtime.now() + (seconds or 20)
  while not check() do
    if runtime.now() > deadline then
      error("nats-server: " .. what .. " in time", 3)
    end
    tasks.sleep(0.002)
  end
end

-- Whether somebody says INFO there, as a server does that is ready.
local function answers(port)
  local waiter, socket = runtime.waiter(), luv.new_tcp()
  socket:connect("127.0.0.1", port, function(err)
    if err then
      return waiter:wake(false)
    end
    socket:read_start(function(_, data)
      waiter:wake(data ~= nil and data:find("^INFO ") ~= nil)
    end)
  end)
  local ready = waiter:wait(runtime.now() + 1)
  socket:close()
  runtime.pause()
  return ready
end

local Server = {}
Server.__index = Server

-- A line on the standard input is a signal for the server; its end kills it, so it does not outlive this process.
local SHELL = [[
log=$1; shift
nats-server "$@" >"$log" 2>&1 </dev/null &
pid=$!
echo $pid
read -r signal || signal=KILL
kill -$signal $pid
wait $pid 2>/dev/null
]]

local function launch(self)
  local stdin, stdout = luv.new_pipe(), luv.new_pipe()
  local args = { "-c", SHELL, "sh", self.dir .. "/log", "-a", "127.0.0.1", "-p", tostring(self.port) }
  args[#args + 1] = "-c"
  args[#args + 1] = self.dir .. "/server.conf"
  local handle
  self.running, self.silent = true, false
  handle = assert(luv.spawn("sh", { args = args, env = clean_environment(), stdio = { stdin, stdout, 2 } }, function()
    self.running = false
    handle:close()
  end))
  self.stdin = stdin
  self.pid = nil
  stdout:read_start(function(_, data)
    self.pid = self.pid or tonumber(data and data:match("%d+"))
    if not data then
      self.silent = true
      stdout:close()
    end
  end)
  await(function()
    return self.pid and answers(self.port)
  end, "it did not answer")
end

--- Starts a server with JetStream.
-- @tparam[opt] table opts `config`: text for its file of settings; `scheme`: "tls"; `jetstream = false`
-- @treturn table `url`, `port`, `dir`; `kill(signal)`, `start()`, `stop()`
function M.start(opts)
  opts = opts or {}
  local self = setmetatable({ port = free_port() }, Server)
  self.dir, self.remove = shell.scratch()
  self.url = ("%s://127.0.0.1:%d"):format(opts.scheme or "nats", self.port)
  local text = "debug: true\n" .. (opts.config or "")
  if opts.jetstream ~= false then
    text = text .. ("\njetstream { store_dir: %q, max_mem: 256M, max_file: 1G }\n"):format(self.dir .. "/store")
  end
  shell.write(self.dir .. "/server.conf", text)
  launch(self)
  return self
end

--- Ends it, with SIGKILL unless told otherwise ("TERM"), and waits for that.
function Server:kill(signal)
  self.stdin:write((signal or "KILL") .. "\n")
  await(function()
    return not self.running and self.silent
  end, "it did not end")
  self.stdin:close()
  runtime.pause() -- luv cannot end a state while it closes something
end

--- Stops it without ending it, or lets it go on: "sigstop", "sigcont".
function Server:signal(name)
  assert(luv.kill(self.pid, name))
end

--- Starts it again, on the same port, with what it had stored.
function Server:start()
  launch(self)
end

--- Ends it and removes what it stored.
function Server:stop()
  if self.running then
    self:kill()
  end
  self.remove()
end

--- How many clients are connected; nil when there are none.
function Server:connections()
  local opened = select(2, self:log():gsub("Client connection created", ""))
  local closed = select(2, self:log():gsub("Client connection closed", ""))
  return opened > closed and opened - closed or nil
end

--- What it wrote.
function Server:log()
  return assert(shell.read(self.dir .. "/log"))
end

return M
