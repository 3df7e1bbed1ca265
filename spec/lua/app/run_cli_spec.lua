local cli = require("spec.lua.cli.support")
local shell = require("spec.house.shell")

local file_of, await_error = cli.file_of, cli.await_error

after_each(cli.clean)

-- `weir run` with these words, to its end: status, output, errors.
local function run(...)
  return cli.weir("run", ...)
end

local function start(...)
  return cli.start("run", ...)
end

local GOOD = [[
io.stdout:setvbuf("no")
local weir = require("weir")
local app = weir.app("orders", "1.0.0")
app:broker(weir.env("BROKER", "memory:"))
app:subscriber("orders", function() end)
]]

describe("weir run", function()
  it("runs the application that the file returns, until a signal", function()
    local program = start(file_of(GOOD .. "return app"))
    local line = await_error(program, "[^\n]*started[^\n]*\n")
    assert.matches('app="orders 1.0.0" brokers=memory ms=[%d.]+ subscriptions=orders\n$', line)
    program:kill("sigterm")
    local status, out, err = program:wait()
    assert.same({ 143, "" }, { status, out })
    assert.matches("stopping\n.*stopped\n$", err)
  end)

  it("ends with 130 after Ctrl-C, when its handlers are done", function()
    local program = start(file_of(GOOD .. [[
      app:subscriber("slow", function()
        print("begun")
        weir.sleep(0.1)
        print("ended")
      end)
      local slow = app:publisher{ to = "slow" }
      app:on("started", function() slow:publish(1) end)
      return app
    ]]))
    program:await_output("(begun)")
    program:kill("sigint")
    local status, out = program:wait()
    assert.same({ 130, "begun\nended\n" }, { status, out })
  end)

  for name, ending in pairs({ ["makes just one"] = "", ["ends in app:run()"] = "os.exit(app:run() and 3 or 4)" }) do
    it("runs the application of a file that " .. name, function()
      local program = start(file_of(GOOD .. ending))
      await_error(program, "(started)")
      program:kill("sigterm")
      assert.equal(143, (program:wait()))
    end)
  end

  it("ends with 0 when the application ends by itself", function()
    assert.equal(0, (run(file_of(GOOD .. "app:on('started', function() app:request_stop() end)"))))
  end)

  it("ends with 1 and the error when it fails", function()
    local status, out, err = run(file_of(GOOD .. [[
      app:on("started", function() app:request_stop("the shelves are empty") end)
      return app
    ]]))
    assert.same({ 1, "" }, { status, out })
    assert.matches("\nweir: .*the shelves are empty\n$", err)
  end)

  it("sets variables, which the program reads with weir.env and os.getenv", function()
    local path = file_of([[
      local weir = require("weir")
      print(weir.env("NAME", "none"), os.getenv("NAME"), weir.env("COUNT", 1) + 1, weir.env("LOUD", false))
      print(weir.env("EMPTY", "default"), weir.env("UNSET"))
      local app = weir.app("test", "1")
      app:broker("memory:")
      app:on("started", function() app:request_stop() end)
    ]])
    local status, out = run(path, "--env", "NAME=a=b", "--env=COUNT=41", "--env", "LOUD=yes", "--env", "EMPTY=")
    assert.same({ 0, "a=b\ta=b\t42\ttrue\ndefault\tnil\n" }, { status, out })
  end)

  it("says which variable is wrong, and where it is read", function()
    local path = file_of("local weir = require('weir')\nlocal n = weir.env('COUNT', 1)\nreturn n")
    local status, out, err = run(path, "--env", "COUNT=many")
    assert.same({ 1, "" }, { status, out })
    assert.equal(("weir: %s:2: weir.env: COUNT must be a number, not 'many'\n"):format(path), err)
  end)

  it("logs as it is told", function()
    local program = start(file_of(GOOD), "--log", "json")
    assert.matches('"brokers":"memory"', await_error(program, "{[^\n]*started[^\n]*}"))
    local quiet = file_of(GOOD .. "app:on('started', function() app:request_stop() end)")
    assert.same({ 0, "", "" }, { run(quiet, "--log-level", "error") })
  end)

  it("connects to nothing with --check, and says whether the wiring is right", function()
    local path = file_of(GOOD .. "app:on('startup', function() print('never') end) return app")
    assert.same({ 0, "orders 1.0.0: the wiring is right\n", "" }, { run(path, "--check") })
  end)

  for name, words in pairs({ ["with --check"] = { "--check" }, ["before it starts"] = {} }) do
    it("lists all mistakes with file and line " .. name, function()
      local path = file_of(GOOD .. [[
app:subscriber("a", { wrokers = 2 }, function() end)
app:subscriber("b", { dead_letter = "b" }, function() end)
app:on("startup", function() print("never") end)
return app
]])
      local status, out, err = run(path, table.unpack(words))
      assert.same({ 1, "" }, { status, out })
      assert.truthy(err:find(path .. ":6: subscriber 'a': unknown option 'wrokers'; did you mean 'workers'?", 1, true))
      assert.truthy(err:find(path .. ":7: subscriber 'b': its dead letters go to 'b'", 1, true))
      assert.matches("'orders' .*has 2 mistakes", err)
      assert.not_matches("traceback", err)
    end)
  end

  it("finds modules that lie beside the file", function()
    local path = file_of(GOOD:gsub("function%(%) end", "(require('neighbour'))") .. "return app")
    shell.write((path:gsub("app.lua$", "neighbour.lua")), "return function() end\n")
    local status, out = run("--check", path)
    assert.same({ 0, "orders 1.0.0: the wiring is right\n" }, { status, out })
  end)

  it("says where a file is wrong, without a traceback", function()
    local path = file_of("local weir = require('weir')\nweir.app(\n")
    local status, out, err = run(path)
    assert.same({ 1, "" }, { status, out })
    assert.matches("^weir: " .. cli.plain(path) .. ":%d: [^\n]*\n$", err)
    path = file_of("local weir = require('weir')\nlocal app = weir.app('a', '1')\napp:subscriber('b')\n")
    status, out, err = run(path)
    assert.same({ 1, "" }, { status, out })
    assert.equal(("weir: %s:3: app:subscriber: the handler must be a function, not a nil\n"):format(path), err)
  end)

  it("says what it expects of a file", function()
    for text, expected in pairs({
      ["return 7"] = "returns a number; it should return the application",
      ["local x = 1"] = "makes no application; make one with weir.app(title, version) and return it",
      ["local app = require('weir').app; app('a', '1'); app('b', '1')"] = "makes 2 applications; return the one",
      ["error({})"] = "weir: ",
    }) do
      local status, out, err = run(file_of(text))
      assert.same({ 1, "" }, { status, out })
      assert.truthy(err:find(expected, 1, true), err)
    end
    local status, out, err = run("/nowhere/app.lua")
    assert.same({ 1, "" }, { status, out })
    assert.matches("^weir: cannot open '?/nowhere/app.lua", err)
  end)

  it("says which broker cannot be reached", function()
    local path = file_of(GOOD .. "app.options.start_timeout = 0.05\nreturn app")
    local status, out, err = run(path, "--env", "BROKER=memroy:")
    assert.same({ 1, "" }, { status, out })
    assert.matches(cli.plain(path) .. ":4: weir.broker: 'memroy:' has no known scheme", err)
  end)

  it("is used wrongly without a file, with two, and with options that it does not know", function()
    local wrong = {
      { {}, "the file of the application is missing" },
      { { "a.lua", "b.lua" }, "one word too many: 'b.lua'" },
      { { "a.lua", "--chek" }, "unknown option '--chek'; did you mean '--check'?" },
      { { "a.lua", "--env" }, "--env needs a value" },
      { { "a.lua", "--env", "NAME" }, "--env needs NAME=VALUE, not 'NAME'" },
      { { "a.lua", "--log", "yaml" }, "--log must be one of text, json, not 'yaml'" },
      { { "a.lua", "--log-level=wanr" }, "--log-level must be one of debug, info, warn, error, off, not 'wanr'; did"
        .. " you mean 'warn'?" },
      { { "a.lua", "--check=yes" }, "--check takes no value" },
    }
    for _, each in ipairs(wrong) do
      assert.same({ 2, "", ("weir: %s\nTry 'weir help run'.\n"):format(each[2]) }, { run(table.unpack(each[1])) })
    end
  end)
end)
