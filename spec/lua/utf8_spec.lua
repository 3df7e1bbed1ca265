local text = require("weir.utf8")

-- What is wrong in each, one byte after the other.
local WRONG = {
  "\255", "\128", "\192\175", "\193\191", "\224\128\128", "\237\160\128", "\240\128\128\128", "\244\144\128\128",
  "\245\128\128\128", "\195", "\226\130", "\240\159\152",
}

describe("weir.utf8", function()
  it("leaves what is UTF-8 as it is", function()
    for _, each in ipairs({ "", "abc\0\127", "é", "€", "\u{10FFFF}", "\u{D7FF}\u{E000}", ("ü"):rep(1000) }) do
      assert.equal(each, text.valid(each))
    end
  end)

  it("puts U+FFFD for each byte that belongs to no character", function()
    for _, each in ipairs(WRONG) do
      assert.equal("a" .. ("\u{FFFD}"):rep(#each) .. "é", text.valid("a" .. each .. "é"), each)
    end
    assert.equal("\u{FFFD}\u{FFFD}é", text.valid("\255\195é"))
  end)

  it("makes UTF-8 of whatever bytes, and keeps the characters that are there", function()
    local seed = 3
    local function random(n)
      seed = seed * 16807 % 2147483647
      return seed % n
    end
    for _ = 1, 500 do
      local bytes = {}
      for i = 1, random(30) do
        bytes[i] = random(3) == 0 and "é" or string.char(random(256))
      end
      local made = text.valid(table.concat(bytes))
      assert.truthy(utf8.len(made))
      assert.equal(made, text.valid(made))
    end
  end)
end)
