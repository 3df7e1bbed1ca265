--- Makes a function of a JSON Schema that finds what is wrong with a value.
--
-- Each keyword becomes a small function `check(value, problems)` that adds to the list what it finds. A problem has
-- no path while it is found: each level that it passes on its way out adds its own key, so that a valid value costs
-- no string at all.
-- @module weir.schema.compile

local format = require("weir.schema.format")
local null = require("weir.codec").null

local MOST_PROBLEMS = 8
-- References that may be open at once: a value that nests deeper is refused, so that none can overflow the stack.
local MOST_NESTED = 200

local function wrong(message)
  error({ schema_error = message }, 0)
end

-- --- values -------------------------------------------------------------------------------------

local function is_number(value)
  return type(value) == "number"
end

-- An empty table is both.
local function is_array(value)
  return type(value) == "table" and (value[1] ~= nil or next(value) == nil)
end

local function is_object(value)
  return type(value) == "table" and value[1] == nil
end

local is_type = {
  string = function(value)
    return type(value) == "string"
  end,
  boolean = function(value)
    return type(value) == "boolean"
  end,
  null = function(value)
    return value == null
  end,
  integer = function(value)
    return type(value) == "number" and value % 1 == 0
  end,
  number = is_number,
  array = is_array,
  object = is_object,
}

local function name_of(value)
  if value == null then
    return "null"
  elseif type(value) == "table" then
    return is_array(value) and next(value) ~= nil and "an array" or "an object"
  end
  return "a " .. type(value)
end

local function shown(value)
  if type(value) == "string" then
    return #value <= 40 and ("%q"):format(value):gsub("\\\n", "\\n") or ("a text of %d bytes"):format(#value)
  elseif is_number(value) then
    return ("%.14g"):format(value)
  elseif type(value) == "boolean" then
    return tostring(value)
  end
  return name_of(value)
end

local function equal(a, b)
  if a == b then
    return true
  elseif type(a) ~= "table" or type(b) ~= "table" then
    return false
  end
  for key, value in pairs(a) do
    if not equal(value, b[key]) then
      return false
    end
  end
  for key in pairs(b) do
    if a[key] == nil then
      return false
    end
  end
  return true
end

-- Characters of a text; bytes, where it is no UTF-8.
local function length(text)
  local utf8 = rawget(_G, "utf8")
  local count = utf8 and utf8.len(text)
  if count then
    return count
  end
  local _, continued = text:gsub("[\128-\191]", "")
  return #text - continued
end

-- --- problems -----------------------------------------------------------------------------------

