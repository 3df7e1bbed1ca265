--- The consuming end of a stream.
--
-- A consumer subscribes to every producer of its stream that it may have, on its own node and on
-- those connected to it, and merges them. For each producing node there is a source, which knows
-- the subscription (an inlet of the core), or when to try again.
-- @module weir.streams.consumer

local core = require("weir.core")
local errors = require("weir.errors")
local hex = require("weir.hex")
local hub = require("weir.streams.hub")
local options = require("weir.streams.options")
local runtime = require("weir.runtime")
local waitlist = require("weir.runtime.waitlist")
local when = require("weir.streams.when")

local events, has = core.events, hub.has

local Consumer = { __name = "weir.consumer" }
Consumer.__index = Consumer

-- One whose messages need no decoding: `recv` and `each` begin in C (see below).
local RawConsumer = {}

local consumer = {}

local OPTIONS = {
  codec = { "string", "table" },
  schema = "string",
  require = "function",
  criteria = "string",
  token = "string",
  backoff = "table",
  online_when = "number",
  buffer = "table",
  max_message = { "number", "string" },
}

--- The names of options, and the types of their values.
consumer.OPTIONS = OPTIONS

local NO_OPTIONS = {}

-- Sources from which on those that stopped are forgotten.
local MOST_SOURCES = 64

local RENEWAL = 0.1 -- seconds between subscriptions to a stream that ends and is there again

-- After these the producer is not asked again until it announces the stream anew: nothing would
-- change by asking.
local SHUTDOWN, NOT_FOUND, TOO_SLOW, NO_CAPACITY = 204, 10404, 10413, 10509
local FINAL = { [101] = true, [10403] = true, [10404] = true, [10415] = true }

--- Makes a consumer; `network:consume` and `network:consumer` do.
-- @tparam table network
-- @tparam string name
-- @tparam string id 32 bytes
-- @tparam ?table opts see `weir.network`; wrong ones raise an error without a position
function consumer.new(network, name, id, opts)
  local what = ("consumer of '%s'"):format(name)
  opts = errors.options(what, opts or NO_OPTIONS, OPTIONS, -1)
  options.text(what, "schema", opts.schema, 64)
  options.text(what, "criteria", opts.criteria, 8192)
  options.text(what, "token", opts.token, 4096)
  options.backoff(what, opts.backoff)
  local messages, bytes = options.buffer(what, opts.buffer)
  local object = core.consumer({
    max_items = messages,
    max_bytes = bytes,
    max_message = options.bytes(what, "max_message", opts.max_message),
  })
  local codec = options.codec(what, opts.codec)
  -- Thousands of consumers must not cost much: what is seldom used is made when it is.
  local self = setmetatable({
    object, -- where the fast path of raw consumers looks
    core = object,
    network = network,
    name = name,
    id = id,
    opts = opts,
    codec = codec,
    least = options.count(what, "online_when", opts.online_when, 0) or 0,
    online = false,
    closed = false,
    born = runtime.now(),
    sources = {}, -- node id -> source
    open = 0, -- subscriptions
  }, codec.raw and RawConsumer or Consumer)
  -- decode: of the codec, unless that is "raw"
  -- rejected: the error of the last subscription that was refused
  -- behind: whether a source waits until the application wants more
  -- conditions: see when(); readable: the list of those who wait for a message
  if not codec.raw then
    self.decode = codec.decode
  end
  hub.own(object, self)
  self:update_online()
  return self
end

-- --- sources ------------------------------------------------------------------------------------

function Consumer:update_online()
  local online = not self.closed and self.open >= self.least
  if online ~= self.online then
    self.online = online
    self:changed()
  end
end

--- Something changed that `when()` or the strict form may wait for.
function Consumer:changed()
  if self.conditions then
    self.conditions:changed()
  end
end

local function cancel_timer(source)
  if source.timer then
    source.timer:cancel()
    source.timer = nil
  end
end

-- Whether the application still has to take what the source's last subscription left. Until then
-- a new one would only heap up more.
local function undrained(self, source)
  return source.inlet ~= nil and self.core:holds(source.inlet)
end

