-- Follows a stream and prints it, until it is closed. Killed and started again, it goes on where it was.
--
--     lua5.4 examples/durable/tail.lua URL [CHECKPOINT]

local durable = require("weir.durable")
local weir = require("weir")

local url, path = arg[1], arg[2] or "tail.checkpoint"
if not url then
  io.stderr:write("usage: tail.lua URL [CHECKPOINT], such as http://localhost:4437/log\n")
  os.exit(2)
end

local function load_offset()
  local file = io.open(path, "rb")
  local offset = file and file:read("l")
  if file then
    file:close()
  end
  return offset
end

-- Replaces the file as a whole: after a crash it has the offset before or the one after.
local function save_offset(offset)
  local file = assert(io.open(path .. ".new", "wb"))
  assert(file:write(offset, "\n"))
  assert(file:close())
  assert(os.rename(path .. ".new", path))
end

weir.run(function()
  local client = durable.client()
  local reader = client:stream(url):read({
    offset = load_offset(), -- nil: from the beginning
    live = "auto", -- what is there first, then what is appended, as it comes
  })
  for chunk in reader:each() do
    assert(io.write(chunk.data))
    assert(io.flush())
    save_offset(reader.offset) -- only now that it was written
  end
  client:close()
end)
