--- Text that others can read: UTF-8, whatever the bytes were.
-- @module weir.utf8

local M = {}

local INSTEAD = "\239\191\189" -- U+FFFD

local len = utf8 and utf8.len -- LuaJIT has none

-- The length of the character at a place; nil where there is none.
local function character(text, at)
  local first = text:byte(at)
  local size, low, high = nil, 0x80, 0xBF
  if first < 0x80 then
    return 1
  elseif first >= 0xC2 and first <= 0xDF then
    size = 2
  elseif first >= 0xE0 and first <= 0xEF then
    size = 3
    low, high = first == 0xE0 and 0xA0 or low, first == 0xED and 0x9F or high
  elseif first >= 0xF0 and first <= 0xF4 then
    size = 4
    low, high = first == 0xF0 and 0x90 or low, first == 0xF4 and 0x8F or high
  end
  for i = 1, (size or 0) - 1 do
    local byte = text:byte(at + i)
    if not byte or byte < low or byte > high then
      return nil
    end
    low, high = 0x80, 0xBF
  end
  return size
end

--- A text in which each byte that belongs to no character is U+FFFD.
-- @tparam string text any bytes
-- @treturn string the text itself where it is UTF-8
function M.valid(text)
  if not text:find("[\128-\255]") or len and len(text) then
    return text
  end
  local parts, at, from = {}, 1, 1
  while at <= #text do
    local size = character(text, at)
    if not size then
      parts[#parts + 1] = text:sub(from, at - 1) .. INSTEAD
      from = at + 1
    end
    at = at + (size or 1)
  end
  parts[#parts + 1] = text:sub(from)
  return table.concat(parts)
end

return M
