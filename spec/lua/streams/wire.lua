--- Frames written by hand, for peers that do not behave.
local wire = {}

local pack = string.pack

--- A yamux frame: type 0 data, 1 window update, 2 ping, 3 go-away; flags SYN 1, ACK 2, FIN 4, RST 8.
function wire.yamux(type, flags, stream, length, payload)
  return pack(">BBI2I4I4", 0, type, flags, stream, length) .. (payload or "")
end

--- Data on a stream.
function wire.data(flags, stream, payload)
  return wire.yamux(0, flags, stream, #payload, payload)
end

local function frame(type, body)
  return pack(">I4BBI2", #body + 4, type, 0, 0) .. body
end
wire.frame = frame

local function handshake(type, low, high, fields)
  local parts = { "weir", pack(">I2I2", low, high) }
  for _, each in ipairs(fields) do
    parts[#parts + 1] = pack(">I2s2", each[1], each[2])
  end
  return frame(type, table.concat(parts))
end

function wire.hello(network, node, low, high)
  return handshake(0x01, low or 1, high or low or 1, { { 0x0001, network }, { 0x000a, node } })
end

function wire.announce(id)
  return frame(0x02, pack(">BBI2", 1, 0, 0) .. id)
end

function wire.subscribe(network, stream, codec, bytes, messages)
  return handshake(0x10, 1, 1, {
    { 0x0001, network },
    { 0x0002, stream },
    { 0x0003, codec },
    { 0x0008, pack(">I8I8", bytes, messages) },
  })
end

function wire.start(network, stream, codec, epoch, sequence)
  return handshake(0x11, 1, 1, {
    { 0x0001, network },
    { 0x0002, stream },
    { 0x0003, codec },
    { 0x8007, pack(">I8I8", epoch, sequence) },
  })
end

function wire.close(code, reason)
  return frame(0x1f, pack(">I4", code) .. reason)
end

function wire.message(epoch, sequence, payload)
  return frame(0x12, pack(">I8I8I8", epoch, sequence, 0) .. payload)
end

return wire
