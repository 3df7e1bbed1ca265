--- Documents as text: JSON and YAML that are the same, byte by byte, for the same document.
--
-- The codecs of weir are for messages: fast, and in the order that Lua has its keys in. What is kept under version
-- control and compared must have an order, which this has: the keys of AsyncAPI as its specification lists them, then
-- all others by name. A list is a table with `[1]`; an empty table is an object, but for keywords that hold lists.
-- @module weir.asyncapi.text

local codec = require("weir.codec")
local errors = require("weir.errors")
local utf8_text = require("weir.utf8")

local text = {}

-- Deeper documents are none, or contain themselves.
local MAX_DEPTH = 100
--- Bytes of a document that is read, at most.
text.MAX_BYTES = 16 * 1024 * 1024
local MAX_BYTES = text.MAX_BYTES

local RANKS = {}
for name in
  ([[asyncapi id info title version name address location host pathname protocol protocolVersion action channel type
  format description summary termsOfService contact license tags externalDocs url email contentType defaultContentType
  servers channels operations parameters messages headers payload reply security bindings components schemas
  securitySchemes properties required items]]):gmatch("%S+")
do
  RANKS[#RANKS + 1] = name
  RANKS[name] = #RANKS
end

local LISTS = { required = true, enum = true, examples = true, allOf = true, anyOf = true, oneOf = true, tags = true }

local function sorted_keys(object)
  local keys = {}
  for key in pairs(object) do
    keys[#keys + 1] = key
  end
  table.sort(keys, function(a, b)
    local rank_a, rank_b = RANKS[a] or math.huge, RANKS[b] or math.huge
    if rank_a ~= rank_b then
      return rank_a < rank_b
    end
    return tostring(a) < tostring(b)
  end)
  return keys
end

local function is_list(value, key)
  if next(value) == nil then
    return LISTS[key] or false
  elseif value[1] == nil then
    return false
  end
  local count = 0
  for _ in pairs(value) do
    count = count + 1
  end
  if count ~= #value then
    error({ problem = "a list with gaps, or with names beside its values" }, 0)
  end
  return true
end

-- --- scalars ---------------------------------------------------------------------------------------

local ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

-- Makes an escape of the last byte of a character.
local function escape(form, offset)
  return function(last)
    return form:format(last:byte() + offset)
  end
end

-- What neither JSON nor YAML has as it is: control characters, the byte order mark and what is no character.
local function quote(value)
  value = utf8_text.valid(value)
  value = value:gsub('[%c"\\]', function(char)
    return ESCAPES[char] or ("\\u%04x"):format(char:byte())
  end)
  value = value:gsub("\194([\128-\159])", escape("\\u00%02x", 0)):gsub("\239\187\191", "\\ufeff")
  value = value:gsub("\226\128([\168\169])", escape("\\u20%02x", -0x80))
  value = value:gsub("\239\191([\190\191])", escape("\\uff%02x", 0x40))
  return '"' .. value .. '"'
end

local function number(value)
  if value ~= value or value == math.huge or value == -math.huge then
    error({ problem = "a number that is not finite" }, 0)
  elseif value % 1 == 0 and value >= -2 ^ 53 and value <= 2 ^ 53 then
    return ("%d"):format(value)
  elseif math.type and math.type(value) == "integer" then
    return ("%d"):format(value)
  end
  for digits = 14, 17 do
    local short = ("%." .. digits .. "g"):format(value)
    if tonumber(short) == value then
      -- YAML 1.1 wants a dot where there is an exponent.
      return short:find(".", 1, true) and short or (short:gsub("e", ".0e"))
    end
  end
end

local function scalar(value)
  local kind = type(value)
  if value == codec.null then
    return "null"
  elseif kind == "boolean" then
    return tostring(value)
  elseif kind == "number" then
    return number(value)
  elseif kind == "string" then
    return quote(value)
  end
  error({ problem = "a " .. kind }, 0)
end

-- --- JSON ------------------------------------------------------------------------------------------

local function check_depth(depth)
  if depth > MAX_DEPTH then
    error({ problem = ("something that nests more than %d deep, or contains itself"):format(MAX_DEPTH) }, 0)
  end
end

local function write_json(out, value, key, indent, depth)
  if type(value) ~= "table" then
    out[#out + 1] = scalar(value)
    return
  end
  check_depth(depth)
  local list, inner = is_list(value, key), indent .. "  "
  if next(value) == nil then
    out[#out + 1] = list and "[]" or "{}"
    return
  end
  local before = (list and "[" or "{") .. "\n"
  for i, name in ipairs(list and value or sorted_keys(value)) do
    out[#out + 1] = before .. inner
    if list then
      write_json(out, value[i], nil, inner, depth + 1)
    else
      out[#out + 1] = quote(tostring(name)) .. ": "
      write_json(out, value[name], name, inner, depth + 1)
    end
    before = ",\n"
  end
  out[#out + 1] = "\n" .. indent .. (list and "]" or "}")
end

-- --- YAML ------------------------------------------------------------------------------------------

-- What YAML 1.1 reads as something else than a string.
local WORDS = {}
for word in ("true false yes no on off null y n nan inf"):gmatch("%S+") do
  WORDS[word] = true
end

local function yaml_string(value)
  if value:find("^%a[%w _./-]*$") and not value:find(" $") and not WORDS[value:lower()] then
    return value
  end
  return quote(value)
end

-- Longer keys have a line of their own.
local LONGEST_KEY = 120

local function yaml_key(name, indent)
  local written = yaml_string(name)
  return #written <= LONGEST_KEY and written or ("? %s\n%s"):format(written, indent)
end

local function yaml_scalar(value, key)
  if type(value) == "string" then
    return yaml_string(value)
  elseif type(value) == "table" then
    return is_list(value, key) and "[]" or "{}"
  end
  return scalar(value)
end

local function is_block(value)
  return type(value) == "table" and next(value) ~= nil
end

-- Writes the lines of a table; the first begins where the writer is.
local function write_yaml(out, value, key, indent, depth)
  check_depth(depth)
  local list = is_list(value, key)
  for i, name in ipairs(list and value or sorted_keys(value)) do
    local child = value[name]
    if list then
      child = value[i]
    end
    out[#out + 1] = (i > 1 and indent or "") .. (list and "-" or yaml_key(tostring(name), indent) .. ":")
    if not is_block(child) then
      out[#out + 1] = " " .. yaml_scalar(child, name) .. "\n"
    elseif list then
      out[#out + 1] = " "
      write_yaml(out, child, nil, indent .. "  ", depth + 1)
    else
      out[#out + 1] = "\n" .. indent .. "  "
      write_yaml(out, child, name, indent .. "  ", depth + 1)
    end
  end
end

local function write(writer, value, ...)
  local out = {}
  local ok, err = pcall(writer, out, value, ...)
  if ok then
    return table.concat(out)
  elseif type(err) == "table" and err.problem then
    return nil, errors.new("encode", ("the document has %s"):format(err.problem))
  end
  error(err, 0)
end

--- Writes a document as JSON, with two spaces for each level and a line end at the end.
-- @tparam table document
-- @treturn ?string the text
-- @return or an error: "encode", for what JSON has no word for
function text.to_json(document)
  local result, err = write(write_json, document, nil, "", 1)
  if not result then
    return nil, err
  end
  return result .. "\n"
end

--- Writes a document as YAML: block style, one line for each value.
-- @tparam table document
-- @treturn ?string the text
-- @return or an error: "encode"
function text.to_yaml(document)
  if not is_block(document) then
    return text.to_json(document)
  end
  return write(write_yaml, document, nil, "", 1)
end

-- --- reading ---------------------------------------------------------------------------------------

-- What lyaml has read as the codecs have it: their null, and names that are texts. What anchors have made the same
-- table stays one.
local function as_json(value, null, seen)
  if value == null then
    return codec.null
  elseif type(value) ~= "table" then
    return value
  elseif not seen[value] then
    local result, list = {}, value[1] ~= nil
    seen[value] = result
    for key, each in pairs(value) do
      result[list and key or tostring(key)] = as_json(each, null, seen)
    end
  end
  return seen[value]
end

-- The time that libyaml takes grows with the square of the depth. Brackets within strings count as well: in a document
-- of people they never add up to so many.
local function nests_deep(bytes)
  if bytes:find(("- "):rep(MAX_DEPTH), 1, true) or bytes:find(("? "):rep(MAX_DEPTH), 1, true) then
    return true
  end
  local depth = 0
  for bracket in bytes:gmatch("[%[%]{}]") do
    depth = math.max(0, depth + ((bracket == "[" or bracket == "{") and 1 or -1))
    if depth > 10 * MAX_DEPTH then
      return true
    end
  end
  return false
end

local function read_yaml(bytes)
  local found, lyaml = pcall(require, "lyaml")
  if not found then
    return nil, errors.new("unsupported", "YAML is read by the module lyaml (Debian: lua-yaml), which is not installed;"
      .. " give the document as JSON")
  end
  if nests_deep(bytes) then
    return nil, errors.new("too_large", ("it nests more than %d deep"):format(MAX_DEPTH))
  end
  local ok, value = pcall(lyaml.load, bytes)
  if not ok then
    return nil, errors.new("decode", "it is neither JSON nor YAML: " .. tostring(value):gsub("^[^\n:]-:%d+: ", ""))
  end
  return as_json(value, lyaml.null, {})
end

--- Reads a document, JSON or YAML. Null in it is `weir.codec`'s.
-- @tparam string bytes
-- @treturn ?table the document
-- @return or an error: "decode", "too_large", "unsupported" (YAML, without the module that reads it)
function text.read(bytes)
  if #bytes > MAX_BYTES then
    return nil, errors.new("too_large", ("it has more than %d MiB"):format(MAX_BYTES / 1024 / 1024))
  end
  bytes = bytes:gsub("^\239\187\191", "") -- a byte order mark
  local value, err, wrong
  if bytes:find("^%s*{") then
    value, wrong = codec.get("json").decode(bytes)
  end
  if value == nil then -- YAML may begin with a brace, too
    value, err = read_yaml(bytes)
  end
  if err then
    return nil, wrong or err
  elseif type(value) ~= "table" then
    return nil, errors.new("decode", "it is no object")
  end
  return value
end

return text
