local errors = require("weir.errors")
local printer = require("weir.repl.print")

local format = printer.format

describe("weir.repl.print", function()
  it("writes plain values as Lua does", function()
    assert.equal("nil", format(nil))
    assert.equal("true", format(true))
    assert.equal("42", format(42))
    assert.equal("1.5", format(1.5))
    assert.equal("inf", format(math.huge))
    assert.equal("nan", format(0 / 0))
    assert.equal('"it\'s \\"so\\"\\n\\\\"', format("it's \"so\"\n\\"))
  end)

  it("lets no text do anything to the terminal", function()
    assert.equal('"\\x1b[2J\\x00\\x7f"', format("\27[2J\0\127"))
    assert.equal('"\\xff\\xfe"', format("\255\254"))
    assert.equal('"gr\195\188n"', format("gr\195\188n"))
    assert.equal('"\\u{9b}2J"', format("\194\1552J"))
    assert.equal('"\\u{202e}txt\\u{2066}\\u{2028}\\u{200f}"', format("\u{202e}txt\u{2066}\u{2028}\u{200f}"))
    local evil = setmetatable({}, { __tostring = function()
      return "\27[2J"
    end })
    assert.equal("\\x1b[2J", format(evil))
  end)

  it("writes small tables on one line and others on several", function()
    assert.equal("{}", format({}))
    assert.equal('{ 1, 2, a = "x", ["b c"] = {} , ["end"] = 1 }', (format({ 1, 2, a = "x", ["b c"] = {}, ["end"] = 1 })
      :gsub("{},", "{} ,")))
    local long = ("n"):rep(80)
    local text = format({ name = long, list = { 1, 2 } })
    assert.equal(('{\n  list = { 1, 2 },\n  name = "%s",\n}'):format(long), text)
  end)

  it("keeps to the width of the screen", function()
    local value = { alpha = 1, beta = 2, gamma = 3 }
    assert.equal("{ alpha = 1, beta = 2, gamma = 3 }", format(value, 80))
    assert.equal("{\n  alpha = 1,\n  beta = 2,\n  gamma = 3,\n}", format(value, 20))
  end)

  it("says where a table is in itself", function()
    local value = { name = "a" }
    value.self = value
    assert.equal('{ name = "a", self = { a cycle } }', format(value))
  end)

  it("shows a value twice that is there twice", function()
    local shared = { 1 }
    assert.equal("{ { 1 }, { 1 } }", format({ shared, shared }))
  end)

  it("bounds depth, fields, texts and all together", function()
    local deep = {}
    for _ = 1, 100000 do
      deep = { deep }
    end
    assert.equal("{ { { { { { ... } } } } } }", format(deep))
    local wide = {}
    for i = 1, 100000 do
      wide[i], wide["k" .. i] = i, i
    end
    assert.matches("... 199950 more", format(wide))
    assert.matches(" %.%. %(10000000 bytes in all%)$", format(("x"):rep(1e7)))
    local bush = {}
    local function grow(node, level)
      for i = 1, 50 do
        node[i] = {}
        if level > 0 then
          grow(node[i], level - 1)
        end
      end
    end
    grow(bush, 2)
    assert.is_true(#format(bush) < 60000)
    local texts = {}
    for i = 1, 50 do
      texts[i] = ("x"):rep(1e5)
    end
    assert.is_true(#format({ texts, texts, texts }) < 25000)
  end)

  it("cuts texts of many lines", function()
    assert.equal("a\n  b\\x00\n", printer.lines("a\n\tb\0\n"))
    assert.equal("a\n... (3 bytes)", printer.lines("a\nb", 2))
  end)

  it("does not cut a character in two", function()
    local text = format(("\228\184\150"):rep(1000))
    assert.truthy(utf8.len(text))
  end)

  it("lets objects say what they are", function()
    assert.equal("a duck", format(setmetatable({ 1, 2 }, { __tostring = function()
      return "a duck"
    end })))
    assert.equal("a table whose __tostring fails", format(setmetatable({}, { __tostring = error })))
    assert.matches("^duck: 0x", format(setmetatable({}, { __name = "duck" })))
    assert.matches("^file %(0x", format(io.stdout))
  end)

  it("calls no other metamethod", function()
    local function fail()
      error("called")
    end
    local value = setmetatable({ a = 1 }, { __index = fail, __len = fail, __pairs = fail, __eq = fail, __lt = fail })
    assert.equal("{ a = 1 }", format(value))
    assert.equal("{ a = 1 }", format(setmetatable({ a = 1 }, { __metatable = false })))
  end)

  it("shows errors with their context", function()
    local err = errors.new("timeout", "it took too long", { stream = "squares", inner = { a = 1 } })
    assert.equal('error timeout: it took too long { inner = { a = 1 }, stream = "squares" }', format(err))
    assert.equal("error closed: closed", format(errors.new("closed")))
    local mistakes = errors.new("wiring", "two mistakes:\n\ta\27\n  b", { mistakes = { "a", "b" } })
    assert.equal("error wiring: two mistakes:\n  a\\x1b\n  b", format(mistakes))
    assert.equal("{ error wiring: two mistakes:\\n\\ta\\x1b\\n  b }", format({ mistakes }))
  end)

  it("says where functions are from", function()
    assert.matches("^function %(.*print_spec.lua:%d+%)$", format(function() end))
    assert.equal("function (built in)", format(print))
  end)

  it("writes several values on a line", function()
    assert.equal('nil, "x", 1', printer.all({ n = 3, nil, "x", 1 }))
    assert.matches("... 950 more$", printer.all({ n = 1000 }))
  end)
end)
