--- One yamux session over TCP loopback, in C on both sides: 1, 10 and 1000 streams, writes of 100 bytes
-- and 64 KiB, beside raw libuv with 4-byte-length frames of the same size. Bytes of payload a second.

local support = dofile("bench/support.lua")

local function measure(streams, size)
  local receiver = support.spawn(support.program("yamux_tcp", "receive"), { cpu = 1 })
  local port = receiver:fields().port
  local words = support.program("yamux_tcp", "send", port, streams, size, support.seconds)
  local sender = support.spawn(words, { cpu = 0 })
  local sent, received = sender:result(), receiver:result()
  assert(sent.bytes == received.bytes, "bytes were lost")
  return received.bytes / received.seconds
end

for _, size in ipairs({ 100, 65536 }) do
  for _, streams in ipairs({ 1, 10, 1000 }) do
    local ours, theirs = support.alternate(function()
      return measure(streams, size)
    end, function()
      local result = support.baseline_tcp(size)
      return result.bytes / result.seconds
    end)
    support.claim({
      name = ("yamux.%d_streams.%s"):format(streams, size == 100 and "100B" or "64KiB"),
      weir = support.median(ours),
      baseline = support.median(theirs),
      unit = "B/s",
    })
  end
end
