--- What the programs write: lines, and one line of progress that is overwritten on a terminal.
local luv = require("luv")

local console = {}

local out = io.stdout

--- Whether the standard output is a terminal that can overwrite a line.
console.is_terminal = luv.guess_handle(1) == "tty" and os.getenv("TERM") ~= "dumb"

local colours = console.is_terminal and not os.getenv("NO_COLOR")
local progress = nil -- what the line of progress shows
local last = -math.huge

-- Lines leave at once, also through a pipe.
out:setvbuf("line")

local function now()
  return luv.hrtime() / 1e9
end

local function clear()
  if progress and console.is_terminal then
    out:write("\r\27[K")
  end
end

--- Writes a line; the line of progress stays below it.
function console.line(text)
  clear()
  out:write(text, "\n")
  if progress and console.is_terminal then
    out:write(progress)
    out:flush()
  end
end

--- The same, to the standard error.
function console.warn(text)
  clear()
  out:flush()
  io.stderr:write(text, "\n")
  if progress and console.is_terminal then
    out:write(progress)
    out:flush()
  end
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

--- Shows how far things are: overwrites the last such line on a terminal, ten times a second at
-- most; elsewhere it is a line of its own every second.
function console.progress(text)
  local time = now()
  if time - last < (console.is_terminal and 0.1 or 1) then
    return
  end
  last = time
  if console.is_terminal then
    clear()
    progress = text:sub(1, width() - 1)
    out:write(progress)
    out:flush()
  else
    out:write(text, "\n")
  end
end

--- There is no more progress.
function console.finish()
  clear()
  progress = nil
  out:flush()
end

--- Text that stands out, where there are colours.
function console.bold(text)
  return colours and "\27[1m" .. text .. "\27[0m" or text
end

--- A line safe to show: `?` for bytes that a terminal would act on, or that are no UTF-8; cut to so
-- many characters.
function console.printable(text, most)
  text = text:sub(1, most * 4)
  if not utf8.len(text) then
    text = text:gsub("[\128-\255]", "?")
  end
  text = text:gsub("[%c\127]", "?")
  local cut = utf8.offset(text, most + 1)
  return cut and cut <= #text and text:sub(1, utf8.offset(text, most - 2) - 1) .. "..." or text
end

--- Writes a table: the first row is the heading; first column to the left, the others to the right,
-- and a last one that stands under no heading to the left again.
function console.table(rows)
  local widths = {}
  for _, row in ipairs(rows) do
    for i, cell in ipairs(row) do
      widths[i] = math.max(widths[i] or 0, #cell)
    end
  end
  for number, row in ipairs(rows) do
    local cells = {}
    for i, cell in ipairs(row) do
      local left = i == 1 or i > #rows[1]
      cells[i] = (left and "%-" .. widths[i] .. "s" or "%" .. widths[i] .. "s"):format(cell)
    end
    local line = table.concat(cells, "  "):gsub(" +$", "")
    console.line(number == 1 and console.bold(line) or line)
  end
end

--- The row of a consumer in such a table.
function console.row(name, stats, remark)
  return {
    name,
    ("%d"):format(stats.received),
    ("%d"):format(stats.dropped),
    ("%.0f/s"):format(stats.uptime > 0 and stats.received / stats.uptime or 0),
    ("%.1f s"):format(stats.uptime),
    remark,
  }
end

console.heading = { "consumer", "received", "dropped", "rate", "uptime" }

return console
