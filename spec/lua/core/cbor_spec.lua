local cbor = require("weir.cbor")

local unpack = table.unpack or unpack -- luacheck: ignore 143 (LuaJIT has the other one)
local integers = math.type ~= nil
local huge = math.huge

local function bytes(hex)
  return (hex:gsub("%s", ""):gsub("..", function(digits) return string.char(tonumber(digits, 16)) end))
end

local function hex(text)
  return (text:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

local function encoded(value) return hex(assert(cbor.encode(value))) end

local function decoded(digits)
  local value, err = cbor.decode(bytes(digits))
  assert(value ~= nil, err)
  return value
end

local function refused(digits)
  local value, err = cbor.decode(bytes(digits))
  assert.is_nil(value)
  return err
end

local function nested(depth, innermost)
  local value = innermost
  for _ = 1, depth do value = { value } end
  return value
end

local function numbers(n)
  local list = {}
  for i = 1, n do list[i] = i end
  return list
end

local tagged = cbor.tagged

-- RFC 8949, appendix A, but for simple values without a meaning. With `false`: weir writes it otherwise.
local VECTORS = {
  { 0, "00" }, { 1, "01" }, { 10, "0a" }, { 23, "17" }, { 24, "1818" }, { 25, "1819" }, { 100, "1864" },
  { 1000, "1903e8" }, { 1000000, "1a000f4240" }, { 1000000000000, "1b000000e8d4a51000" },
  { 2 ^ 64, "1bffffffffffffffff", false }, { -2 ^ 64, "3bffffffffffffffff", false },
  { tagged(2, bytes("010000000000000000")), "c249010000000000000000", false },
  { tagged(3, bytes("010000000000000000")), "c349010000000000000000", false }, -- bytes that are text, too
  { -1, "20" }, { -10, "29" }, { -100, "3863" }, { -1000, "3903e7" },
  { 0.0, "f90000", false }, { -0.0, "f98000", false }, { 1.0, "f93c00", false }, { 1.1, "fb3ff199999999999a" },
  { 1.5, "f93e00", false }, { 65504.0, "f97bff", false }, { 100000.0, "fa47c35000", false },
  { 3.4028234663852886e+38, "fa7f7fffff" }, { 1.0e+300, "fb7e37e43c8800759c" },
  { 5.960464477539063e-8, "f90001", false }, { 0.00006103515625, "f90400", false }, { -4.0, "f9c400", false },
  { -4.1, "fbc010666666666666" }, { huge, "f97c00", false }, { -huge, "f9fc00", false }, { huge, "fa7f800000" },
  { -huge, "faff800000" }, { huge, "fb7ff0000000000000", false }, { -huge, "fbfff0000000000000", false },
  { false, "f4" }, { true, "f5" }, { cbor.null, "f6" }, { cbor.null, "f7", false },
  { tagged(0, "2013-03-21T20:04:00Z"), "c074323031332d30332d32315432303a30343a30305a" },
  { tagged(1, 1363896240), "c11a514b67b0" }, { tagged(1, 1363896240.5), "c1fb41d452d9ec200000" },
  { tagged(23, bytes("01020304")), "d74401020304", false }, { tagged(24, "dIETF"), "d818456449455446", false },
  { tagged(32, "http://www.example.com"), "d82076687474703a2f2f7777772e6578616d706c652e636f6d" },
  { "", "40", false }, { bytes("01020304"), "4401020304", false }, { "", "60" }, { "a", "6161" },
  { "IETF", "6449455446" },
  { "\"\\", "62225c" }, { "\195\188", "62c3bc" }, { "\230\176\180", "63e6b0b4" }, { "\240\144\133\145", "64f0908591" },
  { {}, "80" }, { { 1, 2, 3 }, "83010203" }, { { 1, { 2, 3 }, { 4, 5 } }, "8301820203820405" },
  { numbers(25), "98190102030405060708090a0b0c0d0e0f101112131415161718181819" },
  { {}, "a0", false }, { { 2, [3] = 4 }, "a201020304", false },
  { { a = 1, b = { 2, 3 } }, "a26161016162820203", false },
  { { "a", { b = "c" } }, "826161a161626163" },
  { { a = "A", b = "B", c = "C", d = "D", e = "E" }, "a56161614161626142616361436164614461656145", false },
  { bytes("0102030405"), "5f42010243030405ff", false }, { "streaming", "7f657374726561646d696e67ff", false },
  { {}, "9fff", false }, { { 1, { 2, 3 }, { 4, 5 } }, "9f018202039f0405ffff", false },
  { { 1, { 2, 3 }, { 4, 5 } }, "9f01820203820405ff", false }, { { 1, { 2, 3 },
  { 4, 5 } }, "83018202039f0405ff", false },
  { { 1, { 2, 3 }, { 4, 5 } }, "83019f0203ff820405", false },
  { numbers(25), "9f0102030405060708090a0b0c0d0e0f101112131415161718181819ff", false },
  { { a = 1, b = { 2, 3 } }, "bf61610161629f0203ffff", false }, { { "a", { b = "c" } }, "826161bf61626163ff", false },
  { { Fun = true, Amt = -2 }, "bf6346756ef563416d7421ff", false },
}
VECTORS[#VECTORS + 1] = { 18446744073709551615.0, "1bffffffffffffffff", false }
VECTORS[#VECTORS + 1] = { -18446744073709551616.0, "3bffffffffffffffff", false }

describe("cbor", function()
  it("reads the examples of RFC 8949, and writes those that are as it writes", function()
    for _, vector in ipairs(VECTORS) do
      local value, digits, writes = vector[1], vector[2], vector[3]
      assert.same(value, decoded(digits))
      if writes ~= false then
        assert.equal(digits, encoded(value))
      end
    end
    for _, digits in ipairs({ "f97e00", "fa7fc00000", "fb7ff8000000000000" }) do
      local nan = decoded(digits)
      assert.is_true(nan ~= nan)
    end
    assert.equal(-huge, 1 / decoded("f98000"))
  end)

  it("brings back what it wrote, at random", function()
    math.randomseed(20260)
    local function random_string()
      local out = {}
      for i = 1, math.random(0, 40) do out[i] = string.char(math.random(0, 255)) end
      return table.concat(out)
    end
    local function random_number()
      local n = math.floor((math.random() - 0.5) * 2 ^ math.random(0, 52))
      return math.random() < 0.5 and n + 0.5 or integers and math.tointeger(n) or n
    end
    local function random_value(depth)
      local kind = math.random(1, depth > 0 and 8 or 5)
      if kind == 1 then return math.random() < 0.5 end
      if kind == 2 then return cbor.null end
      if kind == 3 then return random_number() end
      if kind <= 5 then return random_string() end
      if kind == 6 then return tagged(math.random(0, 1000), random_value(depth - 1)) end
      local out = {}
      for i = 1, math.random(0, 12) do
        out[kind == 7 and i or random_string()] = random_value(depth - 1)
      end
      return out
    end
    for _ = 1, 300 do
      local value = random_value(4)
      local text = assert(cbor.encode(value))
      local back, behind = cbor.decode_next("\1" .. text .. "\2", 2)
      assert(back ~= nil, behind)
      assert.same(value, back)
      assert.equal(#text + 2, behind)
      assert.same(value, (cbor.decode(text)))
    end
  end)

  it("stands a hundred thousand inputs that something happened to", function()
    local seeds = {}
    for _, vector in ipairs(VECTORS) do seeds[#seeds + 1] = bytes(vector[2]) end
    seeds[#seeds + 1] = cbor.encode({ list = { 1, "two", { 0.1, false } }, tag = tagged(9, { x = "\255" }) })
    seeds[#seeds + 1] = bytes("bf6161 9f 5f4101ff d9d9f7 c1 fa47c35000 ff 6162 7f6161 6162ff ff")
    math.randomseed(8949)
    local random = math.random
    local read = 0
    for _ = 1, 100000 do
      local text = seeds[random(#seeds)]
      for _ = 1, random(4) do
        local at, what = random(0, #text), random(4)
        if what == 1 then
          text = text:sub(1, at) .. string.char(random(0, 255)) .. text:sub(at + 2)
        elseif what == 2 then
          text = text:sub(1, at) .. seeds[random(#seeds)] .. text:sub(at + 1)
        elseif what == 3 then
          text = text:sub(1, at)
        else
          text = text:sub(1, at) .. text:sub(random(0, #text))
        end
      end
      local value, err = cbor.decode(text)
      local first, behind = cbor.decode_next(text)
      if value == nil then
        assert(err:find("^not CBOR: .+ %(byte %d+%)$"), err)
      else
        read = read + 1
        assert(behind == #text + 1)
        local again, why = cbor.encode(value)
        assert(again or why:find("deep"), why)
      end
      if first ~= nil then
        assert(cbor.decode(text:sub(1, behind - 1)) ~= nil)
      end
    end
    assert.is_true(read > 1000)
  end)
end)

describe("cbor.encode", function()
  it("writes integers in the shortest form", function()
    local forms = {
      { 255, "18ff" }, { 256, "190100" }, { 65535, "19ffff" }, { 65536, "1a00010000" }, { 4294967295, "1affffffff" },
      { 4294967296, "1b0000000100000000" }, { -24, "37" }, { -25, "3818" }, { -256, "38ff" }, { -257, "390100" },
      { -4294967296, "3affffffff" }, { -4294967297, "3b0000000100000000" },
    }
    for _, form in ipairs(forms) do assert.equal(form[2], encoded(form[1])) end
    if integers then
      assert.equal("1b7fffffffffffffff", encoded(math.maxinteger))
      assert.equal("3b7fffffffffffffff", encoded(math.mininteger))
    end
  end)

  it("writes floats in 32 bits where these hold them", function()
    assert.equal("fa3fc00000", encoded(1.5))
    assert.equal("fb3fb999999999999a", encoded(0.1))
    assert.equal("fa80000000", encoded(-0.0))
    assert.equal("fb47efffffe0000001", encoded(3.4028234663852890e+38))
    assert.equal("fa00000001", encoded(2 ^ -149))
    assert.equal("fb3690000000000000", encoded(2 ^ -150))
    assert.equal("fb4415af1d78b58c40", encoded(1e20))
    local nan = cbor.decode(cbor.encode(0 / 0))
    assert.is_true(nan ~= nan)
    if integers then assert.equal("fa3f800000", encoded(1.0)) end
  end)

  it("writes strings as text when they are UTF-8, else as bytes", function()
    assert.equal("63c3a921", encoded("é!"))
    assert.equal("7818" .. ("61"):rep(24), encoded(("a"):rep(24)))
    assert.equal("41ff", encoded("\255"))
    assert.equal("790100" .. ("61"):rep(256), encoded(("a"):rep(256)))
    assert.equal("43eda080", encoded(bytes("eda080")))
  end)

  it("writes tables as arrays and maps, and obeys the markers", function()
    assert.equal("a10261" .. "62", encoded({ [2] = "b" }))
    assert.equal("a1f501", encoded({ [true] = 1 }))
    assert.equal("a0", encoded(cbor.map()))
    assert.equal("a1016161", encoded(cbor.map({ "a" })))
    assert.equal("80", encoded(cbor.array(cbor.map())))
    assert.equal("82f680", encoded({ cbor.null, {} }))
    assert.equal("f6", encoded(nil))
    assert.equal("cannot encode a table marked as an array at .list: its keys are not 1..n",
      select(2, cbor.encode({ list = cbor.array({ 1, nil, 3 }) })))
  end)

  it("writes tagged values, with nothing in them too", function()
    assert.equal("c0f6", encoded(tagged(0)))
    assert.equal("d9d9f701", encoded(tagged(55799, 1)))
    assert.equal("db001000000000000080", encoded(tagged(2 ^ 52, {})))
    assert.equal("c1c281f4", encoded(tagged(1, tagged(2, { false }))))
    local odd = tagged(1, 2)
    odd.tag = "x"
    assert.equal("cannot encode a tagged value at [1]: its tag is no integer of at least 0",
      select(2, cbor.encode({ odd })))
    assert.has_error(function() tagged(-1, 1) end)
    assert.has_error(function() tagged("x", 1) end)
  end)

  it("names what it cannot encode and where that is", function()
    local function reason(value) return select(2, cbor.encode(value)) end
    assert.equal("cannot encode a function", reason(print))
    assert.equal("cannot encode a function at .user.callback", reason({ user = { callback = print } }))
    assert.equal("cannot encode a function at .at.value[2]", reason({ at = tagged(7, { 1, print }) }))
    assert.equal("cannot encode a map key of type table at .a", reason({ a = { [{}] = 1 } }))
    local loop = {}
    loop.self = tagged(1, loop)
    assert.equal("cannot encode a cycle: the table at .self.value contains itself", reason(loop))
  end)

  it("nests 64 tables and no more", function()
    assert.equal(("81"):rep(64) .. "01", encoded(nested(64, 1)))
    assert.equal("cannot encode tables nested more than 64 deep", select(2, cbor.encode(nested(65, 1))))
    assert.equal("cannot encode tables nested more than 64 deep", select(2, cbor.encode(nested(64, tagged(1, 1)))))
    assert.is_string(cbor.encode(nested(63, tagged(1, 1))))
  end)

  it("raises without an argument", function()
    assert.has_error(function() cbor.encode() end)
  end)
end)

describe("cbor.decode", function()
  it("reads integers of every length, the nearest float for what Lua has no integer for", function()
    for _, digits in ipairs({ "05", "1805", "190005", "1a00000005", "1b0000000000000005" }) do
      assert.equal(5, decoded(digits))
    end
    for _, digits in ipairs({ "24", "3804", "390004", "3a00000004", "3b0000000000000004" }) do
      assert.equal(-5, decoded(digits))
    end
    assert.equal(2 ^ 63, decoded("1b8000000000000000") + 0.0)
    assert.equal(-2 ^ 63, decoded("3b7fffffffffffffff") + 0.0)
    assert.equal(-2 ^ 63, decoded("3b8000000000000000"))
    assert.equal(-2 ^ 63 - 2048, decoded("3b80000000000007ff"))
    if integers then
      assert.equal("integer", math.type(decoded("3b7fffffffffffffff")))
      assert.equal(math.mininteger, decoded("3b7fffffffffffffff"))
      assert.equal(math.maxinteger, decoded("1b7fffffffffffffff"))
      assert.equal("float", math.type(decoded("1b8000000000000000")))
      assert.equal("float", math.type(decoded("f93c00")))
    end
  end)

  it("leaves out the tag that says that this is CBOR", function()
    assert.equal(1, decoded("d9d9f701"))
    assert.same({ 1, tagged(1, 2) }, decoded("d9d9f7 82 d9d9f7 d9d9f7 01 c1 d9d9f7 02"))
    assert.matches("break", refused("9f d9d9f7 ff"))
    assert.equal("not CBOR: it ends too early (byte 4)", refused("d9d9f7"))
  end)

  it("brings tagged values back as what cbor.tagged makes", function()
    local value = decoded("c1 81 d8ff 6178")
    assert.equal(1, value.tag)
    assert.same({ tagged(255, "x") }, value.value)
    assert.equal(getmetatable(tagged(1)), getmetatable(value))
    assert.equal("d9ffffd80080", encoded(decoded("d9ffffd80080")):gsub("c0", "d800"))
  end)

  it("knows every tag", function()
    for tag = 0, 300 do
      assert.same(tagged(tag, 1), (cbor.decode(cbor.encode(tagged(tag, 1)))))
    end
    assert.same(tagged(2 ^ 32, 1), decoded("db000000010000000001"))
  end)

  it("takes the last of equal keys", function()
    assert.same({ a = 2 }, decoded("a2616101616102"))
    assert.same({ a = 2 }, decoded("bf616101616102ff"))
  end)

  it("has strings, numbers and booleans as keys only", function()
    assert.same({ [1] = "x", [false] = 0, [1.5] = 1 }, decoded("a3016178 f400 f93e0001"))
    for _, key in ipairs({ "f6", "f7", "80", "a0", "f97e00", "c100" }) do
      assert.equal("not CBOR: a map key is neither a string nor a number nor a boolean (byte",
        refused("a1" .. key .. "01"):sub(1, -4))
    end
  end)

  it("says what is wrong, and at which byte", function()
    local PARTS = "the parts of a string are strings of its kind and of known length (byte 2)"
    local cases = {
      { "", "it ends too early (byte 1)" }, { "8201", "it ends too early (byte 3)" },
      { "1901", "it ends too early (byte 3)" }, { "636161", "it ends too early (byte 4)" },
      { "c1", "it ends too early (byte 2)" }, { "9f01", "it ends too early (byte 3)" },
      { "0101", "bytes follow the value (byte 2)" }, { "1c", "no value starts with this byte (byte 1)" },
      { "8201fe", "no value starts with this byte (byte 3)" },
      { "81f0", "a simple value that has no meaning (byte 2)" },
      { "f8ff", "a simple value that has no meaning (byte 1)" }, { "ff", "a break where nothing can end (byte 1)" },
      { "81ff", "a break where nothing can end (byte 2)" }, { "bf01ff", "a break where nothing can end (byte 3)" },
      { "9fc1ff", "a break where nothing can end (byte 3)" },
      { "5f6161ff", PARTS },
      { "7f01ff", PARTS },
      { "7f7f6161ffff", PARTS },
      { "7fc06161ff", PARTS },
      { "7f80ff", PARTS },
      { "7ff4ff", PARTS },
      { "7ff6ff", PARTS },
      { "7ff90000ff", PARTS },
    }
    for _, case in ipairs(cases) do assert.equal("not CBOR: " .. case[2], refused(case[1])) end
    for _, first in ipairs({ "1c", "1d", "1e", "1f", "3c", "3f", "5c", "7d", "9e", "bc", "df", "fc", "fd" }) do
      assert.equal("not CBOR: no value starts with this byte (byte 1)", refused(first .. ("00"):rep(20)))
    end
  end)

  it("nests 64 deep and no more, whatever it is that nests", function()
    assert.same(nested(64, 1), decoded(("81"):rep(64) .. "01"))
    assert.same(nested(64, "ab"), decoded(("81"):rep(64) .. "7f61616162ff"))
    for _, head in ipairs({ "81", "9f", "c1", "a101", "bf01" }) do
      assert.is_table(decoded(("81"):rep(63) .. head .. "01" .. ((head == "9f" or head == "bf01") and "ff" or "")))
      assert.matches("nest more than 64 deep", refused(("81"):rep(64) .. head .. "01"))
      assert.matches("nest more than 64 deep", refused(head:rep(100000)))
    end
  end)

  it("reserves no more than the input can hold", function()
    local before = collectgarbage("count")
    local claims = {
      "9affffffff", "9bffffffffffffffff", "9b7fffffffffffffff", "baffffffff", "bb7fffffffffffffff",
      "bbffffffffffffffff", "5bffffffffffffffff61", "7b7fffffffffffffff61", "7affffffff61", "82" .. "9900ff" .. "00",
    }
    for _, claim in ipairs(claims) do refused(claim) end
    assert.equal("not CBOR: it claims more items than it has bytes (byte 1)", refused("9affffffff"))
    assert.is_true(collectgarbage("count") - before < 1024)
    local deep = ("9a00010000"):rep(60) .. ("00"):rep(65536 * 2)
    collectgarbage()
    before = collectgarbage("count")
    refused(deep)
    assert.is_true(collectgarbage("count") - before < 8192)
  end)

  it("reads large values", function()
    local list = {}
    for i = 1, 20000 do list[i] = ("item %d"):format(i) end
    assert.same(list, (cbor.decode(cbor.encode(list))))
    local text = ("x"):rep(3000000)
    assert.equal(text, (cbor.decode(cbor.encode(text))))
    assert.equal(text, (cbor.decode("\95" .. ("\89\3\232" .. ("x"):rep(1000)):rep(3000) .. "\255")))
  end)
end)

describe("decode_next", function()
  local formats = { cbor = cbor }
  local found, msgpack = pcall(require, "weir.msgpack")
  if found then formats.msgpack = msgpack end
  for name, format in pairs(formats) do
    it("takes one value after the other, as " .. name, function()
      local values = { 1, "two", { 3, { four = 4.5 } }, false, format.null, {}, ("x"):rep(1000) }
      local parts = {}
      for i, value in ipairs(values) do parts[i] = format.encode(value) end
      local text, position = table.concat(parts), 1
      for _, value in ipairs(values) do
        local got, behind = format.decode_next(text, position)
        assert.same(value, got)
        for cut = position - 1, behind - 2 do
          assert.same({ nil, "again" }, { format.decode_next(text:sub(1, cut), position) })
        end
        position = behind
      end
      assert.equal(#text + 1, position)
      assert.same({ nil, "again" }, { format.decode_next(text, position) })
    end)

    it("says 'again' of what claims more than there is, as " .. name, function()
      local claims = { cbor = { "\155\0\0\0\1\0\0\0\0", "\186\255\255\255\255", "\130\155\0\0\0\1\0\0\0\0" },
        msgpack = { "\221\255\255\255\255", "\223\255\255\255\255", "\146\221\255\255\255\255" } }
      for _, claim in ipairs(claims[name]) do
        assert.same({ nil, "again" }, { format.decode_next(claim) })
        assert.same({ nil, "again" }, { format.decode_next("\1\2" .. claim, 3) })
      end
    end)

    it("says what is wrong, and where in the bytes, as " .. name, function()
      local bad = name == "cbor" and "\28" or "\193"
      local value, err = format.decode_next("\1\2" .. bad, 3)
      assert.is_nil(value)
      assert.matches("no value starts with this byte %(byte 3%)$", err)
      assert.equal(1, (format.decode_next("\1" .. bad)))
    end)

    it("raises for a position outside of the bytes, as " .. name, function()
      for _, position in ipairs({ 0, -1, 4 }) do
        assert.has_error(function() format.decode_next("\1\2", position) end)
      end
      assert.has_error(function() format.decode_next() end)
    end)
  end

  it("ends where core.values says that a value ends", function()
    local core = require("weir.core")
    for _, vector in ipairs(VECTORS) do
      local text = bytes(vector[2])
      local values = core.values("cbor")
      assert.equal(#text + 1, (values:next(text .. "\1")))
      for i = 1, #text - 1 do
        assert.same({ nil, "again" }, { values:next(text:sub(i, i)) })
      end
      assert.equal(2, (values:next(text:sub(-1) .. "\0")))
      assert.same({ nil, "protocol", "no value starts with this byte", 2 }, { values:next("\130\28", 2) })
      values:reset()
      assert.equal(3, (values:next("\28\1", 2)))
    end
    assert.same({ nil, "limit", "the value is longer than allowed", 1 }, { core.values("msgpack", 3):next("\165") })
    for _, arguments in ipairs({ {}, { "json" }, { "cbor", 0 }, { "cbor", "x" } }) do
      assert.has_error(function() core.values(unpack(arguments)) end)
    end
  end)
end)
