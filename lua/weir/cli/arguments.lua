--- How commands read their words, and the text, the completions and the manual made from that: one declaration for all.
--
-- argparse reads the words; here is what it leaves to say: names are looked up before it sees them, so that wrong ones
-- get the suggestions and the sentences that all of weir has, and a value may begin with a dash (`--from -1`).
--
-- A command declares:
--
-- - `words`: a list of `{ name, label, about, optional, read, missing }`, in their order. `missing` is what is said
--   when one that is not optional is not there.
-- - `options`: a list of `{ name, label, about, short, many, read, exclusive }`. One without a label takes no value;
--   `short` is a letter for a single dash. With `many` it may be repeated, and its value is a list. Options with the
--   same text in `exclusive` (or in a list of them) exclude each other.
-- - `read(text)`: returns the value, or nil and what was wanted: "a whole number".
-- - `choices` (of either): all values that there are.
-- - `verbs`: of a command that does several things, a list of `{ name, about }`, each with `words`, `options` and texts
--   of its own. The options of the command are those of every verb; one that a verb has, too, is the verb's.
-- - `intro`, `notes` (text below the options), `examples` (a list of lines), `statuses` (of exit).
--
-- What was read is a table by name, with the name of the verb as `verb`; what was not given is nil.
-- @module weir.cli.arguments
local found, argparse = pcall(require, "argparse")
local nearest = require("weir.nearest")
local screen_text = require("weir.cli.text")

local M = {}

--- Why words cannot be read; nil where they can.
M.missing = not found
  and "the Lua module argparse does not load; install it (Debian: lua-argparse, LuaRocks: argparse)" or nil

--- What is said of exit statuses by a command that has no more than the usual ones.
M.STATUSES = "0 done, 1 it failed, 2 wrong use."

-- Columns of the text of help.
local WIDTH = 100

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

-- Bytes of a word that are shown when it is wrong.
local SHOWN = 200

local function shown(text)
  return screen_text.line(text, SHOWN)
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
    if #group > 1 then -- a verb may have one of them
      parser:mutex(table.unpack(group))
    end
  end
end

