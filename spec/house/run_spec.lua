local shell = require("spec.house.shell")

-- A tree of its own, with the driver of this one, a build without C tests, and specs made here.
describe("spec/run", function()
  local root, remove

  before_each(function()
    root, remove = shell.scratch()
    shell.check(([[
      mkdir -p %s/spec/lua/core %s/build/release &&
      cp spec/run spec/report.lua spec/lsan.supp %s/spec/]]):gsub("%%s", shell.quote(root)))
    shell.write(root .. "/build/release/env", "")
    shell.write(root .. "/build/release/CMakeCache.txt", "")
  end)

  after_each(function()
    remove()
  end)

  local function spec(name, body)
    shell.write(("%s/spec/lua/%s_spec.lua"):format(root, name), body)
  end

  local function run(pattern, environment)
    local status, output = shell.run(("cd %s && env -u PRESET -u WEIR_BUILD %s spec/run %s"):format(
      shell.quote(root), environment or "", pattern or ""))
    return status, output, output:match("([^\n]*)\n$")
  end

  it("sums up what passed over all files", function()
    spec("a", "it('one', function() end) it('two', function() end)")
    spec("b", "it('three', function() end)")
    local status, output, last = run()
    assert.equal("3 passed, 0 failed", last)
    assert.equal(0, status, output)
  end)

  it("counts failures, errors and skipped tests and fails", function()
    spec("a", [[
      it('fails', function() assert.equal(1, 2) end)
      it('raises', function() error('boom') end)
      it('is pending', function() pending('later') end)
      it('passes', function() end)]])
    local status, output, last = run()
    assert.equal("1 passed, 2 failed, 1 skipped", last)
    assert.equal(1, status)
    assert.matches("FAILED: fails", output)
    assert.matches("ERROR: raises", output)
    assert.matches("skipped: is pending", output)
    assert.matches("later", output)
  end)

  it("counts a spec file that does not load as failed", function()
    spec("a", "this is not Lua")
    local status, _, last = run()
    assert.equal("0 passed, 1 failed", last)
    assert.equal(1, status)
  end)

  it("counts a run that ends in the middle as failed", function()
    spec("a", "it('exits', function() os.exit(0) end)")
    spec("b", "it('passes', function() end)")
    local status, output, last = run()
    assert.equal("1 passed, 1 failed", last)
    assert.equal(1, status)
    assert.matches("failed: spec/lua/a_spec.lua", output)
  end)

  it("kills a spec file that hangs", function()
    spec("a", "it('hangs', function() while true do end end)")
    local status, output, last = run(nil, "SPEC_TIMEOUT=1")
    assert.equal("0 passed, 1 failed", last)
    assert.equal(1, status)
    assert.matches("status 124", output)
  end)

  it("ends what it runs when it is interrupted", function()
    spec("a", [[it('hangs', function()
      io.open('started', 'w'):close()
      os.execute('sleep 60')
    end)]])
    local status = shell.run((
      "cd %s && { env -u PRESET -u WEIR_BUILD spec/run & } &&"
      .. " for i in $(seq 100); do [ -e started ] && break; sleep 0.1; done;"
      .. " kill $! && wait $!"):format(shell.quote(root)))
    assert.equal(130, status)
    local _, left = shell.run(("ls -l /proc/[0-9]*/cwd 2>/dev/null | grep -F %s"):format(shell.quote(root)))
    assert.equal("", left)
  end)

  it("runs only the files that match the pattern", function()
    spec("a", "it('fails', function() error('boom') end)")
    spec("b", "it('passes', function() end)")
    local status, _, last = run("lua/b_spec")
    assert.equal("1 passed, 0 failed", last)
    assert.equal(0, status)
  end)

  it("fails when nothing matches the pattern", function()
    spec("a", "it('passes', function() end)")
    local status, output, last = run("nothing-like-this")
    assert.equal("0 passed, 1 failed", last)
    assert.equal(1, status)
    assert.matches("no test matches", output)
  end)

  it("says so when LuaJIT's modules are not built", function()
    spec("core/a", "it('passes', function() end)")
    local status, output, last = run()
    assert.equal("1 passed, 0 failed, 1 skipped", last)
    assert.equal(0, status)
    assert.matches("%(LuaJIT%): skipped", output)
  end)

  it("stops when the preset is not built", function()
    local status, output = shell.run(("cd %s && PRESET=debug spec/run"):format(shell.quote(root)))
    assert.equal(1, status)
    assert.matches("make PRESET=debug", output)
  end)
end)
