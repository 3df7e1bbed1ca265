--- Services that are hurt, for the specs of faults: on each broker whose server can be started here.
local busted = require("busted") -- whose globals are those of spec files alone
local durable = require("spec.lua.durable.support")
local ledger = require("spec.lua.app.faults.ledger")
local nats = require("spec.lua.nats_server")
local programs = require("spec.programs")
local shell = require("spec.house.shell")
local tasks = require("weir.task")

local M = {}

local serial = 0

-- --- brokers --------------------------------------------------------------------------------------

local Place = {}
Place.__index = Place

-- Calls a method of the server, or a function of its module, in a task.
local function in_task(fn, ...)
  local result
  local args = table.pack(...)
  tasks.run(function()
    result = fn(table.unpack(args, 1, args.n))
  end)
  return result
end

local places = {
  { name = "the memory broker on disk", kind = "memory", available = pcall(require, "weir.brokers.lmdb") },
  { name = "durable streams", kind = "durable", available = durable.available() },
  { name = "JetStream", kind = "nats", available = nats.available() },
}

local start, kill, revive = {}, {}, {}

function start.memory()
  return { stop = function() end }
end

function start.durable(place)
  place.dir, place.remove = shell.scratch()
  return durable.server({ quiet = true, dir = place.dir })
end

function start.nats()
  return nats.start()
end

function kill.durable(place)
  place.server:stop("sigkill")
end

function revive.durable(place)
  place.server = durable.server({ quiet = true, dir = place.dir, port = place.server.port })
end

function kill.nats(place)
  place.server:kill()
end

function revive.nats(place)
  place.server:start()
end

function Place:start()
  self.server = in_task(start[self.kind], self)
end

function Place:stop()
  in_task(self.server.stop, self.server)
  if self.remove then
    self.remove()
  end
end

--- Kills the server, calls `down()`, starts the server again with what it had stored, and calls `up` with the result.
function Place:restart(down, up)
  in_task(kill[self.kind], self)
  local ok, result = xpcall(down, debug.traceback)
  in_task(revive[self.kind], self)
  assert(ok, result)
  up(result)
end

--- Calls `fn(url)` while there is a server that asks for a user and a password.
function Place:with_password(user, password, fn) -- luacheck: no self
  local config = ("authorization { user: %q, password: %q }"):format(user, password)
  local server = in_task(nats.start, { config = config })
  local ok, result = xpcall(fn, debug.traceback, server.url)
  in_task(server.stop, server)
  assert(ok, result)
end

--- Calls `fn(url)` while there is a proxy with faults before the server: see `proxy` of the support of durable streams.
function Place:with_proxy(fault, fn)
  local proxy = durable.proxy(self.server, fault)
  local ok, result = xpcall(fn, debug.traceback, proxy.url)
  proxy:close()
  assert(ok, result)
end

-- --- services -------------------------------------------------------------------------------------

local Service = {}
Service.__index = Service

--- Starts it.
-- @tparam[opt] table env variables of the environment
-- @return a program of `spec.programs`
function Service:start(env)
  local all = { LEDGER = self.path }
  for _, each in ipairs({ self.env, env or {} }) do
    for name, value in pairs(each) do
      all[name] = tostring(value)
    end
  end
  local words = { "lua5.4", "lua/bin/weir", "run", self.file, "--log-level", self.log_level or "error" }
  local program = programs.start(words, all)
  self.programs[#self.programs + 1] = program
  return program
end

--- What it said since it was asked the last time, and everything together in `self.lines`.
function Service:read()
  local list
  list, self.at = ledger.read(self.path, self.at)
  for _, words in ipairs(list) do
    self.lines[#self.lines + 1] = words
    self.count[words[1]] = (self.count[words[1]] or 0) + 1
  end
  return list
end

--- Waits until a program has said so many lines that begin with a word since its start.
function Service:await(program, word, count)
  local before = self.count[word] or 0
  return program:await(function()
    self:read()
    return (self.count[word] or 0) - before >= count
  end)
end

--- Waits until check() is true of what it said.
function Service:until_true(program, check)
  return program:await(function()
    self:read()
    return check()
  end)
end

--- The second words of all lines that begin with a word, from a line on: as a set, and as a list.
function Service:all(word, from)
  local set, list = {}, {}
  for i = from or 1, #self.lines do
    local words = self.lines[i]
    if words[1] == word then
      local id = tonumber(words[2]) or words[2]
      set[id] = (set[id] or 0) + 1
      list[#list + 1] = id
    end
  end
  return set, list
end

--- Forgets what it said.
function Service:forget()
  self:read()
  self.lines, self.count = {}, {}
end

--- Ends it as the system does, and waits for that: the status must be that of the signal.
function Service:stop(program)
  program:kill("sigterm")
  local status, out, err = program:wait(20)
  assert(status == 143, ("it ended with status %d:\n%s%s"):format(status, out, err))
  self:read()
end

function Service:discard()
  for _, program in ipairs(self.programs) do
    program:discard()
  end
  self.remove()
end

--- Makes a service of a file beside this one.
-- @tparam table place of `each_broker`
-- @tparam string file
function M.service(place, file)
  serial = serial + 1
  local dir, remove = shell.scratch()
  local server = place.server or {}
  return setmetatable({
    file = "spec/lua/app/faults/" .. file,
    path = dir .. "/ledger",
    dir = dir,
    env = { BROKER = place.kind, URL = server.url, DIR = dir .. "/state", PREFIX = "f" .. serial },
    remove = remove,
    programs = {},
    lines = {},
    count = {},
    at = 0,
  }, Service)
end

--- How many keys a table has.
function M.size(set)
  local count = 0
  for _ in pairs(set) do
    count = count + 1
  end
  return count
end

--- Describes the same for each broker: `body(service)` is called once, `service(file)` makes a service for a test.
-- @tparam[opt] {string,...} kinds those that are meant; all when left out
function M.each_broker(kinds, body)
  for _, place in ipairs(places) do
    local wanted = kinds == nil
    for _, kind in ipairs(kinds or {}) do
      wanted = wanted or kind == place.kind
    end
    if wanted then
      busted.describe("on " .. place.name, function()
        if not place.available then
          busted.pending("(it is not here)")
          return
        end
        local made = {}
        busted.setup(function()
          setmetatable(place, Place):start()
        end)
        busted.teardown(function()
          place:stop()
        end)
        busted.after_each(function()
          for _, each in ipairs(made) do
            each:discard()
          end
          made = {}
        end)
        body(function(file)
          local service = M.service(place, file or "service.lua")
          made[#made + 1] = service
          return service
        end, place)
      end)
    end
  end
end

return M
