-- One producer process and three consumer processes on this machine: what `make demo` runs.
--
--     lua5.4 examples/tail/demo.lua [FILE]

local here = arg[0]:match("^.*/") or "./"
package.path = here .. "?.lua;" .. package.path

local arguments = require("arguments")
local cjson = require("cjson")
local console = require("console")
local follow = require("follow")
local luv = require("luv")
local program = require("program")
local weir = require("weir")

local options = arguments.read({
  name = "demo.lua",
  usage = "examples/tail/demo.lua [OPTIONS] [FILE]",
  about = [[
Shows streams between processes: one publishes the lines of FILE (default /var/log/dpkg.log), three
consume them: a fast one, a slow one, and one that joins late. Takes about ten seconds. Exits with 0
only if each consumer got what it was promised.]],
  words = 1,
  options = {
    { name = "lag", value = "POLICY", kind = "text", default = "disconnect",
      help = "for the slow one: disconnect it (it alone loses records), or block: wait for it (disconnect)" },
    { name = "seconds", value = "N", kind = "count", default = 7, help = "how long to publish (7)" },
  },
}, arg)

if options.lag ~= "disconnect" and options.lag ~= "block" then
  program.fail("demo.lua: --lag is disconnect or block, not " .. options.lag, 2)
end

local LIMIT = options.seconds + 12 -- seconds after which something must be wrong
local LOOK = 8 * 1024 * 1024 -- bytes of the file that are looked at to plan the pace
local FEWEST, MOST = 1400, 20000 -- records
local MOST_BYTES = 16 * 1024 * 1024 -- of all records, if that makes not too few
local TOO_FEW = 20
local BUFFERS = { slow = 64, producer = 256 } -- records; small, so that there is something to see
-- The slow consumer takes one record in the time in which so many are meant to be sent.
local SLOWNESS = options.lag == "block" and 1.4 or 6

-- --- what to publish ----------------------------------------------------------------------------

-- Lines in the first part of the file, how many bytes those are, and whether that is all of it.
local function survey(path)
  local readable, why = follow.open(path, { longest = 1 })
  if not readable then
    return nil, why
  end
  readable:close()
  local file = assert(io.open(path, "rb"))
  local lines, bytes, last, chunk = 0, 0, "\n", nil
  while bytes < LOOK do
    chunk = file:read(65536)
    if not chunk then
      break
    end
    local _, count = chunk:gsub("\n", "")
    lines, bytes, last = lines + count, bytes + #chunk, chunk:sub(-1)
  end
  file:close()
  return { lines = lines + (last ~= "\n" and 1 or 0), bytes = bytes, whole = chunk == nil }
end

