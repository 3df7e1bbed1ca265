--- The NATS broker beside a C program on libnats, with the same server, messages and counts: core publishing and
-- consuming, and the same of JetStream (stored in memory), with each message confirmed and acknowledged. The server
-- and what feeds a consumer take part of the two processors that this is measured on, for both sides alike.
--
--     bench/nats.lua [KIND]     publish, publish_batch, consume, consume_batch, js_publish, js_publish_sync, js_consume
--
-- `bound` rows are what Lua leaves possible: of publishing, a loop that calls the one function in C that publishes and
-- nothing else; of consuming, the C program's time for a message and that of making the same values in Lua.

package.path = "./?.lua;" .. package.path

local servers = require("spec.lua.nats_server")
local support = dofile("bench/support.lua")
local weir = require("weir")

local SIZE = 128
local CORE, STORED = math.floor(400000 * support.seconds), math.floor(50000 * support.seconds)
local ONE_BY_ONE = math.floor(5000 * support.seconds)

if not servers.available() then
  print("bench nats skipped: nats-server or libnats is not installed")
  os.exit(0)
end

local server
local streams = 0

local function new_stream()
  streams = streams + 1
  local name = "BENCH" .. streams
  weir.run(function()
    local broker = require("weir.broker.nats").new({ url = server.url })
    assert(broker:connect(10))
    if streams > 1 then
      assert(broker:stream({ name = "BENCH" .. (streams - 1) }):delete())
    end
    assert(broker:stream({ name = name, subjects = { name }, storage = "memory" }):create())
    broker:shutdown(5)
  end)
  return name
end

local function client(...)
  return support.program("nats_client", ...)
end

local function lua(...)
  return support.lua("bench/nats/weir.lua", ...)
end

local function rate(result)
  return result.messages / result.seconds
end

-- Where both sides are told apart by one name, the C program has no batches: it does one message after the other.
local plain = { publish_batch = "publish", publish_bound = "publish", consume_batch = "consume" }

local function mode_of(side, kind)
  return side == client and plain[kind] or kind
end

-- What one side does, for each kind: messages in a second.
local kinds = {}

function kinds.publish(side, kind)
  return rate(support.spawn(side(mode_of(side, kind), server.url, "bench", CORE, SIZE)):result())
end

function kinds.consume(side, kind)
  local consumer = support.spawn(side(mode_of(side, kind), server.url, "bench", CORE))
  assert(consumer:fields().ready)
  support.spawn(client("publish", server.url, "bench", CORE, SIZE)):result()
  return rate(consumer:result())
end

function kinds.js_publish(side)
  return rate(support.spawn(side("js_publish", server.url, new_stream(), STORED, SIZE)):result())
end

function kinds.js_publish_sync(side)
  return rate(support.spawn(side("js_publish_sync", server.url, new_stream(), ONE_BY_ONE, SIZE)):result())
end

function kinds.js_consume(side)
  local name = new_stream()
  support.spawn(client("js_publish", server.url, name, STORED, SIZE)):result()
  local consumer = support.spawn(side("js_consume", server.url, name, name, STORED))
  assert(consumer:fields().ready)
  return rate(consumer:result())
end

kinds.publish_batch, kinds.consume_batch = kinds.publish, kinds.consume

local order = { "publish", "publish_batch", "consume", "consume_batch", "js_publish", "js_publish_sync", "js_consume" }

local function claim(name, ours, theirs, goal)
  support.claim({ name = "nats." .. name, weir = ours, baseline = theirs, unit = "msg/s", goal = goal })
end

-- What Lua leaves possible of each kind, as a function of the baseline; measured in turn with it.
local bounds = {}

function bounds.publish()
  local limit = kinds.publish(lua, "publish_bound")
  return function()
    return limit
  end
end

function bounds.consume()
  local made = rate(support.spawn(lua("values", server.url, "bench", CORE, SIZE)):result())
  return function(baseline)
    return 1 / (1 / baseline + 1 / made)
  end
end

weir.run(function()
  server = servers.start({ config = "max_pending: 1G" })
end)
for _, kind in ipairs(order) do
  if not arg[1] or arg[1] == kind then
    local limits = {}
    local ours, theirs = support.alternate(function()
      limits[#limits + 1] = bounds[kind] and bounds[kind]()
      return kinds[kind](lua, kind)
    end, function()
      return kinds[kind](client, kind)
    end)
    local baseline = support.median(theirs)
    claim(kind, support.median(ours), baseline, 0.9)
    for i, limit in ipairs(limits) do
      limits[i] = limit(baseline)
    end
    if limits[1] then
      claim(kind .. ".bound", support.median(limits), baseline)
    end
  end
end
weir.run(function()
  server:stop()
end)
