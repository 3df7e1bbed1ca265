--- What the benchmarks share: child processes that report figures, rounds in turn with the
-- baseline, medians, and the line that states a claim.
--
--     local support = dofile("bench/support.lua")
--
-- A benchmark runs from the root of the tree (bench/run sees to that). Its children print lines of
-- `name=value` fields and end by themselves; `support.spawn` ends them at a deadline if they do not.
-- `WEIR_BENCH_ROUNDS` and `WEIR_BENCH_SECONDS` change how much is measured.

local support = {}

--- Rounds of each side, and seconds of one measurement.
support.rounds = tonumber(os.getenv("WEIR_BENCH_ROUNDS")) or 5
support.seconds = tonumber(os.getenv("WEIR_BENCH_SECONDS")) or 2

local function quote(word)
  return "'" .. tostring(word):gsub("'", "'\\''") .. "'"
end

local function succeeds(command)
  return (os.execute(command .. " >/dev/null 2>&1"))
end

-- Whether two processes can be pinned to CPUs of their own.
local can_pin = succeeds("taskset -c 0 true") and succeeds("taskset -c 1 true")

--- The fields of a line such as "messages=12 mode=block": numbers where they are ones.
function support.fields(line)
  local fields = {}
  for name, value in line:gmatch("([%w_]+)=(%S+)") do
    fields[name] = tonumber(value) or value
  end
  return fields
end

local Child = { __name = "bench.child" }
Child.__index = Child

--- Waits for the next line of the child's output and returns its fields; an error at its end.
function Child:fields()
  local line = self.output:read("l")
  if not line then
    self:finish()
    error(self.command .. " ended without the line that was expected", 2)
  end
  return support.fields(line)
end

--- Waits for the child to end; an error unless it ended well.
function Child:finish()
  self.output:read("a")
  local ok, how, status = self.output:close()
  if not ok then
    error(("%s failed: %s %d"):format(self.command, how, status), 2)
  end
end

--- The next line of the child's output, which must be its last.
function Child:result()
  local fields = self:fields()
  self:finish()
  return fields
end

--- Starts a process.
-- @tparam table words the program and its arguments
-- @tparam[opt] table options `cpu`: the one to run on, where that can be had; `timeout`: seconds after
-- which it is ended, 60 when left out
-- @return a child with the methods `fields`, `result` and `finish`
function support.spawn(words, options)
  options = options or {}
  local command = { "exec timeout -k 1 " .. (options.timeout or 60) }
  if options.cpu and can_pin then
    command[#command + 1] = "taskset -c " .. options.cpu
  end
  for _, word in ipairs(words) do
    command[#command + 1] = quote(word)
  end
  local line = table.concat(command, " ") .. " </dev/null"
  return setmetatable({ command = table.concat(words, " "), output = assert(io.popen(line, "r")) }, Child)
end

--- The words that run a Lua program with this interpreter and these arguments; `LUA_PATH` and
-- `LUA_CPATH` are inherited.
function support.lua(program, ...)
  local first = 0
  while arg[first - 1] do
    first = first - 1
  end
  return { arg[first], program, ... }
end

--- The words that run a C program of bench/.
function support.program(name, ...)
  local build = os.getenv("WEIR_BUILD") or "build/release"
  return { build .. "/bench/" .. name, ... }
end

--- One way over TCP loopback in C, receiver and sender on CPUs of their own: what baseline_tcp.c says
-- at its receiving end.
-- @tparam integer size bytes of a message
-- @treturn table messages, bytes, seconds, cpu, and the sender's `sender_cpu`
function support.baseline_tcp(size)
  local receiver = support.spawn(support.program("baseline_tcp", "receive"), { cpu = 1 })
  local port = receiver:fields().port
  local sender = support.spawn(support.program("baseline_tcp", "send", port, size, support.seconds), { cpu = 0 })
  local sent, received = sender:result(), receiver:result()
  assert(sent.messages == received.messages, "the baseline lost messages")
  received.sender_cpu = sent.cpu
  return received
end

--- The p-th percentile (0 to 100) of a list, which is sorted by this.
function support.percentile(list, p)
  assert(#list > 0, "a percentile of nothing")
  table.sort(list)
  return list[math.max(1, math.ceil(#list * p / 100))]
end

--- The median of a list of numbers, or of one field of a list of tables.
function support.median(list, field)
  local values = {}
  for i, each in ipairs(list) do
    values[i] = field and each[field] or each
  end
  table.sort(values)
  local middle = #values // 2
  assert(#values > 0, "a median of nothing")
  return #values % 2 == 1 and values[middle + 1] or (values[middle] + values[middle + 1]) / 2
end

--- Measures both sides `support.rounds` times, in turn, each round in the other order.
-- @tparam function weir returns a figure, or a table of them
-- @tparam function baseline the same
-- @treturn table what `weir` returned
-- @treturn table what `baseline` returned
function support.alternate(weir, baseline)
  local ours, theirs = {}, {}
  for round = 1, support.rounds do
    if round % 2 == 0 then
      ours[round] = weir()
    end
    theirs[round] = baseline()
    if round % 2 == 1 then
      ours[round] = weir()
    end
  end
  return ours, theirs
end

--- A number in few characters: 9.1e6, 0.264, 54.2.
function support.short(value)
  if value ~= 0 and (math.abs(value) >= 1e5 or math.abs(value) < 1e-3) then
    return (("%.2e"):format(value):gsub("%.?0*e%+?(%-?)0*", "e%1"))
  end
  return ("%.3g"):format(value):find("e", 1, true) and ("%.0f"):format(value) or ("%.3g"):format(value)
end

--- States a claim: prints its line.
-- @tparam table claim `name`, `weir` and `baseline` (figures), `unit`, `goal` (of weir / baseline; optional), and
-- `cost = true` where lower is better
-- @treturn boolean whether the goal is met; true where there is none
function support.claim(claim)
  local ratio = claim.weir / claim.baseline
  local line = ("bench %s weir=%s baseline=%s unit=%s %s=%.2f"):format(claim.name, support.short(claim.weir),
    support.short(claim.baseline), claim.unit, claim.cost and "cost" or "ratio", ratio)
  if claim.goal then
    line = line .. (" goal=%.2f"):format(claim.goal)
  end
  print(line)
  io.stdout:flush()
  if not claim.goal then
    return true
  elseif claim.cost then
    return ratio <= claim.goal
  end
  return ratio >= claim.goal
end

--- Seconds of CPU that this process has used.
support.cpu_time = os.clock

--- Bytes of memory that a process (this one when left out) has resident.
function support.rss(pid)
  local status = assert(io.open(("/proc/%s/status"):format(pid or "self")))
  local kilobytes = status:read("a"):match("VmRSS:%s*(%d+) kB")
  status:close()
  return tonumber(kilobytes) * 1024
end

return support
