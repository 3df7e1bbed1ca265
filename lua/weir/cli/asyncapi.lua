--- `weir asyncapi VERB FILE`: documents of applications.
-- @module weir.cli.asyncapi
local arguments = require("weir.cli.arguments")
local cli = require("weir.cli")

local FILE = { "file", "FILE", "the application", missing = "the file of the application is missing" }

local M = {
  summary = "write, compare or show the AsyncAPI document of an application",
  intro = "AsyncAPI describes what an application takes and sends: its channels, messages and schemas.",
  verbs = {
    {
      "gen", "write the document of an application; nothing is connected", words = { FILE },
      options = {
        { "yaml", nil, "YAML instead of JSON" },
        { "output", "PATH", "write to the file PATH; it stays as it was when something fails", short = "o" },
        { "require-schemas", nil, "fail if a message has no schema, and list those" },
      },
      examples = {
        "weir asyncapi gen app.lua --yaml -o asyncapi.yaml",
        "weir asyncapi gen app.lua --require-schemas >/dev/null",
      },
    },
    {
      "diff", "compare two documents, and name what breaks those who talk to the application",
      words = {
        {
          "old", "OLD", "a document, JSON or YAML, or the .lua of an application",
          missing = "the old document is missing",
        },
        { "new", "NEW", "the new document, in the same way", missing = "the new document is missing" },
      },
      options = { { "json", nil, "print one JSON object, with the lists breaking and other" } },
      examples = { "weir asyncapi diff asyncapi.yaml app.lua" },
      statuses = "0 nothing breaks, 1 something does, or it failed, 2 wrong use.",
    },
    {
      "serve", "show an application in a browser, with a form that sends messages", words = { FILE },
      options = {
        {
          "listen", "ADDRESS",
          "where; http://127.0.0.1:8000 when left out; port 0 for any that is free. :8080 is enough",
        },
        { "run", nil, "run the application, too, so that what is sent is handled here" },
      },
      examples = { "weir asyncapi serve app.lua --run --listen http://127.0.0.1:8080" },
      statuses = "0 it ended, 1 it failed, 2 wrong use; after a signal 128 and its number: 129 for SIGHUP, 130 for"
        .. " SIGINT, 143 for SIGTERM.",
    },
  },
  options = {
    { "env", "NAME=VALUE", "set a variable of the environment; repeatable", many = true, read = arguments.variable },
  },
  statuses = "0 done; of diff, nothing breaks. 1 it failed, or something breaks. 2 wrong use. 129, 130, 143: serve"
    .. " was ended by a signal.",
}

local asyncapi, luv

-- What the program prints goes aside, unless it is the one that is run.
local function load_app(path, runs)
  local load = require("weir.app.load")
  local app, err = (runs and load or load.aside)(path)
  if not app then
    return nil, err.message
  end
  return app
end

local function document_of(path, runs)
  local app, err = load_app(path, runs)
  if not app then
    return nil, err
  end
  local document, missing = asyncapi.document(app)
  if document then
    return document, missing, app
  elseif missing.code == "wiring" then
    return nil, ("the application '%s' has mistakes in its wiring:\n%s"):format(app.title, missing.message)
  end
  return nil, missing.message
end

-- --- gen -------------------------------------------------------------------------------------------

local function report_missing(console, missing)
  for _, each in ipairs(missing) do
    console.err:write(("%s: %s has no schema\n"):format(each.channel, each.what))
  end
  return nil, #missing == 1 and "one message has no schema" or ("%d messages have no schema"):format(#missing)
end

local verbs = {}

function verbs.gen(options, console)
  local document, missing = document_of(options.file)
  if not document then
    return nil, missing
  elseif options["require-schemas"] and #missing > 0 then
    return report_missing(console, missing)
  end
  local text, err = (options.yaml and asyncapi.to_yaml or asyncapi.to_json)(document)
  if not text then
    return nil, err.message
  elseif options.output then
    local ok
    ok, err = require("weir.replace")(options.output, text)
    return ok and cli.OK, err
  end
  console.out:write(text)
  return cli.OK
end

-- --- diff ------------------------------------------------------------------------------------------

local function read_document(path)
  if path:find("%.lua$") then
    return document_of(path)
  end
  local file, err = io.open(path, "rb")
  if not file then
    return nil, err
  end
  local bytes
  bytes, err = file:read(asyncapi.MAX_BYTES + 1)
  file:close()
  if not bytes then
    return nil, ("%s: %s"):format(path, err or "it is empty")
  end
  local document
  document, err = asyncapi.read(bytes)
  if not document then
    return nil, ("%s: %s"):format(path, err.message)
  end
  return document
end

local function print_changes(console, changes)
  local line = require("weir.cli.text").line
  for _, kind in ipairs({ "breaking", "other" }) do
    for _, each in ipairs(changes[kind]) do
      local mark = kind == "breaking" and console:style(console.out, "red", "breaks") or "      "
      console.out:write(("%s  %s: %s\n"):format(mark, line(each.where, 400), line(each.message, 400)))
    end
  end
  local breaking, other = #changes.breaking, #changes.other
  if breaking + other == 0 then
    console.out:write("nothing has changed\n")
  else
    console.out:write(("%d breaking, %d other\n"):format(breaking, other))
  end
end

function verbs.diff(options, console)
  local old, new, changes, err
  old, err = read_document(options.old)
  if old then
    new, err = read_document(options.new)
  end
  if not new then
    return nil, err
  end
  changes, err = require("weir.asyncapi.diff")(old, new)
  if not changes then
    return nil, err.message
  elseif options.json then
    local json = require("weir.cli.json")
    console.out:write(json.encode({ breaking = json.array(changes.breaking), other = json.array(changes.other) }), "\n")
  else
    print_changes(console, changes)
  end
  return #changes.breaking == 0 and cli.OK or cli.FAILED
end

-- --- serve -----------------------------------------------------------------------------------------

function verbs.serve(options, console)
  local document, err, app = document_of(options.file, true)
  if not document then
    return nil, err
  end
  return require("weir.asyncapi.serve").run(app, {
    listen = options.listen,
    run = options.run,
    ready = function(url)
      console.out:write(("%s %s is shown at %s; Ctrl-C ends\n"):format(app.title, app.version, url))
      console.out:flush()
    end,
  })
end

-- --- all -------------------------------------------------------------------------------------------

function M.run(options, console)
  asyncapi, luv = require("weir.asyncapi"), require("luv")
  for _, pair in ipairs(options.env or {}) do
    luv.os_setenv(pair[1], pair[2])
  end
  return verbs[options.verb](options, console)
end

return M
