--- How commands read their words, and the text, the completions and the manual made from that: one declaration for all.
--
-- argparse reads the words; here is what it leaves to say: names are looked up before it sees them, so that wrong ones
-- get the suggestions and the sentences that all of weir has, and a value may begin with a dash (`--from -1`).
--
-- A command that has `words` or `options` is run with what was read:
--
-- - `words`: a list of `{ name, label, about, optional, read, missing }`, in their order. `missing` is what is said
--   when one that is not optional is not there.
-- - `options`: a list of `{ name, label, about, short, many, read, exclusive }`. One without a label takes no value;
--   `short` is a letter for a single dash. With `many` it may be repeated, and its value is a list. Options with the
--   same text in `exclusive` (or in a list of them) exclude each other.
-- - `read(text)`: returns the value, or nil and what was wanted: "a whole number".
-- - `choices` (of either): all values that there are.
-- - `intro`, `notes` (text below the options), `examples` (a list of lines), `statuses` (of exit).
--
-- What was read is a table by name; what was not given is nil.
-- @module weir.cli.arguments
local found, argparse = pcall(require, "argparse")
local nearest = require("weir.nearest")

local M = {}

--- Why words cannot be read; nil where they can.
M.missing = not found
  and "the Lua module argparse does not load; install it (Debian: lua-argparse, LuaRocks: argparse)" or nil

--- What is said of exit statuses by a command that has no more than the usual ones.
M.STATUSES = "0 done, 1 it failed, 2 wrong use."

-- --- readers --------------------------------------------------------------------------------------

--- Reads one of a list of texts.
-- @tparam {string,...} known
function M.one_of(known)
  return function(text)
    for _, each in ipairs(known) do
      if each == text then
        return text
      end
    end
    local meant = nearest(text, known)
    local hint = meant and ("; did you mean '%s'?"):format(meant) or ""
    return nil, "must be one of " .. table.concat(known, ", "), hint
  end
end

--- Reads a whole number in a range.
-- @tparam integer least
-- @tparam integer most
function M.integer(least, most)
  return function(text)
    local value = text:find("^%d+$") and #text <= 15 and math.tointeger(tonumber(text))
    if value and value >= least and value <= most then
      return value
    end
    return nil, ("must be a whole number from %d to %d"):format(least, most)
  end
end

--- Reads a number of seconds above 0.
function M.seconds(text)
  local value = tonumber(text)
  if value and value > 0 and value <= 1e9 then
    return value
  end
  return nil, "must be a number of seconds above 0"
end

--- Reads a header of a message, `NAME:VALUE`.
function M.header(text)
  local name, value = text:match("^([%w!#$%%&'*+%-.^_`|~]+)%s*:%s*(.-)%s*$")
  if name and not value:find("%c") then
    return { name, value }
  end
  return nil, "needs NAME:VALUE"
end

--- Reads a variable of the environment, `NAME=VALUE`.
function M.variable(text)
  local name, value = text:match("^([^=%z]+)=([^%z]*)$")
  if name then
    return { name, value }
  end
  return nil, "needs NAME=VALUE"
end

-- --- the parser -----------------------------------------------------------------------------------

-- A text that came from outside, within a message: bounded, and without what would move the cursor.
local function shown(text)
  text = text:gsub("%c", "?")
  return #text <= 200 and text or text:sub(1, 200) .. "..."
end

local function complain(message, ...)
  return nil, message:format(...)
end

local function itself(text)
  return text
end

-- What argparse calls with a value; of a word, `name` is its label.
local function converter(name, declared)
  local read = declared.read or declared.choices and M.one_of(declared.choices) or itself
  return function(text)
    local value, wanted, hint = read(text)
    if value == nil then
      return nil, ("%s %s, not '%s'%s"):format(name, wanted, shown(text), hint or "")
    end
    return value
  end
end

-- argparse gets the choices for completions alone: its complaint about others names them all, and suggests nothing.
local function add_option(parser, option, complete)
  local dashed = "--" .. option[1]
  local names = option.short and ("-%s %s"):format(option.short, dashed) or dashed
  if not option[2] then
    return parser:flag(names, option[3]):target(option[1])
  end
  local made = parser:option(names, option[3]):argname(option[2]):target(option[1])
  made:convert(converter(dashed, option))
  if option.many then
    made:count("*")
  end
  if complete and option.choices then
    made:choices(option.choices)
  end
  return made
end

local function add_words(parser, words, complete)
  for _, word in ipairs(words or {}) do
    local made = parser:argument(word[2], word[3]):target(word[1]):args(word.optional and "?" or 1)
    made:convert(converter(word[2], word))
    if complete and word.choices then
      made:choices(word.choices)
    end
  end
end

local function add_options(parser, options, complete)
  local exclusive = {}
  for _, option in ipairs(options or {}) do
    local made = add_option(parser, option, complete)
    local groups = option.exclusive
    for _, group in ipairs(type(groups) == "table" and groups or { groups }) do
      exclusive[group] = exclusive[group] or {}
      table.insert(exclusive[group], made)
    end
  end
  for _, group in pairs(exclusive) do
    parser:mutex(table.unpack(group))
  end
end

