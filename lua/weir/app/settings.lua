--- The options of applications, brokers, routers and handlers, and what each may be.
--
-- Nothing here raises for a wrong value: problems are collected, so that all of them can be reported at once.
-- @module weir.app.settings

local codec = require("weir.codec")
local nearest = require("weir.nearest")

local settings = {}

-- More workers, or messages in a batch, are a mistake.
local MOST = 65536

--- What can be done with a message that failed.
settings.ACTIONS = { "retry", "dead_letter", "drop", "ack", "stop" }

-- --- rules: functions of a value and its path that add what is wrong to a list ---------------------

--- Whether a value can be called.
function settings.is_callable(value)
  if type(value) == "function" then
    return true
  end
  local meta = getmetatable(value)
  return type(meta) == "table" and type(meta.__call) == "function"
end

local is_callable = settings.is_callable

local function expected(what)
  return function(list, path, value)
    local kind = type(value)
    local got = (kind == "table" or kind == "function") and "a " .. kind or tostring(value)
    if kind == "string" then
      got = ("'%s'"):format(value)
    end
    list[#list + 1] = ("'%s' must be %s, not %s"):format(path, what, got)
  end
end

local function rule(what, test)
  local complain = expected(what)
  return function(list, path, value)
    if not test(value) then
      complain(list, path, value)
    end
  end
end

local text = rule("a text of at least one byte", function(value)
  return type(value) == "string" and value ~= ""
end)

local function is_seconds(value)
  return type(value) == "number" and value > 0 and value < 1e9
end

local seconds = rule("a number of seconds above 0", is_seconds)

local seconds_or_none = rule("a number of seconds above 0, or false", function(value)
  return value == false or is_seconds(value)
end)

local some_seconds = rule("a number of seconds, at least 0", function(value)
  return value == 0 or is_seconds(value)
end)

local function is_count(value)
  return type(value) == "number" and value >= 1 and value <= MOST and value % 1 == 0
end

local count = rule(("a whole number from 1 to %d"):format(MOST), is_count)

local flag = rule("true or false", function(value)
  return type(value) == "boolean"
end)

local function one_of(names)
  local what = "one of " .. table.concat(names, ", ")
  local complain = expected(what)
  return function(list, path, value)
    for _, name in ipairs(names) do
      if name == value then
        return
      end
    end
    local meant = nearest(value, names)
    if meant then
      list[#list + 1] = ("'%s' must be %s, not '%s'; did you mean '%s'?"):format(path, what, value, meant)
    else
      complain(list, path, value)
    end
  end
end

local action = one_of(settings.ACTIONS)

local function list_of(what, test)
  return rule("a list of " .. what, function(value)
    if type(value) ~= "table" or is_callable(value) then
      return false
    end
    local size = 0
    for _ in pairs(value) do
      size = size + 1
    end
    for i = 1, size do
      if not test(value[i]) then
        return false
      end
    end
    return true
  end)
end

local functions = list_of("functions", is_callable)

local table_ = rule("a table", function(value)
  return type(value) == "table"
end)

-- Checks a table by the rules of its fields.
local function check_fields(list, path, value, rules)
  local names
  for name, each in pairs(value) do
    local full = path == "" and tostring(name) or path .. "." .. tostring(name)
    if rules[name] then
      rules[name](list, full, each)
    else
      if not names then
        names = {}
        for known in pairs(rules) do
          names[#names + 1] = tostring(known)
        end
        table.sort(names)
      end
      local meant = nearest(name, names)
      local hint = meant and ("did you mean '%s'?"):format(meant) or "known are: " .. table.concat(names, ", ")
      list[#list + 1] = ("unknown option '%s'; %s"):format(full, hint)
    end
  end
end

-- The fields that a rule allows, for those who complete what is typed.
local fields_of = setmetatable({}, { __mode = "k" })

-- A table with these fields, or what another rule allows.
local function fields(rules, otherwise)
  local function check(list, path, value)
    if type(value) == "table" then
      check_fields(list, path, value, rules)
    else
      (otherwise or table_)(list, path, value)
    end
  end
  fields_of[check] = rules
  return check
end

local function a_codec(list, path, value)
  local ok, why = pcall(codec.get, value)
  if not ok then
    list[#list + 1] = ("'%s': %s"):format(path, (tostring(why):gsub("^[^\n]-:%d+: ", "")))
  end
end

-- The schemas of payloads, and those of headers, that descriptions were made into.
local made = setmetatable({}, { __mode = "k" })
local made_of_headers = setmetatable({}, { __mode = "k" })

-- A schema, kept in `into` unless it is what `make` makes.
local function schema_rule(into, is, make)
  return function(list, path, value)
    if is(value) or (value ~= nil and into[value]) then
      return
    elseif type(value) ~= "table" then
      return expected("a schema, or a table that describes one, as for weir.schema")(list, path, value)
    end
    local ok, result = pcall(make, value)
    if ok then
      into[value] = result
      return
    end
    local why = type(result) == "table" and result.message or tostring(result):gsub("^[^\n:]-:%d+: ", "")
    list[#list + 1] = ("'%s': %s"):format(path, why)
  end
end

local a_schema = schema_rule(made, function(value)
  return require("weir.schema").is(value)
end, function(value)
  return require("weir.schema")(value)
end)

local a_header_schema = schema_rule(made_of_headers, function(value)
  return require("weir.app.header_schema").is(value)
end, function(value)
  return require("weir.app.header_schema").new(value)
end)

local function a_log(list, path, value)
  if type(value) ~= "table" then
    return expected("a logger, or the options of one")(list, path, value)
  elseif type(value.info) == "function" then
    return
  end
  local ok, why = pcall(require("weir.log").new, value)
  if not ok then
    list[#list + 1] = ("'%s': %s"):format(path, (tostring(why):gsub("^[^\n]-:%d+: ", "")))
  end
end

local backoff_fields = {
  initial = some_seconds,
  max = some_seconds,
  factor = rule("a number of at least 1", function(value)
    return type(value) == "number" and value >= 1 and value < 1e6
  end),
  jitter = rule("a number from 0 to 1", function(value)
    return type(value) == "number" and value >= 0 and value <= 1
  end),
}

local function actions_by_class(list, path, value)
  if is_callable(value) then
    return
  elseif type(value) ~= "table" then
    return expected("a function, or a table of error codes to actions")(list, path, value)
  end
  for class, each in pairs(value) do
    action(list, path .. "." .. tostring(class), each)
  end
end

local retry = fields({
  max_attempts = rule(("a whole number from 1 to %d, or false for no limit"):format(MOST), function(value)
    return value == false or is_count(value)
  end),
  backoff = fields(backoff_fields, one_of({ "exponential", "constant", "none" })),
  on = actions_by_class,
  to = text,
}, rule("a table, or false for no retries", function(value)
  return value == false
end))

local on_failure = fields({
  decode = action,
  schema = action,
  timeout = action,
  error = action,
  unknown_outcome = action,
  no_handler = action,
  publish = action,
  exhausted = one_of({ "dead_letter", "drop", "ack", "stop" }),
}, action)

local place = { to = text, broker = text }
local output_place = { to = text, broker = text, codec = a_codec, schema = a_schema, header_schema = a_header_schema }
local reply_place = {
  to = rule("a name, or true for where the message asks for it", function(value)
    return value == true or (type(value) == "string" and value ~= "")
  end),
  broker = text,
  codec = a_codec,
  schema = a_schema,
  header_schema = a_header_schema,
}

local dead_letter = fields(place, rule("a name, a table with 'to', or false", function(value)
  return value == false or (type(value) == "string" and value ~= "")
end))

local lane = rule("\"key\" or a function of the message", function(value)
  return value == "key" or is_callable(value)
end)

local workers = fields({ [1] = count, count = count, by = lane }, count)

local function filter(list, path, value)
  if is_callable(value) then
    return
  elseif type(value) ~= "table" or next(value) == nil then
    return expected("a function, or a table of header names to values")(list, path, value)
  end
  for name, wanted in pairs(value) do
    if type(name) ~= "string" or type(wanted) ~= "string" then
      list[#list + 1] = ("'%s' must have names of headers and texts, not %s = %s"):format(
        path, tostring(name), tostring(wanted))
    end
  end
end

local function outputs(list, path, value)
  if type(value) ~= "table" then
    return table_(list, path, value)
  end
  for name, each in pairs(value) do
    if type(name) ~= "string" then
      list[#list + 1] = ("'%s' must have names, not a list"):format(path)
      return
    end
    fields(output_place, text)(list, path .. "." .. name, each)
  end
end

local reply = fields(reply_place, rule("a name, true for where the message asks for it, or a table", function(value)
  return value == true or (type(value) == "string" and value ~= "")
end))

--- The schema of a good option: itself, or what its description was made into.
function settings.schema_of(value)
  return value and made[value] or value
end

--- The same of the option `header_schema`.
function settings.header_schema_of(value)
  return value and made_of_headers[value] or value
end

-- --- which level has which ------------------------------------------------------------------------

local inherited = {
  codec = a_codec,
  middleware = functions,
  publish_middleware = functions,
  retry = retry,
  dead_letter = dead_letter,
  on_failure = on_failure,
  workers = workers,
  timeout = seconds_or_none,
}

local function level(own)
  local rules = {}
  for name, each in pairs(inherited) do
    rules[name] = each
  end
  for name, each in pairs(own) do
    rules[name] = each
  end
  return rules
end

local function subscription(own)
  own.name, own.broker, own.filter = text, text, filter
  own.schema, own.header_schema = a_schema, a_header_schema
  own.reply, own.outputs = reply, outputs
  own.ack = one_of({ "auto", "manual" })
  own.transactional = flag
  own.title, own.summary, own.description, own.deprecated = text, text, text, flag
  return level(own)
end

local levels = {
  app = level({
    description = text,
    contact = table_,
    license = table_,
    tags = table_,
    id = text,
    terms_of_service = text,
    external_docs = table_,
    shutdown_timeout = some_seconds,
    start_timeout = seconds,
    log = a_log,
    metrics = table_,
  }),
  broker = level({ label = text, description = text }),
  router = level({ prefix = text, broker = text }),
  include = { prefix = text, broker = text },
  subscriber = subscription({}),
  batch = subscription({ max = count, linger = some_seconds }),
  publisher = {
    broker = text,
    to = text,
    codec = a_codec,
    schema = a_schema,
    header_schema = a_header_schema,
    headers = table_,
    key = text,
    name = text,
    options = table_,
    middleware = functions,
  },
}
levels.batch.filter = nil -- a batch goes to one handler

--- The names of the options of a level, sorted.
-- @tparam string kind as for `check`
-- @tparam[opt] {string,...} path of an option that is a table: the names of its fields
-- @treturn {string,...}
function settings.names(kind, path)
  local rules, names = levels[kind], {}
  for _, name in ipairs(path or names) do
    rules = rules and fields_of[rules[name]]
  end
  for name in pairs(rules or names) do
    names[#names + 1] = name
  end
  table.sort(names)
  return names
end

--- What is wrong with the options of a level.
-- @tparam string kind "app", "broker", "router", "include", "subscriber", "batch" or "publisher"
-- @tparam table options
-- @treturn {string,...} one sentence each, sorted
-- @treturn table those of the options that are as they should be
function settings.check(kind, options)
  local rules, problems, good = levels[kind], {}, {}
  for name, value in pairs(options) do
    local before = #problems
    check_fields(problems, "", { [name] = value }, rules)
    if #problems == before then
      good[name] = name == "schema" and made[value] or name == "header_schema" and made_of_headers[value] or value
    end
  end
  table.sort(problems)
  return problems, good
end

return settings
