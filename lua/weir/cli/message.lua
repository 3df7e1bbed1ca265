--- What commands send: values from words or from the standard input; and payloads in JSON.
-- @module weir.cli.message
local codec = require("weir.codec")
local id = require("weir.id")

local M = {}

--- Bytes of one value from the standard input, at most.
M.LONGEST = 256 * 1024 * 1024

--- A text that is a value as the bytes of a codec. With "json" they are the text itself, digit by digit.
-- @string text
-- @string name of the codec
-- @treturn ?string
-- @return error
function M.encode(text, name)
  if name == "raw" then
    return text
  end
  local value, err = codec.get("json").decode(text)
  if value == nil then
    return nil, ("the value is no JSON (%s); quote it for the shell, as '{\"id\": 1}', or send text as it is"
      .. " with --codec raw"):format(err.message or tostring(err))
  elseif name == "json" then
    return text
  end
  local ok, chosen = pcall(codec.get, name)
  if not ok then
    return nil, (tostring(chosen):gsub("^[^\n:]-:%d+: ", ""))
  end
  return chosen.encode(value)
end

--- The headers of a message that is sent.
-- @string name of the codec
-- @tparam ?{{string,string},...} given
-- @treturn table
function M.headers(name, given)
  local headers = {}
  for _, pair in ipairs(given or {}) do
    headers[pair[1]:lower()] = pair[2]
  end
  headers["content-type"] = headers["content-type"] or codec.get(name).content_type
  headers["message-id"] = headers["message-id"] or id.message()
  headers["correlation-id"] = headers["correlation-id"] or headers["message-id"]
  return headers
end

--- A payload as a field of JSON: `payload` where it is UTF-8, else `payload_base64`.
-- @tparam table fields
-- @string payload
function M.put_payload(fields, payload)
  if utf8.len(payload) then
    fields.payload = payload
  else
    fields.payload_base64 = require("weir.core").base64_encode(payload)
  end
end

return M
