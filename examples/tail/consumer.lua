-- Prints the records that a producer publishes.
--
--     lua5.4 examples/tail/consumer.lua --connect tcp://127.0.0.1:7411

package.path = (arg[0]:match("^.*/") or "./") .. "?.lua;" .. package.path

local arguments = require("arguments")
local cjson = require("cjson")
local console = require("console")
local dpkg = require("dpkg")
local program = require("program")
local weir = require("weir")

local options = arguments.read({
  name = "consumer.lua",
  usage = "examples/tail/consumer.lua [OPTIONS]",
  about = [[
Prints the records of the stream "tail" from now on, until the producer ends it. When the connection
is lost, or this consumer is cut off for being too slow, it comes back by itself and says how many
records it missed. Ctrl-C ends it.]],
  options = {
    { name = "connect", value = "URL", kind = "text", default = "tcp://127.0.0.1:7411",
      help = "where the producer listens (tcp://127.0.0.1:7411)" },
    { name = "name", value = "NAME", kind = "text", default = "consumer", help = "how it calls itself" },
    { name = "delay", value = "SECONDS", kind = "number", default = 0, help = "time that each record takes it (0)" },
    { name = "buffer", value = "N", kind = "count", default = 8192, help = "records that may wait for it here (8192)" },
    { name = "wait", value = "SECONDS", kind = "number", help = "give up when there is no producer for so long" },
    { name = "quiet", help = "do not print the records" },
    { name = "json", help = "report as lines of JSON, and do not print the records" },
  },
}, arg)

-- What came, beside what weir counts.
local seen = { first = nil, last = nil, missing = 0, disordered = 0, undecodable = 0 }

local function note(id)
  seen.first = seen.first or id
  if seen.last and id <= seen.last then
    seen.disordered = seen.disordered + 1
  elseif seen.last then
    seen.missing = seen.missing + id - seen.last - 1
  end
  seen.last = id
end

-- Whoever listens at that address may send anything.
local function is_record(value)
  return type(value) == "table" and math.type(value.id) == "integer" and dpkg.is_record(value)
end

local function numbers(consumer)
  local stats = consumer:stats()
  return { received = stats.messages, dropped = stats.dropped, uptime = stats.uptime, queued = stats.queued }
end

local function report(consumer, event)
  local now = numbers(consumer)
  if options.json then
    now.event, now.first, now.last = event, seen.first, seen.last
    now.missing, now.disordered, now.undecodable = seen.missing, seen.disordered, seen.undecodable
    console.line(cjson.encode(now))
  elseif event == "end" then
    console.finish()
    console.table({ console.heading, console.row(options.name, now) })
  elseif console.is_terminal then
    console.progress(("%s: %d received, %d dropped, %d wait"):format(
      options.name, now.received, now.dropped, now.queued))
  end
end

local function show(record)
  if not (options.quiet or options.json) then
    console.line(("%s %6d  %s"):format(options.name, record.id, console.printable(dpkg.format(record), 200)))
  end
end

-- Is busy with a record for --delay; timers count milliseconds, so shorter times add up first.
local busy_until = 0
local function work()
  local now = weir.now()
  busy_until = math.max(busy_until, now) + options.delay
  if busy_until - now >= 0.002 then
    weir.sleep(busy_until - now)
  end
end

-- Why there will be no more, or nil. `nil, text` is what is wrong.
local function ending(consumer)
  local reason
  for _, producer in ipairs(consumer:producers()) do
    local closed = producer.closed
    if producer.state ~= "stopped" or not closed or closed.status == 103 then
      return nil -- it is there, or its connection was lost: it may come back
    elseif closed.status == 204 then
      reason = "the producer ended the stream"
    elseif closed.status == 10413 then
      reason = "the producer went away while this consumer was cut off"
    else
      return nil, ("%s (%d): %s"):format(closed.code, closed.status, closed.message)
    end
  end
  return reason
end

-- Takes records until there are no more. Returns why; or nil and what is wrong.
local function take(net, consumer)
  local patience = options.wait and weir.now() + options.wait
  while true do
    local record, meta = consumer:recv(0.1)
    if record ~= nil and not is_record(record) then
      seen.undecodable = seen.undecodable + 1
      console.warn(("%s: message %d is no record"):format(options.name, meta.sequence))
    elseif record then
      note(record.id)
      show(record)
      work()
    elseif meta.code == "decode" then
      seen.undecodable = seen.undecodable + 1
      console.warn(("%s: %s"):format(options.name, meta))
    elseif meta.code ~= "timeout" then
      return nil, tostring(meta)
    else
      local reason, why = ending(consumer)
      if reason or why then
        return reason, why
      elseif consumer:stats().producers > 0 then
        patience = options.wait and weir.now() + options.wait
      elseif patience and weir.now() > patience then
        local peer = net:peers()[1]
        return nil, "no producer came: " .. tostring(peer.error or "nobody there produces this stream")
      end
    end
  end
end

local function main()
  local net, err = weir.network({ peers = options.connect, backoff = { initial = 0.1, max = 5 } })
  if not net then
    return program.complain("consumer.lua: " .. tostring(err))
  end
  local consumer = net:consume("tail", {
    codec = "msgpack",
    buffer = { messages = options.buffer, bytes = "4 MiB" },
    max_message = "2 MiB",
    online_when = 1,
  })
  local reporter = weir.spawn(function()
    if consumer:when():online() then
      repeat
        report(consumer, "progress")
      until not weir.sleep(options.json and 0.05 or 0.1)
    end
  end)
  local interrupted, reason, why = program.interruptible(take, net, consumer)
  reporter:cancel()
  report(consumer, "end")
  net:close(1)
  if interrupted then
    return interrupted
  elseif not reason then
    return program.complain(("consumer.lua: %s: %s"):format(options.name, why))
  elseif not options.json then
    console.line(options.name .. ": " .. reason)
  end
  return 0
end

os.exit(weir.run(main), true)
