local asyncapi = require("weir.asyncapi")
local codec = require("weir.codec")
local name = require("weir.asyncapi.name")
local support = require("spec.lua.asyncapi.support")

local json = codec.get("json")

local function lyaml()
  local found, module = pcall(require, "lyaml")
  return found and module or nil
end

-- Strings that YAML takes for something else, or that break it, unless they are quoted.
-- (Not a NUL: lyaml ends a string there.)
local STRINGS = {
  "", " ", "a ", " a", "true", "Yes", "NO", "off", "null", "~", "1", "1.0", "0x1f", "1e3", "2026-11-20", "a: b", "a #b",
  "#a", "- a", "[a]", "{a}", "&a", "*a", "!a", "|", ">", "%a", "@a", "`a", "'a'", '"a"', "a\nb", "a\r\n\tb", "\\", "ü",
  "\1", "\127", "\194\133", "\226\128\168", "\239\187\191", "😀", "=", "y", "n", "a,b", "?", "? a", "-", "---",
  "...",
}

describe("a document as text", function()
  it("is the same in JSON and in YAML", function()
    if not lyaml() then
      return pending("lyaml is not installed")
    end
    for _, document in ipairs({
      { strings = STRINGS, list = { { 1, { 2 } }, { a = { b = {} } }, {} }, required = {} },
      { numbers = { 0, -1, 1.5, 0.1, 1e300, 2 ^ 53, -0.25 }, yes = true, no = false, deep = { { { { a = "b" } } } } },
      assert(asyncapi.document(support.everything())),
    }) do
      local from_yaml = assert(asyncapi.read((assert(asyncapi.to_yaml(document)))))
      local from_json = assert(asyncapi.read((assert(asyncapi.to_json(document)))))
      assert.equal(asyncapi.to_json(from_json), (asyncapi.to_json(from_yaml)))
    end
  end)

  it("has keys as strings, whatever they look like", function()
    if not lyaml() then
      return pending("lyaml is not installed")
    end
    local document = {}
    for _, each in ipairs(STRINGS) do
      document[each] = each
    end
    assert.same(document, lyaml().load((assert(asyncapi.to_yaml(document)))))
    assert.same(document, json.decode((assert(asyncapi.to_json(document)))))
  end)

  it("has its keys in the order of the specification, then by name", function()
    local document = { b = {}, a = 1, required = {}, info = { version = "1", title = "a" }, asyncapi = "3.1.0" }
    assert.equal([[
{
  "asyncapi": "3.1.0",
  "info": {
    "title": "a",
    "version": "1"
  },
  "required": [],
  "a": 1,
  "b": {}
}
]], (asyncapi.to_json(document)))
  end)

  it("has keys of any length", function()
    if not lyaml() then
      return pending("lyaml is not installed")
    end
    local document = { list = { {} } }
    for _, length in ipairs({ 100, 119, 121, 127, 128, 1000, 1025, 5000 }) do
      document[("k"):rep(length)] = { [("*"):rep(length)] = "a", b = { c = { 1 } } }
      document.list[1][("l"):rep(length)] = ("v"):rep(length)
    end
    assert.same(document, lyaml().load((assert(asyncapi.to_yaml(document)))))
  end)

  it("is read with a byte order mark, with names that are no texts, and with braces of YAML", function()
    local mark = "\239\187\191"
    assert.same({ a = 1 }, asyncapi.read(mark .. '{"a":1}'))
    if not lyaml() then
      return pending("lyaml is not installed")
    end
    assert.same({ a = codec.null, ["2"] = "x", ["true"] = "y" }, asyncapi.read(mark .. "a: ~\n2: x\nyes: y\n"))
    assert.same({ a = { "b" } }, asyncapi.read("{a: [b]}"))
    local shared = assert(asyncapi.read("a: &x {b: ~, c: *x}\nd: *x\n"))
    assert.equal(shared.a, shared.d)
    assert.equal(shared.a, shared.a.c)
    assert.equal(codec.null, shared.a.b)
  end)

  it("replaces bytes that are no UTF-8", function()
    assert.equal('{\n  "a": "x\239\191\189y\239\191\189"\n}\n', (asyncapi.to_json({ a = "x\255y\192" })))
  end)

  it("is not made of what contains itself, or of what is no data", function()
    local cycle = {}
    cycle.a = cycle
    for _, write in ipairs({ asyncapi.to_json, asyncapi.to_yaml }) do
      for _, value in ipairs({ cycle, { a = print }, { a = { 1 / 0 } }, { a = { 1, 2, b = 3 } },
        { a = { 1, [3] = 3 } } }) do
        local text, err = write(value)
        assert.is_nil(text)
        assert.equal("encode", err.code)
      end
    end
  end)

  it("that is none is refused with a reason", function()
    for text, code in pairs({ ["{"] = "decode", ["a: " .. ("["):rep(1e6)] = "too_large",
      [("- "):rep(1e6)] = "too_large", ["[1"] = "decode", ["a: [}"] = "decode", ["just words"] = "decode",
      [""] = "decode", [("x"):rep(17 * 1024 * 1024)] = "too_large" }) do
      local document, err = asyncapi.read(text)
      assert.is_nil(document, text:sub(1, 10))
      assert.equal(code, err.code, text:sub(1, 10))
    end
  end)
end)

describe("an id", function()
  it("is never that of another name", function()
    local seen, alphabet = {}, { "_", "-", "5", "F", "a", ".", "*", "/" }
    local function try(text)
      local id = name.id(text)
      assert.matches("^[%w.%-_]*$", id)
      assert.is_nil(seen[id], text)
      seen[id] = text
      if #text < 5 then
        for _, char in ipairs(alphabet) do
          try(text .. char)
        end
      end
    end
    try("")
  end)

  it("of several names is never that of one, or of others", function()
    local parts, seen = { "a", "_", "-", "a_", "-a", "_-", "a_-a", "_5F" }, {}
    for _, first in ipairs(parts) do
      seen[name.id(first)] = true
    end
    for _, first in ipairs(parts) do
      for _, second in ipairs(parts) do
        local id = name.join(first, second)
        assert.is_nil(seen[id], first .. " " .. second)
        seen[id] = true
      end
    end
  end)

  it("is the name itself where that can be", function()
    for _, each in ipairs({ "orders", "orders.eu.new", "order_lines", "order-lines", "Orders2" }) do
      assert.equal(each, name.id(each))
    end
  end)
end)