-- A log for machines that have none: a container without packages, another system.
local function write_sample()
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  for i = 1, 200 do
    local time = ("2026-01-01 12:%02d:%02d"):format(i // 60, i % 60)
    file:write(("%s status installed sample%d:all 1.%d-1\n"):format(time, i, i))
  end
  file:close()
  return path
end

-- The file, how many of its records to publish, and a sentence about that.
local function plan()
  local path = options[1] or "/var/log/dpkg.log"
  local found, why = survey(path)
  local said, sample
  if found and found.lines > 0 then
    said = ("%s has %d lines"):format(path, found.lines)
    if not found.whole then
      said = ("%s has more than %d lines"):format(path, found.lines)
    end
  elseif options[1] and not found then
    program.fail("demo.lua: " .. why)
  else
    said = (found and path .. " is empty" or why) .. ": made-up lines stand in"
    path = write_sample()
    sample = path
    found = survey(path)
  end
  local records = math.max(FEWEST, math.min(MOST, found.lines))
  records = math.max(TOO_FEW, math.min(records, MOST_BYTES // (found.bytes // found.lines + 1)))
  if records > found.lines then
    said = ("%s; they are repeated to make %d records"):format(said, records)
  elseif records < found.lines or not found.whole then
    said = ("%s; the first %d are published"):format(said, records)
  end
  return { path = path, sample = sample, records = records, rate = records / options.seconds, said = said }
end

-- --- processes ----------------------------------------------------------------------------------

local children = {}

-- Calls on_line with each line that comes through the pipe.
local function read_lines(pipe, on_line)
  local rest = ""
  pipe:read_start(function(_, chunk)
    if not chunk then
      pipe:close()
      return
    end
    rest = rest .. chunk
    for line in rest:gmatch("([^\n]*)\n") do
      on_line(line)
    end
    rest = rest:match("[^\n]*$")
  end)
end

-- Starts a program of this folder. What it reports comes through the channel `reports`, and is kept
-- in `child.now`; `child.exited` is a channel that gets its exit status.
local function start(name, file, args)
  local out, err = luv.new_pipe(false), luv.new_pipe(false)
  local child = { name = name, reports = weir.channel(1024), exited = weir.channel(1), now = {} }
  table.insert(args, 1, here .. file)
  table.insert(args, "--json")
  local handle, why
  handle, why = luv.spawn(arg[-1] or "lua5.4", { args = args, stdio = { nil, out, err } }, function(code, signal)
    handle:close()
    child.handle = nil
    child.status = signal > 0 and 128 + signal or code
    child.exited:try_send(child.status)
  end)
  if not handle then
    program.fail(("demo.lua: cannot start the %s: %s"):format(name, why))
  end
  child.handle = handle
  read_lines(out, function(line)
    local ok, report = pcall(cjson.decode, line)
    if ok then
      for key, value in pairs(report) do
        child.now[key] = value
      end
      child.reports:try_send(report)
    end
  end)
  read_lines(err, function(line)
    console.warn(line)
  end)
  table.insert(children, child)
  return child
end

-- Whatever happens, nobody is left behind.
local function end_children()
  for _, child in ipairs(children) do
    if child.handle then
      child.handle:kill("sigterm")
    end
  end
  for _, child in ipairs(children) do
    if child.handle and not child.exited:recv(3) and child.handle then
      child.handle:kill("sigkill")
      child.exited:recv(1)
    end
  end
end

-- Waits for a report of a child that `check` likes; nil when it ends before or takes too long.
local function await(child, check)
  local deadline = weir.now() + 10
  while weir.now() < deadline do
    local which, report = weir.select({ child.reports, child.exited, timeout = 10 })
    if which == 1 and report and check(report) then
      return report
    elseif which ~= 1 then
      return nil, ("the %s did not start"):format(child.name)
    end
  end
  return nil, ("the %s did not start in time"):format(child.name)
end

-- --- the show -----------------------------------------------------------------------------------

local function amount(child)
  return child and child.now.received or 0
end

local function progress(producer, consumers)
  -- Reports come now and then; what was received has been sent.
  local parts = { ("sent %d"):format(math.max(producer.now.sent or 0, amount(consumers.fast))) }
  for _, name in ipairs({ "fast", "slow", "late" }) do
    local child = consumers[name]
    local text = child and ("%d"):format(amount(child)) or "not there yet"
    if child and (child.now.dropped or 0) > 0 then
      text = ("%s, %d dropped"):format(text, child.now.dropped)
    end
    parts[#parts + 1] = ("%s %s"):format(name, text)
  end
  console.progress(table.concat(parts, " | "))
end

local function consumer(name, url, ...)
  local child = start(name .. " consumer", "consumer.lua", { "--name", name, "--connect", url, "--wait", "10", ... })
  local ok, why = await(child, function(report)
    return report.event == "progress"
  end)
  if not ok then
    return nil, why
  end
  return child
end

local function any_runs()
  for _, child in ipairs(children) do
    if child.handle then
      return true
    end
  end
  return false
end

local function introduce(plan_, tcp, unix, join_after)
  local policy = options.lag == "block" and "the producer waits for the slowest consumer"
    or "a consumer that the others would have to wait for is disconnected"
  console.line(("  producer  %.0f records a second on %s and %s"):format(plan_.rate, tcp, unix))
  console.line(("            policy %q: %s"):format(options.lag, policy))
  console.line("  fast      takes what comes (tcp)")
  local slow = "  slow      takes %.0f records a second at most (tcp); %d may wait there, %d at the producer"
  console.line(slow:format(plan_.rate / SLOWNESS, BUFFERS.slow, BUFFERS.producer))
  console.line(("  late      joins after %.1f s (unix socket)\n"):format(join_after))
end

-- Starts everything in turn, and waits for the end. True; or nil and what is wrong.
local function show(plan_, socket, consumers)
  local producer = start("producer", "producer.lua", {
    plan_.path, "--repeat", "--listen", "tcp://127.0.0.1:0", "--listen", "unix://" .. socket,
    "--records", ("%d"):format(plan_.records), "--rate", ("%.3f"):format(plan_.rate),
    "--lag", options.lag, "--buffer", ("%d"):format(BUFFERS.producer),
  })
  consumers.producer = producer
  local ready, why = await(producer, function(report)
    return report.event == "listening"
  end)
  if not ready then
    return nil, why
  end
  local tcp, unix = ready.urls[1], ready.urls[2]
  local join_after = options.seconds * 0.4
  introduce(plan_, tcp, unix, join_after)

  -- The producer sends nothing before somebody is there: so the fast one gets everything.
  consumers.fast, why = consumer("fast", tcp)
  if not consumers.fast then
    return nil, why
  end
  local began = weir.now()
  local delay = ("%.6f"):format(SLOWNESS / plan_.rate)
  consumers.slow, why = consumer("slow", tcp, "--buffer", ("%d"):format(BUFFERS.slow), "--delay", delay)
  if not consumers.slow then
    return nil, why
  end
  local deadline = began + LIMIT
  while not consumers.late or any_runs() do
    if not consumers.late and weir.now() >= began + join_after then
      consumers.late, why = consumer("late", unix)
      if not consumers.late then
        return nil, why
      end
    elseif weir.now() > deadline then
      return nil, ("it did not end within %d s"):format(LIMIT)
    end
    progress(producer, consumers)
    local ok = weir.sleep(0.05)
    if not ok then
      return nil, "interrupted"
    end
  end
  return true
end

-- --- what was promised --------------------------------------------------------------------------

-- Why a consumer did not get what it was promised, or nil. Every consumer: what it got is in order,
-- and every record that it did not get was counted as dropped. All but a slow one that may be
-- disconnected: nothing was dropped, up to the last record.
local function broken(name, now, sent)
  if now.event ~= "end" or not now.first then
    return "it received nothing"
  elseif now.disordered > 0 or now.undecodable > 0 then
    return ("%d records out of order, %d undecodable"):format(now.disordered, now.undecodable)
  elseif now.dropped ~= now.missing then
    return ("%d records are missing, and weir counted %d"):format(now.missing, now.dropped)
  elseif name == "slow" and options.lag == "disconnect" then
    return nil
  elseif now.dropped > 0 then
    return ("%d records were dropped"):format(now.dropped)
  elseif now.last ~= sent then
    return ("the last record was %d, not %d"):format(now.last, sent)
  elseif name == "fast" and now.received ~= sent then
    return ("it received %d records of %d"):format(now.received, sent)
  end
end

local function summary(consumers, plan_)
  local sent = consumers.producer.now.sent or 0
  local rows, problems = { console.heading }, {}
  for _, name in ipairs({ "fast", "slow", "late" }) do
    local now = consumers[name].now
    local problem = broken(name, now, sent)
    if not problem and consumers[name].status ~= 0 then
      problem = ("it ended with status %d"):format(consumers[name].status)
    end
    if problem then
      problems[#problems + 1] = ("the %s consumer: %s"):format(name, problem)
    end
    local remark = problem and "not as promised" or ("in order, from record %d to %d"):format(now.first, now.last)
    rows[#rows + 1] = console.row(name, now.uptime and now or { received = 0, dropped = 0, uptime = 0 }, remark)
  end
  console.line(("\n%d records sent:\n"):format(sent))
  console.table(rows)
  if sent ~= plan_.records then
    problems[#problems + 1] = ("the producer sent %d records of %d"):format(sent, plan_.records)
  end
  return problems
end

local function story(consumers)
  local fast, slow, late = consumers.fast.now, consumers.slow.now, consumers.late.now
  local cut = consumers.producer.now.cut_off or 0
  local text = {}
  local function say(format, ...)
    text[#text + 1] = format:format(...)
  end
  say("What you saw: one process published a file to three others, over TCP and a Unix socket.")
  say("The fast consumer got all %d records. The late one got all %d from the moment it came.", fast.received,
    late.received)
  if options.lag == "block" then
    say("The slow one got all %d, too: with the policy \"block\" the producer waited for it, and", slow.received)
    say("with it everybody. With the policy \"disconnect\" it alone would have lost records.")
  elseif cut > 0 then
    local often = cut == 1 and "once" or ("%d times"):format(cut)
    say("The slow one could not keep up: it was cut off %s (10413 too_slow), came back by itself,", often)
    say("and was told of the records that it missed: %d. Nobody else waited for it.", slow.dropped)
    if slow.last < consumers.producer.now.sent then
      say("(It was away when the stream ended: the last record that it got was %d.)", slow.last)
    end
    say("With --lag block the producer would have waited for it instead.")
  else
    say("The slow one kept up just so: nobody had to be cut off.")
  end
  return table.concat(text, "\n")
end

local function main()
  local plan_ = plan()
  console.line(("%s: %s."):format(console.bold("Streams between processes"), plan_.said))
  local socket = os.tmpname()
  os.remove(socket)
  socket = socket .. ".sock"
  local consumers = {}
  local interrupted, ok, why = program.interruptible(show, plan_, socket, consumers)
  console.finish()
  end_children()
  os.remove(socket)
  if plan_.sample then
    os.remove(plan_.sample)
  end
  if interrupted then
    console.line("interrupted")
    return interrupted
  elseif not ok then
    return program.complain("demo.lua: " .. why)
  end
  local problems = summary(consumers, plan_)
  if #problems > 0 then
    return program.complain("\ndemo.lua: not as promised:\n  " .. table.concat(problems, "\n  "))
  end
  console.line("\n" .. story(consumers))
  return 0
end

os.exit(weir.run(main), true)
