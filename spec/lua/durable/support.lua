--- The reference server, and a server of scripted answers, for the specs of the durable-stream client.
local busted = require("busted") -- whose globals are those of spec files alone
local clean_environment = require("spec.environment")
local durable = require("weir.durable")
local luv = require("luv")
local peers = require("spec.lua.peers")
local runtime = require("weir.runtime")
local support = require("spec.lua.support")
local tasks = require("weir.task")

local M = {}

local SERVER = "spec/conformance/durable/server.mjs"

local function exists(path)
  local file = io.open(path)
  return file and file:close()
end

--- Whether the reference server can be started here.
function M.available()
  return exists("spec/conformance/durable/node_modules/@durable-streams/server/package.json")
end

local function await(check, seconds)
  local deadline = runtime.now() + (seconds or 20)
  while not check() do
    if runtime.now() > deadline then
      error("it did not happen in time", 3)
    end
    tasks.sleep(0.002)
  end
end

M.await = await

local Server = {}
Server.__index = Server

--- Starts the reference server; it ends with this process.
-- @tparam[opt] table opts `dir`: keep streams in files there; `port`; `long_poll` in milliseconds (500);
--   `keep_alive`: milliseconds after which it closes an idle connection (5000);
--   `quiet`: what it says of requests that are broken off is not shown
-- @treturn table `url`, `port`; `stop(signal)`
function M.server(opts)
  opts = opts or {}
  local args = { SERVER, "--long-poll", tostring(opts.long_poll or 500) }
  for name, option in pairs({ dir = "--dir", port = "--port", keep_alive = "--keep-alive" }) do
    if opts[name] then
      args[#args + 1] = option
      args[#args + 1] = tostring(opts[name])
    end
  end
  local stdin, stdout = luv.new_pipe(), luv.new_pipe()
  local self = setmetatable({ text = "", stdin = stdin, stdout = stdout }, Server)
  local stdio = { stdin, stdout, not opts.quiet and 2 or nil }
  local pid
  self.handle, pid = luv.spawn("node", { args = args, env = clean_environment(), stdio = stdio }, function()
    self.ended = true
  end)
  assert(self.handle, pid)
  stdout:read_start(function(_, data)
    self.text = self.text .. (data or "")
  end)
  await(function()
    self.url = self.text:match("listening (http://%S+)")
    return self.url or self.ended
  end)
  self.port = tonumber(assert(self.url, "the reference server did not start"):match(":(%d+)$"))
  return self
end

function Server:stop(signal)
  if not self.ended then
    self.handle:kill(signal or "sigkill")
  end
  await(function()
    return self.ended
  end)
  for _, handle in ipairs({ self.handle, self.stdin, self.stdout }) do
    handle:close()
  end
  runtime.pause() -- luv's own end of a state cannot finish with them
end

--- Whether the reference server and these programs are installed; else the block of specs is pending, and should end.
function M.installed(...)
  local missing = not M.available() and "the reference server" or peers.missing(...)
  if missing then
    busted.pending(missing .. " is not installed: spec/setup test")
  end
  return not missing
end

--- Gives a block of specs a client of the reference server, and that server.
-- @tparam function set called with both before the first of them
-- @tparam[opt] table opts of the server
-- @treturn boolean whether it is installed; else the block is pending and should end
function M.reference(set, opts)
  if not M.installed() then
    return false
  end
  local server, client
  busted.setup(function()
    server = M.server(opts)
    client = durable.client({ base_url = server.url })
    set(client, server)
  end)
  busted.teardown(function()
    client:close()
    server:stop()
  end)
  return true
end

local paths = 0

--- A path that no stream has had.
function M.path()
  paths = paths + 1
  return ("/spec-%d-%d"):format(os.time(), paths)
end

--- A new stream of the client's, with `data` in it if there is any.
function M.stream(client, content_type, data)
  local stream = client:stream(M.path(), { content_type = content_type })
  assert(stream:create({ data = data }))
  return stream
end

--- Calls fn(...), and closes these things in turn, even if it raises.
function M.closing(things, fn, ...)
  local ok, err = pcall(fn, ...)
  for _, thing in ipairs(things) do
    thing:close()
  end
  assert(ok, err)
end

-- --- a server of scripted answers ---------------------------------------------------------------

local Script = {}
Script.__index = Script

-- Keeps SIGPIPE, which luv's writes to a broken connection raise, from ending the process.
local function survive_sigpipe()
  local signal = luv.new_signal()
  signal:start("sigpipe", function() end)
  signal:unref()
  return signal
end

-- The first request in `text`, and what is behind it; nil when it is not complete.
local function cut_request(text)
  local head, rest = text:match("^(.-\r\n)\r\n(.*)$")
  if not head then
    return nil
  end
  local request = { head = head, headers = {} }
  request.method, request.target = head:match("^(%S+) (%S+)")
  for name, value in head:gmatch("\r?\n([^:\r\n]+):%s*([^\r\n]*)") do
    request.headers[name:lower()] = value
  end
  if request.headers["transfer-encoding"] then
    local ends = rest:find("\r\n0\r\n\r\n", 1, true) or (rest:sub(1, 5) == "0\r\n\r\n" and -1)
    if not ends then
      return nil
    end
    request.body = rest
    return request, ""
  end
  local length = tonumber(request.headers["content-length"] or 0)
  if #rest < length then
    return nil
  end
  request.body = rest:sub(1, length)
  return request, rest:sub(length + 1)
end

--- Writes an answer.
-- @tparam number status
-- @tparam[opt] table headers list of {name, value}
-- @tparam[opt] string body
function M.answer(status, headers, body)
  local lines = { ("HTTP/1.1 %d X"):format(status) }
  for _, pair in ipairs(headers or {}) do
    lines[#lines + 1] = pair[1] .. ": " .. pair[2]
  end
  if status ~= 204 and status ~= 304 then
    lines[#lines + 1] = "Content-Length: " .. #(body or "")
  end
  return table.concat(lines, "\r\n") .. "\r\n\r\n" .. (body or "")
end

--- A server on a loopback port that answers each request with what `handle(request, conn)` returns: the
-- bytes of an answer; "reset": the connection is broken off; nil: nothing.
-- @treturn table `url`, `requests` (list), `close()`
function M.script(handle)
  local listener = luv.new_tcp()
  local self = setmetatable({ listener = listener, requests = {}, conns = {}, signal = survive_sigpipe() }, Script)
  assert(listener:bind("127.0.0.1", 0))
  listener:listen(64, function()
    local conn, text = luv.new_tcp(), ""
    listener:accept(conn)
    self.conns[conn] = true
    conn:read_start(function(err, data)
      if err or not data then
        self.conns[conn] = nil
        return not conn:is_closing() and conn:close()
      end
      text = text .. data
      while true do
        local request, rest = cut_request(text)
        if not request then
          return
        end
        text = rest
        self.requests[#self.requests + 1] = request
        local answer = handle(request, conn, #self.requests)
        if answer == "reset" then
          self.conns[conn] = nil
          conn:close_reset()
          return
        elseif answer then
          conn:write(answer)
        end
      end
    end)
  end)
  self.port = listener:getsockname().port
  self.url = "http://127.0.0.1:" .. self.port
  return self
end

--- The body of a test: fn(client, script) in a task, with a script and a client of it.
-- @tparam function handle of the script
-- @tparam function fn
-- @tparam[opt] table opts of the client
function M.scripted(handle, fn, opts)
  return support.in_task(function()
    local script = M.script(handle)
    opts = opts or {}
    opts.base_url = script.url
    opts.retry = opts.retry or { initial = 0.001, max = 0.01, max_retries = 5 }
    local client = durable.client(opts)
    M.closing({ client, script }, fn, client, script)
  end)
end

-- Sends the request to the real server, and calls done(answer) with all that it answers.
local function forward(server, request, done)
  local conn, parts = luv.new_tcp(), {}
  conn:connect("127.0.0.1", server.port, function(failed)
    if failed then
      conn:close()
      return done(nil)
    end
    conn:write(request.head .. "Connection: close\r\n\r\n" .. request.body)
    conn:read_start(function(err, data)
      parts[#parts + 1] = data
      if err or not data then
        conn:close()
        done(table.concat(parts))
      end
    end)
  end)
end

local function reset(conn)
  if not conn:is_closing() then
    conn:close_reset()
  end
end

--- A proxy in front of the reference server that has faults.
-- @tparam table server
-- @tparam function fault called with each request and its number: nil, "503" or another status (not passed on),
--   "before" (broken off before it is passed on), "after" (passed on, and broken off before the answer), "half" (in
--   the middle of the answer), "stall" (passed on, and never answered); and a function that is called just before it
--   is broken off
function M.proxy(server, fault)
  return M.script(function(request, conn, n)
    local what, hook = fault(request, n)
    local status = what and tonumber(what)
    if status then
      return M.answer(status)
    elseif what == "before" then
      if hook then hook() end
      return "reset"
    end
    forward(server, request, function(answer)
      if not answer or what == "after" then
        if hook then hook() end
        reset(conn)
      elseif what == "half" then
        conn:write(answer:sub(1, #answer // 2), function()
          reset(conn)
        end)
      elseif what ~= "stall" and not conn:is_closing() then
        conn:write(answer, function()
          if not conn:is_closing() then
            conn:close()
          end
        end)
      end
    end)
  end)
end

-- Passes on what `from` sends, up to `limit` bytes; then calls spent().
local function pass(from, to, limit, spent)
  local left = limit or math.huge
  from:read_start(function(err, data)
    if to:is_closing() then
      return
    elseif err or not data then
      to:close()
      return not from:is_closing() and from:close()
    elseif #data <= left then
      left = left - #data
      to:write(data)
      return
    end
    from:read_stop()
    to:write(data:sub(1, left), spent)
    left = 0
  end)
end

--- A tunnel to the reference server that knows nothing of HTTP.
-- @tparam table server
-- @tparam function plan called with the number of each connection: nil, or `up` and `down`: how many bytes go
--   through it in either direction; `stall`: nothing more comes then, instead of a broken connection
-- @treturn table `url`, `connections` (how many there were), `close()`
function M.tunnel(server, plan)
  local listener = luv.new_tcp()
  local self = setmetatable({ listener = listener, conns = {}, connections = 0, signal = survive_sigpipe() }, Script)
  assert(listener:bind("127.0.0.1", 0))
  listener:listen(64, function()
    local near, far = luv.new_tcp(), luv.new_tcp()
    listener:accept(near)
    self.conns[near], self.conns[far] = true, true
    self.connections = self.connections + 1
    local limits = plan(self.connections) or {}
    local function spent()
      if limits.stall then
        if not near:is_closing() then near:read_stop() end
        if not far:is_closing() then far:read_stop() end
        return
      end
      reset(near)
      reset(far)
    end
    near:nodelay(true)
    far:nodelay(true)
    far:connect("127.0.0.1", server.port, function(failed)
      if failed or near:is_closing() then
        reset(far)
        return reset(near)
      end
      pass(near, far, limits.up, spent)
      pass(far, near, limits.down, spent)
    end)
  end)
  self.port = listener:getsockname().port
  self.url = "http://127.0.0.1:" .. self.port
  return self
end

function Script:close()
  for conn in pairs(self.conns) do
    if not conn:is_closing() then
      conn:close()
    end
  end
  self.listener:close()
  self.signal:close()
  runtime.pause()
end

return M
