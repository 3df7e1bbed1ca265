--- The codec "cbor": `weir.cbor` with errors as objects. Integers stay exact, and strings may hold any
-- bytes. See there for how values map.
--
-- It needs the C module that is built where libcbor is (Debian: libcbor-dev).
-- @module weir.codec.cbor

local core = require("weir.core")
local errors = require("weir.errors")

local found, cbor = pcall(require, "weir.cbor")
if not found then
  error("the codec 'cbor' needs the module weir.cbor, which is built where libcbor is installed " ..
    "(Debian: libcbor-dev): " .. tostring(cbor), 0)
end

local encode, decode, decode_next = cbor.encode, cbor.decode, cbor.decode_next

return {
  name = "cbor",
  content_type = "application/cbor",
  encode = function(value)
    local bytes, reason = encode(value)
    if bytes then
      return bytes
    end
    return nil, errors.new("encode", reason, { codec = "cbor" })
  end,
  decode = function(bytes)
    local value, reason = decode(bytes)
    if value == nil then
      return nil, errors.new("decode", reason, { codec = "cbor" })
    end
    return value
  end,
  decode_next = function(bytes, position)
    local value, behind = decode_next(bytes, position)
    if value == nil and behind ~= "again" then
      return nil, errors.new("decode", behind, { codec = "cbor" })
    end
    return value, behind
  end,
  scanner = function(max)
    return core.values("cbor", max)
  end,
}
