local cli = require("weir.cli")
local peers = require("spec.lua.peers")
local shell = require("spec.house.shell")
local support = require("spec.lua.cli.support")
local terminal = require("spec.lua.terminal")

after_each(support.clean)

local weir = support.weir

-- How each shell is started in a terminal, and learns the completions.
local SHELLS = {
  bash = {
    words = { "bash", "--norc", "--noprofile", "-i" },
    begin = { "bind 'set enable-bracketed-paste off'", "source completions" },
  },
  zsh = {
    words = { "zsh", "-f", "-i" },
    begin = { "autoload -U compinit && compinit -u -D", "source ./completions" },
  },
  -- As a file in a directory of functions, as the example of the help makes it.
  ["zsh from fpath"] = {
    words = { "zsh", "-f", "-i" },
    file = "_weir",
    begin = { "fpath=($PWD $fpath)", "autoload -U compinit && compinit -u -D" },
  },
}

-- Types lines at the prompt of a shell, with Tab in them, and returns for each the words that the command then got.
local function complete(name, lines)
  local setting = SHELLS[name]
  local directory = support.directory()
  local status, text, err = weir("completion", setting.words[1])
  assert.same({ 0, "" }, { status, err })
  shell.write(directory .. "/" .. (setting.file or "completions"), text)
  shell.write(directory .. "/application.lua", "")
  -- "ready" and the rest are not written as they are typed, so that the echo is not taken for them.
  local steps = { { "send", "cd " .. directory .. " && PS1='$ ' && echo re''ady\r" }, { "expect", "ready" } }
  for _, line in ipairs(setting.begin) do
    table.insert(steps, { "send", line .. "\r" })
  end
  table.insert(steps, { "send", "weir() { printf 'got:'; printf '(%s)' \"$@\"; echo; }; echo be''gin\r" })
  table.insert(steps, { "expect", "begin" })
  for _, line in ipairs(lines) do
    table.insert(steps, { "expect", "$ " }) -- only now Tab is a key
    table.insert(steps, { "send", line .. "\r" })
    table.insert(steps, { "expect", "got:(" })
  end
  table.insert(steps, { "expect", "$ " })
  table.insert(steps, { "send", "exit\r" })
  table.insert(steps, { "quit" })
  local output = terminal.play({ words = setting.words, rows = 50, columns = 200, steps = steps }).output
  local got = {}
  for words in output:gmatch("got:(%([^\n]-%))\r") do
    got[#got + 1] = words:gsub("(%(%-%-[%l-]+)=", "%1)(") -- either is good
  end
  return got, output:gsub("\27%[[%d;?]*%a", " ")
end

describe("weir completion", function()
  for name, setting in pairs(SHELLS) do
    local function with_shell(what, body)
      it(("lets %s %s"):format(name, what), function()
        if peers.missing("python3") or shell.run("command -v " .. setting.words[1]) ~= 0 then
          return pending("there is no " .. setting.words[1] .. ", or no python3")
        end
        body()
      end)
    end

    with_shell("complete commands, verbs, options, their values and files", function()
      local typed, expected = {}, {}
      for line, words in ([[
weir pub\t => (publish)
weir durable app\t => (durable)(append)
weir dlq rep\t => (dlq)(replay)
weir asyncapi d\t app\t => (asyncapi)(diff)(application.lua)
weir run appl\t => (run)(application.lua)
weir run --rel\t appl\t => (run)(--reload)(application.lua)
weir run application.lua --work\t4 => (run)(application.lua)(--workers)(4)
weir run --log j\t => (run)(--log)(json)
weir run --log=j\t => (run)(--log)(json)
weir run --log-level deb\t => (run)(--log-level)(debug)
weir durable tail http://h/x --live lo\t => (durable)(tail)(http://h/x)(--live)(long-poll)
weir durable tail --che\tappl\t => (durable)(tail)(--checkpoint)(application.lua)
weir durable head --lin\t => (durable)(head)(--lin)
weir new --broker n\t shop => (new)(--broker)(nats)(shop)
weir new --broker nats --js\t => (new)(--broker)(nats)(--json)
weir completion z\t => (completion)(zsh)
weir help pub\t => (help)(publish)
weir --ver\t => (--version)
]]):gmatch("([^\n]-) => ([^\n]+)") do
        typed[#typed + 1] = line:gsub("\\t", "\t")
        expected[#expected + 1] = words
      end
      local got, output = complete(name, typed)
      for i, words in ipairs(expected) do
        assert.equal(words, got[i], typed[i] .. "\n" .. output)
      end
    end)

    with_shell("list all commands", function()
      local _, output = complete(name, { "weir \t\t\21weir done" })
      for _, command in ipairs(cli.commands()) do
        assert.matches("[%s]" .. command .. "[%s]", output)
      end
    end)
  end

  it("asks for a shell that it knows", function()
    local status, _, err = weir("completion", "bahs")
    assert.equal(2, status)
    assert.matches("SHELL must be one of bash, zsh, not 'bahs'; did you mean 'bash'%?", err)
  end)
end)
