local found, simdjson = pcall(require, "weir.simdjson")

if not found then
  describe("weir.simdjson", function()
    pending("is not built here: simdjson or a C++ compiler is missing")
  end)
  return
end

local decode = simdjson.decode
-- As the codec "json" has it.
local cjson = require("cjson.safe").new()
cjson.decode_max_depth(64)
cjson.decode_invalid_numbers(false)

-- Equal, with the sign of zeros, as far as lua-cjson's floats can be exact.
local function alike(a, b)
  if type(a) ~= type(b) then
    return false
  elseif type(a) == "number" then
    return ("%.17g"):format(a + 0.0) == ("%.17g"):format(b + 0.0)
  elseif type(a) ~= "table" then
    return a == b
  end
  for key, value in pairs(a) do
    if not alike(value, b[key]) then return false end
  end
  for key in pairs(b) do
    if a[key] == nil then return false end
  end
  return true
end

-- Whether it decodes the text; then it must do so as lua-cjson does.
local function decodes(text)
  local value = decode(text)
  if value == nil then return false end
  local same = alike(value, cjson.decode(text))
  if not same then error(("decodes in another way than lua-cjson: %q"):format(text)) end
  return true
end

local function each_form(text, what)
  for _, form in ipairs({ "%s", " %s\n", "[%s]", "[%s,0]", '{"a":%s}' }) do
    what(form:format(text))
  end
end

local function nested(open, inner, close, depth)
  return open:rep(depth) .. inner .. close:rep(depth)
end

local TOKENS = {
  "[", "]", "{", "}", ",", ":", '"a"', '"b"', '""', "1", "0", "-0", "-", "-0.0", "1e5", "1E-5", "0.1", "1.", "01",
  "1e999", "-1e999", "18446744073709551615", "18446744073709551616", "9223372036854775808", "-9223372036854775808",
  "-9223372036854775809", "123456789012345678901234567890", "5e-324", "1e-400", "2.2250738585072011e-308",
  "9007199254740993", "true", "false", "null", " ", "\n", '"\\u0000"', '"\\ud83d\\ude00"', '"\\ud800"', '"\\udc00"',
  '"\\ud800\\u0041"', '"\\u00e9"', '"é"', '"\255"', '"\192\128"', '"\\/\\b\\f\\n\\r\\t\\"\\\\"', '"\1"', '"\127"',
  "\0", '"x\0y"', "\239\187\191", '"-0,"', "NaN", "Infinity", "nul", "1 2", "//", '"\\x"', '"unterminated',
}

-- Some JSON, most of the time.
local function some_value(random, depth)
  local kind = random(depth > 0 and 8 or 6)
  if kind == 1 then
    return ("%.17g"):format((random() - 0.5) * 10 ^ random(-30, 30))
  elseif kind == 2 then
    return ("%s%d.%de%d"):format(random(2) == 1 and "-" or "", random(0, 99999), random(0, 99999), random(-330, 330))
  elseif kind < 7 then
    return TOKENS[random(7, #TOKENS)]
  end
  local parts = {}
  for i = 1, random(0, 4) do
    parts[i] = (kind == 8 and ('"k%d":'):format(random(3)) or "") .. some_value(random, depth - 1)
  end
  local inner = table.concat(parts, random(2) == 1 and "," or " , ")
  return kind == 8 and "{" .. inner .. "}" or "[" .. inner .. "]"
end

describe("weir.simdjson", function()
  it("decodes JSON as lua-cjson does", function()
    for _, text in ipairs({
      "0", "1", "-1", "0.1", "-0.0", "1e5", "1E-5", "9007199254740993", "9223372036854775808", "18446744073709551615",
      "-9223372036854775808", "5e-324", "1e-400", "true", "false", "null", "[]", "{}", '""', '"é"', '"\\u0000"',
      '"\\ud83d\\ude00"', '"\\/\\b\\f\\n\\r\\t\\"\\\\"', '{"a":1,"a":2}', '[[],{},[{"b":[null]}]]', '"2020-01-02"',
    }) do
      each_form(text, function(form) assert.is_true(decodes(form), form) end)
    end
  end)

  if math.type then
    it("decodes to integers what has no fraction or exponent, exact to 64 bits", function()
      for text, number in pairs({
        ["7"] = 7,
        ["-7"] = -7,
        ["9007199254740993"] = 9007199254740993,
        ["9223372036854775807"] = math.maxinteger,
        ["-9223372036854775808"] = math.mininteger,
      }) do
        assert.equal("integer", math.type(decode(text)))
        assert.equal(number, decode(text))
      end
      for _, text in ipairs({ "1.0", "1e3", "0.5", "9223372036854775808" }) do
        assert.equal("float", math.type(decode(text)))
      end
    end)
  end

  it("leaves to lua-cjson what that decodes in another way, or refuses", function()
    for _, text in ipairs({
      "-0", "1e999", "-1e999", "18446744073709551616", "-9223372036854775809", '"\255"', '"\192\128"', '"\1"',
      '"\\ud800"', '"\\udc00"', "\239\187\191[]", "", "[", "01", "1.", "NaN", "nul", "1 2", "\0", '"x',
    }) do
      each_form(text, function(form)
        if form ~= "[]" then assert.is_nil(decode(form)) end
      end)
    end
    for _, value in ipairs({ 12, true, {} }) do assert.is_nil(decode(value)) end
    assert.is_nil(decode())
  end)

  it("decodes a zero beside a minus that belongs to no number", function()
    for _, text in ipairs({ '{"day":"2020-01-02","n":0}', '["-0",0]', "[0,-0.5]", "[0,-1]", '["a-",0]' }) do
      assert.is_true(decodes(text), text)
    end
    for _, text in ipairs({ "[0,-0]", "[-0,0]", "[-0 ]", '{"a":-0}', '["-0","-0",0,-0\n]' }) do
      assert.is_nil(decode(text), text)
      assert.is_true(cjson.decode(text) ~= nil)
    end
  end)

  it("nests as deep as lua-cjson", function()
    for depth = 60, 66 do
      for _, kind in ipairs({ { "[", "", "]" }, { "[", "1", "]" }, { '{"a":', "[]", "}" }, { "[{},", "1", "]" } }) do
        local text = nested(kind[1], kind[2], kind[3], depth)
        assert.equal(cjson.decode(text) ~= nil, decodes(text), text)
      end
    end
    assert.is_nil(decode(("["):rep(1000000)))
  end)

  it("leaves texts longer than 1 MiB to lua-cjson", function()
    local longest = '"' .. ("x"):rep(1024 * 1024 - 2) .. '"'
    assert.equal(longest:sub(2, -2), decode(longest))
    assert.is_nil(decode(longest .. " "))
    assert.equal("x", decode('"x"'))
  end)

  it("never disagrees with lua-cjson", function()
    math.randomseed(20)
    local count = 0
    for _ = 1, 5000 do
      count = count + (decodes(some_value(math.random, 4)) and 1 or 0)
      local parts = {}
      for i = 1, math.random(6) do parts[i] = TOKENS[math.random(#TOKENS)] end
      decodes(table.concat(parts))
    end
    assert.is_true(count > 1000)
  end)
end)
