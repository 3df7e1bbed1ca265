local cjson = require("cjson")
local luv = require("luv")
local scope = require("spec.lua.scope")
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

-- A clock that runs so many times as fast: for a Lua that is started with it.
local function hurried(times)
  return ([[
    local runtime = require("weir.runtime")
    local began = runtime.now()
    package.loaded["weir.clock"] = nil
    local clock = require("weir.clock")
    clock.now = function() return began + (runtime.now() - began) * %d end
    clock.timer = function(at, fn) return runtime.timer(began + (at - began) / %d, fn) end
  ]]):format(times, times)
end

-- `weir` with these words, in such a hurry.
local function start_hurried(times, ...)
  return scope.start({ "lua5.4", "-e", hurried(times), "lua/bin/weir", ... })
end

local function is_alive(pid)
  return luv.kill(pid, 0) == 0
end

local function await_gone(pid)
  local deadline = weir_lib.now() + 30
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

  it("has each serve its own metrics, at ports that follow each other", function()
    local first = 20000 + luv.os_getpid() % 10000
    local path = file_of(APP .. ("app:http{ listen = 'http://127.0.0.1:%d' } return app"):format(first))
    local program = start("run", path, "--workers", "2")
    await_count(program, "up %d", 2)
    for worker = 1, 2 do
      local url = ("http://127.0.0.1:%d"):format(first + worker - 1)
      local status, out, err = weir("top", url, "--once", "--json", "--interval", "0.05")
      assert.same({ 0, "" }, { status, err })
      assert.equal("orders", cjson.decode(out).apps[1].app)
    end
    program:kill("sigterm")
    assert.equal(143, (program:wait()))
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

  it("gives up after ten failures in a row, lets the others drain, and ends with status 1", function()
    -- The timeout, too, is in seconds of the hurried clock: it must do for a slow machine. The first worker begins to
    -- fail when the second one is there, which could not drain otherwise.
    local marker = support.directory() .. "/up"
    local path = file_of(APP:gsub("shutdown_timeout = 5", "shutdown_timeout = 6000") .. ([[
      if os.getenv("WEIR_WORKER") == "1" then
        app:on("startup", function()
          while not io.open(%q) do weir.sleep(0.005) end
          os.exit(3)
        end)
      else
        app:on("started", function() io.open(%q, "w"):close() end)
        app:on("stopping", function() weir.sleep(0.3) end)
      end
      return app
    ]]):format(marker, marker))
    local status, out, err = start_hurried(100, "run", path, "--workers", "2"):wait()
    assert.equal(1, status)
    assert.equal(9, count(err, "worker failed again_in"), err)
    assert.matches("worker fails again and again failures=10 worker=1\n", err)
    assert.matches("\nweir: a worker failed again and again; see its errors above\n$", err)
    assert.equal(1, count(out, "down 2"))
  end)

  it("begins anew to count when a worker did its work for a while", function()
    local path = file_of(APP .. [[
      app:on("started", function() weir.spawn(function() weir.sleep(0.6) os.exit(3) end) end)
      return app
    ]])
    local program = start_hurried(100, "run", path, "--workers", "1")
    program:await(function()
      return count(program:err(), "again_in") >= 4
    end)
    assert.equal(count(program:err(), "again_in"), count(program:err(), 'again_in="0.1 s"'))
    program:kill("sigterm")
    assert.equal(143, (program:wait()))
  end)

  it("kills at last what does not end", function()
    local path = file_of(APP .. "app:on('started', function() say('stuck') while true do end end) return app")
    local program = start_hurried(100, "run", path, "--workers", "1")
    program:await_output("stuck 1 (%d+)")
    program:kill("sigterm")
    local status, _, err = program:wait()
    assert.equal(143, status)
    assert.matches("worker did not drain in time: killed", err)
  end)

  it("ends when its terminal goes, or not with nohup", function()
    for _, words in ipairs({ {}, { "--workers=1" } }) do
      local program = start("run", file_of(APP .. "return app"), table.unpack(words))
      await_count(program, "up", 1)
      program:kill("sighup")
      local status, out = program:wait()
      assert.same({ 129, 1 }, { status, count(out, "down") })
      local path = file_of(APP .. "return app")
      program = scope.start({ "nohup", "lua5.4", "lua/bin/weir", "run", path, table.unpack(words) })
      await_count(program, "up", 1)
      program:kill("sighup")
      program:kill("sigterm")
      status, out = program:wait()
      assert.same({ 143, 1 }, { status, count(out, "down") })
    end
  end)

  it("ends at once while the file is still being loaded", function()
    for _, word in ipairs({ "--workers=2", "--reload" }) do
      local path = file_of("print('loading', require('luv').os_getpid()) io.stdout:flush()"
        .. " io.stderr:write('loading ', require('luv').os_getpid(), '\\n') while true do end")
      local program = start("run", path, word)
      local loading = tonumber(await_error(program, "loading (%d+)"))
      program:kill("sigterm")
      assert.equal(143, (program:wait()))
      await_gone(loading)
    end
  end)

  it("does not mind what the program prints while it is loaded", function()
    local path = file_of("io.write('no newline: {\"app\":') os.execute('echo begin; printf here:') " .. APP
      .. "return app")
    local program = start("run", path, "--workers=1")
    await_count(program, "up 1", 1)
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

  it("says that the program ended while it was loaded", function()
    local status, out, err = weir("run", file_of("os.exit(7)"), "--workers", "2")
    assert.same({ 1, "", "weir: its check ended with status 7 and no report\n" }, { status, out, err })
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

  it("lets not even one outlive it that never yields", function()
    local path = file_of(APP:gsub("shutdown_timeout = 5", "shutdown_timeout = 0.1")
      .. "app:on('started', function() say('stuck') while true do end end) return app")
    local program = start("run", path, "--workers", "1")
    local stuck = tonumber((program:await_output("stuck 1 (%d+)")))
    program:kill("sigkill")
    await_gone(stuck)
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

  it("notices its file though another one beside it changes all the time", function()
    local path = file_of(APP .. "return app")
    local program = start("run", path, "--reload")
    await_count(program, "up 1", 1)
    local busy = weir_lib.spawn(function()
      while true do
        shell.write(path .. ".log", "x")
        weir_lib.sleep(0.01)
      end
    end)
    support.finally(function()
      busy:cancel()
      pcall(busy.join, busy)
    end)
    rewrite(path, APP .. "app:on('started', function() say('new') end) return app")
    await_count(program, "new 1", 1)
    program:kill("sigterm")
    assert.equal(143, (program:wait()))
  end)

  it("follows symbolic links to where they lead", function()
    local target = file_of(APP .. "return app")
    local path = support.directory() .. "/app.lua"
    assert(luv.fs_symlink(target, path))
    local program = start("run", path, "--reload")
    await_count(program, "up 1", 1)
    rewrite(target, APP .. "app:on('started', function() say('new') end) return app")
    await_count(program, "new 1", 1)
    -- And when they lead elsewhere.
    local other = file_of(APP .. "app:on('started', function() say('other') end) return app")
    assert(luv.fs_symlink(other, path .. ".new"))
    assert(os.rename(path .. ".new", path))
    await_count(program, "other 1", 1)
    program:kill("sigterm")
    assert.equal(143, (program:wait()))
  end)

  it("notices a module in a directory that was not there", function()
    local path = file_of("local word = require('parts.word')\n" .. APP
      .. "app:on('started', function() say(word) end) return app")
    local program = start("run", path, "--reload")
    await_error(program, "does not load: waiting for a change")
    local folder = path:gsub("app.lua$", "parts")
    shell.check("mkdir " .. folder)
    shell.write(folder .. "/word.lua", "return 'one'")
    await_count(program, "one 1", 1)
    program:kill("sigterm")
    assert.equal(143, (program:wait()))
  end)

  it("goes on when its directory is replaced", function()
    local folder = support.directory() .. "/app"
    local function make(more)
      shell.check("mkdir " .. folder)
      shell.write(folder .. "/app.lua", APP .. (more or "") .. " return app")
    end
    make()
    local program = start("run", folder .. "/app.lua", "--reload")
    await_count(program, "up 1", 1)
    shell.check(("mv %s %s.old"):format(folder, folder))
    await_error(program, "the old one goes on")
    make("app:on('started', function() say('new') end)")
    await_count(program, "new 1", 1)
    shell.check(("rm -r %s"):format(folder))
    make("app:on('started', function() say('newer') end)")
    await_count(program, "newer 1", 1)
    program:kill("sigterm")
    assert.equal(143, (program:wait()))
  end)

  it("uses no time while nothing changes", function()
    local program = start("run", file_of(APP .. "return app"), "--reload")
    await_count(program, "up 1", 1)
    local function switches()
      return tonumber(shell.read(("/proc/%d/status"):format(program.pid)):match("\nvoluntary_ctxt_switches:%s*(%d+)"))
    end
    if not luv.fs_stat("/proc/self/status") then
      return pending("there is no /proc")
    end
    -- After what there is to do at the start it waits, and for nothing that comes by itself.
    local before
    program:await(function()
      local now = switches()
      local still = now == before
      before = now
      weir_lib.sleep(0.5)
      return still
    end)
    program:kill("sigterm")
    assert.equal(143, (program:wait()))
  end)

  it("takes many changes at once for one", function()
    local lines = {}
    for i = 1, 50 do
      lines[i] = ("require('m%d')"):format(i)
    end
    local path = file_of("", "app.lua")
    local function modules(version)
      for i = 1, 50 do
        shell.write(path:gsub("app.lua$", ("m%d.lua"):format(i)), "return " .. version)
      end
    end
    modules(1)
    shell.write(path, table.concat(lines, "\n") .. "\n" .. APP .. "return app")
    local program = start("run", path, "--reload", "--log-level", "info")
    await_count(program, "up 1", 1)
    modules(2)
    program:await(function()
      return program:err():find("reloaded")
    end)
    shell.write(path, APP .. "app:on('started', function() say('last') end) return app")
    await_count(program, "last 1", 1)
    program:kill("sigterm")
    local _, out = program:wait()
    assert.equal(3, count(out, "up 1"))
  end)

  it("leaves the other workers alone when the new program does not start", function()
    local path = file_of(APP .. "return app")
    local program = start("run", path, "--reload", "--workers", "2")
    await_count(program, "up %d", 2)
    rewrite(path, APP .. "app:on('startup', function() error('no') end) return app")
    await_error(program, "the new one does not start: the other workers stay as they are")
    assert.is_true(is_alive(pid_of(program, 2)))
    rewrite(path, APP .. "app:on('started', function() say('new') end) return app")
    await_count(program, "new 2", 1)
    assert.equal(1, count(program:out(), "down 2"))
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
