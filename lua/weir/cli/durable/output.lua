--- What `weir durable read` and `tail` write.
-- @module weir.cli.durable.output
local core = require("weir.core")
local errors = require("weir.errors")

local M = {}

local BROKEN_PIPE = 32 -- EPIPE

local Output = { __name = "weir.cli.durable.output" }
Output.__index = Output

--- Splits the text of a JSON array into those of its items. They keep their digits and spelling; line ends
-- between tokens become spaces.
-- @tparam string text
-- @treturn ?{string,...}
-- @return error: "parse_error"
function M.items(text)
  local splitter, items = core.json_items(), {}
  splitter:feed(text)
  while true do
    local item, word, what, position = splitter:next()
    if item then
      items[#items + 1] = item:gsub("[\r\n]", " ")
    elseif word == "again" then
      word, what, position = select(2, splitter:finish())
    end
    if word then
      return nil, errors.new("parse_error", ("the server sent no JSON: %s at byte %d"):format(what, position))
    elseif not item then
      return items
    end
  end
end

--- Makes an output.
-- @param file where to; a file, or what has its `write`
-- @tparam[opt] boolean lines JSON items one per line
-- @treturn table `bytes` and `items` are counted
function M.new(file, lines)
  if file.setvbuf then
    file:setvbuf("full", 65536)
  end
  return setmetatable({ file = file, lines = lines, bytes = 0, items = 0 }, Output)
end

local function write(self, text)
  self.bytes = self.bytes + #text
  local ok, reason, number = self.file:write(text)
  if ok and self.file.flush then
    ok, reason, number = self.file:flush()
  end
  if ok then
    return true
  elseif number == BROKEN_PIPE then
    return nil, errors.new("broken_pipe", "nobody reads the standard output any more")
  end
  return nil, errors.new("output", "cannot write to the standard output: " .. tostring(reason))
end

--- Writes the data of a chunk.
-- @tparam string data
-- @tparam boolean is_json whether it is an array of items
-- @treturn ?boolean true: it has left this program
-- @return error: "broken_pipe", "output", "parse_error"
function Output:chunk(data, is_json)
  if data == "" then
    return true
  elseif not is_json then
    return write(self, data)
  end
  local items, err = M.items(data)
  if not items or #items == 0 then
    return items ~= nil, err
  end
  self.items = self.items + #items
  if self.lines then
    return write(self, table.concat(items, "\n") .. "\n")
  end
  local before = self.open and "," or "["
  self.open = true
  return write(self, before .. table.concat(items, ","))
end

--- Writes what is missing at the end of a stream.
-- @tparam boolean is_json
-- @treturn ?boolean true
-- @return error
function Output:finish(is_json)
  if is_json and not self.lines then
    return write(self, self.open and "]\n" or "[]\n")
  end
  return true
end

return M
