--- Addresses of nodes: `tcp://host:port`, `unix://path`, `mem://name`.
-- @module weir.runtime.url

local errors = require("weir.errors")

local url = {}

-- sun_path holds 108 bytes with the final zero; libuv would cut a longer path off in silence.
local MAX_PATH = 107
local MAX_TEXT = 1024

local function bad(text, why)
  return nil, errors.new("bad_url", ("bad URL %q: %s"):format(text, why), { url = text })
end

local function parse_tcp(text, rest)
  local host, port = rest:match("^%[([%x:.%%%w]+)%]:(%d+)$")
  if host then
    if not host:find(":", 1, true) then
      return bad(text, "only IPv6 addresses stand in brackets")
    end
  else
    host, port = rest:match("^([^:%[%]/?#@%s]+):(%d+)$")
  end
  if not host then
    if rest:find("@", 1, true) then
      return bad(text, "user names are not supported")
    elseif rest:match("^[^%[]*:.*:") then
      return bad(text, "an IPv6 address stands in brackets: tcp://[::1]:7000")
    elseif not rest:find(":%d+$") then
      return bad(text, "the port is missing: tcp://host:port")
    end
    return bad(text, "expected tcp://host:port")
  end
  local number = tonumber(port)
  if #port > 5 or number > 65535 then
    return bad(text, "a port is 0 to 65535")
  elseif #host > 253 then
    return bad(text, "the host name is too long")
  end
  return { scheme = "tcp", host = host, port = number, text = text }
end

local function parse_unix(text, rest)
  if rest == "" then
    return bad(text, "the path is missing: unix:///run/name.sock")
  elseif #rest > MAX_PATH then
    return bad(text, ("the path of a unix socket has at most %d bytes, this one has %d"):format(MAX_PATH, #rest))
  elseif rest:find("%z") then
    return bad(text, "a path holds no zero byte")
  end
  return { scheme = "unix", path = rest, text = text }
end

local function parse_mem(text, rest)
  if not rest:match("^[%w_.%-]+$") then
    return bad(text, "a name has letters, digits, '_', '-' and '.': mem://name")
  end
  return { scheme = "mem", name = rest, text = text }
end

local schemes = { tcp = parse_tcp, unix = parse_unix, mem = parse_mem }

--- Parses a URL.
-- @tparam string text
-- @treturn ?table `scheme` and `text`, with `host` and `port`, `path`, or `name`
-- @return error with the code "bad_url"
function url.parse(text)
  if type(text) ~= "string" then
    error("a URL must be a string, not " .. type(text), 2)
  elseif #text > MAX_TEXT then
    return bad(text:sub(1, 40) .. "...", "it is too long")
  end
  local scheme, rest = text:match("^(%a[%w+.%-]*)://(.*)$")
  if not scheme then
    return bad(text, "expected tcp://host:port, unix://path or mem://name")
  end
  local parse = schemes[scheme:lower()]
  if not parse then
    return bad(text, ("unknown scheme %q; known are: mem, tcp, unix"):format(scheme))
  end
  return parse(text, rest)
end

--- Writes a TCP address as a URL.
-- @tparam string host name or numeric address
-- @tparam number port
function url.tcp(host, port)
  if host:find(":", 1, true) then
    host = "[" .. host .. "]"
  end
  return ("tcp://%s:%d"):format(host, port)
end

return url
