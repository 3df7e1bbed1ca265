--- The fenced blocks of Markdown files, and how to check each.
--
-- What a fence says is what happens to its block:
--
-- - `lua`: a program of its own; it must end with status 0. If the next block is `text`, and the last
--   line before that ends in "prints:", that is what it writes; `...` stands for anything in a line.
-- - `lua durable`, `sh durable`: the same with a server of durable streams, whose URL is in $DURABLE_URL;
--   the lines of `sh` are one script, which finds `weir`, and what they print is compared, too.
-- - `lua-prompt`: typed into `lua5.4 -i`: lines that begin with `> ` go in, the others come out.
-- - `weir-prompt`: the same with `weir repl`, where lines that go on begin with `>> `.
-- - `sh`: lines that are run, or that another spec is known to run.
-- - `vector NAME`: bytes that the C tests read from the page; they must name it.
-- - `text`: for readers.
--
-- Any other fence is an error, so that nothing goes unchecked because of a typing error.
local luv = require("luv")
local programs = require("spec.programs")
local shell = require("spec.house.shell")

local M = {}

local SECONDS = 60 -- that a block may take

local function lines_of(text)
  return text:gmatch("([^\n]*)\n?")
end

--- The blocks of a Markdown text.
-- @treturn table list of { language =, text =, line =, before =, after = }: `before` is the last line
--   with something on it before the fence, `after` the language of the block before; or nil and what
--   is wrong
function M.blocks(text)
  local blocks, block, indent, fence = {}, nil, nil, nil
  local number, before = 0, ""
  for line in lines_of(text) do
    number = number + 1
    local space, ticks, info = line:match("^( *)(```+)%s*(.-)%s*$")
    if block and ticks and #ticks >= #fence and info == "" then
      block.text = table.concat(block, "\n") .. (#block > 0 and "\n" or "")
      blocks[#blocks + 1], block = block, nil
    elseif block then
      block[#block + 1] = line:gsub("^" .. indent, "")
    elseif ticks then
      local previous = blocks[#blocks]
      block, indent, fence = { language = info, line = number, before = before }, space, ticks
      block.after = previous and previous.language
    elseif line:find("%S") then
      before = line
    end
  end
  if block then
    return nil, ("the block of line %d has no end"):format(block.line)
  end
  return blocks
end

-- Whether a text is what was expected, in which "..." stands for anything in a line.
local function alike(expected, got)
  local pattern = expected:gsub("%p", "%%%0"):gsub("%%%.%%%.%%%.", "[^\n]*")
  return got:find("^" .. pattern .. "$") ~= nil
end

local function write(text)
  local path = os.tmpname()
  shell.write(path, text)
  return path
end

local function run_words(words)
  local ok, status, out, err = pcall(programs.run, words, SECONDS) -- with the environment of this process
  if not ok then
    return nil, status
  end
  return status, out, err
end

local function check_output(expected, got)
  if alike(expected, got) then
    return true
  end
  return nil, ("it prints:\n%s\nand not:\n%s"):format(got, expected)
end

local function run_program(words, block, expected)
  local path = write(block.text)
  local status, out, err = run_words(table.move({ path }, 1, 1, #words + 1, words))
  os.remove(path)
  if not status then
    return nil, out
  elseif status ~= 0 or err ~= "" then
    return nil, ("it ends with status %d and says:\n%s%s"):format(status, out, err)
  elseif expected then
    return check_output(expected.text, out)
  end
  return true
end

local function without_prompts(text)
  local count
  repeat
    text, count = ("\n" .. text):gsub("\n> ?", "\n")
    text = text:sub(2)
  until count == 0
  return text:match("^(.-)\n*$")
end

-- Types the lines behind `prompt` to a command: its status, output and errors, and the other lines.
local function run_typed(block, prompt, command)
  local typed, others = {}, {}
  for line in lines_of(block.text) do
    local input = line:match("^" .. prompt .. " ?(.*)$")
    table.insert(input and typed or others, input or line)
  end
  local path = write(table.concat(typed, "\n") .. "\n")
  local status, out, err = run_words({ "sh", "-c", ("exec %s <%s"):format(command, path) })
  os.remove(path)
  return status, out, err, table.concat(others, "\n")
end

local function run_prompt(block)
  local status, out, err, answers = run_typed(block, ">", "lua5.4 -i")
  if not status then
    return nil, out
  elseif err ~= "" then
    return nil, err
  end
  -- Some builds of Lua (with readline) write what is typed, others do not. The banner is no answer.
  local got = without_prompts(out:gsub("^[^\n]*\n", ""))
  if alike(without_prompts(block.text), got) then
    return true
  end
  return check_output(without_prompts(answers), got)
end

-- Where a script says "stdin:3:1", a terminal says "prompt:1".
local function run_session(block)
  local status, out, err, shown = run_typed(block, ">>?", "lua/bin/weir repl")
  if status ~= 0 or err ~= "" then
    return nil, ("it ends with status %s and says:\n%s%s"):format(status, out, err or "")
  end
  local got = out:gsub("stdin:", "prompt:"):gsub("\n+$", "")
  return check_output((shown:gsub("\n+$", "")), got)
end

local function run_sh(block, elsewhere, ours)
  for line in lines_of(block.text) do
    line = line:gsub("%s+#.*$", "")
    if line ~= "" and ours[line] then
      local status, out, err = run_words({ "sh", "-c", line })
      if status ~= 0 then
        return nil, ("'%s' ends with status %s:\n%s%s"):format(line, status, out, err or "")
      end
    elseif line ~= "" and not elsewhere[line] then
      return nil, ("'%s' is not among the commands that docs_spec runs or knows to be run elsewhere"):format(line)
    end
  end
  return true
end

local VECTORS = "spec/core/protocol_test.c"

local function check_vector(name)
  if shell.read(VECTORS):find(('"%s"'):format(name), 1, true) then
    return true
  end
  return nil, ("%s does not read the vector '%s'"):format(VECTORS, name)
end

-- In a directory of its own, for what it writes; examples/ are there, too.
local function run_lua(block, expected)
  local directory, remove = shell.scratch()
  local line = 'ln -s "$PWD/examples" "$0" && cd "$0" && exec lua5.4 "$1"'
  local ok, why = run_program({ "sh", "-c", line, directory }, block, expected)
  remove()
  return ok, why
end

-- Ends at the first command that fails, and says which it was; bash can do that. Only `weir` has the
-- sanitizers of this process: the system's own tools leak, and LeakSanitizer, which runs after they have
-- closed their standard error, would make them fail without a word.
local SETUP = [[
set -eE
trap 'status=$?; echo "\`$BASH_COMMAND\` (line $LINENO) ends with status $status" >&2' ERR
preload=${LD_PRELOAD-}
unset LD_PRELOAD
export PATH="$PWD/lua/bin:$PATH"
weir() { LD_PRELOAD=$preload command weir "$@"; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
. "$0"]]

-- With the `weir` of this tree, and in a directory of its own.
local function run_script(block, expected)
  return run_program({ "bash", "-c", SETUP }, block, expected)
end

--- Which server a block needs: "durable", "nats" or none.
function M.needs_server(block)
  return block.language:match("^%l+ (durable)$") or block.language:match("^%l+ (nats)$")
end

local PRINTERS = { lua = true, ["lua durable"] = true, ["sh durable"] = true, ["lua nats"] = true }

--- Checks a block.
-- @tparam table block
-- @tparam ?table following the next block of the file
-- @tparam table commands `ours`: a set of shell commands that may be run here; `elsewhere`: that
--   other specs run
-- @treturn boolean true; or nil and what is wrong
function M.check(block, following, commands)
  local expected = following and following.language == "text" and following.before:find("prints:$") and following
  if block.language == "lua" or block.language == "lua durable" or block.language == "lua nats" then
    return run_lua(block, expected)
  elseif block.language == "sh durable" then
    return run_script(block, expected)
  elseif block.language == "lua-prompt" then
    return run_prompt(block)
  elseif block.language == "weir-prompt" then
    return run_session(block)
  elseif block.language == "sh" then
    return run_sh(block, commands.elsewhere, commands.ours)
  elseif block.language:find("^vector ") then
    return check_vector(block.language:sub(8))
  elseif block.language == "text" then
    if block.before:find("prints:$") and not PRINTERS[block.after] then
      return nil, "there is no program before it that prints this"
    end
    return true
  end
  return nil, ("nobody checks blocks of '%s': use lua, lua-prompt, sh, vector or text"):format(block.language)
end

-- The anchors that headings make.
local function anchors(text)
  local found = {}
  for heading in ("\n" .. text):gmatch("\n#+ ([^\n]+)") do
    found[heading:lower():gsub("[^%w%- ]", ""):gsub(" ", "-")] = true
  end
  return found
end

--- The links of a Markdown text that lead nowhere: to no file, or to no heading of one.
-- @tparam string text
-- @tparam string folder of the file that holds it
-- @treturn table list
function M.broken_links(text, folder)
  local broken = {}
  -- Code holds no links.
  local prose = text:gsub("```.-```", ""):gsub("`[^`\n]*`", "")
  for target in prose:gmatch("%]%(([^)%s]+)%)") do
    local path, anchor = target:match("^([^#]*)#?(.*)$")
    local file = folder .. "/" .. path
    if target:find("^%a+:") then -- luacheck: ignore 542
      -- elsewhere on the network
    elseif path ~= "" and not luv.fs_stat(file) then
      broken[#broken + 1] = target
    elseif anchor ~= "" and not anchors(path == "" and text or shell.read(file) or "")[anchor] then
      broken[#broken + 1] = target
    end
  end
  return broken
end

return M
