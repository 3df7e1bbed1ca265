local here = require("spec.lua.durable.support")
local programs = require("spec.programs")
local scope = require("spec.lua.scope")
local shell = require("spec.house.shell")

local EXAMPLES = "examples/durable/"
local run, start, scratch, write = programs.run, scope.start, scope.directory, shell.write

local function numbered(from, to, width)
  local lines = {}
  for n = from, to do
    lines[#lines + 1] = ("%d %s\n"):format(n, ("x"):rep(width))
  end
  return table.concat(lines)
end

after_each(scope.close)

describe("examples/durable", function()
  local client, server
  if not here.reference(function(...) client, server = ... end) then
    return
  end

  local function content(path)
    return assert(client:stream(path):read():body())
  end

  it("quickstart.lua writes and reads, again and again", function()
    local expected = { 0, "Hello, durable streams!\nbehind the second append: streams!\n", "" }
    assert.same(expected, { run({ "lua5.4", EXAMPLES .. "quickstart.lua", server.url }) })
    assert.same(expected, { run({ "lua5.4", EXAMPLES .. "quickstart.lua", server.url }) })
  end)

  it("writer.lua and tail.lua say how they are called", function()
    for _, name in ipairs({ "writer", "tail" }) do
      local status, out, err = run({ "lua5.4", EXAMPLES .. name .. ".lua" })
      assert.same({ 2, "" }, { status, out })
      assert.matches("^usage: " .. name .. "%.lua URL", err)
    end
  end)

  it("writer.lua appends a real file, and later what is new in it", function()
    local log = "/var/log/dpkg.log"
    if not shell.read(log) then
      log = "/etc/services"
    end
    local dir = scratch()
    local path, text = dir .. "/log", assert(shell.read(log)) .. "\n"
    write(path, text)
    local words = { "lua5.4", EXAMPLES .. "writer.lua", server.url .. "/writer", path, dir .. "/state" }
    assert.equal(0, (run(words)))
    assert.is_true(text == content("/writer"))
    local status, out = run(words)
    assert.equal(0, status)
    assert.matches("^0 bytes appended in 0 batches", out)
    shell.append(path, "new\nnot complete")
    assert.equal(0, (run(words)))
    assert.is_true(text .. "new\n" == content("/writer"))
    shell.append(path, " yet\n" .. ("long"):rep(200000) .. "\n")
    assert.equal(0, (run(words)))
    assert.is_true(shell.read(path) == content("/writer"))
  end)

  it("writer.lua, killed before and after the server has a batch, appends each line once", function()
    local dir = scratch()
    local path = dir .. "/log"
    write(path, numbered(1, 5000, 100)) -- three batches
    local program, posts = nil, 0
    local function kill()
      program:kill("sigkill")
    end
    local proxy = here.proxy(server, function(request)
      if request.method ~= "POST" then
        return nil
      end
      posts = posts + 1
      local faults = { nil, nil, "after", "after", nil, "before", "after", "before" }
      return faults[posts], kill
    end)
    local words = { "lua5.4", EXAMPLES .. "writer.lua", proxy.url .. "/killed", path, dir .. "/state" }
    local kills, status = -1
    repeat
      kills = kills + 1
      program = start(words)
      status = program:wait()
      if status == 137 then
        shell.append(path, numbered(kills * 1000, kills * 1000 + 999, 50))
      end
    until status ~= 137
    assert.same({ 0, 5 }, { status, kills })
    assert.is_true(shell.read(path) == content("/killed"))
    proxy:close()
  end)

  it("writer.lua does not go on with the state of another stream", function()
    local dir = scratch()
    write(dir .. "/log", "a\n")
    local words = { "lua5.4", EXAMPLES .. "writer.lua", server.url .. "/one", dir .. "/log", dir .. "/state" }
    assert.equal(0, (run(words)))
    words[3] = server.url .. "/two"
    local status, _, err = run(words)
    assert.equal(1, status)
    assert.matches("state is of another file or stream", err)
  end)

  it("tail.lua goes on where it was killed, until the stream is closed", function()
    local dir = scratch()
    local stream = client:stream("/tail", { content_type = "text/plain" })
    assert(stream:create({ data = "first\n" }))
    local words = { "sh", "-c", ("exec lua5.4 %stail.lua %s %s/at >>%s/out"):format(EXAMPLES, stream.url, dir, dir) }
    for n = 1, 3 do
      local program = start(words)
      local position = assert(stream:append(("line %d\n"):format(n))).offset
      program:await(function()
        return (shell.read(dir .. "/at") or "") == position .. "\n"
      end)
      program:kill("sigkill")
      program:wait()
    end
    assert(stream:close("last\n"))
    assert.equal(0, (run(words)))
    assert.equal("first\nline 1\nline 2\nline 3\nlast\n", shell.read(dir .. "/out"))
  end)
end)
