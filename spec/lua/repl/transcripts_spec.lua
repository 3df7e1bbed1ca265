-- The transcripts of examples/repl: what is typed goes in, and what comes out must be what they show.
local durable = require("spec.lua.durable.support")
local programs = require("spec.programs")
local shell = require("spec.house.shell")
local weir = require("weir")

-- What is typed, and what is shown.
local function parse(text)
  local typed, shown = {}, {}
  for line in text:gmatch("([^\n]*)\n") do
    local input = line:match("^>>? ?(.*)$")
    table.insert(input and typed or shown, input or line)
  end
  return table.concat(typed, "\n") .. "\n", shown
end

-- What a tail shows comes when it comes.
local function without_tails(lines)
  local kept, tails = {}, {}
  for _, line in ipairs(lines) do
    table.insert(line:find("^%S+ <%- ") and tails or kept, line)
  end
  return kept, tails
end

local function lines_of(text)
  local lines = {}
  for line in text:gmatch("([^\n]*)\n") do
    lines[#lines + 1] = line
  end
  return lines
end

-- "..." stands for anything in a line.
local function check(expected, got)
  for i, line in ipairs(expected) do
    local pattern = line:gsub("%p", "%%%0"):gsub("%%%.%%%.%%%.", ".*")
    assert.matches("^" .. pattern .. "$", got[i] or "(nothing)")
  end
  assert.equal(#expected, #got)
end

-- Replays a transcript in a directory of its own.
local function replay(name, env)
  local dir, remove = shell.scratch()
  finally(remove)
  local typed, shown = parse(assert(shell.read("examples/repl/" .. name)))
  shell.write(dir .. "/input", typed)
  local root = shell.check("pwd"):gsub("\n", "")
  local program = programs.start({ "sh", "-c", "cd \"$0\" && exec \"$1/lua/bin/weir\" repl <input", dir, root }, env)
  local status, out, err = program:wait(60)
  program:discard()
  assert.equal("", err)
  assert.equal(0, status)
  local expected, expected_tails = without_tails(shown)
  local got, tails = without_tails(lines_of((out:gsub("stdin:", "prompt:"))))
  check(expected, got)
  check(expected_tails, tails)
  return dir
end

describe("examples/repl", function()
  it("streams.txt shows what happens", function()
    replay("streams.txt")
  end)

  it("broker.txt shows what happens, and saves an application that runs", function()
    local dir = replay("broker.txt")
    assert.equal("repl 0.1.0: the wiring is right\n", shell.check("lua/bin/weir check " .. dir .. "/shop.lua"))
  end)

  if durable.available() then
    it("durable.txt shows what happens", function()
      weir.run(function()
        local server = durable.server()
        replay("durable.txt", { DURABLE_URL = server.url })
        server:stop()
      end)
    end)
  else
    pending("durable.txt: the reference server of durable streams is not installed", function() end)
  end
end)
