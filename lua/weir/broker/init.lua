--- Brokers by their address.
--
--     local broker = weir.broker("memory:")
--     local broker = weir.broker("nats://127.0.0.1:4222")
--
-- The module of a broker is loaded when one of it is made.
-- @module weir.broker

local nearest = require("weir.nearest")

-- Scheme to the module that is to have `new(options)`.
local SCHEMES = {
  memory = "weir.broker.memory",
  nats = "weir.broker.nats",
  tls = "weir.broker.nats",
  ["durable+http"] = "weir.broker.durable",
  ["durable+https"] = "weir.broker.durable",
}

local function schemes()
  local names = {}
  for name in pairs(SCHEMES) do
    names[#names + 1] = name
  end
  table.sort(names)
  return names
end

-- "%41" is "A"
local function unescape(text)
  return (text:gsub("%%(%x%x)", function(hex)
    return string.char(tonumber(hex, 16))
  end))
end

-- "memory:///var/lib/orders?group=billing": a directory, and options that are strings.
local function memory_options(url, given)
  local path, query = url:match("^memory:([^?]*)%??(.*)$")
  path = path:gsub("^//", "")
  local options = {}
  for name, value in pairs(given) do
    options[name] = value
  end
  if path ~= "" then
    if path:sub(1, 1) ~= "/" then
      error(("weir.broker: '%s': the directory must be absolute: memory:///DIR"):format(url), 4)
    end
    options.dir = options.dir or unescape(path)
  end
  for name, value in query:gmatch("([^&=]+)=([^&]*)") do
    if name ~= "group" and name ~= "max_payload" then
      error(("weir.broker: '%s': unknown '%s'; known are: group, max_payload"):format(url, name), 4)
    end
    if options[name] == nil then
      options[name] = unescape(value)
    end
  end
  return options
end

local function load(url, scheme)
  local name = SCHEMES[scheme]
  local ok, module = pcall(require, name)
  if ok then
    return module
  end
  local text = "weir.broker: '%s' needs the module %s, which does not load; is weir built with it?\n%s"
  error(text:format(url:gsub("//[^/@]*@", "//***@"), name, tostring(module)), 4)
end

local function make(url, options)
  if type(url) ~= "string" then
    error("weir.broker: the address is a string such as \"memory:\", not a " .. type(url), 3)
  elseif options ~= nil and type(options) ~= "table" then
    error("weir.broker: options are a table, not a " .. type(options), 3)
  end
  local scheme = url:match("^([%a][%w+.-]*):")
  scheme = scheme and scheme:lower()
  if not scheme or not SCHEMES[scheme] then
    local names = schemes()
    local meant = nearest(scheme or url, names)
    local text = "weir.broker: '%s' has no known scheme; known are: %s%s"
    local hint = meant and (" (did you mean '%s:'?)"):format(meant) or ""
    error(text:format(url:gsub("//[^/@]*@", "//***@"), table.concat(names, ", "), hint), 3)
  end
  local module = load(url, scheme)
  if scheme == "memory" then
    return module.new(memory_options(scheme .. url:sub(#scheme + 1), options or {}))
  end
  local with = {}
  for name, value in pairs(options or {}) do
    with[name] = value
  end
  with.url = url
  return module.new(with)
end

--- Makes a broker by its address; it connects to nothing before `connect`.
-- @function weir.broker
-- @tparam string url "memory:", "memory:///DIR", "nats://HOST:PORT", "tls://HOST:PORT", "durable+http://HOST/PATH",
-- "durable+https://HOST/PATH"
-- @tparam[opt] table options of that broker, which also gets the address as `url` (memory: `dir`)
-- @return a broker, as `weir.broker.contract` says
return setmetatable({ schemes = schemes }, {
  __call = function(_, url, options)
    return make(url, options)
  end,
})
