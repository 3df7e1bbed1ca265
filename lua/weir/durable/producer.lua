--- Exactly-once appends, in batches.
--
-- What is appended goes out in batches with the producer's id, its epoch and a sequence number, and each
-- batch is sent again, the same, until the server has it. So whatever happens on the way, the stream has
-- what was appended, in order, once.
-- @module weir.durable.producer

local client_module = require("weir.durable.client")
local core = require("weir.core")
local derrors = require("weir.durable.errors")
local errors = require("weir.errors")
local hex = require("weir.hex")
local options = require("weir.durable.options")
local random = require("weir.durable.random")
local runtime = require("weir.runtime")
local stream_module = require("weir.durable.stream")
local tasks = require("weir.task")
local waitlist = require("weir.runtime.waitlist")

local M = {}

local Producer = { __name = "weir.durable.producer" }
Producer.__index = Producer

local LARGEST = 2 ^ 53 - 1

local OPTIONS = {
  producer_id = "string",
  epoch = "number",
  sequence = "number",
  auto_claim = "boolean",
  max_batch_bytes = { "number", "string" },
  max_batch_items = "number",
  linger = "number",
  max_in_flight = "number",
  buffer = { "number", "string" },
  content_type = "string",
  headers = "table",
  params = "table",
  retry = "table",
  timeout = "number",
}

--- The names of options, and the types of their values.
M.OPTIONS = OPTIONS

local function number(what, name, value, least, level)
  options.count(what, name, value, least, level + 2)
  if value and value > LARGEST then
    error(("%s: option '%s' must be at most 2^53 - 1"):format(what, name), level + 1)
  end
  return value
end

local function bytes(what, name, value, level)
  local size = options.size(what, name, value, nil, level + 2)
  if size == 0 then
    error(("%s: option '%s' must be at least 1 byte"):format(what, name), level + 1)
  end
  return size
end

local function settings(stream, opts, level)
  local what = "producer"
  level = level + 1
  if opts.producer_id == "" or (opts.producer_id and opts.producer_id:find("[%c]")) then
    error("producer: option 'producer_id' must not be empty, nor have control characters", level)
  end
  local linger = opts.linger
  if linger and not (linger >= 0 and linger < math.huge) then
    error("producer: option 'linger' must be a number of seconds, at least 0", level)
  end
  local checked = {
    epoch = number(what, "epoch", opts.epoch, 0, level),
    sequence = number(what, "sequence", opts.sequence, 0, level),
    auto_claim = opts.auto_claim,
    max_batch_bytes = bytes(what, "max_batch_bytes", opts.max_batch_bytes, level),
    max_batch_items = number(what, "max_batch_items", opts.max_batch_items, 1, level),
    max_in_flight = number(what, "max_in_flight", opts.max_in_flight, 1, level),
    linger = linger,
    buffer = bytes(what, "buffer", opts.buffer, level),
    retry = opts.retry and options.retry(what, opts.retry, level + 1) or stream.client.retry,
  }
  local ok, reason = pcall(core.durable_writer, checked) -- which is made when it is known what the stream holds
  if not ok then
    error("producer: " .. tostring(reason):gsub("^[^:]+:%d+: ", ""):gsub("^durable_writer: ", ""), level)
  end
  return checked
end

