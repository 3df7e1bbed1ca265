--- Options of the NATS broker, checked, and as its C module takes them.
-- @module weir.broker.nats.options

local errors = require("weir.errors")
local size = require("weir.size")

local M = {}

local known = {
  url = { "string", "table" },
  user = "string",
  password = "string",
  token = "string",
  creds = { "string", "table" },
  nkey = "table",
  tls = { "boolean", "table" },
  name = "string",
  connect_timeout = "number",
  max_reconnect = "number",
  backoff = "table",
  ping_interval = "number",
  max_pings_out = "number",
  publish_buffer = { "number", "string" },
  publish_timeout = "number",
  buffer = "table",
  ack_wait = "number",
  jetstream = { "boolean", "table" },
  confirm = "boolean",
  domain = "string",
  inbox_prefix = "string",
}

local parts = {
  creds = { jwt = "string", seed = "string" },
  nkey = { public = "string", seed = "string" },
  tls = { ca = "string", cert = "string", key = "string", verify = "boolean", hostname = "string" },
  backoff = { initial = "number", factor = "number", max = "number", jitter = "number" },
  buffer = { messages = "number", bytes = { "number", "string" } },
}

local function fail(text)
  error("nats: " .. text, 0)
end

--- A number of seconds, more than 0.
function M.seconds(what, name, value, default)
  if value == nil then
    return default
  elseif not (value > 0 and value < 1e9) then
    error(("%s: option '%s' must be a number of seconds, more than 0, not %s"):format(what, name, tostring(value)), 0)
  end
  return value
end

--- A whole number of at least `least`, and less than `most` (2^31).
function M.count(what, name, value, least, default, most)
  if value == nil then
    return default
  elseif type(value) ~= "number" or value % 1 ~= 0 or value < least or value >= (most or 2 ^ 31) then
    local text = "%s: option '%s' must be a whole number from %d to %.0f, not %s"
    error(text:format(what, name, least, (most or 2 ^ 31) - 1, tostring(value)), 0)
  end
  return math.tointeger(value)
end

--- A size in bytes; 0 is allowed where `zero` is true.
function M.bytes(what, name, value, default, zero)
  if value == nil then
    return default
  elseif value == 0 and zero then
    return 0
  end
  local bytes, why = size.parse(value)
  if not bytes or bytes >= 2 ^ 31 then
    error(("%s: option '%s': %s"):format(what, name, why or "it must be less than 2 GiB"), 0)
  end
  return bytes
end

