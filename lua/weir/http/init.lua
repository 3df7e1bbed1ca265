--- A small HTTP/1.1 server: for metrics, health and pages of an application.
--
--     local http = require("weir.http")
--     local server = assert(http.listen("http://127.0.0.1:8080", function(request)
--       return 200, { ["content-type"] = "text/plain" }, "you asked for " .. request.path .. "\n"
--     end))
--     print(server.url)
--
-- It listens on this machine only unless `insecure = true`, since it speaks no TLS and asks for no password. What comes
-- in is parsed strictly (`weir.http.parser`) and bounded: bytes of a head and of a body, connections, and the time that
-- each step of a slow client may take.
-- @module weir.http

local address = require("weir.http.address")
local errors = require("weir.errors")
local log = require("weir.log")
local parser = require("weir.http.parser")
local response = require("weir.http.response")
local runtime = require("weir.runtime")
local sizes = require("weir.size")
local tasks = require("weir.task")
local waitlist = require("weir.runtime.waitlist")

local M = {}

local OPTIONS = {
  insecure = "boolean",
  hosts = "table",
  log = "table",
  max_head = { "number", "string" },
  max_body = { "number", "string" },
  max_connections = "number",
  idle_timeout = "number",
  head_timeout = "number",
  body_timeout = "number",
  write_timeout = "number",
}

-- Seconds that connections may take to end after `close`, and that the answer to one too many may take.
local CLOSING, REFUSING = 5, 1

-- Responses that end with their head.
local NO_BODY = { [204] = true, [304] = true }

local Server = { __name = "weir.http.server" }
Server.__index = Server

-- --- what is answered without the handler ---------------------------------------------------------

local function is_local_name(name)
  return name == "localhost"
    or name:find("%.localhost$")
    or name:find("^%d+%.%d+%.%d+%.%d+$")
    or name:find("^%[[%x:.]+%]$")
end

-- A page elsewhere can make a browser ask this machine under a name that it has pointed here: such a name is refused
-- where only this machine is meant to ask.
local function is_foreign_host(self, request)
  local host = request.headers.host
  if not self.loopback or not host then
    return false
  end
  local name = host:lower():gsub(":%d+$", "")
  return not is_local_name(name) and not self.hosts[name]
end

-- Whether a page of another site sends something that is meant to change something.
local function is_cross_site(request)
  local origin = request.headers.origin
  if not origin or request.method == "GET" or request.method == "HEAD" then
    return false
  end
  return origin:lower():gsub("^https?://", "") ~= (request.headers.host or ""):lower()
end

local function refusal(self, request)
  if is_foreign_host(self, request) then
    return 421, "this server answers for its own machine only; name the host in the option 'hosts' to allow it\n"
  elseif is_cross_site(request) then
    return 403, "a page of another site may not do that\n"
  end
end

-- --- connections ----------------------------------------------------------------------------------

local Connection = {}
Connection.__index = Connection

local function is_iterator(value)
  if type(value) == "function" then
    return true
  end
  local meta = type(value) == "table" and getmetatable(value)
  return meta and meta.__call ~= nil
end

-- Writes; a connection whose client takes nothing is of no more use.
local function send(self, data)
  self.begun, self.written = true, runtime.now()
  local ok, err = self.bytes:write(data, self.server.write_timeout)
  if not ok then
    self.bytes:close()
  end
  return ok, err
end

