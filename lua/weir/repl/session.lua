--- A session: the globals of its inputs, its application, and what was opened in it.
-- @module weir.repl.session

local bound = require("weir.app.bound")
local brokers = require("weir.app.brokers")
local collect = require("weir.app.collect")
local contract = require("weir.broker.contract")
local definitions = require("weir.repl.definitions")
local errors = require("weir.errors")
local load_app = require("weir.app.load")
local redefine = require("weir.repl.redefine")
local tail = require("weir.repl.tail")
local tasks = require("weir.task")

local M = {}

local Session = { __name = "weir.repl.session" }
Session.__index = Session

local TITLE, VERSION, MEMORY = "repl", "0.1.0", "memory:"

-- --- globals --------------------------------------------------------------------------------------

-- Notes what is registered with a router, for `.save`.
local function observe_router(self, name, value)
  local is_router = type(value) == "table" and rawget(value, "is_router")
  if is_router and not rawget(value, "added") and not value.entries[1] then
    redefine.enable_router(value, function(entry)
      self:note_entry("router " .. name, entry)
    end)
  end
end

-- Globals are kept beside the table of them, so that each assignment is seen.
local function make_env(self)
  return setmetatable({}, {
    __index = function(_, name)
      local value = self.vars[name]
      if value ~= nil then
        self.read[name] = self.set[name] == nil or nil
        return value
      end
      return _G[name]
    end,
    __newindex = function(_, name, value)
      self.vars[name] = value
      if type(name) == "string" then
        self.set[name] = value
        self.count = self.count + 1
        self.order[name] = self.count
        observe_router(self, name, value)
      end
    end,
    __pairs = function()
      return next, self.vars, nil
    end,
  })
end

--- The value of a global.
function Session:global(name)
  local value = self.vars[name]
  if value == nil then
    value = rawget(_G, name)
  end
  return value
end

-- --- the application ------------------------------------------------------------------------------