local function add(problems, keyword, message)
  if #problems < MOST_PROBLEMS then
    problems[#problems + 1] = { keyword = keyword, message = message }
  end
end

-- Problems after `from` were found at `key`.
local function at(problems, from, key)
  for i = from + 1, #problems do
    local keys = problems[i].keys
    if not keys then
      keys = {}
      problems[i].keys = keys
    end
    keys[#keys + 1] = key
  end
end

local function path_of(keys)
  local path = ""
  for i = keys and #keys or 0, 1, -1 do
    local key = keys[i]
    if type(key) == "number" then
      path = ("%s[%d]"):format(path, key)
    elseif key:find("^[%a_][%w_]*$") then
      path = path == "" and key or path .. "." .. key
    else
      path = ("%s[%s]"):format(path, shown(key))
    end
  end
  return path
end

-- --- keywords -----------------------------------------------------------------------------------

-- Each takes the keyword's value, the schema it is in, and `compile`; it returns a check, or nil.
local keywords = {}

local function number_of(value, keyword)
  if not is_number(value) then
    wrong(("'%s' must be a number, not %s"):format(keyword, name_of(value)))
  end
  return value
end

local function list_of(value, keyword)
  if not is_array(value) then
    wrong(("'%s' must be a list, not %s"):format(keyword, name_of(value)))
  end
  return value
end

function keywords.type(expected)
  if type(expected) == "string" then
    local is = is_type[expected]
    local article = expected == "null" and "" or (expected:find("^[aio]") and "an " or "a ")
    return function(value, problems)
      if not is(value) then
        add(problems, "type", ("must be %s%s, not %s"):format(article, expected, name_of(value)))
      end
    end
  end
  local names = table.concat(list_of(expected, "type"), ", ")
  return function(value, problems)
    for i = 1, #expected do
      if is_type[expected[i]](value) then
        return
      end
    end
    add(problems, "type", ("must be one of %s, not %s"):format(names, name_of(value)))
  end
end

function keywords.const(expected)
  return function(value, problems)
    if not equal(value, expected) then
      add(problems, "const", ("must be %s, not %s"):format(shown(expected), shown(value)))
    end
  end
end

function keywords.enum(list)
  local names = {}
  for i, each in ipairs(list_of(list, "enum")) do
    names[i] = shown(each)
  end
  names = table.concat(names, ", ")
  return function(value, problems)
    for i = 1, #list do
      if equal(value, list[i]) then
        return
      end
    end
    add(problems, "enum", ("must be one of %s, not %s"):format(names, shown(value)))
  end
end

local PLURALS = { character = "characters", item = "items", property = "properties" }

-- What so many of a thing are called.
local function several(count, thing)
  return count == 1 and thing or PLURALS[thing]
end

-- A limit: `measure` gives the number to compare, or nil where the keyword does not apply; `thing` is what is counted.
local function limit(keyword, measure, within, text, thing)
  keywords[keyword] = function(bound)
    number_of(bound, keyword)
    local wanted = ("%.14g"):format(bound) .. (thing and " " .. several(bound, thing) or "")
    return function(value, problems)
      local n = measure(value)
      if n and not within(n, bound) then
        add(problems, keyword, text:format(wanted, shown(n)))
      end
    end
  end
end

local function number_value(value)
  return is_number(value) and value or nil
end

local function text_length(value)
  return type(value) == "string" and length(value) or nil
end

local function array_length(value)
  return is_array(value) and #value or nil
end

local function object_size(value)
  if not is_object(value) then
    return nil
  end
  local count = 0
  for _ in pairs(value) do
    count = count + 1
  end
  return count
end

local function at_least(n, bound)
  return n >= bound
end

local function at_most(n, bound)
  return n <= bound
end

limit("minimum", number_value, at_least, "must be at least %s, not %s")
limit("maximum", number_value, at_most, "must be at most %s, not %s")
limit("exclusiveMinimum", number_value, function(n, bound)
  return n > bound
end, "must be more than %s, not %s")
limit("exclusiveMaximum", number_value, function(n, bound)
  return n < bound
end, "must be less than %s, not %s")
limit("minLength", text_length, at_least, "must have at least %s, not %s", "character")
limit("maxLength", text_length, at_most, "must have at most %s, not %s", "character")
limit("minItems", array_length, at_least, "must have at least %s, not %s", "item")
limit("maxItems", array_length, at_most, "must have at most %s, not %s", "item")
limit("minProperties", object_size, at_least, "must have at least %s, not %s", "property")
limit("maxProperties", object_size, at_most, "must have at most %s, not %s", "property")
-- 0.3 is a multiple of 0.1, whatever binary fractions make of it.
limit("multipleOf", number_value, function(n, factor)
  local times = n / factor
  return times == times and math.abs(times) ~= math.huge and math.abs(times - math.floor(times + 0.5)) < 1e-9
    or n % factor == 0
end, "must be a multiple of %s, not %s")

local function matcher(pattern)
  if type(pattern) ~= "string" then
    wrong("'pattern' must be a regular expression, not " .. name_of(pattern))
  end
  local there, rex = pcall(require, "rex_pcre2")
  if not there then
    wrong("'pattern' needs the module rex_pcre2 (Debian: lua-rex-pcre2)")
  end
  local ok, compiled = pcall(rex.new, pattern, rex.flags().UTF)
  if not ok then
    wrong(("the pattern %q is no regular expression: %s"):format(pattern, tostring(compiled)))
  end
  -- A text that is no UTF-8 raises, and matches no pattern.
  return function(text)
    local fine, from = pcall(compiled.find, compiled, text)
    return fine and from ~= nil
  end
end

function keywords.pattern(pattern)
  local matches = matcher(pattern)
  return function(value, problems)
    if type(value) == "string" and not matches(value) then
      add(problems, "pattern", ("must match %s, unlike %s"):format(pattern, shown(value)))
    end
  end
end

function keywords.format(name)
  local is = format[name]
  return is and function(value, problems)
    if type(value) == "string" and not is(value) then
      add(problems, "format", ("must be a valid %s, unlike %s"):format(name, shown(value)))
    end
  end
end

function keywords.required(names)
  list_of(names, "required")
  return function(value, problems)
    if is_object(value) then
      for i = 1, #names do
        if value[names[i]] == nil then
          local from = #problems
          add(problems, "required", "is missing")
          at(problems, from, names[i])
        end
      end
    end
  end
end

function keywords.dependentRequired(all)
  return function(value, problems)
    if is_object(value) then
      for name, needed in pairs(all) do
        for i = 1, value[name] ~= nil and #needed or 0 do
          if value[needed[i]] == nil then
            local from = #problems
            add(problems, "dependentRequired", ("is missing; '%s' needs it"):format(name))
            at(problems, from, needed[i])
          end
        end
      end
    end
  end
end

local function compile_all(schemas, compile)
  local checks = {}
  for key, each in pairs(schemas) do
    checks[key] = compile(each)
  end
  return checks
end

function keywords.properties(schemas, _, compile)
  local names, checks = {}, {}
  for name in pairs(schemas) do
    names[#names + 1] = name
  end
  table.sort(names)
  for i, name in ipairs(names) do
    checks[i] = compile(schemas[name])
  end
  return function(value, problems)
    if not is_object(value) then
      return
    end
    for i = 1, #names do
      local name = names[i]
      local each = value[name]
      if each ~= nil then
        local from = #problems
        checks[i](each, problems)
        if #problems > from then
          at(problems, from, name)
        end
      end
    end
  end
end

local function pattern_checks(schemas, compile)
  local list = {}
  for pattern, each in pairs(schemas or {}) do
    list[#list + 1] = { matches = matcher(pattern), check = compile and compile(each) }
  end
  return list
end

function keywords.patternProperties(schemas, _, compile)
  local list = pattern_checks(schemas, compile)
  return function(value, problems)
    if not is_object(value) then
      return
    end
    for name, each in pairs(value) do
      for i = 1, type(name) == "string" and #list or 0 do
        if list[i].matches(name) then
          local from = #problems
          list[i].check(each, problems)
          at(problems, from, name)
        end
      end
    end
  end
end

function keywords.additionalProperties(schema, parent, compile)
  local known, list = parent.properties or {}, pattern_checks(parent.patternProperties)
  local check = schema ~= false and compile(schema)
  return function(value, problems)
    if not is_object(value) then
      return
    end
    for name, each in pairs(value) do
      local other = known[name] == nil
      for i = 1, other and #list or 0 do
        other = other and not list[i].matches(tostring(name))
      end
      if other then
        local from = #problems
        if check then
          check(each, problems)
        else
          add(problems, "additionalProperties", "is not a known property")
        end
        at(problems, from, name)
      end
    end
  end
end

function keywords.propertyNames(schema, _, compile)
  local check = compile(schema)
  return function(value, problems)
    if is_object(value) then
      for name in pairs(value) do
        local from = #problems
        check(name, problems)
        at(problems, from, name)
      end
    end
  end
end

function keywords.dependentSchemas(schemas, _, compile)
  local checks = compile_all(schemas, compile)
  return function(value, problems)
    if is_object(value) then
      for name, check in pairs(checks) do
        if value[name] ~= nil then
          check(value, problems)
        end
      end
    end
  end
end

function keywords.items(schema, parent, compile)
  local check, first = compile(schema), #(parent.prefixItems or {}) + 1
  return function(value, problems)
    if is_array(value) then
      for i = first, #value do
        local from = #problems
        check(value[i], problems)
        if #problems > from then
          at(problems, from, i)
        end
      end
    end
  end
end

function keywords.prefixItems(schemas, _, compile)
  local checks = compile_all(list_of(schemas, "prefixItems"), compile)
  return function(value, problems)
    if is_array(value) then
      for i = 1, math.min(#checks, #value) do
        local from = #problems
        checks[i](value[i], problems)
        at(problems, from, i)
      end
    end
  end
end

-- Whether a value passes, without saying why not.
local function passes(check, value)
  local scratch = {}
  check(value, scratch)
  return #scratch == 0
end

function keywords.contains(schema, parent, compile)
  local check = compile(schema)
  local least, most = parent.minContains or 1, parent.maxContains or math.huge
  return function(value, problems)
    if not is_array(value) then
      return
    end
    local count = 0
    for i = 1, #value do
      count = count + (passes(check, value[i]) and 1 or 0)
    end
    if count < least or count > most then
      local wanted = most == math.huge and "at least %d" or least == most and "%d" or "%d to %d"
      wanted = wanted:format(least, most) .. " " .. several(most == math.huge and least or most, "item")
      add(problems, "contains", ("must contain %s of a kind, not %d"):format(wanted, count))
    end
  end
end

function keywords.uniqueItems(unique)
  return unique and function(value, problems)
    if not is_array(value) then
      return
    end
    local seen, tables = {}, {}
    for i = 1, #value do
      local each, first = value[i], nil
      if type(each) == "table" then
        for _, j in ipairs(tables) do
          first = first or (equal(each, value[j]) and j or nil)
        end
        tables[#tables + 1] = i
      else
        first = seen[each]
        seen[each] = first or i
      end
      if first then
        add(problems, "uniqueItems", ("items %d and %d must not be equal"):format(first, i))
        return
      end
    end
  end
end

function keywords.allOf(schemas, _, compile)
  local checks = compile_all(list_of(schemas, "allOf"), compile)
  return function(value, problems)
    for i = 1, #checks do
      checks[i](value, problems)
    end
  end
end

-- Of several that all fail, the one with the least to say was meant most likely.
function keywords.anyOf(schemas, _, compile)
  local checks = compile_all(list_of(schemas, "anyOf"), compile)
  if #checks == 1 then
    return checks[1]
  end
  return function(value, problems)
    local best
    for i = 1, #checks do
      local found = {}
      checks[i](value, found)
      if #found == 0 then
        return
      elseif not best or #found < #best then
        best = found
      end
    end
    add(problems, "anyOf", ("must be one of %d alternatives"):format(#checks))
    for _, problem in ipairs(best or {}) do
      if #problems < MOST_PROBLEMS then
        problems[#problems + 1] = problem
      end
    end
  end
end

function keywords.oneOf(schemas, _, compile)
  local checks = compile_all(list_of(schemas, "oneOf"), compile)
  if #checks == 1 then
    return checks[1]
  end
  return function(value, problems)
    local count = 0
    for i = 1, #checks do
      count = count + (passes(checks[i], value) and 1 or 0)
    end
    if count ~= 1 then
      add(problems, "oneOf", ("must be exactly one of %d alternatives, but is %d"):format(#checks, count))
    end
  end
end

keywords["not"] = function(schema, _, compile)
  local check = compile(schema)
  return function(value, problems)
    if passes(check, value) then
      add(problems, "not", "must not be what 'not' describes")
    end
  end
end

keywords["if"] = function(schema, parent, compile)
  local check = compile(schema)
  local yes = parent["then"] ~= nil and compile(parent["then"]) or nil
  local no = parent["else"] ~= nil and compile(parent["else"]) or nil
  return (yes or no) and function(value, problems)
    local branch = no
    if passes(check, value) then
      branch = yes
    end
    if branch then
      branch(value, problems)
    end
  end
end

-- --- schemas ------------------------------------------------------------------------------------

local function unescape(part)
  part = part:gsub("%%(%x%x)", function(hex)
    return string.char(tonumber(hex, 16))
  end)
  return (part:gsub("~1", "/"):gsub("~0", "~"))
end

-- What a reference such as "#/$defs/Line" names.
local function resolve(root, ref)
  local pointer = type(ref) == "string" and ref:match("^#(.*)$")
  if not pointer or (pointer ~= "" and pointer:sub(1, 1) ~= "/") then
    wrong(("the reference %s leads out of the schema"):format(shown(ref)))
  end
  local node = root
  for part in pointer:gmatch("/([^/]*)") do
    part = unescape(part)
    local index = tonumber(part)
    node = type(node) == "table" and (node[part] == nil and index and node[index + 1] or node[part])
    if node == nil or (node == false and index == nil and type(node) ~= "boolean") then
      wrong(("the reference %s leads nowhere"):format(shown(ref)))
    end
  end
  return node
end

-- The keywords that others read on their own behalf have no check.
local ORDER = {}
for keyword in pairs(keywords) do
  if keyword ~= "type" then
    ORDER[#ORDER + 1] = keyword
  end
end
table.sort(ORDER)
table.insert(ORDER, 1, "type")

local function everything() end

local function nothing(_, problems)
  add(problems, "false", "is not allowed")
end

--- Compiles a plain JSON Schema.
-- @tparam table|boolean root
-- @treturn function of a value: nil, or a list of problems with `path`, `keyword`, `message`. Raises a table
--   `{ schema_error = text }` when it is no schema.
return function(root)
  local compiled = { [true] = everything, [false] = nothing } -- schema to check
  local targets = {} -- of references, which may lead to a schema that is being compiled
  local depth = 0
  local compile

  local function reference(ref)
    local target = resolve(root, ref)
    targets[#targets + 1] = target
    return function(value, problems)
      local check = compiled[target]
      if depth >= MOST_NESTED then
        add(problems, "$ref", ("nests more than %d deep"):format(MOST_NESTED))
        return
      end
      depth = depth + 1
      check(value, problems)
      depth = depth - 1
    end
  end

  local function checks_of(node)
    local checks = {}
    if node["$ref"] ~= nil then
      checks[1] = reference(node["$ref"])
    end
    for _, keyword in ipairs(ORDER) do
      if node[keyword] ~= nil then
        checks[#checks + 1] = keywords[keyword](node[keyword], node, compile) or nil
      end
    end
    return checks
  end

  function compile(node)
    if compiled[node] then
      return compiled[node]
    elseif type(node) ~= "table" then
      wrong("a schema is a table, not " .. name_of(node))
    end
    local checks = checks_of(node)
    local count = #checks
    local check = function(value, problems)
      for i = 1, count do
        checks[i](value, problems)
      end
    end
    if count <= 1 then
      check = checks[1] or everything
    end
    compiled[node] = check
    return check
  end

  local check = compile(root)
  local done = 0
  while done < #targets do
    done = done + 1
    compile(targets[done])
  end
  return function(value)
    local problems = {}
    depth = 0
    check(value, problems)
    if #problems == 0 then
      return nil
    end
    for _, problem in ipairs(problems) do
      problem.path, problem.keys = path_of(problem.keys), nil
    end
    return problems
  end
end
