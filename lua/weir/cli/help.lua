--- `weir help [COMMAND]`.
-- @module weir.cli.help
local cli = require("weir.cli")

local M = {
  summary = "explain weir, or one of its commands",
  words = {
    -- An unknown one is refused below, in the words of an unknown command.
    { "command", "COMMAND", "which command", optional = true, choices = cli.commands(), read = function(text)
      return text
    end },
    { "verb", "VERB", "which verb of it, such as append of durable", optional = true },
  },
  options = { { "man", nil, "print the manual page, of all commands, for man -l -" } },
  examples = { "weir help run", "weir help durable append", "weir help --man | man -l -" },
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

-- The verb of this name; or nil and a usage error.
local function find_verb(options, command, arguments)
  local verb = arguments.verb_of(command, { options.verb })
  if verb then
    return verb
  elseif not command.verbs then
    return nil, cli.usage_error(("%s has no verbs, so '%s' is one word too many"):format(options.command, options.verb))
  end
  return nil, cli.usage_error(select(2, arguments.read(options.command, command, { options.verb })))
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
  local arguments, verb = require("weir.cli.arguments"), nil
  if options.verb then
    verb, err = find_verb(options, command, arguments)
    if not verb then
      return nil, err
    end
  end
  local text = arguments.help(name, command, verb, console:width(console.out))
  text = text:gsub("^Usage:", console:style(console.out, "bold", "%0"))
  console.out:write(text, "\n")
  return cli.OK
end

return M
