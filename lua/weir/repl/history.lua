--- The lines that were typed, in a file: bounded, and no reason to fail.
-- @module weir.repl.history

local luv = require("luv")
local replace = require("weir.replace")

local M = {}

-- Lines that are kept; bytes of a line; bytes of a file that are read.
local LINES, LONGEST, MOST = 1000, 4096, 1024 * 1024
-- What one types is nobody else's: 0600.
local MODE = 384

--- Where it is: `$WEIR_HISTORY` (empty: nowhere), or `weir/history` in the user's directory for the state of programs.
-- @treturn ?string
function M.path()
  local path = os.getenv("WEIR_HISTORY")
  if path then
    return path ~= "" and path or nil
  end
  local state, home = os.getenv("XDG_STATE_HOME"), os.getenv("HOME")
  if state and state:sub(1, 1) == "/" then
    return state .. "/weir/history"
  end
  return home and home ~= "" and home .. "/.local/state/weir/history" or nil
end

local function make_folders(path)
  local at = 1
  while true do
    at = path:find("/", at + 1, true)
    if not at then
      return
    end
    luv.fs_mkdir(path:sub(1, at - 1), 448) -- 0700; fails where it is there
  end
end

-- Whether a line is one that somebody could have typed.
local function is_text(line)
  return #line <= LONGEST and not line:find("[%z\1-\8\10-\31\127]") and utf8.len(line) ~= nil
end

--- Reads it: the last lines, oldest first.
-- @tparam ?string path
-- @treturn {string,...}
function M.load(path)
  local stat = path and luv.fs_stat(path)
  local file = stat and stat.type == "file" and io.open(path, "rb")
  if not file then
    return {}
  end
  local size = file:seek("end") or 0
  file:seek("set", math.max(0, size - MOST))
  local lines = {}
  for line in (file:read(MOST) or ""):gmatch("[^\n]+") do
    if is_text(line) then
      lines[#lines + 1] = line
    end
  end
  file:close()
  return table.move(lines, math.max(1, #lines - LINES + 1), #lines, 1, {})
end

--- Whether a line is to be remembered.
-- @tparam string line
-- @tparam ?string former the line before it
-- @treturn boolean
function M.worth(line, former)
  return line:find("%S") ~= nil and line ~= former and is_text(line)
end

-- Why a file must not be replaced, if it must not.
local function protected(path)
  local stat = luv.fs_stat(path)
  if not stat then
    return nil
  elseif stat.type ~= "file" then
    return path .. ": it is no file"
  elseif math.floor(stat.mode / 128) % 2 == 0 or not luv.fs_access(path, "W") then
    return path .. ": it is read-only"
  end
end

--- Adds lines to it. It is written anew, so that it stays bounded, and others see a whole file.
-- @tparam ?string path
-- @tparam {string,...} added
-- @treturn boolean true; or nil and why not
function M.save(path, added)
  if not path or #added == 0 then
    return true
  end
  path = luv.fs_realpath(path) or path -- a link stays one
  local why = protected(path)
  if why then
    return nil, why
  end
  local lines = M.load(path)
  table.move(added, 1, #added, #lines + 1, lines)
  make_folders(path)
  local kept = table.move(lines, math.max(1, #lines - LINES + 1), #lines, 1, {})
  return replace(path, #kept > 0 and table.concat(kept, "\n") .. "\n" or "", MODE)
end

return M