local function servers(url)
  local list = {}
  if type(url) == "string" then
    for each in url:gmatch("[^,]+") do
      list[#list + 1] = each:match("^%s*(.-)%s*$")
    end
  else
    for i, each in ipairs(url) do
      list[i] = each
    end
  end
  if #list == 0 or #list > 64 then
    fail("option 'url' must name 1 to 64 servers, such as \"nats://127.0.0.1:4222\"")
  end
  return list
end

-- Host and port of a server, without what must not be shown.
local function host_of(server)
  local scheme, rest = tostring(server):match("^(%a+)://([^/%s]+)/?$")
  local host = rest and rest:match("([^@]+)$")
  local ending = host and (host:match("^%[[%x:.]+%](.*)$") or host:match("^[^%[%]:]+(.*)$"))
  local port = ending == "" and 4222 or tonumber(ending and ending:match("^:(%d+)$"))
  -- What is wrong is not shown: without its host, a server is a user and a password.
  if not port or port < 1 or port > 65535 or (scheme ~= "nats" and scheme ~= "tls") then
    fail("option 'url': a server is given as \"nats://host:port\" or \"tls://host:port\"")
  end
  return host, scheme
end

local function check_parts(opts)
  for name, fields in pairs(parts) do
    if type(opts[name]) == "table" then
      errors.options("nats: option '" .. name .. "'", opts[name], fields, 0)
    end
  end
  if opts.password and not opts.user then
    fail("option 'password' needs the option 'user'")
  elseif opts.nkey and not (opts.nkey.public and opts.nkey.seed) then
    fail("option 'nkey' must have `public`, the public key, and `seed`, the file of the seed")
  elseif type(opts.creds) == "table" and not (opts.creds.jwt and opts.creds.seed) then
    fail("option 'creds' must be the file of credentials, or have `jwt` and `seed`, two files")
  elseif type(opts.tls) == "table" and (opts.tls.cert == nil) ~= (opts.tls.key == nil) then
    fail("option 'tls': `cert` and `key` belong together")
  end
end

local function backoff(given)
  local config = { initial = 0.1, factor = 2, max = 10, jitter = 0.2 }
  for name, value in pairs(given or {}) do
    config[name] = value
  end
  if not (config.initial > 0 and config.max >= config.initial and config.max < 1e6) then
    fail("option 'backoff': 'initial' must be more than 0 and 'max' not less than it")
  elseif not (config.factor >= 1 and config.jitter >= 0 and config.jitter <= 1) then
    fail("option 'backoff': 'factor' must be at least 1 and 'jitter' from 0 to 1")
  end
  return config
end

-- What csrc/brokers/nats takes: plain values, times in milliseconds.
local function native(opts, settings)
  local tls = type(opts.tls) == "table" and opts.tls or {}
  local creds = opts.creds
  local nkey = opts.nkey or {}
  return {
    servers = settings.servers,
    name = opts.name,
    user = opts.user,
    password = opts.password,
    token = opts.token,
    creds = type(creds) == "table" and creds.jwt or creds,
    seed = type(creds) == "table" and creds.seed or nkey.seed,
    nkey = nkey.public,
    tls = (opts.tls or settings.tls) and true or false,
    ca = tls.ca,
    cert = tls.cert,
    key = tls.key,
    hostname = tls.hostname,
    insecure = tls.verify == false,
    connect_timeout = settings.connect_timeout * 1000,
    ping_interval = M.seconds("nats", "ping_interval", opts.ping_interval, 20) * 1000,
    max_pings_out = M.count("nats", "max_pings_out", opts.max_pings_out, 1, 2),
    max_reconnect = opts.max_reconnect and M.count("nats", "max_reconnect", opts.max_reconnect, 0) or -1,
    backoff = backoff(opts.backoff),
    -- libnats takes no buffer of nothing; the broker refuses before it is used.
    outage_buffer = math.max(settings.publish_buffer, 1),
    limit = math.max(settings.publish_buffer, 64 * 1024),
  }
end

-- Checks what becomes the beginning of subjects.
local function subject_part(option, value, pattern)
  if value and (#value > 255 or not value:find(pattern) or ("." .. value .. "."):find("..", 1, true)) then
    fail(("option '%s': %q must be part of a subject: no white space, no wildcards"):format(option, value))
  end
  return value
end

-- The ways in which clients say who they are, without what they say.
local function security(opts, list)
  local url = table.concat(list, " ")
  local ways = {}
  if opts.user or url:find("://[^/%s@]*:[^/%s]*@") then
    ways[#ways + 1] = "user_password"
  end
  if opts.token or url:find("://[^/%s@:]+@") then
    ways[#ways + 1] = "token"
  end
  if opts.creds or opts.nkey then
    ways[#ways + 1] = "key_pair"
  end
  if type(opts.tls) == "table" and opts.tls.cert then
    ways[#ways + 1] = "certificate"
  end
  return #ways > 0 and table.concat(ways, ",") or nil
end

--- Reads the options of a broker; raises for what is wrong.
-- @treturn table settings, with `native` for the C module
function M.read(opts)
  errors.options("nats", opts, known, 0)
  check_parts(opts)
  local settings = { servers = servers(opts.url or "nats://127.0.0.1:4222"), hosts = {} }
  for i, server in ipairs(settings.servers) do
    local host, scheme = host_of(server)
    settings.hosts[i] = host
    settings.tls = settings.tls or scheme == "tls"
  end
  local buffer = opts.buffer or {}
  settings.messages = M.count("nats", "buffer.messages", buffer.messages, 1, 65536)
  settings.bytes = M.bytes("nats", "buffer.bytes", buffer.bytes, 64 * 1024 * 1024)
  settings.publish_buffer = M.bytes("nats", "publish_buffer", opts.publish_buffer, 8 * 1024 * 1024, true)
  settings.publish_timeout = M.seconds("nats", "publish_timeout", opts.publish_timeout, 5)
  settings.connect_timeout = M.seconds("nats", "connect_timeout", opts.connect_timeout, 2)
  settings.ack_wait = M.seconds("nats", "ack_wait", opts.ack_wait)
  settings.jetstream = opts.jetstream == true and {} or opts.jetstream or nil
  local group = settings.jetstream and settings.jetstream.group
  if group ~= nil and (type(group) ~= "string" or not group:find("^[%w_-]+$")) then
    fail("option 'jetstream': 'group' must be a name of letters, digits, '-' and '_'")
  end
  settings.confirm = opts.confirm
  if settings.confirm == nil then
    settings.confirm = settings.jetstream ~= nil
  end
  settings.inbox_prefix = subject_part("inbox_prefix", opts.inbox_prefix, "^[^%s%c%*>]+$") or "_INBOX"
  subject_part("domain", opts.domain, "^[^%s%c%*>%.]+$")
  settings.api = opts.domain and ("$JS.%s.API."):format(opts.domain) or "$JS.API."
  settings.native = native(opts, settings)
  settings.security = security(opts, settings.servers)
  return settings
end

return M
