--- Errors that a correct program can meet: what `nil, err` returns.
--
-- An error is a table with `code` (a stable string such as "timeout"), `message` (a sentence for
-- people that says what to do), `status` (a numeric close code or HTTP status, where there is one)
-- and its context (`url`, `stream`, ...). `tostring(err)` is the code and the message.
-- @module weir.errors

local nearest = require("weir.nearest")

local errors = {}

local Error = { __name = "weir.error" }
Error.__index = Error

function Error:__tostring()
  return self.code .. ": " .. self.message
end

function Error.__concat(a, b)
  return tostring(a) .. tostring(b)
end

--- Makes an error.
-- @tparam string code stable name, lower case
-- @tparam[opt] string message what happened and what to do; the code when left out
-- @tparam[opt] table context fields to add, `status` among them
-- @return the error
function errors.new(code, message, context)
  local err = { code = code, message = message or code }
  if context then
    for key, value in pairs(context) do
      err[key] = value
    end
  end
  return setmetatable(err, Error)
end

--- A copy of an error with more context: errors of the runtime are shared and must not be changed.
-- @tparam table err
-- @tparam table context fields to set, `message` among them
-- @return the copy
function errors.with(err, context)
  local copy = {}
  for key, value in pairs(err) do
    copy[key] = value
  end
  for key, value in pairs(context) do
    copy[key] = value
  end
  return setmetatable(copy, Error)
end

--- Whether a value is such an error, and has this code where one is given.
-- @param value anything
-- @tparam[opt] string code
-- @treturn boolean
function errors.is(value, code)
  return getmetatable(value) == Error and (code == nil or value.code == code)
end

-- Whether `kind` is the expected type, or one of a list of them.
local function matches(kind, expected)
  if type(expected) == "string" then
    return kind == expected
  end
  for _, each in ipairs(expected) do
    if kind == each then
      return true
    end
  end
  return false
end

--- Checks an options table; raises for an unknown name or a wrong type, lists the known ones and says which
-- is the nearest.
-- @tparam string what whose options these are, for the message
-- @tparam ?table options nil counts as empty
-- @tparam table known name to the type that `type()` must give, or a list of such types
-- @tparam[opt=1] number level whom to blame, as for `error`, seen from the caller
-- @treturn table the options
function errors.options(what, options, known, level)
  level = (level or 1) + 1
  if options == nil then
    return {}
  end
  if type(options) ~= "table" then
    error(("%s: options must be a table, not %s"):format(what, type(options)), level)
  end
  for name, value in pairs(options) do
    local expected = known[name]
    if expected == nil then
      local names = {}
      for each in pairs(known) do
        names[#names + 1] = each
      end
      table.sort(names)
      local meant = nearest(name, names)
      local hint = meant and (" (did you mean '%s'?)"):format(meant) or ""
      local message = "%s: unknown option '%s'; known are: %s%s"
      error(message:format(what, tostring(name), table.concat(names, ", "), hint), level)
    elseif not matches(type(value), expected) then
      local wanted = type(expected) == "string" and expected or table.concat(expected, " or a ")
      error(("%s: option '%s' must be a %s, not a %s"):format(what, name, wanted, type(value)), level)
    end
  end
  return options
end

return errors
