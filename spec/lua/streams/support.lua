--- What the specs of streams share: nodes that are closed at the end of a test, children, raw peers.
local support = {}
for key, value in pairs(require("spec.lua.support")) do
  support[key] = value
end

local luv = require("luv")
local shell = require("spec.house.shell")
local weir = require("weir")
local tasks = require("weir.task")

support.transports = { "mem", "unix", "tcp" }
-- Everywhere that a producer and a consumer may be: also in one node.
support.places = { "local", "mem", "unix", "tcp" }

support.quick = { initial = 0.02, factor = 1.5, max = 0.2, jitter = 0.5 }

support.sanitized = (os.getenv("LD_PRELOAD") or ""):find("asan", 1, true) ~= nil

local opened = {}
local names = 0

--- Another address to listen on.
function support.address(kind)
  names = names + 1
  if kind == "tcp" then
    return "tcp://127.0.0.1:0"
  elseif kind == "unix" then
    return "unix://" .. support.socket_path()
  end
  return ("mem://spec%d"):format(names)
end

--- A node that is closed at the end of the test; a quick backoff unless it has its own.
function support.network(opts)
  opts = opts or {}
  opts.backoff = opts.backoff or support.quick
  local node = assert(weir.network(opts))
  opened[#opened + 1] = node
  return node
end

--- Two nodes that are connected; or one, twice, where they are in one place.
function support.nodes(kind, a_opts, b_opts)
  a_opts, b_opts = a_opts or {}, b_opts or {}
  if kind == "local" then
    local node = support.network(a_opts)
    return node, node
  end
  a_opts.listen = support.address(kind)
  local a = support.network(a_opts)
  b_opts.peers = a:addresses()
  local b = support.network(b_opts)
  assert(b:wait_connected(1, 5))
  assert(a:wait_connected(1, 5))
  return a, b
end

--- A producer and a consumer that are connected to each other.
function support.stream(kind, producer_opts, consumer_opts)
  local a, b = support.nodes(kind)
  local producer = a:produce("stream", producer_opts)
  local consumer = assert(b:consumer("stream", consumer_opts, 5))
  assert(producer:when():online(5))
  return producer, consumer, a, b
end

-- Closes a handle of luv; waits for that, because luv does not like to be left before.
local function close_handle(handle)
  local closed = handle:is_closing()
  if not closed then
    handle:close(function()
      closed = true
    end)
  end
  support.eventually(function()
    return closed
  end)
end

--- Closes what the test opened.
function support.cleanup()
  local list = opened
  opened = {}
  for _, each in ipairs(list) do
    each:close(0)
  end
  collectgarbage()
end

--- Makes of busted's `it` one whose tests run as the main task of weir, with a deadline.
function support.tests(it)
  return function(name, fn)
    it(name, function()
      local ok, err = pcall(tasks.run, function()
        local done, why = weir.with_timeout(20, function()
          fn()
          return true
        end)
        assert(done, tostring(why))
      end)
      support.cleanup()
      if not ok then
        error(err, 0)
      end
    end)
  end
end

--- Receives `count` values as a list.
function support.take(consumer, count)
  local list = {}
  for i = 1, count do
    local value, err = consumer:recv(5)
    assert(value ~= nil, ("message %d of %d: %s"):format(i, count, tostring(err)))
    list[i] = value
  end
  return list
end

--- Asserts that nothing is there, now that everything that is on its way has come.
function support.silent(consumer)
  support.fails("timeout", consumer:recv(0.05))
end

--- Raises; returns the text.
function support.raises(fn, ...)
  local ok, err = pcall(fn, ...)
  assert(not ok, "an error was expected")
  return tostring(err)
end

-- --- children -----------------------------------------------------------------------------------

local Child = {}
Child.__index = Child

local function read_lines(child, pipe, name)
  local rest = ""
  pipe:read_start(function(_, data)
    if not data then
      pipe:close()
      child[name .. "_ended"] = true
      return
    end
    child[name] = child[name] .. data
    rest = rest .. data
    for line in rest:gmatch("([^\n]*)\n") do
      child.lines[#child.lines + 1] = line
    end
    rest = rest:match("[^\n]*$")
  end)
end

--- Runs the interpreter with arguments; its standard output is read by lines.
function support.interpreter(args)
  local child = setmetatable({ lines = {}, next = 1, out = "", err = "" }, Child)
  local stdin, stdout, stderr = luv.new_pipe(), luv.new_pipe(), luv.new_pipe()
  child.stdin = stdin
  child.handle, child.pid = assert(luv.spawn("lua5.4", {
    args = args,
    stdio = { stdin, stdout, stderr },
  }, function(code, signal)
    child.code, child.signal = code, signal
    child.handle:close()
    if child.path then
      os.remove(child.path)
    end
  end))
  read_lines(child, stdout, "out")
  stderr:read_start(function(_, data)
    if data then
      child.err = child.err .. data
    else
      stderr:close()
      child.err_ended = true
    end
  end)
  opened[#opened + 1] = child
  return child
end

--- Runs a program text in a process of its own.
function support.child(text, ...)
  local path = os.tmpname()
  shell.write(path, text)
  local child = support.interpreter({ path, ... })
  child.path = path
  return child
end

--- The next line that it prints; fails when there is none in time.
function Child:line(seconds)
  local ok = pcall(support.eventually, function()
    return self.lines[self.next]
  end, seconds or 10)
  assert(ok, ("the child printed no line; its errors: %s"):format(self.err))
  self.next = self.next + 1
  return self.lines[self.next - 1]
end

function Child:write(text)
  self.stdin:write(text)
end

function Child:kill(signal)
  luv.process_kill(self.handle, signal or "sigkill")
end

--- Waits for its end; returns the exit code and the signal.
function Child:wait(seconds)
  support.eventually(function()
    return self.code and self.out_ended and self.err_ended
  end, seconds or 10)
  return self.code, self.signal
end

--- Bytes of memory in use.
function Child:memory()
  for line in io.lines(("/proc/%d/status"):format(self.pid)) do
    local kib = line:match("^VmRSS:%s*(%d+)")
    if kib then
      return tonumber(kib) * 1024
    end
  end
end

function Child:close()
  if not self.code then
    self:kill()
    self:wait()
  end
  close_handle(self.stdin)
end

-- --- raw TCP peers ------------------------------------------------------------------------------

local Raw = {}
Raw.__index = Raw

--- Connects with nothing but luv.
function support.raw(url)
  local port = tonumber(url:match(":(%d+)$"))
  local raw = setmetatable({ tcp = luv.new_tcp(), received = "" }, Raw)
  raw.tcp:connect("127.0.0.1", port, function(err)
    raw.connected, raw.failed = not err, err
    if not err then
      raw:read()
    end
  end)
  support.eventually(function()
    return raw.connected or raw.failed
  end)
  assert(raw.connected, raw.failed)
  opened[#opened + 1] = raw
  return raw
end

function Raw:read()
  self.tcp:read_start(function(err, data)
    if data then
      self.received = self.received .. data
    else
      self.ended, self.error = true, err
    end
  end)
end

function Raw:stop_reading()
  self.tcp:read_stop()
end

function Raw:write(bytes)
  self.tcp:write(bytes, function(err)
    self.write_error = self.write_error or err
  end)
end

--- Waits until the other side has closed the connection.
function Raw:wait_end(seconds)
  support.eventually(function()
    return self.ended
  end, seconds)
end

function Raw:close()
  close_handle(self.tcp)
end

return support
