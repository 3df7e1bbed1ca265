local luv = require("luv")
local shell = require("spec.house.shell")
local support = require("spec.lua.cli.support")
local weir_lib = require("weir")

after_each(support.clean)

local file_of, weir, start, await_error = support.file_of, support.weir, support.start, support.await_error

local APP = [[
io.stdout:setvbuf("no")
local weir = require("weir")
local luv = require("luv")
local app = weir.app("orders", "1.0.0", { log = { level = "warn" }, shutdown_timeout = 5 })
app:broker(weir.env("BROKER", "memory:"))
app:subscriber("orders", function() end)
local line = "%s " .. (os.getenv("WEIR_WORKER") or "-") .. " " .. luv.os_getpid() .. "\n"
local function say(what) io.stdout:write(line:format(what)) end -- one write: the others write there, too
app:on("started", function() say("up") end)
app:on("stopped", function() say("down") end)
]]

local function count(text, pattern)
  local _, n = text:gsub(pattern, "")
  return n
end

local function await_count(program, pattern, n)
  return program:await(function()
    return count(program:out(), pattern) >= n
  end)
end

local function is_alive(pid)
  return luv.kill(pid, 0) == 0
end

local function await_gone(pid)
  local deadline = weir_lib.now() + 10
  while is_alive(pid) do
    assert(weir_lib.now() < deadline, "the process lives on")
    weir_lib.sleep(0.01)
  end
end

local function pid_of(program, worker)
  return tonumber(program:out():match("up " .. worker .. " (%d+)"))
end

