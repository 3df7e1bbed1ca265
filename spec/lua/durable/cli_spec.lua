local here = require("spec.lua.durable.support")
local programs = require("spec.programs")

local input = os.tmpname()

-- Runs `weir durable ...` with this standard input: status, output, errors.
local function run(text, ...)
  local file = assert(io.open(input, "wb"))
  file:write(text)
  file:close()
  local words = { "sh", "-c", 'exec lua5.4 lua/bin/weir durable "$@" <' .. input, "weir" }
  table.move({ ... }, 1, select("#", ...), #words + 1, words)
  return programs.run(words)
end

describe("weir durable", function()
  if not here.available() then
    pending("the reference server is not installed: spec/setup test")
    return
  end
  local server

  setup(function()
    server = here.server()
  end)

  teardown(function()
    server:stop()
    os.remove(input)
  end)

  it("creates, writes, reads, forks, closes and deletes", function()
    local url = server.url .. "/cli"
    assert.equal(0, run("", "create", url, "--type", "text/plain"))
    local big = ("0123456789"):rep(50000)
    assert.equal(0, run(big, "append", url))
    local status, out = run("", "read", url)
    assert.equal(0, status)
    assert.is_true(out == big)
    assert.equal(0, run("", "fork", url .. "-2", "--source", url))
    assert.equal(0, run("", "close", url))
    assert.matches("closed +true", select(2, run("", "head", url)))
    assert.equal(0, run("", "delete", url .. "-2"))
    assert.equal(0, run("", "delete", url))
    local failed, _, err = run("", "read", url)
    assert.equal(1, failed)
    assert.matches("not_found", err)
  end)

  it("takes and gives JSON line by line", function()
    local url = server.url .. "/cli-json"
    assert.equal(0, run("", "create", url, "--type=application/json"))
    assert.equal(0, run('{"a":[1,2]}\n\n[3]\n"x"', "append", url))
    local _, out = run("", "read", url, "--json")
    assert.equal('{"a":[1,2]}\n[3]\n"x"\n', out)
  end)

  it("follows a stream, and goes on at its checkpoint", function()
    local url, checkpoint = server.url .. "/cli-tail", os.tmpname()
    assert.equal(0, run("", "create", url, "--type", "text/plain"))
    local words = { "lua5.4", "lua/bin/weir", "durable", "tail", url, "--from=-1", "--checkpoint", checkpoint }
    local tail = programs.start(words)
    assert.equal(0, run("one", "append", url))
    tail:await_output("^one$")
    tail:await(function()
      local file = io.open(checkpoint)
      local text = file and file:read("a") or ""
      if file then file:close() end
      return text:find("_%d*[1-9]")
    end)
    tail:discard()
    assert.equal(0, run("two", "append", url))
    assert.equal(0, run("", "close", url))
    local status, out = programs.run(words)
    os.remove(checkpoint)
    assert.equal(0, status)
    assert.equal("two", out)
  end)

  it("says what is wrong with its use", function()
    for _, words in ipairs({ {}, { "nonsense", "x" }, { "read" }, { "read", "ftp://x" },
      { "read", "http://x", "--ttl", "1" },
      { "fork", "http://x" }, { "read", "http://x", "--live", "no" }, { "head", "http://x", "--header", "x" } }) do
      local status, out, err = run("", table.unpack(words))
      assert.equal(2, status)
      assert.equal("", out)
      assert.matches("^weir: ", err)
    end
  end)
end)
