-- The pipeline with live counts: what `make demo` runs.
--
--     lua5.4 examples/pipeline/demo.lua [FILE]
--
-- It shows the application of app.lua at work for some seconds, and ends by itself.
local here = arg[0]:match("^.*/") or "./"
package.path = here .. "?.lua;" .. package.path

local luv = require("luv")

if arg[1] == "--help" or #arg > 1 then
  print("Usage: lua5.4 examples/pipeline/demo.lua [FILE]")
  print("Shows the pipeline of examples/pipeline/app.lua, fed from FILE (default: the log of dpkg), with live counts.")
  os.exit(arg[1] == "--help" and 0 or 2)
elseif arg[1] then
  luv.os_setenv("FILE", arg[1])
end

local app = require("app")
local ledger = require("ledger")
local log = require("weir.log")
local screen = require("screen")
local source = require("source")
local store = require("store")
local weir = require("weir")

-- How long to publish, in seconds, and how much at most.
local SECONDS, MOST = 6, 12000

local STEPS = {
  { id = "pipeline.lines", what = "1 validate", does = "lines become events, or dead letters" },
  { id = "enrich", what = "2 enrich", does = "asks the catalogue for the section" },
  { id = "route", what = "3 route", does = "by package, with workers that keep its order" },
  { id = "deliver", what = "4 deliver", does = "to a store that fails: retried with backoff" },
}

local function count_lines(path)
  local file, number = io.open(path), 0
  for _ in file and file:lines() or function() end do
    number = number + 1
    if number == MOST then
      break
    end
  end
  if file then
    file:close()
  end
  return number
end

local total = count_lines(source.path)
source.limit = MOST
source.rate = math.max(total / SECONDS, 1)

-- --- what is shown --------------------------------------------------------------------------------

local function bar(part, whole)
  local filled = whole > 0 and 30 * part // whole or 0
  return "[" .. ("#"):rep(filled) .. ("."):rep(30 - filled) .. "]"
end

local function state_of_the_store()
  local closed = next(store.closed)
  if closed then
    return screen.style("yellow", ("the section '%s' of the store is closed"):format(closed))
  end
  return screen.style("green", ("all sections of the store are open; %d dead letters replayed"):format(ledger.replayed))
end

local function block()
  local handlers = app:health().handlers
  local lines = {
    ("%s %d of %d lines published"):format(bar(ledger.lines, total), ledger.lines, total),
    "",
    screen.style("bold", ("%-12s %8s %8s %13s %10s"):format("step", "done", "retries", "dead letters", "in flight")),
  }
  for _, step in ipairs(STEPS) do
    local now = handlers[step.id] or { ack = 0, retry = 0, dead_letter = 0, in_flight = 0 }
    local row = ("%-12s %8d %8d %13d %10d"):format(step.what, now.ack, now.retry, now.dead_letter, now.in_flight)
    lines[#lines + 1] = row .. "   " .. screen.style("dim", step.does)
  end
  lines[#lines + 1] = ""
  lines[#lines + 1] = ("stored %d | remarks %d | invalid %d | dead %d | out of order %d"):format(ledger.stored,
    ledger.remarks, ledger.invalid, ledger.dead, ledger.disorder)
  lines[#lines + 1] = state_of_the_store()
  return lines
end

local function plain()
  local text = "published %d of %d | stored %d | retries %d | invalid %d | dead %d | replayed %d"
  return text:format(ledger.lines, total, ledger.stored, app:health().handlers.deliver.retry, ledger.invalid,
    ledger.dead, ledger.replayed)
end

local function show()
  if screen.is_terminal then
    screen.draw(block())
  else
    screen.line(plain())
  end
end

-- --- the show -------------------------------------------------------------------------------------

app:on("started", function()
  weir.spawn(function()
    repeat
      show()
      weir.sleep(screen.is_terminal and 0.1 or 1)
    until app:health().state ~= "running"
  end)
end)

app:on("stopping", function()
  show()
  screen.line()
end)

local title = screen.style("bold", "An application")
screen.line(("%s: %s, on %s\n"):format(title, source.path, weir.env("BROKER", "memory:")))
local ok, result = app:run({ log = log.new({ level = "error" }) })
if not ok then
  io.stderr:write("demo.lua: ", tostring(result), "\n")
  os.exit(1, true)
elseif result then
  screen.line("interrupted")
  os.exit(128 + result, true)
end
screen.line(([[

What you saw: %d lines went through four handlers. Those that do not fit the schema, and those that the
store refused four times, became dead letters with the reason; when the store was open again, they were
replayed. %s]]):format(ledger.lines, screen.style("green", "Nothing was lost, and each package kept its order.")))
os.exit(0, true)
