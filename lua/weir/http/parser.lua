--- Requests of HTTP/1.1, from bytes: strict, bounded, without input or output of its own.
--
--     local parser = parser.new({ max_head = 16384, max_body = 1048576 })
--     parser:feed(bytes)
--     local request, status, why = parser:next()
--
-- What RFC 9112 lets a server repair is refused here, because another program on the way may have repaired it
-- otherwise, and the two would then disagree where a request ends: lines that end in LF alone, folded lines, a space
-- before the colon, two lengths, a length beside a transfer coding, a transfer coding in HTTP/1.0.
-- @module weir.http.parser

local M = {}

local Parser = { __name = "weir.http.parser" }
Parser.__index = Parser

-- Bytes: of a method, of a target, of the line that begins a chunk; and fields, and empty lines before a request.
local MAX_METHOD, MAX_TARGET, MAX_CHUNK_LINE = 32, 8192, 256
local MAX_FIELDS, MAX_EMPTY = 100, 4

local TOKEN = "[%w!#$%%&'*+%-.^_`|~]+"
local NO_REQUEST = "^[^%w!#$%%&'*+%-.^_`|~\r]" -- where one would begin
local REQUEST_LINE = "^(" .. TOKEN .. ") ([!-~]+) HTTP/(%d)%.(%d)$"
local FIELD = "^(" .. TOKEN .. "):[ \t]*(.-)[ \t]*$"
local CHUNK_LINE = "^(%x+)[ \t]*$"
local CHUNK_LINE_EXTENDED = "^(%x+)[ \t]*;[\t -~]*$"

-- Where a second one would have to be a mistake or an attack.
local SINGLE = { host = true, ["content-length"] = true, ["transfer-encoding"] = true, ["content-type"] = true }

--- Makes a parser for one connection.
-- @tparam table limits `max_head`, `max_body`: bytes
function M.new(limits)
  return setmetatable({
    max_head = limits.max_head,
    max_body = limits.max_body,
    buffer = "",
    at = 1, -- of the first byte that was not used
    seen = 1, -- up to where the end of the head was looked for
    empty = 0, -- lines before the request
    state = "head",
    request = nil,
  }, Parser)
end

--- Adds what arrived.
function Parser:feed(data)
  if self.at > 1 then
    self.buffer = self.buffer:sub(self.at) .. data
    self.seen = math.max(self.seen - self.at + 1, 1)
    self.at = 1
  else
    self.buffer = self.buffer .. data
  end
end

--- Whether a request has begun but not ended.
function Parser:is_busy()
  return self.state ~= "head" or self.at <= #self.buffer
end

--- Whether a client waits for leave (`Expect: 100-continue`) to send the body. Tells it once.
function Parser:wants_continue()
  local request = self.request
  if request and request.expects and self.state ~= "head" then
    request.expects = nil
    return true
  end
  return false
end

-- --- heads ----------------------------------------------------------------------------------------

local function refuse(status, why)
  return nil, status, why
end

--- Decodes %XX, in a query `+` too.
-- @treturn string; or nil where a percent sign is not followed by two digits
function M.unescape(text, plus)
  if plus then
    text = text:gsub("+", " ")
  end
  local bad = false
  text = text:gsub("%%(.?.?)", function(digits)
    if digits:find("^%x%x$") then
      return string.char(tonumber(digits, 16))
    end
    bad = true
  end)
  if bad then
    return nil
  end
  return text
end

local function parse_query(text)
  local query = {}
  for pair in text:gmatch("[^&]+") do
    local name, value = pair:match("^([^=]*)=?(.*)$")
    name, value = M.unescape(name, true), M.unescape(value, true)
    if not name or not value then
      return nil
    elseif query[name] == nil then
      query[name] = value
    end
  end
  return query
end

-- The path and the query of a target, decoded; nil where it has a form that is none.
local function parse_target(request, target)
  local rest = target:match("^[Hh][Tt][Tt][Pp][Ss]?://[^/?#]+(.*)$")
  if rest then
    target = rest:sub(1, 1) == "/" and rest or "/" .. rest
  elseif target == "*" and request.method == "OPTIONS" then
    request.path, request.query = "*", {}
    return true
  end
  local path, query = target:match("^(/[^?#]*)%??([^#]*)$")
  if not path then
    return false
  end
  request.path, request.query = M.unescape(path), parse_query(query)
  return request.path ~= nil and request.query ~= nil and not request.path:find("%c")
