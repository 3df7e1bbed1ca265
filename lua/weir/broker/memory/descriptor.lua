--- What a subscription of the memory broker is asked for: its name and its options.
-- @module weir.broker.memory.descriptor

local errors = require("weir.errors")
local nearest = require("weir.nearest")
local pattern = require("weir.broker.memory.pattern")
local size = require("weir.size")

local descriptor = {}

local Descriptor = { __name = "weir.memory.topic" }
Descriptor.__index = Descriptor

function Descriptor:__tostring()
  return ("memory topic '%s'%s"):format(self.name, self.group and (" of group '" .. self.group .. "'") or "")
end

--- What happens to a publish when a queue is full.
local OVERFLOWS = { wait = true, reject = true, drop_oldest = true, drop_newest = true }

local function whole(value, least)
  return type(value) == "number" and value >= least and value % 1 == 0 and value <= 2 ^ 53
end

-- One function for each option: what is wrong with its value, or nil.
local checks = {}

function checks.name()
end

function checks.group(value)
  if type(value) ~= "string" or value == "" or #value > pattern.MAX_NAME then
    return ("must be a name of 1 to %d bytes"):format(pattern.MAX_NAME)
  end
end

function checks.durable(value)
  if type(value) ~= "boolean" then
    return "must be true or false"
  end
end

function checks.prefetch(value)
  if not whole(value, 1) then
    return "must be a whole number, at least 1"
  end
end

function checks.ack_wait(value)
  if type(value) ~= "number" or value ~= value or value <= 0 or value == math.huge then
    return "must be a number of seconds, more than 0"
  end
end

function checks.overflow(value)
  if not OVERFLOWS[value] then
    return "must be \"wait\", \"reject\", \"drop_oldest\" or \"drop_newest\""
  end
end

function checks.from(value)
  if value ~= "new" and value ~= "start" and not whole(value, 1) then
    return "must be \"new\", \"start\" or the position of a message"
  end
end

function checks.capacity(value)
  if type(value) ~= "table" then
    return "must be a table such as { messages = 1000, bytes = \"1 MiB\" }"
  end
  for name, bound in pairs(value) do
    if name == "messages" then
      if not whole(bound, 1) then
        return "'messages' must be a whole number, at least 1"
      end
    elseif name == "bytes" then
      local bytes, wrong = size.parse(bound)
      if not bytes then
        return "'bytes': " .. wrong
      end
    else
      return ("has no '%s'; known are: bytes, messages"):format(tostring(name))
    end
  end
end

--- What is wrong with a capacity, or nil.
descriptor.capacity_flaw = checks.capacity

--- A checked capacity with its defaults filled in.
-- @tparam ?table capacity
-- @tparam table default `messages` and `bytes`
-- @treturn table `messages` and `bytes`, numbers
function descriptor.capacity(capacity, default)
  capacity = capacity or {}
  return {
    messages = capacity.messages or default.messages,
    bytes = capacity.bytes and size.parse(capacity.bytes) or default.bytes,
  }
end

local function known()
  local names = {}
  for name in pairs(checks) do
    names[#names + 1] = name
  end
  table.sort(names)
  return names
end

local function unknown(name)
  local names = known()
  local meant = type(name) == "string" and nearest(name, names)
  return ("unknown option '%s'; known are: %s%s"):format(
    tostring(name),
    table.concat(names, ", "),
    meant and (" (did you mean '%s'?)"):format(meant) or ""
  )
end

local function flaws(spec)
  local list = {}
  for name, value in pairs(spec) do
    local check = checks[name]
    local wrong = not check and unknown(name) or check and check(value)
    if wrong then
      list[#list + 1] = check and ("option '%s' %s"):format(name, wrong) or wrong
    end
  end
  if spec.durable and spec.group == nil then
    list[#list + 1] = "option 'durable' needs a 'group': what stays has to belong to somebody"
  end
  table.sort(list)
  return list
end

--- Whether a value is a descriptor of this broker.
function descriptor.is(value)
  return getmetatable(value) == Descriptor
end

--- Makes a descriptor of a name or a table of options with `name`.
-- @tparam string|table spec
-- @treturn ?table `name`, `tokens`, `pattern` and the options as they were given; or nil
-- @return an error "invalid" that lists everything that is wrong
function descriptor.make(spec)
  if descriptor.is(spec) then
    return spec
  elseif type(spec) == "string" then
    spec = { name = spec }
  elseif type(spec) ~= "table" then
    return nil, errors.new("invalid", "a topic is a name or a table with a 'name', not a " .. type(spec))
  end
  local list = flaws(spec)
  local tokens, wild
  if type(spec.name) ~= "string" then
    table.insert(list, 1, "a topic has a 'name', a string, not a " .. type(spec.name))
  else
    tokens, wild = pattern.parse(spec.name)
    if not tokens then
      table.insert(list, 1, wild)
    end
  end
  if #list > 0 then
    local message = ("topic %s: %s"):format(tostring(spec.name), table.concat(list, "; "))
    return nil, errors.new("invalid", message, { problems = list })
  end
  local self = { tokens = tokens, pattern = wild or nil }
  for name, value in pairs(spec) do
    self[name] = value
  end
  return setmetatable(self, Descriptor)
end

--- A copy of a descriptor with some options set.
-- @tparam table of
-- @tparam table options checked
function descriptor.with(of, options)
  local copy = {}
  for name, value in pairs(of) do
    copy[name] = value
  end
  for name, value in pairs(options) do
    copy[name] = value
  end
  return setmetatable(copy, Descriptor)
end

return descriptor
