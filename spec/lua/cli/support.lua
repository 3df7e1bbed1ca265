--- What the specs of commands share.
local programs = require("spec.programs")
local scope = require("spec.lua.scope")
local shell = require("spec.house.shell")

local M = {}

M.clean, M.finally, M.directory = scope.close, scope.finally, scope.directory

--- A file with this text, in a directory of its own.
function M.file_of(text, name)
  local path = M.directory() .. "/" .. (name or "app.lua")
  shell.write(path, text)
  return path
end

--- `weir` with these words, to its end: status, output, errors.
function M.weir(...)
  return programs.run({ "lua5.4", "lua/bin/weir", ... })
end

--- `weir` with these words, started.
function M.start(...)
  return scope.start({ "lua5.4", "lua/bin/weir", ... })
end

--- Waits until the errors of a program match; returns the capture.
function M.await_error(program, pattern)
  return program:await(function()
    return program:err():match(pattern)
  end)
end

--- A text as a Lua pattern.
function M.plain(text)
  return (text:gsub("%p", "%%%0"))
end

return M
