local programs = require("spec.programs")
local scope = require("spec.lua.scope")
local shell = require("spec.house.shell")

after_each(scope.close)

-- A Lua program of this text.
local function file_of(text)
  local path = scope.directory() .. "/program.lua"
  shell.write(path, text)
  return path
end

-- Starts one, and waits until it has said "ready".
local function start(text)
  local program = scope.start({ "lua5.4", file_of(text) })
  program:await_output("(ready)")
  return program
end

local PROLOGUE = [[
io.stdout:setvbuf("no")
local weir = require("weir")
local app = weir.app("test", "1", { log = { level = "off" } })
local broker = app:broker("memory:")
]]

local EPILOGUE = [[
local ok, signal = app:run()
print("ended", ok, signal)
]]

local function ready_when_started(rest)
  return PROLOGUE .. rest .. [[
app:on("started", function()
  print("ready")
end)
]] .. EPILOGUE
end

describe("a signal", function()
  for name, number in pairs({ sighup = 1, sigint = 2, sigterm = 15 }) do
    it("ends app:run(), which tells which it was: " .. name, function()
      local program = start(ready_when_started("app:on(\"stopped\", function() print(\"stopped\") end)\n"))
      program:kill(name)
      assert.same({ 0, ("ready\nstopped\nended\ttrue\t%d\n"):format(number), "" }, { program:wait() })
    end)
  end

  it("lets handlers finish", function()
    local program = start(PROLOGUE .. [[
      app:subscriber("a", function()
        print("ready")
        weir.sleep(0.2)
        print("handled")
      end)
      app:on("started", function() broker:publisher():publish("a", "1") end)
    ]] .. EPILOGUE)
    program:kill("sigterm")
    assert.same({ 0, "ready\nhandled\nended\ttrue\t15\n", "" }, { program:wait() })
  end)

  it("under load ends the program soon, and in order", function()
    local program = start(PROLOGUE .. [[
      local begun, ended = 0, 0
      app:subscriber({ name = "a", group = "g" }, { workers = 8 }, function()
        begun = begun + 1
        weir.sleep(0.001)
        ended = ended + 1
      end)
      local publisher = app:publisher({ to = "a" })
      app:on("started", function()
        weir.spawn(function()
          repeat
            local ok = publisher:publish(1)
          until not ok
        end)
        weir.spawn(function()
          repeat weir.sleep(0.001) until ended > 100
          print("ready")
        end)
      end)
      app:on("stopped", function()
        print("all ended", begun == ended)
      end)
    ]] .. EPILOGUE)
    program:kill("sigterm")
    assert.same({ 0, "ready\nall ended\ttrue\nended\ttrue\t15\n", "" }, { program:wait(10) })
  end)

  it("that comes a second time ends the process at once", function()
    local program = start(PROLOGUE .. [[
      app:subscriber("a", function()
        print("ready")
        weir.sleep(60)
      end)
      app:on("stopping", function() print("stopping") end)
      app:on("started", function() broker:publisher():publish("a", "1") end)
    ]] .. EPILOGUE)
    program:kill("sigterm")
    program:await_output("(stopping)")
    program:kill("sigterm")
    assert.same({ 143, "ready\nstopping\n", "" }, { program:wait() })
  end)

  it("ends a start that hangs", function()
    local program = start(PROLOGUE .. [[
      app:on("startup", function()
        print("ready")
        weir.sleep(60)
      end)
    ]] .. EPILOGUE)
    program:kill("sigterm")
    assert.same({ 0, "ready\nended\ttrue\t15\n", "" }, { program:wait() })
  end)

  it("has its usual meaning again after app:run()", function()
    local program = start(PROLOGUE .. [[
      app:on("started", function() app:request_stop() end)
      assert(app:run())
      print("ready")
      weir.sleep(60)
    ]])
    program:kill("sigterm")
    assert.equal(143, (program:wait()))
  end)

  it("does not keep a program alive that only started an application", function()
    local path = file_of(PROLOGUE .. "assert(app:start())\nprint(\"done\")\n")
    local status, out = programs.run({ "sh", "-c", "exec lua5.4 " .. shell.quote(path) })
    assert.same({ 0, "done\n" }, { status, out })
  end)
end)
