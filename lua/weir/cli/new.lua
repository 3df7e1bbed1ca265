--- `weir new NAME`: makes the directory of a new application.
-- @module weir.cli.new
local cli = require("weir.cli")
local templates = require("weir.templates")

-- As long as a part of a name may be everywhere: in a stream, a subject, a file.
local LONGEST = 64

-- 0755: what others may do with a directory is the matter of the umask.
local PUBLIC = 493

local function read_name(text)
  if #text <= LONGEST and text:find("^%l[%l%d_-]*$") then
    return text
  end
  return nil, ("must be 1 to %d lower-case letters, digits, - and _, and begin with a letter"):format(LONGEST)
end

local M = {
  summary = "make a new application, with its tests",
  intro = [[
Makes the directory NAME with an application that runs, tests that pass, and a README that says what to try.]],
  words = { { "name", "NAME", "of the application, and of its directory", missing = "the name is missing",
    read = read_name } },
  options = {
    { "broker", "KIND", "what it runs on: memory (when left out), nats or durable", choices = templates.BROKERS },
    { "json", nil, "print what was made as JSON" },
  },
  examples = { "weir new orders", "weir new orders --broker nats && cd orders && busted" },
  statuses = "0 it is there, 1 it could not be made, or something of that name was there, 2 wrong use.",
}

local function write(path, text)
  local file, err = io.open(path, "wb")
  if not file then
    return nil, err
  end
  local ok
  ok, err = file:write(text)
  local closed, failure = file:close()
  return ok and closed, err or failure
end

-- Makes everything in a directory that is there and empty.
local function fill(directory, files)
  local luv = require("luv")
  for _, each in ipairs(files) do
    local path = directory .. "/" .. each.path
    local folder = each.path:match("^(.*)/")
    if folder then
      luv.fs_mkdir(directory .. "/" .. folder, PUBLIC) -- if that fails, so does what follows
    end
    local ok, err = write(path, each.text)
    if not ok then
      return nil, ("cannot write %s: %s; remove '%s' and try again"):format(path, err, directory)
    end
  end
  return true
end

function M.run(options, console)
  local luv = require("luv")
  local name, broker = options.name, options.broker or templates.BROKERS[1]
  local ok, err, code = luv.fs_mkdir(name, PUBLIC)
  if not ok then
    if code == "EEXIST" then
      return nil, ("'%s' is there already; choose another name, or move it away"):format(name)
    end
    return nil, ("cannot make the directory '%s': %s"):format(name, err)
  end
  local files = templates.files(name, broker)
  ok, err = fill(name, files)
  if not ok then
    return nil, err
  end
  local json = require("weir.cli.json")
  local paths = json.array({})
  for i, each in ipairs(files) do
    paths[i] = name .. "/" .. each.path
  end
  if options.json then
    console.out:write(json.encode({ name = name, broker = broker, files = paths }), "\n")
    return cli.OK
  end
  console.out:write("made ", table.concat(paths, "\n     "), "\n\n")
  console.out:write(("Try 'cd %s && weir check app.lua && busted'; README.md says more.\n"):format(name))
  return cli.OK
end

return M
