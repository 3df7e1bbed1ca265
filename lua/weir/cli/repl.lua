--- `weir repl [FILE]`: a prompt.
-- @module weir.cli.repl
local cli = require("weir.cli")

local M = {
  summary = "try things at a prompt",
  intro = [[
A prompt for Lua with weir, and with an application that runs while you type: define handlers, publish,
watch what is delivered, define them anew. `app` is the application of FILE, or an empty one on a broker
in memory. .help lists the commands.

Without a terminal it reads a script from the standard input, shows no prompt and ends at the first
error.]],
  words = { { "file", "FILE", "the application to open", optional = true } },
  options = {
    { "connect", "URL", "begin with a broker: nats://HOST:PORT, memory:, durable+http://HOST/PATH" },
  },
  notes = [[
Lines that were typed are kept in $WEIR_HISTORY, or else in ~/.local/state/weir/history; an empty
WEIR_HISTORY keeps none.]],
  examples = { "weir repl", "weir repl app.lua", "weir repl --connect nats://127.0.0.1:4222", "weir repl <script.lua" },
  statuses = "0 it ended, 1 a script had an error, 2 wrong use, 128 and its number after a signal.",
}

function M.run(options, console)
  if options.file and options.connect then
    return nil, cli.usage_error("FILE and --connect exclude each other: the application says its brokers")
  end
  return require("weir.repl").run({ file = options.file, connect = options.connect }, console)
end

return M
