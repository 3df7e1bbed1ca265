--- Nodes: `weir.network`.
--
-- A node listens, connects to peers, tells those connected what it produces, and brings its own
-- and the peers' producers and consumers together.
-- @module weir.streams.network

local core = require("weir.core")
local consumers = require("weir.streams.consumer")
local errors = require("weir.errors")
local options = require("weir.streams.options")
local producers = require("weir.streams.producer")
local runtime = require("weir.runtime")
local sessions = require("weir.streams.session")
local tasks = require("weir.task")
local url = require("weir.runtime.url")
local version = require("weir.version")
local waitlist = require("weir.runtime.waitlist")

local Network = { __name = "weir.network" }
Network.__index = Network

local network = {}

local OPTIONS = {
  name = "string",
  listen = { "table", "string" },
  peers = { "table", "string" },
  tags = "table",
  insecure = "boolean",
  backoff = "table",
  connect_timeout = "number",
  handshake_timeout = "number",
  keepalive = "number",
  max_sessions = "number",
}

--- The names of options, and the types of their values.
network.OPTIONS = OPTIONS

local CLOSE_TIMEOUT = 10 -- seconds
local STRICT_TIMEOUT = 5 -- seconds that network:consumer waits for a producer

local memory = {} -- name -> the node that listens on mem://name

-- --- peers --------------------------------------------------------------------------------------

local Peer = {}
Peer.__index = Peer

local function connect_memory(self, target)
  local other = memory[target.name]
  if not other or other.closed then
    return nil,
      errors.new("refused", ("cannot connect to %s: no node of this process listens there"):format(target.text), {
        url = target.text,
      })
  elseif other == self.network then
    return nil, errors.new("refused", ("cannot connect to %s: that is this node itself"):format(target.text))
  end
  local mine, theirs = runtime.pair(target.text)
  other:accept(theirs)
  return mine
end

-- Connects once. The task ends with the session made or the next attempt planned.
local function attempt(self)
  self.task = nil
  if self.network.closed or self.closed then
    return
  end
  self.state = "connecting"
  local conn, err
  if self.target.scheme == "mem" then
    conn, err = connect_memory(self, self.target)
  else
    conn, err = runtime.dial(self.target.text, { timeout = self.network.connect_timeout })
  end
  if self.network.closed or self.closed then
    if conn then
      conn:close()
    end
  elseif conn then
    self.state = "greeting"
    self.session = sessions.open(self.network, conn, true, self)
    self.network.sessions[self.session] = true
  else
    self:failed(err)
  end
end

function Peer:connect()
  self.timer = nil
  self.task = tasks.spawn(attempt, self)
end

--- There is no connection (any more): tries again later.
function Peer:failed(err)
  self.session = nil
  self.error = err
  if self.network.closed or self.closed then
    self.state = "closed"
    return
  end
  local delay = self.backoff:next(runtime.now())
  if not delay then
    self.state = "given up"
    self.network.changed:wake_all()
    return
  end
  self.state = "pausing"
  self.timer = runtime.timer(runtime.now() + delay, function()
    self:connect()
  end)
  self.network.changed:wake_all()
end

function Peer:ready()
  self.state = "connected"
  self.error = nil
  self.backoff:reset()
end

function Peer:close()
  self.closed = true
  if self.timer then
    self.timer:cancel()
    self.timer = nil
  end
  if self.task then
    self.task:cancel("the node was closed")
  end
end

-- --- making a node ------------------------------------------------------------------------------

local function list_of(value, what)
  if type(value) == "string" then
    value = { value }
  end
  for i, each in ipairs(value or {}) do
    if type(each) ~= "string" then
      error(("weir.network: %s[%d] must be a URL, not a %s"):format(what, i, type(each)), 3)
    end
  end
  return value or {}
end

