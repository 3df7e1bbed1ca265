local cjson = require("cjson")
local codec = require("weir.codec")
local errors = require("weir.errors")

local function refused(code, name, value, err)
  assert.is_nil(value)
  assert.is_true(errors.is(err, code))
  assert.equal(name, err.codec)
  return err.message
end

local function nested(depth)
  local value = {}
  for _ = 2, depth do value = { value } end
  return value
end

describe("weir.codec.get", function()
  it("gives the same codec for the same name", function()
    for _, name in ipairs({ "raw", "json", "msgpack" }) do
      assert.equal(codec.get(name), codec.get(name))
      assert.equal(name, codec.get(name).name)
      assert.equal("weir.codec: " .. name, tostring(codec.get(name)))
    end
  end)

  it("gives a codec back as it is", function()
    local own = codec.get({ encode = tostring, decode = tonumber })
    assert.equal(own, codec.get(own))
    assert.equal(codec.get("json"), codec.get(codec.get("json")))
  end)

  it("lists the known names for an unknown one, and suggests the nearest", function()
    local function message(name) return select(2, pcall(codec.get, name)) end
    local known = "; known are: json, msgpack, raw, or a table with encode and decode"
    assert.matches("unknown codec 'jsno', did you mean 'json'?" .. known, message("jsno"), 1, true)
    assert.matches("did you mean 'msgpack'?", message("MessagePack"), 1, true)
    assert.matches("unknown codec 'protobuf'" .. known, message("protobuf"), 1, true)
    assert.matches("unknown codec ''" .. known, message(""), 1, true)
    assert.is_true(#message(("x"):rep(1e6)) < 300)
  end)

  it("blames its caller, or whom the level says", function()
    local function option(spec) codec.get(spec, 2) end
    for _, spec in ipairs({ "nope", {}, 7 }) do
      local line
      local _, direct = pcall(function()
        line = debug.getinfo(1, "l").currentline + 1
        codec.get(spec)
      end)
      assert.matches("codec_spec.lua:" .. line .. ": ", direct, 1, true)
      local _, through = pcall(function()
        line = debug.getinfo(1, "l").currentline + 1
        option(spec)
      end)
      assert.matches("codec_spec.lua:" .. line .. ": ", through, 1, true)
    end
  end)

  it("raises for what is neither a name nor a table", function()
    for _, spec in ipairs({ 1, true, print }) do
      assert.has_error(function() codec.get(spec) end,
        "a codec is a name or a table with encode and decode, not a " .. type(spec))
    end
    assert.has_error(function() codec.get() end)
  end)
end)

describe("the codec raw", function()
  local raw = codec.get("raw")

  it("passes strings through, and can be told from the others", function()
    assert.is_true(raw.raw)
    assert.is_nil(codec.get("json").raw)
    assert.is_nil(codec.get("msgpack").raw)
    assert.equal("\0\255", raw.encode("\0\255"))
    assert.equal("\0\255", raw.decode("\0\255"))
    assert.equal("", raw.decode(raw.encode("")))
  end)

  it("says which codecs take other values", function()
    for _, value in ipairs({ 1, true, {} }) do
      local message = refused("encode", "raw", raw.encode(value))
      assert.equal(("the codec 'raw' sends strings only, not a %s; for other values use 'json' or 'msgpack'")
        :format(type(value)), message)
    end
    refused("encode", "raw", raw.encode(nil))
  end)
end)

describe("the codec json", function()
  local json = codec.get("json")

  it("carries JSON values", function()
    local value = { name = "x", list = { 1, 2.5, true, false, codec.null, "é\n" }, empty = {} }
    assert.same(value, json.decode(json.encode(value)))
    assert.equal('{"a":[1,2]}', json.encode({ a = { 1, 2 } }))
    for _, single in ipairs({ true, false, 1.5, "text", codec.null }) do
      assert.equal(single, json.decode(json.encode(single)))
    end
  end)

  it("has null for nil", function()
    assert.equal(cjson.null, codec.null)
    assert.equal("null", json.encode(nil))
    assert.equal(codec.null, json.decode("null"))
    assert.same({ codec.null }, json.decode("[null]"))
  end)

  it("refuses NaN and the infinities, both ways", function()
    for _, number in ipairs({ 0 / 0, math.huge, -math.huge }) do
      assert.matches("NaN and infinity are no JSON", refused("encode", "json", json.encode({ number })))
    end
    for _, text in ipairs({ "NaN", "nan", "[Infinity]", "-Infinity", "inf", "0x10" }) do
      refused("decode", "json", json.decode(text))
    end
  end)

  it("refuses an array with holes", function()
    assert.matches("put null where a value is missing", refused("encode", "json", json.encode({ 1, nil, 3 })))
    assert.equal("[1,null,3]", json.encode({ 1, codec.null, 3 }))
  end)

  it("nests 64 deep and no more, both ways", function()
    assert.is_string(json.encode(nested(64)))
    assert.matches("more than 64 deep", refused("encode", "json", json.encode(nested(65))))
    assert.is_table(json.decode(("["):rep(64) .. ("]"):rep(64)))
    refused("decode", "json", json.decode(("["):rep(65) .. ("]"):rep(65)))
    refused("decode", "json", json.decode(("["):rep(100000)))
  end)

  it("refuses a table that contains itself", function()
    local loop = {}
    loop.loop = loop
    assert.matches("contain themselves", refused("encode", "json", json.encode(loop)))
  end)

  it("refuses what JSON has no form for", function()
    assert.matches("function", refused("encode", "json", json.encode({ f = print })))
    assert.matches("key", refused("encode", "json", json.encode({ [true] = 1 })))
  end)

  it("refuses an integer that it would change, and says which", function()
    for _, integer in ipairs({ math.maxinteger, math.mininteger, 1234567890123456789, 2 ^ 53 }) do
      for _, value in ipairs({ integer, { 1, { id = integer } }, { [integer] = true } }) do
        local message = refused("encode", "json", json.encode(value))
        assert.matches(("the integer %d has more digits"):format(integer), message, 1, true)
      end
    end
    for _, value in ipairs({ 99999999999999, -99999999999999, 10 ^ 15 // 1 | 0, 1e300, 2.0 ^ 70 }) do
      assert.is_true(math.abs(json.decode(json.encode(value)) / value - 1) < 1e-13)
    end
    assert.equal('"1e+2"', json.encode("1e+2"))
  end)

  it("refuses bytes that are no JSON, or more than one value", function()
    for _, text in ipairs({ "", " ", "{", "[1,]", "1 2", "{}x", "'a'", "\0", "nul", '"\1', '{"a"}' }) do
      refused("decode", "json", json.decode(text))
    end
  end)

  it("is the same where weir is built without simdjson", function()
    local names = { "weir.simdjson", "weir.codec.json" }
    local loaded = { package.loaded[names[1]], package.loaded[names[2]] }
    finally(function()
      package.preload[names[1]] = nil
      for i, name in ipairs(names) do package.loaded[name] = loaded[i] end
    end)
    package.preload[names[1]] = function() error("not built") end
    for _, name in ipairs(names) do package.loaded[name] = nil end
    local plain = require("weir.codec.json")
    assert.not_equal(json.decode, plain.decode)
    for _, text in ipairs({ '{"a":[1,2.5,null,"é"]}', "-0", "1e999", '"\255"', "false", "18446744073709551616" }) do
      assert.same(plain.decode(text), json.decode(text))
    end
    for _, text in ipairs({ "", "[1,]", '"\\ud800"', ("["):rep(65) .. ("]"):rep(65) }) do
      assert.equal(refused("decode", "json", plain.decode(text)), refused("decode", "json", json.decode(text)))
    end
  end)

  it("is independent of how others set up cjson", function()
    for _, instance in ipairs({ cjson, require("cjson.safe") }) do
      instance.encode_max_depth(2)
      instance.encode_invalid_numbers(true)
    end
    finally(function()
      for _, instance in ipairs({ cjson, require("cjson.safe") }) do
        instance.encode_max_depth(1000)
        instance.encode_invalid_numbers(false)
      end
    end)
    assert.equal("[[[{}]]]", json.encode(nested(4)))
    refused("encode", "json", json.encode(0 / 0))
  end)
end)

describe("the codec msgpack", function()
  local msgpack = codec.get("msgpack")

  it("carries values, with integers and any bytes exact", function()
    local value = { id = math.maxinteger, ratio = 0.1 + 0.2, blob = "\0\255", list = { true, codec.null, {} } }
    assert.same(value, msgpack.decode(msgpack.encode(value)))
    assert.equal("integer", math.type(msgpack.decode(msgpack.encode(7))))
    assert.equal(false, msgpack.decode(msgpack.encode(false)))
    assert.equal(codec.null, msgpack.decode(msgpack.encode(nil)))
  end)

  it("has errors as objects", function()
    assert.equal("cannot encode a function at .on.close",
      refused("encode", "msgpack", msgpack.encode({ on = { close = print } })))
    assert.matches("^not MessagePack: ", refused("decode", "msgpack", msgpack.decode("\193")))
  end)
end)

describe("a codec of one's own", function()
  it("is a table with encode and decode", function()
    local hex = codec.get({
      name = "hex",
      encode = function(value) return ("%x"):format(value) end,
      decode = function(bytes) return tonumber(bytes, 16) end,
    })
    assert.equal("hex", hex.name)
    assert.equal("ff", hex.encode(255))
    assert.equal(255, hex.decode("ff"))
    assert.equal("custom", codec.get(cjson).name)
  end)

  it("must have both functions", function()
    local function made(spec) return function() codec.get(spec) end end
    assert.has_error(made({ name = "x", decode = print }), "the codec 'x' needs a function 'encode', not a nil")
    assert.has_error(made({ name = "x", encode = print, decode = 5 }),
      "the codec 'x' needs a function 'decode', not a number")
    assert.has_error(made({}))
  end)

  it("has a name of 1 to 64 bytes", function()
    local function named(name)
      return function() return codec.get({ name = name, encode = print, decode = print }) end
    end
    assert.equal(64, #named(("n"):rep(64))().name)
    assert.has_error(named(("n"):rep(65)), "a codec's name must be a string of 1 to 64 bytes, not one of 65")
    assert.has_error(named(""), "a codec's name must be a string of 1 to 64 bytes, not one of 0")
    assert.has_error(named(7), "a codec's name must be a string of 1 to 64 bytes, not a number")
  end)

  it("may raise or report errors; both become error objects", function()
    local reason = { "a table" }
    local own = codec.get({
      name = "own",
      encode = function(value) error(value, 0) end,
      decode = function() return nil, "no such thing" end,
    })
    assert.equal("the codec 'own' cannot encode: too odd", refused("encode", "own", own.encode("too odd")))
    assert.equal("the codec 'own' cannot decode: no such thing", refused("decode", "own", own.decode("x")))
    assert.equal(reason, select(2, own.encode(reason)).cause)
  end)

  it("is told when it returns what it should not", function()
    local own = codec.get({ name = "own", encode = function(value) return value end, decode = function() end })
    assert.equal("the codec 'own' cannot encode: it returned a table instead of a string",
      refused("encode", "own", own.encode({})))
    assert.equal("the codec 'own' cannot encode: it returned a nil instead of a string",
      refused("encode", "own", own.encode(nil)))
    assert.equal("the codec 'own' cannot decode: it returned a nil instead of a value",
      refused("decode", "own", own.decode("x")))
  end)

  it("may decode to false", function()
    local own = codec.get({ encode = tostring, decode = function() return false end })
    assert.equal(false, own.decode("x"))
  end)

  it("may wait inside its functions", function()
    local own = codec.get({ encode = coroutine.yield, decode = coroutine.yield })
    local task = coroutine.wrap(function() return own.encode("question") end)
    assert.equal("question", task())
    assert.equal("answer", task("answer"))
  end)
end)
