--- Codecs: how the values of a stream become bytes and back.
--
-- A codec is a table with `name`, `encode(value)`, which returns a string, and `decode(bytes)`, which
-- returns the value, never nil. Both return `nil, err` for what they cannot do, with
-- `err.code` "encode" or "decode", and `err.codec` the name; they do not raise. What stands for nil
-- is `codec.null`. `content_type` is what its bytes are called in HTTP, or nil where nobody has said.
--
-- A codec whose values say themselves where they end has `decode_next(bytes, position)` too: it returns the
-- value that starts there and the position behind it; `nil, "again"` when the bytes end before the value
-- does; `nil, err` when no value starts there. With `scanner(max)`, which makes a `weir.core.values`, nothing is
-- looked at twice where values come in pieces.
--
-- Four are built in:
--
-- - `raw`: strings as they are. Its field `raw` is true, so that a caller can leave both calls out.
-- - `json`: see `weir.codec.json`.
-- - `msgpack`: see `weir.codec.msgpack`.
-- - `cbor`: see `weir.codec.cbor`.
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

local known = { "cbor", "json", "msgpack", "raw" }
local loaded = {}

loaded.raw = setmetatable({
  name = "raw",
  raw = true,
  content_type = "application/octet-stream",
  encode = function(value)
    if type(value) == "string" then
      return value
    end
    local message = "the codec 'raw' sends strings only, not a %s; for other values use 'json', 'msgpack' or 'cbor'"
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

-- What content types are, besides the codecs' own and text/*.
local TYPES = {
  ["application/cbor"] = "cbor",
  ["application/cbor-seq"] = "cbor",
  ["application/json"] = "json",
  ["application/msgpack"] = "msgpack",
  ["application/octet-stream"] = "raw",
  ["application/vnd.msgpack"] = "msgpack",
  ["application/x-msgpack"] = "msgpack",
}
local SUFFIXES = { cbor = "cbor", json = "json", msgpack = "msgpack" }

--- Finds the codec of a content type, such as "application/vnd.order+json; charset=utf-8".
--
-- Case and parameters do not count; +json, +cbor and +msgpack do; text is "raw".
-- @tparam string content_type
-- @treturn ?table the codec; nil when there is none for it
-- @return error, where there is one that this weir was built without: "unsupported"
function codec.by_content_type(content_type)
  local text = content_type:lower():match("^%s*([^;%s]+)") or ""
  local name = TYPES[text] or SUFFIXES[text:match("^[^/]+/.*%+(.*)$")] or text:match("^text/.") and "raw"
  if not name then
    return nil
  end
  local ok, found = pcall(built_in, name, 1)
  if not ok then
    return nil, errors.new("unsupported", tostring(found), { codec = name })
  end
  return found
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

-- A user's decode_next, likewise.
local function guarded_next(f, name)
  local function fail(cause)
    local message = ("the codec '%s' cannot decode: %s"):format(name, tostring(cause))
    return nil, errors.new("decode", message, { codec = name, cause = cause })
  end
  return function(bytes, position)
    local ok, value, behind = pcall(f, bytes, position)
    if not ok then
      return fail(value)
    elseif value == nil then
      if behind == "again" then
        return nil, behind
      end
      return fail(behind == nil and "decode_next returned nil and no reason" or behind)
    elseif type(behind) ~= "number" or behind % 1 ~= 0 or behind <= position or behind > #bytes + 1 then
      return fail(("decode_next returned %s instead of the position behind the value"):format(tostring(behind)))
    end
    return value, behind
  end
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
  if spec.decode_next ~= nil and type(spec.decode_next) ~= "function" then
    error(("the codec '%s': decode_next must be a function, not a %s"):format(name, type(spec.decode_next)), level + 1)
  end
  local content_type = spec.content_type
  if content_type ~= nil and (type(content_type) ~= "string" or not content_type:find("^[^/%s]+/[^/%c]+$")) then
    error(("the codec '%s': content_type must be a text such as \"application/x-name\""):format(name), level + 1)
  end
  return setmetatable({
    name = name,
    content_type = content_type,
    encode = guarded(spec.encode, "encode", name, is_string, "a string"),
    decode = guarded(spec.decode, "decode", name, is_value, "a value"),
    decode_next = spec.decode_next and guarded_next(spec.decode_next, name) or nil,
  }, Codec)
end

--- Finds or makes a codec; raises when there is none such.
--
-- A table of one's own has `encode(value)`, `decode(bytes)` and a `name` of up to 64 bytes, which both ends of a
-- stream must agree on ("custom" when left out). Its functions may raise, or return `nil, reason`. It may have
-- `content_type` and `decode_next(bytes, position)`, as above.
-- @tparam string|table spec "raw", "json", "msgpack", "cbor", a table of one's own, or a codec
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
