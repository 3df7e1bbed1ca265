--- Publishers of the NATS broker.
--
-- With `confirm` a message is published to JetStream: publishing returns when a stream has stored it. Without, and to
-- the inbox of a request, it is on its way when publishing returns, and nobody may have asked for it.
-- @module weir.broker.nats.publisher

local connections = require("weir.broker.nats.connection")
local contract = require("weir.broker.contract")
local errors = require("weir.broker.nats.errors")
local jetstream = require("weir.broker.nats.jetstream")
local publish_batch = require("weir.broker.nats.batch")
local receipts = require("weir.broker.nats.receipts")
local runtime = require("weir.runtime")
local weir_errors = require("weir.errors")

local M = {}

-- How a stream answers what is published to it.
local RECEIPT = '^{"stream":"[^"]*",%s*"seq":%d'
M.NO_REQUESTS = "requests to subjects that a stream takes: it stores them and answers with a receipt"

local pause_if_spent, native_publish = runtime.pause_if_spent, connections.native.publish

-- Messages that are counted as operations at a time, and those that are not yet.
local COUNTED, uncounted = 16, 0

local Publisher = { __name = "weir.nats.publisher" }
Publisher.__index = Publisher

local known = { confirm = "boolean", timeout = "number", stream = "string", reply_to = "string" }

-- Options of one message: the header that carries each.
local expectations = {
  message_id = "Nats-Msg-Id",
  expect_stream = "Nats-Expected-Stream",
  expect_last_sequence = "Nats-Expected-Last-Sequence",
  expect_last_subject_sequence = "Nats-Expected-Last-Subject-Sequence",
  expect_last_message_id = "Nats-Expected-Last-Msg-Id",
}
local message_options = {
  message_id = "string",
  expect_stream = "string",
  expect_last_sequence = "number",
  expect_last_subject_sequence = "number",
  expect_last_message_id = "string",
  confirm = "boolean",
  timeout = "number",
  reply_to = "string",
  key = "string",
}

--- Makes one; `broker:publisher` does.
function M.new(broker, opts)
  opts = weir_errors.options("nats: publisher", opts, known, 3)
  local confirm = opts.confirm
  if confirm == nil then
    confirm = broker.settings.confirm
  end
  return setmetatable({
    connection = broker.connection,
    broker = broker,
    confirm = confirm,
    stream = opts.stream,
    reply_to = opts.reply_to,
    timeout = opts.timeout or broker.settings.publish_timeout,
    plain = not (confirm or opts.stream or opts.reply_to), -- messages without headers go the short way
    inboxes = broker.settings.inbox_prefix .. ".",
  }, Publisher)
end

-- An option that is none: an error that lists those there are.
local function check_options(options)
  for name, value in pairs(options) do
    local expected = message_options[name]
    if not expected then
      return contract.unsupported("nats", ("option '%s' of a message"):format(tostring(name)))
    elseif type(value) ~= expected then
      return errors.new("unsupported", ("option '%s' must be a %s"):format(name, expected))
    end
  end
end

