--- Which codec a message is decoded with: that of its content type, where it has one that weir knows.
-- @module weir.app.content

local codec = require("weir.codec")

local content = {}

-- Content types by the names of codecs.
local TYPES = {
  json = "application/json",
  msgpack = "application/msgpack",
  cbor = "application/cbor",
  raw = "application/octet-stream",
}

local BY_TYPE = {
  ["application/json"] = "json",
  ["text/json"] = "json",
  ["application/msgpack"] = "msgpack",
  ["application/x-msgpack"] = "msgpack",
  ["application/vnd.msgpack"] = "msgpack",
  ["application/cbor"] = "cbor",
}

local SUFFIXES = { json = "json", msgpack = "msgpack", cbor = "cbor" }

-- Content types come from peers: so many are remembered.
local MOST = 256
local known, count = {}, 0

--- The content type that a codec writes; nil for one that has none.
function content.type_of(chosen)
  return chosen.content_type or TYPES[chosen.name]
end

local function find(content_type)
  local media = content_type:match("^%s*([^;%s]+)")
  media = media and media:lower() or ""
  local name = BY_TYPE[media] or SUFFIXES[media:match("%+([%w]+)$") or ""]
  if name then
    local ok, found = pcall(codec.get, name)
    return ok and found or false
  end
  return false
end

--- The codec of a content type.
-- @tparam string content_type of a message
-- @tparam table fallback the codec of the handler: for a type that weir does not know, and always where it is "raw" or
--   the user's own, which nobody else's type can name
-- @treturn table codec
function content.codec(content_type, fallback)
  if fallback.raw or not TYPES[fallback.name] then
    return fallback
  end
  local found = known[content_type]
  if found == nil then
    found = find(content_type)
    if count >= MOST then
      known, count = {}, 0
    end
    known[content_type], count = found, count + 1
  end
  return found or fallback
end

return content
