--- `weir bench [URL]`: figures of this machine, within seconds.
-- @module weir.cli.bench
local arguments = require("weir.cli.arguments")
local cli = require("weir.cli")

local NAMES = { "channel", "json", "streams", "tcp", "broker", "request" }

local M = {
  summary = "measure what this machine does, within seconds",
  intro = [[
Quick figures to compare machines, settings and servers by. They are no claims: nothing else may run meanwhile, and
they differ by some percent each time.

  channel   values through a channel, from one task to another
  json      an object of seven fields encoded and decoded
  streams   100-byte messages of a producer to a consumer in this process
  tcp       the same through TCP, on the loopback
  broker    100-byte messages published, received and settled, in blocks of 64
  request   round trips of a request to the broker: the rate, and percentiles of the time

With URL the last two are measured on that broker, and only they; else on one in memory. The name weir-bench-... is
used there; a broker that keeps what is published keeps that.]],
  words = { { "url", "URL", "a broker, such as nats://127.0.0.1:4222", optional = true } },
  options = {
    { "only", "NAME", "only this one; may be repeated", many = true, choices = NAMES },
    { "seconds", "SECONDS", "how long each is measured: 0.5", read = arguments.seconds },
    { "json", nil, "print one JSON object for each, in lines" },
  },
  examples = { "weir bench", "weir bench nats://127.0.0.1:4222 --seconds 3", "weir bench --only tcp --json" },
}

local BLOCK = 64
local PAYLOAD = ("x"):rep(100)
-- Seconds that one step on a server may take.
local PATIENCE = 10

local weir

-- Calls step() for so long; it does `count` things. How many a second that were.
local function rate(seconds, count, step)
  local began, done = weir.now(), 0
  local now
  repeat
    step()
    done = done + count
    now = weir.now()
  until now - began >= seconds
  return done / (now - began)
end

local cases = {}

function cases.channel(seconds)
  local channel = weir.channel(64)
  local reader = weir.spawn(function()
    while channel:recv() do -- luacheck: ignore 542
    end
  end)
  local found = rate(seconds, 1000, function()
    for i = 1, 1000 do
      channel:send(i)
    end
  end)
  channel:close()
  reader:join()
  return { rate = found, unit = "values/s" }
end

function cases.json(seconds)
  local json = require("weir.codec").get("json")
  local value = { id = 1, name = "Ada", tags = { "a", "b" }, price = 2.5, ok = true, note = "none", at = 1700000000 }
  local found = rate(seconds, 100, function()
    for _ = 1, 100 do
      assert(json.decode(assert(json.encode(value))))
    end
  end)
  return { rate = found, unit = "values/s" }
end

-- Messages from a producer of one node to a consumer of another, or of the same.
local function stream(seconds, from, to)
  local name = "weir-bench"
  local producer = from:produce(name, { lag = "block" })
  local consumer = to:consume(name)
  assert(producer:when():online(PATIENCE))
  local stop
  local sender = weir.spawn(function()
    while not stop do
      for _ = 1, 100 do
        producer:send(PAYLOAD)
      end
    end
  end)
  local found = rate(seconds, 1000, function()
    for _ = 1, 1000 do
      assert(consumer:recv(PATIENCE))
    end
  end)
  stop = true
  consumer:close()
  sender:cancel("measured")
  pcall(sender.join, sender, PATIENCE)
  return { rate = found, unit = "messages/s" }
end

function cases.streams(seconds)
  local net = assert(weir.network())
  local result = stream(seconds, net, net)
  net:close(0)
  return result
end

function cases.tcp(seconds)
  local one = assert(weir.network({ listen = "tcp://127.0.0.1:0" }))
  local other = assert(weir.network({ peers = one:addresses()[1] }))
  local result = stream(seconds, one, other)
  other:close(0)
  one:close(0)
  return result
end

local function name_of()
  return "weir-bench-" .. require("weir.id").message()
end

-- What broker calls return, or an error of the one that failed.
local function must(value, err)
  if value == nil or value == false then
    error(err, 0)
  end
  return value
