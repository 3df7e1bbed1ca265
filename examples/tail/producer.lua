-- Publishes the lines of a file as records, and goes on as the file grows.
--
--     lua5.4 examples/tail/producer.lua /var/log/dpkg.log

package.path = (arg[0]:match("^.*/") or "./") .. "?.lua;" .. package.path

local arguments = require("arguments")
local cjson = require("cjson")
local console = require("console")
local dpkg = require("dpkg")
local follow = require("follow")
local program = require("program")
local weir = require("weir")

local LONGEST_LINE = 1024 * 1024 -- bytes; of a longer one the rest is left out

local options = arguments.read({
  name = "producer.lua",
  usage = "examples/tail/producer.lua [OPTIONS] [FILE]",
  about = [[
Publishes each line of FILE (default /var/log/dpkg.log) as a record of the stream "tail": first what
is there, then what is appended, also when the file is cut short or replaced. Nothing is sent while
no consumer is connected. Ctrl-C ends it.]],
  words = 1,
  options = {
    { name = "listen", value = "URL", kind = "text", many = true,
      help = "listen here (tcp://127.0.0.1:7411); may be repeated" },
    { name = "once", help = "end at the end of the file" },
    { name = "repeat", help = "begin again at the end of the file" },
    { name = "records", value = "N", kind = "count", help = "end after N records" },
    { name = "rate", value = "N", kind = "number", help = "send N records a second (as fast as it goes)" },
    { name = "lag", value = "POLICY", kind = "text", default = "disconnect",
      help = "disconnect consumers that do not keep up, or block: wait for them" },
    { name = "buffer", value = "N", kind = "count", default = 4096,
      help = "records that may wait for the slowest consumer (4096)" },
    { name = "json", help = "report as lines of JSON" },
  },
}, arg)

if options.lag ~= "disconnect" and options.lag ~= "block" then
  program.fail("producer.lua: --lag is disconnect or block, not " .. options.lag, 2)
end

local path = options[1] or "/var/log/dpkg.log"
local urls = #options.listen > 0 and options.listen or { "tcp://127.0.0.1:7411" }

local function record_of(line, length, id)
  local record = dpkg.parse(line)
  record.id = id
  if length > #line then
    record.length = length -- of the whole line
  end
  return record
end

-- Keeps to --rate. A producer that was held up does not send the arrears in one burst.
local function pacer(rate)
  local due
  return function()
    local now = weir.now()
    due = math.max(due and due + 1 / rate or now, now - 0.5)
    return due <= now or weir.sleep(due - now)
  end
end

-- Reads and sends until there is nothing more; nil and a text when that fails.
local function publish(file, stream)
  local pace = options.rate and options.rate > 0 and pacer(options.rate) or function() end
  local id, before = 0, 0
  while not options.records or id < options.records do
    local line, length = file:line()
    if line then
      id = id + 1
      local ok, err = stream:send(record_of(line, length, id)) -- waits: nobody there, or no room
      if not ok then
        return nil, tostring(err)
      end
      pace()
    elseif length then
      return nil, length
    elseif options["repeat"] and id > before then
      before = id
      file:rewind()
    else
      return true
    end
  end
  return true
end

local function report(stream, event)
  local stats = stream:stats()
  if options.json then
    console.line(cjson.encode({
      event = event,
      sent = stats.messages,
      queued = stats.queued,
      consumers = stats.consumers,
      cut_off = stats.evicted,
      uptime = stats.uptime,
    }))
  else
    local text = "sent %d | consumers %s | in the buffer %d | cut off for being slow %d"
    local consumers = stats.consumers > 0 and ("%d"):format(stats.consumers) or "none: waiting"
    text = text:format(stats.messages, consumers, stats.queued, stats.evicted)
    if event == "end" then
      console.finish()
      console.line(("sent %d | cut off for being slow %d"):format(stats.messages, stats.evicted))
    else
      console.progress(text)
    end
  end
end

local function main()
  local file, why = follow.open(path, {
    follow = not (options.once or options["repeat"]),
    longest = LONGEST_LINE,
  })
  if not file then
    return program.complain("producer.lua: " .. why)
  end
  local net, err = weir.network({ listen = urls })
  if not net then
    return program.complain("producer.lua: " .. tostring(err))
  end
  local stream = net:produce("tail", {
    codec = "msgpack", -- lines are bytes: JSON is for text
    lag = options.lag,
    buffer = { messages = options.buffer, bytes = "16 MiB" },
    max_message = "2 MiB",
  })
  if options.json then
    console.line(cjson.encode({ event = "listening", urls = net:addresses() }))
  else
    console.line(("reading %s, listening on %s"):format(path, table.concat(net:addresses(), " and ")))
  end

  local reporter = weir.spawn(function()
    repeat
      report(stream, "progress")
    until not weir.sleep(options.json and 0.05 or 0.2)
  end)
  local interrupted, ok, problem = program.interruptible(publish, file, stream)
  reporter:cancel()
  file:close()
  local drained, late = stream:close(interrupted and 1 or 10) -- until the consumers took everything
  report(stream, "end")
  net:close(1)
  if interrupted then
    return interrupted
  elseif not ok then
    return program.complain("producer.lua: " .. problem)
  elseif not drained then
    return program.complain("producer.lua: not everything was taken: " .. tostring(late))
  end
  return 0
end

os.exit(weir.run(main), true)
