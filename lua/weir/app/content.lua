--- Which codec a message is decoded with: that of its content type, where it has one that weir knows.
-- @module weir.app.content

local codec = require("weir.codec")

local content = {}

-- Content types come from peers: so many are remembered.
local MOST = 256
local known, count = {}, 0

--- The codec of a content type.
--
-- The handler's own is taken where weir does not know the type; where the type says no more than that there are bytes
-- or text; and always where the handler's is "raw" or the user's own without a content type, which nobody can name.
-- @tparam string content_type of a message
-- @tparam table own the codec of the handler
-- @treturn table codec
function content.codec(content_type, own)
  if own.raw or not own.content_type then
    return own
  end
  local found = known[content_type]
  if found == nil then
    found = codec.by_content_type(content_type)
    if not found or found.raw then
      found = false
    end
    if count >= MOST then
      known, count = {}, 0
    end
    known[content_type], count = found, count + 1
  end
  return found or own
end

return content
