--- A connection between two nodes: carries what one tells the other to the network.
-- @module weir.streams.session

local core = require("weir.core")
local errors = require("weir.errors")
local hex = require("weir.hex")
local hub = require("weir.streams.hub")
local runtime = require("weir.runtime")

local events, has = core.events, hub.has

-- Streams that a peer may say it produces.
local MOST_OFFERS = 65536

-- Announcements that wait for a peer that does not read.
local MOST_UNSENT = 1024

local Session = { __name = "weir.session" }
Session.__index = Session

local session = {}

--- Opens a session on a connection.
-- @tparam table network
-- @tparam table conn of the runtime
-- @tparam boolean client whether we connected
-- @tparam[opt] table dialer the peer entry that dialled
function session.open(network, conn, client, dialer)
  local self = setmetatable({
    network = network,
    conn = conn,
    client = client,
    dialer = dialer,
    url = client and conn.url or conn:peer() or conn.url,
    peer = nil,
    offered = {}, -- stream id -> true: what the peer produces
    offers = 0,
    unsent = {}, -- announcements that found no room: { add, ids }
    full = false, -- no other stream can be opened now
    wanting = { first = 1, last = 0 }, -- calls that wait until one can
    ended = nil, -- the error that it ended with
  }, Session)
  self.core = core.session({
    client = client,
    network = network.id,
    node = network.node,
    tags = network.tags,
    agent = network.agent,
    handshake_timeout = network.handshake_timeout,
    keepalive = network.keepalive,
  })
  hub.own(self.core, self)
  local ok, err = conn:attach(self.core, function(why)
    self:lost(why)
  end)
  if not ok then
    runtime.defer(self.lost, self, err)
  end
  return self
end

-- What `require` functions see of a peer.
local function describe(self)
  local peer = self.core:peer()
  local tags = {}
  for i, tag in ipairs(peer.tags) do
    tags[i], tags[tag] = tag, true
  end
  return { id = hex(peer.node), node = peer.node, tags = tags, agent = peer.agent, url = self.url }
end

local function read_announcements(self)
  local network = self.network
  local add, id = self.core:next_announcement()
  while add ~= nil do
    local known = self.offered[id]
    if add and not known then
      if self.offers == MOST_OFFERS then
        self:close(400, ("the peer announces more than %d streams"):format(MOST_OFFERS))
        return
      end
      self.offers = self.offers + 1
      self.offered[id] = true
      network:offered(self, id)
    elseif not add and known then
      self.offers = self.offers - 1
      self.offered[id] = nil
      network:withdrawn(self, id)
    elseif add then
      network:offered(self, id)
    end
    add, id = self.core:next_announcement()
  end
end

local function answer_requests(self)
  local request = self.core:next_request()
  while request do
    local producer, code, reason = self.network:decide(self, request)
    if producer then
      local id, why = self.core:accept(request.id, producer.core, producer.codec.name, producer.schema)
      if id then
        producer:note_subscriber(id, self.peer)
      elseif why ~= "closed" then
        self.core:reject(request.id, 10509, why)
      end
    else
      self.core:reject(request.id, code, reason)
    end
    request = self.core:next_request()
  end
end

local function use_room(self)
  local unsent, wanting = self.unsent, self.wanting
  self.unsent = {}
  for _, each in ipairs(unsent) do
    self:announce(each[1], each[2])
  end
  self.full = false
  while wanting.first <= wanting.last and not self.full do
    local call = wanting[wanting.first]
    wanting[wanting.first] = nil
    wanting.first = wanting.first + 1
    call[1](call[2], call[3])
  end
end

local function note_end(self)
  local code, name, reason = self.core:ended()
  if code and not self.ended then
    self.ended = errors.new(name, reason, { status = code, url = self.url })
    self.network:session_ended(self)
  end
end

function Session:on_event(bits)
  if has(bits, events.SESSION_READY) then
    self.peer = describe(self)
    self.network:session_ready(self)
  end
  if self.peer and has(bits, events.SESSION_ANNOUNCE) then
    read_announcements(self)
  end
  if has(bits, events.SESSION_REQUEST) then
    answer_requests(self)
  end
  if has(bits, events.SESSION_WRITABLE) then
    use_room(self)
  end
  if has(bits, events.SESSION_ENDED) then
    note_end(self)
  end
end

--- The connection is closed.
function Session:lost(why)
  note_end(self)
  if not self.ended then
    self.ended = why or errors.new("disconnected", "the connection was lost", { status = 103, url = self.url })
    self.network:session_ended(self)
  end
  if not self.gone then
    self.gone = true
    self.network:session_gone(self)
  end
end

--- Says goodbye; the connection closes when everything is written.
function Session:close(code, reason)
  self.core:close(code, reason)
end

--- Tells the peer what this node produces, or does no more.
-- @tparam boolean add
-- @tparam string ids 32 bytes each
function Session:announce(add, ids)
  if self.ended then
    return
  elseif #self.unsent > 0 then
    self.unsent[#self.unsent + 1] = { add, ids }
    if #self.unsent > MOST_UNSENT then
      self:close(10413, "the peer does not read what it is told")
    end
    return
  end
  local taken = self.core:announce(add, ids)
  if taken * 32 < #ids then
    self.unsent[1] = { add, ids:sub(taken * 32 + 1) }
  end
end

--- Subscribes a consumer; resumes where the source's last subscription ended.
-- @return inlet id; or nil and why not
function Session:subscribe(consumer, source)
  if self.ended then
    return nil, "closed"
  end
  if self.full then
    return nil, "again"
  end
  local resume = source.epoch and source.epoch > 0
  local wishes = consumer.opts
  local inlet, why = self.core:subscribe(consumer.core, {
    stream = consumer.id,
    codec = consumer.codec.name,
    schema = wishes.schema,
    criteria = wishes.criteria,
    token = wishes.token,
    epoch = resume and source.epoch or nil,
    sequence = resume and source.expected or nil,
  })
  self.full = why == "again"
  return inlet, why
end

--- Calls `fn(a, b)` when another stream may be opened; first come, first served.
function Session:want_room(fn, a, b)
  local last = self.wanting.last + 1
  self.wanting.last = last
  self.wanting[last] = { fn, a, b }
end

--- Round-trip time in seconds, or nil.
function Session:rtt()
  return not self.ended and self.core:rtt() or nil
end

function Session:__tostring()
  local state = self.ended and "ended" or self.peer and "ready" or "greeting"
  return ("weir.session(%s, %s)"):format(self.url, state)
end

--- Describes the node itself as a peer of its own consumers and producers.
function session.describe_local(network)
  local tags = {}
  for i, tag in ipairs(network.tags) do
    tags[i], tags[tag] = tag, true
  end
  return { id = hex(network.node), node = network.node, tags = tags, agent = network.agent, url = "local" }
end

return session
