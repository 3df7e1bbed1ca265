local core = require("weir.core")

local function items(splitter, ...)
  local out = {}
  for _, bytes in ipairs({ ... }) do
    splitter:feed(bytes)
    while true do
      local text, reason, what, position = splitter:next()
      if not text then
        if reason ~= "again" then return out, reason, what, position end
        break
      end
      out[#out + 1] = text
    end
  end
  return out
end

describe("core.json_items", function()
  it("returns the exact text of each element, wherever the array is cut", function()
    local text = ' [1.0, "a]\\"\\u00e9\226\130\172", {"b" : [12345678901234567890]},[ ],null ] '
    local expected =
      { "1.0", '"a]\\"\\u00e9\226\130\172"', '{"b" : [12345678901234567890]}', "[ ]", "null" }
    for cut = 0, #text do
      local splitter = core.json_items()
      assert.same(expected, items(splitter, text:sub(1, cut), text:sub(cut + 1)))
      assert.is_true(splitter:finish())
    end
  end)

  it("says what is wrong and where", function()
    local out, reason, what, position = items(core.json_items(), "[1, 2", "3 x]")
    assert.same({ "1", "23" }, out)
    assert.equal("protocol", reason)
    assert.is_string(what)
    assert.equal(7, position)
  end)

  it("knows whether the array is complete", function()
    local splitter = core.json_items()
    items(splitter, "[1,")
    local ok, reason, what, position = splitter:finish()
    assert.is_nil(ok)
    assert.equal("protocol", reason)
    assert.is_string(what)
    assert.equal(3, position)
  end)

  it("begins again after a reset", function()
    local splitter = core.json_items()
    items(splitter, "[1,[")
    splitter:reset()
    assert.same({ "2" }, items(splitter, "[2]"))
    assert.is_true(splitter:finish())
  end)

  it("bounds elements and depth", function()
    local _, reason = items(core.json_items(3), '["ab"]')
    assert.equal("limit", reason)
    _, reason = items(core.json_items(100, 2), "[[[]]]")
    assert.equal("limit", reason)
    assert.has_error(function() core.json_items(0) end)
    assert.has_error(function() core.json_items(1, 100000) end)
  end)

  it("takes new bytes only when all before them were read", function()
    local splitter = core.json_items()
    splitter:feed("[1,2]")
    assert.equal("1", splitter:next())
    assert.has_error(function() splitter:feed("x") end)
    assert.has_error(function() splitter:finish() end)
  end)
end)

describe("core.json_check", function()
  it("accepts any whole JSON text", function()
    for _, text in ipairs({ "1", '"a"', " null ", "{}", '[1,{"a":[true]}]' }) do
      assert.is_true(core.json_check(text))
    end
  end)

  it("says what is wrong and where", function()
    local ok, what, position = core.json_check('{"a":1,}')
    assert.is_nil(ok)
    assert.is_string(what)
    assert.equal(7, position)
    assert.is_nil(core.json_check(""))
    assert.is_nil(core.json_check("[[1]]", 1))
  end)
end)

describe("core.base64", function()
  it("returns all bytes as they were", function()
    local all = {}
    for byte = 0, 255 do all[#all + 1] = string.char(byte) end
    local bytes = table.concat(all)
    for len = 0, 256 do
      local part = bytes:sub(1, len)
      assert.equal(part, core.base64_decode(core.base64_encode(part)))
    end
    assert.equal("Zm9vYg==", core.base64_encode("foob"))
  end)

  it("skips line breaks and refuses all else that is not strict", function()
    assert.equal("foob", core.base64_decode("Zm9v\r\nYg=\n="))
    for _, text in ipairs({ "Zg", "Zg=", "Zh==", "Zg==Zg==", "Zm 9", "Zm-_", "====" }) do
      local bytes, reason = core.base64_decode(text)
      assert.is_nil(bytes)
      assert.equal("invalid", reason)
    end
  end)
end)
