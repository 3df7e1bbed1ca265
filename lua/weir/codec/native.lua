--- Makes a codec of a C module whose values say themselves where they end.
--
-- The module has `encode`, `decode` and `decode_next`, which return nil and a reason; the codec has them with errors as
-- objects.
-- @module weir.codec.native

local core = require("weir.core")
local errors = require("weir.errors")

--- Makes it; raises, and says what to install, when weir was built without the module.
-- @tparam string name of the codec; the module is `weir.NAME`
-- @tparam string library that the module is built with
-- @tparam string package of Debian that has it
-- @treturn table a codec
return function(name, library, package)
  local found, module = pcall(require, "weir." .. name)
  if not found then
    local message = "the codec '%s' needs the module weir.%s, which is built where %s is installed (Debian: %s): %s"
    error(message:format(name, name, library, package, tostring(module)), 0)
  end
  local encode, decode, decode_next = module.encode, module.decode, module.decode_next
  local context = { codec = name }
  return {
    name = name,
    content_type = "application/" .. name,
    encode = function(value)
      local bytes, reason = encode(value)
      if bytes then
        return bytes
      end
      return nil, errors.new("encode", reason, context)
    end,
    decode = function(bytes)
      local value, reason = decode(bytes)
      if value == nil then
        return nil, errors.new("decode", reason, context)
      end
      return value
    end,
    decode_next = function(bytes, position)
      local value, behind = decode_next(bytes, position)
      if value == nil and behind ~= "again" then
        return nil, errors.new("decode", behind, context)
      end
      return value, behind
    end,
    scanner = function(max)
      return core.values(name, max)
    end,
  }
end
