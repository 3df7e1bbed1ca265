--- Text on a terminal: how wide it is, cut and padded; numbers that fit into few columns.
-- @module weir.top.text

local text_of = require("weir.cli.text")

local M = {}

-- Characters of two columns, and of none: the ranges that are in use.
local WIDE = {
  { 0x1100, 0x115F }, { 0x2E80, 0xA4CF }, { 0xAC00, 0xD7A3 }, { 0xF900, 0xFAFF }, { 0xFE30, 0xFE6F },
  { 0xFF00, 0xFF60 }, { 0xFFE0, 0xFFE6 }, { 0x1F300, 0x1FAFF }, { 0x20000, 0x3FFFD },
}
local EMPTY = {
  { 0x300, 0x36F }, { 0x200B, 0x200F }, { 0x202A, 0x202E }, { 0x2060, 0x206F }, { 0xFE00, 0xFE0F },
}

-- Bytes of a text that are shown at most.
local MOST_BYTES = 2048

local function within(ranges, code)
  for _, range in ipairs(ranges) do
    if code >= range[1] and code <= range[2] then
      return true
    end
  end
  return false
end

local function columns(code)
  return code < 0x300 and 1 or within(EMPTY, code) and 0 or within(WIDE, code) and 2 or 1
end

--- A text in one line that moves no cursor and turns no line round; what no terminal has columns for is cut.
-- @param value anything
-- @treturn string
function M.clean(value)
  return text_of.line(tostring(value), MOST_BYTES)
end

--- Columns of a clean text.
function M.width(text)
  if not text:find("[\128-\255]") then
    return #text
  end
  local width = 0
  for _, code in utf8.codes(text) do
    width = width + columns(code)
  end
  return width
end

--- A clean text in exactly so many columns: cut, with "~" at its end, or padded.
-- @tparam string text
-- @tparam number width
-- @tparam[opt] boolean right whether it stands at the right
function M.fit(text, width, right)
  local has = M.width(text)
  if has > width then
    local at, used = 1, 0
    for place, code in utf8.codes(text) do
      at = place
      if used + columns(code) > width - 1 then
        break
      end
      used = used + columns(code)
    end
    text = width > 0 and text:sub(1, at - 1) .. "~" or ""
    has = width > 0 and used + 1 or 0
  end
  local padding = (" "):rep(width - has)
  return right and padding .. text or text .. padding
end

local UNITS = { "", "k", "M", "G", "T", "P" }

local function scaled(value, step)
  local unit = 1
  while math.abs(value) >= step - 0.5 and unit < #UNITS do
    value, unit = value / step, unit + 1
  end
  return value, UNITS[unit]
end

--- A number in at most five columns; "-" where there is none.
function M.number(value)
  if value == nil then
    return "-"
  elseif value ~= value or value == math.huge or value == -math.huge then
    return "?"
  end
  local short, unit = scaled(value, 1000)
  if unit == "" and value % 1 == 0 or math.abs(short) >= 100 then
    return ("%.0f%s"):format(short, unit)
  end
  return ("%.1f%s"):format(short, unit)
end

--- Bytes in at most eight columns.
function M.bytes(value)
  if value == nil then
    return "-"
  elseif value ~= value or math.abs(value) == math.huge then
    return "?"
  end
  local short, unit = scaled(value, 1024)
  if unit == "" then
    return ("%.0f B"):format(short)
  end
  return (math.abs(short) >= 100 and "%.0f %siB" or "%.1f %siB"):format(short, unit == "k" and "K" or unit)
end

--- Seconds in at most six columns.
function M.seconds(value)
  if value == nil then
    return "-"
  elseif value < 0.001 then
    return ("%.0fus"):format(value * 1e6)
  elseif value < 1 then
    return ("%.3gms"):format(value * 1e3)
  elseif value < 100 then
    return ("%.3gs"):format(value)
  end
  return ("%.0fs"):format(value)
end

return M
