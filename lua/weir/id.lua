--- Random names: of messages, traces and spans.
-- @module weir.id

local runtime = require("weir.runtime")

local id = {}

local byte_to_hex = {}
for byte = 0, 255 do
  byte_to_hex[string.char(byte)] = ("%02x"):format(byte)
end

-- Hex digits that nobody had yet: chance is asked for in larger pieces.
local POOL = 512
local pool, used = "", 0

--- Random hex digits.
-- @tparam number digits even, at most 64
-- @treturn string
function id.hex(digits)
  local from = used
  if from + digits > #pool then
    pool = runtime.random(POOL):gsub(".", byte_to_hex)
    from = 0
  end
  used = from + digits
  return pool:sub(from + 1, from + digits)
end

local MOST = 2 ^ 32
local prefix, count = nil, MOST

--- A name for a message that no other message has: 64 random bits of this process, and a count.
-- @treturn string 17 to 25 characters, letters, digits and a hyphen
function id.message()
  if count >= MOST then
    prefix, count = id.hex(16) .. "-", 0
  end
  count = count + 1
  return ("%s%x"):format(prefix, count)
end

local shift = { 2 ^ 20, 2 ^ 53 }

--- A random number from 0 to below 1, with 53 bits.
function id.fraction()
  local digits = id.hex(14)
  local high, low = tonumber(digits:sub(1, 8), 16), tonumber(digits:sub(9, 13), 16)
  return (high * shift[1] + low) / (shift[2] / 2)
end

return id
