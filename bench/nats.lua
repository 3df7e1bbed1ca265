--- The NATS broker beside a C program on libnats, with the same server, messages and counts: core publishing and
-- consuming, and the same of JetStream (stored in memory), with each message confirmed and acknowledged. The server
-- and what feeds a consumer take part of the two processors that this is measured on, for both sides alike.
--
--     bench/nats.lua [KIND]     publish, consume, js_publish, js_consume

package.path = "./?.lua;" .. package.path

local servers = require("spec.lua.nats_server")
local support = dofile("bench/support.lua")
local weir = require("weir")

local SIZE = 128
local CORE, STORED = math.floor(400000 * support.seconds), math.floor(50000 * support.seconds)

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

-- What one side does, for each kind: messages in a second.
local kinds = {}

function kinds.publish(side)
  local result = support.spawn(side("publish", server.url, "bench", CORE, SIZE)):result()
  return result.messages / result.seconds
end

function kinds.consume(side)
  local consumer = support.spawn(side("consume", server.url, "bench", CORE))
  assert(consumer:fields().ready)
  support.spawn(client("publish", server.url, "bench", CORE, SIZE)):result()
  local result = consumer:result()
  return result.messages / result.seconds
end

function kinds.js_publish(side)
  local result = support.spawn(side("js_publish", server.url, new_stream(), STORED, SIZE)):result()
  return result.messages / result.seconds
end

function kinds.js_consume(side)
  local name = new_stream()
  support.spawn(client("js_publish", server.url, name, STORED, SIZE)):result()
  local consumer = support.spawn(side("js_consume", server.url, name, name, STORED))
  assert(consumer:fields().ready)
  local result = consumer:result()
  return result.messages / result.seconds
end

weir.run(function()
  server = servers.start({ config = "max_pending: 1G" })
end)
for _, kind in ipairs({ "publish", "consume", "js_publish", "js_consume" }) do
  if not arg[1] or arg[1] == kind then
    local ours, theirs = support.alternate(function()
      return kinds[kind](lua)
    end, function()
      return kinds[kind](client)
    end)
    support.claim({
      name = "nats." .. kind,
      weir = support.median(ours),
      baseline = support.median(theirs),
      unit = "msg/s",
      goal = 0.9,
    })
  end
end
weir.run(function()
  server:stop()
end)
