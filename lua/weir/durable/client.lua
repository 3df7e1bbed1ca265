--- A client: the settings that its streams share, and the requests that they make.
-- @module weir.durable.client

local cache = require("weir.durable.cache")
local core = require("weir.core")
local derrors = require("weir.durable.errors")
local errors = require("weir.errors")
local options = require("weir.durable.options")
local random = require("weir.durable.random")
local runtime = require("weir.runtime")
local tasks = require("weir.task")
local urls = require("weir.durable.url")

local M = {}

local Client = { __name = "weir.durable.client" }
Client.__index = Client

local MAX_REDIRECTS = 5
local MAX_REFRESHES = 3 -- how often on_error may have one operation tried again
local TIMEOUT = 30
local CACHE = 4 * 1024 * 1024
local ERROR_BODY = 4096 -- bytes of a failure's body that are looked at
local ANSWER_BODY = 65536

local OPTIONS = {
  base_url = "string",
  headers = "table",
  params = "table",
  timeout = "number",
  idle_timeout = "number",
  connect_timeout = "number",
  retry = "table",
  on_error = "function",
  on_attempt = "function",
  tls = "table",
  proxy = "string",
  http2 = "boolean",
  pool = "number",
  cache = { "number", "string" },
}

--- The names of options, and the types of their values.
M.OPTIONS = OPTIONS

local TLS = { ca = "string", cert = "string", key = "string", verify = "boolean" }

-- Raises unless names of streams can be appended to it; blames the caller of new().
local function check_base(text)
  local url, err
  if text then
    url, err = urls.parse(text)
  end
  if err then
    error("durable.client: option 'base_url': " .. err.message, 3)
  elseif url and #url.query > 0 then
    error("durable.client: option 'base_url' must not have a query; use the option 'params'", 3)
  end
end

--- Makes a client. Nothing is sent until a stream is used.
-- @tparam ?table opts
-- @tparam[opt] string opts.base_url what the names of streams are appended to
-- @tparam[opt] table opts.headers name to value, or to a function that is called for each request
-- @tparam[opt] table opts.params the same for query parameters
-- @tparam[opt=30] number opts.timeout seconds for one operation with its repetitions; reads have their own
-- @tparam[opt=60] number opts.idle_timeout seconds without a byte after which a connection is given up
-- @tparam[opt=10] number opts.connect_timeout
-- @tparam[opt] table opts.retry `max_retries` (no bound), `initial` (0.1 s), `max` (60 s), `multiplier` (1.3),
--   `floor_max` (3600 s: the longest Retry-After that is obeyed)
-- @tparam[opt] function opts.on_error called with the error of a request that failed for good; a table
--   `{headers=, params=}` that it returns is added to the request, and it is tried again (three times at most)
-- @tparam[opt] function opts.on_attempt called after each attempt of each request, also of those that are repeated:
--   with nil, or with an error when the server could not be asked or was not able to answer; it must not wait
-- @tparam[opt] table opts.tls `ca`, `cert`, `key` (files), `verify` (true)
-- @tparam[opt] string opts.proxy URL
-- @tparam[opt=true] boolean opts.http2
-- @tparam[opt=64] number opts.pool connections at most
-- @tparam[opt="4 MiB"] number|string opts.cache of catch-up reads, for If-None-Match; 0: none
-- @treturn client
function M.new(opts)
  opts = errors.options("durable.client", opts, OPTIONS, 2)
  errors.options("durable.client: option 'tls'", opts.tls, TLS, 2)
  check_base(opts.base_url)
  options.pairs("durable.client", "headers", opts.headers, 3)
  options.pairs("durable.client", "params", opts.params, 3)
  options.count("durable.client", "pool", opts.pool, 1, 3)
  options.seconds("durable.client", "connect_timeout", opts.connect_timeout, 3)
  options.seconds("durable.client", "idle_timeout", opts.idle_timeout, 3)
  local timeout = opts.timeout or TIMEOUT
  runtime.deadline(timeout, 2)
  return setmetatable({
    base_url = opts.base_url,
    headers = opts.headers or {},
    params = opts.params or {},
    timeout = timeout,
    retry = options.retry("durable.client", opts.retry, 3),
    on_error = opts.on_error,
    on_attempt = opts.on_attempt,
    opts = opts,
    cache = cache.new(options.size("durable.client", "cache", opts.cache, CACHE, 3)),
    closed = false,
  }, Client)
