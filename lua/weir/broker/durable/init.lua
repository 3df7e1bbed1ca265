--- Durable Streams as a broker: each destination is a stream of JSON on a server of the Durable Streams protocol.
--
--     local durable = require "weir.broker.durable"
--     local broker = durable.new({ url = "http://127.0.0.1:4437/events", checkpoints = "/var/lib/orders" })
--
-- Publishing is exactly once, through a producer for each stream. A consumer reads on from its position, which is
-- saved as messages are acknowledged: what is not acknowledged comes again after a restart. Every consumer gets every
-- message of its streams; there are no competing consumers, no patterns, no requests and no transactions.
-- @module weir.broker.durable

local checkpoint = require("weir.broker.durable.checkpoint")
local clocks = require("weir.clock")
local contract = require("weir.broker.contract")
local durable_client = require("weir.durable.client")
local envelope = require("weir.broker.durable.envelope")
local errors = require("weir.errors")
local new_state = require("weir.broker.state")
local publishers = require("weir.broker.durable.publisher")
local size = require("weir.size")
local subscriptions = require("weir.broker.durable.subscription")

local durable = {}

local Broker = { __name = "weir.broker.durable", kind = "durable" }
Broker.__index = Broker

-- For `weir conformance`: a group is a consumer, and every consumer is durable.
Broker.conformance = {
  shared = false, -- another connection has no part in the positions of this one
  descriptor = function(name, wanted)
    return not wanted.ack_wait and { name = name, consumer = wanted.group, prefetch = wanted.prefetch } or nil
  end,
}

local OPTIONS = {
  url = "string",
  checkpoints = { "string", "table" },
  consumer = "string",
  create = "boolean",
  from = "string",
  live = "string",
  max_payload = { "number", "string" },
  prefetch = "number",
  producer_id = "string",
  timeout = "number",
  headers = "table",
  params = "table",
  retry = "table",
  tls = "table",
  proxy = "string",
  http2 = "boolean",
  clock = "table",
}

local DESCRIPTOR = { name = "string", consumer = "string", from = "string", live = "string", prefetch = "number" }

local LIVE = { ["long-poll"] = true, sse = true, auto = true }
local MAX_PAYLOAD = 8 * 1024 * 1024
-- Live readers hold a connection each.
local POOL = 1024

local CAPABILITIES = {
  ack = true,
  requeue = true,
  delay = true,
  attempts = true,
  extend = true,
  confirm = true,
  batch = true,
  key = true,
  seek = true,
  persist = true,
  browse = true,
  pause = true,
}

-- "durable+http://host/path" is "http://host/path".
local function address(url)
  local plain = url:gsub("^durable%+", ""):gsub("/+$", "")
  if not plain:find("^https?://[^/]") then
    return nil, ("'%s' is no address of a server, such as http://127.0.0.1:4437/events"):format(url)
  end
  return plain
end

--- Makes a broker. Nothing is sent before `connect`.
-- @tparam table options
--
-- - `url`: of the server, and the path under which the streams are; "durable+http://..." is as good
-- - `checkpoints`: a directory where positions are kept, or a store with `load(key)` and `save(key, text)`. Without it
--   they are kept in memory, and each start of the program begins at `from`
-- - `consumer`: the name under which positions are kept ("weir"); `from`: "start" (the default), "now" or a position,
--   for a consumer without one; `prefetch`: messages that are read and not settled, at most (1000); `live`: "auto",
--   "sse" or "long-poll": defaults of the descriptors
-- - `create`: false to leave streams that do not exist alone
-- - `producer_id`: random when left out; with a name that stays, a new process takes over from an old one, which is
--   then refused
-- - `max_payload`: "8 MiB"; `timeout`: seconds to confirm a publish, and for other requests (30)
-- - `headers`, `params`, `retry`, `tls`, `proxy`, `http2`: as for `weir.durable.client`
-- @treturn broker
function durable.new(options)
  options = errors.options("weir.broker.durable", options, OPTIONS, 2)
  local url, wrong = address(options.url or "")
  if not url then
    error("weir.broker.durable: option 'url': " .. wrong, 2)
  end
  local max_payload
  max_payload, wrong = size.parse(options.max_payload or MAX_PAYLOAD)
  if not max_payload then
    error("weir.broker.durable: option 'max_payload': " .. wrong, 2)
  end
  local self = setmetatable({
    url = url,
    options = options,
    clock = options.clock or clocks,
    max_payload = max_payload,
    status = new_state(),
    subscriptions = {}, -- a set
    consumers = {}, -- keys of the positions that they have, or are about to; a set
    created = {},
    producer_serial = 0,
  }, Broker)
  self.client = durable_client.new({
    base_url = url,
    headers = options.headers,
    params = options.params,
    timeout = options.timeout,
    retry = options.retry,
    tls = options.tls,
    proxy = options.proxy,
    http2 = options.http2,
    pool = POOL,
    cache = 0,
    on_attempt = function(err)
      self:note(err)
    end,
  })
  return self
