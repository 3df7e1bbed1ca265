--- Reads the options of a command line.
local arguments = {}

local readers = {
  text = function(word)
    return word ~= "" and word or nil, "a text"
  end,
  count = function(word)
    local value = word:find("^%d+$") and tonumber(word)
    return value and value >= 1 and value <= 1000000000 and value or nil, "a whole number, at least 1"
  end,
  number = function(word)
    local value = tonumber(word)
    return value and value >= 0 and value <= 1e9 and value or nil, "a number, at least 0"
  end,
}

-- "  --delay SECONDS   wait ..." for each option, aligned.
local function list(spec)
  local lines, width = {}, 0
  for i, option in ipairs(spec.options) do
    lines[i] = "  --" .. option.name .. (option.value and " " .. option.value or "")
    width = math.max(width, #lines[i])
  end
  for i, option in ipairs(spec.options) do
    lines[i] = ("%-" .. width .. "s   %s"):format(lines[i], option.help)
  end
  lines[#lines + 1] = ("%-" .. width .. "s   %s"):format("  --help", "show this")
  return table.concat(lines, "\n")
end

local function help(spec)
  return ("Usage: lua5.4 %s\n\n%s\n\n%s\n"):format(spec.usage, spec.about, list(spec))
end

local function fail(spec, text)
  io.stderr:write(("%s: %s\nTry --help.\n"):format(spec.name, text))
  os.exit(2, true)
end

local function find(spec, name)
  for _, option in ipairs(spec.options) do
    if option.name == name then
      return option
    end
  end
  fail(spec, ("unknown option '--%s'"):format(name))
end

--- Reads `words`: `--name VALUE`, `--name=VALUE`, `--flag`, and up to `spec.words` others. Shows the
-- help, or says what is wrong, and ends the program where that is all there is to do.
-- @tparam table spec `name`, `usage`, `about`, `words`, `options`: a list of { name =, help = } and
--   for those with a value `value` (its name in the help), `kind` ("text", "count", "number"),
--   `default`, `many` (given several times, makes a list)
-- @tparam table words
-- @treturn table the values by name, the other words at 1..n
function arguments.read(spec, words)
  local values = {}
  for _, option in ipairs(spec.options) do
    values[option.name] = option.many and {} or option.default
  end
  local i = 1
  while i <= #words do
    local word = words[i]
    local name, value = word:match("^%-%-([%w-]+)=(.*)$")
    name = name or word:match("^%-%-([%w-]+)$")
    if word == "--help" or word == "-h" then
      io.stdout:write(help(spec))
      os.exit(0, true)
    elseif name then
      local option = find(spec, name)
      if not option.value then
        if value then
          fail(spec, ("--%s takes no value"):format(name))
        end
        values[name] = true
      else
        if not value then
          i = i + 1
          value = words[i]
        end
        local result, wanted = readers[option.kind](value or "")
        if result == nil then
          fail(spec, ("--%s needs %s"):format(name, wanted))
        elseif option.many then
          table.insert(values[name], result)
        else
          values[name] = result
        end
      end
    elseif word:find("^%-.") then
      fail(spec, ("unknown option '%s'"):format(word))
    elseif #values == (spec.words or 0) then
      fail(spec, ("one word too many: '%s'"):format(word))
    else
      values[#values + 1] = word
    end
    i = i + 1
  end
  return values
end

return arguments
