--- `weir top`: watches what an application does.
-- @module weir.cli.top
local arguments = require("weir.cli.arguments")
local cli = require("weir.cli")

local M = {
  summary = "watch an application: rates, lag, credit, outcomes, retries",
  intro = [[
Reads the metrics that an application serves (app:http{ listen = ... }) and shows what is
subscribed, published and streamed, again and again. Given a file, it runs the application of that
file and shows that.]],
  words = {
    { "source", "URL|FILE", "the address of the metrics, such as http://127.0.0.1:8080 or :8080, or an application",
      missing = "what to watch is missing: an address such as http://127.0.0.1:8080, or the file of an application" },
  },
  options = {
    { "interval", "SECONDS", "time between two looks (1)", read = arguments.seconds },
    { "once", nil, "print it as text, once, after one interval, and end" },
    { "json", nil, "print one JSON object, in a line, for each look" },
    { "env", "NAME=VALUE", "set a variable of the environment; repeatable", many = true, read = arguments.variable },
  },
  notes = [[
Keys: q or Ctrl-C ends; left and right choose the column by which subscriptions are sorted, r turns
the order round; up, down, page up, page down, home and end scroll; p pauses; space looks at once;
Ctrl-Z stops, until fg. What an application of a file prints goes to the standard error with --once
and --json; else the last line of it, or of its log, is at the bottom.

An address that does not answer is tried again with each look, and what was seen last stays. With
--once or --json it is an error. NO_COLOR leaves out all styles.]],
  examples = {
    "weir top :8080",
    "weir top http://10.0.0.7:8080/metrics --interval 5",
    "weir top app.lua --env BROKER=nats://127.0.0.1:4222",
    "weir top :8080 --once --json | jq '.subscriptions[] | select(.lag > 100)'",
  },
  statuses = "0 it was ended, 1 there was nothing to watch, or the application failed, 2 wrong use.",
}

local KEYS = "q quit  <- -> sort  r reverse  p pause  up/down scroll"

-- --- looking --------------------------------------------------------------------------------------

local Watch = {}
Watch.__index = Watch

-- Looks once: what is different goes into the state. True; or nil and an error.
local function look(self)
  local model = require("weir.top.model")
  local samples, err = self.source:sample()
  if not samples then
    return nil, err
  end
  local now = require("weir.runtime").now()
  local after = model.snapshot(samples, now)
  self.state.data = model.compare(after, self.before)
  self.before, self.seen = after, now
  return true
end

local function text_of(err)
  return type(err) == "table" and err.message or tostring(err)
end

-- Looks, and says on the screen what went wrong.
local function look_again(self)
  local ok, err = look(self)
  local state = self.state
  if ok then
    state.error = nil
  else
    local text = text_of(err)
    if self.seen then
      local ago = require("weir.runtime").now() - self.seen
      state.error = ("connection lost: %s (trying again; this is %.0f s old)"):format(text, ago)
    else
      state.error = ("no connection yet: %s (trying again)"):format(text)
    end
    self.before = nil -- rates over the gap would be none of now
  end
  state.log = self.source.log and self.source:log()
end

-- --- on a terminal --------------------------------------------------------------------------------

local function draw(self)
  local width, height = self.screen:size()
  local lines, most = require("weir.top.view").lines(self.state, {
    width = width,
    height = height,
    sort = self.sort,
    reverse = self.reverse,
    skip = self.skip,
    keys = KEYS,
  })
  self.skip = math.min(self.skip, most)
  return self.screen:draw(lines)
end