describe("weir run --workers", function()
  it("runs so many processes, which know their numbers, and lets all of them drain", function()
    for signal, status in pairs({ sigterm = 143, sigint = 130 }) do
      local program = start("run", file_of(APP .. "return app"), "--workers", "2")
      await_count(program, "up %d", 2)
      assert.not_equal(pid_of(program, 1), pid_of(program, 2))
      program:kill(signal)
      local ended, out = program:wait()
      assert.same({ status, 2 }, { ended, count(out, "down %d") })
    end
  end)

  it("waits for the handlers of every worker", function()
    local program = start("run", file_of(APP .. [[
      app:subscriber("slow", function() say("begun") weir.sleep(0.2) say("ended") end)
      local slow = app:publisher{ to = "slow" }
      app:on("started", function() slow:publish(1) end)
      return app
    ]]), "--workers=2")
    await_count(program, "begun", 2)
    program:kill("sigint")
    local status, out = program:wait()
    assert.same({ 130, 2 }, { status, count(out, "ended %d") })
  end)

  it("starts a worker again that was killed, and leaves the others", function()
    local program = start("run", file_of(APP .. "return app"), "--workers", "2")
    await_count(program, "up %d", 2)
    local first, second = pid_of(program, 1), pid_of(program, 2)
    luv.kill(first, "sigkill")
    await_count(program, "up 1", 2)
    assert.matches("worker failed again_in=\"?0.1 s\"? pid=" .. first .. " signal=9 worker=1", program:err())
    assert.is_true(is_alive(second))
    assert.equal(1, count(program:out(), "up 2"))
    program:kill("sigterm")
    assert.equal(143, (program:wait()))
  end)

  it("waits longer after each failure, and gives up in the end", function()
    local path = file_of(APP .. "app:on('startup', function() os.exit(3) end) return app")
    local program = start("run", path, "--workers", "1")
    await_error(program, "again_in=\"?0.8 s\"?[^\n]* status=3")
    local pauses = {}
    for pause in program:err():gmatch("again_in=\"?([%d.]+) s") do
      pauses[#pauses + 1] = pause
    end
    assert.same({ "0.1", "0.2", "0.4", "0.8" }, { table.unpack(pauses, 1, 4) })
    program:kill("sigterm")
    assert.equal(143, (program:wait()))
  end)

  it("ends with 0 when all workers ended by themselves", function()
    local path = file_of(APP .. "app:on('started', function() app:request_stop() end) return app")
    local status, out = weir("run", path, "--workers", "2")
    assert.same({ 0, 2 }, { status, count(out, "down %d") })
  end)

  it("starts no worker when the wiring is wrong, and says where", function()
    local path = file_of(APP .. "app:subscriber('a', { wrokers = 2 }, function() end)\nreturn app")
    local status, out, err = weir("run", path, "--workers", "2")
    assert.same({ 1, "" }, { status, out })
    assert.matches("weir: the application 'orders' has one mistake:\n  [^\n]*app.lua:11: [^\n]*'wrokers'", err)
    status, out, err = weir("run", file_of("x = = 1"), "--workers", "2")
    assert.same({ 1, "" }, { status, out })
    assert.matches("^weir: [^\n]*app.lua:1: [^\n]*\n$", err)
  end)

  it("kills what does not end, at the second signal", function()
    local path = file_of(APP .. "app:on('started', function() say('stuck') while true do end end) return app")
    local program = start("run", path, "--workers", "1")
    local stuck = program:await(function()
      return tonumber(program:out():match("stuck 1 (%d+)"))
    end)
    program:kill("sigint")
    -- The second comes when the first has been seen: two of the same at once are one.
    local deadline = weir_lib.now() + 10
    while not program.status and weir_lib.now() < deadline do
      program:kill("sigint")
      weir_lib.sleep(0.05)
    end
    assert.equal(130, (program:wait()))
    await_gone(stuck)
  end)

  it("lets no worker outlive it when it is killed itself", function()
    local program = start("run", file_of(APP .. "return app"), "--workers", "2")
    await_count(program, "up %d", 2)
    program:kill("sigkill")
    await_gone(pid_of(program, 1))
    await_gone(pid_of(program, 2))
    assert.equal(2, count(program:out(), "down %d"))
  end)

  it("excludes --check", function()
    for _, word in ipairs({ "--workers=2", "--reload" }) do
      local status, _, err = weir("run", "a.lua", word, "--check")
      assert.equal(2, status)
      assert.matches("^weir: %-%-[%l]+ and %-%-[%l]+ exclude each other\n", err)
    end
  end)
end)

describe("weir run --reload", function()
  local function rewrite(path, text)
    shell.write(path .. ".new", text)
    assert(os.rename(path .. ".new", path))
  end

  it("starts the application anew when its file changes", function()
    local path = file_of(APP .. "return app")
    local program = start("run", path, "--reload")
    await_count(program, "up 1", 1)
    rewrite(path, APP .. "app:on('started', function() say('new') end) return app")
    await_count(program, "new 1", 1)
    assert.equal(1, count(program:out(), "down 1"))
    program:kill("sigterm")
    assert.equal(143, (program:wait()))
  end)

  it("does so when a module beside it changes, also one that did not load", function()
    local path = file_of("local word = require('word')\n" .. APP
      .. "app:on('started', function() say(word) end) return app")
    local module = path:gsub("app.lua$", "word.lua")
    local program = start("run", path, "--reload")
    await_error(program, "does not load: waiting for a change")
    shell.write(module, "return = 1")
    await_error(program, "word.lua:1: ")
    rewrite(module, "return 'one'")
    await_count(program, "one 1", 1)
    rewrite(module, "return 'two'")
    await_count(program, "two 1", 1)
    program:kill("sigterm")
    assert.equal(143, (program:wait()))
  end)

  it("goes on with the old one when the new one is wrong", function()
    local path = file_of(APP .. "return app")
    local program = start("run", path, "--reload")
    await_count(program, "up 1", 1)
    rewrite(path, APP .. "app:subscriber('a', { wrokers = 2 }, function() end)\nreturn app")
    local text = await_error(program, "the old one goes on[^\n]*")
    assert.matches("wrokers", text)
    assert.is_true(is_alive(pid_of(program, 1)))
    assert.equal(0, count(program:out(), "down"))
    program:kill("sigterm")
    assert.equal(143, (program:wait()))
  end)

  it("loses no message, and handles none twice", function()
    local store = support.directory() .. "/store"
    local text = ([[
io.stdout:setvbuf("no")
local weir = require("weir")
local app = weir.app("count", "1.0.0", { log = { level = "warn" } })
app:broker("memory://%s")
app:subscriber({ name = "numbers", group = "all" }, { workers = 4 }, function(n)
  weir.sleep(0.002)
  print("got " .. n)
end)
if os.getenv("ONCE") then app:on("started", function() app:request_stop() end) end
return app
]]):format(store)
    local path = file_of(text)
    assert.equal(0, (weir("run", path, "--env", "ONCE=1"))) -- so that there is a group, which keeps what comes
    shell.check("seq 1000 | lua5.4 lua/bin/weir publish " .. shell.quote(path) .. " numbers --lines")
    local program = start("run", path, "--reload")
    for round = 1, 3 do
      local goal = 200 * round
      await_count(program, "got %d+\n", goal)
      rewrite(path, text .. "-- " .. round .. "\n")
      program:await(function()
        return count(program:err(), "reloaded") >= round
      end)
    end
    await_count(program, "got %d+\n", 1000)
    program:kill("sigterm")
    local status, out = program:wait()
    assert.equal(143, status)
    local seen = {}
    for n in out:gmatch("got (%d+)\n") do
      assert.is_nil(seen[n], n .. " was handled twice")
      seen[n] = true
    end
    for n = 1, 1000 do
      assert.is_true(seen[tostring(n)], n .. " was lost")
    end
  end)
end)
