-- Where the lines come from: FILE, or the log of this machine, or a sample of one.
local weir = require("weir")

local ledger = require("ledger")

local source = {}

local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"

-- A file that can be read and has something in it.
local function has_lines(path)
  local file = io.open(path)
  local some = file and file:read(1)
  if file then
    file:close()
  end
  return some ~= nil
end

local file = weir.env("FILE")
source.path = file or has_lines("/var/log/dpkg.log") and "/var/log/dpkg.log" or here .. "sample.log"

-- Lines a second, for those who want to watch, and how many at most; 0: as fast as it goes, and all.
source.rate, source.limit = weir.env("RATE", 0), weir.env("LIMIT", 0)

-- Publishes each line, with its number. Publishing waits where the broker has no room, so a long file needs no more
-- memory than a short one.
local function publish(lines, publisher)
  local began = weir.now()
  for line in lines do
    local number = ledger.lines + 1
    assert(publisher:publish(line, { headers = { run = ledger.run, line = number } }))
    ledger.lines = number
    if number == source.limit then
      return
    end
    if source.rate > 0 then
      weir.sleep(math.max(0, began + number / source.rate - weir.now()))
    end
  end
end

function source.feed(app, publisher)
  local ok, err = pcall(function()
    local input = assert(io.open(source.path))
    publish(input:lines(), publisher)
    input:close()
  end)
  ledger.all_in = ok
  if not ok then
    app:request_stop(err)
  end
end

return source
