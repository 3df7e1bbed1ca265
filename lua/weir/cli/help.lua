--- `weir help [COMMAND]`.
-- @module weir.cli.help
local cli = require("weir.cli")

local M = {
  summary = "explain weir, or one of its commands",
  words = { { "command", "COMMAND", "which command", optional = true } },
  options = { { "man", nil, "print the manual page, of all commands, for man -l -" } },
  examples = { "weir help run", "weir help --man | man -l -" },
}

--- Writes the list of commands.
-- @tparam table console
-- @tparam[opt] file file where to; console.out by default
function M.overview(console, file)
  file = file or console.out
  local function heading(text)
    return console:style(file, "bold", text)
  end
  file:write(heading("Usage:"), " weir COMMAND [ARGUMENT...]\n\n")
  file:write("Typed streams between processes, durable streams over HTTP, and applications on brokers, in\n")
  file:write("Lua.\n\n")
  file:write(heading("Commands:"), "\n")
  for _, name in ipairs(cli.commands()) do
    file:write(("  %-12s %s\n"):format(name, cli.load(name).summary))
  end
  file:write("\n", heading("Options:"), "\n")
  file:write("  -h, --help   this text, or that of the command before it\n")
  file:write("  --version    the version of weir and of what it runs on\n\n")
  file:write("Exit status: 0 when the command did its job, 1 when it failed, 2 when it was used\n")
  file:write("wrongly. 'weir help COMMAND' tells more about one of them.\n")
end

function M.run(options, console)
  local name = options.command
  if options.man then
    console.out:write(require("weir.cli.manual").page(cli.commands(), cli.load))
    return cli.OK
  elseif not name then
    M.overview(console)
    return cli.OK
  end
  local command, err = cli.load(name)
  if not command then
    return nil, err
  end
  if command.words or command.options then
    local arguments
    arguments, err = cli.arguments()
    if not arguments then
      return nil, err
    end
    local text = arguments.help(name, command):gsub("^Usage:", console:style(console.out, "bold", "%0"))
    console.out:write(text, "\n")
    return cli.OK
  end
  local usage = command.usage and " " .. command.usage or ""
  local out = console.out
  out:write(console:style(out, "bold", "Usage:"), " weir ", name, usage, "\n\n")
  out:write("  ", command.summary, "\n")
  if command.help then
    out:write("\n", command.help, "\n")
  end
  return cli.OK
end

return M
