--- Decodes base64 (RFC 4648, section 4), as stored messages of JetStream come.
-- @module weir.broker.nats.base64

local values = {}
local alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
for i = 1, #alphabet do
  values[alphabet:byte(i)] = i - 1
end

local byte, char, floor = string.byte, string.char, math.floor

-- The three bytes of four characters; nil where one is not of the alphabet.
local function group(text, at)
  local a, b, c, d = byte(text, at, at + 3)
  a, b, c, d = values[a], values[b], values[c], values[d]
  if a and b and c and d then
    local bits = ((a * 64 + b) * 64 + c) * 64 + d
    return char(floor(bits / 65536), floor(bits / 256) % 256, bits % 256)
  end
end

--- Decodes.
-- @tparam string text
-- @treturn ?string bytes; nil when it is no base64
return function(text)
  if #text % 4 ~= 0 then
    return nil
  end
  local padding = #text:match("=?=?$")
  local full = padding > 0 and #text - 4 or #text
  local parts = {}
  for at = 1, full, 4 do
    local bytes = group(text, at)
    if not bytes then
      return nil
    end
    parts[#parts + 1] = bytes
  end
  if padding > 0 then
    local bytes = group(text:sub(full + 1, full + 4 - padding) .. ("A"):rep(padding), 1)
    if not bytes then
      return nil
    end
    parts[#parts + 1] = bytes:sub(1, 3 - padding)
  end
  return table.concat(parts)
end