local function sort_by(self, step)
  local orders = require("weir.top.view").orders
  local at = 1
  for i, name in ipairs(orders) do
    at = name == self.sort and i or at
  end
  self.sort = orders[(at - 1 + step) % #orders + 1]
end

local keys = {}

keys.q = function()
  return "end"
end
keys.Q, keys.interrupt, keys["end of input"] = keys.q, keys.q, keys.q

function keys.right(self)
  sort_by(self, 1)
end

function keys.left(self)
  sort_by(self, -1)
end

keys.s, keys[">"], keys["<"] = keys.right, keys.right, keys.left

function keys.r(self)
  self.reverse = not self.reverse
end

function keys.p(self)
  self.state.paused = not self.state.paused
  self.wake:try_send(true)
end

keys[" "] = function(self)
  self.now = true
  self.wake:try_send(true)
end

function keys.stop(self)
  self.screen:suspend()
end

local function scrolls(lines)
  return function(self)
    local _, height = self.screen:size()
    local step = lines == "page" and height // 2 or lines == "back" and -(height // 2) or lines
    self.skip = math.max(0, self.skip + step)
  end
end

keys.up, keys.k, keys.down, keys.j = scrolls(-1), scrolls(-1), scrolls(1), scrolls(1)
keys["page up"], keys["page down"], keys["end"] = scrolls("back"), scrolls("page"), scrolls(1000000)

function keys.home(self)
  self.skip = 0
end

-- Looks in a task of its own, so that keys are heard meanwhile.
local function looker(self, events)
  while not self.over do
    if self.now or not self.state.paused then
      self.now = false
      look_again(self)
      events:send("looked")
    end
    self.wake:recv(not self.state.paused and self.interval or nil)
  end
end

-- What goes wrong in it ends everything.
local function guarded(self, events)
  local ok, err = pcall(looker, self, events)
  if not ok and not self.over then
    self.broken = err
    events:send("broken")
  end
end

function keys.broken(self)
  error(self.broken, 0)
end

local function ended(self)
  if self.source.ended then
    return self.source:ended()
  end
end

local function live(self)
  local weir = require("weir")
  local events = weir.channel(64)
  self.wake = weir.channel(1)
  self.screen = require("weir.top.screen").open((os.getenv("NO_COLOR") or "") == "", function(key)
    self.interrupted = self.interrupted or key == "interrupt"
    events:try_send(key) -- where so many wait, those that come later are lost, but for an interrupt
  end)
  local task = weir.spawn(guarded, self, events)
  local ok, err = pcall(function()
    local there = draw(self)
    while there do
      local key = events:recv()
      local act = keys[key]
      if self.interrupted or key == nil or act and act(self) == "end" then
        return nil
      end
      local over, why = ended(self)
      if over then
        return why
      end
      there = draw(self)
    end
  end)
  self.over = true
  self.screen:close()
  self.wake:close()
  task:cancel("it was ended")
  if not ok then
    error(err, 0)
  elseif err then
    return nil, err
  end
  return cli.OK
end

-- --- as text --------------------------------------------------------------------------------------

local function print_text(self, console)
  local columns = tonumber(os.getenv("COLUMNS") or "")
  local lines = require("weir.top.view").lines(self.state, { width = columns and columns >= 20 and columns or 120 })
  for _, line in ipairs(lines) do
    if not console.out:write((line[1]:gsub(" +$", "")), "\n") then
      return false
    end
  end
  return console.out:flush() ~= nil
end

local function print_json(self, console)
  local json = require("weir.cli.json")
  local data = self.state.data
  local report = { source = self.source.name, time = require("weir.runtime").time(), runtime = data.runtime }
  report.seconds = data.seconds
  for _, name in ipairs({ "apps", "brokers", "subscriptions", "published", "streams" }) do
    report[name] = json.array(data[name])
  end
  return console.out:write(json.encode(report), "\n") ~= nil and console.out:flush() ~= nil
end

-- Two looks make one report, which has rates.
local function print_all(self, console, options)
  local weir = require("weir")
  local ok, err = look(self)
  if not ok then
    return nil, text_of(err)
  end
  repeat
    weir.sleep(self.interval)
    local over, why = ended(self)
    if over then
      return why and nil or cli.OK, why
    end
    ok, err = look(self)
    if not ok then
      return nil, text_of(err)
    end
    local written = (options.json and print_json or print_text)(self, console)
  until options.once or not written
  return cli.OK
end

-- --- the command ----------------------------------------------------------------------------------

-- Runs the application of a file. What it prints must not be within the picture, or the JSON.
local function run_file(options)
  local luv = require("luv")
  for _, pair in ipairs(options.env or {}) do
    luv.os_setenv(pair[1], pair[2])
  end
  local load, output = require("weir.app.load"), require("weir.top.output").new()
  local app, err, source
  if options.once or options.json then
    app, err = load.aside(options.source)
  else
    output:capture()
    app, err = load(options.source)
  end
  if app then
    source, err = require("weir.top.source").application(app, output)
  end
  if not source then
    output:release()
    return nil, text_of(err)
  end
  return source, nil, output
end

local function open(options)
  local source = require("weir.top.source")
  local url = source.url(options.source)
  if url and not options.source:find("%.lua$") then
    if options.env then
      return nil, cli.usage_error("--env is for an application that is run, and not for an address")
    end
    return source.remote(url)
  end
  return run_file(options)
end

local function watch(options, console)
  local source, err, output = open(options)
  if not source then
    return nil, err
  end
  local self = setmetatable({
    source = source,
    interval = options.interval or 1,
    state = { source = source.name },
    sort = "name",
    reverse = false,
    skip = 0,
  }, Watch)
  local run = (options.once or options.json) and print_all or live
  local broken_pipe = require("luv").new_signal() -- then writing fails, and the application can end in order
  broken_pipe:start("sigpipe")
  local ok, status, why = pcall(run, self, console, options)
  source:close()
  if output then
    output:release()
  end
  broken_pipe:close()
  if not ok then
    error(status, 0)
  end
  return status, why
end

function M.run(options, console)
  if not options.once and not options.json and not console:is_terminal(console.out) then
    return nil, cli.usage_error("the output is no terminal; --once prints it as text, --json as JSON")
  end
  return require("weir").run(watch, options, console)
end

return M
