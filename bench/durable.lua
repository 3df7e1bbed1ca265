--- The durable-stream client beside `@durable-streams/client`, the TypeScript one, on the same reference
-- server, which is a process of its own. Each measurement is a process and has a stream of its own, and
-- what the stream has in the end is compared with what it must have.
--
--     bench/durable.lua [KIND]     append, latency, read, long-poll, sse

local support = dofile("bench/support.lua")

local SERVER = "spec/conformance/durable/server.mjs"
local MiB = 1024 * 1024

local function succeeds(command)
  return (os.execute(command .. " >/dev/null 2>&1"))
end

local function skip(why)
  print("bench durable skipped: " .. why)
  os.exit(0)
end

-- The packages of a directory, from npm by its lock file where they are missing.
local function install(dir)
  local stamp = io.open(dir .. "/node_modules/.package-lock.json")
  if stamp then
    stamp:close()
  elseif not succeeds(("cd %s && npm ci --no-audit --no-fund </dev/null"):format(dir)) then
    skip("npm ci failed in " .. dir)
  end
end

-- --- the server -------------------------------------------------------------------------------

local Server = {}
Server.__index = Server

local function start_server()
  local fifo = os.tmpname()
  assert(os.execute(("rm -f %s && mkfifo %s"):format(fifo, fifo)))
  local pin = succeeds("taskset -c 1 true") and "taskset -c 0 " or ""
  -- It runs until its standard input ends: that is when this process does, at the latest.
  local input = assert(io.popen(("exec %snode %s >%s"):format(pin, SERVER, fifo), "w"))
  local output = assert(io.open(fifo))
  local line = output:read("l")
  output:close()
  os.remove(fifo)
  local url = line and line:match("^listening (http://%S+)")
  assert(url, "the reference server did not start")
  return setmetatable({ input = input, url = url, streams = 0 }, Server)
end

function Server:stop()
  self.input:close()
end

function Server:new_url()
  self.streams = self.streams + 1
  return ("%s/bench-%d"):format(self.url, self.streams)
end

-- --- measurements -----------------------------------------------------------------------------

local function reference(...)
  return support.spawn({ "node", "bench/durable/reference.mjs", ... }):result()
end

-- Appends, and looks whether the server has them.
local function appended(server, words, count, size)
  local url = server:new_url()
  words[#words + 1], words[#words + 2], words[#words + 3] = url, count, size
  local result = support.spawn(words, { cpu = 1 }):result()
  assert(reference("check", url, count, size).ok == 1, "the stream is not what was appended")
  return result
end

local function read(server, words, count)
  local url = server:new_url()
  local content = reference("fill", url, count)
  words[#words + 1], words[#words + 2] = url, count
  local result = support.spawn(words, { cpu = 1 }):result()
  assert(result.items == count and result.hash == content.hash, "other values were read than were written")
  result.raw = support.spawn({ "node", "bench/durable/reference.mjs", "raw", url }, { cpu = 1 }):result().seconds
  reference("delete", url)
  return result
end

local function ours(kind)
  return support.lua("bench/durable/weir.lua", kind)
end

local function theirs(kind)
  return { "node", "bench/durable/baseline.mjs", kind }
end

-- --- claims -----------------------------------------------------------------------------------

local function claim(name, weir, baseline, field, unit, goal, amount)
  local function figure(results)
    local median = support.median(results, field)
    return amount and amount / median or median
  end
  support.claim({
    name = "durable." .. name,
    weir = figure(weir),
    baseline = figure(baseline),
    unit = unit,
    goal = goal,
    cost = not amount,
  })
end

local function claim_costs(name, weir, baseline, cpu_goal)
  claim(name .. ".cpu", weir, baseline, "cpu", "s", cpu_goal)
  claim(name .. ".memory", weir, baseline, "memory", "B", 1)
end

local function appends(server, name, count, size, unit)
  local weir, baseline = support.alternate(function()
    return appended(server, ours("append"), count, size)
  end, function()
    return appended(server, theirs("append"), count, size)
  end)
  claim(name, weir, baseline, "seconds", unit, 1, unit == "B/s" and count * size or count)
  claim_costs(name, weir, baseline, 0.5)
end

local function latencies(server, name, kind, count)
  local weir, baseline = support.alternate(function()
    return appended(server, ours(kind), count, 100)
  end, function()
    return appended(server, theirs(kind), count, 100)
  end)
  claim(name .. ".p50", weir, baseline, "p50", "us", 1)
  claim(name .. ".p99", weir, baseline, "p99", "us", 1)
  claim_costs(name, weir, baseline, 0.5)
end

local function reads(server, count)
  -- Its fastest way, which has all of the stream in memory at once; and the one that is like ours.
  for _, way in ipairs({ { "read", "read-all" }, { "read.each", "read" } }) do
    local name, kind = way[1], way[2]
    local weir, baseline = support.alternate(function()
      return read(server, ours("read"), count)
    end, function()
      return read(server, theirs(kind), count)
    end)
    claim(name, weir, baseline, "seconds", "msg/s", 2, count)
    claim_costs(name, weir, baseline, 0.5)
    if kind == "read-all" then
      -- What no client can beat: the server's time, and nothing done with what it sends.
      local least = {}
      for i, result in ipairs(weir) do
        least[i] = { seconds = result.raw }
      end
      claim(name .. ".raw", least, baseline, "seconds", "msg/s", nil, count)
    end
  end
end

local kinds = {
  append = function(server)
    appends(server, "small_appends", 100000, 100, "msg/s")
    appends(server, "large_appends", 50, MiB, "B/s")
  end,
  latency = function(server)
    latencies(server, "append_latency", "latency", 2000)
  end,
  read = function(server)
    reads(server, 100000)
  end,
  ["long-poll"] = function(server)
    latencies(server, "long_poll", "long-poll", 500)
  end,
  sse = function(server)
    latencies(server, "sse", "sse", 500)
  end,
}

if not succeeds("node --version") or not succeeds("npm --version") then
  skip("node and npm are needed, for the reference server and the client it is measured beside")
end
install("spec/conformance/durable")
install("bench/durable")

local server = start_server()
for _, kind in ipairs(arg[1] and { arg[1] } or { "append", "latency", "read", "long-poll", "sse" }) do
  assert(kinds[kind], "no such kind of measurement")(server)
end
server:stop()
