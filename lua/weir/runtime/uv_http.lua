--- HTTP of the libuv runtime: `runtime.http{...}` makes a client.
--
-- One request is one exchange: redirects are answers like others. See docs/runtime.md.
-- @module weir.runtime.uv_http

local errors = require("weir.errors")
local size = require("weir.size")
local waitlist = require("weir.runtime.waitlist")

local CONNECTIONS = 64
local CONNECT_TIMEOUT, IDLE_TIMEOUT = 10, 60 -- seconds
local HEAD_BYTES, HEAD_FIELDS = 64 * 1024, 256
local MOST_HEAD_BYTES = 100 * 1024 -- libcurl takes no longer line
local BODY = 64 * 1024 * 1024 -- that `res:body()` collects without being told

local client_options = {
  ca = "string",
  cert = "string",
  key = "string",
  verify = "boolean",
  proxy = { "string", "boolean" },
  http2 = "boolean",
  max_connections = "number",
  max_header_bytes = { "number", "string" },
  max_headers = "number",
  connect_timeout = "number",
  idle_timeout = "number",
}

local request_options = {
  method = "string",
  url = "string",
  headers = "table",
  body = { "string", "function" },
  timeout = "number",
  head_timeout = "number",
  idle_timeout = "number",
  idempotent = "boolean",
  decompress = "boolean",
}

-- RFC 9110, section 9.2.2.
local idempotent = { GET = true, HEAD = true, PUT = true, DELETE = true, OPTIONS = true, TRACE = true }

-- The carrier decides about these.
local framing = { ["content-length"] = true, ["transfer-encoding"] = true, connection = true }

local what = {
  bad_url = "this is not an http or https URL",
  cancelled = "the request was cancelled",
  denied = "the proxy does not let the request through: check its address and credentials",
  network = "the connection broke",
  nomem = "out of memory",
  protocol = "the answer is not HTTP",
  refused = "nobody listens there: start the server or check the address",
  timeout = "it took too long",
  tls = "no secure connection",
  too_large = "the answer is too large",
  unresolved = "the host name cannot be resolved: check its spelling and the resolver",
}

local Client = { __name = "weir.http" }
Client.__index = Client

local Response = { __name = "weir.http_response" }
Response.__index = Response

-- "name: value" for each header; raises for what would be another header, or no header.
local function header_lines(headers)
  local lines = {}
  for i, header in ipairs(headers or {}) do
    local name, value = header[1], header[2]
    if type(name) ~= "string" or not name:find("^[%w!#$%%&'*+%-.^_`|~]+$") then
      error(("request: header %d has a bad name: %s"):format(i, tostring(name)), 3)
    elseif framing[name:lower()] then
      error(("request: the header %s is not for the caller to set"):format(name), 3)
    end
    value = type(value) == "number" and tostring(value) or value
    if type(value) ~= "string" or value:find("[\r\n%z]") then
      error(("request: the value of the header %s must be a string of one line"):format(name), 3)
    end
    -- libcurl's way to write a header without a value.
    lines[i] = value:find("%S") and name .. ": " .. value or name .. ";"
  end
  return lines
end

local function failure(response, code, message, sent, system)
  local text = what[code] or code
  if message and message ~= "" and message ~= text then
    text = text .. " (" .. message .. ")"
  end
  text = ("%s %s: %s"):format(response.method, response.url, text)
  return errors.new(code, text, { url = response.url, sent = sent or false, system = system })
end