-- What follows the name of a command in its usage line.
local function usage_of(command)
  local parts = {}
  for _, word in ipairs(command.words or {}) do
    parts[#parts + 1] = word.optional and "[" .. word[2] .. "]" or word[2]
  end
  if command.options and #command.options > 0 then
    parts[#parts + 1] = "[OPTION...]"
  end
  return table.concat(parts, " ")
end

--- What follows `weir NAME` in the usage line of a command.
-- @tparam table command
function M.usage(command)
  return command.usage or usage_of(command)
end

local function epilog_of(command)
  local parts = {}
  if command.notes then
    parts[#parts + 1] = command.notes
  end
  if command.examples then
    parts[#parts + 1] = "Examples:\n   " .. table.concat(command.examples, "\n   ")
  end
  parts[#parts + 1] = "Exit status: " .. (command.statuses or M.STATUSES)
  return table.concat(parts, "\n\n")
end

local function dress(parser, name, command)
  local usage = M.usage(command)
  local intro = command.intro and "\n\n" .. command.intro or ""
  parser:usage(("Usage: weir %s%s%s"):format(name, usage ~= "" and " " or "", usage))
  parser:description("  " .. command.summary .. intro)
  parser:epilog(epilog_of(command))
  parser:add_help(false):help_max_width(100)
end

-- Fills a parser, or a command of one, from a declaration.
local function fill(parser, name, command, complete)
  dress(parser, name, command)
  add_words(parser, command.words, complete)
  add_options(parser, command.options, complete)
  parser:flag("-h --help", "this text")
  return parser
end

--- Whether a command declares its words.
-- @tparam table command
function M.declared(command)
  return command.words ~= nil or command.options ~= nil
end

--- The text of `weir help NAME`.
-- @string name
-- @tparam table command
function M.help(name, command)
  return fill(argparse("weir " .. name), name, command):get_help()
end

--- A parser of all commands: for completions.
-- @tparam {string,...} names
-- @tparam function load returns a command by its name
function M.tree(names, load)
  local root = argparse("weir"):add_help(false):add_help("-h --help")
  for _, name in ipairs(names) do
    local command = load(name)
    local made = root:command(name, command.summary):summary(command.summary)
    fill(made, name, command, true)
    made:description(command.summary)
  end
  return root
end

-- --- reading --------------------------------------------------------------------------------------

local function find_option(command, name, short)
  for _, option in ipairs(command.options or {}) do
    if option[1] == name or option.short and option.short == short then
      return option
    end
  end
end

local function unknown_option(command, word)
  local names = {}
  for _, option in ipairs(command.options or {}) do
    names[#names + 1] = option[1]
  end
  local meant = nearest(word:match("^%-%-?([^=]*)"), names)
  return complain("unknown option '%s'%s", shown(word), meant and ("; did you mean '--%s'?"):format(meant) or "")
end

-- Joins an option and its value to one word. How many words that were.
local function join_option(command, words, i, joined)
  local word = words[i]
  local name, value = word:match("^%-%-([%w-]+)=(.*)$")
  name = name or word:match("^%-%-([%w-]+)$")
  local option = find_option(command, name, word:match("^%-(%a)$"))
  if not option then
    return unknown_option(command, word)
  end
  name = option[1]
  if not option[2] then
    if value then
      return complain("--%s takes no value", name)
    end
    joined[#joined + 1] = "--" .. name
    return 1
  end
  local used = value and 1 or 2
  value = value or words[i + 1]
  if not value then
    return complain("--%s needs a value", name)
  end
  joined[#joined + 1] = ("--%s=%s"):format(name, value)
  return used
end

local function check_count(command, plain)
  local words = command.words or {}
  local missing = words[#plain + 1]
  if missing and not missing.optional then
    return complain("%s", missing.missing or missing[2] .. " is missing")
  elseif #plain > #words then
    local what = #words == 0 and "it takes no words, not '%s'" or "one word too many: '%s'"
    return complain(what, shown(plain[#words + 1]))
  end
  return true
end

-- The words as argparse reads them without a doubt: options with their values, then the rest.
local function arrange(command, words)
  local joined, plain, i, options = {}, {}, 1, true
  while i <= #words do
    local word = words[i]
    if options and word == "--" then
      options, i = false, i + 1
    elseif options and word:find("^%-.") then
      local used, err = join_option(command, words, i, joined)
      if not used then
        return nil, err
      end
      i = i + used
    else
      plain[#plain + 1], i = word, i + 1
    end
  end
  joined[#joined + 1] = "--"
  table.move(plain, 1, #plain, #joined + 1, joined)
  return joined, plain
end

-- What argparse says, in the words of the rest.
local function own_words(message)
  local one, other = message:match("^option '(.-)' can not be used together with option '(.-)'$")
  return one and ("%s and %s exclude each other"):format(other, one) or message
end

--- Reads the words after the name of a command.
-- @string name
-- @tparam table command
-- @tparam {string,...} words
-- @treturn ?table what was read, by name
-- @return or what is wrong, as a sentence
function M.read(name, command, words)
  local joined, plain = arrange(command, words)
  if not joined then
    return nil, plain
  end
  local parser = fill(argparse("weir " .. name), name, command)
  local ok, result = parser:pparse(joined)
  if not ok and not result:find("^missing argument") and result ~= "too many arguments" then
    return nil, own_words(result)
  end
  local counted, err = check_count(command, plain)
  if not counted then
    return nil, err
  end
  for key, value in pairs(result) do
    if type(value) == "table" and next(value) == nil then
      result[key] = nil
    end
  end
  return result
end

return M
