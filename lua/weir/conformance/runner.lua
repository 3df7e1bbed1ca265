--- Runs checks.
-- @module weir.conformance.runner

local channel = require("weir.channel")
local context = require("weir.conformance.context")
local contract = require("weir.broker.contract")
local errors = require("weir.errors")
local runtime = require("weir.runtime")
local tasks = require("weir.task")

local runner = {}

--- Asks a broker what it is capable of, as far as it says without a connection; raises when there is no broker.
-- @tparam table options checked
-- @treturn function gets what is wanted of a descriptor, returns a table; empty where there is no such descriptor
function runner.claims(options)
  local broker = contract.check(options.probe())
  local known = {}
  return function(wanted)
    wanted = wanted or {}
    if known[wanted] then
      return known[wanted]
    end
    local spec = options.descriptor("conformance.probe", wanted)
    local result = {}
    if spec ~= nil then
      local descriptor, err = broker:descriptor(spec)
      if not descriptor then
        error(("weir.conformance: broker:descriptor() refuses what 'descriptor' makes: %s"):format(tostring(err)), 0)
      end
      result = broker:capabilities(descriptor)
    end
    if type(result) ~= "table" then
      error(("weir.conformance: broker:capabilities() gives a %s, not a table"):format(type(result)), 0)
    end
    known[wanted] = result
    return result
  end
end

--- Why a check does not run for a broker, or nil. `false` where it has no meaning for it at all, such as that of a
-- capability which it does not claim.
-- @tparam table options checked
-- @tparam function claims see `runner.claims`
-- @tparam table check
-- @treturn ?string
-- @treturn boolean whether the check has a meaning for this broker
function runner.obstacle(options, claims, check)
  if options.skip[check.name] then
    return options.skip[check.name], true
  end
  local claimed = claims(check.wanted)
  for _, name in ipairs(check.needs or {}) do
    if not claimed[name] then
      return ("the broker does not claim '%s'"):format(name), false
    end
  end
  for _, name in ipairs(check.without or {}) do
    if claimed[name] then
      return ("the broker claims '%s'"):format(name), false
    end
  end
  if options.is_in_process and check.live then
    return "there is no server in process", false
  end
  for _, name in ipairs(check.given or {}) do
    if not options[name] then
      return ("the option '%s' is not given"):format(name), true
    end
  end
end

-- Calls the check in a task of its own, and does for it what must be done on the main thread meanwhile.
local function call(options, check)
  local main = not runtime.current() and not coroutine.isyieldable() and channel(1) or nil
  local t = context.new(options, check, main)
  local jobs = main or channel(1)
  local limit = options.timeouts.check * (check.long or 1)
  local began = tasks.now()
  local task = tasks.spawn(function()
    local late = false
    local ok, err = xpcall(function()
      local result = { tasks.with_timeout(limit, check.run, t) }
      late = errors.is(result[2], "timeout") and result[1] == nil
    end, function(err)
      if type(err) == "table" then
        return err
      end
      return debug.traceback(tostring(err), 2)
    end)
    -- What a check says that was broken off is no finding.
    if late or tasks.now() - began >= limit then
      ok, err = pcall(t.fail, t, "the check did not end within %g s%s", limit, ok and "" or ": " .. tostring(err))
    end
    local untidy = t:close()
    jobs:close()
    return ok, err, untidy
  end)
  for job in jobs:each() do
    job()
  end
  return task:join()
end

--- Runs one check.
-- @tparam table options checked
-- @tparam function claims see `runner.claims`
-- @tparam table check
-- @treturn table `name`, `status` ("passed", "failed" or "skipped"), `message`, `seconds`
function runner.run(options, claims, check)
  local result = { name = check.name, proves = check.proves, status = "passed" }
  local obstacle = runner.obstacle(options, claims, check)
  if obstacle then
    result.status, result.message = "skipped", obstacle
    return result
  end
  local began = tasks.now()
  local ok, err, untidy = call(options, check)
  result.seconds = tasks.now() - began
  if not ok and getmetatable(err) == context.Skip then
    result.status, result.message = "skipped", err.reason
  elseif not ok then
    result.status, result.message = "failed", tostring(err)
  elseif untidy then
    result.status, result.message = "failed", "closing what the check had opened raised: " .. untidy
  end
  return result
end

return runner