-- Returns an inlet id; or nil and why not, for "refused" with a close code and a text.
local function subscribe(self, source)
  local session, producer = source.session, source.producer
  if session then
    return session:subscribe(self, source)
  elseif not producer then
    return nil, "closed"
  end
  local wishes = { codec = self.codec.name, schema = self.opts.schema }
  local code, reason = producer:refuses(self.network:as_subscriber(self.opts), wishes)
  if code then
    return nil, "refused", code, reason
  elseif self.closed then -- by the producer's `require`
    return nil, "closed"
  end
  return self.core:attach(producer.core, self.network.node, source.epoch, source.expected)
end

local conclude, retry_later

-- Asks the producer's node, unless that has been done or cannot be done now.
local function try(self, source)
  if self.closed or source.state ~= "waiting" then
    return
  elseif undrained(self, source) then
    source.state = "draining"
    return
  end
  local inlet, why, code, reason = subscribe(self, source)
  if inlet then
    source.state, source.inlet, source.renewable = "opening", inlet, false
  elseif why == "refused" then
    conclude(self, source, code, reason)
    self:changed()
  elseif why == "nomem" then
    retry_later(self, source)
  elseif not source.session then
    source.state = "stopped"
  elseif why ~= "closed" then
    source.session:want_room(try, self, source)
  end
end

function retry_later(self, source)
  source.backoff = source.backoff or core.backoff(self.opts.backoff or NO_OPTIONS)
  local delay = source.backoff:next(runtime.now())
  if not delay then
    source.state = "given up"
    return
  end
  source.state = "pausing"
  source.timer = runtime.timer(runtime.now() + delay, function()
    source.timer = nil
    source.state = "waiting"
    try(self, source)
  end)
end

local function allowed(self, peer)
  if not self.opts.require then
    return true
  end
  local ok, result = pcall(self.opts.require, peer)
  if not ok then
    runtime.report(result, nil, ("error in the require function of the consumer of '%s'"):format(self.name))
    return false
  end
  return result
end

-- Nodes come and go, each with an id of its own: those that are gone are remembered, because one may
-- come back and go on where it stopped, but not without end.
local function forget_stopped(self)
  local count = 0
  for _ in pairs(self.sources) do
    count = count + 1
  end
  for node, source in pairs(self.sources) do
    if count < MOST_SOURCES then
      return
    elseif source.state == "stopped" and not undrained(self, source) then
      self.sources[node] = nil
      count = count - 1
    end
  end
end

-- Whether an offer is news: there is no subscription, and either nothing goes on or there may be room
-- now where there was none.
local function may_try(source, origin)
  local state = source.state
  if state == "opening" then
    source.renewable = true -- offered anew, perhaps after the request was refused
  elseif state == "pausing" and source.producer ~= origin.producer then
    return true
  elseif state == "pausing" and source.closed and source.closed.status == NO_CAPACITY then
    return source.session == origin.session
  end
  return state == "stopped" or state == "given up"
end

--- A node produces the stream, or has room for another consumer again. `origin` is { session = } or
-- { producer = }.
function Consumer:offered(node, peer, origin)
  local source = self.sources[node]
  if self.closed or (source and not may_try(source, origin)) then
    return
  end
  if not allowed(self, peer) then
    self.rejected = errors.new("not_allowed", ("the consumer of '%s' does not allow this producer"):format(self.name), {
      status = 10403,
      stream = self.name,
    })
    self:changed()
    return
  end
  if source then
    cancel_timer(source)
    source.peer, source.session, source.producer = peer, origin.session, origin.producer
    source.state = "waiting"
  else
    forget_stopped(self)
    source = { state = "waiting", peer = peer, session = origin.session, producer = origin.producer, inlet = nil }
    self.sources[node] = source
  end
  try(self, source)
end

--- The node does not produce the stream any more, or is gone. What it sent stays to be taken.
function Consumer:withdrawn(node)
  local source = self.sources[node]
  if source then
    cancel_timer(source)
    if source.state ~= "open" and source.state ~= "opening" then
      source.state = "stopped"
    end
  end
end

local function opened(self, source)
  source.state = "open"
  self.open = self.open + 1
  if source.backoff then
    source.backoff:reset()
  end
end

-- Whether the node produces the stream now: perhaps anew, after the subscription ended.
local function still_offered(self, source)
  local session = source.session
  if session then
    return not session.ended and session.offered[self.id]
  end
  source.producer = self.network.producers[self.id]
  return source.producer and not source.producer.closing
end

