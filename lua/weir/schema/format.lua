--- The formats of JSON Schema that are checked: name to function. Others are only documentation.
-- @module weir.schema.format

local format = {}

local DAYS = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }

-- RFC 3339, section 5.6.
function format.date(text)
  local year, month, day = text:match("^(%d%d%d%d)%-(%d%d)%-(%d%d)$")
  if not year then
    return false
  end
  year, month, day = tonumber(year), tonumber(month), tonumber(day)
  local leap = year % 4 == 0 and (year % 100 ~= 0 or year % 400 == 0)
  local days = month == 2 and leap and 29 or DAYS[month]
  return days ~= nil and day >= 1 and day <= days
end

-- A leap second is in the last minute of a day in UTC.
local function leap_second(hour, minute, sign, offset_hour, offset_minute)
  local offset = (tonumber(offset_hour) or 0) * 60 + (tonumber(offset_minute) or 0)
  local utc = hour * 60 + minute - (sign == "-" and -offset or offset)
  return utc % 1440 == 1439
end

function format.time(text)
  local hour, minute, second, rest = text:match("^(%d%d):(%d%d):(%d%d)(.+)$")
  if not hour then
    return false
  end
  rest = rest:gsub("^%.%d+", "", 1)
  local sign, offset_hour, offset_minute = rest:match("^([+-])(%d%d):(%d%d)$")
  if rest ~= "Z" and rest ~= "z" and (not sign or tonumber(offset_hour) > 23 or tonumber(offset_minute) > 59) then
    return false
  end
  hour, minute, second = tonumber(hour), tonumber(minute), tonumber(second)
  if hour > 23 or minute > 59 or second > 60 then
    return false
  end
  return second < 60 or leap_second(hour, minute, sign, offset_hour, offset_minute)
end

format["date-time"] = function(text)
  local day, time = text:match("^(%d%d%d%d%-%d%d%-%d%d)[Tt](.+)$")
  return day ~= nil and format.date(day) and format.time(time)
end

function format.ipv4(text)
  local count = 0
  for part in (text .. "."):gmatch("([^.]*)%.") do
    if not part:find("^%d%d?%d?$") or tonumber(part) > 255 or (#part > 1 and part:sub(1, 1) == "0") then
      return false
    end
    count = count + 1
  end
  return count == 4
end

-- The number of 16-bit groups in a part of an address; nil if it is none.
local function groups(text, last)
  if text == "" then
    return 0
  end
  local count = 0
  local list = {}
  for part in (text .. ":"):gmatch("([^:]*):") do
    list[#list + 1] = part
  end
  for i, part in ipairs(list) do
    if part:find("^%x%x?%x?%x?$") then
      count = count + 1
    elseif last and i == #list and format.ipv4(part) then
      count = count + 2
    else
      return nil
    end
  end
  return count
end

function format.ipv6(text)
  local from, to = text:find("::", 1, true)
  if not from then
    return groups(text, true) == 8
  end
  local head, tail = groups(text:sub(1, from - 1), false), groups(text:sub(to + 1), true)
  return head ~= nil and tail ~= nil and head + tail <= 7
end

function format.hostname(text)
  if #text == 0 or #text > 253 then
    return false
  end
  for label in (text .. "."):gmatch("([^.]*)%.") do
    if #label > 63 or not label:find("^%w[%w-]*$") or label:sub(-1) == "-" then
      return false
    end
  end
  return true
end

-- The addresses that people have; RFC 5321 allows odder ones.
function format.email(text)
  local name, host = text:match("^([^@]+)@([^@]+)$")
  if not name or name:find("^%.") or name:find("%.$") or name:find("..", 1, true) then
    return false
  end
  local address = host:match("^%[(.*)%]$")
  if address then
    return format.ipv4(address) or format.ipv6(address:match("^IPv6:(.*)$") or "")
  end
  return name:find("^[%w!#$%%&'*+/=?^_`{|}~.-]+$") ~= nil and format.hostname(host)
end

function format.uuid(text)
  return text:find("^%x%x%x%x%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x$") ~= nil
end

-- RFC 3986: the characters, the escapes and a scheme.
format["uri-reference"] = function(text)
  if text:find("[^%w%-._~:/?#%[%]@!$&'()*+,;=%%]") or select(2, text:gsub("#", "")) > 1 then
    return false
  end
  return not text:gsub("%%%x%x", ""):find("%", 1, true)
end

function format.uri(text)
  return text:find("^%a[%w+.-]*:") ~= nil and format["uri-reference"](text)
end

return format
