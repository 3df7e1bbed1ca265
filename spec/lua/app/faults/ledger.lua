--- What a service has done, a line for each thing, in a file that survives its death: every line is written at once, to
-- the end of the file LEDGER.
local M = {}

local file

--- Adds a line of words.
function M.say(...)
  if not file then
    file = assert(io.open(os.getenv("LEDGER"), "ab"))
    file:setvbuf("no")
  end
  local words = {}
  for i = 1, select("#", ...) do
    words[i] = tostring((select(i, ...)))
  end
  file:write(table.concat(words, " ") .. "\n")
end

--- Reads the lines of a file from a byte on.
-- @tparam string path
-- @tparam[opt=0] number from
-- @treturn {table,...} each a list of words
-- @treturn number of bytes until where it was read
function M.read(path, from)
  local list, at = {}, from or 0
  local input = io.open(path, "rb")
  if not input then
    return list, at
  end
  input:seek("set", at)
  local text = input:read("a")
  input:close()
  for line, ends in text:gmatch("([^\n]*)\n()") do
    local words = {}
    for word in line:gmatch("%S+") do
      words[#words + 1] = word
    end
    list[#list + 1] = words
    at = (from or 0) + ends - 1
  end
  return list, at
end

return M
