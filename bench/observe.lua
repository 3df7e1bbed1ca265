--- What it costs to be watched: an application with metrics beside one without, with spans that are sent to a collector
-- beside one without; a scrape of `/metrics` with 10, 100 and 1000 subscriptions beside as many bytes that were made
-- before; and a second of `/events` and of `weir top` beside a second of nobody.
--
-- Figures are CPU of the application's process. A message is published and handled, with two spans.

local support = dofile("bench/support.lua")
local weir = require("weir")

local MESSAGES, SCRAPES, SUBSCRIPTIONS = 20000, 20, { 10, 100, 1000 }
-- Seconds after which an application knows that nobody takes its events any more: the second write fails.
local LEAVING = 2.5

local http

local function get(url)
  local response = assert(http:request({ url = url }))
  local body = assert(response:body())
  assert(response.status == 200, url .. ": " .. response.status)
  return body
end

-- --- messages -------------------------------------------------------------------------------------

-- Microseconds of CPU for a message.
local function messages(...)
  local count = MESSAGES - MESSAGES % 256
  local result = support.spawn(support.lua("bench/observe/app.lua", "messages", (...), count, select(2, ...))):result()
  assert(result.dropped == 0, "spans were dropped")
  return result.cpu / count * 1e6
end

local function compare_messages(name, ours, theirs)
  local mine, others = support.alternate(function()
    return messages(table.unpack(ours))
  end, function()
    return messages(table.unpack(theirs))
  end)
  support.claim({
    name = "observe." .. name,
    weir = support.median(mine),
    baseline = support.median(others),
    unit = "us/message",
    cost = true,
  })
end

local function all_messages()
  compare_messages("metrics", { "metrics" }, { "none" })
  local collector = support.spawn(support.lua("bench/observe/collector.lua"), { timeout = 120 })
  local url = collector:fields().url
  compare_messages("spans_0.01", { "spans", url, 0.01 }, { "metrics" })
  compare_messages("spans_1", { "spans", url, 1 }, { "metrics" })
  get(url .. "/quit")
  collector:finish()
end

-- --- who looks ------------------------------------------------------------------------------------

-- Seconds of CPU that the application needs for something.
local function cpu_of(url, work)
  local before = tonumber(get(url .. "/cpu"))
  work()
  return tonumber(get(url .. "/cpu")) - before
end

-- Milliseconds of CPU to get a path once.
local function once(url, path)
  local cpu = cpu_of(url, function()
    for _ = 1, SCRAPES do
      get(url .. path)
    end
  end)
  return cpu / SCRAPES * 1e3
end

-- Milliseconds of CPU for a second, while `work(seconds)` goes on. What it returns is called afterwards.
local function second(url, work)
  local seconds, leave = math.max(support.seconds, 2), nil
  local cpu = cpu_of(url, function()
    leave = work(seconds)
  end)
  if leave then
    leave()
  end
  return cpu / seconds * 1e3
end

local function events(url)
  return function(seconds)
    local response = assert(http:request({ url = url .. "/events" }))
    local last = weir.now() + seconds
    while weir.now() < last do
      response:read(last - weir.now())
    end
    return function()
      response:close()
      weir.sleep(LEAVING)
    end
  end
end

local function top(url)
  return function(seconds)
    local child = support.spawn(support.lua("lua/bin/weir", "top", url, "--json"), { timeout = seconds })
    weir.sleep(seconds)
    pcall(child.finish, child) -- it is ended by its deadline
  end
end

local function compare_looks(name, ours, theirs, unit)
  local mine, others = support.alternate(ours, theirs)
  support.claim({
    name = "observe." .. name,
    weir = support.median(mine),
    baseline = support.median(others),
    unit = unit,
    cost = true,
  })
end

-- Bytes of a scrape with the fewest subscriptions, for each of them.
local each_bytes

local function all_looks(count)
  local app = support.spawn(support.lua("bench/observe/app.lua", "serve", count), { timeout = 120 })
  local url = app:fields().url
  local bytes = #get(url .. "/metrics")
  each_bytes = each_bytes or bytes / count
  get(url .. "/same")
  compare_looks(("scrape.%d"):format(count), function()
    return once(url, "/metrics")
  end, function()
    return once(url, "/same")
  end, "ms")
  support.claim({
    name = ("observe.scrape.%d.bytes"):format(count),
    weir = bytes,
    baseline = each_bytes * count,
    unit = "B",
    cost = true,
  })
  local function nobody()
    return second(url, function(seconds)
      weir.sleep(seconds)
    end)
  end
  compare_looks(("events.%d"):format(count), function()
    return second(url, events(url))
  end, nobody, "ms/s")
  compare_looks(("top.%d"):format(count), function()
    return second(url, top(url))
  end, nobody, "ms/s")
  get(url .. "/quit")
  app:finish()
end

weir.run(function()
  http = require("weir.runtime").http()
  all_messages()
  for _, count in ipairs(SUBSCRIPTIONS) do
    all_looks(count)
  end
  http:close()
end)
