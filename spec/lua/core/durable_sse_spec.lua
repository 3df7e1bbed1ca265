local core = require("weir.core")

local function events(parser, ...)
  local out = {}
  for _, bytes in ipairs({ ... }) do
    parser:feed(bytes)
    while true do
      local kind, data = parser:next()
      if not kind then
        if data ~= "again" then return out, data end
        break
      end
      out[#out + 1] = kind .. "=" .. data
    end
  end
  return out
end

describe("core.sse", function()
  it("returns events by type, wherever the bytes are cut", function()
    local text = "event: data\r\ndata: a\r\ndata:  b\r\n\r\n: comment\r\nevent: odd\rdata\r\rdata: c\n\n"
    local expected = { "data=a\n b", "odd=", "message=c" }
    assert.same(expected, events(core.sse(), text))
    for cut = 0, #text do
      assert.same(expected, events(core.sse(), text:sub(1, cut), text:sub(cut + 1)))
    end
  end)

  it("leaves bytes as they are", function()
    local data = "\194\133\226\128\168\226\128\169\255\0x"
    assert.same({ "message=" .. data }, events(core.sse(), "data: " .. data .. "\n\n"))
  end)

  it("refuses an event that is too long, and stays so", function()
    local parser = core.sse(4)
    local _, reason = events(parser, "data: abcde\n\n")
    assert.equal("limit", reason)
    parser:feed("data: a\n\n")
    assert.same({ nil, "limit" }, { parser:next() })
  end)

  it("takes new bytes only when all before them were read", function()
    local parser = core.sse()
    parser:feed("data: a\n\ndata: b\n\n")
    assert.equal("message", (parser:next()))
    assert.has_error(function() parser:feed("x") end)
  end)

  it("raises for what are no bytes and no limit", function()
    assert.has_error(function() core.sse():feed({}) end)
    assert.has_error(function() core.sse(0) end)
  end)
end)
