local cjson = require("cjson")
local support = require("spec.lua.cli.support")

after_each(support.clean)

local file_of, weir = support.file_of, support.weir

local GOOD = [[
local weir = require("weir")
local app = weir.app("orders", "1.0.0")
app:broker(weir.env("BROKER", "memory:"))
app:subscriber("orders", function() end)
]]

describe("weir check", function()
  it("says that the wiring is right, and connects to nothing", function()
    local path = file_of(GOOD .. "app:on('startup', function() print('never') end) return app")
    assert.same({ 0, "orders 1.0.0: the wiring is right\n", "" }, { weir("check", path) })
    local nowhere = { weir("check", path, "--env", "BROKER=nats://127.0.0.1:1") }
    assert.same({ 0, "orders 1.0.0: the wiring is right\n", "" }, nowhere)
  end)

  it("lists all mistakes at once, with file and line", function()
    local path = file_of(GOOD .. [[
app:subscriber("a", { wrokers = 2 }, function() end)
app:subscriber("b", { dead_letter = "b" }, function() end)
return app
]])
    local status, out, err = weir("check", path)
    assert.same({ 1, "" }, { status, out })
    assert.truthy(err:find(path .. ":5: subscriber 'a': unknown option 'wrokers'; did you mean 'workers'?", 1, true))
    assert.truthy(err:find(path .. ":6: subscriber 'b': its dead letters go to 'b'", 1, true))
    assert.matches("weir: the application 'orders' has 2 mistakes\n$", err)
  end)

  it("says the same as one JSON object with --json", function()
    local path = file_of(GOOD .. "app:subscriber('a', { wrokers = 2 }, function() end)\nreturn app")
    local status, out, err = weir("check", path, "--json")
    assert.same({ 1, "" }, { status, err })
    local report = cjson.decode(out)
    assert.same({ false, "orders", "1.0.0" }, { report.ok, report.app, report.version })
    assert.same({ path, 5 }, { report.mistakes[1].file, report.mistakes[1].line })
    assert.matches("wrokers", report.mistakes[1].message)
    status, out = weir("check", file_of(GOOD .. "return app"), "--json")
    assert.equal(0, status)
    assert.matches('"mistakes":%[%]', out)
    status, out = weir("check", "/nowhere.lua", "--json")
    assert.equal(1, status)
    assert.matches("/nowhere.lua", cjson.decode(out).error)
  end)

  it("names the files that the application is made of, and no others", function()
    local path = file_of("require('neighbour')\n" .. GOOD .. "return app")
    local folder = path:match("^(.*/)")
    require("spec.house.shell").write(folder .. "neighbour.lua", "return true")
    local _, out = weir("check", path, "--json")
    assert.same({ path, folder .. "neighbour.lua" }, cjson.decode(out).files)
  end)

  it("says where a file is wrong, without a traceback", function()
    for text, expected in pairs({
      ["local x = = 1"] = ":1: unexpected symbol near '='",
      ["\nlocal x = nil + 1"] = ":2: attempt to perform arithmetic on a nil value",
      ["\n\nrequire('nope.there')"] = ":3: the module 'nope.there' is not found: it is neither installed nor beside"
        .. " the file",
    }) do
      local path = file_of(text)
      for _, command in ipairs({ "check", "run" }) do
        assert.same({ 1, "", ("weir: %s%s\n"):format(path, expected) }, { weir(command, path) })
      end
    end
    local _, _, err = weir("check", "/nowhere/app.lua")
    assert.matches("^weir: cannot open '?/nowhere/app.lua'?[^\n]*\n$", err)
  end)

  it("does no harm when a file is no text", function()
    local status, out, err = weir("check", file_of("\27Lua\255\254\0junk"))
    assert.same({ 1, "" }, { status, out })
    assert.not_matches("traceback", err)
    status, out = weir("check", file_of("error('\\255\\254')"), "--json")
    assert.equal(1, status)
    assert.is_truthy(utf8.len(out))
  end)
end)