-- Whether a stream that ended may be asked for again at once; not so if that happens all the time.
local function may_renew(source)
  local now = runtime.now()
  local may = now - (source.renewed or -math.huge) > RENEWAL
  if may then
    source.renewed = now
  end
  return may
end

-- There is no subscription (any more): notes why, and what to do next.
function conclude(self, source, code, reason)
  source.closed = { status = code, code = core.close_name(code), message = reason }
  if code ~= SHUTDOWN then
    self.rejected = errors.new(source.closed.code, reason, { status = code, stream = self.name })
  end
  local again = code == SHUTDOWN or (code == NOT_FOUND and source.renewable)
  if self.closed or (FINAL[code] and not again) or not still_offered(self, source) then
    source.state = "stopped"
  elseif again and may_renew(source) then
    source.state = "waiting"
    try(self, source)
  elseif code == TOO_SLOW and source.producer then
    -- What it had is gone, so that draining says nothing: the application must want more first. Whoever waits does.
    source.state, self.behind = "behind", true
    if self.readable then
      self.readable:wake_one()
    end
  else
    retry_later(self, source)
  end
end

local function ended(self, source, change)
  if source.state == "open" then
    self.open = self.open - 1
  end
  if change.epoch > 0 then -- it had been accepted
    source.epoch, source.expected = change.epoch, change.expected
  end
  conclude(self, source, change.code, change.reason)
end

local function source_of(self, inlet)
  for _, source in pairs(self.sources) do
    if source.inlet == inlet then
      return source
    end
  end
end

local function take_changes(self)
  local change = not self.closed and self.core:next_change()
  while change do
    local source = source_of(self, change.id)
    if source then
      if change.state == "open" and source.state == "opening" then
        opened(self, source)
      elseif change.state == "closed" then
        ended(self, source, change)
      end
    end
    change = not self.closed and self.core:next_change()
  end
  self:update_online()
  self:changed()
end

-- Sources that waited for the application to take what their last subscription left.
local function retry_drained(self)
  for _, source in pairs(self.sources) do
    if source.state == "draining" then
      source.state = "waiting"
      try(self, source)
    end
  end
end

-- The application looks for messages again and finds none.
local function catch_up(self)
  self.behind = false
  for _, source in pairs(self.sources) do
    if source.state == "behind" then
      source.state = "waiting"
      try(self, source)
    end
  end
  take_changes(self)
end

--- What changed is known now, not only in the next turn: for subscriptions within the node.
function Consumer:take_changes()
  take_changes(self)
end

function Consumer:on_event(bits)
  if self.closed then
    return
  end
  if has(bits, events.CONSUMER_CHANGED) then
    take_changes(self)
  end
  if has(bits, events.CONSUMER_DRAINED) then
    retry_drained(self)
  end
  if has(bits, events.CONSUMER_READABLE) then
    if self.readable then
      self.readable:wake_one()
    end
  end
end

-- --- receiving ----------------------------------------------------------------------------------

local function closed_error(self)
  return errors.new("closed", ("the consumer of '%s' was closed"):format(self.name), { stream = self.name })
end

local function decoded(self, payload, meta)
  local value, err = self.decode(payload)
  if value == nil then
    err.raw, err.meta, err.stream = payload, meta, self.name
    return nil, err
  end
  return value, meta
end

local function waiting(self)
  local list = self.readable
  if not list then
    list = waitlist.new()
    self.readable = list
  end
  return list
end

-- Waits for what the core's answer `why` to a request for messages says. Nil; or an error.
local function wait_for_message(self, why, deadline)
  if why == "pause" then
    local err = runtime.pause_if_spent(core.spent())
    if self.closed then
      return closed_error(self)
    end
    return err and errors.with(err, { stream = self.name })
  end
  if self.behind then
    catch_up(self)
  end
  if self.closed then
    return closed_error(self)
  end
  local readable = waiting(self)
  local waiter = runtime.own_waiter()
  readable:add(waiter)
  local _, err = waiter:wait(deadline)
  local woken = readable:remove(waiter)
  if self.closed then
    return closed_error(self)
  elseif err then
    if woken then
      readable:wake_one()
    end
    return errors.with(err, { stream = self.name })
  end
end

-- Others may wait for what is left.
local function pass_on(self)
  local readable = self.readable
  if readable and readable.count > 0 then
    readable:wake_one()
  end
end

