--- Codecs: how the values of a stream become bytes and back.
--
-- A codec is a table with `name`, `encode(value)`, which returns a string, and `decode(bytes)`, which
-- returns the value, never nil. Both return `nil, err` for what they cannot do, with
-- `err.code` "encode" or "decode", and `err.codec` the name; they do not raise. What stands for nil
-- is `codec.null`.
--
-- Three are built in:
--
-- - `raw`: strings as they are. Its field `raw` is true, so that a caller can leave both calls out.
-- - `json`: see `weir.codec.json`.
-- - `msgpack`: see `weir.codec.msgpack`.
-- @module weir.codec

local errors = require("weir.errors")
local nearest = require("weir.nearest")

local codec = {}

--- What stands for nil inside of values, and for a value that is nil: the same as `cjson.null`.
codec.null = require("cjson").null

-- As in the handshake that carries it.
local LONGEST_NAME = 64

local Codec = { __name = "weir.codec" }

function Codec:__tostring()
  return "weir.codec: " .. self.name
end

local known = { "json", "msgpack", "raw" }
local loaded = {}

loaded.raw = setmetatable({
  name = "raw",
  raw = true,
  encode = function(value)
    if type(value) == "string" then
      return value
    end
    local message = "the codec 'raw' sends strings only, not a %s; for other values use 'json' or 'msgpack'"
    return nil, errors.new("encode", message:format(type(value)), { codec = "raw" })
  end,
  decode = function(bytes)
    return bytes
  end,
}, Codec)

local function built_in(name, level)
  local found = loaded[name]
  if found then
    return found
  end
  for _, each in ipairs(known) do
    if each == name then
      found = setmetatable(require("weir.codec." .. name), Codec)
      loaded[name] = found
      return found
    end
  end
  local suggestion = nearest(name, known)
  local message = "unknown codec '%s'%s; known are: %s, or a table with encode and decode"
  suggestion = suggestion and (", did you mean '%s'?"):format(suggestion) or ""
  error(message:format(name:sub(1, LONGEST_NAME), suggestion, table.concat(known, ", ")), level + 1)
end

-- One direction of a user's codec: calls `f`, and turns what it raises or reports into an error.
local function guarded(f, code, name, valid, expected)
  return function(value)
    local ok, result, reason = pcall(f, value)
    if ok and valid(result) then
      return result
    end
    local cause = not ok and result or reason
    if cause == nil then
      cause = ("it returned a %s instead of %s"):format(type(result), expected)
    end
    local message = ("the codec '%s' cannot %s: %s"):format(name, code, tostring(cause))
    return nil, errors.new(code, message, { codec = name, cause = cause })
  end
end

local function is_string(value)
  return type(value) == "string"
end

local function is_value(value)
  return value ~= nil
end

local function custom(spec, level)
  local name = spec.name == nil and "custom" or spec.name
  if type(name) ~= "string" or name == "" or #name > LONGEST_NAME then
    local got = type(name) == "string" and ("one of %d"):format(#name) or "a " .. type(name)
    error(("a codec's name must be a string of 1 to %d bytes, not %s"):format(LONGEST_NAME, got), level + 1)
  end
  for _, each in ipairs({ "encode", "decode" }) do
    if type(spec[each]) ~= "function" then
      error(("the codec '%s' needs a function '%s', not a %s"):format(name, each, type(spec[each])), level + 1)
    end
  end
  return setmetatable({
    name = name,
    encode = guarded(spec.encode, "encode", name, is_string, "a string"),
    decode = guarded(spec.decode, "decode", name, is_value, "a value"),
  }, Codec)
end

--- Finds or makes a codec; raises when there is none such.
--
-- A table of one's own has `encode(value)`, `decode(bytes)` and a `name` of up to 64 bytes, which both ends of a
-- stream must agree on ("custom" when left out). Its functions may raise, or return `nil, reason`.
-- @tparam string|table spec "raw", "json", "msgpack", a table of one's own, or a codec
-- @tparam[opt=1] number level whom to blame, as for `error`, seen from the caller
-- @treturn table the codec
function codec.get(spec, level)
  level = (level or 1) + 1
  if type(spec) == "string" then
    return (built_in(spec, level)) -- no tail call: levels count frames
  elseif type(spec) ~= "table" then
    error(("a codec is a name or a table with encode and decode, not a %s"):format(type(spec)), level)
  elseif getmetatable(spec) == Codec then
    return spec
  end
  return (custom(spec, level))
end

return codec
