--- What was typed, as a function: an expression, statements, or the beginning of either.
-- @module weir.repl.chunk

local M = {}

-- Bytes of one input, all its lines.
local MOST = 1024 * 1024

-- Lua's message where a text ends too early.
local function is_incomplete(message)
  return message:find("<eof>'?$") ~= nil
end

local function rest(_, ...)
  return ...
end

--- Compiles it. A leading "=" or `return` is taken off: those are other ways to have a value printed.
-- @tparam string text
-- @tparam string name of the chunk, for messages
-- @tparam table env its globals
-- @treturn[1] function returns the values of an expression
-- @treturn[1] boolean whether it is an expression
-- @treturn[2] nil
-- @treturn[2] string what is wrong
-- @treturn[2] boolean whether more lines may mend it
function M.compile(text, name, env)
  if #text > MOST then
    return nil, ("the input is longer than %d bytes"):format(MOST), false
  end
  local expression = text:match("^%s*=(.*)$") or text:match("^%s*return%f[^%w_](.*)$") or text
  -- The value before it keeps a call from being a tail call, of which tracebacks and registrations know no line.
  local fn = load("return 0, " .. expression .. "\n", name, "t", env)
  if fn and expression:find("%S") then
    return function()
      return rest(fn())
    end, true
  end
  local message
  fn, message = load(text, name, "t", env)
  if fn then
    return fn, false
  end
  return nil, message, is_incomplete(message)
end

return M