end

local function parse_line(line)
  local method, target, major, minor = line:match(REQUEST_LINE)
  if not method then
    return refuse(400, "the request line is no METHOD SP TARGET SP HTTP/1.1")
  elseif #method > MAX_METHOD then
    return refuse(501, "no method has such a long name")
  elseif #target > MAX_TARGET then
    return refuse(414, ("a target has %d bytes at most"):format(MAX_TARGET))
  elseif major ~= "1" then
    return refuse(505, "HTTP/1.1 and HTTP/1.0 are understood")
  end
  local request = { method = method, target = target, version = minor == "0" and 0 or 1, headers = {} }
  if not parse_target(request, target) then
    return refuse(400, "the target of the request is no path")
  end
  return request
end

local function add_field(headers, line)
  local name, value = line:match(FIELD)
  if not name then
    return false, "a line of the head is no NAME: VALUE"
  elseif value:find("[%z\1-\8\10-\31\127]") then
    return false, "a value in the head has a control character"
  end
  name = name:lower()
  local former = headers[name]
  if former and SINGLE[name] then
    return false, ("the head has two fields '%s'"):format(name)
  end
  headers[name] = former and former .. (name == "cookie" and "; " or ", ") .. value or value
  return true
end

local function has_token(value, token)
  for each in (value or ""):lower():gmatch("[^, \t]+") do
    if each == token then
      return true
    end
  end
  return false
end

-- How the body is delimited: sets `state` and `left` of the parser.
local function frame(self, request)
  local headers = request.headers
  local coding, length = headers["transfer-encoding"], headers["content-length"]
  if coding then
    if length then
      return refuse(400, "a head has either a content length or a transfer coding")
    elseif request.version == 0 then
      return refuse(400, "HTTP/1.0 has no transfer codings")
    elseif coding:lower() ~= "chunked" then
      return refuse(501, "the only transfer coding that is understood is 'chunked'")
    end
    self.state, self.size, self.overhead = "chunk", 0, 0
  elseif length then
    if not length:find("^%d+$") or #length > 15 then
      return refuse(400, "the content length is no number")
    end
    self.left = tonumber(length)
    if self.left > self.max_body then
      return refuse(413, ("a body has %d bytes at most"):format(self.max_body))
    end
    self.state, self.size = "body", 0
  else
    self.state, self.left, self.size = "body", 0, 0
  end
  return true
end

local function parse_head(self, text)
  local line, rest = text:match("^(.-)\r\n(.*)$")
  local request, status, why = parse_line(line)
  if not request then
    return nil, status, why
  end
  local count = 0
  for field in rest:gmatch("(.-)\r\n") do
    count = count + 1
    if count > MAX_FIELDS then
      return refuse(431, ("a head has %d fields at most"):format(MAX_FIELDS))
    end
    local ok, wrong = add_field(request.headers, field)
    if not ok then
      return refuse(400, wrong)
    end
  end
  local headers = request.headers
  if request.version == 1 and not headers.host then
    return refuse(400, "a request of HTTP/1.1 has a field 'host'")
  end
  local ok
  ok, status, why = frame(self, request)
  if not ok then
    return nil, status, why
  end
  local expect = headers.expect
  if expect and expect:lower() ~= "100-continue" then
    return refuse(417, "the only expectation that is understood is '100-continue'")
  end
  request.expects = expect and request.version == 1 and (self.state == "chunk" or self.left > 0) or nil
  local connection = headers.connection
  request.keep_alive = not has_token(connection, "close")
    and (request.version == 1 or has_token(connection, "keep-alive"))
  self.request, self.parts = request, {}
  return true
end

