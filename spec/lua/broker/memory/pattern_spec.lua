local pattern = require("weir.broker.memory.pattern")

local function matches(wanted, name)
  return pattern.matches(assert(pattern.parse(wanted)), assert(pattern.destination(name)))
end

describe("a pattern", function()
  it("has '*' for one token and '>' for one or more", function()
    assert.is_true(matches("orders.*", "orders.new"))
    assert.is_false(matches("orders.*", "orders"))
    assert.is_false(matches("orders.*", "orders.new.eu"))
    assert.is_true(matches("*.new", "orders.new"))
    assert.is_true(matches("*", "orders"))
    assert.is_true(matches("orders.>", "orders.new"))
    assert.is_true(matches("orders.>", "orders.new.eu"))
    assert.is_false(matches("orders.>", "orders"))
    assert.is_true(matches(">", "orders.new.eu"))
    assert.is_true(matches("*.new.>", "orders.new.eu"))
    assert.is_false(matches("*.new.>", "orders.old.eu"))
  end)

  it("takes the signs as themselves within a token", function()
    local _, wild = pattern.parse("a*.b>")
    assert.is_false(wild)
    assert.is_true(matches("a*.b>", "a*.b>"))
    assert.is_false(matches("a*.b>", "ax.bx"))
  end)

  it("refuses empty names and tokens, what is too long, and '>' before the end", function()
    for _, name in ipairs({ "", ".", "a.", ".a", "a..b" }) do
      local tokens, wrong = pattern.parse(name)
      assert.is_nil(tokens)
      assert.matches("empty", wrong)
    end
    assert.matches("last token", select(2, pattern.parse("a.>.b")))
    assert.matches("1024", select(2, pattern.parse(("x"):rep(1025))))
    assert.is_table((pattern.parse(("x"):rep(1024))))
  end)

  it("refuses zero bytes, which part a name from its group", function()
    assert.matches("zero byte", select(2, pattern.parse("a\0b")))
    assert.matches("zero byte", select(2, pattern.destination("\0")))
  end)

  it("is no name to publish to", function()
    for _, name in ipairs({ "a.*", ">", "*" }) do
      assert.matches("pattern", select(2, pattern.destination(name)))
    end
    assert.is_nil(select(2, pattern.destination("a.b")))
  end)
end)
