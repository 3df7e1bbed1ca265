--- One measurement of weir's durable-stream client, in a process of its own.
--
--     weir.lua append|latency|read|long-poll|sse URL COUNT [SIZE]
--
-- Prints a line of fields: seconds of the clock and of the CPU for the work (not for the start of the
-- interpreter and a warm-up), what was measured, and the peak of the process's memory in bytes.

local support = dofile("bench/support.lua")
local durable = require("weir.durable")
local weir = require("weir")

local kind, url, count, size = arg[1], arg[2], tonumber(arg[3]), tonumber(arg[4] or 100)
local client = durable.client()

-- Message number i, of `size` bytes: what reference.mjs expects too.
local filler = ("x"):rep(size - 8)
local function message(i)
  return ("%08d"):format(i) .. filler
end

local function create(suffix, content_type)
  local stream = client:stream(url .. suffix, { content_type = content_type })
  assert(stream:create())
  return stream
end

-- What `work` takes; its own fields are added.
local function measure(work, ...)
  local cpu, start = support.cpu_time(), weir.now()
  local fields = work(...) or {}
  fields.seconds, fields.cpu = weir.now() - start, support.cpu_time() - cpu
  return fields
end

local function percentiles(times)
  return { p50 = support.percentile(times, 50), p99 = support.percentile(times, 99) }
end

local function produce(stream, n)
  local producer = stream:producer({ max_in_flight = 5 })
  for i = 1, n do
    assert(producer:append(message(i)))
  end
  assert(producer:flush(60))
end

local function append_each(stream, n)
  local times = {}
  for i = 1, n do
    local start = weir.now()
    assert(stream:append(message(i)))
    times[i] = (weir.now() - start) * 1e6
  end
  return percentiles(times)
end

-- Counts and hashes the values; the hash is that of reference.mjs.
local function read_items(stream)
  local n, hash = 0, 0
  for value in stream:read():items() do
    n = n + 1
    hash = (hash * 31 + value.id + #value.name) & 0x7fffffff
  end
  return { items = n, hash = hash }
end

-- Appends one message when the one before has been delivered and the reader waits again.
local function deliver(stream, n)
  local times = {}
  local reader = stream:read({ live = kind })
  local writer = weir.spawn(function()
    for i = 1, n do
      weir.sleep(0.002)
      times[i] = weir.now()
      assert(stream:append(message(i)))
      repeat
        weir.sleep(0.001)
      until times[i] < 0
    end
  end)
  local i = 0
  while i < n do
    local chunk = assert(reader:next(20))
    if chunk.data ~= "" then
      i = i + 1
      assert(chunk.data == message(i), "another message was delivered")
      -- Negative: delivered, and what it took.
      times[i] = -(weir.now() - times[i]) * 1e6
    end
  end
  writer:join()
  reader:close()
  for j = 1, n do
    times[j] = -times[j]
  end
  return percentiles(times)
end

local function run()
  if kind == "append" then
    produce(create("-warm-up"), math.max(2, count // 20))
    return measure(produce, create(""), count)
  elseif kind == "latency" then
    append_each(create("-warm-up"), 200)
    return measure(append_each, create(""), count)
  elseif kind == "read" then
    read_items(client:stream(url .. "-warm-up"))
    return measure(read_items, client:stream(url))
  end
  deliver(create("-warm-up", "text/plain"), 50)
  return measure(deliver, create("", "text/plain"), count)
end

weir.run(function()
  local fields = run()
  local status = assert(io.open("/proc/self/status"))
  fields.memory = tonumber(status:read("a"):match("VmHWM:%s*(%d+) kB")) * 1024
  status:close()
  local words = {}
  for name, value in pairs(fields) do
    words[#words + 1] = name .. "=" .. value
  end
  print(table.concat(words, " "))
  client:close()
end)
