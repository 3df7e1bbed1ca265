--- How the programs end.
local luv = require("luv")
local weir = require("weir")

local program = {}

--- Says what is wrong; returns the exit status for it.
function program.complain(text)
  io.stdout:flush()
  io.stderr:write(text, "\n")
  return 1
end

--- Says what is wrong, and ends.
function program.fail(text, status)
  program.complain(text)
  os.exit(status or 1, true)
end

--- Calls fn(...) in a task that Ctrl-C (SIGINT), SIGTERM and SIGHUP cancel. A second one ends the
-- program at once.
-- @return nil, or the exit status when it was interrupted; then what fn returned
function program.interruptible(fn, ...)
  local task = weir.spawn(fn, ...)
  local interrupted
  local signals = {}
  local function stop()
    for i, signal in pairs(signals) do
      signal:close()
      signals[i] = nil
    end
  end
  for name, number in pairs({ sigint = 2, sigterm = 15, sighup = 1 }) do
    local signal = luv.new_signal()
    signals[#signals + 1] = signal
    signal:start(name, function()
      interrupted = 128 + number
      stop()
      task:cancel("interrupted")
    end)
  end
  local results = table.pack(task:join())
  stop()
  return interrupted, table.unpack(results, 1, results.n)
end

return program
