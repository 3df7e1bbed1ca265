--- Text from outside, as terminals may have it: nothing in it moves the cursor or turns the line round.
-- @module weir.cli.text

local M = {}

local function escape(text)
  return (text:gsub(".", function(char)
    return ("\\%d"):format(char:byte())
  end))
end

--- Bytes for a terminal: as they are where they are text; else control characters (those of Unicode, too, but not tabs
-- and line ends) and what is no UTF-8 are escaped as in Lua.
-- @string text
-- @tparam[opt] integer most bytes of it that are shown
-- @treturn string
function M.shown(text, most)
  local left = 0
  if most and #text > most then
    left = #text - most
    text = text:sub(1, utf8.len(text) and utf8.offset(text, 0, most + 1) - 1 or most)
  end
  text = text:gsub("[%z\1-\8\11-\31\127]", escape)
  if utf8.len(text) then
    -- C1, and the marks of the direction of writing.
    text = text:gsub("\194[\128-\159]", escape):gsub("\226\128[\142\143\168-\174]", escape)
    text = text:gsub("\226\129[\166-\169]", escape)
  else
    text = text:gsub("[\128-\255]", escape)
  end
  return left > 0 and ("%s... (%d bytes more)"):format(text, left) or text
end

--- The same on one line.
-- @string text
-- @tparam[opt] integer most
-- @treturn string
function M.line(text, most)
  return (M.shown(text:gsub("%s+", " "), most))
end

return M
