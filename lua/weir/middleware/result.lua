--- What came of a handler, as middleware sees it.
-- @module weir.middleware.result

local outcome = require("weir.outcome")

local result = {}

local FAILED = { retry = true, drop = true, fail = true }

--- Whether what a handler returned means that it did its job: anything but a failure, a retry and a drop.
-- @param value what it returned first
-- @param err what it returned second
function result.succeeded(value, err)
  if value == nil then
    return err == nil
  end
  return value ~= false and not FAILED[outcome.kind(value) or ""]
end

--- Calls the rest of the chain.
-- @return whether it raised nothing; then what it returned, or what it raised
function result.of(next, value, ctx)
  return pcall(next, value, ctx)
end

return result