local function recv_slow(self, why, timeout)
  local deadline = runtime.deadline(timeout, 3)
  while true do
    local err = wait_for_message(self, why, deadline)
    if err then
      return nil, err
    end
    local payload, meta = self.core:try_take()
    if payload then
      pass_on(self)
      if self.decode then
        return decoded(self, payload, meta)
      end
      return payload, meta
    end
    why = meta
  end
end

--- Takes the next message; waits for one.
-- @tparam[opt] number timeout seconds
-- @return the value, and its `meta` (producer, epoch, sequence, time); or nil and an error:
--   "timeout", "closed", "cancelled", or "decode" (a message that the codec cannot read: its bytes
--   are in `err.raw`, and the stream goes on)
function Consumer:recv(timeout)
  if self.closed then
    return nil, closed_error(self)
  end
  local payload, meta = self.core:take()
  if not payload then
    return recv_slow(self, meta, timeout)
  elseif self.decode then
    return decoded(self, payload, meta)
  end
  return payload, meta
end

--- Takes the next message if there is one.
-- @return as `recv`, with the error "empty" when there is none
function Consumer:try_recv()
  if self.closed then
    return nil, closed_error(self)
  end
  local payload, meta = self.core:try_take()
  if not payload then
    if self.behind then
      catch_up(self)
    end
    return nil, errors.new("empty", ("no message of '%s' is there"):format(self.name), { stream = self.name })
  elseif self.decode then
    return decoded(self, payload, meta)
  end
  return payload, meta
end

-- Decodes a batch in place. Returns the errors by place, or nil.
local function decode_all(self, values, metas)
  local failed
  for i = 1, #values do
    local value, err = decoded(self, values[i], metas[i])
    if value == nil then
      failed = failed or {}
      failed[i], value = err, false
    end
    values[i] = value
  end
  return failed
end

--- Takes several messages of one producer at once: what is there, at least one; waits for it. Costs
-- less for each message than `recv`.
-- @tparam[opt=256] number most how many at most
-- @tparam[opt] number timeout seconds
-- @treturn table list of values, in order; or nil and an error: "timeout", "closed", "cancelled"
-- @return their metas: `metas[i]` belongs to the i-th value
-- @treturn ?table the errors of messages that the codec cannot read, by place; their value is false
function Consumer:recv_many(most, timeout)
  if most ~= nil and (type(most) ~= "number" or most < 1 or most ~= math.floor(most)) then
    error("recv_many: the number of messages must be a whole number, at least 1, not " .. tostring(most), 2)
  elseif self.closed then
    return nil, closed_error(self)
  end
  most = most or 256
  local deadline = runtime.deadline(timeout, 2)
  local values, metas = self.core:take_many(most)
  while not values do
    local err = wait_for_message(self, metas, deadline)
    if err then
      return nil, err
    end
    values, metas = self.core:try_take_many(most)
    if values then
      pass_on(self)
    end
  end
  if self.decode then
    return values, metas, decode_all(self, values, metas)
  end
  return values, metas
end

--- For `for`: every message, until the consumer is closed.
--
--     for value, meta in consumer:each() do ... end
--
-- A message that the codec cannot read comes as `false` and the error. A cancellation is raised.
function Consumer:each()
  return self.step, self
end

function Consumer.step(self)
  local value, meta = self:recv()
  if value ~= nil then
    return value, meta
  elseif meta.code == "decode" then
    return false, meta
  elseif meta.code ~= "closed" then
    error(meta, 0)
  end
end

--- For select.
function Consumer:poll()
  local value, meta = self:try_recv()
  if value == nil and meta.code == "empty" then
    return false
  end
  return true, value, meta
end

function Consumer:watch(waiter)
  waiting(self):add(waiter)
end

-- Passes the word on: what it was woken for may still be there.
function Consumer:unwatch(waiter)
  if self.readable:remove(waiter) and not self.closed then
    self.readable:wake_one()
  end
end

--- Ends all subscriptions; what was not taken is dropped.
-- @treturn boolean true
function Consumer:close()
  if self.closed then
    return true
  end
  self.closed = true
  for _, source in pairs(self.sources) do
    cancel_timer(source)
  end
  self.final = self.core:stats()
  hub.disown(self.core)
  self.core:free()
  self.open = 0
  self:update_online()
  self:changed()
  if self.readable then
    self.readable:wake_all()
  end
  self.network:forget_consumer(self)
  return true
