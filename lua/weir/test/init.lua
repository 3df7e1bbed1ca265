--- Tests of applications: the production app with its brokers in process, or the same test on real servers.
--
--     local kit = weir.test(require("app"))
--     kit:publish("orders", { id = 1 })
--     kit:subscriber("orders"):assert_called_with({ id = 1 }):assert_outcome("ack")
--     kit:published("invoices"):assert_count(1)
--     kit:stop()
--
-- A publish returns when everything that it leads to is done. Time stands still until `kit:advance`: see
-- docs/testing.md.
-- @module weir.test

local codecs = require("weir.codec")
local errors = require("weir.errors")
local log = require("weir.log")
local nearest = require("weir.nearest")
local new_clock = require("weir.test.time")
local new_publisher = require("weir.app.publisher").new
local quiet = require("weir.test.quiet")
local recorder = require("weir.test.recorder")
local running = require("weir.app.running")
local tasks = require("weir.task")

local Kit = { __name = "weir.test" }
Kit.__index = Kit

local OPTIONS = {
  live = "boolean",
  timeout = "number",
  time = "number",
  calm = "number",
  patience = "number",
  log = "table",
}

-- Seconds.
local TIMEOUT, CALM, PATIENCE = 10, 0.2, 0.1
-- Where the virtual clock starts: a day in 2025, so that no test depends on when it runs.
local TIME = 1750000000

local PUBLISH = {
  broker = "string",
  codec = { "string", "table" },
  correlation_id = "string",
  headers = "table",
  key = { "string", "number" },
  message_id = "string",
  options = "table",
  reply_to = "string",
  settle = "boolean",
}

-- --- finding things -------------------------------------------------------------------------------

