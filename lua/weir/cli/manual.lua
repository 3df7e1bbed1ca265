--- The manual page: what `weir help COMMAND` says of every command, in the language of man(7).
-- @module weir.cli.manual
local arguments = require("weir.cli.arguments")

local M = {}

-- Text within a line.
local function escape(text)
  return (text:gsub("\\", "\\e"):gsub("%-", "\\-"):gsub("'", "\\(aq"):gsub("`", "\\(ga"))
end

-- Lines that stay as they are.
local function verbatim(out, text)
  out(".nf")
  for line in (text .. "\n"):gmatch("(.-)\n") do
    line = escape(line)
    out(line:find("^%.") and "\\&" .. line or line)
  end
  out(".fi")
end

-- Paragraphs are filled; those with indented lines (lists, programs) stay as they are.
local function prose(out, text)
  for paragraph in (text .. "\n\n"):gmatch("(.-)\n\n+") do
    out(".PP")
    if ("\n" .. paragraph):find("\n ") then
      verbatim(out, paragraph)
    else
      out(escape(paragraph))
    end
  end
end

-- One tag and what is said of it.
local function tagged(out, tag, about)
  out(".TP")
  out("\\fB" .. escape(tag) .. "\\fR")
  out(escape(about))
end

local function usage(out, name, command)
  out(".PP")
  out((("\\fBweir %s\\fR %s"):format(escape(name), escape(arguments.usage(command))):gsub(" $", "")))
end

local function words_and_options(out, command)
  for _, word in ipairs(command.words or {}) do
    tagged(out, word[2], word[3])
  end
  for _, option in ipairs(command.options or {}) do
    local short = option.short and ("-%s, "):format(option.short) or ""
    tagged(out, short .. "--" .. option[1] .. (option[2] and " " .. option[2] or ""), option[3])
  end
end

local function verbs(out, name, command)
  for _, verb in ipairs(command.verbs or {}) do
    usage(out, name .. " " .. verb[1], arguments.of_verb(command, verb))
    out(".PP")
    out(escape(verb[2]:gsub("^%l", string.upper)) .. ".")
    if verb.intro then
      prose(out, verb.intro)
    end
    words_and_options(out, verb)
    if verb.notes then
      prose(out, verb.notes)
    end
  end
  if command.verbs and command.options then
    out(".PP")
    out("With every verb:")
  end
end

local function section(out, name, command)
  out(".SS " .. name)
  out(escape(command.summary:gsub("^%l", string.upper)) .. ".")
  usage(out, name, command)
  if command.intro then
    prose(out, command.intro)
  end
  verbs(out, name, command)
  words_and_options(out, command)
  if command.notes then
    prose(out, command.notes)
  end
  out(".PP")
  out("Exit status: " .. escape(command.statuses or arguments.STATUSES))
  out(".PP")
  out("Examples:")
  out(".PP")
  verbatim(out, "  " .. table.concat(arguments.examples(command), "\n  "))
end

local HEAD = [[
.\" Made by 'weir help --man'; do not edit.
.TH WEIR 1 "" "weir" "User Commands"
.SH NAME
weir \- streams, durable streams and applications on brokers, in Lua
.SH SYNOPSIS
\fBweir\fR COMMAND [ARGUMENT...]
.SH DESCRIPTION
Typed streams between processes, durable streams over HTTP, and applications on brokers, in Lua.
\fBweir help\fR COMMAND, or \fBweir\fR COMMAND \fB\-\-help\fR, says what is said here of one command.
.PP
Options may stand before, between and after other words, as \fB\-\-name value\fR or \fB\-\-name=value\fR; what follows
\fB\-\-\fR is no option.
.SH COMMANDS]]

local FOOT = [[
.SH EXIT STATUS
.TP
0
The command did its job.
.TP
1
It failed; the reason is on the standard error.
.TP
2
It was used wrongly.
.TP
128 + N
It was ended by signal N: 129 for SIGHUP, 130 for SIGINT, 143 for SIGTERM.
.SH ENVIRONMENT
.TP
\fBNO_COLOR\fR
When it is set, nothing is written in colours. They are for terminals only, in any case.
.TP
\fBTERM\fR
With \fBdumb\fR there are neither colours nor progress.
.TP
\fBWEIR_BUILD\fR
In a source tree: the directory of the build whose modules are loaded.
.TP
\fBWEIR_WORKER\fR, \fBWEIR_WORKERS\fR
What a worker of \fBweir run \-\-workers\fR is told: its number, and how many there are.]]

--- Makes the page.
-- @tparam {string,...} names of the commands
-- @tparam function load returns a command by its name
-- @treturn string
function M.page(names, load)
  local lines = {}
  local function out(line)
    lines[#lines + 1] = line
  end
  out(HEAD)
  for _, name in ipairs(names) do
    section(out, name, load(name))
  end
  out(FOOT)
  return table.concat(lines, "\n") .. "\n"
end

return M
