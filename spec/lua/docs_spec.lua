local core = require("weir.core")
local docs = require("spec.docs")
local durable = require("spec.lua.durable.support")
local nats = require("spec.lua.nats_server")
local luv = require("luv")
local shell = require("spec.house.shell")

-- Run here.
local ours = {
  ["lua5.4 examples/quickstart.lua"] = true,
}
-- Run by other specs (spec/house: the set-up, installing, the rockspec; examples_spec), or what runs
-- this one.
local elsewhere = {
  ["sudo apt-get install make git"] = true,
  ["git clone https://github.com/weir-lua/weir.git"] = true,
  ["cd weir"] = true,
  [". build/release/env"] = true,
  ["make"] = true,
  ["make demo"] = true,
  ["make test"] = true,
  ["make bench"] = true,
  ["make bench NAME=latency"] = true,
  ["sudo make install"] = true,
  ["luarocks --lua-version 5.4 make rockspec/weir-scm-1.rockspec"] = true,
  ["weir run examples/bakery.lua"] = true,
  ["weir run examples/bakery.lua --env BROKER=nats://127.0.0.1:4222"] = true,
  ["weir run examples/orders.lua"] = true,
  ["weir run examples/orders.lua --env FILE=/var/log/dpkg.log --env WORKERS=4"] = true,
  ["weir run examples/orders.lua --env BROKER=nats://127.0.0.1:4222"] = true,
  ["weir run examples/pipeline/app.lua"] = true,
  ["weir run examples/pipeline/app.lua --env FILE=/var/log/dpkg.log --env WORKERS=8"] = true,
  [ [[weir publish app.lua orders '{"id": "a", "quantity": 3}' --header tenant:blue]] ] = true, -- spec/lua/cli
  [ [[weir request nats://127.0.0.1:4222 prices '{"item": "tea"}' --timeout 2]] ] = true,
  ["weir dlq list app.lua orders.dead --filter code=schema"] = true,
  ["weir dlq replay app.lua orders.dead --filter code=timeout --limit 100"] = true,
  ["weir asyncapi gen app.lua --yaml -o asyncapi.yaml"] = true,
  ["weir asyncapi gen app.lua --require-schemas"] = true,
  ["weir asyncapi diff asyncapi.yaml app.lua"] = true,
  ["weir asyncapi serve app.lua --run"] = true,
  ["lua5.4 examples/tail/producer.lua"] = true,
  ["lua5.4 examples/tail/consumer.lua"] = true,
  ["lua5.4 examples/tail/consumer.lua --name slow --delay 0.01 --buffer 64"] = true,
}

local function files()
  local list = { "README.md" }
  for path in shell.check("find docs -maxdepth 1 -name '*.md' | sort"):gmatch("[^\n]+") do
    list[#list + 1] = path
  end
  return list
end

local function text_of(path)
  return assert(shell.read(path), path)
end

-- The servers of the blocks that need one, by kind; started for the first of them.
local servers = {}

local function ready_for(block)
  local kind = docs.needs_server(block)
  if not kind or servers[kind] then
    return true
  elseif kind == "durable" and durable.available() then
    servers.durable = durable.server()
    luv.os_setenv("DURABLE_URL", servers.durable.url)
    return true
  elseif kind == "nats" and nats.available() then
    servers.nats = nats.start()
    luv.os_setenv("NATS_URL", servers.nats.url)
    return true
  end
  return false
end

for _, path in ipairs(files()) do
  describe(path, function()
    teardown(function()
      for kind, server in pairs(servers) do
        server:stop()
        servers[kind] = nil
      end
    end)

    local blocks, why = docs.blocks(text_of(path))

    it("has fences that are closed", function()
      assert.is_nil(why)
    end)

    for i, block in ipairs(blocks or {}) do
      it(("keeps its word in the block of line %d (%s)"):format(block.line, block.language), function()
        if not ready_for(block) then
          return pending("the server is not installed: spec/setup test")
        end
        local ok, problem = docs.check(block, blocks[i + 1], { ours = ours, elsewhere = elsewhere })
        assert(ok, problem)
      end)
    end

    it("links to what is there", function()
      assert.same({}, docs.broken_links(text_of(path), path:match("^(.*)/") or "."))
    end)
  end)
end

describe("README.md", function()
  it("shows examples/quickstart.lua as it is", function()
    local program = shell.read("examples/quickstart.lua")
    for _, block in ipairs(docs.blocks(text_of("README.md"))) do
      if block.text == program then
        return
      end
    end
    error("no block of README.md equals examples/quickstart.lua")
  end)
end)

describe("docs/tutorial.md", function()
  it("shows examples/bakery.lua as it is", function()
    local program = shell.read("examples/bakery.lua")
    for _, block in ipairs(docs.blocks(text_of("docs/tutorial.md"))) do
      if block.text == program then
        return
      end
    end
    error("no block of docs/tutorial.md equals examples/bakery.lua")
  end)
end)

describe("docs/streams.md", function()
  it("lists the close codes by their names", function()
    local found = 0
    for status, code in text_of("docs/streams.md"):gmatch("\n| (%d+) | `([%l_]+)` |") do
      assert.equal(core.close_name(tonumber(status)), code)
      found = found + 1
    end
    assert.equal(13, found) -- all but 200, which nobody sends
  end)
end)

describe("the list of commands that are run elsewhere", function()
  it("has none that no page shows", function()
    local shown = {}
    for _, path in ipairs(files()) do
      for _, block in ipairs(docs.blocks(text_of(path)) or {}) do
        for line in block.text:gmatch("[^\n]+") do
          shown[line] = block.language == "sh" or shown[line]
        end
      end
    end
    for _, list in ipairs({ ours, elsewhere }) do
      for line in pairs(list) do
        assert.is_true(shown[line], line)
      end
    end
  end)
end)

describe("a documentation block", function()
  local commands = { ours = { ["true"] = true, ["false"] = true }, elsewhere = { ["make test"] = true } }

  local function check(text)
    local blocks = assert(docs.blocks(text))
    return docs.check(blocks[1], blocks[2], commands)
  end

  it("fails when its program fails", function()
    assert.is_true(check("```lua\nlocal a = 1\n```\n"))
    assert.is_nil(check("```lua\nerror('no')\n```\n"))
    assert.is_nil(check("```lua\nthis is no Lua\n```\n"))
    assert.is_nil(check("```lua\nio.stderr:write('oops')\n```\n"))
    assert.is_nil(check("  ```lua\n  error('indented')\n  ```\n"))
  end)

  it("fails when its program prints something else", function()
    local text = "```lua\nprint('a', 1 + 1)\nprint('b.')\n```\nIt prints:\n```text\n%s\n```\n"
    assert.is_true(check(text:format("a\t2\nb.")))
    assert.is_true(check(text:format("a...\n...")))
    assert.is_nil(check(text:format("a\t3\nb.")))
    assert.is_nil(check(text:format("a\t2\nbx")))
    assert.is_nil(check(text:format("a\t2")))
    assert.is_nil(check(text:format("...")))
    assert.is_nil(check("It prints:\n```text\nfrom nowhere\n```\n"))
  end)

  it("has a server of durable streams if it wants one", function()
    if not ready_for({ language = "sh durable" }) then
      return pending("the reference server is not installed: spec/setup test")
    end
    local lua = "```lua durable\nprint(os.getenv('DURABLE_URL'):sub(1, 7))\n```\nIt prints:\n```text\n%s\n```\n"
    assert.is_true(check(lua:format("http://")))
    assert.is_nil(check(lua:format("nothing")))
    local sh = "```sh durable\nweir durable create $DURABLE_URL/x\nls\necho b\n```\nIt prints:\n```text\n%s\n```\n"
    assert.is_true(check(sh:format("b")))
    assert.is_nil(check(sh:format("a")))
    servers.durable:stop()
    servers.durable = nil
  end)

  it("has a server of NATS if it wants one", function()
    if not ready_for({ language = "lua nats" }) then
      return pending("nats-server is not installed: spec/setup test")
    end
    local lua = "```lua nats\nprint(os.getenv('NATS_URL'):sub(1, 7))\n```\nIt prints:\n```text\n%s\n```\n"
    assert.is_true(check(lua:format("nats://")))
    assert.is_nil(check(lua:format("nothing")))
    servers.nats:stop()
    servers.nats = nil
  end)

  it("names the command of a script that failed, and shows what was printed before", function()
    local ok, problem = check("```sh durable\necho before\ntest -e nowhere\ntrue\n```\n")
    assert.is_nil(ok)
    assert.matches("status 1", problem)
    assert.matches("before", problem)
    assert.matches("`test %-e nowhere` %(line 2%)", problem)
    ok, problem = check("```sh durable\nweir durable head http://127.0.0.1:1/x\n```\n")
    assert.is_nil(ok)
    assert.matches("command weir .*ends with status 1", problem)
    assert.is_true(check("```sh durable\nmktemp -u | tail -n 1 >list\ntest -s list\n```\n"))
  end)

  it("fails when the prompt answers something else", function()
    assert.is_true(check("```lua-prompt\n> x = 1\n> x + 1\n2\n> print('a') print('b')\na\nb\n> x\n1\n```\n"))
    assert.is_nil(check("```lua-prompt\n> x = 1\n> x + 1\n3\n```\n"))
    assert.is_nil(check("```lua-prompt\n> error('no')\n```\n"))
  end)

  it("fails when a command fails, or is unknown", function()
    assert.is_true(check("```sh\ntrue   # a comment\n\nmake test\n```\n"))
    assert.is_nil(check("```sh\ntrue\nfalse\n```\n"))
    assert.is_nil(check("```sh\nrm -rf /\n```\n"))
  end)

  it("fails in a language that nobody checks", function()
    assert.is_nil(check("```Lua\nprint(1)\n```\n"))
    assert.is_nil(check("```\nprint(1)\n```\n"))
    assert.is_nil(check("```vector nobody\n00\n```\n"))
    assert.is_true(check("```vector hello\n00\n```\n"))
    assert.is_true(check("```text\nanything\n```\n"))
  end)

  it("has an end", function()
    assert.is_nil(docs.blocks("```lua\nprint(1)\n"))
  end)

  it("may show a fence inside a longer one", function()
    local blocks = docs.blocks("````text\n```lua\n```\n````\n```sh\ntrue\n```\n")
    assert.equal("```lua\n```\n", blocks[1].text)
    assert.equal("true\n", blocks[2].text)
  end)
end)

describe("a link", function()
  it("leads to a file or heading that is there", function()
    local text = "# One two\n[a](b.md) [c](docs/d.md) [e](https://example.org) [f](#one-two) [g](#none) `[h](i)`\n"
    assert.same({ "b.md", "docs/d.md", "#none" }, docs.broken_links(text, "."))
    assert.same({}, docs.broken_links("[a](spec/docs.lua) [b](docs) [c](docs/tasks.md#groups)", "."))
    assert.same({ "docs/tasks.md#cakes" }, docs.broken_links("[a](docs/tasks.md#cakes)", "."))
  end)
end)
