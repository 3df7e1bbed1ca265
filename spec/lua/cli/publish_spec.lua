local cjson = require("cjson")
local nats = require("spec.lua.nats_server")
local peers = require("spec.lua.peers")
local shell = require("spec.house.shell")
local support = require("spec.lua.cli.support")
local terminal = require("spec.lua.terminal")

after_each(support.clean)

local weir = support.weir

-- An application on a memory broker with a directory: it prints what it gets, and ends when it got `count` messages.
local function application(count, handler)
  local directory = support.directory()
  local path = directory .. "/app.lua"
  shell.write(path, ([[
io.stdout:setvbuf("no")
local weir = require("weir")
local app = weir.app("orders", "1.0.0", { log = { level = "error" } })
app:broker("memory://%s/store")
local got = 0
app:subscriber({ name = "orders", group = "all" }, { codec = "raw" }, function(value, ctx)
  print(value, ctx.headers["content-type"], ctx.headers.tenant, ctx.key)
  got = got + 1
  if got == %d then app:request_stop() end
end)
]]):format(directory, count) .. (handler or "") .. "\nreturn app\n")
  return path
end

-- What the application gets after this was done.
local function received(path)
  local _, out, err = weir("run", path)
  assert.equal("", err)
  return out
end

-- The group exists from the first run on.
local function with_group(path)
  local program = support.start("run", path, "--log-level", "info")
  support.await_error(program, "(started)")
  program:kill("sigterm")
  program:wait()
  return path
end

describe("weir publish", function()
  it("publishes JSON as it is written, with headers and a key", function()
    local path = with_group(application(1))
    local value = '{"id": 1.0, "n":12345678901234567890}'
    local status, out, err = weir("publish", path, "orders", value, "--header", "Tenant: blue", "--key=k")
    assert.same({ 0, "published one message (37 B) to orders\n", "" }, { status, out, err })
    assert.equal(value .. "\tapplication/json\tblue\tk\n", received(path))
  end)

  it("encodes the value as --codec says", function()
    local path = with_group(application(2))
    assert.equal(0, (weir("publish", path, "orders", "[1]", "--codec", "msgpack", "--quiet")))
    assert.equal(0, (weir("publish", path, "orders", "no JSON \255", "--codec", "raw")))
    assert.equal("\x91\x01\tapplication/msgpack\tnil\tnil\nno JSON \255\tapplication/octet-stream\tnil\tnil\n",
      received(path))
  end)

  it("reads the value, or lines of them, from the standard input", function()
    local path = with_group(application(4))
    local command = "printf '%s' | lua5.4 lua/bin/weir publish " .. shell.quote(path) .. " orders "
    shell.check(command:format("7") .. "-")
    local out = shell.check(command:format("1\\n2\\r\\n\\n3") .. "--lines --json")
    assert.same({ 3, "orders" }, { cjson.decode(out).count, cjson.decode(out).destination })
    assert.equal("7 1 2 3", (received(path):gsub("\t[^\n]*\n", " "):gsub(" $", "")))
  end)

  it("says that there is nothing to publish", function()
    local path = application(1)
    local status, _, err = weir("publish", path, "orders", "-")
    assert.same({ 1, "weir: there is nothing on the standard input to publish\n" }, { status, err })
  end)

  it("says which line is wrong, and how many were published before it", function()
    local path = with_group(application(1))
    local status, out = shell.run("printf '1\\n{\\n' | lua5.4 lua/bin/weir publish " .. shell.quote(path)
      .. " orders --lines")
    assert.equal(1, status)
    assert.matches("^weir: line 2 of the standard input: the value is no JSON .*; lines published before it: 1\n$", out)
  end)

  it("says what to do where an application has the directory", function()
    local path = application(1, "app:on('started', function() print('up') end)")
    local program = support.start("run", path)
    program:await_output("up")
    local store = "memory://" .. path:gsub("app.lua$", "store")
    for _, words in ipairs({ { "publish", store, "orders", "1" }, { "publish", path, "orders", "1" },
      { "dlq", "list", store, "orders.dead" } }) do
      local status, out, err = weir(table.unpack(words))
      assert.same({ 1, "" }, { status, out })
      assert.matches("^weir: locked: [^\n]*/store: another process uses this directory; one process at a time may use"
        .. " it; for several there are servers, such as NATS%. Stop that process first, or work from within it: weir"
        .. " repl runs an application with a prompt\n$", err)
    end
    program:kill("sigterm")
    assert.equal(143, (program:wait()))
  end)

  it("says what to do about what cannot work", function()
    local path = application(1)
    for _, each in ipairs({
      { 1, "no JSON.*%-%-codec raw", path, "orders", "{a" },
      { 1, "lives within one process.*memory:///DIR", "memory:", "orders", "1" },
      { 1, "did you mean 'memory:'", "memroy:", "orders", "1" },
      { 1, "no broker 'nats'; it has: memory", path, "orders", "1", "--broker", "nats" },
      { 2, "an address names its broker itself", "memory:///tmp", "orders", "1", "--broker", "nats" },
      { 1, "cannot open", "/nowhere/app.lua", "orders", "1" },
      { 1, "refused", "nats://127.0.0.1:1", "orders", "1" },
      { 2, "the broker is missing" },
      { 2, "the name to publish to is missing", path },
      { 2, "%-%-lines reads the standard input", path, "orders", "1", "--lines" },
      { 2, "%-%-codec must be one of json", path, "orders", "1", "--codec", "jsn" },
      { 2, "%-%-header needs NAME:VALUE", path, "orders", "1", "--header", "x" },
    }) do
      local status, out, err = weir("publish", table.unpack(each, 3))
      assert.same({ each[1], "" }, { status, out }, err)
      assert.matches("^weir: [^\n]*" .. each[2], err)
      assert.not_matches("traceback", err)
    end
  end)
end)