-- Writes a whole response.
local function respond(self, status, headers, body, close)
  local frame = { length = #body, close = close, keep = self.asks_to_keep, time = runtime.time() }
  local head = response.head(status, headers, frame)
  return send(self, (self.head_only or NO_BODY[status]) and head or head .. body)
end

-- Says why a request is refused; after that the connection cannot go on.
local function refuse(self, status, why)
  self.head_only, self.asks_to_keep = false, false
  respond(self, status, {}, why .. "\n", true)
end

-- A client that ends its side has left, or only says that it will ask for nothing more. What is written next tells; an
-- iterator that has nothing to write waits for nobody, perhaps, and is given the time that a write has.
local function doubt(self)
  if self.doubted then
    return
  end
  self.doubted = runtime.timer(self.written + self.server.write_timeout, function()
    self.doubted = nil
    if self.streaming and runtime.now() < self.written + self.server.write_timeout then
      doubt(self)
    elseif self.streaming then
      self.task:cancel("the client is gone")
    end
  end)
end

-- Writes what an iterator gives, in chunks or, for HTTP/1.0, until the end of the connection.
local function stream(self, request, status, headers, body, close)
  local chunked = request.version == 1
  local frame = { chunked = chunked, close = close or not chunked, time = runtime.time() }
  local ok = send(self, response.head(status, headers, frame))
  if self.head_only then
    return ok and not frame.close
  end
  self.streaming = true
  if self.bytes.over then
    doubt(self)
  end
  while ok do
    local part = body()
    if part == nil then
      ok = send(self, chunked and response.LAST_CHUNK or "")
      break
    elseif type(part) ~= "string" then
      error("an iterator of a body must give strings, not a " .. type(part), 0)
    end
    ok = send(self, chunked and response.chunk(part) or part)
  end
  self.streaming = false
  return ok and not frame.close
end

local function check_result(status, headers, body)
  if type(status) ~= "number" or status < 200 or status > 599 or status % 1 ~= 0 then
    error("a handler must return a status from 200 to 599, not " .. tostring(status), 0)
  elseif headers ~= nil and type(headers) ~= "table" then
    error("the headers of a response must be a table, not a " .. type(headers), 0)
  elseif body ~= nil and type(body) ~= "string" and not is_iterator(body) then
    error("the body of a response must be a string or an iterator, not a " .. type(body), 0)
  end
  return status, headers or {}, not NO_BODY[status] and body or ""
end

local function report(self, request, err)
  local text = type(err) == "table" and tostring(err) or err
  self.server.log:error("a handler of HTTP failed", { method = request.method, path = request.path, error = text })
end

-- Answers a request. True if the connection can go on.
local function answer(self, request)
  self.head_only, self.begun = request.method == "HEAD", false
  self.asks_to_keep = request.version == 0
  local close = not request.keep_alive or self.server.closing
  local status, why = refusal(self.server, request)
  if status then
    return respond(self, status, {}, why, close) and not close
  end
  local on
  local ok, err = xpcall(function()
    local code, headers, body = check_result(self.server.handler(request))
    if type(body) == "string" then
      on = respond(self, code, headers, body, close) and not close
    else
      on = stream(self, request, code, headers, body, close)
    end
  end, function(raised)
    return type(raised) == "table" and raised or debug.traceback(tostring(raised), 2)
  end)
  self.streaming = false
  if ok then
    return on
  elseif errors.is(err, "cancelled") then
    return false
  end
  report(self, request, err)
  if not self.begun then
    respond(self, 500, {}, "the handler failed; the log of the program says why\n", true)
  end
  return false -- without its last chunk, what has been sent does not look complete
end

-- Until when the next bytes may take, and what to say when they take longer: nothing between two requests.
local function patience(self)
  local server = self.server
  if not self.parser:is_busy() then
    return self.idle_until
  elseif self.parser.state == "head" then
    self.head_until = self.head_until or runtime.now() + server.head_timeout
    return self.head_until, "the head of the request did not come in time"
  end
  -- A body may take its time as a whole, so that a client that sends byte by byte is not for ever.
  self.body_until = self.body_until or runtime.now() + server.body_timeout
  return self.body_until, "the body of the request did not come in time"
end

-- The next request; nil when the connection is over.
local function next_request(self)
  self.head_until, self.body_until = nil, nil
  self.idle_until = runtime.now() + self.server.idle_timeout
  while true do
    local request, status, why = self.parser:next()
    if request then
      return request
    elseif status then
      return refuse(self, status, why)
    elseif self.parser:wants_continue() then
      send(self, "HTTP/1.1 100 Continue\r\n\r\n")
    end
    local deadline, late = patience(self)
    self.idle = not self.parser:is_busy()
    if self.idle and self.server.closing then
      return nil
    end
    local data, err = self.bytes:read(math.max(deadline - runtime.now(), 0))
    self.idle = false
    if data then
      self.parser:feed(data)
    elseif late and errors.is(err, "timeout") then
      return refuse(self, 408, late)
    else
      return nil
    end
  end
end

local function serve(self)
  local request = next_request(self)
  while request and answer(self, request) do
    request = next_request(self)
  end
  self.bytes:finish(self.server.write_timeout)
end

local function forget(self)
  local server = self.server
  if server.connections[self] then
    server.connections[self] = nil
    server.count = server.count - 1
    if server.count == 0 then
      server.closers:wake_all()
    end
  end
end

-- Whether there is room for another connection: one that does nothing gives way, so that those who keep theirs do not
-- shut out who asks whether the program lives.
local function has_room(server)
  if server.count < server.max_connections then
    return true
  end
  local oldest
  for each in pairs(server.connections) do
    if each.idle and (not oldest or each.idle_until < oldest.idle_until) then
      oldest = each
    end
  end
  if oldest then
    forget(oldest)
    oldest.bytes:close()
  end
  return oldest ~= nil
end

local function accept(server, conn)
  local bytes = runtime.bytes(conn)
  if not bytes then
    return
  elseif server.closing then
    bytes:close()
    return
  elseif not has_room(server) then
    local text = "too many connections; try again later\n"
    local head = response.head(503, { ["retry-after"] = "1" }, { length = #text, close = true, time = runtime.time() })
    tasks.spawn(function()
      bytes:write(head .. text, REFUSING)
      bytes:finish(REFUSING)
    end)
    return
  end
  local self = setmetatable({ server = server, bytes = bytes, parser = parser.new(server) }, Connection)
  server.connections[self] = true
  server.count = server.count + 1
  self.task = tasks.spawn(function()
    local ok, err = pcall(serve, self)
    if not ok then
      bytes:close()
      if not errors.is(err, "cancelled") then
        error(err, 0)
      end
    end
  end)
  bytes.on_end = function()
    if self.streaming then
      doubt(self)
    end
  end
  bytes.on_close = function()
    forget(self)
    if self.doubted then
      self.doubted:cancel()
    end
    if self.streaming then -- nobody is left to read what the iterator would give
      self.task:cancel("the client is gone")
    end
  end
end

-- --- servers --------------------------------------------------------------------------------------

local function number_of(opts, name, default, level)
  local value = opts[name]
  if value == nil then
    return default
  elseif value ~= value or value <= 0 then
    error(("http.listen: option '%s' must be above 0, not %s"):format(name, tostring(value)), level + 1)
  end
  return value
end

local function size_of(opts, name, default, level)
  if opts[name] == nil then
    return default
  end
  local size, wrong = sizes.parse(opts[name])
  if not size then
    error(("http.listen: option '%s': %s"):format(name, tostring(wrong)), level + 1)
  end
  return size
end

local function new_server(handler, opts)
  local hosts = {}
  for _, name in ipairs(opts.hosts or {}) do
    hosts[tostring(name):lower()] = true
  end
  return setmetatable({
    handler = handler,
    hosts = hosts,
    log = opts.log or log.new(),
    max_head = size_of(opts, "max_head", 16 * 1024, 3),
    max_body = size_of(opts, "max_body", 1024 * 1024, 3),
    max_connections = number_of(opts, "max_connections", 256, 3),
    idle_timeout = number_of(opts, "idle_timeout", 60, 3),
    head_timeout = number_of(opts, "head_timeout", 10, 3),
    body_timeout = number_of(opts, "body_timeout", 60, 3),
    write_timeout = number_of(opts, "write_timeout", 30, 3),
    connections = {},
    count = 0,
    closing = false,
    closers = waitlist.new(), -- who waits until all connections have ended
  }, Server)
end

-- An error with the address as it is written for HTTP.
local function in_words_of_http(err, read)
  local whole, shown = read:gsub("%p", "%%%0"), address.shown(read):gsub("%%", "%%%%")
  return errors.with(err, { message = (err.message:gsub(whole, shown)), url = address.shown(read) })
end

--- Listens, and answers each request with what the handler returns.
--
-- `handler(request)` runs in a task of the connection and may wait. The request has `method`, `path` (decoded), `query`
-- (name to value), `headers` (lower-case names), `body` and `target` (as it came). It returns a status; headers (name
-- to value or list of values), or nil; and the body: a string, nil, or an iterator of strings, which are sent as they
-- come until it gives nil. Of `HEAD` the body is not sent. Where it raises, 500 is answered and the error logged; in
-- the middle of an iterator the connection is broken off. When the client leaves, an iterator that waits is cancelled;
-- one that only ends its side of the connection, as `nc -N` does, still gets the response.
-- @tparam string where such as "http://127.0.0.1:8080" (port 0: any), or in another form of `weir.http.address`
-- @tparam function handler
-- @tparam[opt] table options
-- @tparam[opt=false] boolean options.insecure listen on addresses that others reach, too
-- @tparam[opt] {string,...} options.hosts names, besides those of this machine, under which it may be asked
-- @param[opt] options.log a logger
-- @param[opt="16 KiB"] options.max_head of a request: its line and fields
-- @param[opt="1 MiB"] options.max_body of a request
-- @tparam[opt=256] number options.max_connections of those above, one that is idle is closed, or they are answered 503
-- @tparam[opt=60] number options.idle_timeout seconds between two requests
-- @tparam[opt=10] number options.head_timeout seconds for the head of a request
-- @tparam[opt=60] number options.body_timeout seconds for the body of a request
-- @tparam[opt=30] number options.write_timeout seconds for which a client may take nothing of a response, and for which
--   an iterator may give nothing to one that has ended its side
-- @return the server: `url` (http://..., with the real port), `close(timeout)`; or nil and an error: "in_use",
--   "insecure", "bad_url", "denied" ...
function M.listen(where, handler, options)
  if type(where) ~= "string" then
    error("http.listen: an address such as \"http://127.0.0.1:8080\" is expected, not a " .. type(where), 2)
  elseif not is_iterator(handler) then
    error("http.listen: a handler is expected, not a " .. type(handler), 2)
  end
  options = errors.options("http.listen", options, OPTIONS, 2)
  local self = new_server(handler, options)
  local read, err = address.read(where)
  if not read then
    return nil, err
  end
  local listener
  listener, err = runtime.listen(read, { insecure = options.insecure }, function(conn)
    accept(self, conn)
  end)
  if not listener then
    return nil, in_words_of_http(err, read)
  end
  self.listener = listener
  self.loopback = not options.insecure and listener.url:find("^tcp:") ~= nil
  self.url = address.shown(listener.url)
  return self
end

--- Stops listening, lets responses under way end (iterators are cancelled), and closes all connections.
-- @tparam[opt=5] number timeout
-- @treturn boolean true; false if something had to be broken off
function Server:close(timeout)
  if timeout == nil then
    timeout = CLOSING
  end
  local deadline = runtime.deadline(timeout, 2)
  if not self.closing then
    self.closing = true
    self.listener:close()
    for connection in pairs(self.connections) do
      if connection.idle or connection.streaming then
        connection.bytes:close()
      end
    end
  end
  local err
  while self.count > 0 and not err do
    local waiter, _ = runtime.waiter()
    self.closers:add(waiter)
    _, err = waiter:wait(deadline)
    self.closers:remove(waiter)
  end
  local clean = self.count == 0
  for connection in pairs(self.connections) do
    connection.task:cancel("the server is closed")
    connection.bytes:close()
  end
  return clean
end

--- Numbers of the server.
-- @treturn table `connections`
function Server:stats()
  return { connections = self.count }
end

function Server:__tostring()
  return ("weir.http.server(%s, %s)"):format(self.url, self.closing and "closed" or "open")
end

Server.__close = function(self)
  self:close()
end

--- A handler of several paths: 404 for others, 405 with `allow` for a known path and another method. `HEAD` is answered
-- as `GET` is.
-- @tparam table routes "METHOD /path" to a handler
-- @treturn function a handler for `listen`
function M.routes(routes)
  local paths = {}
  for route, handler in pairs(routes) do
    local method, path = tostring(route):match("^(%u+) (/%S*)$")
    if not method then
      error(("http.routes: a route is written \"GET /path\", unlike %q"):format(tostring(route)), 2)
    elseif not is_iterator(handler) then
      error(("http.routes: the handler of '%s' must be a function, not a %s"):format(route, type(handler)), 2)
    end
    paths[path] = paths[path] or {}
    paths[path][method] = handler
  end
  return function(request)
    local methods = paths[request.path]
    if not methods then
      return 404, nil, "nothing is here\n"
    end
    local handler = methods[request.method] or (request.method == "HEAD" and methods.GET)
    if handler then
      return handler(request)
    end
    local allowed = {}
    for method in pairs(methods) do
      allowed[#allowed + 1] = method
    end
    if methods.GET and not methods.HEAD then
      allowed[#allowed + 1] = "HEAD"
    end
    table.sort(allowed)
    return 405, { allow = table.concat(allowed, ", ") }, "this cannot be done here\n"
  end
end

M.event = response.event
M.unescape = parser.unescape

return M