return function(runtime, loop, schedule)
  -- An error of the runtime's own, of a wait for this exchange.
  local function wait_failure(response, err)
    local _, _, _, sent = response.request:ended()
    return errors.with(err, { url = response.url, sent = sent ~= false })
  end

  -- Waits until something happens. Returns an error when it is in vain.
  local function wait(response, deadline)
    local waiting = response.waiting
    local waiter = runtime.own_waiter()
    waiting:add(waiter)
    schedule()
    local _, err = waiter:wait(deadline)
    waiting:remove(waiter)
    if err then
      if err.code == "cancelled" then
        response:close()
      end
      return wait_failure(response, err)
    end
  end

  -- Whether it is over, and the error if it did not end well.
  local function ended(response)
    local over, code, message, sent, system = response.request:ended()
    if not over then
      return false
    elseif response.broken then
      return true, errors.with(response.broken, { sent = sent ~= false, url = response.url })
    elseif code then
      return true, failure(response, code, message, sent, system)
    end
    return true
  end

  -- --- bodies that a function makes -------------------------------------------------------------

  local Upload = { __name = "weir.http_upload" }
  Upload.__index = Upload

  -- Called by the runtime when the function of the upload's task is over.
  function Upload:ended(ok, err)
    if ok and err == nil then
      return
    end
    if not errors.is(err) then
      err = errors.new("body_failed", "the function that makes the body failed: " .. tostring(err))
    end
    self.state.broken = err
    self.request:cancel()
    schedule()
  end

  -- Hands over one piece as there is room. False when the request is over.
  local function push(request, waiting, piece)
    local at = 1
    while at <= #piece do
      if request:ended() then
        return false
      end
      at = request:write(piece, at)
      schedule()
      if at <= #piece and not request:ended() then
        local waiter = runtime.own_waiter()
        waiting:add(waiter)
        waiter:wait()
        waiting:remove(waiter)
      end
    end
    return not request:ended()
  end

  local function upload(request, waiting, body)
    while true do
      local piece, err = body()
      if piece == nil and err == nil then
        break
      elseif piece == nil then
        return err
      elseif type(piece) ~= "string" then
        error("it must return strings, not " .. type(piece), 0)
      elseif not push(request, waiting, piece) then
        return
      end
      runtime.tick()
    end
    if not request:ended() then
      request:finish()
      schedule()
    end
  end

  -- --- the client -------------------------------------------------------------------------------

  -- `proxy`: nothing and false are none, true is what the environment says.
  local function proxy_of(value)
    if value == true then
      return nil
    end
    return value or ""
  end

  local function at_least(name, value, least)
    if value < least or value ~= value then
      error(("http: %s must be at least %s"):format(name, least), 3)
    end
    return value
  end

  --- Makes an HTTP client: a pool of connections with its settings.
  -- @tparam[opt] table opts `ca`, `cert`, `key` (names of PEM files, or PEM text), `verify` (true;
  --   false accepts any certificate), `proxy` (a URL; true: by the environment), `http2` (false: do not
  --   offer it), `max_connections` (64), `connect_timeout` (10), `idle_timeout` (60: seconds without a
  --   byte), `max_header_bytes` (64 KiB), `max_headers` (256)
  -- @return client with `request` and `close`
  function runtime.http(opts)
    opts = errors.options("http", opts, client_options, 2)
    local head_bytes = HEAD_BYTES
    if opts.max_header_bytes then
      local why
      head_bytes, why = size.parse(opts.max_header_bytes)
      if not head_bytes then
        error("http: max_header_bytes: " .. why, 2)
      elseif head_bytes > MOST_HEAD_BYTES then
        error("http: max_header_bytes must be at most " .. MOST_HEAD_BYTES, 2)
      end
    end
    local idle = at_least("idle_timeout", opts.idle_timeout or IDLE_TIMEOUT, 0)
    local http = loop:http({
      ca = opts.ca,
      cert = opts.cert,
      key = opts.key,
      proxy = proxy_of(opts.proxy),
      insecure = opts.verify == false,
      http2 = opts.http2 ~= false,
      max_connections = at_least("max_connections", opts.max_connections or CONNECTIONS, 1),
      max_head_bytes = head_bytes,
      max_head_fields = at_least("max_headers", opts.max_headers or HEAD_FIELDS, 1),
      connect_timeout = at_least("connect_timeout", opts.connect_timeout or CONNECT_TIMEOUT, 0),
    })
    local responses = setmetatable({}, { __mode = "k" })
    return setmetatable({ http = http, idle = idle, open = true, count = 0, responses = responses }, Client)
  end

  local function begin(client, opts, lines, waiting)
    local body = opts.body
    local method = opts.method or "GET"
    local repeatable = opts.idempotent
    if repeatable == nil then
      repeatable = idempotent[method] or false
    end
    return client.http:request(method, opts.url, lines, type(body) == "function" or body, {
      idempotent = repeatable,
      decompress = opts.decompress,
      timeout = opts.timeout,
      head_timeout = opts.head_timeout,
      idle_timeout = opts.idle_timeout or client.idle,
    }, function()
      waiting:wake_all()
    end)
  end

  --- Sends a request and waits for the head of the answer.
  -- @tparam table opts `method` ("GET"), `url`, `headers` (list of {name, value}), `body`: a string, or a
  --   function that returns the next piece, then nil, and is called in a task as the connection takes
  --   more; `timeout` for the whole exchange, `head_timeout`, `idle_timeout` in seconds; `idempotent`: it
  --   may be sent twice (by the method when left out; never with a body that a function makes);
  --   `decompress`: ask for gzip and undo it
  -- @return response with `status`, `headers` and `url`; or nil and an error, whose `sent` is false when
  --   the server cannot have seen anything of the request
  function Client:request(opts)
    opts = errors.options("request", opts, request_options, 2)
    if not self.open then
      error("request: the client is closed", 2)
    elseif not opts.url then
      error("request: the option 'url' is missing", 2)
    elseif opts.method and not opts.method:find("^[%u-]+$") then
      error("request: a method is in upper case, such as GET", 2)
    end
    local response = setmetatable({ url = opts.url, method = opts.method or "GET" }, Response)
    local busy = runtime.tick()
    if busy then
      return nil, errors.with(busy, { url = opts.url, sent = false })
    end
    response.waiting = waitlist.new()
    local request, code = begin(self, opts, header_lines(opts.headers), response.waiting)
    if not request then
      return nil, failure(response, code)
    end
    self.count = self.count + 1
    self.responses[response] = true
    response.request = request
    if type(opts.body) == "function" then
      local task = setmetatable({ request = request, state = response }, Upload)
      runtime.start(task, upload, request, response.waiting, opts.body)
    end
    return response:await_head()
  end

  --- Ends all requests with the error "cancelled" and closes the connections.
  function Client:close()
    if self.open then
      self.open = false
      self.http:close()
      for response in pairs(self.responses) do
        response.waiting:wake_all()
      end
      schedule()
    end
  end

  --- Numbers: requests in progress (`active`) and begun (`requests`).
  function Client:stats()
    return { active = self.http:active(), requests = self.count }
  end

  function Client:__tostring()
    return ("weir.http(%s)"):format(self.open and ("open, %d active"):format(self.http:active()) or "closed")
  end

  Client.__close = Client.close

  -- --- answers ----------------------------------------------------------------------------------

  function Response:await_head()
    local request = self.request
    while true do
      local status = request:status()
      if status then
        self.status = status
        self.headers = {}
        local head = request:head()
        for i = 1, #head, 2 do
          self.headers[#self.headers + 1] = { head[i], head[i + 1] }
        end
        return self
      end
      local over, err = ended(self)
      if not over then
        err = wait(self)
        if err then
          request:cancel()
          schedule()
        end
      end
      if err then
        return nil, err
      end
    end
  end

  --- The value of the first header of that name, in whatever case; or nil.
  function Response:header(name)
    name = name:lower()
    for _, header in ipairs(self.headers) do
      if header[1]:lower() == name then
        return header[2]
      end
    end
  end

  --- Waits for bytes of the body and returns what there is. While nobody reads, the connection is not
  -- read either, once 256 KiB wait.
  -- @tparam[opt] number timeout in seconds; the request goes on when it is over
  -- @treturn ?string a piece; nil at the end; nil and an error
  function Response:read(timeout)
    local request = self.request
    local deadline = runtime.deadline(timeout, 2)
    local busy = runtime.tick()
    if busy then
      self:close()
      return nil, wait_failure(self, busy)
    end
    while not self.closed do
      local piece = request:take()
      if piece then
        schedule()
        return piece
      end
      local over, err = ended(self)
      if over then
        return nil, err
      end
      err = wait(self, deadline)
      if err then
        return nil, err
      end
    end
    return nil, failure(self, "cancelled", "the response was closed", true)
  end

  --- Reads the rest of the body.
  -- @tparam[opt] ?number|string limit bytes, or such as "1 MiB" (64 MiB)
  -- @treturn ?string or nil and an error: "too_large" among them, and the response is closed then
  function Response:body(limit)
    local most, why = size.parse(limit or BODY)
    if not most then
      error("body: " .. why, 2)
    end
    local parts, total = {}, 0
    while true do
      local piece, err = self:read()
      if not piece then
        if err then
          return nil, err
        end
        return table.concat(parts)
      end
      total = total + #piece
      if total > most then
        self:close()
        return nil, failure(self, "too_large", ("the body has more than %d bytes"):format(most), true)
      end
      parts[#parts + 1] = piece
    end
  end

  --- Ends the exchange. The connection can serve another request only if all of it had come.
  function Response:close()
    if not self.closed then
      self.closed = true
      self.request:cancel()
      self.waiting:wake_all()
      schedule()
    end
  end

  function Response:__tostring()
    local state = self.closed and "closed" or self.request:ended() and "ended" or "open"
    return ("weir.http_response(%s %s, %s, %s)"):format(self.method, self.url, self.status or "no head", state)
  end

  Response.__close = Response.close
end
