local size = require("weir.size")

describe("weir.size", function()
  it("reads bytes and units", function()
    for text, bytes in pairs({
      [1] = 1,
      [4096] = 4096,
      [1.5] = 1,
      ["10"] = 10,
      ["10 B"] = 10,
      ["4 KiB"] = 4096,
      ["4KiB"] = 4096,
      [" 1.5 MiB "] = 1.5 * 1024 * 1024,
      ["2 GiB"] = 2 * 1024 ^ 3,
      ["3 kB"] = 3000,
      ["3 KB"] = 3000,
      ["1 MB"] = 1000000,
      ["1 GB"] = 1000000000,
    }) do
      assert.equal(bytes, (size.parse(text)))
    end
    assert.equal("integer", math.type(size.parse("1.5 MiB")))
  end)

  it("says what is wrong with anything else", function()
    for _, bad in ipairs({ "", "MiB", "1 TB", "1 mib", "-1", "1e3", "1 KiB 2", "0x10", true, {}, print }) do
      local bytes, why = size.parse(bad)
      assert.is_nil(bytes)
      assert.matches('is not a size: use bytes, or a string such as "64 MiB"', why)
    end
    for _, bad in ipairs({ 0, -1, 0.5, "0", "0 GiB", 0 / 0, math.huge, 2 ^ 54, "99999999999 GiB" }) do
      local bytes, why = size.parse(bad)
      assert.is_nil(bytes)
      assert.matches("is not a size", why)
    end
    assert.is_nil((size.parse(nil)))
  end)

  it("writes for people", function()
    for bytes, text in pairs({
      [0] = "0 B",
      [1023] = "1023 B",
      [1023.7] = "1023 B",
      [1024] = "1.0 KiB",
      [1536] = "1.5 KiB",
      [64 * 1024 * 1024] = "64.0 MiB",
      [1024 ^ 3] = "1.0 GiB",
      [5000 * 1024 ^ 4] = "5000.0 TiB",
    }) do
      assert.equal(text, size.format(bytes))
    end
  end)
end)