end

--- A stream, with options for the subscription.
-- @tparam string name
-- @tparam[opt] table options `consumer`, `from`, `live`, `prefetch`: see `new`
-- @treturn table a descriptor
function durable.stream(name, options)
  local spec = { name = name }
  for key, value in pairs(options or {}) do
    spec[key] = value
  end
  return spec
end

-- --- the contract -------------------------------------------------------------------------------

--- What this broker can do; `persist` with `checkpoints`.
function Broker:capabilities()
  local list = {}
  for name in pairs(CAPABILITIES) do
    list[name] = true
  end
  list.persist = self.options.checkpoints ~= nil or nil
  return list
end

local function descriptor_flaws(spec)
  local flaws = {}
  for option, value in pairs(spec) do
    local ok, message = pcall(errors.options, "stream", { [option] = value }, DESCRIPTOR)
    if not ok then
      flaws[#flaws + 1] = (tostring(message):gsub("^[^:]+:%d+: ", ""))
    end
  end
  table.sort(flaws)
  if type(spec.name) ~= "string" or spec.name == "" then
    flaws[#flaws + 1] = "stream: a name is missing"
  elseif spec.name:find("[*>]") then
    flaws[#flaws + 1] = ("stream '%s': this broker has no patterns"):format(spec.name)
  end
  if type(spec.consumer) == "string" and spec.consumer:find("@", 1, true) then
    flaws[#flaws + 1] = "option 'consumer' must not have an '@'"
  end
  if type(spec.live) == "string" and not LIVE[spec.live] then
    flaws[#flaws + 1] = ("option 'live' must be \"auto\", \"sse\" or \"long-poll\", not %q"):format(spec.live)
  end
  if type(spec.prefetch) == "number" and not (spec.prefetch >= 1 and spec.prefetch < math.huge) then
    flaws[#flaws + 1] = "option 'prefetch' must be a number of at least 1"
  end
  return flaws
end

local Descriptor = { __name = "weir.broker.durable.descriptor" }

function Descriptor:__tostring()
  return ("%s (%s)"):format(self.name, self.consumer)
end

--- Makes a descriptor of a name, or of a table with `name`.
-- @treturn table; or nil and an error "invalid" that lists everything that is wrong
function Broker:descriptor(spec)
  if getmetatable(spec) == Descriptor then
    return spec
  elseif type(spec) == "string" then
    spec = { name = spec }
  elseif type(spec) ~= "table" then
    return nil, errors.new("invalid", "a name or a table with a name is expected, not a " .. type(spec))
  end
  local flaws = descriptor_flaws(spec)
  if #flaws > 0 then
    return nil, errors.new("invalid", table.concat(flaws, "; "))
  end
  local options = self.options
  return setmetatable({
    name = spec.name,
    consumer = spec.consumer or options.consumer or "weir",
    from = spec.from or options.from or "start",
    live = spec.live or options.live or "auto",
    prefetch = spec.prefetch or options.prefetch or 1000,
  }, Descriptor)
end

local CLOSED = errors.new("closed", "the broker is closed")

--- Finds out whether the server answers, and asks once: who wants to wait for a server that is away connects again.
-- @treturn boolean true; or nil and an error: "closed", "unauthorized", "forbidden", "network", "timeout"
function Broker:connect(timeout)
  if self.closed then
    return nil, self.closed
  elseif self.connected then
    return true
  end
  self.status:set("connecting")
  local err
  if type(self.options.checkpoints) == "string" then
    self.checkpoints, err = checkpoint.files(self.options.checkpoints)
    if not self.checkpoints then
      self.status:set("failed", err)
      return nil, err
    end
  else
    self.checkpoints = self.options.checkpoints
  end
  local ask = { kind = "head", method = "HEAD", what = "head", once = true }
  local answer
  answer, err = self.client:perform(self.client:stream("/"):request(ask, { timeout = timeout }))
  -- Any answer is one, but one that will not let us in.
  if not answer and (err.status == nil or err.status == 401 or err.status == 403 or err.status >= 500) then
    self.status:set("failed", err)
    return nil, err
  end
  self.connected = true
  self.status:set("up")
  return true
end

--- "new", "connecting", "up", "degraded" (the last attempt of a request failed, and is repeated), "failed" or "closed".
function Broker:state()
  return self.status:get()
end

function Broker:watch(fn)
  return self.status:watch(fn)
end

--- Called after each attempt of a request, and when a checkpoint cannot be saved.
function Broker:note(err)
  if not self.connected or (err and err.code == "cancelled") then
    return
  elseif not err then
    self.status:set("up")
  else
    self.status:set("degraded", err)
  end
end

-- "orders.new" is at URL/orders.new; what has a meaning in URLs is escaped.
local function path_of(name)
  return "/" .. name:gsub("[^%w%-._~]", function(byte)
    return ("%%%02X"):format(byte:byte())
  end)
end

--- The stream of a destination, which is created when it is new to us.
-- @treturn stream; or nil and an error
function Broker:stream(name, timeout)
  if self.closed then
    return nil, self.closed
  elseif not self.connected then
    return nil, errors.new("disconnected", "the broker is not connected: call broker:connect() first")
  end
  local stream = self.client:stream(path_of(name), { codec = "json", content_type = "application/json" })
  if self.options.create ~= false and not self.created[name] then
    local ok, err = stream:create({ timeout = timeout or self.options.timeout })
    if not ok then
      return nil, err
    end
    self:remember(name)
  end
  return stream
end

-- Of more names than this, all are forgotten: creating a stream that exists does no harm.
local MOST_NAMES = 10000

function Broker:remember(name)
  self.names = (self.names or 0) + 1
  if self.names > MOST_NAMES then
    self.created, self.names = {}, 1
  end
  self.created[name] = true
end

--- A producer on the stream of a destination.
function Broker:producer(name)
  local id = self.options.producer_id
  return self.client:stream(path_of(name), { content_type = "application/json" }):producer({
    producer_id = id and ("%s/%s"):format(id, name) or nil,
    auto_claim = id ~= nil,
    linger = 0,
  })
end

--- The error of a second subscription of a consumer: there is one position, which two cannot share.
function durable.conflict(descriptor)
  local message = "the stream '%s' has a subscription of the consumer '%s'; a second one needs another 'consumer'"
  return errors.new("conflict", message:format(descriptor.name, descriptor.consumer))
end

--- Reads a stream on from the position of a consumer: see the contract.
-- @treturn subscription; or nil and an error: "conflict", "damaged", "closed", "disconnected", or the server's
function Broker:subscribe(spec, timeout)
  local descriptor, err = self:descriptor(spec)
  if not descriptor then
    return nil, err
  elseif self.closed then
    return nil, self.closed
  end
  local key = checkpoint.key(descriptor.name, descriptor.consumer)
  if self.consumers[key] then
    return nil, durable.conflict(descriptor)
  end
  self.consumers[key] = true -- while it is being opened, too
  local subscription
  subscription, err = subscriptions.open(self, descriptor, key, timeout)
  if not subscription then
    self.consumers[key] = nil
    return nil, err
  end
  self.subscriptions[subscription] = true
  if self.closed then -- meanwhile
    subscription:close()
    return nil, self.closed
  end
  return subscription
end

--- Called by a subscription that is closed, when its position is saved.
function Broker:forget(subscription)
  self.subscriptions[subscription], self.consumers[subscription.key] = nil, nil
end

--- A publisher. All of a broker share their producers.
function Broker:publisher(options)
  errors.options("publisher", options, {}, 2)
  if not self.shared_publisher then
    self.shared_publisher = publishers.new(self, self.options.timeout or 30)
  end
  return self.shared_publisher
end

--- The descriptor with which dead letters are read: a consumer of their own.
function Broker:dead_letters(name)
  return self:descriptor({ name = name, consumer = "dead-letters", from = "start" })
end

local Cursor = {}
Cursor.__index = Cursor

--- The next one; nil at the end.
-- @tparam[opt] number timeout in seconds
function Cursor:next(timeout)
  local position = self.reader.offset
  local item, err = self.reader:next_item(timeout)
  if item == nil then
    return nil, err
  end
  local payload, headers = envelope.decode(item)
  return { payload = payload, headers = headers, destination = self.destination, position = position }
end

function Cursor:close()
  self.reader:close()
end

--- What a stream has, oldest first, one after the other: each is `{ payload, headers, destination, position }`.
-- @tparam string destination
-- @tparam[opt] number timeout in seconds
-- @return a cursor: `next([timeout])`, `close()`; or nil and an error
function Broker:cursor(destination, timeout)
  local stream, err = self:stream(destination, timeout)
  if not stream then
    return nil, err
  end
  return setmetatable({ reader = stream:read(), destination = destination }, Cursor)
end

--- The first of them as a list.
-- @tparam string destination
-- @tparam[opt=100] number limit
-- @treturn table; or nil and an error
function Broker:browse(destination, limit)
  local cursor, err = self:cursor(destination)
  if not cursor then
    return nil, err
  end
  return contract.collect(cursor, limit or 100)
end

-- How the server learns who asks; not what it is told. Only the schemes that HTTP has a name for are known.
local function security(self)
  for name, value in pairs(self.options.headers or {}) do
    local scheme = type(name) == "string" and name:lower() == "authorization" and type(value) == "string"
      and value:match("^(%a+) ")
    if scheme and (scheme:lower() == "basic" or scheme:lower() == "bearer") then
      return "http_" .. scheme:lower()
    end
  end
  return self.url:find("^https?://[^/]*@") and "http_basic" or nil
end

--- For documents; without credentials.
function Broker:describe()
  local scheme, host, path = self.url:match("^(https?)://([^/?#]+)([^?#]*)")
  return {
    protocol = scheme,
    host = host:gsub("^.*@", ""),
    pathname = path ~= "" and path or nil,
    security = security(self),
  }
end

--- A memory broker on which every destination keeps all it gets, and every consumer reads all of it.
function Broker:in_process(clock)
  return require("weir.broker.durable.in_process")(self, clock)
end

--- Saves all positions, waits until what was published is confirmed, and closes.
function Broker:shutdown(timeout)
  if self.closed then
    return true
  end
  local ok, err = true, nil
  local function note(done, failure)
    if not done then
      ok, err = nil, err or failure
    end
  end
  if self.shared_publisher and self.connected then
    note(self.shared_publisher:flush(timeout or 10))
  end
  self.closed = CLOSED
  local list = {}
  for subscription in pairs(self.subscriptions) do
    list[#list + 1] = subscription
  end
  for _, subscription in ipairs(list) do
    note(subscription:close(timeout or 10))
  end
  self.connected = false
  self.client:close()
  self.status:set("closed")
  return ok, err
end

function Broker:__tostring()
  return ("%s(%s, %s)"):format(Broker.__name, self:describe().host, (self.status:get()))
end

return durable
