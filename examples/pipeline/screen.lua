-- A block of lines that is drawn again and again: in place on a terminal, as plain lines elsewhere.
local luv = require("luv")

local screen = {}

local out = io.stdout
local is_terminal = luv.guess_handle(1) == "tty" and os.getenv("TERM") ~= "dumb"
local has_colour = is_terminal and (os.getenv("NO_COLOR") or "") == ""
local drawn = 0 -- lines of the block that stand there now

screen.is_terminal = is_terminal
out:setvbuf(is_terminal and "full" or "line")

local STYLES = { bold = "1", dim = "2", red = "31", green = "32", yellow = "33" }

-- Text that stands out, where there are colours.
function screen.style(name, text)
  return has_colour and ("\27[%sm%s\27[0m"):format(STYLES[name], text) or text
end

-- Columns of the terminal; some say 0 when they do not know.
local function width()
  local tty = luv.new_tty(1, false)
  local columns = tty and tty:get_winsize()
  if tty then
    tty:close()
  end
  return columns and columns > 0 and columns or 80
end

-- As much of a line as fits, not counting what only colours it.
local function fit(line, columns)
  local kept, seen, at = {}, 0, 1
  while at <= #line do
    local escape = line:match("^\27%[[%d;]*m", at)
    if escape then
      kept[#kept + 1] = escape
      at = at + #escape
    else
      local character = line:match("^" .. utf8.charpattern, at)
      seen = seen + 1
      kept[#kept + 1] = seen <= columns and character or ""
      at = at + #character
    end
  end
  return table.concat(kept)
end

-- Draws the block over the one before it.
function screen.draw(lines)
  local columns = width()
  if drawn > 0 then
    out:write(("\27[%dA"):format(drawn))
  end
  for _, line in ipairs(lines) do
    out:write("\r\27[K", fit(line, columns - 1), "\n")
  end
  drawn = #lines
  out:flush()
end

-- Writes a line below the block, which stays as it is.
function screen.line(text)
  drawn = 0
  out:write(text or "", "\n")
  out:flush()
end

return screen