end

--- A stream of this client. Nothing is sent.
-- @tparam string url absolute, or what to append to `base_url`
-- @tparam ?table opts see `weir.durable.stream`
-- @treturn stream
function Client:stream(url, opts)
  local stream = require("weir.durable.stream").new(self, url, opts, 2) -- no tail call: its level counts
  return stream
end

--- Closes its connections; what is under way on them fails.
function Client:close()
  self.closed = true
  if self.http then
    self.http:close()
    self.http = nil
  end
end

function Client:__tostring()
  return ("weir.durable.client(%s)"):format(self.base_url or "")
end

local function carrier(self)
  if self.closed then
    return nil, errors.new("cancelled", "the client was closed")
  end
  if not self.http then
    local opts = self.opts
    local tls = opts.tls or {}
    self.http = runtime.http({
      ca = tls.ca,
      cert = tls.cert,
      key = tls.key,
      verify = tls.verify,
      proxy = opts.proxy,
      http2 = opts.http2,
      max_connections = opts.pool,
      connect_timeout = opts.connect_timeout,
      idle_timeout = opts.idle_timeout,
    })
  end
  return self.http
end

-- --- one exchange -------------------------------------------------------------------------------

-- Everything that belongs to one sending: the URL, and two sets of headers, those of the protocol and
-- those of the user, which do not go to another origin.
local function compose(self, request)
  local url, err = urls.parse(request.url)
  if not url then
    return nil, err
  end
  local params = options.evaluate({}, self.params)
  options.evaluate(params, request.user_params)
  options.evaluate(params, request.extra and request.extra.params)
  for name, value in pairs(request.params or {}) do
    params[name] = value
  end
  local own = options.evaluate({}, self.headers, true)
  options.evaluate(own, request.user_headers, true)
  options.evaluate(own, request.extra and request.extra.headers, true)
  for name in pairs(request.headers) do
    own[name:lower()] = nil
  end
  return { url = url, text = urls.format(url, params), own = own }
end

