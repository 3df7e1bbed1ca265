local cjson = require("cjson")
local durable = require("spec.lua.durable.support")
local nats = require("spec.lua.nats_server")
local programs = require("spec.programs")
local shell = require("spec.house.shell")
local support = require("spec.lua.cli.support")
local templates = require("weir.templates")

after_each(support.clean)

local root = shell.check("pwd"):gsub("\n", "")
local weir = "lua5.4 " .. root .. "/lua/bin/weir "

-- A command within a directory: its status and what it wrote.
local function within(directory, line)
  return shell.run("cd " .. shell.quote(directory) .. " && " .. line)
end

-- Makes a shop, runs it on a server, and publishes to it: a message that is handled and one that is not.
local function runs_on(broker, url)
  local directory = support.directory()
  within(directory, weir .. "new shop --broker " .. broker)
  local path, env = directory .. "/shop/app.lua", "BROKER=" .. url
  local program = support.start("run", path, "--env", env)
  support.await_error(program, "(started)")
  assert.equal(0, (support.weir("publish", path, "shop.hello", '{"name":"Ada"}', "--env", env)))
  support.await_error(program, 'greeted[^\n]*text="Hello, Ada!"')
  assert.equal(0, (support.weir("publish", path, "shop.hello", "{}", "--env", env)))
  local letters = program:await(function()
    local _, out = support.weir("dlq", "list", path, "shop.dead", "--json", "--env", env)
    return out ~= "" and out
  end)
  assert.equal("schema", cjson.decode(letters).code)
end

describe("weir new", function()
  for _, broker in ipairs(templates.BROKERS) do
    it("makes an application on " .. broker .. " that is wired right and passes its tests", function()
      local directory = support.directory()
      local status, out = within(directory, weir .. "new shop --broker " .. broker)
      assert.equal(0, status, out)
      assert.matches("^made shop/README.md\n +shop/app.lua\n", out)
      local shop = directory .. "/shop"
      status, out = within(shop, weir .. "check app.lua")
      assert.same({ 0, "shop 0.1.0: the wiring is right\n" }, { status, out })
      status, out = within(shop, "busted --output=TAP")
      assert.equal(0, status, out)
      assert.matches("^ok 1 [^\n]*\nok 2 [^\n]*\n1%.%.2\n$", out)
      if shell.run("command -v luacheck") == 0 then
        assert.equal(0, (within(shop, "luacheck -q .")))
      end
      assert.not_matches("@%u+@", shell.check(("cd %s && cat README.md app.lua .busted"):format(shop)))
    end)
  end

  it("takes memory when no broker is named, and prints JSON", function()
    local directory = support.directory()
    local _, out = within(directory, weir .. "new a-1_b --json")
    local made = cjson.decode(out)
    assert.same({ "a-1_b", "memory" }, { made.name, made.broker })
    for _, path in ipairs(made.files) do
      assert.truthy(shell.read(directory .. "/" .. path))
    end
  end)

  it("makes what runs as its README says", function()
    local directory = support.directory()
    within(directory, weir .. "new shop")
    local program = programs.start({ "sh", "-c", "cd " .. directory .. "/shop && exec " .. weir
      .. "run app.lua --env HELLO=Ada" })
    support.finally(function()
      program:discard()
    end)
    support.await_error(program, 'greeted[^\n]*text="Hello, Ada!"')
  end)

  it("makes what runs on a real NATS server", function()
    if not nats.available() then
      return pending("nats-server is not there")
    end
    local server
    local tasks = require("weir.task")
    tasks.run(function()
      server = nats.start()
    end)
    support.finally(function()
      tasks.run(function()
        server:stop()
      end)
    end)
    runs_on("nats", server.url)
  end)

  it("makes what runs on a real server of durable streams", function()
    if not durable.available() then
      return pending("the reference server is not installed: spec/setup test")
    end
    local server = durable.server()
    support.finally(function()
      server:stop()
    end)
    runs_on("durable", "durable+" .. server.url .. "/shop")
  end)

  it("leaves alone what is there already", function()
    local directory = support.directory()
    shell.check("mkdir " .. directory .. "/shop && touch " .. directory .. "/file")
    for _, name in ipairs({ "shop", "file" }) do
      local status, out = within(directory, weir .. "new " .. name)
      assert.same({ 1, ("weir: '%s' is there already; choose another name, or move it away\n"):format(name) },
        { status, out })
    end
    assert.equal("", shell.check("ls -A " .. directory .. "/shop"))
  end)

  it("says why a directory cannot be made", function()
    local status, out = within("/proc", weir .. "new shop")
    assert.equal(1, status)
    assert.matches("^weir: cannot make the directory 'shop': ", out)
  end)

  it("refuses a bad name and an unknown broker", function()
    local directory = support.directory()
    for _, name in ipairs({ "", "../x", "a/b", "Shop", "1a", "a b", "a.b", ("x"):rep(65), "-x", "caf\xc3\xa9" }) do
      local status, out = within(directory, weir .. "new -- " .. shell.quote(name))
      assert.equal(2, status)
      assert.matches("^weir: NAME must be 1 to 64 lower%-case letters", out)
    end
    local status, out = within(directory, weir .. "new shop --broker natss")
    assert.equal(2, status)
    assert.matches("must be one of memory, nats, durable, not 'natss'; did you mean 'nats'%?", out)
    assert.equal("", shell.check("ls -A " .. directory))
  end)
end)