-- Notes something that an input registered.
function Session:note_entry(where, entry)
  local target = entry.target
  local name = type(target) == "table" and target.name or target or entry.source
  local filter = entry.options.filter and tostring(entry.options.filter) or ""
  local what = ("%s %s %s %s"):format(where, entry.kind, tostring(name), filter)
  self.registered[#self.registered + 1] = what
end

-- Notes what inputs register, for `.save`.
local function observe(self, app)
  local added = app.added
  function app.added(owner, entry)
    local handle, err = added(owner, entry)
    if handle then
      self:note_entry("app", entry)
    end
    return handle, err
  end
  local on = app.on
  function app.on(owner, name, fn)
    self.registered[#self.registered + 1] = ("hook %s %s"):format(tostring(name), tostring(fn))
    on(owner, name, fn)
    return owner
  end
end

--- Makes an application the session's, and starts it.
-- @tparam table app
-- @tparam table source `path` (and `shares_globals`, where it was run with the session's), or `url`
-- @treturn boolean true; or nil and an error: it is the session's all the same
function Session:adopt(app, source)
  self:stop_app()
  redefine.enable(app)
  observe(self, app)
  self.app, self.vars.app = app, app
  source.title, source.version, source.more = app.title, app.version, {}
  self.source = source
  self.bound = bound(app, {}, "prompt")
  local running, err = app:start()
  if not running then
    return nil, err
  end
  return true
end

-- An application without anything, on one broker.
local function empty_app(url)
  local app = require("weir.app")(TITLE, VERSION, { log = { level = "warn" } })
  local broker, err = app:broker(url)
  if not broker then
    return nil, err
  end
  return app
end

local function without_credentials(url)
  return (url:gsub("//[^/@]*@", "//"))
end

--- Makes an application on a broker the session's.
-- @tparam[opt="memory:"] string url
-- @treturn boolean true; or nil and an error
function Session:begin(url)
  url = url or MEMORY
  local app, err = empty_app(url)
  if not app then
    return nil, err
  end
  return self:adopt(app, { url = without_credentials(url) })
end

local function is_untouched(self)
  local app = self.app
  return not self.source.path and #app.brokers == 1 and #app.entries == 0 and #app.publishers == 0
    and self.source.url == MEMORY
end

local function free_label(app, kind)
  local taken = {}
  for _, each in ipairs(app.brokers) do
    taken[each.label] = true
  end
  local label, number = kind, 1
  while taken[label] do
    number = number + 1
    label = kind .. number
  end
  return label
end

-- Adds a broker to an application that runs.
local function attach(self, url)
  local ok, broker, err = pcall(require("weir.broker"), url)
  if not ok or not broker then
    local text = tostring(ok and err or broker):gsub("^[^\n:]-:%d+: ", "")
    return nil, errors.new("broker", text)
  end
  contract.check(broker)
  local app, running = self.app, self.app.running
  local label = free_label(app, broker.kind)
  local attached = { label = label, broker = broker, options = { label = label }, source = collect.source(1) }
  local link = { label = label, broker = broker, options = attached.options, source = attached.source }
  local deadline = tasks.now() + running.start_timeout
  ok, err = brokers.connect_one(running, link, deadline)
  if not ok then
    pcall(broker.shutdown, broker, 1)
    return nil, err
  end
  table.insert(app.brokers, attached)
  table.insert(running.links, link)
  table.insert(self.source.more, { label, without_credentials(url) })
  app.changes = app.changes + 1
  return label
end

--- Connects a broker: the only one, where nothing was defined on that in memory yet; else one more.
-- @tparam string url
-- @treturn string its label; or nil and an error
function Session:connect(url)
  if not self.app:is_live() or is_untouched(self) then
    local former = self.app
    local ok, err = self:begin(url)
    if not ok then
      if self.app ~= former or not former:is_live() then
        self:begin()
      end
      return nil, err
    end
    return self.app.brokers[1].label
  end
  return attach(self, url)
end

-- Runs a Lua file with the session's globals. The application that it returns or made, or false; or nil and an error.
local function run_file(self, path)
  local chunk, why = loadfile(path, "t", self.env)
  if not chunk then
    return nil, errors.new("load", why)
  end
  load_app.find_neighbours(path)
  local ok, result, made = require("weir.app").observe(chunk)
  if not ok then
    return nil, errors.is(result) and result or errors.new("load", load_app.text_of(result))
  end
  local app = type(result) == "table" and getmetatable(result) and getmetatable(result).__name == "weir.app" and result
  return app or made[#made] or false
end

-- The application that a file made, unless what it says of itself cannot be.
local function checked(app, err)
  local report = app and require("weir.app.check").run(app)
  if report and #report.mistakes > 0 then
    return nil, report:error(app.title)
  end
  return app, err
end

--- Runs a Lua file with the session's globals. An application that it returns or makes becomes the session's.
-- @tparam string path
-- @treturn ?boolean whether it made an application
-- @return or an error
function Session:load(path)
  local app, err = checked(run_file(self, path))
  if app == nil then
    return nil, err
  end
  self.loaded = path
  if not app then
    return false
  end
  local ok
  ok, err = self:adopt(app, { path = path, shares_globals = true })
  if not ok then
    return nil, err
  end
  return true
end

--- Opens the application of a file.
-- @tparam string path
-- @treturn boolean true; or nil and an error
function Session:open(path)
  local app, err = load_app(path)
  if not app then
    return nil, err
  end
  self.loaded = path
  return self:adopt(app, { path = path })
end

--- Loads the file again, and gives the handlers of the running application anew.
-- @treturn table what `redefine.take_over` returns; or nil and an error
function Session:reload()
  local path = self.loaded
  if not path then
    return nil, errors.new("load", "no file was loaded; .load FILE does")
  end
  local newer, err
  if path == self.source.path and not self.source.shares_globals then
    newer, err = checked(load_app(path))
  else
    newer, err = checked(run_file(self, path))
  end
  if newer == nil then
    return nil, err
  elseif not newer or path ~= self.source.path then
    return { replaced = 0, new = 0, closed = 0, failed = {} }
  elseif not self.app:is_live() then
    local ok
    ok, err = self:adopt(newer, { path = path, shares_globals = self.source.shares_globals })
    return ok and { replaced = 0, new = #newer.entries, closed = 0, failed = {} }, err
  end
  return redefine.take_over(self.app, newer)
end

--- Publishes a value.
-- @tparam string name the destination
-- @param value
-- @treturn boolean true; or nil and an error
function Session:publish(name, value)
  return self.bound:publish(value, { to = name })
end

--- Names that messages are published to, as far as is known.
-- @treturn {string,...}
function Session:destinations()
  local names, seen = {}, {}
  local ok, described = pcall(self.app.describe, self.app)
  for _, each in ipairs(ok and described.subscriptions or {}) do
    if not seen[each.name] then
      seen[each.name] = true
      names[#names + 1] = each.name
    end
  end
  return names
end

--- Shows what is published to a destination, or ends that.
-- @tparam string name
-- @treturn ?boolean whether it is shown now
-- @return or an error
function Session:tail(name)
  local former = self.tails[name]
  if former then
    self.tails[name] = nil
    former:close()
    return false
  end
  local running = self.app.running
  local link = self.app:is_live() and running.links[1]
  if not link then
    return nil, errors.new("closed", "the application does not run")
  end
  local opened, err = tail.open(link.broker, name, self.show, self.is_watched)
  if not opened then
    return nil, err
  end
  self.tails[name] = opened
  return true
end

-- --- the end --------------------------------------------------------------------------------------

--- Stops the application and what belongs to it.
function Session:stop_app()
  for name, each in pairs(self.tails) do
    self.tails[name] = nil
    each:close()
  end
  if self.app and self.app:is_live() then
    self.app.running:stop()
  end
end

-- Objects of weir that inputs gave names to, the newest first.
local function close_globals(self)
  local names, closed = {}, {}
  for name in pairs(self.order) do
    names[#names + 1] = name
  end
  table.sort(names, function(a, b)
    return self.order[a] > self.order[b]
  end)
  for _, each in ipairs(names) do
    local value = self.vars[each]
    local meta = (type(value) == "table" or type(value) == "userdata") and debug.getmetatable(value)
    local name = type(meta) == "table" and rawget(meta, "__name")
    if type(name) == "string" and name:find("^weir%.") and not closed[value] and value ~= self.app then
      closed[value] = true
      local ok, method = pcall(function()
        return value.close
      end)
      if ok and type(method) == "function" then
        pcall(method, value, 2)
      end
    end
  end
end

--- Closes everything.
function Session:close()
  self:stop_app()
  close_globals(self)
end

-- --- inputs ---------------------------------------------------------------------------------------

--- Begins to watch what an input defines.
function Session:watch()
  self.set, self.read, self.registered = {}, {}, {}
end

--- Notes what it defined.
-- @tparam string text
function Session:note(text)
  self.definitions:note(text, { set = self.set, read = self.read, registered = self.registered, globals = self.vars })
end

--- Makes a session without an application.
-- @tparam function show takes a text that is to be shown, with a newline at its end
-- @treturn table
function M.new(show)
  local self = setmetatable({
    vars = { weir = require("weir") },
    order = {}, -- names to when they were set
    count = 0,
    set = {}, -- by the input that runs, and what it read before, and registered
    read = {},
    registered = {},
    tails = {},
    definitions = definitions.new(),
    show = show,
  }, Session)
  self.env = make_env(self)
  return self
end

return M
