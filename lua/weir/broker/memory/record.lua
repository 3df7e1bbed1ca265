--- How the store writes its records: the bytes of messages, of the states of their deliveries and of groups.
--
-- All numbers are little-endian, but for keys, whose order counts. This is schema 1:
--
-- - main database: `weir` (the schema), `last` (the highest id), `group` (the highest number of a
--   group), 8 bytes each;
-- - `messages`: id (8 bytes, big-endian) to: bits (1: retained), count and numbers of the groups that it went to,
--   destination, headers, time, payload;
-- - `states`: id and group (8 and 4 bytes, big-endian) to nothing (the group is done with it) or to attempts and the
--   time it is due at (0: now). Without one, the delivery has not begun. Group 0 is the retention log;
-- - `groups`: number (4 bytes, big-endian) to key and what was declared.
-- @module weir.broker.memory.record

local pack, unpack = string.pack, string.unpack

local record = {}

record.SCHEMA = 1

local RETAINED = 1
local NONE = {}

-- Strings, numbers and booleans by name, one after the other.
local function pack_scalars(values)
  if next(values) == nil then
    return ""
  end
  local parts = {}
  for name, value in pairs(values) do
    local kind = math.type(value)
    if kind == "integer" then
      parts[#parts + 1] = pack("<s4c1i8", name, "i", value)
    elseif kind == "float" then
      parts[#parts + 1] = pack("<s4c1d", name, "d", value)
    elseif type(value) == "boolean" then
      parts[#parts + 1] = pack("<s4c1B", name, "b", value and 1 or 0)
    elseif type(value) == "string" then
      parts[#parts + 1] = pack("<s4c1s4", name, "s", value)
    else
      error(("'%s' cannot be stored: it is a %s"):format(tostring(name), type(value)), 0)
    end
  end
  return table.concat(parts)
end

local FORMATS = { i = "<i8", d = "<d", b = "<B", s = "<s4" }

local function unpack_scalars(bytes)
  if bytes == "" then
    return NONE
  end
  local values, at = {}, 1
  while at <= #bytes do
    local name, kind, value
    name, kind, at = unpack("<s4c1", bytes, at)
    value, at = unpack(FORMATS[kind], bytes, at)
    if kind == "b" then
      value = value == 1
    end
    values[name] = value
  end
  return values
end

--- The first part of a message's bytes; its time and its payload are the others.
-- @tparam table message `destination`, `headers`, `retain`
-- @tparam integer|table groups the number of one, or a list of them
-- @treturn string
function record.head(message, groups)
  local headers = message.headers
  local bytes = headers and pack_scalars(headers) or ""
  local flags = message.retain and RETAINED or 0
  if type(groups) ~= "table" then
    return pack("<BI4I4s4s4", flags, 1, groups, message.destination, bytes)
  end
  local parts = { pack("<BI4", flags, #groups) }
  for i, group in ipairs(groups) do
    parts[i + 1] = pack("<I4", group)
  end
  parts[#parts + 1] = pack("<s4s4", message.destination, bytes)
  return table.concat(parts)
end

--- The second part.
function record.time(seconds)
  return pack("<d", seconds or 0)
end

--- Reads a message; raises for bytes that are none.
-- @tparam integer id
-- @tparam string bytes
-- @treturn table `id`, `destination`, `headers`, `time`, `payload`
-- @treturn table the numbers of its groups
-- @treturn boolean whether it was retained
function record.message(id, bytes)
  local flags, count, at = unpack("<BI4", bytes)
  local groups = {}
  for i = 1, count do
    groups[i], at = unpack("<I4", bytes, at)
  end
  local time, destination, headers
  destination, headers, time, at = unpack("<s4s4d", bytes, at)
  local message = { id = id, destination = destination, time = time, payload = bytes:sub(at) }
  message.headers = unpack_scalars(headers)
  return message, groups, flags % 2 == RETAINED
end

--- The key of a message.
function record.id(bytes)
  return (unpack(">I8", bytes))
end

--- The key of a delivery's state.
function record.state_key(id, group)
  return pack(">I8I4", id, group)
end

--- What that key is made of: id and group.
function record.read_state_key(bytes)
  local id, group = unpack(">I8I4", bytes)
  return id, group
end

--- A delivery that has begun, or waits for its time.
function record.state(attempts, due)
  return pack("<I4d", attempts, due or 0)
end

--- Its attempts, and when it is due, or nil.
function record.read_state(bytes)
  local attempts, due = unpack("<I4d", bytes)
  return attempts, due > 0 and due or nil
end

--- The key of a group.
function record.group_key(number)
  return pack(">I4", number)
end

--- The number of a group.
function record.read_group_key(bytes)
  return (unpack(">I4", bytes))
end

--- A group.
function record.group(key, spec)
  return pack("<s4", key) .. pack_scalars(spec)
end

--- Its key, and what was declared.
function record.read_group(bytes)
  local key, at = unpack("<s4", bytes)
  return key, unpack_scalars(bytes:sub(at))
end

--- Numbers of the main database.
function record.number(value)
  return pack("<I8", value)
end

function record.read_number(bytes)
  return (unpack("<I8", bytes))
end

return record
