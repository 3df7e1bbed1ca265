-- Creates a stream, appends to it, and reads what is there.
--
--     lua5.4 examples/durable/quickstart.lua [URL]

local durable = require("weir.durable")
local weir = require("weir")

local url = arg[1] or os.getenv("DURABLE_URL") or "http://localhost:4437"

weir.run(function()
  local client = durable.client({ base_url = url })
  local stream = client:stream("/quickstart", { content_type = "text/plain" })

  local made = assert(stream:create())
  if not made.created then -- it is there from the last time
    assert(stream:delete())
    assert(stream:create())
  end

  assert(stream:append("Hello, "))
  local greeting = assert(stream:append("durable "))
  assert(stream:append("streams!\n"))

  for chunk in stream:read():each() do
    io.write(chunk.data)
  end
  -- Any offset that the server gave is a place to go on from.
  io.write("behind the second append: ", assert(stream:read({ offset = greeting.offset }):text()))
  client:close()
end)
