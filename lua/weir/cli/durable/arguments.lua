--- Reads the words after `weir durable`: a verb, its options and its other words.
-- @module weir.cli.durable.arguments
local cli = require("weir.cli")
local nearest = require("weir.nearest")

local M = {}

local readers = {}

function readers.text(word)
  return word
end

function readers.count(word)
  local value = word:find("^%d+$") and #word <= 15 and math.tointeger(tonumber(word))
  return value or nil, "a whole number, at least 0"
end

function readers.seconds(word)
  local value = tonumber(word)
  return value and value > 0 and value <= 1e9 and value or nil, "a number of seconds above 0"
end

function readers.live(word)
  local known = word == "long-poll" or word == "sse" or word == "auto"
  return known and word or nil, "long-poll, sse or auto"
end

function readers.header(word)
  local name, value = word:match("^([%w!#$%%&'*+%-.^_`|~]+)%s*:%s*(.-)%s*$")
  return name and not value:find("%c") and { name, value } or nil, "a header such as 'Authorization: Bearer ...'"
end

-- The options of all verbs: how their value is read (nothing: they have none), and whether they may be
-- given several times.
local OPTIONS = {
  ["at"] = { "text" },
  ["ca"] = { "text" },
  ["checkpoint"] = { "text" },
  ["closed"] = {},
  ["content-type"] = { "text" },
  ["data"] = { "text" },
  ["expires-at"] = { "text" },
  ["from"] = { "text" },
  ["header"] = { "header", many = true },
  ["insecure"] = {},
  ["json"] = {},
  ["lines"] = {},
  ["live"] = { "live" },
  ["proxy"] = { "text" },
  ["quiet"] = {},
  ["retries"] = { "count" },
  ["skip"] = { "count" },
  ["timeout"] = { "seconds" },
  ["ttl"] = { "count" },
}

-- What every verb takes.
local COMMON = { "ca", "header", "insecure", "json", "proxy", "quiet", "retries", "timeout" }

-- What each verb takes beside that, and how many words there are to be.
local VERBS = {
  create = { words = 1, "closed", "content-type", "data", "expires-at", "ttl" },
  append = { words = 1, "content-type", "lines" },
  read = { words = 1, "checkpoint", "from", "live" },
  tail = { words = 1, "checkpoint", "from", "live" },
  head = { words = 1 },
  close = { words = 1, "content-type", "data" },
  delete = { words = 1 },
  fork = { words = 2, "at", "closed", "content-type", "data", "expires-at", "skip", "ttl" },
}

local ORDER = { "create", "append", "read", "tail", "head", "close", "delete", "fork" }

local function complain(message, word, names)
  local meant = word and nearest(word, names)
  if meant then
    message = ("%s; did you mean '%s'?"):format(message, names == ORDER and meant or "--" .. meant)
  end
  return nil, cli.usage_error(message)
end

local function options_of(verb)
  local names = { table.unpack(COMMON) }
  table.move(VERBS[verb], 1, #VERBS[verb], #names + 1, names)
  table.sort(names)
  return names
end

local function has(names, name)
  for _, each in ipairs(names) do
    if each == name then
      return true
    end
  end
  return false
end

-- Takes `--name VALUE` or `--name=VALUE` at args[i]. How many words that were; or nil and an error.
local function take_option(result, args, i)
  local word = args[i]
  local name, value = word:match("^%-%-([%w-]+)=(.*)$")
  name = name or word:match("^%-%-([%w-]+)$")
  local names = options_of(result.verb)
  if not name or not has(names, name) then
    local elsewhere = name and OPTIONS[name] and (" of '%s'"):format(result.verb) or ""
    return complain(("unknown option '%s'%s"):format(word, elsewhere), elsewhere == "" and name or nil, names)
  end
  local option, used = OPTIONS[name], 1
  if not option[1] then
    if value then
      return complain(("--%s takes no value"):format(name))
    end
    result[name] = true
    return used
  end
  if not value then
    value, used = args[i + 1], 2
  end
  local read, wanted
  if value then
    read, wanted = readers[option[1]](value)
  end
  if read == nil then
    return complain(("--%s needs %s"):format(name, wanted or "a value"))
  elseif option.many then
    result[name] = result[name] or {}
    table.insert(result[name], read)
  else
    result[name] = read
  end
  return used
end

local function check_words(result)
  local wanted = VERBS[result.verb].words
  if #result < wanted then
    local missing = #result == 0 and "the URL of a stream, such as http://localhost:4437/events"
      or "the URL of the new stream"
    return complain(("%s needs %s"):format(result.verb, missing))
  elseif #result > wanted then
    return complain(("one word too many: '%s'"):format(result[wanted + 1]))
  end
  return result
end

--- Reads the words.
-- @tparam {string,...} args
-- @treturn ?table `verb`, the options by name (`header` is a list of {name, value}), other words at 1..n
-- @return a usage error
function M.read(args)
  local verb = args[1]
  if not verb then
    return complain("what is to be done is missing: one of " .. table.concat(ORDER, ", "))
  elseif not VERBS[verb] then
    return complain(("unknown verb '%s'"):format(verb), verb, ORDER)
  end
  local result, i, options = { verb = verb }, 2, true
  while i <= #args do
    local word = args[i]
    if options and word == "--" then
      options = false
      i = i + 1
    elseif options and word:find("^%-.") then
      local used, err = take_option(result, args, i)
      if not used then
        return nil, err
      end
      i = i + used
    else
      result[#result + 1] = word
      i = i + 1
    end
  end
  return check_words(result)
end

return M
