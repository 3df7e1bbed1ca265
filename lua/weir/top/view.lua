--- What `weir top` shows, as lines of a terminal of some size.
-- @module weir.top.view

local text = require("weir.top.text")

local M = {}

local number, bytes, seconds = text.number, text.bytes, text.seconds
local clean, fit, width_of = text.clean, text.fit, text.width

-- Least columns of a name, before less important columns are left out.
local NAME = 14

local function outcome(name)
  return function(row)
    return row.outcome_rates[name]
  end
end

local function field(name)
  return function(row)
    return row[name]
  end
end

-- Of a table of the view: columns with their title, width, value and its form; those with the highest `rank` go first
-- when there is no room.
local subscription_columns = {
  { "MSG/S", 6, field("rate"), number, rank = 1 },
  { "ACK/S", 6, outcome("ack"), number, rank = 4 },
  { "RETRY/S", 7, field("retry_rate"), number, rank = 5 },
  { "DEAD/S", 6, field("dead_letter_rate"), number, rank = 6 },
  { "DROP/S", 6, outcome("drop"), number, rank = 9 },
  { "BUSY", 5, field("in_flight"), number, rank = 7 },
  { "QUEUE", 6, field("queued"), number, rank = 8 },
  { "LAG", 6, field("lag"), number, rank = 2 },
  { "P50", 6, field("p50"), seconds, rank = 10 },
  { "P99", 6, field("p99"), seconds, rank = 3 },
  { "TOTAL", 6, field("consumed"), number, rank = 11 },
}

local published_columns = {
  { "MSG/S", 6, field("rate"), number, rank = 1 },
  { "FAIL/S", 6, field("failed_rate"), number, rank = 2 },
  { "TOTAL", 6, field("published"), number, rank = 3 },
  { "FAILED", 6, field("failed"), number, rank = 4 },
}

local stream_columns = {
  { "MSG/S", 6, field("rate"), number, rank = 1 },
  { "BYTES/S", 9, field("byte_rate"), bytes, rank = 5 },
  { "QUEUE", 6, field("queued"), number, rank = 3 },
  { "CREDIT", 9, field("credit"), bytes, rank = 2 },
  { "PEERS", 5, field("peers"), number, rank = 8 },
  { "DROPPED", 7, field("dropped"), number, rank = 4 },
  { "GAPS", 5, field("gaps"), number, rank = 6 },
  { "EVICT", 5, field("evicted"), number, rank = 7 },
}

local function label_of_subscription(row, many)
  local name = row.handler == row.destination and row.destination or row.destination .. " (" .. row.handler .. ")"
  return many and row.broker .. " " .. name or name
end

local function label_of_published(row, many)
  return many and row.broker .. " " .. row.destination or row.destination
end

local function label_of_stream(row)
  return row.stream .. " " .. row.side
end

local TABLES = {
  { "subscriptions", "SUBSCRIPTION", subscription_columns, label_of_subscription },
  { "published", "PUBLISHED TO", published_columns, label_of_published },
  { "streams", "STREAM", stream_columns, label_of_stream },
}

--- The names by which subscriptions can be sorted, the name of the row first.
M.orders = { "name" }
for i, column in ipairs(subscription_columns) do
  M.orders[i + 1] = column[1]
end

-- --- tables ---------------------------------------------------------------------------------------

-- The columns that there is room for, and what is left for the name.
local function choose(columns, width)
  local chosen, left = {}, width
  for i, column in ipairs(columns) do
    chosen[i] = column
    left = left - column[2] - 1
  end
  while left < NAME and #chosen > 1 or left < 1 and #chosen == 1 do
    local worst = 1
    for i, column in ipairs(chosen) do
      worst = column.rank > chosen[worst].rank and i or worst
    end
    left = left + chosen[worst][2] + 1
    table.remove(chosen, worst)
  end
  return chosen, math.max(left, 1)
end