-- Whether it is where somebody waits for an answer: no stream has it, so nobody would confirm.
local function is_inbox(self, destination)
  local own = self.inboxes
  return destination:sub(1, 7) == "_INBOX." or destination:sub(1, #own) == own
end

-- The headers of a message with what its options add; whether it is to be confirmed.
local function prepare(self, headers, options)
  local confirm = self.confirm
  local own
  if self.stream then
    own = { [expectations.expect_stream] = self.stream }
  end
  if options then
    local err = check_options(options)
    if err then
      return nil, nil, err
    end
    for name, header in pairs(expectations) do
      local value = options[name]
      if value ~= nil then
        own = own or {}
        own[header] = type(value) == "number" and ("%d"):format(value) or value
        confirm = true
      end
    end
    if options.key then
      own = own or {}
      own["partition-key"] = options.key
    end
    if options.confirm ~= nil then
      confirm = options.confirm
    end
  end
  if own then
    for name, value in pairs(headers or {}) do
      own[name] = own[name] or value
    end
    headers = own
  end
  if headers and next(headers) == nil then
    headers = nil
  end
  return headers, confirm
end

-- The receipt in a stream's answer; or nil and an error.
local function receipt(message, err, destination)
  if not message then
    return nil, err
  elseif message.headers.status then
    if message.headers.status == "503" then
      return nil, errors.new("no_stream", nil, { destination = destination })
    end
    return nil, errors.new("protocol", message.headers.description, { destination = destination })
  end
  local payload = message.payload
  -- What the server writes nearly always; anything else is decoded.
  local stream, sequence = payload:match("^{\"stream\":\"([^\"\\]*)\", ?\"seq\":(%d+)}$")
  if stream then
    return { stream = stream, sequence = math.tointeger(tonumber(sequence)), duplicate = false }
  end
  local ok, answer = pcall(jetstream.decode, payload)
  if not ok or type(answer) ~= "table" then
    return nil, errors.new("protocol", nil, { destination = destination })
  elseif type(answer.error) == "table" then
    local failure = errors.jetstream(answer.error, "publish to " .. destination)
    failure.destination = destination
    return nil, failure
  end
  return {
    stream = answer.stream,
    sequence = jetstream.integer(answer.seq),
    duplicate = answer.duplicate == true,
    domain = answer.domain,
  }
end

-- What the answer to one message says: its receipt; or nil and an error.
local function read(stream, sequence, message, err, destination)
  if stream then
    return { stream = stream, sequence = sequence, duplicate = false }
  elseif err and err.code == "no_stream" then
    err = errors.new("no_stream", nil, { destination = destination })
  end
  return receipt(message, err, destination)
end

-- Who waits for one.
local Single = {}
Single.__index = Single

function Single:receipt(_, stream, sequence, message, err)
  self.stream, self.sequence, self.message, self.err = stream, sequence, message, err
  self.waiter:wake(true)
end

local function confirmed(self, destination, payload, headers, timeout)
  local waiter = runtime.waiter()
  local target = setmetatable({ waiter = waiter }, Single)
  local inbox, number = self.connection.receipts:publish(destination, payload, headers, target)
  if not inbox then
    return nil, number
  end
  local answered, err = waiter:wait(runtime.now() + timeout)
  if not answered then
    receipts.forget(inbox, number)
    return nil, err.code == "timeout" and errors.new("timeout", nil, { destination = destination }) or err
  end
  local got
  got, err = read(target.stream, target.sequence, target.message, target.err, destination)
  if not got then
    return nil, err
  end
  return true, got
end

--- Publishes a message.
-- @tparam string destination a subject without wildcards
-- @tparam string payload
-- @tparam[opt] table headers names in lower case to strings
-- @tparam[opt] table options `key`, `reply_to`, `confirm`, `timeout`; for JetStream `message_id` (a second one with
--   that id is stored once), `expect_stream`, `expect_last_sequence`, `expect_last_subject_sequence`,
--   `expect_last_message_id` ("conflict" if it is otherwise), each of which implies `confirm`
-- @return true, and with `confirm` the receipt: `stream`, `sequence`, `duplicate`; or nil and an error
function Publisher:publish(destination, payload, headers, options)
  uncounted = uncounted + 1
  if uncounted == COUNTED then
    uncounted = 0
    local busy = pause_if_spent(COUNTED)
    if busy then
      return nil, busy
    end
  end
  if not headers and not options and self.plain then
    local connection = self.connection
    local link = connection.ready
    if link and native_publish(link, destination, payload) then
      return true
    end
    return connection:publish_slowly(destination, payload)
  end
  local confirm = self.confirm
  if options or self.stream or (headers and next(headers) == nil) then
    local err
    headers, confirm, err = prepare(self, headers, options)
    if err then
      return nil, err
    end
  end
  if confirm and not is_inbox(self, destination) then
    return confirmed(self, destination, payload, headers, options and options.timeout or self.timeout)
  end
  return self.connection:publish(destination, payload, options and options.reply_to or self.reply_to, headers)
end

M.prepare, M.is_inbox, M.read = prepare, is_inbox, read

--- Publishes messages; those that are to be confirmed are on their way together.
-- @tparam table items list of `{ destination, payload, headers, options }`
-- @return true, or nil and the first error; then a list of true or an error for each, and the list of receipts
function Publisher:publish_batch(items)
  return publish_batch(self, items, M)
end

--- Publishes a request and waits for one answer.
-- @tparam string destination
-- @tparam string payload
-- @tparam[opt] table headers
-- @tparam[opt] number timeout in seconds
-- @return the answer, a message; or nil and an error: "timeout", "no_responders", ...
function Publisher:request(destination, payload, headers, timeout)
  local busy = runtime.tick()
  if busy then
    return nil, busy
  end
  if headers and next(headers) == nil then
    headers = nil
  end
  local deadline = runtime.deadline(timeout or self.timeout, 2)
  local reply, err = self.connection:request(destination, payload, headers, deadline)
  if reply and reply.payload:find(RECEIPT) and next(reply.headers) == nil then
    return nil, contract.unsupported("nats", M.NO_REQUESTS)
  end
  return reply, err
end

--- NATS has no transactions.
function Publisher.transaction()
  return nil, contract.unsupported("nats", "transactions")
end

--- Waits until the server has everything that was published before.
-- @tparam[opt] number timeout in seconds
function Publisher:flush(timeout)
  return self.connection:flush(runtime.deadline(timeout or self.timeout, 2))
end

function Publisher:__tostring()
  return ("weir.nats.publisher(%s)"):format(self.confirm and "confirmed" or "core")
end

return M
