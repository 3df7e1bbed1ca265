--- `weir conformance`: checks that a broker fulfils the contract.
-- @module weir.cli.conformance
local cli = require("weir.cli")

local M = {
  summary = "check that a broker does what the contract of brokers says",
  intro = [[
MODULE or FILE.lua returns the options of the suite, at least { make = function() return BROKER end },
or a broker module, whose new() is called without options. URL is that of a server to run on, such as
nats://127.0.0.1:4222. Each check is printed with its result; those of capabilities that the broker does
not claim are replaced by one that it refuses them honestly. Then all that need no server run again on
its twin in process.]],
  words = { { "name", "MODULE|FILE.lua|URL", "what to check", optional = true } },
  options = {
    {
      "only", "PATTERN", "only the checks whose names match, a Lua pattern: --only '^settlement'",
      read = function(text)
        if pcall(string.find, "", text) then
          return text
        end
        return nil, "is no Lua pattern, such as string.find takes"
      end,
    },
    { "list", nil, "print the names of the checks and what each proves; without MODULE, all of them" },
    { "json", nil, "print one JSON object for each check, and one for the whole, in lines" },
  },
  examples = { "weir conformance weir.broker.memory", "weir conformance mybroker.lua --only '^settlement'" },
  statuses = "0 nothing failed, 1 something did, or the broker could not be loaded, 2 wrong use.",
}

local function list(options, console)
  local count, json = 0, require("weir.cli.json")
  for _, check in ipairs(require("weir.conformance").checks()) do
    if not options.only or check.name:find(options.only) then
      count = count + 1
      local line = options.json and json.encode({ name = check.name, proves = check.proves })
        or ("%-42s %s"):format(check.name, check.proves)
      console.out:write(line, "\n")
    end
  end
  if count == 0 then
    return nil, ("no check matches '%s'"):format(options.only)
  end
  return cli.OK
end

local MARKS = { passed = "ok  ", failed = "FAIL", skipped = "skip" }

local function text_report(console)
  local broker
  return function(result)
    if result.broker ~= broker then
      broker = result.broker
      console.out:write(console:style(console.out, "bold", broker), "\n")
    end
    local mark = MARKS[result.status]
    if result.status == "failed" then
      mark = console:style(console.out, "red", mark)
    end
    console.out:write(("  %s  %s"):format(mark, result.name))
    if result.status == "skipped" then
      console.out:write(": ", result.message)
    elseif result.status == "failed" then
      console.out:write("\n        ", (result.message:gsub("\n", "\n        ")))
    end
    console.out:write("\n")
    console.out:flush()
  end
end

local function json_report(console)
  local json = require("weir.cli.json")
  return function(result)
    console.out:write(json.encode(result), "\n")
    console.out:flush()
  end
end

local function sum(results)
  local counts = { passed = 0, failed = 0, skipped = 0 }
  for _, result in ipairs(results) do
    counts[result.status] = counts[result.status] + 1
  end
  return counts
end

function M.run(options, console)
  if not options.name and not options.list then
    return nil, cli.usage_error("the module or the file of the broker is missing")
  elseif options.list then
    return list(options, console)
  end
  local conformance = require("weir.conformance")
  local given, err = conformance.load(options.name)
  if not given then
    return nil, err
  end
  local report = (options.json and json_report or text_report)(console)
  local fine, results = conformance.run(given, { only = options.only, report = report })
  if #results == 0 then
    return nil, ("no check that has a meaning for this broker matches '%s'"):format(options.only)
  end
  local counts = sum(results)
  if options.json then
    report(counts)
  else
    console.out:write(("%d passed, %d failed, %d skipped\n"):format(counts.passed, counts.failed, counts.skipped))
  end
  return fine and cli.OK or cli.FAILED
end

return M
