--- JSON that commands print: objects whose fields have an order, lists that may be empty, and any bytes.
-- @module weir.cli.json
local cjson = require("cjson").new()
local text = require("weir.utf8")

local M = {}

cjson.encode_max_depth(100)
cjson.encode_sparse_array(true)
cjson.encode_invalid_numbers(false)

local encode

local function encode_list(list)
  local parts = {}
  for i, each in ipairs(list) do
    parts[i] = encode(each)
  end
  return "[" .. table.concat(parts, ",") .. "]"
end

local function encode_object(fields)
  local names, parts = {}, {}
  for name in pairs(fields) do
    names[#names + 1] = name
  end
  table.sort(names)
  for _, name in ipairs(names) do
    parts[#parts + 1] = encode(name) .. ":" .. encode(fields[name])
  end
  return "{" .. table.concat(parts, ",") .. "}"
end

local Array = {}

--- Marks a list, so that it is one in JSON even when it is empty.
-- @tparam table list
function M.array(list)
  return setmetatable(list, Array)
end

function encode(value)
  if type(value) == "string" then
    return (cjson.encode(text.valid(value)):gsub("\\(.)", { ["/"] = "/" })) -- which need not be escaped
  elseif type(value) ~= "table" then
    return cjson.encode(value)
  elseif getmetatable(value) == Array or #value > 0 then
    return encode_list(value)
  end
  return encode_object(value)
end

--- Encodes plain data: fields in the order of their names.
-- @param value a table that does not contain itself
-- @treturn string
function M.encode(value)
  return encode(value)
end

return M
