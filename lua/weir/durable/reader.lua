--- Reads a stream, from any position, in any mode.
--
-- A reader asks for more only when somebody reads: while nobody does, the connection is not read either.
-- @module weir.durable.reader

local codec = require("weir.codec")
local core = require("weir.core")
local derrors = require("weir.durable.errors")
local errors = require("weir.errors")
local options = require("weir.durable.options")
local random = require("weir.durable.random")
local runtime = require("weir.runtime")
local tasks = require("weir.task")

local M = {}

local Reader = { __name = "weir.durable.reader" }

-- The offset between two items is written down only when somebody asks for it.
function Reader:__index(name)
  if name == "offset" then
    return ("%s,%d"):format(self.base, self.done + self.at)
  end
  return Reader[name]
end

local json = codec.get("json")
local LONGEST = 64 * 1024 * 1024
local BODY = 64 * 1024 * 1024
local LIVE = { ["long-poll"] = "long-poll", sse = "sse", auto = "auto" }

local OPTIONS = {
  offset = "string",
  live = { "boolean", "string" },
  max_event = { "number", "string" },
  headers = "table",
  params = "table",
  retry = "table",
}

--- The names of options, and the types of their values.
M.OPTIONS = OPTIONS

local function live_mode(live, level)
  if live == nil or live == false then
    return "none"
  elseif live == true then
    return "auto"
  end
  if not LIVE[live] then
    error(('read: option \'live\' must be false, "long-poll", "sse" or "auto", not %q'):format(live), level + 1)
  end
  return LIVE[live]
end

--- Opens a reader; `stream:read(opts)` does. Nothing is sent yet.
-- @tparam table stream
-- @tparam ?table opts
-- @tparam[opt="-1"] string opts.offset "-1" (the start), "now", or a position as `reader.offset` and
--   `chunk.next_offset` give it
-- @tparam[opt=false] boolean|string opts.live false: until up to date; "long-poll", "sse", "auto" (or true):
--   goes on with what is appended later, until the stream is closed
-- @tparam[opt="64 MiB"] number|string opts.max_event longest server-sent event, and value of `items`
-- @tparam[opt] table opts.retry as for the client; repetitions are not bounded unless this says so
-- @tparam[opt] table opts.headers,opts.params
-- @tparam[opt=1] number level whom to blame for misuse, as for `error`, seen from the caller
-- @treturn reader
function M.new(stream, opts, level)
  level = (level or 1) + 1
  opts = errors.options("read", opts, OPTIONS, level)
  options.pairs("read", "headers", opts.headers, level + 1)
  options.pairs("read", "params", opts.params, level + 1)
  local live = live_mode(opts.live, level)
  local offset = opts.offset or "-1"
  local max_event = options.size("read", "max_event", opts.max_event, nil, level + 1)
  local ok, machine = pcall(core.durable_reader, {
    live = live,
    position = offset,
    max_event = max_event,
    retry = opts.retry and options.retry("read", opts.retry, level + 1) or stream.client.retry,
  })
  if not ok then
    error(("read: %s"):format((tostring(machine):gsub("^[^:]+:%d+: ", ""))), level)
  end
  return setmetatable({
    stream = stream,
    opts = opts,
    machine = machine,
    offset = offset, -- from which nothing is lost or repeated
    up_to_date = false,
    closed = false, -- the stream is, and all of it was read
    at = 0, -- of `values`, those that were handed out
    count = 0,
    longest = max_event and max_event > 0 and max_event or LONGEST, -- value
  }, Reader)
end

function Reader:__tostring()
  return ("weir.durable.reader(%s at %s)"):format(self.stream.url, self.offset)
end

-- --- requests -----------------------------------------------------------------------------------

-- Lets the machine know that nothing more comes of a request.
local function finish(self, transport)
  self.response, self.keep = nil, nil
  self.machine:finish(transport, runtime.now(), random())
end

