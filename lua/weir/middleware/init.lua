--- Middleware that comes with weir: functions `(value, ctx, next)` around handlers. Each module is loaded when it is
-- first asked for.
--
--     app:use(weir.middleware.rate_limit({ rate = 100 }))
--
-- - `rate_limit`: no more than so many messages a second, over all or for each key;
-- - `idempotency`: a message that was handled already is acknowledged and not handled again;
-- - `circuit_breaker`: after failures in a row, no messages are handled for a while.
-- @module weir.middleware

local names = { rate_limit = true, idempotency = true, circuit_breaker = true }

return setmetatable({}, {
  __index = function(middleware, name)
    if names[name] then
      middleware[name] = require("weir.middleware." .. name)
    end
    return rawget(middleware, name)
  end,
})
