--- The commands of a session: `.help`, `.brokers` and so on.
-- @module weir.repl.commands

local cjson = require("cjson")
local errors = require("weir.errors")
local nearest = require("weir.nearest")
local printer = require("weir.repl.print")

local M = {}

local commands = {}

-- In the order of `.help`.
local ABOUT = {
  { "help", "", "this list" },
  { "brokers", "", "the brokers, and how they are" },
  { "subs", "", "the subscriptions, and what their handlers did" },
  { "stats", "[NAME]", "the numbers of a subscription or of an object; of the application without NAME" },
  { "publish", "NAME VALUE", "publish a value, a Lua expression or JSON" },
  { "tail", "NAME", "show what is published to NAME; again to end that" },
  { "load", "FILE", "run a Lua file here; its application becomes this session's" },
  { "reload", "", "load the file again and replace the handlers, while messages flow" },
  { "connect", "URL", "connect a broker: nats://HOST:PORT, memory:, ..." },
  { "save", "FILE", "write what was defined as an application, for weir run FILE" },
}

local BY_NAME = {}
for _, each in ipairs(ABOUT) do
  BY_NAME[each[1]] = each
end

--- The names of the commands.
-- @treturn {string,...}
function M.names()
  local names = {}
  for i, each in ipairs(ABOUT) do
    names[i] = each[1]
  end
  return names
end

local function misuse(name)
  local about = BY_NAME[name]
  return nil, errors.new("usage", ("write .%s %s: %s"):format(name, about[2], about[3]))
end

-- Characters of a text.
local function length(text)
  return utf8.len(text) or #text
end

-- Texts in columns.
local function grid(rows)
  local widths = {}
  for _, row in ipairs(rows) do
    for i, cell in ipairs(row) do
      widths[i] = math.max(widths[i] or 0, length(cell))
    end
  end
  local lines = {}
  for i, row in ipairs(rows) do
    local cells = {}
    for j, cell in ipairs(row) do
      cells[j] = j == #row and cell or cell .. (" "):rep(widths[j] - length(cell))
    end
    lines[i] = table.concat(cells, "  "):gsub("%s+$", "")
  end
  return #lines > 0 and table.concat(lines, "\n") .. "\n" or ""
end

local function cell(value)
  return printer.clean(tostring(value), 60)
end

function commands.help()
  local rows = {}
  for i, each in ipairs(ABOUT) do
    rows[i] = { "." .. each[1] .. (each[2] ~= "" and " " .. each[2] or ""), each[3] }
  end
  return grid(rows) .. [[

Anything else is Lua: an expression is printed, and _ is the last value. `app` is the application,
`weir` the library. Ctrl-C ends what waits, Ctrl-D the session.
]]
end