-- Runs in a task of its own, so that a reader who gives up waiting does not end the request.
local function open(self, request, opening)
  local res, err, transport = self.stream.client:try_exchange(request)
  opening.res, opening.err, opening.transport, opening.done = res, err, transport, true
  if opening.abandoned then
    if res then
      res:close()
    end
  elseif opening.waiter then
    opening.waiter:wake(true)
  end
end

-- What the cache has for a request, if it may have something: of reads that are neither live nor special.
local function cached(self, query)
  local client = self.stream.client
  if query.live or query.sse or query.offset == "now" or client.cache.limit == 0 then
    return nil
  end
  local request = self.stream:request({ url = self.stream.url }, self.opts)
  if request.user_headers or request.user_params or next(client.params) then
    return nil -- the answer may depend on them
  end
  return self.stream.url .. " " .. (query.offset or "")
end

local function begin(self, query)
  local stream = self.stream
  local key = cached(self, query)
  local entry = key and stream.client.cache:get(key)
  local request = stream:request({
    kind = "read",
    method = "GET",
    what = "read",
    headers = {
      Accept = query.sse and "text/event-stream" or nil,
      ["If-None-Match"] = entry and entry.etag or nil,
    },
    params = { cursor = query.cursor, live = query.live, offset = query.offset },
  }, self.opts)
  local opening = { request = request, key = key, entry = entry, done = false }
  self.opening = opening
  opening.task = tasks.spawn(open, self, request, opening)
end

-- Learns the type of the stream from the headers of an answer that is a part of it.
local function learn(self, headers)
  for _, header in ipairs(headers) do
    if header[1]:lower() == "content-type" and not header[2]:lower():find("^%s*text/event%-stream") then
      self.content_type = header[2]
    end
  end
end

-- Feeds what an earlier answer said, which the server says is still so.
local function from_cache(self, opening)
  local entry = opening.entry
  opening.res:close()
  self.cached = (self.cached or 0) + 1
  learn(self, entry.headers)
  self.machine:head(200, entry.headers, runtime.now())
  local ok = entry.body == "" or self.machine:feed(entry.body, runtime.now())
  return finish(self, ok and "answered" or "lost")
end

-- The head of the answer is there, or none will come.
local function opened(self, opening)
  self.opening = nil
  local res = opening.res
  if self.user_closed then
    return res and res:close()
  elseif not res then
    self.last_error = opening.err
    if not opening.transport then
      self.failure = opening.err
      return nil
    end
    return finish(self, opening.transport)
  elseif res.status == 304 and opening.entry then
    return from_cache(self, opening)
  end
  self.status = res.status
  self.machine:head(res.status, res.headers, runtime.now(), runtime.time())
  if res.outcome ~= "ok" then
    self.last_error = self.stream.client:error_of(opening.request, res, { offset = self.offset })
    res:close()
    return finish(self, "answered")
  end
  self.last_error = nil
  self.response = res
  learn(self, res.headers)
  local etag = res:header("etag")
  if opening.key and etag and res.status == 200 then
    self.keep = { key = opening.key, etag = etag, headers = res.headers, parts = {}, bytes = 0 }
  end
end

local function await_head(self, deadline)
  local opening = self.opening
  if not opening.done then
    local waiter = runtime.own_waiter()
    opening.waiter = waiter
    local _, err = waiter:wait(deadline)
    opening.waiter = nil
    if not opening.done then
      return nil, err or errors.new("cancelled", "the reader was closed")
    end
  end
  opened(self, opening)
  return true
end

-- --- bodies -------------------------------------------------------------------------------------

