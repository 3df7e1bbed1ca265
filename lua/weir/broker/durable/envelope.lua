--- How a message stands in a stream: a JSON object with `headers` and either `text` or `base64`.
--
-- The payload is kept byte for byte: as a JSON string where it is UTF-8, in base64 where it is not. An item that is no
-- such object was appended by somebody who knows nothing of weir: its payload is its JSON text, and it has no headers.
-- @module weir.broker.durable.envelope

local codec = require("weir.codec")
local core = require("weir.core")
local errors = require("weir.errors")

local envelope = {}

local json = codec.get("json")
local NO_HEADERS = {}

local function is_utf8(text)
  local utf8 = rawget(_G, "utf8")
  if utf8 then
    return utf8.len(text) ~= nil
  end
  return not text:find("[\128-\255]")
end

--- The item for a message.
-- @tparam string payload
-- @tparam ?table headers
-- @treturn string JSON; or nil and an error: "encode"
function envelope.encode(payload, headers)
  local item = { headers = headers and next(headers) and headers or nil }
  if is_utf8(payload) then
    item.text = payload
  else
    item.base64 = core.base64_encode(payload)
  end
  for name, value in pairs(item.headers or NO_HEADERS) do
    if type(name) ~= "string" or type(value) ~= "string" or not is_utf8(value) or not is_utf8(name) then
      local message = "the header '%s' is no text, and these streams carry nothing else"
      return nil, errors.new("unsupported", message:format(tostring(name)))
    end
  end
  return json.encode(item)
end

local function headers_of(item)
  local headers = item.headers
  if headers == nil then
    return NO_HEADERS
  elseif type(headers) ~= "table" then
    return nil
  end
  for name, value in pairs(headers) do
    if type(name) ~= "string" or type(value) ~= "string" then
      return nil
    end
  end
  return headers
end

--- The message in an item.
-- @param item as it was decoded
-- @treturn string payload
-- @treturn table headers
function envelope.decode(item)
  if type(item) == "table" then
    local headers = headers_of(item)
    if headers and type(item.text) == "string" then
      return item.text, headers
    end
    local bytes = headers and type(item.base64) == "string" and core.base64_decode(item.base64)
    if bytes then
      return bytes, headers
    end
  end
  return json.encode(item) or "null", NO_HEADERS
end

return envelope