local function header_list(request, composed)
  local list = {}
  for name, value in pairs(request.headers) do
    list[#list + 1] = { name, value }
  end
  for _, pair in pairs(composed.own) do
    list[#list + 1] = pair
  end
  -- Compressed only if the user wants it so.
  if request.method == "GET" and not composed.own["accept-encoding"] then
    list[#list + 1] = { "Accept-Encoding", "identity" }
  end
  table.sort(list, function(a, b)
    return a[1] < b[1]
  end)
  return list
end

local REDIRECTS = { [301] = true, [302] = true, [303] = true, [307] = true, [308] = true }

local function redirect_error(text, detail)
  return derrors.make("server_error", "redirect of", { url = text, detail = detail })
end

-- Where an answer sends us: changes `composed`, or returns an error.
local function redirect(request, composed, res)
  local location = res:header("location")
  if res.status == 303 and request.method ~= "GET" and request.method ~= "HEAD" then
    return nil, redirect_error(composed.text, "a 303 would lose the data")
  elseif type(request.body) == "function" then
    return nil, redirect_error(composed.text, "a body that is produced on the way cannot be sent again")
  end
  local target = urls.resolve(composed.url, location)
  local url, err = urls.parse(target)
  if not url then
    return nil, redirect_error(composed.text, err.message)
  elseif composed.url.scheme == "https" and url.scheme == "http" then
    return nil, redirect_error(composed.text, "from https to http")
  end
  if url.origin ~= composed.url.origin then
    composed.own = {}
  end
  composed.url, composed.text = url, urls.format(url)
  return true
end

local function remaining(deadline)
  if not deadline then
    return nil
  end
  local left = deadline - runtime.now()
  return left > 0 and left or 0
end

-- By the protocol, whatever the method is. What may fail because it was done already is repeated by
-- perform(), which knows of that, and not by the carrier.
local IDEMPOTENT = { produce = true, close = true, append_seq = false, append = false, delete = false }

-- Sends a request, and follows where it is sent on to. The response, its head being there; or nil and an error.
local function send(self, request, deadline)
  local composed, err = compose(self, request)
  if not composed then
    return nil, err
  end
  request.sent_url = composed.text
  for _ = 0, MAX_REDIRECTS do
    local http, res
    http, err = carrier(self)
    if not http then
      return nil, err
    end
    res, err = http:request({
      method = request.method,
      url = composed.text,
      headers = header_list(request, composed),
      body = request.body,
      idempotent = IDEMPOTENT[request.kind],
      decompress = request.method == "GET", -- whoever has compressed it, asked or not
      timeout = remaining(deadline),
    })
    if not res then
      return nil, err
    elseif not REDIRECTS[res.status] or not res:header("location") then
      return res
    end
    local ok
    ok, err = redirect(request, composed, res)
    res:close()
    if not ok then
      return nil, err
    end
    request.sent_url = composed.text
  end
  return nil, redirect_error(composed.text, ("more than %d times"):format(MAX_REDIRECTS))
end

-- Errors that no repetition mends.
local FINAL = {
  bad_url = true, denied = true, tls = true, too_large = true, cancelled = true, server_error = true, deadlock = true,
  body_failed = true, nomem = true,
}
-- Of these, those that are ours already, or the caller's.
local AS_THEY_ARE = { cancelled = true, server_error = true, deadlock = true, body_failed = true }

--- What an error of the carrier is to the machines: "not_sent", "lost" or "timed_out"; nil for one that
-- no repetition mends.
function M.transport(err)
  if FINAL[err.code] then
    return nil
  elseif err.sent == false then
    return "not_sent"
  end
  return err.code == "timeout" and "timed_out" or "lost"
end

-- The same as an error of ours.
local function final_error(what, err, url)
  if AS_THEY_ARE[err.code] then
    return err
  end
  local code = err.code == "too_large" and "too_large" or "network"
  return derrors.make(code, what, { url = url, detail = err.message, cause = err })
end

-- Tells `on_attempt`. An answer that says no, such as 404, is one: the server works.
local function tell(self, request, res, err, outcome)
  local trouble = nil
  if not res then
    trouble = err
  elseif outcome == "retry" or res.status >= 500 then
    local message = ("%s: the server answered with the status %d"):format(request.what, res.status)
    trouble = errors.new(res.code or "server_error", message, { status = res.status })
  end
  self.on_attempt(trouble)
end

--- One request without a repetition, but for `on_error`. Blocks until the head of the answer is there.
-- @tparam table request `kind`, `method`, `url`, `headers` (of the protocol), `params`, `user_headers`,
--   `user_params`, `body`, `what` (for messages); `sent_url` is set
-- @tparam[opt] number deadline
-- @return the response, with `outcome`, `code` and `fields`; or nil, an error, the transport's name (nil
--   when no repetition mends it), outcome and code
function Client:exchange(request, deadline)
  local refreshes = 0
  while true do
    local res, err = send(self, request, deadline)
    local transport, outcome, code, fields
    if res then
      transport = "answered"
      outcome, code, fields = core.durable_verdict(request.kind, "answered", res.status, res.headers, runtime.time())
      res.outcome, res.code, res.fields = outcome, code, fields or {}
    else
      transport = M.transport(err)
      if not transport then
        err = final_error(request.what, err, request.sent_url or request.url)
      else
        outcome, code = core.durable_verdict(request.kind, transport)
        -- The machines need not know why nothing was sent, but people do.
        code = err.code == "timeout" and "timeout" or code
      end
    end
    local again
    local final = outcome == "failed" or (not res and not transport)
    if self.on_error and final and refreshes < MAX_REFRESHES then
      local known = res and self:error_of(request, res) or err
      again = known.code ~= "cancelled" and type(request.body) ~= "function" and self.on_error(known)
    end
    if self.on_attempt then
      tell(self, request, res, err, outcome)
    end
    if not again then
      return res, err, transport, outcome, code
    end
    if res then
      res:close()
    end
    request.extra = type(again) == "table" and again or nil
    refreshes = refreshes + 1
  end
end

--- As `exchange`, for tasks that nobody joins: an error that a function of the user raised (a header's, or
-- `on_error`) is returned with the code "callback_failed".
function Client:try_exchange(request, deadline)
  local ok, res, err, transport, outcome, code = pcall(self.exchange, self, request, deadline)
  if ok then
    return res, err, transport, outcome, code
  end
  return nil, errors.is(res) and res or errors.new("callback_failed", tostring(res), { url = request.url })
end

--- The error that a response stands for. Reads from its body what the server says.
function Client.error_of(_, request, res, context)
  if res.made_error then
    return res.made_error
  end
  local fields = res.fields
  local all = {
    url = request.sent_url,
    status = res.status,
    offset = fields.next_offset,
    epoch = fields.producer_epoch,
    sequence = fields.producer_seq,
    expected_seq = fields.expected_seq,
    received_seq = fields.received_seq,
  }
  if request.method ~= "HEAD" and not res.detail then
    res.detail = derrors.detail(res:body(ERROR_BODY))
  end
  all.detail = res.detail
  for name, value in pairs(context or {}) do
    all[name] = value
  end
  res.made_error = derrors.make(res.code or "server_error", request.what, all)
  return res.made_error
end

-- --- operations ---------------------------------------------------------------------------------

-- Waits before the next attempt. False when there is none.
local function wait_again(retry, deadline, retry_after)
  local now = runtime.now()
  local at = retry:next(now, random(), retry_after)
  if not at or (deadline and at >= deadline) then
    return false
  end
  return tasks.sleep(at > now and at - now or 0)
end

--- An operation that is done in one request, repeated as the protocol and the client's settings allow.
-- @tparam table request as for `exchange`, with `at_least_once`, `timeout`; `once`: it is not repeated
-- @return the response, its body behind it; or nil and an error
function Client:perform(request)
  local retry = core.durable_retry(self.retry)
  local deadline = runtime.deadline(request.timeout or self.timeout, 3)
  local retries, lost = 0, false
  while true do
    local res, err, transport, outcome, code = self:exchange(request, deadline)
    if not res and not transport then
      err = errors.with(err, { retries = retries })
      return nil, err
    elseif outcome == "ok" then
      res:body(ANSWER_BODY) -- so that the connection can be used again; the head has said it all
      res:close()
      return res
    end
    local context = { retries = retries, unknown = outcome == "unknown" or nil }
    if res then
      res.made_error = nil
      err = self:error_of(request, res, context)
      res:close()
    else
      context.url, context.detail, context.cause = request.sent_url, err.message, err
      err = derrors.make(code, request.what, context)
    end
    err.lost_before = lost or nil
    lost = lost or transport == "lost" or transport == "timed_out" or (res and res.fields.ambiguous) or false
    local repeatable = outcome == "retry" or (outcome == "unknown" and request.at_least_once)
    if not repeatable or request.once or type(request.body) == "function" then
      return nil, err
    end
    local ok, cancelled = wait_again(retry, deadline, res and res.fields.retry_after)
    if cancelled then
      return nil, cancelled
    elseif not ok then
      return nil, err
    end
    retries = retries + 1
  end
end

return M
