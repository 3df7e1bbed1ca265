--- 53 bits of chance as a number from 0 to below 1, for the jitter of retries.
-- @module weir.durable.random

local runtime = require("weir.runtime")

return function()
  local a, b, c, d, e, f, g = runtime.random(7):byte(1, 7)
  return ((((((g % 32 * 256 + f) * 256 + e) * 256 + d) * 256 + c) * 256 + b) * 256 + a) / 2 ^ 53
end
