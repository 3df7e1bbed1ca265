--- Notices that files change.
--
-- Directories are watched, and not files: editors put a new file in the place of the old one. Of a symbolic link those
-- of all names that it goes through are; of a file in a directory that is not there the nearest one that is.
-- @module weir.app.watch
local luv = require("luv")

local M = {}

local Watch = { __name = "weir.app.watch" }
Watch.__index = Watch

local function folder_of(path)
  local folder = path:match("^(.*)/[^/]*$") or "."
  return folder == "" and "/" or folder
end

local function existing_folder(path)
  local folder = folder_of(path)
  while folder ~= "/" and folder ~= "." and not luv.fs_stat(folder) do
    folder = folder_of(folder)
  end
  return folder
end

-- The path, and where it leads to, link by link.
local function names_of(path)
  local names = { path }
  for _ = 1, 40 do -- as many as systems follow
    local target = luv.fs_readlink(path)
    if not target then
      break
    end
    path = target:sub(1, 1) == "/" and target or folder_of(path) .. "/" .. target
    names[#names + 1] = path
  end
  names[#names + 1] = luv.fs_realpath(path)
  return names
end

-- The folders of files, and a text that is another one when they are others, or others of the same names.
local function folders_of(files)
  local folders, seen = {}, {}
  for _, path in ipairs(files) do
    for _, name in ipairs(names_of(path)) do
      local folder = existing_folder(name)
      if not seen[folder] then
        local stat = luv.fs_stat(folder)
        seen[folder] = true
        folders[#folders + 1] = folder
        seen[#folders] = ("%s:%d:%d"):format(folder, stat and stat.dev or 0, stat and stat.ino or 0)
      end
    end
  end
  return folders, table.concat(seen, "\n")
end

--- What files are now, as a text that is another one when one of them has changed.
-- @tparam {string,...} files paths; they need not exist
-- @treturn string
function M.signature(files)
  local parts = {}
  for i, path in ipairs(files) do
    local stat = luv.fs_stat(path)
    parts[i] = stat and ("%s:%d.%d:%d:%d"):format(path, stat.mtime.sec, stat.mtime.nsec, stat.size, stat.ino) or path
  end
  return table.concat(parts, "\n")
end

--- Makes one that watches nothing yet.
-- @tparam function fn called when one of the files may have changed; must not wait
-- @treturn table
function M.new(fn)
  return setmetatable({ fn = fn, handles = {} }, Watch)
end

--- Watches these files, and no others any more. What changed before is not noticed. To be called again when something
-- has changed: there may be a directory that was not there.
-- @tparam {string,...} files
-- @treturn boolean whether other directories are watched than before
-- @treturn ?string why some cannot be; the others are
function Watch:set(files)
  local folders, key = folders_of(files)
  if key == self.key then
    return false
  end
  self:close()
  self.key = key
  local failure
  for _, folder in ipairs(folders) do
    local handle = luv.new_fs_event()
    self.handles[#self.handles + 1] = handle
    local ok, err = handle:start(folder, {}, self.fn)
    if not ok then
      failure = ("cannot watch %s: %s"):format(folder, err)
    end
  end
  return true, failure
end

--- Watches nothing any more.
function Watch:close()
  for i, handle in ipairs(self.handles) do
    handle:close()
    self.handles[i] = nil
  end
  self.key = nil
end

return M
