local shell = require("spec.house.shell")
local cli = require("weir.cli")
local version = require("weir.version")

local function buffer()
  local parts = {}
  return {
    write = function(self, ...)
      for _, part in ipairs({ ... }) do
        parts[#parts + 1] = part
      end
      return self
    end,
  }, parts
end

-- The status, and what was written to the standard output and to the standard error.
local function weir(...)
  local out, out_parts = buffer()
  local err, err_parts = buffer()
  local status = cli.run({ ... }, cli.console(out, err))
  return status, table.concat(out_parts), table.concat(err_parts)
end

describe("weir", function()
  it("lists its commands with --help, -h and help", function()
    local status, out, err = weir("--help")
    assert.equal(0, status)
    assert.equal("", err)
    for _, name in ipairs(cli.commands()) do
      assert.matches("\n  " .. name .. " +%S", out)
    end
    assert.matches("Exit status", out)
    assert.same({ 0, out, "" }, { weir("-h") })
    assert.same({ 0, out, "" }, { weir("help") })
  end)

  it("explains its use and fails when called with nothing", function()
    local status, out, err = weir()
    assert.equal(2, status)
    assert.equal("", out)
    assert.matches("^Usage: weir COMMAND", err)
  end)

  it("prints its version and what it runs on", function()
    local status, out = weir("--version")
    assert.equal(0, status)
    assert.equal("weir " .. version, out:match("^[^\n]*"))
    assert.matches("\nLua 5.4\n", out)
    assert.matches("\nlibuv %d+%.%d+", out)
    assert.same({ 0, out, "" }, { weir("version") })
    local found = require("cjson").decode((select(2, weir("version", "--json"))))
    assert.same({ version, "5.4" }, { found.weir, found.lua })
    assert.matches("^%d+%.%d+", found.libuv)
  end)

  it("suggests the nearest command for an unknown one", function()
    for typo, meant in pairs({ verison = "version", hlep = "help", VERSION = "version", vers = "version" }) do
      local status, out, err = weir(typo)
      assert.equal(2, status)
      assert.equal("", out)
      assert.equal(("weir: unknown command '%s'; did you mean '%s'?\nTry 'weir help'.\n"):format(typo, meant), err)
    end
  end)

  it("suggests nothing when nothing is near", function()
    for word, shown in pairs({
      frobnicate = "frobnicate",
      [""] = "",
      ["\27[31m\255"] = "\\27[31m\\255",
      [("x"):rep(100000)] = ("x"):rep(200) .. "... (99800 bytes more)",
    }) do
      local status, _, err = weir(word)
      assert.equal(2, status)
      assert.equal(("weir: unknown command '%s'\nTry 'weir help'.\n"):format(shown), err)
    end
  end)

  it("refuses an unknown option", function()
    local status, _, err = weir("--frobnicate")
    assert.equal(2, status)
    assert.equal("weir: unknown option '--frobnicate'\nTry 'weir help'.\n", err)
  end)

  it("explains one command with help COMMAND and COMMAND --help", function()
    local status, out = weir("help", "version")
    assert.equal(0, status)
    assert.matches("^Usage: weir version %[OPTION%.%.%.%]\n", out)
    assert.same({ 0, out, "" }, { weir("version", "--help") })
    assert.same({ 0, out, "" }, { weir("version", "-h") })
  end)

  it("points at a command's help when it is used wrongly", function()
    local status, _, err = weir("version", "5")
    assert.equal(2, status)
    assert.equal("weir: it takes no words, not '5'\nTry 'weir help version'.\n", err)
  end)

  it("points at the help of a verb when that is used wrongly", function()
    local status, _, err = weir("dlq", "list")
    assert.equal(2, status)
    assert.matches("^weir: the broker is missing[^\n]*\nTry 'weir help dlq list'.\n$", err)
    status, _, err = weir("help", "dlq", "lsit")
    assert.equal(2, status)
    assert.matches("^weir: VERB must be one of list, show, [^\n]*; did you mean 'list'%?\n", err)
    status, _, err = weir("help", "version", "list")
    assert.equal(2, status)
    assert.matches("^weir: version has no verbs, so 'list' is one word too many\n", err)
  end)

  it("never loads a module by a name that is not a command", function()
    local status = weir("../cli")
    assert.equal(2, status)
    assert.is_nil(package.loaded["weir.cli.../cli"])
  end)

  describe("running a command", function()
    local real

    before_each(function()
      real = require("weir.cli.version")
    end)

    after_each(function()
      package.loaded["weir.cli.version"] = real
    end)

    local function command(run)
      local words = { { "first", "FIRST", "", optional = true }, { "second", "SECOND", "", optional = true } }
      package.loaded["weir.cli.version"] = { summary = "", words = words, run = run }
    end

    it("passes what was read and returns its status", function()
      local got
      command(function(options)
        got = options
        return 7
      end)
      assert.equal(7, (weir("version", "a", "--", "--help")))
      assert.same({ first = "a", second = "--help" }, got)
    end)

    it("prints its error and exits with 1", function()
      command(function()
        return nil, "the disk is full"
      end)
      assert.same({ 1, "", "weir: the disk is full\n" }, { weir("version") })
    end)

    it("prints no error that would do anything to the terminal", function()
      command(function()
        return nil, "the server says: \27[2J\a\194\155 caf\xc3\xa9\n\226\128\174evil"
      end)
      local _, _, err = weir("version")
      assert.equal("weir: the server says: \\27[2J\\7\\194\\155 caf\xc3\xa9\n\\226\\128\\174evil\n", err)
    end)

    it("prints a traceback when it raises and exits with 1", function()
      command(function()
        error("a bug")
      end)
      local status, _, err = weir("version")
      assert.equal(1, status)
      assert.matches("a bug\nstack traceback:", err)
    end)
  end)
end)

describe("lua/bin/weir", function()
  local bare = "env -u LUA_PATH -u LUA_CPATH -u WEIR_BUILD "

  it("runs from the tree without any path set, from anywhere", function()
    local root = shell.check("pwd"):gsub("\n", "")
    local output = shell.check("cd / && " .. bare .. shell.quote(root .. "/lua/bin/weir") .. " --version")
    assert.matches("^weir " .. version:gsub("%p", "%%%0") .. "\n", output)
  end)

  it("exits with the status of the command", function()
    assert.equal(0, (shell.run(bare .. "lua/bin/weir help")))
    assert.equal(2, (shell.run(bare .. "lua/bin/weir hepl")))
  end)

  it("writes no colours into a pipe", function()
    local _, output = shell.run(bare .. "lua/bin/weir hepl")
    assert.not_matches("\27", output)
  end)

  it("writes colours to a terminal unless NO_COLOR is set", function()
    if shell.run("script -qec true /dev/null") ~= 0 then
      return pending("there is no pseudo-terminal, or no script to make one")
    end
    local line = bare .. "script -qec %s /dev/null"
    local _, output = shell.run("TERM=xterm " .. line:format("'lua/bin/weir help'"))
    assert.matches("\27%[1mUsage:", output)
    _, output = shell.run("TERM=xterm NO_COLOR=1 " .. line:format("'lua/bin/weir help'"))
    assert.not_matches("\27", output)
  end)
end)
