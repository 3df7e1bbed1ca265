local luv = require("luv")
local programs = require("spec.programs")
local scope = require("spec.lua.scope")
local shell = require("spec.house.shell")
local support = require("spec.lua.support")
local weir = require("weir")

local TAIL = "examples/tail/"
local run, start, scratch, write = programs.run, scope.start, scope.directory, shell.write

after_each(scope.close)

local function files_of_examples()
  local list = {}
  for path in shell.check("find examples -name '*.lua' | sort"):gmatch("[^\n]+") do
    list[#list + 1] = path
  end
  return list
end

describe("examples/", function()
  it("has no program that no spec runs", function()
    local found = {}
    for _, path in ipairs(files_of_examples()) do
      if not shell.read(path):find("\nreturn [%w_]+\n$") then -- a module of a program beside it
        found[#found + 1] = path
      end
    end
    -- Those of examples/durable and examples/pipeline: spec/lua/durable/examples_spec.lua, spec/lua/pipeline_spec.lua.
    local known = { "examples/pipeline/demo.lua", "examples/quickstart.lua" }
    for _, name in ipairs({ "consumer", "demo", "producer" }) do
      known[#known + 1] = TAIL .. name .. ".lua"
    end
    for i, name in ipairs({ "quickstart", "tail", "writer" }) do
      table.insert(known, i, ("examples/durable/%s.lua"):format(name))
    end
    assert.same(known, found)
  end)
end)

describe("examples/quickstart.lua", function()
  it("prints what it received and ends", function()
    local status, out, err = run({ "lua5.4", "examples/quickstart.lua" })
    assert.equal("", err)
    assert.equal("message 0: 1 squared is 1\nmessage 1: 2 squared is 4\nmessage 2: 3 squared is 9\n", out)
    assert.equal(0, status)
  end)
end)

describe("each program of examples/tail", function()
  for _, name in ipairs({ "producer", "consumer", "demo" }) do
    it("explains itself: " .. name, function()
      local status, out, err = run({ "lua5.4", TAIL .. name .. ".lua", "--help" })
      assert.same({ 0, "" }, { status, err })
      assert.matches("^Usage: lua5.4 examples/tail/" .. name .. ".lua", out)
      assert.not_matches("\27", out)
    end)

    it("refuses what it does not know: " .. name, function()
      local status, out, err = run({ "lua5.4", TAIL .. name .. ".lua", "--frobnicate" })
      assert.same({ 2, "" }, { status, out })
      assert.equal(name .. ".lua: unknown option '--frobnicate'\nTry --help.\n", err)
    end)

    it("runs from any directory: " .. name, function()
      local root = luv.cwd()
      local command = ("cd / && lua5.4 %s --help"):format(shell.quote(root .. "/" .. TAIL .. name .. ".lua"))
      assert.equal(0, (run({ "sh", "-c", command })))
    end)
  end
end)

-- A producer process that reads `path`, and a consumer of its stream in this process.
local function publish(path, ...)
  local socket = support.socket_path()
  local producer = start({ "lua5.4", TAIL .. "producer.lua", path, "--listen", "unix://" .. socket, ... })
  producer:await_output("listening on")
  local net = assert(weir.network({ peers = "unix://" .. socket }))
  scope.finally(function()
    net:close(0)
  end)
  return net:consume("tail", { codec = "msgpack", max_message = "2 MiB" }), producer
end

local function take(consumer, count)
  local list = {}
  for i = 1, count do
    list[i] = assert(consumer:recv(20))
    assert.equal(i, list[i].id)
    list[i].id = nil
  end
  return list
end

describe("the producer of examples/tail", function()
  it("makes records of dpkg's lines", function()
    local path = scratch() .. "/log"
    write(path, table.concat({
      "2025-06-24 14:36:25 startup archives unpack",
      "2025-06-24 14:36:26 upgrade libc6:amd64 2.36-9 2.36-10",
      "2025-06-24 14:36:27 status half-configured libc6:amd64 2.36-9",
      "2025-06-24 14:36:28 install zstd:amd64 <none> 1.5.4",
      "2025-06-24 14:36:29 conffile /etc/a.conf keep",
      "",
    }, "\n"))
    local records = take(publish(path), 5)
    assert.same({
      { date = "2025-06-24", time = "14:36:25", action = "startup", kind = "archives", command = "unpack" },
      { date = "2025-06-24", time = "14:36:26", action = "upgrade", package = "libc6:amd64", version = "2.36-9",
        available = "2.36-10" },
      { date = "2025-06-24", time = "14:36:27", action = "status", state = "half-configured", package = "libc6:amd64",
        version = "2.36-9" },
      { date = "2025-06-24", time = "14:36:28", action = "install", package = "zstd:amd64", version = "<none>",
        available = "1.5.4" },
      { date = "2025-06-24", time = "14:36:29", action = "conffile", file = "/etc/a.conf", decision = "keep" },
    }, records)
  end)

  it("sends lines that it cannot parse as they are", function()
    local path = scratch() .. "/log"
    local lines = {
      "", "no log at all", "\255\254\128 no UTF-8 \0 here", "2025-06-24 14:36:25 frobnicate a b",
      "2025-06-24 14:36:25 status", "2025-06-24 14:36:25 startup archives unpack and more", "the last has no end",
    }
    write(path, table.concat(lines, "\n"))
    local records = take(publish(path, "--once"), #lines)
    for i, line in ipairs(lines) do
      assert.same({ text = line }, records[i])
    end
  end)

  it("sends a line of 1 MB whole, and cuts one that is longer than 1 MiB", function()
    local path = scratch() .. "/log"
    write(path, ("x"):rep(1000000) .. "\n" .. ("y"):rep(3000000) .. "\nshort\n")
    local records = take(publish(path), 3)
    assert.same({ text = ("x"):rep(1000000) }, records[1])
    assert.same({ text = ("y"):rep(1048576), length = 3000000 }, records[2])
    assert.same({ text = "short" }, records[3])
  end)

  it("follows what is appended, line by line", function()
    local path = scratch() .. "/log"
    write(path, "one\ntw")
    local consumer = publish(path)
    assert.equal("one", consumer:recv(20).text)
    shell.append(path, "o\nthree\n")
    assert.equal("two", consumer:recv(20).text)
    assert.equal("three", consumer:recv(20).text)
  end)

  it("goes on with a file that was cut short", function()
    local path = scratch() .. "/log"
    write(path, "a long first line\n")
    local consumer = publish(path)
    assert.equal("a long first line", consumer:recv(20).text)
    write(path, "short\n")
    assert.equal("short", consumer:recv(20).text)
  end)

  it("goes on with the file that replaced it, after the rest of the old one", function()
    local path = scratch() .. "/log"
    write(path, "old\n")
    local consumer = publish(path)
    assert.equal("old", consumer:recv(20).text)
    assert(os.rename(path, path .. ".1"))
    shell.append(path .. ".1", "still old\n")
    assert.equal("still old", consumer:recv(20).text)
    write(path .. ".new", "new\n")
    assert(os.rename(path .. ".new", path))
    assert.equal("new", consumer:recv(20).text)
  end)

  it("repeats the file, and ends after as many records as it was told", function()
    local path = scratch() .. "/log"
    write(path, "a\nb\n")
    local consumer, producer = publish(path, "--repeat", "--records", "5")
    local texts = {}
    for i, record in ipairs(take(consumer, 5)) do
      texts[i] = record.text
    end
    assert.same({ "a", "b", "a", "b", "a" }, texts)
    local status, out = producer:wait()
    assert.equal(0, status)
    assert.matches("\nsent 5 |", out)
  end)

  it("keeps to its rate", function()
    local path = scratch() .. "/log"
    write(path, "a\n")
    local consumer = publish(path, "--repeat", "--rate", "100")
    take(consumer, 1)
    local began = weir.now()
    for _ = 1, 30 do
      assert(consumer:recv(20))
    end
    assert.is_true(weir.now() - began > 0.25)
  end)

  it("ends at the end of an empty file when told to", function()
    local path = scratch() .. "/log"
    write(path, "")
    for _, how in ipairs({ "--once", "--repeat" }) do
      local listen = "unix://" .. support.socket_path()
      assert.equal(0, (run({ "lua5.4", TAIL .. "producer.lua", path, how, "--listen", listen })))
    end
  end)

  local function fails(pattern, ...)
    local status, _, err = run({ "lua5.4", TAIL .. "producer.lua", ... })
    assert.equal(1, status)
    assert.matches(pattern, err)
    assert.not_matches("traceback", err)
  end

  it("says why it cannot read a file", function()
    local dir = scratch()
    fails("cannot read " .. dir .. "/none: there is no such file", dir .. "/none")
    fails("cannot read " .. dir .. ": it is a directory", dir)
    shell.check("mkfifo " .. dir .. "/fifo")
    fails("it is not a regular file", dir .. "/fifo")
  end)

  it("says so when it may not read a file", function()
    local dir = scratch()
    write(dir .. "/secret", "a\n")
    shell.check(("chmod 755 %s && chmod 000 %s/secret"):format(dir, dir))
    local words = { "lua5.4", TAIL .. "producer.lua", dir .. "/secret" }
    if luv.getuid() == 0 then -- who may read everything
      local nobody = { "setpriv", "--reuid=65534", "--clear-groups" }
      if run({ "setpriv", "--reuid=65534", "--clear-groups", "lua5.4", TAIL .. "producer.lua", "--help" }) ~= 0 then
        return pending("root may read everything, and cannot become somebody else here")
      end
      words = table.move(words, 1, #words, #nobody + 1, nobody)
    end
    local status, _, err = run(words)
    assert.equal(1, status)
    assert.matches("you may not read it", err)
  end)

  it("says why it cannot listen", function()
    local path = scratch() .. "/log"
    write(path, "a\n")
    local net = assert(weir.network({ listen = "tcp://127.0.0.1:0" }))
    scope.finally(function()
      net:close(0)
    end)
    fails("in_use: cannot listen on tcp://127.0.0.1", path, "--listen", net:addresses()[1])
    fails("insecure: will not listen on tcp://0.0.0.0", path, "--listen", "tcp://0.0.0.0:0")
    fails('unknown scheme "htp"', path, "--listen", "htp://x")
  end)

  it("tells its consumers when it is interrupted", function()
    local path = scratch() .. "/log"
    write(path, "a\n")
    local consumer, producer = publish(path)
    take(consumer, 1)
    producer:kill("sigint")
    assert.equal(130, (producer:wait()))
    support.eventually(function()
      local source = consumer:producers()[1]
      return source and source.closed and source.closed.status == 204
    end)
  end)
end)

-- A node of this process that a consumer process can reach.
local function listen(codec)
  local net = assert(weir.network({ listen = "unix://" .. support.socket_path() }))
  scope.finally(function()
    net:close(0)
  end)
  return net:produce("tail", { codec = codec }), net:addresses()[1]
end

describe("the consumer of examples/tail", function()
  it("prints records until the stream ends, and a table", function()
    local stream, url = listen("msgpack")
    local consumer = start({ "lua5.4", TAIL .. "consumer.lua", "--connect", url, "--name", "me" })
    assert(stream:send({ id = 1, text = "\255 a\27[31mb \195\164" }, 20))
    assert(stream:send({ id = 2, date = "d", time = "t", action = "remove", package = "p", version = "v" }))
    assert(stream:close(20))
    local status, out, err = consumer:wait()
    assert.same({ 0, "" }, { status, err })
    assert.matches("me +1  %? a%?%[31mb %?%?\nme +2  d t remove p v\n", out)
    assert.matches("\nconsumer  received  dropped  rate  uptime\nme +2 +0 +%d+/s +%d+%.%d s\n", out)
    assert.matches("me: the producer ended the stream\n$", out)
    assert.not_matches("[\27\r]", out)
  end)

  it("goes on after messages that are no records", function()
    local garbage = { name = "msgpack", encode = tostring, decode = tostring }
    local stream, url = listen(garbage)
    local consumer = start({ "lua5.4", TAIL .. "consumer.lua", "--connect", url })
    for _, bytes in ipairs({ "\193", "\42", "\128", "\129\162id\163abc", "\130\162id\1\164text\1" }) do
      assert(stream:send(bytes, 20))
    end
    assert(stream:send("\130\162id\7\164text\164good"))
    assert(stream:close(20))
    local status, out, err = consumer:wait()
    assert.equal(0, status)
    assert.matches("consumer +7  good\n", out)
    assert.matches("decode: ", err)
    for sequence = 1, 4 do
      assert.matches(("message %d is no record"):format(sequence), err)
    end
  end)

  it("ends when it is refused", function()
    local _, url = listen("json")
    local status, _, err = run({ "lua5.4", TAIL .. "consumer.lua", "--connect", url })
    assert.equal(1, status)
    assert.matches("wrong_codec %(10415%)", err)
  end)

  it("gives up after the time that it was told to wait", function()
    local url = "unix://" .. support.socket_path()
    local status, _, err = run({ "lua5.4", TAIL .. "consumer.lua", "--connect", url, "--wait", "0.2" })
    assert.equal(1, status)
    assert.matches("no producer came: refused: cannot connect to " .. url:gsub("%p", "%%%0"), err)
  end)

  it("prints its table when it is interrupted", function()
    local stream, url = listen("msgpack")
    local consumer = start({ "lua5.4", TAIL .. "consumer.lua", "--connect", url })
    assert(stream:send({ id = 1, text = "a" }, 20))
    consumer:await_output("1  a\n")
    consumer:kill("sigint")
    local status, out = consumer:wait()
    assert.equal(130, status)
    assert.matches("\nconsumer +1 +0 ", out)
  end)
end)

-- The running children of a process: pid -> command line, as Linux tells it.
local function children_of(pid)
  local found = {}
  for name in function(scan)
    return (luv.fs_scandir_next(scan))
  end, assert(luv.fs_scandir("/proc")) do
    local stat = name:find("^%d+$") and shell.read("/proc/" .. name .. "/stat")
    local state, parent = (stat or ""):match("%) (%a) (%d+)")
    if parent == tostring(pid) and state ~= "Z" then
      found[name] = (shell.read("/proc/" .. name .. "/cmdline") or ""):gsub("%z", " ")
    end
  end
  return found
end

local function runs(pid)
  local stat = shell.read(("/proc/%s/stat"):format(pid))
  return stat ~= nil and stat:match("%) (%a)") ~= "Z"
end

local function demo(...)
  return run({ "lua5.4", TAIL .. "demo.lua", ... }, 90)
end

-- A file that makes the demo neither long nor hasty.
local function short_log()
  local path = scratch() .. "/log"
  write(path, ("2026-01-01 12:00:00 status installed a:all 1\n"):rep(1400))
  return path
end

-- The rows of the table: name -> received, dropped.
local function rows(out)
  local found = {}
  for name, received, dropped in out:gmatch("\n(%l+) +(%d+) +(%d+) +%d+/s +[%d.]+ s  in order, from record") do
    found[name] = { received = tonumber(received), dropped = tonumber(dropped) }
  end
  return found
end

describe("examples/tail/demo.lua", function()
  it("shows what it promises, within 20 s, in plain lines", function()
    local began = weir.now()
    local status, out, err = demo()
    assert.same({ 0, "" }, { status, err })
    assert.is_true(weir.now() - began < 20)
    assert.not_matches("[\27\r]", out)
    assert.matches("\nsent %d+ | fast %d+ | slow %d+", out)
    local sent = tonumber(out:match("\n(%d+) records sent:\n"))
    local table_ = rows(out)
    assert.same({ received = sent, dropped = 0 }, table_.fast)
    assert.equal(0, table_.late.dropped)
    assert.is_true(table_.late.received > 0 and table_.late.received < sent)
    assert.is_true(table_.slow.received > 0 and table_.slow.dropped > 0)
    assert.matches("What you saw: ", out)
  end)

  it("lets everybody wait for the slow one when the policy is to block", function()
    local status, out, err = demo("--lag", "block", "--seconds", "1", short_log())
    assert.same({ 0, "" }, { status, err })
    assert.equal(0, rows(out).slow.dropped)
  end)

  it("repeats a short file, and makes lines up for an empty one", function()
    local path = scratch() .. "/log"
    write(path, "")
    local status, out, err = demo("--seconds", "2", path)
    assert.same({ 0, "" }, { status, err })
    assert.matches("is empty: made%-up lines stand in; they are repeated to make 1400 records", out)
    write(path, "a\nb")
    status, out, err = demo("--seconds", "2", path)
    assert.same({ 0, "" }, { status, err })
    assert.matches("has 2 lines; they are repeated to make 1400 records", out)
  end)

  it("takes the beginning of a huge file, also where lines are long", function()
    local path = scratch() .. "/log"
    write(path, (("x"):rep(99) .. "\n"):rep(200000))
    local status, out, err = demo("--seconds", "3", path)
    assert.same({ 0, "" }, { status, err })
    assert.matches("has more than %d+ lines; the first 20000 are published", out)
    write(path, (("x"):rep(1000000) .. "\n"):rep(3) .. "\255\n")
    status, out, err = demo("--seconds", "1", path)
    assert.same({ 0, "" }, { status, err })
    assert.matches("has 4 lines; they are repeated to make 22 records", out)
  end)

  it("says why it cannot read a file", function()
    local status, out, err = demo("/nowhere/at/all")
    assert.same({ 1, "" }, { status, out })
    assert.equal("demo.lua: cannot read /nowhere/at/all: there is no such file\n", err)
  end)

  it("overwrites one line on a terminal", function()
    local status, out = programs.on_terminal("lua5.4 examples/tail/demo.lua --seconds 1 " .. short_log())
    if not status then
      return pending("there is no pseudo-terminal, or no script to make one")
    end
    assert.equal(0, status)
    assert.matches("\r\27%[Ksent %d+ | fast %d+ | slow %d+[^\n]*\r\27%[Ksent %d+ | fast", out)
    assert.matches("\27%[1mconsumer", out)
  end)

  it("writes no colours where NO_COLOR is set", function()
    local status, out = programs.on_terminal("NO_COLOR=1 lua5.4 examples/tail/demo.lua --seconds 1 " .. short_log())
    if not status then
      return pending("there is no pseudo-terminal, or no script to make one")
    end
    assert.equal(0, status)
    assert.not_matches("\27%[%d*m", out)
  end)

  it("fails when a consumer did not get what it was promised", function()
    local program = start({ "lua5.4", TAIL .. "demo.lua", "--seconds", "3", short_log() })
    program:await_output("\nsent %d+ | fast [1-9]")
    for pid, line in pairs(children_of(program.pid)) do
      if line:find("--name fast", 1, true) then
        luv.kill(tonumber(pid), "sigkill")
      end
    end
    local status, out, err = program:wait()
    assert.equal(1, status)
    assert.matches("not as promised", out)
    assert.matches("not as promised:\n  the fast consumer: ", err)
  end)

  for signal, expected in pairs({ sigint = 130, sigterm = 143 }) do
    it("leaves nobody behind on " .. signal, function()
      local program = start({ "lua5.4", TAIL .. "demo.lua" })
      program:await_output("\nsent %d+ | fast [1-9]")
      local children = children_of(program.pid)
      assert.is_true(next(children) ~= nil)
      program:kill(signal)
      local status, out = program:wait(15)
      assert.equal(expected, status)
      assert.matches("interrupted\n$", out)
      for pid in pairs(children) do
        assert.is_false(runs(pid))
      end
    end)
  end

  it("leaves nobody behind when it is killed", function()
    local program = start({ "lua5.4", TAIL .. "demo.lua" })
    program:await_output("\nsent %d+ | fast [1-9]")
    local children = children_of(program.pid)
    program:kill("sigkill")
    program:wait()
    for pid in pairs(children) do
      support.eventually(function()
        return not runs(pid)
      end, 20)
    end
  end)
end)
