--- Handlers that can be given anew while messages flow.
--
-- The application gets a function that calls the newest one, so a handler is replaced between two messages: the
-- subscription stays as it is, and none is lost. Registering the same target, kind and filter again replaces the
-- handler. With other options, too, the subscription stays open: the old handler finishes what it took, and the new one
-- goes on. Only a broker that cannot pause a subscription has it closed and opened for that.
-- @module weir.repl.redefine

local errors = require("weir.errors")
local share = require("weir.app.share")
local settings = require("weir.app.settings")

local M = {}

local function canonical(value)
  return share.canonical(type(value) == "string" and { name = value } or value, 1)
end

-- What tells entries apart: two with the same cannot be in one application.
local function key_of(entry)
  local options = entry.options
  return table.concat({ entry.kind, canonical(entry.target), canonical({ options.filter, options.broker }) }, "\0")
end

local function same_options(a, b)
  return canonical({ a }) == canonical({ b })
end

-- The function that the application calls for an entry.
local function slot_for(fn)
  local slot = { fn = fn }
  slot.call = function(...)
    return slot.fn(...)
  end
  return slot
end

local function adopt(slots, entry)
  if entry.kind ~= "include" and not slots[entry] then
    local slot = slot_for(entry.fn)
    slot.entry, slot.key = entry, key_of(entry)
    slots[entry], entry.fn = slot, slot.call
  end
end

local function find(app, slots, key)
  for _, entry in ipairs(app.entries) do
    local slot = slots[entry]
    if slot and slot.key == key then
      return slot
    end
  end
end

-- The handle with which an entry was registered can close it; entries of a loaded file have none.
local Closing = { __name = "weir.registration" }
Closing.__index = Closing

local function close(app, slot)
  local entry = slot.entry
  local function forget()
    for i, each in ipairs(app.entries) do
      if each == entry then
        table.remove(app.entries, i)
        app.changes = (app.changes or 0) + 1
        return true
      end
    end
    return false
  end
  if app.is_router or not app:is_live() then
    forget()
    return true
  end
  return app.running:close_entry(entry, nil, forget)
end

-- Whether the subscriptions of an application are open.
local function is_open(app)
  local running = not app.is_router and app:is_live() and app.running
  return running and running.subscribed and not running.stop_asked
end

function Closing:close()
  return close(self.app, self.slot)
end

function Closing:__tostring()
  return ("weir.registration(%s)"):format(self.slot.entry.source)
end

-- Registers an entry, or replaces the one that has its place. A registration; or nil and an error.
local function put(app, slots, entry)
  local key = key_of(entry)
  local former = find(app, slots, key)
  if former and same_options(former.entry.options, entry.options) then
    former.fn, former.entry.source = entry.fn, entry.source
    return setmetatable({ app = app, slot = former }, Closing), nil, "replaced"
  end
  local slot = slot_for(entry.fn)
  slot.entry, slot.key = entry, key
  slots[entry], entry.fn = slot, slot.call
  local ok, err
  if former and is_open(app) then
    ok, err = app.running:replace_entry(former.entry, entry)
  else
    local problems = former and settings.check(entry.kind, entry.options) or {}
    if #problems > 0 then -- the old one stays
      return nil, errors.new("wiring", ("%s: %s"):format(entry.source, table.concat(problems, "; ")))
    end
    ok, err = true, nil
    if former then
      ok, err = close(app, former)
    end
    if ok then
      ok, err = getmetatable(app).__index.added(app, entry)
    end
  end
  if not ok then
    return nil, err
  end
  return setmetatable({ app = app, slot = slot }, Closing), nil, "new"
end

--- Makes the handlers of an application replaceable: those that it has, and those that it gets.
-- @tparam table app
-- @treturn table the application
function M.enable(app)
  if rawget(app, "redefine") then
    return app
  end
  local slots = setmetatable({}, { __mode = "k" })
  app.redefine = slots
  for _, entry in ipairs(app.entries) do
    adopt(slots, entry)
  end
  function app.added(self, entry)
    if entry.kind == "include" then
      return getmetatable(self).__index.added(self, entry)
    end
    local handle, err = put(self, slots, entry)
    return handle, err
  end
  return app
end

--- Makes the handlers of a router replaceable, also those of applications that include it. One with other options
-- replaces the former only in applications that include the router from then on.
-- @tparam table router without handlers
-- @tparam function noted called with each entry
function M.enable_router(router, noted)
  local slots = setmetatable({}, { __mode = "k" })
  function router.added(self, entry)
    noted(entry)
    if entry.kind == "include" then
      return getmetatable(self).__index.added(self, entry)
    end
    local handle, err = put(self, slots, entry)
    return handle and self, err
  end
end

--- Takes over the handlers of a newer version of an application: same ones are replaced, new ones opened, those that
-- are gone closed.
-- @tparam table app on which `enable` was called
-- @tparam table newer the same application, loaded again, not started
-- @treturn table how many were `replaced`, `new`, `closed`; `failed`: errors; `included`: whether it has routers,
--   which stay as they are
function M.take_over(app, newer)
  local slots, report = app.redefine, { replaced = 0, new = 0, closed = 0, failed = {}, included = false }
  local keep = {}
  for _, entry in ipairs(newer.entries) do
    if entry.kind == "include" then
      report.included = true
    else
      keep[key_of(entry)] = true
      local handle, err, how = put(app, slots, entry)
      if handle then
        report[how] = report[how] + 1
      else
        table.insert(report.failed, errors.is(err) and err or errors.new("error", tostring(err)))
      end
    end
  end
  for i = #app.entries, 1, -1 do
    local slot = slots[app.entries[i]]
    if slot and not keep[slot.key] then
      local ok, err = close(app, slot)
      if ok then
        report.closed = report.closed + 1
      else
        table.insert(report.failed, err)
      end
    end
  end
  return report
end

--- The application of a file, with handlers that can be given anew: what files that a session saved begin with.
-- @tparam string path
-- @treturn table the application; raises where it cannot be loaded
function M.load(path)
  local app, err = require("weir.app.load")(path)
  if not app then
    error(err.message, 2)
  end
  return M.enable(app)
end

return M
