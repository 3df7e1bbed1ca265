--- The same as bench/nats/client.c, with the NATS broker of weir.

local nats = require("weir.broker.nats")
local weir = require("weir")

local mode, url, a, b, c = ...

local function report(count, seconds)
  print(("messages=%d seconds=%.6f cpu=%.3f"):format(count, seconds, os.clock()))
end

local function ready(broker)
  assert(broker:publisher():flush(10))
  print("ready=1")
  io.stdout:flush()
end

local modes = {}

function modes.publish(broker)
  local subject, count, payload = a, tonumber(b), ("x"):rep(tonumber(c))
  local publisher = broker:publisher()
  local begin = weir.now()
  for _ = 1, count do
    assert(publisher:publish(subject, payload))
  end
  assert(publisher:flush(60))
  report(count, weir.now() - begin)
end

-- Batches of 1000: the same items again and again, as it is the same payload.
function modes.publish_batch(broker)
  local subject, count, payload = a, tonumber(b), ("x"):rep(tonumber(c))
  local publisher = broker:publisher()
  local items = {}
  for i = 1, 1000 do
    items[i] = { subject, payload }
  end
  local begin = weir.now()
  for _ = 1, count // 1000 do
    assert(publisher:publish_batch(items))
  end
  assert(publisher:flush(60))
  report(count // 1000 * 1000, weir.now() - begin)
end

-- The least that a Lua program can do for each message: one call of a function in C that publishes, and one look at
-- what it says. Nothing limits how long it keeps the loop from its turn, so it is none that an application could use.
function modes.publish_bound(broker)
  local subject, count, payload = a, tonumber(b), ("x"):rep(tonumber(c))
  local link, publish = broker.connection.link, require("weir.brokers.nats").publish
  local begin = weir.now()
  for _ = 1, count do
    while not publish(link, subject, payload) do
      weir.sleep(0) -- full: the loop writes
    end
  end
  assert(broker:publisher():flush(60))
  report(count, weir.now() - begin)
end

function modes.consume(broker)
  local subject, count = a, tonumber(b)
  local most = 2 ^ 31 - 1
  local subscription = assert(broker:subscribe(nats.subject(subject, { messages = most, bytes = most })))
  ready(broker)
  assert(subscription:next(30))
  local begin = weir.now()
  for _ = 2, count do
    assert(subscription:next(30))
  end
  report(count, weir.now() - begin)
end

-- The values of a message, made in Lua of what is in memory: a string, a table with a metatable.
function modes.values(_)
  local subject, count, size = a, tonumber(b), tonumber(c)
  local bytes, class, headers = ("x"):rep(2 * size), { __index = {} }, {}
  local begin, total = weir.now(), 0
  for i = 1, count do
    local at = i % size + 1
    local message = { payload = bytes:sub(at, at + size - 1), destination = subject, headers = headers }
    total = total + #setmetatable(message, class).payload
  end
  assert(total == count * size)
  report(count, weir.now() - begin)
end

function modes.consume_batch(broker)
  local subject, count = a, tonumber(b)
  local most = 2 ^ 31 - 1
  local subscription = assert(broker:subscribe(nats.subject(subject, { messages = most, bytes = most })))
  ready(broker)
  assert(subscription:next(30))
  local begin, got = weir.now(), 1
  while got < count do
    got = got + #assert(subscription:next_batch(256, 0, 30))
  end
  report(count, weir.now() - begin)
end

function modes.js_publish_sync(broker)
  local subject, count, payload = a, tonumber(b), ("x"):rep(tonumber(c))
  local publisher = broker:publisher({ confirm = true, timeout = 60 })
  local begin = weir.now()
  for _ = 1, count do
    assert(publisher:publish(subject, payload))
  end
  report(count, weir.now() - begin)
end

function modes.js_publish(broker)
  local subject, count, payload = a, tonumber(b), ("x"):rep(tonumber(c))
  local publisher = broker:publisher({ confirm = true, timeout = 60 })
  local items = {}
  for i = 1, count do
    items[i] = { subject, payload }
  end
  local begin = weir.now()
  assert(publisher:publish_batch(items))
  report(count, weir.now() - begin)
end

function modes.js_consume(broker)
  local stream, subject, count = a, b, tonumber(c)
  local descriptor = assert(nats.jetstream({ name = subject, stream = stream, durable = "c", batch = 512 }))
  local subscription = assert(broker:subscribe(descriptor))
  ready(broker)
  assert(subscription:next(30)):ack()
  local begin = weir.now()
  for _ = 2, count do
    assert(subscription:next(30)):ack()
  end
  assert(broker:publisher():flush(60))
  report(count, weir.now() - begin)
end

weir.run(function()
  local broker = nats.new({ url = url })
  assert(broker:connect(10))
  modes[mode](broker)
  broker:shutdown(5)
end)