--- Makes a producer; `stream:producer(opts)` does. Nothing is sent yet.
-- @tparam table stream
-- @tparam ?table opts
-- @tparam[opt] string opts.producer_id random when left out
-- @tparam[opt=0] number opts.epoch of two producers with one id, the server takes only the one with the later
-- @tparam[opt=0] number opts.sequence of the first batch, as `producer:state()` had it
-- @tparam[opt=false] boolean opts.auto_claim when another has a later epoch, take the one after that
-- @tparam[opt="1 MiB"] number|string opts.max_batch_bytes of one request; a larger item goes alone
-- @tparam[opt=65536] number opts.max_batch_items
-- @tparam[opt=0.005] number opts.linger seconds that a batch waits for more
-- @tparam[opt=1] number opts.max_in_flight requests at a time
-- @tparam[opt="8 MiB"] number|string opts.buffer bytes that are appended and not confirmed; then `append` waits
-- @tparam[opt] string opts.content_type as for a stream
-- @tparam[opt=30] number opts.timeout seconds for one attempt of a request
-- @tparam[opt] table opts.retry as for the client; repetitions are not bounded unless this says so
-- @tparam[opt] table opts.headers,opts.params
-- @tparam[opt=1] number level whom to blame for misuse, as for `error`, seen from the caller
-- @treturn producer
function M.new(stream, opts, level)
  level = (level or 1) + 1
  opts = errors.options("producer", opts, OPTIONS, level)
  options.pairs("producer", "headers", opts.headers, level + 1)
  options.pairs("producer", "params", opts.params, level + 1)
  local self = setmetatable({
    stream = stream,
    opts = opts,
    settings = settings(stream, opts, level),
    producer_id = opts.producer_id or hex(runtime.random(16)),
    content_type = opts.content_type or stream.content_type,
    room = waitlist.new(),
    progress = waitlist.new(),
    detached = false,
  }, Producer)
  runtime.deadline(opts.timeout, level)
  return self
end

local OPEN = { url = "string", stream = "table" }

--- Makes a producer on a URL or a stream; `durable.producer(opts)`.
-- @tparam table opts as for `new`, with `url` (a client of its own is made) or `stream`
function M.open(opts)
  local own, rest = {}, {}
  if type(opts) ~= "table" then
    error("durable.producer: options must be a table with 'url' or 'stream'", 2)
  end
  for name, value in pairs(opts) do
    (OPEN[name] and own or rest)[name] = value
  end
  errors.options("durable.producer", own, OPEN, 2)
  if (own.url == nil) == (own.stream == nil) then
    error("durable.producer: give either 'url' or 'stream'", 2)
  end
  local stream = own.stream or client_module.new():stream(own.url)
  local producer = M.new(stream, rest, 2) -- no tail call: its level counts
  return producer
end

function Producer:__tostring()
  return ("weir.durable.producer(%s on %s)"):format(self.producer_id, self.stream.url)
end

-- --- the machine --------------------------------------------------------------------------------

-- The machine, which needs to know whether the stream is JSON. Asks the server, if nobody has said so.
local function machine_of(self)
  if self.machine then
    return self.machine
  end
  if not self.content_type then
    local content_type, err = self.stream:learn_content_type(self.opts)
    if not content_type then
      return nil, err
    end
    self.content_type = self.content_type or content_type
  end
  if not self.machine then
    self.settings.json = stream_module.is_json(self.content_type)
    self.machine = core.durable_writer(self.settings)
  end
  return self.machine
end

local function wake(self)
  self.room:wake_all()
  self.progress:wake_all()
end

local pump

-- Sends one request, in a task of its own, and tells the machine what became of it.
local function send(self, batch)
  local request = self.stream:request({
    kind = "produce",
    method = "POST",
    what = "produce",
    headers = {
      ["Content-Type"] = self.content_type,
      ["Producer-Id"] = self.producer_id,
      ["Producer-Epoch"] = ("%d"):format(batch.epoch),
      ["Producer-Seq"] = ("%d"):format(batch.sequence),
      ["Stream-Closed"] = batch.close and "true" or nil,
    },
    body = batch.body or "",
  }, self.opts)
  local client = self.stream.client
  local res, err, transport = client:try_exchange(request, runtime.now() + (self.opts.timeout or client.timeout))
  if not res and not transport then
    self.stopped = true
    self.failure = self.failure or errors.with(err, { epoch = batch.epoch, sequence = batch.sequence })
    return wake(self)
  end
  self.last_error = nil
  if not res then
    self.last_error = err
    self.machine:done(batch.id, transport, nil, runtime.now(), random())
  else
    if res.outcome == "ok" then
      res:body(65536)
    else
      self.last_error = client:error_of(request, res)
    end
    res:close()
    local head = { status = res.status, headers = res.headers, unix = runtime.time() }
    self.machine:done(batch.id, "answered", head, runtime.now(), random())
  end
  wake(self)
  return pump(self)
end

