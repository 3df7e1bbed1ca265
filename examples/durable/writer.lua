-- Appends the lines of a file to a stream, exactly once: killed at any moment and started again, it
-- goes on where it was, and the stream has each line once, in order.
--
--     lua5.4 examples/durable/writer.lua URL [FILE [STATE]]
--
-- How: before a batch is sent, STATE says which bytes of FILE it is and under which sequence number
-- of which producer. After a crash that batch is sent again, the same bytes under the same number;
-- if the server has it already, it says so and keeps one.

local cjson = require("cjson")
local durable = require("weir.durable")
local weir = require("weir")

local BATCH = 256 * 1024 -- bytes

local url, path, state_path = arg[1], arg[2] or "/var/log/dpkg.log", arg[3]
if not url then
  io.stderr:write("usage: writer.lua URL [FILE [STATE]], such as http://localhost:4437/log\n")
  os.exit(2)
end
state_path = state_path or path:match("[^/]*$") .. ".state"

local function load_state()
  local file = io.open(state_path, "rb")
  if not file then
    return nil
  end
  local state = cjson.decode(file:read("a"))
  file:close()
  assert(state.url == url and state.path == path, state_path .. " is of another file or stream")
  for _, name in ipairs({ "epoch", "sequence", "from", "to" }) do
    state[name] = math.tointeger(state[name])
  end
  return state
end

-- Replaces the file as a whole: there is never half a state.
local function save_state(state)
  local file = assert(io.open(state_path .. ".new", "wb"))
  assert(file:write(cjson.encode(state), "\n"))
  assert(file:close())
  assert(os.rename(state_path .. ".new", state_path))
end

-- The whole lines that follow, up to BATCH bytes (or one line, if that is longer); "" when there is none.
local function lines_at(file, from)
  assert(file:seek("set", from))
  local text = file:read(BATCH) or ""
  local rest = not text:find("\n", 1, true) and text ~= "" and file:read("L")
  if rest then
    text = text .. rest
  end
  return text:match("^.*\n") or ""
end

weir.run(function()
  local file = assert(io.open(path, "rb"))
  local client = durable.client()
  local stream = client:stream(url, { content_type = "text/plain" })
  assert(stream:create())

  local state = load_state()
  local producer = stream:producer({
    producer_id = state and state.producer_id, -- a random one at the first start
    epoch = state and state.epoch,
    sequence = state and state.sequence,
    max_batch_bytes = 64 * 1024 * 1024, -- what is appended here is one batch, always
  })
  local from, sent = state and state.from or 0, 0
  local again = state and state.to > state.from and state.to - state.from -- was under way

  while true do
    local batch
    if again then
      assert(file:seek("set", from))
      batch = file:read(again)
      again = nil
    else
      batch = lines_at(file, from)
    end
    local now = producer:state()
    save_state({
      url = url, path = path, from = from, to = from + #batch,
      producer_id = now.producer_id, epoch = now.epoch, sequence = now.sequence,
    })
    if batch == "" then
      break
    end
    assert(producer:append(batch))
    assert(producer:flush()) -- the server has it
    from, sent = from + #batch, sent + #batch
  end

  local stats = producer:stats()
  print(("%d bytes appended in %d batches, %d of them were there already; %s is at byte %d"):format(
    sent, stats.batches, stats.duplicates, path, from))
  assert(producer:detach())
  client:close()
  file:close()
end)
