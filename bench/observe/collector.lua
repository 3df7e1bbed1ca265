--- What takes the spans of bench/observe.lua and does nothing with them: prints its `url`, and ends when it is asked
-- for `/quit`.

local http = require("weir.http")
local weir = require("weir")

local JSON = { ["content-type"] = "application/json" }

weir.run(function()
  local quit = weir.channel(1)
  local server = assert(http.listen("tcp://127.0.0.1:0", http.routes({
    ["POST /v1/traces"] = function()
      return 200, JSON, "{}"
    end,
    ["GET /quit"] = function()
      quit:try_send(true)
      return 200, nil, ""
    end,
  }), { max_body = "64 MiB" }))
  print("url=" .. server.url)
  io.stdout:flush()
  quit:recv()
  server:close(1)
end)
