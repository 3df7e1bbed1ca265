--- The conformance suite of brokers: checks that a broker does what `weir.broker.contract` says.
--
-- From busted, in a spec file:
--
--     require("weir.conformance").busted{
--       name = "memory",
--       make = function() return memory.new() end,
--       descriptor = function(name, wanted) ... end,
--     }
--
-- From the command line: `weir conformance FILE`. From a program: `conformance.run(options)`. The options are described
-- at `weir.conformance.options`; what each check proves is listed in docs/broker-authors.md and by
-- `weir conformance --list`.
--
-- A check of a capability runs only where the broker claims it; where it does not, another one makes sure that it
-- answers "unsupported". All that need no server run a second time on `broker:in_process(clock)`.
-- @module weir.conformance

local contract = require("weir.broker.contract")
local options_of = require("weir.conformance.options")
local runner = require("weir.conformance.runner")

local conformance = {}

-- In the order in which they run.
local PARTS = {
  "suite",
  "lifecycle",
  "settlement",
  "redelivery",
  "batches",
  "requests",
  "transactions",
  "seeking",
  "shape",
  "honesty",
  "in_process",
  "load",
  "faults",
}

local all

--- All checks: a list of tables with `name`, `proves` (a sentence), `run(t)`, and what they ask of a broker: `needs`
-- and `without` (capabilities that it must or must not claim), `given` (options), `live` (means nothing in process).
-- @treturn {table,...}
function conformance.checks()
  if not all then
    all = {}
    for _, part in ipairs(PARTS) do
      for _, check in ipairs(require("weir.conformance.checks." .. part)) do
        check.name = part .. "." .. check.name
        all[#all + 1] = check
      end
    end
  end
  return all
end

-- Those whose names match a Lua pattern.
local function chosen(only)
  local list = {}
  for _, check in ipairs(conformance.checks()) do
    if not only or check.name:find(only) then
      list[#list + 1] = check
    end
  end
  return list
end

-- The live broker and its twin in process: lists of `{ options, claims, checks }`.
local function runs(options, only)
  local list, brokers = {}, { options }
  if options.in_process ~= false then
    brokers[2] = options_of.in_process(options)
  end
  for _, each in ipairs(brokers) do
    local claims = runner.claims(each)
    local checks = {}
    for _, check in ipairs(chosen(only)) do
      local obstacle, means = runner.obstacle(each, claims, check)
      if not obstacle or means then
        checks[#checks + 1] = check
      end
    end
    list[#list + 1] = { options = each, claims = claims, checks = checks }
  end
  return list
end

--- Runs the suite.
-- @tparam table given see `weir.conformance.options`
-- @tparam[opt] table how `only` (a Lua pattern for names), `report(result)` (called after each check)
-- @treturn boolean whether nothing failed
-- @treturn {table,...} results: `name`, `status` ("passed", "failed", "skipped"), `message`, `seconds`, `broker`
function conformance.run(given, how)
  how = how or {}
  local results, fine = {}, true
  for _, each in ipairs(runs(options_of.check(given), how.only)) do
    for _, check in ipairs(each.checks) do
      local result = runner.run(each.options, each.claims, check)
      result.broker = each.options.name
      results[#results + 1] = result
      fine = fine and result.status ~= "failed"
      if how.report then
        how.report(result)
      end
    end
  end
  return fine, results
end

-- busted gives `describe` and the others to the file of a spec, not to modules: so they are taken from there.
local function busted_of(level)
  local fn = debug.getinfo(level + 1, "f").func
  local env = getfenv and getfenv(fn) or nil -- luacheck: globals getfenv
  for i = 1, 255 do
    local name, value = debug.getupvalue(fn, i)
    if not name then
      break
    elseif name == "_ENV" then
      env = value
    end
  end
  return env and env.describe and env or _G
end

--- Defines a test of busted for each check that has a meaning for the broker. Called from the file of a spec.
-- @tparam table given see `weir.conformance.options`
-- @tparam[opt] table how `only`: a Lua pattern for names; `busted`: a table with `describe`, `it` and `pending`, where
--   this is not called from the file of a spec itself
function conformance.busted(given, how)
  how = how or {}
  local env = how.busted or busted_of(2)
  local describe, it, pending = env.describe, env.it, env.pending
  if not (describe and it and pending) then
    error("conformance.busted: there is no 'describe' here; call it from the file of a spec, or give { busted = }", 2)
  end
  for _, each in ipairs(runs(options_of.check(given), how.only)) do
    describe("the broker " .. each.options.name, function()
      for _, check in ipairs(each.checks) do
        it(("%s: %s"):format(check.name, check.proves), function()
          local result = runner.run(each.options, each.claims, check)
          if result.status == "skipped" then
            return pending(result.message)
          elseif result.status == "failed" then
            error(result.message, 0)
          end
        end)
      end
    end)
  end
end

-- Makes sure that options make a broker.
local function sound(name, options)
  local ok, broker = pcall(options.probe or options.make)
  if ok then
    ok, broker = pcall(contract.check, broker)
  end
  if not ok then
    return nil, ("%s: %s"):format(name, tostring(broker))
  end
  return options
end

-- Options for the broker of a URL: what the broker itself says of them in its field `conformance`.
local function of_url(url)
  local function make()
    return require("weir.broker")(url)
  end
  local ok, broker = pcall(make)
  if not ok then
    return nil, (tostring(broker):gsub("^[^\n]-:%d+: ", ""))
  end
  local options = { name = broker.kind, make = make }
  for option, value in pairs(broker.conformance or {}) do
    options[option] = value
  end
  return sound(broker.kind, options)
end

--- Loads options for the suite from a Lua file or a module: it returns them, or a broker module (a table with `new`).
-- @tparam string name "PATH.lua", the name of a module, or the URL of a broker
-- @treturn table options; or nil and what is wrong
function conformance.load(name)
  if name:find("^%a[%w+.-]*:") then
    return of_url(name)
  end
  local ok, value
  if name:find("%.lua$") or name:find("/", 1, true) then
    local chunk, err = loadfile(name)
    if not chunk then
      return nil, err
    end
    ok, value = pcall(chunk)
  else
    ok, value = pcall(require, name)
  end
  if not ok then
    return nil, require("weir.app.load").text_of(value)
  elseif type(value) ~= "table" or type(value.make or value.new) ~= "function" then
    return nil, ("%s returns neither options with 'make' nor a broker module with 'new'"):format(name)
  elseif value.make then
    if not value.program then
      value.program = ("return assert(require('weir.conformance').load(%q))"):format(name)
    end
    return sound(name, value)
  end
  return sound(name, { name = name, make = value.new })
end

return conformance