local function registrations(self)
  local list = {}
  for _, registration in ipairs(self.running.list or {}) do
    list[#list + 1] = registration
  end
  for _, open in ipairs(self.running.consumers) do
    list[#list + 1] = open.registration
  end
  return list
end

-- The registration of a name: its id, or what it subscribes to.
local function find(self, name)
  local list = registrations(self)
  for _, registration in ipairs(list) do
    if registration.id == name then
      return registration
    end
  end
  for _, registration in ipairs(list) do
    if registration.descriptor.name == name then
      return registration
    end
  end
  return nil, list
end

local function link_of(self, label, level)
  for _, link in ipairs(self.running.links) do
    if label == nil or link.label == label then
      return link
    end
  end
  local labels = {}
  for i, link in ipairs(self.running.links) do
    labels[i] = link.label
  end
  error(("no broker has the label '%s'; there are: %s"):format(tostring(label), table.concat(labels, ", ")), level + 1)
end

--- What a subscription got and answered.
-- @tparam string name of the handler, or of the destination that it is subscribed to
-- @return see `weir.test.subscriber`
function Kit:subscriber(name)
  local known = self.recorder.subscribers[name]
  if known then
    return known
  end
  local registration, list = find(self, name)
  if registration then
    return self.recorder:of(registration)
  end
  local names = {}
  for i, each in ipairs(list) do
    names[i] = each.id
  end
  local meant = nearest(name, names)
  local hint = meant and ("did you mean '%s'?"):format(meant) or "there are: " .. table.concat(names, ", ")
  error(("the application has no subscriber '%s'; %s"):format(tostring(name), hint), 2)
end

--- What the application published to a destination (not what the test published): see `weir.test.records`; each has
-- `value`, `payload`, `headers`, `key`, `to`, `broker`.
-- @tparam[opt] string name everything when left out
function Kit:published(name)
  return self.recorder:published(name)
end

--- What became a dead letter there: as `published`, and `error`, `code`, `attempts`, `handler`, `origin`.
-- @tparam[opt] string name everything when left out
function Kit:dead_letters(name)
  return self.recorder:dead_letters(name)
end

--- What went wrong in handlers, in order: tables with `subscriber`, `handler`, `error`.
function Kit:errors()
  return self.recorder.failures
end

--- Fails when a handler failed, and says how.
function Kit:assert_no_errors()
  local first = self.recorder.failures[1]
  if first then
    local text = "%d failures; the first, of '%s': %s"
    error(text:format(#self.recorder.failures, first.subscriber, tostring(first.error)), 2)
  end
end

--- The lines that the application logged.
function Kit:logs()
  return self.lines
end

--- The broker that stands for that of a label, or the first: to publish and subscribe as somebody else does.
-- @tparam[opt] string label
function Kit:broker(label)
  return link_of(self, label, 2).broker
end

--- How the application is: as `app:health()`.
function Kit:health()
  return self.running:health()
end

-- --- publishing -----------------------------------------------------------------------------------

-- The publisher for a destination: with the codec of who is subscribed there, and not seen by the recorder.
local function publisher_for(self, name, options)
  local registration = find(self, name)
  local label = options.broker or registration and registration.broker.label
  local link = link_of(self, label, 3)
  local codec = options.codec
  if not codec then
    codec = registration and registration.handlers[#registration.handlers].codec or "json"
  end
  local made = self.publishers[link.label]
  if not made then
    made = new_publisher({ broker = link.broker, label = link.label, env = { app = self.app } })
    self.publishers[link.label] = made
  end
  return made:with({ codec = codecs.get(codec) }), link
end

local function settle(self, level)
  local ok, what = self.quiet:wait(self.options.timeout)
  if not ok then
    error(("the application is not quiet after %g s: %s"):format(self.options.timeout, what), level + 1)
  end
  return true
end

local function check_open(self, level)
  if self.stopped then
    error("the test kit was stopped", level + 1)
  end
end

local function send(self, name, value, options)
  local publisher, link = publisher_for(self, name, options)
  local with = { to = name }
  for option, each in pairs(options) do
    if option ~= "settle" and option ~= "codec" and option ~= "broker" then
      with[option] = each
    end
  end
  with.message_id = with.message_id or require("weir.id").message()
  local headers = { ["message-id"] = with.message_id }
  self.quiet:published(link.label, name, headers)
  local ok, err = publisher:publish(value, with)
  if not ok then
    self.quiet:refused(link.label, name, headers)
    return nil, err
  end
  return true
end

--- Publishes a value as somebody outside would, and returns when the reaction to it is over: handlers, what they
-- publish, who is subscribed to that, on all brokers. What is delayed waits for `advance`.
-- @tparam string name the destination
-- @param value encoded by the codec of who is subscribed there, or JSON
-- @tparam[opt] table options `headers`, `key`, `message_id`, `correlation_id`, `reply_to`, `codec`, `broker` (label),
--   `options` (the broker's), `settle` (false: return at once)
-- @treturn boolean true; or nil and why the broker refused it. Raises when it does not come to rest in time, and says
--   who does not.
function Kit:publish(name, value, options)
  check_open(self, 2)
  options = errors.options("kit:publish", options, PUBLISH, 2)
  local ok, err = send(self, name, value, options)
  if not ok then
    return nil, err
  end
  return options.settle == false or settle(self, 2)
end

--- Publishes several values, then waits as `publish`.
-- @tparam string name
-- @tparam table values a list
-- @tparam[opt] table options as of `publish`, for each
function Kit:publish_all(name, values, options)
  check_open(self, 2)
  options = errors.options("kit:publish_all", options, PUBLISH, 2)
  for _, value in ipairs(values) do
    local ok, err = send(self, name, value, options)
    if not ok then
      return nil, err
    end
  end
  return options.settle == false or settle(self, 2)
end

--- Publishes bytes as they are, with exactly these headers, then waits as `publish`: for payloads that no codec makes.
-- @tparam string name
-- @tparam string payload
-- @tparam[opt] table headers
-- @tparam[opt] table options `broker` (label), `settle`
function Kit:publish_raw(name, payload, headers, options)
  check_open(self, 2)
  options = errors.options("kit:publish_raw", options, { broker = "string", settle = "boolean" }, 2)
  local registration = find(self, name)
  local link = link_of(self, options.broker or registration and registration.broker.label, 2)
  if headers then
    self.quiet:published(link.label, name, headers)
  end
  local ok, err = link.broker:publisher():publish(name, payload, headers)
  if not ok then
    self.quiet:refused(link.label, name, headers or {})
    return nil, err
  end
  return options.settle == false or settle(self, 2)
end

--- Asks as somebody outside would, and waits for the answer and for the rest of the reaction.
-- @tparam string name
-- @param value
-- @tparam[opt] table options as of `publish`
-- @tparam[opt] number timeout of the request, in seconds of real time
-- @return the answer, decoded; or nil and an error
-- @return its message
function Kit:request(name, value, options, timeout)
  check_open(self, 2)
  options = errors.options("kit:request", options, PUBLISH, 2)
  local publisher = publisher_for(self, name, options)
  local with = { to = name }
  for option, each in pairs(options) do
    if option ~= "settle" and option ~= "codec" and option ~= "broker" then
      with[option] = each
    end
  end
  local answer, message = publisher:request(value, with, timeout or self.options.timeout)
  if options.settle ~= false then
    settle(self, 2)
  end
  return answer, message
end

-- --- time -----------------------------------------------------------------------------------------

--- Waits until nothing is going on. Raises when that takes too long, and says who goes on.
-- @treturn boolean true
function Kit:settle()
  check_open(self, 2)
  return settle(self, 2)
end

--- Lets time pass: what is due happens in its order, and each reaction comes to its end before the next. On real
-- servers this waits.
-- @tparam number seconds
-- @treturn boolean true
function Kit:advance(seconds)
  check_open(self, 2)
  if type(seconds) ~= "number" or seconds ~= seconds or seconds < 0 or seconds == math.huge then
    error("kit:advance: a number of seconds, at least 0, is expected, not " .. tostring(seconds), 2)
  end
  if not self.clock then
    tasks.sleep(seconds)
    return settle(self, 2)
  end
  settle(self, 2)
  local wrong
  self.clock.advance(seconds, function()
    local ok, err = pcall(settle, self, 0)
    wrong = wrong or (not ok and err) or nil
  end)
  if wrong then
    error(wrong, 2)
  end
  return true
end

--- Seconds since 1970 by the clock of the application.
function Kit:time()
  return self.clock and self.clock.time() or require("weir.clock").time()
end

-- --- the end --------------------------------------------------------------------------------------

--- Forgets what was recorded until now.
function Kit:clear()
  self.recorder:clear()
end

--- Stops the application in order: handlers finish, brokers close. May be called twice.
-- @tparam[opt] number timeout seconds for handlers to finish
-- @treturn boolean true; or nil and the error that ended the application
function Kit:stop(timeout)
  self.stopped = true
  return self.running:stop(timeout or self.options.timeout)
end

Kit.__close = Kit.stop

function Kit:__tostring()
  return ("weir.test(%s, %s)"):format(self.app.title, self.running.state)
end

-- --- the start ------------------------------------------------------------------------------------

-- The brokers of an application in process, by label.
local function twins(app, clock)
  local brokers = {}
  for _, each in ipairs(app.brokers) do
    local twin = each.broker:in_process(clock)
    if type(twin.pending) ~= "function" then
      error(("weir.test: the broker '%s' in process cannot tell what is pending"):format(each.label), 3)
    end
    brokers[each.label] = twin
  end
  return brokers
end

local function app_of(app)
  if type(app) == "string" then
    local err
    app, err = require("weir.app.load")(app)
    if not app then
      error("weir.test: " .. tostring(err.message), 3)
    end
  end
  if type(app) ~= "table" or app.what ~= "app" then
    error("weir.test: an application, or the name of its file, is expected, not " .. tostring(app), 3)
  end
  return app
end

local function logger(self, own)
  if own then
    return type(own.info) == "function" and own or log.new(own)
  end
  local options = self.app.options.log
  local level = type(options) == "table" and options.level or "debug"
  return log.new({
    level = level,
    colour = false,
    out = function(line)
      if #self.lines < 10000 then
        self.lines[#self.lines + 1] = line
      end
    end,
  })
end

local function check(options)
  options = errors.options("weir.test", options, OPTIONS, 3)
  local result = { timeout = TIMEOUT, calm = CALM, patience = PATIENCE, time = TIME }
  for name, value in pairs(options) do
    if type(value) == "number" and not (value >= 0 and value < math.huge) then
      error(("weir.test: option '%s' must be a number of seconds, not %s"):format(name, tostring(value)), 3)
    end
    result[name] = value
  end
  return result
end

--- Starts an application for a test, and waits until it is open.
-- @function weir.test
-- @param app an application, or the path of the file that makes it
-- @tparam[opt] table options
--
-- - `live`: true for its own brokers and the real clock, in place of brokers in process and a virtual one
-- - `timeout`: seconds of real time after which what is not quiet is an error (10)
-- - `time`: seconds since 1970 at which the virtual clock starts
-- - `log`: a logger, or options of one; without it lines are kept for `kit:logs()`
-- - `calm`: live, seconds without any event that count as quiet (0.2)
-- - `patience`: seconds of real time after which handlers that wait while nothing moves are taken to wait for the
--   virtual clock (0.1), where something does
-- @return the kit. Raises when the application cannot be started, with all mistakes of its wiring.
return function(app, options)
  if type(options) == "string" then
    options = nil -- weir.test(require("app")): the second value of `require` is where it found the module
  end
  app = app_of(app)
  options = check(options)
  local self = setmetatable({ app = app, options = options, lines = {}, publishers = {}, stopped = false }, Kit)
  self.recorder = recorder.new()
  if not options.live then
    self.clock = new_clock(options.time)
    self.brokers = twins(app, self.clock)
  end
  self.quiet = quiet.new(self)
  if options.live then
    self.recorder.awaited = self.quiet
  end
  local started, err = running.begin(app, {
    brokers = self.brokers,
    clock = self.clock,
    observer = self.recorder.observer,
    log = logger(self, options.log),
  })
  if not started then
    error("weir.test: " .. err.message, 2)
  end
  self.running = started
  local ok
  ok, err = started:wait_opened()
  if not ok then
    started:request_stop()
    error("weir.test: the application does not start: " .. tostring(err), 2)
  end
  return self
end
