--- The codec "msgpack": `weir.msgpack` with errors as objects. Integers stay exact, and strings may
-- hold any bytes. See there for how values map.
--
-- It needs the C module that is built where msgpack-c is (Debian: libmsgpack-dev).
-- @module weir.codec.msgpack

local core = require("weir.core")
local errors = require("weir.errors")

local found, msgpack = pcall(require, "weir.msgpack")
if not found then
  error("the codec 'msgpack' needs the module weir.msgpack, which is built where msgpack-c is installed " ..
    "(Debian: libmsgpack-dev): " .. tostring(msgpack), 0)
end

local encode, decode, decode_next = msgpack.encode, msgpack.decode, msgpack.decode_next

return {
  name = "msgpack",
  content_type = "application/msgpack",
  encode = function(value)
    local bytes, reason = encode(value)
    if bytes then
      return bytes
    end
    return nil, errors.new("encode", reason, { codec = "msgpack" })
  end,
  decode = function(bytes)
    local value, reason = decode(bytes)
    if value == nil then
      return nil, errors.new("decode", reason, { codec = "msgpack" })
    end
    return value
  end,
  decode_next = function(bytes, position)
    local value, behind = decode_next(bytes, position)
    if value == nil and behind ~= "again" then
      return nil, errors.new("decode", behind, { codec = "msgpack" })
    end
    return value, behind
  end,
  scanner = function(max)
    return core.values("msgpack", max)
  end,
}
