--- References within a document.
-- @module weir.asyncapi.pointer

local pointer = {}

-- References that lead to references, at most.
local MOST = 32

local function unescape(token)
  token = token:gsub("%%(%x%x)", function(hex)
    return string.char(tonumber(hex, 16))
  end)
  return (token:gsub("~1", "/"):gsub("~0", "~"))
end

--- What a JSON pointer (RFC 6901) means: "#/channels/orders".
-- @return the value, or nil
function pointer.find(document, reference)
  local value = document
  for token in reference:sub(2):gmatch("/([^/]*)") do
    if type(value) ~= "table" then
      return nil
    end
    token = unescape(token)
    local index = value[token] == nil and token:find("^%d+$") and tonumber(token)
    value = value[index and index + 1 or token]
  end
  return value
end

--- Follows references, as far as they lead within the document; a reference elsewhere stays what it is.
-- @tparam table document
-- @param value
-- @return what it means; nil where a reference leads nowhere, or in circles
function pointer.resolve(document, value)
  for _ = 1, MOST do
    local reference = type(value) == "table" and value["$ref"]
    if type(reference) ~= "string" or reference:sub(1, 1) ~= "#" then
      return value
    end
    value = pointer.find(document, reference)
  end
  return nil
end

--- The last part of a reference: the key of what it means.
function pointer.key(reference)
  return unescape(reference:match("([^/]*)$"))
end

return pointer
