--- What `weir durable read` and `tail` write.
-- @module weir.cli.durable.output
local errors = require("weir.errors")

local M = {}

local BROKEN_PIPE = 32 -- EPIPE

local Output = { __name = "weir.cli.durable.output" }
Output.__index = Output

local QUOTE, COMMA, OPEN_ARRAY, OPEN_OBJECT = 34, 44, 91, 123

-- Where the string that begins at `at` ends.
local function string_end(text, at)
  repeat
    at = text:find('["\\]', at + 1)
    local escaped = at and text:byte(at) ~= QUOTE
    at = escaped and at + 1 or at
  until not escaped
  return at or #text
end

--- Splits the text of a JSON array, which is known to be one, into those of its items. They keep their
-- digits and spelling; line ends between tokens become spaces.
-- @tparam string text
-- @treturn {string,...}
function M.items(text)
  local items, depth, begin, at = {}, 0, 1, 0
  local function item(stop)
    local one = text:sub(begin, stop):gsub("[\r\n]", " "):match("^%s*(.-)%s*$")
    items[#items + 1] = one ~= "" and one or nil
    begin = stop + 2
  end
  repeat
    at = text:find('["%[%]{},]', at + 1)
    local char = at and text:byte(at)
    if char == QUOTE then
      at = string_end(text, at)
    elseif char == OPEN_ARRAY or char == OPEN_OBJECT then
      depth = depth + 1
      begin = depth == 1 and at + 1 or begin
    elseif char == COMMA then
      if depth == 1 then
        item(at - 1)
      end
    elseif char then
      depth = depth - 1
      if depth == 0 then
        item(at - 1)
      end
    end
  until not char or depth == 0
  return items
end

--- Makes an output.
-- @param file where to; a file, or what has its `write`
-- @tparam[opt] boolean lines JSON items one per line
-- @treturn table `bytes` and `items` are counted
function M.new(file, lines)
  if io.type(file) == "file" then
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
-- @return error: "broken_pipe", "output"
function Output:chunk(data, is_json)
  if data == "" then
    return true
  elseif not is_json then
    return write(self, data)
  end
  local items = M.items(data)
  if #items == 0 then
    return true
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
