--- The signals that a session on a terminal answers: Ctrl-C, Ctrl-Z, and those that ask it to end.
-- @module weir.repl.signals

local errors = require("weir.errors")
local luv = require("luv")

local M = {}

local NAMES = { "int", "term", "hup" }

-- Called in what computes. Errors of luv's own callbacks end the process, which can say texts only.
local function interrupter(answer)
  return function()
    answer.computing()
    local err = errors.new("cancelled", "interrupted by Ctrl-C")
    error(select(2, coroutine.running()) and tostring(err) or err, 0)
  end
end

-- Without weir.edit nothing interrupts Lua that computes; and the process stops at Ctrl-Z by itself.
local function watch_in_loop(answer)
  local handles = {}
  for i, name in ipairs(NAMES) do
    handles[i] = luv.new_signal()
    handles[i]:start("sig" .. name, answer[name])
    handles[i]:unref()
  end
  return function()
    for _, handle in ipairs(handles) do
      handle:close()
    end
  end
end

--- Calls functions of the loop when signals come.
-- @tparam table answer the functions `int`, `tstp` (only while a line is edited), `term` and `hup`; `computing`, called
--   in place of `int` before what computes and gives the loop no turn is interrupted
-- @treturn function ends that
function M.watch(answer)
  local ok, edit = pcall(require, "weir.edit")
  if not ok then
    return watch_in_loop(answer)
  end
  local poll = luv.new_poll(edit.watch_signals(interrupter(answer)))
  poll:start("r", function()
    local name = edit.next_signal()
    while name do
      answer[name]()
      name = edit.next_signal()
    end
  end)
  return function()
    poll:close()
    edit.unwatch_signals()
  end
end

return M