describe("weir request", function()
  local server

  local function with_server(name, body)
    it(name, function()
      if not nats.available() then
        return pending("nats-server is not there")
      end
      require("weir.task").run(function()
        server = nats.start()
      end)
      support.finally(function()
        require("weir.task").run(function()
          server:stop()
        end)
      end)
      local path = support.file_of([[
local weir = require("weir")
local app = weir.app("prices", "1.0.0")
app:broker(weir.env("BROKER"))
app:subscriber("prices", function(question) return weir.reply({ item = question.item, cents = 250 }) end)
app:subscriber("bytes", { codec = "raw" }, function() return weir.reply("\255\0") end)
app:subscriber("silent", function() weir.sleep(60) end)
return app
]])
      local program = support.start("run", path, "--env", "BROKER=" .. server.url)
      support.await_error(program, "(started)")
      body(path)
    end)
  end

  with_server("prints the answer", function(path)
    assert.same({ 0, '{"item":"tea","cents":250}', "" }, (function()
      local status, out, err = weir("request", server.url, "prices", '{"item":"tea"}')
      local value = cjson.decode(out)
      return { status, ('{"item":"%s","cents":%d}'):format(value.item, value.cents), err }
    end)())
    local status, out = weir("request", path, "prices", '{"item":"tea"}', "--json", "--env", "BROKER=" .. server.url)
    local answer = cjson.decode(out)
    assert.same({ 0, 250, "application/json" }, { status, answer.value.cents, answer.headers["content-type"] })
    status, out = weir("request", server.url, "bytes", "x", "--codec", "raw", "--json")
    assert.same({ 0, "/wA=" }, { status, cjson.decode(out).payload_base64 })
  end)

  with_server("prints bytes as they are, but on a terminal", function()
    local status, out = weir("request", server.url, "bytes", "x", "--codec", "raw")
    assert.same({ 0, "\255\0\n" }, { status, out })
    if peers.missing("python3") then
      return pending("python3 is missing")
    end
    local words = { "lua5.4", "lua/bin/weir", "request", server.url, "bytes", "x", "--codec", "raw" }
    assert.equal("\\255\\0\r\n", terminal.play({ words = words, steps = { { "quit" } } }).output)
  end)

  with_server("says that nobody answers, or not in time", function()
    local status, out, err = weir("request", server.url, "nobody", "1")
    assert.same({ 1, "", "weir: no_responders: nobody answers at 'nobody'; does its handler run?\n" },
      { status, out, err })
    status, out, err = weir("request", server.url, "silent", "1", "--timeout", "0.2")
    assert.same({ 1, "", "weir: timeout: no answer from 'silent' within 0.2 seconds; --timeout waits longer\n" },
      { status, out, err })
  end)
end)