--- A verb of a command as a command of its own, with the options of both.
-- @tparam table command
-- @tparam table verb one of its `verbs`
-- @treturn table
function M.of_verb(command, verb)
  local options, own = { table.unpack(verb.options or {}) }, {}
  for _, option in ipairs(options) do
    own[option[1]] = true
  end
  for _, option in ipairs(command.options or {}) do
    if not own[option[1]] then
      options[#options + 1] = option
    end
  end
  return {
    summary = verb[2], words = verb.words, options = options, intro = verb.intro, notes = verb.notes,
    examples = verb.examples, statuses = verb.statuses or command.statuses, others = command.verbs,
  }
end

--- What follows `weir NAME` in the usage line of a command.
-- @tparam table command
function M.usage(command)
  local parts = { command.verbs and "VERB" or nil }
  for _, word in ipairs(command.words or {}) do
    parts[#parts + 1] = word.optional and "[" .. word[2] .. "]" or word[2]
  end
  if command.verbs then
    parts[#parts + 1] = "[ARGUMENT...]"
  elseif command.options and #command.options > 0 then
    parts[#parts + 1] = "[OPTION...]"
  end
  return table.concat(parts, " ")
end

--- The examples of a command, and of its verbs.
-- @tparam table command
-- @treturn {string,...}
function M.examples(command)
  local lines = { table.unpack(command.examples or {}) }
  for _, verb in ipairs(command.verbs or {}) do
    table.move(verb.examples, 1, #verb.examples, #lines + 1, lines)
  end
  return lines
end

-- Paragraphs become a line each, for argparse to wrap; those with indented lines (lists, programs) stay as they are.
local function flowing(text)
  return (text .. "\n\n"):gsub("(.-)\n\n+", function(paragraph)
    local listed = ("\n" .. paragraph):find("\n ")
    return (listed and paragraph or paragraph:gsub("\n", " ")) .. "\n\n"
  end):gsub("\n+$", "")
end

local function epilog_of(name, command)
  local parts = { command.notes and (flowing(command.notes)) }
  if command.verbs then
    parts[#parts + 1] = ("'weir %s VERB --help' tells more about one of them."):format(name)
  end
  parts[#parts + 1] = "Examples:\n   " .. table.concat(M.examples(command), "\n   ")
  parts[#parts + 1] = "Exit status: " .. (command.statuses or M.STATUSES)
  return table.concat(parts, "\n\n")
end

local function dress(parser, name, command)
  local usage = M.usage(command)
  local intro = command.intro and "\n\n" .. flowing(command.intro) or ""
  parser:usage(("Usage: weir %s%s%s"):format(name, usage ~= "" and " " or "", usage))
  parser:description("  " .. command.summary .. intro)
  parser:epilog(epilog_of(name, command))
  parser:add_help(false)
end

-- Fills a parser, or a command of one, from a declaration.
local function fill(parser, name, command, complete)
  dress(parser, name, command)
  add_words(parser, command.words, complete)
  add_options(parser, command.options, complete)
  parser:flag("-h --help", "this text")
  return parser
end

-- Adds commands to a parser of completions: verbs, or the values of a word that shells offer like them.
local function add_commands(parser, name, list)
  for _, each in ipairs(list) do
    local made = parser:command(each[1], each[2]):summary(each[2])
    fill(made, name .. " " .. each[1], each, true)
    made:description(each[2])
  end
end

--- The text of `weir help NAME`, or `weir help NAME VERB`.
-- @string name
-- @tparam table command
-- @tparam[opt] table verb one of its `verbs`
-- @tparam[opt=100] integer width of its lines
function M.help(name, command, verb, width)
  if verb then
    name, command = name .. " " .. verb[1], M.of_verb(command, verb)
  end
  local parser, verbs = fill(argparse("weir " .. name), name, command), {}
  for i, each in ipairs(command.verbs or {}) do
    verbs[i] = parser:argument(each[1], each[2])
  end
  return parser:group("Verbs", table.unpack(verbs)):help_max_width(width or WIDTH):get_help()
end

-- The verbs of a command; or the choices of its first word, which are offered in the same way.
local function branches(command)
  local list = {}
  for i, verb in ipairs(command.verbs or {}) do
    list[i] = M.of_verb(command, verb)
    list[i][1], list[i][2] = verb[1], verb[2]
  end
  local first = (command.words or {})[1]
  for i, choice in ipairs(first and first.choices or {}) do
    local words = { table.unpack(command.words, 2) }
    list[i] = { choice, first[3], summary = first[3], words = words, options = command.options }
  end
  return list
end

--- A parser of all commands: for completions.
-- @tparam {string,...} names
-- @tparam function load returns a command by its name
function M.tree(names, load)
  local root = argparse("weir"):add_help(false)
  root:flag("-h --help", "explain weir, or the command before it")
  root:flag("--version", "print the version of weir and of what it runs on")
  for _, name in ipairs(names) do
    local command = load(name)
    local made = root:command(name, command.summary):summary(command.summary)
    local inner = branches(command)
    -- What is offered instead of its first word is not offered twice.
    local rest = #inner == 0 and command or { summary = command.summary, options = command.options }
    fill(made, name, rest, true)
    add_commands(made, name, inner)
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

-- The verbs of a list that have an option of this name.
local function owners(verbs, name)
  local names = {}
  for _, verb in ipairs(verbs or {}) do
    if find_option(verb, name) then
      names[#names + 1] = verb[1]
    end
  end
  return #names > 0 and table.concat(names, ", "):gsub(", ([^,]*)$", " and %1") or nil
end

local function unknown_option(command, word)
  local name = word:match("^%-%-([^=]*)")
  local elsewhere = name and owners(command.others, name)
  if elsewhere then
    return complain("--%s is an option of %s", name, elsewhere)
  end
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

-- What a word before the verb is, where it is an option: whether the word after it is its value.
local function takes_next(command, word)
  if word:find("=", 1, true) then
    return false
  end
  local name, short = word:match("^%-%-(.*)$"), word:match("^%-(%a)$")
  local option = find_option(command, name, short)
  for _, verb in ipairs(command.verbs) do
    option = option or find_option(verb, name, short)
  end
  return option ~= nil and option[2] ~= nil
end

local function verb_named(command, name)
  for _, verb in ipairs(command.verbs or {}) do
    if verb[1] == name then
      return verb
    end
  end
end

--- The verb among the words after the name of a command.
-- @tparam table command
-- @tparam {string,...} words
-- @treturn ?table one of its `verbs`
-- @treturn ?integer which of the words it would be; nil when there is none
function M.verb_of(command, words)
  local i = 1
  while command.verbs and words[i] do
    if words[i]:find("^%-.") and words[i] ~= "--" then
      i = i + (takes_next(command, words[i]) and 2 or 1)
    else
      return verb_named(command, words[i]), i
    end
  end
end

local function read_verb(name, command, words)
  local names = {}
  for i, verb in ipairs(command.verbs) do
    names[i] = verb[1]
  end
  local verb, at = M.verb_of(command, words)
  if not at then
    return complain("what is to be done is missing: one of %s", table.concat(names, ", "))
  elseif not verb then
    local _, wanted, hint = M.one_of(names)(words[at])
    return complain("VERB %s, not '%s'%s", wanted, shown(words[at]), hint)
  end
  local rest = { table.unpack(words) }
  table.remove(rest, at)
  local result, err = M.read(name .. " " .. verb[1], M.of_verb(command, verb), rest)
  if not result then
    return nil, err
  end
  result.verb = verb[1]
  return result
end

--- Reads the words after the name of a command.
-- @string name
-- @tparam table command
-- @tparam {string,...} words
-- @treturn ?table what was read, by name
-- @return or what is wrong, as a sentence
function M.read(name, command, words)
  if command.verbs then
    return read_verb(name, command, words)
  end
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
