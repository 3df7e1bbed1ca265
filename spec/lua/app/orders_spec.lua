local programs = require("spec.programs")
local scope = require("spec.lua.scope")
local servers = require("spec.lua.nats_server")
local shell = require("spec.house.shell")

local FILE = "examples/orders.lua"

after_each(scope.close)

-- A file of lines of which every third is an order.
local function log_of(count)
  local path, lines = scope.directory() .. "/dpkg.log", {}
  for i = 1, count do
    local action = i % 3 == 0 and "install" or "status installed"
    lines[i] = ("2026-01-02 03:04:%02d %s libc%d:amd64 2.36-9 2.36-10\n"):format(i % 60, action, i)
  end
  shell.write(path, table.concat(lines))
  return path
end

describe(FILE, function()
  it("has its wiring right", function()
    local status, out = programs.run({ "lua5.4", "lua/bin/weir", "run", FILE, "--check" })
    assert.same({ 0, "orders 1.0.0: the wiring is right\n" }, { status, out })
  end)

  for _, workers in ipairs({ 1, 4 }) do
    it(("confirms the orders of a file, with %d workers, until a signal"):format(workers), function()
      local program = scope.start({ "lua5.4", "lua/bin/weir", "run", FILE, "--env", "FILE=" .. log_of(3000), "--env",
        "WORKERS=" .. workers, "--log-level", "warn" })
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
    scope.finally(function()
      server:stop()
    end)
    local program = scope.start({ "lua5.4", "lua/bin/weir", "run", FILE, "--env", "BROKER=" .. server.url, "--env",
      "FILE=" .. log_of(300), "--log-level", "error" })
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
