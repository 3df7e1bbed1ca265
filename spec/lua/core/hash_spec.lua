local core = require("weir.core")

local function hex(bytes)
  return (bytes:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

describe("core.blake3", function()
  it("is the official hash of the empty string", function()
    assert.equal("af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262", hex(core.blake3("")))
  end)

  it("takes strings with any bytes, of any length", function()
    local bytes = {}
    for i = 0, 102399 do bytes[#bytes + 1] = string.char(i % 251) end
    local input = table.concat(bytes)
    assert.equal("2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213", hex(core.blake3("\0")))
    assert.equal("d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444",
      hex(core.blake3(input:sub(1, 1025))))
    assert.equal("bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085", hex(core.blake3(input)))
  end)

  it("raises on what is no string", function()
    assert.has_error(function() core.blake3({}) end)
    assert.has_error(function() core.blake3() end)
  end)
end)

describe("core.stream_id", function()
  it("is the hash of the name", function()
    assert.equal("67502aa345d1dfdc945219d3c783a1e3448ba4db3ff45c273d37902ee3522c01",
      hex(core.stream_id("stream1234")))
    assert.equal("12de13e6d3ad14e1ba8d0ddcfb40dfb9de864e44e7badebe2c02a6d6ccc4a10a",
      hex(core.stream_id("oracle.price")))
    assert.equal(core.blake3("my-stream1"), core.stream_id("my-stream1"))
  end)

  it("is the id itself when it is given as 64 hex digits, of either case", function()
    local digits = "67502aa345d1dfdc945219d3c783a1e3448ba4db3ff45c273d37902ee3522c01"
    assert.equal(digits, hex(core.stream_id(digits)))
    assert.equal(digits, hex(core.stream_id(digits:upper())))
  end)

  it("takes what only resembles an id for a name", function()
    local digits = ("0"):rep(64)
    local short = digits:sub(2)
    for _, name in ipairs({ short, digits .. "0", "g" .. short, short .. " " }) do
      assert.equal(core.blake3(name), core.stream_id(name))
    end
  end)
end)