function commands.brokers(session)
  local rows, health = {}, session.app:health()
  for _, each in ipairs(session.app:describe().brokers) do
    local server, state = each.server or {}, health.brokers[each.label] or {}
    local where = server.host or server.pathname or ""
    local err = state.error and printer.clean(tostring(state.error), 200) or ""
    rows[#rows + 1] = { cell(each.label), cell(each.kind), cell(state.state or "?"), cell(where), err }
  end
  return rows[1] and grid(rows) or "no brokers; .connect URL adds one\n"
end

-- How a subscription is worked on, where that is not one message after the other.
local function manner(each)
  local workers, batch = each.workers, each.batch
  local words = batch and (", batches of %d"):format(batch.max) or ""
  if workers.count > 1 then
    words = words .. (", %d workers"):format(workers.count)
    if workers.by then
      words = words .. (workers.by == "key" and " by key" or " by a function")
    end
  end
  return words
end

function commands.subs(session)
  local rows, health = {}, session.app:health()
  local described = session.app:describe()
  for _, each in ipairs(described.subscriptions) do
    local numbers = health.handlers[each.id] or {}
    local failed = (numbers.retry or 0) + (numbers.drop or 0) + (numbers.dead_letter or 0)
    local done = ("%d done, %d failed, %d in flight"):format(numbers.ack or 0, failed, numbers.in_flight or 0)
    local row = { cell(each.id), cell(each.broker), cell(numbers.state or "closed"), done .. manner(each) }
    row[#row + 1] = cell(each.source)
    rows[#rows + 1] = row
  end
  for name in pairs(session.tails) do
    rows[#rows + 1] = { cell(name), "", "tail" }
  end
  table.sort(rows, function(a, b)
    return a[1] < b[1]
  end)
  return rows[1] and grid(rows) or "no subscriptions; app:subscriber(NAME, function(value, ctx) ... end) adds one\n"
end

-- The object of a name such as "net" or "app.metrics".
local function object_of(session, name)
  local fn = load("return " .. name, "=prompt", "t", session.env)
  local ok, value = pcall(fn or error)
  if ok and (type(value) == "table" or type(value) == "userdata") then
    local has, stats = pcall(function()
      return value.stats
    end)
    return has and type(stats) == "function" and value or nil
  end
end

function commands.stats(session, argument)
  local health = session.app:health()
  if argument == "" then
    return printer.format(health, session.width()) .. "\n"
  end
  local numbers = health.handlers[argument]
  if numbers then
    return printer.format(numbers, session.width()) .. "\n"
  end
  local object = argument:find("^[%a_][%w_.]*$") and object_of(session, argument)
  if object then
    return printer.format(object:stats(), session.width()) .. "\n"
  end
  local known = {}
  for id in pairs(health.handlers) do
    known[#known + 1] = id
  end
  table.sort(known)
  local meant = nearest(argument, known)
  local hint = meant and ("; did you mean '%s'?"):format(meant) or known[1] and "; there are: "
    .. table.concat(known, ", ") or ""
  return nil, errors.new("not_found", ("'%s' is no subscription, and no object with stats%s"):format(argument, hint))
end

-- A value as Lua or JSON writes it.
local function read_value(session, text)
  local fn, why = load("return " .. text, "=value", "t", session.env)
  if fn then
    return fn()
  end
  local ok, value = pcall(cjson.decode, text)
  if ok then
    return value
  end
  error(why, 0)
end

function commands.publish(session, argument)
  local name, text = argument:match("^(%S+)%s+(.+)$")
  if not name then
    return misuse("publish")
  end
  local value = read_value(session, text)
  if value == nil then
    return nil, errors.new("usage", "the value is nil, which cannot be published")
  end
  local ok, err = session:publish(name, value)
  if not ok then
    return nil, err
  end
  return ""
end

function commands.tail(session, argument)
  if argument == "" or argument:find("%s") then
    return misuse("tail")
  end
  local shown, err = session:tail(argument)
  if shown == nil then
    return nil, err
  end
  return shown and ("showing %s; .tail %s again ends it\n"):format(argument, argument)
    or ("%s is not shown any more\n"):format(argument)
end

function commands.load(session, argument)
  if argument == "" then
    return misuse("load")
  end
  local made, err = session:load(argument)
  if made == nil then
    return nil, err
  end
  return made and tostring(session.app) .. "\n" or ("%s is loaded\n"):format(argument)
end

function commands.reload(session)
  local report, err = session:reload()
  if not report then
    return nil, err
  elseif report.failed[1] then
    return nil, report.failed[1]
  end
  local text = ("handlers: %d replaced, %d new, %d closed\n"):format(report.replaced, report.new, report.closed)
  return text .. (report.included and "handlers in routers stay as they are; .load FILE starts again\n" or "")
end

function commands.connect(session, argument)
  if argument == "" or argument:find("%s") then
    return misuse("connect")
  end
  local label, err = session:connect(argument)
  if not label then
    return nil, err
  end
  return ("connected: %s\n"):format(label)
end

function commands.save(session, argument)
  if argument == "" then
    return misuse("save")
  end
  local count, missing = session.definitions:save(argument, session.source, session.order)
  if not count then
    return nil, errors.new("save", missing)
  end
  local text = ("%d definition%s in %s; weir run %s\n"):format(count, count == 1 and "" or "s", argument, argument)
  if missing[1] then
    text = text .. ("objects that are open here are not in it: %s\n"):format(table.concat(missing, ", "))
  end
  return text
end

--- Whether an input is a command: a dot, and a name.
-- @tparam string text
-- @treturn boolean
function M.is_command(text)
  return text:find("^%s*%.%a") ~= nil
end

--- Runs one. It may wait.
-- @param session
-- @tparam string text
-- @treturn string what is to be shown; or nil and an error
function M.run(session, text)
  local name, argument = text:match("^%s*%.(%a+)%s*(.-)%s*$")
  local command = name and commands[name]
  if not command then
    local word = text:match("^%s*%.(%S+)")
    local meant = nearest(word, M.names())
    local hint = meant and ("did you mean .%s?"):format(meant) or ".help lists them"
    return nil, errors.new("usage", ("there is no command .%s; %s"):format(printer.clean(word, 40), hint))
  end
  return command(session, argument)
end

return M
