-- What is wrong from outside, for each command that it may happen to. The prompt has such specs in spec/lua/repl, and
-- weir top in spec/lua/top: there terminals are narrow or resized, the history cannot be written, and what is typed is
-- no UTF-8.
local cjson = require("cjson")
local http = require("weir.http")
local peers = require("spec.lua.peers")
local programs = require("spec.programs")
local shell = require("spec.house.shell")
local support = require("spec.lua.cli.support")
local terminal = require("spec.lua.terminal")

after_each(support.clean)

local file_of, weir, plain = support.file_of, support.weir, support.plain

-- Every command that loads the file of an application, or a program like that.
local WITH_FILE = {
  { "run" }, { "run", nil, "--check" }, { "run", nil, "--workers=2" }, { "check" }, { "repl" },
  { "publish", nil, "a", "1" }, { "request", nil, "a", "1" },
  { "dlq list", nil, "a" }, { "dlq show", nil, "a" }, { "dlq replay", nil, "a" }, { "dlq remove", nil, "a", "--all" },
  { "top", nil, "--once" }, { "top", nil, "--json" },
  { "asyncapi gen" }, { "asyncapi diff", nil, "other.json" }, { "asyncapi serve" }, { "asyncapi serve", nil, "--run" },
  { "conformance" },
}

