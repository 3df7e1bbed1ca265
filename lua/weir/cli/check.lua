--- `weir check FILE`: says all that is wrong with the wiring of an application, without connecting.
-- @module weir.cli.check
local arguments = require("weir.cli.arguments")
local cli = require("weir.cli")
local json = require("weir.cli.json")

local M = {
  summary = "check the wiring of an application, without connecting",
  intro = [[
Loads FILE and says everything that is wrong with the application it returns: names of options, values, what
brokers are capable of, dead letters, filters. Each mistake comes with its file and line. What is doubtful is said
too, and is no mistake.]],
  words = { { "file", "FILE", "the application", missing = "the file of the application is missing" } },
  options = {
    { "env", "NAME=VALUE", "set a variable of the environment; repeatable", many = true, read = arguments.variable },
    {
      "json", nil, "print one JSON object: ok, app, version, mistakes, doubts, files, start_timeout, shutdown_timeout,"
        .. " error",
    },
  },
  examples = { "weir check app.lua", "weir check app.lua --json | jq '.mistakes[].message'" },
  statuses = "0 nothing is wrong, 1 something is, or the file does not load, 2 wrong use.",
}

local function plain(list)
  local result = {}
  for i, each in ipairs(list) do
    local file, line = each.source:match("^(.*):(%d+)$")
    result[i] = { file = file or each.source, line = tonumber(line), message = each.message }
  end
  return json.array(result)
end

-- Has the modules noted that are asked for from now on: also those that do not load, and those that are not there,
-- where they would lie beside the file.
local function note_modules(path)
  local folder, names = path:match("^(.*/)") or "./", {}
  table.insert(package.searchers, 1, function(name)
    if not name:find("^weir%f[.\0]") then
      local found = package.searchpath(name, package.path)
      names[found or folder .. name:gsub("%.", "/") .. ".lua"] = true
    end
  end)
  return names
end

-- The file and those modules of it that lie beside it or below.
local function files_of(path, modules)
  local folder = path:match("^(.*/)") or "./"
  local files = { path }
  for found in pairs(modules) do
    if found:sub(1, #folder) == folder then
      files[#files + 1] = found
    end
  end
  table.sort(files)
  return json.array(files)
end

local function to_json(console, options, app, ok, found)
  local report = { ok = ok and true or false, mistakes = plain(ok and {} or found), doubts = plain(ok and found or {}) }
  if app then
    report.app, report.version = app.title, app.version
    report.start_timeout, report.shutdown_timeout = app.options.start_timeout, app.options.shutdown_timeout
  else
    report.error = options.error
  end
  report.files = files_of(options.file, options.modules)
  console.out:write(json.encode(report), "\n")
end

--- Writes what is wrong with an application that is loaded.
-- @tparam table app
-- @tparam table console
-- @treturn ?integer the exit status
-- @return or an error
function M.report(app, console)
  local ok, found = app:check()
  for _, each in ipairs(found) do
    console.err:write(tostring(each), ok and " (a doubt)\n" or "\n")
  end
  if not ok then
    local count = #found == 1 and "one mistake" or #found .. " mistakes"
    return nil, ("the application '%s' has %s"):format(app.title, count)
  end
  console.out:write(("%s %s: the wiring is right\n"):format(app.title, app.version))
  return cli.OK
end

function M.run(options, console)
  local luv = require("luv")
  for _, pair in ipairs(options.env or {}) do
    luv.os_setenv(pair[1], pair[2])
  end
  if options.json then
    options.modules = note_modules(options.file)
  end
  local app, err = require("weir.app.load").aside(options.file)
  if options.json then
    local ok, found = nil, {}
    if app then
      ok, found = app:check()
    end
    options.error = err and err.message
    to_json(console, options, app, ok, found)
    return ok and cli.OK or cli.FAILED
  elseif not app then
    return nil, err.message
  end
  return M.report(app, console)
end

return M