local function checked_tags(tags)
  local list = {}
  for i, tag in ipairs(tags or {}) do
    if type(tag) ~= "string" or #tag == 0 or #tag > 64 then
      error(("weir.network: tags[%d] must be a string of 1 to 64 bytes"):format(i), 3)
    end
    list[i] = tag
  end
  if #list > 64 then
    error("weir.network: a node has at most 64 tags", 3)
  end
  return list
end

local function listen_memory(self, target)
  if memory[target.name] and not memory[target.name].closed then
    return nil,
      errors.new("in_use", ("cannot listen on %s: another node of this process does"):format(target.text), {
        url = target.text,
      })
  end
  memory[target.name] = self
  return {
    url = target.text,
    close = function()
      if memory[target.name] == self then
        memory[target.name] = nil
      end
    end,
  }
end

local function listen(self, text)
  local target, err = url.parse(text)
  if not target then
    return nil, err
  elseif target.scheme == "mem" then
    return listen_memory(self, target)
  end
  return runtime.listen(text, { insecure = self.insecure }, function(conn)
    self:accept(conn)
  end)
end

--- Makes a node.
--
--     local net = assert(weir.network{ listen = "tcp://127.0.0.1:7000", peers = { "unix:///run/a.sock" } })
--
-- @tparam[opt] table opts
--   `name`: of the network, "weir" unless given: nodes of different networks do not talk;
--   `listen`, `peers`: URLs (`tcp://host:port`, `unix://path`, `mem://name`), one or a list;
--   `tags`: strings that peers see in their `require`;
--   `insecure`: true to listen on TCP addresses that other machines can reach;
--   `backoff`: between attempts to reach a peer: `initial` (0.5 s), `factor` (1.5), `max` (60 s),
--   `jitter` (0.5);
--   `connect_timeout` (10 s), `handshake_timeout` (10 s), `keepalive` (30 s of silence before a peer
--   is asked whether it lives), `max_sessions` (1024 connections that others opened)
-- @treturn table the node; or nil and an error: "bad_url", "insecure", "in_use", "denied", ...
function network.open(opts)
  opts = errors.options("weir.network", opts, OPTIONS, 2)
  local ok, why = pcall(function()
    options.seconds("weir.network", "connect_timeout", opts.connect_timeout)
    options.seconds("weir.network", "handshake_timeout", opts.handshake_timeout)
    options.seconds("weir.network", "keepalive", opts.keepalive)
    options.count("weir.network", "max_sessions", opts.max_sessions, 1)
    options.backoff("weir.network", opts.backoff)
  end)
  if not ok then
    error(why, 2)
  end
  local self = setmetatable({
    name = opts.name or "weir",
    id = core.stream_id(opts.name or "weir"),
    node = runtime.random(32),
    tags = checked_tags(opts.tags),
    agent = "weir/" .. version,
    insecure = opts.insecure,
    backoff = opts.backoff or {},
    connect_timeout = opts.connect_timeout or 10,
    handshake_timeout = opts.handshake_timeout,
    keepalive = opts.keepalive,
    max_sessions = opts.max_sessions or 1024,
    listeners = {},
    dialers = {},
    sessions = {}, -- session -> true
    inbound = 0,
    refused = 0, -- connections of others that did not come to a session
    last_refusal = nil, -- why the last of them did not
    born = runtime.now(),
    by_node = {}, -- node id -> { session = true, ... }: those that are ready
    producers = {}, -- stream id -> producer
    consumers = {}, -- stream id -> { consumer = true, ... }
    changed = waitlist.new(), -- those who wait for peers
    closed = false,
  }, Network)
  self.as_peer = sessions.describe_local(self)
  local urls, peers = list_of(opts.listen, "listen"), list_of(opts.peers, "peers")
  for _, text in ipairs(peers) do
    local target, err = url.parse(text)
    if not target then
      return nil, err
    elseif target.port == 0 then
      local message = "bad URL %q: port 0 is for listening only; name the port that the peer listens on"
      return nil, errors.new("bad_url", message:format(text), { url = text })
    end
    self.dialers[#self.dialers + 1] = setmetatable({
      network = self,
      target = target,
      state = "new",
      backoff = core.backoff(self.backoff),
    }, Peer)
  end
  for _, text in ipairs(urls) do
    local listener, err = listen(self, text)
    if not listener then
      self:close(0)
      return nil, err
    end
    self.listeners[#self.listeners + 1] = listener
  end
  for _, peer in ipairs(self.dialers) do
    peer:connect()
  end
  return self
end

-- --- sessions -----------------------------------------------------------------------------------

--- A connection came.
function Network:accept(conn)
  if self.closed then
    conn:close()
    return
  elseif self.inbound >= self.max_sessions then
    local text = ("%d connections were opened by others already: raise max_sessions"):format(self.inbound)
    self:note_refusal(errors.new("limit", text, { url = conn:peer() or conn.url }))
    conn:close()
    return
  end
  self.inbound = self.inbound + 1
  self.sessions[sessions.open(self, conn, false)] = true
end

local function all_ids(self)
  local ids = {}
  for id, producer in pairs(self.producers) do
    if not producer.closing then
      ids[#ids + 1] = id
    end
  end
  return table.concat(ids)
end

function Network:session_ready(session)
  local node = session.peer.node
  self.by_node[node] = self.by_node[node] or {}
  self.by_node[node][session] = true
  if session.dialer then
    session.dialer:ready()
  end
  local ids = all_ids(self)
  if ids ~= "" then
    session:announce(true, ids)
  end
  self.changed:wake_all()
end

function Network:note_refusal(err)
  self.refused, self.last_refusal = self.refused + 1, err
end

function Network:session_ended(session)
  if not session.peer then
    if not session.client and not self.closed then
      self:note_refusal(session.ended)
    end
    return
  end
  local node = session.peer.node
  local others = self.by_node[node]
  if others then
    others[session] = nil
  end
  local other = others and next(others)
  if not other then
    self.by_node[node] = nil
  end
  for id in pairs(session.offered) do
    for consumer in pairs(self.consumers[id] or {}) do
      local source = consumer.sources[node]
      if source and source.session == session then
        consumer:withdrawn(node)
      end
    end
  end
  self.changed:wake_all()
end

--- Nothing of a session is left: its connection is closed.
function Network:session_gone(session)
  self.sessions[session] = nil
  if not session.client then
    self.inbound = self.inbound - 1
  end
  -- Another connection to the same node may take over.
  local others = session.peer and self.by_node[session.peer.node]
  for other in pairs(others or {}) do
    for id in pairs(other.offered) do
      self:offered(other, id)
    end
  end
  if session.dialer and session.dialer.session == session then
    session.dialer:failed(session.ended)
  end
  if session.core then
    session.core:free()
    session.core = nil
  end
  self.changed:wake_all()
end

--- The peer of a session produces a stream.
function Network:offered(session, id)
  for consumer in pairs(self.consumers[id] or {}) do
    consumer:offered(session.peer.node, session.peer, { session = session })
  end
end

function Network:withdrawn(session, id)
  for consumer in pairs(self.consumers[id] or {}) do
    local source = consumer.sources[session.peer.node]
    if source and source.session == session then
      consumer:withdrawn(session.peer.node)
    end
  end
end

local function with(peer, more)
  local copy = {}
  for key, value in pairs(peer) do
    copy[key] = value
  end
  for key, value in pairs(more) do
    copy[key] = value
  end
  return copy
end

--- Answers a request to subscribe.
-- @return the producer; or nil, a close code and a text
function Network:decide(session, request)
  local producer = self.producers[request.stream]
  if request.network ~= self.id then
    return nil, 101, "the two nodes are in different networks"
  elseif not session.peer then
    return nil, 401, "say hello first"
  elseif not producer then
    return nil, 10404, "no such stream is produced here"
  end
  local peer = with(session.peer, { rtt = session:rtt(), token = request.token, criteria = request.criteria })
  local code, reason = producer:refuses(peer, request)
  if code then
    return nil, code, reason
  end
  return producer
end

-- --- streams ------------------------------------------------------------------------------------

local function check_name(what, name)
  if type(name) ~= "string" or #name == 0 or #name > 1024 then
    error(("%s: a stream has a name of 1 to 1024 bytes, or an id of 64 hex digits"):format(what), 3)
  end
  return core.stream_id(name)
end

local function check_open(self, what)
  if self.closed then
    error(("%s: the node was closed"):format(what), 3)
  end
end

-- Brings a local producer and a local consumer together, if both want it.
local function join(self, producer, consumer)
  consumer:offered(self.node, self.as_peer, { producer = producer })
  consumer:take_changes()
  producer:update_online()
end

--- What a producer's `require` sees of a consumer of this node.
-- @tparam table opts of the consumer
function Network:as_subscriber(opts)
  return with(self.as_peer, { token = opts.token, criteria = opts.criteria })
end

--- A producer that turned consumers away has room again: tells all who may wait for that.
function Network:offer_again(producer)
  for consumer in pairs(self.consumers[producer.id] or {}) do
    join(self, producer, consumer)
  end
  for session in pairs(self.sessions) do
    if session.peer then
      session:announce(true, producer.id)
    end
  end
end

local function new_producer(self, name, id, opts, level)
  local ok, producer = pcall(producers.new, self, name, id, opts)
  if not ok then
    error(producer, level + 1)
  end
  self.producers[id] = producer
  for consumer in pairs(self.consumers[id] or {}) do
    join(self, producer, consumer)
  end
  for session in pairs(self.sessions) do
    if session.peer then
      session:announce(true, id)
    end
  end
  return producer
end

--- The producer of a stream on this node: the one that there is, or a new one.
-- @tparam string name any string, or 64 hex digits for an id
-- @tparam[opt] table opts (of a new one)
--   `codec`: "raw" (strings, the default), "json", "msgpack", "cbor", or a table with `encode` and `decode`;
--   `schema`: a text; a consumer that names another one is refused;
--   `require`: function of the consumer's peer ({ id, tags, url, rtt, token, criteria }) that says
--   whether it may subscribe;
--   `max_consumers`; `online_when`: as many consumers as make it online (1);
--   `buffer`: { messages = 4096, bytes = "4 MiB" }; `max_message` ("1 MiB");
--   `lag`: "disconnect" (a consumer that holds up the full buffer for `lag_grace` seconds, 0.1, and
--   takes nothing or makes one wait that keeps up, is closed with "too_slow", 10413) or "block"
--   (`send` waits for it)
-- @treturn table producer
function Network:produce(name, opts)
  local id = check_name("produce", name)
  check_open(self, "produce")
  return self.producers[id] or new_producer(self, name, id, opts, 2)
end

--- A new producer of a stream; an error when there is one on this node.
-- @tparam string name
-- @tparam[opt] table opts as of `produce`
-- @treturn table producer; or nil and an error "already_exists" with the other in `err.producer`
function Network:producer(name, opts)
  local id = check_name("producer", name)
  check_open(self, "producer")
  local other = self.producers[id]
  if other then
    return nil,
      errors.new("already_exists", ("'%s' is produced on this node already"):format(name), {
        stream = name,
        producer = other,
      })
  end
  return (new_producer(self, name, id, opts, 2)) -- no tail call: levels count frames
end

local function new_consumer(self, name, id, opts, level)
  local ok, consumer = pcall(consumers.new, self, name, id, opts)
  if not ok then
    error(consumer, level + 1)
  end
  self.consumers[id] = self.consumers[id] or {}
  self.consumers[id][consumer] = true
  local producer = self.producers[id]
  if producer and not producer.closing then
    join(self, producer, consumer)
  end
  for session in pairs(self.sessions) do
    if session.peer and session.offered[id] then
      consumer:offered(session.peer.node, session.peer, { session = session })
    end
  end
  return consumer
end

--- A new consumer of a stream. It takes from every producer of the stream, on this node and on those
-- connected, now and later.
-- @tparam string name any string, or 64 hex digits for an id
-- @tparam[opt] table opts
--   `codec`, `schema`: as of the producer;
--   `require`: function of the producer's peer ({ id, tags, url }) that says whether to subscribe;
--   `criteria`, `token`: texts that the producer's `require` sees;
--   `buffer`: { messages = 8192, bytes = "1 MiB" }, for each producer; `max_message` ("1 MiB");
--   `backoff`: between attempts after a refusal or loss: `initial` (0.5 s), `factor` (1.5), `max`
--   (60 s), `jitter` (0.5);
--   `online_when`: as many producers as make it online (0)
-- @treturn table consumer
function Network:consume(name, opts)
  local id = check_name("consume", name)
  check_open(self, "consume")
  return (new_consumer(self, name, id, opts, 2))
end

--- A new consumer that has a producer: waits until a subscription is open, or says why there is none.
-- @tparam string name
-- @tparam[opt] table opts as of `consume`
-- @tparam[opt=5] number timeout seconds
-- @treturn table consumer; or nil and an error: "not_found" (10404), "not_allowed" (10403),
--   "no_capacity" (10509), "wrong_codec" (10415), ...
function Network:consumer(name, opts, timeout)
  local id = check_name("consumer", name)
  check_open(self, "consumer")
  local deadline = runtime.deadline(timeout or STRICT_TIMEOUT, 2)
  local consumer = new_consumer(self, name, id, opts, 2)
  local ok, err = consumer:wait_open(deadline)
  if not ok then
    consumer:close()
    return nil, err
  end
  return consumer
end

function Network:withdraw(producer)
  for session in pairs(self.sessions) do
    if session.peer then
      session:announce(false, producer.id)
    end
  end
end

function Network:forget_producer(producer)
  if self.producers[producer.id] == producer then
    self.producers[producer.id] = nil
  end
end

function Network:forget_consumer(consumer)
  local others = self.consumers[consumer.id]
  if others then
    others[consumer] = nil
    if next(others) == nil then
      self.consumers[consumer.id] = nil
    end
  end
end

-- --- looking ------------------------------------------------------------------------------------

--- The addresses that the node listens on, with the real ports.
-- @treturn table list of URLs
function Network:addresses()
  local list = {}
  for i, listener in ipairs(self.listeners) do
    list[i] = listener.url
  end
  return list
end

--- The peers: those it connects to, and those that are connected.
-- @treturn table list of { url =, state = "connected" | "connecting" | "pausing" | ..., id =, tags =,
--   rtt =, error = }
function Network:peers()
  local list = {}
  for _, dialer in ipairs(self.dialers) do
    local peer = dialer.session and dialer.session.peer or {}
    list[#list + 1] = {
      url = dialer.target.text,
      state = dialer.state,
      id = peer.id,
      tags = peer.tags,
      rtt = peer.id and dialer.session:rtt() or nil,
      error = dialer.error,
    }
  end
  for session in pairs(self.sessions) do
    if not session.client and session.peer then
      local peer = session.peer
      list[#list + 1] = { url = peer.url, state = "connected", id = peer.id, tags = peer.tags, rtt = session:rtt() }
    end
  end
  return list
end

local function count(set)
  local n = 0
  for _ in pairs(set) do
    n = n + 1
  end
  return n
end

--- Counters.
-- @treturn table `connected` (nodes), `sessions` (connections, also such as greet or say goodbye),
--   `inbound` (those of them that others opened), `producers`, `consumers`, `refused` (connections of
--   others that did not come to a session: not weir, another network or version, silent, ...),
--   `last_refusal` (the error of the last of them), `uptime` (seconds)
function Network:stats()
  local consuming = 0
  for _, others in pairs(self.consumers) do
    consuming = consuming + count(others)
  end
  return {
    connected = count(self.by_node),
    sessions = count(self.sessions),
    inbound = self.inbound,
    producers = count(self.producers),
    consumers = consuming,
    refused = self.refused,
    last_refusal = self.last_refusal,
    uptime = runtime.now() - self.born,
  }
end

-- How many nodes are connected, and the first error of a peer that is not.
local function count_connected(self)
  local err
  for _, dialer in ipairs(self.dialers) do
    err = err or dialer.error
  end
  return count(self.by_node), err
end

-- Whether nobody can come any more: no listener, and every peer was given up.
local function is_hopeless(self)
  for _, dialer in ipairs(self.dialers) do
    if dialer.state ~= "given up" then
      return false
    end
  end
  return #self.listeners == 0
end

--- Waits until nodes are connected.
-- @tparam[opt=1] number wanted how many
-- @tparam[opt] number timeout seconds
-- @treturn boolean true; or nil and an error: why a peer cannot be reached, "timeout", "no_peers"
function Network:wait_connected(wanted, timeout)
  local deadline = runtime.deadline(timeout, 2)
  while true do
    local connected, reason = count_connected(self)
    if connected >= (wanted or 1) then
      return true
    elseif self.closed then
      return nil, errors.new("closed", "the node was closed")
    elseif is_hopeless(self) then
      local text = "nobody can connect: the node does not listen and there is no peer that it still tries to reach"
      return nil, reason or errors.new("no_peers", text)
    end
    local waiter = runtime.own_waiter()
    self.changed:add(waiter)
    local _, err = waiter:wait(deadline)
    self.changed:remove(waiter)
    if err then
      return nil, err.code == "timeout" and reason or err
    end
  end
end

local function keys(set)
  local list = {}
  for key in pairs(set) do
    list[#list + 1] = key
  end
  return list
end

local function values(map)
  local list = {}
  for _, value in pairs(map) do
    list[#list + 1] = value
  end
  return list
end

--- Closes the node: its producers drain, its consumers end, its peers are told.
-- @tparam[opt=10] number timeout seconds for producers to drain and goodbyes to be written; 0 does
--   not wait
-- @treturn boolean true; or nil and the error of a producer that could not drain
function Network:close(timeout)
  if self.closed then
    return true
  end
  local deadline = runtime.deadline(timeout or CLOSE_TIMEOUT, 2) or math.huge
  local result, err = true, nil
  for _, producer in ipairs(values(self.producers)) do
    local ok, why = producer:close(math.max(0, deadline - runtime.now()))
    if not ok then
      result, err = nil, why
    end
  end
  self.closed = true
  for _, others in ipairs(values(self.consumers)) do
    for _, consumer in ipairs(keys(others)) do
      consumer:close()
    end
  end
  for _, listener in ipairs(self.listeners) do
    listener:close()
  end
  for _, dialer in ipairs(self.dialers) do
    dialer:close()
  end
  for _, session in ipairs(keys(self.sessions)) do
    session:close(204, "the node was closed")
  end
  while next(self.sessions) and timeout ~= 0 do
    local waiter = runtime.own_waiter()
    self.changed:add(waiter)
    local _, failed = waiter:wait(deadline)
    self.changed:remove(waiter)
    if failed then
      break
    end
  end
  for _, session in ipairs(keys(self.sessions)) do
    session.conn:close()
  end
  self.changed:wake_all()
  return result, err
end

function Network:__tostring()
  return ("weir.network(%s, %s)"):format(self.name, self.closed and "closed" or self.as_peer.id:sub(1, 8))
end

function Network:__close(err)
  self:close(err ~= nil and 0 or nil)
end

return network
