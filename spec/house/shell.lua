--- Runs commands for the specs of the house.
local M = {}

--- A word for sh.
function M.quote(word)
  return "'" .. tostring(word):gsub("'", "'\\''") .. "'"
end

-- A sanitizer's runtime or a make above us is no part of what these specs look at.
local clean = "env -u LD_PRELOAD -u MAKEFLAGS -u MFLAGS -u MAKELEVEL "

--- Runs a command line of sh with nothing on its standard input.
-- @treturn integer the exit status, 128 + N for signal N
-- @treturn string what it wrote, both streams
function M.run(line)
  local pipe = assert(io.popen(clean .. "sh -c " .. M.quote(line) .. " </dev/null 2>&1", "r"))
  local output = pipe:read("a")
  local _, how, code = pipe:close()
  return how == "signal" and 128 + code or code, output
end

--- Runs a command that has to succeed.
-- @treturn string what it wrote
function M.check(line)
  local status, output = M.run(line)
  if status ~= 0 then
    error(("%s\nended with status %d:\n%s"):format(line, status, output), 2)
  end
  return output
end

--- Makes a directory for this test alone.
-- @treturn string its path
-- @treturn function removes it
function M.scratch()
  local path = M.check("mktemp -d"):gsub("\n", "")
  return path, function()
    M.check("rm -rf " .. M.quote(path))
  end
end

--- Writes a file.
-- @string path
-- @string text
-- @bool executable
function M.write(path, text, executable)
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
  if executable then
    M.check("chmod +x " .. M.quote(path))
  end
end

--- Adds to the end of a file.
function M.append(path, text)
  local file = assert(io.open(path, "a"))
  file:write(text)
  file:close()
end

--- The text of a file, or nil.
function M.read(path)
  local file = io.open(path, "r")
  if not file then
    return nil
  end
  local text = file:read("a")
  file:close()
  return text
end

return M
