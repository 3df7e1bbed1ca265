local programs = require("spec.programs")
local scope = require("spec.lua.scope")
local servers = require("spec.lua.nats_server")
local shell = require("spec.house.shell")

local APP, DEMO = "examples/pipeline/app.lua", "examples/pipeline/demo.lua"
local SAMPLE = "examples/pipeline/sample.log"

after_each(scope.close)

local function words(env)
  local list = { "lua5.4", "lua/bin/weir", "run", APP, "--log-level", "warn", "--env", "CATALOGUE=/nowhere" }
  for _, each in ipairs(env) do
    table.insert(list, "--env")
    table.insert(list, each)
  end
  return list
end

local function run(env)
  return programs.run(words(env), 60)
end

-- The sums that it prints: lines, stored, invalid, remarks, dead, replayed, out of order, twice.
local function sums(out)
  local pattern = "(%d+) lines = (%d+) stored %+ (%d+) invalid %+ (%d+) remarks %+ (%d+) dead; "
    .. "(%d+) dead letters were replayed, (%d+) changes out of order, (%d+) came twice"
  local names, found = { "lines", "stored", "invalid", "remarks", "dead", "replayed", "disorder", "twice" }, {}
  for i, value in ipairs({ out:match(pattern) }) do
    found[names[i]] = tonumber(value)
  end
  return found
end

-- What becomes of the sample: 24 of its lines are about packages of the section that is closed.
local OF_SAMPLE = { lines = 301, stored = 279, invalid = 11, remarks = 11, dead = 0, disorder = 0, twice = 0 }

local function assert_sums(out)
  local found = sums(out)
  assert.is_true(found.replayed and found.replayed > 20)
  found.replayed = nil
  assert.same(OF_SAMPLE, found)
end

describe(APP, function()
  it("has its wiring right", function()
    local status, out = programs.run({ "lua5.4", "lua/bin/weir", "run", APP, "--check" })
    assert.same({ 0, "pipeline 1.0.0: the wiring is right\n" }, { status, out })
  end)

  for _, workers in ipairs({ 1, 4, 16 }) do
    it(("loses nothing, and keeps the order of each package, with %d workers"):format(workers), function()
      local status, out, err = run({ "FILE=" .. SAMPLE, "WORKERS=" .. workers })
      assert.equal(0, status, err)
      assert_sums(out)
    end)
  end

  it("runs on a durable memory broker", function()
    local status, out, err = run({ "FILE=" .. SAMPLE, "BROKER=memory://" .. scope.directory() })
    assert.equal(0, status, err)
    assert_sums(out)
  end)

  it("runs on JetStream, unchanged", function()
    if not servers.available() then
      return pending("nats-server is not installed: spec/setup test")
    end
    local server = servers.start({ jetstream = true })
    scope.finally(function()
      server:stop()
    end)
    local status, out, err = run({ "FILE=" .. SAMPLE, "BROKER=" .. server.url })
    assert.equal(0, status, err)
    assert_sums(out)
  end)

  it("takes lines that are anything", function()
    local path = scope.directory() .. "/log"
    shell.write(path, table.concat({
      "", "no log at all", "\255\254 \0 bytes", ("x"):rep(100000),
      "2026-01-02 03:04:05 startup archives unpack", "2026-01-02 03:04:05 status installed tea:all 1.0",
      "2026-01-02 03:04:05 frobnicate tea:all 1.0 2.0", "2026-01-02 03:04:05 install libtea:all <none> 2.0",
    }, "\n"))
    local status, out, err = run({ "FILE=" .. path })
    assert.equal(0, status, err)
    local found = sums(out)
    assert.same({ 8, 2, 5, 1, 1 }, { found.lines, found.stored, found.invalid, found.remarks, found.replayed })
  end)

  it("ends at once when there is nothing in the file", function()
    local path = scope.directory() .. "/log"
    shell.write(path, "")
    local status, out = run({ "FILE=" .. path })
    assert.equal(0, status)
    assert.equal(0, sums(out).lines)
  end)

  it("fails when there is no such file", function()
    local status, _, err = run({ "FILE=/nowhere" })
    assert.equal(1, status)
    assert.matches("weir: [^\n]*/nowhere: No such file or directory\n$", err)
  end)
end)

describe(DEMO, function()
  it("explains itself", function()
    local status, out = programs.run({ "lua5.4", DEMO, "--help" })
    assert.equal(0, status)
    assert.matches("^Usage: lua5.4 " .. DEMO, out)
  end)

  it("shows the counts in plain lines, and that nothing was lost", function()
    local status, out, err = programs.run({ "lua5.4", DEMO, SAMPLE }, 60)
    assert.same({ 0, "" }, { status, err })
    assert.matches("\npublished %d+ of 301 | stored %d+ | retries %d+", out)
    assert.matches("Nothing was lost", out)
    assert.not_matches("[\27\r]", out)
    assert.equal(301, sums(out).lines)
  end)

  it("overwrites its table on a terminal", function()
    local status, out = programs.on_terminal("lua5.4 " .. DEMO .. " " .. SAMPLE)
    if not status then
      return pending("there is no pseudo-terminal, or no script to make one")
    end
    assert.equal(0, status)
    assert.matches("\27%[%d+A\r\27%[K%[#+%.*%] %d+ of 301 lines published", out)
    assert.matches("\27%[1mstep", out)
  end)

  it("writes no colours where NO_COLOR is set", function()
    local status, out = programs.on_terminal("NO_COLOR=1 lua5.4 " .. DEMO .. " " .. SAMPLE)
    if not status then
      return pending("there is no pseudo-terminal, or no script to make one")
    end
    assert.equal(0, status)
    assert.not_matches("\27%[%d*m", out)
  end)

  it("ends with 1 and says why when it cannot read the file", function()
    local status, out, err = programs.run({ "lua5.4", DEMO, "/nowhere" }, 60)
    assert.equal(1, status)
    assert.matches("/nowhere: No such file or directory", err)
    assert.not_matches("Nothing was lost", out)
  end)

  it("can be interrupted", function()
    local program = scope.start({ "lua5.4", DEMO, SAMPLE })
    program:await_output("published [1-9]%d* of 301()")
    program:kill("sigint")
    local status, out = program:wait()
    assert.equal(130, status)
    assert.matches("interrupted\n$", out)
  end)
end)