-- The words of such a command with a file.
local function words_of(command, path)
  local words = {}
  for word in command[1]:gmatch("%S+") do
    words[#words + 1] = word
  end
  words[#words + 1] = path
  return table.unpack(table.move(command, 3, #command, #words + 1, words))
end

local GOOD = [[
local weir = require("weir")
local app = weir.app("orders", "1.0.0", { log = { level = "off" } })
app:broker("memory:")
app:subscriber("orders", function() end)
]]

-- Checks that each command ends with status 1 and one line: what is wrong, without a traceback.
local function each_says(path, message)
  for _, command in ipairs(WITH_FILE) do
    it(("is said by weir %s"):format(table.concat({ words_of(command, "FILE") }, " ")), function()
      local where = path()
      local status, out, err = weir(words_of(command, where))
      assert.same({ 1, "" }, { status, out }, err)
      assert.matches("^weir: [^\n]*" .. plain(message:gsub("FILE", where)) .. "[^\n]*\n$", err)
    end)
  end
end

describe("a syntax error", function()
  each_says(function()
    return file_of("\nlocal x = = 1")
  end, "FILE:2: unexpected symbol near '='")
end)

describe("a runtime error", function()
  each_says(function()
    return file_of("\n\nlocal x = nil + 1")
  end, "FILE:3: attempt to perform arithmetic on a nil value")
end)

describe("an error that is a table", function()
  each_says(function()
    return file_of("error({ reason = 'no stock' })")
  end, [[the program raised an error: { reason = "no stock" }]])
end)

describe("a missing module", function()
  each_says(function()
    return file_of("require('nope.there')")
  end, "FILE:1: the module 'nope.there' is not found: it is neither installed nor beside the file")
end)

describe("a file that is not there", function()
  each_says(function()
    return support.directory() .. "/app.lua"
  end, "cannot open FILE: No such file or directory")
end)

describe("a directory instead of a file", function()
  each_says(function()
    local path = support.directory() .. "/app.lua"
    shell.check("mkdir " .. path)
    return path
  end, "cannot read FILE: Is a directory")
end)

describe("a port in use", function()
  local function in_use()
    local server = assert(http.listen("tcp://127.0.0.1:0", function()
      return 200
    end))
    support.finally(function()
      server:close(0)
    end)
    return server.url:match(":(%d+)$")
  end

  it("is said by weir run, with the address and what to do", function()
    local path = file_of(GOOD .. ("app:http{ listen = 'http://127.0.0.1:%s' } return app"):format(in_use()))
    local status, out, err = weir("run", path)
    assert.same({ 1, "" }, { status, out })
    assert.matches("^weir: in_use: [^\n]*http://127.0.0.1:%d+[^\n]*choose another\n$", err)
  end)

  it("is said by weir asyncapi serve", function()
    local status, out, err = weir("asyncapi", "serve", file_of(GOOD .. "return app"), "--listen",
      "http://127.0.0.1:" .. in_use())
    assert.same({ 1, "" }, { status, out })
    assert.matches("^weir: in_use: [^\n]*127.0.0.1:%d+[^\n]*choose another[^\n]*\n$", err)
  end)
end)

describe("options that exclude each other", function()
  for _, each in ipairs({
    { "run", "a.lua", "--workers=2", "--check" },
    { "run", "a.lua", "--reload", "--check" },
    { "dlq", "remove", "a.lua", "a.dead", "--all", "--filter", "code=x" },
    { "repl", "a.lua", "--connect", "nats://127.0.0.1:1" },
    { "publish", "a.lua", "a", "1", "--lines" },
    { "publish", "memory:///tmp", "a", "1", "--broker", "x" },
    { "bench", "nats://127.0.0.1:1", "--only", "tcp" },
    { "top", ":1", "--env", "A=1" },
  }) do
    it("are refused by weir " .. table.concat(each, " "), function()
      local status, out, err = weir(table.unpack(each))
      assert.same({ 2, "" }, { status, out }, err)
      assert.matches("^weir: [^\n]+\nTry 'weir help [%l ]+'%.\n$", err)
    end)
  end
end)

describe("an output that nobody reads", function()
  local path

  before_each(function()
    path = file_of(GOOD .. "return app")
  end)

  for _, line in ipairs({
    "help", "help --man", "help durable append", "version", "completion bash", "completion zsh", "bench --seconds 0.02",
    "conformance --list", "conformance weir.broker.memory --only ^settlement", "check FILE --json", "asyncapi gen FILE",
    "publish memory:///DIR a 1", "dlq list memory:///DIR a", "new shop", "new shop --json", "repl </dev/null",
    "top FILE --once --interval 0.1", "top FILE --json --interval 0.1",
  }) do
    it("ends weir " .. line .. " quietly", function()
      local root, folder = shell.check("pwd"):gsub("\n", ""), path:match("^(.*)/")
      line = line:gsub("FILE", path):gsub("DIR", folder:sub(2))
      local text = "cd %s && { lua5.4 %s/lua/bin/weir %s 2>&3 | true; } 3>&1"
      assert.equal("", shell.check(text:format(folder, root, line)))
    end)
  end
end)

describe("an output that cannot be written", function()
  it("is an error, however much was written", function()
    for _, words in ipairs({ "version", "help --man", "completion bash", "conformance --list" }) do
      local status, err = shell.run("lua5.4 lua/bin/weir " .. words .. " >/dev/full")
      assert.same({ 1, "weir: cannot write to the standard output: No space left on device\n" }, { status, err })
    end
  end)

  it("does no harm when it is closed, nor an input that is", function()
    assert.same({ 0, "" }, { shell.run("lua5.4 lua/bin/weir help <&- >&- 2>&-") })
    local path = file_of(GOOD .. "app:on('started', function() app:request_stop() end) return app")
    for _, more in ipairs({ "", "--workers 2" }) do
      assert.same({ 0, "" }, { shell.run(("lua5.4 lua/bin/weir run %s %s <&- >&- 2>&-"):format(path, more)) })
    end
  end)
end)

describe("a narrow terminal", function()
  local function play(words, columns)
    local program = { "lua5.4", "lua/bin/weir", table.unpack(words) }
    local env = { NO_COLOR = "1" }
    return terminal.play({ words = program, columns = columns, env = env, steps = { { "quit" } } }).output
  end

  it("gets help that fits", function()
    if peers.missing("python3") then
      return pending("python3 is missing")
    end
    for text in play({ "help", "run" }, 50):gmatch("[^\r\n]+") do
      assert.is_true(#text <= 50 or text:find("^  ") ~= nil, text) -- programs and long names stay as they are
    end
    assert.matches("Usage: ", play({ "help", "run" }, 3))
  end)
end)

describe("what is no UTF-8", function()
  local BYTES = "\255\254\27[2J"

  it("is escaped in what commands say of it", function()
    for _, words in ipairs({
      { 2, BYTES }, { 2, "--" .. BYTES }, { 2, "run", "a", BYTES }, { 2, "run", "a", "--" .. BYTES },
      { 2, "run", "a", "--log", BYTES }, { 2, "new", BYTES }, { 2, "help", BYTES }, { 2, "dlq", BYTES },
      { 2, "durable", "head", BYTES }, { 1, "run", BYTES }, { 1, "check", BYTES .. ".lua" },
      { 1, "publish", "memory:///tmp", "a", BYTES }, { 1, "publish", BYTES, "a", "1" }, { 1, "bench", BYTES },
      { 1, "conformance", BYTES }, { 1, "asyncapi", "gen", BYTES },
    }) do
      local status, out, err = weir(table.unpack(words, 2))
      assert.same({ words[1], "" }, { status, out }, err)
      assert.truthy(utf8.len(err), err)
      assert.not_matches("[%z\1-\9\11-\31\127]", err)
      assert.not_matches("traceback", err)
    end
  end)

  it("is no reason for JSON that is none", function()
    local status, out = weir("check", file_of("error('" .. BYTES .. "')"), "--json")
    assert.equal(1, status)
    assert.truthy(utf8.len(out))
    assert.matches("\u{FFFD}", cjson.decode(out).error)
  end)
end)

describe("huge values", function()
  it("are refused by weir publish and weir request before they are held in memory", function()
    for _, line in ipairs({
      "publish memory:///%s a -", "publish memory:///%s a --lines", "request memory:///%s a -",
    }) do
      local words = ("lua5.4 lua/bin/weir " .. line):format(support.directory():sub(2))
      -- So much memory that the limit fits in, and not what comes. (A sanitizer takes more than there is.)
      local memory = os.getenv("LD_PRELOAD") and "unlimited" or "1500000"
      local status, err = shell.run(("ulimit -v %s; head -c 3G /dev/zero | %s"):format(memory, words))
      assert.equal(1, status)
      assert.matches("^weir: too_large: [^\n]*268435456 bytes[^\n]*\n$", err)
    end
  end)

  it("are cut in what commands say of them", function()
    local long = ("x"):rep(100000)
    for _, words in ipairs({
      { long }, { "run", "a", long }, { "run", "a", "--log", long }, { "run", "a", "--" .. long }, { "help", long },
      { "durable", long }, { "new", long },
    }) do
      local status, _, err = weir(table.unpack(words))
      assert.equal(2, status)
      assert.matches("%(%d+ bytes more%)", err)
      assert.is_true(#err < 600, #err)
    end
  end)

  it("may be printed by a program while weir check loads it", function()
    local path = file_of("for _ = 1, 100 do print(('x'):rep(100000)) end " .. GOOD .. "return app")
    local status, out = programs.run({ "sh", "-c", "exec lua5.4 lua/bin/weir check --json " .. path .. " 2>/dev/null" })
    assert.same({ 0, true }, { status, cjson.decode(out).ok })
  end)
end)
