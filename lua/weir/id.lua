--- Random names: of messages, traces and spans.
-- @module weir.id

local runtime = require("weir.runtime")
local to_hex = require("weir.hex")

local id = {}

-- Hex digits that nobody had yet: chance is asked for in larger pieces.
local POOL = 512
local pool, used = "", 0

local unpack_string = rawget(string, "unpack")
local INTEGERS, DIGITS = "<" .. ("i8"):rep(8), ("%016x"):rep(8)

-- The digits of POOL bytes: eight integers at a time, where Lua has those.
local function refill()
  local bytes = runtime.random(POOL)
  if not unpack_string then
    return to_hex(bytes)
  end
  local pieces = {}
  for at = 1, POOL, 64 do
    pieces[#pieces + 1] = DIGITS:format(unpack_string(INTEGERS, bytes, at))
  end
  return table.concat(pieces)
end

--- Random hex digits.
-- @tparam number digits even, at most 64
-- @treturn string
function id.hex(digits)
  local from = used
  if from + digits > #pool then
    pool, from = refill(), 0
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
