--- Loads the file of an application: for the command line.
-- @module weir.app.load

local M = {}

local app_module = require("weir.app")
local errors = require("weir.errors")
local text_of = require("weir.app.text")

local function is_app(value)
  return type(value) == "table" and getmetatable(value) ~= nil and getmetatable(value).__name == "weir.app"
end

--- What loading a program raised, as a sentence: without the places where Lua has looked for a module.
-- @param err
-- @treturn string
function M.text_of(err)
  if type(err) == "string" then
    local place, name = err:match("^([^\n]*)module '([^'\n]*)' not found:\n")
    local missing = "%sthe module '%s' is not found: it is neither installed nor beside the file"
    return name and missing:format(place, name) or err
  elseif type(err) == "table" then
    return "the program raised an error: " .. text_of(err)
  end
  return ("the program raised an error that is a %s: %s"):format(type(err), text_of(err))
end

--- Lets modules beside a file be found, as those beside a script are that is in the current directory.
-- @tparam string path
function M.find_neighbours(path)
  local folder = path:match("^(.*/)") or "./"
  local entry = folder .. "?.lua;" .. folder .. "?/init.lua"
  if not (";" .. package.path .. ";"):find(";" .. entry .. ";", 1, true) then
    package.path = entry .. ";" .. package.path
  end
end

--- Loads it: the file returns the application, or has made exactly one, or calls `app:run()` at its end, which does not
-- run it here.
-- @tparam string path
-- @treturn ?table the application
-- @return or an error: "load", with file and line in its message
local function load_app(path)
  local chunk, why = loadfile(path)
  if not chunk then
    return nil, errors.new("load", why)
  end
  M.find_neighbours(path)
  local ok, result, made, ended = app_module.observe(chunk)
  if not ok then
    return nil, errors.new("load", M.text_of(result))
  elseif ended then
    return ended
  elseif is_app(result) then
    return result
  elseif result ~= nil then
    return nil, errors.new("load", ("%s returns a %s; it should return the application"):format(path, type(result)))
  elseif #made == 1 then
    return made[1]
  elseif #made == 0 then
    local message = "%s makes no application; make one with weir.app(title, version) and return it"
    return nil, errors.new("load", message:format(path))
  end
  local message = "%s makes %d applications; return the one that is meant"
  return nil, errors.new("load", message:format(path, #made))
end

--- The same for a command that prints something else: what the program prints from now on goes to the standard error.
-- @tparam string path
-- @treturn ?table the application
-- @return or an error
function M.aside(path)
  io.output(io.stderr)
  io.stdout = io.stderr -- luacheck: ignore 122
  _G.print = function(...)
    local words = table.pack(...)
    for i = 1, words.n do
      words[i] = tostring(words[i])
    end
    io.stderr:write(table.concat(words, "\t"), "\n")
  end
  return load_app(path)
end

return setmetatable(M, {
  __call = function(_, path)
    return load_app(path)
  end,
})
