--- Values as text for people: readable, bounded, and safe with whatever a program holds.
--
-- Tables are shown as Lua would write them, on one line where that fits; what is nested too deep, comes again in itself
-- or is too long is left out, and said to be. Objects say themselves what they are (`__tostring`), errors come with
-- their context. No other metamethod is called, and nothing here raises.
-- @module weir.repl.print

local errors = require("weir.errors")

local M = {}

-- What is shown at most: levels of tables, fields of one table, bytes of one string, and values and bytes in all.
local DEPTH, FIELDS, BYTES, VALUES, TOTAL = 5, 50, 1000, 2000, 20000
-- Columns that a line may have when nobody says how wide the screen is.
local WIDTH = 80
-- Keys of a table that are sorted; of a larger table some are shown.
local SORTED = 5000

local KEYWORDS = {}
for word in ([[and break do else elseif end false for function goto if in local nil not or repeat return then true until
  while]]):gmatch("%a+") do
  KEYWORDS[word] = true
end

local SHORT = { ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t", ['"'] = '\\"', ["\\"] = "\\\\" }

local function escape(char)
  return SHORT[char] or ("\\x%02x"):format(char:byte())
end

local function escape_character(text)
  return ("\\u{%x}"):format(rawget(_G, "utf8").codepoint(text))
end

-- Beside U+0080 to U+009F: what ends lines (U+2028, U+2029), and what lets text run from right to left, so that it
-- reads as something that it is not (U+200E, U+200F, U+202A to U+202E, U+2066 to U+2069).
local function escape_wide(text)
  text = text:gsub("\194[\128-\159]", escape_character)
  text = text:gsub("\226\128[\142\143\168-\174]", escape_character)
  return text:gsub("\226\129[\166-\169]", escape_character)
end

local function is_utf8(text)
  local utf8 = rawget(_G, "utf8")
  return utf8 and utf8.len(text) ~= nil
end

-- Cuts a text that is too long, not within a character.
local function cut(text, most)
  local at = most
  while at > most - 4 and (text:byte(at + 1) or 0) >= 128 and (text:byte(at + 1) or 0) < 192 do
    at = at - 1
  end
  return text:sub(1, at)
end

local function clean(text)
  text = text:gsub('[%z\1-\31\127]', escape)
  if not text:find("[\128-\255]") then
    return text
  elseif is_utf8(text) then
    return (escape_wide(text))
  end
  return (text:gsub("[\128-\255]", escape))
end

--- A text that comes from elsewhere as one line that cannot do anything to a terminal.
-- @tparam string text
-- @tparam[opt=1000] number most bytes
-- @treturn string
function M.clean(text, most)
  most = most or BYTES
  if #text > most then
    return ("%s... (%d bytes)"):format(clean(cut(text, most)), #text)
  end
  return clean(text)
end

--- A text of several lines that cannot do anything to a terminal.
-- @tparam string text
-- @tparam[opt=4000] number most bytes
-- @treturn string
function M.lines(text, most)
  most = most or 4 * BYTES
  local tail = #text > most and ("... (%d bytes)"):format(#text) or ""
  return (cut(text, most):gsub("\t", "  "):gsub("[^\n]+", clean)) .. tail
end

local function quote(text)
  local tail = ""
  if #text > BYTES then
    tail = (" .. (%d bytes in all)"):format(#text)
    text = cut(text, BYTES)
  end
  text = text:gsub('[\\"]', escape)
  return '"' .. clean(text) .. '"' .. tail
end

local function own_text(value, show)
  local ok, text = pcall(tostring, value)
  if not ok or type(text) ~= "string" then
    return ("a %s whose __tostring fails"):format(type(value))
  end
  return (show or M.clean)(text)
end

local function function_text(fn)
  local info = debug.getinfo(fn, "S")
  if info.what == "C" then
    return "function (built in)"
  end
  return ("function (%s:%d)"):format(M.clean(info.short_src, 80), info.linedefined)
end

local function number_text(value)
  if value ~= value then
    return "nan"
  elseif value == math.huge or value == -math.huge then
    return value > 0 and "inf" or "-inf"
  end
  return tostring(value)
end

local function scalar(value)
  local kind = type(value)
  if kind == "string" then
    return quote(value)
  elseif kind == "number" then
    return number_text(value)
  elseif kind == "function" then
    return function_text(value)
  elseif kind == "nil" or kind == "boolean" then
    return tostring(value)
  end
  return own_text(value)
end

local ORDER = { number = 1, string = 2, boolean = 3 }

local function before(a, b)
  local kind_a, kind_b = type(a), type(b)
  if kind_a ~= kind_b then
    return (ORDER[kind_a] or 4) < (ORDER[kind_b] or 4)
  elseif kind_a == "number" or kind_a == "string" then
    return a < b
  end
  return false
end

-- The keys that do not belong to the list 1..count, in order, and how many were left out.
local function keys_of(value, count)
  local keys, left = {}, 0
  for key in next, value do
    local listed = type(key) == "number" and key >= 1 and key <= count and key % 1 == 0
    if not listed then
      if #keys < SORTED then
        keys[#keys + 1] = key
      else
        left = left + 1
      end
    end
  end
  table.sort(keys, before)
  return keys, left
end

local function key_text(key)
  if type(key) == "string" and key:find("^[%a_][%w_]*$") and not KEYWORDS[key] then
    return key
  end
  return "[" .. scalar(key) .. "]"
end

local render

local function length_of(value)
  local count = 0
  while rawget(value, count + 1) ~= nil do
    count = count + 1
  end
  return count
end

-- The texts of the fields of a table.
local function fields_of(self, value, depth)
  local parts, count = {}, length_of(value)
  for i = 1, math.min(count, FIELDS) do
    parts[i] = render(self, rawget(value, i), depth + 1)
  end
  local keys, left = keys_of(value, count)
  left = left + math.max(0, count - FIELDS)
  for _, key in ipairs(keys) do
    if #parts >= FIELDS then
      left = left + 1
    else
      parts[#parts + 1] = key_text(key) .. " = " .. render(self, rawget(value, key), depth + 1)
    end
  end
  if left > 0 then
    parts[#parts + 1] = ("... %d more"):format(left)
  end
  return parts
end

-- Fields between braces: on one line where it fits.
local function braces(self, parts, depth)
  if #parts == 0 then
    return "{}"
  end
  local room = self.width - 2 * depth - 4
  local length, lines = 0, false
  for _, part in ipairs(parts) do
    length = length + #part + 2
    lines = lines or part:find("\n", 1, true)
  end
  if not lines and length <= room then
    return "{ " .. table.concat(parts, ", ") .. " }"
  end
  local indent = ("  "):rep(depth + 1)
  return "{\n" .. indent .. table.concat(parts, ",\n" .. indent) .. ",\n" .. ("  "):rep(depth) .. "}"
end

local function table_text(self, value, depth)
  if self.inside[value] then
    return "{ a cycle }"
  elseif depth >= DEPTH then
    return next(value) == nil and "{}" or "{ ... }"
  end
  self.inside[value] = true
  local text = braces(self, fields_of(self, value, depth), depth)
  self.inside[value] = nil
  return text
end

-- What the sentence of an error says already, and what is for those who debug weir.
local SAID = { code = true, message = true, mistakes = true, traceback = true }

-- An error: its sentence, and what else it knows.
local function error_text(self, err, depth)
  local context = {}
  for key, value in next, err do
    if not SAID[key] then
      context[key] = value
    end
  end
  local text = "error " .. own_text(err, depth == 0 and M.lines or nil)
  if next(context) == nil then
    return text
  end
  return text .. " " .. table_text(self, context, depth)
end

local function is_object(value)
  local ok, meta = pcall(debug.getmetatable, value)
  return ok and type(meta) == "table" and (rawget(meta, "__tostring") ~= nil or rawget(meta, "__name") ~= nil)
end

-- Anything but a plain table or an error.
local function leaf(self, value)
  local text = type(value) == "table" and own_text(value) or scalar(value)
  self.bytes = self.bytes - #text
  return text
end

function render(self, value, depth)
  self.left = self.left - 1
  if self.left < 0 or self.bytes < 0 then
    return "..."
  elseif errors.is(value) then
    return error_text(self, value, depth)
  elseif type(value) ~= "table" or is_object(value) then
    return leaf(self, value)
  end
  return table_text(self, value, depth)
end

--- A value as text.
-- @param value anything
-- @tparam[opt=80] number width columns that a line may have
-- @treturn string of one line or several, without a newline at its end
function M.format(value, width)
  local self = { width = math.max(20, width or WIDTH), left = VALUES, bytes = TOTAL, inside = {} }
  return render(self, value, 0)
end

--- Several values, as a function returned them.
-- @tparam table values with the field `n`
-- @tparam[opt=80] number width
-- @treturn string
function M.all(values, width)
  local parts = {}
  for i = 1, math.min(values.n, FIELDS) do
    parts[i] = M.format(values[i], width)
  end
  if values.n > FIELDS then
    parts[#parts + 1] = ("... %d more"):format(values.n - FIELDS)
  end
  return table.concat(parts, ", ")
end

return M