local function keep_part(self, piece)
  local keep = self.keep
  if not keep then
    return
  end
  keep.bytes = keep.bytes + #piece
  if keep.bytes > self.stream.client.cache:longest() then
    self.keep = nil
  else
    keep.parts[#keep.parts + 1] = piece
  end
end

local function read_on(self, deadline)
  local now = runtime.now()
  local res = self.response
  local piece, err = res:read(deadline and math.max(deadline - now, 0))
  if self.response ~= res then
    return nil, errors.new("cancelled", "the reader was closed")
  elseif piece then
    keep_part(self, piece)
    local ok, word = self.machine:feed(piece, runtime.now())
    if not ok then
      self.last_error = word == "nomem" and errors.new("too_large", "out of memory") or nil
      res:close()
      finish(self, "lost")
    end
    return true
  elseif not err then
    local keep = self.keep
    if keep then
      self.stream.client.cache:put(keep.key, keep.etag, keep.headers, table.concat(keep.parts))
    end
    res:close()
    finish(self, "answered")
    return true
  elseif err.code == "cancelled" then
    res:close()
    finish(self, "lost")
    return nil, err
  elseif err.code == "timeout" and deadline and runtime.now() >= deadline then
    return nil, err
  end
  self.last_error = err
  res:close()
  finish(self, err.code == "timeout" and "timed_out" or "lost")
  return true
end

-- --- errors -------------------------------------------------------------------------------------

local function failure_of(self, state)
  local last = self.last_error
  if last and last.code == state.code then
    return errors.with(last, { retries = state.retries, offset = self.offset })
  end
  return derrors.make(state.code or "network", "read", {
    url = self.stream.url,
    status = state.status and state.status > 0 and state.status or nil,
    offset = self.offset,
    retries = state.retries,
    detail = last and last.message,
    cause = last,
  })
end

-- The machine makes no more requests: the end, or a failure.
local function ended(self)
  local state = self.machine:state()
  if state.failed then
    self.failure = failure_of(self, state)
    return nil, self.failure
  end
  self.over = true
  return nil
end

-- --- reading ------------------------------------------------------------------------------------

-- Does one thing that may bring the next piece. True; or nil at the end; or nil and an error.
local function step(self, deadline)
  if self.failure then
    return nil, self.failure
  elseif self.response then
    return read_on(self, deadline)
  elseif self.opening then
    return await_head(self, deadline)
  end
  local now = runtime.now()
  local query, word = self.machine:request(now)
  if query then
    begin(self, query)
    return true
  elseif word ~= "again" then
    return ended(self)
  end
  local at = self.machine:deadline() or now
  if deadline and deadline < at then
    at = deadline
  end
  local ok, err = tasks.sleep(math.max(at - now, 0))
  if ok and deadline and runtime.now() >= deadline then
    return nil, errors.new("timeout", "the time is over")
  end
  return ok, err
end

-- Takes note of a piece. False for one that says nothing new.
local function note(self, piece)
  local news = piece.data ~= "" or piece.up_to_date ~= self.up_to_date or piece.closed ~= self.closed
  self.up_to_date, self.closed = piece.up_to_date or false, piece.closed or false
  return news
end

-- The next piece; nil at the end; nil and an error.
local function next_piece(self, deadline)
  if self.user_closed then
    return nil, errors.new("cancelled", "the reader was closed")
  elseif self.busy then
    error("the reader is in use by another task", 3)
  end
  self.busy = true
  local result, err
  repeat
    result = self.machine:next()
    if result and not note(self, result) and not result.whole then
      result = nil
    elseif not result then
      local ok
      if self.over then
        break
      end
      ok, err = step(self, deadline)
      if not ok then
        if self.over then
          result = self.machine:next()
          if result then
            note(self, result)
          end
        end
        break
      end
    end
  until result
  self.busy = false
  if self.user_closed then
    return nil, errors.new("cancelled", "the reader was closed")
  end
  return result, err
end

--- Reads the next chunk; waits for it.
--
-- A chunk is a piece of the stream as it came, of any length; it may be empty when it only says that the
-- reader is up to date, or that the stream is closed. On a JSON stream it is an array of some items.
-- @tparam[opt] number timeout seconds; a reader that timed out can be read on
-- @treturn ?table `data`, `offset` (before it), `next_offset` (behind it), `up_to_date`, `closed`, `cursor`;
--   nil at the end: the stream is closed, or up to date and the reader is not live
-- @return error: "timeout", "not_found", "gone", "invalid_offset", ...; nil at the end
function Reader:next(timeout)
  local deadline = runtime.deadline(timeout, 2)
  while true do
    local was_up_to_date, was_closed = self.up_to_date, self.closed
    local piece, err = next_piece(self, deadline)
    if not piece then
      return nil, err
    end
    self.offset = piece.next_offset or self.offset
    if piece.data ~= "" or self.up_to_date ~= was_up_to_date or self.closed ~= was_closed then
      return piece
    end
  end
end

-- Pieces as one: of a JSON stream, arrays as one array.
local function joined(self, parts)
  if #parts < 2 or not self.machine:state().json then
    return table.concat(parts)
  end
  local inner = {}
  for _, part in ipairs(parts) do
    local text = part:match("^%[(.*)%]$")
    if text and text ~= "" then
      inner[#inner + 1] = text
    end
  end
  return "[" .. table.concat(inner, ",") .. "]"
end

--- Reads all that one answer, or one event, of the server brought, as one chunk: `next_offset` is an offset
-- of the server then, and the data of a JSON stream is a whole array. Not to be mixed with `next`.
-- @tparam[opt] number timeout seconds
-- @treturn ?table chunk, as `next`
-- @return error; "too_large" for more than 64 MiB
function Reader:next_whole(timeout)
  local deadline = runtime.deadline(timeout, 2)
  self.parts = self.parts or { bytes = 0 }
  local parts = self.parts
  while true do
    local piece, err = next_piece(self, deadline)
    if not piece then
      return nil, err
    end
    parts.first = parts.first or piece
    parts[#parts + 1] = piece.data
    parts.bytes = parts.bytes + #piece.data
    if parts.bytes > BODY then
      self.failure = derrors.make("too_large", "read", { url = self.stream.url, offset = self.offset })
      self:close()
      return nil, self.failure
    elseif piece.whole then
      piece.data, piece.offset = joined(self, parts), parts.first.offset
      self.parts, self.offset = nil, piece.next_offset or self.offset
      return piece
    end
  end
end

--- For `for`: every chunk, until the end. An error is raised.
--
--     for chunk in reader:each() do ... end
function Reader:each()
  return function()
    local chunk, err = self:next()
    if err then
      error(err, 0)
    end
    return chunk
  end
end

-- --- values -------------------------------------------------------------------------------------

local function value_failure(self, code, detail, cause)
  self.failure = derrors.make(code, "read", {
    url = self.stream.url,
    offset = self.offset,
    detail = detail,
    cause = cause,
  })
  return nil, self.failure
end

-- Where the piece begins: the server's offset, and how much behind it.
local function split_offset(piece)
  local base, done = piece.offset:match("^(.*),(%d+)$")
  return base or piece.offset, tonumber(done or 0)
end

-- Takes the values of a piece, which is an array by itself.
local function take_array(self, piece)
  local values, err = json.decode(piece.data)
  if type(values) ~= "table" then
    return value_failure(self, "parse_error", err and err.message, err)
  end
  self.values, self.at, self.count = values, 0, #values
  self.base, self.done = split_offset(piece)
  self.behind = piece.next_offset
  if self.count == 0 then
    self.offset = piece.next_offset
  end
  return true
end

-- The codec of a stream that is not JSON: the stream's own, or by its content type. What cannot be read with
-- it is a mistake of the program, if that chose the codec, and is raised for whoever called at `level`.
local function choose_codec(self, level)
  local own, err = self.stream.codec, nil
  local content_type = self.content_type or self.stream.content_type or "application/octet-stream"
  if own.raw then
    own, err = codec.by_content_type(content_type)
  end
  if own and own.decode_next then
    self.codec, self.scanner = own, own.scanner and own.scanner(self.longest)
    return true
  elseif own and own.name == "json" then
    return value_failure(self, "parse_error", "the stream is not JSON; read its chunks with next() or each()")
  elseif own and not own.raw then
    value_failure(self, "parse_error", ("the codec '%s' has no function decode_next"):format(own.name))
    error(("items: the codec '%s' cannot tell values apart: add decode_next(bytes, position), which returns the value "
      .. "that starts there and the position behind it, or nil and \"again\" when the bytes end before it does")
      :format(own.name), level + 1)
  end
  local detail = "values of the type %s cannot be told apart: say which codec they are of, or read chunks with "
    .. "next() or each()"
  return value_failure(self, "parse_error", err and err.message or detail:format(content_type), err)
end

-- The bytes up to the position were handed out as values.
local function advance(self, position)
  if position > #self.bytes then
    self.bytes, self.offset = nil, self.behind
  elseif position == self.carried + 1 then
    self.position, self.offset = position, self.before
  else
    self.position, self.offset = position, nil
    self.done = self.first + position - 1
  end
end

local function scan_failure(self, word, what)
  return value_failure(self, word == "limit" and "too_large" or "parse_error", what)
end

-- What is left of a piece is the start of a value: keeps it until the next one. `reader.offset` stays before it.
local function keep_start(self)
  local start = self.bytes:sub(self.position)
  self.offset = self.offset
  self.bytes, self.start = nil, { start }
  if not self.scanner then
    return #start > self.longest and scan_failure(self, "limit", "the value is longer than allowed") or nil
  end
  local behind, word, what = self.scanner:next(start)
  if word ~= "again" then
    return scan_failure(self, word, behind and "the codec takes a value for cut that is whole" or what)
  end
end

-- Takes the bytes of a piece. Returns the value that began in an earlier piece, if it ends here; or nil and an
-- error.
local function take_bytes(self, piece)
  local start, data = self.start, piece.data
  self.base, self.first = split_offset(piece)
  self.done, self.before, self.behind = self.first, piece.offset, piece.next_offset
  self.bytes, self.position, self.carried = data, 1, 0
  if not start then
    self.offset = piece.offset
    return nil
  elseif not self.scanner then
    self.bytes, self.carried, self.start = start[1] .. data, #start[1], nil
    self.first = self.first - self.carried
    return nil
  end
  local behind, word, what = self.scanner:next(data)
  if word == "again" then
    self.bytes, start[#start + 1] = nil, data
    return nil
  elseif not behind then
    return scan_failure(self, word, what)
  end
  start[#start + 1] = data:sub(1, behind - 1)
  local value, err = self.codec.decode(table.concat(start))
  if value == nil then
    return value_failure(self, "parse_error", err.message, err)
  end
  self.start = nil
  advance(self, behind)
  return value
end

-- The next value of the bytes that are there; nil when they hold no more; or nil and an error.
local function next_value(self)
  local position = self.position
  local value, behind = self.codec.decode_next(self.bytes, position)
  if value == nil then
    if behind == "again" then
      return keep_start(self)
    end
    return value_failure(self, "parse_error", behind.message, behind)
  elseif behind - position > self.longest then
    return scan_failure(self, "limit", "the value is longer than allowed")
  elseif behind <= self.carried then
    return value_failure(self, "parse_error", "the codec took a value for cut that is whole")
  end
  advance(self, behind)
  return value
end

-- Takes the values of a piece; the first one may be returned.
local function take_values(self, piece, level)
  if piece.data == "" then
    if not self.start then
      self.offset = piece.next_offset or self.offset
    end
    return nil
  elseif self.machine:state().json then
    local _, err = take_array(self, piece)
    return nil, err
  elseif not self.codec then
    local ok, err = choose_codec(self, level + 1)
    if not ok then
      return nil, err
    end
  end
  return take_bytes(self, piece)
end

local function value_cut(self)
  if self.start and self.closed then
    return value_failure(self, "parse_error", "the stream is closed in the middle of a value")
  end
end

local function next_item(self, deadline, level)
  while self.at == self.count do
    local value, err
    if self.failure then
      return nil, self.failure
    elseif self.bytes then
      value, err = next_value(self)
    else
      local piece
      piece, err = next_piece(self, deadline)
      if not piece then
        if err then
          return nil, err
        end
        return value_cut(self)
      end
      value, err = take_values(self, piece, level + 1)
    end
    if value ~= nil or err then
      return value, err
    end
  end
  local at = self.at + 1
  local value = self.values[at]
  self.at, self.values[at] = at, nil
  if at == self.count then
    self.offset = self.behind
  else
    self.offset = nil
  end
  return value
end

--- Reads the next value of the stream; waits for it.
--
-- A JSON stream (the server knows its values) gives these. Of any other, the values stand one after the other in
-- its bytes, and the stream's codec reads them; where none was said ("raw"), that of its content type does:
-- MessagePack and CBOR. It must have `decode_next`, as `weir.codec` says; without that this raises.
--
-- At the end of what is there, the start of a value may be left. `reader.offset` is before it then; when the
-- stream is closed there, it is a "parse_error".
-- @tparam[opt] number timeout seconds
-- @return the value (null: `codec.null`); nil at the end; nil and an error: "parse_error", "too_large",
--   "timeout", ...
function Reader:next_item(timeout)
  local value, err = next_item(self, timeout and runtime.deadline(timeout, 2), 2)
  if err then
    return nil, err
  end
  return value
end

--- For `for`: every value of the stream, as `next_item` reads them, until the end. An error is raised. After each,
-- `reader.offset` is the position behind it.
--
--     for value in reader:items() do ... end
function Reader:items()
  return function()
    local value, err = next_item(self, nil, 2)
    if err then
      error(err, 0)
    end
    return value
  end
end

-- --- all of it ----------------------------------------------------------------------------------

--- Reads to the end: until up to date, or, when live, until the stream is closed. Of a JSON stream the
-- text of one array with all its items.
-- @tparam[opt="64 MiB"] number|string limit
-- @treturn ?string
-- @return error: "too_large", ...
function Reader:body(limit)
  limit = options.size("body", "limit", limit, BODY, 3)
  local parts, bytes = {}, 0
  while true do
    local piece, err = next_piece(self)
    if err then
      return nil, err
    elseif not piece then
      return #parts == 0 and self.machine:state().json and "[]" or joined(self, parts)
    end
    bytes = bytes + #piece.data
    if bytes > limit then
      return nil, derrors.make("too_large", "read", { url = self.stream.url, offset = self.offset,
        detail = ("more than %d bytes"):format(limit) })
    end
    parts[#parts + 1] = piece.data ~= "" and piece.data or nil
    self.offset = piece.next_offset or self.offset
  end
end

--- Reads to the end, as `body`.
Reader.text = Reader.body

--- What it has done: `requests`, `retries`, `bytes`, `cached` (answers taken from the cache), `mode` (in
-- use now), `fallback` (why server-sent events were given up, or nil), `up_to_date`, `closed`, `offset`, and
-- `json` (whether the stream is), `status` (of the last answer).
function Reader:stats()
  local state = self.machine:state()
  return {
    requests = state.requests,
    retries = state.retries,
    bytes = state.bytes,
    cached = self.cached or 0,
    mode = state.mode,
    fallback = state.fallback,
    up_to_date = self.up_to_date,
    closed = self.closed,
    json = state.json,
    status = self.status,
    offset = self.offset,
  }
end

--- Gives the connection up. Whoever waits in `next` gets nil and an error with the code "cancelled".
function Reader:close()
  if self.user_closed then
    return
  end
  self.user_closed = true
  local opening = self.opening
  if opening then
    opening.abandoned = true
    self.opening = nil
    if opening.waiter then
      opening.waiter:wake(true)
    end
    if opening.done and opening.res then
      opening.res:close()
    end
    opening.task:cancel("the reader was closed")
  end
  if self.response then
    self.response:close()
    self.response = nil
  end
end

Reader.__close = Reader.close

return M
