local arguments = require("weir.cli.arguments")
local cjson = require("cjson")
local cli = require("weir.cli")
local shell = require("spec.house.shell")
local support = require("spec.lua.cli.support")

after_each(support.clean)

local weir = support.weir

-- Help that names all options and words of a command, with an example and the exit status.
local function explains(out, called, command)
  for _, option in ipairs(command.options or {}) do
    assert.truthy(out:find("\n   --" .. option[1], 1, true) or out:find(", --" .. option[1], 1, true), option[1])
    assert.matches("%S", option[3])
  end
  for _, word in ipairs(command.words or {}) do
    assert.truthy(out:find("\n   " .. word[2], 1, true), word[2])
  end
  assert.matches("\nExamples:\n[^\n]*weir " .. called, out)
  assert.matches("\nExit status: ", out)
  assert.not_matches("[ \t]\n", (out:gsub("   \n", "")))
  for text in out:gmatch("[^\n]+") do
    assert.is_true(utf8.len(text) <= 100 or text:find("^ +weir ") ~= nil, text)
  end
end

describe("every command", function()
  for _, name in ipairs(cli.commands()) do
    local command = cli.load(name)
    it(name .. " has help that names all it takes, with examples and exit status", function()
      local status, out, err = weir(name, "--help")
      assert.same({ 0, "" }, { status, err })
      explains(out, name, command)
      assert.same({ 0, out, "" }, { weir("help", name) })
    end)

    for _, verb in ipairs(command.verbs or {}) do
      it(("%s %s has such help, too"):format(name, verb[1]), function()
        local _, overview = weir(name, "-h")
        assert.truthy(overview:find("\n   " .. verb[1] .. " ", 1, true))
        local status, out, err = weir(name, verb[1], "--help")
        assert.same({ 0, "" }, { status, err })
        assert.matches("^Usage: weir " .. name .. " " .. verb[1] .. " %u", out)
        explains(out, name .. " " .. verb[1], arguments.of_verb(command, verb))
        assert.same({ 0, out, "" }, { weir("help", name, verb[1]) })
      end)
    end
  end
end)

describe("the manual page", function()
  it("is that of the commands that there are", function()
    local status, out, err = weir("help", "--man")
    assert.same({ 0, "" }, { status, err })
    assert.is_true(out == shell.read("docs/weir.1"),
      "docs/weir.1 is not what the commands say; run: lua/bin/weir help --man >docs/weir.1")
    for _, name in ipairs(cli.commands()) do
      assert.truthy(out:find("\n.SS " .. name .. "\n", 1, true), name)
    end
  end)

  it("is read without a complaint", function()
    if shell.run("command -v man && command -v groff") ~= 0 then
      return pending("there is no man or no groff")
    end
    assert.equal("", (shell.check("MANWIDTH=80 man --warnings -E UTF-8 -l -Tutf8 -Z docs/weir.1 2>&1 >/dev/null")))
  end)
end)

describe("weir bench", function()
  it("prints a figure for each thing it measures", function()
    local status, out, err = weir("bench", "--seconds", "0.02")
    assert.same({ 0, "" }, { status, err })
    local names = {}
    for line in out:gmatch("[^\n]+") do
      local name, figure = line:match("^(%l+) +([%d.]+[kMG]?) %l+/s")
      assert.truthy(figure, line)
      names[#names + 1] = name
    end
    assert.same({ "channel", "json", "streams", "tcp", "broker", "request" }, names)
  end)

  it("prints an object for each with --json, and only what is asked for", function()
    local _, out = weir("bench", "--seconds", "0.02", "--json", "--only", "request", "--only=json")
    local first, second = out:match("^([^\n]+)\n([^\n]+)\n$")
    assert.equal("json", cjson.decode(first).name)
    local request = cjson.decode(second)
    assert.equal("request", request.name)
    assert.is_true(request.rate > 0 and request.p50_us <= request.p99_us)
  end)

  it("says what is wrong with the broker or its words", function()
    local status, out, err = weir("bench", "nats://127.0.0.1:1")
    assert.same({ 1, "" }, { status, out })
    assert.matches("^weir: refused", err)
    status, out, err = weir("bench", "--only", "streems")
    assert.same({ 2, "" }, { status, out })
    assert.matches("did you mean 'streams'%?", err)
  end)
end)

describe("weir conformance --list", function()
  it("prints an object for each check with --json", function()
    local status, out, err = weir("conformance", "--list", "--json", "--only", "^settlement%.")
    assert.same({ 0, "" }, { status, err })
    local count = 0
    for line in out:gmatch("[^\n]+") do
      local check = cjson.decode(line)
      assert.matches("^settlement%.", check.name)
      assert.matches("%S", check.proves)
      count = count + 1
    end
    assert.is_true(count > 5)
  end)
end)

describe("the command line", function()
  it("says which module is missing when argparse is", function()
    local out = select(2, shell.run("lua5.4 -e 'package.preload.argparse = function() error(\"none\") end'"
      .. " lua/bin/weir check app.lua"))
    assert.matches("^weir: [^\n]*argparse[^\n]*install[^\n]*\n$", out)
  end)
end)
