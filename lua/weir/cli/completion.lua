--- `weir completion SHELL`: prints what makes a shell complete the words of weir.
-- @module weir.cli.completion
local arguments = require("weir.cli.arguments")
local cli = require("weir.cli")

local M = {
  summary = "print the completions of a shell",
  words = {
    { "shell", "SHELL", "bash or zsh", choices = { "bash", "zsh" }, missing = "the shell is missing: bash or zsh" },
  },
  options = {},
  examples = {
    'source <(weir completion bash)                                 # in ~/.bashrc',
    'weir completion bash >/usr/share/bash-completion/completions/weir   # for all',
    'weir completion zsh >"${fpath[1]}/_weir"                       # zsh, once',
  },
}

function M.run(options, console)
  local tree = arguments.tree(cli.commands(), function(name)
    return cli.load(name)
  end)
  local text = options.shell == "bash" and tree:get_bash_complete() or tree:get_zsh_complete()
  console.out:write(text, text:find("\n$") and "" or "\n")
  return cli.OK
end

return M
