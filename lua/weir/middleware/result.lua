--- What came of a handler, as middleware sees it.
-- @module weir.middleware.result

local outcome = require("weir.outcome")

local result = {}

local FAILED = { retry = true, drop = true, fail = true }

--- Whether what a handler returned means that it did its job: anything but a failure, a retry and a drop. It did not
-- where the message comes again whatever it returned: because it was cancelled, or gave the message back itself.
-- @param value what it returned first
-- @param err what it returned second
-- @tparam[opt] table ctx of the message
function result.succeeded(value, err, ctx)
  local mark = ctx and rawget(ctx, "mark")
  if ctx and ctx.cancelled or mark and mark.settled and mark.settled ~= "ack" then
    return false
  elseif value == nil then
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
