--- What could be meant by the beginning of a name: globals, fields and methods, options, commands, subscriptions.
--
-- Nothing of the program is called for it, no metamethod either.
-- @module weir.repl.complete

local luv = require("luv")
local printer = require("weir.repl.print")

local M = {}

-- Names that are looked at, and shown.
local MOST = 2000

local KEYWORDS = {}
for word in ([[and break do else elseif end false for function goto if in local nil not or repeat return then true until
  while]]):gmatch("%a+") do
  KEYWORDS[#KEYWORDS + 1] = word
end

-- The options that a function takes, by its name and what it belongs to.
local function settings_of(kind)
  return function(path)
    return require("weir.app.settings").names(kind, path)
  end
end

local function options_of(module)
  return function(path)
    local names = {}
    for name in pairs(path[1] and names or require(module).OPTIONS) do
      names[#names + 1] = name
    end
    return names
  end
end

local OPTIONS = {
  subscriber = settings_of("subscriber"),
  batch = settings_of("batch"),
  include = settings_of("include"),
  broker = settings_of("broker"),
  publisher = settings_of("publisher"),
  app = settings_of("app"),
  router = settings_of("router"),
  produce = options_of("weir.streams.producer"),
  consume = options_of("weir.streams.consumer"),
  network = options_of("weir.streams.network"),
  client = options_of("weir.durable.client"),
  producer = options_of("weir.durable.producer"),
  read = options_of("weir.durable.reader"),
  stream = options_of("weir.durable.stream"),
}

-- --- what a value has -----------------------------------------------------------------------------

local function index_of(value)
  local meta = debug.getmetatable(value)
  if type(meta) ~= "table" then
    return nil
  end
  return rawget(meta, "__index"), rawget(meta, "names")
end

-- Calls fn(key, value) for each name that a value has, its own first.
local function each_name(value, fn)
  local left = MOST
  for _ = 1, 10 do
    if type(value) == "table" then
      for key, field in next, value do
        left = left - 1
        if left < 0 then
          return
        elseif type(key) == "string" and key:find("^[%a_][%w_]*$") then
          fn(key, field)
        end
      end
    end
    local index, names = index_of(value)
    for key in pairs(type(names) == "table" and names or {}) do
      fn(key, print)
    end
    if type(index) ~= "table" then
      return
    end
    value = index
  end
end

local function get(value, name)
  for _ = 1, 10 do
    if type(value) == "table" then
      local field = rawget(value, name)
      if field ~= nil then
        return field
      end
    end
    local index, names = index_of(value)
    if type(names) == "table" and names[name] then
      return require(names[name])
    elseif type(index) ~= "table" then
      return nil
    end
    value = index
  end
end

-- --- what was typed -------------------------------------------------------------------------------

local function starting_with(word, add)
  local found, seen = {}, {}
  add(function(name)
    if not seen[name] and name:sub(1, #word) == word then
      seen[name] = true
      found[#found + 1] = name
    end
  end)
  table.sort(found)
  return found
end

local function among(word, names)
  return starting_with(word, function(add)
    for _, name in ipairs(names) do
      add(name)
    end
  end)
end

-- Whether the cursor is inside of a text between quotes.
local function in_string(text)
  local quote
  local i = 1
  while i <= #text do
    local char = text:sub(i, i)
    if quote and char == "\\" then
      i = i + 1
    elseif quote == char or char == "\n" then
      quote = nil
    elseif not quote and (char == '"' or char == "'") then
      quote = char
    end
    i = i + 1
  end
  return quote ~= nil
end

-- The function to whose call the innermost open brace belongs, and the fields on the way to it: in
-- `app:subscriber("a", { retry = {` "subscriber" and { "retry" }.
local function called_with_braces(text)
  local depth, path = 0, {}
  for i = #text, 1, -1 do
    local char = text:sub(i, i)
    if char == "}" or char == ")" then
      depth = depth + 1
    elseif (char == "{" or char == "(") and depth > 0 then
      depth = depth - 1
    elseif char == "{" then
      local before = text:sub(1, i - 1):match("^(.-)%s*$")
      local field = before:match("([%a_][%w_]*)%s*=$")
      if not field then
        return before:match("([%a_][%w_]*)$") or before:match("([%a_][%w_]*)%s*%([^()]*$"), path
      end
      table.insert(path, 1, field)
    elseif char == "(" then
      return nil
    end
  end
end

local function members(session, path, word)
  local base, separator = path:match("^(.*)([.:])$")
  local value
  for name in base:gmatch("[^.:]+") do
    if value == nil then
      value = session:global(name)
    else
      value = get(value, name)
    end
    if value == nil then
      return {}
    end
  end
  return starting_with(word, function(add)
    each_name(value, function(name, field)
      if separator == "." or type(field) == "function" then
        if word ~= "" or name:sub(1, 1) ~= "_" then
          add(name)
        end
      end
    end)
  end)
end

local function names_in_scope(session, text, word)
  local called, field
  if text:find("[{,]%s*$") then
    called, field = called_with_braces(text)
  end
  local fn = OPTIONS[called or ""]
  if fn then
    local found = among(word, fn(field))
    if #found > 0 then
      return found, " = "
    end
  end
  if word == "" then
    return {}
  end
  return starting_with(word, function(add)
    for _, name in ipairs(KEYWORDS) do
      add(name)
    end
    for _, names in ipairs({ session.vars, _G }) do
      each_name(names, add)
    end
  end)
end

local function destinations(session)
  return session:destinations()
end

-- The files that a path may become; folders with a slash.
local function files(_, path)
  local folder = path:match("^.*/") or ""
  local scan = luv.fs_scandir(folder == "" and "." or folder)
  local names = {}
  while scan and #names < MOST do
    local name, kind = luv.fs_scandir_next(scan)
    if not name then
      break
    elseif printer.clean(name) == name and (name:sub(1, 1) ~= "." or path:sub(#folder + 1, #folder + 1) == ".") then
      names[#names + 1] = folder .. name .. (kind == "directory" and "/" or "")
    end
  end
  return names
end

local ARGUMENTS = { publish = destinations, tail = destinations, stats = destinations, load = files, save = files }

-- The candidates for a text up to the cursor, the beginning that is there, and what follows a single one.
local function find(session, text)
  local command = text:match("^%s*(%.%a*)$")
  if command then
    return starting_with(command, function(add)
      for _, name in ipairs(require("weir.repl.commands").names()) do
        add("." .. name)
      end
    end), command, " "
  end
  local which, argument = text:match("^%s*%.(%a+) (%S*)$")
  if which and ARGUMENTS[which] then
    return among(argument, ARGUMENTS[which](session, argument)), argument, ""
  end
  if in_string(text) then
    return {}, "", ""
  end
  local path, word = text:match("([%a_][%w_.:]*[.:])([%w_]*)$")
  if path then
    return members(session, path, word), word, ""
  end
  word = text:match("[%a_][%w_]*$") or ""
  local found, tail = names_in_scope(session, text:sub(1, #text - #word), word)
  return found, word, tail or ""
end

local function common(names)
  local shared = names[1]
  for _, name in ipairs(names) do
    while name:sub(1, #shared) ~= shared do
      shared = shared:sub(1, -2)
    end
  end
  return shared
end

--- Completes what stands before the cursor.
-- @param session
-- @tparam string line
-- @tparam integer point bytes before the cursor
-- @treturn ?string what is to be inserted; nil when nothing is known
-- @treturn {string,...} the candidates, when there are several and nothing can be inserted
function M.complete(session, line, point)
  local names, word, tail = find(session, line:sub(1, point))
  if #names == 0 then
    return nil, {}
  elseif #names == 1 then
    return names[1]:sub(#word + 1) .. tail, {}
  end
  local insertion = common(names):sub(#word + 1)
  return insertion, insertion == "" and names or {}
end

--- Names in columns, for a screen.
-- @tparam {string,...} names
-- @tparam number width
-- @treturn string
function M.columns(names, width)
  local widest, shown = 0, math.min(#names, 200)
  for i = 1, shown do
    widest = math.max(widest, #names[i])
  end
  local across = math.max(1, width // (widest + 2))
  local parts = {}
  for i = 1, shown do
    local last = i % across == 0 or i == shown
    parts[#parts + 1] = last and names[i] .. "\n" or names[i] .. (" "):rep(widest + 2 - #names[i])
  end
  if shown < #names then
    parts[#parts + 1] = ("... %d more\n"):format(#names - shown)
  end
  return table.concat(parts)
end

return M
