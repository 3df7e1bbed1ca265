local programs = require("spec.programs")
local servers = require("spec.lua.nats_server")
local shell = require("spec.house.shell")

local FILE = "examples/orders.lua"

-- Lines of which every third is an order.
local function log_of(count)
  local directory, remove = shell.scratch()
  local path = directory .. "/dpkg.log"
  local file = assert(io.open(path, "wb"))
  for i = 1, count do
    local action = i % 3 == 0 and "install" or "status installed"
    file:write(("2026-01-02 03:04:%02d %s libc%d:amd64 2.36-9 2.36-10\n"):format(i % 60, action, i))
  end
  file:close()
  return path, remove
end

describe(FILE, function()
  it("has its wiring right", function()
    local status, out = programs.run({ "lua5.4", "lua/bin/weir", "run", FILE, "--check" })
    assert.same({ 0, "orders 1.0.0: the wiring is right\n" }, { status, out })
  end)

  for _, workers in ipairs({ 1, 4 }) do
    it(("confirms the orders of a file, with %d workers, until a signal"):format(workers), function()
      local path, remove = log_of(3000)
      finally(remove)
      local program = programs.start({ "lua5.4", "lua/bin/weir", "run", FILE, "--env", "FILE=" .. path, "--env",
        "WORKERS=" .. workers, "--log-level", "warn" })
      finally(function()
        program:discard()
        remove()
      end)
      program:await_output("3000 lines, 1000 orders, 1000 confirmed; Ctrl%-C ends\n()")
      program:kill("sigint")
      local status, _, err = program:wait()
      assert.same({ 130, "" }, { status, err })
    end)
  end

  it("does the same on a NATS server", function()
    if not servers.available() then
      return pending("nats-server is not installed: spec/setup test")
    end
    local server = servers.start()
    local path, remove = log_of(300)
    local program = programs.start({ "lua5.4", "lua/bin/weir", "run", FILE, "--env", "BROKER=" .. server.url, "--env",
      "FILE=" .. path, "--log-level", "error" })
    finally(function()
      program:discard()
      remove()
      server:stop()
    end)
    program:await_output("300 lines, 100 orders, 100 confirmed; Ctrl%-C ends\n()")
    program:kill("sigint")
    local status, _, err = program:wait()
    assert.same({ 130, "" }, { status, err })
  end)

  it("fails when there is no such file", function()
    local status, out, err = programs.run({ "lua5.4", "lua/bin/weir", "run", FILE, "--env", "FILE=/nowhere" })
    assert.same({ 1, "" }, { status, out })
    assert.matches("weir: [^\n]*/nowhere: No such file or directory\n$", err)
  end)
end)