-- Sends what can be sent, and sees to it that what can be later is sent then.
function pump(self)
  local machine = self.machine
  while not self.failure do
    local batch = machine:next(runtime.now())
    if not batch then
      break
    end
    tasks.spawn(send, self, batch)
  end
  local at = not self.failure and machine:deadline() or nil
  if at == self.timer_at then
    return
  elseif self.timer then
    self.timer:cancel()
  end
  self.timer, self.timer_at = nil, at
  if at then
    self.timer = runtime.timer(at, function()
      self.timer, self.timer_at = nil, nil
      pump(self)
    end)
  end
end

-- --- failures -----------------------------------------------------------------------------------

-- What ended the producer, or nil.
local function failure_of(self)
  if self.failure and not self.stopped then
    return self.failure
  end
  local state = self.machine:state()
  if self.stopped then -- by no answer: earlier batches may still be on their way, and be confirmed
    return errors.with(self.failure, { first_item = state.confirmed, item_count = state.items - state.confirmed })
  elseif not state.failed then
    return nil
  end
  local last = self.last_error
  local context = {
    url = self.stream.url,
    status = state.status and state.status > 0 and state.status or nil,
    first_item = state.first_item,
    item_count = state.item_count,
    refused_count = state.refused_count,
    epoch = state.response and state.response.producer_epoch or state.epoch,
    sequence = state.refused_sequence,
    expected_seq = state.response and state.response.expected_seq,
    received_seq = state.response and state.response.received_seq,
    retries = state.retries,
  }
  if last and last.code == state.code then
    context.status = last.status
    self.failure = errors.with(last, context)
  else
    context.detail = last and last.message
    self.failure = derrors.make(state.code or "network", "produce", context)
  end
  return self.failure
end

local function closed_error(self)
  local why = self.detached and "was detached" or "was closed"
  return derrors.make("stream_closed", "produce", { url = self.stream.url, detail = "the producer " .. why })
end

-- --- appending ----------------------------------------------------------------------------------

local function append(self, data)
  if self.detached then
    return nil, closed_error(self)
  end
  local machine, err = self.machine, nil
  if not machine then
    machine, err = machine_of(self)
  end
  if not machine then
    return nil, err
  end
  local encoded
  encoded, err = self.stream:encode(data, 3)
  return encoded, err
end

local function offer(self, encoded)
  if self.failure then
    return nil, failure_of(self)
  end
  local now = runtime.now()
  local item, word = self.machine:append(encoded, now)
  if item then
    -- The word is the machine's deadline then. While it is that of the timer, there is nothing to send.
    if word ~= self.timer_at or (word and word <= now) then
      pump(self)
    end
    return item
  elseif word == "again" then
    return nil, nil
  elseif word == "nomem" then
    return nil, errors.new("too_large", "out of memory")
  elseif word == "invalid" then
    return nil, derrors.make("parse_error", "produce", { url = self.stream.url, detail = "a value must not be empty" })
  end
  return nil, failure_of(self) or closed_error(self)
end

--- Appends one value. Returns when it is queued; waits while there is no room. `flush` tells what became of it.
-- @param data a string; with a codec, what that encodes
-- @tparam[opt] number timeout seconds to wait for room
-- @treturn ?number its number, counted from 0
-- @return error: "timeout", or what ended the producer
function Producer:append(data, timeout)
  local deadline = timeout and runtime.deadline(timeout, 2)
  local encoded, err = append(self, data)
  if not encoded then
    return nil, err
  end
  err = runtime.tick()
  while not err do
    local item
    item, err = offer(self, encoded)
    if item or err then
      return item, err
    end
    local waiter, _ = runtime.own_waiter()
    self.room:add(waiter)
    _, err = waiter:wait(deadline)
    self.room:remove(waiter)
  end
  return nil, err
end

--- Appends one value if there is room.
-- @treturn ?number its number
-- @return error: "full", or what ended the producer
function Producer:try_append(data)
  local encoded, err = append(self, data)
  if not encoded then
    return nil, err
  end
  local item
  item, err = offer(self, encoded)
  if item or err then
    return item, err
  end
  return nil, errors.new("full", "the buffer of the producer is full", { url = self.stream.url })
end

