--- What was defined at the prompt, as the file of an application.
--
-- A *definition* is an input that registered something with the application or a router, gave names to functions and
-- plain data, or set a field of such a name (`function shop.price() end`). What only looked, or only made an object
-- that is open now, is left out. An input is forgotten once later ones have given anew all that it defined, without
-- making it of what was there (`n = n + 1`).
-- @module weir.repl.definitions

local luv = require("luv")
local replace = require("weir.replace")

local M = {}

local Definitions = {}
Definitions.__index = Definitions

local MARK = "--- Saved by weir repl."

-- Whether a file can make the value again: a function, or data without objects.
local function is_plain(value, depth)
  local kind = type(value)
  if kind == "table" then
    if getmetatable(value) ~= nil or depth > 5 then
      return false
    end
    for key, each in next, value do
      if not is_plain(key, depth + 1) or not is_plain(each, depth + 1) then
        return false
      end
    end
    return true
  end
  return kind ~= "userdata" and kind ~= "thread"
end

-- Objects that hold nothing open are as good as data.
local DESCRIPTIONS = {}
for _, name in ipairs({ "channel", "publisher", "router", "schema" }) do
  DESCRIPTIONS["weir." .. name] = true
end

local function is_definable(value)
  local meta = type(value) == "table" and getmetatable(value)
  if type(meta) == "table" and DESCRIPTIONS[meta.__name or ""] then
    return true
  end
  for _, module in pairs(package.loaded) do
    if rawequal(module, value) then
      return true
    end
  end
  return is_plain(value, 0)
end

-- --- what an input is in a file -------------------------------------------------------------------

-- 200 locals are what a function of Lua can have; one more is an error.
local FULL
do
  local names = {}
  for i = 1, 200 do
    names[i] = "_" .. i
  end
  FULL = "\nlocal " .. table.concat(names, ",")
end

-- The input as statements that others can follow, and that leave no local and no label to them.
local function as_statements(text)
  local expression = text:match("^%s*=(.*)$") or text:match("^%s*return%f[^%w_](.*)$") or text
  if load("return " .. expression) and not load(text .. "\ndo end") then
    return ("do local _ = %s\nend"):format(expression:gsub("^%s+", ""):gsub("[%s;]+$", ""))
  elseif not load(text .. "\ndo end") then -- it ends with `return`
    return ("do local _ = (function()\n%s\nend)()\nend"):format(text)
  elseif not load(text .. FULL) or text:find("::", 1, true) then
    return ("do\n%s\nend"):format(text)
  elseif text:find("^%s*%(") then
    return ";" .. text -- or it would be the arguments of what is before it
  end
  return text
end

-- The field that an input sets with its first statement: the global, and what to call the field.
local function field_of(text)
  local path = text:match("^%s*function%s+([%a_][%w_]*[.:][%w_.:]+)")
  if path then
    return path:match("^[%w_]+"), (path:gsub(":", "."))
  end
  local name, rest = text:match("^%s*([%a_][%w_]*)%s*([.%[].-)%s*=[^=]")
  return name, name and name .. rest
end

--- Notes an input.
-- @tparam string text
-- @tparam table input what it did: `set`, the globals that it set, names to values; `read`, names as keys, those that
--   it used before; `registered`, what it registered with the application, a text for each; `globals`, all of them
function Definitions:note(text, input)
  local keys = {}
  for name, value in pairs(input.set) do
    if #input.registered == 0 and not is_definable(value) then
      return
    end
    keys["global " .. name] = true
  end
  for _, what in ipairs(input.registered) do
    keys[what] = true
  end
  local name, field = field_of(text)
  local owner = name and input.globals[name]
  if type(owner) == "table" and is_plain(owner, 0) then
    keys["field " .. field] = true
  end
  if next(keys) ~= nil then
    self:forget(keys, input.read)
    local names = {}
    for each in pairs(input.set) do
      names[#names + 1] = each
    end
    self.list[#self.list + 1] = { text = text, keys = keys, names = names }
  end
end

-- Whether a key, given anew, makes a former one superfluous: it is the same, or a field of it.
local function replaces(key, former)
  local name = key:match("^global (.*)$")
  return key == former or name and former:find("^field " .. name .. "%f[^%w_]") ~= nil
end

-- Takes out what later inputs have given anew.
function Definitions:forget(keys, read)
  for i = #self.list, 1, -1 do
    local former = self.list[i]
    for key in pairs(keys) do
      if not read[key:match("^global (.*)$") or false] then
        for each in pairs(former.keys) do
          former.keys[each] = not replaces(key, each) or nil
        end
      end
    end
    if next(former.keys) == nil then
      table.remove(self.list, i)
    end
  end
end

-- --- the file -------------------------------------------------------------------------------------

local function header(source)
  if source.path then
    return ('local app = require("weir.repl.redefine").load(%q)'):format(luv.fs_realpath(source.path) or source.path)
  end
  return ('local app = weir.app(%q, %q)\napp:broker(weir.env("BROKER", %q))'):format(
    source.title, source.version, source.url)
end

-- The names that the inputs give, as locals of the file.
local function locals(list)
  local names, seen = {}, {}
  for _, each in ipairs(list) do
    for _, name in ipairs(each.names) do
      if not seen[name] and #names < 150 then -- Lua has 200 in a function; others stay global
        seen[name] = true
        names[#names + 1] = name
      end
    end
  end
  table.sort(names)
  return #names > 0 and "local " .. table.concat(names, ", ") or nil
end

--- The text of the file.
-- @tparam table source `path` of the file that was loaded; or `title`, `version` and `url` of the first broker; `more`,
--   the brokers that were added: lists of a label and a URL
-- @treturn string
function Definitions:text(source)
  local parts = { MARK, 'local weir = require("weir")', "", header(source) }
  for _, each in ipairs(source.more or {}) do
    parts[#parts + 1] = ("app:broker(%q, { label = %q })"):format(each[2], each[1])
  end
  parts[#parts + 1] = locals(self.list)
  for _, each in ipairs(self.list) do
    parts[#parts + 1] = ""
    parts[#parts + 1] = as_statements(each.text)
  end
  parts[#parts + 1] = ""
  parts[#parts + 1] = "return app"
  return table.concat(parts, "\n") .. "\n"
end

local function may_replace(path)
  local file = io.open(path, "rb")
  if not file then
    return true
  end
  local first = file:read("l")
  file:close()
  return first == MARK
end

-- Names that the inputs mention and that the file does not give.
local function missing(list, globals)
  local given, names = { app = true }, {}
  for _, each in ipairs(list) do
    for _, name in ipairs(each.names) do
      given[name] = true
    end
  end
  for name in pairs(globals) do
    for _, each in ipairs(list) do
      if not given[name] and each.text:find("%f[%w_]" .. name .. "%f[^%w_]") then
        given[name] = true
        names[#names + 1] = name
      end
    end
  end
  table.sort(names)
  return names
end

--- Writes it. A file that no session saved is left alone.
-- @tparam string path
-- @tparam table source
-- @tparam table globals names of the session as keys
-- @treturn number definitions; or nil and why not
-- @treturn {string,...} names of objects that the definitions mention and that are not in the file
function Definitions:save(path, source, globals)
  if not may_replace(path) then
    return nil, path .. " exists and was not saved by a session; choose another name, or remove it"
  end
  local ok, why = replace(path, self:text(source))
  if not ok then
    return nil, why
  end
  return #self.list, missing(self.list, globals)
end

--- Makes an empty list.
function M.new()
  return setmetatable({ list = {} }, Definitions)
end

return M