end

function cases.broker(seconds, broker)
  local name = name_of()
  local can = broker:capabilities()
  local subscription = must(broker:subscribe(must(broker:descriptor(name))))
  local publisher = must(broker:publisher())
  local found = rate(seconds, BLOCK, function()
    for _ = 1, BLOCK do
      must(publisher:publish(name, PAYLOAD))
    end
    for _ = 1, BLOCK do
      local message = must(subscription:next(PATIENCE))
      if can.ack then
        must(message:ack())
      end
    end
  end)
  subscription:close()
  return { rate = found, unit = "messages/s" }
end

local function percentile(sorted, percent)
  return sorted[math.max(1, math.ceil(#sorted * percent / 100))]
end

-- Answers what comes, until the subscription ends.
local function answer(subscription, publisher)
  while true do
    local message = subscription:next()
    if not message then
      return
    end
    publisher:publish(message.reply_to, message.payload)
    message:ack()
  end
end

function cases.request(seconds, broker)
  if not broker:capabilities().request then
    return nil
  end
  local name = name_of()
  local subscription = must(broker:subscribe(must(broker:descriptor(name))))
  local publisher = must(broker:publisher())
  local server = weir.spawn(answer, subscription, must(broker:publisher()))
  local times = {}
  local found = rate(seconds, 1, function()
    local began = weir.now()
    must(publisher:request(name, PAYLOAD, nil, PATIENCE))
    times[#times + 1] = weir.now() - began
  end)
  subscription:close()
  server:join(PATIENCE)
  table.sort(times)
  return {
    rate = found, unit = "requests/s",
    p50_us = percentile(times, 50) * 1e6, p99_us = percentile(times, 99) * 1e6,
  }
end

local ON_BROKER = { broker = true, request = true }

local function selected(options)
  local names = {}
  for _, name in ipairs(NAMES) do
    local on_broker = ON_BROKER[name]
    local wanted = options.only == nil and (on_broker or not options.url)
    for _, only in ipairs(options.only or {}) do
      wanted = wanted or only == name
    end
    if wanted then
      names[#names + 1] = name
    end
  end
  return names
end

-- A figure of three digits: 123, 12.3, 1.23, with k or M behind it.
local function short(number)
  local suffix = ""
  for _, each in ipairs({ "k", "M", "G" }) do
    if number >= 1000 then
      number, suffix = number / 1000, each
    end
  end
  local digits = number >= 99.95 and 0 or number >= 9.995 and 1 or 2
  return ("%." .. digits .. "f%s"):format(number, suffix)
end

local function print_result(console, options, name, result)
  if options.json then
    result.name = name
    console.out:write(require("weir.cli.json").encode(result), "\n")
  else
    local times = result.p50_us and (", half within %s us, 99%% within %s us"):format(short(result.p50_us),
      short(result.p99_us)) or ""
    console.out:write(("%-9s %7s %s%s\n"):format(name, short(result.rate), result.unit, times))
  end
  console.out:flush()
end

local function open(options)
  if not options.url then
    local broker = require("weir.broker")("memory:")
    broker:connect()
    return broker
  end
  return require("weir.cli.place").open({ where = options.url })
end

local function measure(options, console)
  local broker, err = open(options)
  if not broker then
    return nil, err
  end
  for _, name in ipairs(selected(options)) do
    local ok, result = pcall(cases[name], options.seconds or 0.5, broker)
    if not ok then
      broker:shutdown(1)
      return nil, ("%s: %s"):format(name, tostring(result))
    elseif result then
      print_result(console, options, name, result)
    elseif not options.json then
      console.out:write(("%-9s %7s the broker has none\n"):format(name, "-"))
    end
  end
  broker:shutdown(1)
  return cli.OK
end

function M.run(options, console)
  for _, name in ipairs(options.url and options.only or {}) do
    if not ON_BROKER[name] then
      return nil, cli.usage_error(("%s is not measured on a broker: leave URL out, or %s"):format(name, name))
    end
  end
  weir = require("weir")
  return weir.run(measure, options, console)
end

return M
