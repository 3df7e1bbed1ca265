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
    'source <(weir completion zsh)                                  # in ~/.zshrc, after compinit',
    'weir completion zsh >"${fpath[1]}/_weir"                       # the same, once',
  },
}

-- Replaces what is there just once.
local function replace(text, old, new)
  local from, to = text:find(old, 1, true)
  assert(from and not text:find(old, to + 1, true), "another argparse writes other completions")
  return text:sub(1, from - 1) .. new .. text:sub(to + 1)
end

local shells = {}

-- Bash takes --name=value for three words.
function shells.bash(tree)
  local prev = '    prev="${COMP_WORDS[COMP_CWORD-1]}"\n'
  return replace(tree:get_bash_complete(), prev, prev .. [=[
    if [[ "$cur" == "=" ]]; then
        cur=""
    elif [[ "$prev" == "=" ]]; then
        prev="${COMP_WORDS[COMP_CWORD-2]}"
    fi
]=])
end

-- An option may have its value behind "=", too; and the text may be loaded by compinit or by `source`.
function shells.zsh(tree)
  local text = tree:get_zsh_complete()
  text = text:gsub('("%*?%-%-[%w-]+)(%[[^\n]-%]: :)', "%1=%2"):gsub('(,%-%-[%w-]+)(}"%[[^\n]-%]: :)', "%1=%2")
  return replace(text, "\n\n_weir\n", [=[

if [[ "$funcstack[1]" == "_weir" ]]; then
  _weir "$@"
else
  compdef _weir weir
fi
]=])
end

function M.run(options, console)
  local text = shells[options.shell](arguments.tree(cli.commands(), cli.load))
  console.out:write(text, text:find("\n$") and "" or "\n")
  return cli.OK
end

return M
