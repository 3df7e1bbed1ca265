local msgpack = require("weir.msgpack")

local unpack = table.unpack or unpack -- luacheck: ignore 143 (LuaJIT has the other one)
local integers = math.type ~= nil

local function bytes(hex)
  return (hex:gsub("%s", ""):gsub("..", function(digits) return string.char(tonumber(digits, 16)) end))
end

local function hex(text)
  return (text:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

local function encoded(value) return hex(assert(msgpack.encode(value))) end

local function decoded(digits)
  local value, err = msgpack.decode(bytes(digits))
  assert(value ~= nil, err)
  return value
end

local function nested(depth, innermost)
  local value = innermost
  for _ = 1, depth do value = { value } end
  return value
end

describe("msgpack.encode", function()
  it("writes integers in the shortest form", function()
    local forms = {
      { 0, "00" }, { 127, "7f" }, { 128, "cc80" }, { 255, "ccff" }, { 256, "cd0100" }, { 65536, "ce00010000" },
      { 4294967296, "cf0000000100000000" }, { -1, "ff" }, { -32, "e0" }, { -33, "d0df" }, { -129, "d1ff7f" },
      { -32769, "d2ffff7fff" }, { -2147483649, "d3ffffffff7fffffff" },
    }
    for _, form in ipairs(forms) do assert.equal(form[2], encoded(form[1])) end
  end)

  it("writes every other number as a 64-bit float", function()
    assert.equal("cb3ff8000000000000", encoded(1.5))
    assert.equal("cb7ff0000000000000", encoded(math.huge))
    assert.equal("cb8000000000000000", encoded(-0.0))
    assert.equal("cb4415af1d78b58c40", encoded(1e20))
    local nan = msgpack.decode(msgpack.encode(0 / 0))
    assert.is_true(nan ~= nan)
  end)

  it("writes the booleans, nil and null", function()
    assert.equal("c2", encoded(false))
    assert.equal("c3", encoded(true))
    assert.equal("c0", encoded(nil))
    assert.equal("c0", encoded(msgpack.null))
  end)

  it("writes strings of valid UTF-8 as text", function()
    assert.equal("a0", encoded(""))
    assert.equal("a3c3a9" .. "21", encoded("é!"))
    assert.equal("d920" .. ("61"):rep(32), encoded(("a"):rep(32)))
    for _, text in ipairs({ "00", "c280", "dfbf", "e0a080", "ed9fbf", "ee8080", "efbfbf", "f0908080", "f48fbfbf" }) do
      assert.equal(("a%x"):format(#text / 2) .. text, encoded(bytes(text)))
    end
  end)

  it("writes other strings as binary", function()
    local invalid = {
      "80", "bf", "c0", "c080", "c1bf", "c2", "c2c2", "e0", "e09fbf", "e0a0", "e0a0c0", "eda080", "edbfbf", "f08fbfbf",
      "f09080", "f4908080", "f5808080", "ff", "6161616161616161ff", "6161616161ff6161", "c280616161616161fe",
    }
    for _, text in ipairs(invalid) do
      assert.equal(("c4%02x"):format(#text / 2) .. text, encoded(bytes(text)))
    end
  end)

  it("writes a table with keys 1..n as an array, and the empty table too", function()
    assert.equal("93010203", encoded({ 1, 2, 3 }))
    assert.equal("90", encoded({}))
    assert.equal("92c090", encoded({ msgpack.null, {} }))
    local reversed = {}
    for i = 20, 1, -1 do reversed[i] = 0 end
    assert.equal("dc0014" .. ("00"):rep(20), encoded(reversed))
  end)

  it("writes any other table as a map", function()
    assert.equal("81a16101", encoded({ a = 1 }))
    assert.equal("8102a162", encoded({ [2] = "b" }))
    assert.equal("81c301", encoded({ [true] = 1 }))
    assert.equal("8100" .. "01", encoded({ [0] = 1 }))
    assert.equal("81cb3ff800000000000001", encoded({ [1.5] = 1 }))
    for _, table in ipairs({ { 1, 2, x = 3 }, { 1, nil, 3 }, { [0] = 1, [2] = 2 }, { [-1] = 1, [2] = 2 } }) do
      local bytes_of = msgpack.encode(table)
      assert.equal(0x80, bytes_of:byte() - bytes_of:byte() % 16)
      assert.same(table, msgpack.decode(bytes_of))
    end
  end)

  it("obeys the markers of maps and arrays", function()
    assert.equal("80", encoded(msgpack.map()))
    assert.equal("8101a161", encoded(msgpack.map({ "a" })))
    assert.equal("90", encoded(msgpack.array({})))
    assert.equal("90", encoded(msgpack.array(msgpack.map())))
    local value, err = msgpack.encode({ list = msgpack.array({ 1, nil, 3 }) })
    assert.is_nil(value)
    assert.equal("cannot encode a table marked as an array at .list: its keys are not 1..n", err)
  end)

  it("marks no table that has a metatable of its own", function()
    assert.has_error(function() msgpack.map(setmetatable({}, {})) end)
    assert.has_error(function() msgpack.array("text") end)
  end)

  it("reads tables raw", function()
    local proxy = setmetatable({ 1 }, { __index = error, __len = error, __pairs = error })
    assert.equal("9101", encoded(proxy))
  end)

  it("names what it cannot encode and where that is", function()
    local function refused(value) return select(2, msgpack.encode(value)) end
    assert.equal("cannot encode a function", refused(print))
    assert.equal("cannot encode a function at .user.callback", refused({ user = { callback = print } }))
    assert.equal("cannot encode a thread at [2].x", refused({ 1, { x = coroutine.create(print) } }))
    assert.equal("cannot encode a userdata at [\"a b?\"]", refused({ ["a b\n"] = io.stdout }))
    assert.equal("cannot encode a function at [true][7]", refused({ [true] = { [7] = print } }))
    assert.equal("cannot encode a map key of type table at .a", refused({ a = { [{}] = 1 } }))
    assert.equal("cannot encode a map key of type userdata", refused({ [msgpack.null] = 1 }))
  end)

  it("shortens the keys that it names", function()
    local _, err = msgpack.encode({ [("k"):rep(1000)] = print })
    assert.equal("cannot encode a function at [\"" .. ("k"):rep(32) .. "...\"]", err)
  end)

  it("names a cycle and where it closes", function()
    local loop = {}
    loop.self = loop
    assert.equal("cannot encode a cycle: the table at .self contains itself", select(2, msgpack.encode(loop)))
    local owner = { items = { {} } }
    owner.items[1].owner = owner
    local _, err = msgpack.encode({ owner })
    assert.equal("cannot encode a cycle: the table at [1].items[1].owner contains itself", err)
  end)

  it("nests 64 tables and no more", function()
    assert.equal(("91"):rep(64) .. "01", encoded(nested(64, 1)))
    local value, err = msgpack.encode(nested(65, 1))
    assert.is_nil(value)
    assert.equal("cannot encode tables nested more than 64 deep", err)
  end)

  it("encodes values that are large", function()
    local list = {}
    for i = 1, 20000 do list[i] = ("item %d"):format(i) end
    assert.same(list, msgpack.decode(msgpack.encode(list)))
    local text = ("x"):rep(3000000)
    assert.equal(text, msgpack.decode(msgpack.encode(text)))
  end)

  it("keeps what it has written while the collector runs", function()
    local pause, multiplier = collectgarbage("setpause", 1), collectgarbage("setstepmul", 10000)
    finally(function()
      collectgarbage("setpause", pause)
      collectgarbage("setstepmul", multiplier)
    end)
    local parts = {}
    for i = 1, 40 do parts[i] = ("%d"):format(i):rep(10000) end
    for _ = 1, 20 do
      assert.same(parts, msgpack.decode(msgpack.encode(parts)))
    end
  end)

  it("raises without an argument", function()
    assert.has_error(function() msgpack.encode() end)
  end)
end)

describe("msgpack.decode", function()
  it("reads every form of integer", function()
    local forms = {
      { "7f", 127 }, { "e0", -32 }, { "cc05", 5 }, { "cd0005", 5 }, { "ce00000005", 5 }, { "cf0000000000000005", 5 },
      { "d0ff", -1 }, { "d1ffff", -1 }, { "d2ffffffff", -1 },
      { "d3ffffffffffffffff", -1 }, { "d37fffffffffffffff", 2 ^ 63 },
    }
    for _, form in ipairs(forms) do
      local value = decoded(form[1])
      assert.equal(form[2], form[2] == 2 ^ 63 and value + 0.0 or value)
    end
  end)

  it("keeps 64-bit integers exact where the language has them", function()
    if not integers then return end
    assert.equal(math.maxinteger, decoded("cf7fffffffffffffff"))
    assert.equal(math.mininteger, decoded("d38000000000000000"))
    assert.equal("integer", math.type(decoded("05")))
    assert.equal("float", math.type(decoded("cb3ff0000000000000")))
    assert.equal(math.mininteger, msgpack.decode(msgpack.encode(math.mininteger)))
  end)

  it("reads unsigned integers that Lua does not have as the nearest float", function()
    assert.equal(2 ^ 64, decoded("cfffffffffffffffff"))
    assert.equal(2 ^ 63, decoded("cf8000000000000000"))
  end)

  it("reads 32-bit and 64-bit floats", function()
    assert.equal(1.5, decoded("ca3fc00000"))
    assert.equal(-2.25, decoded("cbc002000000000000"))
    assert.equal(-math.huge, decoded("caff800000"))
  end)

  it("reads nil as null, alone and inside", function()
    assert.equal(msgpack.null, decoded("c0"))
    assert.same({ msgpack.null, false }, decoded("92c0c2"))
    assert.same({ a = msgpack.null }, decoded("81a161c0"))
  end)

  it("has the null of cjson", function()
    assert.equal(require("cjson").null, msgpack.null)
  end)

  it("reads every form of text and binary as a string", function()
    local forms = { "a2", "d902", "da0002", "db00000002", "c402", "c50002", "c600000002" }
    for _, form in ipairs(forms) do
      form = form .. "ff00"
      assert.equal("\255\0", decoded(form))
    end
    for _, form in ipairs({ "a0", "d900", "da0000", "db00000000", "c400", "c50000", "c600000000" }) do
      assert.equal("", decoded(form))
    end
  end)

  it("reads every form of array and map", function()
    for _, form in ipairs({ "920102", "dc00020102", "dd000000020102" }) do assert.same({ 1, 2 }, decoded(form)) end
    for _, form in ipairs({ "81a16102", "de0001a16102", "df00000001a16102" }) do
      assert.same({ a = 2 }, decoded(form))
    end
    for _, form in ipairs({ "90", "dc0000", "dd00000000", "80", "de0000", "df00000000" }) do
      assert.same({}, decoded(form))
    end
    assert.same({ {}, { {} }, { x = {} } }, decoded("93909190" .. "81a17880"))
  end)

  it("takes the last of equal keys", function()
    assert.same({ a = 2 }, decoded("82a16101a16102"))
  end)

  it("reads extension values, and writes them back the same", function()
    local forms = {
      { "d401aa", 1, "aa" }, { "d5ffaabb", -1, "aabb" }, { "d680" .. ("ab"):rep(4), -128, ("ab"):rep(4) },
      { "d77f" .. ("01"):rep(8), 127, ("01"):rep(8) }, { "d805" .. ("02"):rep(16), 5, ("02"):rep(16) },
      { "c70006", 6, "" }, { "c70307010203", 7, "010203" },
    }
    for _, form in ipairs(forms) do
      local value = decoded(form[1])
      assert.equal(form[2], value.type)
      assert.equal(form[3], hex(value.data))
      assert.equal(form[1], encoded(value))
      assert.equal(form[1], encoded(msgpack.ext(form[2], bytes(form[3]))))
    end
    assert.equal("05", hex(decoded("c80001" .. "0305").data))
    assert.equal("05", hex(decoded("c900000001" .. "0305").data))
  end)

  it("refuses to make or to write an extension value that is none", function()
    assert.has_error(function() msgpack.ext(128, "") end)
    assert.has_error(function() msgpack.ext(1) end)
    local value = msgpack.ext(1, "x")
    value.type = 1000
    local _, err = msgpack.encode({ at = value })
    assert.equal("cannot encode an extension value at .at: it needs type (-128..127) and data", err)
  end)

  it("raises for what is no string", function()
    assert.has_error(function() msgpack.decode({}) end)
    assert.has_error(function() msgpack.decode() end)
  end)
end)

describe("msgpack.decode of hostile bytes", function()
  local function refused(text)
    local value, err = msgpack.decode(text)
    assert.is_nil(value)
    assert.is_string(err)
    return err
  end

  local function kilobytes_for(f)
    collectgarbage()
    collectgarbage("stop")
    local before = collectgarbage("count")
    f()
    local used = collectgarbage("count") - before
    collectgarbage("restart")
    return used
  end

  it("refuses every proper beginning of a value", function()
    local whole = msgpack.encode({
      1, -1, 300, -300, 70000, 2 ^ 40, 1.5, "text", ("long"):rep(100), "\255", { a = { true, false } },
      msgpack.ext(1, "abcd"), msgpack.ext(2, "abc"), {}, msgpack.null,
    })
    assert(msgpack.decode(whole))
    for n = 0, #whole - 1 do
      assert.matches("^not MessagePack: it ", refused(whole:sub(1, n)))
    end
  end)

  it("refuses bytes after the value", function()
    assert.equal("not MessagePack: bytes follow the value (byte 2)", refused(bytes("0102")))
    assert.matches("bytes follow", refused(bytes("9000")))
  end)

  it("refuses the one byte that starts no value", function()
    assert.equal("not MessagePack: no value starts with this byte (byte 3)", refused(bytes("9201c1")))
  end)

  it("reserves nothing for lengths that the input does not have", function()
    local claims = { "ddffffffff", "dfffffffff", "dcffff", "deffff", "dbffffffff61", "c6ffffffff61", "c9ffffffff01" }
    for _, claim in ipairs(claims) do
      local text = bytes(claim)
      refused(text)
      assert.is_true(kilobytes_for(function() msgpack.decode(text) end) < 2)
    end
    assert.equal("not MessagePack: it claims more items than it has bytes (byte 5)", refused(bytes("ddffffffff")))
    assert.matches("claims more items", refused(bytes("df00000006" .. "00000000")))
  end)

  it("bounds what nested claims reserve together", function()
    local size = 60000
    local claim = bytes("dd") .. string.char(0, 0, 0xe0, 0)
    local text = claim:rep(60) .. ("\0"):rep(size - 60 * #claim)
    assert.is_true(kilobytes_for(function() refused(text) end) < 64 * size / 1024)
  end)

  it("reads 64 levels and refuses the next, however many follow", function()
    assert.same(nested(64, 1), msgpack.decode(("\145"):rep(64) .. "\1"))
    local err = "not MessagePack: arrays and maps nest more than 64 deep (byte 65)"
    assert.equal(err, refused(("\145"):rep(65) .. "\1"))
    assert.equal(err, refused(("\145"):rep(10000) .. "\1"))
    assert.equal(err, refused(("\129"):rep(10000)))
  end)

  it("refuses map keys that Lua cannot hold or find again", function()
    for _, form in ipairs({ "81c001", "819001", "818001", "81cb7ff800000000000001", "81d4010001" }) do
      assert.matches("a map key is neither a string nor a number nor a boolean", refused(bytes(form)))
    end
  end)

  it("answers any bytes with a value or an error", function()
    local state = 12345
    local function random(n)
      state = (state * 1103515245 + 12345) % 2147483648
      return math.floor(state / 65536) % n
    end
    for _ = 1, 20000 do
      local text = {}
      for i = 1, random(24) + 1 do text[i] = random(4) == 0 and random(256) or 0x80 + random(0x60) end
      local value, err = msgpack.decode(string.char(unpack(text)))
      if value == nil then
        assert(type(err) == "string")
      else
        assert(msgpack.decode(assert(msgpack.encode(value))) ~= nil)
      end
    end
  end)
end)
