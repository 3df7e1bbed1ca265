local core = require("weir.core")

local null = require("weir.codec").null
local decode = core.json_decode

describe("json_decode", function()
  it("makes tables, strings, numbers, booleans and null of a text", function()
    local value = decode(' [ {"a" : 1, "b":[true,false , null], "":{} } ,"x", [] ] ')
    assert.same({ { a = 1, b = { true, false, null }, [""] = {} }, "x", {} }, value)
    assert.equal(null, decode("null"))
    assert.equal("", decode('""'))
  end)

  it("lets the last of equal keys count", function()
    assert.same({ a = 2 }, decode('{"a":1,"a":2}'))
  end)

  it("reads every number as the double that is nearest", function()
    for _, text in ipairs({ "0", "-0", "7", "-12", "0.1", "0.3", "-2.50", "1e3", "1E-7", "2.5e+10", "123456789012345",
      "1234567890123456", "9007199254740993", "0.1234567890123456789", "99999999999999.9", "1700000000.125",
      "0.000000000000001", "4.35", "123456789012345678901234567890", "5e-324", "1e999" }) do
      assert.equal(tonumber(text) + 0.0, decode(text), text)
    end
    assert.equal(-math.huge, 1 / decode("-0"))
  end)

  it("agrees with the codec on random numbers", function()
    local codec = require("weir.codec").get("json")
    math.randomseed(7)
    for _ = 1, 5000 do
      local text = ("%d.%0" .. math.random(1, 12) .. "d"):format(math.random(0, 99999), math.random(0, 9))
      assert.equal(codec.decode("[" .. text .. "]")[1], decode(text), text)
    end
  end)

  it("undoes escapes", function()
    assert.equal('"\\/\b\f\n\r\t', decode([["\"\\\/\b\f\n\r\t"]]))
    assert.equal("a\0b\195\169\226\130\172\240\157\132\158z", decode([["a\u0000b\u00e9\u20AC\uD834\uDD1Ez"]]))
    assert.same({ ["k\n"] = ("long"):rep(2000) .. "\t" }, decode('{"k\\n":"' .. ("long"):rep(2000) .. '\\t"}'))
  end)

  it("passes bytes in strings on", function()
    assert.equal("h\195\169\255", decode('"h\195\169\255"'))
  end)

  it("makes tables of their own of objects that differ", function()
    local value = decode('[{"a":1,"b":2,"c":3},{"a":1},{},{"d":[1,2,3]},{"d":[]}]', 5)
    assert.same({ { a = 1, b = 2, c = 3 }, { a = 1 }, {}, { d = { 1, 2, 3 } }, { d = {} } }, value)
    assert.same({ 1 }, decode("[1]", 1e15))
  end)

  it("says what is wrong, and where", function()
    for text, expected in pairs({
      [""] = "the text ends too early @0",
      ["[1,"] = "the text ends too early @3",
      ["[1"] = "the text ends too early @2",
      ['"abc'] = "the text ends too early @4",
      ['"abc\\'] = "the text ends too early @5",
      ['{"a"'] = "the text ends too early @4",
      ["[1,]"] = "a value is expected @3",
      ["[1 2]"] = "a comma or ] is expected @3",
      ['{"a":1 "b":2}'] = "a comma or } is expected @7",
      ['{"a" 1}'] = "a colon is expected @5",
      ["{a:1}"] = "a key is expected @1",
      ['{"a":1,}'] = "a key is expected @7",
      ["[1] 2"] = "nothing may follow @4",
      ["[1]\0"] = "nothing may follow @3",
      ["\0"] = "a value is expected @0",
      ["tru!"] = "true, false or null is expected @0",
      ["01 "] = "a number begins with 0 @2",
      ["-x"] = "a digit is expected @1",
      ["1.x"] = "a digit is expected @2",
      ["1e+x"] = "a digit is expected @3",
      ["+1"] = "a value is expected @0",
      ["NaN"] = "a value is expected @0",
      ['"\n"'] = "a control character in a string @1",
      ['"a\0b"'] = "a control character in a string @2",
      ['"\\x"'] = "an unknown escape @2",
      ['"\\u12g4"'] = "four hexadecimal digits are expected @3",
      ['"\\ud800"'] = "half of a surrogate pair @7",
      ['"\\udc00\\ud800"'] = "half of a surrogate pair @7",
      ['"\\ud800\\u0041"'] = "half of a surrogate pair @7",
    }) do
      local value, what, position = decode(text)
      assert.is_nil(value, text)
      assert.equal(expected, ("%s @%d"):format(what, position), text)
    end
  end)

  it("bounds the depth", function()
    assert.is_table(decode(("["):rep(64) .. ("]"):rep(64)))
    assert.same({ nil, "nested too deeply", 64 }, { decode(("["):rep(65) .. ("]"):rep(65)) })
    assert.is_table(decode(('{"a":'):rep(1000) .. "1" .. ("}"):rep(1000), nil, 1024))
    assert.is_nil((decode("[[]]", nil, 1)))
    assert.has_error(function()
      decode("1", nil, 1025)
    end)
  end)

  it("takes no text cut short, wherever it is cut", function()
    local text = '[{"a\\n":-1.5e3,"b":[true,null,"\\ud834\\udd1e"]},{}]'
    assert.is_table(decode(text))
    for length = 0, #text - 1 do
      assert.is_nil((decode(text:sub(1, length))), length)
    end
  end)
end)
