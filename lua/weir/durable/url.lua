--- URLs of streams: parsing, joining, and query parameters in a fixed order.
-- @module weir.durable.url

local errors = require("weir.errors")

local M = {}

local MAX = 8192 -- bytes of a URL

local function bad(text, why)
  return nil, errors.new("bad_url", ("bad URL %q: %s"):format(text:sub(1, 100), why), { url = text })
end

local function percent(byte)
  return ("%%%02X"):format(byte:byte())
end

--- Escapes a value, or a key, of a query.
function M.escape(text)
  return (tostring(text):gsub("[^%w%-._~]", percent))
end

-- What may not stand in a URL as it is; escapes that are there stay.
local function clean(text)
  return (text:gsub("[^%w%-._~:/?#%[%]@!$&'()*+,;=%%]", percent))
end

local DEFAULT_PORTS = { http = "80", https = "443" }

--- Parses an absolute URL of the schemes http and https.
-- @treturn ?table `scheme`, `authority`, `origin`, `path`, and `query`: a list of `{key, value}`, both
--   escaped as they were
function M.parse(text)
  if #text > MAX then
    return bad(text, "it is too long")
  end
  local scheme, authority, rest = text:match("^(%a[%w+.%-]*)://([^/?#]*)(.*)$")
  scheme = scheme and scheme:lower()
  if not DEFAULT_PORTS[scheme] then
    return bad(text, "expected http://host/path or https://host/path")
  elseif authority:find("@", 1, true) then
    local shown = text:gsub("//[^/?#]*@", "//...@", 1) -- for a password may be in it
    return bad(shown, "user names do not belong in a URL; use the header Authorization")
  elseif authority == "" or authority:find("[%s%c\\]") then
    return bad(text, "the host is missing or malformed")
  end
  local host, port = authority:match("^(.-):(%d*)$")
  if not host or authority:match("%]$") then
    host, port = authority, ""
  end
  if port == "" then
    port = DEFAULT_PORTS[scheme]
  end
  local path, query = rest:gsub("#.*$", ""):match("^([^?]*)%??(.*)$")
  local pairs_of = {}
  for piece in query:gmatch("[^&]+") do
    local key, value = piece:match("^([^=]*)=?(.*)$")
    pairs_of[#pairs_of + 1] = { clean(key), clean(value) }
  end
  return {
    scheme = scheme,
    authority = authority,
    origin = ("%s://%s:%s"):format(scheme, host:lower(), port),
    path = path == "" and "/" or clean(path),
    query = pairs_of,
  }
end

-- Resolves "." and ".." (RFC 3986, 5.2.4).
local function without_dots(path)
  local out = {}
  for segment in (path .. "/"):gmatch("([^/]*)/") do
    if segment == ".." then
      if #out > 1 then
        out[#out] = nil
      end
    elseif segment ~= "." then
      out[#out + 1] = segment
    end
  end
  if path:match("/%.%.?$") then
    out[#out + 1] = ""
  end
  return table.concat(out, "/")
end

--- Resolves a reference of a Location header against the URL that was asked for.
-- @treturn string absolute
function M.resolve(base, reference)
  if reference:match("^%a[%w+.%-]*://") then
    return reference
  elseif reference:sub(1, 2) == "//" then
    return base.scheme .. ":" .. reference
  elseif reference:sub(1, 1) == "/" then
    return ("%s://%s%s"):format(base.scheme, base.authority, reference)
  elseif reference:sub(1, 1) == "?" then
    return ("%s://%s%s%s"):format(base.scheme, base.authority, base.path, reference)
  end
  local path, query = reference:match("^([^?]*)(.*)$")
  return ("%s://%s%s%s"):format(base.scheme, base.authority, without_dots(base.path:match("^(.*/)") .. path), query)
end

--- Joins a base URL and the name of a stream: an absolute URL stays, anything else is appended.
function M.join(base, name)
  if name:match("^%a[%w+.%-]*://") or not base then
    return name
  end
  return base:gsub("/+$", "") .. "/" .. name:gsub("^/+", "")
end

local function by_key(a, b)
  if a[1] ~= b[1] then
    return a[1] < b[1]
  end
  return a.index < b.index
end

--- Writes a URL with parameters added to its own, all sorted by key, so that equal requests have
-- equal URLs and caches can hold them. A parameter given here replaces those of the same name.
-- @tparam table url parsed
-- @tparam ?table params name to value, not escaped
-- @treturn string
function M.format(url, params)
  local list, given = {}, {}
  for key, value in pairs(params or {}) do
    local name = M.escape(key)
    given[name] = true
    list[#list + 1] = { name, M.escape(value), index = 0 }
  end
  for index, pair in ipairs(url.query) do
    if not given[pair[1]] then
      list[#list + 1] = { pair[1], pair[2], index = index }
    end
  end
  table.sort(list, by_key)
  local out = {}
  for i, pair in ipairs(list) do
    out[i] = pair[1] .. "=" .. pair[2]
  end
  local text = ("%s://%s%s"):format(url.scheme, url.authority, url.path)
  return #out > 0 and text .. "?" .. table.concat(out, "&") or text
end

return M
