--- Responses of HTTP/1.1, as bytes.
-- @module weir.http.response

local M = {}

local REASONS = {
  [100] = "Continue",
  [200] = "OK",
  [201] = "Created",
  [202] = "Accepted",
  [204] = "No Content",
  [301] = "Moved Permanently",
  [302] = "Found",
  [303] = "See Other",
  [304] = "Not Modified",
  [307] = "Temporary Redirect",
  [308] = "Permanent Redirect",
  [400] = "Bad Request",
  [401] = "Unauthorized",
  [403] = "Forbidden",
  [404] = "Not Found",
  [405] = "Method Not Allowed",
  [406] = "Not Acceptable",
  [408] = "Request Timeout",
  [409] = "Conflict",
  [410] = "Gone",
  [413] = "Content Too Large",
  [414] = "URI Too Long",
  [415] = "Unsupported Media Type",
  [417] = "Expectation Failed",
  [421] = "Misdirected Request",
  [422] = "Unprocessable Content",
  [429] = "Too Many Requests",
  [431] = "Request Header Fields Too Large",
  [500] = "Internal Server Error",
  [501] = "Not Implemented",
  [502] = "Bad Gateway",
  [503] = "Service Unavailable",
  [504] = "Gateway Timeout",
  [505] = "HTTP Version Not Supported",
}

-- Fields that say where a message ends, or what becomes of the connection: they are the server's.
local OWN = { connection = true, ["content-length"] = true, date = true, ["transfer-encoding"] = true }

--- What a status is called.
function M.reason(status)
  return REASONS[status] or "Unknown"
end

local function add(lines, name, value)
  value = tostring(value)
  if type(name) ~= "string" or not name:find("^[%w!#$%%&'*+%-.^_`|~]+$") then
    error(("a header cannot be named %q"):format(tostring(name)), 0)
  elseif value:find("[%z\r\n]") then
    error(("the value of the header '%s' holds an end of line"):format(name), 0)
  end
  lines[#lines + 1] = name .. ": " .. value
end

local function add_all(lines, headers)
  local names, typed = {}, false
  for name in pairs(headers) do
    names[#names + 1] = name
  end
  table.sort(names, function(a, b)
    return tostring(a) < tostring(b)
  end)
  for _, name in ipairs(names) do
    local lower, value = tostring(name):lower(), headers[name]
    typed = typed or lower == "content-type"
    if OWN[lower] then
      error(("the header '%s' is set by the server"):format(name), 0)
    elseif type(value) == "table" then
      for _, each in ipairs(value) do
        add(lines, name, each)
      end
    else
      add(lines, name, value)
    end
  end
  return typed
end

--- The head of a response.
-- @tparam number status
-- @tparam table headers name to value, or to a list of values
-- @tparam table frame `length` (bytes of the body) or `chunked`; `close`: the connection ends after it; `keep`: it does
--   not, and a client of HTTP/1.0 is to be told so; `time`: seconds since 1970
-- @treturn string; raises for headers that cannot be sent
function M.head(status, headers, frame)
  local lines = { ("HTTP/1.1 %d %s"):format(status, M.reason(status)) }
  local typed = add_all(lines, headers)
  if not typed and (frame.chunked or (frame.length or 0) > 0) then
    lines[#lines + 1] = "content-type: text/plain; charset=utf-8"
  end
  if frame.chunked then
    lines[#lines + 1] = "transfer-encoding: chunked"
  elseif frame.length and status ~= 204 and status ~= 304 and status >= 200 then
    lines[#lines + 1] = ("content-length: %d"):format(frame.length)
  end
  if frame.close then
    lines[#lines + 1] = "connection: close"
  elseif frame.keep then
    lines[#lines + 1] = "connection: keep-alive"
  end
  -- Names of days and months must not follow the locale.
  local at = os.date("!*t", math.floor(frame.time))
  local days = { "Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat" }
  local months = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" }
  lines[#lines + 1] = ("date: %s, %02d %s %04d %02d:%02d:%02d GMT"):format(
    days[at.wday],
    at.day,
    months[at.month],
    at.year,
    at.hour,
    at.min,
    at.sec
  )
  lines[#lines + 1] = "\r\n"
  return table.concat(lines, "\r\n")
end

--- A chunk of a body; nothing for an empty string, which would end it.
function M.chunk(data)
  return #data > 0 and ("%x\r\n%s\r\n"):format(#data, data) or ""
end

--- What ends a body of chunks.
M.LAST_CHUNK = "0\r\n\r\n"

--- Frames an event of server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).
-- @tparam string data any text; each of its lines becomes a line of the event
-- @tparam[opt] string name of the event
-- @tparam[opt] string id what a browser says when it connects again
function M.event(data, name, id)
  local lines = {}
  for key, value in pairs({ event = name, id = id }) do
    if tostring(value):find("[%z\r\n]") then
      error(("the %s of an event holds an end of line"):format(key), 2)
    end
    lines[#lines + 1] = key .. ": " .. value
  end
  for line in (data:gsub("\r\n?", "\n") .. "\n"):gmatch("(.-)\n") do
    lines[#lines + 1] = "data: " .. line
  end
  return table.concat(lines, "\n") .. "\n\n"
end

return M
