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
    local known = "; known are: cbor, json, msgpack, raw, or a table with encode and decode"
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
      assert.equal(("the codec 'raw' sends strings only, not a %s; for other values use 'json', 'msgpack' or 'cbor'")
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

  it("decodes whole numbers to integers, with simdjson and without", function()
    for _, text in ipairs({ "[1, -20, 0, 9007199254740991]", "[1, -20, 0, 9007199254740991, -0]" }) do
      local list = json.decode(text)
      for i = 1, 4 do
        assert.equal("integer", math.type(list[i]), text)
      end
    end
    local value = json.decode('{"a": {"b": [1.5, -0, 1e300, 7]}}').a.b
    assert.same({ "float", "float", "float", "integer" }, {
      math.type(value[1]), math.type(value[2]), math.type(value[3]), math.type(value[4]),
    })
    assert.equal("-0.0", tostring(value[2]))
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

describe("the codec cbor", function()
  local cbor = codec.get("cbor")

  it("carries values, with integers and any bytes exact", function()
    local value = { id = math.maxinteger, ratio = 0.1 + 0.2, blob = "\0\255", list = { true, codec.null, {} } }
    assert.same(value, cbor.decode(cbor.encode(value)))
    assert.equal("integer", math.type(cbor.decode(cbor.encode(7))))
    assert.equal(false, cbor.decode(cbor.encode(false)))
    assert.equal(codec.null, cbor.decode(cbor.encode(nil)))
  end)

  it("has errors as objects", function()
    assert.equal("cannot encode a function at .on.close",
      refused("encode", "cbor", cbor.encode({ on = { close = print } })))
    assert.matches("^not CBOR: ", refused("decode", "cbor", cbor.decode("\255")))
  end)
end)

describe("decode_next", function()
  it("is there where values say themselves where they end", function()
    for _, name in ipairs({ "cbor", "msgpack" }) do
      local own = codec.get(name)
      local bytes = own.encode({ 1 }) .. own.encode(false)
      local value, behind = own.decode_next(bytes, 1)
      assert.same({ 1 }, value)
      assert.same({ false, #bytes + 1 }, { own.decode_next(bytes, behind) })
      assert.same({ nil, "again" }, { own.decode_next(bytes:sub(1, 1), 1) })
      refused("decode", name, own.decode_next(name == "cbor" and "\28" or "\193", 1))
      assert.equal(behind, own.scanner(10):next(bytes))
    end
    assert.is_nil(codec.get("json").decode_next)
    assert.is_nil(codec.get("raw").decode_next)
  end)
end)

describe("codec.by_content_type", function()
  local function found(content_type)
    local own = codec.by_content_type(content_type)
    return own and own.name
  end

  it("finds the codec of a content type", function()
    local types = {
      json = { "application/json", "application/ld+json", "application/vnd.order.v1+json" },
      msgpack = { "application/msgpack", "application/x-msgpack", "application/vnd.msgpack" },
      cbor = { "application/cbor", "application/senml+cbor", "application/cbor-seq" },
      raw = { "application/octet-stream", "text/plain", "text/csv" },
    }
    for name, list in pairs(types) do
      assert.equal(name, found(codec.get(name).content_type))
      for _, each in ipairs(list) do
        assert.equal(name, found(each))
        assert.equal(name, found(" " .. each:upper() .. " ; charset=UTF-8"))
        assert.equal(name, found(each .. ";q=1"))
      end
    end
  end)

  it("finds none for others", function()
    for _, each in ipairs({ "", "json", "text", "text/", "application/xml", "image/png", "a/json5", "+json" }) do
      assert.is_nil(found(each))
    end
  end)

  it("says so when weir is built without the codec", function()
    local loaded = { package.loaded["weir.cbor"], package.loaded["weir.codec.cbor"], package.loaded["weir.codec"] }
    finally(function()
      package.preload["weir.cbor"] = nil
      package.loaded["weir.cbor"], package.loaded["weir.codec.cbor"], package.loaded["weir.codec"] =
        loaded[1], loaded[2], loaded[3]
    end)
    package.preload["weir.cbor"] = function() error("not built") end
    package.loaded["weir.cbor"], package.loaded["weir.codec.cbor"], package.loaded["weir.codec"] = nil, nil, nil
    local value, err = require("weir.codec").by_content_type("application/cbor")
    assert.is_nil(value)
    assert.equal("unsupported", err.code)
    assert.matches("needs the module weir.cbor", err.message, 1, true)
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

  it("may have a content type and decode_next", function()
    local function made(more)
      return codec.get({ name = "own", encode = tostring, decode = tostring, content_type = more.content_type,
        decode_next = more.decode_next })
    end
    assert.equal("application/x-own", made({ content_type = "application/x-own" }).content_type)
    for _, wrong in ipairs({ 5, "", "own", "a/b\r\nc: d" }) do
      assert.has_error(function() made({ content_type = wrong }) end,
        "the codec 'own': content_type must be a text such as \"application/x-name\"")
    end
    assert.has_error(function() made({ decode_next = 5 }) end,
      "the codec 'own': decode_next must be a function, not a number")
    assert.is_nil(made({}).decode_next)
    local own = made({ decode_next = function(bytes, position)
      local behind = bytes:find(";", position, true)
      if bytes:sub(position, position) == "!" then error("too odd", 0) end
      if not behind then return nil, bytes:find("?", position, true) and "no such thing" or "again" end
      return bytes:sub(position, behind - 1), behind + 1
    end })
    assert.same({ "b", 5 }, { own.decode_next("a;b;c", 3) })
    assert.same({ nil, "again" }, { own.decode_next("a;b;c", 5) })
    assert.equal("the codec 'own' cannot decode: too odd", refused("decode", "own", own.decode_next("!", 1)))
    assert.equal("the codec 'own' cannot decode: no such thing", refused("decode", "own", own.decode_next("?", 1)))
    for _, behind in ipairs({ 1, 0, 4, 1.5, "2" }) do
      local wrong = made({ decode_next = function() return "x", behind end })
      assert.matches("instead of the position behind the value", refused("decode", "own", wrong.decode_next("ab", 1)))
    end
    local silent = made({ decode_next = function() end })
    assert.matches("returned nil and no reason", refused("decode", "own", silent.decode_next("ab", 1)))
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
