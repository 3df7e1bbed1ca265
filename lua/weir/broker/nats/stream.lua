--- Streams of JetStream: made, looked at, emptied.
-- @module weir.broker.nats.stream

local connections = require("weir.broker.nats.connection")
local core = require("weir.core")
local descriptors = require("weir.broker.nats.descriptor")
local errors = require("weir.errors")
local jetstream = require("weir.broker.nats.jetstream")
local runtime = require("weir.runtime")

local M = {}

local Stream = { __name = "weir.nats.stream" }
Stream.__index = Stream

local PATIENCE = 5

--- Makes the object of a stream; asks nothing.
function M.new(api, opts)
  if type(opts) ~= "table" or type(opts.name) ~= "string" then
    error("stream: a table with the stream's name is expected, such as { name = \"ORDERS\" }", 3)
  end
  local create = {}
  for option, value in pairs(opts) do
    create[option] = option ~= "name" and value or nil
  end
  local problems = {}
  local config = descriptors.stream_config("stream", create, problems)
  if opts.name == "" or opts.name:find("[%s%.%*>/\\%c]") then
    problems[#problems + 1] = "stream: a name has no dots, wildcards, slashes and spaces"
  end
  if #problems > 0 then
    error(table.concat(problems, "; "), 3)
  end
  config.name = opts.name
  return setmetatable({ api = api, name = opts.name, config = config }, Stream)
end

local function deadline_of(timeout)
  return runtime.deadline(timeout or PATIENCE, 3)
end

-- What the server says, in names and units of weir's.
local function describe(info)
  local state, config = info.state or {}, info.config or {}
  local max_age = jetstream.integer(config.max_age)
  return {
    name = config.name,
    subjects = config.subjects,
    storage = config.storage,
    retention = config.retention,
    max_msgs = jetstream.integer(config.max_msgs),
    max_bytes = jetstream.integer(config.max_bytes),
    max_age = max_age > 0 and max_age / 1e9 or nil,
    messages = jetstream.integer(state.messages),
    bytes = jetstream.integer(state.bytes),
    first = jetstream.integer(state.first_seq),
    last = jetstream.integer(state.last_seq),
    consumers = jetstream.integer(state.consumer_count),
  }
end

local function ask(self, verb, body, timeout)
  return self.api:call(("STREAM.%s.%s"):format(verb, self.name), body, deadline_of(timeout))
end

--- Makes it; one of the same configuration may be there.
-- @return what `info` returns; or nil and an error
function Stream:create(timeout)
  local info, err = ask(self, "CREATE", self.config, timeout)
  if not info then
    return nil, err
  end
  return describe(info)
end

--- Changes what was given of its configuration.
function Stream:update(timeout)
  local info, err = ask(self, "INFO", nil, timeout)
  if not info then
    return nil, err
  end
  local config = info.config
  for field, value in pairs(self.config) do
    config[field] = value
  end
  info, err = ask(self, "UPDATE", config, timeout)
  if not info then
    return nil, err
  end
  return describe(info)
end

--- What it has: `messages`, `bytes`, `first` and `last` position, `subjects`, ...
function Stream:info(timeout)
  local info, err = ask(self, "INFO", nil, timeout)
  if not info then
    return nil, err
  end
  return describe(info)
end

--- Deletes it with all it has.
function Stream:delete(timeout)
  local done, err = ask(self, "DELETE", nil, timeout)
  if not done then
    return nil, err
  end
  return true
end

--- Deletes messages.
-- @tparam[opt] table opts `subject`: only those; `before`: only those before that position; `keep`: all but so many
-- @return how many were deleted; or nil and an error
function Stream:purge(opts, timeout)
  opts = errors.options("purge", opts, { subject = "string", before = "number", keep = "number" }, 2)
  local body = { filter = opts.subject, seq = opts.before, keep = opts.keep }
  local done, err = ask(self, "PURGE", next(body) and body or nil, timeout)
  if not done then
    return nil, err
  end
  return jetstream.integer(done.purged)
end

-- --- stored messages ----------------------------------------------------------------------------

local Stored = {}
Stored.__index = Stored

-- Headers as the server sends them: a line of version, then "name: value" lines.
local function headers_of(block)
  local headers
  for name, value in (block or ""):gmatch("([^\r\n:]+):[ \t]*([^\r\n]*)\r\n") do
    headers = headers or {}
    headers[name:lower()] = headers[name:lower()] or value
  end
  return headers or connections.no_headers
end

-- A stored message from the server's JSON.
local function stored(found)
  local data = core.base64_decode(found.data or "")
  local block = found.hdrs and core.base64_decode(found.hdrs)
  if not data or (found.hdrs and not block) then
    return nil, errors.new("protocol", "a stored message makes no sense", { broker = "nats" })
  end
  local headers = headers_of(block)
  return setmetatable({
    payload = data,
    headers = headers,
    destination = found.subject,
    key = headers["partition-key"],
    position = jetstream.integer(found.seq),
    time = jetstream.seconds(found.time),
    fields = {},
  }, Stored)
end

--- One stored message.
-- @tparam table which `seq`: that one, `last_by_subj`: the last of a subject, `seq` and `next_by_subj`: the first of a
--   subject at or after that position
function M.get(api, stream, which, deadline)
  local answer, err = api:call("STREAM.MSG.GET." .. stream, which, deadline)
  if not answer then
    return nil, err
  end
  return stored(answer.message or {})
end

--- The message at a position.
function Stream:get(position, timeout)
  return M.get(self.api, self.name, { seq = position }, deadline_of(timeout))
end

local Cursor = {}
Cursor.__index = Cursor

--- The next stored message; nil at the end.
function Cursor:next(timeout)
  local which = { seq = self.position, next_by_subj = self.subject }
  local message, err = M.get(self.api, self.stream, which, deadline_of(timeout or self.timeout))
  if message then
    self.position = message.position + 1
    return message
  end
  return nil, err.code ~= "not_found" and err or nil
end

-- The server knows nothing of it.
function Cursor:close() -- luacheck: no self
end

--- Stored messages of a subject, oldest first, one after the other.
-- @param api
-- @tparam string subject
-- @tparam number timeout seconds for each, where nothing else is said
-- @tparam number deadline for the first answer
function M.cursor(api, subject, timeout, deadline)
  local stream, err = api:stream_of(subject, deadline)
  if not stream then
    return nil, err
  end
  return setmetatable({ api = api, stream = stream, subject = subject, timeout = timeout, position = 1 }, Cursor)
end

function Stream:__tostring()
  return ("weir.nats.stream(%s)"):format(self.name)
end

return M
