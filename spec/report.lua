--- The busted output handler of spec/run: says what fails and why, and counts.
-- The first -Xoutput argument names a file that gets one line, `passed failed skipped`, when the
-- suite has ended; a run that leaves no such line has crashed.
local write = function(...)
  io.stdout:write(...)
  io.stdout:flush()
end

local function indent(text)
  return "    " .. tostring(text):gsub("\n", "\n    ")
end

return function(options)
  local busted = require("busted")
  local handler = require("busted.outputHandlers.base")()
  local results = options.arguments[1]

  local function show(record, what)
    local trace = record.trace or {}
    local where = trace.short_src and (" (%s:%s)"):format(trace.short_src, trace.currentline) or ""
    local message = record.message
    if message ~= nil and type(message) ~= "string" then
      message = require("pl.pretty").write(message)
    end
    write(("  %s: %s%s\n"):format(what, record.name, where))
    if message then
      write(indent(message), "\n")
    end
    if record.isError and trace.traceback then
      write(indent(trace.traceback:gsub("^\n", "")), "\n")
    end
  end

  local function on_failure(_, _, _, _)
    show(handler.failures[#handler.failures], "FAILED")
    return nil, true
  end

  local function on_error()
    show(handler.errors[#handler.errors], "ERROR")
    return nil, true
  end

  local function on_test_end(_, _, status)
    if status == "pending" then
      show(handler.pendings[#handler.pendings], "skipped")
    end
    return nil, true
  end

  local function on_suite_end()
    local passed, skipped = handler.successesCount, handler.pendingsCount
    local failed = handler.failuresCount + handler.errorsCount
    write(("  %d passed, %d failed"):format(passed, failed))
    write(skipped > 0 and (", %d skipped"):format(skipped) or "")
    write((" in %.2f s\n"):format(handler.getDuration()))
    if results then
      local file = assert(io.open(results, "w"))
      file:write(("%d %d %d\n"):format(passed, failed, skipped))
      file:close()
    end
    return nil, true
  end

  busted.subscribe({ "failure" }, on_failure)
  busted.subscribe({ "error" }, on_error)
  busted.subscribe({ "test", "end" }, on_test_end, { predicate = handler.cancelOnPending })
  busted.subscribe({ "suite", "end" }, on_suite_end)
  return handler
end