end

-- --- looking ------------------------------------------------------------------------------------

local function in_progress(self)
  for _, source in pairs(self.sources) do
    if source.state == "waiting" or source.state == "opening" then
      return true
    end
  end
end

--- Waits until a subscription is open, for the strict form `network:consumer`.
-- @treturn boolean true; or nil and why not: "not_found" when nobody offers the stream, or the
--   reason of the one who refused
function Consumer:wait_open(deadline)
  while self.open == 0 and not self.closed do
    if self.rejected and not in_progress(self) then
      return nil, self.rejected
    end
    local _, err = self:when():wait(deadline)
    if err and err.code == "timeout" then
      return nil,
        errors.new("not_found", ("nobody who is connected produces '%s'"):format(self.name), {
          status = 10404,
          stream = self.name,
        })
    elseif err then
      return nil, err
    end
  end
  return true
end

--- Whether as many producers are connected as `online_when` asks for (0 unless said otherwise).
-- @treturn boolean
function Consumer:is_online()
  return self.online
end

--- Conditions to wait for: `consumer:when():online(timeout)`, `:offline(timeout)`.
function Consumer:when()
  local conditions = self.conditions
  if not conditions then
    conditions = when.new(self)
    self.conditions = conditions
  end
  return conditions
end

--- The producers that the consumer knows of.
-- @treturn table list of { peer = id, url =, tags =, state =, messages =, bytes =, queued =, credit =,
--   missed =, gaps =, rtt =, uptime =, closed = }; `closed` is how the last subscription ended:
--   { status =, code =, message = }; `state` is "open"; "opening": asked for; "waiting": for room on
--   the connection; "pausing": until the next attempt; "draining": until the application has taken
--   what the last subscription left; "behind": too slow, until the application looks for messages
--   again; "stopped": not until the stream is offered anew; "given up"
function Consumer:producers()
  local inlets, list = {}, {}
  if self.closed then
    return list
  end
  local now = runtime.now()
  for _, inlet in ipairs(self.core:inlets()) do
    inlets[inlet.id] = inlet
  end
  for _, source in pairs(self.sources) do
    local inlet = inlets[source.inlet] or {}
    list[#list + 1] = {
      peer = source.peer.id,
      url = source.peer.url,
      tags = source.peer.tags,
      state = source.state,
      messages = inlet.messages or 0,
      bytes = inlet.bytes or 0,
      queued = inlet.queued or 0,
      credit = not source.producer and inlet.credit_bytes or nil,
      gaps = inlet.gaps or 0,
      missed = inlet.missed or 0,
      rtt = source.session and source.session:rtt(),
      uptime = source.state == "open" and now - inlet.since or nil,
      closed = source.closed,
    }
  end
  return list
end

--- Counters.
-- @treturn table `messages` and `bytes` taken by the application, `queued` (messages that wait for
--   it), `gaps`, `credit` (bytes that the producers may still send; nil without remote
--   ones), `dropped` (messages that were announced as missing), `producers` (connected), `rtt`
--   (seconds, the longest), `uptime` (seconds)
function Consumer:stats()
  local counted = self.final or self.core:stats()
  local stats = {
    messages = counted.messages,
    bytes = counted.bytes,
    gaps = counted.gaps,
    dropped = counted.missed,
    queued = 0,
  }
  stats.producers = self.open
  stats.uptime = runtime.now() - self.born
  for _, each in ipairs(self:producers()) do
    stats.queued = stats.queued + each.queued
    if each.credit then
      stats.credit = (stats.credit or 0) + each.credit
    end
    if each.rtt then
      stats.rtt = math.max(stats.rtt or 0, each.rtt)
    end
  end
  return stats
end

--- The id of the stream, as 64 hex digits.
function Consumer:stream_id()
  return hex(self.id)
end

function Consumer:__tostring()
  local state = self.closed and "closed" or self.online and "online" or "offline"
  return ("weir.consumer(%s, %s, %d producers)"):format(self.name, state, self.open)
end

function Consumer:__close()
  self:close()
end

for name, value in pairs(Consumer) do
  RawConsumer[name] = value
end
RawConsumer.__index = RawConsumer
if core.recv_function then
  RawConsumer.recv = core.recv_function(Consumer.recv)
  RawConsumer.step = core.recv_function(Consumer.step)
end

return consumer