-- The rows in the order that is asked for; equals by name, as they come.
local function sorted(rows, columns, order, reverse)
  local value
  for _, column in ipairs(columns) do
    value = column[1] == order and column[3] or value
  end
  local places, list = {}, {}
  for i, row in ipairs(rows) do
    places[row], list[i] = i, row
  end
  if value then
    table.sort(list, function(a, b)
      local x, y = value(a) or -1, value(b) or -1
      if x ~= y then
        return x > y
      end
      return places[a] < places[b]
    end)
  end
  if reverse then
    for i = 1, math.floor(#list / 2) do
      list[i], list[#list + 1 - i] = list[#list + 1 - i], list[i]
    end
  end
  return list
end

local function many_brokers(rows)
  for _, row in ipairs(rows) do
    if row.broker ~= rows[1].broker then
      return true
    end
  end
  return false
end

local function table_lines(lines, about, data, options)
  local rows, title, columns = data[about[1]], about[2], about[3]
  if #rows == 0 then
    return
  end
  local chosen, left = choose(columns, options.width)
  local cells = {}
  for i, column in ipairs(chosen) do
    local mark = column[1] == options.sort and about[1] == "subscriptions" and "*" or ""
    cells[i] = " " .. fit(mark .. column[1], column[2], true)
  end
  lines[#lines + 1] = { "" }
  lines[#lines + 1] = { fit(title, left) .. table.concat(cells), style = "heading" }
  local many = many_brokers(rows)
  for _, row in ipairs(sorted(rows, columns, options.sort, options.reverse)) do
    lines[#lines + 1] = { row = row, about = about, chosen = chosen, left = left, many = many }
  end
end

-- The text of a row, which is made when it is clear that it is seen.
local function written(line)
  if line.row then
    local cells = {}
    for i, column in ipairs(line.chosen) do
      cells[i] = " " .. fit(column[4](column[3](line.row)), column[2], true)
    end
    line[1] = fit(clean(line.about[4](line.row, line.many)), line.left) .. table.concat(cells)
  end
  return line
end

-- --- the whole ------------------------------------------------------------------------------------

local function cut(line, width)
  return width_of(line) > width and fit(line, width) or line
end

local function broker_line(data)
  local parts = {}
  for i, row in ipairs(data.brokers) do
    local again = row.reconnects > 0 and (" (%s reconnects)"):format(number(row.reconnects)) or ""
    parts[i] = ("%s %s%s"):format(clean(row.broker), row.state or "?", again)
  end
  return #parts > 0 and "brokers: " .. table.concat(parts, ", ") or nil
end

local function runtime_line(runtime)
  local parts = {}
  local function add(form, value)
    if value then
      parts[#parts + 1] = form:format(value)
    end
  end
  add("tasks %s", runtime.tasks and number(runtime.tasks))
  add("memory %s", runtime.memory and bytes(runtime.memory))
  add("Lua %s", runtime.lua_memory and bytes(runtime.lua_memory))
  add("loop lag p99 %s", runtime.loop_lag_p99 and seconds(runtime.loop_lag_p99))
  return #parts > 0 and table.concat(parts, "  ") or nil
end

local function head(state, options)
  local first = "weir top  " .. clean(state.source)
  for _, each in ipairs(state.data and state.data.apps or {}) do
    local name = clean(each.app .. " " .. each.version)
    first = name == state.source and first or first .. "  " .. name
  end
  local lines = { { cut(first, options.width), style = "bold" } }
  local function add(line, style)
    if line then
      lines[#lines + 1] = { cut(line, options.width), style = style }
    end
  end
  if state.error then
    add(clean(state.error), "bad")
  elseif state.paused then
    add("paused; p goes on", "bold")
  end
  if state.data then
    add(broker_line(state.data))
    add(runtime_line(state.data.runtime))
  end
  return lines
end

--- Lines for a terminal.
-- @tparam table state `source`, `data` (of `model.compare`; nil until there is some), `error` (nil or a sentence),
--   `paused`, `log` (the last line of the application)
-- @tparam table options `width`, `height` (nil: as many lines as there are), `sort` (one of `orders`), `reverse`,
--   `skip` (lines that are scrolled away), `keys` (the line at the bottom)
-- @treturn {table,...} lines, each with its text first and perhaps `style`: "bold", "heading", "bad" or "faint"
-- @treturn number how many lines can be scrolled away
function M.lines(state, options)
  local lines = head(state, options)
  local fixed = #lines
  local data = state.data
  if data then
    for _, about in ipairs(TABLES) do
      table_lines(lines, about, data, options)
    end
    if not data.known then
      lines[#lines + 1] = { cut("these are metrics, but none of weir's", options.width), style = "bad" }
    elseif #lines == fixed then
      lines[#lines + 1] = { cut("nothing is subscribed or published yet", options.width), style = "faint" }
    end
  end
  if not options.height then
    for _, line in ipairs(lines) do
      written(line)
    end
    return lines, 0
  end
  local foot = {}
  if state.log then
    foot[1] = { cut(clean(state.log), options.width), style = "faint" }
  end
  foot[#foot + 1] = { cut(options.keys or "", options.width), style = "faint" }
  local room = options.height - #foot - fixed
  local body = #lines - fixed
  local most = math.max(0, body - room)
  local skip = math.max(0, math.min(options.skip or 0, most))
  local shown = {}
  for i = 1, math.min(fixed, options.height) do
    shown[i] = lines[i]
  end
  for i = 1, math.max(0, math.min(room, body)) do
    shown[#shown + 1] = written(lines[fixed + skip + i])
  end
  for _, line in ipairs(foot) do
    if #shown < options.height then
      shown[#shown + 1] = line
    end
  end
  return shown, most
end

return M
