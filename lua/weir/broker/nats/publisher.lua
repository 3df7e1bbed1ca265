--- Publishers of the NATS broker.
--
-- With `confirm` a message is published to JetStream: publishing returns when a stream has stored it. Without, and to
-- the inbox of a request, it is on its way when publishing returns, and nobody may have asked for it.
-- @module weir.broker.nats.publisher

local contract = require("weir.broker.contract")
local errors = require("weir.broker.nats.errors")
local jetstream = require("weir.broker.nats.jetstream")
local runtime = require("weir.runtime")
local waitlist = require("weir.runtime.waitlist")
local weir_errors = require("weir.errors")

local M = {}

-- How a stream answers what is published to it.
local RECEIPT = '^{"stream":"[^"]*",%s*"seq":%d'
M.NO_REQUESTS = "requests to subjects that a stream takes: it stores them and answers with a receipt"

local tick = runtime.tick

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

-- Confirmations that one batch waits for at a time.
local IN_FLIGHT = 4096

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

local function confirmed(self, destination, payload, headers, timeout)
  local waiter = runtime.waiter()
  local connection = self.connection
  local token, err = connection:ask(destination, payload, headers, function(message, why)
    waiter:wake(message, why)
  end)
  if not token then
    return nil, err
  end
  local message
  message, err = waiter:wait(runtime.now() + timeout)
  if not message then
    connection:forget(token)
    return nil, err.code == "timeout" and errors.new("timeout", nil, { destination = destination }) or err
  end
  local got
  got, err = receipt(message, nil, destination)
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
  local busy = tick()
  if busy then
    return nil, busy
  elseif self.plain and not headers and not options then
    local connection = self.connection
    if connection.up and connection.link:publish(destination, payload) then
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

-- One item of a batch, of which the confirmation comes later.
local function begin_item(self, batch, index, item)
  local destination, payload, options = item[1], item[2], item[4]
  local headers, confirm, err = nil, self.confirm, nil
  if options or item[3] or self.stream then
    headers, confirm, err = prepare(self, item[3], options)
  end
  if err then
    batch.results[index] = err
    return
  elseif not confirm or is_inbox(self, destination) then
    local reply = options and options.reply_to or self.reply_to
    local done
    done, err = self.connection:publish(destination, payload, reply, headers)
    batch.results[index] = done or err
    return
  end
  local token
  token, err = self.connection:ask(destination, payload, headers, function(message, why)
    local got, problem = receipt(message, why, destination)
    batch.results[index] = got and true or problem
    batch.receipts[index] = got
    batch.tokens[index] = nil
    batch.open = batch.open - 1
    if batch.open <= batch.enough then
      batch.list:wake_all()
    end
  end)
  if token then
    batch.tokens[index] = token
    batch.open = batch.open + 1
  else
    batch.results[index] = err
  end
end

M.prepare, M.is_inbox = prepare, is_inbox

-- Waits until at most `most` confirmations are missing; an error when that takes too long.
local function await(batch, most, timeout)
  local deadline = runtime.now() + timeout
  batch.enough = most
  while batch.open > most do
    local waiter = runtime.own_waiter()
    batch.list:add(waiter)
    local _, err = waiter:wait(deadline)
    batch.list:remove(waiter)
    if err then
      return err
    end
  end
end

--- Publishes messages; those that are to be confirmed are on their way together.
-- @tparam table items list of `{ destination, payload, headers, options }`
-- @return true, or nil and the first error; then a list of true or an error for each, and the list of receipts
function Publisher:publish_batch(items)
  local batch = { results = {}, receipts = {}, tokens = {}, open = 0, enough = 0, list = waitlist.new() }
  local late = nil
  for index, item in ipairs(items) do
    late = runtime.tick() or (batch.open >= IN_FLIGHT and await(batch, IN_FLIGHT / 2, self.timeout)) or nil
    if late then
      break
    end
    begin_item(self, batch, index, item)
  end
  late = late or await(batch, 0, self.timeout)
  for index, token in pairs(batch.tokens) do
    self.connection:forget(token)
    batch.results[index] = late.code == "timeout" and errors.new("timeout") or late
  end
  local first
  for index = 1, #items do
    batch.results[index] = batch.results[index] or late
    if batch.results[index] ~= true and not first then
      first = batch.results[index]
    end
  end
  if first then
    return nil, first, batch.results, batch.receipts
  end
  return true, nil, batch.results, batch.receipts
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
