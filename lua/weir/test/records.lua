--- What was published somewhere, or died there, as a list to look at and to assert on.
-- @module weir.test.records

local compare = require("weir.test.compare")

local records = {}

-- Methods are no elements: `#list` and `list[1]` are those of a plain list.
local Records = { __name = "weir.test.records" }
Records.__index = Records

--- Makes a list.
-- @tparam string what the list is of, for messages: "published to 'x'"
-- @tparam {table,...} items each with `value`, `headers`, `payload`
function records.new(what, items)
  local self = setmetatable({}, { __name = Records.__name, __index = Records, what = what })
  for i, item in ipairs(items) do
    self[i] = item
  end
  return self
end

local function what_of(self)
  return getmetatable(self).what
end

--- The values, in order.
function Records:values()
  local list = {}
  for i, item in ipairs(self) do
    list[i] = item.value
  end
  return list
end

--- The last one; nil when there is none.
function Records:last()
  return self[#self]
end

--- Fails unless there are exactly `n`; without `n`, at least one.
-- @tparam[opt] number n
-- @return the list
function Records:assert_count(n)
  if n == nil and #self == 0 or n ~= nil and #self ~= n then
    local text = "%s was %s %d times, not %s: %s"
    error(text:format("a message", what_of(self), #self, n or "at all", compare.list(self:values())), 2)
  end
  return self
end

--- Fails when there is one.
function Records:assert_none()
  if #self > 0 then
    error(("something was %s: %s"):format(what_of(self), compare.list(self:values())), 2)
  end
  return self
end

--- Fails unless one has this value, and these headers where they are given.
-- @param value compared by what is in it
-- @tparam[opt] table headers each of which it must have
-- @treturn table the first such
function Records:assert_with(value, headers)
  for _, item in ipairs(self) do
    local fits = compare.same(item.value, value)
    for name, wanted in pairs(headers or {}) do
      fits = fits and item.headers[name] == wanted
    end
    if fits then
      return item
    end
  end
  local text = "%s was not %s%s; there was: %s"
  local with = headers and " with the headers " .. compare.show(headers) or ""
  error(text:format(compare.show(value), what_of(self), with, compare.list(self:values())), 2)
end

return records