local function next_head(self)
  while self.buffer:find("^\r\n", self.at) do
    self.at, self.empty = self.at + 2, self.empty + 1
    if self.empty > MAX_EMPTY then
      return refuse(400, "empty lines are no request")
    end
  end
  if self.buffer:find(NO_REQUEST, self.at) then
    return refuse(400, "this is no HTTP") -- TLS, perhaps, whose client waits for an answer to what has no lines
  end
  local from = math.max(self.seen, self.at)
  local last = self.buffer:find("\r\n\r\n", from, true)
  local length = (last and last + 3 or #self.buffer) - self.at + 1
  if length > self.max_head then
    -- A line without an end is a target that is too long, if no field has begun.
    local line = self.buffer:find("\r\n", self.at, true)
    local status = (not line or line - self.at > MAX_TARGET + MAX_METHOD) and 414 or 431
    return refuse(status, ("the head of a request has %d bytes at most"):format(self.max_head))
  elseif not last then
    self.seen = math.max(#self.buffer - 2, self.at)
    -- What was there before has been looked at: a client that sends byte by byte is not to cost more than its bytes.
    if self.buffer:find("[^\r]\n", math.max(from - 1, self.at)) or self.buffer:find("^\n", self.at) then
      return refuse(400, "a line of the head ends in LF alone")
    end
    return nil
  end
  local text = self.buffer:sub(self.at, last + 1)
  self.at, self.seen, self.empty = last + 4, 1, 0
  return parse_head(self, text)
end

-- --- bodies ---------------------------------------------------------------------------------------

local function take(self, count)
  local part = self.buffer:sub(self.at, self.at + count - 1)
  self.at = self.at + #part
  self.parts[#self.parts + 1] = part
  self.size = self.size + #part
  return #part
end

local function complete(self)
  local request = self.request
  request.body = table.concat(self.parts)
  request.expects = nil
  self.state, self.request, self.parts = "head", nil, nil
  return request
end

local function next_body(self)
  self.left = self.left - take(self, self.left)
  if self.left == 0 then
    return complete(self)
  end
end

-- A line that ends in CRLF and has no more than `most` bytes; nil when it has not come, false when it is wrong.
local function take_line(self, most)
  local last = self.buffer:find("\n", self.at, true)
  if (last or #self.buffer) - self.at + 1 > most then
    return false
  elseif not last then
    return nil
  elseif last == self.at or self.buffer:byte(last - 1) ~= 13 then
    return false
  end
  local line = self.buffer:sub(self.at, last - 2)
  self.at = last + 1
  return line
end

local steps = {}

-- The line before a chunk.
function steps.chunk(self)
  local line = take_line(self, MAX_CHUNK_LINE)
  if line == nil then
    return nil
  end
  local digits = line and (line:match(CHUNK_LINE) or line:match(CHUNK_LINE_EXTENDED))
  if not digits then
    return refuse(400, "a chunk does not begin with its size")
  end
  digits = digits:gsub("^0+", "")
  local size = #digits > 12 and math.huge or tonumber("0" .. digits, 16)
  -- Extensions and tiny chunks must not make a small body out of endless bytes.
  self.overhead = self.overhead + #line + 4
  if self.size + size > self.max_body or self.overhead > self.max_body + self.max_head then
    return refuse(413, ("a body has %d bytes at most"):format(self.max_body))
  end
  self.left = size
  self.state = size == 0 and "trailer" or "data"
  self.trailer, self.trailer_count = 0, 0
  return true
end

function steps.data(self)
  self.left = self.left - take(self, self.left)
  if self.left > 0 then
    return nil
  end
  self.state = "data_end"
  return true
end

function steps.data_end(self)
  if #self.buffer - self.at + 1 < 2 then
    return nil
  elseif not self.buffer:find("^\r\n", self.at) then
    return refuse(400, "a chunk is longer than its size")
  end
  self.at, self.state = self.at + 2, "chunk"
  return true
end

-- Fields after the last chunk are checked and dropped.
function steps.trailer(self)
  local line = take_line(self, self.max_head - self.trailer)
  if line == nil then
    return nil
  elseif not line then
    return refuse(431, "the fields after the body are too long, or no lines")
  elseif line == "" then
    return complete(self)
  end
  self.trailer, self.trailer_count = self.trailer + #line + 2, self.trailer_count + 1
  local ok, wrong = add_field({}, line)
  if not ok then
    return refuse(400, wrong)
  elseif self.trailer_count > MAX_FIELDS then
    return refuse(431, ("a body is followed by %d fields at most"):format(MAX_FIELDS))
  end
  return true
end

steps.head = next_head
steps.body = next_body

--- The next request, if it has come.
-- @treturn[1] table `method`, `target`, `path` (decoded), `query` (name to value; of a repeated name the first),
--   `version` (1 of HTTP/1.1, 0 of HTTP/1.0), `headers` (lower-case names), `body`, `keep_alive`
-- @treturn[2] nil more must be fed
-- @treturn[3] nil
-- @treturn[3] number the status to answer with, after which the connection must be closed
-- @treturn[3] string why
function Parser:next()
  while true do
    local result, status, why = steps[self.state](self)
    if result ~= true then
      return result, status, why
    end
  end
end

return M
