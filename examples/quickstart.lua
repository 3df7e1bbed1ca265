-- Two nodes in one process: one produces numbers, the other consumes them.
local weir = require("weir")

weir.run(function()
  local here = assert(weir.network({ listen = "tcp://127.0.0.1:0" }))
  local there = assert(weir.network({ peers = here:addresses() }))
  local producer = here:produce("squares", { codec = "json" })
  local consumer = there:consume("squares", { codec = "json" })

  weir.spawn(function()
    for n = 1, 3 do
      assert(producer:send({ n = n, square = n * n })) -- waits for a consumer, then for room
    end
    producer:close() -- waits until everything was taken
  end)

  for _ = 1, 3 do
    local value, meta = assert(consumer:recv(5)) -- seconds
    print(("message %d: %d squared is %d"):format(meta.sequence, value.n, value.square))
  end
  there:close()
  here:close()
end)
