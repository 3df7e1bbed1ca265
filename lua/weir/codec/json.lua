--- The codec "json": lua-cjson, in an instance of its own with strict settings.
--
-- Where weir is built with simdjson, that decodes what it decodes alike, two to three times as fast; lua-cjson decodes
-- the rest and has all the errors. So values are equal and errors the same with and without, but for one thing:
-- integers beyond 2^53 are exact with simdjson and the nearest float without.
--
-- - null is `cjson.null` (`weir.codec`'s `null`) both ways. An empty table is an object.
-- - A table with keys 1..n is an array; one with holes is refused, as nothing should change
--   silently: put null where a value is missing. Other number keys become strings.
-- - NaN and the infinities are refused, both ways. A number too large for a double, such as 1e999,
--   is valid JSON and decodes to infinity.
-- - Arrays and objects nest 64 deep at most, both ways.
-- - Numbers are written with the digits that lua-cjson has: 14, in some builds 16. A fraction is rounded
--   to that; an integer that would change is refused: send it as a string, or use msgpack.
-- - Whole numbers are decoded to integers, in Lua versions that have them.
-- - Strings are passed on as they are: other programs can read them if they are UTF-8.
-- @module weir.codec.json

local errors = require("weir.errors")

local MAX_DEPTH = 64

local cjson = require("cjson.safe").new()
cjson.encode_max_depth(MAX_DEPTH)
cjson.decode_max_depth(MAX_DEPTH)
cjson.encode_invalid_numbers(false)
cjson.decode_invalid_numbers(false)
cjson.encode_sparse_array(false, 1, 0)
-- OpenResty's and newer versions can; without it 0.1 + 0.2 loses its last digits.
pcall(cjson.encode_number_precision, 16)

local encode, decode = cjson.encode, cjson.decode
local find = string.find
local subtype = math.type or function() end -- LuaJIT has no integers to tell apart

local built, simdjson = pcall(require, "weir.simdjson")
local decode_fast = built and simdjson.decode or function() end

-- Whole numbers as integers, in a value that was decoded to floats alone; a negative zero stays.
local function with_integers(value)
  if type(value) == "number" then
    local exact = value % 1 == 0 and value >= -2 ^ 53 and value <= 2 ^ 53 and (value ~= 0 or 1 / value > 0)
    return exact and math.tointeger(value) or value
  elseif type(value) == "table" then
    for key, each in pairs(value) do
      local kind = type(each)
      if kind == "number" or kind == "table" then
        value[key] = with_integers(each)
      end
    end
  end
  return value
end

-- Newer versions of lua-cjson decode to integers themselves.
if subtype(decode("1")) == "float" then
  local to_floats = decode
  decode = function(text)
    local value, reason = to_floats(text)
    return with_integers(value), reason
  end
end

local hints = {
  ["Cannot serialise table: excessively sparse array"] = "an array has holes; put null where a value is missing",
  ["Cannot serialise, excessive nesting"] = "tables nest more than 64 deep, or contain themselves",
  ["Cannot serialise number: must not be NaN or Inf"] = "NaN and infinity are no JSON",
}

local function failure(code, reason)
  local hint = hints[(reason:gsub(" %(%d+%)$", ""))]
  return errors.new(code, (hint and hint .. ": " or "") .. reason, { codec = "json" })
end

-- The first integer in the value that comes out of the encoder as another number, or nil.
local function changed_integer(value)
  if type(value) == "number" then
    local exact = value % 1 == 0 and value >= -2 ^ 53 and value <= 2 ^ 53
    if (exact or subtype(value) == "integer") and tonumber((encode(value))) ~= value then
      return value
    end
  elseif type(value) == "table" then
    for key, each in pairs(value) do
      local found = changed_integer(key) or changed_integer(each)
      if found then
        return found
      end
    end
  end
  return nil
end

return {
  name = "json",
  content_type = "application/json",
  encode = function(value)
    local text, reason = encode(value)
    if not text then
      return nil, failure("encode", reason)
    end
    -- Whatever has more digits than the encoder writes has an exponent in the text.
    if find(text, "e+", 1, true) then
      local integer = changed_integer(value)
      if integer then
        local message = "the integer %d has more digits than lua-cjson writes; send it as a string, or use msgpack"
        return nil, errors.new("encode", message:format(integer), { codec = "json" })
      end
    end
    return text
  end,
  decode = function(bytes)
    local value, reason = decode_fast(bytes)
    if value == nil then
      value, reason = decode(bytes)
    end
    if value == nil then
      return nil, failure("decode", reason)
    end
    return value
  end,
}