-- Waits until check(state) is true. True; or nil and an error.
local function await(self, deadline, check)
  while true do
    if check(self.machine:state()) then
      return true
    end
    local err = failure_of(self)
    if err then
      return nil, err
    end
    local waiter, _ = runtime.own_waiter()
    self.progress:add(waiter)
    _, err = waiter:wait(deadline)
    self.progress:remove(waiter)
    if err and not check(self.machine:state()) then
      return nil, failure_of(self) or err
    end
  end
end

--- Waits until the server has everything that was appended before.
-- @tparam[opt] number timeout seconds
-- @treturn ?boolean true
-- @return error: "timeout"; or what ended the producer, with `first_item` and `item_count`: the items that were
--   refused, or whose fate is not known. No later one was sent.
function Producer:flush(timeout)
  local deadline = runtime.deadline(timeout, 2)
  if not self.machine then
    return true
  end
  local count = self.machine:state().items
  self.machine:flush()
  pump(self)
  return await(self, deadline, function(state)
    return state.confirmed >= count
  end)
end

--- Closes the stream behind everything that was appended, in the same exactly-once way. Again, it returns
-- the same.
-- @param[opt] data a last value
-- @tparam[opt] number timeout seconds
-- @treturn ?table `offset`: the end of the stream
-- @return error, as `flush`
function Producer:close(data, timeout)
  local deadline = runtime.deadline(timeout, 2)
  local encoded, err
  if self.detached then
    return nil, closed_error(self)
  end
  local machine
  machine, err = machine_of(self)
  if not machine then
    return nil, err
  end
  if not machine:state().closing then
    if data ~= nil then
      encoded, err = self.stream:encode(data, 2)
      if not encoded then
        return nil, err
      end
    end
    local ok, word = machine:close(encoded, runtime.now())
    if not ok then
      return nil, failure_of(self) or errors.new("conflict", "the producer cannot be closed: " .. tostring(word))
    end
  end
  pump(self)
  local ok
  ok, err = await(self, deadline, function(state)
    return state.closed
  end)
  if not ok then
    return nil, err
  end
  return { offset = machine:state().offset, closed = true }
end

--- Flushes, and ends the producer without closing the stream.
-- @tparam[opt] number timeout seconds
-- @treturn ?table its state, as `state()` gives it
-- @return error, as `flush`
function Producer:detach(timeout)
  local ok, err = self:flush(timeout)
  self.detached = true
  if not ok then
    return nil, err
  end
  return self:state()
end

--- Flushes, and goes on with epoch + 1 and sequence 0.
-- @tparam[opt] number timeout seconds
-- @treturn ?number the new epoch
-- @return error, as `flush`
function Producer:restart(timeout)
  local machine, err = machine_of(self)
  if not machine then
    return nil, err
  end
  local ok
  ok, err = self:flush(timeout)
  if not ok then
    return nil, err
  end
  local word
  ok, word = machine:restart()
  if not ok then
    return nil, errors.new("conflict", "the producer cannot be restarted: " .. tostring(word))
  end
  return machine:state().epoch
end

--- What to save, to go on as this producer later: `producer_id`, `epoch`, `sequence` (of the next batch;
-- while something is in flight, of the first that is not confirmed).
function Producer:state()
  local state = self.machine and self.machine:state()
  return {
    producer_id = self.producer_id,
    epoch = state and state.epoch or self.settings.epoch or 0,
    sequence = state and state.confirmed_sequence or self.settings.sequence or 0,
    offset = state and state.offset,
  }
end

--- What it has done: `items`, `confirmed`, `queued_bytes`, `in_flight`, `batches`, `retries`, `duplicates`,
-- `epoch`, `closed`, `failed`.
function Producer:stats()
  if not self.machine then
    return { items = 0, confirmed = 0, queued_bytes = 0, in_flight = 0, batches = 0, retries = 0, duplicates = 0,
      epoch = self.settings.epoch or 0, closed = false, failed = false }
  end
  local out, state = {}, self.machine:state()
  for _, name in ipairs({ "items", "confirmed", "queued_bytes", "in_flight", "batches", "retries", "duplicates",
    "epoch", "closed", "failed" }) do
    out[name] = state[name]
  end
  return out
end

return M
